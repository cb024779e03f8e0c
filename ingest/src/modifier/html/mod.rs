//! HTML as text: bytes of a page to [`tree::Tree`], main content, plain text.
//!
//! [`tokenizer`] follows the states of the WHATWG tokenizer, [`tree`] keeps what attributes text to elements (implied end
//! tags, scopes, raw text) in one flat arena, [`content`] decides what the page is about, and [`render`] writes it out.
//! Nothing recurses, so depth costs no stack.

pub(super) mod block;
pub(super) mod content;
pub(super) mod markdown;
pub(super) mod model;
pub(crate) mod reference;
pub(super) mod render;
pub(super) mod tag;
pub(super) mod tokenizer;
pub(super) mod tree;
pub(crate) mod visible;
