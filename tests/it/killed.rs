//! Any process may die at any moment: running again finishes the work, with the same bytes.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use crate::mill::{Mill, Random, assert_same};

const SEED: u64 = 20_240_317;

#[test]
fn killed_runs_end_with_the_bytes_of_an_undisturbed_one() {
    let n_kills: u32 =
        env::var("GRISTMILL_KILLS").map_or(6, |n| n.parse().expect("GRISTMILL_KILLS is a number"));
    let mill = Mill::filled(6 << 20);
    let started = Instant::now();
    mill.mill(&["--set", "output=whole"]);
    let mut whole_time = started.elapsed();
    mill.ok(&["clean", "whole"]);
    let expected = mill.files("whole");

    let mut random = Random::new(SEED);
    let mut killed = 0;
    let mut round = 0;
    while killed < n_kills {
        assert!(
            round < 10 * n_kills,
            "{killed} kills in {round} corpora: runs end before the kill"
        );
        let corpus = format!("killed-{round}");
        // One to three in a row before a run is let through.
        for _ in 0..1 + random.below(3) {
            let delay = whole_time.mul_f64(random.below(1000) as f64 / 1000.0);
            let is_killed = kill_after(&mill, &corpus, delay);
            println!("seed {SEED}, {corpus}: {delay:?} of {whole_time:?}, killed: {is_killed}");
            assert_whole(&mill, &corpus);
            if !is_killed {
                // The first run had to share the machine: this one was done sooner.
                whole_time = whole_time.min(delay);
                break;
            }
            killed += 1;
            if killed == n_kills {
                break;
            }
        }
        mill.mill(&["--set", &format!("output={corpus}")]);
        assert_whole(&mill, &corpus);
        mill.ok(&["clean", &corpus]);
        assert_same(&mill.files(&corpus), &expected, &corpus);
        std::fs::remove_dir_all(mill.path(&corpus)).unwrap();
        round += 1;
    }
    println!("{killed} kills in {round} corpora, {} files compared each time", expected.len());
}

/// Runs the job for `delay` and returns whether it was still running then.
fn kill_after(mill: &Mill, corpus: &str, delay: Duration) -> bool {
    let output = format!("output={corpus}");
    let mut child = mill.start(&["run", "job.toml", "--no-train", "--quiet", "--set", &output]);
    thread::sleep(delay);
    // SIGKILL: no handler runs, nothing is flushed.
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.success() || status.code().is_none(), "{corpus}: {status}");
    !status.success()
}

/// Readers see whole versions or none.
fn assert_whole(mill: &Mill, corpus: &str) {
    let output = mill.run(&["verify", corpus]);
    let errors = String::from_utf8_lossy(&output.stderr);
    let is_empty = errors.contains("cannot find a dataset in");
    assert!(
        output.status.success() || (output.status.code() == Some(2) && is_empty),
        "{corpus}: {}: {errors}",
        output.status
    );
    if output.status.success() {
        let query = "select count(*) as n from documents";
        let read = mill.run(&["sql", "--corpus", corpus, "--format", "json", "-c", query]);
        let has_documents = mill.path(corpus).join("documents/manifest").is_dir();
        assert!(
            read.status.success() || !has_documents,
            "{}",
            String::from_utf8_lossy(&read.stderr)
        );
    }
}
