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
# inside a folder.
LAYERS = {
    "": 0,
    "errors": 0,
    "budget": 0,
    "config": 0,
    "presets": 0,
    "imagenet": 0,
    "class_groups": 0,
    "spellings": 0,
    "openai_flags": 0,
    "given_flags": 0,
    "pasted_commands": 0,
    "pasted_settings": 0,
    "devices": 1,
    "models": 1,
    "diffusion": 1,
    "evaluation": 1,
    "storage": 1,
    "loading": 2,
    "batches": 2,
    "sources": 3,
    "defaults": 4,
    "guiding": 3,
    "converting": 3,
    "evaluating": 3,
    "training": 3,
    "pipeline": 5,
    "recipes": 6,
    "doctor": 6,
    "fetching": 6,
    "reports": 6,
    "commands": 7,
    "__main__": 8,
}


def package_files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def part_of(module: str) -> str:
    """ "adm_cli.models.unet" to "models"."""
    return module.split(".")[1] if "." in module else ""


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
    own = path.relative_to(ROOT).with_suffix("").parts[0]
    for module in imports(path):
        other = part_of(module)
        if other == own:
            continue
        below = LAYERS[other] < LAYERS[own] or (LAYERS[other] == LAYERS[own] == 0)
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


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["classes", "retriever"]])
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


def test_the_project_speaks_of_itself_alone() -> None:
    for path in package_files():
        assert not re.search(r"/(work|tmp|farm)/|TODO|FIXME|XXX", path.read_text()), path
