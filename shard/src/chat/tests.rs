use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use flate2::read::GzDecoder;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::tokenizer::Tokenizer;

/// What Transformers made of conversations: `tests/golden/chat`.
fn golden<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/chat");
    serde_json::from_slice(&unzip(&folder.join(format!("{name}.json.gz")))).unwrap()
}

fn unzip(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

/// A file of the shared test data; `None`, with a word of it, where there is none.
fn data(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("GRISTMILL_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let path = root.join(name);
    if path.is_file() || path.is_dir() {
        return Some(path);
    }
    eprintln!("skipped: no test data at `{}`, set GRISTMILL_DATA", path.display());
    None
}

#[derive(Debug, Deserialize)]
struct Case {
    messages: Vec<Message>,
    #[serde(default)]
    add_generation_prompt: bool,
    tools: Option<String>,
    documents: Option<String>,
    variables: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Row {
    template: String,
    #[serde(default)]
    case: String,
    text: Option<String>,
    error: Option<String>,
    r#type: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Golden {
    clock: i64,
    names: BTreeMap<String, String>,
    cases: BTreeMap<String, Case>,
    rows: Vec<Row>,
    snippet: Case,
    snippets: Vec<Row>,
}

impl Golden {
    fn render(&self, source: &str, case: &Case) -> Result<String> {
        let template = ChatTemplate::new(source, self.names.clone(), [], "`test`")?;
        let options = Options {
            add_generation_prompt: case.add_generation_prompt,
            tools: case.tools.clone(),
            documents: case.documents.clone(),
            variables: case.variables.clone(),
            clock: Some(self.clock),
        };
        let given = Given::new(&template, &case.messages, &options)?;
        Ok(given.marks.read(&given.render(None)?, &template.special).text)
    }

    /// Compares with what Transformers made of `row`; says what differs.
    fn difference(&self, source: &str, case: &Case, row: &Row) -> Option<String> {
        let found = self.render(source, case);
        let place = format!("{:?} {:?}", row.template, row.case);
        match (found, &row.text) {
            (Ok(found), Some(text)) if found == *text => None,
            (Err(Error::Template { why, .. }), None) => {
                let raised = row.error.clone().unwrap_or_default();
                let is_raised = row.r#type.as_deref() == Some("TemplateError");
                (is_raised && !why.contains(&format!("it raises `{raised}`")))
                    .then(|| format!("{place}:\n  wanted {raised}\n  found  {why}"))
            }
            (found, _) => Some(format!(
                "{place}:\n  wanted {:?}\n  found  {found:?}",
                row.text.as_ref().or(row.error.as_ref())
            )),
        }
    }
}

#[test]
fn renders_templates_of_models_as_transformers_does() {
    let golden: Golden = golden("rendered");
    let Some(folder) = data("tokenizers/chat-templates") else { return };
    let templates = fs::read_dir(&folder).unwrap().count();
    assert_eq!(golden.rows.len(), templates * golden.cases.len());
    let different: Vec<String> = golden
        .rows
        .iter()
        .filter_map(|row| {
            let source = fs::read_to_string(folder.join(&row.template)).unwrap();
            golden.difference(&source, &golden.cases[&row.case], row)
        })
        .collect();
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
}

#[test]
fn renders_what_templates_use_of_python_as_transformers_does() {
    let golden: Golden = golden("rendered");
    let different: Vec<String> = golden
        .snippets
        .iter()
        .filter_map(|row| golden.difference(&row.template, &golden.snippet, row))
        .collect();
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
}

#[derive(Debug, Deserialize)]
struct Parity {
    templates: Vec<ParityTemplate>,
}

#[derive(Debug, Deserialize)]
struct ParityTemplate {
    name: String,
    template: String,
    template_with_generation_tags: String,
    bos_token: Option<String>,
    eos_token: String,
    conversations: Vec<ParityChat>,
}

#[derive(Debug, Deserialize)]
struct ParityChat {
    messages: Vec<Message>,
    text: String,
    generation_text: String,
    input_ids: Vec<u32>,
    assistant_mask: Vec<u8>,
    labels_assistant_only: Vec<i64>,
}

fn bits(mask: &[u8]) -> Vec<bool> {
    mask.iter().map(|bit| *bit == 1).collect()
}

#[test]
fn text_tokens_and_mask_are_those_of_transformers() {
    let Some(path) = data("parity/chat/templates.json") else { return };
    let Some(tokenizer) = data("parity/tokenizers/bpe/tokenizer.json") else { return };
    let parity: Parity = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let tokenizer = Tokenizer::load(&tokenizer).unwrap();
    let encoder = ChatEncoder::new(&tokenizer).unwrap();
    let (mut n, mut n_spelled) = (0, 0);
    for ParityTemplate {
        name,
        template,
        template_with_generation_tags,
        bos_token,
        eos_token,
        conversations,
    } in parity.templates
    {
        let mut names = BTreeMap::from([("eos_token".to_owned(), eos_token)]);
        names.extend(bos_token.map(|bos| ("bos_token".to_owned(), bos)));
        for source in [&template_with_generation_tags, &template] {
            let special = tokenizer.special().keys().cloned();
            let template = ChatTemplate::new(source, names.clone(), special, &name).unwrap();
            for chat in &conversations {
                let place = format!("{name}: {:?}", chat.messages);
                let rendered = template.render(&chat.messages, &Options::default()).unwrap();
                assert_eq!(rendered.text, chat.text, "{place}");
                let prompt = Options { add_generation_prompt: true, ..Options::default() };
                let prompt = template.render(&chat.messages, &prompt).unwrap();
                assert_eq!(prompt.text, chat.generation_text, "{place}");
                let spells_special = !rendered.literal.is_empty();
                if spells_special {
                    // The fixtures take what a user spells for special tokens. That is told apart here, and only then.
                    let encoded = encoder.encode(&rendered).unwrap();
                    let is_special = |id: &&u32| tokenizer.special().values().any(|it| it == *id);
                    let n = |ids: &[u32]| ids.iter().filter(is_special).count();
                    assert_eq!(
                        n(&encoded.tokens) + rendered.literal.len(),
                        n(&chat.input_ids),
                        "{place}"
                    );
                    assert_eq!(tokenizer.decode(&encoded.tokens).unwrap(), chat.text);
                }
                let encoded =
                    encoder.encode(&Rendered { literal: Vec::new(), ..rendered }).unwrap();
                n_spelled += usize::from(spells_special);
                assert_eq!(encoded.tokens, chat.input_ids, "{place}");
                assert_eq!(encoded.loss_mask, bits(&chat.assistant_mask), "{place}");
                let labels: Vec<i64> = encoded
                    .tokens
                    .iter()
                    .zip(&encoded.loss_mask)
                    .map(|(id, counts)| if *counts { i64::from(*id) } else { -100 })
                    .collect();
                assert_eq!(labels, chat.labels_assistant_only, "{place}");
                assert!(encoded.has_targets(), "{place}");
                let question = &chat.messages[..1];
                let unanswered = template.render(question, &Options::default()).unwrap();
                assert!(!encoder.encode(&unanswered).unwrap().has_targets(), "{question:?}");
                n += 1;
            }
        }
    }
    assert!(n >= 42 && n_spelled > 0, "{n} conversations, {n_spelled} spell a special token");
}

#[derive(Debug, Deserialize)]
struct Masks {
    template: String,
    tokenizers: Vec<MasksOfTokenizer>,
}

#[derive(Debug, Deserialize)]
struct MasksOfTokenizer {
    name: String,
    tokenizer: String,
    special: BTreeMap<String, u32>,
    rows: Vec<MaskRow>,
}

#[derive(Debug, Deserialize)]
struct MaskRow {
    messages: Vec<Message>,
    text: String,
    ids: Vec<u32>,
    mask: Vec<u8>,
    safe_ids: Vec<u32>,
}

/// A tokenizer of the test data with further special tokens.
fn with_special(path: &Path, special: &BTreeMap<String, u32>) -> Tokenizer {
    let bytes = match path.extension() {
        Some(extension) if extension == "gz" => unzip(path),
        _ => fs::read(path).unwrap(),
    };
    let mut json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let added = json["added_tokens"].as_array_mut().unwrap();
    // Libraries number them in the order in which they stand.
    let mut special: Vec<_> = special.iter().collect();
    special.sort_by_key(|(_, id)| **id);
    for (content, id) in special {
        if !added.iter().any(|token| token["content"] == content.as_str()) {
            added.push(json!({
                "id": id, "content": content, "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false,
            }));
        }
    }
    Tokenizer::from_bytes(json.to_string().as_bytes(), &path.display().to_string()).unwrap()
}

#[test]
fn masks_of_other_tokenizers_and_of_spelled_special_tokens_are_those_of_transformers() {
    let masks: Masks = golden("masks");
    for MasksOfTokenizer { name, tokenizer, special, rows } in masks.tokenizers {
        let Some(path) = data(&tokenizer) else { return };
        let tokenizer = with_special(&path, &special);
        let encoder = ChatEncoder::new(&tokenizer).unwrap();
        let known = tokenizer.special().keys().cloned();
        let template =
            ChatTemplate::new(&masks.template, BTreeMap::new(), known, "`test`").unwrap();
        for row in rows {
            let place = format!("{name}: {:?}", row.messages);
            let rendered = template.render(&row.messages, &Options::default()).unwrap();
            assert_eq!(rendered.text, row.text, "{place}");
            let encoded = encoder.encode(&rendered).unwrap();
            assert_eq!(encoded.tokens, row.safe_ids, "{place}");
            assert_eq!(encoded.tokens.len(), encoded.loss_mask.len(), "{place}");
            if row.ids == row.safe_ids {
                assert_eq!(encoded.loss_mask, bits(&row.mask), "{place}");
                continue;
            }
            // The template writes two for each message; what the conversation spells is text.
            let ids: Vec<u32> = special.values().copied().collect();
            let n_special = encoded.tokens.iter().filter(|token| ids.contains(token)).count();
            assert_eq!(n_special, 2 * row.messages.len(), "{place}");
        }
    }
}

fn template(source: &str) -> ChatTemplate {
    let names = BTreeMap::from([("eos_token".to_owned(), "</s>".to_owned())]);
    ChatTemplate::new(source, names, ["<|end|>".to_owned()], "`test`").unwrap()
}

fn said(template: &ChatTemplate, messages: &[(&str, &str)]) -> Vec<String> {
    let messages: Vec<Message> =
        messages.iter().map(|(role, content)| Message::new(*role, *content)).collect();
    let options = Options { clock: Some(0), ..Options::default() };
    let rendered = template.render(&messages, &options).unwrap();
    rendered.assistant.iter().map(|span| rendered.text[span.clone()].to_owned()).collect()
}

const TALK: [(&str, &str); 4] =
    [("user", "q"), ("assistant", " a "), ("user", " a "), ("assistant", "a")];

#[test]
fn finds_the_turns_of_the_assistant_in_templates_that_do_not_mark_them() {
    let Some(folder) = data("tokenizers/chat-templates") else { return };
    for (file, expected) in [
        ("HuggingFaceTB-SmolLM3-3B.jinja", [" a <|im_end|>", "a<|im_end|>"]),
        ("Qwen-Qwen2.5-7B-Instruct.jinja", [" a <|im_end|>", "a<|im_end|>"]),
        ("google-gemma-2-2b-it.jinja", ["a<end_of_turn>", "a<end_of_turn>"]),
        ("ibm-granite-granite-3.3-2B-Instruct.jinja", [" a <|end_of_text|>", "a<|end_of_text|>"]),
        ("meta-llama-Llama-3.1-8B-Instruct.jinja", ["a<|eot_id|>", "a<|eot_id|>"]),
        ("microsoft-Phi-3.5-mini-instruct.jinja", [" a <|end|>", "a<|end|>"]),
        ("mistralai-Mistral-Nemo-Instruct-2407.jinja", [" a </s>", "a</s>"]),
    ] {
        let source = fs::read_to_string(folder.join(file)).unwrap();
        let special = ["<|im_end|>", "<end_of_turn>", "<|end_of_text|>", "<|eot_id|>", "<|end|>"];
        let names = BTreeMap::from([
            ("eos_token".to_owned(), "</s>".to_owned()),
            ("bos_token".to_owned(), "<s>".to_owned()),
        ]);
        let template = ChatTemplate::new(&source, names, special.map(str::to_owned), file).unwrap();
        assert_eq!(said(&template, &TALK), expected, "{file}");
    }
}

#[test]
fn a_call_of_a_tool_is_what_the_assistant_generates() {
    let Some(folder) = data("tokenizers/chat-templates") else { return };
    let source = fs::read_to_string(folder.join("Qwen-Qwen2.5-7B-Instruct.jinja")).unwrap();
    let special = ["<|im_end|>", "<|im_start|>"].map(str::to_owned);
    let template = ChatTemplate::new(&source, BTreeMap::new(), special, "`qwen`").unwrap();
    let call = r#"[{"function": {"name": "f", "arguments": {"z": 1, "a": "<|im_end|>"}}}]"#;
    let messages = [
        Message::new("user", "q"),
        Message {
            role: "assistant".to_owned(),
            tool_calls: Some(call.to_owned()),
            ..Message::default()
        },
        Message::new("tool", "1"),
        Message::new("assistant", "one"),
    ];
    let rendered = template.render(&messages, &Options::default()).unwrap();
    let said: Vec<&str> =
        rendered.assistant.iter().map(|span| &rendered.text[span.clone()]).collect();
    let wanted = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"z\": 1, \"a\": \"<|im_end|>\"}}\n</tool_call><|im_end|>";
    assert_eq!(said, [wanted, "one<|im_end|>"]);
    let literal: Vec<&str> =
        rendered.literal.iter().map(|span| &rendered.text[span.clone()]).collect();
    assert_eq!(literal, ["<|im_end|>"]);
}

#[test]
fn a_special_token_that_the_assistant_spells_does_not_end_its_turn() {
    let template = template(
        "{% for m in messages %}{{ m.role }}:{{ m.content }}{{ '|' if m.role == 'user' }}{% endfor %}",
    );
    let messages = [Message::new("assistant", "a"), Message::new("user", "<|end|>")];
    let rendered = template.render(&messages, &Options::default()).unwrap();
    assert_eq!(rendered.text, "assistant:auser:<|end|>|");
    assert_eq!((rendered.assistant.len(), rendered.assistant[0].clone()), (1, 10..11));
    let split = self::template(
        "{% for m in messages %}{{ m.content.split('|')[1] }}{{ m.content[:4] }}{% endfor %}",
    );
    let rendered = split.render(&[Message::new("user", "<|end|>")], &Options::default()).unwrap();
    assert_eq!(rendered.text, "end<|e");
    assert!(rendered.literal.is_empty());
    // A method that takes one mark away leaves the token what it is: text.
    let halved = self::template("{{ messages[0].content[1:] }}{{ messages[0].content[:-1] }}");
    let rendered = halved.render(&[Message::new("user", "<|end|>")], &Options::default()).unwrap();
    assert_eq!(rendered.text, "<|end|><|end|>");
    assert_eq!(rendered.literal, [0..7, 7..14]);
}

#[test]
fn templates_that_hide_what_the_assistant_says_are_refused() {
    let twice = template("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}");
    let options = Options::default();
    let error = twice.render(&[Message::new("assistant", "a")], &options).unwrap_err().to_string();
    assert!(error.contains("message 0 cannot be found"), "{error}");
    let dropped =
        template("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}");
    assert_eq!(said(&dropped, &TALK), Vec::<String>::new());
}

#[track_caller]
fn check_error(source: &str, expected: &str) {
    let template = ChatTemplate::new(source, BTreeMap::new(), [], "`test`");
    let error =
        template.and_then(|it| it.render(&[Message::new("user", "q")], &Options::default()));
    assert_eq!(
        error.unwrap_err().to_string(),
        format!("cannot render by chat template `test`: {expected}")
    );
}

#[test]
fn says_what_is_wrong_with_a_template_and_where() {
    check_error("a\n{{ raise_exception('No system') }}", "line 2: it raises `No system`");
    check_error(
        "{{ strftime_now('%Y') }}",
        "line 1: it asks for the date; say which, the day of the run is none",
    );
    check_error(
        "{% for i in range(100000) %}{% for j in range(100000) %}{{ i }}{% endfor %}{% endfor %}",
        "line 1: engine ran out of fuel",
    );
    check_error("{% if %}", "line 1: unexpected end of block");
    let options = Options { tools: Some("[".to_owned()), ..Options::default() };
    let error = template("x").render(&[Message::new("user", "q")], &options).unwrap_err();
    assert!(error.to_string().contains("`tools` are not JSON: EOF"), "{error}");
    let error = template("x").render(&[], &Options::default()).unwrap_err();
    assert!(error.to_string().contains("the conversation has no messages"), "{error}");
}

#[test]
fn finds_the_template_beside_a_tokenizer() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let load = || ChatTemplate::load(folder.path(), []);
    assert!(load().unwrap_err().to_string().starts_with("cannot find a chat template in"));
    let config = json!({
        "bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null,
        "chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d{{ bos_token }}"}],
    });
    write("tokenizer_config.json", &config.to_string());
    let template = load().unwrap();
    assert_eq!(template.source(), "d{{ bos_token }}");
    let names: Vec<_> = template.names().iter().map(|(name, token)| (&**name, &**token)).collect();
    assert_eq!(names, [("bos_token", "<s>"), ("eos_token", "</s>")]);
    write("chat_template.jinja", "j{{ eos_token }}");
    assert_eq!(load().unwrap().source(), "j{{ eos_token }}");
    let file = ChatTemplate::load(&folder.path().join("tokenizer_config.json"), []).unwrap();
    assert_eq!(file.source(), "d{{ bos_token }}");
}

#[test]
fn messages_are_read_and_written_as_json_with_the_order_of_calls() {
    let json = r#"[{"role":"assistant","content":"a","tool_calls":[{"function":{"name":"f","arguments":{"z":1.0,"a":[2.5]}}}]}]"#;
    let messages: Vec<Message> = serde_json::from_str(json).unwrap();
    let calls = r#"[{"function":{"name":"f","arguments":{"z":1.0,"a":[2.5]}}}]"#;
    assert_eq!(messages[0].tool_calls.as_deref(), Some(calls));
    assert_eq!(serde_json::to_string(&messages).unwrap(), json);
    assert_eq!(transcript(&messages), format!("Assistant: a\n{calls}"));
    let turns = [Message::new("user", " q\n"), Message::new("tool", "1")];
    let spoken =
        Message { tool_calls: Some("\"f(1)\"".to_owned()), ..Message::new("assistant", "") };
    assert_eq!(
        transcript(&[&turns[..], &[spoken]].concat()),
        "User: q\n\nTool: 1\n\nAssistant: f(1)"
    );
}

#[test]
fn dates_are_read_as_they_are_written() {
    // `date -u -d DAY +%s`
    for (day, seconds) in
        [("1970-01-01", 0), ("2024-02-29", 1_709_164_800), ("2000-12-31", 978_220_800)]
    {
        assert_eq!(parse_date(day), Some(seconds), "{day}");
        assert_eq!(clock::format(seconds, "%Y-%m-%d"), day);
    }
    for day in [
        "2023-02-29",
        "2024-13-01",
        "24-01-01",
        "2024-1-1",
        "2024-01-01-",
        "2024-01",
        "+024-01-01",
        "",
    ] {
        assert_eq!(parse_date(day), None, "{day}");
    }
}
