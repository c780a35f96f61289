#!/bin/bash
# A study on a Slurm cluster without a database: `sbatch slurm.sh --data DIR --trials 200 ...`
# The environment says SHARED (a folder that all nodes see), STUDY (its name), BOARD and BOARD_KEY.
#SBATCH --job-name=fusion-nas
#SBATCH --ntasks=4
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail
: "${SHARED:?a folder that all nodes see}" "${STUDY:?the name of the study}"
: "${BOARD:?as ssh://user@host}" "${BOARD_KEY:?the private key file to log in with}"
srun --kill-on-bad-exit=0 sh "$SLURM_SUBMIT_DIR/slurm-task.sh" "$@"
