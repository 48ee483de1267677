"""Flags as people paste them: what a model then is, what is told, and what is asked back."""

from __future__ import annotations

from typing import Any

import pytest

from adm_cli.checkpoints.flags.model import FlagReading, read_flags
from adm_cli.config import ClassifierConfig, UNetConfig
from adm_cli.errors import ConfigError

SMALL = "--image_size 64 --num_channels 64"
BASE = "--attention_resolutions 32,16,8 --learn_sigma True --resblock_updown True"


def unet(reading: FlagReading) -> UNetConfig:
    assert isinstance(reading.config, UNetConfig)
    return reading.config


# What the original's parser makes of its README: kind, size, channels, blocks, heads, channels a
# head, attention factors, multipliers, classes, new order, dropout, fp16, schedule, respacing.
MULT = {64: (1, 2, 3, 4), 128: (1, 1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4),
        512: (0.5, 1, 1, 2, 2, 4, 4)}  # fmt: skip
README: list[tuple[str, str, tuple[Any, ...]]] = [
    ("classifier_sample.py", "--class_cond True --dropout 0.1 --image_size 64 --noise_schedule "
     "cosine --num_channels 192 --num_head_channels 64 --num_res_blocks 3 "
     "--use_new_attention_order True --use_fp16 True --classifier_depth 4",
     ("diffusion", 64, 192, 3, 4, 64, (2, 4, 8), 1000, "new", 0.1, True, "cosine")),
    ("classifier_sample.py", "--class_cond True --image_size 128 --noise_schedule linear "
     "--num_channels 256 --num_heads 4 --num_res_blocks 2 --use_fp16 True --classifier_scale 0.5",
     ("diffusion", 128, 256, 2, 4, None, (4, 8, 16), 1000, "legacy", 0.0, True, "linear")),
    ("classifier_sample.py", "--class_cond False --image_size 256 --noise_schedule linear "
     "--num_channels 256 --num_head_channels 64 --num_res_blocks 2 --use_fp16 True",
     ("diffusion", 256, 256, 2, 4, 64, (8, 16, 32), None, "legacy", 0.0, True, "linear")),
    ("classifier_sample.py", "--class_cond True --image_size 512 --noise_schedule linear "
     "--num_channels 256 --num_head_channels 64 --num_res_blocks 2 --use_fp16 False",
     ("diffusion", 512, 256, 2, 4, 64, (16, 32, 64), 1000, "legacy", 0.0, False, "linear")),
    ("image_sample.py", "--class_cond False --dropout 0.1 --image_size 256 --num_channels 256 "
     "--noise_schedule linear --num_head_channels 64 --num_res_blocks 2 --use_fp16 True",
     ("diffusion", 256, 256, 2, 4, 64, (8, 16, 32), None, "legacy", 0.1, True, "linear")),
    ("super_res_sample.py", "--class_cond True --large_size 256  --small_size 64 --num_channels "
     "192 --num_heads 4 --num_res_blocks 2 --use_fp16 True --base_samples 64_samples.npz",
     ("upsampler", 256, 192, 2, 4, None, (8, 16, 32), 1000, "legacy", 0.0, True, "linear")),
]  # fmt: skip


@pytest.mark.parametrize(("script", "flags", "expected"), README)
def test_what_the_original_reads(script: str, flags: str, expected: tuple[Any, ...]) -> None:
    text = (
        'SAMPLE_FLAGS="--batch_size 4 --num_samples 100 --timestep_respacing 250"\n'
        f'MODEL_FLAGS="{BASE} --diffusion_steps 1000 {flags} --use_scale_shift_norm True"\n'
        f"mpiexec -n 4 python scripts/{script} $MODEL_FLAGS --model_path m.pt $SAMPLE_FLAGS\n"
    )
    reading = read_flags(text)
    config = unet(reading)
    assert expected == (
        reading.kind, config.image_size[0], config.model_channels, config.num_res_blocks,
        config.num_heads, config.num_head_channels, config.attention_factors, config.num_classes,
        config.qkv_order, config.dropout, config.use_fp16, reading.diffusion.noise_schedule,
    )  # fmt: skip
    assert config.channel_mult == MULT[config.image_size[0]]
    assert (config.resblock_updown, config.scale_shift_norm, config.out_channels) == (True, True, 6)
    assert (reading.diffusion.respacing, reading.processes, reading.notes) == ("250", 4, ())


@pytest.mark.parametrize(
    "text",
    [
        f"torchrun --nproc_per_node=2 --image_size scripts/image_train.py {SMALL}",
        f"python -m torch.distributed.launch --nproc_per_node 2 scripts/image_train.py {SMALL}",
        f"accelerate launch --num_processes 2 --num_channels x.py {SMALL}",
        f"srun -n 2 python -u -m scripts.image_train {SMALL}",
        f"CUDA_VISIBLE_DEVICES=0,1 mpirun -np 2 -mca btl ^openib python3 image_train.py {SMALL}",
        f"--num_channels 32 {SMALL}",
        "--image_size 64\n--num_channels 64",
        f"python /a/b/image_train.py --image_size=128 {SMALL}",
        f"cd x\npip install --upgrade y\npython image_train.py {SMALL}\npython setup.py install",
        f"UNUSED='--num_channels 96'\nA='{SMALL}'\npython image_train.py $A",
        "{'image_size': 64, 'num_channels': 64}",
        "$F = '--image_size', '64', '--num_channels', '64'\npython image_train.py @F",
        "A = '--num_channels 64'\nif x; then y; fi\npython image_train.py $A",
        "set A=--image_size 64\r\npython image_train.py %A% ^\r\n --num_channels 64 ^ %*",
    ],
)
def test_one_model_many_ways(text: str) -> None:
    config = unet(read_flags(text))
    assert (config.image_size, config.model_channels) == ((64, 64), 64)


def test_variables_without_a_command_stand_for_their_flags() -> None:
    reading = read_flags('A="--image_size 64"\nB="--num_channels 64 --lr 1e-4"\nDIR=x')
    assert unet(reading).model_channels == 64
    assert reading.given["lr"] == 1e-4


def test_foreign_flags_are_named_in_one_note() -> None:
    text = (
        f"--p2_gamma 1 --gpu {SMALL} --gpus 0 1 --in_channels=1 --p2_gamma 2 --gpu --class_cond 1"
    )
    reading = read_flags(text)
    assert unet(reading).num_classes == 1000
    assert reading.notes == (
        "passed over, not flags of the original: --p2_gamma, --gpu, --gpus, --in_channels",
    )
    with pytest.raises(ConfigError, match="not flags of the original: --p2_gamma, --gpu, --gpus"):
        read_flags(text, strict=True)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (f"python image_sample.py {SMALL} $SAMPLE_FLAGS $1", "as nothing: $SAMPLE_FLAGS, $1"),
        (f"{SMALL} --use_ddim", "without a value, passed over: --use_ddim"),
        ("--image_size 64 --num_chan 64", "read --num_chan as --num_channels"),
        ("python x.py --image_size 64 \\\n# no\n --num_channels 64", "behind a comment"),
        (f"{SMALL} --diffusion_steps 4000", "pass --flags-of improved-diffusion"),
        (f"{SMALL} --sigma_small True", "pass --flags-of improved-diffusion"),
        ("{'image_size': 64, 'use_fp16': gpu}", "left at the default: --use_fp16"),
        (
            "if a; then F='--image_size 64'; else F='--image_size 128'; fi\npython x.py $F",
            "set in several branches, the last is read: $F",
        ),
        (
            "case $1 in\n 64) F='--image_size 64';;\n *) F='--image_size 128';;\nesac\n"
            "python x.py $F",
            "the last is read: $F",
        ),
        (f"python image_sample.py {SMALL} {{{{flags}}}}", "read as nothing: {{flags}}"),
    ],
)
def test_what_is_told(text: str, note: str) -> None:
    assert any(note in text for text in read_flags(text).notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("python image_train.py $MODEL_FLAGS --image_size 64", r"\$MODEL_FLAGS is not set"),
        ("python image_train.py $FLAGS", r"\$FLAGS is not set in the text"),
        (f"{SMALL} --num_heads $H", r"--num_heads is '\$H', whose value is not in the text"),
        ("{'image_size': side}", "--image_size is 'side', whose value"),
        (f"{SMALL} --batch_size many", "--batch_size must be a number, got 'many'"),
        (f"{SMALL} --use_ddim maybe", "--use_ddim must be True or False"),
        (f"{SMALL} --classifier_depth x", "--classifier_depth must be a number"),
        (f"{SMALL} --attention_resolutions 16, 8", "takes one value, got '16,' and '8'"),
        ("python x.py --image_size 64\n--num_channels 64", "does not belong to the command before"),
        ("--num_chanels 64", "did you mean --num_channels"),
        ("python x.py -image_size 64 -num_channels 96", "-image_size has one dash"),
        ("python image_train.py {{flags}}", r"\{\{flags\}\} is not set in the text"),
        ("create_model(64, 96, 3, learn_sigma=True)", "64, 96, 3 are given by their places"),
        ("--image_size 32", "or --flags-of improved-diffusion, which knows 32"),
        (f"--lr {SMALL}", "flag --lr has no value"),
    ],
)
def test_what_is_asked_back(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_flags(text)


def test_several_commands() -> None:
    text = (
        f"python classifier_train.py --image_size 64 --classifier_depth 4\n"
        f"python image_train.py {SMALL}\npython image_sample.py {SMALL} --batch_size 4\n"
    )
    with pytest.raises(ConfigError, match=r"3 commands that differ \(1: classifier_train.py.*"
                       r"2: image_train.py.*--command N"):  # fmt: skip
        read_flags(text)
    assert unet(read_flags(text, command=3)).model_channels == 64
    assert isinstance(read_flags(text, "classifier").config, ClassifierConfig)
    assert unet(read_flags(text, "diffusion")).model_channels == 64  # both say the same
    with pytest.raises(ConfigError, match="--command 4: there are 3"):
        read_flags(text, command=4)
    with pytest.raises(ConfigError, match=r"2 commands that differ \(1: if a .*2: if b "):
        read_flags("if a:\n  m = {'image_size': 64}\nelif b:\n  m = {'image_size': 128}")


def test_the_kind_is_in_the_name_of_the_script() -> None:
    assert read_flags("python classifier_train.py --image_size 64").kind == "classifier"
    assert read_flags("python super_res_train.py --num_channels 64").kind == "upsampler"
    assert read_flags("python image_sample.py --classifier_depth 4").kind == "diffusion"
    with pytest.raises(ConfigError, match=r"train\.py describes a classifier model"):
        read_flags("python classifier_train.py --image_size 64", "diffusion")


def test_improved_diffusion() -> None:
    text = "--image_size 32 --num_channels 128 --num_res_blocks 3 --diffusion_steps 4000"
    reading = read_flags(text, family="improved-diffusion")
    assert unet(reading).channel_mult == (1, 2, 2, 2)
    assert (reading.diffusion.rescale_timesteps, reading.diffusion.loss) == (True, "rescaled_mse")
    assert (reading.diffusion.variance, reading.notes) == ("fixed_large", ())
    small = read_flags(f"{text} --sigma_small True --rescale_timesteps False",
                       family="improved-diffusion")  # fmt: skip
    assert (small.diffusion.variance, small.diffusion.rescale_timesteps) == ("fixed_small", False)
    with pytest.raises(ConfigError, match="known for size 128"):
        read_flags("--image_size 128", family="improved-diffusion")
    with pytest.raises(ConfigError, match="--flags-of other: expected guided-diffusion or"):
        read_flags(text, family="other")  # type: ignore[arg-type]


def test_arguments_of_the_class() -> None:
    config = unet(read_flags(
        "UNetModel(image_size=64, in_channels=3, model_channels=64, out_channels=6, "
        "num_res_blocks=1, attention_resolutions=(2, 8), channel_mult=(1, 2), num_classes=10)"
    ))  # fmt: skip
    assert (config.model_channels, config.out_channels, config.num_classes) == (64, 6, 10)
    assert (sorted(config.attention_factors), config.channel_mult) == ([2, 8], (1, 2))


def test_all_that_is_misspelt_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read_flags("--image_sise 64 --num_chanels 64 --larn_sigma True --num_chanels 32")
    told = str(caught.value)
    for name in ("--image_size?", "--num_channels?", "--learn_sigma?"):
        assert told.count(name) == 1, told
