"""What a file is, told by its first bytes, where it is not what was expected."""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from pathlib import Path

from adm_cli.errors import trim
from adm_cli.files.disk import open_file
from adm_cli.files.opening import open_image

START = 512  # bytes that tell
_SHORTEST_TEXT = 8  # characters; fewer may be the start of anything

# First bytes, what the file then is, and what to do about it.
_STARTS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself",
     "git lfs pull brings it, or download it again"),
    (b"\x1f\x8b\x08", "compressed with gzip", "unpack it first: gunzip"),
    (b"BZh", "compressed with bzip2", "unpack it first: bunzip2"),
    (b"\xfd7zXZ\0", "compressed with xz", "unpack it first: unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it first: unzstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it first"),
    (b"\x89HDF\r\n\x1a\n", "HDF5, as Keras writes it, not PyTorch",
     "only weights of PyTorch can be read"),
    (b"GGUF", "GGUF of a language model", "only weights of PyTorch can be read"),
    (b"\x93NUMPY", "a NumPy array", "expected weights, as torch.save writes them"),
    (b"\x89PNG\r\n\x1a\n", "a picture (PNG)", "adm info shows what made it"),
    (b"\xff\xd8\xff", "a picture (JPEG)", "expected weights"),
    (b"GIF8", "a picture (GIF)", "adm info shows what it is of"),
    (b"II*\0", "a picture (TIFF)", "expected weights"),
    (b"MM\0*", "a picture (TIFF)", "expected weights"),
    (b"%PDF-", "a PDF", "expected weights"),
    (b"PK\5\6", "an empty zip archive", "expected weights, as torch.save writes them"),
    (b"PAR1", "a table (Parquet)", "expected weights"),
    (b"\x04\x22\x4d\x18", "compressed with lz4", "unpack it first: lz4 -d"),
    (b"\xd0\xcf\x11\xe0", "a document", "expected weights"),
    (b"SQLite format 3", "an SQLite database", "expected weights"),
    (b"\x7fELF", "a program", "expected weights"),
)  # fmt: skip
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".cls")
_TRAIN_ON_IT = "not weights: training takes it as it is (adm train-diffusion FILE --dry-run)"
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
_JPEG2000 = b"\0\0\0\x0cjP  \r\n\x87\n"
_RECORDS = {"run.json": "run", "settings.json": "training run", "sweep.json": "sweep"}


def describe_foreign(start: bytes, name: str) -> str | None:
    """``"is a picture (PNG), not weights: ..."`` for the first bytes of a file; None if unknown.

    ``start`` holds `START` bytes, or all of a shorter file; ``name`` is that of the file.
    """
    if not start:
        return "is empty: its download or copy was cut short at the first byte; get it again"
    if start[8:9] == b"{":  # safetensors, whose length may look like anything
        return None
    for magic, what, mend in _STARTS:
        if start.startswith(magic):
            return f"is {what}: {mend}"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "is a picture (WebP): adm info shows what made it"
    if start[4:8] == b"ftyp":
        return "is a picture or film (HEIC, AVIF, MP4): expected weights"
    if is_picture(start):  # JPEG 2000, BMP, PPM
        return "is a picture: expected weights"
    if start[:1] == b"\x08" and b"pytorch" in start[:24]:
        return "is ONNX: only weights of PyTorch can be read"
    if len(start) == START and not start.strip(b"\0"):
        return "begins with zeros, as a download does that was never filled: get it again"
    if start[257:262] == b"ustar":
        first = start[:100].rstrip(b"\0").decode("utf-8", "replace")
        if first.lower().endswith(_PICTURES):
            return f"is a tar of pictures ({trim(first)} and so on), {_TRAIN_ON_IT}"
        return "is a tar archive: unpack it first"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        if name.lower().endswith((".html", ".htm")):
            return "is a web page: a browser shows it"
        return "is a web page, not weights: download it again"
    if re.match(rb"[{\[]\s*[\"{\[\]}\d]", text) and b"\0" not in start:
        if name in _RECORDS:
            return f"is the record of a {_RECORDS[name]}: adm info shows the folder it lies in"
        return "is JSON, not weights: give the .pt or .safetensors file that lies beside it"
    if len(start) < START and b"\0" not in start:
        with suppress(UnicodeDecodeError):
            words = " ".join(start.decode().split())
            if len(words) >= _SHORTEST_TEXT and words.isprintable():
                return f"is a text, not weights, perhaps a pointer to them or an error: {words:.60}"
    return None


def is_picture(start: bytes) -> bool:
    """Whether a file begins as a picture does."""
    marks = (
        *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"BM"),
        *(_JPEG2000, b"\xff\x4f\xff\x51"),
    )
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    ppm = start[:2] in (b"P5", b"P6") and start[2:3].isspace()
    avif = start[4:12] in (b"ftypavif", b"ftypavis")
    return start[8:9] != b"{" and (start.startswith(marks) or webp or ppm or avif)


def read_start(path: Path) -> bytes:
    """The first `START` bytes of a file; none of one that cannot be read."""
    try:
        with open_file(path) as file:
            return file.read(START)
    except (OSError, ValueError):
        return b""


def describe_picture(path: Path) -> tuple[str, int, int] | None:
    """Format, width and height as a picture's header says them; None for no picture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_file(path) as file, open_image(file, _FORMATS) as image:
                return str(image.format), *image.size
    except Exception:  # Pillow's plugins raise many kinds for damaged files
        return None


def describe_zip(names: list[str]) -> str | None:
    """What a zip is that torch.save did not write; None for one that it wrote."""
    leaves = {name.rsplit("/", 1)[-1] for name in names}
    if "constants.pkl" in leaves and any("code/" in name for name in names):
        return (
            "is TorchScript, a program: where it runs, save its weights alone with "
            "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt')"
        )
    if "data.pkl" in leaves or not names:
        return None
    if any(name.endswith(".npy") for name in names):
        return "is npz, arrays of NumPy: expected weights, as torch.save writes them"
    if names[0].lower().endswith(_PICTURES):
        return f"is a zip of pictures ({trim(names[0])} and so on), {_TRAIN_ON_IT}"
    return f"is a zip archive ({trim(names[0])} and so on): unpack it first"


def describe_global(name: str) -> str:
    """What the class or function says that a pickle would have called, and how to go round it."""
    package, _, last = name.rpartition(".")
    top = package.split(".")[0]
    if top in ("argparse", "omegaconf", "pathlib", "numpy", "ml_collections", "easydict", "yacs"):
        return (
            "; beside its weights it holds settings: where it was made, save the weights alone "
            "with torch.save(checkpoint['model'], 'weights.pt')"
        )
    standard = ("os", "posix", "nt", "builtins", "__builtin__", "sys", "subprocess", "io", "_io")
    if last[:1].isupper() and top not in standard:
        return (
            "; it may be a whole pickled module: where its code is, save the weights alone with "
            "torch.save(model.state_dict(), 'weights.pt')"
        )
    return ""
