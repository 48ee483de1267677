#!/usr/bin/env bash
# Samples for an evaluation: uniform random classes, one npz for the evaluator. Interrupted, the same
# command goes on; what is there is never drawn again.
#   examples/bulk-50k-for-fid.sh [IMAGES] [FOLDER]
set -euo pipefail
images=${1:-50000}
folder=${2:-out/fid-$images}

adm sample --total "$images" --out "$folder" >/dev/null # --class all --total N: each class as often
adm verify "$folder"
adm merge "$folder" --output "$folder.npz" --overwrite
