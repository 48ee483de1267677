"""Whatever is wrong with a command line or a file: one clear line, and nothing lost."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from PIL import Image

from adm_cli.errors import UsageError
from adm_cli.models.unet import UNet
from tests.conftest import TOY_CLASSIFIER, TOY_UNET, Result, Toys, pictures, save_toy
from tests.training.conftest import draw_pictures

Run = Callable[..., Result]


def refused(done: Result, code: int, *words: str) -> None:
    """One line on stderr that holds the words; nothing on stdout, nothing left behind."""
    assert (done.code, done.out) == (code, ""), done.err
    (line,) = done.err.splitlines()
    assert line.startswith("adm: error: ")
    for word in words:
        assert word in line
    assert not list(Path().rglob("*.tmp"))
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "imagenet25"], ["'imagenet25' is neither a preset nor a file", "imagenet256"]),
        (["--model", "gone.safetensors"], ["no such file: gone.safetensors"]),
        (["--classifier", "64x64_clasifier"], ["64x64_classifier", "adm models"]),
        (["--class", "sqare"], ["unknown class 'sqare'", "square", "adm classes"]),
        (["--class", "2"], ["class 2", "0 circle, 1 square, 3 star"]),
        (["--class", "0-3"], ["class 2", "of this model"]),
        (["--class", "9-3"], ["9-3", "above the last"]),
        (["--class", "zebra"], ["unknown class 'zebra'"]),
        (["--class", ""], ["unknown class ''"]),
        (["--class", "1", "--class", "random"], ["random stands alone"]),
        (["--sampler", "dim"], ["unknown sampler 'dim'", "ddim, ddpm"]),
        (["--format", "pgn"], ["--format 'pgn'", "did you mean png", "webp"]),
        (["--dtype", "float3"], ["unknown dtype 'float3'", "float32"]),
        (["--device", "gpu"], ["unknown device 'gpu'", "cuda"]),
        (["--clas", "1"], ["no option --clas ", "--class"]),
        (["--steps", "101"], ["101 steps", "100 timesteps"]),
        (["--steps", "ddim101"], ["ddim101", "100"]),
        (["--steps", "0"], ["steps '0'"]),
        (["--steps", "soon"], ["'soon'", "250", "ddim25"]),
        (["--seed", str(2**64)], ["2^64 - 1", str(2**64)]),
        (["--seed", str(2**64 - 1), "--num", "2"], ["2^64 - 1", str(2**64)]),
        (["--seeds", str(2**64)], ["2^64 - 1"]),
        (["--seeds", "9" * 5000], ["2^64"]),
        (["--seed", "-1"], ["a seed must be", "-1"]),
        (["--seeds", "-1"], ["'-1'", "0-63,100"]),
        (["--seeds", "5-3"], ["5-3", "above the last"]),
        (["--seeds", "0-99999999999"], ["100,000,000,000 images", "at most"]),
        (["--num", "0"], ["--num must be at least 1, got 0"]),
        (["--num", "many"], ["--num"]),
        (["--batch-size", "0"], ["batch size must be from 1 to 4096, got 0"]),
        (["--scale", "nan"], ["finite"]),
        (["--scale", "inf"], ["finite"]),
        (["--eta", "0.5"], ["--eta", "ddpm", "only for ddim"]),
        (["--sampler", "ddim", "--eta", "2"], ["eta must be in [0, 1], got 2"]),
        (["--guide-interval", "0.5"], ["'0.5'", "0.2,0.8"]),
        (["--guide-interval", "low,high"], ["'low,high'", "0.2,0.8"]),
        (["--guide-interval", "0.8,0.2"], ["rising", "0.8,0.2"]),
        (["--guide-interval", "nan,1"], ["rising"]),
        (["--guide-interval", "0,1", "--scale", "0"], ["no meaning without", "--scale"]),
        (["--entropy-scaling", "--scale", "0"], ["no meaning without", "--scale"]),
        (["--animate", "film.mp4"], ["film.mp4", ".gif or .webp"]),
        (["surplus"], ["without an option", "surplus"]),
    ],
)
def test_wrong_options(draw: Run, options: list[str], words: list[str]) -> None:
    refused(draw(*options), 2, *words)


@pytest.mark.parametrize("command", ["sample", "edit photo.png", "interpolate"])
def test_an_empty_name_is_no_model(adm: Run, command: str) -> None:
    refused(adm(*command.split(), "--model", ""), 2, "'' is neither a preset nor a file")


def test_unknown_command(adm: Run) -> None:
    refused(adm("sampel"), 2, "no command 'sampel'", "sample")


def test_classes_that_the_embedded_model_does_not_know(adm: Run) -> None:
    done = adm("sample", "--class", "zebra")
    refused(done, 2, "class 340 (zebra)", "of this model", "207 golden retriever")


def test_known_weights_that_are_not_here(adm: Run) -> None:
    refused(
        adm("sample", "--model", "imagenet256", "--scale", 0),
        1,
        "adm fetch imagenet256 brings 256x256_diffusion and 256x256_classifier (2.4 GB)",
        "for research only",
        "https://",
    )


@pytest.mark.parametrize(
    ("classifier", "classes", "words"),
    [
        (replace(TOY_CLASSIFIER, image_size=(16, 16)), None, ["16x16", "8x8", "--classifier"]),
        (replace(TOY_CLASSIFIER, num_classes=7), None, ["7 classes", "5", "--classifier"]),
        (TOY_CLASSIFIER, {4: "moon"}, ["trained on different classes"]),
        (TOY_UNET, None, ["holds a diffusion model, expected a classifier"]),
    ],
)
def test_classifiers_that_do_not_belong(
    draw: Run, tmp_path: Path, classifier: Any, classes: Any, words: list[str]
) -> None:
    path = save_toy(tmp_path / "other.safetensors", classifier, classes)
    refused(draw("--classifier", path), 2, *words)


def test_models_that_take_no_class(adm: Run, tmp_path: Path) -> None:
    free = save_toy(tmp_path / "free.safetensors", replace(TOY_UNET, num_classes=None), {})
    done = adm("sample", "--model", free, "--class", 1)
    refused(done, 2, "free is unconditional", "--scale and --classifier")


def test_guidance_without_a_classifier(adm: Run, toys: Toys) -> None:
    done = adm("sample", "--model", toys.model, "--scale", 2)
    refused(done, 2, "--scale 2 needs a classifier", "pass --classifier, or --scale 0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_no_cuda(draw: Run) -> None:
    refused(draw("--device", "cuda"), 1, "sees 0 CUDA devices", "--device auto")


def header_of(data: bytes) -> bytes:
    return data[8 : 8 + struct.unpack("<Q", data[:8])[0]]


def with_header(data: bytes, header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data[8 + len(header_of(data)) :]


def renamed(name: bytes) -> Callable[[bytes], bytes]:
    """Gives one tensor another name."""
    return lambda data: with_header(data, header_of(data).replace(b"time_embed.2.bias", name))


def foreign(data: bytes) -> bytes:
    return with_header(data, header_of(data).replace(b'"format":"adm"', b'"format":"pt"'))


def flipped_bit(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-100], ["damaged safetensors"]),
        (lambda data: data[:500], ["not a safetensors file, or is cut short"]),
        (lambda data: data[:5], ["not a safetensors file, or is cut short"]),
        (lambda data: b"", ["is empty", "get it again"]),
        (lambda data: data[:8] + b"?" + data[9:], ["damaged safetensors"]),
        (lambda data: struct.pack("<Q", 2**62) + data[8:], ["cut short"]),
        (renamed(b"time_embed.0.bias"), ["duplicate key 'time_embed.0.bias'"]),
        (renamed(b"surprise"), ["missing: time_embed.2.bias", "unexpected: surprise"]),
        (flipped_bit, ["content hash", "download it again"]),
        (foreign, ["without adm's metadata", "adm convert"]),
    ],
)
@pytest.mark.parametrize("which", ["model", "classifier"])
def test_damaged_weights(
    draw: Run, toys: Toys, damage: Callable[[bytes], bytes], words: list[str], which: str
) -> None:
    path = Path("bad.safetensors")
    path.write_bytes(damage(getattr(toys, which).read_bytes()))
    refused(draw(f"--{which}", path, "--out", "."), 1, str(path), *words)


@pytest.mark.parametrize("old_format", [False, True])
def test_a_pickle_instead_of_weights(draw: Run, old_format: bool) -> None:
    torch.save({"w": torch.zeros(3)}, "m.pt", _use_new_zipfile_serialization=not old_format)
    refused(draw("--model", "m.pt"), 1, "m.pt is a PyTorch file", "adm convert m.pt")


@pytest.mark.parametrize("out", ["taken", "taken/below"])
def test_a_file_where_a_folder_should_be(draw: Run, out: str) -> None:
    Path("taken").write_bytes(b"precious")
    refused(draw("--out", out), 1, "taken", "a file", "choose another place")
    assert Path("taken").read_bytes() == b"precious"


def test_a_folder_that_cannot_be_written(draw: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", forbidden)  # root may write anywhere
    # fails if anything is loaded
    monkeypatch.setattr("adm_cli.sampling.drawing.models.load_stage", None)
    refused(draw("--out", "o"), 1, "cannot write to o: Permission denied", "may write to")


def check_whole(folder: str, names: list[str]) -> None:
    """Exactly these pictures, all readable, and no temporary files."""
    assert pictures(folder) == names
    for name in names:
        with Image.open(Path(folder) / name) as image:
            image.load()


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("extra", [[], ["--grid"]])
def test_disk_full(
    draw: Run, monkeypatch: pytest.MonkeyPatch, batch_size: int, extra: list[str]
) -> None:
    full = False

    def fsync(_handle: int) -> None:  # from the second picture on no new file can be written
        nonlocal full
        new = list(Path("o").glob(".adm-*.tmp"))
        full = full or len(list(Path("o").glob("*.png")) + new) > 1
        if full and new:
            raise OSError(28, "No space left on device")

    wanted = ("--class", 0, "--num", 3, "-b", batch_size, "--out", "o", *extra)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        done = draw(*wanted)
    assert done.code == 1
    assert done.out == "o/0000_circle_seed000000.png\n"
    note, error = done.err.splitlines()
    assert note == "adm: 1 of 3 images is in o; --out o goes on"
    assert error.startswith("adm: error: cannot write o/")
    assert "the disk is full; make room" in error
    check_whole("o", ["0000_circle_seed000000.png"])
    again = draw(*wanted)  # room was made
    assert (again.code, len(again.out.split())) == (0, 3 + len(extra))
    assert "3 images in" in again.err
    assert "(1 was there)" in again.err


def interrupt_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C as the model is run for the ``call``-th time."""
    real, calls = UNet.forward, []

    def forward(self: UNet, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    monkeypatch.setattr(UNet, "forward", forward)


def test_interrupted(draw: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the second batch: what is done stays, and the sheet and the film are made of it."""
    interrupt_at(4, monkeypatch)
    wanted = ("--class", 0, "--num", 3, "-b", 1, "--out", "o", "--grid", "--animate", "o/x.gif")
    done = draw(*wanted)
    assert done.code == 130
    assert done.out.split() == ["o/0000_circle_seed000000.png", "o/grid.png", "o/x.gif"]
    assert done.err == "adm: 1 of 3 images is in o; --out o goes on\nadm: interrupted\n"
    check_whole("o", ["0000_circle_seed000000.png", "grid.png", "x.gif"])


def test_how_a_run_goes_on_can_be_pasted(draw: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at(4, monkeypatch)
    done = draw("--class", 0, "--num", 3, "-b", 1, "--out", "my run")
    assert done.err.splitlines()[0] == "adm: 1 of 3 images is in my run; --out 'my run' goes on"


def test_interrupted_npz_goes_on(draw: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ("--class", "0,1", "--num", 2, "-b", 1, "--format", "npz", "--out")
    assert draw(*wanted, "whole").code == 0
    with monkeypatch.context() as patch:
        interrupt_at(6, patch)
        done = draw(*wanted, "o")
    assert (done.code, done.out) == (130, "")
    check_whole("o", ["0000_circle_seed000000.png", "0000_circle_seed000001.png"])
    assert draw(*wanted, "o").out == "o/samples_4x8x8x3.npz\n"
    made, whole = (Path(folder, "samples_4x8x8x3.npz").read_bytes() for folder in ("o", "whole"))
    assert made == whole


def test_interrupted_before_anything(draw: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at(2, monkeypatch)
    done = draw("--num", 3, "--out", "o", "--grid", "--animate", "o/x.gif")
    assert (done.code, done.out, done.err) == (130, "", "adm: interrupted\n")
    check_whole("o", [])


def test_a_fresh_folder_without_images_is_taken_back(
    draw: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(2, monkeypatch)
    assert draw("--num", 3).code == 130
    assert not list(Path("out").iterdir())


def limit_memory(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = UNet.forward

    def forward(self: UNet, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if x.shape[0] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")
        return real(self, x, *args, **kwargs)

    monkeypatch.setattr(UNet, "forward", forward)


def test_out_of_memory(draw: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = draw("--class", 0, "--num", 5, "-b", 2, "--out", "a").out.split()
    limit_memory(2, monkeypatch)
    done = draw("--class", 0, "--num", 5, "-b", 4, "--out", "b", "--animate", "x.webp")
    assert done.code == 0
    *paths, film = done.out.split()
    first, last = done.err.splitlines()
    assert first == "adm: out of memory: going on with batches of 2"
    assert last.startswith("adm: 5 images in ")
    assert [Path(p).read_bytes() for p in paths] == [Path(p).read_bytes() for p in expected]
    with Image.open(film) as animation:
        assert getattr(animation, "n_frames", 1) == 2


def test_not_even_one_image_fits(draw: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(0, monkeypatch)
    done = draw("--num", 1, "--out", "o")
    refused(done, 1, "not enough memory on cpu for a single image", "--dtype bfloat16")


def test_errors_show_a_traceback_to_those_who_ask(
    draw: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADM_DEBUG", "1")
    with pytest.raises(UsageError, match="--num must be at least 1"):
        draw("--num", 0)


def test_which_of_two_models_lacks_a_class(adm: Run, toys: Toys, tmp_path: Path) -> None:
    """The classifier here: who then passes another model gets no further."""
    narrow = save_toy(tmp_path / "narrow.safetensors", TOY_CLASSIFIER, {0: "circle", 1: "square"})
    lists = tmp_path / "list.txt"
    lists.write_text("star\n")
    for asked in (
        ("--class", 3),
        ("--class", "star"),
        ("--class", "0*0.5+3*0.5"),
        ("--classes-file", lists),
    ):
        done = adm("sample", "-m", toys.model, "--classifier", narrow, *asked, "--dry-run")
        assert done.code == 2
        assert "the classifier narrow" in done.err, done.err
        assert "pass another --classifier, or --scale 0" in done.err
        assert len(done.err.splitlines()) == 1
    done = adm("sample", "-m", toys.model, "--classifier", narrow, "--class", 2, "--dry-run")
    assert "this model" in done.err
    done = adm("sample", "-m", toys.model, "--scale", 0, "--class", 3, "--dry-run")
    assert done.code == 0, done.err


def test_a_class_that_the_pictures_lack(adm: Run, tmp_path: Path) -> None:
    draw_pictures(tmp_path / "shapes", count=2)
    done = adm("train-classifier", tmp_path / "shapes", "--class", "0-60", "--dry-run")
    assert (done.code, "this set of pictures" in done.err) == (2, True), done.err
    assert "model" not in done.err
