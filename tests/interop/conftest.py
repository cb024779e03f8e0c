"""Datasets that the checks of this folder export, and the environment that the libraries want."""

import json
import os
import pathlib
import subprocess

import numpy as np
import pyarrow.parquet as pq
import pytest

# streaming looks for other processes of the same run.
os.environ.setdefault("WORLD_SIZE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = pathlib.Path(__file__).parents[2]
FROZEN = ROOT / "tests/formats/v1"
GRISTMILL = os.environ.get("GRISTMILL", str(ROOT / "target/debug/gristmill"))
LARGE_VOCABULARY = 100_000


def gristmill(*arguments):
    command = [GRISTMILL, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, f"{command}: {run.stderr}"
    return run.stdout


def manifest(dataset):
    return json.loads(sorted((dataset / "manifest").iterdir())[-1].read_text())


def shards(dataset, split=None):
    listed = manifest(dataset)["shards"]
    return [dataset / shard["path"] for shard in listed if split in (None, shard["split"])]


def documents(dataset, split="train"):
    """Token lists as PyArrow reads them: what every export is compared with."""
    return [row for shard in shards(dataset, split) for row in pq.read_table(shard)["tokens"].to_pylist()]


def tokenizer(folder, n):
    """A tokenizer of `n` tokens whose last one ends documents."""
    vocabulary = {("<|endoftext|>" if i == n - 1 else f"t{i}"): i for i in range(n)}
    special = dict(id=n - 1, content="<|endoftext|>", special=True)
    special |= dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    model = dict(type="BPE", vocab=vocabulary, merges=[])
    path = folder / f"tokenizer-{n}.json"
    path.write_text(json.dumps(dict(version="1.0", added_tokens=[special], model=model)))
    return path


def random_documents(n_vocabulary, seed):
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 900, 500)
    rows = [random.integers(0, n_vocabulary - 1, length).tolist() for length in lengths]
    return [row + [n_vocabulary - 1] for row in rows]


@pytest.fixture(scope="session")
def large(tmp_path_factory):
    """A dataset whose ids need more than 16 bits."""
    folder = tmp_path_factory.mktemp("large")
    np.array(sum(random_documents(LARGE_VOCABULARY, 1), []), np.uint32).tofile(folder / "train.bin")
    output = folder / "tokens"
    path = tokenizer(folder, LARGE_VOCABULARY)
    gristmill("import", folder, "--format", "nanogpt", "--tokenizer", path, "--token-bytes", 4, "--output", output)
    return output


@pytest.fixture(params=["frozen", "large"])
def dataset(request, large):
    return FROZEN / "tokens" if request.param == "frozen" else large
