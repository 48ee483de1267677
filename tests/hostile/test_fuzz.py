"""Everything that parses what people or files say, fuzzed: only errors of ours may come out."""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adm_cli.checkpoints.flags.given import DEFAULTS
from adm_cli.checkpoints.flags.model import openai_flags
from adm_cli.checkpoints.format import read_original, read_tensors, save_model
from adm_cli.checkpoints.header import ModelInfo, read_model_file, verify_content
from adm_cli.classes.imagenet import imagenet_names, search_classes, select_classes
from adm_cli.classes.mixtures import read_mixture, select_choices
from adm_cli.commands.console import one_line
from adm_cli.commands.info import _text
from adm_cli.commands.recipe_lines import recipe_lines
from adm_cli.config import ClassifierConfig, DiffusionConfig, SamplingConfig, UNetConfig
from adm_cli.diffusion.schedule import space_timesteps
from adm_cli.errors import AdmError
from adm_cli.files.manifests import parse_line, render_line
from adm_cli.files.sealed import seal
from adm_cli.files.strict import config_from_json, config_to_json, with_settings
from adm_cli.pictures.images import encode_image, open_picture, parameters_text, recipe_in
from adm_cli.pictures.pixels import holds_statistics, open_pixels, read_npz_statistics
from adm_cli.pictures.references import read_reference
from adm_cli.reports.describing import is_reference
from adm_cli.sampling.choosing.images import Image
from adm_cli.sampling.choosing.inputs import open_inputs
from adm_cli.sampling.choosing.select import parse_seeds
from adm_cli.sampling.folder import Shard
from adm_cli.sampling.recipes.recipe import recorded_run
from adm_cli.sampling.run import read_run, render_run
from adm_cli.sampling.sweeps.folder import SweepFolder
from adm_cli.training.config import TrainingConfig
from adm_cli.training.setup import parse_size
from tests.conftest import TOY_CLASSES, TOY_CLASSIFIER, TOY_DIFFUSION, TOY_UNET
from tests.hostile.files import npy, npz, png, png_chunk
from tests.manifests import read_manifest
from tests.sampling.runs import run_of

EXAMPLES = 2000 if os.environ.get("ADM_FUZZ") else 50
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
whole = st.integers(-(2**64) + 1, 2**64 - 1)
readable = st.none() | st.booleans() | whole | st.floats() | st.text(max_size=8)
scalars = readable | st.sampled_from([10**30, -(2**63), 1e308, float("nan")])


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=3),
        max_leaves=6,
    )


values = nested(scalars)

flags = st.lists(
    st.tuples(st.sampled_from([*DEFAULTS, "lr", "model_path", "x"]), words | numbers | joined),
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
        with contextlib.suppress(AdmError):
            for choice in select_choices(spec, known):
                found = [choice] if isinstance(choice, int) else dict(read_mixture(choice))
                assert set(found) <= set(known)
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
            config_from_json(cls, text)


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
        recorded_run({**RECIPE, **changes})


@fuzz
@given(
    st.dictionaries(words, nested(readable), max_size=3), words, st.sampled_from([".png", ".webp"])
)
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
    optional={"class": readable, "seed": st.integers(0, 2**64 - 1), "again": st.integers(0, 9)},
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
def test_runs(tmp_path: Path, value: Any, junk: bytes) -> None:
    """A run.json of anything, sealed as ours are, is refused or read."""
    path = tmp_path / "run.json"
    run = run_of([Image("x0.png", 0, 0), Image("x1.png", 1, 1)])
    good = render_run(run)
    facts = json.loads(good)
    for part in facts:
        facts = json.loads(good)
        facts.pop("sha256")
        facts[part] = value
        body = json.dumps(facts, indent=2)[:-2] + ",\n"
        path.write_bytes(seal(body.encode()))
        with contextlib.suppress(AdmError):
            read_run(path)
    for data in (junk, good + junk, good[: len(junk)], json.dumps(value).encode()):
        path.write_bytes(data)
        with contextlib.suppress(AdmError):
            read_run(path)
    path.write_bytes(good)
    assert read_run(path) == run


@pytest.mark.parametrize(
    "spec", ["0-" + "9" * 18, "1," * 10**5, "²-³", "0-9" * 10**4, "1+" * 10**5]
)
def test_long_specs_end_soon(spec: str) -> None:
    for parse in (parse_seeds, lambda s: select_classes(s, TOY_CLASSES),
                  lambda s: select_choices(s, TOY_CLASSES), Shard.parse,
                  lambda s: space_timesteps(100, s)):  # fmt: skip
        with contextlib.suppress(AdmError):
            parse(spec)


@pytest.mark.parametrize("mult", [[float("nan")], [float("inf"), 1], [1e308], [-1], [0]])
def test_multipliers_that_are_no_numbers(mult: list[float]) -> None:
    with pytest.raises(AdmError, match="channel_mult must be above 0 and finite"):
        with_settings(TOY_UNET, {"channel_mult": mult})


@fuzz
@given(st.data())
def test_step_specs_and_flags_of_many_parts(data: st.DataObject) -> None:
    """Specs that look right: sections, DDIM strides, and original flags with odd values."""
    part = st.integers(-2, 70).map(str) | numbers
    spec = ",".join(data.draw(st.lists(part, min_size=1, max_size=5)))
    for text in (spec, f"ddim{spec}", f" {spec} ", spec.replace(",", ", ")):
        with contextlib.suppress(AdmError):
            kept = space_timesteps(data.draw(st.integers(1, 60)), text)
            assert kept == sorted(set(kept))
    names = st.sampled_from(list(DEFAULTS))
    value = numbers | st.sampled_from(["True", "False", "", "None", "1,2", "1,,2", "0.5,1", "--x"])
    pairs = data.draw(st.lists(st.tuples(names, value), max_size=6))
    join = data.draw(st.sampled_from([" ", "=", "  ", "\n", "\t"]))
    for kind in ("diffusion", "classifier", "upsampler"):
        with contextlib.suppress(AdmError):
            openai_flags(" ".join(f"--{name}{join}{v}" for name, v in pairs), kind)


@fuzz
@given(st.dictionaries(words, values, max_size=4), st.data())
def test_records_of_the_right_kind(
    tmp_path: Path, more: dict[str, Any], data: st.DataObject
) -> None:
    """JSON objects whose values are of the wrong shape, sealed as the program seals its own."""
    record = {"file": "x.png", "bytes": 1, "sha256": "0", "class": 1, "seed": 0, "again": 0, **more}
    record[data.draw(st.sampled_from(sorted(record)))] = data.draw(values)
    found = parse_line(render_line(record))
    assert found is None or json.dumps(found) == json.dumps(record)
    rows = data.draw(st.lists(st.just(record) | values.filter(lambda v: v is not None), max_size=3))
    facts = json.loads(render_run(run_of([Image("x", None, 0)])))
    facts = {**facts, "images": rows, **more, "format": 2}
    facts.pop("sha256")
    body = json.dumps(facts, indent=2)[:-2] + ",\n"
    path = tmp_path / "run.json"
    path.write_bytes(seal(body.encode()))
    with contextlib.suppress(AdmError):
        read_run(path)
    cells = [{"cell": "x", **more}, data.draw(values)]
    table = {"format": 2, "axes": more, "cells": cells, "facts": more, "files": more}
    body = json.dumps(table, indent=2)[:-2] + ",\n"
    (tmp_path / "sweep.json").write_bytes(seal(body.encode()))
    with contextlib.suppress(AdmError):
        SweepFolder(tmp_path).read()


def mutated(data: st.DataObject, value: Any) -> Any:
    """A JSON value with one part of it replaced, left out, or there twice."""
    if isinstance(value, dict) and value and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(value)))
        return {**value, key: mutated(data, value[key])}
    if isinstance(value, list) and value and data.draw(st.booleans()):
        i = data.draw(st.integers(0, len(value) - 1))
        return [*value[:i], mutated(data, value[i]), *value[i + data.draw(st.integers(0, 1)) :]]
    if isinstance(value, int) and data.draw(st.booleans()):
        return value + data.draw(st.sampled_from([-1, 1, 2**31, 2**32, -(2**63), 10**30, -value]))
    return data.draw(values)


@fuzz
@given(st.data())
def test_headers_of_weights(tmp_path: Path, data: st.DataObject) -> None:
    """A whole file of ours, its header changed in places and still JSON, its length perhaps not."""
    path = tmp_path / "x.safetensors"
    if not (whole := _WHOLE.get("weights")):
        info = ModelInfo(TOY_CLASSIFIER, TOY_DIFFUSION, TOY_CLASSES)
        save_model(path, {"a": torch.ones(4), "b": torch.ones(2, 3)}, info)
        whole = _WHOLE["weights"] = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    for _ in range(data.draw(st.integers(1, 3))):
        header = mutated(data, header)
    raw = json.dumps(header).encode()
    said = len(raw) + data.draw(st.sampled_from([0, 0, 0, -1, 1, 2**40]))
    path.write_bytes(said.to_bytes(8, "little") + raw + whole[8 + length :])
    with contextlib.suppress(AdmError):
        verify_content(read_model_file(path))
    for read in (read_tensors, read_original, read_reference):
        with contextlib.suppress(AdmError):
            read(path)
    is_reference(path)


_WHOLE: dict[str, bytes] = {}
shapes = st.lists(
    st.integers(-2, 9) | st.sampled_from([2**31, 2**63, 2**64, 10**30, True]), max_size=5
)
descrs = words | st.sampled_from(
    ["|u1", "<i8", ">f8", "<f2", "|O", "|V0", "<U3", "|S5", "|b1", "<c8", "<M8[s]", "x", 7, None,
     [("a", "|u1")], [("a", "|O")], [("a", "<f4", (2, 2))]]
)  # fmt: skip


@fuzz
@given(st.data())
def test_headers_of_arrays(tmp_path: Path, data: st.DataObject) -> None:
    """npz of lying headers, and of a byte changed anywhere: refused, or what they say."""
    shape, descr = tuple(data.draw(shapes)), data.draw(descrs)
    fortran = data.draw(st.booleans() | scalars)
    count = 1
    for side in shape:
        count *= max(0, min(side, 10))
    body = bytes(data.draw(st.sampled_from([count, 8 * count, 0, 5])) % 2**16)
    junk = data.draw(st.binary(max_size=150))
    header = data.draw(st.sampled_from([None, None, None, junk, repr(junk).encode()]))
    array = npy(body, descr, shape, fortran=fortran, header=header)
    method = data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    whole = bytearray(
        npz(*((f"{name}.npy", array) for name in ("arr_0", "mu", "adm")), method=method)
    )
    if data.draw(st.booleans()):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "x.npz"
    path.write_bytes(whole)
    for read in (lambda p: list(open_pixels(p).batches(2)), lambda p: len(open_inputs([p])),
                 read_npz_statistics, holds_statistics):  # fmt: skip
        with contextlib.suppress(AdmError):
            read(path)


HEADS = {
    b"tEXt": b"adm\0", b"zTXt": b"adm\0\0", b"iTXt": b"adm\0\1\0\0\0", b"eXIf": b"MM\0*",
}  # fmt: skip
anything = st.binary(max_size=60) | words.map(lambda t: t.encode("utf-8", "surrogatepass"))


@fuzz
@given(anything, values.map(json.dumps), st.sampled_from(sorted(HEADS)), st.data())
def test_chunks_of_pictures(
    tmp_path: Path, junk: bytes, text: str, kind: bytes, data: st.DataObject
) -> None:
    """What a PNG may say of itself, right or not: shown, refused or passed over."""
    said = data.draw(st.sampled_from([junk, text.encode()]))
    packed = zlib.compress(said)
    body = HEADS[kind] + data.draw(st.sampled_from([said, packed, packed[:-3]]))
    path = tmp_path / "x.png"
    path.write_bytes(png(8, 8, extra=png_chunk(kind, body)))
    recipe_in(path.read_bytes())
    with contextlib.suppress(AdmError):
        open_inputs([path])
    with contextlib.suppress(AdmError):
        recipe = open_picture(path)[1]
        if recipe is not None:
            for name, value in recipe_lines(recipe, "x.png"):
                assert "\n" not in one_line(name) + one_line(_text(value))
            with contextlib.suppress(AdmError):
                recorded_run(recipe)


@fuzz
@given(st.text(max_size=60))
def test_one_line_is_one_line(text: str) -> None:
    """Nothing that a terminal obeys is left, and what a person can read stays."""
    line = one_line(text)
    assert line.isprintable()
    assert one_line(line) == line
    assert not text.isprintable() or line == " ".join(text.split())
