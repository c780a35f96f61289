#!/bin/sh
# A task of slurm.sh: the first runs the study, each other one is a worker of it.
set -eu
export FUSION_NAS_HOME="${TMPDIR:-/tmp}/fusion-nas-$SLURM_JOB_ID-$SLURM_PROCID"
export FUSION_NAS_STORE="$SHARED/store"
storage="journal:$SHARED/studies.log"
sh "$(dirname "$0")/add-board.sh"
if [ "$SLURM_PROCID" = 0 ]; then
    cd "$SHARED"
    exec fusion-nas run --storage "$storage" --name "$STUDY" --device board "$@"
fi
# A worker is refused until the run has made the study.
tries=0
until fusion-nas worker --storage "$storage" --name "$STUDY"; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || exit 1
    sleep 10
done
