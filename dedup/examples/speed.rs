//! Prints the speed of each kernel on one thread: `cargo run --release -p dedup --example speed -- TEXT_FILE...`
//!
//! The files are cut into documents of about 4 kB at line ends and repeated up to 64 MB; `.gz` is read through.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::hint::black_box;
use std::io::Read;
use std::time::Instant;

use arrow::array::StringViewArray;
use dedup::{MinHash, exact, minhash};

fn main() -> Result<(), Box<dyn Error>> {
    let mut documents: Vec<String> = Vec::new();
    for path in std::env::args().skip(1) {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(&path)?;
        if path.ends_with(".gz") {
            flate2::read::GzDecoder::new(file).read_to_end(&mut bytes)?;
        } else {
            std::io::BufReader::new(file).read_to_end(&mut bytes)?;
        }
        let text = String::from_utf8_lossy(&bytes);
        let mut document = String::new();
        for line in text.lines() {
            document.push_str(line);
            document.push('\n');
            if document.len() >= 4096 {
                documents.push(std::mem::take(&mut document));
            }
        }
        documents.push(document);
    }
    let bytes_once: usize = documents.iter().map(String::len).sum();
    let n_repeats = (64_000_000 / bytes_once.max(1)).max(1);
    let texts: StringViewArray = documents.iter().map(Some).collect();
    let bytes = (bytes_once * n_repeats) as f64;
    println!("{} documents, {:.1} MB, {n_repeats} times", documents.len(), bytes_once as f64 / 1e6);

    let measure = |name: &str, work: &dyn Fn()| {
        work();
        let mut rates: Vec<f64> = (0..5)
            .map(|_| {
                let start = Instant::now();
                for _ in 0..n_repeats {
                    work();
                }
                bytes / 1e6 / start.elapsed().as_secs_f64()
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        println!("{name:28} {:8.0} MB/s (median of 5, best {:.0})", rates[2], rates[4]);
    };
    let minhash = MinHash::new(minhash::Config::default())?;
    measure("signatures, 112 hashes", &|| drop(black_box(minhash.signatures(&texts))));
    measure("signatures and band keys", &|| {
        drop(black_box(minhash.band_keys(&minhash.signatures(&texts))));
    });
    let mut config = minhash::Config { bands: 1, rows: 1, ..minhash::Config::default() };
    config.verify = 0.0;
    let one = MinHash::new(config)?;
    measure("signatures, 1 hash", &|| drop(black_box(one.signatures(&texts))));
    measure("shingle sets", &|| drop(black_box(minhash.shingle_sets(&texts))));
    measure("exact, raw", &|| {
        drop(black_box(exact::hashes(&texts, &exact::Config { normalize: false })));
    });
    measure("exact, normalised", &|| {
        drop(black_box(exact::hashes(&texts, &exact::Config { normalize: true })));
    });
    Ok(())
}
