"""An image is computed alike at every place of a batch, however many threads share it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from adm_cli import load_pipeline
from adm_cli.diffusion.guidance import classifier_gradient

BATCH = 5  # is divided by neither number of threads


@pytest.fixture(params=[2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("plain", [False, True], ids=["fast", "plain"])
def test_the_same_image_at_all_places_becomes_the_same(plain: bool) -> None:
    pipeline = load_pipeline("tiny", plain=plain)
    assert pipeline.classifier is not None
    x = torch.randn(1, 3, 32, 32).repeat(BATCH, 1, 1, 1)
    t, labels = torch.full((BATCH,), 500.0), torch.full((BATCH,), 2)
    with torch.no_grad():
        output = pipeline.model(x, t, labels)
    gradient = classifier_gradient(pipeline.classifier, x, t, labels)
    for images in (output, gradient):
        assert all(torch.equal(image, images[0]) for image in images)
