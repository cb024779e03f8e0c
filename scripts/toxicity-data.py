"""Unpacks what the toxicity model is trained and judged on: `python3 scripts/toxicity-data.py DATA OUT`.

DATA is the folder of test data. Writes JSON lines: `train`, `heldout` (Davidson), `web` (documents without labels, taken
as clean), and sets that nothing is trained on: `surge`, `news`, `hatecheck`. Python 3.11, nothing beside it.
"""

import csv
import gzip
import hashlib
import html
import json
import pathlib
import re
import sys
import tarfile

DATA, OUT = map(pathlib.Path, sys.argv[1:])
OUT.mkdir(parents=True, exist_ok=True)


def write(name, rows):
    rows = list(rows)
    with open(OUT / f"{name}.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    print(name, len(rows))


def tweet(text):
    """Without what only tweets have: it would tell tweets from pages, not rude from clean."""
    text = html.unescape(html.unescape(text))
    return re.sub(r"\bRT\b|https?://\S+|@\w+:?|&#\d+;?|#", " ", text).strip(' "')


def davidson():
    with gzip.open(DATA / "toxicity/davidson/labeled_data.csv.gz", "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            text = tweet(row["tweet"])
            # The same words are never on both sides of the split.
            key = " ".join(re.findall(r"\w+", text.lower()))
            side = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 5
            yield side == 0, {"toxic": row["class"] != "2", "text": text}


def web():
    with tarfile.open(DATA / "html-truth/wcxb-dev-800.tar.xz") as tar:
        for member in tar:
            if "/ground-truth/" in member.name and member.isfile():
                truth = json.load(tar.extractfile(member))
                yield {"text": truth["ground_truth"].get("main_content") or ""}


def rows(path):
    with open(DATA / path, encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file)


tweets = list(davidson())
write("train", (row for heldout, row in tweets if not heldout))
write("heldout", (row for heldout, row in tweets if heldout))
write("web", web())
write("surge", ({"toxic": r["is_toxic"] == "Toxic", "text": r["text"]} for r in rows("toxicity/surge/toxicity_en.csv")))
truth = json.loads((DATA / "html-truth/article-extraction-benchmark/ground-truth.json").read_text(encoding="utf-8"))
write("news", ({"text": page["articleBody"]} for page in truth.values()))
write(
    "hatecheck",
    ({"kind": r["functionality"], "toxic": r["label_gold"] == "hateful", "text": r["test_case"]}
     for r in rows("toxicity/hatecheck-en/test_suite_cases.csv")),
)
