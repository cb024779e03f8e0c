//! What a run measures: lines of JSON, TensorBoard scalars and a picture, under the same names.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, Float64Array, StringViewArray, UInt64Array};
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shard::Dataset;
use shard::manifest::{Counts, Manifest, hash};
use shard::schema::DatasetKind;
use shard::writer::ShardWriter;

use crate::checkpoint;
use crate::error::{Error, Result};
use crate::plot::{self, Series};
use crate::tensorboard::EventWriter;

/// The values of one step, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Updates made when it was measured.
    pub step: u64,
    /// Values such as `train/loss`; no infinities, which JSON cannot hold.
    #[serde(flatten)]
    pub values: BTreeMap<String, f64>,
}

/// The measurements of a run, on disk and in memory.
#[derive(Debug)]
pub struct Metrics {
    folder: PathBuf,
    rows: Vec<Row>,
    lines: File,
    events: EventWriter,
}

impl Metrics {
    /// Opens the measurements of the run in `folder`, and forgets what came after `step`.
    ///
    /// # Errors
    /// [`Error::Io`] when the files cannot be read or written.
    pub fn open(folder: &Path, step: u64) -> Result<Self> {
        let path = folder.join("metrics.jsonl");
        let rows = read(&path, step)?;
        let mut text = String::new();
        for row in &rows {
            text += &line(row);
        }
        checkpoint::replace(&path, text.as_bytes())?;
        let lines =
            OpenOptions::new().append(true).open(&path).map_err(Error::io("open", &path))?;
        // A step that is done again must not be shown twice.
        let first = if step == 0 { 0 } else { step + 1 };
        let events = EventWriter::create(folder, wall_seconds(), first)?;
        Ok(Self { folder: folder.to_owned(), rows, lines, events })
    }

    /// Adds the values of one step; those that are no finite number are left out.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk is full.
    pub fn add(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let finite: Vec<(&str, f64)> =
            values.iter().copied().filter(|(_, value)| value.is_finite()).collect();
        let values = finite.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let row = Row { step, values };
        let path = self.folder.join("metrics.jsonl");
        self.lines.write_all(line(&row).as_bytes()).map_err(Error::io("write", path))?;
        self.events.scalars(wall_seconds(), step, &finite)?;
        self.rows.push(row);
        Ok(())
    }

    /// Everything measured so far, in the order of steps.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Hands everything to the operating system and draws `loss.svg` anew.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk is full.
    pub fn flush(&mut self, title: &str) -> Result<()> {
        self.events.flush()?;
        self.lines.sync_data().map_err(Error::io("sync", self.folder.join("metrics.jsonl")))?;
        let series = |name: &str, colour| Series {
            name: name.to_owned(),
            colour,
            points: self
                .rows
                .iter()
                .filter_map(|row| Some((row.step, *row.values.get(name)?)))
                .collect(),
        };
        let series = [series("train/loss", "#4878a8"), series("validation/loss", "#c85030")];
        let picture = plot::svg(title, &series);
        checkpoint::replace(&self.folder.join("loss.svg"), picture.as_bytes())
    }

    /// Commits everything measured so far as a version of the dataset `metrics/`; `config` is the recipe.
    ///
    /// # Errors
    /// [`Error::Shard`] when it cannot be written.
    pub fn commit(&self, run: &str, config: Value) -> Result<()> {
        let dataset = Dataset::at(self.folder.join("metrics"));
        let kind = DatasetKind::Metrics;
        let batch = self.batch(run);
        let n_rows = batch.num_rows() as u64;
        let mut writer = ShardWriter::create(&dataset, "metrics", "train", &kind.schema())?;
        writer.write(&batch)?;
        let fingerprint = hash(config.to_string().as_bytes());
        let mut manifest = Manifest::new(kind, &kind.schema(), fingerprint, config);
        manifest.shards.push(writer.finish()?);
        manifest.counts.add(&Counts { n_in: n_rows, n_kept: n_rows, ..Counts::default() });
        let base = dataset.newest()?.map_or(0, |newest| newest.version);
        dataset.commit(base, manifest)?;
        Ok(())
    }

    fn batch(&self, run: &str) -> RecordBatch {
        let cells =
            || self.rows.iter().flat_map(|row| row.values.iter().map(move |v| (row.step, v)));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringViewArray::from_iter_values(cells().map(|_| run))),
            Arc::new(UInt64Array::from_iter_values(cells().map(|(step, _)| step))),
            Arc::new(StringViewArray::from_iter_values(cells().map(|(_, (name, _))| name))),
            Arc::new(Float64Array::from_iter_values(cells().map(|(_, (_, value))| *value))),
        ];
        RecordBatch::try_new(DatasetKind::Metrics.schema(), columns)
            .expect("the columns are those of the schema")
    }
}

fn line(row: &Row) -> String {
    serde_json::to_string(row).expect("finite numbers by text") + "\n"
}

/// Rows up to `step`; a line that was cut off by a crash comes after them.
fn read(path: &Path, step: u64) -> Result<Vec<Row>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    if step == 0 {
        return Ok(Vec::new());
    }
    let parsed = text.lines().map_while(|line| serde_json::from_str::<Row>(line).ok());
    Ok(parsed.filter(|row| row.step <= step).collect())
}

/// Measurements say when they were made; nothing else in a run depends on the clock.
fn wall_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
