//! The job file: what goes in, which steps it passes, what comes out.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use ingest::crawl::CrawlConfig;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use shard::{config, store};

use crate::benchmark::DecontaminateConfig;
use crate::{Error, Result};

/// Memory of the engine unless the job says otherwise.
pub const MEMORY: Bytes = Bytes(2 << 30);
/// The least memory that a plan of every stage gets by with.
const MEMORY_MIN: Bytes = Bytes(64 << 20);

/// A job as its file says it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its name, in logs and cards.
    pub name: String,
    /// The corpus folder, relative to the job file, or a place in an object store: `s3://bucket/folder`.
    pub output: String,
    /// The local folder in which a corpus of an object store is made; one of the user's cache, without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<String>,
    /// Decides splits and the order of documents.
    #[serde(default = "seed")]
    pub seed: u64,
    /// What the engine may use; the process needs about 400 MiB beside it.
    #[serde(default = "memory")]
    pub memory: Bytes,
    /// Whether `dropped` keeps the text of what it lists.
    #[serde(default)]
    pub keep_text: bool,
    /// Whether a damaged record ends the job instead of being counted.
    #[serde(default)]
    pub strict: bool,
    /// Pages to fetch into WARC files before anything is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crawl: Option<CrawlConfig>,
    /// Where documents come from.
    #[serde(default)]
    pub source: Vec<SourceConfig>,
    /// What they pass, in order.
    #[serde(default)]
    pub step: Vec<StepConfig>,
    /// Which copies go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup: Option<DedupConfig>,
    /// Which evaluation sets must not be in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decontaminate: Option<DecontaminateConfig>,
    /// Whether conversations are also written turn by turn, as `conversations` and `preferences`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub conversations: bool,
    /// How text becomes tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<ShardConfig>,
    /// The model to train at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<TrainConfig>,
}

/// One `[[source]]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SourceConfig {
    /// A registered kind: `gristmill list sources`.
    pub kind: String,
    /// `documents.source` of its rows; the kind, unless two sources are of one kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `documents.kind` of its rows, where the source's own does not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_kind: Option<String>,
    /// Files, folders or patterns, relative to the job file.
    pub path: OneOrMany,
    /// Keys of the source itself.
    #[serde(flatten)]
    pub config: toml::Table,
}

/// One `[[step]]`: a registered filter or modifier, or any SQL condition.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct StepConfig {
    /// A registered filter or modifier: `gristmill list steps`.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A condition over the columns of `documents`; rows for which it is not true go.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Only documents of these kinds pass through the step; all, without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kinds: Option<Vec<String>>,
    /// Whether the step's signals become columns of `documents`.
    #[serde(default)]
    pub keep_signals: bool,
    /// Keys of the step itself.
    #[serde(flatten)]
    pub config: toml::Table,
}

/// `[dedup]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct DedupConfig {
    /// Registered methods, in the order in which they run: those that find documents, then those that find spans of the
    /// documents that are left.
    pub methods: Vec<String>,
    /// Which copy stays: SQL expressions over the columns of `documents`, each with `asc` or `desc` behind it if need be;
    /// the first document by them, then by id. Without it, the first one in the order of the sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<OneOrMany>,
    /// Whether spans are listed in `repeats` and texts stay as they are.
    #[serde(default)]
    pub report_only: bool,
    /// A document of which spans leave fewer characters, white space at both ends not counted, goes as a whole.
    #[serde(default = "min_chars_left")]
    pub min_chars_left: usize,
    /// Whether `tokens` says how many documents each one stands for, and how often it counts for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reweight: Option<Reweight>,
    /// Keys of each method, in a table of its name.
    #[serde(flatten)]
    pub config: toml::Table,
}

/// Weights by the size of a cluster of duplicates.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Reweight {
    /// A published table: `fineweb2`.
    Published(String),
    /// The weight from each size on: `{ 1 = 1, 2 = 2, 5 = 4, 1000 = 1 }`.
    Table(BTreeMap<String, u32>),
}

/// `[shard]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ShardConfig {
    /// `train:bpe:32000`, or a path to `tokenizer.json`.
    pub tokenizer: String,
    /// Shares of documents by split; they add up to 1.
    #[serde(default = "split")]
    pub split: BTreeMap<String, f64>,
    /// Bytes of text that a tokenizer is trained on, at most; above, documents are sampled by id.
    #[serde(default = "tokenizer_sample")]
    pub tokenizer_sample: Bytes,
    /// Bytes of tokens (4 each) that a shard aims at.
    #[serde(default = "shard_bytes")]
    pub shard_bytes: Bytes,
    /// What documents are parted by: an SQL expression over the columns of `documents`, and `cluster_size` and `weight` where
    /// `[dedup] reweight` counts them. Each value has shards of its own, which a mixture can weigh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// How conversations become tokens; without it, as their transcripts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<ChatConfig>,
}

/// `[shard.chat]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ChatConfig {
    /// The path of a chat template, or `tokenizer` for the one beside the tokenizer.
    pub template: String,
    /// The day that the template takes for today.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// Further variables of the template, such as `enable_thinking`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables: Option<toml::Table>,
}

/// `[train]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The recipe, relative to the job file.
    pub recipe: String,
}

fn seed() -> u64 {
    42
}

fn memory() -> Bytes {
    MEMORY
}

fn split() -> BTreeMap<String, f64> {
    BTreeMap::from([("train".to_owned(), 1.0)])
}

fn min_chars_left() -> usize {
    1
}

fn tokenizer_sample() -> Bytes {
    Bytes(256 << 20)
}

fn shard_bytes() -> Bytes {
    Bytes(256 << 20)
}

/// One string or a list of them.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// `path = "a"`
    One(String),
    /// `path = ["a", "b"]`
    Many(Vec<String>),
}

impl OneOrMany {
    /// The strings, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// A size, written as `2GiB`, `64 MiB` or a number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, size) = UNITS
            .iter()
            .find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size))
            .unwrap_or(&UNITS[4]);
        write!(f, "{}{unit}", self.0 / size)
    }
}

impl std::str::FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("`{text}` is not a size: write it as `2GiB` or `512MiB`");
        let (number, size) = UNITS
            .iter()
            .find_map(|(unit, size)| Some((text.trim().strip_suffix(unit)?, *size)))
            .unwrap_or((text, 1));
        let number: u64 = number.trim().parse().map_err(|_| error())?;
        number.checked_mul(size).map(Self).ok_or_else(error)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A job and where its paths begin.
#[derive(Clone, Debug)]
pub struct LoadedJob {
    /// The file.
    pub path: PathBuf,
    /// What it says.
    pub job: Job,
}

impl LoadedJob {
    /// Reads a job file; `overrides` are `key=value` in TOML's notation.
    ///
    /// # Errors
    /// When the file cannot be read, a key is unknown, a value has the wrong type or settings cannot work together.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self> {
        let job: Job = config::load(path, overrides)?.value;
        let loaded = Self { path: path.to_owned(), job };
        loaded.check()?;
        Ok(loaded)
    }

    /// The folder that paths of the job are relative to.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// The local corpus folder: the job's output, or the working copy of an output in a store.
    #[must_use]
    pub fn corpus(&self) -> PathBuf {
        match (self.origin(), &self.job.scratch) {
            (None, _) => self.resolve(&self.job.output),
            (Some(_), Some(scratch)) => self.resolve(scratch),
            (Some(origin), None) => {
                let name = shard::manifest::hash(origin.display().to_string().as_bytes());
                store::cache_folder().join("jobs").join(&name[..16])
            }
        }
    }

    /// The job's output, where that is in an object store.
    #[must_use]
    pub fn origin(&self) -> Option<PathBuf> {
        let output = Path::new(self.job.output.trim_end_matches('/'));
        store::is_object(output).then(|| output.to_owned())
    }

    /// A path of the job as seen from the working folder, without detours by `..`.
    #[must_use]
    pub fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        if store::is_object(path.as_ref()) {
            return path.as_ref().to_owned();
        }
        let mut resolved = PathBuf::new();
        for part in self.folder().join(path).components() {
            let can_go_up = matches!(resolved.components().next_back(), Some(Component::Normal(_)));
            match part {
                Component::CurDir => {}
                Component::ParentDir if can_go_up => {
                    resolved.pop();
                }
                part => resolved.push(part),
            }
        }
        resolved
    }

    /// The name of a source in `documents.source`.
    #[must_use]
    pub fn source_name(&self, index: usize) -> String {
        let source = &self.job.source[index];
        source.name.clone().unwrap_or_else(|| source.kind.clone())
    }

    /// An error about `key` of this job.
    #[must_use]
    pub fn error(&self, key: &str, message: impl Into<String>, hint: Option<String>) -> Error {
        let place = format!("{} {key}", self.path.display());
        Error::Job { place, message: message.into(), hint }
    }

    fn check(&self) -> Result<()> {
        let job = &self.job;
        let output = Path::new(&job.output);
        if job.output.contains("://") && (!store::is_object(output) || store::is_web(output)) {
            let hint = "name a folder, or a place in `s3://`, `gs://` or `az://`".to_owned();
            let message = format!("nothing can be written to `{}`", job.output);
            return Err(self.error("output", message, Some(hint)));
        }
        if let Some(scratch) = &job.scratch
            && (self.origin().is_none() || scratch.contains("://"))
        {
            let hint = "name a local folder, for an `output` in an object store".to_owned();
            let message = format!("`{scratch}` cannot be the working copy of `{}`", job.output);
            return Err(self.error("scratch", message, Some(hint)));
        }
        if job.memory < MEMORY_MIN {
            let message = format!("{} is too little memory, the least is {MEMORY_MIN}", job.memory);
            return Err(self.error("memory", message, None));
        }
        if job.source.is_empty() {
            let hint = "add a `[[source]]` with `kind` and `path`".to_owned();
            return Err(self.error("source", "the job has no source", Some(hint)));
        }
        let mut names = std::collections::BTreeSet::new();
        for index in 0..job.source.len() {
            let name = self.source_name(index);
            if !names.insert(name.clone()) {
                let hint = "give one of them another `name`".to_owned();
                let message = format!("two sources are called `{name}`");
                return Err(self.error("source", message, Some(hint)));
            }
        }
        for (index, step) in job.step.iter().enumerate() {
            let key = format!("step {}", index + 1);
            if step.name.is_some() == step.condition.is_some() {
                let message = "a step has either `use` or `where`";
                return Err(self.error(&key, message, None));
            }
            if step.condition.is_some()
                && let Some(unknown) = step.config.keys().next()
            {
                let message = format!("unknown key `{unknown}` beside `where`");
                return Err(self.error(&key, message, None));
            }
        }
        if let Some(dedup) = &job.dedup {
            for method in &dedup.methods {
                let kind = dedup::kind(method)
                    .ok_or_else(|| self.unknown("dedup.methods", method, method_names()))?;
                if let Some(table) = self.method_config(method)? {
                    let key = format!("dedup.{method}");
                    (kind.check)(table)
                        .map_err(|error| self.error(&key, error.to_string(), None))?;
                }
            }
            for key in dedup.config.keys() {
                if dedup::kind(key).is_none() {
                    return Err(self.unknown("dedup", key, method_names()));
                }
            }
        }
        Ok(())
    }

    /// The table of settings of a deduplication method.
    pub(crate) fn method_config(&self, method: &str) -> Result<Option<&toml::Table>> {
        let value = self.job.dedup.as_ref().and_then(|dedup| dedup.config.get(method));
        match value {
            None => Ok(None),
            Some(toml::Value::Table(table)) => Ok(Some(table)),
            Some(other) => {
                let message = format!("is a {}, a table is needed", other.type_str());
                Err(self.error(&format!("dedup.{method}"), message, None))
            }
        }
    }

    /// An error about a name that is not registered, with the nearest one.
    pub(crate) fn unknown<'a>(
        &self,
        key: &str,
        name: &str,
        known: impl Iterator<Item = &'a str>,
    ) -> Error {
        let known: Vec<&str> = known.collect();
        self.error(key, format!("unknown name `{name}`"), config::nearest(name, &known))
    }
}

fn method_names() -> impl Iterator<Item = &'static str> {
    dedup::KINDS.iter().map(|kind| kind.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written_in_binary_units() {
        for (text, bytes) in
            [("2GiB", 2 << 30), ("64 MiB", 64 << 20), ("1000", 1000), ("7B", 7), ("3KiB", 3072)]
        {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        assert_eq!(Bytes(2 << 30).to_string(), "2GiB");
        assert_eq!(Bytes(1536).to_string(), "1536B");
        for text in ["2GB", "", "-1MiB", "9999999999TiB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn paths_lead_from_the_job_file_without_detours() {
        let job: Job = toml::from_str("name = 'x'\noutput = '../out'").unwrap();
        let resolved = |path: &str, to: &str| {
            LoadedJob { path: PathBuf::from(path), job: job.clone() }.resolve(to)
        };
        assert_eq!(resolved("a/b/job.toml", "../c"), Path::new("a/c"));
        assert_eq!(resolved("job.toml", "../c"), Path::new("../c"));
        assert_eq!(resolved("../job.toml", "./c/d"), Path::new("../c/d"));
        assert_eq!(resolved("a/job.toml", "/x/../y"), Path::new("/y"));
    }
}
