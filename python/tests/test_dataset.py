"""The Python reader against the Rust one: `gristmill read` prints what it gives."""

import itertools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from gristmill import Dataset

ROOT = pathlib.Path(__file__).parents[2]
GRISTMILL = os.environ.get("GRISTMILL", str(ROOT / "target/debug/gristmill"))
TOKENS = os.environ.get("GRISTMILL_TOKENS", str(ROOT / "tests/formats/v1/tokens"))
SEQ_LEN, BATCH, N = 32, 6, 60  # more than an epoch of the frozen dataset: 254 sequences


def read_by_rust(*more):
    command = [GRISTMILL, "read", TOKENS, "--seq-len", str(SEQ_LEN), "--batch", str(BATCH), "--batches", str(N)]
    printed = subprocess.run([*command, *more], check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in printed.splitlines()]


def dataset(**more):
    return Dataset(TOKENS, **{**dict(seq_len=SEQ_LEN, batch=BATCH), **more})


def take(iterable, n):
    return list(itertools.islice(iterable, n))


def rows(batches):
    return [row for batch in batches for row in np.asarray(batch["tokens"]).tolist()]


@pytest.mark.parametrize("packing", ["stream", "best_fit"])
@pytest.mark.parametrize("prefetch", [0, 2, 8])
def test_batches_are_those_of_the_rust_reader(packing, prefetch):
    expected = read_by_rust("--packing", packing, "--mask-documents")
    batches = take(dataset(packing=packing, mask_documents=True, prefetch=prefetch), N)
    found = [
        (tokens, mask, bounds)
        for batch in batches
        for tokens, mask, bounds in zip(
            batch["tokens"].tolist(), batch["loss_mask"].tolist(), [b.tolist() for b in batch["boundaries"]]
        )
    ]
    assert found == [(row["tokens"], row["loss_mask"], row["boundaries"]) for row in expected]


@pytest.mark.parametrize("world", [2, 3, 4, 5])
def test_ranks_together_are_the_global_batch(world):
    whole = rows(take(dataset(), N))
    ranks = [take(dataset(rank=rank, world_size=world), N) for rank in range(world)]
    for rank, batches in enumerate(ranks):
        of_rust = read_by_rust("--rank", str(rank), "--world", str(world))
        assert rows(batches) == [row["tokens"] for row in of_rust]
    together = [row for parts in zip(*ranks) for row in rows(parts)]
    assert together == whole


def test_arrays_are_not_copied():
    batch = next(iter(dataset()))
    tokens = batch["tokens"]
    assert (tokens.dtype, tokens.shape) == (np.uint32, (BATCH, SEQ_LEN + 1))
    assert (batch["loss_mask"].dtype, batch["loss_mask"].shape) == (np.bool_, (BATCH, SEQ_LEN))
    owner = tokens
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    assert type(owner.base).__name__ == "PySliceContainer", "the memory is that of the reader"
    assert tokens.flags.writeable and tokens.flags.c_contiguous


@pytest.mark.parametrize("stop", [1, 17, 43])
def test_a_run_goes_on_where_it_stopped_with_another_world(stop):
    whole = rows(take(dataset(), N))
    first = dataset()
    seen = rows(take(first, stop))
    state = json.loads(json.dumps(first.state_dict()))
    parts = []
    for rank in range(2):
        second = dataset(rank=rank, world_size=2)
        second.load_state_dict(state)
        parts.append(take(second, N - stop))
    assert seen + [row for pair in zip(*parts) for row in rows(pair)] == whole


def test_every_sequence_is_in_an_epoch_once():
    data = dataset(batch=1, epochs=1)
    found = rows(data)
    assert len(found) == data.n_sequences == len({tuple(row) for row in found})


def test_a_state_of_another_manifest_is_refused():
    data = dataset()
    with pytest.raises(ValueError, match=f"{data.manifest_hash}.*made with abc"):
        data.load_state_dict({"manifest_hash": "abc", "next_sample": 0})


def test_what_cannot_be_read_is_named():
    with pytest.raises(ValueError, match="splits `train`, `validation`"):
        dataset(split="test")
    with pytest.raises(ValueError, match="a dataset in"):
        Dataset("nowhere", seq_len=8, batch=1)
    with pytest.raises(ValueError, match="rank 3 of a world of 3"):
        dataset(rank=3, world_size=3)


def test_pytorch_is_not_needed():
    code = "import sys; sys.modules['torch'] = None\nimport gristmill; print(gristmill.Dataset.__mro__[1].__name__)"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "object"


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_workers_of_a_loader_do_not_change_the_order(workers):
    torch = pytest.importorskip("torch")
    data = dataset(epochs=1, prefetch=0)
    assert isinstance(data, torch.utils.data.IterableDataset)
    loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=workers)
    batches = list(loader)
    expected = list(dataset(epochs=1))
    assert batches[0]["tokens"].dtype == torch.uint32
    assert [batch["next_sample"] for batch in batches] == [batch["next_sample"] for batch in expected]
    assert rows(batches) == rows(expected)
    # A checkpoint of the process that trains, in the middle of an epoch.
    state = data.state_at(batches[4]["next_sample"])
    again = dataset(epochs=1, prefetch=0)
    again.load_state_dict(state)
    loader = torch.utils.data.DataLoader(again, batch_size=None, num_workers=workers)
    assert rows(loader) == rows(expected[5:])
