//! Safetensors files: one, or several under an index, read tensor by tensor and written whole.
//!
//! Reading goes straight from the file into the tensor's memory. Formats that can carry code (pickle) are refused
//! by name.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use safetensors::tensor::Metadata;
use safetensors::{Dtype, View};
use serde::Deserialize;
use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::torch;

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
/// The longest header that is read: the format's own limit.
const HEADER_BYTES_MAX: u64 = 100_000_000;

/// Where tensors are found by name.
pub trait Tensors: std::fmt::Debug {
    /// The names of all tensors, sorted.
    fn names(&self) -> Vec<&str>;

    /// The shape of the tensor called `name`.
    fn shape(&self, name: &str) -> Option<&[i64]>;

    /// The files, for messages.
    fn place(&self) -> String;

    /// Reads the tensor called `name` onto the CPU.
    ///
    /// # Errors
    /// [`Error::Unusable`] when it is absent or of a kind that is not supported.
    fn tensor(&self, name: &str) -> Result<Tensor>;
}

impl Tensors for WeightFiles {
    fn names(&self) -> Vec<&str> {
        self.names().collect()
    }
    fn shape(&self, name: &str) -> Option<&[i64]> {
        self.shape(name)
    }
    fn place(&self) -> String {
        self.place()
    }
    fn tensor(&self, name: &str) -> Result<Tensor> {
        self.tensor(name)
    }
}

/// The tensors of one or more safetensors files, by name.
#[derive(Debug)]
pub struct WeightFiles {
    files: Vec<(PathBuf, File)>,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<i64>,
    offset: u64,
    n_bytes: usize,
}

impl WeightFiles {
    /// Opens the weights of a Hugging Face folder: `model.safetensors`, or the files that
    /// `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// [`Error::Unusable`] when there are none, when only a pickle is there, or when a file is damaged.
    pub fn open_folder(folder: &Path) -> Result<Self> {
        let index = folder.join(INDEX);
        if is_file(&index)? {
            return Self::open_index(folder, &index);
        }
        let single = folder.join(SINGLE);
        if is_file(&single)? {
            return Self::open(&single);
        }
        let pickle = ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth"];
        for name in pickle {
            if is_file(&folder.join(name))? {
                return Err(unusable(
                    &folder.join(name),
                    "a pickle can run code when it is read".to_owned(),
                    "convert it with `safetensors` and give the folder with `model.safetensors`",
                ));
            }
        }
        Err(unusable(
            folder,
            format!("it has neither `{SINGLE}` nor `{INDEX}`"),
            "give a Hugging Face folder: config.json beside model.safetensors",
        ))
    }

    /// Opens one safetensors file.
    ///
    /// # Errors
    /// [`Error::Unusable`] when it is no such file, or shorter than its header says.
    pub fn open(path: &Path) -> Result<Self> {
        let mut weights = Self { files: Vec::new(), tensors: BTreeMap::new() };
        weights.add(path)?;
        Ok(weights)
    }

    fn open_index(folder: &Path, index: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let text = std::fs::read_to_string(index).map_err(Error::io("read", index))?;
        let parsed: Index = serde_json::from_str(&text).map_err(|error| {
            unusable(index, error.to_string(), "write the folder again with `save_pretrained`")
        })?;
        let mut weights = Self { files: Vec::new(), tensors: BTreeMap::new() };
        let mut names: Vec<&String> = parsed.weight_map.values().collect();
        names.sort();
        names.dedup();
        for name in names {
            if Path::new(name).components().count() != 1 || name == ".." {
                return Err(unusable(
                    index,
                    format!("it names `{name}`, which is not a file of this folder"),
                    "keep all files of a model in one folder",
                ));
            }
            weights.add(&folder.join(name))?;
        }
        for (tensor, file) in &parsed.weight_map {
            let found = weights.tensors.get(tensor).map(|entry| &weights.files[entry.file].0);
            if found.is_none_or(|path| path.file_name().is_none_or(|name| name != file.as_str())) {
                return Err(unusable(
                    index,
                    format!("it says that `{file}` holds `{tensor}`, which it does not"),
                    "fetch the files of the model again",
                ));
            }
        }
        Ok(weights)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        const AGAIN: &str = "copy or fetch the file again";
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let file_bytes = file.metadata().map_err(Error::io("read", path))?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(Error::io("read", path))?;
        let header_bytes = u64::from_le_bytes(length);
        if header_bytes > HEADER_BYTES_MAX || header_bytes + 8 > file_bytes {
            let why = format!(
                "its header is said to have {header_bytes} bytes, the file has {file_bytes}"
            );
            return Err(unusable(path, why, AGAIN));
        }
        let mut header = Vec::new();
        let taken = file.by_ref().take(header_bytes).read_to_end(&mut header);
        taken.map_err(Error::io("read", path))?;
        // Checks that the tensors cover the data without gaps, and that shapes and kinds fit the sizes.
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| unusable(path, error.to_string(), AGAIN))?;
        let data_start = header_bytes + 8;
        let wanted = data_start + metadata.data_len() as u64;
        if wanted != file_bytes {
            let why = format!("its header promises {wanted} bytes, the file has {file_bytes}");
            return Err(unusable(path, why, AGAIN));
        }
        let index = self.files.len();
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let shape = info.shape.iter().map(|&n| i64::try_from(n).expect("fits: checked above"));
            let entry = Entry {
                file: index,
                dtype: info.dtype,
                shape: shape.collect(),
                offset: data_start + start as u64,
                n_bytes: end - start,
            };
            if self.tensors.insert(name.clone(), entry).is_some() {
                return Err(unusable(path, format!("`{name}` is in two files"), AGAIN));
            }
        }
        self.files.push((path.to_owned(), file));
        Ok(())
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether a tensor of this name is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of the tensor called `name`.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[i64]> {
        self.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    /// The files, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        match self.files.as_slice() {
            [(path, _)] => path.display().to_string(),
            [(path, _), ..] => {
                path.parent().map_or_else(String::new, |folder| folder.display().to_string())
            }
            [] => String::new(),
        }
    }

    /// Reads the tensor called `name` onto the CPU, in the kind in which it is stored.
    ///
    /// # Errors
    /// [`Error::Unusable`] when it is absent or has a kind that libtorch does not know.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let entry = self.tensors.get(name).ok_or_else(|| {
            unusable_at(
                self.place(),
                format!("it has no tensor `{name}`"),
                "compare with config.json",
            )
        })?;
        let (path, file) = &self.files[entry.file];
        let kind = kind_of(entry.dtype).ok_or_else(|| {
            unusable(
                path,
                format!("`{name}` has the kind {:?}", entry.dtype),
                "convert it to float32 or bfloat16",
            )
        })?;
        torch::tensor_from(&entry.shape, kind, |bytes| {
            assert_eq!(bytes.len(), entry.n_bytes, "checked when the header was read");
            file.read_exact_at(bytes, entry.offset).map_err(Error::io("read", path))
        })
    }
}

/// Writes `tensors` to a new safetensors file at `path` and syncs it to disk.
///
/// The bytes depend on names, kinds and values alone, not on the order of `tensors`.
///
/// # Errors
/// [`Error::Io`] when the file cannot be written.
pub fn write(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let views: Vec<(&str, Stored)> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), Stored::new(tensor))).collect();
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(|error| match error {
        safetensors::SafeTensorError::IoError(source) => Error::io("write", path)(source),
        other => unusable(path, other.to_string(), "this is a mistake in the trainer"),
    })?;
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("sync", path))
}

struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    n_bytes: usize,
    tensor: Tensor,
}

impl Stored {
    fn new(tensor: &Tensor) -> Self {
        let size = tensor.size();
        let shape = size.iter().map(|&n| usize::try_from(n).expect("sizes are positive"));
        Self {
            dtype: dtype_of(tensor.kind()),
            shape: shape.collect(),
            n_bytes: tensor.numel() * tensor.kind().elt_size_in_bytes(),
            tensor: tensor.shallow_clone(),
        }
    }
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        // One tensor's copy at a time: the writer drops it before it asks for the next.
        Cow::Owned(torch::Bytes::of(&self.tensor).as_slice().to_vec())
    }
    fn data_len(&self) -> usize {
        self.n_bytes
    }
}

const KINDS: [(Dtype, Kind); 10] = [
    (Dtype::BOOL, Kind::Bool),
    (Dtype::U8, Kind::Uint8),
    (Dtype::I8, Kind::Int8),
    (Dtype::I16, Kind::Int16),
    (Dtype::I32, Kind::Int),
    (Dtype::I64, Kind::Int64),
    (Dtype::F16, Kind::Half),
    (Dtype::BF16, Kind::BFloat16),
    (Dtype::F32, Kind::Float),
    (Dtype::F64, Kind::Double),
];

fn kind_of(dtype: Dtype) -> Option<Kind> {
    KINDS.iter().find(|(d, _)| *d == dtype).map(|(_, kind)| *kind)
}

fn dtype_of(kind: Kind) -> Dtype {
    let found = KINDS.iter().find(|(_, k)| *k == kind).map(|(dtype, _)| *dtype);
    found.unwrap_or_else(|| panic!("{kind:?} is never stored"))
}

pub(crate) fn is_file(path: &Path) -> Result<bool> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_file()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

fn unusable(path: &Path, why: String, hint: &str) -> Error {
    unusable_at(path.display().to_string(), why, hint)
}

fn unusable_at(place: String, why: String, hint: &str) -> Error {
    Error::Unusable { action: "load", what: format!("`{place}`"), why, hint: hint.to_owned() }
}
