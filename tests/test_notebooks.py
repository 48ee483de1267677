"""The notebooks run from top to bottom, and what is stored in them is small and whole."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 100 * 1024  # bytes of any one output, a picture as text
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def code_cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def run_cell(source: str, names: dict[str, Any], where: str) -> object:
    """Executes a cell as a notebook does; the value of the expression at its end."""
    tree = ast.parse(source, where)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), names)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), where, "eval"), names)


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["guidance", "own_pictures"]


@by_name
def test_the_cells_run_in_order(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    real_plots: None,
    quick_training: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ADM_QUICK", "1")  # the first cell of each says what it does
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = 0
    for i, cell in enumerate(code_cells(path)):
        value = run_cell("".join(cell["source"]), names, f"{path.name}, code cell {i + 1}")
        if hasattr(value, "_repr_png_"):
            shown += bool(value._repr_png_())
    assert shown >= 3


@by_name
def test_notebooks_link_to_files_that_are_there(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", path.read_text())
    assert targets
    for target in targets:
        assert target.startswith("https://") or (path.parent / target).exists(), target


@by_name
def test_stored_outputs_are_small_and_hold_no_error(path: Path) -> None:
    cells = code_cells(path)
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert max(len(json.dumps(output)) for output in outputs) < LARGEST
    kinds = {output["output_type"] for output in outputs}
    assert kinds <= {"stream", "display_data", "execute_result"}
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
