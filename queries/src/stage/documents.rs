//! From sources through the steps to `documents`, `dropped` and `edits`.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::logical_expr::{BinaryExpr, Expr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use ingest::filter;
use ingest::source::{self, Source, SourceFile};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shard::Dataset;
use shard::dataset::Snapshot;
use shard::manifest::{Counts, Manifest, Parent, Shard, SourceRead};
use shard::schema::DatasetKind;
use shard::store;

use super::takedowns::{Rewritten, Takedowns, account, n_taken};
use super::unit::{Inputs, Output, Staging, Work};
use super::{Run, commit, costs, fingerprint, finished, reasons};
use crate::exec::document_sink::{DocumentSink, Target};
use crate::exec::filter_chain::{
    Action, Chain, Condition, FilterChainExec, Step, StepCost, step_costs,
};
use crate::exec::source_scan::{FilePart, scan};
use crate::job::LoadedJob;
use crate::progress::Unit as Progress;
use crate::{Error, Result, session};

/// Input bytes of a unit, at most, and at least.
const UNIT_BYTES: Range<u64> = 4 << 20..256 << 20;
/// A unit takes at most this share of the job's memory in input bytes.
const UNIT_SHARE: u64 = 16;
/// Files of a unit, at most: small files share one.
const UNIT_FILES_MAX: usize = 10_000;

/// The stage, resolved: nothing is read yet but names and sizes.
#[derive(Clone, Debug)]
pub struct Plan {
    sources: Vec<ResolvedSource>,
    chain: Arc<Chain>,
    units: Vec<Unit>,
    /// Hashes of the files that steps read, in the order of the steps: models and lists.
    step_files: Vec<String>,
}

#[derive(Clone, Debug)]
struct ResolvedSource {
    name: String,
    kind: &'static str,
    source: Arc<dyn Source>,
    files: Vec<SourceFile>,
}

/// A piece of one source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Unit {
    source: usize,
    parts: Vec<FilePart>,
    /// What the file of each part is known by; given when the unit is to be run.
    #[serde(default)]
    blake3: Vec<String>,
}

impl Plan {
    /// Finds the files, builds sources and steps, and cuts the input into units.
    ///
    /// # Errors
    /// When a source finds no file, or a source or step cannot be built as the job says.
    pub fn resolve(job: &LoadedJob, ctx: &SessionContext) -> Result<Self> {
        let sources = resolve_sources(job)?;
        let (chain, step_files) = resolve_steps(job, ctx)?;
        let units = cut(&sources, unit_bytes(job));
        let step_files =
            step_files.iter().map(|path| store::hash_file(path)).collect::<Result<_, _>>()?;
        Ok(Self { sources, chain: Arc::new(chain), units, step_files })
    }

    /// The columns that the documents will have.
    #[must_use]
    pub fn columns(&self) -> &SchemaRef {
        self.chain.documents()
    }

    /// The plan of the first unit, as text; all others differ in the files only.
    ///
    /// # Errors
    /// When the plan cannot be built.
    pub fn show(&self, run: &Run) -> Result<String> {
        let mut text = format!(
            "documents: {} files in {} units\n",
            self.sources.iter().map(|source| source.files.len()).sum::<usize>(),
            self.units.len()
        );
        for (index, source) in self.sources.iter().enumerate() {
            let Some(unit) = self.units.iter().find(|unit| unit.source == index) else { continue };
            let sink = self.sink(run, "unit-000000", &Arc::default());
            let plan = self.physical(unit, &sink)?;
            let shown = datafusion::physical_plan::displayable(plan.as_ref()).indent(false);
            let bytes: u64 = source.files.iter().map(|file| file.bytes).sum();
            text.push_str(&format!("source `{}` ({} bytes):\n{shown}", source.name, bytes));
        }
        Ok(text)
    }

    /// Runs the stage, or finds it done, and returns `documents`.
    ///
    /// # Errors
    /// When a file cannot be read, a step cannot work, or nothing is left.
    pub async fn execute(mut self, run: &Run) -> Result<Snapshot> {
        let documents = run.dataset(DatasetKind::Documents);
        let config = self.config(run);
        let mut sources = self.hash_sources(run).await?;
        set_arrivals(documents.newest()?.as_ref(), &config, &mut sources);
        self.units = cut_by_arrival(&self.sources, &sources, unit_bytes(&run.job));
        sources.sort_by_key(|file| file.arrival);
        let listed = serde_json::to_value(&sources).expect("names, sizes and hashes");
        let takedowns = Arc::new(Takedowns::read(&run.corpus())?);
        let fingerprint = fingerprint("documents", &config, &takedowns.parents(), &listed);
        if let Some(newest) = finished(&documents, &fingerprint)?
            && finished(&run.dataset(DatasetKind::Dropped), &fingerprint)?.is_some()
            && finished(&run.dataset(DatasetKind::Edits), &fingerprint)?.is_some()
        {
            run.talk.say(format!("{:>12}  version {} is up to date", "documents", newest.version));
            return Ok(newest);
        }
        let staging = staging(&documents, &config);
        let mut outputs = self.run_units(run, &staging, &sources, &takedowns).await?;
        for output in &mut outputs {
            output.take_down(run, &takedowns)?;
        }
        let parents = takedowns.parents();
        let snapshot = self.commit(run, outputs, &config, fingerprint, sources, &parents)?;
        staging.remove_others()?;
        Ok(snapshot)
    }

    async fn run_units(
        &self,
        run: &Run,
        staging: &Staging,
        sources: &[SourceRead],
        takedowns: &Arc<Takedowns>,
    ) -> Result<Vec<UnitOutput>> {
        let bytes: Vec<u64> = self.units.iter().map(Unit::bytes).collect();
        let task = run.talk.task("documents", bytes.iter().sum(), Progress::Bytes);
        let hashes: HashMap<(&str, &str), &str> = sources
            .iter()
            .map(|file| ((file.source.as_str(), file.file.as_str()), file.blake3.as_str()))
            .collect();
        let units = self.units.iter().map(|unit| {
            let mut known = unit.clone();
            let source = self.sources[unit.source].name.as_str();
            let blake3 = unit.parts.iter().map(|part| hashes[&(source, part.file.name.as_str())]);
            known.blake3 = blake3.map(str::to_owned).collect();
            (unit.key(&self.sources, &hashes), known)
        });
        let work = Reading::new(self, run, takedowns)?;
        let mut n = (0, 0);
        let outputs = staging
            .run(run, work, units.collect(), |index, output: &UnitOutput| {
                task.advance(bytes[index]);
                n.0 += output.counts.n_in;
                n.1 += output.counts.n_kept;
            })
            .await?;
        task.finish(format!("{} in, {} kept, {} dropped", n.0, n.1, n.0 - n.1));
        Ok(outputs)
    }

    fn commit(
        &self,
        run: &Run,
        outputs: Vec<UnitOutput>,
        config: &Value,
        fingerprint: String,
        sources: Vec<SourceRead>,
        parents: &[Parent],
    ) -> Result<Snapshot> {
        let mut counts = Counts::default();
        let mut costs = self.chain.no_costs();
        let mut shards = [const { Vec::new() }; 3];
        for output in outputs {
            counts.add(&output.counts);
            for (sum, cost) in costs.iter_mut().zip(&output.costs) {
                sum.rows += cost.rows;
                sum.bytes += cost.bytes;
                sum.seconds += cost.seconds;
            }
            let written = [output.documents, output.dropped, output.edits];
            shards.iter_mut().zip(written).for_each(|(shards, shard)| shards.extend(shard));
        }
        let kinds = [DatasetKind::Documents, DatasetKind::Dropped, DatasetKind::Edits];
        let mut manifests = BTreeMap::new();
        for (kind, shards) in kinds.into_iter().zip(shards) {
            let schema = match kind {
                DatasetKind::Documents => Arc::clone(self.chain.documents()),
                _ => kind.schema(),
            };
            let mut manifest = Manifest::new(kind, &schema, fingerprint.clone(), config.clone());
            manifest.sources = sources.clone();
            manifest.parents = parents.to_vec();
            manifest.shards = shards;
            let rows = manifest.n_rows();
            manifest.counts = match kind {
                DatasetKind::Documents => {
                    assert_eq!(rows, counts.n_kept, "rows of `documents` and rows kept differ");
                    counts.clone()
                }
                _ => Counts { n_in: rows, n_kept: rows, dropped: BTreeMap::new() },
            };
            manifests.insert(kind, manifest);
        }
        assert_eq!(
            manifests[&DatasetKind::Dropped].n_rows() + n_taken(&counts),
            counts.n_dropped(),
            "rows of `dropped` and rows dropped differ"
        );
        if counts.n_kept == 0 {
            let reasons = reasons(&manifests[&DatasetKind::Documents]);
            // Without documents there is no version of them, but SQL can say why each one went.
            let dropped = manifests.remove(&DatasetKind::Dropped).expect("one of each");
            commit(&run.dataset(DatasetKind::Dropped), dropped)?;
            return Err(Error::Empty {
                stage: "the chain of steps",
                n_in: counts.n_in,
                reasons,
                hint: format!(
                    "see `select * from dropped` in `gristmill sql --corpus {}`, then loosen the step that drops most",
                    run.corpus().display()
                ),
            });
        }
        // `documents` last: whoever sees its new version finds the other two.
        let mut last = None;
        for kind in [DatasetKind::Dropped, DatasetKind::Edits, DatasetKind::Documents] {
            let manifest = manifests.remove(&kind).expect("one of each");
            last = Some(commit(&run.dataset(kind), manifest)?);
        }
        let snapshot = last.expect("there are three");
        costs::write(&run.job, &snapshot, costs)?;
        Ok(snapshot)
    }

    /// What decides the content, beyond the files.
    fn config(&self, run: &Run) -> Value {
        let job = &run.job.job;
        json!({
            "source": job.source,
            "step": job.step,
            "keep_text": job.keep_text,
            "strict": job.strict,
            "step_files": self.step_files,
            "unit_bytes": unit_bytes(&run.job),
        })
    }

    async fn hash_sources(&self, run: &Run) -> Result<Vec<SourceRead>> {
        let files: Vec<(&ResolvedSource, SourceFile)> = self
            .sources
            .iter()
            .flat_map(|source| source.files.iter().map(move |file| (source, file.clone())))
            .collect();
        let bytes = files.iter().map(|(_, file)| file.bytes).sum();
        let task = run.talk.task("hash inputs", bytes, Progress::Bytes);
        let mut sources = Vec::with_capacity(files.len());
        for (source, file) in files {
            run.check_stop()?;
            let (reader, read) = (Arc::clone(&source.source), file.clone());
            let hash = move || -> Result<String> {
                Ok(match reader.content_id(&read)? {
                    Some(id) => shard::manifest::hash(id.as_bytes()),
                    None => store::hash_file(&read.fetched()?.path)?,
                })
            };
            let hashed = tokio::task::spawn_blocking(hash).await;
            let blake3 = hashed.expect("hashing does not panic")?;
            task.advance(file.bytes);
            sources.push(SourceRead {
                source: source.name.clone(),
                file: file.name,
                bytes: file.bytes,
                blake3,
                arrival: 0,
            });
        }
        task.finish(format!("{} files", sources.len()));
        Ok(sources)
    }

    fn sink(&self, run: &Run, name: &str, takedowns: &Arc<Takedowns>) -> Arc<DocumentSink> {
        let target = Target {
            documents: run.dataset(DatasetKind::Documents),
            dropped: run.dataset(DatasetKind::Dropped),
            edits: run.dataset(DatasetKind::Edits),
            name: name.to_owned(),
            keep_text: run.job.job.keep_text,
            strict: run.job.job.strict,
            takedowns: Arc::clone(takedowns),
        };
        Arc::new(DocumentSink::new(target, Arc::clone(self.chain.output())))
    }

    fn physical(&self, unit: &Unit, sink: &Arc<DocumentSink>) -> Result<Arc<dyn ExecutionPlan>> {
        let source = &self.sources[unit.source];
        let scan = scan(&source.source, source.kind, &unit.parts, None, None)?;
        let chain = Arc::new(FilterChainExec::new(Arc::clone(&self.chain), scan));
        let sink = Arc::clone(sink) as Arc<dyn datafusion::datasource::sink::DataSink>;
        Ok(Arc::new(DataSinkExec::new(chain, sink, None)))
    }
}

/// The work of the stage's units.
pub(crate) struct Reading {
    plan: Plan,
    run: Run,
    takedowns: Arc<Takedowns>,
    ctx: SessionContext,
}

impl Reading {
    fn new(plan: &Plan, run: &Run, takedowns: &Arc<Takedowns>) -> Result<Self> {
        let ctx = session::session(&run.runtime, 1)?;
        let takedowns = Arc::clone(takedowns);
        Ok(Self {
            plan: Plan { units: Vec::new(), ..plan.clone() },
            run: run.clone(),
            takedowns,
            ctx,
        })
    }
}

impl Work for Reading {
    type Unit = Unit;
    type Output = UnitOutput;
    const STAGE: &'static str = "documents";

    fn inputs(&self) -> Inputs {
        let config = self.plan.config(&self.run);
        Inputs { config, parents: self.takedowns.parents(), more: Value::Null }
    }

    fn open(plan: &crate::run::Plan, inputs: Inputs) -> Result<Self> {
        let takedowns = Arc::new(Takedowns::read(&plan.run.corpus())?);
        let work = Self::new(&plan.documents, &plan.run, &takedowns)?;
        let own = work.inputs();
        inputs.check(Self::STAGE, &own.config)?;
        if inputs.parents != own.parents {
            let (wanted, found) = (&inputs.parents, &own.parents);
            let message = format!("the list of takedowns is {found:?} here, wanted is {wanted:?}");
            let hint = "all machines must see one folder".to_owned();
            return Err(plan.run.job.error("output", message, Some(hint)));
        }
        Ok(work)
    }

    /// Files that are read in parts are compared by their size alone: each part would read them all.
    fn check(&self, unit: &Unit) -> Result<()> {
        let source = &self.plan.sources[unit.source].source;
        for (part, wanted) in unit.parts.iter().zip(&unit.blake3) {
            let file = part.file.fetched()?;
            let differs = |found: String, wanted: String| Error::Job {
                place: file.path.display().to_string(),
                message: format!("the file has {found} here, wanted are {wanted}"),
                hint: Some("all machines must see the same files".to_owned()),
            };
            if let Some(id) = source.content_id(&file)? {
                let found = shard::manifest::hash(id.as_bytes());
                if found != *wanted {
                    return Err(differs(format!("blake3 {found}"), wanted.clone()));
                }
                continue;
            }
            let bytes = store::size(&file.path)?.unwrap_or_default();
            if bytes != file.bytes {
                let wanted = format!("{} bytes", file.bytes);
                return Err(differs(format!("{bytes} bytes"), wanted));
            }
            let found = match part.range {
                None => store::hash_file(&file.path)?,
                Some(_) => wanted.clone(),
            };
            if found != *wanted {
                return Err(differs(format!("blake3 {found}"), wanted.clone()));
            }
        }
        Ok(())
    }

    async fn run(self: Arc<Self>, index: usize, unit: Unit) -> Result<UnitOutput> {
        let sink = self.plan.sink(&self.run, &format!("unit-{index:06}"), &self.takedowns);
        let plan = self.plan.physical(&unit, &sink)?;
        datafusion::physical_plan::collect(Arc::clone(&plan), self.ctx.task_ctx()).await?;
        let written = sink.take().expect("the plan ended well");
        let n_scanned = rows_scanned(&plan);
        assert_eq!(n_scanned, written.counts.n_in, "rows read and rows written differ");
        Ok(UnitOutput {
            corpus: self.run.corpus().display().to_string(),
            documents: written.documents,
            dropped: written.dropped,
            edits: written.edits,
            counts: written.counts,
            text_bytes: written.text_bytes,
            costs: step_costs(&plan),
            takedowns: self.takedowns.version(),
        })
    }
}

/// Rows that came out of the leaf of `plan`, by its own count.
fn rows_scanned(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    match plan.children().first() {
        Some(child) => rows_scanned(child),
        None => plan.metrics().and_then(|metrics| metrics.output_rows()).unwrap_or_default() as u64,
    }
}

fn unit_bytes(job: &LoadedJob) -> u64 {
    (job.job.memory.0 / UNIT_SHARE).clamp(UNIT_BYTES.start, UNIT_BYTES.end)
}

fn resolve_sources(job: &LoadedJob) -> Result<Vec<ResolvedSource>> {
    let mut sources = Vec::new();
    for (index, config) in job.job.source.iter().enumerate() {
        let key = format!("source {}", index + 1);
        let kind = source::kind(&config.kind).ok_or_else(|| {
            let known = source::KINDS.iter().map(|kind| kind.name);
            job.unknown(&format!("{key} kind"), &config.kind, known)
        })?;
        let name = job.source_name(index);
        let document_kind = config.document_kind.as_deref().unwrap_or(kind.document_kind);
        let refuse = |error: ingest::Error| job.error(&key, error.to_string(), None);
        let mut built = (kind.build)(&name, document_kind, &config.config).map_err(refuse)?;
        let files = source::files(kind, config.path.as_slice(), job.folder()).map_err(refuse)?;
        built.prepare(&files).map_err(refuse)?;
        sources.push(ResolvedSource { name, kind: kind.name, source: built.into(), files });
    }
    Ok(sources)
}

/// The chain of the job's steps, and the files that they read.
fn resolve_steps(job: &LoadedJob, ctx: &SessionContext) -> Result<(Chain, Vec<PathBuf>)> {
    let mut chain = Chain::default();
    let mut files = Vec::new();
    for (index, config) in job.job.step.iter().enumerate() {
        let key = format!("step {}", index + 1);
        let (name, action) = match (&config.name, &config.condition) {
            (Some(name), _) => {
                let resolve = |path: &str| job.resolve(path);
                let (config, paths) = filter::resolve_files(name, &config.config, resolve);
                files.extend(paths);
                (name.as_str(), registered(job, &key, name, &config)?)
            }
            (None, Some(sql)) => {
                let condition = condition(ctx, &chain, sql)
                    .map_err(|error| job.error(&format!("{key} where"), error.to_string(), None))?;
                ("where", Action::Where(condition))
            }
            (None, None) => unreachable!("the job was checked"),
        };
        chain.push(Step {
            label: format!("{}:{name}", index + 1),
            kinds: config.kinds.clone(),
            keep_signals: config.keep_signals,
            action,
        });
    }
    Ok((chain, files))
}

fn registered(job: &LoadedJob, key: &str, name: &str, config: &toml::Table) -> Result<Action> {
    let error = |error: ingest::Error| job.error(key, error.to_string(), None);
    if let Some(kind) = filter::kind(name) {
        return Ok(Action::Filter(kind, (kind.build)(config).map_err(error)?.into()));
    }
    if let Some(kind) = ingest::modifier::kind(name) {
        return Ok(Action::Modifier(kind.name, (kind.build)(config).map_err(error)?.into()));
    }
    let filters = filter::KINDS.iter().map(|kind| kind.name);
    let known = filters.chain(ingest::modifier::KINDS.iter().map(|kind| kind.name));
    Err(job.unknown(&format!("{key} use"), name, known))
}

/// Plans a condition over the columns that the chain has so far.
fn condition(ctx: &SessionContext, chain: &Chain, sql: &str) -> Result<Condition> {
    let schema = DFSchema::try_from(Arc::clone(chain.documents()))?;
    let expr = ctx.parse_sql_expr(sql, &schema)?;
    let mut compared = Vec::new();
    collect_compared(&expr, &mut compared);
    let values = compared
        .into_iter()
        .map(|expr| {
            let name = expr.schema_name().to_string();
            Ok((name, ctx.create_physical_expr(expr, &schema)?))
        })
        .collect::<Result<Vec<_>>>()?;
    let expr = ctx.create_physical_expr(expr, &schema)?;
    let data_type = expr.data_type(chain.documents())?;
    if data_type != arrow::datatypes::DataType::Boolean {
        return Err(Error::Engine(datafusion::error::DataFusionError::Plan(format!(
            "`{sql}` is a {data_type}, a condition is needed"
        ))));
    }
    Ok(Condition { sql: sql.to_owned(), expr, values })
}

/// Collects what a condition compares with something: functions and columns, but not the text itself.
fn collect_compared(expr: &Expr, compared: &mut Vec<Expr>) {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, right, .. }) => {
            collect_compared(left, compared);
            collect_compared(right, compared);
        }
        Expr::Not(inner) | Expr::IsNull(inner) | Expr::IsNotNull(inner) => {
            collect_compared(inner, compared);
        }
        Expr::Between(between) => collect_compared(&between.expr, compared),
        Expr::InList(list) => collect_compared(&list.expr, compared),
        Expr::Like(like) => collect_compared(&like.expr, compared),
        Expr::Literal(ScalarValue::Null, _) | Expr::Literal(..) => {}
        Expr::Column(column) if column.name == "text" => {}
        other if !compared.contains(other) => compared.push(other.clone()),
        _ => {}
    }
}

/// Where finished units are recorded. They stay there after the commit: a later run with more files takes them over.
fn staging(documents: &Dataset, config: &Value) -> Staging {
    let name = fingerprint("documents", config, &[], &Value::Null);
    Staging::new(documents, "documents", &name)
}

/// Says of each file which version was the first to be made of it.
///
/// As long as all files of the newest version are still there, unchanged and read with the same settings, new ones are
/// read behind them, so that documents keep their places. Otherwise there is no earlier version to go on with.
fn set_arrivals(newest: Option<&Snapshot>, config: &Value, sources: &mut [SourceRead]) {
    let Some(newest) = newest.filter(|newest| newest.manifest.config == *config) else { return };
    let key = |file: &SourceRead| (file.source.clone(), file.file.clone(), file.blake3.clone());
    let known: HashMap<_, u64> =
        newest.manifest.sources.iter().map(|file| (key(file), file.arrival)).collect();
    let n_known = sources.iter().filter(|file| known.contains_key(&key(file))).count();
    if n_known < newest.manifest.sources.len() {
        return;
    }
    let next = known.values().max().map_or(0, |last| last + 1);
    for file in sources {
        file.arrival = known.get(&key(file)).copied().unwrap_or(next);
    }
}

/// Cuts the files of each arrival into units, one arrival after the other; `read` are all files in the order of `sources`.
fn cut_by_arrival(sources: &[ResolvedSource], read: &[SourceRead], unit_bytes: u64) -> Vec<Unit> {
    let last = read.iter().map(|file| file.arrival).max().unwrap_or_default();
    let mut units = Vec::new();
    for arrival in 0..=last {
        let mut read = read.iter();
        let arrived: Vec<ResolvedSource> = sources
            .iter()
            .map(|source| {
                let files = source.files.iter().zip(&mut read);
                let files = files.filter(|(_, read)| read.arrival == arrival);
                let files = files.map(|(file, _)| file.clone()).collect();
                ResolvedSource { files, ..source.clone() }
            })
            .collect();
        units.extend(cut(&arrived, unit_bytes));
    }
    units
}

/// Cuts files into units: parts of big files that can be split, groups of small ones.
fn cut(sources: &[ResolvedSource], unit_bytes: u64) -> Vec<Unit> {
    let mut units = Vec::new();
    for (source, resolved) in sources.iter().enumerate() {
        let mut group = Unit { source, parts: Vec::new(), blake3: Vec::new() };
        let flush = |group: &mut Unit, units: &mut Vec<Unit>| {
            if !group.parts.is_empty() {
                let parts = std::mem::take(&mut group.parts);
                units.push(Unit { source, parts, blake3: Vec::new() });
            }
        };
        for file in &resolved.files {
            if file.bytes > unit_bytes && resolved.source.is_splittable(&file.name) {
                flush(&mut group, &mut units);
                let n = file.bytes.div_ceil(unit_bytes);
                for part in 0..n {
                    let range = part * unit_bytes..((part + 1) * unit_bytes).min(file.bytes);
                    let part = FilePart { file: file.clone(), range: Some(range) };
                    units.push(Unit { source, parts: vec![part], blake3: Vec::new() });
                }
                continue;
            }
            if group.bytes() + file.bytes > unit_bytes || group.parts.len() == UNIT_FILES_MAX {
                flush(&mut group, &mut units);
            }
            group.parts.push(FilePart { file: file.clone(), range: None });
        }
        flush(&mut group, &mut units);
    }
    units
}

impl Unit {
    fn bytes(&self) -> u64 {
        let size = |part: &FilePart| match &part.range {
            Some(range) => range.end - range.start,
            None => part.file.bytes,
        };
        self.parts.iter().map(size).sum()
    }

    /// What decides the unit's output beside the settings; `hashes` are by source and file.
    fn key(&self, sources: &[ResolvedSource], hashes: &HashMap<(&str, &str), &str>) -> String {
        let source = sources[self.source].name.as_str();
        let parts = self.parts.iter().map(|part| {
            let range = part.range.as_ref().map(|range| [range.start, range.end]);
            json!([part.file.name, range, hashes[&(source, part.file.name.as_str())]])
        });
        json!([source, parts.collect::<Vec<_>>()]).to_string()
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UnitOutput {
    corpus: String,
    documents: Option<Shard>,
    dropped: Option<Shard>,
    edits: Option<Shard>,
    counts: Counts,
    text_bytes: u64,
    costs: Vec<StepCost>,
    /// Version of the list of takedowns that it was made with.
    #[serde(default)]
    takedowns: u64,
}

impl UnitOutput {
    /// Takes down what was listed after the unit was made.
    fn take_down(&mut self, run: &Run, takedowns: &Takedowns) -> Result<()> {
        if self.takedowns == takedowns.version() {
            return Ok(());
        }
        let take = |kind: DatasetKind, shard: &mut Option<Shard>| -> Result<Rewritten> {
            let Some(old) = shard.take() else { return Ok(Rewritten::default()) };
            let mut rest = takedowns.take_from(&run.dataset(kind), &old, kind)?;
            *shard = rest.shard.take();
            Ok(rest)
        };
        let documents = take(DatasetKind::Documents, &mut self.documents)?;
        let dropped = take(DatasetKind::Dropped, &mut self.dropped)?;
        take(DatasetKind::Edits, &mut self.edits)?;
        account(&mut self.counts, &documents, &dropped);
        Ok(())
    }
}

impl Output for UnitOutput {
    fn files(&self) -> Vec<(PathBuf, u64)> {
        let kinds = [DatasetKind::Documents, DatasetKind::Dropped, DatasetKind::Edits];
        let written = [&self.documents, &self.dropped, &self.edits];
        let path = |(kind, shard): (DatasetKind, &Option<Shard>)| {
            let shard = shard.as_ref()?;
            Some((Path::new(&self.corpus).join(kind.name()).join(&shard.path), shard.bytes))
        };
        kinds.into_iter().zip(written).filter_map(path).collect()
    }

    fn hash(&self, file: usize) -> Option<&str> {
        let written = [&self.documents, &self.dropped, &self.edits];
        written.into_iter().flatten().nth(file).map(|shard| shard.blake3.as_str())
    }

    fn imbalance(&self) -> Option<String> {
        let rows = |shard: &Option<Shard>| shard.as_ref().map_or(0, |shard| shard.rows);
        let (counts, kept, gone) = (&self.counts, rows(&self.documents), rows(&self.dropped));
        let is_whole = counts.n_in == counts.n_kept + counts.n_dropped()
            && kept == counts.n_kept
            && gone + n_taken(counts) == counts.n_dropped();
        (!is_whole)
            .then(|| format!("{kept} rows of `documents` and {gone} of `dropped` for {counts:?}"))
    }
}
