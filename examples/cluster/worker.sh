#!/bin/sh
# One Dask worker. With RESOURCES=GPU=1 it has a GPU of its own, by CUDA_VISIBLE_DEVICES.
set -eu
sh "$(dirname "$0")/add-board.sh"
exec dask worker "$SCHEDULER" --nthreads 1 --memory-limit 0 ${RESOURCES:+--resources "$RESOURCES"}
