//! Which part of a page is its text.
//!
//! Rules prune the page's furniture, paragraphs vote for the elements around them, and what inside the winner looks like
//! furniture after all goes. Where little is left the rules are relaxed step by step. Scores and limits are those of
//! Readability.js 0.6 unless a comment says otherwise. What comes out is one of the features of [`super::block`], and the
//! scores of [`super::model`] decide.

use serde::{Deserialize, Serialize};

use super::block::Blocks;
use super::tag::Tag;
use super::tree::{Tree, mark};

/// How much of a page is taken.
///
/// In `main` a word too many is as bad as one that is missing; in `recall` a missing one counts four times as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::modifier) enum Mode {
    /// The main content, without furniture.
    Main,
    /// The main content and what may belong to it.
    Recall,
    /// Every visible text.
    All,
}

/// What is kept of a tree.
#[derive(Debug)]
pub(in crate::modifier) struct Selection {
    /// Subtrees that are kept, in document order, none inside another.
    pub(super) roots: Vec<usize>,
    /// Per node: whether it is left out all the same.
    pub(super) removed: Vec<bool>,
}

/// Fewer characters than this make the rules be relaxed (`DEFAULT_CHAR_THRESHOLD`).
const TEXT_CHARS_MIN: u32 = 500;
/// Shorter runs of text do not vote.
const VOTE_CHARS_MIN: u32 = 25;
/// Elements above a paragraph that it votes for.
const VOTE_LEVELS: usize = 5;

/// Which rules are in force.
#[derive(Clone, Copy, Debug)]
struct Rules {
    prune_unlikely: bool,
    weigh_classes: bool,
    clean: bool,
}

/// What the paragraphs of a page voted for.
#[derive(Debug)]
pub(in crate::modifier) struct Votes {
    /// What stands in each node, hidden parts left out.
    pub(in crate::modifier) counts: Vec<Counts>,
    /// Per node: 0 outside the elements that won, 1 inside but cleaned away, 2 kept.
    kept: Vec<u8>,
}

impl Votes {
    /// 0 for a node outside the elements that won, 1 for one that was cleaned away inside, 2 for one that is kept.
    pub(super) fn of(&self, index: usize) -> u8 {
        self.kept[index]
    }

    /// Lets the paragraphs of `tree` vote.
    pub(in crate::modifier) fn cast(tree: &Tree) -> Self {
        let mut invisible = vec![false; tree.nodes.len()];
        remove_subtrees(tree, &mut invisible, |index| is_invisible(tree, index));
        let counts = count(tree, &invisible);
        let selection = elect(tree, &counts);
        let mut kept = vec![0; tree.nodes.len()];
        for &root in &selection.roots {
            let range = root..tree.nodes[root].end as usize;
            for (kept, is_removed) in kept[range.clone()].iter_mut().zip(&selection.removed[range])
            {
                *kept = if *is_removed { 1 } else { 2 };
            }
        }
        Self { counts, kept }
    }
}

/// Returns the blocks that the classifier takes for the page's text.
///
/// Those with the best scores are kept, as many as promise the best F-measure: a page of doubtful blocks keeps more of
/// them than one fixed threshold would. In `main` the votes of the paragraphs are heard too, and the title, which is
/// metadata, is not repeated.
pub(in crate::modifier) fn choose(
    tree: &Tree,
    blocks: &Blocks,
    scores: &[u8],
    mode: Mode,
    comments: bool,
) -> Selection {
    let beta2 = if mode == Mode::Main { 1 } else { 4 };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by_key(|&index| u8::MAX - scores[index]);
    let chars = |index: usize| u64::from(blocks.chars(index));
    let expected: u64 = order.iter().map(|&index| chars(index) * u64::from(scores[index])).sum();
    let (mut found, mut taken, mut n_kept) = (0u64, 0u64, 0);
    let mut best = 0.0;
    for (rank, &index) in order.iter().enumerate() {
        found += chars(index) * u64::from(scores[index]);
        taken += chars(index) * u64::from(u8::MAX);
        let measure = ratio_of(found * (1 + beta2), taken + beta2 * expected);
        if measure > best {
            (best, n_kept) = (measure, rank + 1);
        }
    }
    let mut is_kept = vec![false; scores.len()];
    order[..n_kept].iter().for_each(|&index| is_kept[index] = true);
    if mode == Mode::Main {
        settle_votes(blocks, scores, &mut is_kept);
        drop_title(blocks, &mut is_kept);
    }
    settle_comments(blocks, scores, &mut is_kept, comments);
    let mut removed = vec![true; tree.nodes.len()];
    for block in (0..scores.len()).filter(|&block| is_kept[block]) {
        for &node in blocks.nodes(block) {
            let mut index = node as usize;
            while removed[index] {
                removed[index] = false;
                index = tree.nodes[index].parent as usize;
            }
        }
    }
    for index in 1..tree.nodes.len() {
        if tree.nodes[index].tag == Tag::Br {
            removed[index] = removed[tree.nodes[index].parent as usize];
        }
    }
    Selection { roots: vec![0], removed }
}

/// Drops doubtful blocks that the paragraphs did not vote for, where most of what is kept they did: an article.
fn settle_votes(blocks: &Blocks, scores: &[u8], is_kept: &mut [bool]) {
    /// Nine tenths.
    const SCORE_MIN: u8 = 230;
    let (mut inside, mut all) = (0, 0);
    for index in (0..is_kept.len()).filter(|&index| is_kept[index]) {
        all += u64::from(blocks.chars(index));
        inside += if blocks.has_votes(index) { u64::from(blocks.chars(index)) } else { 0 };
    }
    if inside * 10 > all * 6 {
        for (index, is_kept) in is_kept.iter_mut().enumerate() {
            *is_kept &= blocks.has_votes(index) || scores[index] >= SCORE_MIN;
        }
    }
}

/// Drops the blocks that say the page's title, unless nothing else is kept.
fn drop_title(blocks: &Blocks, is_kept: &mut [bool]) {
    if (0..is_kept.len()).any(|index| is_kept[index] && !blocks.is_title(index)) {
        for (index, is_kept) in is_kept.iter_mut().enumerate() {
            *is_kept &= !blocks.is_title(index);
        }
    }
}

/// Drops readers' comments, unless they are what the page is about, or adds those that the classifier does not rule out.
fn settle_comments(blocks: &Blocks, scores: &[u8], is_kept: &mut [bool], comments: bool) {
    /// A quarter: less than what any page needs to be taken.
    const SCORE_MIN: u8 = 64;
    let of_comments = |index: &usize| blocks.is_comment(*index);
    if comments {
        for index in (0..is_kept.len()).filter(of_comments) {
            is_kept[index] |= scores[index] >= SCORE_MIN;
        }
        return;
    }
    let chars = |indices: &[usize]| -> u64 {
        indices.iter().map(|&index| u64::from(blocks.chars(index))).sum()
    };
    let kept: Vec<usize> = (0..is_kept.len()).filter(|&index| is_kept[index]).collect();
    let commented: Vec<usize> = kept.iter().copied().filter(of_comments).collect();
    if chars(&commented) * 2 < chars(&kept) {
        commented.into_iter().for_each(|index| is_kept[index] = false);
    }
}

#[expect(clippy::cast_precision_loss, reason = "sums of a page are far below 2^53")]
fn ratio_of(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Returns every visible part of `tree`.
pub(in crate::modifier) fn visible(tree: &Tree) -> Selection {
    let mut removed = vec![false; tree.nodes.len()];
    remove_subtrees(tree, &mut removed, |index| is_invisible(tree, index));
    Selection { roots: vec![0], removed }
}

/// Returns what the rules keep, relaxed until enough is left.
fn elect(tree: &Tree, visible: &[Counts]) -> Selection {
    let attempts = [
        Rules { prune_unlikely: true, weigh_classes: true, clean: true },
        Rules { prune_unlikely: false, weigh_classes: true, clean: true },
        Rules { prune_unlikely: false, weigh_classes: false, clean: true },
        Rules { prune_unlikely: false, weigh_classes: false, clean: false },
    ];
    // Short pages exist: only a text twice as long shows that a rule took the article for furniture.
    let mut longest: Option<(u32, Selection)> = None;
    for rules in attempts {
        let (chars, selection) = attempt(tree, visible, rules);
        if chars >= TEXT_CHARS_MIN {
            return selection;
        }
        if longest.as_ref().is_none_or(|(most, _)| chars > 2 * *most) {
            longest = Some((chars, selection));
        }
    }
    longest.expect("four attempts").1
}

/// Returns what `rules` keep and its characters.
fn attempt(tree: &Tree, visible: &[Counts], rules: Rules) -> (u32, Selection) {
    let mut removed = vec![false; tree.nodes.len()];
    remove_subtrees(tree, &mut removed, |index| is_furniture(tree, visible, index, rules));
    let counts = count(tree, &removed);
    let roots = winner(tree, &removed, &counts, rules);
    if rules.clean {
        for &root in &roots {
            clean(tree, &mut removed, root, rules);
        }
    }
    let counts = count(tree, &removed);
    let chars = roots.iter().filter(|&&root| !removed[root]).map(|&root| counts[root].chars).sum();
    (chars, Selection { roots, removed })
}

/// Marks every subtree whose first node `is_unwanted`, outermost first.
fn remove_subtrees(tree: &Tree, removed: &mut [bool], is_unwanted: impl Fn(usize) -> bool) {
    let mut index = 1;
    while index < tree.nodes.len() {
        let end = tree.nodes[index].end as usize;
        if tree.nodes[index].tag != Tag::Text && is_unwanted(index) {
            removed[index..end].fill(true);
            index = end;
        } else {
            index += 1;
        }
    }
}

fn is_invisible(tree: &Tree, index: usize) -> bool {
    let node = &tree.nodes[index];
    node.marks & mark::HIDDEN != 0 || is_unread(node.tag)
}

/// Whether `tag` holds something other than text to read.
pub(super) fn is_unread(tag: Tag) -> bool {
    matches!(
        tag,
        Tag::Script
            | Tag::Style
            | Tag::Noscript
            | Tag::Template
            | Tag::Svg
            | Tag::Math
            | Tag::Canvas
            | Tag::Iframe
            | Tag::Object
            | Tag::Audio
            | Tag::Video
            | Tag::Map
            | Tag::Input
            | Tag::Select
            | Tag::Textarea
            | Tag::Title
            | Tag::Noframes
            | Tag::Noembed
    )
}

fn is_furniture(tree: &Tree, visible: &[Counts], index: usize, rules: Rules) -> bool {
    let node = &tree.nodes[index];
    if is_invisible(tree, index) {
        return true;
    }
    if matches!(
        node.tag,
        Tag::Nav | Tag::Aside | Tag::Footer | Tag::Button | Tag::Dialog | Tag::Menu | Tag::Search
    ) {
        return true;
    }
    if node.marks & mark::ROLE != 0 {
        return true;
    }
    // A wrapper of the whole page may be called after an advert that it makes room for.
    let holds_most = visible[index].chars > visible[0].chars / 2;
    if rules.weigh_classes
        && node.marks & (mark::NEVER | mark::COMMENTS) != 0
        && node.marks & mark::BODY == 0
        && (node.marks & mark::COMMENTS != 0 || !holds_most)
    {
        return true;
    }
    if !rules.prune_unlikely {
        return false;
    }
    if node.marks & mark::BYLINE != 0 && !node.tag.is_heading() && chars_below(tree, index, 100) {
        return true;
    }
    node.marks & mark::UNLIKELY != 0
        && node.marks & (mark::MAYBE | mark::BODY) == 0
        && !matches!(
            node.tag,
            Tag::A
                | Tag::Main
                | Tag::Article
                | Tag::Table
                | Tag::Tr
                | Tag::Td
                | Tag::Code
                | Tag::Pre
        )
}

/// Whether the text of node `index` has fewer than `limit` bytes.
fn chars_below(tree: &Tree, index: usize, limit: usize) -> bool {
    let mut bytes = 0;
    for inner in index..tree.nodes[index].end as usize {
        bytes += tree.text(inner).trim().len();
        if bytes >= limit {
            return false;
        }
    }
    true
}

/// What stands in a subtree, without what was removed.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::modifier) struct Counts {
    /// Characters, runs of white space as one.
    pub(super) chars: u32,
    pub(super) link_chars: u32,
    heading_chars: u32,
    list_chars: u32,
    pub(super) commas: u32,
    /// The same of the text that is in no block further in.
    own_chars: u32,
    own_link_chars: u32,
    own_commas: u32,
    pub(super) blocks: u32,
    pub(super) paragraphs: u32,
    images: u32,
    pub(super) items: u32,
    inputs: u32,
}

impl Counts {
    fn link_density(&self) -> f64 {
        ratio(self.link_chars, self.chars)
    }
}

fn ratio(part: u32, whole: u32) -> f64 {
    if whole == 0 { 0.0 } else { f64::from(part) / f64::from(whole) }
}

/// Returns the counts of every node: children come after their parents, so one pass backwards is enough.
fn count(tree: &Tree, removed: &[bool]) -> Vec<Counts> {
    let mut all = vec![Counts::default(); tree.nodes.len()];
    for index in (1..tree.nodes.len()).rev() {
        if removed[index] {
            continue;
        }
        let node = &tree.nodes[index];
        if node.tag == Tag::Text {
            let (chars, commas) = measure(tree.text(index));
            let parent = &mut all[node.parent as usize];
            parent.chars += chars;
            parent.commas += commas;
            parent.own_chars += chars;
            parent.own_commas += commas;
            continue;
        }
        let mut own = all[index];
        let is_block = node.tag.is_block();
        match node.tag {
            // A link inside the page is text rather than a way out; Readability counts it as 0.3, we as all.
            Tag::A if node.marks & mark::HREF != 0 => {
                own.link_chars = own.chars;
                own.own_link_chars = own.own_chars;
            }
            Tag::Ul | Tag::Ol => own.list_chars = own.chars,
            Tag::P => own.paragraphs += 1,
            Tag::Img => own.images += 1,
            Tag::Li => own.items += 1,
            Tag::Input => own.inputs += 1,
            tag if tag.is_heading() => own.heading_chars = own.chars,
            _ => {}
        }
        all[index] = own;
        let parent = &mut all[node.parent as usize];
        parent.chars += own.chars;
        parent.link_chars += own.link_chars;
        parent.heading_chars += own.heading_chars;
        parent.list_chars += own.list_chars;
        parent.commas += own.commas;
        parent.blocks += own.blocks + u32::from(is_block);
        parent.paragraphs += own.paragraphs;
        parent.images += own.images;
        parent.items += own.items;
        parent.inputs += own.inputs;
        if !is_block {
            parent.own_chars += own.own_chars;
            parent.own_link_chars += own.own_link_chars;
            parent.own_commas += own.own_commas;
        }
    }
    all
}

/// Returns the characters of `text`, runs of white space as one and none at a blank text, and its commas.
fn measure(text: &str) -> (u32, u32) {
    let (mut chars, mut commas, mut has_ink, mut was_space) = (0, 0, false, true);
    let mut previous = [0u8; 2];
    for byte in text.bytes() {
        let is_space = byte.is_ascii_whitespace();
        // Continuation bytes are no characters of their own.
        let is_start = byte & 0xC0 != 0x80;
        chars += u32::from(is_start && !(is_space && was_space));
        has_ink |= !is_space;
        was_space = is_space;
        // `,`, and in UTF-8 `،` (D8 8C), `、` (E3 80 81), `，` (EF BC 8C).
        let is_comma = match byte {
            b',' => true,
            0x8C => previous[1] == 0xD8 || previous == [0xEF, 0xBC],
            0x81 => previous == [0xE3, 0x80],
            _ => false,
        };
        commas += u32::from(is_comma);
        previous = [previous[1], byte];
    }
    if has_ink { (chars, commas) } else { (0, 0) }
}

fn class_weight(tree: &Tree, index: usize, rules: Rules) -> f64 {
    if !rules.weigh_classes {
        return 0.0;
    }
    let marks = tree.nodes[index].marks;
    let mut weight = 0.0;
    if marks & mark::POSITIVE != 0 {
        weight += 25.0;
    }
    if marks & mark::NEGATIVE != 0 {
        weight -= 25.0;
    }
    weight
}

fn tag_weight(tag: Tag) -> f64 {
    match tag {
        Tag::Div | Tag::Article | Tag::Main => 5.0,
        Tag::Pre | Tag::Td | Tag::Blockquote => 3.0,
        Tag::Address | Tag::Ol | Tag::Ul | Tag::Dl | Tag::Dd | Tag::Dt | Tag::Li | Tag::Form => {
            -3.0
        }
        Tag::Th => -5.0,
        tag if tag.is_heading() => -5.0,
        _ => 0.0,
    }
}

/// Returns the elements that hold the text: the one with the most votes and siblings that look like it.
fn winner(tree: &Tree, removed: &[bool], counts: &[Counts], rules: Rules) -> Vec<usize> {
    let mut votes: Vec<Option<f64>> = vec![None; tree.nodes.len()];
    let mut candidates: Vec<usize> = Vec::new();
    for index in 1..tree.nodes.len() {
        let node = &tree.nodes[index];
        let own = &counts[index];
        if removed[index] || !node.tag.is_block() || own.own_chars < VOTE_CHARS_MIN {
            continue;
        }
        let is_paragraph = matches!(node.tag, Tag::P | Tag::Td | Tag::Pre | Tag::Section)
            || (node.tag.is_heading() && node.tag != Tag::H1)
            || (node.tag == Tag::Div && own.blocks == 0);
        let is_mixed =
            matches!(node.tag, Tag::Div | Tag::Article | Tag::Main | Tag::Blockquote | Tag::Center);
        if !is_paragraph && !is_mixed {
            continue;
        }
        let score =
            1.0 + f64::from(own.own_commas) + (f64::from(own.own_chars) / 100.0).floor().min(3.0);
        let mut ancestor = if is_paragraph { node.parent as usize } else { index };
        for level in 0..VOTE_LEVELS {
            if ancestor == 0 && level > 0 {
                break;
            }
            let divider = match level {
                0 => 1.0,
                1 => 2.0,
                _ => 3.0 * f64::from(u32::try_from(level).expect("few levels")),
            };
            let vote = votes[ancestor].get_or_insert_with(|| {
                candidates.push(ancestor);
                tag_weight(tree.nodes[ancestor].tag) + class_weight(tree, ancestor, rules)
            });
            *vote += score / divider;
            if ancestor == 0 {
                break;
            }
            ancestor = tree.nodes[ancestor].parent as usize;
        }
    }
    let score = |index: usize| votes[index].map(|vote| vote * (1.0 - counts[index].link_density()));
    candidates.sort_unstable();
    let best = candidates.iter().copied().fold(None, |best: Option<(usize, f64)>, index| {
        let score = score(index).unwrap_or_default();
        if best.is_none_or(|(_, most)| score > most) { Some((index, score)) } else { best }
    });
    let Some((best, best_score)) = best else { return vec![0] };
    let top = climb(tree, &candidates, best, best_score, &score);
    if top == 0 {
        return vec![0];
    }
    let top_score = score(top).unwrap_or_default();
    siblings(tree, removed, counts, top, score, top_score)
}

/// Returns the ancestor of `best` that holds other strong candidates too, or `best`.
fn climb(
    tree: &Tree,
    candidates: &[usize],
    best: usize,
    best_score: f64,
    score: &impl Fn(usize) -> Option<f64>,
) -> usize {
    let mut top = best;
    // Three of the five best candidates under one ancestor: the text is spread over its children.
    let mut strong: Vec<(f64, usize)> = candidates
        .iter()
        .filter(|&&index| index != best)
        .filter_map(|&index| score(index).map(|score| (score, index)))
        .filter(|&(score, _)| score >= best_score * 0.75)
        .collect();
    strong.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    strong.truncate(4);
    if strong.len() >= 3 {
        let mut ancestor = best;
        while ancestor != 0 {
            ancestor = tree.nodes[ancestor].parent as usize;
            let range = ancestor + 1..tree.nodes[ancestor].end as usize;
            if strong.iter().filter(|(_, index)| range.contains(index)).count() >= 3 {
                top = ancestor;
                break;
            }
        }
    }
    // A parent with more votes than its child, unless the votes fell by two thirds on the way.
    let mut last = score(top).unwrap_or(best_score);
    let limit = last / 3.0;
    let mut parent = top;
    while parent != 0 {
        parent = tree.nodes[parent].parent as usize;
        let Some(parent_score) = score(parent) else { continue };
        if parent_score < limit {
            break;
        }
        if parent_score > last {
            top = parent;
            break;
        }
        last = parent_score;
    }
    top
}

/// Returns `top` and the siblings that belong to it.
fn siblings(
    tree: &Tree,
    removed: &[bool],
    counts: &[Counts],
    top: usize,
    score: impl Fn(usize) -> Option<f64>,
    top_score: f64,
) -> Vec<usize> {
    let threshold = (top_score * 0.2).max(10.0);
    let parent = tree.nodes[top].parent as usize;
    let mut roots = Vec::new();
    let mut index = parent + 1;
    while index < tree.nodes[parent].end as usize {
        let node = &tree.nodes[index];
        let is_kept = index == top
            || (!removed[index] && node.tag != Tag::Text && {
                let count = &counts[index];
                let has_alike = node.marks == tree.nodes[top].marks && node.marks != 0;
                let bonus = if has_alike { top_score * 0.2 } else { 0.0 };
                let is_text = node.tag == Tag::P
                    && (count.chars > 80 && count.link_density() < 0.25
                        || count.chars <= 80
                            && count.chars > 0
                            && count.link_chars == 0
                            && count.commas > 0);
                is_text || score(index).is_some_and(|score| score + bonus >= threshold)
            });
        if is_kept {
            roots.push(index);
        }
        index = node.end as usize;
    }
    roots
}

/// Removes what inside `root` looks like furniture, innermost first.
fn clean(tree: &Tree, removed: &mut [bool], root: usize, rules: Rules) {
    let counts = count(tree, removed);
    let end = tree.nodes[root].end as usize;
    for index in (root + 1..end).rev() {
        let node = &tree.nodes[index];
        if removed[index] || node.tag == Tag::Text {
            continue;
        }
        if is_clutter(tree, index, &counts[index], rules) {
            removed[index..node.end as usize].fill(true);
        }
    }
}

fn is_clutter(tree: &Tree, index: usize, count: &Counts, rules: Rules) -> bool {
    let node = &tree.nodes[index];
    let weight = class_weight(tree, index, rules);
    match node.tag {
        Tag::Figcaption => true,
        tag if tag.is_heading() => weight < 0.0,
        Tag::Form
        | Tag::Fieldset
        | Tag::Table
        | Tag::Ul
        | Tag::Ol
        | Tag::Div
        | Tag::Section
        | Tag::Header
        | Tag::Dl => {
            if weight < 0.0 && node.marks & mark::BODY == 0 {
                return true;
            }
            if count.commas >= 10 {
                return false;
            }
            let is_list = matches!(node.tag, Tag::Ul | Tag::Ol | Tag::Dl)
                || ratio(count.list_chars, count.chars) > 0.9;
            let density = count.link_density();
            if node.tag == Tag::Table {
                return density > 0.5;
            }
            let headings = ratio(count.heading_chars, count.chars);
            (count.images > 1
                && f64::from(count.paragraphs) / f64::from(count.images) < 0.5
                && !is_list)
                || (!is_list && count.items > count.paragraphs + 100)
                || count.inputs > count.paragraphs / 3
                || (!is_list
                    && headings < 0.9
                    && count.chars < 25
                    && (count.images == 0 || count.images > 2))
                || (!is_list && weight < 25.0 && density > 0.2)
                || (is_list && density > 0.5)
                || (weight >= 25.0 && density > 0.5)
        }
        _ => false,
    }
}
