//! Character references: `&amp;`, `&#8212;`, `&copy`.

use std::sync::LazyLock;

/// Name without `&` (with `;` where it is required) and the characters it stands for, sorted by name.
///
/// The table of the HTML standard, section 13.5.
static NAMED: LazyLock<Vec<(&'static str, String)>> = LazyLock::new(|| {
    let parse = |line: &'static str| {
        let (name, points) = line.split_once('\t').expect("a name, a tab, code points");
        let point = |hex| u32::from_str_radix(hex, 16).ok().and_then(char::from_u32);
        let characters = points.split(' ').map(|hex| point(hex).expect("a code point")).collect();
        (name, characters)
    };
    include_str!("../../../data/html-named-references.tsv").lines().map(parse).collect()
});

/// Characters of the longest name, `CounterClockwiseContourIntegral;`.
const NAME_BYTES_MAX: usize = 32;

/// What the code points 0x80 to 0x9F of a numeric reference stand for: windows-1252, section 13.2.5.80.
const WINDOWS_1252: [u16; 32] = [
    0x20AC, 0x81, 0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160, 0x2039,
    0x0152, 0x8D, 0x017D, 0x8F, 0x90, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014,
    0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0x9D, 0x017E, 0x0178,
];

/// Appends `raw` to `out` with its character references resolved.
///
/// In an attribute a name without `;` stands for itself when `=` or a letter or digit follows, as in `?a=1&copy=2`.
pub(crate) fn decode(raw: &str, in_attribute: bool, out: &mut String) {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'&', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let used = match after.as_bytes().first() {
            Some(b'#') => numeric(after, out),
            Some(byte) if byte.is_ascii_alphanumeric() => named(after, in_attribute, out),
            _ => 0,
        };
        if used == 0 {
            out.push('&');
        }
        rest = &after[used..];
    }
    out.push_str(rest);
}

/// Appends the character of a reference whose text after `&` begins `after`; returns the bytes used, 0 for none.
fn numeric(after: &str, out: &mut String) -> usize {
    let bytes = after.as_bytes();
    let is_hex = matches!(bytes.get(1), Some(b'x' | b'X'));
    let start = if is_hex { 2 } else { 1 };
    let is_digit =
        |byte: &&u8| if is_hex { byte.is_ascii_hexdigit() } else { byte.is_ascii_digit() };
    let n_digits = bytes[start..].iter().take_while(is_digit).count();
    if n_digits == 0 {
        return 0;
    }
    let digits = &after[start..start + n_digits];
    let point = u32::from_str_radix(digits, if is_hex { 16 } else { 10 }).unwrap_or(u32::MAX);
    let point = match point {
        0x80..=0x9F => u32::from(WINDOWS_1252[(point - 0x80) as usize]),
        0 => 0xFFFD,
        _ => point,
    };
    out.push(char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER));
    start + n_digits + usize::from(bytes.get(start + n_digits) == Some(&b';'))
}

/// As [`numeric`], for a name: the longest one in the table that `after` begins with.
fn named(after: &str, in_attribute: bool, out: &mut String) -> usize {
    let bytes = after.as_bytes();
    let n =
        bytes.iter().take(NAME_BYTES_MAX).take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let with_semicolon = n + usize::from(bytes.get(n) == Some(&b';'));
    for len in (2..=with_semicolon).rev() {
        let name = &after[..len];
        let Ok(index) = NAMED.binary_search_by(|(known, _)| (*known).cmp(name)) else { continue };
        let next = bytes.get(len);
        let is_text = |byte: &u8| *byte == b'=' || byte.is_ascii_alphanumeric();
        if in_attribute && !name.ends_with(';') && next.is_some_and(is_text) {
            return 0;
        }
        out.push_str(&NAMED[index].1);
        return len;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, in_attribute: bool, expected: &str) {
        let mut out = String::new();
        decode(raw, in_attribute, &mut out);
        assert_eq!(out, expected, "{raw}");
    }

    // Expected values are the examples of the HTML standard, sections 13.2.5.72 to 13.2.5.80.
    #[test]
    fn resolves_the_longest_name() {
        check("I'm &notit; I tell you", false, "I'm ¬it; I tell you");
        check("I'm &notin; I tell you", false, "I'm ∉ I tell you");
        check("&amp;&AMP&lt;b&gt; &nbsp;&NotEqualTilde;", false, "&&<b> \u{a0}≂̸");
        check("a & b &; &x; AT&T &", false, "a & b &; &x; AT&T &");
    }

    #[test]
    fn leaves_parameters_of_a_url_alone() {
        check("?a=1&copy=2&not=3&lt", true, "?a=1&copy=2&not=3<");
        check("?a=1&copy;=2", true, "?a=1©=2");
    }

    #[test]
    fn resolves_numbers() {
        check("&#65;&#x42;&#X43 &#128;&#x96;", false, "ABC €–");
        check("&#0;&#xD800;&#x110000;&#99999999999;", false, "\u{fffd}\u{fffd}\u{fffd}\u{fffd}");
        check("&#;&#x;&#xg;", false, "&#;&#x;&#xg;");
    }

    #[test]
    fn has_every_name_of_the_standard_in_order() {
        assert_eq!(NAMED.len(), 2231);
        assert!(NAMED.is_sorted_by(|a, b| a.0 < b.0));
        assert!(NAMED.iter().all(|(name, _)| name.len() <= NAME_BYTES_MAX));
    }
}
