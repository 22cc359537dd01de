#!/usr/bin/env bash
# Builds and runs the tests. scripts/test.sh [PRESET] [ctest options...]; PRESET is release (default),
# dev, asan-ubsan, cpu-only or cuda. Tests labelled slow are left out; run them with -L slow.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
install_packages packages-browser.txt
preset=release
case "${1:-}" in
  release | dev | asan-ubsan | cpu-only | cuda) preset=$1; shift ;;
esac
configure "$preset" "build/$preset" -DATTN_BUILD_TESTS=ON -DATTN_WERROR=ON
cmake --build "build/$preset"
filter=(-LE slow)
case " $* " in *" -L "*) filter=() ;; esac
log="build/$preset.ctest.log"
status=0
ctest --test-dir "build/$preset" -j "$(nproc)" --output-on-failure --no-tests=error \
  --output-junit "$ROOT/build/$preset.junit.xml" "${filter[@]}" "$@" | tee "$log" || status=$?
# A suite that skips everything still says "100% passed", so the GPU tests are counted apart.
gpu=$(ctest --test-dir "build/$preset" -L gpu -N | sed -n 's/^Total Tests: //p')
skipped=$(grep -c 'gpu.*\*\*\*Skipped' "$log" || true)
if nvidia-smi >/dev/null 2>&1; then device="a device is present"; else device="no device here"; fi
echo "gpu tests: $((gpu - skipped)) run, $skipped skipped ($device)"
browser=$(grep -c '_browser_test .*\*\*\*Skipped' "$log" || true)
[ "$browser" -eq 0 ] || echo "browser tests of the dashboard: $browser skipped; ctest -R browser -V says why"
exit "$status"
