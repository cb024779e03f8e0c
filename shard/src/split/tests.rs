use super::*;

fn splits(weights: &[(&str, f64)]) -> Result<Splits> {
    Splits::new(weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect())
}

#[test]
fn refuses_weights_that_do_not_sum_to_one() {
    let error = splits(&[("train", 0.9), ("validation", 0.2)]).unwrap_err().to_string();
    assert!(error.contains("1.1"), "{error}");
    assert!(splits(&[("train", 0.9), ("validation", 0.1)]).is_ok());
    assert!(splits(&[("train", 1.0 + 5e-10)]).is_err(), "a weight above one");
}

#[test]
fn refuses_splits_without_train() {
    assert!(splits(&[("validation", 1.0)]).is_err());
    assert!(splits(&[("train", f64::NAN)]).is_err());
    assert!(splits(&[("train", 0.5), ("../x", 0.5)]).is_err());
}

#[test]
fn shares_follow_the_weights() {
    let splits = splits(&[("train", 0.8), ("validation", 0.15), ("test", 0.05)]).unwrap();
    assert_eq!(splits.names().collect::<Vec<_>>(), ["test", "validation", "train"]);
    let mut counts = BTreeMap::<&str, f64>::new();
    for i in 0..100_000_u32 {
        *counts.entry(splits.of(&i.to_le_bytes(), 42)).or_default() += 1.0;
    }
    // Four standard deviations of a binomial count.
    for (name, share) in [("train", 0.8), ("validation", 0.15), ("test", 0.05)] {
        let tolerance = 4.0 * f64::sqrt(100_000.0 * share * (1.0 - share));
        let found = counts[name];
        assert!((found - 100_000.0 * share).abs() < tolerance, "{name}: {found}");
    }
}

#[test]
fn a_larger_share_takes_no_document_away_from_validation() {
    let small = splits(&[("train", 0.99), ("validation", 0.01)]).unwrap();
    let large = splits(&[("train", 0.95), ("validation", 0.05)]).unwrap();
    for i in 0..20_000_u32 {
        let id = i.to_le_bytes();
        if small.of(&id, 7) == "validation" {
            assert_eq!(large.of(&id, 7), "validation");
        }
    }
}

#[test]
fn everything_is_for_training_by_default() {
    assert_eq!(Splits::default().of(b"any", 1), "train");
    let none = splits(&[("train", 1.0), ("validation", 0.0)]).unwrap();
    assert!((0..1000_u32).all(|i| none.of(&i.to_le_bytes(), 3) == "train"));
}

#[test]
fn reads_and_writes_the_map_of_a_job() {
    let splits: Splits = toml::from_str("train = 0.75\nvalidation = 0.25\n").unwrap();
    assert_eq!(toml::to_string(&splits).unwrap(), "train = 0.75\nvalidation = 0.25\n");
}
