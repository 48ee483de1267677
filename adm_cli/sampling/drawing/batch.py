"""A batch of finished images, and those that are none since a network overflowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from adm_cli.diffusion.finite import finite_images
from adm_cli.errors import NotFiniteError, are
from adm_cli.pictures.images import Pixels, encode_image, make_grid, to_uint8

OVERFLOW_ADVICE = (
    "the model or its guidance gave NaN or infinite values; try a scale nearer 0, --dtype float32, "
    "or other weights"
)


@dataclass(frozen=True)
class ImageBatch:
    """Finished images: uint8 [N, H, W, 3] and what each one is.

    Where ``finite`` is False an image is none: its network or guidance gave NaN or infinite values
    at some step. Its pixels are black.
    """

    images: Tensor = field(repr=False)
    classes: tuple[int | None, ...]
    seeds: tuple[int, ...]
    batch_size: int  # computed at once, padding included
    scales: tuple[float, ...]  # of guidance
    cfgs: tuple[float, ...]  # weights of classifier-free guidance
    finite: tuple[bool, ...]

    def picture(self, i: int) -> Pixels | None:
        """Image ``i``, uint8 [H, W, 3]; None where it is not finite."""
        pixels: Pixels = self.images[i].numpy()
        return pixels if self.finite[i] else None

    def pil(self) -> list[Image.Image]:
        """Each image for Pillow, RGB."""
        return [Image.fromarray(pixels) for pixels in self.images.numpy()]

    def _repr_png_(self) -> bytes:
        """All of them in a grid: what a notebook shows."""
        return encode_image(make_grid(self.images.numpy()), ".png", None)

    def not_finite(self) -> list[str]:
        """In words, which images are not."""
        return [
            class_and_seed(class_id, seed)
            for class_id, seed, finite in zip(self.classes, self.seeds, self.finite, strict=True)
            if not finite
        ]

    def check_finite(self) -> None:
        """Raises NotFiniteError if an image is not finite."""
        refuse_overflow(self.not_finite(), len(self.seeds))


def class_and_seed(class_id: int | None, seed: int) -> str:
    """In words, which image."""
    return f"{'no class' if class_id is None else f'class {class_id}'}, seed {seed}"


def finished_batch(
    x: Tensor,
    classes: tuple[int | None, ...],
    seeds: tuple[int, ...],
    size: int,
    scales: tuple[float, ...],
    cfgs: tuple[float, ...],
) -> ImageBatch:
    """The batch of ``x`` [N, 3, H, W] in [-1, 1], not finite where an image is not."""
    finite = finite_images(x)
    shown = torch.where(finite[:, None, None, None], x, -1.0)
    marks = tuple(finite.tolist())
    return ImageBatch(to_uint8(shown).cpu(), classes, seeds, size, scales, cfgs, marks)


def refuse_overflow(names: Sequence[str], count: int) -> None:
    """Raises NotFiniteError if there are ``names``, of so many images."""
    if not names:
        return
    more = "; ..." if len(names) > 3 else ""
    some = f"{len(names)} of {count} images {are(len(names))}"
    what = "the image is" if count == 1 else some
    raise NotFiniteError(f"{what} not finite ({'; '.join(names[:3])}{more}): {OVERFLOW_ADVICE}")
