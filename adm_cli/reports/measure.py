"""Images to features and their statistics, and to references made of them.

extractor = load_extractor("inception")
samples = measure(images.batches(extractor.batch_size), extractor, count=len(images))
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adm_cli.checkpoints.finding import find_weights
from adm_cli.checkpoints.loading import hasten_on_cpu, load_inception, load_model
from adm_cli.config import ClassifierConfig
from adm_cli.devices import choose_device, enough_memory, reproducible_kernels
from adm_cli.errors import AdmError, UsageError, an, how_many, size_words
from adm_cli.evaluation.inception import POOL_DIM, SPATIAL_DIM, Features, InceptionV3
from adm_cli.evaluation.metrics import (
    InceptionScore,
    Moments,
)
from adm_cli.evaluation.neighbours import (
    DC_NEIGHBOURS,
)
from adm_cli.models.classifier import NoisyClassifier
from adm_cli.pictures.images import Pixels, to_model_range
from adm_cli.pictures.pixels import NpzPixels, PixelSet, read_npz_statistics
from adm_cli.pictures.references import LARGEST, MOST_FEATURES, Reference, read_reference

LEAST_IMAGES = DC_NEIGHBOURS + 1
EMBEDDED_CLASSIFIER = "tiny_classifier"

_BATCH = 64  # the original evaluator's
_LARGEST = math.sqrt(LARGEST)  # of a feature: a reference holds their products

OnImages = Callable[[int], None]  # images done


@dataclass(frozen=True)
class Extractor:
    """A network that images are measured with: uint8 [N, H, W, 3] to `Features`."""

    name: str  # "inception" or "classifier"
    weights: str  # the weights' name, for a person
    sha256: str  # of the weights
    size: tuple[int, int] | None  # of the images it takes; None: any
    device: torch.device
    network: Callable[[Tensor], Features]
    batch_size: int

    @property
    def label(self) -> str:
        return f"{self.name} {self.weights} ({self.sha256[:8]})"


@dataclass(frozen=True)
class ImageFeatures:
    """A set of images as a network sees it."""

    extractor: Extractor
    size: tuple[int, int]
    pool: Moments
    spatial: Moments | None
    score: InceptionScore
    kept: Tensor  # float32 [n, D], of the images asked for
    pixels_sha256: str

    @property
    def count(self) -> int:
        return self.pool.count


def load_extractor(
    features: str = "inception", *, inception: Path | None = None, device: str = "auto",
    batch_size: int | None = None,
) -> Extractor:  # fmt: skip
    """ "inception", "classifier" (the embedded one), or the name or file of a classifier.

    A classifier's features are what its last layer sees of the clean image, at t = 0. Raises
    MissingWeightsError where the weights are not here, UsageError for anything but a classifier.
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"--batch-size must be at least 1, got {batch_size}")
    where, batch = choose_device(device), batch_size or _BATCH
    if features == "inception":
        network, digest = load_inception(inception, device=where)
        name = "2015-12-05" if inception is None else inception.name
        return Extractor("inception", name, digest, None, where, _InceptionNetwork(network), batch)
    if inception is not None:
        raise UsageError("--inception names Inception's weights: leave out --features")
    file = find_weights(EMBEDDED_CLASSIFIER if features == "classifier" else features)
    config = file.info.config
    if not isinstance(config, ClassifierConfig):
        raise UsageError(
            f"{features} holds {an(file.info.kind)} model, expected inception or a classifier "
            f"for --features"
        )
    model = load_model(file, device=where)
    assert isinstance(model, NoisyClassifier)
    hasten_on_cpu(model, where, gradient=False)
    return Extractor(
        "classifier", file.name, file.content_sha256, config.image_size, where,
        _ClassifierNetwork(model),
        batch,
    )  # fmt: skip


@dataclass(frozen=True)
class _InceptionNetwork:
    model: InceptionV3

    def __call__(self, images: Tensor) -> Features:
        found: Features = self.model(images.permute(0, 3, 1, 2))
        return found


@dataclass(frozen=True)
class _ClassifierNetwork:
    model: NoisyClassifier

    def __call__(self, images: Tensor) -> Features:
        t = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        pool, logits = self.model.features(to_model_range(images), t)
        return Features(pool, None, logits)


def measure(
    batches: Iterable[Pixels | Tensor], extractor: Extractor, *, count: int,
    keep: int | None = 0, on_images: OnImages | None = None,
) -> ImageFeatures:  # fmt: skip
    """Runs images, uint8 [n, H, W, 3] a batch, through a network once, in their order.

    Memory does not grow with ``count``, but for the features kept: of ``keep`` images spread at
    random over the set (by a fixed seed), or of all for None. Raises AdmError for sizes that
    differ or do not suit the network, for features that are not finite, and for fewer than 6
    images; DeviceError where a batch does not fit into memory.
    """
    check_count(count)
    wanted = _kept_indices(count, keep)
    pool, spatial, score = Moments(), Moments(), InceptionScore()
    digest, kept, done, size = hashlib.sha256(), [], 0, None
    for batch in batches:
        images = batch if isinstance(batch, Tensor) else _writable(batch)
        size = size or (images.shape[1], images.shape[2])
        _check_size(extractor, size, (images.shape[1], images.shape[2]))
        digest.update(images.contiguous().numpy())
        found = run_network(extractor, images)
        check_features(found, range(done, done + len(images)), extractor)
        pool.add(found.pool)
        score.add(found.logits)
        if found.spatial is not None:
            spatial.add(found.spatial)
        mine = wanted[(wanted >= done) & (wanted < done + len(images))] - done
        kept.append(found.pool[mine.to(found.pool.device)].float().cpu())
        done += len(images)
        if on_images is not None:
            on_images(done)
    assert size is not None
    return ImageFeatures(
        extractor, size, pool, spatial if spatial.count else None, score, torch.cat(kept),
        digest.hexdigest(),
    )  # fmt: skip


def check_count(count: int) -> None:
    """Raises AdmError for too few images to measure."""
    if count < LEAST_IMAGES:
        raise AdmError(
            f"{how_many(count, 'image')}, too few to measure: at least {LEAST_IMAGES} are needed"
        )


def _writable(batch: Pixels) -> Tensor:
    """As a tensor; what was read straight from a file is copied, since tensors can be written."""
    return torch.from_numpy(np.require(batch, requirements=["C", "W"]))


def _kept_indices(count: int, keep: int | None) -> Tensor:
    if keep is None or keep >= count:
        return torch.arange(count)
    generator = torch.Generator().manual_seed(0)
    return torch.randperm(count, generator=generator)[:keep].sort().values


def run_network(extractor: Extractor, images: Tensor) -> Features:
    needed = f"{how_many(len(images), 'image')} at once"
    with (
        enough_memory(extractor.device, needed, "pass a smaller --batch-size"),
        torch.no_grad(),
        reproducible_kernels(),
    ):
        return extractor.network(images.to(extractor.device))


def _check_size(extractor: Extractor, first: tuple[int, int], size: tuple[int, int]) -> None:
    if size != first:
        fit = size_words(extractor.size or first)
        raise AdmError(
            f"images of {size_words(size)} among images of {size_words(first)}: pass --resize {fit}"
        )
    check_size(extractor, size)


def check_size(extractor: Extractor, size: tuple[int, int]) -> None:
    """Raises UsageError for images of a size that a network does not take."""
    if extractor.size is not None and size != extractor.size:
        able = size_words(extractor.size)
        raise UsageError(
            f"{extractor.weights} takes images of {able}, these are {size_words(size)}:"
            f" pass --resize {able}, or another network to --features"
        )


def check_features(found: Features, places: Sequence[int], extractor: Extractor) -> None:
    """Raises AdmError for features that are no numbers, or whose squares would not be.

    ``places`` are the images' in their set.
    """
    finite = found.pool.abs().amax(dim=1) <= _LARGEST  # False for NaN
    for more in (found.spatial, found.logits):
        finite = finite if more is None else finite & (more.abs().amax(dim=1) <= _LARGEST)
    if bad := (~finite).nonzero()[:, 0].tolist():
        raise AdmError(
            f"the features of image {places[bad[0]]} are NaN, infinite or above {_LARGEST:g}: "
            f"the weights of {extractor.label} are damaged, or do not work on this device"
        )


def make_reference(measured: ImageFeatures, source: str) -> Reference:
    """What is kept of a set to measure others against."""
    pool = measured.pool.gaussian()
    spatial = None if measured.spatial is None else measured.spatial.gaussian()
    return Reference(
        features=measured.extractor.name,
        features_sha256=measured.extractor.sha256,
        images=measured.count,
        size=measured.size,
        source=source,
        pixels_sha256=measured.pixels_sha256,
        mu=pool.mean.cpu(),
        sigma=pool.covariance.cpu(),
        mu_s=None if spatial is None else spatial.mean.cpu(),
        sigma_s=None if spatial is None else spatial.covariance.cpu(),
        kept=measured.kept,
    )


def reference_from_images(
    images: PixelSet, extractor: Extractor, *, on_images: OnImages | None = None
) -> Reference:
    """Measures a set, keeping the features of at most 10,000 images."""
    measured = measure(
        images.batches(extractor.batch_size),
        extractor,
        count=len(images),
        keep=MOST_FEATURES,
        on_images=on_images,
    )
    return make_reference(measured, images.path.name)


def published_reference(
    images: PixelSet,
    extractor: Extractor,
    *,
    features: bool = True,
    on_images: OnImages | None = None,
) -> Reference | None:
    """The statistics that one of the original's reference batches holds; None if it has none.

    They are Inception's, of a whole training set whose number of images the file does not say; it
    has 10,000 of these. Without ``features`` no image is looked at, which is all that fid and sfid
    need. Raises AdmError for damage.
    """
    if extractor.name != "inception" or images.path.suffix.lower() != ".npz":
        return None
    stored = read_npz_statistics(images.path)
    if stored is None:
        return None
    if isinstance(images, NpzPixels) and images.stored != images.size:
        fit = size_words(images.stored)
        raise UsageError(
            f"{images.path.name} holds statistics of pictures of {fit}, which cannot be made "
            f"those of {size_words(images.size)}: pass --resize {fit}, or none"
        )
    for name, dim in (("mu", POOL_DIM), ("mu_s", SPATIAL_DIM)):
        if name in stored and len(stored[name]) != dim:
            raise AdmError(
                f"{images.path}: {name} has {how_many(len(stored[name]), 'number')}, expected {dim}"
            )
    measured = None
    if features:
        measured = reference_from_images(images, extractor, on_images=on_images)
    tensors = {name: torch.from_numpy(values) for name, values in stored.items()}
    return Reference(
        features=extractor.name,
        features_sha256=extractor.sha256,
        images=None,
        size=images.size,
        source=images.path.name,
        pixels_sha256="" if measured is None else measured.pixels_sha256,
        mu=tensors["mu"],
        sigma=tensors["sigma"],
        mu_s=tensors.get("mu_s"),
        sigma_s=tensors.get("sigma_s"),
        kept=torch.zeros(0, POOL_DIM) if measured is None else measured.kept,
    )


def open_reference(path: Path, extractor: Extractor) -> Reference:
    """A reference file, refused if another network made it (UsageError)."""
    reference = read_reference(path)
    if reference.features_sha256 != extractor.sha256:
        raise UsageError(
            f"{path} was made with the features of {reference.features} "
            f"({reference.features_sha256[:8]}), this evaluation uses {extractor.label}: pass the "
            f"same --features, or make another with adm reference"
        )
    return reference
