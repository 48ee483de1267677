#!/usr/bin/env bash
# Trains a classifier of clean 64x64 pictures to judge samples by (adm evaluate --judge): the ten embedded
# classes and every sixth of the other 190 of Tiny ImageNet. About an hour on one CPU core.
# Interrupted, the same command goes on.
#
#   examples/train-judge.sh DATA [OUT]
#
# DATA holds tiny-imagenet-train-*.zip and tiny-imagenet-val.zip, with WordNet-id folders inside.
set -euo pipefail
data=${1:?folder of the zips} out=${2:-training/judge}
classes=1,25,71,107,123,145,207,208,286,291,313,323,338,354,386,400,425,438,458,471,496,525,562,
classes+=576,621,655,687,733,747,774,779,811,839,862,887,910,932,950,954,963,970,973
adm train-classifier "$data"/tiny-imagenet-train-*.zip --val "$data/tiny-imagenet-val.zip" --class "$classes" \
    --no-noise --size 64 --channels 32 --set patch=2 --set 'channel_mult=[1,2,3,4]' \
    --set 'attention_factors=[8,16]' --set dropout=0.1 --batch-size 64 --lr 1e-3 --warmup 200 \
    --anneal cosine --steps 2200 --eval-every 200 --seed 7 --channels-last --out "$out"
