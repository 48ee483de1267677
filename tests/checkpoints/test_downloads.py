"""Downloads from a server that misbehaves: nothing wrong is taken, nothing good is lost."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import pytest

from adm_cli.checkpoints import downloads, partial
from adm_cli.checkpoints.downloads import (
    KnownHash,
    Listener,
    RemoteFile,
    RetryPolicy,
    TakenError,
    download,
    one_at_a_time,
    refused_path,
)
from adm_cli.checkpoints.http import clean, redirected, retry_after
from adm_cli.checkpoints.partial import Partial, Version, find_partial, remove_partials
from adm_cli.errors import DownloadError, OutputError
from tests.http_server import ETAG, Behaviour, Server, good, says, serving
from tests.misbehaviours import (
    DATA,
    LENGTH,
    MISBEHAVIOURS,
    MODIFIED,
    OTHER,
    SILENCES,
    TAG,
    part,
    stall,
    to,
)

PIECE = 64  # bytes, for these tests: DATA is 15 pieces and 40 bytes
SHA = hashlib.sha256(DATA).hexdigest()
PATIENT = RetryPolicy(timeout=20.0, retries=1, pause=0.0)
HASTY = replace(PATIENT, timeout=0.15)  # where the server is silent
SILENT = Listener()


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial, "PIECE", PIECE)
    monkeypatch.setattr(downloads, "PIECE", PIECE)


@pytest.fixture(autouse=True)
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of files: syncing them to the disk is tested elsewhere."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(good(DATA)) as running:
        yield running


def wanted(server: Server, sha: str | None = SHA, **sizes: int) -> RemoteFile:
    known = (KnownHash("sha256", sha, "as published"),) if sha else ()
    size = {"smallest": len(DATA), "largest": len(DATA)} | sizes
    return RemoteFile(server.url("/x.pt"), known=known, **size)


def fetch(
    server: Server,
    target: Path,
    sha: str | None = SHA,
    patience: RetryPolicy = PATIENT,
    **sizes: int,
) -> dict[str, str]:
    return download(wanted(server, sha, **sizes), target, patience=patience, watch=SILENT)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def begin(server: Server, target: Path, count: int) -> None:
    """The first ``count`` bytes are here, from a server that then went away."""
    server.script += [good(DATA, cut=count), *[says("404 Not Found")]]
    with pytest.raises(DownloadError, match="404"):
        fetch(server, target)
    server.forget()


def check_whole(target: Path) -> None:
    assert target.read_bytes() == DATA
    assert left(target.parent) == [target.name]


# ---------------------------------------------------------------- what a server can do wrong


def kept_bytes(target: Path) -> int:
    """What of the partial is good."""
    found = find_partial(target)
    if found is None:
        return 0
    assert found.verify() == 0
    found.close()
    return found.here


@pytest.mark.parametrize("kept", [0, 300], ids=["first", "rest"])
@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_misbehaviour(server: Server, tmp_path: Path, name: str, kept: int) -> None:
    """Twice the wrong answer, then the right one: no wrong file, no good byte fetched again."""
    target = tmp_path / "x.pt"
    if kept:
        begin(server, target, kept)
    server.script += [MISBEHAVIOURS[name]] * 2
    try:
        fetch(server, target, patience=HASTY if name in SILENCES else PATIENT)
    except DownloadError as error:
        message = str(error)
    else:
        check_whole(target)
        return
    assert not target.exists()
    assert "\n" not in message
    here = kept_bytes(target)
    assert here >= kept or refused_path(target).exists()
    server.forget()
    fetch(server, target)
    assert target.read_bytes() == DATA
    assert server.ranges == [(here, None) if here else None]
    assert server.sent == len(DATA) - here


# ---------------------------------------------------------------- many places, many bits


@pytest.mark.parametrize("seed", range(3))
def test_cut_anywhere_and_taken_up_by_a_later_call(
    server: Server, tmp_path: Path, seed: int
) -> None:
    """At 340 offsets, and then at a second one: every byte travels once."""
    offsets = random.Random(seed).sample(range(len(DATA)), 330)
    for cut in [0, 1, 63, 64, 65, 127, 128, 960, 998, 999, *offsets]:
        target = tmp_path / "x.pt"
        server.script += [good(DATA, cut=cut), says("404 Not Found")]
        with pytest.raises(DownloadError, match="404"):
            fetch(server, target)
        assert not target.exists()
        second = random.Random(cut).randrange(len(DATA) - cut)
        server.script += [good(DATA, cut=second), says("404 Not Found")]
        with pytest.raises(DownloadError, match="404"):
            fetch(server, target)
        fetch(server, target)
        assert server.sent == len(DATA)
        assert server.ranges[-1] == ((cut + second, None) if cut + second else None)
        check_whole(target)
        target.unlink()
        server.forget()


def test_one_call_outlasts_many_cuts(server: Server, tmp_path: Path) -> None:
    """Failures in a row count only where less than a piece came in between."""
    server.script += [good(DATA, cut=PIECE)] * 15
    fetch(server, tmp_path / "x.pt")
    assert server.ranges == [None, *((n * PIECE, None) for n in range(1, 16))]
    check_whole(tmp_path / "x.pt")


@pytest.mark.parametrize("vouched", ["published", "server"])
def test_no_flipped_bit_is_installed(server: Server, tmp_path: Path, vouched: str) -> None:
    """Each byte of the file once, in the answer or, where the rest is asked for, in the rest."""
    target = tmp_path / "x.pt"
    by_server = vouched == "server"
    sha = None if by_server else SHA
    md5 = base64.b64encode(hashlib.md5(DATA).digest()).decode() if by_server else None
    generator = random.Random(3)
    for at in range(len(DATA)):
        bad = bytearray(DATA)
        bad[at] ^= 1 << generator.randrange(8)
        server.default = good(bytes(bad), md5=md5)
        with pytest.raises(DownloadError, match=r"is refused: its (SHA-256|MD5) is") as refused:
            fetch(server, target, sha)
        digest = (hashlib.md5 if by_server else hashlib.sha256)(bad).hexdigest()
        assert f"is {digest[:12]}..." in str(refused.value)
        assert left(tmp_path) == ["x.pt.refused"]
    server.default = good(DATA, md5=md5)
    fetch(server, target, sha)
    assert target.read_bytes() == DATA


def test_a_published_hash_counts_more_than_the_servers(server: Server, tmp_path: Path) -> None:
    server.default = good(DATA, md5=base64.b64encode(bytes(16)).decode())
    fetch(server, tmp_path / "x.pt")
    check_whole(tmp_path / "x.pt")


def test_only_the_damaged_part_is_fetched_again(server: Server, tmp_path: Path) -> None:
    """A flipped byte of what is here costs a piece, wherever it is."""
    target = tmp_path / "x.pt"
    for at in range(0, 900, 9):
        begin(server, target, 900)
        (path,) = tmp_path.glob("*.partial")
        damaged = bytearray(path.read_bytes())
        damaged[at] ^= 255
        path.write_bytes(damaged)
        notes: list[str] = []
        watch = Listener(tell=notes.append)
        download(wanted(server), target, patience=PATIENT, watch=watch)
        start = at - at % PIECE
        end = start + PIECE
        if start == 896:  # the last, unfinished piece
            assert server.ranges == [(896, None)]
            assert notes == ["x.pt: 4 bytes here are damaged: fetching again"]
        else:
            assert server.ranges == [(start, end - 1), (900, None)]
            assert server.sent == PIECE + 100
            assert notes == ["x.pt: 64 bytes here are damaged: fetching again"]
        check_whole(target)
        target.unlink()
        server.forget()


def test_damage_between_the_last_byte_and_the_hash(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is what is hashed, not what came over the line."""
    target = tmp_path / "x.pt"
    digests = Partial.digests

    def damaged_first(self: Partial, algorithms: Any) -> dict[str, str]:
        monkeypatch.setattr(Partial, "digests", digests)
        (path,) = tmp_path.glob("*.partial")
        with path.open("r+b") as file:
            file.seek(500)
            file.write(b"damage")
        return digests(self, algorithms)

    monkeypatch.setattr(Partial, "digests", damaged_first)
    fetch(server, target)
    assert server.ranges == [None, (448, 511)]
    check_whole(target)


# ---------------------------------------------------------------- versions


def test_a_file_that_changes_in_between(server: Server, tmp_path: Path) -> None:
    """If-Range asks for the rest of the old one; the new one comes whole, and alone is kept."""
    target = tmp_path / "x.pt"
    new_sha = hashlib.sha256(OTHER).hexdigest()
    begin(server, target, 700)
    server.default = good(OTHER, etag='"v2"')
    fetch(server, target, new_sha)
    assert server.ranges == [(700, None)]
    assert server.requests[0].headers["if-range"] == ETAG
    assert target.read_bytes() == OTHER
    assert left(tmp_path) == ["x.pt"]


def test_a_server_that_ignores_if_range(server: Server, tmp_path: Path) -> None:
    """The tag of the part itself tells."""
    target = tmp_path / "x.pt"
    begin(server, target, 700)
    server.script.append(part(700, 999, 1000, 'ETag: "v2"', body=OTHER[700:]))
    server.default = good(OTHER, etag='"v2"')
    fetch(server, target, hashlib.sha256(OTHER).hexdigest())
    assert server.ranges == [(700, None), None]
    assert target.read_bytes() == OTHER


def test_a_file_that_changes_all_the_time(server: Server, tmp_path: Path) -> None:
    begin(server, tmp_path / "x.pt", 700)
    changes = [part(700, 999, 1000, f'ETag: "v{n}"', body=OTHER[700:]) for n in range(2, 9)]
    wholes = [good(DATA, etag=f'"v{n}"', cut=700) for n in range(2, 9)]
    server.script += [b for pair in zip(changes, wholes, strict=True) for b in pair]
    with pytest.raises(DownloadError, match="changes while it is fetched: try again later"):
        download(
            wanted(server),
            tmp_path / "x.pt",
            patience=replace(PATIENT, retries=20),
            watch=SILENT,
        )


@pytest.mark.parametrize(
    ("etag", "modified", "condition"),
    [
        (ETAG, MODIFIED, ETAG),
        (ETAG, None, ETAG),
        (f"W/{ETAG}", MODIFIED, MODIFIED),  # weak tags do not promise equal bytes
        (None, MODIFIED, MODIFIED),
        (f"W/{ETAG}", None, None),
        (None, None, None),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_what_the_rest_is_asked_with(
    server: Server,
    tmp_path: Path,
    etag: str | None,
    modified: str | None,
    condition: str | None,
    known: bool,
) -> None:
    """Without a condition parts are only joined where a hash will tell."""
    target, sha = tmp_path / "x.pt", SHA if known else None
    server.default = good(DATA, etag=etag, modified=modified)
    server.script += [good(DATA, etag=etag, modified=modified, cut=300), says("404 Not Found")]
    with pytest.raises(DownloadError):
        fetch(server, target, sha)
    server.forget()
    fetch(server, target, sha)
    assert server.ranges == [(300, None) if known or condition else None]
    assert server.requests[0].headers.get("if-range") == condition
    check_whole(target)


def test_a_server_without_ranges(server: Server, tmp_path: Path) -> None:
    """What is good is passed over, not lost: two cuts at different places add up."""
    target = tmp_path / "x.pt"
    begin(server, target, 700)
    server.script += [good(DATA, ranges=False, cut=100), says("404 Not Found")]
    with pytest.raises(DownloadError):
        fetch(server, target)
    assert kept_bytes(target) == 700
    server.default = good(DATA, ranges=False)
    fetch(server, target)
    check_whole(target)


def test_a_whole_partial_needs_no_network(server: Server, tmp_path: Path) -> None:
    """Killed between the last byte and the new name."""
    whole = Partial(tmp_path / "x.pt", Version(len(DATA), ETAG), server.url())
    whole.begin(0)
    whole.write(DATA)
    whole.save()
    whole.close()
    fetch(server, tmp_path / "x.pt")
    assert not server.requests
    check_whole(tmp_path / "x.pt")


def test_sizes_that_are_only_known_roughly(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "x.pt"
    with pytest.raises(DownloadError, match=r"it has 1,000 bytes, expected 1,001 to 2,000"):
        fetch(server, target, None, smallest=1001, largest=2000)
    with pytest.raises(DownloadError, match=r"it has 1,000 bytes, expected 10 to 999"):
        fetch(server, target, None, smallest=10, largest=999)
    fetch(server, target, None, smallest=900, largest=1100)
    check_whole(target)


# ---------------------------------------------------------------- redirects, waiting, asking


@pytest.mark.parametrize("status", ["301 A", "302 B", "303 C", "307 D", "308 E"])
@pytest.mark.parametrize("kept", [0, 300])
def test_redirects_are_followed(server: Server, tmp_path: Path, status: str, kept: int) -> None:
    """Relative ones too, with the range."""
    target = tmp_path / "x.pt"
    if kept:
        begin(server, target, kept)
    server.script += [to("y.pt", status), to(server.url("/z.pt?token=1"), status)]
    fetch(server, target)
    assert [request.path for request in server.requests] == ["/x.pt", "/y.pt", "/z.pt?token=1"]
    assert server.ranges == [(kept, None) if kept else None] * 3
    check_whole(target)


def test_a_redirect_loop(server: Server, tmp_path: Path) -> None:
    server.default = to("/x.pt")
    with pytest.raises(DownloadError, match="more than 10 redirects"):
        fetch(server, tmp_path / "x.pt")
    assert len(server.requests) == 11


@pytest.mark.parametrize(
    ("source", "location", "words"),
    [
        ("https://a.org/x", "http://a.org/x", "redirects to plain http"),
        ("https://a.org/x", "http://b.org/x", "redirects to plain http"),
        ("https://a.org/x", "https://127.0.0.1/x", "into this network"),
        ("http://a.org/x", "http://10.0.0.1/x", "into this network"),
        ("http://a.org/x", "http://169.254.169.254/latest", "into this network"),
        ("http://a.org/x", "http://[::1]/x", "into this network"),
        ("http://a.org/x", "http://localhost:8080/x", "into this network"),
        *(
            ("http://a.org/x", f"http://{host}/x", "into this network")
            for host in (
                *("127.1", "0x7f000001", "2130706433", "017700000001", "127.0.0.1.", "LOCALHOST."),
                *("[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "0", "169.254.43518"),
                *("[2002:7f00:1::]", "[64:ff9b::127.0.0.1]", "[::127.0.0.1]", "[fec0::1]"),
                *("[::ffff:0:10.0.0.1]", "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021"),
                *("\u24dbocalhost", "localhost\u00ad", "local\u200dhost", "\u2460\u2461\u2466.0.1"),
                *("%31%32%37.0.0.1", "127%2e0%2e0%2e1", "%6cocalhost", "b.org@10.0.0.1"),
                *("ip6-localhost", "localhost.localdomain", "router", "nas.local"),
                *("metadata.google.internal", "intranet", "224.0.0.1", "[ff02::1]"),
                *("[64:ff9b:1::a00:1]", "[::1%25lo]", "127.0.0.1#@b.org"),
            )
        ),
        ("http://a.org/x", "file:///etc/passwd", "not followed"),
        ("http://a.org/x", "data:text/plain,hi", "not followed"),
        ("http://a.org/x", "http://[bad", "no URL"),
    ],
)
def test_redirects_that_are_not_followed(source: str, location: str, words: str) -> None:
    with pytest.raises(DownloadError, match=words):
        redirected(source, location)


def test_redirects_that_are() -> None:
    assert redirected("http://a.org/x", "https://b.org/y?z=1") == "https://b.org/y?z=1"
    assert redirected("https://a.org/d/x", "y") == "https://a.org/d/y"
    assert redirected("http://127.0.0.1/x", "http://127.0.0.1:1/y") == "http://127.0.0.1:1/y"


def test_backing_off(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(downloads, "time", SimpleNamespace(sleep=waits.append))  # its own alone
    notes: list[str] = []
    server.script += [says("500 Oops", "Content-Length: 0")] * 4
    server.script += [says("503 Busy", "Retry-After: 7", "Content-Length: 0")]
    patience = RetryPolicy(timeout=5, retries=5, pause=1.0)
    watch = Listener(tell=notes.append)
    download(wanted(server), tmp_path / "x.pt", patience=patience, watch=watch)
    assert waits == [1.0, 2.0, 4.0, 8.0, 7.0]
    assert notes[0] == "x.pt: the server answered 500 Oops; trying again in 1 s"


def test_retry_after() -> None:
    soon = datetime.now(timezone.utc) + timedelta(seconds=100)
    wait = retry_after({"Retry-After": format_datetime(soon, usegmt=True)})
    assert wait is not None
    assert 95 < wait <= 100
    assert retry_after({"Retry-After": "Wed, 21 Jul 2021 07:28:00 -0000"}) == 0
    assert retry_after({"Retry-After": "120"}) == 120
    for senseless in ("", "-1", "soon", "1e3", "99999999999", "Wed, 99 Jul 2021 07:28:00 GMT"):
        assert retry_after({"Retry-After": senseless}) is None


def test_what_is_asked(server: Server, tmp_path: Path) -> None:
    fetch(server, tmp_path / "x.pt")
    headers = server.requests[0].headers
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"].startswith("adm/")
    assert "range" not in headers


def test_secrets_are_not_shown(server: Server, tmp_path: Path) -> None:
    assert clean("https://me:pw@a.org:8/x?sig=secret#y") == "https://a.org:8/x"
    url = f"http://me:pw@127.0.0.1:{server.port}/x.pt?sig=secret"
    server.script += [good(DATA, cut=300), says("403 Forbidden")]
    want = RemoteFile(url, len(DATA), len(DATA))
    with pytest.raises(DownloadError, match="403 Forbidden") as failed:
        download(want, tmp_path / "x.pt", patience=PATIENT, watch=SILENT)
    (record,) = tmp_path.glob("*.json")
    for text in (str(failed.value), record.read_text()):
        assert "secret" not in text
        assert "pw" not in text
    assert server.requests[0].path == "/x.pt?sig=secret"


def test_progress(server: Server, tmp_path: Path) -> None:
    begin(server, tmp_path / "x.pt", 300)
    seen: list[tuple[int, int]] = []
    watch = Listener(advance=lambda here, length: seen.append((here, length)))
    download(wanted(server), tmp_path / "x.pt", patience=PATIENT, watch=watch)
    assert seen[0] == (300, 1000)
    assert seen[-1] == (1000, 1000)


# ---------------------------------------------------------------- the record beside the partial


@pytest.mark.parametrize(
    "damage",
    [
        lambda facts: {},
        lambda facts: [],
        lambda facts: facts | {"length": 10**15},
        lambda facts: facts | {"length": "many"},
        lambda facts: facts | {"etag": ["x"]},
        lambda facts: facts | {"piece": 1},
        lambda facts: facts | {"pieces": {"0": [64]}},
        lambda facts: facts | {"pieces": {"x": [64, "y"]}},
        lambda facts: facts | {"pieces": {"-1": [64, "y"]}},
        lambda facts: facts | {"pieces": {"99": [64, "y"]}},
        lambda facts: facts | {"pieces": {"0": [65, "y"]}},
        lambda facts: facts | {"pieces": {"0": [0, "y"]}},
        lambda facts: facts | {"pieces": {"0": [64, "y"]}},
        lambda facts: facts | {"pieces": {n: ["64", "y"] for n in facts["pieces"]}},
        lambda facts: facts | {"pieces": {n: [64, None] for n in facts["pieces"]}},
    ],
)
def test_a_damaged_record_is_not_believed(
    server: Server, tmp_path: Path, damage: Callable[[dict[str, Any]], Any]
) -> None:
    begin(server, tmp_path / "x.pt", 300)
    (record,) = tmp_path.glob("*.json")
    record.write_text(json.dumps(damage(json.loads(record.read_text()))))
    fetch(server, tmp_path / "x.pt")
    assert server.ranges == [None]
    check_whole(tmp_path / "x.pt")


def test_a_record_cut_anywhere_is_not_believed(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "x.pt"
    begin(server, target, 100)
    (record,) = tmp_path.glob("*.json")
    text = record.read_bytes()
    for end in range(0, len(text), 7):
        record.write_bytes(text[:end])
        assert find_partial(target) is None
    record.write_bytes(text)
    assert kept_bytes(target) == 100


def test_a_partial_cut_anywhere(server: Server, tmp_path: Path) -> None:
    """What a crash took from the file is fetched again, to the piece."""
    target = tmp_path / "x.pt"
    for end in range(0, 300, 17):
        begin(server, target, 300)
        (path,) = tmp_path.glob("*.partial")
        os.truncate(path, end)
        fetch(server, target)
        assert server.ranges == [(end - end % PIECE, None) if end >= PIECE else None]
        check_whole(target)
        target.unlink()
        server.forget()


def test_a_partial_without_its_record(server: Server, tmp_path: Path) -> None:
    begin(server, tmp_path / "x.pt", 300)
    (record,) = tmp_path.glob("*.json")
    record.unlink()
    fetch(server, tmp_path / "x.pt")
    assert server.ranges == [None]
    check_whole(tmp_path / "x.pt")


def test_the_fuller_of_two_versions_is_taken_up(server: Server, tmp_path: Path) -> None:
    for etag, count in (('"v0"', 100), (ETAG, 300), ('"v2"', 200)):
        here = Partial(tmp_path / "x.pt", Version(len(DATA), etag), server.url())
        here.begin(0)
        here.write(DATA[:count])
        here.pause()
        here.close()
    fetch(server, tmp_path / "x.pt")
    assert server.ranges == [(300, None)]


def test_names_that_look_like_patterns(server: Server, tmp_path: Path) -> None:
    begin(server, tmp_path / "x[1]*?.pt", 300)
    fetch(server, tmp_path / "x[1]*?.pt")
    assert server.ranges == [(300, None)]
    check_whole(tmp_path / "x[1]*?.pt")


# ---------------------------------------------------------------- the disk, and interruptions


def test_disk_full(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written before stays, and the next call goes on there."""
    target = tmp_path / "x.pt"
    write = Partial._write

    def limited(self: Partial, data: memoryview) -> None:
        if self._position + len(data) > 500:
            with self._explained():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, data)

    monkeypatch.setattr(Partial, "_write", limited)
    with pytest.raises(OutputError, match=r"partial: the disk is full; make room and run the same"):
        fetch(server, target)
    monkeypatch.setattr(Partial, "_write", write)
    server.forget()
    fetch(server, target)
    assert server.ranges == [(448, None)]
    check_whole(target)


@pytest.mark.skipif(os.name != "posix", reason="needs limits of a process")
def test_disk_full_for_real(server: Server, tmp_path: Path) -> None:
    """A limit on the size of files, in a process of its own: the kernel refuses the write."""
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
from adm_cli.checkpoints.downloads import *
from pathlib import Path
want = RemoteFile({server.url("/x.pt")!r}, 1, 10**9)
download(want, Path("x.pt"), patience=RetryPolicy(), watch=Listener())
"""
    server.default = good(DATA * 1000)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "OutputError: cannot write x.pt" in done.stderr
    assert not (tmp_path / "x.pt").exists()


def test_no_write_permission(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutputError, match="choose a folder you may write to"):
        fetch(server, tmp_path / "x.pt")


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_interrupted(server: Server, tmp_path: Path, error: type[BaseException]) -> None:
    """All that came before it is recorded, to the byte."""
    target = tmp_path / "x.pt"

    def stop(here: int, length: int) -> None:
        if here >= 300:
            raise error

    server.default = stall_after(DATA[:333])
    with pytest.raises(error):
        download(wanted(server), target, patience=PATIENT, watch=Listener(advance=stop))
    assert kept_bytes(target) == 333
    server.forget()
    server.default = good(DATA)
    fetch(server, target)
    assert server.ranges == [(333, None)]
    check_whole(target)


def stall_after(data: bytes) -> Behaviour:
    return stall(f"HTTP/1.1 200 OK\r\n{LENGTH}\r\n{TAG}\r\n\r\n".encode() + data)


WORKER = """
import os, sys
from pathlib import Path
from adm_cli.checkpoints import downloads
from adm_cli.checkpoints import partial
partial.PIECE = downloads.PIECE = 64
partial._SAVE_SECONDS = 0.0
os.fsync = lambda handle: None
from adm_cli.checkpoints.downloads import *
want = RemoteFile(sys.argv[1], 1000, 1000, (KnownHash("sha256", sys.argv[2], "as published"),))
download(want, Path(sys.argv[3]), patience=RetryPolicy(timeout=20), watch=Listener())
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed(server: Server, tmp_path: Path) -> None:
    """kill -9 in the middle; another process goes on where the record says."""
    target = tmp_path / "x.pt"
    command = [sys.executable, "-c", WORKER, server.url("/x.pt"), SHA, str(target)]
    server.default = stall_after(DATA[:700])
    with subprocess.Popen(command) as process:
        until(lambda: recorded(tmp_path) == 640)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not target.exists()
    server.forget()
    server.default = good(DATA)
    subprocess.run(command, check=True)
    assert server.ranges == [(640, None)]  # the last whole piece
    check_whole(target)


def recorded(folder: Path) -> int:
    records = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return sum(filled for record in records for filled, _ in record["pieces"].values())


def until(true: Callable[[], bool]) -> None:
    for _ in range(2000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("waited in vain")


# ---------------------------------------------------------------- several at once


@pytest.mark.parametrize("cut", [None, 300])
def test_eight_at_once_without_locks(server: Server, tmp_path: Path, cut: int | None) -> None:
    """Nothing but the file remains, and it is right, in whatever order they come."""
    target = tmp_path / "x.pt"
    for _ in range(5):
        server.default = good(DATA)
        server.script = [good(DATA, cut=cut)] * 8 if cut else []
        outcomes: list[str] = []

        def one(outcomes: list[str] = outcomes) -> None:
            try:
                patience = RetryPolicy(timeout=5, retries=20, pause=0.0)
                download(wanted(server), target, patience=patience, watch=SILENT)
                outcomes.append("whole")
            except TakenError:
                outcomes.append("taken")

        threads = [threading.Thread(target=one) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 8
        assert "whole" in outcomes
        assert target.read_bytes() == DATA
        remove_partials(target)  # as `adm fetch` does when it is done
        assert left(tmp_path) == ["x.pt"]
        target.unlink()


KILLED = """
import os, random, signal, sys, time
from adm_cli.checkpoints import http
partial._SAVE_SECONDS = 0.01
http._BLOCK = 37  # bytes at a time: there is more between two reads to be killed in
generator = random.Random(int(sys.argv[4]))
for _ in range(int(sys.argv[5])):
    children = []
    for _ in range(8):
        if (child := os.fork()) == 0:
            try:
                fetch()
            except TakenError:
                pass
            finally:
                os._exit(0)
        children.append(child)
    time.sleep(generator.random() * 0.05)
    for child in children[:4]:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
    if not Path(sys.argv[3]).exists():
        fetch()
    assert Path(sys.argv[3]).read_bytes() == Path(sys.argv[3] + ".right").read_bytes()
    os.unlink(sys.argv[3])
"""


@pytest.mark.skipif(os.name != "posix", reason="needs fork and SIGKILL")
def test_eight_processes_of_which_four_are_killed(server: Server, tmp_path: Path) -> None:
    """Twenty times, without locks: what gets the name is right, whoever died when."""
    target = tmp_path / "x.pt"
    (tmp_path / "x.pt.right").write_bytes(DATA)
    worker = WORKER.replace("download(want", "def fetch():\n    download(want") + KILLED
    arguments = [server.url("/x.pt"), SHA, str(target), "0", "20"]
    subprocess.run([sys.executable, "-c", worker, *arguments], check=True)
    remove_partials(target)
    names = [name for name in left(tmp_path) if not name.startswith(".adm-")]
    assert names == ["x.pt.right"]  # temporaries of the killed go when they are a day old


def test_the_lock(tmp_path: Path) -> None:
    """The second waits, says so, and finds no lock file left behind."""
    target, order = tmp_path / "x.pt", []
    notes: list[str] = []
    entered = threading.Event()

    def second() -> None:
        entered.wait(5)
        with one_at_a_time(target, notes.append):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with one_at_a_time(target, notes.append):
        entered.set()
        until(lambda: bool(notes))
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert notes == [f"another adm is fetching x.pt: waiting for it ({target}.lock)"]
    assert left(tmp_path) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks"), NotImplementedError()])
def test_a_disk_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def acquire(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with one_at_a_time(tmp_path / "x.pt", lambda text: None):
        pass
