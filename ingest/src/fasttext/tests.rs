//! Models and answers of fastText 0.9.2 are in `tests/golden/fasttext`, with the script that made them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use super::*;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/fasttext").join(name)
}

const MODELS: [&str; 8] = [
    "negative.bin",
    "one-vs-all.bin",
    "pruned.ftz",
    "quantised.ftz",
    "softmax.bin",
    "tree.bin",
    "tree.ftz",
    "words.bin",
];

#[derive(serde::Deserialize)]
struct Answer {
    model: String,
    text: String,
    label: Option<String>,
    score: Option<f32>,
    scores: BTreeMap<String, f32>,
}

fn answers() -> Vec<Answer> {
    let text = std::fs::read_to_string(golden("expected.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Asserts that `model` answers as the reference does.
fn check(model: &Model, answer: &Answer, scratch: &mut Scratch) {
    let context = || format!("{} of {:?}", answer.model, answer.text);
    let close = |found: f32, wanted: f32| (found - wanted).abs() <= 1e-6 * wanted.max(1e-3);
    match (model.predict(&answer.text, scratch), &answer.label, answer.score) {
        (None, None, None) => {}
        (Some((label, score)), Some(wanted), Some(wanted_score)) => {
            assert_eq!(&model.labels()[label], wanted, "{}", context());
            assert!(close(score, wanted_score), "{}: {score}, {wanted_score}", context());
        }
        (found, ..) => panic!("{}: {found:?}, {:?}", context(), answer.label),
    }
    for (name, &wanted) in &answer.scores {
        let label = model.labels().iter().position(|label| label == name).unwrap();
        let score = model.probability(&answer.text, label, scratch).unwrap();
        assert!(close(score, wanted), "{} {name}: {score}, {wanted}", context());
    }
}

#[test]
fn answers_as_the_reference_whatever_the_loss_and_the_storage() {
    let answers = answers();
    let mut scratch = Scratch::default();
    let mut n = 0;
    for name in MODELS {
        let model = Model::open(&golden(name)).unwrap();
        for answer in answers.iter().filter(|answer| answer.model == name) {
            check(&model, answer, &mut scratch);
            n += 1;
        }
    }
    println!("{n} texts judged");
    assert_eq!(n, answers.len());
}

#[test]
fn packed_rows_answer_as_unpacked_ones() {
    let mut scratch = Scratch::default();
    for name in ["pruned.ftz", "tree.ftz", "quantised.ftz"] {
        let file = ModelFile::open(&golden(name)).unwrap();
        let Matrix::Quantized(packed) = file.input.clone() else { panic!("{name} is dense") };
        let mut model = Model::new(file, Path::new(name)).unwrap();
        model.input = Input::Packed(packed);
        for answer in answers().iter().filter(|answer| answer.model == name) {
            check(&model, answer, &mut scratch);
        }
    }
}

#[test]
fn writes_the_bytes_that_it_read() {
    for name in MODELS {
        let wanted = std::fs::read(golden(name)).unwrap();
        let file = ModelFile::open(&golden(name)).unwrap();
        let mut found = Vec::new();
        file.write(&mut found).unwrap();
        let again = ModelFile::read(found.as_slice(), found.len() as u64, Path::new(name)).unwrap();
        assert_eq!(again, file, "{name}");
        // The header has settings before that only training reads, which are not kept.
        assert_eq!(found[64..], wanted[64..], "{name}");
    }
}

#[test]
fn labels_and_scores_of_lid_176_equal_those_of_the_reference() {
    let Some(folder) = crate::source::testing::data("langid") else { return };
    let model = Model::open(&folder.join("lid.176.ftz")).unwrap();
    let golden = std::fs::read(golden("lid176-lingua.bin")).unwrap();
    let mut wanted = golden.as_chunks::<3>().0.iter();
    let mut scratch = Scratch::default();
    let mut n = 0;
    for text in lingua_sentences(&folder) {
        for line in text.split('\n') {
            let &[label, low, high] = wanted.next().expect("a record per sentence");
            let wanted = f32::from(u16::from_le_bytes([low, high])) / 65535.0 * 1.001;
            let found = model.predict(line, &mut scratch);
            let (found, score) = found.map_or((255, 0.0), |(label, score)| (label, score));
            assert_eq!(found, usize::from(label), "{line}");
            assert!((score - wanted).abs() < 1e-4, "{line}: {score}, {wanted}");
            n += 1;
        }
    }
    println!("{n} sentences judged");
    assert!(wanted.next().is_none(), "more records than sentences");
}

/// Returns the files of sentences in the order of their names.
fn lingua_sentences(folder: &Path) -> Vec<String> {
    let archive = std::fs::File::open(folder.join("lingua-testdata-30-langs.tar.gz")).unwrap();
    let mut bytes = Vec::new();
    flate2::read::MultiGzDecoder::new(archive).read_to_end(&mut bytes).unwrap();
    let mut files = BTreeMap::new();
    let mut at = 0;
    // A block of 512 bytes with a name and a size in octal, then the file, filled up to whole blocks.
    while at + 512 <= bytes.len() && bytes[at] != 0 {
        let field = |from: usize, to: usize| {
            let field = &bytes[at + from..at + to];
            let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
            String::from_utf8_lossy(&field[..end]).trim().to_owned()
        };
        let size = usize::from_str_radix(&field(124, 136), 8).unwrap();
        let text = &bytes[at + 512..][..size];
        if field(0, 100).ends_with("/sentences.txt") {
            files.insert(field(0, 100), String::from_utf8(text.to_vec()).unwrap());
        }
        at += 512 + size.next_multiple_of(512);
    }
    assert_eq!(files.len(), 30);
    files.into_values().collect()
}

#[test]
fn a_damaged_file_is_an_error_that_names_it() {
    for name in MODELS {
        let whole = std::fs::read(golden(name)).unwrap();
        let read = |bytes: &[u8]| {
            ModelFile::read(bytes, bytes.len() as u64, Path::new(name))
                .and_then(|file| Model::new(file, Path::new(name)))
        };
        for end in (0..whole.len()).step_by(whole.len() / 200 + 1) {
            let error = read(&whole[..end]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        assert!(read(&[&whole[..], b"more"].concat()).is_err());
        // Any four bytes may be anything: an error or a model, and neither a panic nor a huge allocation.
        for at in 0..whole.len().min(400) {
            for value in [-1, 0, i32::MAX, i32::MIN, 65_535] {
                let mut bytes = whole.clone();
                let end = bytes.len().min(at + 4);
                bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
                if let Ok(model) = read(&bytes) {
                    model.predict("abc abd 漢字", &mut Scratch::default());
                }
            }
        }
    }
}

#[test]
fn says_what_is_wrong_with_a_file() {
    let check = |bytes: &[u8], expected: &str| {
        let error = ModelFile::read(bytes, bytes.len() as u64, Path::new("x.bin")).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(b"PK\x03\x04 and more", "it begins with 67324752");
    let mut bytes = std::fs::read(golden("words.bin")).unwrap();
    bytes[4] = 13;
    check(&bytes, "it is of version 13");
    bytes[4] = 12;
    // The kind of model stands behind nine numbers.
    bytes[36] = 1;
    check(&bytes, "it holds word vectors");
    bytes[36] = 3;
    bytes[8] = 0;
    check(&bytes, "the dimension is 0");
}

#[test]
fn ends_of_lines_are_blanks() {
    let model = Model::open(&golden("softmax.bin")).unwrap();
    let mut scratch = Scratch::default();
    let wanted = model.predict("abc  fed a", &mut scratch);
    assert_eq!(model.predict("abc\r\nfed\n\na\n", &mut scratch), wanted);
}

/// Two languages of made-up words.
fn examples() -> Vec<(&'static str, String)> {
    let words = [["mill", "flour", "stone", "wheel"], ["sea", "boat", "harbour", "sail"]];
    let line = |side: usize, n: usize| {
        (0..6).map(|at| words[side][(n * 7 + at * (n % 3 + 1)) % 4]).collect::<Vec<_>>().join(" ")
    };
    let mut examples: Vec<_> = (0..200).map(|n| ("land", line(0, n))).collect();
    examples.extend((0..100).map(|n| ("water", line(1, n))));
    examples
}

fn trained(options: &Options) -> ModelFile {
    let examples = examples();
    let examples: Vec<_> = examples.iter().map(|(label, text)| Example { label, text }).collect();
    train(&examples, options).unwrap()
}

#[test]
fn learns_what_sets_two_kinds_of_text_apart() {
    for one_vs_all in [false, true] {
        let options = Options {
            dim: 8,
            learning_rate: 0.5,
            word_ngrams: 2,
            min_chars: 2,
            max_chars: 3,
            buckets: 1000,
            one_vs_all,
            ..Options::default()
        };
        let file = trained(&options);
        assert_eq!(file, trained(&options), "training is deterministic");
        for file in [quantize(&file, 500).unwrap(), file] {
            let mut bytes = Vec::new();
            file.write(&mut bytes).unwrap();
            let file =
                ModelFile::read(bytes.as_slice(), bytes.len() as u64, Path::new("m")).unwrap();
            let model = Model::new(file, Path::new("m")).unwrap();
            assert_eq!(model.labels(), ["land", "water"]);
            let mut scratch = Scratch::default();
            assert_eq!(model.predict("the stone wheel", &mut scratch).unwrap().0, 0);
            assert_eq!(model.predict("a boat under sail", &mut scratch).unwrap().0, 1);
        }
    }
}

#[test]
fn refuses_what_cannot_be_learnt() {
    let options = Options { dim: 4, ..Options::default() };
    let check = |examples: &[Example<'_>], options: &Options, expected: &str| {
        let error = train(examples, options).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let one = Example { label: "a", text: "x" };
    check(&[one, one], &options, "1 labels are given");
    check(&[one, Example { label: "b c", text: "x" }], &options, "a label is `b c`");
    check(&[one], &Options { dim: 0, ..options.clone() }, "`dim` is 0");
    check(&[one], &Options { learning_rate: f32::NAN, ..options }, "`learning_rate` is NaN");
    assert!(quantize(&trained(&Options { dim: 2, ..Options::default() }), 10).is_err());
}
