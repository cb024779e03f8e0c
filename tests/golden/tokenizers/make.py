"""Writes the SentencePiece models beside it and what SentencePiece encodes with them.

    python make.py SHARED_DATA

SHARED_DATA has `parity/corpora/tinyshakespeare.txt` (public domain), which the models are trained on, and
`tokenizers/mistral/tokenizer.model.v1`, whose ids of the texts below are recorded too.
"""

import gzip
import io
import json
import pathlib
import sys

import sentencepiece

TEXTS = [
    "", " ", "  ", "\n", "\t", "a", " a", "a ", "  a  b  ", "Hello, world!", " Hello  world ", "the\nking\n\n and queen",
    "tabs\tand\r\nlines", "What say you, my lord?", "ROMEO: O, she doth teach the torches to burn bright!",
    "3 33 333 3333 33333", "naïve café façade", "ﬁne ﬂow ½ ² ™ Ⅳ", "ＦＵＬＬ　ｗｉｄｔｈ", "e\u0301 and é", "日本語のテキスト",
    "Привет, мир", "مرحبا بالعالم", "🦙🚀 emoji 👩‍👩‍👧", "a\u00a0b\u2003c\u200bd\ufeffe", "x\u0000y\u0007z\u007f", "soft\u00adhyphen",
    "▁already▁marked", "<s>", "</s>", "<unk>", "the <s> and </s> of it", "<0x41>", "a <0x0A> b", "[INST] hi [/INST]",
    "def f(x):\n    return x  # four\n\tspaces", "zzzzqqqqxxxx", "!!!???...", "I'd've gone; they'll say 'tis so.",
    "<mask>", "the <mask> is off", "king" * 40,
]

COMMON = {
    "vocab_size": 700, "byte_fallback": True, "character_coverage": 1.0, "num_threads": 1,
    "minloglevel": 2,
}
MODELS = {
    "unigram-nmt": {"model_type": "unigram", "normalization_rule_name": "nmt_nfkc"},
    "unigram-identity": {
        "model_type": "unigram", "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
        "split_digits": True,
    },
    "unigram-bare": {
        "model_type": "unigram", "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
        "add_dummy_prefix": False, "byte_fallback": False, "vocab_size": 400,
    },
    "bpe-nmt": {"model_type": "bpe", "normalization_rule_name": "nmt_nfkc_cf"},
    "bpe-spaces": {
        "model_type": "bpe", "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
        "split_by_whitespace": False,
    },
}


def main():
    data, here = pathlib.Path(sys.argv[1]), pathlib.Path(__file__).parent
    lines = (data / "parity/corpora/tinyshakespeare.txt").read_text().splitlines()[:8000]
    expected = {"sentencepiece": sentencepiece.__version__, "texts": TEXTS, "ids": {}}
    for name, options in MODELS.items():
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, **{**COMMON, **options}
        )
        (here / f"{name}.model.gz").write_bytes(gzip.compress(model.getvalue(), 9, mtime=0))
        processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        expected["ids"][name] = [processor.encode(text) for text in TEXTS]
    mistral = str(data / "tokenizers/mistral/tokenizer.model.v1")
    processor = sentencepiece.SentencePieceProcessor(model_file=mistral)
    expected["ids"]["mistral"] = [processor.encode(text) for text in TEXTS]
    # Of the texts of other samples: by their place, the texts stay where they are.
    samples = (data / "tokenizers/llama.cpp-vocab/ggml-vocab-llama-spm.gguf.inp").read_text()
    samples = samples.split("\n__ggml_vocab_test__\n")
    expected["ids"]["mistral-samples"] = [processor.encode(text) for text in samples]
    encodings = json.loads((data / "parity/tokenizers/encodings.json").read_text())
    expected["ids"]["mistral-encodings"] = [processor.encode(case["text"]) for case in encodings]
    text = json.dumps(expected, ensure_ascii=True, separators=(",", ":"))
    (here / "sentencepiece.json").write_text(text + "\n")


main()
