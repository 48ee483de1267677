#!/usr/bin/env bash
# What guidance trades: fidelity and diversity of the embedded model at scales from 0 to 10, the same
# seeds at each, against the validation pictures of its ten classes. Interrupted, the same command
# goes on where it stopped.
#
#   examples/guidance-tradeoff.sh DATA [OUT] [IMAGES] [OPTION...]
#
# DATA holds tiny-imagenet-val.zip, with WordNet-id folders inside. IMAGES are drawn at each scale, 200
# by default: about ten minutes on a CPU core. Options go to adm sweep (--steps 50, --sampler ddpm).
set -euo pipefail
data=${1:?folder of tiny-imagenet-val.zip} out=${2:-out/guidance-tradeoff} images=${3:-200}
ten=(n01443537 n02056570 n02099601 n02129165 n02279972 n02504458 n04146614 n07747607 n07873807 n09193705)

# 500 pictures, halved to 32x32 as in training. Distances are in the features of the embedded noisy
# classifier, which is also the one that guides: read them as a comparison of scales, never as FID.
if [[ ! -e $out/reference.safetensors ]]; then
    mkdir -p "$out"
    unzip -qo "$data/tiny-imagenet-val.zip" "${ten[@]/%//*}" -d "$out/pictures"
    adm reference "$out/pictures" --resize 32 --features classifier --out "$out/reference.safetensors"
fi
adm sweep --model tiny --class all --total "$images" --scale 0,1,2,4,6,8,10 --cfg 1 --steps 20 \
    --ref "$out/reference.safetensors" --features classifier --metrics fid,pr \
    --out "$out/sweep" "${@:4}"
