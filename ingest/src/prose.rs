//! Text that is being written: blocks separated by a blank line, items as `- `, cells by ` | `.

/// Collects text. Line feeds, spaces and markers wait until characters come that they stand before.
#[derive(Debug, Default)]
pub(crate) struct Prose {
    out: String,
    /// Line feeds that come before the next characters.
    breaks: usize,
    /// Whether a space comes before the next characters.
    has_space: bool,
    /// What comes before the next characters on their line.
    marker: &'static str,
}

impl Prose {
    /// Writes `text` as a block of its own.
    pub(crate) fn block(&mut self, text: &str) {
        self.break_lines(2);
        self.words(text);
        self.break_lines(2);
    }

    /// Ends the line, with `n - 1` empty ones behind it.
    pub(crate) fn break_lines(&mut self, n: usize) {
        // A block right behind an item's marker stays on the marker's line.
        if n == 0 || self.marker == "- " {
            return;
        }
        self.marker = "";
        self.has_space = false;
        if !self.out.is_empty() {
            self.breaks = self.breaks.max(n);
        }
    }

    /// Writes the words of `text`, white space as one space.
    pub(crate) fn words(&mut self, text: &str) {
        let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c' | '\u{a0}');
        let mut rest = text;
        loop {
            let word = rest.trim_start_matches(is_space);
            self.has_space |= word.len() < rest.len();
            if word.is_empty() {
                return;
            }
            let end = word.find(is_space).unwrap_or(word.len());
            self.begin();
            self.out.push_str(&word[..end]);
            rest = &word[end..];
        }
    }

    /// Begins an item of a list.
    pub(crate) fn item(&mut self) {
        self.break_lines(1);
        self.marker = "- ";
    }

    /// Begins a cell of a table: separated from what precedes it on its line.
    pub(crate) fn cell(&mut self) {
        if self.breaks == 0 && !self.out.is_empty() {
            self.marker = " | ";
            self.has_space = false;
        }
    }

    /// Writes a line feed; of several in a row two stay.
    pub(crate) fn line_break(&mut self) {
        self.has_space = false;
        if !self.out.is_empty() {
            self.breaks = (self.breaks + 1).min(2);
        }
    }

    /// Takes back the space before the next characters.
    pub(crate) fn join(&mut self) {
        self.has_space = false;
    }

    /// Writes `text` with its white space as it is.
    pub(crate) fn verbatim(&mut self, text: &str) {
        let is_fresh = self.breaks > 0 || self.out.is_empty();
        let text = if is_fresh { text.trim_start_matches('\n') } else { text };
        let kept = text.trim_end_matches('\n');
        if !kept.is_empty() {
            self.begin();
            self.out.push_str(kept);
        }
        if !self.out.is_empty() {
            self.breaks = (self.breaks + text.len() - kept.len()).min(2);
        }
    }

    /// Writes what has to come before the next characters.
    fn begin(&mut self) {
        if self.breaks > 0 {
            self.out.extend(std::iter::repeat_n('\n', self.breaks));
        } else if self.has_space && self.marker.is_empty() && !self.out.is_empty() {
            self.out.push(' ');
        }
        self.out.push_str(self.marker);
        (self.breaks, self.has_space, self.marker) = (0, false, "");
    }

    pub(crate) fn finish(self) -> String {
        self.out
    }
}
