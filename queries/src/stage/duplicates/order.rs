//! Which document of a cluster stays: the first by `priority`.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{SchemaRef, UInt64Type};
use datafusion::common::DFSchema;
use datafusion::logical_expr::SortExpr;
use datafusion::prelude::{SessionContext, col};
use futures::StreamExt;
use shard::dataset::Snapshot;
use shard::schema::DatasetKind;

use super::rows::index;
use crate::stage::Run;
use crate::{Result, catalog, session};

/// The columns that hold the values of `priority`: this and a number from 0.
pub(super) const PRIORITY: &str = "priority_";

/// The order of preference.
#[derive(Debug)]
pub(super) enum Order {
    /// By row.
    Rows,
    /// By `priority`: the rank of each row, and the row of each rank.
    Ranks { rank_of: Vec<u32>, row_of: Vec<u32> },
}

impl Order {
    pub(super) fn rank(&self, row: u32) -> u32 {
        match self {
            Self::Rows => row,
            Self::Ranks { rank_of, .. } => rank_of[row as usize],
        }
    }

    pub(super) fn row(&self, rank: u32) -> u32 {
        match self {
            Self::Rows => rank,
            Self::Ranks { row_of, .. } => row_of[rank as usize],
        }
    }

    /// Reads the order of preference: by the values of `priority`, ties by id.
    pub(super) async fn read(
        priority: &[String],
        run: &Run,
        signatures: &Snapshot,
    ) -> Result<Self> {
        if priority.is_empty() {
            return Ok(Self::Rows);
        }
        let ctx = session::session(&run.runtime, run.limits.threads)?;
        let one = std::slice::from_ref(signatures);
        ctx.register_table(
            "signatures",
            catalog::table(&run.runtime, DatasetKind::Signatures, one)?,
        )?;
        let keys = priority.iter().enumerate().map(|(index, sql)| {
            let (_, is_ascending) = split_priority(sql);
            col(format!("{PRIORITY}{index}")).sort(is_ascending, false)
        });
        let keys: Vec<SortExpr> = keys.chain([col("id").sort(true, false)]).collect();
        let sorted = ctx.table("signatures").await?.sort(keys)?.select_columns(&["row"])?;
        let mut rows = sorted.execute_stream().await?;
        let n_rows = index(signatures.manifest.n_rows());
        let mut row_of = Vec::with_capacity(n_rows);
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let rows = batch.column(0).as_primitive::<UInt64Type>().values();
            row_of.extend(rows.iter().map(|row| u32::try_from(*row).expect("below 2^32")));
        }
        let mut rank_of = vec![0; n_rows];
        for (rank, row) in (0..).zip(&row_of) {
            rank_of[*row as usize] = rank;
        }
        Ok(Self::Ranks { rank_of, row_of })
    }
}

/// An expression of `priority` without its direction, and whether it is ascending.
fn split_priority(sql: &str) -> (&str, bool) {
    let sql = sql.trim();
    match sql.rsplit_once(char::is_whitespace) {
        Some((expr, word)) if word.eq_ignore_ascii_case("desc") => (expr, false),
        Some((expr, word)) if word.eq_ignore_ascii_case("asc") => (expr, true),
        _ => (sql, true),
    }
}

pub(super) fn parse_priority(
    ctx: &SessionContext,
    documents: &SchemaRef,
    sql: &str,
) -> Result<SortExpr> {
    let schema = DFSchema::try_from(Arc::clone(documents))?;
    let (expr, is_ascending) = split_priority(sql);
    let expr = ctx.parse_sql_expr(expr, &schema)?;
    // Types and arguments are checked here.
    ctx.create_physical_expr(expr.clone(), &schema)?;
    Ok(expr.sort(is_ascending, false))
}
