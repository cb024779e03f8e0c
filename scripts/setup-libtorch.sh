#!/usr/bin/env bash
# Installs libtorch for the trainer into a folder of this repository, once. See usage below.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/setup-libtorch.sh [cpu|cuda] [--into DIR] [--list]

  cpu         what every machine needs, 0.5 GB on disk (default)
  cuda        the same version with its CUDA libraries, about 4 GB on disk
  --into DIR  folder to fill instead of .libtorch
  --list      print the wheels that would be fetched and their sums, then stop

Does nothing when the folder already holds what is asked for, and nothing but a version check when
LIBTORCH names a libtorch of your own. pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, ...) apply.
TEXT
}

say() { printf 'setup-libtorch: %s\n' "$*" >&2; }
die() { say "$1"; [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2; exit 2; }

main() {
  scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  local mode=cpu into=$scripts/../.libtorch list=no
  while [ $# -gt 0 ]; do
    case $1 in
      cpu | cuda) mode=$1 ;;
      --into) into=${2:?"--into needs a folder"}; shift ;;
      --list) list=yes ;;
      -h | --help) usage; exit 0 ;;
      *) usage >&2; die "unknown argument \`$1\`" ;;
    esac
    shift
  done
  local wheels=$scripts/libtorch-$mode.txt
  version=$(sed -n 's/^torch==\([^ ]*\).*/\1/p' "$wheels")

  if [ "$list" = yes ]; then
    grep -v '^#' "$wheels"
    exit 0
  fi
  require_tools cargo cc c++
  if [ -n "${LIBTORCH:-}" ]; then
    check_own "$LIBTORCH"
    exit 0
  fi
  [ "$(uname -sm)" = "Linux x86_64" ] || die "cannot install libtorch on $(uname -sm): only Linux on x86_64 is supported yet" \
    "point LIBTORCH at a libtorch $version of your own (the folder that holds include/ and lib/)"

  mkdir -p "$into"
  into=$(cd "$into" && pwd)
  stamp=$into/installed
  wanted="torch $version $mode $(sha256sum <"$wheels" | cut -c1-64)"
  exec 9>"$into/lock"
  flock 9 # a second `make` waits here, then finds the work done
  if is_installed "$mode"; then
    say "libtorch $version is in $into"
    exit 0
  fi
  require_tools python3 pip
  install "$wheels" "$mode" "$into"
}

# A CUDA install serves a CPU build as well.
is_installed() {
  [ -f "$stamp" ] || return 1
  local found
  found=$(cat "$stamp")
  [ "$found" = "$wanted" ] && return 0
  [ "$1" = cpu ] && [ "$found" = "torch $version cuda $(sha256sum <"$scripts/libtorch-cuda.txt" | cut -c1-64)" ]
}

# Fills $into: the wheels are unpacked aside, the folders renamed, the stamp written last.
install() {
  local wheels=$1 mode=$2 into=$3
  aside=$into/partial
  rm -rf "$aside"
  mkdir -p "$aside/wheels" "$aside/tmp"
  trap 'rm -rf "$aside"' EXIT

  say "fetching torch $version ($mode) and $(($(grep -vc '^#' "$wheels") - 1)) more wheels with pip; once, this takes a while"
  fetch "$wheels" "$aside"
  say "unpacking into $into"
  unpack "$aside/wheels" "$aside" "$mode"
  [ "$mode" = cuda ] || link_stub "$aside/torch/lib"
  # torch-sys compares this with the version that it was made for.
  echo "$version" >"$aside/torch/build-version"
  sync -f "$aside"

  rm -f "$stamp"
  local folder
  for folder in torch nvidia; do
    rm -rf "${into:?}/$folder"
    mv "$aside/$folder" "$into/$folder"
  done
  echo "$wanted" >"$stamp.new"
  mv "$stamp.new" "$stamp"
  say "libtorch $version is in $into"
}

# The Python tag (cp311) says nothing about the C++ libraries inside, so any Python can fetch them.
fetch() {
  local platforms=() platform
  for platform in manylinux1 manylinux2014 manylinux_2_{5,12,17,18,24,25,26,27,28}; do
    platforms+=(--platform "${platform}_x86_64")
  done
  TMPDIR=$2/tmp python3 -m pip download --disable-pip-version-check --quiet --progress-bar off \
    --no-deps --only-binary=:all: --require-hashes \
    --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none "${platforms[@]}" \
    --dest "$2/wheels" --requirement "$1" ||
    die "cannot fetch the wheels in \`$1\`" "check the network and the free disk space, then run the same command again"
}

unpack() {
  python3 - "$@" <<'PYTHON'
import fnmatch, pathlib, sys, zipfile

wheels, into, mode = sys.argv[1:]
wanted = {
    "cpu": [
        "torch/lib/libtorch_cpu.so", "torch/lib/libc10.so", "torch/lib/libgomp.so.1", "torch/include/*",
        "nvidia/*/lib/libcudart.so.13", "nvidia/*/lib/libcupti.so.13", "*.dist-info/*LICENSE*",
    ],
    "cuda": ["torch/lib/*", "torch/include/*", "nvidia/*", "*.dist-info/*LICENSE*"],
}[mode]
for wheel in sorted(pathlib.Path(wheels).glob("*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted):
                target = f"{into}/torch/licenses" if ".dist-info/" in name else into
                archive.extract(name, target)
PYTHON
}

# torch-sys links `-ltorch`; the wheel's own libtorch.so would drag CUDA's half in.
link_stub() {
  cc -shared -x c /dev/null -o "$1/libtorch.so" -Wl,-soname,libtorch.so \
    -Wl,--no-as-needed,--allow-shlib-undefined -L"$1" -ltorch_cpu -lc10 -Wl,-rpath,"\$ORIGIN"
}

# Accepts a libtorch that the user brought, if it is of our version.
check_own() {
  local found=unknown
  [ -f "$1/lib/libtorch_cpu.so" ] || die "LIBTORCH is \`$1\`, but \`$1/lib/libtorch_cpu.so\` is missing" \
    "unset LIBTORCH to have libtorch installed here"
  if [ -f "$1/build-version" ]; then
    found=$(cat "$1/build-version")
  elif [ -f "$1/version.py" ]; then # as pip unpacks it
    found=$(sed -n "s/^__version__ = '\(.*\)'/\1/p" "$1/version.py")
  fi
  case $found in
    "$version" | "$version"+*) say "using libtorch $found from LIBTORCH=$1" ;;
    *) die "LIBTORCH is \`$1\`, whose build-version is $found; wanted $version" \
      "unset LIBTORCH to have the right one installed here" ;;
  esac
}

# Names every missing tool at once, with the package that has it.
require_tools() {
  local tool missing=()
  for tool in "$@"; do
    case $tool in
      pip) python3 -m pip --version >/dev/null 2>&1 || missing+=("python3 -m pip: apt install python3-pip") ;;
      python3) command -v python3 >/dev/null || missing+=("python3: apt install python3-pip") ;;
      cargo) command -v cargo >/dev/null || missing+=("cargo: install Rust with rustup, https://rustup.rs") ;;
      *) command -v "$tool" >/dev/null || missing+=("$tool: apt install build-essential") ;;
    esac
  done
  [ ${#missing[@]} -eq 0 ] && return
  say "these tools are missing:"
  printf '  %s\n' "${missing[@]}" >&2
  exit 2
}

main "$@"
