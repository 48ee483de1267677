"""Where the images of a run go."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adm_cli.errors import OutputError
from adm_cli.storage.images import make_grid, open_picture
from adm_cli.storage.runs import (
    Grid,
    ImageFolder,
    NpzFile,
    fresh_folder,
    image_name,
    make_fresh_folder,
    refuse_existing,
)

RECIPE: dict[str, Any] = {
    "adm": "1",
    "model": "toy",
    "model_sha256": "a" * 64,
    "class": 1,
    "class_name": "square",
    "scale": 1.0,
    "sampler": "ddpm",
    "num_steps": 5,
    "seed": 0,
    "size": [4, 4],
}
IMAGES = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)


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
    assert image_name(207, 3, ".png") == "class0207_seed000003.png"
    assert image_name(None, 3, ".webp") == "seed000003.webp"
    assert image_name(0, 2**64 - 1, ".png") == f"class0000_seed{2**64 - 1}.png"
    names = [image_name(c, s, ".png") for c in (2, 10, 999) for s in (9, 10, 123456)]
    assert names == sorted(names)


def test_refuse_existing(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    refuse_existing(paths)
    paths[1].touch()
    with pytest.raises(OutputError, match=r"^1 of the files .*e\.g\. .*/b: .*--overwrite$"):
        refuse_existing(paths)


def test_image_folder_writes_each_image_at_once(tmp_path: Path) -> None:
    folder = ImageFolder(tmp_path / "o", ".png")
    records = folder.add(IMAGES, [1, None], [0, 5], [RECIPE, RECIPE])
    for i, record in enumerate(records):
        assert folder.written == len(list((tmp_path / "o").iterdir())) == i + 1
        path = Path(record["path"])
        assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert np.array_equal(open_picture(path)[0], IMAGES[i])
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == [
        "class0001_seed000000.png",
        "seed000005.png",
    ]
    assert folder.close() == []


def test_npz_file_is_written_at_the_end(tmp_path: Path) -> None:
    file = NpzFile(tmp_path / "o", RECIPE)
    assert file.close() == []
    for start in (0, 2):
        assert list(file.add(IMAGES, [1, 2], [start, start + 1], [])) == []
    assert (file.written, list(tmp_path.iterdir())) == (0, [])
    (record,) = file.close()
    assert record == {"path": str(tmp_path / "o" / "samples_4x4x4x3.npz"), "images": 4}
    assert file.written == 4
    with np.load(record["path"]) as arrays:
        assert np.array_equal(arrays["arr_0"], np.concatenate([IMAGES, IMAGES]))
        assert arrays["seeds"].tolist() == [0, 1, 2, 3]


def test_grid_takes_the_first_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Grid, "MOST", 3)
    sheet = Grid(tmp_path / "grid.png")
    assert sheet.close() == []
    sheet.add(IMAGES)
    sheet.add(IMAGES)
    assert sheet.close() == [{"path": str(tmp_path / "grid.png"), "images": 3}]
    shown, recipe = open_picture(tmp_path / "grid.png")
    assert np.array_equal(shown, make_grid(np.concatenate([IMAGES, IMAGES[:1]])))
    assert recipe is None
