//! Documents that mean the same by the embeddings that come with them.

use serde_json::{Value, json};

use crate::mill::{Mill, assert_same};

/// 120 embeddings of 8 numbers by a linear congruential generator (C's example of `rand`); every fifth document is the
/// one four before it, moved a little, every tenth moved more.
fn embeddings() -> Vec<Vec<i64>> {
    let mut x = 12_345_i64;
    let mut rows: Vec<Vec<i64>> = Vec::new();
    for row in 0..120_usize {
        let mut numbers: Vec<i64> = (0..8)
            .map(|_| {
                x = (x * 1_103_515_245 + 12_345) % (1 << 31);
                (x >> 16) % 201 - 100
            })
            .collect();
        if row % 5 == 4 {
            let scale = if row % 10 == 9 { 4 } else { 1 };
            let first = rows[row - 4].iter();
            numbers = first.zip(numbers).map(|(a, b)| a * 10 + scale * b).collect();
        }
        rows.push(numbers);
    }
    rows
}

/// What NumPy 2.4.6 finds of them: each row in order against the rows kept so far, the first with a cosine of at least
/// 0.95. No pair is nearer to 0.95 than 9e-5.
const FOUND: [(u64, u64, f64); 17] = [
    (4, 0, 0.994415),
    (14, 10, 0.994119),
    (19, 15, 0.957333),
    (24, 20, 0.994652),
    (29, 25, 0.992864),
    (34, 30, 0.995152),
    (39, 35, 0.953275),
    (44, 40, 0.997533),
    (54, 50, 0.996662),
    (64, 60, 0.995682),
    (74, 70, 0.994094),
    (84, 80, 0.997269),
    (89, 85, 0.953517),
    (94, 90, 0.992091),
    (104, 100, 0.997428),
    (114, 110, 0.992967),
    (119, 115, 0.950094),
];

fn mill(dedup: &str, rows: impl Iterator<Item = Value>) -> Mill {
    let mill = Mill::new();
    mill.write("rows.jsonl", rows.map(|row| format!("{row}\n")).collect::<String>());
    mill.write(
        "job.toml",
        format!(
            "name = \"semantic\"\noutput = \"corpus\"\nmemory = \"64MiB\"\n[[source]]\nkind = \"jsonl\"\npath = \"rows.jsonl\"\n\
             [dedup]\n{dedup}\n"
        ),
    );
    mill
}

fn rows() -> impl Iterator<Item = Value> {
    let row = |(row, numbers): (usize, Vec<i64>)| json!({ "text": format!("document {row}, of its own words"), "number": row, "embedding": numbers });
    embeddings().into_iter().enumerate().map(row)
}

/// The rows that go and those kept, with what the stage and what SQL says of their similarity.
const PAIRS: &str = "select d.row, d.kept_row, d.similarity, d.method, d.cluster_id, \
    cosine(a.metadata['embedding'], b.metadata['embedding']) as again \
    from duplicates d join documents a on a.id = d.id join documents b on b.id = d.kept_id order by d.row";

fn pairs(mill: &Mill, corpus: &str) -> Vec<(u64, u64, f64)> {
    let rows = mill.sql(corpus, PAIRS);
    let pair = |row: &Value| {
        assert_eq!(row["similarity"], row["again"], "SQL computes the same: {row}");
        assert_eq!(row["method"], "semantic");
        assert!(row["cluster_id"].as_u64() <= row["kept_row"].as_u64(), "{row}");
        let similarity = row["similarity"].as_f64().unwrap();
        (row["row"].as_u64().unwrap(), row["kept_row"].as_u64().unwrap(), similarity)
    };
    rows.iter().map(pair).collect()
}

#[test]
fn the_pairs_are_those_of_numpy() {
    let mill = mill("methods = [\"semantic\"]", rows());
    let summary = mill.mill(&[]);
    assert_eq!(summary["duplicates"], json!({ "dedup/semantic": 17 }));
    let found = pairs(&mill, "corpus");
    assert_eq!(found.len(), FOUND.len());
    for (found, expected) in found.iter().zip(FOUND) {
        assert_eq!((found.0, found.1), (expected.0, expected.1));
        assert!((found.2 - expected.2).abs() < 1e-6, "{found:?}, not {expected:?}");
    }
    mill.ok(&["verify", "corpus"]);
}

#[test]
fn clusters_lose_pairs_and_add_none_and_threads_change_nothing() {
    let mill = mill(
        "methods = [\"exact\", \"semantic\"]\nsemantic = { clusters = 6, threshold = 0.9 }",
        rows(),
    );
    for threads in ["1", "2", "8"] {
        mill.mill(&["--threads", threads, "--set", &format!("output=of-{threads}")]);
    }
    let of_one = mill.files("of-1");
    assert_same(&mill.files("of-2"), &of_one, "with two threads");
    assert_same(&mill.files("of-8"), &of_one, "with eight threads");
    let in_clusters = pairs(&mill, "of-1");
    mill.mill(&["--set", "output=one", "--set", "dedup.semantic.clusters=1"]);
    let in_one = pairs(&mill, "one");
    assert!(in_clusters.len() > 10 && in_clusters.len() <= in_one.len());
    assert!(in_clusters.iter().all(|pair| pair.2 >= 0.9));
    let clusters = mill.count("of-1", "select count(distinct cluster_id) from duplicates");
    assert!(clusters > 1, "{clusters} clusters have duplicates");
}

#[test]
fn the_document_that_the_job_prefers_stays() {
    let mill = mill(
        "methods = [\"semantic\"]\npriority = \"cast(metadata['number'] as int) desc\"",
        rows(),
    );
    mill.mill(&[]);
    // The same pairs the other way round: here every cluster is a pair.
    let found: Vec<(u64, u64)> = mill
        .sql("corpus", PAIRS)
        .iter()
        .map(|row| (row["row"].as_u64().unwrap(), row["kept_row"].as_u64().unwrap()))
        .collect();
    assert_eq!(found, FOUND.map(|(row, kept, _)| (kept, row)));
}

#[test]
fn documents_without_an_embedding_that_can_be_compared_stay_and_are_counted() {
    let odd =
        ["[1, 0]", "[1, 0, 0]", "null", "[2, 0]", "[0, 0]", "[1, \"x\"]", "[1e60, 1]", "\"none\""];
    let rows = odd.into_iter().enumerate().map(|(row, embedding)| {
        let embedding: Value = serde_json::from_str(embedding).unwrap();
        json!({ "text": format!("document {row}"), "vector": embedding })
    });
    let mill = mill("methods = [\"semantic\"]\nsemantic = { embedding = \"vector\" }", rows);
    let output = mill.run(&["run", "job.toml", "--no-train"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("1 documents without `vector` stay"), "{told}");
    assert!(told.contains("it has 3 numbers, the first one 2"), "{told}");
    assert_eq!(mill.count("corpus", "select count(*) from documents"), 8);
    let found = mill.sql("corpus", "select row, kept_row, similarity from duplicates");
    assert_eq!(found, [json!({ "row": 3, "kept_row": 0, "similarity": 1.0 })]);
    let manifest = std::fs::read(mill.path("corpus/duplicates/manifest/00000001.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(
        manifest["config"]["embeddings"],
        json!({
            "length": 2,
            "n_clusters": 1,
            "n_compared": 2,
            "n_without": 1,
            "n_refused": { "not_finite": 1, "not_numbers": 2, "other_length": 1, "zero_norm": 1 },
        })
    );
}

#[test]
fn what_cannot_work_is_refused() {
    let mill = mill("methods = [\"semantic\"]", rows());
    for (set, words) in [
        (
            "dedup.semantic.embedding=\"vector\"",
            ["dedup.semantic.embedding", "none of 120 documents"],
        ),
        ("dedup.methods=[\"semantic\", \"exact\"]", ["dedup.methods", "`exact`"]),
        ("dedup.semantic.threshold=1.5", ["dedup.semantic", "at most 1"]),
    ] {
        let output = mill.run(&["run", "job.toml", "--set", set]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
}

#[test]
fn two_measures_do_not_add_up() {
    let words = |name: &str| (0..80).map(|word| format!("{name}{word} ")).collect::<String>();
    let (other, text) = (words("other"), words("same"));
    // The third is nearly the second by its words, and the second is the first by its embedding.
    let rows = [(other, "[1, 2]"), (text.clone(), "[2, 4]"), (text + "and more", "[5, -1]")];
    let rows = rows.map(|(text, embedding)| {
        let embedding: Value = serde_json::from_str(embedding).unwrap();
        json!({ "text": text, "embedding": embedding })
    });
    let mill = mill("methods = [\"minhash\", \"semantic\"]", rows.into_iter());
    mill.mill(&[]);
    let query = "select row, kept_row, method, similarity from duplicates order by row";
    let expected = [
        json!({ "row": 1, "kept_row": 0, "method": "semantic", "similarity": 1.0 }),
        json!({ "row": 2, "kept_row": 0, "method": "minhash", "similarity": null }),
    ];
    let found: Vec<Value> = mill
        .sql("corpus", query)
        .into_iter()
        .map(|row| {
            let [number, kept, method, similarity] =
                ["row", "kept_row", "method", "similarity"].map(|key| row[key].clone());
            json!({ "row": number, "kept_row": kept, "method": method, "similarity": similarity })
        })
        .collect();
    assert_eq!(found, expected);
}
