"""Batches: every picture once an epoch, the same ones whoever asks, in memory or streamed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from adm_cli.errors import AdmError
from adm_cli.pictures.datasets import ImageSet, open_images
from adm_cli.pictures.decode import center_crop, decode_picture
from adm_cli.training.feed import (
    Batch,
    CachedFeed,
    FeedOptions,
    Plan,
    StreamedFeed,
    decode_validation,
    make_feed,
)

OPTIONS = FeedOptions((8, 8), batch_size=6, seed=1, workers=0)


def take(batches: Iterator[Batch], count: int) -> list[Batch]:
    return list(islice(batches, count))


def test_every_picture_once_an_epoch() -> None:
    plan = Plan(10, OPTIONS)
    seen = torch.cat([plan.arrays(step)[0] for step in range(5)])  # 30 pictures, 3 epochs
    for epoch in seen.reshape(3, 10):
        assert sorted(epoch.tolist()) == list(range(10))
    assert not torch.equal(seen[:10], seen[10:20])


def test_a_step_depends_on_the_seed_and_its_number_alone() -> None:
    far = Plan(10, OPTIONS).draws(7)
    plan = Plan(10, OPTIONS)
    for step in range(7):
        plan.draws(step)
    assert plan.draws(7) == far
    assert Plan(10, replace(OPTIONS, seed=2)).draws(7) != far
    assert plan.draws(8) != far


def test_shares_make_up_the_batch() -> None:
    whole = Plan(10, OPTIONS).draws(4)
    shares = [Plan(10, replace(OPTIONS, share=(rank, 3))).draws(4) for rank in range(3)]
    assert [draw for share in shares for draw in share] == whole


def test_a_set_smaller_than_the_batch_repeats() -> None:
    counts = Counter(Plan(4, OPTIONS).arrays(0)[0].tolist())
    assert sorted(counts.values()) == [1, 1, 2, 2]
    assert set(Plan(1, OPTIONS).arrays(3)[0].tolist()) == {0}


def test_half_are_flipped_and_only_if_asked() -> None:
    plan = Plan(50, replace(OPTIONS, batch_size=1000))
    assert 0.45 < plan.arrays(0)[2].float().mean() < 0.55
    assert not Plan(50, replace(OPTIONS, flip=False)).arrays(0)[2].any()


def test_pictures_and_labels_belong_together(images: ImageSet) -> None:
    feed = CachedFeed(images, OPTIONS)
    batch = feed.batch(2)
    for pixels, label, draw in zip(batch.images, batch.labels, feed.plan.draws(2), strict=True):
        picture = decode_picture(images.read(draw.picture), "")
        expected = torch.from_numpy(center_crop(picture, (8, 8)).copy())
        assert torch.equal(pixels, expected.flip(1) if draw.flip else expected)
        assert label == images.labels()[draw.picture]


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_gives_the_same_batches(images: ImageSet, *, crop: bool, workers: int) -> None:
    options = replace(OPTIONS, random_crop=crop, workers=workers)
    cached = take(make_feed(images, replace(options, cache=True)).batches(3), 4)
    streamed = take(make_feed(images, replace(options, cache=False)).batches(3), 4)
    for a, b in zip(cached, streamed, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
    assert cached[0].images.shape == (6, 8, 8, 3)


def test_small_sets_are_cached_and_large_ones_streamed(
    images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for crop in (False, True):
        options = replace(OPTIONS, random_crop=crop)
        assert isinstance(make_feed(images, options), CachedFeed)
        with monkeypatch.context() as patch:
            patch.setattr("adm_cli.training.feed._MOST_CACHE", 1000)
            assert isinstance(make_feed(images, options), StreamedFeed)


def test_random_crops_differ_from_epoch_to_epoch(images: ImageSet) -> None:
    one = images.part([0])
    options = replace(OPTIONS, random_crop=True, flip=False, batch_size=12)
    batch = CachedFeed(one, options).batch(0).images
    assert len({pixels.numpy().tobytes() for pixels in batch}) > 3


@pytest.fixture
def damaged(pictures: Path, tmp_path: Path) -> ImageSet:
    """Six good pictures and two bad ones."""
    folder = tmp_path / "damaged"
    for kind in ("circle", "square"):
        (folder / kind).mkdir(parents=True)
        for i in range(3):
            data = (pictures / kind / f"{i}.png").read_bytes()
            (folder / kind / f"{i}.png").write_bytes(data)
        (folder / kind / "bad.png").write_bytes(data[:60])
    return open_images([folder])


@pytest.mark.parametrize("cache", [True, False])
def test_bad_pictures_are_refused_or_passed_over(damaged: ImageSet, *, cache: bool) -> None:
    with pytest.raises(AdmError, match=r"bad\.png.*--skip-bad"):
        take(make_feed(damaged, replace(OPTIONS, cache=cache)).batches(0), 2)
    feed = make_feed(damaged, replace(OPTIONS, cache=cache, skip_bad=True))
    batches = take(feed.batches(0), 2)
    assert all(len(batch.images) == 6 for batch in batches)
    bad = [*feed.bad, *(text for batch in batches for text in batch.bad)]
    assert {text.split(".png")[0].rsplit("/", 1)[-1] for text in bad} == {"bad"}
    if cache:
        assert len(bad) == 2
        assert len(feed.images) == 6


def test_nothing_readable(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"a_{i}.png").write_bytes(b"no picture")
    images = open_images([tmp_path])
    with pytest.raises(AdmError, match="none of 3 pictures"):
        make_feed(images, replace(OPTIONS, skip_bad=True))
    with pytest.raises(AdmError, match="no pictures"):
        make_feed(images.part([]), OPTIONS)


def test_validation_pictures_are_spread_and_fixed(images: ImageSet) -> None:
    pixels, labels, bad = decode_validation(images, OPTIONS, most=6)
    assert pixels.shape == (6, 8, 8, 3)
    assert pixels.dtype == torch.uint8
    assert set(labels.tolist()) == {0, 1}
    assert not bad
    again, _, _ = decode_validation(images, replace(OPTIONS, seed=9), most=6)
    assert torch.equal(pixels, again)
    everything, _, _ = decode_validation(images, OPTIONS, most=100)
    assert len(everything) == len(images)
