#!/bin/sh
# Golden files against a kernel on eight nodes:
#   sbatch examples/slurm_array.sh
# and when the array is done, the verdict of the whole run:
#   attn-compare report merge results/shard-*.sqlite --junit results/report.xml
# A task that was killed or requeued goes on where it was.
#SBATCH --job-name=attn-verify
#SBATCH --array=1-8
#SBATCH --time=00:30:00
#SBATCH --requeue
set -eu
mkdir -p results
exec attn-compare verify data/golden --backend "${KERNEL:-./kernel.so}" --allow-unsupported \
  --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" \
  --results "results/shard-$SLURM_ARRAY_TASK_ID.sqlite"
