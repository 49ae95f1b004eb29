"""The kit's CLIP: its own byte-pair tokenizer, two small towers, the contrastive loss over `web`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from gen2real.files import atomic_folder
from gen2real.kit.build.corpus import Batches, CorpusBatch, drawn_texts, pictures, pixels, texts, token_ids
from gen2real.kit.build.settings import BuildConfig
from gen2real.kit.build.storage import save_half
from gen2real.kit.world.language import vocabulary
from gen2real.kit.world.vocabulary import SIDE
from gen2real.losses import image_text_contrastive
from gen2real.training.distributed import gather
from gen2real.training.run_folder import RunFolder
from gen2real.training.trainer import Trainer, parameter_groups

START, END = "<|startoftext|>", "<|endoftext|>"
_TEXTS_FOR_TOKENIZER = 5_000


def build_tokenizer(config: BuildConfig) -> Any:
    """A lower-case byte-pair tokenizer in CLIP's format, learnt from texts of `web`."""
    inner = Tokenizer(BPE(end_of_word_suffix="</w>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary - len(letters) - 2,
        end_of_word_suffix="</w>",
        initial_alphabet=letters,
        show_progress=False,
    )
    some = config.model_copy(update={"scenes": min(config.scenes, _TEXTS_FOR_TOKENIZER)})
    inner.train_from_iterator([*vocabulary(), *(text for told in texts(some) for text in told)], trainer)
    merges = _merges(inner)
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    # A letter at a word's end and a merge can spell the same; the first keeps its place.
    ordered = list(dict.fromkeys([*words, START, END]))
    return CLIPTokenizer(
        vocab={word: place for place, word in enumerate(ordered)},
        merges=merges,
        model_max_length=config.context,
    )


def _merges(inner: Tokenizer) -> list[tuple[str, str]]:
    import json

    found = json.loads(inner.to_str())["model"]["merges"]
    return [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in found]


def build_clip(config: BuildConfig, *, jobs: int, quiet: bool = False) -> Path:
    """Trains the CLIP, or goes on with it; returns its folder."""
    out = config.output / "clip"
    if out.exists():
        return out
    tokenizer = build_tokenizer(config)
    ids = token_ids(config, tokenizer)
    stored = pictures(config, jobs=jobs)
    torch.manual_seed(config.seed)
    model = CLIPModel(_model_config(config, tokenizer))
    # Stock attention is slow backwards in bfloat16 on a CPU (see models/attention.py).
    model.set_attn_implementation("eager")
    pairs = _Pairs(model)

    def step(models: Mapping[str, nn.Module], batch: CorpusBatch) -> dict[str, Tensor]:
        device = next(pairs.parameters()).device
        texts_of = drawn_texts(ids, batch).to(device)
        image, text, scale = models["pairs"](pixels(stored[batch.indices]).to(device), texts_of)
        return {"loss": image_text_contrastive(gather(image), gather(text), scale, groups=_same(gather(texts_of)))}

    stage = config.clip
    Trainer(
        RunFolder(config.output / "clip-run", config),
        models={"pairs": pairs},
        groups=parameter_groups(
            {"clip": (pairs, stage.lr)}, weight_decay=stage.weight_decay, decay_norms_and_biases=False
        ),
        step=step,
        batches=Batches(config.scenes, stage, seed=config.seed),
        steps=stage.steps,
        optimizer=stage.optimizer(),
        schedule=stage.schedule(),
        training=stage.training(),
        stage="clip",
        quiet=quiet,
    ).fit()
    with atomic_folder(out) as partial:
        save_half(model.cpu(), partial)
        tokenizer.save_pretrained(partial)
        CLIPImageProcessorPil(
            size={"shortest_edge": SIDE},
            crop_size={"height": SIDE, "width": SIDE},
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        ).save_pretrained(partial)
    return out


class _Pairs(nn.Module):
    """Both towers behind one `forward`: pixels [n 3 S S] and ids [n L] → two embeddings [n D] and the scale."""

    def __init__(self, model: CLIPModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # What follows the longest text's end changes nothing in it: attention is causal.
        end = self.model.config.text_config.eos_token_id
        longest = int((ids == end).int().argmax(dim=1).max()) + 1
        image = self.model.get_image_features(pixel_values=pixel_values).pooler_output
        text = self.model.get_text_features(input_ids=ids[:, :longest]).pooler_output
        # CLIP's bound on the scale.
        return image, text, self.model.logit_scale.clamp(max=4.6).exp()


def _same(ids: Tensor) -> Tensor:
    """[N] numbers, equal for equal texts."""
    return torch.unique(ids, dim=0, return_inverse=True)[1]


def _model_config(config: BuildConfig, tokenizer: Any) -> CLIPConfig:
    end = tokenizer.convert_tokens_to_ids(END)
    tower = {
        "hidden_size": config.clip_width,
        "intermediate_size": 4 * config.clip_width,
        "num_hidden_layers": config.clip_layers,
        "num_attention_heads": 4,
    }
    return CLIPConfig(
        text_config={
            **tower,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": config.context,
            "bos_token_id": tokenizer.convert_tokens_to_ids(START),
            "eos_token_id": end,
            "pad_token_id": end,
        },
        vision_config={**tower, "image_size": SIDE, "patch_size": 8},
        projection_dim=config.clip_width,
    )
