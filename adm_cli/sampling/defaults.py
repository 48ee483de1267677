"""What a run takes where nothing was asked for, and what a person should know of its settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial

from adm_cli.checkpoints.sources import Sources, choose_low_res_noise, default_projection
from adm_cli.config import DiffusionConfig, Recommended, SamplingConfig
from adm_cli.diffusion.modifiers import Modifiers, Spacing
from adm_cli.diffusion.multistep import churn_gamma, heun_sample
from adm_cli.diffusion.samplers import SAMPLERS, SAMPLERS_WITH_ETA
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.diffusion.spacing import spaced_timesteps
from adm_cli.diffusion.steps import Sampler
from adm_cli.errors import ConfigError, UsageError, did_you_mean, how_many, trim

# Where guidance acts by default if it would run away at the highest noise, as the embedded model's
# preset has it (docs/sweeps.md measures with it); (0, 1) is the paper's form.
SAFE_INTERVAL = (0.0, 0.85)
EVERYWHERE = (0.0, 1.0)
_MANY_STEPS = 100
_PLAIN = Modifiers()
_RUNS_AWAY = 1000.0  # times the gradient; a linear schedule ends at 157


def recommended(sources: Sources) -> Recommended:
    """How the model is best sampled: as its preset says, its file, or else as the original."""
    preset, info = sources.preset, sources.model.info
    if preset is not None and info.kind == "upsampler":
        return Recommended(
            sampler=preset.upsampler_sampler,
            steps=preset.upsampler_steps,
            scale=0,
            temperature=preset.upsampler_temperature,
        )
    return preset or info.recommended or Recommended()


@lru_cache(maxsize=16)
def choose_schedule(
    diffusion: DiffusionConfig, steps: str | None, spacing: Spacing = "uniform"
) -> NoiseSchedule:
    """The respaced schedule; ``steps`` None takes what the model was trained for, or all.

    Raises ConfigError for steps that cannot be, and, with a ``spacing``, for anything but a number.
    """
    schedule = NoiseSchedule.named(diffusion.noise_schedule, diffusion.num_timesteps)
    steps = steps if steps is not None else diffusion.respacing or ""
    if spacing == "uniform":
        return schedule.respace(steps)
    if not (steps.isascii() and steps.isdecimal()) or len(steps) > 9:
        raise ConfigError(
            f"{spacing} spacing chooses the timesteps of a number of steps, got {trim(steps)}: "
            f"pass --steps, such as 20"
        )
    return schedule.keep(spaced_timesteps(schedule, int(steps), spacing))


def choose_sampler(
    name: str | None, eta: float | None, modifiers: Modifiers = _PLAIN, steps: int = 1
) -> Sampler:
    """The sampler, with its own options bound; raises UsageError or ConfigError."""
    name = name or "none"
    if name not in SAMPLERS:
        short = re.sub(r"[\s_-]", "", name.lower())
        if typed := re.fullmatch(r"ddim(\d{1,4})", short):
            raise UsageError(f"unknown sampler {name!r}: write --sampler ddim --steps {typed[1]}")
        if short in ("eulera", "eulerancestral", "keulera"):  # whose noise is that of eta 1
            raise UsageError(f"unknown sampler {name!r}: here it is --sampler ddim --eta 1")
        if re.fullmatch(r"dpm(pp|\+\+)(2m)?sde", short):
            raise UsageError(f"unknown sampler {name!r}: here it is --sampler dpm++2m --eta 1")
        hint = did_you_mean(name, SAMPLERS)
        raise UsageError(f"unknown sampler {name!r}{hint} (there are {', '.join(SAMPLERS)})")
    sampler = SAMPLERS[name]
    if modifiers.churn > 0:
        if name != "heun":
            raise ConfigError(
                f"--churn has no meaning for the {name} sampler, only for heun: pass --sampler "
                f"heun, or leave it out"
            )
        sampler = partial(
            heun_sample, gamma=churn_gamma(modifiers.churn, steps),
            inflation=modifiers.churn_noise, churned=(modifiers.churn_min, modifiers.churn_max),
        )  # fmt: skip
    if eta is None:
        return sampler
    if name not in SAMPLERS_WITH_ETA:
        raise ConfigError(
            f"--eta has no meaning for the {name} sampler, "
            f"only for {' and '.join(SAMPLERS_WITH_ETA)}: pass --sampler with one of them, or "
            f"leave it out"
        )
    return partial(sampler, eta=eta)  # type: ignore[call-arg]


def common_scale(sources: Sources, classes: Sequence[int | None], *, guided: bool) -> float:
    """The guidance scale where none was asked for: 0 without classes or a classifier."""
    labelled = any(class_id is not None for class_id in classes)
    return recommended(sources).scale if guided and labelled else 0.0


def common_cfg(sources: Sources, classes: Sequence[int | None]) -> float:
    """The weight of classifier-free guidance where none was asked for: 1 without classes."""
    labelled = any(class_id is not None for class_id in classes)
    return recommended(sources).cfg if labelled else 1.0


def resolve(
    sources: Sources, config: SamplingConfig, *, guided: bool | None = None
) -> SamplingConfig:
    """``config`` with everything that is None decided; a config without any comes back as it is.

    ``guided``: whether there is a classifier; None: whether ``sources`` has one. Intervals are
    None where there is no such guidance. Raises ConfigError for steps that cannot be, UsageError
    for noise on small pictures that an upsampler was not trained with.
    """
    known = recommended(sources)
    if guided is None:
        guided = sources.classifier is not None
    config = replace(
        config,
        sampler=known.sampler if config.sampler is None else config.sampler,
        steps=known.steps if config.steps is None else config.steps,
        # a sampler that is named is the published one
        eta=known.eta if config.eta is None and config.sampler is None else config.eta,
        scale=common_scale(sources, config.classes, guided=guided)
        if config.scale is None
        else config.scale,
        cfg=common_cfg(sources, config.classes) if config.cfg is None else config.cfg,
        temperature=known.temperature if config.temperature is None else config.temperature,
        project=default_projection(sources.model.info)
        if config.project is None
        else config.project,
    )
    if sources.model.info.kind == "upsampler":
        noise = choose_low_res_noise(sources, config.low_res_noise)
        config = replace(config, low_res_noise=noise)
    guide_interval, cfg_interval = config.guide_interval, config.cfg_interval
    if guide_interval is None:
        guide_interval = known.guide_interval
    if guide_interval is None and guidance_runs_away(config, sources.model.info.diffusion):
        guide_interval = SAFE_INTERVAL
    return replace(
        config,
        guide_interval=guide_interval if config.guided else None,
        cfg_interval=(cfg_interval or known.cfg_interval) if config.classifier_free else None,
    )


def guidance_runs_away(config: SamplingConfig, diffusion: DiffusionConfig) -> bool:
    """Whether guidance acts at almost pure noise, by a sampler that multiplies it there.

    All but DDPM turn the gradient into a shift of x_0, (1 - abar_t) / sqrt(abar_t) times as large
    (`condition_score`): 20,000 times at the last timestep of a cosine schedule, where the
    classifier knows nothing. A linear schedule ends at 157.
    """
    if not config.guided or config.sampler == "ddpm":
        return False
    schedule = choose_schedule(diffusion, config.steps, config.spacing)
    first, last = config.guide_interval or EVERYWHERE
    place = schedule.timesteps / (schedule.original_timesteps - 1)
    abar = schedule.alphas_cumprod[(place >= first) & (place <= last)]
    return bool(((1 - abar) / abar.sqrt() > _RUNS_AWAY).any())


def taken_from(sources: Sources, config: SamplingConfig, resolved: SamplingConfig) -> str | None:
    """In words, what a preset or file decided of ``config``; None if that is no news."""
    if config.sampler is None and resolved.sampler != "ddim" and "ddim" in (config.steps or ""):
        return (
            f"{resolved.sampler} at the timesteps {config.steps}, as no --sampler was asked for: "
            f"--sampler ddim draws by DDIM"
        )
    if sources.preset is not None or (config.sampler and config.steps is not None):
        return None
    steps = len(choose_schedule(sources.model.info.diffusion, resolved.steps, resolved.spacing))
    if sources.model.info.recommended is not None:
        taken = [str(resolved.sampler)] if config.sampler is None else []
        taken += [how_many(steps, "step")] if config.steps is None else []
        return f"{', '.join(taken)}: what {sources.called} recommends"
    if steps <= _MANY_STEPS:
        return None
    return (
        f"{resolved.sampler}, {steps} steps, as the original would: {sources.called} "
        f"recommends nothing; --sampler dpm++2m --steps 20 is faster"
    )


def noise_remarks(sources: Sources, config: SamplingConfig) -> Iterator[str]:
    """What a person should know of a classifier that is shown other pictures than in training."""
    file = sources.classifier
    seen = config.guided and config.classifier_on == "xt"
    if seen and file is not None and file.info.noised is False:
        yield f"{file.called} was trained without noise: --classifier-on x0 shows it clean pictures"


def remarks(config: SamplingConfig, diffusion: DiffusionConfig) -> Iterator[str]:
    """What a person should know of resolved settings before they draw."""
    if guidance_runs_away(config, diffusion):
        first, last = SAFE_INTERVAL
        yield (
            f"{config.sampler} multiplies the guidance a thousandfold at almost pure noise: "
            f"without --guide-interval it acts in {first:g},{last:g}"
        )
    for name, value in (("scale", config.scale), ("cfg", config.cfg)):
        if value is not None and value < 0:
            yield f"{name} {value:g} is negative: images are repelled from their class"
