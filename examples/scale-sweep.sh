#!/usr/bin/env bash
# The same seeds at five guidance scales: what does the scale do? Interrupted, the same command goes on.
#   examples/scale-sweep.sh [CLASS] [FOLDER]
set -euo pipefail

adm sweep --class "${1:-207}" --seeds 0-7 --scale 0,1,2,4,8 --out "${2:-out/scale-sweep}"
