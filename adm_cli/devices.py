"""The machine: device and precision, memory, threads, and kernels that repeat themselves."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from adm_cli.checkpoints.flags.spellings import spell_dtype
from adm_cli.errors import DeviceError, UsageError, one_of

_MOST_THREADS = 4  # for a CPU: more are in each other's way

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


def choose_device(device: str | torch.device) -> torch.device:
    """A device by name, or the best one for "auto"; raises DeviceError if it is not there."""
    name = str(device).strip().lower()
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(
            f"unknown device {name!r}: expected auto (a GPU where there is one), cpu, cuda, "
            f"cuda:1 or mps"
        ) from None
    if device.type == "cuda" and (not cuda or (device.index or 0) >= torch.cuda.device_count()):
        count = torch.cuda.device_count() if cuda else 0
        raise DeviceError(
            f"no device {name}: torch sees {count} CUDA devices; --device auto picks one"
        )
    if device.type == "mps" and not mps:
        raise DeviceError("no MPS device on this machine: --device auto picks one that is there")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"unknown device {name!r}: expected auto, cpu, cuda, cuda:1 or mps")
    return device


def choose_dtype(dtype: str | torch.dtype, device: torch.device, *, use_fp16: bool) -> torch.dtype:
    """A precision by name; "auto" is float32, or float16 on CUDA for a model published so."""
    typed = str(dtype)
    name = spell_dtype(typed)
    if name == "auto":
        return torch.float16 if use_fp16 and device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise UsageError(f"unknown dtype {typed!r}: expected {one_of(['auto', *DTYPES])}")
    if name == "float64" and device.type == "mps":
        raise DeviceError("MPS has no float64: use --device cpu")
    return DTYPES[name]


def cpu_threads(device: torch.device, processes: int = 1) -> int | None:
    """The number of threads that computes on a CPU, on which rounding depends; None elsewhere.

    Of each of several processes that share the CPU: at least one.
    """
    return max(1, torch.get_num_threads() // processes) if device.type == "cpu" else None


def use_threads(count: object) -> bool:
    """Computes with that many CPU threads, as `cpu_threads` gave it once; None leaves all as it is.

    False where it is no number, or too large for this machine, and nothing was done: ``count``
    may come from a file that anyone wrote.
    """
    if count is None:
        return True
    if type(count) is not int or not 1 <= count <= _MOST_THREADS * (os.cpu_count() or 1):
        return False
    if count != torch.get_num_threads():
        torch.set_num_threads(count)
    return True


@contextmanager
def own_threads() -> Iterator[None]:
    """What `use_threads` sets meanwhile holds no longer than this: the number is the process's."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        use_threads(before)


def send(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A CPU tensor on ``device`` in ``dtype``: to CUDA from pinned memory, without waiting."""
    tensor = tensor.to(dtype or tensor.dtype)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@contextmanager
def made_on_cpu() -> Iterator[None]:
    """Tensors are made on the CPU where nothing else is said, whatever the caller has set."""
    own = torch.get_default_device().type == "cpu"  # then nothing is slowed down
    with nullcontext() if own else torch.device("cpu"):
        yield


_lock, _computing, _before = Lock(), list[None](), ExitStack()  # of `reproducible_kernels`


@contextmanager
def reproducible_kernels() -> Iterator[None]:
    """Deterministic cuDNN and full float32, so that a seed gives the same picture each time.

    These are switches of the process: the first thread to come sets them, the last one to leave
    puts them back.
    """
    with _lock:
        if not _computing:
            for place, name, value in _switches():
                _before.callback(setattr, place, name, _own(place, name))
                setattr(place, name, value)
        _computing.append(None)
    try:
        yield
    finally:
        with _lock:
            _computing.pop()
            if not _computing:
                _before.close()


def _own(place: Any, name: str) -> object:
    """What a switch is set to; torch tells what it amounts to, and products of matrices follow the
    precision of all CUDA, where that is set and theirs is not."""
    value, cudnn = getattr(place, name), torch.backends.cudnn
    follows = place is torch.backends.cuda.matmul and value == cudnn.fp32_precision
    return "none" if follows else value


def _switches() -> list[tuple[Any, str, object]]:
    """By torch's newer names: the older, ``allow_tf32``, cannot be read where these were set."""
    cudnn: Any = torch.backends.cudnn
    return [
        *((cudnn, "enabled", True), (cudnn, "benchmark", False), (cudnn, "deterministic", True)),
        *((place, "fp32_precision", "ieee") for place in (torch.backends.cuda.matmul, cudnn.conv)),
    ]


def free_bytes(device: torch.device) -> int:
    """Memory that may still be used, in bytes; a guess where the system does not say."""
    if device.type == "cuda":  # and what torch holds of it without using it
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + held)
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return 4 * 2**30


def total_bytes(device: torch.device) -> int:
    """All memory of a device, in bytes; 0 where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0


def visible_devices() -> list[torch.device]:
    """The CPU, and every CUDA or MPS device that torch sees."""
    found = [torch.device("cpu")]
    if torch.cuda.is_available():
        found += [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append(torch.device("mps"))
    return found


def device_name(device: torch.device) -> str:
    """The model of a GPU, or of the processor where the system says it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def supported_dtypes(device: torch.device) -> list[str]:
    """Names of the precisions in which a device convolves, found by doing it."""
    found = []
    for name, dtype in DTYPES.items():
        with suppress(RuntimeError, TypeError, NotImplementedError):
            x = torch.ones(1, 1, 3, 3, device=device, dtype=dtype)
            torch.nn.functional.conv2d(x, x).cpu()
            found.append(name)
    return found


def has_bfloat16(device: torch.device) -> bool:
    """Whether a CUDA device or an x86 CPU computes in it; others only imitate it, very slowly.

    CPUs: those with AVX512-BF16 or AMX, if torch uses such vectors. Other kinds were not tried.
    """
    if device.type == "cpu":
        wide = torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
        able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return wide and any(able.get(name) for name in ("avx512_bf16", "amx_bf16"))
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def peak_bytes(device: torch.device) -> int:
    """The most memory used so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out: every backend says it in its own way."""
    text = str(error).lower()
    return (
        isinstance(error, (MemoryError, torch.OutOfMemoryError))
        or "out of memory" in text
        or "can't allocate memory" in text
        or "alloc_failed" in text  # cuBLAS and cuDNN, of their workspaces
        or "allocation_failed" in text
    )


@contextmanager
def enough_memory(device: torch.device, needed: str, mend: str) -> Iterator[None]:
    """Raises DeviceError where memory for what is ``needed`` runs out in the block."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise DeviceError(f"not enough memory on {device} for {needed}: {mend}") from None
