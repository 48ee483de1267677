"""Pickles that would run code, in every wrapping torch has had, through `adm convert` and others.

Each would make the file ``canary``: it must never appear.
"""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import Toys
from tests.hostile.sandbox import Arguments, in_groups, refused, slug
from tests.hostile.test_weights import FLAGS

TOUCH = "touch canary"
PYTHON = "open('canary', 'w').close()"


def text(value: str) -> bytes:
    """Pushes a string (BINUNICODE)."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def by_global(module: str, name: str, *arguments: bytes) -> bytes:
    """Calls module.name, found by GLOBAL."""
    found = f"c{module}\n{name}\n".encode()
    return b"\x80\x02" + found + b"(" + b"".join(arguments) + b"tR."


def by_stack_global(module: str, name: str, *arguments: bytes) -> bytes:
    found = text(module) + text(name) + b"\x93"
    return b"\x80\x04" + found + b"(" + b"".join(arguments) + b"tR."


CALLS: dict[str, tuple[str, str, tuple[bytes, ...]]] = {
    "os.system": ("os", "system", (text(TOUCH),)),
    "posix.system": ("posix", "system", (text(TOUCH),)),
    "nt.system": ("nt", "system", (text(TOUCH),)),
    "os.popen": ("os", "popen", (text(TOUCH),)),
    "os.execlp": ("os", "execlp", (text("touch"), text("touch"), text("canary"))),
    "os.putenv": ("os", "putenv", (text("LD_PRELOAD"), text("x.so"))),
    "subprocess.Popen": ("subprocess", "Popen", (b"]" + text("touch") + b"a",)),
    "subprocess.getoutput": ("subprocess", "getoutput", (text(TOUCH),)),
    "exec": ("builtins", "exec", (text(PYTHON),)),
    "eval": ("builtins", "eval", (text(PYTHON),)),
    "__builtin__.eval": ("__builtin__", "eval", (text(PYTHON),)),
    "open": ("builtins", "open", (text("canary"), text("w"))),
    "io.open": ("_io", "open", (text("canary"), text("w"))),
    "FileIO": ("_io", "FileIO", (text("canary"), text("w"))),
    "__import__": ("builtins", "__import__", (text("os"),)),
    "getattr": ("builtins", "getattr", (text("x"), text("__class__"))),
    "compile": ("builtins", "compile", (text(PYTHON), text("x"), text("exec"))),
    "breakpoint": ("builtins", "breakpoint", ()),
    "runpy": ("runpy", "run_path", (text("x.pt"),)),
    "importlib": ("importlib", "import_module", (text("os"),)),
    "timeit": ("timeit", "timeit", (text(PYTHON),)),
    "pty": ("pty", "spawn", (text("touch canary"),)),
    "bdb": ("bdb", "Bdb", ()),
    "code": ("code", "InteractiveInterpreter", ()),
    "operator": ("operator", "methodcaller", (text("system"), text(TOUCH))),
    "partial": ("functools", "partial", (b"cos\nsystem\n", text(TOUCH))),
    "shutil": ("shutil", "rmtree", (text("."),)),
    "webbrowser": ("webbrowser", "open", (text("http://127.0.0.1:9"),)),
    "socket": ("socket", "create_connection", (text("127.0.0.1"),)),
    "nested pickle": (
        "pickle", "loads",
        (b"C" + bytes([len(by_global("os", "system", text(TOUCH)))])
         + by_global("os", "system", text(TOUCH)),),
    ),
    "numpy.load": ("numpy", "load", (text("x.pt"),)),
    "numpy scalar": ("numpy.core.multiarray", "scalar", ()),
    "torch.load": ("torch", "load", (text("x.pt"),)),
    "torch from bytes": ("torch.storage", "_load_from_bytes", (b"C\x03abc",)),
    "torch.hub": ("torch.hub", "load", (text("x/y"), text("z"))),
    "torch.jit": ("torch.jit", "load", (text("x.pt"),)),
    "torch.ops": ("torch.ops", "load_library", (text("x.so"),)),
    "a dotted name": ("torch", "os.system", (text(TOUCH),)),
    "a dunder name": ("torch._utils", "__builtins__", ()),
}  # fmt: skip
PICKLES: dict[str, bytes] = {
    **{f"GLOBAL {n}": by_global(m, f, *a) for n, (m, f, a) in CALLS.items()},
    **{f"STACK_GLOBAL {n}": by_stack_global(m, f, *a) for n, (m, f, a) in CALLS.items()},
    "INST": b"\x80\x02(" + text(TOUCH) + b"ios\nsystem\n.",
    "OBJ": b"\x80\x02(cos\nsystem\n" + text(TOUCH) + b"o.",
    "NEWOBJ": b"\x80\x02csubprocess\nPopen\n(" + text("true") + b"t\x81.",
    "NEWOBJ_EX": b"\x80\x04csubprocess\nPopen\n(" + text("true") + b"t}\x92.",
    "BUILD": b"\x80\x02ccollections\nOrderedDict\n)R}" + text("__setstate__") + b"cos\nsystem\nsb.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT2": b"\x80\x02\x83\x01\x00.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "PERSID": b"\x80\x02Pcanary\n.",
    "BINPERSID": b"\x80\x02" + text("canary") + b"Q.",
    "memo": b"\x80\x02cos\nsystem\nq\x000h\x00(" + text(TOUCH) + b"tR.",
    "a lost mark": b"\x80\x02tR.",
    "an empty stack": b"\x80\x02.",
    "an unknown opcode": b"\x80\x02\xff.",
    "no stop": b"\x80\x02}",
    "protocol 255": b"\x80\xff}.",
    "a frame of 2^63": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"}.",
    "a string of 4 GB": b"\x80\x02X\xff\xff\xff\xffabc.",
    "a string of 2^63": b"\x80\x04\x8d" + struct.pack("<Q", 2**63 - 1) + b"abc.",
    "bytes of 2^63": b"\x80\x04\x8e" + struct.pack("<Q", 2**63 - 1) + b"abc.",
    "a bytearray of 2^62": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"abc.",
    "a long of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7fabc.",
    "a memo of 2^31": b"\x80\x02}r\xff\xff\xff\x7fj\xff\xff\xff\x7f.",
    "a million lists": b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b".",
    "a billion laughs": b"\x80\x02]q\x00" + b"".join(
        b"](" + b"h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(60)
    ) + b".",
    "a circle": b"\x80\x02]q\x00h\x00a.",
    "a number": b"\x80\x02K\x01.",
}  # fmt: skip


def in_zip(data: bytes, prefix: str = "archive") -> bytes:
    """As torch.save writes since 1.6."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(f"{prefix}/data.pkl", data)
        file.writestr(f"{prefix}/byteorder", b"little")
        file.writestr(f"{prefix}/data/0", bytes(16))
        file.writestr(f"{prefix}/version", b"3\n")
    return buffer.getvalue()


def legacy(data: bytes) -> bytes:
    """As torch.save wrote before 1.6: magic number, version, system, object, storages."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    heads = (0x1950A86A20F9469CFC6C, 1001, system)
    return b"".join(pickle.dumps(x, protocol=2) for x in heads) + data + pickle.dumps([], 2)


def in_tar(data: bytes) -> bytes:
    """As torch.save wrote before 0.1.10."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


WRAPPINGS: dict[str, Callable[[bytes], bytes]] = {
    "bare": lambda data: data, "zip": in_zip, "legacy": legacy, "tar": in_tar,
}  # fmt: skip


def refused_everywhere(folder: Path, toys: Toys) -> None:
    commands: list[Arguments] = []
    for path in sorted(folder.glob("*.pt")):
        commands += [
            ["convert", path, "--flags", FLAGS, "-o", "converted.safetensors"],
            ["info", path],
            ["sample", "--model", toys.model, "--classifier", path],
        ]
    refused(folder, *commands)
    assert not (folder / "canary").exists()


@pytest.mark.parametrize("names", in_groups(PICKLES, 28), ids=lambda names: slug(names[0]))
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_pickles(folder: Path, toys: Toys, names: list[str], wrapping: str) -> None:
    for i, name in enumerate(names):
        path = folder / f"{i:02d}{slug(name)}.pt"
        path.write_bytes(WRAPPINGS[wrapping](PICKLES[name]))
    refused_everywhere(folder, toys)


def test_the_canary_sings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unpickler that is not careful would have made the file."""
    monkeypatch.chdir(tmp_path)
    for name in ("GLOBAL os.system", "STACK_GLOBAL exec", "GLOBAL nested pickle", "INST", "OBJ"):
        pickle.loads(PICKLES[name])
        (tmp_path / "canary").unlink()


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def rezipped(data: bytes, change: Callable[[str, bytes], tuple[str, bytes] | None],
             method: int = zipfile.ZIP_STORED) -> bytes:  # fmt: skip
    """A zip's members, each changed or left out."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(buffer, "w", method) as new,
    ):
        for name in old.namelist():
            if changed := change(name, old.read(name)):
                new.writestr(*changed)
    return buffer.getvalue()


def flagged(data: bytes, place: int, value: int) -> bytes:
    """A field of every local and central zip header set."""
    changed = bytearray(data)
    for magic, offset in ((b"PK\x03\x04", place), (b"PK\x01\x02", place + 2)):
        start = data.find(magic)
        while start >= 0:
            changed[start + offset] = value
            start = data.find(magic, start + 4)
    return bytes(changed)


class Script(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


def torchscript() -> bytes:
    import warnings

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Script()), buffer)
    return buffer.getvalue()


def bomb(megabytes: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("data.pkl", "data/0"):
            with file.open(f"archive/{name}", "w", force_zip64=True) as member:
                for _ in range(megabytes):
                    member.write(bytes(1 << 20))
        file.writestr("archive/version", b"3\n")
    return buffer.getvalue()


def zips() -> dict[str, bytes]:
    good = saved({"a": torch.arange(4.0)})
    tensor = torch.arange(4.0)
    places = range(0, len(good), max(1, len(good) // 40))
    huge = torch.zeros(1)
    return {
        "TorchScript": torchscript(),
        "a bomb": bomb(400),
        "no data.pkl": rezipped(good, lambda n, d: None if n.endswith("pkl") else (n, d)),
        "no storage": rezipped(good, lambda n, d: None if n.endswith("/0") else (n, d)),
        "a short storage": rezipped(good, lambda n, d: (n, d[:7] if n.endswith("/0") else d)),
        "an empty storage": rezipped(good, lambda n, d: (n, b"" if n.endswith("/0") else d)),
        "a name that climbs": rezipped(good, lambda n, d: (f"../../{n}", d)),
        "an absolute name": rezipped(good, lambda n, d: (f"/tmp/{n}", d)),
        "a name of 60,000": rezipped(good, lambda n, d: (n + "x" * 60_000, d)),
        "another byte order": rezipped(
            good, lambda n, d: (n, b"sideways" if n.endswith("byteorder") else d)),
        "compressed": rezipped(good, lambda n, d: (n, d), zipfile.ZIP_DEFLATED) + b"x" * 70_000,
        "encrypted": flagged(good, 6, 1),
        "an unknown method": flagged(good, 8, 99),
        "wrong sums": flagged(good, 14, 0x77),
        "nested": in_zip(good),
        "a zip in front of nothing": b"PK\x03\x04" + bytes(200),
        "an end alone": b"PK\x05\x06" + bytes(18),
        "4 billion entries": good[:-22] + b"PK\x05\x06" + b"\xff" * 18,
        "a picture": in_zip(b"\x89PNG\r\n\x1a\n"),
        "an optimizer": saved({"state": {}, "param_groups": []}),
        "objects": saved({"a": torch.nn.Linear(1, 1)}),
        "numbers": saved({"a": 1}),
        "a list": saved([tensor]),
        "a tensor": saved(tensor),
        "nothing": saved({}),
        "numbers as names": saved({1: tensor}),
        "whole numbers": saved({"a": torch.arange(4)}),
        "complex": saved({"a": torch.zeros(2, dtype=torch.complex64)}),
        "sparse": saved({"a": torch.eye(3).to_sparse()}),
        "expanded": saved({"a": huge.expand(10**14)}),
        "NaN": saved({"a": torch.tensor([1.0, float("nan")])}),
        "meta": saved({"a": torch.empty(10**12, device="meta")}),
        **{f"cut at {i}": good[:i] for i in places},
        **{f"flip at {i}": good[:i] + bytes([good[i] ^ 0xFF]) + good[i + 1 :] for i in places},
    }  # fmt: skip


def test_zips(folder: Path, toys: Toys) -> None:
    """What torch wrote or might have, none of which is the toy model."""
    for i, (name, data) in enumerate(zips().items()):
        (folder / f"{i:03d}-{slug(name)}.pt").write_bytes(data)
    refused_everywhere(folder, toys)


@pytest.mark.parametrize(
    "start",
    [
        b"<!DOCTYPE html>", b"  <HTML>", b"<?xml?>", b"#!/bin/sh\n", b"\x7fELF", b"MZ", b"%PDF-1.7",
        b"\x1f\x8b\x08", b"7z\xbc\xaf\x27\x1c", b"\xfd7zXZ", b"BZh9", b"\x93NUMPY\x01\0", b"GGUF",
        b"\x89HDF\r\n\x1a\n", b"SQLite format 3\0", b"version https://git-lfs", b"{}", b"null",
    ],
)  # fmt: skip
def test_other_kinds_of_files(folder: Path, toys: Toys, start: bytes) -> None:
    (folder / "x.pt").write_bytes(start + zlib.compress(bytes(3000)))
    refused_everywhere(folder, toys)
