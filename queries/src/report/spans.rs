//! Spans of kept documents in a report: what stood before, and what evaluation sets hold.

use std::path::Path;

use datafusion::prelude::SessionContext;
use serde::{Deserialize, Serialize};
use shard::Dataset;
use shard::dataset::Snapshot;
use shard::schema::DatasetKind;

use super::{SAMPLE_CHARS, escape, line};
use crate::Result;
use crate::shell::rows;

/// Spans of kept documents that something was found in.
#[derive(Clone, Debug, Serialize)]
pub struct Spans {
    /// The method or benchmark that found them.
    pub name: String,
    /// Documents that hold such spans.
    pub documents: u64,
    /// Those of them that go as a whole.
    pub documents_dropped: u64,
    /// Spans, those of dropped documents too.
    pub spans: u64,
    /// Bytes in them; what several spans cover is counted once.
    pub bytes: u64,
    /// Spans at random.
    pub samples: Vec<SpanSample>,
}

/// A span of a document.
#[derive(Clone, Debug, Serialize)]
pub struct SpanSample {
    /// Where its document came from.
    pub place: String,
    /// What was found: where it stood before, or the item and field of the benchmark.
    pub found: String,
    /// Byte range in the document's text.
    pub start: u64,
    /// End of the range.
    pub end: u64,
    /// How the span begins.
    pub text: String,
}

/// The rows of `repeats` or `contamination` in numbers, by method or benchmark; none when they are not of `documents`.
///
/// # Errors
/// When the dataset cannot be read.
pub(super) async fn read(
    ctx: &SessionContext,
    corpus: &Path,
    kind: DatasetKind,
    documents: &Snapshot,
    samples: usize,
) -> Result<Vec<Spans>> {
    if !is_made_from(corpus, kind, documents)? {
        return Ok(Vec::new());
    }
    let (name, is_dropped, found) = match kind {
        DatasetKind::Repeats => (
            "method",
            "drops_document",
            "coalesce('in ' || hex(kept_id) || ' at ' || kept_start, 'elsewhere')",
        ),
        _ => ("benchmark", "action = 'drop'", "field || ' of item ' || item"),
    };
    // What the spans before it cover is not counted again.
    let counts: Vec<SpanCounts> = rows(
        ctx,
        &format!(
            "select {name} as name, count(distinct id) as documents, \
             count(distinct case when {is_dropped} then id end) as documents_dropped, \
             count(*) as spans, \
             cast(sum(greatest(\"end\", covered) - greatest(start, covered)) as bigint) as bytes \
             from (select *, coalesce(max(\"end\") over (partition by {name}, id order by start, \"end\" \
             rows between unbounded preceding and 1 preceding), 0) as covered from {kind}) \
             group by 1 order by 4 desc, 1"
        ),
    )
    .await?;
    let sampled: Vec<SpanRow> = rows(
        ctx,
        &format!(
            "select s.name, coalesce(d.url, d.locator) as place, s.found, s.start, s.\"end\", d.text \
             from (select {name} as name, id, start, \"end\", {found} as found, row_number() over \
             (partition by {name} order by hex(id), start, \"end\") as nth from {kind}) s \
             join documents d on d.id = s.id where nth <= {samples} order by s.name, nth"
        ),
    )
    .await?;
    let sample = |row: &SpanRow| {
        let at = |byte: u64| usize::try_from(byte).expect("a text fits into memory");
        let span = &row.text[at(row.start)..at(row.end)];
        SpanSample {
            place: row.place.clone(),
            found: row.found.clone(),
            start: row.start,
            end: row.end,
            text: span.chars().take(SAMPLE_CHARS).collect(),
        }
    };
    let spans = counts.into_iter().map(|counts| Spans {
        samples: sampled.iter().filter(|row| row.name == counts.name).map(sample).collect(),
        name: counts.name,
        documents: counts.documents,
        documents_dropped: counts.documents_dropped,
        spans: counts.spans,
        bytes: counts.bytes,
    });
    Ok(spans.collect())
}

/// A table of what was found in documents, with samples below.
pub(super) fn table(found: &[Spans]) -> String {
    let mut table = String::from(
        "<table><tr><th></th><th class=n>spans</th><th class=n>bytes</th><th class=n>documents</th><th class=n>dropped</th></tr>",
    );
    for spans in found {
        line(
            &mut table,
            format_args!(
                "<tr><td>{}</td><td class=n>{}</td><td class=n>{}</td><td class=n>{}</td><td class=n>{}</td></tr>",
                escape(&spans.name),
                spans.spans,
                spans.bytes,
                spans.documents,
                spans.documents_dropped
            ),
        );
    }
    table.push_str("</table>");
    for spans in found.iter().filter(|spans| !spans.samples.is_empty()) {
        line(
            &mut table,
            format_args!(
                "<details><summary>{} of {}</summary>",
                spans.samples.len(),
                escape(&spans.name)
            ),
        );
        for sample in &spans.samples {
            line(
                &mut table,
                format_args!(
                    "<div class=sample><div><b>{}</b><br>{}<br><code>{}..{}</code></div><pre>{}</pre></div>",
                    escape(&sample.found),
                    escape(&sample.place),
                    sample.start,
                    sample.end,
                    escape(&sample.text)
                ),
            );
        }
        table.push_str("</details>");
    }
    table
}

/// Whether the newest version of a dataset says something of this version of the documents.
fn is_made_from(corpus: &Path, kind: DatasetKind, documents: &Snapshot) -> Result<bool> {
    let newest = Dataset::at(corpus.join(kind.name())).newest()?;
    Ok(newest.is_some_and(|newest| {
        newest.manifest.parents.iter().any(|parent| parent.manifest == documents.manifest_hash)
    }))
}

#[derive(Deserialize)]
struct SpanCounts {
    name: String,
    documents: u64,
    documents_dropped: u64,
    spans: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct SpanRow {
    name: String,
    place: String,
    found: String,
    start: u64,
    end: u64,
    text: String,
}
