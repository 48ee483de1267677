"""A real HTTP server on loopback that does exactly what a test says, wrong or right."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

ETAG = '"v1"'


@dataclass
class Request:
    """What a client asked for, and how to answer it."""

    connection: socket.socket
    path: str
    headers: dict[str, str]
    sent: int = 0  # bytes of bodies

    @property
    def range(self) -> tuple[int, int | None] | None:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        return (int(found[1]), int(found[2]) if found[2] else None) if found else None

    def head(self, status: str, *lines: str) -> None:
        text = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *lines))
        self.raw(f"{text}Connection: close\r\n\r\n".encode("latin-1"))

    def raw(self, data: bytes) -> None:
        self.connection.sendall(data)

    def body(self, data: bytes) -> None:
        self.sent += len(data)
        self.raw(data)

    def reset(self) -> None:
        """An abortive close: the client sees "connection reset by peer"."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


Behaviour = Callable[[Request], None]


@dataclass
class Server:
    """Answers each request with the next of ``script``, and with ``default`` when that is over."""

    default: Behaviour
    script: list[Behaviour] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    port: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str = "") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    @property
    def ranges(self) -> list[tuple[int, int | None] | None]:
        return [request.range for request in self.requests]

    @property
    def sent(self) -> int:
        return sum(request.sent for request in self.requests)

    def forget(self) -> None:
        self.requests.clear()
        self.script.clear()

    def answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(10)
            head = b""
            while b"\r\n\r\n" not in head:
                data = connection.recv(65536)
                if not data:
                    return
                head += data
            first, *lines = head.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
            headers = {}
            for line in lines:
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            request = Request(connection, first.split()[1], headers)
            self.requests.append(request)
            behave = self.script.pop(0) if self.script else self.default
            behave(request)


@contextmanager
def serving(default: Behaviour) -> Iterator[Server]:
    server = Server(default)
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    server.port = listener.getsockname()[1]

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=server.answer, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def good(
    data: bytes,
    *,
    etag: str | None = ETAG,
    modified: str | None = None,
    md5: str | None = None,
    ranges: bool = True,
    cut: int | None = None,
) -> Behaviour:
    """A server as it should be; with ``cut``, one whose connection ends after so many bytes."""

    def behave(request: Request) -> None:
        asked = request.range if ranges else None
        if asked is not None and request.headers.get("if-range", etag) not in (etag, modified):
            asked = None
        lines = [f"ETag: {etag}"] if etag is not None else []
        lines += [f"Last-Modified: {modified}"] if modified is not None else []
        lines += [f"Content-MD5: {md5}"] if md5 is not None else []
        part = data
        if asked is None:
            request.head("200 OK", f"Content-Length: {len(data)}", *lines)
        else:
            last = len(data) - 1 if asked[1] is None else asked[1]
            part = data[asked[0] : last + 1]
            request.head(
                "206 Partial Content",
                f"Content-Length: {len(part)}",
                f"Content-Range: bytes {asked[0]}-{last}/{len(data)}",
                *lines,
            )
        request.body(part if cut is None else part[:cut])

    return behave


def says(status: str, *lines: str, body: bytes = b"") -> Behaviour:
    """That status, those header lines, that body, whatever was asked."""

    def behave(request: Request) -> None:
        request.head(status, *lines)
        request.body(body)

    return behave
