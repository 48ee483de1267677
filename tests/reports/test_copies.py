"""Copies among samples: in pixels, in features, at other sizes, mirrored, in little memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from adm_cli.errors import AdmError, UsageError
from adm_cli.evaluation.inception import Features
from adm_cli.pictures.images import Pixels
from adm_cli.pictures.pixels import PixelSet, open_pixels
from adm_cli.reports.copies import find_copies
from adm_cli.reports.measure import Extractor


def save(path: Path, data: Pixels) -> PixelSet:
    np.savez(path, arr_0=data)
    return open_pixels(path)


def pixels(count: int, size: int = 8, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def means(images: Tensor) -> Features:
    pool = images.float().mean(dim=(1, 2)) / 255  # [n, 3]
    return Features(pool, None, pool)


def extractor(size: tuple[int, int] | None = None) -> Extractor:
    return Extractor("classifier", "made-up", "ab" * 32, size, torch.device("cpu"), means, 4)


def test_copies_are_found_mirrored_and_slightly_changed(tmp_path: Path) -> None:
    training, fresh = pixels(20), pixels(8, seed=1)
    fresh[2] = training[7]
    fresh[4] = training[11][:, ::-1]
    fresh[6] = training[13] // 16 * 16
    save(tmp_path / "t.npz", training)
    found = find_copies(save(tmp_path / "s.npz", fresh), tmp_path / "t.npz", batch_size=3)
    assert found.share.value == 3 / 8
    assert found.share.error == pytest.approx((3 / 8 * 5 / 8 / 8) ** 0.5)
    assert (found.images, found.training_images, len(found.worst)) == (8, 20, 5)
    pairs = {Path(p.sample).name: Path(p.training).name for p in found.worst[:3]}
    assert pairs == {"s.npz[2]": "t.npz[7]", "s.npz[4]": "t.npz[11]", "s.npz[6]": "t.npz[13]"}
    ratios = [pair.ratio for pair in found.worst]
    assert ratios == sorted(ratios)
    assert (ratios[0], ratios[1]) == (0, 0)
    assert 0 < ratios[2] < 0.2
    assert ratios[3] > 0.8
    none = find_copies(save(tmp_path / "n.npz", pixels(8, seed=2)), tmp_path / "t.npz")
    assert none.share.value == 0 < none.share.error


def test_training_pictures_are_brought_to_the_samples_size(tmp_path: Path) -> None:
    small = pixels(6)
    save(tmp_path / "t.npz", small.repeat(2, axis=1).repeat(2, axis=2))  # 16x16
    found = find_copies(save(tmp_path / "s.npz", small[:3]), tmp_path / "t.npz")
    assert (found.share.value, found.ratios.tolist()) == (1, [0, 0, 0])


def test_copies_in_features(tmp_path: Path) -> None:
    """A network that sees only the mean colour takes shuffled pixels for a copy."""
    training = pixels(20)
    order = np.random.default_rng(3).permutation(64)
    shuffled = training[:2].reshape(2, 64, 3)[:, order].reshape(2, 8, 8, 3)
    save(tmp_path / "t.npz", training)
    samples = save(tmp_path / "s.npz", shuffled)
    assert find_copies(samples, tmp_path / "t.npz").share.value == 0
    found = find_copies(samples, tmp_path / "t.npz", extractor())
    assert found.share.value == 1
    assert {Path(pair.training).name for pair in found.worst} == {"t.npz[0]", "t.npz[1]"}


def test_a_network_sees_its_own_size(tmp_path: Path) -> None:
    samples = save(tmp_path / "s.npz", pixels(9))
    found = find_copies(samples, tmp_path / "s.npz", extractor((4, 4)))
    assert (found.share.value, found.training_images) == (1, 9)


def test_progress_and_refusals(tmp_path: Path) -> None:
    samples = save(tmp_path / "s.npz", pixels(8))
    told: list[tuple[str, int, int]] = []
    find_copies(
        samples,
        tmp_path / "s.npz",
        batch_size=5,
        on_step=lambda *step: told.append(step),
    )
    assert told == [("training pictures", 5, 8), ("training pictures", 8, 8)]
    save(tmp_path / "one.npz", pixels(1))
    with pytest.raises(UsageError, match=r"one\.npz has 1 picture, expected at least 2"):
        find_copies(samples, tmp_path / "one.npz")
    for most in (0, 1):
        with pytest.raises(UsageError, match=f"between 0 and 1, got {most}"):
            find_copies(samples, tmp_path / "s.npz", most=most)

    def broken(images: Tensor) -> Features:
        return Features(means(images).pool * float("nan"), None, means(images).pool)

    other = Extractor("classifier", "x", "ab" * 32, None, torch.device("cpu"), broken, 4)
    with pytest.raises(AdmError, match="features of image 0 are NaN"):
        find_copies(samples, tmp_path / "s.npz", other)
