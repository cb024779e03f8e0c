//! `gristmill verify`: whether the files of a corpus are what its manifests say, and putting right what can be.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::progress::Talk;
use crate::{Result, command, run};

/// What was looked at, put right and found wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Datasets that were looked at.
    pub datasets: u64,
    /// Their manifests.
    pub versions: u64,
    /// Their shards; one that several versions name counts once.
    pub shards: u64,
    /// Rows that were decoded; none unless the check is deep.
    pub rows: u64,
    /// Files that were moved to put things right.
    pub moved: Vec<Moved>,
    /// What is wrong still.
    pub failures: Vec<Failure>,
}

/// A file with another name than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Where it was.
    pub from: PathBuf,
    /// Where it is.
    pub to: PathBuf,
}

/// A file that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The file.
    pub path: PathBuf,
    /// What it should be and what it is.
    pub message: String,
}

/// Checks the datasets of a corpus, or the one in `path`; with `repair`, puts right what can be before that.
///
/// # Errors
/// When there is no dataset, a folder cannot be read, or `repair` is asked for while a run writes to the corpus.
pub fn verify(path: &Path, deep: bool, repair: bool, talk: Talk) -> Result<Report> {
    let mut report = Report::default();
    let datasets = command::datasets(path)?;
    let _lock = repair.then(|| lock(path)).transpose()?;
    for dataset in datasets {
        if repair {
            for (from, to) in dataset.repair()? {
                talk.say(format!("moved `{}` to `{}`", from.display(), to.display()));
                report.moved.push(Moved { from, to });
            }
        }
        let found = dataset.verify(deep)?;
        report.datasets += 1;
        report.versions += found.n_versions;
        report.shards += found.n_shards;
        report.rows += found.n_rows;
        for shard::dataset::Failure { path, message } in found.failures {
            talk.say(&message);
            report.failures.push(Failure { path, message });
        }
    }
    let rows = if deep { format!(" with {} rows", report.rows) } else { String::new() };
    talk.say(format!(
        "{} shards{rows} in {} versions checked, {} differ",
        report.shards,
        report.versions,
        report.failures.len()
    ));
    if !report.failures.is_empty() && !repair {
        talk.say("hint: `--repair` puts right what can be; then run the job again");
    }
    Ok(report)
}

/// Takes the corpus that `path` is or is in, where runs take it, too.
fn lock(path: &Path) -> Result<Option<std::fs::File>> {
    if shard::store::is_object(path) {
        return Ok(None);
    }
    let above = path.canonicalize().map_err(shard::Error::io("find", path))?;
    let corpus = above.ancestors().take(2).find(|folder| folder.join(".lock").is_file());
    corpus.map(run::lock).transpose()
}
