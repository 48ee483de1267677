"""`adm export --to onnx`: onnxruntime computes the same, for batches of any length."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import adm_cli
from adm_cli.checkpoints import onnx
from adm_cli.checkpoints.finding import find_weights
from adm_cli.checkpoints.header import read_model_file
from adm_cli.config import ClassifierConfig, DiffusionConfig, UNetConfig
from tests.conftest import (
    DEEP_CLASSIFIER,
    DEEP_UNET,
    TOY_CLASSES,
    TOY_CLASSIFIER,
    TOY_DIFFUSION,
    TOY_UNET,
    TOY_UPSAMPLER,
    Result,
    Toys,
    save_toy,
)

Adm = Callable[..., Result]
Inputs = dict[str, torch.Tensor]


def needs_onnx() -> Any:
    """onnxruntime; the test is left out, with the reason, where the extra is not installed."""
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name, reason="the extra onnx is not installed")
    return pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")


def arguments(config: UNetConfig | ClassifierConfig, batch: int) -> Inputs:
    """By our names, in the order of the graph."""
    found = {
        "x": torch.randn(batch, 3, *config.image_size),
        "t": torch.rand(batch) * 99,  # fractions are allowed
    }
    if isinstance(config, UNetConfig) and config.num_classes is not None:
        found["y"] = torch.arange(batch) % 5
    if isinstance(config, UNetConfig) and config.low_res_size is not None:
        found["low_res"] = torch.rand(batch, 3, *config.low_res_size) * 2 - 1
    if isinstance(config, UNetConfig) and config.low_res_noise is not None:
        found["low_res_noise"] = torch.full((batch,), 0.1)
    return found


def check(adm: Adm, runtime: Any, config: UNetConfig | ClassifierConfig, names: list[str]) -> Any:
    """Exports a toy, compares what it computes for two lengths of a batch; the session."""
    cosine = DiffusionConfig(noise_schedule="cosine", prediction="v")
    diffusion = cosine if getattr(config, "detail_scale", None) else TOY_DIFFUSION
    model = save_toy(Path("m.safetensors"), config, None if config.num_classes else {}, diffusion)
    done = adm("export", model, "m.onnx", "--to", "onnx", "--json")
    assert done.code == 0, done.err
    assert done.err == ""
    assert json.loads(done.out)["path"] == "m.onnx"
    session = runtime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == names
    ours = adm_cli.load_model(model)
    for batch in (1, 3):
        given = arguments(config, batch)
        fed = {name: value.numpy() for name, value in zip(names, given.values(), strict=True)}
        (theirs,) = session.run(None, fed)
        with torch.no_grad():
            assert torch.allclose(torch.from_numpy(theirs), ours(**given), rtol=1e-5, atol=1e-5)
    return session


def test_a_diffusion_model(adm: Adm) -> None:
    session = check(adm, needs_onnx(), TOY_UNET, ["x_t", "timesteps", "class_labels"])
    assert [entry.shape for entry in session.get_inputs()] == [
        ["batch", 3, 8, 8], ["batch"], ["batch"],
    ]  # fmt: skip
    assert [(e.name, e.shape) for e in session.get_outputs()] == [
        ("prediction", ["batch", 6, 8, 8])
    ]
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["classes"]) == {str(i): name for i, name in TOY_CLASSES.items()}
    assert json.loads(said["diffusion"])["num_timesteps"] == 100
    assert said["content_sha256"] == read_model_file(Path("m.safetensors")).content_sha256
    assert "license" not in said


def test_a_classifier(adm: Adm) -> None:
    session = check(adm, needs_onnx(), TOY_CLASSIFIER, ["x_t", "timesteps"])
    assert [(e.name, e.shape) for e in session.get_outputs()] == [("logits", ["batch", 5])]


FOLDED = replace(DEEP_UNET, patch=2, image_size=(16, 16), attention_window=2, num_classes=None)
CONCAT = replace(TOY_UNET, scale_shift_norm=False, concat_embedding=True)
SPATIAL = replace(DEEP_CLASSIFIER, pool="spatial_v2")
ADAPTIVE = replace(DEEP_CLASSIFIER, pool="adaptive", resblock_updown=False)
NOISED = replace(TOY_UPSAMPLER, low_res_noise=0.3)
DETAIL = replace(TOY_UPSAMPLER, detail_scale=0.3, num_classes=None)
OTHERS: dict[str, tuple[UNetConfig | ClassifierConfig, list[str]]] = {
    "upsampler": (NOISED, ["x_t", "timesteps", "class_labels", "low_res", "low_res_noise"]),
    "detail alone": (DETAIL, ["x_t", "timesteps", "low_res"]),
    "folds, windows, no classes": (FOLDED, ["x_t", "timesteps"]),
    "concatenated embedding": (CONCAT, ["x_t", "timesteps", "class_labels"]),
    "spatial pool": (SPATIAL, ["x_t", "timesteps"]),
    "adaptive pool": (ADAPTIVE, ["x_t", "timesteps"]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_kind(adm: Adm, name: str, slow: bool) -> None:
    if not slow:
        pytest.skip("tracing one takes ten seconds: --slow")
    config, names = OTHERS[name]
    check(adm, needs_onnx(), config, names)


def tiny_graph() -> Any:
    """y = x + w, as torch's exporter would leave it."""
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy"]
    data = torch.tensor([1.5, -2.0]).numpy().tobytes()
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, [2], data, raw=True) for name in ("v", "w")
    ]
    nodes = [helper.make_node("Add", ["x", "w"], ["z"]), helper.make_node("Add", "zv", ["y"])]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_weights_too_many_for_one_file(
    adm: Adm, toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = needs_onnx()
    monkeypatch.setattr(onnx, "_graph", lambda _: tiny_graph())
    monkeypatch.setattr(onnx, "_MOST_IN_ONE", 8)
    assert adm("export", toys.model, "big/m.onnx", "--to", "onnx").code == 0
    digest = read_model_file(toys.model).content_sha256[:12]
    data = Path(f"big/m.onnx.{digest}.data")
    assert sorted(Path("big").iterdir()) == [Path("big/m.onnx"), data]
    assert data.stat().st_size == 4096 + 8  # the second begins at a page
    session = runtime.InferenceSession("big/m.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": torch.ones(2).numpy()})
    assert found.tolist() == [4.0, -3.0]


def test_a_disk_that_is_full(adm: Adm, toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left, and what was there stays."""
    needs_onnx()
    monkeypatch.setattr(onnx, "_graph", lambda _: tiny_graph())
    Path("m.onnx").write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    done = adm("export", toys.model, "m.onnx", "--to", "onnx", "--overwrite")
    assert (done.code, done.out) == (1, "")
    assert "the disk is full" in done.err
    assert [path.name for path in Path().iterdir() if "onnx" in path.name] == ["m.onnx"]
    assert Path("m.onnx").read_bytes() == b"old"


def test_terms_of_what_came_with_adm(tmp_path: Path) -> None:
    own, ours = save_toy(tmp_path / "m.safetensors", TOY_UNET), find_weights("tiny")
    assert onnx._license(read_model_file(own)) == {}
    assert "research" in onnx._license(ours)["license"]


def test_without_the_extra(adm: Adm, toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "find_spec", lambda name: None if name == "onnxscript" else name)
    done = adm("export", toys.model, "m.onnx", "--to", "onnx")
    assert (done.code, done.out) == (2, "")
    assert "--to onnx needs onnxscript" in done.err
    assert "pip install onnx onnxscript" in done.err
    assert "ends in .onnx" in adm("export", toys.model, "m.pt", "--to", "onnx").err
    assert not Path("m.onnx").exists()
