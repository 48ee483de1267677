"""From a name to weights that are here: download, verify, convert, clean up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from adm_cli.checkpoints.converting import convert
from adm_cli.checkpoints.downloads import (
    KnownHash,
    Listener,
    RemoteFile,
    TakenError,
    check_file,
    download,
    one_at_a_time,
    refused_path,
)
from adm_cli.checkpoints.fetched import (
    FetchOptions,
    Pin,
    choose_how,
    clean_up,
    copy_file,
    no_network,
    original_path,
    pin_path,
    read_pin,
    scratch_folder,
    write_pin,
    zip_is_intact,
)
from adm_cli.checkpoints.finding import check_is
from adm_cli.checkpoints.header import read_model_file, verify_content
from adm_cli.checkpoints.http import clean
from adm_cli.checkpoints.identity import byte_range
from adm_cli.checkpoints.loading import expected_shapes
from adm_cli.checkpoints.partial import partial_bytes
from adm_cli.checkpoints.places import check_home, checkpoint_path
from adm_cli.checkpoints.presets import (
    CHECKPOINTS,
    INCEPTION,
    ORIGINALS,
    PRESETS,
    TERMS,
    Checkpoint,
    find_checkpoint,
)
from adm_cli.errors import (
    AdmError,
    CheckpointError,
    DownloadError,
    OutputError,
    UsageError,
    did_you_mean,
)
from adm_cli.events import AnyPath, Note, OnEvent, Transfer, ignore
from adm_cli.files.disk import (
    adm_home,
    file_stamp,
    free_disk,
    inception_path,
    move_into_place,
    size_text,
)
from adm_cli.files.strict import type_checked

_LOOKS = 3  # at a file that another process takes away, where locks do nothing


@dataclass(frozen=True)
class Item:
    """A published file and the place of what is made of it."""

    name: str
    file: str
    url: str
    place: Path
    terms: str
    row: Checkpoint | None  # None: kept as published

    @property
    def original(self) -> Path:
        return original_path(self.file)


@dataclass(frozen=True)
class FetchResult:
    name: str
    path: Path
    was_here: bool
    bytes: int = 0  # of the original
    sha256: str = ""
    verified: str = ""  # against what


def find_items(names: Sequence[str]) -> list[Item]:
    """What presets, checkpoint names, "all" and "inception" stand for, each once.

    Raises UsageError for a name that is none of them, or that ships with the program.
    """
    published = [row.name for row in CHECKPOINTS if not row.embedded]
    presets = {row.name: row.checkpoints for row in PRESETS}
    found: dict[str, Item] = {}
    for name in names:
        if name == INCEPTION.name:
            found[name] = _inception()
            continue
        members = published if name == "all" else presets.get(name, (name,))
        known = {row.name for row in CHECKPOINTS}
        if not known.issuperset(members):
            words = [*presets, *published, "all", INCEPTION.name]
            raise UsageError(
                f"nothing is published as {name!r}{did_you_mean(name, words)} "
                f"(adm models lists the presets, adm fetch all --dry-run the files)"
            )
        for row in map(find_checkpoint, members):
            if not row.embedded:
                found[row.name] = _item(row)
        if not set(members) & set(published):
            raise UsageError(f"{name} ships with adm: there is nothing to fetch")
    return list(found.values())


def _item(row: Checkpoint) -> Item:
    file = f"{row.name}.pt"
    return Item(row.name, file, f"{ORIGINALS}/{file}", checkpoint_path(row), TERMS, row)


def _inception() -> Item:
    file = INCEPTION.url.rpartition("/")[2]
    return Item(INCEPTION.name, file, INCEPTION.url, inception_path(), INCEPTION.terms, None)


def file_url(item: Item, how: FetchOptions) -> str:
    """Where an item's file comes from: a URL, or a path where ``how.source`` is a folder.

    The query of a base URL (an access token) stays.
    """
    if how.source is None:
        return item.url
    if how.local:
        return str(Path(how.source) / item.file)
    parts = urlsplit(how.source)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{item.file}", fragment=""))


def wanted(item: Item, how: FetchOptions) -> RemoteFile:
    """What is known of an item's file, as published and from an earlier fetch."""
    published = item.row if item.row is not None else INCEPTION
    known = [KnownHash("sha256", published.sha256, "as published")] if published.sha256 else []
    if item.row is not None and item.row.md5:
        known.append(KnownHash("md5", item.row.md5, "as published"))
    smallest = largest = published.file_bytes or 0
    if item.row is not None and not smallest:
        smallest, largest = byte_range(item.row, len(expected_shapes(item.row.config)))
    pin = None if published.sha256 or how.accept_changed else read_pin(item.name)
    if pin is not None:
        advice = (
            f"--accept-changed takes it in its place, if you know why it changed "
            f"(recorded in {pin_path(item.name)})"
        )
        known.append(
            KnownHash("sha256", pin.sha256, f"as fetched {pin.date} from {pin.source}", advice)
        )
    return RemoteFile(file_url(item, how), smallest, largest, tuple(known))


def present(item: Item, watch: Listener) -> bool:
    """Whether the result is here and undamaged; tells of damage.

    Raises CheckpointError for a whole file that is another model, which somebody put there.
    """
    if not item.place.is_file():
        return False
    try:
        if item.row is None:
            check_file(item.place, wanted(item, FetchOptions()))
            return True
        model = read_model_file(item.place)
        verify_content(model)
    except AdmError as error:
        watch.tell(f"{error}; fetching it")
        return False
    check_is(model, item.row)
    return True


def missing_bytes(items: Sequence[Item], how: FetchOptions) -> int:
    """Disk space that fetching needs at most at a time, beyond what is taken already."""
    needed = originals = 0
    for item in items:
        if item.place.is_file() and not how.overwrite:
            continue
        size = size_of(item)
        here = size if item.original.is_file() else partial_bytes(item.original)
        original = 0 if how.local else max(0, size - here)
        originals = originals + original if how.keep_original else max(originals, original)
        needed += size
    return needed + originals


def size_of(item: Item) -> int:
    return INCEPTION.file_bytes if item.row is None else item.row.size


def check_space(items: Sequence[Item], how: FetchOptions) -> None:
    """Raises OutputError, before any work, where the disk is too small."""
    needed, free = missing_bytes(items, how), free_disk(adm_home())
    if needed > free:
        raise OutputError(
            f"{size_text(needed)} are needed in {adm_home()}, {size_text(free)} are free: "
            f"make room, fetch fewer at a time, or set ADM_HOME to a folder on another disk"
        )


def check_network(items: Sequence[Item], how: FetchOptions) -> None:
    """Raises DownloadError where --offline or ADM_OFFLINE forbids what would be needed."""
    forbidden = no_network(how)
    if forbidden is None or how.local:
        return
    lacking = [
        item.file
        for item in items
        if (how.overwrite or not item.place.is_file()) and not item.original.is_file()
    ]
    if lacking:
        raise DownloadError(
            f"{forbidden}, and {', '.join(lacking)} must be downloaded: go without it, or pass "
            f"--from FOLDER with the files"
        )


@type_checked
def fetch(
    names: str | Sequence[str],
    *,
    source: AnyPath | None = None,
    keep_original: bool = False,
    accept_changed: bool = False,
    overwrite: bool = False,
    retries: int = 6,
    timeout: float = 30.0,
    offline: bool = False,
    on_event: OnEvent = ignore,
) -> list[FetchResult]:
    """Brings published files here: downloaded (or taken from ``source``), verified, converted.

    ``names`` are presets, checkpoint names, "all" and "inception"; what is here already and
    undamaged is not fetched again. ``on_event`` takes `Note`, `Transfer` and each `FetchResult` as
    it is done. Raises UsageError for unknown names; DownloadError, CheckpointError or OutputError
    for what could not be brought: what is good of a download stays, and is gone on with.
    """
    items = find_items([names] if isinstance(names, str) else names)
    how = choose_how(source, keep_original, overwrite, accept_changed, retries, timeout, offline)
    for terms in dict.fromkeys(item.terms for item in items):
        on_event(Note(terms))
    check_network(items, how)
    check_space(items, how)
    found = []
    for item in items:
        found.append(fetch_item(item, how, _watch(item, on_event)))
        on_event(found[-1])
    return found


def _watch(item: Item, on_event: OnEvent) -> Listener:
    return Listener(
        lambda text: on_event(Note(text)),
        lambda here, length: on_event(Transfer(item.name, here, length)),
    )


def fetch_item(item: Item, how: FetchOptions, watch: Listener) -> FetchResult:
    """Brings an item here, or finds that it is.

    Raises DownloadError, CheckpointError or OutputError; whatever is good of the download stays.
    """
    check_home()
    before = _stamp(item.place)
    if not how.overwrite and present(item, watch):
        return FetchResult(item.name, item.place, was_here=True)
    with one_at_a_time(item.original, watch.tell):
        if not how.overwrite and _stamp(item.place) != before and present(item, watch):
            return _found(item)
        for _ in range(_LOOKS):
            try:
                return _fetch(item, how, watch)
            except (TakenError, FileNotFoundError):
                if present(item, watch):
                    return _found(item)
        raise DownloadError(f"other processes keep taking {item.original} away: try again later")


def _found(item: Item) -> FetchResult:
    clean_up(item.original, item.place.parent, keep_original=True)
    return FetchResult(item.name, item.place, was_here=True)


def _fetch(item: Item, how: FetchOptions, watch: Listener) -> FetchResult:
    want = wanted(item, how)
    source = Path(want.url) if how.local else item.original
    if how.local:
        if not source.is_file():
            raise DownloadError(f"--from {how.source} has no {item.file}")
        digests = check_file(source, want)
    else:
        digests = _whole_original(item, want, how, watch) or _download(item, want, how, watch)
    size, before = source.stat().st_size, (_stamp(source), _stamp(item.place))
    origin = str(source.resolve()) if how.local else clean(want.url)
    pin = Pin(digests["sha256"], size, origin, date.today().isoformat())
    try:
        verified = _verified(source, want, digests)
        _install(item, source, pin)
    except CheckpointError as error:
        if not source.is_file() or (_stamp(source), _stamp(item.place)) != before:
            raise TakenError(f"{source} was taken away or replaced") from None
        if how.local:
            raise
        refused = refused_path(source)
        move_into_place(source, refused)
        raise CheckpointError(f"{error}; it is kept as {refused}") from None
    keep = how.keep_original or (how.local and source.resolve() == item.original.resolve())
    clean_up(item.original, item.place.parent, keep_original=keep)
    return FetchResult(item.name, item.place, False, size, digests["sha256"], verified)


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is replaced or written to; None where there is none."""
    try:
        return file_stamp(path)
    except OSError:
        return None


def _whole_original(
    item: Item, want: RemoteFile, how: FetchOptions, watch: Listener
) -> dict[str, str] | None:
    """Of a download that is whole: kept on purpose, by a failure after it, or refused before."""
    refused = refused_path(item.original)
    if how.accept_changed and refused.is_file() and not item.original.is_file():
        move_into_place(refused, item.original)
    if not item.original.is_file():
        return None
    try:
        return check_file(item.original, want)
    except DownloadError as error:
        move_into_place(item.original, refused)
        watch.tell(str(error))
        return None


def _download(item: Item, want: RemoteFile, how: FetchOptions, watch: Listener) -> dict[str, str]:
    if forbidden := no_network(how):
        raise DownloadError(f"{forbidden}, and {item.file} must be downloaded: pass --from FOLDER")
    return download(want, item.original, patience=how.patience, watch=watch)


def _verified(source: Path, want: RemoteFile, digests: dict[str, str]) -> str:
    """What vouches for a file: a known hash, the server's, or at least its own checksums."""
    if want.known:
        return ", ".join(f"{k.algorithm} {k.source}" for k in want.known)
    if "md5" in digests:
        return "md5 as the server says, names, shapes"
    if not zip_is_intact(source):
        return "names, shapes"
    return "crc32 of its parts, names, shapes"


def _install(item: Item, source: Path, pin: Pin) -> None:
    """Make the result, from exactly the file that was verified, and move it into its place.

    Its hash is recorded just before: what is in place is never without.
    """
    if item.row is None:
        write_pin(item.name, pin)
        copy_file(source, item.place, pin.sha256)
        return
    with scratch_folder(item.place) as folder:
        made = convert(source, preset=item.row.name, output=folder / item.place.name)
        if made.info.source["sha256"] != pin.sha256:
            raise TakenError(f"{source} changed while it was converted: run the command again")
        write_pin(item.name, pin)
        move_into_place(made.path, item.place)
