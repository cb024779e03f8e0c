"""Writes `archives.tsv`: small archives of a dump of three pages, made by py7zr, as hexadecimal.

    pip install py7zr==1.1.4
    python make_archives.py > archives.tsv
"""

import io

import py7zr

HEAD = """<mediawiki xml:lang="en"><siteinfo><dbname>testwiki</dbname>
<base>https://test.example/wiki/Main</base></siteinfo>
"""
PAGE = """<page><title>Page {0}</title><ns>0</ns><id>{0}</id><revision><id>{0}</id>
<text>This is page {0} of three.</text></revision></page>
"""
DUMP = HEAD + "".join(PAGE.format(number) for number in (1, 2, 3)) + "</mediawiki>\n"


def archive(names, filters=None, password=None):
    out = io.BytesIO()
    with py7zr.SevenZipFile(out, "w", filters=filters, password=password) as writer:
        for name in names:
            writer.writestr(DUMP, name)
    return out.getvalue()


CASES = {
    "lzma2": archive(["a.xml"]),
    "lzma": archive(["a.xml"], [{"id": py7zr.FILTER_LZMA, "dict_size": 1 << 20}]),
    "bzip2": archive(["a.xml"], [{"id": py7zr.FILTER_BZIP2}]),
    "two_files": archive(["a.xml", "b.xml"]),
    "ppmd": archive(["a.xml"], [{"id": py7zr.FILTER_PPMD, "order": 6, "mem": 24}]),
    "large_dictionary": archive(["a.xml"], [{"id": py7zr.FILTER_LZMA2, "dict_size": 1 << 30}]),
    "encrypted": archive(["a.xml"], password="x"),
}

for name, data in CASES.items():
    print(f"{name}\t{data.hex()}")
