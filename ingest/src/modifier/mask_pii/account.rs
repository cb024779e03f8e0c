//! Numbers of bank accounts and payment cards.

use super::{Hit, Kind, Number, context_before, has_word, is_bounded};

/// Length of an IBAN per country: the registry of ISO 13616 (SWIFT, release 98).
#[rustfmt::skip]
const IBAN_LENGTHS: &[(&str, usize)] = &[
    ("AD", 24), ("AE", 23), ("AL", 28), ("AT", 20), ("AZ", 28), ("BA", 20), ("BE", 16), ("BG", 22),
    ("BH", 22), ("BI", 27), ("BR", 29), ("BY", 28), ("CH", 21), ("CR", 22), ("CY", 28), ("CZ", 24),
    ("DE", 22), ("DJ", 27), ("DK", 18), ("DO", 28), ("EE", 20), ("EG", 29), ("ES", 24), ("FI", 18),
    ("FK", 18), ("FO", 18), ("FR", 27), ("GB", 22), ("GE", 22), ("GI", 23), ("GL", 18), ("GR", 27),
    ("GT", 28), ("HR", 21), ("HU", 28), ("IE", 22), ("IL", 23), ("IQ", 23), ("IS", 26), ("IT", 27),
    ("JO", 30), ("KW", 30), ("KZ", 20), ("LB", 28), ("LC", 32), ("LI", 21), ("LT", 20), ("LU", 20),
    ("LV", 21), ("LY", 25), ("MC", 27), ("MD", 24), ("ME", 22), ("MK", 19), ("MN", 20), ("MR", 27),
    ("MT", 31), ("MU", 30), ("NI", 28), ("NL", 18), ("NO", 15), ("OM", 23), ("PK", 24), ("PL", 28),
    ("PS", 29), ("PT", 25), ("QA", 29), ("RO", 24), ("RS", 22), ("RU", 33), ("SA", 24), ("SC", 31),
    ("SD", 18), ("SE", 24), ("SI", 19), ("SK", 24), ("SM", 27), ("SO", 23), ("ST", 25), ("SV", 28),
    ("TL", 23), ("TN", 24), ("TR", 26), ("UA", 29), ("VA", 22), ("VG", 24), ("XK", 20), ("YE", 30),
];

/// The IBAN whose check digits begin at `digits`: two letters before, in one case, and as many signs behind as its country writes, in
/// one run or in groups of four.
pub(super) fn iban(text: &str, digits: usize) -> Option<Hit> {
    let start = digits.checked_sub(2)?;
    let country = text.get(start..digits)?;
    let is_upper = country.bytes().all(|byte| byte.is_ascii_uppercase());
    if !is_upper && !country.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return None;
    }
    let country = country.to_ascii_uppercase();
    let (_, length) = IBAN_LENGTHS.iter().find(|(known, _)| *known == country)?;
    let mut compact = Vec::with_capacity(*length);
    let mut end = start;
    for byte in text[start..].bytes() {
        match byte {
            b'0'..=b'9' => compact.push(byte),
            b'A'..=b'Z' if is_upper => compact.push(byte),
            b'a'..=b'z' if !is_upper => compact.push(byte.to_ascii_uppercase()),
            b' ' | b'-' if compact.len() % 4 == 0 && text.as_bytes()[end - 1] != byte => {}
            _ => return None,
        }
        end += 1;
        if compact.len() == *length {
            break;
        }
    }
    let is_valid = compact.len() == *length && remainder_97(&compact) == 1;
    (is_valid && is_bounded(text, start, end)).then_some(Hit {
        start,
        end,
        kind: Kind::Iban,
        rule: "iban",
    })
}

/// The number that `compact`, capitals and digits, stands for by ISO 7064, its first four signs last, modulo 97.
pub(super) fn remainder_97(compact: &[u8]) -> u32 {
    compact[4..].iter().chain(&compact[..4]).fold(0, |sum, &byte| match byte {
        b'0'..=b'9' => (sum * 10 + u32::from(byte - b'0')) % 97,
        _ => (sum * 100 + u32::from(byte - b'A') + 10) % 97,
    })
}

/// Length and leading digits of the card networks (ISO/IEC 7812): American Express, Diners, Discover, JCB, Mastercard, Visa. Where a
/// word says that it is a card, Maestro and the old numbers of JCB too, which are like numbers of anything.
fn is_issuer(digits: &[u8], is_said: bool) -> bool {
    let leading =
        |n: usize| digits[..n].iter().fold(0u32, |value, &digit| value * 10 + u32::from(digit));
    match (digits.len(), leading(1)) {
        (13 | 16 | 19, 4) => true,
        (15, 3) => matches!(leading(2), 34 | 37),
        (14, 3) => matches!(leading(3), 300..=305) || matches!(leading(2), 36 | 38 | 39),
        (16, 3) => (3528..=3589).contains(&leading(4)) || (is_said && leading(4) >= 3500),
        (16, 5) if (51..=55).contains(&leading(2)) => true,
        (16, 2) => (2221..=2720).contains(&leading(4)),
        (16..=19, 6)
            if leading(4) == 6011 || (644..=649).contains(&leading(3)) || leading(2) == 65 =>
        {
            true
        }
        (12..=19, 5 | 6) if is_said => leading(2) == 50 || leading(2) >= 56,
        (15, _) if is_said => matches!(leading(4), 1800 | 2131),
        _ => false,
    }
}

/// Words that say that a number is one of a card.
const CARD_WORDS: [&str; 20] = [
    "card",
    "cards",
    "cc",
    "visa",
    "master",
    "mastercard",
    "amex",
    "american express",
    "credit",
    "creditcard",
    "debit",
    "payment",
    "diners",
    "discover",
    "jcb",
    "maestro",
    "karte",
    "kreditkarte",
    "carte",
    "tarjeta",
];

/// The number of a payment card that begins at `number`.
pub(super) fn card(text: &str, number: &Number) -> Option<Hit> {
    let start = number.start;
    let groups = groups(text, number);
    let lengths: Vec<usize> = groups.iter().map(|group| group.1 - group.0).collect();
    // Groups as cards print them, or none at all next to a word that says what it is.
    let n_groups = match lengths.as_slice() {
        [4, 4, 4, 4, 1..=3, ..] => 5,
        [4, 4, 4, 1..=4, ..] => 4,
        [4, 6, 4 | 5, ..] => 3,
        [12..=19, ..] => 1,
        _ => return None,
    };
    let end = groups[n_groups - 1].1;
    let digits: Vec<u8> =
        text[start..end].bytes().filter(u8::is_ascii_digit).map(|byte| byte - b'0').collect();
    if !is_luhn(&digits) || !is_bounded(text, start, end) {
        return None;
    }
    let is_said = has_word(&context_before(text, start, 60), &CARD_WORDS);
    (is_issuer(&digits, is_said) && (is_said || n_groups > 1)).then_some(Hit {
        start,
        end,
        kind: Kind::Card,
        rule: "card",
    })
}

/// The runs of digits of `number` that stand one blank or one hyphen apart, always the same.
fn groups(text: &str, number: &Number) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let mark =
        bytes.get(number.start + number.run).copied().filter(|byte| matches!(byte, b' ' | b'-'));
    let mut groups = vec![(number.start, number.start + number.run)];
    let mut at = number.start + number.run;
    while at < number.end && Some(bytes[at]) == mark {
        let run = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if run == 0 {
            break;
        }
        groups.push((at + 1, at + 1 + run));
        at += 1 + run;
    }
    groups
}

/// Whether the last of `digits` is the check digit of the others (ISO/IEC 7812, annex B).
pub(super) fn is_luhn(digits: &[u8]) -> bool {
    let doubled = |digit: u8| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| u32::from(if place % 2 == 1 { doubled(digit) } else { digit }))
        .sum();
    sum.is_multiple_of(10)
}
