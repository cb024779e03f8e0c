//! New versions of every dataset without the documents of the list, all of them or none.
//!
//! First all shards are written, then one file that says which manifests are to come, then these manifests one by one.
//! Whoever finds that file, a run of the job or another takedown, commits what is left of it before anything else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, UInt64Array};
use arrow::datatypes::UInt64Type;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shard::dataset::Snapshot;
use shard::manifest::{Counts, Manifest, Parent, Shard, hash};
use shard::schema::DatasetKind;
use shard::writer::{ShardWriter, number_tokens};
use shard::{Dataset, store};

use crate::Result;
use crate::lineage::{Id, id_column};
use crate::stage::takedowns::{Rewritten, TAKEDOWNS, Takedowns, account};
use crate::stage::{card, fingerprint};

/// What is still to be committed, in the folder of the list.
const PENDING: &str = "pending.json";

/// The manifests of a takedown, in the order in which they are committed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pending {
    commits: Vec<Commit>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Commit {
    dataset: String,
    base: u64,
    manifest: Manifest,
}

/// A new version of a dataset.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Change {
    pub(super) dataset: String,
    /// The version that rows were taken from.
    pub(super) from: u64,
    /// The version without them.
    pub(super) version: u64,
    /// Rows that went.
    pub(super) rows: u64,
}

/// Commits what a takedown that was killed had decided; nothing where there was none.
///
/// The corpus must be locked.
///
/// # Errors
/// When the file system refuses, or another writer was between.
pub(crate) fn finish(corpus: &Path) -> Result<()> {
    let path = corpus.join(TAKEDOWNS).join(PENDING);
    let Some(bytes) = store::read(&path)? else { return Ok(()) };
    let pending: Pending =
        serde_json::from_slice(&bytes).map_err(|error| shard::Error::Corrupt {
            what: format!("`{}`", path.display()),
            why: error.to_string(),
            hint: "remove it and take the documents down again".to_owned(),
        })?;
    for Commit { dataset, base, manifest } in pending.commits {
        let dataset = Dataset::at(corpus.join(dataset));
        let is_there = dataset.newest()?.is_some_and(|newest| {
            newest.version > base && newest.manifest_hash == hash(&manifest.to_bytes())
        });
        let snapshot = match is_there {
            true => dataset.open(None)?,
            false => dataset.commit(base, manifest)?,
        };
        card::write(&snapshot)?;
    }
    fs::remove_file(&path).map_err(shard::Error::io("remove", &path))?;
    Ok(store::sync_folder(&corpus.join(TAKEDOWNS))?)
}

/// Takes the documents of the list out of the newest version of every dataset, and adds `ids` to the list before.
///
/// Without a new id and with nothing left to do, no version is made. The corpus must be locked.
///
/// # Errors
/// When a dataset cannot be read or the file system refuses.
pub(super) fn apply(
    corpus: &Path,
    mut list: Takedowns,
    new: &[RecordBatch],
    ids: &BTreeSet<Id>,
    reason: &str,
) -> Result<Vec<Change>> {
    let mut pending = Pending { commits: Vec::new() };
    let mut changes = Vec::new();
    if !ids.is_empty() {
        let snapshot = longer(corpus, &list, new)?;
        pending.commits.push(Commit {
            dataset: TAKEDOWNS.to_owned(),
            base: snapshot.version - 1,
            manifest: snapshot.manifest.clone(),
        });
        list.add(snapshot, ids, reason);
    }
    if list.snapshot.is_none() {
        return Ok(changes);
    }
    let rest = Rest::of(corpus, list)?;
    let mut made = HashMap::new();
    let mut of_dropped = None;
    for kind in DatasetKind::ALL.into_iter().filter(|kind| id_column(*kind).is_some()) {
        let dataset = Dataset::at(corpus.join(kind.name()));
        let Some(newest) = dataset.newest()? else { continue };
        let known = if kind == DatasetKind::Dropped { of_dropped.take() } else { None };
        let (mut manifest, rewritten) = match known {
            Some(known) => known,
            None => rest.manifest(&dataset, &newest, &made)?,
        };
        let rows = rewritten.taken.values().sum();
        if kind == DatasetKind::Documents {
            // Its counts say what became of every record, also of those in `dropped`.
            let dropped = Dataset::at(corpus.join(DatasetKind::Dropped.name()));
            if let Some(newest) = dropped.newest()? {
                of_dropped = Some(rest.manifest(&dropped, &newest, &made)?);
            }
            let nothing = Rewritten::default();
            let of_dropped = of_dropped.as_ref().map_or(&nothing, |(_, rewritten)| rewritten);
            account(&mut manifest.counts, &rewritten, of_dropped);
        } else {
            take_rows(&mut manifest.counts, &rewritten.taken);
        }
        if manifest == newest.manifest {
            continue;
        }
        let version = newest.version + 1;
        let parent = Parent {
            dataset: kind.name().to_owned(),
            version,
            manifest: hash(&manifest.to_bytes()),
        };
        made.insert((kind.name().to_owned(), newest.version), parent);
        changes.push(Change {
            dataset: kind.name().to_owned(),
            from: newest.version,
            version,
            rows,
        });
        let (dataset, base) = (kind.name().to_owned(), newest.version);
        pending.commits.push(Commit { dataset, base, manifest });
    }
    if pending.commits.is_empty() {
        return Ok(changes);
    }
    let bytes = serde_json::to_vec(&pending).expect("a manifest holds no map but by text");
    store::replace(&corpus.join(TAKEDOWNS).join(PENDING), &bytes)?;
    finish(corpus)?;
    Ok(changes)
}

fn take_rows(counts: &mut Counts, taken: &BTreeMap<String, u64>) {
    for (reason, n) in taken {
        counts.n_kept -= n;
        *counts.dropped.entry(reason.clone()).or_default() += n;
    }
}

/// The list with the rows `new` behind the ones that it has, not committed yet.
fn longer(corpus: &Path, list: &Takedowns, new: &[RecordBatch]) -> Result<Snapshot> {
    let dataset = Takedowns::dataset(corpus);
    let version = list.version() + 1;
    let schema = DatasetKind::Dropped.schema();
    let mut writer =
        ShardWriter::create(&dataset, &format!("takedown-{version:05}"), "train", &schema)?;
    for batch in new {
        writer.write(batch)?;
    }
    let mut shards =
        list.snapshot.as_ref().map(|it| it.manifest.shards.clone()).unwrap_or_default();
    shards.push(writer.finish()?);
    let all: Vec<&String> = shards.iter().map(|shard| &shard.blake3).collect();
    let listed = fingerprint(TAKEDOWNS, &Value::Null, &[], &serde_json::json!(all));
    let mut manifest = Manifest::new(DatasetKind::Dropped, &schema, listed, Value::Null);
    manifest.shards = shards;
    let n = manifest.n_rows();
    manifest.counts = Counts { n_in: n, n_kept: n, dropped: BTreeMap::new() };
    let manifest_hash = hash(&manifest.to_bytes());
    Ok(Snapshot { path: dataset.path().to_owned(), version, manifest_hash, manifest })
}

/// What stays of a corpus.
struct Rest {
    list: Takedowns,
    documents: Option<Snapshot>,
    /// Rows of `documents` that go, from 0 over all shards, and its shards of which nothing stays.
    gone: Vec<u64>,
    empty: Vec<bool>,
}

impl Rest {
    fn of(corpus: &Path, list: Takedowns) -> Result<Self> {
        let dataset = Dataset::at(corpus.join(DatasetKind::Documents.name()));
        let documents = dataset.newest()?;
        let (mut gone, mut empty) = (Vec::new(), Vec::new());
        for (shard, first) in documents.iter().flat_map(Snapshot::shards_with_first_rows) {
            let rows = list.rows(&dataset, shard, "id")?;
            empty.push(rows.len() as u64 == shard.rows);
            gone.extend(rows.into_iter().map(|row| first + row));
        }
        Ok(Self { list, documents, gone, empty })
    }

    /// The manifest of what stays of `newest`, its counts unchanged; `made` are the new versions of datasets before it.
    fn manifest(
        &self,
        dataset: &Dataset,
        newest: &Snapshot,
        made: &HashMap<(String, u64), Parent>,
    ) -> Result<(Manifest, Rewritten)> {
        let mut manifest = newest.manifest.clone();
        let kind = manifest.kind;
        let mut all = Rewritten::default();
        let is_of_documents = self.is_of_documents(&manifest);
        let mut shards = Vec::new();
        for (index, shard) in manifest.shards.iter().enumerate() {
            let rewritten = match kind {
                DatasetKind::Signatures | DatasetKind::Duplicates => {
                    self.renumber(dataset, shard, kind, is_of_documents)?
                }
                // There is one shard for each of `documents`, with or without rows.
                DatasetKind::Repeats => {
                    let column = id_column(kind).expect("its rows are of documents");
                    match self.list.rows(dataset, shard, column)?.is_empty() {
                        true => same(shard),
                        false => self.list.rewrite(dataset, shard, kind, Ok)?,
                    }
                }
                _ => self.list.take_from(dataset, shard, kind)?,
            };
            for (sum, part) in
                [(&mut all.taken, &rewritten.taken), (&mut all.verdicts, &rewritten.verdicts)]
            {
                for (reason, n) in part {
                    *sum.entry(reason.clone()).or_default() += n;
                }
            }
            let is_beside = matches!(kind, DatasetKind::Signatures | DatasetKind::Repeats);
            let is_gone = is_beside && is_of_documents && self.empty.get(index) == Some(&true);
            shards.extend(rewritten.shard.filter(|_| !is_gone));
        }
        if shards != manifest.shards && kind == DatasetKind::Tokens {
            number_tokens(&mut shards);
        }
        manifest.shards = shards;
        let was = identity(&newest.manifest);
        manifest.parents = match kind {
            DatasetKind::Documents | DatasetKind::Dropped | DatasetKind::Edits => {
                self.list.parents()
            }
            _ => {
                let renew = |parent: &Parent| {
                    made.get(&(parent.dataset.clone(), parent.version)).unwrap_or(parent).clone()
                };
                manifest.parents.iter().map(renew).collect()
            }
        };
        // A job that is run again knows the version as its own, unless another build of the program made it.
        if was.as_ref() == Some(&manifest.fingerprint)
            && let Some(identity) = identity(&manifest)
        {
            manifest.fingerprint = identity;
        }
        Ok((manifest, all))
    }

    fn is_of_documents(&self, manifest: &Manifest) -> bool {
        self.documents.as_ref().is_some_and(|documents| {
            manifest.parents.iter().any(|parent| {
                parent.dataset == DatasetKind::Documents.name()
                    && parent.manifest == documents.manifest_hash
            })
        })
    }

    /// Takes rows from a shard whose columns `row` and `kept_row` are positions in `documents`, and counts them anew.
    fn renumber(
        &self,
        dataset: &Dataset,
        shard: &Shard,
        kind: DatasetKind,
        is_of_documents: bool,
    ) -> Result<Rewritten> {
        let is_moved = is_of_documents && !self.gone.is_empty();
        if !is_moved && self.list.rows(dataset, shard, "id")?.is_empty() {
            return Ok(same(shard));
        }
        self.list.rewrite(dataset, shard, kind, |batch| match is_moved {
            true => self.renumbered(&batch),
            false => Ok(batch),
        })
    }

    fn renumbered(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = batch.columns().to_vec();
        let schema = batch.schema();
        let moved = |row: u64| row - self.gone.partition_point(|gone| *gone < row) as u64;
        let at = |name: &str| schema.index_of(name);
        let rows: Vec<u64> = numbers(&columns[at("row")?]).map(moved).collect();
        if let Ok(kept_row) = at("kept_row") {
            let kept = columns[at("kept_id")?].as_fixed_size_binary().clone();
            let new = numbers(&columns[kept_row]).zip(&rows).enumerate();
            // The document that it is a copy of has no row any more.
            let new = new.map(|(index, (row, own))| match self.is_listed(&kept, index) {
                true => *own,
                false => moved(row),
            });
            columns[kept_row] = Arc::new(UInt64Array::from_iter_values(new));
        }
        columns[at("row")?] = Arc::new(UInt64Array::from(rows));
        Ok(RecordBatch::try_new(schema, columns)?)
    }

    fn is_listed(&self, ids: &FixedSizeBinaryArray, row: usize) -> bool {
        ids.is_valid(row) && self.list.has(&crate::stage::tokens::id(ids.value(row)))
    }
}

fn numbers(column: &ArrayRef) -> impl Iterator<Item = u64> {
    column.as_primitive::<UInt64Type>().values().iter().copied()
}

fn same(shard: &Shard) -> Rewritten {
    Rewritten { shard: Some(shard.clone()), ..Rewritten::default() }
}

/// What a stage calls a version that it made of these inputs.
fn identity(manifest: &Manifest) -> Option<String> {
    let Manifest { config, parents, sources, .. } = manifest;
    let of = |stage: &str, parents: &[Parent]| fingerprint(stage, config, parents, &Value::Null);
    Some(match manifest.kind {
        DatasetKind::Documents | DatasetKind::Dropped | DatasetKind::Edits => {
            let listed = serde_json::to_value(sources).expect("names, sizes and hashes");
            fingerprint("documents", config, parents, &listed)
        }
        DatasetKind::Duplicates => of("duplicates", parents.get(..1)?),
        DatasetKind::Preferences => of("conversations", parents),
        kind => of(kind.name(), parents),
    })
}

/// Versions of datasets that have rows of `ids`, or were made of such a version, newest versions left out.
///
/// # Errors
/// When a manifest or shard cannot be read.
pub(super) fn old_versions(corpus: &Path, list: &Takedowns) -> Result<Vec<(String, u64)>> {
    let mut found: Vec<(String, u64)> = Vec::new();
    for kind in DatasetKind::ALL {
        let Some(column) = id_column(kind) else { continue };
        let dataset = Dataset::at(corpus.join(kind.name()));
        let mut versions = dataset.versions()?;
        versions.pop();
        let mut known: HashMap<String, bool> = HashMap::new();
        for version in versions {
            let snapshot = dataset.open(Some(version))?;
            let mut has_rows = false;
            for shard in &snapshot.manifest.shards {
                let has = match known.get(&shard.path) {
                    Some(has) => *has,
                    None => !list.rows(&dataset, shard, column)?.is_empty(),
                };
                known.insert(shard.path.clone(), has);
                has_rows |= has;
            }
            let is_orphan = snapshot
                .manifest
                .parents
                .iter()
                .any(|parent| found.contains(&(parent.dataset.clone(), parent.version)));
            if has_rows || is_orphan {
                found.push((kind.name().to_owned(), version));
            }
        }
    }
    Ok(found)
}

/// Removes versions and every file that no other version names; returns the files.
///
/// What is made of others goes first, so that a version always has its parents.
///
/// # Errors
/// When the file system refuses: what is left can be erased again.
pub(super) fn erase(corpus: &Path, versions: &[(String, u64)]) -> Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for (dataset, version) in versions.iter().rev() {
        let path = corpus.join(dataset).join("manifest").join(format!("{version:08}.json"));
        fs::remove_file(&path).map_err(shard::Error::io("remove", &path))?;
        store::sync_folder(path.parent().expect("manifests are in a folder"))?;
        removed.push(path);
    }
    for kind in DatasetKind::ALL.into_iter().filter(|kind| id_column(*kind).is_some()) {
        removed.extend(Dataset::at(corpus.join(kind.name())).clean()?);
    }
    Ok(removed)
}
