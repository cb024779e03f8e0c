//! The format of datasets as a page: made from the types that are written and read, so that it cannot disagree.

use std::collections::BTreeMap;
use std::fmt::Write;

use arrow::datatypes::Field;
use serde_json::{Value, json};

use crate::manifest::{
    Counts, FORMAT_VERSION, Manifest, Parent, RowGroup, Shard, SourceRead, TokenizerInfo,
};
use crate::schema::{DatasetKind, loss_mask_field, weight_fields};
use crate::writer::{ROW_GROUP_BYTES_MAX, ROW_GROUP_ROWS_MAX, ROW_GROUP_TOKEN_BYTES_MAX};

/// Returns the page about the format of datasets, in Markdown.
#[must_use]
pub fn page() -> String {
    let mut page = Page(String::new());
    page.line(&PREFACE.replace("{version}", &FORMAT_VERSION.to_string()));
    page.line("| key | | meaning |\n|---|---|---|");
    for (key, kind) in keys() {
        let meaning = meaning(KEYS, &key).unwrap_or_default();
        page.line(&format!("| `{key}` | {kind} | {meaning} |"));
    }
    page.line("\n## Shards\n");
    page.line(&format!(
        "Parquet with Zstandard, plain types only. A row group has at most {ROW_GROUP_ROWS_MAX} rows, and is closed after \
         {} MiB of values, or {} MiB of tokens. `id`, `url` and `document_id` have Bloom filters. A file is named \
         `data/<name>-<first 12 digits of its BLAKE3>.parquet`.",
        ROW_GROUP_BYTES_MAX >> 20,
        ROW_GROUP_TOKEN_BYTES_MAX >> 20
    ));
    for kind in DatasetKind::ALL {
        page.line(&format!("\n### `{kind}`\n\n| column | type | meaning |\n|---|---|---|"));
        let schema = kind.schema();
        let optional = optional_fields(kind);
        for field in schema.fields().iter().map(AsRef::as_ref).chain(&optional) {
            let null = if field.is_nullable() { " or null" } else { "" };
            let name = field.name();
            let meaning = column(kind, name).unwrap_or_default();
            page.line(&format!("| `{name}` | {}{null} | {meaning} |", field.data_type()));
        }
    }
    page.0
}

/// Returns what a column of a kind of dataset means; nothing for columns that steps add.
#[must_use]
pub fn column(kind: DatasetKind, name: &str) -> Option<&'static str> {
    meaning(COLUMNS, &format!("{kind}.{name}"))
}

/// Columns that only some datasets of the kind have.
fn optional_fields(kind: DatasetKind) -> Vec<Field> {
    match kind {
        DatasetKind::Tokens => [loss_mask_field()].into_iter().chain(weight_fields()).collect(),
        _ => Vec::new(),
    }
}

struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        writeln!(self.0, "{line}").expect("a string takes all that is written");
    }
}

fn meaning(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(key, _)| *key == name).map(|(_, meaning)| *meaning)
}

const PREFACE: &str = "\
# Datasets, format version {version}

Generated from the program by `gristmill list --format`. A dataset is a folder:

| file | |
|---|---|
| `manifest/00000001.json` | version 1; created only if it is absent, never rewritten |
| `data/*.parquet` | shards; those that no manifest names do not exist |
| `tokenizer-*.json` | of tokens: the `tokenizer.json` that made them |
| `README.md`, `croissant.json` | made from the newest manifest; readers do not need them |
| `staging/`, `.tmp-*` | of unfinished work |

The newest version is the largest number under `manifest/`. A version is committed by creating its manifest when everything that it
names is on disk. A manifest is UTF-8 JSON that ends in `,\\n  \"blake3\": \"<64 digits>\"\\n}\\n`: the BLAKE3 hash of all bytes before
that comma. A dataset's name for others is the BLAKE3 of the whole file. A reader refuses a manifest whose hash does not hold, and one
of a newer format version, by naming both versions.

Tokens of a split are numbered over its shards in the order of the manifest, so that a reader finds token `n` by `first_token` alone.

## Manifest

Keys in the order in which they are written; `[]` is each item of a list, `*` each key of an object.
";

/// Every key of a manifest with the kind of its value.
fn keys() -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    let value: Value = serde_json::from_slice(&example().to_bytes()).expect("as it was written");
    walk(&value, "", &mut found);
    // An object has lost the order of its keys; undescribed ones come last.
    found.sort_by_key(|(key, _)| {
        KEYS.iter().position(|(known, _)| known == key).unwrap_or(usize::MAX)
    });
    found
}

fn walk(value: &Value, path: &str, found: &mut Vec<(String, &'static str)>) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let is_map = fields.keys().all(|key| key.starts_with('*'));
                let key = join(if is_map { "*" } else { key });
                if value.is_array() {
                    found.push((key.clone(), "list"));
                } else {
                    found.push((key.clone(), kind_of(value)));
                }
                walk(value, &key, found);
            }
        }
        Value::Array(items) => {
            if let Some(first) = items.first() {
                walk(first, &format!("{path}[]"), found);
            }
        }
        _ => {}
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "object",
        Value::Array(_) => "list",
        Value::Number(_) => "integer",
        Value::Bool(_) => "boolean",
        _ => "text",
    }
}

/// A manifest that has every key; `*` stands for keys of the writer's choice.
fn example() -> Manifest {
    let text = || "x".to_owned();
    let mut manifest = Manifest::new(
        DatasetKind::Tokens,
        &DatasetKind::Tokens.schema(),
        text(),
        json!({ "*": 1 }),
    );
    manifest.parents = vec![Parent { dataset: text(), version: 1, manifest: text() }];
    manifest.sources =
        vec![SourceRead { source: text(), file: text(), bytes: 1, blake3: text(), arrival: 1 }];
    manifest.counts = Counts { n_in: 1, n_kept: 0, dropped: BTreeMap::from([("*".to_owned(), 1)]) };
    manifest.tokenizer = Some(TokenizerInfo {
        path: text(),
        fingerprint: text(),
        n_vocabulary: 1,
        special: BTreeMap::from([("*".to_owned(), 0)]),
        end_of_document: Some(0),
    });
    manifest.shards = vec![Shard {
        path: text(),
        split: text(),
        partition: Some(text()),
        rows: 1,
        bytes: 1,
        blake3: text(),
        row_groups: vec![RowGroup { rows: 1, n_tokens: 1, first_token: 1 }],
    }];
    manifest
}

const KEYS: &[(&str, &str)] = &[
    ("format_version", "version of the format that this page is about"),
    ("kind", "what its rows are: one of the headings below"),
    ("schema", "columns of every shard"),
    ("schema[].name", "name of the column"),
    ("schema[].type", "Arrow's name of its type in memory"),
    ("schema[].nullable", "whether it may be null"),
    (
        "fingerprint",
        "BLAKE3 of all that decides the content: stage, configuration, parents, sources",
    ),
    ("config", "the resolved configuration of the stage that wrote it"),
    ("config.*", "as the stage has it"),
    ("parents", "datasets that it was made from"),
    ("parents[].dataset", "name of the folder beside this one"),
    ("parents[].version", "its version"),
    ("parents[].manifest", "BLAKE3 of that version's manifest"),
    ("sources", "files that it was made from, in the order in which they were read"),
    ("sources[].source", "name of the source in the job"),
    ("sources[].file", "the file as locators name it"),
    ("sources[].bytes", "its size"),
    ("sources[].blake3", "BLAKE3 of its bytes"),
    ("sources[].arrival", "versions with fewer files before it came; 0 is not written"),
    ("counts", "`n_in` is `n_kept` and all of `dropped`"),
    ("counts.n_in", "rows that came in"),
    ("counts.n_kept", "rows that stayed"),
    ("counts.dropped", "rows that went"),
    ("counts.dropped.*", "by `step/reason`"),
    ("tokenizer", "how text became tokens; of tokens only"),
    ("tokenizer.path", "`tokenizer.json`, relative to the dataset"),
    ("tokenizer.fingerprint", "BLAKE3 of its bytes"),
    ("tokenizer.n_vocabulary", "every id is below this"),
    ("tokenizer.special", "special tokens"),
    ("tokenizer.special.*", "id by content"),
    ("tokenizer.end_of_document", "token after each document, or null"),
    ("shards", "in reading order; splits one after the other"),
    ("shards[].path", "relative to the dataset, with `/`"),
    ("shards[].split", "`train` unless the dataset is split"),
    (
        "shards[].partition",
        "what its documents have in common, where `[shard] partition` parts them; otherwise not written",
    ),
    ("shards[].rows", "rows"),
    ("shards[].bytes", "size of the file"),
    ("shards[].blake3", "BLAKE3 of the file"),
    ("shards[].row_groups", "in file order"),
    ("shards[].row_groups[].rows", "rows"),
    ("shards[].row_groups[].n_tokens", "tokens; 0 is not written"),
    (
        "shards[].row_groups[].first_token",
        "index of its first token in the split; 0 is not written",
    ),
    ("blake3", "BLAKE3 of all bytes before the comma before this key"),
];

const COLUMNS: &[(&str, &str)] = &[
    (
        "documents.id",
        "hash of the source's name and the locator: xxh3-128 of name, zero byte, locator; `id_of('…')` finds it in SQL",
    ),
    ("documents.text", "the text after all steps"),
    ("documents.source", "name of the source in the job"),
    ("documents.kind", "web, code, book, paper, encyclopedia, conversation or table"),
    ("documents.url", "address of the page or file"),
    ("documents.locator", "`file#offset` or `file#record`: leads back to the bytes"),
    ("documents.date", "when it was published or fetched"),
    ("documents.language", "ISO 639 code that a step found, or the source knew"),
    ("documents.license", "as the source or a step states it"),
    ("documents.bytes_raw", "bytes of the record before any step"),
    ("documents.metadata", "what the source knows beyond these columns, by name"),
    ("dropped.id", "the document"),
    ("dropped.step", "position and name of the step; `source` for records that gave no document"),
    ("dropped.rule", "the rule of the step"),
    ("dropped.reason", "why the document went"),
    ("dropped.values", "the signals that the rule looked at, as a JSON object"),
    ("dropped.source", "as of documents"),
    ("dropped.kind", "as of documents"),
    ("dropped.url", "as of documents"),
    ("dropped.locator", "as of documents"),
    ("dropped.text", "the text as the step saw it; only with `keep_text`"),
    ("edits.id", "the document"),
    ("edits.step", "position and name of the step"),
    ("edits.start", "first byte of the span in the text before the step"),
    ("edits.end", "byte behind the span in the text before the step"),
    ("edits.rule", "what matched"),
    ("edits.replacement", "what stands there now"),
    ("signatures.row", "position in `documents`, from 0, over all shards"),
    ("signatures.id", "the document"),
    ("signatures.text_bytes", "bytes of its text"),
    ("signatures.content", "hash of the normalized text; null where the job does not ask for it"),
    ("signatures.url", "the canonical address; null where the job does not ask for it"),
    ("signatures.signature", "minimum hashes; null where the job does not ask for them"),
    ("duplicates.id", "the copy"),
    ("duplicates.kept_id", "the document that stays instead"),
    (
        "duplicates.cluster_id",
        "the first document of the cluster, by its position in the order of preference",
    ),
    (
        "duplicates.similarity",
        "Jaccard index of the shingles of both, for semantic the cosine of their embeddings; null for equal URLs, and where the kept document is known by a chain of both measures",
    ),
    ("duplicates.method", "url, exact, minhash or semantic"),
    ("duplicates.row", "position of the copy in `documents`, from 0, over all shards"),
    ("duplicates.kept_row", "position of the document that stays"),
    ("repeats.id", "the document"),
    ("repeats.start", "first byte of the span in `documents.text`"),
    ("repeats.end", "byte behind the span"),
    (
        "repeats.kept_id",
        "the document of the first occurrence; null where a method takes that out, too, or does not know it, as with `bloom`",
    ),
    ("repeats.kept_start", "first byte of the first occurrence"),
    ("repeats.method", "paragraph, sentence_span or substring"),
    ("repeats.drops_document", "whether so little is left that the document goes as a whole"),
    ("contamination.id", "the document"),
    ("contamination.start", "first byte of the span that the document shares with the item"),
    ("contamination.end", "byte behind the span"),
    ("contamination.benchmark", "the benchmark's name in the job"),
    ("contamination.item", "position of the item in the benchmark, from 0"),
    (
        "contamination.field",
        "query, answer, or overlap: the end of the one and the beginning of the other",
    ),
    ("contamination.n_grams", "n-grams of the field in the span that differ from each other"),
    (
        "contamination.coverage",
        "share of the field's n-grams that the document has, in all spans together",
    ),
    ("contamination.action", "what became of the document: drop, cut or report"),
    ("conversations.id", "the document"),
    ("conversations.messages", "its turns, in order"),
    ("conversations.label", "whether the answer is wanted, where the data say so"),
    ("preferences.id", "the document"),
    ("preferences.prompt", "what both answers have in common"),
    ("preferences.chosen", "the turns of the preferred answer"),
    ("preferences.rejected", "the turns of the other one"),
    ("conversations.tools", "the functions that the model may call, as JSON"),
    ("conversations.source", "as of documents"),
    ("conversations.url", "as of documents"),
    ("conversations.locator", "as of documents"),
    ("conversations.language", "as of documents"),
    ("conversations.license", "as of documents"),
    ("preferences.tools", "the functions that the model may call, as JSON"),
    ("preferences.source", "as of documents"),
    ("preferences.url", "as of documents"),
    ("preferences.locator", "as of documents"),
    ("preferences.language", "as of documents"),
    ("preferences.license", "as of documents"),
    ("tokens.document_id", "the document: `documents.id`"),
    ("tokens.tokens", "ids of the tokens, with the end of the document"),
    ("tokens.n_tokens", "how many they are"),
    ("tokens.loss_mask", "whether each token is a target; only where not all are"),
    ("tokens.cluster_size", "documents that this one stands for; only with `[dedup] reweight`"),
    ("tokens.weight", "how often it counts; only with `[dedup] reweight`"),
    ("metrics.run", "the run's name"),
    ("metrics.step", "optimizer updates made when it was measured"),
    ("metrics.name", "what was measured: `train/loss`, `validation/loss`, …"),
    ("metrics.value", "what it was"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_key_and_column_is_described_and_nothing_else() {
        let keys: BTreeSet<String> = keys().into_iter().map(|(key, _)| key).collect();
        let described: BTreeSet<String> = KEYS.iter().map(|(key, _)| (*key).to_owned()).collect();
        assert_eq!(keys, described);
        let columns: BTreeSet<String> = DatasetKind::ALL
            .into_iter()
            .flat_map(|kind| {
                let (schema, optional) = (kind.schema(), optional_fields(kind));
                let fields = schema.fields().iter().map(AsRef::as_ref).chain(&optional);
                fields.map(|it| format!("{kind}.{}", it.name())).collect::<Vec<_>>()
            })
            .collect();
        let described: BTreeSet<String> =
            COLUMNS.iter().map(|(column, _)| (*column).to_owned()).collect();
        assert_eq!(columns, described);
    }
}
