//! What cannot work is said before it is tried: what, where, and what to do about it.

use std::fs;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use crate::mill::{Mill, assert_same, program};

const JOB: &str = r#"
name = "small"
output = "corpus"
memory = "64MiB"

[[source]]
kind = "jsonl"
path = "*.jsonl"

[[step]]
use = "length"
min_words = 5

[dedup]
methods = ["exact", "minhash"]
"#;

/// One line of input is enough for what fails before it is read.
fn small() -> Mill {
    let mill = Mill::new();
    let text = "the quick brown fox jumps over the lazy dog and runs away from the farmer's house";
    mill.write("a.jsonl", format!("{{\"text\": \"{text}\"}}\n"));
    mill.write("job.toml", JOB);
    mill
}

/// Runs [`JOB`] with `from` replaced by `to` and expects exit code 2 and each of `parts` in the message.
fn check(from: &str, to: &str, parts: &[&str]) {
    assert!(JOB.contains(from), "{from}");
    let mill = small();
    mill.write("job.toml", JOB.replacen(from, to, 1));
    refused(&mill, &["run", "job.toml"], parts);
    let committed: Vec<String> =
        mill.files("corpus").into_keys().filter(|name| name.contains("manifest")).collect();
    assert!(committed.is_empty(), "a run that failed made versions: {committed:?}");
}

fn refused(mill: &Mill, arguments: &[&str], parts: &[&str]) {
    let output = mill.run(arguments);
    let message = plain(&output);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    for part in parts {
        assert!(message.contains(part), "no `{part}` in: {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

/// The message without the frame and the line breaks that a narrow terminal gets.
fn plain(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).replace(['│', '×', '\n'], " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn names_a_source_whose_files_are_missing() {
    let parts = ["job.toml source 1", "no file matches `b.jsonl`", "help:", "`a.jsonl`"];
    check("*.jsonl", "b.jsonl", &parts);
}

#[test]
fn names_the_nearest_key_place_and_line_of_an_unknown_one() {
    let parts = ["job.toml:4:1", "unknown key `memry`", "did you mean `memory`?"];
    check("memory", "memry", &parts);
    let parts = ["job.toml step 1", "no key `min_wrds`", "did you mean `min_words`?"];
    check("min_words", "min_wrds", &parts);
    let parts = ["job.toml source 1", "`txt`", "did you mean `text`?"];
    check("path = \"*.jsonl\"", "path = \"*.jsonl\"\ntxt = \"body\"", &parts);
}

#[test]
fn names_the_nearest_step_source_and_method_of_an_unknown_one() {
    let parts = ["job.toml step 1 use", "`gofer_quality`", "did you mean `gopher_quality`?"];
    check("length\"\nmin_words = 5", "gofer_quality\"", &parts);
    check("\"jsonl\"", "\"jsnl\"", &["job.toml source 1 kind", "`jsnl`", "did you mean `jsonl`?"]);
    check("\"minhash\"]", "\"minhsh\"]", &["dedup.methods", "`minhsh`", "did you mean `minhash`?"]);
}

#[test]
fn names_the_key_of_a_wrong_type() {
    check("min_words = 5", "min_words = \"five\"", &["step 1", "\"five\"", "expected"]);
    check("\"64MiB\"", "\"lots\"", &["memory", "`lots` is not a size", "2GiB"]);
    check("\"64MiB\"", "\"1MiB\"", &["job.toml memory", "1MiB", "the least is 64MiB"]);
    refused(&small(), &["run", "job.toml", "--set", "seed=x"], &["override `seed=x`", "u64"]);
}

#[test]
fn refuses_impossible_settings_of_minhash() {
    let with = |settings: &str| format!("minhash\"]\nminhash = {{ {settings} }}");
    check("minhash\"]", &with("bands = 0"), &["`minhash`", "`bands` is 0", "help:", "bands = 18"]);
    check("minhash\"]", &with("verify = 1.5"), &["`verify` is 1.5", "0 to 1", "help:"]);
    check("minhash\"]", &with("threshold = 0.7"), &["`minhash`", "`threshold`", "`verify`"]);
}

#[test]
fn names_the_column_that_a_condition_does_not_find() {
    let step = |condition: &str| format!("where = \"{condition}\"");
    let from = "use = \"length\"\nmin_words = 5";
    check(from, &step("langage = 'en'"), &["job.toml step 1 where", "langage", "language"]);
    check(from, &step("char_length(text)"), &["step 1 where", "a condition is needed"]);
}

#[test]
fn names_an_output_that_cannot_be_a_folder() {
    // A folder below a file: nobody may create it, not even root, whom permissions do not stop.
    let output = ["run", "job.toml", "--set", "output=a.jsonl/corpus"];
    refused(&small(), &output, &["cannot create folder", "a.jsonl/corpus"]);
}

#[test]
fn names_a_tokenizer_that_is_not_there() {
    let shard = "[shard]\ntokenizer = \"none/tokenizer.json\"\n\n[dedup]";
    let parts = ["job.toml shard.tokenizer", "no tokenizer", "none/tokenizer.json", "train:bpe:"];
    check("[dedup]", shard, &parts);
}

#[test]
fn names_the_reasons_when_nothing_is_left() {
    let mill = small();
    mill.write("job.toml", JOB.replacen("min_words = 5", "min_words = 500", 1));
    let parts = ["none of 1 documents", "1 1:length/too_few_words", "select * from dropped"];
    refused(&mill, &["run", "job.toml"], &parts);
    assert_eq!(
        mill.count("corpus", "select count(*) from dropped where reason = 'too_few_words'"),
        1
    );
    assert_eq!(mill.count("corpus", "select count(*) from documents"), 0);
}

#[test]
fn counts_damaged_records_of_an_archive_unless_the_job_is_strict() {
    let mill = Mill::new();
    let page = |number: usize| {
        let words = format!("This page has the number {number} and is a page like any other. ");
        let body = format!("<html><body><p>{}</p></body></html>", words.repeat(20));
        (format!("http://site.test/{number}"), body)
    };
    let offsets = mill.warc("a.warc.gz", &(0..20).map(page).collect::<Vec<_>>());
    let mut bytes = fs::read(mill.path("a.warc.gz")).unwrap();
    // One record in the middle is overwritten, and the last one is cut.
    let (from, to) = (usize::try_from(offsets[7]).unwrap(), usize::try_from(offsets[8]).unwrap());
    bytes[from + 20..to].fill(0xff);
    let cut = usize::try_from(offsets[19]).unwrap() + 60;
    mill.write("a.warc.gz", &bytes[..cut]);
    let job = JOB.replace("jsonl", "warc").replace("*.warc", "*.warc.gz");
    mill.write("job.toml", &job);

    let summary = mill.mill(&[]);
    let dropped = summary["dropped"].as_object().unwrap();
    println!("{dropped:?}");
    assert_eq!(summary["documents"], 18, "{summary}");
    assert!(!dropped.is_empty(), "{summary}");
    assert!(dropped.keys().all(|reason| reason.starts_with("source/")), "{dropped:?}");
    let places = "select count(*) from dropped where locator like 'a.warc.gz#%'";
    assert_eq!(mill.count("corpus", places), summary["records"].as_u64().unwrap() - 18);

    mill.write("job.toml", format!("strict = true\n{job}"));
    let parts = ["a.warc.gz#", "damaged record", "help: without `strict = true`"];
    refused(&mill, &["run", "job.toml"], &parts);
    // The version before is still whole.
    mill.ok(&["verify", "corpus"]);
    assert_eq!(mill.count("corpus", "select count(*) from documents"), 18);
}

#[test]
fn names_a_damaged_parquet_file() {
    let mill = small();
    mill.mill(&[]);
    let folder = mill.path("corpus/documents/data");
    let shard = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(shard).unwrap();
    let parquet = JOB.replace("jsonl", "parquet").replace("\"corpus\"", "\"other\"");
    mill.write("job.toml", parquet);

    mill.write("whole.parquet", &bytes);
    assert_eq!(mill.mill(&[])["documents"], 1, "the file itself is fine");
    mill.write("cut.parquet", &bytes[..bytes.len() / 2]);
    let summary = mill.mill(&[]);
    assert_eq!(summary["documents"], 1, "{summary}");
    assert_eq!(summary["dropped"]["source/bad_parquet"], 1, "{summary}");
    let places = "select count(*) from dropped where locator like 'cut.parquet%'";
    assert_eq!(mill.count("other", places), 1);
    let parts = ["cut.parquet", "damaged record: bad_parquet"];
    refused(&mill, &["run", "job.toml", "--set", "strict=true"], &parts);
}

#[test]
fn finds_a_damaged_shard_of_its_own() {
    let mill = small();
    mill.mill(&[]);
    let folder = mill.path("corpus/documents/data");
    let shard = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&shard).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&shard, bytes).unwrap();
    let output = mill.run(&["verify", "corpus"]);
    assert_eq!(output.status.code(), Some(1), "{}", plain(&output));
    assert!(plain(&output).contains(shard.file_name().unwrap().to_str().unwrap()));
    assert!(plain(&output).contains("manifest says"), "{}", plain(&output));
}

#[test]
fn refuses_a_model_whose_vocabulary_is_too_small() {
    let mill = small();
    mill.write("a.jsonl", crate::mill::salad(200_000, 3));
    for n in [300, 600] {
        let tokenizer = format!("shard={{ tokenizer = \"train:bpe:{n}\" }}");
        mill.mill(&["--set", &tokenizer, "--set", &format!("output=of-{n}")]);
    }
    let train = |data: &str, model: &str, run: &str| {
        let recipe = format!(
            "data = \"{data}/tokens\"\nrun = \"{run}\"\n[model]\n{model}\nseq_len = 16\n\
             [train]\nsteps = 1\nbatch_sequences = 1\nevaluate_sequences = 0\nthreads = 1\n"
        );
        mill.write("recipe.toml", recipe);
        let mut command = Command::new(program("gristmill-train"));
        command.args(["train", "recipe.toml"]).current_dir(mill.path(""));
        command.env("NO_COLOR", "1").output().unwrap()
    };
    let fresh = "kind = \"gpt2\"\nn_layer = 1\nn_head = 2\nn_embd = 16\nvocab_multiple = 1";
    let trained = train("of-300", fresh, "first");
    assert!(trained.status.success(), "{}", plain(&trained));

    let refused = train("of-600", "from = \"first/model\"", "second");
    let message = plain(&refused);
    assert_eq!(refused.status.code(), Some(2), "{message}");
    for part in ["vocabulary has 600 entries", "the model's 300", "hint", "model's own tokenizer"] {
        let is_hint = part == "hint" && message.contains("help");
        assert!(message.contains(part) || is_hint, "no `{part}` in: {message}");
    }
}

#[test]
fn second_run_on_a_corpus_is_refused_and_an_interrupted_one_goes_on() {
    let mill = Mill::filled(5 << 20);
    let started = Instant::now();
    mill.mill(&["--set", "output=whole"]);
    let whole_time = started.elapsed();

    let mut first = mill.start(&["run", "job.toml"]);
    wait_until(|| mill.path("corpus/.lock").is_file() && has_staged(&mill));
    refused(&mill, &["run", "job.toml"], &["corpus", "another run", "help: wait for it"]);
    let id = first.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(sent.success(), "the run ended before it could be interrupted");
    let asked = Instant::now();
    let status = first.wait().unwrap();
    let log = fs::read_to_string(mill.path("log")).unwrap();
    assert_eq!(status.code(), Some(130), "{log}");
    assert!(log.contains("run the same command again"), "{log}");
    println!("stopped {:?} after it was asked, a whole run takes {whole_time:?}", asked.elapsed());

    mill.mill(&[]);
    mill.ok(&["clean", "corpus"]);
    mill.ok(&["clean", "whole"]);
    assert_same(&mill.files("corpus"), &mill.files("whole"), "after an interruption");
}

fn has_staged(mill: &Mill) -> bool {
    mill.path("corpus/documents/staging").is_dir()
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(60), "waited a minute in vain");
        thread::sleep(Duration::from_millis(2));
    }
}
