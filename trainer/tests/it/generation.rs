//! Generated tokens equal the reference, and the cache changes no logit.

use std::fs;

use serde_json::Value;
use tch::{Device, Tensor, no_grad};
use trainer::generate::{Sampling, generate};
use trainer::model::{self, Cache, Pass};
use trainer::torch;

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
        let (Some(prompt), Some(expected)) = (ids("prompt_ids"), ids("greedy")) else {
            other += 1;
            continue;
        };
        let model =
            model::load(&root.join(row["model"].as_str().unwrap()), Device::Cpu).unwrap().model;
        let mut seen = Vec::new();
        let found =
            generate(model.as_ref(), &prompt, expected.len(), &[], Sampling::GREEDY, &mut |id| {
                seen.push(id);
                true
            });
        assert_eq!(found.unwrap(), expected, "{}", row["prompt"]);
        assert_eq!(seen, expected);
        judged += 1;
    }
    println!("judged {judged} texts, {other} rows without one");
    assert!(judged >= 6);
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
    let sampling = Sampling { temperature: 1.0, top_k: 50, top_p: 0.95, seed: 5 };
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
