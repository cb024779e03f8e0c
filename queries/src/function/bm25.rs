//! `bm25`: how well a text answers a query.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Float64Array};
use arrow::datatypes::DataType;

use super::bm25_stats::{Stats, count, returns};
use super::{FunctionKind, Plain};

pub(super) const KIND: FunctionKind = FunctionKind {
    name: "bm25",
    summary: "how well a text answers a query, as Lucene scores (Robertson et al. 1994; k1 = 1.2, b = 0.75): `select url, bm25(text, (select bm25_stats(text, 'barley bread') from documents)) as score from documents order by score desc limit 10`; both read all texts",
    arguments: "(text, statistics of bm25_stats)",
    returns: "double",
    // bm25s 0.3.16 for Python: method="lucene", k1=1.2, b=0.75 gives 0.49686056, 0.25543675 and 0.
    example: (
        "(select round(max(bm25(t, (select bm25_stats(t, 'Barley bread') from (values ('Bread of barley.'), ('barley'), ('rye')) as v(t)))), 6) from (values ('Bread of barley.'), ('barley'), ('rye')) as v(t))",
        "0.496861",
    ),
    build: || {
        let arguments = vec![vec![DataType::Utf8View, returns()]];
        Plain::udf("bm25", arguments, DataType::Float64, |arguments| {
            let (texts, stats) = (arguments[0].as_string_view(), arguments[1].as_struct());
            let mut counts = Vec::new();
            let mut known: Option<(usize, Scorer)> = None;
            let scores: Float64Array = (0..texts.len())
                .map(|row| {
                    if texts.is_null(row) || stats.is_null(row) {
                        return None;
                    }
                    // One row of statistics is spread over all texts.
                    let is_known = known.as_ref().is_some_and(|(at, _)| {
                        stats.slice(*at, 1).to_data() == stats.slice(row, 1).to_data()
                    });
                    if !is_known {
                        known = Some((row, Scorer::new(Stats::read(stats, row))));
                    }
                    let (_, scorer) = known.as_ref().expect("it was just made");
                    Some(scorer.score(texts.value(row), &mut counts))
                })
                .collect();
            Ok(Arc::new(scores))
        })
    },
};

/// How soon more of the same word say no more.
const K1: f64 = 1.2;
/// How much long texts are made up for.
const B: f64 = 0.75;

/// Terms with their weights.
struct Scorer {
    terms: Vec<(String, f64)>,
    mean_words: f64,
}

impl Scorer {
    #[expect(clippy::cast_precision_loss, reason = "a score has no 53 bits")]
    fn new(stats: Stats) -> Self {
        let n = stats.n_documents as f64;
        let weight = |n_with: u64| (1.0 + (n - n_with as f64 + 0.5) / (n_with as f64 + 0.5)).ln();
        let terms = stats.terms.into_iter().map(|(term, n_with)| (term, weight(n_with))).collect();
        Self { terms, mean_words: stats.n_words as f64 / n.max(1.0) }
    }

    #[expect(clippy::cast_precision_loss, reason = "a score has no 53 bits")]
    fn score(&self, text: &str, counts: &mut Vec<u64>) -> f64 {
        let n_words = count(self.terms.iter().map(|(term, _)| term.as_str()), text, counts) as f64;
        let length = K1 * (1.0 - B + B * n_words / self.mean_words.max(f64::MIN_POSITIVE));
        let scores = self.terms.iter().zip(counts.iter()).map(|((_, weight), count)| {
            let count = *count as f64;
            weight * count / (count + length)
        });
        scores.sum()
    }
}
