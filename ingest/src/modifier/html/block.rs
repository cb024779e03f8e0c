//! A page as blocks of text, each described by the numbers that the classifier of [`super::model`] judges it by.
//!
//! A block is a run of text without a block-level element, or an empty line, inside. What describes it is one byte each: its own
//! text, the elements and class names around it, its neighbours, the containers that it shares with others, and the page.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind};
use memchr::memmem;

use super::content::{Counts, Votes};
use super::model::Model;
use super::tag::Tag;
use super::tree::{Tree, mark};

/// Bytes that describe a block.
pub const FEATURES: usize = 64 + KINDS + 2 + 24 + 16 + LEVELS * 9 + 4 * 6 + 9 + 18;
/// Bytes that describe the scores around a block.
pub const CONTEXT: usize = 9 + 4 + LEVELS + 6;
/// Kinds of ancestors whose distance counts.
const KINDS: usize = 23;
/// The kind of those that hold comments of readers.
const COMMENTS: usize = 20;
/// Containers of a block that count: the elements of block level around it, innermost first.
const LEVELS: usize = 4;
/// Longer blocks are not searched for words.
const SHORT_CHARS_MAX: u32 = 200;

/// A run of text.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// Its text nodes in [`Blocks::nodes`].
    nodes: (u32, u32),
    stats: Stats,
    /// The nearest element of block level.
    tag: Tag,
    containers: [u32; LEVELS],
    /// Alike for blocks that a template made.
    template: u32,
    /// Groups of class words on the three nearest elements, the four around them, and all others.
    groups: [u64; 3],
    /// Levels up to the nearest ancestor of each kind, plus one; 0 for none.
    distances: [u8; KINDS],
    depth: u8,
    /// What words a short block has, see [`PHRASES`].
    phrases: u16,
    /// How much of a short block is the page's title, and the other way round.
    in_title: u8,
    /// A hash of its text.
    text: u32,
    /// 0 outside what the paragraphs voted for, 1 inside but cleaned away, 2 kept.
    vote: u8,
}

/// The blocks of a page.
#[derive(Debug, Default)]
pub(in crate::modifier) struct Blocks {
    pub(super) blocks: Vec<Block>,
    /// Indices of the text nodes of all blocks.
    nodes: Vec<u32>,
}

/// What was counted in a block.
#[derive(Clone, Copy, Debug, Default)]
struct Stats {
    chars: u32,
    words: u32,
    link_chars: u32,
    bold_chars: u32,
    links: u32,
    commas: u32,
    /// Full stops, question and exclamation marks with white space or the end behind them.
    sentences: u32,
    digits: u32,
    uppers: u32,
    wide: u32,
    breaks: u32,
    images: u32,
    punctuation: u32,
    first: u8,
    last: u8,
}

impl Stats {
    fn link_share(&self) -> u8 {
        share(self.link_chars, self.chars)
    }
}

/// `part / whole` as 0 to 255.
fn share(part: u32, whole: u32) -> u8 {
    let value = u64::from(part) * 255 / u64::from(whole.max(1));
    u8::try_from(value).unwrap_or(u8::MAX)
}

/// Eight steps for each doubling of `value`, without a floating point number that another machine rounds otherwise.
fn log(value: u32) -> u8 {
    let value = u64::from(value) + 1;
    let exponent = 63 - value.leading_zeros();
    let eighths = ((value << 3) >> exponent) & 7;
    u8::try_from(u64::from(exponent) * 8 + eighths).unwrap_or(u8::MAX)
}

fn small(value: usize) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

/// Phrases of short blocks, a bit for each line.
const PHRASES: [&[&str]; 16] = [
    &["©", "copyright", "all rights reserved", "trademark"],
    &["subscribe", "newsletter", "sign up", "inbox", "e-mail address", "email address"],
    &["share", "follow us", "facebook", "twitter", "linkedin", "whatsapp", "pinterest"],
    &["cookie", "privacy", "terms of", "terms &", "disclaimer"],
    &["log in", "login", "sign in", "register", "account", "password"],
    &["comment", "reply", "replies", "quote"],
    &[
        "related",
        "read more",
        "also like",
        "learn more",
        "see all",
        "view all",
        "more from",
        "recommended",
        "popular",
    ],
    &["home", "menu", "search", "skip to", "navigation", "back to top"],
    &["by ", "posted", "published", "updated", "written by", "author", "last modified"],
    &["$", "€", "£", "price", "usd"],
    &[
        "add to cart",
        "add to bag",
        "buy now",
        "checkout",
        "wishlist",
        "in stock",
        "shipping",
        "quantity",
        "sku",
    ],
    &["min read", "minutes", "ago", "views", "likes", "votes"],
    &[
        "january",
        "february",
        "march",
        "april",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
        "jan ",
        "feb ",
        "aug ",
        "sept ",
        "oct ",
        "nov ",
        "dec ",
        "202",
        "201",
    ],
    &[
        "click",
        "download",
        "contact us",
        "get started",
        "book now",
        "call ",
        "request",
        "free trial",
        "learn",
    ],
    &["previous", "next", "page", "older", "newer", "»", "«", "›", "‹", "→", "←"],
    &[
        "photo",
        "image",
        "credit",
        "getty",
        "source:",
        "advert",
        "sponsored",
        "tags",
        "filed under",
        "categories",
    ],
];

static PHRASE_MATCHER: LazyLock<(AhoCorasick, Vec<u16>)> = LazyLock::new(|| {
    let bits =
        PHRASES.iter().enumerate().flat_map(|(bit, list)| list.iter().map(move |_| 1 << bit));
    let automaton = AhoCorasickBuilder::new()
        .ascii_case_insensitive(true)
        .kind(Some(AhoCorasickKind::DFA))
        .build(PHRASES.iter().flat_map(|list| list.iter()))
        .expect("a short list of phrases");
    (automaton, bits.collect())
});

/// The kind of ancestor that `tag` is, in [`Block::distances`].
fn kind_of(tag: Tag) -> Option<usize> {
    Some(match tag {
        Tag::Nav => 0,
        Tag::Header => 1,
        Tag::Footer => 2,
        Tag::Aside => 3,
        Tag::Main => 4,
        Tag::Article => 5,
        Tag::Section => 6,
        Tag::Form => 7,
        Tag::Table => 8,
        Tag::Ul | Tag::Ol | Tag::Menu => 9,
        Tag::Li => 10,
        Tag::Figure | Tag::Figcaption => 11,
        Tag::Blockquote => 12,
        Tag::A => 13,
        Tag::Details | Tag::Summary => 14,
        Tag::Button | Tag::Label | Tag::Dialog | Tag::Search => 15,
        Tag::Dl => 16,
        _ => return None,
    })
}

/// Marks that are kinds of ancestors too, behind the 17 of [`kind_of`].
const MARK_KINDS: [u16; 6] = [
    mark::BODY,
    mark::NEVER | mark::ROLE,
    mark::BYLINE,
    mark::COMMENTS,
    mark::HIDDEN,
    mark::UNLIKELY,
];

/// A number for each sort of element that text stands in.
fn sort_of(tag: Tag) -> u8 {
    match tag {
        Tag::P => 1,
        Tag::Pre | Tag::Xmp | Tag::Plaintext => 2,
        Tag::H1 => 3,
        Tag::H2 => 4,
        Tag::H3 => 5,
        Tag::H4 | Tag::H5 | Tag::H6 => 6,
        Tag::Li => 7,
        Tag::Td => 8,
        Tag::Th => 9,
        Tag::Dt => 10,
        Tag::Dd => 11,
        Tag::Blockquote => 12,
        Tag::Section | Tag::Article | Tag::Main => 13,
        Tag::Div => 14,
        Tag::Figcaption | Tag::Caption => 15,
        Tag::Header | Tag::Footer | Tag::Nav | Tag::Aside => 16,
        Tag::Summary | Tag::Details => 17,
        Tag::Address => 18,
        _ => 19,
    }
}

/// What holds for the text below an open element.
#[derive(Clone, Copy, Debug)]
struct Open {
    end: u32,
    block: u32,
    containers: [u32; LEVELS],
    /// Depth of the last ancestor of each kind, plus one.
    kinds: [u16; KINDS],
    groups: u64,
    /// Groups of this element and all above.
    all_groups: u64,
    is_link: bool,
    is_bold: bool,
}

impl Blocks {
    /// Splits `tree`, which `votes` were cast on, into blocks.
    pub(in crate::modifier) fn split(tree: &Tree, votes: &Votes) -> Self {
        Splitter::new(tree, votes).run()
    }

    /// The text nodes of block `index`.
    pub(super) fn nodes(&self, index: usize) -> &[u32] {
        let (start, end) = self.blocks[index].nodes;
        &self.nodes[start as usize..end as usize]
    }

    pub(in crate::modifier) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// The words of block `index`, a space between them.
    pub(in crate::modifier) fn text(&self, tree: &Tree, index: usize) -> String {
        let text: String = self.nodes(index).iter().map(|&node| tree.text(node as usize)).collect();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Characters of block `index`, runs of white space as one.
    pub(super) fn chars(&self, index: usize) -> u32 {
        self.blocks[index].stats.chars
    }

    /// Whether block `index` stands in comments of readers.
    pub(super) fn is_comment(&self, index: usize) -> bool {
        self.blocks[index].distances[COMMENTS] > 0
    }

    /// Whether the paragraphs voted for block `index`, and the rules left it.
    pub(super) fn has_votes(&self, index: usize) -> bool {
        self.blocks[index].vote == 2
    }

    /// Whether block `index` says two fifths of the page's title or more, and little else.
    pub(super) fn is_title(&self, index: usize) -> bool {
        self.blocks[index].in_title > 100
    }

    /// Whether block `index` is a heading.
    fn is_heading(&self, index: usize) -> bool {
        self.blocks[index].tag.is_heading()
    }
}

struct Splitter<'a> {
    tree: &'a Tree,
    votes: &'a Votes,
    out: Blocks,
    open: Vec<Open>,
    current: Option<Block>,
    /// The current block's text, in lower case where short, and the page's title.
    short: String,
    title: String,
    squeezed: String,
    /// Line breaks since the last character.
    breaks: u32,
    was_space: bool,
    images: u32,
}

impl<'a> Splitter<'a> {
    fn new(tree: &'a Tree, votes: &'a Votes) -> Self {
        let mut title = String::new();
        squeeze(tree.found.title.as_deref().unwrap_or_default(), &mut title);
        let root = Open {
            end: u32::MAX,
            block: 0,
            containers: [0; LEVELS],
            kinds: [0; KINDS],
            groups: 0,
            all_groups: 0,
            is_link: false,
            is_bold: false,
        };
        Self {
            tree,
            votes,
            out: Blocks::default(),
            open: vec![root],
            current: None,
            short: String::new(),
            title,
            squeezed: String::new(),
            breaks: 0,
            was_space: true,
            images: 0,
        }
    }

    fn run(mut self) -> Blocks {
        let tree = self.tree;
        let mut index = 1;
        while index < tree.nodes.len() {
            while self.open.last().is_some_and(|open| open.end as usize <= index) {
                let open = self.open.pop().expect("just seen");
                // Leaving an element of block level ends the block inside it.
                if self.open.last().is_some_and(|outer| outer.block != open.block) {
                    self.finish();
                }
            }
            let node = &tree.nodes[index];
            match node.tag {
                Tag::Text => self.text(index),
                Tag::Br | Tag::Hr => {
                    self.breaks += 1 + u32::from(node.tag == Tag::Hr);
                    self.was_space = true;
                }
                Tag::Img => self.images += 1,
                tag if super::content::is_unread(tag) => {
                    index = node.end as usize;
                    continue;
                }
                _ => self.open(index),
            }
            index += 1;
        }
        self.finish();
        self.out
    }

    fn open(&mut self, index: usize) {
        let node = &self.tree.nodes[index];
        let mut open = *self.open.last().expect("the root stays");
        let depth = u16::try_from(self.open.len() + 1).unwrap_or(u16::MAX);
        open.end = node.end;
        open.groups = node.groups;
        open.all_groups |= node.groups;
        if let Some(kind) = kind_of(node.tag) {
            open.kinds[kind] = depth;
        }
        if node.marks != 0 {
            for (kind, mark) in MARK_KINDS.iter().enumerate() {
                if node.marks & mark != 0 {
                    open.kinds[KINDS - MARK_KINDS.len() + kind] = depth;
                }
            }
        }
        open.is_link |= node.tag == Tag::A && node.marks & mark::HREF != 0;
        open.is_bold |= matches!(node.tag, Tag::B | Tag::Strong);
        if node.tag.is_block() {
            self.finish();
            open.block = u32::try_from(index).expect("NODES_MAX fits");
            open.containers.copy_within(..LEVELS - 1, 1);
            open.containers[0] = open.block;
        } else if open.is_link
            && node.tag == Tag::A
            && let Some(block) = &mut self.current
        {
            block.stats.links += 1;
        }
        self.open.push(open);
    }

    fn text(&mut self, index: usize) {
        let text = self.tree.text(index);
        let is_blank = text.bytes().all(|byte| byte.is_ascii_whitespace());
        if is_blank {
            self.was_space |= !text.is_empty();
            if self.current.is_some() {
                self.out.nodes.push(u32::try_from(index).expect("NODES_MAX fits"));
            }
            return;
        }
        if self.breaks >= 2 {
            self.finish();
        }
        if self.current.is_none() {
            self.begin(index);
        }
        let open = *self.open.last().expect("the root stays");
        let Some(block) = &mut self.current else { return };
        self.out.nodes.push(u32::try_from(index).expect("NODES_MAX fits"));
        block.stats.breaks += self.breaks;
        self.breaks = 0;
        let before = block.stats;
        block.stats.add(text, &mut self.was_space);
        let chars = block.stats.chars - before.chars;
        block.text = block.text.wrapping_mul(0x9E37_79B1) ^ hash(text.trim_ascii());
        if open.is_link {
            block.stats.link_chars += chars;
        }
        if open.is_bold {
            block.stats.bold_chars += chars;
        }
        if block.stats.chars <= SHORT_CHARS_MAX {
            if before.chars > 0 {
                self.short.push(' ');
            }
            self.short.push_str(text);
        }
    }

    fn begin(&mut self, index: usize) {
        let open = self.open.last().expect("the root stays");
        let n = self.open.len();
        let levels = |from: usize, to: usize| {
            let (to, from) = (n.saturating_sub(from), n.saturating_sub(to));
            self.open[from..to].iter().fold(0, |all, open| all | open.groups)
        };
        let far = if n > 7 { self.open[n - 8].all_groups } else { 0 };
        let depth = n + 1;
        let mut distances = [0; KINDS];
        for (distance, &at) in distances.iter_mut().zip(&open.kinds) {
            if at > 0 {
                *distance = small(depth - usize::from(at));
            }
        }
        let nodes = &self.tree.nodes;
        let parent = nodes[open.block as usize].parent as usize;
        let grandparent = nodes[parent].parent as usize;
        let template = [open.block as usize, parent, grandparent].iter().fold(0u32, |mix, &at| {
            (mix ^ nodes[at].class).wrapping_mul(0x85EB_CA6B).rotate_left(13)
        });
        let start = u32::try_from(self.out.nodes.len()).expect("NODES_MAX fits");
        self.short.clear();
        self.was_space = true;
        self.breaks = 0;
        self.current = Some(Block {
            nodes: (start, start),
            stats: Stats {
                images: self.images,
                links: u32::from(open.is_link),
                ..Stats::default()
            },
            tag: nodes[open.block as usize].tag,
            containers: open.containers,
            template,
            groups: [levels(0, 3), levels(3, 7), far],
            distances,
            depth: small(n),
            phrases: 0,
            in_title: 0,
            text: 0,
            vote: self.votes.of(index),
        });
        self.images = 0;
    }

    fn finish(&mut self) {
        let Some(mut block) = self.current.take() else { return };
        block.nodes.1 = u32::try_from(self.out.nodes.len()).expect("NODES_MAX fits");
        self.breaks = 0;
        if block.stats.chars <= SHORT_CHARS_MAX {
            let (automaton, bits) = &*PHRASE_MATCHER;
            for found in automaton.find_iter(&self.short) {
                block.phrases |= bits[found.pattern().as_usize()];
            }
            self.squeezed.clear();
            squeeze(&self.short, &mut self.squeezed);
            block.in_title = in_title(&self.squeezed, &self.title);
        }
        self.out.blocks.push(block);
    }
}

/// Appends the letters and digits of `text` in lower case.
fn squeeze(text: &str, out: &mut String) {
    out.extend(text.chars().filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_lowercase()));
}

/// 255 when both are equal; less, the less of the one is in the other; 0 when neither holds the other.
fn in_title(block: &str, title: &str) -> u8 {
    if block.len() < 4 || title.len() < 4 {
        return 0;
    }
    let (short, long) = if block.len() < title.len() { (block, title) } else { (title, block) };
    let is_inside = memmem::find(long.as_bytes(), short.as_bytes()).is_some();
    if is_inside { share(u32_of(short.len()), u32_of(long.len())) } else { 0 }
}

fn u32_of(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn hash(text: &str) -> u32 {
    xxhash_rust::xxh32::xxh32(text.as_bytes(), 0)
}

impl Stats {
    fn add(&mut self, text: &str, was_space: &mut bool) {
        let bytes = text.as_bytes();
        for (at, &byte) in bytes.iter().enumerate() {
            if byte.is_ascii_whitespace() {
                self.chars += u32::from(!*was_space);
                *was_space = true;
                continue;
            }
            // Continuation bytes are no characters of their own.
            if byte & 0xC0 == 0x80 {
                continue;
            }
            self.chars += 1;
            self.words += u32::from(*was_space);
            *was_space = false;
            if self.first == 0 {
                self.first = byte;
            }
            self.last = byte;
            match byte {
                b'0'..=b'9' => self.digits += 1,
                b'A'..=b'Z' => self.uppers += 1,
                b',' => self.commas += 1,
                b'.' | b'!' | b'?' => {
                    let next = bytes.get(at + 1).copied().unwrap_or(b' ');
                    self.sentences += u32::from(next.is_ascii_whitespace() || next == b'"');
                }
                // `。`, `，`, `！`, `？`, `、` and `،`.
                0xE3 | 0xEF => {
                    let rest = &bytes[at..bytes.len().min(at + 3)];
                    self.wide += 1;
                    match rest {
                        [0xE3, 0x80, 0x82] | [0xEF, 0xBC, 0x81 | 0x9F] => self.sentences += 1,
                        [0xE3, 0x80, 0x81] | [0xEF, 0xBC, 0x8C] => self.commas += 1,
                        _ => {}
                    }
                }
                0xE4.. => self.wide += 1,
                0xD8 if bytes.get(at + 1) == Some(&0x8C) => self.commas += 1,
                b'!'..=b'/' | b':'..=b'@' | b'['..=b'`' | b'{'..=b'~' => self.punctuation += 1,
                _ => {}
            }
        }
    }
}

/// What a byte is for the first and last character of a block.
fn class_of(byte: u8) -> u8 {
    match byte {
        b'.' | b'!' | b'?' => 9,
        b':' => 8,
        b',' | b';' => 7,
        b'"' | b'\'' | b')' | b']' => 6,
        b'A'..=b'Z' => 5,
        b'a'..=b'z' => 4,
        b'0'..=b'9' => 3,
        0x80.. => 2,
        _ => 1,
    }
}

/// How often a template or a text comes, and with how many characters.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    n: u32,
    chars: u32,
    link_chars: u32,
    first: u32,
}

/// Returns per block the group of the blocks with the same key.
fn groups_by(blocks: &[Block], key: impl Fn(&Block) -> u32) -> Vec<Group> {
    let mut order: Vec<u32> = (0..u32_of(blocks.len())).collect();
    order.sort_by_key(|&index| key(&blocks[index as usize]));
    let mut groups = vec![Group::default(); blocks.len()];
    for run in order.chunk_by(|&a, &b| key(&blocks[a as usize]) == key(&blocks[b as usize])) {
        let mut group = Group { n: u32_of(run.len()), first: run[0], ..Group::default() };
        for &index in run {
            let stats = &blocks[index as usize].stats;
            group.chars = group.chars.saturating_add(stats.chars);
            group.link_chars = group.link_chars.saturating_add(stats.link_chars);
        }
        for &index in run {
            groups[index as usize] = group;
        }
    }
    groups
}

/// What a page is like as a whole.
#[derive(Debug, Default)]
struct Page {
    chars: u32,
    long_chars: u32,
    link_chars: u32,
    kept_chars: u32,
    paragraph_chars: u32,
    list_blocks: u32,
    heading_blocks: u32,
    thread_blocks: u32,
    price_blocks: u32,
    product_blocks: u32,
    card_blocks: u32,
    commas: u32,
    article_blocks: u32,
    main_blocks: u32,
    comment_blocks: u32,
    first_h1: Option<u32>,
    h1: u32,
    code_blocks: u32,
}

impl Page {
    fn of(blocks: &[Block]) -> Self {
        let mut page = Self::default();
        let has = |block: &Block, bit: u32| {
            u32::from((block.groups[0] | block.groups[1]) & (1 << bit) != 0)
        };
        for (index, block) in blocks.iter().enumerate() {
            let stats = &block.stats;
            page.chars += stats.chars;
            page.link_chars += stats.link_chars;
            page.commas += stats.commas;
            if stats.chars > 100 && stats.link_share() < 80 {
                page.long_chars += stats.chars;
            }
            if block.vote == 2 {
                page.kept_chars += stats.chars;
            }
            match block.tag {
                Tag::P => page.paragraph_chars += stats.chars,
                Tag::Li => page.list_blocks += 1,
                Tag::Pre => page.code_blocks += 1,
                Tag::H1 => {
                    page.first_h1.get_or_insert(u32_of(index));
                    page.h1 += 1;
                }
                _ => {}
            }
            page.heading_blocks += u32::from(block.tag.is_heading());
            page.thread_blocks += has(block, 40);
            page.price_blocks += u32::from(block.phrases & (1 << 9) != 0);
            page.product_blocks += has(block, 25);
            page.card_blocks += has(block, 22);
            page.comment_blocks += u32::from(block.distances[COMMENTS] > 0);
            page.article_blocks += u32::from(block.distances[5] > 0);
            page.main_blocks += u32::from(block.distances[4] > 0);
        }
        page
    }
}

impl Blocks {
    /// Returns for each block the [`FEATURES`] bytes that describe it and `room` zeros, block after block.
    pub(in crate::modifier) fn features(&self, counts: &[Counts], room: usize) -> Vec<u8> {
        let blocks = &self.blocks;
        let page = Page::of(blocks);
        let templates = groups_by(blocks, |block| block.template);
        let texts = groups_by(blocks, |block| block.text);
        let mut row = Vec::with_capacity(blocks.len() * (FEATURES + room));
        let mut chars_before = 0;
        let mut since_heading = 0;
        let mut heading = 0;
        for (index, block) in blocks.iter().enumerate() {
            let start = row.len();
            block.push_around(&mut row);
            block.push_own(&mut row);
            for &container in &block.containers {
                push_container(&mut row, &counts[container as usize], &page, block.stats.chars);
            }
            for offset in [-1, 1, -2, 2] {
                let neighbour = index.checked_add_signed(offset).and_then(|at| blocks.get(at));
                push_neighbour(&mut row, neighbour, block);
            }
            let place = Place { index, chars_before, since_heading, heading };
            place.push(&mut row, blocks.len(), &page);
            push_group(&mut row, &templates[index], &texts[index], index);
            page.push(&mut row, blocks.len());
            debug_assert_eq!(row.len() - start, FEATURES);
            row.resize(row.len() + room, 0);
            chars_before += block.stats.chars;
            since_heading += 1;
            if block.tag.is_heading() {
                (since_heading, heading) = (0, sort_of(block.tag));
            }
        }
        row
    }
}

impl Block {
    /// 64 groups and the kinds of ancestors, depth and vote.
    fn push_around(&self, row: &mut Vec<u8>) {
        for bit in 0..64 {
            let is_in = |mask: u64| u8::from(mask >> bit & 1 != 0);
            let [near, mid, far] = self.groups.map(is_in);
            row.push(if near > 0 { 3 } else { (mid * 2).max(far) });
        }
        row.extend_from_slice(&self.distances);
        row.push(self.depth);
        row.push(self.vote);
    }

    /// 24 of its text, 16 of its words.
    fn push_own(&self, row: &mut Vec<u8>) {
        let stats = &self.stats;
        let letters = stats.chars;
        row.extend_from_slice(&[
            sort_of(self.tag),
            log(stats.chars),
            log(stats.words),
            log(letters * 16 / stats.words.max(1)),
            log(stats.links),
            stats.link_share(),
            log(stats.chars - stats.link_chars.min(stats.chars)),
            share(stats.bold_chars, stats.chars),
            log(stats.commas),
            share(stats.commas * 16, stats.chars),
            log(stats.sentences),
            share(stats.sentences * 32, stats.chars),
            share(stats.digits, stats.chars),
            share(stats.uppers, stats.chars),
            share(stats.wide, stats.chars),
            small(stats.breaks as usize),
            small(stats.images as usize),
            share(stats.punctuation * 4, stats.chars),
            class_of(stats.first),
            class_of(stats.last),
            self.in_title,
            log(stats.digits),
            log(self.phrases.count_ones()),
            u8::from(stats.chars <= SHORT_CHARS_MAX),
        ]);
        for bit in 0..16 {
            row.push(u8::from(self.phrases >> bit & 1 != 0));
        }
    }
}

fn push_container(row: &mut Vec<u8>, count: &Counts, page: &Page, chars: u32) {
    row.extend_from_slice(&[
        log(count.chars),
        share(count.chars, page.chars),
        share(chars, count.chars),
        share(count.link_chars, count.chars),
        share(count.commas * 16, count.chars),
        log(count.paragraphs),
        log(count.blocks),
        log(count.items),
        log(count.chars / (count.blocks + 1)),
    ]);
}

fn push_neighbour(row: &mut Vec<u8>, neighbour: Option<&Block>, block: &Block) {
    let Some(neighbour) = neighbour else { return row.extend_from_slice(&[0; 6]) };
    let is_alike = u8::from(neighbour.template == block.template);
    row.extend_from_slice(&[
        sort_of(neighbour.tag),
        log(neighbour.stats.chars),
        neighbour.stats.link_share(),
        log(neighbour.stats.sentences),
        1 + is_alike + 2 * u8::from(neighbour.containers[1] == block.containers[1]),
        neighbour.vote + 1,
    ]);
}

/// Where a block stands.
struct Place {
    index: usize,
    chars_before: u32,
    /// Blocks since the last heading, and its sort.
    since_heading: usize,
    heading: u8,
}

impl Place {
    fn push(&self, row: &mut Vec<u8>, n_blocks: usize, page: &Page) {
        let index = u32_of(self.index);
        let after_h1 = match page.first_h1 {
            Some(h1) if index >= h1 => 128 + log(index - h1) / 2,
            Some(h1) => 127 - log(h1 - index) / 2,
            None => 0,
        };
        row.extend_from_slice(&[
            share(index, u32_of(n_blocks)),
            share(self.chars_before, page.chars),
            log(index),
            log(u32_of(n_blocks) - index),
            log(self.chars_before),
            log(page.chars - self.chars_before),
            after_h1,
            small(self.since_heading),
            self.heading,
        ]);
    }
}

/// Five bytes; [`Page::push`] has thirteen.
fn push_group(row: &mut Vec<u8>, template: &Group, text: &Group, index: usize) {
    row.extend_from_slice(&[
        log(template.n),
        log(template.chars / template.n.max(1)),
        share(template.link_chars, template.chars),
        small(text.n as usize),
        u8::from(text.first as usize != index),
    ]);
}

impl Page {
    fn push(&self, row: &mut Vec<u8>, n_blocks: usize) {
        let n_blocks = u32_of(n_blocks);
        row.extend_from_slice(&[
            log(self.chars),
            log(n_blocks),
            share(self.link_chars, self.chars),
            share(self.long_chars, self.chars),
            share(self.kept_chars, self.chars),
            share(self.paragraph_chars, self.chars),
            share(self.list_blocks, n_blocks),
            share(self.heading_blocks, n_blocks),
            share(self.thread_blocks, n_blocks),
            log(self.price_blocks),
            share(self.product_blocks, n_blocks),
            share(self.card_blocks, n_blocks),
            share(self.commas * 16, self.chars),
        ]);
    }
}

impl Blocks {
    /// Returns the probability of each block of being text, in 255ths.
    pub(in crate::modifier) fn scores(&self, counts: &[Counts], n_nodes: usize) -> Vec<u8> {
        let model = Model::built_in();
        let stride = FEATURES + CONTEXT;
        let mut rows = self.features(counts, CONTEXT);
        let context = self.context(&model.first(&rows, stride), n_nodes);
        for (row, context) in rows.chunks_exact_mut(stride).zip(context.chunks_exact(CONTEXT)) {
            row[FEATURES..].copy_from_slice(context);
        }
        model.second(&rows, stride)
    }

    /// Returns [`CONTEXT`] bytes for each block: what `scores`, one for each block, say around it.
    pub(in crate::modifier) fn context(&self, scores: &[u8], n_nodes: usize) -> Vec<u8> {
        let blocks = &self.blocks;
        let weight = |index: usize| u64::from(blocks[index].stats.chars.min(1000)) + 10;
        // Sums of weights and weighted scores of everything before a block.
        let mut sums = Vec::with_capacity(blocks.len() + 1);
        sums.push((0u64, 0u64));
        let mut containers = vec![(0u64, 0u64); n_nodes];
        let mut templates: Vec<(u32, u64, u64)> = Vec::with_capacity(blocks.len());
        for (index, block) in blocks.iter().enumerate() {
            let (w, s) = (weight(index), weight(index) * u64::from(scores[index]));
            let (weights, scored) = sums[index];
            sums.push((weights + w, scored + s));
            templates.push((block.template, w, s));
            let mut last = u32::MAX;
            for &container in &block.containers {
                if container != last {
                    let sum = &mut containers[container as usize];
                    *sum = (sum.0 + w, sum.1 + s);
                }
                last = container;
            }
        }
        templates.sort_unstable();
        let mean = |(weights, scored): (u64, u64)| {
            u8::try_from(scored / weights.max(1)).unwrap_or(u8::MAX)
        };
        let between = |from: usize, to: usize| {
            let (from, to) = (sums[from.min(to)], sums[to.min(blocks.len())]);
            mean((to.0 - from.0, to.1 - from.1))
        };
        let highest = scores.iter().copied().max().unwrap_or_default();
        let kept: u64 = (0..blocks.len()).filter(|&index| scores[index] >= 128).map(weight).sum();
        let all = sums[blocks.len()];
        let kept_share = u8::try_from(kept * 255 / all.0.max(1)).unwrap_or(u8::MAX);
        let is_heading = |index: &usize| self.is_heading(*index);
        let score_at = |at: Option<usize>| at.map_or(0, |at| scores[at]);
        let mut row = Vec::with_capacity(blocks.len() * CONTEXT);
        for (index, block) in blocks.iter().enumerate() {
            for offset in [0, -1, 1, -2, 2, -3, 3, -4, 4] {
                let at = index.checked_add_signed(offset);
                row.push(at.and_then(|at| scores.get(at).copied()).unwrap_or(0));
            }
            row.push(between(index.saturating_sub(4), index + 5));
            row.push(between(index.saturating_sub(12), index + 13));
            row.push(between(0, index));
            row.push(between(index + 1, blocks.len()));
            for &container in &block.containers {
                row.push(mean(containers[container as usize]));
            }
            let first = templates.partition_point(|&(template, ..)| template < block.template);
            let alike =
                templates[first..].iter().take_while(|(template, ..)| *template == block.template);
            row.push(mean(alike.take(64).fold((0, 0), |sum, &(_, w, s)| (sum.0 + w, sum.1 + s))));
            row.push(mean(all));
            row.push(highest);
            row.push(kept_share);
            row.push(score_at((0..index).rev().take(20).find(is_heading)));
            let next = (index + 1..blocks.len()).take(5).find(|&at| !self.is_heading(at));
            row.push(score_at(next));
        }
        row
    }
}
