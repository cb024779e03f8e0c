//! `diff`: what differs between two texts, word by word.

use std::sync::Arc;

use arrow::array::{AsArray, StringViewArray};
use arrow::datatypes::DataType;

use super::{FunctionKind, Plain};

/// Words of each text that are compared; the table of a comparison has the square of it.
const WORDS_MAX: usize = 2000;

pub(super) const KIND: FunctionKind = FunctionKind {
    name: "diff",
    summary: "the words of two texts as one: `[-…-]` stands in the first only, `{+…+}` in the second only, as `git diff --word-diff` writes it; the first 2,000 words of each",
    arguments: "(text, text)",
    returns: "text",
    // As `git diff --no-index --word-diff` of git 2.39 prints it.
    example: (
        "diff('the quick brown fox', 'the slow brown fox jumps')",
        "the [-quick-]{+slow+} brown fox {+jumps+}",
    ),
    build: || {
        let arguments = vec![vec![DataType::Utf8View, DataType::Utf8View]];
        Plain::udf("diff", arguments, DataType::Utf8View, |arguments| {
            let pairs = arguments[0].as_string_view().iter().zip(arguments[1].as_string_view());
            let merged = pairs.map(|(left, right)| Some(merge(left?, right?)));
            Ok(Arc::new(merged.collect::<StringViewArray>()))
        })
    },
};

/// Both texts along their longest common subsequence of words.
fn merge(left: &str, right: &str) -> String {
    let words = |text| str::split_whitespace(text).take(WORDS_MAX).collect::<Vec<&str>>();
    let (left, right) = (words(left), words(right));
    let width = right.len() + 1;
    // Longest common subsequence of what is behind each pair of places.
    let mut longest = vec![0_u16; (left.len() + 1) * width];
    for i in (0..left.len()).rev() {
        for j in (0..right.len()).rev() {
            longest[i * width + j] = match left[i] == right[j] {
                true => longest[(i + 1) * width + j + 1] + 1,
                false => longest[(i + 1) * width + j].max(longest[i * width + j + 1]),
            };
        }
    }
    let mut pieces: Vec<String> = Vec::new();
    let (mut cut, mut added) = (Vec::new(), Vec::new());
    let flush = |cut: &mut Vec<&str>, added: &mut Vec<&str>, pieces: &mut Vec<String>| {
        let mut piece = String::new();
        if !cut.is_empty() {
            piece.push_str(&format!("[-{}-]", std::mem::take(cut).join(" ")));
        }
        if !added.is_empty() {
            piece.push_str(&format!("{{+{}+}}", std::mem::take(added).join(" ")));
        }
        if !piece.is_empty() {
            pieces.push(piece);
        }
    };
    let (mut i, mut j) = (0, 0);
    while i < left.len() || j < right.len() {
        if i < left.len() && j < right.len() && left[i] == right[j] {
            flush(&mut cut, &mut added, &mut pieces);
            pieces.push(left[i].to_owned());
            (i, j) = (i + 1, j + 1);
        } else if j == right.len()
            || (i < left.len() && longest[(i + 1) * width + j] >= longest[i * width + j + 1])
        {
            cut.push(left[i]);
            i += 1;
        } else {
            added.push(right[j]);
            j += 1;
        }
    }
    flush(&mut cut, &mut added, &mut pieces);
    pieces.join(" ")
}

#[cfg(test)]
mod tests {
    use super::merge;

    #[test]
    fn words_are_kept_cut_and_added() {
        for (left, right, expected) in [
            ("", "", ""),
            ("a b", "a  b", "a b"),
            ("a b c", "", "[-a b c-]"),
            ("", "a", "{+a+}"),
            ("a b c d", "a c d e", "a [-b-] c d {+e+}"),
            ("x a y", "p a q", "[-x-]{+p+} a [-y-]{+q+}"),
        ] {
            assert_eq!(merge(left, right), expected, "{left} / {right}");
        }
    }
}
