"""How long a run of many finished images takes to say that nothing is to be done.

    python benchmarks/resuming.py 50000
    python benchmarks/resuming.py 1000000 --lines

Makes a folder of that many images, all the same bytes, and goes on with it; ``--lines`` reads the
manifest alone. Prints processor seconds, imports included, and the most memory that was used;
variables that change Python (PYTHONUNBUFFERED and the like) count for nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from adm_cli.files.manifests import render_line
from adm_cli.pictures.images import encode_image
from adm_cli.sampling.choosing.images import Images
from adm_cli.sampling.folder import RunFolder

OPTIONS = ("--class", "all", "--scale", "0", "--steps", "1", "--device", "cpu", "--no-upsample")
RESUME = """
import sys
from adm_cli.commands.main import run
raise SystemExit(run(sys.argv[1:]))
"""
READ = """
import sys
from pathlib import Path
from adm_cli.sampling.folder import RunFolder
print(len(RunFolder(Path(sys.argv[1])).records()), "lines")
"""


def fill(folder: Path, images: Images, *, files: bool) -> None:
    """Every image of a run, as if it had been drawn."""
    data = encode_image(np.zeros((32, 32, 3), np.uint8), ".png", None)
    facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    with (folder / "manifest.jsonl").open("wb") as manifest:
        for image in images:
            if files:
                (folder / image.file).write_bytes(data)
            manifest.write(render_line({"file": image.file, **image.facts(), **facts}))


def measure(code: str, *arguments: str) -> None:
    """Processor time and memory of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-E", "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = (done.stderr or done.stdout).splitlines()[-1]
    print(f"{said}: {seconds:.1f} s of processor time, {after.ru_maxrss / 1e6:.2f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=int)
    parser.add_argument("--lines", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        wanted = ("sample", *OPTIONS, "--total", str(asked.images), "--out", str(folder))
        count = min(asked.images, 999_999)  # of shards; the last one begins the run
        subprocess.run(
            [sys.executable, "-E", "-c", RESUME, *wanted, "--shard", f"{count}/{count}"],
            capture_output=True, check=True,
        )  # fmt: skip
        run = RunFolder(folder).read()
        fill(folder, run.images, files=not asked.lines)
        if asked.lines:
            measure(READ, str(folder))
        else:
            measure(RESUME, *wanted)


if __name__ == "__main__":
    main()
