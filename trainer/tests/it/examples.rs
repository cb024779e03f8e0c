//! The recipes in `examples/` train, in a short form, on a corpus of a test.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::process;

#[test]
fn every_recipe_for_a_fresh_model_trains() {
    let folder = tempfile::tempdir().unwrap();
    process::corpus(folder.path());
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut n = 0;
    for entry in fs::read_dir(&examples).unwrap() {
        let path = entry.unwrap().path();
        let is_fresh = path.is_file()
            && fs::read_to_string(&path).is_ok_and(|text| text.contains("[model]\nkind = "));
        if !is_fresh {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let set = |key: &str, path: &Path| format!("{key}={}", path.display());
        let run = folder.path().join(&name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill-train"));
        command.arg("train").arg(&path).arg("--quiet");
        for flag in [
            set("data", &folder.path().join("tokens")),
            set("run", &run),
            "train.steps=3".to_owned(),
            "train.evaluate_sequences=4".to_owned(),
            "optimizer.warmup_steps=1".to_owned(),
        ] {
            command.args(["--set", &flag]);
        }
        let done = command.output().unwrap();
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
        assert!(run.join("model/model.safetensors").is_file(), "{name}");
        n += 1;
    }
    println!("trained {n} recipes");
    assert!(n >= 2, "{n}");
}
