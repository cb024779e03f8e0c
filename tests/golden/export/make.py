"""Makes the files in this folder with the libraries that read them: what exports are compared with, byte by byte.

usage: python make.py, in the environment that `make interop` sets up. Same versions, same bytes.
"""

import io
import pathlib
import shutil
import tarfile

import litdata
import megatron.core
import numpy as np
import streaming
import tfrecord
import webdataset
from litdata.streaming.item_loader import TokensLoader
from litdata.streaming.writer import BinaryWriter
from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder
from streaming import MDSWriter

HERE = pathlib.Path(__file__).parent
# Documents of two vocabularies: one whose ids fit 16 bits, one whose ids do not.
SMALL = (1000, [[1, 2, 3], [999], [5, 6, 7, 8, 9]])
LARGE = (100_000, [[1, 99_999], [70_000]])


def megatron_files(folder, n_vocabulary, documents):
    builder = IndexedDatasetBuilder(str(folder / "train.bin"), DType.optimal_dtype(n_vocabulary))
    for tokens in documents:
        builder.add_document(np.array(tokens), [len(tokens)])
    builder.finalize(str(folder / "train.idx"))


def nanogpt_files(folder, n_vocabulary, documents):
    # As data/openwebtext/prepare.py writes: one flat array.
    dtype = np.uint16 if n_vocabulary <= 1 << 16 else np.uint32
    np.concatenate([np.array(tokens, dtype) for tokens in documents]).tofile(folder / "train.bin")


def mds_files(folder, n_vocabulary, documents):
    dtype = "uint16" if n_vocabulary <= 1 << 16 else "uint32"
    columns = {"tokens": f"ndarray:{dtype}", "document_id": "str"}
    with MDSWriter(columns=columns, out=str(folder / "train"), size_limit=1 << 26) as writer:
        for number, tokens in enumerate(documents):
            writer.write({"tokens": np.array(tokens, dtype), "document_id": f"{number:032x}"})


def litdata_files(folder, n_vocabulary, documents):
    dtype = np.uint16 if n_vocabulary <= 1 << 16 else np.uint32
    writer = BinaryWriter(str(folder / "train"), chunk_bytes=1 << 26, item_loader=TokensLoader())
    for number, tokens in enumerate(documents):
        writer[number] = np.array(tokens, dtype)
    writer.done()
    writer.merge()


def webdataset_files(folder, n_vocabulary, documents):
    dtype = np.uint16 if n_vocabulary <= 1 << 16 else np.uint32
    with tarfile.open(folder / "train-000000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, tokens in enumerate(documents):
            array = io.BytesIO()
            np.save(array, np.array(tokens, dtype))
            key = f"{number:012}"
            for name, data in [
                (f"{key}.tokens.npy", array.getvalue()),
                (f"{key}.json", b'{"document_id":"%032x"}' % number),
            ]:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                member.mode = 0o444
                tar.addfile(member, io.BytesIO(data))


def tfrecord_files(folder, n_vocabulary, documents):
    writer = tfrecord.TFRecordWriter(str(folder / "train-000000.tfrecord"))
    for tokens in documents:
        writer.write({"tokens": (tokens, "int")})
    writer.close()


def main():
    made = dict(
        litdata=litdata_files,
        mds=mds_files,
        megatron=megatron_files,
        nanogpt=nanogpt_files,
        tfrecord=tfrecord_files,
        webdataset=webdataset_files,
    )
    for name, make in made.items():
        for size, (n_vocabulary, documents) in dict(small=SMALL, large=LARGE).items():
            folder = HERE / name / size
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            make(folder, n_vocabulary, documents)
    versions = {m.__name__: m.__version__ for m in [litdata, megatron.core, np, streaming, webdataset]}
    (HERE / "versions.txt").write_text("".join(f"{k} {v}\n" for k, v in versions.items()) + "tfrecord 1.14.6\n")


main()
