"""Writes expected.jsonl: texts, and what ftfy makes of them with nothing but its steps for encodings.

    pip install ftfy==6.3.1 && python make.py PATH/TO/ftfy-6.3.1/tests/test_cases.json > expected.jsonl

Every case of ftfy's tests as it is, repaired, and garbled once more: read as Latin-1 and as Windows-1252.
"""

import json
import sys

import ftfy

OFF = dict(
    unescape_html=False, remove_terminal_escapes=False, fix_character_width=False, fix_latin_ligatures=False,
    uncurl_quotes=False, fix_line_breaks=False, fix_surrogates=False, remove_control_chars=False, normalization=None,
)


def main():
    seen = {}
    for case in json.load(open(sys.argv[1])):
        for text in (case["original"], case["fixed"]):
            garbled = [text, text.encode().decode("latin-1")]
            try:
                garbled.append(text.encode().decode("windows-1252"))
            except UnicodeDecodeError:
                pass
            for text in garbled:
                try:
                    text.encode()
                except UnicodeEncodeError:
                    continue  # a lone surrogate, which is no text here
                seen[text] = ftfy.fix_text(text, **OFF)
    for text, fixed in seen.items():
        print(json.dumps({"text": text, "fixed": fixed}, ensure_ascii=True))


main()
