//! TensorBoard event files: TFRecords of hand-encoded `Event` messages.
//!
//! A record is the length (u64, little-endian), its masked CRC-32C, the bytes, and their masked CRC-32C.
//! Source: `tensorflow/core/lib/io/record_writer.h`, `tensorflow/core/util/event.proto`, `summary.proto`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Writes scalars to one event file.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// Creates `events.out.tfevents.<seconds>.<step>.gristmill` in `folder`.
    ///
    /// `first_step` tells TensorBoard to forget what earlier files say of later steps: they were not kept.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be created.
    pub fn create(folder: &Path, wall_seconds: f64, first_step: u64) -> Result<Self> {
        // Readers take the files of a folder in the order of their names.
        let name = format!("events.out.tfevents.{wall_seconds:017.6}.{first_step}.gristmill");
        let path = folder.join(name);
        let file = BufWriter::new(File::create(&path).map_err(Error::io("create", &path))?);
        let mut writer = Self { path, file };
        let mut event = Message::default();
        event.double(1, wall_seconds);
        event.bytes(3, b"brain.Event:2");
        writer.record(&event.0)?;
        if first_step > 0 {
            let mut start = Message::default();
            start.varint(1, 1); // SessionLog.status = START
            let mut event = Message::default();
            event.double(1, wall_seconds);
            event.varint(2, first_step);
            event.bytes(7, &start.0);
            writer.record(&event.0)?;
        }
        Ok(writer)
    }

    /// Adds the scalars of one step.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk is full.
    pub fn scalars(&mut self, wall_seconds: f64, step: u64, scalars: &[(&str, f64)]) -> Result<()> {
        let mut summary = Message::default();
        for (tag, value) in scalars {
            let mut entry = Message::default();
            entry.bytes(1, tag.as_bytes());
            #[expect(clippy::cast_possible_truncation, reason = "the format holds float32")]
            entry.float(2, *value as f32);
            summary.bytes(1, &entry.0);
        }
        let mut event = Message::default();
        event.double(1, wall_seconds);
        event.varint(2, step);
        event.bytes(5, &summary.0);
        self.record(&event.0)
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk is full.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::io("write", &self.path))
    }

    fn record(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(&record(bytes)).map_err(Error::io("write", &self.path))
    }
}

fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut out = length.to_vec();
    out.extend(masked_crc(&length).to_le_bytes());
    out.extend(bytes);
    out.extend(masked_crc(bytes).to_le_bytes());
    out
}

/// CRC-32C, turned and shifted so that a checksum of data that holds checksums stays good.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A protocol buffer message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u64, wire: u64) {
        self.raw_varint(field << 3 | wire);
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).expect("seven bits are left"));
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.raw_varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_has_the_published_values() {
        // RFC 3720, appendix B.4, and the check value of the CRC catalogue.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        // ((crc >> 15) | (crc << 17)) + 0xa282ead8, computed apart for the first.
        assert_eq!(masked_crc(&[0; 32]), 0x0fd7_fffa);
    }

    #[test]
    fn an_event_file_has_the_published_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), 1.5, 0).unwrap();
        writer.scalars(2.0, 300, &[("train/loss", 0.25)]).unwrap();
        writer.flush().unwrap();
        let path = writer.path.clone();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(name, "events.out.tfevents.0000000001.500000.0.gristmill");
        let bytes = std::fs::read(&path).unwrap();

        // Field 1, double: 09; field 3, 13 bytes: 1a 0d.
        let first = [b"\x09\0\0\0\0\0\0\xf8\x3f\x1a\x0d".as_slice(), b"brain.Event:2"].concat();
        // Field 2, varint 300 = ac 02; field 5, 19 bytes; in it field 1, 17 bytes; tag of 10 bytes; float 0.25.
        let second = [
            b"\x09\0\0\0\0\0\0\0\x40\x10\xac\x02\x2a\x13\x0a\x11\x0a\x0a".as_slice(),
            b"train/loss\x15\0\0\x80\x3e",
        ]
        .concat();
        let mut rest = bytes.as_slice();
        for expected in [first, second] {
            let n = usize::try_from(u64::from_le_bytes(rest[..8].try_into().unwrap())).unwrap();
            let crc =
                |range: std::ops::Range<usize>| u32::from_le_bytes(rest[range].try_into().unwrap());
            assert_eq!(crc(8..12), masked_crc(&rest[..8]));
            assert_eq!(rest[12..12 + n], expected);
            assert_eq!(crc(12 + n..16 + n), masked_crc(&expected));
            rest = &rest[16 + n..];
        }
        assert!(rest.is_empty());
    }
}
