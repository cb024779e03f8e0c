//! From `documents` to `signatures` and `duplicates`.
//!
//! Two plans with a dataset between them: first everything that documents are compared by, per shard; then, over all
//! of them, groups of equal keys, joined into clusters partition by partition ([`dedup::Buckets`]; never a self-join).
//! Near-duplicates are verified on their texts before anything is removed.
//!
//! Clusters know documents by their **rank**: their position in the order of preference, of which the first one of a
//! cluster stays. Without `priority` it is the row in `documents`.
//!
//! When `documents` has grown at its end, the signatures of its old shards are taken over, and so is what was found in
//! clusters that no new document has joined: only texts of clusters with a new member are read.

mod earlier;
mod order;
mod removals;
mod rows;
mod semantic;
pub(crate) mod signatures;
mod table;
mod verification;
mod work;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow::array::AsArray;
use arrow::datatypes::{SchemaRef, UInt64Type};
use datafusion::prelude::SessionContext;
use dedup::MinHash;
use dedup::buckets::Key;
use dedup::minhash::Profile;
use serde_json::{Value, json};
use shard::dataset::Snapshot;
use shard::manifest::{Counts, Manifest};
use shard::schema::DatasetKind;
use shard::store;
use xxhash_rust::xxh3::xxh3_128;

use self::order::{Order, parse_priority};
use self::removals::{Gone, Removals};
use self::table::dataset_schema;
use self::work::Work;
use super::unit::Staging;
use super::{Run, commit, fingerprint, parent};
use crate::job::LoadedJob;
use crate::progress::Unit as Progress;
use crate::{Result, benchmark};

/// Share of the job's memory for the tables of keys, and for the shingle sets of the clusters that are verified at a time.
const SHARE: u64 = 8;
/// Documents that are compared in one run, at most: clusters count rows in 32 bits.
const DOCUMENTS_MAX: u64 = u32::MAX as u64;

/// The methods of a job, ready to run.
#[derive(Clone, Debug)]
pub struct Methods {
    names: Vec<String>,
    priority: Vec<String>,
    url: dedup::url::Config,
    exact: dedup::exact::Config,
    minhash: Arc<MinHash>,
    semantic: dedup::semantic::Config,
}

impl Methods {
    /// Reads the methods of a job that makes documents of the columns `documents`; none when it has no `[dedup]`.
    ///
    /// # Errors
    /// When a method's settings cannot work, or `priority` is no expression over those columns.
    pub fn resolve(job: &LoadedJob, ctx: &SessionContext, documents: &SchemaRef) -> Result<Self> {
        let dedup = job.job.dedup.as_ref();
        let mut names = dedup.map(|dedup| dedup.methods.clone()).unwrap_or_default();
        names.retain(|name| dedup::kind(name).is_some_and(dedup::MethodKind::finds_documents));
        let priority = dedup.and_then(|dedup| dedup.priority.as_ref());
        let priority = priority.map(|sql| sql.as_slice().to_vec()).unwrap_or_default();
        for sql in &priority {
            parse_priority(ctx, documents, sql)
                .map_err(|error| job.error("dedup.priority", error.to_string(), None))?;
        }
        semantic::check_order(job, &names)?;
        let minhash: dedup::minhash::Config = settings(job, "minhash")?;
        Ok(Self {
            names,
            priority,
            url: settings(job, "url")?,
            exact: settings(job, "exact")?,
            minhash: Arc::new(hash_functions(minhash)?),
            semantic: settings(job, "semantic")?,
        })
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|method| method == name)
    }

    fn config(&self) -> Value {
        let mut config = json!({
            "methods": self.names,
            "priority": self.priority,
            "url": self.has("url").then_some(&self.url),
            "exact": self.has("exact").then_some(&self.exact),
            "minhash": self.has("minhash").then_some(self.minhash.config()),
        });
        if self.has("semantic") {
            config["semantic"] = json!(self.semantic);
        }
        config
    }

    /// What the user should know of the settings.
    fn warnings(&self) -> Vec<String> {
        let minhash = self.has("minhash").then(|| self.minhash.config().warning());
        minhash.flatten().into_iter().collect()
    }

    /// The plan in words.
    #[must_use]
    pub fn show(&self) -> String {
        let mut text = format!("duplicates: methods {}\n", self.names.join(", "));
        let order = match self.priority.is_empty() {
            true => "in the order of the sources".to_owned(),
            false => format!("by {}, then id", self.priority.join(", ")),
        };
        text.push_str(&format!("  of each cluster the first document stays, {order}\n"));
        for name in self.names.iter().filter(|name| *name != "semantic") {
            text.push_str(&format!("  {name}: rows of `signatures` with equal {}\n", key(name)));
        }
        if self.has("minhash") {
            let config = self.minhash.config();
            text.push_str(&format!(
                "  {} bands of {} rows find {}, verified at {}\n",
                config.bands,
                config.rows,
                config.curve(),
                config.verify
            ));
        }
        if self.has("semantic") {
            text.push_str(&semantic::show(&self.semantic));
        }
        for warning in self.warnings() {
            text.push_str(&format!("  warning: {warning}\n"));
        }
        text
    }

    /// Runs the stage, or finds it done, and returns `duplicates`, with what the user should know of how they were looked for.
    ///
    /// # Errors
    /// When a shard cannot be read or the engine fails.
    pub async fn execute(
        &self,
        run: &Run,
        documents: &Snapshot,
    ) -> Result<(Snapshot, Vec<String>)> {
        let dataset = run.dataset(DatasetKind::Duplicates);
        let config = self.config();
        let parents = [parent(documents)];
        let fingerprint = fingerprint("duplicates", &config, &parents, &Value::Null);
        let newest = dataset.newest()?;
        if let Some(newest) = &newest
            && newest.manifest.fingerprint == fingerprint
        {
            run.talk.say(format!("{:>12}  version {} is up to date", "duplicates", newest.version));
            return Ok((newest.clone(), self.warnings()));
        }
        let n_rows = documents.manifest.n_rows();
        if n_rows > DOCUMENTS_MAX {
            let message =
                format!("{n_rows} documents, at most {DOCUMENTS_MAX} are compared in one run");
            let hint = "cut the sources into several jobs".to_owned();
            return Err(run.job.error("dedup", message, Some(hint)));
        }
        let (signatures, of_texts) = self.signatures(run, documents).await?;
        let staging = Staging::new(&dataset, "duplicates", &fingerprint);
        // What a killed run left there is made again.
        staging.remove()?;
        store::create_folder(staging.folder())?;
        let work = Work {
            run,
            documents: documents.clone(),
            order: Order::read(&self.priority, run, &signatures).await?,
            earlier: self.earlier(documents, newest)?,
            signatures,
            folder: staging.folder().clone(),
            embeddings: OnceLock::new(),
        };
        let task = run.talk.task("duplicates", self.names.len() as u64, Progress::Count("methods"));
        let mut gone = Removals::default();
        for method in 0..self.names.len() {
            run.check_stop()?;
            tokio::task::block_in_place(|| self.find(&work, method, &mut gone))?;
            task.advance(1);
        }
        let other = self.names.iter().position(|name| name == "semantic");
        gone.resolve_chains(other.map(|method| u8::try_from(method).expect("few methods")));
        let shard = self.write(&dataset, &work, &gone)?;
        let mut manifest =
            Manifest::new(DatasetKind::Duplicates, &dataset_schema(), fingerprint, config);
        if let Some(counts) = work.embeddings.get() {
            manifest.config["embeddings"] = counts.clone();
        }
        manifest.parents = parents.to_vec();
        manifest.parents.push(parent(&work.signatures));
        let n = gone.0.len() as u64;
        manifest.counts = Counts { n_in: n, n_kept: n, dropped: BTreeMap::new() };
        manifest.shards = shard.into_iter().collect();
        let snapshot = commit(&dataset, manifest)?;
        staging.remove()?;
        let counts = gone.counts(&self.names);
        let found: Vec<String> =
            counts.iter().map(|(method, n)| format!("{n} by {method}")).collect();
        task.finish(match found.is_empty() {
            true => "none found".to_owned(),
            false => found.join(", "),
        });
        Ok((snapshot, [self.warnings(), of_texts].concat()))
    }

    /// Adds to `gone` what one method finds among the documents that are left.
    fn find(&self, work: &Work<'_>, method: usize, gone: &mut Removals) -> Result<()> {
        let name = self.names[method].as_str();
        let number = u8::try_from(method).expect("few methods");
        let removed = gone.bits(work.n_rows());
        let members = match name {
            "url" => work.clusters(
                &removed,
                1,
                |signatures, add| {
                    let urls = signatures.column(0).as_string::<i32>();
                    urls.iter().enumerate().try_for_each(|(row, url)| match url {
                        Some(url) => add(row, xxh3_128(url.as_bytes())),
                        None => Ok(()),
                    })
                },
                "url",
            )?,
            "exact" => work.clusters(
                &removed,
                1,
                |signatures, add| {
                    let hashes = signatures.column(0).as_fixed_size_binary();
                    hashes.iter().enumerate().try_for_each(|(row, hash)| match hash {
                        Some(hash) => add(row, u128::read(hash)),
                        None => Ok(()),
                    })
                },
                "content",
            )?,
            "minhash" => {
                let bands = self.minhash.config().bands as u64;
                let members = work.clusters(
                    &removed,
                    bands,
                    |signatures, add| {
                        let keys = self.minhash.band_keys(signatures.column(0).as_list())?;
                        keys.iter().enumerate().try_for_each(|(row, keys)| {
                            let Some(keys) = keys else { return Ok(()) };
                            let keys = keys.as_primitive::<UInt64Type>().values();
                            keys.iter().try_for_each(|key| add(row, *key))
                        })
                    },
                    "signature",
                )?;
                gone.add(self.verify(work, &members, number)?);
                return Ok(());
            }
            "semantic" => {
                gone.add(semantic::find(work, &self.semantic, &removed, number)?);
                return Ok(());
            }
            other => unreachable!("`{other}` is registered but not planned"),
        };
        let similarity = (name == "exact").then_some(1.0);
        let members = members.into_iter().filter(|(rank, root)| rank != root);
        gone.add(members.map(|(rank, root)| Gone {
            rank,
            kept_rank: root,
            cluster: root,
            method: number,
            similarity,
        }));
        Ok(())
    }
}

/// The column of `signatures` in which a method looks for equal values.
fn key(method: &str) -> &'static str {
    match method {
        "url" => "`url`",
        "exact" => "`content`",
        _ => "bands of `signature`",
    }
}

/// The hash functions of a configuration; datatrove's are over spaCy's English words.
pub(crate) fn hash_functions(config: dedup::minhash::Config) -> dedup::Result<MinHash> {
    match config.profile {
        Profile::Datatrove => MinHash::with_words(config, benchmark::english_words()),
        Profile::Gristmill | Profile::Nemo | Profile::TextDedup => MinHash::new(config),
    }
}

fn settings<C: Default + serde::de::DeserializeOwned>(job: &LoadedJob, method: &str) -> Result<C> {
    match job.method_config(method)? {
        None => Ok(C::default()),
        Some(table) => {
            let place = format!("{} dedup.{method}", job.path.display());
            Ok(shard::config::from_table(table, &place)?)
        }
    }
}
