//! Documents parted by an expression: shards of their own, which mixtures weigh.

use std::collections::BTreeMap;

use serde_json::json;
use shard::Dataset;
use shard::mixture::{Component, MixtureReader};
use shard::packing::Packing;
use shard::reader::{ReaderConfig, Samples, SequenceReader};

use crate::mill::Mill;

const JOB: &str = "name = \"parted\"\noutput = \"corpus\"\n[[source]]\nkind = \"jsonl\"\npath = \"rows.jsonl\"\n\
    [dedup]\nmethods = [\"exact\"]\nreweight = \"fineweb2\"\n\
    [shard]\ntokenizer = \"train:bpe:300\"\nsplit = { train = 0.8, validation = 0.2 }\npartition = \"weight\"\n";

/// 300 documents once, 20 twice and 10 five times.
fn mill() -> Mill {
    let mill = Mill::new();
    let rows = [("one", 300, 1), ("two", 20, 2), ("five", 10, 5)].map(|(name, n, copies)| {
        let row = |i| {
            let text: String = (0..40).map(|word| format!("{name}{i} {word} ")).collect();
            format!("{}\n", json!({ "text": text })).repeat(copies)
        };
        (0..n).map(row).collect::<String>()
    });
    mill.write("rows.jsonl", rows.concat());
    mill.write("job.toml", JOB);
    mill
}

fn config(partition: Option<&str>) -> ReaderConfig {
    ReaderConfig {
        split: "train".to_owned(),
        partition: partition.map(str::to_owned),
        seq_len: 32,
        seed: 1,
        verify: true,
        packing: Packing::BestFit,
        mask_documents: true,
    }
}

#[test]
fn a_mixture_repeats_documents_by_the_size_of_their_cluster() {
    let mill = mill();
    mill.mill(&[]);
    let tokens = mill.path("corpus/tokens");
    let manifest = Dataset::at(&tokens).open(None).unwrap().manifest;
    let mut rows = BTreeMap::<&str, u64>::new();
    for shard in &manifest.shards {
        *rows.entry(shard.partition.as_deref().unwrap()).or_default() += shard.rows;
    }
    // FineWeb-2: 1 for documents without copies, 2 for two, 5 for five.
    assert_eq!(rows, BTreeMap::from([("1", 300), ("2", 20), ("5", 10)]));
    let query = "select weight, count(*) as n from tokens group by weight order by weight";
    let row = |weight, n| json!({ "weight": weight, "n": n });
    assert_eq!(mill.sql("corpus", query), [row(1, 300), row(2, 20), row(5, 10)]);
    mill.ok(&["verify", "--deep", "corpus"]);

    let repeats =
        BTreeMap::from(["1", "2", "5"].map(|name| (name.to_owned(), name.parse().unwrap())));
    let component = Component {
        name: "all".to_owned(),
        dataset: tokens.clone(),
        version: None,
        weight: 1.0,
        epochs_max: Some(1),
        partition: None,
        repeats: Some(repeats),
    };
    let mut mixture = MixtureReader::open(&[component], &[], &config(None)).unwrap();
    let sizes = ["1", "2", "5"]
        .map(|name| SequenceReader::open(&tokens, None, config(Some(name))).unwrap().n_sequences());
    let n = sizes[0] + 2 * sizes[1] + 5 * sizes[2];
    assert_eq!(mixture.n_samples(), Some(n));
    let mut sequence = Default::default();
    let mut times = BTreeMap::<Vec<u32>, u64>::new();
    for sample in 0..n {
        mixture.read_sequence(sample, &mut sequence).unwrap();
        *times.entry(sequence.tokens.clone()).or_default() += 1;
    }
    let mut found = BTreeMap::<u64, u64>::new();
    for n in times.into_values() {
        *found.entry(n).or_default() += 1;
    }
    // No two sequences are alike: each holds numbers of its own documents.
    assert_eq!(found, BTreeMap::from([(1, sizes[0]), (2, sizes[1]), (5, sizes[2])]));
}

#[test]
fn partitions_are_the_same_for_any_memory_and_threads_and_refused_where_they_cannot_be() {
    let mill = mill();
    let partition = "shard.partition=\"case when char_length(text) % 3 = 0 then 'even' end\"";
    let shards = |output: &str, more: &[&str]| {
        let output_key = format!("output={output}");
        let all = [&["--set", partition, "--set", &output_key][..], more].concat();
        mill.mill(&all);
        let manifest = Dataset::at(mill.path(output).join("tokens")).open(None).unwrap().manifest;
        manifest.shards.into_iter().map(|it| (it.path, it.partition)).collect::<Vec<_>>()
    };
    let first = shards("a", &["--threads", "1"]);
    assert_eq!(first, shards("b", &["--threads", "3"]));
    let names: Vec<_> = first.iter().filter_map(|(_, partition)| partition.as_deref()).collect();
    assert!(names.contains(&"even") && names.contains(&"null"), "{names:?}");
    let n = mill.count("a", "select count(*) from tokens");
    let read = mill
        .count("a", "select count(*) from documents d left anti join duplicates u on d.id = u.id");
    assert_eq!(n, read);
    for (partition, words) in
        [("quality", "quality"), ("text", "more than 256 values"), ("weight + nothing", "nothing")]
    {
        let set = format!("shard.partition=\"{partition}\"");
        let output = mill.run(&["run", "job.toml", "--set", &set, "--set", "output=c"]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && message.contains(words), "{message}");
        assert!(message.contains("shard.partition"), "{message}");
    }
}
