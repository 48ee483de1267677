"""``adm upsample``: pictures enlarged by an upsampler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from adm_cli.commands import completing, console, options
from adm_cli.commands.drawing import Telling
from adm_cli.commands.enlarging import load_enlarging
from adm_cli.commands.jobs import Job, Loaded, run_job
from adm_cli.commands.labelling import choose_images
from adm_cli.commands.sample_outputs import Outputs, automatic, choose_outputs
from adm_cli.commands.stacks import enlarging_config
from adm_cli.errors import RunError, UsageError

if TYPE_CHECKING:
    from adm_cli.config import SamplingConfig
    from adm_cli.sources import Sources
    from adm_cli.storage.inputs import InputPictures
    from adm_cli.storage.plans import Plan


def upsample(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="Pictures, folders of them, npz files of the original's, or runs of adm sample.",
            show_default=False,
        ),
    ],
    model: Annotated[
        Optional[str],
        typer.Option(
            "--model",
            "-m",
            autocompletion=completing.complete_enlarging,
            help="Upsampler: checkpoint name, weights file, or a stack's preset. Default: the "
            "known one for pictures of this size.",
        ),
    ] = None,
    class_: Annotated[
        Optional[str],
        typer.Option(
            "--class",
            "-c",
            help="Class of every picture (id, name or none). Default: what comes with each.",
        ),
    ] = None,
    sampler: Annotated[
        Optional[str],
        typer.Option(
            "--sampler",
            autocompletion=options.complete_sampler,
            help=f"{options.SAMPLERS}. Default: ddpm.",
        ),
    ] = None,
    steps: Annotated[
        Optional[str],
        typer.Option("--steps", help="Respacing, as in adm sample. Default: the model's."),
    ] = None,
    eta: options.Eta = None,
    seed: Annotated[
        Optional[int],
        typer.Option(
            "--seed",
            help="Seed of the first picture; each next one adds 1. Default: what comes with each "
            "picture, else a number made of its pixels.",
        ),
    ] = None,
    seeds: Annotated[
        Optional[str],
        typer.Option("--seeds", help="Exact seeds; every picture is enlarged with each of them."),
    ] = None,
    project: Annotated[Optional[int], typer.Option("--project", help=options.PROJECT_HELP)] = None,
    noise: Annotated[
        Optional[float], typer.Option("--noise", help=options.LOW_RES_NOISE_HELP)
    ] = None,
    batch_size: options.Batch = None,
    resize: Annotated[
        bool,
        typer.Option("--resize", help="Fit pictures of another size: cut to shape, then averaged."),
    ] = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    clip: options.Clip = True,
    shard: options.ShardOption = None,
    out: options.RunOut = None,
    format: options.Format = "png",
    grid: options.Grid = False,
    animate: options.Animate = None,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Enlarge pictures with an upsampler, in the order of the inputs.

    adm upsample out/0001 --model 64_256_upsampler

    adm upsample small.png --class "golden retriever" --seeds 0-3
    """
    from adm_cli.devices import choose_device, choose_dtype
    from adm_cli.recipes import run_plan
    from adm_cli.sources import find_upsampler

    part = options.find_part(shard, device, out)
    tell = Telling(json, quiet or not part.speaks, images=format != "npz")
    sources = None if model is None else find_upsampler(model)
    pictures = _read(inputs, sources, resize, tell)
    sources = sources or _upsampler_for(pictures)
    _check_sizes(pictures, sources)
    outputs = choose_outputs(out, format, grid, animate, overwrite, part.shard)
    items, index = choose_images(pictures, sources, class_, seed, seeds, outputs.suffix)
    images = [(item.facts["class"], item.facts["seed"]) for item in items]
    config = enlarging_config(
        sources, images, sampler=sampler, steps=steps, eta=eta, batch_size=batch_size, clip=clip,
        project=project, low_res_noise=noise,
    )  # fmt: skip
    where = choose_device(part.device)
    compute = choose_dtype(dtype, where, use_fp16=sources.model.info.config.use_fp16)
    plan = run_plan(
        sources, config, items, where, compute, kind="upsample", format=outputs.suffix[1:]
    )
    if dry_run:
        _show_plan(sources, config, plan, outputs, len(pictures), json)
        return
    _check_same_inputs(plan, outputs)

    def load() -> Loaded:
        return load_enlarging(
            sources, config, pictures, index, tell, device=part.device, dtype=dtype
        )

    run_job(Job(plan, outputs, tell, load))


def _read(
    inputs: list[Path], sources: Sources | None, resize: bool, tell: Telling
) -> InputPictures:
    from adm_cli.config import UNetConfig
    from adm_cli.storage.inputs import open_inputs

    size = None
    if resize:
        if sources is None:
            raise UsageError("--resize needs --model, which says to what size")
        assert isinstance(sources.model.info.config, UNetConfig)
        size = sources.model.info.config.low_res_size
    with _counting(tell) as on_picture:
        return open_inputs(inputs, resize=size, on_picture=on_picture)


@contextmanager
def _counting(tell: Telling) -> Iterator[Callable[[int], None]]:
    """Tells how many pictures are read, where a person would wonder what is going on."""
    if tell.quiet or not console.err.is_terminal:
        yield lambda _count: None
        return
    with console.err.status("reading pictures") as status:
        yield lambda count: status.update(f"reading pictures: {count:,}")


def _upsampler_for(pictures: InputPictures) -> Sources:
    """The known upsampler for pictures of this size; raises UsageError where there is none."""
    from adm_cli.config import UNetConfig
    from adm_cli.presets import CHECKPOINTS
    from adm_cli.sources import find_upsampler

    (size, count), *_ = Counter(item.size for item in pictures.items).most_common()
    known = {}
    for row in CHECKPOINTS:
        if isinstance(row.config, UNetConfig) and row.config.low_res_size is not None:
            known[row.config.low_res_size] = row.name
    if size in known:
        return find_upsampler(known[size])
    listed = ", ".join(f"{name} ({_size(small)})" for small, name in known.items())
    raise UsageError(
        f"{count} of {len(pictures)} pictures are {_size(size)}, and no known upsampler enlarges "
        f"these: pass --model, perhaps with --resize (there are {listed})"
    )


def _check_sizes(pictures: InputPictures, sources: Sources) -> None:
    from adm_cli.config import UNetConfig

    assert isinstance(sources.model.info.config, UNetConfig)
    size = sources.model.info.config.low_res_size
    assert size is not None
    wrong = [] if pictures.size is not None else [i for i in pictures.items if i.size != size]
    if wrong:
        raise UsageError(
            f"{len(wrong)} of {len(pictures)} pictures are not {_size(size)}, which "
            f"{sources.model_name} enlarges, e.g. {wrong[0].where} ({_size(wrong[0].size)}): "
            f"pass --resize to fit them, or another --model"
        )


def _check_same_inputs(plan: Plan, outputs: Outputs) -> None:
    """Raises RunError where images of the run were made from other pictures or with other seeds."""
    from adm_cli.storage.runs import RunFolder

    if outputs.overwrite or outputs.out is None:
        return
    kept = RunFolder(outputs.out).kept(plan.items)
    for item in plan.items:
        record = kept.get(item.file, {})
        for name in ("small_sha256", "class", "seed"):
            if record and record.get(name) != item.facts[name]:
                what = "another picture" if name == "small_sha256" else f"another {name}"
                raise RunError(
                    f"{outputs.out / item.file} was made from {what} than {item.facts['input']} "
                    f"now gives: choose another --out, or pass --overwrite to start anew"
                )


def _show_plan(
    sources: Sources, config: SamplingConfig, plan: Plan, outputs: Outputs, count: int, json: bool
) -> None:
    from adm_cli.storage.runs import RunFolder

    mine, run = outputs.shard.share(plan.items), RunFolder(outputs.folder)
    run.check(plan, automatic=automatic(plan), overwrite=outputs.overwrite)
    there = [] if outputs.overwrite else run.kept(mine)
    facts: dict[str, Any] = {
        "model": sources.model_name,
        "model_sha256": sources.model.content_sha256,
        "sampler": config.sampler,
        "steps": plan.settings["steps"],
        "num_steps": plan.settings["num_steps"],
        "eta": config.eta,
        "project": config.project,
        "low_res_noise": config.low_res_noise,
        "pictures": count,
        "classes": list(dict.fromkeys(config.classes)),
        "images": len(plan.items),
        "size": plan.settings["size"],
        "batch_size": config.batch_size,
        "device": plan.settings["device"],
        "dtype": plan.settings["dtype"],
        "out": str(outputs.folder),
        "format": outputs.format,
        "shard": str(outputs.shard),
        "to_draw": len(mine) - len(there),
    }
    if json:
        console.print_json(facts)
        return
    facts["classes"] = ", ".join("none" if c is None else str(c) for c in facts["classes"][:20])
    facts["size"] = "x".join(map(str, facts["size"]))
    for name, value in facts.items():
        text = "auto" if name == "batch_size" and value is None else value
        print(f"{name:14} {'-' if text in (None, '') else console.one_line(str(text))}")


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
