//! The rows of `duplicates`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeBinaryBuilder, Float64Builder, StringViewBuilder, UInt64Builder,
};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use shard::Dataset;
use shard::manifest::Shard;
use shard::schema::{DatasetKind, ID_BYTES};
use shard::writer::ShardWriter;

use super::removals::{Gone, Removals};
use super::rows::index;
use super::work::Work;
use super::{Methods, SHARE};
use crate::Result;
use crate::stage::tokens::Id;

/// What the ids of a removed and a kept document take in a table by row, about.
const IDS_BYTES: u64 = 128;

impl Methods {
    pub(super) fn write(
        &self,
        dataset: &Dataset,
        work: &Work<'_>,
        gone: &Removals,
    ) -> Result<Option<Shard>> {
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

pub(super) fn dataset_schema() -> SchemaRef {
    DatasetKind::Duplicates.schema()
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
