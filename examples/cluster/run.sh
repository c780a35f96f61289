#!/bin/sh
# Runs a study on the cluster; the arguments are those of `fusion-nas run`.
set -eu
sh "$(dirname "$0")/add-board.sh"
python -c 'import sys
from distributed import Client
Client(sys.argv[1]).wait_for_workers(int(sys.argv[2]), timeout=300)' "$SCHEDULER" "$WORKERS"
exec fusion-nas run --engine dask --scheduler "$SCHEDULER" --workers "$WORKERS" \
    --storage "$STORAGE" --device board "$@"
