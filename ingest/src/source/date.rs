//! Dates as archives and datasets write them.

/// Returns seconds since 1970 (UTC) of an ISO 8601 date of any precision from the year on (`2024`, `2024-05-01`,
/// `2024-05-01T12:00:00.5+02:00`), or of an ARC date (`20080430204825`). Fractions of a second are cut off.
pub(super) fn parse(text: &str) -> Option<i64> {
    let bytes = text.trim().as_bytes();
    let (year, rest) = number(bytes, 4)?;
    let is_compact = rest.first().is_some_and(u8::is_ascii_digit);
    let mut fields = [1, 1, 0, 0, 0]; // month, day, hour, minute, second
    let mut rest = rest;
    for (index, field) in fields.iter_mut().enumerate() {
        let separators: &[u8] = match index {
            0 | 1 => b"-/",
            2 => b"Tt ",
            _ => b":",
        };
        let after = match rest.first() {
            Some(byte) if separators.contains(byte) => &rest[1..],
            Some(byte) if is_compact && byte.is_ascii_digit() => rest,
            _ => break,
        };
        (*field, rest) = number(after, 2)?;
    }
    let [month, day, hour, minute, second] = fields;
    let days_of_month = match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day < 1 || day > days_of_month || hour > 24 || minute > 59 || second > 60 {
        return None;
    }
    let local = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(local - offset_seconds(rest)?)
}

/// Splits `digits` decimal digits off `bytes`.
fn number(bytes: &[u8], digits: usize) -> Option<(i64, &[u8])> {
    let (head, rest) = bytes.split_at_checked(digits)?;
    let value = head.iter().try_fold(0, |value, digit| {
        digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0'))
    })?;
    Some((value, rest))
}

/// Reads what may follow the seconds: a fraction, then `Z` or an offset.
fn offset_seconds(rest: &[u8]) -> Option<i64> {
    let rest = match rest {
        [b'.' | b',', fraction @ ..] => {
            let end = fraction.iter().position(|b| !b.is_ascii_digit()).unwrap_or(fraction.len());
            &fraction[end..]
        }
        _ => rest,
    };
    let sign = match rest.first() {
        None | Some(b'Z' | b'z') => return Some(0),
        Some(b' ') if rest.trim_ascii() == b"UTC" => return Some(0),
        Some(b'+') => 1,
        Some(b'-') => -1,
        Some(_) => return None,
    };
    let (hours, rest) = number(&rest[1..], 2)?;
    let minutes = number(rest.strip_prefix(b":").unwrap_or(rest), 2).map_or(0, |(m, _)| m);
    Some(sign * (hours * 3600 + minutes * 60))
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn check(text: &str, expected: Option<i64>) {
        assert_eq!(parse(text), expected, "{text}");
    }

    #[test]
    fn reads_dates_of_every_precision() {
        // Expected values: `date -u -d … +%s` of GNU coreutils.
        check("2024-05-01T00:00:00Z", Some(1_714_521_600));
        check("2024-05-01T00:00:00.123456Z", Some(1_714_521_600));
        check("2024-05-01", Some(1_714_521_600));
        check("2024-05", Some(1_714_521_600));
        check("2024", Some(1_704_067_200));
        check("2000-02-29T12:30:45+02:00", Some(951_820_245));
        check("2000-02-29 12:30:45", Some(951_827_445));
        check("1969-12-31T23:59:59Z", Some(-1));
        check("20080430204825", Some(1_209_588_505));
        check("19960101", Some(820_454_400));
    }

    #[test]
    fn refuses_what_is_no_date() {
        for text in ["", "x", "20", "2024-13-01", "2023-02-29", "2024-05-01T00:00:00Q", "1e10"] {
            check(text, None);
        }
    }
}
