//! `bm25_stats`: what BM25 must know of all texts before it can score one.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, StringArray, StructArray, UInt64Array, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, UInt64Type};
use datafusion::common::{Result as EngineResult, ScalarValue};
use datafusion::logical_expr::Accumulator;
use unicode_segmentation::UnicodeSegmentation;

use super::{FunctionKind, aggregate};

pub(super) const KIND: FunctionKind = FunctionKind {
    name: "bm25_stats",
    summary: "an aggregate for `bm25`: how many documents and words there are, and in how many documents each word of the query stands; words are Unicode's, in lower case",
    arguments: "(text, query)",
    returns: "struct of documents, words, terms and frequencies",
    example: (
        "(select bm25_stats(t, 'Barley bread')['frequencies'] from (values ('Bread of barley.'), ('barley'), ('rye')) as v(t))",
        "[2, 1]",
    ),
    build: || {
        let arguments = vec![DataType::Utf8View, DataType::Utf8];
        aggregate::<Stats>("bm25_stats", arguments, returns(), vec![returns()])
    },
};

/// Calls `visit` with each word of a text.
pub(super) fn each_word<'a>(text: &'a str, mut visit: impl FnMut(&'a str)) {
    text.unicode_words().for_each(&mut visit);
}

/// What the function gives, and `bm25` takes.
pub(super) fn returns() -> DataType {
    DataType::Struct(fields())
}

fn fields() -> Fields {
    let list = |item| DataType::List(Arc::new(Field::new_list_field(item, true)));
    Fields::from(vec![
        Field::new("documents", DataType::UInt64, true),
        Field::new("words", DataType::UInt64, true),
        Field::new("terms", list(DataType::Utf8), true),
        Field::new("frequencies", list(DataType::UInt64), true),
    ])
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stats {
    pub(super) n_documents: u64,
    pub(super) n_words: u64,
    /// Words of the query in lower case, one of each with the number of documents that have it; empty before the first row.
    pub(super) terms: Vec<(String, u64)>,
}

impl Stats {
    /// The statistics in a row, which is not null.
    pub(super) fn read(rows: &StructArray, row: usize) -> Self {
        let number = |column: usize| rows.column(column).as_primitive::<UInt64Type>().value(row);
        let terms = rows.column(2).as_list::<i32>().value(row);
        let frequencies = rows.column(3).as_list::<i32>().value(row);
        let frequencies = frequencies.as_primitive::<UInt64Type>().values();
        let terms = terms.as_string::<i32>().iter().flatten().map(str::to_owned);
        let terms = terms.zip(frequencies.iter().copied()).collect();
        Self { n_documents: number(0), n_words: number(1), terms }
    }

    fn value(&self) -> ArrayRef {
        let list = |values: ArrayRef| -> ArrayRef {
            let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
            let offsets = OffsetBuffer::from_lengths([values.len()]);
            Arc::new(ListArray::new(item, offsets, values, None))
        };
        let terms = StringArray::from_iter_values(self.terms.iter().map(|(term, _)| term));
        let frequencies = UInt64Array::from_iter_values(self.terms.iter().map(|(_, n)| *n));
        Arc::new(StructArray::new(
            fields(),
            vec![
                Arc::new(UInt64Array::from(vec![self.n_documents])),
                Arc::new(UInt64Array::from(vec![self.n_words])),
                list(Arc::new(terms)),
                list(Arc::new(frequencies)),
            ],
            None,
        ))
    }

    fn add_terms(&mut self, query: &str) {
        each_word(query, |word| {
            let word = word.to_lowercase();
            if self.terms.iter().all(|(term, _)| *term != word) {
                self.terms.push((word, 0));
            }
        });
    }
}

/// How often each term stands in a text, and the number of the text's words.
pub(super) fn count<'a>(
    terms: impl ExactSizeIterator<Item = &'a str> + Clone,
    text: &str,
    counts: &mut Vec<u64>,
) -> u64 {
    counts.clear();
    counts.resize(terms.len(), 0);
    let mut n_words = 0;
    each_word(text, |word| {
        n_words += 1;
        for (term, count) in terms.clone().zip(counts.iter_mut()) {
            *count += u64::from(is_same(word, term));
        }
    });
    n_words
}

/// Whether a word is a term, which is in lower case, when it is in lower case, too.
fn is_same(word: &str, term: &str) -> bool {
    match word.is_ascii() {
        true => word.eq_ignore_ascii_case(term),
        false => word.to_lowercase() == term,
    }
}

impl Accumulator for Stats {
    fn update_batch(&mut self, values: &[ArrayRef]) -> EngineResult<()> {
        let (texts, queries) = (values[0].as_string_view(), values[1].as_string::<i32>());
        if self.terms.is_empty()
            && let Some(query) = queries.iter().flatten().next()
        {
            self.add_terms(query);
        }
        let mut counts = Vec::new();
        for text in texts.iter().flatten() {
            let terms = self.terms.iter().map(|(term, _)| term.as_str());
            self.n_words += count(terms, text, &mut counts);
            self.n_documents += 1;
            for ((_, n), count) in self.terms.iter_mut().zip(&counts) {
                *n += u64::from(*count > 0);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> EngineResult<ScalarValue> {
        // Of no text there is nothing to know.
        let value = match self.n_documents {
            0 => new_null_array(&returns(), 1),
            _ => self.value(),
        };
        ScalarValue::try_from_array(&value, 0)
    }

    fn size(&self) -> usize {
        let terms = self.terms.iter().map(|(term, _)| term.capacity()).sum::<usize>();
        size_of_val(self) + terms + self.terms.capacity() * size_of::<(String, u64)>()
    }

    fn state(&mut self) -> EngineResult<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::try_from_array(&self.value(), 0)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> EngineResult<()> {
        let states = states[0].as_struct();
        for row in (0..states.len()).filter(|row| states.is_valid(*row)) {
            let other = Self::read(states, row);
            self.n_documents += other.n_documents;
            self.n_words += other.n_words;
            if self.terms.is_empty() {
                self.terms = other.terms;
                continue;
            }
            for ((_, n), (_, more)) in self.terms.iter_mut().zip(&other.terms) {
                *n += more;
            }
        }
        Ok(())
    }
}
