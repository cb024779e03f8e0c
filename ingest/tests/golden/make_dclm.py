"""Writes dclm.json: what DCLM's RefinedWeb filters and line modifiers make of texts.

    pip install retrie==0.3.1 uniseg==0.10.1 fasttext-wheel==0.9.2
    git clone https://github.com/mlfoundations/dclm      # commit 361714b
    python make_dclm.py dclm > dclm.json

Steps and arguments are those of dclm_baseline_refinedweb.yaml between the language filter and the end. With more arguments, JSON
lines in gzip files, it prints a line per document: the reason of the quality rules, of the repetition rules, and what the line
modifiers make of the text, its SHA-1 or a reason.
"""
import gzip, hashlib, json, sys

sys.path.insert(0, sys.argv[1])
from baselines.mappers import modifiers as m
from baselines.mappers.enrichers.enrichers import word_counter_enricher
from baselines.mappers.filters import content_filters as f

QUALITY = [
    ("words", lambda page: f.page_length_filter(page, "word", 50, 100000, ignore_punctuation=True)),
    ("word_length", lambda page: f.word_length_filter(page, 3, 10)),
    ("symbols", lambda page: f.symbol_ratio_filter(page, 0.1)),
    ("bullets", lambda page: f.bullet_count_filter(page, 0.9)),
    ("ellipses", lambda page: f.ellipsis_count_filter(page, 0.3)),
    ("alphabetic", lambda page: f.alphabetic_word_ratio_filter(page, 0.2)),
    ("stop_words", lambda page: f.stop_word_filter(page, count_unique=False, min_stop_word=2)),
]
REPETITION = [
    ("duplicate_lines", lambda page, cache: f.repetition_filter(page, "line", 0.3, count_characters=False, cache=cache)),
    ("duplicate_paragraphs", lambda page, cache: f.repetition_filter(page, "paragraph", 0.3, count_characters=False, cache=cache)),
    ("duplicate_line_chars", lambda page, cache: f.repetition_filter(page, "line", 0.2, cache=cache)),
    ("duplicate_paragraph_chars", lambda page, cache: f.repetition_filter(page, "paragraph", 0.2, cache=cache)),
] + [
    (f"top_{n}_gram" if n < 5 else f"duplicate_{n}_grams", lambda page, cache, n=n, limit=limit: f.repetition_filter(page, n, limit, cache=cache))
    for n, limit in zip(range(2, 11), [0.2, 0.18, 0.16, 0.15, 0.14, 0.13, 0.12, 0.11, 0.10])
]
LINES = [
    m.newline_removal_modifier(max_consecutive=2),
    lambda page: word_counter_enricher(page, key="previous_word_count"),
    lambda page: m.uppercase_ratio_line_modifier(page, 0.5),
    lambda page: m.numeric_ratio_line_modifier(page, 0.999999),
    m.counter_line_modifier(),
    lambda page: m.line_length_modifier(page, min_length=2),
    m.substring_line_modifier("items in cart", max_length=10, remove_substring_only=True),
    m.substring_line_modifier("Read more...", max_length=10, location="suffix", remove_substring_only=True),
    m.substring_line_modifier("Sign-in", max_length=10, location="prefix", remove_substring_only=True),
    lambda page: f.word_removal_ratio_filter(page, "previous_word_count", max_removed_ratio=0.05),
]

def first(rules, *arguments):
    return next((name for name, rule in rules if not rule(*arguments)), None)

def lines(text):
    """The new text and None, or None and why there is none."""
    page = {"text": text}
    for step in LINES:
        if not step(page):
            return None, "too_many_words_removed" if step is LINES[-1] and page["previous_word_count"] else "empty"
    return page["text"], None

def judge(text):
    cache = {}
    new, reason = lines(text)
    return {
        "quality": first(QUALITY, {"text": text}),
        "repetition": first(REPETITION, {"text": text}, cache) if text.strip() else "empty",
        "lines": new,
        "lines_reason": reason,
    }

PROSE = "The mill stood by the river, and the miller had to be up with the sun because that is what he said of it. " * 2
SENTENCES = [
    "Nobody had asked the old clockmaker why every window faced north.", "Seven ferries crossed before noon and none came back.",
    "Her letters arrived in bundles tied with kitchen string.", "We measured the orchard twice and argued about the fence.",
    "Thunder rolled over the quarry while the dogs slept.", "A stranger bought all the lamps and left without a word.",
    "Bread was cheap that winter but salt was not.", "They painted the boat green to please the harbour master.",
]
STORY = "\n".join(SENTENCES)
TEXTS = [
    "", " \n ", "word", PROSE, STORY, STORY + "\n" + STORY, STORY + "\n\n" + SENTENCES[0], "\n\n".join(SENTENCES), "\n\n".join(SENTENCES + SENTENCES[:3]),
    STORY + "\n" + "\n".join(SENTENCES[:2]), STORY + "\n\n\n\n" + STORY.upper(), STORY + "\nA\n" * 5, "\n".join(SENTENCES + ["ha ha"] * 6),
    "the mill and river " * 13, "the mill and river " * 12, "the mill -- and ... river " * 12, "to be of an " * 20, "incomprehensibilities notwithstanding the " * 20,
    "the mill and # river " * 20, "the mill and . . . river " * 20, "the mill and … river and people " * 20, "the mill and ... river people of it all " * 20,
    "\n".join(f"* {s}" for s in SENTENCES), "\n".join(f"  ● {s}" for s in SENTENCES), "\n".join(f"- {s}" for s in SENTENCES[:7]) + "\nThe end of it.",
    "\n".join(f"{s} . . ." for s in SENTENCES), "\n".join(f"{s}… " for s in SENTENCES[:2]) + "\n" + "\n".join(SENTENCES[2:]), "\n".join(f"{s}..." for s in SENTENCES[:3]) + "\n" + "\n".join(SENTENCES[3:]),
    "the miller 12 and 14 " * 20, "the miller 12 and river 4 five " * 20, "mill river miller grain " * 20, "THE Mill river AND " * 20, "the\x00mill\x0band\x0criver\u00a0and\u3000people " * 20,
    "the mill, the river, the mill; the river! the mill and the river " * 4 + STORY, "日本語の文章です。これは水車小屋の話です。 " * 6, "don't can't won't isn't it's 3.14 1,000 a_b c:d e.f " * 6,
    f"{STORY}\nSHOUTING HERE\nok fine", f"{STORY}\n12345\n½²³\n١٢٣", f"{STORY}\n3 likes\n  - 1,204.5k views!\n2 Followers\n3 likes it\n7  comments ...\n5likes",
    f"{STORY}\nMenu\n \nHome page\n\t\n\n\n\nEnd of it", f"{STORY}\n3 items in cart\nItems in Cart items in cart\n   items in cart\nmy items in carton", f"{STORY}\nGo on Read more...\nread moreXYZ\nRead more... now\nread more…",
    f"{STORY}\nSign-in now please\nsign-in\nSIGN-IN\nPlease sign-in here\nSign-in  twice Sign-in", f"  \n\n  Sign-in {STORY}\n\n  trailing line  \n\n", f"MENU\n\n\n{STORY}\n\n\n\n{STORY}\n12 likes\n", "MENU\nHOME\n12", "one\ntwo\nthree",
    f"{STORY} {STORY} {STORY}\n" + "Sign-in to one two three four five six seven eight\nSign-in a b c d e f g h i j k", f"{STORY}\nΣΙΣΥΦΟΣ ΑΒΓ δε\nǅ ǈ ǋ ok now", f"{STORY}\r\nCRLF LINE\r\n12\r\n3 likes\r\nthe end\r\n",
]

if len(sys.argv) > 2:
    for path in sys.argv[2:]:
        for row in map(json.loads, gzip.open(path, "rt")):
            verdict = judge(row["text"])
            new = verdict["lines"]
            digest = hashlib.sha1(new.encode()).hexdigest()[:16] if new is not None else verdict["lines_reason"]
            print(row["id"], verdict["quality"], verdict["repetition"], digest, sep="\t")
else:
    print(json.dumps([{"text": text} | judge(text) for text in TEXTS], ensure_ascii=False, indent=1))
