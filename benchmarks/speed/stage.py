"""What the speed benchmark runs on: a CLIP of random weights in the hub's layout, and generated pictures.

The numbers in the weights and the pictures do not matter here; their shapes and files are the real ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

Kind = Literal["png-224", "jpeg-512"]
CLASSES = [f"thing {number}" for number in range(10)]

# hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, patch_size, image_size, projection_dim
SHAPES = {
    "vit-b-16": (768, 3072, 12, 12, 16, 224, 512),
    "vit-b-32": (768, 3072, 12, 12, 32, 224, 512),
    "vit-l-14": (1024, 4096, 24, 16, 14, 224, 768),
    "small": (128, 512, 2, 2, 32, 224, 64),
    "tiny": (32, 64, 2, 2, 8, 32, 16),
}
_KEYS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size", "image_size")


def clip_config(model: str, vocabulary: int = 512) -> Any:
    """The configuration of a CLIP whose image tower has the shapes of `model`; its text tower is small."""
    from transformers import CLIPConfig

    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1}
    return CLIPConfig(
        text_config={**text, **ids, "vocab_size": vocabulary},
        vision_config=dict(zip(_KEYS, SHAPES[model], strict=False)),
        projection_dim=SHAPES[model][-1],
    )


def clip_tokenizer() -> tuple[Any, dict[str, int]]:
    """CLIP's tokenizer over single letters, and the ids that a text tower's config needs."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: place for place, word in enumerate(words)}, merges=[], model_max_length=77)
    end = len(words) - 1
    return tokenizer, {"vocab_size": len(words), "bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end}


def make_model(folder: Path, model: str, seed: int) -> Path:
    """A folder that `transformers` and gen2real load: random weights, a tokenizer of single letters."""
    import torch
    from transformers import CLIPImageProcessorPil, CLIPModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer, ids = clip_tokenizer()
    torch.manual_seed(seed)
    config = clip_config(model, ids["vocab_size"])
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    side = config.vision_config.image_size
    CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side}).save_pretrained(
        folder
    )
    return folder


def make_pictures(root: Path, count: int, kind: Kind, seed: int) -> Path:
    """An image set of `count` pictures: soft shapes with a little noise, so that the files have a usual size."""
    from gen2real.files import sha256_of
    from gen2real.imagesets import ImageSet
    from gen2real.imagesets.manifest import ClassName

    classes = [ClassName(name.replace(" ", "-"), name) for name in CLASSES]
    rows = []
    for number, picture in enumerate(_pictures(count, int(kind.split("-")[1]), seed)):
        path = root / f"{number:05d}.{'png' if kind.startswith('png') else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, quality=90)
        rows.append(
            {
                "id": path.stem,
                "path": path.name,
                "origin": "generated",
                "label": classes[number % len(classes)].label,
                "sha256": sha256_of(path),
                "kept": True,
            }
        )
    ImageSet.write(root, rows, classes)
    return root


def _pictures(count: int, side: int, seed: int) -> Iterator[Image.Image]:
    random = np.random.default_rng(seed)
    for _ in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        soft = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(np.float32)
        noisy = soft + random.normal(0, 4, (side, side, 1))
        yield Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
