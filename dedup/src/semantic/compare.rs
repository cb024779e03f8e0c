//! The documents of one cluster against those of it that stay.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use super::vector::{Vector, cosine, dot, unit};
use crate::span::Pieces;
use crate::{Error, Result};

/// A document that goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// Its position in the order of preference.
    pub rank: u32,
    /// That of the document that stays instead: the first one that is similar enough.
    pub kept_rank: u32,
    /// Their cosine similarity.
    pub similarity: f64,
    /// The first document of the cluster.
    pub first_rank: u32,
}

/// Compares the documents of one cluster, whose embeddings have `n` numbers each, in the order of preference: one goes when
/// its cosine similarity with one that stayed before reaches `threshold`.
///
/// Memory: `bytes` for embeddings, two of them at least, beside 4 bytes for each document. What does not fit is read again: the
/// documents come in parts, and those that stay wait in the file `scratch`. Partitions, parts and memory change nothing.
///
/// # Errors
/// When a file cannot be read or written.
pub fn compare(
    pieces: Pieces<'_>,
    n: usize,
    threshold: f64,
    bytes: u64,
    scratch: &Path,
    mut found: impl FnMut(Compared),
) -> Result<()> {
    let mut ranks = Vec::new();
    pieces.read(|bytes| {
        ranks.extend(Vector::all(bytes, n).map(|vector| vector.rank));
        Ok(())
    })?;
    ranks.sort_unstable();
    let Some(&first_rank) = ranks.first() else { return Ok(()) };
    let part_max = usize::try_from(bytes / (8 * n as u64 + 16)).unwrap_or(usize::MAX).max(1);
    let is_whole = ranks.len() <= part_max;
    let mut waiting = match is_whole {
        true => None,
        false => Some(BufWriter::new(File::create(scratch).map_err(Error::io("create", scratch))?)),
    };
    for (index, ranks) in ranks.chunks(part_max).enumerate() {
        let mut part = Part::read(pieces, ranks, n, threshold)?;
        let mut tell = |rank, kept_rank, similarity| {
            found(Compared { rank, kept_rank, similarity, first_rank });
        };
        if let Some(waiting) = &mut waiting {
            waiting.flush().map_err(Error::io("write", scratch))?;
            if index > 0 {
                part.compare_with(scratch, &mut tell)?;
            }
        }
        part.compare(&mut tell);
        if let Some(waiting) = &mut waiting {
            part.write_kept(waiting).map_err(Error::io("write", scratch))?;
        }
    }
    if waiting.is_some() {
        fs::remove_file(scratch).map_err(Error::io("remove", scratch))?;
    }
    Ok(())
}

/// Some documents of a cluster, in order.
struct Part<'a> {
    ranks: &'a [u32],
    n: usize,
    threshold: f64,
    /// Below, the product of two unit vectors in 32 bits cannot be one that reaches the threshold.
    at_least: f32,
    vectors: Vec<f32>,
    units: Vec<f32>,
    is_gone: Vec<bool>,
}

impl<'a> Part<'a> {
    fn read(pieces: Pieces<'_>, ranks: &'a [u32], n: usize, threshold: f64) -> Result<Self> {
        let mut vectors = vec![0.0; ranks.len() * n];
        pieces.read(|bytes| {
            for vector in Vector::all(bytes, n) {
                if let Ok(index) = ranks.binary_search(&vector.rank) {
                    let place = vectors[index * n..][..n].iter_mut();
                    place.zip(vector.numbers()).for_each(|(place, number)| *place = number);
                }
            }
            Ok(())
        })?;
        let mut units = Vec::with_capacity(vectors.len());
        vectors.chunks_exact(n).for_each(|vector| unit(vector, &mut units));
        let is_gone = vec![false; ranks.len()];
        #[expect(clippy::cast_possible_truncation, reason = "a bound with a margin")]
        #[expect(clippy::cast_precision_loss, reason = "a bound with a margin")]
        let at_least = (threshold - (n as f64 + 8.0) * f64::from(f32::EPSILON)) as f32;
        Ok(Self { ranks, n, threshold, at_least, vectors, units, is_gone })
    }

    fn vector(&self, index: usize) -> &[f32] {
        &self.vectors[index * self.n..][..self.n]
    }

    fn unit(&self, index: usize) -> &[f32] {
        &self.units[index * self.n..][..self.n]
    }

    /// The similarity of a document with another one, where it reaches the threshold.
    fn similar(&self, index: usize, unit: &[f32], vector: &[f32]) -> Option<f64> {
        if dot(self.unit(index), unit) < self.at_least {
            return None;
        }
        Some(cosine(self.vector(index), vector)).filter(|cosine| *cosine >= self.threshold)
    }

    /// Compares the documents with those of earlier parts that stayed.
    fn compare_with(&mut self, kept: &Path, tell: &mut dyn FnMut(u32, u32, f64)) -> Result<()> {
        let file = File::open(kept).map_err(Error::io("open", kept))?;
        let n_kept = file.metadata().map_err(Error::io("read", kept))?.len();
        let n_kept = n_kept / (4 * self.n as u64 + 4);
        let mut file = BufReader::with_capacity(1 << 16, file);
        let (mut rank, mut bytes) = ([0; 4], vec![0; 4 * self.n]);
        let (mut vector, mut of_one) = (Vec::new(), Vec::new());
        for _ in 0..n_kept {
            file.read_exact(&mut rank)
                .and_then(|()| file.read_exact(&mut bytes))
                .map_err(Error::io("read", kept))?;
            vector.clear();
            vector.extend(bytes.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number)));
            of_one.clear();
            unit(&vector, &mut of_one);
            let similar: Vec<(usize, f64)> = pulp::Arch::new().dispatch(|| {
                let left = (0..self.ranks.len()).filter(|index| !self.is_gone[*index]);
                left.filter_map(|index| Some((index, self.similar(index, &of_one, &vector)?)))
                    .collect()
            });
            for (index, similarity) in similar {
                self.is_gone[index] = true;
                tell(self.ranks[index], u32::from_le_bytes(rank), similarity);
            }
        }
        Ok(())
    }

    /// Compares the documents that are left with each other.
    fn compare(&mut self, tell: &mut dyn FnMut(u32, u32, f64)) {
        let mut kept = Vec::new();
        for index in 0..self.ranks.len() {
            if self.is_gone[index] {
                continue;
            }
            let similar = pulp::Arch::new().dispatch(|| {
                kept.iter().find_map(|&other| {
                    let similarity = self.similar(index, self.unit(other), self.vector(other))?;
                    Some((other, similarity))
                })
            });
            match similar {
                Some((other, similarity)) => {
                    self.is_gone[index] = true;
                    tell(self.ranks[index], self.ranks[other], similarity);
                }
                None => kept.push(index),
            }
        }
    }

    fn write_kept(&self, file: &mut impl Write) -> std::io::Result<()> {
        for index in (0..self.ranks.len()).filter(|index| !self.is_gone[*index]) {
            file.write_all(&self.ranks[index].to_le_bytes())?;
            for number in self.vector(index) {
                file.write_all(&number.to_le_bytes())?;
            }
        }
        Ok(())
    }
}
