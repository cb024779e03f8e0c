use super::*;

/// A session with our functions alone.
pub(crate) fn session() -> SessionContext {
    let config = datafusion::prelude::SessionConfig::new().with_information_schema(true);
    let ctx = SessionContext::new_with_config(config);
    crate::function::register(&ctx).unwrap();
    ctx
}

async fn run(sql: &str) -> Result<usize> {
    let ctx = session();
    ctx.register_table("documents", ctx.read_empty()?.into_view())?;
    let mut n = 0;
    for statement in parse(sql)? {
        let frame = plan(&ctx, sql, statement).await?;
        n += frame.collect().await?.iter().map(|batch| batch.num_rows()).sum::<usize>();
    }
    Ok(n)
}

/// Statements that nobody can answer, and what the error must say.
pub(crate) const MISTAKES: [(&str, &str); 7] = [
    ("select 1 +", "Expected"),
    ("select *\nfrom from", "line 2"),
    ("select nothing from (select 1 as something)", "column 8"),
    ("select nothing from (select 1 as something)", "\n         ^"),
    ("select * from documnets", "did you mean `documents`?"),
    ("select langauge('x')", "language"),
    ("select txt from (select 1 as text)", "text"),
];

#[tokio::test]
async fn mistakes_are_marked_where_they_stand_and_get_the_nearest_name() {
    for (sql, expected) in MISTAKES {
        let error = run(sql).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{sql}: `{error}` lacks `{expected}`");
    }
}

#[tokio::test]
async fn statements_that_change_something_are_refused() {
    for (sql, verb) in [
        ("select 1 as a into b", "INTO"),
        ("with a as (select 1) insert into documents select * from a", "WITH"),
        ("explain explain insert into documents values (1)", "EXPLAIN"),
        ("prepare p as select 1", "PREPARE"),
        ("reset datafusion.execution.batch_size", "RESET"),
        ("select 1; drop table documents", "DROP"),
    ] {
        let error = run(sql).await.unwrap_err().to_string();
        assert!(error.contains(&format!("`{verb}` is refused")), "{sql}: {error}");
    }
}

fn check_too_large(sql: &str, what: &str) {
    match parse(sql) {
        Err(Error::Limit { limit: Limit::Statement, message, .. }) => {
            assert!(message.contains(what), "{message}");
        }
        other => panic!("{}…: {other:?}", &sql[..60.min(sql.len())]),
    }
}

#[test]
fn deep_statements_are_refused_before_they_are_parsed() {
    check_too_large(&format!("select 1{}", "+1".repeat(20_000)), "tokens between two commas");
    check_too_large(&format!("select 1{}", " is null".repeat(2_000)), "tokens between two commas");
    check_too_large(&format!("select {}1", "- ".repeat(5_000)), "tokens between two commas");
    check_too_large(&format!("select {}1{}", "(".repeat(60), ")".repeat(60)), "brackets");
    check_too_large(&format!("select 1, 2{}", " union all select 1, 2".repeat(300)), "combined");
    check_too_large(&format!("from documents{}", " |> select 1, 2".repeat(300)), "combined");
    check_too_large(&format!("select 1 in ({}1)", "1, ".repeat(30_000)), "tokens");
    check_too_large(&format!("select '{}'", "x".repeat(300_000)), "bytes");
}

#[test]
fn tables_count_as_often_as_they_are_repeated() {
    // 2 to the power of 20.
    let doubled: Vec<String> =
        (1..=20).map(|n| format!("t{n} as (select * from t{0} a, t{0} b)", n - 1)).collect();
    let sql = format!("with t0 as (select 1), {} select * from t20", doubled.join(", "));
    check_too_large(&sql, "`WITH` repeats");
    let nested = format!("select * from ({sql}) as z");
    check_too_large(&nested, "`WITH` repeats");
    let upper = sql.replace("t20", "T20");
    check_too_large(&upper, "`WITH` repeats");
    check_too_large(&format!("select * from {}d", "d, ".repeat(600)), "tables");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_but_flat_statements_are_answered() {
    let terms: Vec<String> = (0..400).map(|n| format!("1 = {n}")).collect();
    let ids: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
    let deep = tokio::spawn(async move {
        for sql in [
            format!("select 1 where {}", terms.join(" or ")),
            format!("select 1 where 1 in ({})", ids.join(", ")),
            format!("select 1{}", " union all select 1".repeat(100)),
            format!("select {}1{}", "abs(".repeat(30), ")".repeat(30)),
        ] {
            assert!(run(&sql).await.unwrap() > 0, "{}…", &sql[..40]);
        }
    });
    deep.await.unwrap();
}

/// The parser tries a bracket as an expression, a row, a query and a join, one after the other.
#[test]
fn brackets_fit_into_the_stack_of_a_process_and_a_moment() {
    let judge = || {
        for (open, close) in [("(", ")"), ("(select ", ")"), ("(a join ", ")")] {
            let n = usize::try_from(BRACKETS_MAX).unwrap();
            for head in ["select * from ", "select "] {
                let sql = format!("{head}{}a{}", open.repeat(n), close.repeat(n));
                let start = std::time::Instant::now();
                drop(parse(&sql));
                assert!(start.elapsed().as_secs() < 5, "{sql}: {:?}", start.elapsed());
            }
        }
    };
    // What the main thread has by default on Linux.
    std::thread::Builder::new().stack_size(8 << 20).spawn(judge).unwrap().join().unwrap();
}

#[tokio::test]
async fn describe_says_what_columns_mean() {
    let ctx = session();
    let schema = shard::schema::DatasetKind::Dropped.schema();
    let table = datafusion::datasource::empty::EmptyTable::new(schema);
    ctx.register_table(datafusion::common::TableReference::bare("dropped@2"), Arc::new(table))
        .unwrap();
    let sql = "describe \"dropped@2\"";
    let frame = plan(&ctx, sql, parse(sql).unwrap().remove(0)).await.unwrap();
    let shown =
        arrow::util::pretty::pretty_format_batches(&frame.collect().await.unwrap()).unwrap();
    let shown = shown.to_string();
    let line = shown.lines().find(|line| line.contains("| reason")).unwrap();
    assert!(
        line.contains("Utf8View") && line.contains("NO") && line.contains("why the document went"),
        "{line}"
    );
}
