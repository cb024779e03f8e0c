//! A conversation as a document of kind `conversation` keeps it in its metadata.

use minijinja::value::{Value, ValueKind};

use super::{Message, Options, transcript};

/// Why a row gives no conversation, as counts have it.
pub type Reason = &'static str;

/// A conversation, or a pair of which one is preferred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// The turns; of a pair what both have in common.
    pub messages: Vec<Message>,
    /// The better and the worse one, whole.
    pub preference: Option<(Vec<Message>, Vec<Message>)>,
    /// The definitions of tools: a JSON list of functions.
    pub tools: Option<String>,
    /// Whether the answer is wanted, where the data say so.
    pub label: Option<bool>,
}

impl Conversation {
    /// Reads what the chat source wrote into a document's metadata: `shape` and `messages`, `chosen` and `rejected`,
    /// `tools` and `label`. `None` where there is no conversation; `text` is the document's.
    ///
    /// Calls and tools that stand alone become lists of functions, as templates want them.
    ///
    /// # Errors
    /// With a reason, when the metadata are no conversation, or a step changed the text: the messages do not have that
    /// change.
    pub fn from_metadata<'a>(
        text: &str,
        get: impl Fn(&str) -> Option<&'a str>,
    ) -> Option<Result<Self, Reason>> {
        get("shape")?;
        let messages = get("messages")?;
        let read = || {
            let messages = turns(messages)?;
            let both = get("chosen").zip(get("rejected"));
            let preference = both
                .map(|(chosen, rejected)| Ok::<_, Reason>((turns(chosen)?, turns(rejected)?)))
                .transpose()?;
            if preference.iter().flat_map(|(a, b)| [a, b]).any(|side| !side.starts_with(&messages))
            {
                return Err("bad_messages");
            }
            let shown = preference.as_ref().map_or(&messages, |(chosen, _)| chosen);
            if transcript(shown) != text {
                return Err("text_changed");
            }
            let tools =
                get("tools").map(|tools| functions(tools).ok_or("bad_tools")).transpose()?;
            let mut conversation = Self {
                messages,
                preference,
                tools: tools.filter(|tools| tools != "[]"),
                label: get("label").and_then(|label| label.parse().ok()),
            };
            conversation.wrap_calls()?;
            Ok(conversation)
        };
        Some(read())
    }

    /// What a model learns to say: of a pair the better one.
    ///
    /// # Errors
    /// `unwanted_answer` when the data say that the answer is none to learn.
    pub fn wanted(&self) -> Result<&[Message], Reason> {
        match (&self.preference, self.label) {
            (_, Some(false)) => Err("unwanted_answer"),
            (Some((chosen, _)), _) => Ok(chosen),
            (None, _) => Ok(&self.messages),
        }
    }

    /// What a template is given beside the messages.
    #[must_use]
    pub fn options(&self, options: &Options) -> Options {
        Options { tools: self.tools.clone().or_else(|| options.tools.clone()), ..options.clone() }
    }

    fn wrap_calls(&mut self) -> Result<(), Reason> {
        let both = self.preference.iter_mut().flat_map(|(chosen, rejected)| [chosen, rejected]);
        for message in both.flatten().chain(&mut self.messages) {
            if let Some(calls) = &mut message.tool_calls {
                *calls = functions(calls).ok_or("bad_tool_calls")?;
            }
        }
        Ok(())
    }
}

fn turns(json: &str) -> Result<Vec<Message>, Reason> {
    serde_json::from_str(json).map_err(|_| "bad_messages")
}

/// A JSON list of `{"type": "function", "function": …}`, of what may be one function or lack the frame.
fn functions(json: &str) -> Option<String> {
    let value: Value = serde_json::from_str(json).ok()?;
    let items: Vec<Value> = match value.kind() {
        ValueKind::Seq => value.try_iter().ok()?.collect(),
        ValueKind::Map => vec![value],
        _ => return None,
    };
    let framed = items.into_iter().map(|item| {
        let is_framed = item.get_attr("function").is_ok_and(|function| !function.is_undefined());
        match item.kind() {
            ValueKind::Map if is_framed => Some(item),
            ValueKind::Map => {
                Some(Value::from_pairs([("type", Value::from("function")), ("function", item)]))
            }
            _ => None,
        }
    });
    let framed: Vec<Value> = framed.collect::<Option<_>>()?;
    serde_json::to_string(&Value::from(framed)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(
        text: &str,
        metadata: &[(&str, &str)],
        expected: Result<&[&str], Reason>,
    ) -> Conversation {
        let get = |key: &str| {
            let mut metadata = metadata.iter().chain(&[("shape", "messages")]);
            metadata.find(|(name, _)| *name == key).map(|(_, value)| *value)
        };
        let found = Conversation::from_metadata(text, get).expect("it has messages");
        let wanted = found.as_ref().map_err(|reason| *reason).and_then(Conversation::wanted);
        let said = wanted.map(|messages| {
            messages
                .iter()
                .map(|message| message.content.as_deref().unwrap_or_default())
                .collect::<Vec<_>>()
        });
        assert_eq!(said, expected.map(<[&str]>::to_vec));
        found.unwrap_or_default()
    }

    const PAIR: &str = r#"[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]"#;

    #[test]
    fn a_conversation_is_read_from_the_metadata_of_its_document() {
        assert_eq!(Conversation::from_metadata("text", |_| None), None);
        let text = "User: q\n\nAssistant: a";
        check(text, &[("messages", PAIR)], Ok(&["q", "a"]));
        check(text, &[("messages", PAIR), ("label", "true")], Ok(&["q", "a"]));
        check(text, &[("messages", PAIR), ("label", "false")], Err("unwanted_answer"));
        check("User: <email>\n\nAssistant: a", &[("messages", PAIR)], Err("text_changed"));
        check(text, &[("messages", "{}")], Err("bad_messages"));
        check(text, &[("messages", PAIR), ("tools", "none")], Err("bad_tools"));
        let question = r#"[{"role":"user","content":"q"}]"#;
        let worse = r#"[{"role":"user","content":"q"},{"role":"assistant","content":"b"}]"#;
        let pair = [("messages", question), ("chosen", PAIR), ("rejected", worse)];
        assert_eq!(check(text, &pair, Ok(&["q", "a"])).messages.len(), 1);
    }

    #[test]
    fn calls_and_tools_become_lists_of_functions() {
        let calls = r#"[{"role":"assistant","content":"","tool_calls":{"name":"f","arguments":{"z":1,"a":2}}}]"#;
        let text = "Assistant: {\"name\":\"f\",\"arguments\":{\"z\":1,\"a\":2}}";
        let metadata = [
            ("messages", calls),
            ("tools", r#"[{"name":"f"},{"type":"function","function":{"name":"g"}}]"#),
        ];
        let found = check(text, &metadata, Ok(&[""]));
        let call = r#"[{"type":"function","function":{"name":"f","arguments":{"z":1,"a":2}}}]"#;
        assert_eq!(found.messages[0].tool_calls.as_deref(), Some(call));
        let tools = r#"[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"g"}}]"#;
        assert_eq!(found.tools.as_deref(), Some(tools));
        assert_eq!(check(text, &[("messages", calls), ("tools", "[]")], Ok(&[""])).tools, None);
        let apart = [("messages", calls), ("chosen", PAIR), ("rejected", calls)];
        check("User: q\n\nAssistant: a", &apart, Err("bad_messages"));
        let text_call = r#"[{"role":"assistant","content":"","tool_calls":"f(1)"}]"#;
        check("Assistant: f(1)", &[("messages", text_call)], Err("bad_tool_calls"));
    }
}
