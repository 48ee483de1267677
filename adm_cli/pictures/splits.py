"""Parts of a set that are meant for training, validation and testing, by the names of folders."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

ROLES = ("train", "validation", "test")

_WORDS = {  # in English, Spanish, Portuguese, French, German, Chinese, Japanese, Korean, Russian
    "train": (
        *("train", "training", "trn", "trainset", "entrenamiento", "treino", "treinamento"),
        *("entrainement", "apprentissage", "trainingsdaten", "训练", "训练集", "訓練", "학습"),
        *("обучение", "addestramento", "学習", "学習用"),
    ),
    "validation": (
        *("val", "valid", "validation", "eval", "evaluation", "dev", "valset", "devset"),
        *("validacion", "validacao", "validierung", "validierungsdaten", "validazione"),
        *("验证", "验证集", "検証", "검증", "валидация"),
    ),
    "test": (
        *("test", "testing", "tst", "testset", "holdout", "heldout", "unseen"),
        *("query", "gallery", "probe", "prueba", "teste", "测试", "测试集", "テスト", "테스트"),
        *("тест", "testdaten", "prova", "テスト用"),
    ),
}
_ROLE_OF = {word: role for role, words in _WORDS.items() for word in words}
_FILLERS = frozenset(
    "set data dataset split images image imgs img pictures seg ds public private".split()
)


class PicturePlace(NamedTuple):
    """A picture's place: its split, if any, the folder that says so, and its name without that."""

    role: str | None
    folder: str
    name: str


@lru_cache(maxsize=2**14)
def split_role(folder: str) -> str | None:
    """ "train", "validation" or "test" by a name such as ``Training`` or ``val2017``."""
    folder = re.sub("(?<=[a-z])_?[AB]$", "", folder)  # trainA, testB: two domains
    folder = re.sub("(?i)^t10k", "test", folder)  # of MNIST and its relatives
    plain = folder.lower()
    if not plain.isascii():  # without accents; an accent that is a letter's own stays
        parts = unicodedata.normalize("NFKD", plain)
        plain = unicodedata.normalize("NFC", re.sub("(?<=[a-z])[\u0300-\u036f]", "", parts))
    words = [word for word in re.findall(r"[^\W\d_]+", plain) if word not in _FILLERS]
    words = [word for word in words if len(word) > 1 or not word.isascii()]  # x_train, y_test
    return _ROLE_OF.get(words[0]) if len(words) == 1 else None


def find_splits(names: Sequence[str]) -> Iterator[PicturePlace]:
    """Where each picture of a source belongs; no role for any unless all have one.

    The folders of the splits are at the same depth: above the classes, as in ``train/cat/1.jpg``,
    or below them, as in ``cat/train/1.jpg``; there must be at least two different ones.
    """
    folders = _folders(names)  # by which all is decided: they are few where names are many
    above = _common(list(folders.values()))
    for depth in (above, above + 1):
        roles = {name: split_role(parts[depth]) if len(parts) > depth else None
                 for name, parts in folders.items()}  # fmt: skip
        if None not in roles.values() and len(set(roles.values())) > 1:
            cut = depth + 1
            while all(  # the same once more, as seg_train/seg_train/cat/1.jpg
                len(parts) > cut and split_role(parts[cut]) == roles[name]
                for name, parts in folders.items()
            ):
                cut += 1
            bare = {name: "/".join((*parts[:depth], *parts[cut:], ""))
                    for name, parts in folders.items()}  # fmt: skip
            for folder, _, file in (name.rpartition("/") for name in names):
                yield PicturePlace(roles[folder], folders[folder][depth], bare[folder] + file)
            return
    for name in names:
        yield PicturePlace(None, "", name)


def half_splits(names: Sequence[str]) -> list[str]:
    """Folders that look like splits although others beside them do not.

    On top, or all of the same few names in the folders there, as ``cat/train`` and ``cat/test``.
    """
    folders = list(_folders(names).values())
    depth = _common(folders)
    tops = {parts[depth] for parts in folders if len(parts) > depth}
    found = [top for top in sorted(tops) if split_role(top) is not None]
    if found:
        return found if len(found) < len(tops) else []
    inner = {parts[depth + 1] for parts in folders if len(parts) > depth + 1}
    found = [name for name in sorted(inner) if split_role(name) is not None]
    return found if len({split_role(name) for name in found}) > 1 else []


def describe_splits(counts: Mapping[str, int]) -> str:
    """ "train (80), val (10)"."""
    return ", ".join(f"{folder} ({count})" for folder, count in counts.items())


def _folders(names: Sequence[str]) -> dict[str, list[str]]:
    """The folders that the files are in, each with its parts; none are those of no folder."""
    return {folder: folder.split("/") if folder else []
            for folder in {name.rpartition("/")[0] for name in names}}  # fmt: skip


def _common(folders: Sequence[Sequence[str]]) -> int:
    """Leading parts that all share."""
    depth = 0
    while folders and all(
        len(parts) > depth and parts[depth] == folders[0][depth] for parts in folders
    ):
        depth += 1
    return depth
