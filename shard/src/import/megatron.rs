//! Megatron's indexed datasets: `X.idx` says where the sequences and documents of `X.bin` are.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{
    DOCUMENT_TOKENS_MAX, Document, Error, ImportKind, Opened, Result, Settings, by_extension,
    numbers, refused, tokens,
};

pub(super) const KIND: ImportKind = ImportKind {
    name: "megatron",
    summary: "`X.bin` and `X.idx`: the sequences of a document are put together",
    source: "Megatron-LM, megatron/core/datasets/indexed_dataset.py, version 1",
    splits: |path| by_extension(path, "idx"),
    open,
};

/// Magic, version, type, number of sequences, number of documents and one.
const HEAD_BYTES: usize = 9 + 8 + 1 + 8 + 8;

fn open(path: &Path, _: &Settings) -> Result<Opened> {
    let data = path.with_extension("bin");
    let index = Index::open(path)?;
    let found = std::fs::metadata(&data).map_err(Error::io("read", &data))?.len();
    let mut documents = Indexed {
        lengths: index.part(0, 4)?,
        ends: index.part(index.n_sequences * 12 + 8, 8)?,
        file: BufReader::new(File::open(&data).map_err(Error::io("open", &data))?),
        path: data.clone(),
        width: index.width,
        n_documents: index.n_documents,
        sequence: 0,
        last: 0,
    };
    // The last pointer and length say how long the file must be.
    let wanted = index.data_bytes(&mut documents.lengths)?;
    if found != wanted {
        let why = format!("it has {found} bytes, `{}` says {wanted}", path.display());
        return Err(refused(&data, why, "copy both files again"));
    }
    documents.lengths = index.part(0, 4)?;
    Ok(Opened { files: vec![path.to_owned(), data], documents: Box::new(documents) })
}

struct Index {
    path: PathBuf,
    width: usize,
    n_sequences: u64,
    n_documents: u64,
}

impl Index {
    fn open(path: &Path) -> Result<Self> {
        let mut head = [0; HEAD_BYTES];
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        file.read_exact(&mut head).map_err(Error::io("read", path))?;
        let hint = "name a `.idx` file that Megatron wrote";
        let count = |at: usize| numbers(&head[at..at + 8], 8).next().expect("8 bytes");
        if head[..9] != *crate::export::MEGATRON_MAGIC {
            let found = head[..9].escape_ascii().to_string();
            return Err(refused(path, format!("it begins with `{found}`, not `MMIDIDX`"), hint));
        }
        if count(9) != crate::export::MEGATRON_VERSION {
            let why = format!("it has version {}, this build reads 1", count(9));
            return Err(refused(path, why, hint));
        }
        let width = match head[17] {
            1 => 1,
            8 => 2,
            4 => 4,
            5 => 8,
            code => {
                let why = format!("its type has code {code}, tokens have 1, 4, 5 or 8");
                return Err(refused(path, why, hint));
            }
        };
        let (n_sequences, n_documents) = (count(18), count(26).saturating_sub(1));
        let found = file.metadata().map_err(Error::io("read", path))?.len();
        let wanted = u128::from(n_sequences) * 12 + u128::from(count(26)) * 8 + HEAD_BYTES as u128;
        if u128::from(found) != wanted {
            let why = format!("it has {found} bytes, {n_sequences} sequences need {wanted}");
            return Err(refused(path, why, "copy the file again"));
        }
        Ok(Self { path: path.to_owned(), width, n_sequences, n_documents })
    }

    /// Reads numbers of `width` bytes from a place behind the head.
    fn part(&self, at: u64, width: usize) -> Result<Numbers> {
        let mut file = File::open(&self.path).map_err(Error::io("open", &self.path))?;
        file.seek(SeekFrom::Start(HEAD_BYTES as u64 + at))
            .map_err(Error::io("read", &self.path))?;
        Ok(Numbers {
            path: self.path.clone(),
            file: BufReader::with_capacity(1 << 16, file),
            width,
        })
    }

    /// Bytes of the file that the lengths describe.
    fn data_bytes(&self, lengths: &mut Numbers) -> Result<u64> {
        let mut n = 0;
        for _ in 0..self.n_sequences {
            n += lengths.next()?;
        }
        Ok(n * self.width as u64)
    }
}

struct Numbers {
    path: PathBuf,
    file: BufReader<File>,
    width: usize,
}

impl Numbers {
    fn next(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        let bytes = &mut bytes[..self.width];
        self.file.read_exact(bytes).map_err(Error::io("read", &self.path))?;
        Ok(numbers(bytes, self.width).next().expect("its bytes"))
    }
}

struct Indexed {
    path: PathBuf,
    file: BufReader<File>,
    width: usize,
    lengths: Numbers,
    /// Of each document, the sequence after its last one.
    ends: Numbers,
    n_documents: u64,
    sequence: u64,
    last: u64,
}

impl Indexed {
    fn document(&mut self) -> Result<Document> {
        let end = self.ends.next()?;
        let mut n = 0;
        while self.sequence < end {
            n += self.lengths.next()?;
            self.sequence += 1;
            if n > DOCUMENT_TOKENS_MAX as u64 {
                let why = format!("document {} has more than {n} tokens", self.last);
                return Err(refused(&self.path, why, "cut documents before they are imported"));
            }
        }
        self.last += 1;
        let n = usize::try_from(n).expect("documents have a limit");
        let mut bytes = vec![0; n * self.width];
        self.file.read_exact(&mut bytes).map_err(Error::io("read", &self.path))?;
        Ok(Document { tokens: tokens(&bytes, self.width, &self.path)?, id: None })
    }
}

impl Iterator for Indexed {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.last < self.n_documents).then(|| self.document())
    }
}
