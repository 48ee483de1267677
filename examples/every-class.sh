#!/usr/bin/env bash
# Four images of every class the model knows, one JSON line an image in a ledger.
#   examples/every-class.sh [FOLDER]
set -euo pipefail
folder=${1:-out/every-class}
mkdir -p "$folder"

adm classes --model "${ADM_MODEL:-tiny}" --json | sed 's/^{"id": \([0-9]*\),.*/\1/' | while read -r id; do
    adm sample --class "$id" --num 4 --seed $((id * 4)) --json --quiet --out "$folder" >>"$folder/images.jsonl"
    echo "class $id done" >&2
done
wc -l <"$folder/images.jsonl"
