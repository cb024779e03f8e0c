//! WebDataset: `train-000000.tar` and so on, with the members `KEY.tokens.npy`, `KEY.loss_mask.npy` and `KEY.json`.

use super::{ExportKind, OutFile, Result, Sample, Sink, Target, Width};

pub(super) const KIND: ExportKind = ExportKind {
    name: "webdataset",
    summary: "tar files of NumPy arrays, one group of members per sample",
    source: "webdataset 1.0; POSIX ustar as Python's tarfile writes it; NumPy's .npy, version 1",
    has_columns: true,
    width: Width::smallest,
    start: |target| Ok(Box::new(Tars::new(target))),
};

/// A tar file is filled up to a multiple of this.
const RECORD_BYTES: u64 = 10_240;
const BLOCK_BYTES: usize = 512;
/// Bytes of an array's head: it ends at a multiple of 64, and NumPy leaves room for 21 digits of the length.
const NPY_HEAD_BYTES: usize = 128;

struct Tars {
    folder: std::path::PathBuf,
    split: String,
    width: Width,
    file_bytes: u64,
    file: Option<OutFile>,
    names: Vec<String>,
    n: u64,
}

impl Tars {
    fn new(target: &Target) -> Self {
        Self {
            folder: target.folder.clone(),
            split: target.split.clone(),
            width: target.width,
            file_bytes: target.file_bytes,
            file: None,
            names: Vec::new(),
            n: 0,
        }
    }

    fn file(&mut self) -> Result<&mut OutFile> {
        if self.file.is_none() {
            let name = format!("{}-{:06}.tar", self.split, self.names.len());
            self.file = Some(OutFile::create(self.folder.join(&name))?);
            self.names.push(name);
        }
        Ok(self.file.as_mut().expect("set above"))
    }

    fn close(&mut self) -> Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        // Two empty blocks end the archive.
        let end = (file.bytes + 2 * BLOCK_BYTES as u64).next_multiple_of(RECORD_BYTES);
        let room = usize::try_from(end - file.bytes).expect("at most a record and two blocks");
        file.put(&vec![0; room])?;
        file.finish()?;
        Ok(())
    }
}

impl Sink for Tars {
    fn write(&mut self, sample: Sample<'_>) -> Result<()> {
        let key = format!("{:012}", self.n);
        let mut members = Vec::with_capacity(3);
        if let Some(mask) = sample.loss_mask {
            let mut array = npy_head("|b1", mask.len());
            array.extend(mask.iter().map(|is| u8::from(*is)));
            members.push((format!("{key}.loss_mask.npy"), array));
        }
        let descr = if self.width == Width::U16 { "<u2" } else { "<u4" };
        let mut array = npy_head(descr, sample.tokens.len());
        self.width.put(sample.tokens, &mut array);
        members.push((format!("{key}.tokens.npy"), array));
        if let Some(id) = sample.document_id {
            let json = format!("{{\"document_id\":\"{id}\"}}");
            members.push((format!("{key}.json"), json.into_bytes()));
        }
        let file = self.file()?;
        for (name, data) in members {
            file.put(&tar_head(&name, data.len()))?;
            file.put(&data)?;
            file.put(&vec![0; data.len().next_multiple_of(BLOCK_BYTES) - data.len()])?;
        }
        let is_full = file.bytes >= self.file_bytes;
        self.n += 1;
        if is_full { self.close() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> Result<Vec<String>> {
        self.close()?;
        Ok(self.names)
    }
}

fn npy_head(descr: &str, n: usize) -> Vec<u8> {
    let dictionary = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({n},), }}");
    let mut head = b"\x93NUMPY\x01\x00".to_vec();
    head.extend_from_slice(&118_u16.to_le_bytes());
    head.extend_from_slice(dictionary.as_bytes());
    head.resize(NPY_HEAD_BYTES - 1, b' ');
    head.push(b'\n');
    head
}

/// The header of a file that everybody may read, of nobody and no time.
fn tar_head(name: &str, bytes: usize) -> [u8; BLOCK_BYTES] {
    let mut head = [0; BLOCK_BYTES];
    let mut put =
        |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000444");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{bytes:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    head
}
