//! What the columns of the datasets mean, for `DESCRIBE`.

use shard::schema::DatasetKind;

/// Columns that mean the same in every dataset that has them.
const SHARED: &[(&str, &str)] = &[
    (
        "id",
        "the document: hash of the source's name and the locator; `hex(id)` shows it, `id_of('…')` finds it",
    ),
    ("kind", "web, code, book, paper, encyclopedia, conversation or table"),
    ("locator", "`file#offset` or `file#record`: leads back to the bytes"),
    ("rule", "the rule of the step"),
    ("source", "the source's name in the job"),
    (
        "step",
        "position and name of the step in the job; `source` for records that gave no document",
    ),
    ("url", "address of the page or file"),
];

/// Columns of one dataset.
const OWN: &[(DatasetKind, &[(&str, &str)])] = &[
    (
        DatasetKind::Documents,
        &[
            ("text", "the text after all steps"),
            ("date", "when it was published or fetched"),
            ("language", "ISO 639 code that a step found, or the source knew"),
            ("license", "as the source states it"),
            ("bytes_raw", "bytes of the record before any step"),
            ("metadata", "what the source knows beyond these columns, by name"),
        ],
    ),
    (
        DatasetKind::Dropped,
        &[
            ("reason", "why the document went"),
            ("values", "the signals that the rule looked at, as a JSON object"),
            ("text", "the text as the step saw it; only with `keep_text`"),
        ],
    ),
    (
        DatasetKind::Edits,
        &[
            ("start", "first byte of the span in the text before the step"),
            ("end", "byte behind the span in the text before the step"),
            ("replacement", "what stands there now"),
        ],
    ),
    (
        DatasetKind::Signatures,
        &[
            ("row", "position in `documents`, from 0, over all shards"),
            ("text_bytes", "bytes of the text"),
            ("content", "hash of the normalized text; null where the job does not ask for it"),
            ("url", "the canonical address; null where the job does not ask for it"),
            ("signature", "minimum hashes; null where the job does not ask for them"),
        ],
    ),
    (
        DatasetKind::Duplicates,
        &[
            ("kept_id", "the document that stays instead"),
            (
                "cluster_id",
                "the first document of the cluster, by its position in the order of preference",
            ),
            ("similarity", "Jaccard index of the word 5-grams of both; null for equal URLs"),
            ("method", "url, exact or minhash"),
            ("row", "position of the copy in `documents`, from 0, over all shards"),
            ("kept_row", "position of the document that stays"),
        ],
    ),
    (
        DatasetKind::Repeats,
        &[
            ("start", "first byte of the span in `documents.text`"),
            ("end", "byte behind the span"),
            (
                "kept_id",
                "the document of the first occurrence; null where a method takes that out, too",
            ),
            ("kept_start", "first byte of the first occurrence"),
            ("method", "paragraph, sentence_span or substring"),
            ("drops_document", "whether so little is left that the document goes as a whole"),
        ],
    ),
    (
        DatasetKind::Contamination,
        &[
            ("start", "first byte of the span that the document shares with the item"),
            ("end", "byte behind the span"),
            ("benchmark", "the benchmark's name in the job"),
            ("item", "position of the item in the benchmark, from 0"),
            (
                "field",
                "query, answer, or overlap: the end of the one and the beginning of the other",
            ),
            ("n_grams", "n-grams of the field in the span that differ from each other"),
            (
                "coverage",
                "share of the field's n-grams that the document has, in all spans together",
            ),
            ("action", "what became of the document: drop, cut or report"),
        ],
    ),
    (
        DatasetKind::Tokens,
        &[
            ("document_id", "the document: `documents.id`"),
            ("tokens", "ids of the tokens, with the end of the document"),
            ("n_tokens", "how many they are"),
        ],
    ),
    (
        DatasetKind::Metrics,
        &[
            ("run", "the run's name"),
            ("step", "optimizer updates made when it was measured"),
            ("name", "what was measured: `train/loss`, `validation/loss`, …"),
            ("value", "what it was"),
        ],
    ),
];

/// Returns what `column` of the table called `table` means; nothing for columns that steps add, and other tables.
pub(crate) fn comment(table: &str, column: &str) -> Option<&'static str> {
    let table = table.rsplit('.').next().unwrap_or(table).trim_matches('"');
    let (name, _) = table.split_once('@').unwrap_or((table, ""));
    let (_, own) = OWN.iter().find(|(kind, _)| kind.name() == name)?;
    let mut known = own.iter().chain(SHARED);
    known.find(|(known, _)| *known == column).map(|(_, comment)| *comment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_of_every_dataset_has_a_comment_and_every_comment_a_column() {
        for (kind, own) in OWN {
            let schema = kind.schema();
            for field in schema.fields() {
                assert!(comment(kind.name(), field.name()).is_some(), "{kind}.{}", field.name());
            }
            for (column, _) in *own {
                assert!(schema.column_with_name(column).is_some(), "{kind} has no `{column}`");
            }
        }
        assert_eq!(OWN.len(), DatasetKind::ALL.len());
    }

    #[test]
    fn versions_and_schemas_are_no_part_of_a_name() {
        assert_eq!(comment("\"documents@3\"", "text"), Some("the text after all steps"));
        assert_eq!(comment("web.\"documents@3\"", "text"), Some("the text after all steps"));
        assert_eq!(comment("manifests", "text"), None);
    }
}
