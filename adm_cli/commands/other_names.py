"""Names of the original's scripts (guided-diffusion) and of other tools, and what they are here.

They are refused, not obeyed: what is meant may differ.
"""

from __future__ import annotations

from collections.abc import Mapping

from adm_cli.diffusion.modifiers import NEUTRAL, OF_TRAJECTORY

_RUN = "torchrun -m adm_cli before the command"
_RUN_JSON = "--like PICTURE, which takes the settings of a picture"
IN_FILE = "in the weights file: leave it out"
_ARCHITECTURE = ("--flags, with the original's flags in quotes", IN_FILE)
_GUIDANCE = ("--scale (of the classifier) or --cfg (classifier-free)", "--scale")
_COUNT = ("--num (of each class) or --total", "--num")
_SIZE = ("--size", "--upsampler (the model's file says the size)", IN_FILE)
_GOES_ON = ("--out, the folder of the run: the same command goes on",)
_PICTURES = ("the argument without an option, a folder of pictures",)

# Name in lower case with hyphens: what it is, by the first of which the command has all options.
OTHER_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "classifier-scale": ("--scale",),
    **dict.fromkeys(("guidance-scale", "guidance", "guidance-strength"), _GUIDANCE),
    **dict.fromkeys(("guidance-weight", "guide-scale", "strength"), _GUIDANCE),
    **dict.fromkeys(("no-guidance", "no-classifier", "unguided"), ("--scale 0",)),
    **dict.fromkeys(("unconditional", "uncond", "no-class"), ("--class none",)),
    **dict.fromkeys(("from", "to"), ("--class 207,281, the way from one to the other",)),
    "cfg-scale": ("--cfg",),
    "cfg-weight": ("--cfg",),
    "w": ("--cfg",),
    "denoising-strength": ("--strength",),
    "noise-strength": ("--strength",),
    "image-strength": ("--strength",),
    "num-samples": ("--total (--num counts those of each class)", "--num"),
    "num-images": ("--total (--num counts those of each class)", "--num"),
    "num-fid-samples": ("--total (--num counts those of each class)", "--num"),
    **dict.fromkeys(("samples", "n-samples"), _COUNT),
    "n": ("--num",),
    "total": ("--num",),
    "sample": ("--num",),
    **dict.fromkeys(("count", "number", "amount", "images"), _COUNT),
    "num-images-per-prompt": ("--num",),
    "timestep-respacing": ("--steps",),
    "num-inference-steps": ("--steps",),
    "num-sampling-steps": ("--steps",),
    "sampling-steps": ("--steps",),
    "num-steps": ("--steps",),
    "n-steps": ("--steps",),
    "ddim-steps": ("--steps",),
    "timesteps": ("--steps",),
    "use-ddim": ("--sampler ddim",),
    "ddim": ("--sampler ddim",),
    "ddim-eta": ("--eta",),
    "s-churn": ("--churn",),
    "autoguidance": ("--weak-model with --weak-scale",),
    "sag": ("--sag-scale",),
    "pag": ("--pag-scale",),
    **dict.fromkeys(("dynamic-threshold", "dynamic-thresholding"), ("--threshold",)),
    "s-noise": ("--churn-noise",),
    **dict.fromkeys(("s-min", "s-tmin"), ("--churn-min",)),
    **dict.fromkeys(("s-max", "s-tmax"), ("--churn-max",)),
    "scheduler": ("--sampler",),
    "sampling-method": ("--sampler",),
    "sample-method": ("--sampler",),
    "solver": ("--sampler",),
    "clip-denoised": ("--clip or --no-clip",),
    "model-path": ("--model", "--init"),
    "checkpoint": ("--model", "--init"),
    "ckpt": ("--model", "--init"),
    "ckpt-path": ("--model", "--init"),
    "weights": ("--model", "--init"),
    "network": ("--model", "--init"),
    "classifier-path": ("--classifier",),
    "sr-model-path": ("--upsampler",),
    "base-samples": _PICTURES,
    "p": ("--class",),
    "prompt": ("--class",),
    "negative-prompt": ("--negative-class",),
    "text": ("--class",),
    "label": ("--class",),
    "labels": ("--class",),
    "classes": ("--class",),
    "class-id": ("--class",),
    "class-ids": ("--class",),
    "class-idx": ("--class",),
    "class-label": ("--class",),
    "class-labels": ("--class",),
    "class-name": ("--class",),
    "y": ("--class",),
    "random-seed": ("--seed",),
    "manual-seed": ("--seed",),
    "batch": ("--batch-size",),
    "bs": ("--batch-size",),
    **dict.fromkeys(
        "outdir outdir-path out-dir out-path output-dir output-path save-dir save-path save-to "
        "save dir folder logdir log-dir results-dir name run-name exp-name".split(),
        ("--out", "--output"),
    ),
    **dict.fromkeys(("force", "f", "replace", "clobber", "yes"), ("--overwrite",)),
    **dict.fromkeys(("resume", "continue", "restart", "go-on"), ("--resume", *_GOES_ON)),
    **dict.fromkeys(("gif", "video", "film", "animation"), ("--animate FILE.gif",)),
    **dict.fromkeys(("save-grid", "make-grid", "contact-sheet", "sheet"), ("--grid",)),
    **dict.fromkeys(("nrow", "ncol", "rows", "columns", "cols"), ("--grid",)),
    **dict.fromkeys(("strip-metadata", "no-exif", "no-recipe"), ("--no-metadata",)),
    **dict.fromkeys(("upscale", "hires", "superres", "sr"), ("--upsampler",)),
    **dict.fromkeys(("gpus", "num-gpus", "nproc"), ("--shard (torchrun shares by itself)", _RUN)),
    **dict.fromkeys(("gpu-id", "device-id", "gpu-ids"), ("--device cuda:0",)),
    **dict.fromkeys(
        ("threads", "num-threads", "nthreads"), ("OMP_NUM_THREADS=4 before the command",)
    ),
    "cache-dir": ("ADM_HOME=FOLDER before the command",),
    **dict.fromkeys(("jobs", "j", "processes"), ("--workers",)),
    **dict.fromkeys(("config", "yaml", "cfg-file", "params"), (_RUN_JSON,)),
    "list": ("the command without an option",),
    "flags": ("--model, of the file that adm convert makes by such flags",),
    "list-models": ("adm models, a command",),
    **dict.fromkeys(("list-samplers", "samplers"), ("--sampler, whose help names them all",)),
    **dict.fromkeys(("events", "jsonl", "json-lines"), ("--json, an object a line",)),
    "gpu": ("--device cuda",),
    "cuda": ("--device cuda",),
    "cpu": ("--device cpu",),
    "precision": ("--dtype",),
    **dict.fromkeys(("fp16", "half", "use-fp16"), ("--dtype float16 (for a GPU)",)),
    "bf16": ("--dtype bfloat16",),
    **dict.fromkeys(
        ("silent", "no-progress", "disable-progress", "disable-tqdm", "no-bar"), ("--quiet",)
    ),
    "progress": ("there always, unless --quiet",),
    "v": ("--version",),
    "verbose": ("ADM_DEBUG=1 before the command, for tracebacks",),
    "ref-batch": ("--ref",),
    "sample-batch": ("the argument without an option, a folder or npz of images",),
    "data-dir": _PICTURES,
    "data-path": _PICTURES,
    "dataset": _PICTURES,
    "val-data-dir": ("--val",),
    "lr-anneal-steps": ("--steps (--anneal linear lowers the rate)", "--steps"),
    "anneal-lr": ("--anneal linear",),
    "iterations": ("--steps",),
    **dict.fromkeys(
        "epochs num-epochs n-epochs max-epochs train-steps".split(), ("--steps or --kimg",)
    ),
    **dict.fromkeys(("pretrained", "finetune", "finetune-from", "from-pretrained"), ("--init",)),
    **dict.fromkeys(
        "grad-accum accumulate gradient-accumulation-steps accumulation-steps".split(),
        ("--microbatch, which computes --batch-size in parts",),
    ),
    **dict.fromkeys(("wandb", "tensorboard-dir", "tb"), ("--tensorboard",)),
    **dict.fromkeys(("optim", "adam", "adamw"), ("--optimizer adamw",)),
    "muon": ("--optimizer muon",),
    **dict.fromkeys(
        ("num-classes", "n-classes", "nc"),
        ("by the pictures' folders (--labels, --class)", IN_FILE),
    ),
    **dict.fromkeys(
        ("early-stopping", "patience"),
        ("always: best.safetensors is of the lowest validation loss",),
    ),
    **dict.fromkeys(("y-axis", "axis", "grid-x"), ("the option itself: --scale 0,1,2",)),
    "max-steps": ("--steps",),
    **dict.fromkeys(("arch", "architecture", "backbone"), ("--preset, --channels or --set",)),
    "learning-rate": ("--lr",),
    "ema-rate": ("--ema",),
    "ema-decay": ("--ema",),
    "log-interval": ("--log-every",),
    "save-interval": ("--save-every",),
    "eval-interval": ("--eval-every",),
    "resume-checkpoint": ("--resume (a run) or --init (weights)",),
    "schedule-sampler": ("--timestep-sampler",),
    "use-checkpoint": ("--gradient-checkpointing", IN_FILE),
    "random-flip": ("--flip or --no-flip",),
    "noised": ("--noise or --no-noise",),
    "num-workers": ("--workers",),
    **dict.fromkeys(("image-size", "img-size", "resolution"), ("--size", IN_FILE)),
    **dict.fromkeys(("width", "height", "size", "w-h"), _SIZE),
    "large-size": ("--size", IN_FILE),
    "small-size": ("--low-size", IN_FILE),
    "num-channels": ("--channels", IN_FILE),
    **dict.fromkeys(
        "attention-resolutions channel-mult class-cond diffusion-steps dropout learn-sigma "
        "noise-schedule num-heads num-head-channels num-heads-upsample num-res-blocks "
        "predict-xstart rescale-learned-sigmas rescale-timesteps resblock-updown use-kl "
        "use-new-attention-order use-scale-shift-norm classifier-attention-resolutions "
        "classifier-depth classifier-pool classifier-resblock-updown classifier-use-fp16 "
        "classifier-use-scale-shift-norm classifier-width".split(),
        _ARCHITECTURE,
    ),
}

_TRAINING = "train-diffusion, train-classifier or train-upsampler"
OTHER_COMMANDS: Mapping[str, str] = {
    **dict.fromkeys(
        "generate gen draw create run infer inference predict demo dream txt2img image-sample "
        "classifier-sample samples".split(),
        "sample",
    ),
    **dict.fromkeys(
        "upscale enlarge superres super-res sr super-resolution super-res-sample".split(),
        "upsample",
    ),
    **dict.fromkeys("img2img inpaint inpainting sdedit repaint invert variations".split(), "edit"),
    **dict.fromkeys(("slerp", "morph", "walk", "interpolation"), "interpolate"),
    **dict.fromkeys(("train", "training", "finetune", "fine-tune", "resume"), _TRAINING),
    **dict.fromkeys(("image-train", "train-model", "train-unet"), "train-diffusion"),
    "classifier-train": "train-classifier",
    **dict.fromkeys(("super-res-train", "train-superres", "train-sr"), "train-upsampler"),
    **dict.fromkeys(("image-nll", "likelihood", "bpd"), "nll"),
    **dict.fromkeys(("eval", "evaluator", "fid", "metrics", "score"), "evaluate"),
    **dict.fromkeys(("download", "get", "pull", "install"), "fetch"),
    **dict.fromkeys(("list", "ls", "presets", "checkpoints"), "models"),
    **dict.fromkeys(("labels", "search", "class", "find"), "classes"),
    **dict.fromkeys(("show", "inspect", "describe"), "info"),
    **dict.fromkeys(("reproduce", "replay"), "repro"),
    **dict.fromkeys(("diagnose", "env", "test", "selftest"), "doctor"),
    **dict.fromkeys(("check", "validate", "repair"), "verify"),
    **dict.fromkeys(("grid", "ablate"), "sweep"),
    "import": "convert",
    "save": "export",
    "version": "--version",
}

# Of guidance, which an upsampler is drawn without.
_GUIDING = (
    *"scale cfg classifier guide-interval cfg-interval entropy-scaling weak-model".split(),
    *(name.replace("_", "-") for name in NEUTRAL if name not in OF_TRAJECTORY),
)
_UNGUIDED = "an upsampler is not guided, as the paper guides the small model alone: leave it out"
# By command and option that others have: why not this one.
_SECOND_WORD = "it is the second word, as in adm export tiny tiny.pt --to original"
REFUSED: Mapping[tuple[str, str], str] = {
    **{("upsample", name): _UNGUIDED for name in _GUIDING},
    **{("export", name): _SECOND_WORD for name in ("o", "out", "output")},
    ("interpolate", "shard"): "its film is of all frames; --workers shares them out here",
    ("sweep", "workers"): "the processes would begin anew for every cell, which takes longer than "
    "a cell; sweeps of parts of the axes may run side by side",
    ("evaluate", "workers"): "what it draws is measured as it comes; draw first, by adm sample "
    "--workers --out FOLDER, then adm evaluate FOLDER",
}
