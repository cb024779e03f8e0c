#!/usr/bin/env python3
"""Prints docs/filters.md: what every filter and modifier, with its defaults, finds in the demo's documents.

    make demo
    scripts/filters-page.py target/debug/gristmill demo/raw > docs/filters.md
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

GRISTMILL, RAW = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "demo"
HEAD = """# What filters find

Every step alone, with its defaults, over the documents of the demo (`make demo`): {pages} pages of its site as `extract_html` leaves them and
{rest} other documents, {n} in all. In a job a step sees only what the ones before it kept. A step that needs a model or a list of yours is
not here. Numbers, sources and keys of each are in the [reference](reference.md); figures on a larger corpus in
[benchmarks](benchmarks.md#filters-by-name). Made by `scripts/filters-page.py`.
"""


def gristmill(*arguments):
    done = subprocess.run([GRISTMILL, *map(str, arguments)], capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else None


def ask(corpus, statement):
    return gristmill("sql", "--corpus", corpus, "--format", "json", "-c", statement)


def cell(value):
    return " ".join(str(value).split()).replace("|", "\\|")


with tempfile.TemporaryDirectory() as scratch:
    job = Path(scratch) / "job.toml"
    sources = [("warc", RAW / "*.warc.gz"), ("text", EXAMPLES / "books"), ("jsonl", EXAMPLES / "extra.jsonl")]
    job.write_text(
        f'name = "all"\noutput = "{scratch}/corpus"\n'
        + "".join(f'[[source]]\nkind = "{kind}"\npath = "{path}"\n' for kind, path in sources)
        + '[[step]]\nuse = "extract_html"\nkinds = ["web"]\n'
    )
    subprocess.run([GRISTMILL, "run", job, "--quiet"], check=True)
    corpus = Path(scratch) / "corpus"
    [counts] = ask(corpus, "select count(*) as n, count(*) filter (where kind = 'web') as pages from documents")
    print(HEAD.format(n=counts["n"], pages=counts["pages"], rest=counts["n"] - counts["pages"]), end="")
    place = "coalesce(regexp_replace(url, '^.*/', ''), regexp_replace(locator, '^.*/', ''))"
    for step in gristmill("list", "steps", "--json")["steps"]:
        name = step["name"]
        if name == "extract_html":
            continue
        title = f"\n## {name}\n\n{step['summary'][0].upper()}{step['summary'][1:]}. [Reference](reference.md#{name})\n\n"
        rows = ask(
            corpus,
            f"select v['reason'] as reason, count(*) as n, min({place}) as example from"
            f" (select {name}(text) as v, url, locator from documents) group by 1 order by n desc, 1",
        )
        if rows is not None:
            dropped = [row for row in rows if row.get("reason") is not None]
            if any(row["reason"].startswith("no_") for row in dropped):
                continue
            print(title + f"Drops {sum(row['n'] for row in dropped)} of {counts['n']}.", end="\n" if dropped else "\n")
            if dropped:
                print("\n| reason | documents | one of them |\n|---|---|---|")
            for row in dropped:
                print(f"| `{row['reason']}` | {row['n']} | {cell(row['example'])} |")
            continue
        rows = ask(
            corpus,
            f"select count(*) as n, sum(abs(cast(octet_length(t) as bigint) - cast(octet_length(text) as bigint))) as bytes,"
            f" min({place}) as example from (select {name}(text) as t, text, url, locator from documents) where t <> text",
        )
        if rows is None:
            continue
        [row] = rows
        changed = f"Changes {row['n']} of {counts['n']}"
        print(title + changed + (f", by {row['bytes']} bytes in all; one of them is {cell(row['example'])}." if row["n"] else "."))
