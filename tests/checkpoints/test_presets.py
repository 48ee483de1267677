"""The table of known models against the original's own records."""

from __future__ import annotations

import pytest

from adm_cli.checkpoints.architectures import ABLATIONS
from adm_cli.checkpoints.header import read_model_file, verify_content
from adm_cli.checkpoints.loading import expected_shapes
from adm_cli.checkpoints.places import checkpoint_path
from adm_cli.checkpoints.presets import (
    CHECKPOINTS,
    ENLARGEMENTS,
    PRESETS,
    Preset,
    find_checkpoint,
    find_preset,
)
from adm_cli.config import UNetConfig
from adm_cli.errors import UsageError
from tests.golden_arrays import architectures


def test_all_published_checkpoints_are_there() -> None:
    published = {row.name: row for row in CHECKPOINTS if not row.embedded}
    assert set(published) == set(architectures()["checkpoints"])
    for name, row in architectures()["checkpoints"].items():
        assert published[name].parameters == row["num_parameters"]
        shapes = expected_shapes(published[name].config)
        assert list(shapes.items()) == [(key, tuple(shape)) for key, shape in row["state_dict"]]


def test_presets_name_checkpoints_that_fit_together() -> None:
    for preset in PRESETS:
        model = find_checkpoint(preset.model)
        assert model.kind == "diffusion"
        assert (preset.classifier is None) == (preset.scale == 0)
        if preset.classifier is not None:
            classifier = find_checkpoint(preset.classifier)
            assert classifier.kind == "classifier"
            assert classifier.config.image_size == model.config.image_size
            a, b = classifier.diffusion, model.diffusion  # what is predicted is the model's alone
            assert (a.noise_schedule, a.num_timesteps) == (b.noise_schedule, b.num_timesteps)
            assert a.respacing == b.respacing
        if preset.upsampler not in (None, *ENLARGEMENTS):
            assert preset.upsampler is not None
            upsampler = find_checkpoint(preset.upsampler)
            assert upsampler.kind == "upsampler"
            assert isinstance(upsampler.config, UNetConfig)
            assert upsampler.config.low_res_size == model.config.image_size
            published = architectures()["checkpoints"].get(preset.upsampler)
            if published is not None:
                respacing = published["sampling_diffusion"]["timestep_respacing"]
                assert preset.upsampler_steps == respacing
        row = architectures()["checkpoints"].get(preset.model)
        if row is not None and row["classifier_scale_in_readme"] is not None:
            assert preset.scale == row["classifier_scale_in_readme"]
        if row is not None:
            assert preset.steps == row["sampling_diffusion"]["timestep_respacing"]


def test_names_are_unique() -> None:
    names = [row.name for row in PRESETS] + [row.name for row in ABLATIONS]
    assert len(set(names)) == len(names)
    assert len({row.name for row in CHECKPOINTS}) == len(CHECKPOINTS)


def test_embedded_weights_are_what_their_rows_say() -> None:
    for row in CHECKPOINTS:
        if row.embedded:
            file = read_model_file(checkpoint_path(row))
            verify_content(file)
            assert (file.info.config, file.info.diffusion) == (row.config, row.diffusion)
            assert file.parameters == row.parameters
            assert row.config.num_classes is None or 207 in file.info.classes


def test_ablations_build() -> None:
    """Every row of the paper's tables is a possible model, and no two are the same."""
    assert len({row.config for row in ABLATIONS}) == len(ABLATIONS)
    base = next(row for row in ABLATIONS if row.name == "ablation-base")
    for row in ABLATIONS:
        assert expected_shapes(row.config)
        assert row.config.image_size == (128, 128)
        if row.fid_1200k is not None and row is not base:
            better = row.fid_700k < base.fid_700k
            assert better == (row.name != "ablation-rescale")


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 256x256_diffusion"):
        find_checkpoint("256x256_difusion")


def known(name: str) -> Preset:
    preset = find_preset(name)
    assert preset is not None
    return preset


def test_a_checkpoint_by_name_is_no_stack() -> None:
    """--model 64x64_diffusion draws 64x64, although a stack begins with it."""
    for name in ("64x64_diffusion", "128x128_diffusion"):
        assert known(name).upsampler is None
    assert known("256x256_diffusion").name == "imagenet256"
    assert find_preset("imagnet256") is None
    assert known("imagenet512-stack").checkpoints == (
        "128x128_diffusion",
        "128x128_classifier",
        "128_512_upsampler",
    )
