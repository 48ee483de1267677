"""`adm sample`: what it draws, where it puts it, and what it says."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from adm_cli.commands import console, loading
from adm_cli.commands.main import app
from adm_cli.files.disk import weights_folder
from adm_cli.pictures.images import make_grid, open_picture
from adm_cli.pictures.sheets import class_sheet
from adm_cli.sampling import start
from adm_cli.sampling.folder import RunFolder
from tests.commands.conftest import terminal
from tests.conftest import TOY_CLASSES, Result, Toys, pictures

Run = Callable[..., Result]


def records(result: Result) -> list[dict[str, Any]]:
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


def plan(result: Result) -> dict[str, Any]:
    (row,) = records(result)
    return row


def recipe(path: Path | str) -> dict[str, Any]:
    found = open_picture(Path(path))[1]
    assert found is not None
    return found


def sha256(path: Path | str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_a_file_for_every_class_and_seed(draw: Run) -> None:
    done = draw("--class", "0,3", "--num", 2, "--seed", 5, "--out", "new/o")
    names = [
        f"{c:04d}_{TOY_CLASSES[c]}_seed{s:06d}.png" for c, s in [(0, 5), (0, 6), (3, 7), (3, 8)]
    ]
    assert done.code == 0
    assert done.out.splitlines() == [f"new/o/{name}" for name in names]
    assert pictures("new/o") == names
    assert done.err.startswith("adm: 4 images in ")
    assert done.err.endswith(" s in new/o\n")


def test_json_describes_the_files_on_disk(draw: Run) -> None:
    rows = records(draw("--class", "star", "--num", 2, "--out", "o", "--grid", "--json"))
    assert [(row["class"], row["seed"]) for row in rows[:2]] == [(3, 0), (3, 1)]
    assert all(row["sha256"] == sha256(row["path"]) for row in rows[:2])
    assert rows[2:] == [{"path": "o/grid.png", "images": 2}]


def test_seeds_are_crossed_with_every_class(draw: Run) -> None:
    rows = records(draw("--class", "1,0", "--seeds", "7,2-3,2", "--out", "o", "--json"))
    found = [(row["class"], row["seed"]) for row in rows]
    assert found == [(c, s) for c in (1, 0) for s in (7, 2, 3)]


@pytest.mark.parametrize("other", [("--seed", 1), ("--num", 2)])
def test_seeds_stand_alone(draw: Run, other: tuple[str, int]) -> None:
    done = draw("--seeds", "1,2", *other)
    assert (done.code, done.out) == (2, "")
    assert "leave out --seed and --num" in done.err


@pytest.mark.parametrize(
    ("specs", "classes"),
    [
        (["3"], [3]),
        (["0-1"], [0, 1]),
        (["Square"], [1]),
        (["3, circle"], [3, 0]),
        (["3", "0"], [3, 0]),
        (["0", "0-1", "circle"], [0, 1]),
        (["all"], [0, 1, 3]),
    ],
)
def test_ways_to_name_classes(draw: Run, specs: list[str], classes: list[int]) -> None:
    options = [word for spec in specs for word in ("--class", spec)]
    shown = plan(draw(*options, "--num", 3, "--dry-run", "--json"))
    assert shown["classes"] == classes
    assert shown["images"] == 3 * len(classes)


def test_random_classes_depend_on_the_seed_alone(draw: Run) -> None:
    def classes(out: str, *options: object) -> dict[int, int]:
        rows = records(draw(*options, "--out", out, "--json"))
        return {row["seed"]: row["class"] for row in rows}

    many = classes("a", "--class", "random", "--seeds", "0-9")
    assert set(many.values()) <= {0, 1, 3}
    assert len(set(many.values())) > 1
    few = classes("b", "--seed", 4, "--num", 2)  # random is the default
    assert few == {seed: many[seed] for seed in (4, 5)}
    for first in (0, 3, 6):  # of three classes each has its turn
        assert {many[first + i] for i in range(3)} == {0, 1, 3}


@pytest.mark.parametrize("able", [False, True])
def test_a_terminal_is_told_where_and_what(
    draw: Run, monkeypatch: pytest.MonkeyPatch, able: bool
) -> None:
    monkeypatch.setattr(console, "err", terminal())
    monkeypatch.setattr(start, "has_bfloat16", lambda _device: able)
    told = " ".join(draw("--seeds", "0-4", "--out", "o").err.split())  # wide lines are wrapped
    faster = " (--dtype bfloat16 is faster here)" if able else ""
    assert f"adm: toy on cpu (as asked), float32{faster}, 5 at once" in told
    asked = draw("--seeds", 0, "--dtype", "float32", "--out", "q").err
    assert "float32 (as asked), 1 at once" in asked
    drawn = {record["class"] for record in RunFolder(Path("o")).records().values()}
    assert all(f"{i} {TOY_CLASSES[i]}" in told for i in drawn)
    assert "--seed 5 draws others" in told
    assert "draws others" not in draw("--class", 3, "--num", 1, "--out", "p").err
    assert "images/s" in told


def test_all_commands_that_load_torch_say_so() -> None:
    silent = [c.name for c in app.registered_commands if not hasattr(c.callback, "__wrapped__")]
    assert silent == ["models", "classes", "info", "cache", "help"]  # info says so where it does


@pytest.mark.parametrize(("options", "seen"), [({}, 1), ({"quiet": True}, 0), ({"json": True}, 0)])
def test_loading_torch_is_told(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], seen: int
) -> None:
    told: list[str] = []
    stream = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=stream, force_terminal=True, width=80))
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(importlib, "import_module", lambda name: told.append("loaded"))
    loading.loads_torch(lambda **given: told.append(str(given)))(**options)
    assert told == ["loaded", str(options)]
    assert ("loading torch" in stream.getvalue()) == bool(seen)


def test_formats_hold_the_same_pixels(draw: Run) -> None:
    options = ("--class", "0,3", "--num", 2, "--quiet")
    made = [
        [open_picture(Path(path)) for path in draw(*options, "-f", f, "-o", f).out.split()]
        for f in ("png", "webp")
    ]
    for (pixels, png), (others, webp) in zip(*made, strict=True):
        assert np.array_equal(pixels, others)
        assert png == webp
    done = draw(*options, "--format", "npz", "--out", "npz")
    assert done.out == "npz/samples_4x8x8x3.npz\n"
    with np.load("npz/samples_4x8x8x3.npz") as arrays:
        assert np.array_equal(arrays["arr_0"], [pixels for pixels, _ in made[0]])
        assert arrays["arr_0"].dtype == np.uint8
        assert arrays["arr_1"].tolist() == [0, 0, 3, 3]
        assert arrays["seeds"].tolist() == [0, 1, 2, 3]
    assert pictures("npz") == [*pictures("png"), "samples_4x8x8x3.npz"]
    assert sha256("npz/0003_star_seed000003.png") == sha256("png/0003_star_seed000003.png")


def test_grid_shows_every_image(draw: Run) -> None:
    done = draw("--class", "0,3", "--num", 2, "--batch-size", 2, "--out", "o", "--grid")
    *paths, sheet = done.out.split()
    images = [open_picture(Path(path))[0] for path in paths]
    shown = class_sheet(images, ["circle", "circle", "star", "star"], list("0123"))
    assert np.array_equal(open_picture(Path(sheet))[0], shown)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stdout is a terminal."""
    monkeypatch.setattr(console, "on_terminal", lambda: True)


def test_a_run_ends_with_its_grid_on_a_terminal(draw: Run, adm: Run, seen: None) -> None:
    done = draw("--class", "0,3", "--seeds", "0-6", "--out", "o")
    *paths, more, sheet = done.out.splitlines()
    assert (len(paths), more, sheet) == (10, "... and 4 more in o", "o/grid.png")
    looking, made = done.err.splitlines()[-2:]
    assert looking == "adm: look at them in a browser: adm gallery o -o o.html"
    assert made == "adm: what they were made with: adm info o"
    assert adm("verify", "o").code == 0
    grid = Path("o/grid.png").read_bytes()
    assert draw("--class", "0,3", "--seeds", "0-6", "--out", "o").code == 0
    assert Path("o/grid.png").read_bytes() == grid


@pytest.mark.parametrize(
    "options", [["--num", 2, "--no-grid"], ["--num", 2, "--json"], ["--num", 1]]
)
def test_no_grid_where_none_is_wanted(draw: Run, options: list[Any], seen: None) -> None:
    done = draw("--class", 3, *options, "--out", "o")
    assert done.code == 0, done.err
    assert not Path("o/grid.png").exists()
    assert ("adm gallery" in done.err) == ("--no-grid" in options)


def test_a_picture_of_somebody_else_is_no_grid(draw: Run, seen: None) -> None:
    Path("o").mkdir()
    Path("o/grid.png").write_bytes(b"mine")
    assert draw("--num", 2, "--out", "o").code == 0
    assert Path("o/grid.png").read_bytes() == b"mine"


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".GIF"])
def test_animation_ends_in_the_images(draw: Run, suffix: str) -> None:
    film = f"films/x{suffix}"
    *paths, last = draw("--num", 2, "--steps", 3, "--out", "o", "--animate", film).out.split()
    images = np.stack([open_picture(Path(path))[0] for path in paths])
    assert last == film
    with Image.open(film) as animation:
        assert getattr(animation, "n_frames", 1) == 3
        animation.seek(2)
        end = np.asarray(animation.convert("RGB")).astype(int)
    gap = np.abs(end - make_grid(images))
    assert gap.mean() < (8 if suffix.lower() == ".gif" else 1e-9)  # a GIF has 256 colours


def test_dry_run_writes_nothing(draw: Run) -> None:
    options = ("--class", "0,3", "--num", 2, "--seed", 9, "--scale", 2.5, "--dry-run")
    shown = plan(draw(*options, "--json"))
    assert shown["classes"] == [0, 3]
    assert shown["seeds"] == [9, 12]
    assert (shown["num_steps"], shown["sampler"], shown["scale"]) == (2, "ddpm", 2.5)
    assert (shown["out"], shown["device"], shown["dtype"]) == ("out/0001", "cpu", "float32")
    text = draw(*options)
    assert text.code == 0
    lines = dict(line.split(maxsplit=1) for line in text.out.splitlines())
    assert lines["classes"] == "0 circle, 3 star"
    assert lines["seeds"] == "9 to 12"
    assert lines["batch_size"] == "4"
    assert lines["eta"] == "-"
    assert not list(Path().iterdir())


def test_quiet_leaves_stderr_empty(draw: Run) -> None:
    done = draw("--num", 1, "--scale", -1, "--quiet")
    assert (done.code, done.err) == (0, "")
    assert len(done.out.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ([], "o/0000_circle_seed000001.png"),
        (["--format", "webp"], "o/0000_circle_seed000001.webp"),
        (["--format", "npz"], "o/samples_2x8x8x3.npz"),
        (["--grid"], "o/grid.png"),
        (["--animate", "films/x.gif"], "films/x.gif"),
    ],
)
def test_existing_files_are_refused_before_any_work(
    draw: Run, monkeypatch: pytest.MonkeyPatch, options: list[str], taken: str
) -> None:
    Path(taken).parent.mkdir()
    Path(taken).write_bytes(b"precious")
    wanted = ("--class", "0", "--num", 2, "--out", "o", *options)
    with monkeypatch.context() as patch:
        # fails if anything is loaded
        patch.setattr("adm_cli.sampling.drawing.models.load_stage", None)
        done = draw(*wanted)
    assert done.code == 1
    assert taken in done.err
    assert Path(taken).read_bytes() == b"precious"
    named = "--animate" in options  # by a person, who may also say that it goes
    assert ("--overwrite" in done.err) == named
    assert (draw(*wanted, "--overwrite").code == 0) == named
    assert (Path(taken).read_bytes() != b"precious") == named


def test_every_run_has_a_folder_of_its_own(draw: Run) -> None:
    folders = [Path(draw("--num", 1).out.strip()).parent for _ in range(2)]
    assert [str(folder) for folder in folders] == ["out/0001", "out/0002"]


def test_scale_0_needs_no_classifier(
    adm: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the preset's own file."""
    weights = tmp_path / "weights"
    weights.mkdir()
    shutil.copy(weights_folder() / "tiny.safetensors", weights)
    monkeypatch.setattr("adm_cli.checkpoints.places.weights_folder", lambda: weights)
    options = (
        "sample",
        "--class",
        207,
        "--num",
        1,
        "--steps",
        1,
        "--device",
        "cpu",
        "--no-upsample",
    )
    guided = adm(*options)
    assert guided.code == 1
    assert "tiny_classifier.safetensors are missing" in guided.err
    for classifier in ([], ["--classifier", "gone.safetensors"]):
        done = adm(*options, "--scale", 0, *classifier)
        assert done.code == 0, done.err
        made = recipe(done.out.strip())
        assert (made["classifier"], made["classifier_sha256"], made["scale"]) == (None, None, 0.0)


def test_negative_scales_are_noted(draw: Run) -> None:
    done = draw("--num", 1, "--scale", -1.5)
    assert done.code == 0
    assert "adm: scale -1.5 is negative: images are repelled" in done.err
    assert recipe(done.out.strip())["scale"] == -1.5


def test_guidance_that_runs_away_is_noted(adm: Run) -> None:
    options = ("sample", "--class", 207, "--num", 1, "--steps", 2, "--no-upsample")
    for more, noted in ((("--guide-interval", "0,1"), True), ((), False)):  # the preset's
        done = adm(*options, "--device", "cpu", "--sampler", "ddim", *more)
        assert done.code == 0
        assert ("multiplies the guidance a thousandfold" in done.err) is noted


def test_adm_model_is_the_default(adm: Run, toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADM_MODEL", str(toys.model))
    options = ("sample", "--dry-run", "--json", "--scale", 0)
    assert plan(adm(*options))["model"] == "toy"
    assert plan(adm(*options, "--model", "tiny"))["model"] == "tiny"


BASE = {
    "model": "toy",
    "classifier": "toy_classifier",
    "class": 3,
    "class_name": "star",
    "seed": 6,
    "scale": 1.0,
    "sampler": "ddpm",
    "steps": "2",
    "num_steps": 2,
    "eta": None,
    "clip_denoised": True,
    "size": [8, 8],
    "device": "cpu",
    "dtype": "float32",
    "batch_size": 1,
}


def test_settings_reach_the_sampler_and_the_recipe(draw: Run) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"scale": 3.5},
        {"sampler": "ddim"},
        {"sampler": "ddim", "eta": 0.5},
        {"steps": "ddim3", "num_steps": 3},
        {"clip_denoised": False},
        {"seed": 7},
        {"class": 0, "class_name": "circle"},
        {"dtype": "bfloat16"},
        {"sampler": "dpm++2m", "steps": "4", "num_steps": 4},
        {"guide-interval": "0,0.5", "guide_interval": [0.0, 0.5], "scale": 30.0},
        {"entropy_scaling": True, "scale": 30.0},
    ]
    seen = set()
    for change in changes:
        wanted = {**BASE, **change}
        options = [
            f"--{name}={wanted[name]}"
            for name in "class seed scale sampler steps eta dtype guide-interval".split()
            if wanted.get(name) is not None
        ]
        wanted.pop("guide-interval", None)
        options += [] if wanted["clip_denoised"] else ["--no-clip"]
        options += ["--entropy-scaling"] if "entropy_scaling" in wanted else []
        path = draw("--num", 1, *options).out.strip()
        made = recipe(path)
        assert ("guide_interval" in made, "entropy_scaling" in made) == (
            "guide_interval" in wanted,
            "entropy_scaling" in wanted,
        )
        assert {name: made[name] for name in wanted} == wanted
        seen.add(open_picture(Path(path))[0].tobytes())
    assert len(seen) == len(changes)


def test_modifiers_of_the_guidance_in_a_list(draw: Run, adm: Run, toys: Toys) -> None:
    """Only the guided pictures have them; each can be made again; another run is refused."""
    Path("list.txt").write_text("0 1 0\n0 2 3\n")
    modifiers = ("--guide-interval", "0,0.9", "--entropy-scaling", "--out", "o")
    options = ("--classes-file", "list.txt", "--scale", 0)
    guided, unguided = draw(*options, *modifiers).out.split()
    assert "guide_interval" not in recipe(unguided)
    assert recipe(guided)["guide_interval"] == [0.0, 0.9]
    assert recipe(guided)["entropy_scaling"] is True
    weights = ("--model", toys.model, "--classifier", toys.classifier)
    for path in (unguided, guided):
        assert "identical" in adm("repro", path, *weights).out
    assert draw(*options, *modifiers).code == 0
    changed = draw(*options, "--out", "o")
    assert (changed.code, "guide_interval" in changed.err) == (1, True)
    shown = plan(draw(*options, *modifiers, "--dry-run", "--json"))
    assert shown["guide_interval"] == [0.0, 0.9]


def test_other_tools_can_read_the_settings(draw: Run) -> None:
    done = draw("--class", 3, "--num", 1, "--seed", 6)
    with Image.open(done.out.strip()) as image:
        first, second = image.info["parameters"].split("\n")
    assert first == "star (class 3)"
    assert second.startswith("Steps: 2, Sampler: ddpm, CFG scale: 1.0, Seed: 6, Size: 8x8")


def test_an_image_alone_is_the_same_file(draw: Run) -> None:
    """At one batch size, even to the bytes of the file."""
    options = ("--batch-size", 3, "--json")
    together = records(draw("--class", "0,3", "--seeds", "0-3", "--out", "a", *options))
    by_name = {Path(row["path"]).name: row["sha256"] for row in together}
    (alone,) = records(draw("--class", "3", "--seeds", "2", "--out", "b", *options))
    assert alone["sha256"] == by_name[Path(alone["path"]).name]
    assert len(set(by_name.values())) == 8


def test_a_failed_run_leaves_no_empty_folder(adm: Run, toys: Toys, tmp_path: Path) -> None:
    damaged = bytearray(toys.model.read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "m.safetensors").write_bytes(damaged)
    done = adm("sample", "--model", tmp_path / "m.safetensors")
    assert done.code == 1
    assert "is damaged" in done.err
    assert not list(tmp_path.glob("out/*"))


def test_half_precision_on_a_cpu_is_slow(draw: Run) -> None:
    done = draw("--class", "0", "--num", 1, "--dtype", "float16", "--out", "o")
    assert "float16 is slow on most CPUs" in done.err
    assert "slow" not in draw("--class", "0", "--num", 1, "--out", "p").err
