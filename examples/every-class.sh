#!/usr/bin/env bash
# A few images of every class the model knows, by one process, with one JSON line an image in a ledger.
# Interrupted, the same command goes on.
#   examples/every-class.sh [FOLDER] [IMAGES] [OPTION...]    # options go to adm sample
set -euo pipefail
folder=${1:-out/every-class}
images=${2:-4}

mkdir -p "$folder"
adm sample --class all --num "$images" --json --out "$folder" "${@:3}" >"$folder.jsonl"
wc -l <"$folder.jsonl"
