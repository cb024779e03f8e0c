//! Rows that are made while they are asked for, on a thread of their own, and the functions that make them of documents.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result as EngineResult, plan_err};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::PartitionStream;

use super::Id;
use crate::Result;
use crate::catalog::text_literal;
use crate::function::id_of;

/// Takes a batch; `false` means that nobody wants another.
pub(super) type Send<'a> = &'a mut dyn FnMut(RecordBatch) -> bool;
type Make = dyn Fn(Send<'_>) -> Result<()> + std::marker::Send + Sync;

/// A function that takes ids, and gives rows of a corpus about these documents, of all without an id.
#[derive(Clone, Debug)]
pub(super) struct AboutDocuments {
    /// Its name in SQL.
    pub(super) name: &'static str,
    /// The columns of its rows.
    pub(super) schema: fn() -> SchemaRef,
    /// Sends the rows until nobody wants more.
    pub(super) make: fn(&Path, Option<&BTreeSet<Id>>, Send<'_>) -> Result<()>,
    /// The folder of the corpus.
    pub(super) corpus: PathBuf,
}

impl TableFunctionImpl for AboutDocuments {
    fn call_with_args(
        &self,
        arguments: TableFunctionArgs<'_, '_>,
    ) -> EngineResult<Arc<dyn TableProvider>> {
        let documents = ids(&arguments, self.name)?;
        let (make, corpus) = (self.make, self.corpus.clone());
        let table =
            Rows::table((self.schema)(), move |send| make(&corpus, documents.as_ref(), send))?;
        Ok(Arc::new(table))
    }
}

/// One partition of rows of `schema`.
pub(super) struct Rows {
    schema: SchemaRef,
    make: Arc<Make>,
}

impl Rows {
    /// Returns a table of the batches that `make` sends whenever it is scanned.
    pub(super) fn table(
        schema: SchemaRef,
        make: impl Fn(Send<'_>) -> Result<()> + std::marker::Send + Sync + 'static,
    ) -> EngineResult<StreamingTable> {
        let rows = Self { schema: Arc::clone(&schema), make: Arc::new(make) };
        StreamingTable::try_new(schema, vec![Arc::new(rows)])
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut stream = RecordBatchReceiverStream::builder(Arc::clone(&self.schema), 2);
        let sender = stream.tx();
        let make = Arc::clone(&self.make);
        stream.spawn_blocking(move || {
            make(&mut |batch| sender.blocking_send(Ok(batch)).is_ok())?;
            Ok(())
        });
        stream.build()
    }
}

/// The ids that a function is called with; nothing without arguments, which stands for all documents.
fn ids(
    arguments: &TableFunctionArgs<'_, '_>,
    function: &str,
) -> EngineResult<Option<BTreeSet<Id>>> {
    let mut ids = BTreeSet::new();
    for argument in arguments.exprs() {
        match text_literal(argument).and_then(id_of::decode) {
            Some(id) => ids.insert(id),
            None => {
                return plan_err!(
                    "`{argument}` is no id: `{0}('<32 hexadecimal digits>', …)` is about some documents, `{0}()` about all",
                    function
                );
            }
        };
    }
    Ok(Some(ids).filter(|ids| !ids.is_empty()))
}
