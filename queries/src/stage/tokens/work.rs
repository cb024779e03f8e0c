//! The work of the units of the stage: training a tokenizer, encoding a shard, sorting a bucket.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use arrow::datatypes::SchemaRef;
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::prelude::SessionContext;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shard::manifest::{Counts, Shard};
use shard::schema::DatasetKind;
use shard::store;
use shard::tokenizer::{Tokenizer, TokenizerSpec, train};

use super::{
    COLUMNS, EncodeOutput, Left, Partition, Plan, SortOutput, Texts, Trained, projection,
    removed_rows, sort_bytes, sort_one, tokens_udf,
};
use crate::exec::run_sink::{Buckets, RunFile, RunSink};
use crate::exec::shard_scan::{scan, schema_of};
use crate::stage::Run;
use crate::stage::chat::{self, Chat};
use crate::stage::unit::{Inputs, Work};
use crate::stage::weights::Weights;
use crate::{Result, run, session};

/// Trains a tokenizer: one unit.
#[derive(Debug)]
pub(crate) struct Learning {
    pub(super) plan: Plan,
    pub(super) run: Run,
    pub(super) left: Left,
    /// Where the tokenizer goes.
    pub(super) path: PathBuf,
    pub(super) config: Value,
}

impl Work for Learning {
    type Unit = ();
    type Output = Trained;
    const STAGE: &'static str = "tokenizer";

    fn inputs(&self) -> Inputs {
        Inputs {
            config: self.config.clone(),
            parents: self.left.parents.clone(),
            more: json!(self.path),
        }
    }

    fn open(plan: &run::Plan, inputs: Inputs) -> Result<Self> {
        let own = tokens(plan);
        inputs.check(Self::STAGE, &own.config(&plan.run)?)?;
        let (left, path) = (Left::open(plan, &inputs)?, inputs.more()?);
        Ok(Self { plan: own.clone(), run: plan.run.clone(), left, path, config: inputs.config })
    }

    async fn run(self: Arc<Self>, _index: usize, (): ()) -> Result<Trained> {
        let TokenizerSpec::Train { training, n_vocabulary } = self.plan.spec else {
            unreachable!("a tokenizer that is there is not trained")
        };
        let texts = Texts::new(&self.plan, &self.run, &self.left);
        let failure = Arc::clone(&texts.failure);
        let n_bytes = Arc::clone(&texts.n_bytes);
        let train = move || train(training, n_vocabulary, texts);
        let trained = tokio::task::spawn_blocking(train).await;
        let bytes = trained.expect("training does not panic")?;
        if let Some(error) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        store::replace(&self.path, &bytes)?;
        let text_bytes = n_bytes.load(Ordering::Relaxed);
        Ok(Trained { path: self.path.clone(), bytes: bytes.len() as u64, text_bytes })
    }
}

/// Where the first pass writes, where its tokenizer lies when it was trained for it, and what documents are parted into.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    pub(super) tokenizer: Option<PathBuf>,
    /// How many documents each partition has; none where they are not parted.
    pub(super) partitions: BTreeMap<String, u64>,
}

/// Encodes shards of documents into sorted runs.
pub(crate) struct Encoding {
    left: Left,
    chat: Option<chat::Plan>,
    partition: Option<Partition>,
    /// What the partition needs.
    weights: Option<Arc<Weights>>,
    tokenizer: Arc<Tokenizer>,
    place: Place,
    config: Value,
    schema: SchemaRef,
    buckets: Buckets,
    run_bytes: usize,
    ctx: SessionContext,
}

impl Encoding {
    pub(super) fn new(
        plan: &Plan,
        run: &Run,
        left: &Left,
        tokenizer: &Arc<Tokenizer>,
        place: Place,
    ) -> Result<Self> {
        Ok(Self {
            left: left.clone(),
            chat: plan.chat.clone(),
            partition: plan.partition.clone(),
            weights: plan.partition.as_ref().map_or(Ok(None), |_| plan.weights(left))?,
            tokenizer: Arc::clone(tokenizer),
            config: plan.config(run)?,
            schema: schema_of(&left.documents.manifest),
            buckets: plan.buckets(run, &left.documents, &place.partitions),
            place,
            run_bytes: usize::try_from(sort_bytes(run)).unwrap_or(usize::MAX),
            ctx: session::session(&run.runtime, 1)?,
        })
    }
}

impl Work for Encoding {
    type Unit = Shard;
    type Output = EncodeOutput;
    const STAGE: &'static str = "encode";

    fn inputs(&self) -> Inputs {
        Inputs {
            config: self.config.clone(),
            parents: self.left.parents.clone(),
            more: json!([self.place, self.tokenizer.fingerprint()]),
        }
    }

    fn open(plan: &run::Plan, inputs: Inputs) -> Result<Self> {
        let own = tokens(plan);
        inputs.check(Self::STAGE, &own.config(&plan.run)?)?;
        let (place, fingerprint): (Place, String) = inputs.more()?;
        let tokenizer = match (&place.tokenizer, &own.spec) {
            (Some(path), _) | (None, TokenizerSpec::Path(path)) => Tokenizer::load(path)?,
            (None, TokenizerSpec::Train { .. }) => unreachable!("it was trained before"),
        };
        let found = tokenizer.fingerprint();
        if found != fingerprint {
            let message = format!("the tokenizer is {found} here, wanted is {fingerprint}");
            let hint = "all machines must see one folder".to_owned();
            return Err(plan.run.job.error("shard.tokenizer", message, Some(hint)));
        }
        Self::new(own, &plan.run, &Left::open(plan, &inputs)?, &Arc::new(tokenizer), place)
    }

    async fn run(self: Arc<Self>, index: usize, shard: Shard) -> Result<EncodeOutput> {
        let left = &self.left;
        let (gone, dropped) = removed_rows(&left.documents, &shard, &left.removed)?;
        let chat = self.chat.as_ref().map(|chat| chat.load(Arc::clone(&self.tokenizer)));
        let chat = chat.transpose()?.map(Arc::new);
        let columns = if chat.is_some() { &COLUMNS[..] } else { &COLUMNS[..2] };
        let all = self.partition.as_ref().map(|it| it.columns(columns));
        let all = all.unwrap_or_else(|| columns.to_vec());
        let mut scan = scan(&left.documents, &shard, &self.schema, &all, &gone)?;
        let mut partition = None;
        if let Some(parted) = &self.partition {
            let (wider, expr) = parted.over(scan, &self.ctx, self.weights.as_ref())?;
            (scan, partition) = (wider, Some(expr));
        }
        let tokens = match &chat {
            Some(chat) => chat::tokens_udf(Arc::clone(chat)),
            None => {
                let tokenizer = Arc::clone(&self.tokenizer);
                tokens_udf(tokenizer, left.cuts(index)?, Arc::clone(&left.outcome))
            }
        };
        let plan = projection(&self.ctx, scan, columns, &tokens, partition)?;
        let (folder, name) = (self.place.folder.clone(), format!("run-{index:06}"));
        let buckets = self.buckets.clone();
        let sink = Arc::new(RunSink::new(folder, name, buckets, self.run_bytes, plan.schema()));
        let plan = DataSinkExec::new(plan, Arc::clone(&sink) as Arc<dyn DataSink>, None);
        datafusion::physical_plan::collect(Arc::new(plan), self.ctx.task_ctx()).await?;
        let (runs, n_kept) = sink.take().expect("the plan ended well");
        let refused = chat.map(|chat: Arc<Chat>| chat.take_refused()).unwrap_or_default();
        let mut dropped = dropped;
        dropped.extend(refused.counts);
        let counts = Counts { n_in: shard.rows, n_kept, dropped };
        counts.assert_complete("encode");
        Ok(EncodeOutput { runs, counts, refused: refused.first })
    }
}

/// Sorts buckets into shards.
#[derive(Debug)]
pub(crate) struct Sorting {
    pub(super) run: Run,
    pub(super) left: Left,
    pub(super) runs: Vec<RunFile>,
    pub(super) weights: Option<Arc<Weights>>,
}

impl Work for Sorting {
    type Unit = (String, Option<String>, u32);
    type Output = SortOutput;
    const STAGE: &'static str = "sort";

    fn inputs(&self) -> Inputs {
        Inputs { parents: self.left.parents.clone(), more: json!(self.runs), ..Inputs::default() }
    }

    fn open(plan: &run::Plan, inputs: Inputs) -> Result<Self> {
        let own = tokens(plan);
        let left = Left::open(plan, &inputs)?;
        let weights = own.weights(&left)?;
        let runs = inputs.more()?;
        Ok(Self { run: plan.run.clone(), left, runs, weights })
    }

    async fn run(
        self: Arc<Self>,
        index: usize,
        (split, partition, number): Self::Unit,
    ) -> Result<SortOutput> {
        // On the thread itself: a pool of blocking threads would sort each bucket on another one, and the
        // allocator keeps a bucket's worth of freed memory for each of them.
        let bucket = u32::try_from(index).expect("buckets are counted in 32 bits");
        let name = format!("{split}-{number:05}");
        let dataset = self.run.dataset(DatasetKind::Tokens);
        let weights = self.weights.as_deref();
        let shard = sort_one(&self.runs, bucket, weights, &dataset, &name, &split)?;
        let shard = shard.map(|shard| Shard { partition, ..shard });
        Ok(SortOutput { dataset: dataset.path().to_owned(), shard })
    }
}

fn tokens(plan: &run::Plan) -> &Plan {
    plan.tokens.as_ref().expect("the job makes tokens")
}
