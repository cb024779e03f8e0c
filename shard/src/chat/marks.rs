//! Characters that travel through a template and say where its text comes from.
//!
//! They are characters that Unicode never assigns, and none that occurs in the conversation or the template.

use std::fmt;
use std::ops::Range;

use minijinja::value::{Value, ValueKind};

use super::Rendered;

/// Marks of one render.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    /// Around a special token that the conversation spells.
    literal: [char; 2],
    /// Around what the assistant generates.
    generation: [char; 2],
    /// Stands for a turn.
    filler: char,
}

impl Marks {
    pub(super) fn new<'a>(template: &str, values: impl Iterator<Item = &'a Value> + Clone) -> Self {
        // Noncharacters first, then a plane of private use.
        let candidates = ('\u{fdd0}'..='\u{fdef}').chain('\u{f0000}'..='\u{ffffd}');
        let mut free = candidates.filter(|mark| {
            !template.contains(*mark) && !values.clone().any(|value| contains(value, *mark))
        });
        let mut next = || free.next().expect("no conversation has all of them");
        Self { literal: [next(), next()], generation: [next(), next()], filler: next() }
    }

    /// The marks that were written by `to_string`.
    pub(super) fn of(text: &str) -> Self {
        let mut marks = text.chars();
        let mut next = || marks.next().expect("five marks");
        Self { literal: [next(), next()], generation: [next(), next()], filler: next() }
    }

    /// What stands for a turn: it begins and ends as no turn does.
    pub(super) fn filler(&self) -> String {
        self.filler.to_string()
    }

    pub(super) fn generation(&self, text: &str) -> String {
        format!("{}{text}{}", self.generation[0], self.generation[1])
    }

    /// Returns `value` with every special token that its strings spell between marks.
    pub(super) fn mark(&self, value: &Value, special: &[String]) -> Value {
        match value.kind() {
            ValueKind::String => {
                let text = value.as_str().expect("a string");
                match find_special(special, text) {
                    None => value.clone(),
                    Some(first) => Value::from(self.mark_text(text, first, special)),
                }
            }
            ValueKind::Seq => {
                let items = value.try_iter().expect("a list can be iterated over");
                Value::from(items.map(|item| self.mark(&item, special)).collect::<Vec<_>>())
            }
            ValueKind::Map => {
                let keys = value.try_iter().expect("a table has keys");
                let pair = |key: Value| {
                    let item = value.get_item(&key).unwrap_or_default();
                    (self.mark(&key, special), self.mark(&item, special))
                };
                Value::from_pairs(keys.map(pair))
            }
            _ => value.clone(),
        }
    }

    fn mark_text(&self, text: &str, first: Range<usize>, special: &[String]) -> String {
        let mut out = String::with_capacity(text.len() + 16);
        let (mut rest, mut next) = (text, Some(first));
        while let Some(token) = next {
            out.push_str(&rest[..token.start]);
            out.push(self.literal[0]);
            out.push_str(&rest[token.clone()]);
            out.push(self.literal[1]);
            rest = &rest[token.end..];
            next = find_special(special, rest);
        }
        out.push_str(rest);
        out
    }

    /// Takes the marks out of a rendered text and says where they stood.
    pub(super) fn read(&self, marked: &str, special: &[String]) -> Rendered {
        let mut rendered =
            Rendered { text: String::with_capacity(marked.len()), ..Rendered::default() };
        let (mut literal, mut generation) = (None, Vec::new());
        // Where a string method of the template took one of two marks away: no special token reaches over it.
        let mut alone = Vec::new();
        for letter in marked.chars() {
            let at = rendered.text.len();
            if letter == self.literal[0] {
                alone.extend(literal.replace(at).map(|at| (at, Side::Before)));
            } else if letter == self.literal[1] {
                match literal.take() {
                    Some(start) => rendered.literal.push(start..at),
                    None => alone.push((at, Side::Behind)),
                }
            } else if letter == self.generation[0] {
                generation.push(at);
            } else if letter == self.generation[1] {
                rendered.assistant.extend(generation.pop().map(|start| start..at));
            } else {
                rendered.text.push(letter);
            }
        }
        alone.extend(literal.map(|at| (at, Side::Before)));
        for (at, side) in alone {
            rendered.literal.extend(special_at(&rendered.text, at, side, special));
        }
        rendered.literal.sort_by_key(|range| range.start);
        rendered.literal.dedup();
        rendered.assistant.sort_by_key(|range| (range.start, range.end));
        rendered
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = self.literal;
        let [c, d] = self.generation;
        write!(f, "{a}{b}{c}{d}{}", self.filler)
    }
}

/// Where a mark stands to its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Before,
    Behind,
}

/// The special token that a mark at `at` belongs to, or that reaches over it.
fn special_at(text: &str, at: usize, side: Side, special: &[String]) -> Option<Range<usize>> {
    let stands = |token: &String, start: usize| {
        text.as_bytes()[start..].starts_with(token.as_bytes()).then_some(start..start + token.len())
    };
    let beside = |token: &String| match side {
        Side::Before => stands(token, at),
        Side::Behind => at.checked_sub(token.len()).and_then(|start| stands(token, start)),
    };
    let over = |token: &String| {
        let first = (at + 1).saturating_sub(token.len());
        (first..at).find_map(|start| stands(token, start))
    };
    let longest = |found: &Range<usize>| found.len();
    special.iter().filter_map(beside).max_by_key(longest).or_else(|| special.iter().find_map(over))
}

/// The first special token in `text`, the longest of those that begin there.
pub(super) fn find_special(special: &[String], text: &str) -> Option<Range<usize>> {
    let found = special.iter().filter_map(|token| Some((text.find(token.as_str())?, token.len())));
    let first = found.min_by_key(|(start, bytes)| (*start, usize::MAX - bytes));
    first.map(|(start, bytes)| start..start + bytes)
}

fn contains(value: &Value, letter: char) -> bool {
    match value.kind() {
        ValueKind::String => value.as_str().is_some_and(|text| text.contains(letter)),
        ValueKind::Seq => {
            value.try_iter().is_ok_and(|mut items| items.any(|item| contains(&item, letter)))
        }
        ValueKind::Map => value.try_iter().is_ok_and(|mut keys| {
            keys.any(|key| {
                contains(&key, letter)
                    || contains(&value.get_item(&key).unwrap_or_default(), letter)
            })
        }),
        _ => false,
    }
}
