"""Pictures: uint8 conversion, PNG, WebP, grids, animations, and the recipe that each picture
carries.

A recipe is a JSON object of everything that made the picture, flat but for an enlarged picture's
"base", the recipe of the small one. PNG holds it in the text field "adm", beside a "parameters"
text that other image tools show, WebP in its description.
"""

from __future__ import annotations

import io
import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from adm_cli.errors import AdmError, size_words, why_unread
from adm_cli.files.budget import parse_json
from adm_cli.files.disk import atomic_write, open_file
from adm_cli.files.opening import open_image
from adm_cli.files.own import SOFTWARE

if TYPE_CHECKING:  # looking at a picture needs no torch
    from torch import Tensor

Recipe = Mapping[str, Any]
Pixels = npt.NDArray[np.uint8]

MOST_STAGES = 8  # of a recipe within a recipe
MOST_PIXELS = 2**28 // 3  # from here on Pillow warns of a trap
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_DESCRIPTION, _SOFTWARE = 0x010E, 0x0131  # of EXIF: ImageDescription, Software


def to_uint8(x: Tensor) -> Tensor:
    """[N, C, H, W] in [-1, 1] to uint8 [N, H, W, C]; truncates, as the original does."""
    return ((x + 1) * 127.5).clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()


def to_model_range(images: Tensor) -> Tensor:
    """uint8 [N, H, W, C] to float32 [N, C, H, W] in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def save_image(path: Path, pixels: Pixels, recipe: Recipe | None = None) -> bytes:
    """Write uint8 [H, W, 3] as PNG or lossless WebP by the suffix; returns the file's bytes."""
    data = encode_image(pixels, path.suffix.lower(), recipe)
    with atomic_write(path) as file:
        file.write(data)
    return data


def encode_image(pixels: Pixels, suffix: str, recipe: Recipe | None) -> bytes:
    """The bytes of a PNG, or of a lossless WebP if ``suffix`` is ".webp"."""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    if suffix == ".webp":
        exif = Image.Exif()
        if recipe is not None:
            exif[_DESCRIPTION] = json.dumps(recipe)
        else:
            exif[_SOFTWARE] = SOFTWARE
        image.save(buffer, "WEBP", lossless=True, exif=exif)
    else:
        text = PngImagePlugin.PngInfo()
        if recipe is not None:
            text.add_itxt("parameters", parameters_text(recipe))
            text.add_itxt("adm", json.dumps(recipe))
        else:
            text.add_text("Software", SOFTWARE)
        image.save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def parameters_text(recipe: Recipe) -> str:
    """The settings in the form that Stable Diffusion tools write and read."""
    size = size_words(recipe["size"])
    first = recipe.get("base") or recipe  # who enlarges is told apart from who draws
    while "sampler" not in first:  # enlarged without weights in between
        first = first["base"]
    fields = {
        "Steps": first.get("num_steps"),
        "Sampler": first["sampler"],
        "CFG scale": first.get("cfg", first["scale"]),  # the one word there is for either
        "Seed": first["seed"],
        "Size": size,
        "Model hash": first["model_sha256"][:10],
        "Model": first["model"],
        "Version": f"adm {recipe['adm']}",
    }
    if "cfg" in first:
        fields["Classifier scale"] = first["scale"]
    if "small_sha256" in recipe:
        steps = {"Hires steps": recipe["num_steps"]} if "num_steps" in recipe else {}
        fields |= {"Hires upscaler": recipe["model"], **steps}
    subject = "unconditional"
    if recipe["class"] is not None:
        subject = f"{recipe['class_name']} (class {recipe['class']})"
    return f"{subject}\n" + ", ".join(
        f"{name}: {_in_list(value)}" for name, value in fields.items()
    )


def _in_list(value: object) -> str:
    """A value between commas; those tools quote what holds one itself, or a colon."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r"[,:\n\"]", text) else text


def open_picture(path: Path) -> tuple[Pixels, dict[str, Any] | None]:
    """Pixels [H, W, 3] of a PNG or WebP, and its recipe if it carries one.

    Raises AdmError for anything that is not such a picture.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF holds no recipe, and that is said
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with open_file(path) as file, open_image(file, ("PNG", "WEBP")) as image:
                recipe = _recipe_of(image)
                pixels = np.asarray(image.convert("RGB"))
    except UnidentifiedImageError:  # whose text is a memory address
        raise AdmError(f"cannot read {path} as PNG or WebP: it is neither, or damaged") from None
    except OSError as error:
        raise AdmError(f"cannot read {path} as PNG or WebP: {error.strerror or error}") from None
    except BOMBS:
        raise AdmError(f"cannot read {path} as PNG or WebP: of too many pixels") from None
    except (ValueError, SyntaxError) as error:
        why = why_unread(error, "it is damaged")
        raise AdmError(f"cannot read {path} as PNG or WebP: {why}") from None
    return pixels, recipe


def recipe_in(data: bytes) -> dict[str, Any] | None:
    """The recipe that the bytes of a picture carry; None for any other file."""
    return _description(data, ("PNG", "WEBP"))


def read_description(path: Path) -> dict[str, Any] | None:
    """The recipe that a picture's file carries, or what a film says of itself; else None."""
    try:
        with open_file(path) as file:
            return _description(file, ("PNG", "WEBP", "GIF"))
    except OSError:
        return None


def _description(source: bytes | IO[bytes], formats: tuple[str, ...]) -> dict[str, Any] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_image(source, formats) as image:
                return _recipe_of(image)
    except Exception:  # whoever needs the pixels says what is wrong
        return None


def _recipe_of(image: Image.Image) -> dict[str, Any] | None:
    if image.format == "PNG":
        text: Any = getattr(image, "text", {}).get("adm")
    elif image.format == "GIF":
        text = image.info.get("comment")
    else:
        text = image.getexif().get(_DESCRIPTION)
    try:
        recipe = parse_json(text) if isinstance(text, (str, bytes)) else None
    except ValueError:
        return None
    return recipe if isinstance(recipe, dict) else None


def decode_own(data: bytes) -> Pixels:
    """Pixels [H, W, 3] of a PNG or WebP as we write them; raises AdmError for anything else."""
    try:
        with open_image(data, ("PNG", "WEBP")) as image:
            if image.width * image.height > MOST_PIXELS:
                raise AdmError(f"{image.width}x{image.height} pixels are too many for a picture")
            return np.asarray(image.convert("RGB"))
    except AdmError:
        raise
    except UnidentifiedImageError:  # whose text is a memory address
        raise AdmError("no PNG or WebP, or a damaged one") from None
    except Exception as error:  # Pillow's plugins raise many kinds for damaged files
        raise AdmError(f"damaged ({why_unread(error, 'not a picture'):.80})") from None


def make_grid(images: Pixels, columns: int | None = None, gap: int = 2) -> Pixels:
    """One picture [H', W', 3] of [N, H, W, 3], row by row on white; about square by default."""
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap, channels)
    grid = np.full(shape, 255, dtype=np.uint8)
    for i, image in enumerate(images):
        top = gap + (i // columns) * (height + gap)
        left = gap + (i % columns) * (width + gap)
        grid[top : top + height, left : left + width] = image
    return grid


def save_animation(
    path: Path, frames: Sequence[Pixels], description: Recipe, *, seconds: float = 4.0
) -> None:
    """A GIF or WebP (by the suffix) of [H, W, 3] frames that rests on the last one.

    ``description`` goes into its comment, as a recipe into a picture.
    """
    delay = max(20, int(1000 * seconds / len(frames)))
    images = [Image.fromarray(frame) for frame in frames]
    durations = [delay] * (len(images) - 1) + [2000]
    buffer = io.BytesIO()
    kind, text = "WEBP" if path.suffix.lower() == ".webp" else "GIF", json.dumps(description)
    options: dict[str, Any] = {"comment": text.encode()}
    if kind == "WEBP":
        exif = Image.Exif()
        exif[_DESCRIPTION] = text
        options = {"lossless": True, "exif": exif}
    images[0].save(
        buffer,
        kind,
        save_all=True,
        append_images=images[1:],
        duration=durations,
        loop=0,
        **options,
    )
    with atomic_write(path) as file:
        file.write(buffer.getvalue())
