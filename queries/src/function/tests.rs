use datafusion::prelude::SessionContext;

use super::*;

/// The only value that `sql` gives, as text; `null` for null.
async fn value(sql: &str) -> Result<String> {
    let ctx = SessionContext::new();
    register(&ctx)?;
    let batches =
        ctx.sql(&format!("select arrow_cast({sql}, 'Utf8') as v")).await?.collect().await?;
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    let options = arrow::util::display::FormatOptions::new().with_null("null");
    let column = batches[0].column(0);
    let display = arrow::util::display::ArrayFormatter::try_new(column, &options)?;
    Ok(display.value(0).to_string())
}

async fn check(sql: &str, expected: &str) {
    assert_eq!(value(sql).await.unwrap(), expected, "{sql}");
}

async fn check_error(sql: &str, expected: &str) {
    let error = value(sql).await.unwrap_err().to_string();
    assert!(error.contains(expected), "{sql}: `{error}` lacks `{expected}`");
}

#[tokio::test]
async fn examples_give_what_they_say() {
    for kind in KINDS {
        let (call, expected) = kind.example;
        check(call, expected).await;
    }
}

#[test]
fn kinds_are_sorted_and_no_function_has_two_meanings() {
    assert!(KINDS.is_sorted_by_key(|kind| kind.name));
    let own = KINDS.iter().map(|kind| kind.name.to_owned());
    let steps = ingest::filter::KINDS.iter().flat_map(|kind| {
        let verdict = verdict_name(kind);
        [Some(kind.name.to_owned()), Some(verdict).filter(|name| name != kind.name)]
    });
    let modifiers = ingest::modifier::KINDS.iter().map(|kind| kind.name.to_owned());
    let mut names: Vec<String> = own.chain(steps.flatten()).chain(modifiers).collect();
    let n = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), n, "a name stands for two functions: {names:?}");
}

#[tokio::test]
async fn a_filter_with_a_signal_of_its_name_gives_that_signal() {
    let english =
        "'The quick brown fox jumps over the lazy dog, and then the dog goes home to sleep.'";
    check(&format!("language({english})"), "en").await;
    check(&format!("language_verdict({english})['language']"), "en").await;
    check(
        &format!("language_verdict({english}, 'keep => [\"de\"]')['reason']"),
        "language_not_kept",
    )
    .await;
}

#[tokio::test]
async fn a_null_text_gives_null_among_others() {
    let ctx = SessionContext::new();
    register(&ctx).unwrap();
    let sql = "select language(t) is null as n, t is null as m from (values \
        (null), ('The quick brown fox jumps over the lazy dog and sleeps.'), (null)) as v(t)";
    let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
    let shown = arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string();
    assert_eq!(shown.matches("| true  | true  |").count(), 2, "{shown}");
    assert_eq!(shown.matches("| false | false |").count(), 1, "{shown}");
}

#[tokio::test]
async fn wrong_settings_fail_when_planned_and_name_the_key() {
    check_error("language('x', 'kep = 1')", "kep").await;
    check_error("language('x', 'keep = ')", "settings of `language`").await;
    let ctx = SessionContext::new();
    register(&ctx).unwrap();
    let sql = "select language(t, t) from (values ('keep = []')) as v(t)";
    let error = match ctx.sql(sql).await {
        Ok(frame) => frame.collect().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(error.to_string().contains("literal"), "{error}");
}

#[tokio::test]
async fn ids_are_exactly_thirty_two_digits() {
    check_error("hex(id_of('00'))", "32 hexadecimal digits").await;
    check_error("hex(id_of('+0000000000000000000000000000001'))", "32 hexadecimal digits").await;
    check("hex(id_of(null))", "null").await;
}

#[tokio::test]
async fn hosts_of_broken_urls_are_null() {
    check("url_host('not a url')", "null").await;
    check("url_host('data:text/plain,x')", "null").await;
    check("url_host('http://bücher.example/')", "xn--bcher-kva.example").await;
}

#[tokio::test]
async fn every_step_runs_as_a_function() {
    let steps = ingest::filter::KINDS.iter().map(|kind| kind.name);
    for name in steps.chain(ingest::modifier::KINDS.iter().map(|kind| kind.name)) {
        let ctx = SessionContext::new();
        register(&ctx).unwrap();
        let sql =
            format!("select {name}(t) from (values ('Some text of a few words.'), (null)) as v(t)");
        let batches = ctx.sql(&sql).await.unwrap().collect().await.unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 2, "{name}");
    }
}

#[test]
fn the_reference_names_every_kind() {
    let page = reference();
    let filters = ingest::filter::KINDS.iter().map(|kind| kind.name);
    let modifiers = ingest::modifier::KINDS.iter().map(|kind| kind.name);
    let sources = ingest::source::KINDS.iter().map(|kind| kind.name);
    for name in filters.chain(modifiers).chain(sources) {
        assert!(page.contains(&format!("### `{name}`\n")), "{name}");
    }
    for kind in KINDS {
        assert!(page.contains(&format!("### `{}{}`", kind.name, kind.arguments)), "{}", kind.name);
    }
}
