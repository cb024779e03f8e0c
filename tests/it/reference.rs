//! The reference page is what the program says of itself.

use std::fs;

use crate::mill::root;

#[test]
fn reference_page_is_the_one_that_the_program_prints() {
    let path = root().join("docs/reference.md");
    let command = "cargo run --bin gristmill -- list --reference > docs/reference.md";
    let page = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}: run `{command}`", path.display()));
    let expected = queries::function::reference();
    let differing =
        page.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
    assert!(
        page == expected,
        "line {:?} of {} differs: run `{command}`",
        differing.map(|n| n + 1),
        path.display()
    );
}
