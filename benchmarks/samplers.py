"""How near each sampler comes, in few evaluations, to the picture that many steps give.

    python benchmarks/samplers.py [--cfg W] [--scale S] [--spacings]

Draws eight seeds of the embedded base by every deterministic sampler and prints the mean absolute
difference, of 255, from the same seeds by 500 steps of DDIM. Heun takes two evaluations a step.
--spacings: by every spacing of the timesteps instead, from 80 steps of UniPC.
"""

from __future__ import annotations

import argparse

import torch

from adm_cli import SamplingConfig, generate, load_pipeline
from adm_cli.diffusion.modifiers import Spacing

EVALUATIONS = (6, 8, 10, 15, 20, 40)
SAMPLERS = ("ddim", "dpm++2m", "dpm++3m", "unipc", "unipc2", "heun")
SPACINGS: tuple[Spacing, ...] = ("uniform", "trailing", "quadratic", "log-snr", "rho")
SPACED = (("dpm++2m", 10), ("unipc", 10), ("unipc2", 10), ("unipc", 15), ("unipc2", 15),
          ("heun", 5), ("heun", 8), ("ddim", 25))  # fmt: skip
CLASSES = (1, 145, 207, 291, 323, 386, 779, 950)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cfg", type=float, default=1.0)
    parser.add_argument("--scale", type=float, default=0.0)
    parser.add_argument("--spacings", action="store_true")
    given = parser.parse_args()
    pipeline = load_pipeline("tiny")

    def draw(sampler: str, steps: int, spacing: Spacing = "uniform") -> torch.Tensor:
        config = SamplingConfig(
            seeds=tuple(range(len(CLASSES))),
            classes=CLASSES,
            sampler=sampler,
            steps=str(steps),
            scale=given.scale,
            cfg=given.cfg,
            guide_interval=(0.0, 0.85) if given.scale else None,
            spacing=spacing,
        )
        return torch.cat([batch.images for batch in generate(pipeline, config)]).double()

    if given.spacings:
        exact = draw("unipc", 80)
        print(f"{'sampler, steps':15}", *(f"{name:>9}" for name in SPACINGS))
        for name, steps in SPACED:
            found = [(draw(name, steps, s) - exact).abs().mean().item() for s in SPACINGS]
            print(f"{name:>11} {steps:3d}", *(f"{value:9.1f}" for value in found), flush=True)
        return
    exact = draw("ddim", 500)
    print(f"{'evaluations':12}", *(f"{name:>8}" for name in SAMPLERS))
    for count in EVALUATIONS:
        found = [
            (draw(name, (count + 1) // 2 if name == "heun" else count) - exact).abs().mean().item()
            for name in SAMPLERS
        ]
        print(f"{count:12d}", *(f"{value:8.1f}" for value in found), flush=True)


if __name__ == "__main__":
    main()
