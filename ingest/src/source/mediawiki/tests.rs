use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::super::testing;
use super::KIND;
use super::wikitext::{self, Names};

fn convert(source: &str) -> String {
    let names =
        Names { files: vec!["fails".to_owned()], categories: vec!["kategoreja".to_owned()] };
    wikitext::text(source, "Page", &names, false).text
}

#[track_caller]
fn check(source: &str, expected: &str) {
    assert_eq!(convert(source), expected, "{source}");
}

#[test]
fn reads_links_as_what_they_show() {
    check("a [[Earth|our planet]] [[moon]]s", "a our planet moons");
    check("x[[File:a.jpg|thumb|cap [[b]] c]]y [[Fails:b.png]]", "xy");
    check("x [[Category:C]] [[Kategoreja:K]] [[de:Erde]] [[zh-min-nan:X]]", "x");
    check("[[:Category:C]] [[wikt:word|word]] [[:de:Erde|Erde]]", "Category:C word Erde");
    check("[https://a.b/ label [[c]]] [https://a.b/] https://a.b/", "label c https://a.b/");
    check("[[unclosed and [text]", "[[unclosed and [text]");
}

#[test]
fn reads_the_templates_that_carry_words() {
    check("{{lang|de|Erde}} {{lang-fr|Terre}} {{Nowrap|a b}}", "Erde Terre a b");
    check("{{convert|5|km|mi}}, {{convert|2|to|3|sqmi|km2}}", "5 km, 2 to 3 sq mi");
    check("{{convert|5|ft|6|in|cm}} {{cvt|10|-|20|m2}}", "5 ft 6 in 10–20 m²");
    check("{{nihongo|Tokyo Tower|東京タワー|Tōkyō tawā}}", "Tokyo Tower (東京タワー, Tōkyō tawā)");
    check("{{birth date|1980|5|4|df=y}} {{circa|1900}}", "4 May 1980 c. 1900");
    check("a{{cite web|url=x|title={{lang|de|t}}}}b", "ab");
    check("{{#if: x | yes {{!}} no | never }} {{uc:abc}}", "yes | no ABC");
    check("{{#switch: b | a | b = two | #default = three}}", "two");
    check("before {{Infobox\n| a = {{convert|1|m|ft}}\n| b = c\n}} after", "before after");
}

#[test]
fn counts_what_it_leaves_out() {
    let found = wikitext::text(
        "a{{x}}<ref>r {{cite|b}}</ref>{{y|{{z}}}}<ref name=q />",
        "T",
        &Names::default(),
        false,
    );
    assert_eq!(found.text, "a");
    assert_eq!((found.n_templates_dropped, found.n_references_dropped), (3, 2));
}

#[test]
fn keeps_headings_with_text_below() {
    check(
        "Lead.\n== A ==\n=== B ===\ntext\n== See ==\n{{x}}\n== C==\n* one\n* two\n\n# three",
        "Lead.\n\nA\n\nB\n\ntext\n\nC\n\n- one\n- two\n- three",
    );
}

#[test]
fn reads_tables_row_by_row() {
    check(
        "{| class=\"wikitable\"\n|+ Caption\n! a !! style=\"x\" | b\n|-\n| 1 || [[x|2]]\n|-\n| [[p|q]]\n| more\nlines\n|}\nend",
        "Caption\na | b\n1 | 2\nq | more lines\n\nend",
    );
    check("{|\n|\nout\n{|\n| in || ner\n|}\n|}", "out\n\nin | ner");
}

#[test]
fn keeps_what_is_no_markup_as_it_is() {
    check("<nowiki>[[x]] ''y'' &lt;</nowiki>", "[[x]] ''y'' <");
    check("E = <math>mc^2 \\{\\{</math>.", "E = mc^2 \\{\\{.");
    check("a\n<pre>\n  x = [[1]]\n   y\n</pre>\nb", "a\n\n  x = [[1]]\n   y\n\nb");
    check("&lt;ref&gt; &amp;amp; &eacute; &#8212;", "<ref> &amp; é —");
    check("a<br/>b <span style=\"x>y\">c</span> <unknown> 1 < 2", "a\nb c <unknown> 1 < 2");
    check("__NOTOC__x __y__", "x __y__");
    check("<!-- a -->b<!-- {{ -->", "b");
}

/// MediaWiki's `doQuotes`: two, three, four and five apostrophes, and the unbalanced case.
#[test]
fn takes_out_the_apostrophes_of_type() {
    check("''a'' '''b''' '''''c''''' ''''d''''", "a b c 'd'");
    check("l'''amour'' et '''x'''", "l'amour et x");
}

#[test]
fn does_not_forge_spans_or_grow_on_hostile_pages() {
    check("<nowiki>kept</nowiki>&#127;0&#127;\u{7f}0\u{7f}", "kept00");
    let n = 50_000;
    for source in [
        "{{".repeat(n),
        "[[".repeat(n),
        "{{{".repeat(n) + &"}}}".repeat(n),
        "[[a|".repeat(n) + &"]]".repeat(n),
        "<ref>".repeat(n),
        "[http://x ".repeat(n),
        "{|\n|".repeat(n),
        "-{".repeat(n) + "}-",
        "'''''".repeat(n),
        "== ".repeat(n),
        "<nowiki>".repeat(n),
        "{{#if:x|".repeat(n) + &"}}".repeat(n),
    ] {
        let bytes = source.len();
        let start = std::time::Instant::now();
        let text = convert(&source);
        eprintln!("{} {:?}", &source[..10], start.elapsed());
        assert!(text.len() <= 2 * bytes, "{} of {bytes} bytes", text.len());
    }
}

proptest! {
    #[test]
    fn reads_any_text_without_panicking(parts in proptest::collection::vec(
        prop_oneof![
            Just("{{".to_owned()), Just("}}".to_owned()), Just("[[".to_owned()), Just("]]".to_owned()),
            Just("|".to_owned()), Just("{|".to_owned()), Just("|}".to_owned()), Just("\n".to_owned()),
            Just("<ref>".to_owned()), Just("</ref>".to_owned()), Just("<nowiki>".to_owned()),
            Just("</nowiki>".to_owned()), Just("''".to_owned()), Just("=".to_owned()),
            Just("-{".to_owned()), Just("}-".to_owned()), Just("__".to_owned()), Just("&#127;".to_owned()),
            Just("convert".to_owned()), Just("lang".to_owned()), Just("File:".to_owned()),
            ".{0,4}",
        ], 0..60,
    )) {
        let source = parts.concat();
        let text = convert(&source);
        prop_assert_eq!(text.find('\x7f'), None);
    }
}

#[test]
fn reads_every_page_of_the_latgalian_wikipedia() {
    let Some(folder) = testing::data("wiki/ltgwiki") else { return };
    let path = folder.join("smallwiki-latest-pages-articles.xml.gz");
    let rows = testing::read(&*testing::build(&KIND, ""), &testing::file(&path), None);
    // What the dump itself says, read line by line.
    let mut xml = String::new();
    let file = fs::File::open(&path).unwrap();
    std::io::Read::read_to_string(&mut flate2::read::MultiGzDecoder::new(file), &mut xml).unwrap();
    let n_pages = xml.matches("<page>").count();
    let n_redirects = xml.matches("<redirect ").count();
    let titles: Vec<String> = xml
        .lines()
        .filter_map(|line| line.trim().strip_prefix("<title>")?.strip_suffix("</title>"))
        .map(super::markup::unescape)
        .collect();
    assert_eq!((rows.len(), titles.len()), (n_pages, n_pages));
    assert_eq!(rows.iter().map(|row| row.value("title").unwrap()).collect::<Vec<_>>(), titles);
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &rows {
        *reasons.entry(row.reject.as_deref().unwrap_or("kept")).or_default() += 1;
        let namespace: i64 = row.value("namespace").unwrap().parse().unwrap();
        assert!(row.reject.is_some() || namespace == 0, "{}", row.locator);
    }
    eprintln!("{n_pages} pages: {reasons:?}");
    assert_eq!(reasons["redirect"], n_redirects);
    let row = rows.iter().find(|row| row.value("page_id") == Some("1")).unwrap();
    assert_eq!(row.url.as_deref(), Some("https://ltg.wikipedia.org/wiki/Suoku_puslopa"));
    assert_eq!(row.value("revision_id"), Some("29433"));
    // 2013-03-22T09:37:03Z.
    assert_eq!(row.date, Some(1_363_945_023));
    assert_eq!(row.value("wiki"), Some("ltgwiki"));
}

/// What is left of markup where none should be.
const LEFTOVERS: [&str; 12] =
    ["{{", "}}", "[[", "]]", "{|", "|}", "'''", "<ref", "</ref", "thumb|", "[[Category:", "|-"];

#[test]
fn leaves_no_markup_in_real_articles() {
    let Some(folder) = testing::data("wiki") else { return };
    let pages = unpack(&folder.join("wikitext-71-pages.tar.gz"));
    let mut clean = 0;
    for (name, source) in &pages {
        let text = convert(source);
        let left: Vec<&str> = LEFTOVERS.into_iter().filter(|mark| text.contains(mark)).collect();
        if left.is_empty() {
            clean += 1;
        } else {
            eprintln!("{name}: {left:?}");
        }
        if let Some(out) = std::env::var_os("GRISTMILL_WIKI_OUT") {
            fs::create_dir_all(&out).unwrap();
            fs::write(Path::new(&out).join(name), &text).unwrap();
        }
    }
    eprintln!("{clean} of {} pages without leftover markup", pages.len());
    assert_eq!(pages.len(), 71);
    assert!(clean >= 66, "{clean} of 71");
}

/// Reads the files of a `.tar.gz`: plain files with short names, which is all that the data has.
fn unpack(path: &Path) -> Vec<(String, String)> {
    let mut tar = Vec::new();
    let mut decoder = flate2::read::MultiGzDecoder::new(fs::File::open(path).unwrap());
    std::io::Read::read_to_end(&mut decoder, &mut tar).unwrap();
    let mut files = Vec::new();
    let mut at = 0;
    while tar.get(at).is_some_and(|&byte| byte != 0) {
        let field = |range: std::ops::Range<usize>| {
            let bytes = &tar[at + range.start..at + range.end];
            let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
            String::from_utf8(bytes[..end].to_vec()).unwrap()
        };
        let size = usize::from_str_radix(field(124..136).trim(), 8).unwrap();
        if tar[at + 156] == b'0' {
            let body = &tar[at + 512..at + 512 + size];
            files.push((field(0..100), String::from_utf8_lossy(body).into_owned()));
        }
        at += 512 + size.div_ceil(512) * 512;
    }
    files
}
