//! Model folders that do not hold what they should are refused with both values, and never run code.

use std::fs;
use std::path::Path;

use tch::{Device, Tensor, no_grad};
use trainer::model;
use trainer::torch;
use trainer::weights::{self, WeightFiles};

type Named = Vec<(String, Tensor)>;

#[test]
fn weights_that_do_not_fit_are_refused_with_both_values() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let mut judged = 0;
    let mut check = |name: &str, change: &dyn Fn(&mut Named), expected: &[&str]| {
        let source = root.join("models").join(name);
        let files = WeightFiles::open_folder(&source).unwrap();
        let mut tensors: Named =
            files.names().map(|name| (name.to_owned(), files.tensor(name).unwrap())).collect();
        change(&mut tensors);
        let folder = tempfile::tempdir().unwrap();
        fs::copy(source.join("config.json"), folder.path().join("config.json")).unwrap();
        weights::write(&folder.path().join("model.safetensors"), &tensors).unwrap();
        let error = model::load(folder.path(), Device::Cpu).unwrap_err().to_string();
        for part in expected {
            assert!(error.contains(part), "{name}: {error}");
        }
        assert!(error.contains("model.safetensors") && error.contains("hint: "), "{error}");
        judged += 1;
    };
    let at =
        |tensors: &Named, end: &str| tensors.iter().position(|(n, _)| n.ends_with(end)).unwrap();
    for (name, part, was, is) in [
        ("gpt2", "ln_f.bias", "[48]", "[47]"),
        ("llama_gqa", "model.norm.weight", "[64]", "[63]"),
        ("bert_mlm", "transform.dense.bias", "[48]", "[47]"),
    ] {
        check(name, &|t| drop(t.remove(at(t, part))), &["no tensor", part]);
        let extra = |t: &mut Named| t.push(("blocks.9.extra".to_owned(), Tensor::from(1f32)));
        check(name, &extra, &["has no parameter `blocks.9.extra`"]);
        let shorter = |t: &mut Named| {
            let i = at(t, part);
            let n = t[i].1.size()[0] - 1;
            t[i].1 = t[i].1.narrow(0, 0, n).contiguous();
        };
        check(name, &shorter, &[part, was, is]);
        for value in [f64::NAN, f64::INFINITY] {
            let poison = |t: &mut Named| {
                let i = at(t, part);
                no_grad(|| drop(t[i].1.narrow(0, 0, 1).fill_(value)));
            };
            check(name, &poison, &["1 of the", part, "infinite or none"]);
        }
    }
    println!("judged {judged} folders");
}

#[test]
fn pickles_are_refused_by_name() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let check = |file: &str| {
        let folder = tempfile::tempdir().unwrap();
        let config = root.join("models/gpt2/config.json");
        fs::copy(config, folder.path().join("config.json")).unwrap();
        fs::write(folder.path().join(file), b"\x80\x04").unwrap();
        let error = model::load(folder.path(), Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(file) && error.contains("can run code"), "{error}");
    };
    for file in ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth"] {
        check(file);
    }
    assert!(model::load(Path::new("/nonexistent"), Device::Cpu).is_err());
}
