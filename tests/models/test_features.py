"""A classifier's features are what its last layer makes the logits of, whatever its pool."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from adm_cli.checkpoints.loading import build_model
from adm_cli.models.classifier import NoisyClassifier
from tests.conftest import DEEP_CLASSIFIER as TOY_CLASSIFIER
from tests.conftest import randomise


@pytest.mark.parametrize(
    ("pool", "last", "width"),
    [("attention", "out.2.c_proj", 32), ("adaptive", "out.3", 32), ("spatial", "out.2", 2048),
     ("spatial_v2", "out.3", 2048)],
)  # fmt: skip
def test_features_and_the_logits_made_of_them(pool: str, last: str, width: int) -> None:
    config = replace(TOY_CLASSIFIER, pool=pool)  # type: ignore[arg-type]
    model = randomise(build_model(config))
    assert isinstance(model, NoisyClassifier)
    model.eval().requires_grad_(False)
    x, t = torch.rand(3, 3, 8, 8), torch.tensor([0, 5, 99])
    features, logits = model.features(x, t)
    assert features.shape == (3, width)
    assert torch.equal(logits, model(x, t))
    weight, bias = (model.get_parameter(f"{last}.{leaf}") for leaf in ("weight", "bias"))
    assert torch.allclose(features @ weight.flatten(1).T + bias, logits, atol=1e-5)
