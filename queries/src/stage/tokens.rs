//! From `documents` without `duplicates` to `tokens`, in the order in which they are trained on.
//!
//! Two passes. The first encodes each shard of documents and writes its rows as runs sorted by (bucket, key, id), where
//! the key is a hash of seed and id and a bucket is a slice of the range of keys. The second reads one bucket of all runs,
//! sorts it in memory and writes it as one shard. Bucket follows bucket in the order of keys, so the whole
//! dataset is sorted, whatever the threads, and memory is bounded by runs and buckets.

mod partition;
pub(crate) mod work;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, AsArray, ListBuilder, UInt32Array, UInt32Builder};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::DFSchema;
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarUDF, Volatility, create_udf};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::prelude::{SessionContext, col};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shard::dataset::Snapshot;
use shard::manifest::{Counts, Manifest, Parent, Shard};
use shard::schema::{DatasetKind, ID_BYTES, loss_mask_field, weight_fields};
use shard::split::Splits;
use shard::store;
use shard::tokenizer::{Tokenizer, TokenizerSpec};
use shard::writer::{ShardWriter, number_tokens};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use self::partition::Partition;
use self::work::{Encoding, Learning, Place, Sorting};
use super::chat;
use super::contamination::Outcome;
use super::repeats::{self, Cuts};
use super::unit::{Inputs, Output, Staging};
use super::weights::{Table, Weights};
use super::{Run, commit, fingerprint, finished, parent, reasons};
use crate::exec::run_sink::{Buckets, Part, RunFile, read_bucket, sort_bucket};
use crate::job::{LoadedJob, Reweight, ShardConfig};
use crate::progress::Unit as Progress;
use crate::{Error, Result, session};

/// The columns of `documents` that tokens are made of; the last one only for conversations.
const COLUMNS: [&str; 3] = ["id", "text", "metadata"];
/// The split that models are trained on.
const TRAIN: &str = "train";
/// Share of the job's memory for the tokens of one run, and for those of one bucket, on each thread.
const SORT_SHARE: u64 = 16;
/// Bytes of tokens that a byte of a shard of documents gives, about: 3 bytes of text, 4 of them a token of 4 bytes.
const TOKEN_BYTES_PER_BYTE: u64 = 3;
/// Seeds the choice of the documents that a tokenizer is trained on, apart from every other use of the job's seed.
const SAMPLE_SEED: u64 = 0x0074_6f6b_656e_697a;

pub(crate) type Id = [u8; ID_BYTES as usize];

/// `[shard]` of a job, checked.
#[derive(Clone, Debug)]
pub struct Plan {
    config: ShardConfig,
    spec: TokenizerSpec,
    splits: Arc<Splits>,
    chat: Option<chat::Plan>,
    /// What `[dedup]` says of the weights of kept documents.
    reweight: Option<Table>,
    partition: Option<Partition>,
}

impl Plan {
    /// Checks the settings; the tokenizer is loaded when the stage runs.
    ///
    /// # Errors
    /// When they cannot work.
    pub fn resolve(
        job: &LoadedJob,
        ctx: &SessionContext,
        documents: &SchemaRef,
        config: &ShardConfig,
    ) -> Result<Self> {
        let mut spec = TokenizerSpec::parse(&config.tokenizer)?;
        if let TokenizerSpec::Path(path) = &mut spec {
            *path = job.folder().join(&*path);
            if !path.is_file() {
                let message = format!("there is no tokenizer `{}`", path.display());
                let hint =
                    "name a `tokenizer.json`, or train one with `train:bpe:32000`".to_owned();
                return Err(job.error("shard.tokenizer", message, Some(hint)));
            }
        }
        let splits = Arc::new(Splits::new(config.split.clone())?);
        let chat =
            config.chat.as_ref().map(|chat| chat::Plan::resolve(job, chat, &spec)).transpose()?;
        let reweight = job.job.dedup.as_ref().and_then(|dedup| dedup.reweight.as_ref());
        let reweight = reweight.map(|reweight| table(job, reweight)).transpose()?;
        let parse = |sql: &String| Partition::resolve(job, ctx, documents, reweight.is_some(), sql);
        let partition = config.partition.as_ref().map(parse).transpose()?;
        Ok(Self { config: config.clone(), spec, splits, chat, reweight, partition })
    }

    /// The plan in words.
    #[must_use]
    pub fn show(&self) -> String {
        format!(
            "tokens: {} over documents without duplicates; encode → sorted runs → one shard per bucket, splits {:?}\n",
            self.config.tokenizer, self.config.split
        )
    }

    /// Runs the stage, or finds it done, and returns `tokens`.
    ///
    /// # Errors
    /// When nothing is left to train on, a shard cannot be read or the tokenizer cannot be used.
    pub async fn execute(&self, run: &Run, left: Left) -> Result<Snapshot> {
        let dataset = run.dataset(DatasetKind::Tokens);
        let config = self.config(run)?;
        let fingerprint = fingerprint("tokens", &config, &left.parents, &Value::Null);
        if let Some(newest) = finished(&dataset, &fingerprint)? {
            run.talk.say(format!("{:>12}  version {} is up to date", "tokens", newest.version));
            return Ok(newest);
        }
        let learn = Staging::new(&dataset, "tokenizer", &fingerprint);
        let encode = Staging::new(&dataset, "encode", &fingerprint);
        let sort = Staging::new(&dataset, "sort", &fingerprint);
        let (tokenizer, trained) = self.tokenizer(run, &left, &learn).await?;
        let tokenizer = Arc::new(tokenizer);
        let partitions = self.partitions(run, &left).await?;
        let place = Place { folder: encode.folder().clone(), tokenizer: trained, partitions };
        let (runs, counts) = self.encode(run, &left, &tokenizer, &place, &encode).await?;
        let weights = self.weights(&left)?;
        let schema = schema(self.chat.is_some(), weights.is_some());
        let mut manifest = Manifest::new(DatasetKind::Tokens, &schema, fingerprint, config);
        manifest.parents = left.parents.clone();
        manifest.counts = counts;
        if manifest.counts.n_kept == 0 {
            return Err(Error::Empty {
                stage: "deduplication, decontamination or the chat template",
                n_in: manifest.counts.n_in,
                reasons: reasons(&manifest),
                hint: "check the settings of `[dedup]`, `[decontaminate]` and `[shard.chat]`"
                    .to_owned(),
            });
        }
        let buckets = self.buckets(run, &left.documents, &place.partitions);
        manifest.shards = self.sort(run, &left, &buckets, runs, weights, &sort).await?;
        number_tokens(&mut manifest.shards);
        assert_eq!(
            manifest.n_rows(),
            manifest.counts.n_kept,
            "documents encoded and rows written differ"
        );
        let name = format!("tokenizer-{}.json", &tokenizer.fingerprint()[..12]);
        store::put_if_absent(&dataset.path().join(&name), tokenizer.to_bytes())?;
        manifest.tokenizer = Some(tokenizer.info(&name));
        if let Some(chat) = &self.chat {
            let name = chat.load(Arc::clone(&tokenizer))?.publish(&dataset)?;
            manifest.config["chat_template"]["path"] = Value::from(name);
        }
        let snapshot = commit(&dataset, manifest)?;
        learn.remove()?;
        encode.remove()?;
        sort.remove()?;
        Ok(snapshot)
    }

    /// The partitions with their documents; none where the job names nothing to part them by.
    async fn partitions(&self, run: &Run, left: &Left) -> Result<BTreeMap<String, u64>> {
        let Some(partition) = &self.partition else { return Ok(BTreeMap::new()) };
        let ctx = session::session(&run.runtime, 1)?;
        partition.count(&run.job, &ctx, left, self.weights(left)?.as_ref()).await
    }

    /// How often each document counts, where the job says so.
    fn weights(&self, left: &Left) -> Result<Option<Arc<Weights>>> {
        let table = self.reweight.clone();
        let weights = table.map(|table| Weights::count(left.duplicates.as_ref(), table));
        Ok(weights.transpose()?.map(Arc::new))
    }

    /// What decides the content, beyond the datasets.
    fn config(&self, run: &Run) -> Result<Value> {
        let mut config = json!({ "shard": self.config, "seed": run.job.job.seed });
        if let TokenizerSpec::Path(path) = &self.spec {
            config["tokenizer_blake3"] = Value::from(store::hash_file(path)?);
        }
        if let Some(chat) = &self.chat {
            config["chat_template"] = chat.fingerprint()?;
        }
        config["sort_bytes"] = Value::from(sort_bytes(run));
        if let Some(table) = &self.reweight {
            config["reweight"] = json!(table.weights());
        }
        Ok(config)
    }

    /// Loads the tokenizer, or trains it on the documents of the split `train` and says where it is.
    async fn tokenizer(
        &self,
        run: &Run,
        left: &Left,
        staging: &Staging,
    ) -> Result<(Tokenizer, Option<PathBuf>)> {
        if let TokenizerSpec::Path(path) = &self.spec {
            return Ok((Tokenizer::load(path)?, None));
        }
        let task = run.talk.task(
            "tokenizer",
            left.documents.manifest.n_rows(),
            Progress::Count("documents"),
        );
        let path = staging.folder().join("tokenizer.json");
        let config = self.config(run)?;
        let work =
            Learning { plan: self.clone(), run: run.clone(), left: left.clone(), path, config };
        let trained = staging.run(run, work, vec![(String::new(), ())], |_, _| {}).await?;
        let [trained] = &trained[..] else { panic!("{} units, one began", trained.len()) };
        let tokenizer = Tokenizer::load(&trained.path)?;
        let (n, bytes) = (tokenizer.n_vocabulary(), trained.text_bytes);
        task.finish(format!("{n} tokens from {bytes} bytes of text"));
        Ok((tokenizer, Some(trained.path.clone())))
    }

    /// The first pass.
    async fn encode(
        &self,
        run: &Run,
        left: &Left,
        tokenizer: &Arc<Tokenizer>,
        place: &Place,
        staging: &Staging,
    ) -> Result<(Vec<RunFile>, Counts)> {
        store::create_folder(staging.folder())?;
        let documents = &left.documents;
        let task =
            run.talk.task("tokenize", documents.manifest.n_rows(), Progress::Count("documents"));
        let shards = documents.manifest.shards.iter();
        let units = shards.map(|shard| (shard.blake3.clone(), shard.clone()));
        let rows: Vec<u64> = documents.manifest.shards.iter().map(|shard| shard.rows).collect();
        let work = Encoding::new(self, run, left, tokenizer, place.clone())?;
        let outputs =
            staging.run(run, work, units.collect(), |index, _| task.advance(rows[index])).await?;
        let (mut runs, mut counts) = (Vec::new(), Counts::default());
        let mut refused = None;
        for output in outputs {
            let output: EncodeOutput = output;
            counts.add(&output.counts);
            runs.extend(output.runs);
            refused = refused.or(output.refused);
        }
        task.finish(format!("{} documents, {} left out", counts.n_kept, counts.n_dropped()));
        if let Some(why) = refused {
            run.talk.say(format!("{:>12}  first conversation refused: {why}", "tokenize"));
        }
        Ok((runs, counts))
    }

    /// The second pass.
    async fn sort(
        &self,
        run: &Run,
        left: &Left,
        buckets: &Buckets,
        runs: Vec<RunFile>,
        weights: Option<Arc<Weights>>,
        staging: &Staging,
    ) -> Result<Vec<Shard>> {
        let units: Vec<_> = buckets
            .all()
            .map(|(Part { split, partition, .. }, number)| {
                (format!("{split}-{number}"), (split.clone(), partition.clone(), number))
            })
            .collect();
        let task = run.talk.task("shuffle", units.len() as u64, Progress::Count("shards"));
        let work = Sorting { run: run.clone(), left: left.clone(), runs, weights };
        let outputs = staging.run(run, work, units, |_, _| task.advance(1)).await?;
        let shards: Vec<Shard> = outputs.into_iter().filter_map(|output| output.shard).collect();
        let tokens: u64 = shards.iter().map(Shard::n_tokens).sum();
        task.finish(format!("{tokens} tokens in {} shards", shards.len()));
        Ok(shards)
    }

    fn buckets(
        &self,
        run: &Run,
        documents: &Snapshot,
        partitions: &BTreeMap<String, u64>,
    ) -> Buckets {
        let stored: u64 = documents.manifest.shards.iter().map(|shard| shard.bytes).sum();
        let bucket_bytes = sort_bytes(run).min(self.config.shard_bytes.0).max(1);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let n = (stored * TOKEN_BYTES_PER_BYTE) as f64 / bucket_bytes as f64;
        // `train` first: it is what readers open.
        let mut names: Vec<&str> = self.splits.names().collect();
        names.sort_by_key(|name| (*name != TRAIN, *name));
        let n_rows = partitions.values().sum::<u64>().max(1);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let share = |rows: u64| rows as f64 / n_rows as f64;
        let parted = partitions.iter().map(|(name, rows)| (Some(name), share(*rows)));
        let whole = partitions.is_empty().then_some((None, 1.0));
        let partitions: Vec<_> = whole.into_iter().chain(parted).collect();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float saturates, and is at least 1 here"
        )]
        let count =
            |name: &str, share: f64| (n * self.config.split[name] * share).ceil().max(1.0) as u32;
        let of_split = |name: &&str| {
            let part = |(partition, share): &(Option<&String>, f64)| Part {
                split: (*name).to_owned(),
                partition: partition.cloned(),
                n_buckets: count(name, *share),
            };
            partitions.iter().map(part).collect::<Vec<_>>()
        };
        let parts = names.iter().flat_map(of_split).collect();
        Buckets { splits: Arc::clone(&self.splits), parts, seed: run.job.job.seed }
    }
}

fn sort_bytes(run: &Run) -> u64 {
    run.job.job.memory.0 / SORT_SHARE
}

/// What is left to encode: documents without some rows and some spans.
#[derive(Clone, Debug)]
pub struct Left {
    pub(super) documents: Snapshot,
    duplicates: Option<Snapshot>,
    repeats: Option<Snapshot>,
    pub(super) removed: Arc<Reasons>,
    /// What documents lose to evaluation sets that are not left out for it.
    outcome: Arc<Outcome>,
    pub(super) parents: Vec<Parent>,
}

impl Left {
    /// Takes from `documents` what the other stages say; copies go as copies, contaminated or not.
    ///
    /// # Errors
    /// When one of the datasets cannot be read.
    pub fn new(
        documents: &Snapshot,
        duplicates: Option<&Snapshot>,
        repeats: Option<&Snapshot>,
        contaminated: Option<&(Snapshot, Arc<Outcome>)>,
    ) -> Result<Self> {
        let contamination = contaminated.map(|(snapshot, _)| snapshot);
        let parents = [Some(documents), duplicates, repeats, contamination];
        let parents = parents.into_iter().flatten().map(parent).collect();
        let outcome = contaminated.map(|(_, outcome)| Arc::clone(outcome)).unwrap_or_default();
        let mut removed = removed(duplicates, repeats)?;
        for (id, reason) in &outcome.dropped {
            removed.entry(*id).or_insert_with(|| Arc::clone(reason));
        }
        let (documents, repeats) = (documents.clone(), repeats.cloned());
        let duplicates = duplicates.cloned();
        Ok(Self { documents, duplicates, repeats, removed: Arc::new(removed), outcome, parents })
    }

    /// Makes the same from the versions that a stage reads.
    ///
    /// # Errors
    /// As [`Left::new`], and when a version is another one here.
    pub(super) fn open(plan: &crate::run::Plan, inputs: &Inputs) -> Result<Self> {
        let read = |kind| inputs.snapshot(&plan.run, kind);
        let contaminated = match (read(DatasetKind::Contamination)?, &plan.contamination) {
            (Some(snapshot), Some(plan)) => {
                let outcome = Arc::new(Outcome::read(&snapshot, plan)?);
                Some((snapshot, outcome))
            }
            _ => None,
        };
        Self::new(
            &inputs.documents(&plan.run)?,
            read(DatasetKind::Duplicates)?.as_ref(),
            read(DatasetKind::Repeats)?.as_ref(),
            contaminated.as_ref(),
        )
    }

    /// The spans to cut from the texts of a shard of documents.
    fn cuts(&self, index: usize) -> Result<Cuts> {
        Cuts::open(self.repeats.as_ref(), index, Arc::clone(&self.removed))
    }
}

/// The documents that are left out, each with the reason.
pub(crate) type Reasons = HashMap<Id, Arc<str>>;

/// Number of documents that are copies, by `dedup/method`.
///
/// # Errors
/// When `duplicates` cannot be read.
pub fn duplicate_counts(duplicates: &Snapshot) -> Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for shard in &duplicates.manifest.shards {
        read_columns(duplicates, shard, &["method"], |batch| {
            for method in batch.column(0).as_string::<i32>().iter().flatten() {
                *counts.entry(format!("dedup/{method}")).or_default() += 1;
            }
            Ok(())
        })?;
    }
    Ok(counts)
}

/// The documents that are copies, or of which repeats leave too little, each with `dedup/method`.
///
/// # Errors
/// When a dataset cannot be read.
pub(super) fn removed(
    duplicates: Option<&Snapshot>,
    repeats: Option<&Snapshot>,
) -> Result<Reasons> {
    let mut removed = Reasons::new();
    let mut reasons: HashMap<String, Arc<str>> = HashMap::new();
    if let Some(repeats) = repeats {
        repeats::add_removed(repeats, &mut removed)?;
    }
    let Some(duplicates) = duplicates else { return Ok(removed) };
    for shard in &duplicates.manifest.shards {
        read_columns(duplicates, shard, &["id", "method"], |batch| {
            let ids = batch.column(0).as_fixed_size_binary();
            let methods = batch.column(1).as_string::<i32>();
            for row in 0..batch.num_rows() {
                let reason = reasons
                    .entry(methods.value(row).to_owned())
                    .or_insert_with_key(|method| Arc::from(format!("dedup/{method}")));
                removed.insert(id(ids.value(row)), Arc::clone(reason));
            }
            Ok(())
        })?;
    }
    Ok(removed)
}

/// Positions in `shard` of the documents that are left out, and their number by reason.
///
/// # Errors
/// When the shard cannot be read.
pub(super) fn removed_rows(
    documents: &Snapshot,
    shard: &Shard,
    removed: &Reasons,
) -> Result<(Vec<u64>, BTreeMap<String, u64>)> {
    let (mut rows, mut dropped) = (Vec::new(), BTreeMap::new());
    if removed.is_empty() {
        return Ok((rows, dropped));
    }
    let mut position = 0;
    read_columns(documents, shard, &["id"], |batch| {
        let ids = batch.column(0).as_fixed_size_binary();
        for row in 0..batch.num_rows() {
            if let Some(reason) = removed.get(&id(ids.value(row))) {
                *dropped.entry(reason.to_string()).or_default() += 1;
                rows.push(position);
            }
            position += 1;
        }
        Ok(())
    })?;
    Ok((rows, dropped))
}

pub(crate) fn id(bytes: &[u8]) -> Id {
    bytes.try_into().expect("ids have 16 bytes")
}

/// Reads columns of a shard, in the order of the schema, batch by batch.
///
/// # Errors
/// When the shard cannot be read.
pub(crate) fn read_columns(
    snapshot: &Snapshot,
    shard: &Shard,
    columns: &[&str],
    mut visit: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    let path = snapshot.local_shard(shard)?;
    for batch in open_columns(&path, columns)? {
        visit(&batch.map_err(shard::Error::arrow("read", &path))?)?;
    }
    Ok(())
}

/// Opens columns of a shard, in the order of the schema.
pub(super) fn open_columns(
    path: &Path,
    columns: &[&str],
) -> Result<parquet::arrow::arrow_reader::ParquetRecordBatchReader> {
    let file = std::fs::File::open(path).map_err(shard::Error::io("open", path))?;
    let error = |error: parquet::errors::ParquetError| shard::Error::arrow("read", path)(error);
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(error)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    Ok(builder.with_projection(mask).with_batch_size(1024).build().map_err(error)?)
}

/// The plan above a scan of `columns` and those that `partition` needs: `id`, what `tokens` makes of the former, and the
/// partition.
fn projection(
    ctx: &SessionContext,
    scan: Arc<dyn ExecutionPlan>,
    columns: &[&str],
    tokens: &ScalarUDF,
    partition: Option<Expr>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = DFSchema::try_from(scan.schema())?;
    let tokens = tokens.call(columns.iter().map(|name| col(*name)).collect());
    let exprs = [(col("id"), "document_id"), (tokens, "tokens")]
        .into_iter()
        .chain(partition.map(|expr| (expr, "partition")))
        .map(|(expr, alias)| {
            let expr = ctx.create_physical_expr(expr, &schema)?;
            Ok(ProjectionExpr { expr, alias: alias.to_owned() })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(ProjectionExec::try_new(exprs, scan)?))
}

/// The tokens of what `cuts` and `outcome` leave of a text, ended by the token that ends a document.
fn tokens_udf(tokenizer: Arc<Tokenizer>, cuts: Cuts, outcome: Arc<Outcome>) -> ScalarUDF {
    let cuts = Mutex::new(cuts);
    let item = Field::new("item", DataType::UInt32, false);
    let field = item.clone();
    let fun = move |args: &[ColumnarValue]| {
        let columns = ColumnarValue::values_to_arrays(args)?;
        // Batches come one after the other, and rows in the order of the shard.
        let mut cuts = cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut builder = ListBuilder::new(UInt32Builder::new()).with_field(field.clone());
        let mut ids = Vec::new();
        let documents = columns[0].as_fixed_size_binary().iter().zip(columns[1].as_string_view());
        for (document, text) in documents {
            ids.clear();
            let document = id(document.expect("ids are never null"));
            let text = text.unwrap_or_default();
            let text = outcome.clean(&document, text, &cuts.spans(&document)?);
            tokenizer.encode(&text, &mut ids).map_err(Error::from)?;
            ids.extend(tokenizer.end_of_document());
            builder.values().append_slice(&ids);
            builder.append(true);
        }
        Ok(ColumnarValue::Array(Arc::new(builder.finish())))
    };
    let output = DataType::List(Arc::new(item));
    let input = vec![DataType::FixedSizeBinary(ID_BYTES), DataType::Utf8View];
    create_udf("tokens", input, output, Volatility::Volatile, Arc::new(fun))
}

/// The columns of `tokens`, with the mask where not every token is a target, and the weights where the job wants them.
fn schema(is_masked: bool, is_weighted: bool) -> SchemaRef {
    let schema = DatasetKind::Tokens.schema();
    let mut fields: Vec<FieldRef> = schema.fields().iter().cloned().collect();
    if is_masked {
        fields.push(Arc::new(loss_mask_field()));
    }
    if is_weighted {
        fields.extend(weight_fields().map(Arc::new));
    }
    Arc::new(Schema::new(fields))
}

fn table(job: &LoadedJob, reweight: &Reweight) -> Result<Table> {
    let key = "dedup.reweight";
    match reweight {
        Reweight::Published(name) if name == "fineweb2" => Ok(Table::fineweb2()),
        Reweight::Published(name) => Err(job.unknown(key, name, ["fineweb2"].into_iter())),
        Reweight::Table(weights) => Table::read(weights).map_err(|message| {
            let hint = "write the weight from each size on: `{ 1 = 1, 2 = 2, 1000 = 1 }`";
            job.error(key, message, Some(hint.to_owned()))
        }),
    }
}

/// Writes one bucket of all runs as a shard; none when no document fell into it.
fn sort_one(
    runs: &[RunFile],
    bucket: u32,
    weights: Option<&Weights>,
    dataset: &shard::Dataset,
    name: &str,
    split: &str,
) -> Result<Option<Shard>> {
    let mut batches = Vec::new();
    for run in runs {
        batches.extend(read_bucket(run, bucket)?);
    }
    if batches.is_empty() {
        return Ok(None);
    }
    let schema = schema(batches[0].num_columns() > 3, weights.is_some());
    let mut writer = ShardWriter::create(dataset, name, split, &schema)?;
    for rows in sort_bucket(&batches) {
        let rows = rows?;
        let lengths = rows.column(2).as_list::<i32>().offsets().lengths();
        let n_tokens = UInt32Array::from_iter_values(
            lengths.map(|n| u32::try_from(n).expect("a document has less than 4 G tokens")),
        );
        let mut columns: Vec<ArrayRef> =
            vec![Arc::clone(rows.column(1)), Arc::clone(rows.column(2)), Arc::new(n_tokens)];
        columns.extend(rows.columns().get(3).cloned());
        if let Some(weights) = weights {
            columns.extend(weights.columns(rows.column(1).as_fixed_size_binary()));
        }
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
    }
    Ok(Some(writer.finish()?))
}

/// The texts that a tokenizer is trained on: of the split `train`, without duplicates and repeats, in corpus order.
struct Texts {
    shards: std::iter::Enumerate<std::vec::IntoIter<PathBuf>>,
    reader: Option<(PathBuf, parquet::arrow::arrow_reader::ParquetRecordBatchReader, Cuts)>,
    batch: Option<(RecordBatch, usize)>,
    left: Left,
    splits: Arc<Splits>,
    seed: u64,
    /// Documents whose hash is at most this are read.
    threshold: u64,
    n_bytes: Arc<std::sync::atomic::AtomicU64>,
    /// What ended the texts early.
    failure: Arc<Mutex<Option<Error>>>,
}

impl Texts {
    fn new(plan: &Plan, run: &Run, left: &Left) -> Self {
        let documents = &left.documents;
        let stored: u64 = documents.manifest.shards.iter().map(|shard| shard.bytes).sum();
        let text_bytes = stored * TOKEN_BYTES_PER_BYTE;
        let sample = plan.config.tokenizer_sample.0;
        let threshold = match text_bytes <= sample {
            true => u64::MAX,
            false => {
                let share = u128::from(u64::MAX) * u128::from(sample) / u128::from(text_bytes);
                u64::try_from(share).expect("a share is below one")
            }
        };
        let paths: Vec<PathBuf> =
            documents.manifest.shards.iter().map(|shard| documents.shard_path(shard)).collect();
        Self {
            shards: paths.into_iter().enumerate(),
            reader: None,
            batch: None,
            left: left.clone(),
            splits: Arc::clone(&plan.splits),
            seed: run.job.job.seed,
            threshold,
            n_bytes: Arc::default(),
            failure: Arc::default(),
        }
    }

    fn next_text(&mut self) -> Result<Option<String>> {
        loop {
            if let Some((batch, row)) = &mut self.batch {
                let ids = batch.column(0).as_fixed_size_binary();
                while *row < batch.num_rows() {
                    let current = *row;
                    *row += 1;
                    let id = id(ids.value(current));
                    let is_wanted = xxh3_64_with_seed(&id, SAMPLE_SEED) <= self.threshold
                        && self.splits.of(&id, self.seed) == TRAIN
                        && !self.left.removed.contains_key(&id);
                    let text = batch.column(1).as_string::<i32>().value(current);
                    if let Some((_, _, cuts)) = &mut self.reader
                        && !self.left.removed.contains_key(&id)
                    {
                        let spans = cuts.spans(&id)?;
                        if is_wanted {
                            let text = self.left.outcome.clean(&id, text, &spans).into_owned();
                            let bytes = text.len() as u64;
                            self.n_bytes.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
                            return Ok(Some(text));
                        }
                    }
                }
                self.batch = None;
            }
            match &mut self.reader {
                Some((path, reader, _)) => match reader.next() {
                    Some(batch) => {
                        self.batch = Some((batch.map_err(shard::Error::arrow("read", path))?, 0));
                    }
                    None => self.reader = None,
                },
                None => match self.shards.next() {
                    Some((index, path)) => {
                        let reader = open_columns(&path, &["id", "text"])?;
                        self.reader = Some((path, reader, self.left.cuts(index)?));
                    }
                    None => return Ok(None),
                },
            }
        }
    }
}

impl Iterator for Texts {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.next_text().unwrap_or_else(|error| {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            None
        })
    }
}

/// A tokenizer that was trained, not yet in the dataset.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Trained {
    path: PathBuf,
    bytes: u64,
    text_bytes: u64,
}

impl Output for Trained {
    fn files(&self) -> Vec<(PathBuf, u64)> {
        vec![(self.path.clone(), self.bytes)]
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EncodeOutput {
    runs: Vec<RunFile>,
    counts: Counts,
    /// What the chat template said of the first conversation that it refused.
    #[serde(default)]
    refused: Option<String>,
}

impl Output for EncodeOutput {
    fn files(&self) -> Vec<(PathBuf, u64)> {
        self.runs.iter().map(|run| (run.path.clone(), run.bytes)).collect()
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SortOutput {
    dataset: PathBuf,
    shard: Option<Shard>,
}

impl Output for SortOutput {
    fn files(&self) -> Vec<(PathBuf, u64)> {
        let shards = self.shard.iter();
        shards.map(|shard| (self.dataset.join(&shard.path), shard.bytes)).collect()
    }

    fn hash(&self, _file: usize) -> Option<&str> {
        self.shard.as_ref().map(|shard| shard.blake3.as_str())
    }
}
