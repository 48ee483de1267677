#!/usr/bin/env bash
# Samples for an evaluation: every class as often, one npz for the evaluator. Interrupted, the same
# command goes on; what is there is never drawn again.
#   examples/bulk-50k-for-fid.sh [IMAGES] [FOLDER] [OPTION...]    # options go to adm sample (--model mine.safetensors)
set -euo pipefail
images=${1:-50000}
folder=${2:-out/fid-$images}

adm sample --total "$images" --out "$folder" "${@:3}" >/dev/null # shared out evenly
adm verify "$folder"
adm merge "$folder" --output "$folder.npz" --overwrite
