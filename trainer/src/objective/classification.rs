//! Classes of whole sequences, or a number for each.

use shard::reader::Sequence;
use tch::{Kind, Reduction, Tensor};

use super::{Config, IGNORED, MicroBatch, Objective, ObjectiveKind, Vocabulary, misfit, need};
use crate::error::{Error, Result};
use crate::model::{Model, Pass, Shape};

pub(super) const KIND: ObjectiveKind = ObjectiveKind {
    name: "classification",
    summary: "tells the class of a sequence, whose id is the sequence's last token",
    source: "Devlin et al. 2019, section 4.1; checked against transformers 5.23",
    build,
};

#[derive(Debug)]
struct Classification {
    n_classes: u64,
    is_causal: bool,
}

fn build(_: &Config, _: &Vocabulary, shape: Shape) -> Result<Box<dyn Objective>> {
    let hint = "start from a folder whose architecture ends in `ForSequenceClassification`";
    need(shape.n_scores > 0, "classification", "scores of sequences", hint)?;
    if shape.n_scores == 1 {
        return Err(misfit(
            "`classification` needs two classes or more, the model has one score".to_owned(),
            "give the model a label for each class",
        ));
    }
    Ok(Box::new(Classification { n_classes: shape.n_scores, is_causal: shape.is_causal }))
}

impl Objective for Classification {
    fn masks_documents(&self) -> bool {
        false
    }

    /// The class stands behind the document: it is the last token before the filling, and no input. A sequence of several
    /// documents has no target.
    fn fill(&self, sequence: &Sequence, _: u64, inputs: &mut Vec<i64>, targets: &mut Vec<i64>) {
        let t = sequence.loss_mask.len();
        let end = sequence.boundaries.last().map_or(t, |&end| end as usize).saturating_sub(1);
        inputs.extend(sequence.tokens[..t].iter().map(|&id| i64::from(id)));
        let is_alone = sequence.boundaries.len() == 2 && end > 0;
        let class = sequence.tokens.get(end).map(|&id| i64::from(id)).filter(|_| is_alone);
        targets.extend((0..t).map(|i| match class {
            Some(class) if i + 1 == end => class,
            _ => IGNORED,
        }));
    }

    fn loss(&self, model: &dyn Model, batch: &MicroBatch, pass: &mut Pass<'_>) -> Result<Tensor> {
        let targets_bt = &batch.targets_bt;
        let is_last_bt = targets_bt.ne(IGNORED);
        let last_b = is_last_bt.to_kind(Kind::Int64).argmax(1, false);
        if !self.is_causal {
            let t = targets_bt.size()[1];
            let columns_1t = Tensor::arange(t, (Kind::Int64, targets_bt.device())).unsqueeze(0);
            let is_real_bt = columns_1t.le_tensor(&last_b.unsqueeze(1));
            pass.mask_b1tt = Some(is_real_bt.unsqueeze(1).unsqueeze(1));
        }
        let hidden_btc = model.hidden(&batch.tokens_bt, pass);
        let scores_bn = model.scores(&hidden_btc, Some(&last_b), pass.is_training);
        let classes_b = targets_bt.gather(1, &last_b.unsqueeze(1), false).squeeze_dim(1);
        debug_assert_eq!(scores_bn.size()[1], i64::try_from(self.n_classes).unwrap_or(-1));
        score_loss(&scores_bn, &classes_b)
    }
}

/// Returns the sum over sequences of the loss of their scores `[B, N]`: cross-entropy for classes `[B]` int64, squared
/// difference for one score and numbers `[B]`.
///
/// # Errors
/// [`Error::Torch`] when libtorch refuses, as for a class that the model has no score for.
pub fn score_loss(scores_bn: &Tensor, labels_b: &Tensor) -> Result<Tensor> {
    let scores_bn = scores_bn.to_kind(Kind::Float);
    if scores_bn.size()[1] == 1 {
        return scores_bn
            .squeeze_dim(1)
            .f_mse_loss(labels_b, Reduction::Sum)
            .map_err(Error::torch("compute the loss"));
    }
    super::sum_of_losses(&scores_bn, labels_b)
}
