use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::*;

fn of(mode: Mode) -> Config {
    Config { mode, ..Config::default() }
}

fn check_with(mode: Mode, html: &str, expected: &str) {
    assert_eq!(extract(html, of(mode)).text, expected, "{html}");
}

fn check(html: &str, expected: &str) {
    check_with(Mode::All, html, expected);
}

#[test]
fn writes_blocks_apart_and_inline_elements_together() {
    check("<p>One <b>bo</b>ld&nbsp;word.\n  Two.<p>Three.", "One bold word. Two.\n\nThree.");
    check("<div>a<span>b</span> c</div>d", "ab c\n\nd");
    check("a<br>b<br><br>c<br><br><br>d", "a\nb\n\nc\n\nd");
    check("<h1>Title</h1>text<hr>more", "Title\n\ntext\n\nmore");
}

#[test]
fn writes_lists_and_tables() {
    check("<ul><li>a<li><p>b</p><p>c</p></li></ul>", "- a\n- b\n\nc");
    check("<ol><li>a<ul><li>b</li></ul></li><li>c</ol>", "- a\n\n- b\n\n- c");
    check("<table><tr><th>a<th>b<tr><td>1<td><b>2</b></table>", "a | b\n1 | 2");
    check("<dl><dt>a<dd>b<dt>c<dd>d</dl>", "a\nb\nc\nd");
}

#[test]
fn keeps_preformatted_text_as_it_is() {
    check(
        "<p>see</p><pre>\nfn main() {\n    x  &lt; y\n}\n</pre>z",
        "see\n\nfn main() {\n    x  < y\n}\n\nz",
    );
}

#[test]
fn closes_what_is_left_open() {
    check("<p>a<div>b</p>c", "a\n\nb\n\nc");
    check("<b>a<p>b</b>c</p>d", "a\n\nbc\n\nd");
    check("<table><tr><td>a<table><tr><td>b</table>c</table>d", "a\n\nb\n\nc\n\nd");
    check("<select><option>a<option>b</select>c", "c");
    check("<noscript><p>a<div>b</noscript>c<svg><p>d</svg>e", "ce");
}

#[test]
fn leaves_out_what_is_not_text() {
    check(
        "<script>if (a<b) '</p>'</script><style>p{}</style><!-- no --><p hidden>no</p>\
         <p style='display : none'>no</p><textarea><p>no</textarea><svg><text>no</text></svg>yes",
        "yes",
    );
}

const ARTICLE: &str = "<html lang=en><head><title>The mill - The Daily</title>\
    <meta name=author content='A. Miller'><meta property=article:published_time content=2024-05-01></head><body>\
    <nav><ul><li><a href=/>Home</a><li><a href=/news>News</a></ul></nav><div class=post><h1>The mill</h1>\
    <p>The mill stood by the river, and the miller, who was old, had to be up with the sun every day of the week.</p>\
    <p>He ground the grain, weighed the flour, and sold it to the people of the village, who came from far away.</p>\
    <div class=share-buttons><a href=/f>Share on F</a><a href=/t>Share on T</a></div>\
    <p>When the river froze, nothing was ground, and the miller, with nothing to do, told stories to the children.</p>\
    </div><div class=sidebar><p>Buy our calendar, it has twelve months, and every one of them has a picture.</p></div>\
    <footer>Imprint</footer>";

#[test]
fn takes_the_article_and_leaves_the_furniture() {
    let page = extract(ARTICLE, of(Mode::Main));
    assert!(
        page.text.contains("stood by the river") && page.text.contains("told stories"),
        "{}",
        page.text
    );
    for furniture in ["Home", "Share on", "calendar", "Imprint"] {
        assert!(!page.text.contains(furniture), "{}", page.text);
    }
    let found = [
        ("title", "The mill - The Daily"),
        ("author", "A. Miller"),
        ("published", "2024-05-01"),
        ("html_language", "en"),
    ];
    assert_eq!(page.found, found.map(|(key, value)| (key, value.to_owned())));
}

#[test]
fn writes_markdown() {
    let check = |html: &str, expected: &str| {
        let config = Config { mode: Mode::All, format: Format::Markdown, ..Config::default() };
        assert_eq!(extract(html, config).text, expected, "{html}");
    };
    check("<h2>Ti<b>tle</b></h2><p>one\ntwo<p>three", "## Title\n\none two\n\nthree");
    check("<ul><li>a<ul><li>b</ul><li>c</ul><ol><li>d<li>e</ol>", "- a\n  - b\n- c\n\n1. d\n2. e");
    check(
        "<table><tr><th>a<th>b<tr><td>1<td>x|y</table>",
        "| a | b |\n| --- | --- |\n| 1 | x\\|y |",
    );
    check(
        "<p>see <code>f(x)</code>:<pre>a  b\n\n  c</pre>d",
        "see `f(x)`:\n\n```\na  b\n\n  c\n```\n\nd",
    );
    check("<blockquote><p>a<p>b</blockquote>c", "> a\n>\n> b\n\nc");
    let links =
        Config { links: true, mode: Mode::All, format: Format::Markdown, ..Config::default() };
    let html = "<p>to <a href='/x?a=1&amp;b'>the mill</a>.";
    assert_eq!(extract(html, links).text, "to [the mill](/x?a=1&b).");
}

#[test]
fn reads_noscript_where_nothing_else_is_written() {
    let text = "The miller told stories to the children. ".repeat(20);
    let html = format!("<body><p>Loading</p><noscript><div><p>{text}</div></noscript>");
    assert!(extract(&html, of(Mode::All)).text.contains("told stories"));
    assert!(
        !extract(&format!("<p>{text}{text}{html}"), of(Mode::All)).text.contains("Loading\n\nThe")
    );
}

#[test]
fn finds_metadata_in_links_and_linked_data() {
    let html = r#"<title>T</title><link rel=canonical href="https://a.example/x"><meta property=og:site_name content=Mill>
        <script type="application/ld+json">{"@graph":[{"@type":"Article","datePublished":"2024-05-01","author":[{"name":"A. Miller"}]}]}</script><p>x"#;
    let found: HashMap<_, _> = extract(html, of(Mode::Main)).found.into_iter().collect();
    assert_eq!(found["canonical_url"], "https://a.example/x");
    assert_eq!(found["site_name"], "Mill");
    assert_eq!((&*found["author"], &*found["published"]), ("A. Miller", "2024-05-01"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]
    #[test]
    fn takes_any_markup(pieces in proptest::collection::vec(proptest::sample::select(vec![
        "<div class=post>", "</div>", "<p>", "</p>", "<table>", "<tr>", "<td>", "</table>", "<ul><li>", "</ul>", "<pre>", "</pre>",
        "<code>", "</code>", "<blockquote>", "</blockquote>", "<a href=x>", "</a>", "<br><br>", "word, word. ", "é 漢字。", "&amp;", "\n",
        "<noscript>", "<h2>", "</h2>", "<!--", "-->", "<script>", "</script>", "<", "<x a='", "'>",
    ]), 0..60)) {
        let html = pieces.concat();
        for mode in [Mode::Main, Mode::Recall, Mode::All] {
            for format in [Format::Text, Format::Markdown] {
                let config = Config { mode, format, links: true, comments: true };
                let page = extract(&html, config);
                assert_eq!(page.text.is_empty(), page.reason.is_some(), "{html}");
            }
        }
    }
}

#[test]
fn gives_a_reason_for_a_page_without_text() {
    for html in ["", " \n", "<html><body><script>x</script></body></html>", "<!--", "<p>&nbsp;</p>"]
    {
        for mode in [Mode::Main, Mode::Recall, Mode::All] {
            let page = extract(html, of(mode));
            assert_eq!((page.text.as_str(), page.reason), ("", Some("no_text")), "{html}");
        }
    }
}

#[test]
fn rejects_a_page_of_too_many_nodes() {
    let page = extract(&"<b>".repeat(1_000_001), of(Mode::Main));
    assert_eq!(page.reason, Some("too_many_nodes"));
}

#[test]
fn reads_deep_and_unfinished_pages_in_a_second() {
    let deep = |open: &str, close: &str| {
        format!("{}the end of it{}", open.repeat(100_000), close.repeat(100_000))
    };
    let pages = [
        deep("<div>", "</div>"),
        deep("<p><b>", "</b>"),
        deep("<table><tr><td>", "</table>"),
        deep("<ul><li>", ""),
        deep("<a href=x><i>", "</a>"),
        deep("<script><!--<script>", "</script>"),
        deep("<!--", "-"),
        deep("<!", "<?"),
        deep("</", ">"),
        deep("&", "&#x"),
        deep("<x a='", "' "),
        deep("<form><select><option>", ""),
        format!("<p {}>the end of it", "class=article ".repeat(200_000)),
        format!("<p class='{}'>the end of it", "sidebar-".repeat(200_000)),
    ];
    for page in pages {
        let start = Instant::now();
        for mode in [Mode::Main, Mode::All] {
            let _text = extract(&page, of(mode)).text;
        }
        let seconds = start.elapsed().as_secs_f64();
        assert!(seconds < 2.0, "{seconds} s for `{}…`", &page[..30]);
    }
}

#[test]
fn reads_only_rows_that_are_html_when_metadata_says_what_they_are() {
    use arrow::array::{ArrayRef, MapBuilder, StringBuilder, StringViewArray};

    let mut metadata = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for content_type in ["text/html; charset=utf-8", "text/plain", "application/xhtml+xml"] {
        metadata.keys().append_value("content_type");
        metadata.values().append_value(content_type);
        metadata.append(true).unwrap();
    }
    metadata.append(false).unwrap();
    let texts: ArrayRef = Arc::new(StringViewArray::from(vec!["<p>a &lt; b"; 4]));
    let metadata: ArrayRef = Arc::new(metadata.finish());
    let documents = RecordBatch::try_from_iter([("text", texts), ("metadata", metadata)]).unwrap();
    let modified = (KIND.build)(&toml::Table::new()).unwrap().modify(&documents).unwrap();
    let texts: Vec<&str> = modified.text.iter().flatten().collect();
    assert_eq!(texts, ["a < b", "<p>a &lt; b", "a < b", "<p>a &lt; b"]);
}

fn data() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    std::env::var_os("GRISTMILL_DATA").map_or_else(beside, PathBuf::from)
}

/// Counts of the 4-word shingles of a text, as the benchmark's `evaluate.py` makes them: `\w+`, case kept.
fn shingles(text: &str) -> HashMap<Vec<&str>, f64> {
    let word = regex::Regex::new(r"\w+").unwrap();
    let words: Vec<&str> = word.find_iter(text).map(|found| found.as_str()).collect();
    let mut counts = HashMap::new();
    for start in 0..(words.len() + 1).saturating_sub(4).max(1) {
        let shingle = &words[start..words.len().min(start + 4)];
        if !shingle.is_empty() {
            *counts.entry(shingle.to_vec()).or_insert(0.0) += 1.0;
        }
    }
    counts
}

/// Precision and recall of `found` against `truth`, the two means of which give the benchmark's F1.
fn score(truth: &str, found: &str) -> (Option<f64>, Option<f64>) {
    let (truth, found) = (shingles(truth), shingles(found));
    let common: f64 = truth.iter().map(|(key, n)| n.min(*found.get(key).unwrap_or(&0.0))).sum();
    let (n_truth, n_found): (f64, f64) = (truth.values().sum(), found.values().sum());
    let share = |whole: f64| (whole > 0.0).then(|| common / whole);
    (share(n_found), share(n_truth))
}

/// A page of the article-extraction benchmark: its key, HTML and hand-made text.
fn benchmark() -> Option<Vec<(String, String, String)>> {
    let folder = data().join("html-truth/article-extraction-benchmark");
    let truth = std::fs::read_to_string(folder.join("ground-truth.json")).ok()?;
    let truth: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&truth).unwrap();
    let read = |(key, value): (&String, &serde_json::Value)| {
        let file = std::fs::File::open(folder.join(format!("html/{key}.html.gz"))).unwrap();
        let mut html = String::new();
        flate2::read::GzDecoder::new(file).read_to_string(&mut html).unwrap();
        (key.clone(), html, value["articleBody"].as_str().unwrap_or_default().to_owned())
    };
    Some(truth.iter().map(read).collect())
}

#[test]
fn finds_the_articles_of_the_scrapinghub_benchmark() {
    let Some(pages) = benchmark() else {
        eprintln!("skipped: no article-extraction benchmark under {}", data().display());
        return;
    };
    let start = Instant::now();
    let texts: Vec<String> =
        pages.iter().map(|(_, html, _)| extract(html, of(Mode::Main)).text).collect();
    let seconds = start.elapsed().as_secs_f64();
    let (mut precisions, mut recalls) = (Vec::new(), Vec::new());
    let dump = std::env::var_os("GRISTMILL_DUMP").map(PathBuf::from);
    for ((key, _, truth), text) in pages.iter().zip(&texts) {
        let (precision, recall) = score(truth, text);
        if let Some(folder) = &dump {
            std::fs::write(folder.join(format!("{key}.txt")), text).unwrap();
            std::fs::write(folder.join(format!("{key}.truth")), truth).unwrap();
            eprintln!("{key} {:.2} {:.2}", precision.unwrap_or(0.0), recall.unwrap_or(0.0));
        }
        precisions.extend(precision);
        recalls.extend(recall);
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (precision, recall) = (mean(&precisions), mean(&recalls));
    let f1 = 2.0 * precision * recall / (precision + recall);
    eprintln!(
        "{} pages, {:.0} pages/s: F1 {f1:.4} P {precision:.4} R {recall:.4}",
        pages.len(),
        pages.len() as f64 / seconds
    );
    // Measured 0.958, less 0.008.
    assert!(f1 >= 0.95, "F1 {f1}");
}

#[test]
fn survives_hostile_pages() {
    let folders = [
        "conformance/hostile/html",
        "conformance/hostile/charset",
        "conformance/html5/tree-construction",
    ];
    let mut n_pages = 0;
    for folder in folders.map(|folder| data().join(folder)) {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            eprintln!("skipped: no {}", folder.display());
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            let Ok(bytes) = std::fs::read(&path) else { continue };
            let html = String::from_utf8_lossy(&bytes);
            // A file of test cases is also hundreds of small pages.
            let cases = html
                .split("#data\n")
                .flat_map(|case| [case, case.split("\n#errors").next().unwrap_or(case)]);
            for page in std::iter::once(&*html).chain(cases) {
                for mode in [Mode::Main, Mode::Recall, Mode::All] {
                    let start = Instant::now();
                    let page = extract(page, of(mode));
                    let seconds = start.elapsed().as_secs_f64();
                    assert!(seconds < 1.0, "{}: {seconds} s", path.display());
                    assert_eq!(page.text.is_empty(), page.reason.is_some(), "{}", path.display());
                }
                n_pages += 1;
            }
        }
    }
    eprintln!("{n_pages} hostile pages");
}

/// What the manifest of the hostile pages promises of each.
#[test]
fn finds_what_hostile_pages_hold() {
    let Some(cases) = crate::source::testing::hostile("html/") else { return };
    for case in &cases {
        let html = String::from_utf8_lossy(&std::fs::read(&case.path).unwrap()).into_owned();
        let page = extract(&html, of(Mode::All));
        let name = &case.name;
        let expected = case.text("expect").unwrap();
        // Deep pages are read or refused by name.
        assert_eq!(page.text.is_empty(), page.reason.is_some(), "{name}");
        if expected != "read_or_refuse_no_crash" {
            assert_eq!(page.reason, None, "{name}: {expected}");
        }
        if let Some(wanted) = case.text("must_contain").or(case.text("text")) {
            assert!(page.text.contains(&wanted), "{name}: {:.200}", page.text);
        }
        if let Some(unwanted) = case.text("must_not_contain") {
            assert!(!page.text.contains(&unwanted), "{name}: {:.200}", page.text);
        }
        assert!(!page.text.contains('\0'), "{name}");
        assert!(!page.text.to_ascii_lowercase().contains("javascript:"), "{name}");
        eprintln!("{name}: {expected}: {} bytes, {:?}", page.text.len(), page.reason);
    }
    assert_eq!(cases.len(), 19);
}
