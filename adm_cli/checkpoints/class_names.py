"""Names of a model's classes, as ``adm convert --classes`` takes them."""

from __future__ import annotations

import re
from pathlib import Path

from adm_cli.classes.imagenet import imagenet_names, select_classes
from adm_cli.errors import UsageError
from adm_cli.files.budget import whole_text
from adm_cli.files.disk import read_text


def read_classes(spec: str) -> dict[int, str]:
    """Ids and names of ImageNet's classes as ``--class`` selects them, or what ``@FILE`` lists.

    The file has an id and a name a line. Raises UsageError.
    """
    if not spec.startswith("@"):
        names = imagenet_names()
        return {i: names[i] for i in select_classes(spec, names)}
    path = Path(spec[1:])
    try:
        pairs = [_id_and_name(line) for line in read_text(path).split("\n") if line.strip()]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError:
        raise UsageError(f"{path}: expected an id and a name on every line") from None
    if len(dict(pairs)) != len(pairs):
        raise UsageError(f"{path}: an id is there more than once")
    return dict(pairs)


def _id_and_name(line: str) -> tuple[int, str]:
    """The parts of a line, with white space, a tab, a comma or a semicolon between them."""
    class_id, name = re.split(r"\s*[;,\t]\s*|\s+", line.strip(), maxsplit=1)
    return whole_text(class_id), name.strip().strip('"')
