use std::sync::Arc;

use arrow::array::{
    Array, AsArray, FixedSizeBinaryArray, MapBuilder, StringBuilder, StringViewArray,
    TimestampMillisecondArray, UInt64Array, new_null_array,
};
use arrow::datatypes::{DataType, Float64Type, UInt64Type};
use arrow::record_batch::RecordBatch;
use shard::schema::source_schema;

use super::*;

/// Kind, text and reject.
type Row<'a> = (&'a str, &'a str, Option<&'a str>);

/// Rows as a source gives them.
fn batch(rows: &[Row<'_>]) -> RecordBatch {
    let n = rows.len();
    let text = |value: &dyn Fn(&Row<'_>) -> String| -> ArrayRef {
        Arc::new(StringViewArray::from_iter_values(rows.iter().map(value)))
    };
    let null = |data_type: &DataType| new_null_array(data_type, n);
    let ids = (0..n).map(|row| u128::try_from(row).unwrap().to_be_bytes());
    let mut metadata = MapBuilder::new(
        Some(MapFieldNames { entry: "entries".into(), key: "keys".into(), value: "values".into() }),
        StringBuilder::new(),
        StringBuilder::new(),
    );
    for _ in rows {
        metadata.keys().append_value("content_type");
        metadata.values().append_value("text/plain");
        metadata.append(true).unwrap();
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(FixedSizeBinaryArray::try_from_iter(ids).unwrap()),
        text(&|row| row.1.to_owned()),
        text(&|_| "s".to_owned()),
        text(&|row| row.0.to_owned()),
        null(&DataType::Utf8View),
        text(&|row| row.1.to_owned()),
        Arc::new(TimestampMillisecondArray::new_null(n).with_timezone("UTC")),
        null(&DataType::Utf8View),
        null(&DataType::Utf8View),
        Arc::new(UInt64Array::from(vec![1; n])),
        Arc::new(metadata.finish()),
        Arc::new(StringViewArray::from_iter(rows.iter().map(|row| row.2))),
    ];
    RecordBatch::try_new(source_schema(), columns).unwrap()
}

fn filter(name: &str, config: &str) -> Action {
    let kind = ingest::filter::kind(name).unwrap();
    Action::Filter(kind, (kind.build)(&config.parse().unwrap()).unwrap().into())
}

fn modifier(name: &str) -> Action {
    let kind = ingest::modifier::kind(name).unwrap();
    Action::Modifier(kind.name, (kind.build)(&toml::Table::new()).unwrap().into())
}

fn chain(steps: Vec<Step>) -> Chain {
    let mut chain = Chain::default();
    steps.into_iter().for_each(|step| chain.push(step));
    chain
}

fn step(label: &str, action: Action) -> Step {
    Step { label: label.to_owned(), kinds: None, keep_signals: false, action }
}

/// Each row's `step rule reason`, or `kept`, and its text.
fn outcome(batch: &RecordBatch) -> Vec<(String, String)> {
    let verdict = batch.column_by_name(VERDICT).unwrap().as_struct();
    let text = batch.column_by_name("text").unwrap().as_string_view();
    let field = |column: usize, row: usize| verdict.column(column).as_string_view().value(row);
    (0..batch.num_rows())
        .map(|row| {
            let outcome = match verdict.is_valid(row) {
                true => [field(0, row), field(1, row), field(2, row)].join(" "),
                false => "kept".to_owned(),
            };
            (outcome, text.value(row).to_owned())
        })
        .collect()
}

fn pairs(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn every_row_comes_out_in_order_with_the_first_reason_that_drops_it() {
    let chain = chain(vec![
        step("1:length", filter("length", "min_chars = 3")),
        step("2:mask_pii", modifier("mask_pii")),
        step("3:length", filter("length", "max_chars = 20")),
    ]);
    let out = chain
        .run(&batch(&[
            ("web", "ab", None),
            ("web", "write to joe@example.net", None),
            ("web", "", Some("bad_gzip")),
            ("web", "abcdefghijklmnopqrstuvwxyz", None),
            ("web", "abc", None),
        ]))
        .unwrap();
    let expected = [
        ("1:length length too_few_chars", "ab"),
        ("kept", "write to <EMAIL>"),
        ("source source bad_gzip", ""),
        ("3:length length too_many_chars", "abcdefghijklmnopqrstuvwxyz"),
        ("kept", "abc"),
    ];
    assert_eq!(outcome(&out), pairs(&expected));
    assert_eq!(out.schema(), *chain.output());
}

#[test]
fn changed_spans_name_step_rule_and_bytes() {
    let chain = chain(vec![step("1:mask_pii", modifier("mask_pii"))]);
    let out =
        chain.run(&batch(&[("web", "x", None), ("web", "to joe@example.net", None)])).unwrap();
    let edits = out.column_by_name(EDITS).unwrap().as_list::<i32>();
    assert_eq!((edits.value_length(0), edits.value_length(1)), (0, 1));
    let edit = edits.value(1);
    let edit = edit.as_struct();
    let text = |column: usize| edit.column(column).as_string::<i32>().value(0).to_owned();
    let number = |column: usize| edit.column(column).as_primitive::<UInt64Type>().value(0);
    assert_eq!(
        (text(0), text(3), text(4)),
        ("1:mask_pii".into(), "email".into(), "<EMAIL>".into())
    );
    assert_eq!((number(1), number(2)), (3, 18));
}

#[test]
fn a_step_for_some_kinds_lets_the_others_pass() {
    let mut only_books = step("1:length", filter("length", "min_chars = 10"));
    only_books.kinds = Some(vec!["book".to_owned()]);
    let rows = [("web", "short", None), ("book", "short", None), ("book", "long enough", None)];
    let out = chain(vec![only_books]).run(&batch(&rows)).unwrap();
    let expected =
        [("kept", "short"), ("1:length length too_few_chars", "short"), ("kept", "long enough")];
    assert_eq!(outcome(&out), pairs(&expected));
}

#[test]
fn kept_signals_are_columns_and_null_where_the_step_did_not_look() {
    let mut toxicity = step("1:toxicity", filter("toxicity", ""));
    toxicity.keep_signals = true;
    toxicity.kinds = Some(vec!["web".to_owned()]);
    let chain = chain(vec![toxicity]);
    let out = chain.run(&batch(&[("code", "x", None), ("web", "a b c d", None)])).unwrap();
    let column = out.column_by_name("toxicity_toxicity").unwrap().as_primitive::<Float64Type>();
    assert!(column.is_null(0));
    assert!(column.value(1) < 0.4, "{}", column.value(1));
}

#[test]
fn the_language_that_a_step_finds_fills_the_column() {
    let language = step("1:language", filter("language", r#"keep = ["en", "de"]"#));
    let german =
        "Der schnelle braune Fuchs springt über den faulen Hund und läuft dann nach Hause.";
    let out = chain(vec![language]).run(&batch(&[("web", german, None)])).unwrap();
    let column = out.column_by_name("language").unwrap().as_string_view();
    assert_eq!(column.value(0), "de");
}

#[test]
fn cutting_a_batch_changes_no_row() {
    let chain = chain(vec![
        step("1:length", filter("length", "min_chars = 4")),
        step("2:mask_pii", modifier("mask_pii")),
    ]);
    let texts = ["one", "a@example.net wrote", "three", "no", "fives", "sixth x@example.org"];
    let rows: Vec<Row<'_>> = texts.iter().map(|text| ("web", *text, None)).collect();
    let whole = outcome(&chain.run(&batch(&rows)).unwrap());
    for n in 1..rows.len() {
        let parts: Vec<_> =
            rows.chunks(n).flat_map(|part| outcome(&chain.run(&batch(part)).unwrap())).collect();
        assert_eq!(parts, whole, "cut by {n}");
    }
}
