//! Corpora, sources and readers in an object store: the same bytes as in folders, whatever the network does.
//!
//! What needs a store asks for the one that `make s3` starts, and says so where there is none.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use shard::{Dataset, store};

use crate::mill::{DATASETS, Mill, Random, assert_same};

/// A folder of the bucket for one test, or nothing where there is no store.
fn bucket(test: &str) -> Option<String> {
    let Ok(bucket) = env::var("GRISTMILL_S3") else {
        println!("skipped: GRISTMILL_S3 names no bucket, `make s3` starts a server with one");
        return None;
    };
    Some(format!("{bucket}/{test}-{}", std::process::id()))
}

/// The hash of every object of the datasets of a corpus, as [`Mill::files`] has them of a folder.
fn objects(corpus: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for dataset in DATASETS {
        let folder = Path::new(corpus).join(dataset);
        for (name, _) in store::list_objects(&folder).unwrap() {
            let hash = store::hash_file(&folder.join(&name)).unwrap();
            found.insert(format!("{dataset}/{name}"), hash);
        }
    }
    found
}

fn output(place: &str) -> [String; 2] {
    ["--set".to_owned(), format!("output=\"{place}\"")]
}

fn mill_into(mill: &Mill, place: &str) -> serde_json::Value {
    let output = output(place);
    mill.mill(&[&output[0], &output[1]])
}

#[test]
fn a_job_into_an_object_store_ends_with_the_bytes_of_a_local_one() {
    let Some(bucket) = bucket("job") else { return };
    let corpus = format!("{bucket}/corpus");
    let mill = Mill::filled(1 << 20);
    let local = mill_into(&mill, "local");
    mill.ok(&["clean", "local"]);
    let stored = mill_into(&mill, &corpus);
    assert_eq!(local["manifest"], stored["manifest"]);
    assert_eq!(stored["corpus"], corpus.as_str());
    let expected = mill.files("local");
    assert_same(&objects(&corpus), &expected, "first run");
    assert_eq!(mill.ok(&["clean", &corpus]), "");
    mill.ok(&["verify", &corpus, "--deep"]);

    for query in [
        "select count(*) from documents",
        "select sum(char_length(text)) from documents where kind = 'book'",
        "select count(*) from dropped where reason = 'too_few_words'",
        "select count(*) from manifests",
        "select sum(n_tokens) from tokens",
        "select count(*) from duplicates",
    ] {
        assert_eq!(mill.count("local", query), mill.count(&corpus, query), "{query}");
    }
    let hash = |corpus: &str| {
        let shown = mill.ok(&["inspect", &format!("{corpus}/tokens"), "--json"]);
        serde_json::from_str::<serde_json::Value>(&shown).unwrap()["manifest_hash"].clone()
    };
    assert_eq!(hash("local"), hash(&corpus));
    mill.ok(&["report", &corpus, "--output", "report.html", "--quiet"]);
    let read = |corpus: &str| {
        let tokens = format!("{corpus}/tokens");
        let flags = ["--seq-len", "128", "--batches", "40", "--batch", "4", "--packing"];
        ["stream", "best_fit"].map(|it| mill.ok(&[&["read", &tokens], &flags[..], &[it]].concat()))
    };
    assert_eq!(read("local"), read(&corpus), "batches");

    // Another machine goes on: its cache and its working copy are empty.
    std::fs::remove_dir_all(mill.path("cache")).unwrap();
    mill_into(&mill, &corpus);
    assert_same(&objects(&corpus), &expected, "nothing to do on another machine");
    mill.write("more.jsonl", crate::mill::salad(200_000, 8));
    mill_into(&mill, "local");
    std::fs::remove_dir_all(mill.path("cache")).unwrap();
    mill_into(&mill, &corpus);
    mill.ok(&["clean", "local"]);
    assert_same(&objects(&corpus), &mill.files("local"), "more files on another machine");
    println!("{} objects compared", expected.len());
}

#[test]
fn a_job_into_an_object_store_ends_the_same_when_it_is_killed() {
    let Some(bucket) = bucket("killed") else { return };
    let n_kills: u32 = env::var("GRISTMILL_KILLS").map_or(6, |n| n.parse().unwrap());
    let mill = Mill::filled(1 << 20);
    let started = Instant::now();
    mill_into(&mill, &format!("{bucket}/whole"));
    let mut whole_time = started.elapsed();
    let expected = objects(&format!("{bucket}/whole"));
    let mut random = Random::new(5);
    let (mut killed, mut round, mut lost) = (0, 0, 0);
    while killed < n_kills {
        assert!(round < 10 * n_kills, "{killed} kills in {round} corpora");
        let corpus = format!("{bucket}/{round}");
        let output = output(&corpus);
        for _ in 0..1 + random.below(3) {
            let delay = whole_time.mul_f64(random.below(1000) as f64 / 1000.0);
            let flags = ["run", "job.toml", "--no-train", "--quiet", &output[0], &output[1]];
            let mut child = mill.start(&flags);
            thread::sleep(delay);
            let is_killed = child.try_wait().unwrap().is_none();
            child.kill().unwrap();
            child.wait().unwrap();
            // Readers see whole versions at any moment.
            for dataset in DATASETS {
                let dataset = Dataset::at(format!("{corpus}/{dataset}"));
                assert_eq!(dataset.verify(false).unwrap().failures, [], "{corpus}");
            }
            if !is_killed {
                whole_time = whole_time.min(delay);
                break;
            }
            killed += 1;
            // Every third time the machine is gone with its disk.
            if killed % 3 == 0 && mill.path("cache").is_dir() {
                std::fs::remove_dir_all(mill.path("cache")).unwrap();
                lost += 1;
            }
            if killed == n_kills {
                break;
            }
        }
        mill_into(&mill, &corpus);
        mill.ok(&["clean", &corpus]);
        assert_same(&objects(&corpus), &expected, &corpus);
        round += 1;
    }
    println!("{killed} kills in {round} corpora, the disk lost {lost} times, all equal");
}

#[test]
fn sources_in_an_object_store_give_the_documents_of_local_ones() {
    let Some(bucket) = bucket("sources") else { return };
    let mill = Mill::filled(1 << 20);
    let job = |corpus: &str, raw: &str, lines: &str| {
        format!(
            "name = 'sources'\noutput = '{corpus}'\n[[source]]\nkind = 'warc'\npath = '{raw}'\n\
             [[source]]\nkind = 'jsonl'\npath = '{lines}'\n[[step]]\nuse = 'extract_html'\nkinds = ['web']\n"
        )
    };
    mill.write("lines/deep/salad.jsonl", std::fs::read(mill.path("salad.jsonl")).unwrap());
    mill.write("lines/extra.jsonl", std::fs::read(mill.path("extra.jsonl")).unwrap());
    for name in
        ["raw/first.warc.gz", "raw/second.warc.gz", "lines/deep/salad.jsonl", "lines/extra.jsonl"]
    {
        store::send(&mill.path(name), &Path::new(&bucket).join(name)).unwrap();
    }
    mill.write("here.toml", job("here", "raw/*.warc.gz", "lines"));
    mill.write(
        "there.toml",
        job("there", &format!("{bucket}/raw/*.warc.gz"), &format!("{bucket}/lines")),
    );
    let shards = |job: &str, corpus: &str| {
        mill.ok(&["run", job, "--quiet"]);
        let newest = Dataset::at(mill.path(corpus).join("documents")).open(None).unwrap();
        (newest.manifest.shards, newest.manifest.sources, newest.manifest.counts)
    };
    assert_eq!(shards("here.toml", "here"), shards("there.toml", "there"));
    let id = &mill.sql("there", "select hex(id) as id from documents limit 1")[0]["id"];
    let id = id.as_str().unwrap().to_lowercase();
    let raw = |job: &str, corpus: &str| {
        mill.ok(&["inspect", &id, "--raw", "--corpus", corpus, "--job", job])
    };
    assert!(!raw("there.toml", "there").is_empty());
    let none = mill.run(&["sql", "-c", &format!("select * from jsonl('{bucket}/none/*')")]);
    let error = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(!none.status.success() && error.contains("names nothing"), "{error}");
}

/// What a server does with each request.
#[derive(Clone, Copy, Debug)]
enum Mood {
    /// Answers `503` so many times, then that there is nothing.
    Busy(usize),
    /// Answers `500` always.
    Broken,
    /// Promises more bytes than come, then closes the connection.
    Cut,
    /// Takes the request and never answers.
    Silent,
    /// Answers that the key is wrong.
    Stranger,
}

/// Serves on a port of its own; returns its address and how many requests came.
fn serve(mood: Mood) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, count) = (stream.unwrap(), Arc::clone(&count));
            thread::spawn(move || while answer(&mut stream, mood, &count) {});
        }
    });
    (address, served)
}

/// Answers one request; whether another may come on the same connection.
fn answer(stream: &mut TcpStream, mood: Mood, count: &AtomicUsize) -> bool {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut body_bytes) = (String::new(), 0);
    loop {
        line.clear();
        if lines.read_line(&mut line).unwrap_or(0) == 0 {
            return false;
        }
        if let Some(length) = line.to_lowercase().strip_prefix("content-length:") {
            body_bytes = length.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; body_bytes];
    lines.read_exact(&mut body).unwrap();
    let number = count.fetch_add(1, Ordering::Relaxed);
    let empty = "<?xml version=\"1.0\"?><ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated></ListBucketResult>";
    let (status, length, body) = match mood {
        Mood::Busy(n) if number < n => ("503 Slow Down", 0, ""),
        Mood::Busy(_) => ("200 OK", empty.len(), empty),
        Mood::Broken => ("500 Internal Server Error", 0, ""),
        Mood::Cut => ("200 OK", 10_000, empty),
        Mood::Silent => {
            thread::sleep(Duration::from_secs(120));
            return false;
        }
        Mood::Stranger => ("403 Forbidden", 0, ""),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nContent-Type: application/xml\r\n\r\n"
    );
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    sent.is_ok() && length == body.len()
}

/// Runs `gristmill` against a server; returns its exit code, what it said, and the requests that came.
fn against(mood: Mood, arguments: &[&str]) -> (Option<i32>, String, usize) {
    let (address, served) = serve(mood);
    let mill = Mill::new();
    let mut command = mill.command(arguments);
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.env("AWS_ENDPOINT_URL", address).env("AWS_ALLOW_HTTP", "true");
    command.env("AWS_ACCESS_KEY_ID", "some-key").env("AWS_SECRET_ACCESS_KEY", "a-secret-of-mine");
    command.env("AWS_REGION", "us-east-1").env("AWS_TIMEOUT", "500ms");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("a-secret-of-mine") && !said.contains("some-key"), "{said}");
    (output.status.code(), said, served.load(Ordering::Relaxed))
}

#[test]
fn an_object_store_that_is_busy_is_asked_again() {
    let (code, said, served) = against(Mood::Busy(3), &["verify", "s3://bucket/corpus"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("cannot find a dataset in `s3://bucket/corpus`"), "{said}");
    assert!(served > 4, "{served} requests");
}

#[test]
fn an_object_store_that_fails_is_named_with_the_key_and_a_hint() {
    let key = "s3://bucket/corpus/tokens/manifest";
    for (mood, why, hint, requests) in [
        (Mood::Broken, "500 Internal Server Error", "check the endpoint and the network", 7),
        (Mood::Silent, "error sending request", "check the endpoint and the network", 7),
        (Mood::Cut, "", "check the endpoint and the network", 1),
        (Mood::Stranger, "403 Forbidden", "set the store's variables", 1),
    ] {
        let (code, said, served) = against(mood, &["inspect", "s3://bucket/corpus/tokens"]);
        assert_eq!(code, Some(2), "{mood:?}: {said}");
        let words = said.split_whitespace().filter(|word| *word != "│");
        let said = words.collect::<Vec<_>>().join(" ");
        for wanted in [&format!("cannot list `{key}`"), why, "help: ", hint] {
            assert!(said.contains(wanted), "{mood:?}: no `{wanted}` in: {said}");
        }
        assert!(served >= requests, "{mood:?}: {served} requests");
    }
}

#[test]
fn an_object_store_that_nobody_serves_is_an_error() {
    let mill = Mill::new();
    let mut command = mill.command(&["sql", "--corpus", "s3://bucket/corpus", "-c", "select 1"]);
    command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1").env("AWS_ALLOW_HTTP", "true");
    command.env("AWS_ACCESS_KEY_ID", "k").env("AWS_SECRET_ACCESS_KEY", "s").env("AWS_REGION", "r");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("`s3://bucket/corpus/"), "{said}");
    let left: Vec<PathBuf> =
        store::list(&mill.path(".")).unwrap().into_iter().map(PathBuf::from).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("s3")), "{left:?}");
}

#[test]
fn jobs_refuse_places_that_nothing_can_be_written_to() {
    for (output, scratch, wanted) in [
        ("https://host.test/corpus", "", "nothing can be written to `https://host.test/corpus`"),
        ("ftp://host.test/corpus", "", "nothing can be written to `ftp://host.test/corpus`"),
        ("corpus", "scratch = 's'\n", "`s` cannot be the working copy of `corpus`"),
    ] {
        let mill = Mill::new();
        let job = format!(
            "name = 'j'\noutput = '{output}'\n{scratch}[[source]]\nkind = 'text'\npath = 'x'\n"
        );
        mill.write("job.toml", job);
        let output = mill.run(&["run", "job.toml"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(!output.status.success() && said.contains(wanted), "{said}");
    }
}
