"""The peer of filter_speed.rs: datatrove 0.10.1 and spaCy 3.8.18 on every 25th document, seconds of CPU time of one process.

python filter_speed_datatrove.py FOLDER, which holds *.jsonl.gz; every filter judges every document."""
import glob
import gzip
import json
import sys
import time

from datatrove.data import Document
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.filters.c4_filters import C4ParagraphFilter, C4QualityFilter

texts = []
for path in sorted(glob.glob(f"{sys.argv[1]}/*.jsonl.gz")):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts += [json.loads(line)["text"] for line in file]
texts = texts[::25]
filters = [
    GopherRepetitionFilter(),
    GopherQualityFilter(),
    C4QualityFilter(),
    C4QualityFilter(filter_no_terminal_punct=False),
    C4ParagraphFilter(),
    FineWebQualityFilter(),
]
judge = lambda text: [each.filter(Document(text=text, id="0", metadata={})) for each in filters]
judge(texts[0])  # loads spaCy
started = time.process_time()
for text in texts:
    judge(text)
seconds = time.process_time() - started
megabytes = sum(len(text.encode()) for text in texts) / 1e6
print(f"{len(texts)} documents, {len(texts) / seconds:.1f} documents/CPU-s, {megabytes / seconds:.3f} MB/CPU-s")
