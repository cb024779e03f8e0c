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
    for (row, case) in rows.iter().zip(cases) {
        assert_eq!(row["signature"], case["signature"], "{}", case["words"]);
    }
}
