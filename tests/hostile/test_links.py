"""Links inside a run's folder, which may be anyone's: nothing outside is removed, written, locked.

The folder that a command names may be a link; what lies below it may not.
`test_every_writer` lists every function that changes what a folder holds.
"""

from __future__ import annotations

import ast
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

import adm_cli
from adm_cli.checkpoints import fetched
from adm_cli.checkpoints.flags.model import openai_flags
from adm_cli.checkpoints.loading import build_model
from adm_cli.checkpoints.partial import Partial, Version
from adm_cli.errors import OutputError
from adm_cli.files import disk as files
from adm_cli.files import fresh, links, locks
from tests.conftest import Toys
from tests.hostile.sandbox import Arguments, Done, harmless
from tests.hostile.test_pictures import TRAIN, labelled
from tests.hostile.test_places import functions
from tests.hostile.test_runs import BEGIN, RESUME
from tests.hostile.test_weights import FLAGS

MODES = ("another run", "a folder", "nowhere")


def everything(folder: Path) -> dict[str, bytes | str | None]:
    """Every file below a folder and its bytes, where links lead, folders."""
    return {
        str(path.relative_to(folder)): (
            os.readlink(path)
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else None
        )
        for path in sorted(folder.rglob("*"))
    }


def stands(folder: Path, *commands: Arguments, link: object) -> list[Done]:
    """Each is refused in one line that names the link, and nothing is changed anywhere."""
    before = everything(folder.parent)
    found = harmless(folder, *commands, codes=(1,))
    for command, done in zip(commands, found, strict=True):
        assert len(done.err.splitlines()) == 1, (command, done)
        assert done.err.startswith("adm: error: "), (command, done)
        assert f"{link} is a link" in done.err, (command, done)
        assert not done.out, (command, done)
    assert everything(folder.parent) == before
    return found


def sample(toys: Toys, *more: object) -> Arguments:
    return ["sample", "--model", toys.model, "--scale", 0, "--num", 1, "--class", "1", "--steps", 1,
            "--device", "cpu", "--quiet", *more]  # fmt: skip


def stack(toys: Toys, *more: object) -> Arguments:
    upsampler = ("--upsampler", toys.plain_upsampler, "--upsample-steps", 1)
    return sample(toys, *upsampler, *more)


def lead(link: Path, mode: str, run: Path) -> None:
    """Makes ``link`` lead out: to a copy of ``run`` beside the place of the commands, ..."""
    outside = run.parent.parent / "outside"
    shutil.rmtree(outside, ignore_errors=True)
    if mode == "another run":
        shutil.copytree(run, outside)
    elif mode == "a folder":
        outside.mkdir()
        for name in ("run.json", "manifest.jsonl", ".run.lock", "settings.json", ".adm-x.tmp"):
            (outside / name).write_bytes(b"precious")
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(outside)


@pytest.mark.parametrize("name", [".base", "base"])
def test_small_pictures_of_a_stack(folder: Path, toys: Toys, name: str) -> None:
    """Lost once: `adm sample` of a finished stack emptied the run that .base led to."""
    harmless(folder, sample(toys, "--out", "other"), stack(toys, "--out", "o"), codes=(0,))
    repair: Arguments = ["verify", "o", "--repair", "--model", toys.model]
    for mode in MODES:
        lead(folder / "o" / name, mode, folder / "other")
        ways: list[Arguments] = [
            [], ["--overwrite"], ["--num", 2], ["--keep-base"], ["--shard", "1/2"],
        ]  # fmt: skip
        again = [stack(toys, "--out", "o", *more) for more in ways[: 5 if mode == MODES[0] else 1]]
        stands(folder, *again, ["verify", "o"], repair, link=f"o/{name}")


def test_before_a_run_is_begun(folder: Path, toys: Toys) -> None:
    """The links came with a folder that holds no run yet."""
    harmless(folder, sample(toys, "--out", "other"), codes=(0,))
    (folder / "o").mkdir()
    for name, mode in ((".base", "another run"), ("base", "a folder")):
        lead(folder / "o" / name, mode, folder / "other")
        commands = [stack(toys, "--out", "o", *more) for more in ([], ["--overwrite"])]
        stands(folder, *commands, link=f"o/{name}")
        (folder / "o" / name).unlink()


def test_a_cell_of_a_sweep(folder: Path, toys: Toys) -> None:
    sweep: Arguments = ["sweep", "--model", toys.model, "--scale", 0, "--class", 1, "--num", 1,
                        "--steps", "1,2", "--device", "cpu", "--quiet", "--out", "s"]  # fmt: skip
    harmless(folder, sweep, codes=(0,))
    cell = next(path for path in (folder / "s").iterdir() if path.is_dir())
    shutil.copytree(cell, folder / "other")
    again = [[*sweep, *more] for more in ([], ["--overwrite"], ["--num", 2], ["--dry-run"])]
    verify: list[Arguments] = [["verify", "s"], ["verify", "s", "--repair", "--model", toys.model]]
    for mode in MODES:
        lead(cell, mode, folder / "other")
        commands = [*again, *verify] if mode == "another run" else again[1:3]  # else no cell
        stands(folder, *commands, link=f"s/{cell.name}")
    for path in (folder / "s").iterdir():  # nothing but the cell
        path.unlink() if path.is_file() and not path.is_symlink() else None
    lead(cell, "another run", folder / "other")
    stands(folder, *again, link=f"s/{cell.name}")


def test_inside_a_training_run(folder: Path, no_plots: None) -> None:
    labelled(folder / "set")
    harmless(folder, BEGIN, codes=(0,))
    (folder / "fresh").mkdir()
    for name, mode in (("samples", "a folder"), ("samples", "nowhere"), ("tensorboard", "nowhere")):
        for run in ("run", "fresh"):
            lead(folder / run / name, mode, folder / "run")
        stands(folder, RESUME, link=f"run/{name}")
        stands(folder, [*BEGIN, "--out", "fresh"], link=f"fresh/{name}")
        for run in ("run", "fresh"):
            (folder / run / name).unlink()


def test_files_named_below_a_run(folder: Path, toys: Toys) -> None:
    """What a command is told to write goes through no link in a run, a sweep, or a training."""
    shutil.move(labelled(folder / "set") / "cat", folder / "set" / "circle")
    harmless(folder, sample(toys, "--out", "o"), codes=(0,))
    (folder / "run").mkdir()
    for name in ("settings.json", "state-00000001.safetensors"):
        (folder / "run" / name).touch()
    torch.save(build_model(openai_flags(FLAGS)[0]).state_dict(), folder / "m.pt")
    image = next((folder / "o").glob("*.png")).name
    features: Arguments = ["--features", toys.classifier, "--device", "cpu", "--quiet"]
    quick: Arguments = ["--steps", 1, "--device", "cpu", "--quiet"]
    net: Arguments = ["--classifier", toys.classifier, "--at", 0, "--device", "cpu", "--quiet"]
    for root in ("o", "run"):
        lead(folder / root / "x", "a folder", folder / "o")
        to = f"{root}/x"
        stands(
            folder,
            ["merge", "o", "-o", f"{to}/m.npz"],
            ["merge", "o", "-o", f"{to}/deep/m.zip", "--overwrite"],
            ["convert", "m.pt", "--flags", FLAGS, "-o", f"{to}/m.safetensors"],
            ["repro", f"o/{image}", "--model", toys.model, "-o", f"{to}/y.png"],
            ["reference", "set", "-o", f"{to}/r.safetensors", *features],
            ["evaluate-classifier", "set", *net, "-o", to],
            ["nll", "set", "--model", toys.model, "--steps", 1, "-o", f"{to}/n.csv", "--quiet"],
            sample(toys, "--out", "p", "--animate", f"{to}/x.gif"),
            sample(toys, "--out", to),
            sample(toys, "--out", f"{to}/deep"),
            ["export", toys.model, "--to", "original", f"{to}/m.pt", "--overwrite"],
            ["export", toys.model, "--to", "diffusers", f"{to}/unet"],
            ["gallery", "o", "-o", f"{to}/page.html", "--overwrite"],
            ["upsample", "o", "--model", toys.upsampler, *quick, "--out", to],
            ["edit", f"o/{image}", "--model", toys.model, *quick, "--out", f"{to}/deep"],
            ["interpolate", "--model", toys.model, "--class", 1, *quick, "--out", to],
            [*TRAIN, "--out", f"{to}/deep"],
            link=to,
        )  # fmt: skip


def test_a_folder_for_diffusers(folder: Path, toys: Toys) -> None:
    """Its parts may not lead elsewhere, and a link in a file's place is replaced, not followed."""
    export: Arguments = ["export", toys.model, "--to", "diffusers", "x", "--overwrite"]
    model: Arguments = ["export", toys.model, "--to", "original", "m.pt", "--overwrite"]
    page: Arguments = ["gallery", "o", "-o", "page.html", "--overwrite"]
    harmless(folder, sample(toys, "--out", "o"), codes=(0,))
    (folder.parent / "outside").mkdir()
    (folder / "x").mkdir()
    for name in ("unet", "scheduler"):
        (folder / "x" / name).symlink_to(folder.parent / "outside")
        stands(folder, export, link=f"x/{name}")
        (folder / "x" / name).unlink()
    (folder.parent / "outside" / "file").write_bytes(b"precious")
    for name in ("m.pt", "page.html"):
        (folder / name).symlink_to(folder.parent / "outside" / "file")
    harmless(folder, export, model, page, codes=(0,))
    assert everything(folder.parent / "outside") == {"file": b"precious"}
    assert not any((folder / name).is_symlink() for name in ("m.pt", "page.html"))


@pytest.mark.parametrize("name", ["downloads", "fetched"])
def test_where_the_program_keeps_its_own(folder: Path, name: str) -> None:
    from tests.hostile.test_homes import UNKNOWN

    (folder / "source").mkdir()
    (folder / "source" / f"{UNKNOWN[0]}.pt").write_bytes(b"x")
    (folder / "home").mkdir()
    for mode in MODES[1:]:
        lead(folder / "home" / name, mode, folder / "source")
        stands(folder, ["fetch", UNKNOWN[0], "--from", "source", "--quiet"], link=f"home/{name}")


def test_links_that_were_named(folder: Path, toys: Toys) -> None:
    """`--out` is where it leads; so is a folder above it."""
    (folder / "disk").mkdir()
    (folder / "link").symlink_to("disk")
    (folder / "run").symlink_to("disk/run")
    (folder / "disk" / "run").mkdir()
    commands: list[Arguments] = [
        stack(toys, "--keep-base", "--out", "run", "--grid", "--animate", "run/x.gif"),
        stack(toys, "--keep-base", "--out", "run", "--num", 2),
        stack(toys, "--keep-base", "--out", "run", "--overwrite"),
        ["verify", "run", "--repair", "--model", toys.model],
        stack(toys, "--out", "link/new"),
        ["merge", "link/new", "-o", "link/m.npz"],
    ]
    harmless(folder, *commands, codes=(0,))
    assert {p.name for p in (folder / "disk").iterdir()} == {"run", "new", "m.npz"}


def test_books_of_another_run(folder: Path, toys: Toys) -> None:
    """A link in the place of a file: the other run keeps its own, whatever is done here."""
    harmless(folder, sample(toys, "--out", "o", "--num", 2), codes=(0,))
    names = [path.name for path in (folder / "o").iterdir()]
    shutil.copytree(folder / "o", folder.parent / "outside")
    before = everything(folder.parent / "outside")
    commands: list[Arguments] = []
    for name in names:
        run = folder / f"o-{name}"
        shutil.copytree(folder / "o", run)
        (run / name).unlink()
        (run / name).symlink_to(folder.parent / "outside" / name)
        commands += [
            sample(toys, "--out", run, "--num", 3), ["verify", run],
            ["verify", run, "--repair", "--model", toys.model],
            sample(toys, "--out", run, "--num", 3, "--overwrite"),
        ]  # fmt: skip
    for command, done in zip(commands, harmless(folder, *commands), strict=True):
        assert done.err.count("adm: error: ") <= 1, (command, done)
    assert everything(folder.parent / "outside") == before


def test_a_manifest_that_is_a_link(folder: Path, toys: Toys) -> None:
    """What is said leads on: without the link the same command draws what it vouched for."""
    harmless(folder, sample(toys, "--out", "o"), codes=(0,))
    manifest = folder / "o" / "manifest.jsonl"
    manifest.rename(folder.parent / "outside")
    manifest.symlink_to(folder.parent / "outside")
    again = sample(toys, "--out", "o", "--num", 2)
    drawn, seen = harmless(folder, again, ["verify", "o"], codes=(1,))
    assert "o/manifest.jsonl: it is a link, which is not followed here; remove" in drawn.err
    assert "o/manifest.jsonl is a link, to which nothing is added: remove it" in seen.out
    manifest.unlink()
    harmless(folder, again, ["verify", "o"], codes=(0,))


def test_locks(folder: Path, toys: Toys) -> None:
    """Not taken elsewhere, so that nobody elsewhere waits for them."""
    labelled(folder / "set")
    harmless(folder, sample(toys, "--out", "o"), codes=(0,))
    next((folder / "o").glob("*.png")).unlink()
    (folder / "run").mkdir()
    (folder.parent / "outside").write_bytes(b"precious")
    repair: Arguments = ["verify", "o", "--repair", "--model", toys.model]
    for link, command in (
        ("o/.run.lock", sample(toys, "--out", "o")),
        ("o/.manifest.lock", sample(toys, "--out", "o")),
        ("o/.run.lock", repair),
        ("run/.train.lock", [*BEGIN, "--out", "run"]),
    ):
        (folder / link).unlink(missing_ok=True)
        (folder / link).symlink_to(folder.parent / "outside")
        (done,) = harmless(folder, command, codes=(1,))
        (folder / link).unlink()
        assert f"adm: error: {link} is a link" in done.err, done
        assert (folder.parent / "outside").read_bytes() == b"precious"


def test_what_has_another_name_elsewhere(folder: Path, toys: Toys) -> None:
    """A copy by hard links (`cp -al`), gone on with, leaves the first one as it was."""
    harmless(folder, sample(toys, "--out", "o"), codes=(0,))
    shutil.copytree(folder / "o", folder.parent / "o", copy_function=os.link)
    before = everything(folder.parent / "o")
    repair: Arguments = ["verify", "o", "--repair", "--model", toys.model]
    for command in (sample(toys, "--out", "o", "--num", 2), repair,
                    sample(toys, "--out", "o", "--overwrite")):  # fmt: skip
        harmless(folder, command, ["verify", folder.parent / "o"], codes=(0,))
        assert everything(folder.parent / "o") == before


def test_temporaries(folder: Path, toys: Toys) -> None:
    harmless(folder, sample(toys, "--out", "o"), codes=(0,))
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"precious")
    for i, target in enumerate((outside / "x", outside, folder.parent / "nowhere")):
        for prefix in (".adm-manifest-", ".adm-"):
            (folder / "o" / f"{prefix}{i}.tmp").symlink_to(target)
    repair: Arguments = ["verify", "o", "--repair", "--model", toys.model]
    harmless(folder, sample(toys, "--out", "o", "--num", 2), repair, codes=(0,))
    assert not list((folder / "o").glob(".adm-*"))
    assert everything(outside) == {"x": b"precious"}


# Functions that remove, make, move or lock something by its name, without `links.remove` and its
# like, which ask first; and what shows that they stay inside.
WRITERS: dict[str, str] = {
    "files/links.py remove": "test_small_pictures_of_a_stack",
    "files/links.py remove_folder": "test_small_pictures_of_a_stack",
    "files/disk.py make_folder": "test_files_named_below_a_run",
    "files/disk.py check_writable": "test_files_named_below_a_run",
    "files/disk.py atomic_write": "test_files_named_below_a_run",
    "files/disk.py _open_temporary": "test_files_named_below_a_run",  # of the one above
    "files/disk.py write_files": "test_functions",
    "files/disk.py _write_temporary": "test_functions",  # of the one above
    "files/disk.py move_into_place": "test_functions",
    "files/disk.py open_to_append": "test_functions",
    "files/disk.py open_to_change": "test_functions",
    "files/disk.py remove_leftover": "test_temporaries",
    "files/fresh.py make_fresh_folder": "test_functions",
    "checkpoints/partial.py Partial.rename": "test_functions",
    "checkpoints/downloads.py _Transfer.finish": "test_functions",  # by the one above
    "checkpoints/downloads.py one_at_a_time": "test_where_the_program_keeps_its_own",
    "checkpoints/fetched.py scratch_folder": "test_functions",
    "checkpoints/fetched.py clean_up": "test_functions",
    "training/loop.py TrainingRun.__init__": "test_inside_a_training_run",
}
CHANGES = {
    "unlink", "rmdir", "rmtree", "rename", "mkdir", "makedirs", "symlink_to", "mkdtemp",
    "_new_file", "TemporaryFile", "FileLock", "SummaryWriter", "write_text", "write_bytes",
    "_in_its_folder", "flock", "touch",
}  # fmt: skip
OF_THE_SYSTEM = {"remove", "replace", "chmod"}  # of `os`; others have these names too


def changes(function: ast.AST) -> bool:
    """Whether one of these is called in it, or handed to another."""
    for node in ast.walk(function):
        name = getattr(node, "attr", getattr(node, "id", ""))
        owner = getattr(getattr(node, "value", None), "id", "")
        if name in CHANGES or (name in OF_THE_SYSTEM and owner in ("os", "shutil")):
            return True
    return False


def test_every_writer() -> None:
    """A new one asks `links.check_inside` first, and is a row of WRITERS with its test."""
    root = Path(adm_cli.__file__).parent
    found = {
        f"{path.relative_to(root).as_posix()} {name}"
        for path in root.rglob("*.py")
        for name, function in functions(ast.parse(path.read_text()))
        if changes(function)
    }
    assert found == set(WRITERS)
    assert all(name in globals() for name in WRITERS.values())


def test_functions(tmp_path: Path) -> None:
    """Those that a command reaches only after another one has looked: each looks for itself."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "run" / "deep").mkdir(parents=True)
    (tmp_path / "run" / "run.json").touch()
    (tmp_path / "run" / "deep" / "link").symlink_to(tmp_path / "outside")
    there, here = tmp_path / "run" / "deep" / "link", tmp_path / "here"
    (tmp_path / "outside" / "x").write_bytes(b"precious")
    (tmp_path / "outside" / ".adm-old").mkdir()
    os.utime(tmp_path / "outside" / ".adm-old", (0, 0))
    here.write_bytes(b"mine")
    version = Version(1)
    (tmp_path / "outside" / f"x.{version.id}.partial").touch()
    partial = Partial(tmp_path / "outside" / "x", version, "url")
    partial.path = there / partial.path.name
    before = everything(tmp_path)
    calls: list[Callable[[], object]] = [
        lambda: links.remove(there / "x"),
        lambda: links.remove_folder(there / ".adm-old"),
        lambda: files.write_files(there, [("x", b"")], ".adm-"),
        lambda: files.move_into_place(here, there / "x"),
        lambda: files.move_into_place(there / "x", here),
        lambda: files.open_to_append(there / "x"),
        lambda: files.open_to_change(there / "x"),
        lambda: files.make_folder(there / "new"),
        lambda: files.remove_leftover(there / "x"),
        lambda: fresh.make_fresh_folder(there),
        lambda: partial.rename(here),
        lambda: ExitStack().enter_context(fetched.scratch_folder(there / "x")),
        lambda: fetched.clean_up(tmp_path / "gone" / "x", there, keep_original=True),
        lambda: ExitStack().enter_context(locks.hold(there / ".x.lock", "busy")),
    ]
    for call in calls:
        with pytest.raises(OutputError, match="run/deep/link is a link, which may lead out of"):
            call()
    assert everything(tmp_path) == before
