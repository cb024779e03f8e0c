//! The elements of a JSON array, one at a time, whatever the array's length.

use std::fs::File;
use std::io;
use std::ops::Range;

use super::input::{Filled, Input};

/// Reads a file that is one JSON array.
///
/// Elements are told apart by their brackets and strings only; whether one is JSON is for the caller to see.
pub(super) struct Array {
    input: Input,
    start: u64,
    is_over: bool,
}

/// What came of [`Array::read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    Whole,
    TooLong,
    /// The rest of the file cannot be read; the reason as a reject has it.
    Damaged(&'static str),
    End,
}

impl Array {
    /// Opens `file`, all of it in the range with its first byte; `None` when it is no array.
    pub(super) fn open(file: File, range: &Range<u64>) -> io::Result<Option<Self>> {
        let mut input = Input::open(file, &(0..u64::MAX))?;
        // A byte order mark and blanks may come first.
        while input.fill()? == Filled::Bytes {
            let data = input.buffer();
            let is_before =
                |byte: &&u8| byte.is_ascii_whitespace() || b"\xef\xbb\xbf".contains(byte);
            let n = data.iter().take_while(is_before).count();
            let first = data.get(n).copied();
            input.consume(n);
            if let Some(first) = first {
                if first != b'[' {
                    return Ok(None);
                }
                input.consume(1);
                let is_over = range.start != 0 || range.is_empty();
                return Ok(Some(Self { input, start: 0, is_over }));
            }
        }
        Ok(None)
    }

    /// Where the element that was read begins.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Where the element that was read ends.
    pub(super) fn offset(&self) -> u64 {
        self.input.offset()
    }

    /// Reads the next element into `element`, at most `limit` bytes.
    pub(super) fn read(&mut self, element: &mut Vec<u8>, limit: usize) -> io::Result<Element> {
        element.clear();
        let mut state = State::default();
        let mut has_begun = false;
        let mut bytes = 0_usize;
        if self.is_over {
            return Ok(Element::End);
        }
        loop {
            match self.input.fill()? {
                Filled::Bytes => {}
                Filled::End => {
                    self.is_over = true;
                    return Ok(self.cut(has_begun, "truncated"));
                }
                Filled::Damaged(reason) => {
                    self.is_over = true;
                    return Ok(self.cut(has_begun, reason));
                }
            }
            let place = self.input.offset();
            let data = self.input.buffer();
            let mut at = 0;
            if !has_begun {
                let is_between = |byte: &&u8| byte.is_ascii_whitespace() || **byte == b',';
                at = data.iter().take_while(is_between).count();
                if at == data.len() {
                    self.input.consume(at);
                    continue;
                }
                self.start = place + at as u64;
                if data[at] == b']' {
                    self.is_over = true;
                    self.input.consume(at + 1);
                    return Ok(Element::End);
                }
                has_begun = true;
            }
            let end = data[at..].iter().position(|&byte| state.ends_before(byte));
            let n = end.unwrap_or(data.len() - at);
            bytes += n;
            if bytes <= limit {
                element.extend_from_slice(&data[at..at + n]);
            }
            self.input.consume(at + n);
            if end.is_some() {
                return Ok(if bytes > limit { Element::TooLong } else { Element::Whole });
            }
        }
    }

    /// An array that ends without its bracket.
    fn cut(&mut self, has_begun: bool, reason: &'static str) -> Element {
        if !has_begun {
            self.start = self.input.offset();
        }
        Element::Damaged(reason)
    }
}

/// Where in an element the reader is.
#[derive(Default)]
struct State {
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
}

impl State {
    /// Whether the element ends before `byte`.
    fn ends_before(&mut self, byte: u8) -> bool {
        if self.is_in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.is_in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.is_in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' if self.depth > 0 => self.depth -= 1,
            b',' | b']' => return self.depth == 0,
            _ => {}
        }
        false
    }
}
