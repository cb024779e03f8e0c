use super::*;

fn parameter(name: &str, values: &[f32]) -> Parameter {
    let tensor = Tensor::from_slice(values).view([1, -1]).set_requires_grad(true);
    Parameter { name: name.to_owned(), tensor }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::<f32>::try_from(tensor.detach().reshape([-1])).unwrap()
}

fn config(kind: &str) -> recipe::Optimizer {
    recipe::Optimizer { kind: kind.to_owned(), clip: 0.0, weight_decay: 0.0, ..Default::default() }
}

#[test]
fn kinds_are_sorted_and_found() {
    assert!(KINDS.is_sorted_by_key(|kind| kind.name));
    assert!(KINDS.iter().all(|kind| find(kind.name).is_some()));
    let parameters = [parameter("w", &[1.0])];
    let error = Optimizer::new(&parameters, &config("adamv")).unwrap_err().to_string();
    assert!(error.contains("`adamv`") && error.contains("did you mean `adam"), "{error}");
}

#[test]
fn a_step_beyond_numbers_changes_nothing_whatever_the_kind() {
    for kind in KINDS {
        let parameters = [parameter("w", &[1.0, -2.0]), parameter("wte", &[3.0])];
        let recipe =
            recipe::Optimizer { average: Some(0.5), weight_decay: 0.1, ..config(kind.name) };
        let mut optimizer = Optimizer::new(&parameters, &recipe).unwrap();
        let set = |values: &[f32]| {
            for p in &parameters {
                let gradient = Tensor::from_slice(&values[..p.tensor.numel()]).view([1, -1]);
                torch::set_gradient(&p.tensor, &gradient).unwrap();
            }
        };
        set(&[0.5, 0.25]);
        let _norm = optimizer.update(0.1).unwrap();
        let all = |optimizer: &Optimizer| {
            let state = optimizer.state().into_iter().map(|(_, tensor)| values(&tensor));
            state.chain(parameters.iter().map(|p| values(&p.tensor))).collect::<Vec<_>>()
        };
        let before = all(&optimizer);
        for bad in [f32::NAN, f32::INFINITY] {
            set(&[bad, 1.0]);
            let norm = optimizer.update(0.1).unwrap().double_value(&[]);
            assert!(!norm.is_finite());
            assert_eq!(before, all(&optimizer), "{}: {bad}", kind.name);
        }
        set(&[0.5, 0.25]);
        let _norm = optimizer.update(0.1).unwrap();
        assert_ne!(before, all(&optimizer), "{}", kind.name);
    }
}

#[test]
fn groups_have_their_own_decay_and_rate() {
    let parameters =
        [parameter("h.0.w", &[1.0]), parameter("h.1.w", &[1.0]), parameter("x", &[1.0])];
    let mut recipe = recipe::Optimizer {
        momentum: Some(0.0),
        weight_decay: 0.5,
        groups: vec![
            recipe::ParameterGroup {
                parameters: "h.1.*".to_owned(),
                weight_decay: Some(0.0),
                lr_scale: None,
            },
            recipe::ParameterGroup {
                parameters: "h.*".to_owned(),
                weight_decay: None,
                lr_scale: Some(2.0),
            },
        ],
        ..config("sgd")
    };
    let mut optimizer = Optimizer::new(&parameters, &recipe).unwrap();
    for p in &parameters {
        torch::set_gradient(&p.tensor, &Tensor::from_slice(&[1f32]).view([1, 1])).unwrap();
    }
    let _norm = optimizer.update(0.1).unwrap();
    // By hand: 1 - 0.2 (1 + 0.5), 1 - 0.1 · 1, 1 - 0.1 (1 + 0.5).
    let found: Vec<f32> = parameters.iter().flat_map(|p| values(&p.tensor)).collect();
    for (found, expected) in found.iter().zip([0.7, 0.9, 0.85]) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
    recipe.groups[0].parameters = "h.1.v".to_owned();
    let error = Optimizer::new(&parameters, &recipe).unwrap_err().to_string();
    assert!(error.contains("`h.1.v` names none") && error.contains("`h.1.w`"), "{error}");
}

#[test]
fn the_average_follows_the_weights() {
    let parameters = [parameter("w", &[1.0])];
    let recipe = recipe::Optimizer { average: Some(0.75), momentum: Some(0.0), ..config("sgd") };
    let mut optimizer = Optimizer::new(&parameters, &recipe).unwrap();
    for _ in 0..2 {
        torch::set_gradient(&parameters[0].tensor, &Tensor::from_slice(&[1f32]).view([1, 1]))
            .unwrap();
        let _norm = optimizer.update(0.5).unwrap();
    }
    // By hand: weights 1, 0.5, 0; average 1, 0.875, 0.65625.
    let average = optimizer.average().unwrap();
    let inside = average.in_place(|| values(&parameters[0].tensor));
    let outside = values(&parameters[0].tensor);
    assert_eq!((inside, outside), (vec![0.65625], vec![0.0]));
    assert_eq!(values(&average.state()[0].1), [0.65625]);
}

#[test]
fn patterns_match_whole_names() {
    for (pattern, name, expected) in [
        ("a.b", "a.b", true),
        ("a", "a.b", false),
        ("a*", "a.b", true),
        ("*.b", "a.b", true),
        ("*.ln_*.bias", "h.0.ln_1.bias", true),
        ("*.ln_*.bias", "h.0.ln_1.weight", false),
        ("*", "", true),
    ] {
        assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
    }
}
