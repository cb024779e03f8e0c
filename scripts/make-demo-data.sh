#!/usr/bin/env bash
# Makes examples/demo/site, books and extra.jsonl again from Debian 12 packages; the result is committed.
# Same packages, same bytes. Needs a Debian or Ubuntu machine with apt, dpkg and python3.
# usage: scripts/make-demo-data.sh [FOLDER WITH THE .deb FILES]
set -euo pipefail

packages=(
  "sqlite3-doc=3.40.1-2+deb12u2"
  "golang-github-andybalholm-brotli-dev=1.0.4-3"
  "golang-github-colinmarc-hdfs-dev=2.3.0-2"
)

main() {
  local root debs
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  aside=$(mktemp -d)
  trap 'rm -rf "$aside"' EXIT
  debs=${1:-$aside}
  [ $# -gt 0 ] || (cd "$aside" && apt-get download "${packages[@]}")
  local package
  for package in "${packages[@]}"; do
    dpkg -x "$debs/${package%%=*}_${package#*=}_all.deb" "$aside/unpacked"
  done
  python3 "$root/scripts/make-demo-data.py" "$aside/unpacked" "$root/examples/demo"
}

main "$@"
