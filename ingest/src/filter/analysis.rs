//! What the filters of a chain need of a text, computed once for all of them.

use std::collections::HashMap;

use arrow::array::StringViewArray;

use super::words::{self, Word};

/// Words of the texts of a batch, kept from filter to filter of a chain.
///
/// A filter drops rows and the next one sees a batch of the others, whose texts lie in the same buffers: a text is known again
/// by where it lies. The batch is held until the next one comes, so no other text can lie there. Nothing here changes a verdict:
/// with a new `Analysis` for each call they are the same, only later.
#[derive(Debug, Default)]
pub struct Analysis {
    texts: Option<StringViewArray>,
    words: Vec<Vec<Word>>,
}

impl Analysis {
    /// Returns the words of each text, in order.
    pub(super) fn words(&mut self, texts: &StringViewArray) -> &[Vec<Word>] {
        let at = |text: &str| (text.as_ptr() as usize, text.len());
        let rows = |texts: &StringViewArray| {
            let rows: Vec<(usize, usize)> =
                texts.iter().map(|text| at(text.unwrap_or_default())).collect();
            rows
        };
        let wanted = rows(texts);
        let known = self.texts.as_ref().map(rows).unwrap_or_default();
        if wanted != known {
            let mut known: HashMap<(usize, usize), Vec<Word>> =
                known.into_iter().zip(self.words.drain(..)).collect();
            self.words = texts
                .iter()
                .map(Option::unwrap_or_default)
                .map(|text| known.remove(&at(text)).unwrap_or_else(|| words::of(text)))
                .collect();
            self.texts = Some(texts.clone());
        }
        &self.words
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, UInt32Array};
    use arrow::compute::take;

    use super::*;

    #[test]
    fn knows_the_words_of_rows_that_earlier_filters_kept_and_of_new_ones() {
        let first = "one sentence that is not stored in its view";
        let second = "another sentence that is not stored there either";
        let texts = StringViewArray::from(vec![first, "short", second, first]);
        let mut analysis = Analysis::default();
        let counts = |analysis: &mut Analysis, texts: &StringViewArray| {
            analysis.words(texts).iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(counts(&mut analysis, &texts), [9, 1, 8, 9]);
        let storage = analysis.words[2].as_ptr();
        let kept = take(&texts, &UInt32Array::from(vec![1, 2]), None).unwrap();
        assert_eq!(counts(&mut analysis, kept.as_string_view()), [1, 8]);
        assert_eq!(analysis.words[1].as_ptr(), storage, "taken over, not computed again");
        let other = StringViewArray::from(vec!["two words, and some more behind them"]);
        assert_eq!(counts(&mut analysis, &other), [8]);
        assert_eq!(counts(&mut analysis, &texts.slice(0, 0)), [0; 0]);
    }
}
