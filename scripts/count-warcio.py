#!/usr/bin/env python3
"""Counts the page records that warcio finds in every archive of the shared test data.

  count-warcio.py DATA > ingest/src/source/warc/warcio.tsv

DATA is the folder of the shared data (`warc/` and `conformance/warc/` are searched). A line per file: path, records of the types that hold or
stand for a page (response, resource, conversion, revisit, continuation and unknown ones; of ARC all but the version block; without `dns:`,
`metadata:` and `filedesc:` URIs), and the error that ended the reading, if one did. Made with warcio 1.8.1.
"""
import os
import sys

from warcio.archiveiterator import ArchiveIterator

NO_PAGE = {"request", "metadata", "warcinfo", "arc_header"}
NO_URI = ("dns:", "metadata:", "filedesc:")


def count(path):
    n = 0
    try:
        with open(path, "rb") as file:
            for record in ArchiveIterator(file):
                uri = (record.rec_headers.get_header("WARC-Target-URI") or record.rec_headers.get_header("uri") or "").lstrip("<")
                if record.rec_type.strip() not in NO_PAGE and not uri.startswith(NO_URI):
                    n += 1
                record.raw_stream.read()
    except Exception as error:  # whatever ends the reading is the answer
        return n, type(error).__name__
    return n, ""


def main():
    data = sys.argv[1]
    paths = []
    for folder in ["conformance/warc", "warc"]:
        for where, _, names in os.walk(os.path.join(data, folder)):
            for name in names:
                is_archive = any(part in name for part in (".warc", ".arc"))
                if is_archive and not name.startswith("LICENSE") and not name.endswith(("paths.gz", ".lz4")):
                    paths.append(os.path.relpath(os.path.join(where, name), data))
    for path in sorted(paths):
        n, error = count(os.path.join(data, path))
        print(path, n, error, sep="\t")


main()
