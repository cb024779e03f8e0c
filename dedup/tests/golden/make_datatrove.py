"""Writes datatrove.json: simplified texts, shingles and signatures as datatrove computes them.

Made with Python 3.11, datatrove 0.10.1, numpy and xxhash as printed in the file's "versions":
    pip install numpy "xxhash<4" regex datatrove==0.10.1
    python make_datatrove.py > datatrove.json

The word tokenizer is left out (spaCy); the words are given, so the methods of MinhashDedupSignature run
on an instance that was never initialised.
"""
import importlib.metadata, json

import numpy as np
from datatrove.pipeline.dedup import minhash
from datatrove.utils.hashing import create_hash_func
from datatrove.utils.text import ngrams, simplify_text

step = object.__new__(minhash.MinhashDedupSignature)
step.config = minhash.MinhashConfig()
step.num_hashes = step.config.num_buckets * step.config.hashes_per_bucket
step._parameters = None
hash_text = create_hash_func(step.config.hash_config)

words = [
    "a b c d e",
    "it is a truth universally acknowledged that a single man in possession of a good fortune must be in want of a wife",
    "the same words the same words the same words the same words the same words",
    "naive ünïcode 日本 слово ελλάδα 0 of 0 words",
]
signatures = []
for line in words:
    shingles = np.fromiter(
        [hash_text(" ".join(x)) for x in ngrams(line.split(" "), step.config.n_grams)], dtype=np.uint64
    ).reshape((-1, 1))
    signature = [value for bucket in step.get_signature(shingles) for value in bucket]
    signatures.append({"words": line, "shingles": shingles.ravel().tolist(), "signature": signature})

texts = [
    "It is a Truth, universally acknowledged -- that (in 1813) 3.14% of 1,234,567 readers...",
    "  Tabs\tand\nlines\r\n\r\nand\u00a0no-break\u2003spaces  ",
    "Café naïve ÅNGSTRÖM e\u0301 ΟΔΟΣ İstanbul ß",
    "„Zitat“ «guillemets» 「引用」、１２３ ％ ½ ² x٣٫٥y ٠",
    "control\x00\x07\x7f\x85chars\u200bzero",
    "...",
    "हिन्दी भाषा ไทย 한국어",
    "1.2.3 10,5 10, 5 a1b2",
]
print(json.dumps({
    "versions": {name: importlib.metadata.version(name) for name in ("datatrove", "numpy", "xxhash", "regex")},
    "signatures": signatures,
    "simplified": [{"text": text, "simplified": simplify_text(text)} for text in texts],
}, ensure_ascii=False, indent=1))
