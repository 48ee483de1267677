"""Time and peak memory of converting and loading a full-size checkpoint with random weights.

    python benchmarks/conversion.py [--checkpoint 256x256_diffusion] [--folder DIR]

Every step runs in a process of its own; peak memory is the kernel's maximum resident set, which
counts mapped file pages too. Needs about 3 times the checkpoint's size on disk.
"""

from __future__ import annotations

import argparse
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def step(name: str, checkpoint: str, folder: Path) -> None:
    import torch

    from adm_cli.checkpoints.converting import convert
    from adm_cli.checkpoints.loading import expected_shapes, load_model
    from adm_cli.checkpoints.presets import find_checkpoint

    original, converted = folder / f"{checkpoint}.pt", folder / f"{checkpoint}.safetensors"
    started = time.perf_counter()
    if name.startswith("write"):
        shapes = expected_shapes(find_checkpoint(checkpoint).config)
        state = {key: torch.randn(shape) * 0.02 for key, shape in shapes.items()}
        torch.save(state, original, _use_new_zipfile_serialization="zip" in name)
    elif name.startswith("convert"):
        convert(original, preset=checkpoint, output=converted, overwrite=True)
    elif name.startswith("load"):
        with converted.open("rb") as file:  # into the page cache: time what comes beyond reading
            while file.read(1 << 24):
                pass
        started = time.perf_counter()
        load_model(converted, dtype=torch.float16 if "half" in name else torch.float32)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{seconds} {peak}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="256x256_diffusion")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step(options.step, options.checkpoint, options.folder)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        print(f"{options.checkpoint} on {platform.machine()}, Python {platform.python_version()}")
        size = 1.0
        for this in ("nothing", "write zip", "convert zip", "load", "load half"):
            size = _measure(this, options.checkpoint, folder, size)
        for this in ("write legacy", "convert legacy"):
            size = _measure(this, options.checkpoint, folder, size)


def _measure(this: str, checkpoint: str, folder: Path, size: float) -> float:
    command = [sys.executable, __file__, "--checkpoint", checkpoint, "--folder", str(folder)]
    done = subprocess.run([*command, "--step", this], capture_output=True, text=True, check=True)
    seconds, peak = map(float, done.stdout.split())
    original = folder / f"{checkpoint}.pt"
    if original.is_file():
        size = original.stat().st_size
    ratio = f"{peak / size:.2f} x the file" if size > 1 else ""
    print(f"{this:16} {seconds:7.1f} s   peak {peak / 1e9:5.2f} GB   {ratio}", flush=True)
    return size


if __name__ == "__main__":
    main()
