//! What objectives hide and count equals what transformers and TRL hide and count, and no cut of a batch changes a loss.

use shard::reader::Sequence;
use shard::tokenizer::Tokenizer;
use tch::{Device, Kind, Tensor, no_grad};
use trainer::model::{self, Loaded, Pass};
use trainer::objective::{
    self, Config, IGNORED, MicroBatch, Objective, Vocabulary, hide, micro_batch, sum_of_losses,
};
use trainer::torch;
use trainer::weights::WeightFiles;

use crate::parity::{GRADIENT, LOGITS, LOSS, difference, json, listed};

fn numbers(tensor: &Tensor) -> Vec<i64> {
    Vec::<i64>::try_from(tensor.to_kind(Kind::Int64).view([-1])).unwrap()
}

fn fractions(tensor: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(tensor.to_kind(Kind::Double).view([-1])).unwrap()
}

fn id(n: i64) -> u32 {
    u32::try_from(n).unwrap()
}

#[test]
fn hidden_tokens_equal_the_reference_given_its_draws() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let reference = WeightFiles::open(&root.join("mlm/exact.safetensors")).unwrap();
    let rule = json(&root.join("mlm/statistics.json"));
    let mask = id(rule["mask_id"].as_i64().unwrap());
    let read = |name: &str| numbers(&reference.tensor(name).unwrap());
    let [ids, special, others] = ["input_ids", "special_tokens_mask", "random_ids"].map(read);
    let draws = ["u_select", "u_op"].map(|name| fractions(&reference.tensor(name).unwrap()));
    let (inputs, labels) = (read("masked_input_ids"), read("labels"));
    let mut chosen = 0;
    for i in 0..ids.len() {
        let is_target = draws[0][i] < 0.15 && special[i] == 0;
        let token = id(ids[i]);
        let seen = if is_target { hide(token, draws[1][i], mask, id(others[i])) } else { token };
        let target = if is_target { ids[i] } else { IGNORED };
        assert_eq!((i64::from(seen), target), (inputs[i], labels[i]), "position {i}");
        chosen += i32::from(is_target);
    }
    println!("judged {} positions, {chosen} of them targets", ids.len());
    assert!(chosen > 5);
}

#[test]
fn shares_of_hidden_tokens_lie_in_the_bounds_of_the_reference() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let rule = json(&root.join("mlm/statistics.json"));
    let tokenizer = Tokenizer::load(&root.join("tokenizers/wordpiece/tokenizer.json")).unwrap();
    let loaded = model::load(&root.join("models/bert_mlm"), Device::Cpu).unwrap();
    let config = Config { kind: "masked_lm".to_owned(), ..Config::default() };
    let vocabulary = Vocabulary::of(&tokenizer, 11);
    let objective = objective::build(&config, &vocabulary, loaded.model.shape()).unwrap();
    let mask = rule["mask_id"].as_i64().unwrap();
    let special = numbers_of(&rule["special_ids"]);
    let wanted = rule["measured"]["maskable"].as_u64().unwrap();
    let n_vocabulary = rule["vocab"].as_u64().unwrap();
    let (mut n, mut sample, mut counts) = (0u64, 0u64, [0u64; 4]);
    while n < wanted {
        // As many tokens that may be hidden as the reference had, with specials in between.
        let t = usize::try_from((wanted - n).min(60)).unwrap();
        let first = special.len() as u64 + sample % 400;
        let mut tokens: Vec<u32> = (0..t as u64)
            .map(|i| id(i64::try_from((first + i * 7) % (n_vocabulary - 5) + 5).unwrap()))
            .collect();
        tokens.insert(0, 2);
        tokens.extend([3, 0, 0]);
        let end = u32::try_from(tokens.len() - 2).unwrap();
        let loss_mask = vec![true; tokens.len() - 1];
        let sequence = Sequence { tokens, boundaries: vec![0, end], loss_mask };
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        objective.fill(&sequence, sample, &mut inputs, &mut targets);
        for ((&seen, &target), &token) in inputs.iter().zip(&targets).zip(&sequence.tokens) {
            if target == IGNORED {
                continue;
            }
            assert!(!special.contains(&i64::from(token)), "a special token is hidden");
            counts[0] += 1;
            counts[if seen == mask {
                1
            } else if seen == target {
                3
            } else {
                2
            }] += 1;
        }
        (n, sample) = (n + t as u64, sample + 1);
    }
    for (i, name) in
        ["selected", "masked", "random_visible", "unchanged_visible"].iter().enumerate()
    {
        let whole = if i == 0 { n } else { counts[0] };
        let share = counts[i] as f64 / whole as f64;
        let bounds = &rule["five_sigma_bounds_for_the_same_counts"][name];
        let [low, high] = [0, 1].map(|i| bounds[i].as_f64().unwrap());
        println!("{name}: {share:.4} in {low:.4}..{high:.4}");
        assert!((low..high).contains(&share), "{name}: {share}");
    }
    println!("judged 4 shares of {n} tokens");
}

fn numbers_of(list: &serde_json::Value) -> Vec<i64> {
    list.as_array().unwrap().iter().map(|x| x.as_i64().unwrap()).collect()
}

fn supervised(loaded: &Loaded) -> Box<dyn Objective> {
    let config = Config { kind: "supervised".to_owned(), ..Config::default() };
    objective::build(&config, &Vocabulary::default(), loaded.model.shape()).unwrap()
}

/// Backward over all micro-batches; returns the mean loss and the gradient norm.
fn step(loaded: &Loaded, objective: &dyn Objective, batches: &[MicroBatch]) -> [f64; 2] {
    let n: u64 = batches.iter().map(|batch| batch.n_targets).sum();
    let mut total = 0.0;
    for batch in batches {
        let loss = objective.loss(loaded.model.as_ref(), batch, &mut Pass::training()).unwrap();
        let loss = loss / n as f64;
        loss.backward();
        total += loss.double_value(&[]);
    }
    let parameters = loaded.model.parameters();
    let tensors: Vec<Tensor> = parameters.iter().map(|p| p.tensor.shallow_clone()).collect();
    let gradients: Vec<Tensor> = tensors.iter().map(Tensor::grad).collect();
    let norm = torch::clip_gradients(&gradients, None).unwrap().double_value(&[]);
    torch::clear_gradients(&tensors).unwrap();
    [total, norm]
}

#[test]
fn the_loss_of_dialogues_equals_the_reference_however_the_batch_is_cut() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    assert!(listed(&root, "chat/sft", ".json").len() == 1);
    let reference = WeightFiles::open(&root.join("chat/sft_batch.safetensors")).unwrap();
    let story = json(&root.join("chat/sft_batch.json"));
    let loaded = model::load(&root.join(story["model"].as_str().unwrap()), Device::Cpu).unwrap();
    let objective = supervised(&loaded);
    let [ids, labels] = ["input_ids", "labels"].map(|name| reference.tensor(name).unwrap());
    let t = usize::try_from(ids.size()[1]).unwrap();
    let (ids, labels) = (numbers(&ids), numbers(&labels));
    let rows: Vec<(u64, Sequence)> = (0..)
        .zip(ids.chunks(t).zip(labels.chunks(t)))
        .map(|(sample, (ids, labels))| {
            let tokens = ids.iter().map(|&n| id(n)).collect();
            let loss_mask = labels[1..].iter().map(|&label| label != IGNORED).collect();
            let boundaries = vec![0, u32::try_from(t).unwrap()];
            (sample, Sequence { tokens, boundaries, loss_mask })
        })
        .collect();
    let whole = micro_batch(objective.as_ref(), &rows);
    assert_eq!(whole.n_targets, story["targets"].as_u64().unwrap());
    let expected = ["loss", "grad_norm"].map(|key| story[key].as_f64().unwrap());
    let mut far = [0f64; 2];
    for size in [rows.len(), 3, 1] {
        let parts: Vec<MicroBatch> =
            rows.chunks(size).map(|rows| micro_batch(objective.as_ref(), rows)).collect();
        let found = step(&loaded, objective.as_ref(), &parts);
        for i in 0..2 {
            far[i] = far[i].max((found[i] - expected[i]).abs());
        }
    }
    // Per token, with the rows that have no target left out as in training.
    let logits = no_grad(|| loaded.model.logits(&whole.tokens_bt, &mut Pass::default()));
    let nll = reference.tensor("token_nll").unwrap();
    let (mut nll_far, mut judged) = (0f64, 0);
    for (row, targets) in whole.targets_bt.split(1, 0).iter().enumerate() {
        let row = i64::try_from(row).unwrap();
        for (column, target) in (0..).zip(numbers(targets)) {
            if target == IGNORED {
                continue;
            }
            let one = sum_of_losses(
                &logits.get(row).get(column).unsqueeze(0),
                &Tensor::from_slice(&[target]),
            );
            let expected = nll.double_value(&[row, column]);
            nll_far = nll_far.max((one.unwrap().double_value(&[]) - expected).abs());
            judged += 1;
        }
    }
    println!(
        "judged {} rows in 3 cuts: loss {:.1e}, gradient norm {:.1e}, {judged} tokens {nll_far:.1e}",
        rows.len(),
        far[0],
        far[1]
    );
    assert!(far[0] < LOSS && far[1] < GRADIENT && nll_far < LOGITS, "{far:?}, {nll_far}");
}

#[test]
fn packed_documents_do_not_see_each_other() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let reference = WeightFiles::open(&root.join("chat/packed.safetensors")).unwrap();
    let story = json(&root.join("chat/packing.json"));
    let loaded = model::load(&root.join(story["model"].as_str().unwrap()), Device::Cpu).unwrap();
    let objective = supervised(&loaded);
    let read = |name: &str| numbers(&reference.tensor(name).unwrap());
    let tokens: Vec<u32> = read("input_ids").into_iter().map(id).collect();
    let boundaries: Vec<u32> = read("cu_seqlens").into_iter().map(id).collect();
    let loss_mask = read("labels")[1..].iter().map(|&label| label != IGNORED).collect();
    let n = i64::try_from(tokens.len()).unwrap() - 1;
    let n_documents = boundaries.len() - 1;
    let row = [(0, Sequence { tokens, boundaries, loss_mask })];
    let batch = micro_batch(objective.as_ref(), &row);
    let positions = batch.positions_bt.as_ref().unwrap();
    assert_eq!(numbers(positions), read("position_ids")[..numbers(positions).len()]);
    let expected = reference.tensor("logits").unwrap().narrow(0, 0, n);
    let wrong = reference.tensor("logits_wrong_if_contaminated").unwrap().narrow(0, 0, n);
    let mut pass = Pass {
        positions_bt: batch.positions_bt.as_ref().map(Tensor::shallow_clone),
        documents_bt: batch.documents_bt.as_ref().map(Tensor::shallow_clone),
        ..Pass::default()
    };
    let ours = no_grad(|| loaded.model.logits(&batch.tokens_bt, &mut pass)).squeeze_dim(0);
    let far = difference(&ours, &expected);
    let plain = no_grad(|| loaded.model.logits(&batch.tokens_bt, &mut Pass::default()));
    let decoy = difference(&plain.squeeze_dim(0), &wrong);
    assert!(difference(&expected, &wrong) > 1.0, "the decoy is far");
    let [loss, _] = step(&loaded, objective.as_ref(), &[batch]);
    let loss_far = (loss - story["packed_row"]["loss"].as_f64().unwrap()).abs();
    println!(
        "judged {n_documents} documents: logits {far:.1e}, without masks {decoy:.1e}, loss {loss_far:.1e}"
    );
    assert!(far < LOGITS && decoy < LOGITS && loss_far < LOSS, "{far}, {decoy}, {loss_far}");
}

#[test]
fn objectives_refuse_models_and_vocabularies_that_lack_what_they_need() {
    torch::start();
    let Some(root) = super::data("parity") else { return };
    let check = |model: &str, kind: &str, expected: &str| {
        let loaded = model::load(&root.join("models").join(model), Device::Cpu).unwrap();
        let config = Config { kind: kind.to_owned(), ..Config::default() };
        let error = objective::build(&config, &Vocabulary::default(), loaded.model.shape());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("bert_mlm", "causal_lm", "`causal_lm` needs a decoder with logits of tokens");
    check("bert_classify", "masked_lm", "`masked_lm` needs an encoder with logits of tokens");
    check("bert_mlm", "masked_lm", "no special token `[MASK]` or `<mask>`");
    check("gpt2", "classification", "`classification` needs scores of sequences");
    check("llama_reward", "supervised", "`supervised` needs a decoder with logits of tokens");
    check("gpt2", "masked", "no objective is called `masked`");
}
