//! 7z archives that hold one file, as the bytes inside it.
//!
//! The decoder hands its bytes to a function, so it runs in a thread of its own, some blocks ahead of who reads.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use sevenz_rust2::{ArchiveReader, EntryDecision, Error, Password};

use super::compressed::READ_BYTES;

/// First bytes of an archive.
pub(super) const MAGIC: [u8; 6] = [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c];
/// Memory of a decoder, at most, and of an archive's index: a dictionary of 128 MiB, which is the largest window that is
/// taken of Zstandard, too, and what goes with it.
const MEMORY_KIB_MAX: usize = (128 + 8) << 10;
/// Blocks that the decoder may be ahead.
const BLOCKS_AHEAD: usize = 2;

/// Opens the archive `file`; its first block is decoded already, so that an archive that cannot be read says so here.
///
/// # Errors
/// When it is damaged, encrypted, packed in an unknown way, needs too much memory, or does not hold exactly one file.
pub(super) fn open(file: File) -> io::Result<Box<dyn BufRead + Send>> {
    let input = BufReader::new(file);
    let reader = ArchiveReader::new_with_memory_limit(input, Password::empty(), MEMORY_KIB_MAX);
    let mut reader = reader.map_err(|error| refusal(&error))?;
    // Decoding in several threads holds as many dictionaries.
    reader.set_thread_count(1);
    let entries = &reader.archive().files;
    let n_files = entries.iter().filter(|entry| entry.has_stream && !entry.is_directory).count();
    if n_files != 1 {
        return Err(invalid(format!("the archive holds {n_files} files, wanted is one")));
    }
    if (0..entries.len()).any(|index| reader.archive().is_file_encrypted(index)) {
        return Err(invalid("it is encrypted"));
    }
    let (sender, receiver) = sync_channel(BLOCKS_AHEAD);
    thread::Builder::new().name("7z".to_owned()).spawn(move || send(reader, &sender))?;
    let mut blocks = Blocks { receiver, block: Vec::new(), start: 0, is_over: false };
    blocks.fill_buf()?;
    Ok(Box::new(blocks))
}

/// Sends the bytes of the archive's file; an empty block is its end.
fn send(mut reader: ArchiveReader<BufReader<File>>, sender: &SyncSender<io::Result<Vec<u8>>>) {
    let result = reader.for_each_entries_with_decision(|entry, input| {
        if !entry.has_stream || entry.is_directory {
            return Ok(EntryDecision::Continue);
        }
        loop {
            let mut block = Vec::with_capacity(READ_BYTES);
            (&mut *input).take(READ_BYTES as u64).read_to_end(&mut block)?;
            if block.is_empty() {
                return Ok(EntryDecision::Continue);
            }
            if sender.send(Ok(block)).is_err() {
                return Ok(EntryDecision::Stop);
            }
        }
    });
    // Whoever has gone wants to know of neither.
    drop(sender.send(result.map(|()| Vec::new()).map_err(|error| refusal(&error))));
}

/// What the decoder has sent.
struct Blocks {
    receiver: Receiver<io::Result<Vec<u8>>>,
    block: Vec<u8>,
    start: usize,
    is_over: bool,
}

impl Read for Blocks {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(out)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Blocks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.block.len() && !self.is_over {
            // A decoder that panicked sends nothing any more.
            let next = self.receiver.recv().unwrap_or_else(|_| Err(invalid("it is damaged")));
            self.start = 0;
            self.block.clear();
            self.is_over = !next.as_ref().is_ok_and(|block| !block.is_empty());
            self.block = next?;
        }
        Ok(&self.block[self.start..])
    }

    fn consume(&mut self, n: usize) {
        self.start += n;
    }
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

fn refusal(error: &Error) -> io::Error {
    match error {
        Error::PasswordRequired | Error::MaybeBadPassword(_) => invalid("it is encrypted"),
        Error::MaxMemLimited { actaul_kb, .. } => invalid(format!(
            "its dictionary needs {actaul_kb} KiB of memory, at most {MEMORY_KIB_MAX} are given"
        )),
        Error::UnsupportedCompressionMethod(name) => {
            invalid(format!("it is packed with `{name}`, known are LZMA, LZMA2 and bzip2"))
        }
        Error::ChecksumVerificationFailed | Error::NextHeaderCrcMismatch => {
            invalid("its checksum does not match")
        }
        error => invalid(format!("it is damaged: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing::{self, Row};

    /// Archives of a dump of three pages, by `make_archives.py`.
    fn archives() -> Vec<(&'static str, Vec<u8>)> {
        let lines = include_str!("sevenz/archives.tsv").lines();
        lines
            .map(|line| {
                let (name, hex) = line.split_once('\t').unwrap();
                let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
                (name, (0..hex.len()).step_by(2).map(byte).collect())
            })
            .collect()
    }

    /// The rows of a dump, or why it is refused.
    fn read(bytes: &[u8]) -> Result<Vec<Row>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.xml.7z");
        fs::write(&path, bytes).unwrap();
        let source = testing::build(super::super::kind("mediawiki").unwrap(), "");
        let file = testing::file(&path);
        match source.open(&file, None) {
            Ok(_) => Ok(testing::conforms(&*source, &file, &[20_000])),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn reads_what_others_packed_and_says_what_it_cannot_read() {
        for (name, bytes) in archives() {
            let refused = |why: &str| {
                let error = read(&bytes).unwrap_err();
                assert!(error.contains("a.xml.7z") && error.contains(why), "{name}: {error}");
            };
            match name {
                "lzma" | "lzma2" | "bzip2" => {
                    let rows = read(&bytes).unwrap();
                    let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
                    let expected =
                        [1, 2, 3].map(|number| format!("This is page {number} of three."));
                    assert_eq!(texts, expected, "{name}");
                    assert_eq!(rows[0].url.as_deref(), Some("https://test.example/wiki/Page_1"));
                }
                "two_files" => refused("holds 2 files, wanted is one"),
                "ppmd" => refused("packed with `PPMD`"),
                // 1 GiB in KiB, and what LZMA2 takes beside it.
                "large_dictionary" => refused("needs 10486"),
                "encrypted" => refused("encrypted"),
                name => panic!("{name}"),
            }
        }
    }

    #[test]
    fn no_damage_ends_the_reader_or_goes_unnoticed() {
        let (_, archive) = archives().into_iter().find(|(name, _)| *name == "lzma2").unwrap();
        let whole = read(&archive).unwrap();
        let check = |bytes: &[u8], what: &str| {
            let Ok(rows) = read(bytes) else { return };
            let is_told = rows.iter().any(|row| row.reject.as_deref() == Some("bad_7z"));
            assert!(is_told || rows == whole, "{what}: {rows:?}");
        };
        for n in 0..archive.len() {
            check(&archive[..n], &format!("{n} bytes"));
            let mut flipped = archive.clone();
            flipped[n] ^= 0x10;
            check(&flipped, &format!("byte {n} flipped"));
        }
    }

    /// `GRISTMILL_7Z` names `wiki/ltgwiki` of the test data as another program packs it.
    #[test]
    fn a_dump_gives_the_same_rows_as_in_gzip() {
        let Some(folder) = testing::data("wiki/ltgwiki") else { return };
        let Some(packed) = std::env::var_os("GRISTMILL_7Z") else {
            eprintln!("skipped: set GRISTMILL_7Z");
            return;
        };
        let source = testing::build(super::super::kind("mediawiki").unwrap(), "");
        let rows = |path: &std::path::Path| -> Vec<(String, Option<String>, String, u64)> {
            let rows = testing::read(&*source, &testing::file(path), None);
            let place = |row: &Row| row.locator.split_once('#').unwrap().1.to_owned();
            rows.into_iter().map(|row| (place(&row), row.reject, row.text, row.bytes_raw)).collect()
        };
        let found = rows(std::path::Path::new(&packed));
        let expected = rows(&folder.join("smallwiki-latest-pages-articles.xml.gz"));
        assert_eq!(found.len(), 2004);
        assert!(found == expected, "rows differ");
        eprintln!("{} pages equal", found.len());
    }
}
