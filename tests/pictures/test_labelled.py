"""The classes of finished images, wherever they are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adm_cli.classes.imagenet import imagenet_names
from adm_cli.errors import UsageError
from adm_cli.pictures.images import Pixels, save_image
from adm_cli.pictures.labelled import open_labelled, picture_name
from tests.conftest import TOY_CLASSES, Result, Toys

KNOWN = {0: "circle", 1: "square", 3: "star"}


def pixels(count: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def save(folder: Path, names: list[str], recipes: list[dict[str, Any] | None]) -> None:
    for data, name, recipe in zip(pixels(len(names)), names, recipes, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save_image(folder / name, data, recipe)


def recipe(class_id: int | None, **more: Any) -> dict[str, Any]:
    return {
        "class": class_id, "class_name": None if class_id is None else TOY_CLASSES.get(class_id),
        "size": [8, 8], "model": "toy", "model_sha256": "ab" * 32, "adm": "0", "sampler": "ddpm",
        "scale": 1.0, "seed": 0, "classifier_sha256": "cd" * 32, **more,
    }  # fmt: skip


def test_class_folders_by_their_names(tmp_path: Path) -> None:
    save(tmp_path, ["square/0.png", "square/1.png", "star/0.png", "moon/0.png"], [None] * 4)
    found = open_labelled(tmp_path, KNOWN)
    assert found.labels.tolist() == [-1, 1, 1, 3]  # moon, which is not known, square, star
    assert (found.left_out, found.classes, found.guides) == (1, [1, 3], frozenset())
    assert picture_name(found.pixels, 3) == f"{tmp_path}/star/0.png"


def test_wordnet_folders_have_imagenets_ids(tmp_path: Path) -> None:
    save(tmp_path, ["n02099601/0.png", "n01443537/0.png"], [None] * 2)
    assert open_labelled(tmp_path, imagenet_names()).labels.tolist() == [1, 207]


def test_recipes_tell_class_and_guide(tmp_path: Path) -> None:
    small = {**recipe(3), "classifier_sha256": "ef" * 32}
    enlarged = recipe(None, base=small, small_sha256="0", classifier_sha256=None)
    save(tmp_path, ["a.png", "b.webp", "c.png"], [recipe(1), enlarged, None])
    found = open_labelled(tmp_path, KNOWN)
    assert found.labels.tolist() == [1, 3, -1]
    assert found.guides == frozenset(["cd" * 32, "ef" * 32])


def test_a_run_says_it_in_its_manifest(
    adm: Callable[..., Result], toys: Toys, tmp_path: Path
) -> None:
    draw = ("--model", toys.model, "--classifier", toys.classifier, "--steps", 2, "--scale", 1)
    done = adm("sample", *draw, "--class", "3,0", "--num", 2, "--out", "run", "--grid")
    assert done.code == 0, done.err
    found = open_labelled(tmp_path / "run", KNOWN)
    assert found.labels.tolist() == [3, 3, 0, 0]
    (guide,) = found.guides
    assert len(guide) == 64
    merged = adm("merge", "run", "--output", "run.npz")
    assert merged.code == 0, merged.err
    again = open_labelled(tmp_path / "run.npz", KNOWN)
    assert again.labels.tolist() == [3, 3, 0, 0]
    assert again.guides == found.guides
    assert picture_name(again.pixels, 2) == f"{tmp_path / 'run.npz'}[2]"


def test_an_npz_with_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", arr_0=pixels(3), arr_1=np.array([3, 2, 1]))
    found = open_labelled(tmp_path / "a.npz", KNOWN, (4, 4))
    assert found.labels.tolist() == [3, -1, 1]
    assert (found.pixels.size, len(found.pixels)) == ((4, 4), 3)


def test_images_without_a_class_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", arr_0=pixels(3))
    with pytest.raises(UsageError, match=r"a\.npz say no class: expected a run, an npz with arr_1"):
        open_labelled(tmp_path / "a.npz", KNOWN)
    np.savez(tmp_path / "b.npz", arr_0=pixels(3), arr_1=np.array([2, 4, 2]))
    with pytest.raises(UsageError, match=r"knows none of the classes of .*b\.npz \(2, 4\)"):
        open_labelled(tmp_path / "b.npz", KNOWN)
    save(tmp_path / "c", ["0.png", "1.png"], [None, None])
    with pytest.raises(UsageError, match="c say no class"):
        open_labelled(tmp_path / "c", KNOWN)


def test_an_id_must_mean_the_same_class(tmp_path: Path) -> None:
    save(tmp_path, ["a.png", "b.png"], [recipe(1), recipe(3)])
    with pytest.raises(UsageError, match=r"class 3 is star to the pictures of .*, but moon to the"):
        open_labelled(tmp_path, {1: "square", 3: "moon"})
