//! Reads a manifest of many shards with every core.
//!
//! Shards are the last thing in a manifest and by far the most: their list is cut into pieces that threads parse on
//! their own. Where the cuts are follows from how manifests are laid out; one that is laid out in another way, or in which
//! anything is wrong, is read by the plain way, which finds the same and names the line.

use super::{Manifest, SEAL_BYTES, Shard};

/// Bytes of shards below which threads are not worth their start.
const PIECE_BYTES_MIN: usize = 1 << 20;

/// What is before the first shard. A string cannot hold a line feed, so this is a key of the manifest itself.
const SHARDS: &str = "\n  \"shards\": [\n";
/// What is between two shards, for the same reason.
const BETWEEN: &str = "\n    },\n";
/// What is after the last one, before the seal.
const END: &str = "\n  ]";

/// Returns the manifest in `bytes`, or why there is none.
pub(super) fn manifest(bytes: &[u8]) -> Result<Manifest, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    match in_pieces(text) {
        Some(manifest) => Ok(manifest),
        None => plainly(text),
    }
}

/// The plain way.
pub(super) fn plainly(text: &str) -> Result<Manifest, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// The fast way; `None` where the plain one must tell.
pub(super) fn in_pieces(text: &str) -> Option<Manifest> {
    let body = text.get(..text.len().checked_sub(SEAL_BYTES)?)?;
    let start = body.find(SHARDS)? + SHARDS.len();
    let list = body.get(start..)?.strip_suffix(END)?;
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let n_pieces = n_threads.min(list.len() / PIECE_BYTES_MIN);
    if n_pieces == 0 {
        return None;
    }
    let mut pieces = Vec::with_capacity(n_pieces);
    let mut rest = list;
    for left in (2..=n_pieces).rev() {
        let middle = rest.ceil_char_boundary(rest.len() / left);
        let cut = middle + rest[middle..].find(BETWEEN)? + BETWEEN.len();
        pieces.push(rest[..cut].trim_end().strip_suffix(',')?);
        rest = &rest[cut..];
    }
    pieces.push(rest);
    let mut head = text[..start].to_owned();
    head.push(']');
    head.push_str(&text[body.len()..]);
    let mut manifest: Manifest = serde_json::from_str(&head).ok()?;
    std::thread::scope(|scope| {
        let parts: Vec<_> = pieces.iter().map(|piece| scope.spawn(|| shards(piece))).collect();
        for part in parts {
            manifest.shards.append(&mut part.join().expect("parsing does not panic")?);
        }
        Some(manifest)
    })
}

/// The shards of a piece, which commas part.
fn shards(piece: &str) -> Option<Vec<Shard>> {
    let mut shards = Vec::new();
    let mut rest = piece;
    loop {
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter();
        shards.push(stream.next()?.ok()?);
        let after = rest[stream.byte_offset()..].trim_start();
        if after.is_empty() {
            return Some(shards);
        }
        rest = after.strip_prefix(',')?;
    }
}
