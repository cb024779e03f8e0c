//! The programming language of a file, by its name and its content.

use std::collections::HashMap;
use std::sync::LazyLock;

use linguist::definitions::LANGUAGES;

/// Languages in the order in which they are believed where names and content leave several, most files on GitHub first.
///
/// Linguist asks a Bayesian classifier here.
const BY_FREQUENCY: [&str; 40] = [
    "JavaScript",
    "HTML",
    "CSS",
    "Python",
    "Java",
    "C",
    "C++",
    "PHP",
    "TypeScript",
    "C#",
    "Ruby",
    "Go",
    "Shell",
    "Rust",
    "XML",
    "JSON",
    "Markdown",
    "YAML",
    "Text",
    "Objective-C",
    "Swift",
    "Kotlin",
    "Scala",
    "Perl",
    "Lua",
    "R",
    "Haskell",
    "OCaml",
    "MATLAB",
    "Verilog",
    "TeX",
    "SQL",
    "Assembly",
    "Common Lisp",
    "Clojure",
    "F#",
    "Pascal",
    "Prolog",
    "D",
    "GLSL",
];

/// Programs of `#!` lines to languages, as Linguist lists them.
static INTERPRETERS: LazyLock<HashMap<&'static str, &'static str>> = LazyLock::new(|| {
    let mut found: HashMap<&str, &str> = HashMap::new();
    for (name, language) in LANGUAGES.iter() {
        for program in language.interpreters.iter().flatten() {
            let entry = found.entry(program).or_insert(name);
            *entry = preferred(&[*entry, name]);
        }
    }
    found
});

/// Returns the language of the file at `path` by Linguist's rules: modeline, name, `#!` line, extension, content.
pub(in crate::source) fn language(path: &str, text: &str) -> Option<&'static str> {
    // A path that is not one, or an expression that does not end, is as good as no answer.
    let found = linguist::detect_language(path, Some(text)).unwrap_or_default();
    let names: Vec<&str> = found.iter().map(|language| language.name).collect();
    match names.as_slice() {
        [] => interpreter(text),
        [name] => Some(name),
        names => Some(
            interpreter(text)
                .filter(|name| names.contains(name))
                .unwrap_or_else(|| preferred(names)),
        ),
    }
}

/// Of several languages the most frequent one, or the first by name.
fn preferred<'a>(names: &[&'a str]) -> &'a str {
    let rank =
        |name: &str| BY_FREQUENCY.iter().position(|&known| known == name).unwrap_or(usize::MAX);
    names.iter().copied().min_by_key(|name| (rank(name), *name)).expect("there are several")
}

fn interpreter(text: &str) -> Option<&'static str> {
    let mut words = text.strip_prefix("#!")?.lines().next()?.split_ascii_whitespace();
    let program = words.next()?.rsplit('/').next()?;
    let program = if program == "env" {
        words.find(|word| !word.starts_with('-') && !word.contains('='))?
    } else {
        program
    };
    let versionless = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    [program, versionless].iter().find_map(|&name| INTERPRETERS.get(name).copied())
}

/// Whether a line of the language is a paragraph or a record, so that its length says nothing.
pub(super) fn is_prose_or_data(language: Option<&str>) -> bool {
    use linguist_types::LanguageType::{Data, Markup, Prose};
    let kind =
        language.and_then(|name| LANGUAGES.get(name)).map(|language| &language.language_type);
    matches!(kind, None | Some(Data | Prose | Markup))
        && !matches!(language, Some("CSS" | "SCSS" | "Less"))
}
