"""Which flags of the original a text gives: whole commands and settings, as people paste them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from adm_cli.checkpoints.flags.pasted_commands import PastedCommand, read_pasted, spelt, unknowns
from adm_cli.checkpoints.flags.pasted_settings import CONSTRUCTOR, UNNAMED, NotPlain, read_settings
from adm_cli.config import Kind
from adm_cli.errors import ConfigError, did_you_mean, trim

Family = Literal["guided-diffusion", "improved-diffusion"]

# Flag defaults of the original's scripts, whose types are those of the values. The last group is
# of relatives: the fixed small variance of improved-diffusion, and what users edit the source for.
DEFAULTS: dict[str, Any] = {
    "image_size": 64,
    "num_channels": 128,
    "num_res_blocks": 2,
    "num_heads": 4,
    "num_heads_upsample": -1,
    "num_head_channels": -1,
    "attention_resolutions": "16,8",
    "channel_mult": "",
    "dropout": 0.0,
    "class_cond": False,
    "use_checkpoint": False,
    "use_scale_shift_norm": True,
    "resblock_updown": False,
    "use_fp16": False,
    "use_new_attention_order": False,
    "learn_sigma": False,
    "diffusion_steps": 1000,
    "noise_schedule": "linear",
    "timestep_respacing": "",
    "use_kl": False,
    "predict_xstart": False,
    "rescale_timesteps": False,
    "rescale_learned_sigmas": False,
    "classifier_use_fp16": False,
    "classifier_width": 128,
    "classifier_depth": 2,
    "classifier_attention_resolutions": "32,16,8",
    "classifier_use_scale_shift_norm": True,
    "classifier_resblock_updown": True,
    "classifier_pool": "attention",
    "large_size": 256,
    "small_size": 64,
    "sigma_small": False,
    "num_classes": 1000,
    "classifier_channel_mult": "",
    "classifier_num_head_channels": 64,
    "classifier_use_new_attention_order": False,
}
# Known flags that do not describe a model, with a value of their type.
OTHER: dict[str, Any] = {
    **dict.fromkeys(
        "base_samples classifier_path data_dir ema_rate model_path resume_checkpoint "
        "schedule_sampler val_data_dir".split(),
        "",
    ),
    **dict.fromkeys(
        "batch_size eval_interval iterations log_interval lr_anneal_steps microbatch num_samples "
        "save_interval".split(),
        0,
    ),
    **dict.fromkeys("classifier_scale fp16_scale_growth lr weight_decay".split(), 0.0),
    **dict.fromkeys("anneal_lr clip_denoised noised use_ddim".split(), False),
}
KNOWN: dict[str, Any] = {**DEFAULTS, **OTHER}
_WORD = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'")
_WORD_LIST = re.compile(
    r"(?:[\w.]{1,60}\(\s*)?@?[\[(]\s*(?:W)(?:\s*,\s*(?:W))+\s*,?\s*[\])]".replace(
        "W", _WORD.pattern
    )
)
_NOT_SCRIPTS = frozenset("torch accelerate mpi4py deepspeed debugpy pdb cProfile coverage".split())
_PROCESSES = re.compile(r"(?:-n|-np|--n|--np|--nproc[_-]per[_-]node|--num_processes|--ntasks)")

# The kinds of model that the original's scripts are about, the likely one first.
SCRIPTS: dict[str, tuple[Kind, ...]] = {
    "classifier_train.py": ("classifier",),
    "classifier_sample.py": ("diffusion", "classifier"),
    "image_sample.py": ("diffusion",),
    "image_train.py": ("diffusion",),
    "image_nll.py": ("diffusion",),
    "super_res_sample.py": ("upsampler",),
    "super_res_train.py": ("upsampler",),
    "EncoderUNetModel": ("classifier",),  # classes, whose arguments are given
    "UNetModel": ("diffusion", "upsampler"),
}
_OF_CLASSIFIER = {  # arguments of that class whose flags have other names
    "num_res_blocks": "classifier_depth",
    **{
        name: f"classifier_{name}"
        for name in (
            "use_fp16 attention_resolutions use_scale_shift_norm resblock_updown pool channel_mult "
            "num_head_channels use_new_attention_order".split()
        )
    },
}
ANY_KIND: tuple[Kind, ...] = ("diffusion", "classifier", "upsampler")


def kinds_of(script: str) -> tuple[Kind, ...]:
    """The kinds of model that a script may be about."""
    return SCRIPTS.get(script, ANY_KIND)


# Flags that these scripts of the original have not, so that an abbreviation is none of theirs.
_IMAGE_SCRIPTS = ("image_sample.py", "image_train.py", "image_nll.py")
_NOT_OF_IMAGES = re.compile("noised|num_classes|sigma_small|(base|classifier|large|small)_.*")
# {FLAGS} of notebooks, {{flags}} of templates, a file of settings
_ELSEWHERE = re.compile(r"\{+[^{}]*(\}+)?|[\w./~-]+\.(?:ya?ml|json|toml|ini|cfg)")


@dataclass
class GivenFlags:
    """One command's flags, their values still text."""

    script: str = ""
    processes: int = 1
    flags: dict[str, Any] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    bare: list[str] = field(default_factory=list)  # flags without a value
    unset: list[str] = field(default_factory=list)  # words of which nothing is known
    short: list[str] = field(default_factory=list)  # abbreviations, as the original takes them
    where: str = ""
    cut: bool = False  # flags behind a comment were left out
    rivals: list[str] = field(default_factory=list)  # variables with a value a branch
    problems: list[str] = field(default_factory=list)

    def complain(self, problem: str) -> None:
        self.problems += [problem] if problem not in self.problems else []

    def same(self, other: GivenFlags) -> bool:
        """Whether both say the same of a model."""
        mine, theirs = (
            {k: str(v) for k, v in row.flags.items() if k in DEFAULTS} for row in (self, other)
        )
        return mine == theirs and kinds_of(self.script) == kinds_of(other.script)


def read_given(text: str) -> list[GivenFlags]:
    """Every command of a text that speaks of a model; at least one.

    Raises ConfigError where there is none.
    """
    settings = read_settings(text, KNOWN)
    if settings:
        return [_from_settings(row.values, row.where) for row in settings]
    pasted = read_pasted(_without_lists(text))
    found: list[GivenFlags] = []
    for one in pasted.commands:
        given = _from_command(one)
        given.rivals = pasted.rivals
        if given.script:
            found.append(given)
        elif found and found[-1].script:
            _stray_line(found[-1], one)
        elif found:
            _from_words(one.words, found[-1])  # flags, a line each
        else:
            found.append(given)
    about = [row for row in found if row.script in SCRIPTS or set(row.flags) & set(DEFAULTS)]
    if about := about or [row for row in found if row.flags or row.problems]:
        return about
    given = GivenFlags()
    for value in pasted.variables.values():
        if re.search(r"(?:^|\s)--[A-Za-z]", value):
            _from_words(value.split(), given)
    if text.strip() and not given.flags and not given.problems:
        foreign = listed([name for row in (*found, given) for name in row.foreign])
        other = f" (only {foreign})" if foreign else ": expected some such as --image_size 64"
        raise ConfigError(f"no --flags found in {trim(text)}{other}")
    return [given]


def _without_lists(text: str) -> str:
    """Lists of words (``["--image_size", "64"]``, in JSON, Python, Docker, YAML) as a shell's."""

    def joined(match: re.Match[str]) -> str:
        words = [word[1:-1] for word in _WORD.findall(match[0])]
        if not any(word.startswith("--") for word in words):
            return match[0]
        return f"{shlex.join(words)}\n"  # what follows is no more of it

    text = re.sub(r"^([ \t]*\w+:[ \t]*\n)?([ \t]*)- (?=[\"']?--)", r"\2", text, flags=re.M)
    return _WORD_LIST.sub(joined, text)


def _stray_line(before: GivenFlags, one: PastedCommand) -> None:
    """A line of flags that follows a command without belonging to it."""
    if one.after_comment:
        before.cut = True
    elif one.words[0].startswith("--"):
        before.complain(
            f"the line {trim(spelt(' '.join(one.words)))} does not belong to the command before "
            f"it: end that line with a backslash, or leave this one out"
        )


def choose(found: list[GivenFlags], kind: Kind | None, command: int | None) -> GivenFlags:
    """The one command that is meant."""
    if command is not None:
        if not 1 <= command <= len(found):
            raise ConfigError(f"--command {command!s:.20}: there are {len(found)}, counted from 1")
        return found[command - 1]
    fitting = [row for row in found if kind is None or kind in kinds_of(row.script)] or found
    if any(not row.same(fitting[0]) for row in fitting):
        titles = "; ".join(f"{i}: {_title(row)}" for i, row in enumerate(found, 1))
        raise ConfigError(
            f"{len(found)} commands that differ ({titles:.600}): say which with --command N"
        )
    return fitting[0]


def _title(given: GivenFlags) -> str:
    name = given.where or given.script or "flags"
    first = " ".join(f"--{k} {v}" for k, v in list(given.flags.items())[:3])
    return f"{name} {spelt(first)}"[:100]


def _from_settings(values: Mapping[str, Any], where: str) -> GivenFlags:
    given = GivenFlags(where=where)
    if CONSTRUCTOR in values:
        values = _from_constructor(values, given)
    for name, value in values.items():
        if name == UNNAMED:
            given.complain(f"{value} are given by their places: write names, as image_size=64")
        elif name not in KNOWN:
            given.foreign.append(name)
        elif isinstance(value, (list, tuple)):
            given.flags[name] = ",".join(map(str, value))
        elif isinstance(value, NotPlain):
            given.flags[name] = value
        elif value is not None or isinstance(KNOWN[name], str):
            given.flags[name] = "" if value is None else str(value)
    return given


def _from_constructor(values: Mapping[str, Any], given: GivenFlags) -> dict[str, Any]:
    """Arguments of the original's network classes as flags: factors become image sizes."""
    flags = {name: value for name, value in values.items() if name not in ("in_channels", "dtype")}
    width, out = flags.pop(CONSTRUCTOR), flags.pop("out_channels", 3)
    into, classes = values.get("in_channels", 3), flags.pop("num_classes", None)
    if isinstance(into, int) and into not in (3, 6):
        given.complain(f"in_channels is {into}: adm draws RGB, expected 3 (6 for upsamplers)")
    size, factors = values.get("image_size"), values.get("attention_resolutions")
    if isinstance(size, int) and isinstance(factors, (list, tuple, set)):
        flags["attention_resolutions"] = [
            size // f for f in sorted(f for f in factors if isinstance(f, int) and f > 0)
        ]
    if "pool" in flags:
        given.script = "EncoderUNetModel"
        renamed = {_OF_CLASSIFIER.get(name, name): value for name, value in flags.items()}
        return {**renamed, "classifier_width": width, "num_classes": out}
    if not {"large_size", "small_size"} & set(flags):
        given.script = "UNetModel"
    flags["num_channels"] = width
    flags["learn_sigma"] = out == 2 * into if isinstance(out, int) else out
    flags["class_cond"] = classes is not None
    if classes is not None:
        flags["num_classes"] = classes
    return flags


def _from_command(one: PastedCommand) -> GivenFlags:
    """The flags behind the script's name, where there is one."""
    words = one.words
    begin, script = 0, ""
    if not words[0].startswith("--"):
        begin, script = _find_script(words)
    given = GivenFlags(script=script)
    launcher = words[:begin]
    for i, word in enumerate(launcher):
        name, equals, value = word.partition("=")
        if _PROCESSES.fullmatch(name):
            count = value if equals else next(iter(launcher[i + 1 : i + 2]), "")
            given.processes = int(count) if count.isdecimal() and 0 < len(count) < 5 else 1
    _from_words(words[begin:], given)
    return given


def _find_script(words: Sequence[str]) -> tuple[int, str]:
    """Where the script's own flags begin, and its name."""
    for i, word in enumerate(words):
        if word.endswith(".py") and not word.startswith("-"):
            return i + 1, word.rsplit("/", 1)[-1]
        if word == "-m" and i + 1 < len(words):
            module = words[i + 1].split(".")
            if module[0] not in _NOT_SCRIPTS:
                return i + 2, f"{module[-1]}.py"
    return (0, "") if unknowns(words[0]) else (1, words[0].rsplit("/", 1)[-1])


def _from_words(words: Sequence[str], given: GivenFlags) -> None:
    """Flags and values as argparse reads them; later ones win."""
    i, known = 0, ""
    while i < len(words):
        word = words[i]
        i += 1
        if not re.match(r"--\w", word):
            if unknowns(word) == [word[1:-1]] or _ELSEWHERE.fullmatch(word):
                given.unset.append(spelt(word))
            elif word[:1] == "-" and (name := word[1:].partition("=")[0]) in KNOWN:
                given.complain(f"-{name} has one dash: the original's flags have two")
            elif known in DEFAULTS and known in given.flags and not word.startswith("-"):
                given.complain(
                    f"--{known} takes one value, got {trim(spelt(f'{given.flags[known]}'))} and "
                    f"{trim(spelt(word), 40)}: write lists with commas and no blanks"
                )
            continue
        name, equals, value = word[2:].partition("=")
        has_value = bool(equals)
        if not equals and i < len(words) and not re.match(r"--\w|-[A-Za-z]", words[i]):
            value, has_value = words[i], True
            i += 1
        known = _flag(name, value, given)
        if not known:
            given.foreign += [name] if name not in given.foreign else []
            given.unset += [value] if _ELSEWHERE.fullmatch(value) else []
        elif has_value:
            given.flags.pop(known, None)
            given.flags[known] = value
        elif known in DEFAULTS or KNOWN[known] is not False:
            given.complain(f"flag --{known} has no value")
        else:
            given.bare.append(known)


def _flag(name: str, value: str, given: GivenFlags) -> str:
    """The original's flag that is meant by ``name``; "" for none."""
    plain = name.replace("-", "_")
    if plain in KNOWN:
        return plain
    longer = [known for known in KNOWN if known.startswith(plain)] if len(plain) > 2 else []
    if given.script in _IMAGE_SCRIPTS:
        longer = [known for known in longer if not _NOT_OF_IMAGES.fullmatch(known)]
    if len(longer) == 1 and not unknowns(value) and _is_typed(longer[0], value):
        given.short.append(f"--{name} as --{longer[0]}")
        return longer[0]
    near = [f"--{known}" for known in DEFAULTS if _misspelt(plain, known)]
    if near:
        hint = did_you_mean(f"--{plain}", near) or f"; did you mean {near[0]}?"
        given.complain(f"flag --{name} is not one of the original's{hint}")
    return ""


def _misspelt(name: str, known: str) -> bool:
    """Whether two letters at most were lost, added, changed or swapped; digits tell apart."""
    if name == known.replace("_", ""):
        return True
    if name.count("_") != known.count("_") or re.findall(r"\d", name) != re.findall(r"\d", known):
        return False
    most = 2 if len(known) > 8 else 1
    if abs(len(name) - len(known)) > most:
        return False
    row = list(range(len(known) + 1))
    for i, a in enumerate(name, 1):
        before, row = row, [i]
        for j, b in enumerate(known, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
    return row[-1] <= most


def _is_typed(name: str, text: str) -> bool:
    try:
        typed(name, text)
    except ConfigError:
        return False
    return True


def typed(name: str, text: str) -> Any:
    """A flag's value in its type, as the original's parser converts it."""
    default = KNOWN[name]
    if isinstance(default, bool):
        lowered = text.lower()
        if lowered in ("yes", "true", "t", "y", "1"):
            return True
        if lowered in ("no", "false", "f", "n", "0"):
            return False
        raise ConfigError(f"--{name} must be True or False, got {trim(text)}")
    if isinstance(default, str):
        return text
    try:
        return type(default)(text)
    except ValueError:
        raise ConfigError(f"--{name} must be a number, got {trim(text)}") from None


def listed(names: Sequence[str], dashes: str = "--") -> str:
    """Names one after the other, each once."""
    return ", ".join(f"{dashes}{name}" for name in dict.fromkeys(names))
