//! The shapes in which conversations are stored, all to messages of `role` and `content`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shard::chat::{Message, compact_json};

/// What a row holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Chat {
    /// The conversation; of preference data what both have in common.
    pub(super) messages: Vec<Message>,
    /// The better and the worse conversation, whole.
    pub(super) preference: Option<(Vec<Message>, Vec<Message>)>,
    /// Whether the answer is wanted (KTO).
    pub(super) label: Option<bool>,
    /// The definitions of tools, as JSON or as they stand in the data.
    pub(super) tools: Option<String>,
}

/// Why a row gives no conversation, as a reject has it.
type Reason = &'static str;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Shape {
    Auto,
    /// `instruction`, `input`, `output`; or `instances` of the last two.
    Alpaca,
    /// `conversations` of `from` and `value`.
    #[serde(rename = "sharegpt")]
    ShareGpt,
    /// `messages` of `role` and `content`.
    Messages,
    /// `prompt` with `replies` with `replies`.
    Tree,
    /// `chosen` and `rejected`: transcripts of `Human:` and `Assistant:`.
    HhRlhf,
    /// A prompt or a conversation, `chosen` and `rejected`.
    Dpo,
    /// A conversation and `label`.
    Kto,
    /// `question` and `answer`, `prompt` and `completion` or `response`.
    QuestionAnswer,
    /// `turns`: what a user says one after the other.
    Turns,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Paths {
    Best,
    All,
}

/// Keys whose values are the conversation or are told otherwise.
pub(super) const CONTENT_KEYS: [&str; 24] = [
    "messages",
    "conversations",
    "conversation",
    "chosen",
    "rejected",
    "prompt",
    "completion",
    "response",
    "question",
    "answer",
    "instruction",
    "input",
    "output",
    "instances",
    "turns",
    "tools",
    "functions",
    "label",
    "kto_tag",
    "system",
    "system_prompt",
    "history",
    "replies",
    "text",
];

impl Shape {
    /// The name in a job.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Alpaca => "alpaca",
            Self::ShareGpt => "sharegpt",
            Self::Messages => "messages",
            Self::Tree => "tree",
            Self::HhRlhf => "hh_rlhf",
            Self::Dpo => "dpo",
            Self::Kto => "kto",
            Self::QuestionAnswer => "question_answer",
            Self::Turns => "turns",
        }
    }

    /// Tells the shape of a row by its keys.
    pub(super) fn of(row: &Map<String, Value>) -> Option<Self> {
        let has = |key: &str| row.get(key).is_some_and(|value| !value.is_null());
        let any = |keys: &[&str]| keys.iter().any(|key| has(key));
        let is_pair = has("chosen") && has("rejected");
        let is_transcript = |key: &str| {
            row.get(key).and_then(Value::as_str).is_some_and(|text| text.contains("\n\nHuman:"))
        };
        let is_labelled = any(&["label", "kto_tag"]);
        Some(if is_pair && is_transcript("chosen") {
            Self::HhRlhf
        } else if is_pair {
            Self::Dpo
        } else if is_labelled && any(&["messages", "conversations", "completion", "response"]) {
            Self::Kto
        } else if row.get("messages").is_some_and(Value::is_array) {
            Self::Messages
        } else if ["conversations", "conversation"]
            .iter()
            .any(|key| row.get(*key).is_some_and(Value::is_array))
        {
            Self::ShareGpt
        } else if row.get("prompt").is_some_and(Value::is_object) {
            Self::Tree
        } else if has("instruction") && any(&["output", "response", "instances"]) {
            Self::Alpaca
        } else if QUESTIONS.iter().any(|(question, answer)| has(question) && has(answer)) {
            Self::QuestionAnswer
        } else if row.get("turns").is_some_and(Value::is_array) {
            Self::Turns
        } else {
            return None;
        })
    }

    /// Returns the conversations of a row, at least one or a reason.
    pub(super) fn read(self, row: &Map<String, Value>, paths: Paths) -> Vec<Result<Chat, Reason>> {
        match self {
            Self::Tree => return tree(row, paths),
            Self::Alpaca if row.contains_key("instances") => return instances(row),
            _ => {}
        }
        let chat = match self {
            Self::Alpaca => alpaca(row, row),
            Self::ShareGpt | Self::Messages => conversation(row).map(Chat::of),
            Self::HhRlhf => hh_rlhf(row),
            Self::Dpo => dpo(row),
            Self::Kto => kto(row),
            Self::QuestionAnswer => question_answer(row),
            Self::Turns => turns(row),
            Self::Tree | Self::Auto => Err("unknown_shape"),
        };
        let tools = ["tools", "functions"].iter().find_map(|key| row.get(*key)).and_then(plain);
        vec![chat.map(|chat| Chat { tools: tools.filter(|tools| !tools.is_empty()), ..chat })]
    }
}

impl Chat {
    fn of(messages: Vec<Message>) -> Self {
        Self { messages, ..Self::default() }
    }
}

/// Keys of questions with those of their answers.
const QUESTIONS: [(&str, &str); 5] = [
    ("question", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("query", "response"),
    ("question", "response"),
];

/// Writes messages as JSON, the same bytes for the same messages.
pub(super) fn json(messages: &[Message]) -> String {
    serde_json::to_string(messages).expect("strings are JSON")
}

/// Strings as they are and everything else as JSON; nothing for null.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// A string, number or boolean of moderate length.
pub(super) fn scalar(value: &Value) -> Option<String> {
    const BYTES_MAX: usize = 1000;
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        _ => return None,
    };
    (text.len() <= BYTES_MAX).then_some(text)
}

fn role(name: &str) -> Result<&'static str, Reason> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "system" | "developer" => "system",
        "user" | "human" | "prompter" => "user",
        "assistant" | "gpt" | "chatgpt" | "bing" | "bard" | "model" | "bot" | "function_call" => {
            "assistant"
        }
        "tool" | "function" | "observation" | "function_response" => "tool",
        _ => return Err("unknown_role"),
    })
}

fn message(role: &'static str, content: &str) -> Result<Message, Reason> {
    if content.trim().is_empty() {
        return Err("empty_turn");
    }
    Ok(Message::new(role, content))
}

/// A turn in either notation: `role` and `content`, `from` and `value`.
fn turn(value: &Value) -> Result<Message, Reason> {
    let turn = value.as_object().ok_or("bad_turn")?;
    let name = turn.get("role").or_else(|| turn.get("from")).and_then(Value::as_str);
    let name = name.ok_or("no_role")?;
    let role = role(name)?;
    let content = turn.get("content").or_else(|| turn.get("value"));
    let text = |key: &str| turn.get(key).and_then(Value::as_str).map(str::to_owned);
    let more = Message {
        reasoning_content: ["reasoning_content", "thinking", "reasoning"]
            .into_iter()
            .find_map(text),
        tool_call_id: text("tool_call_id"),
        name: text("name"),
        ..Message::default()
    };
    let content = match content {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => text_parts(parts)?,
        Some(_) => return Err("bad_turn"),
    };
    if name.eq_ignore_ascii_case("function_call") {
        let call = compact_json(&content).unwrap_or_else(|| Value::String(content).to_string());
        return Ok(Message { tool_calls: Some(call), ..Message::new(role, "") });
    }
    let calls = turn.get("tool_calls").or_else(|| turn.get("function_call"));
    let calls =
        calls.filter(|calls| !calls.is_null() && calls.as_array().is_none_or(|c| !c.is_empty()));
    match calls {
        Some(calls) => {
            let (role, content) = (role.to_owned(), Some(content));
            Ok(Message { role, content, tool_calls: Some(calls.to_string()), ..more })
        }
        None => message(role, &content).map(|said| Message {
            role: said.role,
            content: said.content,
            ..more
        }),
    }
}

/// The text of a content in parts; pictures and sound are none.
fn text_parts(parts: &[Value]) -> Result<String, Reason> {
    let text = |part: &Value| match part {
        Value::String(text) => Ok(text.clone()),
        part => part["text"].as_str().map(str::to_owned).ok_or("not_text"),
    };
    Ok(parts.iter().map(text).collect::<Result<Vec<_>, _>>()?.join("\n"))
}

fn turns_of(value: &Value) -> Result<Vec<Message>, Reason> {
    let turns = value.as_array().ok_or("bad_turn")?;
    if turns.is_empty() {
        return Err("no_messages");
    }
    turns.iter().map(turn).collect()
}

/// The conversation of a row, with its system prompt where that stands beside it.
fn conversation(row: &Map<String, Value>) -> Result<Vec<Message>, Reason> {
    let keys = ["messages", "conversations", "conversation"];
    let turns = keys.iter().find_map(|key| row.get(*key)).ok_or("no_messages")?;
    let mut messages = system(row);
    messages.extend(turns_of(turns)?);
    Ok(messages)
}

fn system(row: &Map<String, Value>) -> Vec<Message> {
    let text = ["system", "system_prompt"].iter().find_map(|key| row.get(*key)?.as_str());
    text.and_then(|text| message("system", text).ok()).into_iter().collect()
}

fn text_of<'a>(row: &'a Map<String, Value>, keys: &[&str]) -> Option<&'a str> {
    keys.iter().find_map(|key| row.get(*key)?.as_str())
}

/// The instruction and input of `row` with the answer of `answer`: the same, or an instance of it.
fn alpaca(row: &Map<String, Value>, answer: &Map<String, Value>) -> Result<Chat, Reason> {
    let mut messages = system(row);
    for pair in row.get("history").and_then(Value::as_array).into_iter().flatten() {
        for (role, turn) in
            ["user", "assistant"].into_iter().zip(pair.as_array().into_iter().flatten())
        {
            messages.push(message(role, turn.as_str().ok_or("bad_turn")?)?);
        }
    }
    let instruction = text_of(row, &["instruction"]).ok_or("no_messages")?;
    let input = text_of(answer, &["input"]).unwrap_or_default();
    let request = match (instruction.trim().is_empty(), input.trim().is_empty()) {
        (false, false) => format!("{instruction}\n\n{input}"),
        (true, _) => input.to_owned(),
        (_, true) => instruction.to_owned(),
    };
    messages.push(message("user", &request)?);
    let output = text_of(answer, &["output", "response"]).ok_or("no_messages")?;
    messages.push(message("assistant", output)?);
    Ok(Chat::of(messages))
}

fn instances(row: &Map<String, Value>) -> Vec<Result<Chat, Reason>> {
    let Some(instances) = row["instances"].as_array().filter(|list| !list.is_empty()) else {
        return vec![Err("no_messages")];
    };
    let read = |instance: &Value| alpaca(row, instance.as_object().ok_or("bad_turn")?);
    instances.iter().map(read).collect()
}

fn question_answer(row: &Map<String, Value>) -> Result<Chat, Reason> {
    let pair = |(question, answer): &(&str, &str)| {
        Some((row.get(*question)?.as_str()?, row.get(*answer)?.as_str()?))
    };
    let (question, answer) = QUESTIONS.iter().find_map(pair).ok_or("no_messages")?;
    let mut messages = system(row);
    messages.push(message("user", question)?);
    messages.push(message("assistant", answer)?);
    Ok(Chat::of(messages))
}

fn turns(row: &Map<String, Value>) -> Result<Chat, Reason> {
    let turns = row.get("turns").and_then(Value::as_array).ok_or("no_messages")?;
    let read = |turn: &Value| message("user", turn.as_str().ok_or("bad_turn")?);
    let messages = turns.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    if messages.is_empty() { Err("no_messages") } else { Ok(Chat::of(messages)) }
}

/// Reads `\n\nHuman: …\n\nAssistant: …`.
fn human_assistant(text: &str) -> Result<Vec<Message>, Reason> {
    const SPEAKERS: [(&str, &str); 2] = [("\n\nHuman:", "user"), ("\n\nAssistant:", "assistant")];
    let next = |text: &str| {
        let found =
            SPEAKERS.iter().filter_map(|(mark, role)| Some((text.find(mark)?, *mark, *role)));
        found.min()
    };
    let Some((0, mark, mut role)) = next(text) else { return Err("no_role") };
    let mut rest = &text[mark.len()..];
    let mut messages = Vec::new();
    while let Some((at, mark, next_role)) = next(rest) {
        messages.push(message(role, rest[..at].trim())?);
        rest = &rest[at + mark.len()..];
        role = next_role;
    }
    messages.push(message(role, rest.trim())?);
    Ok(messages)
}

fn hh_rlhf(row: &Map<String, Value>) -> Result<Chat, Reason> {
    let side = |key: &str| human_assistant(row.get(key).and_then(Value::as_str).ok_or("bad_turn")?);
    preference(side("chosen")?, side("rejected")?)
}

/// Two conversations with what they have in common.
fn preference(chosen: Vec<Message>, rejected: Vec<Message>) -> Result<Chat, Reason> {
    if chosen == rejected {
        return Err("same_answers");
    }
    let n_common = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
    let messages = chosen[..n_common].to_vec();
    Ok(Chat { messages, preference: Some((chosen, rejected)), ..Chat::default() })
}

fn dpo(row: &Map<String, Value>) -> Result<Chat, Reason> {
    let prompt = prompt(row)?;
    let side = |key: &str| -> Result<Vec<Message>, Reason> {
        let answer = match row.get(key) {
            Some(Value::String(text)) => vec![message("assistant", text)?],
            Some(turn_object @ Value::Object(_)) => vec![turn(turn_object)?],
            Some(turns @ Value::Array(_)) => turns_of(turns)?,
            _ => return Err("bad_turn"),
        };
        // Some data repeat the prompt in both answers, some have it beside them.
        let is_whole = answer.iter().any(|message| message.role == "user");
        Ok(if is_whole { answer } else { [prompt.clone(), answer].concat() })
    };
    let (chosen, rejected) = (side("chosen")?, side("rejected")?);
    if !chosen.iter().any(|message| message.role == "user") {
        return Err("no_messages");
    }
    preference(chosen, rejected)
}

/// What comes before an answer.
fn prompt(row: &Map<String, Value>) -> Result<Vec<Message>, Reason> {
    if ["messages", "conversations", "conversation"].iter().any(|key| row.contains_key(*key)) {
        return conversation(row);
    }
    let mut messages = system(row);
    match ["prompt", "question", "instruction", "input"].iter().find_map(|key| row.get(*key)) {
        Some(Value::String(text)) => {
            let input = row.get("input").and_then(Value::as_str).unwrap_or_default();
            let has_input = row.contains_key("instruction") && !input.trim().is_empty();
            let text = if has_input { format!("{text}\n\n{input}") } else { text.clone() };
            messages.push(message("user", &text)?);
        }
        Some(turns @ Value::Array(_)) => messages.extend(turns_of(turns)?),
        Some(_) => return Err("bad_turn"),
        None => {}
    }
    Ok(messages)
}

fn kto(row: &Map<String, Value>) -> Result<Chat, Reason> {
    let label = ["label", "kto_tag"].iter().find_map(|key| row.get(*key)?.as_bool());
    let label = label.ok_or("no_label")?;
    let mut messages = prompt(row)?;
    match ["completion", "response"].iter().find_map(|key| row.get(*key)) {
        Some(Value::String(text)) => messages.push(message("assistant", text)?),
        Some(turns @ Value::Array(_)) => messages.extend(turns_of(turns)?),
        _ => {}
    }
    if messages.is_empty() {
        return Err("no_messages");
    }
    Ok(Chat { messages, label: Some(label), ..Chat::default() })
}

/// The conversations of an OpenAssistant tree, in the order of their replies.
fn tree(row: &Map<String, Value>, paths: Paths) -> Vec<Result<Chat, Reason>> {
    let Some(root) = row.get("prompt").filter(|root| root.is_object()) else {
        return vec![Err("no_messages")];
    };
    let mut chats = Vec::new();
    let mut stack = vec![(root, 0)];
    let mut path: Vec<&Value> = Vec::new();
    while let Some((node, depth)) = stack.pop() {
        path.truncate(depth);
        path.push(node);
        let mut replies: Vec<&Value> = node["replies"].as_array().into_iter().flatten().collect();
        replies.retain(|reply| reply["deleted"] != true);
        replies.sort_by_key(|reply| reply["rank"].as_u64().unwrap_or(u64::MAX));
        if paths == Paths::Best {
            replies.truncate(1);
        }
        if replies.is_empty() {
            chats.push(
                path.iter().map(|node| tree_turn(node)).collect::<Result<_, _>>().map(Chat::of),
            );
        }
        stack.extend(replies.into_iter().rev().map(|reply| (reply, depth + 1)));
    }
    chats
}

fn tree_turn(node: &Value) -> Result<Message, Reason> {
    let role = role(node["role"].as_str().ok_or("no_role")?)?;
    message(role, node["text"].as_str().ok_or("bad_turn")?)
}
