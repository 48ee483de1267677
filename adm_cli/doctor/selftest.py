"""A picture whose bytes are known: small networks with weights made by a rule, guided sampling.

It depends on no file, so it tells whether this machine computes what it should. After a change
that is meant to change pictures, the stored one is made anew with

    from adm_cli.doctor.selftest import sample_picture
    print(sample_picture("cpu").numpy().tobytes().hex())
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adm_cli.checkpoints.header import ModelFile, ModelInfo
from adm_cli.checkpoints.loading import Model, build_model
from adm_cli.checkpoints.sources import Sources
from adm_cli.config import ClassifierConfig, DiffusionConfig, SamplingConfig, UNetConfig
from adm_cli.devices import DTYPES
from adm_cli.models.classifier import NoisyClassifier
from adm_cli.models.unet import UNet
from adm_cli.sampling.drawing.pipeline import Pipeline, generate

TOLERANCE = 2  # of 255: kernels of other machines round differently

_ENCODER = {
    "image_size": (8, 8),
    "model_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": (1, 2),
    "attention_factors": (2,),
    "num_head_channels": 16,
    "resblock_updown": True,
    "num_classes": 4,
}
_UNET = UNetConfig(**_ENCODER, out_channels=6)  # type: ignore[arg-type]
_CLASSIFIER = ClassifierConfig(**_ENCODER)  # type: ignore[arg-type]
_DIFFUSION = DiffusionConfig(noise_schedule="cosine", num_timesteps=100, prediction="v")
_SETTINGS = SamplingConfig(
    seeds=(7,), classes=(2,), sampler="ddim", eta=0.5, steps="ddim5", scale=20.0, batch_size=1
)
_EXPECTED = bytes.fromhex(  # uint8 [8, 8, 3], picture in float32 on a CPU
    "00d5565f4c495b7c3d00fe0050554c15b31400a200001c0a6556fe40d40000eb00a77e68a59437ff83004c3d2a"
    "974fb000193400fe3da5fe561586003ebedec138aecefe7333fc4e4a925600760a00fe0039d61d1764fe806d00"
    "14f96f00d34f8e288c68fe00a4c226fe2188fed0cb55972210af9300bd5e00fe29e1fe00af99922ffe9bbeff12"
    "52e52c56fce1a2005d004c3c0094007afefef6e26300f78daa9c2e5bfe6c75dad2f200ab96fec3b500fe3a7d19"
    "ff6c1f4fb315a4562c98e520"
)


@dataclass(frozen=True)
class SelfTest:
    """How far a device's picture is from the stored one, in steps of 255."""

    device: str
    values_that_differ: int
    largest_difference: int
    seconds: float

    @property
    def passed(self) -> bool:
        return self.largest_difference <= TOLERANCE


def self_test(device: str) -> SelfTest:
    """Draws the picture on a device and compares; about a second."""
    started = time.perf_counter()
    found = sample_picture(device).numpy().astype(int).ravel()
    gap = np.abs(found - np.frombuffer(_EXPECTED, np.uint8))
    seconds = time.perf_counter() - started
    return SelfTest(device, int((gap > 0).sum()), int(gap.max()), round(seconds, 2))


def sample_picture(device: str, dtype: str = "float32") -> Tensor:
    """The picture, uint8 [8, 8, 3], as this device draws it."""
    where, compute = torch.device(device), DTYPES[dtype]
    unet, classifier = (
        _by_rule(build_model(config)).to(where, compute).eval().requires_grad_(False)
        for config in (_UNET, _CLASSIFIER)
    )
    assert isinstance(unet, UNet)
    assert isinstance(classifier, NoisyClassifier)
    unet.torso_dtype = classifier.torso_dtype = compute
    names = {i: f"class {i}" for i in range(4)}
    files = [
        ModelFile(Path("self-test"), ModelInfo(config, _DIFFUSION, names), {}, {}, "")
        for config in (_UNET, _CLASSIFIER)
    ]
    sources = Sources("self-test", files[0], "self-test", files[1], None)
    pipeline = Pipeline(sources, unet, classifier, where, compute)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors too small to be worth sharing out
    try:
        batch = next(generate(pipeline, _SETTINGS))
        batch.check_finite()
        return batch.images[0]
    finally:
        torch.set_num_threads(threads)


def _by_rule(model: Model) -> Model:
    """Parameters from whole-number arithmetic: the same on every machine and version of torch."""
    for name, parameter in model.named_parameters():
        places = torch.arange(parameter.numel()) + zlib.crc32(name.encode()) % 2**31
        mixed = (places * 1103515245) % 2**32
        mixed = ((mixed ^ (mixed >> 15)) * 1664525) % 2**32
        even = (mixed.double() / 2**32 - 0.5) * 12**0.5  # mean 0, variance 1
        fan_in = max(1, parameter[0].numel())
        parameter.data = (0.8 * even / fan_in**0.5).float().reshape(parameter.shape)
    return model
