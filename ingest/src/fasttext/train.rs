//! Trains a classifier as the reference does: means of rows, one linear layer, stochastic gradient descent.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::file::{Entries, Header, LABEL_PREFIX, Loss, Matrix, ModelFile};
use super::tokens::{Tokens, is_blank};
use super::{sigmoid, sigmoid_table};
use crate::{Error, Result};

/// A text and what it is.
#[derive(Clone, Copy, Debug)]
pub struct Example<'a> {
    /// Without `__label__` and blanks.
    pub label: &'a str,
    /// Ends of lines count as blanks.
    pub text: &'a str,
}

/// How to train; the defaults are those of `fasttext supervised`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Values of a row.
    pub dim: u16,
    /// Times that each example is seen.
    pub epochs: u16,
    /// Learning rate at the beginning; it falls to 0 in a straight line.
    pub learning_rate: f32,
    /// Longest n-gram of words; 1 for words alone.
    pub word_ngrams: u8,
    /// Shortest n-gram of characters.
    pub min_chars: u8,
    /// Longest n-gram of characters; 0 for none.
    pub max_chars: u8,
    /// Rows that n-grams are hashed to.
    pub buckets: u32,
    /// Times that a word must occur to have a row of its own.
    pub min_count: u32,
    /// A sigmoid per label instead of one distribution over all.
    pub one_vs_all: bool,
    /// Of the first rows and of the order of examples.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dim: 100,
            epochs: 5,
            learning_rate: 0.1,
            word_ngrams: 1,
            min_chars: 0,
            max_chars: 0,
            buckets: 2_000_000,
            min_count: 1,
            one_vs_all: false,
            seed: 0,
        }
    }
}

/// Returns a model of `examples`.
///
/// It differs from the reference in one thing: the reference reads its file from the first line to the last again and
/// again, here the order is drawn anew in each epoch, so examples may come sorted by label. One thread; the same examples,
/// options and seed give the same bytes. Memory: the features' rows, `(words + buckets) · dim` floats.
///
/// # Errors
/// [`Error::Config`] for a label that is empty or has blanks, fewer than two labels, or options without meaning.
pub fn train(examples: &[Example<'_>], options: &Options) -> Result<ModelFile> {
    let invalid = |message: String| Error::Config { name: "classifier".to_owned(), message };
    check(options).map_err(invalid)?;
    let (entries, n_words, n_tokens) = count(examples, options.min_count).map_err(invalid)?;
    let dim = usize::from(options.dim);
    let has_ngrams = options.word_ngrams > 1 || options.max_chars > 0;
    let header = Header {
        dim,
        epoch: i32::from(options.epochs),
        min_count: i32::try_from(options.min_count).unwrap_or(i32::MAX),
        word_ngrams: usize::from(options.word_ngrams),
        loss: if options.one_vs_all { Loss::OneVsAll } else { Loss::Softmax },
        buckets: if has_ngrams { options.buckets } else { 0 },
        min_chars: usize::from(options.min_chars),
        max_chars: usize::from(options.max_chars),
    };
    let labels: HashMap<&[u8], usize> =
        (n_words..entries.len()).map(|index| (entries.get(index), index - n_words)).collect();
    let targets: Vec<usize> = examples
        .iter()
        .map(|example| labels[format!("{LABEL_PREFIX}{}", example.label).as_bytes()])
        .collect();
    let tokens = Tokens::new(&header, entries.clone(), n_words, None);
    let n_rows = n_words + header.buckets as usize;
    let mut trainer = Trainer::new(n_rows, labels.len(), dim, header.loss, options.seed);
    trainer.run(examples, &targets, &tokens, options);
    Ok(ModelFile {
        header,
        n_words,
        n_tokens,
        kept_buckets: None,
        input: Matrix::Dense(trainer.input),
        output: Matrix::Dense(trainer.output),
        entries,
    })
}

fn check(options: &Options) -> Result<(), String> {
    let Options { dim, epochs, learning_rate, word_ngrams, min_chars, max_chars, buckets, .. } =
        *options;
    if dim == 0 || epochs == 0 {
        return Err(format!("`dim` is {dim} and `epochs` is {epochs}, both are at least 1"));
    }
    if !(learning_rate > 0.0 && learning_rate.is_finite()) {
        return Err(format!("`learning_rate` is {learning_rate}, it is above 0"));
    }
    if max_chars > 0 && min_chars > max_chars {
        return Err(format!("`min_chars` is {min_chars}, `max_chars` is {max_chars}"));
    }
    if (word_ngrams > 1 || max_chars > 0) && !(1..=1 << 28).contains(&buckets) {
        return Err(format!("`buckets` is {buckets}, n-grams need 1 to {}", 1 << 28));
    }
    Ok(())
}

/// Returns words, then labels, the most frequent first and equals in the order in which they came.
fn count(examples: &[Example<'_>], min_count: u32) -> Result<(Entries, usize, i64), String> {
    let mut words: HashMap<&[u8], (i64, usize)> = HashMap::new();
    let mut labels: HashMap<&str, (i64, usize)> = HashMap::new();
    let mut n_tokens = 0;
    for example in examples {
        let label = example.label;
        if label.is_empty() || label.bytes().any(is_blank) {
            return Err(format!("a label is `{label}`: it is empty or has blanks"));
        }
        let n = labels.len();
        labels.entry(label).or_insert((0, n)).0 += 1;
        let text = example.text.as_bytes().split(|&byte| is_blank(byte));
        let end: &[u8] = b"</s>";
        let line = text.filter(|word| !word.is_empty()).take_while(|&word| word != end);
        for word in line.chain([end]) {
            n_tokens += 1;
            if !word.starts_with(LABEL_PREFIX.as_bytes()) {
                let n = words.len();
                words.entry(word).or_insert((0, n)).0 += 1;
            }
        }
        n_tokens += 1;
    }
    if labels.len() < 2 {
        return Err(format!("{} labels are given, two are needed", labels.len()));
    }
    let mut words: Vec<_> = words.into_iter().collect();
    words.retain(|(_, (count, _))| *count >= i64::from(min_count));
    words.sort_unstable_by_key(|&(_, (count, first))| (-count, first));
    let mut labels: Vec<_> = labels.into_iter().collect();
    labels.sort_unstable_by_key(|&(_, (count, first))| (-count, first));
    let mut entries = Entries::default();
    for (word, (count, _)) in &words {
        entries.push(word, *count);
    }
    for (label, (count, _)) in &labels {
        entries.push(format!("{LABEL_PREFIX}{label}").as_bytes(), *count);
    }
    Ok((entries, words.len(), n_tokens))
}

struct Trainer {
    input: Vec<f32>,
    output: Vec<f32>,
    dim: usize,
    loss: Loss,
    sigmoid: Vec<f32>,
    random: Random,
    hidden: Vec<f32>,
    gradient: Vec<f32>,
    scores: Vec<f32>,
}

impl Trainer {
    fn new(n_rows: usize, n_labels: usize, dim: usize, loss: Loss, seed: u64) -> Self {
        let mut random = Random(seed);
        #[expect(clippy::cast_precision_loss, reason = "a dimension is below 2^16")]
        let bound = 1.0 / dim as f32;
        let input = (0..n_rows * dim).map(|_| (random.unit() * 2.0 - 1.0) * bound).collect();
        Self {
            input,
            output: vec![0.0; n_labels * dim],
            dim,
            loss,
            sigmoid: sigmoid_table(),
            random,
            hidden: vec![0.0; dim],
            gradient: vec![0.0; dim],
            scores: vec![0.0; n_labels],
        }
    }

    fn run(
        &mut self,
        examples: &[Example<'_>],
        targets: &[usize],
        tokens: &Tokens,
        options: &Options,
    ) {
        let mut order: Vec<usize> = (0..examples.len()).collect();
        let (mut word, mut hashes, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        let n_steps = examples.len() * usize::from(options.epochs);
        let mut step = 0;
        for _ in 0..options.epochs {
            self.random.shuffle(&mut order);
            for &index in &order {
                #[expect(clippy::cast_precision_loss, reason = "a share of the way")]
                let rate = options.learning_rate * (1.0 - step as f32 / n_steps as f32);
                rows.clear();
                tokens.rows(examples[index].text, &mut word, &mut hashes, |row| rows.push(row));
                self.update(&rows, targets[index], rate);
                step += 1;
            }
        }
    }

    fn update(&mut self, rows: &[usize], target: usize, rate: f32) {
        if rows.is_empty() {
            return;
        }
        let Self { input, output, dim, hidden, gradient, scores, .. } = self;
        #[expect(clippy::cast_precision_loss, reason = "features of a text")]
        let share = 1.0 / rows.len() as f32;
        hidden.fill(0.0);
        for row in rows {
            super::add(hidden, &input[row * *dim..][..*dim], 1.0);
        }
        hidden.iter_mut().for_each(|value| *value *= share);
        for (score, weights) in scores.iter_mut().zip(output.chunks_exact(*dim)) {
            *score = weights.iter().zip(&*hidden).map(|(weight, value)| weight * value).sum();
        }
        match self.loss {
            Loss::OneVsAll => {
                scores.iter_mut().for_each(|score| *score = sigmoid(*score, &self.sigmoid));
            }
            _ => softmax(scores),
        }
        gradient.fill(0.0);
        let labels = scores.iter().zip(output.chunks_exact_mut(*dim)).enumerate();
        for (label, (score, weights)) in labels {
            let wanted = if label == target { 1.0 } else { 0.0 };
            let alpha = rate * (wanted - score);
            super::add(gradient, weights, alpha);
            super::add(weights, hidden, alpha);
        }
        for row in rows {
            super::add(&mut input[row * *dim..][..*dim], gradient, share);
        }
    }
}

fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|score| *score = (*score - max).exp());
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
}

/// `SplitMix64` (Steele et al. 2014).
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f32 {
        #[expect(clippy::cast_precision_loss, reason = "24 bits fit an f32")]
        let unit = (self.next() >> 40) as f32 / (1_u32 << 24) as f32;
        unit
    }

    /// Below `n`, which is at least 1.
    pub(super) fn below(&mut self, n: usize) -> usize {
        let wide = (u128::from(self.next()) * n as u128) >> 64;
        usize::try_from(wide).expect("below a usize")
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}
