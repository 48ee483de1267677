#!/usr/bin/env bash
# The paper's studies of the architecture (tables 1 to 3) in small: a model of 32x32 for each row, trained alike
# on your pictures, and a table of its loss and its Fréchet distance. Interrupted, the same command goes on.
#
#   examples/ablations.sh [--quick] DATA [OUT] [OPTION...]
#
# DATA is a folder, zip or tar of some thousand pictures, best with a folder for each class. OPTIONs go to
# adm train-diffusion (--steps 4000, --dtype bfloat16, --class dog). --quick shows that all of it runs, on a
# core in some minutes: its models are too small and its trainings too short for the numbers to mean anything.
#
# In full it is an evening: 2,500 TFLOP of training (counted), 4 hours at the 180 GFLOP/s that four cores of a laptop
# may reach, of which each row takes a twelfth to a twentieth; `adm bench` tells what yours do.
set -euo pipefail
width=96 narrow=64 images=500 given=(--steps 800 --batch-size 32 --val-images 500)
if [[ ${1:-} == --quick ]]; then
    width=64 narrow=32 images=12
    given=(--steps 10 --batch-size 4 --val-images 20 --eval-every 10 --save-every 10 --set patch=2)
    shift
fi
data=${1:?folder, zip or tar of pictures} out=${2:-out/ablations}
more=("${@:3}")

# Distances are in the features of the embedded noisy classifier: a comparison of rows, never FID.
mkdir -p "$out"
[[ -e $out/reference.safetensors ]] || adm reference "$data" --resize 32 --features classifier --out "$out/reference.safetensors"

row() { # NAME, ROW OF THE PAPER, then what is another than in the base
    local run=$out/$1 paper=$2
    if [[ ! -e $run/measured.json ]]; then
        adm train-diffusion "$data" --size 32 --channels "$width" --set 'channel_mult=[1,1,1]' --set 'attention_factors=[4]' \
            --set num_head_channels=none --set num_heads=1 --set resblock_updown=false \
            --timestep-sampler stratified --sample-every 0 "${given[@]}" --out "$run" ${more[@]+"${more[@]}"} "${@:3}"
        adm evaluate --model "$run/model.safetensors" --ref "$out/reference.safetensors" --features classifier \
            --metrics fid,pr --num "$images" --sampler unipc --steps 10 --json >"$run/.measured.json"
        adm info "$run/model.safetensors" --json >"$run/info.json"
        mv "$run/.measured.json" "$run/measured.json"
    fi
    rows+=("$1=$paper")
}
rows=()
multi=(--set 'attention_factors=[2,4]') up=(--set resblock_updown=true)
# Table 1: one change at a time, then those that helped the paper together.
row base ablation-base
row depth4 ablation-depth4 --channels "$narrow" --set num_res_blocks=4
row heads4 ablation-heads4 --set num_heads=4
row multires ablation-multires "${multi[@]}"
row biggan ablation-biggan "${up[@]}"
row rescale ablation-rescale --set rescale_residual=true
row all ablation-all "${multi[@]}" "${up[@]}" --set num_heads=4
# Tables 2 and 3: fewer channels, all else of "all"; first by AdaGN.
small=("${multi[@]}" "${up[@]}" --channels "$narrow")
row 1-head ablation-1-head "${small[@]}"
row 2-heads ablation-2-heads "${small[@]}" --set num_heads=2
row 4-heads ablation-4-heads "${small[@]}" --set num_heads=4
row addition ablation-addition "${small[@]}" --set scale_shift_norm=false
row concatenation - "${small[@]}" --set scale_shift_norm=false --set concat_embedding=true

adm models --ablations --json >"$out/paper.jsonl"
python3 - "$out" "${rows[@]}" <<'PYTHON' | tee "$out/table.md"
import csv, json, pathlib, sys

out = pathlib.Path(sys.argv[1])
paper = {row["name"]: row["fid_700k"] for row in map(json.loads, (out / "paper.jsonl").open())}
print("| row | parameters | steps | validation loss | FD-ADM | precision | recall | the paper's FID at 128x128 |")
print("| --- | --- | --- | --- | --- | --- | --- | --- |")
for name, theirs in (text.rsplit("=", 1) for text in sys.argv[2:]):
    run = out / name
    info, metrics = json.loads((run / "info.json").read_text()), json.loads((run / "measured.json").read_text())["metrics"]
    losses = [line for line in csv.DictReader((run / "metrics.csv").open()) if line.get("val_loss")]
    fd = next(n for n in metrics if n.startswith("fd"))
    cells = ["{value:.3g} ± {error:.2g}".format(**metrics[n]) for n in (fd, "precision", "recall")]
    loss = f"{float(losses[-1]['val_loss']):.4f}" if losses else "-"
    print("|", " | ".join([name, f"{info['parameters']:,}", str(info["training"]["steps"]), loss, *cells, str(paper.get(theirs, "-"))]), "|")
PYTHON
