//! Batches read ahead: a thread of its own, a limit on what waits, and how long the trainer had to wait.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Samples, Sequence, rank_samples};
use crate::Result;

/// Which samples a process reads: a slice of each global batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    /// Sequences per global batch, over all ranks.
    pub batch: u64,
    /// This process, from 0.
    pub rank: u64,
    /// Processes that share each batch.
    pub world: u64,
    /// The first sample of the first batch.
    pub next_sample: u64,
}

/// What one rank reads of a global batch, as host buffers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// `[B, T + 1]`, row-major: inputs, and the last target.
    pub tokens: Vec<u32>,
    /// `[B, T]`: whether each target counts.
    pub loss_mask: Vec<bool>,
    /// Of each row, where documents begin and the last one ends: see [`Sequence`].
    pub boundaries: Vec<Vec<u32>>,
    /// The sample after this batch's last one over all ranks: what a checkpoint keeps once the batch was used.
    pub next_sample: u64,
}

/// Batches in order, for as long as the samples last; a last one that would not be whole is left out.
///
/// At most `ahead` batches are in memory beside the one in use. The number changes when a batch is read, never which:
/// one thread reads them in order.
#[derive(Debug)]
pub struct Batches {
    from: From,
    stalled: Duration,
}

enum From {
    /// Nothing is read ahead.
    Here {
        source: Box<dyn Samples>,
        plan: BatchPlan,
    },
    Thread {
        receiver: Option<Receiver<Result<Batch>>>,
        thread: Option<JoinHandle<()>>,
    },
}

impl std::fmt::Debug for From {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Here { .. } => "Here",
            Self::Thread { .. } => "Thread",
        })
    }
}

impl Batches {
    /// Begins to read; with `ahead` 0, each batch is read when it is asked for.
    ///
    /// # Panics
    /// When `plan.rank` is not below `plan.world`, or the batch is empty.
    #[must_use]
    pub fn start(source: Box<dyn Samples>, plan: BatchPlan, ahead: usize) -> Self {
        assert!(plan.rank < plan.world && plan.batch > 0, "{plan:?}");
        let from = match ahead {
            0 => From::Here { source, plan },
            _ => {
                // The thread holds one finished batch while it waits for room.
                let (sender, receiver) = sync_channel(ahead - 1);
                let thread = thread::Builder::new()
                    .name("sequences".to_owned())
                    .spawn(move || feed(source, plan, &sender))
                    .expect("a thread can be started");
                From::Thread { receiver: Some(receiver), thread: Some(thread) }
            }
        };
        Self { from, stalled: Duration::ZERO }
    }

    /// How long [`Batches::next`] has taken so far, over all calls: the time that training waited for data.
    #[must_use]
    pub fn stalled(&self) -> Duration {
        self.stalled
    }
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let asked = Instant::now();
        let batch = match &mut self.from {
            From::Here { source, plan } => read(source.as_mut(), plan),
            From::Thread { receiver, .. } => receiver.as_ref().and_then(|it| it.recv().ok()),
        };
        self.stalled += asked.elapsed();
        batch
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        if let From::Thread { receiver, thread } = &mut self.from {
            // Closing the channel ends the thread at its next batch.
            *receiver = None;
            let joined = thread.take().map(JoinHandle::join);
            if let Some(Err(panic)) = joined
                && !thread::panicking()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

fn feed(mut source: Box<dyn Samples>, mut plan: BatchPlan, sender: &SyncSender<Result<Batch>>) {
    while let Some(batch) = read(source.as_mut(), &mut plan) {
        let failed = batch.is_err();
        if sender.send(batch).is_err() || failed {
            return;
        }
    }
}

/// Reads the rank's part of the next global batch; `None` when the samples do not fill it.
fn read(source: &mut dyn Samples, plan: &mut BatchPlan) -> Option<Result<Batch>> {
    let end = plan.next_sample + plan.batch;
    if source.n_samples().is_some_and(|n| n < end) {
        return None;
    }
    let samples = rank_samples(plan.next_sample, plan.batch, plan.rank, plan.world);
    plan.next_sample = end;
    Some(read_batch(source, samples, end))
}

fn read_batch(
    source: &mut dyn Samples,
    samples: std::ops::Range<u64>,
    next_sample: u64,
) -> Result<Batch> {
    let rows = usize::try_from(samples.end - samples.start).expect("a batch is in memory");
    let seq_len = source.seq_len();
    let mut batch = Batch {
        tokens: Vec::with_capacity(rows * (seq_len + 1)),
        loss_mask: Vec::with_capacity(rows * seq_len),
        boundaries: Vec::with_capacity(rows),
        next_sample,
    };
    let mut sequence = Sequence::default();
    for sample in samples {
        source.read_sequence(sample, &mut sequence)?;
        batch.tokens.extend_from_slice(&sequence.tokens);
        batch.loss_mask.extend_from_slice(&sequence.loss_mask);
        batch.boundaries.push(std::mem::take(&mut sequence.boundaries));
    }
    Ok(batch)
}
