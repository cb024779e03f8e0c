use serde::Deserialize;

use super::*;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Job {
    name: String,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    dedup: Dedup,
    #[serde(default)]
    source: Vec<Source>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Dedup {
    threshold: f64,
    bands: u32,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    path: String,
}

#[track_caller]
fn check(text: &str, overrides: &[&str], expected: &str) {
    let overrides: Vec<_> = overrides.iter().map(|text| (*text).to_owned()).collect();
    let error = from_str::<Job>(text, "job.toml", &overrides).unwrap_err();
    assert!(matches!(error, Error::Config { .. }));
    assert_eq!(error.to_string(), expected);
}

fn load_ok(text: &str, overrides: &[&str]) -> Loaded<Job> {
    let overrides: Vec<_> = overrides.iter().map(|text| (*text).to_owned()).collect();
    from_str(text, "job.toml", &overrides).unwrap()
}

#[test]
fn an_unknown_key_leads_to_its_line_and_the_nearest_known_one() {
    check(
        "name = \"a\"\nsede = 4\n",
        &[],
        "job.toml:2:1: unknown key `sede`\n2 | sede = 4\n  | ^^^^\nhint: did you mean `seed`?",
    );
}

#[test]
fn an_unknown_key_in_a_table_names_the_table() {
    check(
        "name = \"a\"\n[dedup]\nband = 4\n",
        &[],
        "job.toml:3:1: unknown key `band` in `dedup`\n3 | band = 4\n  | ^^^^\nhint: did you mean `bands`?",
    );
}

#[test]
fn a_key_like_none_lists_the_known_ones() {
    check(
        "name = \"a\"\n[dedup]\ncompletely = 4\n",
        &[],
        "job.toml:3:1: unknown key `completely` in `dedup`\n3 | completely = 4\n  | ^^^^^^^^^^\nhint: known are `threshold`, `bands`",
    );
}

#[test]
fn a_wrong_type_names_the_key() {
    check(
        "name = \"ä\"\n[dedup]\nbands = \"many\"\n",
        &[],
        "job.toml:3:9: `dedup.bands`: invalid type: string \"many\", expected u32\n3 | bands = \"many\"\n  |         ^^^^^^",
    );
}

#[test]
fn a_syntax_error_leads_to_its_column() {
    let error = from_str::<Job>("name = \"a\"\nseed = = 3\n", "job.toml", &[]).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("job.toml:2:8: "), "{text}");
    assert!(text.contains("2 | seed = = 3"), "{text}");
}

#[test]
fn a_missing_key_is_named() {
    let error = from_str::<Job>("seed = 1\n", "job.toml", &[]).unwrap_err().to_string();
    assert!(error.contains("key `name` is missing"), "{error}");
}

#[test]
fn overrides_win_over_the_file_and_make_tables() {
    let loaded = load_ok("name = \"a\"\nseed = 1\n", &["seed=9", "dedup.bands = 14", "name=b c"]);
    assert_eq!(loaded.value.seed, 9);
    assert_eq!(loaded.value.dedup.bands, 14);
    assert_eq!(loaded.value.name, "b c");
    assert_eq!(loaded.table["dedup"]["bands"].as_integer(), Some(14));
}

#[test]
fn an_override_gives_what_the_file_lacks() {
    assert_eq!(load_ok("", &["name=\"x\""]).value.name, "x");
}

#[test]
fn a_wrong_override_is_named_instead_of_the_file() {
    check(
        "name = \"a\"\n",
        &["dedup.bands=many"],
        "override `dedup.bands=many`: `dedup.bands`: invalid type: string \"many\", expected u32",
    );
    check(
        "name = \"a\"\n",
        &["dedup.band=4"],
        "override `dedup.band=4`: unknown key `band` in `dedup`\nhint: did you mean `bands`?",
    );
    check(
        "name = \"a\"\n",
        &["name.x=4"],
        "override `name.x=4`: `name` is a value of type string, not a table\nhint: write `key=value` or `table.key=value`",
    );
}

#[test]
fn a_part_of_a_file_is_read_as_its_own_configuration() {
    let table: Table = toml::from_str("bands = 3\nthresold = 0.5\n").unwrap();
    let error = from_table::<Dedup>(&table, "step 2").unwrap_err();
    assert_eq!(
        error.to_string(),
        "step 2: unknown key `thresold`\nhint: did you mean `threshold`?"
    );
}

#[test]
fn canonical_json_does_not_depend_on_the_order_of_keys() {
    let one: Table =
        toml::from_str("b = 1\na = [1.5, nan]\n[c]\ny = 1979-05-27\nx = true\n").unwrap();
    let two: Table =
        toml::from_str("c = { x = true, y = 1979-05-27 }\na = [1.5, nan]\nb = 1\n").unwrap();
    let expected = r#"{"a":[1.5,"NaN"],"b":1,"c":{"x":true,"y":"1979-05-27"}}"#;
    assert_eq!(canonical_json(&one).to_string(), expected);
    assert_eq!(canonical_json(&two).to_string(), expected);
}

#[test]
fn distance_counts_edits() {
    // Levenshtein's own textbook pairs.
    assert_eq!(edits("kitten", "sitting"), 3);
    assert_eq!(edits("", "abc"), 3);
    assert_eq!(edits("flaw", "lawn"), 2);
}
