"""What `adm fetch` and `adm convert` left under ADM_HOME: listed, hashed, removed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adm_cli.checkpoints.finding import check_is
from adm_cli.checkpoints.header import file_sha256, read_model_file, verify_content
from adm_cli.checkpoints.places import check_home
from adm_cli.checkpoints.presets import CHECKPOINTS, INCEPTION
from adm_cli.errors import CheckpointError, UsageError, did_you_mean, trim
from adm_cli.files.disk import adm_home, explained, inception_path, models_folder
from adm_cli.files.links import remove

MODEL, NETWORK, DOWNLOAD = "model", "network of FID", "download"


@dataclass(frozen=True)
class Kept:
    """A file that is kept, under the name that commands know it by."""

    name: str
    kind: str  # MODEL, NETWORK or DOWNLOAD: an original, or a part of one
    path: Path
    bytes: int


def kept_files() -> list[Kept]:
    """All of them, models first."""
    downloads = adm_home() / "downloads"
    found = [
        *((path.stem, MODEL, path) for path in _files(models_folder().glob("*.safetensors"))),
        *((INCEPTION.name, NETWORK, path) for path in _files([inception_path()])),
        *((path.name, DOWNLOAD, path) for path in _files(downloads.glob("*"))),
    ]
    return [Kept(name, kind, path, path.stat().st_size) for name, kind, path in found]


def _files(paths: Iterable[Path]) -> list[Path]:
    return sorted(p for p in paths if p.is_file() and not p.name.endswith((".lock", ".json")))


def choose_kept(names: Sequence[str]) -> list[Kept]:
    """Those of the names; "all", or "downloads" for what is no model yet. Raises UsageError."""
    there = kept_files()
    groups = {"all": there, "downloads": [file for file in there if file.kind == DOWNLOAD]}
    chosen: dict[Path, Kept] = {}
    for name in names:
        found = groups.get(name) or [file for file in there if file.name == name]
        if not found and name not in groups:
            hint = did_you_mean(name, [file.name for file in there])
            raise UsageError(
                f"{trim(name, 80)} is not kept in {adm_home()}{hint} (adm cache lists)"
            )
        chosen |= {file.path: file for file in found}
    return list(chosen.values())


def verify_kept(file: Kept) -> bool:
    """Whether a file is what its own record or the publisher says.

    Raises CheckpointError for damage, or another model by a published name; False where nothing
    is recorded of it.
    """
    if file.kind == MODEL:
        model = read_model_file(file.path)
        verify_content(model)
        for row in CHECKPOINTS:
            if row.name == file.name:
                check_is(model, row)
        return True
    if file.kind == NETWORK and file.path.name in INCEPTION.url:
        if file_sha256(file.path) != INCEPTION.sha256:
            raise CheckpointError(f"{file.path} is damaged: adm fetch inception --overwrite")
        return True
    return False


def remove_kept(file: Kept) -> None:
    """Raises OutputError where it cannot be removed, or is reached by a link (`check_home`)."""
    if file.kind == DOWNLOAD:
        check_home()
    with explained(f"cannot remove {file.path}"):
        remove(file.path)
        if file.kind == DOWNLOAD:
            remove(file.path.with_name(f"{file.path.name}.json"))
