"""Writes minhash.json: signatures and bands as text-dedup and NeMo Curator compute them.

Made with Python 3.11 and the versions printed in the file's "versions":
    pip install text-dedup==0.4.0 mmh3 numpy scipy xxhash click click-option-group tqdm rich regex
    pip download --no-deps nemo-curator==1.4.0
    python make_minhash.py nemo_curator-1.4.0-py3-none-any.whl > minhash.json

text-dedup: its own `embed_func`, `ngrams` and `optimal_param` run; packages that only its other commands use are left out.
NeMo Curator: its own `generate_seeds` runs, cut out of the wheel. The rest of its signature is cuDF's kernel, which needs
a GPU: it is written here as cuDF documents it (`nvtext/minhash.hpp`) over the reference MurmurHash3 of `mmh3`, and held to
the vectors of cuDF's own tests (`cpp/tests/text/minhash_tests.cpp`), which are in the file, too.
"""
import ast, dataclasses, importlib.metadata, json, sys, textwrap, types, zipfile
from unittest.mock import MagicMock

import mmh3
import numpy as np

for name in ("datasets", "datasets.load", "datasets.utils", "ftfy"):
    sys.modules[name] = MagicMock()
sys.modules["datasets.utils.version"] = types.SimpleNamespace(dataclass=dataclasses.dataclass)
from text_dedup import minhash
from text_dedup.utils import optimal_param, sha1_hash, xxh3_32hash

TEXTS = [
    "a b c d e",
    "one two three four",
    "It is a Truth, universally acknowledged -- that (in 1813) 3.14% of 1,234,567 readers want_of a wife!",
    "the same words the same words the same words the same words the same words",
    "Café naïve ÅNGSTRÖM e\u0301 ΟΔΟΣ İstanbul ß हिन्दी भाषा ไทย 日本語のテキスト ½ ² ٣ Ⅷ ㉈",
    "  Tabs\tand\nlines\r\n\r\nand\u00a0no-break\u2003spaces  ",
    "The quick brown fox jumpéd over the lazy brown dog. The quick brown fox jumps over the lazy brown dog, again.",
    "twenty-four characters!!",
    "twenty-three character!",
    "...",
    "",
]


def text_dedup(text, bits, hash_func, n_permutations, bands, rows, min_length=5):
    dtype, max_hash, prime = {
        64: (np.uint64, np.uint32((1 << 32) - 1), np.uint64((1 << 61) - 1)),
        32: (np.uint32, np.uint32((1 << 32) - 1), np.uint32((1 << 32) - 5)),
    }[bits]
    random = np.random.RandomState(minhash.SEED)
    permutations = (
        random.randint(1, prime, size=(n_permutations,), dtype=dtype),
        random.randint(0, prime, size=(n_permutations,), dtype=dtype),
    )
    words = minhash.NON_ALPHA.split(text.lower())
    if len(words) < min_length:
        return []  # The command leaves such documents out.
    ranges = [(band * rows, (band + 1) * rows) for band in range(bands)]
    found = minhash.embed_func(
        text, 0, num_perm=n_permutations, ngram_size=5, min_length=min_length, hashranges=ranges,
        permutations=permutations, hash_func=hash_func, dtype=dtype, max_hash=max_hash, modulo_prime=prime,
    )
    # The bytes are in big-endian order.
    return np.frombuffer(b"".join(found[minhash.SIGNATURE_COLUMN]), dtype=np.dtype(dtype).newbyteorder(">")).tolist()


def generate_seeds(wheel):
    source = zipfile.ZipFile(wheel).read("nemo_curator/stages/deduplication/fuzzy/minhash.py").decode()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name == "GPUMinHash":
            function = next(part for part in node.body if getattr(part, "name", "") == "generate_seeds")
            scope = {"np": np}
            exec(textwrap.dedent(ast.get_source_segment(source, function)), scope)
            return lambda *args: scope["generate_seeds"](None, *args)


def murmur3_64(data, seed):
    """The first half of MurmurHash3_x64_128 with a seed of 64 bits, as cuDF has it; mmh3 takes 32 bits."""
    mask, rotate = (1 << 64) - 1, lambda x, r: (x << r | x >> 64 - r) & ((1 << 64) - 1)
    c1, c2 = 0x87C37B91114253D5, 0x4CF5AD432745937F
    mix1 = lambda k: rotate(k * c1 & mask, 31) * c2 & mask
    mix2 = lambda k: rotate(k * c2 & mask, 33) * c1 & mask
    h1 = h2 = seed
    whole = len(data) // 16 * 16
    for at in range(0, whole, 16):
        k1, k2 = (int.from_bytes(data[at + i : at + i + 8], "little") for i in (0, 8))
        h1 = (rotate(h1 ^ mix1(k1), 27) + h2) * 5 + 0x52DCE729 & mask
        h2 = (rotate(h2 ^ mix2(k2), 31) + h1) * 5 + 0x38495AB5 & mask
    tail = data[whole:].ljust(16, b"\0")
    h2 ^= mix2(int.from_bytes(tail[8:], "little"))
    h1 ^= mix1(int.from_bytes(tail[:8], "little"))
    h1, h2 = h1 ^ len(data), h2 ^ len(data)
    h1 = h1 + h2 & mask
    h2 = h2 + h1 & mask

    def finalise(x):
        x = (x ^ x >> 33) * 0xFF51AFD7ED558CCD & mask
        x = (x ^ x >> 33) * 0xC4CEB9FE1A85EC53 & mask
        return x ^ x >> 33

    return finalise(h1) + finalise(h2) & mask


for n in range(40):
    data = bytes(range(n))
    assert murmur3_64(data, 7 * n) == mmh3.hash64(data, 7 * n, signed=False)[0], n


def cudf_minhash(text, seed, a, b, width, bits):
    if not text:
        return []
    pieces = [text[i : i + width] for i in range(max(1, len(text) - width + 1))]
    prime, mask = (1 << 61) - 1, (1 << bits) - 1
    if bits == 32:
        hashes = [mmh3.hash(piece.encode(), seed, signed=False) for piece in pieces]
    else:
        hashes = [murmur3_64(piece.encode(), seed) for piece in pieces]
    return [min(((h * x + y) % (1 << 64)) % prime & mask for h in hashes) for x, y in zip(a, b)]


CUDF_TEXTS = ["doc 1", "this is doc 2", "doc 3", "d", "The quick brown fox jumpéd over the lazy brown dog.",
              "line six", "line seven", "line eight", "line nine", "line ten"]
CUDF_32 = [
    [1392101586, 394869177, 811528444], [211415830, 187088503, 130291444], [2098117052, 394869177, 799753544],
    [2264583304, 2920538364, 3576493424], [253327882, 41747273, 302030804], [2109809594, 1017470651, 326988172],
    [1303819864, 850676747, 147107852], [736021564, 720812292, 1405158760], [902780242, 134064807, 1613944636],
    [547084870, 1748895564, 656501844],
]
CUDF_64 = [
    [827364888116975697, 1601854279692781452, 70500662054893256],
    [18312093741021833, 133793446674258329, 21974512489226198],
    [22474244732520567, 1638811775655358395, 949306297364502264],
    [1332357434996402861, 2157346081260151330, 676491718310205848],
    [65816830624808020, 43323600380520789, 63511816333816345],
    [629657184954525200, 49741036507643002, 97466271004074331],
    [301611977846331113, 101188874709594830, 97466271004074331],
    [121498891461700668, 171065800427907402, 97466271004074331],
    [54617739511834072, 231454301607238929, 97466271004074331],
    [576418665851990314, 231454301607238929, 97466271004074331],
]
factors = [10, 11, 12]
for bits, expected in ((32, CUDF_32), (64, CUDF_64)):
    found = [cudf_minhash(text, 0, factors, factors, 4, bits) for text in CUDF_TEXTS]
    assert found == expected, (bits, found)

seeds = generate_seeds(sys.argv[1])
nemo = []
for bits in (32, 64):
    drawn = seeds(260, 42, bits).tolist()
    a, b = [pair[0] for pair in drawn], [pair[1] for pair in drawn]
    nemo += [
        {"text": text, "bits": bits, "signature": cudf_minhash(text, drawn[0][0], a, b, 24, bits)} for text in TEXTS
    ]
dedup = []
bands, rows = optimal_param(0.7, 256)
for bits in (64, 32):
    dedup += [
        {"text": text, "bits": bits, "signature": text_dedup(text, bits, sha1_hash, 256, bands, rows)} for text in TEXTS
    ]
print(json.dumps({
    "versions": {name: importlib.metadata.version(name) for name in ("text-dedup", "mmh3", "numpy", "scipy", "xxhash")}
    | {"nemo-curator": "1.4.0"},
    "cudf": {"texts": CUDF_TEXTS, "width": 4, "seed": 0, "factors": factors, "terms": factors, "32": CUDF_32, "64": CUDF_64},
    "nemo": nemo,
    "text_dedup": dedup,
    "optimal_param": [
        {"threshold": t, "n_permutations": n, "bands_rows": optimal_param(t, n)}
        for t, n in ((0.7, 256), (0.7, 250), (0.75, 256), (0.5, 128), (0.9, 128), (0.8, 64))
    ],
}, ensure_ascii=False, indent=None, separators=(",", ":")))
