"""The peer of read_speed.rs: litdata 0.2.76 reads the same tokens in sequences of 2,048, in 32 per batch, shuffled.

    pip install litdata==0.2.76
    python read_speed_litdata.py FOLDER.u32 SCRATCH [WORKERS]

Prints sequences per CPU second of this process and its workers; making litdata's copy is not counted.
"""

import os
import resource
import sys
import time

import numpy
import torch
from litdata import StreamingDataLoader, StreamingDataset, TokensLoader, optimize

SEQ_LEN = 2048


def cpu():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def tokens(part):
    path, start, end = part
    ids = numpy.memmap(path, dtype=numpy.uint32, mode="r")[start:end]
    yield torch.from_numpy(ids.astype(numpy.int32))


if __name__ == "__main__":
    source, scratch = sys.argv[1:3]
    workers = int(sys.argv[3]) if len(sys.argv) > 3 else 2
    if not os.path.isdir(scratch):
        n = os.path.getsize(source) // 4
        step = 1 << 20
        parts = [(source, i, min(n, i + step)) for i in range(0, n, step)]
        optimize(tokens, parts, scratch, chunk_bytes="64MB", num_workers=1, item_loader=TokensLoader())
    before, started = cpu(), time.time()
    dataset = StreamingDataset(scratch, item_loader=TokensLoader(block_size=SEQ_LEN + 1), shuffle=True)
    loader = StreamingDataLoader(dataset, batch_size=32, num_workers=workers)
    count = total = 0
    for batch in loader:
        count += batch.shape[0]
        total += int(batch.sum())
    # Workers count once they have ended.
    del loader
    time.sleep(1)
    used = cpu() - before
    print(f"{count} sequences, {time.time() - started - 1:.2f} s wall, {used:.2f} CPU s: {count / used:.0f} sequences/CPU-s (sum {total})")
