//! From a rendered conversation to tokens, each with whether it is learned.
//!
//! The text is tokenized once, and a token counts when it has a character of what the assistant said: the rule of
//! Transformers, whose tokenizer this is. Only a conversation that itself spells a special token is encoded in pieces, so
//! that those pieces are text; that is Transformers' `sanitize_control_tokens`.

use std::ops::Range;

use tokenizers_stable as stable;

use super::Rendered;
use crate::Result;
use crate::tokenizer::Tokenizer;

/// Encodes conversations with one tokenizer.
#[derive(Debug)]
pub struct ChatEncoder<'a> {
    tokenizer: &'a Tokenizer,
    stable: &'a stable::Tokenizer,
    /// The tokens of a line feed, before which pieces are encoded.
    line_feed: Vec<u32>,
}

/// A conversation as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedChat {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Whether each is a target: the assistant said it.
    pub loss_mask: Vec<bool>,
}

impl EncodedChat {
    /// Whether a sequence of it has a target: the first token of a document is never one.
    #[must_use]
    pub fn has_targets(&self) -> bool {
        self.loss_mask.iter().skip(1).any(|counts| *counts)
    }
}

impl<'a> ChatEncoder<'a> {
    /// Returns an encoder for `tokenizer`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) when it has no offsets.
    pub fn new(tokenizer: &'a Tokenizer) -> Result<Self> {
        let stable = tokenizer.stable()?;
        let mut line_feed = Vec::new();
        tokenizer.encode("\n", &mut line_feed)?;
        Ok(Self { tokenizer, stable, line_feed })
    }

    /// Encodes a conversation. Special tokens are what the template writes, never what the conversation says; none is
    /// added.
    ///
    /// # Errors
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) when the vocabulary has no token for a part of the text and none for the unknown.
    pub fn encode(&self, rendered: &Rendered) -> Result<EncodedChat> {
        let mut out = EncodedChat::default();
        let mut at = 0;
        for literal in &rendered.literal {
            self.push(rendered, at..literal.start, at > 0, &mut out)?;
            self.push_text(rendered, literal.clone(), at > 0 || literal.start > 0, &mut out)?;
            at = literal.end;
        }
        self.push(rendered, at..rendered.text.len(), at > 0, &mut out)?;
        Ok(out)
    }

    /// Appends what the template and the conversation write, with the special tokens of the former.
    fn push(
        &self,
        rendered: &Rendered,
        range: Range<usize>,
        is_inner: bool,
        out: &mut EncodedChat,
    ) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let piece = &rendered.text[range.clone()];
        let refuse = |error: stable::Error| self.tokenizer.error(error);
        let inner = is_inner.then(|| format!("\n{piece}"));
        let encoding =
            self.stable.encode(inner.as_deref().unwrap_or(piece), false).map_err(refuse)?;
        let (mut ids, mut offsets) = (encoding.get_ids(), encoding.get_offsets());
        let mut shift = range.start;
        let again;
        if is_inner {
            if ids.starts_with(&self.line_feed) {
                (ids, offsets) = (&ids[self.line_feed.len()..], &offsets[self.line_feed.len()..]);
                shift -= 1;
            } else {
                again = self.stable.encode(piece, false).map_err(refuse)?;
                (ids, offsets) = (again.get_ids(), again.get_offsets());
            }
        }
        out.tokens.extend_from_slice(ids);
        // Both are in order.
        let mut spans = rendered.assistant.iter().peekable();
        for (start, end) in offsets {
            let (start, end) = (start + shift, end + shift);
            while spans.next_if(|span| start >= span.end).is_some() {}
            out.loss_mask.push(spans.peek().is_some_and(|span| end > span.start));
        }
        Ok(())
    }

    /// Appends a special token that the conversation spells, as the text that it is there.
    fn push_text(
        &self,
        rendered: &Rendered,
        range: Range<usize>,
        is_inner: bool,
        out: &mut EncodedChat,
    ) -> Result<()> {
        let piece = &rendered.text[range.clone()];
        let first = out.tokens.len();
        let mut ids = Vec::new();
        if is_inner {
            self.tokenizer.encode(&format!("\n{piece}"), &mut ids)?;
        }
        match ids.strip_prefix(self.line_feed.as_slice()).filter(|_| is_inner) {
            Some(rest) => out.tokens.extend_from_slice(rest),
            None => self.tokenizer.encode(piece, &mut out.tokens)?,
        }
        if let Some(id) = self.tokenizer.special().get(piece)
            && out.tokens[first..].contains(id)
        {
            let why = format!("the text `{piece}` would be encoded as the special token {id}");
            return Err(self.tokenizer.error(why));
        }
        let counts =
            rendered.assistant.iter().any(|span| span.start < range.end && range.start < span.end);
        out.loss_mask.resize(out.tokens.len(), counts);
        Ok(())
    }
}
