#!/usr/bin/env bash
# What nobody has seen on a GPU yet: run it once on a machine with one, and read its report.
#
#   benchmarks/gpu.sh [REPORT] [GUIDED_DIFFUSION]   # a new folder; a checkout of the original
#
# Correctness against the CPU, determinism, memory running out, speed, training. A part that fails
# is said so and the next one begins; exit code 1 if any did. Needs torch, numpy, safetensors,
# pillow, typer, rich and filelock: no installed adm, no pytest, no network, no weights but the embedded.
#
#   ADM_GPU_PARTS="golden twice"    these parts alone: machine golden as_the_cpu options twice memory
#                                   embedded published64 published256 train original
#   ADM_GPU_DEVICE=cpu              all of it in small on a CPU, to see that this script works
set -uo pipefail
report=${1:-gpu-report} original=${2:-} device=${ADM_GPU_DEVICE:-cuda} parts=${ADM_GPU_PARTS:-}
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="${here%/*}${PYTHONPATH:+:$PYTHONPATH}"
python=$(command -v python3 || command -v python) || { echo "there is no python" >&2; exit 2; }
mkdir "$report" || exit 2
failed=()

adm() { "$python" -m adm_cli "$@"; }
check() { "$python" "$here/gpu_checks.py" "$@"; }

part() { # NAME COMMAND...: its output in a file and here
    local name=$1 started=$SECONDS
    shift
    case " ${parts:-$name} " in *" $name "*) ;; *) return 0 ;; esac
    echo "== $name: $*"
    if "$@" >"$report/$name.txt" 2>&1; then
        tail -n 30 "$report/$name.txt"
    else
        failed+=("$name")
        echo "FAILED; the end of $report/$name.txt:"
        tail -n 30 "$report/$name.txt"
    fi
    echo "-- $((SECONDS - started)) s"
}

num=16 seconds=1 rows=(-b 1,16,64) rows64=(-b 1,16,64) rows256=(-b 1,8,32) training=(--seconds 20 --batch-size 256)
dtypes=float32,bfloat16,float16 published=float16,bfloat16
if [ "$device" = cpu ]; then
    num=2 seconds=0.01 rows=(-b 1) rows64=(-b 1) rows256=(-b 1 --unguided) training=(--seconds 1 --batch-size 4)
    dtypes=float32 published=float32
fi

draw() { adm sample --quiet --seed 0 --num "$num" --batch-size "$num" --no-upsample --no-grid "$@"; }

machine() { # what adm needs of others and is not here, for other things than these, is no failure
    if [ "$device" != cpu ]; then nvidia-smi || true; fi
    adm doctor || true
}

as_the_cpu() { # within 2 of 255 everywhere in float32: kernels add up in another order
    draw --device cpu --out "$report/cpu" && draw --device "$device" --dtype float32 --out "$report/device" &&
        check pictures "$report/cpu" "$report/device"
}

twice() { # the same bytes
    draw --device "$device" --out "$report/first" && draw --device "$device" --out "$report/second" || return 1
    for picture in "$report"/first/*.png; do
        cmp "$picture" "$report/second/${picture##*/}" || return 1
    done
    echo "$num pictures, twice the same bytes"
}

train() { # the embedded base: steps of each dtype, and their memory
    for dtype in ${dtypes//,/ }; do
        "$python" "$here/training.py" --device "$device" --dtype "$dtype" --row base "${training[@]}" || return 1
    done
}

bench() { adm bench --device "$device" --seconds "$seconds" "$@"; }

part machine machine
part golden check golden "$device"
part as_the_cpu as_the_cpu
part options check options "$device" "$report/options"
part twice twice
part memory check memory "$device" "$report/halved"
part embedded bench --dtype "$dtypes" "${rows[@]}"
part published64 bench --model imagenet64 --random-weights --dtype "$published" "${rows64[@]}"
part published256 bench --model imagenet256 --random-weights --dtype "$published" "${rows256[@]}"
part train train
if [ -n "$original" ]; then
    dtype=float16
    if [ "$device" = cpu ]; then dtype=float32; fi
    part original "$python" "$here/against_original.py" "$original" --device "$device" --dtype "$dtype" --batch-size "$num"
fi
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}"
    exit 1
fi
echo "all done; the report is in $report"
