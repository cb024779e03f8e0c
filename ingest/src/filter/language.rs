//! Keeps documents of some languages.
//!
//! Only the first [`HEAD_BYTES`] of a text are looked at: one page is of one language, and more text makes no label better
//! while the cost grows with it.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use whatlang::Lang;

use super::{Filter, FilterKind, Signal, Verdicts, config, text_column};
use crate::Result;

pub(super) const KIND: FilterKind = FilterKind {
    name: "language",
    summary: "keeps documents of the languages that are asked for",
    source: "trigram and script profiles of whatlang 0.18 (Cavnar and Trenkle 1994)",
    signals: &[
        Signal { name: "language", data_type: DataType::Utf8, summary: "ISO 639-1 code" },
        Signal {
            name: "language_score",
            data_type: DataType::Float64,
            summary: "certainty of the language, 0 to 1",
        },
    ],
    reasons: &["language_not_kept", "low_language_score"],
    default_config: config::defaults::<Config>,
    build: |table| Ok(Box::new(Language::new(config::from_table("language", table)?)?)),
};

/// Bytes of a text that are looked at, up to the next character boundary below.
const HEAD_BYTES: usize = 4096;

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// What labels the text: `whatlang`.
    model: String,
    /// ISO 639-1 codes; an empty list keeps every language.
    keep: Vec<String>,
    /// Least score of a document in a kept language.
    min_score: f64,
}

impl Default for Config {
    fn default() -> Self {
        // FineWeb keeps English above 0.65 (datatrove `LanguageFilter`).
        Self { model: "whatlang".to_owned(), keep: vec!["en".to_owned()], min_score: 0.65 }
    }
}

/// Names the language of a text.
trait Labeller: fmt::Debug + Send + Sync {
    /// Returns the ISO 639-1 code of `text` with a score from 0 to 1, nothing where no letter tells.
    fn label(&self, text: &str) -> Option<(&'static str, f64)>;
}

#[derive(Debug)]
struct Whatlang;

impl Labeller for Whatlang {
    fn label(&self, text: &str) -> Option<(&'static str, f64)> {
        let info = whatlang::detect(text)?;
        Some((iso_639_1(info.lang()), info.confidence()))
    }
}

#[derive(Debug)]
struct Language {
    labeller: Box<dyn Labeller>,
    config: Config,
}

impl Language {
    fn new(config: Config) -> Result<Self> {
        if config.model != "whatlang" {
            let message = format!("there is no model `{}`\nhint: use `whatlang`", config.model);
            return Err(config::invalid("language", message));
        }
        if !(0.0..=1.0).contains(&config.min_score) {
            let message = format!("`min_score` is {}, allowed is 0 to 1", config.min_score);
            return Err(config::invalid("language", message));
        }
        let known = |code: &String| Lang::all().iter().any(|&lang| iso_639_1(lang) == code);
        if let Some(code) = config.keep.iter().find(|code| !known(code)) {
            let message = format!(
                "`keep` holds `{code}`, which `{}` never says\nhint: use ISO 639-1 codes such as `en`",
                config.model
            );
            return Err(config::invalid("language", message));
        }
        Ok(Self { labeller: Box::new(Whatlang), config })
    }

    fn reason(&self, label: Option<(&str, f64)>) -> Option<&'static str> {
        let keep = &self.config.keep;
        let is_kept = |code: &str| keep.is_empty() || keep.iter().any(|kept| kept == code);
        match label {
            Some((code, _)) if !is_kept(code) => Some("language_not_kept"),
            Some((_, score)) if score < self.config.min_score => Some("low_language_score"),
            Some(_) => None,
            None => Some("language_not_kept"),
        }
    }
}

impl Filter for Language {
    fn judge(&self, documents: &RecordBatch) -> Result<Verdicts> {
        let texts = text_column(documents)?;
        let label = |text: Option<&str>| self.labeller.label(head(text.unwrap_or_default()));
        let labels: Vec<_> = texts.iter().map(label).collect();
        let reasons: StringArray = labels.iter().map(|&label| self.reason(label)).collect();
        let codes: StringArray = labels.iter().map(|label| label.map(|(code, _)| code)).collect();
        let scores: Float64Array =
            labels.iter().map(|label| label.map(|(_, score)| score)).collect();
        let signals: Vec<ArrayRef> = vec![Arc::new(codes), Arc::new(scores)];
        Ok(Verdicts { reasons, signals })
    }
}

fn head(text: &str) -> &str {
    &text[..text.floor_char_boundary(HEAD_BYTES)]
}

/// The two-letter code of each language that whatlang knows; Mandarin is `zh`, Bokmål `no`, Tagalog `tl`.
fn iso_639_1(lang: Lang) -> &'static str {
    match lang {
        Lang::Epo => "eo",
        Lang::Eng => "en",
        Lang::Rus => "ru",
        Lang::Cmn => "zh",
        Lang::Spa => "es",
        Lang::Por => "pt",
        Lang::Ita => "it",
        Lang::Ben => "bn",
        Lang::Fra => "fr",
        Lang::Deu => "de",
        Lang::Ukr => "uk",
        Lang::Kat => "ka",
        Lang::Ara => "ar",
        Lang::Hin => "hi",
        Lang::Jpn => "ja",
        Lang::Heb => "he",
        Lang::Yid => "yi",
        Lang::Pol => "pl",
        Lang::Amh => "am",
        Lang::Jav => "jv",
        Lang::Kor => "ko",
        Lang::Nob => "no",
        Lang::Dan => "da",
        Lang::Swe => "sv",
        Lang::Fin => "fi",
        Lang::Tur => "tr",
        Lang::Nld => "nl",
        Lang::Hun => "hu",
        Lang::Ces => "cs",
        Lang::Ell => "el",
        Lang::Bul => "bg",
        Lang::Bel => "be",
        Lang::Mar => "mr",
        Lang::Kan => "kn",
        Lang::Ron => "ro",
        Lang::Slv => "sl",
        Lang::Hrv => "hr",
        Lang::Srp => "sr",
        Lang::Mkd => "mk",
        Lang::Lit => "lt",
        Lang::Lav => "lv",
        Lang::Est => "et",
        Lang::Tam => "ta",
        Lang::Vie => "vi",
        Lang::Urd => "ur",
        Lang::Tha => "th",
        Lang::Guj => "gu",
        Lang::Uzb => "uz",
        Lang::Pan => "pa",
        Lang::Aze => "az",
        Lang::Ind => "id",
        Lang::Tel => "te",
        Lang::Pes => "fa",
        Lang::Mal => "ml",
        Lang::Ori => "or",
        Lang::Mya => "my",
        Lang::Nep => "ne",
        Lang::Sin => "si",
        Lang::Khm => "km",
        Lang::Tuk => "tk",
        Lang::Aka => "ak",
        Lang::Zul => "zu",
        Lang::Sna => "sn",
        Lang::Afr => "af",
        Lang::Lat => "la",
        Lang::Slk => "sk",
        Lang::Cat => "ca",
        Lang::Tgl => "tl",
        Lang::Hye => "hy",
        Lang::Cym => "cy",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::tests::reasons;

    // Universal Declaration of Human Rights, article 1.
    const ENGLISH: &str = "All human beings are born free and equal in dignity and rights. They are endowed with \
        reason and conscience and should act towards one another in a spirit of brotherhood.";
    const GERMAN: &str = "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft \
        und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.";

    fn check(config: &str, text: &str, expected: Option<&str>) {
        assert_eq!(reasons(&KIND, config, &[text]), [expected.map(str::to_owned)], "{text:?}");
    }

    #[test]
    fn keeps_the_languages_that_are_asked_for() {
        check("", ENGLISH, None);
        check("", GERMAN, Some("language_not_kept"));
        check("keep = ['de', 'fr']", GERMAN, None);
        check("keep = []\nmin_score = 0.0", GERMAN, None);
    }

    #[test]
    fn drops_text_without_letters() {
        check("keep = []", "1234 5678", Some("language_not_kept"));
    }

    #[test]
    fn looks_at_the_head_of_a_text_only() {
        let long = ENGLISH.repeat(30) + &GERMAN.repeat(100);
        check("", &long, None);
        assert_eq!(head(&"ä".repeat(HEAD_BYTES)).len(), HEAD_BYTES);
        assert_eq!(head(&format!("a{}", "ä".repeat(HEAD_BYTES))).len(), HEAD_BYTES - 1);
    }

    #[test]
    fn refuses_codes_and_models_that_do_not_exist() {
        for config in ["keep = ['eng']", "model = 'oracle'", "min_score = 1.5"] {
            let table: toml::Table = config.parse().unwrap();
            assert!((KIND.build)(&table).is_err(), "{config}");
        }
    }
}
