//! Objects of a repository, loose and packed, found by their ids. Nothing is kept in memory but what was unpacked last.
//!
//! Sources: gitformat-pack(5), versions 2 of packs and of their indices; gitformat-loose; gitrepository-layout(5).

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::ZlibDecoder;

use crate::{Error, Result};

/// Bytes of an id.
const ID_BYTES: usize = 20;
/// Deltas on top of each other, at most; git itself makes 4,095 at the most.
const CHAIN_MAX: usize = 4096;
/// Bytes of an object that others are deltas of, at most.
const BASE_BYTES_MAX: u64 = 256 << 20;
/// Bytes of unpacked objects that are kept, because the next object is often a delta of one of them.
const CACHE_BYTES_MAX: usize = 64 << 20;
/// Repositories that borrow objects from each other, at most.
const ALTERNATES_MAX: usize = 16;

/// The SHA-1 of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id([u8; ID_BYTES]);

impl Id {
    /// Reads forty hexadecimal digits.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 2 * ID_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut id = [0; ID_BYTES];
        for (byte, digits) in id.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(id))
    }

    /// The id in the first bytes of `bytes`.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().copied().map(Self)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Commit,
    Tree,
    Blob,
    Tag,
}

/// Why an object cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Missing,
    Damaged,
    /// It has so many bytes.
    TooLarge(u64),
}

/// The objects of a repository and of those that it borrows from.
pub(super) struct Objects {
    folders: Vec<PathBuf>,
    packs: Vec<Pack>,
    cache: RefCell<Cache>,
}

/// Number of a pack, and where an object lies in it.
type Place = (usize, u64);

#[derive(Default)]
struct Cache {
    objects: HashMap<Place, (Kind, Arc<[u8]>)>,
    bytes: usize,
}

struct Pack {
    index: File,
    pack: File,
    /// Numbers of objects whose id begins with at most this byte.
    fanout: Vec<u32>,
}

impl Objects {
    /// Opens `folder`, the `objects` of a repository.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let mut folders = vec![folder.to_owned()];
        let mut n_read = 0;
        while n_read < folders.len() && folders.len() < ALTERNATES_MAX {
            let alternates = folders[n_read].join("info/alternates");
            let text = fs::read_to_string(alternates).unwrap_or_default();
            let found = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
            let found: Vec<PathBuf> = found.map(|line| folders[n_read].join(line)).collect();
            folders.extend(found.into_iter().filter(|folder| folder.is_dir()));
            n_read += 1;
        }
        let mut packs = Vec::new();
        for folder in &folders {
            let mut names: Vec<PathBuf> = match fs::read_dir(folder.join("pack")) {
                Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
                Err(_) => continue,
            };
            names.retain(|path| path.extension().is_some_and(|extension| extension == "idx"));
            names.sort();
            for path in names {
                packs.push(Pack::open(&path)?);
            }
        }
        Ok(Self { folders, packs, cache: RefCell::default() })
    }

    /// Reads an object of at most `bytes_max` bytes.
    pub(super) fn read(&self, id: Id, bytes_max: u64) -> Result<(Kind, Vec<u8>), Refusal> {
        for (number, pack) in self.packs.iter().enumerate() {
            if let Some(offset) = pack.find(id).map_err(|_| Refusal::Damaged)? {
                let (kind, bytes) = self.unpack(number, offset, bytes_max)?;
                return Ok((kind, bytes.to_vec()));
            }
        }
        self.read_loose(id, bytes_max)
    }

    /// Whether there is an object of this id.
    pub(super) fn has(&self, id: Id) -> bool {
        self.packs.iter().any(|pack| matches!(pack.find(id), Ok(Some(_))))
            || self.open_loose(id).is_some()
    }

    fn open_loose(&self, id: Id) -> Option<File> {
        let name = id.to_string();
        let below = Path::new(&name[..2]).join(&name[2..]);
        self.folders.iter().find_map(|folder| File::open(folder.join(&below)).ok())
    }

    fn read_loose(&self, id: Id, bytes_max: u64) -> Result<(Kind, Vec<u8>), Refusal> {
        let file = self.open_loose(id).ok_or(Refusal::Missing)?;
        let mut input = BufReader::new(ZlibDecoder::new(BufReader::new(file)));
        // `blob 12\0`
        let mut head = Vec::new();
        let limited = (&mut input).take(32);
        let read = io::BufRead::read_until(&mut BufReader::with_capacity(1, limited), 0, &mut head);
        read.map_err(|_| Refusal::Damaged)?;
        let head = head.strip_suffix(b"\0").and_then(|head| std::str::from_utf8(head).ok());
        let (kind, size) = head.and_then(|head| head.split_once(' ')).ok_or(Refusal::Damaged)?;
        let size: u64 = size.parse().map_err(|_| Refusal::Damaged)?;
        let kind = match kind {
            "commit" => Kind::Commit,
            "tree" => Kind::Tree,
            "blob" => Kind::Blob,
            "tag" => Kind::Tag,
            _ => return Err(Refusal::Damaged),
        };
        if size > bytes_max {
            return Err(Refusal::TooLarge(size));
        }
        Ok((kind, exactly(input, size)?))
    }

    /// Unpacks the object at `offset`: from the object that it is a delta of, if it is one, up to it.
    fn unpack(
        &self,
        number: usize,
        offset: u64,
        bytes_max: u64,
    ) -> Result<(Kind, Arc<[u8]>), Refusal> {
        let pack = &self.packs[number];
        let mut offset = offset;
        let mut deltas = Vec::new();
        let (kind, mut bytes) = loop {
            if let Some((kind, bytes)) = self.cache.borrow().objects.get(&(number, offset)) {
                break (*kind, Arc::clone(bytes));
            }
            // Only the object that was asked for is held to the caller's limit.
            let limit = if deltas.is_empty() { bytes_max } else { BASE_BYTES_MAX };
            match pack.entry(offset).map_err(|_| Refusal::Damaged)? {
                Entry::Whole { size, .. } if size > limit => return Err(Refusal::TooLarge(size)),
                Entry::Whole { kind, size, start } => {
                    let bytes: Arc<[u8]> = pack.inflate(start, size)?.into();
                    self.keep((number, offset), kind, &bytes);
                    break (kind, bytes);
                }
                Entry::Delta { base, size, start } => {
                    let delta = pack.inflate(start, size.min(BASE_BYTES_MAX))?;
                    let result = delta_result_bytes(&delta).ok_or(Refusal::Damaged)?;
                    if result > limit {
                        return Err(Refusal::TooLarge(result));
                    }
                    deltas.push((offset, delta));
                    offset = match base {
                        Base::Offset(base) => base,
                        Base::Id(id) => match pack.find(id) {
                            Ok(Some(base)) => base,
                            _ => return Err(Refusal::Damaged),
                        },
                    };
                }
            }
            if deltas.len() > CHAIN_MAX {
                return Err(Refusal::Damaged);
            }
        };
        while let Some((offset, delta)) = deltas.pop() {
            bytes = apply(&bytes, &delta).ok_or(Refusal::Damaged)?.into();
            self.keep((number, offset), kind, &bytes);
        }
        if bytes.len() as u64 > bytes_max {
            return Err(Refusal::TooLarge(bytes.len() as u64));
        }
        Ok((kind, bytes))
    }

    fn keep(&self, place: Place, kind: Kind, bytes: &Arc<[u8]>) {
        let mut cache = self.cache.borrow_mut();
        if cache.bytes + bytes.len() > CACHE_BYTES_MAX {
            *cache = Cache::default();
        }
        if bytes.len() <= CACHE_BYTES_MAX / 8 {
            cache.bytes += bytes.len();
            cache.objects.insert(place, (kind, Arc::clone(bytes)));
        }
    }
}

/// What lies in a pack at some place.
enum Entry {
    Whole { kind: Kind, size: u64, start: u64 },
    Delta { base: Base, size: u64, start: u64 },
}

enum Base {
    Offset(u64),
    Id(Id),
}

impl Pack {
    const MAGIC: [u8; 8] = [0xff, b't', b'O', b'c', 0, 0, 0, 2];
    const FANOUT: u64 = 256 * 4;

    fn open(path: &Path) -> Result<Self> {
        let index = File::open(path).map_err(Error::io("open", path))?;
        let mut head = vec![0; Self::MAGIC.len() + 1024];
        let hint = "`git index-pack` makes it anew, `git repack -a` all of them".to_owned();
        let refuse = |why: &str| Error::Format {
            path: path.to_owned(),
            why: why.to_owned(),
            hint: hint.clone(),
        };
        index.read_exact_at(&mut head, 0).map_err(|_| refuse("it ends within its first table"))?;
        if head[..8] != Self::MAGIC {
            return Err(refuse("it is no index of version 2"));
        }
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
        let fanout: Vec<u32> = head[8..].chunks(4).map(number).collect();
        if !fanout.is_sorted() {
            return Err(refuse("its first table is not in order"));
        }
        let path = path.with_extension("pack");
        let pack = File::open(&path).map_err(Error::io("open", &path))?;
        Ok(Self { index, pack, fanout })
    }

    /// Returns where the object lies in the pack, by halving the table of ids.
    fn find(&self, id: Id) -> io::Result<Option<u64>> {
        let first = usize::from(id.0[0]);
        let mut low = if first == 0 { 0 } else { u64::from(self.fanout[first - 1]) };
        let mut high = u64::from(self.fanout[first]);
        let n_objects = u64::from(self.fanout[255]);
        let ids = Self::MAGIC.len() as u64 + Self::FANOUT;
        let mut found = [0; ID_BYTES];
        while low < high {
            let middle = low.midpoint(high);
            self.index.read_exact_at(&mut found, ids + middle * ID_BYTES as u64)?;
            match found.cmp(&id.0) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    // Behind the ids stand checksums, then offsets of 31 bits, then those that need 64.
                    let offsets = ids + n_objects * (ID_BYTES as u64 + 4);
                    let mut offset = [0; 4];
                    self.index.read_exact_at(&mut offset, offsets + middle * 4)?;
                    let offset = u32::from_be_bytes(offset);
                    if offset & 0x8000_0000 == 0 {
                        return Ok(Some(u64::from(offset)));
                    }
                    let mut large = [0; 8];
                    let at = offsets + n_objects * 4 + u64::from(offset & 0x7fff_ffff) * 8;
                    self.index.read_exact_at(&mut large, at)?;
                    return Ok(Some(u64::from_be_bytes(large)));
                }
            }
        }
        Ok(None)
    }

    fn entry(&self, offset: u64) -> io::Result<Entry> {
        let mut head = [0; 32];
        let n = read_at(&self.pack, &mut head, offset)?;
        let mut bytes = head[..n].iter().copied();
        let mut next = || bytes.next().ok_or(io::ErrorKind::UnexpectedEof);
        let first = next()?;
        let mut used = 1;
        let mut size = u64::from(first & 0x0f);
        let mut more = first & 0x80 != 0;
        let mut shift = 4;
        while more {
            let byte = next()?;
            used += 1;
            if shift > 56 {
                return Err(io::ErrorKind::InvalidData.into());
            }
            size |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            more = byte & 0x80 != 0;
        }
        let kind = match (first >> 4) & 7 {
            1 => Kind::Commit,
            2 => Kind::Tree,
            3 => Kind::Blob,
            4 => Kind::Tag,
            6 => {
                let mut byte = next()?;
                used += 1;
                let mut back = u64::from(byte & 0x7f);
                while byte & 0x80 != 0 {
                    byte = next()?;
                    used += 1;
                    let shifted = back.checked_add(1).and_then(|back| back.checked_mul(128));
                    back = shifted.ok_or(io::ErrorKind::InvalidData)? | u64::from(byte & 0x7f);
                }
                let base = offset
                    .checked_sub(back)
                    .filter(|_| back > 0)
                    .ok_or(io::ErrorKind::InvalidData)?;
                return Ok(Entry::Delta { base: Base::Offset(base), size, start: offset + used });
            }
            7 => {
                let at = usize::try_from(used).expect("some bytes");
                let id =
                    head.get(at..n).and_then(Id::from_bytes).ok_or(io::ErrorKind::UnexpectedEof)?;
                let start = offset + used + ID_BYTES as u64;
                return Ok(Entry::Delta { base: Base::Id(id), size, start });
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        Ok(Entry::Whole { kind, size, start: offset + used })
    }

    fn inflate(&self, start: u64, size: u64) -> Result<Vec<u8>, Refusal> {
        let capacity = usize::try_from(size.clamp(64, 64 << 10)).expect("it is clamped");
        let input = BufReader::with_capacity(capacity, At { file: &self.pack, offset: start });
        exactly(ZlibDecoder::new(input), size)
    }
}

/// Reads `size` bytes, no more and no less.
fn exactly(input: impl Read, size: u64) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    input.take(size + 1).read_to_end(&mut bytes).map_err(|_| Refusal::Damaged)?;
    if bytes.len() as u64 == size { Ok(bytes) } else { Err(Refusal::Damaged) }
}

/// A file from some place on.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(out, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

/// Fills `out` as far as the file goes.
fn read_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut n = 0;
    while n < out.len() {
        match file.read_at(&mut out[n..], offset + n as u64)? {
            0 => break,
            read => n += read,
        }
    }
    Ok(n)
}

/// A number of seven bits a byte, the lowest first.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Bytes of what a delta makes.
fn delta_result_bytes(delta: &[u8]) -> Option<u64> {
    let mut rest = delta;
    number(&mut rest)?;
    number(&mut rest)
}

/// Makes an object of `base` by copies of its parts and new bytes.
fn apply(base: &[u8], delta: &[u8]) -> Option<Vec<u8>> {
    let mut rest = delta;
    let base_bytes = number(&mut rest)?;
    let result_bytes = usize::try_from(number(&mut rest)?).ok()?;
    if base_bytes != base.len() as u64 {
        return None;
    }
    let mut out = Vec::with_capacity(result_bytes);
    while let Some((&instruction, after)) = rest.split_first() {
        rest = after;
        if instruction & 0x80 == 0 {
            // New bytes; an instruction of zero is reserved.
            let (new, after) = rest.split_at_checked(usize::from(instruction))?;
            if new.is_empty() {
                return None;
            }
            out.extend_from_slice(new);
            rest = after;
        } else {
            let (mut offset, mut n) = (0, 0);
            for bit in 0..7 {
                if instruction & (1 << bit) != 0 {
                    let (&byte, after) = rest.split_first()?;
                    rest = after;
                    if bit < 4 {
                        offset |= usize::from(byte) << (8 * bit);
                    } else {
                        n |= usize::from(byte) << (8 * (bit - 4));
                    }
                }
            }
            let n = if n == 0 { 0x10000 } else { n };
            out.extend_from_slice(base.get(offset..offset.checked_add(n)?)?);
        }
        if out.len() > result_bytes {
            return None;
        }
    }
    (out.len() == result_bytes).then_some(out)
}
