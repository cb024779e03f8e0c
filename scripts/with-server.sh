#!/usr/bin/env bash
# with-server.sh CORPUS COMMAND…: runs a command with the address of a server over CORPUS, for `{}` or as its last argument.
set -euo pipefail
corpus=$1
shift
[[ -d $corpus ]] || { echo "there is no $corpus: run \`make demo\` first" >&2; exit 2; }
lines=$(mktemp)
target/debug/gristmill serve sql "$corpus" --listen 127.0.0.1:0 >"$lines" &
server=$!
trap 'kill "$server"; wait "$server" || true; rm -f "$lines"' EXIT
for _ in $(seq 100); do
  [[ -s $lines ]] && break
  kill -0 "$server" || exit 2
  sleep 0.1
done
url=$(head -n 1 "$lines")
if [[ " $* " == *" {} "* ]]; then "${@//\{\}/$url}"; else "$@" "$url"; fi
