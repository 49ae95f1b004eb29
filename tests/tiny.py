"""Tiny random checkpoints on disk, in the hub's own layout: stock transformers loads every one of them.

The sizes differ wherever a careless program might take them for equal: projection, width, picture, patch, context.
Stock diffusers loads the text-to-image pipelines.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordLevel
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

from gen2real.models.hub_loading import without_progress_bars

IMAGE_SIZE = 32
_LETTERS = [chr(code) for code in range(33, 127)]


def tiny_clip(folder: Path, *, seed: int = 0, image_size: int = IMAGE_SIZE, legacy_eos: bool = False) -> Path:
    """A CLIP: width 32 (pictures) and 24 (text), embeddings of 20, texts of up to 32 tokens.

    legacy_eos: the end-of-text id in the config is 2, as in old repositories, which pool at the largest id.
    """
    tokenizer, text_config = _clip_text()
    config = CLIPConfig(
        text_config={**text_config, "eos_token_id": 2} if legacy_eos else text_config,
        vision_config={**_layers(32), "image_size": image_size, "patch_size": 8},
        projection_dim=20,
    )
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    )
    return _save(folder, _random(CLIPModel, config, seed), tokenizer, processor)


def tiny_siglip(folder: Path, *, seed: int = 0) -> Path:
    """A SigLIP: embeddings of 32, texts padded to 24 tokens, a tokenizer that lower-cases."""
    words = ["</s>", "<unk>", *_LETTERS]
    inner = Tokenizer(WordLevel({token: index for index, token in enumerate(words)}, unk_token="<unk>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Split("", "isolated")])
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="</s>", pad_token="</s>", unk_token="<unk>", model_max_length=24
    )
    config = SiglipConfig(
        text_config={
            **_layers(32),
            "vocab_size": len(words),
            "max_position_embeddings": 24,
            "projection_size": 32,
            "pad_token_id": 0,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
        vision_config={**_layers(32), "image_size": IMAGE_SIZE, "patch_size": 8},
    )
    processor = SiglipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    return _save(folder, _random(SiglipModel, config, seed), tokenizer, processor)


def tiny_siglip2(folder: Path, *, seed: int = 0) -> Path:
    """A NaFlex SigLIP 2: embeddings of 32, patches of 8, texts padded to 64 tokens as its processor does."""
    vocabulary = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *_LETTERS]
    ids = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = Siglip2Tokenizer(vocab=ids, merges=[], model_max_length=64, padding_side="right")
    config = Siglip2Config(
        text_config={
            **_layers(32),
            "vocab_size": len(ids),
            "max_position_embeddings": 64,
            "projection_size": 32,
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 1,
        },
        vision_config={**_layers(32), "num_patches": 16, "patch_size": 8},
    )
    processor = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    return _save(folder, _random(Siglip2Model, config, seed), tokenizer, processor)


def tiny_gpt2(folder: Path, *, seed: int = 0, positions: int = 64, dropout: float = 0.1) -> Path:
    """A GPT-2 of width 24 over single bytes; its start and end are one token, which is no letter, as in GPT-2."""
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>"]
    inner = Tokenizer(BPE(vocab={word: index for index, word in enumerate(words)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    end = words.index("<|endoftext|>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=words[end], eos_token=words[end], unk_token=words[end]
    )
    config = GPT2Config(
        vocab_size=len(words),
        n_positions=positions,
        n_embd=24,
        n_layer=2,
        n_head=4,
        bos_token_id=end,
        eos_token_id=end,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
    )
    with without_progress_bars():
        _random(GPT2LMHeadModel, config, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_stable_diffusion(
    folder: Path, *, seed: int = 0, text_seed: int | None = None, clip: Path | None = None, **scheduler: Any
) -> Path:
    """A `StableDiffusionPipeline` that draws 32 px: latents of 4 × 16 × 16, a text tower of width 24, DDIM, no safety.

    Every picture is different and none is plain; a step takes some ten milliseconds.

    clip: a CLIP's folder, whose text tower is the pipeline's. scheduler: what it says other than DDIM's config here, as
    prediction_type="v_prediction" or rescale_betas_zero_snr=True.
    """
    from diffusers import StableDiffusionPipeline

    tokenizer, text_config = _clip_text()
    text_encoder = _random(CLIPTextModel, CLIPTextConfig(**text_config), seed if text_seed is None else text_seed)
    if clip is not None:
        with without_progress_bars():
            text_encoder = CLIPModel.from_pretrained(clip).text_model
    parts = _latent_diffusion(seed, {"cross_attention_dim": 24})
    parts["scheduler"].register_to_config(**scheduler)
    pipeline = StableDiffusionPipeline(
        **parts,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _save_pipeline(folder, pipeline)


def tiny_stable_diffusion_xl(folder: Path, *, seed: int = 0) -> Path:
    """A `StableDiffusionXLPipeline` that draws 32 px: two text towers, the second one's pooled embedding of 20."""
    from diffusers import StableDiffusionXLPipeline

    tokenizer, text_config = _clip_text()
    towers = [
        _random(kind, CLIPTextConfig(**text_config, projection_dim=20), seed + place)
        for place, kind in enumerate([CLIPTextModel, CLIPTextModelWithProjection])
    ]
    conditions = {
        "cross_attention_dim": 48,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 20 + 6 * 8,
    }
    pipeline = StableDiffusionXLPipeline(
        **_latent_diffusion(seed, conditions),
        text_encoder=towers[0],
        text_encoder_2=towers[1],
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        add_watermarker=False,
    )
    return _save_pipeline(folder, pipeline)


def _latent_diffusion(seed: int, conditions: dict[str, Any]) -> dict[str, Any]:
    """UNet, VAE and scheduler; random weights of diffusers' own size but where the text comes in."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=4,
            norm_num_groups=4,
            **conditions,
        ).eval()
        vae = AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=32,
        ).eval()
        with torch.no_grad():
            for name, parameter in unet.named_parameters():
                # With the small weights of the start the text would hardly be seen in the picture.
                if "attn2" in name and parameter.dim() > 1:
                    parameter.normal_(std=0.5)
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    return {"unet": unet, "vae": vae, "scheduler": scheduler}


def _save_pipeline(folder: Path, pipeline: Any) -> Path:
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.disable_progress_bar()
    with without_progress_bars():
        pipeline.save_pretrained(folder)
    return folder


def _clip_text() -> tuple[CLIPTokenizer, dict[str, Any]]:
    """CLIP's tokenizer over single bytes, and the config of a text tower for it: width 24, texts of up to 32 tokens."""
    vocabulary = [*_byte_letters(), "<|startoftext|>", "<|endoftext|>"]
    ids = {token: index for index, token in enumerate(vocabulary)}
    end = ids["<|endoftext|>"]
    config = {
        **_layers(24),
        "vocab_size": len(ids),
        "max_position_embeddings": 32,
        "bos_token_id": ids["<|startoftext|>"],
        "eos_token_id": end,
        "pad_token_id": end,
    }
    return CLIPTokenizer(vocab=ids, merges=[], model_max_length=32), config


def _layers(width: int) -> dict[str, Any]:
    return {"hidden_size": width, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}


def _byte_letters() -> list[str]:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [*alphabet, *(f"{letter}</w>" for letter in alphabet)]


def _random(model_class: Any, config: Any, seed: int) -> Any:
    """A model whose weights are large enough that different pictures and texts give clearly different embeddings."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.2)
                elif name.endswith("logit_scale"):
                    parameter.fill_(2.5)
                elif name.endswith("logit_bias"):
                    parameter.fill_(-10.0)
                elif name.endswith("bias"):
                    parameter.normal_(std=0.1)
    return model


def _save(folder: Path, model: Any, tokenizer: Any, image_processor: Any) -> Path:
    with without_progress_bars():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor.save_pretrained(folder)
    return folder
