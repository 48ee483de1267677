"""Hostile folders of diffusers: settings are settings, whatever they say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from tests.conftest import Toys
from tests.hostile.sandbox import Arguments, harmless

UNET, NOISE = "unet/config.json", "scheduler/scheduler_config.json"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
SAID: dict[str, dict[str, Any]] = {
    "code": {"_class_name": "os.system"},
    "escapes": {"_class_name": "\x1b]0;owned\x07"},
    "many blocks": {"block_out_channels": [32] * 10**5},
    "wide": {"block_out_channels": [10**400]},
    "deep": {"layers_per_block": 64},
    "classes": {"num_class_embeds": 10**6},
    "nothing": {"sample_size": []},
    "words": {"down_block_types": "DownBlock2D", "up_block_types": {}},
    "half": {"layers_per_block": 0.5, "in_channels": True},
}
NOISES: dict[str, dict[str, Any]] = {
    "steps": {"num_train_timesteps": 10**400},
    "no number": {"beta_start": "x"},
    "lists": {"variance_type": [], "prediction_type": {}},
}
RAW = {
    "empty": b"",
    "no text": bytes(range(256)),
    "nested": b"[" * 10**6,
    "endless": b'{"a": 1' + b" " * 2**22,
    "not finite": b'{"sample_size": NaN}',
    "twice": b'{"_class_name": 1, "_class_name": 2}',
}


def converting(name: str) -> Arguments:
    return ["convert", name]


def test_folders(folder: Path, toys: Toys) -> None:
    harmless(folder, ["export", toys.model, "good", "--to", "diffusers"], codes=(0,))
    good = folder / "good"
    made: list[str] = []

    def another(file: str) -> Path:
        made.append(f"h{len(made)}")
        return Path(shutil.copytree(good, folder / made[-1])) / file

    for file, cases in ((UNET, SAID), (NOISE, NOISES)):
        for changes in cases.values():
            path = another(file)
            path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    for data in RAW.values():
        for file in (UNET, NOISE, WEIGHTS):
            another(file).write_bytes(data)
    for text in ("[" * 10**5, '{"classes": [1]}', '{"diffusion": 7}', '{"qkv_order": "x"}',
                 '{"classes": {"99": "\\u001b"}}', '{"null_class": 3}'):  # fmt: skip
        path = another(WEIGHTS)
        save_file(load_file(path), path, {"format": "pt", "adm": text})
    found = harmless(folder, *map(converting, made), codes=(1, 2))
    for name, done in zip(made, found, strict=True):
        assert not done.out, (name, done)
        assert len(done.err.splitlines()) == 1, (name, done)
        assert not (folder / f"{name}.safetensors").exists()
