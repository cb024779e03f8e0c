//! What a person sees of a job: its report, and the records behind its documents.

use std::fs;

use serde_json::Value;

use crate::mill::Mill;

fn n(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

#[test]
fn the_report_counts_what_a_query_counts() {
    let mill = Mill::filled(1 << 20);
    mill.mill(&[]);
    let report: Value =
        serde_json::from_str(&mill.ok(&["report", "--samples", "3", "--json"])).unwrap();
    assert_eq!(n(&report["n_kept"]), mill.count("corpus", "select count(*) from documents"));
    let mut left = n(&report["n_in"]);
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 6, "reading and the job's five steps");
    for step in steps {
        let name = step["step"].as_str().unwrap();
        let query = format!("select count(*) from dropped where step = '{name}'");
        let n_dropped = mill.count("corpus", &query);
        assert_eq!((n(&step["n_in"]), n(&step["n_dropped"])), (left, n_dropped), "{name}");
        left -= n_dropped;
        let reasons: u64 =
            step["reasons"].as_array().unwrap().iter().map(|reason| n(&reason["n"])).sum();
        assert_eq!(reasons, n_dropped, "{name}");
        assert_eq!(step["samples"].as_array().unwrap().len() as u64, n_dropped.min(3), "{name}");
        if name != "source" {
            assert!(step["seconds"].as_f64().unwrap() > 0.0, "{name}");
            // Steps for some kinds look at those only.
            assert!(n(&step["bytes"]) > 0, "{name}");
        }
    }
    assert_eq!(left, n(&report["n_kept"]));
    let methods: u64 =
        report["duplicates"].as_array().unwrap().iter().map(|method| n(&method["n"])).sum();
    assert_eq!(methods, mill.count("corpus", "select count(*) from duplicates"));

    let page = fs::read_to_string(mill.path("corpus/report.html")).unwrap();
    for step in steps {
        assert!(page.contains(step["step"].as_str().unwrap()));
    }
    for outside in ["http://", "https://", "<script", "src=", "@import"] {
        let in_samples = steps
            .iter()
            .flat_map(|step| step["samples"].as_array().unwrap())
            .any(|sample| sample.to_string().contains(outside));
        assert!(in_samples || !page.contains(outside), "the page asks for `{outside}`");
    }
}

#[test]
fn a_job_that_dropped_everything_has_a_report() {
    let mill = Mill::filled(1 << 16);
    let run = mill.run(&["run", "job.toml", "--set", "step=[{ where = \"text = 'no'\" }]"]);
    assert_eq!(run.status.code(), Some(2), "nothing is left");
    let report: Value = serde_json::from_str(&mill.ok(&["report", "--json"])).unwrap();
    assert_eq!(n(&report["n_kept"]), 0);
    assert_eq!(n(&report["n_in"]), mill.count("corpus", "select count(*) from dropped"));
}

#[test]
fn every_document_leads_back_to_the_record_that_it_was() {
    let mill = Mill::filled(1 << 16);
    mill.mill(&[]);
    let row = |condition: &str| {
        let query =
            format!("select id, locator, url from documents where {condition} order by id limit 1");
        let rows = mill.sql("corpus", &query);
        let text = |name: &str| rows[0][name].as_str().unwrap_or_default().to_owned();
        (text("id"), text("locator"), text("url"))
    };
    let raw = |id: &str| mill.ok(&["inspect", id, "--raw"]);
    let json = |id: &str| -> Value {
        serde_json::from_str(&mill.ok(&["inspect", id, "--raw", "--json"])).unwrap()
    };
    for kind in ["book", "code"] {
        let (id, locator, _) = row(&format!("kind = '{kind}'"));
        assert_eq!(raw(&id), fs::read_to_string(mill.path(&locator)).unwrap(), "{locator}");
    }
    for archive in ["raw/first.warc.gz", "raw/third.warc"] {
        let (id, locator, url) = row(&format!("locator like '{archive}#%'"));
        let page = url.strip_prefix("http://site.test/").unwrap();
        let served =
            fs::read_to_string(crate::mill::root().join("examples/demo/site").join(page)).unwrap();
        let record = raw(&id);
        assert!(record.starts_with("WARC/1.1\r\nWARC-Type: response\r\n"), "{locator}: {record}");
        assert!(record.ends_with(&format!("\r\n\r\n{served}")), "{locator}: {record}");
        assert_eq!(json(&id)["text"], served);
    }
    let (id, locator, _) = row("locator like 'salad.jsonl#%'");
    let offset: usize = locator.rsplit_once('#').unwrap().1.parse().unwrap();
    let file = fs::read_to_string(mill.path("salad.jsonl")).unwrap();
    let line = file[offset..].lines().next().unwrap();
    assert_eq!(raw(&id), format!("{line}\n"), "{locator}");
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(json(&id)["text"], line["text"]);

    let unknown = mill.run(&["inspect", &"0".repeat(32), "--raw"]);
    assert_eq!(unknown.status.code(), Some(2));
    let message = String::from_utf8(unknown.stderr).unwrap();
    assert!(message.contains("cannot find a document"), "{message}");
    fs::write(mill.path("salad.jsonl"), "").unwrap();
    let changed = mill.run(&["inspect", &id, "--raw"]);
    let message = String::from_utf8(changed.stderr).unwrap();
    assert!(message.contains("has 0 bytes, it had"), "{message}");
}
