//! What a tokenizer makes of a corpus, by the query of `docs/tokenizers.md`.

use std::fs;

use serde_json::json;

use crate::mill::{Mill, root};

/// `the`, `cat`, `##s`; the rest is unknown.
const TOKENIZER: &str = r###"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [
    {"id": 0, "content": "[UNK]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
    {"id": 4, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
    "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": {"[UNK]": 0, "the": 1, "cat": 2, "##s": 3, "</s>": 4}}}"###;

#[test]
fn fertility_bytes_per_token_and_unknown_rate_are_those_of_a_calculation_by_hand() {
    let page = fs::read_to_string(root().join("docs/tokenizers.md")).unwrap();
    let query = page.split("```sql").nth(1).unwrap().split("```").next().unwrap();
    let mill = Mill::new();
    mill.write("tokenizer.json", TOKENIZER);
    // the cat ##s, the [UNK]: 5 tokens of 4 words and 15 bytes, one unknown.
    mill.write("a.jsonl", "{\"text\": \"the cats\"}\n{\"text\": \"the dog\"}\n");
    mill.write("b.jsonl", "{\"text\": \"cat\"}\n");
    let source = |name: &str| {
        format!("[[source]]\nkind = \"jsonl\"\nname = \"{name}\"\npath = \"{name}.jsonl\"\n")
    };
    let job = format!(
        "name = \"words\"\noutput = \"corpus\"\n{}{}[shard]\ntokenizer = \"tokenizer.json\"\n",
        source("a"),
        source("b")
    );
    mill.write("job.toml", job);
    mill.mill(&[]);
    let row = |source: &str, fertility: f64, bytes_per_token: f64, unknown: f64| {
        json!({
            "source": source, "language": null, "fertility": fertility,
            "bytes_per_token": bytes_per_token, "unknown": unknown,
        })
    };
    let expected = [row("a", 5.0 / 4.0, 15.0 / 5.0, 1.0 / 5.0), row("b", 1.0, 3.0, 0.0)];
    assert_eq!(mill.sql("corpus", query), expected);
}
