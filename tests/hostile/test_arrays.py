"""Hostile npz, through every command that takes one: as samples, as reference, as pictures."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adm_cli.reports.measure
from adm_cli.checkpoints.presets import INCEPTION
from adm_cli.evaluation.inception import Features
from tests.conftest import Toys
from tests.hostile.files import npy, npz, patched_headers, zeros_in_zip
from tests.hostile.sandbox import Arguments, harmless, in_groups, refused, slug
from tests.hostile.test_pickles import PICKLES

COUNT = 8
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
RAW = PIXELS.tobytes()
GOOD = npy(RAW)
WHOLE = npz(("arr_0.npy", GOOD))
DEFLATED = npz(("arr_0.npy", GOOD), method=zipfile.ZIP_DEFLATED)
CALL = b"__import__('os').system('touch canary')"
UNPICKLED = PICKLES["GLOBAL os.system"]


def saved(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def of(array: bytes) -> bytes:
    return npz(("arr_0.npy", array))


def deflated(array: bytes) -> bytes:
    return npz(("arr_0.npy", array), method=zipfile.ZIP_DEFLATED)


HEADERS: dict[str, bytes] = {
    "no header": b"",
    "magic alone": b"\x93NUMPY",
    "another magic": b"\x93NUMPI\x01\0" + GOOD[8:],
    "version 0": npy(RAW, version=0),
    "version 3": npy(RAW, version=3),
    "version 255": npy(RAW, version=255),
    "code": npy(RAW, header=CALL),
    "code as shape": npy(
        RAW, header=b"{'descr': '|u1', 'fortran_order': False, 'shape': " + CALL + b"}"),
    "code as type": npy(
        RAW, header=b"{'descr': " + CALL + b", 'fortran_order': False, 'shape': (8,)}"),
    "a sum as shape": npy(
        RAW, header=b"{'descr': '|u1', 'fortran_order': False, 'shape': (9**9**9,)}"),
    "a text times a billion": npy(
        RAW, header=b"{'descr': '|u1'*10**9, 'fortran_order': False, 'shape': (8,)}"),
    "deep brackets": npy(RAW, header=b"(" * 9000),
    "deep minus": npy(RAW, header=b"-" * 9000 + b"1"),
    "a header of 60,000": npy(RAW, header=b" " * 60_000 + b"{}"),
    "a header of 1 MB": npy(RAW, header=b" " * 10**6 + b"{}", version=2),
    "length 0": npy(RAW, length=0),
    "length 65,535": npy(RAW, length=65535),
    "length 4 GB": npy(RAW, length=2**32 - 1, version=2),
    "binary": npy(RAW, header=bytes(range(256))),
    "NUL bytes": npy(RAW, header=bytes(118)),
    "no keys": npy(RAW, header=b"{}"),
    "a key more": npy(
        RAW, header=b"{'descr': '|u1', 'fortran_order': False, 'shape': (8, 8, 8, 3), 'x': 1}"),
    "a list": npy(RAW, header=b"['descr', 'fortran_order', 'shape']"),
    "shape negative": npy(RAW, shape=(-8, -8, 8, 3)),
    "shape negative, one": npy(RAW, shape=(-1536,)),
    "shape 10^9": npy(RAW, shape=(10**9, 64, 64, 3)),
    "shape 2^64": npy(RAW, shape=(2**64, 8, 8, 3)),
    "shape overflows to its size": npy(RAW, shape=(2**61 + 8, 8, 8, 3)),
    "shape of 9,000 digits": npy(RAW, header=b"{'descr': '|u1', 'fortran_order': False, 'shape': ("
                                 + b"9" * 9000 + b",)}"),
    "shape a list": npy(RAW, shape=[8, 8, 8, 3]),
    "shape a number": npy(RAW, shape=1536),
    "shape text": npy(RAW, shape="8"),
    "shape floats": npy(RAW, shape=(8.0, 8.0, 8.0, 3.0)),
    "shape truths": npy(bytes([7, 7, 7]), shape=(True, True, True, 3)),
    "shape empty": npy(b"\0", shape=()),
    "shape of none": npy(b"", shape=(0, 8, 8, 3)),
    "shape of no width": npy(b"", shape=(8, 8, 0, 3)),
    "3,000 dimensions": npy(b"\0", shape=(1,) * 3000),
    "more than it has": npy(RAW, shape=(9, 8, 8, 3)),
    "less than it has": npy(RAW, shape=(7, 8, 8, 3)),
    "data behind": npy(RAW + b"more"),
    "data missing": npy(RAW[:-1]),
    "columns": npy(RAW, fortran=True),
    "columns a number": npy(RAW, fortran=1),
    "columns text": npy(RAW, fortran="no"),
    "objects": npy(UNPICKLED, descr="|O", shape=(1, 8, 8, 3)),
    "objects, one": npy(UNPICKLED, descr="|O", shape=()),
    "objects in a structure": npy(UNPICKLED, descr=[("a", "|O")], shape=(1,)),
    "a structure": npy(RAW, descr=[("r", "|u1"), ("g", "|u1"), ("b", "|u1")], shape=(8, 8, 8)),
    "a structure that clears": npy(RAW, descr=[("\x1b[2J", "|u1")], shape=(8, 8, 8, 3)),
    "a deep structure": npy(RAW, header=b"{'descr': " + b"[('a'," * 400 + b"'|u1'" + b")]" * 400
                            + b", 'fortran_order': False, 'shape': (8,)}"),
    "an unknown type": npy(RAW, descr="|z9"),
    "a type of 2 GB": npy(RAW, descr="|V2147483647", shape=(1,)),
    "a type of nothing": npy(b"", descr="|V0", shape=(8, 8, 8, 3)),
    "nothing, 10^15 times": npy(b"", descr="|V0", shape=(10**15, 8, 8, 3)),
    "a text of nothing": npy(b"", descr="<U0", shape=(10**15,)),
    "code as a type's name": npy(RAW, descr="os.system"),
    "a number as type": npy(RAW, descr=7),
    "none as type": npy(RAW, descr=None),
    "signed": npy(RAW, descr="|i1"),
    "truths": npy(RAW, descr="|b1"),
    "big-endian": npy(RAW, descr=">u2", shape=(4, 8, 8, 3)),
    "floats": saved(arr_0=PIXELS.astype(np.float32)),
    "not numbers": saved(arr_0=np.full((8, 8, 8, 3), np.nan)),
    "complex": saved(arr_0=PIXELS.astype(np.complex64)),
    "text": saved(arr_0=np.array(["x" * 64] * 8)),
    "times": saved(arr_0=PIXELS.astype("datetime64[s]")),
    "grey": saved(arr_0=PIXELS[..., 0]),
    "RGBA": npy(RAW, shape=(6, 8, 8, 4)),
    "channels first": saved(arr_0=np.ascontiguousarray(PIXELS.transpose(0, 3, 1, 2))),
    "one picture": saved(arr_0=PIXELS[0]),
    "a number": saved(arr_0=np.uint8(7)),
    "another name": saved(images=PIXELS),
}  # fmt: skip
CENTRAL = WHOLE.find(b"PK\x01\x02")
ARCHIVES: dict[str, bytes] = {
    "nothing": b"",
    "text": b"no archive",
    "an array": GOOD,
    "a pickle": pickle.dumps([1]),
    "code": UNPICKLED,
    "empty": npz(),
    "an end alone": b"PK\x05\x06" + bytes(18),
    "4 billion entries": WHOLE[:-22] + b"PK\x05\x06" + b"\xff" * 18,
    "twice": npz(("arr_0.npy", GOOD), ("arr_0.npy", GOOD)),
    "twice, one of objects": npz(("arr_0.npy", GOOD), ("arr_0.npy", HEADERS["objects"])),
    "no ending, no array": npz(("arr_0", b"text")),
    "with and without ending": npz(("arr_0", GOOD), ("arr_0.npy", GOOD)),
    "a folder": npz(("arr_0.npy/", b"")),
    "climbs": npz(("../arr_0.npy", GOOD)),
    "climbs further": npz(("../../../../tmp/arr_0.npy", GOOD)),
    "absolute": npz(("/tmp/arr_0.npy", GOOD)),
    "a name that clears": npz(("\x1b[2Jarr_0.npy", GOOD)),
    "a name of markup": npz(("[red]arr_0[/red][link=file:///etc/passwd].npy", GOOD)),
    "a name of two lines": npz(("a\nadm: all is well\n.npy", GOOD)),
    "a name of 60,000": npz(("x" * 60_000 + ".npy", GOOD)),
    "encrypted": patched_headers(WHOLE, 6, b"\x01"),
    "an unknown method": patched_headers(WHOLE, 8, b"\x63"),
    "stored, said to be deflated": patched_headers(WHOLE, 8, b"\x08"),
    "deflated, said to be stored": patched_headers(DEFLATED, 8, b"\0"),
    "deflated, said to be LZMA": patched_headers(DEFLATED, 8, b"\x0e"),
    "deflated, said to be bzip2": patched_headers(DEFLATED, 8, b"\x0c"),
    "wrong sum": patched_headers(WHOLE, 14, b"wron"),
    "wrong sum, deflated": patched_headers(DEFLATED, 14, b"wron"),
    "says 4 GB": patched_headers(WHOLE, 22, b"\xfe\xff\xff\xff"),
    "says 4 GB, deflated": patched_headers(DEFLATED, 22, b"\xfe\xff\xff\xff"),
    "says 4 GB compressed": patched_headers(WHOLE, 18, b"\xfe\xff\xff\xff"),
    "says nothing": patched_headers(WHOLE, 22, bytes(4)),
    "local and central names differ": WHOLE.replace(b"arr_0", b"arr_9", 1),
    "begins past the end": WHOLE[:CENTRAL + 42] + struct.pack("<I", 10**9) + WHOLE[CENTRAL + 46 :],
    "extra field past the end": WHOLE[:28] + b"\xff\xff" + WHOLE[30:],
    "deflated junk": DEFLATED[:120] + b"\xff" * 60 + DEFLATED[180:],
    "a byte changed": WHOLE[:700] + bytes([WHOLE[700] ^ 1]) + WHOLE[701:],
    "an array of zeros, 800 MB": zeros_in_zip("arr_0.npy", npy(shape=(800 << 20,)), 800),
    "one picture of 768 MB": zeros_in_zip("arr_0.npy", npy(shape=(1, 2**14, 2**14, 3)), 768),
    "a header of 800 MB": zeros_in_zip("arr_0.npy", npy(header=b"", length=800 << 20, version=2),
                                       800),
    "50,000 entries": npz(*((f"{i}.npy", b"") for i in range(50_000))),
    **{f"cut at {i}": WHOLE[:i] for i in range(1, len(WHOLE), 41)},
    **{f"deflated, cut at {i}": DEFLATED[:i] for i in range(1, len(DEFLATED), 97)},
}  # fmt: skip
INPUTS = {
    **{name: data if data[:2] == b"PK" else of(data) for name, data in HEADERS.items()},
    **{f"{name}, deflated": deflated(data) for name, data in HEADERS.items() if data[:2] != b"PK"},
    **ARCHIVES,
}


@pytest.mark.parametrize("names", in_groups(INPUTS, 40), ids=lambda names: slug(names[0]))
def test_pictures(folder: Path, toys: Toys, names: list[str]) -> None:
    (folder / "good.npz").write_bytes(WHOLE)
    features = ["--features", toys.classifier, "--device", "cpu", "--quiet"]
    commands: list[Arguments] = []
    for i, name in enumerate(names):
        path = folder / f"{i}.npz"
        path.write_bytes(INPUTS[name])
        commands += [
            ["evaluate", path, "--ref", "good.npz", *features],
            ["upsample", path, "--model", toys.upsampler, "--dry-run"],
        ]
        if not name.endswith("deflated") and "cut at" not in name:
            commands.append(["evaluate", "good.npz", "--ref", path, *features])
        if i % 8 == 0:  # which opens it as they do
            commands.append(["reference", path, "-o", "ref.safetensors", *features])
    refused(folder, *commands)
    assert not (folder / "canary").exists()


OTHERS: dict[str, bytes] = {
    "labels short": saved(arr_0=PIXELS, arr_1=np.arange(7)),
    "labels floats": saved(arr_0=PIXELS, arr_1=np.arange(8.0)),
    "labels negative": npz(("arr_0.npy", GOOD), ("arr_1.npy", npy(bytes(64), "<i8", (-8,)))),
    "labels objects": npz(("arr_0.npy", GOOD), ("arr_1.npy", npy(UNPICKLED, "|O", (8,)))),
    "labels 10^9": npz(("arr_0.npy", GOOD), ("arr_1.npy", npy(bytes(8), "<i8", (10**9,)))),
    "labels cut": npz(("arr_0.npy", GOOD), ("arr_1.npy", b"\x93NUM")),
    "labels of 400 MB": zeros_in_zip("arr_1.npy", npy(descr="<i8", shape=(50 << 20,)), 400),
    "seeds text": saved(arr_0=PIXELS, seeds=np.array(["x"] * 8)),
    "seeds twice": npz(("arr_0.npy", GOOD), *[("seeds.npy", npy(bytes(64), "<u8", (8,)))] * 2),
    "recipe objects": npz(("arr_0.npy", GOOD), ("adm.npy", npy(UNPICKLED, "|O", ()))),
    "recipe of 1 GB": npz(("arr_0.npy", GOOD), ("adm.npy", npy(b"", "<U268435456", ()))),
}  # fmt: skip


def test_labels_and_seeds(folder: Path, toys: Toys) -> None:
    commands: list[Arguments] = []
    for i, data in enumerate(OTHERS.values()):
        (folder / f"{i}.npz").write_bytes(data)
        commands.append(["upsample", f"{i}.npz", "--model", toys.upsampler, "--dry-run"])
    refused(folder, *commands)
    assert not (folder / "canary").exists()


def test_what_is_passed_over(folder: Path, toys: Toys) -> None:
    """Strangers beside the pictures, recipes that say nothing, and picture bombs of few bytes."""
    texts = ("\x1b[2J", "{", "[" * 10**5, '{"seed": ' + "9" * 5000 + "}")
    inputs = [saved(arr_0=PIXELS, adm=np.array(text)) for text in texts]
    inputs += [
        npz(("arr_0.npy", GOOD), ("../../canary.npy", GOOD), ("x.npy", npy(UNPICKLED, "|O", ()))),
        WHOLE[:22] + b"\xff\xff\xff\x7f" + WHOLE[26:],  # sizes count that are in the directory
        zeros_in_zip("arr_0.npy", npy(shape=(1 << 14, 8, 8, 3)), 3),
    ]
    for i, data in enumerate(inputs):
        (folder / f"{i}.npz").write_bytes(data)
    harmless(
        folder,
        *(["upsample", f"{i}.npz", "--model", toys.upsampler, "--dry-run"]
          for i in range(len(inputs))),
    )  # fmt: skip
    assert sorted(p.name for p in folder.parent.iterdir()) == ["inside", "precious.txt"]


class Four(torch.nn.Module):
    """A network of four features: Inception's statistics are checked the same way."""

    def forward(self, x: torch.Tensor) -> Features:
        y = x.float().flatten(1)[:, :4] / 255
        return Features(y, y, y)


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        adm_cli.reports.measure, "load_inception", lambda *a, **k: (Four(), INCEPTION.sha256)
    )
    monkeypatch.setattr(adm_cli.reports.measure, "POOL_DIM", 4)
    monkeypatch.setattr(adm_cli.reports.measure, "SPATIAL_DIM", 4)


MU, SIGMA = np.zeros(4), np.eye(4)


def statistics(mu: Any = MU, sigma: Any = SIGMA, **more: Any) -> bytes:
    return saved(arr_0=PIXELS, mu=mu, sigma=sigma, **more)


def at(value: float, *place: Any, of: Any = SIGMA) -> Any:
    changed = of.copy()
    changed[place] = value
    return changed


STATISTICS: dict[str, bytes] = {
    "mu not a number": statistics(at(np.nan, 1, of=MU)),
    "mu infinite": statistics(at(np.inf, 1, of=MU)),
    "mu 1e300": statistics(at(1e300, 1, of=MU)),
    "mu short": statistics(np.zeros(3)),
    "mu of another network": statistics(np.zeros(5), np.eye(5)),
    "mu empty": statistics(np.zeros(0), np.zeros((0, 0))),
    "mu a number": statistics(np.float64(1)),
    "mu a matrix": statistics(np.zeros((4, 4))),
    "mu negative shape": npz(("arr_0.npy", GOOD), ("mu.npy", npy(bytes(32), "<f8", (-4,))),
                             ("sigma.npy", npy(bytes(128), "<f8", (4, 4)))),
    "mu objects": statistics(np.array([{}] * 4)),
    "mu whole numbers": statistics(np.zeros(4, int)),
    "mu complex": statistics(np.zeros(4, complex)),
    "mu text": statistics(np.array(["1"] * 4)),
    "mu 9,000": statistics(np.zeros(9000), np.zeros((1, 1))),
    "sigma not a number": statistics(sigma=at(np.nan, 0, 1)),
    "sigma infinite": statistics(sigma=at(-np.inf, 2, 2)),
    "sigma 1e300": statistics(sigma=1e300 * SIGMA),
    "sigma not symmetric": statistics(sigma=at(0.5, 0, 1)),
    "sigma of a negative variance": statistics(sigma=at(-1.0, 0, 0)),
    "sigma of negative eigenvalues": statistics(sigma=at(3.0, [0, 1], [1, 0])),
    "sigma all negative": statistics(sigma=-SIGMA),
    "sigma not square": statistics(sigma=np.zeros((4, 5))),
    "sigma a vector": statistics(sigma=MU),
    "sigma negative shape": npz(("arr_0.npy", GOOD), ("mu.npy", npy(bytes(32), "<f8", (4,))),
                                ("sigma.npy", npy(bytes(128), "<f8", (-4, -4)))),
    "sigma columns": npz(("arr_0.npy", GOOD), ("mu.npy", npy(bytes(32), "<f8", (4,))),
                         ("sigma.npy", npy(bytes(128), "<f8", (4, 4), fortran=True))),
    "sigma of 500 MB": npz(("arr_0.npy", GOOD), ("mu.npy", npy(bytes(32), "<f8", (4,))),
                           ("sigma.npy", npy(b"", "<f8", (8192, 8192)))),
    "sigma alone": saved(arr_0=PIXELS, sigma=SIGMA),
    "mu alone": saved(arr_0=PIXELS, mu=MU),
    "mu twice": npz(("arr_0.npy", GOOD), *[("mu.npy", npy(bytes(32), "<f8", (4,)))] * 2,
                    ("sigma.npy", npy(bytes(128), "<f8", (4, 4)))),
    "spatial half": statistics(mu_s=MU),
    "spatial short": statistics(mu_s=np.zeros(2), sigma_s=np.eye(2)),
    "spatial not numbers": statistics(mu_s=np.full(4, np.nan), sigma_s=SIGMA),
    "spatial negative": statistics(mu_s=MU, sigma_s=-SIGMA),
    "statistics without pictures": saved(mu=MU, sigma=SIGMA),
}  # fmt: skip


def test_statistics(folder: Path, four: None) -> None:
    (folder / "good.npz").write_bytes(WHOLE)
    (folder / "whole.npz").write_bytes(statistics(mu_s=MU, sigma_s=SIGMA))
    commands: list[Arguments] = []
    for i, data in enumerate(STATISTICS.values()):
        (folder / f"{i}.npz").write_bytes(data)
        commands.append(["evaluate", "good.npz", "--ref", f"{i}.npz", "--metrics", "fid,sfid",
                         "--quiet"])  # fmt: skip
    refused(folder, *commands)
    (done,) = harmless(folder, ["evaluate", "good.npz", "--ref", "whole.npz", "--quiet"])
    assert done.code == 0, done
