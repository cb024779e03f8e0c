//! Updates and schedules equal those of torch and transformers, on every fixture that there is.

use serde_json::Value;
use tch::{Device, Tensor};
use trainer::model::{self, Parameter, Pass};
use trainer::objective::sum_of_losses;
use trainer::optimizer::Optimizer;
use trainer::recipe::{self, MuonScale, ParameterGroup};
use trainer::schedule::{Decay, Schedule, Shape};
use trainer::torch;
use trainer::weights::WeightFiles;

use super::parity::{LOSS, PARAMETER, difference, json};

#[test]
fn ten_steps_of_a_real_model_equal_the_reference() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let expected = WeightFiles::open(&root.join("optim/gpt2_10_steps.safetensors")).unwrap();
    let story = json(&root.join("optim/gpt2_10_steps.json"));
    let loaded = model::load(&root.join(story["model"].as_str().unwrap()), Device::Cpu).unwrap();
    let numbers = &story["optimizer"];
    let config = recipe::Optimizer {
        lr: numbers["lr"].as_f64().unwrap(),
        min_lr: story["min_lr"].as_f64(),
        warmup_steps: story["warmup"].as_u64().unwrap(),
        betas: betas(numbers),
        weight_decay: numbers["wd"].as_f64().unwrap(),
        clip: numbers["clip"].as_f64().unwrap(),
        ..recipe::Optimizer::default()
    };
    let mut optimizer = Optimizer::new(loaded.model.parameters(), &config).unwrap();
    let schedule = config.schedule(story["total"].as_u64().unwrap());
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

fn betas(numbers: &Value) -> [f64; 2] {
    [0, 1].map(|i| numbers["betas"][i].as_f64().unwrap())
}

/// The recipe that says what the reference's constructor was given.
fn recipe_of(name: &str, numbers: &Value) -> recipe::Optimizer {
    let number = |key: &str| numbers[key].as_f64();
    let kind = match name.trim_end_matches("_clip1") {
        "adam_l2" => "adam",
        "sgd_nesterov" => "sgd",
        "muon_2d_only" => "muon",
        other => other,
    };
    let is_adam = kind.starts_with("adam") && kind != "adafactor";
    let weight_decay = number("weight_decay").unwrap();
    let default = recipe::Optimizer::default();
    recipe::Optimizer {
        kind: kind.to_owned(),
        betas: if is_adam { betas(numbers) } else { default.betas },
        eps: if is_adam { number("eps").unwrap() } else { default.eps },
        momentum: number("momentum"),
        nesterov: numbers["nesterov"].as_bool(),
        muon_scale: (kind == "muon").then_some(MuonScale::Original),
        clip: if name.ends_with("_clip1") { 1.0 } else { 0.0 },
        // In this reference vectors decay as well.
        groups: vec![ParameterGroup {
            parameters: "*".to_owned(),
            weight_decay: Some(weight_decay),
            lr_scale: None,
        }],
        ..default
    }
}

#[test]
fn every_optimizer_on_given_gradients_equals_torch() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let tensors = WeightFiles::open(&root.join("optim/tensors.safetensors")).unwrap();
    let story = json(&root.join("optim/tensors.json"));
    let mut judged = 0;
    for (name, row) in story.as_object().unwrap() {
        let defaults = &row["defaults"];
        let norms = row["grad_norms_before_clip"].as_array().unwrap();
        let parameters = ["w", "b"].map(|part| Parameter {
            name: part.into(),
            tensor: tensors.tensor(&format!("init.{part}")).unwrap().set_requires_grad(true),
        });
        let config = recipe_of(name, defaults);
        let mut optimizer = Optimizer::new(&parameters, &config).unwrap();
        let mut norm_far = 0f64;
        for step in 0..10 {
            for parameter in &parameters {
                let gradient = tensors.tensor(&format!("grad.{step}.{}", parameter.name)).unwrap();
                torch::set_gradient(&parameter.tensor, &gradient).unwrap();
            }
            let norm = optimizer.update(defaults["lr"].as_f64().unwrap()).unwrap();
            if let Some(expected) = norms.get(step) {
                let norm = norm.double_value(&[]);
                norm_far = norm_far.max((norm / expected.as_f64().unwrap() - 1.0).abs());
            }
        }
        // torch's Muon takes matrices only: its reference leaves the vector alone, ours has AdamW for it.
        let n = if config.kind == "muon" { 1 } else { 2 };
        let far = parameters[..n].iter().map(|parameter| {
            let expected = tensors.tensor(&format!("final.{name}.{}", parameter.name)).unwrap();
            difference(&parameter.tensor.detach(), &expected)
        });
        let far = far.fold(0f64, f64::max);
        println!("{name}: 10 updates, parameters {far:.1e}, norms {norm_far:.1e} (relative)");
        assert!(far < 2e-6 && norm_far < 1e-6, "{name}: {far} {norm_far}");
        judged += 1;
    }
    println!("judged {judged} optimizers");
    assert_eq!(judged, story.as_object().unwrap().len());
}

#[test]
fn schedules_equal_the_reference() {
    let Some(root) = super::data("parity") else { return };
    let story = json(&root.join("optim/schedules.json"));
    let (mut judged, mut worst) = (0, 0f64);
    for (name, row) in story.as_object().unwrap() {
        let number = |key: &str| row["args"][key].as_f64();
        let lr = row["base_lr"].as_f64().unwrap();
        let shape = match name.as_str() {
            "constant_with_warmup" => Shape::Constant,
            "linear" => Shape::Linear,
            "cosine" | "cosine_with_min_lr" | "nanogpt_cosine" => Shape::Cosine,
            "polynomial" => Shape::Polynomial,
            "inverse_sqrt" => Shape::InverseSqrt,
            _ => Shape::Wsd,
        };
        let share = number("min_lr_rate").or(number("min_lr_ratio")).unwrap_or(0.0);
        let schedule = Schedule {
            shape,
            lr,
            min_lr: row["min_lr"].as_f64().or(number("lr_end")).unwrap_or(lr * share),
            warmup_steps: row["warmup"].as_u64().unwrap(),
            steps: row["total"].as_u64().unwrap(),
            decay_steps: row["args"]["num_decay_steps"].as_u64().unwrap_or(0),
            decay: match row["args"]["decay_type"].as_str() {
                Some("cosine") => Decay::Cosine,
                Some("1-sqrt") => Decay::OneMinusSqrt,
                _ => Decay::Linear,
            },
            power: number("power").unwrap_or(1.0),
        };
        // transformers begins its warm-up at zero, which wastes a step: only what comes after is compared.
        let first = if name == "nanogpt_cosine" { 0 } else { schedule.warmup_steps };
        let expected = row["lr"].as_array().unwrap();
        for (step, expected) in (0u64..).zip(expected).skip(usize::try_from(first).unwrap()) {
            let (found, expected) = (schedule.rate(step), expected.as_f64().unwrap());
            let far = (found - expected).abs();
            assert!(far < 1e-15, "{name}, step {step}: {found}, {expected}");
            worst = worst.max(far);
            judged += 1;
        }
    }
    let n = story.as_object().unwrap().len();
    println!("judged {judged} learning rates of {n} schedules, the worst differs by {worst:.1e}");
    assert_eq!(judged, (n - 1) * 90 + 100);
}
