"""Class ids in tensors: which are refused."""

from __future__ import annotations

import pytest
import torch

from adm_cli.classes.tensors import check_class_ids


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, 3], "from 0 to 2, got 3"),
        ([-1, 1], "from 0 to 2, got -1"),
        ([0.0, 1.0], "as int64, got torch.float32"),
        ([True, False], "as int64, got torch.bool"),
    ],
)
def test_ids_that_cannot_be(ids: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_class_ids(torch.tensor(ids), 3)


def test_ids_that_cannot_be_read_pass() -> None:
    check_class_ids(torch.empty(2, dtype=torch.int64, device="meta"), 1)
    check_class_ids(torch.empty(0, dtype=torch.int64), 1)

    def one(y: torch.Tensor) -> torch.Tensor:
        check_class_ids(y[None], 3)
        return y * 2

    assert torch.func.vmap(one)(torch.tensor([0, 2])).tolist() == [0, 4]
