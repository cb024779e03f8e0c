//! The tables of a corpus: every dataset by name and version, the list of them, and files of any source.
//!
//! | table | rows |
//! |---|---|
//! | `documents`, `dropped`, `edits`, `signatures`, `duplicates`, `contamination`, `tokens` | the newest version; none before there is one |
//! | `documents@3` | version 3 |
//! | `takedowns` | documents that were taken down, with the reason |
//! | `metrics` | all training runs together |
//! | `runs` | all training runs: what they were trained on, and how far |
//! | `checkpoints` | of all training runs: those that are there, and those that gave way to newer ones |
//! | `manifests` | every version of every dataset |
//! | `warc('raw/*.warc.gz')`, … | the records of files, as `documents` with the column `reject` |
//! | `crawl_log('raw')` | what came of every URL of the crawl into a folder |
//! | `trained_on`, `seen_by`, `held_by`, `origin` | [from steps to documents and back](crate::lineage) |

pub(crate) mod comment;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::catalog::{
    MemTable, MemorySchemaProvider, TableFunctionArgs, TableFunctionImpl, TableProvider,
};
use datafusion::common::{Result as EngineResult, ScalarValue, TableReference, plan_err};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{
    ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl,
};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::Expr;
use datafusion::prelude::SessionContext;
use ingest::source::SourceKind;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::errors::ParquetError;
use parquet::file::metadata::{FooterTail, ParquetMetaDataReader};
use shard::dataset::Snapshot;
use shard::schema::DatasetKind;
use shard::{Dataset, store};

use crate::exec::source_scan::SourceTable;
use crate::function::parse_settings;
use crate::session::{Files, Limits, runtime, session};
use crate::stage::takedowns::{TAKEDOWNS, Takedowns};
use crate::{Result, lineage};

/// The catalog that sessions are made with.
const DEFAULT_CATALOG: &str = "datafusion";
/// The folder of a corpus, or beside it, that holds training runs.
const RUNS: &str = "runs";
/// Bytes at the end of a Parquet file that say how long its footer is.
const FOOTER_TAIL_BYTES: u64 = 8;
/// The table of the checkpoints of all runs.
const CHECKPOINTS: &str = "checkpoints";
/// The function that gives the log of a crawl.
const CRAWL_LOG: &str = "crawl_log";

/// Returns a session whose tables are those of `corpus`.
///
/// # Errors
/// As [`register`].
pub async fn open(corpus: &Path, limits: Limits) -> Result<SessionContext> {
    let ctx = session(&runtime(limits)?, limits.threads)?;
    register(&ctx, corpus).await?;
    Ok(ctx)
}

/// Makes every dataset of `corpus` a table of `ctx`, see the module's table.
///
/// What is registered is what is committed now: a later version is seen by registering again.
///
/// # Errors
/// When a manifest or the first shard of a version cannot be read.
pub async fn register(ctx: &SessionContext, corpus: &Path) -> Result<()> {
    register_as(ctx, corpus, None).await
}

/// As [`register`]; the tables are in `schema`, which is made when it is not there, or in the default one.
///
/// # Errors
/// As [`register`].
pub async fn register_as(ctx: &SessionContext, corpus: &Path, schema: Option<&str>) -> Result<()> {
    if let Some(schema) = schema {
        let catalog = ctx.catalog(DEFAULT_CATALOG).expect("sessions have their default catalog");
        if catalog.schema(schema).is_none() {
            catalog.register_schema(schema, Arc::new(MemorySchemaProvider::new()))?;
        }
    }
    let corpus = match store::is_object(corpus) {
        true => corpus.to_owned(),
        false => std::path::absolute(corpus).map_err(shard::Error::io("find", corpus))?,
    };
    let mut listed = Vec::new();
    let replace = |name: String, table: Arc<dyn TableProvider>| -> Result<()> {
        let name = match schema {
            None => TableReference::bare(name),
            Some(schema) => TableReference::partial(schema, name),
        };
        ctx.deregister_table(name.clone())?;
        ctx.register_table(name, table)?;
        Ok(())
    };
    for kind in DatasetKind::ALL.into_iter().filter(|&kind| kind != DatasetKind::Metrics) {
        let dataset = Dataset::at(corpus.join(kind.name()));
        let mut newest: Arc<dyn TableProvider> = Arc::new(EmptyTable::new(kind.schema()));
        for version in dataset.versions()? {
            let snapshot = dataset.open(Some(version))?;
            newest = table(&ctx.runtime_env(), kind, std::slice::from_ref(&snapshot))?;
            replace(format!("{kind}@{version}"), Arc::clone(&newest))?;
            listed.push((kind.name().to_owned(), snapshot));
        }
        replace(kind.name().to_owned(), newest)?;
    }
    let takedowns: Vec<Snapshot> = Takedowns::dataset(&corpus).newest()?.into_iter().collect();
    let list = table(&ctx.runtime_env(), DatasetKind::Dropped, &takedowns)?;
    replace(TAKEDOWNS.to_owned(), list)?;
    let metrics = metrics(&corpus)?;
    let newest: Vec<Snapshot> = metrics.iter().map(|(_, snapshot)| snapshot.clone()).collect();
    replace(
        DatasetKind::Metrics.name().to_owned(),
        table(&ctx.runtime_env(), DatasetKind::Metrics, &newest)?,
    )?;
    listed.extend(metrics);
    replace("manifests".to_owned(), manifests(&listed)?)?;
    let folders = run_folders(&corpus)?;
    for (name, rows) in [RUNS, CHECKPOINTS].into_iter().zip(lineage::tables(&folders)?) {
        let rows = MemTable::try_new(rows.schema(), vec![vec![rows]])?;
        replace(name.to_owned(), Arc::new(rows))?;
    }
    // Functions have no schema: their names are relative to the first corpus.
    if schema.is_some() {
        return Ok(());
    }
    if Files::of(ctx) == Files::Any {
        for kind in ingest::source::KINDS {
            ctx.register_udtf(kind.name, Arc::new(SourceFunction { kind }));
        }
        ctx.register_udtf(CRAWL_LOG, Arc::new(CrawlLogFunction));
    }
    lineage::register(ctx, &corpus);
    Ok(())
}

/// Returns the versions of every dataset of `corpus`: what a session of it was made of, and is not any more when they differ.
///
/// # Errors
/// When a folder cannot be listed.
pub fn versions(corpus: &Path) -> Result<Vec<(PathBuf, Vec<u64>)>> {
    let kinds = DatasetKind::ALL.into_iter().map(|kind| corpus.join(kind.name()));
    let mut found = Vec::new();
    let runs = run_folders(corpus)?;
    let metrics = runs.into_iter().map(|(_, path)| path.join(DatasetKind::Metrics.name()));
    let takedowns = std::iter::once(corpus.join(TAKEDOWNS));
    for path in kinds.chain(takedowns).chain(metrics.filter(|path| path.is_dir())) {
        let versions = Dataset::at(&path).versions()?;
        found.push((path, versions));
    }
    Ok(found)
}

/// Returns a table of exactly the shards that the manifests of `snapshots` name.
///
/// Its columns are those of the first shard's footer, text as [`DataType::Utf8View`]; without a shard, those of `kind`. Shards in
/// a store are read from there, by the ranges that a question needs.
///
/// # Errors
/// When the first shard cannot be read.
pub(crate) fn table(
    runtime: &RuntimeEnv,
    kind: DatasetKind,
    snapshots: &[Snapshot],
) -> Result<Arc<dyn TableProvider>> {
    let shards: Vec<(PathBuf, u64)> = snapshots
        .iter()
        .flat_map(|snapshot| {
            let shards = snapshot.manifest.shards.iter();
            shards.map(|shard| (snapshot.shard_path(shard), shard.bytes))
        })
        .collect();
    let Some((first, bytes)) = shards.first() else {
        return Ok(Arc::new(EmptyTable::new(kind.schema())));
    };
    let schema = footer_schema(first, *bytes)?;
    let urls = shards
        .iter()
        .map(|(path, _)| match store::is_object(path) {
            true => object_url(runtime, path),
            false => file_url(path),
        })
        .collect::<Result<Vec<_>>>()?;
    // Shards never change, so what their footers say is read once per process.
    let statistics = runtime.cache_manager.get_file_statistic_cache();
    Ok(Arc::new(parquet_files(urls, schema)?.with_cache(statistics)))
}

/// A table of whole Parquet files.
fn parquet_files(urls: Vec<ListingTableUrl>, schema: SchemaRef) -> Result<ListingTable> {
    let options = ListingOptions::new(Arc::new(ParquetFormat::default()));
    let config = ListingTableConfig::new_with_multi_paths(urls)
        .with_listing_options(options.with_file_extension(".parquet"))
        .with_schema(schema);
    Ok(ListingTable::try_new(config)?)
}

/// The name of a local file in scans.
fn file_url(path: &Path) -> Result<ListingTableUrl> {
    // Object stores know no `..`.
    let path = path.canonicalize().map_err(shard::Error::io("find", path))?;
    let url = url::Url::from_file_path(&path).expect("the path is absolute");
    Ok(ListingTableUrl::try_new(url, None)?)
}

/// The name of an object in scans; the engine learns how its store is reached.
fn object_url(runtime: &RuntimeEnv, path: &Path) -> Result<ListingTableUrl> {
    let (root, client, key) = store::client(path)?;
    let refuse = |error: url::ParseError| shard::Error::Missing {
        what: format!("the store `{root}`: {error}"),
        hint: "write it as `s3://bucket`".to_owned(),
    };
    let mut url = url::Url::parse(&root).map_err(refuse)?;
    runtime.register_object_store(&url, client);
    // Keys may have characters that addresses have another meaning for.
    let parts = key.parts().map(|part| part.as_ref().to_owned());
    url.path_segments_mut().expect("it has a host").clear().extend(parts);
    Ok(ListingTableUrl::try_new(url, None)?)
}

/// The columns of a shard of `bytes` bytes as queries see them.
fn footer_schema(path: &Path, bytes: u64) -> Result<SchemaRef> {
    let footer = match store::is_object(path) {
        true => object_footer(path, bytes)?,
        false => {
            let file = File::open(path).map_err(shard::Error::io("open", path))?;
            ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())
                .map_err(shard::Error::arrow("read", path))?
        }
    };
    Ok(with_views(footer.schema()))
}

/// The columns of a file as queries see them, text as views.
fn with_views(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Utf8 => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View)),
        _ => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Reads the footer of a shard in a store: its length, then itself.
fn object_footer(path: &Path, bytes: u64) -> Result<ArrowReaderMetadata> {
    let error = |error: ParquetError| shard::Error::arrow("read", path)(error);
    let end = store::read_range(path, bytes.saturating_sub(FOOTER_TAIL_BYTES)..bytes)?;
    let tail: [u8; 8] = end.try_into().map_err(|_| error(ParquetError::EOF("no footer".into())))?;
    let length = FooterTail::try_new(&tail).map_err(error)?.metadata_length() as u64;
    let end = bytes - FOOTER_TAIL_BYTES;
    let footer = store::read_range(path, end.saturating_sub(length)..end)?;
    let footer = ParquetMetaDataReader::decode_metadata(&footer).map_err(error)?;
    Ok(ArrowReaderMetadata::try_new(Arc::new(footer), ArrowReaderOptions::new()).map_err(error)?)
}

/// The newest metrics of every run in or beside the corpus, by the run's name.
fn metrics(corpus: &Path) -> Result<Vec<(String, Snapshot)>> {
    let mut found = Vec::new();
    for (run, folder) in run_folders(corpus)? {
        let dataset = Dataset::at(folder.join(DatasetKind::Metrics.name()));
        // A file beside the runs has no versions either; its listing fails with another error.
        if dataset.path().is_dir() && !dataset.versions()?.is_empty() {
            let name = format!("{RUNS}/{run}/{}", DatasetKind::Metrics);
            found.push((name, dataset.open(None)?));
        }
    }
    Ok(found)
}

/// The name and folder of every run in or beside the corpus.
pub(crate) fn run_folders(corpus: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for folder in [Some(corpus), corpus.parent()].into_iter().flatten() {
        let folder = folder.join(RUNS);
        for run in store::list(&folder)? {
            let path = folder.join(&run);
            found.push((run, path));
        }
    }
    Ok(found)
}

/// One row per version of a dataset.
fn manifests(listed: &[(String, Snapshot)]) -> Result<Arc<dyn TableProvider>> {
    let text = |value: &dyn Fn(&(String, Snapshot)) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(listed.iter().map(value)))
    };
    let count = |value: &dyn Fn(&Snapshot) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(listed.iter().map(|(_, snapshot)| value(snapshot))))
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("dataset", text(&|(name, _)| name.clone())),
        ("version", count(&|snapshot| snapshot.version)),
        ("kind", text(&|(_, snapshot)| snapshot.manifest.kind.to_string())),
        ("rows", count(&|snapshot| snapshot.manifest.n_rows())),
        ("bytes", count(&|snapshot| snapshot.manifest.shards.iter().map(|s| s.bytes).sum())),
        ("shards", count(&|snapshot| snapshot.manifest.shards.len() as u64)),
        ("n_in", count(&|snapshot| snapshot.manifest.counts.n_in)),
        ("n_kept", count(&|snapshot| snapshot.manifest.counts.n_kept)),
        ("fingerprint", text(&|(_, snapshot)| snapshot.manifest.fingerprint.clone())),
        ("manifest_hash", text(&|(_, snapshot)| snapshot.manifest_hash.clone())),
    ];
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type().clone(), false))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))
}

/// `warc('raw/*.warc.gz')`: files as a table, named as in a job but relative to the working directory.
#[derive(Debug)]
struct SourceFunction {
    kind: &'static SourceKind,
}

impl TableFunctionImpl for SourceFunction {
    fn call_with_args(
        &self,
        arguments: TableFunctionArgs<'_, '_>,
    ) -> EngineResult<Arc<dyn TableProvider>> {
        let kind = self.kind;
        let (pattern, settings) = match arguments.exprs() {
            [pattern] => (text_literal(pattern), Some("")),
            [pattern, settings] => (text_literal(pattern), text_literal(settings)),
            _ => (None, None),
        };
        let (Some(pattern), Some(settings)) = (pattern, settings) else {
            return plan_err!(
                "`{0}` takes files as a text literal, and settings as another: `{0}('folder', 'key = 1')`",
                kind.name
            );
        };
        let open = || -> Result<SourceTable> {
            let settings = parse_settings(kind.name, settings)?;
            let here = std::env::current_dir().map_err(shard::Error::io("find", "."))?;
            let files = ingest::source::files(kind, &[pattern], &here)?;
            let mut source = (kind.build)(kind.name, kind.document_kind, &settings)?;
            source.prepare(&files)?;
            Ok(SourceTable::new(Arc::from(source), kind.name, files))
        };
        Ok(Arc::new(open()?))
    }
}

/// `crawl_log('raw')`: the log of the crawl into a folder, see [`ingest::crawl::log_schema`].
#[derive(Debug)]
struct CrawlLogFunction;

impl TableFunctionImpl for CrawlLogFunction {
    fn call_with_args(
        &self,
        arguments: TableFunctionArgs<'_, '_>,
    ) -> EngineResult<Arc<dyn TableProvider>> {
        let [folder] = arguments.exprs() else {
            return plan_err!("`{CRAWL_LOG}` takes the folder of a crawl: `{CRAWL_LOG}('raw')`");
        };
        let Some(folder) = text_literal(folder) else {
            return plan_err!("`{CRAWL_LOG}` takes its folder as a text literal");
        };
        let files = ingest::crawl::log_files(Path::new(folder)).map_err(crate::Error::from)?;
        if files.is_empty() {
            return plan_err!(
                "`{folder}` has no log of a crawl: `crawl_log-00000.parquet` and so on\n\
                 hint: name the folder that the crawl wrote to, its `output`"
            );
        }
        let open = || -> Result<ListingTable> {
            let urls = files.iter().map(|path| file_url(path)).collect::<Result<Vec<_>>>()?;
            parquet_files(urls, with_views(&ingest::crawl::log_schema()))
        };
        Ok(Arc::new(open()?))
    }
}

/// The text of a literal argument.
pub(crate) fn text_literal(argument: &Expr) -> Option<&str> {
    match argument {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        _ => None,
    }
}

/// The number of a literal argument that is a whole number from 0.
pub(crate) fn number_literal(argument: &Expr) -> Option<u64> {
    match argument {
        Expr::Literal(ScalarValue::Int64(Some(number)), _) => u64::try_from(*number).ok(),
        Expr::Literal(ScalarValue::UInt64(Some(number)), _) => Some(*number),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests;
