"""Where the images of a run go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adm_cli.errors import OutputError
from adm_cli.files.disk import refuse_existing
from adm_cli.files.fresh import fresh_folder, make_fresh_folder
from adm_cli.pictures.images import open_picture, save_image
from adm_cli.pictures.sheets import class_sheet
from adm_cli.sampling import beside
from adm_cli.sampling.beside import write_grid
from adm_cli.sampling.choosing.image_names import class_label, image_name
from adm_cli.sampling.choosing.images import Image, Images, drawn_row
from tests.sampling.runs import image

IMAGES = np.arange(4 * 4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 4, 3)


def test_fresh_folders_count_up(tmp_path: Path) -> None:
    parent = tmp_path / "out"
    assert fresh_folder(parent) == parent / "0001"
    assert not parent.exists()
    assert [make_fresh_folder(parent).name for _ in range(2)] == ["0001", "0002"]
    for name in ("0041", "99x", "notes"):
        (parent / name).mkdir()
    (parent / "0042").write_text("a file")
    assert make_fresh_folder(parent) == parent / "0043"
    (parent / "9999").mkdir()
    assert fresh_folder(parent) == parent / "10000"


def test_runs_that_start_together_share_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run makes the folder between looking and making."""
    mkdir = Path.mkdir

    def late(path: Path, *args: Any, **options: Any) -> None:
        if path.name == "0001" and not path.exists():
            mkdir(path)
        mkdir(path, *args, **options)

    monkeypatch.setattr(Path, "mkdir", late)
    assert make_fresh_folder(tmp_path / "out").name == "0002"


def test_no_fresh_folder_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="out is a file, expected a folder"):
        make_fresh_folder(tmp_path / "out")


def test_names_sort_as_numbers() -> None:
    assert image_name(class_label(207), 3, ".png") == "class0207_seed000003.png"
    assert image_name("", 3, ".webp") == "seed000003.webp"
    assert image_name("class0000_", 2**64 - 1, ".png") == f"class0000_seed{2**64 - 1}.png"
    labels = [class_label(2, "z"), class_label(10, "a"), class_label(999, "b")]
    names = [image_name(label, s, ".png") for label in labels for s in (9, 10, 123456)]
    assert names == sorted(names)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("golden retriever", "0007_golden-retriever_"),
        ("St. Bernard's  Größe", "0007_st-bernards-grosse_"),
        ("../../CON:<>|", "0007_con_"),
        ("a seed000001 of seed12", "0007_a-seed-000001-of-seed-12_"),
        ("x" * 300, f"0007_{'x' * 40}_"),
        ("8", "0007_8_"),
        ("7", "class0007_"),  # which says nothing
        ("class 7", "class0007_"),
        ("狗", "class0007_"),
        ("", "class0007_"),
    ],
)
def test_the_class_in_a_name(name: str, label: str) -> None:
    assert class_label(7, name) == label
    first = drawn_row(7, range(2), ".png", 2.5, class_name=name)
    assert Images([first])[1].file == f"{label}scale2.5_seed000001.png"


def test_a_run_keeps_its_names() -> None:
    """Those that it was begun with; a class that is new is called as the others are."""

    def images(names: dict[int, str], **own: Any) -> Images:
        rows = [drawn_row(i, range(3), ".png", class_name=n, **own) for i, n in names.items()]
        return Images([*rows, drawn_row(None, range(2), ".png", **own)])

    now = images({1: "one", 2: "two", 3: ""}, scale=2.0)
    assert now.named_as(images({1: "", 3: ""})) == images({1: "", 2: "", 3: ""}, scale=2.0)
    uno = images({1: "uno", 3: ""})
    assert now.named_as(uno) == images({1: "uno", 2: "two", 3: ""}, scale=2.0)
    for begun in (Images([drawn_row(None, range(3), ".png")]), now):
        assert now.named_as(begun) == now
    enlarged = Images.of([Image("0001_x_seed000000.png", 1, 0, input="a", small_sha256="b")])
    assert enlarged.named_as(images({1: ""})) == enlarged
    assert now.named_as(enlarged) == now


def test_items_say_what_they_are() -> None:
    plain = image(7, 3)
    assert (plain.file, plain.facts()) == ("class0007_seed000003.png", {"class": 7, "seed": 3})
    own = image(7, 3, scale=2.5)
    assert (own.file, own.facts()["scale"]) == ("class0007_scale2.5_seed000003.png", 2.5)
    assert image(7, 3, scale=0.0).file == "class0007_scale0_seed000003.png"


def test_refuse_existing(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    refuse_existing(paths)
    paths[1].touch()
    with pytest.raises(OutputError, match=r"/b exists already: .*--overwrite$"):
        refuse_existing(paths)


def test_grid_takes_the_first_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "MOST_IN_GRID", 3)
    assert write_grid(tmp_path / "grid.png", []) == 0
    assert not (tmp_path / "grid.png").exists()
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path, pixels in zip(paths, IMAGES, strict=True):
        save_image(path, pixels)
    assert write_grid(tmp_path / "grid.png", paths) == 3
    shown, recipe = open_picture(tmp_path / "grid.png")
    assert np.array_equal(shown, class_sheet(list(IMAGES[:3]), [""] * 3, ["0", "1", "2"]))
    assert recipe is None
