//! LaTeX source to text: what a reader of the printed page would read, formulas as they stand in the source.
//!
//! Files are included, the paper's own macros expanded, within limits; comments, floats, references and layout go. What
//! is not known is left out, and what stands in braces behind it is kept.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use unicode_normalization::UnicodeNormalization;

use super::Files;
use crate::prose::Prose;

/// Files and macros inside each other, at most; TeX itself stops at about 200 files and 10,000 macros.
const INPUTS_MAX: usize = 256;
/// Expansions of macros in a paper, at most; papers have some thousand.
const EXPANSIONS_MAX: usize = 500_000;
/// Arguments inside arguments that are converted on their own (captions, footnotes, headings), at most.
const NESTING_MAX: usize = 16;

#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) keep_captions: bool,
    pub(super) keep_footnotes: bool,
    /// Bytes that macros and files may give, at most.
    pub(super) bytes_max: usize,
}

#[derive(Debug)]
pub(super) struct Document {
    pub(super) text: String,
    pub(super) title: String,
    pub(super) main_file: String,
}

/// Converts the paper that `files` hold; `Err` with the reason when they hold none.
pub(super) fn read(files: &Files, options: Options) -> Result<Document, &'static str> {
    let (main_file, source) = main_file(files).ok_or("no_tex")?;
    let mut reader = Reader {
        files,
        options,
        inputs: vec![Input { text: Rc::from(source), at: 0 }],
        macros: HashMap::new(),
        environments: HashMap::new(),
        conditions: HashMap::new(),
        prose: Prose::default(),
        notes: Vec::new(),
        title: String::new(),
        is_body: !source.contains("\\begin{document}"),
        is_behind_reference: false,
        is_over: false,
        n_expansions: 0,
        n_bytes: 0,
        nesting: 0,
    };
    reader.run()?;
    reader.flush_notes();
    let title = std::mem::take(&mut reader.title);
    let mut text = reader.prose.finish();
    if !title.is_empty() && !text.is_empty() {
        text = format!("{title}\n\n{text}");
    }
    Ok(Document { text, title, main_file: main_file.to_owned() })
}

/// Returns the file that a paper begins with: of those with a document class the one that is called like one, or the longest.
fn main_file(files: &Files) -> Option<(&str, &str)> {
    let is_main = |text: &str| {
        text.contains("\\begin{document}")
            && (text.contains("\\documentclass") || text.contains("\\documentstyle"))
    };
    let rank = |(name, text): &(&String, &String)| {
        let stem = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
        let has_name = ["main.", "ms.", "paper.", "article."].iter().any(|n| stem.starts_with(n));
        (is_main(text), has_name, text.len())
    };
    // Of equals the first by name: `max_by_key` takes the last.
    let main = files.iter().rev().max_by_key(|file| rank(file))?;
    Some((main.0.as_str(), main.1.as_str()))
}

#[derive(Clone, Debug)]
struct Macro {
    n_arguments: usize,
    /// The first argument where none is given in brackets.
    default: Option<String>,
    body: Rc<str>,
}

/// Text that is being read.
#[derive(Clone, Debug)]
struct Input {
    text: Rc<str>,
    at: usize,
}

struct Reader<'a> {
    files: &'a BTreeMap<String, String>,
    options: Options,
    inputs: Vec<Input>,
    macros: HashMap<String, Macro>,
    /// What a paper's own environments begin and end with.
    environments: HashMap<String, (Macro, Rc<str>)>,
    /// `\newif` switches.
    conditions: HashMap<String, bool>,
    prose: Prose,
    notes: Vec<String>,
    title: String,
    /// Whether text counts: it does from `\begin{document}`.
    is_body: bool,
    /// Whether a reference was left out right here.
    is_behind_reference: bool,
    /// Whether `\end{document}` was read.
    is_over: bool,
    n_expansions: usize,
    n_bytes: usize,
    nesting: usize,
}

/// Environments of formulas, which are kept as they are.
const MATH: &[&str] = &[
    "equation",
    "align",
    "aligned",
    "alignat",
    "flalign",
    "gather",
    "multline",
    "eqnarray",
    "math",
    "displaymath",
    "dmath",
    "IEEEeqnarray",
    "subequations",
];
/// Environments that are not part of the text.
const DROPPED: &[&str] = &[
    "thebibliography",
    "references",
    "comment",
    "tikzpicture",
    "picture",
    "pgfpicture",
    "filecontents",
    "CCSXML",
    "tabular",
    "tabularx",
    "tabulary",
    "longtable",
    "tabu",
    "array",
    "algorithmic",
    "IEEEbiography",
    "keywords",
    "pspicture",
    "overpic",
    "forest",
];
/// Environments that float; their captions may be kept.
const FLOATS: &[&str] = &[
    "figure",
    "table",
    "wrapfigure",
    "wraptable",
    "sidewaysfigure",
    "sidewaystable",
    "SCfigure",
    "algorithm",
    "algorithm2e",
    "teaserfigure",
    "listing",
    "floatingfigure",
    "marginfigure",
];
const VERBATIM: &[&str] = &["verbatim", "lstlisting", "minted", "Verbatim", "alltt"];

/// Commands without text, and the arguments that go with them; ones in brackets go too.
const SILENT: &[(&str, usize)] = &[
    ("label", 1),
    ("ref", 1),
    ("eqref", 1),
    ("pageref", 1),
    ("autoref", 1),
    ("cref", 1),
    ("Cref", 1),
    ("nameref", 1),
    ("vref", 1),
    ("vspace", 1),
    ("hspace", 1),
    ("includegraphics", 1),
    ("usepackage", 1),
    ("RequirePackage", 1),
    ("documentclass", 1),
    ("documentstyle", 1),
    ("bibliography", 1),
    ("bibliographystyle", 1),
    ("setcounter", 2),
    ("addtocounter", 2),
    ("setlength", 2),
    ("addtolength", 2),
    ("pagestyle", 1),
    ("thispagestyle", 1),
    ("pagenumbering", 1),
    ("color", 1),
    ("definecolor", 3),
    ("colorlet", 2),
    ("hyphenation", 1),
    ("index", 1),
    ("graphicspath", 1),
    ("author", 1),
    ("date", 1),
    ("thanks", 1),
    ("affiliation", 1),
    ("affil", 1),
    ("email", 1),
    ("address", 1),
    ("institute", 1),
    ("orcid", 1),
    ("keywords", 1),
    ("rule", 2),
    ("raisebox", 1),
    ("textcolor", 1),
    ("fontsize", 2),
    ("hypersetup", 1),
    ("lstset", 1),
    ("captionsetup", 1),
    ("newcounter", 1),
    ("resizebox", 2),
    ("scalebox", 1),
    ("parbox", 1),
    ("multirow", 2),
    ("multicolumn", 2),
    ("cline", 1),
    ("nocite", 1),
    ("phantom", 1),
    ("vphantom", 1),
    ("hphantom", 1),
    ("newtheorem", 2),
    ("theoremstyle", 1),
    ("newlength", 1),
    ("setcitestyle", 1),
    ("usetikzlibrary", 1),
    ("PassOptionsToPackage", 2),
    ("runningtitle", 1),
    ("titlerunning", 1),
    ("authorrunning", 1),
    ("markboth", 2),
    ("footnotetext", 1),
    ("fancyhead", 1),
    ("fancyfoot", 1),
    ("lhead", 1),
    ("rhead", 1),
    ("cfoot", 1),
    ("numberwithin", 2),
    ("allowdisplaybreaks", 0),
    ("addcontentsline", 3),
    ("newsavebox", 1),
    ("colorbox", 1),
    ("DeclareGraphicsExtensions", 1),
    ("acmDOI", 1),
    ("acmISBN", 1),
    ("acmYear", 1),
    ("copyrightyear", 1),
    ("ccsdesc", 1),
    ("tableofcontents", 0),
    ("setstretch", 1),
    ("fontfamily", 1),
    ("fontseries", 1),
    ("fontshape", 1),
    ("linespread", 1),
    ("hskip", 0),
    ("tag", 1),
    ("enlargethispage", 1),
];

const SECTIONS: &[&str] =
    &["part", "chapter", "section", "subsection", "subsubsection", "paragraph", "subparagraph"];

/// Commands for letters and signs.
const SYMBOLS: &[(&str, &str)] = &[
    ("ss", "ß"),
    ("ae", "æ"),
    ("AE", "Æ"),
    ("oe", "œ"),
    ("OE", "Œ"),
    ("o", "ø"),
    ("O", "Ø"),
    ("aa", "å"),
    ("AA", "Å"),
    ("l", "ł"),
    ("L", "Ł"),
    ("i", "ı"),
    ("j", "ȷ"),
    ("dh", "ð"),
    ("DH", "Ð"),
    ("th", "þ"),
    ("TH", "Þ"),
    ("dag", "†"),
    ("ddag", "‡"),
    ("S", "§"),
    ("P", "¶"),
    ("copyright", "©"),
    ("pounds", "£"),
    ("euro", "€"),
    ("ldots", "…"),
    ("dots", "…"),
    ("textellipsis", "…"),
    ("textendash", "–"),
    ("textemdash", "—"),
    ("LaTeX", "LaTeX"),
    ("TeX", "TeX"),
    ("BibTeX", "BibTeX"),
    ("textbackslash", "\\"),
    ("textasciitilde", "~"),
    ("texttildelow", "~"),
    ("textasciicircum", "^"),
    ("textbar", "|"),
    ("textless", "<"),
    ("textgreater", ">"),
    ("textquoteleft", "‘"),
    ("textquoteright", "’"),
    ("textquotedblleft", "“"),
    ("textquotedblright", "”"),
    ("textregistered", "®"),
    ("texttrademark", "™"),
    ("textdegree", "°"),
    ("degree", "°"),
    ("textmu", "µ"),
    ("textbullet", "•"),
    ("quad", " "),
    ("qquad", " "),
    ("space", " "),
    ("thinspace", " "),
    ("slash", "/"),
    ("textunderscore", "_"),
    ("nobreakspace", " "),
    ("nobreakdash", ""),
    ("newline", "\n"),
    ("guillemotleft", "«"),
    ("guillemotright", "»"),
    ("textperiodcentered", "·"),
    ("textdollar", "$"),
    ("textpm", "±"),
    ("texttimes", "×"),
    ("hfill", " "),
    ("lq", "‘"),
    ("rq", "’"),
    ("ng", "ŋ"),
    ("NG", "Ŋ"),
    ("dj", "đ"),
    ("DJ", "Đ"),
];

/// What no space comes before after `\xspace`. Source: the package's documentation.
const XSPACE_EXCEPTIONS: [char; 14] =
    ['.', ',', '\'', '/', '?', ';', ':', '!', '~', '-', ')', '{', '}', '%'];

/// Accents, by command, and the combining characters for them.
const ACCENTS: &[(&str, char)] = &[
    ("`", '\u{300}'),
    ("'", '\u{301}'),
    ("^", '\u{302}'),
    ("~", '\u{303}'),
    ("=", '\u{304}'),
    ("u", '\u{306}'),
    (".", '\u{307}'),
    ("\"", '\u{308}'),
    ("r", '\u{30a}'),
    ("H", '\u{30b}'),
    ("v", '\u{30c}'),
    ("d", '\u{323}'),
    ("c", '\u{327}'),
    ("k", '\u{328}'),
    ("b", '\u{331}'),
    ("t", '\u{361}'),
];

fn entry<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

type Step = Result<(), &'static str>;

impl Reader<'_> {
    fn run(&mut self) -> Step {
        while !self.is_over {
            let Some(rest) = self.rest() else { return Ok(()) };
            let first = rest.chars().next().expect("a rest is not empty");
            match first {
                '\\' => {
                    let name = self.command_name();
                    self.command(&name)?;
                }
                '{' | '}' => self.advance(1),
                '%' => {
                    self.skip_comment();
                    // The line feed that would end the comment's line is gone: this one ends an empty line.
                    if self.rest().is_some_and(|rest| rest.starts_with('\n')) {
                        self.paragraph();
                    }
                }
                '$' => self.formula(),
                '~' => {
                    self.advance(1);
                    self.write(" ");
                }
                '&' => {
                    self.advance(1);
                    self.write(" ");
                }
                first if first.is_whitespace() => self.space(),
                _ => {
                    let rest = self.rest().unwrap_or_default();
                    let is_special = |c: char| "\\{}%$~&".contains(c) || c.is_whitespace();
                    let end = rest.find(is_special).unwrap_or(rest.len());
                    let text = rest[..end].to_owned();
                    self.advance(end);
                    self.text(&text);
                }
            }
        }
        Ok(())
    }

    /// What is left of the innermost input; `None` at the end of all.
    fn rest(&mut self) -> Option<&str> {
        while self.inputs.last().is_some_and(|input| input.at >= input.text.len()) {
            self.inputs.pop();
        }
        self.inputs.last().map(|input| &input.text[input.at..])
    }

    fn advance(&mut self, bytes: usize) {
        if let Some(input) = self.inputs.last_mut() {
            input.at += bytes;
        }
    }

    fn push(&mut self, text: Rc<str>) -> Step {
        self.rest();
        self.n_expansions += 1;
        self.n_bytes += text.len();
        if self.inputs.len() >= INPUTS_MAX
            || self.n_expansions > EXPANSIONS_MAX
            || self.n_bytes > self.options.bytes_max.saturating_mul(4)
        {
            return Err("too_many_expansions");
        }
        self.inputs.push(Input { text, at: 0 });
        Ok(())
    }

    /// Passes over a comment, the end of its line and what indents the next one.
    fn skip_comment(&mut self) {
        let rest = self.rest().unwrap_or_default();
        let end = memchr::memchr(b'\n', rest.as_bytes()).map_or(rest.len(), |at| at + 1);
        let indent = rest[end..].len() - rest[end..].trim_start_matches([' ', '\t']).len();
        self.advance(end + indent);
    }

    fn space(&mut self) {
        let rest = self.rest().unwrap_or_default();
        let end = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
        let is_paragraph = rest[..end].bytes().filter(|&byte| byte == b'\n').count() > 1;
        self.advance(end);
        if is_paragraph { self.paragraph() } else { self.write(" ") }
    }

    fn paragraph(&mut self) {
        self.prose.break_lines(2);
        self.flush_notes();
    }

    fn flush_notes(&mut self) {
        for note in std::mem::take(&mut self.notes) {
            self.prose.block(&note);
        }
    }

    fn text(&mut self, text: &str) {
        let text =
            text.replace("---", "—").replace("--", "–").replace("``", "“").replace("''", "”");
        if std::mem::take(&mut self.is_behind_reference)
            && text.starts_with(['.', ',', ';', ':', ')'])
        {
            self.prose.join();
        }
        self.write(&text);
    }

    fn write(&mut self, text: &str) {
        if self.is_body {
            self.prose.words(text);
        }
    }

    /// Reads a command's name: letters, or one other character.
    fn command_name(&mut self) -> String {
        let rest = &self.rest().unwrap_or_default()[1..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let end = if letters > 0 { letters } else { rest.chars().next().map_or(0, char::len_utf8) };
        let name = rest[..end].to_owned();
        // Letters end a name, and so does a space, which goes; an empty line does not.
        let after = &rest[end..];
        let blank = after.len() - after.trim_start_matches([' ', '\t']).len();
        let line = usize::from(after[blank..].starts_with('\n'));
        let is_paragraph = after[blank + line..].trim_start_matches([' ', '\t']).starts_with('\n');
        let skipped = match (letters > 0, line == 1 && is_paragraph) {
            (false, _) => 0,
            (true, true) => blank,
            (true, false) => blank + line,
        };
        self.advance(1 + end + skipped);
        name
    }

    fn command(&mut self, name: &str) -> Step {
        let is_star = self.rest().is_some_and(|rest| rest.starts_with('*'));
        match name {
            "begin" => return self.begin(),
            "end" => return self.end(),
            "input" | "include" | "subfile" | "InputIfFileExists" => return self.include(),
            "import" | "subimport" => {
                let folder = self.argument();
                let file = self.argument();
                return self.include_file(&format!("{folder}/{file}"));
            }
            "newcommand"
            | "renewcommand"
            | "providecommand"
            | "DeclareRobustCommand"
            | "newcommandx" => self.define(),
            "def" | "gdef" | "edef" | "xdef" => self.define_plain(),
            "let" | "futurelet" => self.alias(),
            "DeclareMathOperator" => {
                self.star();
                let name = self.argument();
                let body = self.argument();
                let body = Rc::from(format!("\\operatorname{{{body}}}"));
                let name = name.trim().trim_start_matches('\\').to_owned();
                self.macros.insert(name, Macro { n_arguments: 0, default: None, body });
            }
            "newenvironment" | "renewenvironment" => self.define_environment(),
            "title" => {
                self.optional();
                let title = self.argument();
                self.title = self.convert(&title)?;
            }
            "newif" => {
                self.blank();
                let name = self.command_at();
                self.conditions.insert(name, false);
            }
            "iffalse" => self.skip_branch(),
            "else" => self.skip_branch(),
            name if self.conditions.contains_key(name) => {
                if !self.conditions[name] {
                    self.skip_branch();
                }
            }
            name if self.switch(name) => {}
            name if SECTIONS.contains(&name) => {
                self.star();
                self.optional();
                let heading = self.argument();
                let heading = self.convert(&heading)?;
                self.paragraph();
                if self.is_body {
                    self.prose.block(&heading);
                }
            }
            "caption" => {
                self.star();
                self.optional();
                let caption = self.argument();
                self.block(&caption, self.options.keep_captions)?;
            }
            "footnote" | "footnotetext" => {
                self.optional();
                let note = self.argument();
                if self.options.keep_footnotes && self.is_body {
                    let note = self.convert(&note)?;
                    self.notes.push(note);
                }
            }
            "item" => {
                let label = self.optional();
                if self.is_body {
                    self.prose.item();
                }
                if let Some(label) = label {
                    let label = self.convert(&label)?;
                    self.write(&label);
                    self.write(" ");
                }
            }
            "href" => {
                self.argument();
            }
            "url" | "nolinkurl" | "path" => {
                let url = self.argument();
                self.write(&url);
            }
            "verb" | "lstinline" => self.verb(),
            "(" => self.delimited("\\(", "\\)"),
            "[" => {
                self.prose.break_lines(2);
                self.delimited("\\[", "\\]");
                self.prose.break_lines(2);
            }
            "par" => self.paragraph(),
            "\\" | "newline" | "tabularnewline" => {
                self.star();
                self.optional();
                if self.is_body {
                    self.prose.break_lines(1);
                }
            }
            name if name.to_ascii_lowercase().contains("cite")
                && !self.macros.contains_key(name) =>
            {
                self.silence(1);
            }
            name if self.macros.contains_key(name) => return self.expand(name),
            name => {
                if let Some(n_arguments) = entry(SILENT, name) {
                    self.silence(n_arguments);
                } else if let Some(accent) = entry(ACCENTS, name) {
                    self.accent(accent)?;
                } else if let Some(symbol) = entry(SYMBOLS, name) {
                    self.symbol(symbol);
                } else {
                    self.other(name, is_star);
                }
            }
        }
        Ok(())
    }

    fn symbol(&mut self, symbol: &str) {
        // Of a name that ended with a space the braces behind it are for show.
        if self.rest().is_some_and(|rest| rest.starts_with("{}")) {
            self.advance(2);
        }
        self.write(symbol);
    }

    /// Writes a sign, or passes over a command that is not known.
    fn other(&mut self, name: &str, is_star: bool) {
        match name {
            "&" | "%" | "$" | "#" | "_" | "{" | "}" => self.text(name),
            " " | "," | ";" | ":" | "\n" | "\t" | ">" => self.write(" "),
            // Gives back the space that the end of a macro's name took, but before punctuation.
            "xspace" => {
                let is_joined = self.rest().is_some_and(|rest| rest.starts_with(XSPACE_EXCEPTIONS));
                self.write(if is_joined { "" } else { " " });
            }
            "" | "-" | "/" | "!" | "@" | "<" | "+" => {}
            _ if name.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
                if is_star {
                    self.star();
                }
                self.optional();
            }
            _ => {}
        }
    }

    /// Passes over a command's arguments.
    fn silence(&mut self, n_arguments: usize) {
        self.star();
        while self.optional().is_some() {}
        for _ in 0..n_arguments {
            if !self.rest().is_some_and(|rest| rest.trim_start().starts_with('{')) {
                break;
            }
            self.argument();
            while self.optional().is_some() {}
        }
        self.is_behind_reference = true;
    }

    fn accent(&mut self, accent: char) -> Step {
        let base = self.argument();
        let base = match base.trim() {
            "\\i" => "i".to_owned(),
            "\\j" => "j".to_owned(),
            base => self.convert(base)?,
        };
        let mut characters = base.chars();
        let mut composed = String::new();
        if let Some(first) = characters.next() {
            composed.extend([first, accent].into_iter().nfc());
        }
        composed.push_str(characters.as_str());
        self.write(&composed);
        Ok(())
    }

    fn begin(&mut self) -> Step {
        let full_name = self.argument();
        let full_name = full_name.trim();
        let name = full_name.trim_end_matches('*');
        if name == "document" {
            self.is_body = true;
        } else if let Some((begin, _)) = self.environments.get(full_name).cloned() {
            return self.expand_macro(&begin);
        } else if MATH.contains(&name) {
            let body = self.raw_until_end(full_name);
            let body = self.expand_formula(&body)?;
            if self.is_body {
                self.prose.break_lines(2);
                let body = body.trim_matches('\n');
                self.prose
                    .verbatim(&format!("\\begin{{{full_name}}}\n{body}\n\\end{{{full_name}}}"));
                self.prose.break_lines(2);
            }
        } else if VERBATIM.contains(&name) {
            let body = self.raw_until_end(full_name);
            if self.is_body {
                self.prose.break_lines(2);
                self.prose.verbatim(body.trim_matches('\n'));
                self.prose.break_lines(2);
            }
        } else if FLOATS.contains(&name) {
            let body = self.raw_until_end(full_name);
            for caption in captions(&body) {
                self.block(caption, self.options.keep_captions)?;
            }
        } else if DROPPED.contains(&name) {
            self.raw_until_end(full_name);
        } else {
            self.paragraph();
            self.optional();
            let takes_argument = matches!(
                name,
                "minipage" | "multicols" | "spacing" | "adjustwidth" | "tcolorbox" | "parbox"
            );
            if takes_argument && self.rest().is_some_and(|rest| rest.starts_with('{')) {
                self.argument();
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Step {
        let name = self.argument();
        let name = name.trim();
        if name == "document" {
            self.is_over = true;
        } else if let Some((_, end)) = self.environments.get(name).cloned() {
            return self.push(end);
        } else {
            self.paragraph();
        }
        Ok(())
    }

    /// Writes the text of `source` as a block.
    fn block(&mut self, source: &str, is_kept: bool) -> Step {
        if is_kept && self.is_body {
            let text = self.convert(source)?;
            self.prose.block(&text);
        }
        Ok(())
    }

    /// Returns what stands before `\end{name}`, and passes over it.
    fn raw_until_end(&mut self, name: &str) -> String {
        let mark = format!("\\end{{{name}}}");
        let rest = self.rest().unwrap_or_default();
        let (body, used) = match rest.find(&mark) {
            Some(at) => (rest[..at].to_owned(), at + mark.len()),
            // The end of an environment that a macro began stands elsewhere.
            None => (rest.to_owned(), rest.len()),
        };
        self.advance(used);
        body
    }

    fn include(&mut self) -> Step {
        let name = if self.rest().is_some_and(|rest| rest.trim_start().starts_with('{')) {
            self.argument()
        } else {
            let rest = self.rest().unwrap_or_default();
            let end = rest.find(|c: char| c.is_whitespace() || c == '\\').unwrap_or(rest.len());
            let name = rest[..end].to_owned();
            self.advance(end);
            name
        };
        self.include_file(&name)
    }

    fn include_file(&mut self, name: &str) -> Step {
        let parts = name.trim().trim_matches('"').split('/');
        let name: Vec<&str> = parts.filter(|part| !part.is_empty() && *part != ".").collect();
        let name = name.join("/");
        let file = self.files.get(&name).or_else(|| self.files.get(&format!("{name}.tex")));
        // Packages are often packed with their folder around them.
        let file = file.or_else(|| {
            let is_it = |path: &str| {
                path.strip_suffix(".tex").unwrap_or(path).ends_with(&format!("/{name}"))
                    || path.ends_with(&format!("/{name}"))
            };
            self.files.iter().find(|(path, _)| is_it(path)).map(|(_, text)| text)
        });
        match file {
            Some(text) => {
                let text = Rc::from(text.as_str());
                self.push(text)
            }
            None => Ok(()),
        }
    }

    fn define(&mut self) {
        self.star();
        let name = self.argument();
        let n_arguments = self.optional().and_then(|n| n.trim().parse().ok()).unwrap_or(0);
        let default = self.optional();
        let body = Rc::from(self.argument());
        let name = name.trim().trim_start_matches('\\').to_owned();
        if !name.is_empty() {
            self.macros.insert(name, Macro { n_arguments, default, body });
        }
    }

    fn define_plain(&mut self) {
        self.blank();
        let name = self.command_at();
        let rest = self.rest().unwrap_or_default();
        let Some(end) = rest.find('{') else { return };
        let parameters = rest[..end].to_owned();
        self.advance(end);
        let body = Rc::from(self.argument());
        let n_arguments = parameters.matches('#').count();
        // Arguments with other delimiters than braces are TeX programs, not words.
        let is_plain =
            parameters.chars().all(|c| c == '#' || c.is_ascii_digit() || c.is_whitespace());
        if is_plain && !name.is_empty() {
            self.macros.insert(name, Macro { n_arguments, default: None, body });
        }
    }

    fn alias(&mut self) {
        self.blank();
        let name = self.command_at();
        self.blank();
        if self.rest().is_some_and(|rest| rest.starts_with('=')) {
            self.advance(1);
            self.blank();
        }
        if !self.rest().is_some_and(|rest| rest.starts_with('\\')) {
            return;
        }
        let target = self.command_at();
        let meaning = self.macros.get(&target).cloned().unwrap_or_else(|| Macro {
            n_arguments: 0,
            default: None,
            body: Rc::from(format!("\\{target} ")),
        });
        if name != target && !name.is_empty() {
            self.macros.insert(name, meaning);
        }
    }

    fn define_environment(&mut self) {
        self.star();
        let name = self.argument();
        let n_arguments = self.optional().and_then(|n| n.trim().parse().ok()).unwrap_or(0);
        let default = self.optional();
        let begin = Rc::from(self.argument());
        let end: Rc<str> = Rc::from(self.argument());
        let begin = Macro { n_arguments, default, body: begin };
        self.environments.insert(name.trim().to_owned(), (begin, end));
    }

    /// Sets the switch of a `\newif` where `name` does so (`\draftfalse`).
    fn switch(&mut self, name: &str) -> bool {
        for (end, value) in [("true", true), ("false", false)] {
            let condition = name.strip_suffix(end).map(|stem| format!("if{stem}"));
            if let Some(condition) = condition.and_then(|name| self.conditions.get_mut(&name)) {
                *condition = value;
                return true;
            }
        }
        false
    }

    /// Passes over a branch that is not taken, to its `\else` or `\fi`.
    fn skip_branch(&mut self) {
        let mut depth = 0;
        while let Some(rest) = self.rest() {
            let Some(at) = rest.find(['\\', '%']) else {
                let end = rest.len();
                self.advance(end);
                continue;
            };
            let is_comment = rest[at..].starts_with('%');
            self.advance(at);
            if is_comment {
                self.skip_comment();
                continue;
            }
            match self.command_name().as_str() {
                "fi" if depth == 0 => return,
                "fi" => depth -= 1,
                "else" if depth == 0 => return,
                name if name.starts_with("if") => depth += 1,
                _ => {}
            }
        }
    }

    fn expand(&mut self, name: &str) -> Step {
        let meaning = self.macros[name].clone();
        self.expand_macro(&meaning)
    }

    fn expand_macro(&mut self, meaning: &Macro) -> Step {
        let mut arguments = Vec::with_capacity(meaning.n_arguments);
        if let Some(default) = &meaning.default {
            arguments.push(self.optional().unwrap_or_else(|| default.clone()));
        }
        while arguments.len() < meaning.n_arguments {
            arguments.push(self.argument());
        }
        if arguments.is_empty() {
            return self.push(Rc::clone(&meaning.body));
        }
        let body = substitute(&meaning.body, &arguments, self.options.bytes_max)?;
        self.push(Rc::from(body))
    }

    /// Writes an inline or displayed formula that begins with a dollar sign.
    fn formula(&mut self) {
        let is_display = self.rest().is_some_and(|rest| rest.starts_with("$$"));
        let mark = if is_display { "$$" } else { "$" };
        self.advance(mark.len());
        if is_display {
            self.prose.break_lines(2);
        }
        self.delimited(mark, mark);
        if is_display {
            self.prose.break_lines(2);
        }
    }

    fn delimited(&mut self, open: &str, close: &str) {
        let rest = self.rest().unwrap_or_default();
        let Some(end) = find_unescaped(rest, close) else { return };
        let body = rest[..end].to_owned();
        self.advance(end + close.len());
        // A formula whose macros cannot be expanded stays as it is.
        let body = self.expand_formula(&body).unwrap_or(body);
        self.is_behind_reference = false;
        self.write(&format!("{open}{}{close}", body.trim()));
    }

    /// Expands a paper's own macros in a formula, and leaves out labels and comments.
    fn expand_formula(&mut self, formula: &str) -> Result<String, &'static str> {
        let outer =
            std::mem::replace(&mut self.inputs, vec![Input { text: Rc::from(formula), at: 0 }]);
        let result = self.expand_inputs();
        self.inputs = outer;
        result
    }

    fn expand_inputs(&mut self) -> Result<String, &'static str> {
        let mut out = String::new();
        while let Some(rest) = self.rest() {
            let at = rest.find(['\\', '%']).unwrap_or(rest.len());
            // A name does not run into the letters that a macro leaves behind it.
            let is_glued =
                rest.starts_with(|c: char| c.is_ascii_alphabetic()) && ends_with_command(&out);
            if is_glued {
                out.push(' ');
            }
            out.push_str(&rest[..at]);
            let (is_end, is_comment) = (at == rest.len(), rest[at..].starts_with('%'));
            self.advance(at);
            if is_end {
                continue;
            }
            if is_comment {
                self.skip_comment();
                continue;
            }
            let rest = &self.rest().unwrap_or_default()[1..];
            let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            let end = letters.max(rest.chars().next().map_or(0, char::len_utf8));
            let name = rest[..end].to_owned();
            self.advance(1 + end);
            if name == "label" {
                self.argument();
            } else if self.macros.contains_key(&name) {
                self.expand(&name)?;
            } else {
                out.push('\\');
                out.push_str(&name);
            }
            if out.len() > self.options.bytes_max {
                return Err("too_many_expansions");
            }
        }
        Ok(out)
    }

    fn verb(&mut self) {
        self.star();
        self.optional();
        let rest = self.rest().unwrap_or_default();
        let Some(mark) = rest.chars().next() else { return };
        let close = if mark == '{' { '}' } else { mark };
        let from = mark.len_utf8();
        let Some(end) = rest[from..].find(close) else { return };
        let text = rest[from..from + end].to_owned();
        self.advance(from + end + close.len_utf8());
        self.write(&text);
    }

    /// Converts `source` on its own, with the macros known here.
    fn convert(&mut self, source: &str) -> Result<String, &'static str> {
        if self.nesting >= NESTING_MAX {
            return Err("too_many_expansions");
        }
        self.nesting += 1;
        let inputs = vec![Input { text: Rc::from(source), at: 0 }];
        let outer_inputs = std::mem::replace(&mut self.inputs, inputs);
        let outer_prose = std::mem::take(&mut self.prose);
        let outer_body = std::mem::replace(&mut self.is_body, true);
        let result = self.run();
        let text = std::mem::replace(&mut self.prose, outer_prose).finish();
        (self.inputs, self.is_body) = (outer_inputs, outer_body);
        self.nesting -= 1;
        result.map(|()| text)
    }

    fn star(&mut self) {
        if self.rest().is_some_and(|rest| rest.starts_with('*')) {
            self.advance(1);
        }
    }

    /// Passes over white space and comments, but not over the end of a paragraph.
    fn blank(&mut self) {
        while let Some(rest) = self.rest() {
            if rest.starts_with('%') {
                self.skip_comment();
                continue;
            }
            let end = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
            let is_paragraph = rest[..end].bytes().filter(|&byte| byte == b'\n').count() > 1;
            if end == 0 || is_paragraph {
                return;
            }
            self.advance(end);
        }
    }

    /// Reads the name of the command that comes next, without the space behind it being needed.
    fn command_at(&mut self) -> String {
        if self.rest().is_some_and(|rest| rest.starts_with('\\')) {
            self.command_name()
        } else {
            String::new()
        }
    }

    /// Reads an argument: a group without its braces, a command, or a character.
    fn argument(&mut self) -> String {
        self.blank();
        let Some(rest) = self.rest() else { return String::new() };
        if rest.starts_with('{') {
            let end = group_end(rest, '{', '}');
            let inner = rest[1..end].to_owned();
            let used = (end + 1).min(rest.len());
            self.advance(used);
            return inner;
        }
        if rest.starts_with('\\') {
            return format!("\\{}", self.command_name());
        }
        let Some(first) = rest.chars().next() else { return String::new() };
        self.advance(first.len_utf8());
        first.to_string()
    }

    /// Reads an argument in brackets.
    fn optional(&mut self) -> Option<String> {
        let rest = self.rest()?;
        let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\n']).len();
        let is_paragraph = rest[..blank].bytes().filter(|&byte| byte == b'\n').count() > 1;
        if is_paragraph || !rest[blank..].starts_with('[') {
            return None;
        }
        let end = blank + group_end(&rest[blank..], '[', ']');
        let inner = rest[blank + 1..end].to_owned();
        let used = (end + 1).min(rest.len());
        self.advance(used);
        Some(inner)
    }
}

/// Returns where the group that `text` begins with ends: at its closing mark, or at the end of the text.
fn group_end(text: &str, open: char, close: char) -> usize {
    let (mut braces, mut brackets, mut is_escaped, mut is_comment) =
        (0_usize, 0_usize, false, false);
    for (at, c) in text.char_indices() {
        if is_comment {
            is_comment = c != '\n';
            continue;
        }
        if std::mem::take(&mut is_escaped) {
            continue;
        }
        match c {
            '\\' => is_escaped = true,
            '%' => is_comment = true,
            '{' => braces += 1,
            '}' if braces == 0 => return at,
            '}' => braces -= 1,
            _ if c == open && braces == 0 => brackets += 1,
            _ if c == close && braces == 0 => brackets = brackets.saturating_sub(1),
            _ => {}
        }
        let is_end = c == close && braces == 0 && brackets == 0;
        if is_end && at > 0 {
            return at;
        }
    }
    text.len()
}

/// Returns where `mark` stands without a backslash before it, in the same paragraph.
fn find_unescaped(text: &str, mark: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(found) = text[from..].find(mark) {
        let at = from + found;
        if text[..at].contains("\n\n") {
            return None;
        }
        let backslashes = text[..at].bytes().rev().take_while(|&byte| byte == b'\\').count();
        if backslashes % 2 == 0 {
            return Some(at);
        }
        from = at + mark.len();
    }
    None
}

/// Puts arguments where a macro's body has `#1` to `#9`.
fn substitute(body: &str, arguments: &[String], bytes_max: usize) -> Result<String, &'static str> {
    let mut out = String::with_capacity(body.len());
    let mut characters = body.chars().peekable();
    while let Some(c) = characters.next() {
        let number = characters.peek().and_then(|digit| digit.to_digit(10));
        match (c, number) {
            ('#', Some(number)) => {
                characters.next();
                let index = (number as usize).wrapping_sub(1);
                out.push_str(arguments.get(index).map_or("", String::as_str));
            }
            _ => out.push(c),
        }
        if out.len() > bytes_max {
            return Err("too_many_expansions");
        }
    }
    Ok(out)
}

/// Returns the arguments of the `\caption` commands of a float.
fn captions(body: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = body;
    while let Some(at) = rest.find("\\caption") {
        let line = rest[..at].rsplit('\n').next().unwrap_or_default();
        let is_comment = line.contains('%') && !line.contains("\\%");
        rest = rest[at + "\\caption".len()..].trim_start_matches('*').trim_start();
        if rest.starts_with('[') {
            let end = group_end(rest, '[', ']');
            rest = rest.get(end + 1..).unwrap_or_default().trim_start();
        }
        if rest.starts_with('{') && !is_comment {
            let end = group_end(rest, '{', '}');
            found.push(&rest[1..end]);
            rest = &rest[end..];
        }
    }
    found
}

/// Whether `text` ends with the name of a command.
fn ends_with_command(text: &str) -> bool {
    let name = text.bytes().rev().take_while(u8::is_ascii_alphabetic).count();
    name > 0 && text[..text.len() - name].ends_with('\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Options =
        Options { keep_captions: true, keep_footnotes: true, bytes_max: 1 << 20 };

    fn convert(source: &str) -> Result<String, &'static str> {
        let files = Files::from([("a.tex".to_owned(), source.to_owned())]);
        read(&files, OPTIONS).map(|document| document.text)
    }

    #[track_caller]
    fn check(source: &str, expected: &str) {
        assert_eq!(convert(source).as_deref(), Ok(expected), "{source}");
    }

    #[test]
    fn leaves_out_comments_layout_and_references() {
        check("a % b\n c\\vspace{1em} d", "a c d");
        check("100\\% of~it % x\n\nnext", "100% of it\n\nnext");
        check("shown~\\cite[p.~3]{a,b}. See Fig.~\\ref{x}, too", "shown. See Fig., too");
        check("\\begin{thebibliography}{9}\\bibitem{a} A\\end{thebibliography}b", "b");
        check("{\\bf bold} and \\emph{so} \\unknown[x]{kept}", "bold and so kept");
    }

    #[test]
    fn writes_accents_and_signs_as_unicode() {
        check(
            "\\'etude na\\\"{\\i}ve \\c{c}a Erd\\H{o}s \\v{S}koda \\~nu",
            "étude naïve ça Erdős Škoda ñu",
        );
        check(
            "stra\\ss e \\O rsted \\AA ngstr\\\"om \\L{}\\'od\\'z",
            "straße Ørsted Ångström Łódź",
        );
        check("``a''---b 1--2 \\ldots\\ \\copyright", "“a”—b 1–2 … ©");
    }

    #[test]
    fn keeps_formulas_and_expands_the_macros_in_them() {
        check("\\newcommand{\\R}{\\mathbb{R}}let $x \\in \\R$ be", "let $x \\in \\mathbb{R}$ be");
        check(
            "\\def\\E#1{E[#1]}a\\begin{equation}\n\\label{e}\\E{x}^2 % no\n\\end{equation}b",
            "a\n\n\\begin{equation}\nE[x]^2 \n\\end{equation}\n\nb",
        );
        check("a $$x$$ b \\[y\\] c \\(z\\)", "a\n\n$$x$$\n\nb\n\n\\[y\\]\n\nc \\(z\\)");
        check("\\newcommand{\\al}{\\alpha}$\\al x$", "$\\alpha x$");
        check("costs \\$5 and \\$6", "costs $5 and $6");
    }

    #[test]
    fn expands_macros_with_arguments_and_defaults() {
        check("\\newcommand{\\x}[2][d]{#2-#1}\\x{a} \\x[c]{b}", "a-d b-c");
        check("\\newcommand\\y{Y\\xspace}\\y z {\\y}.", "Y z Y.");
        check("\\let\\z=\\emph \\z{a}", "a");
        check(
            "\\newenvironment{box}[1]{Box #1: }{ end.}\\begin{box}{A}x\\end{box}",
            "Box A: x end.",
        );
    }

    #[test]
    fn writes_headings_items_notes_and_captions() {
        check(
            "\\section*{One}\\label{s}a\\footnote{N \\emph{b}.} c.\n\nd",
            "One\n\na c.\n\nN b.\n\nd",
        );
        check("\\begin{itemize}\\item a\n\\item[(x)] b\\end{itemize}c", "- a\n- (x) b\n\nc");
        check(
            "a\\begin{figure}[t]\\includegraphics{f}\\caption[s]{The \\textbf{f}.}\\end{figure}b",
            "a\n\nThe f.\n\nb",
        );
        check(
            "\\title{T \\\\ U}\\begin{document}\\maketitle\\begin{abstract}A\\end{abstract}B\\end{document}C",
            "T\nU\n\nA\n\nB",
        );
    }

    #[test]
    fn takes_the_branch_that_a_switch_says() {
        check(
            "\\newif\\ifx\\xfalse a\\ifx b\\else c\\fi d\\iffalse e\\iffalse\\fi f\\fi g",
            "acdg",
        );
        check("\\newif\\ifx\\xtrue a\\ifx b\\else c\\fi d", "abd");
    }

    #[test]
    fn stops_macros_that_never_end() {
        assert_eq!(convert("\\def\\a{\\a}\\a"), Err("too_many_expansions"));
        assert_eq!(convert("\\def\\a{\\a\\a}\\a"), Err("too_many_expansions"));
        assert_eq!(convert("\\def\\a#1{\\a{#1#1}}\\a{xx}"), Err("too_many_expansions"));
        let files = Files::from([("a.tex".to_owned(), "x \\input{a}".to_owned())]);
        assert_eq!(read(&files, OPTIONS).map(|_| ()), Err("too_many_expansions"));
        let deep = "\\footnote{".repeat(1000);
        assert_eq!(convert(&deep), Err("too_many_expansions"));
    }

    #[test]
    fn survives_source_that_is_cut_anywhere() {
        let source = "\\newcommand{\\x}[1]{#1}\\x{é}\\begin{equation}a\\end{equation}\\verb|x| $y$ \\'e \\[z\\]\\iffalse b\\fi\\item[c] % d";
        for end in (0..=source.len()).filter(|&end| source.is_char_boundary(end)) {
            assert!(convert(&source[..end]).is_ok(), "{end}");
        }
    }
}
