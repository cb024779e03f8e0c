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
    let pages = testing::untar(&folder.join("wikitext-71-pages.tar.gz"));
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

const HEAD: &str = "<mediawiki xml:lang=\"ltg\"><siteinfo><dbname>w</dbname><base>https://w.example/wiki/Main</base>\
    <namespaces><namespace key=\"6\">Fails</namespace></namespaces></siteinfo>\n";

fn page(title: &str, text: &str) -> String {
    format!(
        "<page><title>{title}</title><ns>0</ns><id>7</id><revision><id>8</id><text>{text}</text></revision></page>\n"
    )
}

fn dump(parts: &[String]) -> Vec<u8> {
    parts.concat().into_bytes()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

fn read(bytes: &[u8], name: &str, cuts: &[u16]) -> Vec<testing::Row> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    testing::conforms(&*testing::build(&KIND, ""), &testing::file(&path), cuts)
}

#[test]
fn tells_addresses_and_titles_as_the_site_writes_them() {
    let xml = dump(&[
        HEAD.to_owned(),
        page("A/B? &amp; &#xe9; c", "x [[Fails:a|b]]"),
        "</mediawiki>".to_owned(),
    ]);
    let rows = read(&xml, "a.xml", &[]);
    assert_eq!(rows[0].value("title"), Some("A/B? & é c"));
    assert_eq!(rows[0].url.as_deref(), Some("https://w.example/wiki/A/B%3F_&_%C3%A9_c"));
    assert_eq!((rows[0].text.as_str(), rows[0].value("page_id")), ("x", Some("7")));
    assert_eq!((rows[0].value("revision_id"), rows[0].value("wiki")), (Some("8"), Some("w")));
    assert_eq!(rows[0].locator, format!("a.xml#{}", HEAD.len()));
}

#[test]
fn takes_talk_pages_where_their_namespace_is_named() {
    let talk = page("Talk:A", "said").replace("<ns>0</ns>", "<ns>1</ns>");
    let xml = dump(&[HEAD.to_owned(), page("A", "text"), talk, "</mediawiki>".to_owned()]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.xml");
    fs::write(&path, xml).unwrap();
    for (config, expected) in [("", Err("other_namespace")), ("namespaces = [0, 1]", Ok("said"))] {
        let rows = testing::read(&*testing::build(&KIND, config), &testing::file(&path), None);
        assert_eq!((rows.len(), rows[0].text.as_str()), (2, "text"));
        assert_eq!(rows[1].reject.as_deref().map_or(Ok(rows[1].text.as_str()), Err), expected);
        assert_eq!(rows[1].value("namespace"), Some("1"));
    }
}

#[test]
fn leads_back_to_a_page_in_any_stream() {
    let pages = [page("one", "1"), page("two", "2"), page("three", "3")];
    let streams = [HEAD.to_owned(), pages[..2].concat(), format!("{}</mediawiki>", pages[2])];
    let xml: Vec<u8> = streams.iter().flat_map(|part| bzip2(part.as_bytes())).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.xml.bz2");
    fs::write(&path, xml).unwrap();
    let (source, file) = (testing::build(&KIND, ""), testing::file(&path));
    let rows = testing::conforms(&*source, &file, &[20_000, 40_000]);
    assert_eq!(rows.len(), 3);
    for (row, page) in rows.iter().zip(&pages) {
        let raw = testing::raw(&*source, &file, row).unwrap();
        assert_eq!(String::from_utf8(raw).unwrap(), page.trim_end(), "{}", row.locator);
    }
}

#[test]
fn loses_only_the_page_that_is_damaged() {
    let bomb = "<page><!DOCTYPE a [<!ENTITY b \"c\">]><title>x</title></page>";
    let parts = [
        HEAD.to_owned(),
        page("one", "&undefined; &lol;"),
        "<page><title>x</title><text>a</wrong></page>".to_owned(),
        "<page><ns>0</ns></page>".to_owned(),
        bomb.to_owned(),
        page("two", "kept"),
        "<page><title>cut".to_owned(),
    ];
    let mut xml = dump(&parts);
    let reasons = |rows: &[testing::Row]| {
        rows.iter().map(|row| row.reject.clone().unwrap_or(row.text.clone())).collect::<Vec<_>>()
    };
    assert_eq!(
        reasons(&read(&xml, "a.xml", &[9_000, 30_000, 60_000])),
        ["&undefined; &lol;", "bad_xml", "bad_xml", "bad_xml", "kept", "truncated"]
    );
    let at = memchr::memmem::find(&xml, b"kept").unwrap();
    xml[at] = 0xff;
    assert_eq!(reasons(&read(&xml, "a.xml", &[]))[4], "bad_utf8");
    let large = dump(&[HEAD.to_owned(), page("a", &"x".repeat(70_000)), page("b", "y")]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.xml");
    fs::write(&path, large).unwrap();
    let source = testing::build(&KIND, "page_bytes_max = 10000");
    let rows = testing::conforms(&*source, &testing::file(&path), &[30_000]);
    assert_eq!(reasons(&rows), ["too_large", "y"]);
    assert_eq!(rows[0].bytes_raw, 70_000 + page("a", "").len() as u64 - "\n".len() as u64);
    fs::write(&path, "<html/>").unwrap();
    let error = source.open(&testing::file(&path), None).err().unwrap().to_string();
    assert!(error.contains("mediawiki"), "{error}");
}

#[test]
fn reads_bzip2_streams_and_goes_on_after_a_damaged_one() {
    let streams: Vec<Vec<u8>> = [HEAD.to_owned() + &page("0", "n0")]
        .into_iter()
        .chain((1..5).map(|n| page(&n.to_string(), &format!("n{n}"))))
        .map(|part| bzip2(part.as_bytes()))
        .collect();
    let whole = streams.concat();
    let rows = read(&whole, "a.xml.bz2", &[5_000, 20_000, 40_000]);
    assert_eq!(
        rows.iter().map(|row| row.text.as_str()).collect::<Vec<_>>(),
        ["n0", "n1", "n2", "n3", "n4"]
    );
    assert_eq!(rows[1].locator, format!("a.xml.bz2#{}+0", streams[0].len()));
    assert_eq!(rows[0].locator, format!("a.xml.bz2#0+{}", HEAD.len()));
    let mut damaged = whole.clone();
    damaged[streams[0].len() + streams[1].len() + 30] ^= 0xff;
    let rows = read(&damaged, "a.xml.bz2", &[]);
    let kept: Vec<&str> =
        rows.iter().filter(|row| row.reject.is_none()).map(|row| row.text.as_str()).collect();
    assert_eq!(kept, ["n0", "n1", "n3", "n4"]);
    assert!(rows.iter().any(|row| row.reject.as_deref() == Some("bad_bzip2")));
    let rows = read(&whole[..whole.len() - 10], "a.xml.bz2", &[]);
    assert_eq!(rows.last().unwrap().reject.as_deref(), Some("bad_bzip2"));
    let mut zstd = zstd::encode_all(&*dump(&[HEAD.to_owned(), page("a", "z")]), 1).unwrap();
    assert_eq!(read(&zstd, "a.xml.zst", &[30_000])[0].text, "z");
    zstd.truncate(zstd.len() - 4);
    assert!(read(&zstd, "a.xml.zst", &[]).iter().any(|row| row.reject.is_some()));
}

proptest! {
    /// Streams that end anywhere, as parallel compressors cut them, inside tags too.
    #[test]
    fn ranges_of_any_size_tile_a_dump(
        texts in proptest::collection::vec("[a-z]{1,30}", 0..20),
        cuts in proptest::collection::vec(any::<u16>(), 0..5),
        streams in proptest::collection::vec(any::<u16>(), 0..6),
        is_packed in any::<bool>(),
    ) {
        let pages: Vec<String> =
            texts.iter().enumerate().map(|(n, text)| page(&n.to_string(), text)).collect();
        let xml = HEAD.to_owned() + &pages.concat() + "</mediawiki>";
        let mut ends: Vec<usize> = streams.iter().map(|&cut| xml.len() * usize::from(cut) / 65536).collect();
        ends.extend([0, xml.len()]);
        ends.sort_unstable();
        let bytes = if is_packed {
            ends.windows(2).flat_map(|pair| bzip2(&xml.as_bytes()[pair[0]..pair[1]])).collect()
        } else {
            xml.into_bytes()
        };
        let rows = read(&bytes, "a.xml", &cuts);
        prop_assert_eq!(rows.into_iter().map(|row| row.text).collect::<Vec<_>>(), texts);
    }
}

/// The words of MediaWiki's own tests: those of its HTML against those of our text.
///
/// Templates are not looked up and captions, tables of contents and edit links are not text here, so not all can be equal.
#[test]
fn gives_the_words_that_mediawiki_shows() {
    let Some(folder) = testing::data("wiki/parser-tests") else { return };
    let mut tests = Vec::new();
    let file = fs::File::open(folder.join("parserTests.txt.gz")).unwrap();
    std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(file), &mut tests).unwrap();
    let tests = String::from_utf8_lossy(&tests);
    let (mut judged, mut equal, mut plain, mut plain_equal) = (0, 0, 0, 0);
    let (mut shown, mut found, mut common) = (0, 0, 0);
    for test in tests.split("\n!! test\n").skip(1) {
        let section = |names: &[&str]| {
            names.iter().find_map(|name| {
                let (_, after) = test.split_once(&format!("\n!! {name}\n"))?;
                Some(after.split("\n!!").next().unwrap_or_default())
            })
        };
        let Some(wikitext) = section(&["wikitext"]) else { continue };
        let Some(html) = section(&["html", "html/php", "html/*"]) else { continue };
        // Those with options test other things: categories, summaries, languages.
        if section(&["options"]).is_some() || section(&["config"]).is_some() {
            continue;
        }
        let Some(html) = crate::modifier::extract_html::visible_text(html) else { continue };
        let text = convert(wikitext);
        let (html, text) = (words(&html), words(&text));
        judged += 1;
        equal += usize::from(html == text);
        if !wikitext.contains("{{") {
            plain += 1;
            plain_equal += usize::from(html == text);
        }
        shown += html.len();
        found += text.len();
        let mut left: BTreeMap<&String, usize> = BTreeMap::new();
        for word in &html {
            *left.entry(word).or_default() += 1;
        }
        for word in &text {
            let n = left.entry(word).or_default();
            common += usize::from(*n > 0);
            *n = n.saturating_sub(1);
        }
    }
    eprintln!(
        "{equal} of {judged} tests have equal words, {plain_equal} of {plain} without templates; {common} words in common of {shown} shown and {found} found"
    );
    assert!(judged > 500, "{judged}");
    assert!(equal * 100 >= judged * 60, "{equal} of {judged}");
}

fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}
