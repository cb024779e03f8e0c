"""Writes redpajama_signals.json: the quality signals of RedPajama-V2 as its repository defines them, by Python's own functions.

Definitions: https://github.com/togethercomputer/RedPajama-Data, app/src/core/quality_signals at commit 855a8e0, written anew. Python 3.11, nltk 3.8.1 (3.9 takes marks for word characters).
    python make_redpajama_signals.py > redpajama_signals.json
    python make_redpajama_signals.py DOCUMENTS.jsonl... > signals.jsonl    # `id` and signals of a corpus' documents
"""
import gzip
import json
import math
import re
import string
import sys
import unicodedata
from collections import Counter
from pathlib import Path

from nltk.tokenize import WordPunctTokenizer

DATA = Path(__file__).resolve().parents[2] / "data"
STOP_WORDS = set((DATA / "stop-words/en.txt").read_text().split("\n")[:-1])
BAD_WORDS = {line.strip() for line in (DATA / "ldnoobw/en.txt").read_text().splitlines()}
PUNCTUATION = str.maketrans("", "", string.punctuation)
BULLETS = tuple("\u2022\u2023\u25B6\u25C0\u25E6\u25A0\u25A1\u25AA\u25AB\u2013")

ARTICLE = """The mill stood by the river, and the miller had to be up with the sun.
That is what the people of the village said of it... The mill stood by the river, and nobody knew why!

• Flour – white
  – Bran
- Oats: 12 bags at $3.50
HOURS: MONDAY TO FRIDAY
Read more…
JavaScript is disabled; enable javascript to see Javascript.
"""

TEXTS = [
    "", " ", "\n", "\n\n", ".", "...", "a", "A.", "a b", "Hello. World", "abc.def?ghi!", "(hello) world", "x . y ! z", "«Ça va?» Oui…",
    ARTICLE, ARTICLE * 3, "ONE Two three FOUR ǅ ǅX IV ⅠⅡ ⓐ ª", "Straße ΑΣ ΌΣΟΣ İstanbul ﬁn Å e\u0301\n", "12 ½ 三十 ٣ ² ① x\n四",
    "Lorem ipsum dolor sit amet, LOREM  IPSUM lorem-ipsum {curly} {{brackets}}", "a\tb\u00a0c\u3000d\r\ne\x1cf\u2028g\x85h",
    "to be or not to be that is the question " * 4, "a b c d e a b c d e f a b c d e", "日本語のテキスト。これは二番目の文です。", "#tag ##  #\n…\n....\n",
    "snake_case don't can't you're x-y_z __init__", "word\n" * 30, "I can't; it's the U.S. of A., you'd say?\nEnd”\nNo end\n", "\ufffd\U0001f600\U0001f468\u200d\U0001f469 ok",
]


def normalize(text):
    text = text.translate(PUNCTUATION).lower().strip()
    return unicodedata.normalize("NFD", re.sub(r"\s+", " ", text))


def grams(words, n):
    return list(zip(*(words[i:] for i in range(n))))


def share(part, whole, empty=None):
    return round(part / whole, 8) if whole else empty


def signals(text):
    normalized = normalize(text)
    words = normalized.split()
    raw = WordPunctTokenizer().tokenize(text)
    lines = [(m.group(), m.start(), m.end()) for m in re.finditer(r"([^\n]*\n|[^\n]+$)", text)]
    chars = sum(map(len, words))
    counts = Counter(words)
    out = {}
    doc = lambda name, value: out.__setitem__("rps_doc_" + name, None if value is None else float(value))
    doc("num_sentences", len(re.findall(r"\b[^.!?]+[.!?]*", text)))
    doc("word_count", len(words))
    doc("mean_word_length", share(chars, len(words)))
    doc("symbol_to_word_ratio", share(sum(map(text.count, ("#", "...", "…"))), len(raw)))
    doc("frac_lines_end_with_ellipsis", share(sum(l.rstrip().endswith(("...", "…")) for l, _, _ in lines), len(lines)))
    doc("frac_no_alph_words", round(1.0 - sum(bool(re.search("[a-zA-Z]", w)) for w in raw) / len(raw), 8) if raw else None)
    doc("frac_unique_words", share(len(counts), len(words)))
    doc("unigram_entropy", round(sum(-n / len(words) * math.log(n / len(words)) for n in counts.values()), 8) if words else None)
    doc("frac_all_caps_words", share(sum(map(str.isupper, raw)), len(raw)))
    lengths = {1 + entry.count(" ") for entry in BAD_WORDS}
    doc("ldnoobw_words", sum(" ".join(g) in BAD_WORDS for n in lengths for g in grams(words, n)))
    doc("lorem_ipsum", share(normalized.count("lorem ipsum"), len(normalized), 0.0))
    doc("curly_bracket", share(text.count("{") + text.count("}"), len(text), 0.0))
    doc("stop_word_fraction", share(sum(w in STOP_WORDS for w in raw), len(raw)) if words else 0.0)
    for n in (2, 3, 4):
        top = Counter(grams(words, n)).most_common(1)
        doc(f"frac_chars_top_{n}gram", share(sum(map(len, top[0][0])) * top[0][1], chars) if top and top[0][1] > 1 else 0.0)
    for n in range(5, 11):
        many = {g for g, count in Counter(grams(words, n)).items() if count > 1}
        covered = set()
        for i, g in enumerate(grams(words, n)):
            covered.update(range(i, i + n) if g in many else ())
        doc(f"frac_chars_dupe_{n}grams", share(sum(len(words[i]) for i in covered), chars, 0.0))
    line = lambda name, value: out.__setitem__("rps_lines_" + name, [[start, end, float(value(l))] for l, start, end in lines])
    line("javascript_counts", lambda l: normalize(l).split().count("javascript"))
    line("ending_with_terminal_punctution_mark", lambda l: l.rstrip().endswith((".", "!", "?", "”")))
    line("num_words", lambda l: len(normalize(l).split()))
    line("uppercase_letter_fraction", lambda l: share(sum(map(str.isupper, l)), len(l)))
    line("numerical_chars_fraction", lambda l: share(sum(map(str.isnumeric, normalize(l))), len(normalize(l)), 0.0))
    line("start_with_bulletpoint", lambda l: l.lstrip().startswith(BULLETS))
    if not lines:
        out["rps_lines_start_with_bulletpoint"] = [[0, len(text), None]]
    return out


if len(sys.argv) == 1:
    rows = [json.dumps({"text": text, "signals": signals(text)}, ensure_ascii=False) for text in TEXTS]
    print("[" + ",\n".join(rows) + "]")
for path in sys.argv[1:]:
    with (gzip.open if path.endswith(".gz") else open)(path, "rt") as file:
        for row in map(json.loads, file):
            print(json.dumps({"id": row["id"], "signals": signals(row["text"])}))
