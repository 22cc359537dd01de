#!/bin/sh
# Proves the CUDA layers on this machine's GPU and keeps the results.
#   scripts/gpu-check.sh PROGRAMS [STEP...]
# PROGRAMS is a build's bin folder, or bin of what scripts/bundle.sh made (attn-compare,
# attn-gpu-conformance, gpu_layer_test, write_variants and attn-bench are needed). Steps, all of
# them when none is named; none takes five minutes, and all of them less than twelve:
#   verify     every file of data/golden
#   cases      6,000 of the gates' cases in every execution mode; writes conformance.json
#   layers     the layers against themselves: fused and unfused kernels, repeats, large caches
#   variants   every proof of data/variants.json; writes variants.json, which docs/variants.md shows
#   memcheck, racecheck, synccheck, initcheck
#              compute-sanitizer on 149 small cases, on prefill from images of codes, on products of
#              gptq and q4_k, and on the pass that makes float8 codes, in one process
#   faults     planted bugs of the CUDA path: which does the pr gate notice? Writes faults.json
#              and the line of docs/power.md; needs libattn_faulty_cuda.so beside the programs
#   bench      our kernels by themselves; writes DEVICE-attn-bench.json
#   speed      beside PyTorch's and JAX's kernels, when python3 has torch; writes DEVICE-peers.json
# A program that has not ended after five minutes is ended (ATTN_GPU_STEP_SECONDS): a kernel may hang.
# A step that has passed for the same commit is not repeated; ATTN_GPU_CHECK_AGAIN=1 repeats it.
# Results: data/gpu/DEVICE/, speeds in data/bench/.
set -eu

root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
if [ $# -lt 1 ]; then
  sed -n '2,20s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
programs=$(CDPATH= cd -- "$1" && pwd)
shift
[ $# -gt 0 ] || set -- verify cases layers variants memcheck racecheck synccheck initcheck \
  faults bench speed
cd "$root"

device=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 | tr ' ' '-')
if [ -z "$device" ]; then
  echo "gpu-check: no GPU: nvidia-smi names none" >&2
  exit 1
fi
out=data/gpu/$device
speeds=data/bench/$device
mkdir -p "$out" data/bench
commit=$("$programs/attn-compare" doctor | sed -n 's/.*commit \([0-9a-f]*\)\(-dirty\)*$/\1\2/p')
done_file=$out/.done

# A program of a step, which ends in time or is said to hang.
within() {
  seconds=${ATTN_GPU_STEP_SECONDS:-300}
  status=0
  timeout -k 5 "$seconds" "$@" || status=$?
  case $status in
    124 | 137) echo "no end after $seconds s: $*" >&2 ;;
  esac
  return "$status"
}

passed() { [ -z "${ATTN_GPU_CHECK_AGAIN:-}" ] && grep -qx "$commit $1" "$done_file" 2>/dev/null; }

# compute-sanitizer does not follow the bundle's shell wrapper on its own.
sanitizer_run() {
  tool=$1
  target=$programs/gpu_layer_test
  [ -x "$programs/../libexec/gpu_layer_test" ] && target=$programs/../libexec/gpu_layer_test
  if ! command -v compute-sanitizer > /dev/null; then
    echo "compute-sanitizer is not installed" >&2
    return 1
  fi
  # One host thread: racecheck loses launches that overlap.
  LD_LIBRARY_PATH=$programs/../lib:${LD_LIBRARY_PATH:-} ATTN_GPU_THREADS=1 within \
    compute-sanitizer --tool "$tool" --error-exitcode 1 "$target" \
    --gtest_filter='*.PassesASmallCoveringSet:GpuFp8.QuantisesToTheBit:HopperPrefill.PassesOneTile*Codes:HopperPrefill.PassesOneTileByFp8Products' > "$out/.$tool.log" 2>&1 ||
    { tail -n 20 "$out/.$tool.log"; return 1; }
  tail -n 1 "$out/.$tool.log"
}

run_step() {
  case $1 in
    verify)
      within "$programs/attn-compare" verify data/golden --backend cuda > "$out/.verify.log" 2>&1 ||
        { tail -n 20 "$out/.verify.log"; return 1; }
      tail -n 2 "$out/.verify.log"
      ;;
    cases) within "$programs/attn-gpu-conformance" 6000 "$out/conformance.json" ;;
    layers)
      ATTN_GPU_CASES=${ATTN_GPU_CASES:-1000} within "$programs/gpu_layer_test" --gtest_filter='-*PassesRandomCases' \
        > "$out/.layers.log" 2>&1 || { tail -n 1 "$out/.layers.log"; grep -B 3 -A 3 Failure "$out/.layers.log" | head -n 40; return 1; }
      tail -n 1 "$out/.layers.log"
      ;;
    variants) ATTN_SOURCE=$root within "$programs/write_variants" cuda > "$out/variants.json" ;;
    bench)
      within "$programs/attn-bench" --shapes prefill,decode,layer,small \
        --benchmark_out="$speeds-attn-bench.json" --benchmark_out_format=json > "$out/.bench.log" 2>&1 || { tail "$out/.bench.log"; return 1; }
      sed -i '/"host_name"\|"executable"/d' "$speeds-attn-bench.json"
      if grep -q error_message "$speeds-attn-bench.json"; then
        grep error_message "$speeds-attn-bench.json" | sort -u
        return 1
      fi
      ;;
    memcheck | racecheck | synccheck | initcheck) sanitizer_run "$1" ;;
    faults)
      # Its exit code is 1 for any survivor; the goal of the gate is 95 %.
      within "$programs/attn-compare" faults --backend cuda --gate pr -v --record "$out/faults.json" \
        > "$out/.faults.log" 2>&1 || true
      grep '! ' "$out/.faults.log" | head -n 40
      line=$(grep 'planted bugs killed' "$out/.faults.log") || { tail -n 5 "$out/.faults.log"; return 1; }
      echo "$line"
      sed -i "/<!-- cuda score -->/,/<!-- .cuda score -->/{/^[0-9]/c\\$line
}" docs/power.md
      case $line in *' 0 false alarms') ;; *) return 1 ;; esac
      killed=${line%% of *}
      rest=${line#* of }
      [ $((killed * 100)) -ge $((${rest%% *} * 95)) ]
      ;;
    speed)
      library=$(find "$programs" "$programs/../lib" "$programs/.." -maxdepth 3 \
                  -name 'libattn_layer_shim.so' 2>/dev/null | head -n 1)
      if ! python3 -c 'import torch' 2>/dev/null || [ -z "$library" ]; then
        echo "no torch for python3, or no libattn_layer_shim.so beside the programs" >&2
        return 1
      fi
      "$programs/attn-bench" --list > "$out/.cases.json" &&
        within python3 harness/bench/peers --library "$library" --cases "$out/.cases.json" \
          --commit "$commit" --json "$speeds-peers.json" > "$out/.peers.log" 2>&1 ||
        { tail -n 20 "$out/.peers.log"; return 1; }
      ;;
    *)
      echo "there is no step $1; known: verify cases layers variants memcheck racecheck synccheck initcheck faults bench speed" >&2
      return 2
      ;;
  esac
}

failed=0
for step in "$@"; do
  if passed "$step"; then
    echo "$step: passed before for $commit"
    continue
  fi
  begin=$(date +%s)
  if run_step "$step"; then
    echo "$step: passed in $(($(date +%s) - begin)) s"
    case $commit in *-dirty) ;; *) echo "$commit $step" >> "$done_file" ;; esac
  else
    echo "$step: FAILED"
    failed=1
  fi
done
exit $failed
