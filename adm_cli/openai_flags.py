"""Reading the flags of the original repository (openai/guided-diffusion).

Whole commands of its README may be given, shell variables and all: flags that say nothing about
the model (paths, batch sizes, learning rates) are known and passed over, a flag that the original
never had is an error.
"""

from __future__ import annotations

import re
import shlex
from typing import Any, Literal

from adm_cli.config import ClassifierConfig, DiffusionConfig, Loss, UNetConfig
from adm_cli.errors import ConfigError, did_you_mean

Kind = Literal["diffusion", "classifier", "upsampler"]

# Flag defaults of the original's scripts, as text. The last group is ours: what users of the
# original edit its source for.
_DEFAULTS = {
    "image_size": "64",
    "num_channels": "128",
    "num_res_blocks": "2",
    "num_heads": "4",
    "num_heads_upsample": "-1",
    "num_head_channels": "-1",
    "attention_resolutions": "16,8",
    "channel_mult": "",
    "dropout": "0.0",
    "class_cond": "False",
    "use_checkpoint": "False",
    "use_scale_shift_norm": "True",
    "resblock_updown": "False",
    "use_fp16": "False",
    "use_new_attention_order": "False",
    "learn_sigma": "False",
    "diffusion_steps": "1000",
    "noise_schedule": "linear",
    "timestep_respacing": "",
    "use_kl": "False",
    "predict_xstart": "False",
    "rescale_timesteps": "False",
    "rescale_learned_sigmas": "False",
    "classifier_use_fp16": "False",
    "classifier_width": "128",
    "classifier_depth": "2",
    "classifier_attention_resolutions": "32,16,8",
    "classifier_use_scale_shift_norm": "True",
    "classifier_resblock_updown": "True",
    "classifier_pool": "attention",
    "large_size": "256",
    "small_size": "64",
    "num_classes": "1000",
    "classifier_channel_mult": "",
}
# Known flags that do not describe a model.
_OTHER = frozenset(
    "anneal_lr base_samples batch_size classifier_path classifier_scale clip_denoised data_dir "
    "ema_rate eval_interval fp16_scale_growth iterations log_interval lr lr_anneal_steps "
    "microbatch model_path noised num_samples resume_checkpoint save_interval schedule_sampler "
    "use_ddim val_data_dir weight_decay".split()
)
_CHANNEL_MULT = {64: "1,2,3,4", 128: "1,1,2,3,4", 256: "1,1,2,2,4,4", 512: "0.5,1,1,2,2,4,4"}
_UPSAMPLER_CHANNEL_MULT = {64: "1,2,3,4", 256: "1,1,2,2,4,4", 512: "1,1,2,2,4,4"}
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=", re.ASCII)


def openai_flags(
    text: str, kind: Kind | None = None
) -> tuple[UNetConfig | ClassifierConfig, DiffusionConfig]:
    """The configurations that flags of the original stand for.

    ``text`` is a flag string or a whole command. ``kind`` chooses between the diffusion model and
    the classifier where flags of both are there; None infers it: an upsampler where there is
    ``--large_size``, a classifier where only ``--classifier_*`` flags describe a model.

    Beyond the original's flags: ``--num_classes`` and ``--classifier_channel_mult``, fractions in
    ``--channel_mult``, and any image size for which the channel multipliers are given.

    Raises ConfigError for unknown flags, bad values and impossible architectures.
    """
    given, script = _parse(text)
    if kind is None:
        kind = _infer_kind(given, script)
    flags = {**_DEFAULTS, **given}
    model = _classifier(flags) if kind == "classifier" else _unet(flags, kind)
    return model, _diffusion(flags)


def _parse(text: str) -> tuple[dict[str, str], str]:
    """Flags and the name of the script, if a whole command was given."""
    try:
        tokens = shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError as error:
        raise ConfigError(f"flags: {error}, in {text!r:.60}") from None
    flags: dict[str, str] = {}
    script = ""
    i = 0
    while i < len(tokens):
        token = tokens[i]
        i += 1
        if _ASSIGNMENT.match(token):  # MODEL_FLAGS="--a 1 --b 2"
            flags.update(_parse(token.split("=", 1)[1])[0])
        elif token.startswith("--"):
            name, equals, value = token[2:].partition("=")
            if not equals:
                if i >= len(tokens):
                    raise ConfigError(f"flag --{name} has no value")
                value = tokens[i]
                i += 1
            if name not in _DEFAULTS and name not in _OTHER:
                hint = did_you_mean(name, [*_DEFAULTS, *_OTHER])
                raise ConfigError(f"flag --{name} is not one of the original's{hint}")
            flags[name] = value
        elif token.endswith(".py"):
            script = token.rsplit("/", 1)[-1]
    if not flags and text.strip():
        raise ConfigError(f"no --flags found in {text!r:.60}")
    return flags, script


def _infer_kind(given: dict[str, str], script: str) -> Kind:
    if script.startswith("super_res") or "large_size" in given or "small_size" in given:
        return "upsampler"
    if script == "classifier_train.py":
        return "classifier"
    describes_unet = {"num_channels", "num_res_blocks", "attention_resolutions"} & set(given)
    describes_classifier = any(
        name.startswith("classifier_") for name in given if name not in _OTHER
    )
    return "classifier" if describes_classifier and not describes_unet else "diffusion"


def _unet(flags: dict[str, str], kind: Kind) -> UNetConfig:
    upsampler = kind == "upsampler"
    size = _int(flags, "large_size" if upsampler else "image_size")
    low = _int(flags, "small_size") if upsampler else None
    return UNetConfig(
        image_size=(size, size),
        low_res_size=None if low is None else (low, low),
        model_channels=_int(flags, "num_channels"),
        num_res_blocks=_int(flags, "num_res_blocks"),
        channel_mult=_channel_mult(
            flags, "channel_mult", size, _UPSAMPLER_CHANNEL_MULT if upsampler else _CHANNEL_MULT
        ),
        attention_factors=_attention_factors(flags, "attention_resolutions", size),
        num_heads=_int(flags, "num_heads"),
        num_head_channels=_optional_int(flags, "num_head_channels"),
        num_heads_upsample=_optional_int(flags, "num_heads_upsample"),
        qkv_order="new" if _bool(flags, "use_new_attention_order") else "legacy",
        scale_shift_norm=_bool(flags, "use_scale_shift_norm"),
        resblock_updown=_bool(flags, "resblock_updown"),
        dropout=_float(flags, "dropout"),
        num_classes=_int(flags, "num_classes") if _bool(flags, "class_cond") else None,
        out_channels=6 if _bool(flags, "learn_sigma") else 3,
        use_fp16=_bool(flags, "use_fp16"),
        gradient_checkpointing=_bool(flags, "use_checkpoint"),
    )


def _classifier(flags: dict[str, str]) -> ClassifierConfig:
    size = _int(flags, "image_size")
    pool = flags["classifier_pool"]
    if pool not in ("attention", "adaptive", "spatial", "spatial_v2"):
        raise ConfigError(
            f"--classifier_pool must be attention, adaptive, spatial or spatial_v2, got {pool}"
        )
    return ClassifierConfig(
        image_size=(size, size),
        model_channels=_int(flags, "classifier_width"),
        num_res_blocks=_int(flags, "classifier_depth"),
        channel_mult=_channel_mult(flags, "classifier_channel_mult", size, _CHANNEL_MULT),
        attention_factors=_attention_factors(flags, "classifier_attention_resolutions", size),
        num_heads=1,
        scale_shift_norm=_bool(flags, "classifier_use_scale_shift_norm"),
        resblock_updown=_bool(flags, "classifier_resblock_updown"),
        pool=pool,  # type: ignore[arg-type]
        num_classes=_int(flags, "num_classes"),
        use_fp16=_bool(flags, "classifier_use_fp16"),
    )


def _diffusion(flags: dict[str, str]) -> DiffusionConfig:
    schedule = flags["noise_schedule"]
    if schedule not in ("linear", "cosine"):
        raise ConfigError(f"--noise_schedule must be linear or cosine, got {schedule}")
    loss: Loss = "mse"
    if _bool(flags, "use_kl"):  # wins over the other, as in the original
        loss = "rescaled_kl"
    elif _bool(flags, "rescale_learned_sigmas"):
        loss = "rescaled_mse"
    return DiffusionConfig(
        noise_schedule=schedule,  # type: ignore[arg-type]
        num_timesteps=_int(flags, "diffusion_steps"),
        prediction="x_start" if _bool(flags, "predict_xstart") else "eps",
        variance="learned_range" if _bool(flags, "learn_sigma") else "fixed_large",
        rescale_timesteps=_bool(flags, "rescale_timesteps"),
        loss=loss,
        respacing=flags["timestep_respacing"] or None,
    )


def _channel_mult(
    flags: dict[str, str], name: str, size: int, table: dict[int, str]
) -> tuple[float, ...]:
    text = flags[name] or table.get(size)
    if text is None:
        raise ConfigError(
            f"no channel multipliers are known for size {size} "
            f"(only {', '.join(map(str, table))}): give --{name}, e.g. --{name} 1,2,4"
        )
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--{name} must be numbers such as 1,2,4 or 0.5,1,2, got {text}"
        ) from None


def _attention_factors(flags: dict[str, str], name: str, size: int) -> tuple[int, ...]:
    text = flags[name]
    try:
        sizes = [int(part) for part in text.split(",")]
        return tuple(size // side for side in sizes)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"--{name} must be image sizes such as 32,16,8, got {text!r}") from None


def _bool(flags: dict[str, str], name: str) -> bool:
    value = flags[name].lower()
    if value in ("yes", "true", "t", "y", "1"):
        return True
    if value in ("no", "false", "f", "n", "0"):
        return False
    raise ConfigError(f"--{name} must be True or False, got {flags[name]!r}")


def _int(flags: dict[str, str], name: str) -> int:
    return int(_number(flags, name, int))


def _float(flags: dict[str, str], name: str) -> float:
    return _number(flags, name, float)


def _optional_int(flags: dict[str, str], name: str) -> int | None:
    value = _int(flags, name)
    return None if value == -1 else value


def _number(flags: dict[str, str], name: str, kind: Any) -> float:
    try:
        return kind(flags[name])  # type: ignore[no-any-return]
    except ValueError:
        raise ConfigError(f"--{name} must be a number, got {flags[name]!r}") from None
