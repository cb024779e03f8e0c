#!/usr/bin/env python3
"""Near-duplicates beside a peer, on a corpus that make_corpus.py made (`text/documents/*.jsonl.gz`, `truth_dups.jsonl`).

  dedup-bench.py job CORPUS OUTPUT [MEMORY [MINHASH]]   prints the job that is measured
  dedup-bench.py spans CORPUS OUTPUT MEMORY METHOD CONFIG prints a job of one method that finds spans, with its settings as TOML
  dedup-bench.py all CORPUS OUTPUT MEMORY MMLU          prints a job of every method, and of MMLU's questions in the folder MMLU
  dedup-bench.py dolma CORPUS OUTPUT                    dolma's paragraphs, to be run with its Python
  dedup-bench.py copies N OUTPUT                        prints a file of N equal pages, JSON lines
  dedup-bench.py daft CORPUS                            Daft's signatures and the same buckets and clusters in Python
  dedup-bench.py score CORPUS OUTPUT [GRISTMILL]        recall by kind of planted copy, and Jaccard indices of the removed
  dedup-bench.py curve CORPUS OUTPUT [GRISTMILL]        prints an SVG: the curves of three settings, and what planted pairs of the
                                                        signatures in OUTPUT (14 bands of 8 rows) do
  dedup-bench.py peak COMMAND...                        runs a command and tells its CPU seconds and the peak of its anonymous memory,
                                                        after which line of its log

Daft 0.7.26 and dolma 1.2.1, from PyPI; the other commands need Python alone.
"""

import glob
import gzip
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time

BANDS, ROWS, NGRAM = 14, 8, 5
WORD = re.compile(r"\w+")


def job(corpus, output, memory="2GiB", minhash="{ ngram = 5, bands = 14, rows = 8, verify = 0.75 }"):
    print(f"""name = "dedup-bench"
output = "{os.path.abspath(output)}"
memory = "{memory}"
[[source]]
kind = "jsonl"
path = "{os.path.abspath(corpus)}/text/documents/*.jsonl.gz"
[dedup]
methods = ["minhash"]
minhash = {minhash}""")


def source(corpus, output, memory):
    print(f"""name = "dedup-bench"
output = "{os.path.abspath(output)}"
memory = "{memory}"
[[source]]
kind = "jsonl"
path = "{os.path.abspath(corpus)}/text/documents/*.jsonl.gz"
[dedup]""")


def spans(corpus, output, memory, method, config):
    source(corpus, output, memory)
    print(f'methods = ["{method}"]\n{method} = {config}')


def all_methods(corpus, output, memory, mmlu):
    source(corpus, output, memory)
    print(f"""methods = ["url", "exact", "minhash", "paragraph", "sentence_span", "substring"]
[decontaminate]
profile = "gpt3"
benchmarks = [{{ name = "mmlu", path = "{os.path.abspath(mmlu)}/test/*.csv", query = "question", answer = ["choice0", "choice1", "choice2", "choice3"] }}]""")


def dolma(corpus, output):
    # Its attributes lie beside its documents.
    folder = os.path.abspath(output)
    os.makedirs(f"{folder}/documents")
    files = sorted(glob.glob(f"{os.path.abspath(corpus)}/text/documents/*.gz"))
    for path in files:
        os.symlink(path, f"{folder}/documents/{os.path.basename(path)}")
    n = sum(1 for path in files for _ in gzip.open(path))
    with open(f"{folder}/config.yaml", "w") as config:
        config.write(f"""documents: ["{folder}/documents/*.gz"]
dedupe: {{name: par, paragraphs: {{attribute_name: dup}}, skip_empty: true}}
bloom_filter: {{file: "{folder}/bloom.bin", read_only: false, estimated_doc_count: {60 * n}, desired_false_positive_rate: 0.00001}}
processes: 2
""")
    command = [os.path.join(os.path.dirname(sys.executable), "dolma"), "-c", f"{folder}/config.yaml", "dedupe"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = 0
    for path in glob.glob(f"{folder}/attributes/par/*.gz"):
        found += sum(len(json.loads(line)["attributes"].get("dup", [])) for line in gzip.open(path))
    seconds = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    print(f"{seconds:.2f} CPU s, {time.monotonic() - started:.1f} s, resident {used.ru_maxrss / 1024:.0f} MiB, {found} spans")


def copies(n, _output=None):
    text = " ".join(f"word{i * i % 997}" for i in range(120))
    for i in range(int(n)):
        print(json.dumps({"id": str(i), "text": text}))


def daft(corpus):
    import daft
    from daft import col
    from daft import functions as F

    df = daft.read_json(f"{corpus}/text/documents/*.jsonl.gz").select("id", "text")
    words = col("text").lower().regexp_replace(r"[^\w]+", " ")
    hashes = F.minhash(words, num_hashes=BANDS * ROWS, ngram_size=NGRAM, seed=1, hash_function="xxhash")
    table = df.select("id", hashes.alias("hashes")).to_pydict()
    parent = list(range(len(table["id"])))

    def root(i):
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for band in range(BANDS):
        first = {}
        for i, hashes in enumerate(table["hashes"]):
            j = first.setdefault(tuple(hashes[band * ROWS:(band + 1) * ROWS]), i)
            if j != i:
                parent[max(root(i), root(j))] = min(root(i), root(j))
    print(sum(root(i) != i for i in range(len(parent))), "of", len(parent), "removed")


def score(corpus, output, gristmill="gristmill"):
    text, truth = {}, [json.loads(line) for line in open(f"{corpus}/truth_dups.jsonl")]
    for path in sorted(glob.glob(f"{corpus}/text/documents/*.jsonl.gz")):
        for line in gzip.open(path, "rt"):
            row = json.loads(line)
            text[row["id"]] = row["text"]
    sql = """select d.metadata['id'] as id, k.metadata['id'] as kept, x.similarity from duplicates x
             join documents d on d.id = x.id join documents k on k.id = x.kept_id"""
    answer = subprocess.run([gristmill, "sql", "--corpus", output, "-c", sql, "--format", "ndjson"], check=True, stdout=subprocess.PIPE, text=True)
    pairs = [json.loads(line) for line in answer.stdout.splitlines()]
    removed = {pair["id"] for pair in pairs}
    kinds = {}
    for copy in truth:
        found = kinds.setdefault(copy["kind"], [0, 0])
        found[0] += copy["id"] in removed or copy["orig"] in removed
        found[1] += 1
    for kind, (found, planted) in sorted(kinds.items()):
        print(f"{kind}: {found} of {planted}")
    sets = {}

    def shingles(id):
        if id not in sets:
            words = WORD.findall(text[id].lower())
            sets[id] = {tuple(words[i:i + NGRAM]) for i in range(max(1, len(words) - NGRAM + 1))}
        return sets[id]

    exact = [len(shingles(p["id"]) & shingles(p["kept"])) / len(shingles(p["id"]) | shingles(p["kept"])) for p in pairs]
    print(f"removed: {len(removed)}; least similarity recorded: {min(p['similarity'] for p in pairs):.4f}")
    for least in (0.75, 0.7, 0.5):
        print(f"Jaccard index by \\w+ of at least {least}: {sum(x >= least for x in exact)} of {len(exact)}")


# Settings whose signatures are those of 14 x 8, or begin them: a signature takes its hashes in order.
SETTINGS = [("FineWeb's 14 x 8", 14, 8, "#0b6e99"), ("18 x 6, for verify = 0.75", 18, 6, "#c2410c"), ("37 x 3, for verify = 0.5", 37, 3, "#3f7d20")]


def curve(corpus, output, gristmill="gristmill"):
    # Pairs by the index that `verify` compares, in steps of a twentieth; equal texts share every band.
    sql = f"""select jaccard(a.text, b.text) as similarity, array_to_string(s.signature, ' ') as a, array_to_string(t.signature, ' ') as b
              from jsonl('{os.path.abspath(corpus)}/truth_dups.jsonl') p
              join documents a on a.metadata['id'] = p.metadata['id'] join signatures s on s.id = a.id
              join documents b on b.metadata['id'] = p.metadata['orig'] join signatures t on t.id = b.id"""
    rows = subprocess.Popen([gristmill, "sql", "--corpus", output, "-c", sql, "--format", "ndjson"], stdout=subprocess.PIPE, text=True)
    bins = {}
    for pair in map(json.loads, rows.stdout):
        if pair["similarity"] < 1:
            bins.setdefault(int(pair["similarity"] * 20), []).append((pair["similarity"], pair["a"].split(), pair["b"].split()))
    assert rows.wait() == 0
    left, top, width, height = 60, 20, 560, 320
    x = lambda similarity: left + similarity * width
    y = lambda share: top + (1 - share) * height
    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 420" font-family="sans-serif" font-size="12">',
           "<title>Probability that two documents share a band, by their Jaccard index</title>",
           '<rect width="640" height="420" fill="#ffffff"/>']
    for step in range(0, 11, 2):
        at = step / 10
        out.append(f'<path d="M{x(0):.0f} {y(at):.0f}H{x(1):.0f}M{x(at):.0f} {y(0):.0f}V{y(1):.0f}" stroke="#dddddd" fill="none"/>')
        out.append(f'<text x="{x(0) - 8:.0f}" y="{y(at) + 4:.0f}" text-anchor="end">{100 * at:.0f} %</text>')
        out.append(f'<text x="{x(at):.0f}" y="{y(0) + 18:.0f}" text-anchor="middle">{at}</text>')
    out.append(f'<text x="{x(0.5):.0f}" y="{y(0) + 38:.0f}" text-anchor="middle">Jaccard index of word 5-grams; points: share of planted pairs that share a band, with 95 % intervals</text>')
    n_points = n_held = 0
    for number, (name, bands, rows, colour) in enumerate(SETTINGS):
        points = [f"{x(i / 100):.1f},{y(1 - (1 - (i / 100) ** rows) ** bands):.1f}" for i in range(101)]
        out.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="{x(0.02):.0f}" y="{y(0.94) + 18 * number:.0f}" fill="{colour}">{name}</text>')
        for _, pairs in sorted(bins.items()):
            n, found = len(pairs), sum(any(a[i:i + rows] == b[i:i + rows] for i in range(0, bands * rows, rows)) for _, a, b in pairs)
            if n < 20:
                continue
            # Wilson's interval.
            z, share = 1.96, found / n
            middle, half = (share + z * z / 2 / n) / (1 + z * z / n), z * (share * (1 - share) / n + z * z / 4 / n / n) ** 0.5 / (1 + z * z / n)
            at = sum(similarity for similarity, _, _ in pairs) / n
            expected = sum(1 - (1 - similarity ** rows) ** bands for similarity, _, _ in pairs) / n
            n_points, n_held = n_points + 1, n_held + (middle - half <= expected <= middle + half)
            print(f"{name}: {n} pairs of {at:.2f}: {100 * share:.1f} % share a band, {100 * expected:.1f} % expected", file=sys.stderr)
            out.append(f'<path d="M{x(at):.1f} {y(middle - half):.1f}V{y(middle + half):.1f}" stroke="{colour}"/><circle cx="{x(at):.1f}" cy="{y(share):.1f}" r="3.5" fill="{colour}"/>')
    print(f"{n_held} of {n_points} intervals hold what is expected", file=sys.stderr)
    print("\n".join(out + ["</svg>"]))


def peak(*command):
    with tempfile.TemporaryFile("w+") as log:
        started = time.monotonic()
        process = subprocess.Popen(command, stderr=log)
        most, peaks, samples = 0, {}, 0
        while process.poll() is None:
            try:
                with open(f"/proc/{process.pid}/status") as status:
                    anonymous = next((int(line.split()[1]) for line in status if line.startswith("RssAnon")), 0)
            except (FileNotFoundError, ProcessLookupError):
                continue
            log.seek(0)
            stage = (log.read().splitlines() or [""])[-1].split(":")[0].strip()[:40]
            peaks[stage] = max(peaks.get(stage, 0), anonymous)
            most, samples = max(most, anonymous), samples + 1
            time.sleep(0.005)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
    stages = ", ".join(f"{stage} {peak / 1024:.0f}" for stage, peak in peaks.items())
    print(f"exit {process.returncode}; {used.ru_utime + used.ru_stime:.2f} CPU s, {time.monotonic() - started:.1f} s; "
          f"anonymous {most / 1024:.1f} MiB, resident {used.ru_maxrss / 1024:.0f} MiB, {samples} samples; after the line, MiB: {stages}")


{"job": job, "spans": spans, "all": all_methods, "dolma": dolma, "copies": copies, "daft": daft, "score": score, "curve": curve, "peak": peak}[sys.argv[1]](*sys.argv[2:])
