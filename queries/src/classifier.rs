//! Trains a classifier of texts from two questions in SQL, and says how good it is on texts that it never saw.
//!
//! The model is fastText's, so the step `classifier` takes it by path and so does fastText itself. Which texts are held out is
//! decided by the hash of a text: copies of one text are on one side. Texts are sorted by that hash before training, so the
//! order of the rows, threads and batches change nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use clap::Args;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use ingest::fasttext::{Example, Model, ModelFile, Options, Scratch, train};
use serde::Serialize;
use shard::store;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{Error, Result, catalog, session, statement};

/// Ranges of scores in which calibration is looked at.
const BINS: usize = 10;

/// What `gristmill classifier train` takes.
#[derive(Clone, Debug, Args)]
pub struct TrainArguments {
    /// The corpus that is asked.
    #[arg(long, default_value = "corpus")]
    corpus: PathBuf,
    /// A query whose column `text`, or only column, has the texts to be told.
    #[arg(long)]
    positive: String,
    /// A query with the texts to tell them from.
    #[arg(long)]
    negative: String,
    /// Where the model goes.
    #[arg(long)]
    output: PathBuf,
    /// Label of the positive texts.
    #[arg(long, default_value = "hq")]
    positive_label: String,
    /// Label of the negative texts.
    #[arg(long, default_value = "lq")]
    negative_label: String,
    /// Share of the texts that the model is judged by and never sees.
    #[arg(long, default_value_t = 0.1)]
    held_out: f64,
    /// Probability of the positive label above which a text counts as positive when the model is judged.
    #[arg(long, default_value_t = 0.5)]
    threshold: f64,
    /// Values of a row.
    #[arg(long, default_value_t = 16)]
    dim: u16,
    /// Times that each text is seen.
    #[arg(long, default_value_t = 5)]
    epochs: u16,
    /// Learning rate at the beginning.
    #[arg(long, default_value_t = 0.1)]
    learning_rate: f32,
    /// Longest n-gram of words.
    #[arg(long, default_value_t = 2)]
    word_ngrams: u8,
    /// Shortest n-gram of characters.
    #[arg(long, default_value_t = 0)]
    min_chars: u8,
    /// Longest n-gram of characters; 0 for none.
    #[arg(long, default_value_t = 0)]
    max_chars: u8,
    /// Rows that n-grams are hashed to.
    #[arg(long, default_value_t = 200_000)]
    buckets: u32,
    /// Times that a word must occur to have a row of its own.
    #[arg(long, default_value_t = 1)]
    min_count: u32,
    /// Of the first rows, of the order of texts, and of what is held out.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Most bytes of text that are taken into memory.
    #[arg(long, default_value = "2GiB")]
    memory: String,
}

/// A model and how good it is.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where the model is.
    pub model: PathBuf,
    /// Its size.
    pub model_bytes: u64,
    /// Hash of its bytes.
    pub model_hash: String,
    /// How it was trained.
    pub options: Options,
    /// Texts with the positive label, those held out included.
    pub n_positive: u64,
    /// Texts with the negative label, those held out included.
    pub n_negative: u64,
    /// Texts that both queries gave, and that were left out.
    pub n_in_both: u64,
    /// Texts that it was trained on.
    pub n_trained: u64,
    /// What it says of the others.
    pub held_out: Evaluation,
}

/// How scores agree with labels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Texts.
    pub n: u64,
    /// Those of the positive label.
    pub n_positive: u64,
    /// Score above which a text counts as positive.
    pub threshold: f64,
    /// Share of the positive among those above the threshold; nothing when none is.
    pub precision: Option<f64>,
    /// Share of those above the threshold among the positive.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
    /// Share of texts on the right side of the threshold.
    pub accuracy: f64,
    /// Area under the receiver operating characteristic.
    pub auc: f64,
    /// Mean distance of mean score and positive share in the ranges below, by their texts.
    pub calibration_error: f64,
    /// Ranges of scores, those that have texts.
    pub calibration: Vec<Bin>,
}

/// A range of scores.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bin {
    /// Its lower end.
    pub from: f64,
    /// Texts with such a score.
    pub n: u64,
    /// Their mean score.
    pub mean_score: f64,
    /// Share of the positive among them.
    pub positive_share: f64,
}

/// Trains a model, writes it and judges it.
///
/// Memory is that of the texts, bounded, and of the model.
///
/// # Errors
/// For a mistake in a query, settings that cannot work, too few or too many texts, or when the model cannot be written.
pub async fn train_from(arguments: &TrainArguments, threads: usize) -> Result<Report> {
    let refuse = |place: &str, message: String, hint: &str| Error::Job {
        place: place.to_owned(),
        message,
        hint: Some(hint.to_owned()),
    };
    for (place, value) in [("--held-out", arguments.held_out), ("--threshold", arguments.threshold)]
    {
        if !(value > 0.0 && value < 1.0) {
            return Err(refuse(place, format!("it is {value}"), "above 0 and below 1 is needed"));
        }
    }
    if arguments.positive_label == arguments.negative_label {
        let message = format!("both labels are `{}`", arguments.positive_label);
        return Err(refuse("--negative-label", message, "labels differ"));
    }
    let memory: crate::job::Bytes = arguments.memory.parse().map_err(|message| Error::Job {
        place: "--memory".to_owned(),
        message,
        hint: None,
    })?;
    let limits = session::Limits { memory: memory.0, threads };
    let ctx = catalog::open(&arguments.corpus, limits).await?;
    let mut room = memory.0;
    let positive = texts(&ctx, "--positive", &arguments.positive, &mut room).await?;
    let negative = texts(&ctx, "--negative", &arguments.negative, &mut room).await?;
    let sides = Sides::new(positive, negative, arguments.seed, arguments.held_out);
    for (is_held_out, name) in [(false, "to train on"), (true, "to judge by")] {
        let n = |is_positive| {
            sides.of(is_held_out).filter(|row| row.is_positive == is_positive).count()
        };
        let (n_positive, n_negative) = (n(true), n(false));
        if n_positive == 0 || n_negative == 0 {
            let message =
                format!("{n_positive} positive and {n_negative} negative texts are left {name}");
            let hint =
                "both kinds are needed: ask for more texts, or change `--held-out` or `--seed`";
            return Err(refuse("classifier train", message, hint));
        }
    }
    let options = arguments.options();
    let label = |is_positive| match is_positive {
        true => arguments.positive_label.as_str(),
        false => arguments.negative_label.as_str(),
    };
    let examples: Vec<Example<'_>> = sides
        .of(false)
        .map(|row| Example { label: label(row.is_positive), text: &row.text })
        .collect();
    let file = train(&examples, &options)?;
    let mut bytes = Vec::new();
    file.write(&mut bytes).map_err(shard::Error::io("write", &arguments.output))?;
    store::replace(&arguments.output, &bytes)?;
    let scores = sides.scores(file, arguments)?;
    let count =
        |is_positive| sides.rows.iter().filter(|row| row.is_positive == is_positive).count();
    Ok(Report {
        model: arguments.output.clone(),
        model_bytes: bytes.len() as u64,
        model_hash: blake3::hash(&bytes).to_hex().to_string(),
        options,
        n_positive: count(true) as u64,
        n_negative: count(false) as u64,
        n_in_both: sides.n_in_both,
        n_trained: examples.len() as u64,
        held_out: evaluate(&scores, arguments.threshold),
    })
}

impl TrainArguments {
    fn options(&self) -> Options {
        Options {
            dim: self.dim,
            epochs: self.epochs,
            learning_rate: self.learning_rate,
            word_ngrams: self.word_ngrams,
            min_chars: self.min_chars,
            max_chars: self.max_chars,
            buckets: self.buckets,
            min_count: self.min_count,
            one_vs_all: false,
            seed: self.seed,
        }
    }
}

/// Returns the texts of a query, and takes their bytes off `room`.
async fn texts(
    ctx: &SessionContext,
    place: &str,
    sql: &str,
    room: &mut u64,
) -> Result<Vec<String>> {
    let refuse = |message: String, hint: &str| Error::Job {
        place: place.to_owned(),
        message,
        hint: Some(hint.to_owned()),
    };
    let mut statements = statement::parse(sql)?;
    let (Some(query), true) = (statements.pop(), statements.is_empty()) else {
        return Err(refuse("it is not one query".to_owned(), "give one `select`"));
    };
    let frame = statement::plan(ctx, sql, query).await?;
    let fields = frame.schema().fields();
    let column = match fields.iter().position(|field| field.name() == "text") {
        Some(column) => column,
        None if fields.len() == 1 => 0,
        None => {
            let names: Vec<_> = fields.iter().map(|field| format!("`{}`", field.name())).collect();
            let message = format!("it has the columns {}, none is `text`", names.join(", "));
            return Err(refuse(message, "name one of them `text`: `select title as text`"));
        }
    };
    let mut texts = Vec::new();
    let mut batches = frame.execute_stream().await?;
    while let Some(batch) = batches.next().await {
        let column = cast(batch?.column(column), &DataType::Utf8View)?;
        for text in column.as_string_view().iter().flatten() {
            let left = room.checked_sub(text.len() as u64);
            *room = left.ok_or_else(|| {
                let message =
                    format!("beyond {} texts, they take more than `--memory`", texts.len());
                let hint =
                    "take a sample: `order by sample_key(id, 0) limit 100000`; or allow more";
                refuse(message, hint)
            })?;
            texts.push(text.to_owned());
        }
    }
    Ok(texts)
}

/// A text and what is known of it.
struct Row {
    key: u64,
    text: String,
    is_positive: bool,
}

/// What is trained on, and what is judged by.
struct Sides {
    /// In the order of training.
    rows: Vec<Row>,
    n_in_both: u64,
    /// Texts with a key below this are held out.
    bound: u64,
}

impl Sides {
    fn new(positive: Vec<String>, negative: Vec<String>, seed: u64, held_out: f64) -> Self {
        let row = |text: String, is_positive| Row {
            key: xxh3_64_with_seed(text.as_bytes(), seed),
            text,
            is_positive,
        };
        let mut rows: Vec<Row> = positive.into_iter().map(|text| row(text, true)).collect();
        rows.extend(negative.into_iter().map(|text| row(text, false)));
        rows.sort_unstable_by(|a, b| {
            (a.key, &a.text, a.is_positive).cmp(&(b.key, &b.text, b.is_positive))
        });
        let mut n_in_both = 0;
        let mut kept = Vec::with_capacity(rows.len());
        let mut rows = rows.into_iter().peekable();
        while let Some(first) = rows.next() {
            let mut same = vec![first];
            while let Some(next) = rows.next_if(|next| next.text == same[0].text) {
                same.push(next);
            }
            match same.iter().all(|row| row.is_positive == same[0].is_positive) {
                true => kept.append(&mut same),
                // It would teach both and be judged by either.
                false => n_in_both += 1,
            }
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a share of all keys, to 53 bits"
        )]
        let bound = (held_out * u64::MAX as f64) as u64;
        Self { rows: kept, n_in_both, bound }
    }

    fn of(&self, is_held_out: bool) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| (row.key < self.bound) == is_held_out)
    }

    /// Returns score and label of each text that was held out.
    fn scores(&self, file: ModelFile, arguments: &TrainArguments) -> Result<Vec<(f64, bool)>> {
        let model = Model::new(file, &arguments.output)?;
        let label = model.labels().iter().position(|label| *label == arguments.positive_label);
        let label = label.expect("it was trained on both labels");
        let mut scratch = Scratch::default();
        // A text of no known word has the score 0, as in the step `classifier`.
        let mut score = |text| model.probability(text, label, &mut scratch).unwrap_or(0.0);
        Ok(self
            .of(true)
            .map(|row| (f64::from(score(&row.text)).min(1.0), row.is_positive))
            .collect())
    }
}

/// Judges scores from 0 to 1, of which at least one has either label.
#[expect(clippy::cast_precision_loss, reason = "counts of texts in memory")]
fn evaluate(scores: &[(f64, bool)], threshold: f64) -> Evaluation {
    let count = |test: &dyn Fn(f64, bool) -> bool| {
        scores.iter().filter(|&&(score, label)| test(score, label)).count() as f64
    };
    let n = scores.len() as f64;
    let positive = count(&|_, label| label);
    let found = count(&|score, _| score > threshold);
    let right = count(&|score, label| score > threshold && label);
    let missed_or_wrong = count(&|score, label| (score > threshold) != label);
    let mut bins: BTreeMap<usize, (f64, f64, f64)> = BTreeMap::new();
    for &(score, label) in scores {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a score is from 0 to 1"
        )]
        let bin = ((score * BINS as f64) as usize).min(BINS - 1);
        let (n, sum, positive) = bins.entry(bin).or_default();
        (*n, *sum) = (*n + 1.0, *sum + score);
        *positive += f64::from(u8::from(label));
    }
    let distance = |&(_, sum, positive): &(f64, f64, f64)| (sum - positive).abs() / n;
    let calibration_error = bins.values().map(distance).sum();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts went in")]
    let whole = |count: f64| count as u64;
    let bin = |(bin, (n, sum, positive)): (usize, (f64, f64, f64))| Bin {
        from: bin as f64 / BINS as f64,
        n: whole(n),
        mean_score: sum / n,
        positive_share: positive / n,
    };
    Evaluation {
        n: scores.len() as u64,
        n_positive: whole(positive),
        threshold,
        precision: (found > 0.0).then(|| right / found),
        recall: right / positive,
        f1: 2.0 * right / (found + positive),
        accuracy: 1.0 - missed_or_wrong / n,
        auc: auc(scores),
        calibration_error,
        calibration: bins.into_iter().map(bin).collect(),
    }
}

/// The share of pairs of a positive and a negative that are in order, equals counting half.
#[expect(clippy::cast_precision_loss, reason = "counts of texts in memory")]
fn auc(scores: &[(f64, bool)]) -> f64 {
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut pairs) = (0.0, 0.0);
    for equals in sorted.chunk_by(|a, b| a.0 == b.0) {
        let positive = equals.iter().filter(|(_, label)| *label).count() as f64;
        let negative = equals.len() as f64 - positive;
        pairs += positive * (below + negative / 2.0);
        below += negative;
    }
    pairs / (below * (scores.len() as f64 - below))
}

impl Report {
    /// The report in words.
    #[must_use]
    pub fn show(&self) -> String {
        let held_out = &self.held_out;
        let precision = held_out.precision.map_or("none".to_owned(), |value| format!("{value:.3}"));
        let mut text = format!(
            "{} ({} bytes), trained on {} texts of {} positive and {} negative, {} in both left out\n\
             held out: {} texts, {} positive; at {}: precision {precision}, recall {:.3}, F1 {:.3}, accuracy {:.3}\n\
             AUC {:.4}, calibration error {:.4}\n",
            self.model.display(),
            self.model_bytes,
            self.n_trained,
            self.n_positive,
            self.n_negative,
            self.n_in_both,
            held_out.n,
            held_out.n_positive,
            held_out.threshold,
            held_out.recall,
            held_out.f1,
            held_out.accuracy,
            held_out.auc,
            held_out.calibration_error,
        );
        for bin in &held_out.calibration {
            text.push_str(&format!(
                "  score from {:.1}: {} texts, mean score {:.3}, {:.3} positive\n",
                bin.from, bin.n, bin.mean_score, bin.positive_share
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked out by hand: four positive and two negative texts.
    #[test]
    fn figures_are_those_of_a_calculation_by_hand() {
        let scores =
            [(0.95, true), (0.9, true), (0.6, false), (0.55, true), (0.2, true), (0.1, false)];
        let found = evaluate(&scores, 0.5);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        assert_eq!((found.n, found.n_positive), (6, 4));
        near(found.precision.unwrap(), 0.75);
        near(found.recall, 0.75);
        near(found.f1, 0.75);
        near(found.accuracy, 4.0 / 6.0);
        // Of the eight pairs, 0.55 and 0.2 are below 0.6.
        near(found.auc, 6.0 / 8.0);
        let n: Vec<u64> = found.calibration.iter().map(|bin| bin.n).collect();
        assert_eq!(n, [1, 1, 1, 1, 2]);
        near(found.calibration[4].mean_score, 0.925);
        near(found.calibration[2].positive_share, 1.0);
        near(found.calibration_error, (0.1 + 0.8 + 0.45 + 0.6 + 0.15) / 6.0);
        assert_eq!(evaluate(&scores, 0.99).precision, None);
        near(evaluate(&[(0.5, true), (0.5, false)], 0.4).auc, 0.5);
    }

    #[test]
    fn texts_of_both_kinds_are_left_out_and_copies_stay_on_one_side() {
        let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let sides = Sides::new(texts(&["a", "b", "b", "c"]), texts(&["c", "d"]), 0, 0.5);
        assert_eq!(sides.n_in_both, 1);
        let mut kept: Vec<_> =
            sides.rows.iter().map(|row| (row.text.as_str(), row.is_positive)).collect();
        kept.sort_unstable();
        assert_eq!(kept, [("a", true), ("b", true), ("b", true), ("d", false)]);
        for is_held_out in [false, true] {
            let n = sides.of(is_held_out).filter(|row| row.text == "b").count();
            assert!(n == 0 || n == 2);
        }
    }
}
