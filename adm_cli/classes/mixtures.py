"""Several classes in one picture, each with a share: ``207+281``, ``207*0.7+281*0.3``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from adm_cli.classes.imagenet import OWNER, select_classes
from adm_cli.errors import ConfigError, UsageError, trim
from adm_cli.files.budget import whole_text

Mixture = tuple[tuple[int, float], ...]  # ids, rising, each with its share; they sum to 1

_MOST_CLASSES = 8  # each is an evaluation of the model
_MOST_TERMS, _MOST_TEXT = 64, 400
_TERM = re.compile(r"(\d{1,7})(?:\*(\d{1,7}(?:\.\d{1,6})?))?", re.ASCII)


def read_mixture(text: object) -> Mixture:
    """The shares of a text such as `mixture_text` writes; raises ConfigError for anything else."""
    if not isinstance(text, str) or len(text) > _MOST_TEXT:
        raise ConfigError(
            f"a mixture of classes is text such as 207*0.7+281*0.3, got {trim(text, 40)}"
        )
    terms = [_TERM.fullmatch(term) for term in text.split("+")]
    found = {whole_text(term[1]): float(term[2] or 1) for term in terms if term is not None}
    if len(found) != len(terms):
        raise ConfigError(f"a mixture of classes is 207*0.7+281*0.3 or the like, got {trim(text)}")
    mixture_text(found)  # raises for weights that cannot be
    total = sum(found.values())
    return tuple((class_id, weight / total) for class_id, weight in sorted(found.items()))


def mixture_text(weights: Mapping[int, float]) -> str:
    """Ids, rising, and their weights, to six places; without weights where all are equal.

    Raises ConfigError for weights that are not above 0, and for one class or more than eight.
    """
    if not 2 <= len(weights) <= _MOST_CLASSES:
        raise ConfigError(f"a mixture has 2 to {_MOST_CLASSES} classes, got {len(weights)}")
    for weight in weights.values():
        if not 1e-6 <= weight <= 1e6:  # NaN is not either
            raise ConfigError(
                f"weights in a mixture must be from 0.000001 to 1000000, got {weight:g}"
            )
    if len(set(weights.values())) == 1:
        return "+".join(str(class_id) for class_id in sorted(weights))
    texts = {
        class_id: f"{weight:.6f}".rstrip("0").rstrip(".") for class_id, weight in weights.items()
    }
    return "+".join(f"{class_id}*{text}" for class_id, text in sorted(texts.items()))


def heaviest(text: str) -> int:
    """The class with the largest share, the first of several: what counts as the picture's."""
    return max(read_mixture(text), key=lambda part: part[1])[0]


def mixture_name(text: str, known: Mapping[int, str]) -> str:
    """``golden retriever + tabby cat``."""
    return " + ".join(known.get(class_id, str(class_id)) for class_id, _ in read_mixture(text))


def select_choices(spec: str, known: Mapping[int, str], owner: str = OWNER) -> list[int | str]:
    """What one ``--class`` value asks for: class ids, and mixtures as `mixture_text` writes them.

    As `select_classes`, but that a name or id may be several, joined by +, each with a weight after
    a * if it is not 1. A class that is called so, or a list of such names, means that class.
    Raises UsageError.
    """
    if "+" not in spec and "*" not in spec:
        return list(select_classes(spec, known, owner))
    try:
        return list(select_classes(spec, known, owner))
    except UsageError:
        return [choice for part in spec.split(",") for choice in _choices(part, known, owner)]


def _choices(part: str, known: Mapping[int, str], owner: str) -> list[int | str]:
    try:
        return list(select_classes(part, known, owner))
    except UsageError:
        if "+" not in part:
            if "*" in part:
                raise UsageError(
                    f"class {trim(part.strip())}: a weight is of a class in a mixture, such as "
                    f"207*0.7+281*0.3"
                ) from None
            raise
    if part.count("+") >= _MOST_TERMS:
        raise UsageError(
            f"class {trim(part.strip())}: a mixture has at most {_MOST_CLASSES} classes"
        )
    weights: dict[int, float] = {}
    for term in part.split("+"):
        class_id, weight = _term(term, known, owner)
        weights[class_id] = weights.get(class_id, 0) + weight
    if len(weights) == 1:
        return list(weights)
    try:
        return [mixture_text(weights)]
    except ConfigError as error:
        raise UsageError(f"class {trim(part.strip())}: {error}") from None


def _term(term: str, known: Mapping[int, str], owner: str) -> tuple[int, float]:
    name, star, weight = term.rpartition("*")
    if not star:
        name, weight = term, "1"
    try:
        value = float(weight)
    except ValueError:
        raise UsageError(
            f"class {trim(term.strip())}: expected a weight after the *, such as 207*0.7"
        ) from None
    if not name.strip():
        raise UsageError("a class is missing in a mixture: write 207+281 or 207*0.7+281*0.3")
    found = select_classes(name, known, owner)
    if len(found) != 1:
        raise UsageError(f"class {trim(term.strip())}: a mixture is of single classes")
    return found[0], value
