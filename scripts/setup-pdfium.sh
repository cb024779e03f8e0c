#!/usr/bin/env bash
# Fetches PDFium, which the `pdf` source reads files with, from the wheel of pypdfium2 (BSD-3-Clause and Apache-2.0) into FOLDER.
#
# usage: scripts/setup-pdfium.sh [FOLDER]      then: export GRISTMILL_PDFIUM=FOLDER/libpdfium.so
set -euo pipefail

folder=${1:-.pdfium}
version=5.15.2
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT

case "$(uname -s)-$(uname -m)" in
Linux-x86_64) library=libpdfium.so ;;
Linux-aarch64) library=libpdfium.so ;;
Darwin-*) library=libpdfium.dylib ;;
*)
  echo "no wheel is known for $(uname -s)-$(uname -m): set GRISTMILL_PDFIUM to a library of your own" >&2
  exit 1
  ;;
esac

python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$temporary" "pypdfium2==$version"
wheel=$(find "$temporary" -name '*.whl')
sha256=$(sha256sum "$wheel" | cut -d' ' -f1)
known="$(dirname "$0")/pdfium.sha256"
if grep -q " $(basename "$wheel")\$" "$known"; then
  if ! grep -q "^$sha256  $(basename "$wheel")\$" "$known"; then
    echo "$(basename "$wheel") has SHA-256 $sha256, which is not the one in $known" >&2
    exit 1
  fi
else
  echo "warning: the SHA-256 of $(basename "$wheel") is not in $known: $sha256" >&2
fi
mkdir -p "$folder"
python3 - "$wheel" "$library" "$folder" <<'PYTHON'
import pathlib, sys, zipfile
wheel, library, folder = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    name = f"pypdfium2_raw/{library}"
    target = pathlib.Path(folder, library)
    target.write_bytes(archive.read(name))
    target.chmod(0o755)
PYTHON
echo "export GRISTMILL_PDFIUM=$(cd "$folder" && pwd)/$library"
