//! Texts in TEI, as GROBID makes them of papers.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::batch::BatchBuilder;
use super::paper::{self, Format, Paper};
use super::prose::Style;
use super::xml::Tree;
use super::{DocumentStream, Raw, Source, SourceFile, SourceKind, config};
use crate::Result;
use crate::prose::Prose;

pub(super) const KIND: SourceKind = SourceKind {
    name: "tei",
    summary: "papers and other texts in TEI XML, as GROBID writes it: title, abstract, body; references are left out",
    source: "TEI P5; GROBID 0.6 to 0.8",
    document_kind: "paper",
    patterns: &["*.tei.xml", "*.tei.xml.gz", "*.tei"],
    default_config: config::defaults::<Config>,
    build: |name, kind, table| {
        Ok(Box::new(Tei {
            name: name.to_owned(),
            kind: kind.to_owned(),
            config: config::from_table("tei", table)?,
        }))
    },
};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Whether captions of figures and tables are kept.
    keep_captions: bool,
    /// Whether notes are kept where they stand.
    keep_notes: bool,
    /// Bytes of a text, at most.
    text_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { keep_captions: true, keep_notes: false, text_bytes_max: 64 << 20 }
    }
}

#[derive(Clone, Debug)]
struct Tei {
    name: String,
    kind: String,
    config: Config,
}

impl Source for Tei {
    fn is_splittable(&self, _name: &str) -> bool {
        false
    }

    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream> {
        let rows = BatchBuilder::new(&self.name, &self.kind);
        paper::open(rows, Texts(self.config), file, range, self.config.text_bytes_max)
    }

    fn raw(&self, file: &SourceFile, place: Option<&str>, bytes: u64) -> Result<Option<Raw>> {
        paper::raw(file, place, bytes, self.config.text_bytes_max)
    }
}

struct Texts(Config);

impl Format for Texts {
    fn is_paper(&self, name: &str) -> bool {
        name == "TEI"
    }

    fn read(&self, tree: &Tree) -> Result<Paper, &'static str> {
        if tree.declares_entities {
            return Err("entity_declaration");
        }
        let config = self.0;
        let mut paper = Paper::default();
        let mut prose = Prose::default();
        if let Some(header) = tree.find(0, &["teiHeader"]) {
            describe(tree, header, &mut paper);
            let title = tree.find(header, &["fileDesc", "titleStmt", "title"]);
            title.into_iter().for_each(|title| prose.block(&tree.string(title)));
            let part = tree.find(header, &["profileDesc", "abstract"]);
            part.into_iter()
                .for_each(|part| prose.tree(tree, part, |tree, node| style(tree, node, config)));
        }
        let text = tree.find(0, &["text"]);
        if let Some(body) = text.and_then(|text| tree.find(text, &["body"])) {
            prose.tree(tree, body, |tree, node| style(tree, node, config));
        }
        paper.text = prose.finish();
        Ok(paper)
    }
}

fn describe(tree: &Tree, header: usize, paper: &mut Paper) {
    let string = |node: usize| tree.string(node);
    let title = tree.find(header, &["fileDesc", "titleStmt", "title"]).map(string);
    paper.describe("title", title);
    let analytic = tree.find(header, &["fileDesc", "sourceDesc", "biblStruct", "analytic"]);
    let statement = tree.find(header, &["fileDesc", "titleStmt"]);
    let authors = analytic.or(statement).into_iter().flat_map(|node| tree.all(node, "author"));
    let name = |author: usize| match tree.find(author, &["persName"]) {
        Some(name) => {
            let parts: Vec<String> = tree.children(name).map(string).collect();
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
        }
        // A person, or GROBID's place for affiliations that belong to nobody.
        None if tree.find(author, &["affiliation"]).is_some() => String::new(),
        None => tree.string(author),
    };
    let authors: Vec<String> = authors.map(name).filter(|name| !name.is_empty()).collect();
    paper.describe("author", Some(authors.join("; ")));
    let doi = tree.all(header, "idno").find(|&node| tree.attribute(node, "type") == Some("DOI"));
    paper.describe("doi", doi.map(string));
    paper.url = doi.map(|node| format!("https://doi.org/{}", tree.string(node)));
    let publication = tree.find(header, &["fileDesc", "publicationStmt"]);
    paper.license = publication
        .and_then(|node| tree.all(node, "licence").next())
        .map(|node| tree.attribute(node, "target").map_or_else(|| string(node), str::to_owned))
        .filter(|license| !license.is_empty());
    let date = tree.all(header, "date").find_map(|node| tree.attribute(node, "when"));
    paper.date = date.map(str::to_owned);
    let language = tree.find(0, &["text"]).and_then(|text| tree.attribute(text, "lang"));
    let language = language.or_else(|| tree.attribute(header, "lang"));
    paper.language = language.map(str::to_owned);
}

fn style(tree: &Tree, node: usize, config: Config) -> Style {
    match tree.name(node) {
        "listBibl" | "graphic" | "fw" | "sic" | "orig" | "abbr" | "del" | "gap" | "teiHeader" => {
            // `sic`, `orig` and `abbr` go only where the corrected form stands beside them.
            let is_choice = matches!(tree.name(node), "sic" | "orig" | "abbr")
                && tree.parent(node).is_none_or(|parent| tree.name(parent) != "choice");
            if is_choice { Style::Inline } else { Style::Skip }
        }
        "note" if !config.keep_notes => Style::Skip,
        "figure" if !config.keep_captions => Style::Skip,
        // GROBID puts the cells of a table into its figure; `label` repeats the number in the heading.
        "table" | "label" if tree.parent(node).is_some_and(|p| tree.name(p) == "figure") => {
            Style::Skip
        }
        "p" | "head" | "div" | "body" | "abstract" | "formula" | "figure" | "figDesc" | "lg"
        | "list" | "table" | "quote" | "note" | "sp" | "stage" | "ab" => Style::Block,
        "l" | "row" | "speaker" => Style::Line,
        "cell" => Style::Cell,
        "item" => Style::Item,
        "lb" => Style::Break,
        "pb" | "cb" => Style::Inline,
        _ => Style::Inline,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing;
    use super::KIND;

    #[test]
    fn writes_title_abstract_and_body() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tei.xml");
        fs::write(
            &path,
            "<TEI><teiHeader xml:lang='en'><fileDesc><titleStmt><title>T</title></titleStmt><publicationStmt>
            <availability><licence target='http://l/'/></availability></publicationStmt><sourceDesc><biblStruct><analytic>
            <author><persName><forename>A</forename> <surname>B</surname></persName></author>
            <author><affiliation>U</affiliation></author></analytic><idno type='DOI'>10.1/x</idno></biblStruct></sourceDesc>
            </fileDesc><profileDesc><abstract><p>S.</p></abstract></profileDesc></teiHeader><text><body>
            <div><head n='1'>One</head><p>By <ref type='bibr'>[1]</ref> the
            <choice><sic>teh</sic><corr>the</corr></choice>.</p><figure><head>Figure 1:</head><label>1</label>
            <figDesc>F.</figDesc></figure></div><note>n</note></body>
            <back><div type='references'><listBibl><biblStruct>R</biblStruct></listBibl></div></back></text></TEI>",
        )
        .unwrap();
        let row = |config: &str| {
            let source = testing::build(&KIND, config);
            testing::conforms(&*source, &testing::file(&path), &[500]).remove(0)
        };
        let kept = row("");
        assert_eq!(kept.text, "T\n\nS.\n\nOne\n\nBy [1] the the.\n\nFigure 1:\n\nF.");
        assert_eq!((kept.value("author"), kept.value("doi")), (Some("A B"), Some("10.1/x")));
        assert!(row("keep_captions = false").text.ends_with("the the."));
        assert!(row("keep_notes = true").text.ends_with("\n\nn"));
    }

    #[test]
    fn reads_what_grobid_made_of_papers() {
        let Some(folder) = testing::data("papers/s2orc-doc2json/pdf") else { return };
        let source = testing::build(&KIND, "");
        for (name, title) in [
            ("N18-3011.tei.xml", "Construction of the Literature Graph in Semantic Scholar"),
            (
                "2020.acl-main.207.tei.xml",
                "SPECTER: Document-level Representation Learning using Citation-informed Transformers",
            ),
        ] {
            let row = testing::read(&*source, &testing::file(&folder.join(name)), None).remove(0);
            assert_eq!(row.value("title"), Some(title));
            // What S2ORC made of the same file, word by word in any order.
            let json = fs::read(folder.join(name.replace(".tei.xml", ".json"))).unwrap();
            let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
            let parts =
                ["abstract", "body_text"].map(|part| json["pdf_parse"][part].as_array().unwrap());
            let theirs: Vec<&str> =
                parts.into_iter().flatten().map(|one| one["text"].as_str().unwrap()).collect();
            let source = testing::build(&KIND, "keep_captions = false");
            let ours = testing::read(&*source, &testing::file(&folder.join(name)), None).remove(0);
            let f1 = testing::word_f1(&ours.text, &theirs.join(" "));
            eprintln!("{name}: word F1 {f1:.4}");
            assert!(f1 > 0.95, "{name}: {f1}");
        }
    }
}
