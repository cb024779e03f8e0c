//! From `documents` to `signatures` and `duplicates`.
//!
//! Two plans with a dataset between them: first everything that documents are compared by, per shard; then, over all
//! of them, groups of equal keys as star edges (an aggregate and a merge join, both of which spill; never a self-join).
//! Clusters are streamed into a union-find, and near-duplicates are verified on their texts before anything is removed.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, FixedSizeBinaryBuilder, Float64Builder,
    ListArray, StringViewBuilder, UInt64Builder,
};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, UInt64Type};
use arrow::record_batch::RecordBatch;
use datafusion::common::DFSchema;
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::prelude::{Expr, SessionContext, cast, col, lit};
use dedup::{MinHash, UnionFind, Verifier};
use futures::StreamExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection, RowSelector};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shard::Dataset;
use shard::dataset::Snapshot;
use shard::manifest::{Counts, Manifest, Shard};
use shard::schema::{DatasetKind, ID_BYTES};
use shard::writer::ShardWriter;

use super::unit::{Output, Staging};
use super::{Run, commit, fingerprint, finished, parent};
use crate::exec::shard_scan::{scan, schema_of};
use crate::exec::signature_sink::SignatureSink;
use crate::job::LoadedJob;
use crate::progress::Unit as Progress;
use crate::{Error, Result, catalog, session};

/// Share of the job's memory for the texts of the clusters that are verified at a time.
const VERIFY_SHARE: u64 = 8;
/// What a member of a cluster costs beside its text while the cluster is verified.
const MEMBER_BYTES: u64 = 128;
/// Documents that are compared in one run, at most: clusters count rows in 32 bits.
const DOCUMENTS_MAX: u64 = u32::MAX as u64;

/// The methods of a job, ready to run.
#[derive(Clone, Debug)]
pub struct Methods {
    names: Vec<String>,
    url: dedup::url::Config,
    exact: dedup::exact::Config,
    minhash: Arc<MinHash>,
}

/// A document that goes. This is what the stage holds in memory until it ends: 48 bytes for each.
#[derive(Clone, Copy, Debug)]
struct Gone {
    row: u64,
    kept_row: u64,
    cluster: u64,
    similarity: Option<f64>,
    method: usize,
}

/// The documents that go, by row.
#[derive(Debug, Default)]
struct Removals(Vec<Gone>);

impl Removals {
    /// Adds what a method found among the documents that earlier ones left.
    fn add(&mut self, found: impl IntoIterator<Item = Gone>) {
        self.0.extend(found);
        self.0.sort_unstable_by_key(|gone| gone.row);
    }

    fn get(&self, row: u64) -> Option<&Gone> {
        self.0.binary_search_by_key(&row, |gone| gone.row).ok().map(|index| &self.0[index])
    }

    /// One bit for each of `n_rows` documents.
    fn bits(&self, n_rows: u64) -> BooleanBuffer {
        let index = |row| usize::try_from(row).expect("below 2^32");
        let mut bits = BooleanBufferBuilder::new(index(n_rows));
        bits.append_n(index(n_rows), false);
        for gone in &self.0 {
            bits.set_bit(index(gone.row), true);
        }
        bits.finish()
    }

    /// Credits every removed document to one that stays: a copy of a copy is a copy of the first.
    ///
    /// Only documents that are equal or of equal URL are kept by one method and removed by a later one; their similarity to
    /// the last kept one is that of the document they equal.
    fn resolve_chains(&mut self) {
        for index in 0..self.0.len() {
            let mut last = self.0[index];
            while let Some(next) = self.get(last.kept_row) {
                let similarity = match (last.similarity, next.similarity) {
                    (Some(_), Some(next)) => Some(next),
                    _ => None,
                };
                last = Gone { kept_row: next.kept_row, similarity, ..last };
            }
            self.0[index] = last;
        }
    }

    /// Number of removed documents by method, those with none left out.
    fn counts<'a>(&self, names: &'a [String]) -> Vec<(&'a str, usize)> {
        let n = |method| self.0.iter().filter(|gone| gone.method == method).count();
        let counts = names.iter().enumerate().map(|(method, name)| (name.as_str(), n(method)));
        counts.filter(|(_, n)| *n > 0).collect()
    }
}

impl Methods {
    /// Reads the methods of a job; none when it has no `[dedup]`.
    ///
    /// # Errors
    /// When a method's settings cannot work.
    pub fn resolve(job: &LoadedJob) -> Result<Self> {
        let names = job.job.dedup.as_ref().map(|dedup| dedup.methods.clone()).unwrap_or_default();
        let minhash: dedup::minhash::Config = settings(job, "minhash")?;
        Ok(Self {
            names,
            url: settings(job, "url")?,
            exact: settings(job, "exact")?,
            minhash: Arc::new(MinHash::new(minhash)?),
        })
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|method| method == name)
    }

    fn config(&self) -> Value {
        json!({
            "methods": self.names,
            "url": self.has("url").then_some(&self.url),
            "exact": self.has("exact").then_some(&self.exact),
            "minhash": self.has("minhash").then_some(self.minhash.config()),
        })
    }

    /// The plan in words and SQL.
    #[must_use]
    pub fn show(&self) -> String {
        let mut text = format!("duplicates: methods {}\n", self.names.join(", "));
        for name in &self.names {
            text.push_str(&format!("  {name}: {}\n", edges_sql(name)));
        }
        if self.has("minhash") {
            let config = self.minhash.config();
            text.push_str(&format!("  {} bands of {} rows find", config.bands, config.rows));
            for similarity in [0.5, 0.6, 0.7, 0.75, 0.8, 0.9] {
                let percent = 100.0 * config.probability(similarity);
                text.push_str(&format!(" {similarity}: {percent:.1} %,"));
            }
            text.push_str(&format!(" verified at {}\n", config.verify));
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
        if let Some(newest) = finished(&dataset, &fingerprint)? {
            run.talk.say(format!("{:>12}  version {} is up to date", "duplicates", newest.version));
            return Ok(newest);
        }
        let n_rows = documents.manifest.n_rows();
        if n_rows > DOCUMENTS_MAX {
            let message =
                format!("{n_rows} documents, at most {DOCUMENTS_MAX} are compared in one run");
            let hint = "cut the sources into several jobs".to_owned();
            return Err(run.job.error("dedup", message, Some(hint)));
        }
        let signatures = self.signatures(run, documents).await?;
        let task = run.talk.task("duplicates", self.names.len() as u64, Progress::Count("methods"));
        let mut gone = Removals::default();
        for method in 0..self.names.len() {
            run.check_stop()?;
            self.find(run, documents, &signatures, method, &mut gone).await?;
            task.advance(1);
        }
        gone.resolve_chains();
        let shard = self.write(&dataset, documents, &gone)?;
        let mut manifest =
            Manifest::new(DatasetKind::Duplicates, &dataset_schema(), fingerprint, config);
        manifest.parents = parents.to_vec();
        manifest.parents.push(parent(&signatures));
        let n = gone.0.len() as u64;
        manifest.counts = Counts { n_in: n, n_kept: n, dropped: BTreeMap::new() };
        manifest.shards = shard.into_iter().collect();
        let snapshot = commit(&dataset, manifest)?;
        let counts = gone.counts(&self.names);
        let found: Vec<String> =
            counts.iter().map(|(method, n)| format!("{n} by {method}")).collect();
        task.finish(match found.is_empty() {
            true => "none found".to_owned(),
            false => found.join(", "),
        });
        Ok(snapshot)
    }

    /// What documents are compared by, one shard per shard of documents.
    async fn signatures(&self, run: &Run, documents: &Snapshot) -> Result<Snapshot> {
        let dataset = run.dataset(DatasetKind::Signatures);
        let config = self.config();
        let parents = [parent(documents)];
        let fingerprint = fingerprint("signatures", &config, &parents, &Value::Null);
        if let Some(newest) = finished(&dataset, &fingerprint)? {
            return Ok(newest);
        }
        let staging = Staging::new(&dataset, "signatures", &fingerprint);
        let task =
            run.talk.task("signatures", documents.manifest.n_rows(), Progress::Count("documents"));
        let ctx = session::session(&run.runtime, 1)?;
        let mut first_row = 0;
        let units: Vec<(String, (Shard, u64))> = documents
            .manifest
            .shards
            .iter()
            .map(|shard| {
                let unit = (shard.blake3.clone(), (shard.clone(), first_row));
                first_row += shard.rows;
                unit
            })
            .collect();
        let rows: Vec<u64> = units.iter().map(|(_, (shard, _))| shard.rows).collect();
        let work = |index: usize, (shard, first_row): (Shard, u64)| {
            let name = format!("unit-{index:06}");
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
        let mut manifest = Manifest::new(
            DatasetKind::Signatures,
            &DatasetKind::Signatures.schema(),
            fingerprint,
            config,
        );
        manifest.parents = parents.to_vec();
        manifest.shards = outputs.into_iter().map(|output: SignatureOutput| output.shard).collect();
        let n = manifest.n_rows();
        manifest.counts = Counts { n_in: n, n_kept: n, dropped: BTreeMap::new() };
        let snapshot = commit(&dataset, manifest)?;
        staging.remove()?;
        task.finish(format!("{n} documents"));
        Ok(snapshot)
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
        let scan = scan(documents, shard, &schema, &["id", "text", "url"], &[])?;
        let null = |data_type: &DataType| -> Result<Expr> {
            Ok(cast(lit(datafusion::common::ScalarValue::Null), data_type.clone()))
        };
        let target = DatasetKind::Signatures.schema();
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
        let columns = [
            (col("id"), "id"),
            (cast(bytes, DataType::UInt64), "text_bytes"),
            (content, "content"),
            (url, "url"),
            (signature, "signature"),
        ];
        let df_schema = DFSchema::try_from(scan.schema())?;
        let exprs = columns
            .into_iter()
            .map(|(expr, alias)| {
                let expr = ctx.create_physical_expr(expr, &df_schema)?;
                Ok(ProjectionExpr { expr, alias: alias.to_owned() })
            })
            .collect::<Result<Vec<_>>>()?;
        let projection = Arc::new(ProjectionExec::try_new(exprs, scan)?);
        let sink =
            Arc::new(SignatureSink::new(dataset.clone(), name, first_row, projection.schema()));
        let plan = DataSinkExec::new(projection, Arc::clone(&sink) as Arc<dyn DataSink>, None);
        Ok((Arc::new(plan), sink))
    }

    /// Adds to `gone` what one method finds among the documents that are left.
    async fn find(
        &self,
        run: &Run,
        documents: &Snapshot,
        signatures: &Snapshot,
        method: usize,
        gone: &mut Removals,
    ) -> Result<()> {
        let name = self.names[method].as_str();
        let ctx = session::session(&run.runtime, run.limits.threads)?;
        let table = catalog::table(
            &run.runtime,
            DatasetKind::Signatures,
            std::slice::from_ref(signatures),
        )?;
        ctx.register_table("signatures", table)?;
        ctx.register_udf(band_keys_udf(Arc::clone(&self.minhash)));
        let n_rows = documents.manifest.n_rows();
        ctx.register_udf(is_removed_udf(gone.bits(n_rows)));
        let mut edges = ctx.sql(edges_sql(name)).await?.execute_stream().await?;
        let mut clusters = UnionFind::new(n_rows);
        while let Some(batch) = edges.next().await {
            let batch = batch?;
            let column = |index: usize| batch.column(index).as_primitive::<UInt64Type>().clone();
            for (row, root) in column(0).values().iter().zip(column(1).values()) {
                clusters.union(*row, *root);
            }
        }
        if name != "minhash" {
            let similarity = (name == "exact").then_some(1.0);
            let members = clusters.into_members().filter(|(row, root)| row != root);
            gone.add(members.map(|(row, root)| Gone {
                row,
                kept_row: root,
                cluster: root,
                similarity,
                method,
            }));
            return Ok(());
        }
        let members: Vec<(u64, u64)> = clusters.into_members().collect();
        gone.add(self.verify(run, documents, signatures, &members, method).await?);
        Ok(())
    }

    /// Reads the texts of clusters and keeps, of each cluster, every document that resembles no kept one.
    ///
    /// Clusters are taken together as long as their texts fit into the job's share; texts are read in file order.
    async fn verify(
        &self,
        run: &Run,
        documents: &Snapshot,
        signatures: &Snapshot,
        members: &[(u64, u64)],
        method: usize,
    ) -> Result<Vec<Gone>> {
        let limit = run.limits.memory / VERIFY_SHARE;
        let sizes = text_bytes(signatures, members)?;
        let size = |row: u64| {
            let at = sizes.binary_search_by_key(&row, |(row, _)| *row);
            sizes[at.expect("every member was looked up")].1
        };
        let mut found = Vec::new();
        let mut pass: Vec<(u64, u64)> = Vec::new();
        let mut pass_bytes = 0;
        let mut clusters = members.chunk_by(|a, b| a.1 == b.1).peekable();
        while let Some(cluster) = clusters.next() {
            run.check_stop()?;
            pass_bytes += cluster.iter().map(|(row, _)| size(*row) + MEMBER_BYTES).sum::<u64>();
            pass.extend(cluster);
            if pass_bytes >= limit || clusters.peek().is_none() {
                let (documents, mut roots) = (documents.clone(), std::mem::take(&mut pass));
                roots.sort_unstable();
                let minhash = Arc::clone(&self.minhash);
                let verified = tokio::task::spawn_blocking(move || {
                    verify_pass(&minhash, &documents, &roots, method)
                });
                found.extend(verified.await.expect("verification does not panic")?);
                pass_bytes = 0;
            }
        }
        Ok(found)
    }

    fn write(
        &self,
        dataset: &Dataset,
        documents: &Snapshot,
        gone: &Removals,
    ) -> Result<Option<Shard>> {
        if gone.0.is_empty() {
            return Ok(None);
        }
        let rows = sorted(gone.0.iter().flat_map(|gone| [gone.row, gone.kept_row]));
        let mut ids = FixedSizeBinaryBuilder::with_capacity(rows.len(), ID_BYTES);
        let mut read = Ok(());
        read_rows(documents, "id", &rows, |_, column, index| {
            let appended = ids.append_value(column.as_fixed_size_binary().value(index));
            read = std::mem::replace(&mut read, Ok(())).and(appended);
        })?;
        read?;
        let ids = ids.finish();
        let id = |row: u64| ids.value(rows.binary_search(&row).expect("it was asked for"));
        let mut writer =
            ShardWriter::create(dataset, "duplicates-000000", "train", &dataset_schema())?;
        let mut batch = DuplicateBatch::default();
        for gone in &gone.0 {
            batch.push(id(gone.row), id(gone.kept_row), gone, &self.names[gone.method])?;
            if batch.n == 1024 {
                writer.write(&batch.finish()?)?;
            }
        }
        writer.write(&batch.finish()?)?;
        Ok(Some(writer.finish()?))
    }
}

fn dataset_schema() -> arrow::datatypes::SchemaRef {
    DatasetKind::Duplicates.schema()
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

/// Star edges: each member of a group of equal keys, and the first row of the group.
fn edges_sql(method: &str) -> &'static str {
    match method {
        "url" => {
            "select s.row, g.root from (select row, url from signatures where not is_removed(row)) s \
             join (select url, min(row) as root from signatures where url is not null and not is_removed(row) \
                   group by url having count(*) > 1) g on s.url = g.url where s.row <> g.root"
        }
        "exact" => {
            "select s.row, g.root from (select row, content from signatures where not is_removed(row)) s \
             join (select content, min(row) as root from signatures where content is not null and not is_removed(row) \
                   group by content having count(*) > 1) g on s.content = g.content where s.row <> g.root"
        }
        "minhash" => {
            "with bands as (select row, unnest(band_keys(signature)) as key from signatures where not is_removed(row)) \
             select b.row, g.root from bands b \
             join (select key, min(row) as root from bands group by key having count(*) > 1) g on b.key = g.key \
             where b.row <> g.root"
        }
        other => unreachable!("`{other}` is registered but not planned"),
    }
}

fn verify_pass(
    minhash: &MinHash,
    documents: &Snapshot,
    roots: &[(u64, u64)],
    method: usize,
) -> Result<Vec<Gone>> {
    let rows: Vec<u64> = roots.iter().map(|(row, _)| *row).collect();
    let mut roots = roots.iter();
    let mut verifiers: HashMap<u64, Verifier> = HashMap::new();
    let mut found = Vec::new();
    read_rows(documents, "text", &rows, |row, column, index| {
        let (_, root) = *roots.next().expect("one for each row");
        let shingles = minhash.shingle_hashes(column.as_string::<i32>().value(index));
        let verifier =
            verifiers.entry(root).or_insert_with(|| Verifier::new(minhash.config().verify));
        if let Some(removed) = verifier.push(row, &shingles) {
            let similarity = Some(removed.similarity);
            found.push(Gone { row, kept_row: removed.kept_row, cluster: root, similarity, method });
        }
    })?;
    Ok(found)
}

/// Rows, and bytes of text, of each of `members`, by row.
fn text_bytes(signatures: &Snapshot, members: &[(u64, u64)]) -> Result<Vec<(u64, u64)>> {
    let rows = sorted(members.iter().map(|(row, _)| *row));
    let mut sizes = Vec::with_capacity(rows.len());
    read_rows(signatures, "text_bytes", &rows, |row, column, index| {
        sizes.push((row, column.as_primitive::<UInt64Type>().value(index)));
    })?;
    Ok(sizes)
}

/// Rows in order, each once.
fn sorted(rows: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut rows: Vec<u64> = rows.collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// Reads one column of the given rows of a dataset, which are sorted; other pages are skipped.
fn read_rows(
    snapshot: &Snapshot,
    column: &str,
    rows: &[u64],
    mut visit: impl FnMut(u64, &ArrayRef, usize),
) -> Result<()> {
    let mut first = 0;
    for shard in &snapshot.manifest.shards {
        let end = first + shard.rows;
        let wanted = &rows[rows.partition_point(|row| *row < first)..];
        let wanted = &wanted[..wanted.partition_point(|row| *row < end)];
        if !wanted.is_empty() {
            let path = snapshot.shard_path(shard);
            let error = |error: parquet::errors::ParquetError| {
                Error::from(shard::Error::arrow("read", &path)(error))
            };
            let file = std::fs::File::open(&path).map_err(shard::Error::io("open", &path))?;
            let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(error)?;
            let mask = ProjectionMask::columns(builder.parquet_schema(), [column]);
            let reader = builder
                .with_projection(mask)
                .with_row_selection(selection(wanted, first, shard.rows))
                .with_batch_size(1024)
                .build()
                .map_err(error)?;
            let mut next = wanted.iter();
            for batch in reader {
                let batch = batch.map_err(shard::Error::arrow("read", &path))?;
                for index in 0..batch.num_rows() {
                    let row = next.next().expect("no more rows than were asked for");
                    visit(*row, batch.column(0), index);
                }
            }
        }
        first = end;
    }
    Ok(())
}

fn selection(wanted: &[u64], first: u64, n_rows: u64) -> RowSelection {
    let count = |rows: u64| usize::try_from(rows).expect("a shard's rows fit into memory");
    let mut selectors = Vec::new();
    let mut next = first;
    for &row in wanted {
        if row > next {
            selectors.push(RowSelector::skip(count(row - next)));
        }
        selectors.push(RowSelector::select(1));
        next = row + 1;
    }
    if next < first + n_rows {
        selectors.push(RowSelector::skip(count(first + n_rows - next)));
    }
    RowSelection::from(selectors)
}

#[derive(Debug)]
struct DuplicateBatch {
    id: FixedSizeBinaryBuilder,
    kept_id: FixedSizeBinaryBuilder,
    cluster: UInt64Builder,
    similarity: Float64Builder,
    method: StringViewBuilder,
    n: usize,
}

impl Default for DuplicateBatch {
    fn default() -> Self {
        Self {
            id: FixedSizeBinaryBuilder::new(ID_BYTES),
            kept_id: FixedSizeBinaryBuilder::new(ID_BYTES),
            cluster: UInt64Builder::new(),
            similarity: Float64Builder::new(),
            method: StringViewBuilder::new(),
            n: 0,
        }
    }
}

impl DuplicateBatch {
    fn push(&mut self, id: &[u8], kept_id: &[u8], gone: &Gone, method: &str) -> Result<()> {
        self.id.append_value(id)?;
        self.kept_id.append_value(kept_id)?;
        self.cluster.append_value(gone.cluster);
        self.similarity.append_option(gone.similarity);
        self.method.append_value(method);
        self.n += 1;
        Ok(())
    }

    fn finish(&mut self) -> Result<RecordBatch> {
        self.n = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.id.finish()),
            Arc::new(self.kept_id.finish()),
            Arc::new(self.cluster.finish()),
            Arc::new(self.similarity.finish()),
            Arc::new(self.method.finish()),
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

fn band_keys_udf(minhash: Arc<MinHash>) -> ScalarUDF {
    let fun = move |args: &[ColumnarValue]| {
        let signatures = ColumnarValue::values_to_arrays(args)?;
        let signatures: &ListArray = signatures[0].as_list();
        let keys = minhash.band_keys(signatures).map_err(Error::from)?;
        Ok(ColumnarValue::Array(Arc::new(keys)))
    };
    create_udf("band_keys", vec![hash_list()], hash_list(), Volatility::Immutable, Arc::new(fun))
}

fn is_removed_udf(removed: BooleanBuffer) -> ScalarUDF {
    let fun = move |args: &[ColumnarValue]| {
        let rows = ColumnarValue::values_to_arrays(args)?;
        let rows = rows[0].as_primitive::<UInt64Type>();
        let is_removed = |row: &u64| removed.value(usize::try_from(*row).expect("below 2^32"));
        let found: BooleanArray = rows.values().iter().map(is_removed).map(Some).collect();
        Ok(ColumnarValue::Array(Arc::new(found)))
    };
    let (input, output) = (vec![DataType::UInt64], DataType::Boolean);
    create_udf("is_removed", input, output, Volatility::Immutable, Arc::new(fun))
}
