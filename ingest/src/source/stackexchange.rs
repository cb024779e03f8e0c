//! Threads of Stack Exchange dumps: a question of `Posts.xml` with its answers.
//!
//! Posts come in the order of their ids, so the answers to a question come at any distance after it. A first pass puts
//! each post, compressed, into the bucket of its question's id in one temporary file; a second one takes bucket after bucket
//! into memory and writes its threads. Memory is that of a bucket, the disk holds the dump's posts once, compressed, and
//! packed dumps need no unpacking. Threads come in the order of their questions' ids.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use quick_xml::events::BytesStart;
use serde::{Deserialize, Serialize};

use super::batch::{self, BatchBuilder, Record, Rows};
use super::input::{Input, Place};
use super::{DocumentStream, Raw, Source, SourceFile, SourceKind, config, date, markup, raw};
use crate::modifier::extract_html::visible_text;
use crate::{Error, Result};

pub(super) const KIND: SourceKind = SourceKind {
    name: "stackexchange",
    summary: "Posts.xml of a Stack Exchange dump, plain, gzip, bzip2 or Zstandard: a question with its answers, best first",
    source: "schema of the Stack Exchange data dump; the layout `Q: … A: …` is RedPajama's",
    document_kind: "conversation",
    patterns: &["Posts.xml", "Posts.xml.gz", "Posts.xml.bz2", "Posts.xml.zst"],
    default_config: config::defaults::<Config>,
    build: |name, kind, table| {
        Ok(Box::new(StackExchange {
            name: name.to_owned(),
            kind: kind.to_owned(),
            config: config::from_table("stackexchange", table)?,
        }))
    },
};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// The site's host, for addresses: `history.stackexchange.com`. Without it documents have none.
    site: String,
    /// Bytes of a post, at most. The site takes posts of 30,000 characters.
    post_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { site: String::new(), post_bytes_max: 4 << 20 }
    }
}

#[derive(Clone, Debug)]
struct StackExchange {
    name: String,
    kind: String,
    config: Config,
}

impl Source for StackExchange {
    fn is_splittable(&self, _name: &str) -> bool {
        false
    }

    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream> {
        let handle = File::open(&file.path).map_err(Error::io("open", &file.path))?;
        let range = super::whole_or_none(range.as_ref());
        let input = Input::open(handle, &range).map_err(Error::io("read", &file.path))?;
        let reader = Threads {
            file: file.clone(),
            config: self.config.clone(),
            input,
            is_read: false,
            row: Vec::new(),
            buckets: Buckets::default(),
            threads: VecDeque::new(),
        };
        Ok(batch::stream(BatchBuilder::new(&self.name, &self.kind), reader))
    }

    /// The rows of a thread, a line each, in the order of the dump; of a post that gave no document its own.
    fn raw(&self, file: &SourceFile, place: Option<&str>, bytes: u64) -> Result<Option<Raw>> {
        let Some(place) = place else { return raw::inflated(file, None, bytes) };
        let read = |error| Error::io("read", &file.path)(error);
        let handle = File::open(&file.path).map_err(Error::io("open", &file.path))?;
        let mut input = Input::open(handle, &(0..u64::MAX)).map_err(read)?;
        let (mut question_id, mut row, mut rows) = (None, Vec::new(), Vec::new());
        loop {
            let start = match markup::skip_to(&mut input, b"<row ").map_err(read)? {
                markup::Skipped::Found(start) => start,
                markup::Skipped::Damaged(..) => continue,
                markup::Skipped::Beyond => break,
            };
            row.clear();
            row.extend_from_slice(b"<row ");
            markup::read_tag(&mut input, self.config.post_bytes_max, &mut row).map_err(read)?;
            let post = std::str::from_utf8(&row[1..]).ok();
            let post = post.and_then(|row| Post::parse(row, start).ok());
            let is_first = rows.is_empty() && start.to_string() == place;
            let is_answer = question_id.is_some()
                && post.as_ref().is_some_and(|post| question_id == Some(post.question_id()));
            if is_first || is_answer {
                rows.extend_from_slice(&row);
                rows.push(b'\n');
            }
            if is_first {
                question_id = post.filter(|post| post.is_question).map(|post| post.id);
                if question_id.is_none() {
                    break;
                }
            }
        }
        Ok((!rows.is_empty()).then_some(Raw::Bytes(rows)))
    }
}

struct Threads {
    file: SourceFile,
    config: Config,
    input: Input,
    /// Whether the first pass is over.
    is_read: bool,
    row: Vec<u8>,
    buckets: Buckets,
    /// What is left of the bucket in memory.
    threads: VecDeque<Thread>,
}

/// A question with its answers, or answers without one.
#[derive(Default)]
struct Thread {
    question: Option<Post>,
    answers: Vec<Post>,
}

impl Rows for Threads {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        if !self.is_read {
            self.is_read = !self.sort_post(rows)?;
            return Ok(true);
        }
        if let Some(thread) = self.threads.pop_front() {
            self.push(thread, rows);
            return Ok(true);
        }
        let next = self.buckets.take_first().map_err(Error::io("read", "a temporary file"))?;
        let Some(bytes) = next else { return Ok(false) };
        let mut threads: BTreeMap<u64, Thread> = BTreeMap::new();
        for (offset, row) in records(&bytes) {
            let post = Post::parse(row, offset).expect("it was parsed before");
            let thread = threads.entry(post.question_id()).or_default();
            match thread.question {
                None if post.is_question => thread.question = Some(post),
                Some(_) if post.is_question => self.reject(&post, "duplicate_id", rows),
                _ => thread.answers.push(post),
            }
        }
        self.threads = threads.into_values().collect();
        Ok(true)
    }
}

impl Threads {
    /// Reads the next post into its bucket; `false` when there is none.
    fn sort_post(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        let path = &self.file.path;
        let found = markup::skip_to(&mut self.input, b"<row ").map_err(Error::io("read", path))?;
        let start = match found {
            markup::Skipped::Found(start) => start,
            markup::Skipped::Beyond => return Ok(false),
            markup::Skipped::Damaged(place, reason) => {
                self.reject_row(place, 0, reason, rows);
                return Ok(true);
            }
        };
        self.row.clear();
        self.row.extend_from_slice(b"row ");
        let limit = self.config.post_bytes_max;
        let end = markup::read_tag(&mut self.input, limit, &mut self.row);
        let bytes = self.row.len() as u64;
        match end.map_err(Error::io("read", path))? {
            markup::End::Found => {}
            markup::End::TooLong(bytes) => {
                self.reject_row(start, bytes, "too_large", rows);
                return Ok(true);
            }
            markup::End::Eof => {
                self.reject_row(start, bytes, "truncated", rows);
                return Ok(true);
            }
            markup::End::Damaged(reason) => {
                self.reject_row(start, bytes, reason, rows);
                return Ok(true);
            }
        }
        let Ok(row) = std::str::from_utf8(&self.row) else {
            self.reject_row(start, bytes, "bad_utf8", rows);
            return Ok(true);
        };
        let post = match Post::parse(row, start) {
            Ok(post) => post,
            Err(reason) => {
                self.reject_row(start, bytes, reason, rows);
                return Ok(true);
            }
        };
        let is_in = self.buckets.push(post.question_id(), start, &self.row);
        if !is_in.map_err(Error::io("write", "a temporary file"))? {
            self.reject(&post, "thread_too_large", rows);
        }
        Ok(true)
    }

    fn locator(&self, place: Place) -> String {
        format!("{}#{place}", self.file.name)
    }

    fn reject_row(&self, place: Place, bytes_raw: u64, reason: &str, rows: &mut BatchBuilder) {
        let locator = self.locator(place);
        rows.reject(&Record { locator: &locator, bytes_raw, ..Record::default() }, reason);
    }

    fn reject(&self, post: &Post, reason: &str, rows: &mut BatchBuilder) {
        let (locator, id) = (self.locator(post.place), post.id.to_string());
        let date = post.date.as_deref().and_then(date::parse);
        let metadata = [("post_id", id.as_str())];
        let record = Record {
            locator: &locator,
            bytes_raw: post.bytes_raw,
            date,
            metadata: &metadata,
            ..Record::default()
        };
        rows.reject(&record, reason);
    }

    fn push(&self, thread: Thread, rows: &mut BatchBuilder) {
        let Thread { question, mut answers } = thread;
        let Some(question) = question else {
            for answer in &answers {
                self.reject(answer, "no_question", rows);
            }
            return;
        };
        answers.sort_by_key(|answer| {
            (question.accepted_id != Some(answer.id), std::cmp::Reverse(answer.score), answer.id)
        });
        let Some(body) = visible_text(&question.body) else {
            return self.reject_all(&question, &answers, "too_many_nodes", rows);
        };
        let mut text = format!("Q: {}", question.title.as_deref().unwrap_or_default());
        text.push_str(if question.title.is_some() { "\n\n" } else { "" });
        text.push_str(&body);
        let mut kept: Vec<&Post> = Vec::with_capacity(answers.len());
        for answer in &answers {
            match visible_text(&answer.body) {
                Some(body) if !body.is_empty() => {
                    text.push_str("\n\nA: ");
                    text.push_str(&body);
                    kept.push(answer);
                }
                Some(_) => self.reject(answer, "no_text", rows),
                None => self.reject(answer, "too_many_nodes", rows),
            }
        }
        if body.is_empty() && question.title.is_none() {
            return self.reject_all(&question, &kept, "no_text", rows);
        }
        self.document(&question, &kept, &text, rows);
    }

    /// A thread whose question cannot be read: none of its posts is lost without a word.
    fn reject_all<'a>(
        &self,
        question: &Post,
        answers: impl IntoIterator<Item = &'a (impl std::borrow::Borrow<Post> + 'a)>,
        reason: &str,
        rows: &mut BatchBuilder,
    ) {
        self.reject(question, reason, rows);
        for answer in answers {
            self.reject(answer.borrow(), "no_question", rows);
        }
    }

    fn document(&self, question: &Post, answers: &[&Post], text: &str, rows: &mut BatchBuilder) {
        let locator = self.locator(question.place);
        let url = (!self.config.site.is_empty())
            .then(|| format!("https://{}/questions/{}", self.config.site, question.id));
        let ids: Vec<String> = answers.iter().map(|answer| answer.id.to_string()).collect();
        let mut licenses: Vec<String> =
            [question].iter().chain(answers).filter_map(|post| post.license()).collect();
        licenses.sort_unstable();
        licenses.dedup();
        let license = licenses.join(" AND ");
        let (id, score) = (question.id.to_string(), question.score.to_string());
        let (n_answers, ids) = (answers.len().to_string(), ids.join(","));
        let accepted = question.accepted_id.filter(|id| answers.iter().any(|post| post.id == *id));
        let accepted = accepted.map(|id| id.to_string());
        let tags = question.tags();
        let mut metadata =
            vec![("post_id", id.as_str()), ("score", &score), ("n_answers", &n_answers)];
        let texts = [
            ("title", question.title.as_deref()),
            ("tags", tags.as_deref()),
            ("answers", Some(ids.as_str()).filter(|ids| !ids.is_empty())),
            ("accepted_answer", accepted.as_deref()),
        ];
        metadata.extend(texts.into_iter().filter_map(|(key, value)| Some((key, value?))));
        let bytes_raw = question.bytes_raw + answers.iter().map(|post| post.bytes_raw).sum::<u64>();
        let record = Record {
            locator: &locator,
            url: url.as_deref(),
            date: question.date.as_deref().and_then(date::parse),
            license: Some(license.as_str()).filter(|license| !license.is_empty()),
            bytes_raw,
            metadata: &metadata,
            ..Record::default()
        };
        rows.push(&record, text);
    }
}

/// A row of `Posts.xml`.
#[derive(Debug)]
struct Post {
    place: Place,
    bytes_raw: u64,
    id: u64,
    is_question: bool,
    parent_id: u64,
    accepted_id: Option<u64>,
    score: i64,
    date: Option<String>,
    title: Option<String>,
    tags: Option<String>,
    license: Option<String>,
    body: String,
}

impl Post {
    /// Reads `row …/>`, a tag without its `<`.
    fn parse(row: &str, place: Place) -> Result<Self, &'static str> {
        let content = row.strip_suffix('>').map(|row| row.strip_suffix('/').unwrap_or(row));
        let tag = BytesStart::from_content(content.ok_or("bad_xml")?, "row".len());
        let mut post = Self {
            place,
            bytes_raw: row.len() as u64 + 1,
            id: 0,
            is_question: false,
            parent_id: 0,
            accepted_id: None,
            score: 0,
            date: None,
            title: None,
            tags: None,
            license: None,
            body: String::new(),
        };
        let (mut id, mut kind, mut parent) = (None, None, None);
        for attribute in tag.attributes().with_checks(false) {
            let attribute = attribute.map_err(|_| "bad_xml")?;
            let text = || markup::unescape(&attribute.value);
            let number = || attribute.value.trim().parse::<u64>().map_err(|_| "bad_number");
            match attribute.key.as_ref() {
                "Id" => id = Some(number()?),
                "PostTypeId" => kind = Some(number()?),
                "ParentId" => parent = Some(number()?),
                "AcceptedAnswerId" => post.accepted_id = Some(number()?),
                "Score" => post.score = attribute.value.trim().parse().map_err(|_| "bad_number")?,
                "CreationDate" => post.date = Some(text()),
                "Title" => post.title = Some(text()).filter(|title| !title.trim().is_empty()),
                "Tags" => post.tags = Some(text()),
                "ContentLicense" => post.license = Some(text()),
                "Body" => post.body = text(),
                _ => {}
            }
        }
        post.id = id.ok_or("no_id")?;
        post.is_question = match kind {
            Some(1) => true,
            Some(2) => false,
            // Tag wikis, moderators' elections, privilege wikis.
            _ => return Err("other_post_type"),
        };
        if !post.is_question {
            post.parent_id = parent.ok_or("no_question")?;
        }
        Ok(post)
    }

    fn question_id(&self) -> u64 {
        if self.is_question { self.id } else { self.parent_id }
    }

    /// What the post is under: as the dump says, or by its date.
    ///
    /// Source: stackoverflow.com/help/licensing.
    fn license(&self) -> Option<String> {
        if self.license.is_some() {
            return self.license.clone();
        }
        let date = self.date.as_deref()?.get(..10)?;
        let version = match date {
            date if date < "2011-04-08" => "2.5",
            date if date < "2018-05-02" => "3.0",
            _ => "4.0",
        };
        Some(format!("CC BY-SA {version}"))
    }

    /// `<a><b>`, in newer dumps `|a|b|`, as `a,b`.
    fn tags(&self) -> Option<String> {
        let tags = self.tags.as_deref()?.split(['<', '>', '|']).filter(|tag| !tag.is_empty());
        let tags = tags.collect::<Vec<_>>().join(",");
        (!tags.is_empty()).then_some(tags)
    }
}

/// Posts by their question's id, compressed in a temporary file.
#[derive(Default)]
struct Buckets {
    file: Option<File>,
    buckets: BTreeMap<u64, Bucket>,
    buffered_bytes: usize,
    /// Bytes of `file`.
    end: u64,
}

#[derive(Default)]
struct Bucket {
    buffer: Vec<u8>,
    /// Where its parts are in the file: offset and compressed bytes.
    parts: Vec<(u64, usize)>,
    bytes: u64,
}

/// Ids of a bucket. Stack Overflow's 24 million questions among 60 million posts take about 40 MB in each.
const BUCKET_IDS: u64 = 1 << 15;
/// Bytes of a bucket, at most; further posts are rejects.
const BUCKET_BYTES_MAX: u64 = 512 << 20;
/// Bytes of a bucket that wait in memory before they are written.
const PART_BYTES: usize = 64 << 10;
/// Bytes of all buckets that wait in memory.
const BUFFERED_BYTES_MAX: usize = 64 << 20;

impl Buckets {
    /// Adds the post `row` at `place`; `false` when its bucket is full.
    fn push(&mut self, question_id: u64, place: Place, row: &[u8]) -> io::Result<bool> {
        let bucket = self.buckets.entry(question_id / BUCKET_IDS).or_default();
        if bucket.bytes + row.len() as u64 > BUCKET_BYTES_MAX {
            return Ok(false);
        }
        let before = bucket.buffer.len();
        bucket.buffer.extend_from_slice(&place.to_bytes());
        bucket.buffer.extend_from_slice(&(row.len() as u64).to_le_bytes());
        bucket.buffer.extend_from_slice(row);
        bucket.bytes += (bucket.buffer.len() - before) as u64;
        self.buffered_bytes += bucket.buffer.len() - before;
        if bucket.buffer.len() >= PART_BYTES || self.buffered_bytes > BUFFERED_BYTES_MAX {
            let is_all = self.buffered_bytes > BUFFERED_BYTES_MAX;
            let first = if is_all { 0 } else { question_id / BUCKET_IDS };
            let last = if is_all { u64::MAX } else { first };
            self.write(first, last)?;
        }
        Ok(true)
    }

    /// Writes what waits of the buckets `first` to `last`.
    fn write(&mut self, first: u64, last: u64) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        for bucket in self.buckets.range_mut(first..=last).map(|(_, bucket)| bucket) {
            if bucket.buffer.is_empty() {
                continue;
            }
            let part = zstd::bulk::compress(&bucket.buffer, 1)?;
            file.write_all(&part)?;
            bucket.parts.push((self.end, part.len()));
            self.end += part.len() as u64;
            self.buffered_bytes -= bucket.buffer.len();
            bucket.buffer = Vec::new();
        }
        Ok(())
    }

    /// Returns the posts of the first bucket and forgets it.
    fn take_first(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some((_, bucket)) = self.buckets.pop_first() else { return Ok(None) };
        let mut bytes = Vec::new();
        let mut part = Vec::new();
        for (offset, n_bytes) in bucket.parts {
            let file = self.file.as_mut().expect("a part was written");
            file.seek(SeekFrom::Start(offset))?;
            part.resize(n_bytes, 0);
            file.read_exact(&mut part)?;
            zstd::stream::copy_decode(part.as_slice(), &mut bytes)?;
        }
        bytes.extend_from_slice(&bucket.buffer);
        Ok(Some(bytes))
    }
}

/// The posts of a bucket with their places.
fn records(bytes: &[u8]) -> impl Iterator<Item = (Place, &str)> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (place, after) = rest.split_at_checked(Place::BYTES)?;
        let (length, after) = after.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).expect("it was in memory");
        let (row, after) = after.split_at(length);
        rest = after;
        Some((Place::from_bytes(place), std::str::from_utf8(row).expect("it was checked")))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::super::testing::{self, Row};
    use super::KIND;

    fn threads(rows: &str, config: &str) -> Vec<Row> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Posts.xml");
        let head = "\u{feff}<?xml version=\"1.0\"?>\n<posts>\n";
        std::fs::write(&path, format!("{head}{rows}\n</posts>")).unwrap();
        testing::conforms(&*testing::build(&KIND, config), &testing::file(&path), &[99, 40_000])
    }

    const QUESTION: &str = r#"<row Id="1" PostTypeId="1" AcceptedAnswerId="4" CreationDate="2011-04-07T23:59:59.9" Score="3" Title="T &gt; U" Tags="&lt;a&gt;&lt;b-c&gt;" Body="&lt;p&gt;How&lt;/p&gt;&lt;pre&gt;&lt;code&gt;x  = 1&#xA;y&lt;/code&gt;&lt;/pre&gt;" />"#;

    fn answer(id: u64, score: i64, date: &str) -> String {
        format!(
            r#"<row Id="{id}" PostTypeId="2" ParentId="1" CreationDate="{date}" Score="{score}" Body="&lt;p&gt;n{id}&lt;/p&gt;" />"#
        )
    }

    #[test]
    fn puts_the_accepted_answer_first_and_the_others_by_score() {
        let date = "2018-05-02T00:00:00";
        let posts = [2, 9, 1, 9].iter().zip([7, 6, 4, 5]);
        let answers: String = posts.map(|(&score, id)| answer(id, score, date)).collect();
        let rows = threads(&format!("{answers}{QUESTION}"), "site = \"s.example\"");
        assert_eq!(rows.len(), 1);
        let row = &rows[0];
        assert_eq!(row.text, "Q: T > U\n\nHow\n\nx  = 1\ny\n\nA: n4\n\nA: n5\n\nA: n6\n\nA: n7");
        assert_eq!(row.url.as_deref(), Some("https://s.example/questions/1"));
        assert_eq!((row.value("tags"), row.value("answers")), (Some("a,b-c"), Some("4,5,6,7")));
        assert_eq!((row.value("score"), row.value("accepted_answer")), (Some("3"), Some("4")));
    }

    #[test]
    fn gives_each_post_or_its_reason() {
        let posts = [
            QUESTION.to_owned(),
            answer(2, 0, "2011-04-08"),
            r#"<row Id="5" PostTypeId="5" Body="tag" />"#.to_owned(),
            r#"<row Id="6" PostTypeId="2" ParentId="77" Body="x" />"#.to_owned(),
            r#"<row Id="x" PostTypeId="2" ParentId="1" Body="x" />"#.to_owned(),
            r#"<row PostTypeId="2" ParentId="1" Body="x" />"#.to_owned(),
            r#"<row Id="8" PostTypeId="2" ParentId="1" Body="" />"#.to_owned(),
            r#"<row Id="9" PostTypeId="1" Title=unquoted />"#.to_owned(),
            QUESTION.to_owned(),
            format!(r#"<row Id="10" PostTypeId="2" ParentId="1" Body="{}" />"#, "x".repeat(600)),
            r#"<row Id="11" PostTypeId="1" Body="cut"#.to_owned(),
        ];
        let rows = threads(&posts.concat(), "post_bytes_max = 500");
        let reasons: Vec<&str> =
            rows.iter().map(|row| row.reject.as_deref().unwrap_or("kept")).collect();
        assert_eq!(
            reasons,
            [
                "other_post_type",
                "bad_number",
                "no_id",
                "bad_xml",
                "too_large",
                "truncated",
                "duplicate_id",
                "no_text",
                "kept",
                "no_question"
            ]
        );
    }

    #[test]
    fn reads_every_post_of_a_dump() {
        let Some(folder) = testing::data("conversations/stackexchange-history-meta") else {
            return;
        };
        let path = folder.join("Posts.xml.gz");
        let source = testing::build(&KIND, "site = \"history.meta.stackexchange.com\"");
        let rows = testing::conforms(&*source, &testing::file(&path), &[20_000]);
        let mut xml = String::new();
        let file = std::fs::File::open(&path).unwrap();
        flate2::read::MultiGzDecoder::new(file).read_to_string(&mut xml).unwrap();
        let count = |mark: &str| xml.lines().filter(|line| line.contains(mark)).count();
        let (n_posts, n_questions) = (count("<row "), count(" PostTypeId=\"1\" "));
        let n_answers = count(" PostTypeId=\"2\" ");
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        let (mut documents, mut answers) = (0, 0);
        for row in &rows {
            *reasons.entry(row.reject.as_deref().unwrap_or("kept")).or_default() += 1;
            if row.reject.is_none() {
                documents += 1;
                answers += row.value("n_answers").unwrap().parse::<usize>().unwrap();
            }
        }
        eprintln!(
            "{n_posts} posts, {n_questions} questions, {n_answers} answers: {reasons:?}, {answers} in threads"
        );
        assert_eq!(documents + answers + rows.len() - documents, n_posts);
        assert_eq!(documents, n_questions);
        assert_eq!(
            reasons.get("other_post_type").copied().unwrap_or(0),
            n_posts - n_questions - n_answers
        );
        // Question 1, read by hand: six answers, asked on 2011-10-11 at 19:42:20.
        let row = &rows.iter().find(|row| row.value("post_id") == Some("1")).unwrap();
        assert!(row.text.starts_with("Q: Should we include sources in answers?\n\nAs a historian"));
        assert_eq!((row.date, row.value("n_answers")), (Some(1_318_362_140), Some("6")));
    }
}
