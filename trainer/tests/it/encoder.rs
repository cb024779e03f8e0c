//! BERT's logits, scores, losses and gradients equal those of transformers, on every fixture of it that the data's
//! manifest lists.

use serde_json::Value;
use tch::{Device, Kind, Reduction, Tensor};
use trainer::model::{self, Loaded, Pass};
use trainer::objective::{IGNORED, sum_of_losses};
use trainer::torch;
use trainer::weights::WeightFiles;

use crate::parity::{GRADIENT, LOGITS, LOSS, difference, hidden_states, json, listed};

#[test]
fn logits_scores_losses_and_gradients_equal_the_reference() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let mut judged = 0;
    for file in listed(&root, "reference/bert", ".safetensors") {
        let name = file.trim_start_matches("reference/").trim_end_matches(".safetensors");
        let reference = WeightFiles::open(&root.join(&file)).unwrap();
        let numbers = json(&root.join("reference").join(format!("{name}.json")));
        let loaded = model::load(&root.join("models").join(name), Device::Cpu).unwrap();
        let tensor = |name: &str| reference.tensor(name).unwrap();
        let mask = tensor("attention_mask").to_kind(Kind::Bool);
        let mut pass = Pass {
            token_types_bt: Some(tensor("token_type_ids")),
            mask_b1tt: Some(mask.unsqueeze(1).unsqueeze(1)),
            hidden_states: Some(Vec::new()),
            ..Pass::default()
        };
        let hidden = loaded.model.hidden(&tensor("input_ids"), &mut pass);
        let mut line = format!("{name}: {}", &hidden_states(&pass, &reference, None)[2..]);
        let mut loss = Tensor::from(0f32);
        let check = |what: &str, ours: &Tensor, theirs: &str, line: &mut String| {
            let far = difference(ours, &tensor(theirs));
            assert!(far < LOGITS, "{name}: {what} differ by {far}");
            *line += &format!(", {what} {far:.1e}");
        };
        let shape = loaded.model.shape();
        if shape.has_token_head {
            let logits = loaded.model.head(&hidden);
            let theirs = if reference.has("logits") { "logits" } else { "prediction_logits" };
            check("logits", &logits, theirs, &mut line);
            let labels = tensor("labels");
            let n = labels.ne(IGNORED).sum(Kind::Int64).int64_value(&[]);
            loss += sum_of_losses(&logits, &labels).unwrap() / n as f64;
        }
        if shape.n_scores > 0 {
            let scores = loaded.model.scores(&hidden, None, false);
            let is_pair = reference.has("next_sentence_label");
            let theirs = if is_pair { "seq_relationship_logits" } else { "logits" };
            check("scores", &scores, theirs, &mut line);
            let labels = tensor(if is_pair { "next_sentence_label" } else { "labels" });
            loss += if shape.n_scores == 1 {
                scores.squeeze_dim(1).mse_loss(&labels, Reduction::Mean)
            } else {
                let none = None::<&Tensor>;
                scores.cross_entropy_loss(&labels, none, Reduction::Mean, IGNORED, 0.0)
            };
        }
        line += &losses_and_gradients(&loaded, &loss, &reference, &numbers);
        println!("{line}");
        judged += 1;
    }
    println!("judged {judged} references");
    assert!(judged >= 4, "{judged}");
}

fn losses_and_gradients(
    loaded: &Loaded,
    loss: &Tensor,
    reference: &WeightFiles,
    numbers: &Value,
) -> String {
    let loss_far = (loss.double_value(&[]) - numbers["loss"].as_f64().unwrap()).abs();
    assert!(loss_far < LOSS, "loss differs by {loss_far}");
    loss.backward();
    let (mut far, mut norm_far, mut gradients) = (0f64, 0f64, Vec::new());
    let norms = numbers["grad_norms"].as_object().unwrap();
    assert_eq!(norms.len(), loaded.model.parameters().len());
    for parameter in loaded.model.parameters() {
        let gradient = parameter.tensor.grad();
        let norm = gradient.norm().double_value(&[]);
        norm_far = norm_far.max((norm - norms[&parameter.name].as_f64().unwrap()).abs());
        let key = format!("grad.{}", parameter.name);
        if reference.has(&key) {
            far = far.max(difference(&gradient, &reference.tensor(&key).unwrap()));
        }
        gradients.push(gradient);
    }
    let norm = torch::clip_gradients(&gradients, None).unwrap().double_value(&[]);
    norm_far = norm_far.max((norm - numbers["grad_norm"].as_f64().unwrap()).abs());
    assert!(
        far < GRADIENT && norm_far < GRADIENT,
        "gradients differ by {far}, norms by {norm_far}"
    );
    let n = gradients.len();
    format!(", loss {loss_far:.1e}, {n} gradients {far:.1e}, their norms {norm_far:.1e}")
}
