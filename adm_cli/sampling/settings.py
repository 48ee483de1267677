"""From what is asked for to a `Run`: every setting resolved, once, before any work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import PIL
import torch

from adm_cli import __version__
from adm_cli.checkpoints.presets import ENLARGEMENT_FACTOR, ENLARGEMENTS
from adm_cli.checkpoints.sources import (
    Sources,
    check_cfg,
    check_classes,
    check_middle_attention,
    check_stack,
    find_upsampler,
)
from adm_cli.config import SamplingConfig, UNetConfig
from adm_cli.devices import choose_dtype, cpu_threads
from adm_cli.diffusion.modifiers import (
    NEUTRAL,
    OF_EITHER_GUIDANCE,
    OF_GUIDANCE,
    OF_TRAJECTORY,
    Modifiers,
    check_parts,
    modified,
    modifiers,
    option_name,
    unused_parts,
)
from adm_cli.errors import UsageError, one_of
from adm_cli.sampling.choosing.images import Image, Images, mixtures_of
from adm_cli.sampling.defaults import (
    EVERYWHERE,
    choose_sampler,
    choose_schedule,
    common_cfg,
    common_scale,
    resolve,
)
from adm_cli.sampling.drawing.memory import fitting_batch, image_costs, weight_bytes
from adm_cli.sampling.recipes.recipe import stage_config
from adm_cli.sampling.run import Filter, Run, Stage

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class StageOptions(Modifiers):
    """What is asked of a stage; None stands for the preset's."""

    sampler: str | None = None
    steps: str | None = None
    scale: float | None = None
    eta: float | None = None
    clip: bool = True
    guide_interval: Interval | None = None
    entropy_scaling: bool = False
    cfg: float | None = None
    cfg_interval: Interval | None = None
    project: int | None = None  # these two of an upsampler
    noise: float | None = None
    temperature: float | None = None


def distinct_kinds(images: Images) -> list[Image]:
    """One image of each class or mixture, scale and cfg, in their order: for checks of all."""
    firsts = [row.first for row in reversed(images.rows)]
    found = {(one.class_id, one.mixture, one.scale, one.cfg): one for one in firsts}
    return list(reversed(found.values()))


def sampling_config(
    sources: Sources, kinds: Sequence[Image], options: StageOptions
) -> SamplingConfig:
    """The settings that draw these images, resolved; raises UsageError or ConfigError."""
    classes = tuple(image.class_id for image in kinds)
    scale, cfg = options.scale, options.cfg
    if scale is None:
        scale = common_scale(sources, classes, guided=sources.classifier is not None)
    used = scale or next((image.scale for image in kinds if image.scale), 0.0)
    if used != 0 and sources.classifier is None:
        raise UsageError(
            f"--scale {used:g} needs a classifier, and {sources.called} has none: "
            f"pass --classifier, or --scale 0"
        )
    if cfg is None:
        cfg = common_cfg(sources, classes)
    if any(weight not in (None, 1) for weight in (cfg, *(image.cfg for image in kinds))):
        check_cfg(sources, options.negative_class)
    _check_adam(sources, kinds, options)
    check_middle_attention(sources, options)
    if options.weak_scale != 1 and sources.weak is None:
        raise UsageError(f"--weak-scale {options.weak_scale:g} needs a --weak-model")
    config = SamplingConfig(
        seeds=tuple(image.seed for image in kinds),
        classes=classes,
        sampler=options.sampler,
        steps=options.steps,
        scale=scale,
        eta=options.eta,
        clip_denoised=options.clip,
        scales=_own([image.scale for image in kinds], scale),
        mixtures=mixtures_of(kinds),
        guide_interval=options.guide_interval,
        cfg=cfg,
        cfgs=_own([image.cfg for image in kinds], cfg),
        cfg_interval=options.cfg_interval,
        **modifiers(options),
    )
    if options.entropy_scaling and config.guided:
        config = replace(config, entropy_scaling=True)
    if not config.guided:
        config = replace(config, **{name: NEUTRAL[name] for name in OF_GUIDANCE})
    if not config.guided and not config.classifier_free:
        config = replace(config, **{name: NEUTRAL[name] for name in OF_EITHER_GUIDANCE})
    config = resolve(sources, replace(config, **unused_parts(config)))
    choose_sampler(config.sampler, config.eta, config)
    check_classes(sources, config.all_classes)
    return config


def _check_adam(sources: Sources, kinds: Sequence[Image], options: StageOptions) -> None:
    """Raises UsageError for the preset's scale, of a gradient that is no longer as it was."""
    own = any(image.scale is not None for image in kinds)
    if options.guide_adam is not None and sources.classifier and options.scale is None and not own:
        raise UsageError(
            "--guide-adam makes every value of the gradient about 1 large, which the recommended "
            "scale is not for: pass a --scale, such as 0.1"
        )


def check_modifiers(options: StageOptions, configs: Iterable[SamplingConfig]) -> None:
    """Raises UsageError for what would change guidance that no image has."""
    configs = list(configs)
    changed = [name for name in modified(options) if name in OF_GUIDANCE]
    changed += ["guide_interval"] if options.guide_interval is not None else []
    changed += ["entropy_scaling"] if options.entropy_scaling else []
    if changed and not any(config.guided for config in configs):
        raise UsageError(f"{_without(changed)} a classifier's guidance: pass a --scale")
    free = any(config.classifier_free for config in configs)
    either = [name for name in modified(options) if name in OF_EITHER_GUIDANCE]
    if either and not free and not any(config.guided for config in configs):
        raise UsageError(f"{_without(either)} guidance: pass --scale or --cfg")
    check_parts(options)
    if options.cfg_interval is not None and not free:
        raise UsageError("--cfg-interval says where --cfg guides, and that is off: pass a --cfg")


def _without(names: Sequence[str]) -> str:
    """ "--guide-by has no meaning without", of one or several settings."""
    has = "has" if len(names) == 1 else "have"
    return f"{one_of(map(option_name, names), 'and')} {has} no meaning without"


def _own(values: list[float | None], common: float) -> tuple[float, ...] | None:
    """A value for each image, ``common`` where it has none; None where none has."""
    if all(value is None for value in values):
        return None
    return tuple(common if value is None else value for value in values)


def enlarging_config(
    sources: Sources, kinds: Sequence[Image], options: StageOptions
) -> SamplingConfig:
    """An upsampler's settings; what is not given is the stack's it belongs to, or the model's.

    Raises UsageError or ConfigError for what does not fit the model.
    """
    check_parts(options)
    config = SamplingConfig(
        seeds=tuple(image.seed for image in kinds),
        classes=tuple(image.class_id for image in kinds),
        mixtures=mixtures_of(kinds),
        sampler=options.sampler,
        scale=0.0,
        cfg=1.0,
        steps=options.steps,
        eta=options.eta,
        clip_denoised=options.clip,
        project=options.project,
        low_res_noise=options.noise,
        **{name: getattr(options, name) for name in OF_TRAJECTORY},
    )
    config = resolve(sources, config)
    choose_sampler(config.sampler, config.eta, config)
    if sources.classes:
        check_classes(sources, config.all_classes)
    return config


@dataclass(frozen=True)
class Machine:
    """Where a run is computed."""

    device: torch.device
    dtype: str = "auto"  # as `devices.choose_dtype` takes it
    batch_size: int | None = None  # None: as many as fit, at most 16
    plain: bool = False  # the networks as written: see `sampling.drawing.pipeline.load_pipeline`
    workers: int = 1  # processes that share the run and the CPU

    def precision(self, sources: Sources) -> torch.dtype:
        """Of a stage's model here."""
        return choose_dtype(self.dtype, self.device, use_fp16=sources.model.info.config.use_fp16)


def make_stage(sources: Sources, config: SamplingConfig, machine: Machine) -> Stage:
    """A stage of resolved settings; raises ConfigError for steps that cannot be."""
    assert config.sampler is not None
    assert config.scale is not None
    assert config.cfg is not None
    assert config.project is not None
    info = sources.model.info
    guide = sources.classifier if config.guided else None
    weak = sources.weak if config.weak_scale != 1 else None
    return Stage(
        model=sources.model_name,
        model_sha256=sources.model.content_sha256,
        classifier=None if guide is None else guide.name,
        classifier_sha256=None if guide is None else guide.content_sha256,
        weak_model=None if weak is None else weak.name,
        weak_model_sha256=None if weak is None else weak.content_sha256,
        upsampler=info.kind == "upsampler",
        scale=config.scale,
        cfg=config.cfg,
        guide_interval=_unless_everywhere(config.guide_interval),
        cfg_interval=_unless_everywhere(config.cfg_interval),
        entropy_scaling=config.entropy_scaling,
        sampler=config.sampler,
        steps=config.steps if config.steps is not None else info.diffusion.respacing or "",
        num_steps=len(choose_schedule(info.diffusion, config.steps, config.spacing)),
        eta=config.eta,
        clip_denoised=config.clip_denoised,
        project=config.project,
        low_res_noise=config.low_res_noise,
        **modifiers(config),
        size=info.config.image_size,
        dtype=str(machine.precision(sources)).removeprefix("torch."),  # type: ignore[arg-type]
        plain=machine.plain,
    )


def _unless_everywhere(interval: Interval | None) -> Interval | None:
    return None if interval == EVERYWHERE else interval


@dataclass(frozen=True)
class Upsampling:
    """The second stage of a stack, and the weights of its network, if it has one."""

    stage: Stage | Filter
    sources: Sources | None


def find_upsampling(
    base: Sources,
    kinds: Sequence[Image],
    name: str | Path | None,
    options: StageOptions,
    machine: Machine,
) -> Upsampling | None:
    """The upsampler that was asked for, or the preset's; None where there is neither.

    Raises as `sources.find_upsampler`, and UsageError if it does not fit ``base`` or takes no
    settings.
    """
    if name is None and base.preset is not None:
        name = base.preset.upsampler
    if name is None:
        return None
    if isinstance(name, str) and name in ENLARGEMENTS:
        if replace(options, clip=True) != StageOptions():
            raise UsageError(
                f"{name} enlarges without sampling: leave out the other --upsample-... options, "
                f"or pass an --upsampler that has them, such as tiny_upsampler"
            )
        height, width = base.model.info.config.image_size
        return Upsampling(
            Filter(model=name, size=(ENLARGEMENT_FACTOR * height, ENLARGEMENT_FACTOR * width)), None
        )
    sources = find_upsampler(name)
    check_stack(base, sources)
    config = enlarging_config(sources, kinds, options)
    return Upsampling(make_stage(sources, config, machine), sources)


def make_run(
    stages: Sequence[Stage | Filter],
    sources: Sequence[Sources],
    images: Images,
    machine: Machine,
    format: str,
    *,
    metadata: bool = True,
) -> Run:
    """A run of resolved stages; ``sources`` are the weights of those that have any."""
    size, chosen = machine.batch_size, ["threads", *(["metadata"] if metadata else [])]
    if size is None:
        size = _batch_size(stages, sources, images, machine)
        chosen.append("batch_size")
    assert isinstance(stages[0], Stage)
    stage_config(stages[0], distinct_kinds(images), size)  # raises for what cannot be
    busy = min(machine.workers, -(-len(images) // size))
    return Run(
        stages=tuple(stages),
        images=images,
        device=machine.device.type,
        threads=cpu_threads(machine.device, busy),
        batch_size=size,
        format=format,
        versions=current_versions(stages),
        metadata=metadata,
        chosen=tuple(chosen),
    )


def current_versions(stages: Sequence[Stage | Filter]) -> dict[str, str]:
    """Of the programs that draw these stages."""
    versions = {"adm": __version__, "torch": torch.__version__}
    if isinstance(stages[-1], Filter):
        versions["pillow"] = PIL.__version__
    return versions


def _batch_size(
    stages: Sequence[Stage | Filter],
    sources: Sequence[Sources],
    images: Images,
    machine: Machine,
) -> int:
    """As many as fit beside the weights, in each of the stages."""
    costs: list[int] = []
    weights = 0
    for stage, source in zip(stages, sources, strict=False):
        assert isinstance(stage, Stage)
        own, each = stage_bytes(stage, source, images)
        weights, costs = max(weights, own), costs + each
    return fitting_batch(
        costs, machine.device, len(images), weights=weights, processes=machine.workers
    )


def stage_bytes(stage: Stage, sources: Sources, images: Images) -> tuple[int, list[int]]:
    """Bytes of a stage's weights, and of one image's activations in each of its networks."""
    guided, parts = stage.classifier is not None, most_parts(images)
    free = uses_cfg(stage, images)
    costs = image_costs(sources, guided=guided, classifier_free=free, parts=parts)
    return weight_bytes(sources, stage_dtype(stage), guided=guided), costs


def stage_dtype(stage: Stage) -> torch.dtype:
    found: torch.dtype = getattr(torch, stage.dtype)
    return found


def uses_cfg(stage: Stage, images: Images) -> bool:
    """Whether any image is guided by the model itself."""
    if stage.upsampler:
        return False
    return stage.cfg != 1 or any(row.first.cfg not in (None, 1) for row in images.rows)


def most_parts(images: Images) -> int:
    """Classes of the image that has most."""
    return max(len(row.first.class_ids) for row in images.rows)


def low_res_size(sources: Sources) -> tuple[int, int]:
    """Height and width of what an upsampler enlarges."""
    config = sources.model.info.config
    assert isinstance(config, UNetConfig)
    assert config.low_res_size is not None
    return config.low_res_size
