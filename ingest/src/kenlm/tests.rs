use std::path::PathBuf;

use super::*;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/kenlm").join(name)
}

fn expected() -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(golden("expected.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The scores are KenLM's: see `tests/golden/kenlm`.
#[test]
fn scores_are_those_of_kenlm() {
    for name in ["words.arpa", "words.bin"] {
        let model = Model::open(&golden(name)).unwrap();
        assert_eq!(model.order(), 4);
        for case in expected() {
            let wanted = case["score"].as_f64().unwrap();
            let (found, _) = model.score(case["text"].as_str().unwrap());
            assert!((f64::from(found) - wanted).abs() < 1e-5, "{name}: {found}, {case}");
        }
    }
}

#[test]
fn the_end_of_a_sentence_is_a_word() {
    let model = Model::open(&golden("words.bin")).unwrap();
    assert_eq!(model.score("").1, 1);
    assert_eq!(model.score(" it\tis\n\x0b").1, 3);
    assert_eq!(model.score("it\0is").1, 2);
    assert_eq!(model.word("漢字".as_bytes()), UNKNOWN);
}

/// Worked out by hand: `b` and `c` behind `a` are n-grams, `</s>` backs off.
#[test]
fn backs_off_to_shorter_n_grams() {
    let arpa = "# made by hand\n\n\\data\\\nngram 1=5\nngram 2=2\n\n\\1-grams:\n-99\t<s>\t-0.5\n-1\t</s>\n\
        -2\ta\t-0.25\n-3\tb\t-0.125\n-4 c\n\n\\2-grams:\n-0.75\t<s> a\n-0.5\ta b\n\n\\end\\\n";
    let model = read(arpa).unwrap();
    // <s> a, a b, then b's back-off weight and </s> alone.
    assert_eq!(model.score("a b"), (-0.75 - 0.5 - 0.125 - 1.0, 3));
    // A model without `<unk>` gives unknown words -100.
    assert_eq!(model.score("x"), (-0.5 - 100.0 - 1.0, 2));
}

fn read(arpa: &str) -> Result<Model, String> {
    arpa::read(arpa.as_bytes(), Path::new("x")).unwrap()
}

#[test]
fn says_what_is_wrong_with_an_arpa_file() {
    let whole = "\\data\\\nngram 1=3\nngram 2=1\n\\1-grams:\n-9\t<s>\t-1\n-1\t</s>\n-2\ta\t-1\n\\2-grams:\n-1\t<s> a\n\\end\\\n";
    assert!(read(whole).is_ok());
    let check = |from: &str, to: &str, expected: &str| {
        assert!(whole.contains(from));
        let why = read(&whole.replacen(from, to, 1)).unwrap_err();
        assert!(why.contains(expected), "`{why}` lacks `{expected}`");
    };
    check("\\data\\", "hello", "line 1: it is `hello`, `\\data\\` is needed");
    check("ngram 2=1", "ngram 3=1", "`ngram 2=` and a count is needed");
    check("ngram 2=1\n", "", "1 orders are counted");
    check("ngram 2=1", "ngram 2=2", "line 10: `\\end\\` begins with no number");
    check("-2\ta", "2\ta", "line 7: `2\ta\t-1` has a probability above 1");
    check("-2\ta", "-2\t</s>", "the word `</s>` stands there twice");
    check("<s> a", "<s> b", "`b` is not among the words");
    check("<s> a", "a", "has 1 words, 2 are needed");
    check("<s>\t", "<S>\t", "`<s>` is not among the words");
    check("\\end\\\n", "", "it is `the end of the file`, `\\end\\` is needed");
    check("-9\t<s>\t-1", "-9\t<s>\tnan", "ends with no number");
    let three = whole.replace("ngram 2=1\n", "ngram 2=1\nngram 3=1\n");
    let three = three.replace("\\end\\", "\\3-grams:\n-1\ta a a\n\\end\\");
    let why = read(&three).unwrap_err();
    assert!(why.contains("its context `a a` is no n-gram"), "{why}");
}

#[test]
fn says_what_is_wrong_with_a_binary_file() {
    let error = Model::open(&golden("trie.bin")).unwrap_err().to_string();
    assert!(
        error.contains("trie.bin") && error.contains("it is a trie, hash tables are"),
        "{error}"
    );
    assert!(error.contains("hint: "), "{error}");
    let whole = std::fs::read(golden("words.bin")).unwrap();
    let check = |at: usize, byte: u8, expected: &str| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        let why = binary::read(bytes).unwrap_err();
        assert!(why.contains(expected), "`{why}` lacks `{expected}`");
    };
    check(49, b'6', "format version 6");
    check(59, 1, "written on a machine of another kind");
    check(88, 1, "its order is 1");
    check(95, 0, "its share of empty places is");
    check(112, 0xff, "its header says");
    let n = whole.len();
    // The words themselves follow the tables; they are not needed.
    assert!(binary::read(whole[..n - 10].to_vec()).is_ok());
    for end in (FIRST..n / 2).step_by(n / 50) {
        assert!(binary::read(whole[..end].to_vec()).is_err());
    }
}

/// Where the header ends that tells a binary file from a text.
const FIRST: usize = 56;

#[test]
fn no_damaged_file_panics_or_hangs() {
    let whole = std::fs::read(golden("words.bin")).unwrap();
    for at in (0..200).chain((200..whole.len()).step_by(whole.len() / 100)) {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            if bytes.starts_with(binary::FAMILY)
                && let Ok(model) = binary::read(bytes)
            {
                assert_eq!(model.score("it is a truth that of the and to her").1, 11);
            }
        }
    }
}
