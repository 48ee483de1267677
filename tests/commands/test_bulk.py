"""Runs of `adm sample` that are interrupted, divided, grown, checked and gathered."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adm_cli.sampling.drawing.memory as memory_module
from adm_cli.models.classifier import NoisyClassifier
from adm_cli.models.unet import UNet
from adm_cli.pictures.images import open_picture
from adm_cli.sampling.folder import RunFolder
from adm_cli.sampling.run import render_run
from tests.conftest import Result, Toys, pictures
from tests.conftest import pictures as pictures_in

Run = Callable[..., Result]
PROJECT = Path(__file__).parent.parent.parent
WANTED = ("--class", "0,3", "--num", 3, "-b", 2)


def contents(folder: str | Path) -> dict[str, str]:
    return {
        name: hashlib.sha256((Path(folder) / name).read_bytes()).hexdigest()
        for name in pictures(folder)
    }


def records(result: Result) -> list[dict[str, Any]]:
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


def fail_at(monkeypatch: pytest.MonkeyPatch, error: BaseException, call: int) -> None:
    real, calls = UNet.forward, iter(range(1, 10**6))

    def forward(self: UNet, *args: Any, **kwargs: Any) -> torch.Tensor:
        if next(calls) == call:
            raise error
        return real(self, *args, **kwargs)

    monkeypatch.setattr(UNet, "forward", forward)


# Going on


def test_a_resumed_run_equals_an_uninterrupted_one(
    draw: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert draw(*WANTED, "--out", "whole").code == 0
    for call in range(2, 7):
        with monkeypatch.context() as patch:
            fail_at(patch, KeyboardInterrupt(), call)
            assert draw(*WANTED, "--out", f"o{call}").code == 130
        there = set(pictures(f"o{call}"))
        times = {name: (Path(f"o{call}") / name).stat().st_mtime_ns for name in there}
        rows = records(draw(*WANTED, "--out", f"o{call}", "--json"))
        assert contents(f"o{call}") == contents("whole")
        assert {Path(row["path"]).name: row["new"] for row in rows} == {
            name: name not in there for name in pictures("whole")
        }
        assert all((Path(f"o{call}") / n).stat().st_mtime_ns == t for n, t in times.items())


def test_nothing_to_do_loads_no_model_and_tells_all(
    draw: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = draw(*WANTED, "--out", "o")
    monkeypatch.setattr("adm_cli.sampling.drawing.models.load_stage", None)
    again = draw(*WANTED, "--out", "o")
    assert (again.code, again.out) == (0, first.out)
    assert again.err == "adm: nothing to do: 6 images in o, all there\n"


def test_the_automatic_batch_size_is_kept(draw: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert draw("--seeds", "0-3", "--out", "o").code == 0
    monkeypatch.setattr(memory_module, "free_bytes", lambda _device: 0)  # would now be 1
    assert draw("--seeds", "0-6", "--out", "o").code == 0
    sizes = {open_picture(Path("o") / n)[1]["batch_size"] for n in pictures("o")}  # type: ignore[index]
    assert sizes == {4}
    refused = draw("--seeds", "0-6", "--out", "o", "-b", 2)
    assert (refused.code, refused.out) == (1, "")
    assert "batch_size 4 -> 2" in refused.err


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of this process's, as OMP_NUM_THREADS does that of a new one."""
    yield torch.set_num_threads
    torch.set_num_threads(1)


def rewrite(run: Path, **settings: Any) -> None:
    """``run.json`` with other settings, as anyone could write it."""
    data = render_run(replace(RunFolder(run).read(), **settings))
    for name in ("run.json", ".run.json.copy"):
        (run / name).write_bytes(data)


def test_whoever_goes_on_takes_the_runs_threads(
    draw: Run, adm: Run, toys: Toys, threads: Callable[[int], None]
) -> None:
    """Rounding depends on them; the pictures' own recipes do not say them."""
    threads(3)
    assert draw("--seeds", "0-2", "--out", "whole", "-b", 1).code == 0
    assert draw("--seeds", "0", "--out", "o", "-b", 1).code == 0
    threads(1)
    done = draw("--seeds", "0-2", "--out", "o", "-b", 1)
    note, _ = done.err.splitlines()
    assert note == "adm: computing with 3 CPU threads, as o was begun"
    assert RunFolder(Path("o")).read().threads == 3
    assert contents("o") == contents("whole")
    assert all("threads" not in (open_picture(Path("o") / n)[1] or {}) for n in pictures("o"))
    shown = draw("--seeds", "0-3", "--out", "o", "-b", 1, "--dry-run")
    assert (shown.code, torch.get_num_threads()) == (0, 1)
    name = pictures("o")[0]
    (Path("o") / name).unlink()
    assert adm("verify", "o", "--repair", *models(toys)).code == 0
    assert adm("repro", Path("o") / name, *models(toys)).out == "identical\n"
    assert torch.get_num_threads() == 1  # the run's were put back
    assert contents("o") == contents("whole")


@pytest.mark.parametrize("count", [10**5, 0, "2", [1], True])
def test_threads_that_cannot_be_are_told(
    draw: Run, count: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert draw("--seeds", "0", "--out", "o").code == 0
    rewrite(Path("o"), threads=count)
    monkeypatch.setattr(torch, "set_num_threads", None)
    for last in (1, 2):
        done = draw("--seeds", f"0-{last}", "--out", "o")
        assert done.code == 0
        told = f"since o was begun, this has changed: threads {count!r} -> 1"
        assert told in done.err
    assert RunFolder(Path("o")).read().threads == count


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (["--scale", "2"], "scale 1 -> 2"),
        (["--scale", "0"], "classifier_sha256"),
        (["--steps", "3"], "steps 2 -> 3, num_steps 2 -> 3"),
        (["--sampler", "ddim"], "sampler ddpm -> ddim"),
        (["--no-clip"], "clip_denoised True -> False"),
        (["--dtype", "bfloat16"], "dtype float32 -> bfloat16"),
        (["--format", "webp"], "format png -> webp"),
        (["--model", "other.safetensors"], "model_sha256"),
    ],
)
def test_a_changed_setting_is_refused(
    draw: Run, toys: Toys, change: list[str], difference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.conftest import TOY_UNET, save_toy

    save_toy(Path("other.safetensors"), TOY_UNET, seed=7)
    assert draw("--seeds", "0-1", "--out", "o").code == 0
    before = contents("o")
    with monkeypatch.context() as patch:
        patch.setattr("adm_cli.sampling.drawing.models.load_stage", None)  # refused before any work
        done = draw("--seeds", "0-1", "--out", "o", *change)
    assert (done.code, done.out) == (1, "")
    assert difference in done.err
    assert "--overwrite" in done.err
    assert contents("o") == before
    assert draw("--seeds", "0-1", "--out", "o", *change, "--overwrite").code == 0
    assert not set(contents("o").items()) & set(before.items())


def test_a_dry_run_of_a_run(draw: Run) -> None:
    assert draw("--class", 0, "--seeds", "0-1", "--out", "o").code == 0
    (shown,) = records(draw("--class", 0, "--seeds", "0-4", "--out", "o", "--dry-run", "--json"))
    assert (shown["images"], shown["to_draw"], shown["shard"]) == (5, 3, "1/1")
    refused = draw("--class", 0, "--seeds", "0-4", "--out", "o", "--dry-run", "--scale", 3)
    assert (refused.code, "scale 1 -> 3" in refused.err) == (1, True)


def test_another_environment_is_told(draw: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert draw("--seeds", "0", "--out", "o").code == 0
    monkeypatch.setattr("adm_cli.sampling.settings.__version__", "9.9")
    done = draw("--seeds", "0-1", "--out", "o")
    assert done.code == 0
    assert "since o was begun, this has changed: adm" in done.err
    assert "-> 9.9" in done.err


def test_images_may_be_added_but_not_left_out(draw: Run) -> None:
    assert draw("--class", 0, "--seeds", "0-1", "--out", "o", "-b", 2).code == 0
    before = contents("o")
    done = draw("--class", "0,3", "--seeds", "0-2", "--out", "o")
    assert done.code == 0
    assert "6 images in" in done.err
    assert "(2 were there)" in done.err
    assert contents("o").items() > before.items()
    fewer = draw("--class", "0", "--seeds", "0-2", "--out", "o")
    assert fewer.code == 1
    assert "o has 3 images beside those asked for now, e.g. 0003_star_" in fewer.err


def test_grid_and_film_of_a_resumed_run(draw: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = ("--grid", "--animate", "o/x.webp")
    with monkeypatch.context() as patch:
        fail_at(patch, KeyboardInterrupt(), 4)
        assert draw(*WANTED, "--out", "o", *extra).code == 130
    film = Path("o/x.webp").read_bytes()
    assert draw(*WANTED, "--out", "o", *extra).code == 0
    assert draw(*WANTED, "--out", "whole", "--grid", "--animate", "whole/x.webp").code == 0
    assert contents("o") == contents("whole")
    assert Path("o/x.webp").read_bytes() == film
    late = draw(*WANTED, "--out", "o", "--animate", "late.webp")
    assert late.code == 0
    assert "late.webp is drawn now: its images were there before" in late.err
    assert Path("late.webp").read_bytes() == film
    again = draw(*WANTED, "--out", "o", "--animate", "late.webp")
    assert "nothing to do" in again.err
    assert "is drawn now" not in again.err


# Selections


def test_a_list_of_classes(draw: Run) -> None:
    lines = "# class seed scale\n3 5-6 2\nsquare 5 0  # unguided\n\n'circle'\nrandom\n3 5 0.5\n"
    Path("list").write_text(lines)
    rows = records(draw("--classes-file", "list", "--out", "o", "--scale", 1, "--json", "-b", 3))
    found = {(row["class"], row["seed"], row.get("scale")) for row in rows}
    fifth = found - {(3, 5, 2.0), (3, 6, 2.0), (1, 5, 0.0), (0, 0, None), (3, 5, 0.5)}
    assert {seed for _, seed, _ in fifth} == {1}
    assert len(found) == 6
    made = {row["path"]: open_picture(Path(row["path"]))[1] for row in rows}
    for row in rows:
        recipe = made[row["path"]]
        assert recipe is not None
        assert recipe["scale"] == row.get("scale", 1.0)
        assert (recipe["classifier"] is None) == (recipe["scale"] == 0)
        alone = draw(
            "--class", row["class"], "--seeds", row["seed"], "--scale", recipe["scale"], "-b", 3
        ).out.strip()
        assert Path(alone).read_bytes() == Path(row["path"]).read_bytes()  # whoever is beside it


def test_scales_of_their_own_where_the_others_have_none(draw: Run) -> None:
    """--scale 0 turns guidance off for the lines that say nothing, and for no other."""
    Path("list").write_text("0 1\n0 1 3\n3 2\n")
    done = draw("--classes-file", "list", "--scale", 0, "--out", "o", "-b", 2, "--json")
    made = {(row["class"], row.get("scale", 0.0)): row["path"] for row in records(done)}
    assert set(made) == {(0, 0.0), (0, 3.0), (3, 0.0)}
    for (class_id, scale), path in made.items():
        seed = 1 if class_id == 0 else 2
        options = ("--class", class_id, "--seeds", seed, "--scale", scale, "-b", 2)
        alone = draw(*options).out.strip()
        assert Path(alone).read_bytes() == Path(path).read_bytes()
    guided, free = (open_picture(Path(made[0, scale]))[0] for scale in (3.0, 0.0))
    assert not np.array_equal(guided, free)


def test_the_class_of_a_seed_is_the_same_for_ever(adm: Run) -> None:
    """Without --class: what each seed draws; eight in a row draw eight."""
    done = adm("sample", "--seeds", "0-7", "--dry-run", "--json", "--scale", 0, "--device", "cpu")
    assert done.code == 0, done.err
    items = json.loads(done.out.splitlines()[-1])["classes"]
    assert items == [323, 963, 950, 207, 291, 1, 779, 386]


def test_a_list_from_a_pipe(draw: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe:
        buffer = io.BytesIO(b"0\n0\n3\n")

    monkeypatch.setattr(sys, "stdin", Pipe)
    done = draw("--classes-file", "-", "--num", 2, "--seed", 10, "--out", "o")
    assert done.code == 0
    assert [name.removesuffix(".png") for name in pictures("o")] == [
        *(f"0000_circle_seed{s:06d}" for s in (10, 11, 12, 13)),
        *(f"0003_star_seed{s:06d}" for s in (14, 15)),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0\n1 2 3 4 5\n", ["list, line 2", "class [seed [scale [cfg]]]", "5 words"]),
        ("0 1 2 much\n", ["list, line 1", "the cfg must be a finite number", "'much'"]),
        ("0 x\n", ["list, line 1", "'x'", "quotes"]),
        ("0 1 fast\n", ["list, line 1", "finite number", "'fast'"]),
        ("0 1 nan\n", ["list, line 1", "finite number"]),
        ("\n\n2\n", ["list, line 3", "class 2"]),
        ("0-1\n", ["list, line 1", "expected one class"]),
        ("0 1\n3 1\n0 1\n", ["list, line 3", "asked for already", "line 1"]),
        ("'0\n", ["list, line 1", "closing quotation"]),
        ("# nothing\n", ["names no class"]),
        ("none 1 2\n", ["guidance needs a class"]),
    ],
)
def test_wrong_lists(draw: Run, text: str, words: list[str]) -> None:
    Path("list").write_text(text)
    done = draw("--classes-file", "list", "--out", "o")
    assert (done.code, done.out) == (2, "")
    assert all(word in done.err for word in words), done.err
    assert not Path("o").exists()


def test_lists_stand_alone(draw: Run) -> None:
    for other in (["--class", 0], ["--seeds", 1], ["--total", 3]):
        done = draw("--classes-file", "list", *other)
        assert (done.code, "leave out" in done.err) == (2, True)
    assert "No such file" in draw("--classes-file", "gone").err
    Path("latin").write_bytes(b"\xe9")
    assert "no text in UTF-8" in draw("--classes-file", "latin").err


def test_totals_are_shared_out_evenly(draw: Run) -> None:
    for total, counts in ((7, [2, 2, 3]), (3, [1, 1, 1]), (2, [0, 1, 1])):
        out = f"o{total}"
        rows = records(draw("--class", "all", "--total", total, "--out", out, "--json"))
        assert [row["seed"] for row in rows] == list(range(total))
        found = [sum(row["class"] == c for row in rows) for c in (0, 1, 3)]
        assert found == counts
    many = records(draw("--total", 9, "--out", "random", "--json"))  # without classes: random ones
    assert len(many) == 9
    for wrong in (["--total", 0], ["--total", 3, "--num", 1]):
        assert draw(*wrong).code == 2


def test_unguided_batches_run_no_classifier(draw: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = NoisyClassifier.forward

    def forward(self: NoisyClassifier, x: torch.Tensor, *args: Any) -> torch.Tensor:
        calls.append(x.shape[0])
        return real(self, x, *args)

    monkeypatch.setattr(NoisyClassifier, "forward", forward)
    Path("list").write_text("0 0-3 0\n3 0 1\n3 1 0\n3 2 2\n")
    assert draw("--classes-file", "list", "-b", 2, "--out", "o").code == 0
    assert calls == [2, 2]  # one batch of two guided images, two steps


# Shards


def test_shards_together_are_one_run(draw: Run) -> None:
    assert draw(*WANTED, "--out", "whole").code == 0
    for i in (2, 1, 3):
        done = draw(*WANTED, "--out", "o", "--shard", f"{i}/3")
        assert (done.code, len(done.out.split())) == (0, 2)
    assert contents("o") == contents("whole")
    assert {p.name for p in Path("o").glob("manifest*")} == {
        f"manifest-{i}-of-3.jsonl" for i in (1, 2, 3)
    }
    assert draw(*WANTED, "--out", "o", "--grid").out.split()[-1] == "o/grid.png"
    again = draw(*WANTED, "--out", "o", "--shard", "1/2")  # divided in another way
    assert again.err == "adm: nothing to do: 3 images in o, all there\n"


def test_torchrun_divides_a_run(draw: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert draw(*WANTED, "--out", "whole").code == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        done = draw(*WANTED, "--out", "o")
        assert (done.code, len(done.out.split())) == (0, 3)
        assert bool(done.err) == (rank == 0)
    assert contents("o") == contents("whole")
    monkeypatch.setenv("RANK", "2")
    assert "RANK=2: expected from 0 to 1, as WORLD_SIZE=2" in draw(*WANTED, "--out", "o").err


@pytest.mark.parametrize(
    "options", [["--grid"], ["--overwrite"], ["--format", "npz"], ["--animate", "x.gif"]]
)
def test_a_shard_sees_a_part(draw: Run, options: list[str]) -> None:
    done = draw(*WANTED, "--out", "o", "--shard", "1/2", *options)
    assert (done.code, "sees a part of the run" in done.err) == (2, True)
    nowhere = draw(*WANTED, "--shard", "1/2")
    assert (nowhere.code, "--out" in nowhere.err) == (2, True)


# Verifying


@pytest.fixture
def whole(draw: Run) -> Path:
    assert draw(*WANTED, "--out", "o", "--grid", "--format", "npz").code == 0
    return Path("o")


def models(toys: Toys) -> tuple[object, ...]:
    return ("--model", toys.model, "--classifier", toys.classifier)


def test_every_file_is_watched(adm: Run, whole: Path, toys: Toys) -> None:
    """A flipped byte in any file of a run is found, and mended: the same bytes again."""
    assert adm("verify", whole).code == 0
    before = {p.name: p.read_bytes() for p in whole.iterdir() if p.suffix != ".lock"}
    assert len(before) == 6 + 5  # images, grid, npz, manifest, run.json twice
    for name, data in before.items():
        middle = len(data) // 2
        (whole / name).write_bytes(data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :])
        found = adm("verify", whole)
        assert found.code == 1, name
        assert name in found.out
        mended = adm("verify", whole, "--repair", *models(toys))
        assert mended.code == 0, mended.err
        assert adm("verify", whole, "--quiet") == Result(0, "", "")
        for other in before.keys() - {"manifest.jsonl"}:
            assert (whole / other).read_bytes() == before[other], (name, other)


def test_what_verify_says(adm: Run, whole: Path) -> None:
    assert adm("verify", whole).err == "adm: o: 6 images, all there and right\n"
    gone, cut, *_ = pictures_in(whole)
    (whole / gone).unlink()
    (whole / cut).write_bytes((whole / cut).read_bytes()[:-5])
    (whole / "mine.png").write_bytes(b"")
    (whole / ".adm-manifest-abc.tmp").write_bytes(b"")
    with (whole / "manifest.jsonl").open("a") as file:
        file.write("{torn")
    done = adm("verify", whole, "--json")
    assert done.code == 1
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert {(row["kind"], row["file"]) for row in rows} == {
        ("line", "manifest.jsonl"),
        ("missing", gone),
        ("damaged", cut),
        ("temporary", ".adm-manifest-abc.tmp"),
        ("foreign", "mine.png"),
    }
    assert "--repair" in done.err


def test_sampling_again_mends_too(draw: Run, adm: Run, whole: Path) -> None:
    before = contents(whole)
    gone, cut, *_ = pictures_in(whole)
    (whole / gone).unlink()
    (whole / cut).write_bytes((whole / cut).read_bytes()[:-5])
    done = draw(*WANTED, "--out", "o", "--grid", "--format", "npz")
    assert done.code == 0
    assert "(4 were there)" in done.err
    assert contents(whole) == before
    assert adm("verify", whole).code == 0


def test_an_unfinished_run_is_not_right(
    draw: Run, adm: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_at(patch, KeyboardInterrupt(), 4)
        draw(*WANTED, "--out", "o")
    done = adm("verify", "o", "--repair")
    assert (done.code, done.out) == (1, "4 of 6 images were not drawn yet\n")
    assert "the same command that began the run goes on" in done.err


def test_repair_needs_the_same_weights(adm: Run, whole: Path, toys: Toys) -> None:
    name = pictures_in(whole)[0]
    (whole / name).write_bytes(b"?")
    unknown = adm("verify", whole, "--repair")
    assert (unknown.code, "pass their file with --model" in unknown.err) == (2, True)
    swapped = adm("verify", whole, "--repair", "--model", "tiny", "--classifier", toys.classifier)
    assert swapped.code != 0
    assert (whole / name).read_bytes() == b"?"  # nothing is removed that cannot be made again


def test_nothing_to_verify(adm: Run, tmp_path: Path) -> None:
    done = adm("verify", tmp_path)
    assert (done.code, "is no run" in done.err) == (1, True)


# Merging


def test_merged_npz_is_that_of_one_run(draw: Run, adm: Run, whole: Path) -> None:
    for i in (2, 1):
        assert draw(*WANTED, "--out", "s", "--shard", f"{i}/2").code == 0
    done = adm("merge", "s", "-o", "x.npz")
    assert (done.code, done.out) == (0, "x.npz\n")
    assert Path("x.npz").read_bytes() == (whole / "samples_6x8x8x3.npz").read_bytes()
    with np.load("x.npz") as arrays:
        assert arrays["arr_1"].tolist() == [0, 0, 0, 3, 3, 3]
        assert arrays["seeds"].tolist() == list(range(6))
        images = [open_picture(whole / n)[0] for n in pictures_in(whole) if "seed" in n]
        assert np.array_equal(arrays["arr_0"], images)
        assert json.loads(str(arrays["adm"]))["scale"] == 1.0
    with zipfile.ZipFile("x.npz") as archive:
        assert archive.testzip() is None


def test_merged_archives_hold_the_files(adm: Run, whole: Path) -> None:
    images = [n for n in pictures_in(whole) if "seed" in n]
    assert records(adm("merge", whole, "-o", "x.zip", "--json")) == [{"path": "x.zip", "images": 6}]
    with zipfile.ZipFile("x.zip") as archive:
        assert archive.namelist() == [*images, "manifest.jsonl"]
        assert all(archive.read(n) == (whole / n).read_bytes() for n in images)
    rows = records(adm("merge", whole, "-o", "x-%03d.tar", "--shard-size", 4, "--json"))
    assert [row["images"] for row in rows] == [4, 2]
    with tarfile.open("x-001.tar") as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
        assert {m.mtime for m in tar} == {0}
    last = images[-1].removesuffix(".png")
    assert members[f"{last}.cls"] == b"3"
    assert members[f"{last}.png"] == (whole / images[-1]).read_bytes()
    assert json.loads(members[f"{last}.json"])["seed"] == 5
    once = Path("x-001.tar").read_bytes()
    assert adm("merge", whole, "-o", "x-%03d.tar", "--shard-size", 4, "--overwrite").code == 0
    assert Path("x-001.tar").read_bytes() == once


def test_several_runs_in_one_file(draw: Run, adm: Run, whole: Path) -> None:
    assert draw("--class", 1, "--seeds", "9-10", "--out", "p").code == 0
    assert adm("merge", whole, "p", "-o", "x.npz").code == 0
    with np.load("x.npz") as arrays:
        assert arrays["arr_1"].tolist() == [0, 0, 0, 3, 3, 3, 1, 1]
    twice = adm("merge", whole, whole, "-o", "y.npz")
    assert (twice.code, "is in two of the runs" in twice.err) == (1, True)


def test_what_is_not_merged(draw: Run, adm: Run, whole: Path) -> None:
    Path("x.npz").write_bytes(b"precious")
    there = adm("merge", whole, "-o", "x.npz")
    assert (there.code, "--overwrite" in there.err) == (1, True)
    assert Path("x.npz").read_bytes() == b"precious"
    name = pictures_in(whole)[0]
    data = (whole / name).read_bytes()
    (whole / name).write_bytes(data[:-1] + b"?")
    damaged = adm("merge", whole, "-o", "y.npz")
    assert (damaged.code, "is damaged: run adm verify o --repair" in damaged.err) == (1, True)
    (whole / name).unlink()
    missing = adm("merge", whole, "-o", "y.npz")
    assert (missing.code, "1 of 6 images is missing" in missing.err) == (1, True)
    assert not Path("y.npz").exists()
    assert adm("merge", whole, "-o", "y.npz", "--partial").code == 0
    for output, options in (
        ("y.gz", []),
        ("y.zip", ["--shard-size", 2]),
        ("y.tar", ["--shard-size", 2]),
    ):
        wrong = adm("merge", whole, "-o", output, *options)
        assert (wrong.code, "--output" in wrong.err or "--shard-size" in wrong.err) == (2, True)


# Processes

# Imports once, then forks a process a run: forked after SECONDS it is killed, as if by kill -9.
KILLED = """
import os, random, signal, sys, time
from adm_cli.commands.main import run
import adm_cli.commands.sample, adm_cli.sampling.drawing.pipeline, torch
torch.set_num_threads(1)
arguments, kills = sys.argv[1:-1], int(sys.argv[-1])
def start():
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os._exit(run(arguments))
    return child
draw = random.Random(0)
begun = time.monotonic()
assert os.waitstatus_to_exitcode(os.waitpid(start(), 0)[1]) == 0  # how long it takes, unhurried
span = time.monotonic() - begun
arguments[arguments.index("--out") + 1] = "killed"
hits = 0
for _ in range(kills):
    child = start()
    time.sleep(draw.uniform(0.05, 0.6) * span)
    os.kill(child, signal.SIGKILL)
    hits += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
assert os.waitstatus_to_exitcode(os.waitpid(start(), 0)[1]) == 0
print(hits)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_kill_9_loses_nothing(adm: Run, toys: Toys) -> None:
    wanted = ["sample", *map(str, models(toys)), "--class", "all", "--num", "8", "-b", "2"]
    options = ["--steps", "2", "--device", "cpu", "--out", "whole"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *wanted, *options, "6"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    assert contents("killed") == contents("whole")
    assert adm("verify", "killed").code == 0
    lines = Path("killed/manifest.jsonl").read_text().splitlines()
    assert len({json.loads(line)["file"] for line in lines}) == 24


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize(
    ("name", "code", "workers"), [("SIGTERM", 143, 1), ("SIGHUP", 129, 1), ("SIGTERM", 143, 2)]
)
def test_signals_keep_what_is_done(
    adm: Run, toys: Toys, tmp_path: Path, name: str, code: int, workers: int
) -> None:
    """In an empty environment, as of cron."""
    command = subprocess.Popen(
        [sys.executable, "-m", "adm_cli", "sample", *map(str, models(toys)), "--num", "300", "-b",
         "1", "--steps", "2", "--out", "o", "--workers", str(workers)],
        env={"PYTHONPATH": os.pathsep.join(sys.path), "LANG": "C"}, cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert command.stdout is not None
    first = command.stdout.readline()
    command.send_signal(getattr(signal, name))
    rest, errors = command.communicate(timeout=300)
    assert command.returncode == code
    printed = sorted(Path(line).name for line in (first + rest).splitlines())
    assert printed == pictures("o")
    assert errors.splitlines()[-1] == f"adm: stopped by {name}"
    checked = adm("verify", "o")
    assert checked.out == f"{300 - len(printed)} of 300 images were not drawn yet\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and resource usage")
def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    """The peak of 550 images of 176x176 is that of 50: all of them would be 46 MB more."""
    code = """
import os, resource, sys
import numpy as np, torch
from pathlib import Path
from adm_cli.sampling.drawing import draw as drawing
from adm_cli.sampling.folder import RunFolder
from adm_cli.sampling.choosing.images import Images, drawn_row
from adm_cli.sampling.drawing.models import Models
from adm_cli.sampling.drawing.writer import DrawnImage
from tests.sampling.runs import STAGE, run_of
os.fsync = lambda _handle: None
class Painter:
    steps = 1
    def paint(self, images, size, small):
        for start in range(0, len(images), 10):
            yield [
                DrawnImage(i, np.full((176, 176, 3), 7, np.uint8), None)
                for i in images[start:][:10]
            ]
Models.prepare = lambda self, run, keep_base: iter(())
drawing.Easel.painter = lambda self, i: Painter()
for count in (50, 550):
    run = run_of([], images=Images([drawn_row(0, range(count), ".png")]), batch_size=10)
    folder = RunFolder(Path(sys.argv[1], str(count)))
    for _ in drawing.draw(run, folder, Models([], torch.device("cpu"))):
        pass
    assert len(folder.survey(run.images).there) == count
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, check=True, cwd=PROJECT
    )
    peaks = [int(line) for line in done.stdout.split()]
    unit = 1 if sys.platform == "darwin" else 1024
    assert (peaks[1] - peaks[0]) * unit < 15e6
