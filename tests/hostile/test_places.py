"""What is not a regular file where one is expected: pipes, devices, sockets, folders, links.

None is waited for or read without end, by any reader of files; and `test_every_reader` lists these.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import adm_cli
from adm_cli.files.disk import peek_classes
from tests.conftest import Toys
from tests.hostile.files import safetensors
from tests.hostile.sandbox import Arguments, harmless, refused
from tests.hostile.test_arrays import WHOLE
from tests.hostile.test_pictures import GOOD_ZIP, TRAIN, labelled
from tests.hostile.test_runs import BEGIN, RESUME
from tests.hostile.test_weights import FLAGS, HEADERS


def bind(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(here)


MAKERS: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "socket": bind,
    "zero": lambda path: path.symlink_to("/dev/zero"),
    "full": lambda path: path.symlink_to("/dev/full"),
    "random": lambda path: path.symlink_to("/dev/urandom"),
    "memory": lambda path: path.symlink_to("/proc/self/mem"),
    "circle": lambda path: path.symlink_to(path.name),
    "nowhere": lambda path: path.symlink_to("nowhere"),
    "folder": Path.mkdir,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_named_on_the_command_line(folder: Path, toys: Toys, kind: str) -> None:
    for name in ("x", "x.png", "x.webp", "x.npz", "x.zip", "x.tar", "x.pt", "x.safetensors"):
        MAKERS[kind](folder / name)
    (folder / "x.csv").mkdir() if kind == "folder" else MAKERS[kind](folder / "x.csv")
    (folder / "good.npz").write_bytes(WHOLE)
    (folder / "good.zip").write_bytes(GOOD_ZIP)
    judge: Arguments = ["--features", toys.classifier, "--device", "cpu", "--quiet"]
    enlarge: Arguments = ["--model", toys.upsampler, "--dry-run"]
    refused(
        folder,
        ["info", "x.safetensors"], ["info", "x.png"], ["info", "x.webp"], ["info", "x"],
        ["repro", "x.png"],
        ["sample", "--model", "x.safetensors"],
        ["sample", "--model", toys.model, "--classifier", "x.safetensors"],
        ["sample", "--model", toys.model, "--scale", 0, "--classes-file", "x", "--dry-run"],
        ["convert", "x.pt", "--flags", FLAGS, "-o", "new.safetensors"],
        ["convert", "x.safetensors", "--flags", FLAGS, "-o", "new.safetensors"],
        ["convert", toys.model, "--flags", FLAGS, "--classes", "@x", "-o", "new.safetensors"],
        ["upsample", "x.png", *enlarge], ["upsample", "x.npz", *enlarge],
        ["upsample", "x", *enlarge],
        *(["evaluate", name, "--ref", "good.npz", *judge] for name in ("x.npz", "x.zip", "x.tar")),
        *(["evaluate", "good.npz", "--ref", name, *judge]
          for name in ("x.npz", "x.zip", "x.safetensors")),
        ["evaluate", "good.npz", "--ref", "good.npz", "--inception", "x.pt"],
        ["evaluate", "good.npz", "--judge", "x.safetensors"],
        ["evaluate", "x.npz", "--judge", toys.classifier],
        ["evaluate", "x.zip", "--judge", toys.classifier],
        ["evaluate", "good.zip", "--judge", toys.classifier, "--real", "x.tar"],
        ["evaluate", "good.npz", "--copies-of", "x.zip", "--copies-in", "pixels"],
        ["reference", "x.npz", "-o", "new.safetensors", *judge],
        ["nll", "x.tar", "--model", toys.model], ["nll", "x.zip", "--model", toys.model],
        ["evaluate-classifier", "x.zip", "--classifier", toys.classifier],
        ["evaluate-classifier", "good.zip", "--labels", "x.csv", "--classifier", toys.classifier],
        ["train-classifier", "x.zip", *TRAIN[2:]], ["train-classifier", "x.tar", *TRAIN[2:]],
        ["train-classifier", "good.zip", *TRAIN[2:], "--labels", "x.csv", "--dry-run"],
        ["train-classifier", "good.zip", *TRAIN[2:], "--init", "x.safetensors", "--dry-run"],
        ["merge", "x", "--output", "new.zip"],
    )  # fmt: skip
    (done,) = harmless(folder, ["verify", "x"], codes=(1, 2))
    assert done.err.count("adm: error: ") == 1


def test_lists_that_a_shell_pipes_in(folder: Path, toys: Toys) -> None:
    """As ``<(command)`` does: a pipe that something writes to is read."""
    reading, writing = os.pipe()
    os.write(writing, b"1\n0\n")
    os.close(writing)
    sample: Arguments = ["sample", "--model", toys.model, "--scale", 0, "--dry-run"]
    (done,) = harmless(folder, [*sample, "--classes-file", f"/dev/fd/{reading}"], codes=(0,))
    os.close(reading)
    assert "1 square" in done.out


@pytest.mark.parametrize("kind", MAKERS)
def test_beside_the_pictures_of_a_run(folder: Path, toys: Toys, kind: str) -> None:
    """Where a film of the run could be, whose line was lost."""
    models = ("--model", toys.model, "--scale", 0, "--steps", 1, "--device", "cpu")
    harmless(folder, ["sample", *models, "--class", 1, "--num", 1, "--out", "o"], codes=(0,))
    for name in ("x.gif", "x.webp"):
        MAKERS[kind](folder / "o" / name)
    harmless(folder, ["verify", "o"], codes=(0, 1))


def test_what_a_shell_completes(tmp_path: Path) -> None:
    """Classes in headers of files that are no weights: none, and at once."""
    for i, data in enumerate(HEADERS.values()):
        (tmp_path / f"{i}").write_bytes(data)
        assert peek_classes(tmp_path / f"{i}") == {}
    for kind, maker in MAKERS.items():
        maker(tmp_path / kind)
        assert peek_classes(tmp_path / kind) == {}
    named = {"__metadata__": {"classes": json.dumps({"0": "a\x1b[2J", "1": "a\nb", "2": "ok"})}}
    (tmp_path / "named").write_bytes(safetensors(named, b""))
    assert peek_classes(tmp_path / "named") == {2: "ok"}


LISTS: dict[str, bytes] = {
    "nothing": b"",
    "NUL": b"1\0\n",
    "NULs": bytes(10**6),
    "binary": bytes(range(256)),
    "not UTF-8": b"\xff\xfe1\n",
    "a line of 4 MB": b"1 " * 2 * 10**6,
    "a word of 4 MB": b"x" * 4 * 10**6,
    "an open quote": b'"1\n2\n',
    "an open quote of 4 MB": b'"' + b"\\" * 4 * 10**6,
    "clears the screen": b"\x1b[2J\n",
    "seeds 10^20": b"1 0-99999999999999999999\n",
    "seeds of 5,000 digits": b"1 " + b"9" * 5000 + b"\n",
    "seeds for ever": b"1 0-99999999\n",
    "scale of nothing": b"1 0 nan\n",
    "scale text": b"1 0 \x1b]0;x\x07\n",
    "twice": b"1 0\n1 0\n",
    "four words": b"1 0 1 1\n",
    "no class": b"[red]zebra[/red]\n",
}


def test_lists_of_classes(folder: Path, toys: Toys) -> None:
    for i, data in enumerate(LISTS.values()):
        (folder / str(i)).write_bytes(data)
    sample: Arguments = ["sample", "--model", toys.model, "--scale", 0, "--dry-run"]
    refused(folder, *([*sample, "--classes-file", str(i)] for i in range(len(LISTS))))
    with (folder / "sparse").open("wb") as file:
        file.truncate(10**12)
    refused(folder, [*sample, "--classes-file", "sparse"])


def test_inside_a_run(folder: Path, toys: Toys) -> None:
    """In place of what the program wrote: settings, lines, an image."""
    sample: Arguments = [
        "sample", "--model", toys.model, "--scale", 0, "--num", 1, "--class", "1", "--steps", 1,
        "--device", "cpu", "--quiet",
    ]  # fmt: skip
    harmless(folder, [*sample, "--out", "run"], codes=(0,))
    image = next((folder / "run").glob("*.png")).name
    commands: list[Arguments] = []
    for kind, make in MAKERS.items():
        for name in ("run.json", ".run.json.copy", "manifest.jsonl", image):
            run = Path(f"{kind}-{name}")
            shutil.copytree(folder / "run", folder / run)
            (folder / run / name).unlink()
            make(folder / run / name)
            commands += [
                ["verify", run],
                ["merge", run, "--output", "new.zip"],
                ["upsample", run, "--model", toys.upsampler, "--dry-run"],
                [*sample, "--out", run],
                ["verify", run, "--repair", "--model", toys.model],
            ]
    for command, done in zip(commands, harmless(folder, *commands), strict=True):
        assert done.err.count("adm: error: ") == 0 or done.code, (command, done)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["inside", "precious.txt"]


def test_nothing_is_written_through_a_link(folder: Path, toys: Toys) -> None:
    """A run that someone else made may not add to, cut or replace a file outside it."""
    precious = folder.parent / "precious.txt"
    sample: Arguments = [
        "sample", "--model", toys.model, "--scale", 0, "--num", 1, "--class", "1", "--steps", 1,
        "--device", "cpu", "--quiet", "--grid", "--out",
    ]  # fmt: skip
    harmless(folder, [*sample, "run"], codes=(0,))
    names = [p.name for p in (folder / "run").iterdir()]
    commands: list[Arguments] = []
    for i, name in enumerate(names):
        shutil.copytree(folder / "run", folder / str(i))
        (folder / str(i) / name).unlink()
        (folder / str(i) / name).symlink_to(precious)
        commands += [[*sample, str(i)], [*sample, str(i), "--num", 2], ["verify", str(i)],
                     ["verify", str(i), "--repair", "--model", toys.model],
                     [*sample, str(i), "--overwrite"]]  # fmt: skip
    harmless(folder, *commands)
    assert precious.read_text() == "precious"
    assert sorted(p.name for p in folder.parent.iterdir()) == ["inside", "precious.txt"]


def test_inside_a_training_run(folder: Path, no_plots: None) -> None:
    labelled(folder / "set")
    harmless(folder, BEGIN, codes=(0,))
    states = sorted(p.name for p in (folder / "run").glob("state-*"))
    commands: list[Arguments] = []
    for kind in ("pipe", "zero", "circle", "nowhere", "folder"):
        for names in (["settings.json"], ["metrics.csv"], states):
            run = Path(f"{kind}-{names[0]}")
            shutil.copytree(folder / "run", folder / run)
            for name in names:
                (folder / run / name).unlink()
                MAKERS[kind](folder / run / name)
            commands.append([*RESUME, "--out", run])
    gone = ("circle-metrics.csv", "nowhere-metrics.csv")  # as if it were not there
    for command, done in zip(commands, harmless(folder, *commands), strict=True):
        errors = done.err.count("adm: error: ")
        assert errors == bool(done.code) == (str(command[-1]) not in gone), (command, done)


CSVS: dict[str, bytes] = {
    "binary": bytes(range(256)) * 9,
    "NUL": b"step,loss\n1,\0\n",
    "a field of 1 MB": b"step,loss\n1," + b"9" * 10**6 + b"\n",
    "an open quote": b'step,loss\n1,"2\n' * 9,
    "an open quote of 1 MB": b'step,"loss' + b"x" * 10**6,
    "names of escapes": b"step,\x1b[2J,\x1b]0;x\x07,[red]\n1,1,1,1\n",
    "twice": b"step,step,loss,loss\n1,2,3,4\n",
    "more than named": b"step\n1,2,3,4\n",
    "steps not numbers": b"step,loss\nnan,1\ninf,1\n-inf,1\n1e308,1\n-1e308,1\n",
    "losses not numbers": b"step,loss\n1,nan\n1,inf\n1,1e400\n1,-1e308\n",
    "10,000 columns": b"c," * 10**4 + b"step\n" + b"1," * 10**4 + b"1\n",
    "UTF-16": "step,loss\n1,1\n".encode("utf-16"),
}


def test_metrics_of_a_training_run(folder: Path, no_plots: None) -> None:
    labelled(folder / "set")
    harmless(folder, BEGIN, codes=(0,))
    shutil.copytree(folder / "run", folder / "good")
    commands: list[Arguments] = []
    for i, data in enumerate(CSVS.values()):
        shutil.copytree(folder / "good", folder / f"run{i}")
        (folder / f"run{i}" / "metrics.csv").write_bytes(data)
        commands.append([*RESUME, "--out", f"run{i}"])
    for done in harmless(folder, *commands):
        assert done.err.count("adm: error: ") == bool(done.code), done
    shutil.rmtree(folder / "run")
    shutil.copytree(folder / "good", folder / "run")
    (folder / "run" / "metrics.csv").unlink()
    (folder / "run" / "metrics.csv").symlink_to(folder.parent / "precious.txt")
    harmless(folder, RESUME)
    assert (folder.parent / "precious.txt").read_text() == "precious"


# Every function that reads a file which it did not just write, and the tests of hostile ones.
READERS: dict[str, str] = {
    "checkpoints/header.py read_header": "test_weights, test_references",
    "checkpoints/header.py _hash_blanked": "test_weights, test_references",
    "checkpoints/format.py read_tensors": "test_runs, test_references",
    "checkpoints/format.py load_original": "test_pickles, test_weights",
    "checkpoints/pickles.py load_pickle": "test_pickles, test_references",
    "checkpoints/pickles.py _check_bare": "test_pickles",
    "checkpoints/pickles.py open_zip": "test_pickles",
    "checkpoints/pickles.py _check_zip": "test_pickles, test_references",
    "checkpoints/header.py zip_of_others": "test_pickles",
    "files/own.py is_own": "test_others_files",
    "files/own.py _is_book": "test_runs, test_others_files",
    "files/zips.py ForeignZip.__init__": "test_pictures, test_arrays, test_pickles",
    "pictures/archives.py FolderSource.read": "test_pictures",
    "pictures/archives.py TarSource.__init__": "test_pictures, test_places",
    "files/long_zips.py LongZip.__init__": "test_pictures, test_places",
    "pictures/archives.py TarSource.read": "test_pictures",
    "pictures/depth.py stored_values": "test_pictures",
    "pictures/labels.py _by_file": "test_pictures, test_places",
    "checkpoints/diffusers.py folder_settings": "test_diffusers",
    "checkpoints/fetched.py read_pin": "test_homes",
    "checkpoints/fetched.py copy_file": "test_homes",  # of a file whose hash is known
    "checkpoints/fetched.py zip_is_intact": "test_homes",  # likewise
    "files/disk.py read_file": "test_runs, test_places",
    "files/disk.py read_text": "test_runs, test_references, test_homes, test_places",
    "files/disk.py file_digest": "test_places, test_homes",
    "files/foreign.py read_start": "test_pictures, test_places",
    "files/opening.py open_image": "test_pictures, test_budgets",
    "files/foreign.py describe_picture": "test_pictures, test_places",
    "reports/gallery/build.py _picture": "test_budgets",
    "pictures/images.py open_picture": "test_pictures, test_places",
    "files/disk.py peek_classes": "test_places",
    "pictures/images.py _description": "test_pictures",
    "pictures/images.py read_description": "test_places",
    "pictures/images.py decode_own": "test_pictures",
    "sampling/choosing/inputs.py _read_file": "test_pictures, test_places",
    "files/manifests.py read_lines": "test_runs, test_places",
    "files/disk.py open_to_append": "test_links",
    "files/manifests.py _whole_bytes": "test_places",
    "sampling/merge.py Entry.read": "test_runs, test_places",
    "pictures/npz.py Npz.__init__": "test_arrays, test_places",
    "checkpoints/partial.py Partial.__init__": "test_homes",
    "checkpoints/partial.py _open_recorded": "test_homes",
    "checkpoints/partial.py file_digests": "test_homes",
    "pictures/decode.py decode_picture": "test_pictures",
    "pictures/decode.py peak_value": "test_pictures",
    "sampling/run.py read_run": "test_runs, test_places",
    "files/sealed.py is_whole": "test_runs, test_places",
    "sampling/sweeps/folder.py _read": "test_references",
    "training/runs.py TrainingFolder.load_settings": "test_runs, test_places",
    "checkpoints/tensors.py stream_tensors": "test_weights, test_overwritten",
    "training/runs.py _read_rows": "test_places",
    "sampling/choosing/select.py read_class_list": "test_places",
    "checkpoints/class_names.py read_classes": "test_runs, test_places",
}
# What the system says of the machine, the program's own table, opening itself, and other "load"s.
OTHERS = {
    "devices.py free_bytes", "devices.py device_name", "classes/imagenet.py imagenet_classes",
    "files/disk.py open_file", "sampling/drawing/draw.py _Work.draw",
    "reports/gallery/page.py _part", "sampling/drawing/easel.py Easel.painter",
    "sampling/drawing/worker.py serve", "sampling/recipes/repro.py _remake",
    "sampling/drawing/workers.py Crew._listen", "commands/console.py prepare_streams",
    "training/runs.py MetricsFile.sync", "training/trainer.py Trainer.load_state",
    "commands/schemas.py read_outputs",
}  # fmt: skip
OPENERS = {
    "open", "open_file", "open_to_change", "read_file", "read_text", "read_bytes", "ZipFile",
    "ForeignZip", "open_zip", "open_image", "safe_open",
    "load_file", "load", "memmap", "fromfile", "DictReader",
}  # fmt: skip


# Parsers of what may be foreign, and where alone they are called: elsewhere `budget.parse_json`,
# `zips.ForeignZip` and `lists.read_rows` read the same within bounds.
PARSERS: dict[str, set[str]] = {
    # of what it just wrote, and of lines that were read before
    "json.loads": {
        "training/setup.py",
        "training/resuming.py",
    },
    "json.JSONDecoder": {"files/budget.py", "files/manifests.py"},
    "json.load": set(),
    "zipfile.ZipFile": {"files/zips.py", "sampling/merge.py"},  # which writes
    "tarfile.open": {"pictures/archives.py", "sampling/merge.py"},
    "csv.reader": {"files/lists.py"},
    "csv.DictReader": {"training/runs.py"},
    "torch.load": {"checkpoints/pickles.py"},
    "pickle.load": {
        "sampling/drawing/worker.py",
        "sampling/drawing/workers.py",
    },  # pipes between its processes
    "pickle.loads": set(),
    "np.load": set(),
    "ast.literal_eval": {"checkpoints/flags/pasted_settings.py"},
    "Image.open": {"files/opening.py"},
    "safetensors.safe_open": {"checkpoints/header.py"},  # headers alone
}


def test_no_reader_has_a_parser_of_its_own() -> None:
    """A new reader has the bounds of the others for nothing."""
    root = Path(adm_cli.__file__).parent
    found: dict[str, set[str]] = {name: set() for name in PARSERS}
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                name = f"{node.value.id}.{node.attr}"
                if name in found:
                    found[name].add(path.relative_to(root).as_posix())
    assert found == PARSERS


def test_no_reader_takes_all_that_comes() -> None:
    """A file is read as far as a limit says, and a text becomes a key by `budget.whole_text`."""
    root = Path(adm_cli.__file__).parent
    # its own files
    of_the_package = {"reports/gallery/page.py", "classes/imagenet.py", "commands/schemas.py"}
    for path in root.rglob("*.py"):
        name = path.relative_to(root).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.DictComp) and isinstance(node.key, ast.Call):
                assert getattr(node.key.func, "id", "") != "int", f"{name}: {ast.unparse(node)}"
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            whole = node.func.attr in ("read_bytes", "read_text", "readlines")
            alone = node.func.attr == "read" and not node.args and not node.keywords
            of_a_file = getattr(node.func.value, "id", "") in ("file", "opened", "raw", "source")
            if (whole and node.args) or (whole and name in of_the_package):
                continue
            assert not whole, f"{name}: {ast.unparse(node)}"
            assert not (alone and of_a_file), f"{name}: {ast.unparse(node)}"


def functions(tree: ast.AST, inside: str = "") -> list[tuple[str, ast.AST]]:
    found: list[tuple[str, ast.AST]] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            name = f"{inside}{node.name}"
            found += [(name, node)] if isinstance(node, ast.FunctionDef) else []
            found += functions(node, f"{name}.") if isinstance(node, ast.ClassDef) else []
    return found


def opens(function: ast.AST) -> bool:
    """Whether it reads by a call of one of these; a mode "w" or "a" is for writing."""
    for node in ast.walk(function):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        owner = getattr(getattr(node.func, "value", None), "id", "")
        modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
        modes += [k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)]
        if name in OPENERS and owner not in ("os", "self", "writer") and not {"w", "ab"} & {*modes}:
            return True
    return False


def test_every_reader() -> None:
    """A new one is a row of READERS, with its cases in the files that it names."""
    root = Path(adm_cli.__file__).parent
    found = {
        f"{path.relative_to(root).as_posix()} {name}"
        for path in root.rglob("*.py")
        for name, function in functions(ast.parse(path.read_text()))
        if opens(function)
    }
    assert found == set(READERS) | OTHERS
    for tests in READERS.values():
        for name in tests.split(", "):
            assert Path(__file__).with_name(f"{name}.py").is_file(), name
