//! The reference page: everything a job or a query can name.

use std::fmt::Write;

use super::{FunctionKind, KINDS, filter};

/// Returns the reference of sources, filters, modifiers, deduplication methods and functions as Markdown.
///
/// Made from the registered kinds alone, so it cannot disagree with the program.
#[must_use]
pub fn reference() -> String {
    let mut page = Page(PREFACE.to_owned());
    page.sources();
    page.filters();
    page.modifiers();
    page.methods();
    page.line("\n## Functions\n");
    page.line("Further functions of SQL; those of DataFusion are there too.\n");
    KINDS.iter().for_each(|kind| page.function(kind));
    page.0
}

const PREFACE: &str = "\
# Reference

Generated from the program by `gristmill list --reference`. Every source is a `kind` of `[[source]]` and a table
function of SQL, every filter and modifier a `use` of `[[step]]` and a function of SQL. Settings are shown with
their defaults; in SQL they are a literal second argument: `length(text, 'min_words = 20')`.
";

struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn entry(&mut self, name: &str, summary: &str, source: &str) {
        self.line(&format!("\n### `{name}`\n\n{}.", sentence(summary)));
        if !source.is_empty() {
            self.line(&format!("Follows: {source}."));
        }
    }

    fn settings(&mut self, defaults: &toml::Table) {
        if !defaults.is_empty() {
            self.line(&format!("\n```toml\n{}\n```", defaults.to_string().trim_end()));
        }
    }

    fn names(&mut self, what: &str, names: &[&str]) {
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            self.line(&format!("\n{what}: {}.", names.join(", ")));
        }
    }

    fn sources(&mut self) {
        self.line("\n## Sources");
        for kind in ingest::source::KINDS {
            self.entry(kind.name, kind.summary, kind.source);
            self.names("Files of a folder", kind.patterns);
            let built = (kind.build)(kind.name, kind.document_kind, &toml::Table::new());
            let source = built.expect("a source can be built with its defaults");
            let parts = kind.patterns.iter().copied().filter(|name| source.is_splittable(name));
            let parts: Vec<&str> = parts.collect();
            self.names("A killed run goes on inside large files of", &parts);
            self.line(&format!("Documents are of kind `{}`.", kind.document_kind));
            self.settings(&(kind.default_config)());
        }
    }

    fn filters(&mut self) {
        self.line("\n## Filters");
        for kind in ingest::filter::KINDS {
            self.entry(kind.name, kind.summary, kind.source);
            let signals = kind.signals.iter().fold(String::new(), |mut list, signal| {
                write!(list, ", {} {}", signal.name, signal.data_type)
                    .expect("a string takes all that is written");
                list
            });
            let verdict = filter::verdict_name(kind);
            self.line(&format!("\nIn SQL `{verdict}(text)` is a struct: reason Utf8{signals}."));
            if let Some(signal) = filter::own_signal(kind).map(|place| &kind.signals[place]) {
                let (name, returns) = (signal.name, &signal.data_type);
                self.line(&format!("`{name}(text)` is its `{name}` alone, {returns}."));
            }
            if !kind.signals.is_empty() {
                self.line("\n| signal | |\n|---|---|");
                for signal in kind.signals {
                    self.line(&format!("| `{}` | {} |", signal.name, signal.summary));
                }
            }
            self.names("Reasons", kind.reasons);
            self.settings(&(kind.default_config)());
        }
    }

    fn modifiers(&mut self) {
        self.line("\n## Modifiers");
        for kind in ingest::modifier::KINDS {
            self.entry(kind.name, kind.summary, kind.source);
            self.line(&format!("\nIn SQL `{}(text)` is the new text.", kind.name));
            self.names("Reasons", kind.reasons);
            self.settings(&(kind.default_config)());
        }
    }

    fn methods(&mut self) {
        self.line("\n## Deduplication");
        for kind in dedup::KINDS {
            self.entry(kind.name, kind.summary, kind.source);
            self.settings(&(kind.default_config)());
        }
    }

    fn function(&mut self, kind: &FunctionKind) {
        let FunctionKind { name, summary, arguments, returns, example: (call, value), .. } = kind;
        self.line(&format!("### `{name}{arguments}` → {returns}\n\n{}.\n", sentence(summary)));
        self.line(&format!("```sql\nselect {call}  -- {value}\n```\n"));
    }
}

/// `text` with its first letter as a capital.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters.clone()).collect()
}
