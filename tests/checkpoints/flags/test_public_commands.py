"""Commands and settings of the kinds that public repositories hold, in our own words."""

from __future__ import annotations

from typing import Any

import pytest

from adm_cli.checkpoints.flags.given import Family
from adm_cli.checkpoints.flags.model import read_flags
from adm_cli.config import ClassifierConfig, UNetConfig
from adm_cli.errors import ConfigError

# What most say of ImageNet at 256: the model of the paper.
BIG = (
    "--attention_resolutions 32,16,8 --diffusion_steps 1000 --image_size 256 --learn_sigma True "
    "--noise_schedule linear --num_channels 256 --num_head_channels 64 --num_res_blocks 2 "
    "--resblock_updown True --use_fp16 True --use_scale_shift_norm True"
)
# A face or flower model of papers that fine-tune: narrow, one head of attention at 16.
SMALL = (
    "--attention_resolutions 16 --class_cond False --diffusion_steps 1000 --image_size 256 "
    "--learn_sigma True --num_channels 128 --num_head_channels 64 --num_res_blocks 1 "
    "--resblock_updown True --use_scale_shift_norm True"
)
MEDICAL = (
    "--image_size 256 --num_channels 128 --num_res_blocks 2 --num_heads 1 --learn_sigma True "
    "--use_scale_shift_norm False --attention_resolutions 16"
)
PIXELS_64 = (
    "--attention_resolutions 32,16,8 --class_cond True --diffusion_steps 1000 --dropout 0.1 "
    "--image_size 64 --learn_sigma True --noise_schedule cosine --num_channels 192 "
    "--num_head_channels 64 --num_res_blocks 3 --resblock_updown True "
    "--use_new_attention_order True --use_fp16 True --use_scale_shift_norm True"
)
CLASSIFIER = (
    "--image_size 256 --classifier_attention_resolutions 32,16,8 --classifier_depth 2 "
    "--classifier_width 128 --classifier_pool attention --classifier_resblock_updown True"
)
OF_256 = {"size": 256, "width": 256, "blocks": 2, "attention": (8, 16, 32), "learned": True}
OF_SMALL = {"size": 256, "width": 128, "blocks": 1, "attention": (16,), "learned": True}
OF_MEDICAL = {"size": 256, "width": 128, "blocks": 2, "attention": (16,), "learned": True}
OF_64 = {"size": 64, "width": 192, "blocks": 3, "attention": (2, 4, 8), "classes": 1000}
OF_CLASSIFIER = {"kind": "classifier", "size": 256, "width": 128, "blocks": 2, "classes": 1000}

COMMANDS: dict[str, tuple[str, dict[str, Any]]] = {
    "flags between a script and its paths": (
        f"python scripts/image_sample.py {BIG} --model_path m.pt --class_cond False",
        {**OF_256, "classes": None},
    ),
    "variables, one of which is nowhere": (
        f'MODEL_FLAGS="{PIXELS_64}"\npython classifier_sample.py $MODEL_FLAGS --classifier_scale '
        "1.0 --classifier_path c.pt --classifier_depth 4 --model_path m.pt $SAMPLE_FLAGS",
        {**OF_64, "notes": "SAMPLE_FLAGS"},
    ),
    "variables of many lines, exported, and a log": (
        f'export CUDA_VISIBLE_DEVICES=0\nMODEL_FLAGS="{PIXELS_64}"\n'.replace(" --", "\n --")
        + "(set -x; python3 -m scripts.classifier_sample $MODEL_FLAGS) > log.txt 2>&1",
        OF_64,
    ),
    "a guide's own flags": (
        f'F="{BIG} --class_cond True"\nG="--guide_scale 1.1 --blur_sigma 3 --sel_depth 8"\n'
        "mpiexec -n 4 python classifier_sample.py $G $F --timestep_respacing ddim25",
        {**OF_256, "respacing": "ddim25", "notes": "--guide_scale, --blur_sigma"},
    ),
    "weights of losses, one process of eight": (
        f"mpiexec -n 8 python image_train.py --data_dir d {SMALL} --p2_gamma 0.5 --p2_k 1",
        {**OF_SMALL, "notes": "--p2_gamma, --p2_k", "processes": 8},
    ),
    "a sampler of one's own": (
        f"python ilvr_sample.py {SMALL} --down_N 16 --range_t 5 --timestep_respacing 100",
        {**OF_SMALL, "respacing": "100", "notes": "--down_N, --range_t"},
    ),
    "perturbed inputs": (
        f"mpirun -np 4 python scripts/image_train.py --input_pertub 0.1 --data_dir d {PIXELS_64}",
        {**OF_64, "notes": "--input_pertub"},
    ),
    "segmentation masks as classes": (
        f"python image_train.py --dataset_mode ade20k {BIG} --class_cond True --num_classes 151 "
        "--no_instance True --drop_rate 0.2",
        {**OF_256, "classes": 151, "notes": "--dataset_mode, --no_instance, --drop_rate"},
    ),
    "flags of a scan's segmentation, alone": (MEDICAL, OF_MEDICAL),
    "variables alone, of a model and its classifier": (
        f'MODEL_FLAGS="{MEDICAL} --class_cond True"\nDIFFUSION_FLAGS="--diffusion_steps 1000 '
        f'--noise_schedule linear --rescale_timesteps False"\nCLASSIFIER_FLAGS="{CLASSIFIER}"',
        {**OF_MEDICAL, "kind": "diffusion", "classes": 1000},
    ),
    "the classifier's training": (
        f"TRAIN_FLAGS='--iterations 3000 --anneal_lr True'\nmpiexec -n 8 python scripts/"
        f"classifier_train.py --data_dir d $TRAIN_FLAGS {CLASSIFIER}",
        {**OF_CLASSIFIER, "processes": 8},
    ),
    "classifiers of pixels on a model's features": (
        f'MODEL_FLAGS="{BIG} --class_cond False"\nfor step in `seq 0 3`\ndo\n    python '
        "train_pixel_classifier.py --steps $step --exp e.json $MODEL_FLAGS\ndone",
        {**OF_256, "kind": "diffusion", "notes": "--steps, --exp"},
    ),
    "the older launcher": (
        f"python -m torch.distributed.launch --nproc_per_node=8 generate_dataset.py {BIG} "
        "--exp e.json --batch_size 16",
        {**OF_256, "processes": 8},
    ),
    "an upsampler": (
        "python super_res_sample.py --large_size 256 --small_size 64 --class_cond True "
        "--num_channels 192 --num_res_blocks 2 --learn_sigma True --attention_resolutions 32,16,8 "
        "--base_samples 64.npz",
        {"kind": "upsampler", "size": 256, "width": 192, "attention": (8, 16, 32)},
    ),
    "a distillation's own schedule": (
        f"mpiexec -n 8 python cm_train.py --training_mode progdist --target_ema_mode fixed "
        f"--start_ema 0.5 --weight_schedule snr {PIXELS_64}",
        {**OF_64, "notes": "--training_mode, --target_ema_mode"},
    ),
    "Slurm": (
        f"#SBATCH --gres=gpu:1\nsrun --mem 16G -n 2 python scripts/image_train.py {SMALL} &",
        {**OF_SMALL, "processes": 2},
    ),
    "a batch file": (
        f"@echo off\r\nset FLAGS={SMALL}\r\npython image_sample.py %FLAGS% ^\r\n --lr 1\r\n",
        OF_SMALL,
    ),
    "a batch file's one line": (f"set F={SMALL}&& python image_sample.py %F%", OF_SMALL),
    "PowerShell's list": (
        "$F = @('--image_size', '64', '--num_channels', '96')\npython image_sample.py @F",
        {"size": 64, "width": 96},
    ),
    "an editor's launch file": (
        '{\n "configurations": [{\n  "name": "train", "program": "image_train.py",\n'
        '  "args": ["--image_size", "64",\n   "--num_channels", "96"]\n }]\n}',
        {"size": 64, "width": 96},
    ),
    "a container's command": (
        'CMD ["python", "image_sample.py", "--image_size", "64", "--num_channels", "96"]',
        {"size": 64, "width": 96},
    ),
    "a cluster's manifest": (
        "args:\n  - --image_size=64\n  - --num_channels=96\n",
        {"size": 64, "width": 96},
    ),
    "a notebook's call": (
        "run(['python', 'image_sample.py', '--image_size', '64', '--num_channels', '96'],"
        " check=True)",
        {"size": 64, "width": 96},
    ),
    "on another machine": (
        f"ssh gpu01 'cd runs && nohup python scripts/image_train.py {SMALL}'",
        OF_SMALL,
    ),
    "a restoration's YAML": (
        "image_size: 256\nnum_channels: 128\nnum_res_blocks: 1\nchannel_mult: \"\"\n"
        "learn_sigma: True\nclass_cond: False\nattention_resolutions: 16\nmodel_path: m.pt",
        OF_SMALL,
    ),
    "an inpainting's YAML, with its data": (
        "attention_resolutions: 32,16,8\nclass_cond: false\nnum_channels: 256\nimage_size: 256\n"
        "learn_sigma: true\nnum_head_channels: 64\ntimestep_respacing: '250'\nshow_progress: true\n"
        "schedule_jump_params:\n  t_T: 250\n  n_sample: 1\ndata:\n  eval:\n    set1:\n"
        "      mask_loader: true\n      image_size: 256\n",
        {**OF_256, "respacing": "250", "classes": None},
    ),
    "arguments of the class in YAML": (
        "data:\n  image_size: 64\n  num_classes: 7\nmodel:\n  image_size: 64\n  in_channels: 3\n"
        "  model_channels: 96   # wide\n  out_channels: 6\n  num_res_blocks: 2\n"
        "  attention_resolutions: [2, 4]\n  channel_mult:\n  - 1\n  - 2\n  num_classes: null\n",
        {"size": 64, "width": 96, "attention": (2, 4), "classes": None, "learned": True},
    ),
    "a notebook's dictionary": (
        "model_config = model_and_diffusion_defaults()\nmodel_config.update({\n"
        "    'attention_resolutions': '32, 16, 8', 'class_cond': False, 'image_size': 256,\n"
        "    'num_channels': 256, 'learn_sigma': True, 'timestep_respacing': '1000'})",
        {**OF_256, "respacing": "1000"},
    ),
    "the classifier's class": (
        "EncoderUNetModel(image_size=64, in_channels=3, model_channels=64, out_channels=10, "
        "num_res_blocks=1, attention_resolutions=(2, 4), pool='attention')",
        {"kind": "classifier", "size": 64, "width": 64, "blocks": 1, "classes": 10},
    ),
    "DeepSpeed": (f"deepspeed --num_gpus=8 scripts/image_train.py {BIG} --lr 1e-4", OF_256),
    "Horovod": (f"horovodrun -np 8 -H localhost:8 python image_train.py {BIG}", OF_256),
    "a queue's script": (
        "#!/bin/bash\n#SBATCH --gres=gpu:4\n#SBATCH --time=24:00:00\nmodule load cuda\ncd $HOME/g\n"
        f"srun --ntasks=4 --gpus-per-task=1 python -u scripts/image_train.py {BIG}",
        OF_256,
    ),
    "a command in quotes for a queue": (
        f"bsub -q gpu -n 4 -R 'rusage[mem=8000]' -o log 'python image_train.py {BIG}'", OF_256,
    ),
    "a container": (
        f"docker run --gpus all --rm -v $PWD:/w -w /w img:1 python scripts/image_sample.py {BIG}",
        OF_256,
    ),
    "an environment's runner": (
        f"conda run -n env --no-capture-output python image_sample.py {BIG}", OF_256,
    ),
    "nice, for an hour": (f"nice -n 10 timeout 3600 python image_sample.py {BIG}", OF_256),
    "a module that runs a script": (
        f"python -m cProfile -o out.prof image_train.py {BIG}", OF_256,
    ),
    "a notebook's braces": (
        f"MODEL_FLAGS='{BIG}'\n!python scripts/image_sample.py {{MODEL_FLAGS}} --batch_size 4",
        OF_256,
    ),
    "PowerShell splits": (
        f"$FLAGS='{BIG}'\npython image_sample.py $FLAGS.Split(' ')", OF_256,
    ),
    "hyphens of a word processor": (
        "python image_sample.py " + BIG.replace("--", "\u2013-", 3).replace("--num", "\u2014num"),
        OF_256,
    ),
    "TOML": (
        "[model]\nimage_size = 256\nnum_channels = 128\nlearn_sigma = true\nclass_cond = false\n",
        {"size": 256, "width": 128, "learned": True, "classes": None},
    ),
    "a default for a variable": (
        f"python image_sample.py {BIG} --image_size ${{SIZE:-256}}", OF_256,
    ),
    "abbreviations, by what the script itself knows": (
        "python image_sample.py --image_size 64 --num_c 192 --clas t --nois cosine",
        {"size": 64, "width": 192, "classes": 1000, "notes": "--num_c as --num_channels"},
    ),
    "argparse's own words": (
        "Namespace(image_size=256, num_channels=256, num_res_blocks=2, learn_sigma=True, "
        "attention_resolutions='32,16,8', class_cond=True)",
        {**OF_256, "classes": 1000},
    ),
}  # fmt: skip


def facts(text: str, family: Family = "guided-diffusion") -> dict[str, Any]:
    reading = read_flags(text, family=family)
    config = reading.config
    assert isinstance(config, (UNetConfig, ClassifierConfig))
    return {
        "kind": reading.kind,
        "size": config.image_size[0],
        "width": config.model_channels,
        "blocks": config.num_res_blocks,
        "attention": tuple(sorted(config.attention_factors)),
        "classes": config.num_classes,
        "learned": isinstance(config, UNetConfig) and config.out_channels == 6,
        "respacing": reading.diffusion.respacing,
        "processes": reading.processes,
        "notes": " ".join(reading.notes),
    }


@pytest.mark.parametrize(("text", "expected"), COMMANDS.values(), ids=COMMANDS.keys())
def test_read_right(text: str, expected: dict[str, Any]) -> None:
    found = facts(text)
    assert expected.get("notes", "") in found.pop("notes")
    assert {name: found[name] for name in expected if name != "notes"} == {
        name: value for name, value in expected.items() if name != "notes"
    }


def test_improved_diffusion_at_32() -> None:
    """Its README's models of 32 pixels need its own defaults, which the error names."""
    text = (
        'MODEL_FLAGS="--image_size 32 --num_channels 128 --num_res_blocks 3 --learn_sigma True"\n'
        'DIFFUSION_FLAGS="--diffusion_steps 4000 --noise_schedule cosine"\n'
        "python scripts/image_train.py --data_dir d $MODEL_FLAGS $DIFFUSION_FLAGS"
    )
    with pytest.raises(ConfigError, match=r"--channel_mult 1,2,2,2; or --flags-of improved"):
        read_flags(text)
    reading = read_flags(text, family="improved-diffusion")
    assert tuple(reading.config.channel_mult) == (1, 2, 2, 2)
    assert reading.diffusion.rescale_timesteps


def test_a_model_and_its_classifier_in_one_file() -> None:
    text = (
        "model:\n  image_size: 64\n  model_channels: 96\n"
        "classifier:\n  image_size: 64\n  model_channels: 64\n  pool: attention\n"
    )
    with pytest.raises(ConfigError, match=r"2 commands that differ \(1: model .*; 2: classifier"):
        read_flags(text)
    for kind, width in (("diffusion", 96), ("classifier", 64)):
        reading = read_flags(text, "diffusion" if kind == "diffusion" else "classifier")
        assert (reading.kind, reading.config.model_channels) == (kind, width)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("python image_sample.py @FLAGS", r"\$FLAGS is not set in the text"),
        ("python image_train.py --config configs/a.yaml", "a.yaml is not in the text: paste what"),
        ("python image_train.py configs/a.json --gpu 0", "a.json is not in the text: paste what"),
        ("python image_sample.py --imagesize 64", "did you mean --image_size"),
        ("model_channels: 64\nimage_size: 32\nin_channels: 4", "in_channels is 4: adm draws RGB"),
    ],
)
def test_asked_back(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_flags(text)
