//! Comments of source code by the marks of its language: strings are passed over, nothing is parsed.
//!
//! The reference asks Pygments (Java, JavaScript) or Python's own parser, and counts what these call a comment, marks and all; of Python
//! the marks are left out and docstrings count, too.

/// How a family of languages marks comments and strings.
#[derive(Debug)]
struct Syntax {
    /// Names as Linguist gives them, in small letters.
    languages: &'static [&'static str],
    /// Begin a comment that ends with the line.
    lines: &'static [&'static str],
    /// Begin and end a comment.
    blocks: &'static [(&'static str, &'static str)],
    /// Begin and end a string; three of one go on over lines.
    quotes: &'static [char],
    /// Whether `'` also marks something else than a string: a lifetime, a digit's separator.
    has_loose_ticks: bool,
    /// Whether a slash where a value is expected begins an expression.
    has_regular_expressions: bool,
}

const C: Syntax = Syntax {
    languages: &[
        "c",
        "c++",
        "c#",
        "cuda",
        "dart",
        "glsl",
        "go",
        "groovy",
        "java",
        "kotlin",
        "objective-c",
        "objective-c++",
        "protocol buffer",
        "scala",
        "solidity",
        "swift",
        "verilog",
        "zig",
    ],
    lines: &["//"],
    blocks: &[("/*", "*/")],
    quotes: &['"', '\''],
    has_loose_ticks: true,
    has_regular_expressions: false,
};

const SYNTAXES: [Syntax; 9] = [
    C,
    Syntax { languages: &["rust"], ..C },
    Syntax {
        languages: &["javascript", "typescript", "jsx", "tsx"],
        quotes: &['"', '\'', '`'],
        has_loose_ticks: false,
        has_regular_expressions: true,
        ..C
    },
    Syntax { languages: &["css", "less", "scss"], lines: &[], has_loose_ticks: false, ..C },
    Syntax { languages: &["php"], lines: &["//", "#"], has_loose_ticks: false, ..C },
    Syntax {
        languages: &[
            "python",
            "ruby",
            "shell",
            "perl",
            "r",
            "yaml",
            "toml",
            "makefile",
            "dockerfile",
            "elixir",
            "julia",
            "cmake",
        ],
        lines: &["#"],
        blocks: &[],
        has_loose_ticks: false,
        ..C
    },
    Syntax { languages: &["sql", "plsql", "plpgsql"], lines: &["--"], has_loose_ticks: false, ..C },
    Syntax {
        languages: &["lua"],
        lines: &["--"],
        blocks: &[("--[[", "]]")],
        has_loose_ticks: false,
        ..C
    },
    Syntax {
        languages: &["haskell"],
        lines: &["--"],
        blocks: &[("{-", "-}")],
        quotes: &['"'],
        ..C
    },
];

/// Returns the characters of comments in `text`, nothing where the comments of `language` are not known.
pub(super) fn chars(text: &str, language: &str) -> Option<u64> {
    let name = language.to_ascii_lowercase();
    let syntax = SYNTAXES.iter().find(|syntax| syntax.languages.contains(&name.as_str()))?;
    let is_python = name == "python";
    let mut scanner = Scanner { text, at: 0, syntax, is_python, statement: Statement::First };
    let mut found = 0;
    while let Some(piece) = scanner.next() {
        found += match piece {
            // Marks are taken out, wherever they stand.
            Piece::Comment(comment) if is_python => {
                comment.chars().filter(|&c| c != '#').count() as u64
            }
            Piece::Comment(comment) => super::chars(comment),
            Piece::Docstring(text) => docstring_chars(text) + 1,
            Piece::Other => 0,
        };
    }
    Some(found)
}

/// Characters of a docstring without the indentation that all lines but the first share, as `inspect.cleandoc` leaves them.
fn docstring_chars(text: &str) -> u64 {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let rest = || text.lines().skip(1).filter(|line| !line.trim().is_empty());
    let shared = rest().map(indent).min().unwrap_or(0);
    let lines: Vec<&str> = text
        .lines()
        .enumerate()
        .map(|(n, line)| match n {
            0 => line.trim_start(),
            _ => line.get(shared..).unwrap_or(""),
        })
        .collect();
    super::chars(lines.join("\n").trim_matches('\n'))
}

enum Piece<'a> {
    Comment(&'a str),
    /// What lies between the quotes.
    Docstring(&'a str),
    Other,
}

/// Whether a string of Python is a docstring where the scanner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statement {
    /// Nothing but comments and white space since the file, a class or a function began.
    First,
    /// In the line that begins a class or function, `depth` brackets deep.
    Header {
        depth: u32,
    },
    Other,
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    syntax: &'static Syntax,
    is_python: bool,
    statement: Statement,
}

impl<'a> Scanner<'a> {
    fn next(&mut self) -> Option<Piece<'a>> {
        let rest = &self.text[self.at..];
        let first = rest.chars().next()?;
        // Before the marks of lines: Lua's block begins like its line.
        for (open, close) in self.syntax.blocks {
            if let Some(inside) = rest.strip_prefix(open) {
                let bytes = match inside.find(close) {
                    Some(end) => open.len() + end + close.len(),
                    None => rest.len(),
                };
                return Some(Piece::Comment(self.take(bytes)));
            }
        }
        if self.syntax.lines.iter().any(|mark| rest.starts_with(mark)) {
            let bytes = rest.find('\n').unwrap_or(rest.len());
            return Some(Piece::Comment(self.take(bytes)));
        }
        if self.syntax.quotes.contains(&first) {
            return Some(self.string(first));
        }
        if self.syntax.has_regular_expressions && first == '/' && self.expects_value() {
            let bytes = expression(rest).unwrap_or(1);
            self.take(bytes);
            return Some(Piece::Other);
        }
        if self.is_python {
            self.follow(first);
        } else {
            self.take(first.len_utf8());
        }
        Some(Piece::Other)
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let taken = &self.text[self.at..self.at + bytes];
        self.at += bytes;
        taken
    }

    fn string(&mut self, quote: char) -> Piece<'a> {
        let rest = &self.text[self.at..];
        let n = rest.chars().take_while(|&c| c == quote).count();
        let is_long = n >= 3 && quote != '`';
        if n == 2 && !is_long {
            self.take(2);
            self.end_of_first();
            return Piece::Other;
        }
        let width = if is_long { 3 } else { 1 };
        if self.syntax.has_loose_ticks && quote == '\'' && !is_char(rest) {
            self.take(1);
            return Piece::Other;
        }
        let mut end = None;
        let mut chars = rest[width..].char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => drop(chars.next()),
                '\n' if !is_long && quote != '`' => {
                    // Not closed: a quote in a text, or a mistake.
                    end = Some((at, 0));
                    break;
                }
                _ if c == quote
                    && (!is_long || rest[width + at..].chars().take(3).eq([quote; 3])) =>
                {
                    end = Some((at, width));
                    break;
                }
                _ => {}
            }
        }
        let (inside, closing) = end.unwrap_or((rest.len() - width, 0));
        let is_docstring = self.is_python && self.statement == Statement::First && closing > 0;
        let whole = self.take(width + inside + closing);
        self.end_of_first();
        if is_docstring {
            return Piece::Docstring(&whole[width..width + inside]);
        }
        Piece::Other
    }

    fn end_of_first(&mut self) {
        if self.statement == Statement::First {
            self.statement = Statement::Other;
        }
    }

    /// Whether a slash here begins an expression: no value stands before it.
    fn expects_value(&self) -> bool {
        let before = self.text[..self.at].trim_end();
        let is_operator = |c: char| "(,=:[!&|?{};+-*%~^<>".contains(c);
        before.is_empty()
            || before.ends_with(is_operator)
            || ["return", "typeof", "case", "in", "of", "void"].iter().any(|word| {
                before.strip_suffix(word).is_some_and(|rest| {
                    !rest.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$')
                })
            })
    }

    /// Moves over what is neither comment nor string, and notices where classes and functions begin.
    fn follow(&mut self, first: char) {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        if is_name(first) {
            let rest = &self.text[self.at..];
            let bytes = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            let is_line_start =
                self.text[..self.at].rsplit('\n').next().is_some_and(|line| line.trim().is_empty());
            let word = self.take(bytes);
            // A prefix of a string belongs to it.
            let is_prefix = matches!(word, "r" | "R" | "u" | "U")
                && self.text[self.at..].starts_with(['"', '\'']);
            if is_line_start && matches!(word, "class" | "def") {
                self.statement = Statement::Header { depth: 0 };
            } else if !is_prefix && !matches!(self.statement, Statement::Header { .. }) {
                self.statement = Statement::Other;
            }
            return;
        }
        self.take(first.len_utf8());
        self.statement = match (self.statement, first) {
            (Statement::Header { depth }, '(' | '[' | '{') => {
                Statement::Header { depth: depth + 1 }
            }
            (Statement::Header { depth }, ')' | ']' | '}') => {
                Statement::Header { depth: depth.saturating_sub(1) }
            }
            (Statement::Header { depth: 0 }, ':') => Statement::First,
            (statement @ Statement::Header { .. }, _) => statement,
            (statement, c) if c.is_whitespace() => statement,
            _ => Statement::Other,
        };
    }
}

/// Whether the tick at the beginning of `rest` is the quote of one character.
fn is_char(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

/// Bytes of the regular expression at the beginning of `rest`; none when the line ends before it.
fn expression(rest: &str) -> Option<usize> {
    let mut is_class = false;
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '\n' => return None,
            '[' => is_class = true,
            ']' => is_class = false,
            '/' if !is_class => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(language: &str, text: &str, expected: Option<u64>) {
        assert_eq!(chars(text, language), expected, "{language}: {text}");
    }

    // Counted by hand; Java's, JavaScript's and Python's as Pygments 2.21 and Python 3.11 do.
    #[test]
    fn counts_comments_with_their_marks_and_not_those_in_strings() {
        check(
            "Java",
            "int x; // four\n/* five */ s = \"// no\"; c = '\"'; // end",
            Some(7 + 10 + 6),
        );
        check("JavaScript", "r = /[/]\\/\\//; s = `// ${x}`; // yes\n", Some(6));
        check("JavaScript", "a = b / c; // d", Some(4));
        check("Rust", "fn f<'a>(x: &'a str) {} // 'tick\n", Some(8));
        check("C", "/* open", Some(7));
        check("Lua", "--[[ a\nb ]] x = 1 -- c\n", Some(11 + 4));
        check("SQL", "select '--' -- x", Some(4));
        check("Brainfuck", "+-", None);
    }

    #[test]
    fn counts_pythons_comments_without_marks_and_its_docstrings() {
        check("Python", "x = 1 # ab#c\n", Some(4));
        check("Python", "\"\"\"A module.\"\"\"\nx = '# no'\n", Some(10));
        check(
            "Python",
            "def f(a: int = {'b': 1}) -> 'x':\n    r'''Does it.'''\n    return '''no'''\n",
            Some(9),
        );
        check(
            "Python",
            "class A:\n    x = 1\n    'no'\n    async def g(self): \"no\"\n    def h(a=''): \"yes\"\n",
            Some(4),
        );
    }
}
