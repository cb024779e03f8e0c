//! What a model is trained on: which targets a sequence has, and the loss over them.
//!
//! An [`Objective`] turns sequences into a [`MicroBatch`] while a step is computed, and a batch into the **sum** of its
//! losses. The loss of a step is the mean over the targets of the global batch, so the caller divides by their number over
//! all micro-batches and ranks: how the batch is cut changes nothing.

mod causal_lm;
mod classification;
mod masked_lm;
mod supervised;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shard::reader::Sequence;
use shard::tokenizer::Tokenizer;
use tch::{Device, Reduction, Tensor};

pub use self::classification::score_loss;
pub use self::masked_lm::{Masking, hide};
use crate::error::{Error, Result};
use crate::model::{Model, Pass, Shape};
use crate::torch;

/// Every objective, sorted by name.
pub const KINDS: [ObjectiveKind; 4] =
    [causal_lm::KIND, classification::KIND, masked_lm::KIND, supervised::KIND];

/// A target that does not count, as in the field's label tensors.
pub const IGNORED: i64 = -100;

/// One way to train.
#[derive(Clone, Copy)]
pub struct ObjectiveKind {
    /// Its name in recipes.
    pub name: &'static str,
    /// One line for help texts.
    pub summary: &'static str,
    /// Its paper, and the implementation that it is checked against.
    pub source: &'static str,
    build: fn(&Config, &Vocabulary, Shape) -> Result<Box<dyn Objective>>,
}

impl fmt::Debug for ObjectiveKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectiveKind").field("name", &self.name).finish_non_exhaustive()
    }
}

/// An objective as a recipe names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `causal_lm`, `classification`, `masked_lm` or `supervised`.
    pub kind: String,
    /// Whether documents of one sequence see each other not; by default so for `supervised` only.
    pub mask_documents: Option<bool>,
    /// Share of tokens that are targets (`masked_lm`).
    pub mask_share: f64,
    /// What is hidden as a whole: `token`, `word` or `span` (`masked_lm`).
    pub masking: Masking,
    /// Stands for a hidden token; by default `[MASK]` or `<mask>`, whichever the vocabulary has (`masked_lm`).
    pub mask_token: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: "causal_lm".to_owned(),
            mask_documents: None,
            // Devlin et al. 2019, section 3.1.
            mask_share: 0.15,
            masking: Masking::Token,
            mask_token: None,
        }
    }
}

impl Config {
    /// Whether documents of one sequence are kept apart.
    #[must_use]
    pub fn masks_documents(&self) -> bool {
        self.mask_documents.unwrap_or(self.kind == "supervised")
    }
}

/// One pass: what the model sees and what it should say, `[B, T]` int64 each.
#[derive(Debug)]
pub struct MicroBatch {
    /// Tokens.
    pub tokens_bt: Tensor,
    /// What belongs at each position, or [`IGNORED`].
    pub targets_bt: Tensor,
    /// Position of each token in its document, where documents are kept apart.
    pub positions_bt: Option<Tensor>,
    /// The document of each token, where documents are kept apart.
    pub documents_bt: Option<Tensor>,
    /// Rows of the flattened batch that have a target, where few have one.
    pub counted: Option<Tensor>,
    /// Targets that count.
    pub n_targets: u64,
}

impl MicroBatch {
    /// Returns the same batch on `device`.
    #[must_use]
    pub fn to_device(&self, device: Device) -> Self {
        let moved = |tensor: &Tensor| tensor.to_device(device);
        Self {
            tokens_bt: moved(&self.tokens_bt),
            targets_bt: moved(&self.targets_bt),
            positions_bt: self.positions_bt.as_ref().map(moved),
            documents_bt: self.documents_bt.as_ref().map(moved),
            counted: self.counted.as_ref().map(moved),
            n_targets: self.n_targets,
        }
    }
}

/// Decides what counts.
pub trait Objective: Send + Sync + fmt::Debug {
    /// Whether documents of one sequence are kept apart.
    fn masks_documents(&self) -> bool;

    /// Writes the inputs and targets of the global sample `sample`, `T` each.
    ///
    /// A pure function of the two: the same whatever the rank, the micro-batch and the step of a restart.
    fn fill(&self, sequence: &Sequence, sample: u64, inputs: &mut Vec<i64>, targets: &mut Vec<i64>);

    /// Returns the sum of the losses of all targets, in nats, a scalar tensor.
    ///
    /// # Errors
    /// [`Error::Torch`] when libtorch refuses.
    fn loss(&self, model: &dyn Model, batch: &MicroBatch, pass: &mut Pass<'_>) -> Result<Tensor> {
        pass.positions_bt = batch.positions_bt.as_ref().map(Tensor::shallow_clone);
        pass.documents_bt = batch.documents_bt.as_ref().map(Tensor::shallow_clone);
        let hidden_btc = model.hidden(&batch.tokens_bt, pass);
        token_loss(model, &hidden_btc, batch, pass.loss_rows)
    }
}

/// What an objective needs to know of the vocabulary.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    /// Ids are below this.
    pub n: u32,
    /// Special tokens.
    pub special: BTreeMap<String, u32>,
    /// Whether a word begins with each id.
    pub begins_word: Vec<bool>,
    /// Seeds what is drawn.
    pub seed: u64,
}

impl Vocabulary {
    /// Reads a tokenizer.
    ///
    /// A token begins a word when it carries the mark of its kind of vocabulary (`Ġ`, `▁`), or lacks that of
    /// continuations (`##`). Where there are no marks, every token is a word.
    #[must_use]
    pub fn of(tokenizer: &Tokenizer, seed: u64) -> Self {
        let json: Value = serde_json::from_slice(tokenizer.to_bytes()).unwrap_or(Value::Null);
        let mut texts = vec![String::new(); tokenizer.n_vocabulary() as usize];
        let mut set = |text: &str, id: Option<u64>| {
            let slot = id.and_then(|id| texts.get_mut(usize::try_from(id).ok()?));
            if let Some(slot) = slot {
                text.clone_into(slot);
            }
        };
        match &json["model"]["vocab"] {
            Value::Object(map) => map.iter().for_each(|(text, id)| set(text, id.as_u64())),
            Value::Array(list) => {
                for (id, row) in (0..).zip(list) {
                    set(row[0].as_str().unwrap_or_default(), Some(id));
                }
            }
            _ => {}
        }
        let continues = texts.iter().any(|text| text.starts_with("##"));
        let marked = |text: &String| text.starts_with(['Ġ', '▁']);
        let has_marks = texts.iter().any(marked);
        let begins = |text: &String| {
            if continues { !text.starts_with("##") } else { !has_marks || marked(text) }
        };
        Self {
            n: tokenizer.n_vocabulary(),
            special: tokenizer.special().clone(),
            begins_word: texts.iter().map(begins).collect(),
            seed,
        }
    }
}

/// Finds an objective by its name in recipes.
#[must_use]
pub fn find(name: &str) -> Option<ObjectiveKind> {
    KINDS.into_iter().find(|kind| kind.name == name)
}

/// Makes the objective of a recipe for a model of that `shape`.
///
/// # Errors
/// [`Error::Unusable`] when no objective has the name, or the model or the vocabulary lack what it needs.
pub fn build(config: &Config, vocabulary: &Vocabulary, shape: Shape) -> Result<Box<dyn Objective>> {
    let kind = find(&config.kind).ok_or_else(|| {
        let known: Vec<_> = KINDS.iter().map(|kind| format!("`{}`", kind.name)).collect();
        misfit(
            format!("no objective is called `{}`", config.kind),
            &format!("there are {}", known.join(", ")),
        )
    })?;
    (kind.build)(config, vocabulary, shape)
}

/// Makes one micro-batch of samples and their sequences.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn micro_batch(objective: &dyn Objective, rows: &[(u64, Sequence)]) -> MicroBatch {
    let b = i64::try_from(rows.len()).expect("a count of sequences");
    let (mut inputs, mut targets) = (Vec::new(), Vec::new());
    let (mut positions, mut documents) = (Vec::new(), Vec::new());
    for (sample, sequence) in rows {
        objective.fill(sequence, *sample, &mut inputs, &mut targets);
        if objective.masks_documents() {
            let mut document = -1;
            for position in sequence.positions() {
                document += i64::from(position == 0);
                positions.push(i64::from(position));
                documents.push(document);
            }
        }
    }
    assert_eq!(inputs.len(), targets.len(), "a target for each input");
    let counted: Vec<i64> =
        (0..).zip(&targets).filter(|(_, target)| **target != IGNORED).map(|(i, _)| i).collect();
    let tensor = |values: &[i64]| Tensor::from_slice(values).view([b, -1]);
    // Below half, gathering rows costs less than the head's products over all of them.
    let is_sparse = 2 * counted.len() < targets.len();
    MicroBatch {
        tokens_bt: tensor(&inputs),
        targets_bt: tensor(&targets),
        positions_bt: (!positions.is_empty()).then(|| tensor(&positions)),
        documents_bt: (!documents.is_empty()).then(|| tensor(&documents)),
        n_targets: counted.len() as u64,
        counted: is_sparse.then(|| Tensor::from_slice(&counted)),
    }
}

/// Returns the sum of the losses of all counted targets over the model's own logits.
///
/// Where `rows` are given, the logits of only so many exist at a time: they are computed again for their gradients.
fn token_loss(
    model: &dyn Model,
    hidden_btc: &Tensor,
    batch: &MicroBatch,
    rows: Option<i64>,
) -> Result<Tensor> {
    let c = *hidden_btc.size().last().expect("hidden states have channels");
    let (mut hidden_nc, mut targets_n) =
        (hidden_btc.reshape([-1, c]), batch.targets_bt.reshape([-1]));
    if let Some(counted) = &batch.counted {
        hidden_nc = hidden_nc.index_select(0, counted);
        targets_n = targets_n.index_select(0, counted);
    }
    let n = targets_n.size()[0];
    let Some(rows) = rows.filter(|&rows| rows < n) else {
        return sum_of_losses(&model.head(&hidden_nc), &targets_n);
    };
    let mut sum = Tensor::zeros([], (tch::Kind::Float, hidden_btc.device()));
    for (hidden, targets) in hidden_nc.split(rows, 0).iter().zip(targets_n.split(rows, 0)) {
        let head = model.token_head();
        sum += torch::recompute(hidden, move |hidden| {
            sum_of_losses(&head(hidden), &targets).unwrap_or_else(|error| panic!("{error}"))
        })?;
    }
    Ok(sum)
}

/// Returns the sum of the losses of all counted targets, in nats, a scalar tensor.
///
/// `logits` `[.., V]` of any float kind and `targets` `[..]` int64, aligned.
///
/// # Errors
/// [`Error::Torch`] when libtorch refuses, as for a target beyond the vocabulary.
pub fn sum_of_losses(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let v = *logits.size().last().expect("logits have a vocabulary");
    let logits_nv = logits.reshape([-1, v]).to_kind(tch::Kind::Float);
    logits_nv
        .f_cross_entropy_loss::<Tensor>(&targets.reshape([-1]), None, Reduction::Sum, IGNORED, 0.0)
        .map_err(Error::torch("compute the loss"))
}

fn misfit(why: String, hint: &str) -> Error {
    Error::Unusable {
        action: "train",
        what: "the objective".to_owned(),
        why,
        hint: hint.to_owned(),
    }
}

/// Refuses a model that cannot do what an objective asks.
fn need(has_it: bool, objective: &str, what: &str, hint: &str) -> Result<()> {
    if has_it {
        return Ok(());
    }
    Err(misfit(format!("`{objective}` needs {what}, which the model has not"), hint))
}
