"""The Inception-V3 of 2015 that FID is defined by, and the resize in front of it.

Not the Inception-V3 that classifies today: this one comes from TensorFlow's graph of 2015-12-05,
has 1008 outputs, and its last blocks pool differently. Parameter names are those of
``pt_inception-2015-12-05-6726825d.pth``, the published PyTorch port.

N images, H W image size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INPUT_SIZE = 299
POOL_DIM, SPATIAL_DIM, NUM_LOGITS = 2048, 7 * 17 * 17, 1008

_SPATIAL_CHANNELS = 7  # of mixed_6/conv: enough for sFID, and no more dimensions than the pool


class Features(NamedTuple):
    """What a network says of N images; ``spatial`` None where it has no such features."""

    pool: Tensor  # [N, D]
    spatial: Tensor | None  # [N, D']
    logits: Tensor  # [N, K]


class InceptionV3(nn.Module):
    """``forward(images)``: uint8 or float [N, 3, H, W] in 0 to 255; returns `Features`.

    ``pool`` [N, 2048] is the average over the last feature map (FID, precision and recall),
    ``spatial`` [N, 2023] the first 7 channels of ``mixed_6/conv`` in TensorFlow's order, rows,
    columns, channels (sFID, arXiv 2103.03841), ``logits`` [N, 1008] have no bias, as in the
    original evaluator's Inception Score.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3)
        self.Mixed_5b = _BlockA(192, 32)
        self.Mixed_5c = _BlockA(256, 64)
        self.Mixed_5d = _BlockA(288, 64)
        self.Mixed_6a = _BlockB(288)
        self.Mixed_6b = _BlockC(768, 128)
        self.Mixed_6c = _BlockC(768, 160)
        self.Mixed_6d = _BlockC(768, 160)
        self.Mixed_6e = _BlockC(768, 192)
        self.Mixed_7a = _BlockD(768)
        self.Mixed_7b = _BlockE(1280, largest=False)
        self.Mixed_7c = _BlockE(2048, largest=True)
        self.fc = nn.Linear(POOL_DIM, NUM_LOGITS)

    def forward(self, images: Tensor) -> Features:
        x = resize_tf1(images.to(self.fc.weight.dtype), (INPUT_SIZE, INPUT_SIZE))
        x = (x - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, 3, stride=2)  # [N, 64, 73, 73]
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = F.max_pool2d(x, 3, stride=2)  # [N, 192, 35, 35]
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))  # [N, 768, 17, 17]
        x = self.Mixed_6d(x)
        spatial = x[:, :_SPATIAL_CHANNELS]  # its first branch, which is TensorFlow's mixed_6/conv
        x = self.Mixed_7a(self.Mixed_6e(x))
        x = self.Mixed_7c(self.Mixed_7b(x))  # [N, 2048, 8, 8]
        pool = x.mean(dim=(2, 3))
        return Features(
            pool, spatial.permute(0, 2, 3, 1).flatten(1), F.linear(pool, self.fc.weight)
        )


def resize_tf1(x: Tensor, size: tuple[int, int]) -> Tensor:
    """TensorFlow 1's bilinear resize, [N, C, H, W] to ``size``: pixel i sits at i * H / height.

    Without the half-pixel centres of every later resize, which would change FID.
    """
    for dim, length in ((3, size[1]), (2, size[0])):
        x = _interpolate(x, dim, length)
    return x


def _interpolate(x: Tensor, dim: int, length: int) -> Tensor:
    old = x.shape[dim]
    if old == length:
        return x
    scale = torch.tensor(old / length, dtype=torch.float32)
    place = torch.arange(length, dtype=torch.float32) * scale
    low = place.floor().long().clamp(max=old - 1)
    high = (low + 1).clamp(max=old - 1)
    shape = [length if d == dim else 1 for d in range(4)]
    weight = (place - low).to(x).reshape(shape)
    first = x.index_select(dim, low.to(x.device))
    return first + (x.index_select(dim, high.to(x.device)) - first) * weight


class _Conv(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self, channels: int, out: int, size: int | tuple[int, int], *, stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = nn.Conv2d(channels, out, size, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


def _average(x: Tensor) -> Tensor:
    """3x3 means that leave out the padding: the graph of 2015 does, the port's origin does not."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class _BlockA(nn.Module):
    def __init__(self, channels: int, pool: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(channels, 64, 1)
        self.branch5x5_1 = _Conv(channels, 48, 1)
        self.branch5x5_2 = _Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = _Conv(channels, 64, 1)
        self.branch3x3dbl_2 = _Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, padding=1)
        self.branch_pool = _Conv(channels, pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        branches = (
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(_average(x)),
        )
        return torch.cat(branches, dim=1)


class _BlockB(nn.Module):
    """Halves the feature map: 35x35 to 17x17."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = _Conv(channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = _Conv(channels, 64, 1)
        self.branch3x3dbl_2 = _Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        branches = (
            self.branch3x3(x),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            F.max_pool2d(x, 3, stride=2),
        )
        return torch.cat(branches, dim=1)


class _BlockC(nn.Module):
    """7x7 convolutions as rows after columns; ``mid`` channels in between."""

    def __init__(self, channels: int, mid: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(channels, 192, 1)
        self.branch7x7_1 = _Conv(channels, mid, 1)
        self.branch7x7_2 = _Conv(mid, mid, (1, 7), padding=(0, 3))
        self.branch7x7_3 = _Conv(mid, 192, (7, 1), padding=(3, 0))
        self.branch7x7dbl_1 = _Conv(channels, mid, 1)
        self.branch7x7dbl_2 = _Conv(mid, mid, (7, 1), padding=(3, 0))
        self.branch7x7dbl_3 = _Conv(mid, mid, (1, 7), padding=(0, 3))
        self.branch7x7dbl_4 = _Conv(mid, mid, (7, 1), padding=(3, 0))
        self.branch7x7dbl_5 = _Conv(mid, 192, (1, 7), padding=(0, 3))
        self.branch_pool = _Conv(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        branches = (
            self.branch1x1(x),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(double)),
            self.branch_pool(_average(x)),
        )
        return torch.cat(branches, dim=1)


class _BlockD(nn.Module):
    """Halves the feature map: 17x17 to 8x8."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = _Conv(channels, 192, 1)
        self.branch3x3_2 = _Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1 = _Conv(channels, 192, 1)
        self.branch7x7x3_2 = _Conv(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = _Conv(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = _Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        branches = (
            self.branch3x3_2(self.branch3x3_1(x)),
            self.branch7x7x3_4(seven),
            F.max_pool2d(x, 3, stride=2),
        )
        return torch.cat(branches, dim=1)


class _BlockE(nn.Module):
    """``largest``: the pool branch takes the maximum, as the graph's last block does."""

    def __init__(self, channels: int, *, largest: bool) -> None:
        super().__init__()
        self.largest = largest
        self.branch1x1 = _Conv(channels, 320, 1)
        self.branch3x3_1 = _Conv(channels, 384, 1)
        self.branch3x3_2a = _Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = _Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = _Conv(channels, 448, 1)
        self.branch3x3dbl_2 = _Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = _Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = _Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = _Conv(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, stride=1, padding=1) if self.largest else _average(x)
        branches = (
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(pooled),
        )
        return torch.cat(branches, dim=1)
