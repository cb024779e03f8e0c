"""Prints the lines `unicode_punctuation` to `decimal` of word-characters.tsv. Needs Python 3.11 and spaCy 3.8.18."""
import sys
import unicodedata

from spacy.pipeline import Sentencizer

ENDS = set(Sentencizer.default_punct_chars)
CLASSES = {
    # spaCy's `is_punct` of a token: every character is of a category P.
    "unicode_punctuation": lambda c: unicodedata.category(c).startswith("P"),
    "sentence_end": lambda c: c in ENDS,
    # `\w` and `\d` of Python's `re`.
    "word": lambda c: c.isalnum() or c == "_",
    "decimal": lambda c: c.isdecimal(),
}

for name, is_member in CLASSES.items():
    points = [p for p in range(sys.maxunicode + 1) if not 0xD800 <= p < 0xE000 and is_member(chr(p))]
    ranges = []
    for point in points:
        if ranges and ranges[-1][1] == point - 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    shown = (f"{a:x}" if a == b else f"{a:x}-{b:x}" for a, b in ranges)
    print(f"{name}\t{' '.join(shown)}")
