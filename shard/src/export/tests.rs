use super::*;
use crate::dataset::Dataset;
use crate::dataset::tests::write;

/// What `tests/golden/export/make.py` writes with the libraries themselves.
fn documents(size: &str) -> (u32, Vec<Vec<u32>>) {
    match size {
        "small" => (1000, vec![vec![1, 2, 3], vec![999], vec![5, 6, 7, 8, 9]]),
        _ => (100_000, vec![vec![1, 99_999], vec![70_000]]),
    }
}

fn config(format: &str) -> Config {
    Config { format: format.to_owned(), seq_len: None, file_bytes: FILE_BYTES }
}

/// A committed dataset of `documents`, with an empty one among them.
fn dataset(folder: &Path, n_vocabulary: u32, documents: &[Vec<u32>]) -> Snapshot {
    let dataset = Dataset::at(folder.join("tokens"));
    store::replace(&dataset.path().join("tokenizer-x.json"), b"{}").unwrap();
    let mut rows: Vec<_> = (0..).zip(documents.iter().cloned()).collect();
    rows.push((77, Vec::new()));
    let mut manifest = write(&dataset, "train", &[rows]);
    manifest.tokenizer = Some(TokenizerInfo {
        path: "tokenizer-x.json".to_owned(),
        fingerprint: crate::manifest::hash(b"{}"),
        n_vocabulary,
        special: std::collections::BTreeMap::new(),
        end_of_document: None,
    });
    dataset.commit(0, manifest).unwrap()
}

/// Every file below `folder`, by name.
fn files(folder: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    for name in store::list(folder).unwrap() {
        let path = folder.join(&name);
        if path.is_dir() {
            found.extend(
                files(&path).into_iter().map(|(file, bytes)| (format!("{name}/{file}"), bytes)),
            );
        } else {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

fn check(format: &str) {
    for size in ["small", "large"] {
        let (n_vocabulary, documents) = documents(size);
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out");
        let snapshot = dataset(folder.path(), n_vocabulary, &documents);
        let exported = export(&snapshot, &config(format), &output).unwrap();
        let n_tokens: usize = documents.iter().map(Vec::len).sum();
        let split = &exported.splits[0];
        assert_eq!((split.samples, split.tokens), (documents.len() as u64, n_tokens as u64));
        let mut found = files(&output);
        assert_eq!(found.remove("tokenizer.json").unwrap(), b"{}");
        let record: Exported = serde_json::from_slice(&found.remove(RECORD).unwrap()).unwrap();
        assert_eq!(record, exported);
        let listed: std::collections::BTreeSet<&String> = split.files.iter().collect();
        assert_eq!(found.keys().collect::<std::collections::BTreeSet<_>>(), listed);
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/export");
        let mut wanted = files(&golden.join(format).join(size));
        for index in wanted.iter_mut().filter(|(name, _)| name.ends_with("index.json")) {
            // litdata notes the time.
            let text = String::from_utf8(index.1.clone()).unwrap();
            if let Some((before, _)) = text.split_once("\"updated_at\": ") {
                *index.1 = format!("{before}\"updated_at\": \"0\"}}").into_bytes();
            }
        }
        assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{size}");
        for (name, bytes) in wanted {
            let (found, wanted) = (found[&name].escape_ascii(), bytes.escape_ascii());
            assert_eq!(found.to_string(), wanted.to_string(), "{format}/{size}/{name}");
        }
    }
}

#[test]
fn litdata_files_are_those_of_the_library() {
    check("litdata");
}

#[test]
fn mds_files_are_those_of_the_library() {
    check("mds");
}

#[test]
fn megatron_files_are_those_of_the_library() {
    check("megatron");
}

#[test]
fn nanogpt_files_are_those_of_numpy() {
    check("nanogpt");
}

#[test]
fn tfrecord_files_are_those_of_the_library() {
    check("tfrecord");
}

#[test]
fn webdataset_files_are_those_of_tarfile_and_numpy() {
    check("webdataset");
}

#[test]
fn a_stream_is_cut_across_documents_and_files_and_the_rest_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = dataset(folder.path(), 1000, &documents("small").1);
    let output = folder.path().join("out");
    let cut = Config { seq_len: Some(2), file_bytes: 1, ..config("megatron") };
    let exported = export(&snapshot, &cut, &output).unwrap();
    assert_eq!(exported.splits[0].samples, 4);
    assert_eq!(exported.splits[0].tokens_left_out, 1);
    let tokens: Vec<u8> =
        [1, 2, 3, 999, 5, 6, 7, 8_u16].iter().flat_map(|t| t.to_le_bytes()).collect();
    assert_eq!(fs::read(output.join("train.bin")).unwrap(), tokens);

    let cut = Config { format: "webdataset".to_owned(), ..cut };
    let exported = export(&snapshot, &cut, &folder.path().join("tars")).unwrap();
    assert_eq!(exported.splits[0].files.len(), 4, "a file of a byte holds one sample");
    let again = export(&snapshot, &cut, &folder.path().join("again")).unwrap();
    assert_eq!(again, exported);
    assert_eq!(files(&folder.path().join("tars")), files(&folder.path().join("again")));
}

#[test]
fn what_a_format_cannot_say_and_what_is_there_already_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = dataset(folder.path(), 1000, &documents("small").1);
    let refused = |snapshot: &Snapshot, config: &Config, output: &str, says: &[&str]| {
        let error = export(snapshot, config, &folder.path().join(output)).unwrap_err().to_string();
        for part in says {
            assert!(error.contains(part), "no `{part}` in: {error}");
        }
    };
    refused(&snapshot, &config("megatrn"), "a", &["`megatrn`", "did you mean `megatron`?"]);
    refused(&snapshot, &config("mds"), "tokens", &["tokens` is there already"]);
    let mut masked = snapshot.clone();
    let column = crate::manifest::Column {
        name: crate::schema::LOSS_MASK.to_owned(),
        data_type: "List(non-null Boolean)".to_owned(),
        nullable: false,
    };
    masked.manifest.schema.push(column);
    refused(&masked, &config("megatron"), "b", &["loss masks", "`mds`", "`tfrecord`"]);
    let mut small = snapshot.clone();
    small.manifest.tokenizer.as_mut().unwrap().n_vocabulary = 10;
    refused(&small, &config("nanogpt"), "c", &["token 999", "its vocabulary is 9"]);
    let shard = snapshot.shard_path(&snapshot.manifest.shards[0]);
    let mut bytes = fs::read(&shard).unwrap();
    bytes[40] ^= 1;
    fs::write(&shard, bytes).unwrap();
    refused(&snapshot, &config("nanogpt"), "d", &["blake3", "manifest says"]);
    assert!(!folder.path().join("d").try_exists().unwrap(), "nothing under the final name");
}
