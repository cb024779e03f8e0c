//! Logs of IRC channels: a day or a conversation is a document, `nick: text` a line of it.
//!
//! Reads `[12:34] <nick> text` as Ubuntu's logs have it, `12:34 <nick> text` of irssi and weechat with or without
//! seconds or a date before it. Joins, parts and topics are counted, not kept.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::batch::{self, BatchBuilder, Record, Rows};
use super::lines::{Line, Lines};
use super::{DocumentStream, Source, SourceFile, SourceKind, charset, config, date};
use crate::{Error, Result};

pub(super) const KIND: SourceKind = SourceKind {
    name: "irc",
    summary: "logs of IRC channels, plain, gzip, Zstandard or bzip2: a file, or a conversation between silences, is a document",
    source: "logs of irclogs.ubuntu.com and irssi",
    document_kind: "conversation",
    patterns: &[
        "*.txt",
        "*.log",
        "*.txt.gz",
        "*.log.gz",
        "*.txt.zst",
        "*.log.zst",
        "*.txt.bz2",
        "*.log.bz2",
    ],
    default_config: config::defaults::<Config>,
    build: |name, kind, table| {
        Ok(Box::new(Irc {
            name: name.to_owned(),
            kind: kind.to_owned(),
            config: config::from_table("irc", table)?,
        }))
    },
};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Minutes without a message that end a document; 0 makes the file one.
    silence_minutes: u32,
    /// Whether speakers are called `user1`, `user2` in the order in which they speak, also where others address them.
    mask_nicks: bool,
    /// The licence of every log.
    license: String,
    /// Bytes of a document's text after which another begins.
    document_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        let license = String::new();
        Self { silence_minutes: 0, mask_nicks: false, license, document_bytes_max: 4 << 20 }
    }
}

#[derive(Clone, Debug)]
struct Irc {
    name: String,
    kind: String,
    config: Config,
}

/// Bytes of a line, at most; the protocol allows 512.
const LINE_BYTES_MAX: usize = 64 << 10;

impl Source for Irc {
    fn is_splittable(&self, _name: &str) -> bool {
        // A conversation begins where a silence ends, which may be in an earlier range.
        false
    }

    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream> {
        let handle = File::open(&file.path).map_err(Error::io("open", &file.path))?;
        let range = super::whole_or_none(range.as_ref());
        let lines = Lines::open(handle, &range).map_err(Error::io("read", &file.path))?;
        let reader = Log {
            file: file.clone(),
            config: self.config.clone(),
            lines,
            line: Vec::new(),
            talk: Talk::default(),
            date: date_in(&file.name),
        };
        Ok(batch::stream(BatchBuilder::new(&self.name, &self.kind), reader))
    }
}

struct Log {
    file: SourceFile,
    config: Config,
    lines: Lines,
    line: Vec<u8>,
    talk: Talk,
    date: Option<i64>,
}

/// What has been said since the last silence.
#[derive(Default)]
struct Talk {
    start: u64,
    end: u64,
    text: String,
    n_messages: u64,
    n_notices: u64,
    n_unread: u64,
    /// Minutes of the day of the last message.
    last: Option<u32>,
    nicks: HashMap<String, usize>,
}

impl Rows for Log {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        let offset = self.lines.offset();
        let read = self.lines.read(&mut self.line, LINE_BYTES_MAX);
        match read.map_err(Error::io("read", &self.file.path))? {
            Line::Whole => {}
            Line::TooLong => {
                self.talk.n_unread += 1;
                return Ok(true);
            }
            Line::Damaged(reason) => {
                self.end_talk(rows);
                let locator = format!("{}#{offset}", self.file.name);
                rows.reject(&Record { locator: &locator, ..Record::default() }, reason);
                return Ok(true);
            }
            Line::End => {
                self.end_talk(rows);
                return Ok(false);
            }
        }
        let (line, _) = charset::decode(&self.line, None);
        let line = clean(&line);
        match parse(&line) {
            Said::Message { minute, nick, text, is_action } => {
                let is_silence = self.talk.last.zip(minute).is_some_and(|(last, minute)| {
                    // Past midnight the clock starts again.
                    let gap = (minute + DAY_MINUTES - last) % DAY_MINUTES;
                    self.config.silence_minutes > 0 && gap > self.config.silence_minutes
                });
                if is_silence || self.talk.text.len() >= self.config.document_bytes_max {
                    self.end_talk(rows);
                }
                if self.talk.n_messages == 0 && self.talk.n_notices == 0 && self.talk.n_unread == 0
                {
                    self.talk.start = offset;
                }
                self.talk.last = minute.or(self.talk.last);
                self.talk.say(nick, text, is_action, self.config.mask_nicks);
            }
            Said::Notice => self.talk.n_notices += 1,
            Said::Nothing => {}
            Said::Unread => self.talk.n_unread += 1,
        }
        self.talk.end = self.lines.offset();
        Ok(true)
    }
}

const DAY_MINUTES: u32 = 24 * 60;

impl Talk {
    fn say(&mut self, nick: &str, text: &str, is_action: bool, mask: bool) {
        self.n_messages += 1;
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let next = self.nicks.len() + 1;
        let number = *self.nicks.entry(nick.to_owned()).or_insert(next);
        let is_separate = if is_action { " " } else { ": " };
        let prefix = if is_action { "* " } else { "" };
        if !mask {
            self.text.extend([prefix, nick, is_separate, text]);
            return;
        }
        self.text.extend([prefix, &format!("user{number}"), is_separate]);
        // Only who has spoken can be told from a word; an address is the first word.
        match text.split_once([':', ',']).and_then(|(name, _)| Some((name, self.nicks.get(name)?)))
        {
            Some((name, number)) => {
                self.text.push_str(&format!("user{number}"));
                self.text.push_str(&text[name.len()..]);
            }
            None => self.text.push_str(text),
        }
    }
}

impl Log {
    fn end_talk(&mut self, rows: &mut BatchBuilder) {
        let talk = std::mem::take(&mut self.talk);
        if talk.end == 0 {
            return;
        }
        let locator = format!("{}#{}", self.file.name, talk.start);
        let counts = [
            ("n_messages", talk.n_messages.to_string()),
            ("n_speakers", talk.nicks.len().to_string()),
            ("notices_dropped", talk.n_notices.to_string()),
            ("lines_unread", talk.n_unread.to_string()),
        ];
        let metadata: Vec<(&str, &str)> =
            counts.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let license = Some(self.config.license.as_str()).filter(|license| !license.is_empty());
        let record = Record {
            locator: &locator,
            date: self.date,
            license,
            bytes_raw: talk.end - talk.start,
            metadata: &metadata,
            ..Record::default()
        };
        if talk.n_messages == 0 {
            rows.reject(&record, "no_messages");
        } else {
            rows.push(&record, &talk.text);
        }
    }
}

/// What a line of a log is.
#[derive(Debug, PartialEq, Eq)]
enum Said<'a> {
    Message {
        minute: Option<u32>,
        nick: &'a str,
        text: &'a str,
        is_action: bool,
    },
    /// Joins, parts, changes of names and topics.
    Notice,
    Nothing,
    Unread,
}

/// Takes out what clients colour and stress with.
///
/// Source: modern.ircdocs.horse/formatting.
fn clean(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{3}' => {
                // One or two digits, then perhaps a comma and one or two more.
                for _ in 0..2 {
                    let _digit = rest.next_if(char::is_ascii_digit);
                }
                let mut after = rest.clone();
                if after.next() == Some(',') && after.next().is_some_and(|c| c.is_ascii_digit()) {
                    let _comma = rest.next();
                    for _ in 0..2 {
                        let _digit = rest.next_if(char::is_ascii_digit);
                    }
                }
            }
            '\u{2}' | '\u{f}' | '\u{11}' | '\u{16}' | '\u{1d}' | '\u{1e}' | '\u{1f}' | '\r' => {}
            _ => out.push(c),
        }
    }
    out
}

fn parse(line: &str) -> Said<'_> {
    let line = line.trim();
    if line.is_empty() {
        return Said::Nothing;
    }
    if line.starts_with("===") || line.starts_with("---") || line.starts_with("***") {
        return Said::Notice;
    }
    let Some((minute, rest)) = clock(line) else { return Said::Unread };
    let rest = rest.trim_start();
    if let Some((nick, text)) = rest.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        // irssi writes a blank, `@` or `+` before the name of those who may do more.
        let nick = nick.trim_start_matches([' ', '@', '+', '%', '&', '~']);
        return Said::Message { minute, nick, text: text.trim(), is_action: false };
    }
    if let Some(action) = rest.strip_prefix("* ").map(str::trim) {
        let (nick, text) = action.split_once(' ').unwrap_or((action, ""));
        return Said::Message { minute, nick, text: text.trim(), is_action: true };
    }
    let is_notice =
        ["-!-", "***", "===", "-->", "<--", "--", "-"].iter().any(|sign| rest.starts_with(sign));
    if is_notice { Said::Notice } else { Said::Unread }
}

/// Reads the time of a line, in brackets or not, with a date before it or not; returns the minute of the day and the rest.
fn clock(line: &str) -> Option<(Option<u32>, &str)> {
    let (stamp, rest) = match line.strip_prefix('[') {
        Some(line) => line.split_once(']')?,
        None if line.starts_with('<') || line.starts_with("* ") => return Some((None, line)),
        None => {
            let first = line.split(' ').next()?;
            let end = if first.contains(':') {
                first.len()
            } else {
                first.len() + 1 + line.get(first.len() + 1..)?.split(' ').next()?.len()
            };
            line.split_at_checked(end)?
        }
    };
    let time = stamp.rsplit([' ', 'T']).next()?;
    let mut parts = time.split(':').map(str::parse::<u32>);
    let (Some(Ok(hour)), Some(Ok(minute))) = (parts.next(), parts.next()) else { return None };
    (hour < 24 && minute < 60).then_some((Some(hour * 60 + minute), rest))
}

/// The date that a file's name contains, as `2004-11-15`.
fn date_in(name: &str) -> Option<i64> {
    const BYTES: usize = "2004-11-15".len();
    let is_date = |window: &&str| {
        window.bytes().enumerate().all(|(index, byte)| match index {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
    };
    let windows = (0..name.len()).filter_map(|start| name.get(start..start + BYTES));
    windows.filter(is_date).find_map(date::parse)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing::{self, Row};
    use super::{KIND, clean};

    fn rows(log: &str, config: &str) -> Vec<Row> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("2004-11-15_03.raw.txt");
        fs::write(&path, log).unwrap();
        testing::conforms(&*testing::build(&KIND, config), &testing::file(&path), &[30_000])
    }

    const LOG: &str = "=== a has joined #x\n[23:50] <a|> hello\n[23:58]  * b waves\n[00:09] <b> a|: hi, c\n\
        [00:30] <c> b, late\nno line\n";

    #[test]
    fn makes_a_document_of_a_file_or_of_what_silence_divides() {
        let whole = rows(LOG, "");
        assert_eq!(whole.len(), 1);
        assert_eq!(whole[0].text, "a|: hello\n* b waves\nb: a|: hi, c\nc: b, late");
        assert_eq!(
            (whole[0].value("n_messages"), whole[0].value("n_speakers")),
            (Some("4"), Some("3"))
        );
        assert_eq!(
            (whole[0].value("notices_dropped"), whole[0].value("lines_unread")),
            (Some("1"), Some("1"))
        );
        // 2004-11-15.
        assert_eq!(whole[0].date, Some(1_100_476_800));
        let parts = rows(LOG, "silence_minutes = 15\nmask_nicks = true");
        let texts: Vec<&str> = parts.iter().map(|row| row.text.as_str()).collect();
        assert_eq!(texts, ["user1: hello\n* user2 waves\nuser2: user1: hi, c", "user1: b, late"]);
        let start = LOG.find("[00:30]").unwrap();
        assert_eq!(parts[1].locator, format!("2004-11-15_03.raw.txt#{start}"));
    }

    #[test]
    fn reads_the_lines_of_other_clients() {
        let log = "12:01 <@op> one\n12:02:03 < x> two\n2020-01-02 12:03:04 <y> three\n12:04 -!- z has quit\n\
            [2020-01-02T12:05:00] <z> four\n--- Log closed\n";
        let found = rows(log, "");
        assert_eq!(found[0].text, "op: one\nx: two\ny: three\nz: four");
        assert_eq!(found[0].value("notices_dropped"), Some("2"));
        assert_eq!(clean("\u{3}4,12red\u{3} \u{2}bold\u{f}\u{3},x"), "red bold,x");
        assert_eq!(rows("=== x\n", "")[0].reject.as_deref(), Some("no_messages"));
        assert!(rows("", "").is_empty());
    }

    #[test]
    fn reads_every_line_of_real_logs() {
        let Some(folder) = testing::data("conversations") else { return };
        let files = testing::untar(&folder.join("ubuntu-irc-dev.tar.gz"));
        let logs: Vec<_> = files.iter().filter(|(name, _)| name.ends_with(".raw.txt")).collect();
        assert_eq!(logs.len(), 10);
        for (name, log) in logs {
            let count = |row: &Row, key: &str| row.value(key).unwrap().parse::<usize>().unwrap();
            let found = rows(log, "");
            let row = &found[0];
            let said = log
                .lines()
                .filter(|line| line.get(7..9).is_some_and(|sign| sign == " <" || sign == "  "))
                .count();
            let notices = log.lines().filter(|line| line.starts_with("===")).count();
            eprintln!("{name}: {said} messages, {notices} notices");
            assert_eq!(
                (count(row, "n_messages"), count(row, "notices_dropped")),
                (said, notices),
                "{name}"
            );
            assert_eq!(said + notices, log.lines().count(), "{name}");
            assert_eq!(row.bytes_raw, log.len() as u64, "{name}");
        }
    }
}
