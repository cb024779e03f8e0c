//! The parts of documents that steps saw, as rows: what `trained_on` and `seen_by` have in common.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeBinaryBuilder, StringBuilder, UInt32Builder, UInt64Builder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use shard::reader::{SequencePart, SequenceReader};
use shard::schema::ID_BYTES;

use super::Id;
use super::rows::Send;
use super::run::{History, Step};
use crate::Result;

/// Rows of a batch.
const BATCH_ROWS: usize = 4096;

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("run", DataType::Utf8, false),
        Field::new("step", DataType::UInt64, true),
        // made, skipped or undone; unknown when the tokens that the run saw are gone.
        Field::new("outcome", DataType::Utf8, false),
        Field::new("sequence", DataType::UInt64, true),
        // Of the part in its sequence, in tokens.
        Field::new("sequence_offset", DataType::UInt32, true),
        Field::new("document_id", DataType::FixedSizeBinary(ID_BYTES), true),
        // Of the part, counted from the start of its document.
        Field::new("first_token", DataType::UInt32, true),
        Field::new("n_tokens", DataType::UInt32, true),
        // Of the dataset of tokens.
        Field::new("version", DataType::UInt64, false),
        Field::new("shard", DataType::Utf8, true),
        Field::new("row", DataType::UInt64, true),
        // The first one that is still there and came of the step.
        Field::new("checkpoint", DataType::Utf8, true),
    ]))
}

/// Rows of one run that are not a batch yet.
pub(super) struct Parts<'a> {
    history: &'a History,
    n: usize,
    text: [StringBuilder; 4],
    long: [UInt64Builder; 4],
    short: [UInt32Builder; 3],
    id: FixedSizeBinaryBuilder,
}

impl<'a> Parts<'a> {
    pub(super) fn of(history: &'a History) -> Self {
        Self {
            history,
            n: 0,
            text: std::array::from_fn(|_| StringBuilder::new()),
            long: std::array::from_fn(|_| UInt64Builder::new()),
            short: std::array::from_fn(|_| UInt32Builder::new()),
            id: FixedSizeBinaryBuilder::new(ID_BYTES),
        }
    }

    fn add(&mut self, step: Step, sample: u64, offset: u32, part: &SequencePart) -> Result<()> {
        let Self { history, text: [run, outcome, shard, checkpoint], .. } = self;
        run.append_value(&history.name);
        outcome.append_value(step.outcome.name());
        shard.append_value(&part.shard);
        checkpoint.append_option(history.checkpoint_of(step).map(|it| &it.name));
        let long = [step.number, sample, history.run.tokens.version, part.row];
        self.long.iter_mut().zip(long).for_each(|(column, value)| column.append_value(value));
        let short = [offset, part.first_token_in_document, part.n_tokens];
        self.short.iter_mut().zip(short).for_each(|(column, value)| column.append_value(value));
        self.id.append_value(part.document_id)?;
        self.n += 1;
        Ok(())
    }

    /// The one row of a run whose tokens are gone.
    pub(super) fn unknown(mut self) -> Result<RecordBatch> {
        let [run, outcome, shard, checkpoint] = &mut self.text;
        run.append_value(&self.history.name);
        outcome.append_value("unknown");
        shard.append_null();
        checkpoint.append_null();
        let [step, sample, version, row] = &mut self.long;
        version.append_value(self.history.run.tokens.version);
        [step, sample, row].into_iter().for_each(UInt64Builder::append_null);
        self.short.iter_mut().for_each(UInt32Builder::append_null);
        self.id.append_null();
        self.batch()
    }

    fn batch(&mut self) -> Result<RecordBatch> {
        self.n = 0;
        let [run, outcome, shard, checkpoint] =
            self.text.each_mut().map(|column| -> ArrayRef { Arc::new(column.finish()) });
        let [step, sample, version, row] =
            self.long.each_mut().map(|column| -> ArrayRef { Arc::new(column.finish()) });
        let [offset, first, n] =
            self.short.each_mut().map(|column| -> ArrayRef { Arc::new(column.finish()) });
        let id: ArrayRef = Arc::new(self.id.finish());
        let columns =
            vec![run, step, outcome, sample, offset, id, first, n, version, shard, row, checkpoint];
        Ok(RecordBatch::try_new(schema(), columns)?)
    }

    fn flush(&mut self, n_min: usize, send: Send<'_>) -> Result<bool> {
        Ok(if self.n < n_min { true } else { send(self.batch()?) })
    }
}

/// Sends what the steps for which `is_wanted` says so saw, step by step.
pub(super) fn send_steps(
    history: &History,
    tokens: &Path,
    is_wanted: impl Fn(Step) -> bool,
    send: Send<'_>,
) -> Result<()> {
    let mut reader = history.reader(tokens)?;
    let mut parts = Parts::of(history);
    for step in history.steps().filter(|step| is_wanted(*step)) {
        for sample in step.first_sample..step.first_sample + history.run.batch_sequences {
            let mut offset = 0;
            for part in reader.documents(sample)? {
                parts.add(step, sample, offset, &part)?;
                offset += part.n_tokens;
            }
        }
        if !parts.flush(BATCH_ROWS, send)? {
            return Ok(());
        }
    }
    parts.flush(1, send)?;
    Ok(())
}

/// Sends where the steps of a run saw `documents`, in the order of samples.
pub(super) fn send_documents(
    history: &History,
    tokens: &Path,
    documents: &BTreeSet<Id>,
    send: Send<'_>,
) -> Result<()> {
    let mut parts = Parts::of(history);
    for (step, sample, offset, part) in find(history, &history.reader(tokens)?, documents)? {
        parts.add(step, sample, offset, &part)?;
        if !parts.flush(BATCH_ROWS, send)? {
            return Ok(());
        }
    }
    parts.flush(1, send)?;
    Ok(())
}

/// Returns every step, sample and offset in it that has tokens of `documents`, in the order of samples.
pub(super) fn find(
    history: &History,
    reader: &SequenceReader,
    documents: &BTreeSet<Id>,
) -> Result<Vec<(Step, u64, u32, SequencePart)>> {
    let mut found = Vec::new();
    for occurrence in reader.occurrences(documents)? {
        for sample in reader.samples_of(occurrence.sequence) {
            // Samples of later epochs are larger.
            if sample >= history.n_samples() {
                break;
            }
            let step = history.step_of(sample).expect("a step has seen every earlier sample");
            found.push((step, sample, occurrence.offset, occurrence.part.clone()));
        }
    }
    found.sort_by_key(|(_, sample, offset, _)| (*sample, *offset));
    Ok(found)
}
