#!/bin/sh
# Makes a folder that runs on a GPU host with no package manager: the programs of a build and the
# shared libraries they need, the C library and CUDA's apart (the host's own must be used).
#   scripts/bundle.sh BUILD_FOLDER OUTPUT_FOLDER [PROGRAM...]
# A PROGRAM may be a library that programs load, libattn_faulty_cuda.so.
set -eu

if [ $# -lt 2 ]; then
  echo "usage: $0 BUILD_FOLDER OUTPUT_FOLDER [PROGRAM...]" >&2
  exit 2
fi
build=$1
out=$2
shift 2
[ $# -gt 0 ] || set -- attn-compare

rm -rf "$out"
mkdir -p "$out/bin" "$out/lib" "$out/libexec"
for program in "$@"; do
  binary=$(find "$build" -type f -name "$program" -perm -u+x | head -n 1)
  if [ -z "$binary" ]; then
    echo "bundle: there is no program $program under $build; build it first" >&2
    exit 1
  fi
  cp "$binary" "$out/libexec/$program"
  strip "$out/libexec/$program"
  case $program in
    *.so)  # loaded by a program beside it
      chmod -x "$out/libexec/$program"
      continue
      ;;
  esac
  # A wrapper, not an rpath: the libraries' own dependencies must be found here too.
  cat > "$out/bin/$program" <<'WRAPPER'
#!/bin/sh
here=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "$here/libexec/$(basename -- "$0")" "$@"
WRAPPER
  chmod +x "$out/bin/$program"
  ldd "$binary" | awk '$3 ~ /^\// {print $3}' | while read -r library; do
    case $(basename "$library") in
      libc.so*|libm.so*|libdl.so*|librt.so*|libpthread.so*|libresolv.so*|libanl.so*|ld-linux*) ;;
      libcuda.so*|libcudart.so*|libcublas*) ;;
      *) cp -L "$library" "$out/lib/" ;;
    esac
  done
done
du -sh "$out" | awk '{print "bundle: " $1 " in '"$out"'"}'
