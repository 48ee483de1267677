"""What a reference makes of measured samples: scores, each with its standard error."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from adm_cli.checkpoints.presets import INCEPTION
from adm_cli.errors import AdmError, UsageError, did_you_mean, how_many, size_words
from adm_cli.evaluation.metrics import Estimate, Gaussian, OnPart, frechet_estimate, kernel_distance
from adm_cli.evaluation.neighbours import (
    DC_NEIGHBOURS,
    PR_NEIGHBOURS,
    density_coverage,
    precision_recall,
)
from adm_cli.pictures.references import Reference
from adm_cli.reports.measure import Extractor, ImageFeatures

METRICS = ("fid", "sfid", "is", "kid", "pr", "dc")
LEAST_FID, FEW_IMAGES = 2048, 10_000  # below: no FID; below: a warning
_NEED_FEATURES = {"kid": 2, "pr": PR_NEIGHBOURS + 1, "dc": DC_NEIGHBOURS + 1}  # of so many images
_BOTH = {"pr": "precision and recall", "dc": "density and coverage"}

OnStep = Callable[[str, int, int], None]  # what is being computed, parts done, parts in all


@dataclass(frozen=True)
class Score:
    """One number of an evaluation; ``error`` is its standard error, NaN where there is none."""

    name: str
    value: float
    error: float


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
    return None if set(metrics) & _NEED_FEATURES.keys() else 0


def compute_scores(
    samples: ImageFeatures, reference: Reference, metrics: Sequence[str], *, half: bool = False,
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


def check_sizes(
    size: tuple[int, int], source: str, expected: tuple[int, int], *, smaller: str = ""
) -> None:
    """Raises UsageError for samples of another size than those of the reference ``source``.

    ``smaller`` mends it where the samples are the smaller ones: pictures are better reduced than
    enlarged, which no sampler did.
    """
    if size == expected:
        return
    enlarges = size[0] * size[1] < expected[0] * expected[1]
    mend = smaller if smaller and enlarges else f"pass --resize {size_words(expected)}"
    raise UsageError(
        f"the samples are {size_words(size)}, the images of the reference {source} "
        f"{size_words(expected)}: {mend}"
    )


def _check_dims(samples: ImageFeatures, reference: Reference) -> None:
    """Raises AdmError for a reference of other features, whatever network it says made them."""
    spatial = None if samples.spatial is None else samples.spatial.shift
    for stored, mine in ((reference.mu, samples.pool.shift), (reference.mu_s, spatial)):
        if stored is not None and mine is not None and len(stored) != len(mine):
            raise AdmError(
                f"the reference {reference.source} has {how_many(len(stored), 'feature')}, "
                f"{samples.extractor.label} has {len(mine)}: make another with adm reference"
            )


def metric_names(features: str, fewest: int) -> dict[str, str]:
    """What to call a distance: FID is Inception's, and of at least 2,048 images."""
    if features != "inception":
        return {"fid": "fd_adm", "is": "is_adm", "kid": "kd_adm"}
    if fewest < LEAST_FID:
        return {"fid": "fd_inception", "sfid": "sfd_inception", "is": "is", "kid": "kid"}
    return {"fid": "fid", "sfid": "sfid", "is": "is", "kid": "kid"}


def _fewest(samples: ImageFeatures, reference: Reference) -> int:
    return samples.count if reference.images is None else min(samples.count, reference.images)


def _spatial_distance(
    samples: ImageFeatures, reference: Reference, on_group: OnPart | None
) -> Estimate:
    if samples.spatial is None or reference.mu_s is None or reference.sigma_s is None:
        raise UsageError(f"{reference.source} has no spatial statistics: leave out sfid")
    return frechet_estimate(samples.spatial, Gaussian(reference.mu_s, reference.sigma_s), on_group)


def _need_features(reference: Reference, metric: str) -> None:
    least = _NEED_FEATURES[metric]
    if len(reference.kept) < least:
        raise UsageError(
            f"{reference.source} has the features of {how_many(len(reference.kept), 'image')}, "
            f"{metric} needs "
            f"{least}: leave out {metric}"
        )


def notes(
    samples: ImageFeatures, reference: Reference, guides: Collection[str | None]
) -> list[str]:
    """What whoever reads the numbers should know.

    ``guides``: SHA-256 of the classifiers that guided the samples.
    """
    found = []
    if samples.pixels_sha256 == reference.pixels_sha256:
        found.append("samples and reference are the same pictures: their distances say nothing")
    if samples.extractor.sha256 in guides:
        found.append(
            f"{samples.extractor.weights} guided these samples, and its own features flatter them: "
            f"compare them with those of other models by another network (--features)"
        )
    few, dim = _fewest(samples, reference), len(reference.mu)
    if few < LEAST_FID and samples.extractor.name == "inception":
        found.append(
            f"{how_many(few, 'image')}, too few for a number called FID ({LEAST_FID:,} at least): "
            f"fd_inception compares only with itself at as many images"
        )
    elif few < FEW_IMAGES:
        found.append(
            f"{how_many(few, 'image')}: Fréchet distances are biased upwards; compare only "
            "equal numbers of "
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
