"""The rules of the house: layers, public names, quick start, and a README that tells the truth."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import adm_cli
from adm_cli.commands.main import app

ROOT = Path(adm_cli.__file__).parent
PROJECT = Path(__file__).parent.parent

# A file imports only from lower layers; files and folders of the same layer do not meet, except
# inside a folder, whose files stand on one layer but for those named here.
LAYERS = {
    "": 0,
    "errors": 0,
    "events": 0,
    "config": 0,
    "classes": 0,
    "checkpoints.flags": 0,
    "checkpoints.presets": 0,
    "files.budget": 0,  # what reading may cost
    "files.strict": 0,  # how settings are read
    "diffusion.modifiers": 0,  # settings
    "devices": 1,
    "models": 1,
    "diffusion": 1,
    "evaluation": 1,
    "files": 1,
    "checkpoints": 2,
    "pictures": 3,
    "training": 4,
    "reports.gallery": 4,
    "sampling": 5,
    "doctor": 6,
    "reports": 6,
    # A sweep is also measured, and verified as runs are.
    "sampling.sweeps.sweep": 7,
    "sampling.sweeps.cells": 7,
    "commands": 8,
    "__main__": 9,
}


def package_files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def part_of(module: str) -> str:
    """ "adm_cli.models.unet" to "models"; to a file's own name where it has its own layer."""
    parts = module.split(".")[1:]
    names = (".".join(parts[:n]) for n in (3, 2))
    return next((name for name in names if name in LAYERS), "".join(parts[:1]))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module in ("adm_cli", "adm_cli.commands"):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {
                    n
                    if (ROOT.parent / n.replace(".", "/")).with_suffix(".py").is_file()
                    else node.module
                    for n in names
                }
            else:
                found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"
    return {name for name in found if name.split(".")[0] == "adm_cli"}


@pytest.mark.parametrize("path", package_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_layers(path: Path) -> None:
    if path == ROOT / "__init__.py":
        return  # names its exports for type checkers; loads them late
    own = part_of(".".join(("adm_cli", *path.relative_to(ROOT).with_suffix("").parts)))
    for module in imports(path):
        other = part_of(module)
        alike = LAYERS[other] == LAYERS[own]
        same_folder = other.partition(".")[0] == own.partition(".")[0]
        below = LAYERS[other] < LAYERS[own] or (alike and (same_folder or LAYERS[own] == 0))
        assert below, f"{own} (layer {LAYERS[own]}) imports {module} (layer {LAYERS[other]})"


def test_mathematics_knows_no_models_paths_or_terminal() -> None:
    for path in [*(ROOT / "diffusion").glob("*.py"), *(ROOT / "evaluation").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [a.name for a in node.names] + [getattr(node, "module", "") or ""]
                assert not {"pathlib", "os", "rich", "typer"} & set(names), path


def test_the_terminal_is_only_in_commands() -> None:
    for path in package_files():
        if path.parent.name == "commands":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("print", "input"), f"{path}:{node.lineno}"


def test_every_public_name_is_there_and_documented() -> None:
    assert sorted(adm_cli.__all__) == adm_cli.__all__
    for name in adm_cli.__all__:
        value = getattr(adm_cli, name)
        assert name == "__version__" or value.__doc__, name
    assert set(adm_cli.__all__) <= set(dir(adm_cli))
    with pytest.raises(AttributeError, match="no attribute 'surprise'"):
        _ = adm_cli.surprise


def test_public_functions_are_documented() -> None:
    for path in package_files():
        for node in ast.parse(path.read_text()).body:
            public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_"
            if public and isinstance(node, ast.FunctionDef) and node.end_lineno:
                short = node.end_lineno - node.lineno <= 12  # its name and body say it all
                assert short or ast.get_docstring(node), f"{path}: {node.name}"


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["classes", "retriever"], ["help", "--json"], ["models"]],
)
def test_quick_commands_do_not_load_torch(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom adm_cli.commands.main import run\n"
        f"code = run({arguments!r})\nassert code == 0, code\n"
        "heavy = {'torch', 'numpy', 'PIL', 'safetensors', 'requests'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def fenced_commands(path: Path) -> list[str]:
    """The adm commands in a document's code blocks, continuation lines joined."""
    commands = []
    for block in re.findall(r"```(?:bash|console|sh)\n(.*?)```", path.read_text(), re.S):
        for line in block.replace("\\\n", " ").splitlines():
            for piece in re.split(r"&&|\||;", line.split(" #")[0]):
                if piece.strip().startswith("adm "):
                    commands.append(piece.strip())
    return commands


DOCUMENTS = [
    PROJECT / "README.md",
    PROJECT / "SECURITY.md",
    *sorted((PROJECT / "docs").glob("*.md")),
    *sorted((PROJECT / "examples").glob("*.md")),
]


@pytest.mark.parametrize("path", [p for p in DOCUMENTS if p.is_file()], ids=lambda p: p.name)
def test_documented_commands_parse(path: Path) -> None:
    """Every adm command of a document names a real command and real options."""
    import typer.main

    group = typer.main.get_command(app)
    commands = fenced_commands(path)
    assert commands or path != PROJECT / "README.md"
    for text in commands:
        words = shlex.split(text.split(">")[0])[1:]
        if words[0].startswith("-"):
            continue
        command = group.commands[words[0]]  # type: ignore[attr-defined]
        context = command.make_context(f"adm {words[0]}", words[1:], resilient_parsing=False)
        assert context.params is not None


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_documents_link_to_files_that_are_there(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_every_threat_is_shown_by_a_test() -> None:
    table = [row for row in (PROJECT / "SECURITY.md").read_text().split("\n") if row[:1] == "|"]
    assert len(table) > 15
    for row in table[2:]:
        shown = re.findall(r"\]\((tests/[\w/]+\.py)\)", row.rsplit("|", 2)[1])
        assert shown, row
        assert all("def test_" in (PROJECT / path).read_text() for path in shown), row


def test_the_project_speaks_of_itself_alone() -> None:
    for path in package_files():
        assert not re.search(r"/(work|tmp|farm)/|TODO|FIXME|XXX", path.read_text()), path


# Kept by tests: what is left of each is listed, and may only become less.


def functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def test_no_circle_of_files() -> None:
    """Not even one that only type checkers see."""
    modules = {".".join(("adm_cli", *p.relative_to(ROOT).with_suffix("").parts)): p
               for p in package_files() if p.name != "__init__.py"}  # fmt: skip
    graph = {name: imported_files(path, set(modules)) - {name} for name, path in modules.items()}
    while leaves := [name for name, inner in graph.items() if not inner]:
        for name in leaves:
            del graph[name]
        for inner in graph.values():
            inner.difference_update(leaves)
    above = set(graph)  # those of a circle, and those that import one
    circle = {name for name in above if any(name in graph[other] for other in above)}
    assert not circle


def imported_files(path: Path, modules: set[str]) -> set[str]:
    """The files that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names} & modules
            found |= names or {node.module} & modules
    return found


def test_a_command_imports_no_other() -> None:
    """None but `main` imports a file that holds a command; what several share has its own."""
    main = (ROOT / "commands/main.py").read_text()
    commands = set(re.findall(r'app\.command\("[\w-]+"\)\((?:\w+\()*(\w+)\.', main))
    assert {"sample", "train", "help"} <= commands
    for path in (ROOT / "commands").glob("*.py"):
        modules = imported_files(path, {f"adm_cli.commands.{name}" for name in commands})
        assert path.stem == "main" or not modules, (path, modules)


def test_the_top_of_the_package_shows_the_nouns_of_the_field() -> None:
    """A new file goes into a room, of which there are a dozen; a new room into one of these."""
    files = {path.stem for path in ROOT.glob("*.py")}
    assert files == {"__init__", "__main__", "config", "devices", "errors", "events"}
    rooms = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()}
    assert len(rooms) <= 12
    tests = {path.name for path in (PROJECT / "tests").iterdir() if path.is_dir()}
    assert tests - {"faults", "golden", "hostile", "__pycache__"} == rooms  # laid out alike


def test_functions_import_little_of_the_package() -> None:
    """A command, which must be quick to start, imports in its function; hardly anything else."""
    count = sum(
        isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "adm_cli"
        for path in package_files()
        for function in functions(ast.parse(path.read_text()))
        for node in ast.walk(function)
    )
    assert count <= 50


def test_a_public_name_means_one_thing() -> None:
    """Functions of commands have the names of what they call."""
    places: dict[str, int] = {}
    for path in package_files():
        for node in ast.parse(path.read_text()).body:
            if path.parent.name != "commands" and (name := public_name(node)):
                places[name] = places.get(name, 0) + 1
    assert not {name for name, count in places.items() if count > 1}


def public_name(node: ast.stmt) -> str | None:
    """Of a function, a class, or another name of a type."""
    name = None
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        name = node.name
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
        name = None if name.isupper() or not name[0].isupper() else name
    return None if name is None or name.startswith("_") else name


# Beside functions that take the options of a command, and samplers, which all take the same.
MANY_PARAMETERS = {
    ("diffusion/losses", "training_loss"),
    ("reports/classifier", "guesses"),
    ("reports/likelihood", "likelihoods"),
    ("sampling/drawing/pipeline", "_sample_batch"),
}
SAMPLER_FILES = {"diffusion/samplers", "diffusion/multistep", "diffusion/steps"}
OPTIONS = {"bench", "sample", "edit", "interpolate", "upsample", "sweep", "verify", "repro",
           "convert", "fetch", "evaluate", "nll", "reference", "evaluate_classifier", "plan_nll",
           "plan_reference", "plan_conversion"}  # fmt: skip


def test_files_and_functions_stay_short() -> None:
    """At most 400 lines a file, 60 a function's body, 8 parameters."""
    for path in package_files():
        text, name = path.read_text(), path.relative_to(ROOT).with_suffix("").as_posix()
        assert len(text.splitlines()) <= 400, name
        for function in functions(ast.parse(text)):
            assert function.end_lineno is not None
            body = function.end_lineno - function.body[0].lineno + 1
            assert body <= 60, (name, function.name)
            given = function.args
            count = len(given.args) + len(given.kwonlyargs)
            count -= bool(given.args) and given.args[0].arg in ("self", "cls")
            free = function.name in OPTIONS or name in SAMPLER_FILES
            listed = (name, function.name) in MANY_PARAMETERS
            assert count <= 8 or free or listed, (name, function.name)


def test_nobody_below_commands_knows_the_terminal_or_signals() -> None:
    for path in package_files():
        if path.parent.name == "commands" or path.name in ("__main__.py", "interrupts.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"rich", "typer", "signal"} & {n.split(".")[0] for n in names}, path
