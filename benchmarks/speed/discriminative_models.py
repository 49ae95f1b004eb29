"""What `discriminative.py` trains and learns from: LLaVAs of given shapes with random weights, stories of the kit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gen2real.models.multimodal import MultimodalModel

_KEYS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
# Image tower, its patch and picture sizes; language model, its vocabulary (None: the tokenizer's) and positions.
SHAPES: dict[str, tuple[tuple[int, ...], int, int, tuple[int, ...], int | None, int]] = {
    "kit-shapes": ((128, 512, 4, 4), 8, 64, (160, 432, 4, 5), None, 1024),
    "small": ((128, 512, 4, 4), 8, 64, (512, 1376, 12, 8), None, 1024),
    # LLaVA-1.5-7B: CLIP ViT-L/14 at 336 px and Vicuna, from their published configurations.
    "llava-7b": ((1024, 4096, 24, 16), 14, 336, (4096, 11008, 32, 32), 32064, 4096),
}


def random_llava(name: str, processor: Any, *, dtype: torch.dtype, device: str, seed: int) -> MultimodalModel:
    """A LLaVA of the shapes of `name`, made where it is to be trained."""
    from transformers import AutoModelForImageTextToText, CLIPVisionConfig, LlamaConfig, LlavaConfig

    seen, patch, side, read, vocabulary, positions = SHAPES[name]
    tokenizer = processor.tokenizer
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**dict(zip(_KEYS, seen, strict=True)), patch_size=patch, image_size=side),
        text_config=LlamaConfig(
            **dict(zip(_KEYS, read, strict=True)),
            vocab_size=vocabulary or len(tokenizer),
            max_position_embeddings=positions,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids(processor.image_token),
        image_seq_length=(side // patch) ** 2,
    )
    torch.manual_seed(seed)
    # On the device at once: 14 GB need not go through the machine's memory.
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    return MultimodalModel(model.eval().requires_grad_(False), processor, f"{name}, random weights")


def kit_processor(name: str) -> Any:
    """The processor of the kit's LLaVA for pictures and positions of the shapes of `name`."""
    from transformers import CLIPImageProcessorPil

    from gen2real import kit
    from gen2real.kit.build.multimodal import build_processor
    from gen2real.kit.build.settings import BuildConfig

    _, patch, side, _, _, positions = SHAPES[name]
    processor = build_processor(BuildConfig(scenes=500, multimodal_positions=positions), Path(kit.folder("clip")))
    processor.image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    processor.patch_size = patch
    return processor


def write_world(room: Path, stories: int) -> Path:
    """Stories as `gen2real kit home --split train --stories N` writes them. Returns the file."""
    from gen2real.kit.world.task_files import write_stories

    return write_stories(room / "stories", "home", "train", stories)
