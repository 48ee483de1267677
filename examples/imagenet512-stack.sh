#!/usr/bin/env bash
# From nothing to 512x512: fetches the three models of the paper's best 512x512 stack and draws with
# it: 128x128 pictures, guided by the 128x128 classifier, then the 128-to-512 upsampler.
#
#   examples/imagenet512-stack.sh [CLASS] [NUM] [FOLDER]
#
# About 3.1 GB to download (research use), and a GPU, or patience: 250 steps of each stage. Run it
# again and it goes on where it stopped, download and pictures alike. For a first look in a tenth of
# the time: STEPS=25 examples/imagenet512-stack.sh
set -euo pipefail
class=${1:-golden retriever}
num=${2:-4}
folder=${3:-out/imagenet512-stack}
steps=${STEPS:-250}

adm fetch imagenet512-stack
adm sample --model imagenet512-stack --class "$class" --num "$num" --steps "$steps" \
    --upsample-steps "$steps" --out "$folder" --keep-base --grid

# a picture carries the recipes of both stages; adm repro makes it again from them
first=("$folder"/*seed*.png)
adm info "${first[0]}"
