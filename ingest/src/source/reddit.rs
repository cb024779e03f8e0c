//! Posts of Reddit as Pushshift and its successors archive them: JSON lines of submissions or comments, a document each.
//!
//! Which post answers which stands in the metadata (`post_id`, `parent_id`, `thread_id`), so threads can be joined later: a
//! month of them lies in two files, and what is answered often in an earlier one.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::batch::{self, BatchBuilder, Record, Rows};
use super::compressed::WINDOW_LOG_MAX;
use super::lines::LineRecords;
use super::{DocumentStream, Source, SourceFile, SourceKind, config, markup};
use crate::Result;

pub(super) const KIND: SourceKind = SourceKind {
    name: "reddit",
    summary: "submissions and comments of Reddit as JSON lines (Pushshift, Arctic Shift), plain, gzip, Zstandard or bzip2, a document per post",
    source: "Baumgartner et al. 2020, The Pushshift Reddit Dataset; Reddit's API, objects t1 and t3",
    document_kind: "conversation",
    patterns: &[
        "RC_*",
        "RS_*",
        "*.jsonl",
        "*.jsonl.gz",
        "*.jsonl.zst",
        "*.jsonl.bz2",
        "*.ndjson",
        "*.ndjson.gz",
        "*.ndjson.zst",
    ],
    default_config: config::defaults::<Config>,
    build: |name, kind, table| {
        let config: Config = config::from_table("reddit", table)?;
        if !(10..=31).contains(&config.zstd_window_log_max) {
            let message = format!(
                "`zstd_window_log_max` is {}, it has to be from 10 to 31",
                config.zstd_window_log_max
            );
            return Err(config::invalid("reddit", message));
        }
        Ok(Box::new(Reddit { name: name.to_owned(), kind: kind.to_owned(), config }))
    },
};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Whether submissions without a text of their own, links and pictures, are documents of their title.
    keep_links: bool,
    /// Whether posts that are marked as not for children are documents.
    keep_over_18: bool,
    /// The licence of every post.
    license: String,
    /// Bytes of a line, at most.
    line_bytes_max: usize,
    /// Logarithm of the largest Zstandard window. Pushshift's files have 31: each that is read takes 2 GiB of memory.
    zstd_window_log_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            keep_links: false,
            keep_over_18: true,
            license: String::new(),
            line_bytes_max: 16 << 20,
            zstd_window_log_max: WINDOW_LOG_MAX,
        }
    }
}

#[derive(Clone, Debug)]
struct Reddit {
    name: String,
    kind: String,
    config: Config,
}

impl Source for Reddit {
    fn is_splittable(&self, name: &str) -> bool {
        ![".gz", ".zst", ".bz2"].iter().any(|end| name.ends_with(end))
    }

    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream> {
        let Config { line_bytes_max, zstd_window_log_max, .. } = self.config;
        let records = LineRecords::open_long(file, range, line_bytes_max, zstd_window_log_max)?;
        let posts = Posts { records, config: self.config.clone() };
        Ok(batch::stream(BatchBuilder::new(&self.name, &self.kind), posts))
    }
}

struct Posts {
    records: LineRecords,
    config: Config,
}

impl Rows for Posts {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        let config = &self.config;
        self.records.read(rows, |line, _, record, rows| {
            if !line.trim_ascii().is_empty() {
                push(line, record, config, rows);
            }
        })
    }
}

fn push(line: &[u8], record: &Record<'_>, config: &Config, rows: &mut BatchBuilder) {
    let Ok(Value::Object(post)) = serde_json::from_slice(line) else {
        return rows.reject(record, "bad_json");
    };
    let text = |key: &str| post.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let own_id = text("id").unwrap_or_default();
    let (is_comment, post_id) = match (text("body"), text("title")) {
        (Some(_), _) => (true, format!("t1_{own_id}")),
        (None, Some(_)) => (false, format!("t3_{own_id}")),
        (None, None) => return rows.reject(record, "unknown_shape"),
    };
    let thread_id = if is_comment { text("link_id").unwrap_or_default() } else { &post_id };
    let url = match text("permalink") {
        Some(path) => format!("https://www.reddit.com{path}"),
        None => {
            let thread = thread_id.strip_prefix("t3_").unwrap_or(thread_id);
            let comment = if is_comment { format!("_/{own_id}/") } else { String::new() };
            format!("https://www.reddit.com/comments/{thread}/{comment}")
        }
    };
    let number = |key: &str| match post.get(key)? {
        Value::Number(number) => {
            number.as_i64().or_else(|| number.to_string().split('.').next()?.parse().ok())
        }
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let is_over_18 = post.get("over_18").and_then(Value::as_bool);
    let (score, over_18) = (number("score"), is_over_18.map(|flag| flag.to_string()));
    let score = score.map(|score| score.to_string());
    let values = [
        ("post_id", Some(post_id.as_str())),
        ("parent_id", text("parent_id")),
        ("thread_id", Some(thread_id)),
        ("subreddit", text("subreddit")),
        ("author", text("author")),
        ("title", text("title")),
        ("score", score.as_deref()),
        ("over_18", over_18.as_deref()),
    ];
    let metadata: Vec<(&str, &str)> =
        values.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    let record = Record {
        url: Some(&url),
        date: number("created_utc"),
        license: Some(config.license.as_str()).filter(|license| !license.is_empty()),
        metadata: &metadata,
        ..*record
    };
    let body = text(if is_comment { "body" } else { "selftext" }).unwrap_or_default();
    if matches!(body.trim(), "[deleted]" | "[removed]") {
        return rows.reject(&record, "deleted");
    }
    if is_over_18 == Some(true) && !config.keep_over_18 {
        return rows.reject(&record, "over_18");
    }
    let body = markup::unescape(body);
    let title = text("title").filter(|_| !is_comment).map(markup::unescape);
    match (title, body.trim()) {
        (Some(title), "") if config.keep_links => rows.push(&record, title.trim()),
        (_, "") => rows.reject(&record, "no_text"),
        (Some(title), body) => rows.push(&record, &format!("{}\n\n{body}", title.trim())),
        (None, body) => rows.push(&record, body),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing::{self, Row};
    use super::KIND;

    fn read(name: &str, bytes: &[u8], config: &str) -> Vec<Row> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        testing::conforms(&*testing::build(&KIND, config), &testing::file(&path), &[9_000, 40_000])
    }

    /// Keys and their forms as in Pushshift's files of 2008 and 2019; the words are made up.
    const POSTS: &str = r#"{"id":"8q1","title":"Mills &amp; grain","selftext":"How fine?","subreddit":"bread","author":"ann","created_utc":1525132800,"score":7,"over_18":false,"permalink":"/r/bread/comments/8q1/mills_grain/"}
{"id":"8q2","title":"A picture","selftext":"","subreddit":"bread","created_utc":"1525132801","over_18":true}
{"id":"c01","body":"&gt; How fine?\n\nVery.","link_id":"t3_8q1","parent_id":"t3_8q1","subreddit":"bread","author":"bob","created_utc":"1525132900","score":-2}
{"id":"c02","body":"[removed]","link_id":"t3_8q1","parent_id":"t1_c01","created_utc":1525132950.0}
{"kind":"more"}
not json
"#;

    #[test]
    fn reads_submissions_and_comments_with_what_they_answer() {
        let rows = read("RC_2018-05", POSTS.as_bytes(), "");
        let found: Vec<_> =
            rows.iter().map(|row| (row.text.as_str(), row.reject.as_deref(), row.date)).collect();
        assert_eq!(
            found,
            [
                ("Mills & grain\n\nHow fine?", None, Some(1_525_132_800)),
                ("", Some("no_text"), Some(1_525_132_801)),
                ("> How fine?\n\nVery.", None, Some(1_525_132_900)),
                ("", Some("deleted"), Some(1_525_132_950)),
                ("", Some("unknown_shape"), None),
                ("", Some("bad_json"), None),
            ]
        );
        assert_eq!(
            rows[0].url.as_deref(),
            Some("https://www.reddit.com/r/bread/comments/8q1/mills_grain/")
        );
        assert_eq!(
            (rows[0].value("post_id"), rows[0].value("thread_id")),
            (Some("t3_8q1"), Some("t3_8q1"))
        );
        let comment = &rows[2];
        assert_eq!(comment.url.as_deref(), Some("https://www.reddit.com/comments/8q1/_/c01/"));
        assert_eq!(
            ["post_id", "parent_id", "thread_id", "score"].map(|key| comment.value(key)),
            [Some("t1_c01"), Some("t3_8q1"), Some("t3_8q1"), Some("-2")]
        );
        let rows = read("a.jsonl", POSTS.as_bytes(), "keep_links = true");
        assert_eq!(rows[1].text, "A picture");
        let rows = read("a.jsonl", POSTS.as_bytes(), "keep_over_18 = false\nkeep_links = true");
        assert_eq!(rows[1].reject.as_deref(), Some("over_18"));
    }

    #[test]
    fn opens_long_windows_when_told_to() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(28).unwrap();
        encoder.include_contentsize(false).unwrap();
        std::io::Write::write_all(&mut encoder, POSTS.as_bytes()).unwrap();
        let packed = encoder.finish().unwrap();
        let rows = read("RC_2018-05.zst", &packed, "");
        assert_eq!(rows[0].reject.as_deref(), Some("bad_zstd"));
        assert_eq!(read("RC_2018-05.zst", &packed, "zstd_window_log_max = 31").len(), 6);
    }
}
