"""A model as a graph of ONNX: in float32, for pictures of its own size, in batches of any length.

torch's exporter traces the network, with the packages of the extra ``onnx``. The file keeps what a
weights file of ours says of itself: classes, noise, what is predicted, and the terms of use.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adm_cli.checkpoints.header import ModelFile, info_metadata
from adm_cli.checkpoints.loading import Model, load_model
from adm_cli.checkpoints.places import checkpoint_path
from adm_cli.checkpoints.presets import CHECKPOINTS, EMBEDDED_TERMS, TERMS
from adm_cli.config import ClassifierConfig, UNetConfig
from adm_cli.errors import UsageError
from adm_cli.files.disk import atomic_write

_NEEDED = ("onnx", "onnxscript")
_NAMES = {  # of our arguments, in the graph
    "x": "x_t",
    "t": "timesteps",
    "y": "class_labels",
    "low_res": "low_res",
    "low_res_noise": "low_res_noise",
}
_MOST_IN_ONE = 2_000_000_000  # bytes of weights: a message of protobuf holds less than 2 GiB
_PAGE = 4096  # tensors begin at one, so that they can be mapped
_EXTERNAL = 1  # TensorProto.EXTERNAL


def check_installed() -> None:
    """Raises UsageError where a package is missing that exporting needs."""
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise UsageError(
            f"--to onnx needs {' and '.join(missing)}, which torch exports with: "
            f"pip install {' '.join(_NEEDED)} (the extra onnx of adm-cli)"
        )


def write_onnx(file: ModelFile, path: Path) -> None:
    """Writes ``file``'s network to ``path``, whole or not at all.

    Weights of more than 2 GB, which one file of ONNX cannot hold, go beside it into ``path`` with
    the model's hash and ``.data`` behind its name. Raises OutputError where it cannot be written,
    and as `load_model`.
    """
    proto = _graph(load_model(file))
    said = {**info_metadata(file.info), **_license(file), "content_sha256": file.content_sha256}
    for key, value in said.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    if sum(len(tensor.raw_data) for tensor in proto.graph.initializer) > _MOST_IN_ONE:
        _write_weights(proto, path.with_name(f"{path.name}.{file.content_sha256[:12]}.data"))
    with atomic_write(path) as opened:
        opened.write(proto.SerializeToString())


def _license(file: ModelFile) -> dict[str, str]:
    """The terms of the weights that came with adm or were published; nobody knows of others."""
    for row in CHECKPOINTS:
        if checkpoint_path(row).resolve() == file.path.resolve():
            return {"license": EMBEDDED_TERMS if row.embedded else TERMS}
    return {}


def _graph(model: Model) -> Any:
    """The network as onnx's ModelProto, its weights inside."""
    inputs = _inputs(model.config)
    batch = torch.export.Dim("batch", min=1)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            model,
            (),
            kwargs=inputs,
            input_names=[_NAMES[name] for name in inputs],
            output_names=["logits" if isinstance(model.config, ClassifierConfig) else "prediction"],
            dynamic_shapes={name: {0: batch} for name in inputs},
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # as no file was named
    return program.model_proto


def _inputs(config: UNetConfig | ClassifierConfig) -> dict[str, Tensor]:
    """Arguments of the network, of a batch of two, to be traced with."""
    found = {
        "x": torch.zeros(2, config.in_channels, *config.image_size),
        "t": torch.zeros(2),
    }
    if isinstance(config, UNetConfig):
        if config.num_classes is not None:
            found["y"] = torch.zeros(2, dtype=torch.int64)
        if config.low_res_size is not None:
            found["low_res"] = torch.zeros(2, config.in_channels, *config.low_res_size)
        if config.low_res_noise is not None:
            found["low_res_noise"] = torch.zeros(2)
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter says of itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _write_weights(proto: Any, path: Path) -> None:
    """Moves the weights of a graph to a file of their own, one after the other."""
    end = 0
    with atomic_write(path) as opened:
        for tensor in proto.graph.initializer:
            data = tensor.raw_data
            opened.write(bytes(-end % _PAGE))
            start = end + -end % _PAGE
            end = start + opened.write(data)
            for key, value in (("location", path.name), ("offset", start), ("length", len(data))):
                entry = tensor.external_data.add()
                entry.key, entry.value = key, str(value)
            tensor.data_location = _EXTERNAL
            tensor.ClearField("raw_data")
