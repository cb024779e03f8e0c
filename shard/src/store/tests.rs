use std::sync::Barrier;

use super::*;

/// Lets eight writers want the same name in `folder`, twenty times.
pub(super) fn race(folder: &Path) {
    for round in 0..20 {
        let path = folder.join(format!("{round}.json"));
        let barrier = Barrier::new(8);
        let won: Vec<bool> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8_u8)
                .map(|i| {
                    let (path, barrier) = (&path, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        put_if_absent(path, &[i; 100]).unwrap()
                    })
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        assert_eq!(won.iter().filter(|won| **won).count(), 1);
        let winner = u8::try_from(won.iter().position(|won| *won).unwrap()).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), [winner; 100]);
    }
    assert_eq!(list(folder).unwrap().len(), 20, "nothing is left aside");
}

#[test]
fn one_of_eight_racing_writers_wins_and_its_bytes_stay() {
    race(tempfile::tempdir().unwrap().path());
}

#[test]
fn replace_leaves_the_new_bytes_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/state.json");
    replace(&path, b"one").unwrap();
    replace(&path, b"two").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(list(path.parent().unwrap()).unwrap(), ["state.json"]);
}

#[test]
fn a_file_hashes_as_its_bytes_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let bytes: Vec<u8> = (0..700_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    fs::write(&path, &bytes).unwrap();
    assert_eq!(hash_file(&path).unwrap(), blake3::hash(&bytes).to_hex().to_string());
    // The empty input's hash, from the BLAKE3 specification's test vectors.
    fs::write(&path, b"").unwrap();
    let empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    assert_eq!(hash_file(&path).unwrap(), empty);
}

#[test]
fn a_folder_that_is_not_there_has_no_names() {
    assert!(list(Path::new("/no/such/folder")).unwrap().is_empty());
}
