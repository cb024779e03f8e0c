//! The text of a page as it stands between its tags, white space and all: as `get_text` of Beautiful Soup without scripts and styles.

use super::reference;
use super::tag::{Content, Tag};
use super::tokenizer::{Token, Tokenizer};

/// Returns every character of `page` outside tags, comments, scripts and styles, references resolved.
pub(crate) fn visible_text(page: &str) -> String {
    let mut out = String::with_capacity(page.len() / 4);
    let mut hidden = None;
    for token in Tokenizer::new(page) {
        match token {
            Token::Start { tag: tag @ (Tag::Script | Tag::Style), .. } => hidden = Some(tag),
            Token::End(tag) if hidden == Some(tag) => hidden = None,
            Token::Text(..) if hidden.is_some() => {}
            Token::Text(text, Content::Data | Content::Rcdata) => {
                reference::decode(text, false, &mut out);
            }
            Token::Text(text, _) => out.push_str(text),
            _ => {}
        }
    }
    out
}
