use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// 26 words that are in no item unless they are put there.
const TEXT: &str = "it was the best of times it was the worst of times it was the age of wisdom it was \
                    the age of foolishness";

fn config(settings: &str) -> Config {
    toml::from_str(settings).unwrap()
}

fn blanks(text: &str) -> Vec<String> {
    text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn index(settings: &str, items: &[Item]) -> Index {
    let mut index = Index::new(config(settings), Some(Arc::new(blanks))).unwrap();
    let benchmark = index.benchmark("quiz");
    for item in items {
        index.push(benchmark, item);
    }
    index.finish()
}

fn item(query: &str, answers: &[&str]) -> Item {
    let answers = answers.iter().map(|answer| (*answer).to_owned()).collect();
    Item { number: 0, query: query.to_owned(), answers }
}

/// The fields found and their spans.
fn found<'a>(settings: &str, item: &Item, text: &'a str) -> Vec<(Field, &'a str)> {
    let index = index(settings, std::slice::from_ref(item));
    let finding = index.scanner().judge(text, &[]);
    let hits = finding.map(|finding| finding.hits).unwrap_or_default();
    hits.iter().map(|hit| (hit.field, &text[hit.span.clone()])).collect()
}

const THIRTEEN: &str = "one two three four five six seven eight nine ten eleven twelve thirteen";

#[test]
fn gpt3_finds_thirteen_words_whatever_their_case_and_punctuation() {
    let item = item(THIRTEEN, &[]);
    let text =
        "Count: One, two, THREE -- four; five six seven eight nine ten eleven twelve (thirteen)!";
    let span = &text[7..text.len()];
    assert_eq!(found("", &item, text), [(Field::Query, span)]);
    let without_last = "One two three four five six seven eight nine ten eleven twelve";
    assert_eq!(found("", &item, without_last), []);
    let half = "seven eight nine ten eleven twelve thirteen and no more of these numbers, please";
    assert_eq!(found("", &item, half), []);
}

#[test]
fn n_grams_may_go_from_the_query_into_an_answer() {
    let item = item(
        "one two three four five six seven eight",
        &["nine ten eleven twelve thirteen fourteen", "another"],
    );
    let text = format!("x {THIRTEEN} y");
    assert_eq!(found("", &item, &text), [(Field::Overlap, THIRTEEN)]);
    assert_eq!(found("fields = ['query', 'answer']", &item, &text), []);
    // Example of datatrove's own: 4-grams of A B C D E | F G H I J.
    let item = self::item("a b c d e", &["f g h i j"]);
    let settings = "profile = 'datatrove'\nngram = 4";
    let is_found = |text: &str| found(settings, &item, text).len() == 1;
    for text in ["f g h i", "g h i j", "c d e f", "d e f g", "e f g h"] {
        assert!(is_found(text), "{text}");
    }
    for text in ["a b c d", "b c d e", "f g h", "d e f h"] {
        assert!(!is_found(text), "{text}");
    }
}

#[test]
fn palm_asks_for_seven_tenths_of_the_eight_grams() {
    // 17 words have 10 8-grams: 14 words in a row hold 7 of them, 13 words 6.
    let words: Vec<String> = (0..17).map(|n| format!("word{n}")).collect();
    let item = item(&words.join(" "), &[]);
    let has = |n: usize| format!("and {} so", words[..n].join(" "));
    assert_eq!(found("profile = 'palm'", &item, &has(13)), []);
    let index = index("profile = 'palm'", std::slice::from_ref(&item));
    let finding = index.scanner().judge(&has(14), &[]).unwrap();
    assert_eq!(finding.action, Action::Drop);
    assert_eq!(finding.hits.len(), 1);
    assert_eq!((finding.hits[0].n_grams, finding.hits[0].coverage), (7, 0.7));
    // Two documents with half of it each: no document is contaminated, the item is.
    let halves = [words[..11].join(" "), words[6..].join(" ")];
    let mut frequency = vec![0; index.n_grams()];
    for half in &halves {
        assert_eq!(index.scanner().judge(half, &[]), None);
        for gram in index.scanner().n_grams(half) {
            frequency[*gram as usize] += 1;
        }
    }
    assert_eq!(index.contaminated_items(&frequency), [1]);
}

#[test]
fn answers_alone_are_found_where_the_profile_looks_for_them() {
    let answer =
        "the mitochondria of a cell turn food into energy that all parts of it use each day";
    let item = item("What do mitochondria do?", &["No idea", answer]);
    for profile in ["gpt3", "lm_eval", "palm", "datatrove"] {
        let settings = format!("profile = '{profile}'");
        let text = format!("We know that {answer} or so.");
        assert_eq!(found(&settings, &item, &text), [(Field::Answer, answer)], "{profile}");
        assert_eq!(found(&settings, &item, "What do mitochondria do?"), [], "{profile}");
    }
}

#[test]
fn one_hit_is_told_for_each_stretch() {
    let item = item("a b c d e f", &[]);
    let index = index("ngram = 3\naction = 'report'", std::slice::from_ref(&item));
    let text = "a b c x d e f a b c d y";
    let finding = index.scanner().judge(text, &[]).unwrap();
    let hits: Vec<_> =
        finding.hits.iter().map(|hit| (&text[hit.span.clone()], hit.n_grams)).collect();
    // abc; def, and abc and bcd, which follow without a gap. abc, bcd and def of abc, bcd, cde and def: 3 of 4.
    assert_eq!(hits, [("a b c", 1), ("d e f a b c d", 3)]);
    assert!(finding.hits.iter().all(|hit| hit.coverage == 0.75));
    assert_eq!(finding.action, Action::Report);
}

#[test]
fn n_grams_of_more_than_ten_documents_do_not_count_for_gpt3() {
    let index = index("", &[item(THIRTEEN, &[])]);
    assert_eq!(index.n_grams(), 1);
    assert!(index.scanner().judge(THIRTEEN, &[10]).is_some());
    assert!(index.scanner().judge(THIRTEEN, &[11]).is_none());
    assert_eq!(index.contaminated_items(&[10]), [1]);
    assert_eq!(index.contaminated_items(&[11]), [0]);
    assert_eq!(index.contaminated_items(&[0]), [0]);
}

#[test]
fn items_shorter_than_an_n_gram_are_counted() {
    let index = index("", &[item("too short", &["yes"]), item(THIRTEEN, &[])]);
    let expected = Benchmark { name: "quiz".to_owned(), n_items: 2, n_items_indexed: 1 };
    assert_eq!(index.benchmarks(), [expected]);
}

#[test]
fn a_cut_takes_a_window_and_leaves_long_pieces() {
    let settings = "ngram = 3\nwindow = 5\npiece_chars_min = 7";
    let index = index(settings, &[item("a b c", &[])]);
    let text = "0123456789ab a b c 0123456789ab a b c 01";
    let finding = index.scanner().judge(text, &[]).unwrap();
    assert_eq!(finding.action, Action::Cut);
    let spans: Vec<_> = finding.hits.into_iter().map(|hit| hit.span).collect();
    let pieces = pieces(text, &spans, index.config());
    // By hand: the stretches are 13..18 and 32..37, with windows 8..23 and 27..40. The piece between them has 4 characters.
    let pieces: Vec<&str> = pieces.into_iter().map(|piece| &text[piece]).collect();
    assert_eq!(pieces, ["01234567"]);
}

#[test]
fn a_document_that_falls_into_many_pieces_goes() {
    let settings = "ngram = 3\nwindow = 1\npiece_chars_min = 2\npieces_max = 3";
    let index = index(settings, &[item("a b c", &[])]);
    let action = |n: usize| {
        let text = format!("{TEXT} {}", format!("a b c {TEXT} ").repeat(n));
        index.scanner().judge(&text, &[]).unwrap().action
    };
    assert_eq!((action(2), action(3)), (Action::Cut, Action::Drop));
    // Nothing is left.
    assert_eq!(index.scanner().judge("a b c", &[]).unwrap().action, Action::Drop);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    for (settings, word) in [
        ("ngram = 0", "ngram"),
        ("ngram = 101", "ngram"),
        ("coverage = 1.5", "coverage"),
        ("fields = []", "fields"),
    ] {
        let message = Index::new(config(settings), None).unwrap_err().to_string();
        assert!(message.contains(word) && message.contains("hint:"), "{message}");
    }
    assert!(Index::new(config("profile = 'datatrove'"), None).is_err());
    assert!(toml::from_str::<Config>("no_such_key = 1").is_err());
}

/// Every n-gram of `text` by comparing words with words.
fn plain(text: &str, item: &str, ngram: usize) -> Vec<Vec<String>> {
    let words = |text: &str| -> Vec<String> {
        text.split_whitespace()
            .map(|word| word.chars().filter(|c| c.is_alphanumeric()).collect::<String>())
            .map(|word| word.to_lowercase())
            .filter(|word| !word.is_empty())
            .collect()
    };
    let of_item: Vec<Vec<String>> = words(item).windows(ngram).map(<[String]>::to_vec).collect();
    let mut found: Vec<Vec<String>> = words(text)
        .windows(ngram)
        .map(<[String]>::to_vec)
        .filter(|w| of_item.contains(w))
        .collect();
    found.sort();
    found.dedup();
    found
}

proptest! {
    #[test]
    fn n_grams_are_those_of_comparing_word_with_word(
        text in "([ab]{1,2}[ ,.]{1,2}|É |-- ){0,40}", query in "([AB]{1,2}[ !]{1,2}|é ){0,20}", ngram in 1usize..5
    ) {
        let index = index(&format!("ngram = {ngram}"), &[item(&query, &[])]);
        let mut scanner = index.scanner();
        prop_assert_eq!(scanner.n_grams(&text).len(), plain(&text, &query, ngram).len());
    }

    #[test]
    fn a_simplified_text_is_the_same_with_its_sources(text in "(\\PC|[ 0-9.,\nΣ\u{301}\u{302e}]|a\u{301}\u{316}){0,40}") {
        let (simple, sources) = crate::datatrove::simplify_mapped(&text);
        prop_assert_eq!(&simple, &crate::datatrove::simplify(&text));
        prop_assert_eq!(simple.len(), sources.len());
    }
}

/// Written by `tests/golden/make_contamination.py`.
fn golden() -> Value {
    serde_json::from_str(include_str!("../../tests/golden/contamination.json")).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

#[test]
fn pieces_equal_those_of_the_janitor() {
    let golden = golden();
    let mut index = Index::new(config("profile = 'lm_eval'"), None).unwrap();
    let benchmark = index.benchmark("golden");
    for (number, item) in (0..).zip(list(&golden["items"])) {
        let item =
            Item { number, query: text(&item["query"]), answers: vec![text(&item["answer"])] };
        index.push(benchmark, &item);
    }
    let index = index.finish();
    let (mut n_cut, mut n_dropped) = (0, 0);
    for document in list(&golden["documents"]) {
        let document_text = text(&document["text"]);
        let found: Vec<&str> = match index.scanner().judge(&document_text, &[]) {
            // The Janitor drops short documents in which nothing is found, too: that is another filter.
            None if document_text.chars().count() < 200 => Vec::new(),
            None => vec![&document_text],
            Some(finding) if finding.action == Action::Drop => Vec::new(),
            Some(finding) => {
                let spans: Vec<_> = finding.hits.into_iter().map(|hit| hit.span).collect();
                let pieces = pieces(&document_text, &spans, index.config());
                pieces.into_iter().map(|piece| &document_text[piece]).collect()
            }
        };
        n_dropped += usize::from(found.is_empty());
        n_cut += usize::from(!found.is_empty() && found != [document_text.as_str()]);
        assert_eq!(&serde_json::json!(found), &document["janitor"], "{document_text:?}");
    }
    println!("{} documents, {n_cut} cut, {n_dropped} dropped", list(&golden["documents"]).len());
    assert!(n_cut > 10 && n_dropped > 10);
}

#[test]
fn decisions_equal_those_of_datatrove() {
    let golden = golden();
    let words: HashMap<String, Vec<String>> =
        serde_json::from_value(golden["words"].clone()).unwrap();
    for settings in list(&golden["datatrove"]) {
        let words = words.clone();
        let split: SplitWords = Arc::new(move |simple: &str| {
            words.get(simple).cloned().unwrap_or_else(|| blanks(simple))
        });
        let config = format!("profile = 'datatrove'\n{}", text(&settings["settings"]));
        let mut index = Index::new(self::config(&config), Some(split)).unwrap();
        let benchmark = index.benchmark("golden");
        for (number, item) in (0..).zip(list(&golden["items"])) {
            let answers = vec![text(&item["answer"])];
            index.push(benchmark, &Item { number, query: text(&item["query"]), answers });
        }
        let index = index.finish();
        let expected = list(&settings["contaminated"]);
        let mut n = 0;
        for (document, expected) in list(&golden["documents"]).iter().zip(expected) {
            let found = index.scanner().judge(document["text"].as_str().unwrap(), &[]).is_some();
            assert_eq!(found, expected.as_bool().unwrap(), "{config} {}", document["text"]);
            n += usize::from(found);
        }
        println!("{config:?}: {n} of {} documents contaminated", expected.len());
        assert!(n > 10 && n < expected.len());
    }
}
