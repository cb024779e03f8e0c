//! Keeps documents that a fastText classifier scores high enough.
//!
//! The text is one line: ends of lines become blanks. The score is the probability of one label, fastText's own.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Float64Array, StringArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::{FileKey, Filter, FilterKind, Signal, Verdicts, config, text_column};
use crate::Result;
use crate::fasttext::{Model, Scratch};

pub(super) const KIND: FilterKind = FilterKind {
    name: "classifier",
    summary: "keeps documents that a fastText model of yours scores high enough",
    source: "DCLM-baseline (Li et al. 2024), fastText (Joulin et al. 2017)",
    signals: &[Signal {
        name: "classifier",
        data_type: DataType::Float64,
        summary: "probability of the label, 0 to 1",
    }],
    reasons: &["low_classifier_score", "no_classifier_model"],
    files: &[FileKey { key: "model", none: "" }],
    default_config: config::defaults::<Config>,
    build: |table| Ok(Box::new(Classifier::new(config::from_table("classifier", table)?)?)),
};

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Path of a fastText model, `.bin` or `.ftz`; nothing is built in, so without one every row is dropped as such.
    model: String,
    /// Label whose probability counts, without `__label__`.
    label: String,
    /// A document is dropped unless its score is above this.
    threshold: f64,
}

impl Default for Config {
    fn default() -> Self {
        // DCLM-baseline keeps what its model calls `hq` above 0.018112 (`fasttext_filter.yaml`).
        Self { model: String::new(), label: "hq".to_owned(), threshold: 0.018112 }
    }
}

#[derive(Debug)]
struct Classifier {
    /// The model and the number of the label.
    model: Option<(Model, usize)>,
    threshold: f64,
}

impl Classifier {
    fn new(config: Config) -> Result<Self> {
        let Config { model: path, label, threshold } = config;
        if !(0.0..=1.0).contains(&threshold) {
            let message = format!("`threshold` is {threshold}, allowed is 0 to 1");
            return Err(config::invalid("classifier", message));
        }
        if path.is_empty() {
            return Ok(Self { model: None, threshold });
        }
        let model = Model::open(Path::new(&path))?;
        let wanted = label.strip_prefix("__label__").unwrap_or(&label);
        let Some(place) = model.labels().iter().position(|known| known == wanted) else {
            let known = model.labels().iter().take(5).map(|label| format!("`{label}`"));
            let known = known.collect::<Vec<_>>().join(", ");
            let message = format!("`{path}` has no label `{label}`\nhint: it has {known}");
            return Err(config::invalid("classifier", message));
        };
        Ok(Self { model: Some((model, place)), threshold })
    }
}

impl Filter for Classifier {
    fn judge(&self, documents: &RecordBatch) -> Result<Verdicts> {
        let mut scratch = Scratch::default();
        let texts = text_column(documents)?.iter().map(Option::unwrap_or_default);
        let Some((model, label)) = &self.model else {
            let n = texts.len();
            // Keeping all of them would look like a classifier at work.
            let reasons = StringArray::from(vec!["no_classifier_model"; n]);
            return Ok(Verdicts { reasons, signals: vec![Arc::new(Float64Array::new_null(n))] });
        };
        // A text of no known word has the score 0.
        let score = |text| model.probability(text, *label, &mut scratch).unwrap_or(0.0);
        let scores: Vec<f64> = texts.map(score).map(f64::from).collect();
        let is_low = |&score: &f64| (score <= self.threshold).then_some("low_classifier_score");
        let reasons: StringArray = scores.iter().map(is_low).collect();
        Ok(Verdicts { reasons, signals: vec![Arc::new(Float64Array::from(scores))] })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;

    use super::*;
    use crate::filter::tests::verdicts;

    /// The model and the expected scores are the reference's: see `tests/golden/fasttext`.
    fn check(config: &str, expected: (f64, Option<&str>)) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/fasttext/softmax.bin");
        let config = format!("model = '{path}'\n{config}");
        let verdicts = verdicts(&KIND, &config, &["abc </s> abd"]);
        let score = verdicts.signals[0].as_any().downcast_ref::<Float64Array>().unwrap().value(0);
        assert!((score - expected.0).abs() < 1e-6, "{score}");
        assert_eq!(verdicts.reasons.iter().next().unwrap(), expected.1);
    }

    #[test]
    fn keeps_what_scores_above_the_threshold() {
        check("label = 'l3'\nthreshold = 0.29", (0.290_397_674, None));
        check("label = 'l3'\nthreshold = 0.291", (0.290_397_674, Some("low_classifier_score")));
        check("label = '__label__l4'\nthreshold = 0.0", (0.283_062_816, None));
    }

    #[test]
    fn without_a_model_nothing_is_kept() {
        let verdicts = verdicts(&KIND, "", &["a text"]);
        assert_eq!(verdicts.reasons.value(0), "no_classifier_model");
        assert!(verdicts.signals[0].is_null(0));
    }

    #[test]
    fn says_which_labels_there_are() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/fasttext/words.bin");
        let table: toml::Table = format!("model = '{path}'").parse().unwrap();
        let error = (KIND.build)(&table).unwrap_err().to_string();
        assert!(error.contains("no label `hq`\nhint: it has `l"), "{error}");
        let table: toml::Table = "model = 'no/such.bin'".parse().unwrap();
        let error = (KIND.build)(&table).unwrap_err().to_string();
        assert!(error.contains("no/such.bin"), "{error}");
    }
}
