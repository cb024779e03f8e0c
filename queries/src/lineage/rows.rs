//! Rows that are made while they are asked for, on a thread of their own.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableFunctionArgs;
use datafusion::catalog::streaming::StreamingTable;
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
pub(super) fn ids(
    arguments: &TableFunctionArgs<'_, '_>,
    function: &str,
) -> EngineResult<Option<Arc<BTreeSet<Id>>>> {
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
    Ok((!ids.is_empty()).then(|| Arc::new(ids)))
}
