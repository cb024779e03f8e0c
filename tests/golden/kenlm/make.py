"""Writes small language models and what KenLM says with them:

    python make.py BUILD_BINARY TEXT_NORMALIZER NOVEL.txt.gz PIECES.model.gz CCNET_FOLDER

BUILD_BINARY is KenLM's tool, TEXT_NORMALIZER the folder of `cc_net/text_normalizer.py`, NOVEL the data's
`neardup/pride-and-prejudice-editions/1342-0.txt.gz`, PIECES `../tokenizers/unigram-nmt.model.gz`, CCNET_FOLDER
`ccnet/dolma-ccnet-sample`. Versions: kenlm 0.3.0, sentencepiece 0.2.3, Python 3.11.

The models are estimated here by absolute discounting, which is all that a test needs: valid probabilities.
"""

import collections
import gzip
import json
import math
import pathlib
import re
import subprocess
import sys
import tempfile

import kenlm
import sentencepiece

ORDER = 4
DISCOUNT = 0.6
# Tokens and white space that a careless reader gets wrong.
HARD = [
    "", " ", "\n", "it", "it is a truth universally acknowledged", "<unk>", "<s> it", "it </s> it", "a\tb\vc\fd\re", "a\u00a0b",
    "elizabeth\u2028elizabeth", "漢字 и слово", "e\u0301te\u0301", "ÉTÉ İstanbul ΣΑΣ", "In 1813, “Pride” — 5 ½ ٣ １ ％ … ’tis «so»!",
    "it\x01 is\x7f a\x85 b", "the the the the the the", "mr . darcy " * 300, "\u3000 Mr. Bennet \u3000", "a\u20dd\u0903b",
]


def ngrams(sentences, order):
    counts = collections.Counter()
    for words in sentences:
        words = ["<s>", *words, "</s>"]
        for end in range(2, len(words) + 1):
            for n in range(1, order + 1):
                if end - n >= 0:
                    counts[tuple(words[end - n:end])] += 1
    return counts


def write_arpa(path, sentences, order, vocabulary, prune):
    known = collections.Counter(word for words in sentences for word in words)
    kept = {word for word, _ in sorted(known.items(), key=lambda item: (-item[1], item[0]))[:vocabulary]}
    sentences = [[word if word in kept else "<unk>" for word in words] for words in sentences]
    counts = ngrams(sentences, order)
    counts[("<s>",)] = 0
    follow = collections.defaultdict(collections.Counter)
    for gram, count in counts.items():
        follow[gram[:-1]][gram[-1]] += count

    def probability(context, word):
        seen = follow.get(context)
        if not context:
            total = sum(seen.values())
            return max(seen[word], 0.5) / (total + 1)
        if not seen:
            return probability(context[1:], word)
        total = sum(seen.values())
        rest = DISCOUNT * len(seen) / total
        return max(seen[word] - DISCOUNT, 0) / total + rest * probability(context[1:], word)

    def backoff(gram):
        seen = follow.get(gram)
        return math.log10(DISCOUNT * len(seen) / sum(seen.values())) if seen else None

    levels = [sorted(gram for gram in counts if len(gram) == n) for n in range(1, order + 1)]
    # A middle n-gram goes though a longer one ends with it, and none begins with it: readers fill the gap.
    begun = {gram[:-1] for gram in counts}
    if prune:
        for n in range(1, order - 1):
            levels[n] = [gram for i, gram in enumerate(levels[n]) if gram in begun or i % 3]
        levels[-1] = [gram for i, gram in enumerate(levels[-1]) if counts[gram] > 1 or i % 7 == 0]
        levels[1] = [gram for gram in levels[1] if gram in begun or counts[gram] > 1]
        for n in range(2, order - 1):
            contexts = set(levels[n - 1])
            levels[n] = [gram for gram in levels[n] if gram[:-1] in contexts]
        contexts = set(levels[-2])
        levels[-1] = [gram for gram in levels[-1] if gram[:-1] in contexts]
    with open(path, "w") as file:
        file.write("\\data\\\n" + "".join(f"ngram {n}={len(level)}\n" for n, level in enumerate(levels, 1)))
        for n, level in enumerate(levels, 1):
            file.write(f"\n\\{n}-grams:\n")
            for gram in level:
                score = -99 if gram == ("<s>",) else math.log10(probability(gram[:-1], gram[-1]))
                weight = backoff(gram) if n < order and gram != ("<unk>",) else None
                file.write(f"{score:.6g}\t{' '.join(gram)}" + ("" if weight is None else f"\t{weight:.6g}") + "\n")
        file.write("\n\\end\\\n")


def main():
    build_binary, normalizer, novel, pieces, ccnet = sys.argv[1:]
    sys.path.insert(0, normalizer)
    from text_normalizer import normalize

    with gzip.open(novel, "rt", encoding="utf-8-sig") as file:
        paragraphs = [" ".join(part.split()) for part in file.read().split("\n\n")]
    paragraphs = [text for text in paragraphs if len(text) > 60]
    train, test = paragraphs[30:90], paragraphs[400:440]
    words = [re.findall(r"[\w']+|[^\w\s]", normalize(text)) for text in train]
    write_arpa("words.arpa", words, ORDER, 600, prune=True)
    subprocess.run([build_binary, "probing", "words.arpa", "words.bin"], check=True)
    subprocess.run([build_binary, "trie", "words.arpa", "trie.bin"], check=True)
    pathlib.Path("trie.bin").write_bytes(pathlib.Path("trie.bin").read_bytes()[:200])
    with tempfile.NamedTemporaryFile(suffix=".model") as file:
        file.write(gzip.open(pieces).read())
        file.flush()
        processor = sentencepiece.SentencePieceProcessor(model_file=file.name)
    cut = lambda text: processor.encode(normalize(text), out_type=str)
    write_arpa("pieces.arpa", [cut(text) for text in train[:20]], 3, 10**6, prune=False)

    model, of_pieces = kenlm.Model("words.bin"), kenlm.Model("pieces.arpa")
    assert all(abs(kenlm.Model("words.arpa").score(text) - model.score(text)) < 1e-5 for text in test)

    def ccnet_perplexity(model, lines):
        score = sum(model.score(line) for line in lines)
        return 10.0 ** (-score / sum(len(line.encode().split()) + 1 for line in lines))

    with open("expected.jsonl", "w") as file:
        for text in HARD + test:
            plain, tokens = normalize(text), " ".join(cut(text))
            row = {
                "text": text,
                "normalized": plain,
                "score": model.score(text.replace("\n", " ")),
                "perplexity": ccnet_perplexity(model, [plain]) if plain else None,
                "by_line": ccnet_perplexity(model, [normalize(line) for line in (text + "\n" + text).split("\n")]),
                "pieces": ccnet_perplexity(of_pieces, [tokens]) if plain else None,
            }
            file.write(json.dumps(row) + "\n")
    with open("ccnet.json", "w") as file:
        rows = []
        for path in sorted(pathlib.Path(ccnet).glob("*.jsonl.gz")):
            for line in gzip.open(path):
                text = json.loads(line)["text"]
                tokens = " ".join(cut(text))
                rows.append([model.score(text), ccnet_perplexity(model, [normalize(text)]), ccnet_perplexity(of_pieces, [tokens])])
        json.dump(rows, file)


if __name__ == "__main__":
    main()
