use super::*;

fn cache(bytes_max: u64) -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache { folder: folder.path().to_owned(), bytes_max };
    (folder, cache)
}

fn object(name: &str, bytes: &[u8]) -> (Object, String) {
    let object = Object::at(Path::new(&format!("memory://cache/{name}"))).unwrap().unwrap();
    object.write(bytes).unwrap();
    (object, blake3::hash(bytes).to_hex().to_string())
}

/// Makes the copy look as if it was asked for long ago.
fn age(path: &Path, hours: u64) {
    let when = SystemTime::now() - Duration::from_secs(3600 * hours);
    let times = FileTimes::new().set_modified(when);
    File::options().write(true).open(path).unwrap().set_times(times).unwrap();
}

#[test]
fn a_copy_is_fetched_once_and_checked() {
    let (_folder, cache) = cache(1000);
    let (there, hash) = object("once", b"some bytes");
    let path = cache.fetch(&there, 10, Known::Content(&hash)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"some bytes");
    there.write(b"other").unwrap();
    assert_eq!(cache.fetch(&there, 10, Known::Content(&hash)).unwrap(), path, "it is kept");
    cache.forget(&hash).unwrap();
    there.write(b"same lengt").unwrap();
    let error = cache.fetch(&there, 10, Known::Content(&hash)).unwrap_err().to_string();
    let found = blake3::hash(b"same lengt").to_hex();
    for wanted in ["memory://cache/once", hash.as_str(), found.as_str()] {
        assert!(error.contains(wanted), "{error}");
    }
    assert!(super::super::list(&cache.folder.join(SHARDS)).unwrap().is_empty(), "nothing is left");
}

#[test]
fn a_copy_that_lost_its_bytes_is_fetched_again() {
    let (_folder, cache) = cache(1000);
    let (there, hash) = object("torn", b"whole");
    let path = cache.fetch(&there, 5, Known::Content(&hash)).unwrap();
    fs::write(&path, b"wh").unwrap();
    cache.fetch(&there, 5, Known::Content(&hash)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"whole");
}

#[test]
fn the_copy_that_was_used_longest_ago_makes_room() {
    let (_folder, cache) = cache(25);
    let copies: Vec<(PathBuf, Object, String)> = (0..3_u8)
        .map(|i| {
            let (there, hash) = object(&format!("room-{i}"), &[i; 10]);
            (cache.fetch(&there, 10, Known::Content(&hash)).unwrap(), there, hash)
        })
        .collect();
    let is_there = |i: usize| copies[i].0.try_exists().unwrap();
    assert!((0..3).all(is_there), "what was just asked for stays, beyond the bound too");
    for (i, hours) in [(0, 3), (1, 9), (2, 5)] {
        age(&copies[i].0, hours);
    }
    // 40 bytes of 25: the two that were not asked for longest go.
    let (there, hash) = object("room-3", &[3; 10]);
    cache.fetch(&there, 10, Known::Content(&hash)).unwrap();
    assert_eq!((0..3).map(is_there).collect::<Vec<_>>(), [true, false, false]);
    cache.fetch(&copies[1].1, 10, Known::Content(&copies[1].2)).unwrap();
    assert!(is_there(1), "it comes back");
}

#[test]
fn eight_threads_that_want_one_copy_fetch_it_once() {
    let (_folder, cache) = cache(1 << 20);
    let (there, hash) = object("busy", &[7; 100_000]);
    let paths: Vec<PathBuf> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| cache.fetch(&there, 100_000, Known::Content(&hash)).unwrap()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(paths.iter().all(|path| *path == paths[0]));
    assert_eq!(fs::read(&paths[0]).unwrap(), [7; 100_000]);
}

#[test]
fn what_a_killed_process_left_goes_after_a_day() {
    let (_folder, cache) = cache(1000);
    let folder = cache.folder.join(OBJECTS);
    create_folder(&folder).unwrap();
    let (old, young) = (folder.join(format!("{ASIDE}1-1")), folder.join(format!("{ASIDE}1-2")));
    for (path, hours) in [(&old, 25), (&young, 23)] {
        fs::write(path, b"half").unwrap();
        age(path, hours);
    }
    let (there, _) = object("left", b"x");
    cache.fetch(&there, 1, Known::Version("v")).unwrap();
    assert!(!old.try_exists().unwrap() && young.try_exists().unwrap());
}
