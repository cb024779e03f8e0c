"""One dataset of tokens, opened in four ways that agree: `datasets`, DuckDB, `gristmill.Dataset`, `gristmill read`.

usage: python examples/open-tokens.py [DATASET]    (`make interop` runs it on tests/formats/v1/tokens)
"""

import json
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import duckdb
from datasets import load_dataset

from gristmill import Dataset

ROOT = pathlib.Path(__file__).parents[1]
folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "tests/formats/v1/tokens")
gristmill = os.environ.get("GRISTMILL", str(ROOT / "target/debug/gristmill"))
SEQ_LEN = 64

# 1. Hugging Face: the folder as it is; the card says which shard is of which split.
by_datasets = [tokens for tokens in load_dataset(str(folder), split="train")["tokens"]]

# 2. DuckDB: the shards that the newest manifest names.
manifest = json.loads(sorted((folder / "manifest").iterdir())[-1].read_text())
shards = [str(folder / shard["path"]) for shard in manifest["shards"] if shard["split"] == "train"]
by_duckdb = [tokens for (tokens,) in duckdb.sql(f"select tokens from read_parquet({shards})").fetchall()]
assert by_datasets == by_duckdb
print(f"datasets and DuckDB: the same {len(by_duckdb)} documents, {sum(map(len, by_duckdb))} tokens")

# 3. A trainer in Python: sequences of one epoch, in the order of the run.
data = Dataset(folder, seq_len=SEQ_LEN, batch=1, epochs=1, seed=42)
by_dataset = [batch["tokens"][0].tolist() for batch in data]

# 4. The Rust reader.
command = [gristmill, "read", str(folder), "--seq-len", str(SEQ_LEN), "--seed", "42"]
printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
by_reader = [json.loads(line)["tokens"] for line in printed.splitlines()]
assert by_dataset == by_reader
print(f"gristmill.Dataset and gristmill read: the same {len(by_reader)} sequences in the same order")

# An epoch is the stream of all documents, cut: each sequence ends with the token that the next one begins with.
stream = [token for document in by_duckdb for token in document]
cuts = [stream[i : i + SEQ_LEN + 1] for i in range(0, len(stream) - SEQ_LEN, SEQ_LEN)]
assert sorted(cuts) == sorted(by_dataset)
print(f"all four agree: {len(cuts)} sequences of {SEQ_LEN} tokens are the documents, each once")
