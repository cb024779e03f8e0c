//! Conversations to text, as a model's chat template writes them, and to tokens with the mask of what is learned.
//!
//! A [`ChatTemplate`] is the Jinja template beside a tokenizer. It renders as Transformers' `apply_chat_template` does:
//! tests hold the texts of eight templates and of the Python that templates use against it, character by character.
//! [`Rendered`] knows which characters the assistant said, and [`ChatEncoder`] which tokens those are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{AutoEscape, Environment, ErrorKind, State};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

mod clock;
mod conversation;
mod encode;
mod json;
mod marks;
mod python;
mod source;

pub use clock::parse as parse_date;
pub use conversation::{Conversation, Reason};
pub use encode::{ChatEncoder, EncodedChat};
pub use json::compact as compact_json;
use marks::{Marks, find_special};
use source::{GENERATION, ITERABLE, translate};

/// Work that one render may do: about ten million operations, or 640 MB of text.
const FUEL: u64 = 10_000_000;
/// Names that no template can spell: what functions find out about the render they are called from.
const CLOCK: &str = " clock";
const MARKS: &str = " marks";
const TEMPLATE: &str = "chat_template";

/// A turn of a conversation, with the keys that chat templates read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`; some templates know others.
    pub role: String,
    /// What is said; without it the template sees no such key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// What the assistant thought before it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The calls of tools that the assistant makes: JSON, the order of its keys included.
    #[serde(default, with = "json", skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<String>,
    /// The call that this message is the result of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The tool, or the speaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Message {
    /// A message of a role and what is said.
    #[must_use]
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: Some(content.into()), ..Self::default() }
    }
}

/// Writes messages as text that a person can read: the text of a conversation's document.
#[must_use]
pub fn transcript(messages: &[Message]) -> String {
    let mut out = String::new();
    for message in messages {
        if !out.is_empty() {
            out.push_str("\n\n");
        }
        out.push_str(match message.role.as_str() {
            "system" => "System: ",
            "user" => "User: ",
            "tool" => "Tool: ",
            _ => "Assistant: ",
        });
        let content = message.content.as_deref().unwrap_or_default().trim();
        out.push_str(content);
        if let Some(calls) = &message.tool_calls {
            if !content.is_empty() {
                out.push('\n');
            }
            // A call that is no JSON stands for itself.
            match serde_json::from_str::<String>(calls) {
                Ok(text) => out.push_str(&text),
                Err(_) => out.push_str(calls),
            }
        }
    }
    out
}

/// What a template is given beside the messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether the text ends where the assistant begins to speak.
    pub add_generation_prompt: bool,
    /// The definitions of tools: a JSON list.
    pub tools: Option<String>,
    /// Texts that the answer may draw on: a JSON list.
    pub documents: Option<String>,
    /// Further variables, such as `enable_thinking`: a JSON object.
    pub variables: Option<String>,
    /// What `strftime_now` takes for now: seconds since 1970, in the time of the place. Without it, a template that asks
    /// for the date is refused: a result never depends on the day of the run.
    pub clock: Option<i64>,
}

/// A conversation as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// What the template wrote.
    pub text: String,
    /// What the assistant said and what ends it: byte ranges of `text`, in order.
    pub assistant: Vec<Range<usize>>,
    /// Where the conversation itself spells a special token: byte ranges of `text`, in order. They are encoded as text.
    pub literal: Vec<Range<usize>>,
}

/// A chat template, compiled.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    place: String,
    names: BTreeMap<String, String>,
    special: Vec<String>,
    /// Whether the template itself says what the assistant generates, by `{% generation %}`.
    has_generation: bool,
}

impl ChatTemplate {
    /// Compiles the Jinja `source`; `place` names it in errors.
    ///
    /// `names`: variables such as `bos_token` and `eos_token` with their tokens. `special`: every special token of the
    /// tokenizer; a conversation that spells one out is told apart from a template that does.
    ///
    /// # Errors
    /// [`Error::Template`] when it is not a template.
    pub fn new(
        source: &str,
        names: BTreeMap<String, String>,
        special: impl IntoIterator<Item = String>,
        place: &str,
    ) -> Result<Self> {
        let (compiled, has_generation) = translate(source);
        let mut environment = environment();
        environment
            .add_template_owned(TEMPLATE, compiled)
            .map_err(|error| template_error(place, &error))?;
        let special: BTreeSet<String> =
            special.into_iter().chain(names.values().cloned()).filter(|s| !s.is_empty()).collect();
        let special = special.into_iter().collect();
        let (source, place) = (source.to_owned(), place.to_owned());
        Ok(Self { environment, source, place, names, special, has_generation })
    }

    /// Loads the template of the tokenizer in `folder`, as models are published: `chat_template.jinja`, or
    /// `chat_template` in `tokenizer_config.json`; names of tokens from the latter and `special_tokens_map.json`.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no template, [`Error::Template`] when it is none.
    pub fn from_tokenizer_folder(
        folder: &Path,
        special: impl IntoIterator<Item = String>,
    ) -> Result<Self> {
        let config = folder.join("tokenizer_config.json");
        let beside = folder.join("chat_template.jinja");
        let names = token_names(folder)?;
        let (source, path) = match (read_if_there(&beside)?, read_if_there(&config)?) {
            (Some(source), _) => (Some(source), beside),
            (None, Some(json)) => (template_in(&json, &config)?, config),
            (None, None) => (None, config),
        };
        let Some(source) = source else {
            return Err(Error::Missing {
                what: format!("a chat template in `{}`", folder.display()),
                hint: "give the tokenizer of a chat model, or the path of a template".to_owned(),
            });
        };
        Self::new(&source, names, special, &format!("`{}`", path.display()))
    }

    /// Loads the template at `path`: Jinja, or a `tokenizer_config.json` that holds one. Names of tokens come from the
    /// files beside it.
    ///
    /// # Errors
    /// As [`ChatTemplate::from_tokenizer_folder`].
    pub fn load(path: &Path, special: impl IntoIterator<Item = String>) -> Result<Self> {
        if path.is_dir() {
            return Self::from_tokenizer_folder(path, special);
        }
        let source = fs::read_to_string(path).map_err(Error::io("read", path))?;
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        let source = if is_json { template_in(&source, path)? } else { Some(source) };
        let Some(source) = source else {
            return Err(Error::Missing {
                what: format!("`chat_template` in `{}`", path.display()),
                hint: "give the tokenizer of a chat model, or the path of a template".to_owned(),
            });
        };
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::new(&source, token_names(folder)?, special, &format!("`{}`", path.display()))
    }

    /// The template as it was given.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The tokens that the template knows by name: `bos_token`, `eos_token`…
    #[must_use]
    pub fn names(&self) -> &BTreeMap<String, String> {
        &self.names
    }

    /// Renders a conversation.
    ///
    /// What the assistant said is what stands in `{% generation %}`. A template without it is rendered once more for each
    /// turn of the assistant, with other words in it: what differs is that turn, and a special token right behind it is
    /// what ends it.
    ///
    /// # Errors
    /// [`Error::Template`] when the template raises, or cannot be rendered with these messages.
    pub fn render(&self, messages: &[Message], options: &Options) -> Result<Rendered> {
        if messages.is_empty() {
            return Err(self.error("the conversation has no messages"));
        }
        let given = Given::new(self, messages, options)?;
        let mut rendered = given.marks.read(&given.render(None)?, &self.special);
        if !self.has_generation {
            for (index, message) in messages.iter().enumerate() {
                if message.role == "assistant" {
                    rendered.assistant.extend(self.turn(&given, &rendered, index)?);
                }
            }
        }
        Ok(rendered)
    }

    /// Where turn `index` of the assistant stands in `rendered`; nowhere when the template leaves it out.
    fn turn(
        &self,
        given: &Given<'_>,
        rendered: &Rendered,
        index: usize,
    ) -> Result<Option<Range<usize>>> {
        let other = given.marks.read(&given.render(Some(index))?, &self.special).text;
        let filler = given.marks.filler();
        let mut found = other.match_indices(&filler).map(|(at, _)| at);
        let Some(start) = found.next() else { return Ok(None) };
        let text = &rendered.text;
        let rest = &other[start + filler.len()..];
        let is_clear = found.next().is_none()
            && text.starts_with(&other[..start])
            && text.len() >= start + rest.len()
            && text.ends_with(rest);
        if !is_clear {
            return Err(self.error(format!(
                "it does not say what the assistant generates, and message {index} cannot be found in what it writes; \
                 put `{{% generation %}}` around that"
            )));
        }
        let mut end = text.len() - rest.len();
        if let Some(token) =
            find_special(&self.special, &text[end..]).filter(|token| token.start == 0)
            && !rendered.literal.iter().any(|literal| literal.contains(&end))
        {
            end += token.end;
        }
        Ok((start < end).then_some(start..end))
    }

    fn error(&self, why: impl Into<String>) -> Error {
        Error::Template { what: self.place.clone(), why: why.into() }
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("place", &self.place)
            .field("names", &self.names)
            .field("has_generation", &self.has_generation)
            .finish_non_exhaustive()
    }
}

/// What a template sees, with the special tokens that the conversation spells marked.
struct Given<'a> {
    template: &'a ChatTemplate,
    marks: Marks,
    messages: Vec<Value>,
    others: Vec<(String, Value)>,
}

impl<'a> Given<'a> {
    fn new(template: &'a ChatTemplate, messages: &[Message], options: &Options) -> Result<Self> {
        let parse = |what: &str, json: &str| {
            serde_json::from_str::<Value>(json)
                .map_err(|error| template.error(format!("{what} are not JSON: {error}")))
        };
        let parse_option = |what: &str, json: &Option<String>| {
            json.as_deref().map_or(Ok(Value::from(())), |json| parse(what, json))
        };
        let mut values = Vec::with_capacity(messages.len());
        for message in messages {
            let mut fields = vec![("role", Value::from(&*message.role))];
            let texts = [
                ("content", &message.content),
                ("reasoning_content", &message.reasoning_content),
                // What the templates of gpt-oss call it.
                ("thinking", &message.reasoning_content),
                ("name", &message.name),
                ("tool_call_id", &message.tool_call_id),
            ];
            let texts = texts.into_iter().filter_map(|(key, text)| Some((key, text.as_deref()?)));
            fields.extend(texts.map(|(key, text)| (key, Value::from(text))));
            if let Some(calls) = &message.tool_calls {
                fields.push(("tool_calls", parse("`tool_calls`", calls)?));
            }
            values.push(Value::from_pairs(fields));
        }
        let mut others = vec![
            ("tools".to_owned(), parse_option("`tools`", &options.tools)?),
            ("documents".to_owned(), parse_option("`documents`", &options.documents)?),
        ];
        let variables = parse_option("variables", &options.variables)?;
        if !variables.is_none() {
            for key in variables.try_iter().map_err(|error| template.error(error.to_string()))? {
                let value = variables.get_item(&key).unwrap_or_default();
                others.push((key.to_string(), value));
            }
        }
        let texts = values.iter().chain(others.iter().map(|(_, value)| value));
        let marks = Marks::new(&template.source, texts);
        let values = values.iter().map(|value| marks.mark(value, &template.special)).collect();
        for (_, value) in &mut others {
            *value = marks.mark(value, &template.special);
        }
        others
            .push(("add_generation_prompt".to_owned(), Value::from(options.add_generation_prompt)));
        others.push((MARKS.to_owned(), Value::from(marks.to_string())));
        others.extend(options.clock.map(|clock| (CLOCK.to_owned(), Value::from(clock))));
        Ok(Self { template, marks, messages: values, others })
    }

    /// Renders with other words in message `changed`, if any.
    fn render(&self, changed: Option<usize>) -> Result<String> {
        let mut messages = self.messages.clone();
        if let Some(index) = changed {
            let fields =
                [("role", Value::from("assistant")), ("content", Value::from(self.marks.filler()))];
            messages[index] = Value::from_pairs(fields);
        }
        let names =
            self.template.names.iter().map(|(name, token)| (name.clone(), Value::from(&**token)));
        let messages = ("messages".to_owned(), Value::from(messages));
        let given = self.others.iter().cloned().chain([messages]);
        // Of two variables of one name the later counts, as in Transformers.
        let variables = Value::from_pairs(names.chain(given));
        let place = &self.template.place;
        let template = self.template.environment.get_template(TEMPLATE).expect("it was added");
        template.render(variables).map_err(|error| template_error(place, &error))
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("these are not delimiters"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(python::method);
    environment.set_formatter(|out, _, value| {
        out.write_str(&python::text(value))
            .map_err(|_| minijinja::Error::from(ErrorKind::WriteFailure))
    });
    environment.set_fuel(Some(FUEL));
    environment.add_filter("tojson", python::to_json);
    environment.add_filter("string", |value: Value| python::text(&value).into_owned());
    environment.add_filter(ITERABLE, iterable);
    environment.add_test("sequence", |value: Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String)
    });
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_function(GENERATION, generation);
    environment
}

fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("it raises `{message}`")))
}

/// The list of a loop.
fn iterable(value: Value) -> Result<Value, minijinja::Error> {
    match value.is_none() {
        true => Err(minijinja::Error::new(ErrorKind::InvalidOperation, "it loops over `none`")),
        false => Ok(value),
    }
}

fn strftime_now(state: &State<'_, '_>, format: String) -> Result<String, minijinja::Error> {
    let clock = state.lookup(CLOCK).and_then(|clock| i64::try_from(clock).ok());
    match clock {
        Some(clock) => Ok(clock::format(clock, &format)),
        None => Err(minijinja::Error::new(
            ErrorKind::InvalidOperation,
            "it asks for the date; say which, the day of the run is none",
        )),
    }
}

/// What stands for `{% generation %}`: the text inside, between marks.
fn generation(state: &mut State<'_, '_>, arguments: Kwargs) -> Result<String, minijinja::Error> {
    let caller: Value = arguments.get("caller")?;
    let marks = state.lookup(MARKS).map(|marks| marks.to_string()).unwrap_or_default();
    let text = caller.call(state, &[])?;
    Ok(Marks::of(&marks).generation(&text.to_string()))
}

fn template_error(place: &str, error: &minijinja::Error) -> Error {
    let line = error.line().map(|line| format!("line {line}: ")).unwrap_or_default();
    let why = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    Error::Template { what: place.to_owned(), why: format!("{line}{why}") }
}

fn read_if_there(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

fn parse(json: &str, path: &Path) -> Result<serde_json::Value> {
    serde_json::from_str(json).map_err(|error| Error::Template {
        what: format!("`{}`", path.display()),
        why: error.to_string(),
    })
}

/// `chat_template` of a `tokenizer_config.json`; of several, the one called `default`.
fn template_in(json: &str, path: &Path) -> Result<Option<String>> {
    let config = parse(json, path)?;
    let template = &config["chat_template"];
    let by_name = || {
        let named = template.as_array()?.iter().find(|one| one["name"] == "default")?;
        named["template"].as_str()
    };
    Ok(template.as_str().or_else(by_name).map(str::to_owned))
}

/// The tokens that templates know by name.
const NAMES: [&str; 7] =
    ["bos_token", "cls_token", "eos_token", "mask_token", "pad_token", "sep_token", "unk_token"];

fn token_names(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut names = BTreeMap::new();
    for file in ["special_tokens_map.json", "tokenizer_config.json"] {
        let path = folder.join(file);
        let Some(json) = read_if_there(&path)? else { continue };
        let json = parse(&json, &path)?;
        for name in NAMES {
            let token = json[name].as_str().or_else(|| json[name]["content"].as_str());
            names.extend(token.map(|token| (name.to_owned(), token.to_owned())));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
