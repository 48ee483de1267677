"""Weights files: they read back, and nothing but a whole one of ours is taken for one."""

from __future__ import annotations

import errno
import hashlib
import json
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from adm_cli.checkpoints.format import read_original, save_model
from adm_cli.checkpoints.header import ModelInfo, file_sha256, read_model_file, verify_content
from adm_cli.checkpoints.loading import load_model
from adm_cli.checkpoints.tensors import stream_tensors
from adm_cli.errors import CheckpointError, DeviceError, OutputError
from tests.conftest import TOY_CLASSES, TOY_CLASSIFIER, TOY_DIFFUSION, TOY_UNET, Toys

INFO = ModelInfo(
    config=TOY_UNET,
    diffusion=TOY_DIFFUSION,
    classes=TOY_CLASSES,
    training={"steps": 3, "note": "naïve 🦊"},
    source={"file": "a.pt", "sha256": "0" * 64},  # looks like the blank hash
)
TENSORS: dict[str, Tensor] = {
    "half.odd": torch.arange(7.0).half(),
    "brain": torch.arange(15.0).reshape(5, 3).bfloat16().T,  # not contiguous
    "single": torch.linspace(-1, 1, 9).reshape(3, 3),
    "double": torch.tensor(torch.pi, dtype=torch.float64),  # no dimensions
    "none": torch.zeros(0, 4),
}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.safetensors"
    save_model(path, TENSORS, INFO)
    return path


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and payload."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def join(path: Path, header: str, payload: bytes, *, length: int | None = None) -> Path:
    raw = header.encode()
    start = struct.pack("<Q", len(raw) if length is None else length)
    path.write_bytes(start + raw + payload)
    return path


def check(path: Path) -> None:
    verify_content(read_model_file(path))


def test_round_trip(good: Path) -> None:
    file = read_model_file(good)
    verify_content(file)
    assert file.info == INFO
    assert (file.name, file.parameters) == ("good", 7 + 15 + 9 + 1)
    assert file.shapes == {name: tuple(t.shape) for name, t in TENSORS.items()}
    assert file.dtypes == {name: str(t.dtype)[6:] for name, t in TENSORS.items()}
    for name, tensor in stream_tensors(file):
        assert torch.equal(tensor, TENSORS[name])


def test_the_library_reads_our_files(good: Path) -> None:
    with safe_open(good, framework="pt") as handle:
        assert handle.metadata()["format"] == "adm"
        assert set(handle.keys()) == set(TENSORS)
        for name, tensor in TENSORS.items():
            read = handle.get_tensor(name)
            assert read.dtype == tensor.dtype
            assert torch.equal(read, tensor)
    header, _ = split(good)
    assert (8 + int.from_bytes(good.read_bytes()[:8], "little")) % 64 == 0
    for name, tensor in TENSORS.items():
        assert header[name]["data_offsets"][0] % tensor.element_size() == 0


def test_equal_models_are_equal_files(good: Path, tmp_path: Path) -> None:
    digest = save_model(tmp_path / "again.safetensors", TENSORS, INFO)
    assert (tmp_path / "again.safetensors").read_bytes() == good.read_bytes()
    assert digest == read_model_file(good).content_sha256
    assert file_sha256(good) == hashlib.sha256(good.read_bytes()).hexdigest()
    other = save_model(good, TENSORS, replace(INFO, training={}))
    assert other != digest


@pytest.mark.parametrize("mask", [0x01, 0x20, 0xFF])
def test_every_flipped_byte_is_noticed(good: Path, mask: int) -> None:
    data = good.read_bytes()
    for at in [*range(140), *range(140, len(data), 7), *range(len(data) - 130, len(data))]:
        flipped = bytearray(data)
        flipped[at] ^= mask
        good.write_bytes(flipped)
        with pytest.raises(CheckpointError, match="good"):
            check(good)
    good.write_bytes(data)
    check(good)


def test_truncated_or_longer(good: Path) -> None:
    data = good.read_bytes()
    for length in [*range(20), *range(20, len(data), 37), len(data) - 1]:
        good.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="good"):
            read_model_file(good)
    good.write_bytes(data + b"\0")
    with pytest.raises(CheckpointError, match="damaged"):
        read_model_file(good)


@pytest.mark.parametrize("left", [0, 5, 8, 100])
def test_a_file_that_shrinks_after_its_header_was_read(good: Path, left: int) -> None:
    file = read_model_file(good)
    good.write_bytes(good.read_bytes()[:left])
    with pytest.raises(CheckpointError, match="damaged"):
        verify_content(file)
    with pytest.raises(CheckpointError, match="damaged"):
        list(stream_tensors(file))


@pytest.mark.parametrize("length", [0, 1, 10**6, 2**31, 10**8 + 1, 2**63, 2**64 - 1])
def test_impossible_header_lengths(good: Path, length: int) -> None:
    header, payload = split(good)
    join(good, json.dumps(header), payload, length=length)
    with pytest.raises(CheckpointError, match="not a safetensors file, or is cut short"):
        read_model_file(good)


@pytest.mark.parametrize(
    "header",
    [
        *("[]", "{}}", '"text"', "{ ", "\0\0", "nul", '{"a": 1}', '{"a": {"dtype": "F32"}}'),
        *("{" * 200_000, '{"a": ' * 200_000, "[" * 200_000),
        *('{"__metadata__": 1}', '{"\\ud800": 1}', '{"a": NaN}'),
    ],
)
def test_headers_that_are_not_ours(tmp_path: Path, header: str) -> None:
    with pytest.raises(CheckpointError, match=r"x\.safetensors: damaged safetensors"):
        read_model_file(join(tmp_path / "x.safetensors", header, b""))


def test_duplicate_keys(good: Path) -> None:
    header, payload = split(good)
    text = json.dumps(header)
    single = json.dumps(header["single"])
    for twice in (
        text.replace('"single":', f'"single": {single}, "single":'),
        text.replace('"format":', '"format": "adm", "format":'),
        text.replace('{"__metadata__":', '{"__metadata__": {"format": "adm"}, "__metadata__":'),
    ):
        assert twice != text
        with pytest.raises(CheckpointError, match="duplicate key '"):
            read_model_file(join(good, twice, payload))


def test_one_duplicate_among_many_names_is_found_in_one_pass(tmp_path: Path) -> None:
    """By counting each name anew, these 200,000 would take the better part of an hour."""
    names = ",".join(f'"n{i}":0' for i in range(200_000))
    with pytest.raises(CheckpointError, match="duplicate key 'n199999'"):
        read_model_file(join(tmp_path / "x.safetensors", f'{{{names},"n199999":0}}', b""))


def edited(text: str, **changes: object) -> str:
    """JSON with some keys set, or removed where None."""
    data = {**json.loads(text), **changes}
    return json.dumps({key: value for key, value in data.items() if value is not None})


@pytest.mark.parametrize(
    ("key", "edit", "message"),
    [
        ("format", lambda _: "other", "adm convert /.*/good.safetensors "),
        ("format", lambda _: None, "adm convert /.*/good.safetensors "),
        ("format_version", lambda _: "2", "format version 2, this adm reads 1"),
        ("format_version", lambda _: None, "format version unknown"),
        ("kind", lambda _: "critic", "unknown kind 'critic'"),
        ("kind", lambda _: "upsampler", "kind 'upsampler', but settings of a diffusion model"),
        ("kind", lambda _: "classifier", "unknown settings: "),
        ("kind", lambda _: None, "damaged metadata .no 'kind'"),
        ("training", lambda _: None, "damaged metadata .no 'training'"),
        ("config", lambda c: edited(c, colour="red"), "unknown settings: colour"),
        ("config", lambda c: edited(c, image_size=None), "missing settings: image_size"),
        ("config", lambda c: edited(c, dropout="0"), "dropout has an unexpected value"),
        ("config", lambda c: edited(c, num_res_blocks=True), "num_res_blocks has an unexpected"),
        ("config", lambda c: edited(c, num_res_blocks=10**9), "num_res_blocks must be from 1"),
        ("config", lambda c: edited(c, channel_mult=[1e400]), "damaged metadata"),
        ("config", lambda c: edited(c, channel_mult=[float("nan")]), "damaged metadata"),
        ("config", lambda c: edited(c, image_size=[0, 0]), "image_size must be from 1"),
        ("config", lambda _: "[" * 100_000, "not JSON"),
        ("config", lambda _: "[]", "settings are no JSON object"),
        ("diffusion", lambda d: edited(d, variance="huge"), "variance has an unexpected value"),
        ("classes", lambda _: "[]", "damaged metadata"),
        ("classes", lambda _: "{}", "0 names for 5 classes"),
        ("classes", lambda _: '{"5": "late"}', "class 5 'late' of 5 classes"),
        ("classes", lambda _: '{"-1": "early"}', "class -1 'early' of 5 classes"),
        ("classes", lambda _: '{"1": "two\\nlines"}', "of 5 classes"),
        ("classes", lambda _: '{"1": "\\u001b[2J"}', "of 5 classes"),
        ("classes", lambda _: '{"x": "y"}', "damaged metadata"),
        ("classes", lambda _: '{"%s": "y"}' % ("9" * 5000), "damaged metadata"),
        ("training", lambda _: "3", "damaged metadata"),
        ("source", lambda _: "{", "damaged metadata"),
    ],
)
def test_metadata_that_is_not_ours(
    good: Path, key: str, edit: Callable[[str], str | None], message: str
) -> None:
    header, payload = split(good)
    value = edit(header["__metadata__"].pop(key))
    if value is not None:
        header["__metadata__"][key] = value
    with pytest.raises(CheckpointError, match=message):
        read_model_file(join(good, json.dumps(header), payload))


def test_kind_follows_the_configuration(tmp_path: Path) -> None:
    configs = (TOY_UNET, replace(TOY_UNET, low_res_size=(4, 4)), TOY_CLASSIFIER)
    kinds = []
    for config in configs:
        save_model(tmp_path / "x.safetensors", TENSORS, replace(INFO, config=config))
        kinds.append(read_model_file(tmp_path / "x.safetensors").info.kind)
    assert kinds == ["diffusion", "upsampler", "classifier"]


def test_without_metadata(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    path = join(tmp_path / "bare.safetensors", json.dumps({"a": entry}), bytes(4))
    with pytest.raises(CheckpointError, match=r"adm convert \S+bare\.safetensors --preset"):
        read_model_file(path)


def test_integer_tensors(good: Path) -> None:
    header, payload = split(good)
    header["single"]["dtype"] = "I32"
    with pytest.raises(CheckpointError, match="single has dtype I32, expected floats"):
        read_model_file(join(good, json.dumps(header), payload))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_pickles_are_told_to_be_converted(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    for protocol in (2, 3, 4, 5):
        path.write_bytes(pickle.dumps({"weight": [1.0] * 300}, protocol=protocol))
        with pytest.raises(CheckpointError, match=f"PyTorch file.*adm convert {path}"):
            read_model_file(path)
    for zipped in (True, False):
        torch.save(TENSORS, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match=f"PyTorch file.*adm convert {path}"):
            read_model_file(path)


@pytest.mark.parametrize("low", [*b"\x80P<", 0x20])
@pytest.mark.parametrize("high", [1, 2, 4, ord("K")])
def test_a_length_that_looks_like_another_format(good: Path, low: int, high: int) -> None:
    """The first bytes are a length: whole files read, cut ones are not called by a wrong name."""
    header, payload = split(good)
    text = json.dumps(header)
    length = low + 256 * high
    while length < len(text):
        length += 1 << 16
    join(good, text.ljust(length), payload)
    assert good.read_bytes()[:2] == bytes([low, high])
    read_model_file(good)
    assert set(read_original(good)) == set(TENSORS)
    good.write_bytes(good.read_bytes()[:1000])
    for read in (read_model_file, read_original):
        with pytest.raises(CheckpointError, match="not a safetensors file, or is cut short"):
            read(good)


def save_pt(path: Path, content: object, *, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


@FORMATS
def test_originals_read_back(tmp_path: Path, zipped: bool) -> None:
    shared = torch.arange(12.0).reshape(3, 4)
    state = {**TENSORS, "view": shared[1:], "turned": shared.T, "leaf": torch.nn.Parameter(shared)}
    read = read_original(save_pt(tmp_path / "m.pt", state, zipped=zipped))
    assert list(read) == list(state)
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())
    assert all(read[name].dtype == tensor.dtype for name, tensor in state.items())


def test_bare_safetensors_read_back(tmp_path: Path) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in TENSORS.items()}
    save_file(tensors, tmp_path / "m.safetensors")
    read = read_original(tmp_path / "m.safetensors")
    assert set(read) == set(TENSORS)
    assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items())


class Attack:
    """Unpickled without care, it makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.canary,))


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("writer", ["zip", "legacy", "pickle"])
def test_a_pickle_that_would_run_code(tmp_path: Path, writer: str, nested: bool) -> None:
    path, canary = tmp_path / "m.pt", tmp_path / "canary"
    attack: object = Attack(canary)
    if nested:
        attack = {"a": torch.ones(2), "b": attack}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(attack))
    else:
        save_pt(path, attack, zipped=writer == "zip")
    with pytest.raises(
        CheckpointError, match=r"m\.pt (holds more than tensors|is pickled .* could run code)"
    ):
        read_original(path)
    assert not canary.exists()
    if writer != "pickle":  # the canary is a real one
        torch.load(path, weights_only=False)
        assert canary.exists()


OPTIMIZER = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))]).state_dict()


@FORMATS
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "expected a dictionary of tensors, got a list"),
        (torch.ones(2), "expected a dictionary of tensors, got a tensor"),
        ({}, "expected a dictionary of tensors, got an empty one"),
        (OPTIMIZER, "an optimizer's state .opt.*: give the model or ema file"),
        ({"state_dict": {"a": torch.ones(2)}}, "got a dictionary under 'state_dict'"),
        ({"a": torch.ones(2), "step": 3}, "got a number under 'step'"),
        ({3: torch.ones(2)}, "got a tensor under 3"),
        ({"a": torch.arange(2)}, "a is int64, expected floating point"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "a is complex64"),
        ({"a": torch.tensor([1.0, float("nan")])}, "a holds NaN or infinite values"),
        ({"a": torch.tensor(float("-inf"))}, "a holds NaN or infinite values"),
        ({"a": torch.eye(2).to_sparse()}, "a is not a plain tensor"),
        ({"a": torch.ones(2, device="meta")}, "a is not a plain tensor"),
    ],
)
def test_originals_that_are_no_model(
    tmp_path: Path, content: object, message: str, zipped: bool
) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_original(save_pt(tmp_path / "m.pt", content, zipped=zipped))


@FORMATS
def test_truncated_originals(tmp_path: Path, zipped: bool) -> None:
    path = save_pt(tmp_path / "m.pt", {"a": torch.ones(500), "b": torch.ones(3)}, zipped=zipped)
    data = path.read_bytes()
    for length in [*range(12), *range(12, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"m\.pt.*(cut short|more than tensors)"):
            read_original(path)


@pytest.mark.parametrize(
    "text", ["<!DOCTYPE html><html>", "\n  <html><head>", "<?xml version='1.0'?><Error>"]
)
def test_a_web_page_in_place_of_weights(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.pt").write_text(text + "x" * 300)
    with pytest.raises(CheckpointError, match=r"m\.pt is a web page, .* download it again"):
        read_original(tmp_path / "m.pt")


def test_a_page_that_is_called_one_is_not_to_be_fetched_again(tmp_path: Path) -> None:
    """As `adm gallery` writes them."""
    (tmp_path / "run.html").write_text("<!DOCTYPE html><html>" + "x" * 300)
    with pytest.raises(CheckpointError, match=r"run\.html is a web page: a browser shows it"):
        read_original(tmp_path / "run.html")


@pytest.mark.parametrize("version", ["2.9.1+cpu", "2.5.0a0+git"])
def test_an_older_torch_unpickles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    path = save_pt(tmp_path / "m.pt", {"a": torch.ones(2)})
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(CheckpointError, match=r"torch 2\.10 or later, this is .* pip install"):
        read_original(path)
    save_file({"a": torch.ones(2)}, path)
    assert set(read_original(path)) == {"a"}  # no pickle, no matter


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for read in (read_model_file, read_original):
        with pytest.raises(CheckpointError, match="No such file"):
            read(tmp_path / "none")
        with pytest.raises(CheckpointError, match="Is a directory"):
            read(tmp_path)


def test_a_failed_save_leaves_the_old_file(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = good.read_bytes()

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=r"good\.safetensors: the disk is full"):
        save_model(good, TENSORS, replace(INFO, training={"steps": 4}))
    assert good.read_bytes() == before
    assert list(good.parent.iterdir()) == [good]


def test_load_checks_the_content_and_the_shapes(tmp_path: Path, toys: Toys) -> None:
    data = bytearray(toys.model.read_bytes())
    data[-1] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"flipped.* is damaged: its content hash"):
        load_model(tmp_path / "flipped.safetensors")
    state = dict(load_model(toys.model).state_dict())
    name = "out.2.weight"
    state["extra"] = state.pop("time_embed.0.bias")
    state[name] = state[name][:3]
    save_model(tmp_path / "other.safetensors", state, INFO)
    with pytest.raises(CheckpointError) as error:
        load_model(tmp_path / "other.safetensors")
    assert str(error.value).endswith(
        "missing: time_embed.0.bias; unexpected: extra; "
        "misshapen: out.2.weight is [3, 32, 3, 3], expected [6, 32, 3, 3]"
    )


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("MPS backend out of memory")],
)
def test_weights_that_do_not_fit_the_device(
    toys: Toys, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> Tensor:
        raise error

    monkeypatch.setattr(Tensor, "to", full)
    with pytest.raises(DeviceError, match="not enough memory on cpu for the weights of"):
        load_model(toys.model, dtype=torch.bfloat16)
