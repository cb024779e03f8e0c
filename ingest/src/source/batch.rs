//! Builds batches of [`shard::schema::source_schema`], capped by rows and by bytes of text.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeBinaryBuilder, MapBuilder, StringBuilder, StringViewArray,
    StringViewBuilder, TimestampMillisecondBuilder, UInt64Builder, make_view,
};
use arrow::buffer::{Buffer, ScalarBuffer};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use shard::schema::{self, ID_BYTES};

use super::{BATCH_BYTES_MAX, BATCH_ROWS_MAX};
use crate::Result;

/// What is known of a record, whether it gives a document or a reject.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record<'a> {
    /// Leads back to the bytes; the row's id comes from it.
    pub(super) locator: &'a str,
    pub(super) url: Option<&'a str>,
    /// Seconds since 1970, UTC.
    pub(super) date: Option<i64>,
    pub(super) language: Option<&'a str>,
    pub(super) license: Option<&'a str>,
    pub(super) bytes_raw: u64,
    pub(super) metadata: &'a [(&'a str, &'a str)],
}

/// Collects rows of one source into a batch.
#[derive(Debug)]
pub(super) struct BatchBuilder {
    source: String,
    kind: String,
    rows: usize,
    text_bytes: usize,
    id: FixedSizeBinaryBuilder,
    text: TextBuilder,
    sources: StringViewBuilder,
    kinds: StringViewBuilder,
    url: StringViewBuilder,
    locator: StringViewBuilder,
    date: TimestampMillisecondBuilder,
    language: StringViewBuilder,
    license: StringViewBuilder,
    bytes_raw: UInt64Builder,
    metadata: MapBuilder<StringBuilder, StringBuilder>,
    reject: StringViewBuilder,
}

impl BatchBuilder {
    /// Starts a batch of the source called `source`, whose documents are of `kind`.
    pub(super) fn new(source: &str, kind: &str) -> Self {
        Self {
            source: source.to_owned(),
            kind: kind.to_owned(),
            rows: 0,
            text_bytes: 0,
            id: FixedSizeBinaryBuilder::new(ID_BYTES),
            text: TextBuilder::default(),
            sources: StringViewBuilder::new(),
            kinds: StringViewBuilder::new(),
            url: StringViewBuilder::new(),
            locator: StringViewBuilder::new(),
            date: TimestampMillisecondBuilder::new().with_timezone("UTC"),
            language: StringViewBuilder::new(),
            license: StringViewBuilder::new(),
            bytes_raw: UInt64Builder::new(),
            metadata: MapBuilder::new(None, StringBuilder::new(), StringBuilder::new()),
            reject: StringViewBuilder::new(),
        }
    }

    /// Adds a document.
    pub(super) fn push(&mut self, record: &Record<'_>, text: &str) {
        self.text.append(text);
        self.text_bytes += text.len();
        self.reject.append_null();
        self.describe(record);
    }

    /// Adds a record that gave no document, and why.
    pub(super) fn reject(&mut self, record: &Record<'_>, reason: &str) {
        self.text.append("");
        self.reject.append_value(reason);
        self.describe(record);
    }

    fn describe(&mut self, record: &Record<'_>) {
        self.rows += 1;
        let id = schema::document_id(&self.source, record.locator);
        self.id.append_value(id).expect("an id has the column's width");
        self.sources.append_value(&self.source);
        self.kinds.append_value(&self.kind);
        self.url.append_option(record.url);
        self.locator.append_value(record.locator);
        self.date.append_option(record.date.map(|seconds| seconds * 1000));
        self.language.append_option(record.language);
        self.license.append_option(record.license);
        self.bytes_raw.append_value(record.bytes_raw);
        for (key, value) in record.metadata {
            self.metadata.keys().append_value(key);
            self.metadata.values().append_value(value);
        }
        self.metadata
            .append(!record.metadata.is_empty())
            .expect("every key was appended with its value");
    }

    /// Whether the batch is to be handed on before another row is added.
    pub(super) fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS_MAX || self.text_bytes >= BATCH_BYTES_MAX
    }

    /// Returns the rows so far and starts anew; `None` when there are none.
    pub(super) fn finish(&mut self) -> Result<Option<RecordBatch>> {
        if self.rows == 0 {
            return Ok(None);
        }
        self.rows = 0;
        self.text_bytes = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.id.finish()),
            Arc::new(self.text.finish()?),
            Arc::new(self.sources.finish()),
            Arc::new(self.kinds.finish()),
            Arc::new(self.url.finish()),
            Arc::new(self.locator.finish()),
            Arc::new(self.date.finish()),
            Arc::new(self.language.finish()),
            Arc::new(self.license.finish()),
            Arc::new(self.bytes_raw.finish()),
            Arc::new(self.metadata.finish()),
            Arc::new(self.reject.finish()),
        ];
        Ok(Some(RecordBatch::try_new(schema::source_schema(), columns)?))
    }
}

/// Bytes of a block of text: a batch of pages has a handful of blocks instead of hundreds.
const BLOCK_BYTES: usize = 1 << 20;

/// Builds the column of texts in the blocks of earlier batches that nobody holds any more.
///
/// Blocks of this size come from the system and go back to it: taking them anew for every batch was a quarter of the
/// time to read an archive.
#[derive(Debug, Default)]
struct TextBuilder {
    views: Vec<u128>,
    block: Vec<u8>,
    blocks: Vec<Buffer>,
    /// The blocks of the batch before.
    spare: Vec<Buffer>,
}

impl TextBuilder {
    fn append(&mut self, text: &str) {
        if self.block.capacity() - self.block.len() < text.len() {
            self.begin_block(text.len());
        }
        // Of a short text the view holds all; place and block of it mean nothing.
        let block = u32::try_from(self.blocks.len()).expect("a batch has few blocks");
        let offset = u32::try_from(self.block.len()).expect("a block ends before 4 GiB");
        self.views.push(make_view(text.as_bytes(), block, offset));
        if text.len() > INLINE_BYTES_MAX {
            self.block.extend_from_slice(text.as_bytes());
        }
    }

    fn begin_block(&mut self, bytes: usize) {
        self.end_block();
        let reusable = |block: Buffer| block.into_vec::<u8>().ok();
        let mut spare = std::iter::from_fn(|| self.spare.pop()).filter_map(reusable);
        self.block = spare
            .find(|block| block.capacity() >= bytes)
            .unwrap_or_else(|| Vec::with_capacity(bytes.max(BLOCK_BYTES)));
        self.block.clear();
    }

    fn end_block(&mut self) {
        if !self.block.is_empty() {
            self.blocks.push(Buffer::from_vec(std::mem::take(&mut self.block)));
        }
    }

    fn finish(&mut self) -> Result<StringViewArray, ArrowError> {
        self.end_block();
        let blocks = std::mem::take(&mut self.blocks);
        self.spare.clone_from(&blocks);
        let views = ScalarBuffer::from(std::mem::take(&mut self.views));
        StringViewArray::try_new(views, blocks, None)
    }
}

/// Bytes of a string that a view holds itself. Source: Arrow columnar format, variable-size binary view layout.
const INLINE_BYTES_MAX: usize = 12;

/// Reads rows into a batch until it is full or the file ends.
pub(super) trait Rows: Send {
    /// Adds the rows of the next record, none or several, to `rows`; `false` when there is no further record.
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool>;
}

/// Returns the batches that `reader` fills.
pub(super) fn stream(
    mut rows: BatchBuilder,
    mut reader: impl Rows + 'static,
) -> super::DocumentStream {
    let mut is_done = false;
    Box::new(std::iter::from_fn(move || {
        while !is_done && !rows.is_full() {
            match reader.read(&mut rows) {
                Ok(true) => {}
                Ok(false) => is_done = true,
                Err(error) => {
                    // The rows before the error are lost with the file: the error ends the stream.
                    is_done = true;
                    return Some(Err(error));
                }
            }
        }
        rows.finish().transpose()
    }))
}

#[cfg(test)]
mod tests {
    use arrow::array::Array as _;

    use super::{BLOCK_BYTES, TextBuilder};

    #[test]
    fn keeps_every_text_whether_blocks_are_free_or_held() {
        let mut builder = TextBuilder::default();
        let mut held = Vec::new();
        for round in 0..6 {
            let texts: Vec<String> = (0..40)
                .map(|i| format!("{round} {i} ").repeat((i * i * 97) % 9000))
                .chain([String::new(), "twelve bytes".to_owned(), "x".repeat(BLOCK_BYTES + round)])
                .collect();
            texts.iter().for_each(|text| builder.append(text));
            let column = builder.finish().unwrap();
            assert_eq!(column.len(), texts.len());
            // Every other batch is still read by someone while the next one is built.
            if round % 2 == 0 {
                held.push((column, texts));
            } else {
                assert!(column.iter().zip(&texts).all(|(found, text)| found == Some(&**text)));
            }
        }
        for (column, texts) in held {
            assert!(column.iter().zip(&texts).all(|(found, text)| found == Some(&**text)));
        }
    }
}
