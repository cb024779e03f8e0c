"""Writes the tables of ftfy that `fix_mojibake` works by: `ftfy-patterns.tsv` and `ftfy-charmaps.tsv`.

    pip install ftfy==6.3.1 && python ftfy_tables.py FOLDER

Patterns of Python's `re` are written anew for the regex crate, every character that is no ASCII letter or digit as a code point.
"""

import re._parser as parser
import sys
from pathlib import Path
from re._constants import *

import ftfy.bad_codecs
from ftfy import badness, chardata

ftfy.bad_codecs.ok()


def char(code):
    return chr(code) if chr(code).isascii() and chr(code).isalnum() else f"\\x{{{code:x}}}"


def in_class(items):
    out = ""
    for op, value in items:
        if op is NEGATE:
            out += "^"
        elif op is LITERAL:
            out += char(value)
        elif op is RANGE:
            out += char(value[0]) + "-" + char(value[1])
        elif op is CATEGORY:
            out += {CATEGORY_SPACE: r"\s\x{1c}-\x{1f}", CATEGORY_WORD: r"\p{L}\p{N}_"}[value]
        else:
            raise ValueError(op)
    return f"[{out}]"


def pattern(tree):
    out = ""
    for op, value in tree:
        if op is LITERAL:
            out += char(value)
        elif op is IN:
            out += in_class(value)
        elif op is ANY:
            out += "."
        elif op is AT and value is AT_BEGINNING:
            out += "^"
        elif op is BRANCH:
            out += "(?:" + "|".join(pattern(branch) for branch in value[1]) + ")"
        elif op is SUBPATTERN:
            out += "(?:" + pattern(value[3]) + ")"
        elif op is MAX_REPEAT:
            low, high, inner = value
            high = "" if high is MAXREPEAT else high
            out += f"(?:{pattern(inner)}){{{low},{high}}}"
        else:
            raise ValueError(op)
    return out


def main():
    folder = Path(sys.argv[1])
    detector = list(parser.parse(chardata.UTF8_DETECTOR_RE.pattern, chardata.UTF8_DETECTOR_RE.flags))
    # The regex crate looks nowhere but ahead: what must not stand before is a pattern of its own.
    op, (direction, before) = detector[0]
    assert op is ASSERT_NOT and direction == -1
    patterns = {
        "badness": pattern(parser.parse(badness.BADNESS_RE.pattern, badness.BADNESS_RE.flags)),
        "utf8": pattern(detector[1:]),
        "not_before_utf8": pattern(before),
    }
    (folder / "ftfy-patterns.tsv").write_text("".join(f"{name}\t{text}\n" for name, text in patterns.items()))
    with open(folder / "ftfy-charmaps.tsv", "w") as file:
        for encoding in chardata.CHARMAP_ENCODINGS:
            chars = bytes(range(0x80, 0x100)).decode(encoding)
            file.write(encoding + "\t" + " ".join(f"{ord(c):x}" for c in chars) + "\n")


main()
