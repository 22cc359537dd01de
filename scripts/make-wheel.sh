#!/bin/sh
# Makes a Python wheel with the programs and the shared libraries that they need inside: it installs
# with pip, without root, compiler or network.
#   scripts/make-wheel.sh BUILD_FOLDER OUTPUT_FOLDER
set -eu

if [ $# -ne 2 ]; then
  echo "usage: $0 BUILD_FOLDER OUTPUT_FOLDER" >&2
  exit 2
fi
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
build=$1
out=$2
for name in attn-compare libattn_compare.so libattn_faulty.so; do
  if [ ! -f "$build/bin/$name" ]; then
    echo "make-wheel: $build/bin has no $name; build it first" >&2
    exit 1
  fi
done
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage/attn_compare/_bin" "$stage/attn_compare/_lib" "$out"
cp "$root"/harness/python/attn_compare/*.py "$stage/attn_compare/"
for name in attn-compare libattn_compare.so libattn_faulty.so libattn_faulty_memory.so attn_faulty_memory.so attn-bench; do
  [ -f "$build/bin/$name" ] || continue
  cp "$build/bin/$name" "$stage/attn_compare/_bin/"
  strip "$stage/attn_compare/_bin/$name"
  # The C library and CUDA's apart: the host's own must be used.
  ldd "$build/bin/$name" | awk '$3 ~ /^\// {print $3}' | while read -r library; do
    case $(basename "$library") in
      libc.so*|libm.so*|libdl.so*|librt.so*|libpthread.so*|libresolv.so*|libanl.so*|ld-linux*) ;;
      libcuda.so*|libcudart.so*|libcublas*) ;;
      *) cp -L "$library" "$stage/attn_compare/_lib/" ;;
    esac
  done
done
version=$("$build/bin/attn-compare" --version | sed -n '1s/.* //p')
python3 "$root/scripts/pack_wheel.py" "$stage" "$version" "$out"
