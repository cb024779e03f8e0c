//! TensorFlow's records of `tf.train.Example`: `train-000000.tfrecord` and so on.

use std::collections::BTreeMap;

use prost::Message;

use super::{ExportKind, OutFile, Result, Sample, Sink, Target, Width};

pub(super) const KIND: ExportKind = ExportKind {
    name: "tfrecord",
    summary: "records of `tf.train.Example` with the int64 features `tokens` and `loss_mask`",
    source: "TensorFlow, tensorflow/core/lib/io/record_writer.h and example/feature.proto",
    has_columns: true,
    width: |_| Width::I64,
    start: |target| Ok(Box::new(Records::new(target))),
};

#[derive(PartialEq, Message)]
struct Example {
    #[prost(message, optional, tag = "1")]
    features: Option<Features>,
}

#[derive(PartialEq, Message)]
struct Features {
    #[prost(btree_map = "string, message", tag = "1")]
    feature: BTreeMap<String, Feature>,
}

#[derive(PartialEq, Message)]
struct Feature {
    #[prost(message, optional, tag = "3")]
    int64_list: Option<Int64List>,
}

#[derive(PartialEq, Message)]
struct Int64List {
    #[prost(int64, repeated, tag = "1")]
    value: Vec<i64>,
}

struct Records {
    folder: std::path::PathBuf,
    split: String,
    file_bytes: u64,
    file: Option<OutFile>,
    names: Vec<String>,
}

impl Records {
    fn new(target: &Target) -> Self {
        Self {
            folder: target.folder.clone(),
            split: target.split.clone(),
            file_bytes: target.file_bytes,
            file: None,
            names: Vec::new(),
        }
    }
}

impl Sink for Records {
    fn write(&mut self, sample: Sample<'_>) -> Result<()> {
        let feature = |value: Vec<i64>| Feature { int64_list: Some(Int64List { value }) };
        let tokens = sample.tokens.iter().map(|token| i64::from(*token)).collect();
        let mut features = BTreeMap::from([("tokens".to_owned(), feature(tokens))]);
        if let Some(mask) = sample.loss_mask {
            let mask = mask.iter().map(|is| i64::from(*is)).collect();
            features.insert("loss_mask".to_owned(), feature(mask));
        }
        let features = Some(Features { feature: features });
        let record = framed(&Example { features }.encode_to_vec());
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let name = format!("{}-{:06}.tfrecord", self.split, self.names.len());
                let file = OutFile::create(self.folder.join(&name))?;
                self.names.push(name);
                none.insert(file)
            }
        };
        file.put(&record)?;
        if file.bytes >= self.file_bytes
            && let Some(file) = self.file.take()
        {
            file.finish()?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<String>> {
        self.file.map(OutFile::finish).transpose()?;
        Ok(self.names)
    }
}

/// A record: length, its checksum, data, their checksum.
fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length, &masked(&length)[..], data, &masked(data)].concat()
}

/// The CRC-32C, rotated and moved, so that a checksum of data with checksums in it is none of theirs.
fn masked(data: &[u8]) -> [u8; 4] {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}
