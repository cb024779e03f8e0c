"""The folder of a dataset opens unchanged in the tools that people have."""

import json
import shutil

import pytest

from conftest import FROZEN, documents, gristmill, manifest, shards

COLUMNS = {"documents": "text", "dropped": "reason", "edits": "rule", "tokens": "n_tokens"}


@pytest.fixture(params=sorted(COLUMNS))
def folder(request):
    return FROZEN / request.param


def rows(folder):
    return sum(shard["rows"] for shard in manifest(folder)["shards"])


def test_hugging_face_datasets_opens_all_but_documents(folder, tmp_path):
    from datasets import load_dataset

    if folder.name == "documents":
        # Arrow's map, the type of `metadata`, is the one column that `datasets` 5.2 has no type for.
        with pytest.raises(ValueError, match="map<.*does not have a datasets dtype"):
            load_dataset(str(folder), cache_dir=str(tmp_path))
        return
    found = load_dataset(str(folder), cache_dir=str(tmp_path))
    by_split = {}
    for shard in manifest(folder)["shards"]:
        by_split[shard["split"]] = by_split.get(shard["split"], 0) + shard["rows"]
    assert {name: split.num_rows for name, split in found.items()} == by_split
    if folder.name == "tokens":
        for split in by_split:
            assert found[split]["tokens"][:] == documents(folder, split)


def test_duckdb_opens_it(folder):
    import duckdb

    column = COLUMNS[folder.name]
    query = f"select count(*), count({column}) from read_parquet('{folder}/data/*.parquet')"
    assert duckdb.sql(query).fetchall() == [(rows(folder), rows(folder))]


def test_pandas_opens_it(folder):
    import pandas

    found = pandas.concat([pandas.read_parquet(shard) for shard in shards(folder)])
    assert len(found) == rows(folder) and found[COLUMNS[folder.name]].notna().all()


def test_polars_opens_it(folder):
    import polars

    found = polars.scan_parquet(shards(folder)).collect()
    assert found.height == rows(folder) and found[COLUMNS[folder.name]].null_count() == 0


def test_tools_agree_on_every_token():
    import duckdb
    import pandas
    import polars

    folder = FROZEN / "tokens"
    for split in ["train", "validation"]:
        wanted = documents(folder, split)
        paths = [str(path) for path in shards(folder, split)]
        assert [row[0] for row in duckdb.sql(f"select tokens from read_parquet({paths})").fetchall()] == wanted
        assert [row.tolist() for path in paths for row in pandas.read_parquet(path)["tokens"]] == wanted
        assert polars.read_parquet(paths)["tokens"].to_list() == wanted


@pytest.mark.parametrize("name", ["documents", "tokens"])
def test_croissant_is_valid_and_gives_the_rows(name, tmp_path):
    import mlcroissant

    # A corpus of this build: the frozen one is older than its description.
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": f"Text {n} of a few words."}) + "\n" for n in range(9)))
    (tmp_path / "job.toml").write_text(
        'name = "croissant"\noutput = "corpus"\n[[source]]\nkind = "jsonl"\npath = "texts.jsonl"\n'
        '[shard]\ntokenizer = "train:bpe:300"\n'
    )
    gristmill("run", tmp_path / "job.toml", "--quiet")
    folder = tmp_path / "corpus" / name
    found = mlcroissant.Dataset(jsonld=str(folder / "croissant.json"))
    assert not found.metadata.ctx.issues.errors
    records = list(found.records(record_set=name))
    assert len(records) == rows(folder) == 9
    if name == "tokens":
        tokens = [[int(token) for token in record["tokens/tokens"]] for record in records]
        assert tokens == documents(folder)
    shutil.rmtree(folder)
