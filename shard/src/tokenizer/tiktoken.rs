//! Reads tiktoken rank files: one line per token, its bytes in base64 and its rank.
//!
//! The file says neither how text is cut into words nor which special tokens there are. Both come from the name of the
//! file for OpenAI's vocabularies (`cl100k_base.tiktoken`), and for others from a side file, `X.tiktoken.json`:
//!
//! ```json
//! {"pattern": "llama3", "special_tokens": {"<|end_of_text|>": 128001}}
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use super::pattern;
use crate::{Error, Result};

/// What a rank file does not say.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Side {
    /// A name of [`pattern::NAMED`].
    pattern: String,
    #[serde(default)]
    special_tokens: BTreeMap<String, u32>,
}

/// The name of a file, its pattern, its special tokens.
type Known = (&'static str, &'static str, &'static [(&'static str, u32)]);

/// OpenAI's vocabularies.
///
/// Source: `tiktoken_ext/openai_public.py` of tiktoken 0.14.
const KNOWN: [Known; 4] = [
    (
        "cl100k_base",
        "cl100k",
        &[
            ("<|endoftext|>", 100_257),
            ("<|fim_prefix|>", 100_258),
            ("<|fim_middle|>", 100_259),
            ("<|fim_suffix|>", 100_260),
            ("<|endofprompt|>", 100_276),
        ],
    ),
    ("o200k_base", "o200k", &[("<|endoftext|>", 199_999), ("<|endofprompt|>", 200_018)]),
    ("p50k_base", "gpt2", &[("<|endoftext|>", 50_256)]),
    ("r50k_base", "gpt2", &[("<|endoftext|>", 50_256)]),
];

/// Whether the first line is a token and its rank.
pub(super) fn is_ranks(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.len() < 4096 && std::str::from_utf8(line).is_ok_and(|line| parse_line(line).is_some())
}

/// Returns the `tokenizer.json` of the rank file at `path`.
pub(super) fn to_json(path: &Path, bytes: &[u8]) -> Result<Value> {
    let refuse = |why: String| Error::Tokenizer { what: format!("`{}`", path.display()), why };
    let side = side(path)?;
    let pre_tokenizer = pattern::pre_tokenizer(&side.pattern).map_err(refuse)?;
    let ranks = ranks(bytes).map_err(refuse)?;
    build(&ranks, &side.special_tokens, &pre_tokenizer).map_err(refuse)
}

/// The side file of `path`, or what is known of its name.
fn side(path: &Path) -> Result<Side> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let side: PathBuf = path.with_file_name(format!("{name}.json"));
    let known = KNOWN.iter().find(|(known, ..)| name.strip_suffix(".tiktoken") == Some(*known));
    match (fs::read(&side), known) {
        (Ok(bytes), _) => serde_json::from_slice(&bytes).map_err(|error| Error::Config {
            place: format!("`{}`", side.display()),
            message: error.to_string(),
            hint: Some(hint()),
        }),
        (Err(error), Some((_, pattern, special))) if error.kind() == io::ErrorKind::NotFound => {
            Ok(Side {
                pattern: (*pattern).to_owned(),
                special_tokens: special
                    .iter()
                    .map(|(name, id)| ((*name).to_owned(), *id))
                    .collect(),
            })
        }
        (Err(error), None) if error.kind() == io::ErrorKind::NotFound => Err(Error::Missing {
            what: format!(
                "`{}`, which says how `{}` cuts text into words",
                side.display(),
                path.display()
            ),
            hint: hint(),
        }),
        (Err(error), _) => Err(Error::io("read", &side)(error)),
    }
}

fn hint() -> String {
    format!(
        "write `{{\"pattern\": \"llama3\", \"special_tokens\": {{\"<|end_of_text|>\": 128001}}}}`; patterns are `{}`",
        pattern::names()
    )
}

fn parse_line(line: &str) -> Option<(Vec<u8>, u32)> {
    let (token, rank) = line.trim_end().split_once(' ')?;
    Some((BASE64.decode(token).ok()?, rank.parse().ok()?))
}

/// Tokens by their bytes.
fn ranks(bytes: &[u8]) -> Result<HashMap<Vec<u8>, u32>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut ranks = HashMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let number = number + 1;
        let (token, rank) = parse_line(line)
            .filter(|(token, _)| !token.is_empty())
            .ok_or_else(|| format!("line {number} is not a token in base64 and its rank"))?;
        if let Some(first) = ranks.insert(token, rank) {
            return Err(format!("line {number} gives rank {rank} to the token of rank {first}"));
        }
    }
    Ok(ranks)
}

/// Every pair of tokens whose bytes together are a token is a merge, as tiktoken applies them: by the rank of the
/// result. Words that are tokens are not merged at all.
///
/// Source: `TikTokenConverter` of transformers 5.
fn build(
    ranks: &HashMap<Vec<u8>, u32>,
    special: &BTreeMap<String, u32>,
    pre_tokenizer: &Value,
) -> Result<Value, String> {
    let mut by_rank: Vec<(u32, &Vec<u8>)> =
        ranks.iter().map(|(token, rank)| (*rank, token)).collect();
    by_rank.sort_unstable();
    if let Some(pair) = by_rank.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(format!("rank {} belongs to two tokens", pair[0].0));
    }
    let mut merges = Vec::new();
    let mut vocabulary: serde_json::Map<String, Value> = serde_json::Map::new();
    for (rank, token) in &by_rank {
        vocabulary.insert(pattern::spell(token), Value::from(*rank));
        let mut pairs: Vec<_> = (1..token.len())
            .filter_map(|at| {
                let (left, right) = token.split_at(at);
                Some(((*ranks.get(left)?, *ranks.get(right)?), (left, right)))
            })
            .collect();
        pairs.sort_unstable();
        merges.extend(
            pairs
                .iter()
                .map(|(_, (left, right))| json!([pattern::spell(left), pattern::spell(right)])),
        );
    }
    // In the vocabulary too: implementations number added tokens that are not in it without gaps.
    for (content, id) in special {
        if vocabulary.insert(content.clone(), Value::from(*id)).is_some() {
            return Err(format!("`{content}` is a special token and one of the ranks"));
        }
        if let Ok(at) = by_rank.binary_search_by_key(id, |(rank, _)| *rank) {
            return Err(format!(
                "`{content}` has the id {id}, as the token of rank {}",
                by_rank[at].0
            ));
        }
    }
    Ok(pattern::byte_level_json(&pattern::ByteLevelModel {
        vocabulary: Value::Object(vocabulary),
        merges: Value::Array(merges),
        special: special.iter().map(|(content, id)| (content.clone(), *id, true)).collect(),
        pre_tokenizer: pre_tokenizer.clone(),
        ignore_merges: true,
    }))
}
