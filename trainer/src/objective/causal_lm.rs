//! The next token.

use shard::reader::Sequence;

use super::{Config, IGNORED, Objective, ObjectiveKind, Vocabulary, need};
use crate::error::Result;
use crate::model::Shape;

pub(super) const KIND: ObjectiveKind = ObjectiveKind {
    name: "causal_lm",
    summary: "predicts the next token at each position",
    source: "Radford et al. 2018; checked against transformers 5.23",
    build,
};

#[derive(Debug)]
struct CausalLm {
    masks_documents: bool,
}

fn build(config: &Config, _: &Vocabulary, shape: Shape) -> Result<Box<dyn Objective>> {
    let has_it = shape.is_causal && shape.has_token_head;
    need(has_it, "causal_lm", "a decoder with logits of tokens", "for BERT take `masked_lm`")?;
    Ok(Box::new(CausalLm { masks_documents: config.masks_documents() }))
}

impl Objective for CausalLm {
    fn masks_documents(&self) -> bool {
        self.masks_documents
    }

    fn fill(&self, sequence: &Sequence, _: u64, inputs: &mut Vec<i64>, targets: &mut Vec<i64>) {
        next_tokens(sequence, inputs, targets);
    }
}

/// Each target is the token that follows, where the sequence's mask counts it.
pub(super) fn next_tokens(sequence: &Sequence, inputs: &mut Vec<i64>, targets: &mut Vec<i64>) {
    let t = sequence.loss_mask.len();
    inputs.extend(sequence.tokens[..t].iter().map(|&id| i64::from(id)));
    let following = sequence.tokens[1..].iter().zip(&sequence.loss_mask);
    targets.extend(following.map(|(&id, &counts)| if counts { i64::from(id) } else { IGNORED }));
}
