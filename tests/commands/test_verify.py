"""`adm verify --repair` of every kind of run: what is drawn again has the bytes it had."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import adm_cli.sampling.drawing.memory as memory_module
import adm_cli.sampling.drawing.pipeline as pipeline_module
import adm_cli.sampling.settings as settings_module
from adm_cli.files.manifests import render_line, rewrite_manifest
from adm_cli.models.unet import UNet
from adm_cli.pictures.images import open_picture, save_image
from adm_cli.sampling.folder import RunFolder
from tests.conftest import TOY_UNET, Result, Toys, save_toy
from tests.manifests import read_manifest

Run = Callable[..., Result]
WANTED = ("--class", "0,3", "--num", 2, "-b", 2)


def contents(folder: str | Path) -> dict[str, bytes]:
    """Every file but locks and manifests, by its path within."""
    files = [p for p in Path(folder).rglob("*") if p.is_file()]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if path.suffix not in (".lock", ".jsonl")
    }


def damage(path: Path | str) -> None:
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 1
    Path(path).write_bytes(data)


def lose_line(folder: str, name: str) -> None:
    path = Path(folder, "manifest.jsonl")
    rewrite_manifest(path, [r for r in read_manifest(path).records if r["file"] != name])


@pytest.fixture
def stack(draw: Run, toys: Toys) -> Run:
    upsampling = ("--upsampler", toys.upsampler, "--upsample-steps", 2)
    return lambda *arguments: draw(*WANTED, *upsampling, *arguments)


@pytest.fixture
def mend(adm: Run, toys: Toys) -> Run:
    models = ("--model", toys.model, "--classifier", toys.classifier)
    upsampler = ("--upsampler", toys.upsampler)
    return lambda folder, *more: adm("verify", folder, "--repair", *models, *upsampler, *more)


# Stacks


def test_a_stack_with_scales_of_their_own(draw: Run, mend: Run, toys: Toys) -> None:
    """What is drawn again has the scale of its line, not the run's."""
    Path("list").write_text("0 1 0\n0 1 3\n3 2\n")
    upsampling = ("--upsampler", toys.upsampler, "--upsample-steps", 2)
    options = ("--classes-file", "list", "--scale", 1, *upsampling, "-b", 2)
    assert draw(*options, "--out", "o").code == 0
    before = contents("o")
    for name in [name for name in before if "_seed" in name]:
        Path("o", name).unlink()
    assert mend("o").code == 0
    assert contents("o") == before


@pytest.mark.parametrize("options", [(), ("--keep-base",), ("--format", "webp")])
@pytest.mark.parametrize("memory", [10**12, 10**6])
def test_a_stack(
    stack: Run, mend: Run, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], memory: int
) -> None:
    """Whether or not both models fit into memory now."""
    assert stack("--out", "o", *options).code == 0
    before = contents("o")
    first, second, *_ = sorted(name for name in before if "_seed" in name)
    damage(Path("o", first))
    Path("o", second).unlink()
    monkeypatch.setattr(memory_module, "free_bytes", lambda _device: memory)
    done = mend("o")
    assert done.code == 0, done.err
    assert contents("o") == before


def test_what_mending_would_cost(stack: Run, adm: Run, mend: Run) -> None:
    assert stack("--out", "o", "--keep-base", "--grid").code == 0
    first = "0000_circle_seed000000.png"
    for name in (f"o/base/{first}", f"o/{first}", "o/grid.png"):
        Path(name).unlink()
    before = contents("o")
    done = mend("o", "--dry-run", "--json")
    assert done.code == 1, done.err
    assert contents("o") == before
    costs = [row for row in map(json.loads, done.out.splitlines()) if "evaluations" in row]
    base, whole = sorted(costs, key=lambda row: -len(row["folder"]))
    assert [(row["images"], row["made_of_images"]) for row in (base, whole)] == [(1, 0), (1, 1)]
    steps = [sum(s.num_steps for s in RunFolder(Path(p)).read().stages) for p in ("o/base", "o")]
    assert [row["evaluations"] for row in (base, whole)] == steps
    assert whole["memory_bytes"] > base["memory_bytes"] > 0
    assert whole["seconds"] is None or whole["seconds"] > 0
    assert 0 < whole["output_bytes"] < 10_000
    said = mend("o", "--dry-run").out
    assert "evaluations" in said
    assert "memory" in said
    alone = adm("verify", "o", "--dry-run")
    assert (alone.code, "--repair" in alone.err) == (2, True)
    assert adm("verify", "o", "--repair", "--dry-run").code == 2  # where are the weights?
    assert mend("o").code == 0


def test_the_small_pictures_are_verified_too(stack: Run, adm: Run, mend: Run) -> None:
    assert stack("--out", "o", "--keep-base").code == 0
    before = contents("o")
    name = "0000_circle_seed000001.png"
    damage(Path("o/base", name))
    damage(Path("o", name))
    found = adm("verify", "o")
    assert (found.code, len(found.out.splitlines())) == (1, 2)
    assert f"o/base/{name} is damaged" in found.out
    with_weights = "adm: adm verify o --repair --model FILE mends it"
    assert found.err == f"{with_weights}\n"
    done = mend("o")
    assert (done.code, contents("o") == before) == (0, True), done.err
    shutil.rmtree("o/base")  # not wanted any more
    damage(Path("o", name))
    assert mend("o").code == 0
    assert contents("o") == {n: data for n, data in before.items() if "base" not in n}


def test_a_stack_needs_its_upsampler(stack: Run, adm: Run, toys: Toys) -> None:
    assert stack("--out", "o").code == 0
    damage("o/0000_circle_seed000000.png")
    before = contents("o")
    models = ("--model", toys.model, "--classifier", toys.classifier)
    done = adm("verify", "o", "--repair", *models)
    assert (done.code, "pass their file with --upsampler" in done.err) == (2, True)
    done = adm("verify", "o", "--repair", *models, "--upsampler", toys.plain_upsampler)
    assert (done.code, "drawn with another upsampler" in done.err) == (1, True)
    assert contents("o") == before  # nothing is removed that cannot be made again


# Pictures that were enlarged


@pytest.fixture
def enlarge(adm: Run, toys: Toys) -> Run:
    options = ("--model", toys.upsampler, "--steps", 2, "--device", "cpu", "-b", 2)
    return lambda *arguments: adm("upsample", *options, *arguments)


@pytest.fixture
def mend_large(adm: Run, toys: Toys) -> Run:
    return lambda folder, *more: adm("verify", folder, "--repair", "--model", toys.upsampler, *more)


def some(count: int, side: int = 8) -> Any:
    shape = (count, side, side, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def save_some(folder: str, side: int = 8) -> None:
    for name, image in zip("abc", some(3, side), strict=True):
        save_image(Path(folder, f"{name}.png"), image)


def test_enlarged_from_a_run(draw: Run, enlarge: Run, mend_large: Run) -> None:
    """With the recipes of the small pictures in those of the large ones."""
    draw(*WANTED, "--out", "s")
    assert enlarge("s", "--out", "o").code == 0
    before = contents("o")
    for name in ("0000_circle_seed000001.png", "0003_star_seed000002.png"):
        damage(Path("o", name))
    assert mend_large("o").code == 0
    assert contents("o") == before
    made = open_picture(Path("o/0000_circle_seed000001.png"))[1]
    assert made is not None
    assert made["base"]["model"] == "toy"


def test_enlarged_from_an_npz_with_each_of_some_seeds(enlarge: Run, mend_large: Run) -> None:
    images = some(3)
    images[2] = images[1]
    np.savez("x.npz", arr_0=images, arr_1=np.array([3, 0, 3]), adm=np.array("{}"))
    assert enlarge("x.npz", "--seeds", "0-1", "--out", "o").code == 0
    before = contents("o")
    for name in ("000002_seed000000.png", "000000_seed000001.png"):
        damage(Path("o", name))
    assert mend_large("o").code == 0
    assert contents("o") == before


def test_enlarged_after_fitting(enlarge: Run, mend_large: Run) -> None:
    save_some("p", 19)
    save_image(Path("p/d.png"), some(1)[0])
    assert enlarge("p", "--class", 0, "--resize", "--out", "o").code == 0
    before = contents("o")
    for name in ("b.png", "d.png"):
        damage(Path("o", name))
    assert mend_large("o").code == 0
    assert contents("o") == before


def test_from_another_folder(
    enlarge: Run, mend_large: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inputs are looked for from where the command must have been run."""
    save_some("p")
    assert enlarge("p", "--class", 0, "--out", "runs/deep/o").code == 0
    before = contents("runs")
    damage("runs/deep/o/b.png")
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert mend_large("../runs/deep/o").code == 0
    assert contents("../runs") == before


@pytest.mark.parametrize("change", ["gone", "changed", "unreadable"])
def test_an_input_that_is_gone(enlarge: Run, mend_large: Run, change: str) -> None:
    """One line; its image stays as it is, the others are mended, and --input mends all."""
    save_some("p")
    assert enlarge("p", "--class", 0, "--out", "o", "--grid").code == 0
    before = contents("o")
    shutil.copytree("p", "moved")
    if change == "gone":
        Path("p/b.png").unlink()
    elif change == "changed":
        save_image(Path("p/b.png"), some(3)[0])
    else:
        Path("p/b.png").write_bytes(b"?")
    for name in ("a.png", "b.png", "grid.png"):
        damage(Path("o", name))
    damaged = Path("o/b.png").read_bytes()
    done = mend_large("o")
    assert done.code == 1
    lines = [line for line in done.err.splitlines() if "--input" in line]
    assert lines == [
        "adm: b.png cannot be made again: p/b.png, which was enlarged, is gone or has changed: "
        "pass what holds that picture with --input"
    ]
    assert Path("o/b.png").read_bytes() == damaged
    assert Path("o/a.png").read_bytes() == before["a.png"]
    assert mend_large("o", "--input", "moved").code == 0
    assert contents("o") == before


def test_weights_of_enlarged_pictures(enlarge: Run, adm: Run, toys: Toys) -> None:
    save_some("p")
    assert enlarge("p", "--class", 0, "--out", "o").code == 0
    damage("o/a.png")
    done = adm("verify", "o", "--repair")
    assert (done.code, "pass their file with --model" in done.err) == (2, True)
    done = adm("verify", "o", "--repair", "--model", toys.plain_upsampler)
    assert (done.code, "drawn with another upsampler" in done.err) == (1, True)


# Batches that memory made smaller


def run_out_of_memory(monkeypatch: pytest.MonkeyPatch, more_than: int) -> None:
    real = UNet.forward

    def forward(self: UNet, x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        if len(x) > more_than:
            raise torch.OutOfMemoryError("out of memory")
        return real(self, x, *args, **options)

    monkeypatch.setattr(UNet, "forward", forward)


@pytest.mark.parametrize("known", ["line", "recipe"])
def test_the_batch_size_that_it_had(
    draw: Run, mend: Run, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    """From the manifest's line, or where that was lost from the picture."""
    with monkeypatch.context() as patch:
        run_out_of_memory(patch, 1)
        assert draw(*WANTED, "--out", "o").code == 0
    before, name = contents("o"), "0000_circle_seed000001.png"
    if known == "line":
        path = Path("o/manifest.jsonl")
        records = read_manifest(path).records
        rewrite_manifest(path, [{**record, "batch_size": 1} for record in records])
        Path("o", name).unlink()
    else:
        lose_line("o", name)
    done = mend("o")
    assert done.code == 0, done.err
    assert contents("o") == before


def test_both_batch_sizes_of_a_stack(
    stack: Run, mend: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        run_out_of_memory(patch, 1)  # the base model; the upsampler has as many as that makes
        assert stack("--out", "o", "--animate", "o/x.gif").code == 0
    before, name = contents("o"), "0003_star_seed000003.png"
    lose_line("o", name)
    damage("o/x.gif")
    done = mend("o")
    assert done.code == 0, done.err
    assert contents("o") == before


# Films


FILM = ("--animate", "o/x.gif", "--out", "o")


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_a_film(draw: Run, adm: Run, mend: Run, suffix: str) -> None:
    """Damaged, missing or without its line."""
    assert draw(*WANTED, "--out", "o", "--animate", f"o/x.{suffix}").code == 0
    before, film = contents("o"), Path(f"o/x.{suffix}")
    for wrong in ("damaged", "missing", "unrecorded"):
        if wrong == "damaged":
            damage(film)
        elif wrong == "missing":
            film.unlink()
        else:
            lose_line("o", film.name)
        found = adm("verify", "o", "--json")
        assert found.code == 1
        (row,) = [json.loads(line) for line in found.out.splitlines()]
        assert (row["kind"], row["file"]) == (wrong, film.name)
        done = mend("o")
        assert (done.code, contents("o") == before) == (0, True), done.err


@pytest.mark.parametrize("memory", [10**12, 10**6])
def test_a_film_of_the_second_stage(
    stack: Run, mend: Run, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    """Also where the small pictures are not there any more, and both stages are at hand."""
    assert stack(*FILM, "--keep-base").code == 0
    shutil.rmtree("o/base")
    before = contents("o")
    damage("o/x.gif")
    monkeypatch.setattr(memory_module, "free_bytes", lambda _device: memory)
    assert mend("o").code == 0
    assert contents("o") == before


def test_a_film_of_a_run_that_grew(draw: Run, mend: Run) -> None:
    """Its batch is not the run's first one any more; more images do not change it."""
    assert draw("--class", "3", "--seeds", "2-3", "-b", 2, *FILM).code == 0
    assert draw(*WANTED, "--out", "o").code == 0
    before = contents("o")
    damage("o/x.gif")
    assert mend("o").code == 0
    assert contents("o") == before


def test_a_film_that_cannot_be_made_again(
    stack: Run, adm: Run, mend: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both stages, which do not fit into memory any more: said until it is made elsewhere."""
    assert stack(*FILM).code == 0
    before = contents("o")
    damage("o/x.gif")
    with monkeypatch.context() as patch:
        patch.setattr(memory_module, "free_bytes", lambda _device: 10**6)
        done = mend("o")
        assert done.code == 1
        assert "x.gif cannot be made again: its images do not fit into memory together" in done.err
        assert contents("o") == {name: data for name, data in before.items() if name != "x.gif"}
        assert adm("verify", "o").out == "o/x.gif is missing\n"
        assert mend("o").code == adm("verify", "o").code == 1
        done = stack(*FILM)
        assert done.code == 1
        assert "o/x.gif cannot be drawn as it would have been, for lack of memory" in done.err
    assert mend("o").code == 0
    assert contents("o") == before


def test_a_film_of_which_nothing_is_known(draw: Run, adm: Run, mend: Run) -> None:
    """Its line does not say how it was drawn: it goes, and the exit code says so once."""
    assert draw(*WANTED, *FILM).code == 0
    manifest = Path("o/manifest.jsonl")
    *lines, _ = manifest.read_bytes().splitlines(keepends=True)
    bare = render_line({"file": "x.gif", "bytes": 1, "sha256": "0" * 64})
    manifest.write_bytes(b"".join(lines) + bare)
    Path("o/x.gif").unlink()
    done = mend("o")
    assert done.code == 1
    assert "x.gif cannot be made again: the command that began the run makes it" in done.err
    assert adm("verify", "o").code == 0


def test_films_of_others(draw: Run, adm: Run) -> None:
    """Somebody's own film, and one of another run, are none of this one's business."""
    assert draw(*WANTED, "--out", "o").code == 0
    Image.new("RGB", (4, 4)).save("o/mine.gif")
    assert draw(*WANTED, "--seed", 50, "--out", "p", "--animate", "o/theirs.gif").code == 0
    assert adm("verify", "o").code == 0


# Others


def test_bytes_that_differ_are_told(draw: Run, mend: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert draw(*WANTED, "--out", "o").code == 0
    damage("o/0000_circle_seed000001.png")
    monkeypatch.setattr(settings_module, "__version__", "9")
    done = mend("o")
    assert done.code == 0
    assert "0000_circle_seed000001.png is not byte for byte what it was" in done.err
    damage("o/0000_circle_seed000001.png")
    assert "byte for byte" not in mend("o").err


def test_a_repair_that_is_stopped_forgets_nothing(
    stack: Run, mend: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stack(*FILM).code == 0
    before = contents("o")
    damage("o/x.gif")
    damage("o/0000_circle_seed000000.png")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline_module, "load_model", raising(KeyboardInterrupt()))
        assert mend("o").code == 130
    assert set(before) - set(contents("o")) == {"x.gif", "0000_circle_seed000000.png"}
    assert {"x.gif", "0000_circle_seed000000.png"} < set(RunFolder(Path("o")).records())
    assert mend("o").code == 0
    assert contents("o") == before


def raising(error: BaseException) -> Callable[..., Any]:
    def function(*_arguments: Any, **_options: Any) -> Any:
        raise error

    return function


# Sweeps


@pytest.fixture
def sweep(adm: Run, toys: Toys) -> Run:
    models = ("--model", toys.model, "--classifier", toys.classifier, "--device", "cpu")
    grid = ("--scale", "0,1", "--steps", 2, "--class", 0, "--num", 6, "--out", "o")
    return lambda *more: adm("sweep", *models, *grid, *more)


def test_every_file_of_a_sweep(
    sweep: Run, adm: Run, mend: Run, toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = ("--ref", "r", "--features", toys.classifier, "--metrics", "fid")
    assert adm("sample", "--model", toys.model, "--scale", 0, "--class", 0, "--num", 8, "--out",
               "r", "--steps", 2, "--device", "cpu").code == 0  # fmt: skip
    assert sweep(*judge).code == 0
    before = contents("o")
    whole = adm("verify", "o")
    assert (whole.code, whole.out) == (0, "")
    assert "o: its tables and its sheet are right" in whole.err
    names = {"sweep.json", ".sweep.json.copy", "sweep.csv", "sweep.png", "sheet.png"}
    assert names < set(before)
    monkeypatch.setattr(pipeline_module, "load_model", None)  # nothing is drawn
    for name in sorted(names):
        for wrong in (damage, Path.unlink):
            wrong(Path("o", name))
            found = adm("verify", "o")
            assert (found.code, f"o/{name} " in found.out) == (1, True), name
            done = mend("o")
            assert done.code == 0, (name, done.err)
            assert contents("o") == before, name
    Path("o/.adm-x.tmp").touch()
    assert (adm("verify", "o").code, mend("o").code) == (1, 0)
    assert contents("o") == before


def test_cells_are_mended_and_the_sheet_stays(sweep: Run, adm: Run, mend: Run) -> None:
    assert sweep().code == 0
    before = contents("o")
    for cell in ("toy_ddpm_2_scale0", "toy_ddpm_2_scale1"):
        damage(Path("o", cell, "0000_circle_seed000003.png"))
    damage("o/sheet.png")
    found = adm("verify", "o")
    assert (found.code, len(found.out.splitlines())) == (1, 3)
    assert mend("o").code == 0
    assert contents("o") == before
    shutil.rmtree("o/toy_ddpm_2_scale1")
    gone = adm("verify", "o")
    assert (gone.code, gone.out) == (1, "1 of 2 cells of o is not there, e.g. toy_ddpm_2_scale1\n")
    assert "the same command that began the sweep goes on with it" in gone.err
    assert sweep().code == 0
    assert (adm("verify", "o").code, contents("o").keys()) == (0, before.keys())


def test_what_is_left_of_a_sweep(sweep: Run, adm: Run, mend: Run) -> None:
    """Without any cell no sheet can be drawn: the damaged one is not taken for good."""
    assert sweep().code == 0
    for path in Path("o").glob("toy*"):
        shutil.rmtree(path)
    damage("o/sheet.png")
    done = mend("o")
    assert (done.code, Path("o/sheet.png").exists()) == (1, False)
    assert "2 of 2 cells of o are not there" in done.out
    assert sweep().code == 0
    assert adm("verify", "o").code == 0


def test_a_sweep_of_several_models(adm: Run, tmp_path: Path) -> None:
    names = [save_toy(tmp_path / f"{n}.safetensors", TOY_UNET, seed=n) for n in (1, 2)]
    models = ("--model", ",".join(map(str, names)), "--scale", 0, "--class", 0, "--num", 1)
    assert adm("sweep", *models, "--steps", 2, "--device", "cpu", "--out", "o").code == 0
    before = contents("o")
    for path in Path("o").glob("*/*.png"):
        damage(path)
    done = adm("verify", "o", "--repair", "--model", names[1], "--model", names[0])
    assert done.code == 0, done.err
    assert contents("o") == before


def test_what_is_no_run(adm: Run) -> None:
    """In one line, also as JSON: there are no findings."""
    Path("some").mkdir()
    Path("some/a.txt").write_text("a")
    for words in (("some",), ("some", "--repair"), ("some", "--json"), ("gone",)):
        done = adm("verify", *words)
        expected = f"adm: error: {words[0]} is no run: it has no run.json\n"
        assert (done.code, done.out, done.err) == (1, "", expected)
    done = adm("verify", "some/a.txt")
    assert (done.code, done.out) == (1, "")
    assert "some/a.txt is a file: expected the folder of a run" in done.err
