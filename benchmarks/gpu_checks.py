"""What `gpu.sh` checks, without pytest and without an installed adm.

    python benchmarks/gpu_checks.py golden DEVICE
    python benchmarks/gpu_checks.py pictures FOLDER FOLDER
    python benchmarks/gpu_checks.py options DEVICE FOLDER
    python benchmarks/gpu_checks.py memory DEVICE FOLDER

golden: networks against the original's arrays. pictures: no value more than 2 of 255 apart.
options: what changes sampling, on the device as on the CPU. memory: a batch is halved.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import adm_cli
from adm_cli.devices import choose_device
from adm_cli.events import Note
from adm_cli.pictures.images import open_picture
from tests.golden_arrays import check_on_device, stems

# Of the embedded base, four pictures in six steps. A device rounds otherwise, and what follows
# attention or Adam's signs goes on from that: those may differ more.
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    **{sampler: {"sampler": sampler} for sampler in ("ddpm", "ddim", "dpm++3m", "unipc", "unipc2")},
    "heun, churn": {"sampler": "heun", "churn": 2, "spacing": "rho"},
    "guide-by js": {"guide_by": "js"},
    "guide-every 2": {"guide_every": 2},
    "guide-adam": {"guide_adam": "0.9/0.995", "scale": 0.1},
    "classifier-on x0": {"classifier_on": "x0"},
    "entropy-scaling": {"entropy_scaling": True},
    "scale-schedule": {"scale_schedule": "cosine"},
    "negative-class": {"negative_class": 950},
    "mixture": {"class_": "207+323"},
    "sag": {"sag_scale": 1.5},
    "pag": {"pag_scale": 2},
    "eps-scale": {"eps_scale": 1.004},
    "threshold": {"threshold": 0.9},
    "temperature": {"temperature": 0.9},
    "back projection": {
        "upsampler": "tiny_upsampler",
        "upsample_steps": 2,
        "upsample_project": 8,
        "no_upsample": False,
    },
}
MEAN = 1.0  # of 255, between the two


def golden(device: str) -> None:
    for name in stems("models"):
        check_on_device(name, choose_device(device))
        print(f"{name}: as the original")


def pictures(first: str, second: str, most: float = 2.0) -> None:
    pairs = [(path, Path(second) / path.name) for path in sorted(Path(first).glob("*.png"))]
    assert pairs, "no pictures"
    gaps = [np.abs(_values(a) - _values(b)).max() for a, b in pairs]
    print("largest difference of each picture, of 255:", *gaps)
    assert max(gaps) <= most, f"more than {most:g}"


def options(device: str, folder: str) -> None:
    shared: dict[str, Any] = {
        "class_": 207,
        "num": 4,
        "batch_size": 4,
        "steps": 6,
        "no_upsample": True,
    }
    shared |= {"dtype": "float32", "grid": False}
    failed = []
    for name, change in OPTIONS.items():
        found: list[Any] = []
        took: list[float] = []
        for where in ("cpu", device):
            out = Path(folder, f"{name}, {len(found)}")
            started = time.perf_counter()
            done = adm_cli.sample(**{**shared, **change, "device": where}, out=out)
            took.append(time.perf_counter() - started)
            found.append(np.stack([_values(path) for path in done.paths()]))
        gap = np.abs(found[0] - found[1])
        print(f"{name:18} mean {gap.mean():5.3f}, largest {gap.max():3d}, of 255;"
              f" {took[0]:.1f} s and {took[1]:.1f} s")  # fmt: skip
        failed += [name] if gap.mean() > MEAN else []
    assert not failed, f"other pictures than the CPU's: {', '.join(failed)}"


def memory(device: str, folder: str) -> None:
    where = choose_device(device)
    if where.type != "cuda":
        print("only a CUDA device can be told how much memory it has")
        return
    total = torch.cuda.get_device_properties(where).total_memory
    torch.cuda.set_per_process_memory_fraction(0.5e9 / total, where.index or 0)
    told: list[str] = []
    adm_cli.sample(
        num=1024, class_=207, batch_size=1024, steps=2, no_upsample=True, device=device, out=folder,
        on_event=lambda event: told.append(event.text) if isinstance(event, Note) else None,
    )  # fmt: skip
    halved = [text for text in told if "going on with batches of" in text]
    print(*halved, sep="\n")
    assert halved, "a batch of 1,024 fitted into 500 MB"
    assert adm_cli.verify(folder) == []


def _values(path: Path) -> Any:
    return open_picture(path)[0].astype(int)


CHECKS: dict[str, Callable[..., None]] = {
    "golden": golden,
    "pictures": pictures,
    "options": options,
    "memory": memory,
}

if __name__ == "__main__":
    CHECKS[sys.argv[1]](*sys.argv[2:])
