//! Flat arrays of tokens, as nanoGPT's `prepare.py` writes them; documents end with the tokenizer's end of document.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::{
    DOCUMENT_TOKENS_MAX, Document, Error, ImportKind, Opened, Result, Settings, by_extension,
    refused, tokens,
};

pub(super) const KIND: ImportKind = ImportKind {
    name: "nanogpt",
    summary: "`train.bin`, `val.bin`: flat arrays of tokens, documents end with the tokenizer's token for it",
    source: "nanoGPT, data/openwebtext/prepare.py; ids of 16 bits unless `--token-bytes 4`",
    splits: |path| by_extension(path, "bin"),
    open,
};

/// Bytes read at a time; a multiple of every width.
const CHUNK_BYTES: usize = 1 << 20;

fn open(path: &Path, settings: &Settings) -> Result<Opened> {
    let end = settings.end_of_document.ok_or_else(|| Error::Config {
        place: format!("import of `{}`", path.display()),
        message: "the tokenizer has no token that ends a document".to_owned(),
        hint: Some("flat arrays say nothing of documents but by such a token".to_owned()),
    })?;
    let width = settings.token_bytes.unwrap_or(2);
    let bytes = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
    if ![2, 4].contains(&width) || bytes % width as u64 != 0 {
        let why = format!("its {bytes} bytes are no tokens of {width} bytes");
        return Err(refused(path, why, "give `--token-bytes 2` or `--token-bytes 4`"));
    }
    let file = File::open(path).map_err(Error::io("open", path))?;
    let documents = Flat {
        path: path.to_owned(),
        file: BufReader::with_capacity(CHUNK_BYTES, file),
        width,
        end,
        pending: Vec::new(),
        at: 0,
        is_done: false,
    };
    Ok(Opened { files: vec![path.to_owned()], documents: Box::new(documents) })
}

struct Flat {
    path: PathBuf,
    file: BufReader<File>,
    width: usize,
    end: u32,
    /// Tokens that were read; those before `at` are out.
    pending: Vec<u32>,
    at: usize,
    is_done: bool,
}

impl Flat {
    fn read(&mut self) -> Result<()> {
        let mut bytes = Vec::new();
        let mut part = (&mut self.file).take(CHUNK_BYTES as u64);
        part.read_to_end(&mut bytes).map_err(Error::io("read", &self.path))?;
        self.is_done = bytes.is_empty();
        self.pending.drain(..self.at);
        self.at = 0;
        self.pending.extend(tokens(&bytes, self.width, &self.path)?);
        Ok(())
    }

    fn document(&mut self) -> Result<Option<Document>> {
        let mut searched = 0;
        loop {
            let open = &self.pending[self.at..];
            if let Some(length) = open[searched..].iter().position(|token| *token == self.end) {
                let tokens = open[..=searched + length].to_vec();
                self.at += tokens.len();
                return Ok(Some(Document { tokens, id: None }));
            }
            searched = open.len();
            if searched > DOCUMENT_TOKENS_MAX {
                let why = format!("no token {} in {searched} tokens", self.end);
                return Err(refused(&self.path, why, "check tokenizer and `--token-bytes`"));
            }
            if self.is_done {
                // The last document may have no end.
                let tokens = open.to_vec();
                self.at = self.pending.len();
                return Ok((!tokens.is_empty()).then_some(Document { tokens, id: None }));
            }
            self.read()?;
        }
    }
}

impl Iterator for Flat {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        self.document().transpose()
    }
}
