"""`adm info`: weights files and pictures."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adm_cli.pictures.decode import EXTENSIONS
from adm_cli.pictures.images import open_picture, save_animation, save_image
from tests.conftest import TOY_CLASSES, Result, Toys

Run = Callable[..., Result]
PIXELS = np.zeros((4, 4, 3), dtype=np.uint8)


def facts(result: Result) -> dict[str, str]:
    assert (result.code, result.err) == (0, "")
    return {line[:22].strip(): line[23:] for line in result.out.splitlines()}


def test_a_weights_file(adm: Run, toys: Toys) -> None:
    shown = facts(adm("info", toys.model))
    assert (shown["kind"], shown["parameters"]) == ("diffusion", "185,478")
    assert shown["classes"] == "0 circle, 1 square, 3 star"
    assert shown["image_size"] == "8, 8"
    assert "gflop" not in shown
    assert float(facts(adm("info", toys.model, "--cost"))["gflop"]) > 0
    assert shown["diffusion"].startswith("noise_schedule linear, num_timesteps 100, ")
    data = json.loads(adm("info", toys.model, "--json").out)
    assert data["classes"] == {str(i): name for i, name in TOY_CLASSES.items()}
    assert data["parameters"] == 185_478
    assert data["content_sha256"] == shown["content_sha256"]
    assert data["stored_as"] == ["float32"]
    assert data["diffusion"]["num_timesteps"] == 100


def test_presets_and_classifiers(adm: Run) -> None:
    assert facts(adm("info", "tiny"))["parameters"] == "4,553,190"
    shown = facts(adm("info", "tiny_classifier"))
    assert (shown["kind"], shown["pool"], shown["stored_as"]) == (
        "classifier",
        "attention",
        "float16",
    )


def test_verify(adm: Run, toys: Toys) -> None:
    assert facts(adm("info", toys.model, "--verify"))["content_verified"] == "True"
    data = bytearray(toys.model.read_bytes())
    data[-1] ^= 1
    Path("flipped.safetensors").write_bytes(data)
    assert adm("info", "flipped.safetensors").code == 0  # the header is whole
    done = adm("info", "flipped.safetensors", "--verify")
    assert (done.code, done.out) == (1, "")
    assert "flipped.safetensors is damaged: its content hash is" in done.err


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_a_picture(draw: Run, adm: Run, suffix: str) -> None:
    seed = 12_345_678_901_234_567_890
    done = draw("--class", 3, "--seeds", seed, "--scale", 0.123456789, "-f", suffix)
    shown = facts(adm("info", done.out.strip()))
    assert (shown["class_name"], shown["seed"]) == ("star", str(seed))
    assert (shown["scale"], shown["size"], shown["eta"]) == ("0.123456789", "8, 8", "-")
    data = json.loads(adm("info", done.out.strip(), "--json").out)
    assert (data["seed"], data["scale"]) == (seed, 0.123456789)


def test_what_was_asked_comes_first(draw: Run, adm: Run, toys: Toys, tmp_path: Path) -> None:
    """Then the second stage, then the hashes; and the command is right."""
    size = ("--upsampler", toys.plain_upsampler, "--upsample-steps", 1, "--keep-base")
    path = draw("--class", 3, "--seeds", 7, "--scale", 0.5, "--grid", "--out", "o", *size)
    assert path.code == 0, path.err
    lines = adm("info", "o/0003_star_seed000007.png").out.splitlines()
    names = [line[:22].strip() for line in lines]
    assert names[:5] == ["model", "classifier", "class", "class_name", "scale"]
    second = names.index("upsampler model")
    hashes = [i for i, name in enumerate(names) if name.endswith("sha256")]
    assert names.index("seed") < names.index("again") < second < min(hashes)
    shown = {line[:22].strip(): line[23:] for line in lines}
    weights = {
        f"{path.stem}.safetensors": path
        for path in (toys.model, toys.classifier, toys.plain_upsampler)
    }
    words = [str(weights.get(word, word)) for word in shlex.split(shown["again"])]
    assert words[:3] == ["adm", "repro", "o/0003_star_seed000007.png"]
    assert words.count("--upsampler") == words.count("--classifier") == 1
    assert adm(*words[1:]).out == "identical\n"
    words = shlex.split(shown["more like it"])[1:]
    words = [str(weights.get(word, word)) for word in words]
    again = adm(*words, "--device", "cpu", "--out", "again")
    assert again.code == 0, again.err
    made = open_picture(Path("again/0003_star_seed000007.png"))[0]
    assert np.array_equal(made, open_picture(Path("o/base/0003_star_seed000007.png"))[0])
    grid = facts(adm("info", "o/grid.png"))
    assert (grid["kind"], grid["images"]) == ("sheet of a run of adm sample", "1")


def test_nothing_in_a_picture_reaches_the_terminal_raw(adm: Run) -> None:
    evil = {"model": "\x1b[2J\nseed 3 [red]:smile:", "\x1b]0;x\x07": [1, {"a": "\r"}]}
    save_image(Path("x.webp"), PIXELS, evil)
    done = adm("info", "x.webp")
    assert done.code == 0
    assert all(line.isprintable() for line in done.out.splitlines())
    assert len(done.out.splitlines()) == 2
    assert "\\x1b[2J seed 3 [red]:smile:" in done.out


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("plain.png", 1, "plain.png carries no recipe: it is a sheet, or was drawn with"),
        ("text.png", 1, "cannot read text.png as PNG or WebP"),
        ("none.png", 1, "cannot read none.png as PNG or WebP: No such file or directory"),
        ("x.npz", 2, "not npz"),
        ("none.safetensors", 2, "no such file: none.safetensors"),
        ("text.safetensors", 1, "text.safetensors is not a safetensors file, or is cut short"),
        ("folder.safetensors", 2, "folder.safetensors is a folder without a model"),
        ("imagenet25", 2, "neither a preset nor a file; did you mean imagenet256"),
        ("256x256_difusion", 2, "did you mean 256x256_diffusion"),
        ("imagenet256", 1, "adm fetch imagenet256 brings 256x256_diffusion and"),
        ("a" * 5000, 2, "is neither a preset nor a file"),
        ("", 2, "'' is neither a preset nor a file"),
    ],
)
def test_what_is_refused(adm: Run, name: str, code: int, words: str) -> None:
    save_image(Path("plain.png"), PIXELS)
    Path("folder.safetensors").mkdir()
    for text in ("text.png", "text.safetensors", "x.npz"):
        Path(text).write_text("hello")
    done = adm("info", name)
    assert (done.code, done.out) == (code, "")
    assert len(done.err.splitlines()) == 1
    assert words in done.err


def test_pictures_of_any_kind(draw: Run, adm: Run) -> None:
    path = Path(draw("--class", 3, "--seeds", 7, "--scale", 0).out.strip())
    path.rename("renamed.jpg")
    assert facts(adm("info", "renamed.jpg"))["seed"] == "7"
    kinds = [("a.jpg", "JPEG"), ("a.bmp", "BMP"), ("a.tif", "TIFF"), ("a.gif", "GIF")]
    kinds += [(f"a{e}", k) for e, k in ((".avif", "AVIF"), (".jp2", "JPEG2000")) if e in EXTENSIONS]
    for name, kind in kinds:
        Image.fromarray(PIXELS).save(name)
        done = adm("info", name)
        assert done.code == 1
        assert f"{name} carries no recipe" in done.err
        assert f"({kind}, 4x4 pixels)" in done.err


def test_archives_of_others_are_not_sent_to_convert(adm: Run) -> None:
    """What `adm convert` would refuse is not advised."""
    np.savez("arrays.npz", arr_0=PIXELS)
    Path("arrays.npz").rename("arrays.pt")
    for name, words in (
        ("arrays.pt", "is npz, arrays of NumPy"),
        ("empty.pt", "is empty: "),
    ):
        Path("empty.pt").write_bytes(b"")
        for done in (adm("info", name), adm("sample", "--model", name)):
            assert done.code == 1
            assert words in done.err


def test_films(adm: Run) -> None:
    for name in ("film.gif", "film.webp"):
        save_animation(Path(name), [PIXELS, PIXELS + 9], {"kind": "film", "images": ["a"]})
        assert facts(adm("info", name)) == {"kind": "film", "images": "a"}


def test_folders(draw: Run, adm: Run) -> None:
    run = Path(draw("--class", 3, "--seeds", 7, "--scale", 0, "--out", "o").out.strip()).parent
    for name in (run, run / "run.json"):
        shown = facts(adm("info", name))
        assert (shown["kind"], shown["images"], shown["images_made"]) == (
            "run of adm sample",
            "1",
            "1",
        )
        assert shown["sampler"] == "ddpm"
        assert {"guide_by", "cfg", "strength"}.isdisjoint(shown)
        assert facts(adm("info", name, "--all"))["guide_by"] == "log-p"
    assert json.loads(adm("info", "o", "--json").out)["guide_by"] == "log-p"
    Path("t").mkdir()
    Path("t/settings.json").write_text(
        json.dumps({"kind": "classifier", "training": {"lr": 0.5}, "config": {"pool": "spatial"}})
    )
    shown = facts(adm("info", "t"))
    assert (shown["kind"], shown["lr"]) == ("training of a classifier model", "0.5")
    assert (shown["step"], shown["model"]) == ("0", "-")
    Path("empty").mkdir()
    done = adm("info", "empty")
    assert (done.code, done.out) == (2, "")
    assert "empty is a folder, and no run, sweep or training of adm" in done.err


def test_only_what_needs_torch_loads_it(draw: Run) -> None:
    """A process of its own, which is the only one without torch."""
    made = draw("--class", "0", "--num", 1, "--quiet", "--out", "run").out.split()[0]
    code = (
        "import sys\nfrom adm_cli.commands.main import run\n"
        f"assert run(['info', {made!r}]) == run(['info', 'run']) == 0\n"
        "assert run(['info', 'tiny', '--verify']) == run(['cache', 'ls']) == 0\n"
        "assert 'torch' not in sys.modules\n"
        "assert run(['info', 'tiny', '--cost']) == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "run of adm sample" in done.stdout


def test_what_differs_of_two(draw: Run, adm: Run, toys: Toys) -> None:
    first = draw("--class", "0", "--seed", 1, "--num", 1, "--quiet", "--out", "a").out.strip()
    second = draw(
        "--class", "0", "--seed", 1, "--num", 1, "--scale", 0.5, "--quiet", "--out", "b"
    ).out.strip()
    shown = facts(adm("info", first, second))
    assert shown["scale"].endswith(" | 0.5")
    assert not {"seed", "class", "model", "steps"} & set(shown)
    assert not adm("info", first, "a").out  # a size is a tuple here, a list there
    same = adm("info", first, first)
    assert (same.code, same.out, same.err) == (0, "", "adm: nothing differs\n")
    pair = json.loads(adm("info", "a", "b", "--json").out)["differs"]["scale"]
    assert pair[1] == 0.5 != pair[0]
    models = json.loads(adm("info", toys.model, toys.classifier, "--json").out)["differs"]
    assert models["kind"] == ["diffusion", "classifier"]
    assert "diffusion.noise_schedule" not in models


def test_a_picture_beside_a_run(draw: Run, adm: Run) -> None:
    """What both say, and what a recipe leaves out as it changes nothing: no rows of one alone."""
    first = draw("--class", "0", "--num", 1, "-q", "--out", "a").out.strip()
    draw("--class", "0", "--num", 1, "--churn", 3, "--sampler", "heun", "-q", "--out", "b")
    same = adm("info", first, "a")
    assert (same.code, same.out, same.err) == (0, "", "adm: nothing differs\n")
    shown = facts(adm("info", first, "b"))
    assert (shown["churn"], shown["sampler"]) == ("0 | 3", "ddpm | heun")
    assert set(facts(adm("info", "b", first))) == set(shown)
    assert not {"kind", "images", "seed", "class", "adm", "environment.adm"} & set(shown)
    stack = ("--upsampler", "bicubic", "--class", "0", "--num", 1, "-q")
    second = draw(*stack, "--out", "c").out.strip()
    assert adm("info", second, "c").out == ""
