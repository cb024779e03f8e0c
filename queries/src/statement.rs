//! A statement of SQL on its way from text to plan: judged by its shape, parsed, judged by what it would do, planned.
//!
//! SQL only reads here: whatever would change something is refused by name. The planner and the parser call themselves, and the
//! trees that they make are dropped by calls, so a long chain of operators ends the process where its stack ends. The shape of a
//! statement is therefore bounded on its tokens, before anything is built of it.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use datafusion::common::Diagnostic;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{DataFrame, SessionContext};
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{
    ObjectName, Query, SetExpr, Statement as SqlStatement, Visit, Visitor,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::catalog::comment::comment;
use crate::limit::Limit;
use crate::{Error, Result};

/// Bytes of the text of statements.
const TEXT_BYTES_MAX: u64 = 256 * 1024;
/// Words, numbers and signs of the statements together; a list of ten thousand ids has twenty thousand.
const TOKENS_MAX: u64 = 50_000;
/// Tokens between two commas, without those in brackets: a chain of operators is a tree as deep as half of this.
const CHAIN_TOKENS_MAX: u64 = 2_000;
/// Brackets in brackets: the parser has about 0.14 MiB of stack for each in a debug build, and threads have 8 MiB.
const BRACKETS_MAX: u64 = 32;
/// `UNION`, `EXCEPT`, `INTERSECT`, `JOIN` and `|>` together.
const COMBINED_MAX: u64 = 200;
/// Tables and subqueries of a plan, each counted as often as `WITH` repeats it.
const RELATIONS_MAX: u64 = 500;

/// Returns the statements of `sql`, all of which only read and none of which is too large to be planned.
///
/// # Errors
/// For a mistake, with its position, for a statement that would change something, and for one beyond a limit.
pub fn parse(sql: &str) -> Result<Vec<Statement>> {
    judge_shape(sql)?;
    let statements = DFParser::parse_sql(sql).map_err(|error| explain(sql, &error, &[]))?;
    for statement in &statements {
        match query_of(statement) {
            None => return Err(refusal(&statement.to_string())),
            Some(statement) => judge_relations(statement)?,
        }
    }
    Ok(statements.into())
}

/// Bounds the trees that a parser would make of `sql`.
fn judge_shape(sql: &str) -> Result<()> {
    let check = |what: &'static str, n: u64, max: u64| match n > max {
        true => Err(too_large(what, n, max)),
        false => Ok(()),
    };
    check("bytes", sql.len() as u64, TEXT_BYTES_MAX)?;
    // What cannot be cut into tokens cannot be parsed either: the parser says why.
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else { return Ok(()) };
    let (mut n_tokens, mut n_combined) = (0, 0);
    // Tokens since the last comma, for every bracket that is open.
    let mut chains = vec![0_u64];
    for token in tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))) {
        n_tokens += 1;
        let chain = chains.last_mut().expect("the outermost never goes");
        *chain += 1;
        check("tokens between two commas", *chain, CHAIN_TOKENS_MAX)?;
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => chains.push(0),
            // One that closes nothing is the parser's to refuse.
            Token::RParen | Token::RBracket | Token::RBrace => {
                chains.pop();
                if chains.is_empty() {
                    chains.push(0);
                }
            }
            Token::Comma | Token::SemiColon => *chain = 0,
            Token::VerticalBarRightAngleBracket => n_combined += 1,
            Token::Word(word) => {
                let combines = [Keyword::UNION, Keyword::EXCEPT, Keyword::INTERSECT, Keyword::JOIN];
                n_combined += u64::from(combines.contains(&word.keyword));
            }
            _ => {}
        }
        check("brackets in each other", chains.len() as u64 - 1, BRACKETS_MAX)?;
        check("combined queries and tables", n_combined, COMBINED_MAX)?;
        check("tokens", n_tokens, TOKENS_MAX)?;
    }
    Ok(())
}

fn too_large(what: &'static str, n: u64, max: u64) -> Error {
    Error::Limit {
        limit: Limit::Statement,
        message: format!("the statement has {n} {what} or more, at most {max} are planned"),
        hint: "divide it, or replace long chains of conditions by `IN (…)` or a regular expression"
            .to_owned(),
    }
}

/// The statement inside `EXPLAIN` when it asks, and no more.
fn query_of(statement: &Statement) -> Option<&SqlStatement> {
    match statement {
        Statement::Explain(explained) => query_of(&explained.statement),
        Statement::Statement(statement) => match &**statement {
            SqlStatement::Query(query) if !changes(query) => Some(statement),
            SqlStatement::ExplainTable { .. }
            | SqlStatement::ShowTables { .. }
            | SqlStatement::ShowColumns { .. }
            | SqlStatement::ShowFunctions { .. }
            | SqlStatement::ShowVariable { .. } => Some(statement),
            _ => None,
        },
        _ => None,
    }
}

/// `WITH … INSERT` is a query to the parser.
fn changes(query: &Query) -> bool {
    use SetExpr::{Delete, Insert, Merge, Update};
    matches!(*query.body, Insert(_) | Update(_) | Delete(_) | Merge(_))
}

fn refusal(statement: &str) -> Error {
    let verb = statement.split_whitespace().next().unwrap_or_default().to_uppercase();
    Error::Refused {
        message: format!("`{verb}` is refused: questions only read the corpus"),
        hint: "use SELECT, EXPLAIN, DESCRIBE or SHOW; save rows with `--format csv --output FILE`"
            .to_owned(),
    }
}

/// Bounds the tables of a plan: the planner writes the query of a `WITH` wherever its name stands.
fn judge_relations(statement: &SqlStatement) -> Result<()> {
    let mut relations = Relations::default();
    match statement.visit(&mut relations) {
        ControlFlow::Break(n) => {
            Err(too_large("tables, each as often as `WITH` repeats it,", n, RELATIONS_MAX))
        }
        ControlFlow::Continue(()) => Ok(()),
    }
}

#[derive(Clone, Debug, Default)]
struct Relations {
    /// Tables behind every name of a `WITH`.
    named: HashMap<String, u64>,
    n: u64,
}

impl Relations {
    fn add(&mut self, n: u64) -> ControlFlow<u64> {
        self.n = self.n.saturating_add(n);
        match self.n > RELATIONS_MAX {
            true => ControlFlow::Break(self.n),
            false => ControlFlow::Continue(()),
        }
    }
}

impl Visitor for Relations {
    type Break = u64;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<u64> {
        for named in query.with.iter().flat_map(|with| &with.cte_tables) {
            let mut inside = Self { named: self.named.clone(), n: 0 };
            named.query.visit(&mut inside)?;
            let n = self.named.entry(named.alias.name.value.to_lowercase()).or_default();
            *n = inside.n.max(1).max(*n);
        }
        self.add(1)
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<u64> {
        let name = relation.to_string().to_lowercase();
        let n = self.named.get(name.trim_matches('"')).copied().unwrap_or(1);
        self.add(n)
    }
}

/// Returns the plan of a statement of [`parse`].
///
/// # Errors
/// For a mistake in `sql`, with its position and near names.
pub async fn plan(ctx: &SessionContext, sql: &str, statement: Statement) -> Result<DataFrame> {
    // Without spans the engine cannot say where a name stands.
    let mut state = ctx.state();
    state.config_mut().options_mut().sql_parser.collect_spans = true;
    let described = described(&statement);
    let plan = match state.statement_to_plan(statement).await {
        Ok(plan) => plan,
        Err(error) => return Err(explain(sql, &error, &names(ctx).await)),
    };
    let reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false);
    // `SELECT … INTO` is a query to the parser and makes a table.
    if let Err(error) = reads.with_allow_statements(false).verify_plan(&plan) {
        tracing::debug!(%error, "refused a plan");
        return Err(refusal("INTO"));
    }
    if let (Some(table), LogicalPlan::DescribeTable(columns)) = (described, &plan) {
        return Ok(ctx.read_batch(description(&table, &columns.schema)?)?);
    }
    Ok(ctx.execute_logical_plan(plan).await?)
}

/// The table of `DESCRIBE`.
fn described(statement: &Statement) -> Option<String> {
    match statement {
        Statement::Statement(statement) => match &**statement {
            SqlStatement::ExplainTable { table_name, .. } => Some(table_name.to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// What the engine says of a table, and what its columns mean.
fn description(table: &str, schema: &Schema) -> Result<RecordBatch> {
    let fields = || schema.fields().iter();
    let names = StringArray::from_iter_values(fields().map(|field| field.name()));
    let types = StringArray::from_iter_values(fields().map(|field| field.data_type().to_string()));
    let nullable = |is_nullable| if is_nullable { "YES" } else { "NO" };
    let nullable = StringArray::from_iter_values(fields().map(|it| nullable(it.is_nullable())));
    let comments: StringArray = fields().map(|field| comment(table, field.name())).collect();
    let columns: [(&str, ArrayRef, bool); 4] = [
        ("column_name", Arc::new(names), false),
        ("data_type", Arc::new(types), false),
        ("is_nullable", Arc::new(nullable), false),
        ("comment", Arc::new(comments), true),
    ];
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

/// Says what is wrong with `sql`, where, and which of `names` may have been meant.
fn explain(sql: &str, error: &DataFusionError, names: &[String]) -> Error {
    if matches!(error.find_root(), DataFusionError::External(_)) {
        return Error::Job {
            place: "SQL".to_owned(),
            message: error
                .find_root()
                .to_string()
                .trim_start_matches("External error: ")
                .to_owned(),
            hint: None,
        };
    }
    let root = error.find_root().strip_backtrace();
    let message =
        error.diagnostic().map_or_else(|| root.clone(), |found| full_message(found, &root));
    let message = message
        .trim_start_matches("SQL error: ")
        .trim_start_matches("Error during planning: ")
        .trim_start_matches("Schema error: ");
    let message = message
        .strip_prefix("ParserError(\"")
        .and_then(|rest| rest.strip_suffix("\")"))
        .unwrap_or(message);
    let position = error
        .diagnostic()
        .and_then(|found| found.span)
        .map(|span| (span.start.line, span.start.column))
        .or_else(|| stated_position(message));
    let (message, _) = message.split_once(" at Line: ").unwrap_or((message, ""));
    let hint = unknown_name(message).and_then(|name| nearest(name, names));
    let (place, excerpt) = match position {
        Some((line, column)) => {
            (format!("SQL, line {line}, column {column}"), excerpt(sql, line, column))
        }
        None => ("SQL".to_owned(), String::new()),
    };
    Error::Job {
        place,
        message: format!("{message}{excerpt}"),
        hint: hint.map(|name| format!("did you mean `{name}`?")),
    }
}

/// The root's message says more than the diagnostic's where it makes proposals of its own.
fn full_message(diagnostic: &Diagnostic, root: &str) -> String {
    let is_richer = root.contains("Did you mean");
    if is_richer { root.to_owned() } else { diagnostic.message.clone() }
}

/// `… at Line: 1, Column: 8`, as the parser ends its messages.
fn stated_position(message: &str) -> Option<(u64, u64)> {
    let (_, rest) = message.rsplit_once("Line: ")?;
    let (line, column) = rest.split_once(", Column: ")?;
    let digits = column.find(|c: char| !c.is_ascii_digit()).unwrap_or(column.len());
    Some((line.parse().ok()?, column[..digits].parse().ok()?))
}

/// The line of `sql` with a mark below the column.
fn excerpt(sql: &str, line: u64, column: u64) -> String {
    let index = usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1);
    let column = usize::try_from(column).unwrap_or(usize::MAX);
    match sql.lines().nth(index) {
        Some(text) if (1..=text.chars().count() + 1).contains(&column) => {
            format!("\n  {text}\n  {}^", " ".repeat(column - 1))
        }
        _ => String::new(),
    }
}

/// The name in `table 'a.b.name' not found` and its like.
fn unknown_name(message: &str) -> Option<&str> {
    let (before, _) = message.split_once("' not found")?;
    let (_, name) = before.rsplit_once('\'')?;
    Some(name.rsplit('.').next().unwrap_or(name))
}

/// The name at least distance, when it is near enough to have been meant.
fn nearest<'a>(name: &str, names: &'a [String]) -> Option<&'a str> {
    let distance =
        |other: &str| datafusion::common::utils::datafusion_strsim::levenshtein(name, other);
    let nearest = names.iter().min_by_key(|other| distance(other))?;
    (distance(nearest) <= 1 + name.len() / 3).then_some(nearest)
}

/// Returns tables, their columns, and functions: what completion and proposals choose from.
pub(crate) async fn names(ctx: &SessionContext) -> Vec<String> {
    let state = ctx.state();
    let mut names: Vec<String> = state.table_functions().keys().cloned().collect();
    names.extend(state.scalar_functions().keys().cloned());
    names.extend(state.aggregate_functions().keys().cloned());
    for catalog in ctx.catalog_names().into_iter().filter_map(|name| ctx.catalog(&name)) {
        for schema in catalog.schema_names().into_iter().filter_map(|name| catalog.schema(&name)) {
            for table in schema.table_names() {
                if let Ok(Some(provider)) = schema.table(&table).await {
                    names.extend(provider.schema().fields().iter().map(|f| f.name().clone()));
                }
                names.push(table);
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
pub(crate) mod tests;
