#!/usr/bin/env python3
"""Near-duplicates beside a peer, on a corpus that make_corpus.py made (`text/documents/*.jsonl.gz`, `truth_dups.jsonl`).

  dedup-bench.py job CORPUS OUTPUT [MEMORY [MINHASH]]   prints the job that is measured
  dedup-bench.py copies N OUTPUT                        prints a file of N equal pages, JSON lines
  dedup-bench.py daft CORPUS                            Daft's signatures and the same buckets and clusters in Python
  dedup-bench.py score CORPUS OUTPUT [GRISTMILL]        recall by kind of planted copy, and Jaccard indices of the removed

Daft 0.7.26, from PyPI; the other commands need Python alone.
"""

import glob
import gzip
import json
import os
import re
import subprocess
import sys

BANDS, ROWS, NGRAM = 14, 8, 5
WORD = re.compile(r"\w+")


def job(corpus, output, memory="2GiB", minhash="{ ngram = 5, bands = 14, rows = 8, verify = 0.75 }"):
    print(f"""name = "dedup-bench"
output = "{os.path.abspath(output)}"
memory = "{memory}"
[[source]]
kind = "jsonl"
path = "{os.path.abspath(corpus)}/text/documents/*.jsonl.gz"
[dedup]
methods = ["minhash"]
minhash = {minhash}""")


def copies(n, _output=None):
    text = " ".join(f"word{i * i % 997}" for i in range(120))
    for i in range(int(n)):
        print(json.dumps({"id": str(i), "text": text}))


def daft(corpus):
    import daft
    from daft import col
    from daft import functions as F

    df = daft.read_json(f"{corpus}/text/documents/*.jsonl.gz").select("id", "text")
    words = col("text").lower().regexp_replace(r"[^\w]+", " ")
    hashes = F.minhash(words, num_hashes=BANDS * ROWS, ngram_size=NGRAM, seed=1, hash_function="xxhash")
    table = df.select("id", hashes.alias("hashes")).to_pydict()
    parent = list(range(len(table["id"])))

    def root(i):
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for band in range(BANDS):
        first = {}
        for i, hashes in enumerate(table["hashes"]):
            j = first.setdefault(tuple(hashes[band * ROWS:(band + 1) * ROWS]), i)
            if j != i:
                parent[max(root(i), root(j))] = min(root(i), root(j))
    print(sum(root(i) != i for i in range(len(parent))), "of", len(parent), "removed")


def score(corpus, output, gristmill="gristmill"):
    text, truth = {}, [json.loads(line) for line in open(f"{corpus}/truth_dups.jsonl")]
    for path in sorted(glob.glob(f"{corpus}/text/documents/*.jsonl.gz")):
        for line in gzip.open(path, "rt"):
            row = json.loads(line)
            text[row["id"]] = row["text"]
    sql = """select d.metadata['id'] as id, k.metadata['id'] as kept, x.similarity from duplicates x
             join documents d on d.id = x.id join documents k on k.id = x.kept_id"""
    answer = subprocess.run([gristmill, "sql", "--corpus", output, "-c", sql, "--format", "ndjson"], check=True, stdout=subprocess.PIPE, text=True)
    pairs = [json.loads(line) for line in answer.stdout.splitlines()]
    removed = {pair["id"] for pair in pairs}
    kinds = {}
    for copy in truth:
        found = kinds.setdefault(copy["kind"], [0, 0])
        found[0] += copy["id"] in removed or copy["orig"] in removed
        found[1] += 1
    for kind, (found, planted) in sorted(kinds.items()):
        print(f"{kind}: {found} of {planted}")
    sets = {}

    def shingles(id):
        if id not in sets:
            words = WORD.findall(text[id].lower())
            sets[id] = {tuple(words[i:i + NGRAM]) for i in range(max(1, len(words) - NGRAM + 1))}
        return sets[id]

    exact = [len(shingles(p["id"]) & shingles(p["kept"])) / len(shingles(p["id"]) | shingles(p["kept"])) for p in pairs]
    print(f"removed: {len(removed)}; least similarity recorded: {min(p['similarity'] for p in pairs):.4f}")
    for least in (0.75, 0.7, 0.5):
        print(f"Jaccard index by \\w+ of at least {least}: {sum(x >= least for x in exact)} of {len(exact)}")


{"job": job, "copies": copies, "daft": daft, "score": score}[sys.argv[1]](*sys.argv[2:])
