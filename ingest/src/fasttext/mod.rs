//! fastText models: reads and writes their files, predicts as the reference does, and [trains](train) classifiers.
//!
//! A [`ModelFile`] is what is stored; a [`Model`] is made from one and answers. Labels and probabilities equal those of
//! fastText 0.9.2, whose sums are added in the same order. A model is read into memory as a whole: mapping a file takes
//! `unsafe`, which this crate does without. It is immutable, so threads share one; what a call needs beside it is a
//! [`Scratch`], which is kept from call to call.
//!
//! Source: Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification"; Joulin et al. 2016, "FastText.zip".

mod file;
mod quantize;
mod tokens;
mod train;

use std::path::Path;

use file::{LABEL_PREFIX, Matrix, Quantized};
pub use file::{Loss, ModelFile};
pub use quantize::quantize;
use tokens::Tokens;
pub use train::{Example, Options, train};

use crate::{Error, Result};

/// Quantised rows are unpacked when they take no more than this: adding rows is then a third faster.
const UNPACKED_BYTES_MAX: usize = 256 << 20;
/// Steps of the reference's table of the sigmoid, from -8 to 8.
const SIGMOID_STEPS: usize = 512;

/// A model that answers.
#[derive(Debug)]
pub struct Model {
    tokens: Tokens,
    labels: Vec<String>,
    dim: usize,
    input: Input,
    output: Output,
}

#[derive(Debug)]
enum Input {
    Rows(Vec<f32>),
    Packed(Quantized),
}

#[derive(Debug)]
enum Output {
    /// Scores of all labels at once. `weights` is `[dim, labels]`: so the sums of many labels grow side by side.
    Flat { loss: Loss, weights: Vec<f32>, norms: Vec<f32>, sigmoid: Vec<f32> },
    /// A tree with a decision per inner node. `weights` is `[labels, dim]`, a row per inner node.
    Tree { tree: Tree, weights: Vec<f32>, norms: Vec<f32> },
}

/// A Huffman tree: leaves are labels, node `n_labels + i` is the inner node of output row `i`, the last is the root.
#[derive(Debug)]
struct Tree {
    /// Left and right child of each inner node.
    children: Vec<(u32, u32)>,
    /// Parent of every node but the root, and whether the node is its right child.
    parents: Vec<(u32, bool)>,
}

/// What a call needs beside the model; grows with the longest text.
#[derive(Debug, Default)]
pub struct Scratch {
    hidden: Vec<f32>,
    scores: Vec<f32>,
    /// Hashes of the words of a text.
    hashes: Vec<u32>,
    /// The word at hand between its marks.
    word: Vec<u8>,
    /// Nodes of the tree that are left to visit, with the logarithm of their probability.
    nodes: Vec<(u32, f32)>,
}

impl Model {
    /// Reads the model at `path`, as [`ModelFile::open`].
    ///
    /// # Errors
    /// Those of [`ModelFile::open`] and [`Model::new`].
    pub fn open(path: &Path) -> Result<Self> {
        Self::new(ModelFile::open(path)?, path)
    }

    /// Makes `file` answer; `name` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Format`] when the counts of its labels make no tree.
    pub fn new(file: ModelFile, name: &Path) -> Result<Self> {
        let ModelFile { header, entries, n_words, kept_buckets, input, output, .. } = file;
        let n_labels = entries.len() - n_words;
        let labels = (n_words..entries.len())
            .map(|index| String::from_utf8_lossy(entries.get(index)))
            .map(|label| label.strip_prefix(LABEL_PREFIX).unwrap_or(&label).to_owned())
            .collect();
        let (weights, norms) = unscaled(&output, n_labels, header.dim);
        let output = if header.loss == Loss::HierarchicalSoftmax {
            let tree = Tree::new(&entries.counts[n_words..]).ok_or_else(|| Error::Format {
                path: name.to_owned(),
                why: "the counts of its labels make no tree".to_owned(),
                hint: "counts fall from label to label in a model that fastText wrote".to_owned(),
            })?;
            Output::Tree { tree, weights, norms }
        } else {
            let columns = transposed(&weights, header.dim);
            Output::Flat { loss: header.loss, weights: columns, norms, sigmoid: sigmoid_table() }
        };
        let dim = header.dim;
        let tokens = Tokens::new(&header, entries, n_words, kept_buckets);
        Ok(Self { tokens, labels, dim, input: Input::new(input), output })
    }

    /// The labels, without `__label__`, in the order of their numbers.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Returns the number and probability of the likeliest label of `text`, nothing where no word is known.
    ///
    /// `text` is one line: ends of lines separate words like blanks do. The probability is the reference's, which adds
    /// 1e-5 to guard a logarithm, so it may be above 1 by that much.
    pub fn predict(&self, text: &str, scratch: &mut Scratch) -> Option<(usize, f32)> {
        self.hide(text, scratch)?;
        match &self.output {
            Output::Flat { loss, weights, norms, sigmoid } => {
                let Scratch { hidden, scores, .. } = scratch;
                flat_scores(*loss, weights, norms, sigmoid, hidden, scores);
                let mut best = (0, f32::NEG_INFINITY);
                for (label, &score) in scores.iter().enumerate() {
                    // The reference keeps the last of equals, and compares logarithms.
                    if score >= best.1
                        || guarded_ln(f64::from(score)) >= guarded_ln(f64::from(best.1))
                    {
                        best = (label, score);
                    }
                }
                Some((best.0, guarded_ln(f64::from(best.1)).exp()))
            }
            Output::Tree { tree, weights, norms } => {
                let Scratch { hidden, nodes, .. } = scratch;
                tree.best(hidden, weights, norms, nodes)
            }
        }
    }

    /// Returns the probability of label number `label` for `text`, nothing where no word is known.
    ///
    /// # Panics
    /// When there is no such label.
    pub fn probability(&self, text: &str, label: usize, scratch: &mut Scratch) -> Option<f32> {
        assert!(label < self.labels.len(), "label {label} of {}", self.labels.len());
        self.hide(text, scratch)?;
        let ln = match &self.output {
            Output::Flat { loss, weights, norms, sigmoid } => {
                let Scratch { hidden, scores, .. } = scratch;
                flat_scores(*loss, weights, norms, sigmoid, hidden, scores);
                guarded_ln(f64::from(scores[label]))
            }
            Output::Tree { tree, weights, norms } => {
                let Scratch { hidden, nodes, .. } = scratch;
                tree.ln_probability(label, hidden, weights, norms, nodes)
            }
        };
        Some(ln.exp())
    }

    /// Leaves the mean of the rows of `text` in `scratch`.
    fn hide(&self, text: &str, scratch: &mut Scratch) -> Option<()> {
        let n_rows = match (&self.input, self.dim) {
            // Sums of the usual sizes stay in registers.
            (Input::Rows(rows), 2) => self.add_rows::<2>(rows, text, scratch),
            (Input::Rows(rows), 4) => self.add_rows::<4>(rows, text, scratch),
            (Input::Rows(rows), 8) => self.add_rows::<8>(rows, text, scratch),
            (Input::Rows(rows), 16) => self.add_rows::<16>(rows, text, scratch),
            (Input::Rows(rows), dim) => self.add_each(text, scratch, |row, hidden| {
                add(hidden, &rows[row * dim..][..dim], 1.0);
            }),
            (Input::Packed(packed), _) => self.add_each(text, scratch, |row, hidden| {
                let norm = packed.norm(row);
                packed.for_parts(row, |place, values| {
                    add(&mut hidden[place..][..values.len()], values, norm);
                });
            }),
        };
        if n_rows == 0 {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "the reference rounds it to an f32")]
        let share = (1.0 / n_rows as f64) as f32;
        scratch.hidden.iter_mut().for_each(|value| *value *= share);
        Some(())
    }

    fn add_rows<const DIM: usize>(&self, rows: &[f32], text: &str, scratch: &mut Scratch) -> u64 {
        let rows = rows.as_chunks::<DIM>().0;
        let mut sum = [0.0; DIM];
        let mut n_rows = 0;
        self.tokens.rows(text, &mut scratch.word, &mut scratch.hashes, |row| {
            n_rows += 1;
            let row = &rows[row];
            for place in 0..DIM {
                sum[place] += row[place];
            }
        });
        scratch.hidden.clear();
        scratch.hidden.extend_from_slice(&sum);
        n_rows
    }

    fn add_each(
        &self,
        text: &str,
        scratch: &mut Scratch,
        mut each: impl FnMut(usize, &mut [f32]),
    ) -> u64 {
        let Scratch { hidden, word, hashes, .. } = scratch;
        hidden.clear();
        hidden.resize(self.dim, 0.0);
        let mut n_rows = 0;
        self.tokens.rows(text, word, hashes, |row| {
            n_rows += 1;
            each(row, hidden);
        });
        n_rows
    }
}

impl Input {
    fn new(matrix: Matrix) -> Self {
        match matrix {
            Matrix::Dense(rows) => Self::Rows(rows),
            Matrix::Quantized(packed) => {
                let n_rows = packed.codes.len() / packed.parts();
                if n_rows.saturating_mul(packed.dim * size_of::<f32>()) > UNPACKED_BYTES_MAX {
                    return Self::Packed(packed);
                }
                // The reference multiplies a part by the norm of its row before it adds it: the same products.
                let mut rows = Vec::with_capacity(n_rows * packed.dim);
                for row in 0..n_rows {
                    let norm = packed.norm(row);
                    packed.for_parts(row, |_, values| {
                        rows.extend(values.iter().map(|value| norm * value));
                    });
                }
                Self::Rows(rows)
            }
        }
    }
}

/// Returns `[rows, dim]` values without their norms, and the norms: the reference multiplies by them last here.
fn unscaled(matrix: &Matrix, rows: usize, dim: usize) -> (Vec<f32>, Vec<f32>) {
    match matrix {
        Matrix::Dense(values) => (values.clone(), vec![1.0; rows]),
        Matrix::Quantized(packed) => {
            let mut values = Vec::with_capacity(rows * dim);
            for row in 0..rows {
                packed.for_parts(row, |_, part| values.extend_from_slice(part));
            }
            (values, (0..rows).map(|row| packed.norm(row)).collect())
        }
    }
}

/// Returns the columns of a row-major matrix one after the other.
fn transposed(values: &[f32], dim: usize) -> Vec<f32> {
    (0..dim).flat_map(|place| values.iter().skip(place).step_by(dim).copied()).collect()
}

fn add(sum: &mut [f32], values: &[f32], factor: f32) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * value);
}

/// `std_log` of the reference.
fn guarded_ln(probability: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "the reference rounds it to an f32")]
    let ln = (probability + 1e-5).ln() as f32;
    ln
}

/// The reference's sigmoid is a table without interpolation.
fn sigmoid_table() -> Vec<f32> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "as the reference"
    )]
    let at = |step: usize| {
        let x = (step * 16) as f32 / SIGMOID_STEPS as f32 - 8.0;
        (1.0 / (1.0 + f64::from((-x).exp()))) as f32
    };
    (0..=SIGMOID_STEPS).map(at).collect()
}

fn sigmoid(x: f32, table: &[f32]) -> f32 {
    if x < -8.0 {
        return 0.0;
    }
    if x > 8.0 {
        return 1.0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "x is between -8 and 8"
    )]
    let step = ((x + 8.0) * SIGMOID_STEPS as f32 / 8.0 / 2.0) as usize;
    table[step]
}

/// Leaves the probability of every label in `scores`.
fn flat_scores(
    loss: Loss,
    weights: &[f32],
    norms: &[f32],
    table: &[f32],
    hidden: &[f32],
    scores: &mut Vec<f32>,
) {
    scores.clear();
    scores.resize(norms.len(), 0.0);
    for (column, &value) in weights.chunks_exact(norms.len()).zip(hidden) {
        add(scores, column, value);
    }
    scores.iter_mut().zip(norms).for_each(|(score, norm)| *score *= norm);
    if loss != Loss::Softmax {
        scores.iter_mut().for_each(|score| *score = sigmoid(*score, table));
        return;
    }
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - max).exp();
        sum += *score;
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}

impl Tree {
    /// Builds the tree from counts that fall; nothing where they make none.
    fn new(counts: &[i64]) -> Option<Self> {
        let n = counts.len();
        // An inner node that is not made yet counts as this in the reference, which takes smaller nodes first.
        const UNMADE: i64 = 1_000_000_000_000_000;
        let mut inner: Vec<i64> = Vec::with_capacity(n.saturating_sub(1));
        let mut children = Vec::with_capacity(n.saturating_sub(1));
        let mut parents = vec![(u32::MAX, false); 2 * n - 1];
        let (mut leaves, mut next) = (n, 0);
        for place in 0..n - 1 {
            let mut pair = [0; 2];
            let mut count = 0_i64;
            for (side, child) in pair.iter_mut().enumerate() {
                let leaf = leaves.checked_sub(1).map(|leaf| counts[leaf]);
                let node = inner.get(next).copied().unwrap_or(UNMADE);
                if leaf.is_some_and(|leaf| leaf < node) {
                    leaves -= 1;
                    *child = leaves;
                    count = count.checked_add(counts[leaves])?;
                } else {
                    // A node cannot be its own child: counts beyond the reference's bound would make it one.
                    count = count.checked_add(*inner.get(next)?)?;
                    *child = n + next;
                    next += 1;
                }
                parents[*child] = (u32::try_from(n + place).ok()?, side == 1);
            }
            children.push((u32::try_from(pair[0]).ok()?, u32::try_from(pair[1]).ok()?));
            inner.push(count);
        }
        Some(Self { children, parents })
    }

    /// Returns the probability of the right child of inner node `place`.
    fn right(place: usize, hidden: &[f32], weights: &[f32], norms: &[f32]) -> f32 {
        let row = &weights[place * hidden.len()..][..hidden.len()];
        let dot = row.iter().zip(hidden).fold(0.0, |sum, (weight, value)| sum + weight * value);
        1.0 / (1.0 + (-(dot * norms[place])).exp())
    }

    /// Returns the likeliest leaf, as the reference searches for it: depth first, without the branches that are worse.
    fn best(
        &self,
        hidden: &[f32],
        weights: &[f32],
        norms: &[f32],
        nodes: &mut Vec<(u32, f32)>,
    ) -> Option<(usize, f32)> {
        let n_labels = self.children.len() + 1;
        let least = guarded_ln(0.0);
        let mut best: Option<(usize, f32)> = None;
        nodes.clear();
        nodes.push((u32::try_from(2 * n_labels - 2).expect("checked when built"), 0.0));
        while let Some((node, ln)) = nodes.pop() {
            if ln < least || best.is_some_and(|(_, best)| ln < best) {
                continue;
            }
            let node = node as usize;
            if node < n_labels {
                best = Some((node, ln));
                continue;
            }
            let right = f64::from(Self::right(node - n_labels, hidden, weights, norms));
            let children = self.children[node - n_labels];
            nodes.push((children.1, ln + guarded_ln(right)));
            nodes.push((children.0, ln + guarded_ln(1.0 - right)));
        }
        best.map(|(label, ln)| (label, ln.exp()))
    }

    fn ln_probability(
        &self,
        label: usize,
        hidden: &[f32],
        weights: &[f32],
        norms: &[f32],
        nodes: &mut Vec<(u32, f32)>,
    ) -> f32 {
        let n_labels = self.children.len() + 1;
        nodes.clear();
        let mut node = label;
        while node != 2 * n_labels - 2 {
            let (parent, is_right) = self.parents[node];
            let place = parent as usize - n_labels;
            let right = f64::from(Self::right(place, hidden, weights, norms));
            nodes.push((parent, guarded_ln(if is_right { right } else { 1.0 - right })));
            node = parent as usize;
        }
        // From the root down, as the search adds them.
        nodes.iter().rev().fold(0.0, |sum, (_, ln)| sum + ln)
    }
}

#[cfg(test)]
mod tests;
