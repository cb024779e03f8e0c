//! ARPA files: a text with a line for each n-gram.

use std::collections::HashMap;
use std::io::BufRead;
use std::path::Path;

use super::binary::Layout;
use super::{
    LONGEST_BYTES, MAX_ORDER, MIDDLE_BYTES, Model, Table, UNIGRAM_BYTES, UNKNOWN, VOCABULARY_BYTES,
    combine, hash, u64_at,
};
use crate::{Error, Result};

/// Logarithm of the probability of unknown words in a model without `<unk>`, as in KenLM.
const UNKNOWN_SCORE: f32 = -100.0;
/// Places of a table for each entry, as in KenLM.
const MULTIPLIER: f32 = 1.5;

/// N-grams by their key, with the logarithm of their probability and their back-off weight.
type Grams = HashMap<u64, (f32, f32)>;

/// Reads a model; the inner error says what is wrong with its content.
pub(super) fn read(source: impl BufRead, path: &Path) -> Result<Result<Model, String>> {
    let mut lines = Lines { source, line: Vec::new(), number: 0 };
    match parse(&mut lines) {
        Ok(model) => Ok(Ok(model)),
        Err(Wrong::Io(error)) => Err(Error::io("read", path)(error)),
        Err(Wrong::Content(why)) => Ok(Err(format!("line {}: {why}", lines.number))),
    }
}

enum Wrong {
    Io(std::io::Error),
    Content(String),
}

impl From<String> for Wrong {
    fn from(why: String) -> Self {
        Self::Content(why)
    }
}

struct Lines<R> {
    source: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// Reads the next line that is not empty, nothing at the end.
    fn next(&mut self) -> Result<Option<&[u8]>, Wrong> {
        loop {
            self.line.clear();
            if self.source.read_until(b'\n', &mut self.line).map_err(Wrong::Io)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if !self.line.trim_ascii().is_empty() {
                return Ok(Some(self.line.trim_ascii_end()));
            }
        }
    }

    fn expect(&mut self, wanted: &str) -> Result<(), Wrong> {
        let line = self.next()?;
        if line == Some(wanted.as_bytes()) {
            return Ok(());
        }
        Err(Wrong::Content(format!("it is `{}`, `{wanted}` is needed", show(line))))
    }
}

fn show(line: Option<&[u8]>) -> String {
    let Some(line) = line else { return "the end of the file".to_owned() };
    String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned()
}

fn parse(lines: &mut Lines<impl BufRead>) -> Result<Model, Wrong> {
    loop {
        match lines.next()? {
            Some(b"\\data\\") => break,
            Some(line) if line.starts_with(b"#") => {}
            line => {
                return Err(format!("it is `{}`, `\\data\\` is needed", show(line)).into());
            }
        }
    }
    let mut counts: Vec<u64> = Vec::new();
    let header = loop {
        let line = lines.next()?.map(<[u8]>::to_vec);
        let Some(rest) = line.as_deref().and_then(|line| line.strip_prefix(b"ngram ")) else {
            break line;
        };
        let wanted = format!("{}=", counts.len() + 1);
        let count = rest.strip_prefix(wanted.as_bytes()).and_then(number);
        let count = count.ok_or_else(|| {
            format!("it is `{}`, `ngram {wanted}` and a count is needed", show(line.as_deref()))
        })?;
        counts.push(count);
    };
    if !(2..=MAX_ORDER).contains(&counts.len()) {
        return Err(
            format!("{} orders are counted, allowed is 2 to {MAX_ORDER}", counts.len()).into()
        );
    }
    if header.as_deref() != Some(b"\\1-grams:") {
        return Err(format!("it is `{}`, `\\1-grams:` is needed", show(header.as_deref())).into());
    }
    let (words, unigrams) = read_words(lines, counts[0])?;
    let mut grams: Vec<Grams> = Vec::new();
    for (n, &count) in counts.iter().enumerate().skip(1) {
        lines.expect(&format!("\\{}-grams:", n + 1))?;
        let read = read_grams(lines, n + 1, count, &words, &unigrams, &mut grams)?;
        grams.push(read);
    }
    lines.expect("\\end\\")?;
    let mut model = lay_out(&words, &unigrams, &grams);
    model.find_marks()?;
    Ok(model)
}

fn number<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}

/// Splits a line of an n-gram into its score, its `n` words and its back-off weight.
fn split(line: Option<&[u8]>, n: usize) -> Result<(f32, Vec<&[u8]>, f32), String> {
    let bad = |what: &str| format!("`{}` {what}", show(line));
    let fields = line.unwrap_or_default().split(|byte| matches!(byte, b' ' | b'\t'));
    let mut fields = fields.filter(|field| !field.is_empty());
    let finite = |field: &[u8]| number::<f32>(field).filter(|value| value.is_finite());
    let score = fields.next().and_then(finite).ok_or_else(|| bad("begins with no number"))?;
    if score > 0.0 {
        return Err(bad("has a probability above 1"));
    }
    let words: Vec<&[u8]> = fields.by_ref().take(n).collect();
    if words.len() < n {
        return Err(bad(&format!("has {} words, {n} are needed", words.len())));
    }
    let backoff = match fields.next() {
        Some(field) => finite(field).ok_or_else(|| bad("ends with no number"))?,
        None => 0.0,
    };
    match fields.next() {
        Some(_) => Err(bad("has too many fields")),
        None => Ok((score, words, backoff)),
    }
}

/// Numbers of words by their hash.
type Words = HashMap<u64, u32>;

fn is_unknown(word: &[u8]) -> bool {
    word == b"<unk>" || word == b"<UNK>"
}

fn read_words(
    lines: &mut Lines<impl BufRead>,
    count: u64,
) -> Result<(Words, Vec<(f32, f32)>), Wrong> {
    let mut words = Words::new();
    let mut unigrams = vec![(UNKNOWN_SCORE, 0.0)];
    for _ in 0..count {
        let (score, word, backoff) = split(lines.next()?, 1)?;
        if is_unknown(word[0]) {
            unigrams[UNKNOWN as usize] = (score, backoff);
            continue;
        }
        let number = u32::try_from(unigrams.len()).map_err(|_| "it has 2^32 words".to_owned())?;
        if words.insert(hash(word[0]), number).is_some() {
            return Err(format!("the word `{}` stands there twice", show(Some(word[0]))).into());
        }
        unigrams.push((score, backoff));
    }
    Ok((words, unigrams))
}

fn read_grams(
    lines: &mut Lines<impl BufRead>,
    n: usize,
    count: u64,
    words: &Words,
    unigrams: &[(f32, f32)],
    grams: &mut [Grams],
) -> Result<Grams, Wrong> {
    let mut read = Grams::new();
    let mut ids: Vec<u32> = Vec::with_capacity(n);
    for _ in 0..count {
        let (score, text, backoff) = split(lines.next()?, n)?;
        ids.clear();
        // The last word first, as they are looked up.
        for word in text.iter().rev() {
            ids.push(match words.get(&hash(word)) {
                Some(&id) => id,
                None if is_unknown(word) => UNKNOWN,
                None => {
                    return Err(format!("`{}` is not among the words", show(Some(word))).into());
                }
            });
        }
        if n > 2 && !grams[n - 3].contains_key(&key(&ids[1..])) {
            let context: Vec<_> = text[..n - 1].iter().map(|word| show(Some(word))).collect();
            return Err(format!("its context `{}` is no n-gram", context.join(" ")).into());
        }
        fill_in(&ids, unigrams, grams);
        read.insert(key(&ids), (score, backoff));
    }
    Ok(read)
}

fn key(ids: &[u32]) -> u64 {
    ids[1..].iter().fold(u64::from(ids[0]), |key, &before| combine(key, before))
}

/// Adds the n-grams between that of `ids` and the longest end of it that is there: pruning may have removed them, and the
/// search goes from short to long. Each has the score that backing off gives it.
fn fill_in(ids: &[u32], unigrams: &[(f32, f32)], grams: &mut [Grams]) {
    let known = |n: usize, grams: &[Grams]| match n {
        1 => Some(unigrams[ids[0] as usize].0),
        _ => grams[n - 2].get(&key(&ids[..n])).map(|gram| gram.0),
    };
    let longest = (1..ids.len()).rev().find_map(|n| known(n, grams).map(|score| (n, score)));
    let (n, mut score) = longest.expect("every word has a score");
    for n in n + 1..ids.len() {
        let context = &ids[1..n];
        let backoff = match context {
            [word] => Some(unigrams[*word as usize].1),
            _ => grams[context.len() - 2].get(&key(context)).map(|gram| gram.1),
        };
        score += backoff.unwrap_or(0.0);
        grams[n - 2].insert(key(&ids[..n]), (score, 0.0));
    }
}

/// Writes the model as the tables of a binary file.
fn lay_out(words: &Words, unigrams: &[(f32, f32)], grams: &[Grams]) -> Model {
    let mut layout = Layout { at: 0, multiplier: MULTIPLIER };
    let vocabulary = layout.table(words.len() as u64, VOCABULARY_BYTES);
    let start = layout.at;
    layout.at += unigrams.len() * UNIGRAM_BYTES;
    let (longest, middle) = grams.split_last().expect("two orders at least");
    let tables: Vec<Table> =
        middle.iter().map(|grams| layout.table(grams.len() as u64, MIDDLE_BYTES)).collect();
    let longest_table = layout.table(longest.len() as u64, LONGEST_BYTES);
    let mut bytes = vec![0; layout.at];
    for (&key, word) in words {
        insert(&mut bytes, vocabulary, key, &word.to_le_bytes());
    }
    for (word, &weights) in unigrams.iter().enumerate() {
        bytes[start + word * UNIGRAM_BYTES..][..UNIGRAM_BYTES].copy_from_slice(&packed(weights));
    }
    for (grams, &table) in middle.iter().zip(&tables) {
        for (&key, &weights) in grams {
            insert(&mut bytes, table, key, &packed(weights));
        }
    }
    for (&key, &(score, _)) in longest {
        insert(&mut bytes, longest_table, key, &score.to_le_bytes());
    }
    Model {
        bytes,
        vocabulary,
        unigrams: start,
        middle: tables,
        longest: longest_table,
        begin: UNKNOWN,
        end: UNKNOWN,
    }
}

fn packed((score, backoff): (f32, f32)) -> [u8; UNIGRAM_BYTES] {
    (u64::from(backoff.to_bits()) << 32 | u64::from(score.to_bits())).to_le_bytes()
}

/// Keys differ, and a table has more places than keys.
fn insert(bytes: &mut [u8], table: Table, key: u64, value: &[u8]) {
    let mut bucket = key % table.buckets;
    loop {
        let at =
            table.start + usize::try_from(bucket).expect("it is in memory") * table.entry_bytes;
        if u64_at(bytes, at) == 0 {
            bytes[at..at + 8].copy_from_slice(&key.to_le_bytes());
            bytes[at + 8..at + 8 + value.len()].copy_from_slice(value);
            return;
        }
        bucket = (bucket + 1) % table.buckets;
    }
}
