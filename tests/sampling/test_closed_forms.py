"""What every guidance option makes of a model and a classifier, from the settings to the function
that a sampler calls, against its value on a mixture of Gaussians whose score and classifier are
exact."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from adm_cli.config import DiffusionConfig, SamplingConfig
from adm_cli.diffusion.guidance import PredictedStart
from adm_cli.diffusion.modifiers import NEUTRAL, OF_TRAJECTORY
from adm_cli.models.attention import without_attention
from adm_cli.models.unet import UNet
from adm_cli.sampling.drawing.guiding import guided_by, labelled, modified_model, thresholding
from adm_cli.sampling.drawing.labels import classifier_target, model_labels
from tests.conftest import TOY_UNET
from tests.diffusion.mixture import Mixture, noisy, three_classes
from tests.diffusion.test_divergence import by_hand
from tests.sampling.test_modifiers import OTHERS

DIFFUSION = DiffusionConfig(num_timesteps=100)
MIXTURE, T, NONE = three_classes(), 40, 3
WIDE = Mixture(MIXTURE.schedule, MIXTURE.means, 0.4)  # a weaker model's
X, TIMES = noisy(MIXTURE, T, 6)
Y = torch.arange(6) % 2
ABAR, TOTAL = MIXTURE.at(TIMES)
PULLS = MIXTURE.pulls(X, TIMES)
P = MIXTURE.logits(X, TIMES).softmax(-1)
MEAN = torch.einsum("bk,bkchw->bchw", P, PULLS)  # the score without a class
OWN = PULLS[torch.arange(6), Y]  # that of each image's class
SIGMA = math.sqrt(1 - ABAR)


def config(**changes: Any) -> SamplingConfig:
    return SamplingConfig(seeds=tuple(range(6)), classes=tuple(Y.tolist()), **changes)


def gradient(
    changes: dict[str, Any], t: int = T, classifier: Any = MIXTURE.logits, **parts: Any
) -> Tensor:
    """What is added to the score, at a scale of 2, of the last of the calls that are made."""
    asked = config(scale=2.0, **changes)
    named = parts.get("parts", [[(i, 1.0)] for i in Y.tolist()])
    y = classifier_target(named, asked.negative_class, 3, torch.device("cpu"))
    assert y is not None
    guidance = guided_by(
        classifier, DIFFUSION, asked, y, [2.0] * 6, torch.float64, MIXTURE.schedule,
        parts.get("pred_xstart"),
    )  # fmt: skip
    found = [guidance(X, torch.full_like(TIMES, at)) for at in parts.get("calls", (t,))]
    return found[-1]


def score(changes: dict[str, Any], t: int = T, parts: Any = None) -> Tensor:
    """Of the model that a sampler is given."""
    asked = config(scale=0.0, **{"cfg": 1.0, **changes})
    named = parts or [[(i, 1.0)] for i in Y.tolist()]
    weak: Any = Weak() if asked.weak_scale != 1 else None
    model_fn = labelled(
        model, DIFFUSION, asked, model_labels(named, NONE, torch.device("cpu")), NONE,
        [1.0 if asked.cfg is None else asked.cfg] * 6, weak=weak, schedule=MIXTURE.schedule,
    )  # fmt: skip
    model_fn = modified_model(model_fn, MIXTURE.schedule, DIFFUSION, asked)
    return -model_fn(X, torch.full_like(TIMES, t)) / SIGMA


def model(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    own = MIXTURE.eps_of(x, t, y.clamp(max=2))
    return torch.where((y == NONE)[:, None, None, None], MIXTURE.eps(x, t), own)


class Weak:
    config = SimpleNamespace(num_classes=3)

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return WIDE.eps_of(x, t, y)


def against(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def of_scale() -> None:
    against(gradient({}), 2 * (OWN - MEAN))


def of_guide_by() -> None:
    for kind in ("rkl", "fkl", "js"):
        found = gradient({"guide_by": kind, "divergence_weight": 1.5})
        against(found, 2 * by_hand(MIXTURE, X, TIMES, Y, kind, 1.5))


def of_entropy_scaling() -> None:
    factor = math.log(3) / -(P * P.log()).sum(-1)
    against(gradient({"entropy_scaling": True}), 2 * factor[:, None, None, None] * (OWN - MEAN))


def of_guide_interval() -> None:
    assert not gradient({"guide_interval": (0.5, 1.0)}).any()
    against(gradient({"guide_interval": (0.3, 0.5)}), 2 * (OWN - MEAN))


def of_guide_every() -> None:
    """Of the steps 99, 98, ... every third."""
    assert not gradient({"guide_every": 3}).any()
    assert not gradient({"guide_every": 3}, t=T + 1).any()
    assert gradient({"guide_every": 3}, t=T - 1).any()
    against(gradient({"guide_every": 59}), 2 * (OWN - MEAN))  # 99, 40


def of_guide_adam() -> None:
    """Of the same gradient twice both moments are as after one: its sign."""
    g = OWN - MEAN
    against(gradient({"guide_adam": "0.9/0.99"}, calls=(T, T)), 2 * g / (g.abs() + 1e-8))


def of_classifier_on() -> None:
    """The pull of the classes from the x_0 that the model predicts, at no noise."""
    x_0 = (X + (1 - ABAR) * MEAN) / math.sqrt(ABAR)
    predicted = PredictedStart(lambda output, _x, _t: output)
    predicted.watched(lambda _x, _t: x_0)(X, TIMES)
    clean = torch.zeros_like(TIMES)
    p = MIXTURE.logits(x_0, clean).softmax(-1)
    pulls = MIXTURE.pulls(x_0, clean)
    wanted = pulls[torch.arange(6), Y] - torch.einsum("bk,bkchw->bchw", p, pulls)
    against(gradient({"classifier_on": "x0"}, pred_xstart=predicted), 2 * wanted)


def of_scale_schedule() -> None:
    factors = {
        "linear": 2 * (1 - T / 99),
        "cosine": 1 + math.cos(math.pi * T / 99),
        "sine": math.pi / 2 * math.sin(math.pi * T / 99),
    }
    for name, factor in factors.items():
        against(gradient({"scale_schedule": name}), 2 * factor * (OWN - MEAN))
        found = score({"scale_schedule": name, "cfg": 3.0})
        against(found, OWN + 2 * factor * (OWN - MEAN))


def of_negative_class() -> None:
    """log p(class) - log p(negative): the mean pull is gone; --cfg leads away from it."""
    against(gradient({"negative_class": 2}), 2 * (OWN - PULLS[:, 2]))
    against(score({"negative_class": 2, "cfg": 3.0}), OWN + 2 * (OWN - PULLS[:, 2]))


def of_mixture() -> None:
    parts = [[(0, 0.75), (1, 0.25)]] * 6
    mixed = 0.75 * PULLS[:, 0] + 0.25 * PULLS[:, 1]
    against(gradient({}, parts=parts), 2 * (mixed - MEAN))
    against(score({"cfg": 3.0}, parts=parts), mixed + 2 * (mixed - MEAN))


def of_cfg() -> None:
    against(score({"cfg": 3.0}), OWN + 2 * (OWN - MEAN))


def of_cfg_interval() -> None:
    against(score({"cfg": 3.0, "cfg_interval": (0.5, 1.0)}), OWN)
    against(score({"cfg": 3.0, "cfg_interval": (0.3, 0.5)}), OWN + 2 * (OWN - MEAN))


def of_weak_scale() -> None:
    weak = WIDE.pulls(X, TIMES)[torch.arange(6), Y]
    against(score({"weak_scale": 2.5}), OWN + 1.5 * (OWN - weak))


def of_eps_scale() -> None:
    against(score({"eps_scale": 1.1}), OWN / 1.1)


def of_threshold() -> None:
    """By the quantile of each picture's own values: of two the larger one."""
    denoised_fn = thresholding(config(threshold=1.0))
    assert denoised_fn is not None
    x_0 = torch.tensor([[3.0, -1.5], [0.2, 0.1]]).reshape(2, 1, 1, 2)
    against(denoised_fn(x_0).reshape(2, 2), torch.tensor([[1.0, -0.5], [0.2, 0.1]]))


def of_attention() -> None:
    """A mixture has none, so a network's: led away from itself without attention."""
    torch.manual_seed(0)
    net = UNet(TOY_UNET).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    x, y = torch.randn(2, 3, 8, 8), model_labels([[(1, 1.0)]] * 2, 0, torch.device("cpu"))
    t = torch.full((2,), T)
    asked = SamplingConfig(seeds=(0, 1), classes=(1, 1), scale=0.0, cfg=1.0, pag_scale=3.0)
    with torch.no_grad():
        found = labelled(net, DIFFUSION, asked, y, None, [1.0] * 2)(x, t)[:, :3]
        own, blind = (one(x, t, y.ids[0])[:, :3] for one in (net, without_attention(net)))
    assert not torch.allclose(own, blind, rtol=1e-3)
    torch.testing.assert_close(found, own + 2 * (own - blind))


FORMS: dict[str, Callable[[], None]] = {
    "scale": of_scale, "guide_by": of_guide_by, "divergence_weight": of_guide_by,
    "entropy_scaling": of_entropy_scaling, "guide_interval": of_guide_interval,
    "guide_every": of_guide_every, "guide_adam": of_guide_adam, "classifier_on": of_classifier_on,
    "scale_schedule": of_scale_schedule, "negative_class": of_negative_class,
    "mixture": of_mixture, "cfg": of_cfg, "cfg_interval": of_cfg_interval,
    "weak_scale": of_weak_scale, "pag_scale": of_attention, "eps_scale": of_eps_scale,
    "threshold": of_threshold,
}  # fmt: skip
# Where the model's attention or the sampler itself is what is changed.
ELSEWHERE = {
    "sag_scale": "diffusion/test_self_attention",
    "eta": "diffusion/test_order",
    "temperature": "sampling/test_modifiers",
    "spacing": "diffusion/test_spacing",
    **{name: "diffusion/test_samplers" for name in OF_TRAJECTORY if name.startswith("churn")},
}


def test_every_option_has_a_form() -> None:
    assert {*FORMS, *ELSEWHERE} == {*NEUTRAL, *OTHERS}
    for name, file in ELSEWHERE.items():
        text = (Path(__file__).parents[1] / f"{file}.py").read_text(encoding="utf-8")
        assert {"churn_noise": "inflation", "sag_scale": "blurred"}.get(name, name[:5]) in text


@pytest.mark.parametrize("name", FORMS)
def test_closed_form(name: str) -> None:
    FORMS[name]()
