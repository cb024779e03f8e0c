//! Generated tokens equal the reference, and the cache changes no logit.

use std::fs;

use serde_json::Value;
use tch::{Device, Tensor, no_grad};
use trainer::generate::{Sampling, adjust, draw, generate, softmax};
use trainer::model::{self, Cache, Pass};
use trainer::torch;
use trainer::weights::WeightFiles;

#[test]
fn greedy_tokens_equal_the_reference() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let text = fs::read_to_string(root.join("generate/generation.json")).unwrap();
    let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
    let (mut judged, mut other) = (0, 0);
    for row in &rows {
        let ids = |key: &str| -> Option<Vec<u32>> {
            let list = row[key].as_array()?;
            Some(list.iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect())
        };
        let Some(prompt) = ids("prompt_ids") else {
            other += 1;
            continue;
        };
        let model =
            model::load(&root.join(row["model"].as_str().unwrap()), Device::Cpu).unwrap().model;
        let penalized = Sampling { repetition_penalty: 1.3, ..Sampling::GREEDY };
        for (key, sampling) in
            [("greedy", Sampling::GREEDY), ("greedy_repetition_penalty_1_3", penalized)]
        {
            let expected = ids(key).unwrap();
            let mut seen = Vec::new();
            let found =
                generate(model.as_ref(), &prompt, expected.len(), &[], sampling, &mut |id| {
                    seen.push(id);
                    true
                });
            assert_eq!(found.unwrap(), expected, "{key} of {}", row["prompt"]);
            assert_eq!(seen, expected);
            judged += 1;
        }
    }
    println!("judged {judged} texts, {other} rows without one");
    assert!(judged >= 12);
}

#[test]
fn rules_on_logits_equal_the_reference() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let reference = WeightFiles::open(&root.join("generate/processors.safetensors")).unwrap();
    let rows = |name: &str| Vec::<Vec<f32>>::try_from(reference.tensor(name).unwrap()).unwrap();
    let ids = |name: &str| Vec::<Vec<i64>>::try_from(reference.tensor(name).unwrap()).unwrap();
    let (logits, texts) = (rows("logits"), ids("input_ids"));
    let plain = Sampling::PLAIN;
    let mut rules = vec![
        ("temperature_0.7", Sampling { temperature: 0.7, ..plain }),
        ("top_k_5", Sampling { top_k: 5, ..plain }),
        ("top_p_0.8", Sampling { top_p: 0.8, ..plain }),
        ("top_p_0.3", Sampling { top_p: 0.3, ..plain }),
        ("min_p_0.1", Sampling { min_p: 0.1, ..plain }),
        ("typical_0.9", Sampling { typical_p: 0.9, ..plain }),
        ("repetition_penalty_1.3", Sampling { repetition_penalty: 1.3, ..plain }),
        ("no_repeat_ngram_2", Sampling { no_repeat_ngram: 2, ..plain }),
    ];
    let chain = Sampling { temperature: 0.8, top_k: 20, top_p: 0.9, ..plain };
    let chain = Sampling { repetition_penalty: 1.2, ..chain };
    rules.push(("chain_rep1.2_temp0.8_topk20_topp0.9", chain));
    let (mut worst, mut drawn, mut tied) = (0f32, 0, 0);
    for (name, sampling) in &rules {
        let expected = rows(&format!("out.{name}"));
        for (row, (logits, text)) in logits.iter().zip(&texts).enumerate() {
            let text: Vec<u32> = text.iter().map(|&id| u32::try_from(id).unwrap()).collect();
            let mut ours = logits.clone();
            adjust(&mut ours, &text, sampling);
            // Where all tokens are as likely, the reference's unstable sort decides which of them stay: so many must.
            let is_tied = logits.iter().all(|&logit| logit == logits[0]);
            let n_out = ours.iter().filter(|&&logit| logit == f32::NEG_INFINITY).count();
            assert_eq!(n_out, expected[row].iter().filter(|&&logit| logit < -1e29).count());
            for (id, (&ours, &theirs)) in ours.iter().zip(&expected[row]).enumerate() {
                if is_tied {
                    tied += 1;
                    continue;
                }
                let (is_out, was_out) = (ours == f32::NEG_INFINITY, theirs < -1e29);
                assert_eq!(is_out, was_out, "{name}, row {row}, token {id}");
                if !is_out {
                    worst = worst.max((ours - theirs).abs());
                }
            }
        }
    }
    let listed = reference.names().filter(|name| name.starts_with("out.")).count();
    assert_eq!(listed, rules.len() + 2, "and the chain's probabilities and draws");
    let probabilities = rows("out.chain_probs");
    let samples = ids("out.chain_sampled_by_inverse_cdf");
    let mut far = 0f32;
    for (row, uniforms) in rows("uniform").iter().enumerate() {
        let text: Vec<u32> = texts[row].iter().map(|&id| u32::try_from(id).unwrap()).collect();
        let mut ours = logits[row].clone();
        adjust(&mut ours, &text, &chain);
        if logits[row].iter().all(|&logit| logit == logits[row][0]) {
            ours = rows("out.chain_rep1.2_temp0.8_topk20_topp0.9")[row].clone();
        }
        for (ours, theirs) in softmax(&ours).iter().zip(&probabilities[row]) {
            far = far.max((ours - theirs).abs());
        }
        for (uniform, &expected) in uniforms.iter().zip(&samples[row]) {
            assert_eq!(i64::from(draw(&ours, f64::from(*uniform))), expected, "row {row}");
            drawn += 1;
        }
    }
    println!(
        "judged {} rules on {} rows: logits {worst:.1e}, probabilities {far:.1e}, {drawn} draws equal, {tied} ties counted",
        rules.len(),
        logits.len()
    );
    assert!(worst < 5e-5 && far < 5e-6, "{worst}, {far}");
}

#[test]
fn the_cache_changes_no_logit() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let mut worst = 0f64;
    let names = ["gpt2", "llama_gqa", "llama_linear_bias", "llama3_scaled_tied", "llama_yarn_mha"];
    for name in names {
        let model = model::load(&root.join("models").join(name), Device::Cpu).unwrap().model;
        let ids: Vec<i64> = (0..48).map(|i| (i * 37 + 11) % 512).collect();
        let tokens = Tensor::from_slice(&ids).view([2, 24]);
        let whole = no_grad(|| model.logits(&tokens, &mut Pass::default()));
        let mut cache = Cache::new(2, 24);
        let mut start = 0;
        // A prompt, single tokens, and a batch of tokens after cached ones.
        for n in [7, 1, 1, 5, 1, 9] {
            let mut pass = Pass { cache: Some(&mut cache), ..Pass::default() };
            let part = no_grad(|| model.logits(&tokens.narrow(1, start, n), &mut pass));
            let far = (part - whole.narrow(1, start, n)).abs().max().double_value(&[]);
            assert!(far < 2e-5, "{name} at {start}: {far}");
            worst = worst.max(far);
            start += n;
        }
        assert_eq!((start, cache.n_tokens()), (24, 24));
    }
    println!("judged {} models: {worst:.1e}", names.len());
}

#[test]
fn text_longer_than_the_context_goes_on() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let model = model::load(&root.join("models/gpt2"), Device::Cpu).unwrap().model;
    let sampling = Sampling { top_k: 50, top_p: 0.95, seed: 5, ..Sampling::PLAIN };
    let once = generate(model.as_ref(), &[5; 90], 150, &[], sampling, &mut |_| true).unwrap();
    assert_eq!(once.len(), 150, "the model was made for 96 positions");
    let again = generate(model.as_ref(), &[5; 90], 150, &[], sampling, &mut |_| true).unwrap();
    assert_eq!(once, again, "a seed decides the text");
    let long =
        generate(model.as_ref(), &[5; 200], 3, &[], Sampling::GREEDY, &mut |_| true).unwrap();
    assert_eq!(long.len(), 3);
    let first = once[0];
    let stopped =
        generate(model.as_ref(), &[5; 90], 150, &[first], sampling, &mut |_| true).unwrap();
    assert_eq!(stopped, [first], "stops after a stop token");
    assert!(generate(model.as_ref(), &[], 1, &[], sampling, &mut |_| true).is_err());
    assert!(generate(model.as_ref(), &[512], 1, &[], sampling, &mut |_| true).is_err());
}
