//! What a job did to its input, for people: per step what came in and what went, why, at what cost, with samples; as one HTML
//! page that asks nothing of the network.
//!
//! Counts come from SQL over `dropped` and `duplicates`, so a query of one's own finds the same.

mod spans;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use datafusion::prelude::SessionContext;
use serde::{Deserialize, Serialize};
use shard::Dataset;
use shard::dataset::Snapshot;
use shard::schema::DatasetKind;

pub use self::spans::{SpanSample, Spans};
use crate::Result;
use crate::exec::filter_chain::SOURCE_STEP;
use crate::shell::rows;
use crate::stage::costs;

/// Characters of a sample's text.
const SAMPLE_CHARS: usize = 1500;
/// Languages that are listed.
const LANGUAGES: usize = 20;

/// The newest version of a corpus in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of `dropped`, which every run of a job commits.
    pub version: u64,
    /// Hash of its manifest.
    pub manifest: String,
    /// Records that the sources gave.
    pub n_in: u64,
    /// Documents that passed all steps.
    pub n_kept: u64,
    /// Reading, then each step in order.
    pub steps: Vec<Step>,
    /// Duplicates by method.
    pub duplicates: Vec<Count>,
    /// Spans that stood before, by method.
    pub repeats: Vec<Spans>,
    /// Stretches shared with evaluation sets, by benchmark.
    pub contamination: Vec<Spans>,
    /// Documents that are no duplicate, as tokens.
    pub tokens: Option<Tokens>,
    /// Kept documents by source and kind.
    pub sources: Vec<Group>,
    /// Kept documents by language, the commonest.
    pub languages: Vec<Group>,
    /// Kept documents by the power of two below their bytes.
    pub lengths: Vec<Length>,
}

/// What one step did.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Position and name, as in `dropped.step`.
    pub step: String,
    /// Documents that earlier steps left; a step for some kinds only looks at these.
    pub n_in: u64,
    /// Those it dropped.
    pub n_dropped: u64,
    /// Bytes of text that it looked at, where this corpus knows.
    pub bytes: Option<u64>,
    /// Seconds of one thread, where this corpus knows.
    pub seconds: Option<f64>,
    /// Dropped by reason, the commonest first.
    pub reasons: Vec<Count>,
    /// Dropped documents at random.
    pub samples: Vec<Sample>,
}

/// A name and how often.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Count {
    /// The reason or method.
    pub name: String,
    /// Rows.
    pub n: u64,
}

/// Documents that have something in common.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Group {
    /// What they have in common.
    pub name: String,
    /// How many.
    pub n: u64,
    /// Bytes of their text.
    pub bytes: u64,
}

/// Documents of `2^power` bytes up to twice as many.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Length {
    /// The power of two.
    pub power: u32,
    /// How many.
    pub n: u64,
}

/// The tokens of a corpus.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tokens {
    /// Documents.
    pub documents: u64,
    /// Their tokens.
    pub tokens: u64,
}

/// A dropped document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Where it came from.
    pub place: String,
    /// Why it went.
    pub reason: String,
    /// The values that decided.
    pub values: Option<String>,
    /// How its text begins, when the job keeps the text of what it drops.
    pub text: Option<String>,
}

/// Asks the tables of `corpus`, registered in `ctx`, for everything that the page shows.
///
/// `samples` dropped documents are shown per step; which ones depends on their ids alone.
///
/// # Errors
/// When the corpus has no `dropped` yet, or a query fails.
pub async fn make(ctx: &SessionContext, corpus: &Path, samples: usize) -> Result<Report> {
    let dropped = Dataset::at(corpus.join(DatasetKind::Dropped.name())).open(None)?;
    // A run that dropped everything has no documents: those that are there are of an earlier one.
    let documents = Dataset::at(corpus.join(DatasetKind::Documents.name()))
        .newest()?
        .filter(|documents| documents.manifest.fingerprint == dropped.manifest.fingerprint);
    let n_kept = documents.as_ref().map_or(0, |documents| documents.manifest.n_rows());
    let steps = steps(ctx, corpus, &dropped, documents.as_ref(), n_kept, samples).await?;
    let mut report = Report {
        version: dropped.version,
        manifest: dropped.manifest_hash.clone(),
        n_in: steps[0].n_in,
        n_kept,
        steps,
        duplicates: Vec::new(),
        repeats: Vec::new(),
        contamination: Vec::new(),
        tokens: None,
        sources: Vec::new(),
        languages: Vec::new(),
        lengths: Vec::new(),
    };
    let Some(documents) = documents else { return Ok(report) };
    report.duplicates = rows(
        ctx,
        "select method as name, count(*) as n from duplicates group by 1 order by 2 desc, 1",
    )
    .await?;
    for (kind, found) in [
        (DatasetKind::Repeats, &mut report.repeats),
        (DatasetKind::Contamination, &mut report.contamination),
    ] {
        *found = spans::read(ctx, corpus, kind, &documents, samples).await?;
    }
    let tokens: Vec<Tokens> = rows(
        ctx,
        "select count(*) as documents, cast(coalesce(sum(n_tokens), 0) as bigint) as tokens from tokens",
    )
    .await?;
    report.tokens = tokens.into_iter().find(|tokens| tokens.documents > 0);
    let group = |name: &str, limit: &str| {
        format!(
            "select {name} as name, count(*) as n, cast(sum(octet_length(text)) as bigint) as bytes \
             from documents group by 1 order by 2 desc, 1 {limit}"
        )
    };
    report.sources = rows(ctx, &group("source || ' (' || kind || ')'", "")).await?;
    report.languages =
        rows(ctx, &group("coalesce(language, 'not known')", &format!("limit {LANGUAGES}"))).await?;
    report.lengths = rows(
        ctx,
        "select cast(floor(log2(greatest(octet_length(text), 1))) as int) as power, count(*) as n \
         from documents group by 1 order by 1",
    )
    .await?;
    Ok(report)
}

#[derive(Deserialize)]
struct Reason {
    step: String,
    name: String,
    n: u64,
}

#[derive(Deserialize)]
struct StepSample {
    step: String,
    #[serde(flatten)]
    sample: Sample,
}

async fn steps(
    ctx: &SessionContext,
    corpus: &Path,
    dropped: &Snapshot,
    documents: Option<&Snapshot>,
    n_kept: u64,
    n_samples: usize,
) -> Result<Vec<Step>> {
    let reasons: Vec<Reason> = rows(
        ctx,
        "select step, reason as name, count(*) as n from dropped group by 1, 2 order by 3 desc, 2",
    )
    .await?;
    // Ids are hashes: their order is as good as chance, and the same every time.
    let samples: Vec<StepSample> = rows(
        ctx,
        &format!(
            "select step, coalesce(url, locator) as place, reason, \"values\", \
             left(text, {SAMPLE_CHARS}) as text from \
             (select *, row_number() over (partition by step order by hex(id)) as nth from dropped) \
             where nth <= {n_samples} order by step, nth"
        ),
    )
    .await?;
    let known = match documents {
        Some(documents) => costs::read(corpus, documents)?,
        None => None,
    };
    let costs: BTreeMap<String, _> = known
        .into_iter()
        .flat_map(|known| known.steps)
        .map(|cost| (cost.step.clone(), cost))
        .collect();
    let mut left = n_kept + dropped.manifest.n_rows();
    let mut steps = Vec::new();
    for label in labels(dropped) {
        let reasons: Vec<Count> = reasons
            .iter()
            .filter(|reason| reason.step == label)
            .map(|reason| Count { name: reason.name.clone(), n: reason.n })
            .collect();
        let n_dropped = reasons.iter().map(|reason| reason.n).sum();
        let samples = samples.iter().filter(|sample| sample.step == label);
        steps.push(Step {
            n_in: left,
            n_dropped,
            bytes: costs.get(&label).map(|cost| cost.bytes),
            seconds: costs.get(&label).map(|cost| cost.seconds),
            reasons,
            samples: samples.map(|sample| sample.sample.clone()).collect(),
            step: label,
        });
        left -= n_dropped;
    }
    assert_eq!(left, n_kept, "documents that the steps left and rows of `documents` differ");
    Ok(steps)
}

/// Reading and every step of the job, as `dropped.step` names them.
fn labels(dropped: &Snapshot) -> Vec<String> {
    let steps = dropped.manifest.config["step"].as_array().map_or(&[][..], Vec::as_slice);
    let label = |(index, step): (usize, &serde_json::Value)| {
        format!("{}:{}", index + 1, step["use"].as_str().unwrap_or("where"))
    };
    std::iter::once(SOURCE_STEP.to_owned()).chain(steps.iter().enumerate().map(label)).collect()
}

impl Report {
    /// The counts as lines of text.
    #[must_use]
    pub fn show(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            let seconds = step.seconds.map_or(String::new(), |s| format!("  {s:.2} s"));
            line(
                &mut text,
                format_args!(
                    "{:<28} {:>10} in {:>10} dropped{seconds}",
                    step.step, step.n_in, step.n_dropped
                ),
            );
            for reason in &step.reasons {
                line(&mut text, format_args!("  {:<26} {:>24}", reason.name, reason.n));
            }
        }
        line(&mut text, format_args!("{} of {} records kept", self.n_kept, self.n_in));
        for method in &self.duplicates {
            line(&mut text, format_args!("{} duplicates by {}", method.n, method.name));
        }
        for (what, found) in [("repeats", &self.repeats), ("contamination", &self.contamination)] {
            for spans in found {
                line(
                    &mut text,
                    format_args!(
                        "{what} by {}: {} spans, {} bytes in {} documents, {} of them dropped",
                        spans.name,
                        spans.spans,
                        spans.bytes,
                        spans.documents,
                        spans.documents_dropped
                    ),
                );
            }
        }
        if let Some(tokens) = &self.tokens {
            line(
                &mut text,
                format_args!("{} tokens of {} documents", tokens.tokens, tokens.documents),
            );
        }
        text
    }

    /// The page.
    #[must_use]
    pub fn html(&self, title: &str) -> String {
        let mut page = String::from(HEAD);
        let mut put = |text: std::fmt::Arguments<'_>| line(&mut page, text);
        put(format_args!("<title>{0}</title></head><body><h1>{0}</h1>", escape(title)));
        put(format_args!(
            "<p>{} of {} records became documents. Version {}, manifest <code>{}</code>.</p>",
            self.n_kept, self.n_in, self.version, self.manifest
        ));
        put(format_args!("<h2>Steps</h2>"));
        put(format_args!(
            "<table><tr><th>step</th><th class=n>in</th><th class=n>dropped</th><th class=n>share</th><th></th><th class=n>MB</th><th class=n>seconds</th></tr>"
        ));
        for step in &self.steps {
            let megabytes = step.bytes.map_or(String::new(), |bytes| format!("{:.1}", mega(bytes)));
            let seconds = step.seconds.map_or(String::new(), |s| format!("{s:.2}"));
            put(format_args!(
                "<tr><td>{0}</td><td class=n>{1}</td><td class=n>{2}</td><td class=n>{3:.1} %</td><td>{4}</td><td class=n>{megabytes}</td><td class=n>{seconds}</td></tr>",
                match step.n_dropped {
                    0 => escape(&step.step),
                    _ => format!("<a href=\"#{0}\">{0}</a>", escape(&step.step)),
                },
                step.n_in,
                step.n_dropped,
                percent(step.n_dropped, step.n_in),
                bar(step.n_dropped, self.n_in),
            ));
        }
        put(format_args!("</table>"));
        let groups = [("Sources", &self.sources), ("Languages", &self.languages)];
        for (name, groups) in groups.into_iter().filter(|(_, groups)| !groups.is_empty()) {
            let bars = groups
                .iter()
                .map(|group| (group.name.clone(), group.n, format!("{:.1} MB", mega(group.bytes))));
            put(format_args!("<h2>{name} of documents</h2>{}", bars_table(bars.collect())));
        }
        if !self.lengths.is_empty() {
            let bars = self.lengths.iter().map(|length| {
                (format!("from {} bytes", 1_u64 << length.power), length.n, String::new())
            });
            put(format_args!("<h2>Lengths of documents</h2>{}", bars_table(bars.collect())));
        }
        if !self.duplicates.is_empty() {
            let bars = self.duplicates.iter().map(|m| (m.name.clone(), m.n, String::new()));
            put(format_args!("<h2>Duplicates</h2>{}", bars_table(bars.collect())));
        }
        for (title, spans) in [
            ("Spans that stood before", &self.repeats),
            ("Shared with evaluation sets", &self.contamination),
        ] {
            if !spans.is_empty() {
                put(format_args!("<h2>{title}</h2>{}", spans::table(spans)));
            }
        }
        if let Some(tokens) = &self.tokens {
            put(format_args!("<p>{} tokens of {} documents.</p>", tokens.tokens, tokens.documents));
        }
        put(format_args!("<h2>What went, and why</h2>"));
        for step in self.steps.iter().filter(|step| step.n_dropped > 0) {
            put(format_args!("<h3 id=\"{0}\">{0}</h3>", escape(&step.step)));
            let bars = step.reasons.iter().map(|r| (r.name.clone(), r.n, String::new()));
            put(format_args!("{}", bars_table(bars.collect())));
            put(format_args!("<details><summary>{} of them</summary>", step.samples.len()));
            for sample in &step.samples {
                put(format_args!(
                    "<div class=sample><div><b>{}</b><br>{}<br><code>{}</code></div><pre>{}</pre></div>",
                    escape(&sample.reason),
                    escape(&sample.place),
                    escape(sample.values.as_deref().unwrap_or_default()),
                    escape(sample.text.as_deref().unwrap_or(NO_TEXT)),
                ));
            }
            put(format_args!("</details>"));
        }
        put(format_args!("</body></html>"));
        page
    }
}

const NO_TEXT: &str = "(the job keeps no text of what it drops: `keep_text = true`)";

const HEAD: &str = "<!doctype html>
<html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\">
<style>
:root { color-scheme: light dark; --line: #8884; --fill: #4a7fb5; }
body { font: 16px/1.45 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--line); }
td:first-child { width: 18rem; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
svg { width: 12rem; height: .9rem; } rect { fill: var(--fill); }
.sample { display: grid; grid-template-columns: minmax(10rem, 1fr) 2fr; gap: 1rem; padding: .6rem 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
pre { white-space: pre-wrap; max-height: 14rem; overflow: auto; margin: 0; }
@media (max-width: 40rem) { .sample { grid-template-columns: 1fr; } svg { width: 5rem; } }
</style>
";

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string cannot fail");
    text.push('\n');
}

/// A table of names with bars that are as long as their share of all.
fn bars_table(bars: Vec<(String, u64, String)>) -> String {
    let all: u64 = bars.iter().map(|(_, n, _)| n).sum();
    let mut table = String::from("<table>");
    for (name, n, note) in bars {
        line(
            &mut table,
            format_args!(
                "<tr><td>{}</td><td class=n>{n}</td><td class=n>{:.1} %</td><td>{}</td><td class=n>{note}</td></tr>",
                escape(&name),
                percent(n, all),
                bar(n, all)
            ),
        );
    }
    table.push_str("</table>");
    table
}

fn bar(n: u64, of: u64) -> String {
    let width = percent(n, of);
    format!(
        "<svg role=img aria-label=\"{width:.1} %\" viewBox=\"0 0 100 8\" preserveAspectRatio=none><rect width=\"{width:.2}\" height=8 /></svg>"
    )
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
fn percent(n: u64, of: u64) -> f64 {
    100.0 * n as f64 / of.max(1) as f64
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // No character of HTML, and some of them end a terminal's patience.
            c if c.is_control() && c != '\n' && c != '\t' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_documents_stays_text_on_the_page() {
        assert_eq!(
            escape("<script>\"&\"</script>\u{0}\n"),
            "&lt;script&gt;&quot;&amp;&quot;&lt;/script&gt;\u{fffd}\n"
        );
    }

    #[test]
    fn bars_are_as_long_as_their_share() {
        assert!(bar(1, 4).contains("width=\"25.00\""));
        assert!(bar(0, 0).contains("width=\"0.00\""));
    }
}
