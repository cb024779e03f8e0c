//! Where sequences come from, and the thread that reads ahead.
//!
//! The order of samples is a pure function of the dataset, its seed and the sample's index, so a batch is known from
//! its step alone, whatever was read before and by how many processes.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use shard::mixture::MixtureReader;
use shard::reader::{Samples, Sequence, SequenceReader, rank_samples};

use crate::error::{Error, Result};
use crate::objective::{self, MicroBatch, Objective};

/// Gives the tokens of each sample.
pub trait SequenceSource: Send {
    /// Samples per epoch.
    fn n_sequences(&self) -> u64;

    /// Samples that there are; `None` where epochs follow each other without end.
    fn n_samples(&self) -> Option<u64> {
        None
    }

    /// Fills `out` with global sample `sample`: `seq_len + 1` tokens, where documents begin, and which targets count.
    ///
    /// # Errors
    /// When the dataset cannot be read.
    fn read(&mut self, sample: u64, out: &mut Sequence) -> Result<()>;
}

impl SequenceSource for SequenceReader {
    fn n_sequences(&self) -> u64 {
        self.n_sequences()
    }

    fn read(&mut self, sample: u64, out: &mut Sequence) -> Result<()> {
        Ok(self.read_sequence(sample, out)?)
    }
}

impl SequenceSource for MixtureReader {
    fn n_sequences(&self) -> u64 {
        self.components().map(|(_, reader)| reader.n_sequences()).sum()
    }

    fn n_samples(&self) -> Option<u64> {
        Samples::n_samples(self)
    }

    fn read(&mut self, sample: u64, out: &mut Sequence) -> Result<()> {
        Ok(self.read_sequence(sample, out)?)
    }
}

/// Samples in memory, in their own order in each epoch.
#[derive(Debug)]
pub struct Memory {
    tokens: Vec<u32>,
    seq_len: usize,
}

impl Memory {
    /// Cuts `tokens` into sequences of `seq_len`, each with the token that follows.
    #[must_use]
    pub fn new(tokens: Vec<u32>, seq_len: usize) -> Self {
        Self { tokens, seq_len }
    }
}

impl SequenceSource for Memory {
    fn n_sequences(&self) -> u64 {
        (self.tokens.len().saturating_sub(1) / self.seq_len) as u64
    }

    fn read(&mut self, sample: u64, out: &mut Sequence) -> Result<()> {
        let index = usize::try_from(sample % self.n_sequences()).expect("it is in memory");
        let start = index * self.seq_len;
        out.tokens = self.tokens[start..=start + self.seq_len].to_vec();
        out.boundaries = vec![0, u32::try_from(self.seq_len + 1).expect("a sequence length")];
        out.loss_mask = vec![true; self.seq_len];
        Ok(())
    }
}

/// Sizes of the batches that are read ahead.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Tokens per sequence, without the one that follows.
    pub seq_len: usize,
    /// Sequences per global batch.
    pub batch_sequences: u64,
    /// Sequences per pass.
    pub micro_batch_sequences: u64,
    /// Ids must be below this.
    pub vocab_size: u64,
    /// This process, from 0.
    pub rank: u64,
    /// Processes that share each batch.
    pub world: u64,
}

/// Batches one after the other, made on a thread of their own.
#[derive(Debug)]
pub struct Batches {
    receiver: Option<Receiver<Result<Vec<MicroBatch>>>>,
    thread: Option<JoinHandle<()>>,
}

/// Batches that wait while a step is computed.
const BATCHES_AHEAD: usize = 2;

impl Batches {
    /// Starts to read with batch `first` of the dataset's order; a batch is the micro-batches of one step.
    #[must_use]
    pub fn start(
        mut source: Box<dyn SequenceSource>,
        objective: Arc<dyn Objective>,
        plan: Plan,
        first: u64,
    ) -> Self {
        let (sender, receiver) = sync_channel(BATCHES_AHEAD);
        let thread = thread::Builder::new()
            .name("sequences".to_owned())
            .spawn(move || feed(source.as_mut(), objective.as_ref(), plan, first, &sender))
            .expect("a thread can be started");
        Self { receiver: Some(receiver), thread: Some(thread) }
    }

    /// Waits for the next batch.
    ///
    /// # Errors
    /// When the dataset cannot be read.
    ///
    /// # Panics
    /// When asked again after an error.
    pub fn next_batch(&mut self) -> Result<Vec<MicroBatch>> {
        let receiver = self.receiver.as_ref().expect("open until dropped");
        receiver.recv().expect("it reads until an error or until it is dropped")
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        // Closing the channel ends the thread at its next batch.
        self.receiver = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the reading thread panicked");
        }
    }
}

fn feed(
    source: &mut dyn SequenceSource,
    objective: &dyn Objective,
    plan: Plan,
    first: u64,
    sender: &SyncSender<Result<Vec<MicroBatch>>>,
) {
    for index in first.. {
        let first_sample = index * plan.batch_sequences;
        let batch = check_lasts(source, first_sample + plan.batch_sequences)
            .and_then(|()| read_batch(source, objective, plan, first_sample));
        let failed = batch.is_err();
        if sender.send(batch).is_err() || failed {
            return;
        }
    }
}

/// Reads the global batch that begins at sample `next_sample`.
///
/// # Errors
/// When the dataset cannot be read, or holds an id beyond the vocabulary.
pub fn read_batch(
    source: &mut dyn SequenceSource,
    objective: &dyn Objective,
    plan: Plan,
    next_sample: u64,
) -> Result<Vec<MicroBatch>> {
    let samples = rank_samples(next_sample, plan.batch_sequences, plan.rank, plan.world);
    let samples: Vec<u64> = samples.collect();
    let per_pass = usize::try_from(plan.micro_batch_sequences).unwrap_or(usize::MAX);
    let mut batch = Vec::new();
    for part in samples.chunks(per_pass) {
        let mut rows = Vec::with_capacity(part.len());
        for &sample in part {
            let mut sequence = Sequence::default();
            source.read(sample, &mut sequence)?;
            check_ids(&sequence.tokens, sample, plan.vocab_size)?;
            rows.push((sample, sequence));
        }
        batch.push(objective::micro_batch(objective, &rows));
    }
    Ok(batch)
}

/// Refuses to read `wanted` samples from datasets that are exhausted before.
///
/// # Errors
/// [`Error::Unusable`] with both numbers.
pub fn check_lasts(source: &dyn SequenceSource, wanted: u64) -> Result<()> {
    let Some(n) = source.n_samples().filter(|n| *n < wanted) else { return Ok(()) };
    Err(Error::Unusable {
        action: "train on",
        what: "the mixture of the recipe".to_owned(),
        why: format!("its datasets are exhausted after {n} sequences, the run needs {wanted}"),
        hint: "raise `epochs_max`, leave one dataset without it, or lower `train.steps`".to_owned(),
    })
}

fn check_ids(row: &[u32], sample: u64, vocab_size: u64) -> Result<()> {
    let Some(id) = row.iter().find(|&&id| u64::from(id) >= vocab_size) else { return Ok(()) };
    Err(Error::Unusable {
        action: "train on",
        what: format!("sample {sample}"),
        why: format!("it holds the token id {id}, the model's vocabulary has {vocab_size} entries"),
        hint: "shard the corpus with the tokenizer that the model was made for".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Shape;

    #[test]
    fn a_target_is_the_token_that_follows() {
        let mut source = Memory::new((0..17).collect(), 4);
        let plan = Plan {
            seq_len: 4,
            batch_sequences: 4,
            micro_batch_sequences: 2,
            vocab_size: 17,
            rank: 0,
            world: 1,
        };
        let shape = Shape {
            n_layers: 1,
            n_heads: 1,
            head_size: 8,
            vocab_size: 17,
            seq_len_max: 4,
            n_position_parameters: 0,
            is_causal: true,
            has_token_head: true,
            n_scores: 0,
        };
        let vocabulary = objective::Vocabulary::default();
        let objective =
            objective::build(&objective::Config::default(), &vocabulary, shape).unwrap();
        let batch = read_batch(&mut source, objective.as_ref(), plan, 0).unwrap();
        assert_eq!(batch.len(), 2);
        let tokens = Vec::<Vec<i64>>::try_from(&batch[1].tokens_bt).unwrap();
        assert_eq!(tokens, [[8, 9, 10, 11], [12, 13, 14, 15]]);
        let targets = Vec::<Vec<i64>>::try_from(&batch[1].targets_bt).unwrap();
        assert_eq!(targets, [[9, 10, 11, 12], [13, 14, 15, 16]]);
    }
}
