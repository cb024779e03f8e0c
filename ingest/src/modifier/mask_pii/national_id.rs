//! Numbers that a state gives to one person: their forms, and the check that tells them from other numbers of the form.
//!
//! Adding one is a line in [`IDS`] and its check. A form that is written like nothing else, with a check digit or a date in it, counts
//! alone; others count only where one of the id's words stands near.

use std::collections::HashMap;

use super::account::is_luhn;
use super::{Hit, Kind, Number, context_after, context_before, has_word, is_bounded};
use crate::Result;
use crate::filter::config;

struct Id {
    name: &'static str,
    /// Forms that count alone: `9` is a digit, `A` a capital, others are themselves.
    alone: &'static [&'static str],
    /// Forms that count near one of `words`.
    said: &'static [&'static str],
    /// In lower case.
    words: &'static [&'static str],
    /// Of the digits and capitals alone, which have one of the forms.
    is_valid: fn(&[u8]) -> bool,
}

/// Sorted by name, which begins with the state's code (ISO 3166).
#[rustfmt::skip]
const IDS: &[Id] = &[
    Id { name: "ar_cuit", alone: &["99-99999999-9"], said: &["99999999999"], words: &["cuit", "cuil"], is_valid: ar_cuit },
    Id { name: "au_tfn", alone: &[], said: &["999 999 999", "999999999", "999-999-999"], words: &["tfn", "tax file"], is_valid: |id| weighted(id, &[1, 4, 3, 7, 5, 8, 6, 9, 10]).is_multiple_of(11) },
    Id { name: "be_rrn", alone: &["99.99.99-999.99"], said: &["99999999999"], words: &["rijksregister", "registre national", "national register", "nationalregister", "niss", "insz"], is_valid: be_rrn },
    Id { name: "br_cnpj", alone: &["99.999.999/9999-99"], said: &["99999999999999"], words: &["cnpj"], is_valid: br_cnpj },
    Id { name: "br_cpf", alone: &["999.999.999-99"], said: &["99999999999"], words: &["cpf"], is_valid: br_cpf },
    Id { name: "ca_sin", alone: &[], said: &["999 999 999", "999-999-999", "999999999"], words: &["sin", "social insurance", "assurance sociale", "nas"], is_valid: |id| !matches!(id[0], b'0' | b'8') && luhn(id) },
    Id { name: "ch_ahv", alone: &["999.9999.9999.99"], said: &["9999999999999"], words: &["ahv", "avs", "sozialversicherung"], is_valid: |id| id.starts_with(b"756") && weighted(id, &[1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1]).is_multiple_of(10) },
    Id { name: "cl_rut", alone: &["99.999.999-9", "99.999.999-A", "9.999.999-9", "9.999.999-A"], said: &["99999999-9", "99999999-A", "9999999-9", "9999999-A"], words: &["rut", "run", "r.u.t"], is_valid: cl_rut },
    Id { name: "cn_resident", alone: &["999999999999999999", "99999999999999999A"], said: &[], words: &[], is_valid: cn_resident },
    Id { name: "cz_rc", alone: &["999999/9999"], said: &["9999999999"], words: &["rodné číslo", "rodne cislo", "rč"], is_valid: cz_rc },
    Id { name: "de_steuer_id", alone: &[], said: &["99 999 999 999", "99999999999"], words: &["steuer-id", "steuerid", "steueridentifikation", "steuerliche identifikation", "idnr", "tin", "tax id"], is_valid: de_steuer_id },
    Id { name: "dk_cpr", alone: &[], said: &["999999-9999", "9999999999"], words: &["cpr", "personnummer"], is_valid: |id| is_day_month(number(&id[..2]), number(&id[2..4])) },
    Id { name: "es_dni", alone: &["99999999A", "99999999-A", "99.999.999-A"], said: &[], words: &[], is_valid: |id| dni_letter(number(&id[..8])) == id[8] },
    Id { name: "es_nie", alone: &["A9999999A", "A-9999999-A", "A9999999-A"], said: &[], words: &[], is_valid: es_nie },
    Id { name: "fi_hetu", alone: &["999999-999A", "999999-9999", "999999A999A", "999999A9999"], said: &[], words: &[], is_valid: fi_hetu },
    Id { name: "fr_nir", alone: &["9 99 99 99 999 999 99", "9 99 99 9A 999 999 99", "999999999999999", "9999999999999 99", "999999A99999999"], said: &[], words: &[], is_valid: fr_nir },
    Id { name: "gb_nhs", alone: &[], said: &["999 999 9999", "9999999999", "999-999-9999"], words: &["nhs"], is_valid: |id| weighted(id, &[10, 9, 8, 7, 6, 5, 4, 3, 2, 1]).is_multiple_of(11) },
    Id { name: "gb_nino", alone: &["AA 99 99 99 A"], said: &["AA999999A"], words: &["national insurance", "nino", "ni number", "ni no", "insurance"], is_valid: gb_nino },
    Id { name: "ie_pps", alone: &[], said: &["9999999A", "9999999AA"], words: &["pps", "ppsn", "personal public service"], is_valid: ie_pps },
    Id { name: "il_id", alone: &[], said: &["999999999"], words: &["israeli id", "teudat zehut", "ת.ז", "תעודת זהות"], is_valid: luhn },
    Id { name: "in_aadhaar", alone: &[], said: &["9999 9999 9999", "9999-9999-9999", "999999999999"], words: &["aadhaar", "aadhar", "uidai", "आधार"], is_valid: in_aadhaar },
    Id { name: "in_pan", alone: &[], said: &["AAAAA9999A"], words: &["pan", "permanent account"], is_valid: |id| b"ABCFGHLJPTK".contains(&id[3]) && &id[5..9] != b"0000" },
    Id { name: "it_codice_fiscale", alone: &["AAAAAA99A99A999A"], said: &[], words: &[], is_valid: it_codice_fiscale },
    Id { name: "kr_rrn", alone: &["999999-9999999"], said: &["9999999999999"], words: &["주민등록", "resident registration", "rrn"], is_valid: kr_rrn },
    Id { name: "mx_curp", alone: &["AAAA999999AAAAAA99", "AAAA999999AAAAAAA9"], said: &[], words: &[], is_valid: mx_curp },
    Id { name: "my_nric", alone: &[], said: &["999999-99-9999", "999999999999"], words: &["nric", "mykad", "kad pengenalan", "ic no", "ic number"], is_valid: |id| is_month_day(&id[2..6]) },
    Id { name: "nl_bsn", alone: &[], said: &["999999999", "9999.99.999"], words: &["bsn", "burgerservicenummer", "sofi"], is_valid: nl_bsn },
    Id { name: "no_fnr", alone: &[], said: &["999999 99999", "99999999999"], words: &["fødselsnummer", "fodselsnummer", "personnummer", "fnr"], is_valid: no_fnr },
    Id { name: "pl_pesel", alone: &[], said: &["99999999999"], words: &["pesel"], is_valid: pl_pesel },
    Id { name: "pt_nif", alone: &[], said: &["999999999", "999 999 999"], words: &["nif", "contribuinte", "identificação fiscal"], is_valid: |id| id[0] != b'0' && (11 - weighted(id, &[9, 8, 7, 6, 5, 4, 3, 2]) % 11) % 11 % 10 == digit(id[8]) },
    Id { name: "ro_cnp", alone: &[], said: &["9999999999999"], words: &["cnp", "cod numeric personal"], is_valid: ro_cnp },
    Id { name: "se_personnummer", alone: &["999999-9999", "99999999-9999"], said: &["9999999999", "999999999999"], words: &["personnummer", "personnr", "samordningsnummer"], is_valid: |id| is_month_day(&id[id.len() - 8..id.len() - 4]) && luhn(&id[id.len() - 10..]) },
    Id { name: "th_pin", alone: &["9-9999-99999-99-9"], said: &["9999999999999"], words: &["thai id", "บัตรประชาชน", "เลขประจำตัวประชาชน"], is_valid: th_pin },
    Id { name: "tr_kimlik", alone: &[], said: &["99999999999"], words: &["kimlik", "tckn", "t.c"], is_valid: tr_kimlik },
    Id { name: "us_itin", alone: &[], said: &["999-99-9999", "999 99 9999", "999999999"], words: &["itin", "taxpayer", "tax id"], is_valid: us_itin },
    Id { name: "us_ssn", alone: &["999-99-9999"], said: &["999 99 9999", "999999999", "999-999999", "99999-9999"], words: &["ssn", "ssns", "social security", "social-security", "ss#", "ss no"], is_valid: us_ssn },
    Id { name: "za_id", alone: &[], said: &["9999999999999", "999999 9999 99 9"], words: &["id number", "identity number", "rsa id", "sa id"], is_valid: |id| is_month_day(&id[2..6]) && id[10] <= b'1' && luhn(id) },
];

/// The names of all ids, sorted.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    IDS.iter().map(|id| id.name)
}

/// Looks for the ids that a job asks for.
pub(super) struct Finder {
    /// Ids per form, and whether the form counts alone.
    by_shape: HashMap<&'static str, Vec<(&'static Id, bool)>>,
    /// Bytes of the forms, the longest first.
    lengths: Vec<usize>,
}

impl std::fmt::Debug for Finder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Finder({} forms)", self.by_shape.len())
    }
}

/// Capitals before the first digit of an id.
const LETTERS_MAX: usize = 6;
/// Bytes of the longest form.
const SHAPE_BYTES_MAX: usize = 24;

impl Finder {
    pub(super) fn new(wanted: &[String]) -> Result<Self> {
        let mut by_shape: HashMap<_, Vec<_>> = HashMap::new();
        for name in wanted {
            let Some(id) = IDS.iter().find(|id| id.name == name) else {
                let known: Vec<&str> = names().collect();
                let hint = shard::config::nearest(name, &known)
                    .unwrap_or(format!("it takes `{}`", known.join("`, `")));
                return Err(config::invalid(
                    "mask_pii",
                    format!("`national_ids` has `{name}`, which is no id\nhint: {hint}"),
                ));
            };
            let forms = id.alone.iter().map(|form| (*form, true));
            for (form, counts_alone) in forms.chain(id.said.iter().map(|form| (*form, false))) {
                by_shape.entry(form).or_default().push((id, counts_alone));
            }
        }
        let mut lengths: Vec<usize> = by_shape.keys().map(|shape| shape.len()).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        Ok(Self { by_shape, lengths })
    }

    /// The id whose first digit is that of `number`.
    pub(super) fn find(&self, text: &str, number: &Number) -> Option<Hit> {
        let bytes = text.as_bytes();
        let letters = |end: usize| {
            let count = bytes[..end].iter().rev().take(LETTERS_MAX + 1);
            count.take_while(|byte| byte.is_ascii_uppercase()).count()
        };
        let n_letters = letters(number.start);
        if n_letters > 0 {
            return self.find_at(text, number.start - n_letters);
        }
        // `QQ 12 34 56 A`.
        if number.run == 2 && text[..number.start].ends_with(' ') && letters(number.start - 1) == 2
        {
            return self.find_at(text, number.start - 3);
        }
        // `X-1234567-L`.
        if text[..number.start].ends_with('-') && letters(number.start - 1) == 1 {
            return self.find_at(text, number.start - 2);
        }
        if number.n_digits < 6 { None } else { self.find_at(text, number.start) }
    }

    fn find_at(&self, text: &str, start: usize) -> Option<Hit> {
        let shape: String = text[start..]
            .bytes()
            .take(SHAPE_BYTES_MAX)
            .map_while(|byte| match byte {
                b'0'..=b'9' => Some('9'),
                b'A'..=b'Z' => Some('A'),
                b' ' | b'-' | b'.' | b'/' => Some(char::from(byte)),
                _ => None,
            })
            .collect();
        self.lengths.iter().filter(|&&length| length <= shape.len()).find_map(|&length| {
            let ids = self.by_shape.get(&shape[..length])?;
            let end = start + length;
            let compact: Vec<u8> =
                text[start..end].bytes().filter(u8::is_ascii_alphanumeric).collect();
            let (id, _) = ids.iter().find(|(id, counts_alone)| {
                (id.is_valid)(&compact) && (*counts_alone || id.is_said(text, start, end))
            })?;
            is_bounded(text, start, end).then_some(Hit {
                start,
                end,
                kind: Kind::NationalId,
                rule: id.name,
            })
        })
    }
}

impl Id {
    fn is_said(&self, text: &str, start: usize, end: usize) -> bool {
        has_word(&context_before(text, start, 60), self.words)
            || has_word(&context_after(text, end, 20), self.words)
    }
}

/// Whether `value`, as it stands in a text, would be an id of the name `rule`.
pub(super) fn is_valid(rule: &str, value: &str) -> bool {
    let compact: Vec<u8> = value.bytes().filter(u8::is_ascii_alphanumeric).collect();
    IDS.iter().any(|id| id.name == rule && (id.is_valid)(&compact))
}

fn digit(byte: u8) -> u32 {
    u32::from(byte - b'0')
}

fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |value, &byte| value * 10 + u64::from(digit(byte)))
}

/// The sum of the first digits, each times its weight.
fn weighted(digits: &[u8], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(&byte, weight)| digit(byte) * weight).sum()
}

fn luhn(digits: &[u8]) -> bool {
    is_luhn(&digits.iter().map(|byte| byte - b'0').collect::<Vec<_>>()) && number(digits) > 0
}

/// Days of a month, of a year that may be a leap year.
fn is_day_month(day: u64, month: u64) -> bool {
    let n_days = match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (1..=n_days).contains(&day)
}

fn is_month_day(digits: &[u8]) -> bool {
    is_day_month(number(&digits[2..]), number(&digits[..2]))
}

fn ar_cuit(id: &[u8]) -> bool {
    let check = weighted(id, &[5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11;
    let kinds: [&[u8]; 10] = [b"20", b"23", b"24", b"27", b"30", b"33", b"34", b"50", b"51", b"55"];
    kinds.contains(&&id[..2]) && b"012345678990"[11 - check as usize] == id[10]
}

fn be_rrn(id: &[u8]) -> bool {
    let check = number(&id[9..]);
    let base = number(&id[..9]);
    // Since 2000, a 2 stands before.
    let is_check = [base, 2_000_000_000 + base].iter().any(|base| 97 - base % 97 == check);
    is_check && number(&id[2..4]) <= 12
}

fn br_cpf(id: &[u8]) -> bool {
    let first = (11 - weighted(id, &[10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11) % 11 % 10;
    let second = (11 - weighted(id, &[11, 10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11) % 11 % 10;
    number(id) > 0 && !is_one_digit(id) && first == digit(id[9]) && second == digit(id[10])
}

fn br_cnpj(id: &[u8]) -> bool {
    let first = (11 - weighted(id, &[5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2]) % 11) % 11 % 10;
    let second = (11 - weighted(id, &[6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2]) % 11) % 11 % 10;
    number(&id[..12]) > 0 && first == digit(id[12]) && second == digit(id[13])
}

fn is_one_digit(id: &[u8]) -> bool {
    id.iter().all(|byte| *byte == id[0])
}

fn cl_rut(id: &[u8]) -> bool {
    let (body, check) = id.split_at(id.len() - 1);
    let sum: u32 = (0..)
        .zip(body.iter().rev())
        .map(|(at, &byte)| digit(byte) * (4 + (5 + 6 * 2 - at) % 6))
        .sum();
    b"0123456789K"[(sum % 11) as usize] == check[0]
}

fn cn_resident(id: &[u8]) -> bool {
    let value = |byte: u8| if byte == b'X' { 10 } else { digit(byte) };
    if id[17].is_ascii_alphabetic() && id[17] != b'X' {
        return false;
    }
    let sum = id.iter().fold(0, |sum, &byte| (2 * sum + value(byte)) % 11);
    let is_place = (11..=82).contains(&number(&id[..2]));
    sum == 1 && is_place && (1850..2100).contains(&number(&id[6..10])) && is_month_day(&id[10..14])
}

fn cz_rc(id: &[u8]) -> bool {
    let month = number(&id[2..4]) % 50 % 20;
    is_day_month(number(&id[4..6]), month) && number(&id[..9]) % 11 % 10 == u64::from(digit(id[9]))
}

/// ISO 7064 modulo 11, 10; one of the first ten digits occurs twice or three times, the others once.
fn de_steuer_id(id: &[u8]) -> bool {
    let mut counts = [0; 10];
    id[..10].iter().for_each(|&byte| counts[digit(byte) as usize] += 1);
    let repeated: Vec<u32> = counts.into_iter().filter(|&n| n > 1).collect();
    let check = id.iter().fold(5, |check, &byte| {
        ((if check == 0 { 10 } else { check }) * 2 % 11 + digit(byte)) % 10
    });
    id[0] != b'0' && matches!(repeated[..], [2 | 3]) && check == 1
}

fn dni_letter(number: u64) -> u8 {
    b"TRWAGMYFPDXBNJZSQVHLCKE"[(number % 23) as usize]
}

fn es_nie(id: &[u8]) -> bool {
    let Some(first) = b"XYZ".iter().position(|byte| *byte == id[0]) else { return false };
    dni_letter(first as u64 * 10_000_000 + number(&id[1..8])) == id[8]
}

fn fi_hetu(id: &[u8]) -> bool {
    let (individual, is_century) = match id.len() {
        // The hyphen of the twentieth century is no part of the compact form.
        10 => (&id[6..9], true),
        _ => (&id[7..10], b"ABCDEFYXWVU".contains(&id[6])),
    };
    let check = id[id.len() - 1];
    let value = number(&[&id[..6], individual].concat());
    is_century
        && is_day_month(number(&id[..2]), number(&id[2..4]))
        && (2..900).contains(&number(individual))
        && b"0123456789ABCDEFHJKLMNPRSTUVWXY"[(value % 31) as usize] == check
}

fn fr_nir(id: &[u8]) -> bool {
    let mut digits = id.to_vec();
    let is_corsican = match &id[5..7] {
        b"2A" => Some(*b"19"),
        b"2B" => Some(*b"18"),
        other if other.iter().all(u8::is_ascii_digit) => None,
        _ => return false,
    };
    if let Some(department) = is_corsican {
        digits[5..7].copy_from_slice(&department);
    }
    if !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let month = number(&digits[3..5]);
    // Months above 12 stand for an unknown one.
    let is_month = matches!(month, 1..=12 | 20..=42 | 50..=99);
    matches!(id[0], b'1' | b'2' | b'3' | b'4' | b'7' | b'8')
        && is_month
        && 97 - number(&digits[..13]) % 97 == number(&digits[13..])
}

/// The prefixes that HMRC gives out (National Insurance Manual, NIM39110).
fn gb_nino(id: &[u8]) -> bool {
    let is_never = [b"BG", b"GB", b"KN", b"NK", b"NT", b"TN", b"ZZ"]
        .iter()
        .any(|prefix| id.starts_with(*prefix));
    !b"DFIQUV".contains(&id[0])
        && !b"DFIOQUV".contains(&id[1])
        && !is_never
        && (b'A'..=b'D').contains(&id[8])
}

fn ie_pps(id: &[u8]) -> bool {
    let second = id.get(8).copied();
    let extra = match second {
        Some(byte @ (b'A' | b'B' | b'H')) => u32::from(byte - b'@') * 9,
        None | Some(b'W' | b'T' | b'X') => 0,
        Some(_) => return false,
    };
    let sum = weighted(id, &[8, 7, 6, 5, 4, 3, 2]) + extra;
    b"WABCDEFGHIJKLMNOPQRSTUV"[(sum % 23) as usize] == id[7]
}

/// The check digit of Verhoeff 1969.
fn in_aadhaar(id: &[u8]) -> bool {
    #[rustfmt::skip]
    const PRODUCT: [[u8; 10]; 10] = [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 0, 6, 7, 8, 9, 5], [2, 3, 4, 0, 1, 7, 8, 9, 5, 6], [3, 4, 0, 1, 2, 8, 9, 5, 6, 7],
        [4, 0, 1, 2, 3, 9, 5, 6, 7, 8], [5, 9, 8, 7, 6, 0, 4, 3, 2, 1], [6, 5, 9, 8, 7, 1, 0, 4, 3, 2], [7, 6, 5, 9, 8, 2, 1, 0, 4, 3],
        [8, 7, 6, 5, 9, 3, 2, 1, 0, 4], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
    ];
    const SHIFT: [u8; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let check = id.iter().rev().enumerate().fold(0u8, |check, (place, byte)| {
        let shifted = (0..place % 8).fold(byte - b'0', |digit, _| SHIFT[digit as usize]);
        PRODUCT[check as usize][shifted as usize]
    });
    let is_palindrome = id.iter().eq(id.iter().rev());
    id[0] >= b'2' && !is_palindrome && check == 0
}

fn it_codice_fiscale(id: &[u8]) -> bool {
    const ODD: [u32; 26] = [
        1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24,
        23,
    ];
    let value = |byte: u8| u32::from(if byte.is_ascii_digit() { byte - b'0' } else { byte - b'A' });
    let sum: u32 = id[..15]
        .iter()
        .enumerate()
        .map(|(at, &byte)| if at % 2 == 0 { ODD[value(byte) as usize] } else { value(byte) })
        .sum();
    let Some(month) = b"ABCDEHLMPRST".iter().position(|letter| *letter == id[8]) else {
        return false;
    };
    is_day_month(number(&id[9..11]) % 40, month as u64 + 1) && b'A' + (sum % 26) as u8 == id[15]
}

fn kr_rrn(id: &[u8]) -> bool {
    let check = (11 - weighted(id, &[2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5]) % 11) % 10;
    is_month_day(&id[2..6]) && number(&id[7..9]) <= 96 && check == digit(id[12])
}

fn mx_curp(id: &[u8]) -> bool {
    #[rustfmt::skip]
    const STATES: [&[u8; 2]; 33] = [
        b"AS", b"BC", b"BS", b"CC", b"CH", b"CL", b"CM", b"CS", b"DF", b"DG", b"GR", b"GT", b"HG", b"JC", b"MC", b"MN", b"MS", b"NE",
        b"NL", b"NT", b"OC", b"PL", b"QR", b"QT", b"SL", b"SP", b"SR", b"TC", b"TL", b"TS", b"VZ", b"YN", b"ZS",
    ];
    // The alphabet has the Ñ between N and O.
    let value = |byte: u8| match byte {
        b'0'..=b'9' => digit(byte),
        b'A'..=b'N' => u32::from(byte - b'A') + 10,
        _ => u32::from(byte - b'A') + 11,
    };
    let sum: u32 =
        id[..17].iter().zip((2..=18).rev()).map(|(&byte, weight)| value(byte) * weight).sum();
    let is_state = STATES.iter().any(|state| id[11..13] == **state);
    matches!(id[10], b'H' | b'M')
        && is_state
        && is_month_day(&id[6..10])
        && (10 - sum % 10) % 10 == digit(id[17])
}

fn nl_bsn(id: &[u8]) -> bool {
    let sum = weighted(id, &[9, 8, 7, 6, 5, 4, 3, 2]) + 11 - digit(id[8]);
    number(id) > 0 && sum.is_multiple_of(11)
}

fn no_fnr(id: &[u8]) -> bool {
    let first = (11 - weighted(id, &[3, 7, 6, 1, 8, 9, 4, 5, 2]) % 11) % 11;
    let second = (11 - weighted(id, &[5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11) % 11;
    // Days above 40 and months above 40 mark numbers for those who stay a while, and made-up ones.
    let is_date = is_day_month(number(&id[..2]) % 40, number(&id[2..4]) % 40);
    is_date && first == digit(id[9]) && second == digit(id[10])
}

fn pl_pesel(id: &[u8]) -> bool {
    let sum = weighted(id, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1]);
    sum.is_multiple_of(10) && is_day_month(number(&id[4..6]), number(&id[2..4]) % 20)
}

fn ro_cnp(id: &[u8]) -> bool {
    let check = weighted(id, &[2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9]) % 11;
    id[0] != b'0'
        && is_month_day(&id[3..7])
        && (if check == 10 { 1 } else { check }) == digit(id[12])
}

fn th_pin(id: &[u8]) -> bool {
    let sum = weighted(id, &[13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11;
    !matches!(id[0], b'0' | b'9') && (11 - sum) % 10 == digit(id[12])
}

fn tr_kimlik(id: &[u8]) -> bool {
    let first = (10 - weighted(id, &[3, 1, 3, 1, 3, 1, 3, 1, 3]) % 10) % 10;
    let second = (first + weighted(id, &[1; 9])) % 10;
    id[0] != b'0' && first == digit(id[9]) && second == digit(id[10])
}

/// The groups that the Internal Revenue Service gives out.
fn us_itin(id: &[u8]) -> bool {
    id[0] == b'9' && matches!(number(&id[3..5]), 50..=65 | 70..=88 | 90..=92 | 94..=99)
}

/// The Social Security Administration gives out no area 000, 666 or 9xx, no group 00 and no serial 0000; three numbers were printed in
/// advertisements, and some are filled in by people who have to write something.
fn us_ssn(id: &[u8]) -> bool {
    let never: [&[u8]; 4] = [b"078051120", b"219099999", b"457555462", b"123456789"];
    let is_area = !id.starts_with(b"000") && !id.starts_with(b"666") && id[0] != b'9';
    is_area
        && &id[3..5] != b"00"
        && &id[5..] != b"0000"
        && !never.contains(&id)
        && !is_one_digit(id)
}

#[cfg(test)]
mod tests;
