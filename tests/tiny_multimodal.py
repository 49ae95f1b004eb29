"""Tiny random multimodal models on disk, each in the layout that its family has on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)
from transformers.utils import logging

from tiny import IMAGE_SIZE

LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
IDEFICS_TEMPLATE = (
    "<|begin|>{% for message in messages %}{{ message['role'] | capitalize }}:"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ ' ' + part['text'] }}{% else %}{{ '<image>' }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_llava(
    folder: Path, clip: Path, *, seed: int = 0, width: int = 48, template: str | None = LLAVA_TEMPLATE
) -> Path:
    """A LLaVA over the image tower of the CLIP in `clip`: penultimate-layer patches, a Llama of two layers."""
    tokenizer = byte_tokenizer(["<image>"])
    tower = CLIPModel.from_pretrained(clip, dtype=torch.float32).vision_model
    seen: Any = tower.config
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**{k: v for k, v in seen.to_dict().items() if k not in ("model_type", "dtype")}),
        text_config=LlamaConfig(**text_sizes(tokenizer, width)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(seen.image_size // seen.patch_size) ** 2,
    )
    model = _random(LlavaForConditionalGeneration, config, seed)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    processor = LlavaProcessor(
        CLIPImageProcessorPil(
            size={"shortest_edge": seen.image_size}, crop_size={"height": seen.image_size, "width": seen.image_size}
        ),
        tokenizer,
        patch_size=seen.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    _save(model, folder)
    processor.save_pretrained(folder)
    return folder


def tiny_idefics3(folder: Path, *, seed: int = 0) -> Path:
    """An Idefics3 whose pictures are cut into parts: the number of a picture's tokens depends on its shape."""
    places = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    tokenizer = byte_tokenizer(
        ["<|begin|>", "<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *places]
    )
    tokenizer.bos_token = "<|begin|>"
    sizes = text_sizes(tokenizer, 48)
    config = Idefics3Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": IMAGE_SIZE,
            "patch_size": 8,
        },
        text_config=LlamaConfig(**sizes).to_dict(),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    processor = Idefics3Processor(
        Idefics3ImageProcessorPil(
            size={"longest_edge": 2 * IMAGE_SIZE}, max_image_size={"longest_edge": IMAGE_SIZE}, do_image_splitting=True
        ),
        tokenizer,
        image_seq_len=4,
        chat_template=IDEFICS_TEMPLATE,
    )
    _save(_random(Idefics3ForConditionalGeneration, config, seed), folder)
    processor.save_pretrained(folder)
    return folder


def tiny_qwen2_vl(folder: Path, *, seed: int = 0) -> Path:
    """A Qwen2-VL: pictures at their own size, positions in three dimensions, and the files that it has on the hub."""
    tokenizer = byte_tokenizer(
        ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    )
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in tokenizer.all_special_tokens + _QWEN}
    config = Qwen2VLConfig(
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 48, "num_heads": 4, "mlp_ratio": 2, "patch_size": 8},
        text_config={
            **text_sizes(tokenizer, 48),
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 10_000.0},
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    model = _random(Qwen2VLForConditionalGeneration, config, seed)
    model.generation_config.eos_token_id = [ids["<|im_end|>"], tokenizer.eos_token_id]
    _save(model, folder)
    Qwen2VLImageProcessorPil(
        size={"shortest_edge": 16 * 16, "longest_edge": 64 * 64}, patch_size=8, merge_size=2
    ).save_pretrained(folder)
    tokenizer.chat_template = QWEN_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


_QWEN = ["<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


def byte_tokenizer(special: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes, with these tokens besides `<pad>`, `<s>` and `</s>`."""
    words = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(BPE(vocab={token: index for index, token in enumerate(words)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=512
    )
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    return tokenizer


def text_sizes(tokenizer: PreTrainedTokenizerFast, width: int) -> dict[str, Any]:
    """Settings of a Llama-shaped decoder of two layers for a tokenizer."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _random(model_class: Any, config: Any, seed: int) -> Any:
    """Weights large enough that different pictures and questions give clearly different answers."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.2)
    return model


def _save(model: Any, folder: Path) -> None:
    logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
    finally:
        logging.enable_progress_bar()
