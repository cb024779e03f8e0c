//! A template as the engine takes it, where that differs from Jinja in Python.

use std::ops::Range;

/// The function behind `{% generation %}`, and the filter that every loop puts its list through.
pub(super) const GENERATION: &str = "generation_span__";
pub(super) const ITERABLE: &str = "iterable__";

/// Rewrites `source`; says whether it has `{% generation %}`.
///
/// - `{% generation %}` becomes the call of a block, which is what it is in Transformers.
/// - A loop over `none` is an error in Python and no loop in the engine: the list goes through a filter that objects.
/// - Lines end in a line feed.
pub(super) fn translate(source: &str) -> (String, bool) {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len() + 256);
    let mut has_generation = false;
    let mut is_raw = false;
    let mut at = 0;
    while let Some(found) = source[at..].find('{') {
        let start = at + found;
        let tag = &source[start..];
        let end = match tag.as_bytes().get(1) {
            Some(b'#') if !is_raw => tag.find("#}").map_or(tag.len(), |end| end + 2),
            Some(b'{') if !is_raw => end_of(tag, "}}"),
            Some(b'%') => end_of(tag, "%}"),
            _ => 1,
        };
        out.push_str(&source[at..start]);
        at = start + end;
        let tag = &tag[..end];
        let Some(words) = tag.strip_prefix("{%").and_then(|tag| tag.strip_suffix("%}")) else {
            out.push_str(tag);
            continue;
        };
        let words = words.trim_matches(['-', '+']).trim();
        let name =
            words.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        let new = match name {
            "endraw" => {
                is_raw = false;
                None
            }
            _ if is_raw => None,
            "raw" => {
                is_raw = true;
                None
            }
            "generation" if words == name => {
                has_generation = true;
                Some(format!("call {GENERATION}()"))
            }
            "endgeneration" if words == name => Some("endcall".to_owned()),
            "for" => list_of_loop(words).map(|list| {
                let (before, after) = (&words[..list.start], &words[list.end..]);
                format!("{before} ({}) | {ITERABLE} {after}", words[list.clone()].trim())
            }),
            _ => None,
        };
        match new {
            Some(new) => out.push_str(&tag.replacen(words, &new, 1)),
            None => out.push_str(tag),
        }
    }
    out.push_str(&source[at..]);
    (out, has_generation)
}

/// Where the expression behind `in` stands in `for … in … if … recursive`.
fn list_of_loop(words: &str) -> Option<Range<usize>> {
    let mut start = None;
    for word in top_level_words(words) {
        match (&words[word.clone()], start) {
            ("in", None) => start = Some(word.end),
            ("if" | "recursive", Some(start)) => return Some(start..word.start),
            _ => {}
        }
    }
    start.map(|start| start..words.len())
}

/// Words outside of strings and brackets.
fn top_level_words(text: &str) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    let (mut depth, mut quote, mut is_escaped) = (0_usize, None, false);
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(_), _) if is_escaped => is_escaped = false,
            (Some(_), '\\') => is_escaped = true,
            (Some(open), _) => quote = quote.filter(|_| letter != open),
            (None, '\'' | '"') => quote = Some(letter),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (None, _) if depth == 0 && (letter.is_alphanumeric() || letter == '_') => {
                let end = at + letter.len_utf8();
                match words.last_mut().filter(|word| word.end == at) {
                    Some(word) => word.end = end,
                    None => words.push(at..end),
                }
            }
            _ => {}
        }
    }
    words
}

/// Bytes of a tag that begins `text` and ends with `mark` outside of its strings.
fn end_of(text: &str, mark: &str) -> usize {
    let (mut quote, mut is_escaped) = (None, false);
    for (at, letter) in text.char_indices().skip(2) {
        match (quote, letter) {
            (Some(_), _) if is_escaped => is_escaped = false,
            (Some(_), '\\') => is_escaped = true,
            (Some(open), _) => quote = quote.filter(|_| letter != open),
            (None, '\'' | '"') => quote = Some(letter),
            (None, _) if text[at..].starts_with(mark) => return at + mark.len(),
            _ => {}
        }
    }
    text.len()
}
