//! The links of a page, by a tokenizer that knows tags, attributes, comments and scripts, and no more of HTML.

use url::Url;

/// Links taken from a page, at most.
const LINKS_MAX: usize = 10_000;

/// Returns the absolute URLs that `html`, fetched from `page`, links to, in order of the page.
///
/// Links marked `nofollow` and pages whose `robots` meta says so give none.
pub(super) fn links(html: &str, page: &Url) -> Vec<Url> {
    let mut base = page.clone();
    let mut found = Vec::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = comment.find("-->").map_or("", |end| &comment[end + 3..]);
            continue;
        }
        let name_bytes = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let name = rest[..name_bytes].to_ascii_lowercase();
        let (attributes, after) = attributes(&rest[name_bytes..], is_linking(&name));
        rest = after;
        let get = |key: &str| {
            attributes.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, v)| *v)
        };
        let has = |key: &str, word: &str| {
            get(key).is_some_and(|value| {
                value.split([' ', ',', '\t']).any(|part| part.eq_ignore_ascii_case(word))
            })
        };
        let target = match name.as_str() {
            "script" | "style" => {
                rest = skip_to_end_tag(rest, &name);
                continue;
            }
            "meta" if has("name", "robots") && has("content", "nofollow") => return Vec::new(),
            "base" => {
                if let Some(url) = get("href").and_then(|href| base.join(&unescape(href)).ok()) {
                    base = url;
                }
                continue;
            }
            "a" | "area" if !has("rel", "nofollow") => get("href"),
            "link" if has("rel", "next") || has("rel", "canonical") => get("href"),
            "frame" | "iframe" => get("src"),
            _ => continue,
        };
        let url = target.and_then(|target| base.join(unescape(target).trim()).ok());
        found.extend(url.filter(|url| matches!(url.scheme(), "http" | "https")));
        if found.len() >= LINKS_MAX {
            break;
        }
    }
    found
}

fn is_linking(name: &str) -> bool {
    matches!(name, "a" | "area" | "link" | "frame" | "iframe" | "base" | "meta")
}

/// Splits the attributes of a tag off `text`; collects them only if `is_wanted`.
fn attributes(text: &str, is_wanted: bool) -> (Vec<(&str, &str)>, &str) {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        if rest.is_empty() || rest.starts_with('<') {
            return (found, rest);
        }
        if let Some(after) = rest.strip_prefix('>') {
            return (found, after);
        }
        let is_end = |c: char| c.is_ascii_whitespace() || matches!(c, '=' | '>' | '/');
        let end = rest.find(is_end).unwrap_or(rest.len()).max(1);
        let end = rest.ceil_char_boundary(end);
        let name = &rest[..end];
        rest = rest[end..].trim_ascii_start();
        let Some(after) = rest.strip_prefix('=') else { continue };
        let after = after.trim_ascii_start();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''));
        let value;
        if let Some(quote) = quote {
            let end = after[1..].find(quote).map_or(after.len(), |at| at + 1);
            value = &after[1..end];
            rest = after.get(end + 1..).unwrap_or("");
        } else {
            let is_end = |c: char| c.is_ascii_whitespace() || c == '>';
            let end = after.find(is_end).unwrap_or(after.len());
            value = &after[..end];
            rest = &after[end..];
        }
        if is_wanted {
            found.push((name, value));
        }
    }
}

fn skip_to_end_tag<'a>(text: &'a str, name: &str) -> &'a str {
    let mut from = 0;
    while let Some(at) = text[from..].find("</") {
        let tag = from + at + 2;
        if text.get(tag..tag + name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name)) {
            return &text[tag + name.len()..];
        }
        from = tag;
    }
    ""
}

/// Undoes the character references that stand in links.
fn unescape(value: &str) -> String {
    let value = value.replace("&#38;", "&").replace("&#x26;", "&").replace("&#47;", "/");
    let value = value.replace("&quot;", "\"").replace("&#39;", "'");
    value.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use url::Url;

    fn check(html: &str, expected: &[&str]) {
        let page = Url::parse("http://x/a/b").unwrap();
        let links = super::links(html, &page);
        assert_eq!(links.iter().map(Url::as_str).collect::<Vec<_>>(), expected, "{html}");
    }

    #[test]
    fn finds_links_and_nothing_else() {
        check("<a href=c>c</a><A HREF='/d?x=1&amp;y=2' >", &["http://x/a/c", "http://x/d?x=1&y=2"]);
        check(
            "<!-- <a href=no> --><script>\"<a href=no>\"</script><a href=\"y\">",
            &["http://x/a/y"],
        );
        check("<base href='http://z/'><area href=q><frame src=f>", &["http://z/q", "http://z/f"]);
        check("<link rel=stylesheet href=s><link rel='next' href=n>", &["http://x/a/n"]);
        check("<a rel=nofollow href=no><a href='mailto:a@b'><a>", &[]);
        check("<meta name=robots content='noindex, nofollow'><a href=no>", &[]);
        check(
            "<a title='>' href=\"é\"><a href='unclosed",
            &["http://x/a/%C3%A9", "http://x/a/unclosed"],
        );
    }
}
