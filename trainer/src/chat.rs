//! Conversations with a tuned model, in the words of its chat template.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use shard::chat::{ChatEncoder, ChatTemplate, Message, Options};
use shard::tokenizer::Tokenizer;
use tch::Device;

use crate::error::{Error, Result};
use crate::generate::{Sampling, TextStream, generate};
use crate::gguf::{self, Gguf};
use crate::model::{self, Loaded};

/// A model that listens and answers.
#[derive(Debug)]
pub struct Dialogue {
    loaded: Loaded,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    /// What ends an answer.
    stop: Vec<u32>,
    /// What was said so far.
    pub messages: Vec<Message>,
    /// How answers are chosen.
    pub sampling: Sampling,
    /// Tokens that an answer has at most.
    pub n_tokens: usize,
    /// What templates take for now: seconds since 1970.
    pub clock: Option<i64>,
}

impl Dialogue {
    /// Loads the model in `model`, a Hugging Face folder or a GGUF file, with the tokenizer of the file `tokenizer`.
    ///
    /// The chat template is the file `template`, else the one beside or inside the tokenizer.
    ///
    /// # Errors
    /// [`Error::Unusable`] when the vocabulary is larger than the model's or there is no template.
    pub fn open(
        model: &Path,
        tokenizer: &Path,
        template: Option<&Path>,
        device: Device,
    ) -> Result<Self> {
        let loaded = model::load(model, device)?;
        let tokens = Tokenizer::load(tokenizer)?;
        let (ours, theirs) = (loaded.model.shape().vocab_size, u64::from(tokens.n_vocabulary()));
        if theirs > ours {
            return Err(Error::Unusable {
                action: "chat with",
                what: format!("`{}`", model.display()),
                why: format!("its tokenizer has {theirs} tokens, the model {ours}"),
                hint: "give the tokenizer that the model was made with".to_owned(),
            });
        }
        let template = match template {
            Some(path) => ChatTemplate::load(path, tokens.special().keys().cloned())?,
            None => own_template(tokenizer, &tokens)?,
        };
        let stop = stop_tokens(&loaded.config, &tokens, &template)?;
        Ok(Self {
            loaded,
            tokenizer: tokens,
            template,
            stop,
            messages: Vec::new(),
            sampling: Sampling::GREEDY,
            n_tokens: 512,
            clock: None,
        })
    }

    /// Says `text` to the model and returns its answer; `on_text` sees it as it comes, and ends it with `false`.
    ///
    /// # Errors
    /// When the template refuses the conversation.
    pub fn answer(&mut self, text: &str, on_text: &mut dyn FnMut(&str) -> bool) -> Result<String> {
        self.messages.push(Message::new("user", text));
        let options =
            Options { add_generation_prompt: true, clock: self.clock, ..Options::default() };
        let rendered = self.template.render(&self.messages, &options)?;
        let prompt = ChatEncoder::new(&self.tokenizer)?.encode(&rendered)?.tokens;
        let mut stream = TextStream::new(&self.tokenizer);
        let (mut answer, mut failed) = (String::new(), None);
        let mut on_token = |id: u32| {
            if self.stop.contains(&id) {
                return true;
            }
            match stream.push(id) {
                Ok(new) => {
                    answer += &new;
                    on_text(&new)
                }
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        };
        let model = self.loaded.model.as_ref();
        generate(model, &prompt, self.n_tokens, &self.stop, self.sampling, &mut on_token)?;
        if let Some(error) = failed {
            return Err(error);
        }
        self.messages.push(Message::new("assistant", answer.clone()));
        Ok(answer)
    }
}

fn own_template(tokenizer: &Path, tokens: &Tokenizer) -> Result<ChatTemplate> {
    let special = tokens.special();
    if !gguf::is_gguf(tokenizer)? {
        let folder = tokenizer.parent().unwrap_or(Path::new("."));
        return Ok(ChatTemplate::from_tokenizer_folder(folder, special.keys().cloned())?);
    }
    let gguf = Gguf::open(tokenizer)?;
    let place = format!("`{}`", tokenizer.display());
    let source =
        gguf.value("tokenizer.chat_template").and_then(Value::as_str).ok_or_else(|| {
            Error::Unusable {
                action: "chat with",
                what: place.clone(),
                why: "its header has no `tokenizer.chat_template`".to_owned(),
                hint: "give a template with `--template`".to_owned(),
            }
        })?;
    let name = |key: &str| {
        let id = gguf.value(&format!("tokenizer.ggml.{key}_token_id"))?.as_u64()?;
        let (text, _) = special.iter().find(|(_, found)| u64::from(**found) == id)?;
        Some((format!("{key}_token"), text.clone()))
    };
    let names: BTreeMap<String, String> = ["bos", "eos"].into_iter().filter_map(name).collect();
    Ok(ChatTemplate::new(source, names, special.keys().cloned(), &place)?)
}

/// What the configuration calls the end, and what the template writes behind an answer.
fn stop_tokens(config: &Value, tokenizer: &Tokenizer, template: &ChatTemplate) -> Result<Vec<u32>> {
    let mut stop: Vec<u32> = end_of_text(config);
    let sample = [Message::new("user", "a"), Message::new("assistant", "b")];
    // A template that refuses so plain a conversation will say so again, with the real one.
    if let Ok(rendered) = template.render(&sample, &Options::default()) {
        let encoded = ChatEncoder::new(tokenizer)?.encode(&rendered)?;
        let said = encoded.tokens.iter().zip(&encoded.loss_mask).filter(|(_, counts)| **counts);
        let last = said.map(|(id, _)| *id).next_back();
        stop.extend(last.filter(|id| tokenizer.special().values().any(|special| special == id)));
    }
    if stop.is_empty() {
        stop.extend(tokenizer.end_of_document());
    }
    Ok(stop)
}

/// The ids of `eos_token_id`: one, or a list.
#[must_use]
pub fn end_of_text(config: &Value) -> Vec<u32> {
    let alone = std::slice::from_ref(&config["eos_token_id"]);
    let ids = config["eos_token_id"].as_array().map_or(alone, Vec::as_slice);
    ids.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect()
}
