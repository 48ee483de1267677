"""`adm convert FOLDER` of what others made of ADM: the original's settings, a classifier beside."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import adm_cli
from adm_cli.checkpoints.header import read_model_file
from adm_cli.checkpoints.loading import build_model
from adm_cli.config import ClassifierConfig, DiffusionConfig, UNetConfig
from tests.conftest import DEEP_CLASSIFIER, DEEP_UNET, Result, randomise

Adm = Callable[..., Result]
UNET = replace(DEEP_UNET, image_size=(16, 16), attention_factors=(2,), num_classes=1000)
CLASSIFIER = replace(
    DEEP_CLASSIFIER, image_size=(16, 16), attention_factors=(2,), model_channels=64,
    num_heads=1, num_head_channels=64, num_classes=1000, pool="adaptive",
)  # fmt: skip
# Flags, as `ModelMixin`s of other people's wrap the original's networks.
UNET_FLAGS = {
    "_class_name": "ADMUNet2DModel",
    "_diffusers_version": "0.31.0",
    "image_size": 16, "num_channels": 32, "num_res_blocks": 1, "channel_mult": "1,1",
    "learn_sigma": True, "class_cond": True, "use_checkpoint": False, "attention_resolutions": "8",
    "num_heads": 4, "num_head_channels": 16, "num_heads_upsample": -1, "use_scale_shift_norm": True,
    "dropout": 0.0, "resblock_updown": True, "use_fp16": False, "use_new_attention_order": False,
    "in_channels": 3, "out_channels": None,
}  # fmt: skip
CLASSIFIER_FLAGS = {
    "_class_name": "ADMClassifierModel",
    "image_size": 16, "classifier_width": 64, "classifier_depth": 1,
    "classifier_attention_resolutions": "8", "classifier_use_scale_shift_norm": True,
    "classifier_resblock_updown": True, "classifier_pool": "adaptive", "use_fp16": False,
    "num_classes": 1000, "classifier_channel_mult": "1,1",
}  # fmt: skip
NOISE = {
    "_class_name": "ADMScheduler", "steps": 100, "learn_sigma": False, "sigma_small": False,
    "noise_schedule": "cosine", "predict_xstart": False, "rescale_timesteps": False,
    "timestep_respacing": "",
}  # fmt: skip
PROCESS = DiffusionConfig(noise_schedule="cosine", num_timesteps=100)
# Arguments of the networks, as a hub's mixin writes them.
UNET_ARGUMENTS = {
    "image_size": 16, "in_channels": 3, "model_channels": 32, "out_channels": 6,
    "num_res_blocks": 1, "attention_resolutions": [2], "channel_mult": [1, 1],
    "num_classes": 1000, "num_heads": 4, "num_head_channels": 16, "use_scale_shift_norm": True,
    "resblock_updown": True,
}  # fmt: skip
CLASSIFIER_ARGUMENTS = {
    "image_size": 16, "in_channels": 3, "model_channels": 64, "out_channels": 1000,
    "num_res_blocks": 1, "attention_resolutions": [2], "channel_mult": [1, 1],
    "num_head_channels": 64, "use_scale_shift_norm": True, "resblock_updown": True,
    "pool": "adaptive",
}  # fmt: skip


def part(
    folder: str, config: UNetConfig | ClassifierConfig, said: dict[str, Any],
    prefix: str = "model.", name: str = "diffusion_pytorch_model.safetensors",
) -> torch.nn.Module:  # fmt: skip
    """A model's folder, written here; the model."""
    model = randomise(build_model(config)).eval()
    Path(folder).mkdir(parents=True)
    state = {f"{prefix}{key}": value for key, value in model.state_dict().items()}
    save_file(state, Path(folder, name), {"format": "pt"})
    Path(folder, "config.json").write_text(json.dumps(said))
    return model


def beside(folder: str, noise: dict[str, Any], **index: Any) -> None:
    Path(folder, "scheduler").mkdir()
    Path(folder, "scheduler", "scheduler_config.json").write_text(json.dumps(noise))
    classes = {"_class_name": ["pipeline", "ADMPipeline"], "unet": ["unet_adm", "ADMUNet2DModel"]}
    Path(folder, "model_index.json").write_text(json.dumps({**classes, **index}))


def test_a_unet_with_its_classifier(adm: Adm) -> None:
    unet = part("c/unet", UNET, UNET_FLAGS)
    classifier = part("c/classifier", CLASSIFIER, CLASSIFIER_FLAGS)
    labels = {str(i): f"thing {i}" for i in range(1000)}
    beside("c", NOISE, id2label=labels)
    Path("c/unet/unet_adm.py").write_text("raise SystemExit('was run')")
    done = adm("convert", "c")
    assert done.code == 0, done.err
    assert "its classifier: adm convert c/classifier" in done.err
    other = adm("convert", "c/classifier", "-o", "cls.safetensors")
    assert other.code == 0, other.err
    found, judge = read_model_file(Path("c.safetensors")), read_model_file(Path("cls.safetensors"))
    assert (found.info.config, judge.info.config) == (UNET, CLASSIFIER)
    assert found.info.diffusion == PROCESS  # six channels are a learned variance
    assert judge.info.diffusion.noise_schedule == "cosine"
    assert found.info.classes == judge.info.classes == {int(i): n for i, n in labels.items()}
    for file, theirs in ((found, unet), (judge, classifier)):
        state = adm_cli.load_model(file.path).state_dict()
        assert all(torch.equal(state[name], value) for name, value in theirs.state_dict().items())
    drawn = adm("sample", "--model", "c.safetensors", "--classifier", "cls.safetensors",
                "--class", "7", "--steps", "2", "--scale", "1", "--out", "r")  # fmt: skip
    assert drawn.code == 0, drawn.err


def test_arguments_of_the_networks(adm: Adm) -> None:
    """A folder each, without a scheduler; classes without names are ImageNet's, as with --flags."""
    part("u", UNET, UNET_ARGUMENTS, "", "model.safetensors")
    part("c", CLASSIFIER, CLASSIFIER_ARGUMENTS, "", "model.safetensors")
    done = adm("convert", "u")
    assert done.code == 0, done.err
    assert "no scheduler_config.json: the original's noise schedule is taken" in done.err
    assert adm("convert", "c").code == 0
    found = read_model_file(Path("u.safetensors")).info
    assert (found.config, found.diffusion) == (UNET, DiffusionConfig())
    assert found.classes[207] == "golden retriever"
    assert read_model_file(Path("c.safetensors")).info.config == CLASSIFIER


def test_a_classifier_alone_with_a_scheduler_of_diffusers(adm: Adm) -> None:
    part("c/classifier", CLASSIFIER, CLASSIFIER_FLAGS)
    beside("c", {
        "_class_name": "DDIMScheduler", "num_train_timesteps": 100,
        "beta_schedule": "squaredcos_cap_v2",
    }, id2label={"207": "an example"})  # fmt: skip
    done = adm("convert", "c", "--dry-run", "--json")
    assert json.loads(done.out)["kind"] == "classifier"
    assert adm("convert", "c").code == 0
    info = read_model_file(Path("c.safetensors")).info
    assert info.diffusion.noise_schedule == "cosine"
    assert info.classes[1] == "goldfish"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"num_channels": 64}, "do not fit the configuration"),
        ({"num_channels": "os.system('x')"}, "--num_channels"),
        ({"attention_resolutions": [[1]]}, "attention_resolutions"),
        ({"x" * 60_000: 1}, "characters of settings"),
        ({"classifier_width": 64, "num_res_blocks": "7"}, "do not fit the configuration"),
    ],
)
def test_what_does_not_fit_is_refused(adm: Adm, changes: dict[str, Any], word: str) -> None:
    part("c", UNET, {**UNET_FLAGS, **changes})
    done = adm("convert", "c")
    assert (done.code, done.out) == (1, "")
    assert len(done.err.splitlines()) == 1
    assert word in done.err, done.err
    assert not Path("c.safetensors").exists()


def test_settings_without_weights(adm: Adm) -> None:
    part("c", UNET, UNET_FLAGS)
    Path("c/diffusion_pytorch_model.safetensors").unlink()
    done = adm("convert", "c")
    assert done.code == 2
    assert "c has a config.json and no weights: expected" in done.err
    Path("c/config.json").write_text("[]")
    assert "c: config.json holds no JSON object" in adm("convert", "c").err
