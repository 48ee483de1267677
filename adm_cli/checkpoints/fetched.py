"""What `adm fetch` takes and keeps under ADM_HOME: originals on their way, their first hashes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from adm_cli.checkpoints.downloads import RetryPolicy
from adm_cli.checkpoints.partial import remove_partials
from adm_cli.checkpoints.pickles import open_zip
from adm_cli.errors import (
    CheckpointError,
    DownloadError,
    UsageError,
    trim,
    why_unread,
)
from adm_cli.events import AnyPath
from adm_cli.files.budget import parse_json
from adm_cli.files.disk import (
    adm_home,
    atomic_write,
    explained,
    make_folder,
    read_text,
)
from adm_cli.files.links import check_inside, remove

_STALE = 86_400  # seconds after which what a killed process left is nobody's
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Pin:
    """The file that was taken for ``name`` first; later ones must be the same."""

    sha256: str
    bytes: int
    source: str  # URL or path
    date: str


def original_path(file: str) -> Path:
    return adm_home() / "downloads" / file


def pin_path(name: str) -> Path:
    return adm_home() / "fetched" / f"{name}.json"


def read_pin(name: str) -> Pin | None:
    """Raises DownloadError for a record that cannot be read."""
    path = pin_path(name)
    try:
        facts = parse_json(read_text(path))
        return Pin(str(facts["sha256"]), int(facts["bytes"]), facts["source"], facts["date"])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DownloadError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
        raise DownloadError(
            f"{path} is damaged; it recorded the hash of {name}: remove it to trust the next file"
        ) from None


def write_pin(name: str, pin: Pin) -> None:
    with atomic_write(pin_path(name)) as file:
        file.write(json.dumps(asdict(pin), indent=1).encode())


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """A folder of this process alone beside ``target``; removed with all in it."""
    make_folder(target.parent)
    with explained(f"cannot write to {target.parent}"):
        folder = Path(tempfile.mkdtemp(prefix=".adm-", suffix=".scratch", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clean_up(original: Path, models: Path, *, keep_original: bool) -> None:
    """After a success: what was not finished or refused before, and killed processes' leftovers.

    Raises OutputError for what cannot be removed.
    """
    unwanted = [original.with_name(f"{original.name}.refused")]
    unwanted += [] if keep_original else [original]
    with explained(f"the model is in place, but what is beside {original} cannot be removed"):
        remove_partials(original)
        for path in unwanted:
            remove(path)
    oldest = time.time() - _STALE
    for folder in (original.parent, models):
        check_inside(folder)
        for path in folder.glob(".adm-*"):
            with suppress(OSError):
                if path.stat().st_mtime < oldest:
                    shutil.rmtree(path) if path.is_dir() else remove(path)


def copy_file(source: Path, target: Path, sha256: str) -> None:
    """A copy whose hash is checked as it is written; raises DownloadError if it differs."""
    digest = hashlib.sha256()
    with source.open("rb") as file, atomic_write(target) as copy:
        while block := file.read(_BLOCK):
            digest.update(block)
            copy.write(block)
        if digest.hexdigest() != sha256:
            raise DownloadError(f"{source} changed while it was copied: run the command again")


def zip_is_intact(path: Path) -> bool:
    """Whether every member of a zip matches its CRC-32; False for what is no zip, such as a `.pt`
    of the old format. Raises CheckpointError for damage."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return False
    try:
        with open_zip(path) as archive:  # nothing in it unfolds
            damage = archive.testzip()
    except CheckpointError:
        raise
    except Exception as error:  # damaged archives raise many kinds
        raise CheckpointError(
            f"{path} is damaged ({why_unread(error, 'cut short'):.80}): fetch it again"
        ) from None
    if damage is not None:
        raise CheckpointError(f"{path} is damaged (in {trim(damage, 80)}): fetch it again")
    return True


@dataclass(frozen=True)
class FetchOptions:
    """Options of a fetch: ``source`` a folder or URL with the files, None for the publisher's."""

    source: str | None = None
    keep_original: bool = False
    overwrite: bool = False
    accept_changed: bool = False
    patience: RetryPolicy = field(default_factory=RetryPolicy)
    offline: bool = False  # as ADM_OFFLINE asks for, too

    @property
    def local(self) -> bool:
        return self.source is not None and "://" not in self.source


def choose_how(
    source: AnyPath | None, keep_original: bool, overwrite: bool, accept_changed: bool,
    retries: int, timeout: float, offline: bool,
) -> FetchOptions:  # fmt: skip
    """The options of a fetch; raises UsageError for impossible ones."""
    place = None if source is None else str(source)
    check_source(place)
    if not math.isfinite(timeout) or timeout < 1:
        raise UsageError(f"--timeout must be a number of seconds, at least 1, got {timeout}")
    if retries < 0:
        raise UsageError(f"--retries must be at least 0, got {retries}")
    patience = RetryPolicy(timeout=timeout, retries=retries)
    return FetchOptions(place, keep_original, overwrite, accept_changed, patience, offline)


def check_source(source: str | None) -> None:
    """Raises UsageError for a ``--from`` that is neither a folder nor a URL."""
    if source is None:
        return
    if "://" not in source:
        if not Path(source).is_dir():
            what = "a file" if Path(source).exists() else "not there"
            raise UsageError(f"--from {source} is {what}, expected a folder or an https:// URL")
        return
    try:
        parts = urlsplit(source)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"--from {trim(source, 200)}: expected a folder or an https:// URL")


def no_network(how: FetchOptions) -> str | None:
    """What forbids it, in words; None if nothing does."""
    if how.offline:
        return "--offline was passed"
    return "ADM_OFFLINE is set" if os.environ.get("ADM_OFFLINE", "0") not in ("", "0") else None
