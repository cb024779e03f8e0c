#!/usr/bin/env bash
# Makes a frozen corpus of the format that this build writes: tests/formats/vN. Only for a new N: what is there is never
# written again, because later builds must open what earlier ones wrote.
# usage: tests/formats/make.sh N
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
version=${1:?"usage: tests/formats/make.sh N"}
into=$PWD/tests/formats/v$version
gristmill=${GRISTMILL:-target/debug/gristmill}
[ ! -e "$into" ] || { echo "$into is there already" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Sentences of our own making, so the corpus is under the licence of the repository.
awk 'BEGIN {
  split("miller baker farmer carter sailor weaver mason tinker", who)
  split("grinds carries weighs counts sorts sells stores mends", does)
  split("barley|oats|winter wheat|rye flour|old sacks|a mill stone|the north wheel|three carts", what, "|")
  split("by the river|before noon|in the rain|at the market|under the bridge|after harvest|with care", where, "|")
  for (n = 0; n < 60; n++) {
    text = ""
    for (i = 0; i < 4 + n % 9; i++) {
      k = n * 31 + i * i * 7 + i
      text = text "The " who[k % 8 + 1] " " does[int(k / 3) % 8 + 1] " " what[int(k / 5) % 8 + 1] " " where[k % 7 + 1] ". "
    }
    printf "{\"text\":\"%sWrite to mill%d@mail.com.\",\"url\":\"http://mill.test/%d\"}\n", text, n, n
  }
  print "{\"text\":\"Too short.\"}"
  print "not JSON"
}' >"$work/texts.jsonl"
cat >"$work/job.toml" <<TOML
name = "frozen"
output = "corpus"
seed = 7
keep_text = true

[[source]]
kind = "jsonl"
path = "texts.jsonl"

[[step]]
use = "length"
min_words = 5

[[step]]
use = "mask_pii"

[shard]
tokenizer = "train:bpe:320"
split = { train = 0.8, validation = 0.2 }
TOML
"$gristmill" run "$work/job.toml" --quiet
mkdir "$into"
for dataset in documents dropped edits tokens; do
  mkdir "$into/$dataset"
  (cd "$work/corpus/$dataset" && cp -R data manifest README.md "$into/$dataset/")
done
cp "$work"/corpus/tokens/tokenizer-*.json "$into/tokens/"
