//! Figures on labelled data: what was found of what is there, and what of what was found is right.

use super::*;

fn data() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    std::env::var_os("GRISTMILL_DATA").map_or_else(beside, PathBuf::from)
}

/// Label, and range in bytes.
type Span = (String, usize, usize);

/// Sentences with labelled spans, from a file of presidio-research.
fn sentences(name: &str) -> Option<Vec<(String, Vec<Span>)>> {
    let path = data().join("pii/presidio-research").join(name);
    let Ok(file) = std::fs::File::open(&path) else {
        eprintln!("skipped: no {}", path.display());
        return None;
    };
    let mut json = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut json).unwrap();
    let samples: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    let sentence = |sample: &serde_json::Value| {
        let text = sample["full_text"].as_str().unwrap().to_owned();
        let offset = |value: &serde_json::Value| {
            let at = usize::try_from(value.as_u64().unwrap()).unwrap();
            text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte)
        };
        let spans = sample["spans"].as_array().unwrap().iter().map(|span| {
            let label = span["entity_type"].as_str().unwrap().to_owned();
            (label, offset(&span["start_position"]), offset(&span["end_position"]))
        });
        let spans = spans.collect();
        (text, spans)
    };
    Some(samples.iter().map(sentence).collect())
}

/// Labels with a structure that a rule can know, and our kinds for them.
const LABELS: [(&str, Kind); 6] = [
    ("EMAIL_ADDRESS", Kind::Email),
    ("IP_ADDRESS", Kind::IpAddress),
    ("PHONE_NUMBER", Kind::Phone),
    ("CREDIT_CARD", Kind::Card),
    ("IBAN_CODE", Kind::Iban),
    ("US_SSN", Kind::NationalId),
];

fn check_sentences(name: &str) {
    let Some(sentences) = sentences(name) else { return };
    eprintln!("{name}: {} sentences", sentences.len());
    let masker = MaskPii::new(Config::default()).unwrap();
    let (mut all_true, mut all_found, mut all_hits, mut all_right) = (0, 0, 0, 0);
    for (label, kind) in LABELS {
        let (mut n_true, mut n_found, mut n_hits, mut n_right) = (0, 0, 0, 0);
        for (text, spans) in &sentences {
            let spans: Vec<_> = spans.iter().filter(|span| span.0 == label).collect();
            let hits: Vec<Hit> =
                masker.hits(text).0.into_iter().filter(|hit| hit.kind == kind).collect();
            // The whole of the span, and nothing beyond a mark on either side.
            let is_same = |hit: &Hit, span: &Span| {
                hit.start <= span.1
                    && span.2 <= hit.end
                    && hit.end - hit.start <= span.2 - span.1 + 2
            };
            n_true += spans.len();
            n_hits += hits.len();
            for span in spans.iter().filter(|span| !hits.iter().any(|hit| is_same(hit, span))) {
                eprintln!("  missed {label}: {:?} in {text:?}", &text[span.1..span.2]);
            }
            for hit in hits.iter().filter(|hit| !spans.iter().any(|span| is_same(hit, span))) {
                eprintln!("  wrong {}: {:?} in {text:?}", hit.rule, &text[hit.start..hit.end]);
            }
            n_found +=
                spans.iter().filter(|span| hits.iter().any(|hit| is_same(hit, span))).count();
            n_right +=
                hits.iter().filter(|hit| spans.iter().any(|span| is_same(hit, span))).count();
        }
        eprintln!("{label}: {n_found} of {n_true} found, {n_right} of {n_hits} hits right");
        all_true += n_true;
        all_found += n_found;
        all_hits += n_hits;
        all_right += n_right;
        assert!(n_found * 100 >= n_true * 95, "{label}: {n_found} of {n_true} found");
        assert!(n_right * 100 >= n_hits * 95, "{label}: {n_right} of {n_hits} right");
    }
    eprintln!("all: {all_found} of {all_true} found, {all_right} of {all_hits} right");
}

#[test]
fn finds_the_structured_kinds_of_the_presidio_sample() {
    check_sentences("data/synth_dataset_v2.json.gz");
}

#[test]
fn finds_the_structured_kinds_of_the_small_presidio_sample() {
    check_sentences("tests/data/generated_small.json.gz");
}

/// The corpus of the benchmark, of which `truth_pii.jsonl` says what was put into it.
#[test]
fn finds_what_was_planted_in_the_corpus() {
    let Some(corpus) = std::env::var_os("GRISTMILL_CORPUS").map(PathBuf::from) else {
        eprintln!("skipped: GRISTMILL_CORPUS names no corpus");
        return;
    };
    let json = |line: std::io::Result<String>| -> serde_json::Value {
        serde_json::from_str(&line.unwrap()).unwrap()
    };
    let truth = BufReader::new(std::fs::File::open(corpus.join("truth_pii.jsonl")).unwrap());
    let truth: std::collections::HashMap<String, (String, String)> = truth
        .lines()
        .map(json)
        .map(|row| {
            let field = |key: &str| row[key].as_str().unwrap().to_owned();
            (field("id"), (field("kind"), field("value")))
        })
        .collect();
    let masker =
        |config: &str| MaskPii::new(Config::read(&config.parse().unwrap()).unwrap()).unwrap();
    let (plain, private) = (masker(""), masker("private_addresses = true"));
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    let mut found = std::collections::BTreeMap::<&str, (usize, usize, usize)>::new();
    let wanted = std::env::var("GRISTMILL_SHOW_HITS").ok();
    let mut paths: Vec<_> = std::fs::read_dir(corpus.join("text/documents"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    for path in paths {
        let file = flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap());
        for row in BufReader::new(file).lines().map(json) {
            let text = row["text"].as_str().unwrap();
            let hits = plain.hits(text).0;
            for hit in &hits {
                *counts.entry(hit.rule).or_default() += 1;
                if wanted.as_deref().is_some_and(|wanted| wanted == "all" || wanted == hit.rule) {
                    let from = text.floor_char_boundary(hit.start.saturating_sub(40));
                    let to = text.ceil_char_boundary((hit.end + 30).min(text.len()));
                    eprintln!(
                        "HIT {} {:?} {:?} {:?}",
                        hit.rule,
                        &text[from..hit.start],
                        &text[hit.start..hit.end],
                        &text[hit.end..to]
                    );
                }
            }
            let Some((kind, value)) = truth.get(row["id"].as_str().unwrap()) else { continue };
            let holds = |hits: &[Hit]| {
                usize::from(hits.iter().any(|hit| text[hit.start..hit.end] == **value))
            };
            let entry = found.entry(kind).or_default();
            *entry = (entry.0 + 1, entry.1 + holds(&hits), entry.2 + holds(&private.hits(text).0));
        }
    }
    eprintln!("hits by rule: {counts:?}");
    for (kind, (n, n_plain, n_private)) in &found {
        eprintln!("{kind}: of {n} planted {n_plain} found, {n_private} with `private_addresses`");
        assert_eq!(n, n_private, "{kind}");
    }
    assert_eq!(found.values().map(|counts| counts.2).sum::<usize>(), truth.len());
}
