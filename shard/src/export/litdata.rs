//! litdata's chunks of tokens: a folder per split with `chunk-0-0.bin` and so on, and `index.json`.

use super::{ExportKind, OutFile, Result, Sample, Sink, Target, Width, offset};

pub(super) const KIND: ExportKind = ExportKind {
    name: "litdata",
    summary: "a folder per split for `litdata.StreamingDataset` with `TokensLoader`",
    source: "litdata 0.2.76, litdata/streaming/writer.py and item_loader.py",
    has_columns: false,
    width: Width::smallest,
    start: |target| Ok(Box::new(Chunks::new(target))),
};

struct Chunks {
    folder: std::path::PathBuf,
    split: String,
    width: Width,
    file_bytes: u64,
    /// The items of the chunk that is not written yet, and where each ends.
    data: Vec<u8>,
    ends: Vec<usize>,
    /// The index's entry of each chunk.
    chunks: Vec<String>,
}

impl Chunks {
    fn new(target: &Target) -> Self {
        Self {
            folder: target.folder.join(&target.split),
            split: target.split.clone(),
            width: target.width,
            file_bytes: target.file_bytes,
            data: Vec::new(),
            ends: Vec::new(),
            chunks: Vec::new(),
        }
    }

    fn name(index: usize) -> String {
        format!("chunk-0-{index}.bin")
    }

    fn flush(&mut self) -> Result<()> {
        let name = Self::name(self.chunks.len());
        let n = self.ends.len();
        let head = 4 * (n + 2);
        let mut file = OutFile::create(self.folder.join(&name))?;
        file.put(&offset(n, &name)?.to_le_bytes())?;
        for end in [0].iter().chain(&self.ends) {
            file.put(&offset(head + end, &name)?.to_le_bytes())?;
        }
        file.put(&self.data)?;
        let bytes = file.finish()?;
        let dim = self.data.len() / self.width.bytes();
        self.chunks.push(format!(
            "{{\"chunk_bytes\": {bytes}, \"chunk_size\": {n}, \"dim\": {dim}, \"filename\": \"{name}\"}}"
        ));
        self.data.clear();
        self.ends.clear();
        Ok(())
    }
}

impl Sink for Chunks {
    fn write(&mut self, sample: Sample<'_>) -> Result<()> {
        self.width.put(sample.tokens, &mut self.data);
        self.ends.push(self.data.len());
        if self.data.len() as u64 >= self.file_bytes { self.flush() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> Result<Vec<String>> {
        if !self.ends.is_empty() {
            self.flush()?;
        }
        // The place of the type in litdata's list of them.
        let code = if self.width == Width::U16 { 5 } else { 6 };
        let index = format!(
            "{{\"chunks\": [{}], \"config\": {{\"chunk_bytes\": {}, \"chunk_size\": null, \"compression\": null, \
             \"compression_batch_size\": null, \"compression_level\": null, \
             \"data_format\": [\"no_header_numpy:{code}\"], \
             \"data_spec\": \"[1, {{\\\"type\\\": null, \\\"context\\\": null, \\\"children_spec\\\": []}}]\", \
             \"encryption\": null, \"ipc_compression\": null, \"item_loader\": \"TokensLoader\", \"types\": \"json\"}}, \
             \"updated_at\": \"0\"}}",
            self.chunks.join(", "),
            self.file_bytes
        );
        let mut file = OutFile::create(self.folder.join("index.json"))?;
        file.put(index.as_bytes())?;
        file.finish()?;
        let names = (0..self.chunks.len()).map(Self::name).chain(["index.json".to_owned()]);
        Ok(names.map(|name| format!("{}/{name}", self.split)).collect())
    }
}
