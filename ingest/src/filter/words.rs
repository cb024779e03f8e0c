//! Words as datatrove counts them: the tokens of spaCy's English rule tokenizer, white space dropped.
//!
//! Text is cut at white space; each piece loses prefixes and suffixes, is looked up among the exceptions (`don't`, `a.m.`), is kept
//! whole when it is a URL, and is split at infixes otherwise. At the end, tokens that spell an exception together become it (`:` `)`).
//! The tables in `data/` are spaCy 3.8's, dumped as ranges and token lists; the rules are in the order of its regular expressions.

use std::collections::HashMap;
use std::sync::LazyLock;

use unicode_segmentation::UnicodeSegmentation;

/// A word of a text and what filters ask of every word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Byte range in the text; Arrow's string views end at 4 GiB, too.
    start: u32,
    end: u32,
    /// Code points.
    pub(super) chars: u32,
    /// Classes that some character has.
    pub(super) some: u16,
    /// Classes that all characters have.
    pub(super) all: u16,
}

impl Word {
    fn new(text: &str, (start, end): Token) -> Self {
        let (mut some, mut all) = (0, u16::MAX);
        let bytes = &text.as_bytes()[start..end];
        let mut chars = bytes.len();
        if bytes.is_ascii() {
            for &byte in bytes {
                let classes = CLASSES.ascii[usize::from(byte)];
                some |= classes;
                all &= classes;
            }
        } else {
            chars = 0;
            for c in text[start..end].chars() {
                let classes = classes(c);
                chars += 1;
                some |= classes;
                all &= classes;
            }
        }
        let narrow = |n: usize| u32::try_from(n).expect("a text is below 4 GiB");
        Self { start: narrow(start), end: narrow(end), chars: narrow(chars), some, all }
    }

    /// Where it lies in the text that it is from.
    pub(super) fn range(&self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Whether it is one character of those that end a sentence for spaCy's sentencizer.
    fn is_sentence_end(&self) -> bool {
        self.chars == 1 && self.all & class::SENTENCE_END != 0
    }
}

/// Returns the words of `text`, in order.
pub(super) fn of(text: &str) -> Vec<Word> {
    let mut tokens = Vec::with_capacity(text.len() / 5);
    TOKENIZER.tokenize(text, &mut tokens);
    tokens.into_iter().map(|token| Word::new(text, token)).collect()
}

/// Returns the words of `text` as Python's `str.split` does: runs of what is no white space.
pub(super) fn split(text: &str) -> Vec<Word> {
    let at = |part: &str| part.as_ptr() as usize - text.as_ptr() as usize;
    text.split(|c| classes(c) & class::SPACE != 0)
        .filter(|part| !part.is_empty())
        .map(|part| Word::new(text, (at(part), at(part) + part.len())))
        .collect()
}

/// Returns the words of `text` between Unicode word boundaries (UAX 29): those that begin with a letter or digit.
pub(super) fn unicode(text: &str) -> Vec<Word> {
    text.split_word_bound_indices()
        .filter(|(_, part)| part.starts_with(is_alphanumeric))
        .map(|(start, part)| Word::new(text, (start, start + part.len())))
        .collect()
}

/// `str.isalnum` of Python 3.11.
pub(crate) fn is_alphanumeric(c: char) -> bool {
    c != '_' && classes(c) & class::WORD != 0
}

/// Number of the words of `text` that fastText sees, between ASCII white space, and that begin with a letter or digit.
pub(crate) fn count_fasttext(text: &str) -> u64 {
    let is_space = |c| matches!(c, ' ' | '\n' | '\r' | '\t' | '\x0b' | '\x0c' | '\0');
    text.split(is_space).filter(|part| part.starts_with(is_alphanumeric)).count() as u64
}

/// Returns the number of sentences that spaCy's sentencizer finds in `text`, whose words are `words`.
///
/// A sentence goes on to the first word behind an end mark that is no punctuation. White space beyond a single space is a
/// token of spaCy's, and no punctuation, so it begins a sentence, too. `start` is where `text` begins in what `words` are from.
pub(super) fn n_sentences(text: &str, start: usize, words: &[Word]) -> u64 {
    let (mut n_sentences, mut has_ended, mut at) = (1, false, 0);
    let mut begin = |has_ended: &mut bool| {
        n_sentences += u64::from(*has_ended);
        *has_ended = false;
    };
    for word in words {
        let range = word.range();
        if !matches!(&text[at..range.start - start], "" | " ") {
            begin(&mut has_ended);
        }
        if word.is_sentence_end() {
            has_ended = true;
        } else if word.all & class::UNICODE_PUNCTUATION == 0 {
            begin(&mut has_ended);
        }
        at = range.end - start;
    }
    if !matches!(&text[at..], "" | " ") {
        begin(&mut has_ended);
    }
    n_sentences
}

/// Bits of a character's classes: the lines of `data/word-characters.tsv`, in order.
pub(crate) mod class {
    pub(crate) const ALPHA: u16 = 1;
    pub(crate) const ALPHA_LOWER: u16 = 1 << 1;
    pub(crate) const ALPHA_UPPER: u16 = 1 << 2;
    pub(crate) const ICON: u16 = 1 << 3;
    pub(crate) const QUOTE: u16 = 1 << 4;
    /// Comes off the front of a word.
    pub(crate) const PREFIX: u16 = 1 << 5;
    /// Comes off its end.
    pub(crate) const SUFFIX: u16 = 1 << 6;
    /// May stand before a full stop that comes off.
    pub(crate) const BEFORE_DOT: u16 = 1 << 7;
    /// `str.isalpha` of Python 3.11.
    pub(crate) const LETTER: u16 = 1 << 8;
    /// `str.isspace` of Python 3.11.
    pub(crate) const SPACE: u16 = 1 << 9;
    /// `PUNCTUATION_SET` of datatrove 0.10.1.
    pub(crate) const PUNCTUATION: u16 = 1 << 10;
    /// `TERMINAL_PUNCTUATION` of datatrove 0.10.1.
    pub(crate) const TERMINAL: u16 = 1 << 11;
    /// Categories P of Python 3.11: spaCy's `is_punct`.
    pub(crate) const UNICODE_PUNCTUATION: u16 = 1 << 12;
    /// Ends a sentence for spaCy's sentencizer.
    pub(crate) const SENTENCE_END: u16 = 1 << 13;
    /// `\w` of Python 3.11.
    pub(crate) const WORD: u16 = 1 << 14;
    /// `\d` of Python 3.11.
    pub(crate) const DECIMAL: u16 = 1 << 15;
    pub(super) const NAMES: [&str; 16] = [
        "alpha",
        "alpha_lower",
        "alpha_upper",
        "icon",
        "quote",
        "prefix",
        "suffix",
        "before_dot",
        "letter",
        "space",
        "punctuation",
        "terminal",
        "unicode_punctuation",
        "sentence_end",
        "word",
        "decimal",
    ];
}

/// Returns the classes of a character.
pub(crate) fn classes(c: char) -> u16 {
    CLASSES.of(c)
}

static CLASSES: LazyLock<Classes> = LazyLock::new(Classes::load);

/// A table of pages of 256 characters; equal pages are stored once.
#[derive(Debug)]
struct Classes {
    ascii: [u16; 128],
    pages: Vec<u16>,
    blocks: Vec<[u16; 256]>,
}

impl Classes {
    fn load() -> Self {
        let mut flat = vec![0u16; 0x11_0000];
        for (bit, line) in include_str!("../../data/word-characters.tsv").lines().enumerate() {
            let (name, ranges) = line.split_once('\t').expect("a name, a tab, ranges");
            assert_eq!(name, class::NAMES[bit], "order of the lines");
            for range in ranges.split(' ') {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let point = |hex| usize::from_str_radix(hex, 16).expect("a code point");
                flat[point(first)..=point(last)]
                    .iter_mut()
                    .for_each(|classes| *classes |= 1 << bit);
            }
        }
        let mut blocks: Vec<[u16; 256]> = Vec::new();
        let mut known: HashMap<[u16; 256], u16> = HashMap::new();
        let page = |block: &[u16]| {
            let block: [u16; 256] = block.try_into().expect("chunks of 256");
            *known.entry(block).or_insert_with(|| {
                blocks.push(block);
                u16::try_from(blocks.len() - 1).expect("at most 4352 pages")
            })
        };
        let pages = flat.chunks_exact(256).map(page).collect();
        let ascii = flat[..128].try_into().expect("128 of them");
        Self { ascii, pages, blocks }
    }

    fn of(&self, c: char) -> u16 {
        let point = u32::from(c) as usize;
        self.blocks[usize::from(self.pages[point >> 8])][point & 255]
    }
}

/// Byte range of a token.
type Token = (usize, usize);

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::load);

#[derive(Debug)]
struct Tokenizer {
    /// Exceptions by their text, with the byte lengths of their tokens.
    specials: HashMap<&'static str, Vec<usize>>,
    /// Says quickly of most words that they are no exception.
    filter: Vec<bool>,
    /// Token sequences that spell an exception, by their first token.
    sequences: HashMap<&'static str, Vec<Vec<&'static str>>>,
    sequence_filter: Vec<bool>,
}

/// A number of a text that few texts share with an exception.
fn sketch(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (first, last) = (usize::from(bytes[0]), usize::from(bytes[bytes.len() - 1]));
    (bytes.len().min(31) << 16 | first << 8 | last) & 0x1F_FFFF
}

impl Tokenizer {
    fn load() -> Self {
        let mut tokenizer = Self {
            specials: HashMap::new(),
            filter: vec![false; 0x20_0000],
            sequences: HashMap::new(),
            sequence_filter: vec![false; 0x20_0000],
        };
        let table = include_str!("../../data/spacy-english-exceptions.tsv");
        let lines = table.lines().map(|line| (line, line.replace('\t', "")));
        let exceptions: Vec<(&'static str, Vec<usize>)> = lines
            .map(|(line, joined)| (&*joined.leak(), line.split('\t').map(str::len).collect()))
            .collect();
        // Matches of these are looked for at the end: those that affixes or infixes would take apart.
        for (text, parts) in &exceptions {
            let mut tokens = Vec::new();
            tokenizer.piece(text, 0, false, &mut tokens);
            if tokens.len() > 1 {
                let sequence: Vec<&'static str> =
                    tokens.iter().map(|&(start, end)| &text[start..end]).collect();
                tokenizer.sequence_filter[sketch(sequence[0])] = true;
                tokenizer.sequences.entry(sequence[0]).or_default().push(sequence);
            }
            tokenizer.filter[sketch(text)] = true;
            assert_eq!(parts.iter().sum::<usize>(), text.len());
        }
        tokenizer.specials = exceptions.into_iter().collect();
        tokenizer
    }

    fn special(&self, text: &str) -> Option<&Vec<usize>> {
        if text.is_empty() || !self.filter[sketch(text)] {
            return None;
        }
        self.specials.get(text)
    }

    /// Fills `tokens` with those of `text`, in order.
    fn tokenize(&self, text: &str, tokens: &mut Vec<Token>) {
        tokens.clear();
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let start = at;
            let (mut is_plain, mut width) = (true, 0);
            while at < bytes.len() {
                let byte = bytes[at];
                if byte.is_ascii_alphabetic() {
                    at += 1;
                    continue;
                }
                if byte < 0x80 {
                    if matches!(byte, b'\t'..=b'\r' | 0x1c..=0x1f | b' ') {
                        width = 1;
                        break;
                    }
                    at += 1;
                } else {
                    let c = text[at..].chars().next().expect("a character boundary");
                    if classes(c) & class::SPACE != 0 {
                        width = c.len_utf8();
                        break;
                    }
                    at += c.len_utf8();
                }
                is_plain = false;
            }
            if at > start {
                let piece = &text[start..at];
                match self.special(piece) {
                    Some(parts) => push_parts(parts, start, tokens),
                    // Letters alone have no affixes.
                    None if is_plain => tokens.push((start, at)),
                    None => self.piece(piece, start, true, tokens),
                }
            }
            at += width;
        }
        self.join_sequences(text, tokens);
    }

    /// Tokenizes a piece without white space that begins at `offset`.
    fn piece(&self, piece: &str, offset: usize, with_specials: bool, tokens: &mut Vec<Token>) {
        let special = |text: &str| if with_specials { self.special(text) } else { None };
        let (mut start, mut end) = (0, piece.len());
        let mut suffixes: Vec<Token> = Vec::new();
        loop {
            let rest = &piece[start..end];
            if rest.is_empty() || special(rest).is_some() {
                break;
            }
            let prefix = prefix_bytes(rest);
            if prefix > 0 && special(&rest[prefix..]).is_some() {
                tokens.push((offset + start, offset + start + prefix));
                start += prefix;
                break;
            }
            let suffix = suffix_bytes(&rest[prefix..]);
            if suffix > 0 && special(&rest[..rest.len() - suffix]).is_some() {
                suffixes.push((offset + end - suffix, offset + end));
                end -= suffix;
                break;
            }
            if prefix == 0 && suffix == 0 {
                break;
            }
            if prefix > 0 {
                tokens.push((offset + start, offset + start + prefix));
                start += prefix;
            }
            if suffix > 0 {
                suffixes.push((offset + end - suffix, offset + end));
                end -= suffix;
            }
        }
        let rest = &piece[start..end];
        if !rest.is_empty() {
            match special(rest) {
                Some(parts) => push_parts(parts, offset + start, tokens),
                None if is_url(rest) => tokens.push((offset + start, offset + end)),
                None => split_infixes(rest, offset + start, tokens),
            }
        }
        tokens.extend(suffixes.iter().rev());
    }

    /// Replaces runs of tokens that spell an exception by its own tokens: the longest first, then the leftmost.
    fn join_sequences(&self, text: &str, tokens: &mut Vec<Token>) {
        let mut found: Vec<(usize, usize)> = Vec::new();
        for (index, &(start, end)) in tokens.iter().enumerate() {
            let first = &text[start..end];
            if !self.sequence_filter[sketch(first)] {
                continue;
            }
            let Some(sequences) = self.sequences.get(first) else { continue };
            for sequence in sequences {
                let is_here = tokens.len() - index >= sequence.len()
                    && sequence.iter().enumerate().skip(1).all(|(i, wanted)| {
                        let (before, (start, end)) = (tokens[index + i - 1].1, tokens[index + i]);
                        &text[start..end] == *wanted && matches!(&text[before..start], "" | " ")
                    });
                if is_here {
                    found.push((index, index + sequence.len()));
                }
            }
        }
        if found.is_empty() {
            return;
        }
        found.sort_by_key(|&(first, last)| (std::cmp::Reverse(last - first), first));
        let mut seen = vec![false; tokens.len()];
        let mut joined: Vec<(usize, usize)> = Vec::new();
        for (first, last) in found {
            if !seen[first] && !seen[last - 1] {
                joined.push((first, last));
            }
            seen[first..last].fill(true);
        }
        joined.sort_unstable();
        let old = std::mem::take(tokens);
        let mut at = 0;
        for (first, last) in joined {
            tokens.extend_from_slice(&old[at..first]);
            let (start, end) = (old[first].0, old[last - 1].1);
            match self.specials.get(&text[start..end]) {
                Some(parts) => push_parts(parts, start, tokens),
                None => tokens.extend_from_slice(&old[first..last]),
            }
            at = last;
        }
        tokens.extend_from_slice(&old[at..]);
    }
}

fn push_parts(parts: &[usize], mut start: usize, tokens: &mut Vec<Token>) {
    for length in parts {
        tokens.push((start, start + length));
        start += length;
    }
}

/// Bytes of the prefix that comes off `text`, 0 for none.
fn prefix_bytes(text: &str) -> usize {
    let Some(first) = text.chars().next() else { return 0 };
    let second = text.as_bytes().get(first.len_utf8()).copied();
    match first {
        '+' if second.is_none_or(|byte| !byte.is_ascii_digit()) => return 1,
        '.' if second == Some(b'.') => return text.len() - text.trim_start_matches('.').len(),
        'C' | 'A' if second == Some(b'$') => return 2,
        'U' if text.starts_with("US$") => return 3,
        _ => {}
    }
    if classes(first) & (class::PREFIX | class::ICON) != 0 { first.len_utf8() } else { 0 }
}

/// Bytes of the suffix that comes off `text`, 0 for none: the longest, as a search from the left finds it.
fn suffix_bytes(text: &str) -> usize {
    let Some(last) = text.chars().next_back() else { return 0 };
    let before = &text[..text.len() - last.len_utf8()];
    let previous = before.chars().next_back();
    let classes_before = previous.map_or(0, classes);
    match last {
        '.' => {
            let dots = text.len() - text.trim_end_matches('.').len();
            if dots > 1 {
                return dots;
            }
            let is_degree = before.ends_with(['F', 'f', 'C', 'c', 'K', 'k'])
                && before[..before.len() - 1].ends_with('°');
            let are_upper = classes_before & class::ALPHA_UPPER != 0
                && before
                    .chars()
                    .rev()
                    .nth(1)
                    .is_some_and(|c| classes(c) & class::ALPHA_UPPER != 0);
            return usize::from(is_degree || are_upper || classes_before & class::BEFORE_DOT != 0);
        }
        's' | 'S' if matches!(previous, Some('\'' | '’')) => {
            return 1 + previous.map_or(0, char::len_utf8);
        }
        '…' if previous == Some('…') => return 2 * last.len_utf8(),
        '+' => return usize::from(previous.is_some_and(|c| c.is_ascii_digit())),
        _ => {}
    }
    if classes(last) & (class::SUFFIX | class::ICON) != 0 {
        return last.len_utf8();
    }
    after_digit(text)
}

/// Units and currencies that come off behind a digit (`UNITS`, `CURRENCY` of spaCy 3.8; `тбكم` is as it is there).
const AFTER_DIGIT: &[&str] = &[
    "km",
    "km²",
    "km³",
    "m",
    "m²",
    "m³",
    "dm",
    "dm²",
    "dm³",
    "cm",
    "cm²",
    "cm³",
    "mm",
    "mm²",
    "mm³",
    "ha",
    "µm",
    "nm",
    "yd",
    "in",
    "ft",
    "kg",
    "g",
    "mg",
    "µg",
    "t",
    "lb",
    "oz",
    "m/s",
    "km/h",
    "kmh",
    "mph",
    "hPa",
    "Pa",
    "mbar",
    "mb",
    "MB",
    "kb",
    "KB",
    "gb",
    "GB",
    "tb",
    "TB",
    "T",
    "G",
    "M",
    "K",
    "%",
    "км",
    "км²",
    "км³",
    "м",
    "м²",
    "м³",
    "дм",
    "дм²",
    "дм³",
    "см",
    "см²",
    "см³",
    "мм",
    "мм²",
    "мм³",
    "нм",
    "кг",
    "г",
    "мг",
    "м/с",
    "км/ч",
    "кПа",
    "Па",
    "мбар",
    "Кб",
    "КБ",
    "кб",
    "Мб",
    "МБ",
    "мб",
    "Гб",
    "ГБ",
    "гб",
    "Тб",
    "ТБ",
    "тбكم",
    "كم²",
    "كم³",
    "م",
    "م²",
    "م³",
    "سم",
    "سم²",
    "سم³",
    "مم",
    "مم²",
    "مم³",
    "كم",
    "غرام",
    "جرام",
    "جم",
    "كغ",
    "ملغ",
    "كوب",
    "اكواب",
    "$",
    "£",
    "€",
    "¥",
    "฿",
    "US$",
    "C$",
    "A$",
    "₽",
    "﷼",
    "₴",
    "₠",
    "₡",
    "₢",
    "₣",
    "₤",
    "₥",
    "₦",
    "₧",
    "₨",
    "₩",
    "₪",
    "₫",
    "₭",
    "₮",
    "₯",
    "₰",
    "₱",
    "₲",
    "₳",
    "₵",
    "₶",
    "₷",
    "₸",
    "₹",
    "₺",
    "₻",
    "₼",
    "₾",
    "₿",
];

fn after_digit(text: &str) -> usize {
    // The unit begins right behind the last digit.
    let Some(digit) = text.as_bytes().iter().rposition(u8::is_ascii_digit) else { return 0 };
    let unit = &text[digit + 1..];
    if AFTER_DIGIT.contains(&unit) { unit.len() } else { 0 }
}

/// Pushes what stands between the infixes of `text`, and the infixes.
fn split_infixes(text: &str, offset: usize, tokens: &mut Vec<Token>) {
    let mut start = 0;
    let mut at = 0;
    let mut before: Option<char> = None;
    while let Some(c) = text[at..].chars().next() {
        let length = infix_bytes(&text[at..], c, before);
        if length == 0 {
            before = Some(c);
            at += c.len_utf8();
            continue;
        }
        // An infix at the very start is no cut: it stays with what follows.
        if at > 0 {
            if at > start {
                tokens.push((offset + start, offset + at));
            }
            tokens.push((offset + at, offset + at + length));
            start = at + length;
        }
        before = text[..at + length].chars().next_back();
        at += length;
    }
    if start < text.len() {
        tokens.push((offset + start, offset + text.len()));
    }
}

/// Bytes of the infix that `rest` begins with, 0 for none; `c` is its first character, `before` the one before it.
fn infix_bytes(rest: &str, c: char, before: Option<char>) -> usize {
    if c.is_ascii_alphanumeric() {
        return 0;
    }
    let next_of = |bytes: usize| rest[bytes..].chars().next();
    let is = |c: Option<char>, wanted: u16| c.is_some_and(|c| classes(c) & wanted != 0);
    let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    match c {
        '.' => {
            if rest.starts_with("..") {
                return rest.len() - rest.trim_start_matches('.').len();
            }
            let is_border = is(before, class::ALPHA_LOWER | class::QUOTE)
                && is(next_of(1), class::ALPHA_UPPER | class::QUOTE);
            usize::from(is_border)
        }
        '…' => c.len_utf8(),
        ',' => usize::from(is(before, class::ALPHA) && is(next_of(1), class::ALPHA)),
        '+' | '*' | '^' => {
            usize::from(is_digit(before) && (is_digit(next_of(1)) || next_of(1) == Some('-')))
        }
        ':' | '<' | '>' | '=' | '/' => usize::from(
            (is(before, class::ALPHA) || is_digit(before)) && is(next_of(1), class::ALPHA),
        ),
        '-' | '–' | '—' | '~' => {
            if c == '-' && is_digit(before) && (is_digit(next_of(1)) || next_of(1) == Some('-')) {
                return 1;
            }
            if !is(before, class::ALPHA) && !is_digit(before) {
                return 0;
            }
            let hyphens = ["-", "–", "—", "--", "---", "——", "~"];
            let fits = |hyphen: &&&str| {
                rest.starts_with(**hyphen) && is(next_of(hyphen.len()), class::ALPHA)
            };
            hyphens.iter().find(fits).map_or(0, |hyphen| hyphen.len())
        }
        _ if classes(c) & class::ICON != 0 => c.len_utf8(),
        _ => 0,
    }
}

/// Whether `text` is a URL, or looks like a host: spaCy's `URL_MATCH`.
///
/// Scheme and user are optional; the host is a public IPv4 address or labels and a lower-case top-level domain.
fn is_url(text: &str) -> bool {
    let bytes = text.as_bytes();
    if !bytes
        .windows(2)
        .any(|pair| pair[0] == b'.' && (pair[1] >= 0x80 || pair[1].is_ascii_alphanumeric()))
    {
        return false;
    }
    if is_host_and_path(text) {
        return true;
    }
    if let Some(colon) = text.find("://") {
        let is_scheme = |c: char| c.is_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
        let scheme = &text[..colon];
        if scheme.chars().count() >= 2
            && scheme.chars().all(is_scheme)
            && is_host_and_path(&text[colon + 3..])
        {
            return true;
        }
    }
    memchr::memchr_iter(b'@', bytes).any(|at| at > 0 && is_host_and_path(&text[at + 1..]))
}

fn is_host_and_path(text: &str) -> bool {
    let end = text.find([':', '/', '?', '#']).unwrap_or(text.len());
    let (host, mut rest) = text.split_at(end);
    if let Some(port) = rest.strip_prefix(':') {
        let is_border = |c: char| matches!(c, '/' | '?' | '#');
        let digits = port.find(is_border).unwrap_or(port.len());
        let count = port[..digits].chars().count();
        if !(2..=5).contains(&count) || !port[..digits].chars().all(char::is_numeric) {
            return false;
        }
        rest = &port[digits..];
    }
    (rest.is_empty() || rest.starts_with(['/', '?', '#']))
        && (is_domain(host) || is_public_ipv4(host))
}

fn is_domain(host: &str) -> bool {
    let Some((labels, top)) = host.rsplit_once('.') else { return false };
    let is_inner = |c: char| c.is_ascii_alphanumeric() || ('\u{a1}'..='\u{ffff}').contains(&c);
    let is_label = |label: &str| {
        label.starts_with(is_inner)
            && label.ends_with(is_inner)
            && label.chars().count() <= 64
            && label.chars().all(|c| is_inner(c) || c == '_' || c == '-')
    };
    (2..=63).contains(&top.chars().count())
        && top.chars().all(|c| classes(c) & class::ALPHA_LOWER != 0)
        && labels.split('.').all(is_label)
}

/// As the pattern has it: no leading zero in the outer octets, 1 to 223 and 1 to 254, no private network.
fn is_public_ipv4(host: &str) -> bool {
    let octets: Vec<&str> = host.split('.').collect();
    let [first, second, third, fourth] = octets[..] else { return false };
    let value = |octet: &str| {
        let is_number =
            (1..=3).contains(&octet.len()) && octet.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { octet.parse::<u16>().ok() } else { None }
    };
    let (Some(a), Some(b), Some(c), Some(d)) =
        (value(first), value(second), value(third), value(fourth))
    else {
        return false;
    };
    let is_private = matches!(a, 10 | 127)
        || (a == 169 && second == "254")
        || (a == 192 && second == "168")
        || (a == 172 && (16..=31).contains(&b) && second.len() == 2);
    !is_private
        && !first.starts_with('0')
        && !fourth.starts_with('0')
        && (1..=223).contains(&a)
        && b <= 255
        && c <= 255
        && (1..=254).contains(&d)
}

#[cfg(test)]
mod tests;
