//! `gristmill read`: the sequences that a trainer would see, as lines of JSON.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use shard::packing::Packing;
use shard::reader::{ReaderConfig, Samples, Sequence, SequenceReader, rank_samples};

use crate::{Error, Result};

/// Which sequences are read.
#[derive(Debug, Args)]
pub(crate) struct ReadArguments {
    /// A dataset of tokens.
    dataset: PathBuf,
    /// Tokens per sequence.
    #[arg(long)]
    seq_len: usize,
    /// A version of the dataset [default: the newest].
    #[arg(long)]
    dataset_version: Option<u64>,
    /// A split of the dataset.
    #[arg(long, default_value = "train")]
    split: String,
    /// Decides the order of every epoch.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// A partition of the split [default: all of it].
    #[arg(long)]
    partition: Option<String>,
    /// How documents fill sequences: `stream` or `best_fit`.
    #[arg(long, default_value = "stream")]
    packing: String,
    /// Tell documents of one sequence apart.
    #[arg(long)]
    mask_documents: bool,
    /// The first global sample.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Global batches to read [default: one epoch].
    #[arg(long)]
    batches: Option<u64>,
    /// Sequences per global batch.
    #[arg(long, default_value_t = 1)]
    batch: u64,
    /// Print the samples of this process, from 0.
    #[arg(long, default_value_t = 0)]
    rank: u64,
    /// Processes that share each batch.
    #[arg(long, default_value_t = 1)]
    world: u64,
}

/// Prints one object per sequence: `sample`, `tokens` (inputs and the last target), `loss_mask`, `boundaries`.
pub(crate) fn read(arguments: &ReadArguments) -> Result<ExitCode> {
    let refuse =
        |place: &str, message: String| Error::Job { place: place.to_owned(), message, hint: None };
    let packing = match arguments.packing.as_str() {
        "stream" => Packing::Stream,
        "best_fit" => Packing::BestFit,
        other => return Err(refuse("--packing", format!("unknown packing `{other}`"))),
    };
    let (rank, world, batch) = (arguments.rank, arguments.world, arguments.batch);
    if rank >= world || batch == 0 {
        let message = format!("rank {rank} of {world}, {batch} sequences per batch");
        return Err(refuse("--rank", message));
    }
    let config = ReaderConfig {
        split: arguments.split.clone(),
        partition: arguments.partition.clone(),
        seq_len: arguments.seq_len,
        seed: arguments.seed,
        verify: true,
        packing,
        mask_documents: arguments.mask_documents,
    };
    let mut reader = SequenceReader::open(&arguments.dataset, arguments.dataset_version, config)?;
    let n_batches = arguments.batches.unwrap_or(reader.n_sequences() / batch);
    let mut out = BufWriter::new(io::stdout());
    let mut sequence = Sequence::default();
    for index in 0..n_batches {
        for sample in rank_samples(arguments.first + index * batch, batch, rank, world) {
            reader.read_sequence(sample, &mut sequence)?;
            let Sequence { tokens, boundaries, loss_mask } = &sequence;
            let line = json!({
                "sample": sample, "tokens": tokens, "loss_mask": loss_mask, "boundaries": boundaries,
            });
            if !write(&mut out, &format!("{line}\n"))? {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    match out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(refused(error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Whether somebody still reads.
fn write(out: &mut impl Write, line: &str) -> Result<bool> {
    match out.write_all(line.as_bytes()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(refused(error)),
    }
}

fn refused(error: io::Error) -> Error {
    shard::Error::io("write", "standard output")(error).into()
}
