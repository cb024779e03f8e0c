//! `gristmill export` and `import`: token by token the same, from the command line.

use serde_json::Value;
use shard::Dataset;

use crate::mill::{Mill, root};

/// The documents of a dataset of tokens, as SQL sees them, in an order of their own.
fn tokens(mill: &Mill, corpus: &str) -> Vec<String> {
    let rows = mill.sql(corpus, "select tokens from tokens");
    let mut rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
    rows.sort();
    rows
}

#[test]
fn what_is_exported_comes_back_token_by_token() {
    let mill = Mill::new();
    let frozen = root().join("tests/formats/v1");
    let dataset = frozen.join("tokens");
    let dataset = dataset.to_str().unwrap();
    let wanted = tokens(&mill, frozen.to_str().unwrap());
    assert_eq!(wanted.len(), 60);
    for format in ["megatron", "mds", "nanogpt"] {
        let exported =
            mill.ok(&["export", dataset, "--format", format, "--output", format, "--json"]);
        let exported: Value = serde_json::from_str(&exported).unwrap();
        assert_eq!(exported["token_type"], "uint16");
        assert_eq!(exported["splits"][0]["tokens"], 8149, "what the frozen manifest says");
        let corpus = format!("from-{format}");
        let output = format!("{corpus}/tokens");
        let tokenizer = format!("{format}/tokenizer.json");
        let import =
            ["import", format, "--format", format, "--tokenizer", &tokenizer, "--output", &output];
        mill.ok(&import);
        assert_eq!(tokens(&mill, &corpus), wanted, "{format}");
        mill.ok(&["verify", &output, "--deep"]);
        let manifest = Dataset::at(mill.path(&output)).open(None).unwrap().manifest;
        assert_eq!(manifest.n_tokens("validation", None), 1517, "{format}");
        let again = mill.run(&import);
        assert_eq!(again.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&again.stderr).contains("version 1 already"));
    }
}

#[test]
fn ranks_read_slices_of_the_same_batches() {
    let mill = Mill::new();
    let dataset = root().join("tests/formats/v1/tokens");
    let read = |more: &[&str]| {
        let common = [
            "read",
            dataset.to_str().unwrap(),
            "--seq-len",
            "32",
            "--batches",
            "3",
            "--batch",
            "6",
        ];
        mill.ok(&[&common, more].concat()).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let whole = read(&[]);
    assert_eq!(whole.len(), 18);
    let ranks: Vec<Vec<String>> =
        ["0", "1", "2", "3"].iter().map(|rank| read(&["--world", "4", "--rank", rank])).collect();
    let mut together = Vec::new();
    for batch in 0..3 {
        for of_rank in &ranks {
            let per_batch = of_rank.len() / 3;
            together.extend_from_slice(&of_rank[batch * per_batch..(batch + 1) * per_batch]);
        }
    }
    assert_eq!(together, whole);
}
