"""The optimizers of training: AdamW, or Muon for the torso's matrices with AdamW for the rest.

Muon moves a matrix along its momentum made orthogonal, so that all directions are learned alike
(Jordan et al. 2024, https://kellerjordan.github.io/posts/muon). A convolution counts as the matrix
[out, in * height * width]. Its steps are as large as AdamW's usually are (arXiv 2502.16982, section
2.2), and so the same rate and weight decay suit both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from adm_cli.devices import DTYPES
from adm_cli.training.config import TrainingConfig

MOMENTUM = 0.95
_ADAMW_RMS = 0.2  # of AdamW's usual step, as a part of its rate
_ITERATIONS = 5
_POLYNOMIAL = (3.4445, -4.7750, 2.0315)  # brings singular values from (0, 1] to about 1 in five
_TORSO = ("input_blocks.", "middle_block.", "output_blocks.")
_FIRST = "input_blocks.0."  # takes pixels: not of the torso


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimizer that a run asks for, over all parameters of a model."""
    adamw: dict[str, Any] = {
        "lr": config.lr,
        "betas": config.betas,
        "weight_decay": config.weight_decay,
    }
    if config.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), **adamw)
    named = dict(model.named_parameters())
    matrices = torso_matrices(named)
    rest = [p for name, p in named.items() if name not in matrices]
    precise = DTYPES["float32" if config.dtype == "float16" else config.dtype]
    return Muon([named[name] for name in matrices], rest, precise, **adamw)


def torso_matrices(names: dict[str, nn.Parameter]) -> list[str]:
    """Names of what Muon moves: weights within the blocks, but no biases, norms and embeddings."""
    return [
        name
        for name, parameter in names.items()
        if name.startswith(_TORSO) and not name.startswith(_FIRST) and parameter.dim() > 1
    ]


def moments(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> tuple[str, ...]:
    """Names of what an optimizer keeps of a parameter's gradients."""
    if isinstance(optimizer, Muon) and optimizer.is_matrix(parameter):
        return ("exp_avg",)
    return ("exp_avg", "exp_avg_sq")


@torch.no_grad()
def orthogonal(matrix: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """About U V' of ``matrix`` [a, b] = U S V', by Newton and Schulz; singular values 0.7 to 1.2.

    Computed in ``dtype``; bfloat16 is precise enough for a direction.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = (x / (x.norm() + 1e-7)).to(dtype)
    first, third, fifth = _POLYNOMIAL
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=third, alpha=fifth), x, beta=first)
    return (x if wide else x.T).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Muon for ``matrices``, AdamW for ``rest``; ``exp_avg`` is the momentum of either.

    ``dtype`` is that of `orthogonal`, ``adamw`` the options of `torch.optim.AdamW`.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        rest: Iterable[nn.Parameter],
        dtype: torch.dtype,
        **adamw: Any,
    ) -> None:
        super().__init__([{"params": list(matrices)}], adamw)
        self._dtype = dtype
        self._adamw = torch.optim.AdamW(rest, **adamw)
        self._adamw.state = self.state
        self.param_groups += self._adamw.param_groups  # the same objects: one rate sets both

    def is_matrix(self, parameter: nn.Parameter) -> bool:
        return any(parameter is p for p in self.param_groups[0]["params"])

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self._adamw.step()
        group = self.param_groups[0]
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if "exp_avg" not in state:
                state["exp_avg"] = torch.zeros_like(parameter)
            average, gradient = state["exp_avg"], parameter.grad
            average.lerp_(gradient, 1 - MOMENTUM)
            direction = gradient.lerp(average, MOMENTUM).flatten(1)  # Nesterov's
            size = group["lr"] * _ADAMW_RMS * max(direction.shape) ** 0.5
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(orthogonal(direction, self._dtype).view_as(parameter), alpha=-size)
