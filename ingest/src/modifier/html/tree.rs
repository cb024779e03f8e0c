//! A page as a flat tree: nodes in document order, each knowing its parent and where its subtree ends.
//!
//! The part of tree construction (section 13.2.6) that decides which text belongs to which element: implied end tags,
//! scopes, raw text. Formatting elements are not reopened and tables adopt nothing: neither moves text between blocks often.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};
use serde_json::Value;
use xxhash_rust::xxh32::xxh32;

use super::reference;
use super::tag::{Content, Tag};
use super::tokenizer::{Token, Tokenizer};

/// Nodes of a page, at most: a page of 10 MB has about 300,000.
pub(super) const NODES_MAX: usize = 1_000_000;
/// Open elements, at most; deeper ones are recorded as siblings. Chromium stops at 512 too.
const DEPTH_MAX: usize = 512;

/// Less text in `noscript` is a note to the reader.
const NOSCRIPT_BYTES_MIN: usize = 400;

/// What an element's attributes say of it.
pub(super) mod mark {
    /// `hidden`, `aria-hidden=true`, `display:none`.
    pub(in crate::modifier) const HIDDEN: u16 = 1;
    /// Class or id of something that is rarely part of the text: menu, share, related.
    pub(in crate::modifier) const UNLIKELY: u16 = 1 << 1;
    /// Class or id that saves an unlikely one: article, content.
    pub(in crate::modifier) const MAYBE: u16 = 1 << 2;
    /// Class or id that speaks for text.
    pub(in crate::modifier) const POSITIVE: u16 = 1 << 3;
    /// Class or id that speaks against text.
    pub(in crate::modifier) const NEGATIVE: u16 = 1 << 4;
    /// `itemprop=articleBody` or a class or id of that kind.
    pub(in crate::modifier) const BODY: u16 = 1 << 5;
    /// A role of the page's furniture: navigation, dialog.
    pub(in crate::modifier) const ROLE: u16 = 1 << 6;
    /// `rel=author`, a class or id of a by-line or date line.
    pub(in crate::modifier) const BYLINE: u16 = 1 << 7;
    /// A class or id that is never part of the text: share buttons, adverts, cookie notes.
    pub(in crate::modifier) const NEVER: u16 = 1 << 8;
    /// A link with a target.
    pub(in crate::modifier) const HREF: u16 = 1 << 9;
    /// Comments of readers.
    pub(in crate::modifier) const COMMENTS: u16 = 1 << 10;
    /// A caption or credit of a picture.
    pub(in crate::modifier) const CAPTION: u16 = 1 << 11;
}

/// An element or a run of characters.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// [`Tag::Text`] for characters.
    pub(super) tag: Tag,
    /// Bits of [`mark`].
    pub(super) marks: u16,
    /// Hash of the element's name and class: alike for the parts of a template.
    pub(super) class: u32,
    /// Bit `n` for a word of [`GROUPS`]`[n]` in its class or id.
    pub(super) groups: u64,
    /// Index of the parent; the root is its own.
    pub(super) parent: u32,
    /// Index behind the last node of its subtree.
    pub(super) end: u32,
    /// Characters in [`Tree::text`]; empty for elements.
    text: Range<u32>,
}

/// A page.
#[derive(Debug, Default)]
pub(in crate::modifier) struct Tree {
    /// In document order; node 0 is the root, `html`.
    pub(super) nodes: Vec<Node>,
    text: String,
    /// The page's title, author, date and language where it says them.
    pub(in crate::modifier) found: Found,
}

/// What a page says about itself.
#[derive(Debug, Default)]
pub(in crate::modifier) struct Found {
    pub(in crate::modifier) title: Option<String>,
    pub(in crate::modifier) author: Option<String>,
    pub(in crate::modifier) published: Option<String>,
    pub(in crate::modifier) html_language: Option<String>,
    pub(in crate::modifier) canonical_url: Option<String>,
    pub(in crate::modifier) site_name: Option<String>,
    /// The first `time` in the text.
    time: Option<String>,
    linked: Linked,
}

/// What data for search engines (JSON-LD of schema.org) says.
#[derive(Debug, Default)]
struct Linked {
    author: Option<String>,
    published: Option<String>,
}

/// Longer data is not read.
const LINKED_BYTES_MAX: usize = 1 << 18;

impl Found {
    /// Fills what the page says nowhere else from its data for search engines and the first `time` of its text.
    pub(in crate::modifier) fn settle(&mut self) {
        self.author = self.author.take().or(self.linked.author.take());
        self.published = self.published.take().or(self.linked.published.take());
        // `T` or a space: a date with or without a time of day; a bare time of day says little.
        let is_date = |time: &String| time.as_bytes().get(4) == Some(&b'-');
        self.published = self.published.take().or(self.time.take().filter(is_date));
    }

    fn note_linked_data(&mut self, raw: &str) {
        if raw.len() > LINKED_BYTES_MAX {
            return;
        }
        // Broken data says nothing; `serde_json` limits the depth.
        let Ok(value) = serde_json::from_str::<Value>(raw.trim()) else { return };
        let mut open = vec![&value];
        while let Some(value) = open.pop() {
            match value {
                Value::Array(items) => open.extend(items.iter().rev()),
                Value::Object(object) => {
                    if let Some(date) = object.get("datePublished").and_then(Value::as_str) {
                        note(&mut self.linked.published, date);
                    }
                    if let Some(author) = object.get("author").and_then(name_of) {
                        note(&mut self.linked.author, author);
                    }
                    open.extend(object.get("@graph"));
                    open.extend(object.get("mainEntity"));
                }
                _ => {}
            }
        }
    }
}

/// The name of a person of schema.org, or the first of several.
fn name_of(value: &Value) -> Option<&str> {
    match value {
        Value::String(name) => (!name.starts_with("http")).then_some(name.as_str()),
        Value::Array(people) => people.first().and_then(name_of_one),
        other => name_of_one(other),
    }
}

fn name_of_one(value: &Value) -> Option<&str> {
    value.as_str().or(value.get("name").and_then(Value::as_str))
}

impl Tree {
    /// The characters of node `index`, references resolved, white space as written.
    pub(super) fn text(&self, index: usize) -> &str {
        if self.nodes[index].tag == Tag::Text { self.slice(index) } else { "" }
    }

    /// Where the link at node `index` leads; empty for other elements, and unless the tree keeps links.
    pub(super) fn target(&self, index: usize) -> &str {
        if self.nodes[index].tag == Tag::A { self.slice(index) } else { "" }
    }

    fn slice(&self, index: usize) -> &str {
        let range = &self.nodes[index].text;
        &self.text[range.start as usize..range.end as usize]
    }

    /// Nodes of the page.
    pub(in crate::modifier) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the tree of `page`, nothing when it has more than [`NODES_MAX`] nodes or 2 GiB of text.
    pub(in crate::modifier) fn parse(page: &str, keep_links: bool) -> Option<Self> {
        let mut builder = Builder { keep_links, ..Builder::default() };
        builder.tree.text.reserve(page.len() / 4);
        builder.open(Tag::Html, Traits::default(), 0..0);
        let mut tokenizer = Tokenizer::new(page);
        while let Some(token) = tokenizer.next() {
            match token {
                Token::Start { tag, .. } => builder.start(tag, &tokenizer.attributes),
                Token::End(tag) => builder.end(tag),
                Token::Text(text, content) => builder.characters(text, content),
            }
            if builder.tree.nodes.len() >= NODES_MAX
                || builder.tree.text.len() >= u32::MAX as usize / 2
            {
                return None;
            }
        }
        builder.close_to(0);
        let mut tree = builder.tree;
        tree.found.settle();
        tree.read_noscript();
        Some(tree)
    }

    /// Makes `noscript` an element like others where nearly all text stands in it, as on forums that scripts build.
    fn read_noscript(&mut self) {
        let n_bytes = |range: Range<usize>| -> usize {
            range.map(|index| self.text(index).trim_ascii().len()).sum()
        };
        let mut noscripts = Vec::new();
        let (mut inside, mut outside) = (0, 0);
        let mut index = 1;
        while index < self.nodes.len() {
            let end = self.nodes[index].end as usize;
            match self.nodes[index].tag {
                Tag::Noscript => {
                    inside += n_bytes(index..end);
                    noscripts.push(index);
                    index = end;
                }
                Tag::Svg | Tag::Template | Tag::Select | Tag::Textarea => index = end,
                _ => {
                    outside += n_bytes(index..index + 1);
                    index += 1;
                }
            }
        }
        if inside >= NOSCRIPT_BYTES_MIN && outside < inside / 2 {
            noscripts.into_iter().for_each(|index| self.nodes[index].tag = Tag::Div);
        }
    }
}

#[derive(Debug, Default)]
struct Builder {
    tree: Tree,
    /// Indices of the open elements, the root first.
    open: Vec<u32>,
    /// How many of them are `p`: most searches for one end here.
    n_open_p: usize,
    keep_links: bool,
    /// Whether the open `script` is data about the page.
    is_linked_data: bool,
}

impl Builder {
    fn tag_at(&self, depth: usize) -> Tag {
        self.tree.nodes[self.open[depth] as usize].tag
    }

    fn current(&self) -> Tag {
        self.open.last().map_or(Tag::Html, |&index| self.tree.nodes[index as usize].tag)
    }

    fn push(&mut self, tag: Tag, traits: Traits, text: Range<u32>) -> u32 {
        let index = u32::try_from(self.tree.nodes.len()).expect("NODES_MAX fits");
        let parent = self.open.last().copied().unwrap_or(0);
        let Traits { marks, class, groups } = traits;
        self.tree.nodes.push(Node { tag, marks, class, groups, parent, end: index + 1, text });
        index
    }

    fn open(&mut self, tag: Tag, traits: Traits, text: Range<u32>) {
        let index = self.push(tag, traits, text);
        if self.open.len() < DEPTH_MAX && !tag.is_void() {
            self.open.push(index);
            self.n_open_p += usize::from(tag == Tag::P);
        }
    }

    /// Closes open elements until `depth` are left.
    fn close_to(&mut self, depth: usize) {
        let end = u32::try_from(self.tree.nodes.len()).expect("NODES_MAX fits");
        for index in self.open.drain(depth..) {
            let node = &mut self.tree.nodes[index as usize];
            node.end = end;
            self.n_open_p -= usize::from(node.tag == Tag::P);
        }
    }

    /// Returns the depth of the innermost open element that `is_wanted`, unless one that `is_border` is nearer.
    fn find(
        &self,
        is_wanted: impl Fn(Tag) -> bool,
        is_border: impl Fn(Tag) -> bool,
    ) -> Option<usize> {
        for depth in (1..self.open.len()).rev() {
            let tag = self.tag_at(depth);
            if is_wanted(tag) {
                return Some(depth);
            }
            if is_border(tag) {
                return None;
            }
        }
        None
    }

    fn close(&mut self, is_wanted: impl Fn(Tag) -> bool, is_border: impl Fn(Tag) -> bool) {
        if let Some(depth) = self.find(is_wanted, is_border) {
            self.close_to(depth);
        }
    }

    fn start(&mut self, tag: Tag, attributes: &[(&str, &str)]) {
        match tag {
            Tag::Html | Tag::Body | Tag::Head => {
                if tag == Tag::Html {
                    self.note_language(attributes);
                }
                return;
            }
            Tag::Meta => return self.note_meta(attributes),
            // Elements without a rule here are see-through: their end tags could not be told apart.
            Tag::Other => return,
            Tag::Link => return self.note_link(attributes),
            Tag::Base | Tag::Col | Tag::Source | Tag::Track | Tag::Wbr => return,
            _ => {}
        }
        self.imply_ends(tag);
        let target = if self.keep_links && tag == Tag::A {
            self.write(attribute(attributes, "href").unwrap_or_default().trim(), true)
        } else {
            0..0
        };
        self.is_linked_data = tag == Tag::Script
            && attribute(attributes, "type").is_some_and(|kind| kind.contains("ld+json"));
        if tag == Tag::Time && self.tree.found.time.is_none() {
            self.tree.found.time = attribute(attributes, "datetime").map(str::to_owned);
        }
        self.open(tag, traits(tag, attributes), target);
    }

    /// Closes what the start tag of `tag` ends.
    fn imply_ends(&mut self, tag: Tag) {
        let is_list = |tag| matches!(tag, Tag::Ul | Tag::Ol | Tag::Menu);
        match tag {
            Tag::Li => self.close(|open| open == Tag::Li, |open| is_list(open) || open.is_scope()),
            Tag::Dt | Tag::Dd => {
                self.close(
                    |open| matches!(open, Tag::Dt | Tag::Dd),
                    |open| open == Tag::Dl || open.is_scope(),
                );
            }
            Tag::Option | Tag::Optgroup if self.current() == Tag::Option => {
                self.close_to(self.open.len() - 1)
            }
            Tag::Td | Tag::Th => self.close(
                |open| matches!(open, Tag::Td | Tag::Th | Tag::Caption),
                |open| matches!(open, Tag::Tr | Tag::Table | Tag::Template),
            ),
            Tag::Tr => self.close(
                |open| matches!(open, Tag::Tr | Tag::Caption),
                |open| matches!(open, Tag::Table | Tag::Template),
            ),
            Tag::Tbody | Tag::Thead | Tag::Tfoot => self.close(
                |open| matches!(open, Tag::Tbody | Tag::Thead | Tag::Tfoot | Tag::Caption),
                |open| matches!(open, Tag::Table | Tag::Template),
            ),
            Tag::A => self.close(|open| open == Tag::A, Tag::is_block),
            Tag::Rp | Tag::Rt => {
                self.close(|open| matches!(open, Tag::Rp | Tag::Rt), Tag::is_block)
            }
            _ => {}
        }
        if self.n_open_p > 0 && tag.closes_p() {
            self.close(|open| open == Tag::P, Tag::is_scope);
        }
        if tag.is_heading() && self.current().is_heading() {
            self.close_to(self.open.len() - 1);
        }
    }

    fn end(&mut self, tag: Tag) {
        match tag {
            Tag::Html | Tag::Body | Tag::Head | Tag::Other => {}
            Tag::Br => self.start(Tag::Br, &[]),
            // An end tag without a paragraph is one that is empty.
            Tag::P if self.find(|open| open == Tag::P, Tag::is_scope).is_none() => {
                self.push(Tag::P, Traits::default(), 0..0);
            }
            _ if tag.is_heading() => self.close(Tag::is_heading, Tag::is_scope),
            _ if tag.is_table_part() => {
                self.close(|open| open == tag, |open| open == Tag::Table || open == Tag::Template);
            }
            _ if tag.is_block() || tag.is_scope() || tag.is_embedded() => {
                self.close(|open| open == tag, Tag::is_scope)
            }
            // An inline end tag does not end the blocks that were opened inside.
            _ => self.close(|open| open == tag, Tag::is_block),
        }
    }

    fn characters(&mut self, raw: &str, content: Content) {
        let parent = self.current();
        match parent {
            Tag::Script if self.is_linked_data => return self.tree.found.note_linked_data(raw),
            Tag::Script | Tag::Style | Tag::Iframe | Tag::Noembed | Tag::Noframes => return,
            Tag::Title if self.is_page_title() => {
                let mut title = String::new();
                reference::decode(raw, false, &mut title);
                note(&mut self.tree.found.title, &title);
                return;
            }
            _ => {}
        }
        let text = match content {
            Content::Raw | Content::Plain => self.write_raw(raw),
            _ => self.write(raw, false),
        };
        self.push(Tag::Text, Traits::default(), text);
    }

    /// Adds `raw` to the text, references resolved, and returns where it stands.
    fn write(&mut self, raw: &str, in_attribute: bool) -> Range<u32> {
        let start = self.tree.text.len();
        reference::decode(raw, in_attribute, &mut self.tree.text);
        self.range_from(start)
    }

    fn write_raw(&mut self, raw: &str) -> Range<u32> {
        let start = self.tree.text.len();
        self.tree.text.push_str(raw);
        self.range_from(start)
    }

    fn range_from(&self, start: usize) -> Range<u32> {
        let offset = |bytes| u32::try_from(bytes).expect("checked after every token");
        offset(start)..offset(self.tree.text.len())
    }

    fn note_link(&mut self, attributes: &[(&str, &str)]) {
        let is_canonical = attribute(attributes, "rel")
            .is_some_and(|value| value.trim().eq_ignore_ascii_case("canonical"));
        if let (true, Some(href)) = (is_canonical, attribute(attributes, "href")) {
            let mut value = String::new();
            reference::decode(href, true, &mut value);
            note(&mut self.tree.found.canonical_url, &value);
        }
    }

    /// Whether the open `title` is not one of a picture.
    fn is_page_title(&self) -> bool {
        self.find(|tag| tag == Tag::Svg, |_| false).is_none()
    }

    fn note_language(&mut self, attributes: &[(&str, &str)]) {
        if let Some(value) = attribute(attributes, "lang").or(attribute(attributes, "xml:lang")) {
            note(&mut self.tree.found.html_language, value);
        }
    }

    fn note_meta(&mut self, attributes: &[(&str, &str)]) {
        let name = attribute(attributes, "property")
            .or(attribute(attributes, "name"))
            .or(attribute(attributes, "itemprop"));
        let (Some(name), Some(content)) = (name, attribute(attributes, "content")) else { return };
        let found = &mut self.tree.found;
        let slot = match name.to_ascii_lowercase().as_str() {
            "og:title" => &mut found.title,
            "og:site_name" => &mut found.site_name,
            "og:url" => &mut found.canonical_url,
            "author" | "article:author" | "dc.creator" if !content.starts_with("http") => {
                &mut found.author
            }
            "article:published_time" | "datepublished" | "date" | "dc.date" => &mut found.published,
            _ => return,
        };
        let mut value = String::new();
        reference::decode(content, true, &mut value);
        if name.eq_ignore_ascii_case("og:title") {
            *slot = None;
        }
        note(slot, &value);
    }
}

/// Fills `slot` with `value`, white space collapsed, unless it is full or `value` is blank.
fn note(slot: &mut Option<String>, value: &str) {
    if slot.is_none() {
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        *slot = (!value.is_empty()).then_some(value);
    }
}

fn attribute<'a>(attributes: &[(&str, &'a str)], name: &str) -> Option<&'a str> {
    attributes.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|&(_, value)| value)
}

/// Words in class names and ids, with the marks they give. Lower case; found anywhere in the value.
///
/// The lists of Readability (`unlikelyCandidates`, `okMaybeItsACandidate`, `positive`, `negative`) and of trafilatura
/// (`OVERALL_DISCARD_XPATH`, `BODY_XPATH`), as words, and what else sites call such parts.
const WORDS: &[(u16, &[&str])] = &[
    (
        mark::UNLIKELY,
        &[
            "-ad-",
            "ai2html",
            "banner",
            "breadcrumb",
            "combx",
            "comment",
            "community",
            "cover-wrap",
            "disqus",
            "extra",
            "footer",
            "gdpr",
            "header",
            "legends",
            "menu",
            "related",
            "remark",
            "replies",
            "rss",
            "shoutbox",
            "sidebar",
            "skyscraper",
            "social",
            "sponsor",
            "supplemental",
            "ad-break",
            "agegate",
            "pagination",
            "pager",
            "popup",
            "yom-remote",
            "newsletter",
            "subscribe",
            "signup",
            "sign-up",
            "recommend",
            "most-read",
            "mostread",
            "trending",
            "read-more",
            "readmore",
            "also-read",
            "teaser",
            "navbar",
            "topnav",
            "subnav",
            "byline",
            "author-bio",
            "about-author",
            "jump-to",
            "skip-link",
        ],
    ),
    (mark::MAYBE, &["and", "article", "body", "column", "content", "main", "mathjax", "shadow"]),
    (
        mark::POSITIVE,
        &["article", "body", "content", "entry", "main", "page", "post", "text", "blog", "story"],
    ),
    (
        mark::NEGATIVE,
        &[
            "-ad-",
            "hidden",
            "banner",
            "combx",
            "comment",
            "com-",
            "contact",
            "footer",
            "gdpr",
            "masthead",
            "media",
            "meta",
            "outbrain",
            "promo",
            "related",
            "scroll",
            "share",
            "shoutbox",
            "sidebar",
            "skyscraper",
            "sponsor",
            "shopping",
            "tags",
            "widget",
            "taboola",
            "newsletter",
            "caption",
            "credit",
        ],
    ),
    (
        mark::BODY,
        &[
            "articlebody",
            "article-body",
            "article_body",
            "article__body",
            "article-content",
            "article_content",
            "article__content",
            "articlecontent",
            "article-text",
            "article_text",
            "articletext",
            "entry-content",
            "entry_content",
            "post-content",
            "post_content",
            "postcontent",
            "post-body",
            "post_body",
            "post__body",
            "postbody",
            "post__content",
            "story-body",
            "storybody",
            "story_body",
            "story-content",
            "story-text",
            "storytext",
            "story__body",
            "body-copy",
            "bodycopy",
            "news-content",
            "newsbody",
            "news-body",
            "content-body",
            "content__body",
            "main-text",
            "blog-content",
            "page-content",
        ],
    ),
    (
        mark::BYLINE,
        &["byline", "dateline", "writtenby", "p-author", "post-meta", "entry-meta", "article-meta"],
    ),
    (
        mark::NEVER,
        &[
            "sharedaddy",
            "addthis",
            "addtoany",
            "social-share",
            "share-button",
            "sharebutton",
            "share-bar",
            "sharetools",
            "share-tools",
            "social-media",
            "socialmedia",
            "taboola",
            "outbrain",
            "cookie-",
            "cookie_",
            "cookieconsent",
            "gdpr",
            "advertisement",
            "ad-container",
            "google-ad",
            "adsbygoogle",
            "ad-slot",
            "adslot",
            "newsletter-sign",
            "newsletter-form",
            "related-post",
            "relatedpost",
            "related-article",
            "related-stor",
            "related-content",
            "related-link",
            "relatedarticle",
            "relatedlink",
            "relatedstor",
            "recommended-",
            "jp-relatedposts",
            "breadcrumb",
            "screen-reader-text",
            "visually-hidden",
            "visuallyhidden",
            "sr-only",
            "pagination",
            "skip-to",
            "paywall",
            "post-tags",
            "tag-list",
            "taglist",
            "entry-tags",
            "article-tags",
            "post-navigation",
            "nav-links",
            "print-only",
            "print-link",
            "author-bio",
            "author-box",
            "authorbox",
            "about-the-author",
            "video-player",
            "wp-caption-text",
        ],
    ),
    (
        mark::COMMENTS,
        &["comment-list", "commentlist", "comments-area", "disqus", "id-comments", "respond"],
    ),
    (mark::CAPTION, &["caption", "photo-credit", "image-credit", "img-credit"]),
];

/// Words in class names and ids that tell what a part of a page is for, 64 groups: features of [`super::block`].
const GROUPS: [&[&str]; 64] = [
    &["nav", "menu"],
    &["foot", "bottom", "colophon"],
    &["header", "masthead", "topbar", "top-bar"],
    &["sidebar", "side-bar", "aside", "rail", "secondary"],
    &["comment", "disqus", "respond"],
    &["share", "social", "follow"],
    &[
        "related",
        "recommend",
        "similar",
        "also-",
        "popular",
        "trending",
        "latest",
        "suggest",
        "read-more",
        "readmore",
    ],
    &["promo", "advert", "-ad-", "ad-", "sponsor", "banner", "adsense", "ads-"],
    &["cookie", "consent", "gdpr", "privacy"],
    &["newsletter", "subscri", "signup", "sign-up", "optin", "opt-in"],
    &["crumb"],
    &["paginat", "pager", "next", "prev"],
    &["tags", "tag-", "categor", "label"],
    &["author", "byline", "bio"],
    &["meta", "date", "time", "publish"],
    &["title", "headline", "heading"],
    &["caption", "credit", "figure", "image", "img", "photo"],
    &["widget"],
    &["modal", "popup", "dialog", "overlay", "lightbox", "tooltip"],
    &["login", "signin", "sign-in", "account", "register"],
    &["search", "filter", "sort", "facet"],
    &["hero", "jumbotron", "intro", "lead"],
    &["card", "teaser", "tile"],
    &["item"],
    &["list", "grid"],
    &["product", "sku"],
    &["price", "pricing"],
    &["review", "rating", "testimonial", "star"],
    &["descri", "summary", "excerpt", "overview", "detail", "spec", "feature"],
    &["faq", "accordion", "question", "answer", "collaps", "toggle", "expand"],
    &["post"],
    &["entry"],
    &["article"],
    &["content"],
    &["main"],
    &["body", "copy"],
    &["text", "rich", "wysiwyg", "prose", "markdown"],
    &["story"],
    &["page"],
    &["wrap", "container", "inner"],
    &["forum", "thread", "message", "reply", "bbp", "discussion"],
    &["user", "avatar", "profile", "member"],
    &["code", "highlight", "syntax"],
    &["table"],
    &["toc", "on-this-page", "outline"],
    &["footnote", "reference", "citation"],
    &["cart", "checkout", "basket", "shop", "buy", "wishlist"],
    &["gallery", "carousel", "slide", "swiper", "slick"],
    &["hidden", "sr-only", "visually", "d-none", "screen-reader"],
    &["cta", "button", "btn", "action"],
    &["tab"],
    &["section", "block", "module", "component"],
    &["col", "row"],
    &["video", "player", "embed", "media"],
    &["alert", "notice", "warning", "disclaimer"],
    &["lang", "locale", "country", "region"],
    &["skip", "back-to", "print"],
    &["doc", "help", "wiki"],
    &["form", "input", "field", "contact"],
    &["logo", "brand"],
    &["quote"],
    &["recipe", "ingredient", "event", "job", "instruction"],
    &["elementor", "wpb", "vc_", "et_pb"],
    &["sticky", "fixed", "drawer", "offcanvas", "mobile"],
];

/// What the words found in a class or id say.
#[derive(Clone, Copy, Debug, Default)]
struct Traits {
    marks: u16,
    class: u32,
    groups: u64,
}

struct Words {
    automaton: AhoCorasick,
    traits: Vec<Traits>,
}

static MATCHER: LazyLock<Words> = LazyLock::new(|| {
    let mut traits: Vec<Traits> = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    let mut add = |word: &'static str, marks: u16, groups: u64| {
        let index = words.iter().position(|&known| known == word).unwrap_or(words.len());
        if index == words.len() {
            words.push(word);
            traits.push(Traits::default());
        }
        traits[index].marks |= marks;
        traits[index].groups |= groups;
    };
    for &(mark, list) in WORDS {
        list.iter().for_each(|&word| add(word, mark, 0));
    }
    for (bit, list) in GROUPS.iter().enumerate() {
        list.iter().for_each(|&word| add(word, 0, 1 << bit));
    }
    let automaton = AhoCorasickBuilder::new()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::Standard)
        .kind(Some(AhoCorasickKind::DFA))
        .build(words)
        .expect("a short list of words");
    Words { automaton, traits }
});

impl Traits {
    fn add_words(&mut self, value: &str) {
        let matcher = &*MATCHER;
        for found in matcher.automaton.find_overlapping_iter(value) {
            let traits = matcher.traits[found.pattern().as_usize()];
            self.marks |= traits.marks;
            self.groups |= traits.groups;
        }
    }
}

/// Roles of the page's furniture (WAI-ARIA), as Readability lists them.
const ROLES: [&str; 11] = [
    "menu",
    "menubar",
    "complementary",
    "navigation",
    "alert",
    "alertdialog",
    "dialog",
    "search",
    "banner",
    "contentinfo",
    "toolbar",
];

fn traits(tag: Tag, attributes: &[(&str, &str)]) -> Traits {
    let mut traits = Traits { class: tag as u32, ..Traits::default() };
    for &(name, value) in attributes {
        // The first byte and the length tell nearly every attribute apart.
        traits.marks |= match (name.len(), name.as_bytes()[0] | 0x20) {
            (5, b'c') if name.eq_ignore_ascii_case("class") => {
                traits.add_words(value);
                traits.class ^= xxh32(value.as_bytes(), 0);
                0
            }
            (2, b'i') if name.eq_ignore_ascii_case("id") => {
                traits.add_words(value);
                if value.starts_with("comments") { mark::COMMENTS } else { 0 }
            }
            (4, b'h') if tag == Tag::A && name.eq_ignore_ascii_case("href") => mark::HREF,
            (4, b'r') if name.eq_ignore_ascii_case("role") && is_furniture_role(value) => {
                mark::ROLE
            }
            (6, b'h') if name.eq_ignore_ascii_case("hidden") => mark::HIDDEN,
            (11, b'a') if name.eq_ignore_ascii_case("aria-hidden") && value == "true" => {
                mark::HIDDEN
            }
            (5, b's') if name.eq_ignore_ascii_case("style") && hides(value) => mark::HIDDEN,
            (8, b'i') if name.eq_ignore_ascii_case("itemprop") => match value {
                "articleBody" | "text" => mark::BODY | mark::POSITIVE,
                "author" | "datePublished" | "dateModified" => mark::BYLINE,
                _ => 0,
            },
            (3, b'r') if name.eq_ignore_ascii_case("rel") && value == "author" => mark::BYLINE,
            _ => 0,
        };
    }
    traits
}

fn is_furniture_role(value: &str) -> bool {
    ROLES.iter().any(|role| value.eq_ignore_ascii_case(role))
}

fn hides(style: &str) -> bool {
    let follows = |property: &str, value: &str| {
        let rest = style.find(property).map(|at| style[at + property.len()..].trim_start());
        rest.is_some_and(|rest| rest.trim_start_matches(':').trim_start().starts_with(value))
    };
    follows("display", "none") || follows("visibility", "hidden")
}
