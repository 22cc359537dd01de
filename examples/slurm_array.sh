#!/bin/sh
# Golden files, then generated cases, against a kernel on eight nodes:
#   sbatch examples/slurm_array.sh
# and when the array is done, the two verdicts:
#   attn-compare report merge results/verify-*.sqlite --junit results/verify.xml
#   attn-compare report merge results/fuzz-*.sqlite --junit results/fuzz.xml --corpus failures
# A task that was killed or requeued goes on where it was.
#SBATCH --job-name=attn-compare
#SBATCH --array=1-8
#SBATCH --time=00:30:00
#SBATCH --requeue
set -u
mkdir -p results
kernel="${KERNEL:-./kernel.so}"
shard="$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
attn-compare verify data/golden --backend "$kernel" --allow-unsupported --shard "$shard" \
  --results "results/verify-$SLURM_ARRAY_TASK_ID.sqlite"
verified=$?
attn-compare fuzz --backend "$kernel" --gate "${GATE:-nightly}" --shard "$shard" \
  --results "results/fuzz-$SLURM_ARRAY_TASK_ID.sqlite"
fuzzed=$?
[ "$verified" -ne 0 ] && exit "$verified"
exit "$fuzzed"
