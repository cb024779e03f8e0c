use std::collections::BTreeMap;
use std::fs;
use std::io::Read;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::testing::{self, Row};
use super::KIND;

fn rows(content: &str, config: &str) -> Vec<Row> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    fs::write(&path, content).unwrap();
    testing::conforms(&*testing::build(&KIND, config), &testing::file(&path), &[7_000, 50_000])
}

/// The turns of `key` as `role: content` and what the text is.
#[track_caller]
fn check(row: &Value, shape: &str, messages: &[(&str, &str)], text: &str) -> Row {
    let rows = rows(&format!("{row}\n"), "");
    assert_eq!((rows.len(), rows[0].reject.as_deref()), (1, None), "{row}");
    let expected: Vec<Value> = messages
        .iter()
        .map(|(role, content)| json!({ "role": role, "content": content }))
        .collect();
    let found: Value = serde_json::from_str(rows[0].value("messages").unwrap()).unwrap();
    assert_eq!(found, Value::Array(expected), "{row}");
    assert_eq!((rows[0].value("shape"), rows[0].text.as_str()), (Some(shape), text));
    rows[0].clone()
}

#[test]
fn reads_conversations_of_every_shape() {
    let pair = [("user", "q"), ("assistant", "a")];
    let text = "User: q\n\nAssistant: a";
    check(&json!({"instruction": "q", "input": "", "output": "a"}), "alpaca", &pair, text);
    check(
        &json!({"instruction": "do", "input": "in", "output": "a", "system": "s", "history": [["x", "y"]]}),
        "alpaca",
        &[
            ("system", "s"),
            ("user", "x"),
            ("assistant", "y"),
            ("user", "do\n\nin"),
            ("assistant", "a"),
        ],
        "System: s\n\nUser: x\n\nAssistant: y\n\nUser: do\n\nin\n\nAssistant: a",
    );
    let turns = json!([{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]);
    let row = check(&json!({"id": "i7", "conversations": turns}), "sharegpt", &pair, text);
    assert_eq!(row.value("id"), Some("i7"));
    let turns = json!([{"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant", "content": "a"}]);
    check(&json!({ "messages": turns }), "messages", &pair, text);
    let row = check(&json!({"messages": turns, "label": false}), "kto", &pair, text);
    assert_eq!(row.value("label"), Some("false"));
    check(&json!({"prompt": "q", "completion": "a", "label": true}), "kto", &pair, text);
    check(&json!({"question": "q", "answer": "a"}), "question_answer", &pair, text);
    check(
        &json!({"turns": ["q", "r"]}),
        "turns",
        &[("user", "q"), ("user", "r")],
        "User: q\n\nUser: r",
    );
}

#[test]
fn keeps_the_calls_of_tools() {
    let call = json!({"name": "f", "arguments": {"x": 1}});
    let turns = json!([
        {"from": "human", "value": "q"}, {"from": "function_call", "value": call.to_string()},
        {"from": "observation", "value": "1"}, {"from": "gpt", "value": "a"},
    ]);
    let rows = rows(&format!("{}\n", json!({"conversations": turns, "tools": "[{}]"})), "");
    assert_eq!(rows[0].value("tools"), Some("[{}]"));
    let messages: Value = serde_json::from_str(rows[0].value("messages").unwrap()).unwrap();
    assert_eq!(messages[1], json!({"role": "assistant", "content": "", "tool_calls": call}));
    assert_eq!(messages[2], json!({"role": "tool", "content": "1"}));
    assert_eq!(rows[0].text, format!("User: q\n\nAssistant: {call}\n\nTool: 1\n\nAssistant: a"));
}

#[test]
fn keeps_both_answers_of_preference_data_whole() {
    let both = |row: &Row| {
        ["chosen", "rejected"].map(|key| {
            let turns: Value = serde_json::from_str(row.value(key).unwrap()).unwrap();
            turns
                .as_array()
                .unwrap()
                .iter()
                .map(|turn| turn["content"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        })
    };
    let expected = [["q", "good"], ["q", "bad"]].map(|turns| turns.map(str::to_owned).to_vec());
    let text = "User: q\n\nAssistant: good";
    let common = [("user", "q")];
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    for (row, shape) in [
        (
            json!({"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: bad"}),
            "hh_rlhf",
        ),
        (json!({"prompt": "q", "chosen": "good", "rejected": "bad"}), "dpo"),
        (
            json!({"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "good"}, "rejected": {"from": "gpt", "value": "bad"}}),
            "dpo",
        ),
        (
            json!({"prompt": "q", "chosen": [turn("user", "q"), turn("assistant", "good")], "rejected": [turn("user", "q"), turn("assistant", "bad")]}),
            "dpo",
        ),
    ] {
        let found = check(&row, shape, &common, text);
        assert_eq!(both(&found), expected, "{row}");
    }
}

#[test]
fn walks_the_best_or_all_paths_of_a_tree() {
    let leaf = |text: &str, role: &str, rank: Value| json!({"text": text, "role": role, "rank": rank, "replies": []});
    let mut second = leaf("a2", "assistant", json!(0));
    second["replies"] =
        json!([leaf("u1", "prompter", Value::Null), leaf("u2", "prompter", Value::Null)]);
    let tree = json!({"message_tree_id": "t", "prompt": {"text": "q", "role": "prompter", "replies": [leaf("a1", "assistant", json!(1)), second]}});
    let line = format!("{tree}\n");
    let texts =
        |config: &str| rows(&line, config).into_iter().map(|row| row.text).collect::<Vec<_>>();
    assert_eq!(texts(""), ["User: q\n\nAssistant: a2\n\nUser: u1"]);
    assert_eq!(
        texts("paths = \"all\""),
        [
            "User: q\n\nAssistant: a2\n\nUser: u1",
            "User: q\n\nAssistant: a2\n\nUser: u2",
            "User: q\n\nAssistant: a1"
        ]
    );
}

#[test]
fn names_what_is_wrong_with_a_row() {
    for (row, reason) in [
        (r#"{"text": "x"}"#, "unknown_shape"),
        ("[1]", "bad_json"),
        (r#"{"messages": ["#, "bad_json"),
        (r#"{"messages": []}"#, "no_messages"),
        (r#"{"messages": [{"role": "alien", "content": "x"}]}"#, "unknown_role"),
        (r#"{"messages": [{"role": "user", "content": " "}]}"#, "empty_turn"),
        (r#"{"messages": [{"content": "x"}]}"#, "no_role"),
        (r#"{"messages": [7]}"#, "bad_turn"),
        (r#"{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}"#, "not_text"),
        (r#"{"prompt": "q", "chosen": "a", "rejected": "a"}"#, "same_answers"),
        (r#"{"chosen": "a", "rejected": "b"}"#, "no_messages"),
        (r#"{"messages": [{"role": "user", "content": "x"}], "label": "yes"}"#, "no_label"),
        (r#"{"instruction": "x", "output": ""}"#, "empty_turn"),
    ] {
        let rows = rows(&format!("{{}}\n{row}\n"), "");
        assert_eq!(rows.last().unwrap().reject.as_deref(), Some(reason), "{row}");
    }
    let alpaca = r#"{"question": "q", "answer": "a", "instruction": "i", "output": "o"}"#;
    assert_eq!(rows(alpaca, "")[0].value("shape"), Some("alpaca"));
    assert_eq!(rows(alpaca, "shape = \"question_answer\"")[0].text, "User: q\n\nAssistant: a");
    assert_eq!(rows(alpaca, "shape = \"turns\"")[0].reject.as_deref(), Some("no_messages"));
}

#[test]
fn reads_arrays_of_any_layout_and_says_where_they_break() {
    let row = |n: usize| format!("{{\"question\": \"q]{n}\\\\\\\"\", \"answer\": \"[{{,\"}}");
    let whole = format!("\u{feff} [\n{},\n{}, {}\n]\n", row(1), row(2), row(3));
    let found = rows(&whole, "");
    assert_eq!(found.len(), 3);
    assert_eq!(found[1].text, "User: q]2\\\"\n\nAssistant: [{,");
    let at = whole.find(&row(2)).unwrap();
    assert_eq!(found[1].locator, format!("a.jsonl#{at}"));
    assert_eq!(found[1].bytes_raw, row(2).len() as u64);
    let found = rows(&whole[..at + 10], "");
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].reject.as_deref(), Some("truncated"));
    let long = format!("[{}, {}]", row(1), json!({"question": "x".repeat(5000), "answer": "y"}));
    assert_eq!(rows(&long, "row_bytes_max = 4000")[1].reject.as_deref(), Some("too_large"));
    assert!(rows("[]", "").is_empty());
}

/// Reads a file of the shared data as text.
fn content(path: &std::path::Path) -> String {
    let bytes = fs::read(path).unwrap();
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return String::from_utf8(bytes).unwrap();
    }
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn reads_every_row_of_real_data() {
    let Some(folder) = testing::data("conversations") else { return };
    // Rows as SOURCES.md of the data counts them.
    for (name, shape, n_rows) in [
        ("llama-factory/alpaca_en_demo.json.gz", "alpaca", 999),
        ("llama-factory/identity.json.gz", "alpaca", 91),
        ("llama-factory/glaive_toolcall_en_demo.json.gz", "sharegpt", 300),
        ("llama-factory/dpo_en_demo.json.gz", "dpo", 300),
        ("llama-factory/kto_en_demo.json.gz", "kto", 300),
        ("hh-rlhf/harmless-base/test.jsonl.gz", "hh_rlhf", 2312),
        ("gsm8k/train.jsonl.gz", "question_answer", 7473),
        ("self-instruct/data/seed_tasks.jsonl", "alpaca", 175),
        ("self-instruct/human_eval/user_oriented_instructions.jsonl", "alpaca", 252),
        ("fastchat/data/dummy_conversation.json", "sharegpt", 500),
        ("fastchat/fastchat/llm_judge/data/mt_bench/question.jsonl", "turns", 80),
    ] {
        let path = folder.join(name);
        let source = testing::build(&KIND, "");
        let rows = testing::conforms(&*source, &testing::file(&path), &[30_000]);
        let text = content(&path);
        let stated = match serde_json::from_str::<Vec<Value>>(&text) {
            Ok(rows) => rows.len(),
            Err(_) => text.lines().filter(|line| !line.trim().is_empty()).count(),
        };
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for row in &rows {
            *reasons.entry(row.reject.as_deref().unwrap_or("kept")).or_default() += 1;
            assert!(row.reject.is_some() || row.value("shape") == Some(shape), "{}", row.locator);
        }
        eprintln!("{name}: {stated} rows, {reasons:?}");
        assert_eq!((rows.len(), stated), (n_rows, n_rows), "{name}");
    }
    let path = folder.join("llama-factory/c4_demo.jsonl.gz");
    let rows = testing::read(&*testing::build(&KIND, ""), &testing::file(&path), None);
    assert_eq!(rows.len(), 300);
    assert!(rows.iter().all(|row| row.reject.as_deref() == Some("unknown_shape")));
}

proptest! {
    #[test]
    fn ranges_of_any_size_tile_a_file(
        questions in proptest::collection::vec("[a-z\"\\\\\\]\\[]{0,20}", 0..30),
        cuts in proptest::collection::vec(any::<u16>(), 0..5),
        is_array in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let rows: Vec<String> = questions
            .iter()
            .map(|question| json!({ "question": format!("q{question}"), "answer": "a" }).to_string())
            .collect();
        let text = if is_array { format!("[{}]", rows.join(", ")) } else { rows.join("\n") };
        fs::write(&path, text).unwrap();
        let found = testing::conforms(&*testing::build(&KIND, ""), &testing::file(&path), &cuts);
        let texts: Vec<String> = questions.iter().map(|q| format!("User: q{q}\n\nAssistant: a")).collect();
        prop_assert_eq!(found.into_iter().map(|row| row.text).collect::<Vec<_>>(), texts);
    }
}
