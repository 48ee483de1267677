#!/usr/bin/env bash
# The same seeds at five guidance scales: what does the scale do? Interrupted, the same command goes on.
#   examples/scale-sweep.sh [CLASS] [FOLDER]
set -euo pipefail
class=${1:-207}
folder=${2:-out/scale-sweep}

for scale in 0 1 2 4 8; do
    adm sample --class "$class" --seeds 0-7 --scale "$scale" --grid --out "$folder/scale-$scale" >/dev/null
    echo "$folder/scale-$scale/grid.png"
done
