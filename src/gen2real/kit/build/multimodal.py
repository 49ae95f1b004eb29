"""The kit's LLaVA: its CLIP's image tower, frozen, a projector and a small Llama, on questions and stories of `web`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from gen2real.files import atomic_folder
from gen2real.kit.build.branching import Rows, rows
from gen2real.kit.build.clip import build_clip
from gen2real.kit.build.corpus import CorpusBatch, pictures, pixels
from gen2real.kit.build.fitting import fit
from gen2real.kit.build.lessons import (
    END,
    PICTURE,
    TEMPLATE,
    Lesson,
    about_last,
    about_picture,
    about_story,
    about_text,
    texts,
)
from gen2real.kit.build.settings import BuildConfig
from gen2real.kit.build.storage import save_half
from gen2real.kit.world.language import vocabulary
from gen2real.kit.world.render import render
from gen2real.kit.world.scenes import sample_scene
from gen2real.kit.world.stories import sample_story
from gen2real.losses import next_token
from gen2real.training.distributed import gather

BEGIN, PADDING = "<s>", "<pad>"

_TEXTS_FOR_TOKENIZER = 3_000
# Of so many scenes of a batch one is where a story begins, and one the last of several pictures: they are long.
_SCENES_TO_A_STORY = 16
_HEAD = 32


def build_multimodal(config: BuildConfig, *, jobs: int, quiet: bool = False) -> Path:
    """Trains projector and language model, or goes on with it. Returns the model's folder."""
    out = config.output / "multimodal"
    if out.exists():
        return out
    clip = build_clip(config, jobs=jobs, quiet=quiet)
    processor = build_processor(config, clip)
    seed = config.seed + 30
    torch.manual_seed(seed)
    model = build_model(config, clip, processor)
    # Stock attention is slow backwards in bfloat16 on a CPU (see models/attention.py).
    model.model.language_model.set_attn_implementation("eager")
    teller, stored = Teller(model), pictures(config, jobs=jobs)

    def step(models: Mapping[str, nn.Module], batch: CorpusBatch) -> dict[str, Tensor]:
        sums, counts = [], []
        for lessons, shown in _groups(config, batch, stored):
            one = rows(lessons, processor.tokenizer, model.config.image_seq_length).to(model.device)
            with torch.no_grad():
                seen = teller.see(pixels(shown).to(model.device))
            found = next_token(models["teller"](seen, one)[None], one.ids[one.learnt][None])
            sums.append(found[0])
            counts.append(found[1])
        return {"loss": gather(torch.cat(sums)).sum() / gather(torch.cat(counts)).sum()}

    folder = config.output / "multimodal-run"
    fit(folder, config, config.multimodal, {"teller": teller}, step, scenes=config.scenes, seed=seed, quiet=quiet)
    with atomic_folder(out) as partial:
        model.set_attn_implementation("sdpa")
        save_half(model.cpu(), partial)
        processor.save_pretrained(partial)
    return out


class Teller(nn.Module):
    """Seen patches [P T E] and lessons → logits [M V], one row for each learnt token in their order."""

    def __init__(self, model: LlavaForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def see(self, shown: Tensor) -> Tensor:
        """Pixels [P 3 S S] → what the image tower gives the projector [P T E]."""
        states = self.model.model.vision_tower(shown, output_hidden_states=True).hidden_states
        seen: Tensor = states[self.model.config.vision_feature_layer][:, 1:]
        return seen

    def forward(self, seen: Tensor, lessons: Rows) -> Tensor:
        inside = self.model.model
        embedded = inside.language_model.embed_tokens(lessons.ids)
        marks = lessons.ids == self.model.config.image_token_id
        projected = inside.multi_modal_projector(seen).to(embedded.dtype)
        embedded = embedded.masked_scatter(marks[:, :, None], projected)
        mask = torch.zeros(lessons.seen.shape, device=embedded.device).masked_fill(~lessons.seen, float("-inf"))
        states = inside.language_model(
            inputs_embeds=embedded, attention_mask=mask[:, None], position_ids=lessons.positions, use_cache=False
        ).last_hidden_state
        logits: Tensor = self.model.lm_head(states[:, :-1][lessons.learnt[:, 1:]])
        return logits


def _groups(
    config: BuildConfig, batch: CorpusBatch, stored: npt.NDArray[np.uint8]
) -> list[tuple[list[Lesson], npt.NDArray[np.uint8]]]:
    """A batch's lessons with their pictures [P S S 3]: single pictures, and apart from them longer ones of several."""
    seeds = torch.randint(2**31, (len(batch.indices),), generator=batch.generator).tolist()
    randoms = [np.random.default_rng([config.seed, drawn]) for drawn in seeds]
    scenes = [sample_scene("web", "train", int(index), seed=config.seed) for index in batch.indices]
    several = len(scenes) // _SCENES_TO_A_STORY
    short = [about_picture(scenes[place], randoms[place]) for place in range(2 * several, len(scenes))]
    groups = [(short, np.array(stored[batch.indices[2 * several :]]))]
    # Scenes that are also told by a story or beside other pictures are put into words.
    short += [about_text(scenes[place], randoms[place]) for place in range(2 * several)]
    long: list[Lesson] = []
    shown: list[npt.NDArray[np.uint8]] = []
    for place in range(several):
        long.append(
            about_story(sample_story("web", "train", int(batch.indices[place]), seed=config.seed), randoms[place])
        )
        shown.append(render(list(long[-1].scenes)))
    for place in range(several, 2 * several):
        count = int(randoms[place].integers(2, 5))
        chosen = [(place + step) % len(scenes) for step in range(count)]
        long.append(about_last([scenes[one] for one in chosen], randoms[place]))
        shown.append(np.array(stored[batch.indices[chosen]]))
    return [*groups, (long, np.concatenate(shown))] if long else groups


def build_model(config: BuildConfig, clip: Path, processor: Any) -> LlavaForConditionalGeneration:
    """The model before training: the tower as it is in `clip`, everything else from chance. The tower is frozen."""
    tower = CLIPModel.from_pretrained(clip).vision_model
    seen = {key: value for key, value in tower.config.to_dict().items() if key not in ("model_type", "dtype")}
    tokenizer, width = processor.tokenizer, config.multimodal_width
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(**seen),
            text_config=LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=width,
                # Three matrices of two thirds of four times the width: as many weights as in a plain block.
                intermediate_size=max(16, round(8 * width / 3 / 16) * 16),
                num_hidden_layers=config.multimodal_layers,
                num_attention_heads=max(width // _HEAD, 1),
                max_position_embeddings=config.multimodal_positions,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            ),
            image_token_index=tokenizer.convert_tokens_to_ids(PICTURE),
            image_seq_length=(tower.config.image_size // tower.config.patch_size) ** 2,
        )
    )
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.vision_tower.requires_grad_(False)
    return model


def build_processor(config: BuildConfig, clip: Path) -> LlavaProcessor:
    """CLIP's pictures, and a byte-level byte-pair tokenizer learnt from what is said of `web`."""
    inner = Tokenizer(BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = [PADDING, BEGIN, END]
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary - 1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=special,
        show_progress=False,
    )
    said = texts(min(config.scenes, _TEXTS_FOR_TOKENIZER), config.seed)
    inner.train_from_iterator([*vocabulary(), *said], trainer)
    inner.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, special.index(BEGIN))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PADDING,
        padding_side="left",
        model_max_length=config.multimodal_positions,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken(PICTURE, special=True, normalized=False)]})
    prepare = CLIPImageProcessorPil.from_pretrained(clip)
    side = CLIPModel.from_pretrained(clip).config.vision_config.patch_size
    return LlavaProcessor(
        prepare,
        tokenizer,
        patch_size=side,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
