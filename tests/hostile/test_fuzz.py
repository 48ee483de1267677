"""Everything that parses what people or files say, fuzzed: only errors of ours may come out."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adm_cli.commands.selection import parse_seeds
from adm_cli.config import (
    ClassifierConfig,
    DiffusionConfig,
    SamplingConfig,
    TrainingConfig,
    UNetConfig,
    config_from_json,
    config_to_json,
    with_settings,
)
from adm_cli.diffusion.schedule import space_timesteps
from adm_cli.errors import AdmError
from adm_cli.imagenet import imagenet_names, search_classes, select_classes
from adm_cli.openai_flags import _DEFAULTS, openai_flags
from adm_cli.recipes import config_from_recipe
from adm_cli.storage.images import encode_image, open_picture, parameters_text
from adm_cli.storage.manifests import parse_line, read_manifest, render_line
from adm_cli.storage.plans import Item, Plan, read_plan, render_plan
from adm_cli.storage.runs import Shard
from adm_cli.storage.sealed import seal
from adm_cli.training.setup import parse_size
from tests.conftest import TOY_CLASSES, TOY_CLASSIFIER, TOY_DIFFUSION, TOY_UNET

EXAMPLES = 2000 if os.environ.get("ADM_FUZZ") else 120
fuzz = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip

words = st.text(max_size=30)
numbers = st.sampled_from(
    ["0", "1", "-1", "64", "9" * 25, "9" * 5000, "1e3", "nan", "٣", "0x1", ""]
)
joined = st.lists(words | numbers, max_size=6).map(",".join) | st.lists(numbers, max_size=4).map(
    "-".join
)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([10**30, -(2**63), 1e308, float("nan")])
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip

flags = st.lists(
    st.tuples(st.sampled_from([*_DEFAULTS, "lr", "model_path", "x"]), words | numbers | joined),
    max_size=8,
)


@fuzz
@given(words | flags.map(lambda pairs: " ".join(f"--{name} {value}" for name, value in pairs)))
def test_flags(text: str) -> None:
    for kind in (None, "diffusion", "classifier", "upsampler"):
        with contextlib.suppress(AdmError):
            openai_flags(text, kind)


@fuzz
@given(words | joined)
def test_class_specs(spec: str) -> None:
    for known in (TOY_CLASSES, imagenet_names(), {}):
        with contextlib.suppress(AdmError):
            assert all(i in known for i in select_classes(spec, known))
        search_classes(spec, known)


@fuzz
@given(words | joined)
def test_numbers(spec: str) -> None:
    with contextlib.suppress(AdmError):
        seeds = parse_seeds(spec)
        assert len(set(seeds)) == len(seeds) > 0
    with contextlib.suppress(AdmError):
        assert 1 <= Shard.parse(spec).index <= Shard.parse(spec).count
    with contextlib.suppress(AdmError):
        assert min(parse_size(spec)) >= 0


@fuzz
@given(words | joined | st.tuples(st.just("ddim"), words | numbers).map("".join),
       st.integers(1, 60))  # fmt: skip
def test_steps(spec: str, timesteps: int) -> None:
    with contextlib.suppress(AdmError):
        kept = space_timesteps(timesteps, spec)
        assert kept
        assert kept == sorted(set(kept))
        assert 0 <= kept[0] <= kept[-1] < timesteps


CONFIGS: list[Any] = [
    TOY_UNET, TOY_CLASSIFIER, TOY_DIFFUSION, TrainingConfig(steps=1, batch_size=1),
    SamplingConfig(seeds=(0,), classes=(1,)),
]  # fmt: skip


@fuzz
@given(st.data())
def test_configurations(data: st.DataObject) -> None:
    config = data.draw(st.sampled_from(CONFIGS))
    facts = json.loads(config_to_json(config))
    names = st.sampled_from(list(facts)) | words
    facts |= data.draw(st.dictionaries(names, values, max_size=3))
    with contextlib.suppress(AdmError):
        again = config_from_json(type(config), json.dumps(facts))
        assert config_from_json(type(config), config_to_json(again)) == again


@fuzz
@given(words | values.map(json.dumps))
def test_configurations_of_anything(text: str) -> None:
    for cls in (UNetConfig, ClassifierConfig, DiffusionConfig, TrainingConfig, SamplingConfig):
        with contextlib.suppress(AdmError):
            config_from_json(cls, text)  # type: ignore[type-var]


RECIPE: dict[str, Any] = {
    "adm": "1", "model": "tiny", "model_sha256": "0" * 64, "classifier": None, "scale": 0.0,
    "sampler": "ddim", "steps": "2", "num_steps": 2, "eta": None, "clip_denoised": True,
    "size": [8, 8], "device": "cpu", "dtype": "float32", "class": 1, "class_name": "x", "seed": 0,
    "batch_size": 1,
}  # fmt: skip


@fuzz
@given(st.dictionaries(st.sampled_from(list(RECIPE)) | words, values, max_size=3))
def test_recipes(changes: dict[str, Any]) -> None:
    with contextlib.suppress(AdmError):
        config_from_recipe({**RECIPE, **changes})


@fuzz
@given(st.dictionaries(words, values, max_size=3), words, st.sampled_from([".png", ".webp"]))
def test_recipes_survive_a_picture(
    tmp_path: Path, more: dict[str, Any], name: str, suffix: str
) -> None:
    import numpy as np

    recipe = {**RECIPE, **more, "class": 1, "class_name": name}
    recipe = {**recipe, **{n: RECIPE[n] for n in ("size", "model_sha256")}}
    assert parameters_text(recipe).split("\n")[-1].startswith("Steps: ")
    path = tmp_path / f"x{suffix}"
    path.write_bytes(encode_image(np.zeros((8, 8, 3), np.uint8), suffix, recipe))
    assert json.dumps(open_picture(path)[1]) == json.dumps(recipe)


names = st.text("abc.-_0 ", min_size=1, max_size=12).filter(lambda n: not n.startswith("."))
records = st.fixed_dictionaries(
    {"file": names, "bytes": st.integers(0, 2**40), "sha256": words},
    optional={"class": scalars, "seed": st.integers(0, 2**64 - 1), "again": st.integers(0, 9)},
)


@fuzz
@given(st.lists(records, max_size=4), st.data())
def test_manifests(tmp_path: Path, lines: list[dict[str, Any]], data: st.DataObject) -> None:
    """Whole lines are read; a changed byte costs its own line (or the two it joins) at most."""
    whole = b"".join(map(render_line, lines))
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(whole)
    found = read_manifest(path)
    assert json.dumps(found.records) == json.dumps(lines)
    assert not found.damaged
    if whole:
        place = data.draw(st.integers(0, len(whole) - 1))
        bad = bytearray(whole)
        bad[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(bad)
        less = [json.dumps(record) for record in read_manifest(path).records]
        assert len(lines) - 2 <= len(less) < len(lines)
        assert set(less) <= {json.dumps(record) for record in lines}


@fuzz
@given(st.binary(max_size=200) | values.map(lambda v: json.dumps(v).encode()))
def test_lines_of_anything(line: bytes) -> None:
    assert parse_line(line) is None
    sealed = render_line({})[:-1] + line + b"\n"
    parse_line(sealed)


@fuzz
@given(values, st.binary(max_size=100))
def test_plans(tmp_path: Path, value: Any, junk: bytes) -> None:
    """A run.json of anything, sealed as ours are, is refused or read."""
    path = tmp_path / "run.json"
    plan = Plan("sample", {"a": 1}, {}, [Item("x0.png", {"seed": 0}), Item("x1.png", {"seed": 1})])
    good = render_plan(plan)
    for part in ('"settings"', '"items"', '"format"', '"environment"', '"kind"'):
        facts = json.loads(good)
        facts.pop("sha256")
        facts[part.strip('"')] = value
        body = json.dumps(facts, indent=2)[:-2] + ",\n"
        path.write_bytes(seal(body.encode()))
        with contextlib.suppress(AdmError):
            read_plan(path)
    for data in (junk, good + junk, good[: len(junk)], json.dumps(value).encode()):
        path.write_bytes(data)
        with contextlib.suppress(AdmError):
            read_plan(path)
    path.write_bytes(good)
    assert list(read_plan(path).items) == list(plan.items)


@pytest.mark.parametrize("spec", ["0-" + "9" * 18, "1," * 10**5, "²-³", "0-9" * 10**4])
def test_long_specs_end_soon(spec: str) -> None:
    for parse in (parse_seeds, lambda s: select_classes(s, TOY_CLASSES), Shard.parse,
                  lambda s: space_timesteps(100, s)):  # fmt: skip
        with contextlib.suppress(AdmError):
            parse(spec)


@pytest.mark.parametrize("mult", [[float("nan")], [float("inf"), 1], [1e308], [-1], [0]])
def test_multipliers_that_are_no_numbers(mult: list[float]) -> None:
    with pytest.raises(AdmError, match="channel_mult must be above 0 and finite"):
        with_settings(TOY_UNET, {"channel_mult": mult})
