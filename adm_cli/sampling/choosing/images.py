"""The images of a run, each computed from its place, so that ten million cost nothing.

Those whose seeds count up and which are otherwise the same are one `ImageRow`; most runs are a few.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from adm_cli.classes.mixtures import heaviest, mixture_name, read_mixture
from adm_cli.errors import ConfigError, UsageError, trim
from adm_cli.files.budget import whole_text
from adm_cli.files.names import check_name
from adm_cli.sampling.choosing.image_names import chosen_class, class_label, image_name, split_name

if TYPE_CHECKING:
    from adm_cli.diffusion.noise import Toward

MAX_IMAGES = 10**7
MAX_SEED = 2**64 - 1
Key = tuple[str, str]  # what stands before and after the seed in a file's name


class Image(NamedTuple):
    """An image to draw: its file, which is its name in the run, and what it is."""

    file: str
    class_id: int | None
    seed: int
    scale: float | None = None  # of guidance, where it has its own
    cfg: float | None = None  # of classifier-free guidance, where it has its own
    input: str | None = None  # the picture that is enlarged or edited, for a person
    small_sha256: str | None = None  # of that picture's values, as an upsampler enlarges them
    photo_sha256: str | None = None  # likewise, as they are stored, where the picture is edited
    mask: str | None = None  # says what of it is drawn anew
    mask_sha256: str | None = None
    to_seed: int | None = None  # whose noise it is on the way to
    fraction: float | None = None  # of that way
    mixture: str | None = None  # of several classes, "207*0.7+281*0.3"; `class_id` has most of it

    @property
    def class_ids(self) -> tuple[int | None, ...]:
        """One, or those of the mixture."""
        if self.mixture is None:
            return (self.class_id,)
        return tuple(class_id for class_id, _ in read_mixture(self.mixture))

    def class_name(self, known: Mapping[int, str]) -> str | None:
        """What its class is called, or its mixture; None without a class."""
        if self.mixture is not None:
            return mixture_name(self.mixture, known)
        return None if self.class_id is None else known.get(self.class_id)

    def facts(self) -> dict[str, Any]:
        """What a manifest's line says of it, beside the file."""
        own = {n: value for n in _OWN if (value := getattr(self, n)) is not None}
        made = {name: value for name in _MADE_OF if (value := getattr(self, name)) is not None}
        return {"class": self.class_id, **own, "seed": self.seed, **made}

    @property
    def toward(self) -> Toward | None:
        """Where its noise is on its way to."""
        if self.to_seed is None or self.fraction is None:
            return None
        from adm_cli.diffusion.noise import Toward  # with torch, which names need not

        return Toward(self.to_seed, self.fraction)

    def origin(self) -> dict[str, Any]:
        """What a recipe says of it, beside class and seed: pictures it is an edit of, a way."""
        return {name: value for name in ORIGIN if (value := getattr(self, name)) is not None}


ORIGIN = ("photo_sha256", "mask_sha256", "to_seed", "fraction")
_OWN = ("mixture", "scale", "cfg")
_MADE_OF = ("input", "small_sha256", "photo_sha256", "mask", "mask_sha256", "to_seed", "fraction")


def mixtures_of(images: Sequence[Image]) -> tuple[str | None, ...] | None:
    """As `SamplingConfig` takes them; None where no image has any."""
    found = tuple(image.mixture for image in images)
    return None if all(mixture is None for mixture in found) else found


def recorded_image(recipe: Mapping[str, Any]) -> Image:
    """Of a picture's recipe; raises ConfigError for a mixture of which its class is not most."""
    mixture = recipe.get("mixture")
    if mixture is not None and heaviest(mixture) != recipe["class"]:
        raise ConfigError(f"class {trim(recipe['class'], 20)} of the mixture {trim(mixture)}")
    return Image("image.png", recipe["class"], recipe["seed"], mixture=mixture)


class ImageRow(NamedTuple):
    """``length`` images that differ by their seeds, which count up from the first one's."""

    first: Image
    length: int = 1


def drawn_row(
    class_id: int | str | None,
    seeds: range,
    suffix: str,
    scale: float | None = None,
    cfg: float | None = None,
    class_name: str = "",
) -> ImageRow:
    """Images to be sampled, a seed each; ``scale`` and ``cfg`` only where they have their own.

    A text instead of a class is a mixture.
    """
    label, number, mixture = chosen_class(class_id, class_name)
    if scale is not None or cfg is not None:
        own = {name: v for name, v in (("scale", scale), ("cfg", cfg)) if v is not None}
        name = image_name(label, seeds.start, suffix, **own)
    else:
        name = image_name(label, seeds.start, suffix)
    return ImageRow(Image(name, number, seeds.start, scale, cfg, mixture=mixture), len(seeds))


class Images(Sequence[Image]):
    """Images in order, held as rows.

    Raises UsageError where there is none or over `MAX_IMAGES`, where two have the same file, or a
    file would not stay in its folder, and ConfigError for a seed that cannot be.
    """

    def __init__(self, rows: Iterable[ImageRow]) -> None:
        self.rows = _joined(rows)
        self._starts: list[int] = []
        total = 0
        for row in self.rows:
            self._starts.append(total)
            total += row.length
            if total > MAX_IMAGES:
                raise UsageError(f"over {MAX_IMAGES:,} images in one run")
        if not total:
            raise UsageError("a run needs at least one image")
        self._count = total
        self._spans: dict[Key, list[tuple[int, int]]] = {}  # first seed and row, ascending
        self._names: dict[str, int] = {}  # row of a file without a seed in its name
        self._place_rows()

    @classmethod
    def of(cls, images: Iterable[Image]) -> Images:
        """Of single images, in their order."""
        return cls(ImageRow(image) for image in images)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> list[Image]: ...
    def __getitem__(self, index: int | slice) -> Image | list[Image]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        if index < 0:
            index += self._count
        if not 0 <= index < self._count:
            raise IndexError(index)
        index = int(index)  # it may be numpy's
        row = bisect_right(self._starts, index) - 1
        return _member(self.rows[row], index - self._starts[row])

    def __iter__(self) -> Iterator[Image]:
        for row in self.rows:
            yield from _members(row)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Images):
            return self.rows == other.rows
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.rows))

    def __repr__(self) -> str:
        return f"<{self._count:,} images from {self[0].file}>"

    def __contains__(self, image: object) -> bool:
        index = self.find(image.file) if isinstance(image, Image) else None
        return index is not None and self[index] == image

    def named_as(self, begun: Images) -> Images:
        """The same images, called as a run is that was begun, perhaps by another version.

        A class that is new there is called as the others are: with its name, or without any.
        """
        labels = {
            row.first.class_id: label
            for row in begun.rows
            if row.first.class_id is not None
            and row.first.mixture is None
            and (label := _label(row.first)) is not None
        }
        plain = all(label == class_label(i) for i, label in labels.items())
        return Images(_relabelled(row, labels, plain) for row in self.rows) if labels else self

    def find(self, file: str) -> int | None:
        """The place of a file's image; None for a file that is none of them."""
        parts = split_name(file)
        if parts is None:
            row = self._names.get(file)
            return None if row is None else self._starts[row]
        before, seed, after = parts
        spans = self._spans.get((before, after), ())
        place = bisect_right(spans, (seed, len(self.rows))) - 1
        if place < 0:
            return None
        first, row = spans[place]
        return self._starts[row] + seed - first if seed - first < self.rows[row].length else None

    def _place_rows(self) -> None:
        for i, row in enumerate(self.rows):
            file = row.first.file
            check_name(file)
            parts = split_name(file)
            if parts is not None:
                if row.length > 1:
                    check_name(_member(row, row.length - 1).file)
                self._spans.setdefault((parts[0], parts[2]), []).append((parts[1], i))
            elif file not in self._names:
                self._names[file] = i
            else:
                raise UsageError("an image is asked for twice: names must differ")
        for spans in self._spans.values():
            spans.sort()
            for (seed, i), (following, _) in pairwise(spans):
                if seed + self.rows[i].length > following:
                    raise UsageError("an image is asked for twice: names must differ")


def _label(image: Image) -> str | None:
    """What a drawn image's name begins with, for its class; None where it is named otherwise."""
    parts = split_name(image.file)
    if parts is None or image.input is not None:
        return None
    own = {name: v for name in ("scale", "cfg") if (v := getattr(image, name)) is not None}
    rest = image_name("", image.seed, parts[2], **own)
    return image.file.removesuffix(rest) if image.file.endswith(rest) else None


def _relabelled(row: ImageRow, labels: Mapping[int, str], plain: bool) -> ImageRow:
    """``row`` with the label of its class; of a class without one, as ``plain`` says."""
    image = row.first
    mine = _label(image)
    if image.class_id is None or mine is None or image.mixture is not None:
        return row
    label = labels.get(image.class_id, class_label(image.class_id) if plain else mine)
    return row._replace(first=image._replace(file=label + image.file.removeprefix(mine)))


def _member(row: ImageRow, offset: int) -> Image:
    if not offset:
        return row.first
    parts = split_name(row.first.file)
    assert parts is not None  # or it would be a row of one
    seed = row.first.seed + offset
    return row.first._replace(file=f"{parts[0]}seed{seed:06d}{parts[2]}", seed=seed)


def _members(row: ImageRow) -> Iterator[Image]:
    yield row.first
    if row.length == 1:
        return
    parts = split_name(row.first.file)
    assert parts is not None
    before, seed, after = parts
    _, class_id, _, *rest = row.first
    for number in range(seed + 1, seed + row.length):
        yield Image(f"{before}seed{number:06d}{after}", class_id, number, *rest)  # type: ignore[arg-type]


def _joined(rows: Iterable[ImageRow]) -> list[ImageRow]:
    """The same images in as few rows as can be."""
    found: list[ImageRow] = []
    for row in rows:
        if not row.length:
            continue
        last = row.first.seed + row.length - 1
        if not 0 <= row.first.seed <= last <= MAX_SEED:
            wrong = row.first.seed if row.first.seed < 0 else last
            raise ConfigError(
                f"a seed must be a whole number from 0 to 2^64 - 1, got {wrong!s:.40}"
            )
        if found and _follows(found[-1], row.first):
            found[-1] = ImageRow(found[-1].first, found[-1].length + row.length)
        else:
            found.append(row)
        if len(found) > MAX_IMAGES:
            raise UsageError(f"over {MAX_IMAGES:,} images in one run")
    return found


def _follows(row: ImageRow, image: Image) -> bool:
    first = row.first
    if image.seed != first.seed + row.length or image[3:] != first[3:]:
        return False
    if image.class_id != first.class_id:
        return False
    mine, other = split_name(first.file), split_name(image.file)
    if mine is None or other is None or mine[1] != first.seed or other[1] != image.seed:
        return False
    return (mine[0], mine[2]) == (other[0], other[2])


# In run.json


def row_to_json(row: ImageRow) -> dict[str, Any]:
    """``{"file": "0207_golden-retriever_seed*.png", "class": 207, "seeds": "0-999"}``."""
    facts = row.first.facts()
    if row.length == 1:
        return {"file": row.first.file, **facts}
    parts = split_name(row.first.file)
    assert parts is not None
    seed = facts.pop("seed")
    return {
        "file": f"{parts[0]}seed*{parts[2]}",
        **facts,
        "seeds": f"{seed}-{seed + row.length - 1}",
    }


_TYPES: dict[str, tuple[type, ...]] = {
    "file": (str,),
    "class": (int, type(None)),
    "seed": (int,),
    "seeds": (str,),
    "scale": (float, int),
    "cfg": (float, int),
    **dict.fromkeys(_MADE_OF[:-2], (str,)),
    "to_seed": (int,),
    "fraction": (float, int),
    "mixture": (str,),
}


def check_way(value: Mapping[str, Any]) -> None:
    """Raises ValueError or TypeError where an image's way to another seed cannot be."""
    if "to_seed" not in value and "fraction" not in value:
        return
    seed: Any = value.get("to_seed")
    fraction: Any = value.get("fraction")
    if type(seed) is not int or type(fraction) not in (int, float):
        raise TypeError(f"to_seed is {trim(seed, 40)}, fraction {trim(fraction, 40)}")
    if not 0 <= seed <= MAX_SEED or not 0 <= fraction <= 1:
        raise ValueError(f"to_seed is {seed}, fraction {fraction}")


def row_from_json(value: Mapping[str, Any]) -> ImageRow:
    """The inverse of `row_to_json`; raises ValueError, KeyError or TypeError for anything else."""
    for name, own in value.items():
        if type(own) not in _TYPES[name]:
            raise TypeError(f"{name} is {trim(own)}")
    pictures = ("small_sha256" in value) + ("photo_sha256" in value)
    masks = ("mask" in value) + ("mask_sha256" in value)
    whole = pictures == ("input" in value) and masks in (0, 2)
    if ("seed" in value) == ("seeds" in value) or not whole or (masks and "small_sha256" in value):
        raise ValueError(f"an image with {', '.join(value)}")
    file, count = value["file"], 1
    if "seeds" in value:
        seed, last = map(whole_text, value["seeds"].split("-"))
        count = last - seed + 1
        if not 0 < count <= MAX_IMAGES:
            raise ValueError(f"{count} seeds in a row")
        file = file.replace("seed*", f"seed{seed:06d}")
        if split_name(file) is None:
            raise ValueError(f"no place for the seeds in {trim(file)}")
    else:
        seed = value["seed"]
    check_way(value)
    own = {name: value[name] for name in (*_OWN, *_MADE_OF) if name in value}
    if "mixture" in own and heaviest(own["mixture"]) != value["class"]:
        raise ValueError(f"class {value['class']!r} of the mixture {own['mixture']}")
    return ImageRow(Image(file, value["class"], seed, **own), count)
