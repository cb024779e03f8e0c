//! The work of the units of the three passes.

use std::path::PathBuf;
use std::sync::Arc;

use dedup::span::Pieces;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shard::Dataset;
use shard::manifest::Shard;
use shard::schema::DatasetKind;

use super::{Found, Ids, Search, Spilled, Written};
use crate::Result;
use crate::run::Plan;
use crate::stage::unit::{Inputs, Work};

impl Search {
    fn inputs(&self, more: Value) -> Inputs {
        Inputs { config: self.config.clone(), parents: self.parents.clone(), more }
    }

    fn open<T: DeserializeOwned>(
        plan: &Plan,
        inputs: &Inputs,
        stage: &str,
    ) -> Result<(Arc<Self>, T)> {
        let methods = plan.repeats.as_ref().expect("the job finds spans");
        inputs.check(stage, &methods.config())?;
        let documents = inputs.documents(&plan.run)?;
        let duplicates = inputs.snapshot(&plan.run, DatasetKind::Duplicates)?;
        let search = Self::new(methods, &plan.run, &documents, duplicates.as_ref())?;
        Ok((Arc::new(search), inputs.more()?))
    }
}

/// Pieces of a shard of documents, by key.
#[derive(Debug)]
pub(crate) struct Spilling {
    pub(super) search: Arc<Search>,
    pub(super) folder: PathBuf,
}

impl Work for Spilling {
    type Unit = Shard;
    type Output = Spilled;
    const STAGE: &'static str = "pieces";

    fn inputs(&self) -> Inputs {
        self.search.inputs(json!(self.folder))
    }

    fn open(plan: &Plan, inputs: Inputs) -> Result<Self> {
        let (search, folder) = Search::open(plan, &inputs, Self::STAGE)?;
        Ok(Self { search, folder })
    }

    async fn run(self: Arc<Self>, index: usize, shard: Shard) -> Result<Spilled> {
        self.search.spill_shard(index, &shard, &self.folder)
    }
}

/// The copies in a partition of keys.
#[derive(Debug)]
pub(crate) struct Searching {
    pub(super) search: Arc<Search>,
    pub(super) folder: PathBuf,
    /// Files by method and shard.
    pub(super) pieces: Vec<Vec<PathBuf>>,
}

impl Work for Searching {
    type Unit = (usize, u32);
    type Output = Found;
    const STAGE: &'static str = "found";

    fn inputs(&self) -> Inputs {
        self.search.inputs(json!([self.folder, self.pieces]))
    }

    fn open(plan: &Plan, inputs: Inputs) -> Result<Self> {
        let (search, (folder, pieces)) = Search::open(plan, &inputs, Self::STAGE)?;
        Ok(Self { search, folder, pieces })
    }

    async fn run(self: Arc<Self>, _index: usize, (method, partition): Self::Unit) -> Result<Found> {
        let path = self.folder.join(format!("found-{method}-{partition:06}"));
        let pieces = Pieces { paths: &self.pieces[method], partition };
        self.search.find_in(method, pieces, path)
    }
}

/// A shard of repeats for a shard of documents.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(super) search: Arc<Search>,
    pub(super) dataset: Dataset,
    /// Files of ids by shard.
    pub(super) ids: Vec<PathBuf>,
    pub(super) found: Vec<Found>,
}

impl Work for Writing {
    type Unit = Shard;
    type Output = Written;
    const STAGE: &'static str = "repeats";

    fn inputs(&self) -> Inputs {
        self.search.inputs(json!([self.ids, self.found]))
    }

    fn open(plan: &Plan, inputs: Inputs) -> Result<Self> {
        let (search, (ids, found)) = Search::open(plan, &inputs, Self::STAGE)?;
        Ok(Self { search, dataset: plan.run.dataset(DatasetKind::Repeats), ids, found })
    }

    async fn run(self: Arc<Self>, index: usize, shard: Shard) -> Result<Written> {
        let ids = Ids { paths: &self.ids, first_rows: &self.search.first_rows };
        let shard = self.search.write_shard(index, &shard, &self.dataset, &ids, &self.found)?;
        Ok(Written { dataset: self.dataset.path().to_owned(), shard })
    }
}
