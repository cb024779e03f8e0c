//! Signatures of a job equal those of the implementation that its profile names.

use serde_json::{Value, json};

use crate::mill::{Mill, root};

#[test]
fn a_job_makes_the_signatures_of_datatrove() {
    let golden = root().join("dedup/tests/golden/datatrove.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    // Words that are simple already: the tokenizer and the simplification leave them as they are.
    let cases: Vec<&Value> = golden["signatures"].as_array().unwrap().iter().take(3).collect();
    let mill = Mill::new();
    let lines = cases.iter().map(|case| format!("{}\n", json!({ "text": case["words"] })));
    mill.write("rows.jsonl", lines.collect::<String>());
    mill.write(
        "job.toml",
        "name = \"equal\"\noutput = \"corpus\"\n[[source]]\nkind = \"jsonl\"\npath = \"rows.jsonl\"\n\
         [dedup]\nmethods = [\"minhash\"]\nminhash = { profile = \"datatrove\" }\n",
    );
    mill.mill(&[]);
    let rows = mill.sql("corpus", "select signature from signatures order by row");
    assert_eq!(rows.len(), cases.len());
    for (row, case) in rows.iter().zip(&cases) {
        assert_eq!(row["signature"], case["signature"], "{}", case["words"]);
    }
    let query = "select minhash(d.text, 'profile = \"datatrove\"') as signature \
                 from documents d join signatures s on s.id = d.id order by s.row";
    let by_sql = mill.sql("corpus", query);
    for (row, case) in by_sql.iter().zip(cases) {
        assert_eq!(row["signature"], case["signature"], "{} by SQL", case["words"]);
    }
}

#[test]
fn jobs_and_sql_make_the_signatures_of_nemo_curator_and_text_dedup() {
    let golden = root().join("dedup/tests/golden/minhash.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    for profile in ["nemo", "text_dedup"] {
        let cases: Vec<&Value> = golden[profile]
            .as_array()
            .unwrap()
            .iter()
            .filter(|case| {
                let text = case["text"].as_str().unwrap();
                !text.is_empty() && text.trim() == text && text != "..."
            })
            .collect();
        let expected = |bits: u64| cases.iter().filter(move |case| case["bits"] == bits);
        let mill = Mill::new();
        let lines = expected(64).map(|case| format!("{}\n", json!({ "text": case["text"] })));
        mill.write("rows.jsonl", lines.collect::<String>());
        mill.write(
            "job.toml",
            format!(
                "name = \"equal\"\noutput = \"corpus\"\n[[source]]\nkind = \"jsonl\"\npath = \"rows.jsonl\"\n\
                 [dedup]\nmethods = [\"minhash\"]\nminhash = {{ profile = \"{profile}\", bits = 64 }}\n"
            ),
        );
        mill.mill(&[]);
        let check = |rows: Vec<Value>, bits: u64| {
            assert_eq!(rows.len(), expected(bits).count(), "{profile}, {bits} bits");
            for (row, case) in rows.iter().zip(expected(bits)) {
                assert_eq!(row["signature"], case["signature"], "{profile}: {}", case["text"]);
            }
        };
        check(mill.sql("corpus", "select signature from signatures order by row"), 64);
        for bits in [32, 64] {
            let query = format!(
                "select minhash(d.text, 'profile = \"{profile}\", bits = {bits}') as signature \
                 from documents d join signatures s on s.id = d.id order by s.row"
            );
            check(mill.sql("corpus", &query), bits);
        }
        println!("{} signatures of {profile}", 3 * expected(64).count());
    }
    let mill = Mill::new();
    mill.write("empty", "");
    let refused = mill.run(&["sql", "-c", "select minhash('a', 'profile = \"nemo\", bits = 16')"]);
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && message.contains("`bits` is 16"), "{message}");
}
