"""`adm export`: the original's .pt and diffusers' folders, and `adm convert` of both back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import adm_cli
from adm_cli.checkpoints.diffusers import misfits, unet_settings
from adm_cli.checkpoints.format import save_model
from adm_cli.checkpoints.header import ModelInfo, read_model_file
from adm_cli.checkpoints.loading import build_model
from adm_cli.checkpoints.presets import CHECKPOINTS
from adm_cli.config import ClassifierConfig, UNetConfig
from tests.conftest import (
    DEEP_UNET,
    TOY_CLASSES,
    TOY_CLASSIFIER,
    TOY_DIFFUSION,
    TOY_UNET,
    TOY_UPSAMPLER,
    Result,
    Toys,
    randomise,
    save_toy,
)

Adm = Callable[..., Result]
ORDERS = replace(DEEP_UNET, qkv_order="new", num_classes=None, out_channels=3)
FIXED = replace(TOY_DIFFUSION, noise_schedule="cosine", variance="fixed_large", respacing="ddim5")
PLAIN = replace(
    DEEP_UNET, resblock_updown=False, scale_shift_norm=False, attention_factors=(), null_class=True
)
WIDE = replace(
    DEEP_UNET, image_size=(8, 16), channel_mult=(1, 2, 2), attention_factors=(1, 2),
    num_res_blocks=2, middle_attention=False,
)  # fmt: skip
FITTING = {"deep": DEEP_UNET, "new order": ORDERS, "plain": PLAIN, "wide": WIDE}


def toy(config: UNetConfig, name: str = "m.safetensors") -> Path:
    learned = config.learned_variance
    return save_toy(
        Path(name), config, None if config.num_classes else {}, TOY_DIFFUSION if learned else FIXED
    )


def same_weights(a: Path, b: Path) -> bool:
    one, two = adm_cli.load_model(a).state_dict(), adm_cli.load_model(b).state_dict()
    return list(one) == list(two) and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    "config",
    [DEEP_UNET, TOY_UPSAMPLER, replace(TOY_CLASSIFIER, model_channels=64, num_head_channels=64)],
    ids=["diffusion", "upsampler", "classifier"],
)
def test_the_originals_file_comes_back_as_it_was(
    adm: Adm, config: UNetConfig | ClassifierConfig
) -> None:
    model = save_toy(Path("m.safetensors"), config)
    done = adm("export", model, "--to", "original", "sub/x.pt")
    assert done.code == 0, done.err
    path, flags = done.out.splitlines()
    assert "NUM_CLASSES = 5" in done.err
    stored = torch.load(path, weights_only=True)
    assert type(stored) is dict
    build_model(config).load_state_dict(stored, strict=True)
    back = adm("convert", path, "--flags", flags, "--classes", "@names", "-o", "b.safetensors")
    assert back.code == 2  # there is no such list
    Path("names").write_text("".join(f"{i} {name}\n" for i, name in TOY_CLASSES.items()))
    back = adm("convert", path, "--flags", flags, "--classes", "@names", "-o", "b.safetensors")
    assert back.code == 0, back.err
    assert same_weights(model, Path("b.safetensors"))
    old, new = read_model_file(model).info, read_model_file(Path("b.safetensors")).info
    assert (old.diffusion, old.classes) == (new.diffusion, new.classes)


def test_types_are_kept(adm: Adm) -> None:
    tensors = {k: v.bfloat16() for k, v in randomise(build_model(TOY_UNET)).state_dict().items()}
    info = ModelInfo(config=TOY_UNET, diffusion=TOY_DIFFUSION, classes=TOY_CLASSES)
    save_model(Path("h.safetensors"), tensors, info)
    found = json.loads(adm("export", "h.safetensors", "x.pt", "--to", "original", "--json").out)
    assert (found["path"], found["to"], found["kind"]) == ("x.pt", "original", "diffusion")
    stored = torch.load("x.pt", weights_only=True)
    assert all(torch.equal(stored[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("name", FITTING)
def test_a_folder_of_diffusers_comes_back_as_it_was(adm: Adm, name: str) -> None:
    config = FITTING[name]
    model = toy(config)
    assert adm("export", model, "f", "--to", "diffusers").out == "f\n"
    back = adm("convert", "f", "--json")
    assert back.code == 0, back.err
    path = Path(json.loads(back.out)["path"])
    assert path == Path("f.safetensors").resolve()
    assert same_weights(model, path)
    old, new = read_model_file(model).info, read_model_file(path).info
    assert (old.diffusion, old.classes) == (new.diffusion, new.classes)
    pipeline = Path("f/model_index.json")
    assert pipeline.exists() == (config.num_classes is None)
    alone = adm("convert", "f/unet", "--dry-run", "--json")  # the scheduler is beside it
    assert json.loads(alone.out)["parameters"] == read_model_file(model).parameters


def strip(folder: Path) -> None:
    """As another program would have written it: nothing of adm in its weights."""
    from safetensors.torch import load_file, save_file

    path = folder / "unet/diffusion_pytorch_model.safetensors"
    save_file(load_file(path), path, {"format": "pt"})


def test_a_folder_of_another_program_computes_the_same(adm: Adm) -> None:
    """Its heads are in one order, whatever ours were in."""
    model = toy(DEEP_UNET)
    adm("export", model, "f", "--to", "diffusers")
    strip(Path("f"))
    back = adm("convert", "f", "-o", "b.safetensors")
    assert back.code == 0, back.err
    assert "the model's classes are unnamed: pass --classes" in back.err
    info = read_model_file(Path("b.safetensors")).info
    assert isinstance(info.config, UNetConfig)
    assert info.config.qkv_order == "new"
    assert info.diffusion == replace(TOY_DIFFUSION, respacing=None)
    x, t, y = torch.randn(2, 3, 8, 8), torch.tensor([3, 77]), torch.tensor([0, 3])
    one, two = (adm_cli.load_model(path)(x, t, y) for path in (model, Path("b.safetensors")))
    assert torch.allclose(one, two, atol=1e-6)


SETTINGS = "f/unet/config.json"
NOISE = "f/scheduler/scheduler_config.json"


@pytest.mark.parametrize(
    ("file", "changes", "word"),
    [
        (SETTINGS, {"_class_name": "os.system"}, "_class_name is 'os.system'"),
        (SETTINGS, {"flip_sin_to_cos": False}, "flip_sin_to_cos is false"),
        (SETTINGS, {"norm_eps": 1e-6}, "norm_eps is 1e-06"),
        (SETTINGS, {"attn_norm_num_groups": None}, "attn_norm_num_groups is null, expected 32"),
        (SETTINGS, {"down_block_types": ["AttnDownBlock2D"] * 3}, "up_block_types"),
        (SETTINGS, {"block_out_channels": [32, 10**9]}, "channel_mult must be"),
        (
            SETTINGS,
            {"layers_per_block": 2},
            "does not fit its config.json: no down_blocks.0.resnets.1",
        ),
        (SETTINGS, {"block_out_channels": [32, 64]}, "do not fit the configuration"),
        (SETTINGS, {"sample_size": None}, "is no ADM"),
        (SETTINGS, {"in_channels": 3.0}, "in_channels has an unexpected value 3.0"),
        (SETTINGS, {"down_block_types": [[], {}]}, "expected 2 down_block_types"),
        (SETTINGS, {"time_embedding_dim": 64}, "time_embedding_dim is 64, expected 128"),
        (NOISE, {"beta_start": 0.1}, "betas from 0.1"),
        (NOISE, {"beta_schedule": "sigmoid"}, "beta_schedule is 'sigmoid'"),
        (NOISE, {"trained_betas": [0.1]}, "trained_betas is set"),
        (NOISE, {"num_train_timesteps": 10**9}, "betas from"),
        (NOISE, {"prediction_type": "flow"}, "prediction_type is 'flow'"),
    ],
)
def test_what_is_no_adm_is_refused(adm: Adm, file: str, changes: dict[str, Any], word: str) -> None:
    adm("export", toy(DEEP_UNET), "f", "--to", "diffusers")
    strip(Path("f"))
    said = json.loads(Path(file).read_text())
    Path(file).write_text(json.dumps(said | changes))
    done = adm("convert", "f")
    assert (done.code, done.out) == (1, "")
    assert len(done.err.splitlines()) == 1
    assert word in done.err, done.err
    assert not Path("f.safetensors").exists()


def test_folders_that_are_none(adm: Adm) -> None:
    Path("f").mkdir()
    assert "is a folder without config.json" in adm("convert", "f").err
    adm("export", toy(DEEP_UNET), "f", "--to", "diffusers")
    assert "which says itself" in adm("convert", "f", "--flags", "--image_size 8").err
    whole = Path(SETTINGS).read_text()
    Path(SETTINGS).write_text("{")
    assert "config.json is no JSON" in adm("convert", "f").err
    Path(SETTINGS).write_text(whole)
    Path(NOISE).unlink()
    done = adm("convert", "f")
    assert done.code == 2
    assert "has no scheduler/scheduler_config.json" in done.err


@pytest.mark.parametrize(
    ("config", "to", "word"),
    [
        (TOY_CLASSIFIER, "diffusers", "is a classifier, for which diffusers has no model"),
        (TOY_UPSAMPLER, "diffusers", "also sees a small picture"),
        (replace(TOY_UNET, patch=2), "diffusers", "folds patches of 2x2 pixels"),
        (replace(DEEP_UNET, num_head_channels=None, num_heads=2, channel_mult=(1, 2),
                 attention_factors=(1, 2)), "diffusers", "of several widths"),
        (replace(DEEP_UNET, model_channels=64, channel_mult=(0.5, 1)), "diffusers",
         "its first level has 32 channels"),
        (replace(TOY_UNET, rescale_residual=True), "diffusers", "residual sums are scaled"),
        (replace(TOY_UNET, attention_window=4), "original", "attention in windows"),
    ],
)  # fmt: skip
def test_models_that_do_not_fit_are_refused(
    adm: Adm, config: UNetConfig | ClassifierConfig, to: str, word: str
) -> None:
    model = save_toy(Path("m.safetensors"), config)
    done = adm("export", model, "x.pt", "--to", to)
    assert (done.code, done.out) == (2, "")
    assert word in done.err
    assert not Path("x.pt").exists()


def test_timesteps_that_others_cannot_be_told(adm: Adm) -> None:
    process = replace(TOY_DIFFUSION, rescale_timesteps=True, num_timesteps=4000)
    model = save_toy(Path("m.safetensors"), TOY_UNET, diffusion=process)
    assert "sees 4000 timesteps as 1000" in adm("export", model, "f", "--to", "diffusers").err


def test_nothing_is_replaced_unasked(adm: Adm, toys: Toys) -> None:
    for to, output in (("original", "x.pt"), ("diffusers", "f")):
        assert adm("export", toys.model, output, "--to", to).code == 0
        done = adm("export", toys.model, output, "--to", to)
        assert done.code == 1
        assert "exists already: pass --overwrite" in done.err
        assert adm("export", toys.model, output, "--to", to, "--overwrite").code == 0
    assert "ends in .pt" in adm("export", toys.model, "x.bin", "--to", "original").err
    assert "x.pt is a file" in adm("export", toys.model, "x.pt", "--to", "diffusers").err
    with pytest.raises(adm_cli.AdmError, match="--to gguf: expected original, diffusers or onnx"):
        adm_cli.export(toys.model, "x", to="gguf")  # type: ignore[arg-type]


def test_their_settings_are_plain(adm: Adm) -> None:
    """What is written is JSON of numbers and words, the same each time."""
    said = unet_settings(DEEP_UNET)
    assert json.loads(json.dumps(said)) == said
    assert said["down_block_types"] == ["ResnetDownsampleBlock2D", "AttnDownBlock2D"]
    assert said["attention_head_dim"] == 16


@pytest.mark.parametrize("name", FITTING)
def test_diffusers_computes_the_same(adm: Adm, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network, and ten steps of DDPM with the same noise, learned variance and respacing."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    diffusers = pytest.importorskip("diffusers")
    config = FITTING[name]
    model = toy(config)
    adm("export", model, "f", "--to", "diffusers")
    theirs = diffusers.UNet2DModel.from_pretrained("f", subfolder="unet").eval()
    ours, process = adm_cli.load_model(model), read_model_file(model).info.diffusion
    y = None if config.num_classes is None else torch.tensor([0, 3])
    seeded = torch.Generator().manual_seed(0)  # rounding grows with some noise
    x, t = torch.randn(2, 3, *config.image_size, generator=seeded), torch.tensor([3, 77])
    with torch.no_grad():
        here = ours(x, t) if y is None else ours(x, t, y)
        assert torch.allclose(theirs(x, t, class_labels=y).sample, here, atol=1e-5)
    scheduler = diffusers.DDPMScheduler.from_pretrained("f", subfolder="scheduler")
    scheduler.set_timesteps(10)
    schedule = adm_cli.NoiseSchedule.named(process.noise_schedule, 100).respace("10")
    assert scheduler.timesteps.tolist() == schedule.timesteps.tolist()[::-1]
    noise = torch.randn(10, 2, 3, *config.image_size, generator=seeded)
    steps = adm_cli.ddpm_sample(
        lambda x_t, at: ours(x_t, at) if y is None else ours(x_t, at, y),
        schedule, x, noise=lambda i, _like: noise[i], variance=process.variance,
    )  # fmt: skip
    for step, at in zip(steps, scheduler.timesteps, strict=True):
        monkeypatch.setattr(
            "diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, i=step.i, **__: noise[i]
        )
        with torch.no_grad():
            x = scheduler.step(theirs(x, at, class_labels=y).sample, at, x).prev_sample
        assert torch.allclose(x, step.x, atol=1e-4)


def test_which_of_the_published_models_diffusers_can_be() -> None:
    """As docs/checkpoints.md says."""
    reasons = {
        row.name: misfits(row.config, row.diffusion)
        for row in CHECKPOINTS
        if isinstance(row.config, UNetConfig) and not row.embedded
    }
    wrong = {name for name, found in reasons.items() if found}
    upsamplers = {name for name in reasons if "upsampler" in name}
    assert wrong == {"128x128_diffusion", "512x512_diffusion"} | upsamplers
