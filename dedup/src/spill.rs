//! Records on disk, cut into partitions by a key: what a corpus gives, brought together a partition at a time.
//!
//! A file is a row of blocks. In each block the records stand partition by partition, in the order in which they
//! came; a table at the end says where. So a writer needs one file and one buffer whatever the number of partitions, and
//! a reader of one partition sees its records in the order of the writer's.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Ends every file that was finished.
const MAGIC: u64 = 0x6c6c_6970_732d_6d67;
/// Bytes behind the table: number of blocks, number of partitions, [`MAGIC`].
const TRAILER_BYTES: usize = 24;

/// Writes one file of partitioned records.
#[derive(Debug)]
pub struct SpillWriter {
    path: PathBuf,
    file: BufWriter<File>,
    n_partitions: u32,
    buffer_bytes: usize,
    buffer: Vec<u8>,
    /// Partition and first byte of each record in the buffer.
    records: Vec<(u32, u32)>,
    /// Where each partition of each block begins, and where the block ends.
    table: Vec<u64>,
    written: u64,
}

impl SpillWriter {
    /// Begins the file `path` of `n_partitions`; about `buffer_bytes` of records are held at a time.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path, n_partitions: u32, buffer_bytes: usize) -> Result<Self> {
        let file = File::create(path).map_err(Error::io("create", path))?;
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(1 << 16, file),
            n_partitions,
            buffer_bytes: buffer_bytes.min(u32::MAX as usize / 2),
            buffer: Vec::new(),
            records: Vec::new(),
            table: Vec::new(),
            written: 0,
        })
    }

    /// Number of partitions.
    #[must_use]
    pub fn n_partitions(&self) -> u32 {
        self.n_partitions
    }

    /// Adds a record that `write` appends to the buffer. Records must say themselves where they end.
    ///
    /// # Errors
    /// When the file system refuses.
    ///
    /// # Panics
    /// For a partition that does not exist, or a record of 2 GiB.
    pub fn push(&mut self, partition: u32, write: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        assert!(partition < self.n_partitions, "partition {partition} of {}", self.n_partitions);
        let start = u32::try_from(self.buffer.len()).expect("the buffer ends below 2 GiB");
        self.records.push((partition, start));
        write(&mut self.buffer);
        if self.buffer.len() + self.records.len() * size_of::<(u32, u32)>() >= self.buffer_bytes {
            self.write_block()?;
        }
        Ok(())
    }

    /// Writes what is left and returns the size of the file.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn finish(mut self) -> Result<u64> {
        self.write_block()?;
        let n_blocks = self.table.len() as u64 / (u64::from(self.n_partitions) + 1);
        let trailer = [n_blocks, u64::from(self.n_partitions), MAGIC];
        for number in self.table.iter().chain(&trailer) {
            self.file.write_all(&number.to_le_bytes()).map_err(Error::io("write", &self.path))?;
        }
        self.file.flush().map_err(Error::io("write", &self.path))?;
        Ok(self.written + self.table.len() as u64 * 8 + TRAILER_BYTES as u64)
    }

    fn write_block(&mut self) -> Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        // A counting sort keeps the order within a partition.
        let mut ends = vec![0_u32; self.n_partitions as usize];
        for (partition, _) in &self.records {
            ends[*partition as usize] += 1;
        }
        let mut n = 0;
        for end in &mut ends {
            (*end, n) = (n, n + *end);
        }
        let mut order = vec![0_u32; self.records.len()];
        for (index, (partition, _)) in (0..).zip(&self.records) {
            let end = &mut ends[*partition as usize];
            order[*end as usize] = index;
            *end += 1;
        }
        let mut first = 0;
        for end in ends {
            self.table.push(self.written);
            for &index in &order[first..end as usize] {
                let start = self.records[index as usize].1 as usize;
                let next = self.records.get(index as usize + 1);
                let bytes = &self.buffer[start..next.map_or(self.buffer.len(), |n| n.1 as usize)];
                self.file.write_all(bytes).map_err(Error::io("write", &self.path))?;
                self.written += bytes.len() as u64;
            }
            first = end as usize;
        }
        self.table.push(self.written);
        self.records.clear();
        self.buffer.clear();
        Ok(())
    }
}

/// A finished file of partitioned records.
#[derive(Debug)]
pub struct Spill {
    path: PathBuf,
    file: File,
    n_blocks: u64,
    n_partitions: u64,
    table_start: u64,
}

impl Spill {
    /// Opens a file that [`SpillWriter`] has finished.
    ///
    /// # Errors
    /// When it cannot be read or is not whole.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let bytes = file.metadata().map_err(Error::io("read", path))?.len();
        let damaged = |why: String| Error::Damaged { path: path.to_owned(), why };
        let Some(trailer_start) = bytes.checked_sub(TRAILER_BYTES as u64) else {
            return Err(damaged(format!("{bytes} bytes, a finished one has at least 24")));
        };
        let mut trailer = [0; TRAILER_BYTES];
        read_at(&mut file, trailer_start, &mut trailer).map_err(Error::io("read", path))?;
        let [n_blocks, n_partitions, magic] = numbers(&trailer);
        let table_bytes = n_blocks.checked_mul((n_partitions + 1).saturating_mul(8));
        let table_start = table_bytes.and_then(|bytes| trailer_start.checked_sub(bytes));
        match table_start {
            Some(table_start) if magic == MAGIC => {
                Ok(Self { path: path.to_owned(), file, n_blocks, n_partitions, table_start })
            }
            _ => Err(damaged("its end is not that of a finished file".to_owned())),
        }
    }

    /// Number of partitions.
    #[must_use]
    pub fn n_partitions(&self) -> u32 {
        u32::try_from(self.n_partitions).expect("a writer counts them in 32 bits")
    }

    /// Bytes of all records.
    #[must_use]
    pub fn record_bytes(&self) -> u64 {
        self.table_start
    }

    /// Bytes of the records of a partition.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn bytes(&mut self, partition: u32) -> Result<u64> {
        let mut sum = 0;
        for block in 0..self.n_blocks {
            let (start, end) = self.range(block, partition)?;
            sum += end - start;
        }
        Ok(sum)
    }

    /// Hands the records of a partition to `visit`, as many whole ones at a time as stand in one block.
    ///
    /// # Errors
    /// When the file cannot be read, or `visit` fails.
    pub fn read(
        &mut self,
        partition: u32,
        mut visit: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut buffer = Vec::new();
        for block in 0..self.n_blocks {
            let (start, end) = self.range(block, partition)?;
            if start < end {
                buffer.resize(usize::try_from(end - start).expect("a block fits into memory"), 0);
                read_at(&mut self.file, start, &mut buffer)
                    .map_err(Error::io("read", &self.path))?;
                visit(&buffer)?;
            }
        }
        Ok(())
    }

    fn range(&mut self, block: u64, partition: u32) -> Result<(u64, u64)> {
        let entry = block * (self.n_partitions + 1) + u64::from(partition);
        let mut pair = [0; 16];
        read_at(&mut self.file, self.table_start + entry * 8, &mut pair)
            .map_err(Error::io("read", &self.path))?;
        let [start, end] = numbers(&pair);
        if start > end || end > self.table_start {
            let why = format!("partition {partition} of block {block} is bytes {start} to {end}");
            return Err(Error::Damaged { path: self.path.clone(), why });
        }
        Ok((start, end))
    }
}

fn read_at(file: &mut File, start: u64, bytes: &mut [u8]) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(bytes)
}

fn numbers<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut chunks = bytes.as_chunks::<8>().0.iter();
    std::array::from_fn(|_| u64::from_le_bytes(*chunks.next().expect("eight bytes for each")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_give_back_their_records_in_order_whatever_the_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spill");
        for buffer_bytes in [1, 64, 1 << 20] {
            let mut writer = SpillWriter::create(&path, 5, buffer_bytes).unwrap();
            for number in 0..1000_u32 {
                // Partition 3 stays empty.
                let partition = [0, 1, 2, 4][number as usize % 4];
                writer.push(partition, |buffer| buffer.extend(number.to_le_bytes())).unwrap();
            }
            let bytes = writer.finish().unwrap();
            assert_eq!(bytes, std::fs::metadata(&path).unwrap().len());
            let mut spill = Spill::open(&path).unwrap();
            for (partition, first) in [(0, 0), (1, 1), (2, 2), (4, 3)] {
                let mut numbers = Vec::new();
                spill
                    .read(partition, |bytes| {
                        numbers.extend(bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)));
                        Ok(())
                    })
                    .unwrap();
                assert_eq!(numbers, (first..1000).step_by(4).collect::<Vec<u32>>());
                assert_eq!(spill.bytes(partition).unwrap(), 1000);
            }
            assert_eq!(spill.bytes(3).unwrap(), 0);
        }
    }

    #[test]
    fn a_file_that_was_cut_off_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spill");
        let mut writer = SpillWriter::create(&path, 2, 100).unwrap();
        writer.push(1, |buffer| buffer.push(7)).unwrap();
        writer.finish().unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in [0, 10, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let message = Spill::open(&path).unwrap_err().to_string();
            assert!(message.contains("hint: "), "{message}");
        }
    }
}
