//! Tags and text of a page, after the states of the WHATWG tokenizer (section 13.2.5).
//!
//! Tokens borrow from the page. References stay unresolved: the caller resolves those that it keeps.

use memchr::{memchr, memchr_iter, memchr2, memmem};

use super::tag::{Content, Tag};

/// Attributes of a tag that are kept; the rest are read and forgotten.
const ATTRIBUTES_MAX: usize = 256;
/// Bytes of the longest name in [`Tag`].
const NAME_BYTES_MAX: usize = 10;

/// A piece of a page. Comments and doctypes are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A start tag; its attributes are in [`Tokenizer::attributes`] until the next token.
    Start {
        /// The element.
        tag: Tag,
        /// Whether it ends in `/>`.
        self_closing: bool,
    },
    /// An end tag.
    End(Tag),
    /// Characters, with references where [`Content`] has them.
    Text(&'a str, Content),
}

/// An iterator over the tokens of a page.
#[derive(Debug)]
pub(super) struct Tokenizer<'a> {
    page: &'a str,
    at: usize,
    /// The element whose content is not markup, until its end tag.
    raw: Option<(Tag, &'a str)>,
    /// Names (as written) and raw values of the last start tag's attributes, first come first.
    pub(super) attributes: Vec<(&'a str, &'a str)>,
}

impl<'a> Tokenizer<'a> {
    pub(super) fn new(page: &'a str) -> Self {
        Self { page, at: 0, raw: None, attributes: Vec::new() }
    }

    /// Reads what stands between a raw element's start tag and its end tag.
    fn raw_text(&mut self, tag: Tag, name: &str) -> Token<'a> {
        let rest = &self.page[self.at..];
        let end = match tag.content() {
            Content::Plain => rest.len(),
            _ if tag == Tag::Script => script_end(rest),
            _ => raw_end(rest, name).unwrap_or(rest.len()),
        };
        self.at += end;
        Token::Text(&rest[..end], tag.content())
    }

    /// Reads the tag that begins at `<` or `</`; `None` when the page ends inside it.
    fn tag(&mut self, is_end: bool) -> Option<Token<'a>> {
        let bytes = self.page.as_bytes();
        let start = self.at + 1 + usize::from(is_end);
        let is_delimiter =
            |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\x0c' | b'\r' | b' ' | b'/' | b'>');
        let end = start + bytes[start..].iter().position(is_delimiter)?;
        let name = &self.page[start..end];
        let mut lower = [0; NAME_BYTES_MAX];
        let tag = match lower.get_mut(..name.len()) {
            Some(lower) => {
                lower.copy_from_slice(name.as_bytes());
                lower.make_ascii_lowercase();
                str::from_utf8(lower).map_or(Tag::Other, Tag::from_name)
            }
            None => Tag::Other,
        };
        self.attributes.clear();
        let (at, self_closing) = self.attributes_from(end)?;
        self.at = at;
        if is_end {
            return Some(Token::End(tag));
        }
        // To browsers the content of `noscript` is not markup, so that an iframe without an end there does no harm.
        let is_empty = tag == Tag::Iframe && self_closing;
        if tag.content() != Content::Data && !is_empty {
            self.raw = Some((tag, name));
        }
        Some(Token::Start { tag, self_closing })
    }

    /// Reads attributes from `at` to behind `>`; says whether `/` stood before it.
    fn attributes_from(&mut self, mut at: usize) -> Option<(usize, bool)> {
        let bytes = self.page.as_bytes();
        let is_space = |byte: u8| matches!(byte, b'\t' | b'\n' | b'\x0c' | b'\r' | b' ');
        loop {
            while is_space(*bytes.get(at)?) {
                at += 1;
            }
            match bytes[at] {
                b'>' => return Some((at + 1, false)),
                b'/' if bytes.get(at + 1) == Some(&b'>') => return Some((at + 2, true)),
                b'/' => {
                    at += 1;
                    continue;
                }
                _ => {}
            }
            let name_start = at;
            at += 1;
            while !matches!(*bytes.get(at)?, b'/' | b'>' | b'=') && !is_space(bytes[at]) {
                at += 1;
            }
            let name = &self.page[name_start..at];
            while is_space(*bytes.get(at)?) {
                at += 1;
            }
            let mut value = "";
            if bytes[at] == b'=' {
                at += 1;
                while is_space(*bytes.get(at)?) {
                    at += 1;
                }
                match bytes[at] {
                    quote @ (b'"' | b'\'') => {
                        let end = at + 1 + memchr(quote, &bytes[at + 1..])?;
                        value = &self.page[at + 1..end];
                        at = end + 1;
                    }
                    b'>' => {}
                    _ => {
                        let value_start = at;
                        while *bytes.get(at)? != b'>' && !is_space(bytes[at]) {
                            at += 1;
                        }
                        value = &self.page[value_start..at];
                    }
                }
            }
            if self.attributes.len() < ATTRIBUTES_MAX {
                self.attributes.push((name, value));
            }
        }
    }

    /// Skips the comment, doctype or processing instruction at `<!`, `<?` or `</`.
    fn skip_markup(&mut self) {
        let rest = &self.page.as_bytes()[self.at..];
        let length = if rest.starts_with(b"<!--") {
            comment_length(rest)
        } else {
            memchr(b'>', rest).map(|end| end + 1)
        };
        self.at += length.unwrap_or(rest.len());
    }
}

impl<'a> Iterator for Tokenizer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        if let Some((tag, name)) = self.raw.take() {
            return Some(self.raw_text(tag, name));
        }
        let bytes = self.page.as_bytes();
        let text_start = self.at;
        let mut search = self.at;
        loop {
            let Some(found) = memchr(b'<', &bytes[search..]) else {
                self.at = bytes.len();
                let text = &self.page[text_start..];
                return (!text.is_empty()).then_some(Token::Text(text, Content::Data));
            };
            let open = search + found;
            let is_end = bytes.get(open + 1) == Some(&b'/');
            let first = bytes.get(open + 1 + usize::from(is_end)).copied();
            let is_tag = first.is_some_and(|byte| byte.is_ascii_alphabetic());
            let is_markup =
                !is_tag && (matches!(first, Some(b'!' | b'?')) || (is_end && first.is_some()));
            if !is_tag && !is_markup {
                search = open + 1;
                continue;
            }
            if open > text_start {
                self.at = open;
                return Some(Token::Text(&self.page[text_start..open], Content::Data));
            }
            self.at = open;
            if is_markup {
                self.skip_markup();
                return self.next_after_markup();
            }
            let token = self.tag(is_end);
            if token.is_none() {
                // The page ends inside a tag: the standard drops it.
                self.at = bytes.len();
            }
            return token;
        }
    }
}

impl<'a> Tokenizer<'a> {
    /// Skips comments that follow each other, so that `next` calls itself at most once.
    fn next_after_markup(&mut self) -> Option<Token<'a>> {
        while self.page.as_bytes()[self.at..].starts_with(b"<!") {
            self.skip_markup();
        }
        loop {
            let bytes = &self.page.as_bytes()[self.at..];
            let is_odd = |byte: u8| byte == b'!' || byte == b'?';
            let is_markup = match bytes {
                [b'<', b'/', first, ..] => !first.is_ascii_alphabetic(),
                [b'<', first, ..] => is_odd(*first),
                _ => false,
            };
            if !is_markup {
                return self.next();
            }
            self.skip_markup();
        }
    }
}

/// Bytes of the comment that `rest` begins with: to `-->`, `--!>` or, right at its start, `>` and `->`.
fn comment_length(rest: &[u8]) -> Option<usize> {
    if rest[4..].starts_with(b">") {
        return Some(5);
    }
    if rest[4..].starts_with(b"->") {
        return Some(6);
    }
    memchr_iter(b'>', rest)
        .find(|&at| {
            (at >= 6 && rest[..at].ends_with(b"--")) || (at >= 7 && rest[..at].ends_with(b"--!"))
        })
        .map(|at| at + 1)
}

/// Where the end tag of the raw element called `name` begins in `rest`.
fn raw_end(rest: &str, name: &str) -> Option<usize> {
    let bytes = rest.as_bytes();
    memmem::find_iter(bytes, b"</").find(|&at| is_tag_named(&bytes[at + 2..], name))
}

fn is_tag_named(bytes: &[u8], name: &str) -> bool {
    bytes.len() > name.len()
        && bytes[..name.len()].eq_ignore_ascii_case(name.as_bytes())
        && matches!(bytes[name.len()], b'\t' | b'\n' | b'\x0c' | b'\r' | b' ' | b'/' | b'>')
}

/// Where a script's end tag begins: not inside `<!-- <script> … </script> -->` (the double escaped state).
fn script_end(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let (mut is_escaped, mut is_double) = (false, false);
    let mut at = 0;
    while let Some(found) = memchr2(b'<', b'-', &bytes[at..]) {
        at += found;
        let here = &bytes[at..];
        if here.starts_with(b"<!--") {
            is_escaped = true;
            at += 4;
            // `<!-->` and `<!--->` are over at once.
            if here[4..].starts_with(b">") || here[4..].starts_with(b"->") {
                is_escaped = false;
            }
        } else if here.starts_with(b"-->") {
            (is_escaped, is_double) = (false, false);
            at += 3;
        } else if is_escaped && !is_double && here[0] == b'<' && is_tag_named(&here[1..], "script")
        {
            is_double = true;
            at += 7;
        } else if here.starts_with(b"</") && is_tag_named(&here[2..], "script") {
            if !is_double {
                return at;
            }
            is_double = false;
            at += 8;
        } else {
            at += 1;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes tokens as `<p>`, `</p>` and quoted text.
    fn check(page: &str, expected: &str) {
        let mut out = Vec::new();
        let mut tokenizer = Tokenizer::new(page);
        while let Some(token) = tokenizer.next() {
            out.push(match token {
                Token::Start { tag, self_closing } => {
                    let attributes: String = tokenizer
                        .attributes
                        .iter()
                        .map(|(name, value)| format!(" {name}={value}"))
                        .collect();
                    format!("<{tag:?}{attributes}{}>", if self_closing { "/" } else { "" })
                }
                Token::End(tag) => format!("</{tag:?}>"),
                Token::Text(text, _) => format!("{text:?}"),
            });
        }
        assert_eq!(out.join(" "), expected, "{page}");
    }

    // Expected values follow the states of section 13.2.5 by hand.
    #[test]
    fn reads_tags_and_text() {
        check("a<P>b</p >c", r#""a" <P> "b" </P> "c""#);
        check("1 < 2 <3 a<b", r#""1 < 2 <3 a""#);
        check("<br/><img / src=x/>", "<Br/> <Img src=x/>");
        check("</ p></>x", r#""x""#);
    }

    /// Not the states: there the iframe takes the rest of the page, and a browser that runs scripts never looks.
    #[test]
    fn an_iframe_without_an_end_in_noscript_ends_at_once() {
        check(
            "<noscript><iframe src=x /></noscript><p>a",
            r#"<Noscript> <Iframe src=x/> </Noscript> <P> "a""#,
        );
    }

    #[test]
    fn reads_attributes_in_every_form() {
        check(
            "<a href='x y' ID=z title = \"a>b\" hidden =c=d>",
            "<A href=x y ID=z title=a>b hidden=c=d>",
        );
        check("<a b=c>", "<A b=c>");
        check("<a =b>", "<A =b=>");
        check("<a href=", "");
    }

    #[test]
    fn skips_comments_and_doctypes() {
        check(
            "<!DOCTYPE html><!-- <p> --><?php x?>a<!-->b<!--->c<!-- - --!>d<!--x--->e",
            r#""a" "b" "c" "d" "e""#,
        );
        check("a<!-- never closed <p>", r#""a""#);
    }

    #[test]
    fn reads_raw_text_up_to_its_own_end_tag() {
        check("<title>a <b> &amp;</title>c", r#"<Title> "a <b> &amp;" </Title> "c""#);
        check("<style>a</styles></STYLE >b", r#"<Style> "a</styles>" </Style> "b""#);
        check(
            "<script>a='<!-- <script> </script> -->'</script>b",
            r#"<Script> "a='<!-- <script> </script> -->'" </Script> "b""#,
        );
        check("<script><!-- <script> </script>b", r#"<Script> "<!-- <script> </script>b""#);
    }
}
