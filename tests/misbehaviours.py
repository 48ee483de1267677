"""What a server can do wrong, as answers of `tests.http_server`."""

from __future__ import annotations

import random
import time

from tests.http_server import ETAG, Behaviour, Request, good, says

DATA = random.Random(0).randbytes(1000)  # what is to be fetched
OTHER = random.Random(1).randbytes(1000)

MODIFIED = "Wed, 21 Jul 2021 07:28:00 GMT"
LENGTH = f"Content-Length: {len(DATA)}"
TAG = f"ETag: {ETAG}"
HTML = b"<!DOCTYPE html><html>Please log in</html>"


def part(first: object, last: object, total: object, *lines: str, body: bytes) -> Behaviour:
    return says(
        "206 Partial Content", f"Content-Range: bytes {first}-{last}/{total}", *lines, body=body
    )


def drip_headers(request: Request) -> None:
    for _ in range(200):
        request.raw(b"H")
        time.sleep(0.02)


def drip_body(request: Request) -> None:
    request.head("200 OK", LENGTH, TAG)
    for k in range(60):
        request.body(DATA[k : k + 1])
        time.sleep(0.01)


def stall(before: bytes) -> Behaviour:
    def behave(request: Request) -> None:
        request.raw(before)
        request.connection.recv(1)  # until the client gives up

    return behave


def reset(after: int | None) -> Behaviour:
    def behave(request: Request) -> None:
        if after is not None:
            good(DATA, cut=after)(request)
            time.sleep(0.02)  # let it arrive before the reset discards it
        request.reset()

    return behave


def raw(data: bytes) -> Behaviour:
    return lambda request: request.raw(data)


def chunked(*pieces: bytes, end: bool = True, lines: tuple[str, ...] = (TAG,)) -> Behaviour:
    def behave(request: Request) -> None:
        request.head("200 OK", "Transfer-Encoding: chunked", *lines)
        for piece in pieces:
            request.raw(f"{len(piece):x}\r\n".encode())
            request.body(piece)
            request.raw(b"\r\n")
        if end:
            request.raw(b"0\r\n\r\n")

    return behave


def endless_trailers(*lines: str, status: str = "200 OK", body: bytes = DATA[:500]) -> Behaviour:
    """Chunks of less than was announced, and after them lines for as long as anybody reads."""

    def behave(request: Request) -> None:
        chunked_body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n"
        request.head(status, "Transfer-Encoding: chunked", TAG, *lines)
        request.raw(chunked_body)
        while True:  # ends with the connection
            request.raw(b"X-More: of this\r\n" * 100)
            time.sleep(0.001)

    return behave


def to(location: str, status: str = "302 Found") -> Behaviour:
    return says(status, f"Location: {location}", "Content-Length: 0")


def flipped(at: int) -> bytes:
    return DATA[:at] + bytes([DATA[at] ^ 1]) + DATA[at + 1 :]


# Each misbehaviour once as the answer to a first request, once to a request for the rest. Every one
# of them must either be refused or be mended by asking again.
MISBEHAVIOURS: dict[str, Behaviour] = {
    # the connection
    "closed without a word": raw(b""),
    "reset without a word": reset(None),
    "reset in the body": reset(100),
    "cut before the body": good(DATA, cut=0),
    "cut after a byte": good(DATA, cut=1),
    "cut inside a piece": good(DATA, cut=100),
    "cut at the end of a piece": good(DATA, cut=128),
    "cut after the start of a piece": good(DATA, cut=129),
    "cut before the last byte": good(DATA, cut=len(DATA) - 1),
    "cut in the status": raw(b"HTTP/1."),
    "cut in the headers": raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "cut after the headers' last line": raw(f"HTTP/1.1 200 OK\r\n{LENGTH}\r\n".encode()),
    "silent": stall(b""),
    "silent after the status": stall(b"HTTP/1.1 200 OK\r\n"),
    "silent after the headers": stall(f"HTTP/1.1 200 OK\r\n{LENGTH}\r\n{TAG}\r\n\r\n".encode()),
    "silent in the body": stall(
        f"HTTP/1.1 200 OK\r\n{LENGTH}\r\n{TAG}\r\n\r\n".encode() + DATA[:70]
    ),
    "headers a byte at a time": drip_headers,
    "a body a byte at a time": drip_body,
    # what is no HTTP
    "garbage": raw(random.Random(2).randbytes(300)),
    "another protocol": raw(b"SSH-2.0-OpenSSH_9.9\r\n"),
    "no status": raw(b"HTTP/1.1 \r\n\r\n"),
    "a status that is no number": raw(b"HTTP/1.1 2OO OK\r\n\r\n"),
    "status 999": says("999 What"),
    "a header without a colon": raw(b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n" + DATA),
    "a header of 100 kB": says("200 OK", f"X-Long: {'x' * 100_000}", LENGTH, body=DATA),
    "a thousand headers": says("200 OK", *[f"X-{i}: 1" for i in range(1000)], LENGTH, body=DATA),
    "HTTP/0.9, weights at once": raw(DATA),
    # statuses
    **{
        f"status {status}": says(status, "Content-Length: 0")
        for status in (
            "100 Continue",
            "201 Created",
            "202 Accepted",
            "203 Non-Authoritative Information",
            "204 No Content",
            "205 Reset Content",
            "300 Multiple Choices",
            "301 Moved Permanently",
            "304 Not Modified",
            "400 Bad Request",
            "401 Unauthorized",
            "403 Forbidden",
            "404 Not Found",
            "407 Proxy Authentication Required",
            "408 Request Timeout",
            "410 Gone",
            "412 Precondition Failed",
            "416 Range Not Satisfiable",
            "429 Too Many Requests",
            "451 Unavailable For Legal Reasons",
            "500 Internal Server Error",
            "502 Bad Gateway",
            "503 Service Unavailable",
            "504 Gateway Timeout",
        )
    },
    "503 with a wait": says("503 Busy", "Retry-After: 0", "Content-Length: 0"),
    "503 with a senseless wait": says("503 Busy", "Retry-After: soon", "Content-Length: 0"),
    "503 for an hour": says("503 Busy", "Retry-After: 3600", "Content-Length: 0"),
    # redirects
    "a redirect to itself": to("/x.pt"),
    "a redirect without a place": says("302 Found", "Content-Length: 0"),
    "a redirect to a file": to("file:///etc/passwd"),
    "a redirect to ftp": to("ftp://127.0.0.1/x.pt"),
    "a redirect to no URL": to("http://[::bad/x"),
    "a redirect to a port that is none": to("http://127.0.0.1:99999999/x"),
    "a redirect to nobody": to("http://127.0.0.1:1/x.pt"),
    # lengths
    "no length": says("200 OK", TAG, body=DATA),
    "a byte short, and said so": says("200 OK", f"Content-Length: {len(DATA) - 1}", body=DATA[:-1]),
    "a byte long, and said so": says(
        "200 OK", f"Content-Length: {len(DATA) + 1}", body=DATA + b"x"
    ),
    "length 0": says("200 OK", "Content-Length: 0"),
    "a negative length": says("200 OK", "Content-Length: -1", body=DATA),
    "a length in words": says("200 OK", "Content-Length: many", body=DATA),
    "a length with a plus": says("200 OK", "Content-Length: +1000", body=DATA),
    "a length beyond all disks": says("200 OK", f"Content-Length: {10**30}", body=DATA),
    "two lengths": says("200 OK", LENGTH, "Content-Length: 7", body=DATA),
    # encodings
    "gzip": says("200 OK", LENGTH, "Content-Encoding: gzip", body=DATA),
    "br": says("200 OK", LENGTH, "Content-Encoding: br", body=DATA),
    "an unknown encoding": says("200 OK", LENGTH, "Content-Encoding: rot13", body=DATA),
    "chunks without a length": chunked(DATA),
    "chunks that end early": chunked(DATA[:500], end=False, lines=(TAG, LENGTH)),
    "too few chunks": chunked(DATA[:500], lines=(TAG, LENGTH)),
    "too many chunks": chunked(DATA, DATA, lines=(TAG, LENGTH)),
    "a chunk of senseless length": says(
        "200 OK", "Transfer-Encoding: chunked", LENGTH, body=b"zz\r\n" + DATA
    ),
    "trailers without end": endless_trailers(LENGTH),
    # contents
    "a web page": says(
        "200 OK", "Content-Type: text/html", f"Content-Length: {len(HTML)}", body=HTML
    ),
    "a web page of the right length": says(
        "200 OK", "Content-Type: text/html", LENGTH, body=HTML.ljust(len(DATA))
    ),
    "a web page in disguise": says("200 OK", TAG, LENGTH, body=b"\n " + HTML.ljust(len(DATA) - 2)),
    "an error as JSON": says("200 OK", "Content-Length: 20", body=b'{"error": "expired"}'),
    "another file": good(OTHER),
    "another file under another tag": good(OTHER, etag='"v2"'),
    "zeros": good(bytes(len(DATA))),
    **{f"a flipped bit at {at}": good(flipped(at)) for at in (0, 1, 63, 64, 500, 998, 999)},
    # parts
    "a part nobody asked for": part(0, 999, 1000, TAG, LENGTH, body=DATA),
    "a part without a range": says("206 Partial Content", TAG, "Content-Length: 5", body=DATA[:5]),
    "a part of senseless range": says(
        "206 Partial Content", TAG, "Content-Range: pages 1-2/3", body=DATA[:5]
    ),
    "a part that ends before it starts": part(300, 299, 1000, TAG, body=b""),
    "a part of another place": part(0, 699, 1000, TAG, body=DATA[:700]),
    "a part one byte off": part(301, 999, 1000, TAG, body=DATA[301:]),
    "a part beyond the end": part(300, 1999, 2000, body=DATA[300:] + DATA),
    "a part of another total": part(300, 998, 999, body=DATA[300:999]),
    "a part of negative range": part(-300, 999, 1000, TAG, body=DATA[300:]),
    "a part whose length contradicts": part(
        300, 999, 1000, TAG, "Content-Length: 5", body=DATA[300:305]
    ),
    "a part of another tag": part(300, 999, 1000, 'ETag: "v2"', body=OTHER[300:]),
    "a part of a weak tag": part(300, 999, 1000, f"ETag: W/{ETAG}", body=OTHER[300:]),
    "a part of another date": part(
        300, 999, 1000, TAG, f"Last-Modified: {MODIFIED}", body=OTHER[300:]
    ),
    "a part in gzip": part(300, 999, 1000, TAG, "Content-Encoding: gzip", body=DATA[300:]),
    "a part that is cut": part(300, 999, 1000, TAG, "Content-Length: 700", body=DATA[300:700]),
    "a part without its body": part(300, 999, 1000, TAG, "Content-Length: 700", body=b""),
    "a part with too much": part(300, 999, 1000, TAG, body=DATA[300:] + b"more"),
    "a part with trailers without end": endless_trailers(
        "Content-Range: bytes 300-999/1000", status="206 Partial Content", body=DATA[300:600]
    ),
    "several parts at once": says(
        "206 Partial Content", "Content-Type: multipart/byteranges; boundary=x", body=b"--x--"
    ),
    "416 with a range": says("416 Range Not Satisfiable", "Content-Range: bytes */1000"),
    "416 of a shorter file": says("416 Range Not Satisfiable", "Content-Range: bytes */7"),
}

# Those that only time ends.
SILENCES = {name for name in MISBEHAVIOURS if "silent" in name or "a byte at a time" in name}
