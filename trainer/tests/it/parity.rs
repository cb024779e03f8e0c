//! Logits, losses, gradients, updates and schedules equal those of transformers and torch, on every fixture that the
//! data's manifest lists. Tolerances are those of the fixtures' README.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tch::{Device, Kind, Tensor, no_grad};
use trainer::model::{self, Cache, Pass};
use trainer::objective::{IGNORED, sum_of_losses};
use trainer::torch;
use trainer::weights::WeightFiles;

pub(crate) const LOGITS: f64 = 5e-5;
pub(crate) const LOSS: f64 = 5e-6;
pub(crate) const GRADIENT: f64 = 5e-6;
pub(crate) const PARAMETER: f64 = 3e-5;

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Paths of the fixtures' manifest that begin and end so.
pub(crate) fn listed(root: &Path, start: &str, end: &str) -> Vec<String> {
    let manifest = json(&root.join("manifest.json"));
    let mut names: Vec<String> = manifest["files"].as_object().unwrap().keys().cloned().collect();
    names.retain(|name| name.starts_with(start) && name.ends_with(end));
    assert!(!names.is_empty(), "the manifest lists no {start}*{end}");
    names
}

pub(crate) fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    finite((a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[]))
}

/// Largest difference where `keep_bt` is true.
pub(crate) fn difference_where(a_btv: &Tensor, b_btv: &Tensor, keep_bt: &Tensor) -> f64 {
    let far = (a_btv - b_btv).abs().amax([2], false);
    finite(far.masked_fill(&keep_bt.logical_not(), 0.0).max().double_value(&[]))
}

/// The largest of several differences would hide one that is no number.
pub(crate) fn finite(difference: f64) -> f64 {
    assert!(difference.is_finite(), "{difference}");
    difference
}

/// Causal, and blind to padding except that a padded query sees itself.
fn left_padding_mask(mask_bt: &Tensor) -> Tensor {
    let t = mask_bt.size()[1];
    let causal = Tensor::ones([t, t], (Kind::Bool, Device::Cpu)).tril(0);
    let diagonal = Tensor::eye(t, (Kind::Bool, Device::Cpu));
    let real_b11t = mask_bt.to_kind(Kind::Bool).unsqueeze(1).unsqueeze(1);
    real_b11t.logical_and(&causal).logical_or(&diagonal)
}

#[test]
fn logits_losses_and_gradients_equal_the_reference() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let (mut judged, mut other) = (0, 0);
    for file in listed(&root, "reference/", ".safetensors") {
        let name = file.trim_start_matches("reference/").trim_end_matches(".safetensors");
        let folder = root.join("models").join(name.trim_end_matches("_left_padded"));
        let kind = json(&folder.join("config.json"))["model_type"].as_str().unwrap().to_owned();
        if kind == "bert" {
            // Judged by `encoder`.
            other += 1;
            continue;
        }
        let reference = WeightFiles::open(&root.join(&file)).unwrap();
        let loaded = model::load(&folder, Device::Cpu).unwrap();
        let tokens = reference.tensor("input_ids").unwrap();
        let mask = reference.tensor("attention_mask").unwrap();
        let mut pass = Pass { hidden_states: Some(Vec::new()), ..Pass::default() };
        if reference.has("position_ids") {
            pass.positions_bt = Some(reference.tensor("position_ids").unwrap());
            pass.mask_b1tt = Some(left_padding_mask(&mask));
        }
        let logits = loaded.model.logits(&tokens, &mut pass);
        let expected = reference.tensor("logits").unwrap();
        let far = difference_where(&logits, &expected, &mask.to_kind(Kind::Bool));
        assert!(far < LOGITS, "{name}: logits differ by {far}");
        let states = hidden_states(&pass, &reference, Some(&mask.to_kind(Kind::Bool)));
        let mut line = format!("{name}: logits {far:.1e}{states}");
        if reference.has("labels") {
            let numbers = json(&root.join("reference").join(format!("{name}.json")));
            line += &losses_and_gradients(&loaded, &logits, &reference, &numbers);
        }
        println!("{line}");
        judged += 1;
    }
    println!("judged {judged} references, {other} of other architectures");
    assert!(judged >= 7, "{judged}");
}

/// Compares what goes into each block and into the head, where the fixture has it.
pub(crate) fn hidden_states(
    pass: &Pass<'_>,
    reference: &WeightFiles,
    keep_bt: Option<&Tensor>,
) -> String {
    let expected = reference.names().filter(|name| name.starts_with("hidden_states.")).count();
    if expected == 0 {
        return String::new();
    }
    let states = pass.hidden_states.as_ref().unwrap();
    assert_eq!(states.len(), expected);
    let mut far = 0f64;
    for (i, ours) in states.iter().enumerate() {
        let theirs = reference.tensor(&format!("hidden_states.{i}")).unwrap();
        far = far.max(match keep_bt {
            Some(keep) => difference_where(ours, &theirs, keep),
            None => difference(ours, &theirs),
        });
    }
    assert!(far < LOGITS, "hidden states differ by {far}");
    format!(", {expected} hidden states {far:.1e}")
}

fn losses_and_gradients(
    loaded: &model::Loaded,
    logits: &Tensor,
    reference: &WeightFiles,
    numbers: &Value,
) -> String {
    let labels = reference.tensor("labels").unwrap();
    let t = labels.size()[1];
    let targets = labels.narrow(1, 1, t - 1);
    let n_targets = targets.ne(IGNORED).sum(Kind::Int64).int64_value(&[]);
    assert_eq!(n_targets, numbers["valid_targets"].as_i64().unwrap());
    let loss = sum_of_losses(&logits.narrow(1, 0, t - 1).contiguous(), &targets).unwrap()
        / n_targets as f64;
    loss.backward();
    let loss_far = (loss.double_value(&[]) - numbers["loss"].as_f64().unwrap()).abs();
    assert!(loss_far < LOSS, "loss differs by {loss_far}");
    let (mut far, mut n) = (0f64, 0);
    let mut gradients = Vec::new();
    for parameter in loaded.model.parameters() {
        let gradient = parameter.tensor.grad();
        let expected = reference.tensor(&format!("grad.{}", parameter.name)).unwrap();
        far = far.max(difference(&gradient, &expected));
        gradients.push(gradient);
        n += 1;
    }
    assert_eq!(n, reference.names().filter(|name| name.starts_with("grad.")).count());
    assert!(far < GRADIENT, "gradients differ by {far}");
    let norm = torch::clip_gradients(&gradients, None).unwrap().double_value(&[]);
    let norm_far = (norm - numbers["grad_norm"].as_f64().unwrap()).abs();
    assert!(norm_far < GRADIENT, "gradient norm differs by {norm_far}");
    format!(", loss {loss_far:.1e}, {n} gradients {far:.1e}, their norm {norm_far:.1e}")
}

#[test]
fn every_folder_loads_and_saves_unchanged() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let (mut judged, mut other) = (0, 0);
    for file in listed(&root, "models/", "config.json") {
        let config = json(&root.join(&file));
        if file.ends_with("generation_config.json") || file.ends_with("tokenizer_config.json") {
            other += 1;
            continue;
        }
        let folder = root.join(&file);
        let folder = folder.parent().unwrap();
        let loaded = model::load(folder, Device::Cpu).unwrap();
        let out = tempfile::tempdir().unwrap();
        model::save(&loaded, out.path()).unwrap();
        let again = WeightFiles::open_folder(out.path()).unwrap();
        let original = WeightFiles::open_folder(folder).unwrap();
        assert_eq!(
            again.names().collect::<Vec<_>>(),
            original.names().collect::<Vec<_>>(),
            "{file}"
        );
        for name in original.names() {
            let before = original.tensor(name).unwrap().to_kind(Kind::Float);
            assert!(before.equal(&again.tensor(name).unwrap()), "{file} {name}");
        }
        assert_eq!(json(&out.path().join("config.json"))["vocab_size"], config["vocab_size"]);
        judged += 1;
    }
    println!("judged {judged} folders, {other} other files");
    assert!(judged >= 14, "{judged}");
}

#[test]
fn cached_keys_and_values_equal_the_reference() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let reference =
        WeightFiles::open(&root.join("generate/kv_cache_small_llama.safetensors")).unwrap();
    let loaded = model::load(&root.join("models/small_llama"), Device::Cpu).unwrap();
    let mut cache = Cache::new(2, 32);
    let tokens = reference.tensor("input_ids").unwrap();
    let mut pass = Pass { cache: Some(&mut cache), ..Pass::default() };
    let logits = no_grad(|| loaded.model.logits(&tokens, &mut pass));
    let far = difference(&logits, &reference.tensor("logits").unwrap());
    assert!(far < LOGITS, "{far}");
    let mut worst = 0f64;
    for layer in 0..2 {
        let (keys, values) = cache.layer(layer).unwrap();
        for (name, ours) in [("k", keys), ("v", values)] {
            let expected = reference.tensor(&format!("{name}.{layer}")).unwrap();
            worst = worst.max(difference(&ours, &expected));
        }
    }
    println!("judged 4 cache tensors: {worst:.1e}, logits {far:.1e}");
    assert!(worst < LOGITS, "{worst}");
}

#[test]
fn counts_operations_as_the_reference_formula() {
    let Some(root) = super::data("parity") else { return };
    let mut judged = 0;
    for (name, row) in json(&root.join("misc/flops.json")).as_object().unwrap() {
        let Some(layers) = row["layers"].as_u64() else { continue };
        let n = |key: &str| row[key].as_u64().unwrap();
        let shape = model::Shape {
            n_layers: layers,
            n_heads: n("heads"),
            head_size: n("width") / n("heads"),
            vocab_size: n("vocab"),
            seq_len_max: n("seq"),
            n_position_parameters: n("seq") * n("width"),
            is_causal: true,
            has_token_head: true,
            n_scores: 0,
        };
        let n_parameters = n("params_without_positions") + shape.n_position_parameters;
        assert_eq!(shape.flops_per_token(n_parameters, n("seq")), n("flops_per_token"), "{name}");
        judged += 1;
    }
    println!("judged {judged} models");
}
