"""From the original's checkpoints to weights files of ours."""

from __future__ import annotations

import errno
import hashlib
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from adm_cli.checkpoints import converting, identity, loading
from adm_cli.checkpoints.converting import convert
from adm_cli.checkpoints.flags.model import openai_flags
from adm_cli.checkpoints.format import read_original
from adm_cli.checkpoints.header import ModelFile, ModelInfo, verify_content
from adm_cli.checkpoints.loading import build_model, expected_shapes, load_model
from adm_cli.checkpoints.originals import Weights
from adm_cli.checkpoints.presets import CHECKPOINTS, find_checkpoint
from adm_cli.classes.imagenet import imagenet_names
from adm_cli.config import UNetConfig
from adm_cli.errors import CheckpointError, OutputError, UsageError
from tests.conftest import randomise

FLAGS = (
    "--image_size 8 --num_channels 32 --num_res_blocks 1 --channel_mult 1,1 --learn_sigma True "
    "--attention_resolutions 4 --num_head_channels 16 --resblock_updown True "
    "--diffusion_steps 100 --timestep_respacing 5"
)
COND = f"{FLAGS} --class_cond True --num_classes 5"
CLASSIFIER = (
    "--image_size 8 --classifier_width 64 --classifier_depth 1 --classifier_channel_mult 1,1 "
    "--classifier_attention_resolutions 4 --num_classes 5"
)
UPSAMPLER = FLAGS.replace("--image_size 8", "--large_size 8 --small_size 4")
ANY_INFO = ModelInfo(*openai_flags(FLAGS))


@cache
def toy_state(flags: str) -> dict[str, Tensor]:
    config, _ = openai_flags(flags)
    return dict(randomise(build_model(config)).state_dict())


@pytest.fixture
def original(tmp_path: Path) -> Path:
    path = tmp_path / "toy.pt"
    torch.save(toy_state(COND), path)
    return path


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        (COND, "diffusion"),
        (FLAGS, "diffusion"),
        (CLASSIFIER, "classifier"),
        (UPSAMPLER, "upsampler"),
    ],
)
def test_convert(tmp_path: Path, form: str, flags: str, kind: str) -> None:
    path, state = tmp_path / "m.pt", toy_state(flags)
    if form == "bare":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    file = convert(path, flags=flags)
    verify_content(file)
    assert file.path == tmp_path / "m.safetensors"
    config, diffusion = openai_flags(flags)
    assert (file.info.config, file.info.diffusion, file.info.kind) == (config, diffusion, kind)
    assert file.info.source == {
        "file": "m.pt",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    names = {} if config.num_classes is None else {i: f"class {i}" for i in range(5)}
    assert file.info.classes == names
    loaded = load_model(file).state_dict()
    assert set(loaded) == set(state)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@pytest.fixture
def no_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying flags takes seconds where everything differs."""
    monkeypatch.setattr(converting, "explain_mismatch", lambda *_: [])


@pytest.mark.usefixtures("no_advice")
def test_kind_chooses_where_flags_of_both_are_given(tmp_path: Path) -> None:
    both = f"{COND} {CLASSIFIER}"
    torch.save(toy_state(CLASSIFIER), tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"a classifier, not a diffusion .*--kind classifier"):
        convert(tmp_path / "c.pt", flags=both)
    assert convert(tmp_path / "c.pt", flags=both, kind="classifier").info.kind == "classifier"
    with pytest.raises(UsageError, match="--kind says which model --flags describe"):
        convert(tmp_path / "c.pt", preset="lsun_cat", kind="diffusion")


@pytest.mark.parametrize(
    ("flags", "classes", "message"),
    [
        (COND, {5: "late"}, "class 5 is out of range: the model has 5 classes"),
        (COND, {-1: "early"}, "class -1 is out of range"),
        (COND, {}, "--classes names no class"),
        (COND, {1: "two\nlines"}, r"class 1 'two\\nlines': a name is one printable line"),
        (COND, {1: "\x1b[2J"}, r"class 1 '\\x1b\[2J': a name is one printable line"),
        (FLAGS, {0: "any"}, "--classes: the model is unconditional"),
    ],
)
def test_classes_that_do_not_fit(
    tmp_path: Path, flags: str, classes: dict[int, str], message: str
) -> None:
    torch.save(toy_state(flags), tmp_path / "m.pt")
    with pytest.raises(UsageError, match=message):
        convert(tmp_path / "m.pt", flags=flags, classes=classes)
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt"]


def test_classes(original: Path) -> None:
    chosen = {0: "circle", 3: "stern ☆"}
    assert convert(original, flags=COND, classes=chosen).info.classes == chosen
    flags = COND.replace("--num_classes 5", "")
    torch.save(toy_state(flags), original)
    assert convert(original, flags=flags, overwrite=True).info.classes == imagenet_names()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (FLAGS, ["unexpected: label_emb.weight", "--class_cond True --num_classes 5"]),
        (COND.replace("True --diff", "False --diff"), ["missing: ", "--resblock_updown True"]),
        (COND.replace("--learn_sigma True", ""), ["misshapen: out.2.weight", "--learn_sigma True"]),
        (COND.replace("blocks 1", "blocks 2"), ["missing: ", "--num_res_blocks 1"]),
        (COND.replace("channels 32", "channels 64"), ["misshapen: ", "--num_channels 32"]),
        (f"{COND} --use_scale_shift_norm False", ["--use_scale_shift_norm True"]),
        (CLASSIFIER, ["a diffusion model, not a classifier: give the flags of a diffusion model"]),
    ],
)
def test_flags_that_do_not_fit(
    original: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, words: list[str]
) -> None:
    monkeypatch.setattr(loading, "CHECKPOINTS", ())  # their sizes are slow to try
    output = original.with_name("old.safetensors")
    output.write_bytes(b"an older model")
    with pytest.raises(CheckpointError, match=r"do not fit the configuration|, not a ") as error:
        convert(original, flags=wrong, output=output)
    assert all(word in str(error.value) for word in words)
    assert "--" not in str(error.value).split("flags that would explain it")[0]
    assert output.read_bytes() == b"an older model"
    assert len(list(original.parent.iterdir())) == 2


@pytest.mark.parametrize("change", ["one more", "one less"])
def test_no_flags_are_asked_for_again_where_none_would_help(original: Path, change: str) -> None:
    state = dict(toy_state(COND))
    if change == "one more":
        state["middle_block.9.weight"] = torch.zeros(1)
    else:
        del state["middle_block.0.in_layers.0.bias"]
    torch.save(state, original)
    with pytest.raises(CheckpointError, match="no change of these --flags explains it"):
        convert(original, flags=COND)


def test_a_lone_tensor_is_no_model(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "t.pt")
    with pytest.raises(CheckpointError, match="expected a dictionary of tensors, got a tensor"):
        convert(tmp_path / "t.pt", flags=COND)


def test_attention_may_be_right_and_the_size_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "CHECKPOINTS", ())
    found = expected_shapes(openai_flags(COND)[0])
    wrong, _ = openai_flags(COND.replace("--image_size 8", "--image_size 16"))
    advice = ["--attention_resolutions 8", "(or --image_size 8)"]
    assert loading.explain_mismatch(wrong, found) == advice
    assert isinstance(wrong, UNetConfig)
    more = replace(wrong, out_channels=3)
    assert "(or --image_size 8)" not in loading.explain_mismatch(more, found)


@pytest.mark.usefixtures("no_advice")
def test_preset_and_flags(original: Path) -> None:
    with pytest.raises(UsageError, match="--preset and --flags both describe the model"):
        convert(original, preset="lsun_cat", flags=COND)
    with pytest.raises(UsageError, match="did you mean lsun_cat"):
        convert(original, preset="lsun_cta")
    with pytest.raises(CheckpointError, match="missing: "):
        convert(original, preset="lsun_cat")
    with pytest.raises(UsageError, match="did you mean --num_channels"):
        convert(original, flags="--num_chanels 32")


@pytest.mark.parametrize("link", [False, True])
def test_the_output_is_never_the_input(tmp_path: Path, link: bool) -> None:
    path = tmp_path / "m.safetensors"
    save_file(toy_state(COND), path)
    before, output = path.read_bytes(), None
    if link:
        output = tmp_path / "other.safetensors"
        output.symlink_to(path)
    with pytest.raises(UsageError, match="is the input itself: pass another --output"):
        convert(path, flags=COND, output=output)
    assert path.read_bytes() == before


def test_an_unknown_model_asks_for_its_flags(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converting, "CHECKPOINTS", CHECKPOINTS[:4])
    with pytest.raises(
        UsageError,
        match=r"toy\.pt is a diffusion model, and none of the published models: .*--flags",
    ):
        convert(original)
    assert [p.name for p in original.parent.iterdir()] == ["toy.pt"]


@pytest.fixture
def lsun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The names and shapes of a published model; its numbers would take 2 GB."""
    lsun = [row for row in CHECKPOINTS if row.name.startswith("lsun")]
    shapes = expected_shapes(lsun[0].config)
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    monkeypatch.setattr(converting, "CHECKPOINTS", tuple(lsun))  # the others are slow to try
    monkeypatch.setattr(converting, "read_weights", lambda _path, _wanted: Weights(state))
    monkeypatch.setattr(converting, "save_model", lambda *_: None)
    monkeypatch.setattr(identity, "byte_range", lambda row, _: (row.file_bytes or 15,) * 2)
    monkeypatch.setattr(
        converting, "read_model_file", lambda path: ModelFile(path, ANY_INFO, {}, {}, "")
    )
    monkeypatch.setenv("ADM_HOME", str(tmp_path / "home"))
    path = tmp_path / "model.pt"
    path.write_bytes(b"stands for 2 GB")
    return path


def test_several_published_models_fit(lsun: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.pt fits .*: say which with --preset") as error:
        convert(lsun)
    assert "lsun_bedroom, lsun_cat, lsun_horse, lsun_horse_nodropout" in str(error.value)
    models = lsun.parent / "home" / "models"
    assert convert(lsun, preset="lsun_cat").path == models / "lsun_cat.safetensors"
    named = lsun.rename(lsun.with_name("lsun_horse.pt"))
    assert convert(named).path == models / "lsun_horse.safetensors"


def test_a_damaged_download_is_told_by_its_hash(
    lsun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, digest = lsun.stat().st_size, hashlib.sha256(lsun.read_bytes()).hexdigest()
    cat = find_checkpoint("lsun_cat")

    def publish(file_bytes: int, sha256: str) -> None:
        row = replace(cat, file_bytes=file_bytes, sha256=sha256)
        monkeypatch.setattr(converting, "find_checkpoint", lambda _name: row)

    publish(size, "0" * 64)
    with pytest.raises(CheckpointError, match=rf"is not lsun_cat as published.*{digest[:12]}"):
        convert(lsun, preset="lsun_cat")
    for known in ((size, digest), (size + 1, "0" * 64)):  # the same, or saved anew
        publish(*known)
        assert convert(lsun, preset="lsun_cat").name == "lsun_cat"


def test_an_old_output_survives_a_full_disk(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = convert(original, flags=COND).path
    before = output.read_bytes()

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    torch.save(toy_state(COND), original)
    with pytest.raises(OutputError, match="the disk is full"):
        convert(original, flags=COND, classes={0: "new"}, overwrite=True)
    assert output.read_bytes() == before
    assert len(list(original.parent.iterdir())) == 2


@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_larger_than_its_file(tmp_path: Path, zipped: bool) -> None:
    """A kilobyte that would unfold to 400 terabytes."""
    huge = {"a": torch.zeros(1).expand(10**14)}
    torch.save(huge, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="a is not a plain tensor"):
        read_original(tmp_path / "m.pt")


@pytest.mark.parametrize("dtype", ["F6_E2M3", "F8_E4M3", "U8", "BOOL"])
def test_types_that_no_model_has(tmp_path: Path, dtype: str) -> None:
    size = 3 if dtype == "F6_E2M3" else 4
    header = {"a": {"dtype": dtype, "shape": [4], "data_offsets": [0, size]}}
    raw = json.dumps(header).encode()
    data = len(raw).to_bytes(8, "little") + raw + bytes(size)
    (tmp_path / "m.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"of an unknown type|expected floating point"):
        read_original(tmp_path / "m.safetensors")
