//! Instruction tuning: the next token, where the dataset says that it counts (`tokens.loss_mask`: what the assistant says),
//! over dialogues that share a sequence and do not see each other.

use shard::reader::Sequence;

use super::causal_lm::next_tokens;
use super::{Config, Objective, ObjectiveKind, Vocabulary, need};
use crate::error::Result;
use crate::model::Shape;

pub(super) const KIND: ObjectiveKind = ObjectiveKind {
    name: "supervised",
    summary: "predicts what the assistant says; dialogues of one sequence do not see each other",
    source: "Ouyang et al. 2022; checked against transformers 5.23 and TRL",
    build,
};

#[derive(Debug)]
struct Supervised {
    masks_documents: bool,
}

fn build(config: &Config, _: &Vocabulary, shape: Shape) -> Result<Box<dyn Objective>> {
    let has_it = shape.is_causal && shape.has_token_head;
    need(has_it, "supervised", "a decoder with logits of tokens", "start from GPT-2 or LLaMA")?;
    Ok(Box::new(Supervised { masks_documents: config.masks_documents() }))
}

impl Objective for Supervised {
    fn masks_documents(&self) -> bool {
        self.masks_documents
    }

    fn fill(&self, sequence: &Sequence, _: u64, inputs: &mut Vec<i64>, targets: &mut Vec<i64>) {
        next_tokens(sequence, inputs, targets);
    }
}
