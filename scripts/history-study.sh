#!/usr/bin/env bash
# Measures the regression gate on real runs of this machine: how often it alarms when nothing changed,
# and how often it finds kernels that make 5 % more calls.
#   scripts/history-study.sh [BUILD [COMPARISONS [COUNTED [PLANTED_PERCENT]]]]   (build/release 200 50 5)
# Each comparison is one process of attn-gate-study, three kernels of the cpu backend on two sides in
# random turns, judged by attn-compare history gate with a second process as its re-run: COMPARISONS
# by times alone, and COUNTED with instruction counts for what the times leave open.
# docs/history.md shows the figures.
set -euo pipefail
build=$(realpath "${1:-build/release}")
comparisons=${2:-200}
counted=${3:-50}
planted=${4:-5}
folder=$(mktemp -d)
# shellcheck disable=SC2064
trap "rm -rf '$folder'" EXIT
export PATH="$build/bin:$PATH"

# study NAME COMPARISONS PERCENT [OPTION...]: $folder/NAME gets what the gate said of each.
study() {
  local name=$1 number=$2 program="attn-gate-study --plant $3 --benchmark_out_format=json" i
  shift 3
  [ "$number" -gt 0 ] || return 0
  for ((i = 0; i < number; ++i)); do
    $program --benchmark_out="$folder/run.json" >/dev/null 2>&1
    rm -f "$folder/study.db"
    attn-compare history import --db "$folder/study.db" "$folder/run.json" >/dev/null
    attn-compare history gate --db "$folder/study.db" --candidate latest@b --baseline latest@a \
      --seed "$i" --rerun "$program --benchmark_out=\$ATTN_RERUN" "$@" \
      >>"$folder/$name" || [ $? -eq 1 ]
  done
  report "$name"
}

# lines NAME PATTERN: how many lines of the study match.
lines() { grep -cE "$2" "$folder/$1" || true; }

report() {
  echo "$1: $(lines "$1" '^[0-9]+ REGRESSED, ') comparisons, exit code 1 in $(lines "$1" '^[1-9][0-9]* REGRESSED, ')"
  echo "  kernels: $(lines "$1" '^REGRESSED ') REGRESSED, $(lines "$1" '^IMPROVED ') IMPROVED," \
    "$(lines "$1" '^SAME ') SAME, $(lines "$1" '^AMBIGUOUS ') AMBIGUOUS"
  echo "  changes of the first run confirmed by the second: $(lines "$1" ', confirmed by a re-run')," \
    "not confirmed: $(lines "$1" 'but not in the re-run'); decided by instructions: $(lines "$1" 'instructions; times')"
}

study a-against-a "$comparisons" 0
study planted "$comparisons" "$planted"
study a-against-a-counted "$counted" 0 --instructions
study planted-counted "$counted" "$planted" --instructions
