"""Runs whose files are called as another version of adm called them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adm_cli.files.names import file_label
from adm_cli.sampling.choosing.image_names import chosen_class
from adm_cli.sampling.folder import RunFolder
from tests.conftest import Result, Toys, pictures

Run = Callable[..., Result]


@pytest.fixture
def unnamed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From here on, files carry the class's number alone, as they used to; again: their name."""
    label = "adm_cli.sampling.choosing.image_names.file_label"
    plain = False

    def switch() -> None:
        nonlocal plain
        plain = not plain
        chosen_class.cache_clear()
        monkeypatch.setattr(label, (lambda _name: "") if plain else file_label)

    return switch


def test_a_run_goes_on_under_its_own_names(
    draw: Run, adm: Run, toys: Toys, unnamed: Callable[[], None]
) -> None:
    unnamed()
    assert draw("--class", "0", "--seeds", "0-3", "--shard", "1/2", "--out", "o").code == 0
    unnamed()
    shard = draw("--class", "0", "--seeds", "0-3", "--shard", "2/2", "--out", "o")
    assert shard.out.split() == [f"o/class0000_seed00000{i}.png" for i in (1, 3)], shard.err
    planned = draw("--class", "0,3", "--seeds", "0-3", "--out", "o", "--dry-run")
    assert "to_draw        4" in planned.out
    more = draw("--class", "0,3", "--seeds", "0-3", "--out", "o", "--grid")
    assert "8 images in" in more.err
    assert "(4 were there)" in more.err
    names = [f"class000{c}_seed00000{s}.png" for c in (0, 3) for s in range(4)]
    assert pictures("o") == [*names, "grid.png"]
    Path("o", names[0]).unlink()
    mended = ("verify", "o", "--repair", "--model", toys.model, "--classifier", toys.classifier)
    assert adm(*mended).code == 0
    assert RunFolder(Path("o")).has(names[0])
    anew = draw("--class", "0", "--seeds", "0-3", "--out", "o", "--overwrite")
    assert anew.code == 0, anew.err
    assert pictures("o") == [f"0000_circle_seed00000{s}.png" for s in range(4)]


def test_a_stack_and_a_sweep_go_on_under_their_own_names(
    draw: Run, adm: Run, toys: Toys, unnamed: Callable[[], None]
) -> None:
    stack = ("--class", "3", "--upsampler", "bicubic", "--keep-base", "--out", "o")
    sweep = ("sweep", "--model", toys.model, "--classifier", toys.classifier, "--steps", 2,
             "--class", "3", "--device", "cpu", "--out", "s")  # fmt: skip
    unnamed()
    assert draw(*stack, "--seeds", "0").code == 0
    assert adm(*sweep, "--seeds", "0", "--scale", "1").code == 0
    unnamed()
    assert draw(*stack, "--seeds", "0,1").code == 0
    assert pictures("o/base") == [f"class0003_seed00000{s}.png" for s in range(2)]
    assert adm(*sweep, "--seeds", "0,1", "--scale", "1,2").code == 0
    first, second = (pictures(path) for path in sorted(Path("s").iterdir()) if path.is_dir())
    assert first == [f"class0003_seed00000{s}.png" for s in range(2)]
    assert second == [f"0003_star_seed00000{s}.png" for s in range(2)]
