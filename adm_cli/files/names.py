"""Names of files in a folder that anyone may have written."""

from __future__ import annotations

import re
import unicodedata

from adm_cli.errors import UsageError, trim

_MOST_LABEL = 40
_REFUSED = frozenset('/\\:*?"<>|')


def check_name(name: object) -> str:
    """A name that stays inside its folder; raises UsageError for any other."""
    if (
        not isinstance(name, str)
        or not name
        or len(name if name.isascii() else name.encode(errors="surrogateescape")) > 240
        or name.startswith(".")
        or not name.isprintable()
        or not _REFUSED.isdisjoint(name)
    ):
        raise UsageError(f"{trim(name, 80)} cannot be the name of an image in a run")
    return name


def file_label(text: str) -> str:
    """What a text is called within a file's name: ``golden-retriever``; "" where nothing is left.

    Lower-case letters a to z, digits and "-", at most 40 of them. No digits follow "seed", so that
    the seed in a name stays the only one.
    """
    plain = unicodedata.normalize("NFKD", text.casefold()).encode("ascii", "ignore").decode()
    label = re.sub("[^a-z0-9]+", "-", plain.replace("'", "")).strip("-")
    return re.sub(r"seed(?=\d)", "seed-", label)[:_MOST_LABEL].strip("-")
