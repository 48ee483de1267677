#!/usr/bin/env bash
# What nobody has seen on a GPU yet: run it once on a machine with one, and read its report.
#
#   benchmarks/gpu.sh [REPORT] [GUIDED_DIFFUSION]   # a new folder; a checkout of the original
#
# Correctness against the CPU, determinism, memory running out, speed, training. A part that fails
# is said so and the next one begins; exit code 1 if any did. Needs no weights but the embedded.
set -uo pipefail
report=${1:-gpu-report} original=${2:-}
here=$(cd "$(dirname "$0")" && pwd)
mkdir "$report" || exit 2
failed=()

part() { # NAME COMMAND...: its output in a file and here
    local name=$1
    shift
    echo "== $name: $*"
    if "$@" >"$report/$name.txt" 2>&1; then
        tail -n 30 "$report/$name.txt"
    else
        failed+=("$name")
        echo "FAILED; the end of $report/$name.txt:"
        tail -n 30 "$report/$name.txt"
    fi
}

draw() { adm sample --quiet --seed 0 --num 16 --batch-size 16 --no-upsample "$@"; }

as_the_cpu() { # within 2 of 255 everywhere in float32: kernels add up in another order
    draw --device cpu --out "$report/cpu" && draw --device cuda --dtype float32 --out "$report/cuda" || return 1
    python - "$report/cpu" "$report/cuda" <<'PYTHON'
import sys
from pathlib import Path
import numpy as np
from PIL import Image
pairs = [(p, Path(sys.argv[2]) / p.name) for p in sorted(Path(sys.argv[1]).glob("*.png"))]
assert pairs, "no pictures"
gaps = [np.abs(np.asarray(Image.open(a)).astype(int) - np.asarray(Image.open(b))).max() for a, b in pairs]
print("largest difference of each picture, of 255:", *gaps)
sys.exit(max(gaps) > 2)
PYTHON
}

twice() { # the same bytes; after another batch size only rounding
    draw --device cuda --out "$report/first" && draw --device cuda --out "$report/second" || return 1
    for picture in "$report"/first/*.png; do
        cmp "$picture" "$report/second/${picture##*/}" || return 1
    done
    echo "16 pictures, twice the same bytes"
}

runs_out() { # a batch too large for any card is halved until it fits
    adm sample --device cuda --num 4096 --batch-size 4096 --steps 2 --no-upsample \
        --out "$report/halved" --format npz && adm verify "$report/halved"
}

golden() { ADM_TEST_DEVICE=cuda python -m pytest -q tests/models/test_on_device.py; }

train() { # the embedded base: steps of each dtype, and their memory
    for dtype in float32 bfloat16 float16; do
        python "$here/training.py" --device cuda --dtype "$dtype" --batch-size 256 --row base || return 1
    done
}

part machine adm doctor
part golden golden
part as_the_cpu as_the_cpu
part twice twice
part runs_out runs_out
part embedded adm bench --device cuda --dtype float32,bfloat16,float16 -b 1,16,64
part published64 adm bench --device cuda --model imagenet64 --random-weights --dtype float16,bfloat16 -b 1,16,64
part published256 adm bench --device cuda --model imagenet256 --random-weights --dtype float16,bfloat16 -b 1,8,32
part train train
if [ -n "$original" ]; then
    part original python "$here/against_original.py" "$original" --device cuda --dtype float16 --batch-size 16
fi
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}"
    exit 1
fi
echo "all done; the report is in $report"
