#!/usr/bin/env python3
"""Trains the classifier of `extract_html` and writes `ingest/data/extract-main.bin`. The command is in `ingest/data/README.md`.

extract-train.py BLOCKS WCXB MODEL: BLOCKS is the command of `ingest/examples/extract_blocks.rs`, WCXB an unpacked folder of the Web Content
Extraction Benchmark. The 200 pages whose ids have the smallest SHA-1 are never read. Needs lightgbm 4.7.0 and numpy 2.4.6; same
versions, same bytes.
"""

import hashlib
import json
import re
import struct
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import lightgbm
import numpy as np

HELD_OUT = 200
FOLDS = 4
SHINGLE = 4
# A short block is looked for this many words around the long ones beside it.
REACH = 30
# Leaf values and logits are written in 4096ths.
SCALE = 4096
COMMON = dict(
    objective="cross_entropy", min_data_in_leaf=40, feature_fraction=0.3, bagging_fraction=0.7, bagging_freq=1,
    lambda_l2=5.0, max_bin=63, seed=1, deterministic=True, force_row_wise=True, num_threads=2, verbose=-1,
)
FIRST = dict(COMMON, num_leaves=16, learning_rate=0.12)
SECOND = dict(COMMON, num_leaves=24, learning_rate=0.08)
FIRST_TREES, SECOND_TREES = 60, 100


def words(text):
    return re.findall(r"\w+", text.lower())


def align(blocks, truth):
    """Returns for each block the share of its words that stand in `truth`, each of whose words counts once."""
    used = np.zeros(len(truth), bool)
    shingles, singles = defaultdict(list), defaultdict(list)
    for at, word in enumerate(truth):
        singles[word].append(at)
        if at + SHINGLE <= len(truth):
            shingles[tuple(truth[at:at + SHINGLE])].append(at)
    labels, places, last = np.zeros(len(blocks)), [None] * len(blocks), 0
    for index, block in enumerate(blocks):
        hit, found, previous = np.zeros(len(block), bool), [], None
        for start in range(len(block) - SHINGLE + 1):
            places_of = shingles.get(tuple(block[start:start + SHINGLE]), [])
            following = None if previous is None else previous + 1
            if following in places_of and not used[following + SHINGLE - 1]:
                previous = following
            else:
                free = [at for at in places_of if not used[at]]
                previous = min(free, key=lambda at: abs(at - last)) if free else None
            if previous is not None:
                hit[start:start + SHINGLE] = True
                found.append(previous)
        for at in found:
            used[at:at + SHINGLE] = True
        labels[index] = hit.mean() if len(block) else 0
        if labels[index] > 0.5:
            places[index], last = (min(found), max(found) + SHINGLE), found[-1] + SHINGLE
    is_anchored = any(places)
    for index, block in enumerate(blocks):
        if not 0 < len(block) < SHINGLE:
            continue
        before = next((places[at][1] for at in range(index - 1, -1, -1) if places[at]), None)
        after = next((places[at][0] for at in range(index + 1, len(blocks)) if places[at]), None)
        best = None
        for at in singles[block[0]]:
            if truth[at:at + len(block)] != block or used[at:at + len(block)].any():
                continue
            far = [abs(at - before)] if before is not None else []
            far += [abs(after - at - len(block))] if after is not None else []
            distance = min(far, default=0 if not is_anchored else REACH + 1)
            if best is None or distance < best[0]:
                best = (distance, at)
        if best and best[0] <= REACH:
            labels[index], at = 1, best[1]
            used[at:at + len(block)] = True
            places[index] = (at, at + len(block))
    return labels


class Page:
    def __init__(self, blocks, wcxb, name):
        truth = json.loads((wcxb / "ground-truth" / f"{name}.json").read_text())["ground_truth"]
        texts = [words(text) for text in json.loads((blocks / f"{name}.json").read_text())]
        self.name = name
        features = np.fromfile(blocks / f"{name}.features", np.uint8)
        self.features = features.reshape(len(texts), -1) if texts else None
        self.labels = align(texts, words(truth["main_content"] or "") if "main_content" in truth else [])
        # The measure is of words, but a page of many counts no more than one of few.
        weights = np.minimum([len(text) for text in texts], 400) + 2.0
        self.weights = weights / max(weights.sum(), 1.0) ** 0.5


def fit(pages, rows, parameters, n_trees):
    weights = np.concatenate([page.weights for page in pages])
    labels = np.concatenate([page.labels for page in pages])
    data = lightgbm.Dataset(np.concatenate(rows), labels, weight=weights / weights.mean())
    return lightgbm.train(parameters, data, n_trees)


def ensemble(model):
    """A number of trees; per tree its number of splits, for each `feature, limit, left, right` and the leaves' values.

    A value of at most `limit` goes left. A child below zero is the leaf `-1 - child`.
    """
    trees = model.dump_model()["tree_info"]
    out = [struct.pack("<I", len(trees))]
    for tree in trees:
        splits, leaves = {}, {}

        def visit(node):
            if "split_index" not in node:
                leaves[node.get("leaf_index", 0)] = node["leaf_value"]
                return -1 - node.get("leaf_index", 0)
            children = visit(node["left_child"]), visit(node["right_child"])
            splits[node["split_index"]] = (node["split_feature"], int(node["threshold"] // 1), *children)
            return node["split_index"]

        visit(tree["tree_structure"])
        out.append(struct.pack("<B", len(splits)))
        out += [struct.pack("<BBbb", *splits[index]) for index in range(len(splits))]
        out += [struct.pack("<h", round(leaves[index] * SCALE)) for index in range(len(leaves))]
    return b"".join(out)


def quantized(logits):
    return np.searchsorted(CUTS, np.round(logits * SCALE), side="right").astype(np.uint8)


# A logit scores as many 255ths as there are cuts up to it: the logistic function, rounded.
CUTS = np.round([np.log(p / (1 - p)) * SCALE for p in (np.arange(255) + 0.5) / 255]).astype(np.int64)


def main():
    command, wcxb, path = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    names = sorted((file.stem for file in (wcxb / "ground-truth").iterdir()), key=lambda name: hashlib.sha1(name.encode()).digest())
    with tempfile.TemporaryDirectory() as folder:
        blocks = Path(folder)
        subprocess.run([command, wcxb / "html", blocks], check=True)
        pages = [Page(blocks, wcxb, name) for name in names[HELD_OUT:]]
        pages = [page for page in pages if page.features is not None]
        for fold in range(FOLDS):
            rest = [page for index, page in enumerate(pages) if index % FOLDS != fold]
            model = fit(rest, [page.features for page in rest], FIRST, FIRST_TREES)
            for page in pages[fold::FOLDS]:
                quantized(model.predict(page.features, raw_score=True)).tofile(blocks / f"{page.name}.scores")
        first = fit(pages, [page.features for page in pages], FIRST, FIRST_TREES)
        subprocess.run([command, wcxb / "html", blocks], check=True)
        rows = []
        for page in pages:
            context = np.fromfile(blocks / f"{page.name}.context", np.uint8).reshape(len(page.labels), -1)
            rows.append(np.concatenate([page.features, context], axis=1))
    second = fit(pages, rows, SECOND, SECOND_TREES)
    cuts = struct.pack("<255i", *CUTS)
    path.write_bytes(cuts + ensemble(first) + ensemble(second))
    print(f"{len(pages)} pages, {sum(len(page.labels) for page in pages)} blocks, {path.stat().st_size} bytes")


main()
