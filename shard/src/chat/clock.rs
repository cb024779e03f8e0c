//! `strftime` as Python has it in the C locale.

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Writes the moment `seconds` after the beginning of 1970; what is no directive stays as it is.
pub(super) fn format(seconds: i64, format: &str) -> String {
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let rest = letters.as_str();
        // `%-d` is `%d` without a leading zero.
        let is_bare = rest.starts_with('-');
        let mut directive = rest[usize::from(is_bare)..].chars();
        let Some(text) = directive.next().and_then(|letter| field(seconds, letter)) else {
            out.push('%');
            continue;
        };
        let bare = text.trim_start_matches(['0', ' ']);
        let is_zero = bare.is_empty() && !text.is_empty();
        out.push_str(match is_bare {
            true if is_zero => "0",
            true => bare,
            false => &text,
        });
        letters = directive;
    }
    out
}

/// Reads a day as `2024-07-26`: the seconds from 1970 to its beginning.
#[must_use]
pub fn parse(day: &str) -> Option<i64> {
    let mut parts = day.split('-');
    let mut next = |digits: usize| {
        let part = parts.next().filter(|part| part.len() == digits)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<i64>().ok()).flatten()
    };
    let wanted = (next(4)?, next(2)?, next(2)?);
    let mut days = days_before(wanted.0)..days_before(wanted.0 + 1);
    let found = days.find(|day| date(*day) == wanted)?;
    parts.next().is_none().then_some(found * 86_400)
}

fn field(seconds: i64, letter: char) -> Option<String> {
    let days = seconds.div_euclid(86_400);
    let second_of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) =
        (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    let (year, month, day) = date(days);
    let day_of_year = days - days_before(year);
    // The first day of 1970 was a Thursday.
    let week_day = (days + 4).rem_euclid(7);
    let name =
        |names: &[&str], index: i64| names[usize::try_from(index).expect("in range")].to_owned();
    Some(match letter {
        'Y' => year.to_string(),
        'y' => format!("{:02}", year.rem_euclid(100)),
        'C' => format!("{:02}", year.div_euclid(100)),
        'm' => format!("{month:02}"),
        'd' => format!("{day:02}"),
        'e' => format!("{day:2}"),
        'B' => name(&MONTHS, month - 1),
        'b' | 'h' => name(&MONTHS, month - 1)[..3].to_owned(),
        'A' => name(&DAYS, week_day),
        'a' => name(&DAYS, week_day)[..3].to_owned(),
        'H' => format!("{hour:02}"),
        'I' => format!("{:02}", (hour + 11) % 12 + 1),
        'M' => format!("{minute:02}"),
        'S' => format!("{second:02}"),
        'f' => "000000".to_owned(),
        'p' => (if hour < 12 { "AM" } else { "PM" }).to_owned(),
        'j' => format!("{:03}", day_of_year + 1),
        'w' => week_day.to_string(),
        'u' => ((week_day + 6) % 7 + 1).to_string(),
        'U' => format!("{:02}", (day_of_year + 7 - week_day) / 7),
        'W' => format!("{:02}", (day_of_year + 7 - (week_day + 6) % 7) / 7),
        'G' => iso_week(days).0.to_string(),
        'V' => format!("{:02}", iso_week(days).1),
        'F' => format!("{year}-{month:02}-{day:02}"),
        'T' | 'X' => format!("{hour:02}:{minute:02}:{second:02}"),
        'R' => format!("{hour:02}:{minute:02}"),
        'D' | 'x' => format!("{month:02}/{day:02}/{:02}", year.rem_euclid(100)),
        'c' => {
            let (week_day, month) = (&name(&DAYS, week_day)[..3], &name(&MONTHS, month - 1)[..3]);
            format!("{week_day} {month} {day:2} {hour:02}:{minute:02}:{second:02} {year}")
        }
        's' => seconds.to_string(),
        'n' => "\n".to_owned(),
        't' => "\t".to_owned(),
        // A moment without a zone has no name for one.
        'z' | 'Z' => String::new(),
        '%' => "%".to_owned(),
        _ => return None,
    })
}

/// Year, month and day of a day since 1970. Source: Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Days from 1970 to the first day of `year`.
fn days_before(year: i64) -> i64 {
    let last = year - 1;
    let leap_days = |year: i64| year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    (year - 1970) * 365 + leap_days(last) - leap_days(1969)
}

/// Year and week by ISO 8601: the week belongs to the year that has its Thursday.
fn iso_week(days: i64) -> (i64, i64) {
    let monday = days - (days + 3).rem_euclid(7);
    let (year, _, _) = date(monday + 3);
    (year, (monday + 3 - days_before(year)) / 7 + 1)
}
