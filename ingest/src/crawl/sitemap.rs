//! The URLs that a site lists itself: sitemaps (XML, index, text), RSS, Atom and JSON feeds, also as gzip.
//!
//! Source: sitemaps.org protocol 0.9; RSS 2.0; RFC 4287; JSON Feed 1.1. Namespaces and nesting are not insisted on: of
//! the lists of the web, many get one or the other wrong.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use url::Url;

use crate::source::inflate::{self, Limits};

/// URLs of a list that count. sitemaps.org: 50,000.
const URLS_MAX: usize = 50_000;

/// What a list names, in its order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct List {
    pub(super) pages: Vec<Url>,
    /// Further sitemaps.
    pub(super) sitemaps: Vec<Url>,
}

/// Reads the list in `bytes`, fetched from `url`, inflated within `limits` if it is gzip. What is no list gives nothing; of
/// a damaged one, or one that is too large, what is before that counts.
pub(super) fn read(bytes: &[u8], url: &Url, limits: Limits) -> List {
    let mut inflated = Vec::new();
    let bytes = match inflate::decode_body(b"gzip", bytes, &mut inflated, limits) {
        Ok(false) => bytes,
        Ok(true) | Err(_) => &inflated,
    };
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    match text.as_bytes().first() {
        Some(b'<') => read_xml(text, url),
        Some(b'{') => read_json(text, url),
        _ => read_lines(text, url),
    }
}

/// The element whose text is being collected.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Loc,
    Link,
    Guid,
}

fn read_xml(text: &str, base: &Url) -> List {
    let mut list = List::default();
    let mut reader = Reader::from_str(text);
    let config = reader.config_mut();
    config.allow_dangling_amp = true;
    config.allow_unmatched_ends = true;
    config.check_end_names = false;
    let (mut is_index, mut is_in_item) = (false, false);
    let (mut field, mut value, mut guid) = (None, String::new(), None);
    while let Ok(event) = reader.read_event() {
        match event {
            // Of an entry, the page; of the feed itself, nothing.
            Event::Start(start) | Event::Empty(start) if is_in_item && is_atom_link(&start) => {
                list.pages.extend(href(&start).and_then(|href| join(base, &href)));
            }
            Event::Start(start) => {
                let name = start.local_name();
                field = match name.as_ref() {
                    "sitemapindex" => {
                        is_index = true;
                        None
                    }
                    "item" | "entry" => {
                        (is_in_item, guid) = (true, None);
                        None
                    }
                    // Images have a `loc` of their own.
                    // An index with the URL where its element should be is read, too.
                    "sitemap" if is_index => Some(Field::Loc),
                    "loc" if !start.name().as_ref().contains("image") => Some(Field::Loc),
                    "link" if is_in_item => Some(Field::Link),
                    "guid" if is_in_item => Some(Field::Guid),
                    _ => None,
                };
                value.clear();
            }
            Event::Text(text) => value.push_str(&text),
            Event::CData(text) => value.push_str(&text),
            Event::GeneralRef(name) => match name.resolve_char_ref() {
                Ok(Some(letter)) => value.push(letter),
                _ => value.push_str(entity(&name)),
            },
            Event::End(end) => {
                let url = field.take().and_then(|field| Some((field, join(base, value.trim())?)));
                match url {
                    // An identifier need not be a URL.
                    Some((Field::Guid, url)) if value.trim().starts_with("http") => {
                        guid = Some(url);
                    }
                    Some((Field::Guid, _)) | None => {}
                    Some((Field::Loc, url)) if is_index => list.sitemaps.push(url),
                    Some((Field::Loc, url)) => list.pages.push(url),
                    Some((Field::Link, url)) => {
                        list.pages.push(url);
                        is_in_item = false;
                    }
                }
                if matches!(end.local_name().as_ref(), "item" | "entry") {
                    // An item without a link may be at its identifier.
                    list.pages.extend(guid.take().filter(|_| is_in_item));
                    is_in_item = false;
                }
                value.clear();
            }
            Event::Eof => break,
            _ => {}
        }
        if list.pages.len() + list.sitemaps.len() >= URLS_MAX {
            break;
        }
    }
    list
}

fn is_atom_link(start: &BytesStart<'_>) -> bool {
    start.local_name().as_ref() == "link" && href(start).is_some()
}

/// Returns where an Atom link leads if it is the page itself.
fn href(start: &BytesStart<'_>) -> Option<String> {
    let value = |name: &str| {
        let attribute = start.try_get_attribute(name).ok()??;
        Some(attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).ok()?.into_owned())
    };
    value("href").filter(|_| value("rel").is_none_or(|rel| rel == "alternate"))
}

/// The characters that XML names. Others stand for text that a document declares, which is not read.
fn entity(name: &str) -> &str {
    match name {
        "amp" => "&",
        "lt" => "<",
        "gt" => ">",
        "quot" => "\"",
        "apos" => "'",
        _ => "",
    }
}

fn read_json(text: &str, base: &Url) -> List {
    let feed: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let items = feed["items"].as_array().map_or(&[][..], Vec::as_slice);
    let urls = items.iter().filter_map(|item| join(base, item["url"].as_str()?));
    List { pages: urls.take(URLS_MAX).collect(), sitemaps: Vec::new() }
}

/// A URL per line; what is none, or relative, is no list.
fn read_lines(text: &str, base: &Url) -> List {
    let is_url = |line: &&str| line.starts_with("http://") || line.starts_with("https://");
    let urls = text.lines().map(str::trim).filter(is_url).filter_map(|line| join(base, line));
    List { pages: urls.take(URLS_MAX).collect(), sitemaps: Vec::new() }
}

fn join(base: &Url, target: &str) -> Option<Url> {
    let url = base.join(target).ok()?;
    (!target.is_empty() && matches!(url.scheme(), "http" | "https")).then_some(url)
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::{Limits, List, read};
    use crate::source::testing;

    const LIMITS: Limits = Limits { bytes: 32 << 20, ratio: 100 };

    fn list(path: &str) -> Option<List> {
        let path = testing::data(path)?;
        let url = Url::parse("https://www.example.com/feeds/list").unwrap();
        Some(read(&std::fs::read(path).unwrap(), &url, LIMITS))
    }

    /// Checks how many pages and further sitemaps a list names: counted by hand in the file, or with
    /// `grep -o '<loc>' | wc -l` in the long ones.
    fn check(path: &str, pages: usize, sitemaps: usize) {
        let Some(list) = list(path) else { return };
        assert_eq!((list.pages.len(), list.sitemaps.len()), (pages, sitemaps), "{path}: {list:?}");
    }

    #[test]
    fn finds_the_urls_of_real_lists() {
        for (name, pages, sitemaps) in [
            ("atom.xml", 2, 0),
            ("do-not-visit.txt", 1, 0),
            ("sitemap.badns.xml", 2, 0),
            ("sitemap.index.xml", 0, 15),
            ("sitemap.ns.xml", 2, 0),
            ("sitemap.txt", 2, 0),
            ("sitemap.txt.gz", 5, 0),
            ("sitemap-with-bom.txt", 2, 0),
            ("xmlSitemap.gz", 5, 0),
            ("extension/hebdenbridgetimes-articles-sitemap.xml", 74, 0),
            ("extension/pagemaps-sitemap.xml", 2, 0),
            ("extension/shinpaideshou-news-sitemap.xml", 3, 0),
            ("extension/sitemap-images.xml", 1, 0),
            ("extension/sitemap-links.xml", 3, 0),
            ("extension/sitemap-mobile.xml", 3, 0),
            ("extension/sitemap-news.xml", 2, 0),
            ("extension/sitemap-videos.xml", 3, 0),
            ("extension/sitemap-videos-tvshow.xml", 1, 0),
            ("rss/feed.rss", 4, 0),
        ] {
            check(&format!("conformance/sitemaps/{name}"), pages, sitemaps);
        }
        for (name, pages, sitemaps) in [
            ("feed1.atom", 1, 0),
            ("sitemap.xml", 84, 0),
            ("sitemap-hreflang.xml", 4, 0),
            ("sitemap2.xml", 0, 2),
        ] {
            check(&format!("crawl/sitemaps-feeds/{name}"), pages, sitemaps);
        }
    }

    #[test]
    fn reads_entities_and_marked_sections_of_a_link() {
        let Some(list) = list("conformance/sitemaps/rss/feed.rss") else { return };
        let urls: Vec<&str> = list.pages.iter().map(Url::as_str).collect();
        assert_eq!(
            urls,
            [
                "https://www.example.com/blog/post/1",
                "https://www.example.com/guid.html",
                "https://www.example.com/foo?q=a&l=en",
                "https://www.example.com/foo?q=a&l=fr",
            ]
        );
    }

    #[test]
    fn expands_no_entity_that_a_list_declares() {
        let bomb = r#"<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;"><!ENTITY c SYSTEM "file:///etc/passwd">]>
            <urlset><url><loc>http://x/&b;&c;</loc></url></urlset>"#;
        let list = read(bomb.as_bytes(), &Url::parse("http://x/").unwrap(), LIMITS);
        assert_eq!(list.pages, [Url::parse("http://x/").unwrap()]);
    }
}
