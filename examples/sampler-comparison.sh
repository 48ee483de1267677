#!/usr/bin/env bash
# How few steps will do: the embedded model by each sampler, the same seeds, against the validation
# pictures of its ten classes. Interrupted, the same command goes on where it stopped.
#
#   examples/sampler-comparison.sh DATA [OUT] [IMAGES] [OPTION...]
#
# DATA holds tiny-imagenet-val.zip, with WordNet-id folders inside. IMAGES are drawn in each cell, 200 by
# default: about 20 minutes on one CPU core. Options go to adm sweep (--scale 4, --steps 25).
set -euo pipefail
data=${1:?folder of tiny-imagenet-val.zip} out=${2:-out/sampler-comparison} images=${3:-200}
ten=(n01443537 n02056570 n02099601 n02129165 n02279972 n02504458 n04146614 n07747607 n07873807 n09193705)

# The interval leaves guidance out at almost pure noise, where all but DDPM multiply it beyond use.
# Distances are in the features of the embedded noisy classifier: a comparison of samplers, never FID.
if [[ ! -e $out/reference.safetensors ]]; then
    mkdir -p "$out"
    unzip -qo "$data/tiny-imagenet-val.zip" "${ten[@]/%//*}" -d "$out/pictures"
    adm reference "$out/pictures" --resize 32 --features classifier --out "$out/reference.safetensors"
fi
adm sweep --model tiny --class all --total "$images" --scale 1 --cfg 1 \
    --steps 10,20,50 --sampler ddpm,ddim,dpm++2m --guide-interval 0,0.85 \
    --ref "$out/reference.safetensors" --features classifier --metrics fid,pr \
    --out "$out/sweep" "${@:4}"
