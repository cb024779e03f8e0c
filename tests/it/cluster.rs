//! A job on several workers ends with the bytes of one process, whatever becomes of the workers.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::mill::{Mill, Random, assert_same};

const SEED: u64 = 20_260_727;
const TOKEN: &str = "a-token-of-the-cluster-0123456789";

/// A worker on a port that it keeps when it is started again.
struct Worker {
    child: Child,
    port: u16,
    url: String,
}

impl Worker {
    fn start(mill: &Mill, flags: &[&str]) -> Self {
        Self::on(mill, 0, flags)
    }

    fn on(mill: &Mill, port: u16, flags: &[&str]) -> Self {
        let listen = format!("127.0.0.1:{port}");
        let command = ["cluster", "worker", "--listen", &listen, "--threads", "1", "--json"];
        let mut command = mill.command(&[&command[..], flags].concat());
        let log =
            fs::OpenOptions::new().create(true).append(true).open(mill.path("workers")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        let mut told = BufReader::new(child.stdout.take().unwrap());
        // What a worker prints is one object on several lines.
        while told.read_line(&mut line).unwrap() > 0 && !line.ends_with("}\n") {}
        let about: Value = serde_json::from_str(&line).unwrap_or_else(|error| {
            let log = fs::read_to_string(mill.path("workers")).unwrap();
            panic!("{error}: {line}\n{log}")
        });
        let url = about["url"].as_str().unwrap().to_owned();
        let port = url.rsplit(':').next().unwrap().parse().unwrap();
        Self { child, port, url }
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn again(&mut self, mill: &Mill) {
        *self = Self::on(mill, self.port, &[]);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn urls(workers: &[Worker]) -> String {
    workers.iter().map(|worker| worker.url.clone()).collect::<Vec<_>>().join(",")
}

/// Runs the job on workers; it must succeed.
fn mill_on(mill: &Mill, corpus: &str, workers: &str) -> Value {
    mill.mill(&["--set", &format!("output={corpus}"), "--cluster", workers])
}

/// Runs a command that must fail, and returns what it said, without line breaks.
fn refused(mut command: Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    said.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ")
}

/// A job that has units of every kind: those of [`crate::mill::JOB`], spans, evaluation sets and conversations.
fn everything(mill: &Mill) {
    let job = fs::read_to_string(mill.path("job.toml")).unwrap();
    let methods = "methods = [\"url\", \"exact\", \"minhash\"]";
    assert!(job.contains(methods));
    let job = job.replace(methods, "methods = [\"url\", \"exact\", \"minhash\", \"paragraph\"]");
    let lines: String = (0..40)
        .map(|n| {
            let text = format!("What is the answer to question number {n} of this little benchmark that nobody has read before?");
            format!("{}\n", serde_json::json!({ "question": text }))
        })
        .collect();
    mill.write("questions/test.jsonl", lines);
    let decontaminate = "[decontaminate]\nbenchmarks = [{ name = \"questions\", path = \"questions/test.jsonl\", query = \"question\" }]\n";
    mill.write("job.toml", format!("{job}\n{decontaminate}"));
}

#[test]
fn workers_leave_the_bytes_of_one_process() {
    let mill = Mill::filled(6 << 20);
    everything(&mill);
    let one = mill.mill(&["--set", "output=one"]);
    mill.ok(&["clean", "one"]);
    let expected = mill.files("one");
    for n in [1, 2, 4] {
        let workers: Vec<Worker> = (0..n).map(|_| Worker::start(&mill, &[])).collect();
        let corpus = format!("on-{n}");
        let found = mill_on(&mill, &corpus, &urls(&workers));
        assert_eq!(found["manifest"], one["manifest"], "{n} workers");
        mill.ok(&["verify", &corpus, "--deep"]);
        mill.ok(&["clean", &corpus]);
        assert_same(&mill.files(&corpus), &expected, &corpus);
    }
    let log = fs::read_to_string(mill.path("workers")).unwrap();
    for stage in [
        "documents",
        "signatures",
        "pieces",
        "found",
        "repeats",
        "find",
        "judge",
        "tokenizer",
        "encode",
        "sort",
    ] {
        assert!(log.contains(&format!("{stage}  ")), "no worker had the stage {stage}: {log}");
    }
    println!("{} files compared on 1, 2 and 4 workers", expected.len());
}

#[test]
fn a_worker_that_is_killed_changes_nothing_and_fails_no_job() {
    let n_kills: u32 = env::var("GRISTMILL_KILLS").map_or(5, |n| n.parse().unwrap());
    let mill = Mill::filled(6 << 20);
    let mut workers: Vec<Worker> = (0..2).map(|_| Worker::start(&mill, &[])).collect();
    let started = Instant::now();
    mill_on(&mill, "whole", &urls(&workers));
    let whole_time = started.elapsed();
    mill.ok(&["clean", "whole"]);
    let expected = mill.files("whole");
    let mut random = Random::new(SEED);
    let (mut killed, mut round) = (0, 0);
    while killed < n_kills {
        assert!(round < 5 * n_kills, "{killed} kills in {round} corpora");
        let corpus = format!("killed-{round}");
        let flags = [
            "run",
            "job.toml",
            "--quiet",
            "--set",
            &format!("output={corpus}"),
            "--cluster",
            &urls(&workers),
        ];
        let mut job = mill.start(&flags);
        let victim = random.below(workers.len());
        let delay = whole_time.mul_f64(random.below(900) as f64 / 1000.0);
        thread::sleep(delay);
        let is_running = job.try_wait().unwrap().is_none();
        workers[victim].kill();
        killed += u32::from(is_running);
        // Every other time it comes back while the job runs.
        if round % 2 == 0 {
            workers[victim].again(&mill);
        }
        let status = job.wait().unwrap();
        let said = fs::read_to_string(mill.path("log")).unwrap();
        assert!(status.success(), "seed {SEED}, {corpus}, worker {victim} at {delay:?}: {said}");
        mill.ok(&["clean", &corpus]);
        assert_same(&mill.files(&corpus), &expected, &corpus);
        fs::remove_dir_all(mill.path(&corpus)).unwrap();
        if round % 2 == 1 {
            workers[victim].again(&mill);
        }
        round += 1;
    }
    println!("{killed} kills in {round} jobs, {} files compared each time", expected.len());
}

#[test]
fn a_job_without_a_worker_says_so_and_goes_on_later() {
    let mill = Mill::filled(1 << 20);
    mill.mill(&["--set", "output=one"]);
    mill.ok(&["clean", "one"]);
    let mut workers = vec![Worker::start(&mill, &[])];
    let output = ["--set", "output=later", "--cluster", &urls(&workers), "--patience", "1"];
    let mut job = mill.start(&[&["run", "job.toml"], &output[..]].concat());
    let records = mill.path("later/documents/staging");
    let started = Instant::now();
    while !records.is_dir() && started.elapsed() < Duration::from_secs(60) {
        thread::sleep(Duration::from_millis(5));
    }
    workers[0].kill();
    let status = job.wait().unwrap();
    let said = fs::read_to_string(mill.path("log")).unwrap();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("no worker is left") && said.contains(&workers[0].url), "{said}");
    let again = refused(mill.command(&[&["run", "job.toml"], &output[..]].concat()));
    assert!(
        again.contains("no worker is left") && again.contains("finished units are kept"),
        "{again}"
    );
    workers[0].again(&mill);
    mill_on(&mill, "later", &urls(&workers));
    mill.ok(&["clean", "later"]);
    assert_same(&mill.files("later"), &mill.files("one"), "later");
}

#[test]
fn tokens_of_both_sides_must_be_equal() {
    let mill = Mill::filled(100_000);
    mill.write("token", TOKEN);
    mill.write("other", "another-token-0123456789");
    let worker = Worker::start(&mill, &["--token-file", "token"]);
    let run = |token: &str| {
        let flags =
            ["run", "job.toml", "--no-train", "--cluster", &worker.url, "--token-file", token];
        mill.command(&flags)
    };
    let said = refused(run("other"));
    assert!(said.contains("the token is not known here") && said.contains("401"), "{said}");
    let said = refused(mill.command(&["run", "job.toml", "--cluster", &worker.url]));
    assert!(said.contains("a token is missing"), "{said}");
    let output = run("token").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let hash = store_hash(TOKEN);
    let file =
        format!("[[token]]\nname = 'old'\nblake3 = '{hash}'\nexpires = 2020-01-01T00:00:00Z\n");
    mill.write("tokens.toml", file);
    let expired = Worker::start(&mill, &["--tokens", "tokens.toml"]);
    let flags = ["run", "job.toml", "--cluster", &expired.url, "--token-file", "token"];
    let said = refused(mill.command(&flags));
    assert!(said.contains("the token has expired") && said.contains(&expired.url), "{said}");
    let said = refused(mill.command(&["cluster", "worker", "--listen", "0.0.0.0:0"]));
    assert!(said.contains("there is no token"), "{said}");
}

fn store_hash(text: &str) -> String {
    shard::manifest::hash(text.as_bytes())
}

#[test]
fn a_worker_of_another_program_is_refused_with_both_versions() {
    let mill = Mill::filled(100_000);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).unwrap() > 0);
            let body = "{\"build\": \"0.0.9 (0123456789abcdef)\", \"threads\": 1}";
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        }
    });
    let said = refused(mill.command(&["run", "job.toml", "--cluster", &url]));
    let own = env!("CARGO_PKG_VERSION");
    assert!(
        said.contains("0.0.9 (0123456789abcdef)") && said.contains(&format!("{own} (")),
        "{said}"
    );
    // And the other way: a worker refuses a coordinator.
    let worker = Worker::start(&mill, &[]);
    let stage = serde_json::json!({
        "build": "0.0.9 (0123456789abcdef)", "job": "", "path": "job.toml", "stage": "documents",
        "inputs": { "config": null, "parents": [], "more": null },
    })
    .to_string();
    let answer = put(&worker.url, &format!("/v1/stages/{}", store_hash(&stage)), &stage);
    assert!(answer.starts_with("HTTP/1.1 409") && answer.contains("0.0.9"), "{answer}");
}

fn put(url: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    let n = body.len();
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {n}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_unit_that_fails_everywhere_fails_the_job_with_its_error() {
    let mill = Mill::filled(100_000);
    mill.write("extra.jsonl", "{\"text\": \"whole\"}\n{broken\n");
    let worker = Worker::start(&mill, &[]);
    let here = refused(mill.command(&["run", "job.toml", "--set", "strict=true"]));
    let flags = ["run", "job.toml", "--set", "strict=true", "--cluster", &worker.url];
    let there = refused(mill.command(&flags));
    for said in [&here, &there] {
        assert!(said.contains("extra.jsonl"), "{said}");
    }
    assert!(there.contains("of `documents`") && there.contains(&worker.url), "{there}");
}
