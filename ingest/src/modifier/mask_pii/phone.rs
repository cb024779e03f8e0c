//! Phone numbers: international ones by calling code and length, national ones by forms that are nothing else, others behind a word.

use std::sync::LazyLock;

use super::{Hit, Kind, Number, char_before, context_after, context_before, has_word, is_bounded};

/// Calling codes and the lengths of national numbers behind them, from libphonenumber's metadata.
static LENGTHS: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let mut lengths = vec![0; 1000];
    for line in include_str!("../../../data/calling-codes.tsv").lines() {
        let (code, list) = line.split_once('\t').expect("two columns in `calling-codes.tsv`");
        let code: usize = code.parse().expect("a calling code");
        for length in list.split(',') {
            lengths[code] |= 1 << length.parse::<u32>().expect("a length");
        }
    }
    lengths
});

/// E.164: no number has more digits, calling code and all.
const DIGITS_MAX: usize = 15;

/// A run of digits: byte range, and what stands before it.
struct Group {
    start: usize,
    end: usize,
    mark: &'static str,
}

impl Group {
    fn len(&self) -> usize {
        self.end - self.start
    }
}

/// The phone number whose first digit is that of `number`.
pub(super) fn find(text: &str, number: &Number) -> Option<Hit> {
    let groups = groups(text, number);
    let before = &text[..number.start];
    let hit = |start: usize, end: usize, rule| {
        // A number in parentheses is replaced without them, one of whose parts is in them with both.
        let end = end + extension(&text[end..]);
        is_bounded(text, start, end).then_some(Hit { start, end, kind: Kind::Phone, rule })
    };
    if before.ends_with('+') || before.ends_with("+(") {
        let start = number.start - before.len() + before.trim_end_matches(['+', '(']).len();
        let end = international(text, &groups)?;
        return hit(start, end, "phone_international");
    }
    let start = number.start - usize::from(before.ends_with('('));
    if start < number.start && char_before(text, start).is_some_and(char::is_alphanumeric) {
        // `f(555…` is a call with a number.
        return None;
    }
    if is_in_series(text, start, groups.last()?.end) {
        return None;
    }
    // 00 and 001 in place of the plus sign, where groups follow.
    if text[number.start..].starts_with("00")
        && groups.len() > 1
        && let Some(end) = international(text, &without_prefix(groups.as_slice()))
    {
        return hit(start, end, "phone_international");
    }
    if let Some(end) =
        north_american(text, &groups).or_else(|| trunk(text, &groups, start < number.start))
    {
        return hit(start, end, "phone");
    }
    let end = said(text, start, &groups)?;
    hit(start, end, "phone")
}

/// Whether numbers go on a blank away at either end: a table, a dump of bytes.
fn is_in_series(text: &str, start: usize, end: usize) -> bool {
    let is_digit = |c: char| c.is_ascii_digit();
    text[..start].strip_suffix(' ').is_some_and(|before| before.ends_with(is_digit))
        || text[end..].strip_prefix(' ').is_some_and(|after| after.starts_with(is_digit))
}

/// The groups of `number` up to what does not stand inside of a phone number.
fn groups(text: &str, number: &Number) -> Vec<Group> {
    let bytes = text.as_bytes();
    let mut at = number.start + number.run;
    let mut groups = vec![Group { start: number.start, end: at, mark: "" }];
    while at < number.end {
        let n_marks =
            bytes[at..number.end].iter().take_while(|byte| !byte.is_ascii_digit()).count();
        let mark = match &text[at..at + n_marks] {
            " " => " ",
            "-" | " - " => "-",
            "." => ".",
            "/" | " / " => "/",
            ") " | ")" => ")",
            ")-" | ").-" => ")-",
            " (" | "(" => "(",
            _ => break,
        };
        let start = at + n_marks;
        let run = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        groups.push(Group { start, end: start + run, mark });
        at = start + run;
    }
    groups
}

/// The groups behind the prefix 00, which may be a group, or begin the first one.
fn without_prefix(groups: &[Group]) -> Vec<Group> {
    let first = &groups[0];
    let rest = groups[1..].iter().map(|group| Group { mark: group.mark, ..*group });
    let head =
        (first.len() > 2).then(|| Group { start: first.start + 2, end: first.end, mark: "" });
    head.into_iter().chain(rest).collect()
}

/// Where a number ends that begins with its calling code: the longest one that the code allows.
fn international(text: &str, groups: &[Group]) -> Option<usize> {
    // `(0)` behind the calling code is dialled at home alone.
    let mut digits = String::new();
    let mut ends = Vec::new();
    for (place, group) in groups.iter().enumerate() {
        let run = &text[group.start..group.end];
        if !(place > 0 && run == "0" && group.mark == "(") {
            digits.push_str(run);
        }
        ends.push((digits.len(), group.end));
    }
    let code_length = (1..=3).find(|&n| digits.get(..n).is_some_and(|code| lengths(code) != 0))?;
    let (code, national) = digits.split_at(code_length);
    ends.into_iter().rev().find_map(|(n_digits, end)| {
        let length = n_digits.checked_sub(code_length)?;
        let fits = n_digits <= DIGITS_MAX && lengths(code) & 1 << length != 0;
        // Shorter ones are special numbers of a network.
        let is_plausible = match code {
            "1" => is_north_american(&national[..length]),
            _ => n_digits >= 8,
        };
        (fits && is_plausible).then_some(end)
    })
}

fn lengths(code: &str) -> u32 {
    code.parse::<usize>().map_or(0, |code| LENGTHS[code])
}

/// Area codes and exchanges of the North American plan begin with 2 to 9.
fn is_north_american(digits: &str) -> bool {
    let can_begin = |at: usize| digits.as_bytes()[at] >= b'2';
    digits.len() == 10 && can_begin(0) && can_begin(3)
}

/// Where a number of the North American plan ends: `(212) 555-0142`, `1-212-555-0142`, with marks between area, exchange and line.
fn north_american(text: &str, groups: &[Group]) -> Option<usize> {
    let groups = match groups {
        [one, rest @ ..] if &text[one.start..one.end] == "1" && !rest.is_empty() => rest,
        _ => groups,
    };
    let n_groups = match groups.iter().map(Group::len).collect::<Vec<_>>().as_slice() {
        [3, 3, 4, ..] => 3,
        [3, 7, ..] if groups[1].mark == ")" => 2,
        _ => return None,
    };
    let digits: String =
        groups[..n_groups].iter().map(|group| &text[group.start..group.end]).collect();
    let marks: Vec<&str> = groups[1..n_groups].iter().map(|group| group.mark).collect();
    let is_written = matches!(
        marks.as_slice(),
        [")" | ")-", ..] | ["-", "-"] | [".", "."] | [" ", "-"] | ["/", "-"]
    );
    (is_written && is_north_american(&digits)).then(|| groups[n_groups - 1].end)
}

/// Where a number ends that begins with the 0 before area codes, in the two forms that are no date and no version: in pairs, as in France,
/// or with the area code in parentheses.
fn trunk(text: &str, groups: &[Group], has_parenthesis: bool) -> Option<usize> {
    if !text[groups[0].start..].starts_with('0') {
        return None;
    }
    let has = |mark: &str| groups.get(1).is_some_and(|group| group.mark == mark);
    let is_pairs = groups.len() == 5
        && groups.iter().all(|group| group.len() == 2)
        && groups[1..].iter().all(|group| group.mark == groups[1].mark)
        && (has(" ") || has(".") || has("-"))
        && text.as_bytes()[groups[0].start + 1] != b'0'
        // Bytes of small numbers.
        && !groups.iter().all(|group| text.as_bytes()[group.start] == b'0');
    let n_digits: usize = groups.iter().map(Group::len).sum();
    let is_area = has_parenthesis
        && has(")")
        && (9..=12).contains(&n_digits)
        && (2..=6).contains(&groups[0].len());
    (is_pairs || is_area).then(|| groups[groups.len() - 1].end)
}

/// Words that a number stands behind, or before, when it is one to call, in the languages of the web's larger parts.
const PHONE_WORDS: [&str; 38] = [
    "phone",
    "phones",
    "telephone",
    "tel",
    "telephon",
    "telefon",
    "téléphone",
    "telefono",
    "teléfono",
    "telefone",
    "telefoon",
    "telefax",
    "fax",
    "mobile",
    "mobil",
    "móvil",
    "mob",
    "cell",
    "cellphone",
    "handy",
    "gsm",
    "whatsapp",
    "hotline",
    "helpline",
    "toll-free",
    "toll free",
    "landline",
    "тел",
    "电话",
    "電話",
    "전화",
    "call us",
    "call me",
    "sms",
    "text me",
    "text us",
    "ring me",
    "dial",
];

/// Words that say the same of a number in groups, and too little of a bare one.
const TALK_WORDS: [&str; 14] = [
    "call",
    "calls",
    "called",
    "calling",
    "message",
    "messages",
    "answering",
    "answer",
    "contact",
    "desk",
    "office",
    "reach",
    "registered",
    "home",
];

/// Where a number ends that only the words around it tell from others.
fn said(text: &str, start: usize, groups: &[Group]) -> Option<usize> {
    let n_digits: usize = groups.iter().map(Group::len).sum();
    let end = groups.last()?.end;
    let is_short = groups.len() > 1 && groups.iter().any(|group| group.len() < 2);
    if !(7..=13).contains(&n_digits) || is_short || is_date(text, groups) {
        return None;
    }
    let before = context_before(text, start, 40);
    // Words of the same line or of the label above it, and none with another number between.
    let before = before.rsplit(|c: char| c.is_ascii_digit()).next().unwrap_or("");
    let before =
        before.rsplitn(3, '\n').take(2).fold(String::new(), |all, line| format!("{line} {all}"));
    let after = context_after(text, end, 12);
    let after = after.trim_start_matches([' ', '-', '(', ',', '\t']);
    let follows = |words: &[&str]| {
        words.iter().any(|word| {
            after.strip_prefix(word).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
        })
    };
    let label = before.trim_end().strip_suffix(':');
    let is_labelled =
        label.is_some_and(|label| TALK_WORDS.iter().any(|word| label.ends_with(word)));
    let has_slash = groups.iter().any(|group| group.mark == "/");
    let is_said = has_word(&before, &PHONE_WORDS) || follows(&PHONE_WORDS);
    let is_talked_of = has_word(&before, &TALK_WORDS) || follows(&TALK_WORDS);
    (is_said || (is_talked_of && !has_slash && (groups.len() > 1 || is_labelled))).then_some(end)
}

/// Whether the groups are a day, or two years.
fn is_date(text: &str, groups: &[Group]) -> bool {
    let values: Vec<u32> = groups
        .iter()
        .map(|group| text[group.start..group.end].parse().unwrap_or(u32::MAX))
        .collect();
    let is_year = |value: u32| (1500..2200).contains(&value);
    match values.as_slice() {
        [a, b, c] => (is_year(*a) && *b <= 12 && *c <= 31) || (is_year(*c) && *a <= 31 && *b <= 31),
        [a, b] => is_year(*a) && is_year(*b) && groups.iter().all(|group| group.len() == 4),
        _ => false,
    }
}

/// Bytes of an extension at the beginning of `text`: `x123`, ` ext. 123`.
fn extension(text: &str) -> usize {
    let trimmed = text.trim_start_matches(' ');
    let n_blanks = text.len() - trimmed.len();
    let n_mark = ["extension ", "ext. ", "ext.", "ext ", "x"]
        .iter()
        .find(|mark| trimmed.starts_with(**mark));
    let Some(mark) = n_mark.filter(|_| n_blanks <= 1) else { return 0 };
    let rest = trimmed[mark.len()..].trim_start_matches(' ');
    let n_digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    if (1..=6).contains(&n_digits) { text.len() - rest.len() + n_digits } else { 0 }
}
