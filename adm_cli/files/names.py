"""Names of files in a folder that anyone may have written."""

from __future__ import annotations

from adm_cli.errors import UsageError


def check_name(name: object) -> str:
    """A name that stays inside its folder; raises UsageError for any other."""
    if (
        not isinstance(name, str)
        or not name
        or len(name.encode(errors="surrogateescape")) > 240
        or name.startswith(".")
        or not name.isprintable()
        or any(c in name for c in '/\\:*?"<>|')
    ):
        raise UsageError(f"{name!r:.80} cannot be the name of an image in a run")
    return name
