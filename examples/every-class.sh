#!/usr/bin/env bash
# A few images of every class the model knows, a run for each class, and one JSON line an image in a
# ledger. For one run with all of them: adm sample --class all --num 4 --out FOLDER
#   examples/every-class.sh [FOLDER] [IMAGES]
set -euo pipefail
folder=${1:-out/every-class}
images=${2:-4}
mkdir -p "$folder"
: >"$folder/images.jsonl"

adm classes --model "${ADM_MODEL:-tiny}" --json | sed 's/^{"id": \([0-9]*\),.*/\1/' | while read -r id; do
    adm sample --class "$id" --num "$images" --json --quiet --out "$folder/$id" >>"$folder/images.jsonl"
    echo "class $id done" >&2
done
wc -l <"$folder/images.jsonl"
