//! Same inputs, job and seed give the same bytes, whatever the threads.

use crate::mill::{Mill, assert_same};

#[test]
fn threads_change_no_byte_of_any_dataset() {
    let mill = Mill::filled(9 << 20);
    mill.mill(&["--threads", "1", "--set", "output=one"]);
    let one = mill.files("one");
    let count = |part: &str| one.keys().filter(|name| name.starts_with(part)).count();
    // Several units in every stage that has units, or the test proves nothing.
    let least = [
        ("documents", 5),
        ("dropped", 3),
        ("edits", 2),
        ("signatures", 5),
        ("duplicates", 1),
        ("tokens", 3),
    ];
    for (dataset, least) in least {
        let n = count(&format!("{dataset}/data/"));
        assert!(n >= least, "`{dataset}` has {n} shards: {:?}", one.keys());
    }

    mill.mill(&["--threads", "2", "--set", "output=two"]);
    assert_same(&mill.files("two"), &one, "with two threads");
    println!("compared {} files", one.len());
}
