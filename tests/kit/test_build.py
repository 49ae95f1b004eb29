"""The build of the kit's checkpoints, at a size that takes seconds: what it makes, and that it makes it again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from transformers import AutoModelForCausalLM, AutoTokenizer, CLIPModel, CLIPTextModel, CLIPTokenizer

from gen2real.files import sha256_of
from gen2real.kit.build.clip import build_clip, build_tokenizer
from gen2real.kit.build.corpus import pictures, texts, token_ids
from gen2real.kit.build.decoder import build_decoder, build_decoder_tokenizer, caption_targets
from gen2real.kit.build.generator import build_generator
from gen2real.kit.build.multimodal import build_multimodal
from gen2real.kit.build.settings import BuildConfig, StageSettings
from gen2real.kit.world import GROUNDS, HELD_OUT, render, sample_scene
from gen2real.kit.world.vocabulary import HOME_GROUNDS
from gen2real.models import load_dual_encoder

STAGE = StageSettings(steps=2, batch_size=8, lr=1e-3, warmup_steps=1)


def tiny(output: Path, **changes: object) -> BuildConfig:
    return BuildConfig(
        output=output,
        scenes=16,
        clip_width=32,
        clip_layers=1,
        scorer_width=16,
        scorer_layers=1,
        autoencoder_channels=(8, 8, 16),
        denoiser_channels=(16, 32, 32),
        decoder_width=16,
        decoder_layers=1,
        multimodal_width=32,
        multimodal_layers=1,
        clip=STAGE,
        scorer=STAGE,
        robust=STAGE,
        scorer_robust=STAGE,
        autoencoder=STAGE,
        denoiser=STAGE,
        decoder=STAGE,
        multimodal=STAGE,
    ).model_copy(update=changes)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildConfig:
    config = tiny(tmp_path_factory.mktemp("kit"))
    build_all(config)
    build_clip(config, name="scorer", jobs=1, quiet=True)
    return config


def build_all(config: BuildConfig) -> None:
    build_generator(config, jobs=1, quiet=True)
    build_clip(config, jobs=1, quiet=True)
    build_decoder(config, quiet=True)
    build_multimodal(config, jobs=1, quiet=True)


def weights(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in sorted(folder.rglob("*.safetensors"))}


def test_stock_transformers_and_diffusers_load_what_is_built(built: BuildConfig) -> None:
    clip = CLIPModel.from_pretrained(built.output / "clip")
    pipeline = DiffusionPipeline.from_pretrained(built.output / "generator")
    assert isinstance(pipeline, StableDiffusionPipeline)
    assert {
        p.dtype for p in (*clip.parameters(), *pipeline.unet.parameters(), *pipeline.text_encoder.parameters())
    } == {torch.float32}
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline("a red ball", num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images[0]
    assert drawn.size == (64, 64)


def test_the_generator_reads_with_the_clips_own_text_tower(built: BuildConfig) -> None:
    tower = CLIPModel.from_pretrained(built.output / "clip").text_model.state_dict()
    reader = CLIPTextModel.from_pretrained(built.output / "generator" / "text_encoder").state_dict()
    own = {key.removeprefix("text_model."): value for key, value in reader.items()}
    assert own.keys() == tower.keys()
    assert all(torch.equal(own[key], tower[key]) for key in tower)


def test_the_second_part_of_the_training_leaves_the_text_tower_alone(built: BuildConfig) -> None:
    before, after = (CLIPModel.from_pretrained(built.output / name).state_dict() for name in ("clip-plain", "clip"))
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"vision_model", "visual_projection"}


def test_weights_on_disk_are_half_precision(built: BuildConfig) -> None:
    from safetensors.torch import load_file

    for name in (
        "clip/model.safetensors",
        "decoder/model.safetensors",
        "multimodal/model.safetensors",
        "generator/unet/diffusion_pytorch_model.safetensors",
    ):
        assert {tensor.dtype for tensor in load_file(built.output / name).values() if tensor.is_floating_point()} == {
            torch.float16
        }


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(built: BuildConfig, tmp_path: Path) -> None:
    again = tiny(tmp_path / "again")
    build_all(again)
    for name in ("clip", "vae", "generator", "decoder", "multimodal"):
        assert weights(again.output / name) == weights(built.output / name)
    other = tiny(tmp_path / "other", seed=1)
    build_clip(other, jobs=1, quiet=True)
    build_decoder(other, quiet=True)
    build_multimodal(other, jobs=1, quiet=True)
    for name in ("clip", "decoder", "multimodal"):
        assert weights(other.output / name) != weights(built.output / name)


def test_a_finished_stage_is_not_done_again(built: BuildConfig) -> None:
    before = (built.output / "generator" / "model_index.json").stat().st_mtime_ns
    build_generator(built, jobs=1, quiet=True)
    assert (built.output / "generator" / "model_index.json").stat().st_mtime_ns == before


def test_the_scorer_is_another_encoder(built: BuildConfig) -> None:
    clip, scorer = (load_dual_encoder(str(built.output / name)) for name in ("clip", "scorer"))
    assert clip.fingerprint() != scorer.fingerprint()
    assert scorer.embedding_dim == 16


def test_the_corpus_is_web_and_nothing_else(built: BuildConfig) -> None:
    scenes = [sample_scene("web", "train", index) for index in range(built.scenes)]
    assert (pictures(built, jobs=1) == render(scenes)).all()
    told = " . ".join(text for of_scene in texts(built.model_copy(update={"scenes": 1_500})) for text in of_scene)
    assert not [ground for ground in HOME_GROUNDS if GROUNDS[ground] in told]
    assert not [f"{colour} {kind}" for kind, colour in HELD_OUT if f" {colour} {kind} " in f"{told} ".replace(",", " ")]


def test_the_tokenizer_reads_any_text_and_its_own_back(built: BuildConfig) -> None:
    made = build_tokenizer(built)
    stored = CLIPTokenizer.from_pretrained(built.output / "clip")
    for text in ("a small striped red ball on a mint background", "Ünïcode, <script> & 漢字!"):
        assert made(text)["input_ids"] == stored(text)["input_ids"]
        assert made.unk_token_id not in made(text)["input_ids"][1:-1]
    ids = stored("a small striped red ball")["input_ids"]
    assert len(ids) == 7, "five words and both ends: common words are one token each"
    assert stored.decode(ids, skip_special_tokens=True).strip() == "a small striped red ball"
    assert token_ids(built, stored).shape == (16, built.captions_per_scene + 1, built.context)


def test_the_decoders_tokenizer_is_gpt2s_and_loses_nothing(built: BuildConfig) -> None:
    made, stored = build_decoder_tokenizer(built), AutoTokenizer.from_pretrained(built.output / "decoder")
    for text in ("There is one toy. It is a small striped red ball.", "Ünïcode  <script>\n& 漢字!"):
        assert made(text)["input_ids"] == stored(text)["input_ids"]
        assert stored.decode(stored(text)["input_ids"]) == text
    assert len(stored(" small striped red ball")["input_ids"]) == 4, "common words are one token each"
    assert stored.eos_token == stored.pad_token == "<|endoftext|>"
    model = AutoModelForCausalLM.from_pretrained(built.output / "decoder")
    assert type(model).__name__ == "GPT2LMHeadModel"
    assert model.config.eos_token_id == stored.eos_token_id == len(stored) - 1
    assert next(model.parameters()).dtype == torch.float32


def test_a_captions_end_is_learnt_and_its_fill_is_not() -> None:
    ids = torch.tensor([[5, 6, 9, 9, 9], [7, 9, 9, 9, 9], [1, 2, 3, 9, 9]])
    assert caption_targets(ids, 9).tolist() == [[5, 6, 9, -100], [7, 9, -100, -100], [1, 2, 3, 9]]
    assert caption_targets(torch.tensor([[1, 2, 3]]), 9).tolist() == [[1, 2, 3]], "what was cut has no end"
