"""Facts about this machine and this installation, and what is wrong with them.

Heavy libraries are imported inside functions: an installation with a broken one must still be
told what is broken.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import shlex
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adm_cli import __version__
from adm_cli.checkpoints.places import checkpoint_path
from adm_cli.checkpoints.presets import CHECKPOINTS
from adm_cli.errors import AdmError, CheckpointError, how_many
from adm_cli.events import Doing, OnEvent, ignore
from adm_cli.files.disk import adm_home, explain_os_error, free_disk, leftovers, writable

# Import names by package name.
PACKAGES = {
    "torch": "torch",
    "numpy": "numpy",
    "pillow": "PIL",
    "safetensors": "safetensors",
    "typer": "typer",
    "rich": "rich",
    "requests": "requests",
    "filelock": "filelock",
}
# Beside ADM_*; never proxies or tokens, since the report is made to be pasted.
VARIABLES = (
    "OMP_NUM_THREADS MKL_NUM_THREADS CUDA_VISIBLE_DEVICES PYTORCH_CUDA_ALLOC_CONF "
    "PYTORCH_ALLOC_CONF XDG_DATA_HOME WORLD_SIZE RANK LOCAL_RANK LANG LC_ALL NO_COLOR TERM"
).split()
LITTLE_DISK = 10**9
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8})\.(?:pth|pt)")  # torch's custom: of the SHA-256


@dataclass(frozen=True)
class Problem:
    """Something wrong, and the command or change that mends it."""

    text: str
    mend: str


@dataclass
class Report:
    """``problems`` keep something from working; ``advice`` would make it better."""

    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    advice: list[Problem] = field(default_factory=list)

    def broken(self, text: str, mend: str) -> None:
        self.problems.append(Problem(text, mend))

    def advise(self, text: str, mend: str) -> None:
        self.advice.append(Problem(text, mend))


def examine(*, on_event: OnEvent = ignore) -> Report:
    """Looks at everything; ``on_event`` is told what comes next. Changes nothing."""
    report = Report()
    on_event(Doing("looking at versions"))
    _versions(report)
    broken = bool(report.problems)
    _environment(report)
    _disks(report)
    if broken:  # without its libraries nothing below can be looked at
        return report
    on_event(Doing("looking at devices"))
    _machine(report)
    _weights(report, on_event)
    _self_tests(report, on_event)
    return report


def _versions(report: Report) -> None:
    packages: dict[str, str] = {}
    for name, module in PACKAGES.items():
        try:
            loaded = importlib.import_module(module)
        except Exception as error:  # a broken library raises anything
            first = (str(error).splitlines() or [type(error).__name__])[0]
            report.broken(
                f"{name} cannot be loaded: {first:.200}",
                f"pip install --force-reinstall {name}",
            )
            continue
        try:
            packages[name] = getattr(loaded, "__version__", None) or importlib.metadata.version(
                name
            )
        except importlib.metadata.PackageNotFoundError:
            packages[name] = "unknown"
    report.facts |= {
        "adm": __version__,
        "python": f"{platform.python_version()} ({short_path(Path(sys.executable))})",
        "system": platform.platform(),
        "package": short_path(Path(__file__).parent.parent),
        "packages": packages,
    }
    version = [int(part) for part in re.findall(r"\d+", packages.get("torch", ""))[:2]]
    if version and version < [2, 10]:
        report.advise(
            f"torch {packages['torch']} cannot read .pt files safely, so adm convert refuses",
            "pip install 'torch>=2.10'",
        )


def _environment(report: Report) -> None:
    names = sorted(name for name in os.environ if name.startswith("ADM_") or name in VARIABLES)
    report.facts["environment"] = {name: os.environ[name] for name in names}
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads is not None and not threads.replace(",", "").isdecimal():
        report.advise(f"OMP_NUM_THREADS is {threads!r}, no number", "unset OMP_NUM_THREADS")


def _disks(report: Report) -> None:
    report.facts["disks"] = disks = []
    elsewhere = {"ADM_HOME": "export ADM_HOME=/another/folder", "here": "pass --out elsewhere"}
    for what, mend in elsewhere.items():
        try:
            folder = adm_home() if what == "ADM_HOME" else Path.cwd()
            free, may_write = free_disk(folder), writable(folder)
        except OSError as error:  # the folder that we are in was removed
            report.broken(f"{what}: {error.strerror or error}", "cd to a folder that is there")
            continue
        place, gigabytes = short_path(folder), round(free / 1e9, 1)
        disks.append({"what": what, "path": place, "free_gb": gigabytes, "writable": may_write})
        if free < LITTLE_DISK:
            report.advise(f"only {gigabytes} GB are free at {place}", f"make room, or {mend}")
        if not may_write:
            report.advise(f"{place} cannot be written to", mend)
    for path in leftovers(adm_home() / "models"):
        report.advise(
            f"{short_path(path)} is left over from a writer that was killed",
            f"rm {shlex.quote(str(path))}, if no adm is running",
        )


def _machine(report: Report) -> None:
    import torch

    from adm_cli.devices import (
        device_name,
        free_bytes,
        supported_dtypes,
        total_bytes,
        visible_devices,
    )

    devices = []
    for device in visible_devices():
        devices.append(
            {
                "device": str(device),
                "name": device_name(device),
                "memory_gb": round(total_bytes(device) / 1e9, 1),
                "free_gb": round(free_bytes(device) / 1e9, 1),
                "dtypes": supported_dtypes(device),
            }
        )
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    report.facts |= {
        "devices": devices,
        "threads": {"used": threads, "cpus": cores},
        "cuda_build": torch.version.cuda,
    }
    if threads > cores:
        report.advise(
            f"{threads} threads on {cores} CPUs get in each other's way",
            f"export OMP_NUM_THREADS={cores}",
        )
    if Path("/proc/driver/nvidia/version").exists() and not torch.cuda.is_available():
        report.advise(
            "there is an NVIDIA driver, but torch sees no GPU",
            "unset CUDA_VISIBLE_DEVICES, or install a CUDA build: "
            "https://pytorch.org/get-started/locally",
        )


def _weights(report: Report, on_event: OnEvent) -> None:
    from adm_cli.checkpoints.finding import find_weights

    embedded = [checkpoint_path(row) for row in CHECKPOINTS if row.embedded]
    published = [row.name for row in CHECKPOINTS if not row.embedded]
    found = []
    for path in [*embedded, *sorted((adm_home() / "models").glob("*.safetensors"))]:
        mend = "install adm again: pip install --force-reinstall --no-deps adm-cli"
        if path not in embedded:
            place, old = shlex.quote(str(path)), shlex.quote(f"{path.stem}.pt")
            mend = f"adm convert {old} --flags ... --output {place} --overwrite"
        if path.stem in published:
            mend = f"adm fetch {path.stem} --overwrite"
        on_event(Doing(f"looking at {path.name}"))
        found.append(_weights_file(report, path, mend))
    for path in sorted(adm_home().rglob("*.pt*")):
        if named := _HASH_IN_NAME.search(path.name):
            on_event(Doing(f"looking at {path.name}"))
            found.append(_hash_named_file(report, path, named[1]))
    report.facts["weights"] = found
    absent = [
        name for name in published if not (adm_home() / f"models/{name}.safetensors").exists()
    ]
    report.facts["weights_absent"] = sorted(absent)
    if name := os.environ.get("ADM_MODEL"):
        try:
            find_weights(name)
        except AdmError as error:
            report.broken(f"ADM_MODEL: {error}", "unset ADM_MODEL")


def _weights_file(report: Report, path: Path, mend: str) -> dict[str, Any]:
    """Header and content hash of a weights file."""
    from adm_cli.checkpoints import finding, header

    try:
        file = header.read_model_file(path)
        header.verify_content(file)
        for row in CHECKPOINTS:
            if path.stem == row.name and not row.embedded:
                finding.check_is(file, row)
    except CheckpointError as error:
        report.broken(str(error), mend)
        return {"path": short_path(path), "ok": False}
    return {
        "path": short_path(path),
        "ok": True,
        "kind": file.info.kind,
        "parameters": file.parameters,
        "content_sha256": file.content_sha256,
    }


def _hash_named_file(report: Report, path: Path, digits: str) -> dict[str, Any]:
    """A file that carries the first digits of its SHA-256 in its name."""
    from adm_cli.checkpoints.header import file_sha256

    try:
        good = file_sha256(path).startswith(digits)
    except OSError as error:
        report.broken(explain_os_error(f"cannot read {short_path(path)}", error), "remove it")
        return {"path": short_path(path), "ok": False, "kind": "evaluation"}
    if not good:
        report.broken(
            f"{short_path(path)} is damaged: its SHA-256 does not begin with {digits}",
            f"rm {shlex.quote(str(path))}, and fetch it again",
        )
    return {"path": short_path(path), "ok": good, "kind": "evaluation"}


def _self_tests(report: Report, on_event: OnEvent) -> None:
    from adm_cli.devices import visible_devices
    from adm_cli.doctor.selftest import self_test

    report.facts["self_tests"] = results = []
    for device in map(str, visible_devices()):
        on_event(Doing(f"self-test on {device}"))
        try:
            result = self_test(device)
        except Exception as error:  # a driver or a build that does not work raises anything
            first = (str(error).splitlines() or [type(error).__name__])[0]
            report.broken(
                f"the self-test on {device} failed: {first:.200}",
                "--device cpu, or install torch anew: https://pytorch.org/get-started/locally",
            )
            results.append({"device": device, "passed": False})
            continue
        results.append({**asdict(result), "passed": result.passed})
        if not result.passed:
            report.broken(
                f"the self-test on {device} drew another picture: "
                f"{how_many(result.values_that_differ, 'value')}, by up to "
                f"{result.largest_difference} of 255",
                "--device cpu if that passes, or the torch of constraints.txt: "
                "pip install -c constraints.txt --force-reinstall torch",
            )


def short_path(path: Path) -> str:
    """With ~ for the home folder: a report should not tell a name."""
    try:
        return f"~/{path.relative_to(Path.home())}"
    except (ValueError, RuntimeError):
        return str(path)
