//! Documents with the same text, by a 128-bit hash of it.
//!
//! With [`Config::normalize`] a text is hashed in lower case and composed form (NFC), with every run of white space as one
//! space and none at its ends: copies that were re-wrapped, re-encoded or re-cased are still the same. Punctuation counts.

use arrow::array::{Array, FixedSizeBinaryArray, FixedSizeBinaryBuilder, StringViewArray};
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;
use xxhash_rust::xxh3::xxh3_128;

use crate::MethodKind;

pub(crate) const KIND: MethodKind = MethodKind {
    name: "exact",
    summary: "documents with the same text, apart from case and white space",
    source: "xxh3-128 of the normalised text",
    finds: crate::Finds::Documents,
    default_config: crate::default_table::<Config>,
    check: |table| crate::parse_table::<Config>("exact", table).map(drop),
};

/// Settings of the search for equal texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether case, Unicode composition and white space are evened out first; else bytes are compared.
    pub normalize: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { normalize: true }
    }
}

/// Bytes of a hash.
pub const HASH_BYTES: i32 = 16;

/// Returns the hash of each text, 16 bytes, big-endian as xxh3-128 is written; a null stays null.
///
/// Two of 10¹² different texts meet by accident with a probability below 10⁻¹⁴.
#[must_use]
pub fn hashes(texts: &StringViewArray, config: &Config) -> FixedSizeBinaryArray {
    let mut builder = FixedSizeBinaryBuilder::with_capacity(texts.len(), HASH_BYTES);
    let mut normalised = String::new();
    for text in texts {
        match text {
            Some(text) => {
                let bytes = if config.normalize {
                    normalise(text, &mut normalised);
                    normalised.as_bytes()
                } else {
                    text.as_bytes()
                };
                builder
                    .append_value(xxh3_128(bytes).to_be_bytes())
                    .expect("a 128-bit hash has 16 bytes");
            }
            None => builder.append_null(),
        }
    }
    builder.finish()
}

/// Replaces `normalised` by the text in lower case, composed, with single spaces.
pub(crate) fn normalise(text: &str, normalised: &mut String) {
    normalised.clear();
    normalised.reserve(text.len());
    for word in text.split_whitespace() {
        separate(normalised);
        if word.is_ascii() {
            let start = normalised.len();
            normalised.push_str(word);
            normalised[start..].make_ascii_lowercase();
        } else {
            // By character: a final sigma is then the same as any other.
            normalised.extend(
                word.chars()
                    .flat_map(char::to_lowercase)
                    .map(|c| match c {
                        'ς' => 'σ',
                        c => c,
                    })
                    .nfc(),
            );
        }
    }
}

fn separate(normalised: &mut String) {
    if !normalised.is_empty() {
        normalised.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str, normalize: bool) -> String {
        let array = StringViewArray::from(vec![text]);
        let hashes = hashes(&array, &Config { normalize });
        hashes.value(0).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn raw_hashes_are_xxh3_128() {
        // Published with xxHash: XXH3 128 bits, no seed, empty input; and `echo -n abc | xxh128sum`.
        assert_eq!(hex("", false), "99aa06d3014798d86001c324468d497f");
        assert_eq!(hex("abc", false), "06b05ab6733a618578af5f94892f3950");
    }

    #[test]
    fn case_white_space_and_composition_do_not_count() {
        let same = [
            "Été à la plage",
            "  e\u{301}te\u{301} A\u{300}\tla \n\n plage ",
            "ÉTÉ\u{a0}à la PLAGE",
        ];
        for text in same {
            assert_eq!(hex(text, true), hex(same[0], true), "{text:?}");
        }
        assert_eq!(hex("A\tB\x0bc", true), hex("a b C", true));
        assert_eq!(hex("abc", true), hex("abc", false));
        for text in ["été à la plage!", "été àla plage", "ete a la plage"] {
            assert_ne!(hex(text, true), hex(same[0], true), "{text:?}");
        }
    }

    #[test]
    fn nulls_stay_null() {
        let hashes = hashes(&StringViewArray::from(vec![None, Some("")]), &Config::default());
        assert!(hashes.is_null(0) && hashes.is_valid(1));
    }

    proptest! {
        #[test]
        fn both_paths_agree_with_the_definition(text in "([A-Za-z \t\n\u{b}\u{c}]{0,30}|\\PC{0,20}|[aA\u{301}éΣς \u{2003}x]{0,20})") {
            let mut fast = String::new();
            normalise(&text, &mut fast);
            let lower: String = text.chars().flat_map(char::to_lowercase).collect();
            let words: Vec<String> =
                lower.replace('ς', "σ").split_whitespace().map(|word| word.nfc().collect()).collect();
            prop_assert_eq!(fast, words.join(" "));
        }
    }
}
