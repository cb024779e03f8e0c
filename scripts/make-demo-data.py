"""Cuts the demo's input from unpacked Debian packages; called by make-demo-data.sh.

usage: make-demo-data.py UNPACKED OUT
"""

import collections
import json
import pathlib
import posixpath
import re
import shutil
import sys

SITE_BYTES_MAX = 3_300_000
PAGE_BYTES_MAX = 60_000
# Pages per folder of the site, so that the small ones are there too.
PAGES_MAX = {"": 170, "c3ref": 24, "syntax": 12, "releaselog": 28, "session": 8}
PRINTED = [
    "about", "appfileformat", "atomiccommit", "faq", "howtocorrupt", "selfcontained",
    "serverless", "testing", "transactional", "whentouse", "zeroconf",
]
CHAPTERS = 45
HREF = re.compile(r"""\s+href\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+))""", re.I)

ROBOTS = """\
# The demo's site: everything may be fetched but the session extension's pages.
User-agent: *
Disallow: /session/
"""


def main():
    unpacked, out = map(pathlib.Path, sys.argv[1:])
    for folder in ["site", "books"]:
        shutil.rmtree(out / folder, ignore_errors=True)
    make_site(unpacked / "usr/share/doc/sqlite3", out / "site")
    gocode = unpacked / "usr/share/gocode/src/github.com"
    moby = (gocode / "colinmarc/hdfs/testdata/mobydick.txt").read_text("utf-8-sig")
    make_books(
        moby.replace("\r\n", "\n"),
        (gocode / "andybalholm/brotli/testdata/Isaac.Newton-Opticks.txt").read_text("utf-8"),
        out / "books",
    )
    make_jsonl(moby.replace("\r\n", "\n"), out / "extra.jsonl")


def make_site(origin, out):
    """Copies a connected part of the site; links to what was left out are taken off, but on the first page."""
    pages = {
        path.relative_to(origin).as_posix(): path.read_text("utf-8", "surrogateescape")
        for path in sorted(origin.rglob("*.html"))
    }
    chosen = choose(pages)
    for name in chosen:
        text = pages[name]
        if name == "index.html":
            text = text.replace("</ul>", '<li><a href="print/index.html">Printer-friendly pages</a></ul>', 1)
        else:
            text = HREF.sub(lambda m: m[0] if target(name, m) in {None, *chosen} else "", text)
        write(out / name, text)
    for name in PRINTED:
        write(out / f"print/{name}.html", printed(name, pages[f"{name}.html"]))
    links = "".join(f'<li><a href="{name}.html">{name}</a></li>\n' for name in PRINTED)
    write(out / "print/index.html", page("Printer-friendly pages", f"<ul>\n{links}</ul>"))
    write(out / "robots.txt", ROBOTS)


def choose(pages):
    """Grows a set, in order, from the first page: always by the page that most chosen pages link to."""
    links = {name: {target(name, m) for m in HREF.finditer(text)} & pages.keys() for name, text in pages.items()}
    chosen, score, count = {}, collections.Counter(), collections.Counter()
    left = SITE_BYTES_MAX
    wanted = ["index.html"] + [f"{name}.html" for name in PRINTED]
    while True:
        if wanted:
            best = wanted.pop(0)
        else:
            open_pages = [
                (-links_in, len(pages[name]), name)
                for name, links_in in score.items()
                if name not in chosen
                and len(pages[name]) <= min(PAGE_BYTES_MAX, left)
                and count[posixpath.dirname(name)] < PAGES_MAX.get(posixpath.dirname(name), 0)
            ]
            if not open_pages:
                return chosen
            best = min(open_pages)[2]
        chosen[best] = True
        count[posixpath.dirname(best)] += 1
        left -= len(pages[best])
        score.update(links[best])


def target(name, match):
    """Returns the page that a link on page `name` leads to, None for links that leave the site or the tree."""
    href = next(group for group in match.groups() if group is not None).split("#")[0].split("?")[0]
    if not href or ":" in href or href.startswith("/") or not href.endswith(".html"):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), href))


def printed(name, text):
    """Returns the page without its header, menus and scripts, with a line that says what it is."""
    body = text[text.index("<body>") + 6 : text.rindex("</body>") if "</body>" in text else len(text)]
    body = body[body.rindex("</script>", 0, 12_000) + 9 :]
    body = HREF.sub(lambda m: "" if not m[0].strip().split("=", 1)[1].strip("\"'").startswith("#") else m[0], body)
    note = f'<p>This is the printer-friendly copy of <a href="../{name}.html">{name}.html</a>.</p>'
    return page(re.search(r"<title>(.*?)</title>", text, re.S)[1].strip(), f"{note}\n{body.strip()}")


def page(title, body):
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f"<title>{title}</title></head>\n<body>\n{body}\n</body></html>\n"
    )


def make_books(moby, opticks, out):
    for number, text in enumerate(chapters(moby)[:CHAPTERS], 1):
        write(out / f"moby-dick/chapter-{number:03}.txt", text)
    starts = [m.start() for m in re.finditer(r"^_PART [IV]+\._$", opticks, re.M)]
    assert len(starts) == 7, starts
    for number, (start, end) in enumerate(zip(starts, starts[1:] + [len(opticks)]), 1):
        text = opticks[start:end].strip()
        # The next part's title stands at the end of this one.
        text = re.sub(r"\n\s*(\* *)*\n*THE\s+(FIRST|SECOND|THIRD)\s+BOOK\s+OF\s+OPTICKS$", "", text).strip()
        write(out / f"opticks/part-{number}.txt", text + "\n")


def chapters(moby):
    """Returns the chapters without the distributor's header and footer."""
    starts = [m.start() for m in re.finditer(r"^CHAPTER \d+\. ", moby, re.M)]
    return [moby[start:end].strip() + "\n" for start, end in zip(starts, starts[1:])]


def make_jsonl(moby, out):
    """Writes rows that give every reader and filter something to do."""
    long = [
        " ".join(paragraph.split())
        for chapter in chapters(moby)[100:]
        for paragraph in chapter.split("\n\n")
        if len(paragraph.split()) > 220
    ]
    near = long[1].replace(" the ", " that ", 1)
    assert near != long[1]
    letter = (
        "Dear harbour master, the bark leaves on the morning tide and I would have you write to the owners before "
        "that. They read their letters at owners@example.org, and the mate has his own address, which is "
        "first.mate@example.org, for whatever concerns the cargo. If the line is slow, the machine at 192.0.2.17 "
        "keeps the list of the crew and of the stores that we took on board. We have water for ninety days, bread "
        "for a hundred, and a cooper who says that the casks will hold. Send the charts with the boy who brings "
        "this, and tell the pilot that we shall be ready for him at four. I am, with respect, your servant."
    )
    german = (
        "Als Gregor Samsa eines Morgens aus unruhigen Träumen erwachte, fand er sich in seinem Bett zu einem "
        "ungeheueren Ungeziefer verwandelt. Er lag auf seinem panzerartig harten Rücken und sah, wenn er den Kopf ein "
        "wenig hob, seinen gewölbten, braunen, von bogenförmigen Versteifungen geteilten Bauch, auf dessen Höhe sich "
        "die Bettdecke, zum gänzlichen Niedergleiten bereit, kaum noch erhalten konnte. Seine vielen, im Vergleich zu "
        "seinem sonstigen Umfang kläglich dünnen Beine flimmerten ihm hilflos vor den Augen."
    )
    insult = (
        "You are a stupid, worthless idiot and everyone on this ship hates you. Shut up, you pathetic moron, and get "
        "out of my sight before I throw you over the side. Nobody wants to hear your idiotic lies, you disgusting "
        "fool, and if you open your stupid mouth again I will kill you. You are garbage, your work is garbage, and "
        "the rest of these ignorant losers are no better than you are. Go to hell and take your damn whale with you."
    )
    row = lambda name, text, **more: json.dumps(
        {"text": text, "url": f"https://example.org/extra/{name}", "date": "2024-05-01T00:00:00Z", **more}, ensure_ascii=False
    )
    lines = [row(f"passage-{number}", text) for number, text in enumerate(long[:6], 1)] + [
        row("exact-copy", long[0]),
        row("near-copy", near),
        row("passage-3?utm_source=feed", long[2]),
        row("letter", letter, author="unknown"),
        row("german", german),
        row("short", "Too short to keep."),
        row("chorus", "\n".join(["Blow the man down, bully, blow the man down."] * 40)),
        row("insult", insult),
        json.dumps({"url": "https://example.org/extra/no-text", "date": "2024-05-01T00:00:00Z"}),
        row("cut-off", long[6])[:200],
        row("passage-7", long[7]),
    ]
    write(out, "\n".join(lines) + "\n")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))


main()
