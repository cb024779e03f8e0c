"""Writes contamination.json: what lm-evaluation-harness' Janitor and datatrove's decontamination make of made-up documents.

Made with Python 3.11, the versions printed in the file's "versions":
    pip install numpy "xxhash<4" regex spacy datatrove==0.10.1 && pip install --no-deps lm_eval==0.4.13
    python make_contamination.py > contamination.json

Items and documents are drawn from a small vocabulary; documents hold whole items, items in other case and punctuation,
halves, answers alone, and several of them. datatrove's steps run without their files: lighteval is not needed.
"""
import contextlib, importlib.metadata, io, json, random, sys

with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    from lm_eval.decontamination.janitor import Janitor
from datatrove.data import Document
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter, NGramsDecontIndexer
from datatrove.utils.hashing import create_hash_func
from datatrove.utils.text import simplify_text
from datatrove.utils.word_tokenizers import load_word_tokenizer

rng = random.Random(20)
syllables = "ba ce di fo gu ka le mi no pu ra se ti vo wu".split()
vocabulary = ["".join(rng.choices(syllables, k=rng.randint(1, 3))) for _ in range(3000)]
vocabulary += ["don't", "U.S.", "3.14", "1,000", "naïve", "e\u0301te\u0301", "Ärger", "can't", "state-of-the-art", "x²", "日本", "ΟΔΟΣ", "«mot»", "10%"]


def words(n):
    return rng.choices(vocabulary, k=n)


def prose(n):
    out = []
    for word in words(n):
        out.append(word + rng.choice(["", "", "", "", "", ",", ".", " --", "!"]))
    return rng.choice([" ", "  ", "\n"]).join(out)


items = []
for _ in range(40):
    items.append({"query": " ".join(words(rng.randint(3, 30))) + "?", "answer": " ".join(words(rng.randint(1, 25)))})


def mangle(text):
    kind = rng.randint(0, 4)
    if kind == 0:
        return text
    if kind == 1:
        return text.upper()
    if kind == 2:
        return " ".join(w + rng.choice(["", ",", ";", "!"]) for w in text.split())
    if kind == 3:
        return text.replace(" ", "\n\n")
    return text.replace(" ", " - ", 2)


documents = []
for _ in range(100):
    parts = [prose(rng.choice([0, 20, 60]))]
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        item = rng.choice(items)
        whole = (item["query"] + " " + item["answer"]).split()
        start = rng.randrange(len(whole))
        part = rng.choice([whole, whole, item["answer"].split(), item["query"].split(), whole[: len(whole) // 2], whole[start : start + rng.randint(11, 18)]])
        parts += [mangle(" ".join(part)), prose(rng.choice([5, 40, 70]))]
    documents.append({"text": " ".join(parts)})

janitor = Janitor()
janitor.register_contaminant = janitor.register_contaminant_python
for item in items:
    janitor.register_contaminant(item["query"] + "\n" + item["answer"])
for document in documents:
    document["janitor"] = janitor.clean_python(document["text"])

tokenizer = load_word_tokenizer("en")
hash_config = NGramsDecontConfig().hash_config
datatrove = []
for settings, config in [
    ("", NGramsDecontConfig()),
    ("ngram = 8\nfields = ['query', 'answer', 'overlap']", NGramsDecontConfig(n_grams=8, find_query_ngrams=True)),
    ("fields = ['answer']", NGramsDecontConfig(find_overlap_ngrams=False)),
]:
    indexer = object.__new__(NGramsDecontIndexer)
    indexer.config, indexer.tokenizer, indexer.hash_func = config, tokenizer, create_hash_func(hash_config)
    judge = object.__new__(NGramsDecontFilter)
    judge.config, judge.tokenizer, judge.hash_func = config, tokenizer, create_hash_func(hash_config)
    judge.stat_update = lambda *names: None
    judge._index_hashes = {h: "golden" for item in items for h in indexer.compute_hashes(item["answer"], item["query"])}
    contaminated = [judge.filter(Document(text=d["text"], id=str(i))) is not True for i, d in enumerate(documents)]
    datatrove.append({"settings": settings, "contaminated": contaminated})

texts = [d["text"] for d in documents] + [item[key] for item in items for key in ("query", "answer")]
simple = sorted({simplify_text(text) for text in texts})
json.dump({
    "versions": {name: importlib.metadata.version(name) for name in ("datatrove", "lm_eval", "spacy", "xxhash", "regex")},
    "items": items,
    "documents": documents,
    "datatrove": datatrove,
    # Of texts that are more than what stands between blanks.
    "words": {text: words for text in simple if (words := tokenizer.word_tokenize(text)) != text.split(" ")},
}, sys.stdout, ensure_ascii=False, indent=0)
