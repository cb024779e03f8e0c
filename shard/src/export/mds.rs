//! MosaicML's streaming shards: a folder per split with `shard.00000.mds` and so on, and `index.json`.

use super::{ExportKind, Result, Sample, Sink, Target, Width, offset};

pub(super) const KIND: ExportKind = ExportKind {
    name: "mds",
    summary: "a folder per split for `streaming.StreamingDataset`, with columns `tokens`, `document_id`, `loss_mask`",
    source: "mosaicml-streaming 0.13, streaming/base/format/mds/writer.py, version 2",
    has_columns: true,
    width: Width::smallest,
    start: |target| Ok(Box::new(Mds::new(target))),
};

struct Mds {
    folder: std::path::PathBuf,
    split: String,
    width: Width,
    file_bytes: u64,
    columns: Vec<(&'static str, String)>,
    /// The samples of the shard that is not written yet, and where each ends.
    data: Vec<u8>,
    ends: Vec<usize>,
    /// Name, bytes and samples of each shard.
    shards: Vec<(String, u64, usize)>,
}

impl Mds {
    fn new(target: &Target) -> Self {
        let mut columns = Vec::new();
        if target.has_ids {
            columns.push(("document_id", "str".to_owned()));
        }
        if target.has_masks {
            columns.push(("loss_mask", "ndarray:uint8".to_owned()));
        }
        columns.push(("tokens", format!("ndarray:{}", target.width.name())));
        Self {
            folder: target.folder.join(&target.split),
            split: target.split.clone(),
            width: target.width,
            file_bytes: target.file_bytes,
            columns,
            data: Vec::new(),
            ends: Vec::new(),
            shards: Vec::new(),
        }
    }

    /// What the index says of every shard, in the order of Python's sorted keys: `(before, after)` the one about its bytes.
    fn config(&self) -> (String, String) {
        let list = |items: Vec<String>| format!("[{}]", items.join(", "));
        let quoted = |text: &str| format!("\"{text}\"");
        let encodings = list(self.columns.iter().map(|(_, encoding)| quoted(encoding)).collect());
        let names = list(self.columns.iter().map(|(name, _)| quoted(name)).collect());
        let sizes = list(self.columns.iter().map(|_| "null".to_owned()).collect());
        let before = format!(
            "\"column_encodings\": {encodings}, \"column_names\": {names}, \"column_sizes\": {sizes}, \
             \"compression\": null, \"format\": \"mds\", \"hashes\": []"
        );
        (before, format!("\"size_limit\": {}, \"version\": 2", self.file_bytes))
    }

    fn flush(&mut self) -> Result<()> {
        let name = format!("shard.{:05}.mds", self.shards.len());
        let (before, after) = self.config();
        let config = format!("{{{before}, {after}}}");
        let n = self.ends.len();
        let head = 4 + 4 * (n + 1) + config.len();
        let mut file = super::OutFile::create(self.folder.join(&name))?;
        file.put(&offset(n, &name)?.to_le_bytes())?;
        for end in [0].iter().chain(&self.ends) {
            file.put(&offset(head + end, &name)?.to_le_bytes())?;
        }
        file.put(config.as_bytes())?;
        file.put(&self.data)?;
        self.shards.push((name, file.finish()?, n));
        self.data.clear();
        self.ends.clear();
        Ok(())
    }
}

impl Sink for Mds {
    fn write(&mut self, sample: Sample<'_>) -> Result<()> {
        let mut parts: Vec<Vec<u8>> = Vec::with_capacity(3);
        parts.extend(sample.document_id.map(|id| id.as_bytes().to_vec()));
        if let Some(mask) = sample.loss_mask {
            let mut part = shape(mask.len());
            part.extend(mask.iter().map(|is| u8::from(*is)));
            parts.push(part);
        }
        let mut part = shape(sample.tokens.len());
        self.width.put(sample.tokens, &mut part);
        parts.push(part);
        assert_eq!(parts.len(), self.columns.len(), "a part for each column");
        for part in &parts {
            self.data.extend_from_slice(&offset(part.len(), &self.split)?.to_le_bytes());
        }
        parts.iter().for_each(|part| self.data.extend_from_slice(part));
        self.ends.push(self.data.len());
        if self.data.len() as u64 >= self.file_bytes { self.flush() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> Result<Vec<String>> {
        if !self.ends.is_empty() {
            self.flush()?;
        }
        let (before, after) = self.config();
        let shards: Vec<String> = self
            .shards
            .iter()
            .map(|(name, bytes, n)| {
                format!(
                    "{{{before}, \"raw_data\": {{\"basename\": \"{name}\", \"bytes\": {bytes}, \"hashes\": {{}}}}, \
                     \"samples\": {n}, {after}, \"zip_data\": null}}"
                )
            })
            .collect();
        let index = format!("{{\"shards\": [{}], \"version\": 2}}", shards.join(", "));
        let mut file = super::OutFile::create(self.folder.join("index.json"))?;
        file.put(index.as_bytes())?;
        file.finish()?;
        let names = self.shards.iter().map(|(name, ..)| name.as_str()).chain(["index.json"]);
        Ok(names.map(|name| format!("{}/{name}", self.split)).collect())
    }
}

/// The head of an array of one dimension: the smallest type that holds its length, and the length.
fn shape(n: usize) -> Vec<u8> {
    let bytes = (n as u64).to_le_bytes();
    let (code, width) = match n {
        0..=0xff => (0, 1),
        0x100..=0xffff => (1, 2),
        0x1_0000..=0xffff_ffff => (2, 4),
        _ => (3, 8),
    };
    [&[1 << 2 | code], &bytes[..width]].concat()
}
