//! What other tools compute: `tests/golden/minhash.json`, written by `make_minhash.py` beside it.

use arrow::array::{AsArray, StringViewArray};
use arrow::datatypes::UInt64Type;
use serde_json::Value;

use crate::MinHash;

pub(crate) fn minhash_golden() -> Value {
    serde_json::from_str(include_str!("../../../tests/golden/minhash.json")).unwrap()
}

pub(crate) fn numbers(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect()
}

/// Compares the signatures of a profile with every case of the same name.
pub(crate) fn check_signatures(profile: &str, settings: &str) {
    let golden = minhash_golden();
    let cases = golden[profile].as_array().unwrap();
    for case in cases {
        let bits = &case["bits"];
        let config = format!("profile = '{profile}'\nbits = {bits}\n{settings}");
        let minhash = MinHash::new(toml::from_str(&config).unwrap()).unwrap();
        let text = case["text"].as_str().unwrap();
        let signatures = minhash.signatures(&StringViewArray::from(vec![text]));
        let signature = signatures.value(0).as_primitive::<UInt64Type>().values().to_vec();
        assert_eq!(signature, numbers(&case["signature"]), "{profile}, {bits} bits: {text:?}");
    }
    println!("{} signatures of profile {profile}", cases.len());
}
