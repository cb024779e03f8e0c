//! The work of the units of both steps.

use std::sync::Arc;

use dedup::contamination::Index;
use serde_json::{Value, json};
use shard::Dataset;
use shard::dataset::Snapshot;
use shard::manifest::Shard;
use shard::schema::DatasetKind;

use super::{Found, Hits, JudgeOutput, Rests, Texts, find_shard, judge_shard};
use crate::stage::unit::{Inputs, Work};
use crate::stage::{parent, tokens};
use crate::{Result, run};

/// The work of the first step.
#[derive(Debug)]
pub(crate) struct Scanning {
    pub(super) index: Arc<Index>,
    pub(super) documents: Snapshot,
    pub(super) removed: Arc<tokens::Reasons>,
    pub(super) inputs: Inputs,
}

impl Work for Scanning {
    type Unit = (Shard, Vec<u64>);
    type Output = Found;
    const STAGE: &'static str = "find";

    fn inputs(&self) -> Inputs {
        self.inputs.clone()
    }

    fn open(plan: &run::Plan, inputs: Inputs) -> Result<Self> {
        let own = plan.contamination.as_ref().expect("the job has benchmarks");
        inputs.check(Self::STAGE, &own.config())?;
        let documents = inputs.documents(&plan.run)?;
        let duplicates = inputs.snapshot(&plan.run, DatasetKind::Duplicates)?;
        let repeats = inputs.snapshot(&plan.run, DatasetKind::Repeats)?;
        let removed = Arc::new(tokens::removed(duplicates.as_ref(), repeats.as_ref())?);
        Ok(Self { index: Arc::clone(&own.benchmarks.index), documents, removed, inputs })
    }

    async fn run(self: Arc<Self>, _index: usize, (shard, _): Self::Unit) -> Result<Found> {
        let (gone, _) = tokens::removed_rows(&self.documents, &shard, &self.removed)?;
        let texts = Texts { snapshot: &self.documents, tokenizer: None };
        find_shard(&self.index, &texts, &shard, &gone)
    }
}

/// The work of the second step.
#[derive(Debug)]
pub(crate) struct Judging {
    pub(super) index: Arc<Index>,
    pub(super) documents: Snapshot,
    pub(super) frequency: Arc<Vec<u64>>,
    pub(super) repeats: Option<Snapshot>,
    pub(super) dataset: Dataset,
    pub(super) config: Value,
}

impl Work for Judging {
    type Unit = (Shard, Vec<u64>);
    type Output = JudgeOutput;
    const STAGE: &'static str = "judge";

    fn inputs(&self) -> Inputs {
        let parents = [Some(&self.documents), self.repeats.as_ref()];
        // Few n-grams of benchmarks are in any document.
        let found = self.frequency.iter().enumerate().filter(|(_, n)| **n > 0);
        Inputs {
            config: self.config.clone(),
            parents: parents.into_iter().flatten().map(parent).collect(),
            more: json!(found.collect::<Vec<_>>()),
        }
    }

    fn open(plan: &run::Plan, inputs: Inputs) -> Result<Self> {
        let own = plan.contamination.as_ref().expect("the job has benchmarks");
        inputs.check(Self::STAGE, &own.config())?;
        let mut frequency = vec![0; own.index().n_grams()];
        for (gram, n) in inputs.more::<Vec<(usize, u64)>>()? {
            frequency[gram] = n;
        }
        Ok(Self {
            index: Arc::clone(&own.benchmarks.index),
            documents: inputs.documents(&plan.run)?,
            frequency: Arc::new(frequency),
            repeats: inputs.snapshot(&plan.run, DatasetKind::Repeats)?,
            dataset: plan.run.dataset(DatasetKind::Contamination),
            config: inputs.config,
        })
    }

    async fn run(self: Arc<Self>, index: usize, (shard, rows): Self::Unit) -> Result<JudgeOutput> {
        let grams = &self.index;
        let texts = Texts { snapshot: &self.documents, tokenizer: None };
        let rests = Rests::open(&self.documents, &shard, &rows, self.repeats.as_ref(), index)?;
        let mut hits = Hits::new(grams, &self.dataset, format!("unit-{index:06}"));
        judge_shard(grams, &texts, &shard, &rows, &self.frequency, |id, text, finding| {
            let finding = rests.judge(id, text, finding, grams.config());
            hits.push(id, finding)
        })?;
        Ok(JudgeOutput { dataset: self.dataset.path().to_owned(), shard: hits.finish()? })
    }
}
