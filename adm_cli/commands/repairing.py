"""What of a run is to be drawn again, by its own settings: weights, inputs, batch sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adm_cli.commands import options
from adm_cli.commands.jobs import Loaded, load_sampling
from adm_cli.errors import RunError

if TYPE_CHECKING:
    from adm_cli.commands.drawing import Telling
    from adm_cli.sources import Sources
    from adm_cli.storage.checkpoints import ModelFile
    from adm_cli.storage.inputs import InputPicture, InputPictures
    from adm_cli.storage.manifests import Record
    from adm_cli.storage.plans import Item, Plan
    from adm_cli.storage.runs import RunFolder
    from adm_cli.storage.verifying import Finding

Load = Callable[[], Loaded]


@dataclass(frozen=True)
class Given:
    """What the command line says beside a run's settings."""

    model: Sequence[str] = ()
    classifier: str | None = None
    upsampler: str | None = None
    inputs: Sequence[Path] = ()
    device: str | None = None


@dataclass(frozen=True)
class Lost:
    """What is to be made again, and all that must be known of it before it is removed."""

    names: set[str]
    images: Sequence[Item]  # with the batch sizes of those whose line is lost too
    films: Mapping[str, Mapping[str, Any] | None]  # None: not known how it was made
    records: Mapping[str, Record]  # of everything, as it was
    without: Mapping[str, str] = field(default_factory=dict)  # images, and what they lack

    def items(self, plan: Plan) -> list[Item]:
        """Of the images to draw, those for films included."""
        files = {item.file for item in self.images}
        files |= {name for film in self.films.values() if film for name in film["images"]}
        return [item for item in plan.items if item.file in files]


def find_lost(run: RunFolder, plan: Plan, findings: Sequence[Finding]) -> Lost:
    """Looks at what was found to be wrong, while it is there."""
    from adm_cli.recipes import batch_sizes
    from adm_cli.storage.images import read_description
    from adm_cli.storage.outputs import film_facts, film_in
    from adm_cli.storage.verifying import LOST

    names = {finding.file for finding in findings if finding.kind in LOST}
    records = run.records()
    images = [item for item in plan.items if item.file in names]
    for i, item in enumerate(images):
        if item.file not in records:  # if it is whole, it says itself
            recipe = read_description(run.path / item.file)
            images[i] = item._replace(batch_sizes=batch_sizes(plan.kind, recipe))
    films: dict[str, Mapping[str, Any] | None] = {}
    wanted = {item.file for item in plan.items}
    for name in sorted(names - wanted):
        if Path(name).suffix.lower() in (".gif", ".webp"):
            facts = film_facts(records.get(name)) or film_in(run.path / name)
            films[name] = facts if facts and wanted.issuperset(facts["images"]) else None
    return Lost(names, images, films, records)


def find_loader(
    run: RunFolder, plan: Plan, lost: Lost, given: Given, tell: Telling
) -> tuple[Load, dict[str, str]]:
    """What loads all that draws the lost images, and which of them have no small picture now.

    Raises UsageError or RunError where the weights of the run are not found.
    """
    try:
        return _find_loader(run, plan, lost.items(plan), given, tell)
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"the settings of {run.path} are damaged: {error}") from error


def _find_loader(
    run: RunFolder, plan: Plan, items: Sequence[Item], given: Given, tell: Telling
) -> tuple[Load, dict[str, str]]:
    from adm_cli.recipes import plan_config

    if plan.kind not in ("sample", "stack", "upsample"):
        raise RunError(f"{run.path} is a run of adm {plan.kind:.40}, which draws no images")
    where = {"device": given.device or plan.settings["device"]}
    if plan.kind == "stack":
        return _stack_loader(run, plan, items, given, tell), {}
    dtype = plan.settings["dtype"]
    if plan.kind == "sample":
        sources = _sampling_sources(run, plan, given)
        config = plan_config(plan, items)
        return partial(load_sampling, sources, config, tell, **where, dtype=dtype), {}
    from adm_cli.commands.enlarging import load_enlarging

    sources = _upsampler(run, plan, "model", "--model", given)
    pictures, index, without = _inputs(run, items, sources, given)
    config = plan_config(plan, items)
    load = partial(load_enlarging, sources, config, pictures, index, tell, **where, dtype=dtype)
    return load, without


def _stack_loader(
    run: RunFolder, plan: Plan, items: Sequence[Item], given: Given, tell: Telling
) -> Load:
    from adm_cli.commands.sample_outputs import Outputs
    from adm_cli.commands.stacks import PlainStage, Stage, load_stack
    from adm_cli.presets import ENLARGEMENTS
    from adm_cli.recipes import plain_base_plan, plan_config, split_plan
    from adm_cli.storage.runs import BASE, Shard

    sources = _sampling_sources(run, plan, given)
    small, method = sources.model.info.config.image_size, plan.settings.get("upsampler")
    stage: Stage | PlainStage
    if method in ENLARGEMENTS:
        base, stage = plain_base_plan(plan, small), PlainStage(method)
        dtypes = {base.settings["dtype"]}
    else:
        upsampler = _upsampler(run, plan, "upsampler", "--upsampler", given)
        base, later = split_plan(plan, small)
        names = {item.file for item in items}
        enlarging = plan_config(later, [item for item in later.items if item.file in names])
        stage = Stage(upsampler, enlarging)
        dtypes = {base.settings["dtype"], later.settings["dtype"]}
    return partial(
        load_stack,
        sources,
        plan_config(base, items),
        stage,
        base,
        Outputs(run.path, base.settings["format"], False, None, False, Shard()),
        tell,
        keep_base=run.inner(BASE).exists(),
        device=given.device or plan.settings["device"],
        dtype=dtypes.pop() if len(dtypes) == 1 else "auto",  # each model's own
    )


def _sampling_sources(run: RunFolder, plan: Plan, given: Given) -> Sources:
    from adm_cli.sources import find_sources

    guide = plan.settings["classifier_sha256"]
    names = plan.environment
    mine = _one_of(given.model, plan.settings["model_sha256"])
    sources = find_sources(
        options.recorded_weights("--model", mine, names["model"], run.path),
        options.recorded_weights(
            "--classifier", given.classifier, names["classifier"] if guide else None, run.path
        ),
        guided=guide is not None,
    )
    _check_same(run, "model", "--model", sources.model, plan.settings["model_sha256"])
    _check_same(run, "classifier", "--classifier", sources.classifier, guide)
    return sources


def _upsampler(run: RunFolder, plan: Plan, name: str, option: str, given: Given) -> Sources:
    from adm_cli.sources import find_upsampler

    digest = plan.settings["model_sha256" if name == "model" else f"{name}_model_sha256"]
    mine = _one_of(given.model, digest) if name == "model" else given.upsampler
    recorded = options.recorded_weights(option, mine, plan.environment[name], run.path)
    sources = find_upsampler(recorded)
    _check_same(run, "upsampler", option, sources.model, digest)
    return sources


def _one_of(names: Sequence[str], digest: str) -> str | None:
    """Of several models that were given, the one with this hash."""
    from adm_cli.loading import find_weights

    if len(names) > 1:
        names = [n for n in names if find_weights(n).content_sha256 == digest] or names
    return names[0] if names else None


def _check_same(
    run: RunFolder, what: str, option: str, file: ModelFile | None, digest: str | None
) -> None:
    if (None if file is None else file.content_sha256) != digest:
        raise RunError(f"{run.path} was drawn with another {what}: pass its file with {option}")


def _inputs(
    run: RunFolder, items: Sequence[Item], sources: Sources, given: Given
) -> tuple[InputPictures, dict[str, int], dict[str, str]]:
    """The pictures that images were made from, which is whose, and the images without one."""
    from adm_cli.config import UNetConfig
    from adm_cli.storage.inputs import InputPictures, find_inputs

    assert isinstance(sources.model.info.config, UNetConfig)
    size = sources.model.info.config.low_res_size
    assert size is not None
    wanted = [(str(item.facts["input"]), str(item.facts["small_sha256"])) for item in items]
    found: list[InputPicture] = []
    index: dict[str, int] = {}
    without: dict[str, str] = {}
    pictures = find_inputs(wanted, run.path, given.inputs, size)
    for item, (where, _), picture in zip(items, wanted, pictures, strict=True):
        if picture is None:
            without[item.file] = where
            continue
        index[item.file] = len(found)
        found.append(picture)
    return InputPictures(found, size), index, without
