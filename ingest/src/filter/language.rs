//! Keeps documents of some languages.
//!
//! Without a model, whatlang looks at the first [`HEAD_BYTES`] of a text: one page is of one language. With the path of a
//! fastText model (lid.176, GlotLID, any other) the whole text is labelled, as one line: ends of lines become blanks, which
//! is what datatrove, dolma and CCNet do before they ask. Labels and scores are fastText's.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use whatlang::Lang;

use super::{FileKey, Filter, FilterKind, Signal, Verdicts, config, ratio, text_column};
use crate::Result;
use crate::fasttext::{Model, Scratch};

pub(super) const KIND: FilterKind = FilterKind {
    name: "language",
    summary: "keeps documents of the languages that are asked for",
    source: "trigram and script profiles of whatlang 0.18 (Cavnar and Trenkle 1994), or a fastText model (Joulin et al. 2017)",
    signals: &[
        Signal {
            name: "language",
            data_type: DataType::Utf8,
            summary: "label of the model; ISO 639-1 of whatlang and lid.176",
        },
        Signal {
            name: "language_score",
            data_type: DataType::Float64,
            summary: "certainty of the language, 0 to 1",
        },
        Signal {
            name: "language_share",
            data_type: DataType::Float64,
            summary: "share of bytes in paragraphs of this language, 0 to 1; 1 where documents are labelled as one",
        },
    ],
    reasons: &["language_not_kept", "low_language_score"],
    files: &[FileKey { key: "model", none: WHATLANG }],
    default_config: config::defaults::<Config>,
    build: |table| Ok(Box::new(Language::new(config::from_table("language", table)?)?)),
};

/// The model that is built in.
pub(super) const WHATLANG: &str = "whatlang";
/// Bytes of a text that whatlang looks at, up to the next character boundary below.
const HEAD_BYTES: usize = 4096;

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// What labels the text: `whatlang`, or the path of a fastText model.
    model: String,
    /// Labels of the model (`en`, `eng_Latn`, or `eng` for every script); an empty list keeps every language.
    keep: Vec<String>,
    /// Least score of a document in a kept language.
    min_score: f64,
    /// Label each line by itself: a document is of the language that most of its bytes are in.
    by_paragraph: bool,
}

impl Default for Config {
    fn default() -> Self {
        // FineWeb keeps English above 0.65 (datatrove `LanguageFilter`).
        Self {
            model: WHATLANG.to_owned(),
            keep: vec!["en".to_owned()],
            min_score: 0.65,
            by_paragraph: false,
        }
    }
}

/// Names the language of a text.
trait Labeller: fmt::Debug + Send + Sync {
    /// Every label there is.
    fn labels(&self) -> Vec<&str>;

    /// Returns the label of `text` with a score, nothing where nothing tells.
    fn label(&self, text: &str, scratch: &mut Scratch) -> Option<(&str, f64)>;
}

#[derive(Debug)]
struct Whatlang;

impl Labeller for Whatlang {
    fn labels(&self) -> Vec<&str> {
        Lang::all().iter().map(|&lang| iso_639_1(lang)).collect()
    }

    fn label(&self, text: &str, _: &mut Scratch) -> Option<(&str, f64)> {
        let info = whatlang::detect(head(text))?;
        Some((iso_639_1(info.lang()), info.confidence()))
    }
}

impl Labeller for Model {
    fn labels(&self) -> Vec<&str> {
        self.labels().iter().map(String::as_str).collect()
    }

    fn label(&self, text: &str, scratch: &mut Scratch) -> Option<(&str, f64)> {
        let (label, score) = self.predict(text, scratch)?;
        Some((&self.labels()[label], f64::from(score)))
    }
}

#[derive(Debug)]
struct Language {
    labeller: Box<dyn Labeller>,
    config: Config,
}

/// What a document was found to be.
struct Found<'a> {
    label: &'a str,
    score: f64,
    share: f64,
}

impl Language {
    fn new(config: Config) -> Result<Self> {
        if !(0.0..=1.0).contains(&config.min_score) {
            let message = format!("`min_score` is {}, allowed is 0 to 1", config.min_score);
            return Err(config::invalid("language", message));
        }
        let labeller: Box<dyn Labeller> = if config.model == WHATLANG {
            Box::new(Whatlang)
        } else if Path::new(&config.model).is_file() {
            Box::new(Model::open(Path::new(&config.model))?)
        } else {
            let message = format!(
                "there is no model `{}`\nhint: use `{WHATLANG}` or the path of a fastText model",
                config.model
            );
            return Err(config::invalid("language", message));
        };
        let labels = labeller.labels();
        let is_known = |code: &String| labels.iter().any(|label| is_language(label, code));
        if let Some(code) = config.keep.iter().find(|code| !is_known(code)) {
            let some = labels.iter().take(5).map(|label| format!("`{label}`"));
            let message = format!(
                "`keep` holds `{code}`, which `{}` never says\nhint: use labels such as {}",
                config.model,
                some.collect::<Vec<_>>().join(", ")
            );
            return Err(config::invalid("language", message));
        }
        Ok(Self { labeller, config })
    }

    fn find(&self, text: &str, scratch: &mut Scratch) -> Option<Found<'_>> {
        if self.config.by_paragraph {
            return self.find_by_paragraph(text, scratch);
        }
        let (label, score) = self.labeller.label(text, scratch)?;
        Some(Found { label, score, share: 1.0 })
    }

    /// Returns the language of most bytes, with the mean score over these bytes. Of equals the first counts.
    fn find_by_paragraph(&self, text: &str, scratch: &mut Scratch) -> Option<Found<'_>> {
        // Label, bytes, and bytes times score: a document has few languages.
        let mut tally: Vec<(&str, u64, f64)> = Vec::new();
        for paragraph in text.lines().filter(|line| !line.trim().is_empty()) {
            let Some((label, score)) = self.labeller.label(paragraph, scratch) else { continue };
            let bytes = paragraph.len() as u64;
            #[expect(clippy::cast_precision_loss, reason = "bytes of one text are below 2^53")]
            let weighted = bytes as f64 * score;
            match tally.iter_mut().find(|(known, ..)| *known == label) {
                Some((_, sum, scores)) => (*sum, *scores) = (*sum + bytes, *scores + weighted),
                None => tally.push((label, bytes, weighted)),
            }
        }
        let total = tally.iter().map(|(_, bytes, _)| bytes).sum();
        let (label, bytes, scores) = tally.into_iter().rev().max_by_key(|(_, bytes, _)| *bytes)?;
        #[expect(clippy::cast_precision_loss, reason = "bytes of one text are below 2^53")]
        let score = scores / bytes as f64;
        Some(Found { label, score, share: ratio(bytes, total)? })
    }

    fn reason(&self, found: Option<&Found<'_>>) -> Option<&'static str> {
        let keep = &self.config.keep;
        let is_kept =
            |label: &str| keep.is_empty() || keep.iter().any(|code| is_language(label, code));
        match found {
            Some(found) if !is_kept(found.label) => Some("language_not_kept"),
            Some(found) if found.score < self.config.min_score => Some("low_language_score"),
            Some(_) => None,
            None => Some("language_not_kept"),
        }
    }
}

/// Whether `label` is `code`, or `code` with a script: `eng_Latn` is `eng`.
fn is_language(label: &str, code: &str) -> bool {
    label.strip_prefix(code).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

impl Filter for Language {
    fn judge(&self, documents: &RecordBatch) -> Result<Verdicts> {
        let mut scratch = Scratch::default();
        let texts = text_column(documents)?.iter().map(Option::unwrap_or_default);
        let found: Vec<_> = texts.map(|text| self.find(text, &mut scratch)).collect();
        let reasons: StringArray = found.iter().map(|found| self.reason(found.as_ref())).collect();
        let labels: StringArray =
            found.iter().map(|found| found.as_ref().map(|found| found.label)).collect();
        let number = |value: fn(&Found<'_>) -> f64| -> Float64Array {
            found.iter().map(|found| found.as_ref().map(value)).collect()
        };
        let scores = number(|found| found.score);
        let shares = number(|found| found.share);
        let signals: Vec<ArrayRef> = vec![Arc::new(labels), Arc::new(scores), Arc::new(shares)];
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
    use arrow::array::Array;

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
    fn labels_with_a_fasttext_model_by_path() {
        let Some(folder) = crate::source::testing::data("langid") else { return };
        let model = format!("model = '{}'", folder.join("lid.176.ftz").display());
        check(&format!("{model}\nmin_score = 0.9"), ENGLISH, None);
        check(&model, GERMAN, Some("language_not_kept"));
        check(&format!("{model}\nkeep = ['de']"), GERMAN, None);
        check(
            &format!("{model}\nkeep = ['de']\nmin_score = 1.0"),
            GERMAN,
            Some("low_language_score"),
        );
        let table: toml::Table = format!("{model}\nkeep = ['tlh']").parse().unwrap();
        let error = (KIND.build)(&table).unwrap_err().to_string();
        assert!(error.contains("`tlh`, which"), "{error}");
    }

    #[test]
    fn a_script_may_be_left_out() {
        for (label, code, expected) in [
            ("eng_Latn", "eng", true),
            ("eng_Latn", "eng_Latn", true),
            ("eng_Latn", "en", false),
            ("en", "eng", false),
            ("en", "en", true),
        ] {
            assert_eq!(is_language(label, code), expected, "{label} {code}");
        }
    }

    #[test]
    fn counts_the_bytes_of_each_paragraph() {
        let text = format!("{ENGLISH}\n\n{GERMAN}\n{GERMAN}\n");
        let verdicts =
            crate::filter::tests::verdicts(&KIND, "by_paragraph = true\nkeep = ['de']", &[&text]);
        assert!(verdicts.reasons.is_null(0));
        let share = verdicts.signals[2].as_any().downcast_ref::<Float64Array>().unwrap().value(0);
        let (english, german) = (ENGLISH.len() as f64, 2.0 * GERMAN.len() as f64);
        assert!((share - german / (english + german)).abs() < 1e-12, "{share}");
        check("by_paragraph = true", "\n \n", Some("language_not_kept"));
    }

    #[test]
    fn refuses_codes_and_models_that_do_not_exist() {
        for config in ["keep = ['eng']", "model = 'oracle'", "min_score = 1.5"] {
            let table: toml::Table = config.parse().unwrap();
            assert!((KIND.build)(&table).is_err(), "{config}");
        }
    }
}
