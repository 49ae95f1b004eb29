"""A Stable Diffusion in training: its noise against exact algebra, its blocks, and back to a stock pipeline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline

from gen2real.errors import ModelError
from gen2real.generation.generators import load_generator
from gen2real.generation.settings import GeneratorSettings
from gen2real.models import Diffusion, block_features, load_diffusion
from gen2real.models.diffusion import Block, block_channels
from gen2real.pipelines import libraries_quiet
from tiny import tiny_clip, tiny_stable_diffusion, tiny_stable_diffusion_xl

KINDS = ("epsilon", "v_prediction", "sample")
BLOCKS: tuple[Block, ...] = ("down", "mid", "up")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_stable_diffusion(tmp_path_factory.mktemp("diffusion") / "generator")


@pytest.fixture(scope="module")
def make(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Diffusion]:
    """The pipeline with another scheduler's config."""

    def made(**scheduler: object) -> Diffusion:
        copy = tmp_path_factory.mktemp("other") / "generator"
        shutil.copytree(folder, copy)
        path = copy / "scheduler" / "scheduler_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **scheduler}))
        return load_diffusion(copy)

    return made


def drawn(diffusion: Diffusion, times: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    shape = len(times), *diffusion.latent_shape
    return torch.randn(shape).double(), torch.randn(shape).double(), torch.tensor(times)


def test_sizes_are_the_checkpoints(folder: Path) -> None:
    diffusion = load_diffusion(folder)
    assert (diffusion.sample_size, diffusion.latent_shape, diffusion.steps) == (32, (4, 16, 16), 1000)
    assert diffusion.context_length == 32
    assert diffusion.prediction_type == "epsilon"
    assert not any(parameter.requires_grad for parameter in diffusion.vae.parameters())
    diffusion.train()
    assert diffusion.unet.training
    assert not diffusion.vae.training


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_prediction_is_the_picture(make: Callable[..., Diffusion], kind: str) -> None:
    diffusion = make(prediction_type=kind)
    clean, noise, times = drawn(diffusion, [0, 1, 250, 998, 999])
    noised, target = diffusion.noised(clean, noise, times), diffusion.target(clean, noise, times)
    abar = diffusion.alphas_cumprod.double()[times].reshape(-1, 1, 1, 1)
    torch.testing.assert_close(noised, abar.sqrt() * clean + (1 - abar).sqrt() * noise, rtol=0, atol=1e-14)
    expected = {"epsilon": noise, "sample": clean, "v_prediction": abar.sqrt() * noise - (1 - abar).sqrt() * clean}
    torch.testing.assert_close(target, expected[kind], rtol=0, atol=1e-14)
    torch.testing.assert_close(diffusion.clean_estimate(noised, target, times), clean, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(diffusion.snr(times).double(), (abar / (1 - abar)).flatten(), rtol=1e-6, atol=0)


def test_noise_is_that_of_diffusers_to_the_bit(make: Callable[..., Diffusion]) -> None:
    diffusion = make(prediction_type="v_prediction")
    reference = DDPMScheduler.from_config(diffusion.scheduler.config)
    clean, noise, times = (one.float() if one.is_floating_point() else one for one in drawn(diffusion, [0, 500, 999]))
    assert torch.equal(diffusion.noised(clean, noise, times), reference.add_noise(clean, noise, times))
    assert torch.equal(diffusion.target(clean, noise, times), reference.get_velocity(clean, noise, times))


@pytest.mark.parametrize("kind", KINDS)
def test_zero_terminal_snr_stays_finite(make: Callable[..., Diffusion], kind: str) -> None:
    diffusion = make(prediction_type=kind, rescale_betas_zero_snr=True)
    assert diffusion.alphas_cumprod[-1] == 0
    assert diffusion.snr(torch.tensor([999])) == 0
    clean, noise, times = drawn(diffusion, [0, 999])
    noised = diffusion.noised(clean, noise, times)
    assert torch.equal(noised[1], noise[1])
    prediction = torch.randn_like(noised).requires_grad_()
    estimate = diffusion.clean_estimate(noised, prediction, times)
    (gradient,) = torch.autograd.grad(estimate.sum(), prediction)
    assert estimate.isfinite().all()
    assert gradient.isfinite().all()
    # With v the estimate at the end is −v; of ε nothing follows there.
    expected = {"epsilon": torch.zeros_like(clean[1]), "v_prediction": -prediction[1], "sample": prediction[1]}
    assert torch.equal(estimate[1], expected[kind])


@pytest.mark.parametrize("checkpointed", [False, True])
def test_blocks_are_seen_with_their_gradient(folder: Path, checkpointed: bool) -> None:
    diffusion = load_diffusion(folder)
    latents, times = torch.randn(2, *diffusion.latent_shape), torch.tensor([3, 700])
    plain = diffusion.unet(latents, times, diffusion.states(diffusion.ids(["a", "b"]))).sample.detach()
    if checkpointed:
        diffusion.unet.enable_gradient_checkpointing()
    diffusion.train()
    for block, side in zip(BLOCKS, (8, 8, 16), strict=True):
        states = diffusion.states(diffusion.ids(["a", "b"])).detach().requires_grad_()
        with block_features(diffusion.unet, block) as seen:
            prediction = diffusion.unet(latents, times, states).sample
        assert torch.equal(prediction, plain)
        assert seen.features.shape == (2, block_channels(diffusion.unet, block), side, side)
        before = seen.features
        diffusion.unet(latents + 1, times, states)
        assert seen.features is before
        (gradient,) = torch.autograd.grad(seen.features.square().sum(), states)
        assert gradient.abs().sum() > 0
        assert not any(module._forward_hooks for module in diffusion.unet.modules())


def test_a_block_that_saw_nothing_says_so(folder: Path) -> None:
    with block_features(load_diffusion(folder).unet, "mid") as seen, pytest.raises(RuntimeError, match="not called"):
        _ = seen.features


def test_pictures_go_into_latents_and_back(folder: Path) -> None:
    diffusion = load_diffusion(folder)
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    mean, std = diffusion.moments(pixels)
    with torch.no_grad():
        posterior = diffusion.vae.encode(pixels.float() / 127.5 - 1).latent_dist
    torch.testing.assert_close(mean / 0.18215, posterior.mean)
    torch.testing.assert_close(std / 0.18215, posterior.std)
    assert mean.shape == (2, 4, 16, 16)
    assert not mean.requires_grad
    latents = mean.clone().requires_grad_()
    decoded = diffusion.decode(latents)
    torch.testing.assert_close(decoded, diffusion.vae.decode(mean / 0.18215).sample)
    (gradient,) = torch.autograd.grad(decoded.square().sum(), latents)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_states_are_the_pipelines_own(folder: Path) -> None:
    diffusion = load_diffusion(folder)
    texts = ["a red ball", "", "much longer than the thirty-two tokens that fit into it"]
    with libraries_quiet(), torch.no_grad():
        expected, _ = diffusion.pipeline().encode_prompt(texts, "cpu", 1, False)
    assert torch.equal(diffusion.states(diffusion.ids(texts)), expected)
    with pytest.raises(ModelError, match="list of strings"):
        diffusion.ids("a red ball")


def test_what_is_saved_loads_in_stock_diffusers(folder: Path, tmp_path: Path) -> None:
    diffusion = load_diffusion(folder)
    with torch.no_grad():
        diffusion.unet.conv_in.weight.add_(0.25)
    run = tmp_path / "run"
    diffusion.save_pipeline(run / "generator")
    with libraries_quiet():
        stock = StableDiffusionPipeline.from_pretrained(run / "generator")
    for name in ("unet", "vae", "text_encoder"):
        own, theirs = getattr(diffusion, name).state_dict(), getattr(stock, name).state_dict()
        assert own.keys() == theirs.keys()
        assert all(torch.equal(own[key], theirs[key]) for key in own)
    assert not list(run.rglob("*.bin"))
    # The run's folder stands for its generator, in training as in drawing.
    assert torch.equal(load_diffusion(run).unet.conv_in.weight, diffusion.unet.conv_in.weight)
    assert load_generator(GeneratorSettings(name=str(run)), device="cpu").width == 32
    (run / "recipe.json").write_text("{}")
    shutil.rmtree(run / "generator")
    with pytest.raises(ModelError, match="is a run that holds no generator"):
        load_diffusion(run)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ModelError, match="holds no pipeline, so it is not replaced"):
        diffusion.save_pipeline(tmp_path / "mine")


def test_what_is_no_stable_diffusion_is_refused(folder: Path, make: Callable[..., Diffusion], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a StableDiffusionXLPipeline; what is trained here is"):
        load_diffusion(tiny_stable_diffusion_xl(tmp_path / "xl"))
    with pytest.raises(ModelError, match=r"holds no model_index\.json"):
        load_diffusion(tiny_clip(tmp_path / "clip"))
    with pytest.raises(ModelError, match="predicts 'flow'"):
        make(prediction_type="flow")
    shutil.copytree(folder, tmp_path / "pickled")
    (tmp_path / "pickled" / "unet" / "diffusion_pytorch_model.safetensors").rename(
        tmp_path / "pickled" / "unet" / "diffusion_pytorch_model.bin"
    )
    with pytest.raises(ModelError, match="It has pickles, as unet/"):
        load_diffusion(tmp_path / "pickled")
