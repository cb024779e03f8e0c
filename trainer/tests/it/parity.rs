//! Logits, losses, gradients, updates and schedules equal those of transformers and torch, on every fixture that the
//! data's manifest lists. Tolerances are those of the fixtures' README.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tch::{Device, Kind, Tensor, no_grad};
use trainer::model::{self, Cache, Pass};
use trainer::objective::{IGNORED, sum_of_losses};
use trainer::optimizer::{Config, Optimizer};
use trainer::schedule::{Schedule, Shape};
use trainer::torch;
use trainer::weights::WeightFiles;

pub(crate) const LOGITS: f64 = 5e-5;
pub(crate) const LOSS: f64 = 5e-6;
pub(crate) const GRADIENT: f64 = 5e-6;
const PARAMETER: f64 = 3e-5;

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
fn ten_steps_of_a_real_model_equal_the_reference() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let expected = WeightFiles::open(&root.join("optim/gpt2_10_steps.safetensors")).unwrap();
    let story = json(&root.join("optim/gpt2_10_steps.json"));
    let loaded = model::load(&root.join(story["model"].as_str().unwrap()), Device::Cpu).unwrap();
    let mut optimizer =
        Optimizer::new(loaded.model.parameters(), config(&story["optimizer"], "wd"));
    let schedule = Schedule {
        shape: Shape::Cosine,
        lr: story["optimizer"]["lr"].as_f64().unwrap(),
        min_lr: story["min_lr"].as_f64().unwrap(),
        warmup_steps: story["warmup"].as_u64().unwrap(),
        steps: story["total"].as_u64().unwrap(),
    };
    let (mut loss_far, mut norm_far) = (0f64, 0f64);
    let steps = story["steps"].as_array().unwrap();
    for row in steps {
        let step = row["step"].as_u64().unwrap();
        let lr = schedule.rate(step);
        assert!((lr - row["lr"].as_f64().unwrap()).abs() < 1e-15, "step {step}: lr {lr}");
        let n_targets = row["tokens"].as_i64().unwrap() as f64;
        let mut total = 0.0;
        for micro in 0..2 {
            let tensor =
                |part| expected.tensor(&format!("step{step}.micro{micro}.{part}")).unwrap();
            let (tokens, labels) = (tensor("input_ids"), tensor("labels"));
            let t = tokens.size()[1];
            let logits = loaded.model.logits(&tokens.narrow(1, 0, t - 1), &mut Pass::training());
            let loss = sum_of_losses(&logits, &labels.narrow(1, 1, t - 1)).unwrap() / n_targets;
            loss.backward();
            total += loss.double_value(&[]);
        }
        let norm = optimizer.update(lr).unwrap().double_value(&[]);
        loss_far = loss_far.max((total - row["loss"].as_f64().unwrap()).abs());
        norm_far = norm_far.max((norm - row["grad_norm"].as_f64().unwrap()).abs());
    }
    assert!(loss_far < LOSS * 2.0, "loss differs by {loss_far}");
    assert!(norm_far < 2e-5, "gradient norm differs by {norm_far}");
    let mut far = 0f64;
    // The key part of this bias has no true gradient: Adam turns rounding into full steps.
    let judged_part = |name: &str, tensor: Tensor| {
        if !name.ends_with("c_attn.bias") {
            return tensor;
        }
        let d = tensor.size()[0] / 3;
        Tensor::cat(&[tensor.narrow(0, 0, d), tensor.narrow(0, 2 * d, d)], 0)
    };
    for parameter in loaded.model.parameters() {
        let name = &parameter.name;
        let reference = expected.tensor(&format!("final.{name}")).unwrap();
        let ours = judged_part(name, parameter.tensor.detach());
        far = far.max(difference(&ours, &judged_part(name, reference)));
    }
    assert!(far < PARAMETER, "parameters differ by {far}");
    let mut moments_far = 0f64;
    for (name, ours) in optimizer.state() {
        if name != "step" {
            let reference = judged_part(&name, expected.tensor(&name).unwrap());
            moments_far = moments_far.max(difference(&judged_part(&name, ours), &reference));
        }
    }
    assert!(moments_far < PARAMETER, "moments differ by {moments_far}");
    println!(
        "judged {} steps: loss {loss_far:.1e}, norm {norm_far:.1e}, parameters {far:.1e}, moments {moments_far:.1e}",
        steps.len()
    );
}

fn config(numbers: &Value, weight_decay: &str) -> Config {
    let beta = |i: usize| numbers["betas"][i].as_f64().unwrap();
    Config {
        weight_decay: numbers[weight_decay].as_f64().unwrap(),
        betas: [beta(0), beta(1)],
        eps: numbers["eps"].as_f64().unwrap(),
        clip: numbers["clip"].as_f64(),
    }
}

#[test]
fn adamw_on_given_gradients_equals_torch() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let tensors = WeightFiles::open(&root.join("optim/tensors.safetensors")).unwrap();
    let story = json(&root.join("optim/tensors.json"));
    for (name, clip) in [("adamw", None), ("adamw_clip1", Some(1.0))] {
        let defaults = &story[name]["defaults"];
        let norms = story[name]["grad_norms_before_clip"].as_array().unwrap();
        // Each alone: in this reference vectors decay as well, so the vector stands as a matrix of one row.
        let wrap = |tensor: Tensor| tensor.view([-1, 8]).set_requires_grad(true);
        let start = |part: &str| wrap(tensors.tensor(&format!("init.{part}")).unwrap());
        let parameters =
            ["w", "b"].map(|part| model::Parameter { name: part.into(), tensor: start(part) });
        let mut optimizer =
            Optimizer::new(&parameters, Config { clip, ..config(defaults, "weight_decay") });
        let mut norm_far = 0f64;
        for step in 0..10 {
            for parameter in &parameters {
                let gradient = tensors.tensor(&format!("grad.{step}.{}", parameter.name)).unwrap();
                torch::set_gradient(&parameter.tensor, &gradient.view([-1, 8])).unwrap();
            }
            let norm =
                optimizer.update(defaults["lr"].as_f64().unwrap()).unwrap().double_value(&[]);
            if let Some(expected) = norms.get(step) {
                norm_far = norm_far.max((norm / expected.as_f64().unwrap() - 1.0).abs());
            }
        }
        let far = parameters.iter().map(|parameter| {
            let expected = tensors.tensor(&format!("final.{name}.{}", parameter.name)).unwrap();
            difference(&parameter.tensor.detach(), &expected.view([-1, 8]))
        });
        let far = far.fold(0f64, f64::max);
        println!("{name}: 10 updates, parameters {far:.1e}, norms {norm_far:.1e} (relative)");
        assert!(far < 1e-6 && norm_far < 1e-6, "{name}: {far} {norm_far}");
    }
}

#[test]
fn schedules_equal_the_reference() {
    let Some(root) = super::data("parity") else { return };
    let story = json(&root.join("optim/schedules.json"));
    let mut judged = 0;
    let rates = |name: &str| -> (Vec<f64>, Schedule) {
        let row = &story[name];
        let lr = row["base_lr"].as_f64().unwrap();
        let rate = row["args"]["min_lr_rate"].as_f64().unwrap_or(0.0);
        let schedule = Schedule {
            shape: Shape::Cosine,
            lr,
            min_lr: row["min_lr"].as_f64().unwrap_or(lr * rate),
            warmup_steps: row["warmup"].as_u64().unwrap(),
            steps: row["total"].as_u64().unwrap(),
        };
        (row["lr"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect(), schedule)
    };
    for (name, shape, with_warmup) in [
        ("nanogpt_cosine", Shape::Cosine, true),
        // transformers begins its warm-up at zero, which wastes a step: only what comes after is compared.
        ("cosine", Shape::Cosine, false),
        ("cosine_with_min_lr", Shape::Cosine, false),
        ("linear", Shape::Linear, false),
        ("constant_with_warmup", Shape::Constant, false),
    ] {
        let (expected, schedule) = rates(name);
        let schedule = Schedule { shape, ..schedule };
        let first = if with_warmup { 0 } else { schedule.warmup_steps };
        for (step, expected) in (0u64..).zip(&expected).skip(usize::try_from(first).unwrap()) {
            let found = schedule.rate(step);
            assert!((found - expected).abs() < 1e-15, "{name}, step {step}: {found}, {expected}");
            judged += 1;
        }
    }
    println!("judged {judged} learning rates of 5 schedules");
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
