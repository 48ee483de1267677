"""The published sizes end to end on this machine: fetched, converted, sampled, upsampled.

    python benchmarks/published_sizes.py [--folder DIR] [--steps 2]

Writes a 64x64_diffusion and a 64_256_upsampler with random weights in the original's format,
serves them from this machine, and runs adm's commands on them, each in a process of its own. Peak
memory is the kernel's maximum resident set of that process, mapped file pages included; "beyond"
is what is left of it after the process without a model and the weights in the compute dtype.
Needs about 5 GB of disk.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from adm_cli.checkpoints.loading import expected_shapes, load_model
from adm_cli.checkpoints.presets import Checkpoint, find_checkpoint
from adm_cli.config import UNetConfig
from adm_cli.models.cost import activation_bytes

NAMES = ("64x64_diffusion", "64_256_upsampler")
ADM = (sys.executable, "-m", "adm_cli")


class Bench:
    """Runs commands and prints what each took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "ADM_HOME": str(folder / "home")}
        self.bare = 0.0  # GB of a process that only imports

    def run(
        self, title: str, *command: str, rows: tuple[Checkpoint, ...] = (), item: int = 4
    ) -> None:
        """``rows`` are the models it holds at once, ``item`` the bytes of a weight."""
        before, started = disk(self.folder), time.perf_counter()
        with (self.folder / "log").open("w+") as log:
            process = subprocess.Popen(
                command, env=self.environment, cwd=self.folder, stdout=log, stderr=log
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                log.seek(0)
                sys.exit(f"{title}: exit code {process.returncode}\n{log.read()[-2000:]}")
        seconds, peak = time.perf_counter() - started, usage.ru_maxrss * 1024 / 1e9
        written = disk(self.folder) - before
        line = f"{title:34} {seconds:7.1f} s   peak {peak:5.2f} GB   disk {written:+6.2f} GB"
        if rows:
            weights = sum(row.parameters for row in rows) * item / 1e9
            room = max(activation_bytes(row.config) for row in rows) / 1e9
            beyond = peak - self.bare - weights
            line += (
                f"   weights {weights:.2f}, beyond {beyond:+.2f}, activations about {room:.2f} GB; "
                f"{(peak - self.bare - room) / weights:.2f} x the weights"
            )
        else:
            self.bare = self.bare or peak
        print(line, flush=True)


def disk(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e9


def write_original(name: str, folder: Path) -> None:
    shapes = expected_shapes(find_checkpoint(name).config)
    torch.save(
        {key: torch.randn(shape) * 0.02 for key, shape in shapes.items()}, folder / f"{name}.pt"
    )


def serve(folder: Path) -> str:
    """The address of a server on this machine that has the files of ``folder``."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


def time_loading(path: Path) -> None:
    """How long loading takes beyond reading the file, which is in the page cache by then.

    Processor time too: what is left of the wall clock where other work goes on beside.
    """

    def read() -> None:
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass

    reading, reading_cpu = timed(read)
    for dtype in (torch.float32, torch.bfloat16):
        seconds, cpu = timed(lambda dtype=dtype: load_model(path, dtype=dtype))  # type: ignore[misc]
        print(
            f"loading {path.stem} as {dtype}: {seconds - reading:.2f} s beyond reading, "
            f"{cpu - reading_cpu:.2f} s of processor time",
            flush=True,
        )


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the wall clock and of processor time."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--steps", default="2")
    parser.add_argument("--write", help=argparse.SUPPRESS)
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write_original(options.write, options.folder)
    elif options.load:
        time_loading(options.load)
    else:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            measure(Path(name), options.steps)


def measure(folder: Path, steps: str) -> None:
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"{steps} steps a stage"
    )
    bench, originals = Bench(folder), folder / "originals"
    originals.mkdir()
    small, large = (find_checkpoint(name) for name in NAMES)
    assert isinstance(large.config, UNetConfig)
    bench.run(
        "a process without a model",
        sys.executable,
        "-c",
        "import adm_cli.sampling.drawing.pipeline",
    )
    for name in NAMES:
        this = (sys.executable, __file__, "--folder", str(originals), "--write", name)
        bench.run(f"writing {name}", *this)
    address = serve(originals)
    for name in NAMES:
        bench.run(f"fetching {name}", *ADM, "fetch", name, "--from", address, "--quiet")
    for name in NAMES:
        (originals / f"{name}.pt").unlink()
        path = folder / "home" / "models" / f"{name}.safetensors"
        subprocess.run((sys.executable, __file__, "--load", str(path)), check=True)
    base = ("--class", "207", "--num", "1", "--scale", "0", "--steps", steps, "--device", "cpu")
    later = ("--upsample-steps", steps)
    for dtype, item in (("float32", 4), ("bfloat16", 2)):
        kind = ("--dtype", dtype)
        bench.run(
            f"sampling 64x64, {dtype}",
            *ADM, "sample", "--model", "imagenet64", *base, *kind, "--out", f"small-{dtype}",
            rows=(small,), item=item,
        )  # fmt: skip
        bench.run(
            f"upsampling to 256x256, {dtype}",
            *ADM, "upsample", f"small-{dtype}", "--steps", steps, "--device", "cpu", *kind,
            "--out", f"large-{dtype}",
            rows=(large,), item=item,
        )  # fmt: skip
        bench.run(
            f"imagenet256-stack, {dtype}",
            *ADM, "sample", "--model", "imagenet256-stack", *base, *later, *kind,
            "--out", f"stack-{dtype}",
            rows=(small, large), item=item,
        )  # fmt: skip


if __name__ == "__main__":
    main()
