"""Names of image files: a label of the class, the image's own scales, its seed."""

from __future__ import annotations

import re
from functools import lru_cache

from adm_cli.classes.mixtures import heaviest
from adm_cli.files.names import file_label

_SEED = re.compile(r"seed(\d{6,})", re.ASCII)


def class_label(class_id: int | None, name: str = "") -> str:
    """``0207_golden-retriever_``; ``class0207_`` without a name, and nothing without a class."""
    if class_id is None:
        return ""
    word = file_label(name)
    if word in ("", f"{class_id}", f"class-{class_id}"):
        return f"class{class_id:04d}_"
    return f"{class_id:04d}_{word}_"


def mixture_label(mixture: str, name: str) -> str:
    """``0207x0.7+0281x0.3_golden-retriever-tabby-cat_``."""
    terms = (term.partition("*") for term in mixture.split("+"))
    ids = "+".join(f"{int(i):04d}{star and 'x'}{weight}" for i, star, weight in terms)
    return f"{ids}_{file_label(name)}_"


@lru_cache(maxsize=4096)  # a run of a million images has hardly more classes
def chosen_class(choice: int | str | None, name: str) -> tuple[str, int | None, str | None]:
    """The label of a file, the class, and the mixture where ``choice`` is one, as a text."""
    if isinstance(choice, str):
        return mixture_label(choice, name), heaviest(choice), choice
    return class_label(choice, name), choice, None


def image_name(label: str, seed: int, suffix: str, **own: float) -> str:
    """``0207_golden-retriever_seed000000.png``; with its own scale ``..._scale2.5_seed000000.png``.

    ``label`` is `class_label`'s.
    """
    if not own:
        return f"{label}seed{seed:06d}{suffix}"
    parts = "".join(f"{name}{repr(float(v)).removesuffix('.0')}_" for name, v in own.items())
    return f"{label}{parts}seed{seed:06d}{suffix}"


def split_name(file: str) -> tuple[str, int, str] | None:
    """What stands before the seed in a name, the seed, and what follows; None without just one."""
    found = _SEED.search(file)
    if found is None or _SEED.search(file, found.end()):
        return None
    digits = found[1]
    if len(digits) > 6 and digits[0] == "0":  # not as `image_name` writes it
        return None
    return file[: found.start()], int(digits), file[found.end() :]


def class_word(file: str) -> str:
    """How a file's name calls its class: ``golden retriever``; "" where it does not."""
    parts = split_name(file)
    label = "" if parts is None else parts[0]
    word = re.sub(r"\A[^_]*_|_(?:(?:scale|cfg)[^_]*_)*\Z", "", label)
    return word.replace("-", " ")
