//! Spans of a few sentences that stood somewhere before, as C4 took them out.
//!
//! Every window of [`Config::sentences`] sentences is compared; where one is a copy, all of its sentences go. A sentence ends
//! behind `.`, `!`, `?` or `…`, with closing quotes and brackets, before white space; behind their forms of East Asia; and at the end of a line.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::paragraph::Normalize;
use crate::span::{Emit, Piece, Pieces, find_pieces};
use crate::{Bloom, Error, Finds, MethodKind, Result, SpanMethod, SpillWriter};

pub(crate) const KIND: MethodKind = MethodKind {
    name: "sentence_span",
    summary: "spans of three sentences that stood before",
    source: "Raffel et al. 2020, C4: all but one of any three-sentence span",
    finds: Finds::Spans(|table, _| {
        let config: Config = crate::parse_table("sentence_span", table)?;
        config.check()?;
        Ok(Box::new(config))
    }),
    default_config: crate::default_table::<Config>,
    check: |table| crate::parse_table::<Config>("sentence_span", table)?.check(),
};

/// Settings of the search for repeated sentences.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Sentences in a span, 1 to 100.
    pub sentences: usize,
    /// What does not count when sentences are compared.
    pub normalize: Normalize,
    /// Whether the first occurrence stays.
    pub keep_first: bool,
    /// A search by Bloom filters, `{ false_positive_rate = 1e-5 }`; exact without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bloom: Option<Bloom>,
}

impl Default for Config {
    fn default() -> Self {
        // C4's.
        Self { sentences: 3, normalize: Normalize::Words, keep_first: true, bloom: None }
    }
}

impl Config {
    fn check(&self) -> Result<()> {
        match (1..=100).contains(&self.sentences) {
            true => {
                self.bloom.map_or(Ok(()), |bloom| bloom.check("sentence_span", self.keep_first))
            }
            false => Err(Error::Config {
                method: "sentence_span",
                message: format!("`sentences` is {}, it must be 1 to 100", self.sentences),
                hint: "C4 compared spans of 3".to_owned(),
            }),
        }
    }
}

impl SpanMethod for Config {
    fn config(&self) -> toml::Table {
        toml::Table::try_from(self).expect("settings are plain values")
    }

    fn spill(&self, row: u32, text: &str, writer: &mut SpillWriter) -> Result<()> {
        let mut normalised = String::new();
        let sentences: Vec<(u32, u32, u128)> = sentences(text)
            .map(|(start, end)| {
                let key = self.normalize.key(text[start..end].trim(), &mut normalised);
                (crate::span::offset(start), crate::span::offset(end), key)
            })
            .collect();
        let mut keys = Vec::new();
        for window in sentences.windows(self.sentences) {
            keys.clear();
            keys.extend(window.iter().flat_map(|(_, _, key)| key.to_le_bytes()));
            let (start, end) = (window[0].0, window[window.len() - 1].1);
            Piece { key: xxh3_128(&keys), row, start, end }.spill(writer)?;
        }
        Ok(())
    }

    fn find(&self, pieces: Pieces<'_>, table_bytes: u64, emit: Emit<'_>) -> Result<()> {
        match self.bloom {
            Some(bloom) => bloom.find("sentence_span", pieces, table_bytes, emit),
            None => find_pieces(pieces, table_bytes, self.keep_first, emit),
        }
    }

    fn stated(&self, bytes: u64) -> Option<String> {
        self.bloom.map(|bloom| bloom.stated(bytes / Piece::BYTES as u64))
    }
}

/// Returns the byte ranges of sentences, each with the white space behind it; what is only white space is no sentence.
fn sentences(text: &str) -> impl Iterator<Item = (usize, usize)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        while start < text.len() {
            let rest = &text[start..];
            let length = sentence_bytes(rest);
            let space = rest[length..].len() - rest[length..].trim_start().len();
            let (first, end) = (start, start + length + space);
            start = end;
            if !rest[..length].trim().is_empty() {
                return Some((first, end));
            }
        }
        None
    })
}

/// Length of the first sentence, without the white space behind it.
fn sentence_bytes(text: &str) -> usize {
    let mut chars = text.char_indices().peekable();
    let mut has_text = false;
    while let Some((at, c)) = chars.next() {
        has_text |= !c.is_whitespace();
        let ends = match c {
            '\n' => return at,
            '。' | '！' | '？' => true,
            '.' | '!' | '?' | '…' => {
                while chars.next_if(|(_, c)| is_closing(*c)).is_some() {}
                chars.peek().is_none_or(|(_, c)| c.is_whitespace())
            }
            _ => false,
        };
        if ends && has_text {
            while chars.next_if(|(_, c)| is_closing(*c)).is_some() {}
            return chars.peek().map_or(text.len(), |(at, _)| *at);
        }
    }
    text.len()
}

/// What stands behind the end of a sentence and belongs to it.
fn is_closing(c: char) -> bool {
    matches!(
        c,
        '.' | '!' | '?' | '…' | '"' | '\'' | ')' | ']' | '”' | '’' | '»' | '」' | '』' | '）'
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Repeat;
    use crate::span::tests::{LAYOUTS, run};

    fn split(text: &str) -> Vec<&str> {
        sentences(text).map(|(start, end)| &text[start..end]).collect()
    }

    #[test]
    fn sentences_end_at_stops_before_space_and_at_line_ends() {
        assert_eq!(
            split("One. Two 3.5 is! (Three?) Four"),
            ["One. ", "Two 3.5 is! ", "(Three?) ", "Four"]
        );
        assert_eq!(
            split("“So.” He said...\n\nA title\nend"),
            ["“So.” ", "He said...\n\n", "A title\n", "end"]
        );
        assert_eq!(split("今天。你好！「好。」再见"), ["今天。", "你好！", "「好。」", "再见"]);
        assert_eq!(split("\n \n"), Vec::<&str>::new());
        assert_eq!(split("\n A."), ["A."]);
    }

    #[test]
    fn all_but_the_first_of_any_span_of_three_goes() {
        let texts = [
            "It rains. I stay. You go. We meet.",
            "Hello. It  RAINS. I stay.\nYou go. Bye.",
            "I stay. You go. Never mind.",
        ];
        let span = |row: u32, text: &str| {
            let start = u32::try_from(texts[row as usize].find(text).unwrap()).unwrap();
            (row, start, start + u32::try_from(text.len()).unwrap())
        };
        let (row, start, end) = span(1, "It  RAINS. I stay.\nYou go. ");
        let expected = vec![Repeat { row, start, end, kept: Some((0, 0)) }];
        for layout in LAYOUTS {
            assert_eq!(run("sentence_span", "", &texts, layout), expected);
        }
        // Of two sentences, the last text repeats some too.
        let found = run("sentence_span", "sentences = 2", &texts, LAYOUTS[0]);
        assert_eq!(found.len(), 3);
        let (row, start, end) = span(2, "I stay. You go. ");
        assert!(found.contains(&Repeat { row, start, end, kept: Some((0, 10)) }));
    }
}
