use std::collections::BTreeMap;

use serde_json::json;

use super::*;

fn tiny() -> Manifest {
    let mut manifest = Manifest::new(
        DatasetKind::Tokens,
        &DatasetKind::Tokens.schema(),
        "f".repeat(8),
        json!({"seed": 42}),
    );
    manifest.counts =
        Counts { n_in: 3, n_kept: 2, dropped: BTreeMap::from([("1:length/short".to_owned(), 1)]) };
    manifest.shards.push(Shard {
        path: "data/train-00000-abc.parquet".to_owned(),
        split: "train".to_owned(),
        partition: None,
        rows: 2,
        bytes: 100,
        blake3: "abc".to_owned(),
        row_groups: vec![RowGroup { rows: 2, n_tokens: 7, first_token: 0 }],
    });
    manifest
}

const GOLDEN: &str = r#"{
  "format_version": 1,
  "kind": "tokens",
  "schema": [
    {
      "name": "document_id",
      "type": "FixedSizeBinary(16)",
      "nullable": false
    },
    {
      "name": "tokens",
      "type": "List(non-null UInt32)",
      "nullable": false
    },
    {
      "name": "n_tokens",
      "type": "UInt32",
      "nullable": false
    }
  ],
  "fingerprint": "ffffffff",
  "config": {
    "seed": 42
  },
  "parents": [],
  "sources": [],
  "counts": {
    "n_in": 3,
    "n_kept": 2,
    "dropped": {
      "1:length/short": 1
    }
  },
  "shards": [
    {
      "path": "data/train-00000-abc.parquet",
      "split": "train",
      "rows": 2,
      "bytes": 100,
      "blake3": "abc",
      "row_groups": [
        {
          "rows": 2,
          "n_tokens": 7
        }
      ]
    }
  ],
  "blake3": "85197abed8b143fceba1ef67dba07847c9bc210792c9d984716e244aa1ff9f22"
}
"#;

// Its last key is what python-blake3 1.0 says of the bytes before the comma.
#[test]
fn has_these_bytes() {
    assert_eq!(String::from_utf8(tiny().to_bytes()).unwrap(), GOLDEN);
}

#[test]
fn comes_back_as_it_was_written() {
    let manifest = tiny();
    assert_eq!(Manifest::from_bytes(&manifest.to_bytes(), "m").unwrap(), manifest);
}

#[test]
fn a_newer_format_is_refused_with_both_versions() {
    let newer = GOLDEN.replace("\"format_version\": 1", "\"format_version\": 2");
    let error = Manifest::from_bytes(newer.as_bytes(), "x.json").unwrap_err().to_string();
    assert!(error.contains("`x.json`"), "{error}");
    assert!(error.contains("format version 2, this build reads 1"), "{error}");
}

#[test]
fn each_flipped_bit_is_found() {
    let mut found = 0;
    for bit in 0..GOLDEN.len() * 8 {
        let mut bytes = GOLDEN.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        found += usize::from(Manifest::from_bytes(&bytes, "x").is_err());
    }
    assert_eq!(found, GOLDEN.len() * 8);
}

#[test]
fn half_a_manifest_is_refused() {
    for end in 0..GOLDEN.len() {
        assert!(Manifest::from_bytes(&GOLDEN.as_bytes()[..end], "x").is_err(), "{end} bytes");
    }
}

#[test]
#[should_panic(expected = "rows in (3)")]
fn rows_that_vanish_are_a_broken_promise() {
    Counts { n_in: 3, n_kept: 2, dropped: BTreeMap::new() }.assert_complete("test");
}

/// Hand-made text in the one place where a cut could go wrong: paths that look like the end of a shard.
fn many(n: u64) -> Manifest {
    let mut manifest = tiny();
    manifest.shards = (0..n)
        .map(|i| Shard {
            path: format!("data/\n    }},\n    {{\n  ]é\"shards\": [\n-{i}.parquet"),
            split: if i % 3 == 0 { "validation" } else { "train" }.to_owned(),
            partition: None,
            rows: i,
            bytes: i << 30,
            blake3: hash(&i.to_le_bytes()),
            row_groups: (0..i % 4)
                .map(|group| RowGroup { rows: group, n_tokens: i, first_token: i * group })
                .collect(),
        })
        .collect();
    manifest
}

#[test]
fn a_manifest_read_in_pieces_is_the_one_read_plainly() {
    for n in [9_000, 20_001] {
        let manifest = many(n);
        let text = String::from_utf8(manifest.to_bytes()).unwrap();
        assert!(text.len() > 2 << 20, "large enough for two pieces");
        assert_eq!(parse::in_pieces(&text).unwrap(), manifest);
        assert_eq!(parse::plainly(&text).unwrap(), manifest);
        let (read, found) = Manifest::from_bytes_hashed(text.as_bytes(), "m").unwrap();
        assert_eq!((read, found), (manifest, hash(text.as_bytes())));
    }
}

#[test]
fn a_large_manifest_with_a_mistake_is_refused_as_a_small_one_is() {
    let text = String::from_utf8(many(20_000).to_bytes()).unwrap();
    for (from, to) in [
        ("\"rows\": 19999,", "\"rows\": -1,"),
        ("\"rows\": 19999,", "\"rows\": 19999"),
        ("\n    },\n    {\n      \"path\"", "\n    }\n    {\n      \"path\""),
        ("\n    }\n  ]", "\n    },\n  ]"),
    ] {
        let broken = text.replacen(from, to, 1);
        assert_ne!(broken, text, "{from}");
        assert!(parse::in_pieces(&broken).is_none(), "{from}");
        assert_eq!(parse::manifest(broken.as_bytes()), parse::plainly(&broken), "{from}");
        assert!(parse::plainly(&broken).is_err(), "{from}");
    }
}
