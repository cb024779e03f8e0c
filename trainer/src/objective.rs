//! What a model is trained on: the next token.

use tch::{Kind, Reduction, Tensor};

/// A target that does not count, as in the field's label tensors.
pub const IGNORED: i64 = -100;

/// Returns the sum of the losses of all counted targets, in nats, a scalar tensor.
///
/// `logits_btv` of any float kind, `targets_bt` int64, aligned: position `t` predicts `targets_bt[.., t]`.
/// The sum, not the mean: a global batch divides by its own number of targets, whatever its parts hold.
pub fn causal_lm(logits_btv: &Tensor, targets_bt: &Tensor) -> Tensor {
    let v = logits_btv.size()[2];
    logits_btv.view([-1, v]).to_kind(Kind::Float).cross_entropy_loss::<Tensor>(
        &targets_bt.reshape([-1]),
        None,
        Reduction::Sum,
        IGNORED,
        0.0,
    )
}
