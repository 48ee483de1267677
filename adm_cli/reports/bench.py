"""How fast networks compute here, and how near that is to what the machine can do.

The public name is `bench`; the module has another, so that neither hides the other.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from adm_cli.checkpoints.finding import find_weights
from adm_cli.checkpoints.loading import Model, build_model, hasten_on_cpu, load_model
from adm_cli.checkpoints.presets import ENLARGEMENTS, PRESETS, find_checkpoint, find_preset
from adm_cli.checkpoints.sources import Sources, find_sources, find_upsampler
from adm_cli.config import MOST_BATCH, ClassifierConfig, DiffusionConfig, UNetConfig
from adm_cli.devices import (
    choose_device,
    choose_dtype,
    enough_memory,
    own_threads,
    peak_bytes,
    reproducible_kernels,
    send,
    use_threads,
)
from adm_cli.diffusion.guidance import classifier_gradient, classifier_guidance
from adm_cli.diffusion.samplers import ddpm_sample
from adm_cli.errors import UsageError, trim
from adm_cli.files.strict import type_checked
from adm_cli.models.classifier import NoisyClassifier
from adm_cli.models.cost import forward_gflops
from adm_cli.models.fast import can_pack, convolve_packed, pack
from adm_cli.models.unet import SuperResUNet, UNet
from adm_cli.sampling.defaults import choose_schedule, recommended
from adm_cli.sampling.drawing.memory import classifier_dtype

_ROUNDS = 5
_SPREAD = 0.02  # of random weights: small, so that activations neither vanish nor overflow
# Side and channels of a 3x3 convolution, and side of a matrix product, large enough to reach what
# the machine can do: multiplied for a GPU.
_CONVOLUTION, _PRODUCT, _GPU_FACTOR = (64, 256), 1024, 8


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One network of a model at one dtype, batch size and number of threads; medians.

    Milliseconds are of a whole batch. ``gflop`` is what an evaluation of it takes, 2 a
    multiply-add, counted; rates are GFLOP/s. ``of_convolutions`` is the evaluation's rate as a
    part of that of one large convolution of the same dtype, measured in turn with it, and
    ``gradient_of_convolutions`` so. A step is one of DDPM, guided where there is a classifier, and
    ``images_per_second`` what ``steps`` of them come to. ``peak_gb`` is the most memory that the
    device, or this process on a CPU, has used until then.
    """

    model: str
    classifier: str | None
    device: str
    dtype: str
    batch: int
    threads: int | None
    plain: bool
    unet_ms: float
    gradient_ms: float | None
    step_ms: float
    steps: int
    images_per_second: float
    gflop: float
    gradient_gflop: float | None
    rate: float
    gradient_rate: float | None
    convolution_rate: float
    product_rate: float
    of_convolutions: float
    gradient_of_convolutions: float | None
    peak_gb: float


@dataclass(frozen=True)
class _Part:
    """A network to measure, and how to make it and its classifier in some dtype."""

    name: str
    config: UNetConfig
    classifier: str | None
    diffusion: DiffusionConfig
    steps: str | None
    make: Callable[[str, torch.dtype], Model]  # by the name of either

    def shape(self) -> tuple[int, ...]:
        return (self.config.in_channels, *self.config.image_size)


@type_checked
def bench(
    model: str | Path = "tiny",
    classifier: str | Path | None = None,
    random_weights: bool = False,
    unguided: bool = False,
    device: str = "auto",
    dtype: str | Sequence[str] = "auto",
    batch_size: int | str | Sequence[int] = "1,4,16",
    threads: int | str | Sequence[int] | None = None,
    plain: bool = False,
    compare: bool = False,
    seconds: float = 1.0,
) -> Iterator[Speed]:
    """Measures a model, its classifier and, of a stack, its upsampler: a row at a time.

    As ``adm bench``, whose options these are: ``dtype``, ``batch_size`` and ``threads`` also take
    lists. ``model`` is a preset, checkpoint or file, also an upsampler's; with ``random_weights`` a
    preset or checkpoint whose weights need not be here. What is measured of a row is measured in
    turn, ``seconds`` long in all for each quantity, after one round to warm up. ``compare``
    measures each row a second time in turn with the first, by the reference path of
    `load_pipeline`'s ``plain``.

    Raises UsageError for an unknown or unfit model, dtype, device, or number; and as `load_model`.
    """
    batches = _numbers("batch size", batch_size, MOST_BATCH)
    counts = [None] if threads is None else _numbers("threads", threads)
    if not 0 < seconds <= 3600:
        raise UsageError(f"--seconds {seconds:g}: expected more than 0, at most 3600")
    where = choose_device(device)
    parts = _parts(model, classifier, random_weights=random_weights, guided=not unguided)
    paths = (False, True) if compare else (plain,)
    with enough_memory(where, "these weights and batches", "pass a smaller --batch-size"):
        for part in parts:
            for name in dtype.split(",") if isinstance(dtype, str) else dtype:
                compute = choose_dtype(name, where, use_fp16=part.config.use_fp16)
                subjects = [_Subject(part, where, compute, plain=path) for path in paths]
                for count in counts:
                    with own_threads():
                        if not use_threads(count):
                            raise UsageError(f"--threads {count}: too many for this machine")
                        for batch in batches:
                            yield from _measure(subjects, batch, seconds)
                del subjects  # a dtype at a time in memory


def _numbers(name: str, given: int | str | Sequence[int], most: float = math.inf) -> list[int]:
    """One or several whole numbers from 1 to ``most``; raises UsageError."""
    try:
        parts = given.split(",") if isinstance(given, str) else given
        found = [parts] if isinstance(parts, int) else [int(part) for part in parts]
    except ValueError:
        found = []
    if not found or min(found) < 1 or max(found) > most:
        limit = "" if most == math.inf else f" to {most}"
        raise UsageError(f"{name} {trim(given)}: expected whole numbers from 1{limit}, such as 1,4")
    return found


def _parts(
    model: str | Path, classifier: str | Path | None, *, random_weights: bool, guided: bool
) -> list[_Part]:
    """The model with its classifier and, for a stack's preset, the upsampler."""
    preset = find_preset(model)
    upsampler = None if preset is None or str(model) != preset.name else preset.upsampler
    upsampler = None if upsampler in ENLARGEMENTS else upsampler
    if not random_weights:
        parts = [_part(_sources(model, classifier, guided=guided))]
        return [*parts, _part(find_upsampler(model))] if upsampler else parts
    guide = None if preset is None else preset.classifier
    guide = guide if classifier is None else str(classifier)
    name = str(model) if preset is None else preset.model
    alone = next((row.upsampler_steps for row in PRESETS if row.upsampler == name), None)
    steps = alone if preset is None else preset.steps
    parts = [_random_part(name, guide if guided else None, steps)]
    if preset is not None and upsampler is not None:
        parts.append(_random_part(upsampler, None, preset.upsampler_steps))
    return parts


def _sources(model: str | Path, classifier: str | Path | None, *, guided: bool) -> Sources:
    """Of a model and its classifier, or of an upsampler, which nothing guides."""
    if classifier is None and find_weights(model).info.kind == "upsampler":
        return find_upsampler(model)
    return find_sources(model, classifier, guided=guided)


def _part(sources: Sources) -> _Part:
    def make(name: str, dtype: torch.dtype) -> Model:
        guide = name == sources.classifier_name and sources.classifier is not None
        return load_model(sources.classifier if guide else sources.model, dtype=dtype)  # type: ignore[arg-type]

    info = sources.model.info
    assert isinstance(info.config, UNetConfig)
    return _Part(
        sources.model_name, info.config, sources.classifier_name, info.diffusion,
        recommended(sources).steps, make,
    )  # fmt: skip


def _random_part(name: str, classifier: str | None, steps: str | None) -> _Part:
    """Of checkpoints' architectures; raises UsageError for other names."""
    row = find_checkpoint(name)
    if isinstance(row.config, ClassifierConfig):
        raise UsageError(f"{name} is a classifier: pass the model that it guides")

    def make(which: str, dtype: torch.dtype) -> Model:
        return random_model(find_checkpoint(which).config, dtype)

    return _Part(name, row.config, classifier, row.diffusion, steps, make)


def random_model(config: UNetConfig | ClassifierConfig, dtype: torch.dtype) -> Model:
    """A network of small random weights in its dtypes, on the CPU; never there twice."""
    with torch.device("meta"):
        model = build_model(config)
    model.set_dtype(dtype)
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(0, _SPREAD, generator=generator)
    return model.eval().requires_grad_(False)


class _Subject:
    """The networks of a part on a device, by one path."""

    def __init__(
        self, part: _Part, device: torch.device, dtype: torch.dtype, *, plain: bool
    ) -> None:
        self.part, self.device, self.dtype, self.plain = part, device, dtype, plain
        self.real = torch.float64 if dtype == torch.float64 else torch.float32
        self.net = self._place(part.make(part.name, dtype))
        self.guide: Model | None = None
        if part.classifier is not None:
            self.guide = self._place(part.make(part.classifier, classifier_dtype(dtype)))
        assert isinstance(self.net, UNet)
        assert self.guide is None or isinstance(self.guide, NoisyClassifier)

    def _place(self, model: Model) -> Model:
        model.to(self.device)
        if not self.plain:
            hasten_on_cpu(model, self.device)
        return model

    def quantities(self, batch: int) -> dict[str, Callable[[], object]]:
        """What is timed, by name; a step goes round the schedule for ever."""
        generator = torch.Generator().manual_seed(0)

        def noise(shape: Sequence[int]) -> Tensor:  # made on the CPU, as where pictures are drawn
            made = torch.randn(*shape, generator=generator, device="cpu")
            return send(made, self.device, self.real)

        x = noise((batch, *self.part.shape()))
        t = torch.full((batch,), self.part.diffusion.num_timesteps // 2, device=self.device)
        y = torch.zeros_like(t)
        net, guide = self._labelled(x, y), self.guide
        schedule = choose_schedule(self.part.diffusion, self.part.steps)
        steps = _for_ever(
            lambda: ddpm_sample(
                net,
                schedule,
                x,
                noise=lambda _i, like: noise(like.shape),
                guidance=None if guide is None else classifier_guidance(guide, y, 1.0),
                prediction=self.part.diffusion.prediction,
                variance=self.part.diffusion.variance,
            )
        )
        found: dict[str, Callable[[], object]] = {
            "unet": torch.no_grad()(lambda: net(x, t)),
            "step": lambda: next(steps),
        }
        if guide is not None:
            found["gradient"] = lambda: classifier_gradient(guide, x, t, y)
        return found

    def _labelled(self, x: Tensor, y: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        net, labels = self.net, y if self.part.config.num_classes is not None else None
        if isinstance(net, SuperResUNet):
            assert self.part.config.low_res_size is not None
            small = x.new_zeros(*x.shape[:2], *self.part.config.low_res_size)
            return lambda x, t: net(x, t, labels, small)
        return lambda x, t: net(x, t, labels)


def _for_ever(start: Callable[[], Iterator[object]]) -> Iterator[object]:
    while True:
        yield from start()


def _measure(subjects: Sequence[_Subject], batch: int, seconds: float) -> Iterator[Speed]:
    """The rows of some subjects that differ in their path alone, all quantities in turn."""
    first = subjects[0]
    device, dtype = first.device, first.dtype
    ceilings = _ceilings(device, dtype)
    jobs: list[dict[str, Callable[[], object]]] = [s.quantities(batch) for s in subjects]
    jobs.append({name: call for name, (call, _) in ceilings.items()})
    times: list[dict[str, list[float]]] = [{name: [] for name in job} for job in jobs]
    with reproducible_kernels():
        for round_ in range(_ROUNDS + 1):
            for job, found in zip(jobs, times, strict=True):
                for name, call in job.items():
                    took = _time(call, device, seconds / _ROUNDS if round_ else 0)
                    if round_:
                        found[name].append(took)
    medians = [{n: statistics.median(v) for n, v in found.items()} for found in times]
    rates = {name: flop / medians[-1][name] / 1e9 for name, (_, flop) in ceilings.items()}
    for subject, middle in zip(subjects, medians[:-1], strict=True):
        yield _row(subject, batch, middle, rates)


def _time(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Seconds a call, over as many as last ``seconds``, at least one."""
    started, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - started < seconds:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        calls += 1
    return (time.perf_counter() - started) / calls


def _ceilings(
    device: torch.device, dtype: torch.dtype
) -> dict[str, tuple[Callable[[], object], float]]:
    """A large convolution and a large matrix product in ``dtype``, and their operations."""
    side, channels = _CONVOLUTION
    factor = _GPU_FACTOR if device.type != "cpu" else 1
    images, size = factor * factor, _PRODUCT * factor
    x = torch.ones(images, channels, side, side, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.ones(channels, channels, 3, 3, device=device, dtype=dtype) / channels
    convolve: Callable[[], object] = lambda: torch.conv2d(x, weight, padding=1)  # noqa: E731
    if device.type == "cpu" and can_pack(dtype):
        packed = pack(weight, x)
        convolve = lambda: convolve_packed(x, packed, None)  # noqa: E731
    a = torch.ones(size, size, device=device, dtype=dtype) / size
    return {
        "convolution": (convolve, 2.0 * images * (side * channels * 3) ** 2),
        "product": (lambda: a @ a, 2.0 * size**3),
    }


def _row(
    subject: _Subject, batch: int, seconds: dict[str, float], ceilings: dict[str, float]
) -> Speed:
    part, gradient = subject.part, seconds.get("gradient")
    steps = len(choose_schedule(part.diffusion, part.steps))
    gflop = batch * evaluation_gflop(part.config)
    guide = subject.guide
    gradient_gflop = None if guide is None else batch * gradient_gflop_of(guide.config)
    gradient_rate = gradient_gflop / gradient if gradient and gradient_gflop else None
    top = ceilings["convolution"]
    return Speed(
        model=part.name,
        classifier=part.classifier,
        device=subject.device.type,
        dtype=str(subject.dtype).removeprefix("torch."),
        batch=batch,
        threads=torch.get_num_threads() if subject.device.type == "cpu" else None,
        plain=subject.plain,
        unet_ms=1e3 * seconds["unet"],
        gradient_ms=None if gradient is None else 1e3 * gradient,
        step_ms=1e3 * seconds["step"],
        steps=steps,
        images_per_second=batch / (steps * seconds["step"]),
        gflop=gflop,
        gradient_gflop=gradient_gflop,
        rate=gflop / seconds["unet"],
        gradient_rate=gradient_rate,
        convolution_rate=top,
        product_rate=ceilings["product"],
        of_convolutions=gflop / seconds["unet"] / top,
        gradient_of_convolutions=None if gradient_rate is None else gradient_rate / top,
        peak_gb=peak_bytes(subject.device) / 1e9,
    )


@cache
def evaluation_gflop(config: UNetConfig | ClassifierConfig) -> float:
    """GFLOP of a network's output for one image."""
    with torch.device("meta"):
        return forward_gflops(build_model(config))


@cache
def gradient_gflop_of(config: UNetConfig | ClassifierConfig) -> float:
    """GFLOP of a classifier's output and of the gradient of the image, for one image."""
    with torch.device("meta"):
        twin = build_model(config).requires_grad_(False)
        x = torch.zeros(1, config.in_channels, *config.image_size, requires_grad=True)
        t = torch.zeros(1, dtype=torch.int64)
        with FlopCounterMode(display=False) as counter:
            twin(x, t).sum().backward()
    return float(counter.get_total_flops()) / 1e9
