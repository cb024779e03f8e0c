//! Megatron's indexed datasets: tokens in `X.bin`, and in `X.idx` where each sequence begins.

use std::fs::{self, File};
use std::io;

use super::{Error, ExportKind, OutFile, Result, Sample, Sink, Target, Width};

/// How an index begins; then the version as u64 and the type of a token as u8.
pub(crate) const MAGIC: &[u8; 9] = b"MMIDIDX\0\0";
pub(crate) const VERSION: u64 = 1;
/// Vocabularies below this are stored in 16 bits: `DType.optimal_dtype`.
const U16_VOCABULARY: u32 = 65_500;

pub(super) const KIND: ExportKind = ExportKind {
    name: "megatron",
    summary: "`train.bin` and `train.idx`: one sequence per sample, each a document of its own",
    source: "Megatron-LM, megatron/core/datasets/indexed_dataset.py, version 1",
    has_columns: false,
    width: |n_vocabulary| match n_vocabulary {
        Some(n) if n < U16_VOCABULARY => Width::U16,
        _ => Width::I32,
    },
    start: |target| Ok(Box::new(Indexed::new(target)?)),
};

struct Indexed {
    split: String,
    width: Width,
    data: OutFile,
    index: OutFile,
    /// What goes behind the lengths in the index.
    pointers: OutFile,
    lengths: OutFile,
    n: u64,
}

impl Indexed {
    fn new(target: &Target) -> Result<Self> {
        let create = |extension: &str| target.create(&format!("{}.{extension}", target.split));
        Ok(Self {
            split: target.split.clone(),
            width: target.width,
            data: create("bin")?,
            index: create("idx")?,
            pointers: create("pointers")?,
            lengths: create("lengths")?,
            n: 0,
        })
    }
}

impl Sink for Indexed {
    fn write(&mut self, sample: Sample<'_>) -> Result<()> {
        let length = i32::try_from(sample.tokens.len()).expect("a row has at most 2^31 tokens");
        let pointer = i64::try_from(self.data.bytes).expect("a file has less than 2^63 bytes");
        self.lengths.put(&length.to_le_bytes())?;
        self.pointers.put(&pointer.to_le_bytes())?;
        let mut bytes = Vec::with_capacity(sample.tokens.len() * self.width.bytes());
        self.width.put(sample.tokens, &mut bytes);
        self.data.put(&bytes)?;
        self.n += 1;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Vec<String>> {
        self.data.finish()?;
        self.index.put(MAGIC)?;
        self.index.put(&VERSION.to_le_bytes())?;
        self.index.put(&[code(self.width)])?;
        self.index.put(&self.n.to_le_bytes())?;
        self.index.put(&(self.n + 1).to_le_bytes())?;
        for part in [self.lengths, self.pointers] {
            let path = part.path.clone();
            part.finish()?;
            let mut from = File::open(&path).map_err(Error::io("open", &path))?;
            io::copy(&mut from, &mut self.index.file).map_err(Error::io("copy", &path))?;
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        for document in 0..=self.n {
            self.index.put(&document.to_le_bytes())?;
        }
        self.index.finish()?;
        Ok(["bin", "idx"].map(|extension| format!("{}.{extension}", self.split)).to_vec())
    }
}

/// Megatron's code of a token's type.
fn code(width: Width) -> u8 {
    match width {
        Width::U16 => 8,
        Width::I32 | Width::U32 => 4,
        Width::I64 => 5,
    }
}
