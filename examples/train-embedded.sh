#!/usr/bin/env bash
# Trains models like the embedded ones from Tiny ImageNet: a 32x32 base, its noisy classifier and a
# 32-to-64 upsampler. Interrupted, the same command goes on where it stopped.
#
#   examples/train-embedded.sh cpu DATA [OUT]   # fine-tunes the embedded pair on its ten classes
#   examples/train-embedded.sh gpu DATA [OUT]   # all 200 classes from scratch, on one large GPU
#
# DATA holds tiny-imagenet-train-*.zip and tiny-imagenet-val.zip, with WordNet-id folders inside.
set -euo pipefail
mode=${1:?cpu or gpu} data=${2:?folder of the zips} out=${3:-training/embedded}
pictures=("$data"/tiny-imagenet-train-*.zip --val "$data/tiny-imagenet-val.zip" --save-dtype float16)

# v-prediction, which models from nothing have anyway: eps leaves colour casts (its error at high
# noise is divided by sqrt(alphas_cumprod) where x_0 is formed)
v=(--set prediction=v --anneal cosine)

# an upsampler of detail alone: convolutions over 2x2 pixels folded into channels, on squares of 32
detail=(--unconditional --size 64 --low-size 32 --set detail_scale=0.32 --set noise_schedule=cosine --set patch=2
    --set num_res_blocks=1 --set resblock_updown=false --set 'attention_factors=[]' --set middle_attention=false
    --set variance=fixed_small --set out_channels=3 --crop 32 --timestep-sampler loss-second-moment)

case $mode in
cpu)
    fast=(--dtype bfloat16 --channels-last --batch-size 16 --ema 0.9995)
    ten=(--class 1,145,207,291,323,386,779,950,963,970)
    adm train-diffusion "${pictures[@]}" "${ten[@]}" "${v[@]}" "${fast[@]}" --init tiny \
        --label-dropout 0.1 --lr 4e-4 --steps 4000 --eval-every 500 --save-every 500 --out "$out/base"
    # trained on, slowly; the second was gone on with after 1,500 of its steps
    on=(--label-dropout 0.1 --timestep-sampler stratified --batch-size 32 --lr 3e-4 --warmup 100
        --set 'betas=[0.9,0.99]' --channels-last --eval-every 500)
    adm train-diffusion "${pictures[@]}" "${ten[@]}" "${v[@]}" "${on[@]}" --init "$out/base/best.safetensors" \
        --random-crop --set least_crop=0.9 --ema 0.998 --steps 1000 --seed 2 --out "$out/base-cropped"
    adm train-diffusion "${pictures[@]}" "${ten[@]}" "${v[@]}" "${on[@]}" --init "$out/base-cropped/best.safetensors" \
        --ema 0.9995,0.999 --steps 20000 --seed 5 --out "$out/base-on"
    adm train-diffusion "${pictures[@]}" "${ten[@]}" "${v[@]}" "${on[@]}" --init "$out/base-on/best.safetensors" \
        --lr 4e-4 --ema 0.999 --steps 2100 --seed 7 --out "$out/base-again"
    adm train-diffusion "${pictures[@]}" "${ten[@]}" "${v[@]}" "${on[@]}" --init "$out/base-again/best.safetensors" \
        --lr 4e-4 --ema 0.999 --steps 2500 --seed 8 --out "$out/base-third"
    adm train-diffusion "${pictures[@]}" "${ten[@]}" "${v[@]}" "${on[@]}" --init "$out/base-third/best.safetensors" \
        --lr 4e-4 --ema 0.999 --steps 4200 --seed 9 --out "$out/base-fourth"
    # the classifier begins with the encoder of a base; trained on with dropout and smaller crops, it
    # does not learn its pictures by heart
    guide=(--batch-size 64 --anneal cosine --label-smoothing 0.1 --channels-last)
    adm train-classifier "${pictures[@]}" "${ten[@]}" "${guide[@]}" --init "$out/base-again/best.safetensors" \
        --lr 5e-4 --steps 450 --eval-every 150 --out "$out/classifier"
    adm train-classifier "${pictures[@]}" "${ten[@]}" "${guide[@]}" --init "$out/classifier/best.safetensors" \
        --lr 6e-4 --steps 2800 --set least_crop=0.7 --set dropout=0.1 --eval-every 200 --out "$out/classifier-on"
    # the detail over the enlarged picture alone, of squares of the pictures of all classes
    adm train-upsampler "${pictures[@]}" "${v[@]}" "${detail[@]}" --channels 64 --set 'channel_mult=[1,2]' \
        --batch-size 64 --lr 4e-4 --set 'betas=[0.9,0.99]' --channels-last --ema 0.999 --steps 6200 \
        --eval-every 500 --save-every 100 --sample-every 0 --val-images 256 --seed 1 --out "$out/upsampler"
    # trained on for 768,000 more; the embedded one began that with classes, which were taken out again
    adm train-upsampler "${pictures[@]}" --init "$out/upsampler/best.safetensors" --unconditional --anneal cosine \
        --crop 32 --timestep-sampler loss-second-moment --batch-size 64 --lr 4e-4 --set 'betas=[0.9,0.99]' \
        --dtype bfloat16 --channels-last --ema 0.999 --steps 12000 --eval-every 1000 --save-every 500 --sample-every 0 \
        --val-images 256 --seed 3 --out "$out/upsampler-on"
    ;;
gpu) # 19.2 M parameters in all, 38 MB in float16
    adm train-classifier "${pictures[@]}" --size 32 --channels 64 --set 'channel_mult=[1,2,3]' \
        --batch-size 512 --lr 6e-4 --steps 12000 --out "$out/classifier"
    adm train-diffusion "${pictures[@]}" "${v[@]}" --size 32 --channels 64 --set 'channel_mult=[1,2,3]' \
        --set 'attention_factors=[2,4]' --set dropout=0.1 --label-dropout 0.1 \
        --batch-size 512 --lr 4e-4 --ema 0.9995 --steps 25000 \
        --classifier "$out/classifier/best.safetensors" --scale 2 --out "$out/base"
    adm train-upsampler "${pictures[@]}" "${v[@]}" "${detail[@]}" --channels 64 --set 'channel_mult=[1,2]' \
        --batch-size 512 --lr 4e-4 --ema 0.9995 --steps 12000 --out "$out/upsampler"
    ;;
*)
    echo "expected cpu or gpu, got $mode" >&2
    exit 2
    ;;
esac
