"""Images to numbers: a network's features, their statistics, and what a reference makes of them.

extractor = load_extractor("inception")
samples = measure(images.batches(extractor.batch_size), extractor, count=len(images))
scores = compute_scores(samples, reference, ("fid", "pr"))
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adm_cli.checkpoints.loading import find_weights, hasten_on_cpu, load_inception, load_model
from adm_cli.checkpoints.presets import INCEPTION
from adm_cli.config import ClassifierConfig
from adm_cli.devices import choose_device, out_of_memory, reproducible_kernels
from adm_cli.errors import AdmError, DeviceError, UsageError, did_you_mean
from adm_cli.evaluation.inception import POOL_DIM, SPATIAL_DIM, Features, InceptionV3
from adm_cli.evaluation.metrics import (
    Estimate,
    Gaussian,
    InceptionScore,
    Moments,
    OnPart,
    frechet_estimate,
    kernel_distance,
)
from adm_cli.evaluation.neighbours import (
    DC_NEIGHBOURS,
    PR_NEIGHBOURS,
    density_coverage,
    precision_recall,
)
from adm_cli.models.classifier import NoisyClassifier
from adm_cli.pictures.images import Pixels, to_model_range
from adm_cli.pictures.pixels import PixelSet, read_npz_statistics
from adm_cli.pictures.references import MOST_FEATURES, Reference, read_reference

METRICS = ("fid", "sfid", "is", "kid", "pr", "dc")
LEAST_FID, FEW_IMAGES = 2048, 10_000  # below: no FID; below: a warning
LEAST_IMAGES = DC_NEIGHBOURS + 1
EMBEDDED_CLASSIFIER = "tiny_classifier"

_NEED_FEATURES = ("kid", "pr", "dc")
_BOTH = {"pr": "precision and recall", "dc": "density and coverage"}
_BATCH = 64  # the original evaluator's

OnImages = Callable[[int], None]  # images done
OnStep = Callable[[str, int, int], None]  # what is being computed, parts done, parts in all


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
class Measured:
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


@dataclass(frozen=True)
class Score:
    """One number of an evaluation; ``error`` is its standard error, NaN where there is none."""

    name: str
    value: float
    error: float


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
            f"{features} holds a {file.info.kind} model, expected inception or a classifier "
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
) -> Measured:  # fmt: skip
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
    return Measured(
        extractor, size, pool, spatial if spatial.count else None, score, torch.cat(kept),
        digest.hexdigest(),
    )  # fmt: skip


def check_count(count: int) -> None:
    """Raises AdmError for too few images to measure."""
    if count < LEAST_IMAGES:
        raise AdmError(f"{count} images are too few to measure: at least {LEAST_IMAGES} are needed")


def _writable(batch: Pixels) -> Tensor:
    """As a tensor; what was read straight from a file is copied, since tensors can be written."""
    return torch.from_numpy(np.require(batch, requirements=["C", "W"]))


def _kept_indices(count: int, keep: int | None) -> Tensor:
    if keep is None or keep >= count:
        return torch.arange(count)
    generator = torch.Generator().manual_seed(0)
    return torch.randperm(count, generator=generator)[:keep].sort().values


def run_network(extractor: Extractor, images: Tensor) -> Features:
    try:
        with torch.no_grad(), reproducible_kernels():
            return extractor.network(images.to(extractor.device))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise DeviceError(
            f"not enough memory on {extractor.device} for {len(images)} images at once: "
            f"pass a smaller --batch-size"
        ) from None


def _check_size(extractor: Extractor, first: tuple[int, int], size: tuple[int, int]) -> None:
    if size != first:
        fit = _text(extractor.size or first)
        raise AdmError(
            f"images of {_text(size)} among images of {_text(first)}: pass --resize {fit}"
        )
    check_size(extractor, size)


def check_size(extractor: Extractor, size: tuple[int, int]) -> None:
    """Raises UsageError for images of a size that a network does not take."""
    if extractor.size is not None and size != extractor.size:
        raise UsageError(
            f"{extractor.weights} takes images of {_text(extractor.size)}, these are {_text(size)}:"
            f" pass --resize {_text(extractor.size)}, or another network to --features"
        )


def check_features(found: Features, places: Sequence[int], extractor: Extractor) -> None:
    """Raises AdmError for features that are not finite; ``places`` are the images' in their set."""
    finite = found.pool.isfinite().all(dim=1)
    for more in (found.spatial, found.logits):
        finite = finite if more is None else finite & more.isfinite().all(dim=1)
    if bad := (~finite).nonzero()[:, 0].tolist():
        raise AdmError(
            f"the features of image {places[bad[0]]} are NaN or infinite: the weights of "
            f"{extractor.label} do not work on this device"
        )


def make_reference(measured: Measured, source: str) -> Reference:
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
    for name, dim in (("mu", POOL_DIM), ("mu_s", SPATIAL_DIM)):
        if name in stored and len(stored[name]) != dim:
            raise AdmError(f"{images.path}: {name} has {len(stored[name])} numbers, expected {dim}")
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


def choose_metrics(text: str | None, extractor: Extractor) -> tuple[str, ...]:
    """ "fid,pr" to names; None is all that the network's features allow. Raises UsageError."""
    able = tuple(m for m in METRICS if m != "sfid" or extractor.name == "inception")
    if text is None:
        return able
    wanted = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",")))
    for name in wanted:
        if name not in METRICS:
            hint = did_you_mean(name, METRICS)
            raise UsageError(f"unknown metric {name!r}{hint} (there are {', '.join(METRICS)})")
        if name not in able:
            raise UsageError(f"sfid needs Inception's spatial features, not {extractor.name}'s")
    return wanted


def features_needed(metrics: Sequence[str]) -> int | None:
    """What to pass to `measure` as ``keep`` for samples: none, or all."""
    return None if set(metrics) & set(_NEED_FEATURES) else 0


def compute_scores(
    samples: Measured, reference: Reference, metrics: Sequence[str], *, half: bool = False,
    on_step: OnStep | None = None,
) -> list[Score]:  # fmt: skip
    """The ``metrics`` (of `METRICS`) of samples against a reference, each with its error.

    Names say what a number is: with fewer than 2,048 images on either side a Fréchet distance is
    fd_inception, not fid; with a classifier's features it is fd_adm. ``half`` computes precision
    and recall in float16, as the published values were. Raises UsageError where the reference is
    of images of another size, or lacks what a metric needs.
    """
    check_sizes(samples.size, reference.source, reference.size)
    _check_dims(samples, reference)
    names = metric_names(samples.extractor.name, _fewest(samples, reference))
    device = samples.extractor.device if samples.extractor.device.type == "cuda" else "cpu"
    kept = [features.to(device) for features in (samples.kept, reference.kept)]
    scores: list[Score] = []
    for metric in metrics:
        name = names.get(metric, _BOTH.get(metric, metric))
        part = None if on_step is None else partial(on_step, name)
        if part is not None:
            part(0, 1)
        if metric in _NEED_FEATURES:
            _need_features(reference, metric)
        if metric == "fid":
            against = Gaussian(reference.mu, reference.sigma)
            found = {name: frechet_estimate(samples.pool, against, part)}
        elif metric == "sfid":
            found = {name: _spatial_distance(samples, reference, part)}
        elif metric == "is":
            found = {name: samples.score.estimate()}
        elif metric == "kid":
            found = {name: kernel_distance(*kept)}
        elif metric == "pr":
            found = precision_recall(*kept, half=half, on_block=part)._asdict()
        else:
            found = density_coverage(*kept, on_block=part)._asdict()
        scores += [Score(key, estimate.value, estimate.error) for key, estimate in found.items()]
    for score in scores:
        if not math.isfinite(score.value):
            raise AdmError(f"{score.name} is {score.value}: features or statistics are no numbers")
    return scores


def check_sizes(size: tuple[int, int], source: str, expected: tuple[int, int]) -> None:
    """Raises UsageError for samples of another size than those of the reference ``source``."""
    if size != expected:
        raise UsageError(
            f"the samples are {_text(size)}, the images of the reference {source} "
            f"{_text(expected)}: pass --resize {_text(expected)}"
        )


def _check_dims(samples: Measured, reference: Reference) -> None:
    """Raises AdmError for a reference of other features, whatever network it says made them."""
    spatial = None if samples.spatial is None else samples.spatial.shift
    for stored, mine in ((reference.mu, samples.pool.shift), (reference.mu_s, spatial)):
        if stored is not None and mine is not None and len(stored) != len(mine):
            raise AdmError(
                f"the reference {reference.source} has {len(stored)} features, "
                f"{samples.extractor.label} has {len(mine)}: make another with adm reference"
            )


def metric_names(features: str, fewest: int) -> dict[str, str]:
    """What to call a distance: FID is Inception's, and of at least 2,048 images."""
    if features != "inception":
        return {"fid": "fd_adm", "is": "is_adm", "kid": "kd_adm"}
    if fewest < LEAST_FID:
        return {"fid": "fd_inception", "sfid": "sfd_inception", "is": "is", "kid": "kid"}
    return {"fid": "fid", "sfid": "sfid", "is": "is", "kid": "kid"}


def _fewest(samples: Measured, reference: Reference) -> int:
    return samples.count if reference.images is None else min(samples.count, reference.images)


def _spatial_distance(samples: Measured, reference: Reference, on_group: OnPart | None) -> Estimate:
    if samples.spatial is None or reference.mu_s is None or reference.sigma_s is None:
        raise UsageError(f"{reference.source} has no spatial statistics: leave out sfid")
    return frechet_estimate(samples.spatial, Gaussian(reference.mu_s, reference.sigma_s), on_group)


def _need_features(reference: Reference, metric: str) -> None:
    least = {"kid": 2, "pr": PR_NEIGHBOURS + 1, "dc": DC_NEIGHBOURS + 1}[metric]
    if len(reference.kept) < least:
        raise UsageError(
            f"{reference.source} has the features of {len(reference.kept)} images, {metric} needs "
            f"{least}: leave out {metric}"
        )


def notes(samples: Measured, reference: Reference) -> list[str]:
    """What whoever reads the numbers should know."""
    found = []
    few, dim = _fewest(samples, reference), len(reference.mu)
    if few < LEAST_FID and samples.extractor.name == "inception":
        found.append(
            f"{few:,} images are too few for a number called FID ({LEAST_FID:,} at least): "
            f"fd_inception compares only with itself at as many images"
        )
    elif few < FEW_IMAGES:
        found.append(
            f"{few:,} images: Fréchet distances are biased upwards; compare only equal numbers of "
            f"images (published values have 50,000)"
        )
    extractor = samples.extractor
    if extractor.name == "inception" and extractor.sha256 != INCEPTION.sha256:
        found.append(
            f"{extractor.weights} is not the published file of Inception's weights (SHA-256 "
            f"{INCEPTION.sha256[:8]}...): compare with nothing published"
        )
    if few <= dim:
        found.append(f"fewer images than features ({few:,} of {dim:,}): covariances are singular")
    if math.isclose(float(samples.pool.gaussian().covariance.trace()), 0.0, abs_tol=1e-12):
        found.append("all samples look the same to the network: are they blank?")
    return found


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
