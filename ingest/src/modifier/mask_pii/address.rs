//! E-mail and IP addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Hit, Kind, char_after, char_before, is_word};

/// Endings of files and packages that look like top-level domains.
const NOT_DOMAINS: [&str; 24] = [
    "png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "html", "json", "xml", "pdf",
    "target", "service", "socket", "timer", "mount", "conf", "txt", "php", "yaml", "yml", "so",
    "java",
];

/// Bytes before the `@` that RFC 5321 allows.
const LOCAL_BYTES_MAX: usize = 64;

/// The e-mail address around the `@` at `at`.
pub(super) fn email(text: &str, at: usize) -> Option<Hit> {
    let start = local_start(text, at);
    let local = &text[start..at];
    let end = at + 1 + domain_length(&text[at + 1..])?;
    // The user of an address with a scheme, and the key that opens a repository, reach nobody.
    let before = &text[..start];
    let word = before.rsplit(char::is_whitespace).next().unwrap_or("");
    let is_url = word.contains("://");
    let is_repository = local == "git" && text[end..].starts_with([':', '/']);
    let is_dotted_well = !local.ends_with('.') && !local.contains("..");
    (!local.is_empty() && is_dotted_well && !is_url && !is_repository).then_some(Hit {
        start,
        end,
        kind: Kind::Email,
        rule: "email",
    })
}

/// Letters that addresses hold beside the ASCII ones (RFC 6531), as far as words end where they do.
fn is_latin(c: char) -> bool {
    matches!(c, '\u{c0}'..='\u{24f}') && c.is_alphabetic()
}

/// Where the local part begins that ends at `at`: letters, digits and the marks in use. An apostrophe or `&` only inside.
fn local_start(text: &str, at: usize) -> usize {
    let mut start = at;
    for (place, c) in text[..at].char_indices().rev() {
        let is_inside = start < at && text[start..].starts_with(|c: char| c.is_alphanumeric());
        match c {
            _ if at - place > LOCAL_BYTES_MAX => break,
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '%' | '+' | '-' => {}
            '\'' | '&'
                if is_inside && char_before(text, place).is_some_and(char::is_alphanumeric) => {}
            _ if is_latin(c) => {}
            _ => break,
        }
        start = place;
    }
    start + text[start..at].len() - text[start..at].trim_start_matches(['.', '-', '%', '+']).len()
}

/// Bytes of the domain at the beginning of `text`: labels, the last of which can be a top-level domain.
fn domain_length(text: &str) -> Option<usize> {
    let is_label = |c: char| c.is_ascii_alphanumeric() || c == '-' || is_latin(c);
    let mut length = None;
    let mut at = 0;
    loop {
        let label = &text[at..];
        let label = &label[..label.find(|c| !is_label(c)).unwrap_or(label.len())];
        let trimmed = label.trim_end_matches('-');
        if trimmed.is_empty() || label.starts_with('-') || label.len() > 63 {
            break;
        }
        let is_top = (2..=24).contains(&trimmed.len())
            && (trimmed.bytes().all(|byte| byte.is_ascii_alphabetic())
                || trimmed.starts_with("xn--"));
        if at > 0 && is_top {
            length = Some(at + trimmed.len());
        }
        at += label.len();
        if trimmed.len() < label.len() || !text[at..].starts_with('.') {
            break;
        }
        at += 1;
    }
    let end = length?;
    let top = text[..end].rsplit('.').next()?.to_ascii_lowercase();
    (!NOT_DOMAINS.contains(&top.as_str()) && !is_word(char_after(text, end))).then_some(end)
}

/// Words before a dotted number that make it a version or a heading.
const NOT_ADDRESSES: [&str; 22] = [
    "version", "versions", "ver", "v", "release", "releases", "build", "revision", "section",
    "sections", "chapter", "clause", "oid", "firmware", "doi", "driver", "figure", "table",
    "update", "jdk", "jre", "kernel",
];

/// Words that say of a dotted number that it is an address.
const ADDRESS_WORDS: [&str; 21] = [
    "ip",
    "ipv4",
    "ip4",
    "address",
    "addr",
    "host",
    "server",
    "dns",
    "nameserver",
    "ping",
    "gateway",
    "router",
    "inet",
    "from",
    "to",
    "client",
    "connect",
    "proxy",
    "listen",
    "peer",
    "a",
];

/// Octets of versions and headings are small; where all of an address are, something has to say that it is one.
const SMALL_OCTET_MAX: u8 = 30;

/// The IPv4 address whose first digit is at `start`.
pub(super) fn ipv4(text: &str, start: usize, takes_private: bool) -> Option<Hit> {
    let bytes = text.as_bytes();
    let mut end = start;
    for octet in 0..4 {
        if octet > 0 {
            if bytes.get(end) != Some(&b'.') {
                return None;
            }
            end += 1;
        }
        let n_digits = bytes[end..].iter().take(4).take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=3).contains(&n_digits) {
            return None;
        }
        end += n_digits;
    }
    // The parser of the standard library refuses leading zeros.
    let address: Ipv4Addr = text[start..end].parse().ok()?;
    let before = text[..start].trim_end_matches([' ', ':', '#', '.', '=', '(', '\n']);
    let word = before.rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or("").to_lowercase();
    let is_marked = NOT_ADDRESSES.contains(&word.as_str());
    let is_url = text[..start].ends_with("//");
    let is_part = matches!(char_before(text, start), Some('.' | '-' | '_' | '/' | '+')) && !is_url;
    let (before, after) = (char_before(text, start), char_after(text, end));
    let second = after.and_then(|c| char_after(text, end + c.len_utf8()));
    // `:` before a port is no border, and a network in slash notation is nobody's address.
    let goes_on =
        matches!(after, Some('.' | '-' | '/')) && second.is_some_and(|c| c.is_ascii_digit());
    let is_small = address.octets().iter().all(|&octet| octet <= SMALL_OCTET_MAX);
    let line = text[..start].rsplit('\n').next().unwrap_or("").to_lowercase();
    let mut words = line.rsplit(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let mut is_said = || is_url || words.by_ref().take(3).any(|word| ADDRESS_WORDS.contains(&word));
    let is_hit = (takes_private || is_public(address))
        && !is_marked
        && !is_part
        && !is_word(before)
        && !is_word(after)
        && !goes_on
        && (!is_small || is_said());
    is_hit.then_some(Hit { start, end, kind: Kind::IpAddress, rule: "ipv4" })
}

/// Whether an address is one of somebody (IANA special-purpose registry).
fn is_public(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_protocol = a == 192 && b == 0 && c == 0;
    let is_benchmark = a == 198 && (18..20).contains(&b);
    // A dotted quad that ends in zeros is a version or a network.
    let is_network = d == 0 && c == 0;
    !(a == 0
        || a >= 224
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || is_shared
        || is_protocol
        || is_benchmark
        || is_network)
}

/// Pushes the IPv6 addresses of `text`.
pub(super) fn ipv6(text: &str, takes_private: bool, hits: &mut Vec<Hit>) {
    let bytes = text.as_bytes();
    let is_part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let mut done = 0;
    for at in memchr::memchr_iter(b':', bytes) {
        let next = bytes.get(at + 1).copied().unwrap_or(0);
        let last = at.checked_sub(1).map_or(0, |at| bytes[at]);
        let can_begin = (last.is_ascii_hexdigit() || last == b':')
            && (next.is_ascii_hexdigit() || next == b':');
        if at < done || !can_begin {
            continue;
        }
        let start = at
            - bytes[done..at]
                .iter()
                .rev()
                .take(4)
                .take_while(|byte| byte.is_ascii_hexdigit())
                .count();
        let length = bytes[start..].iter().take(46).take_while(|byte| is_part(byte)).count();
        let end = start + text[start..start + length].trim_end_matches(['.', ':']).len();
        done = start + length;
        // `::` at the end belongs to the address, a colon behind it does not.
        let end = if text[end..].starts_with("::") { end + 2 } else { end };
        let Ok(address) = text[start..end].parse::<Ipv6Addr>() else { continue };
        let (before, after) = (char_before(text, start), char_after(text, end));
        let is_free =
            !is_word(before) && !is_word(after) && !matches!(before, Some(':' | '.' | '-'));
        if is_free && is_personal(address, takes_private) {
            hits.push(Hit { start, end, kind: Kind::IpAddress, rule: "ipv6" });
        }
    }
}

/// Whether an address is one of somebody: what is global unicast by RFC 4291, and not for documentation. Sixteen bits of it or more are
/// not zero: `1::2` and `a::b` are ratios, times and paths.
fn is_personal(address: Ipv6Addr, takes_private: bool) -> bool {
    let segments = address.segments();
    let n_set = segments.iter().filter(|&&segment| segment != 0).count();
    let is_documentation =
        (segments[0] == 0x2001 && segments[1] == 0x0db8) || segments[0] & 0xfff0 == 0x3ff0;
    let is_reserved = !(0x0100..0xff00).contains(&segments[0]);
    let is_local = (0xfc00..0xfec0).contains(&segments[0]);
    // Outside of 2000::/3 nothing is assigned, but whoever writes eight groups means an address.
    let is_assigned = (0x2000..0x4000).contains(&segments[0]) || n_set >= 7;
    match takes_private {
        true => n_set >= 2 && (is_assigned || is_local),
        false => n_set >= 2 && is_assigned && !is_documentation && !is_reserved && !is_local,
    }
}
