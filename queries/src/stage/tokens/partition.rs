//! What documents are parted by: the value of an expression for each of them, and how many have each value.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarUDF, Volatility, cast, create_udf};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::prelude::{SessionContext, col};
use futures::TryStreamExt;
use shard::schema::{ID_BYTES, weight_fields};

use super::{Left, removed_rows};
use crate::exec::run_sink::partition_of;
use crate::exec::shard_scan::{scan, schema_of};
use crate::job::LoadedJob;
use crate::stage::weights::Weights;
use crate::{Error, Result};

/// Partitions of a dataset, at most: each has shards of its own.
const PARTITIONS_MAX: usize = 256;
/// The key of the job.
const KEY: &str = "shard.partition";

/// `[shard] partition`, parsed.
#[derive(Clone, Debug)]
pub(super) struct Partition {
    sql: String,
    expr: Expr,
    /// The columns of `documents` that it needs.
    columns: Vec<String>,
    /// Whether it needs those of [`weight_fields`].
    is_weighted: bool,
}

impl Partition {
    /// Parses `sql` over the columns of documents, and of weights where the job `is_weighted`.
    ///
    /// # Errors
    /// When it is no expression over them.
    pub(super) fn resolve(
        job: &LoadedJob,
        ctx: &SessionContext,
        documents: &SchemaRef,
        is_weighted: bool,
        sql: &str,
    ) -> Result<Self> {
        let weights = weight_fields().map(Arc::new);
        let known = documents.fields().iter().cloned();
        let known = known.chain(weights.iter().filter(|_| is_weighted).cloned());
        let schema = Arc::new(Schema::new(known.collect::<Vec<_>>()));
        let parse = || -> Result<Expr> {
            let schema = DFSchema::try_from(schema)?;
            let expr = ctx.parse_sql_expr(sql, &schema)?;
            // Types and arguments are checked here.
            ctx.create_physical_expr(expr.clone(), &schema)?;
            Ok(expr)
        };
        let expr = parse().map_err(|error| job.error(KEY, error.to_string(), None))?;
        let names = expr.column_refs();
        let mut columns: Vec<String> = names.into_iter().map(|it| it.name.clone()).collect();
        columns.sort_unstable();
        let is_weight = |name: &String| weights.iter().any(|field| field.name() == name);
        let is_weighted = columns.iter().any(is_weight);
        columns.retain(|name| !is_weight(name));
        Ok(Self { sql: sql.to_owned(), expr: cast(expr, DataType::Utf8), columns, is_weighted })
    }

    /// Returns `columns` and those that the expression needs besides.
    pub(super) fn columns<'a>(&'a self, columns: &[&'a str]) -> Vec<&'a str> {
        let own = self.columns.iter().map(String::as_str).filter(|name| !columns.contains(name));
        columns.iter().copied().chain(own).collect()
    }

    /// Returns `input` with the columns that the expression needs of `weights`, and the expression over them.
    pub(super) fn over(
        &self,
        input: Arc<dyn ExecutionPlan>,
        ctx: &SessionContext,
        weights: Option<&Arc<Weights>>,
    ) -> Result<(Arc<dyn ExecutionPlan>, Expr)> {
        let Some(weights) = weights.filter(|_| self.is_weighted) else {
            return Ok((input, self.expr.clone()));
        };
        let schema = DFSchema::try_from(input.schema())?;
        let own = input.schema();
        let own = own.fields().iter().map(|field| (col(field.name()), field.name().clone()));
        let weights = weight_fields().into_iter().enumerate().map(|(index, field)| {
            let udf = weight_udf(field.name(), index, Arc::clone(weights));
            (udf.call(vec![col("id")]), field.name().clone())
        });
        let exprs = own.chain(weights).map(|(expr, alias)| {
            Ok(ProjectionExpr { expr: ctx.create_physical_expr(expr, &schema)?, alias })
        });
        let exprs = exprs.collect::<Result<Vec<_>>>()?;
        Ok((Arc::new(ProjectionExec::try_new(exprs, input)?), self.expr.clone()))
    }

    /// Counts the documents of each partition, by name.
    ///
    /// # Errors
    /// When a shard cannot be read, or there are too many partitions.
    pub(super) async fn count(
        &self,
        job: &LoadedJob,
        ctx: &SessionContext,
        left: &Left,
        weights: Option<&Arc<Weights>>,
    ) -> Result<BTreeMap<String, u64>> {
        let documents = &left.documents;
        let schema = schema_of(&documents.manifest);
        let columns = self.columns(&["id"]);
        let mut counts = BTreeMap::new();
        for shard in &documents.manifest.shards {
            let (gone, _) = removed_rows(documents, shard, &left.removed)?;
            let scan = scan(documents, shard, &schema, &columns, &gone)?;
            let (plan, expr) = self.over(scan, ctx, weights)?;
            let schema = DFSchema::try_from(plan.schema())?;
            let expr = ctx.create_physical_expr(expr, &schema)?;
            let exprs = vec![ProjectionExpr { expr, alias: "partition".to_owned() }];
            let plan: Arc<dyn ExecutionPlan> = Arc::new(ProjectionExec::try_new(exprs, plan)?);
            let mut rows = datafusion::physical_plan::execute_stream(plan, ctx.task_ctx())?;
            while let Some(batch) = rows.try_next().await? {
                for value in batch.column(0).as_string::<i32>() {
                    let name = partition_of(value);
                    match counts.get_mut(name) {
                        Some(n) => *n += 1,
                        None => drop(counts.insert(name.to_owned(), 1)),
                    }
                }
                if counts.len() > PARTITIONS_MAX {
                    return Err(self.too_many(job, &counts));
                }
            }
        }
        Ok(counts)
    }

    fn too_many(&self, job: &LoadedJob, counts: &BTreeMap<String, u64>) -> Error {
        let some: Vec<&str> = counts.keys().take(3).map(String::as_str).collect();
        let message = format!(
            "`{}` has more than {PARTITIONS_MAX} values: `{}`, …",
            self.sql,
            some.join("`, `")
        );
        let hint = "give few: `case when score < 0.5 then 'low' else 'high' end`";
        job.error(KEY, message, Some(hint.to_owned()))
    }
}

/// Column `index` of [`weight_fields`] as a function of `documents.id`.
fn weight_udf(name: &str, index: usize, weights: Arc<Weights>) -> ScalarUDF {
    let fun = move |args: &[ColumnarValue]| {
        let ids = ColumnarValue::values_to_arrays(args)?;
        let column: ArrayRef = Arc::clone(&weights.columns(ids[0].as_fixed_size_binary())[index]);
        Ok(ColumnarValue::Array(column))
    };
    let output: Field = weight_fields()[index].clone();
    let input = vec![DataType::FixedSizeBinary(ID_BYTES)];
    create_udf(name, input, output.data_type().clone(), Volatility::Stable, Arc::new(fun))
}
