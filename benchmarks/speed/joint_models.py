"""What `joint.py` runs on: a CLIP and a Stable Diffusion of one text tower, and captioned pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from stage import SHAPES, clip_tokenizer

# Of stable-diffusion-v1-5, from its published configuration.
_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_UNET = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}


def kit_models(room: Path, seed: int) -> None:
    """`room/clip` and `room/generator` are the kit's; the seed changes nothing."""
    from gen2real import kit

    for name in ("clip", "generator"):
        (room / name).symlink_to(Path(kit.folder(name)).absolute())


def sd15_models(room: Path, seed: int) -> None:
    """The shapes of CLIP ViT-L/14 and Stable Diffusion 1.5 with random weights and a tokenizer of single letters."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    torch.manual_seed(seed)
    tokenizer, ids = clip_tokenizer()
    width, inner, layers, heads, patch, side, dim = SHAPES["vit-l-14"]
    vision = {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "patch_size": patch,
        "image_size": side,
    }
    # The vocabulary is the real one's size; the tokenizer's letters are its first.
    clip = CLIPModel(
        CLIPConfig(text_config={**_TEXT, **ids, "vocab_size": 49408}, vision_config=vision, projection_dim=dim)
    )
    clip.save_pretrained(room / "clip")
    tokenizer.save_pretrained(room / "clip")
    CLIPImageProcessorPil(crop_size=side, size={"shortest_edge": side}).save_pretrained(room / "clip")
    StableDiffusionPipeline(
        vae=AutoencoderKL(**_VAE),
        unet=UNet2DConditionModel(**_UNET),
        scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False),
        text_encoder=clip.text_model,
        tokenizer=tokenizer,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(room / "generator")


def make_pictures(folder: Path, count: int, side: int) -> None:
    """Captioned pictures of the kit's world, of `side` pixels."""
    from gen2real.files import sha256_of
    from gen2real.imagesets import ImageSet
    from gen2real.kit.world import write_image_set

    made = write_image_set(folder.with_name("small"), "home", "train", count)
    rows = []
    for row, path in zip(made.rows(), made.paths, strict=True):
        own = folder / row["path"]
        own.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BICUBIC).save(own)
        rows.append({**row, "label": None, "sha256": sha256_of(own)})
    ImageSet.write(folder, rows, [])
