//! Makes a model small: keeps the rows that say most, and stores parts of rows as numbers of centroids.

use super::file::{CENTROIDS, Entries, Matrix, ModelFile, Quantized};
use super::train::Random;
use crate::{Error, Result};

/// Values of a part, as in the reference.
const PART_VALUES: usize = 2;
/// Rounds of k-means, as in the reference.
const ROUNDS: usize = 25;
/// Rows that centroids are found from, as in the reference.
const ROWS_MAX: usize = 256 * CENTROIDS;
/// Seed of the sample of rows, as in the reference.
const SEED: u64 = 1234;

/// Returns `file` with a product-quantised input, norms apart, of its `max_rows` longest rows.
///
/// The row of the end of a line is always kept. It is a standard `.ftz`; the centroids are found with another random
/// generator than the reference's, so bytes differ from those that the reference would write.
///
/// # Errors
/// [`Error::Config`] when the model is quantised already or has fewer rows than there are centroids.
///
/// Source: Joulin et al. 2016, "FastText.zip", without its retraining after pruning.
pub fn quantize(file: &ModelFile, max_rows: usize) -> Result<ModelFile> {
    let invalid = |message: String| Error::Config { name: "classifier".to_owned(), message };
    let Matrix::Dense(values) = &file.input else {
        return Err(invalid("the model is quantised already".to_owned()));
    };
    let dim = file.header.dim;
    let norm = |row: usize| values[row * dim..][..dim].iter().map(|v| v * v).sum::<f32>().sqrt();
    let mut norms: Vec<f32> = (0..values.len() / dim).map(norm).collect();
    let mut pruned = file.clone();
    let rows = if max_rows < norms.len() {
        let rows = longest(file, &norms, max_rows);
        prune(&mut pruned, &rows);
        rows
    } else {
        (0..norms.len()).collect()
    };
    if rows.len() < CENTROIDS {
        return Err(invalid(format!("{} rows are left, {CENTROIDS} are needed", rows.len())));
    }
    norms = rows.iter().map(|&row| norms[row]).collect();
    let mut unit = Vec::with_capacity(rows.len() * dim);
    for (&row, &norm) in rows.iter().zip(&norms) {
        let norm = if norm == 0.0 { 1.0 } else { norm };
        unit.extend(values[row * dim..][..dim].iter().map(|value| value / norm));
    }
    let (codes, centroids) = encode(&unit, dim, PART_VALUES.min(dim));
    pruned.input = Matrix::Quantized(Quantized {
        codes,
        part_values: PART_VALUES.min(dim),
        dim,
        centroids,
        norms: Some(encode(&norms, 1, 1)),
    });
    Ok(pruned)
}

/// Returns the rows to keep: words in order, then buckets in order.
fn longest(file: &ModelFile, norms: &[f32], n: usize) -> Vec<usize> {
    let end = (0..file.n_words).find(|&index| file.entries.get(index) == b"</s>");
    let mut rows: Vec<usize> = (0..norms.len()).collect();
    rows.sort_by(|&a, &b| {
        (end == Some(b)).cmp(&(end == Some(a))).then(norms[b].total_cmp(&norms[a]))
    });
    rows.truncate(n);
    rows.sort_unstable();
    rows
}

fn prune(file: &mut ModelFile, rows: &[usize]) {
    let (words, buckets) = rows.split_at(rows.partition_point(|&row| row < file.n_words));
    let mut entries = Entries::default();
    for index in words.iter().copied().chain(file.n_words..file.entries.len()) {
        entries.push(file.entries.get(index), file.entries.counts[index]);
    }
    let number = |index: usize| u32::try_from(index).expect("rows were counted in a u32");
    let kept = buckets.iter().enumerate();
    file.kept_buckets =
        Some(kept.map(|(row, bucket)| (number(bucket - file.n_words), number(row))).collect());
    file.n_words = words.len();
    file.entries = entries;
}

/// Returns the code of each part of each row, and the centroids of the parts.
fn encode(values: &[f32], dim: usize, part_values: usize) -> (Vec<u8>, Vec<f32>) {
    let n_rows = values.len() / dim;
    let parts = dim.div_ceil(part_values);
    let mut codes = vec![0; n_rows * parts];
    let mut centroids = Vec::with_capacity(dim * CENTROIDS);
    let mut random = Random(SEED);
    for part in 0..parts {
        let place = part * part_values;
        let width = part_values.min(dim - place);
        let cut: Vec<f32> =
            values.chunks_exact(dim).flat_map(|row| &row[place..place + width]).copied().collect();
        let found = k_means(&cut, width, &mut random);
        for (row, point) in cut.chunks_exact(width).enumerate() {
            codes[row * parts + part] = nearest(point, &found);
        }
        centroids.extend(found);
    }
    (codes, centroids)
}

fn k_means(values: &[f32], width: usize, random: &mut Random) -> Vec<f32> {
    let mut order: Vec<usize> = (0..values.len() / width).collect();
    random.shuffle(&mut order);
    order.truncate(ROWS_MAX);
    let points: Vec<&[f32]> = order.iter().map(|&row| &values[row * width..][..width]).collect();
    let mut centroids: Vec<f32> = points[..CENTROIDS].concat();
    for _ in 0..ROUNDS {
        let mut sums = vec![0.0; centroids.len()];
        let mut counts = [0.0_f32; CENTROIDS];
        for point in &points {
            let code = usize::from(nearest(point, &centroids));
            super::add(&mut sums[code * width..][..width], point, 1.0);
            counts[code] += 1.0;
        }
        for (code, &count) in counts.iter().enumerate() {
            let centroid = &mut centroids[code * width..][..width];
            if count == 0.0 {
                // A centroid that nothing is near begins anew at some point.
                centroid.copy_from_slice(points[random.below(points.len())]);
            } else {
                let sum = &sums[code * width..][..width];
                centroid.iter_mut().zip(sum).for_each(|(value, sum)| *value = sum / count);
            }
        }
    }
    centroids
}

fn nearest(point: &[f32], centroids: &[f32]) -> u8 {
    let mut best = (0, f32::INFINITY);
    for (code, centroid) in (0..=u8::MAX).zip(centroids.chunks_exact(point.len())) {
        let distance = point.iter().zip(centroid).map(|(a, b)| (a - b) * (a - b)).sum();
        if distance < best.1 {
            best = (code, distance);
        }
    }
    best.0
}
