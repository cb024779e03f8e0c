//! Conversations as tokens: what a chat template makes of them, with the mask of what is learned.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, ListBuilder, MapArray, StructArray, UInt32Builder,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use serde_json::{Value, json};
use shard::chat::{ChatEncoder, ChatTemplate, Conversation, EncodedChat, Options, parse_date};
use shard::schema::{ID_BYTES, LOSS_MASK, loss_mask_field, metadata_type};
use shard::store;
use shard::tokenizer::{Tokenizer, TokenizerSpec};

use crate::job::{ChatConfig, LoadedJob};
use crate::{Error, Result};

/// `template` that stands for the one beside the tokenizer.
const OF_TOKENIZER: &str = "tokenizer";

/// `[shard.chat]` of a job, checked.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The template, or the folder of its tokenizer.
    path: PathBuf,
    options: Options,
}

impl Plan {
    /// Checks the settings and compiles the template.
    ///
    /// # Errors
    /// When there is no template or it is none, or a date is not one.
    pub(super) fn resolve(
        job: &LoadedJob,
        config: &ChatConfig,
        tokenizer: &TokenizerSpec,
    ) -> Result<Self> {
        let path = match (config.template.as_str(), tokenizer) {
            (OF_TOKENIZER, TokenizerSpec::Path(path)) => {
                path.parent().map(PathBuf::from).unwrap_or_default()
            }
            (OF_TOKENIZER, TokenizerSpec::Train { .. }) => {
                let message = "a tokenizer that is trained here has no chat template";
                let hint = "give the path of a template, or the tokenizer of a chat model";
                return Err(job.error("shard.chat.template", message, Some(hint.to_owned())));
            }
            (path, _) => job.resolve(path),
        };
        let clock = config.date.as_deref().map(|date| {
            parse_date(date).ok_or_else(|| {
                let message = format!("`{date}` is not a day: write it as `2024-07-26`");
                job.error("shard.chat.date", message, None)
            })
        });
        let variables = config.variables.as_ref().map(|table| json!(table).to_string());
        let options = Options { clock: clock.transpose()?, variables, ..Options::default() };
        let plan = Self { path, options };
        plan.template(&[])?;
        Ok(plan)
    }

    /// What decides the tokens beside the settings of the job.
    ///
    /// # Errors
    /// When the template cannot be read.
    pub(super) fn fingerprint(&self) -> Result<Value> {
        let template = self.template(&[])?;
        let hash = shard::manifest::hash(template.source().as_bytes());
        Ok(json!({ "template_blake3": hash, "tokens": template.names() }))
    }

    /// Loads the template for `tokenizer`.
    ///
    /// # Errors
    /// When the template cannot be read.
    pub(super) fn load(&self, tokenizer: Arc<Tokenizer>) -> Result<Chat> {
        let special: Vec<String> = tokenizer.special().keys().cloned().collect();
        let template = self.template(&special)?;
        // Built once, before every thread asks for it.
        ChatEncoder::new(&tokenizer)?;
        Ok(Chat { template, options: self.options.clone(), tokenizer, refused: Mutex::default() })
    }

    fn template(&self, special: &[String]) -> Result<ChatTemplate> {
        Ok(ChatTemplate::load(&self.path, special.iter().cloned())?)
    }
}

/// A chat template and its tokenizer, at work on one shard of documents.
#[derive(Debug)]
pub(super) struct Chat {
    template: ChatTemplate,
    options: Options,
    tokenizer: Arc<Tokenizer>,
    refused: Mutex<Refused>,
}

/// Conversations that gave no tokens.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// Their number by `chat/reason`.
    pub(super) counts: BTreeMap<String, u64>,
    /// What the template said of the first that it refused.
    pub(super) first: Option<String>,
}

impl Chat {
    /// What was refused so far; counts begin anew.
    pub(super) fn take_refused(&self) -> Refused {
        std::mem::take(&mut *self.refused.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The template, to be kept with the tokens: what a model was taught by it must be asked by it.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn publish(&self, dataset: &shard::Dataset) -> Result<String> {
        let source = self.template.source().as_bytes();
        let name = format!("chat_template-{}.jinja", &shard::manifest::hash(source)[..12]);
        store::put_if_absent(&dataset.path().join(&name), source)?;
        Ok(name)
    }

    /// The tokens and the mask of a document; none, with a reason, when it is a conversation that cannot be learned from.
    ///
    /// Of a document that is no conversation every token is a target.
    fn encode<'a>(
        &self,
        encoder: &ChatEncoder<'_>,
        text: &str,
        metadata: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<std::result::Result<EncodedChat, (&'static str, Option<String>)>> {
        let conversation = match Conversation::from_metadata(text, metadata) {
            None => {
                let mut tokens = Vec::new();
                self.tokenizer.encode(text, &mut tokens)?;
                tokens.extend(self.tokenizer.end_of_document());
                let loss_mask = vec![true; tokens.len()];
                return Ok(Ok(EncodedChat { tokens, loss_mask }));
            }
            Some(Err(reason)) => return Ok(Err((reason, None))),
            Some(Ok(conversation)) => conversation,
        };
        let messages = match conversation.wanted() {
            Ok(messages) => messages,
            Err(reason) => return Ok(Err((reason, None))),
        };
        let rendered = match self.template.render(messages, &conversation.options(&self.options)) {
            Err(error @ shard::Error::Template { .. }) => {
                return Ok(Err(("refused_by_template", Some(error.to_string()))));
            }
            rendered => rendered?,
        };
        let encoded = encoder.encode(&rendered)?;
        Ok(if encoded.has_targets() { Ok(encoded) } else { Err(("no_targets", None)) })
    }

    fn refuse(&self, reason: &str, why: Option<String>) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused.counts.entry(format!("chat/{reason}")).or_default() += 1;
        refused.first = refused.first.take().or(why);
    }
}

/// The function from `id`, `text` and `metadata` to tokens and mask; null for what is refused.
pub(super) fn tokens_udf(chat: Arc<Chat>) -> ScalarUDF {
    let item = Field::new("item", DataType::UInt32, false);
    let tokens = Field::new("tokens", DataType::List(Arc::new(item.clone())), false);
    let fields = Fields::from(vec![tokens, loss_mask_field()]);
    let output = DataType::Struct(fields.clone());
    let fun = move |args: &[ColumnarValue]| {
        let columns = ColumnarValue::values_to_arrays(args)?;
        let texts = columns[1].as_string_view();
        let metadata = columns[2].as_map();
        let encoder = ChatEncoder::new(&chat.tokenizer).map_err(Error::from)?;
        let mut tokens = ListBuilder::new(UInt32Builder::new()).with_field(item.clone());
        let mask_item = Field::new("item", DataType::Boolean, false);
        let mut masks = ListBuilder::new(BooleanBuilder::new()).with_field(mask_item);
        let mut kept = Vec::with_capacity(texts.len());
        for row in 0..texts.len() {
            let encoded =
                chat.encode(&encoder, texts.value(row), |key| value_of(metadata, row, key))?;
            kept.push(encoded.is_ok());
            match encoded {
                Ok(encoded) => {
                    tokens.values().append_slice(&encoded.tokens);
                    masks.values().append_slice(&encoded.loss_mask);
                }
                Err((reason, why)) => chat.refuse(reason, why),
            }
            tokens.append(true);
            masks.append(true);
        }
        let columns: Vec<ArrayRef> = vec![Arc::new(tokens.finish()), Arc::new(masks.finish())];
        let nulls = NullBuffer::from(kept);
        Ok(ColumnarValue::Array(Arc::new(StructArray::try_new(
            fields.clone(),
            columns,
            Some(nulls),
        )?)))
    };
    let input = vec![DataType::FixedSizeBinary(ID_BYTES), DataType::Utf8View, metadata_type()];
    let name = format!("tokens_and_{LOSS_MASK}");
    create_udf(&name, input, output, Volatility::Volatile, Arc::new(fun))
}

/// The value of `key` in the metadata of `row`.
pub(super) fn value_of<'a>(metadata: &'a MapArray, row: usize, key: &str) -> Option<&'a str> {
    if metadata.is_null(row) {
        return None;
    }
    let keys = metadata.keys().as_string::<i32>();
    let values = metadata.values().as_string::<i32>();
    let end = |index: usize| {
        usize::try_from(metadata.value_offsets()[index]).expect("offsets ascend from 0")
    };
    let found = (end(row)..end(row + 1)).find(|at| keys.value(*at) == key)?;
    values.is_valid(found).then(|| values.value(found))
}
