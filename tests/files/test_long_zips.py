"""The reader of zips of millions of files, beside Python's own."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adm_cli.files.budget import TooMuchError
from adm_cli.files.long_zips import LongZip
from tests.hostile.test_fuzz import fuzz

FILES = {"a/1.png": b"x" * 5000, "b.png": b"", "ü/日.txt": bytes(range(256)), "c" * 300: b"1"}


def packed(method: int = zipfile.ZIP_STORED, *, long: bool = False, stream: bool = False) -> bytes:
    class Pipe(io.BytesIO):  # sizes follow the files, as where a zip is written to a pipe
        def seekable(self) -> bool:
            return not stream

    buffer = Pipe()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.mkdir("folder") if hasattr(file, "mkdir") else file.writestr("folder/", b"")
        for name, data in FILES.items():
            with file.open(zipfile.ZipInfo(name), "w", force_zip64=long) as member:
                member.write(data)
        for info in file.infolist():
            info.compress_type = method if info.file_size == 0 else info.compress_type
        file.comment = b"PK\5\6 a remark"[4:]
    return buffer.getvalue()


KINDS = {
    "stored": packed(),
    "64 bits": packed(long=True),
    "a stream": packed(stream=True),
    "behind others": b"#!/bin/sh\n" * 9 + packed(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_as_pythons_own(tmp_path: Path, kind: str) -> None:
    (tmp_path / "x.zip").write_bytes(KINDS[kind])
    found = LongZip(tmp_path / "x.zip")
    assert {name: found.read(i, 10**6) for i, name in enumerate(found.names)} == FILES
    assert [found.size(i) for i in range(4)] == [len(data) for data in FILES.values()]
    assert found.says_utf8 == bytearray([0, 0, 1, 0])
    found.close()


def test_deflated_and_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", bytes(10**6))
        file.writestr("b", b"whole" * 99)
    found = LongZip(path)
    assert found.read(0, 10**6) == bytes(10**6)
    with pytest.raises(TooMuchError, match="over 1,000 bytes"):
        found.read(0, 1000)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") - 4] ^= 1  # of b
    path.write_bytes(data)
    with pytest.raises(zipfile.BadZipFile, match="damaged"):
        LongZip(path).read(1, 10**6)
    with pytest.raises(TooMuchError, match="over 1 files"):
        LongZip(path, 1)


@fuzz
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_a_changed_byte(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    """What Python's own reader reads of it is read alike, or refused."""
    whole = bytearray(KINDS[kind])
    at = data.draw(st.integers(whole.index(b"PK\1\2"), len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "changed.zip"
    path.write_bytes(whole)
    try:
        found = LongZip(path)
        read = {name: found.read(i, 10**6) for i, name in enumerate(found.names)}
    except (zipfile.BadZipFile, ValueError, OSError, OverflowError):
        return
    wrong = (zipfile.BadZipFile, ValueError, NotImplementedError, OSError)
    with suppress(*wrong), zipfile.ZipFile(path) as theirs:
        for name in set(read) & set(theirs.namelist()):
            assert theirs.read(name) == read[name]
