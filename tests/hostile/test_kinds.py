"""A good file of each kind, its bytes changed, repeated or cut off: read, or refused in a line."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adm_cli.checkpoints.flags.plain_yaml import parse_yaml
from adm_cli.checkpoints.format import load_original
from adm_cli.checkpoints.header import read_model_file
from adm_cli.errors import AdmError
from adm_cli.files.lists import read_rows
from adm_cli.files.manifests import parse_line, render_line
from adm_cli.pictures.archives import open_source
from adm_cli.pictures.decode import decode_picture
from adm_cli.pictures.npz import read_image_arrays
from adm_cli.sampling.run import read_run
from tests.hostile.files import entry, npy, npz, safetensors
from tests.hostile.test_budgets import colliding
from tests.hostile.test_fuzz import fuzz
from tests.hostile.test_pickles import in_zip
from tests.hostile.test_runs import run_of


def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((9, 7)).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


def tar(form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        info = tarfile.TarInfo("ä" * 120 + ".png")
        info.size = 5
        file.addfile(info, io.BytesIO(b"bytes"))
    return buffer.getvalue()[:4096]


def from_arrays(path: Path) -> None:
    arrays = read_image_arrays(path)
    arrays.images.close()


PICTURES = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
Reader = Callable[[Path], object]
KINDS: dict[str, tuple[str, bytes, Reader]] = {
    **{
        kind: ("x.img", picture(kind), lambda path: decode_picture(path.read_bytes(), "x"))
        for kind in PICTURES
    },
    "tar of GNU": ("x.tar", tar(tarfile.GNU_FORMAT), open_source),
    "tar of PAX": ("x.tar", tar(tarfile.PAX_FORMAT), open_source),
    "zip": ("x.zip", npz(("a/0.png", b"bytes"), ("b", b"")), open_source),
    "npz": ("x.npz", npz(("arr_0.npy", npy(bytes(192), shape=(1, 8, 8, 3)))), from_arrays),
    "npy": ("x.npy", npy(bytes(192), shape=(1, 8, 8, 3)), from_arrays),
    "safetensors": ("x.safetensors", safetensors({"a": entry()}, bytes(16)), read_model_file),
    "pickle": ("x.pt", in_zip(colliding(3)), load_original),
    "run": ("run.json", run_of({"file": "seed0.png", "class": None, "seed": 0}), read_run),
    "line": (
        "x",
        render_line({"file": "a.png", "bytes": 1, "sha256": "0"}),
        lambda path: parse_line(path.read_bytes()),
    ),
    "table": ("x", b"file,label\na.png,1\nb.png,2\n", lambda path: read_rows(path.read_bytes())),
    "yaml": (
        "x",
        b"model:\n  sizes: [1, 2]\n  name: 'a'\n",
        lambda path: parse_yaml(path.read_text("latin-1")),
    ),
}


def test_good_ones_are_read(tmp_path: Path) -> None:
    for kind, (name, data, read) in KINDS.items():
        (tmp_path / name).write_bytes(data)
        if kind != "safetensors":  # which are nobody's weights
            read(tmp_path / name)


@pytest.mark.parametrize("kind", KINDS)
@fuzz
@given(st.data())
def test_changed(tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject) -> None:
    name, good, read = KINDS[kind]
    changed = bytearray(good)
    for _ in range(data.draw(st.integers(0, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    at = data.draw(st.integers(0, len(changed)))
    changed[at:at] = changed[:at] * data.draw(st.sampled_from([0, 0, 0, 1, 50]))
    del changed[data.draw(st.integers(0, len(changed)) | st.just(len(changed))) :]
    folder = tmp_path_factory.getbasetemp() / "kinds"  # not above other tests' folders: a run.json
    folder.mkdir(exist_ok=True)  # would make that a run's
    path = folder / name
    path.write_bytes(changed)
    with suppress(AdmError, ValueError, OSError):  # what every caller of these tells in a line
        read(path)
