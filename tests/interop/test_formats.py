"""Every export is read by the library that it is for, and every import reads what that library wrote: token by token."""

import json

import numpy as np
import pytest

from conftest import LARGE_VOCABULARY, documents, gristmill, random_documents, tokenizer


def export(dataset, output, kind, *more):
    printed = gristmill("export", dataset, "--format", kind, "--output", output, "--json", *more)
    return json.loads(printed)


def dtype(dataset):
    return np.uint16 if "formats" in str(dataset) else np.uint32


def splits(dataset):
    return ["train", "validation"] if "formats" in str(dataset) else ["train"]


def test_megatron_reads_its_export(dataset, tmp_path):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    export(dataset, tmp_path / "out", "megatron")
    for split in splits(dataset):
        found = IndexedDataset(str(tmp_path / "out" / split))
        assert found.index.dtype == (np.uint16 if dtype(dataset) == np.uint16 else np.int32)
        wanted = documents(dataset, split)
        assert [found[i].tolist() for i in range(len(found))] == wanted
        assert found.document_indices.tolist() == list(range(len(wanted) + 1))


def test_numpy_reads_its_export(dataset, tmp_path):
    export(dataset, tmp_path / "out", "nanogpt")
    for split in splits(dataset):
        name = dict(validation="val").get(split, split)
        found = np.memmap(tmp_path / "out" / f"{name}.bin", dtype=dtype(dataset), mode="r")
        assert found.tolist() == sum(documents(dataset, split), [])


@pytest.mark.parametrize("file_size", ["64MiB", "5KiB"])
def test_mosaic_streaming_reads_its_export(dataset, tmp_path, file_size):
    from streaming import LocalDataset

    export(dataset, tmp_path / "out", "mds", "--file-size", file_size)
    for split in splits(dataset):
        found = LocalDataset(str(tmp_path / "out" / split))
        samples = [found[i] for i in range(len(found))]
        assert [sample["tokens"].tolist() for sample in samples] == documents(dataset, split)
        assert samples[0]["tokens"].dtype == dtype(dataset)
        assert len({sample["document_id"] for sample in samples}) == len(samples)


def test_litdata_reads_its_export(dataset, tmp_path):
    from litdata import StreamingDataset, TokensLoader

    exported = export(dataset, tmp_path / "out", "litdata", "--seq-len", 65, "--file-size", "4KiB")
    for split, said in zip(splits(dataset), exported["splits"]):
        found = StreamingDataset(str(tmp_path / "out" / split), item_loader=TokensLoader(block_size=65))
        stream = sum(documents(dataset, split), [])
        wanted = [stream[i : i + 65] for i in range(0, len(stream) - 64, 65)]
        assert [found[i].tolist() for i in range(len(found))] == wanted
        assert said["samples"] == len(wanted) and said["tokens_left_out"] == len(stream) % 65


@pytest.mark.parametrize("file_size", ["64MiB", "20KiB"])
def test_webdataset_reads_its_export(dataset, tmp_path, file_size):
    import webdataset

    exported = export(dataset, tmp_path / "out", "webdataset", "--file-size", file_size)
    for split, said in zip(splits(dataset), exported["splits"]):
        tars = [str(tmp_path / "out" / name) for name in said["files"]]
        samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode())
        assert [sample["tokens.npy"].tolist() for sample in samples] == documents(dataset, split)
        assert len({sample["json"]["document_id"] for sample in samples}) == len(samples)


def test_tfrecord_reads_its_export(dataset, tmp_path):
    from tfrecord.reader import tfrecord_loader

    exported = export(dataset, tmp_path / "out", "tfrecord", "--file-size", "10KiB")
    for split, said in zip(splits(dataset), exported["splits"]):
        found = []
        for name in said["files"]:
            records = tfrecord_loader(str(tmp_path / "out" / name), None, {"tokens": "int"})
            found += [record["tokens"].tolist() for record in records]
        assert found == documents(dataset, split)


def write_megatron(folder, n_vocabulary, rows):
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(str(folder / "train.bin"), DType.optimal_dtype(n_vocabulary))
    for row in rows:
        # Documents of several sentences, too.
        lengths = [len(row)] if len(row) < 400 else [400, len(row) - 400]
        builder.add_document(np.array(row), lengths)
    builder.finalize(str(folder / "train.idx"))


def write_nanogpt(folder, n_vocabulary, rows):
    width = np.uint16 if n_vocabulary <= 1 << 16 else np.uint32
    np.array(sum(rows, []), width).tofile(folder / "train.bin")


def write_mds(folder, n_vocabulary, rows):
    from streaming import MDSWriter

    width = "uint16" if n_vocabulary <= 1 << 16 else "uint32"
    columns = {"tokens": f"ndarray:{width}", "source": "str"}
    with MDSWriter(columns=columns, out=str(folder / "train"), size_limit=50_000) as writer:
        for row in rows:
            writer.write({"tokens": np.array(row, width), "source": "x" * len(row)})


def write_mds_of_bytes(folder, n_vocabulary, rows):
    # As LLM Foundry's convert_dataset_hf.py.
    from streaming import MDSWriter

    with MDSWriter(columns={"tokens": "bytes"}, out=str(folder / "train")) as writer:
        for row in rows:
            writer.write({"tokens": np.array(row, np.int64).tobytes()})


@pytest.mark.parametrize("n_vocabulary", [50_257, LARGE_VOCABULARY])
@pytest.mark.parametrize("write", [write_megatron, write_nanogpt, write_mds, write_mds_of_bytes])
def test_imports_read_what_the_libraries_write(write, n_vocabulary, tmp_path):
    rows = random_documents(n_vocabulary, 2)
    source = tmp_path / "source"
    source.mkdir()
    write(source, n_vocabulary, rows)
    kind = write.__name__.split("_")[1]
    more = ["--token-bytes", 4] if kind == "nanogpt" and n_vocabulary > 1 << 16 else []
    output, path = tmp_path / "tokens", tokenizer(tmp_path, n_vocabulary)
    gristmill("import", source, "--format", kind, "--tokenizer", path, "--output", output, *more)
    assert documents(output) == rows
    gristmill("verify", output, "--deep")
