"""adm: class-guided image sampling from ADM diffusion models (arXiv 2105.05233).

    from adm_cli import SamplingConfig, generate, load_pipeline

    pipeline = load_pipeline("tiny")
    for batch in generate(pipeline, SamplingConfig(seeds=(0,), classes=(207,), scale=4.0)):
        batch.images  # uint8 [N, H, W, 3]

The public names below load on first use, so importing the package is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "AdmError": "errors",
    "NotFiniteError": "errors",
    "ClassifierConfig": "config",
    "DiffusionConfig": "config",
    "SamplingConfig": "config",
    "UNetConfig": "config",
    "openai_flags": "checkpoints.flags.model",
    "NoisyClassifier": "models.classifier",
    "SuperResUNet": "models.unet",
    "UNet": "models.unet",
    "NoiseSchedule": "diffusion.schedule",
    "SampleStep": "diffusion.steps",
    "ddim_reverse": "diffusion.samplers",
    "ddim_sample": "diffusion.samplers",
    "ddpm_sample": "diffusion.samplers",
    "bench": "reports.bench",
    "dpm_solver_3m_sample": "diffusion.multistep",
    "dpm_solver_sample": "diffusion.multistep",
    "heun_sample": "diffusion.multistep",
    "unipc_sample": "diffusion.multistep",
    "classifier_guidance": "diffusion.guidance",
    "limited_guidance": "diffusion.guidance",
    "density_coverage": "evaluation.neighbours",
    "frechet_distance": "evaluation.metrics",
    "inception_score": "evaluation.metrics",
    "kernel_distance": "evaluation.metrics",
    "precision_recall": "evaluation.neighbours",
    "convert": "checkpoints.converting",
    "export": "checkpoints.exporting",
    "fetch": "checkpoints.fetching",
    "reference": "reports.references",
    "nll": "reports.nll",
    "edit": "sampling.edit",
    "interpolate": "sampling.interpolate",
    "evaluate": "reports.evaluation",
    "evaluate_classifier": "reports.judging",
    "train_classifier": "training.train",
    "train_diffusion": "training.train",
    "train_upsampler": "training.train",
    "load_model": "checkpoints.loading",
    "ImageBatch": "sampling.drawing.batch",
    "Pipeline": "sampling.drawing.pipeline",
    "find_upsampler": "checkpoints.sources",
    "generate": "sampling.drawing.pipeline",
    "load_pipeline": "sampling.drawing.pipeline",
    "enlarge": "sampling.drawing.pipeline",
    "gallery": "reports.gallery.build",
    "merge": "sampling.merge",
    "repro": "sampling.recipes.repro",
    "sample": "sampling.sample",
    "sweep": "sampling.sweeps.sweep",
    "upsample": "sampling.upsample",
    "verify": "sampling.verifying.verify",
}

__all__ = [
    "AdmError",
    "ClassifierConfig",
    "DiffusionConfig",
    "ImageBatch",
    "NoiseSchedule",
    "NoisyClassifier",
    "NotFiniteError",
    "Pipeline",
    "SampleStep",
    "SamplingConfig",
    "SuperResUNet",
    "UNet",
    "UNetConfig",
    "__version__",
    "bench",
    "classifier_guidance",
    "convert",
    "ddim_reverse",
    "ddim_sample",
    "ddpm_sample",
    "density_coverage",
    "dpm_solver_3m_sample",
    "dpm_solver_sample",
    "edit",
    "enlarge",
    "evaluate",
    "evaluate_classifier",
    "export",
    "fetch",
    "find_upsampler",
    "frechet_distance",
    "gallery",
    "generate",
    "heun_sample",
    "inception_score",
    "interpolate",
    "kernel_distance",
    "limited_guidance",
    "load_model",
    "load_pipeline",
    "merge",
    "nll",
    "openai_flags",
    "precision_recall",
    "reference",
    "repro",
    "sample",
    "sweep",
    "train_classifier",
    "train_diffusion",
    "train_upsampler",
    "unipc_sample",
    "upsample",
    "verify",
]

if TYPE_CHECKING:
    from adm_cli.checkpoints.converting import convert
    from adm_cli.checkpoints.exporting import export
    from adm_cli.checkpoints.fetching import fetch
    from adm_cli.checkpoints.flags.model import openai_flags
    from adm_cli.checkpoints.loading import load_model
    from adm_cli.checkpoints.sources import find_upsampler
    from adm_cli.config import ClassifierConfig, DiffusionConfig, SamplingConfig, UNetConfig
    from adm_cli.diffusion.guidance import classifier_guidance, limited_guidance
    from adm_cli.diffusion.multistep import (
        dpm_solver_3m_sample,
        dpm_solver_sample,
        heun_sample,
        unipc_sample,
    )
    from adm_cli.diffusion.samplers import ddim_reverse, ddim_sample, ddpm_sample
    from adm_cli.diffusion.schedule import NoiseSchedule
    from adm_cli.diffusion.steps import SampleStep
    from adm_cli.errors import AdmError, NotFiniteError
    from adm_cli.evaluation.metrics import frechet_distance, inception_score, kernel_distance
    from adm_cli.evaluation.neighbours import density_coverage, precision_recall
    from adm_cli.models.classifier import NoisyClassifier
    from adm_cli.models.unet import SuperResUNet, UNet
    from adm_cli.reports.bench import bench
    from adm_cli.reports.evaluation import evaluate
    from adm_cli.reports.gallery.build import gallery
    from adm_cli.reports.judging import evaluate_classifier
    from adm_cli.reports.nll import nll
    from adm_cli.reports.references import reference
    from adm_cli.sampling.drawing.batch import ImageBatch
    from adm_cli.sampling.drawing.pipeline import (
        Pipeline,
        enlarge,
        generate,
        load_pipeline,
    )
    from adm_cli.sampling.edit import edit
    from adm_cli.sampling.interpolate import interpolate
    from adm_cli.sampling.merge import merge
    from adm_cli.sampling.recipes.repro import repro
    from adm_cli.sampling.sample import sample
    from adm_cli.sampling.sweeps.sweep import sweep
    from adm_cli.sampling.upsample import upsample
    from adm_cli.sampling.verifying.verify import verify
    from adm_cli.training.train import train_classifier, train_diffusion, train_upsampler


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'adm_cli' has no attribute {name!r}")
    return getattr(importlib.import_module(f"adm_cli.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
