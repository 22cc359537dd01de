#!/usr/bin/env bash
# Writes our own golden files (data/cases/golden_set.json) into data/golden: each from the exact
# reference, sealed only when the second evaluation agrees. The inputs come out the same on any machine.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
install_packages
configure release build/quickstart -DATTN_BUILD_TESTS=OFF -DATTN_BUILD_BENCHMARKS=OFF
cmake --build build/quickstart --target attn_compare_cli
exec build/quickstart/bin/attn-compare golden make --list data/cases/golden_set.json -o data/golden "$@"
