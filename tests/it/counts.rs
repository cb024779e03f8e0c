//! Counts add up: what came in is what is kept and what went, by reason.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::mill::Mill;

#[test]
fn every_record_is_kept_or_listed_with_its_reason() {
    let mill = Mill::filled(1 << 20);
    mill.write("broken.jsonl", "{\"text\": \"cut off\n{\"text\": 5}\n{\"url\": \"x\"}\n[]\n");
    let summary = mill.mill(&[]);
    let count = |query: &str| mill.count("corpus", query);
    let n_documents = count("select count(*) from documents");
    let n_dropped = count("select count(*) from dropped");
    assert_eq!(summary["records"], n_documents + n_dropped);
    assert_eq!(summary["documents"], n_documents);
    assert_eq!(summary["records"], records(&mill), "records in the files themselves");

    let by_reason = by_name(
        &mill,
        "select step || '/' || reason as name, count(*) as n from dropped group by step, reason",
    );
    assert_eq!(counts(&summary["dropped"]), by_reason);
    let manifest = &inspect(&mill, "documents")["manifest"]["counts"];
    assert_eq!(counts(&manifest["dropped"]), by_reason);
    assert_eq!(manifest["n_in"], summary["records"]);
    assert_eq!(manifest["n_kept"], n_documents);
    assert!(by_reason.keys().any(|reason| reason.starts_with("source/")), "{by_reason:?}");
    assert!(by_reason.keys().any(|reason| reason.starts_with("4:where/")), "{by_reason:?}");

    let n_tokenized = count("select count(*) from tokens");
    let n_duplicates = count("select count(*) from duplicates");
    assert_eq!(n_documents, n_tokenized + n_duplicates);
    let by_method = by_name(
        &mill,
        "select 'dedup/' || method as name, count(*) as n from duplicates group by method",
    );
    assert_eq!(counts(&inspect(&mill, "tokens")["manifest"]["counts"]["dropped"]), by_method);
    assert_eq!(counts(&summary["duplicates"]), by_method);
    assert_eq!(by_method.len(), 3, "every method finds some: {by_method:?}");
    assert_eq!(summary["tokens"], count("select sum(n_tokens) from tokens"));
    println!(
        "{} records = {n_documents} + {n_dropped}: {by_reason:?}, {by_method:?}",
        summary["records"]
    );
}

#[test]
fn copies_are_counted_in_a_job_that_makes_no_tokens() {
    let mill = Mill::new();
    let rows = ["one", "two", "one", "one"].map(|text| format!("{{\"text\": \"{text}\"}}\n"));
    mill.write("rows.jsonl", rows.concat());
    mill.write(
        "job.toml",
        "name = \"copies\"\noutput = \"corpus\"\n[[source]]\nkind = \"jsonl\"\npath = \"rows.jsonl\"\n\
         [dedup]\nmethods = [\"exact\"]\n",
    );
    // The second run finds its work done, and counts the same.
    for _ in 0..2 {
        let summary = mill.mill(&[]);
        assert_eq!(summary["documents"], 4);
        assert_eq!(summary["duplicates"], serde_json::json!({ "dedup/exact": 2 }));
        assert_eq!(summary["tokenized"], Value::Null);
    }
    assert_eq!(mill.count("corpus", "select count(*) from duplicates"), 2);
}

#[test]
fn every_row_leads_back_to_its_document() {
    let mill = Mill::filled(1 << 20);
    mill.mill(&[]);
    let none = |query: &str| assert_eq!(mill.count("corpus", query), 0, "{query}");
    none("select count(*) from dropped where locator is null or locator = '' or reason = ''");
    none(
        "select count(*) from documents where locator = '' or kind = 'web' and locator not like '%#%'",
    );
    none("select count(*) from documents a join dropped b on a.id = b.id");
    none("select count(*) - count(distinct id) from documents");
    none(
        "select count(*) from tokens t left join documents d on d.id = t.document_id where d.id is null",
    );
    none("select count(*) from tokens t join duplicates d on d.id = t.document_id");
    none("select count(*) from duplicates where kept_id in (select id from duplicates)");
    none("select count(*) from edits e left join documents d on d.id = e.id where d.id is null");
    none("select count(*) from tokens where n_tokens <> cardinality(tokens)");
    // What is kept instead of a copy is there, in the shards.
    none(
        "select count(*) from duplicates d left join tokens t on t.document_id = d.kept_id where t.n_tokens is null",
    );
}

/// The records of a mill's files, counted without the engine.
fn records(mill: &Mill) -> u64 {
    let mut n = 0;
    let mut open = vec![mill.path("")];
    while let Some(folder) = open.pop() {
        for name in shard::store::list(&folder).unwrap() {
            let path = folder.join(&name);
            let lines =
                || std::fs::read(&path).unwrap().iter().filter(|byte| **byte == b'\n').count();
            n += match name.rsplit('.').next().unwrap() {
                _ if name == "corpus" => 0,
                _ if path.is_dir() => {
                    open.push(path);
                    0
                }
                "txt" | "rs" => 1,
                "jsonl" => lines(),
                "gz" => {
                    pages(flate2::read::MultiGzDecoder::new(std::fs::File::open(&path).unwrap()))
                }
                "warc" => pages(std::fs::File::open(&path).unwrap()),
                _ => 0,
            };
        }
    }
    n as u64
}

fn pages(mut archive: impl std::io::Read) -> usize {
    let mut bytes = Vec::new();
    archive.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).matches("WARC/1.1\r\nWARC-Type: response\r\n").count()
}

fn inspect(mill: &Mill, dataset: &str) -> Value {
    serde_json::from_str(&mill.ok(&["inspect", &format!("corpus/{dataset}"), "--json"])).unwrap()
}

fn counts(value: &Value) -> BTreeMap<String, u64> {
    let entries = value.as_object().unwrap().iter();
    entries.map(|(name, n)| (name.clone(), n.as_u64().unwrap())).collect()
}

fn by_name(mill: &Mill, query: &str) -> BTreeMap<String, u64> {
    let rows = mill.sql("corpus", query).into_iter();
    rows.map(|row| (row["name"].as_str().unwrap().to_owned(), row["n"].as_u64().unwrap())).collect()
}
