"""What is in an original `.pt`, unpickled without running code, and without its traps.

Only tensors and plain containers are ever unpickled (``weights_only=True``), and only by a torch
whose unpickler has no known hole (CVE-2025-32434, CVE-2026-24747). Before that, the instructions
are counted: numbers that collide as keys, or a million lists, would take any time. After it,
nothing is left of what a pickle may do to plain objects: methods replaced by entries, views that
are negated when they are read.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from adm_cli.checkpoints.header import MOST_ENTRIES, zip_of_others
from adm_cli.devices import free_bytes
from adm_cli.errors import CheckpointError, trim, why_unread
from adm_cli.files.budget import MOST_TEXT, LimitedFile, TooMuchError, counted
from adm_cli.files.disk import open_file
from adm_cli.files.foreign import describe_global
from adm_cli.files.zips import ForeignZip

_MOST_DEPTH = 50
_MOST_INSTRUCTIONS = 3_000_000  # some 30 a tensor
_MOST_LARGE = 10_000  # whole numbers of over 32 bits, which can be made to collide as keys
_PICKLES = 5  # before the data of a file as torch before 1.6 wrote it


def load_pickle(path: Path, *, zipped: bool) -> object:
    """Tensors, numbers and texts in plain dictionaries and lists.

    In memory of their own (see `stored`); a zip that takes over half of what is free is mapped.

    Raises CheckpointError for anything else.
    """
    if torch_version() < (2, 10):
        raise CheckpointError(
            f"reading .pt files safely needs torch 2.10 or later, this is {torch.__version__}: "
            f"pip install 'torch>=2.10'"
        )
    try:
        (_check_zip if zipped else _check_bare)(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: read or refused, nothing between
            mapped = zipped and 2 * path.stat().st_size > free_bytes(torch.device("cpu"))
            mapped &= path.suffix != ".safetensors"  # which torch would believe
            with open_file(path) as file:
                source = path if mapped else file
                loaded = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
        return _plain(loaded, counted(iter(int, 1), "entries in one another", MOST_ENTRIES), 0)
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error):  # of protocols above 2, or of a program
            raise CheckpointError(
                f"{path} is pickled as torch.save does not by itself: refused, since it could run "
                f"code; where it was made, torch.save(weights, 'weights.pt') without "
                f"pickle_protocol= writes what can be read"
            ) from None
        found = re.search(r"GLOBAL (\S+)", str(error))
        detail = f" ({found[1]:.80})" if found else ""
        raise CheckpointError(
            f"{path} holds more than tensors{detail}: refused, since it could run code"
            f"{describe_global(found[1]) if found else ''}"
        ) from None
    except CheckpointError:
        raise
    except TooMuchError as error:
        raise CheckpointError(f"{path} is no file of weights: {error}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # torch's readers raise many kinds for damaged files
        why = why_unread(error, "").split(". ")[0]
        raise CheckpointError(
            f"{path} is damaged or cut short{f' ({why:.160})' * bool(why)}: download it again"
        ) from None


def torch_version() -> tuple[int, int]:
    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(minor)


def open_zip(path: Path) -> ForeignZip:
    """A zip that torch may have written: it compresses nothing.

    Raises CheckpointError for any other, and what else a damaged zip raises.
    """
    file = ForeignZip(path, 2 * MOST_ENTRIES)
    for entry in file.infolist():
        if entry.file_size != entry.compress_size:
            file.close()
            raise CheckpointError(
                f"{path}: {trim(entry.filename, 80)} is compressed, and could unfold to any size: "
                f"expected a file as torch.save writes it"
            )
    return file


def _check_zip(path: Path) -> None:
    if foreign := zip_of_others(path):
        raise CheckpointError(f"{path} {foreign}")
    with open_zip(path) as file:
        for entry in file.infolist():
            if entry.filename.endswith("data.pkl"):
                with file.open(entry) as opened:
                    _check_instructions(opened)


def _check_bare(path: Path) -> None:
    with open_file(path) as file:
        for _ in range(_PICKLES):
            if not _check_instructions(file):
                return


def _check_instructions(file: IO[bytes]) -> bool:
    """Counts a pickle's instructions; False if it is damaged, which torch tells better.

    Raises TooMuchError.
    """
    large = 0
    limited: Any = LimitedFile(file, MOST_TEXT)
    try:
        instructions: Iterator[Any] = pickletools.genops(limited)
        for _, value, _ in counted(instructions, "instructions", _MOST_INSTRUCTIONS):
            large += type(value) is int and abs(value) >= 2**32
            if large > _MOST_LARGE:
                raise TooMuchError(f"over {_MOST_LARGE:,} large numbers")
    except TooMuchError:
        raise
    except Exception:  # of whatever damage
        return False
    return True


def _plain(value: object, left: Iterator[int], depth: int) -> object:
    """The same in plain containers, whose methods and those of tensors are their types'.

    ``left`` is drawn from for every entry.
    """
    next(left)
    if depth > _MOST_DEPTH:
        raise TooMuchError("too many containers in one another")
    if isinstance(value, Tensor):
        # a view may be negated or conjugated when it is read; entries of its own are left behind
        return Tensor.resolve_neg(Tensor.resolve_conj(Tensor.detach(value)))
    if isinstance(value, dict):
        return {key: _plain(inner, left, depth + 1) for key, inner in dict.items(value)}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(inner, left, depth + 1) for inner in value]
    return value
