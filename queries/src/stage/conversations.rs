//! From `documents` that are conversations to `conversations` and `preferences`: their turns as columns.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder, ArrayRef, AsArray, BooleanBuilder, FixedSizeBinaryBuilder, ListBuilder,
    StringBuilder, StructBuilder,
};
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shard::Dataset;
use shard::chat::{Conversation, Message};
use shard::dataset::Snapshot;
use shard::manifest::{Counts, Manifest, Shard};
use shard::schema::{DatasetKind, ID_BYTES, message_fields};
use shard::writer::ShardWriter;

use super::chat::value_of;
use super::tokens::{Left, open_columns};
use super::unit::{Inputs, Output, Staging, Work};
use super::{Run, commit, fingerprint, finished};
use crate::Result;
use crate::progress::Unit as Progress;
use crate::run::Plan;

const KINDS: [DatasetKind; 2] = [DatasetKind::Conversations, DatasetKind::Preferences];
/// Columns that both take from `documents`, in this order.
const PROVENANCE: [&str; 5] = ["source", "url", "locator", "language", "license"];
/// Rows of a batch.
const BATCH_ROWS: usize = 1024;

/// Runs the stage, or finds it done, and returns `conversations` and `preferences`.
///
/// # Errors
/// When a shard cannot be read or the file system refuses.
pub async fn execute(run: &Run, left: &Left) -> Result<[Snapshot; 2]> {
    let datasets = KINDS.map(|kind| run.dataset(kind));
    let config = json!({ "conversations": true });
    let fingerprint = fingerprint("conversations", &config, &left.parents, &Value::Null);
    let known = [finished(&datasets[0], &fingerprint)?, finished(&datasets[1], &fingerprint)?];
    if let [Some(conversations), Some(preferences)] = known {
        let version = conversations.version;
        run.talk.say(format!("{:>12}  version {version} is up to date", "conversations"));
        return Ok([conversations, preferences]);
    }
    let staging = Staging::new(&datasets[0], "conversations", &fingerprint);
    let documents = &left.documents;
    let rows: Vec<u64> = documents.manifest.shards.iter().map(|shard| shard.rows).collect();
    let task = run.talk.task("conversations", rows.iter().sum(), Progress::Count("documents"));
    let shards = documents.manifest.shards.iter();
    let units = shards.map(|shard| (shard.blake3.clone(), shard.clone())).collect();
    let work = Turning { left: left.clone(), datasets: datasets.clone() };
    let written = staging.run(run, work, units, |index, _| task.advance(rows[index])).await?;
    let mut snapshots = Vec::new();
    for (index, (kind, dataset)) in KINDS.into_iter().zip(&datasets).enumerate() {
        let mut manifest = Manifest::new(kind, &kind.schema(), fingerprint.clone(), config.clone());
        manifest.parents = left.parents.clone();
        for part in &written {
            manifest.counts.add(&part.counts[index]);
            manifest.shards.extend(part.shards[index].clone());
        }
        assert_eq!(manifest.n_rows(), manifest.counts.n_kept, "rows of {kind} differ");
        snapshots.push(commit(dataset, manifest)?);
    }
    staging.remove()?;
    let snapshots: [Snapshot; 2] = snapshots.try_into().expect("there are two");
    let [conversations, preferences] = snapshots.each_ref().map(|s| s.manifest.counts.n_kept);
    task.finish(format!("{conversations} conversations, {preferences} preferences"));
    Ok(snapshots)
}

/// The work of the stage's units.
#[derive(Debug)]
pub(crate) struct Turning {
    left: Left,
    datasets: [Dataset; 2],
}

impl Work for Turning {
    type Unit = Shard;
    type Output = Written;
    const STAGE: &'static str = "conversations";

    fn inputs(&self) -> Inputs {
        Inputs { parents: self.left.parents.clone(), ..Inputs::default() }
    }

    fn open(plan: &Plan, inputs: Inputs) -> Result<Self> {
        let left = Left::open(plan, &inputs)?;
        Ok(Self { left, datasets: KINDS.map(|kind| plan.run.dataset(kind)) })
    }

    async fn run(self: Arc<Self>, index: usize, shard: Shard) -> Result<Written> {
        write(&self.left, &shard, index, &self.datasets)
    }
}

fn write(left: &Left, shard: &Shard, index: usize, datasets: &[Dataset; 2]) -> Result<Written> {
    let path = left.documents.local_shard(shard)?;
    let name = format!("train-{index:05}");
    let [mut conversations, mut preferences] = KINDS.map(Part::new);
    let columns = [&["id", "text", "metadata"], &PROVENANCE[..]].concat();
    for batch in open_columns(&path, &columns)? {
        let batch = batch.map_err(shard::Error::arrow("read", &path))?;
        let column = |name: &str| batch.column_by_name(name).expect("documents have it");
        let ids = column("id").as_fixed_size_binary();
        let texts = column("text").as_string::<i32>();
        let metadata = column("metadata").as_map();
        let provenance = PROVENANCE.map(|name| column(name).as_string::<i32>());
        for row in 0..batch.num_rows() {
            let id = super::tokens::id(ids.value(row));
            let read = match left.removed.get(&id) {
                Some(reason) => Err(reason.to_string()),
                None => {
                    let get = |key: &str| value_of(metadata, row, key);
                    Conversation::from_metadata(texts.value(row), get)
                        .unwrap_or(Err("no_conversation"))
                        .map_err(|reason| format!("chat/{reason}"))
                }
            };
            let texts = provenance.map(|texts| texts.is_valid(row).then(|| texts.value(row)));
            match read {
                Err(reason) => {
                    conversations.leave_out(&reason);
                    preferences.leave_out(&reason);
                }
                Ok(conversation) if conversation.preference.is_some() => {
                    conversations.leave_out("chat/preference");
                    preferences.push(&id, &conversation, &texts);
                }
                Ok(conversation) => {
                    conversations.push(&id, &conversation, &texts);
                    preferences.leave_out("chat/no_preference");
                }
            }
        }
        conversations.flush(BATCH_ROWS, &datasets[0], &name)?;
        preferences.flush(BATCH_ROWS, &datasets[1], &name)?;
    }
    let parts =
        [conversations.finish(&datasets[0], &name)?, preferences.finish(&datasets[1], &name)?];
    let counts = parts.each_ref().map(|(_, counts)| counts.clone());
    let datasets = datasets.each_ref().map(|dataset| dataset.path().to_owned());
    Ok(Written { datasets, shards: parts.map(|(shard, _)| shard), counts })
}

type Turns = ListBuilder<StructBuilder>;

/// What one shard of documents gives to one of both datasets.
struct Part {
    kind: DatasetKind,
    counts: Counts,
    writer: Option<ShardWriter>,
    n: usize,
    id: FixedSizeBinaryBuilder,
    turns: Vec<Turns>,
    label: BooleanBuilder,
    /// `tools` and what comes from `documents`.
    texts: Vec<StringBuilder>,
}

impl Part {
    fn new(kind: DatasetKind) -> Self {
        let n_turns = if kind == DatasetKind::Preferences { 3 } else { 1 };
        let turns = || {
            let fields = message_fields();
            let item = Field::new("item", DataType::Struct(fields.clone()), false);
            ListBuilder::new(StructBuilder::from_fields(fields, 0)).with_field(item)
        };
        Self {
            kind,
            counts: Counts::default(),
            writer: None,
            n: 0,
            id: FixedSizeBinaryBuilder::new(ID_BYTES),
            turns: (0..n_turns).map(|_| turns()).collect(),
            label: BooleanBuilder::new(),
            texts: (0..=PROVENANCE.len()).map(|_| StringBuilder::new()).collect(),
        }
    }

    fn leave_out(&mut self, reason: &str) {
        self.counts.n_in += 1;
        *self.counts.dropped.entry(reason.to_owned()).or_default() += 1;
    }

    fn push(&mut self, id: &[u8], conversation: &Conversation, provenance: &[Option<&str>]) {
        self.counts.n_in += 1;
        self.counts.n_kept += 1;
        self.n += 1;
        self.id.append_value(id).expect("an id has the column's width");
        let n_common = conversation.messages.len();
        match &conversation.preference {
            Some((chosen, rejected)) => {
                let parts =
                    [&conversation.messages[..], &chosen[n_common..], &rejected[n_common..]];
                self.turns.iter_mut().zip(parts).for_each(|(turns, part)| push_turns(turns, part));
            }
            None => push_turns(&mut self.turns[0], &conversation.messages),
        }
        self.label.append_option(conversation.label);
        let tools = std::iter::once(conversation.tools.as_deref());
        let texts = tools.chain(provenance.iter().copied());
        self.texts.iter_mut().zip(texts).for_each(|(column, text)| column.append_option(text));
    }

    /// Writes the rows so far if they are at least `n_min`.
    fn flush(&mut self, n_min: usize, dataset: &Dataset, name: &str) -> Result<()> {
        if self.n < n_min {
            return Ok(());
        }
        let rows = self.rows()?;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(ShardWriter::create(dataset, name, "train", &self.kind.schema())?),
        };
        Ok(writer.write(&rows)?)
    }

    /// Returns the shard, none without a row.
    fn finish(mut self, dataset: &Dataset, name: &str) -> Result<(Option<Shard>, Counts)> {
        self.flush(1, dataset, name)?;
        self.counts.assert_complete("conversations");
        Ok((self.writer.map(ShardWriter::finish).transpose()?, self.counts))
    }

    fn rows(&mut self) -> Result<RecordBatch> {
        self.n = 0;
        let mut columns: Vec<ArrayRef> = vec![Arc::new(self.id.finish())];
        columns.extend(self.turns.iter_mut().map(ArrayBuilder::finish));
        let label = self.label.finish();
        if self.kind == DatasetKind::Conversations {
            columns.push(Arc::new(label));
        }
        let schema = self.kind.schema();
        for texts in &mut self.texts {
            let column: ArrayRef = Arc::new(texts.finish());
            columns.push(arrow::compute::cast(&column, schema.field(columns.len()).data_type())?);
        }
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

fn push_turns(turns: &mut Turns, messages: &[Message]) {
    for message in messages {
        let item = turns.values();
        let fields = [
            Some(&message.role),
            message.content.as_ref(),
            message.reasoning_content.as_ref(),
            message.tool_calls.as_ref(),
            message.tool_call_id.as_ref(),
            message.name.as_ref(),
        ];
        for (index, field) in fields.into_iter().enumerate() {
            let column = item.field_builder::<StringBuilder>(index).expect("every field is text");
            column.append_option(field);
        }
        item.append(true);
    }
    turns.append(true);
}

/// Counts of what the chat template left out, by `chat/reason`.
#[must_use]
pub fn refused(counts: &Counts) -> BTreeMap<String, u64> {
    let dropped = counts.dropped.iter().filter(|(reason, _)| reason.starts_with("chat/"));
    dropped.map(|(reason, n)| (reason.clone(), *n)).collect()
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Written {
    datasets: [PathBuf; 2],
    shards: [Option<Shard>; 2],
    counts: [Counts; 2],
}

impl Output for Written {
    fn files(&self) -> Vec<(PathBuf, u64)> {
        let both = self.datasets.iter().zip(&self.shards);
        both.filter_map(|(folder, shard)| {
            Some((folder.join(&shard.as_ref()?.path), shard.as_ref()?.bytes))
        })
        .collect()
    }

    fn hash(&self, file: usize) -> Option<&str> {
        self.shards.iter().flatten().nth(file).map(|shard| shard.blake3.as_str())
    }
}
