"""Downloads that are resumed, also by a later process, and are whole and right or not at all.

`download` asks for what is missing (Range) of the version it has a part of (If-Range), believes no
answer that contradicts itself or what is known of the file, and gives a file its name only after
its hash.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import filelock
import requests
from urllib3.exceptions import HTTPError

from adm_cli import __version__
from adm_cli.checkpoints.http import (
    ChangedError,
    TransientError,
    body,
    clean,
    part_end,
    reason,
    redirected,
    retry_after,
    unresolved,
    web_page,
    whole_version,
)
from adm_cli.checkpoints.partial import PIECE, Partial, Version, file_digests, find_partial
from adm_cli.errors import DownloadError
from adm_cli.files.disk import make_folder
from adm_cli.files.links import remove

_REDIRECTS = 10
_RESTARTS = 3  # a file that changes more often than that is not one to wait for
_CONNECT = 15.0  # seconds
_LONGEST_PAUSE = 60.0
_LONGEST_WAIT = 600.0  # that a server may ask for with Retry-After
_TRANSIENT = (206, 408, 425, 429)  # and all of 5xx; 206 where no part was asked for


@dataclass(frozen=True)
class KnownHash:
    """A hash the file must have: hexadecimal, whose word it is, and what to do if it differs."""

    algorithm: str  # "sha256" or "md5"
    digest: str
    source: str  # "as published"
    advice: str = "try again, or take it from elsewhere with --from"


@dataclass(frozen=True)
class RemoteFile:
    """A file at ``url``, of ``smallest`` to ``largest`` bytes."""

    url: str
    smallest: int
    largest: int
    known: tuple[KnownHash, ...] = ()

    def check_size(self, what: str, size: int) -> None:
        """Raises DownloadError for a size that is not the file's."""
        if not self.smallest <= size <= self.largest:
            exact = self.smallest == self.largest
            more = "" if exact else f" to {self.largest:,}"
            raise DownloadError(
                f"{what} is not the published file: it has {size:,} bytes, "
                f"expected {self.smallest:,}{more}; take it from elsewhere with --from"
            )


@dataclass(frozen=True)
class RetryPolicy:
    """``timeout``: seconds without an answer, or with next to nothing. ``retries``: failures in a
    row before giving up, each followed by twice the ``pause`` before."""

    timeout: float = 30.0
    retries: int = 6
    pause: float = 1.0


@dataclass(frozen=True)
class Listener:
    """Who is told of notes for a person, and of bytes here out of bytes in all."""

    tell: Callable[[str], None] = lambda text: None
    advance: Callable[[int, int], None] = lambda here, length: None


class TakenError(DownloadError):
    """Another process has taken the file away, which happens only where locks do nothing."""


def download(
    wanted: RemoteFile, target: Path, *, patience: RetryPolicy, watch: Listener
) -> dict[str, str]:
    """Fetches what is missing of ``target`` and gives it its name; returns its digests by name.

    Raises DownloadError if that fails or the file is not the one wanted, OutputError where the disk
    refuses. What is good stays beside ``target`` for the next time. Ctrl-C passes through.
    """
    transfer = _Transfer(wanted, target, patience, watch)
    try:
        transfer.resume()
        transfer.run()
        return transfer.finish()
    finally:
        transfer.close()


class _Transfer:
    def __init__(
        self, wanted: RemoteFile, target: Path, patience: RetryPolicy, watch: Listener
    ) -> None:
        self.wanted, self.target, self.patience, self.watch = wanted, target, patience, watch
        self.partial: Partial | None = None
        self.answered = False  # from then on a name that is not found is a network that is down
        self.from_start = False  # the next request is for the whole
        self.session = requests.Session()
        self.session.headers.update(
            {"User-Agent": f"adm/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
        )

    def close(self) -> None:
        self.session.close()
        if self.partial is not None:
            self.partial.close()

    @property
    def here(self) -> int:
        return 0 if self.partial is None else self.partial.here

    def resume(self) -> None:
        """Takes up what an earlier download left, as far as it is good."""
        self.partial = find_partial(self.target)
        if self.partial is None:
            return
        if not self._resumable(self.partial.version):
            self.partial.discard()
            self.partial = None
            return
        if lost := self.partial.verify():
            self.watch.tell(f"{self.target.name}: {lost:,} bytes here are damaged: fetching again")
        self.watch.advance(self.here, self.partial.version.length)

    def _resumable(self, version: Version) -> bool:
        """Whether parts fetched at different times can be told to be of one file."""
        told = version.validator is not None or bool(self.wanted.known or version.md5)
        return told and self.wanted.smallest <= version.length <= self.wanted.largest

    def run(self) -> None:
        """Until nothing is missing."""
        failures = restarts = 0
        while self.partial is None or not self.partial.whole:
            before = self.here
            try:
                self._fetch_gap()
            except TransientError as failure:
                failures = 1 if self.here >= before + PIECE else failures + 1
                self._pause(failure, failures)
            except ChangedError:
                restarts += 1
                if restarts > _RESTARTS:
                    raise DownloadError(
                        f"{clean(self.wanted.url)} changes while it is fetched: try again later"
                    ) from None
                self.from_start = True

    def _pause(self, failure: TransientError, failures: int) -> None:
        wait = failure.wait or 0.0
        if failures > self.patience.retries or wait > _LONGEST_WAIT:
            asked = f", and asks to wait {wait:.0f} s" if wait else ""
            raise self._failed(f"{failure}{asked}") from failure
        backoff = min(self.patience.pause * 2 ** (failures - 1), _LONGEST_PAUSE)
        seconds = backoff if failure.wait is None else failure.wait
        self.watch.tell(f"{self.target.name}: {failure}; trying again in {seconds:.0f} s")
        time.sleep(seconds)

    def _fetch_gap(self) -> None:
        """One request: for the first gap, or for the whole file where there is nothing to keep."""
        start, end, headers = 0, 0, {}
        partial = self.partial
        if partial is not None and self._resumable(partial.version) and not self.from_start:
            start, end = partial.gaps()[0]
            if (start, end) != (0, partial.version.length):
                last = "" if end == partial.version.length else end - 1
                headers["Range"] = f"bytes={start}-{last}"
                if partial.version.validator is not None:
                    headers["If-Range"] = partial.version.validator
        response = self._get(headers)
        try:
            self._take(response, start, end, ranged=bool(headers))
        finally:
            response.close()

    def _take(self, response: requests.Response, start: int, end: int, *, ranged: bool) -> None:
        url, status = self.wanted.url, response.status_code
        if status == 206 and ranged and self.partial is not None:
            end = part_end(response.headers, url, self.partial.version, start, end)
            self._receive(response, start, end)
        elif status == 200:
            version = whole_version(response.headers, url)
            self.wanted.check_size(clean(url), version.length)
            self._receive(response, 0, version.length, version)
        elif status == 416 and ranged:  # nothing there from our offset on: another, shorter file
            raise ChangedError
        else:
            said = f"the server answered {status} {response.reason or ''}".strip()
            if status in _TRANSIENT or status >= 500:
                raise TransientError(said, retry_after(response.headers))
            raise self._failed(said)

    def _failed(self, why: str) -> DownloadError:
        kept = f"the {self.here:,} bytes that are here stay for the next try; " if self.here else ""
        return DownloadError(
            f"cannot fetch {clean(self.wanted.url)}: {why}; {kept}--from takes a mirror or a folder"
        )

    def _receive(
        self, response: requests.Response, start: int, end: int, version: Version | None = None
    ) -> None:
        """The body, bytes ``[start, end)``, into the partial: of ``version``, if that is new."""
        position = start
        blocks = body(response, self.patience.timeout)
        data = next(blocks, b"")
        if not data:
            raise TransientError("the connection ended before the first byte")
        if version is not None:
            if data.lstrip().startswith(b"<"):
                raise web_page(self.wanted.url)
            self._open(version)
        assert self.partial is not None
        self.partial.begin(start)
        try:
            while data:
                position += len(data)
                if position > end:
                    raise TransientError("more bytes than announced")
                self.partial.write(data)
                self.watch.advance(self.partial.written, self.partial.version.length)
                if position == end or self.partial.whole:
                    return
                data = next(blocks, b"")
            raise TransientError(f"the connection ended at byte {position:,} of {end:,}")
        finally:
            self.partial.pause()

    def _open(self, version: Version) -> None:
        """The partial for what comes now, which is the whole of ``version``."""
        self.from_start = False
        if self.partial is not None:
            if self.partial.version.id == version.id and self._resumable(version):
                return  # the server sends no parts: what is good is passed over
            if self.here:
                self.watch.tell(f"{self.target.name} is another on the server: starting over")
            self.partial.discard()
        self.partial = Partial(self.target, version, clean(self.wanted.url))

    def _get(self, headers: Mapping[str, str]) -> requests.Response:
        """The answer after redirects, its body unread."""
        url = self.wanted.url
        for _ in range(_REDIRECTS + 1):
            response = self._ask(url, headers)
            if not response.is_redirect:
                return response
            response.close()
            url = redirected(url, response.headers["Location"])
        raise DownloadError(f"{clean(self.wanted.url)}: more than {_REDIRECTS} redirects (a loop?)")

    def _ask(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        """In a thread: a server can send its headers a byte at a time for ever, and the library's
        timeouts are of single reads."""
        answer: queue.SimpleQueue[requests.Response | BaseException] = queue.SimpleQueue()
        timeout = self.patience.timeout

        def ask() -> None:
            try:
                answer.put(
                    self.session.get(
                        url,
                        headers=headers,
                        timeout=(min(timeout, _CONNECT), timeout),
                        stream=True,
                        allow_redirects=False,
                    )
                )
            except BaseException as error:
                answer.put(error)

        threading.Thread(target=ask, daemon=True).start()
        try:
            result = answer.get(timeout=4 * timeout)
        except queue.Empty:
            raise TransientError("no whole answer came in time") from None
        if isinstance(result, requests.Response):
            self.answered = True
            return result
        if isinstance(result, requests.ConnectionError | requests.Timeout):
            if "CERTIFICATE_VERIFY_FAILED" in str(result):
                raise DownloadError(f"{clean(url)}: the server's certificate is not valid")
            if unresolved(result) and not self.answered:
                raise self._failed(
                    f"no server {urlsplit(url).hostname} was found ({reason(result)}); "
                    f"check the address and the network"
                )
            raise TransientError(reason(result)) from result
        if isinstance(result, requests.RequestException | HTTPError | ValueError):
            raise DownloadError(f"cannot fetch {clean(url)}: {reason(result)}") from result
        raise result

    def finish(self) -> dict[str, str]:
        """Hash what is on disk; fetch again what was damaged there; give the file its name."""
        assert self.partial is not None
        known, md5 = self.wanted.known, self.partial.version.md5
        if not known and md5 is not None:
            known = (KnownHash("md5", md5, "as the server itself says"),)
        digests = self.partial.digests(_algorithms(known))
        wrong = find_wrong(digests, known)
        if wrong is not None and self.partial.verify():
            self.watch.tell(f"{self.target.name}: damaged on the disk: fetching those bytes again")
            self.run()
            digests = self.partial.digests(_algorithms(known))
            wrong = find_wrong(digests, known)
        if wrong is not None:
            refused = refused_path(self.target)
            self.partial.rename(refused)
            raise wrong_hash(clean(self.wanted.url), digests, wrong, refused)
        if not self.partial.rename(self.target):
            raise TakenError(f"{self.partial.path} was taken away: run the same command again")
        return digests


def check_file(path: Path, wanted: RemoteFile) -> dict[str, str]:
    """The digests of a file that is here already; raises DownloadError if it is not ``wanted``."""
    try:
        size = path.stat().st_size
        wanted.check_size(str(path), size)
        digests = file_digests(path, _algorithms(wanted.known))
    except OSError as error:
        raise DownloadError(f"cannot read {path}: {error.strerror or error}") from None
    wrong = find_wrong(digests, wanted.known)
    if wrong is not None:
        raise wrong_hash(str(path), digests, wrong, path)
    return digests


def find_wrong(digests: Mapping[str, str], known: Sequence[KnownHash]) -> KnownHash | None:
    return next((k for k in known if digests[k.algorithm] != k.digest), None)


def wrong_hash(
    what: str, digests: Mapping[str, str], wrong: KnownHash, kept: Path
) -> DownloadError:
    """Names both hashes, and where the file is that has the wrong one."""
    name = {"sha256": "SHA-256", "md5": "MD5"}[wrong.algorithm]
    place = "stays where it is" if what == str(kept) else f"is kept as {kept}"
    return DownloadError(
        f"{what} is refused: its {name} is {digests[wrong.algorithm][:12]}..., expected "
        f"{wrong.digest[:12]}... ({wrong.source}); it {place}; {wrong.advice}"
    )


def refused_path(target: Path) -> Path:
    """Where a whole but wrong file is kept to look at; the next one takes its place."""
    return target.with_name(f"{target.name}.refused")


@contextmanager
def one_at_a_time(path: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """A lock beside ``path``, to save work: nothing depends on it where a disk has no locks."""
    make_folder(path.parent)
    marker = path.with_name(f"{path.name}.lock")
    lock = filelock.FileLock(marker)
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            tell(f"another adm is fetching {path.name}: waiting for it ({marker})")
            lock.acquire(poll_interval=0.2)
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):  # some systems keep open files
                remove(marker)
        lock.release()


def _algorithms(known: Sequence[KnownHash]) -> set[str]:
    return {"sha256", *(k.algorithm for k in known)}
