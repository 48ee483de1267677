"""What a server's answer means: versions, parts, waits, redirects, and the body as it arrives.

Rules are of RFC 9110; sections are named where a rule is not obvious.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import ipaddress
import re
import socket
import time
import unicodedata
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

import requests
from urllib3.exceptions import HTTPError, IncompleteRead, ReadTimeoutError

from adm_cli.checkpoints.partial import Version
from adm_cli.errors import DownloadError, trim

Headers = Mapping[str, str]

_SLOWEST = 1024  # bytes a second; less is no progress
_BLOCK = 1 << 20


class TransientError(Exception):
    """Worth trying again, after ``wait`` seconds if the server says so."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class ChangedError(Exception):
    """The server may have another version than the one a part was asked of."""


def whole_version(headers: Headers, url: str) -> Version:
    """What a 200 offers; raises DownloadError for what can be no weights, TransientError for a
    length that contradicts itself.
    """
    _check_encoding(headers, url)
    if headers.get("Content-Type", "").lower().startswith("text/html"):
        raise web_page(url)
    length = content_length(headers)
    if length is None:
        raise DownloadError(
            f"{clean(url)}: the server does not say how long it is (Content-Length): take it "
            f"from elsewhere with --from"
        )
    if "Transfer-Encoding" in headers:  # against RFC 9112, 6.2; lines after chunks need not end
        raise TransientError("its length is told in two ways")
    return Version(length, headers.get("ETag"), headers.get("Last-Modified"), whole_md5(headers))


def part_end(headers: Headers, url: str, version: Version, start: int, end: int) -> int:
    """Where a 206 for ``[start, end)`` of ``version`` ends; it may be shorter (15.3.7).

    Raises TransientError if it contradicts itself or what was asked for, ChangedError if it is of
    another version, or in chunks, whose end may never come.
    """
    _check_encoding(headers, url)
    if "Transfer-Encoding" in headers:
        raise ChangedError
    etag, modified = headers.get("ETag"), headers.get("Last-Modified")
    if etag not in (None, version.etag) or modified not in (None, version.modified):
        raise ChangedError
    said = headers.get("Content-Range", "").strip()
    found = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", said)
    if found is None:
        raise TransientError(f"a part without a valid Content-Range ({trim(said)})")
    first, last = int(found[1]), int(found[2])
    if found[3] not in ("*", str(version.length)):
        raise ChangedError
    if first != start or not first <= last < end:
        raise TransientError(f"asked for bytes {start}-{end - 1}, got {trim(said)}")
    told = content_length(headers)
    if told is not None and told != last - first + 1:
        raise TransientError(f"{told} bytes announced for {trim(said)}")
    return last + 1


def _check_encoding(headers: Headers, url: str) -> None:
    encoding = headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise DownloadError(
            f"{clean(url)} came {trim(encoding, 40)} encoded, although plain bytes were asked for: "
            f"a proxy may be in between"
        )


def content_length(headers: Headers) -> int | None:
    """None if it is not told; raises TransientError if it is no number, or two."""
    told = headers.get("Content-Length")
    if told is None:
        return None
    values = {value.strip() for value in told.split(",")}
    value = values.pop()
    if values or not re.fullmatch(r"[0-9]{1,18}", value):
        raise TransientError(f"a senseless Content-Length ({trim(told)})")
    return int(value)


def whole_md5(headers: Headers) -> str | None:
    """The MD5 of the whole that Azure sends with every blob; None if it is none."""
    told = headers.get("x-ms-blob-content-md5") or headers.get("Content-MD5")
    try:
        digest = base64.b64decode(told or "", validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest.hex() if len(digest) == 16 else None


def retry_after(headers: Headers) -> float | None:
    """Seconds, from seconds or a date (10.2.3)."""
    told = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", told):
        return float(told)
    try:
        when = parsedate_to_datetime(told)
    except (ValueError, TypeError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())


def redirected(source: str, location: str) -> str:
    """Where a redirect leads; raises DownloadError if it is not to be followed."""
    try:
        target = urljoin(source, location)
        old, new = urlsplit(source), urlsplit(target)
    except ValueError:
        raise DownloadError(f"{clean(source)} redirects to {trim(location, 200)}: no URL") from None
    if new.scheme not in ("http", "https") or not new.hostname:
        raise DownloadError(f"{clean(source)} redirects to {trim(location, 200)}: not followed")
    if old.scheme == "https" and new.scheme != "https":
        raise DownloadError(f"{clean(source)} redirects to plain http, {clean(target)}: refused")
    if _private(new.hostname) and not _private(old.hostname or ""):
        raise DownloadError(
            f"{clean(source)} redirects into this network, {clean(target)}: refused"
        )
    return target


# Endings of names that only this network or machine answers for; names without a dot are such, too.
_INNER_NAMES = (
    ".localhost", ".localdomain", ".localdomain6", ".local", ".internal", ".intranet", ".lan",
    ".home", ".home.arpa", ".corp", ".private",
)  # fmt: skip
_UNSEEN = ("Cf", "Mn", "Cc")  # characters that are left out as names are looked up
_NAT64_OF_A_NETWORK = ipaddress.ip_network("64:ff9b:1::/48")


def _private(host: str) -> bool:
    """Whether a host is of this machine or network, in any form that resolves, such as 127.1."""
    host = unicodedata.normalize("NFKC", unquote(host)).replace("\u3002", ".")  # as it is looked up
    host = "".join(c for c in host if unicodedata.category(c) not in _UNSEEN).strip()
    host = host.rstrip(".").lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(host))  # as the resolver reads numbers
        except OSError:
            return "." not in host or host.endswith(_INNER_NAMES)
    inner = _inner_address(address) if isinstance(address, ipaddress.IPv6Address) else address
    outside = inner.is_global and not inner.is_multicast and address not in _NAT64_OF_A_NETWORK
    return not outside or getattr(address, "is_site_local", False)


def _inner_address(
    address: ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address that a gateway takes from one of IPv6: mapped, 6to4, NAT64, translated."""
    whole = int(address)
    if whole >> 32 in (0, 0xFFFF << 16, 0x64FF9B << 64) and whole > 1:
        return ipaddress.IPv4Address(whole & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def body(response: requests.Response, timeout: float) -> Iterator[bytes]:
    """Blocks as they arrive, so that a cut loses nothing that came before it."""
    since, received = time.monotonic(), 0
    while True:
        try:
            data = response.raw.read1(_BLOCK, decode_content=False)
        except (HTTPError, requests.RequestException, OSError, ValueError) as error:
            raise TransientError(reason(error)) from error
        if not data:
            return
        yield data
        received += len(data)
        if (elapsed := time.monotonic() - since) >= timeout:
            if received < _SLOWEST * elapsed:
                raise TransientError(f"only {received:,} bytes came in {elapsed:.0f} s")
            since, received = time.monotonic(), 0


def reason(error: BaseException) -> str:
    """Why a connection failed, in the system's own words where there are any."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (requests.Timeout, ReadTimeoutError, TimeoutError)):
            return "no bytes came in time"
        if isinstance(cause, (IncompleteRead, http.client.IncompleteRead)):
            return "the connection was cut"
        if isinstance(cause, http.client.RemoteDisconnected):
            return "the connection was closed without an answer"
        if isinstance(cause, http.client.HTTPException):
            return "the answer is no proper HTTP"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def unresolved(error: BaseException) -> bool:
    """Whether no server of that name was found."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def clean(url: str) -> str:
    """A URL without what may be secret: user, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def web_page(url: str) -> DownloadError:
    return DownloadError(
        f"{clean(url)} is a web page, not weights: a login or an error page may be in between"
    )
