"""Other spellings of our names: case, separators and the usual abbreviations. The rest is as typed,
for the message that refuses it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable
from typing import Any

from adm_cli.errors import ConfigError, trim

_SAMPLERS = {
    "ddpm": "ddpm", "ddim": "ddim", "euler": "ddim", "heun": "heun",
    "dpm++2m": "dpm++2m", "dpmsolver++2m": "dpm++2m",
    "dpm++3m": "dpm++3m", "dpmsolver++3m": "dpm++3m",
    "unipc": "unipc", "unipc3": "unipc", "unipc2": "unipc2",
}  # fmt: skip
_DTYPES = {
    "fp16": "float16", "f16": "float16", "half": "float16",
    "bf16": "bfloat16",
    "fp32": "float32", "f32": "float32", "float": "float32", "single": "float32",
    "fp64": "float64", "f64": "float64", "double": "float64",
}  # fmt: skip


def spell_sampler(name: str) -> str:
    """ "DPM++ 2M", "dpmpp_2m" and "DPM-Solver++(2M)" to "dpm++2m".

    "euler" is ddim: Euler's step for x / alpha over sigma / alpha is the same.
    """
    short = re.sub(r"[\s_()-]", "", name.lower()).replace("pp", "++")
    return _SAMPLERS.get(short, name)


def spell_dtype(name: str) -> str:
    """ "FP16", "half" and "torch.float16" to "float16"."""
    word = name.strip().lower().removeprefix("torch.")
    return _DTYPES.get(word, word)


def spell_sampling(seeds: Any, classes: Any, sampler: Any, steps: Any) -> dict[str, Any]:
    """Fields of a ``SamplingConfig`` as they are declared; raises ConfigError for other types."""
    seeds, classes = _entries("seeds", seeds), _entries("classes", classes)
    return {
        "seeds": seeds,
        "classes": classes * len(seeds) if len(classes) == 1 else classes,
        "sampler": spell_sampler(sampler) if isinstance(sampler, str) else sampler,
        "steps": None if steps is None else _spell_steps(steps),
    }


def _entries(name: str, value: Any) -> tuple[Any, ...]:
    """A single value stands for a sequence of it."""
    many = isinstance(value, Iterable) and not isinstance(value, (str, bytes))
    entries = tuple(value) if many else (value,)
    try:
        if any(isinstance(entry, bool) for entry in entries):
            raise TypeError
        return tuple(
            None if entry is None and name == "classes" else operator.index(entry)
            for entry in entries
        )  # of numpy and torch, too
    except TypeError:
        more = (
            " (adm classes finds the ids)" if name == "classes" else ", such as (0, 1) or range(2)"
        )
        raise ConfigError(f"{name} must be whole numbers{more}, got {trim(value, 40)}") from None


def _spell_steps(steps: object) -> str:
    if isinstance(steps, str):
        return steps.strip().lower()
    if hasattr(steps, "__index__") and not isinstance(steps, bool):
        return str(operator.index(steps))
    raise ConfigError(
        f"steps must be a number or text such as 250 or 'ddim25', got {trim(steps, 40)}"
    )
