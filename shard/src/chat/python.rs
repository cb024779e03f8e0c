//! What Python writes: `str`, `repr` and `json.dumps`, and the methods that the library lacks.

use std::borrow::Cow;
use std::fmt::Write as _;

use minijinja::value::{Kwargs, Tuple, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use unicode_normalization::char::is_combining_mark;

/// `str(value)`; nothing for what is undefined.
pub(super) fn text(value: &Value) -> Cow<'_, str> {
    match value.as_str() {
        Some(text) => Cow::Borrowed(text),
        None => {
            let mut out = String::new();
            represent(value, &mut out);
            Cow::Owned(out)
        }
    }
}

/// `repr(value)`.
fn represent(value: &Value, out: &mut String) {
    match value.kind() {
        ValueKind::String => quote(value.as_str().unwrap_or_default(), out),
        ValueKind::Number => number(value, out),
        ValueKind::Seq => {
            let is_tuple = value.is_tuple();
            out.push(if is_tuple { '(' } else { '[' });
            for (index, item) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                represent(&item, out);
            }
            if is_tuple && value.len() == Some(1) {
                out.push(',');
            }
            out.push(if is_tuple { ')' } else { ']' });
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                represent(&key, out);
                out.push_str(": ");
                represent(&value.get_item(&key).unwrap_or_default(), out);
            }
            out.push('}');
        }
        // `None`, `True`, `False`, and what has no form of its own.
        _ => out.push_str(&value.to_string()),
    }
}

/// A number as both `repr` and JSON have it.
fn number(value: &Value, out: &mut String) {
    if value.is_integer() {
        out.push_str(&value.to_string());
        return;
    }
    let number = f64::try_from(value.clone()).ok().filter(|number| number.is_finite());
    let Some(number) = number else { return out.push_str(&value.to_string()) };
    // The shortest digits that read back as the number, as in Python; the exponent has two digits and a sign there.
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').expect("that is the format");
    let exponent: i32 = exponent.parse().expect("that is the format");
    match exponent {
        -4..=15 => {
            let plain = number.to_string();
            out.push_str(&plain);
            out.push_str(if plain.contains('.') { "" } else { ".0" });
        }
        _ => {
            let sign = if exponent < 0 { '-' } else { '+' };
            write!(out, "{digits}e{sign}{:02}", exponent.abs()).expect("a string takes all");
        }
    }
}

fn quote(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            letter if letter == quote => {
                out.push('\\');
                out.push(letter);
            }
            letter if is_printable(letter) => out.push(letter),
            letter => {
                let code = u32::from(letter);
                let written = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
                written.expect("a string takes all");
            }
        }
    }
    out.push(quote);
}

/// `str.isprintable` of a letter.
fn is_printable(letter: char) -> bool {
    match letter {
        ' ' | '\'' | '"' | '\\' => true,
        // Marks of this crate pass through: see `marks`.
        '\u{fdd0}'..='\u{fdef}' => true,
        // Rust escapes them so that they do not hang on the quote before.
        letter if is_combining_mark(letter) => true,
        letter => letter.escape_debug().len() == 1,
    }
}

/// The filter `tojson` with the arguments that Transformers gives it.
pub(super) fn to_json(value: Value, arguments: Kwargs) -> Result<String, Error> {
    let style = Style {
        ensure_ascii: arguments.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        indent: arguments.get::<Option<usize>>("indent")?,
        sort_keys: arguments.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        separators: match arguments.get::<Option<Vec<String>>>("separators")?.as_deref() {
            Some([item, key]) => (item.clone(), key.clone()),
            Some(other) => {
                let why = format!("`separators` are two, not {}", other.len());
                return Err(Error::new(ErrorKind::InvalidOperation, why));
            }
            None if arguments.get::<Option<usize>>("indent")?.is_some() => {
                (",".into(), ": ".into())
            }
            None => (", ".into(), ": ".into()),
        },
    };
    arguments.assert_all_used()?;
    let mut out = String::new();
    style.write(&value, 0, &mut out)?;
    Ok(out)
}

struct Style {
    ensure_ascii: bool,
    indent: Option<usize>,
    sort_keys: bool,
    separators: (String, String),
}

impl Style {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => number(value, out),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list('[', ']', items.len(), depth, out, |style, index, out| {
                    style.write(&items[index], depth + 1, out)
                })?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.list('{', '}', keys.len(), depth, out, |style, index, out| {
                    let key = &keys[index];
                    match key.kind() {
                        ValueKind::String => style.string(key.as_str().unwrap_or_default(), out),
                        _ => {
                            let mut name = String::new();
                            style.write(key, 0, &mut name)?;
                            style.string(&name, out);
                        }
                    }
                    out.push_str(&style.separators.1);
                    style.write(&value.get_item(key)?, depth + 1, out)
                })?;
            }
            kind => {
                let why = format!("a value of type {kind} is not JSON");
                return Err(Error::new(ErrorKind::BadSerialization, why));
            }
        }
        Ok(())
    }

    fn list(
        &self,
        open: char,
        close: char,
        n: usize,
        depth: usize,
        out: &mut String,
        mut item: impl FnMut(&Self, usize, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let line = |depth: usize, out: &mut String| {
            if let Some(indent) = self.indent.filter(|_| n > 0) {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', indent * depth));
            }
        };
        out.push(open);
        for index in 0..n {
            out.push_str(if index > 0 { &self.separators.0 } else { "" });
            line(depth + 1, out);
            item(self, index, out)?;
        }
        line(depth, out);
        out.push(close);
        Ok(())
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for letter in text.chars() {
            match letter {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '\0'..='\u{1f}' => {
                    write!(out, "\\u{:04x}", u32::from(letter)).expect("a string takes all");
                }
                // Marks of this crate pass through: see `marks`.
                '\u{fdd0}'..='\u{fdef}' => out.push(letter),
                letter if self.ensure_ascii && letter > '~' => {
                    for unit in letter.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}").expect("a string takes all");
                    }
                }
                letter => out.push(letter),
            }
        }
        out.push('"');
    }
}

/// Methods of Python's types.
pub(super) fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str()
        && let Some(found) = string_method(text, name, arguments)
    {
        return found;
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments)
}

fn string_method(text: &str, name: &str, arguments: &[Value]) -> Option<Result<Value, Error>> {
    let one = || from_args::<(&str,)>(arguments).map(|(argument,)| argument);
    Some(match name {
        "removeprefix" => one().map(|it| Value::from(text.strip_prefix(it).unwrap_or(text))),
        "removesuffix" => one().map(|it| Value::from(text.strip_suffix(it).unwrap_or(text))),
        "partition" => {
            one().map(|it| parts(text.split_once(it).map(|(a, b)| [a, it, b]), [text, "", ""]))
        }
        "rpartition" => {
            one().map(|it| parts(text.rsplit_once(it).map(|(a, b)| [a, it, b]), ["", "", text]))
        }
        "rsplit" => rsplit(text, arguments),
        "center" | "ljust" | "rjust" | "zfill" => pad(text, name, arguments),
        _ => return None,
    })
}

fn parts(found: Option<[&str; 3]>, otherwise: [&str; 3]) -> Value {
    let parts = found.unwrap_or(otherwise).map(Value::from);
    Value::from_object(Tuple::from(parts))
}

fn rsplit(text: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (separator, n) = from_args::<(Option<&str>, Option<i64>)>(arguments)?;
    let n = n.and_then(|n| usize::try_from(n).ok()).map_or(usize::MAX, |n| n.saturating_add(1));
    let mut found: Vec<&str> = Vec::new();
    match separator {
        Some(separator) => found.extend(text.rsplitn(n, separator)),
        None => {
            let mut rest = text.trim_end();
            while !rest.is_empty() {
                let cut = rest.rfind(char::is_whitespace).filter(|_| found.len() + 1 < n);
                let Some(cut) = cut else {
                    found.push(rest);
                    break;
                };
                let word = rest[cut..].trim_start();
                found.push(word);
                rest = rest[..rest.len() - word.len()].trim_end();
            }
        }
    }
    found.reverse();
    Ok(Value::from(found.into_iter().map(Value::from).collect::<Vec<_>>()))
}

fn pad(text: &str, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    const WIDTH_MAX: usize = 10_000;
    let (width, fill) = from_args::<(usize, Option<char>)>(arguments)?;
    if width > WIDTH_MAX {
        let why = format!("a width of {width}, the most is {WIDTH_MAX}");
        return Err(Error::new(ErrorKind::InvalidOperation, why));
    }
    let n = width.saturating_sub(text.chars().count());
    let repeat = |letter: char, n: usize| letter.to_string().repeat(n);
    let fill = fill.unwrap_or(' ');
    Ok(Value::from(match name {
        "ljust" => format!("{text}{}", repeat(fill, n)),
        "rjust" => format!("{}{text}", repeat(fill, n)),
        "zfill" => {
            let digits = text.trim_start_matches(['+', '-']);
            let sign = &text[..text.len() - digits.len()];
            format!("{sign}{}{digits}", repeat('0', n))
        }
        // Where the blanks are odd in number, Python puts one more to the left if the width is odd.
        _ => {
            let left = n / 2 + (n & width & 1);
            format!("{}{text}{}", repeat(fill, left), repeat(fill, n - left))
        }
    }))
}
