"""That the fault tests fail where they should: commands that are made wrong on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from adm_cli.errors import OutputError
from adm_cli.files.disk import explain_os_error, write_files
from adm_cli.sampling import merge
from adm_cli.sampling.drawing.writer import ImageWriter, _encoded
from tests.conftest import Toys
from tests.faults.test_every_operation import Points
from tests.faults.writing import commands


@contextmanager
def written_in_place(path: Path) -> Iterator[IO[bytes]]:
    try:
        with open(path, "wb") as file:
            yield file
    except OSError as error:
        raise OutputError(explain_os_error(f"cannot write {path}", error)) from error


def lines_first(self: ImageWriter, images: Any) -> None:
    """Manifest lines before the images that they vouch for."""
    files = [(i.image.file, _encoded(i)) for i in images]
    self._manifest.append([self._record(i, f[1]) for i, f in zip(images, files, strict=True)])
    write_files(self.run.path, files, self._prefix)


def found(points: Points) -> str:
    with pytest.raises(AssertionError) as caught:
        points.all()
    return str(caught.value)


def test_a_file_written_in_place_is_found(
    toys: Toys, original: bytes, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "atomic_write", written_in_place)
    row = commands(toys, original)["merge --overwrite"]
    assert "o.tar is neither old nor new" in found(Points(place, row))


def test_a_line_before_its_image_is_found(
    toys: Toys, original: bytes, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageWriter, "_write", lines_first)
    row = commands(toys, original)["sample"]
    assert "is vouched for and is not there" in found(Points(place, row))


@contextmanager
def unforeseen(path: Path) -> Iterator[IO[bytes]]:
    try:
        with open(path, "wb") as file:
            yield file
    except OSError as error:
        raise RuntimeError("no error of this program") from error


def test_an_error_that_nobody_foresaw_is_found(
    toys: Toys, original: bytes, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "atomic_write", unforeseen)
    row = commands(toys, original)["merge zip"]
    with pytest.raises(RuntimeError, match="no error of this program"):
        Points(place, row).all()


def test_what_is_left_behind_is_found(
    toys: Toys, original: bytes, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "unlink", lambda *_arguments, **_options: None)
    row = commands(toys, original)["merge zip"]
    assert ".tmp" in found(Points(place, row))
