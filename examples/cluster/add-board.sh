#!/bin/sh
# Adds the board to this home. Its host key is trusted as it is found, once.
set -eu
fusion-nas device add board "$BOARD" --key "$BOARD_KEY"
fusion-nas device trust board --yes
fusion-nas device install board --python "${BOARD_PYTHON:-python3}"
