use super::*;
use crate::store;

fn at(path: &str) -> Object {
    Object::at(Path::new(path)).unwrap().unwrap()
}

#[test]
fn places_are_told_from_paths_and_split_into_bucket_and_key() {
    for path in ["corpus", "/s3/corpus", "s3:/bucket", "./s3://x", "c3://bucket/x", ""] {
        assert!(!is_object(Path::new(path)), "{path}");
    }
    for (place, root, key) in [
        ("s3://bucket", "s3://bucket", ""),
        ("s3://bucket/", "s3://bucket", ""),
        ("s3://bucket/a/b", "s3://bucket", "a/b"),
        ("gs://bucket//a/./b/../c/", "gs://bucket", "a/c"),
        ("az://container/a b/ü#?%20", "az://container", "a b/ü#?%20"),
        ("https://host:8080/../a", "https://host:8080", "a"),
    ] {
        assert!(is_object(Path::new(place)), "{place}");
        assert_eq!(split(place), (root.to_owned(), key.to_owned()));
    }
    assert_eq!(at("memory://split/a/../b c/d").url(), "memory://split/b c/d");
    let joined = store::join(Path::new("jobs"), "s3://bucket/a");
    assert_eq!(joined, Path::new("s3://bucket/a"));
    assert_eq!(store::join(Path::new("jobs"), "a"), Path::new("jobs/a"));
}

#[test]
fn what_is_there_is_not_replaced_by_put_if_absent() {
    let path = Path::new("memory://create/a");
    assert!(store::put_if_absent(path, b"one").unwrap());
    assert!(!store::put_if_absent(path, b"two").unwrap());
    assert_eq!(store::read(path).unwrap().unwrap(), b"one");
    // A first try whose answer was lost: the second one finds its own bytes.
    assert!(store::put_if_absent(path, b"one").unwrap());
    store::replace(path, b"three").unwrap();
    assert_eq!(store::read(path).unwrap().unwrap(), b"three");
    store::remove(path).unwrap();
    store::remove(path).unwrap();
    assert_eq!(store::read(path).unwrap(), None);
    assert_eq!(store::size(path).unwrap(), None);
}

#[test]
fn one_of_eight_racing_writers_wins_and_its_bytes_stay() {
    store::tests::race(Path::new("memory://race"));
}

#[test]
fn parts_come_in_order_whatever_the_size() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("big");
    let all: Vec<u8> = (0..9_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let part = usize::try_from(PART_BYTES).unwrap();
    // Around one part, around the least that is sent in parts, and more parts than are on their way at once.
    for n in [0, 1, part - 1, part, part + 1, 2 * part, 2 * part + 1, 4 * part + 5] {
        std::fs::write(&file, &all[..n]).unwrap();
        let path = Path::new("memory://parts/big");
        store::send(&file, path).unwrap();
        assert_eq!(store::size(path).unwrap(), Some(n as u64));
        let wanted = blake3::hash(&all[..n]).to_hex().to_string();
        assert_eq!(store::hash_file(path).unwrap(), wanted, "{n} bytes");
        let copy = store::local(path, n as u64, &wanted).unwrap();
        assert_eq!(std::fs::read(copy).unwrap(), &all[..n]);
    }
    let range = store::read_range(Path::new("memory://parts/big"), 4..12).unwrap();
    assert_eq!(range, [1, 0, 0, 0, 2, 0, 0, 0]);
}

#[test]
fn names_are_listed_with_folders_and_at_any_depth() {
    let root = Path::new("memory://list/corpus");
    for name in ["b/two", "b/deep/three", "a", "c.json"] {
        store::replace(&root.join(name), b"x").unwrap();
    }
    store::replace(Path::new("memory://list/corpus-2/a"), b"x").unwrap();
    assert_eq!(store::list(root).unwrap(), ["a", "b", "c.json"]);
    let all = store::list_objects(root).unwrap();
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a", "b/deep/three", "b/two", "c.json"]);
    assert!(store::list(Path::new("memory://list/none")).unwrap().is_empty());
}

#[test]
fn the_probe_of_the_condition_leaves_nothing() {
    let folder = Path::new("memory://probe/manifest");
    store::check_conditional(folder).unwrap();
    store::check_conditional(folder).unwrap();
    assert!(store::list(folder).unwrap().is_empty());
}

#[test]
fn the_web_is_only_read() {
    for error in [
        store::replace(Path::new("https://host.test/a"), b"x").unwrap_err(),
        store::put_if_absent(Path::new("http://host.test/a"), b"x").unwrap_err(),
    ] {
        let error = error.to_string();
        assert!(error.contains("://host.test/a`: `http` and `https` are read only"), "{error}");
        assert!(error.contains("hint: write to a folder"), "{error}");
    }
}

#[test]
fn callers_may_be_inside_a_runtime_of_their_own() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let path = Path::new("memory://nested/a");
    let read = runtime.block_on(async {
        store::replace(path, b"x").unwrap();
        store::read(path).unwrap()
    });
    assert_eq!(read.unwrap(), b"x");
}
