"""Drawing into a run folder: what is missing is drawn, each image is reported once it is safe."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adm_cli.commands import console, signals
from adm_cli.errors import NotFiniteError

if TYPE_CHECKING:
    from adm_cli.batches import ImageBatch
    from adm_cli.config import SamplingConfig
    from adm_cli.diffusion.steps import SampleStep
    from adm_cli.pipeline import Pipeline
    from adm_cli.storage.plans import Item, Plan
    from adm_cli.storage.runs import RunFolder, Shard
    from adm_cli.storage.writing import Finished

OnStep = Callable[["SampleStep"], None]
Batch = Sequence["Finished"]  # images that were computed at once
Draw = Callable[[Sequence["Item"], OnStep], Iterator[Batch]]


@dataclass(frozen=True)
class Telling:
    """What a command says while it draws."""

    json: bool = False
    quiet: bool = False
    images: bool = True  # each image on stdout; False where something else is the result
    folder: Path | None = None  # of the whole run, where images go into one within it

    def note(self, text: str) -> None:
        if not self.quiet:
            console.note(text)

    def result(self, record: Mapping[str, Any]) -> None:
        """A file that was made, or was there: its path, or with ``json`` all about it."""
        if self.json:
            console.print_json(record)
        else:
            print(record["path"], flush=True)


def draw_into(
    run: RunFolder,
    shard: Shard,
    items: Sequence[Item],
    draw: Draw,
    *,
    steps: int,
    tell: Telling,
    image_bytes: int = 0,
    chosen: Container[str] | None = None,
    closing: Sequence[Callable[[], None]] = (),
    goes_on: str | None = None,
) -> None:
    """Draws those of a run's ``items`` that are not there, in this process's ``shard``.

    ``draw`` gets the missing items and a function to call at every sampling step, and yields the
    images a batch at a time, in any order. What is there is told first, so that a command tells
    of all its images however often it is run, and where it stopped, what goes on: ``goes_on``, or
    the run's folder as ``--out``. ``chosen`` are the only files to draw, if given. ``closing`` is
    called at the end, even where drawing stopped: what is done is kept. Raises OutputError, before
    anything is drawn, where the disk has no room for the missing images at ``image_bytes`` each,
    and NotFiniteError, once all others are kept, if some were not finite: these stay missing.
    """
    from adm_cli.storage.writing import ImageWriter, check_room

    items = [i for i in shard.share(items) if chosen is None or i.file in chosen]
    kept = run.kept(items)
    drawn, overflowed = 0, []

    def on_record(record: Mapping[str, Any], *, new: bool = True) -> None:
        nonlocal drawn
        drawn += new
        if tell.images:
            tell.result(_described(run, record, new))

    def summary() -> None:
        done, total = len(kept) + drawn, len(items)
        if not missing:
            tell.note(f"nothing to do: {_images(total)} in {run.path}, all there")
        elif 0 < done < total:
            again = f"--out {tell.folder or run.path} goes on" if goes_on is None else goes_on
            tell.note(f"{done} of {total} images are in {run.path}; {again}")
        elif done:
            there = f" ({len(kept)} were there)" if kept else ""
            tell.note(f"{_images(total)} in {progress.elapsed():.1f} s in {run.path}{there}")

    writer = ImageWriter(run, shard, on_record)
    if len(kept) < len(items):
        check_room(run.path, (len(items) - len(kept)) * image_bytes)
        writer.open()  # refused before anything is told, if another process draws these
        kept = run.kept(items)  # it may have finished some before it let go
    missing = run.missing(shard, [item for item in items if item.file not in kept])
    progress = console.SamplingProgress(len(missing), steps, quiet=tell.quiet)

    def on_step(step: SampleStep) -> None:
        signals.check()
        progress.advance(step.x.shape[0], step.i)
        writer.poll()

    if any(item.batch_sizes for item in missing):
        tell.note("memory ran out here before: the batches stay as small as they were then")
    with ExitStack() as stack:
        stack.callback(summary)
        for call in reversed(closing):
            stack.callback(call)
        stack.push(writer)
        for record in kept.values():
            on_record(record, new=False)
        if missing:
            with progress.show():
                plan = run.read()
                for batch in draw(missing, on_step):
                    overflowed += _not_finite(run, batch, tell)
                    if good := [f for f in batch if f.pixels is not None]:
                        writer.add([_with_batch_sizes(finished, plan) for finished in good])
                    progress.finish_batch(len(batch))
    if overflowed:
        raise _overflow(run, overflowed)


def _not_finite(run: RunFolder, batch: Batch, tell: Telling) -> list[Item]:
    """Those of a batch that are not finite, each named."""
    found = [finished.item for finished in batch if finished.pixels is None]
    for item in found:
        tell.note(f"{_named(run, item)} is not finite and is not written")
    return found


def _overflow(run: RunFolder, items: Sequence[Item]) -> NotFiniteError:
    from adm_cli.batches import OVERFLOW_ADVICE

    are = "is" if len(items) == 1 else f"and {len(items) - 1:,} more are"
    return NotFiniteError(f"{_named(run, items[0])} {are} not finite: {OVERFLOW_ADVICE}")


def _named(run: RunFolder, item: Item) -> str:
    class_id = item.facts["class"]
    of = "no class" if class_id is None else f"class {class_id}"
    return f"{run.path / item.file} ({of}, seed {item.facts['seed']})"


def marked(batches: Iterator[ImageBatch]) -> Iterator[ImageBatch]:
    """Of `pipeline.generate` or `upsample`, when images that are not finite are looked for."""
    with suppress(NotFiniteError):  # raised once they are all drawn
        yield from batches


def _with_batch_sizes(finished: Finished, plan: Plan) -> Finished:
    """For its line: how many were computed at once, where that is not the run's setting."""
    from dataclasses import replace

    from adm_cli.recipes import batch_sizes

    sizes = batch_sizes(plan.kind, finished.recipe)
    usual = plan.settings.get("batch_size")
    return replace(finished, facts={k: v for k, v in sizes.items() if v != usual})


def by_batch_size(
    items: Sequence[Item], most: int, *names: str
) -> Iterator[tuple[tuple[int, ...], list[Item]]]:
    """``items`` together that are computed at the same batch sizes, the larger ones first.

    ``names`` are those of `runs.BATCH_SIZES` to go by; an item without one takes ``most``.
    """
    groups: dict[tuple[int, ...], list[Item]] = {}
    for item in items:
        sizes = tuple(min(most, item.batch_sizes.get(name, most)) for name in names)
        groups.setdefault(sizes, []).append(item)
    for sizes in sorted(groups, reverse=True):
        yield sizes, groups[sizes]


def sized(most: int, draw: Callable[[Sequence[Item], int, OnStep], Iterator[Batch]]) -> Draw:
    """A `Draw` that gives each item its batch size, at most ``most``, to ``draw``."""

    def draw_by_size(missing: Sequence[Item], on_step: OnStep) -> Iterator[Batch]:
        least = most
        for (size,), items in by_batch_size(missing, most, "batch_size"):
            for images in draw(items, min(size, least), on_step):
                least = computed_at(images)  # smaller than asked for, once memory ran out
                yield images

    return draw_by_size


def computed_at(images: Batch) -> int:
    """The batch size of images that were drawn together."""
    recipe = images[0].recipe
    assert recipe is not None
    return int(recipe["batch_size"])


def nothing(missing: Sequence[Item], on_step: OnStep) -> Iterator[Sequence[Finished]]:
    """A `Draw` for a run that missed nothing when it was looked at."""
    from adm_cli.errors import RunError

    if missing:
        raise RunError(f"{missing[0].file} has vanished just now: run the same command again")
    return iter(())


def sampled(pipeline: Pipeline, config: SamplingConfig, tell: Telling) -> Draw:
    """A `Draw` that samples: the images of `pipeline.generate`, each with its recipe."""
    from dataclasses import replace

    from adm_cli.guiding import guidance_kind
    from adm_cli.pipeline import choose_batch_size, generate
    from adm_cli.recipes import image_recipe, run_recipe
    from adm_cli.storage.writing import Finished

    common = run_recipe(pipeline, config)

    def draw(missing: Sequence[Item], size: int, on_step: OnStep) -> Iterator[Batch]:
        # Guided and unguided images share no batch: all of one kind, then all of the next.
        scales = [item.facts.get("scale", config.scale) for item in missing]
        cfgs = [item.facts.get("cfg", config.cfg) for item in missing]
        order = sorted(range(len(missing)), key=lambda i: guidance_kind(scales[i], cfgs[i]))
        items = [missing[i] for i in order]
        chosen = replace(
            config,
            seeds=tuple(item.facts["seed"] for item in items),
            classes=tuple(item.facts["class"] for item in items),
            scales=tuple(scales[i] for i in order),
            cfgs=tuple(cfgs[i] for i in order),
            batch_size=size,
        )
        done = 0
        for batch in marked(generate(pipeline, chosen, on_step=on_step, on_note=tell.note)):
            yield [
                Finished(
                    items[done + i], batch.picture(i), image_recipe(common, pipeline, batch, i)
                )
                for i in range(len(batch.seeds))
            ]
            done += len(batch.seeds)

    return sized(choose_batch_size(pipeline, config), draw)


def write_grid_of(run: RunFolder, items: Sequence[Item], shard: Shard, tell: Telling) -> None:
    """``grid.png``, a contact sheet of the first images that are there."""
    from adm_cli.storage.outputs import write_grid
    from adm_cli.storage.writing import record_file

    path = run.path / "grid.png"
    shown = write_grid(path, [run.path / name for name in run.kept(items)])
    if shown:
        record_file(run, shard, path.name, {"images": shown})
        tell.result({"path": str(path), "images": shown})


def write_npz(run: RunFolder, shard: Shard, tell: Telling) -> None:
    """All images of a finished run as the original's npz."""
    from adm_cli.storage.merging import merge_npz, open_runs
    from adm_cli.storage.writing import record_file

    plan = run.read()
    if len(run.kept(plan.items)) < len(plan.items):
        return  # interrupted: the images are safe, and the same command goes on
    count, (height, width) = len(plan.items), plan.settings["size"]
    path = run.path / f"samples_{count}x{height}x{width}x3.npz"
    if path.name not in run.present():
        merge_npz(path, *open_runs([run.path]), lambda _done: None)
        record_file(run, shard, path.name, {"images": count})
    tell.result({"path": str(path), "images": count})


def _described(run: RunFolder, record: Mapping[str, Any], new: bool) -> dict[str, Any]:
    facts = {k: v for k, v in record.items() if k not in ("file", "again", "bytes", "sha256")}
    return {
        "path": str(run.path / record["file"]), **facts, "sha256": record["sha256"], "new": new
    }  # fmt: skip


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"
