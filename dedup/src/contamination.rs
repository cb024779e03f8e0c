//! Which documents hold items of evaluation sets: n-grams of words that both have in common.
//!
//! ```
//! use dedup::contamination::{Config, Index, Item};
//!
//! let config: Config = toml::from_str("profile = 'palm'").unwrap();
//! let mut index = Index::new(config, None)?;
//! let quiz = index.benchmark("quiz");
//! let query = "Which of these is the tallest of all mountains on Earth?".to_owned();
//! index.push(quiz, &Item { number: 0, query, answers: vec!["Everest".to_owned()] });
//! let index = index.finish();
//!
//! let mut scanner = index.scanner();
//! let text = "I was asked: which of these is the tallest of all mountains, on earth? I knew.";
//! let finding = scanner.judge(text, &[]).unwrap();
//! assert_eq!(&text[finding.hits[0].span.clone()], "which of these is the tallest of all mountains, on earth?");
//! assert!(scanner.judge("The tallest of all mountains on Earth is Everest.", &[]).is_none());
//! # Ok::<(), dedup::Error>(())
//! ```
//!
//! | profile | words | n-grams | a document is contaminated by |
//! |---|---|---|---|
//! | `gpt3` | between white space, lower case, without punctuation | 13, of query, answer and across both | any n-gram that at most 10 documents have |
//! | `lm_eval` | the same for ASCII, as its Janitor | 13, as above | any n-gram |
//! | `palm` | as `gpt3` | 8, of query and of answer | 70 % of the n-grams of one of them |
//! | `datatrove` | spaCy's of the simplified text | 12, of answer and across both | any n-gram |
//!
//! The index holds a hash of each n-gram, so its memory is that of the benchmarks, about 40 bytes for each of their words; a
//! document is one pass over its bytes. Documents are in two steps where n-grams that many of them have do not count:
//! [`Scanner::n_grams`] counts, [`Scanner::judge`] decides.

mod cut;
mod words;

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::minhash::SplitWords;
use crate::mix::RowHasher;
use crate::shingle::roll;
use crate::{Error, Result};

pub use cut::pieces;
use words::{Splitter, Words};

/// Whose words, n-grams and rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Brown et al. 2020, appendix C: 13-grams that at most 10 documents have; 200 characters around them go, too.
    #[default]
    Gpt3,
    /// The Janitor of lm-evaluation-harness 0.4.13: GPT-3's 13-grams, however frequent.
    LmEval,
    /// Chowdhery et al. 2022, section 8: 70 % of the 8-grams of a query or an answer.
    Palm,
    /// datatrove 0.10.1, `NGramsDecontIndexer` and `NGramsDecontFilter`; needs its words.
    Datatrove,
}

/// What happens to a contaminated document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It goes.
    Drop,
    /// What it shares with benchmarks goes, with a window around; a document that falls into too many pieces goes.
    Cut,
    /// It is listed, and stays.
    Report,
}

impl Action {
    /// Its name in jobs and datasets.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Cut => "cut",
            Self::Report => "report",
        }
    }
}

/// The part of an item that n-grams are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// What is asked.
    Query,
    /// What is expected.
    Answer,
    /// The end of the query and the beginning of an answer.
    Overlap,
}

impl Field {
    /// Its name in jobs and datasets.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Answer => "answer",
            Self::Overlap => "overlap",
        }
    }
}

/// Settings of the search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Settings")]
pub struct Config {
    /// Whose words and rules; decides the defaults of all other keys.
    pub profile: Profile,
    /// What happens to contaminated documents: `cut` for `gpt3` and `lm_eval`, `drop` for `palm` and `datatrove`.
    pub action: Action,
    /// Words of an n-gram, 1 to 100.
    pub ngram: usize,
    /// The parts of an item whose n-grams are looked for.
    pub fields: Vec<Field>,
    /// Share of the n-grams of a field, 0 to 1, that a document must have; 0 asks for any of them.
    pub coverage: f64,
    /// N-grams that more documents have are phrases of the language and do not count; 0 sets no limit.
    pub documents_max: u64,
    /// Characters that are cut on both sides of what is shared.
    pub window: usize,
    /// Characters that a piece must have more than to stay.
    pub piece_chars_min: usize,
    /// Pieces (`lm_eval`: n-grams found), at most, of a document that is cut and not dropped.
    pub pieces_max: usize,
}

/// [`Config`] as a job says it: what is not said follows from the profile.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    profile: Profile,
    action: Option<Action>,
    ngram: Option<usize>,
    fields: Option<Vec<Field>>,
    coverage: Option<f64>,
    documents_max: Option<u64>,
    window: Option<usize>,
    piece_chars_min: Option<usize>,
    pieces_max: Option<usize>,
}

impl From<Settings> for Config {
    fn from(settings: Settings) -> Self {
        use Field::{Answer, Overlap, Query};
        let profile = settings.profile;
        let (action, ngram, fields, coverage) = match profile {
            Profile::Gpt3 | Profile::LmEval => (Action::Cut, 13, vec![Query, Answer, Overlap], 0.0),
            Profile::Palm => (Action::Drop, 8, vec![Query, Answer], 0.7),
            Profile::Datatrove => (Action::Drop, 12, vec![Answer, Overlap], 0.0),
        };
        let documents_max = if profile == Profile::Gpt3 { 10 } else { 0 };
        Self {
            profile,
            action: settings.action.unwrap_or(action),
            ngram: settings.ngram.unwrap_or(ngram),
            fields: settings.fields.unwrap_or(fields),
            coverage: settings.coverage.unwrap_or(coverage),
            documents_max: settings.documents_max.unwrap_or(documents_max),
            // GPT-3's numbers: no other profile says how to cut.
            window: settings.window.unwrap_or(200),
            piece_chars_min: settings.piece_chars_min.unwrap_or(200),
            pieces_max: settings.pieces_max.unwrap_or(10),
        }
    }
}

impl Default for Config {
    /// GPT-3's.
    fn default() -> Self {
        toml::from_str::<Settings>("").expect("every key has a default").into()
    }
}

impl Config {
    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// [`Error::Config`] for a number out of range or an empty list of fields.
    pub fn check(&self) -> Result<()> {
        let error = |message: String, hint: &str| {
            Err(Error::Config { method: "decontaminate", message, hint: hint.to_owned() })
        };
        if !(1..=100).contains(&self.ngram) {
            return error(
                format!("`ngram` is {}, it must be 1 to 100", self.ngram),
                "GPT-3 took 13, datatrove takes 12, PaLM took 8",
            );
        }
        if !(0.0..=1.0).contains(&self.coverage) {
            return error(
                format!("`coverage` is {}, a share is 0 to 1", self.coverage),
                "PaLM took 0.7; 0 asks for any n-gram",
            );
        }
        if self.fields.is_empty() {
            return error(
                "`fields` is empty: nothing is looked for".to_owned(),
                "name some of query, answer and overlap",
            );
        }
        Ok(())
    }
}

/// An item of a benchmark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item {
    /// Its position in the benchmark, from 0.
    pub number: u64,
    /// What is asked; may be empty.
    pub query: String,
    /// The answers that are right, each by itself.
    pub answers: Vec<String>,
}

/// What is known of a benchmark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Benchmark {
    /// Its name.
    pub name: String,
    /// Items that were added.
    pub n_items: u64,
    /// Items that have an n-gram; shorter ones are never found.
    pub n_items_indexed: u64,
}

/// A field of an item that has n-grams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IndexedField {
    benchmark: u32,
    field: Field,
    item: u64,
    /// N-grams that differ from each other.
    n_grams: u32,
}

type ByHash<V> = HashMap<u64, V, BuildHasherDefault<RowHasher>>;

/// The n-grams of benchmarks; [`Index::finish`] makes it ready.
#[derive(Debug)]
pub struct Index {
    config: Config,
    splitter: Splitter,
    benchmarks: Vec<Benchmark>,
    fields: Vec<IndexedField>,
    /// The number of each n-gram, in the order of items.
    grams: ByHash<u32>,
    /// Pairs of n-gram and field, sorted when all are there.
    postings: Vec<(u32, u32)>,
    /// Where the postings of each n-gram begin, and where the last end.
    first_postings: Vec<u32>,
    /// A bit for each n-gram at its hash: most words of a document are told from n-grams of benchmarks by one look into
    /// a table that fits into the cache.
    bits: Vec<u64>,
}

/// Bits of the table for each n-gram: one of 16 looks of a foreign n-gram goes on to the hash table.
const BITS_PER_GRAM: usize = 16;

impl Index {
    /// An index without a benchmark. `words` gives the words of a text that [`crate::datatrove::simplify`] has simplified: only
    /// profile `datatrove` takes them.
    ///
    /// # Errors
    /// See [`Config::check`]; and for profile `datatrove` without `words`.
    pub fn new(config: Config, words: Option<SplitWords>) -> Result<Self> {
        config.check()?;
        let splitter = match (config.profile, words) {
            (Profile::Gpt3 | Profile::Palm, _) => Splitter::Letters,
            (Profile::LmEval, _) => Splitter::Janitor,
            (Profile::Datatrove, Some(words)) => Splitter::Datatrove(words),
            (Profile::Datatrove, None) => {
                return Err(Error::Config {
                    method: "decontaminate",
                    message: "profile `datatrove` needs the words of its tokenizer".to_owned(),
                    hint: "build it with a word tokenizer equal to spaCy's".to_owned(),
                });
            }
        };
        Ok(Self {
            config,
            splitter,
            benchmarks: Vec::new(),
            fields: Vec::new(),
            grams: ByHash::default(),
            postings: Vec::new(),
            first_postings: Vec::new(),
            bits: Vec::new(),
        })
    }

    /// Begins a benchmark, and returns its number.
    pub fn benchmark(&mut self, name: &str) -> usize {
        let benchmark = Benchmark { name: name.to_owned(), n_items: 0, n_items_indexed: 0 };
        self.benchmarks.push(benchmark);
        self.benchmarks.len() - 1
    }

    /// Adds an item of a benchmark; returns whether it has an n-gram.
    pub fn push(&mut self, benchmark: usize, item: &Item) -> bool {
        let ngram = self.config.ngram;
        let query = self.splitter.item_words(&item.query);
        let answers: Vec<Vec<u64>> =
            item.answers.iter().map(|answer| self.splitter.item_words(answer)).collect();
        let mut is_indexed = false;
        for field in [Field::Query, Field::Answer, Field::Overlap] {
            if !self.config.fields.contains(&field) {
                continue;
            }
            let texts: Vec<Vec<u64>> = match field {
                Field::Query => vec![query.clone()],
                Field::Answer => answers.clone(),
                // Across the border: neither part may give all words of an n-gram.
                Field::Overlap => answers
                    .iter()
                    .map(|answer| {
                        let tail = &query[query.len().saturating_sub(ngram - 1)..];
                        let head = &answer[..answer.len().min(ngram - 1)];
                        if tail.is_empty() || head.is_empty() {
                            return Vec::new();
                        }
                        [tail, head].concat()
                    })
                    .collect(),
            };
            for words in texts {
                is_indexed |= self.push_field(benchmark, item.number, field, &words);
            }
        }
        self.benchmarks[benchmark].n_items += 1;
        self.benchmarks[benchmark].n_items_indexed += u64::from(is_indexed);
        is_indexed
    }

    fn push_field(&mut self, benchmark: usize, item: u64, field: Field, words: &[u64]) -> bool {
        let mut hashes = Vec::new();
        n_grams(words, self.config.ngram, &mut hashes);
        hashes.sort_unstable();
        hashes.dedup();
        if hashes.is_empty() {
            return false;
        }
        let number = narrow(self.fields.len());
        for hash in &hashes {
            let next = narrow(self.grams.len());
            let gram = *self.grams.entry(*hash).or_insert(next);
            self.postings.push((gram, number));
        }
        let (benchmark, n_grams) = (narrow(benchmark), narrow(hashes.len()));
        self.fields.push(IndexedField { benchmark, field, item, n_grams });
        true
    }

    /// Makes the index ready to be searched.
    #[must_use]
    pub fn finish(mut self) -> Self {
        self.postings.sort_unstable();
        let n_grams = self.grams.len();
        self.first_postings = vec![0; n_grams + 1];
        for (gram, _) in &self.postings {
            self.first_postings[*gram as usize + 1] += 1;
        }
        for gram in 0..n_grams {
            self.first_postings[gram + 1] += self.first_postings[gram];
        }
        let n_bits = (n_grams * BITS_PER_GRAM).next_power_of_two().max(64);
        self.bits = vec![0; n_bits / 64];
        for hash in self.grams.keys() {
            let (word, bit) = place(*hash, self.bits.len());
            self.bits[word] |= bit;
        }
        self
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The benchmarks, in the order in which they were added.
    #[must_use]
    pub fn benchmarks(&self) -> &[Benchmark] {
        &self.benchmarks
    }

    /// N-grams of all benchmarks that differ from each other.
    #[must_use]
    pub fn n_grams(&self) -> usize {
        self.grams.len()
    }

    /// Items by benchmark that are contaminated by all documents together: of one of their fields, the share
    /// [`Config::coverage`] of the n-grams, and one at least, is found in `frequency` (documents with each n-gram).
    #[must_use]
    pub fn contaminated_items(&self, frequency: &[u64]) -> Vec<u64> {
        let mut n_found = vec![0_u32; self.fields.len()];
        for (gram, field) in &self.postings {
            let documents = frequency[*gram as usize];
            n_found[*field as usize] += u32::from(documents > 0 && self.counts(documents));
        }
        let mut items: Vec<(u32, u64)> = self
            .fields
            .iter()
            .zip(n_found)
            .filter(|(field, found)| *found > 0 && self.is_covered(field, *found))
            .map(|(field, _)| (field.benchmark, field.item))
            .collect();
        items.sort_unstable();
        items.dedup();
        let mut by_benchmark = vec![0; self.benchmarks.len()];
        for (benchmark, _) in items {
            by_benchmark[benchmark as usize] += 1;
        }
        by_benchmark
    }

    /// A scanner of documents; each thread has its own.
    #[must_use]
    pub fn scanner(&self) -> Scanner<'_> {
        Scanner {
            index: self,
            words: Words::default(),
            hashes: Vec::new(),
            found: Vec::new(),
            numbers: Vec::new(),
        }
    }

    /// Whether an n-gram that so many documents have counts.
    fn counts(&self, documents: u64) -> bool {
        self.config.documents_max == 0 || documents <= self.config.documents_max
    }

    fn is_covered(&self, field: &IndexedField, n_found: u32) -> bool {
        f64::from(n_found) / f64::from(field.n_grams) >= self.config.coverage
    }

    fn postings(&self, gram: u32) -> &[(u32, u32)] {
        let gram = gram as usize;
        &self.postings[self.first_postings[gram] as usize..self.first_postings[gram + 1] as usize]
    }
}

/// A stretch of a document that it shares with a field of an item.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// Bytes of the text, from the first word of the first n-gram to the last word of the last.
    pub span: Range<usize>,
    /// Number of the benchmark.
    pub benchmark: usize,
    /// Position of the item in the benchmark.
    pub item: u64,
    /// The part of the item.
    pub field: Field,
    /// N-grams of the field in this stretch that differ from each other.
    pub n_grams: u64,
    /// Share of the field's n-grams that the document has, in all stretches together.
    pub coverage: f64,
}

/// What was found in a contaminated document.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// By position, benchmark, item and field; at least one.
    pub hits: Vec<Hit>,
    /// What happens: [`Action::Drop`], too, where too little would be left by a cut.
    pub action: Action,
}

/// Finds n-grams of an [`Index`] in documents; keeps its buffers from text to text.
#[derive(Debug)]
pub struct Scanner<'a> {
    index: &'a Index,
    words: Words,
    hashes: Vec<u64>,
    /// Where an n-gram of the index begins, in words, and its number.
    found: Vec<(usize, u32)>,
    numbers: Vec<u32>,
}

impl Scanner<'_> {
    /// Returns the numbers of the n-grams that `text` shares with benchmarks, rising, each once.
    pub fn n_grams(&mut self, text: &str) -> &[u32] {
        self.find(text);
        self.numbers.clear();
        self.numbers.extend(self.found.iter().map(|(_, gram)| *gram));
        self.numbers.sort_unstable();
        self.numbers.dedup();
        &self.numbers
    }

    /// Returns what makes `text` contaminated; none when it is not.
    ///
    /// `frequency`: the number of documents with each n-gram; may be empty where the configuration sets no limit on it.
    pub fn judge(&mut self, text: &str, frequency: &[u64]) -> Option<Finding> {
        self.find(text);
        let index = self.index;
        if index.config.documents_max > 0 && !frequency.is_empty() {
            self.found.retain(|(_, gram)| index.counts(frequency[*gram as usize]));
        }
        if self.found.is_empty() {
            return None;
        }
        let mut by_field: Vec<(u32, usize, u32)> = Vec::new();
        for (word, gram) in &self.found {
            by_field.extend(index.postings(*gram).iter().map(|(_, field)| (*field, *word, *gram)));
        }
        by_field.sort_unstable();
        self.index.splitter.spans(text, &mut self.words);
        let mut hits = Vec::new();
        for matches in by_field.chunk_by(|a, b| a.0 == b.0) {
            self.field_hits(matches, &mut hits);
        }
        if hits.is_empty() {
            return None;
        }
        hits.sort_by(|a: &Hit, b: &Hit| {
            let key =
                |hit: &Hit| (hit.span.start, hit.benchmark, hit.item, hit.field, hit.span.end);
            key(a).cmp(&key(b))
        });
        let action = self.action(text, &hits);
        Some(Finding { hits, action })
    }

    /// Adds the stretches of one field, if the document has enough of it.
    fn field_hits(&self, matches: &[(u32, usize, u32)], hits: &mut Vec<Hit>) {
        let ngram = self.index.config.ngram;
        let field = &self.index.fields[matches[0].0 as usize];
        let n_distinct = |matches: &[(u32, usize, u32)]| {
            let mut grams: Vec<u32> = matches.iter().map(|(_, _, gram)| *gram).collect();
            grams.sort_unstable();
            grams.dedup();
            narrow(grams.len())
        };
        let n_found = n_distinct(matches);
        if !self.index.is_covered(field, n_found) {
            return;
        }
        // Words of one stretch follow each other without a gap.
        for run in matches.chunk_by(|a, b| b.1 <= a.1 + ngram) {
            let (first, last) = (run[0].1, run[run.len() - 1].1 + ngram - 1);
            hits.push(Hit {
                span: self.words.spans[first].start..self.words.spans[last].end,
                benchmark: field.benchmark as usize,
                item: field.item,
                field: field.field,
                n_grams: u64::from(n_distinct(run)),
                coverage: f64::from(n_found) / f64::from(field.n_grams),
            });
        }
    }

    fn action(&self, text: &str, hits: &[Hit]) -> Action {
        let config = &self.index.config;
        if config.action != Action::Cut {
            return config.action;
        }
        let spans: Vec<Range<usize>> = hits.iter().map(|hit| hit.span.clone()).collect();
        let cut = cut::cut(text, &spans, config);
        let is_too_dirty = match config.profile {
            Profile::LmEval => self.found.len() > config.pieces_max,
            _ => cut.n_pieces > config.pieces_max,
        };
        if is_too_dirty || cut.pieces.is_empty() { Action::Drop } else { Action::Cut }
    }

    fn find(&mut self, text: &str) {
        self.found.clear();
        self.index.splitter.words(text, &mut self.words);
        n_grams(&self.words.hashes, self.index.config.ngram, &mut self.hashes);
        let bits = &self.index.bits;
        for (word, hash) in self.hashes.iter().enumerate() {
            let (at, bit) = place(*hash, bits.len());
            if bits[at] & bit != 0
                && let Some(gram) = self.index.grams.get(hash)
            {
                self.found.push((word, *gram));
            }
        }
    }
}

/// Replaces `hashes` by that of every n-gram of `words`, none when they are too few.
fn n_grams(words: &[u64], ngram: usize, hashes: &mut Vec<u64>) {
    hashes.clear();
    if words.len() >= ngram {
        roll(words, ngram, hashes);
    }
}

/// Word and bit of a table of `n_words` words, a power of two.
fn place(hash: u64, n_words: usize) -> (usize, u64) {
    let mask = n_words as u64 - 1;
    let word = usize::try_from((hash >> 6) & mask).expect("a table fits into memory");
    (word, 1 << (hash & 63))
}

fn narrow(n: usize) -> u32 {
    u32::try_from(n).expect("benchmarks have less than 4 G n-grams")
}

#[cfg(test)]
mod tests;
