"""Reference files: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from adm_cli.checkpoints.format import write_tensors
from adm_cli.errors import CheckpointError
from adm_cli.pictures.references import Reference, read_reference, save_reference


def reference(*, spatial: bool = True) -> Reference:
    torch.manual_seed(0)
    return Reference(
        features="inception",
        features_sha256="ab" * 32,
        images=50_000,
        size=(48, 64),
        source="photos",
        pixels_sha256="cd" * 32,
        mu=torch.randn(4).double(),
        sigma=torch.eye(4).double(),
        mu_s=torch.randn(3).double() if spatial else None,
        sigma_s=torch.eye(3).double() if spatial else None,
        kept=torch.randn(5, 4),
    )


@pytest.mark.parametrize("spatial", [True, False])
@pytest.mark.parametrize("images", [50_000, None])
def test_what_goes_in_comes_out(tmp_path: Path, spatial: bool, images: int | None) -> None:
    given = dataclasses.replace(reference(spatial=spatial), images=images)
    save_reference(tmp_path / "a.safetensors", given)
    found = read_reference(tmp_path / "a.safetensors")
    for field in dataclasses.fields(Reference):
        value, expected = getattr(found, field.name), getattr(given, field.name)
        same = torch.equal(value, expected) if torch.is_tensor(value) else value == expected
        assert same, field.name


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_reference(path, reference())
    whole = path.read_bytes()
    for place in range(0, len(whole), 41):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CheckpointError):
            read_reference(path)


def test_other_files_are_not_references(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"x": torch.zeros(2)}, {"format": "adm"})
    with pytest.raises(CheckpointError, match="not a reference file: adm reference DATA"):
        read_reference(path)
    with pytest.raises(CheckpointError, match="cannot read"):
        read_reference(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("tensors", "facts", "message"),
    [
        ({"mu": torch.zeros(3)}, {}, "float32"),
        ({"sigma": torch.zeros(3, 3).double()}, {}, r"expected float64 \[4, 4\]"),
        ({"kept": torch.full((5, 4), torch.nan)}, {}, "NaN"),
        ({"kept": torch.zeros(5, 3)}, {}, r"expected float32 \[5, 4\]"),
        ({}, {"size": 3}, "damaged reference"),
        ({}, {"images": "many"}, "damaged reference"),
    ],
)
def test_facts_that_make_no_sense(
    tmp_path: Path, tensors: dict[str, torch.Tensor], facts: dict[str, object], message: str
) -> None:
    good = reference(spatial=False)
    stored = {"mu": good.mu, "sigma": good.sigma, "kept": good.kept, **tensors}
    names = ("features", "features_sha256", "images", "size", "source", "pixels_sha256")
    text = json.dumps({name: getattr(good, name) for name in names} | facts)
    metadata = {"format": "adm-reference", "format_version": "1", "reference": text}
    write_tensors(tmp_path / "a.safetensors", stored, metadata)
    with pytest.raises(CheckpointError, match=message):
        read_reference(tmp_path / "a.safetensors")
    metadata["format_version"] = "2"
    write_tensors(tmp_path / "a.safetensors", stored, metadata)
    with pytest.raises(CheckpointError, match="a newer adm may be needed"):
        read_reference(tmp_path / "a.safetensors")
