"""Writes url_blocklist.json: what datatrove's and DCLM's URL filters say of URLs.

    pip install datatrove==0.10.1 tldextract==5.4.0 pyahocorasick retrie==0.3.1
    git clone https://github.com/mlfoundations/dclm
    python make_url_blocklist.py dclm > url_blocklist.json

tldextract reads the list of public suffixes that it packs. Only `url_substring_filter` of DCLM is used, with the arguments of
dclm_baseline_refinedweb.yaml and the lists below. With a second argument, a file of URLs, one a line, and two folders of lists,
datatrove's (`domains`, `urls` and its packed words) and DCLM's, it prints a line per URL: its reason in datatrove and in DCLM.
"""
import json, os, sys

os.environ["TLDEXTRACT_PUBLIC_SUFFIX_LIST_URLS"] = ""
sys.path.insert(0, sys.argv[1])
from baselines.mappers.filters.metadata_filters import url_substring_filter
from datatrove.data import Document
from datatrove.pipeline.filters.url_filter import URLFilter

LISTS = {
    "domains": ["blocked.com", "sub.allowed.co.uk", "Case.org", "port.net:8080", "someone.github.io", "bücher.example", "xn--bcher-kva.de", "foo.ck"],
    "urls": ["http://one.com/page?id=1", "https://one.com/Page"],
    "words": ["Bad", "very-bad", "#comment", "s&m", "böse", "mill_"],
    "soft_words": ["Soft", "mild", "warm", "soft-mild", "l&m", "m-x"],
    "subwords": ["sub word", "d-m", "ünder", "tailpart"],
}
URLS = """
http://blocked.com/ http://blocked.com https://www.blocked.com/x http://a.b.blocked.com/ http://notblocked.com/ http://blocked.com.evil.org/ HTTP://BLOCKED.COM/
http://user:pw@blocked.com:81/x blocked.com/x //blocked.com/x ftp://blocked.com http://blocked.com. http://blocked.com?x http://blocked.com#x
http://sub.allowed.co.uk/ http://allowed.co.uk/ http://x.sub.allowed.co.uk/ http://Case.org/ http://case.org/ http://x.Case.org/
http://port.net:8080/ http://port.net/ http://someone.github.io/ http://x.someone.github.io/ http://github.io/ http://other.github.io/
http://bücher.example/ http://xn--bcher-kva.de/ http://bücher.de/ http://foo.ck/ http://x.foo.ck/ http://www.ck/ http://127.0.0.1/blocked.com http://[::1]/bad http://localhost/bad
http://one.com/page?id=1 http://one.com/page?id=2 https://one.com/Page https://one.com/page
http://one.com/bad http://one.com/Bad http://one.com/BAD/x http://one.com/badly http://one.com/very-bad http://one.com/verybad http://one.com/comment http://one.com/s&m http://one.com/sm
http://one.com/s&mx http://one.com/böse http://one.com/b%C3%B6se http://one.com/mill_ http://one.com/mill http://one.com/mill_x http://one.com/_bad_ http://one.com/bad_x
http://one.com/soft http://one.com/soft/mild http://one.com/Soft/Mild http://one.com/soft-soft http://one.com/soft-mild http://one.com/softmild http://one.com/soft-mild-warm http://one.com/mild/soft-mild
http://one.com/sub-word http://one.com/subword http://one.com/SUBWORD http://one.com/s.u.b/word http://one.com/suxbword http://sub.word.com/ http://one.com/d-m http://one.com/dm http://one.com/ünder
http://one.com/nder http://one.com/tail-part http://one.com/tail/part http://one.com/tail.part http://one.com/bad-tailpart http://one.com/l&m-x http://one.com/l&m/mild http://one.com/?q=soft&w=warm mailto:soft@mild.com
http://blocked.com/bad/soft/mild http://one.com/a/b/c http://example.notatld/x http://user@www.blocked.com/ http://wwwblocked.com/ http://www.port.net:8080/ http://a。blocked.com/
""".split()

DATATROVE = {"domain": "blocked_domain", "subdomain": "blocked_subdomain", "url": "blocked_url", "hard_blacklisted": "blocked_word",
             "soft_blacklisted": "too_many_soft_words", "blacklisted_subword": "blocked_subword"}

def datatrove_reason(step, url):
    verdict = step.filter(Document(text="x", id="x", metadata={"url": url}))
    return None if verdict is True else DATATROVE[verdict[1]]

def dclm_steps(lists):
    return [
        ("blocked_domain", url_substring_filter(**lists("domains"), exact_domain_match=True, ignore_chars=["www"])),
        ("blocked_subword", url_substring_filter(**lists("subwords"), ignore_chars=["-", "."])),
        ("blocked_word", url_substring_filter(**lists("words"), match_substrings=False)),
        ("too_many_soft_words", url_substring_filter(**lists("soft_words"), num_banned_substrs=2, match_substrings=False)),
    ]

def dclm_reason(steps, url):
    return next((reason for reason, step in steps if not step({"url": url})), None)

if len(sys.argv) > 2:
    urls, datatrove_lists, dclm_lists = sys.argv[2:]
    step = URLFilter(extra_domains=open(f"{datatrove_lists}/domains"), extra_urls=open(f"{datatrove_lists}/urls"), use_integrated_lists=True)
    steps = dclm_steps(lambda name: {"banlist_from_fname": f"{dclm_lists}/{name}"})
    for url in open(urls).read().splitlines():
        print(datatrove_reason(step, url), dclm_reason(steps, url), sep="\t")
else:
    step = URLFilter(extra_domains=LISTS["domains"], extra_urls=LISTS["urls"], banned_words=LISTS["words"], soft_banned_words=LISTS["soft_words"],
                     banned_subwords=LISTS["subwords"], use_integrated_lists=False)
    steps = dclm_steps(lambda name: {"banlist": LISTS[name]})
    cases = [{"url": url, "datatrove": datatrove_reason(step, url), "dclm": dclm_reason(steps, url)} for url in URLS]
    print(json.dumps({"lists": LISTS, "cases": cases}, ensure_ascii=False, indent=1))
