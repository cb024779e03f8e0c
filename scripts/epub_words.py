#!/usr/bin/env python3
"""Counts the words of EPUB books with Python's own XML parser: the reference of a test of the source `epub`.

Usage: epub_words.py BOOK.epub...

Counted are the bodies of the spine's linear items but tables of contents, without page marks and references of notes.
Elements that are not part of a line separate words; a word has a letter or a digit.
"""

import posixpath
import sys
import xml.etree.ElementTree as ET
import zipfile

INLINE = {"a", "abbr", "b", "cite", "code", "em", "i", "q", "s", "small", "span", "strong", "sub", "sup", "u", "bdo"}
SKIP = {"script", "style", "svg", "nav", "img"}


def local(name):
    return name.rsplit("}")[-1] if isinstance(name, str) else ""


def text(node, out):
    name = local(node.tag)
    attributes = {local(key): value for key, value in node.attrib.items()}
    kinds = (attributes.get("type", "") + " " + attributes.get("role", "")).split()
    is_mark = any(kind in ("pagebreak", "noteref", "doc-pagebreak", "doc-noteref") for kind in kinds)
    if name and name not in SKIP and not is_mark and "hidden" not in attributes:
        out.append("" if name in INLINE else " ")
        out.append(node.text or "")
        for child in node:
            text(child, out)
        out.append("" if name in INLINE else " ")
    out.append(node.tail or "")


for path in sys.argv[1:]:
    book = zipfile.ZipFile(path)
    container = ET.fromstring(book.read("META-INF/container.xml"))
    opf_path = next(n for n in container.iter() if local(n.tag) == "rootfile").get("full-path")
    opf = ET.fromstring(book.read(opf_path))
    items = {n.get("id"): n for n in opf.iter() if local(n.tag) == "item"}
    words = 0
    for reference in (n for n in opf.iter() if local(n.tag) == "itemref"):
        item = items[reference.get("idref")]
        if reference.get("linear") == "no" or "nav" in (item.get("properties") or "").split():
            continue
        chapter = ET.fromstring(book.read(posixpath.join(posixpath.dirname(opf_path), item.get("href"))))
        out = []
        text(next(n for n in chapter.iter() if local(n.tag) == "body"), out)
        words += sum(any(c.isalnum() for c in word) for word in "".join(out).split())
    print(f"{path}: {words} words")
