//! Turns HTML pages into their main text.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, MapArray, StringArray, StringViewBuilder};
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::html::block::Blocks;
pub use super::html::block::{CONTEXT, FEATURES};
use super::html::content::{self, Mode, Selection, Votes};
use super::html::{markdown, render, tree::Tree};
use super::{Modified, Modifier, ModifierKind};
use crate::filter::{config, text_column};
use crate::{Error, Result};

pub(super) const KIND: ModifierKind = ModifierKind {
    name: "extract_html",
    summary: "turns HTML pages into their main text",
    source: "WHATWG HTML for reading; boosted trees trained on WCXB for choosing, votes of Readability.js 0.6 among what they see",
    reasons: &["no_text", "too_many_nodes"],
    default_config: config::defaults::<Config>,
    build: |table| Ok(Box::new(ExtractHtml { config: config::from_table("extract_html", table)? })),
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// `main`, `recall` (keeps what may belong to the text) or `all` (every visible text).
    mode: Mode,
    /// `text` or `markdown`.
    format: Format,
    /// Whether links keep their targets, in Markdown.
    links: bool,
    /// Whether readers' comments are text; a page that consists of them is taken either way.
    comments: bool,
}

/// How the text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// Blocks apart by an empty line, items as `- `, cells apart by ` | `.
    Text,
    /// With headings, nested lists, tables, quotations and code marked.
    Markdown,
}

impl Default for Config {
    fn default() -> Self {
        // FineWeb and DCLM both train on main content, as plain text without comments.
        Self { mode: Mode::Main, format: Format::Text, links: false, comments: false }
    }
}

#[derive(Debug)]
struct ExtractHtml {
    config: Config,
}

/// What became of a page.
#[derive(Debug, Default)]
struct Page {
    text: String,
    reason: Option<&'static str>,
    found: Vec<(&'static str, String)>,
}

impl Modifier for ExtractHtml {
    fn modify(&self, documents: &RecordBatch) -> Result<Modified> {
        let texts = text_column(documents)?;
        let content_types = content_types(documents)?;
        let mut out = StringViewBuilder::with_capacity(texts.len());
        let mut reasons = Vec::with_capacity(texts.len());
        let mut found = Vec::new();
        for row in 0..texts.len() {
            let is_html = content_types.as_ref().is_none_or(|types| is_html(types, row));
            if !is_html {
                out.append_value(texts.value(row));
                reasons.push(None);
                continue;
            }
            let page = extract(texts.value(row), self.config);
            out.append_value(&page.text);
            reasons.push(page.reason);
            found.extend(page.found.into_iter().map(|(key, value)| (row, key, value)));
        }
        let reasons = Some(StringArray::from(reasons));
        Ok(Modified { text: out.finish(), reasons, edits: Vec::new(), found })
    }
}

fn extract(html: &str, config: Config) -> Page {
    let links = config.links && config.format == Format::Markdown;
    // Browsers leave out the zero characters of a text.
    let html = match memchr::memchr(0, html.as_bytes()) {
        Some(_) => Cow::Owned(html.replace('\0', "")),
        None => Cow::Borrowed(html),
    };
    let Some(mut tree) = Tree::parse(&html, links) else {
        return Page { reason: Some("too_many_nodes"), ..Page::default() };
    };
    let selection = match config.mode {
        Mode::All => content::visible(&tree),
        mode => chosen(&tree, mode, config.comments),
    };
    let text = match config.format {
        Format::Text => render::text(&tree, &selection),
        Format::Markdown => markdown::text(&tree, &selection),
    };
    let reason = text.is_empty().then_some("no_text");
    let found = std::mem::take(&mut tree.found);
    let found = [
        ("title", found.title),
        ("author", found.author),
        ("published", found.published),
        ("html_language", found.html_language),
        ("canonical_url", found.canonical_url),
        ("site_name", found.site_name),
    ];
    let found = found.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    Page { text, reason, found }
}

fn chosen(tree: &Tree, mode: Mode, comments: bool) -> Selection {
    let votes = Votes::cast(tree);
    let blocks = Blocks::split(tree, &votes);
    let scores = blocks.scores(&votes.counts, tree.len());
    content::choose(tree, &blocks, &scores, mode, comments)
}

/// Returns every visible text of `html`; `None` when it has too many elements.
pub(crate) fn visible_text(html: &str) -> Option<String> {
    let tree = Tree::parse(html, false)?;
    Some(render::text(&tree, &content::visible(&tree)))
}

/// A page as the classifier sees it: what training needs.
#[derive(Debug)]
pub struct Seen {
    /// The text of each block.
    pub texts: Vec<String>,
    /// [`FEATURES`] bytes for each block, block after block.
    pub features: Vec<u8>,
    blocks: Blocks,
    n_nodes: usize,
}

impl Seen {
    /// Reads a page; `None` when it has too many elements.
    #[must_use]
    pub fn of(html: &str) -> Option<Self> {
        let tree = Tree::parse(html, false)?;
        let votes = Votes::cast(&tree);
        let blocks = Blocks::split(&tree, &votes);
        let texts = (0..blocks.len()).map(|index| blocks.text(&tree, index)).collect();
        let features = blocks.features(&votes.counts, 0);
        Some(Self { texts, features, blocks, n_nodes: tree.len() })
    }

    /// Returns [`CONTEXT`] bytes for each block from its first score and those around it.
    #[must_use]
    pub fn context(&self, scores: &[u8]) -> Vec<u8> {
        self.blocks.context(scores, self.n_nodes)
    }
}

/// The column `metadata`, where there is one.
fn content_types(documents: &RecordBatch) -> Result<Option<MapArray>> {
    let Some(column) = documents.column_by_name("metadata") else { return Ok(None) };
    let wrong = || Error::Column {
        name: "metadata".to_owned(),
        why: format!("is `{}`, wanted a map of strings", column.data_type()),
    };
    let map = column.as_any().downcast_ref::<MapArray>().ok_or_else(wrong)?;
    let is_text = |array: &Arc<dyn Array>| array.as_any().is::<StringArray>();
    if !is_text(map.keys()) || !is_text(map.values()) {
        return Err(wrong());
    }
    Ok(Some(map.clone()))
}

/// Whether the metadata of `row` says that it is HTML or XHTML.
fn is_html(metadata: &MapArray, row: usize) -> bool {
    if metadata.is_null(row) {
        return false;
    }
    let entries = metadata.value(row);
    let column = |index: usize| entries.column(index).as_any().downcast_ref::<StringArray>();
    let (Some(keys), Some(values)) = (column(0), column(1)) else { return false };
    let is_type = |entry: &usize| keys.value(*entry) == "content_type" && values.is_valid(*entry);
    let content_type = (0..entries.len()).find(is_type).map(|entry| values.value(entry));
    content_type.is_some_and(|value| {
        let essence = value.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("text/html")
            || essence.eq_ignore_ascii_case("application/xhtml+xml")
            || essence.eq_ignore_ascii_case("html")
            || essence.eq_ignore_ascii_case("xhtml")
    })
}

#[cfg(test)]
mod tests;
