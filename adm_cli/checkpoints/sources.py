"""Which weights a run uses: found, their headers checked, and whether they belong together."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adm_cli.checkpoints.finding import check_here, find_weights
from adm_cli.checkpoints.header import ModelFile, ModelInfo
from adm_cli.checkpoints.presets import ENLARGEMENTS, PRESETS, Preset, find_preset
from adm_cli.classes.imagenet import listed_classes
from adm_cli.config import Kind, UNetConfig
from adm_cli.diffusion.modifiers import Modifiers
from adm_cli.errors import UsageError, an, size_words
from adm_cli.files.strict import type_checked

DEFAULT_PASSES = 8  # of back projection: leave a hundredth of the difference, or less


@dataclass(frozen=True)
class Sources:
    """Which weights a run uses, headers checked, tensors not yet read."""

    model_name: str
    model: ModelFile
    classifier_name: str | None
    classifier: ModelFile | None
    preset: Preset | None
    weak: ModelFile | None = None  # what autoguidance leads away from

    @property
    def called(self) -> str:
        """The model as messages name it."""
        return self.model.called if self.preset is None else self.model_name

    @property
    def classes(self) -> dict[int, str]:
        """The classes both models were trained on; empty where neither takes a class."""
        config = self.model.info.config
        assert isinstance(config, UNetConfig)
        known = [] if config.num_classes is None else [dict(self.model.info.classes)]
        if self.classifier is not None:
            known.append(dict(self.classifier.info.classes))
        if self.weak is not None and _labels(self.weak) is not None:
            known.append(dict(self.weak.info.classes))
        if not known:
            return {}
        return {i: name for i, name in known[0].items() if all(i in other for other in known)}


def find_sources(
    model: str | Path = "tiny",
    classifier: str | Path | None = None,
    *,
    guided: bool = True,
    weak: str | Path | None = None,
    noisy: bool = True,
) -> Sources:
    """Finds the weights of a preset, checkpoint or file, and the classifier that guides it.

    ``classifier`` None takes the preset's. Without ``guided`` no classifier is looked for; ``weak``
    is a weaker model of the same kind, for autoguidance. With ``noisy`` the classifier must know
    the model's noise, else it is to look at predictions of x_0. Raises
    as `loading.find_weights`, and UsageError where the two do not belong together.
    """
    preset = find_preset(model)
    name: str | Path | None = classifier
    if name is None and preset is not None:
        name = preset.classifier
    needed = (model, name if guided else None, weak)
    check_here([str(one) for one in needed if one is not None])
    model_file = find_weights(model)
    if model_file.info.kind != "diffusion":
        raise UsageError(
            f"{model} holds {an(model_file.info.kind)} model, --model expects a diffusion model"
            f"{_use(model, model_file.info.kind)}"
        )
    classifier_file = find_weights(name) if guided and name is not None else None
    sources = Sources(
        preset.name if preset else model_file.name,
        model_file,
        None if classifier_file is None else classifier_file.name,
        classifier_file,
        preset,
        None if weak is None else find_weights(weak),
    )
    if classifier_file is not None:
        check_pair(model_file.info, model_file.called, classifier_file)
        if noisy:
            check_noise(model_file.info, model_file.called, classifier_file, "--classifier-on x0")
    if sources.weak is not None:
        _check_weak(model_file, sources.weak)
    return sources


def _use(name: str | Path, kind: Kind) -> str:
    """What a model that draws nothing by itself is for."""
    typed = shlex.quote(str(name))
    if kind == "classifier":
        return f": pass {typed} as --classifier, beside the --model that it guides"
    stack = next((row.name for row in PRESETS if row.upsampler == str(name)), None)
    both = "" if stack is None else f", --model {stack} draws what it enlarges"
    python = f"load_pipeline(find_upsampler({str(name)!r})), for enlarge"
    return f": what enlarges pictures is adm upsample --model {typed}{both} (in Python {python})"


@type_checked
def find_upsampler(name: str | Path) -> Sources:
    """The weights of an upsampler, as `load_pipeline` takes them.

    ``name`` is a checkpoint, a file, or a stack's preset, whose upsampler is meant. Raises as
    `loading.find_weights`, and UsageError for any other kind of model.
    """
    if name in ENLARGEMENTS:
        raise UsageError(
            f"{name} is no upsampler but a filter, for adm sample --upsampler {name}: "
            f"pass a checkpoint or a weights file"
        )
    stacks = [row for row in PRESETS if row.upsampler not in (None, *ENLARGEMENTS)]
    preset = next((row for row in stacks if str(name) in (row.name, row.upsampler)), None)
    file = find_weights(preset.upsampler if preset is not None and preset.upsampler else name)
    if file.info.kind != "upsampler":
        raise UsageError(f"{name} holds {an(file.info.kind)} model, expected an upsampler")
    return Sources(file.name, file, None, None, preset)


def default_projection(info: ModelInfo) -> int:
    """Passes of back projection after an upsampler: none for the published, which the paper's are.

    Those that `adm` trained say so themselves, those of detail alone agree with the small picture
    as they are. None after other models, either.
    """
    if not isinstance(info.config, UNetConfig) or info.config.detail_scale is not None:
        return 0
    return DEFAULT_PASSES if info.training and info.kind == "upsampler" else 0


def choose_low_res_noise(upsampler: Sources, asked: float | None) -> float | None:
    """How much noise is laid on what ``upsampler`` enlarges; None where it knows of none.

    By default a tenth of the largest that it was trained with. Raises UsageError for more than
    that, or any where it was trained without.
    """
    config = upsampler.model.info.config
    assert isinstance(config, UNetConfig)
    largest = config.low_res_noise
    if asked is None:
        return None if largest is None else largest / 10
    if largest is None:
        raise UsageError(
            f"{upsampler.called} was trained without noise on the small pictures: "
            f"leave it out (adm train-upsampler --noise-augment trains with it)"
        )
    if not 0 <= asked <= largest:
        raise UsageError(
            f"noise {asked:g} on the small pictures: expected 0 to {largest:g}, which "
            f"{upsampler.called} was trained with"
        )
    return asked


def check_stack(base: Sources, upsampler: Sources) -> None:
    """Raises UsageError unless the one enlarges what the other makes."""
    theirs, ours = upsampler.model.info.config, base.model.info.config
    assert isinstance(theirs, UNetConfig)
    if theirs.low_res_size != ours.image_size:
        raise UsageError(
            f"{upsampler.called} enlarges {size_words(theirs.low_res_size or (0, 0))} "
            f"pictures, {base.called} makes {size_words(ours.image_size)}: pass another "
            f"--upsampler, or --no-upsample"
        )
    for class_id, name in base.classes.items():
        other = upsampler.classes.get(class_id, name)
        if theirs.num_classes is not None and other != name:
            raise UsageError(
                f"class {class_id} is {name} to {base.called} but {other} to "
                f"{upsampler.called}: they do not belong together"
            )


def check_pair(model: ModelInfo, name: str, classifier: ModelFile) -> None:
    """Raises UsageError unless the classifier can guide ``model``, which messages call ``name``."""
    theirs, ours = classifier.info.config, model.config
    if classifier.info.kind != "classifier":
        raise UsageError(
            f"{classifier.path} holds {an(classifier.info.kind)} model, expected a classifier"
        )
    if theirs.image_size != ours.image_size:
        raise UsageError(
            f"the classifier {classifier.called} is for {size_words(theirs.image_size)} images, "
            f"the model {name} makes {size_words(ours.image_size)}: "
            f"pass a --classifier of that size"
        )
    if ours.num_classes is not None and theirs.num_classes != ours.num_classes:
        raise UsageError(
            f"the classifier {classifier.called} knows {theirs.num_classes} classes, the model "
            f"{name} {ours.num_classes}: pass a --classifier trained on the same classes"
        )
    mine, other = model.classes, classifier.info.classes
    both = [i for i in mine if i in other]
    if ours.num_classes is not None and not both:
        raise UsageError(
            f"{classifier.called} and {name} were trained on different classes: "
            f"pass a --classifier trained on the same"
        )
    if ours.num_classes is not None and (wrong := [i for i in both if mine[i] != other[i]]):
        raise UsageError(
            f"class {wrong[0]} is {mine[wrong[0]]} to the model {name} but "
            f"{other[wrong[0]]} to the classifier {classifier.called}: they do not belong together"
        )


def check_noise(model: ModelInfo, name: str, classifier: ModelFile, mend: str) -> None:
    """Raises UsageError unless the classifier learned the noise of the model ``name``."""
    a, b = model.diffusion, classifier.info.diffusion
    if (a.noise_schedule, a.num_timesteps) != (b.noise_schedule, b.num_timesteps):
        both = ((name, model), (classifier.called, classifier.info))
        own = [name for name, info in both if _by_flags(info)]
        again = (
            f"; if {' or '.join(own)} learned the other's, adm convert it "
            f"again with --noise_schedule and --diffusion_steps in --flags"
        )
        raise UsageError(
            f"the classifier {classifier.called} learned the noise of a {b.noise_schedule} "
            f"schedule of {b.num_timesteps} steps, the model uses {a.noise_schedule} of "
            f"{a.num_timesteps}: "
            f"pass another --classifier, or {mend}{again if own else ''}"
        )


def _by_flags(info: ModelInfo) -> bool:
    """Whether it was converted by what somebody said, and is no published checkpoint."""
    return "file" in info.source and "checkpoint" not in info.source


def _check_weak(model: ModelFile, weak: ModelFile) -> None:
    """Raises UsageError unless both predict the same of the same noise, for the same classes."""
    theirs, ours = weak.info, model.info
    if theirs.kind != "diffusion":
        raise UsageError(
            f"{weak.path} holds {an(theirs.kind)} model, expected a diffusion model for "
            f"--weak-model"
        )
    sizes = [(info.config.image_size, info.config.in_channels) for info in (theirs, ours)]
    if sizes[0] != sizes[1]:
        raise UsageError(
            f"the weak model {weak.called} makes {size_words(theirs.config.image_size)} images, "
            f"the model {model.called} {size_words(ours.config.image_size)}: pass a --weak-model "
            f"of that size"
        )
    for name in ("prediction", "noise_schedule", "num_timesteps"):
        mine, other = getattr(ours.diffusion, name), getattr(theirs.diffusion, name)
        if mine != other:
            raise UsageError(
                f"the weak model {weak.called} and {model.called} differ in "
                f"{name.replace('_', ' ')} ({other}, {mine}): pass a --weak-model that was "
                f"trained alike"
            )
    if _labels(weak) is None:  # it leads away from what has no class
        return
    both = [i for i in ours.classes if i in theirs.classes]
    wrong = [i for i in both if ours.classes[i] != theirs.classes[i]]
    if _labels(weak) != _labels(model) or not both or wrong:
        raise UsageError(
            f"the weak model {weak.called} and {model.called} were trained on different classes: "
            f"pass a --weak-model trained on the same"
        )


def _labels(file: ModelFile) -> int | None:
    """How many classes a diffusion model knows; None: it takes none."""
    config = file.info.config
    assert isinstance(config, UNetConfig)
    return config.num_classes


def _weak_without_class(sources: Sources) -> bool:
    """Whether the weak model, if there is one, can draw without a class."""
    if sources.weak is None:
        return True
    config = sources.weak.info.config
    assert isinstance(config, UNetConfig)
    return config.num_classes is None or config.null_class


def check_classes(sources: Sources, classes: Sequence[int | None]) -> None:
    """Raises UsageError unless every class is one that the models were trained on."""
    config = sources.model.info.config
    assert isinstance(config, UNetConfig)
    if None in classes and config.num_classes is not None and not config.null_class:
        raise UsageError(
            f"{sources.called} was not trained to draw without a class: every image needs one"
        )
    if None in classes and not _weak_without_class(sources):
        raise UsageError("the weak model was not trained to draw without a class: pass --class")
    known = sources.classes
    for class_id in classes:
        if class_id is not None and class_id not in known:
            has = f", but on {listed_classes(known)}" if known else ""
            raise UsageError(
                f"{_lacking(sources, class_id)} was not trained on class {class_id}{has}"
            )


def _lacking(sources: Sources, class_id: int) -> str:
    """The model that does not know a class, as messages call it."""
    if class_id in sources.model.info.classes:
        others = ((sources.classifier, "classifier"), (sources.weak, "weak model"))
        for file, what in others:
            if file is not None and class_id not in file.info.classes:
                return f"the {what} {file.called}"
    return sources.called


def check_cfg(sources: Sources, negative: int | None = None) -> None:
    """Raises UsageError unless the model can also draw without a class, as --cfg needs.

    Away from a ``negative`` class it need not.
    """
    config = sources.model.info.config
    assert isinstance(config, UNetConfig)
    if config.num_classes is None:
        raise UsageError(
            f"{sources.called} is unconditional: --cfg needs a model that takes a class and "
            f"also draws without one; leave it out, or guide by a classifier (--scale)"
        )
    if negative is not None:
        return
    if not config.null_class:
        raise UsageError(
            f"{sources.called} was not trained to draw without a class, which --cfg needs: "
            f"leave it out, train a model that was (adm train-diffusion --label-dropout 0.1), or "
            f"name a class to lead away from (--negative-class)"
        )
    if not _weak_without_class(sources):
        raise UsageError(
            "the weak model was not trained to draw without a class, which --cfg needs: "
            "pass --cfg 1, or another --weak-model"
        )


def check_middle_attention(sources: Sources, changes: Modifiers) -> None:
    """Raises UsageError where self-guidance is asked of a model without attention to change."""
    config = sources.model.info.config
    assert isinstance(config, UNetConfig)
    for name in ("sag_scale", "pag_scale"):
        if getattr(changes, name) != 1 and not config.middle_attention:
            raise UsageError(
                f"--{name.replace('_', '-')} {getattr(changes, name):g} needs attention in the "
                f"middle of the model, and {sources.called} has none: leave it out"
            )
