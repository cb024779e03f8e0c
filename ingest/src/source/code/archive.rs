//! The files of a package: a tar, plain or compressed, or a zip.
//!
//! An archive is read twice: for its licences, which may stand behind what they hold for, then for its files. Nothing is written anywhere.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::ops::Range;

use zip::ZipArchive;
use zip::result::ZipError;

use super::license::{self, Licenses};
use super::{Module, Rules};
use crate::source::batch::{BatchBuilder, Record, Rows};
use crate::source::tar::{Entry, Tar};
use crate::source::{Raw, SourceFile, compressed, has_first_byte, raw};
use crate::{Error, Result};

/// Entries of an archive, at most.
const ENTRIES_MAX: usize = 1_000_000;

/// Ends of names of archives. Of each the first bytes decide what it is.
const ENDS: [&str; 10] =
    [".tar", ".tar.gz", ".tgz", ".tar.zst", ".crate", ".whl", ".zip", ".jar", ".nupkg", ".egg"];

/// Whether a file called `name` is read as an archive.
pub(super) fn is_archive(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ENDS.iter().any(|end| name.ends_with(end))
}

/// A package that is being read.
pub(super) struct Archive {
    file: SourceFile,
    rules: Rules,
    bytes_left: u64,
    licenses: Licenses,
    state: State,
}

enum State {
    Unopened,
    Tar(Tar, usize),
    Zip(Box<Zip>),
    Done,
}

struct Zip {
    package: ZipArchive<BufReader<File>>,
    next: usize,
    /// Where entries begin that were read: two entries of a directory may claim the same bytes.
    seen: HashSet<u64>,
}

/// What an archive gives next.
enum Next {
    File {
        name: String,
        start: u64,
        bytes: Vec<u8>,
    },
    TooLarge {
        name: String,
        start: u64,
        bytes: u64,
    },
    /// A link, a folder, or a file that this pass does not want.
    Nothing,
    End,
}

/// Why the rest of an archive is not read, and where that is.
struct Damage {
    at: u64,
    reason: &'static str,
}

impl Archive {
    pub(super) fn open(
        file: &SourceFile,
        range: Option<Range<u64>>,
        rules: Rules,
        bytes_max: u64,
    ) -> Result<Self> {
        // What cannot be opened is an error now, not a row later.
        File::open(&file.path).map_err(Error::io("open", &file.path))?;
        let state = if has_first_byte(range.as_ref()) { State::Unopened } else { State::Done };
        let licenses = Licenses::default();
        Ok(Self { file: file.clone(), rules, bytes_left: bytes_max, licenses, state })
    }

    /// Reads the licences, and stands at the first entry again.
    fn begin(&mut self) -> Result<Result<(), Damage>> {
        let bytes_max = self.bytes_left;
        if let Err(damage) = self.reset()? {
            return Ok(Err(damage));
        }
        // What stops this pass stops the next one, too, and is told there.
        while let Ok(next) = self.step(license::BYTES_MAX, license::is_license_file) {
            match next {
                Next::File { name, bytes, .. } => self.licenses.add(inside(&name), &bytes),
                Next::End => break,
                Next::TooLarge { .. } | Next::Nothing => {}
            }
        }
        self.bytes_left = bytes_max;
        self.reset()
    }

    fn reset(&mut self) -> Result<Result<(), Damage>> {
        let read = |error| Error::io("read", &self.file.path)(error);
        let open = || File::open(&self.file.path).map_err(Error::io("open", &self.file.path));
        let mut magic = [0; 4];
        let is_zip = open()?.read_exact(&mut magic).is_ok() && magic == *b"PK\x03\x04";
        let damage = |reason| Ok(Err(Damage { at: 0, reason }));
        if is_zip {
            let package = match ZipArchive::new(BufReader::new(open()?)) {
                Ok(package) if package.len() > ENTRIES_MAX => return damage("too_many_entries"),
                Ok(package) => package,
                Err(ZipError::Io(error)) if !is_about_content(&error) => return Err(read(error)),
                Err(_) => return damage("bad_zip"),
            };
            self.state = State::Zip(Box::new(Zip { package, next: 0, seen: HashSet::new() }));
            return Ok(Ok(()));
        }
        let mut opened = compressed::open(open()?).map_err(read)?;
        match Tar::is_start(&mut opened) {
            Ok(true) => {}
            Ok(false) => return damage("bad_tar"),
            Err(error) => match opened.damage {
                Some(reason) => return damage(reason),
                None => return Err(read(error)),
            },
        }
        self.state = State::Tar(Tar::new(opened), 0);
        Ok(Ok(()))
    }

    /// Reads the next entry, its content if `wants` its name and it has at most `bytes_max` bytes.
    fn step(&mut self, bytes_max: u64, wants: fn(&str) -> bool) -> Result<Next, Damage> {
        match &mut self.state {
            State::Unopened | State::Done => Ok(Next::End),
            State::Tar(tar, n_entries) => {
                let result = tar_step(tar, bytes_max.min(self.bytes_left), wants);
                *n_entries += 1;
                // What is passed over is inflated, too: an archive of nothing but zeros has to end.
                self.bytes_left =
                    self.bytes_left.saturating_sub(result.as_ref().map_or(0, |(_, bytes)| *bytes));
                let at = tar.position();
                match result {
                    Err(reason) => Err(Damage { at, reason }),
                    Ok(_) if *n_entries > ENTRIES_MAX => {
                        Err(Damage { at, reason: "too_many_entries" })
                    }
                    Ok((next, _)) if self.bytes_left == 0 && !matches!(next, Next::End) => {
                        Err(Damage { at, reason: "too_large" })
                    }
                    Ok((next, _)) => Ok(next),
                }
            }
            State::Zip(zip) => {
                let next = zip_step(zip, bytes_max.min(self.bytes_left), wants)?;
                let inflated = match &next {
                    Next::File { bytes, .. } => bytes.len() as u64,
                    Next::TooLarge { bytes, .. } => *bytes,
                    Next::Nothing | Next::End => 0,
                };
                self.bytes_left = self.bytes_left.saturating_sub(inflated);
                Ok(next)
            }
        }
    }

    fn damaged(&mut self, damage: &Damage, rows: &mut BatchBuilder) {
        self.state = State::Done;
        let locator = format!("{}#{}", self.file.name, damage.at);
        rows.reject(&Record { locator: &locator, ..Record::default() }, damage.reason);
    }
}

impl Rows for Archive {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        if matches!(self.state, State::Done) {
            return Ok(false);
        }
        if matches!(self.state, State::Unopened)
            && let Err(damage) = self.begin()?
        {
            self.damaged(&damage, rows);
            return Ok(true);
        }
        match self.step(self.rules.file_bytes_max, |_| true) {
            Err(damage) => self.damaged(&damage, rows),
            Ok(Next::End) => return Ok(false),
            Ok(Next::Nothing) => {}
            Ok(Next::TooLarge { name, start, bytes }) => {
                let locator = format!("{}#{start}", self.file.name);
                let metadata = [("path", inside(&name))];
                let record = Record {
                    locator: &locator,
                    bytes_raw: bytes,
                    metadata: &metadata,
                    ..Record::default()
                };
                rows.reject(&record, "too_large");
            }
            Ok(Next::File { name, start, bytes }) => {
                let locator = format!("{}#{start}", self.file.name);
                let license = self.licenses.of(inside(&name));
                let module = Module {
                    path: inside(&name),
                    locator: &locator,
                    bytes: &bytes,
                    license: license.as_ref(),
                    date: None,
                    metadata: &[],
                };
                self.rules.push(&module, rows);
            }
        }
        Ok(true)
    }
}

/// Returns the file of a package that begins at `place`: behind its header in a tar, with its header in a zip.
pub(super) fn raw(file: &SourceFile, place: &str, bytes: u64) -> Result<Option<Raw>> {
    let handle = File::open(&file.path).map_err(Error::io("open", &file.path))?;
    // What is no zip file is a tar.
    let Ok(mut package) = ZipArchive::new(BufReader::new(handle)) else {
        return raw::inflated(file, Some(place), bytes);
    };
    let n_entries = package.len();
    let mut begins_there = |index: &usize| {
        let entry = package.by_index_raw(*index);
        entry.is_ok_and(|entry| place.parse() == Ok(entry.header_start()))
    };
    let Some(index) = (0..n_entries).find(&mut begins_there) else { return Ok(None) };
    match package.by_index(index) {
        Ok(entry) => raw::take(entry, file, 0, u64::MAX).map(|bytes| Some(Raw::Bytes(bytes))),
        Err(_) => Ok(None),
    }
}

/// The path of an entry inside its package: a tar has all of it in one folder, `serde-1.0.0/` or `package/`.
fn inside(name: &str) -> &str {
    name.trim_start_matches("./")
}

/// Returns the next entry, and the bytes that it takes.
fn tar_step(
    tar: &mut Tar,
    bytes_max: u64,
    wants: fn(&str) -> bool,
) -> Result<(Next, u64), &'static str> {
    let Some(entry) = tar.next()? else { return Ok((Next::End, 0)) };
    let Entry { start, bytes, .. } = entry;
    let is_wanted = entry.is_file() && wants(&entry.name);
    if is_wanted && bytes <= bytes_max {
        let content = tar.content(&entry)?;
        return Ok((Next::File { name: entry.name, start, bytes: content }, bytes));
    }
    let before = tar.position();
    if bytes > u64::MAX / 2 {
        return Err("too_large");
    }
    tar.skip(bytes)?;
    let passed = tar.position() - before;
    let next =
        if is_wanted { Next::TooLarge { name: entry.name, start, bytes } } else { Next::Nothing };
    Ok((next, passed))
}

fn zip_step(zip: &mut Zip, bytes_max: u64, wants: fn(&str) -> bool) -> Result<Next, Damage> {
    if zip.next == zip.package.len() {
        return Ok(Next::End);
    }
    let index = zip.next;
    zip.next += 1;
    let refuse = |at, error: ZipError| Damage { at, reason: reason(&error) };
    let raw = zip.package.by_index_raw(index).map_err(|error| refuse(0, error))?;
    let start = raw.header_start();
    let name = raw.name().map_err(|error| refuse(start, error))?.into_owned();
    let is_file = !raw.is_dir() && !raw.is_symlink();
    let is_encrypted = raw.encrypted();
    drop(raw);
    if !zip.seen.insert(start) {
        // A place inside the entry that was read: the locator of its own is taken.
        return Err(Damage { at: start + 1, reason: "overlapping_entries" });
    }
    if !is_file || !wants(&name) {
        return Ok(Next::Nothing);
    }
    if is_encrypted {
        return Err(Damage { at: start, reason: "encrypted" });
    }
    let entry = zip.package.by_index(index).map_err(|error| refuse(start, error))?;
    let mut bytes = Vec::new();
    // The size that the entry states is not believed.
    let read = entry.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|_| Damage { at: start, reason: "bad_zip" })?;
    let n = bytes.len() as u64;
    Ok(if n > bytes_max {
        Next::TooLarge { name, start, bytes: n }
    } else {
        Next::File { name, start, bytes }
    })
}

fn reason(error: &ZipError) -> &'static str {
    match error {
        ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED) => "encrypted",
        ZipError::UnsupportedArchive(_) | ZipError::CompressionMethodNotSupported(_) => {
            "unknown_compression"
        }
        _ => "bad_zip",
    }
}

/// Tells bytes that are no zip file from a disk that fails.
fn is_about_content(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Other
    )
}
