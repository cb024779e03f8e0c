//! The file format of fastText, version 12: `.bin` and, product-quantised, `.ftz`.
//!
//! Every size is compared with what is left of the file before anything is allocated for it.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use crate::{Error, Result};

/// `FASTTEXT_FILEFORMAT_MAGIC_INT32`.
const MAGIC: i32 = 793_712_314;
/// The newest version there is; supervised models of version 11 hash no characters.
const VERSION: i32 = 12;
/// Values of a product quantiser's byte.
pub(super) const CENTROIDS: usize = 256;
/// Most values a row may have: published models have 16 to 300.
const MAX_DIM: i32 = 1 << 16;
/// Longest n-gram of characters or words that is believed.
const MAX_NGRAM: i32 = 256;
/// Most buckets that are believed: published models have 2 million.
const MAX_BUCKETS: i32 = 1 << 28;
/// What labels begin with; the format has no field for another prefix.
pub(super) const LABEL_PREFIX: &str = "__label__";

/// How the last layer turns scores into probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// A binary decision at each node of a Huffman tree.
    HierarchicalSoftmax,
    /// An independent sigmoid per label, trained against sampled labels.
    NegativeSampling,
    /// One distribution over all labels.
    Softmax,
    /// An independent sigmoid per label, trained against all labels.
    OneVsAll,
}

impl Loss {
    const CODES: [(i32, Self); 4] = [
        (1, Self::HierarchicalSoftmax),
        (2, Self::NegativeSampling),
        (3, Self::Softmax),
        (4, Self::OneVsAll),
    ];
}

/// The settings in a model file that prediction depends on, and those that are only carried.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    pub dim: usize,
    pub epoch: i32,
    pub min_count: i32,
    pub word_ngrams: usize,
    pub loss: Loss,
    pub buckets: u32,
    pub min_chars: usize,
    pub max_chars: usize,
}

/// Words, then labels, in the order of their rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Entries {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    pub counts: Vec<i64>,
}

impl Entries {
    pub(super) fn push(&mut self, word: &[u8], count: i64) {
        self.bytes.extend_from_slice(word);
        self.ends.push(self.bytes.len());
        self.counts.push(count);
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }
}

/// Rows of numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Matrix {
    /// Row-major values.
    Dense(Vec<f32>),
    /// A byte per part of a row, each the number of a centroid.
    Quantized(Quantized),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Quantized {
    /// `[rows, parts]`
    pub codes: Vec<u8>,
    /// Values of every part but the last, which has the rest.
    pub part_values: usize,
    /// Values of a row.
    pub dim: usize,
    /// 256 centroids of the first part, then of the next.
    pub centroids: Vec<f32>,
    /// Number of each row's norm and the 256 norms.
    pub norms: Option<(Vec<u8>, Vec<f32>)>,
}

impl Quantized {
    pub(super) fn parts(&self) -> usize {
        self.dim.div_ceil(self.part_values)
    }

    /// Calls `each` with the place and values of every part of a row.
    pub(super) fn for_parts(&self, row: usize, mut each: impl FnMut(usize, &[f32])) {
        let parts = self.parts();
        for (part, &code) in self.codes[row * parts..][..parts].iter().enumerate() {
            let place = part * self.part_values;
            let width = self.part_values.min(self.dim - place);
            let start = place * CENTROIDS + usize::from(code) * width;
            each(place, &self.centroids[start..start + width]);
        }
    }

    pub(super) fn norm(&self, row: usize) -> f32 {
        self.norms.as_ref().map_or(1.0, |(codes, norms)| norms[usize::from(codes[row])])
    }
}

/// A model as it is stored: what training makes and prediction is built from.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFile {
    pub(super) header: Header,
    pub(super) entries: Entries,
    /// Entries that are words; the others are labels.
    pub(super) n_words: usize,
    pub(super) n_tokens: i64,
    /// Bucket and row behind the words for each bucket that was kept, where not all were.
    pub(super) kept_buckets: Option<Vec<(u32, u32)>>,
    pub(super) input: Matrix,
    pub(super) output: Matrix,
}

impl ModelFile {
    /// Reads the model at `path` into memory.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Format`] when it is no supervised fastText model, is cut
    /// short, or contradicts itself.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let bytes = file.metadata().map_err(Error::io("read", path))?.len();
        Self::read(BufReader::with_capacity(1 << 16, file), bytes, path)
    }

    /// Reads a model of `bytes` bytes from `source`; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`ModelFile::open`].
    pub fn read(source: impl BufRead, bytes: u64, name: &Path) -> Result<Self> {
        let mut source = Source { inner: source, left: bytes };
        read(&mut source).map_err(|why| match why {
            Wrong::Io(error) => Error::io("read", name)(error),
            Wrong::Content(why) => Error::Format {
                path: name.to_owned(),
                why,
                hint: "a supervised fastText model (`.bin` or `.ftz`) is needed".to_owned(),
            },
        })
    }

    /// Writes the model as the reference does.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn write(&self, mut sink: impl Write) -> io::Result<()> {
        let header = &self.header;
        let n_labels = self.entries.len() - self.n_words;
        let code = Loss::CODES.iter().find(|(_, loss)| *loss == header.loss);
        let loss = code.expect("every loss has a code").0;
        for value in [MAGIC, VERSION, int(header.dim), 5, header.epoch, header.min_count, 5] {
            sink.write_all(&value.to_le_bytes())?;
        }
        let buckets = int(header.buckets as usize);
        let chars = [int(header.min_chars), int(header.max_chars)];
        for value in [int(header.word_ngrams), loss, 3, buckets, chars[0], chars[1], 100] {
            sink.write_all(&value.to_le_bytes())?;
        }
        sink.write_all(&1e-4_f64.to_le_bytes())?;
        for count in [self.entries.len(), self.n_words, n_labels] {
            sink.write_all(&int(count).to_le_bytes())?;
        }
        sink.write_all(&self.n_tokens.to_le_bytes())?;
        let kept = self.kept_buckets.as_ref().map_or(-1, |kept| i64::from(int(kept.len())));
        sink.write_all(&kept.to_le_bytes())?;
        for index in 0..self.entries.len() {
            sink.write_all(self.entries.get(index))?;
            sink.write_all(&[0])?;
            sink.write_all(&self.entries.counts[index].to_le_bytes())?;
            sink.write_all(&[u8::from(index >= self.n_words)])?;
        }
        for (bucket, row) in self.kept_buckets.iter().flatten() {
            sink.write_all(&bucket.to_le_bytes())?;
            sink.write_all(&row.to_le_bytes())?;
        }
        self.input.write(&mut sink, header.dim)?;
        self.output.write(&mut sink, header.dim)
    }
}

/// Sizes in a file are signed; ours were checked when they were made or read.
fn int(size: usize) -> i32 {
    i32::try_from(size).expect("sizes of a model are below 2^31")
}

impl Matrix {
    fn write(&self, sink: &mut impl Write, dim: usize) -> io::Result<()> {
        let floats = |values: &[f32], sink: &mut dyn Write| {
            values.iter().try_for_each(|value| sink.write_all(&value.to_le_bytes()))
        };
        let shape = |rows: usize, sink: &mut dyn Write| {
            sink.write_all(&i64::from(int(rows)).to_le_bytes())?;
            sink.write_all(&i64::from(int(dim)).to_le_bytes())
        };
        let quantizer = |dim: usize, part: usize, sink: &mut dyn Write| {
            let rest = dim - (dim.div_ceil(part) - 1) * part;
            [dim, dim.div_ceil(part), part, rest]
                .iter()
                .try_for_each(|&size| sink.write_all(&int(size).to_le_bytes()))
        };
        match self {
            Self::Dense(values) => {
                sink.write_all(&[0])?;
                shape(values.len() / dim, sink)?;
                floats(values, sink)
            }
            Self::Quantized(q) => {
                sink.write_all(&[1, u8::from(q.norms.is_some())])?;
                shape(q.codes.len() / q.parts(), sink)?;
                sink.write_all(&int(q.codes.len()).to_le_bytes())?;
                sink.write_all(&q.codes)?;
                quantizer(dim, q.part_values, sink)?;
                floats(&q.centroids, sink)?;
                let Some((codes, norms)) = &q.norms else { return Ok(()) };
                sink.write_all(codes)?;
                quantizer(1, 1, sink)?;
                floats(norms, sink)
            }
        }
    }
}

enum Wrong {
    Io(io::Error),
    Content(String),
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Content("it ends too early".to_owned()),
            _ => Self::Io(error),
        }
    }
}

fn wrong<T>(why: String) -> Result<T, Wrong> {
    Err(Wrong::Content(why))
}

/// A file and how much of it is left.
struct Source<R> {
    inner: R,
    left: u64,
}

impl<R: BufRead> Source<R> {
    /// Takes `n` times `width` bytes off what is left.
    fn claim(&mut self, what: &str, n: usize, width: usize) -> Result<(), Wrong> {
        let wanted = (n as u64).checked_mul(width as u64);
        match wanted.and_then(|wanted| self.left.checked_sub(wanted)) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => wrong(format!(
                "{what} takes {n} times {width} bytes, {} are left of the file",
                self.left
            )),
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Wrong> {
        self.claim(what, 1, N)?;
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn int(&mut self, what: &str) -> Result<i32, Wrong> {
        Ok(i32::from_le_bytes(self.array(what)?))
    }

    fn long(&mut self, what: &str) -> Result<i64, Wrong> {
        Ok(i64::from_le_bytes(self.array(what)?))
    }

    fn flag(&mut self, what: &str) -> Result<bool, Wrong> {
        match self.array(what)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [byte] => wrong(format!("{what} is {byte}, 0 or 1 is needed")),
        }
    }

    /// Reads a number between `least` and `most`.
    fn size(&mut self, what: &str, least: i32, most: i32) -> Result<usize, Wrong> {
        let value = self.int(what)?;
        match usize::try_from(value) {
            Ok(size) if (least..=most).contains(&value) => Ok(size),
            _ => wrong(format!("{what} is {value}, allowed is {least} to {most}")),
        }
    }

    fn bytes(&mut self, what: &str, n: usize) -> Result<Vec<u8>, Wrong> {
        self.claim(what, n, 1)?;
        let mut bytes = vec![0; n];
        self.inner.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn floats(&mut self, what: &str, n: usize) -> Result<Vec<f32>, Wrong> {
        self.claim(what, n, 4)?;
        let mut floats = Vec::with_capacity(n);
        let mut piece = [0_u8; 1 << 14];
        while floats.len() < n {
            let bytes = &mut piece[..((n - floats.len()) * 4).min(1 << 14)];
            self.inner.read_exact(bytes)?;
            let values = bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four));
            floats.extend(values);
        }
        if floats.iter().any(|value| !value.is_finite()) {
            return wrong(format!("{what} holds numbers that are not finite"));
        }
        Ok(floats)
    }

    /// Reads up to the next zero byte into `word`.
    fn word(&mut self, word: &mut Vec<u8>) -> Result<(), Wrong> {
        word.clear();
        let n = (&mut self.inner).take(self.left).read_until(0, word)?;
        self.claim("a word", n, 1)?;
        if word.pop() != Some(0) {
            return wrong("a word has no end".to_owned());
        }
        Ok(())
    }
}

fn read(source: &mut Source<impl BufRead>) -> Result<ModelFile, Wrong> {
    let magic = source.int("the magic number")?;
    if magic != MAGIC {
        return wrong(format!("it begins with {magic}, a fastText model with {MAGIC}"));
    }
    let version = source.int("the version")?;
    if !(11..=VERSION).contains(&version) {
        return wrong(format!("it is of version {version}, 11 and {VERSION} are understood"));
    }
    let mut header = read_header(source)?;
    if version == 11 {
        header.max_chars = 0;
    }
    let n_entries = source.size("the number of entries", 1, i32::MAX)?;
    let n_words = source.size("the number of words", 0, i32::MAX)?;
    let n_labels = source.size("the number of labels", 1, i32::MAX)?;
    if n_words + n_labels != n_entries {
        return wrong(format!("{n_words} words and {n_labels} labels are not {n_entries} entries"));
    }
    let n_tokens = source.long("the number of tokens")?;
    let n_kept = source.long("the number of kept buckets")?;
    let entries = read_entries(source, n_words, n_entries)?;
    let kept_buckets = read_kept(source, n_kept, header.buckets)?;
    let n_rows = kept_buckets.as_ref().map_or(header.buckets as usize, Vec::len) + n_words;

    let is_quantized = source.flag("the kind of the input")?;
    if !is_quantized && kept_buckets.is_some() {
        return wrong("it is pruned without being quantised, which fastText refuses".to_owned());
    }
    let input = read_matrix(source, "the input", is_quantized, n_rows, header.dim)?;
    let is_output_quantized = source.flag("the kind of the output")? && is_quantized;
    let output = read_matrix(source, "the output", is_output_quantized, n_labels, header.dim)?;
    if source.left > 0 {
        return wrong(format!("{} bytes follow the end of the model", source.left));
    }
    Ok(ModelFile { header, entries, n_words, n_tokens, kept_buckets, input, output })
}

fn read_header(source: &mut Source<impl BufRead>) -> Result<Header, Wrong> {
    let dim = source.size("the dimension", 1, MAX_DIM)?;
    source.int("the window")?;
    let epoch = source.int("the number of epochs")?;
    let min_count = source.int("the least count")?;
    source.int("the number of negatives")?;
    let word_ngrams = source.size("the length of word n-grams", 0, MAX_NGRAM)?;
    let code = source.int("the loss")?;
    let Some(&(_, loss)) = Loss::CODES.iter().find(|(known, _)| *known == code) else {
        return wrong(format!("its loss is {code}, 1 to 4 are known"));
    };
    let kind = source.int("the kind of model")?;
    if kind != 3 {
        return wrong(format!("it holds word vectors (kind {kind}), no labels (kind 3)"));
    }
    let n_buckets = source.size("the number of buckets", 0, MAX_BUCKETS)?;
    let buckets = u32::try_from(n_buckets).expect("it was an i32");
    let min_chars = source.size("the least n-gram of characters", 0, MAX_NGRAM)?;
    let max_chars = source.size("the longest n-gram of characters", 0, MAX_NGRAM)?;
    source.int("the update rate")?;
    source.array::<8>("the sampling threshold")?;
    if buckets == 0 && (max_chars > 0 || word_ngrams > 1) {
        return wrong("it has n-grams and no bucket for them".to_owned());
    }
    Ok(Header { dim, epoch, min_count, word_ngrams, loss, buckets, min_chars, max_chars })
}

fn read_entries(
    source: &mut Source<impl BufRead>,
    n_words: usize,
    n_entries: usize,
) -> Result<Entries, Wrong> {
    let mut entries = Entries::default();
    let mut word = Vec::new();
    for index in 0..n_entries {
        source.word(&mut word)?;
        let count = source.long("the count of a word")?;
        let is_label = source.flag("the kind of an entry")?;
        if is_label != (index >= n_words) {
            return wrong(format!("entry {index} is not in its place: words come before labels"));
        }
        if is_label && std::str::from_utf8(&word).is_err() {
            return wrong(format!("label {} is not UTF-8", index - n_words));
        }
        entries.push(&word, count);
    }
    Ok(entries)
}

fn read_kept(
    source: &mut Source<impl BufRead>,
    n_kept: i64,
    buckets: u32,
) -> Result<Option<Vec<(u32, u32)>>, Wrong> {
    let Ok(n_kept) = usize::try_from(n_kept) else { return Ok(None) };
    if n_kept > buckets as usize {
        return wrong(format!("{n_kept} of {buckets} buckets are kept"));
    }
    source.claim("the list of kept buckets", n_kept, 8)?;
    source.left += n_kept as u64 * 8;
    let mut kept = Vec::with_capacity(n_kept);
    let mut seen = HashSet::with_capacity(n_kept);
    for _ in 0..n_kept {
        let (bucket, row) = (source.int("a bucket")?, source.int("a row")?);
        match (u32::try_from(bucket), u32::try_from(row)) {
            (Ok(bucket), Ok(row)) if bucket < buckets && (row as usize) < n_kept => {
                if !seen.insert(bucket) {
                    return wrong(format!("bucket {bucket} is kept twice"));
                }
                kept.push((bucket, row));
            }
            _ => return wrong(format!("bucket {bucket} leads to row {row} of {n_kept}")),
        }
    }
    Ok(Some(kept))
}

fn read_matrix(
    source: &mut Source<impl BufRead>,
    what: &str,
    is_quantized: bool,
    rows: usize,
    dim: usize,
) -> Result<Matrix, Wrong> {
    let has_norms = is_quantized && source.flag("the kind of the norms")?;
    let shape = (source.long(what)?, source.long(what)?);
    if shape != (rows as i64, dim as i64) {
        let (found_rows, found_dim) = shape;
        return wrong(format!(
            "{what} has {found_rows} rows of {found_dim}, the header asks for {rows} of {dim}"
        ));
    }
    let Some(n_values) = rows.checked_mul(dim) else {
        return wrong(format!("{what} has {rows} rows of {dim}"));
    };
    if !is_quantized {
        return Ok(Matrix::Dense(source.floats(what, n_values)?));
    }
    let n_codes = source.size("the number of codes", 0, i32::MAX)?;
    let codes = source.bytes("the codes", n_codes)?;
    let part_values = read_quantizer(source, dim)?;
    let centroids = source.floats("the centroids", dim * CENTROIDS)?;
    if n_codes != rows * dim.div_ceil(part_values) {
        return wrong(format!("{what} has {n_codes} codes for {rows} rows"));
    }
    let norms = if has_norms {
        let codes = source.bytes("the norms", rows)?;
        read_quantizer(source, 1)?;
        Some((codes, source.floats("the centroids of norms", CENTROIDS)?))
    } else {
        None
    };
    Ok(Matrix::Quantized(Quantized { codes, part_values, dim, centroids, norms }))
}

/// Returns how many values a part has.
fn read_quantizer(source: &mut Source<impl BufRead>, dim: usize) -> Result<usize, Wrong> {
    let most = i32::try_from(dim).expect("the dimension was an i32");
    let found = source.size("the dimension of a quantiser", 1, MAX_DIM)?;
    let parts = source.size("the parts of a quantiser", 1, MAX_DIM)?;
    let part_values = source.size("the values of a part", 1, most)?;
    let rest = source.size("the values of the last part", 1, most)?;
    let expected = dim - (dim.div_ceil(part_values) - 1) * part_values;
    if (found, parts, rest) != (dim, dim.div_ceil(part_values), expected) {
        return wrong(format!(
            "a quantiser cuts {found} values into {parts} parts of {part_values} and one of {rest}, {dim} are there"
        ));
    }
    Ok(part_values)
}
