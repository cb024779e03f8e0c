"""Gristmill's datasets of tokens in Python.

>>> from gristmill import Dataset
>>> for batch in Dataset("corpus/tokens", seq_len=2048, batch=32, epochs=1):
...     batch["tokens"]  # uint32 [32, 2049]: inputs, and the last target

Order and content are those of the Rust reader, bit for bit, whatever the world size and the number of workers.
"""

from __future__ import annotations

from typing import Any, Iterator, Optional

from . import _native

try:
    from torch.utils.data import IterableDataset as _Base
    from torch.utils.data import get_worker_info as _worker_info
except ImportError:  # without PyTorch, a plain iterable
    _Base = object

    def _worker_info() -> None:
        return None


__all__ = ["Dataset"]


class Dataset(_Base):
    """Batches of one split of a dataset of tokens, as a PyTorch ``IterableDataset`` where PyTorch is installed.

    Each item is this rank's part of a global batch, a dict of

    - ``tokens``: uint32 ``[B, seq_len + 1]``, inputs and the last target, without a copy;
    - ``loss_mask``: bool ``[B, seq_len]``, whether each target counts;
    - ``boundaries``: for each row, a uint32 array: where documents begin, and the end of the last one;
    - ``next_sample``: the first global sample that no batch up to this one holds: what a checkpoint keeps.

    In a ``DataLoader``, give ``batch_size=None``: items are batches already. Its workers take turns, so that the order
    is the same for any number of them. The whole batch is the slices of all ranks, one after the other, for any
    ``world_size``, even where it does not divide ``batch``.
    """

    def __init__(
        self,
        path: str,
        *,
        seq_len: int,
        batch: int,
        split: str = "train",
        version: Optional[int] = None,
        seed: int = 42,
        packing: str = "stream",
        mask_documents: bool = False,
        verify: bool = True,
        rank: int = 0,
        world_size: int = 1,
        epochs: Optional[int] = None,
        prefetch: int = 2,
    ) -> None:
        """``epochs``: passes over the split, without end by default; what does not fill a batch at the end is left out.

        ``prefetch``: batches read ahead by a thread, 0 to read each when it is asked for.
        """
        super().__init__()
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of a world of {world_size}")
        if batch < 1:
            raise ValueError(f"a batch of {batch} sequences")
        self._settings = dict(
            path=str(path),
            version=version,
            split=split,
            seq_len=seq_len,
            seed=seed,
            packing=packing,
            mask_documents=mask_documents,
            verify=verify,
        )
        self._batch, self._rank, self._world, self._prefetch = batch, rank, world_size, prefetch
        self._next_sample = 0
        reader = _native.Reader(**self._settings)
        self._manifest_hash = reader.manifest_hash
        # A dataset that grows stays what it was when the run began, also in workers that open it later.
        self._settings["version"] = reader.version
        self._n_sequences = reader.n_sequences
        self._end = None if epochs is None else epochs * self._n_sequences

    @property
    def version(self) -> int:
        """The version that is read."""
        return self._settings["version"]

    @property
    def manifest_hash(self) -> str:
        """BLAKE3 of the manifest that is read."""
        return self._manifest_hash

    @property
    def n_sequences(self) -> int:
        """Sequences per epoch, over all ranks."""
        return self._n_sequences

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Goes on where ``state_dict`` says; the state moves with each batch."""
        worker = _worker_info()
        index, n = (0, 1) if worker is None else (worker.id, worker.num_workers)
        size = self._batch
        # Workers read every n-th batch: this rank and worker are one of `world * n` readers of batches n times as big.
        reader = _native.Reader(**self._settings)
        batches = reader.batches(
            batch=size * n,
            rank=index * self._world + self._rank,
            world=self._world * n,
            next_sample=self._next_sample,
            ahead=self._prefetch,
        )
        while True:
            begin = self._next_sample + index * size
            if self._end is not None and begin + size > self._end:
                return
            batch = next(batches)
            self._next_sample += n * size
            batch["next_sample"] = begin + size
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the manifest, and the first sample that was not yielded.

        In the process of a ``DataLoader`` with workers nothing is yielded: use ``state_at(item["next_sample"])`` there.
        """
        return self.state_at(self._next_sample)

    def state_at(self, next_sample: int) -> dict[str, Any]:
        """The state after the batch that has this ``next_sample``."""
        return {"manifest_hash": self._manifest_hash, "next_sample": int(next_sample)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from ``state``, with any world size and number of workers.

        Raises ``ValueError`` where it was made with another manifest: the rest of the run would see other sequences.
        """
        if state["manifest_hash"] != self._manifest_hash:
            raise ValueError(
                f"version {self.version} of `{self._settings['path']}` has manifest {self._manifest_hash}, "
                f"the checkpoint was made with {state['manifest_hash']}; "
                "give the version of the dataset that the run began with"
            )
        self._next_sample = int(state["next_sample"])
