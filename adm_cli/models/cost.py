"""What a model costs: floating-point operations and memory, without running it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from adm_cli.models.classifier import NoisyClassifier
from adm_cli.models.unet import SuperResUNet, UNet


def forward_gflops(model: UNet | NoisyClassifier) -> float:
    """GFLOP (2 a multiply-add) of one evaluation on one image; counted on the meta device."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        _run(model.to("meta"))
    return float(counter.get_total_flops()) / 1e9


def activation_bytes(model: UNet | NoisyClassifier) -> int:
    """About the peak bytes of activations for one image in float32.

    For a classifier, what its gradient saves; for a UNet, its skips and the widest blocks.
    Leaves ``model`` as it is.
    """
    with torch.device("meta"):
        twin: UNet | NoisyClassifier = type(model)(model.config)  # type: ignore[arg-type]
    twin.requires_grad_(False)
    if isinstance(twin, NoisyClassifier):
        saved: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            saved.append(tensor.numel() * tensor.element_size())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            _run(twin, grad=True)
        return sum(saved)
    sizes: list[int] = []

    def record(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        sizes.append(output.numel() * output.element_size())

    for block in (*twin.input_blocks, *twin.output_blocks):
        block.register_forward_hook(record)
    with torch.no_grad():
        _run(twin)
    skips = sum(sizes[: len(twin.input_blocks)])
    return skips + 8 * max(sizes)


def _run(model: UNet | NoisyClassifier, *, grad: bool = False) -> None:
    config = model.config
    x = torch.zeros(1, config.in_channels, *config.image_size, device="meta", requires_grad=grad)
    t = torch.zeros(1, dtype=torch.int64, device="meta")
    if isinstance(model, NoisyClassifier):
        model(x, t)
        return
    labels = None if model.config.num_classes is None else t
    if isinstance(model, SuperResUNet):
        assert model.config.low_res_size is not None
        low = torch.zeros(1, config.in_channels, *model.config.low_res_size, device="meta")
        model(x, t, labels, low)
    else:
        model(x, t, labels)
