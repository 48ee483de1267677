"""The original's flags, whole README commands included."""

from __future__ import annotations

import random
import string
from dataclasses import replace
from typing import Any

import pytest

from adm_cli.checkpoints.flags.model import openai_flags, read_flags
from adm_cli.checkpoints.presets import find_checkpoint
from adm_cli.config import ClassifierConfig, Kind, UNetConfig
from adm_cli.errors import ConfigError
from tests.golden_arrays import architectures, config_from_constructor

PUBLISHED = architectures()["checkpoints"]


def kind_of(row: dict[str, Any]) -> Kind:
    kinds: dict[str, Kind] = {
        "EncoderUNetModel": "classifier",
        "SuperResModel": "upsampler",
        "UNetModel": "diffusion",
    }
    return kinds[row["class"]]


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_readme_commands(name: str) -> None:
    """The README's whole command for each published checkpoint gives its preset's row."""
    row = PUBLISHED[name]
    command = (
        f'MODEL_FLAGS="{row["model_flags"]}"\n'
        f"python {row['sampling_script']} $MODEL_FLAGS \\\n  {row['other_sampling_flags']}"
    )
    config, diffusion = openai_flags(command, kind_of(row))
    ours = config_from_constructor(row["class"], row["constructor_args"])
    if isinstance(ours, UNetConfig) and isinstance(config, UNetConfig):
        ours = replace(ours, low_res_size=config.low_res_size)
    assert config == ours
    sampling = row["sampling_diffusion"]
    assert diffusion.noise_schedule == sampling["noise_schedule"]
    assert diffusion.respacing == sampling["timestep_respacing"]
    assert (diffusion.variance == "learned_range") == sampling["learn_sigma"]
    preset = find_checkpoint(name)
    assert preset.diffusion == diffusion
    assert replace(preset.config, num_heads=config.num_heads) == config


def test_kind_is_inferred() -> None:
    row = PUBLISHED["128x128_diffusion"]
    both = row["model_flags"] + " " + row["other_sampling_flags"]
    assert isinstance(openai_flags(both)[0], UNetConfig)
    train = architectures()["readme_classifier_training"]
    command = f"mpiexec -n 8 python scripts/classifier_train.py --data_dir x {train['TRAIN_FLAGS']}"
    config, _ = openai_flags(f"{command} {train['CLASSIFIER_FLAGS']}")
    assert config == find_checkpoint("128x128_classifier").config
    assert isinstance(openai_flags(train["CLASSIFIER_FLAGS"])[0], ClassifierConfig)
    upsampler, _ = openai_flags(PUBLISHED["64_256_upsampler"]["model_flags"])
    assert isinstance(upsampler, UNetConfig)
    assert upsampler.low_res_size == (64, 64)


def test_defaults_are_the_originals() -> None:
    """No flags at all: the original's script defaults."""
    config, diffusion = openai_flags("")
    assert isinstance(config, UNetConfig)
    assert config.image_size == (64, 64)
    assert (config.model_channels, config.num_res_blocks, config.num_heads) == (128, 2, 4)
    assert list(config.channel_mult) == [1, 2, 3, 4]
    assert list(config.attention_factors) == [4, 8]
    assert config.scale_shift_norm
    assert not config.resblock_updown
    assert (config.out_channels, config.num_classes) == (3, None)
    assert (diffusion.variance, diffusion.loss, diffusion.respacing) == ("fixed_large", "mse", None)


def test_every_known_flag_is_accepted_and_no_other() -> None:
    known = {flag for script in architectures()["cli"].values() for flag in script}
    values = {name: row for s in architectures()["cli"].values() for name, row in s.items()}
    for flag in known:
        default = values[flag]["default"]
        openai_flags(f"--{flag} {default}" if default != "" else f"--{flag}=")
    with pytest.raises(
        ConfigError, match=r"--num_chanels is not one .* did you mean --num_channels"
    ):
        openai_flags("--num_chanels 128")


@pytest.mark.parametrize(("text", "expected"), sorted(architectures()["bool_flag_parsing"].items()))
def test_booleans(text: str, expected: Any) -> None:
    flags = ["--class_cond", text]
    command = f"--class_cond={text}" if not text.strip() or " " in text else " ".join(flags)
    if isinstance(expected, bool):
        config = openai_flags(command)[0]
        assert (config.num_classes is not None) == expected
    elif text.strip() == text:
        with pytest.raises(ConfigError, match="--class_cond"):
            openai_flags(command)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--image_size 32", "no channel multipliers are known for size 32.*--channel_mult"),
        ("--large_size 128 --small_size 32", "no channel multipliers"),
        ("--num_channels 48", "multiple of 32"),
        ("--num_channels 32 --num_head_channels 64 --channel_mult 1,3", "num_head_channels 64"),
        ("--num_channels many", "--num_channels must be a number"),
        ("--attention_resolutions 0", "--attention_resolutions must be image sizes"),
        ("--attention_resolutions=", "--attention_resolutions must be image sizes"),
        ("--channel_mult 1,x", "--channel_mult must be numbers"),
        ("--noise_schedule sqrt", "linear or cosine, got sqrt"),
        ("--classifier_width 64 --classifier_pool max", "--classifier_pool must be"),
        ("--class_cond maybe", "--class_cond must be True or False"),
        ("--class_cond", "--class_cond has no value"),
        ("--diffusion_steps 10", "at least 20"),
        ("nothing here", "no --flags found"),
        ("--a 'unclosed", "quotation"),
    ],
)
def test_bad_flags(flags: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?i){message}"):
        openai_flags(flags)


def test_beyond_the_original() -> None:
    config, _ = openai_flags(
        "--image_size 32 --channel_mult 0.5,1,2 --num_channels 64 --class_cond True "
        "--num_classes 10 --attention_resolutions 8"
    )
    assert isinstance(config, UNetConfig)
    assert config.level_channels == (32, 64, 128)
    assert config.num_classes == 10
    classifier, _ = openai_flags(
        "--image_size 32 --classifier_width 64 --classifier_channel_mult 1,2 --num_classes 10"
    )
    assert isinstance(classifier, ClassifierConfig)
    assert (classifier.level_channels, classifier.num_classes) == ((64, 128), 10)


def test_losses() -> None:
    assert openai_flags("--use_kl True --rescale_learned_sigmas True")[1].loss == "rescaled_kl"
    assert openai_flags("--rescale_learned_sigmas True")[1].loss == "rescaled_mse"
    assert openai_flags("--predict_xstart 1 --rescale_timesteps 1")[1].prediction == "x_start"


def test_random_text_never_escapes() -> None:
    """Anything is either flags or one clear error."""
    source = random.Random(0)
    words = ["--image_size", "--channel_mult", "=", "64", "1,2", "'", '"', "$X", "A=", "\\", "--"]
    for _ in range(2000):
        pieces = [source.choice([*words, source.choice(string.printable)]) for _ in range(6)]
        try:
            openai_flags(" ".join(pieces))
        except ConfigError:
            continue


@pytest.mark.parametrize("width", ["'num_channels'", "'model_channels'"])
@pytest.mark.parametrize("noise", ["", ", 'noise_schedule': 'linear'"])
def test_arguments_of_a_network_do_not_say_its_noise(width: str, noise: str) -> None:
    notes = read_flags(f"{{'image_size': 64, {width}: 32{noise}}}").notes
    said = any("do not say which noise it learned" in note for note in notes)
    assert said == (width == "'model_channels'" and not noise)
