//! Our decisions beside those of datatrove and DCLM; the golden file's script says how they were made.

use serde_json::Value;

use super::*;
use crate::filter::tests::{reasons, verdicts};

const GOLDEN: &str = include_str!("../../../tests/golden/url_blocklist.json");

fn check(profile: &str) {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let mut config = format!("profile = '{profile}'\nbuilt_in_words = false\n");
    for (key, list) in golden["lists"].as_object().unwrap() {
        // DCLM has no list of URLs.
        if profile == "datatrove" || key != "urls" {
            config += &format!("extra_{key} = {list}\n");
        }
    }
    let cases = golden["cases"].as_array().unwrap();
    let urls: Vec<&str> = cases.iter().map(|case| case["url"].as_str().unwrap()).collect();
    for (case, found) in cases.iter().zip(reasons(&KIND, &config, &urls)) {
        assert_eq!(found.as_deref(), case[profile].as_str(), "{profile} {}", case["url"]);
    }
    eprintln!("{} URLs judged as {profile} did", cases.len());
}

#[test]
fn decides_as_datatrove_does() {
    check("datatrove");
}

#[test]
fn decides_as_dclm_does() {
    check("dclm");
}

#[test]
fn reads_lists_plain_and_compressed_without_comments_and_blank_lines() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, b"bad.org\r\nworse.org").unwrap();
    let domains = write("domains.gz", &gzip.finish().unwrap());
    let words = write("words", b"# a comment\n\n  mill \n");
    let config = format!("domains = {domains:?}\nwords = {words:?}\nextra_domains = ['worst.org']");
    let urls = [
        "http://bad.org/",
        "http://x.worse.org/",
        "http://worst.org/",
        "http://good.org/",
        "http://good.org/mill",
        "http://good.org/comment",
        "http://good.org/porno",
    ];
    let verdicts = verdicts(&KIND, &config, &urls);
    let reasons: Vec<_> = verdicts.reasons.iter().collect();
    let domain = Some("blocked_domain");
    let word = Some("blocked_word");
    assert_eq!(reasons, [domain, domain, domain, None, word, None, word]);
    let by = verdicts.signals[1].as_any().downcast_ref::<StringArray>().unwrap();
    assert_eq!(by.iter().nth(1), Some(Some("worse.org")));
    assert_eq!(by.iter().nth(3), Some(None));
}

#[test]
fn keeps_documents_without_a_url_and_reads_the_column_of_urls() {
    let texts: ArrayRef = Arc::new(StringViewArray::from(vec!["http://a.com/porno", "text"]));
    let urls: ArrayRef = Arc::new(StringViewArray::from(vec![None, Some("http://a.com/porno")]));
    let documents = RecordBatch::try_from_iter([("text", texts), ("url", urls)]).unwrap();
    let verdicts = (KIND.build)(&toml::Table::new()).unwrap().judge(&documents).unwrap();
    assert_eq!(verdicts.reasons.iter().collect::<Vec<_>>(), [None, Some("blocked_word")]);
    assert!(verdicts.signals[0].is_null(0));
}

#[test]
fn names_the_list_that_is_missing() {
    let table: toml::Table = "domains = 'no/such/list'".parse().unwrap();
    let error = (KIND.build)(&table).unwrap_err().to_string();
    assert!(error.contains("cannot read `no/such/list`"), "{error}");
}
