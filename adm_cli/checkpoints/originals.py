"""The weights of a network within whatever a training program saved around them.

Averages beside the weights, optimizers, counters, prefixes of wrappers: every name of the network
is found by the one tensor that all of them have, the first of the timestep embedding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from torch import Tensor

from adm_cli.checkpoints.format import check_state, load_original
from adm_cli.errors import CheckpointError, UsageError, how_many

ANCHOR = "time_embed.0.weight"
_MOST_ENTRIES, _MOST_DEPTH = 100_000, 12  # far above any real file
_SHOWN = 6  # names in a note
_AVERAGE = re.compile(r"(^|[._\d])(ema|avg|averaged?|swa|polyak|shadow)(?=$|[._\d])", re.I)
# What wrappers put within names: compiled, sharded or recomputed modules.
_WRAPPERS = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Buffers of diffusion schedules, which follow from the schedule, and counters.
_SCHEDULE = re.compile(
    r"(?:.*_)?(?:betas?|alphas?|alphas_cumprod(?:_prev|_next)?|cumprod|sigmas?|logvar"
    r"|posterior_(?:variance|log_variance_clipped|mean_coef[12])|lvlb_weights|p2_loss_weight"
    r"|loss_weights?|snr|log_snr|scale_factor|(?:global_)?(?:step|epoch|iteration)s?|timesteps?|num_updates|num_batches_tracked|decay)"
)
_ATTENTION = re.compile(r"(?:qkv|proj_out|qkv_proj|c_proj)\.weight")


@dataclass(frozen=True)
class Weights:
    """The tensors of one network by the original's names, and what a person should know."""

    tensors: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()


def read_weights(path: Path, wanted: str | None = None) -> Weights:
    """The weights of the network in a file, safely read (`load_original`).

    ``wanted`` names one where there are several: ``ema`` is any average, ``model`` the weights
    themselves, or a name as notes tell it; None prefers averages. Raises CheckpointError for a
    file that holds no such network, UsageError for an unknown name.
    """
    state = load_original(path)
    entries = _flat(path, state)
    found = [name.removesuffix(ANCHOR) for name in entries if _ends(name)]
    if not found:
        if wanted is not None:
            raise UsageError(
                f"--weights {wanted}: {path.name} holds no named weights: leave it out"
            )
        nameless = next((name for name in entries if _is_list(entries[name])), None)
        if nameless is not None:
            where = f" under {nameless}" if nameless else ""
            raise CheckpointError(
                f"{path} holds a list of tensors without names{where}: give the file that holds "
                f"the model beside them, or save the averaged model's state_dict()"
            )
        tensors = {n: value for n, value in entries.items() if n and isinstance(value, Tensor)}
        return Weights(check_state(path, tensors or state))
    _add_dotless(entries, found)
    unfit = _add_nameless(entries, found)
    chosen, notes = _chosen(path, found, wanted)
    inside = {n.removeprefix(chosen): v for n, v in entries.items() if _owner(n, found) == chosen}
    tensors = {name: value for name, value in inside.items() if not _is_extra(name, value)}
    extras = [f"{chosen}{name}" for name in inside if name not in tensors]
    strangers = [_apart(name, chosen) for name in entries if _owner(name, found) is None]
    notes += [f"{name} is an average without names that does not fit the model" for name in unfit]
    if left := list(dict.fromkeys([*extras, *strangers])):
        more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        notes.append(f"left out, as no weights of the model: {', '.join(left[:_SHOWN])}{more}")
    squeezed, shaped = _squeezed(check_state(path, tensors))
    return Weights(squeezed, (*notes, *shaped))


def _owner(name: str, found: list[str]) -> str | None:
    """The prefix of the weights that an entry belongs to."""
    return max((prefix for prefix in found if name.startswith(prefix)), key=len, default=None)


def _apart(name: str, chosen: str) -> str:
    """The part of a name with which it leaves the way to the chosen weights."""
    for mine, theirs in zip_longest(name.split("."), chosen.split(".")):
        if mine != theirs:
            return str(mine)
    return name


def _add_dotless(entries: dict[str, Any], found: list[str]) -> None:
    """Averages under names without dots (``model_ema.diffusion_modeltime_embed0weight``), renamed.

    As latent-diffusion and others of Lightning write them beside ``model.``; only where every
    weight has one.
    """
    for prefix in list(found):
        parts = prefix.split(".")[:-1]
        for i, part in enumerate(parts):
            outer = "".join(f"{p}." for p in parts[:i])
            average = f"{outer}{part}_ema."
            names = {
                name: average + name.removeprefix(f"{outer}{part}.").replace(".", "")
                for name, value in entries.items()
                if _owner(name, found) == prefix and not _is_extra(name, value)
            }
            if names and all(dotless in entries for dotless in names.values()):
                for name, dotless in names.items():
                    entries[f"{average}{name.removeprefix(prefix)}"] = entries.pop(dotless)
                found.append(average)
                break


def _is_list(value: object) -> bool:
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(item, Tensor) for item in value)
    )


def _add_nameless(entries: dict[str, Any], found: list[str]) -> list[str]:
    """Averages that are lists in the order of the parameters, as torch-ema saves them, named.

    Only where the shapes are those of weights beside them, one after the other; returns the
    names of the other lists.
    """
    left = []
    for place in [name for name in entries if _AVERAGE.search(name) and _is_list(entries[name])]:
        values = entries[place]
        for prefix in list(found):
            model = {
                name.removeprefix(prefix): value
                for name, value in entries.items()
                if _owner(name, found) == prefix and not _is_extra(name, value)
            }
            if [v.shape for v in values] == [v.shape for v in model.values()]:
                del entries[place]
                entries |= {f"{place}.{n}": v for n, v in zip(model, values, strict=True)}
                found.append(f"{place}.")
                break
        else:
            left.append(place)
    return left


def _ends(name: str) -> bool:
    return name == ANCHOR or name.endswith(f".{ANCHOR}")


def _flat(path: Path, state: object) -> dict[str, Any]:
    """Every entry of dictionaries within dictionaries, by its dotted name without wrappers."""
    found: dict[str, Any] = {}
    visited = 0

    def walk(value: object, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
        nonlocal visited
        visited += 1
        if visited > _MOST_ENTRIES or depth > _MOST_DEPTH:
            raise CheckpointError(f"{path} holds too many entries in one another to be weights")
        if isinstance(value, dict) and value and all(isinstance(key, str) for key in value):
            for key, inner in value.items():
                yield from walk(inner, f"{prefix}.{key}" if prefix else key, depth + 1)
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
            for i, inner in enumerate(value):
                yield from walk(inner, f"{prefix}.{i}" if prefix else f"{i}", depth + 1)
        else:
            yield prefix, value

    for name, value in walk(state, "", 0):
        found[_WRAPPERS.sub("", name)] = value
    return found


def _chosen(path: Path, found: list[str], wanted: str | None) -> tuple[str, list[str]]:
    """The prefix of the weights to take, and what is said of it."""
    names = {prefix: prefix.rstrip(".") or "model" for prefix in found}
    averages = [prefix for prefix in found if _AVERAGE.search(prefix)]
    fitting = averages or found
    if wanted is not None:
        exact = [prefix for prefix in found if names[prefix] == wanted]
        if wanted in ("ema", "average"):
            fitting = exact or averages
        elif wanted == "model":
            fitting = exact or [prefix for prefix in found if prefix not in averages]
        else:
            fitting = exact or [p for p in found if wanted in names[p].split(".")]
        if not fitting:
            raise UsageError(f"--weights {wanted}: {path.name} holds {', '.join(names.values())}")
    chosen = max(fitting, key=_rate)
    if len(found) == 1:
        return chosen, [f"the weights are those under {names[chosen]}"] if chosen else []
    others = ", ".join(names[prefix] for prefix in found if prefix != chosen)
    what = " (an average)" if chosen in averages else ""
    return chosen, [f"of several weights took {names[chosen]}{what}; --weights for {others}"]


def _rate(prefix: str) -> float:
    """The averaging rate in a name such as ema_0.9999; the slower average is the smoother."""
    numbers = re.findall(r"0\.\d+", prefix)
    return float(numbers[-1]) if numbers else 0.0


def _is_extra(name: str, value: object) -> bool:
    """Settings, counters, and buffers that follow from the schedule."""
    if not isinstance(value, Tensor):
        return True
    named = _SCHEDULE.fullmatch(name.rsplit(".", 1)[-1])
    return value.ndim <= 1 and (named is not None or not value.is_floating_point())


def _squeezed(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Attention as 1x1 convolutions of pictures, or linear, in the original's form."""
    found, changed = dict(tensors), 0
    for name, value in tensors.items():
        if not _ATTENTION.fullmatch(".".join(name.split(".")[-2:])):
            continue
        if (value.ndim == 4 and value.shape[2:] == (1, 1)) or value.ndim == 2:
            found[name] = value.reshape(value.shape[0], value.shape[1], 1)
            changed += 1
    return found, [
        f"{how_many(changed, 'attention weight')} in the original's shape"
    ] if changed else []
