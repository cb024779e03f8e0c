//! MosaicML's streaming shards with a column `tokens`: arrays of whole numbers, or bytes of 64-bit ones.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{
    Document, Error, ImportKind, Opened, Result, Settings, Splits, numbers, refused, tokens,
};
use crate::schema::ID_BYTES;
use crate::store;

pub(super) const KIND: ImportKind = ImportKind {
    name: "mds",
    summary: "a folder with `index.json`, or one per split; ids of a column `document_id` are kept",
    source: "mosaicml-streaming 0.13, streaming/base/format/mds/reader.py, version 2; bytes as LLM Foundry writes them",
    splits,
    open,
};

const INDEX: &str = "index.json";

#[derive(Deserialize)]
struct Index {
    version: u32,
    shards: Vec<Shard>,
}

#[derive(Clone, Deserialize)]
struct Shard {
    column_names: Vec<String>,
    column_encodings: Vec<String>,
    column_sizes: Vec<Option<u32>>,
    compression: Option<String>,
    raw_data: RawData,
    samples: u32,
}

#[derive(Clone, Deserialize)]
struct RawData {
    basename: String,
    bytes: u64,
}

fn splits(path: &Path) -> Result<Splits> {
    if path.join(INDEX).is_file() {
        return Ok(vec![("train".to_owned(), path.to_owned())]);
    }
    let mut found: Splits = store::list(path)?
        .into_iter()
        .map(|name| (name.clone(), path.join(name)))
        .filter(|(_, path)| path.join(INDEX).is_file())
        .collect();
    found.sort_by_key(|(name, _)| (name != "train", name.clone()));
    match found.is_empty() {
        false => Ok(found),
        true => Err(Error::Missing {
            what: format!("`{INDEX}` in `{}` or a folder of it", path.display()),
            hint: "name the folder that holds it".to_owned(),
        }),
    }
}

fn open(path: &Path, _: &Settings) -> Result<Opened> {
    let place = path.join(INDEX);
    let bytes = fs::read(&place).map_err(Error::io("read", &place))?;
    let index: Index = serde_json::from_slice(&bytes).map_err(|error| {
        refused(&place, error.to_string(), "name a folder that MosaicML's MDSWriter wrote")
    })?;
    if index.version != 2 {
        let why = format!("it has version {}, this build reads 2", index.version);
        return Err(refused(&place, why, "write it again with a newer streaming library"));
    }
    let mut files = vec![place.clone()];
    let mut layouts = Vec::with_capacity(index.shards.len());
    for shard in index.shards {
        let name = &shard.raw_data.basename;
        if name.contains(['/', '\\']) || name == ".." {
            return Err(refused(&place, format!("`{name}` is no name"), "check the index"));
        }
        let file = path.join(name);
        layouts.push(Layout::of(&shard, &place)?);
        let found = fs::metadata(&file).map_err(Error::io("read", &file))?.len();
        if found != shard.raw_data.bytes {
            let why = format!("it has {found} bytes, the index says {}", shard.raw_data.bytes);
            return Err(refused(&file, why, "copy the file again"));
        }
        files.push(file);
    }
    let shards: Vec<_> = files[1..].iter().cloned().zip(layouts).collect();
    let documents = shards.into_iter().flat_map(|(path, layout)| Samples::open(path, layout));
    Ok(Opened { files, documents: Box::new(documents) })
}

/// Where the tokens are in a sample.
#[derive(Clone, Debug)]
struct Layout {
    sizes: Vec<Option<u32>>,
    tokens: usize,
    width: usize,
    /// An array says its shape first.
    has_shape: bool,
    document_id: Option<usize>,
    n: u32,
}

impl Layout {
    fn of(shard: &Shard, place: &Path) -> Result<Self> {
        let refuse = |why: String, hint: &str| Err(refused(place, why, hint));
        if let Some(compression) = &shard.compression {
            let why = format!("its shards are compressed with `{compression}`");
            return refuse(why, "unpack them with the streaming library first");
        }
        let find = |name: &str| shard.column_names.iter().position(|column| column == name);
        let columns = shard.column_names.join("`, `");
        let Some(at) = find("tokens") else {
            let why = format!("its columns are `{columns}`, `tokens` is not among them");
            return refuse(why, "import a dataset of tokens");
        };
        if find(crate::schema::LOSS_MASK).is_some() {
            let why = "it has a column `loss_mask`, and imports are without masks".to_owned();
            return refuse(why, "use the dataset that it was exported from");
        }
        let (width, has_shape) = match shard.column_encodings[at].as_str() {
            "bytes" => (8, false),
            "ndarray:uint16" => (2, true),
            "ndarray:uint32" | "ndarray:int32" => (4, true),
            "ndarray:int64" | "ndarray:uint64" => (8, true),
            other => {
                let why = format!("its column `tokens` is `{other}`");
                return refuse(why, "known are `bytes` of int64, and `ndarray` of uint16 to int64");
            }
        };
        let document_id =
            find("document_id").filter(|column| shard.column_encodings[*column] == "str");
        let sizes = shard.column_sizes.clone();
        Ok(Self { sizes, tokens: at, width, has_shape, document_id, n: shard.samples })
    }
}

struct Samples {
    path: PathBuf,
    file: BufReader<File>,
    layout: Layout,
    ends: std::vec::IntoIter<u64>,
    at: u64,
}

impl Samples {
    fn open(path: PathBuf, layout: Layout) -> Box<dyn Iterator<Item = Result<Document>>> {
        match Self::try_open(path, layout) {
            Ok(samples) => Box::new(samples),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }

    fn try_open(path: PathBuf, layout: Layout) -> Result<Self> {
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let mut file = BufReader::with_capacity(1 << 20, file);
        let mut head = vec![0; 4 * (layout.n as usize + 2)];
        file.read_exact(&mut head).map_err(Error::io("read", &path))?;
        let mut head = numbers(&head, 4);
        let n = head.next().expect("read above");
        if n != u64::from(layout.n) {
            let why = format!("it has {n} samples, the index says {}", layout.n);
            return Err(refused(&path, why, "copy the file again"));
        }
        let first = head.next().expect("read above");
        let ends: Vec<u64> = head.collect();
        // The columns are described once more before the samples.
        let skipped = first.saturating_sub(4 * (n + 2));
        std::io::copy(&mut (&mut file).take(skipped), &mut std::io::sink())
            .map_err(Error::io("read", &path))?;
        Ok(Self { path, file, layout, ends: ends.into_iter(), at: first })
    }

    fn document(&mut self, end: u64) -> Result<Document> {
        let torn =
            || refused(&self.path, "a sample is not as its head says".into(), "write it again");
        let n = usize::try_from(end.checked_sub(self.at).ok_or_else(torn)?).expect("below 4 GiB");
        self.at = end;
        let mut sample = vec![0; n];
        self.file.read_exact(&mut sample).map_err(Error::io("read", &self.path))?;
        let n_dynamic = self.layout.sizes.iter().filter(|size| size.is_none()).count();
        let (head, mut body) = sample.split_at_checked(4 * n_dynamic).ok_or_else(torn)?;
        let mut dynamic = numbers(head, 4);
        let (mut id, mut values) = (None, &body[..0]);
        for (column, size) in self.layout.sizes.iter().enumerate() {
            let size = size.map_or_else(|| dynamic.next().expect("counted above"), u64::from);
            let size = usize::try_from(size).expect("32 bits");
            let (part, rest) = body.split_at_checked(size).ok_or_else(torn)?;
            body = rest;
            if column == self.layout.tokens {
                values = part;
            } else if Some(column) == self.layout.document_id {
                id = std::str::from_utf8(part).ok().and_then(parse_id);
            }
        }
        if self.layout.has_shape {
            values = without_shape(values).ok_or_else(torn)?;
        }
        Ok(Document { tokens: tokens(values, self.layout.width, &self.path)?, id })
    }
}

impl Iterator for Samples {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = self.ends.next()?;
        Some(self.document(end))
    }
}

/// The values of an array of one dimension.
fn without_shape(array: &[u8]) -> Option<&[u8]> {
    let (head, rest) = array.split_first()?;
    let width = match head {
        4 => 1,
        5 => 2,
        6 => 4,
        7 => 8,
        _ => return None,
    };
    rest.get(width..)
}

fn parse_id(text: &str) -> Option<[u8; ID_BYTES as usize]> {
    let is_id = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(u128::to_be_bytes)
}
