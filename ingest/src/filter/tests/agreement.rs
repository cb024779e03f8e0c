//! Our decisions beside those that reference implementations made on the benchmark corpus, document by document.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde_json::Value;

use super::*;

/// A filter of ours, its configuration, its name in the recorded decisions, and their reasons beside ours.
type Case = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

const DATATROVE: &[Case] = &[
    ("c4", "", "c4", C4),
    ("c4", "profile = 'fineweb'", "c4_fineweb", C4),
    ("c4_paragraphs", "", "c4_paragraph", &[("< 3 paragraphs", "too_few_long_lines")]),
    (
        "fineweb_quality",
        "",
        "fineweb",
        &[
            ("empty", "empty"),
            ("line_punct_ratio", "too_few_punctuated_lines"),
            ("short_line_ratio", "too_many_short_lines"),
            ("char_dup_ratio", "too_many_duplicate_chars"),
            ("list_ratio", "too_many_line_feeds"),
        ],
    ),
    (
        "gopher_quality",
        "",
        "gopher_quality",
        &[
            ("gopher_short_doc", "too_few_words"),
            ("gopher_long_doc", "too_many_words"),
            ("gopher_below_avg_threshold", "words_too_short"),
            ("gopher_above_avg_threshold", "words_too_long"),
            ("gopher_too_many_hashes", "too_many_hashes"),
            ("gopher_too_many_ellipsis", "too_many_ellipses"),
            ("gopher_too_many_bullets", "too_many_bullet_lines"),
            ("gopher_too_many_end_ellipsis", "too_many_ellipsis_lines"),
            ("gopher_below_alpha_threshold", "too_few_alphabetic_words"),
            ("gopher_enough_stop_words", "too_few_stop_words"),
        ],
    ),
    (
        "gopher_repetition",
        "",
        "gopher_rep",
        &[
            ("empty", "empty"),
            ("dup_para_frac", "duplicate_paragraphs"),
            ("dup_para_char_frac", "duplicate_paragraph_chars"),
            ("dup_line_frac", "duplicate_lines"),
            ("dup_line_char_frac", "duplicate_line_chars"),
            ("top_2_gram", "top_2_gram"),
            ("top_3_gram", "top_3_gram"),
            ("top_4_gram", "top_4_gram"),
            ("duplicated_5_n_grams", "duplicate_5_grams"),
            ("duplicated_6_n_grams", "duplicate_6_grams"),
            ("duplicated_7_n_grams", "duplicate_7_grams"),
            ("duplicated_8_n_grams", "duplicate_8_grams"),
            ("duplicated_9_n_grams", "duplicate_9_grams"),
            ("duplicated_10_n_grams", "duplicate_10_grams"),
        ],
    ),
];

const C4: &[(&str, &str)] = &[
    ("curly_bracket", "curly_bracket"),
    ("lorem_ipsum", "lorem_ipsum"),
    ("too_few_sentences", "too_few_sentences"),
];

fn json_lines(path: &Path) -> Vec<Value> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    BufReader::new(MultiGzDecoder::new(file))
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect()
}

/// Ids and texts of the benchmark corpus, which `GRISTMILL_CORPUS` names.
fn corpus() -> Option<Vec<(String, String)>> {
    let Some(folder) = std::env::var_os("GRISTMILL_CORPUS") else {
        eprintln!("skipped: GRISTMILL_CORPUS names no benchmark corpus");
        return None;
    };
    let mut shards: Vec<PathBuf> = std::fs::read_dir(Path::new(&folder).join("text/documents"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    shards.sort();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let rows = shards.iter().flat_map(|path| json_lines(path));
    Some(rows.map(|row| (text(&row, "id"), text(&row, "text"))).collect())
}

/// The recorded decisions of `peer`, by id.
fn recorded(peer: &str) -> HashMap<String, Value> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/bench/peers");
    let folder = std::env::var_os("GRISTMILL_PEERS").map_or_else(beside, PathBuf::from);
    json_lines(&folder.join(format!("results-50mb/filters_{peer}.jsonl.gz")))
        .into_iter()
        .map(|row| (row["id"].as_str().unwrap().to_owned(), row))
        .collect()
}

#[test]
fn decides_every_document_of_the_benchmark_corpus_as_datatrove_did() {
    let Some(corpus) = corpus() else { return };
    let recorded = recorded("datatrove");
    assert_eq!(corpus.len(), recorded.len());
    let texts: Vec<&str> = corpus.iter().map(|(_, text)| text.as_str()).collect();
    let mut n_different = 0;
    for (name, config, key, renamed) in DATATROVE {
        let found = reasons(kind(name).unwrap(), config, &texts);
        let mut n_equal = 0;
        for ((id, _), found) in corpus.iter().zip(&found) {
            let theirs = recorded[id][*key].as_str();
            let wanted = theirs.map(|reason| {
                renamed.iter().find(|(theirs, _)| *theirs == reason).map_or("?", |(_, ours)| ours)
            });
            match found.as_deref() == wanted {
                true => n_equal += 1,
                false => eprintln!("{key} {id}: {found:?}, datatrove {wanted:?}"),
            }
        }
        eprintln!("{key}: {n_equal} of {} decisions equal", corpus.len());
        n_different += corpus.len() - n_equal;
    }
    assert_eq!(n_different, 0);
}

/// A measurement's name, and the reasons that follow from it.
type Rules = &'static [(&'static str, &'static [&'static str])];

/// What dolma measures, and the reasons of ours that follow from it.
const DOLMA: &[(&str, Rules)] = &[
    (
        "gopher_quality",
        &[
            ("word_count", &["too_few_words", "too_many_words"]),
            ("median_word_length", &["words_too_short", "words_too_long"]),
            ("symbol_to_word_ratio", &["too_many_symbols"]),
            ("fraction_of_words_with_alpha_character", &["too_few_alphabetic_words"]),
            ("required_word_count", &["too_few_stop_words"]),
            ("fraction_of_lines_starting_with_bullet_point", &["too_many_bullet_lines"]),
            ("fraction_of_lines_ending_with_ellipsis", &["too_many_ellipsis_lines"]),
        ],
    ),
    (
        "gopher_repetition",
        &[
            ("fraction_of_duplicate_lines", &["duplicate_lines"]),
            ("fraction_of_characters_in_duplicate_lines", &["duplicate_line_chars"]),
            ("fraction_of_characters_in_most_common_2grams", &["top_2_gram"]),
            ("fraction_of_characters_in_most_common_3grams", &["top_3_gram"]),
            ("fraction_of_characters_in_most_common_4grams", &["top_4_gram"]),
            ("fraction_of_characters_in_duplicate_5grams", &["duplicate_5_grams"]),
            ("fraction_of_characters_in_duplicate_6grams", &["duplicate_6_grams"]),
            ("fraction_of_characters_in_duplicate_7grams", &["duplicate_7_grams"]),
            ("fraction_of_characters_in_duplicate_8grams", &["duplicate_8_grams"]),
            ("fraction_of_characters_in_duplicate_9grams", &["duplicate_9_grams"]),
            ("fraction_of_characters_in_duplicate_10grams", &["duplicate_10_grams"]),
        ],
    ),
];

/// dolma records every limit that a document breaks: ours must be among them, and none where there are none.
#[test]
fn decides_every_document_of_the_benchmark_corpus_as_dolma_did() {
    let Some(corpus) = corpus() else { return };
    let recorded = recorded("dolma");
    let texts: Vec<&str> = corpus.iter().map(|(_, text)| text.as_str()).collect();
    let mut n_different = 0;
    for (profile, key) in [("dolma-v1", "gopher_v1"), ("dolma-v2", "gopher_v2")] {
        for (name, rules) in DOLMA {
            let found = reasons(kind(name).unwrap(), &format!("profile = '{profile}'"), &texts);
            let mut n_equal = 0;
            for ((id, _), found) in corpus.iter().zip(&found) {
                let broken: Vec<&str> = recorded[id][key]
                    .as_str()
                    .map(|broken| broken.split(',').collect())
                    .unwrap_or_default();
                let wanted: Vec<&str> = rules
                    .iter()
                    .filter(|(theirs, _)| broken.contains(theirs))
                    .flat_map(|(_, ours)| *ours)
                    .copied()
                    .collect();
                let is_equal = match found {
                    Some(reason) => wanted.contains(&reason.as_str()),
                    None => wanted.is_empty(),
                };
                match is_equal {
                    true => n_equal += 1,
                    false => eprintln!("{key} {id}: {found:?}, dolma {wanted:?}"),
                }
            }
            eprintln!("{key} {name}: {n_equal} of {} decisions equal", corpus.len());
            n_different += corpus.len() - n_equal;
        }
    }
    assert_eq!(n_different, 0);
}

#[test]
fn edits_every_page_of_the_benchmark_corpus_as_datatrove_did() {
    let Some(corpus) = corpus() else { return };
    let recorded = recorded("datatrove");
    let texts: Vec<&str> = corpus.iter().map(|(_, text)| text.as_str()).collect();
    for (config, key) in [("", "c4"), ("profile = 'fineweb'", "c4_fineweb")] {
        let table: toml::Table = config.parse().unwrap();
        let modifier = (crate::modifier::kind("c4_lines").unwrap().build)(&table).unwrap();
        let modified = modifier.modify(&batch(&texts)).unwrap();
        let (mut n_pages, mut n_equal) = (0, 0);
        for (row, (id, text)) in corpus.iter().enumerate() {
            if recorded[id][key] != Value::Bool(true) {
                continue;
            }
            n_pages += 1;
            let new = modified.text.value(row);
            let is_equal = match recorded[id][format!("{key}_text")].as_str() {
                Some(theirs) => sha1_head(new) == theirs,
                None => new == text,
            };
            match is_equal {
                true => n_equal += 1,
                false => eprintln!("{key} {id}: another text"),
            }
        }
        eprintln!("{key}: {n_equal} of {n_pages} texts equal");
        assert_eq!(n_equal, n_pages);
    }
}

/// The first 16 digits of the SHA-1 of `text`.
fn sha1_head(text: &str) -> String {
    use sha1::Digest;
    let digest = sha1::Sha1::digest(text.as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
