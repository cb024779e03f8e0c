//! Documents that are taken down leave every dataset, nothing else moves, and no run brings them back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use shard::Dataset;
use shard::dataset::Snapshot;
use shard::manifest::Manifest;

use crate::mill::{DATASETS, Mill, Random, assert_same};

const SEED: u64 = 5;

/// The ids of a dataset's rows, in the order of its shards.
fn ids(snapshot: &Snapshot) -> Vec<String> {
    let mut found = Vec::new();
    for shard in &snapshot.manifest.shards {
        let file = fs::File::open(snapshot.shard_path(shard)).unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let column = batch.column_by_name("id").or(batch.column_by_name("document_id"));
            let column = column.unwrap().as_fixed_size_binary();
            let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect();
            found.extend(column.iter().map(|id| -> String { hex(id.unwrap()) }));
        }
    }
    found
}

fn newest(mill: &Mill, corpus: &str, dataset: &str) -> Snapshot {
    Dataset::at(mill.path(corpus).join(dataset)).open(None).unwrap()
}

fn all(mill: &Mill, corpus: &str) -> BTreeMap<&'static str, Snapshot> {
    let has = |name: &&str| mill.path(corpus).join(name).join("manifest").is_dir();
    DATASETS.into_iter().filter(has).map(|name| (name, newest(mill, corpus, name))).collect()
}

fn blake3s(manifest: &Manifest) -> Vec<&str> {
    manifest.shards.iter().map(|shard| shard.blake3.as_str()).collect()
}

/// Every 9th document, every 7th dropped record, and the first of two clusters.
fn wanted(mill: &Mill, corpus: &str) -> BTreeSet<String> {
    let of = |name: &str, step: usize| ids(&newest(mill, corpus, name)).into_iter().step_by(step);
    let kept =
        mill.sql(corpus, "select distinct hex(kept_id) as id from duplicates order by id limit 2");
    let kept = kept.iter().map(|row| row["id"].as_str().unwrap().to_owned());
    of("documents", 9).chain(of("dropped", 7)).chain(kept).collect()
}

fn takedown(mill: &Mill, corpus: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = mill.run(&[&["takedown", corpus, "--json"], arguments].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout);
    (output.status.code(), report.unwrap_or_else(|_| panic!("{arguments:?}: {errors}")))
}

#[test]
fn documents_that_are_taken_down_leave_every_dataset_and_no_run_brings_them_back() {
    let mill = Mill::filled(1 << 20);
    mill.mill(&[]);
    let before = all(&mill, "corpus");
    let wanted = wanted(&mill, "corpus");
    let lines: Vec<String> = wanted.iter().cloned().collect();
    mill.write("ids.txt", format!("# by letter\n{}\n\n", lines.join("\n")));

    let (code, dry) = takedown(&mill, "corpus", &["--ids", "ids.txt", "--dry-run"]);
    assert_eq!((code, &dry["changes"]), (Some(0), &json!([])));
    assert_eq!(all(&mill, "corpus"), before, "a dry run changes nothing");

    let (code, report) = takedown(&mill, "corpus", &["--ids", "ids.txt", "--reason", "letter"]);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["taken"], json!(wanted.len()));
    assert_eq!(report["shards"], dry["shards"]);
    let after = all(&mill, "corpus");
    for (name, then) in &before {
        let now = &after[name];
        assert_eq!(now.version, then.version + 1, "{name}");
        let rows = ids(then);
        let left: Vec<String> = rows.iter().filter(|id| !wanted.contains(*id)).cloned().collect();
        assert_eq!(ids(now), left, "{name}: the order of the others");
        let n = (rows.len() - left.len()) as u64;
        let change =
            json!({ "dataset": name, "from": then.version, "version": now.version, "rows": n });
        assert!(report["changes"].as_array().unwrap().contains(&change), "{change}: {report}");
        let taken = now.manifest.counts.dropped.get("takedown/letter").copied().unwrap_or(0);
        let counts = &now.manifest.counts;
        assert_eq!(counts.n_in, then.manifest.counts.n_in, "{name}");
        assert_eq!(counts.n_in, counts.n_kept + counts.n_dropped(), "{name}");
        // The counts of documents say what became of every record, also of those in `dropped`.
        let of_dropped = ids(&before["dropped"]).iter().filter(|id| wanted.contains(*id)).count();
        let more = if *name == "documents" { of_dropped as u64 } else { 0 };
        assert_eq!(taken, n + more, "{name}");
        println!("{name}: {n} of {} rows", rows.len());
    }
    assert_eq!(after["tokens"].manifest.tokenizer, before["tokens"].manifest.tokenizer);
    // Positions in `documents` are those of the new version.
    let order = ids(&after["documents"]);
    for name in ["signatures", "duplicates"] {
        let rows = mill.sql("corpus", &format!("select hex(id) as id, row from {name}"));
        for row in &rows {
            let at = usize::try_from(row["row"].as_u64().unwrap()).unwrap();
            assert_eq!(row["id"], json!(order[at]), "{name}");
        }
    }
    let listed = mill.sql("corpus", "select hex(id) as id, reason from takedowns order by id");
    let expected: Vec<Value> =
        wanted.iter().map(|id| json!({ "id": id, "reason": "letter" })).collect();
    assert_eq!(listed, expected);
    mill.ok(&["verify", "corpus", "--deep"]);

    let (code, again) = takedown(&mill, "corpus", &["--ids", "ids.txt"]);
    assert_eq!((code, &again["changes"]), (Some(0), &json!([])));
    assert_eq!((&again["taken"], &again["already"]), (&json!(0), &json!(wanted.len())));
    mill.mill(&[]);
    assert_eq!(all(&mill, "corpus"), after, "a run of the same job has nothing to do");

    a_later_run_leaves_them_out(&mill, &after, &wanted);
}

/// With more input, and from nothing but the list.
fn a_later_run_leaves_them_out(
    mill: &Mill,
    after: &BTreeMap<&str, Snapshot>,
    wanted: &BTreeSet<String>,
) {
    mill.write("more.jsonl", "{\"text\":\"One more text that nobody has asked to take down.\"}\n");
    mill.mill(&[]);
    let more = all(mill, "corpus");
    assert_eq!(more["documents"].version, after["documents"].version + 1);
    for (name, snapshot) in &more {
        assert!(ids(snapshot).iter().all(|id| !wanted.contains(id)), "{name}");
    }
    fs::remove_file(mill.path("more.jsonl")).unwrap();
    for name in DATASETS {
        let folder = mill.path("corpus").join(name);
        if folder.is_dir() {
            fs::remove_dir_all(folder).unwrap();
        }
    }
    mill.mill(&[]);
    for name in ["documents", "dropped", "edits"] {
        let (fresh, taken) = (newest(mill, "corpus", name), &after[name]);
        assert_eq!(blake3s(&fresh.manifest), blake3s(&taken.manifest), "{name}");
    }
    let fresh = newest(mill, "corpus", "documents");
    assert_eq!(fresh.manifest.counts, after["documents"].manifest.counts);
}

#[test]
fn killed_takedowns_are_finished_by_the_next_command() {
    let mill = Mill::filled(1 << 20);
    mill.mill(&[]);
    let lines: Vec<String> = wanted(&mill, "corpus").into_iter().collect();
    mill.write("ids.txt", lines.join("\n"));
    let copy = |to: &str| {
        let mut cp = Command::new("cp");
        let status = cp.arg("-r").arg(mill.path("corpus")).arg(mill.path(to)).status();
        assert!(status.unwrap().success());
    };
    copy("whole");
    let started = Instant::now();
    takedown(&mill, "whole", &["--ids", "ids.txt"]);
    let time = started.elapsed();
    mill.ok(&["clean", "whole"]);
    let expected = mill.files("whole");
    let mut random = Random::new(SEED);
    let mut killed = 0;
    for round in 0..8 {
        let corpus = format!("killed-{round}");
        copy(&corpus);
        let delay = time.mul_f64(0.3 + 0.7 * random.below(1000) as f64 / 1000.0);
        let mut child = mill.start(&["takedown", &corpus, "--ids", "ids.txt"]);
        thread::sleep(delay.min(Duration::from_secs(60)));
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        // Whoever comes next: the same command, or first a clean-up, which must not take what is still needed.
        if round % 2 == 1 {
            mill.ok(&["clean", &corpus]);
        }
        let (code, _) = takedown(&mill, &corpus, &["--ids", "ids.txt"]);
        assert_eq!(code, Some(0));
        mill.ok(&["verify", &corpus, "--deep"]);
        mill.ok(&["clean", &corpus]);
        assert_same(&mill.files(&corpus), &expected, &corpus);
        fs::remove_dir_all(mill.path(&corpus)).unwrap();
    }
    println!("{killed} of 8 were killed before their end");
    assert!(killed > 0, "every takedown ended before its kill");
}

#[test]
fn copies_are_named_and_taken_down_when_asked() {
    let mill = Mill::filled(200_000);
    mill.mill(&[]);
    let pair = &mill.sql(
        "corpus",
        "select hex(id) as id, hex(kept_id) as kept from duplicates order by id limit 1",
    )[0];
    let (copy, kept) = (pair["id"].as_str().unwrap(), pair["kept"].as_str().unwrap());
    let query = format!(
        "select hex(id) as id from duplicates where kept_id = id_of('{kept}') \
         union select '{kept}' as id order by id"
    );
    let cluster: BTreeSet<String> = mill
        .sql("corpus", &query)
        .iter()
        .map(|row| row["id"].as_str().unwrap().to_owned())
        .collect();
    // Whichever of them is asked for, the others are its copies.
    for asked in [copy, kept] {
        let select = format!("select id from documents where id = id_of('{asked}')");
        let (code, report) = takedown(&mill, "corpus", &["--query", &select, "--dry-run"]);
        let named: BTreeSet<String> = report["copies"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_str().unwrap().to_owned())
            .collect();
        let others = cluster.iter().filter(|id| *id != asked).cloned().collect();
        assert_eq!((code, named), (Some(0), others), "{report}");
    }
    let select = format!("select id from documents where id = id_of('{copy}')");
    let (code, report) = takedown(&mill, "corpus", &["--query", &select, "--copies"]);
    assert_eq!((code, &report["copies"]), (Some(0), &json!([])));
    assert_eq!(report["taken"], json!(cluster.len()));
    for (name, snapshot) in all(&mill, "corpus") {
        assert!(ids(&snapshot).iter().all(|id| !cluster.contains(id)), "{name}");
    }
    // Nothing that was trained on: old versions go without a loss, but only when asked twice.
    let (code, report) = takedown(&mill, "corpus", &["--erase"]);
    assert_eq!((code, &report["erased"]), (Some(1), &json!([])));
    let old = report["old_versions"].as_array().unwrap().len();
    assert!(old >= 4, "{report}");
    let (code, _) = takedown(&mill, "corpus", &["--erase", "--yes"]);
    assert_eq!(code, Some(0));
    let held = mill.count(
        "corpus",
        "select count(*) from held_by() where document_id in (select id from takedowns)",
    );
    assert_eq!(held, 0);
    assert_eq!(Dataset::at(mill.path("corpus/tokens")).versions().unwrap(), [2]);
    mill.ok(&["verify", "corpus", "--deep"]);
}

#[test]
fn bad_ids_are_refused_and_unknown_ones_listed() {
    let mill = Mill::filled(100_000);
    mill.mill(&[]);
    let before = all(&mill, "corpus");
    let unknown = "00112233445566778899aabbccddeeff";
    mill.write("unknown.txt", unknown);
    let (code, report) = takedown(&mill, "corpus", &["--ids", "unknown.txt"]);
    assert_eq!((code, &report["unknown"]), (Some(1), &json!([unknown])));
    mill.write("wrong.txt", format!("{unknown}\n12ab\n"));
    mill.write("empty.txt", "# nothing\n");
    let refused = |arguments: &[&str], words: &[&str]| {
        let output = mill.run(&[&["takedown"], arguments].concat());
        let error = String::from_utf8_lossy(&output.stderr).replace("\n  │ ", " ");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        for word in words {
            assert!(error.contains(word), "{arguments:?}: no `{word}` in {error}");
        }
    };
    refused(&["corpus", "--ids", "wrong.txt"], &["wrong.txt:2", "`12ab` is no id", "32"]);
    refused(&["corpus", "--ids", "empty.txt"], &["there are no ids"]);
    refused(&["corpus"], &["nothing says which documents", "--ids"]);
    refused(&["corpus", "--query", "select url, text from documents limit 1"], &["none is `id`"]);
    refused(&["corpus", "--query", "select url from documents limit 1"], &["is no id"]);
    refused(&["corpus", "--ids", "unknown.txt", "--reason", "a/b"], &["--reason", "a/b"]);
    refused(&["nowhere", "--ids", "unknown.txt"], &["nowhere"]);
    assert_eq!(all(&mill, "corpus"), before);
}
