"""The machine: here, the number of threads that computes on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from adm_cli import SamplingConfig, generate, load_pipeline
from adm_cli.devices import (
    cpu_threads,
    enough_memory,
    free_bytes,
    reproducible_kernels,
    use_threads,
)
from adm_cli.errors import DeviceError
from adm_cli.models.unet import UNet
from tests.conftest import Toys


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_threads_are_used_as_they_were_noted() -> None:
    for count in (3, 1, 2):
        assert use_threads(count)
        assert cpu_threads(torch.device("cpu")) == count
    assert use_threads(cpu_threads(torch.device("meta")))  # as on a GPU: nothing was noted
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    "count", [0, -1, 10**5, 2**63, 2**200, True, 1.0, "2", [2], {}, float("nan")]
)
def test_a_number_that_cannot_be_is_not_used(count: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", None)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert not use_threads(count)


def test_memory_that_torch_holds_and_does_not_use_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a first batch: else a second call would draw fewer at once."""
    for name, bytes_ in (
        ("mem_get_info", (3, 100)),
        ("memory_reserved", 90),
        ("memory_allocated", 40),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda _device, bytes_=bytes_: bytes_)
    assert free_bytes(torch.device("cuda")) == 53


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    ],
)  # fmt: skip
def test_memory_runs_out_in_many_words(error: Exception) -> None:
    with pytest.raises(DeviceError, match=r"^not enough memory on cpu for this: do that$"):  # noqa: SIM117
        with enough_memory(torch.device("cpu"), "this", "do that"):
            raise error


def test_another_error_is_no_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match=r"^CUDNN_STATUS_BAD_PARAM$"):  # noqa: SIM117
        with enough_memory(torch.device("cpu"), "this", "do that"):
            raise RuntimeError("CUDNN_STATUS_BAD_PARAM")


def test_kernels_that_may_differ_from_run_to_run_are_off() -> None:
    """Also where there is no GPU: these are switches, and are put back."""
    cudnn: Any = torch.backends.cudnn
    matmul = torch.backends.cuda.matmul
    with cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
        with reproducible_kernels():
            assert (cudnn.deterministic, cudnn.benchmark) == (True, False)
            assert (matmul.fp32_precision, cudnn.conv.fp32_precision) == ("ieee", "ieee")
        assert (cudnn.deterministic, cudnn.benchmark) == (False, True)
        assert cudnn.allow_tf32


def test_sampling_runs_on_such_kernels(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    real = UNet.forward

    def forward(self: UNet, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(torch.backends.cudnn.deterministic)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(UNet, "forward", forward)
    pipeline = load_pipeline(toys.model, toys.classifier, device="cpu")
    list(generate(pipeline, SamplingConfig(seeds=(0,), classes=(0,), steps="2")))
    assert seen == [True, True]
