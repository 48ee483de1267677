"""Runs gathered: the layout of the npz, and what does not belong together."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adm_cli.errors import RunError
from adm_cli.pictures.images import Pixels
from adm_cli.sampling.choosing.images import Image, Images, drawn_row
from adm_cli.sampling.drawing.writer import DrawnImage
from adm_cli.sampling.folder import RunFolder
from adm_cli.sampling.merge import merge as gather
from adm_cli.sampling.merge import merge_npz, merge_tars, merge_zip, open_runs
from adm_cli.sampling.recipes.recipe import run_recipe
from adm_cli.sampling.run import Stage
from tests.sampling.runs import STAGE, image, run_of, writing


def noise(count: int, side: int = 4) -> Pixels:
    shape = (count, side, side, 3)
    return np.random.default_rng(count).integers(0, 256, shape).astype(np.uint8)


def make_run(
    folder: Path, items: Sequence[Image], images: Pixels, stage: Stage = STAGE, kept: int = 10**6
) -> Path:
    """A run of these images, drawn backwards."""
    run = RunFolder(folder)
    run.begin(run_of(items, stage=stage))
    done = [DrawnImage(i, p, None) for i, p in zip(items, images, strict=True)][:kept]
    with writing(run) as writer:
        for image in done[::-1]:
            writer.add([image])
    return folder


def ignore(_done: int) -> None:
    pass


def test_npz_is_the_original_s(tmp_path: Path) -> None:
    images, path = noise(3), tmp_path / "x.npz"
    items = [image(c, s) for c, s in ((5, 1), (0, 2), (5, 2**64 - 1))]
    merge_npz(path, *open_runs([make_run(tmp_path / "r", items, images)]), ignore)
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays.files[:2] == ["arr_0", "arr_1"]
        assert np.array_equal(arrays["arr_0"], images)
        assert (arrays["arr_0"].dtype, arrays["arr_1"].dtype) == (np.uint8, np.int64)
        assert arrays["arr_1"].tolist() == [5, 0, 5]
        assert arrays["seeds"].tolist() == [1, 2, 2**64 - 1]
        assert json.loads(str(arrays["adm"])) == run_recipe(run_of(items))
    # the original's evaluator reads arr_0 in place, so it is stored as it is
    assert path.read_bytes().count(images.tobytes()) == 1


def test_npz_without_classes(tmp_path: Path) -> None:
    items = [image(None, s, ".webp") for s in range(2)]
    merge_npz(tmp_path / "x.npz", *open_runs([make_run(tmp_path / "r", items, noise(2))]), ignore)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert "arr_1" not in arrays.files
        assert np.array_equal(arrays["arr_0"], noise(2))


def test_progress_is_told(tmp_path: Path) -> None:
    items = [image(1, s) for s in range(5)]
    plan, entries = open_runs([make_run(tmp_path / "r", items, noise(5))])
    for count in (1, 2, 3):
        told: list[int] = []
        if count == 1:
            merge_npz(tmp_path / "x.npz", plan, entries, told.append)
        elif count == 2:
            merge_zip(tmp_path / "x.zip", entries, told.append)
        else:
            paths = [tmp_path / f"x-{i}.tar" for i in range(3)]
            merge_tars(paths, [entries[:2], entries[2:4], entries[4:]], told.append)
        assert told == [1, 2, 3, 4, 5]
    assert [p.name for p in sorted(tmp_path.glob("*.tar"))] == ["x-0.tar", "x-1.tar", "x-2.tar"]


def test_keys_of_webdataset_have_no_point(tmp_path: Path) -> None:
    items = [image(1, 0, scale=2.5)]
    _, entries = open_runs([make_run(tmp_path / "r", items, noise(1))])
    merge_tars([tmp_path / "x.tar"], [entries], ignore)
    with tarfile.open(tmp_path / "x.tar") as tar:
        names = tar.getnames()
    assert names == [f"class0001_scale2_5_seed000000.{end}" for end in ("png", "cls", "json")]


def test_runs_that_do_not_belong_together(tmp_path: Path) -> None:
    items = [image(1, s) for s in range(4)]
    first = make_run(tmp_path / "a", items[:2], noise(2))
    other = replace(STAGE, model_sha256="b" * 64)
    second = make_run(tmp_path / "b", items[2:], noise(2), other)
    with pytest.raises(RunError, match="do not belong together: model_sha256 is bbbbbbbbbbbb"):
        open_runs([first, second])


def test_an_image_is_gathered_once_whatever_its_class_is_called(tmp_path: Path) -> None:
    named = drawn_row(1, range(2), ".png", class_name="one")
    first = make_run(tmp_path / "a", [image(1, s) for s in range(2)], noise(2))
    second = make_run(tmp_path / "b", list(Images([named])), noise(2))
    with pytest.raises(RunError, match=r"0001_one_seed000000.png is in two of the runs"):
        open_runs([first, second])
    own = make_run(tmp_path / "c", [image(1, s, scale=3.0) for s in range(2)], noise(2))
    assert len(open_runs([second, own])[1]) == 4


@pytest.mark.parametrize("name", ["x.npz", "x.zip", "x.tar", "x-%02d.tar"])
def test_a_plan_says_files_and_bytes(tmp_path: Path, name: str) -> None:
    items = [image(1, s) for s in range(5)]
    run, out = make_run(tmp_path / "r", items, noise(5)), tmp_path / "new" / name
    size = 2 if "%" in name else None
    planned = gather(run, out, size, dry_run=True)
    assert not out.parent.exists()
    made = gather(run, out, size)
    assert [f.path for f in planned] == [f.path for f in made]
    assert [f.about["images"] for f in planned] == [f.about["images"] for f in made]
    for file in planned:
        least = 4000 if out.suffix == ".npz" else 11_000  # heads, and a tar's end
        assert abs(file.about["bytes"] - file.path.stat().st_size) < least


def test_incomplete_runs(tmp_path: Path) -> None:
    items = [image(1, s) for s in range(3)]
    run = make_run(tmp_path / "a", items, noise(3), kept=2)
    with pytest.raises(RunError, match=r"1 of 3 images is missing; .*--partial"):
        open_runs([run])
    _, entries = open_runs([run], partial=True)
    assert [entry.path.name for entry in entries] == [item.file for item in items[:2]]
    empty = make_run(tmp_path / "b", items, noise(3), kept=0)
    with pytest.raises(RunError, match="no images yet"):
        open_runs([empty], partial=True)


def test_a_damaged_image_leaves_no_file(tmp_path: Path) -> None:
    items = [image(1, s) for s in range(3)]
    run = make_run(tmp_path / "a", items, noise(3))
    path = run / items[2].file
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    plan, entries = open_runs([run])
    merges: list[Callable[[], object]] = [
        lambda: merge_npz(tmp_path / "x.npz", plan, entries, ignore),
        lambda: merge_zip(tmp_path / "x.zip", entries, ignore),
        lambda: merge_tars([tmp_path / "x.tar"], [entries], ignore),
    ]
    for merge in merges:
        with pytest.raises(RunError, match="is damaged: run adm verify"):
            merge()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
