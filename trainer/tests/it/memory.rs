//! Computing again instead of keeping changes no gradient.

use shard::reader::Sequence;
use tch::{Device, Tensor};
use trainer::adapter::Config as Adapters;
use trainer::model::{self, Loaded, Pass};
use trainer::objective::{self, Config, Vocabulary, micro_batch};
use trainer::torch;

/// Loss and gradients of a step with dropout.
fn step(loaded: &Loaded, kind: &str, is_bf16: bool, pass: Pass<'_>) -> (f64, Vec<Tensor>) {
    let config = Config { kind: kind.to_owned(), ..Config::default() };
    let special = [("[MASK]".to_owned(), 4)].into();
    let vocabulary = Vocabulary { n: 512, special, begins_word: vec![true; 512], seed: 3 };
    let objective = objective::build(&config, &vocabulary, loaded.model.shape()).unwrap();
    let rows: Vec<(u64, Sequence)> = (0..3)
        .map(|sample| {
            let tokens = (0..33).map(|i| 5 + (i * 37 + sample * 11) % 507).collect();
            let sequence =
                Sequence { tokens, boundaries: vec![0, 12, 33], loss_mask: vec![true; 32] };
            (u64::from(sample), sequence)
        })
        .collect();
    let batch = micro_batch(objective.as_ref(), &rows);
    tch::manual_seed(5);
    let mut pass = pass;
    let loss = torch::autocast_bf16(Device::Cpu, is_bf16, || {
        objective.loss(loaded.model.as_ref(), &batch, &mut pass)
    });
    let loss = loss.unwrap().unwrap() / batch.n_targets as f64;
    loss.backward();
    let trained = loaded.model.parameters().iter().filter(|p| p.tensor.requires_grad());
    let tensors: Vec<Tensor> = trained.map(|p| p.tensor.shallow_clone()).collect();
    let gradients = tensors.iter().map(|p| p.grad().copy()).collect();
    torch::clear_gradients(&tensors).unwrap();
    (loss.double_value(&[]), gradients)
}

fn largest_difference(a: &[Tensor], b: &[Tensor]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs().max().double_value(&[])).fold(0f64, f64::max)
}

#[test]
fn blocks_and_logits_that_are_computed_again_give_the_same_gradients() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let mut judged = 0;
    for (name, objective, is_adapted) in [
        ("gpt2", "causal_lm", false),
        ("llama_gqa", "supervised", false),
        ("llama_gqa", "supervised", true),
        ("bert_mlm", "masked_lm", false),
    ] {
        // The fixtures have no dropout: with it, the second run must draw the same numbers.
        let folder = tempfile::tempdir().unwrap();
        let source = root.join("models").join(name);
        let mut loaded = model::load(&source, Device::Cpu).unwrap();
        for key in
            ["resid_pdrop", "attn_pdrop", "embd_pdrop", "attention_dropout", "hidden_dropout_prob"]
        {
            if !loaded.config[key].is_null() {
                loaded.config[key] = 0.2.into();
            }
        }
        model::save(&loaded, folder.path()).unwrap();
        let loaded = if is_adapted {
            let config = Adapters { dropout: 0.3, ..Adapters::default() };
            model::adapt(folder.path(), &config, 1, Device::Cpu).unwrap()
        } else {
            model::load(folder.path(), Device::Cpu).unwrap()
        };
        for is_bf16 in [false, true] {
            let (loss, plain) = step(&loaded, objective, is_bf16, Pass::training());
            let again = Pass { recomputes: true, ..Pass::training() };
            let (again_loss, again) = step(&loaded, objective, is_bf16, again);
            assert_eq!(loss, again_loss, "{name}");
            assert_eq!(largest_difference(&plain, &again), 0.0, "{name}: the same bits");
            let chunked = Pass { loss_rows: Some(7), ..Pass::training() };
            let (chunked_loss, chunked) = step(&loaded, objective, is_bf16, chunked);
            let far = largest_difference(&plain, &chunked);
            let tolerance = if is_bf16 { 2e-3 } else { 5e-7 };
            let loss_far = (loss - chunked_loss).abs();
            println!(
                "{name}, bf16 {is_bf16}, adapters {is_adapted}: {} gradients, recomputed equal, in chunks {far:.1e}, loss {loss_far:.1e}",
                plain.len()
            );
            assert!(far < tolerance && loss_far < 5e-6, "{name}: {far}, {loss_far}");
            judged += 1;
        }
    }
    println!("judged {judged} steps");
}

#[test]
fn what_fails_inside_is_an_error_outside() {
    torch::start();
    let x = Tensor::from_slice(&[1f32, 2.0]).set_requires_grad(true);
    let y = torch::recompute(&x, |x| x * x * 3.0).unwrap();
    y.sum(tch::Kind::Float).backward();
    assert_eq!(Vec::<f32>::try_from(x.grad()).unwrap(), [6.0, 12.0]);
    let error = torch::recompute(&x, |_| panic!("no block here")).unwrap_err().to_string();
    assert!(error.contains("no block here"), "{error}");
}
