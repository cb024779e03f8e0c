//! How byte-level vocabularies cut text into words, by name, and the `tokenizer.json` around them.

use std::sync::LazyLock;

use serde_json::{Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

/// GPT-4's pattern, up to the rule for digits.
const CL100K_HEAD: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|";
/// GPT-4's pattern, after the rule for digits.
const CL100K_TAIL: &str = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// GPT-4o's.
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral's since Nemo: GPT-4o's without contractions, one digit at a time.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Ways to cut, each with the names that rank files and GGUF files call it by.
const NAMED: [(&str, Cut); 19] = [
    ("cl100k", Cut::Cl100k { digits: r"\p{N}{1,3}" }),
    ("cl100k_base", Cut::Cl100k { digits: r"\p{N}{1,3}" }),
    ("dbrx", Cut::Cl100k { digits: r"\p{N}{1,3}" }),
    ("gpt-2", Cut::Gpt2),
    ("gpt-4o", Cut::Regex(O200K)),
    ("gpt2", Cut::Gpt2),
    ("llama-bpe", Cut::Cl100k { digits: r"\p{N}{1,3}" }),
    ("llama3", Cut::Cl100k { digits: r"\p{N}{1,3}" }),
    ("mpt", Cut::Gpt2),
    ("o200k", Cut::Regex(O200K)),
    ("o200k_base", Cut::Regex(O200K)),
    ("olmo", Cut::Gpt2),
    ("p50k_base", Cut::Gpt2),
    ("qwen2", Cut::Cl100k { digits: r"\p{N}" }),
    ("r50k_base", Cut::Gpt2),
    ("refact", Cut::DigitsThenGpt2),
    ("smollm", Cut::DigitsThenGpt2),
    ("starcoder", Cut::DigitsThenGpt2),
    ("tekken", Cut::Regex(TEKKEN)),
];

#[derive(Clone, Copy)]
enum Cut {
    /// GPT-2's pattern, which `ByteLevel` knows.
    Gpt2,
    /// Each digit alone, then GPT-2's pattern.
    DigitsThenGpt2,
    /// GPT-4's, with its rule for digits.
    Cl100k {
        digits: &'static str,
    },
    Regex(&'static str),
}

/// All names, for messages.
pub(super) fn names() -> String {
    NAMED.map(|(name, _)| name).join("`, `")
}

/// The pre-tokenizer that is called `name`.
pub(super) fn pre_tokenizer(name: &str) -> Result<Value, String> {
    let found = NAMED.iter().find(|(known, _)| *known == name);
    let (_, cut) = found.ok_or_else(|| {
        format!("no way to cut text into words is called `{name}`, known are `{}`", names())
    })?;
    let split = |pattern: &str| {
        json!({
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
                byte_level(false),
            ],
        })
    };
    Ok(match cut {
        Cut::Gpt2 => byte_level(true),
        Cut::DigitsThenGpt2 => json!({
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": true}, byte_level(true)],
        }),
        Cut::Cl100k { digits } => split(&format!("{CL100K_HEAD}{digits}{CL100K_TAIL}")),
        Cut::Regex(pattern) => split(pattern),
    })
}

fn byte_level(use_regex: bool) -> Value {
    json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": use_regex,
    })
}

/// The parts of a byte-level BPE vocabulary.
pub(super) struct ByteLevelModel {
    pub(super) vocabulary: Value,
    pub(super) merges: Value,
    /// Content, id, whether it is special.
    pub(super) special: Vec<(String, u32, bool)>,
    pub(super) pre_tokenizer: Value,
    /// Whether words that are tokens are taken as they are.
    pub(super) ignore_merges: bool,
}

/// The `tokenizer.json` of a byte-level BPE vocabulary.
pub(super) fn byte_level_json(model: &ByteLevelModel) -> Value {
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(&model.special),
        "normalizer": null,
        "pre_tokenizer": model.pre_tokenizer,
        "post_processor": null,
        "decoder": byte_level(true),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": model.ignore_merges,
            "vocab": model.vocabulary,
            "merges": model.merges,
        },
    })
}

/// `added_tokens` of content, id and whether it is special, in the order of ids.
pub(super) fn added_tokens(tokens: &[(String, u32, bool)]) -> Value {
    let mut tokens: Vec<_> = tokens.iter().collect();
    tokens.sort_unstable_by_key(|(_, id, _)| *id);
    let tokens = tokens.into_iter().map(|(content, id, is_special)| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": is_special,
        })
    });
    tokens.collect()
}

/// Spells bytes in GPT-2's alphabet, one letter per byte.
pub(super) fn spell(bytes: &[u8]) -> String {
    static LETTERS: LazyLock<[char; 256]> = LazyLock::new(ByteLevel::alphabet);
    bytes.iter().map(|byte| LETTERS[usize::from(*byte)]).collect()
}
