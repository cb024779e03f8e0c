//! The text of a page as it stands between its tags, white space and all: as `get_text` of Beautiful Soup without scripts and styles.

use super::reference;
use super::tag::{Content, Tag};
use super::tokenizer::{Token, Tokenizer};

/// Returns every character of `page` outside tags, comments, scripts, styles and templates, references resolved.
pub(crate) fn visible_text(page: &str) -> String {
    let mut out = String::with_capacity(page.len() / 4);
    // A script cannot hold another one, and its end tag may stand where none began.
    let (mut is_raw, mut n_templates) = (false, 0_u32);
    for token in Tokenizer::new(page) {
        match token {
            Token::Start { tag: Tag::Script | Tag::Style, .. } => is_raw = true,
            Token::End(Tag::Script | Tag::Style) => is_raw = false,
            Token::Start { tag: Tag::Template, .. } => n_templates += 1,
            Token::End(Tag::Template) => n_templates = n_templates.saturating_sub(1),
            Token::Text(..) if is_raw || n_templates > 0 => {}
            Token::Text(text, Content::Data | Content::Rcdata) => {
                reference::decode(text, false, &mut out);
            }
            Token::Text(text, _) => out.push_str(text),
            _ => {}
        }
    }
    out
}
