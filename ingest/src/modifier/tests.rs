//! What every modifier promises, and how its own tests ask it.

use arrow::array::Array;

use super::*;
use crate::filter::tests::{batch, check_kinds, hard_texts};

/// Returns what the modifier `kind`, configured by TOML, makes of `texts`.
pub(super) fn modified(kind: &ModifierKind, config: &str, texts: &[&str]) -> Modified {
    let table: toml::Table = config.parse().unwrap();
    (kind.build)(&table).unwrap().modify(&batch(texts)).unwrap()
}

#[test]
fn kinds_are_sorted_and_equal_to_the_files_of_the_folder() {
    check_kinds("src/modifier", &KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>());
}

#[test]
fn every_default_configuration_builds_and_unknown_keys_are_refused() {
    let wrong: toml::Table = "no_such_key = 1".parse().unwrap();
    for kind in KINDS {
        let table = (kind.default_config)();
        (kind.build)(&table).unwrap_or_else(|error| panic!("{}: {error}", kind.name));
        let error = (kind.build)(&wrong).unwrap_err().to_string();
        assert!(error.contains(kind.name) && error.contains("no_such_key"), "{error}");
    }
}

#[test]
fn modifying_row_by_row_gives_the_same_as_modifying_a_batch() {
    let texts = hard_texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for kind in KINDS {
        let modifier = (kind.build)(&toml::Table::new()).unwrap();
        let whole = modifier.modify(&batch(&texts)).unwrap();
        assert_eq!(whole.text.len(), texts.len(), "{}", kind.name);
        for reason in whole.reasons.iter().flat_map(|reasons| reasons.iter()).flatten() {
            assert!(kind.reasons.contains(&reason), "{}: `{reason}` is not listed", kind.name);
        }
        for (row, text) in texts.iter().enumerate() {
            let single = modifier.modify(&batch(&[text])).unwrap();
            assert_eq!(single.text.value(0), whole.text.value(row), "{} row {row}", kind.name);
            let reason = |modified: &Modified, row: usize| {
                let reasons = modified.reasons.as_ref()?;
                reasons.is_valid(row).then(|| reasons.value(row).to_owned())
            };
            assert_eq!(reason(&single, 0), reason(&whole, row), "{} row {row}", kind.name);
        }
        assert_eq!(modifier.modify(&batch(&[])).unwrap().text.len(), 0, "{}", kind.name);
    }
}

#[test]
fn edits_lead_from_the_old_text_to_the_new_one() {
    let texts = hard_texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for kind in KINDS {
        let modified = modified(kind, "", &texts);
        if modified.edits.is_empty() {
            continue;
        }
        for (row, text) in texts.iter().enumerate() {
            let mut rebuilt = String::new();
            let mut at = 0;
            for edit in modified.edits.iter().filter(|edit| edit.row == row) {
                rebuilt.push_str(&text[at..edit.start]);
                rebuilt.push_str(&edit.replacement);
                at = edit.end;
            }
            rebuilt.push_str(&text[at..]);
            assert_eq!(rebuilt, modified.text.value(row), "{} row {row}", kind.name);
        }
    }
}
