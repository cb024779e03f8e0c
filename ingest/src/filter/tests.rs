//! What every filter promises, and how its own tests ask it.

use std::sync::Arc;

use super::*;

/// Returns a batch with nothing but the column `text`, as SQL hands it in.
pub(crate) fn batch(texts: &[&str]) -> RecordBatch {
    let column: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
    RecordBatch::try_from_iter([("text", column)]).unwrap()
}

/// Returns the verdicts of the filter `kind`, configured by TOML.
pub(super) fn verdicts(kind: &FilterKind, config: &str, texts: &[&str]) -> Verdicts {
    let table: toml::Table = config.parse().unwrap();
    (kind.build)(&table).unwrap().judge(&batch(texts)).unwrap()
}

/// Returns the reasons of the filter `kind`, configured by TOML.
pub(super) fn reasons(kind: &FilterKind, config: &str, texts: &[&str]) -> Vec<Option<String>> {
    let verdicts = verdicts(kind, config, texts);
    verdicts.reasons.iter().map(|reason| reason.map(str::to_owned)).collect()
}

/// Texts that break careless code, for filters and modifiers alike.
pub(crate) fn hard_texts() -> Vec<String> {
    let article = "The mill stood by the river, and the miller had to be up with the sun. \
        That is what the people of the village said of it...\n- a list\n- of two\n\n";
    let mut texts: Vec<String> =
        ["", " ", "\n", "\r\n\t \u{a0}\u{3000}\n", ".", "...", "#", "<", "&", "@", "\0"]
            .map(str::to_owned)
            .to_vec();
    texts
        .push("\u{1f600}\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} \u{1f1e9}\u{1f1ea}".repeat(20));
    texts.push("e\u{301}\u{301}\u{301}\u{202e}\u{fffd}\u{10ffff}\u{feff}".repeat(30));
    texts.push(
        "<p>a<b>c</p></b> &amp; &#x110000; &notit; <table><tr><td>1<td>2</table><!-- ".to_owned(),
    );
    texts.push(
        "jane@example.com 203.0.113.9 8.8.8.8 +44 20 7946 0958 4111 1111 1111 1111".to_owned(),
    );
    texts.push(article.to_owned());
    texts.push(article.repeat(50));
    texts.push("x".repeat(1 << 20));
    texts.push("a-b.c/d:e@f,g'h ".repeat(1 << 12));
    texts.push("(((((((((([[[[[[[[[".repeat(1 << 10));
    texts
}

#[test]
fn kinds_are_sorted_and_equal_to_the_files_of_the_folder() {
    check_kinds("src/filter", &KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>());
}

/// Asserts that `names` are sorted and are those of the files of `folder` that define a `KIND`.
pub(crate) fn check_kinds(folder: &str, names: &[&str]) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        if is_source && std::fs::read_to_string(&path).unwrap().contains("\npub(super) const KIND:")
        {
            files.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    files.sort();
    assert_eq!(files, names);
}

#[test]
fn every_default_configuration_builds() {
    for kind in KINDS {
        let table = (kind.default_config)();
        (kind.build)(&table).unwrap_or_else(|error| panic!("{}: {error}", kind.name));
        (kind.build)(&toml::Table::new()).unwrap();
    }
}

#[test]
fn paths_are_resolved_and_names_of_what_is_built_in_are_not() {
    let check = |name: &str, config: &str, expected: &str, files: &[&str]| {
        let table: toml::Table = config.parse().unwrap();
        let (table, found) =
            resolve_files(name, &table, |path| std::path::Path::new("jobs").join(path));
        assert_eq!(table, expected.parse().unwrap(), "{name} {config}");
        assert_eq!(found, files.iter().map(PathBuf::from).collect::<Vec<_>>());
    };
    check("language", "model = 'a.ftz'", "model = 'jobs/a.ftz'", &["jobs/a.ftz"]);
    check("language", "model = 'whatlang'", "model = 'whatlang'", &[]);
    check("toxicity", "list = ''\nmodel = 'b'", "list = ''\nmodel = 'jobs/b'", &["jobs/b"]);
    check("bad_words", "list = 'a.txt'", "list = 'jobs/a.txt'", &["jobs/a.txt"]);
    check("classifier", "label = 'hq'", "label = 'hq'", &[]);
    check("length", "model = 'a'", "model = 'a'", &[]);
    let files = KINDS.iter().flat_map(|kind| kind.files.iter().map(move |file| (kind, file)));
    for (kind, file) in files {
        let default = (kind.default_config)();
        assert_eq!(default[file.key].as_str(), Some(file.none), "{}.{}", kind.name, file.key);
    }
}

#[test]
fn every_filter_refuses_a_key_that_it_does_not_take() {
    let table: toml::Table = "no_such_key = 1".parse().unwrap();
    for kind in KINDS {
        let error = (kind.build)(&table).unwrap_err().to_string();
        assert!(error.contains(kind.name) && error.contains("no_such_key"), "{error}");
    }
}

#[test]
fn judging_row_by_row_gives_the_same_as_judging_a_batch() {
    let texts = hard_texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for kind in KINDS {
        let filter = (kind.build)(&toml::Table::new()).unwrap();
        let whole = filter.judge(&batch(&texts)).unwrap();
        assert_eq!(whole.reasons.len(), texts.len(), "{}", kind.name);
        assert_eq!(whole.signals.len(), kind.signals.len(), "{}", kind.name);
        for (signal, values) in kind.signals.iter().zip(&whole.signals) {
            assert_eq!(values.data_type(), &signal.data_type, "{}.{}", kind.name, signal.name);
            assert_eq!(values.len(), texts.len(), "{}.{}", kind.name, signal.name);
        }
        for reason in whole.reasons.iter().flatten() {
            assert!(kind.reasons.contains(&reason), "{}: `{reason}` is not listed", kind.name);
        }
        for (row, text) in texts.iter().enumerate() {
            let single = filter.judge(&batch(&[text])).unwrap();
            assert_eq!(single.reasons, whole.reasons.slice(row, 1), "{} row {row}", kind.name);
            for (one, all) in single.signals.iter().zip(&whole.signals) {
                assert_eq!(one.as_ref(), all.slice(row, 1).as_ref(), "{} row {row}", kind.name);
            }
        }
        assert_eq!(filter.judge(&batch(&[])).unwrap().reasons.len(), 0, "{}", kind.name);
    }
}

#[test]
fn says_which_column_is_missing_or_of_another_type() {
    let column: ArrayRef = Arc::new(StringArray::from(vec!["text"]));
    for (name, expected) in [("text", "wanted `Utf8View`"), ("body", "is missing")] {
        let documents = RecordBatch::try_from_iter([(name, Arc::clone(&column))]).unwrap();
        for kind in KINDS {
            let filter = (kind.build)(&toml::Table::new()).unwrap();
            let error = filter.judge(&documents).unwrap_err().to_string();
            assert!(error.contains(expected), "{}: {error}", kind.name);
        }
    }
}

mod agreement;
