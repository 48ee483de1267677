"""From a preset or files to batches of images: `load_pipeline`, then `generate` or `enlarge`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from adm_cli.checkpoints.loading import hasten_on_cpu, load_model
from adm_cli.checkpoints.sources import (
    Sources,
    check_cfg,
    check_classes,
    check_middle_attention,
    find_sources,
)
from adm_cli.config import DiffusionConfig, SamplingConfig
from adm_cli.devices import (
    choose_device,
    choose_dtype,
    out_of_memory,
    reproducible_kernels,
    send,
)
from adm_cli.diffusion.editing import guiding, keeping
from adm_cli.diffusion.finite import FiniteWatch
from adm_cli.diffusion.modifiers import OF_TRAJECTORY, modified
from adm_cli.diffusion.noise import Toward
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.diffusion.steps import Sampler, SampleStep
from adm_cli.errors import ConfigError, DeviceError, UsageError, how_many, size_words
from adm_cli.files.strict import check_type, type_checked
from adm_cli.models.alike import compute_alike
from adm_cli.models.classifier import NoisyClassifier
from adm_cli.models.unet import SuperResUNet, UNet
from adm_cli.sampling.defaults import choose_sampler, choose_schedule, remarks, resolve
from adm_cli.sampling.drawing.batch import ImageBatch, finished_batch, refuse_overflow
from adm_cli.sampling.drawing.conditioning import (
    Pictures,
    enlarging,
    finished,
    for_classes,
    for_source,
    own_noise,
    read_small,
)
from adm_cli.sampling.drawing.edited_batch import EditedBatch
from adm_cli.sampling.drawing.guiding import (
    GuidanceKind,
    guidance_kind,
    guided_to,
    modified_model,
    predicted_start,
    thresholding,
)
from adm_cli.sampling.drawing.labels import Parts
from adm_cli.sampling.drawing.memory import classifier_dtype, fitting_batch, image_costs


@dataclass(frozen=True)
class Pipeline:
    """A diffusion model and perhaps its classifier, or an upsampler, ready to sample."""

    sources: Sources
    model: UNet
    classifier: NoisyClassifier | None
    device: torch.device
    dtype: torch.dtype
    weak: UNet | None = None  # what autoguidance leads away from

    def __repr__(self) -> str:
        """``<Pipeline tiny: diffusion of 32x32, 10 classes, a classifier; cpu, float32>``"""
        info = self.sources.model.info
        facts = [f"{info.kind} of {size_words(info.config.image_size)}"]
        if classes := self.sources.classes:
            facts.append(how_many(len(classes), "class", "classes"))
        facts += ["a classifier"] if self.classifier is not None else []
        facts += ["a weak model"] if self.weak is not None else []
        where = f"{self.device}, {str(self.dtype).removeprefix('torch.')}"
        return f"<Pipeline {self.sources.called}: {', '.join(facts)}; {where}>"

    @property
    def diffusion(self) -> DiffusionConfig:
        return self.sources.model.info.diffusion


@type_checked
def load_pipeline(
    model: str | Path | Sources = "tiny",
    classifier: str | Path | None = None,
    *,
    guided: bool = True,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    plain: bool = False,
    weak_model: str | Path | None = None,
) -> Pipeline:
    """Loads what `find_sources` finds (or found). ``device`` "auto" is CUDA, MPS or CPU.

    ``dtype`` "auto" is float32, or float16 on CUDA for models published so. With a float16 torso
    the classifier stays float32, as in the original: its gradient would underflow.

    On a CPU the networks are changed to compute faster, their weights laid out for that as they
    are first used (`adm_cli.models.fast`); ``plain`` leaves them as they are.
    """
    sources = (
        model
        if isinstance(model, Sources)
        else find_sources(model, classifier, guided=guided, weak=weak_model)
    )
    where = choose_device(device)
    compute = choose_dtype(dtype, where, use_fp16=sources.model.info.config.use_fp16)
    return load_stage(sources, where, compute, guided=guided, plain=plain)


def load_stage(
    sources: Sources, where: torch.device, compute: torch.dtype, *, guided: bool, plain: bool
) -> Pipeline:
    """As `load_pipeline`, on a device and in a precision that are chosen."""
    net, guide = load_model(sources.model, device=where, dtype=compute), None
    if guided and sources.classifier is not None:
        guide = load_model(sources.classifier, device=where, dtype=classifier_dtype(compute))
    weak = None if sources.weak is None else load_model(sources.weak, device=where, dtype=compute)
    assert isinstance(net, UNet) and (guide is None or isinstance(guide, NoisyClassifier))  # noqa: PT018
    assert weak is None or isinstance(weak, UNet)
    for model in (net, guide, weak):
        if model is not None and where.type == "cpu":
            compute_alike(model)
            if not plain:
                hasten_on_cpu(model, where)
    return Pipeline(sources, net, guide, where, compute, weak)


def generate(
    pipeline: Pipeline,
    config: SamplingConfig,
    *,
    on_step: Callable[[SampleStep], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Iterator[ImageBatch]:
    """Draws the images of ``config``, in order, a batch at a time.

    Each image's randomness comes from a generator of its own, seeded by its own seed, and every
    batch is padded to the same size, so an image does not depend on its neighbours. Guided and
    unguided images (scale 0, or cfg 1) share no batch: the others' guidance would change their
    rounding. Out of memory, the batch is halved and drawing goes on. ``on_step`` sees every
    sampling step (the padding included), ``on_note`` what a person should know.

    Raises ConfigError or UsageError for settings that do not fit the model, DeviceError where not
    even one image fits into memory, and, after the last batch, NotFiniteError for images that are
    not finite (`ImageBatch.finite`).
    """
    _check_types(pipeline, config)
    if isinstance(pipeline.model, SuperResUNet):
        raise UsageError(
            f"{pipeline.sources.called} is an upsampler: it enlarges pictures, with "
            f"enlarge(pipeline, pictures, config)"
        )
    if config.project or config.low_res_noise is not None:
        raise ConfigError("only an upsampler takes project and low_res_noise: leave them out")
    return _told(_draw(pipeline, config, None, on_note), on_step, on_note)


def enlarge(
    pipeline: Pipeline,
    pictures: Pictures,
    config: SamplingConfig,
    *,
    on_step: Callable[[SampleStep], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Iterator[ImageBatch]:
    """Enlarges ``pictures``, in order, a batch at a time (arXiv 2105.05233, section 5.3).

    ``config`` holds a seed and a class for every picture, and no guidance: the paper guides the
    small model alone. An image's noise comes from `upsampling_seed` of its seed; all else is as
    in `generate`.

    Raises as `generate`, and UsageError if ``pipeline`` holds no upsampler or a picture has
    another size than the upsampler's input.
    """
    _check_types(pipeline, config)
    if not isinstance(pipeline.model, SuperResUNet):
        raise UsageError(
            f"{pipeline.sources.called} is no upsampler: expected one, as "
            f'load_pipeline(find_upsampler("tiny_upsampler")) loads it'
        )
    guiding_too = modified(config).keys() - OF_TRAJECTORY
    if config.guided or config.classifier_free or guiding_too:
        also = "".join(f", and no {name}" for name in sorted(guiding_too))
        raise ConfigError(f"an upsampler takes no guidance: the scale must be 0, and cfg 1{also}")
    if len(pictures) != len(config.seeds):
        one = getattr(pictures, "ndim", 4) == 3
        raise ConfigError(
            f"{how_many(len(config.seeds), 'seed')} for {how_many(len(pictures), 'picture')}"
            f"{': a single one is [picture]' if one else ''}"
        )
    return _told(_draw(pipeline, config, pictures, on_note), on_step, on_note)


def _check_types(pipeline: Pipeline, config: SamplingConfig) -> None:
    check_type("pipeline", pipeline, Pipeline)
    check_type("config", config, SamplingConfig)


class Edits(Protocol):
    """Pictures that are edited, by index."""

    def batch(self, first: int, count: int, size: int, /) -> EditedBatch: ...


def _draw(
    pipeline: Pipeline,
    config: SamplingConfig,
    pictures: Pictures | None,
    on_note: Callable[[str], None] | None,
) -> Iterator[SampleStep | ImageBatch | str]:
    """Checks and resolves the settings, then as `draw_batches`."""
    config = resolve(pipeline.sources, config, guided=pipeline.classifier is not None)
    schedule = choose_schedule(pipeline.diffusion, config.steps, config.spacing)
    sampler = choose_sampler(config.sampler, config.eta, config, len(schedule))
    if on_note is not None:
        for text in remarks(config, pipeline.diffusion):
            on_note(text)
    if pictures is None or pipeline.model.config.num_classes is not None:
        check_classes(pipeline.sources, config.all_classes)  # else labels only pass through
    if config.classifier_free:
        check_cfg(pipeline.sources, config.negative_class)
    check_middle_attention(pipeline.sources, config)
    if config.weak_scale != 1 and pipeline.weak is None:
        raise UsageError("a weak_scale needs a weak model: load_pipeline(weak_model=...)")
    if config.batch_size is None:
        costs = image_costs(
            pipeline.sources,
            guided=pipeline.classifier is not None,
            classifier_free=config.classifier_free,
            parts=config.most_parts,
        )
        size = fitting_batch(costs, pipeline.device, len(config.seeds))
        config = replace(config, batch_size=size)
    yield from draw_batches(pipeline, config, schedule, sampler, pictures)


def _told(
    batches: Iterator[SampleStep | ImageBatch | str],
    on_step: Callable[[SampleStep], None] | None,
    on_note: Callable[[str], None] | None,
) -> Iterator[ImageBatch]:
    """The batches alone; the rest goes to whoever wants it. Refuses overflow at the end."""
    done, overflowed = 0, []
    for found in batches:
        if isinstance(found, ImageBatch):
            done += len(found.seeds)
            overflowed += found.not_finite()
            yield found
        elif isinstance(found, str):
            if on_note is not None:
                on_note(found)
        elif on_step is not None:
            on_step(found)
    refuse_overflow(overflowed, done)


def draw_batches(
    pipeline: Pipeline,
    config: SamplingConfig,
    schedule: NoiseSchedule,
    sampler: Sampler,
    pictures: Pictures | None = None,
    edits: Edits | None = None,
    toward: Sequence[Toward] | None = None,
) -> Iterator[SampleStep | ImageBatch | str]:
    """Every sampling step and every batch of images; where memory runs out, a word about that.

    ``config`` is resolved, its batch size too, and fits ``pipeline``. ``edits`` are what the images
    are made of, or keep a part of, if anything; ``toward`` where each image's noise is on its way.
    """
    assert config.batch_size is not None
    size, scales, cfgs = config.batch_size, config.image_scales, config.image_cfgs
    parts = config.image_parts
    kinds = list(map(guidance_kind, scales, cfgs, map(len, parts)))
    done = 0
    while done < len(config.seeds):
        end = _batch_end(kinds, done, size)
        seeds, labels = config.seeds[done:end], parts[done:end]
        own, weights = scales[done:end], cfgs[done:end]
        missing = size - len(seeds)
        small = (
            None
            if pictures is None
            else read_small(pipeline.sources, pictures, done, len(seeds), size)
        )
        edit = None if edits is None else edits.batch(done, len(seeds), size)
        ways = None if toward is None else [*toward[done:end], *[toward[end - 1]] * missing]
        try:
            x = yield from _sample_batch(
                pipeline, config, sampler, schedule,
                (*seeds, *[seeds[-1]] * missing), (*labels, *[labels[-1]] * missing),
                (*own, *[own[-1]] * missing), (*weights, *[weights[-1]] * missing),
                small, edit, ways,
            )  # fmt: skip
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if size == 1:
                raise DeviceError(
                    f"not enough memory on {pipeline.device} for a single image: "
                    f"try --dtype bfloat16, a smaller model or another --device"
                ) from None
            size //= 2
            yield f"out of memory: going on with batches of {size}"
            continue
        classes = tuple(config.classes[done:end])
        done += len(seeds)
        yield finished_batch(x[: len(seeds)], classes, tuple(seeds), size, own, weights)


def _batch_end(kinds: Sequence[GuidanceKind], start: int, size: int) -> int:
    """Where the batch that begins at ``start`` ends: full, or guidance begins or ends there."""
    end = start + 1
    while end < min(start + size, len(kinds)) and kinds[end] == kinds[start]:
        end += 1
    return end


def _sample_batch(
    pipeline: Pipeline,
    config: SamplingConfig,
    sampler: Sampler,
    schedule: NoiseSchedule,
    seeds: Sequence[int],
    parts: Sequence[Parts],
    scales: Sequence[float],
    cfgs: Sequence[float],
    small: Tensor | None,  # [N, 3, h, w], what an upsampler enlarges
    edit: EditedBatch | None,
    toward: Sequence[Toward] | None,
) -> Generator[SampleStep, None, Tensor]:
    """Every step; returns the last one's x, NaN where an image is not finite."""
    model = pipeline.model
    real = torch.float64 if pipeline.dtype == torch.float64 else torch.float32
    shape = (model.config.in_channels, *model.config.image_size)
    own = own_noise(seeds, toward, shape, enlarges=small is not None)
    temperature = 1.0 if config.temperature is None else config.temperature

    def draw() -> Tensor:
        return own() * temperature

    def noise(_i: int, like: Tensor) -> Tensor:
        return send(draw(), like.device, like.dtype)

    pred_xstart = predicted_start(schedule, pipeline.diffusion, config)
    guidance = None
    if scales[0] != 0:  # then none is
        guidance = guided_to(
            pipeline.classifier, pipeline.diffusion, config, parts, scales, real,
            schedule if edit is None else edit.walked(schedule), pred_xstart,
        )  # fmt: skip
    low_res = None if small is None else send(small, pipeline.device, real)
    net = enlarging(model, config, seeds, low_res)
    x_T = send(draw(), pipeline.device, real)
    x, watch = x_T, FiniteWatch()
    edit, denoised_fn = None if edit is None else edit.to(x_T), thresholding(config)
    if edit is not None and edit.drawn is not None:
        denoised_fn = keeping(edit.x_0, edit.drawn, denoised_fn)
        guidance = None if guidance is None else guiding(guidance, edit.drawn)
    model_fn = for_classes(
        net, model, pipeline.diffusion, config, parts, cfgs, pipeline.weak, schedule
    )
    model_fn = modified_model(model_fn, schedule, pipeline.diffusion, config)
    if config.classifier_on == "x0":
        model_fn = pred_xstart.watched(model_fn)
    sampling = partial(
        sampler,
        watch.watched(model_fn),
        noise=noise,
        guidance=None if guidance is None else watch.watched(guidance),
        prediction=pipeline.diffusion.prediction,
        variance=pipeline.diffusion.variance,
        clip_denoised=config.clip_denoised,
        denoised_fn=denoised_fn,
    )
    steps = sampling(schedule, x_T)
    if edit is not None:
        source = for_source(net, model, pipeline.diffusion, config, parts, edit.how)
        steps = edit.steps(
            sampling, schedule, x_T, noise=noise, backwards=watch.watched(source),
            diffusion=pipeline.diffusion,
        )  # fmt: skip
    with reproducible_kernels():
        for step in steps:
            if step.i == 0:
                step = step._replace(x=finished(step.x, low_res, config, edit))
            x = step.x
            yield step
    return watch.marked(x)
