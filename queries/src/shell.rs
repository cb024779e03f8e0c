//! Questions in SQL: one at a time, or in an interactive shell.
//!
//! SQL here only reads: whatever would change something is refused by name before it is planned.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Instant;

use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use futures::StreamExt;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Editor, Helper};
use serde::de::DeserializeOwned;

use crate::output::{self, Format, Rows};
use crate::statement::{names, parse, plan};
use crate::{Error, Result};

const PROMPT: &str = "gristmill> ";
/// Where the last statements are kept, below the user's state folder.
const HISTORY: &str = "gristmill/history";
const HELP: &str = "\
\\d         tables
\\d name    columns of a table
\\q         quit
statements end with `;` and may span lines; Ctrl-C stops a query, Ctrl-D quits";

/// Runs the statements of `sql` and writes their rows to `out`; returns the number of rows.
///
/// # Errors
/// For a mistake in `sql`, with its position and near names, for a statement that would change something,
/// and when a file cannot be read or `out` refuses.
pub async fn execute(
    ctx: &SessionContext,
    sql: &str,
    format: Format,
    out: &mut dyn Write,
) -> Result<u64> {
    let mut n_rows = 0;
    for statement in parse(sql)? {
        let frame = plan(ctx, sql, statement).await?;
        let mut rows = Rows::new(format, output::terminal_width(), frame.schema().inner());
        let mut batches = frame.execute_stream().await?;
        while let Some(batch) = batches.next().await {
            if !rows.write(&batch?, out)? {
                break;
            }
        }
        n_rows += rows.finish(out)?;
    }
    Ok(n_rows)
}

/// Returns the rows of one query of ours.
///
/// # Errors
/// As [`execute`].
///
/// # Panics
/// When the query's columns are not those of `T`.
pub async fn rows<T: DeserializeOwned>(ctx: &SessionContext, query: &str) -> Result<Vec<T>> {
    let mut json = Vec::new();
    execute(ctx, query, Format::Json, &mut json).await?;
    Ok(serde_json::from_slice(&json).expect("the columns are those of the rows"))
}

/// Reads statements from the terminal, or from a pipe, until `\q` or the end of input.
///
/// A failed statement is reported on standard error and the shell goes on.
///
/// # Errors
/// When the terminal or standard output fails.
pub async fn interact(ctx: &SessionContext, format: Format) -> Result<()> {
    let terminal = |error: ReadlineError| Error::Job {
        place: "terminal".to_owned(),
        message: error.to_string(),
        hint: Some("pass the statement as an argument instead".to_owned()),
    };
    let mut editor = Editor::<Prompt, DefaultHistory>::new().map_err(terminal)?;
    editor.set_helper(Some(Prompt { names: names(ctx).await }));
    let history = history_file();
    if let Some(path) = &history {
        // No history yet is no error, and one that cannot be read must not keep anybody from asking.
        if let Err(error) = editor.load_history(path) {
            tracing::debug!(%error, "read no history");
        }
    }
    loop {
        // The terminal blocks: it gets a thread of its own.
        let reading = tokio::task::spawn_blocking(move || {
            let line = editor.readline(PROMPT);
            (editor, line)
        });
        let (returned, line) = reading.await.expect("the editor does not panic");
        editor = returned;
        match line {
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) => {
                remember(&mut editor, history.as_deref(), &line);
                if matches!(line.trim().trim_end_matches(';'), "\\q" | "quit" | "exit") {
                    return Ok(());
                }
                answer(ctx, line.trim(), format).await?;
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(terminal(error)),
        }
    }
}

/// Answers one line; only a failure of standard error ends the shell.
async fn answer(ctx: &SessionContext, line: &str, format: Format) -> Result<()> {
    let start = Instant::now();
    let mut out = io::stdout();
    let query = async {
        match line.strip_prefix('\\') {
            None => execute(ctx, line, format, &mut out).await.map(Some),
            Some(command) => describe(ctx, command, format, &mut out).await,
        }
    };
    let interrupted = tokio::signal::ctrl_c();
    let said = tokio::select! {
        result = query => match result {
            Ok(Some(1)) => format!("1 row in {:.3} s", start.elapsed().as_secs_f64()),
            Ok(Some(n)) => format!("{n} rows in {:.3} s", start.elapsed().as_secs_f64()),
            Ok(None) => HELP.to_owned(),
            Err(error) => format!("error: {error}"),
        },
        _ = interrupted => "interrupted".to_owned(),
    };
    writeln!(io::stderr(), "{said}").map_err(shard::Error::io("write", "standard error"))?;
    Ok(())
}

/// `\d` and `\d name`; nothing for a command that there is not.
async fn describe(
    ctx: &SessionContext,
    command: &str,
    format: Format,
    out: &mut dyn Write,
) -> Result<Option<u64>> {
    let mut words = command.trim_end_matches(';').split_whitespace();
    let sql = match (words.next(), words.next(), words.next()) {
        (Some("d"), None, _) => "select table_name from information_schema.tables \
             where table_schema <> 'information_schema' order by table_name"
            .to_owned(),
        (Some("d"), Some(name), None) => format!("describe \"{}\"", name.trim_matches('"')),
        _ => return Ok(None),
    };
    execute(ctx, &sql, format, out).await.map(Some)
}

/// Whether Enter ends the statement: a command, nothing, or a `;` that stands outside strings and comments.
fn is_complete(input: &str) -> bool {
    let trimmed = input.trim();
    if trimmed.is_empty() || trimmed.starts_with('\\') || matches!(trimmed, "quit" | "exit") {
        return true;
    }
    match Tokenizer::new(&GenericDialect {}, input).tokenize() {
        Ok(tokens) => {
            let last = tokens.iter().rev().find(|token| !matches!(token, Token::Whitespace(_)));
            matches!(last, Some(Token::SemiColon))
        }
        // An open string or comment.
        Err(_) => false,
    }
}

fn remember(
    editor: &mut Editor<Prompt, DefaultHistory>,
    path: Option<&std::path::Path>,
    line: &str,
) {
    if !io::stdin().is_terminal() {
        return;
    }
    let saved = editor.add_history_entry(line).and_then(|_| match path {
        Some(path) => {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            editor.save_history(path)
        }
        None => Ok(()),
    });
    if let Err(error) = saved {
        tracing::debug!(%error, "kept no history");
    }
}

/// `$XDG_STATE_HOME/gristmill/history`, by default below `~/.local/state`.
fn history_file() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?;
    Some(state.join(HISTORY))
}

/// What the line editor knows of SQL.
struct Prompt {
    names: Vec<String>,
}

impl Helper for Prompt {}
impl Highlighter for Prompt {}
impl Hinter for Prompt {
    type Hint = String;
}

impl Validator for Prompt {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match is_complete(context.input()) {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

impl Completer for Prompt {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '@';
        let head = &line[..position];
        let start = head
            .rfind(|c| !is_part(c))
            .map_or(0, |at| at + head[at..].chars().next().map_or(1, char::len_utf8));
        let word = &head[start..];
        let found = self.names.iter().filter(|name| !word.is_empty() && name.starts_with(word));
        Ok((start, found.cloned().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::tests::{MISTAKES, session};

    async fn run(sql: &str) -> Result<String> {
        let ctx = session();
        let table = ctx.read_empty()?.into_view();
        ctx.register_table("documents", table)?;
        let mut out = Vec::new();
        execute(&ctx, sql, Format::Csv, &mut out).await?;
        Ok(String::from_utf8(out).expect("output is text"))
    }

    #[tokio::test]
    async fn statements_are_answered_one_after_the_other() {
        assert_eq!(run("select 1 as a; select 2 as b").await.unwrap(), "a\n1\nb\n2\n");
        assert!(run("show tables").await.unwrap().contains("documents"));
        assert!(run("explain select 1").await.unwrap().contains("plan"));
    }

    #[tokio::test]
    async fn statements_that_change_something_are_refused_by_name() {
        for (sql, verb) in [
            ("copy (select 1) to '/tmp/x.csv'", "COPY"),
            ("create table t as select 1", "CREATE"),
            ("create external table t stored as csv location '/tmp/x'", "CREATE"),
            ("insert into documents values (1)", "INSERT"),
            ("set datafusion.execution.batch_size = 1", "SET"),
            ("drop table documents", "DROP"),
            ("delete from documents", "DELETE"),
            ("explain analyze insert into documents values (1)", "EXPLAIN"),
        ] {
            let error = run(sql).await.unwrap_err().to_string();
            let is_named = error.contains(&format!("`{verb}` is refused"))
                || error.contains("DML not supported");
            assert!(is_named, "{sql}: {error}");
        }
    }

    #[tokio::test]
    async fn mistakes_are_marked_where_they_stand_and_get_the_nearest_name() {
        for (sql, expected) in MISTAKES {
            let error = run(sql).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{sql}: `{error}` lacks `{expected}`");
        }
    }

    #[test]
    fn a_statement_ends_with_a_semicolon_outside_of_strings_and_comments() {
        for complete in ["", "\\d", "select 1;", "select ';' ; ", "select 1; -- done"] {
            assert!(is_complete(complete), "{complete}");
        }
        for open in ["select 1", "select ';", "select 1 -- ;", "select /* ;", "select ';'"] {
            assert!(!is_complete(open), "{open}");
        }
    }

    #[test]
    fn completion_finds_the_word_before_the_cursor() {
        let prompt =
            Prompt { names: vec!["documents".into(), "documents@1".into(), "text".into()] };
        let history = DefaultHistory::new();
        let found = prompt.complete("select count(doc", 16, &Context::new(&history)).unwrap();
        assert_eq!(found, (13, vec!["documents".to_owned(), "documents@1".to_owned()]));
    }
}
