"""The kit's CLIP: its own byte-pair tokenizer, two small towers, the contrastive loss over `web`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from gen2real.files import atomic_folder
from gen2real.kit.build.corpus import CorpusBatch, drawn_texts, masks, pictures, scaled, texts, token_ids
from gen2real.kit.build.disturb import disturbed
from gen2real.kit.build.fitting import fit
from gen2real.kit.build.settings import BuildConfig, StageSettings
from gen2real.kit.build.storage import save_half
from gen2real.kit.world.language import vocabulary
from gen2real.kit.world.vocabulary import SIDE
from gen2real.losses import image_text_contrastive
from gen2real.training.distributed import gather

START, END = "<|startoftext|>", "<|endoftext|>"
ClipName = Literal["clip", "scorer"]

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
    found = json.loads(inner.to_str())["model"]["merges"]
    return [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in found]


def build_clip(config: BuildConfig, *, name: ClipName = "clip", jobs: int, quiet: bool = False) -> Path:
    """Trains a CLIP, or goes on with it: first both towers, then the image tower alone on disturbed pictures.

    The second part makes it see through blur, noise and bad light; the text tower, which the generator reads with,
    is no longer touched.

    name: `clip` is the one to be tuned. `scorer` is smaller, begins from other weights and sees other batches: an eye
        of its own for what is made with the first.

    Returns: the model's folder.
    """
    out = config.output / name
    if out.exists():
        return out
    plain = train_both_towers(config, name=name, jobs=jobs, quiet=quiet)
    model = CLIPModel.from_pretrained(plain)
    model.requires_grad_(False)
    for part in (model.vision_model, model.visual_projection):
        part.requires_grad_(True)
    tokenizer = CLIPTokenizer.from_pretrained(plain)
    stage = config.robust if name == "clip" else config.scorer_robust
    _fit(config, model, tokenizer, f"{name}-robust", stage, _seed(config, name) + 5, jobs, quiet, disturb=True)
    _save(model, tokenizer, out)
    return out


def train_both_towers(config: BuildConfig, *, name: ClipName = "clip", jobs: int, quiet: bool = False) -> Path:
    """The first part of `build_clip`: its text tower is the finished one. Returns the folder."""
    out = config.output / f"{name}-plain"
    if out.exists():
        return out
    tokenizer = build_tokenizer(config)
    seed = _seed(config, name)
    torch.manual_seed(seed)
    model = CLIPModel(_model_config(config, name, tokenizer))
    _fit(config, model, tokenizer, name, config.clip if name == "clip" else config.scorer, seed, jobs, quiet)
    _save(model, tokenizer, out)
    return out


def _seed(config: BuildConfig, name: ClipName) -> int:
    return config.seed if name == "clip" else config.seed + 10


def _fit(
    config: BuildConfig,
    model: CLIPModel,
    tokenizer: Any,
    run: str,
    stage: StageSettings,
    seed: int,
    jobs: int,
    quiet: bool,
    *,
    disturb: bool = False,
) -> None:
    """The contrastive loss over `web`, on whatever requires a gradient."""
    ids, stored = token_ids(config, tokenizer), pictures(config, jobs=jobs)
    where = masks(config, jobs=jobs) if disturb else None
    # Stock attention is slow backwards in bfloat16 on a CPU (see models/attention.py).
    model.set_attn_implementation("eager")
    pairs = _Pairs(model)

    def step(models: Mapping[str, nn.Module], batch: CorpusBatch) -> dict[str, Tensor]:
        device = next(pairs.parameters()).device
        texts_of = drawn_texts(ids, batch).to(device)
        shown = torch.from_numpy(np.array(stored[batch.indices])).permute(0, 3, 1, 2)
        if where is not None:
            shown = disturbed(shown, torch.from_numpy(np.array(where[batch.indices])), batch.generator)
        image, text, scale = models["pairs"](scaled(shown).to(device), texts_of)
        return {"loss": image_text_contrastive(gather(image), gather(text), scale, groups=_same(gather(texts_of)))}

    folder = config.output / f"{run}-run"
    fit(folder, config, stage, {"pairs": pairs}, step, scenes=config.scenes, seed=seed, quiet=quiet)


def _save(model: CLIPModel, tokenizer: Any, out: Path) -> None:
    with atomic_folder(out) as partial:
        save_half(model.cpu(), partial)
        tokenizer.save_pretrained(partial)
        CLIPImageProcessorPil(
            size={"shortest_edge": SIDE},
            crop_size={"height": SIDE, "width": SIDE},
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        ).save_pretrained(partial)


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


def _model_config(config: BuildConfig, name: ClipName, tokenizer: Any) -> CLIPConfig:
    end = tokenizer.convert_tokens_to_ids(END)
    width, layers = config.clip_width, config.clip_layers
    if name == "scorer":
        width, layers = config.scorer_width, config.scorer_layers
    tower = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
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
        projection_dim=width,
    )
