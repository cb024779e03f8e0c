//! From `documents` to `signatures` and `duplicates`.
//!
//! Two plans with a dataset between them: first everything that documents are compared by, per shard; then, over all
//! of them, groups of equal keys, joined into clusters partition by partition ([`Buckets`]; never a self-join).
//! Near-duplicates are verified on their texts before anything is removed.
//!
//! Clusters know documents by their **rank**: their position in the order of preference, of which the first one of a
//! cluster stays. Without `priority` it is the row in `documents`.
//!
//! When `documents` has grown at its end, the signatures of its old shards are taken over, and so is what was found in
//! clusters that no new document has joined: only texts of clusters with a new member are read.

mod semantic;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::{
    ArrayRef, AsArray, BooleanBufferBuilder, FixedSizeBinaryBuilder, Float64Builder,
    StringViewBuilder, UInt64Builder,
};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef, UInt64Type};
use arrow::record_batch::RecordBatch;
use datafusion::common::DFSchema;
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, SortExpr, Volatility, create_udf};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::prelude::{Expr, SessionContext, cast, col, lit};
use dedup::buckets::{Key, Scatter};
use dedup::minhash::Profile;
use dedup::sets::GROUPS_MAX;
use dedup::{Buckets, ClusterSets, MinHash, UnionFind};
use futures::StreamExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection, RowSelector};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shard::Dataset;
use shard::dataset::Snapshot;
use shard::manifest::{Counts, Manifest, Shard};
use shard::schema::{DatasetKind, ID_BYTES};
use shard::store;
use shard::writer::ShardWriter;
use xxhash_rust::xxh3::xxh3_128;

use super::takedowns::is_taken_from;
use super::tokens::{Id, read_columns};
use super::unit::{Output, Staging};
use super::{Run, commit, fingerprint, finished, for_each, parent};
use crate::exec::shard_scan::{scan, schema_of};
use crate::exec::signature_sink::SignatureSink;
use crate::job::LoadedJob;
use crate::progress::Unit as Progress;
use crate::{Error, Result, benchmark, catalog, session};

/// Share of the job's memory for the tables of keys, and for the shingle sets of the clusters that are verified at a time.
const SHARE: u64 = 8;
/// What the shingles of a text take for each of its bytes, about: 8 bytes for a word of 6.
const SET_BYTES_PER_BYTE: f64 = 1.4;
/// What the ids of a removed and a kept document take in a table by row, about.
const IDS_BYTES: u64 = 128;
/// Documents that are compared in one run, at most: clusters count rows in 32 bits.
const DOCUMENTS_MAX: u64 = u32::MAX as u64;
/// The columns that hold the values of `priority`: this and a number from 0.
const PRIORITY: &str = "priority_";

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

/// A document that goes. This is what the stage holds in memory until it ends: 32 bytes for each.
#[derive(Clone, Copy, Debug)]
struct Gone {
    rank: u32,
    kept_rank: u32,
    cluster: u32,
    method: u8,
    similarity: Option<f64>,
}

/// The documents that go, by rank.
#[derive(Debug, Default)]
struct Removals(Vec<Gone>);

impl Removals {
    /// Adds what a method found among the documents that earlier ones left.
    fn add(&mut self, found: impl IntoIterator<Item = Gone>) {
        self.0.extend(found);
        self.0.sort_unstable_by_key(|gone| gone.rank);
    }

    fn get(&self, rank: u32) -> Option<&Gone> {
        self.0.binary_search_by_key(&rank, |gone| gone.rank).ok().map(|index| &self.0[index])
    }

    /// One bit for each of `n_rows` documents, by rank.
    fn bits(&self, n_rows: u64) -> BooleanBuffer {
        let n_rows = index(n_rows);
        let mut bits = BooleanBufferBuilder::new(n_rows);
        bits.append_n(n_rows, false);
        for gone in &self.0 {
            bits.set_bit(gone.rank as usize, true);
        }
        bits.finish()
    }

    /// Credits every removed document to one that stays: a copy of a copy is a copy of the first.
    ///
    /// Only documents that are equal or of equal URL are kept by one method and removed by a later one; their similarity to
    /// the last kept one is that of the document they equal.
    ///
    /// `other` is a method whose similarity is another measure: what went for a document that it removes has none.
    fn resolve_chains(&mut self, other: Option<u8>) {
        for index in 0..self.0.len() {
            let mut last = self.0[index];
            while let Some(next) = self.get(last.kept_rank) {
                let similarity = match (last.similarity, next.similarity) {
                    (Some(_), Some(similarity)) if Some(next.method) != other => Some(similarity),
                    _ => None,
                };
                last = Gone { kept_rank: next.kept_rank, similarity, ..last };
            }
            self.0[index] = last;
        }
    }

    /// Number of removed documents by method, those with none left out.
    fn counts<'a>(&self, names: &'a [String]) -> Vec<(&'a str, usize)> {
        let n = |method| self.0.iter().filter(|gone| usize::from(gone.method) == method).count();
        let counts = names.iter().enumerate().map(|(method, name)| (name.as_str(), n(method)));
        counts.filter(|(_, n)| *n > 0).collect()
    }
}

/// The order of preference.
#[derive(Debug)]
enum Order {
    /// By row.
    Rows,
    /// By `priority`: the rank of each row, and the row of each rank.
    Ranks { rank_of: Vec<u32>, row_of: Vec<u32> },
}

impl Order {
    fn rank(&self, row: u32) -> u32 {
        match self {
            Self::Rows => row,
            Self::Ranks { rank_of, .. } => rank_of[row as usize],
        }
    }

    fn row(&self, rank: u32) -> u32 {
        match self {
            Self::Rows => rank,
            Self::Ranks { row_of, .. } => row_of[rank as usize],
        }
    }
}

/// What the stage works on.
struct Work<'a> {
    run: &'a Run,
    documents: Snapshot,
    signatures: Snapshot,
    order: Order,
    /// What an earlier run found among the first documents.
    earlier: Option<Earlier>,
    /// For files of this run alone.
    folder: PathBuf,
    /// How many documents had an embedding, once they are read.
    embeddings: OnceLock<Value>,
}

/// What an earlier version says of near-duplicates among the documents that come first here.
#[derive(Debug)]
struct Earlier {
    n_rows: u32,
    /// By cluster.
    gone: Vec<Gone>,
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
        text
    }

    /// Runs the stage, or finds it done, and returns `duplicates`.
    ///
    /// # Errors
    /// When a shard cannot be read or the engine fails.
    pub async fn execute(&self, run: &Run, documents: &Snapshot) -> Result<Snapshot> {
        let dataset = run.dataset(DatasetKind::Duplicates);
        let config = self.config();
        let parents = [parent(documents)];
        let fingerprint = fingerprint("duplicates", &config, &parents, &Value::Null);
        let newest = dataset.newest()?;
        if let Some(newest) = &newest
            && newest.manifest.fingerprint == fingerprint
        {
            run.talk.say(format!("{:>12}  version {} is up to date", "duplicates", newest.version));
            return Ok(newest.clone());
        }
        let n_rows = documents.manifest.n_rows();
        if n_rows > DOCUMENTS_MAX {
            let message =
                format!("{n_rows} documents, at most {DOCUMENTS_MAX} are compared in one run");
            let hint = "cut the sources into several jobs".to_owned();
            return Err(run.job.error("dedup", message, Some(hint)));
        }
        let signatures = self.signatures(run, documents).await?;
        let staging = Staging::new(&dataset, "duplicates", &fingerprint);
        // What a killed run left there is made again.
        staging.remove()?;
        store::create_folder(staging.folder())?;
        let work = Work {
            run,
            documents: documents.clone(),
            order: self.order(run, &signatures).await?,
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
        Ok(snapshot)
    }

    /// What documents are compared by, one shard per shard of documents; those of an earlier version where it has them.
    async fn signatures(&self, run: &Run, documents: &Snapshot) -> Result<Snapshot> {
        let dataset = run.dataset(DatasetKind::Signatures);
        let config = self.config();
        let parents = [parent(documents)];
        let fingerprint = fingerprint("signatures", &config, &parents, &Value::Null);
        if let Some(newest) = finished(&dataset, &fingerprint)? {
            return Ok(newest);
        }
        let mut shards = self.earlier_signatures(&dataset, documents, &config)?;
        let n_earlier = shards.len();
        let staging = Staging::new(&dataset, "signatures", &fingerprint);
        let n_new = documents.manifest.shards[n_earlier..].iter().map(|shard| shard.rows).sum();
        let task = run.talk.task("signatures", n_new, Progress::Count("documents"));
        let ctx = session::session(&run.runtime, 1)?;
        let mut first_row = shards.iter().map(|shard| shard.rows).sum::<u64>();
        let units: Vec<(String, (Shard, u64))> = documents.manifest.shards[n_earlier..]
            .iter()
            .map(|shard| {
                let unit = (shard.blake3.clone(), (shard.clone(), first_row));
                first_row += shard.rows;
                unit
            })
            .collect();
        let rows: Vec<u64> = units.iter().map(|(_, (shard, _))| shard.rows).collect();
        let work = |index: usize, (shard, first_row): (Shard, u64)| {
            let name = format!("unit-{:06}", n_earlier + index);
            let plan = self.signature_plan(&ctx, documents, &dataset, &shard, first_row, name);
            let context = ctx.task_ctx();
            let dataset = dataset.path().display().to_string();
            async move {
                let (plan, sink) = plan?;
                datafusion::physical_plan::collect(plan, context).await?;
                let written = sink.take().expect("the plan ended well");
                assert_eq!(written.rows, shard.rows, "signatures and documents differ in rows");
                Ok(SignatureOutput { dataset, shard: written })
            }
        };
        let outputs = staging.run(run, units, work, |index, _| task.advance(rows[index])).await?;
        shards.extend(outputs.into_iter().map(|output: SignatureOutput| output.shard));
        let schema = self.signature_schema(&ctx, &schema_of(&documents.manifest))?;
        let mut manifest = Manifest::new(DatasetKind::Signatures, &schema, fingerprint, config);
        manifest.parents = parents.to_vec();
        manifest.shards = shards;
        let n = manifest.n_rows();
        manifest.counts = Counts { n_in: n, n_kept: n, dropped: BTreeMap::new() };
        let snapshot = commit(&dataset, manifest)?;
        staging.remove()?;
        let taken_over = match n_earlier {
            0 => String::new(),
            n => format!(", {n} shards taken over"),
        };
        task.finish(format!("{n} documents{taken_over}"));
        Ok(snapshot)
    }

    /// The shards of the newest signatures that belong to the first shards of `documents`.
    fn earlier_signatures(
        &self,
        dataset: &Dataset,
        documents: &Snapshot,
        config: &Value,
    ) -> Result<Vec<Shard>> {
        let Some(newest) = dataset.newest()?.filter(|newest| newest.manifest.config == *config)
        else {
            return Ok(Vec::new());
        };
        let Some(then) = documents_of(&newest, documents)? else { return Ok(Vec::new()) };
        let n = n_same(&then, documents);
        Ok(newest.manifest.shards[..n].to_vec())
    }

    /// What the newest duplicates say of near-duplicates among the first documents, where that still holds.
    ///
    /// By row, an earlier document is never removed for a later one, so what a method found among the first documents
    /// is what it finds there today, and a cluster that no new document has joined is the same cluster. Documents that a
    /// later method removed have been credited anew, so the near-duplicates must have been the last ones.
    fn earlier(&self, documents: &Snapshot, newest: Option<Snapshot>) -> Result<Option<Earlier>> {
        let Some(newest) = newest.filter(|newest| newest.manifest.config == self.config()) else {
            return Ok(None);
        };
        let is_last = self.names.last().is_some_and(|name| name == "minhash");
        let Some(then) = documents_of(&newest, documents)? else { return Ok(None) };
        let is_prefix = n_same(&then, documents) == then.manifest.shards.len();
        // A takedown leaves clusters without the document that was kept.
        let is_whole = !is_taken_from(&then.manifest);
        if !is_last || !is_prefix || !is_whole || !self.priority.is_empty() {
            return Ok(None);
        }
        let method = u8::try_from(self.names.len() - 1).expect("few methods");
        let n_rows = u32::try_from(then.manifest.n_rows()).expect("below 2^32");
        let rank = |column: &ArrayRef, row: usize| {
            let row = column.as_primitive::<UInt64Type>().value(row);
            u32::try_from(row).expect("rows are below 2^32")
        };
        let columns = ["row", "kept_row", "cluster_id", "similarity", "method"];
        let mut gone = Vec::new();
        for shard in &newest.manifest.shards {
            read_columns(&newest, shard, &columns, |batch| {
                // In the order of the schema.
                let [cluster, similarity, methods, rows, kept] =
                    ["cluster_id", "similarity", "method", "row", "kept_row"]
                        .map(|name| batch.column_by_name(name).expect("it was asked for"));
                let similarities = similarity.as_primitive::<Float64Type>();
                for index in 0..batch.num_rows() {
                    if methods.as_string::<i32>().value(index) == "minhash" {
                        gone.push(Gone {
                            rank: rank(rows, index),
                            kept_rank: rank(kept, index),
                            cluster: rank(cluster, index),
                            method,
                            similarity: Some(similarities.value(index)),
                        });
                    }
                }
                Ok(())
            })?;
        }
        gone.sort_unstable_by_key(|gone| (gone.cluster, gone.rank));
        Ok(Some(Earlier { n_rows, gone }))
    }

    /// The columns of `signatures` in this job: those that all have, then the values of `priority`.
    fn signature_schema(&self, ctx: &SessionContext, documents: &SchemaRef) -> Result<SchemaRef> {
        let mut fields = DatasetKind::Signatures.schema().fields().to_vec();
        for (index, sql) in self.priority.iter().enumerate() {
            let expr = parse_priority(ctx, documents, sql)?.expr;
            let expr =
                ctx.create_physical_expr(expr, &DFSchema::try_from(Arc::clone(documents))?)?;
            let data_type = expr.data_type(documents)?;
            fields.push(Arc::new(Field::new(format!("{PRIORITY}{index}"), data_type, true)));
        }
        Ok(Arc::new(Schema::new(fields)))
    }

    fn signature_plan(
        &self,
        ctx: &SessionContext,
        documents: &Snapshot,
        dataset: &Dataset,
        shard: &Shard,
        first_row: u64,
        name: String,
    ) -> Result<(Arc<dyn ExecutionPlan>, Arc<SignatureSink>)> {
        let schema = schema_of(&documents.manifest);
        let priority = self
            .priority
            .iter()
            .map(|sql| Ok(parse_priority(ctx, &schema, sql)?.expr))
            .collect::<Result<Vec<Expr>>>()?;
        let read = priority.iter().flat_map(|expr| expr.column_refs()).map(|column| &column.name);
        let mut columns: Vec<&str> = ["id", "text", "url"].into_iter().collect();
        for column in read {
            if !columns.contains(&column.as_str()) {
                columns.push(column);
            }
        }
        let scan = scan(documents, shard, &schema, &columns, &[])?;
        let null = |data_type: &DataType| -> Result<Expr> {
            Ok(cast(lit(datafusion::common::ScalarValue::Null), data_type.clone()))
        };
        let target = self.signature_schema(ctx, &schema)?;
        let type_of = |name: &str| target.field_with_name(name).map(|f| f.data_type().clone());
        let content = match self.has("exact") {
            true => content_udf(self.exact).call(vec![col("text")]),
            false => null(&type_of("content")?)?,
        };
        let url = match self.has("url") {
            true => url_udf(self.url).call(vec![col("url")]),
            false => null(&type_of("url")?)?,
        };
        let signature = match self.has("minhash") {
            true => signature_udf(Arc::clone(&self.minhash)).call(vec![col("text")]),
            false => null(&type_of("signature")?)?,
        };
        let bytes = datafusion::functions::string::octet_length().call(vec![col("text")]);
        let mut columns = vec![
            (col("id"), "id".to_owned()),
            (cast(bytes, DataType::UInt64), "text_bytes".to_owned()),
            (content, "content".to_owned()),
            (url, "url".to_owned()),
            (signature, "signature".to_owned()),
        ];
        for (index, expr) in priority.into_iter().enumerate() {
            columns.push((expr, format!("{PRIORITY}{index}")));
        }
        let df_schema = DFSchema::try_from(scan.schema())?;
        let exprs = columns
            .into_iter()
            .map(|(expr, alias)| {
                let expr = ctx.create_physical_expr(expr, &df_schema)?;
                Ok(ProjectionExpr { expr, alias })
            })
            .collect::<Result<Vec<_>>>()?;
        let projection = Arc::new(ProjectionExec::try_new(exprs, scan)?);
        let sink =
            SignatureSink::new(dataset.clone(), name, first_row, target, projection.schema());
        let sink = Arc::new(sink);
        let plan = DataSinkExec::new(projection, Arc::clone(&sink) as Arc<dyn DataSink>, None);
        Ok((Arc::new(plan), sink))
    }

    /// The order of preference: by the values of `priority`, ties by id.
    async fn order(&self, run: &Run, signatures: &Snapshot) -> Result<Order> {
        if self.priority.is_empty() {
            return Ok(Order::Rows);
        }
        let ctx = session::session(&run.runtime, run.limits.threads)?;
        let one = std::slice::from_ref(signatures);
        ctx.register_table(
            "signatures",
            catalog::table(&run.runtime, DatasetKind::Signatures, one)?,
        )?;
        let keys = self.priority.iter().enumerate().map(|(index, sql)| {
            let (_, is_ascending) = split_priority(sql);
            col(format!("{PRIORITY}{index}")).sort(is_ascending, false)
        });
        let keys: Vec<SortExpr> = keys.chain([col("id").sort(true, false)]).collect();
        let sorted = ctx.table("signatures").await?.sort(keys)?.select_columns(&["row"])?;
        let mut rows = sorted.execute_stream().await?;
        let n_rows = index(signatures.manifest.n_rows());
        let mut row_of = Vec::with_capacity(n_rows);
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let rows = batch.column(0).as_primitive::<UInt64Type>().values();
            row_of.extend(rows.iter().map(|row| u32::try_from(*row).expect("below 2^32")));
        }
        let mut rank_of = vec![0; n_rows];
        for (rank, row) in (0..).zip(&row_of) {
            rank_of[*row as usize] = rank;
        }
        Ok(Order::Ranks { rank_of, row_of })
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

    /// Keeps, of each cluster, every document that resembles no kept one.
    ///
    /// `members` are (rank, root), cluster by cluster. Texts are read once, in file order; their shingle sets go to disk by
    /// groups of clusters that fit into the job's share, which are then verified side by side.
    fn verify(&self, work: &Work<'_>, members: &[(u32, u32)], method: u8) -> Result<Vec<Gone>> {
        let mut found = Vec::new();
        let open: Vec<&[(u32, u32)]> = members
            .chunk_by(|a, b| a.1 == b.1)
            .filter(|cluster| !work.take_over(cluster, &mut found))
            .collect();
        let members = open.iter().flat_map(|cluster| cluster.iter());
        let rows = sorted(members.map(|(rank, _)| work.order.row(*rank)));
        let sizes = work.text_bytes(&rows)?;
        let limit = work.run.limits.memory / SHARE / work.run.limits.threads.max(1) as u64;
        let mut clusters = open.into_iter().peekable();
        while clusters.peek().is_some() {
            // A round: as many groups as files may be open.
            let mut round = Vec::new();
            let (mut group, mut bytes) = (0, 0);
            while group < GROUPS_MAX
                && let Some(cluster) = clusters.next()
            {
                for &(rank, root) in cluster {
                    let row = work.order.row(rank);
                    let index = rows.binary_search(&row).expect("rows of all members");
                    bytes += set_bytes(sizes[index]);
                    round.push(Candidate { row, rank, root, group });
                }
                if bytes >= limit {
                    (group, bytes) = (group + 1, 0);
                }
            }
            round.sort_unstable_by_key(|candidate| candidate.row);
            found.extend(self.verify_round(work, &round, method)?);
        }
        Ok(found)
    }

    fn verify_round(&self, work: &Work<'_>, round: &[Candidate], method: u8) -> Result<Vec<Gone>> {
        let n_groups = round.iter().map(|candidate| candidate.group + 1).max().unwrap_or_default();
        let sets = ClusterSets::create(&work.folder, n_groups)?;
        let shards = work.documents.shards_with_first_rows();
        for_each(work.run, shards.len(), |index| {
            let (shard, first) = &shards[index];
            let wanted = &round[round.partition_point(|c| u64::from(c.row) < *first)..];
            let end = first + shard.rows;
            let wanted = &wanted[..wanted.partition_point(|c| u64::from(c.row) < end)];
            let rows: Vec<u64> = wanted.iter().map(|c| u64::from(c.row) - first).collect();
            let mut candidates = wanted.iter();
            read_rows(&work.documents, shard, "text", &rows, |column, index| {
                let candidate = candidates.next().expect("one for each row");
                let text = column.as_string::<i32>().value(index);
                let shingles = self.minhash.shingle_hashes(text);
                Ok(sets.push(candidate.group, candidate.root, candidate.rank, &shingles)?)
            })
        })?;
        let found = Mutex::new(Vec::new());
        for_each(work.run, n_groups, |group| {
            let mut own = Vec::new();
            sets.verify(group, self.minhash.config().verify, |root, removed| {
                let rank = |row: u64| u32::try_from(row).expect("a rank of 32 bits was given");
                own.push(Gone {
                    rank: rank(removed.row),
                    kept_rank: rank(removed.kept_row),
                    cluster: root,
                    method,
                    similarity: Some(removed.similarity),
                });
            })?;
            found.lock().unwrap_or_else(PoisonError::into_inner).extend(own);
            Ok(())
        })?;
        Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, dataset: &Dataset, work: &Work<'_>, gone: &Removals) -> Result<Option<Shard>> {
        if gone.0.is_empty() {
            return Ok(None);
        }
        let row = |rank: u32| work.order.row(rank);
        let n = index(work.run.limits.memory / SHARE / IDS_BYTES).max(1024);
        let mut writer =
            ShardWriter::create(dataset, "duplicates-000000", "train", &dataset_schema())?;
        let mut batch = DuplicateBatch::default();
        for part in gone.0.chunks(n) {
            let ids =
                work.ids(part.iter().flat_map(|gone| [row(gone.rank), row(gone.kept_rank)]))?;
            for gone in part {
                batch.push(&ids, [row(gone.rank), row(gone.kept_rank)], gone, &self.names)?;
                if batch.n == 1024 {
                    writer.write(&batch.finish()?)?;
                }
            }
        }
        writer.write(&batch.finish()?)?;
        Ok(Some(writer.finish()?))
    }
}

/// A member of a cluster whose text is to be compared.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    row: u32,
    rank: u32,
    root: u32,
    group: usize,
}

impl Work<'_> {
    fn n_rows(&self) -> u64 {
        self.documents.manifest.n_rows()
    }

    /// Joins the documents that have a key in common, and returns the members of clusters: (rank, root), sorted by (root, rank).
    ///
    /// `keys` calls its second argument with every row of a batch of the column `column`, and each of its keys, of which
    /// there are `n_keys` at most.
    fn clusters<K: Key>(
        &self,
        removed: &BooleanBuffer,
        n_keys: u64,
        keys: impl Fn(&RecordBatch, &mut dyn FnMut(usize, K) -> Result<()>) -> Result<()> + Sync,
        column: &str,
    ) -> Result<Vec<(u32, u32)>> {
        let threads = self.run.limits.threads.max(1) as u64;
        let memory = self.run.limits.memory / SHARE / threads;
        let n_left = self.n_rows() - removed.count_set_bits() as u64;
        let buckets = Buckets::<K>::create(&self.folder, n_left * n_keys, memory)?;
        let shards = self.signatures.shards_with_first_rows();
        for_each(self.run, shards.len(), |index| {
            let (shard, mut first) = shards[index];
            let mut scatter: Scatter<'_, K> = buckets.scatter();
            read_columns(&self.signatures, shard, &[column], |batch| {
                let mut add = |row: usize, key: K| {
                    let row = u32::try_from(first + row as u64).expect("rows are below 2^32");
                    let rank = self.order.rank(row);
                    match removed.value(rank as usize) {
                        true => Ok(()),
                        false => Ok(scatter.push(key, rank)?),
                    }
                };
                keys(batch, &mut add)?;
                first += batch.num_rows() as u64;
                Ok(())
            })?;
            Ok(scatter.finish()?)
        })?;
        let clusters = UnionFind::new(self.n_rows());
        for_each(self.run, buckets.n_partitions(), |index| Ok(buckets.join(index, &clusters)?))?;
        let narrow = |row: u64| u32::try_from(row).expect("rows are below 2^32");
        Ok(clusters.into_members().map(|(row, root)| (narrow(row), narrow(root))).collect())
    }

    /// Takes what an earlier run found in a cluster of earlier documents alone; false for any other cluster.
    fn take_over(&self, cluster: &[(u32, u32)], found: &mut Vec<Gone>) -> bool {
        let Some(earlier) = &self.earlier else { return false };
        let (last, root) = *cluster.last().expect("a cluster has members");
        if last >= earlier.n_rows {
            return false;
        }
        let gone = &earlier.gone[earlier.gone.partition_point(|gone| gone.cluster < root)..];
        found.extend(&gone[..gone.partition_point(|gone| gone.cluster == root)]);
        true
    }

    /// Bytes of text of the given rows, which are sorted.
    fn text_bytes(&self, rows: &[u32]) -> Result<Vec<u64>> {
        let mut sizes = Vec::with_capacity(rows.len());
        self.visit(&self.signatures, "text_bytes", rows, |_, column, index| {
            sizes.push(column.as_primitive::<UInt64Type>().value(index));
            Ok(())
        })?;
        Ok(sizes)
    }

    /// Ids by row.
    fn ids(&self, rows: impl Iterator<Item = u32>) -> Result<HashMap<u32, Id>> {
        let rows = sorted(rows);
        let mut ids = HashMap::with_capacity(rows.len());
        self.visit(&self.documents, "id", &rows, |row, column, index| {
            let id = column.as_fixed_size_binary().value(index);
            ids.insert(row, id.try_into().expect("ids have 16 bytes"));
            Ok(())
        })?;
        Ok(ids)
    }

    /// Visits one column of the given rows, which are sorted.
    fn visit(
        &self,
        snapshot: &Snapshot,
        column: &str,
        rows: &[u32],
        mut visit: impl FnMut(u32, &ArrayRef, usize) -> Result<()>,
    ) -> Result<()> {
        for (shard, first) in snapshot.shards_with_first_rows() {
            let wanted = &rows[rows.partition_point(|row| u64::from(*row) < first)..];
            let end = first + shard.rows;
            let wanted = &wanted[..wanted.partition_point(|row| u64::from(*row) < end)];
            let in_shard: Vec<u64> = wanted.iter().map(|row| u64::from(*row) - first).collect();
            let mut rows = wanted.iter();
            read_rows(snapshot, shard, column, &in_shard, |column, index| {
                visit(*rows.next().expect("one for each row"), column, index)
            })?;
        }
        Ok(())
    }
}

/// The version of `documents` that `made` was made from, while it is there.
fn documents_of(made: &Snapshot, documents: &Snapshot) -> Result<Option<Snapshot>> {
    let name = DatasetKind::Documents.name();
    let Some(parent) = made.manifest.parents.iter().find(|parent| parent.dataset == name) else {
        return Ok(None);
    };
    let dataset = Dataset::at(&documents.path);
    if !dataset.versions()?.contains(&parent.version) {
        return Ok(None);
    }
    let then = dataset.open(Some(parent.version))?;
    Ok((then.manifest_hash == parent.manifest).then_some(then))
}

/// How many shards two versions begin with in common.
fn n_same(a: &Snapshot, b: &Snapshot) -> usize {
    let pairs = a.manifest.shards.iter().zip(&b.manifest.shards);
    pairs.take_while(|(a, b)| a.blake3 == b.blake3 && a.rows == b.rows).count()
}

/// The column of `signatures` in which a method looks for equal values.
fn key(method: &str) -> &'static str {
    match method {
        "url" => "`url`",
        "exact" => "`content`",
        _ => "bands of `signature`",
    }
}

/// An expression of `priority` without its direction, and whether it is ascending.
fn split_priority(sql: &str) -> (&str, bool) {
    let sql = sql.trim();
    match sql.rsplit_once(char::is_whitespace) {
        Some((expr, word)) if word.eq_ignore_ascii_case("desc") => (expr, false),
        Some((expr, word)) if word.eq_ignore_ascii_case("asc") => (expr, true),
        _ => (sql, true),
    }
}

fn parse_priority(ctx: &SessionContext, documents: &SchemaRef, sql: &str) -> Result<SortExpr> {
    let schema = DFSchema::try_from(Arc::clone(documents))?;
    let (expr, is_ascending) = split_priority(sql);
    let expr = ctx.parse_sql_expr(expr, &schema)?;
    // Types and arguments are checked here.
    ctx.create_physical_expr(expr.clone(), &schema)?;
    Ok(expr.sort(is_ascending, false))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an estimate"
)]
fn set_bytes(text_bytes: u64) -> u64 {
    (text_bytes as f64 * SET_BYTES_PER_BYTE) as u64
}

fn index(rows: u64) -> usize {
    usize::try_from(rows).expect("below 2^32")
}

fn dataset_schema() -> SchemaRef {
    DatasetKind::Duplicates.schema()
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

/// Rows in order, each once.
fn sorted(rows: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut rows: Vec<u32> = rows.collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// Reads one column of the given rows of a shard, which are sorted; other pages are skipped.
fn read_rows(
    snapshot: &Snapshot,
    shard: &Shard,
    column: &str,
    rows: &[u64],
    mut visit: impl FnMut(&ArrayRef, usize) -> Result<()>,
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let path = snapshot.shard_path(shard);
    let error = |error: parquet::errors::ParquetError| {
        Error::from(shard::Error::arrow("read", &path)(error))
    };
    let file = std::fs::File::open(&path).map_err(shard::Error::io("open", &path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(error)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), [column]);
    let reader = builder
        .with_projection(mask)
        .with_row_selection(selection(rows, shard.rows))
        .with_batch_size(1024)
        .build()
        .map_err(error)?;
    for batch in reader {
        let batch = batch.map_err(shard::Error::arrow("read", &path))?;
        (0..batch.num_rows()).try_for_each(|index| visit(batch.column(0), index))?;
    }
    Ok(())
}

fn selection(wanted: &[u64], n_rows: u64) -> RowSelection {
    let mut selectors = Vec::new();
    let mut next = 0;
    for run in wanted.chunk_by(|a, b| a + 1 == *b) {
        if run[0] > next {
            selectors.push(RowSelector::skip(index(run[0] - next)));
        }
        selectors.push(RowSelector::select(run.len()));
        next = run[0] + run.len() as u64;
    }
    if next < n_rows {
        selectors.push(RowSelector::skip(index(n_rows - next)));
    }
    RowSelection::from(selectors)
}

#[derive(Debug)]
struct DuplicateBatch {
    ids: [FixedSizeBinaryBuilder; 2],
    cluster: UInt64Builder,
    similarity: Float64Builder,
    method: StringViewBuilder,
    rows: [UInt64Builder; 2],
    n: usize,
}

impl Default for DuplicateBatch {
    fn default() -> Self {
        Self {
            ids: [(); 2].map(|()| FixedSizeBinaryBuilder::new(ID_BYTES)),
            cluster: UInt64Builder::new(),
            similarity: Float64Builder::new(),
            method: StringViewBuilder::new(),
            rows: [(); 2].map(|()| UInt64Builder::new()),
            n: 0,
        }
    }
}

impl DuplicateBatch {
    /// `rows` are those of the removed document and of the kept one.
    fn push(
        &mut self,
        ids: &HashMap<u32, Id>,
        rows: [u32; 2],
        gone: &Gone,
        names: &[String],
    ) -> Result<()> {
        for (index, row) in rows.into_iter().enumerate() {
            self.ids[index].append_value(ids[&row])?;
            self.rows[index].append_value(u64::from(row));
        }
        self.cluster.append_value(u64::from(gone.cluster));
        self.similarity.append_option(gone.similarity);
        self.method.append_value(&names[usize::from(gone.method)]);
        self.n += 1;
        Ok(())
    }

    fn finish(&mut self) -> Result<RecordBatch> {
        self.n = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.ids[0].finish()),
            Arc::new(self.ids[1].finish()),
            Arc::new(self.cluster.finish()),
            Arc::new(self.similarity.finish()),
            Arc::new(self.method.finish()),
            Arc::new(self.rows[0].finish()),
            Arc::new(self.rows[1].finish()),
        ];
        Ok(RecordBatch::try_new(dataset_schema(), columns)?)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct SignatureOutput {
    dataset: String,
    shard: Shard,
}

impl Output for SignatureOutput {
    fn files(&self) -> Vec<(PathBuf, u64)> {
        vec![(Path::new(&self.dataset).join(&self.shard.path), self.shard.bytes)]
    }
}

fn content_udf(config: dedup::exact::Config) -> ScalarUDF {
    let fun = move |args: &[ColumnarValue]| {
        let text = ColumnarValue::values_to_arrays(args)?;
        let hashes = dedup::exact::hashes(text[0].as_string_view(), &config);
        Ok(ColumnarValue::Array(Arc::new(hashes)))
    };
    let output = DataType::FixedSizeBinary(ID_BYTES);
    create_udf(
        "content_hash",
        vec![DataType::Utf8View],
        output,
        Volatility::Immutable,
        Arc::new(fun),
    )
}

fn url_udf(config: dedup::url::Config) -> ScalarUDF {
    let fun = move |args: &[ColumnarValue]| {
        let urls = ColumnarValue::values_to_arrays(args)?;
        let keys = dedup::url::keys(urls[0].as_string_view(), &config);
        Ok(ColumnarValue::Array(Arc::new(keys)))
    };
    let (input, output) = (vec![DataType::Utf8View], DataType::Utf8View);
    create_udf("url_key", input, output, Volatility::Immutable, Arc::new(fun))
}

fn hash_list() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::UInt64, false)))
}

fn signature_udf(minhash: Arc<MinHash>) -> ScalarUDF {
    let fun = move |args: &[ColumnarValue]| {
        let text = ColumnarValue::values_to_arrays(args)?;
        let signatures = minhash.signatures(text[0].as_string_view());
        Ok(ColumnarValue::Array(Arc::new(signatures)))
    };
    let input = vec![DataType::Utf8View];
    create_udf("signature", input, hash_list(), Volatility::Immutable, Arc::new(fun))
}
