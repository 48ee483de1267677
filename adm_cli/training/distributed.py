"""Several processes, started by torchrun, that train one model."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from adm_cli.devices import choose_device
from adm_cli.errors import DeviceError, RunError, UsageError, trim

_OF_TORCHRUN = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}  # and without it


@dataclass(frozen=True)
class World:
    """This process among all of them; process 0 alone writes and speaks."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def writes(self) -> bool:
        return self.rank == 0

    def gather(self, mine: Tensor) -> Tensor:
        """The shares [b, ...] of all processes in order: [B, ...]."""
        if self.size == 1:
            return mine
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(parts, mine.contiguous())
        return torch.cat(parts)

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether any process says so."""
        if self.size == 1:
            return flag
        return bool(self.total(torch.tensor(float(flag), device=device)) > 0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


def find_world() -> World:
    """What torchrun says in the environment; alone without it."""
    try:
        values = [int(os.environ.get(name, default)) for name, default in _OF_TORCHRUN.items()]
    except ValueError:
        shown = ", ".join(f"{name}={os.environ.get(name, '')}" for name in _OF_TORCHRUN)
        raise UsageError(f"expected whole numbers, as torchrun sets them: {trim(shown)}") from None
    return World(*values)


def _own_gpu(local_rank: int) -> torch.device:
    """A GPU of this process alone, as NCCL wants it."""
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise DeviceError(
            f"process {local_rank + 1} of this machine, where torch sees {count} CUDA devices: "
            f"pass torchrun --nproc-per-node {count}"
        )
    return torch.device("cuda", local_rank)


@contextmanager
def joined(world: World, device: str) -> Iterator[torch.device]:
    """The device of this process, connected to the others for as long as the block lasts.

    Raises RunError where another of them ended meanwhile, DeviceError where there are more of
    them than GPUs.
    """
    if world.size == 1:
        yield choose_device(device)
        return
    where, own = choose_device(device), None
    if where.type == "cuda":
        where = own = _own_gpu(world.local_rank)
        torch.cuda.set_device(where)
    # told its device, NCCL need not guess it, which it warns of at the first barrier
    dist.init_process_group("nccl" if own else "gloo", device_id=own)
    # of small kernels whose gradients have their channels innermost: a copy that costs nothing
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    try:
        yield where
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "/gloo/" in str(error):
            raise RunError(
                "another process of this training ended; what it said tells why, and the same "
                "command goes on from the newest state"
            ) from error
        raise
    finally:
        dist.destroy_process_group()
