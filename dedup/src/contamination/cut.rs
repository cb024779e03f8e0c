//! What is left of a document without its contaminated stretches.

use std::ops::Range;

use super::{Config, Profile};

/// A document in pieces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Bytes of the pieces that are long enough.
    pub(super) pieces: Vec<Range<usize>>,
    /// Pieces of any length.
    pub(super) n_pieces: usize,
}

/// Returns the pieces of `text`, as ranges of bytes, that are left without `spans` (sorted by their start) and
/// [`Config::window`] characters around each, as far as they have more than [`Config::piece_chars_min`] characters.
///
/// Characters are code points. The borders are those of lm-evaluation-harness' Janitor; for profile `lm_eval`, a piece between
/// two stretches begins one character early, as there.
#[must_use]
pub fn pieces(text: &str, spans: &[Range<usize>], config: &Config) -> Vec<Range<usize>> {
    cut(text, spans, config).pieces
}

pub(super) fn cut(text: &str, spans: &[Range<usize>], config: &Config) -> Cut {
    // Byte offset of each character, and the end.
    let offsets: Vec<usize> =
        text.char_indices().map(|(at, _)| at).chain(std::iter::once(text.len())).collect();
    let n_chars = offsets.len() - 1;
    let char_of = |byte: usize| offsets.partition_point(|offset| *offset < byte);
    let mut cut = Cut { pieces: Vec::new(), n_pieces: 0 };
    let mut keep = |chars: Range<usize>, is_long: bool| {
        cut.n_pieces += usize::from(chars.start < chars.end);
        if is_long {
            cut.pieces.push(offsets[chars.start]..offsets[chars.end]);
        }
    };
    let (mut next, mut last) = (0, None);
    for span in merged(spans) {
        let start = char_of(span.start).saturating_sub(config.window);
        // The last character of the window, but never beyond the end.
        let end = (char_of(span.end) - 1 + config.window).min(n_chars);
        keep(next..start, start.saturating_sub(next) > config.piece_chars_min);
        next = if config.profile == Profile::LmEval { end } else { (end + 1).min(n_chars) };
        last = Some(end);
    }
    match last {
        None => keep(0..n_chars, n_chars > 0),
        Some(end) if end < n_chars => {
            keep(end + 1..n_chars, end + config.piece_chars_min < n_chars);
        }
        Some(_) => {}
    }
    cut
}

/// Stretches that touch are one: what lies between them is in the windows of both.
fn merged(spans: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut merged: Vec<Range<usize>> = Vec::new();
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => merged.push(span.clone()),
        }
    }
    merged
}
