use super::*;

/// Numbers judged by python-stdnum; see `tests/golden/national-ids`.
const EXPECTED: &str = include_str!("../../../../../tests/golden/national-ids/expected.tsv");

fn rows() -> impl Iterator<Item = (&'static str, &'static str, bool)> {
    EXPECTED.lines().map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        (fields[0], fields[1], fields[2] == "true")
    })
}

#[test]
fn takes_the_numbers_that_python_stdnum_takes() {
    let mut n = 0;
    for (name, value, expected) in rows() {
        assert_eq!(is_valid(name, value), expected, "{name} {value}");
        n += 1;
    }
    eprintln!("{n} numbers");
    assert_eq!(n, 33 * 20, "rows of the table");
}

#[test]
fn finds_every_valid_number_behind_its_word() {
    for (name, value, expected) in rows() {
        let finder = Finder::new(&[name.to_owned()]).unwrap();
        let id = IDS.iter().find(|id| id.name == name).unwrap();
        let text = format!("{}: {value}.", id.words.first().unwrap_or(&"nr"));
        let start = text.len() - 1 - value.len();
        let first = start + text[start..].find(|c: char| c.is_ascii_digit()).unwrap();
        let run = text[first..].bytes().take_while(u8::is_ascii_digit).count();
        let hit = finder.find(&text, &Number::new(&text, first, run));
        let whole = Hit { start, end: text.len() - 1, kind: Kind::NationalId, rule: id.name };
        assert_eq!(hit, expected.then_some(whole), "{text}");
    }
}

#[test]
fn names_are_sorted_and_forms_have_no_word_without_need() {
    assert!(IDS.is_sorted_by_key(|id| id.name));
    for id in IDS {
        assert_eq!(id.said.is_empty(), id.words.is_empty(), "{}", id.name);
    }
}

#[test]
fn follows_the_rules_of_ids_without_a_check_digit() {
    let check = |name: &str, value: &str, expected: bool| {
        assert_eq!(is_valid(name, value), expected, "{name} {value}");
    };
    // HMRC, National Insurance Manual NIM39110; QQ is its example of a prefix that is not used.
    check("gb_nino", "AB 12 34 56 C", true);
    check("gb_nino", "QQ 12 34 56 C", false);
    check("gb_nino", "BG123456A", false);
    check("gb_nino", "AB123456E", false);
    // IRS, Internal Revenue Manual 3.21.263: groups of ITINs.
    check("us_itin", "911-70-1234", true);
    check("us_itin", "911-50-1234", true);
    check("us_itin", "911-89-1234", false);
    check("dk_cpr", "311299-1234", true);
    check("dk_cpr", "310299-1234", false);
}

#[test]
fn refuses_an_unknown_id_and_names_the_nearest() {
    let error = Finder::new(&["us_sn".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("`us_sn`") && error.contains("us_ssn"), "{error}");
}
