"""Writes what fastText says with `trained.bin`: `python make_trained.py MODEL`, with the model that `tests/it/classifier.rs` trains.

Versions: fasttext-wheel 0.9.2, numpy 1.26, Python 3.11.
"""

import json
import shutil
import sys

import fasttext

fasttext.FastText.eprint = lambda *_: None

KINDS = [["mill", "flour", "stone", "wheel", "grain", "bread"], ["sea", "boat", "harbour", "sail", "tide", "fish"]]
HARD = ["mill boat", "Mill", "漢字 the sea", "a stone-mill by the harbour", "number", "the the the"]

shutil.copy(sys.argv[1], "trained.bin")
model = fasttext.load_model("trained.bin")
texts = ["the " + " ".join(KINDS[n % 2][(n * 7 + at * (n % 5 + 1)) % 6] for at in range(5)) + f" number {n}" for n in range(0, 300, 3)]
texts += ["the " + " ".join(KINDS[(n + at) % 2][(n * 5 + at) % 6] for at in range(7)) for n in range(40)]
with open("trained.jsonl", "w") as file:
    for text in texts + HARD:
        labels, scores = model.predict(text)
        file.write(json.dumps({"text": text, "label": labels[0][9:], "score": float(scores[0])}) + "\n")
