"""`adm convert`: originals become files that describe themselves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import adm_cli.checkpoints.converting as converting_module
from adm_cli.checkpoints.header import file_sha256, read_model_file
from adm_cli.checkpoints.loading import build_model, load_model
from adm_cli.checkpoints.presets import Checkpoint
from adm_cli.classes.imagenet import imagenet_names
from tests.conftest import DEEP_CLASSIFIER as TOY_CLASSIFIER
from tests.conftest import DEEP_UNET as TOY_UNET
from tests.conftest import TOY_DIFFUSION, Result, Toys, randomise, save_toy

Run = Callable[..., Result]

DIFFUSION_FLAGS = (
    "--image_size 8 --num_channels 32 --num_res_blocks 1 --channel_mult 1,1 "
    "--attention_resolutions 4 --num_head_channels 16 --resblock_updown True --class_cond True "
    "--num_classes 5 --learn_sigma True --diffusion_steps 100 --timestep_respacing 5"
)
CLASSIFIER_FLAGS = (
    "--image_size 8 --classifier_width 64 --classifier_depth 1 --classifier_channel_mult 1,1 "
    "--classifier_attention_resolutions 4 --num_classes 5 --diffusion_steps 100 "
    "--learn_sigma True --timestep_respacing 5"
)
PUBLISHED = Checkpoint(
    name="toy_published", config=TOY_UNET, diffusion=TOY_DIFFUSION, parameters=355_462
)


def state(path: Path) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in load_model(path).state_dict().items()}


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Toys:
    """Here, with levels that flags can get wrong."""
    model = save_toy(tmp_path_factory.mktemp("toys") / "toy.safetensors", TOY_UNET)
    return Toys(model, Path(), Path(), Path())


@pytest.fixture
def guide(adm: Run) -> Path:
    """A classifier that flags of the original can describe."""
    config = replace(TOY_CLASSIFIER, model_channels=64, num_heads=1, num_head_channels=64)
    torch.save(randomise(build_model(config)).state_dict(), "c.pt")
    return Path("c.pt")


@pytest.fixture
def original(adm: Run, toys: Toys) -> Path:
    """The toy diffusion model as the original would have saved it."""
    torch.save(state(toys.model), "toy.pt")
    return Path("toy.pt")


def publish(monkeypatch: pytest.MonkeyPatch, *rows: Checkpoint) -> None:
    """Puts rows in the place of the published checkpoints."""
    monkeypatch.setattr(converting_module, "CHECKPOINTS", rows)
    monkeypatch.setattr(
        converting_module, "find_checkpoint", {row.name: row for row in rows}.__getitem__
    )


def refused(done: Result, code: int, *words: str) -> None:
    assert (done.code, done.out) == (code, "")
    assert len(done.err.splitlines()) == 1, done.err
    assert done.err.startswith("adm: error: ")
    assert all(word in done.err for word in words), done.err


@pytest.mark.parametrize("zipped", [True, False])
def test_flags(adm: Run, toys: Toys, zipped: bool) -> None:
    """What is converted is the model that was saved, and beside the original by default."""
    torch.save(state(toys.model), "toy.pt", _use_new_zipfile_serialization=zipped)
    done = adm("convert", "toy.pt", "--flags", DIFFUSION_FLAGS)
    assert (done.code, done.out) == (0, "toy.safetensors\n")
    assert done.err == (
        f"adm: diffusion model, 355,462 parameters; "
        f"source SHA-256 {file_sha256(Path('toy.pt'))[:12]}...\n"
    )
    file = read_model_file(Path("toy.safetensors"))
    assert replace(file.info.config, num_heads=4) == TOY_UNET
    assert file.info.diffusion == TOY_DIFFUSION
    assert dict(file.info.classes) == {i: f"class {i}" for i in range(5)}
    assert file.info.source == {"file": "toy.pt", "sha256": file_sha256(Path("toy.pt"))}
    theirs, ours = state(toys.model), state(file.path)
    assert list(theirs) == list(ours)
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_dry_run(adm: Run, toys: Toys) -> None:
    torch.save(state(toys.model), "toy.pt")
    done = adm("convert", "toy.pt", "--flags", DIFFUSION_FLAGS, "--dry-run", "--json")
    told = json.loads(done.out)
    assert told["free_bytes"] > 0
    wanted = {"kind": "diffusion", "size": "8x8", "classes": 5, "parameters": 355_462}
    assert told.items() >= (wanted | {"output": "toy.safetensors", "file_bytes": 1_421_848}).items()
    shown = adm("convert", "toy.pt", "--flags", DIFFUSION_FLAGS, "--dry-run").out
    assert "file           1.42 MB" in shown
    assert not Path("toy.safetensors").exists()


@pytest.mark.usefixtures("guide")
def test_classifiers_and_json(adm: Run) -> None:
    done = adm("convert", "c.pt", "--flags", CLASSIFIER_FLAGS, "-o", "sub/c.safetensors", "--json")
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    file = read_model_file(Path("sub/c.safetensors"))
    assert told == {
        "path": "sub/c.safetensors",
        "kind": "classifier",
        "parameters": file.parameters,
        "content_sha256": file.content_sha256,
        "source": {"file": "c.pt", "sha256": file_sha256(Path("c.pt"))},
    }
    assert isinstance(file.info.config, type(TOY_CLASSIFIER))


@pytest.mark.usefixtures("guide")
def test_kind_chooses_between_two(adm: Run) -> None:
    both = f"{DIFFUSION_FLAGS} {CLASSIFIER_FLAGS}"
    done = adm("convert", "c.pt", "--flags", both, "--kind", "classifier")
    assert done.err.startswith("adm: classifier model, ")


def test_published_models_go_where_presets_are_looked_for(
    adm: Run, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, PUBLISHED)
    target = tmp_path / "home" / "models" / "toy_published.safetensors"
    named = original.with_name("toy_published.pt")
    shutil.copy(original, named)
    for arguments in ([original, "--preset", "toy_published"], [named]):
        done = adm("convert", *arguments)
        assert (done.code, done.out) == (0, f"{target}\n"), done.err
        assert read_model_file(target).info.config == TOY_UNET
        target.unlink()


def test_classes(adm: Run, original: Path) -> None:
    options = ("convert", original, "--flags", DIFFUSION_FLAGS, "--classes")
    assert adm(*options, "0-1,goldfish,great white shark").code == 0
    names = imagenet_names()
    found = read_model_file(Path("toy.safetensors")).info.classes
    assert found == {i: names[i] for i in (0, 1, 2)}
    Path("names.txt").write_text("4 star fish\n\n  0\tcircle \n", encoding="utf-8")
    written = Path("toy.safetensors").read_bytes()
    refused(adm(*options, "@names.txt"), 1, "toy.safetensors exists already", "--overwrite")
    assert Path("toy.safetensors").read_bytes() == written
    assert adm(*options, "@names.txt", "--overwrite").code == 0
    assert read_model_file(Path("toy.safetensors")).info.classes == {0: "circle", 4: "star fish"}


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ("207", "class 207 is out of range: the model has 5 classes"),
        ("@-1 early", "class -1 is out of range"),
        ("@", "--classes names no class"),
        ("@0 a\n0 b", "line 2: the id 0 is there twice"),
        ("@zero", "line 1: expected an id and a name, such as 207 golden retriever, got 'zero'"),
        ("@0", "expected an id and a name"),
        ("@\xff", "is not UTF-8: save it as UTF-8"),
        ("goldfisch", "did you mean goldfish"),
    ],
)
def test_impossible_classes(adm: Run, original: Path, classes: str, words: str) -> None:
    if classes.startswith("@"):
        Path("names.txt").write_text(classes[1:], encoding="latin-1")
        classes = "@names.txt"
    done = adm("convert", original, "--flags", DIFFUSION_FLAGS, "--classes", classes)
    refused(done, 2, words)
    assert not Path("toy.safetensors").exists()


def test_a_missing_class_list(adm: Run, original: Path) -> None:
    done = adm("convert", original, "--flags", DIFFUSION_FLAGS, "--classes", "@none.txt")
    refused(done, 2, "cannot read none.txt: No such file")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], 2, "none of the published models: pass the flags it was trained with"),
        (["--flags", "--num_chanels 3"], 2, "did you mean --num_channels"),
        (["--flags", "nothing"], 2, "no --flags found"),
        (["--flags", "toy.pt"], 2, 'is a file: pass its text, --flags "$(cat toy.pt)"'),
        (["--flags", "@toy.pt"], 2, "is a file: pass its text"),
        (["--preset", "lsun-cat"], 2, "lsun-cat is no single checkpoint: expected lsun_cat"),
        (["--flags", "--num_channels x"], 2, "--num_channels must be a number, got 'x'"),
        (["--flags", "--num_channels '"], 2, "no closing quotation"),
        (["--preset", "256x256_difusion"], 2, "did you mean 256x256_diffusion"),
        (["--preset", "tiny", "--flags", "--a 1"], 2, "pass one of them"),
        (["--kind", "critic"], 2, "--kind must be diffusion, classifier or upsampler"),
        (["--kind", "diffusion"], 2, "pass it with --flags"),
        (["--flags", DIFFUSION_FLAGS, "-o", "toy.pt"], 2, "is the input itself"),
        (["--flags", DIFFUSION_FLAGS, "-o", "toy.pt/x"], 1, "toy.pt is a file"),
        (
            ["--flags", DIFFUSION_FLAGS, "-o", "folder"],
            1,
            "folder is a folder, expected a file name",
        ),
    ],
)
def test_what_is_refused(
    adm: Run, original: Path, options: list[str], code: int, words: str
) -> None:
    Path("folder").mkdir()
    before = original.read_bytes()
    refused(adm("convert", original, *options), code, words)
    assert original.read_bytes() == before
    assert sorted(p.name for p in Path().iterdir()) == ["folder", "toy.pt"]
    assert not list(Path("folder").iterdir())


def test_bare_safetensors(adm: Run, toys: Toys) -> None:
    save_file(state(toys.model), "bare.safetensors")
    before = Path("bare.safetensors").read_bytes()
    options = ("convert", "bare.safetensors", "--flags", DIFFUSION_FLAGS)
    refused(adm(*options), 2, "bare.safetensors is the input itself: pass another --output")
    assert Path("bare.safetensors").read_bytes() == before
    assert adm(*options, "-o", "new.safetensors").code == 0
    loaded = state(Path("new.safetensors"))
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state(toys.model).items())


def test_no_pickle_runs(adm: Run) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (Path("canary"),))

    torch.save({"a": Attack()}, "x.pt")
    refused(adm("convert", "x.pt"), 1, "x.pt holds more than tensors", "refused")
    assert not Path("canary").exists()


def test_a_fine_tune_is_not_what_was_published(
    adm: Run, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In half precision, under any name or the published one; and in float32 of another length."""
    publish(monkeypatch, PUBLISHED)
    half = {name: tensor.half() for name, tensor in torch.load(original).items()}
    for name, own in (("dogs.pt", "dogs"), ("toy_published.pt", "toy_published-other")):
        torch.save(half, name)
        done = adm("convert", name)
        assert (done.code, done.out) == (0, f"{own}.safetensors\n")
        assert f"{name} has the shapes of toy_published and is not that file" in done.err
        assert "its classes are unnamed: pass --classes" in done.err
        found = read_model_file(Path(done.out.strip()))
        assert found.info.classes == {i: f"class {i}" for i in range(5)}
    size = original.stat().st_size
    publish(monkeypatch, replace(PUBLISHED, file_bytes=size + 1))
    assert adm("convert", original).out == "toy.safetensors\n"
    publish(monkeypatch, replace(PUBLISHED, file_bytes=size))
    assert adm("convert", original).out.endswith("models/toy_published.safetensors\n")
    assert not list(tmp_path.glob("home/models/*dogs*"))


def test_wrapped_weights(adm: Run, toys: Toys) -> None:
    model = state(toys.model)
    average = {name: tensor + 1 for name, tensor in model.items()}
    torch.save({"model": model, "ema": average, "step": 3}, "w.pt")
    for options, expected in (([], average), (["--weights", "model", "--overwrite"], model)):
        done = adm("convert", "w.pt", "--flags", DIFFUSION_FLAGS, *options)
        assert done.code == 0, done.err
        assert "adm: of several weights took " in done.err
        made = state(Path("w.safetensors"))
        assert all(torch.equal(made[name], tensor) for name, tensor in expected.items())
    refused(adm("convert", "w.pt", "--flags", DIFFUSION_FLAGS, "--weights", "x"), 2, "model, ema")


def test_a_null_class(adm: Run) -> None:
    torch.save(randomise(build_model(replace(TOY_UNET, null_class=True))).state_dict(), "n.pt")
    convert = ("convert", "n.pt", "--flags", DIFFUSION_FLAGS)
    refused(adm(*convert), 1, "--num_classes 6, or --null-class if the last label means no class")
    assert adm(*convert, "--null-class").code == 0
    config = read_model_file(Path("n.safetensors")).info.config
    assert replace(config, num_heads=4) == replace(TOY_UNET, null_class=True)
    free = DIFFUSION_FLAGS.replace("--num_classes 5", "--num_classes 4")
    refused(adm("convert", "n.pt", "--flags", free, "--null-class"), 2, "--num_classes 5 in")


@pytest.mark.usefixtures("guide")
def test_the_kind_is_read_from_the_tensors(adm: Run, original: Path) -> None:
    both = f"{DIFFUSION_FLAGS} {CLASSIFIER_FLAGS}"
    done = adm("convert", "c.pt", "--flags", both)
    refused(done, 1, "is a classifier, not a diffusion model: pass --kind classifier")
    done = adm("convert", "c.pt", "--flags", DIFFUSION_FLAGS)
    refused(done, 1, "is a classifier, not a diffusion model: give the flags of a classifier")
    assert "would explain" not in done.err


def test_no_advice_that_leads_nowhere(adm: Run, toys: Toys) -> None:
    torch.save({**state(toys.model), "extra.weight": torch.ones(2, 2)}, "e.pt")
    done = adm("convert", "e.pt", "--flags", DIFFUSION_FLAGS.replace("--learn_sigma True", ""))
    refused(done, 1, "unexpected: extra.weight")
    assert "would explain" not in done.err


def test_other_architectures(adm: Run, toys: Toys) -> None:
    gray = {n: t[:, :1] if n == "input_blocks.0.0.weight" else t
            for n, t in state(toys.model).items()}  # fmt: skip
    torch.save(gray, "gray.pt")
    refused(adm("convert", "gray.pt", "--flags", DIFFUSION_FLAGS), 1, "pictures of 1 channel")
    torch.save({"down_blocks.0.resnets.0.conv1.weight": torch.ones(2, 2)}, "d.pt")
    refused(adm("convert", "d.pt", "--flags", DIFFUSION_FLAGS), 1, "a UNet of diffusers")


def test_how_flags_are_read(adm: Run, original: Path) -> None:
    text = f"python a.py {DIFFUSION_FLAGS} --guide_scale 2\npython b.py --image_size 64"
    convert = ("convert", original, "--flags", text)
    refused(adm(*convert), 2, "2 commands that differ", "--command N")
    done = adm(*convert, "--command", 1)
    assert done.code == 0
    assert "passed over, not flags of the original: --guide_scale" in done.err
    refused(adm(*convert, "--command", 1, "--strict-flags"), 2, "not flags of the original")
    refused(adm("convert", original, "--flags-of", "improved-diffusion"), 2, "pass it with --flags")
    done = adm(*convert, "--command", 1, "--flags-of", "improved-diffusion", "--overwrite")
    assert read_model_file(Path("toy.safetensors")).info.diffusion.rescale_timesteps


def test_what_is_a_weights_file_already(adm: Run, toys: Toys) -> None:
    refused(adm("convert", toys.model), 2, "toy.safetensors is a weights file of adm already")


def test_a_pickle_under_the_name_of_safetensors(adm: Run, original: Path) -> None:
    """Which torch believes; what is converted goes elsewhere."""
    named = original.rename("toy.safetensors")
    refused(adm("info", named), 1, "is a PyTorch file", "adm convert toy.safetensors makes")
    refused(adm("sample", "-m", named), 1, "is a PyTorch file", "adm convert toy.safetensors makes")
    flags = ("--flags", DIFFUSION_FLAGS)
    refused(adm("convert", named, *flags), 2, "is the input itself")
    done = adm("convert", named, *flags, "-o", "made.pt")
    assert done.code == 0, done.err
    assert adm("info", "made.pt").code == 0  # and the other way round
