"""`adm fetch`: from a server or folder to models that `adm sample` takes by name."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import pytest
import torch

from adm_cli.checkpoints import (
    converting,
    downloads,
    fetching,
    finding,
    loading,
    presets,
    sources,
)
from adm_cli.checkpoints.downloads import Listener, RetryPolicy
from adm_cli.checkpoints.fetched import FetchOptions, read_pin
from adm_cli.checkpoints.fetching import find_items, wanted
from adm_cli.checkpoints.header import read_model_file, verify_content
from adm_cli.checkpoints.loading import build_model, expected_shapes
from adm_cli.checkpoints.presets import CHECKPOINTS, Checkpoint, Preset, PublishedFile
from adm_cli.commands import console
from adm_cli.commands import models as models_command
from adm_cli.commands.progress import Progress
from adm_cli.events import Transfer
from adm_cli.sampling.recipes import recorded
from tests.commands.conftest import terminal
from tests.conftest import DEEP_CLASSIFIER as TOY_CLASSIFIER
from tests.conftest import DEEP_UNET as TOY_UNET
from tests.conftest import TOY_DIFFUSION, Result, randomise
from tests.http_server import Request, Server, good, says, serving

Run = Callable[..., Result]

TOY = Checkpoint(name="toy", config=TOY_UNET, diffusion=TOY_DIFFUSION, parameters=355_462)
GUIDE = Checkpoint(
    name="toy_guide",
    config=TOY_CLASSIFIER,
    diffusion=TOY_DIFFUSION,
    parameters=sum(math.prod(shape) for shape in expected_shapes(TOY_CLASSIFIER).values()),
)
PRESET = Preset(name="toy-preset", model="toy", classifier="toy_guide", steps="5", scale=2.0)
INCEPTION = PublishedFile(
    name="inception",
    url="https://example.org/weights/pt_inception.pth",
    file_bytes=5000,
    sha256=hashlib.sha256(bytes(5000)).hexdigest(),
    terms="of its own",
)


@dataclass
class Site:
    """A publisher's server, and where what is fetched goes."""

    server: Server
    files: dict[str, bytes]
    home: Path

    @property
    def models(self) -> list[str]:
        return names(self.home / "models")

    @property
    def downloads(self) -> list[str]:
        return names(self.home / "downloads")

    def folder(self) -> Path:
        """The files as a mirror on this machine."""
        folder = self.home.parent / "mirror"
        folder.mkdir(exist_ok=True)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def original(config: Any, seed: int = 0, **options: Any) -> bytes:
    """A random model as the original would have saved it."""
    file = io.BytesIO()
    torch.save(randomise(build_model(config), seed).state_dict(), file, **options)
    return file.getvalue()


@pytest.fixture(scope="session")
def originals() -> dict[str, bytes]:
    return {"toy.pt": original(TOY_UNET), "toy_guide.pt": original(TOY_CLASSIFIER, seed=1)}


@pytest.fixture
def site(
    adm: Run, tmp_path: Path, originals: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    """The toys are published, on a server of this machine, and nothing else is."""
    files = originals | {"pt_inception.pth": bytes(5000)}
    rows = (replace(CHECKPOINTS[0]), replace(TOY), replace(GUIDE))
    for module in (
        presets,
        finding,
        loading,
        converting,
        fetching,
        sources,
        recorded,
        models_command,
    ):
        for name, value in (("CHECKPOINTS", rows), ("PRESETS", (PRESET,))):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    monkeypatch.delenv("ADM_OFFLINE", raising=False)

    def answer(request: Request) -> None:
        name = request.path.partition("?")[0].removeprefix("/")
        if name in files:
            good(files[name])(request)
        else:
            says("404 Not Found")(request)

    with serving(answer) as server:
        monkeypatch.setattr(fetching, "ORIGINALS", server.url())
        monkeypatch.setattr(
            fetching, "INCEPTION", replace(INCEPTION, url=server.url("/pt_inception.pth"))
        )
        yield Site(server, files, tmp_path / "home")


def publish(monkeypatch: pytest.MonkeyPatch, **facts: Any) -> None:
    """What is known of the toy's original."""
    rows = (replace(TOY, **facts), GUIDE)
    for module in (presets, finding, loading, converting, fetching):
        if hasattr(module, "CHECKPOINTS"):
            monkeypatch.setattr(module, "CHECKPOINTS", rows)


def refused(done: Result, code: int, *words: str) -> None:
    assert (done.code, done.out) == (code, "")
    last = done.err.splitlines()[-1]
    assert last.startswith("adm: error: ")
    assert all(word in last for word in words), last


# ---------------------------------------------------------------- the way it should be


def test_sample_fetches_what_is_missing(
    adm: Run, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("sample", "--model", "toy-preset", "--class", "0", "--num", 1, "--out", "o")
    refused(adm(*asked, "--fetch", "--dry-run"), 1, "adm fetch toy-preset")
    monkeypatch.setenv("ADM_OFFLINE", "1")
    refused(adm(*asked, "--fetch"), 1, "ADM_OFFLINE is set, and toy.pt, toy_guide.pt")
    assert site.models == []
    monkeypatch.delenv("ADM_OFFLINE")
    done = adm(*asked, "--fetch")
    assert done.code == 0, done.err
    assert site.models == ["toy.safetensors", "toy_guide.safetensors"]
    assert done.out.splitlines() == ["o/class0000_seed000000.png"]
    asked_for = len(site.server.requests)
    assert adm(*asked, "--fetch").code == 0  # nothing is fetched again
    assert len(site.server.requests) == asked_for


def test_a_classifier_that_guides_nothing_is_not_fetched(adm: Run, site: Site) -> None:
    done = adm(
        "sample", "--model", "toy-preset", "--class", "0", "--num", 1, "--scale", 0, "--fetch"
    )
    assert done.code == 0, done.err
    assert site.models == ["toy.safetensors"]


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("\n", 1), ("", 1)])
def test_a_person_is_asked(
    adm: Run, site: Site, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    class Keyboard(io.StringIO):
        def isatty(self) -> bool:
            return True

    asked = ("sample", "--model", "toy", "--class", "0", "--num", 1, "--steps", "2", "--out", "o")
    monkeypatch.setattr("sys.stdin", Keyboard("y\n"))
    assert adm(*asked).code == 1  # nobody is asked in a pipe
    monkeypatch.setattr(console, "on_terminal", lambda: True)
    monkeypatch.setattr(console, "err", terminal())
    monkeypatch.setattr("sys.stdin", Keyboard(answer))
    assert adm(*asked, "--quiet").code == 1
    done = adm(*asked)
    assert done.code == code, done.err
    assert "fetch them now, and go on? [y/N]" in done.err
    assert site.models == ([] if code else ["toy.safetensors", "toy_guide.safetensors"])


def test_from_nothing_to_samples(adm: Run, site: Site) -> None:
    """One command by the preset's name, and `adm sample` finds all it needs."""
    missing = adm("sample", "--model", "toy-preset", "--class", "0")
    refused(missing, 1, "adm fetch toy-preset brings toy and toy_guide (2.1 MB)", "research only")
    done = adm("fetch", "toy-preset")
    assert done.code == 0, done.err
    assert done.out.split() == [
        str(site.home / "models" / f"{name}.safetensors") for name in ("toy", "toy_guide")
    ]
    assert done.err.count("research only") == 1  # terms are told once
    assert "toy: verified by crc32 of its parts, names, shapes\n" in done.err
    assert site.models == ["toy.safetensors", "toy_guide.safetensors"]
    assert site.downloads == []
    file = read_model_file(site.home / "models" / "toy.safetensors")
    verify_content(file)
    sha = hashlib.sha256(site.files["toy.pt"]).hexdigest()
    assert file.info.source == {"file": "toy.pt", "sha256": sha, "checkpoint": "toy"}
    pin = read_pin("toy")
    assert pin is not None
    assert (pin.sha256, pin.bytes) == (sha, len(site.files["toy.pt"]))
    assert pin.source == site.server.url("/toy.pt")
    drawn = adm("sample", "--model", "toy-preset", "--class", "0", "--num", "2")
    assert drawn.code == 0, drawn.err
    assert len(drawn.out.split()) == 2
    assert '"present": true' in adm("models", "--json").out


def test_what_is_here_is_not_fetched_again(adm: Run, site: Site) -> None:
    assert adm("fetch", "toy").code == 0
    site.server.forget()
    done = adm("fetch", "toy", "toy", "toy-preset")
    assert done.code == 0
    assert "adm: toy is here already\n" in done.err
    assert len(done.out.split()) == 2  # each once
    assert [request.path for request in site.server.requests] == ["/toy_guide.pt"]
    site.server.forget()
    assert adm("fetch", "toy", "--overwrite").code == 0
    assert [request.path for request in site.server.requests] == ["/toy.pt"]


def test_json_and_quiet(adm: Run, site: Site) -> None:
    done = adm("fetch", "all", "--json", "--quiet")
    assert done.err == ""
    rows = [json.loads(line) for line in done.out.splitlines()]
    data = site.files["toy.pt"]
    assert rows[0] == {
        "name": "toy",
        "path": str(site.home / "models" / "toy.safetensors"),
        "was_here": False,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "verified": "crc32 of its parts, names, shapes",
    }
    again = json.loads(adm("fetch", "toy", "--json").out)
    assert (again["was_here"], again["verified"]) == (True, None)


def test_dry_run(adm: Run, site: Site) -> None:
    assert adm("fetch", "toy").code == 0
    site.server.forget()
    done = adm("fetch", "toy-preset", "inception", "--dry-run")
    lines = done.out.splitlines()
    assert lines[0].split() == ["toy", "is", "here", site.server.url("/toy.pt")]
    assert lines[1].split() == ["toy_guide", "0.00", "GB", site.server.url("/toy_guide.pt")]
    assert "GB are free" in lines[3]
    assert lines[4:] == [presets.TERMS, "of its own"]
    *rows, total = map(
        json.loads, adm("fetch", "toy-preset", "--dry-run", "--json").out.splitlines()
    )
    assert [(row["name"], row["present"]) for row in rows] == [("toy", True), ("toy_guide", False)]
    assert total["needed_bytes"] == 2 * 4 * GUIDE.parameters
    assert total["terms"] == [presets.TERMS]
    assert not site.server.requests


def test_a_later_process_goes_on(adm: Run, site: Site) -> None:
    """What the first one left is not fetched again, and the dry run knows of it."""
    size = len(site.files["toy.pt"])
    site.server.script += [good(site.files["toy.pt"], cut=1_200_000)]
    site.server.script += [says("404 Not Found")]
    failed = adm("fetch", "toy")
    refused(failed, 1, "404 Not Found", "1,200,000 bytes that are here stay for the next try")
    assert "connection was cut; trying again in 1 s" in failed.err
    assert site.models == []
    told = json.loads(adm("fetch", "toy", "--dry-run", "--json").out.splitlines()[0])
    assert told["partly_here"] == 1_200_000
    site.server.forget()
    assert adm("fetch", "toy").code == 0
    assert site.server.ranges == [(1_200_000, None)]
    assert site.server.sent == size - 1_200_000
    assert site.downloads == []


def test_the_old_format(adm: Run, site: Site) -> None:
    """It has no checksums of its own: names and shapes must do."""
    site.files["toy.pt"] = original(TOY_UNET, _use_new_zipfile_serialization=False)
    done = adm("fetch", "toy")
    assert done.code == 0, done.err
    assert "toy: verified by names, shapes\n" in done.err
    verify_content(read_model_file(site.home / "models" / "toy.safetensors"))


def test_inception_stays_as_it_is(adm: Run, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    place = site.home / "inception" / "pt_inception-2015-12-05-6726825d.pth"
    done = adm("fetch", "inception")
    assert (done.code, done.out) == (0, f"{place}\n"), done.err
    assert "adm: of its own\n" in done.err
    assert "verified by sha256 as published" in done.err
    assert place.read_bytes() == bytes(5000)
    assert site.downloads == []
    place.write_bytes(bytes(4999) + b"x")
    done = adm("fetch", "inception")
    assert "is refused: its SHA-256 is" in done.err
    assert place.read_bytes() == bytes(5000)
    site.server.forget()
    assert "is here already" in adm("fetch", "inception").err
    assert not site.server.requests
    place.unlink()
    assert adm("fetch", "inception", "--from", site.folder()).code == 0
    assert place.read_bytes() == bytes(5000)


# ---------------------------------------------------------------- what is known of a file


@pytest.mark.parametrize("known", ["sha256", "md5"])
def test_published_hashes(
    adm: Run, site: Site, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    data = site.files["toy.pt"]
    digest = hashlib.new(known, data).hexdigest()
    publish(monkeypatch, file_bytes=len(data), **{known: digest})
    site.files["toy.pt"] = data[:-1] + b"x"
    refused(adm("fetch", "toy"), 1, f"expected {digest[:12]}... (as published)", "toy.pt.refused")
    assert (site.models, site.downloads) == ([], ["toy.pt.refused"])
    site.files["toy.pt"] = data + b"x"
    refused(adm("fetch", "toy"), 1, f"has {len(data) + 1:,} bytes, expected {len(data):,}")
    site.files["toy.pt"] = data
    done = adm("fetch", "toy")
    assert f"verified by {known} as published" in done.err
    assert (site.models, site.downloads) == (["toy.safetensors"], [])


def test_the_servers_own_hash(adm: Run, site: Site) -> None:
    """Azure sends one with every file."""
    data = site.files["toy.pt"]
    md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
    site.server.script.append(good(data[:-1] + b"x", md5=md5))
    refused(adm("fetch", "toy"), 1, hashlib.md5(data).hexdigest()[:12], "as the server itself says")
    site.server.script.append(good(data, md5=md5))
    assert "verified by md5 as the server says, names, shapes" in adm("fetch", "toy").err


def test_the_first_hash_is_remembered(adm: Run, site: Site) -> None:
    """Another file under the same name is refused until it is wanted."""
    data, other = site.files["toy.pt"], original(TOY_UNET, seed=5)
    assert adm("fetch", "toy").code == 0
    (site.home / "models" / "toy.safetensors").unlink()
    site.files["toy.pt"] = other
    old, new = (hashlib.sha256(d).hexdigest() for d in (data, other))
    refused(adm("fetch", "toy"), 1, old[:12], new[:12], "as fetched", "--accept-changed")
    refused(adm("fetch", "toy", "--from", site.folder()), 1, old[:12], new[:12], "--accept-changed")
    assert (site.models, site.downloads) == ([], ["toy.pt.refused"])
    site.server.forget()
    assert adm("fetch", "toy", "--accept-changed").code == 0
    assert not site.server.requests  # the file that was refused is the one that is taken
    pin = read_pin("toy")
    assert pin is not None
    assert pin.sha256 == new
    assert site.downloads == []
    assert adm("fetch", "toy", "--overwrite").code == 0


def test_a_damaged_record_of_the_first_hash(adm: Run, site: Site) -> None:
    (site.home / "fetched").mkdir(parents=True)
    record = site.home / "fetched" / "toy.json"
    for text in ("", "{}", "[]", '{"sha256": "x", "bytes": "y"}'):
        record.write_text(text)
        refused(adm("fetch", "toy"), 1, f"{record} is damaged", "remove it")
    record.unlink()
    assert adm("fetch", "toy").code == 0


def test_wrong_tensors(adm: Run, site: Site) -> None:
    """Of the right size, but of another model: kept aside, and the next try is free."""
    data = site.files["toy.pt"]
    state = torch.load(io.BytesIO(data), weights_only=True)
    state["input_blocks.9.9.weight"] = state.pop("out.2.weight")
    wrong = io.BytesIO()
    torch.save(state, wrong)
    site.files["toy.pt"] = wrong.getvalue()
    refused(adm("fetch", "toy"), 1, "missing: out.2.weight", "toy.pt.refused")
    assert (site.models, site.downloads) == ([], ["toy.pt.refused"])
    assert read_pin("toy") is None
    site.files["toy.pt"] = data
    assert adm("fetch", "toy").code == 0
    assert site.downloads == []


def test_flipped_bits_where_no_hash_is_known(adm: Run, site: Site) -> None:
    """The parts of a `.pt` carry checksums of their own."""
    data = site.files["toy.pt"]
    for at in range(100_000, len(data) - 100_000, len(data) // 8):
        site.files["toy.pt"] = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
        refused(adm("fetch", "toy"), 1, "is damaged", "toy.pt.refused")
        assert site.models == []
        assert read_pin("toy") is None


def test_pickles_are_not_run(adm: Run, site: Site) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (Path("canary"),))

    file = io.BytesIO()
    torch.save({"a": Attack(), "pad": torch.zeros(TOY.parameters + 10_000)}, file)
    site.files["toy.pt"] = file.getvalue()
    refused(adm("fetch", "toy"), 1, "holds more than tensors", "toy.pt.refused")
    assert not Path("canary").exists()


def test_estimated_sizes_hold_what_is_known() -> None:
    """Bytes for a tensor: 160 in the old format, 224 as published, 243 by torch of today."""
    items = find_items(["all", "256x256_diffusion"])
    assert len(items) == 15
    for item in items:
        assert item.row is not None
        rough = wanted(replace(item, row=replace(item.row, file_bytes=None)), FetchOptions())
        tensors = (rough.largest - rough.smallest) // 300
        assert 200 < tensors < 700
        for each in (160, 243):
            rough.check_size(item.file, 4 * item.row.parameters + each * tensors)
        if item.row.file_bytes is not None:
            rough.check_size(item.file, item.row.file_bytes)
        assert rough.url.endswith(f"/jul-2021/{item.name}.pt")
    exact = wanted(items[5], FetchOptions())
    assert (exact.smallest, exact.largest) == (2_211_383_297, 2_211_383_297)
    assert [known.algorithm for known in exact.known] == ["sha256", "md5"]


# ---------------------------------------------------------------- mirrors, offline, kept files


def test_from_a_folder(adm: Run, site: Site) -> None:
    """Nothing is asked of a network, nothing is copied, nothing of the folder is touched."""
    folder = site.folder()
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    done = adm("fetch", "toy-preset", "--from", folder)
    assert done.code == 0, done.err
    assert not site.server.requests
    assert before == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}
    assert (site.models, site.downloads) == (["toy.safetensors", "toy_guide.safetensors"], [])
    (folder / "toy.pt").unlink()
    refused(adm("fetch", "toy", "--from", folder, "--overwrite"), 1, " has no toy.pt")
    (folder / "toy.pt").write_bytes(b"short")
    refused(adm("fetch", "toy", "--from", folder, "--overwrite"), 1, "it has 5 bytes, expected")
    assert (folder / "toy.pt").read_bytes() == b"short"
    assert site.models == ["toy.safetensors", "toy_guide.safetensors"]


@pytest.mark.parametrize("base", ["", "/", "?token=a/b&c=d"])
def test_from_a_mirror(adm: Run, site: Site, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "ORIGINALS", "http://127.0.0.1:1")
    done = adm("fetch", "toy", "--from", site.server.url() + base)
    assert done.code == 0, done.err
    query = base.partition("?")[2]
    assert site.server.requests[0].path == "/toy.pt" + (f"?{query}" if query else "")
    assert "token" not in done.err + (site.home / "fetched" / "toy.json").read_text()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere", "is not there, expected a folder or an https:// URL"),
        ("file.pt", "is a file, expected a folder"),
        ("ftp://example.org/x", "expected a folder or an https:// URL"),
        ("https://", "expected a folder or an https:// URL"),
        ("http://[::1", "expected a folder or an https:// URL"),
    ],
)
def test_impossible_sources(adm: Run, site: Site, source: str, words: str) -> None:
    Path("file.pt").touch()
    refused(adm("fetch", "toy", "--from", source), 2, words)


def test_offline(adm: Run, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADM_OFFLINE", "1")
    refused(adm("fetch", "toy-preset"), 1, "ADM_OFFLINE is set, and toy.pt, toy_guide.pt must be")
    refused(adm("fetch", "toy", "--from", site.server.url()), 1, "ADM_OFFLINE is set")
    assert adm("fetch", "toy", "--from", site.folder()).code == 0
    assert adm("fetch", "toy").code == 0  # it is here
    with (site.home / "models" / "toy.safetensors").open("r+b") as file:
        file.seek(100_000)
        file.write(b"damage")
    refused(adm("fetch", "toy"), 1, "ADM_OFFLINE is set, and toy.pt must be downloaded")
    assert not site.server.requests
    monkeypatch.setenv("ADM_OFFLINE", "0")
    assert adm("fetch", "toy").code == 0


def test_offline_for_once(adm: Run, site: Site) -> None:
    refused(adm("fetch", "toy", "--offline"), 1, "--offline was passed, and toy.pt must be downl")
    assert adm("fetch", "toy", "--offline", "--from", site.folder()).code == 0
    assert adm("fetch", "toy", "--offline").code == 0  # it is here
    assert not site.server.requests


def test_a_name_that_does_not_resolve(
    adm: Run, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, without the retries that a broken line deserves."""

    def not_found(*args: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    waits = SimpleNamespace(sleep=lambda seconds: pytest.fail("it waits"))
    monkeypatch.setattr(downloads, "time", waits)
    monkeypatch.setattr(socket, "getaddrinfo", not_found)
    done = adm("fetch", "toy", "--from", "http://no.such.example/files")
    refused(done, 1, "no server no.such.example was found (Name or service not known)")


def test_originals_that_are_kept(adm: Run, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """They serve the next time, without a network, as long as they are whole."""
    assert adm("fetch", "toy", "--keep-original").code == 0
    kept = site.home / "downloads" / "toy.pt"
    assert kept.read_bytes() == site.files["toy.pt"]
    site.server.forget()
    monkeypatch.setenv("ADM_OFFLINE", "1")
    for options in (("--keep-original",), ("--from", kept.parent)):
        (site.home / "models" / "toy.safetensors").unlink()
        assert adm("fetch", "toy", *options).code == 0
        assert kept.is_file()
    monkeypatch.delenv("ADM_OFFLINE")
    assert not site.server.requests
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    done = adm("fetch", "toy", "--overwrite")
    assert done.code == 0
    assert "toy.pt is refused: its SHA-256 is" in done.err
    assert len(site.server.requests) == 1
    assert site.downloads == []


def test_a_damaged_model_is_replaced(adm: Run, site: Site) -> None:
    """Only when the new one is whole."""
    assert adm("fetch", "toy").code == 0
    path = site.home / "models" / "toy.safetensors"
    whole = path.read_bytes()
    damaged = whole[:-1] + bytes([whole[-1] ^ 1])
    path.write_bytes(damaged)
    site.server.script.append(says("404 Not Found"))
    done = adm("fetch", "toy")
    refused(done, 1, "404 Not Found")
    assert "toy.safetensors is damaged" in done.err
    assert path.read_bytes() == damaged
    assert adm("fetch", "toy").code == 0
    assert path.read_bytes() == whole


# ---------------------------------------------------------------- wrong words, full disks, Ctrl-C


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["toi-preset"], "nothing is published as 'toi-preset'; did you mean toy-preset"),
        (["al"], "did you mean all"),
        (["tiny"], "tiny ships with adm: there is nothing to fetch"),
        ([], "adm fetch needs NAMES"),
        (["toy", "--retries", "-1"], "--retries"),
        (["toy", "--timeout", "0"], "--timeout"),
        (["toy", "--timeout", "nan"], "--timeout"),
        (["toy", "--timeout", "inf"], "--timeout must be a number of seconds, at least 1, got inf"),
    ],
)
def test_wrong_usage(adm: Run, site: Site, arguments: list[str], words: str) -> None:
    refused(adm("fetch", *arguments), 2, words)
    assert not site.server.requests


def test_too_small_a_disk(adm: Run, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told before anything is asked for."""
    monkeypatch.setattr(fetching, "free_disk", lambda folder: 3_000_000)
    refused(adm("fetch", "toy-preset"), 1, "MB are needed in", "make room", "ADM_HOME")
    assert not site.server.requests
    assert adm("fetch", "toy").code == 0


def test_disk_full_while_converting(adm: Run, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The download stays, and needs no network the next time."""
    sync = os.fsync

    def full(handle: int) -> None:
        if list(site.home.glob("models/.adm-*")):  # it is the conversion that is being written
            raise OSError(28, os.strerror(28))
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    refused(adm("fetch", "toy"), 1, "the disk is full; make room and run the same command again")
    assert (site.models, site.downloads) == ([], ["toy.pt"])
    monkeypatch.setattr(os, "fsync", sync)
    site.server.forget()
    assert adm("fetch", "toy").code == 0
    assert not site.server.requests
    assert site.downloads == []


def test_a_home_that_cannot_be_written(
    adm: Run, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there is found all the same: models may be shared."""
    assert adm("fetch", "toy").code == 0

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    assert "is here already" in adm("fetch", "toy").err
    refused(adm("fetch", "toy", "--overwrite"), 1, "choose a folder you may write to")


def test_a_home_that_is_a_file(adm: Run, site: Site) -> None:
    site.home.touch()
    refused(adm("fetch", "toy"), 1, "choose another place")


def test_interrupted(adm: Run, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    show = Progress.__call__

    def stop(self: Progress, event: object) -> None:
        show(self, event)
        if isinstance(event, Transfer) and event.here >= 1 << 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "__call__", stop)
    site.server.script.append(good(site.files["toy.pt"], cut=1_200_000))
    done = adm("fetch", "toy")
    assert done.code == 130
    note, last = done.err.splitlines()[-2:]
    assert "bytes of toy are kept: the same command goes on there" in note
    assert last == "adm: interrupted"
    monkeypatch.setattr(Progress, "__call__", show)
    site.server.forget()
    assert adm("fetch", "toy").code == 0
    assert site.server.ranges[0] is not None
    assert site.server.ranges[0][0] >= 1 << 20


def test_leftovers_of_killed_processes(adm: Run, site: Site) -> None:
    """Old ones go; a young one may be another's."""
    models = site.home / "models"
    for name, age in ((".adm-old.scratch", 90_000), (".adm-new.scratch", 60)):
        (models / name).mkdir(parents=True)
        (models / name / "toy.safetensors").touch()
        os.utime(models / name, (time.time() - age, time.time() - age))
    assert adm("fetch", "toy").code == 0
    assert site.models == [".adm-new.scratch", "toy.safetensors"]


# ---------------------------------------------------------------- two shells, eight shells


@pytest.mark.parametrize("locks", [True, False])
def test_eight_at_once(site: Site, monkeypatch: pytest.MonkeyPatch, locks: bool) -> None:
    """One good file and nothing else; with locks it is also fetched only once."""
    if not locks:
        monkeypatch.setattr(filelock.FileLock, "acquire", lambda self, **_: None)
    (item,) = find_items(["toy"])
    notes: list[str] = []
    outcomes: list[bool | str] = []

    def one() -> None:
        try:
            how = FetchOptions(patience=RetryPolicy(timeout=20, retries=20, pause=0.01))
            outcomes.append(fetching.fetch_item(item, how, Listener(tell=notes.append)).was_here)
        except Exception as error:
            outcomes.append(repr(error))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 8
    assert set(outcomes) <= {True, False}, outcomes
    verify_content(read_model_file(item.place))
    assert (site.models, site.downloads) == (["toy.safetensors"], [])
    if locks:
        assert outcomes.count(False) == 1
        assert len(site.server.requests) == 1
        assert any("another adm is fetching toy.pt: waiting for it" in note for note in notes)


# ---------------------------------------------------------------- what a person sees


def test_names_of_presets_and_checkpoints() -> None:
    assert [
        item.name for item in find_items(["imagenet256", "256x256_classifier", "lsun-cat"])
    ] == [
        "256x256_diffusion",
        "256x256_classifier",
        "lsun_cat",
    ]
    assert find_items(["inception"])[0].url.startswith("https://github.com/mseitzer/pytorch-fid/")
