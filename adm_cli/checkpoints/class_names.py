"""Names of a model's classes, as ``adm convert --classes`` takes them."""

from __future__ import annotations

import re
from pathlib import Path

from adm_cli.classes.imagenet import imagenet_names, select_classes
from adm_cli.errors import UsageError, trim
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
        lines = read_text(path).split("\n")
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', error)}") from None
    found: dict[int, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            class_id, name = _id_and_name(line)
        except ValueError:
            raise UsageError(
                f"{path}, line {number}: expected an id and a name, such as 207 golden retriever, "
                f"got {trim(line.strip())}"
            ) from None
        if class_id in found:
            raise UsageError(f"{path}, line {number}: the id {class_id} is there twice")
        found[class_id] = name
    return found


def _id_and_name(line: str) -> tuple[int, str]:
    """The parts of a line, with white space, a tab, a comma or a semicolon between them."""
    class_id, name = re.split(r"\s*[;,\t]\s*|\s+", line.strip(), maxsplit=1)
    return whole_text(class_id), name.strip().strip('"')
