//! Papers of the Semantic Scholar Open Research Corpus: its releases of 2019 to 2021, what `s2orc-doc2json` writes, and the
//! bulk data set of the Academic Graph.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::batch::{self, BatchBuilder, Record, Rows};
use super::lines::LineRecords;
use super::paper::Paper;
use super::text::WholeFile;
use super::{DocumentStream, Source, SourceFile, SourceKind, config};
use crate::Result;

pub(super) const KIND: SourceKind = SourceKind {
    name: "s2orc",
    summary: "papers of S2ORC, a JSON object per line or per file: title, abstract, sections; references are left out",
    source: "Lo et al. 2020, S2ORC; s2orc-doc2json; Academic Graph data sets, `s2orc`",
    document_kind: "paper",
    patterns: &["*.json", "*.jsonl", "*.jsonl.gz", "*.json.gz"],
    default_config: config::defaults::<Config>,
    build: |name, kind, table| {
        Ok(Box::new(S2orc {
            name: name.to_owned(),
            kind: kind.to_owned(),
            config: config::from_table("s2orc", table)?,
        }))
    },
};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Whether captions of figures and tables follow the text.
    keep_captions: bool,
    /// Bytes of a paper, at most.
    paper_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { keep_captions: true, paper_bytes_max: 64 << 20 }
    }
}

#[derive(Clone, Debug)]
struct S2orc {
    name: String,
    kind: String,
    config: Config,
}

impl Source for S2orc {
    fn is_splittable(&self, name: &str) -> bool {
        name.ends_with(".jsonl")
    }

    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream> {
        let rows = BatchBuilder::new(&self.name, &self.kind);
        if file.name.ends_with(".json") {
            let whole = WholeFile::open(file, range, self.config.paper_bytes_max as u64)?;
            return Ok(batch::stream(rows, OneFile { whole, config: self.config }));
        }
        let records = LineRecords::open(file, range, self.config.paper_bytes_max)?;
        Ok(batch::stream(rows, Many { records, config: self.config }))
    }
}

/// A file that is one paper.
struct OneFile {
    whole: WholeFile,
    config: Config,
}

impl Rows for OneFile {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        let Some(read) = self.whole.read()? else { return Ok(false) };
        let record = Record { locator: &self.whole.file.name, ..Record::default() };
        match read {
            Ok(bytes) => {
                let bytes_raw = bytes.len() as u64;
                push(&bytes, Record { bytes_raw, ..record }, self.config, rows);
            }
            Err(bytes_raw) => rows.reject(&Record { bytes_raw, ..record }, "too_large"),
        }
        Ok(true)
    }
}

/// A file with a paper per line.
struct Many {
    records: LineRecords,
    config: Config,
}

impl Rows for Many {
    fn read(&mut self, rows: &mut BatchBuilder) -> Result<bool> {
        let config = self.config;
        self.records.read(rows, |line, _, record, rows| {
            if !line.trim_ascii().is_empty() {
                push(line, *record, config, rows);
            }
        })
    }
}

fn push(json: &[u8], record: Record<'_>, config: Config, rows: &mut BatchBuilder) {
    match serde_json::from_slice::<Value>(json) {
        Ok(value) if value.is_object() => paper(&value, config).push(record, rows),
        Ok(_) | Err(_) => rows.reject(&record, "bad_json"),
    }
}

fn paper(json: &Value, config: Config) -> Paper {
    let mut paper = Paper::default();
    describe(json, &mut paper);
    let title = paper.metadata.iter().find(|(key, _)| *key == "title");
    let mut blocks: Vec<String> = title.map(|(_, title)| title.clone()).into_iter().collect();
    if let Some(text) = json["content"]["text"].as_str() {
        annotated(text, &json["content"]["annotations"], &mut blocks);
    } else {
        // The parse of the source where there is one: that of a PDF has lost its formulas.
        let parses = ["latex_parse", "jats_parse", "pdf_parse", "grobid_parse"];
        let parse = parses.into_iter().map(|name| &json[name]).find(|parse| parse.is_object());
        sections(json, parse.unwrap_or(json), config, &mut blocks);
    }
    paper.text = blocks.join("\n\n");
    paper
}

fn describe(json: &Value, paper: &mut Paper) {
    let metadata = &json["metadata"];
    let text = |key: &str| {
        let value = json.get(key).filter(|value| !value.is_null()).unwrap_or(&metadata[key]);
        match value {
            Value::String(text) => Some(text.trim().to_owned()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    };
    paper.describe("title", text("title"));
    let authors = json["authors"].as_array().or(metadata["authors"].as_array());
    let name = |author: &Value| {
        let middle = author["middle"].as_array().into_iter().flatten();
        let parts = [&author["first"]].into_iter().chain(middle).chain([&author["last"]]);
        let parts: Vec<&str> =
            parts.filter_map(Value::as_str).filter(|part| !part.is_empty()).collect();
        parts.join(" ")
    };
    let authors: Vec<String> =
        authors.into_iter().flatten().map(name).filter(|name| !name.is_empty()).collect();
    paper.describe("author", Some(authors.join("; ")));
    paper.describe("paper_id", text("paper_id").or_else(|| text("corpusid")));
    let ids = &json["externalids"];
    let id = |key: &str| ids[key].as_str().map(str::to_owned);
    paper.describe("doi", text("doi").or_else(|| id("doi")));
    paper.describe("arxiv_id", text("arxiv_id").or_else(|| id("arxiv")));
    paper.describe("journal", text("journal").or_else(|| text("venue")));
    paper.date = text("year");
    let source = &json["content"]["source"]["oainfo"];
    paper.license = source["license"].as_str().map(str::to_owned);
    let doi = paper.metadata.iter().find(|(key, _)| *key == "doi");
    paper.url = source["openaccessurl"]
        .as_str()
        .map(str::to_owned)
        .or_else(|| doi.map(|(_, doi)| format!("https://doi.org/{doi}")));
}

/// Adds the paragraphs of a parse, a heading before the first of each section.
fn sections(json: &Value, parse: &Value, config: Config, blocks: &mut Vec<String>) {
    let paragraphs = |value: &Value| -> Vec<(String, String)> {
        let paragraph = |one: &Value| {
            let text = one["text"].as_str()?.trim();
            // A heading is a text, or a list of them with their numbers.
            let section = match &one["section"] {
                Value::Array(parts) => {
                    parts.last().and_then(|part| part[1].as_str().or(part.as_str()))
                }
                section => section.as_str(),
            };
            Some((section.unwrap_or_default().trim().to_owned(), text.to_owned()))
        };
        match value {
            Value::String(text) => vec![(String::new(), text.trim().to_owned())],
            Value::Array(all) => all.iter().filter_map(paragraph).collect(),
            _ => Vec::new(),
        }
    };
    let mut summary = paragraphs(&parse["abstract"]);
    if summary.is_empty() {
        summary = paragraphs(&json["abstract"]);
    }
    blocks.extend(summary.into_iter().map(|(_, text)| text).filter(|text| !text.is_empty()));
    let mut last = String::new();
    for (section, text) in paragraphs(&parse["body_text"]) {
        if text.is_empty() {
            continue;
        }
        if section != last && !section.is_empty() {
            blocks.push(section.clone());
        }
        last = section;
        blocks.push(text);
    }
    if config.keep_captions {
        let entries = parse["ref_entries"].as_object().into_iter().flatten();
        let captions = entries.filter(|(_, entry)| {
            let kind = entry["type"].as_str().or(entry["type_str"].as_str());
            matches!(kind, Some("figure" | "table"))
        });
        let captions = captions.filter_map(|(_, entry)| entry["text"].as_str());
        blocks.extend(captions.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()));
    }
}

/// Adds the parts of a text that its annotations call title, abstract, heading or paragraph, in their order.
fn annotated(text: &str, annotations: &Value, blocks: &mut Vec<String>) {
    let mut spans: Vec<(usize, usize)> = Vec::new();
    for name in ["abstract", "sectionheader", "paragraph"] {
        // Lists of spans, as JSON inside a string.
        let list = annotations[name].as_str().and_then(|json| serde_json::from_str(json).ok());
        let Some(Value::Array(list)) = list else { continue };
        // Offsets come as numbers or, in some releases, as strings.
        let offset = |value: &Value| {
            let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
            usize::try_from(number).ok()
        };
        spans.extend(
            list.iter().filter_map(|span| Some((offset(&span["start"])?, offset(&span["end"])?))),
        );
    }
    if spans.is_empty() {
        blocks.push(text.trim().to_owned());
        return;
    }
    spans.sort_unstable();
    // Offsets count characters; a paragraph inside an abstract is told once.
    let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let mut told = 0;
    for (start, end) in spans {
        let start = start.max(told);
        let (Some(&from), Some(&to)) = (starts.get(start), starts.get(end)) else { continue };
        if from >= to {
            continue;
        }
        told = end;
        let block = text[from..to].trim();
        if !block.is_empty() {
            blocks.push(block.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::super::testing::{self, Row};
    use super::KIND;

    fn read(name: &str, text: &str) -> Vec<Row> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        testing::conforms(&*testing::build(&KIND, ""), &testing::file(&path), &[100, 40000])
    }

    #[test]
    fn reads_every_shape_of_a_release() {
        let of_2019 = json!({"paper_id": "1", "metadata": {"title": "T", "authors": [{"first": "A", "middle": ["B."], "last": "C"}]},
            "grobid_parse": {"abstract": [{"text": "S."}], "body_text": [{"section": "One", "text": "a"},
            {"section": "One", "text": "b"}], "ref_entries": {"F": {"text": "cap", "type": "figure"}}}, "latex_parse": null});
        let of_doc2json = json!({"title": "T", "abstract": "S.", "pdf_parse": {"abstract": [], "body_text": [{"section": [["1.1", "One"]], "text": "a"}]}});
        let of_the_graph = json!({"corpusid": 7, "externalids": {"doi": "10.1/x"}, "content": {"source": {"oainfo": {"license": "CCBY"}},
            "text": "Té\nS.\nOne\na b [1]\nrefs", "annotations": {"abstract": "[{\"start\":3,\"end\":5}]",
            "sectionheader": "[{\"start\":\"6\",\"end\":\"9\"}]", "paragraph": "[{\"start\":10,\"end\":17}]", "bibentry": "[{\"start\":18,\"end\":22}]"}}});
        let text = format!("{of_2019}\n{of_doc2json}\n\n{of_the_graph}\n[1]\n{{\n");
        let rows = read("a.jsonl", &text);
        let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
        assert_eq!(
            texts[..3],
            ["T\n\nS.\n\nOne\n\na\n\nb\n\ncap", "T\n\nS.\n\nOne\n\na", "S.\n\nOne\n\na b [1]"]
        );
        assert_eq!(
            (rows[0].value("author"), rows[2].value("paper_id")),
            (Some("A B. C"), Some("7"))
        );
        assert_eq!(rows[2].url.as_deref(), Some("https://doi.org/10.1/x"));
        let rejects: Vec<_> = rows[3..].iter().map(|row| row.reject.as_deref()).collect();
        assert_eq!(rejects, [Some("bad_json"); 2]);
        assert_eq!(read("a.json", &format!("{of_2019:#}"))[0].text, texts[0]);
    }

    #[test]
    fn reads_papers_of_three_releases() {
        let Some(folder) = testing::data("papers/s2orc-doc2json") else { return };
        let source = testing::build(&KIND, "");
        let mut n_papers = 0;
        for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
            let path = entry.unwrap().into_path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let row = testing::read(&*source, &testing::file(&path), None).remove(0);
            let json: serde_json::Value =
                serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let parse = ["pdf_parse", "grobid_parse"].into_iter().map(|name| &json[name]);
            let parse = parse.chain([&json]).find(|parse| parse["body_text"].is_array()).unwrap();
            for paragraph in parse["body_text"].as_array().unwrap() {
                let text = paragraph["text"].as_str().unwrap().trim();
                assert!(row.text.contains(text), "{}: {text}", path.display());
            }
            n_papers += 1;
        }
        assert_eq!(n_papers, 10);
    }
}
