#!/usr/bin/env python3
"""Scores trafilatura 2.3.1 and resiliparse 2.0.1 as `ingest/examples/extract_f1.rs` scores `extract_html`: same pages, same measures.

extract-peers.py ARTICLES WCXB
"""

import gzip
import hashlib
import json
import re
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import resiliparse.extract.html2text as resiliparse
import trafilatura

HELD_OUT = 200
EXTRACTORS = {
    "trafilatura": lambda html: trafilatura.extract(html) or "",
    "trafilatura precision": lambda html: trafilatura.extract(html, favor_precision=True, include_comments=False, deduplicate=True) or "",
    "resiliparse main": lambda html: resiliparse.extract_plain_text(html, main_content=True),
}


def shingles(text):
    words = re.findall(r"\w+", text)
    return Counter(tuple(words[at:at + 4]) for at in range(max(1, len(words) - 3))) if words else Counter()


def bag(text):
    return Counter(re.findall(r"\w+", text.lower()))


def shares(truth, found):
    common = sum((truth & found).values())
    return [common / sum(counts.values()) if counts else None for counts in (found, truth)]


def mean(values):
    values = [value for value in values if value is not None]
    return sum(values) / len(values)


def word_f1(truth, text):
    precision, recall = shares(bag(truth), bag(text))
    if precision is None or recall is None:
        return float(precision == recall)
    return 2 * precision * recall / (precision + recall) if precision else 0.0


def articles(folder):
    truth = json.loads((folder / "ground-truth.json").read_text())
    return [(gzip.open(folder / f"html/{key}.html.gz").read().decode(errors="replace"), page["articleBody"]) for key, page in truth.items()]


def held_out(folder):
    names = sorted((path.stem for path in (folder / "ground-truth").iterdir()), key=lambda name: hashlib.sha1(name.encode()).digest())
    for name in names[:HELD_OUT]:
        page = json.loads((folder / f"ground-truth/{name}.json").read_text())
        kind = (page["_internal"].get("page_type") or {}).get("primary", "article")
        html = (folder / f"html/{name}.html").read_bytes().decode(errors="replace")
        yield "collection" if kind == "category" else kind, html, page["ground_truth"].get("main_content") or ""


def main():
    pages, others = articles(Path(sys.argv[1])), list(held_out(Path(sys.argv[2])))
    for name, extract in EXTRACTORS.items():
        started = time.process_time()
        texts = [extract(html) for html, _ in pages]
        seconds = time.process_time() - started
        scores = [shares(shingles(truth), shingles(text)) for (_, truth), text in zip(pages, texts)]
        precision, recall = mean(score[0] for score in scores), mean(score[1] for score in scores)
        f1 = 2 * precision * recall / (precision + recall)
        print(f"{name}: articles F1 {f1:.4f} P {precision:.4f} R {recall:.4f}, {len(pages) / seconds:.0f} pages/CPU-s")
        kinds = defaultdict(list)
        for kind, html, truth in others:
            score = word_f1(truth, extract(html))
            kinds[kind].append(score)
            kinds["all"].append(score)
        for kind, values in sorted(kinds.items()):
            print(f"{kind:14} {len(values):4} pages  F1 {mean(values):.4f}")


main()
