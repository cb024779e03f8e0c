//! The generated pages are what the program says of itself.

use std::fs;

use crate::mill::root;

#[test]
fn reference_page_is_the_one_that_the_program_prints() {
    check("docs/reference.md", "list --reference", &queries::function::reference());
}

#[test]
fn page_of_the_format_is_the_one_that_the_program_prints() {
    check("docs/formats/v1.md", "list --format", &shard::format::page());
}

fn check(page: &str, verb: &str, expected: &str) {
    let path = root().join(page);
    let command = format!("cargo run --bin gristmill -- {verb} > {page}");
    let page = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}: run `{command}`", path.display()));
    let differing =
        page.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
    assert!(
        page == expected,
        "line {:?} of {} differs: run `{command}`",
        differing.map(|n| n + 1),
        path.display()
    );
}
