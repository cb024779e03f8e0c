"""Writes small fastText models and what the reference answers: `python make.py [TESTDATA.tar.gz LID.176.ftz]`.

Versions: fasttext-wheel 0.9.2, numpy 1.26, Python 3.11. With the two arguments it writes `lid176-lingua.bin` as well.
"""

import json
import random
import struct
import sys
import tarfile
import tempfile

import fasttext

fasttext.FastText.eprint = lambda *_: None

SCRIPTS = ["abcdefgh", "äöüßéèøå", "абвгдежз", "漢字仮名交文章", "अआइईउऊएऐ", "😀🎉🚀🌍"]
# Tokens and line ends that a careless tokenizer gets wrong.
HARD = [
    "", " ", "</s>", "abc </s> abd", "__label__l1 abc", "__label__unseen abc", "a\tb\x0bc\x0cd\re", "a\x00b abc\x00",
    "a\u00a0b\u3000c", "<abc>", "a", "ä", "漢", "😀", "e\u0301a\u0301", "x" * 300, "abc " * 200, "?!.,;:", "</S> </s>x",
]
MODELS = {
    "softmax.bin": dict(labels=5, dim=4, loss="softmax", wordNgrams=3, minn=2, maxn=4, bucket=300),
    "words.bin": dict(labels=3, dim=16, loss="softmax", wordNgrams=1, minn=0, maxn=0, bucket=0),
    "negative.bin": dict(labels=6, dim=3, loss="ns", wordNgrams=2, minn=0, maxn=0, bucket=200),
    "one-vs-all.bin": dict(labels=4, dim=8, loss="ova", wordNgrams=1, minn=1, maxn=3, bucket=200),
    "tree.bin": dict(labels=9, dim=6, loss="hs", wordNgrams=1, minn=2, maxn=3, bucket=200),
    "pruned.ftz": dict(labels=5, dim=5, loss="softmax", wordNgrams=2, minn=2, maxn=3, bucket=400, q=dict(cutoff=300, qnorm=True)),
    "tree.ftz": dict(labels=300, dim=5, loss="hs", wordNgrams=1, minn=2, maxn=3, bucket=300, q=dict(qnorm=True, qout=True)),
    "quantised.ftz": dict(labels=300, dim=4, loss="softmax", wordNgrams=2, minn=0, maxn=0, bucket=300, q=dict(qout=True)),
}


def words(rng, label):
    letters = SCRIPTS[label % len(SCRIPTS)] + SCRIPTS[0]
    return " ".join(
        "".join(rng.choice(letters) for _ in range(rng.randint(1, 5))) for _ in range(rng.randint(1, 12))
    )


def models():
    expected = []
    for name, options in MODELS.items():
        options, rng = dict(options), random.Random(name)
        labels, quantise = options.pop("labels"), options.pop("q", None)
        # Unequal counts give a tree that is not balanced.
        lines = [(label, words(rng, label)) for label in range(labels) for _ in range(3 + (7 * label) % 11)]
        rng.shuffle(lines)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.writelines(f"__label__l{label} {text}\n" for label, text in lines)
            file.flush()
            model = fasttext.train_supervised(file.name, epoch=20, lr=0.8, thread=1, minCount=2, seed=1, verbose=0, **options)
            if quantise:
                model.quantize(input=file.name, **quantise)
        model.save_model(name)
        model = fasttext.load_model(name)
        for text in HARD + [words(rng, rng.randrange(labels)) for _ in range(40)]:
            answers = model.predict(text, k=-1)
            scores = {label[9:]: float(score) for label, score in zip(*answers)}
            best = model.predict(text)
            label, score = (best[0][0][9:], float(best[1][0])) if best[0] else (None, None)
            few = dict(list(scores.items())[:: max(1, len(scores) // 3)])
            expected.append({"model": name, "text": text, "label": label, "score": score, "scores": few})
    with open("expected.jsonl", "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in expected)


def lingua(archive, path):
    """A byte and a u16 per sentence: the label's place in the model, and the score in 65,535ths of 1.001."""
    model = fasttext.load_model(path)
    places = {label: place for place, label in enumerate(model.labels)}
    with tarfile.open(archive) as tar, open("lid176-lingua.bin", "wb") as out:
        for member in sorted(m.name for m in tar.getmembers() if m.name.endswith("/sentences.txt")):
            for line in tar.extractfile(member).read().decode().split("\n"):
                labels, scores = model.predict(line)
                label = places[labels[0]] if labels else 255
                score = float(scores[0]) if labels else 0.0
                out.write(struct.pack("<BH", label, round(score / 1.001 * 65535)))


models()
if len(sys.argv) == 3:
    lingua(*sys.argv[1:])
