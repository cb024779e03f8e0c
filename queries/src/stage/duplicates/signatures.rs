//! What documents are compared by: one shard of `signatures` for each shard of `documents`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::prelude::{Expr, SessionContext, cast, col, lit};
use dedup::MinHash;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shard::Dataset;
use shard::dataset::Snapshot;
use shard::manifest::{Counts, Manifest, Shard};
use shard::schema::{DatasetKind, ID_BYTES};

use super::Methods;
use super::earlier::{documents_of, n_same};
use super::order::{PRIORITY, parse_priority};
use crate::exec::shard_scan::{scan, schema_of};
use crate::exec::signature_sink::SignatureSink;
use crate::progress::Unit as Progress;
use crate::run::Plan;
use crate::stage::unit::{Inputs, Output, Staging, Work};
use crate::stage::{Run, commit, fingerprint, finished, for_each, parent};
use crate::{Result, session};

impl Methods {
    /// What documents are compared by, one shard per shard of documents; those of an earlier version where it has them.
    pub(super) async fn signatures(
        &self,
        run: &Run,
        documents: &Snapshot,
    ) -> Result<(Snapshot, Vec<String>)> {
        let dataset = run.dataset(DatasetKind::Signatures);
        let config = self.config();
        let parents = [parent(documents)];
        let fingerprint = fingerprint("signatures", &config, &parents, &Value::Null);
        if let Some(newest) = finished(&dataset, &fingerprint)? {
            verify(run, &newest, newest.manifest.shards.len())?;
            return Ok((newest, Vec::new()));
        }
        let mut shards = self.earlier_signatures(run, &dataset, documents, &config)?;
        let n_earlier = shards.len();
        let staging = Staging::new(&dataset, "signatures", &fingerprint);
        let n_new = documents.manifest.shards[n_earlier..].iter().map(|shard| shard.rows).sum();
        let task = run.talk.task("signatures", n_new, Progress::Count("documents"));
        let ctx = session::session(&run.runtime, 1)?;
        let mut first_row = shards.iter().map(|shard| shard.rows).sum::<u64>();
        let units: Vec<(String, SignatureUnit)> = documents.manifest.shards[n_earlier..]
            .iter()
            .zip(n_earlier..)
            .map(|(shard, number)| {
                let unit = SignatureUnit { shard: shard.clone(), first_row, number };
                first_row += shard.rows;
                (shard.blake3.clone(), unit)
            })
            .collect();
        let rows: Vec<u64> = units.iter().map(|(_, unit)| unit.shard.rows).collect();
        let work = Signing::new(self, run, documents)?;
        let outputs = staging.run(run, work, units, |index, _| task.advance(rows[index])).await?;
        let n_short = outputs.iter().map(|output: &SignatureOutput| output.n_short).sum::<u64>();
        shards.extend(outputs.into_iter().map(|output| output.shard));
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
        let config = self.minhash.config();
        let short = match self.has("minhash") {
            true => format!(", {n_short} of fewer than {} {}", config.ngram, config.shingle.name()),
            false => String::new(),
        };
        task.finish(format!("{n} documents{short}{taken_over}"));
        let warning = config.warning_of_short(n_short, n_new);
        let warnings = warning.into_iter().filter(|_| self.has("minhash")).collect();
        Ok((snapshot, warnings))
    }

    /// The shards of the newest signatures that belong to the first shards of `documents`.
    fn earlier_signatures(
        &self,
        run: &Run,
        dataset: &Dataset,
        documents: &Snapshot,
        config: &Value,
    ) -> Result<Vec<Shard>> {
        let Some(newest) = dataset.newest()?.filter(|newest| newest.manifest.config == *config)
        else {
            return Ok(Vec::new());
        };
        let Some(then) = documents_of(&newest, documents)? else { return Ok(Vec::new()) };
        // Shards that are gone are made again, like those behind them.
        let is_there = |shard: &&Shard| {
            std::fs::metadata(newest.shard_path(shard)).is_ok_and(|it| it.len() == shard.bytes)
        };
        let n = newest.manifest.shards[..n_same(&then, documents)].iter().take_while(is_there);
        let n = n.count();
        verify(run, &newest, n)?;
        Ok(newest.manifest.shards[..n].to_vec())
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
    ) -> Result<SignaturePlan> {
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
        let n_short = Arc::new(AtomicU64::new(0));
        let signature = match self.has("minhash") {
            true => signature_udf(Arc::clone(&self.minhash), Arc::clone(&n_short))
                .call(vec![col("text")]),
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
        Ok(SignaturePlan { plan: Arc::new(plan), sink, n_short })
    }
}

/// What signs the documents of one shard, and what is known once it ended.
struct SignaturePlan {
    plan: Arc<dyn ExecutionPlan>,
    sink: Arc<SignatureSink>,
    /// Documents that are shorter than a shingle.
    n_short: Arc<AtomicU64>,
}

/// Compares the first `n` shards that an earlier run wrote with the hashes in its manifest.
fn verify(run: &Run, signatures: &Snapshot, n: usize) -> Result<()> {
    let shards = &signatures.manifest.shards;
    let verify = |index: usize| Ok(signatures.verify(&shards[index])?);
    tokio::task::block_in_place(|| for_each(run, n, verify))
}

/// A shard of documents that is signed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SignatureUnit {
    shard: Shard,
    /// Row of its first document.
    first_row: u64,
    /// Its position among all shards.
    number: usize,
}

/// The work of the units of `signatures`.
pub(crate) struct Signing {
    methods: Methods,
    documents: Snapshot,
    dataset: Dataset,
    ctx: SessionContext,
}

impl Signing {
    fn new(methods: &Methods, run: &Run, documents: &Snapshot) -> Result<Self> {
        Ok(Self {
            methods: methods.clone(),
            documents: documents.clone(),
            dataset: run.dataset(DatasetKind::Signatures),
            ctx: session::session(&run.runtime, 1)?,
        })
    }
}

impl Work for Signing {
    type Unit = SignatureUnit;
    type Output = SignatureOutput;
    const STAGE: &'static str = "signatures";

    fn inputs(&self) -> Inputs {
        let parents = vec![parent(&self.documents)];
        Inputs { config: self.methods.config(), parents, more: Value::Null }
    }

    fn open(plan: &Plan, inputs: Inputs) -> Result<Self> {
        let methods = plan.duplicates.as_ref().expect("the job compares documents");
        inputs.check(Self::STAGE, &methods.config())?;
        Self::new(methods, &plan.run, &inputs.documents(&plan.run)?)
    }

    async fn run(self: Arc<Self>, _index: usize, unit: SignatureUnit) -> Result<SignatureOutput> {
        let name = format!("unit-{:06}", unit.number);
        let (methods, dataset) = (&self.methods, &self.dataset);
        let SignaturePlan { plan, sink, n_short } = methods.signature_plan(
            &self.ctx,
            &self.documents,
            dataset,
            &unit.shard,
            unit.first_row,
            name,
        )?;
        datafusion::physical_plan::collect(plan, self.ctx.task_ctx()).await?;
        let written = sink.take().expect("the plan ended well");
        assert_eq!(written.rows, unit.shard.rows, "signatures and documents differ in rows");
        let n_short = n_short.load(Ordering::Relaxed);
        let dataset = dataset.path().display().to_string();
        Ok(SignatureOutput { dataset, shard: written, n_short })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SignatureOutput {
    dataset: String,
    shard: Shard,
    /// Documents that are shorter than a shingle.
    n_short: u64,
}

impl Output for SignatureOutput {
    fn files(&self) -> Vec<(PathBuf, u64)> {
        vec![(Path::new(&self.dataset).join(&self.shard.path), self.shard.bytes)]
    }

    fn hash(&self, _file: usize) -> Option<&str> {
        Some(&self.shard.blake3)
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

/// Adds to `n_short` the texts that are shorter than a shingle.
fn signature_udf(minhash: Arc<MinHash>, n_short: Arc<AtomicU64>) -> ScalarUDF {
    let fun = move |args: &[ColumnarValue]| {
        let text = ColumnarValue::values_to_arrays(args)?;
        let signed = minhash.sign(text[0].as_string_view());
        n_short.fetch_add(signed.n_short, Ordering::Relaxed);
        Ok(ColumnarValue::Array(Arc::new(signed.signatures)))
    };
    let input = vec![DataType::Utf8View];
    create_udf("signature", input, hash_list(), Volatility::Immutable, Arc::new(fun))
}
