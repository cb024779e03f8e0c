//! The text of a page as it stands between its tags: as `get_text` of Beautiful Soup without scripts and styles.

use super::reference;
use super::tag::{Content, Tag};
use super::tokenizer::{Token, Tokenizer};

/// Returns the text of `page` outside tags, comments, scripts, styles and templates, references resolved.
///
/// White space alone between two tags is one line feed or blank, except in `pre` and `textarea`.
pub(crate) fn visible_text(page: &str) -> String {
    let mut out = String::with_capacity(page.len() / 4);
    // A script cannot hold another one, and its end tag may stand where none began.
    let (mut is_raw, mut n_templates, mut n_kept) = (false, 0_u32, 0_u32);
    let is_space = |byte| matches!(byte, b' ' | b'\n' | b'\t' | b'\x0c' | b'\r');
    for token in Tokenizer::new(page) {
        match token {
            Token::Start { tag: Tag::Script | Tag::Style, .. } => is_raw = true,
            Token::End(Tag::Script | Tag::Style) => is_raw = false,
            Token::Start { tag: Tag::Template, .. } => n_templates += 1,
            Token::End(Tag::Template) => n_templates = n_templates.saturating_sub(1),
            Token::Text(..) if is_raw || n_templates > 0 => {}
            Token::Start { tag: Tag::Pre | Tag::Textarea, .. } => n_kept += 1,
            Token::End(Tag::Pre | Tag::Textarea) => n_kept = n_kept.saturating_sub(1),
            Token::Text(text, _) if n_kept == 0 && text.bytes().all(is_space) => {
                out.push(if text.contains('\n') { '\n' } else { ' ' });
            }
            Token::Text(text, Content::Data | Content::Rcdata) => {
                reference::decode(text, false, &mut out);
            }
            Token::Text(text, _) => out.push_str(text),
            _ => {}
        }
    }
    out
}
