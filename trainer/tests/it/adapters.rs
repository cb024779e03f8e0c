//! Adapters compute, learn and merge as peft's do, on every adapter that the data's manifest lists.

use std::fs;

use tch::{Device, Kind, Tensor, no_grad};
use trainer::adapter::{self, Adapter, Config, Variant};
use trainer::model::{self, Pass};
use trainer::objective::{IGNORED, sum_of_losses};
use trainer::torch;
use trainer::weights::WeightFiles;

use crate::parity::{GRADIENT, LOGITS, LOSS, difference, difference_where, json, listed};

#[test]
fn logits_gradients_and_merged_weights_equal_the_reference() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let story = json(&root.join("lora/reference.json"));
    let mut judged = 0;
    for file in listed(&root, "lora/", adapter::CONFIG) {
        let folder = root.join(&file);
        let folder = folder.parent().unwrap();
        let name = folder.file_name().unwrap().to_str().unwrap();
        let numbers = &story[name];
        let reference = WeightFiles::open(&folder.join("reference.safetensors")).unwrap();
        let tensor = |name: &str| reference.tensor(name).unwrap();
        let loaded = model::load(folder, Device::Cpu).unwrap();
        let trained: Vec<_> =
            loaded.model.parameters().iter().filter(|p| p.tensor.requires_grad()).collect();
        let n_trained: usize = trained.iter().map(|p| p.tensor.numel()).sum();
        assert_eq!(n_trained as u64, numbers["trainable_parameters"].as_u64().unwrap());
        let (tokens, labels) = (tensor("input_ids"), tensor("labels"));
        let real = tensor("attention_mask").to_kind(Kind::Bool);
        let logits = loaded.model.logits(&tokens, &mut Pass::default());
        let far = difference_where(&logits, &tensor("logits"), &real);
        let t = tokens.size()[1];
        let targets = labels.narrow(1, 1, t - 1);
        let n = targets.ne(IGNORED).sum(Kind::Int64).int64_value(&[]);
        let loss = sum_of_losses(&logits.narrow(1, 0, t - 1), &targets).unwrap() / n as f64;
        let loss_far = (loss.double_value(&[]) - numbers["loss"].as_f64().unwrap()).abs();
        loss.backward();
        let (mut gradient_far, mut gradients) = (0f64, Vec::new());
        for parameter in &trained {
            let plain = format!("grad.{}", parameter.name);
            let key = if reference.has(&plain) { plain } else { format!("{plain}.weight") };
            gradient_far = gradient_far.max(difference(&parameter.tensor.grad(), &tensor(&key)));
            gradients.push(parameter.tensor.grad());
        }
        let listed = reference.names().filter(|name| name.starts_with("grad.")).count();
        assert_eq!(gradients.len(), listed);
        let norm = torch::clip_gradients(&gradients, None).unwrap().double_value(&[]);
        let norm_far = (norm - numbers["grad_norm"].as_f64().unwrap()).abs();

        let out = tempfile::tempdir().unwrap();
        model::save_merged(&loaded, out.path()).unwrap();
        let merged = WeightFiles::open_folder(out.path()).unwrap();
        let (mut merged_far, mut n_merged) = (0f64, 0);
        for key in reference.names().filter(|name| name.starts_with("merged.")) {
            let weight = merged.tensor(key.trim_start_matches("merged.")).unwrap();
            merged_far = merged_far.max(difference(&weight, &tensor(key)));
            n_merged += 1;
        }
        let plain = model::load(out.path(), Device::Cpu).unwrap();
        let again = no_grad(|| plain.model.logits(&tokens, &mut Pass::default()));
        let again_far = difference_where(&again, &tensor("merged_logits"), &real);
        println!(
            "{name}: logits {far:.1e}, loss {loss_far:.1e}, {listed} gradients {gradient_far:.1e}, norm {norm_far:.1e}, {n_merged} merged weights {merged_far:.1e}, merged logits {again_far:.1e}"
        );
        assert!(far < LOGITS && again_far < LOGITS && loss_far < LOSS, "{name}");
        assert!(gradient_far < GRADIENT && norm_far < GRADIENT && merged_far < 1e-6, "{name}");
        judged += 1;
    }
    println!("judged {judged} adapters");
    assert_eq!(judged, story.as_object().unwrap().len());
}

#[test]
fn an_adapter_is_written_as_it_was_read() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    for name in ["llama_lora", "llama_rslora", "llama_dora", "gpt2_lora_conv1d"] {
        let folder = root.join("lora").join(name);
        let loaded = model::load(&folder, Device::Cpu).unwrap();
        let out = tempfile::tempdir().unwrap();
        let files = model::save(&loaded, out.path()).unwrap();
        assert_eq!(files, ["config.json", adapter::CONFIG, adapter::WEIGHTS]);
        let weights =
            |folder: &std::path::Path| WeightFiles::open(&folder.join(adapter::WEIGHTS)).unwrap();
        let (ours, theirs) = (weights(out.path()), weights(&folder));
        assert_eq!(ours.names().collect::<Vec<_>>(), theirs.names().collect::<Vec<_>>());
        for key in theirs.names() {
            assert!(ours.tensor(key).unwrap().equal(&theirs.tensor(key).unwrap()), "{key}");
        }
        let again = json(&out.path().join(adapter::CONFIG));
        let original = json(&folder.join(adapter::CONFIG));
        for key in [
            "r",
            "lora_alpha",
            "use_dora",
            "use_rslora",
            "fan_in_fan_out",
            "target_modules",
            "peft_type",
            "task_type",
            "bias",
        ] {
            let same = again[key] == original[key] || again[key].as_f64() == original[key].as_f64();
            assert!(same, "{key}: {} and {}", again[key], original[key]);
        }
    }
}

#[test]
fn a_fresh_adapter_changes_nothing_and_then_learns() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let tokens = Tensor::arange(24, (Kind::Int64, Device::Cpu)).view([2, 12]) + 20;
    for (name, kind) in
        [("gpt2", Variant::Lora), ("llama_gqa", Variant::Dora), ("bert_mlm", Variant::Rslora)]
    {
        let base = root.join("models").join(name);
        let plain = model::load(&base, Device::Cpu).unwrap();
        let config = Config { kind, ..Config::default() };
        let loaded = model::adapt(&base, &config, 1, Device::Cpu).unwrap();
        let before = no_grad(|| plain.model.logits(&tokens, &mut Pass::default()));
        let logits = loaded.model.logits(&tokens, &mut Pass::default());
        assert!(difference(&before, &logits.detach()) < 1e-5, "{name}");
        logits.square().mean(Kind::Float).backward();
        let parameters = loaded.model.parameters();
        let (adapters, base): (Vec<_>, Vec<_>) =
            parameters.iter().partition(|p| adapter::is_adapter(&p.name));
        assert!(base.iter().all(|p| !p.tensor.grad().defined()), "{name}: the rest is frozen");
        let learns = |suffix: &str| {
            let mut of = adapters.iter().filter(|p| p.name.ends_with(suffix)).peekable();
            of.peek().is_some() && of.all(|p| p.tensor.grad().abs().max().double_value(&[]) > 0.0)
        };
        assert!(learns("lora_B.weight"), "{name}");
        assert_eq!(learns("lora_magnitude_vector"), kind == Variant::Dora, "{name}");
    }
}

#[test]
fn adapters_that_do_not_fit_are_refused_with_the_value() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let source = root.join("lora/llama_lora");
    let check = |change: &dyn Fn(&mut serde_json::Value), expected: &str| {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(source.join(adapter::WEIGHTS), folder.path().join(adapter::WEIGHTS)).unwrap();
        let mut config = json(&source.join(adapter::CONFIG));
        config["base_model_name_or_path"] = root.join("models/llama_gqa").to_str().unwrap().into();
        change(&mut config);
        fs::write(folder.path().join(adapter::CONFIG), config.to_string()).unwrap();
        let error = model::load(folder.path(), Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(&|c| c["peft_type"] = "IA3".into(), "`peft_type` is \"IA3\", this reads \"LORA\"");
    check(
        &|c| c["modules_to_save"] = serde_json::json!(["lm_head"]),
        "`modules_to_save` is [\"lm_head\"]",
    );
    check(&|c| c["r"] = 8.into(), "has the shape [4, 64], adapter_config.json says [8, 64]");
    check(
        &|c| c["target_modules"] = serde_json::json!(["q_proj"]),
        "the model beneath has no place for",
    );
    check(&|c| c["target_modules"] = serde_json::json!(["c_attn"]), "`c_attn` names no layer");
    check(
        &|c| c["fan_in_fan_out"] = true.into(),
        "its `fan_in_fan_out` is true, that of `llama` is false",
    );
    let base = root.join("models/gpt2");
    let config = Config { rank: 0, ..Config::default() };
    let error = Adapter { config: config.clone(), base: base.clone(), fan_in_fan_out: true };
    assert!(error.config.check().unwrap_err().to_string().contains("its rank is 0"));
    assert!(model::adapt(&base, &config, 1, Device::Cpu).is_err());
}
