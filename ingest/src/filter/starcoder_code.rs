//! Drops files that are data, generated or mangled rather than code, as StarCoder does.
//!
//! What a file is says `language`, else the key `code_language` of its metadata, as the source `code` writes it. Limits by file extension
//! are a table of StarCoder's that was not published with its code; stars are a `where` on metadata.

mod comments;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, MapArray, StringArray, UInt64Array};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use shard::tokenizer::Tokenizer;

use super::words::{class, classes, is_alphanumeric};
use super::{
    FileKey, Filter, FilterKind, Signal, Verdicts, chars, config, lines, ratio, text_column,
};
use crate::Result;
use crate::modifier::html::visible::visible_text;

pub(super) const KIND: FilterKind = FilterKind {
    name: "starcoder_code",
    summary: "code with long lines, few letters, an XML header or a note that it is generated",
    source: "Li et al. 2023, StarCoder: bigcode-dataset, preprocessing/filtering.py (`basic`, `xml`, `html`, `large_and_small_files`, `comments`, `fertility`); the note in the first five lines: CodeParrot, preprocessing.py",
    signals: &[
        Signal { name: "chars", data_type: DataType::UInt64, summary: "characters of the file" },
        Signal {
            name: "max_line_chars",
            data_type: DataType::UInt64,
            summary: "characters of the longest line",
        },
        Signal {
            name: "mean_line_chars",
            data_type: DataType::Float64,
            summary: "characters of a line, the mean",
        },
        Signal {
            name: "alphanumeric_chars",
            data_type: DataType::Float64,
            summary: "letters and digits, share of characters",
        },
        Signal {
            name: "alphabetic_chars",
            data_type: DataType::Float64,
            summary: "letters, share of characters",
        },
        Signal {
            name: "comment_chars",
            data_type: DataType::Float64,
            summary: "comments, share of characters; null where the language's are not known",
        },
        Signal {
            name: "visible_chars",
            data_type: DataType::Float64,
            summary: "text that a page shows, share of characters; of HTML only",
        },
        Signal {
            name: "chars_per_token",
            data_type: DataType::Float64,
            summary: "characters of a token of `tokenizer`; null without it",
        },
    ],
    reasons: &[
        "empty",
        "long_line",
        "long_mean_line",
        "too_few_alphanumeric_chars",
        "too_few_alphabetic_chars",
        "xml_header",
        "too_small",
        "too_large",
        "too_little_visible_text",
        "too_few_comments",
        "too_many_comments",
        "too_few_chars_per_token",
        "generated",
    ],
    files: &[FileKey { key: "tokenizer", none: "" }],
    default_config: config::defaults::<Config>,
    build: |table| Ok(Box::new(StarcoderCode::new(config::from_table("starcoder_code", table)?)?)),
};

/// A limit of 0 switches its rule off.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    max_line_chars: u64,
    max_mean_line_chars: f64,
    min_alphanumeric: f64,
    /// For data formats; StarCoder sets it by the extension of a file.
    min_alphabetic: f64,
    /// Whether files go that have `<?xml version=` in their first hundred characters.
    drop_xml: bool,
    /// Of all files.
    min_chars: u64,
    max_chars: u64,
    /// Of JSON and YAML.
    data_min_chars: u64,
    data_max_chars: u64,
    /// Of HTML: its visible text, share of characters and characters.
    min_visible: f64,
    min_visible_chars: u64,
    /// Comments, share of characters. StarCoder's limits were 0.01 and 0.8.
    min_comments: f64,
    max_comments: f64,
    /// StarCoder's limits were 2.5 for Python, 2.9 for Java and 2.6 for JavaScript.
    min_chars_per_token: f64,
    /// Path of a tokenizer for `min_chars_per_token`.
    tokenizer: String,
    /// Language of all files; empty for that of each file's metadata.
    language: String,
    /// First lines in which a note that the file is generated counts.
    generated_lines: u64,
}

impl Default for Config {
    fn default() -> Self {
        // `line_max`, `line_mean` and `alpha_frac` of bigcode-dataset's arguments.py; five lines as in CodeParrot.
        Self {
            max_line_chars: 1000,
            max_mean_line_chars: 100.0,
            min_alphanumeric: 0.25,
            min_alphabetic: 0.0,
            drop_xml: true,
            min_chars: 0,
            max_chars: 0,
            data_min_chars: 100,
            data_max_chars: 5000,
            min_visible: 0.2,
            min_visible_chars: 100,
            min_comments: 0.0,
            max_comments: 0.0,
            min_chars_per_token: 0.0,
            tokenizer: String::new(),
            language: String::new(),
            generated_lines: 5,
        }
    }
}

/// Notes that a file was not written by hand.
const NOTES: [&str; 3] = ["auto-generated", "autogenerated", "automatically generated"];

#[derive(Debug)]
struct StarcoderCode {
    config: Config,
    tokenizer: Option<Tokenizer>,
}

#[derive(Clone, Copy, Debug)]
struct Signals {
    chars: u64,
    max_line_chars: u64,
    mean_line_chars: Option<f64>,
    alphanumeric: Option<f64>,
    alphabetic: Option<f64>,
    comments: Option<f64>,
    /// Characters of visible text.
    visible: Option<u64>,
    chars_per_token: Option<f64>,
}

impl Signals {
    fn visible_share(&self) -> Option<f64> {
        ratio(self.visible?, self.chars)
    }
}

fn is(language: Option<&str>, name: &str) -> bool {
    language.is_some_and(|language| language.eq_ignore_ascii_case(name))
}

fn measure(text: &str, language: Option<&str>) -> Signals {
    let (mut n, mut alphanumeric, mut alphabetic) = (0, 0, 0);
    for c in text.chars() {
        n += 1;
        alphanumeric += u64::from(is_alphanumeric(c));
        alphabetic += u64::from(classes(c) & class::LETTER != 0);
    }
    let (mut n_lines, mut line_chars, mut longest) = (0, 0, 0);
    for line in lines(text) {
        let n = chars(line);
        n_lines += 1;
        line_chars += n;
        longest = longest.max(n);
    }
    Signals {
        chars: n,
        max_line_chars: longest,
        mean_line_chars: ratio(line_chars, n_lines),
        alphanumeric: ratio(alphanumeric, n),
        alphabetic: ratio(alphabetic, n),
        comments: language
            .and_then(|language| comments::chars(text, language))
            .and_then(|chars| ratio(chars, n)),
        visible: is(language, "html").then(|| chars(&visible_text(text))),
        chars_per_token: None,
    }
}

impl StarcoderCode {
    fn new(config: Config) -> Result<Self> {
        if config.min_chars_per_token > 0.0 && config.tokenizer.is_empty() {
            let message = "`min_chars_per_token` needs `tokenizer`\nhint: name a tokenizer.json";
            return Err(config::invalid("starcoder_code", message));
        }
        let tokenizer = (!config.tokenizer.is_empty())
            .then(|| Tokenizer::load(Path::new(&config.tokenizer)))
            .transpose()
            .map_err(|error| config::invalid("starcoder_code", error.to_string()))?;
        Ok(Self { config, tokenizer })
    }

    fn chars_per_token(&self, text: &str, n_chars: u64) -> Result<Option<f64>> {
        let Some(tokenizer) = &self.tokenizer else { return Ok(None) };
        let mut ids = Vec::new();
        tokenizer
            .encode(text, &mut ids)
            .map_err(|error| config::invalid("starcoder_code", error.to_string()))?;
        Ok(ratio(n_chars, ids.len() as u64))
    }

    /// The rules in the order of bigcode-dataset.
    fn reason(
        &self,
        text: &str,
        language: Option<&str>,
        signals: &Signals,
    ) -> Option<&'static str> {
        let config = &self.config;
        let (Some(mean), Some(alphanumeric), Some(alphabetic)) =
            (signals.mean_line_chars, signals.alphanumeric, signals.alphabetic)
        else {
            return Some("empty");
        };
        let is_xml = || {
            let end = text.char_indices().nth(100).map_or(text.len(), |(at, _)| at);
            text[..end].contains("<?xml version=")
        };
        let is_generated = || {
            let n = usize::try_from(config.generated_lines).unwrap_or(usize::MAX);
            lines(text).take(n).any(|line| {
                let line = line.to_lowercase();
                NOTES.iter().any(|note| line.contains(note))
            })
        };
        let below = |value: Option<f64>, limit: f64| value.is_some_and(|value| value < limit);
        let above = |value: Option<f64>, limit: f64| value.is_some_and(|value| value > limit);
        let is_data = is(language, "json") || is(language, "yaml");
        let shows_little = || {
            let chars = signals.visible.is_some_and(|n| n <= config.min_visible_chars);
            let share = signals.visible_share().is_some_and(|share| share <= config.min_visible);
            (chars && config.min_visible_chars > 0) || (share && config.min_visible > 0.0)
        };
        if config.max_line_chars != 0 && signals.max_line_chars > config.max_line_chars {
            Some("long_line")
        } else if config.max_mean_line_chars != 0.0 && mean > config.max_mean_line_chars {
            Some("long_mean_line")
        } else if alphanumeric < config.min_alphanumeric {
            Some("too_few_alphanumeric_chars")
        } else if alphabetic < config.min_alphabetic {
            Some("too_few_alphabetic_chars")
        } else if config.drop_xml && is_xml() {
            Some("xml_header")
        } else if signals.chars < config.min_chars {
            Some("too_small")
        } else if config.max_chars != 0 && signals.chars > config.max_chars {
            Some("too_large")
        } else if is_data && signals.chars < config.data_min_chars {
            Some("too_small")
        } else if is_data && config.data_max_chars != 0 && signals.chars > config.data_max_chars {
            Some("too_large")
        } else if shows_little() {
            Some("too_little_visible_text")
        } else if below(signals.comments, config.min_comments) {
            Some("too_few_comments")
        } else if config.max_comments > 0.0 && above(signals.comments, config.max_comments) {
            Some("too_many_comments")
        } else if below(signals.chars_per_token, config.min_chars_per_token) {
            Some("too_few_chars_per_token")
        } else if is_generated() {
            Some("generated")
        } else {
            None
        }
    }
}

impl Filter for StarcoderCode {
    fn judge(&self, documents: &RecordBatch) -> Result<Verdicts> {
        let texts: Vec<&str> =
            text_column(documents)?.iter().map(Option::unwrap_or_default).collect();
        let languages: Vec<Option<&str>> = match self.config.language.as_str() {
            "" => languages(documents),
            language => vec![Some(language); texts.len()],
        };
        let mut rows: Vec<Signals> =
            texts.iter().zip(&languages).map(|(text, language)| measure(text, *language)).collect();
        for (text, row) in texts.iter().zip(&mut rows) {
            row.chars_per_token = self.chars_per_token(text, row.chars)?;
        }
        let reasons: StringArray = texts
            .iter()
            .zip(languages)
            .zip(&rows)
            .map(|((text, language), signals)| self.reason(text, language, signals))
            .collect();
        let counts = |get: fn(&Signals) -> u64| -> ArrayRef {
            Arc::new(rows.iter().map(|signals| Some(get(signals))).collect::<UInt64Array>())
        };
        let floats = |get: fn(&Signals) -> Option<f64>| -> ArrayRef {
            Arc::new(rows.iter().map(get).collect::<Float64Array>())
        };
        let signals = vec![
            counts(|signals| signals.chars),
            counts(|signals| signals.max_line_chars),
            floats(|signals| signals.mean_line_chars),
            floats(|signals| signals.alphanumeric),
            floats(|signals| signals.alphabetic),
            floats(|signals| signals.comments),
            floats(Signals::visible_share),
            floats(|signals| signals.chars_per_token),
        ];
        Ok(Verdicts { reasons, signals })
    }
}

/// Returns `code_language` of each row's metadata; SQL gives the text alone.
fn languages(documents: &RecordBatch) -> Vec<Option<&str>> {
    let none = vec![None; documents.num_rows()];
    let Some(metadata) = documents
        .column_by_name("metadata")
        .and_then(|column| column.as_any().downcast_ref::<MapArray>())
    else {
        return none;
    };
    let (Some(keys), Some(values)) =
        (metadata.keys().as_string_opt::<i32>(), metadata.values().as_string_opt::<i32>())
    else {
        return none;
    };
    let offsets = metadata.value_offsets();
    let language = |row: usize| {
        let entry = |at: i32| usize::try_from(at).expect("offsets are positive");
        let mut entries = entry(offsets[row])..entry(offsets[row + 1]);
        let found = entries.find(|&at| keys.value(at) == "code_language")?;
        (!metadata.is_null(row)).then(|| values.value(found))
    };
    (0..documents.num_rows()).map(language).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::tests::{reasons, verdicts};

    /// Measured by Python with the expressions of bigcode-dataset; see `make_starcoder.py` beside it.
    #[test]
    fn measures_and_decides_as_bigcode_dataset_does() {
        let golden = include_str!("../../tests/golden/starcoder.json");
        let golden: Vec<serde_json::Value> = serde_json::from_str(golden).unwrap();
        let texts: Vec<&str> = golden.iter().map(|case| case["text"].as_str().unwrap()).collect();
        let verdicts = verdicts(&KIND, "", &texts);
        let count = |index: usize| {
            verdicts.signals[index].as_any().downcast_ref::<UInt64Array>().unwrap().clone()
        };
        let float = |index: usize| {
            verdicts.signals[index].as_any().downcast_ref::<Float64Array>().unwrap().clone()
        };
        let (n, longest) = (count(0), count(1));
        let (mean, alphanumeric, alphabetic) = (float(2), float(3), float(4));
        for (row, case) in golden.iter().enumerate() {
            assert_eq!(
                verdicts.reasons.iter().nth(row).unwrap(),
                case["reason"].as_str(),
                "{case}"
            );
            let near = |found: f64, key: &str| (found - case[key].as_f64().unwrap()).abs() < 1e-12;
            assert_eq!(Some(n.value(row)), case["size"].as_u64(), "{case}");
            assert_eq!(Some(longest.value(row)), case["max_line_length"].as_u64(), "{case}");
            assert!(near(mean.value(row), "avg_line_length"), "{case}");
            assert!(near(alphanumeric.value(row), "alphanum_fraction"), "{case}");
            assert!(near(alphabetic.value(row), "alphabetic_fraction"), "{case}");
        }
    }

    #[test]
    fn has_limits_for_data_formats() {
        let check = |config: &str, text: &str, expected: Option<&str>| {
            assert_eq!(reasons(&KIND, config, &[text]), [expected.map(str::to_owned)], "{config}");
        };
        check("min_chars = 100\nmax_chars = 5000", "{\"a\": 1}", Some("too_small"));
        check("min_chars = 100\nmax_chars = 5000", &"key: value\n".repeat(500), Some("too_large"));
        check("min_alphabetic = 0.5", "1 2 3 4 abc", Some("too_few_alphabetic_chars"));
        check("generated_lines = 0", "# auto-generated\nx = 1\n", None);
        check("drop_xml = false", "<?xml version='1.0'?><a>text</a>", None);
        check("", "", Some("empty"));
    }
}
