//! One flat array per split, as `data/*/prepare.py` of nanoGPT writes them.

use super::{ExportKind, OutFile, Result, Sample, Sink, Width};

pub(super) const KIND: ExportKind = ExportKind {
    name: "nanogpt",
    summary: "`train.bin` and `val.bin`: all tokens one after the other, for `numpy.memmap`",
    source: "nanoGPT, data/openwebtext/prepare.py; ids of 32 bits where 16 are too few",
    has_columns: false,
    width: Width::smallest,
    start: |target| {
        let name = file_name(&target.split);
        Ok(Box::new(Flat { file: target.create(&name)?, name, width: target.width }))
    },
};

/// nanoGPT's name of a split's file.
fn file_name(split: &str) -> String {
    format!("{}.bin", if split == "validation" { "val" } else { split })
}

struct Flat {
    file: OutFile,
    name: String,
    width: Width,
}

impl Sink for Flat {
    fn write(&mut self, sample: Sample<'_>) -> Result<()> {
        let mut bytes = Vec::with_capacity(sample.tokens.len() * self.width.bytes());
        self.width.put(sample.tokens, &mut bytes);
        self.file.put(&bytes)
    }

    fn finish(self: Box<Self>) -> Result<Vec<String>> {
        self.file.finish()?;
        Ok(vec![self.name])
    }
}
