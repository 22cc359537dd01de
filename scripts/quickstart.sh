#!/usr/bin/env bash
# From a fresh clone to the first answer: installs what is missing, builds Release, and checks every
# golden file of data/golden against every backend that this machine can run.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
install_packages
configure release build/quickstart -DATTN_BUILD_TESTS=OFF -DATTN_BUILD_BENCHMARKS=OFF
cmake --build build/quickstart --target attn_compare_cli attn_python
echo
exec build/quickstart/bin/attn-compare verify data/golden/*.h5
