"""The second stage of a stack: which upsampler, how it samples, and drawing with both models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adm_cli.commands.drawing import Batch, Draw, OnStep, Telling, draw_into, sampled
from adm_cli.commands.enlarging import (
    enlarged,
    for_film,
    of_base,
    plainly_enlarged,
    plainly_stacked,
    stacked,
)
from adm_cli.commands.jobs import Loaded, planned
from adm_cli.commands.sample_outputs import Outputs
from adm_cli.errors import NotFiniteError, UsageError
from adm_cli.storage.runs import BASE, HIDDEN_BASE

if TYPE_CHECKING:
    import torch

    from adm_cli.config import SamplingConfig
    from adm_cli.pipeline import Pipeline
    from adm_cli.sources import Sources
    from adm_cli.storage.plans import Item, Plan
    from adm_cli.storage.runs import RunFolder


@dataclass(frozen=True)
class Stage:
    """An upsampler and its settings."""

    sources: Sources
    config: SamplingConfig

    def plan(self, base: Plan, device: torch.device, dtype: str) -> Plan:
        """The plan of the whole run, ``base`` being that of the small pictures."""
        from adm_cli.devices import choose_dtype
        from adm_cli.recipes import run_plan, stack_plan

        use_fp16 = self.sources.model.info.config.use_fp16
        compute = choose_dtype(dtype, device, use_fp16=use_fp16)
        mine = run_plan(
            self.sources, self.config, base.items, device, compute,
            kind="stack", format=base.settings["format"],
        )  # fmt: skip
        return stack_plan(base, mine)

    def facts(self, plan: Plan) -> dict[str, Any]:
        """What a person may want to know in advance."""
        from adm_cli.recipes import ENLARGING

        names = ("model_sha256", "sampler", "steps", "num_steps")
        settings = {f"upsampler_{name}": plan.settings[f"upsampler_{name}"] for name in names}
        settings |= {f"upsampler_{name}": getattr(self.config, name) for name in ENLARGING}
        return {"upsampler": self.sources.model_name, **settings}


@dataclass(frozen=True)
class PlainStage:
    """An enlargement without weights: a method of `presets.ENLARGEMENTS`."""

    method: str

    def plan(self, base: Plan, _device: torch.device, _dtype: str) -> Plan:
        """As `Stage.plan`."""
        from adm_cli.recipes import plain_stack_plan

        return plain_stack_plan(base, self.method)

    def facts(self, _plan: Plan) -> dict[str, Any]:
        return {"upsampler": self.method}


def enlarging_config(
    sources: Sources,
    images: list[tuple[int | None, int]],
    *,
    sampler: str | None,
    steps: str | None,
    eta: float | None = None,
    batch_size: int | None,
    clip: bool,
    project: int | None = None,
    low_res_noise: float | None = None,
) -> SamplingConfig:
    """An upsampler's settings; what is not given is the stack's it belongs to, or the model's.

    Raises UsageError or ConfigError for what does not fit the model.
    """
    from adm_cli.config import SamplingConfig
    from adm_cli.defaults import choose_schedule, resolve
    from adm_cli.pipeline import choose_sampler
    from adm_cli.sources import check_classes, choose_low_res_noise, default_projection

    config = SamplingConfig(
        seeds=tuple(seed for _, seed in images),
        classes=tuple(class_id for class_id, _ in images),
        sampler=sampler,
        scale=0.0,
        cfg=1.0,
        steps=steps,
        eta=eta,
        batch_size=batch_size,
        clip_denoised=clip,
        project=project if project is not None else default_projection(sources.model.info),
        low_res_noise=choose_low_res_noise(sources, low_res_noise),
    )
    config = resolve(sources, config)
    choose_sampler(config)
    choose_schedule(sources.model.info.diffusion, config.steps)
    if sources.classes:
        check_classes(sources, config.classes)
    return config


def find_stage(
    base: Sources,
    config: SamplingConfig,
    name: str | None,
    sampler: str | None,
    steps: str | None,
    project: int | None = None,
    low_res_noise: float | None = None,
) -> Stage | PlainStage | None:
    """The upsampler that was asked for, or the preset's; None where there is neither.

    Raises as `sources.find_upsampler`, and UsageError if it does not fit ``base`` or takes no
    settings.
    """
    from adm_cli.presets import ENLARGEMENTS
    from adm_cli.sources import check_stack, find_upsampler

    if name is None and base.preset is not None:
        name = base.preset.upsampler
    if name is None:
        return None
    if name in ENLARGEMENTS:
        if any(given is not None for given in (sampler, steps, project, low_res_noise)):
            raise UsageError(
                f"{name} enlarges without sampling: leave out the other --upsample-... options, "
                f"or pass an --upsampler that has them"
            )
        return PlainStage(name)
    sources = find_upsampler(name)
    check_stack(base, sources)
    images = list(zip(config.classes, config.seeds, strict=True))
    enlarging = enlarging_config(
        sources, images, sampler=sampler, steps=steps,
        batch_size=config.batch_size, clip=config.clip_denoised, project=project,
        low_res_noise=low_res_noise,
    )  # fmt: skip
    return Stage(sources, enlarging)


def load_stack(
    sources: Sources,
    config: SamplingConfig,
    stage: Stage | PlainStage,
    base_plan: Plan,
    outputs: Outputs,
    tell: Telling,
    *,
    keep_base: bool,
    device: str,
    dtype: str,
) -> Loaded:
    """Both stages, ready to draw."""
    from adm_cli.pipeline import choose_batch_size, load_pipeline

    if isinstance(stage, Stage):
        return _load_models(
            sources, config, stage, base_plan, outputs, tell,
            keep_base=keep_base, device=device, dtype=dtype,
        )  # fmt: skip
    method = stage.method
    base = load_pipeline(sources, guided=config.guided, device=device, dtype=dtype)

    def draw(run: RunFolder, plan: Plan, items: Sequence[Item]) -> Draw:
        if not keep_base:
            return plainly_stacked(base, planned(config, plan), method, tell)
        folder = run.inner(BASE).path
        _draw_base(base, config, base_plan, plan, folder, items, outputs, tell)
        return _plainly_enlarged_base(folder, method, plan)

    return Loaded(choose_batch_size(base, config), draw, 1 if keep_base else None)


def _load_models(
    sources: Sources,
    config: SamplingConfig,
    stage: Stage,
    base_plan: Plan,
    outputs: Outputs,
    tell: Telling,
    *,
    keep_base: bool,
    device: str,
    dtype: str,
) -> Loaded:
    """Both models where they fit into memory, else the base model, and the upsampler after it.

    One after the other, the small pictures are a run of their own in a folder within, so that
    nothing is lost when it is stopped; so it is too where they are to be kept.
    """
    from adm_cli.defaults import choose_schedule
    from adm_cli.devices import choose_device, choose_dtype
    from adm_cli.pipeline import choose_batch_size, fit_together, load_pipeline
    from adm_cli.storage.checkpoints import verify_content

    where = choose_device(device)
    models = (sources.model, stage.sources.model)
    first, second = (
        choose_dtype(dtype, where, use_fp16=model.info.config.use_fp16) for model in models
    )
    together = fit_together(sources, config, stage.sources, where, (first, second))
    if not together:
        tell.note("both stages do not fit into memory at once: the small pictures come first")
        verify_content(stage.sources.model)  # now, not when they are all drawn

    def load_base() -> Pipeline:
        return load_pipeline(sources, guided=config.guided, device=device, dtype=dtype)

    base = load_base()
    size = choose_batch_size(base, config, stage.sources)
    if together and not keep_base:
        large = load_pipeline(stage.sources, device=device, dtype=dtype)
        return Loaded(size, partial(_draw_together, base, config, large, stage.config, tell))
    waiting = [base]  # to be let go of
    del base

    def draw(run: RunFolder, plan: Plan, items: Sequence[Item]) -> Draw:
        folder = run.inner(BASE if keep_base else HIDDEN_BASE).path
        small = waiting.pop() if waiting else load_base()
        _draw_base(small, config, base_plan, plan, folder, items, outputs, tell)
        del small
        large = load_pipeline(stage.sources, device=device, dtype=dtype)
        return _enlarged_base(large, stage.config, plan, folder, items, tell)

    schedule = choose_schedule(stage.sources.model.info.diffusion, stage.config.steps)
    return Loaded(size, draw, len(schedule))


def _draw_together(
    base: Pipeline,
    config: SamplingConfig,
    large: Pipeline,
    enlarging: SamplingConfig,
    tell: Telling,
    _run: RunFolder,
    plan: Plan,
    _items: Sequence[Item],
) -> Draw:
    return stacked(base, planned(config, plan), large, planned(enlarging, plan), tell)


def drop_base(run: RunFolder, plan: Plan) -> None:
    """Removes the small pictures of a finished run that were not to be kept."""
    base = run.inner(HIDDEN_BASE)
    if base.path.is_dir() and len(run.kept(plan.items)) == len(plan.items):
        base.discard()


def _draw_base(
    pipeline: Pipeline,
    config: SamplingConfig,
    base_plan: Plan,
    plan: Plan,
    folder: Path,
    items: Sequence[Item],
    outputs: Outputs,
    tell: Telling,
) -> None:
    from adm_cli.storage.runs import RunFolder

    base = RunFolder(folder)
    settled = {name: plan.settings[name] for name in ("threads", "batch_size")}
    wanted = replace(base_plan, settings={**base_plan.settings, **settled})
    base.begin(wanted, overwrite=outputs.overwrite)
    chosen = {item.file: item for item in of_base(items)}
    height, width = base_plan.settings["size"]
    with suppress(NotFiniteError):  # the others are enlarged first
        draw_into(
            base,
            outputs.shard,
            [chosen.get(item.file, item) for item in wanted.items],
            sampled(pipeline, planned(config, plan), tell),
            steps=base_plan.settings["num_steps"],
            tell=replace(tell, images=False, folder=folder.parent),
            image_bytes=height * width * 3 // 2,
            chosen=chosen,
        )


def _enlarged_base(
    pipeline: Pipeline,
    config: SamplingConfig,
    plan: Plan,
    folder: Path,
    items: Sequence[Item],
    tell: Telling,
) -> Draw:
    from adm_cli.storage.inputs import run_pictures
    from adm_cli.storage.runs import RunFolder
    from adm_cli.storage.writing import Finished

    small = list(RunFolder(folder).kept(items))
    index = {file: i for i, file in enumerate(small)}
    draw = enlarged(pipeline, planned(config, plan), run_pictures(folder, small), index, tell)

    def draw_all(missing: Sequence[Item], on_step: OnStep) -> Iterator[Batch]:
        yield from draw([item for item in missing if item.file in index], on_step)
        if without := [item for item in missing if item.file not in index]:
            yield [Finished(item, None, None) for item in without]  # as their small pictures

    return draw_all


def _plainly_enlarged_base(folder: Path, method: str, plan: Plan) -> Draw:
    """A `Draw` that enlarges the pictures of a base run without weights, in one step a batch."""
    from adm_cli.diffusion.steps import SampleStep
    from adm_cli.storage.inputs import run_pictures
    from adm_cli.storage.runs import RunFolder
    from adm_cli.storage.writing import Finished

    def draw(missing: Sequence[Item], on_step: OnStep) -> Iterator[Batch]:
        size, there = plan.settings["batch_size"], RunFolder(folder).kept(missing)
        good = [item for item in missing if item.file in there]
        pictures = run_pictures(folder, [item.file for item in good])
        for first in range(0, len(good), size):
            batch = [
                plainly_enlarged(good[i], pictures[i], pictures.items[i].recipe, method)
                for i in range(first, min(first + size, len(good)))
            ]
            x = for_film([done.pixels for done in batch if done.pixels is not None])
            on_step(SampleStep(0, x, x))
            yield batch
        if without := [item for item in missing if item.file not in there]:
            yield [Finished(item, None, None) for item in without]  # as their small pictures

    return draw
