#!/usr/bin/env bash
# Checks against other libraries, in a Python environment of their own under .venv (several GB, made once).
# usage: scripts/interop.sh interop|python
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
what=${1:?"usage: scripts/interop.sh interop|python"}
venv=${GRISTMILL_VENV:-$PWD/.venv}
wanted=$(sha256sum <tests/interop/requirements.txt)
if [ -z "${GRISTMILL_VENV:-}" ] && [ "$(cat "$venv/installed" 2>/dev/null)" != "$wanted" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet -r tests/interop/requirements.txt
  "$venv/bin/pip" install --quiet --no-deps megatron-core==0.16.1 mosaicml-streaming==0.13.0
  echo "$wanted" >"$venv/installed"
fi
export GRISTMILL=${GRISTMILL:-$PWD/target/debug/gristmill}
build() {
  (cd python && VIRTUAL_ENV=$venv PATH=$venv/bin:$PATH maturin develop --quiet "${MATURIN_PROFILE:---release}")
}
case $what in
  interop)
    "$venv/bin/python" -m pytest -q tests/interop
    build
    "$venv/bin/python" examples/open-tokens.py tests/formats/v1/tokens
    ;;
  python)
    build
    "$venv/bin/python" -m pytest -q python/tests
    ;;
  *) echo "unknown check \`$what\`" >&2; exit 2 ;;
esac
