"""Every error a user can meet.

    AdmError                  exit code 1: foreseen, one line on stderr, no traceback
    ├── UsageError            exit code 2: an option or argument is wrong
    │   └── ConfigError       a model, diffusion or sampling setting is impossible
    ├── CheckpointError       a weights file is damaged, unsafe, or not the model it should be
    ├── MissingWeightsError   a known model whose file is not on this machine
    ├── DownloadError         a file that could not be fetched, or is not the one expected
    ├── DeviceError           a device that is not there, or not enough memory on it
    ├── NotFiniteError        images that are none: a network or its guidance overflowed
    ├── RunError              a run folder that is damaged, in use, or made with other settings
    └── OutputError           a file or folder that cannot be written

A message states what was expected, what came, and the command or option that mends it.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable, Sequence


class AdmError(Exception):
    """Base of all foreseen errors."""

    exit_code = 1


class UsageError(AdmError):
    exit_code = 2


class ConfigError(UsageError, ValueError):
    pass


class CheckpointError(AdmError):
    pass


class MissingWeightsError(AdmError):
    published: tuple[str, ...] = ()  # those that `adm fetch` brings


class DownloadError(AdmError):
    pass


class DeviceError(AdmError):
    pass


class NotFiniteError(AdmError):
    """Images whose network or guidance overflowed; raised once all others are there."""


class RunError(AdmError):
    pass


class OutputError(AdmError):
    pass


def size_words(size: Sequence[int]) -> str:
    """A height and a width as pictures are spoken of, the width first: ``"64x48"``."""
    height, width = size
    return f"{width}x{height}"


def trim(value: object, most: int = 60) -> str:
    """A value as Python writes it, in about ``most`` characters: ``'abc'...`` where it is longer.

    The quote of a text that was cut is closed, so that it shows where the value ends.
    """
    text = repr(value)
    if len(text) <= most:
        return text
    if not isinstance(value, str):
        return f"{text[:most]}..."
    shown = value[:most]
    while len(repr(shown)) > most:
        shown = shown[:-1]
    return f"{shown!r}..."


def how_many(count: float, noun: str, plural: str = "") -> str:
    """ "1 picture", "1,200 pictures", "1.5 epochs"; ``plural``: where it is not noun and an s."""
    digits = ",.0f" if count >= 10 or count == round(count) else ".1f" if count >= 0.1 else ".1g"
    shown = f"{count:{digits}}".removesuffix(".0")
    return f"{shown} {noun if shown == '1' else plural or f'{noun}s'}"


# What Python and its libraries say of values of other types, which nobody who has a file can use.
_OF_PYTHON = re.compile(
    r"object is not|object has no|object can|not supported|unsupported operand|invalid literal"
    r"|argument must be|must be (?:str|real)|indices must|unhashable|can't convert"
    r"|could not convert|not enough values|too many values|index out of range|NoneType|\bb['\"]"
)


def why_unread(error: BaseException, otherwise: str = "a value of another type") -> str:
    """Why a file cannot be read, in words; ``otherwise`` where there are none but Python's own."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        what = error.msg[:1].lower() + error.msg[1:].removesuffix(" at")
        return f"{what} at line {error.lineno}, column {error.colno}"
    text = (str(error).splitlines() or [""])[0].rstrip(".")
    if isinstance(error, KeyError):
        return f"no {text}"
    own = isinstance(error, AdmError) or (text and not _OF_PYTHON.search(text))
    return text if own else otherwise


def check_keywords(function: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raises TypeError, as Python does, for a keyword that a function has not, with the nearest."""
    for name in given:
        if name not in known:
            raise TypeError(f"{function}() has no keyword {name!r}{did_you_mean(name, known)}")


def one_of(names: Iterable[object], word: str = "or") -> str:
    """ "png", "png or webp", "png, webp or npz"; ``word`` may be an "and"."""
    *first, last = map(str, names)
    return f"{', '.join(first)} {word} {last}" if first else last


_KINDS = {
    "NoneType": "nothing", "bool": "true or false", "int": "a number", "float": "a number",
    "str": "a text", "list": "a list", "tuple": "a list", "dict": "a dictionary",
    "Tensor": "a tensor",
}  # fmt: skip


def kind_of(value: object) -> str:
    """What a value is, for who has the file it is in: ``"a list"``, ``"a number"``."""
    return _KINDS.get(type(value).__name__, "an object of another kind")


def told_of(path: object, text: str) -> str:
    """``"x.png: not a picture"``: what is wrong with a file, which is named once."""
    return text if str(path) in text else f"{path}: {text}"


def are(count: int) -> str:
    """The verb of so many things."""
    return "is" if count == 1 else "are"


def an(noun: str) -> str:
    """ "a classifier", "an upsampler"."""
    return f"{'an' if noun[:1] in tuple('aeiou') else 'a'} {noun}"


def did_you_mean(word: str, known: Iterable[str], *, alike: float = 0.5) -> str:
    """``"; did you mean a, b?"`` for the nearest of ``known``, or an empty string.

    ``alike``: how near, from 0 to 1 (`difflib.SequenceMatcher.ratio`).
    """
    lowered = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), lowered, n=3, cutoff=alike)
    return f"; did you mean {', '.join(lowered[name] for name in near)}?" if near else ""
