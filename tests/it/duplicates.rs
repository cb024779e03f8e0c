//! Which copy stays, and that a corpus that grows ends where one made at once does.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::mill::{Mill, texts};

const JOB: &str = "name = \"copies\"\noutput = \"corpus\"\nmemory = \"64MiB\"\n[[source]]\nkind = \"jsonl\"\npath = \"rows/*.jsonl\"\n\
     [[step]]\nwhere = \"char_length(text) > 2\"\n[dedup]\n";

/// Texts of the demo, some of them again: the same, with a sentence more, and shortened.
fn families() -> Vec<String> {
    let mut rows = Vec::new();
    for (number, (name, text)) in texts("books").into_iter().enumerate() {
        let url = format!("http://books.test/{name}");
        let longer = format!("{text} The end of this edition, number {number}.");
        let copies = [
            (url.clone(), text.clone()),
            (format!("{url}?utm_source=feed"), format!("{text}\n")),
            (format!("{url}/longer"), longer),
            (format!("{url}/exact"), text.clone()),
        ];
        for (copy, (url, text)) in copies.into_iter().enumerate().take(1 + number % 4) {
            let row =
                serde_json::json!({ "key": format!("{number}-{copy}"), "url": url, "text": text });
            rows.push(row.to_string() + "\n");
        }
    }
    rows
}

fn write(mill: &Mill, dedup: &str, files: &[(&str, &[String])]) {
    mill.write("job.toml", format!("{JOB}{dedup}"));
    for (name, rows) in files {
        mill.write(&format!("rows/{name}.jsonl"), rows.concat());
    }
}

/// The removed documents with the kept one and why, by what the rows call themselves.
fn found(mill: &Mill, corpus: &str) -> BTreeSet<String> {
    let rows = mill.sql(
        corpus,
        "select a.url as gone, char_length(a.text) as n, b.url as kept, d.method, d.similarity, d.cluster_id, d.row, d.kept_row \
         from duplicates d join documents a on a.id = d.id join documents b on b.id = d.kept_id",
    );
    assert_eq!(rows.len() as u64, mill.count(corpus, "select count(*) from duplicates"));
    rows.iter().map(Value::to_string).collect()
}

#[test]
fn the_copy_that_the_job_prefers_stays_whatever_the_threads() {
    let mill = Mill::new();
    let rows = families();
    let dedup =
        "methods = [\"url\", \"exact\", \"minhash\"]\npriority = \"char_length(text) desc\"\n";
    write(&mill, dedup, &[("a", &rows)]);
    for threads in ["1", "2", "8"] {
        mill.mill(&["--threads", threads, "--set", &format!("output=of-{threads}")]);
    }
    let of_one = mill.files("of-1");
    for threads in ["2", "8"] {
        crate::mill::assert_same(
            &mill.files(&format!("of-{threads}")),
            &of_one,
            "with more threads",
        );
    }
    let n = mill.count("of-1", "select count(*) from duplicates");
    assert!(n >= 40, "{n} duplicates");
    // Nothing that stays is shorter than what goes for it: its own length and the kept one's are compared by rank.
    let worse = "select count(*) from duplicates d join documents a on a.id = d.id \
         join documents b on b.id = d.kept_id where char_length(a.text) > char_length(b.text)";
    assert_eq!(mill.count("of-1", worse), 0);
    // By row, the first one stays, and here that is often a shorter one.
    mill.mill(&["--set", "output=first", "--set", "dedup.priority=[]"]);
    assert!(mill.count("first", worse) > 10);
    println!("{n} duplicates");
}

#[test]
fn ties_are_broken_by_id_and_not_by_row() {
    let mill = Mill::new();
    let text = "one of three equal texts that are told apart by their ids alone";
    let rows: Vec<String> = (0..3).map(|_| format!("{{\"text\": \"{text}\"}}\n")).collect();
    write(&mill, "methods = [\"exact\"]\npriority = [\"char_length(text)\"]\n", &[("a", &rows)]);
    mill.mill(&[]);
    let least =
        "select count(*) from duplicates d where d.kept_id = (select min(id) from documents)";
    assert_eq!(mill.count("corpus", least), 2);
}

#[test]
fn a_priority_that_is_no_expression_is_refused_before_any_work() {
    let mill = Mill::new();
    write(
        &mill,
        "methods = [\"exact\"]\npriority = \"lenght(text) desc\"\n",
        &[("a", &families())],
    );
    let output = mill.run(&["run", "job.toml"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("dedup.priority") && message.contains("lenght"), "{message}");
    assert!(!mill.path("corpus/documents").is_dir());
}

#[test]
fn a_corpus_that_grew_has_the_duplicates_of_one_made_at_once() {
    let rows = families();
    // The last two are read behind the first in either case: their names say so.
    let parts: Vec<&[String]> = rows.chunks(rows.len().div_ceil(3)).collect();
    for dedup in [
        "methods = [\"url\", \"exact\", \"minhash\"]\n",
        "methods = [\"exact\", \"minhash\", \"url\"]\n",
    ] {
        let mill = Mill::new();
        write(&mill, dedup, &[("a", parts[0])]);
        mill.mill(&[]);
        let first = mill.files("corpus");
        write(&mill, dedup, &[("a", parts[0]), ("b", parts[1])]);
        mill.mill(&[]);
        write(&mill, dedup, &[("a", parts[0]), ("b", parts[1]), ("c", parts[2])]);
        mill.mill(&[]);
        mill.mill(&["--set", "output=whole"]);
        assert_eq!(found(&mill, "corpus"), found(&mill, "whole"), "{dedup}");
        assert!(found(&mill, "corpus").len() >= 40);

        // Nothing of the first version was written again: its documents and signatures are those of the third.
        let third = mill.files("corpus");
        let kept =
            ["documents/data/", "documents/manifest/", "signatures/data/", "signatures/manifest/"];
        for (name, hash) in
            first.iter().filter(|(name, _)| kept.iter().any(|part| name.starts_with(part)))
        {
            assert_eq!(third.get(name), Some(hash), "{name}");
        }
        for dataset in ["documents", "signatures"] {
            let n =
                third.keys().filter(|name| name.starts_with(&format!("{dataset}/data/"))).count();
            assert_eq!(n, 3, "{dataset}: {:?}", third.keys());
        }
        // Rows are compared with the duplicates above.
        let rows = "select url, char_length(text) as n from documents order by url";
        assert_eq!(mill.sql("corpus", rows), mill.sql("whole", rows));
    }
}

#[test]
fn a_corpus_whose_files_changed_begins_anew() {
    let rows = families();
    let mill = Mill::new();
    let dedup = "methods = [\"exact\", \"minhash\"]\n";
    write(&mill, dedup, &[("a", &rows[..40]), ("b", &rows[40..])]);
    mill.mill(&[]);
    write(&mill, dedup, &[("a", &rows[20..40]), ("b", &rows[40..])]);
    mill.mill(&[]);
    mill.mill(&["--set", "output=whole"]);
    assert_eq!(found(&mill, "corpus"), found(&mill, "whole"));
    let n = mill.count("corpus", "select count(*) from documents");
    assert_eq!(n, rows.len() as u64 - 20);
}

#[test]
fn kept_documents_say_how_many_they_stand_for() {
    let mill = Mill::new();
    let texts = [("four", 4), ("two", 2), ("one", 1)];
    let rows = texts.map(|(name, n)| {
        let text: String = (0..60).map(|word| format!("{name}{word} ")).collect();
        format!("{}\n", json!({ "text": text })).repeat(n)
    });
    mill.write("rows.jsonl", rows.concat());
    mill.write(
        "job.toml",
        "name = \"weights\"\noutput = \"corpus\"\n[[source]]\nkind = \"jsonl\"\npath = \"rows.jsonl\"\n\
         [dedup]\nmethods = [\"exact\"]\nreweight = \"fineweb2\"\n[shard]\ntokenizer = \"train:bpe:300\"\n",
    );
    let summary = mill.mill(&[]);
    let query = "select cluster_size, weight, split_part(min(d.text), '0', 1) as name, count(*) as n \
                 from tokens t join documents d on d.id = t.document_id group by 1, 2 order by 1";
    let row = |size: u64, weight: u64, name: &str| json!({ "cluster_size": size, "weight": weight, "name": name, "n": 1 });
    // FineWeb-2: a cluster of 4 counts 3 times.
    let expected = [row(1, 1, "one"), row(2, 2, "two"), row(4, 3, "four")];
    assert_eq!(mill.sql("corpus", query), expected);
    let all = mill.count("corpus", "select sum(cluster_size) from tokens");
    assert_eq!(Some(all), summary["documents"].as_u64());
    mill.ok(&["verify", "corpus"]);
    // What trains on them reads them as ever.
    let config = shard::reader::ReaderConfig {
        split: "train".to_owned(),
        partition: None,
        seq_len: 8,
        seed: 1,
        verify: true,
        packing: shard::packing::Packing::Stream,
        mask_documents: false,
    };
    let tokens = mill.path("corpus/tokens");
    let mut reader = shard::reader::SequenceReader::open(&tokens, None, config).unwrap();
    reader.read(0, &mut [0; 9]).unwrap();

    let own = ["--set", "dedup.reweight={ 1 = 2, 3 = 7 }", "--set", "output=own"];
    mill.mill(&own);
    let expected = [row(1, 2, "one"), row(2, 2, "two"), row(4, 7, "four")];
    assert_eq!(mill.sql("own", query), expected);
    for (reweight, words) in
        [("'fineweb'", "fineweb2"), ("{ 2 = 2 }", "size 1"), ("{ some = 2 }", "`some`")]
    {
        let set = format!("dedup.reweight={reweight}");
        let output = mill.run(&["run", "job.toml", "--set", &set]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && message.contains(words), "{message}");
    }
}
