"""Inception-V3 of 2015: outputs of the published port for weights made by a rule."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from adm_cli.evaluation.inception import InceptionV3, resize_tf1
from tests.golden_arrays import ROOT, arrays, close

GOLDEN = "evaluation/inception_v3_random_weights.safetensors"
CASES = sorted({name.split(".")[0] for name in arrays(GOLDEN).names()})


@pytest.mark.parametrize("case", [*CASES, f"{CASES[0]}, channels last"])
def test_outputs_are_those_of_the_published_port(inception: InceptionV3, case: str) -> None:
    golden, model = arrays(GOLDEN), inception
    if case.endswith("last"):  # as it is loaded for a CPU
        case = CASES[0]
        model = copy.deepcopy(inception).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = model(golden[f"{case}.images_uint8_nchw"])
    assert found.spatial is not None
    spatial = golden[f"{case}.spatial_mixed6d_branch1x1_first7"].permute(0, 2, 3, 1).flatten(1)
    close(found.pool, golden[f"{case}.2048"], absolute=1e-4)
    close(found.spatial, spatial, absolute=1e-4)
    close(found.logits, golden[f"{case}.logits_unbiased"], absolute=1e-4)


def test_names_and_shapes_are_those_of_the_published_file() -> None:
    path = ROOT / "evaluation/inception_v3_state_dict_shapes.json"
    if not path.is_file():
        pytest.skip("only in the full reference; the rule's weights depend on every name")
    with torch.device("meta"):
        state = InceptionV3().state_dict()
    assert {k: list(v.shape) for k, v in state.items()} == json.loads(path.read_text())


def test_the_resize_has_no_half_pixel_centres() -> None:
    x = torch.tensor([[0.0, 8.0], [16.0, 40.0]])[None, None]
    rows = [[0.0, 4.0, 8.0, 8.0], [8.0, 16.0, 24.0, 24.0], [16.0, 28.0, 40.0, 40.0]]
    assert resize_tf1(x, (4, 4))[0, 0].tolist() == [*rows, rows[-1]]
    assert resize_tf1(x, (1, 1)).item() == 0.0


def test_the_resize_leaves_images_of_the_right_size_as_they_are() -> None:
    x = torch.rand(1, 3, 5, 7)
    assert torch.equal(resize_tf1(x, (5, 7)), x)
