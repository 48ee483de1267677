"""Which samples are copies of training pictures, in pixels or in a network's features.

found = find_copies(open_pixels(Path("samples")), Path("photos"))
found.share.value, found.worst[0].training
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from adm_cli.errors import UsageError, how_many
from adm_cli.evaluation.copies import COPY_RATIO, TwoNearest, copied_share
from adm_cli.evaluation.metrics import Estimate
from adm_cli.pictures.images import Pixels
from adm_cli.pictures.labelled import picture_name
from adm_cli.pictures.pixels import PixelSet, crop_batch, open_pixels
from adm_cli.reports.measure import Extractor, check_features, run_network
from adm_cli.reports.scores import OnStep

WORST = 5  # pairs that are told
_PIXEL_BATCH = 512  # training pictures compared at once


@dataclass(frozen=True)
class Pair:
    """A sample, the training picture nearest to it, and how much nearer than any other."""

    sample: str
    training: str
    ratio: float  # 0 to 1: of the distances to the nearest and to the second nearest


@dataclass(frozen=True)
class Copies:
    """How many samples are copies, and those that are most."""

    share: Estimate
    most: float  # a ratio below it is called a copy
    images: int  # samples
    training_images: int
    ratios: Tensor  # float64 [N], in the samples' order
    worst: list[Pair]  # ascending by ratio


def find_copies(
    samples: PixelSet, training: Path, extractor: Extractor | None = None, *,
    most: float = COPY_RATIO, worst: int = WORST, batch_size: int = _PIXEL_BATCH,
    on_step: OnStep | None = None,
) -> Copies:  # fmt: skip
    """The copy test of arXiv 2505.16959 on a set of samples; see `copied_share`.

    In the features of ``extractor``, or for None in pixels at the samples' size. Training pictures
    are cropped as training does and read in batches, never held; each also counts mirrored, as
    training shows it. Raises UsageError for fewer than two training pictures and for ``most``
    outside (0, 1), and as `open_pixels`.
    """
    if not 0 < most < 1:
        raise UsageError(f"a copy's ratio of distances must lie between 0 and 1, got {most:g}")
    pictures = open_pixels(training, samples.size)
    if len(pictures) < 2:
        raise UsageError(
            f"{training} has {how_many(len(pictures), 'picture')}, expected at least 2"
        )
    embed = _as_pixels if extractor is None else _Embed(extractor)
    size = batch_size if extractor is None else extractor.batch_size
    views: list[tuple[Tensor, Tensor]] = []
    done = 0
    for batch in samples.batches(size):
        views.append((embed(batch, done), embed(batch[:, :, ::-1], done)))
        done += len(batch)
    nearest = TwoNearest(*(torch.cat(parts) for parts in zip(*views, strict=True)))
    del views
    for batch in pictures.batches(size):
        nearest.add(embed(batch, nearest.count))
        if on_step is not None:
            on_step("training pictures", nearest.count, len(pictures))
    ratios, places = nearest.ratios(), nearest.places[:, 0].tolist()
    order = ratios.argsort(stable=True)[:worst].tolist()
    pairs = [
        Pair(picture_name(samples, i), picture_name(pictures, places[i]), float(ratios[i]))
        for i in order
    ]
    return Copies(
        copied_share(ratios, most), most, len(ratios), nearest.count, ratios, pairs
    )  # fmt: skip


def _as_pixels(batch: Pixels, _done: int) -> Tensor:
    """uint8 [n, H * W * 3]"""
    return torch.from_numpy(batch.copy()).flatten(1)


@dataclass(frozen=True)
class _Embed:
    extractor: Extractor

    def __call__(self, batch: Pixels, done: int) -> Tensor:
        """float32 [n, D] of the images that come after ``done`` others."""
        fitted = batch if self.extractor.size is None else crop_batch(batch, self.extractor.size)
        found = run_network(self.extractor, torch.from_numpy(fitted.copy()))
        check_features(found, range(done, done + len(batch)), self.extractor)
        return found.pool.float()
