"""A batch of finished images, as Python's user gets it."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from adm_cli.pictures.images import make_grid
from adm_cli.sampling.drawing.batch import finished_batch


def test_a_batch_shows_itself() -> None:
    x = torch.rand(3, 3, 2, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    batch = finished_batch(x, (1, 2, 3), (0, 1, 2), 4, (0.0,) * 3, (1.0,) * 3)
    images = batch.images.numpy()
    assert [image.size for image in batch.pil()] == [(4, 2)] * 3
    assert np.array_equal(np.stack([np.asarray(image) for image in batch.pil()]), images)
    with Image.open(io.BytesIO(batch._repr_png_())) as shown:
        assert np.array_equal(np.asarray(shown), make_grid(images))
