//! The Arrow schema of every dataset, said once.
//!
//! Text is [`DataType::Utf8View`] in memory (what DataFusion reads from Parquet) and plain UTF-8 on disk.

use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

/// Bytes of a document's id.
pub const ID_BYTES: i32 = 16;

/// What the rows of a dataset are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatasetKind {
    /// Text with its provenance and annotations.
    Documents,
    /// Documents that a step removed, with rule, reason and values.
    Dropped,
    /// Spans that a modifier changed.
    Edits,
    /// Documents that are copies, with the document that was kept instead.
    Duplicates,
    /// Spans of documents that stood in the corpus before, with their first occurrence.
    Repeats,
    /// What documents share with evaluation sets.
    Contamination,
    /// What documents are compared by: hash of the content, canonical URL, MinHash signature.
    Signatures,
    /// Conversations, turn by turn.
    Conversations,
    /// Two answers to one conversation, of which the first is preferred.
    Preferences,
    /// Documents as token ids.
    Tokens,
    /// Measurements of training runs, one row per step and name.
    Metrics,
}

impl DatasetKind {
    /// Every kind, in the order in which a job makes them.
    pub const ALL: [Self; 11] = [
        Self::Documents,
        Self::Dropped,
        Self::Edits,
        Self::Signatures,
        Self::Duplicates,
        Self::Repeats,
        Self::Contamination,
        Self::Conversations,
        Self::Preferences,
        Self::Tokens,
        Self::Metrics,
    ];

    /// The name of the dataset's folder in a corpus and of its table in SQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Documents => "documents",
            Self::Dropped => "dropped",
            Self::Edits => "edits",
            Self::Duplicates => "duplicates",
            Self::Repeats => "repeats",
            Self::Contamination => "contamination",
            Self::Signatures => "signatures",
            Self::Conversations => "conversations",
            Self::Preferences => "preferences",
            Self::Tokens => "tokens",
            Self::Metrics => "metrics",
        }
    }

    /// The columns that every dataset of this kind has; steps may add more to `documents`.
    #[must_use]
    pub fn schema(self) -> SchemaRef {
        let schema = match self {
            Self::Documents => &DOCUMENTS,
            Self::Dropped => &DROPPED,
            Self::Edits => &EDITS,
            Self::Duplicates => &DUPLICATES,
            Self::Repeats => &REPEATS,
            Self::Contamination => &CONTAMINATION,
            Self::Signatures => &SIGNATURES,
            Self::Conversations => &CONVERSATIONS,
            Self::Preferences => &PREFERENCES,
            Self::Tokens => &TOKENS,
            Self::Metrics => &METRICS,
        };
        Arc::clone(schema)
    }
}

impl fmt::Display for DatasetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn text(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Utf8View, nullable)
}

fn id(name: &str) -> Field {
    Field::new(name, DataType::FixedSizeBinary(ID_BYTES), false)
}

fn schema(fields: Vec<Field>) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

/// The type of `documents.metadata`: what a source knows beyond the fixed columns, by name.
#[must_use]
pub fn metadata_type() -> DataType {
    let entries = Fields::from(vec![
        Field::new("keys", DataType::Utf8, false),
        Field::new("values", DataType::Utf8, true),
    ]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
}

static DOCUMENTS: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(vec![
        // xxh3-128 of the source's name and the locator: see [`document_id`].
        id("id"),
        text("text", false),
        // The source's name in the job.
        text("source", false),
        // web, code, book, paper, encyclopedia, conversation, table.
        text("kind", false),
        text("url", true),
        // `file#offset` or `file#record`: leads back to the bytes.
        text("locator", false),
        // Milliseconds: Parquet knows no seconds.
        Field::new("date", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
        text("language", true),
        text("license", true),
        Field::new("bytes_raw", DataType::UInt64, false),
        Field::new("metadata", metadata_type(), true),
    ])
});

static DROPPED: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(vec![
        id("id"),
        // Position and name of the step in the job, such as `2:gopher_quality`; `source` for records that gave no document.
        text("step", false),
        text("rule", false),
        text("reason", false),
        // The signals that the rule looked at, as a JSON object.
        text("values", true),
        text("source", false),
        text("kind", false),
        text("url", true),
        text("locator", false),
        // Only with `keep_text`.
        text("text", true),
    ])
});

static EDITS: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(vec![
        id("id"),
        text("step", false),
        // Byte range in the text before the step.
        Field::new("start", DataType::UInt64, false),
        Field::new("end", DataType::UInt64, false),
        text("rule", false),
        text("replacement", false),
    ])
});

static DUPLICATES: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(vec![
        id("id"),
        id("kept_id"),
        // The first document of the cluster, by its position in the order of preference: its row, without `priority`.
        Field::new("cluster_id", DataType::UInt64, false),
        // Jaccard index of the shingle sets of both documents, for semantic the cosine of their embeddings; null for equal
        // URLs, whose texts are not compared, and where one measure led to a document that another one removed.
        Field::new("similarity", DataType::Float64, true),
        // url, exact, minhash or semantic.
        text("method", false),
        // Positions of both in `documents`, from 0, over all shards.
        Field::new("row", DataType::UInt64, false),
        Field::new("kept_row", DataType::UInt64, false),
    ])
});

static REPEATS: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(vec![
        id("id"),
        // Byte range in `documents.text`.
        Field::new("start", DataType::UInt64, false),
        Field::new("end", DataType::UInt64, false),
        // Document and first byte of the first occurrence; null where a method takes that out too.
        Field::new("kept_id", DataType::FixedSizeBinary(ID_BYTES), true),
        Field::new("kept_start", DataType::UInt64, true),
        // paragraph, sentence_span or substring.
        text("method", false),
        // Whether so little of the document is left that it goes as a whole, by this method.
        Field::new("drops_document", DataType::Boolean, false),
    ])
});

static CONTAMINATION: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(vec![
        id("id"),
        // Byte range in the text that the document shares with the item.
        Field::new("start", DataType::UInt64, false),
        Field::new("end", DataType::UInt64, false),
        // The benchmark's name in the job, and the position of the item in it, from 0.
        text("benchmark", false),
        Field::new("item", DataType::UInt64, false),
        // query, answer, or overlap: the end of the one and the beginning of the other.
        text("field", false),
        // N-grams of the field in this range that differ from each other.
        Field::new("n_grams", DataType::UInt64, false),
        // Share of the field's n-grams that the document has, in all ranges together.
        Field::new("coverage", DataType::Float64, false),
        // What became of the document: drop, cut or report.
        text("action", false),
    ])
});

static SIGNATURES: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(vec![
        // Position in `documents`, from 0, over all shards.
        Field::new("row", DataType::UInt64, false),
        id("id"),
        Field::new("text_bytes", DataType::UInt64, false),
        // Null where the job does not ask for the method, and where the document gives none.
        Field::new("content", DataType::FixedSizeBinary(ID_BYTES), true),
        text("url", true),
        Field::new(
            "signature",
            DataType::List(Arc::new(Field::new("item", DataType::UInt64, false))),
            true,
        ),
    ])
});

/// The fields of a message: see [`crate::chat::Message`].
#[must_use]
pub fn message_fields() -> Fields {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Fields::from(vec![
        // system, user, assistant or tool.
        text("role", false),
        text("content", true),
        text("reasoning_content", true),
        // JSON.
        text("tool_calls", true),
        text("tool_call_id", true),
        text("name", true),
    ])
}

fn messages(name: &str) -> Field {
    let item = Field::new("item", DataType::Struct(message_fields()), false);
    Field::new(name, DataType::List(Arc::new(item)), false)
}

/// What both kinds of conversation have beside their turns.
fn provenance() -> [Field; 6] {
    [
        // A JSON list of the functions that the assistant may call.
        text("tools", true),
        text("source", false),
        text("url", true),
        text("locator", false),
        text("language", true),
        text("license", true),
    ]
}

static CONVERSATIONS: LazyLock<SchemaRef> = LazyLock::new(|| {
    // `id` is the document's.
    let turns = [id("id"), messages("messages")];
    // Whether the answer is wanted, where the data say so.
    let label = Field::new("label", DataType::Boolean, true);
    schema(turns.into_iter().chain([label]).chain(provenance()).collect())
});

static PREFERENCES: LazyLock<SchemaRef> = LazyLock::new(|| {
    // What both have in common, and what comes behind it in each.
    let turns = [id("id"), messages("prompt"), messages("chosen"), messages("rejected")];
    schema(turns.into_iter().chain(provenance()).collect())
});

static TOKENS: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(vec![
        id("document_id"),
        Field::new(
            "tokens",
            DataType::List(Arc::new(Field::new("item", DataType::UInt32, false))),
            false,
        ),
        Field::new("n_tokens", DataType::UInt32, false),
    ])
});

/// The column that `tokens` has where not every token is a target: one boolean per token.
pub const LOSS_MASK: &str = "loss_mask";

/// The field of [`LOSS_MASK`], last in datasets of tokens that have it.
#[must_use]
pub fn loss_mask_field() -> Field {
    let item = Field::new("item", DataType::Boolean, false);
    Field::new(LOSS_MASK, DataType::List(Arc::new(item)), false)
}

/// The columns that `tokens` has where kept documents count by the size of their cluster, after all others: the documents
/// that each one stands for, and its weight.
#[must_use]
pub fn weight_fields() -> [Field; 2] {
    ["cluster_size", "weight"].map(|name| Field::new(name, DataType::UInt32, false))
}

static METRICS: LazyLock<SchemaRef> = LazyLock::new(|| {
    schema(vec![
        text("run", false),
        Field::new("step", DataType::UInt64, false),
        // `train/loss`, `validation/loss`, `train/learning_rate`…: the tags of the TensorBoard files.
        text("name", false),
        Field::new("value", DataType::Float64, false),
    ])
});

/// The column that a source adds to `documents`: why a record gave no document, null where it gave one.
///
/// Such rows never reach a step: the engine writes them to `dropped` with the step `source`.
pub const REJECT: &str = "reject";

/// The schema of what sources stream: `documents` and [`REJECT`].
#[must_use]
pub fn source_schema() -> SchemaRef {
    static SOURCE: LazyLock<SchemaRef> = LazyLock::new(|| {
        let mut fields = DOCUMENTS.fields().to_vec();
        fields.push(Arc::new(text(REJECT, true)));
        Arc::new(Schema::new(fields))
    });
    Arc::clone(&SOURCE)
}

/// Returns the id of the document that `locator` leads to in the source called `source`.
///
/// Depends on nothing else, so the same record has the same id in every run and on every machine.
#[must_use]
pub fn document_id(source: &str, locator: &str) -> [u8; ID_BYTES as usize] {
    let mut name = Vec::with_capacity(source.len() + 1 + locator.len());
    name.extend_from_slice(source.as_bytes());
    name.push(0);
    name.extend_from_slice(locator.as_bytes());
    xxh3_128(&name).to_be_bytes()
}
