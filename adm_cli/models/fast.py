"""The same networks computed faster on a CPU: channels innermost, weights laid out beforehand.

`hasten` changes a model's blocks in place; its parameters and results, rounding aside, stay.

B batch, C channels, H W feature map, L positions, N heads, D channels of a head, G groups.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from adm_cli.models import winograd
from adm_cli.models.alike import silu
from adm_cli.models.layers import (
    AttentionBlock,
    Conv1d,
    Conv2d,
    GroupNorm32,
    ResBlock,
    attention_by_products,
    residual_sum,
    softmax_attention,
)
from adm_cli.models.unet import TorsoModel

_LAST = torch.channels_last
_FEW_PIXELS = 1024  # below, torch's group norm of channels-last maps is slow, most so in bfloat16
_MANY_VALUES = 2**16  # in them, below, the sums of a whole map cost more than they save
_MOST_SCORES = 2**24  # of attention at once, in half precision
_TILED_PIXELS = 2**10  # of a map, at the least, whose convolutions are tiled
_KEPT_PIXELS = 2**12  # of maps, below, kernels of tiles are kept; above, making them costs little


def hasten(model: TorsoModel, *, pack: bool, tile: bool = False) -> None:
    """Let the blocks of ``model`` compute channels-last from here on.

    With ``pack`` the weight of each convolution of the torso is, when first used, replaced by
    oneDNN's own layout of it, which has no gradient and `can_pack` must allow: the weights are
    then for inference and the gradient of the input alone. `Module.state_dict` gives them in the
    usual layout. With ``tile`` also, in float32, `winograd` computes the wide ones of 3x3 at the
    model's full and half resolution: there most of the operations are and few of the weights, of
    which it holds up to four times as much more.
    """
    height, width = model.config.image_size
    large = max(_TILED_PIXELS, height * width // (4 * model.config.patch**2))
    torso = {name.rpartition(".")[0] for name in model.torso_parameters()}
    for name, module in list(model.named_modules()):
        if isinstance(module, ResBlock):
            module.__class__ = FastResBlock
        elif isinstance(module, AttentionBlock):
            module.__class__ = FastAttentionBlock
            for convolution in (module.qkv, module.proj_out):
                convolution.__class__ = FastConv1d
                convolution.packs = pack  # type: ignore[assignment]
        elif isinstance(module, GroupNorm32):
            module.__class__ = FastGroupNorm32
        elif isinstance(module, Conv2d):
            if pack and name in torso and module.stride == (1, 1):
                module.__class__ = FastConv2d
                if tile and winograd.suits(module):
                    module.tiled_from, module.kept = large, {}  # type: ignore[assignment]
            else:
                module.to(memory_format=_LAST)  # type: ignore[call-overload]


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this torch packs and convolves in ``dtype`` here: its functions for it are private,
    and not every processor has every precision."""
    try:
        x = torch.zeros(1, 8, 2, 2, dtype=dtype, device="cpu").contiguous(memory_format=_LAST)
        y = convolve_packed(x, pack(torch.zeros(8, 8, 1, 1, dtype=dtype, device="cpu"), x), None)
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False
    return y.shape == x.shape and y.dtype == dtype and y.is_contiguous(memory_format=_LAST)


def pack(weight: Tensor, like: Tensor) -> Tensor:
    """``weight`` [O, C, k, k] as an opaque tensor, in the layout that suits maps [B, C, H, W].

    That of one image whatever B: what is drawn does not depend on the batch that came first.
    """
    pad = weight.shape[-1] // 2
    dense = weight.to_mkldnn()
    shape = [1, *like.shape[1:]]
    reorder = torch._C._nn.mkldnn_reorder_conv2d_weight
    return reorder(dense, [pad, pad], [1, 1], [1, 1], 1, shape)  # type: ignore[call-arg]


def convolve_packed(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Channels-last maps and the weight that `pack` made: a convolution of stride 1."""
    pad = weight.shape[-1] // 2
    return torch.ops.mkldnn._convolution_pointwise(  # type: ignore[no-any-return]
        x, weight, bias, [pad, pad], [1, 1], [1, 1], 1, "none", [], ""
    )


class _Packs:
    """A convolution of stride 1 that may hold its weight packed."""

    weight: nn.Parameter
    bias: nn.Parameter | None
    _for_gradient: Tensor | None = None  # the weight of the convolution that is the gradient

    def convolve(self, x: Tensor) -> Tensor:
        """[B, C, H, W] channels-last -> [B, O, H, W] so."""
        x = x.contiguous(memory_format=_LAST)
        if self.weight.requires_grad or not can_pack(self.weight.dtype):  # it learns, or was moved
            return self._plainly(x)
        if torch.is_grad_enabled() and x.requires_grad:
            return _PackedConvolution.apply(x, self)  # type: ignore[no-any-return,no-untyped-call]
        return self.run(x)

    def _plainly(self, x: Tensor) -> Tensor:
        if self.weight.is_mkldnn:
            raise RuntimeError(
                "the weights are laid out for drawing and cannot learn: load_model, and "
                "load_pipeline with plain=True, give such as can"
            )
        bias = None if self.bias is None else self.bias.to(x.dtype)
        weight = _as_2d(self.weight)
        return F.conv2d(x, weight.to(x.dtype), bias, padding=weight.shape[-1] // 2)

    def run(self, x: Tensor) -> Tensor:
        weight = self.weight  # looked at once: another thread may pack it meanwhile
        if not weight.is_mkldnn:
            packed = pack(_as_2d(weight.detach()), x)
            self.weight = weight = nn.Parameter(packed, requires_grad=False)
        return convolve_packed(x, weight, self.bias)

    def unpack(self) -> None:
        """The weight in its usual layout, until it is used: torch cannot copy or move another."""
        if self.weight.is_mkldnn:
            self.weight = nn.Parameter(self.dense(), requires_grad=False)
        self._for_gradient = None

    def _apply(self, *args: Any, **kwargs: Any) -> Any:  # of `to`, `double` and their like
        self.unpack()
        return super()._apply(*args, **kwargs)  # type: ignore[misc]

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.unpack()
        super()._load_from_state_dict(*args, **kwargs)  # type: ignore[misc]

    def __getstate__(self) -> dict[str, Any]:  # of copies and pickles
        self.unpack()
        return self.__dict__.copy()

    def gradient(self, of_output: Tensor) -> Tensor:
        """Of the input, channels-last as ``of_output``."""
        if self._for_gradient is None:
            self._for_gradient = pack(self.turned(), of_output)
        return convolve_packed(of_output, self._for_gradient, None)

    def turned(self) -> Tensor:
        """The weight whose convolution is the gradient: kernels turned, channels exchanged."""
        return _as_2d(self.dense()).transpose(0, 1).flip(2, 3).contiguous()

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)  # type: ignore[misc]
        if self.weight.is_mkldnn:
            destination[f"{prefix}weight"] = self.dense()

    def dense(self) -> Tensor:
        """The weight in the usual layout and shape."""
        weight = self.weight.detach()
        return weight.to_dense() if weight.is_mkldnn else weight


class _PackedConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, convolution: _Packs) -> Tensor:
        ctx.convolution = convolution
        return convolution.run(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.convolution.gradient(gradient.contiguous(memory_format=_LAST)), None


def _as_2d(weight: Tensor) -> Tensor:
    return weight if weight.dim() == 4 else weight[..., None]


class FastConv2d(_Packs, Conv2d):  # type: ignore[misc]
    """Of stride 1."""

    tiled_from: int | None = None  # as many pixels of a map; None: never
    kept: dict[bool, Tensor]  # kernels of tiles, of the convolution and of its gradient

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x)

    def unpack(self) -> None:
        super().unpack()
        self.kept = {}

    def run(self, x: Tensor) -> Tensor:
        if not self._tiles(x.shape):
            return super().run(x)
        return winograd.convolve(x, self._kernels(x.shape, turned=False), self.bias)

    def gradient(self, of_output: Tensor) -> Tensor:
        if not self._tiles(of_output.shape):
            return super().gradient(of_output)
        kernels = self._kernels(of_output.shape, turned=True)
        return winograd.convolve(of_output, kernels, None)

    def _tiles(self, shape: torch.Size) -> bool:
        h, w = shape[2:]
        return self.tiled_from is not None and h * w >= self.tiled_from and winograd.divides(h, w)

    def _kernels(self, shape: torch.Size, *, turned: bool) -> Tensor:
        if turned in self.kept:
            return self.kept[turned]
        kernels = winograd.change_kernels(self.turned() if turned else self.dense())
        if shape[2] * shape[3] < _KEPT_PIXELS:
            self.kept[turned] = kernels
        return kernels


class FastConv1d(_Packs, Conv1d):  # type: ignore[misc]
    """Of kernel 1, and of maps [B, C, H, W]."""

    packs = False

    def dense(self) -> Tensor:
        weight = super().dense()
        return weight[..., 0] if weight.dim() == 4 else weight

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x) if self.packs else self._plainly(x)


class FastGroupNorm32(GroupNorm32):
    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4:
            return super().forward(x)
        if torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad):
            args = (x, self.weight, self.bias, self.num_groups, self.eps)
            return _GroupNorm.apply(*args)  # type: ignore[no-any-return,no-untyped-call]
        pixels = x.shape[2] * x.shape[3]
        if pixels < _FEW_PIXELS and x.numel() >= _MANY_VALUES:
            return self._by_sums(x)
        return _native_norm(x, self.weight, self.bias, self.num_groups, self.eps)[0]

    def _by_sums(self, x: Tensor) -> Tensor:
        """By sums over whole channels: on small maps torch's own kernel takes a group, two or six
        channels wide, at a time, and vectors stay empty."""
        (b, c, h, w), g = x.shape, self.num_groups
        values = x.to(self.weight.dtype)
        rows = values.permute(0, 2, 3, 1).reshape(b, h * w, c)
        sums = torch.stack((rows.sum(1), rows.square().sum(1)))  # [2, B, C]
        mean, square = sums.view(2, b, g, -1).mean(-1, keepdim=True) / (h * w)  # [B, G, 1] each
        rstd = (square - mean.square()).clamp(min=0).add(self.eps).rsqrt()
        scale = rstd * self.weight.view(g, -1)  # [B, G, C/G]
        shift = self.bias.view(g, -1) - mean * scale
        y = torch.addcmul(shift.view(b, c, 1, 1), values, scale.view(b, c, 1, 1))
        return y.to(x.dtype)


def _native_norm(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The result in the dtype of ``x``; means and 1 / deviations [B, G]."""
    b, c, h, w = x.shape
    if h * w >= _FEW_PIXELS and b > 1 and b % torch.get_num_threads():
        # torch cuts these between its threads, images too, whose sums are then rounded otherwise
        parts = [_native_norm(image, weight, bias, groups, eps) for image in torch.split(x, 1)]
        y, mean, rstd = map(torch.cat, zip(*parts, strict=True))
        return y, mean, rstd
    wide = x if h * w >= _FEW_PIXELS and x.dtype == torch.bfloat16 else x.to(weight.dtype)
    y, mean, rstd = torch.native_group_norm(wide, weight, bias, b, c, h * w, groups, eps)
    return y.to(x.dtype), mean, rstd


class _GroupNorm(torch.autograd.Function):
    """Group norm whose gradient is made of sums over whole channels: torch's own is up to fifty
    times slower on small maps with channels innermost."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> Tensor:
        y, mean, rstd = _native_norm(x, weight, bias, groups, eps)
        ctx.save_for_backward(x, mean, rstd, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, weight = ctx.saved_tensors
        (b, c, h, w), g = x.shape, mean.shape[1]
        mean, rstd = mean.to(weight.dtype)[..., None], rstd.to(weight.dtype)[..., None]  # [B, G, 1]
        dy = dy.contiguous(memory_format=_LAST)
        dot = (dy * x).sum((2, 3), dtype=weight.dtype).view(b, g, -1)  # [B, G, C/G]
        total = dy.sum((2, 3), dtype=weight.dtype).view(b, g, -1)
        of_weight = of_bias = None
        if ctx.needs_input_grad[1]:
            of_weight = ((dot - total * mean) * rstd).sum(0).flatten()
            of_bias = total.sum(0).flatten()
        scale = weight.view(g, -1)
        dots, totals = (dot * scale).sum(-1, True), (total * scale).sum(-1, True)  # [B, G, 1]
        along_x = (totals * mean - dots) * rstd**3 / (c // g * h * w)
        constant = -along_x * mean - totals * rstd / (c // g * h * w)

        def spread(values: Tensor) -> Tensor:
            return values.expand(b, g, c // g).reshape(b, c, 1, 1).to(x.dtype)

        of_x = torch.addcmul(spread(constant), x, spread(along_x))
        return torch.addcmul(of_x, dy, spread(rstd * scale)), of_weight, of_bias, None, None


class FastResBlock(ResBlock):
    def _forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, _, conv = self.in_layers
        h = _silu(norm(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = conv(h)
        e = self.emb_layers(emb).to(h.dtype)[:, :, None, None]
        norm, _, dropout, last = self.out_layers
        if self.scale_shift_norm:
            scale, shift = e.chunk(2, dim=1)
            h = torch.addcmul(shift, norm(h), 1 + scale)
        elif self.concat_embedding:
            h = torch.cat([norm(h), e.expand_as(h)], dim=1)
        else:
            h = norm(h + e)
        return residual_sum(self.skip_connection(x), last(dropout(_silu(h))), self.rescale_residual)


def _silu(fresh: Tensor) -> Tensor:
    """In place where no gradient needs ``fresh``."""
    return silu(fresh, inplace=not fresh.requires_grad)


class FastAttentionBlock(AttentionBlock):
    def _forward(self, x: Tensor) -> Tensor:
        c, h, w = x.shape[1:]
        window = (h, w) if self.window is None else (min(self.window, h), min(self.window, w))
        if h % window[0] or w % window[1]:
            raise ValueError(f"attention windows of {window} do not divide a {h}x{w} feature map")
        rows = self.qkv(self.norm(x)).permute(0, 2, 3, 1)  # [B, H, W, 3C]
        rows = _cut(rows, window)  # [B', L, 3C]
        shape = (*rows.shape[:2], self.num_heads, 3, -1)
        if self.order == "legacy":
            q, k, v = rows.reshape(shape).permute(3, 0, 2, 1, 4)  # [B', N, L, D] each
        else:
            shape = (*rows.shape[:2], 3, self.num_heads, -1)
            q, k, v = rows.reshape(shape).permute(2, 0, 3, 1, 4)
        out = attention(q, k, v).transpose(1, 2).reshape(rows.shape[0], -1, c)  # [B', L, C]
        out = _join(out, window, (h, w)).permute(0, 3, 1, 2)
        return residual_sum(x, self.proj_out(out), self.rescale_residual)


def _cut(rows: Tensor, window: tuple[int, int]) -> Tensor:
    """[B, H, W, C] -> [B * windows, L, C]; nothing is copied for one window."""
    b, h, w, c = rows.shape
    wh, ww = window
    if (h, w) == window:
        return rows.reshape(b, h * w, c)
    rows = rows.reshape(b, h // wh, wh, w // ww, ww, c).transpose(2, 3)
    return rows.reshape(-1, wh * ww, c)


def _join(rows: Tensor, window: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The inverse of `_cut` for a map of ``size`` (H, W)."""
    (wh, ww), (h, w), c = window, size, rows.shape[-1]
    rows = rows.reshape(-1, h // wh, w // ww, wh, ww, c).transpose(2, 3)
    return rows.reshape(-1, h, w, c)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention, [B, N, L, D] each; queries and keys together scaled by 1/sqrt(D).

    torch's fused kernel is slower in bfloat16 than two matrix products on a CPU; it is for
    float32, and for what is not on a CPU.
    """
    if q.dtype != torch.bfloat16 or q.device.type != "cpu":
        return softmax_attention(q, k, v)
    most = max(1, _MOST_SCORES // q.shape[2] ** 2)  # heads at once
    if q.shape[0] * q.shape[1] <= most:
        return attention_by_products(q, k, v)
    parts = [
        attention_by_products(*(heads[i, n : n + most] for heads in (q, k, v)))
        for i in range(q.shape[0])
        for n in range(0, q.shape[1], most)
    ]
    return torch.cat(parts).view(q.shape)
