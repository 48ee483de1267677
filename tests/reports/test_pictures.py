"""Which pictures are judged, under which labels, and what happens to bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from adm_cli.classes.imagenet import imagenet_names
from adm_cli.errors import AdmError, DeviceError, UsageError
from adm_cli.pictures.datasets import ImageSet, match_classes, open_images
from adm_cli.reports.pictures import (
    each_batch,
    labelled_pictures,
    noise_generators,
    some_pictures,
)
from tests.conftest import TOY_CLASSES


def names(images: ImageSet) -> list[str]:
    return [p.name for p in images.pictures]


def of_classes(tmp_path: Path, *classes: str) -> ImageSet:
    for name in classes:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    return open_images([tmp_path])


def test_labels_become_the_models_ids(shapes: Path) -> None:
    images, dropped = labelled_pictures([shapes], {7: "square", 2: "circle"})
    assert dropped == 0
    assert images.classes == {2: "circle", 7: "square"}
    assert images.labels().tolist() == [2] * 4 + [7] * 4


def test_only_classes_that_the_model_knows(shapes: Path) -> None:
    images, dropped = labelled_pictures([shapes], {5: "square", 6: "star"})
    assert (len(images), dropped, images.classes) == (4, 4, {5: "square"})
    narrowed, _ = labelled_pictures([shapes], TOY_CLASSES, classes=["square"])
    assert set(narrowed.labels()) == {1}
    with pytest.raises(UsageError, match="no pictures of the class star"):
        labelled_pictures([shapes], TOY_CLASSES, classes=["star"])
    with pytest.raises(UsageError, match=r"knows none of the pictures' 2 classes \(circle, sq"):
        labelled_pictures([shapes], {0: "star"})
    with pytest.raises(UsageError, match="no labels"):
        labelled_pictures([shapes], TOY_CLASSES, labels="none")


def test_numbers_are_ids_and_names_go_first(tmp_path: Path) -> None:
    images = of_classes(tmp_path, "3", "1", "8")
    assert match_classes(images, TOY_CLASSES).labels().tolist() == [1, 3]
    assert match_classes(images, {0: "8", 8: "star"}).labels().tolist() == [0]


def test_imagenets_two_cranes_stay_apart(tmp_path: Path) -> None:
    images = of_classes(tmp_path, "n02012849", "n01443537")  # the bird, 134; a goldfish
    assert imagenet_names()[134] == imagenet_names()[517] == "crane"
    known = {1: "goldfish", 517: "crane"}  # the machine
    assert match_classes(images, known).labels().tolist() == [1]
    assert match_classes(images, {3: "crane"}).labels().tolist() == [3]  # numbers of its own


def test_fewer_pictures_are_among_more(shapes: Path) -> None:
    images = open_images([shapes])
    three, five = (names(some_pictures(images, n, seed=1)) for n in (3, 5))
    assert (len(three), len(five)) == (3, 5)
    assert set(three) < set(five)
    assert five == [name for name in names(images) if name in five]  # in the set's order
    assert some_pictures(images, 100, seed=1) is images
    with pytest.raises(UsageError, match="--num must be at least 1"):
        some_pictures(images, 0, seed=0)


def test_noise_depends_on_seed_purpose_and_name_alone(shapes: Path) -> None:
    images = open_images([shapes])

    def first(part: ImageSet, *key: object) -> list[float]:
        return [torch.rand(1, generator=g).item() for g in noise_generators(part, 0, *key)]

    alone = first(images.part([5]), "a")
    assert alone == first(images, "a")[5:6]
    assert len(set(first(images, "a") + first(images, "b"))) == 16
    other = [torch.rand(1, generator=g).item() for g in noise_generators(images, 1, "a")]
    assert not set(other) & set(first(images, "a"))


def add_bad_picture(tmp_path: Path, shapes: Path) -> ImageSet:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    return open_images([tmp_path, shapes], labels="none")


def test_bad_pictures_are_refused_or_passed_over(tmp_path: Path, shapes: Path) -> None:
    images = add_bad_picture(tmp_path, shapes)

    def count(part: ImageSet, pixels: Tensor) -> tuple[int, tuple[int, ...]]:
        return len(part), tuple(pixels.shape)

    with pytest.raises(AdmError, match=r"bad\.png.*--skip-bad"):
        list(each_batch(images, (8, 8), 1, count))
    said: list[str] = []
    done = list(each_batch(images, (8, 8), 1, count, skip_bad=True, on_note=said.append))
    assert [result for _, result in done] == [(1, (1, 8, 8, 3))] * 8
    assert len(said) == 1
    assert "passed over" in said[0]
    mixed = list(each_batch(images, (8, 8), 5, count, skip_bad=True))
    assert [len(part) for part, _ in mixed] == [4, 4]


def test_out_of_memory_halves_the_batch(shapes: Path) -> None:
    images = open_images([shapes])
    said: list[str] = []

    def small(part: ImageSet, _pixels: Tensor) -> int:
        if len(part) > 3:
            raise MemoryError
        return len(part)

    done = [result for _, result in each_batch(images, (8, 8), 7, small, on_note=said.append)]
    assert done == [3, 3, 2]
    assert said == ["out of memory: going on with batches of 3"]

    def never(_part: ImageSet, _pixels: Tensor) -> int:
        raise MemoryError

    with pytest.raises(DeviceError, match="single picture"):
        list(each_batch(images, (8, 8), 2, never))


def test_other_errors_pass(shapes: Path) -> None:
    def broken(_part: ImageSet, _pixels: Tensor) -> int:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        list(each_batch(open_images([shapes]), (8, 8), 2, broken))
