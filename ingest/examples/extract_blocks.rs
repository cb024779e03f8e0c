//! Writes what the classifier of `extract_html` sees of pages, for `scripts/extract-train.py`.
//!
//! `extract_blocks PAGES OUT` writes for each `PAGES/ID.html` the texts of its blocks as a JSON list into `OUT/ID.json` and the bytes
//! that describe them into `OUT/ID.features`. Where there is an `OUT/ID.scores`, a byte for each block, it writes what
//! the scores say around each block into `OUT/ID.context` instead.

use std::path::{Path, PathBuf};

use ingest::modifier::extract_html::Seen;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [pages, out] = &folders[..] else { return Err("usage: extract_blocks PAGES OUT".into()) };
    std::fs::create_dir_all(out)?;
    for entry in std::fs::read_dir(pages)? {
        write(&entry?.path(), out)?;
    }
    Ok(())
}

fn write(path: &Path, out: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let html = std::fs::read(path)?;
    let seen = Seen::of(&String::from_utf8_lossy(&html)).ok_or("too many nodes")?;
    let out = out.join(path.file_name().ok_or("a file without a name")?);
    match std::fs::read(out.with_extension("scores")) {
        Ok(scores) => std::fs::write(out.with_extension("context"), seen.context(&scores))?,
        Err(_) => {
            std::fs::write(out.with_extension("json"), serde_json::to_vec(&seen.texts)?)?;
            std::fs::write(out.with_extension("features"), &seen.features)?;
        }
    }
    Ok(())
}
