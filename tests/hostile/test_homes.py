"""Hostile files where the program keeps its own: what was fetched, what is on its way, models."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adm_cli.checkpoints import fetching
from adm_cli.checkpoints.fetched import FetchOptions
from adm_cli.checkpoints.partial import PIECE, Version, find_partial
from adm_cli.checkpoints.presets import CHECKPOINTS, INCEPTION
from tests.hostile.files import safetensors
from tests.hostile.sandbox import Arguments, harmless, in_groups, listing, refused, slug
from tests.hostile.test_weights import HEADERS

FILE = INCEPTION.url.rpartition("/")[2]
PUBLISHED = [row.name for row in CHECKPOINTS if not row.embedded]
UNKNOWN = [row.name for row in CHECKPOINTS if not row.embedded and not row.sha256]
NOWHERE: Arguments = ["--from", "http://127.0.0.1:9", "--retries", 0, "--quiet"]
DEEP = "[" * 10**5


@pytest.fixture
def home(folder: Path) -> Path:
    """ADM_HOME of the commands."""
    for name in ("fetched", "downloads", "inception", "models"):
        (folder / "home" / name).mkdir(parents=True)
    return folder / "home"


def as_text(value: object) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


PIN: dict[str, Any] = {"sha256": "0" * 64, "bytes": 5, "source": "x", "date": "2026-01-01"}
PINS: dict[str, Any] = {
    "nothing": b"",
    "zeros": bytes(5000),
    "not UTF-8": b"\xff\xfe{}",
    "a list": [],
    "a number": 7,
    "null": None,
    "empty": {},
    "deep": DEEP.encode(),
    "5,000 digits": b'{"bytes": ' + b"9" * 5000 + b"}",
    "a pickle": b"\x80\x02cos\nsystem\n(X\x0c\0\0\0touch canarytR.",
    "bytes text": {**PIN, "bytes": "many"},
    "bytes infinite": {**PIN, "bytes": float("inf")},
    "bytes a list": {**PIN, "bytes": []},
    **{f"no {name}": {k: v for k, v in PIN.items() if k != name} for name in PIN},
    **{f"cut at {i}": as_text(PIN)[:i] for i in range(1, len(as_text(PIN)), 9)},
}


def test_hashes_of_what_was_fetched(folder: Path, home: Path) -> None:
    """Whoever fetches a file of other content must say so: damage is no permission."""
    (folder / "source").mkdir()
    for name in PUBLISHED:
        (folder / "source" / f"{name}.pt").write_bytes(b"x")
    talking = [
        {**PIN, "source": "\x1b[2J\nadm: all is well", "date": "[red]"},
        {**PIN, "sha256": "\x1b[2J", "source": [1]},
        {**PIN, "source": "x" * 10**6},
    ]
    rows = {**PINS, **{str(i): pin for i, pin in enumerate(talking)}}
    for names in in_groups(rows, len(UNKNOWN)):
        commands: list[Arguments] = []
        for item, name in zip(UNKNOWN, names, strict=False):
            (home / "fetched" / f"{item}.json").write_bytes(as_text(rows[name]))
            commands.append(["fetch", item, "--from", "source", "--quiet"])
        for item, name, done in zip(UNKNOWN, names, refused(folder, *commands), strict=False):
            assert (f"{item}.json is damaged" in done.err) == (name in PINS), (name, done)


VERSION: dict[str, Any] = {
    "length": INCEPTION.file_bytes,
    "etag": '"a"',
    "modified": None,
    "md5": None,
}
RECORD: dict[str, Any] = {"url": "x", **VERSION, "piece": PIECE, "pieces": {}}
SOME = {"0": [5, hashlib.sha256(b"bytes").hexdigest()]}
RECORDS: dict[str, Any] = {
    **{n: v for n, v in PINS.items() if not isinstance(v, dict)},
    "length text": {**RECORD, "length": "many", "pieces": SOME},
    "length infinite": {**RECORD, "length": float("inf"), "pieces": SOME},
    "length negative": {**RECORD, "length": -1, "pieces": SOME},
    "length 10^400": {**RECORD, "length": 10**400, "pieces": SOME},
    "length 2^62": {**RECORD, "length": 2**62, "pieces": SOME},
    "length a list": {**RECORD, "length": []},
    "length true": {**RECORD, "length": True},
    "tag a number": {**RECORD, "etag": 7, "pieces": SOME},
    "tag a list": {**RECORD, "etag": ["a"]},
    "tag of two lines": {**RECORD, "etag": 'x\r\nHost: y"', "pieces": SOME},
    "date a number": {**RECORD, "etag": None, "modified": 7, "pieces": SOME},
    "sum a number": {**RECORD, "md5": 7, "pieces": SOME},
    "piece 1": {**RECORD, "piece": 1},
    "piece text": {**RECORD, "piece": "x"},
    "pieces a list": {**RECORD, "pieces": [1]},
    "pieces text": {**RECORD, "pieces": "x"},
    "pieces a number": {**RECORD, "pieces": {"0": 5}},
    "pieces of one": {**RECORD, "pieces": {"0": [5]}},
    "pieces before": {**RECORD, "pieces": {"-1": [5, "x"]}},
    "pieces behind": {**RECORD, "pieces": {"9" * 30: [5, "x"]}},
    "pieces of 5,000 digits": {**RECORD, "pieces": {"9" * 5000: [5, "x"]}},
    "pieces too long": {**RECORD, "pieces": {"0": [PIECE + 1, "x"]}},
    "pieces infinite": {**RECORD, "pieces": {"0": [float("inf"), "x"]}},
    "pieces that lie": {**RECORD, "pieces": {str(i): [PIECE, "0" * 64] for i in range(90)}},
    "a field less": {k: v for k, v in RECORD.items() if k != "md5"},
    "a field more": {**RECORD, "exec": "touch canary"},
    "another address": {**RECORD, "url": "\x1b[2J", "pieces": SOME},
}  # fmt: skip


def partial_name(record: Any, file: str = FILE) -> str:
    """As the program would call it: a name that does not fit is passed over at once."""
    if not isinstance(record, dict):
        record = RECORD
    length, etag, modified = (record.get(n, RECORD[n]) for n in ("length", "etag", "modified"))
    return f"{file}.{Version(length, etag, modified).id}.partial"


def test_records_of_what_is_on_its_way(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "check_space", lambda *_: None)
    for names in in_groups(RECORDS, len(PUBLISHED)):
        commands: list[Arguments] = []
        for item, name in zip(fetching.find_items(PUBLISHED), names, strict=False):
            record = RECORDS[name]
            if isinstance(record, dict) and record.get("length") == INCEPTION.file_bytes:
                record = {**record, "length": fetching.wanted(item, FetchOptions()).smallest}
            path = home / "downloads" / partial_name(record, item.file)
            path.write_bytes(b"bytes and more")
            path.with_name(f"{path.name}.json").write_bytes(as_text(record))
            commands += [["fetch", item.name, "--dry-run"], ["fetch", item.name, *NOWHERE]]
        for command, done in zip(commands, harmless(folder, *commands), strict=True):
            failed = command[2] != "--dry-run"
            assert (done.code, len(done.err.splitlines())) == (failed, failed), (command, done)
        for path in (home / "downloads").iterdir():
            path.unlink()
    assert not (folder / "canary").exists()


MAKERS: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "zero": lambda path: path.symlink_to("/dev/zero"),
    "precious": lambda path: path.symlink_to(path.parents[3] / "precious.txt"),
    "circle": lambda path: path.symlink_to(path.name),
    "nowhere": lambda path: path.symlink_to(path.parents[3] / "made.txt"),
    "folder": Path.mkdir,
}


@pytest.mark.parametrize("name", MAKERS)
def test_links_and_pipes_instead_of_downloads(folder: Path, home: Path, name: str) -> None:
    """Nothing is written through a link, and nothing waits."""
    path = home / "downloads" / partial_name(RECORD)
    for data, record in ((path, False), (path.with_name(f"{path.name}.json"), True)):
        MAKERS[name](data)
        if record:
            path.write_bytes(b"bytes and more")
        else:
            data.with_name(f"{data.name}.json").write_bytes(as_text({**RECORD, "pieces": SOME}))
        for done in harmless(folder, ["fetch", "inception", "--dry-run"],
                             ["fetch", "inception", *NOWHERE]):  # fmt: skip
            assert len(done.err.splitlines()) <= 1, done
        for made in (data, path, path.with_name(f"{path.name}.json")):
            if made.is_symlink() or made.exists():
                made.rmdir() if made.is_dir() and not made.is_symlink() else made.unlink()
    assert listing(folder.parent).keys() & {"precious.txt", "made.txt"} == {"precious.txt"}
    assert (folder.parent / "precious.txt").read_text() == "precious"


def test_a_record_flipped_anywhere_vouches_for_nothing_else(tmp_path: Path) -> None:
    """Every byte of a record and of its file: what is still believed is what was written."""
    target, data = tmp_path / FILE, bytes(range(256)) * 2
    pieces = {"0": [len(data), hashlib.sha256(data).hexdigest()]}
    good = as_text({**RECORD, "length": len(data), "pieces": pieces})
    path = tmp_path / f"{FILE}.{Version(len(data), RECORD['etag']).id}.partial"
    record = path.with_name(f"{path.name}.json")
    for i in [*range(len(good)), *range(len(good), len(good + data), 50)]:
        parts = bytearray(good + data)
        parts[i] ^= 1
        record.write_bytes(parts[: len(good)])
        path.write_bytes(parts[len(good) :])
        found = find_partial(target)
        if found is not None:
            found.verify()
            assert path.read_bytes()[: found.here] == data[: found.here]
            found.close()


def test_models(folder: Path, home: Path) -> None:
    """Under published names: whoever asks for one."""
    inputs: list[Callable[[Path], object]] = [
        partial(Path.write_bytes, data=data)
        for data in [*list(HEADERS.values())[::9], safetensors({})]
    ]
    commands: list[Arguments] = []
    for name, make in zip(PUBLISHED, [*inputs, *MAKERS.values()], strict=False):
        make(home / "models" / f"{name}.safetensors")
        commands += [["info", name], ["sample", "--model", name, "--scale", 0]]
    refused(folder, *commands)


def test_the_doctor_looks_at_everything(folder: Path, home: Path) -> None:
    for i, name in enumerate(list(HEADERS)[::7]):
        (home / "models" / f"{i}{slug(name)}.safetensors").write_bytes(HEADERS[name])
    for name, make in MAKERS.items():
        make(home / "models" / f"{name}.safetensors")
        make(home / "inception" / f"{name}-01234567.pth")
    (home / "models" / "\x1b[2J[red]\nx.safetensors").write_bytes(b"")
    (home / "inception" / "\x1b]0;x\x07-01234567.pth").write_bytes(b"")
    text, record = harmless(folder, ["doctor"], ["doctor", "--json"], codes=(1,))
    assert "pipe-01234567.pth" in text.out
    assert json.loads(record.out)
