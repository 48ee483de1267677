"""What a training begins with: a classifier with the encoder of a diffusion model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adm_cli.checkpoints.architectures import encoder_classifier
from adm_cli.checkpoints.format import save_model
from adm_cli.checkpoints.header import ModelFile, ModelInfo, read_model_file
from adm_cli.config import DiffusionConfig, UNetConfig
from adm_cli.errors import ConfigError
from adm_cli.models.classifier import NoisyClassifier
from adm_cli.models.unet import UNet
from adm_cli.training.initial import initial_weights
from adm_cli.training.setup import open_data, settle
from tests.conftest import TOY_UNET, TOY_UPSAMPLER


def _saved(folder: Path, config: UNetConfig, classes: dict[int, str]) -> tuple[UNet, ModelFile]:
    torch.manual_seed(1)
    model = UNet(config).eval()
    for parameter in model.parameters():  # zeros would hide what is not carried over
        torch.nn.init.normal_(parameter, std=0.2)
    path = folder / "base.safetensors"
    info = ModelInfo(config=config, diffusion=DiffusionConfig(), classes=classes)
    save_model(path, model.state_dict(), info)
    return model, read_model_file(path)


@pytest.mark.parametrize("labels", ["null class", "two classes", "none"])
def test_a_classifier_sees_what_the_encoder_of_its_base_saw(
    labels: str, pictures: Path, tmp_path: Path
) -> None:
    """Its features are the denoiser's in the middle, for no class or the mean of the classes."""
    config = replace(
        TOY_UNET, num_classes=None if labels == "none" else 2, null_class=labels == "null class"
    )
    classes = {} if labels == "none" else {0: "circle", 1: "square"}
    unet, file = _saved(tmp_path, config, classes)
    options = {"data": [str(pictures)], "init": str(file.path), "steps": 4}
    settings = settle("classifier", options, open_data("classifier", options))
    weights, told = initial_weights(settings, {0: "circle", 1: "square"}, file)
    assert any("the pool begins anew" in text for text in told)
    assert weights is not None
    classifier = NoisyClassifier(settings.config).eval()  # type: ignore[arg-type]
    classifier.load_state_dict(weights)

    seen: list[Tensor] = []
    unet.middle_block.register_forward_hook(lambda *call: seen.append(call[2]))
    if unet.label_emb is not None and labels == "two classes":
        rows = unet.label_emb.weight.data
        rows[:] = rows.mean(dim=0)
    x, t = torch.randn(2, 3, *config.image_size), torch.tensor([3, 70])
    y = None if labels == "none" else torch.full((2,), 2 if labels == "null class" else 0)
    with torch.no_grad():
        unet(x, t, y)
        torch.testing.assert_close(classifier._encode(x, t), seen[0])
        assert classifier(x, t).shape == (2, 2)


def test_a_new_pool_asks_nothing_of_the_classes_of_the_base(pictures: Path, tmp_path: Path) -> None:
    config = replace(TOY_UNET, num_classes=9, null_class=False)
    _, file = _saved(tmp_path, config, {8: "circle", 7: "moon"})
    options = {"data": [str(pictures)], "init": str(file.path), "steps": 4}
    settings = settle("classifier", options, open_data("classifier", options))
    _, told = initial_weights(settings, {0: "circle", 1: "square"}, file)
    assert told == ["the encoder of a diffusion model; the pool begins anew"]


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (replace(TOY_UNET, middle_attention=False), "middle_attention"),
        (TOY_UPSAMPLER, "two pictures"),
    ],
)
def test_what_a_classifier_cannot_begin_with(config: UNetConfig, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        encoder_classifier(config)


def test_rows_follow_the_names_of_classes(pictures: Path, tmp_path: Path) -> None:
    """A folder more at the front moves all ids by one."""
    config = replace(TOY_UNET, num_classes=3, null_class=True)
    unet, file = _saved(tmp_path, config, {0: "ant", 1: "cat", 2: "dog"})
    assert unet.label_emb is not None
    old = unet.label_emb.weight.detach()  # [4, E]
    options = {"data": [str(pictures)], "init": str(file.path), "steps": 4}
    settings = settle("diffusion", options, open_data("diffusion", options))
    wanted = replace(settings.config, num_classes=4)
    ours = {0: "aardvark", 1: "ant", 2: "dog", 3: "cat"}
    weights, told = initial_weights(replace(settings, config=wanted), ours, file)
    assert weights is not None
    found = weights["label_emb.weight"]
    expected = torch.stack([old[:3].mean(dim=0), old[0], old[2], old[1], old[3]])
    torch.testing.assert_close(found, expected)
    assert told == [
        "label_emb.weight got 3 rows by the names of the classes and 1 row for new classes"
    ]
    others = dict(enumerate(("oak", "ash", "elm", "fir")))
    assert "begins anew" in initial_weights(replace(settings, config=wanted), others, file)[1][0]


def test_a_model_without_classes_learns_some(pictures: Path, tmp_path: Path) -> None:
    """It begins as it was, whatever class is asked for; or stays without."""
    config = replace(TOY_UNET, num_classes=None, null_class=False)
    unet, file = _saved(tmp_path, config, {})
    x, t = torch.randn(2, 3, *config.image_size), torch.tensor([3, 70])
    for more, labels in (
        ({"label_dropout": 0.1}, torch.tensor([0, 2])),
        ({}, torch.tensor([0, 1])),
        ({"unconditional": True}, None),
    ):
        options = {"data": [str(pictures)], "init": str(file.path), "steps": 4, **more}
        settings = settle("diffusion", options, open_data("diffusion", options))
        weights, told = initial_weights(settings, {0: "circle", 1: "square"}, file)
        assert weights is not None
        model = UNet(settings.config).eval()  # type: ignore[arg-type]
        model.load_state_dict(weights)
        assert any("--unconditional" in line for line in told) == (labels is not None)
        with torch.no_grad():
            torch.testing.assert_close(model(x, t, labels), unet(x, t))
