use std::io::Read;
use std::path::{Path, PathBuf};

use super::*;
use crate::modifier::tests::modified;

fn check(text: &str, expected: &str) {
    assert_eq!(modified(&KIND, "", &[text]).text.value(0), expected);
}

#[test]
fn masks_email_addresses() {
    check("write to jane.doe+x@mail.example.co.uk, or not", "write to <EMAIL>, or not");
    check("<a@b.org>; a@b.org.", "<<EMAIL>>; <EMAIL>.");
    check(
        "logo@2x.png, @param x, a @ b, user@localhost",
        "logo@2x.png, @param x, a @ b, user@localhost",
    );
}

#[test]
fn masks_public_ip_addresses() {
    check(
        "from 8.8.4.4 and http://93.184.216.34:80/x",
        "from <IP_ADDRESS> and http://<IP_ADDRESS>:80/x",
    );
    check("2606:2800:220:1:248:1893:25c8:1946 or 2a00:1450::200e", "<IP_ADDRESS> or <IP_ADDRESS>");
    // Private, loopback, documentation, versions, headings, identifiers, times.
    for text in [
        "10.0.0.1 127.0.0.1 192.168.1.1 203.0.113.7",
        "JDK version 17.0.4.1",
        "10.2466/pr0.1976.39.2.601",
        "1.3.6.1.4.1 is an identifier",
        "see section 3.20.1.1",
        "256.1.1.1 1.2.3.04",
        "::1 12:30:45 a::b std::io",
    ] {
        check(text, text);
    }
}

#[test]
fn masks_phone_numbers_with_separators() {
    check("call (425) 882-9090 or +1 212-555-0142 x12", "call <PHONE> or <PHONE>");
    check(
        "in London +44 20 7946 0958, in Berlin +49 (30) 901820",
        "in London <PHONE>, in Berlin <PHONE>",
    );
    for text in [
        "4258829090",
        "ISBN 978-0-306-40615-7",
        "2024-05-01 1990-2000",
        "+3 to +5",
        "(123) 456-7890",
    ] {
        check(text, text);
    }
}

#[test]
fn masks_cards_that_pass_luhn_and_look_like_cards() {
    // The networks' published test numbers.
    check("4111 1111 1111 1111, 3782-822463-10005", "<CARD>, <CARD>");
    check("my credit card 5555555555554444", "my credit card <CARD>");
    for text in ["4111 1111 1111 1112", "post 5555555555554444", "9111 1111 1111 1111"] {
        check(text, text);
    }
}

#[test]
fn masks_ibans_that_pass_mod_97() {
    // Examples of the SWIFT registry.
    check("IBAN GB29 NWBK 6016 1331 9268 19 please", "IBAN <IBAN> please");
    check("DE89370400440532013000, NO9386011117947", "<IBAN>, <IBAN>");
    check("DE89370400440532013001", "DE89370400440532013001");
}

#[test]
fn says_where_and_by_which_rule() {
    let modified =
        modified(&KIND, "email = '[mail]'\nphone = ''", &["none", "ä a@b.org (425) 882-9090"]);
    let edit = Edit { row: 1, start: 3, end: 10, rule: "email", replacement: "[mail]".to_owned() };
    assert_eq!(modified.edits, [edit]);
    assert_eq!(modified.text.value(1), "ä [mail] (425) 882-9090");
}

/// Kinds of the sample with a structure that a rule can know, and our rules for them.
const KINDS: [(&str, &[&str]); 5] = [
    ("EMAIL_ADDRESS", &["email"]),
    ("IP_ADDRESS", &["ipv4", "ipv6"]),
    ("PHONE_NUMBER", &["phone", "phone_international"]),
    ("CREDIT_CARD", &["card"]),
    ("IBAN_CODE", &["iban"]),
];

#[test]
fn finds_the_structured_kinds_of_the_presidio_sample() {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let data = std::env::var_os("GRISTMILL_DATA").map_or_else(beside, PathBuf::from);
    let path = data.join("pii/presidio-research/data/synth_dataset_v2.json.gz");
    let Ok(file) = std::fs::File::open(&path) else {
        eprintln!("skipped: no {}", path.display());
        return;
    };
    let mut json = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut json).unwrap();
    let samples: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    eprintln!("{} sentences", samples.len());
    let masker = MaskPii { config: Config::default() };
    for (kind, rules) in KINDS {
        let (mut n_true, mut n_found, mut n_hits, mut n_right) = (0, 0, 0, 0);
        for sample in &samples {
            let text = sample["full_text"].as_str().unwrap();
            let offset = |value: &serde_json::Value| {
                let at = usize::try_from(value.as_u64().unwrap()).unwrap();
                text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte)
            };
            let spans: Vec<(usize, usize)> = sample["spans"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|span| span["entity_type"] == kind)
                .map(|span| (offset(&span["start_position"]), offset(&span["end_position"])))
                .collect();
            let hits: Vec<Hit> =
                masker.hits(text).into_iter().filter(|hit| rules.contains(&hit.2)).collect();
            let overlaps = |&(start, end): &(usize, usize)| {
                hits.iter().any(|hit| hit.0 < end && start < hit.1)
            };
            n_true += spans.len();
            n_found += spans.iter().filter(|span| overlaps(span)).count();
            n_hits += hits.len();
            n_right += hits
                .iter()
                .filter(|hit| spans.iter().any(|span| hit.0 < span.1 && span.0 < hit.1))
                .count();
        }
        eprintln!("{kind}: {n_found} of {n_true} found, {n_right} of {n_hits} hits right");
        // A hit that is none costs text: precision is the promise.
        assert!(n_right * 100 >= n_hits * 90, "{kind}: {n_right} of {n_hits}");
    }
}
