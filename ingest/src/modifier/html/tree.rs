//! A page as a flat tree: nodes in document order, each knowing its parent and where its subtree ends.
//!
//! The part of tree construction (section 13.2.6) that decides which text belongs to which element: implied end tags,
//! scopes, raw text. Formatting elements are not reopened and tables adopt nothing: neither moves text between blocks often.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};

use super::reference;
use super::tag::{Content, Tag};
use super::tokenizer::{Token, Tokenizer};

/// Nodes of a page, at most: a page of 10 MB has about 300,000.
pub(super) const NODES_MAX: usize = 1_000_000;
/// Open elements, at most; deeper ones are recorded as siblings. Chromium stops at 512 too.
const DEPTH_MAX: usize = 512;

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
}

impl Tree {
    /// The characters of node `index`, references resolved, white space as written.
    pub(super) fn text(&self, index: usize) -> &str {
        let range = &self.nodes[index].text;
        &self.text[range.start as usize..range.end as usize]
    }

    /// Returns the tree of `page`, nothing when it has more than [`NODES_MAX`] nodes or 4 GiB of text.
    pub(in crate::modifier) fn parse(page: &str) -> Option<Self> {
        let mut builder = Builder::default();
        builder.tree.text.reserve(page.len() / 4);
        builder.open(Tag::Html, 0);
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
        Some(builder.tree)
    }
}

#[derive(Debug, Default)]
struct Builder {
    tree: Tree,
    /// Indices of the open elements, the root first.
    open: Vec<u32>,
    /// How many of them are `p`: most searches for one end here.
    n_open_p: usize,
}

impl Builder {
    fn tag_at(&self, depth: usize) -> Tag {
        self.tree.nodes[self.open[depth] as usize].tag
    }

    fn current(&self) -> Tag {
        self.open.last().map_or(Tag::Html, |&index| self.tree.nodes[index as usize].tag)
    }

    fn push(&mut self, tag: Tag, marks: u16, text: Range<u32>) -> u32 {
        let index = u32::try_from(self.tree.nodes.len()).expect("NODES_MAX fits");
        let parent = self.open.last().copied().unwrap_or(0);
        self.tree.nodes.push(Node { tag, marks, parent, end: index + 1, text });
        index
    }

    fn open(&mut self, tag: Tag, marks: u16) {
        let index = self.push(tag, marks, 0..0);
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
            Tag::Link | Tag::Base | Tag::Col | Tag::Source | Tag::Track | Tag::Wbr => return,
            _ => {}
        }
        self.imply_ends(tag);
        self.open(tag, marks(tag, attributes));
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
                self.push(Tag::P, 0, 0..0);
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
            Tag::Script | Tag::Style | Tag::Iframe | Tag::Noembed | Tag::Noframes => return,
            Tag::Title if self.is_page_title() => {
                let mut title = String::new();
                reference::decode(raw, false, &mut title);
                note(&mut self.tree.found.title, &title);
                return;
            }
            _ => {}
        }
        let start = self.tree.text.len();
        if matches!(content, Content::Raw | Content::Plain) {
            self.tree.text.push_str(raw);
        } else {
            reference::decode(raw, false, &mut self.tree.text);
        }
        let offset = |bytes| u32::try_from(bytes).expect("checked after every token");
        let text = offset(start)..offset(self.tree.text.len());
        self.push(Tag::Text, 0, text);
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

struct Words {
    automaton: AhoCorasick,
    marks: Vec<u16>,
}

static MATCHER: LazyLock<Words> = LazyLock::new(|| {
    let mut marks: Vec<u16> = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    for &(mark, list) in WORDS {
        for &word in list {
            match words.iter().position(|&known| known == word) {
                Some(index) => marks[index] |= mark,
                None => {
                    words.push(word);
                    marks.push(mark);
                }
            }
        }
    }
    let automaton = AhoCorasickBuilder::new()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::Standard)
        .kind(Some(AhoCorasickKind::DFA))
        .build(words)
        .expect("a short list of words");
    Words { automaton, marks }
});

fn words_in(value: &str) -> u16 {
    let matcher = &*MATCHER;
    matcher
        .automaton
        .find_overlapping_iter(value)
        .fold(0, |marks, found| marks | matcher.marks[found.pattern().as_usize()])
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

fn marks(tag: Tag, attributes: &[(&str, &str)]) -> u16 {
    let mut marks = 0;
    for &(name, value) in attributes {
        // The first byte and the length tell nearly every attribute apart.
        marks |= match (name.len(), name.as_bytes()[0] | 0x20) {
            (5, b'c') if name.eq_ignore_ascii_case("class") => words_in(value),
            (2, b'i') if name.eq_ignore_ascii_case("id") => {
                words_in(value) | if value.starts_with("comments") { mark::COMMENTS } else { 0 }
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
    marks
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
