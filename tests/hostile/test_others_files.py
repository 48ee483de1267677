"""Files of others in a folder that a command names: whatever they are called, they stay.

What a run wrote itself bears names that nothing else is taken for; where it would write over a
file that is none of its own, it says so instead.
"""

from __future__ import annotations

from pathlib import Path

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
        (done,) = refused(folder, BEGIN)
        assert f"run/{name} is there" in done.err
        assert "--fresh" in done.err
        (folder / "run" / name).unlink()
    put(folder / "run", "settings.json")
    (done,) = refused(folder, BEGIN)
    assert "cannot read run/settings.json" in done.err
    (folder / "run" / "settings.json").write_text("{}")
    (done,) = refused(folder, BEGIN)
    assert "run/settings.json holds no options of a training by adm" in done.err


def test_of_a_sweep(folder: Path, toys: Toys) -> None:
    sweep: Arguments = ["sweep", "--model", toys.model, "--scale", 0, "--class", 1, "--num", 1,
                        "--steps", 1, "--device", "cpu", "--quiet", "--out", "s"]  # fmt: skip
    put(folder / "s", "sweep.csv", "sheet.png")
    (done,) = refused(folder, sweep)
    assert "s/sweep.csv" in done.err
    (folder / "s" / "sweep.csv").unlink()
    harmless(folder, [*sweep, "--overwrite"], [*sweep, "--num", 2], codes=(0,))


def test_of_a_cache_that_is_a_link(folder: Path) -> None:
    put(folder / "mine", "thesis.pdf")
    (folder / "home").mkdir()
    (folder / "home" / "downloads").symlink_to(folder / "mine")
    for name in ("downloads", "thesis.pdf", "all"):
        (done,) = refused(folder, ["cache", "rm", name])
        assert "home/downloads is a link" in done.err
