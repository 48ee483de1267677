"""Files of others in a folder that a command names: whatever they are called, they stay.

What a run wrote itself bears names that nothing else is taken for; where it would write over a
file that is none of its own, it says so instead.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adm_cli.sampling.folder import RunFolder
from tests.conftest import Toys
from tests.hostile.sandbox import Arguments, Done, harmless, refused
from tests.hostile.test_links import everything, sample
from tests.hostile.test_pictures import labelled
from tests.hostile.test_runs import BEGIN

ALIKE = ("manifest_train.jsonl", "manifest-mine.jsonl", ".yarn.lock", "seed000000.png.bak")
OF_TRAININGS = (
    *("model_final.safetensors", "model-00001-of-00002.safetensors", "best-of-all.safetensors"),
    *("state-of-the-art.safetensors", "samples/step-mother.png", "metrics.csv.bak"),
    "tensorboard/events.out.mine",
)


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"precious")


def stay(folder: Path, names: tuple[str, ...], *commands: Arguments) -> list[Done]:
    """The commands do their work, and these files are left as they were."""
    done = harmless(folder.parent, *commands, codes=(0,))
    assert {name: (folder / name).read_bytes() for name in names} == dict.fromkeys(
        names, b"precious"
    )
    return done


def test_of_a_run(folder: Path, toys: Toys) -> None:
    put(folder / "o", *ALIKE)
    begin = sample(toys, "--out", "o")
    stay(folder / "o", ALIKE, begin, [*begin, "--overwrite"], ["verify", "o"])
    assert not list((folder / "o").glob(".manifest[-_]*.lock"))


def test_of_a_run_that_is_taken_back(tmp_path: Path) -> None:
    put(tmp_path / "o", *ALIKE, "manifest.jsonl", ".manifest.lock", ".run.lock", "run.json")
    RunFolder(tmp_path / "o").discard_if_empty()
    assert set(everything(tmp_path / "o")) == set(ALIKE)


def test_of_a_training(folder: Path, no_plots: None) -> None:
    labelled(folder / "set")
    put(folder / "run", *OF_TRAININGS)
    (done,) = stay(folder / "run", OF_TRAININGS, BEGIN)
    assert done.out.split() == ["run/model.safetensors"]
    stay(folder / "run", OF_TRAININGS, [*BEGIN, "--fresh"])


def test_of_the_names_of_a_training(folder: Path, no_plots: None) -> None:
    labelled(folder / "set")
    for name in (
        "model.safetensors",
        "best.safetensors",
        "metrics.csv",
        "samples/step-00000500.png",
    ):
        put(folder / "run", name)
        for done in refused(folder, BEGIN, [*BEGIN, "--fresh"]):
            assert f"run/{name} is there" in done.err
            assert "choose another --out" in done.err
        (folder / "run" / name).unlink()
    put(folder / "run", "settings.json")
    (done,) = refused(folder, BEGIN)
    assert "cannot read run/settings.json" in done.err
    assert "--fresh" not in done.err
    (folder / "run" / "settings.json").write_text("{}")
    (done, fresh) = refused(folder, BEGIN, [*BEGIN, "--fresh"])
    assert "run/settings.json holds no options of a training by adm" in done.err
    assert "nothing in it says that adm wrote it" in fresh.err


def test_a_training_anew_takes_the_place_of_its_own(folder: Path, no_plots: None) -> None:
    labelled(folder / "set")
    harmless(folder, BEGIN, codes=(0,))
    mine = everything(folder / "run")
    (folder / "run" / "settings.json").write_bytes(bytes(mine["settings.json"])[:200])  # type: ignore[arg-type]
    harmless(folder, [*BEGIN, "--fresh"], codes=(0,))
    (folder / "run" / "settings.json").unlink()
    for path in (folder / "run").glob("state-*"):
        path.unlink()
    (done,) = refused(folder, BEGIN)
    assert "--fresh, which removes such" in done.err
    put(folder / "run", "best.safetensors")
    (done,) = refused(folder, [*BEGIN, "--fresh"])
    assert "run/best.safetensors is there, and nothing in it" in done.err


def other_name(folder: Path) -> str:
    """A name that the program gives; the file that bore it is gone."""
    image = next(path for path in folder.iterdir() if path.suffix == ".png")
    image.unlink()
    return image.name


BESIDE = {"grid.png": ["--grid"], "gallery.html": ["--gallery"],
          "samples_1x8x8x3.npz": ["--format", "npz"]}  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_of_what_is_made_beside_images(folder: Path, toys: Toys, name: str) -> None:
    """Whether a run is there, and whatever is to be replaced; the program's own is."""
    begin = sample(toys, "--out", "o", *BESIDE[name])
    put(folder / "o", name)
    stays = f"o/{name} is there, and nothing in it says that adm wrote it"
    found = refused(folder, [*begin, "--overwrite"])
    harmless(folder, sample(toys, "--out", "o"), codes=(0,))
    found += refused(folder, begin)
    for done in found:
        assert stays in done.err, done
        assert "choose another --out, leave out --" in done.err
    (done,) = stay(folder / "o", (name,), ["verify", "o", "--repair", "--model", toys.model])
    assert f"o/{name} is none of this run's" in done.out
    (folder / "o" / name).unlink()
    harmless(folder, begin, codes=(0,))
    (folder / "o" / "manifest.jsonl").unlink()  # so that no line says whose it is
    harmless(folder, begin, codes=(0,))


def test_of_an_image(folder: Path, toys: Toys) -> None:
    begin = sample(toys, "--out", "o")
    harmless(folder, begin, codes=(0,))
    (folder / "o" / "manifest.jsonl").unlink()
    name = other_name(folder / "o")
    put(folder / "o", name)
    for done in refused(folder, begin, [*begin, "--overwrite"]):
        assert f"o/{name} is there, and nothing in it says" in done.err
    (done,) = harmless(folder, ["verify", "o"], codes=(1,))
    assert "is none of this run's" in done.out + done.err
    stay(folder / "o", (name,), sample(toys, "--out", "o", "--dry-run", "--seed", 7, "--overwrite"))


@pytest.mark.parametrize("name", ["run.json", "manifest.jsonl", "manifest-1-of-2.jsonl"])
def test_of_the_books_of_a_run(folder: Path, toys: Toys, name: str) -> None:
    """Names that other programs give as well: nothing is added to them, either."""
    begin = sample(toys, "--out", "o")
    put(folder / "o", name)
    for done in refused(folder, begin, [*begin, "--overwrite"], [*begin, "--dry-run"]):
        assert f"o/{name} is there, and nothing in it says" in done.err
    (folder / "o" / name).unlink()
    harmless(folder, begin, codes=(0,))
    for path in (folder / "o" / "run.json", folder / "o" / ".run.json.copy"):
        path.write_bytes(path.read_bytes()[:300])  # the program's own, damaged
    harmless(folder, [*begin, "--overwrite"], codes=(0,))


def test_of_a_sweep(folder: Path, toys: Toys) -> None:
    sweep: Arguments = ["sweep", "--model", toys.model, "--scale", 0, "--class", 1, "--num", 1,
                        "--steps", 1, "--device", "cpu", "--quiet", "--out", "s"]  # fmt: skip
    for name in ("sweep.csv", "sheet.png", "sweep.png", "sweep.json"):
        put(folder / "s", name)
        for done in refused(folder, sweep, [*sweep, "--overwrite"]):
            assert f"s/{name} is there, and nothing in it says" in done.err
        (folder / "s" / name).unlink()
    harmless(folder, sweep, [*sweep, "--overwrite"], [*sweep, "--num", 2], codes=(0,))
    put(folder / "s", "sweep.png")  # where no curve was drawn
    (done,) = refused(folder, [*sweep, "--num", 2])
    assert "s/sweep.png is there" in done.err


def test_of_names_beside_those_that_are_given(folder: Path, toys: Toys) -> None:
    shutil.move(labelled(folder / "set") / "cat", folder / "set" / "star")
    judge: Arguments = ["nll", "set", "--model", toys.model, "--steps", 1, "--class", "star",
                        "--quiet", "-o", "n.csv", "--overwrite"]  # fmt: skip
    for name in ("n.png", "n.csv.part"):
        put(folder, name)
        (done,) = refused(folder, judge)
        assert f"{name} is there, and nothing in it says that adm wrote it" in done.err
        (folder / name).unlink()


def test_of_a_cache_that_is_a_link(folder: Path) -> None:
    put(folder / "mine", "thesis.pdf")
    (folder / "home").mkdir()
    (folder / "home" / "downloads").symlink_to(folder / "mine")
    for name in ("downloads", "thesis.pdf", "all"):
        (done,) = refused(folder, ["cache", "rm", name])
        assert "home/downloads is a link" in done.err
