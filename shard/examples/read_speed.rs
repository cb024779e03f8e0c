//! Times the reader.
//!
//! ```sh
//! cargo run --release -p shard --example read_speed -- make FOLDER TOKENS   # random tokens, and tokens.u32 for peers
//! cargo run --release -p shard --example read_speed -- read FOLDER [stream|best_fit] [verify]
//! cargo run --release -p shard --example read_speed -- resume FOLDER
//! cargo run --release -p shard --example read_speed -- manifest N_SHARDS N_ROW_GROUPS
//! ```
//!
//! `read` prints sequences of 2,048 per CPU second of the process, `resume` the time from nothing to the first batch of 8 at
//! half of the first epoch; `manifest` the time and memory to open a made-up manifest.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{FixedSizeBinaryArray, ListArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use shard::manifest::{Manifest, RowGroup, Shard};
use shard::order::seed_from;
use shard::packing::Packing;
use shard::reader::{BatchPlan, Batches, ReaderConfig, SequenceReader};
use shard::schema::DatasetKind;
use shard::writer::{ShardWriter, number_tokens};
use shard::{Dataset, store};

type Done = Result<(), Box<dyn Error>>;

const SEQ_LEN: usize = 2048;
const TOKENS_PER_SHARD: u64 = 48 << 20;

fn main() -> Done {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["make", folder, tokens] => make(Path::new(folder), tokens.parse()?),
        ["read", folder, ref how @ ..] => {
            read(Path::new(folder), how.contains(&"best_fit"), how.contains(&"verify"))
        }
        ["resume", folder] => resume(Path::new(folder)),
        ["manifest-open", folder] => open(Path::new(folder)),
        ["manifest", n, groups] => manifest(n.parse()?, groups.parse()?),
        _ => Err("give make, read, resume or manifest: see the first lines of this file".into()),
    }
}

/// Writes about `n_tokens` tokens in documents of 20 to 4,000 tokens; ids are skewed as words are, below 32,000.
fn make(folder: &Path, n_tokens: u64) -> Done {
    let dataset = Dataset::at(folder);
    let schema = DatasetKind::Tokens.schema();
    let config = serde_json::json!({});
    let mut manifest = Manifest::new(DatasetKind::Tokens, &schema, "made up".to_owned(), config);
    let mut plain = BufWriter::new(File::create(folder.with_extension("u32"))?);
    let (mut document, mut written) = (0_u64, 0);
    while written < n_tokens {
        let name = format!("train-{:05}", manifest.shards.len());
        let mut writer = ShardWriter::create(&dataset, &name, "train", &schema)?;
        let end = n_tokens.min(written + TOKENS_PER_SHARD);
        while written < end {
            let rows: Vec<Vec<u32>> = (document..document + 256).map(tokens_of).collect();
            for row in &rows {
                written += row.len() as u64;
                row.iter().try_for_each(|token| plain.write_all(&token.to_le_bytes()))?;
            }
            writer.write(&batch(document, &rows)?)?;
            document += 256;
        }
        manifest.shards.push(writer.finish()?);
    }
    plain.flush()?;
    number_tokens(&mut manifest.shards);
    manifest.counts.n_in = document;
    manifest.counts.n_kept = document;
    dataset.commit(0, manifest)?;
    show(&format!("{written} tokens in {document} documents"))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "made-up tokens"
)]
fn tokens_of(document: u64) -> Vec<u32> {
    let unit = |x: u64| (x >> 11) as f64 / (1_u64 << 53) as f64;
    let n = 20.0 * 200_f64.powf(unit(seed_from(&[document])));
    (0..n as u64).map(|i| (32_000_f64.powf(unit(seed_from(&[document, i]))) - 1.0) as u32).collect()
}

fn batch(first: u64, rows: &[Vec<u32>]) -> Result<RecordBatch, Box<dyn Error>> {
    let schema = DatasetKind::Tokens.schema();
    let ids = (first..first + rows.len() as u64).map(|id| u128::from(id).to_be_bytes());
    let DataType::List(item) = schema.field(1).data_type() else {
        return Err("tokens are no list".into());
    };
    let lists = ListArray::new(
        Arc::clone(item),
        OffsetBuffer::from_lengths(rows.iter().map(Vec::len)),
        Arc::new(UInt32Array::from_iter_values(rows.iter().flatten().copied())),
        None,
    );
    let lengths = rows.iter().map(|row| u32::try_from(row.len()));
    let lengths = UInt32Array::from(lengths.collect::<Result<Vec<_>, _>>()?);
    let ids = FixedSizeBinaryArray::try_from_iter(ids)?;
    Ok(RecordBatch::try_new(schema, vec![Arc::new(ids), Arc::new(lists), Arc::new(lengths)])?)
}

fn config(is_best_fit: bool, verify: bool) -> ReaderConfig {
    ReaderConfig {
        split: "train".to_owned(),
        partition: None,
        seq_len: SEQ_LEN,
        seed: 42,
        verify,
        packing: if is_best_fit { Packing::BestFit } else { Packing::Stream },
        mask_documents: is_best_fit,
    }
}

fn read(folder: &Path, is_best_fit: bool, verify: bool) -> Done {
    let cpu = cpu_seconds()?;
    let started = Instant::now();
    let reader = SequenceReader::open(folder, None, config(is_best_fit, verify))?;
    let opened = started.elapsed();
    let n = reader.n_sequences();
    let plan = BatchPlan { batch: 32, rank: 0, world: 1, next_sample: 0 };
    let mut batches = Batches::start(Box::new(reader), plan, 2);
    let mut sum = 0_u64;
    let mut counted = 0_u64;
    for batch in batches.by_ref().take(usize::try_from(n / 32)?) {
        let batch = batch?;
        sum = sum.wrapping_add(batch.tokens.iter().map(|token| u64::from(*token)).sum());
        counted += batch.boundaries.len() as u64;
    }
    let (wall, cpu) = (started.elapsed(), cpu_seconds()? - cpu);
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 sequences")]
    let per_second = counted as f64 / cpu;
    show(&format!(
        "{counted} sequences, {wall:.2?} wall, {cpu:.2} CPU s: {per_second:.0} sequences/CPU-s; opened in {opened:.2?}, \
         waited {:.2?}, peak {} MiB (sum {sum})",
        batches.stalled(),
        peak_mib()?
    ))
}

fn resume(folder: &Path) -> Done {
    for (is_best_fit, verify) in [(false, true), (false, false), (true, true), (true, false)] {
        let n = SequenceReader::open(folder, None, config(is_best_fit, false))?.n_sequences();
        let started = Instant::now();
        let reader = SequenceReader::open(folder, None, config(is_best_fit, verify))?;
        let opened = started.elapsed();
        let plan = BatchPlan { batch: 8, rank: 0, world: 1, next_sample: n / 2 };
        let mut first = SequenceReader::open(folder, None, config(is_best_fit, verify))?;
        let mut row = vec![0; SEQ_LEN + 1];
        let began = Instant::now();
        first.read(n / 2, &mut row)?;
        let sample = began.elapsed() + opened;
        let began = Instant::now();
        let mut batches = Batches::start(Box::new(reader), plan, 0);
        batches.next().ok_or("no batch")??;
        let packing = if is_best_fit { "best_fit" } else { "stream" };
        show(&format!(
            "{packing}, verify {verify}: opened in {opened:.1?}, first sequence at half of the epoch after \
             {sample:.1?}, first batch of 8 (shards verified before) {:.1?}",
            began.elapsed() + opened
        ))?;
    }
    Ok(())
}

fn manifest(n_shards: u64, n_groups: u64) -> Done {
    let schema = DatasetKind::Tokens.schema();
    let config = serde_json::json!({});
    let mut manifest = Manifest::new(DatasetKind::Tokens, &schema, "made up".to_owned(), config);
    for i in 0..n_shards {
        let hash = blake3_of(i);
        manifest.shards.push(Shard {
            path: format!("data/train-{i:07}-{}.parquet", &hash[..12]),
            split: "train".to_owned(),
            partition: None,
            rows: 4_000 * n_groups,
            bytes: 256 << 20,
            blake3: hash,
            row_groups: vec![
                RowGroup { rows: 4_000, n_tokens: 4 << 20, first_token: 0 };
                usize::try_from(n_groups)?
            ],
        });
    }
    number_tokens(&mut manifest.shards);
    let folder = std::env::temp_dir().join(format!("gristmill-manifest-{}", std::process::id()));
    let path = folder.join("manifest/00000001.json");
    store::replace(&path, &manifest.to_bytes())?;
    drop(manifest);
    let bytes = fs::metadata(&path)?.len();
    // A process of its own, so that the memory is that of opening.
    let status = std::process::Command::new(std::env::current_exe()?)
        .args(["manifest-open", &folder.display().to_string()])
        .status();
    show(&format!("{n_shards} shards of {n_groups} row groups: {} MB", bytes / 1_000_000))?;
    fs::remove_dir_all(&folder)?;
    status?;
    Ok(())
}

fn open(folder: &Path) -> Done {
    let started = Instant::now();
    let mut reader = SequenceReader::open(folder, None, config(false, true))?;
    let at = reader.sequence_of(reader.n_sequences() / 2);
    show(&format!(
        "opened in {:.2?}, peak {} MiB (sequence {at} of {})",
        started.elapsed(),
        peak_mib()?,
        reader.n_sequences()
    ))
}

fn blake3_of(i: u64) -> String {
    shard::manifest::hash(&i.to_le_bytes())
}

fn show(line: &str) -> Done {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// CPU seconds of this process so far, from Linux.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| -> Result<f64, Box<dyn Error>> { Ok(fields[i].parse()?) };
    // User and system time, in hundredths.
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

fn peak_mib() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.split_whitespace().nth(1).ok_or("no size")?.parse::<u64>()? / 1024)
}
