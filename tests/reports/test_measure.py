"""Measuring sets of images: names, notes, refusals, and what must not change a number."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from adm_cli.checkpoints.presets import INCEPTION
from adm_cli.errors import AdmError, CheckpointError, DeviceError, MissingWeightsError, UsageError
from adm_cli.evaluation.inception import Features
from adm_cli.files.disk import inception_path
from adm_cli.pictures.images import Pixels
from adm_cli.pictures.pixels import open_pixels, statistics_only
from adm_cli.pictures.references import save_reference
from adm_cli.reports.measure import (
    Extractor,
    ImageFeatures,
    load_extractor,
    make_reference,
    measure,
    open_reference,
    published_reference,
    reference_from_images,
)
from adm_cli.reports.references import find_reference, metrics_by
from adm_cli.reports.scores import (
    choose_metrics,
    compute_scores,
    features_needed,
    metric_names,
    notes,
)
from tests.conftest import Toys
from tests.evaluation.rule import rule_weights


def network(images: Tensor) -> Features:
    """Four features of uint8 [N, H, W, 3] that are quick to compute."""
    x = images.float().flatten(1) / 255
    pool = torch.stack([x.mean(1), x.std(1), x[:, 0], x[:, -1]], dim=1)
    return Features(pool, pool[:, :3], 5 * pool)


def extractor(name: str = "inception") -> Extractor:
    return Extractor(name, "made-up", INCEPTION.sha256, None, torch.device("cpu"), network, 8)


def images(count: int = 40, seed: int = 0, size: int = 5) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def measured(data: Pixels, batch: int = 8, keep: int | None = None) -> ImageFeatures:
    parts = [data[i : i + batch] for i in range(0, len(data), batch)]
    return measure(parts, extractor(), count=len(data), keep=keep)


def numbers(samples: ImageFeatures, against: ImageFeatures) -> dict[str, float]:
    metrics = choose_metrics(None, samples.extractor)
    scores = compute_scores(samples, make_reference(against, "x"), metrics)
    return {score.name: score.value for score in scores}


def test_every_metric_has_its_number() -> None:
    found = numbers(measured(images()), measured(images(seed=1)))
    assert list(found) == [
        "fd_inception", "sfd_inception", "is", "kid", "precision", "recall", "density", "coverage",
    ]  # fmt: skip
    assert all(math.isfinite(value) for value in found.values())


def test_batches_do_not_change_a_number() -> None:
    reference = measured(images(seed=1))
    one, other = (
        numbers(measured(images(), 8), reference),
        numbers(measured(images(), 3), reference),
    )
    assert one == pytest.approx(other, rel=1e-9)


def test_equal_sets() -> None:
    found = numbers(measured(images()), measured(images()))
    assert found["fd_inception"] == pytest.approx(0, abs=1e-9)
    assert found["sfd_inception"] == pytest.approx(0, abs=1e-9)
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 1, 1)


def test_a_random_part_of_the_features_is_kept() -> None:
    data = images()
    everything, some = measured(data).kept, measured(data, keep=7).kept
    assert torch.equal(measured(data, 3, keep=7).kept, some)
    assert len(some) == 7
    places = [int((everything == row).all(dim=1).nonzero()[0]) for row in some]
    assert places == sorted(set(places))
    assert places != list(range(7))
    assert len(measured(data, keep=0).kept) == 0


def test_the_hash_is_of_the_pixels() -> None:
    data = images()
    assert measured(data, 8).pixels_sha256 == measured(data, 3).pixels_sha256
    data[3, 2, 2, 1] ^= 1
    assert measured(data).pixels_sha256 != measured(images()).pixels_sha256


def test_fid_is_inceptions_and_of_2048_images() -> None:
    assert metric_names("inception", 2048)["fid"] == "fid"
    assert metric_names("inception", 2047)["fid"] == "fd_inception"
    assert "fid" not in metric_names("classifier", 50_000).values()
    many, few = measured(images(2048, size=2)), measured(images(40, size=2))
    for samples, against in ((many, few), (few, many)):
        assert "fid" not in numbers(samples, against)
    reference = replace(make_reference(few, "x"), images=None)  # a published one
    assert [s.name for s in compute_scores(many, reference, ("fid", "sfid"))] == ["fid", "sfid"]


def test_notes_say_what_a_reader_must_know() -> None:
    few, others = measured(images()), make_reference(measured(images(41)), "x")
    assert "too few for a number called FID" in notes(few, others, ())[0]
    many = measured(images(2500, size=2))
    against = make_reference(measured(images(2501, size=2)), "x")
    (note,) = notes(many, against, ())
    assert note.startswith("2,500 images: Fréchet distances are biased upwards")
    other = replace(many, extractor=replace(extractor(), sha256="ab" * 32))
    assert "made-up is not the published file" in notes(other, against, ())[-1]
    blank = measured(np.zeros((40, 5, 5, 3), dtype=np.uint8))
    assert notes(blank, others, ())[-1].startswith("all samples look the same")
    tiny = measured(images(6))
    wide = replace(make_reference(tiny, "x"), mu=torch.zeros(6))
    assert any("fewer images than features (6 of 6)" in note for note in notes(tiny, wide, ()))


def test_samples_that_are_the_reference_or_of_its_network_are_told() -> None:
    many = measured(images(2500, size=2))
    assert notes(many, make_reference(many, "x"), ())[0].startswith("samples and reference are the")
    against = make_reference(measured(images(2501, size=2)), "x")
    (note, _) = notes(many, against, {None, many.extractor.sha256})
    assert note.startswith("made-up guided these samples, and its own features flatter them")


def test_blank_samples_have_numbers() -> None:
    found = numbers(measured(np.zeros((40, 5, 5, 3), dtype=np.uint8)), measured(images()))
    assert found["is"] == pytest.approx(1)
    assert all(math.isfinite(value) for value in found.values())


def test_what_cannot_be_measured() -> None:
    with pytest.raises(AdmError, match="5 images, too few to measure: at least 6"):
        measured(images(5))
    with pytest.raises(AdmError, match="images of 4x4 among images of 5x5"):
        measure([images(4), images(4, size=4)], extractor(), count=8)
    with pytest.raises(UsageError, match="takes images of 8x8, these are 5x5: pass --resize 8x8"):
        measure([images(8)], replace(extractor(), size=(8, 8)), count=8)


def test_features_that_are_not_finite() -> None:
    def broken(batch: Tensor) -> Features:
        found = network(batch)
        found.pool[batch[:, 0, 0, 0] == 255] = math.nan
        return found

    data = images(20)
    data[:, 0, 0, 0] = 0
    data[13, 0, 0, 0] = 255
    with pytest.raises(AdmError, match="features of image 13 are NaN"):
        measure([data[:8], data[8:]], replace(extractor(), network=broken), count=20)


def test_memory_that_runs_out() -> None:
    def greedy(batch: Tensor) -> Features:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(DeviceError, match="8 images at once: pass a smaller --batch-size"):
        measure([images(8)], replace(extractor(), network=greedy), count=8)


def test_other_sizes_and_features_are_refused(tmp_path: Path) -> None:
    reference = make_reference(measured(images()), "photos")
    with pytest.raises(UsageError, match=r"samples are 4x4, .*photos 5x5: pass --resize 5x5"):
        compute_scores(measured(images(size=4)), reference, ("is",))
    save_reference(tmp_path / "a.safetensors", reference)
    other = replace(extractor("classifier"), sha256="cd" * 32)
    with pytest.raises(UsageError, match=r"made with the features of inception \(6726825d\)"):
        open_reference(tmp_path / "a.safetensors", other)
    same = open_reference(tmp_path / "a.safetensors", extractor())
    assert torch.equal(same.kept, reference.kept)


def test_a_reference_without_what_a_metric_needs() -> None:
    samples = measured(images())
    reference = make_reference(measured(images(), keep=0), "photos")
    for metric, least in (("kid", 2), ("pr", 4), ("dc", 6)):
        message = f"photos has the features of 0 images, {metric} needs {least}: leave out {metric}"
        with pytest.raises(UsageError, match=message):
            compute_scores(samples, reference, (metric,))
    plain = replace(reference, mu_s=None, sigma_s=None)
    with pytest.raises(UsageError, match="no spatial statistics"):
        compute_scores(samples, plain, ("sfid",))


def test_choosing_metrics() -> None:
    assert choose_metrics("PR, fid,pr", extractor()) == ("pr", "fid")
    assert "sfid" not in choose_metrics(None, extractor("classifier"))
    with pytest.raises(UsageError, match=r"unknown metric 'kd'; did you mean kid"):
        choose_metrics("kd", extractor())
    with pytest.raises(UsageError, match="sfid needs Inception's"):
        choose_metrics("sfid", extractor("classifier"))
    assert features_needed(("fid", "is")) == 0
    assert features_needed(("fid", "kid")) is None


def test_published_statistics_are_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "VIRTUAL_a.npz"
    mu, mu_s = np.arange(2048.0), np.arange(2023.0)
    sigma, sigma_s = np.zeros((2048, 2048)), np.zeros((2023, 2023))
    np.savez_compressed(path, arr_0=images(), mu=mu, mu_s=mu_s, sigma=sigma, sigma_s=sigma_s)
    pixels = open_pixels(path)
    found = published_reference(pixels, extractor(), features=False)
    assert found is not None
    assert torch.equal(found.mu, torch.arange(2048.0).double())
    assert (found.images, len(found.kept), found.pixels_sha256) == (None, 0, "")
    found = published_reference(pixels, extractor())
    assert found is not None
    assert len(found.kept) == 40
    assert published_reference(pixels, extractor("classifier")) is None
    assert reference_from_images(pixels, extractor()).images == 40  # its images alone
    np.savez(path, arr_0=images(), mu=mu[:3], sigma=np.eye(3))
    with pytest.raises(AdmError, match="mu has 3 numbers, expected 2048"):
        published_reference(open_pixels(path), extractor())


def test_statistics_without_images(tmp_path: Path) -> None:
    """As pytorch-fid, EDM and MAR publish them; the size is then the samples'."""
    path = tmp_path / "stats.npz"
    mu, sigma = np.arange(2048.0), np.zeros((2048, 2048))
    np.savez_compressed(path, mu=mu.astype(np.float32), sigma=sigma)
    assert statistics_only(path) == ("mu", "sigma")
    able = choose_metrics(None, extractor())
    metrics, (note,) = metrics_by(path, able, None, "inception")
    assert metrics == ("fid", "is")
    assert note == "stats.npz holds statistics only, no images: sfid, kid, pr, dc left out"
    assert metrics_by(path, ("fid",), "fid", "inception")[0] == ("fid",)
    with pytest.raises(UsageError, match=r"kid cannot be measured; --metrics fid,is can"):
        metrics_by(path, ("kid",), "kid", "inception")
    with pytest.raises(UsageError, match="holds Inception's statistics only"):
        metrics_by(path, ("fid",), None, "classifier")
    found = find_reference(path, None, extractor(), metrics, (5, 5))
    assert (found.size, found.images, len(found.kept)) == ((5, 5), None, 0)
    few = replace(found, mu=torch.full((4,), 1e3).double(), sigma=torch.eye(4).double())
    scores = {score.name: score.value for score in compute_scores(measured(images()), few, metrics)}
    assert list(scores) == ["fd_inception", "is"]
    assert scores["fd_inception"] > 1e6
    with pytest.raises(UsageError, match="holds statistics and no images"):
        open_pixels(path)
    np.savez_compressed(path, mu=mu, sigma=sigma, mu_s=np.zeros(2023), sigma_s=np.eye(2023))
    assert metrics_by(path, able, None, "inception")[0] == ("fid", "sfid", "is")
    np.savez_compressed(path, arr_0=images(), mu=mu, sigma=sigma)
    assert statistics_only(path) == ()
    assert metrics_by(path, able, None, "inception") == (able, [])


def test_a_classifiers_features(toys: Toys) -> None:
    found = load_extractor(str(toys.classifier), device="cpu")
    assert (found.name, found.size) == ("classifier", (8, 8))
    samples = measure([images(8, size=8)], found, count=8, keep=None)
    assert samples.kept.shape == (8, 32)
    assert samples.spatial is None
    with pytest.raises(UsageError, match="holds a diffusion model, expected inception or a"):
        load_extractor(str(toys.model))
    with pytest.raises(UsageError, match="leave out --features"):
        load_extractor("classifier", inception=toys.model)
    with pytest.raises(UsageError, match="--batch-size must be at least 1, got 0"):
        load_extractor("classifier", batch_size=0)
    assert load_extractor("classifier", device="cpu").size == (32, 32)  # the embedded one


def test_inception_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADM_HOME", str(tmp_path))
    with pytest.raises(MissingWeightsError, match=r"adm fetch inception.*--features classifier"):
        load_extractor("inception")
    with pytest.raises(UsageError, match="no such file"):
        load_extractor("inception", inception=tmp_path / "a.pth")
    weights = dict(rule_weights())
    path = inception_path()
    path.parent.mkdir()
    torch.save(weights, path)
    with pytest.raises(CheckpointError, match=r"is damaged: its SHA-256 is .*expected 6726825d"):
        load_extractor("inception")
    found = load_extractor("inception", inception=path, device="cpu")
    assert found.label.startswith(f"inception {path.name} (")
    del weights["fc.bias"]
    weights["fc.weight"] = weights["fc.weight"][:1000].clone()
    torch.save(weights, path)
    with pytest.raises(CheckpointError, match=r"missing: fc\.bias; .*fc\.weight is \[1000, 2048\]"):
        load_extractor("inception", inception=path)


def test_stored_statistics_are_of_their_own_size(tmp_path: Path) -> None:
    path = tmp_path / "virtual.npz"
    np.savez(path, arr_0=images(8), mu=np.zeros(4), sigma=np.eye(4))
    with pytest.raises(UsageError, match=r"of pictures of 5x5, which .* 4x4: pass --resize 5x5"):
        published_reference(open_pixels(path, (4, 4)), extractor())


def test_a_stored_reference_is_made_anew_for_smaller_samples(tmp_path: Path) -> None:
    stored = make_reference(measured(images()), "photos")
    for found, mend in (
        (stored, "make another with adm reference --resize 4x4"),
        (replace(stored, images=None), "pass --resize 5x5"),  # published: nobody else can
    ):
        save_reference(path := tmp_path / f"{found.images}.safetensors", found)
        with pytest.raises(UsageError, match=f"are 4x4, .* photos 5x5: {mend}"):
            find_reference(path, None, extractor(), ("fid",), (4, 4))
