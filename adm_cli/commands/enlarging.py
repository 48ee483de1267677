"""What draws the images of a run that ends in an upsampler: see `drawing.Draw`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from adm_cli.commands.drawing import (
    Batch,
    Draw,
    OnStep,
    Telling,
    by_batch_size,
    computed_at,
    marked,
    sampled,
    sized,
)
from adm_cli.commands.jobs import Loaded, planned

if TYPE_CHECKING:
    from torch import Tensor

    from adm_cli.config import SamplingConfig
    from adm_cli.pipeline import Pipeline
    from adm_cli.sources import Sources
    from adm_cli.storage.images import Pixels
    from adm_cli.storage.inputs import InputPictures
    from adm_cli.storage.plans import Item
    from adm_cli.storage.writing import Finished


class _Chosen:
    """Some of a set's pictures, still read one at a time."""

    def __init__(self, pictures: InputPictures, indices: Sequence[int]) -> None:
        self.pictures, self.indices = pictures, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Any:
        return self.pictures[self.indices[i]]


def load_enlarging(
    sources: Sources,
    config: SamplingConfig,
    pictures: InputPictures,
    index: Mapping[str, int],
    tell: Telling,
    *,
    device: str,
    dtype: str,
) -> Loaded:
    """An upsampler for pictures: ``index`` says which one, by an image's file."""
    from adm_cli.pipeline import choose_batch_size, load_pipeline

    pipeline = load_pipeline(sources, device=device, dtype=dtype)
    return Loaded(
        choose_batch_size(pipeline, config),
        lambda _run, plan, _items: enlarged(pipeline, planned(config, plan), pictures, index, tell),
    )


def enlarged(
    pipeline: Pipeline,
    config: SamplingConfig,
    pictures: InputPictures,
    index: Mapping[str, int],
    tell: Telling,
) -> Draw:
    """A `Draw` that enlarges pictures; see `load_enlarging`."""
    from adm_cli.pipeline import choose_batch_size, upsample
    from adm_cli.recipes import enlarged_recipe, image_recipe, run_recipe, whole_recipe
    from adm_cli.storage.writing import Finished

    common = run_recipe(pipeline, config)

    def draw(missing: Sequence[Item], size: int, on_step: OnStep) -> Iterator[Batch]:
        chosen = _for_items(config, missing, size)
        small = _Chosen(pictures, [index[item.file] for item in missing])
        done = 0
        batches = upsample(pipeline, small, chosen, on_step=on_step, on_note=tell.note)
        for batch in marked(batches):
            items = missing[done : done + len(batch.seeds)]
            images = []
            for i, item in enumerate(items):
                first = pictures.items[index[item.file]]
                recipe = enlarged_recipe(
                    image_recipe(common, pipeline, batch, i),
                    small_sha256=first.pixels_sha256,
                    base=whole_recipe(first.recipe),
                    resized=pictures.size not in (None, first.size),
                )
                images.append(Finished(item, batch.picture(i), recipe))
            yield images
            done += len(items)

    return sized(choose_batch_size(pipeline, config), draw)


def stacked(
    base: Pipeline,
    config: SamplingConfig,
    upsampler: Pipeline,
    enlarging: SamplingConfig,
    tell: Telling,
) -> Draw:
    """A `Draw` that samples small pictures and enlarges each batch at once."""
    import numpy as np
    import torch

    from adm_cli.defaults import choose_schedule
    from adm_cli.pipeline import choose_batch_size, upsample
    from adm_cli.recipes import enlarged_recipe, image_recipe, run_recipe
    from adm_cli.storage.inputs import pixels_sha256
    from adm_cli.storage.writing import Finished

    common = run_recipe(upsampler, enlarging)
    later = len(choose_schedule(upsampler.diffusion, enlarging.steps))
    size = upsampler.model.config.image_size

    draw_first = sampled(base, config, tell)

    def draw_second(small: Batch, most: int, on_step: OnStep) -> Iterator[Batch]:
        chosen = _for_items(enlarging, [f.item for f in small], most)
        images = np.stack([f.pixels for f in small if f.pixels is not None])  # all are
        done = 0
        batches = upsample(upsampler, images, chosen, on_step=on_step, on_note=tell.note)
        for batch in marked(batches):
            part = small[done : done + len(batch.seeds)]
            yield [
                Finished(
                    first.item,
                    batch.picture(i),
                    enlarged_recipe(
                        image_recipe(common, upsampler, batch, i),
                        small_sha256=pixels_sha256(images[done + i]),
                        base=first.recipe,
                    ),
                )
                for i, first in enumerate(part)
            ]
            done += len(part)

    def draw(missing: Sequence[Item], on_step: OnStep) -> Iterator[Batch]:
        def on_base_step(step: Any) -> None:
            shown = torch.nn.functional.interpolate(step.x, size)  # for whoever films it
            on_step(step._replace(i=step.i + later, x=shown))

        least = most = choose_batch_size(upsampler, enlarging)
        for (_, own), items in by_batch_size(missing, most, "base_batch_size", "batch_size"):
            for small in draw_first(of_base(items), on_base_step):
                large = [finished for finished in small if finished.pixels is None]
                good = [finished for finished in small if finished.pixels is not None]
                for images in draw_second(good, min(own, least), on_step) if good else ():
                    least = computed_at(images)  # smaller than asked for, once memory ran out
                    large += images
                yield large  # all of a batch, so that one gone on with draws the same ones together

    return draw


def plainly_stacked(base: Pipeline, config: SamplingConfig, method: str, tell: Telling) -> Draw:
    """A `Draw` that samples small pictures and enlarges each without weights."""
    from adm_cli.storage.images import to_uint8
    from adm_cli.storage.pictures import enlarge_picture

    draw_first = sampled(base, config, tell)

    def draw(missing: Sequence[Item], on_step: OnStep) -> Iterator[Batch]:
        def on_base_step(step: Any) -> None:
            small = to_uint8(step.x).cpu().numpy()
            on_step(step._replace(x=for_film([enlarge_picture(image, method) for image in small])))

        for small in draw_first(of_base(missing), on_base_step):
            yield [plainly_enlarged(f.item, f.pixels, f.recipe, method) for f in small]

    return draw


def for_film(images: Sequence[Pixels]) -> Tensor:
    """[N, 3, H, W] that becomes these images again in `to_uint8`, which truncates: half more."""
    import numpy as np
    import torch

    from adm_cli.storage.images import to_model_range

    return to_model_range(torch.from_numpy(np.stack(images))) + 0.5 / 127.5


def plainly_enlarged(
    item: Item, small: Pixels | None, base: Mapping[str, Any] | None, method: str
) -> Finished:
    """``small`` enlarged without weights, ``base`` being its recipe; None where there is none."""
    from adm_cli.recipes import plain_recipe
    from adm_cli.storage.inputs import pixels_sha256
    from adm_cli.storage.pictures import enlarge_picture
    from adm_cli.storage.writing import Finished

    if small is None:
        return Finished(item, None, None)
    large, sha256 = enlarge_picture(small, method), pixels_sha256(small)
    return Finished(
        item, large, plain_recipe(method, large.shape[:2], small_sha256=sha256, base=base)
    )


def of_base(items: Sequence[Item]) -> list[Item]:
    """A stack's images as those of its first stage."""
    sizes = [item.batch_sizes.get("base_batch_size") for item in items]
    return [
        item._replace(batch_sizes={} if size is None else {"batch_size": size})
        for item, size in zip(items, sizes, strict=True)
    ]


def _for_items(config: SamplingConfig, items: Sequence[Item], size: int) -> SamplingConfig:
    """``config`` for some of a run's images, ``size`` at once."""
    return replace(
        config,
        seeds=tuple(item.facts["seed"] for item in items),
        classes=tuple(item.facts["class"] for item in items),
        batch_size=size,
    )
