//! Drops text that does not read like prose: too few words, too many symbols, no stop words.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray, UInt64Array};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::words::{self, Word, class, classes};
use super::{
    Analysis, Filter, FilterKind, Signal, Verdicts, config, lines, ratio, split_at_feeds,
    text_column,
};
use crate::Result;

pub(super) const KIND: FilterKind = FilterKind {
    name: "gopher_quality",
    summary: "word, symbol and stop-word rules for web text",
    source: "Rae et al. 2021, MassiveText quality filters; profile `datatrove`: datatrove 0.10.1, gopher_quality_filter.py; `dolma-v1`, `dolma-v2`: dolma 1.2.1, taggers/gopher.py with the limits of Dolma 1.5; `dclm`: DCLM, content_filters.py as in dclm_baseline_refinedweb.yaml",
    signals: &[
        Signal {
            name: "word_count",
            data_type: DataType::UInt64,
            summary: "words that are not all punctuation",
        },
        Signal {
            name: "mean_word_length",
            data_type: DataType::Float64,
            summary: "characters of such a word; the median with the profiles of dolma",
        },
        Signal {
            name: "hash_ratio",
            data_type: DataType::Float64,
            summary: "`#` per word; words with `#` or `…` with the profiles of dolma; all symbols with `dclm`",
        },
        Signal {
            name: "ellipsis_ratio",
            data_type: DataType::Float64,
            summary: "`...` and `…` per word",
        },
        Signal {
            name: "bullet_lines",
            data_type: DataType::Float64,
            summary: "share of lines that begin with `•` or `-`",
        },
        Signal {
            name: "ellipsis_lines",
            data_type: DataType::Float64,
            summary: "share of lines that end in `...` or `…`",
        },
        Signal {
            name: "alphabetic_words",
            data_type: DataType::Float64,
            summary: "share of words with a letter",
        },
        Signal { name: "stop_words", data_type: DataType::UInt64, summary: "different stop words" },
    ],
    reasons: &[
        "too_few_words",
        "too_many_words",
        "words_too_short",
        "words_too_long",
        "too_many_hashes",
        "too_many_ellipses",
        "too_many_symbols",
        "too_many_bullet_lines",
        "too_many_ellipsis_lines",
        "too_few_alphabetic_words",
        "too_few_stop_words",
    ],
    files: &[],
    default_config: config::defaults::<Config>,
    build: |table| {
        Ok(Box::new(GopherQuality { config: config::from_table("gopher_quality", table)? }))
    },
};

/// Whose reading of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Profile {
    /// Words are spaCy's tokens; punctuation counts as words in the ratios.
    Datatrove,
    /// Words are what stands between white space, their length is the median, a stop word counts each time.
    #[serde(rename = "dolma-v1")]
    DolmaV1,
    /// The same; blank lines are no lines.
    #[serde(rename = "dolma-v2")]
    DolmaV2,
    /// Words are what stands between white space, only their number is of those that begin with a letter or digit; a stop word counts
    /// each time, in any case; symbols count together, and lines are stripped, blank ones left out.
    Dclm,
}

/// A limit of 0 switches its rule off, as it does in datatrove.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    profile: Profile,
    min_words: u64,
    max_words: u64,
    min_mean_word_length: f64,
    max_mean_word_length: f64,
    max_symbol_ratio: f64,
    max_bullet_lines: f64,
    max_ellipsis_lines: f64,
    min_alphabetic_words: f64,
    min_stop_words: u64,
    /// Compared as written, case and all.
    stop_words: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        // Rae et al. 2021, appendix A1.1; the stop words are those of the paper.
        Self {
            profile: Profile::Datatrove,
            min_words: 50,
            max_words: 100_000,
            min_mean_word_length: 3.0,
            max_mean_word_length: 10.0,
            max_symbol_ratio: 0.1,
            max_bullet_lines: 0.9,
            max_ellipsis_lines: 0.3,
            min_alphabetic_words: 0.8,
            min_stop_words: 2,
            stop_words: ["the", "be", "to", "of", "and", "that", "have", "with"]
                .map(str::to_owned)
                .to_vec(),
        }
    }
}

#[derive(Debug)]
struct GopherQuality {
    config: Config,
}

/// What is measured of a text; the ratios are null where there is nothing to divide by.
#[derive(Clone, Copy, Debug)]
struct Signals {
    word_count: u64,
    mean_word_length: Option<f64>,
    hash_ratio: Option<f64>,
    ellipsis_ratio: Option<f64>,
    bullet_lines: Option<f64>,
    ellipsis_lines: Option<f64>,
    alphabetic_words: Option<f64>,
    stop_words: u64,
}

impl Filter for GopherQuality {
    fn judge(&self, documents: &RecordBatch) -> Result<Verdicts> {
        self.judge_with(documents, &mut Analysis::default())
    }

    fn judge_with(&self, documents: &RecordBatch, analysis: &mut Analysis) -> Result<Verdicts> {
        let texts = text_column(documents)?;
        let rows: Vec<Signals> = if self.config.profile == Profile::Datatrove {
            let words = analysis.words(texts).iter();
            let rows = texts.iter().zip(words);
            rows.map(|(text, words)| self.measure(text.unwrap_or_default(), words)).collect()
        } else if self.config.profile == Profile::Dclm {
            texts.iter().map(|text| self.measure_as_dclm(text.unwrap_or_default())).collect()
        } else {
            texts.iter().map(|text| self.measure_as_dolma(text.unwrap_or_default())).collect()
        };
        let reasons: StringArray = rows.iter().map(|signals| self.reason(signals)).collect();
        let floats = |get: fn(&Signals) -> Option<f64>| -> ArrayRef {
            Arc::new(rows.iter().map(get).collect::<Float64Array>())
        };
        let counts = |get: fn(&Signals) -> u64| -> ArrayRef {
            Arc::new(rows.iter().map(get).collect::<UInt64Array>())
        };
        let signals = vec![
            counts(|signals| signals.word_count),
            floats(|signals| signals.mean_word_length),
            floats(|signals| signals.hash_ratio),
            floats(|signals| signals.ellipsis_ratio),
            floats(|signals| signals.bullet_lines),
            floats(|signals| signals.ellipsis_lines),
            floats(|signals| signals.alphabetic_words),
            counts(|signals| signals.stop_words),
        ];
        Ok(Verdicts { reasons, signals })
    }
}

impl GopherQuality {
    fn measure(&self, text: &str, words: &[Word]) -> Signals {
        let (mut n_plain, mut plain_chars, mut n_alphabetic) = (0u64, 0u64, 0u64);
        // One bit per stop word; the list is short, and a second byte that fits is rarer than a word.
        let mut stops = vec![false; self.config.stop_words.len()];
        for word in words {
            let is_plain = word.all & class::PUNCTUATION == 0;
            n_plain += u64::from(is_plain);
            plain_chars += if is_plain { u64::from(word.chars) } else { 0 };
            n_alphabetic += u64::from(word.some & class::LETTER != 0);
            let word = &text[word.range()];
            for (seen, stop) in stops.iter_mut().zip(&self.config.stop_words) {
                *seen |= stop == word;
            }
        }
        let n_words = words.len() as u64;
        let n_ellipses = memchr::memmem::find_iter(text.as_bytes(), "...").count()
            + memchr::memmem::find_iter(text.as_bytes(), "…").count();
        let (mut n_lines, mut n_bullets, mut n_ellipsis_ends) = (0u64, 0u64, 0u64);
        for line in lines(text) {
            n_lines += 1;
            n_bullets += u64::from(trim_start(line).starts_with(['•', '-']));
            let end = trim_end(line);
            n_ellipsis_ends += u64::from(end.ends_with("...") || end.ends_with('…'));
        }
        Signals {
            word_count: n_plain,
            mean_word_length: ratio(plain_chars, n_plain),
            hash_ratio: ratio(memchr::memchr_iter(b'#', text.as_bytes()).count() as u64, n_words),
            ellipsis_ratio: ratio(n_ellipses as u64, n_words),
            bullet_lines: ratio(n_bullets, n_lines),
            ellipsis_lines: ratio(n_ellipsis_ends, n_lines),
            alphabetic_words: ratio(n_alphabetic, n_words),
            stop_words: stops.iter().filter(|&&seen| seen).count() as u64,
        }
    }

    fn measure_as_dolma(&self, text: &str) -> Signals {
        let words = words::split(text);
        let has_symbol = |word: &&Word| text[word.range()].contains(['#', '…']);
        let is_stop_word =
            |word: &&Word| self.config.stop_words.iter().any(|stop| *stop == text[word.range()]);
        let (mut n_lines, mut n_bullets, mut n_ellipsis_ends) = (0u64, 0u64, 0u64);
        let mut line = |line: &str| {
            n_lines += 1;
            n_bullets += u64::from(line.starts_with(['*', '-']));
            n_ellipsis_ends += u64::from(line.ends_with('…'));
        };
        match self.config.profile {
            Profile::DolmaV2 => split_at_feeds(text, 1).for_each(&mut line),
            _ => text.split('\n').for_each(&mut line),
        }
        let n_words = words.len() as u64;
        let count = |is: &dyn Fn(&&Word) -> bool| words.iter().filter(is).count() as u64;
        Signals {
            word_count: n_words,
            // Without words it is 0 there; `too_few_words` comes first.
            mean_word_length: median(words.iter().map(|word| word.chars).collect()),
            hash_ratio: ratio(count(&has_symbol), n_words),
            ellipsis_ratio: None,
            bullet_lines: ratio(n_bullets, n_lines),
            ellipsis_lines: ratio(n_ellipsis_ends, n_lines),
            alphabetic_words: ratio(count(&|word| word.some & class::LETTER != 0), n_words),
            stop_words: count(&is_stop_word),
        }
    }

    fn measure_as_dclm(&self, text: &str) -> Signals {
        let words = words::split(text);
        let n_words = words.len() as u64;
        let n_chars = words.iter().map(|word| u64::from(word.chars)).sum();
        let n_alphabetic = words.iter().filter(|word| word.some & class::LETTER != 0).count();
        let is_stop_word = |word: &&Word| {
            let word = text[word.range()].to_lowercase();
            self.config.stop_words.contains(&word)
        };
        let n_symbols: usize =
            ["#", "...", ". . .", "…"].iter().map(|symbol| text.matches(symbol).count()).sum();
        let (mut n_lines, mut n_bullets, mut n_ellipsis_ends) = (0u64, 0u64, 0u64);
        for line in text.split('\n').map(|line| trim_end(trim_start(line))) {
            n_lines += u64::from(!line.is_empty());
            n_bullets += u64::from(line.starts_with(['●', '•', '*', '-']));
            let is_end = ["...", ". . .", "…"].iter().any(|end| line.ends_with(end));
            n_ellipsis_ends += u64::from(is_end);
        }
        Signals {
            word_count: words::count_fasttext(text),
            mean_word_length: ratio(n_chars, n_words),
            hash_ratio: ratio(n_symbols as u64, n_words),
            ellipsis_ratio: None,
            bullet_lines: ratio(n_bullets, n_lines),
            ellipsis_lines: ratio(n_ellipsis_ends, n_lines),
            alphabetic_words: ratio(n_alphabetic as u64, n_words),
            stop_words: words.iter().filter(is_stop_word).count() as u64,
        }
    }

    /// The rules in the order of datatrove, which decides the reason.
    fn reason(&self, signals: &Signals) -> Option<&'static str> {
        let config = &self.config;
        let below = |value: Option<f64>, limit: f64| {
            limit != 0.0 && value.is_some_and(|value| value < limit)
        };
        let above = |value: Option<f64>, limit: f64| {
            limit != 0.0 && value.is_some_and(|value| value > limit)
        };
        let rules = [
            (config.min_words != 0 && signals.word_count < config.min_words, "too_few_words"),
            (config.max_words != 0 && signals.word_count > config.max_words, "too_many_words"),
            (below(signals.mean_word_length, config.min_mean_word_length), "words_too_short"),
            (above(signals.mean_word_length, config.max_mean_word_length), "words_too_long"),
            (
                above(signals.hash_ratio, config.max_symbol_ratio),
                match config.profile {
                    Profile::Datatrove => "too_many_hashes",
                    _ => "too_many_symbols",
                },
            ),
            (above(signals.ellipsis_ratio, config.max_symbol_ratio), "too_many_ellipses"),
            (above(signals.bullet_lines, config.max_bullet_lines), "too_many_bullet_lines"),
            (above(signals.ellipsis_lines, config.max_ellipsis_lines), "too_many_ellipsis_lines"),
            (
                below(signals.alphabetic_words, config.min_alphabetic_words),
                "too_few_alphabetic_words",
            ),
            (signals.stop_words < config.min_stop_words, "too_few_stop_words"),
        ];
        rules.into_iter().find(|(is_broken, _)| *is_broken).map(|(_, reason)| reason)
    }
}

fn median(mut values: Vec<u32>) -> Option<f64> {
    values.sort_unstable();
    let middle = values.len() / 2;
    let upper = f64::from(*values.get(middle)?);
    Some(if values.len() % 2 == 1 {
        upper
    } else {
        f64::midpoint(f64::from(values[middle - 1]), upper)
    })
}

fn trim_start(line: &str) -> &str {
    line.trim_start_matches(|c| classes(c) & class::SPACE != 0)
}

fn trim_end(line: &str) -> &str {
    line.trim_end_matches(|c| classes(c) & class::SPACE != 0)
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;

    use super::*;
    use crate::filter::tests::{reasons, verdicts};

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(reasons(&KIND, "", &[text]), [expected.map(str::to_owned)], "{text:?}");
    }

    // Each expectation follows from the numbers of the paper by hand.
    #[test]
    fn drops_documents_with_fewer_than_fifty_words() {
        check(&"the mill and river ".repeat(13), None);
        check(&"the mill and river ".repeat(12), Some("too_few_words"));
        check(
            &format!("{}{}", "the mill and river ".repeat(12), ". , ! ".repeat(9)),
            Some("too_few_words"),
        );
    }

    #[test]
    fn drops_short_and_long_words() {
        check(&"of an to ".repeat(20), Some("words_too_short"));
        check(&"the incomprehensibilities and ".repeat(20), None);
        check(&"incomprehensibilities notwithstanding the ".repeat(20), Some("words_too_long"));
    }

    #[test]
    fn drops_symbols_bullets_and_ellipses() {
        check(&"the mill and # river ".repeat(20), Some("too_many_hashes"));
        check(&"the mill and river … ".repeat(20), Some("too_many_ellipses"));
        check(
            &"- the mill and river and the people of it\n".repeat(20),
            Some("too_many_bullet_lines"),
        );
        check(
            &"the mill and river and all the people of the village came...\n".repeat(20),
            Some("too_many_ellipsis_lines"),
        );
        check(&"the miller 12 and 14 ".repeat(20), Some("too_few_alphabetic_words"));
        check(&"mill river miller grain ".repeat(20), Some("too_few_stop_words"));
        check(&"The Mill river And ".repeat(20), Some("too_few_stop_words"));
    }

    /// What DCLM's rules say of texts; `make_dclm.py` beside it says how.
    #[test]
    fn decides_as_dclm_does() {
        let golden = include_str!("../../tests/golden/dclm.json");
        let golden: Vec<serde_json::Value> = serde_json::from_str(golden).unwrap();
        let texts: Vec<&str> = golden.iter().map(|case| case["text"].as_str().unwrap()).collect();
        let found = reasons(&KIND, "profile = 'dclm'", &texts);
        for (case, found) in golden.iter().zip(found) {
            let rule = found.as_deref().map(|reason| match reason {
                "too_few_words" | "too_many_words" => "words",
                "words_too_short" | "words_too_long" => "word_length",
                "too_many_symbols" => "symbols",
                "too_many_bullet_lines" => "bullets",
                "too_many_ellipsis_lines" => "ellipses",
                "too_few_alphabetic_words" => "alphabetic",
                "too_few_stop_words" => "stop_words",
                other => panic!("{other}"),
            });
            assert_eq!(rule, case["quality"].as_str(), "{case}");
        }
    }

    #[test]
    fn measures_every_signal() {
        let verdicts = verdicts(&KIND, "", &["The mill # ...\n- the flour"]);
        let float = |index: usize| {
            verdicts.signals[index].as_any().downcast_ref::<Float64Array>().unwrap().value(0)
        };
        // Tokens: The mill # ... - the flour.
        assert_eq!(float(1), 15.0 / 4.0);
        assert_eq!((float(2), float(3)), (1.0 / 7.0, 1.0 / 7.0));
        assert_eq!((float(4), float(5), float(6)), (0.5, 0.5, 4.0 / 7.0));
    }
}
