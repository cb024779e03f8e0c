use super::*;
use crate::export;

/// A tokenizer of `n` tokens whose last one ends documents.
fn tokenizer(folder: &Path, n: u32) -> PathBuf {
    let vocabulary: serde_json::Map<String, serde_json::Value> = (0..n)
        .map(|id| {
            (if id + 1 == n { "<|endoftext|>".to_owned() } else { format!("t{id}") }, id.into())
        })
        .collect();
    let special = json!({
        "id": n - 1, "content": "<|endoftext|>", "special": true, "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false,
    });
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [special],
        "model": { "type": "BPE", "vocab": vocabulary, "merges": [] },
    });
    let path = folder.join("tokenizer.json");
    fs::write(&path, tokenizer.to_string()).unwrap();
    path
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/export").join(name)
}

fn config(format: &str, tokenizer: PathBuf) -> Config {
    Config { format: format.to_owned(), tokenizer, token_bytes: None }
}

/// The rows of a dataset: ids and tokens.
fn rows(snapshot: &Snapshot) -> Vec<(u128, Vec<u32>)> {
    let mut found = Vec::new();
    for shard in &snapshot.manifest.shards {
        snapshot.verify(shard).unwrap();
        let path = snapshot.shard_path(shard);
        let footer = crate::reader::decode::footer(&path, shard).unwrap();
        for (index, entry) in shard.row_groups.iter().enumerate() {
            let rows = crate::reader::decode::decode(&path, footer.clone(), index, entry).unwrap();
            for (id, range) in rows.ids.iter().zip(rows.offsets.windows(2)) {
                let tokens = rows.tokens[range[0]..range[1]].to_vec();
                found.push((u128::from_be_bytes(*id), tokens));
            }
        }
    }
    found
}

/// Imports what the library wrote, and exports it again to the same bytes.
fn check(format: &str, size: &str, documents: &[&[u32]]) -> Vec<u128> {
    let folder = tempfile::tempdir().unwrap();
    let n = if size == "small" { 1000 } else { 100_000 };
    let mut config = config(format, tokenizer(folder.path(), n));
    config.token_bytes = (size == "large").then_some(4);
    let dataset = Dataset::at(folder.path().join("tokens"));
    let snapshot = import(&golden(format).join(size), &config, &dataset).unwrap();
    let found = rows(&snapshot);
    let tokens: Vec<&[u32]> = found.iter().map(|(_, tokens)| &tokens[..]).collect();
    assert_eq!(tokens, documents);
    assert_eq!(dataset.verify(true).unwrap().failures, []);
    assert_eq!(snapshot.manifest.tokenizer.as_ref().unwrap().n_vocabulary, n);
    let settings =
        export::Config { format: format.to_owned(), seq_len: None, file_bytes: export::FILE_BYTES };
    let out = folder.path().join("out");
    let exported = export::export(&snapshot, &settings, &out).unwrap();
    for file in exported.splits[0].files.iter().filter(|_| format != "mds") {
        let wanted = fs::read(golden(format).join(size).join(file)).unwrap();
        assert_eq!(fs::read(out.join(file)).unwrap(), wanted, "{file}");
    }
    found.into_iter().map(|(id, _)| id).collect()
}

const SMALL: [&[u32]; 3] = [&[1, 2, 3], &[999], &[5, 6, 7, 8, 9]];
const LARGE: [&[u32]; 2] = [&[1, 99_999], &[70_000]];

#[test]
fn what_megatron_wrote_comes_back() {
    check("megatron", "small", &SMALL);
    check("megatron", "large", &LARGE);
}

#[test]
fn what_mosaic_wrote_comes_back_with_its_ids() {
    assert_eq!(check("mds", "small", &SMALL), [0, 1, 2]);
    assert_eq!(check("mds", "large", &LARGE), [0, 1]);
}

#[test]
fn flat_arrays_are_cut_behind_the_end_of_a_document() {
    check("nanogpt", "small", &[&[1, 2, 3, 999], &[5, 6, 7, 8, 9]]);
    check("nanogpt", "large", &[&[1, 99_999], &[70_000]]);
}

#[test]
fn documents_longer_than_what_is_read_at_a_time_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let config = config("nanogpt", tokenizer(folder.path(), 1000));
    let lengths = [700_000, 1, 3, 1_100_000];
    let mut bytes = Vec::new();
    for length in lengths {
        (1..length).for_each(|i: u32| bytes.extend(u16::try_from(i % 999).unwrap().to_le_bytes()));
        bytes.extend(999_u16.to_le_bytes());
    }
    fs::write(folder.path().join("val.bin"), bytes).unwrap();
    let dataset = Dataset::at(folder.path().join("tokens"));
    let snapshot = import(folder.path(), &config, &dataset).unwrap();
    let found: Vec<u32> =
        rows(&snapshot).iter().map(|(_, it)| u32::try_from(it.len()).unwrap()).collect();
    assert_eq!(found, lengths);
    assert_eq!(snapshot.manifest.shards[0].split, "validation");
}

fn refused(format: &str, path: &Path, n_vocabulary: u32, says: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let config = config(format, tokenizer(folder.path(), n_vocabulary));
    let dataset = Dataset::at(folder.path().join("tokens"));
    let error = import(path, &config, &dataset).unwrap_err().to_string();
    for part in says {
        assert!(error.contains(part), "no `{part}` in: {error}");
    }
    assert_eq!(dataset.newest().unwrap(), None);
}

#[test]
fn ids_beyond_the_vocabulary_and_files_of_another_kind_are_refused() {
    let small = golden("megatron/small");
    refused("megatron", &small, 500, &["document 1 has token 999, the tokenizer has 500 tokens"]);
    refused("megatrn", &small, 500, &["`megatrn`", "did you mean `megatron`?"]);
    refused("mds", &small, 500, &["`index.json`"]);
    refused("nanogpt", &golden("mds/small"), 500, &["*.bin"]);
}

#[test]
fn cut_and_foreign_files_are_refused_with_both_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &str, name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(golden(from)).unwrap();
        change(&mut bytes);
        fs::write(folder.path().join(name), bytes).unwrap();
    };
    let index = folder.path().join("train.idx");
    copy("megatron/small/train.idx", "train.idx", &|_| {});
    copy("megatron/small/train.bin", "train.bin", &|bytes| bytes.truncate(16));
    refused("megatron", &index, 1000, &["it has 16 bytes", "says 18"]);
    copy("megatron/small/train.idx", "train.idx", &|bytes| bytes.truncate(100));
    refused("megatron", &index, 1000, &["it has 100 bytes, 3 sequences need 102"]);
    copy("megatron/small/train.idx", "train.idx", &|bytes| bytes[9] = 7);
    refused("megatron", &index, 1000, &["it has version 7, this build reads 1"]);
    copy("megatron/small/train.idx", "train.idx", &|bytes| bytes[0] = b'X');
    refused("megatron", &index, 1000, &["XMIDIDX", "not `MMIDIDX`"]);
    copy("mds/small/train/index.json", "index.json", &|_| {});
    copy("mds/small/train/shard.00000.mds", "shard.00000.mds", &|bytes| bytes.truncate(99));
    refused("mds", folder.path(), 1000, &["it has 99 bytes, the index says 374"]);
    fs::write(folder.path().join("x.bin"), [0; 3]).unwrap();
    refused("nanogpt", &folder.path().join("x.bin"), 1000, &["its 3 bytes are no tokens of 2"]);
}
