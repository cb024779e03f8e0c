//! Made-up values that are nobody's: of the form of what they replace, and the same for the same value and seed.
//!
//! | kind | what stands there | why it is nobody's |
//! |---|---|---|
//! | e-mail | `user` and eight digits at `example.com`, `.net` or `.org` | RFC 2606 |
//! | IPv4, IPv6 | 192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24; 2001:db8::/32 | RFC 5737, RFC 3849 |
//! | phone | an area code, 555 and 0100 to 0199; elsewhere 01632 960000 to 960999 | NANPA; Ofcom, numbers for drama |
//! | card | 9999 and digits that pass Luhn | ISO/IEC 7812: national numbers of a country 999, which ISO 3166 leaves to users |
//! | IBAN | country XX, check digits that pass | ISO 3166 leaves XX to users |
//! | national id | other digits and letters in the same places | its check fails |
//! | secret | other digits and letters in the same places, `EXAMPLE` at the end | this project and others take it for no key |

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::account::{is_luhn, remainder_97};
use super::{Kind, national_id};

/// The made-up value for `value`; nothing where it is one already.
pub(super) fn value(kind: Kind, rule: &str, value: &str, seed: u64) -> Option<String> {
    // Two ways to write one value give one fake.
    let plain: String = match kind {
        Kind::Secret => value.to_owned(),
        Kind::Email | Kind::IpAddress => value.to_lowercase(),
        _ => value.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_uppercase(),
    };
    let mut draws = Draws { plain: plain.as_bytes(), seed, n_drawn: 0 };
    match kind {
        Kind::Email => email(&plain, &mut draws),
        Kind::IpAddress => ip_address(rule, &mut draws),
        Kind::Phone => phone(rule, value, &mut draws),
        Kind::Card => Some(card(value, &mut draws)),
        Kind::Iban => Some(iban(value, &mut draws)),
        Kind::NationalId => Some(national_id(rule, value, &mut draws)),
        Kind::Secret => Some(secret(rule, value, &mut draws)),
    }
}

/// Numbers that depend on the value, the seed and how many were drawn.
struct Draws<'a> {
    plain: &'a [u8],
    seed: u64,
    n_drawn: u64,
}

impl Draws<'_> {
    fn below(&mut self, limit: u64) -> u64 {
        self.n_drawn += 1;
        xxh3_64_with_seed(self.plain, self.seed ^ self.n_drawn.wrapping_mul(0x9E37_79B9_7F4A_7C15))
            % limit
    }

    /// A sign of the same class: digit, capital, small letter; others stay.
    fn like(&mut self, sign: char) -> char {
        let mut from = |first: u8, n: u8| {
            char::from(first + u8::try_from(self.below(u64::from(n))).expect("below 26"))
        };
        match sign {
            '0'..='9' => from(b'0', 10),
            'A'..='Z' => from(b'A', 26),
            'a'..='z' => from(b'a', 26),
            other => other,
        }
    }
}

fn email(plain: &str, draws: &mut Draws<'_>) -> Option<String> {
    let tops = ["com", "net", "org"];
    let is_fake = tops.iter().any(|top| {
        plain
            .strip_suffix(&format!("@example.{top}"))
            .is_some_and(|local| local.starts_with("user") && local.len() == 12)
    });
    let (local, top) = (draws.below(100_000_000), draws.below(3));
    (!is_fake)
        .then(|| format!("user{local:08}@example.{}", tops[usize::try_from(top).expect("below 3")]))
}

fn ip_address(rule: &str, draws: &mut Draws<'_>) -> Option<String> {
    if rule == "ipv6" {
        return Some(format!(
            "2001:db8:{:x}:{:x}::{:x}",
            draws.below(65_536),
            draws.below(65_536),
            1 + draws.below(65_535)
        ));
    }
    let networks = ["192.0.2", "198.51.100", "203.0.113"];
    Some(format!(
        "{}.{}",
        networks[usize::try_from(draws.below(3)).expect("below 3")],
        1 + draws.below(254)
    ))
}

fn phone(rule: &str, value: &str, draws: &mut Draws<'_>) -> Option<String> {
    let digits: String = value.chars().filter(char::is_ascii_digit).collect();
    let is_international = rule == "phone_international";
    let national = digits.trim_start_matches("00");
    let is_north_american = match is_international {
        true => national.starts_with('1'),
        false => {
            digits.len() >= 10 && !digits.starts_with('0') && value.contains(['-', ')', '.', ' '])
        }
    };
    let is_fake = digits.contains("55501") || digits.contains("1632960");
    let (area, line) = (200 + draws.below(800), draws.below(1000));
    if is_fake {
        return None;
    }
    Some(match (is_north_american, is_international) {
        (true, true) => format!("+1 {area}-555-01{:02}", line % 100),
        (true, false) if value.starts_with('(') => format!("({area}) 555-01{:02}", line % 100),
        (true, false) => format!("{area}-555-01{:02}", line % 100),
        (false, true) => format!("+44 1632 960{line:03}"),
        (false, false) => format!("01632 960{line:03}"),
    })
}

/// `digits` in the places of the digits of `value`.
fn in_places(value: &str, signs: &[u8]) -> String {
    let mut signs = signs.iter();
    value
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                signs.next().map_or(c, |&sign| char::from(sign))
            } else {
                c
            }
        })
        .collect()
}

fn card(value: &str, draws: &mut Draws<'_>) -> String {
    let n_digits = value.bytes().filter(u8::is_ascii_digit).count();
    let mut digits = vec![9; 4];
    while digits.len() + 1 < n_digits {
        digits.push(u8::try_from(draws.below(10)).expect("below 10"));
    }
    digits.push(0);
    let last = digits.len() - 1;
    digits[last] = (0..10)
        .find(|&check| {
            digits[last] = check;
            is_luhn(&digits)
        })
        .expect("one of ten check digits fits");
    in_places(value, &digits.iter().map(|digit| b'0' + digit).collect::<Vec<_>>())
}

fn iban(value: &str, draws: &mut Draws<'_>) -> String {
    let n_signs = value.bytes().filter(u8::is_ascii_alphanumeric).count();
    let mut signs = b"XX00".to_vec();
    while signs.len() < n_signs {
        signs.push(b'0' + u8::try_from(draws.below(10)).expect("below 10"));
    }
    let check = 98 - remainder_97(&signs);
    signs[2..4].copy_from_slice(format!("{check:02}").as_bytes());
    in_places(value, &signs)
}

fn national_id(rule: &str, value: &str, draws: &mut Draws<'_>) -> String {
    // A check of any kind fails most of the time; one that fails for a fixed area comes up soon as well.
    (0..10_000)
        .map(|_| value.chars().map(|c| draws.like(c)).collect::<String>())
        .find(|fake| !national_id::is_valid(rule, fake))
        .expect("no id takes every number of its form")
}

fn secret(rule: &str, value: &str, draws: &mut Draws<'_>) -> String {
    const END: &str = "EXAMPLE";
    if rule == "private_key" {
        let (head, rest) =
            value.split_at(value[5..].find("-----").map_or(value.len(), |at| at + 10));
        let tail = rest.rfind("-----END").map_or("", |at| &rest[at..]);
        return format!("{head}\n{END}\n{tail}");
    }
    // What a service puts first says what it is.
    let n_kept = match rule {
        "assigned_secret" => 0,
        _ => value.find(['_', '-', '.']).map_or(4, |at| at + 1),
    };
    let n_drawn = value.len().saturating_sub(n_kept + END.len());
    let drawn: String = value[n_kept..n_kept + n_drawn].chars().map(|c| draws.like(c)).collect();
    format!("{}{drawn}{END}", &value[..n_kept])
}
