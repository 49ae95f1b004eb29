"""A picture depends on its prompt and its seed: not on its neighbours, their number, or the prompts encoded before."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import pytest
import torch

from gen2real.errors import ModelError
from gen2real.generation import generators
from gen2real.generation.drawing import Painter
from gen2real.generation.generators import content_of, load_generator
from gen2real.generation.settings import GeneratorSettings
from gen2real.pipelines import libraries_quiet

PROMPTS = ["a cat", "a red dog", "a cat", "the jet", "a plane over the sea", "a cat", "b", "a red dog"]
SEEDS = [11, 12, 13, 14, 15, 16, 17, 18]

Pixels = npt.NDArray[np.int64]


def painter(folder: Path, dtype: str = "float32", **drawing: Any) -> Painter:
    settings = GeneratorSettings(name=str(folder), **{"steps": 3, **drawing})
    return Painter(load_generator(settings, device="cpu", dtype=dtype))


def pixels(drawn: Any) -> Pixels:
    return np.stack([one.pixels for one in drawn]).astype(np.int64)


def in_batches(one: Painter, size: int) -> Pixels:
    parts = [slice(start, start + size) for start in range(0, len(PROMPTS), size)]
    return np.concatenate([pixels(one.draw(PROMPTS[part], SEEDS[part])) for part in parts])


@pytest.mark.parametrize("kind", ["sd", "xl"])
@pytest.mark.parametrize("scheduler", ["ddim", "dpm++", "dpm++sde", "euler-a"])
def test_batches_of_1_3_and_8_draw_the_same(request: pytest.FixtureRequest, kind: str, scheduler: str) -> None:
    one = painter(request.getfixturevalue(kind), scheduler=scheduler)
    alone, threes, whole = (in_batches(one, size) for size in (1, 3, 8))
    assert alone.shape == (8, 32, 32, 3)
    assert np.abs(alone - threes).max() <= 1
    assert np.abs(alone - whole).max() <= 1
    # A level at the edge of rounding may fall to either side; no more than that.
    assert (alone != whole).mean() < 1e-3
    assert np.abs(alone[0] - alone[2]).mean() > 10, "another seed is another picture"


def test_in_bfloat16_they_differ_by_a_level_here_and_there(sd: Path) -> None:
    one = painter(sd, "bfloat16")
    assert np.abs(in_batches(one, 1) - in_batches(one, 8)).mean() < 0.05


def test_the_order_of_a_batch_does_not_matter(sd: Path) -> None:
    one = painter(sd, scheduler="dpm++sde")
    forth = pixels(one.draw(PROMPTS, SEEDS))
    back = pixels(one.draw(PROMPTS[::-1], SEEDS[::-1]))[::-1]
    assert np.abs(forth - back).max() <= 1


@pytest.mark.parametrize(
    ("kind", "class_name"), [("sd", "StableDiffusionPipeline"), ("xl", "StableDiffusionXLPipeline")]
)
@pytest.mark.parametrize("negative", ["", "blurry"])
def test_it_draws_what_diffusers_draws(
    request: pytest.FixtureRequest, kind: str, class_name: str, negative: str
) -> None:
    """The plain way, texts and all, in the precision of the file."""
    folder = request.getfixturevalue(kind)
    with libraries_quiet():
        plain = getattr(diffusers, class_name).from_pretrained(folder)
        plain.set_progress_bar_config(disable=True)
        given = {"negative_prompt": [negative] * 8} if negative else {}
        noise = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        expected = plain(
            PROMPTS, num_inference_steps=3, guidance_scale=4.0, generator=noise, output_type="np", **given
        ).images
    one = painter(folder, scheduler="native", guidance=4.0, negative_prompt=negative)
    found = pixels(one.draw(PROMPTS, SEEDS))
    assert np.abs(found - np.round(expected * 255)).max() <= 1


def test_the_negative_prompt_and_the_guidance_are_heard(sd: Path) -> None:
    drawn = [
        pixels(painter(sd, **changes).draw(["a cat"], [1]))
        for changes in ({"guidance": 5.0}, {"guidance": 5.0, "negative_prompt": "dark"}, {"guidance": 1.0})
    ]
    assert all(np.abs(drawn[0] - other).max() > 3 for other in drawn[1:])


def test_each_prompt_is_encoded_once(sd: Path) -> None:
    one = painter(sd)
    seen: list[tuple[Any, ...]] = []
    tower = one.generator.pipeline.text_encoder
    tower.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))
    for start in range(0, 8, 2):
        one.draw(PROMPTS[start : start + 2], SEEDS[start : start + 2])
    assert one.encoded == len(set(PROMPTS)) == 5
    assert seen == [(1, 32)] * 6, "five prompts and one negative prompt, each alone"


def test_without_guidance_the_denoiser_sees_each_picture_once(sd: Path) -> None:
    for guidance, rows in ((1.0, 3), (2.0, 6)):
        one = painter(sd, guidance=guidance)
        seen = []
        one.generator.pipeline.unet.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(len(given[0])))
        one.draw(PROMPTS[:3], SEEDS[:3])
        assert seen == [rows] * 3


def test_a_pipeline_that_encodes_by_itself_gets_texts(sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Flux's do, whose embeddings come in an order of their own."""
    usual = pixels(painter(sd, guidance=3.0, negative_prompt="dark").draw(PROMPTS, SEEDS))
    monkeypatch.setattr(generators, "_encodes", lambda *_: False)
    one = painter(sd, guidance=3.0, negative_prompt="dark")
    assert not one.generator.encodes
    assert np.abs(pixels(one.draw(PROMPTS, SEEDS)) - usual).max() <= 1
    assert one.encoded == 0


def test_in_bfloat16_latents_and_decoder_stay_in_float32(sd: Path) -> None:
    one = painter(sd, "bfloat16")
    pipeline = one.generator.pipeline
    assert pipeline.unet.dtype == torch.bfloat16
    assert (pipeline.vae.dtype, pipeline.text_encoder.dtype) == (torch.float32, torch.float32)
    seen = []
    step = pipeline.scheduler.step

    def watched(prediction: torch.Tensor, *given: Any, **named: Any) -> Any:
        seen.append(prediction.dtype)
        return step(prediction, *given, **named)

    pipeline.scheduler.step = watched
    close = pixels(one.draw(PROMPTS, SEEDS))
    assert seen == [torch.float32] * 3
    exact = pixels(painter(sd).draw(PROMPTS, SEEDS))
    assert np.abs(close - exact).mean() < 3
    assert (close != exact).any()


def test_another_size(sd: Path) -> None:
    assert pixels(painter(sd, width=48, height=24).draw(["a"], [1])).shape == (1, 24, 48, 3)


def test_auto_takes_a_good_scheduler_in_20_steps_and_native_the_pipelines_own(sd: Path) -> None:
    settings = [GeneratorSettings(name=str(sd), scheduler=name) for name in ("auto", "native")]
    made = [load_generator(one, device="cpu") for one in settings]
    assert [(one.scheduler, one.steps, one.guidance) for one in made] == [
        ("dpm++", 20, 7.5),
        ("DDIMScheduler", 50, 7.5),
    ]
    assert type(made[0].pipeline.scheduler).__name__ == "DPMSolverMultistepScheduler"
    assert made[0].pipeline.scheduler.config.beta_schedule == "scaled_linear"


@pytest.mark.parametrize(
    ("own", "settings", "chosen"),
    [
        ("PNDMScheduler", {}, "dpm++"),
        ("EulerDiscreteScheduler", {"timestep_spacing": "leading"}, "dpm++"),
        ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, "native"),
        ("LCMScheduler", {}, "native"),
        ("FlowMatchEulerDiscreteScheduler", {}, "native"),
    ],
)
def test_what_was_made_for_few_steps_stays(own: str, settings: dict[str, Any], chosen: str) -> None:
    with libraries_quiet():
        pipeline = SimpleNamespace(scheduler=getattr(diffusers, own)(**settings))
    assert generators._schedule(pipeline, GeneratorSettings(name="one")) == chosen
    assert type(pipeline.scheduler).__name__ == ("DPMSolverMultistepScheduler" if chosen == "dpm++" else own)


def test_a_flow_is_not_drawn_with_a_diffusions_scheduler() -> None:
    pipeline = SimpleNamespace(scheduler=diffusers.FlowMatchEulerDiscreteScheduler())
    with pytest.raises(ModelError, match="one is a flow"):
        generators._schedule(pipeline, GeneratorSettings(name="one", scheduler="ddim"))


def test_the_content_is_that_of_the_files(sd: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(sd, tmp_path / "copy")
    assert content_of(copy) == content_of(sd)
    for extra in ("README.md", "unet/diffusion_pytorch_model.fp16.safetensors", "v1-5-pruned.safetensors"):
        (copy / extra).write_text("of no part of it")
    assert content_of(copy) == content_of(sd)
    (copy / "model_index.json").write_text((copy / "model_index.json").read_text() + "\n")
    assert content_of(copy) != content_of(sd)


def test_pipelines_that_do_not_load(sd: Path, tmp_path: Path) -> None:
    cases: dict[str, str] = {}
    (tmp_path / "empty").mkdir()
    cases["empty"] = "no model_index.json"
    cases["nobody/nothing"] = "as a hub name it does not load"
    pickled = shutil.copytree(sd, tmp_path / "pickled")
    (pickled / "unet" / "diffusion_pytorch_model.safetensors").rename(pickled / "unet" / "diffusion_pytorch_model.bin")
    cases["pickled"] = "diffusion_pytorch_model.bin, which gen2real does not open"
    for name, said in cases.items():
        place = tmp_path / name
        with pytest.raises(ModelError, match=said):
            painter(place if place.exists() else Path(name))
    with pytest.raises(ModelError, match="no scheduler EularScheduler"):
        painter(sd, scheduler="EularScheduler")
    with pytest.raises(ModelError, match="'gpu' is no device"):
        load_generator(GeneratorSettings(name=str(sd)), device="gpu")
