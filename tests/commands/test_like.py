"""`adm sample --like`: a picture's settings for whatever was not asked, and what differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import adm_cli
from adm_cli.errors import AdmError
from adm_cli.events import Note
from adm_cli.pictures.images import open_picture, save_image
from tests.conftest import TOY_CLASSIFIER, TOY_UNET, Result, Toys, save_toy

Run = Callable[..., Result]


@pytest.fixture
def like(adm: Run, toys: Toys) -> Run:
    """`adm sample --like` with the toy models where they are."""

    def call(picture: object, *arguments: object) -> Result:
        models = ("--model", toys.model, "--classifier", toys.classifier)
        return adm("sample", "--like", picture, *models, *arguments)

    return call


def made(draw: Run, *arguments: object) -> Path:
    return Path(draw("--class", 3, "--num", 1, "--out", "o", *arguments).out.split()[0])


def edit(path: Path, **changes: Any) -> None:
    pixels, recipe = open_picture(path)
    assert recipe is not None
    save_image(path, pixels, recipe | changes)


@pytest.mark.parametrize(
    "settings",
    [
        ("--scale", 3, "--guide-interval", "0.1,0.6", "--entropy-scaling"),
        ("--scale", 0, "--seed", 7),
        ("--sampler", "ddim", "--eta", 0.5, "--no-clip", "--steps", 3),
        ("--dtype", "bfloat16", "--plain", "--batch-size", 3),
    ],
)
def test_alone_it_draws_the_picture_itself(
    draw: Run, like: Run, settings: tuple[object, ...]
) -> None:
    picture = made(draw, *settings)
    done = like(picture, "--out", "again")
    assert done.code == 0, done.err
    assert f"as {picture}; what differs: the seeds at most" in done.err
    assert (Path("again") / picture.name).read_bytes() == picture.read_bytes()


def test_a_stack(draw: Run, like: Run, toys: Toys) -> None:
    up = ("--upsampler", toys.upsampler, "--upsample-sampler", "ddim", "--upsample-steps", 1)
    picture = made(draw, *up, "--upsample-project", 2)
    done = like(picture, "--upsampler", toys.upsampler, "--out", "again")
    assert done.code == 0, done.err
    assert "the seeds at most" in done.err
    assert (Path("again") / picture.name).read_bytes() == picture.read_bytes()
    small = like(picture, "--no-upsample", "--dry-run", "--json")
    assert json.loads(small.out)["differs"] == ["upsampler (toy_upsampler, now none)"]
    plain = made(draw, "--upsampler", "bicubic", "--out", "p")
    assert like(plain, "--out", "q").code == 0
    assert Path("q", plain.name).read_bytes() == plain.read_bytes()


def test_what_is_asked_beside_it_wins_and_is_told(draw: Run, like: Run) -> None:
    picture = made(draw, "--scale", 3, "--sampler", "ddim", "--eta", 0.5, "--no-clip")
    more = ("--scale", 2, "--clip", "--class", 0, "--sampler", "ddpm")
    done = like(picture, "--seeds", "8-9", *more, "--dry-run", "--json")
    facts = json.loads(done.out)
    assert facts["like"] == str(picture)
    assert (facts["seeds"], facts["classes"], facts["scale"]) == ([8, 9], [0], 2)
    assert facts["differs"] == [
        "scale (3, now 2)", "sampler (ddim, now ddpm)", "eta (0.5, now none)",
        "clip_denoised (False, now True)", "class (3, now 0)",
    ]  # fmt: skip
    facts = json.loads(like(picture, "--num", 3, "--dry-run", "--json").out)
    assert (facts["seeds"], facts["images"]) == ([0, 2], 3)
    unguided = json.loads(like(picture, "--scale", 0, "--dry-run", "--json").out)
    assert unguided["differs"][0] == "scale (3, now 0)"
    assert (unguided["classifier"], unguided["eta"]) == (None, 0.5)


def test_versions_and_machines_are_told(draw: Run, like: Run) -> None:
    picture = made(draw)
    edit(picture, adm="0.0.1", device="cuda", batch_size=4000)
    done = like(picture, "--device", "cpu", "--out", "again")
    assert done.code == 0, done.err
    for text in (
        "version of adm (0.0.1, now",
        "device (cuda, now cpu)",
        "batch size (4000, now 64)",
    ):
        assert text in done.err


def test_other_weights_of_the_same_name_are_refused(
    draw: Run, like: Run, adm: Run, toys: Toys
) -> None:
    """What ADM_MODEL says is no wish; what --model says is taken, and told."""
    first = adm("sample", "--class", 1, "--num", 1, "--steps", 1, "--out", "t", "--no-upsample",
                "--device", "cpu")  # fmt: skip
    picture = Path(first.out.strip())
    edit(picture, model_sha256="0" * 64)
    done = adm("sample", "--like", picture)
    assert (done.code, done.out) == (1, "")
    assert "was drawn with weights tiny of SHA-256 000000000000" in done.err
    asked = adm("sample", "--like", picture, "--model", "tiny", "--dry-run", "--json")
    assert json.loads(asked.out)["differs"][0].startswith("the model's weights (000000000000, now")
    other = save_toy(Path("other.safetensors"), TOY_CLASSIFIER, seed=7)
    picture = made(draw)
    told = like(picture, "--classifier", other, "--dry-run", "--json")
    assert "the classifier's weights" in json.loads(told.out)["differs"][0]


def test_the_usual_model_gives_way_to_the_pictures(
    adm: Run, toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = adm("sample", "--class", 1, "--num", 1, "--steps", 1, "--out", "t", "--no-upsample",
                "--device", "cpu")  # fmt: skip
    monkeypatch.setenv("ADM_MODEL", str(toys.model))
    facts = json.loads(adm("sample", "--like", first.out.strip(), "--dry-run", "--json").out)
    assert (facts["model"], facts["differs"]) == ("tiny", [])


def test_pictures_that_cannot_be_taken(draw: Run, adm: Run, toys: Toys) -> None:
    picture = made(draw)
    done = adm("sample", "--like", picture)
    assert (done.code, done.out) == (2, "")
    assert "weights 'toy', which are no preset: pass their file with --model" in done.err
    save_image(Path("bare.png"), open_picture(picture)[0])
    assert "bare.png carries no recipe" in adm("sample", "--like", "bare.png").err
    assert adm("sample", "--like", "none.png").code == 1
    enlarged = adm("upsample", "bare.png", "--model", toys.plain_upsampler, "--steps", 1,
                   "--device", "cpu", "--out", "l").out.strip()  # fmt: skip
    assert "from a picture without a recipe" in adm("sample", "--like", enlarged).err


def test_from_python(draw: Run, toys: Toys) -> None:
    picture = made(draw, "--scale", 3)
    told: list[Any] = []
    weights: dict[str, Any] = {"model": toys.model, "classifier": toys.classifier}
    done = adm_cli.sample(like=picture, **weights, scale=1, out="p", on_event=told.append)
    assert [note.text for note in told if isinstance(note, Note)] == [
        f"as {picture}; what differs: scale (3, now 1)"
    ]
    assert [record["seed"] for record in done.records()] == [0]
    save_toy(Path("toy.safetensors"), TOY_UNET, seed=9)
    with pytest.raises(AdmError, match="no preset"):
        adm_cli.sample(like=picture)
