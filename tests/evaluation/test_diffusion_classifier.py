"""A denoiser as a classifier: against brute force, pruned and whole, and on the kit's generator."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from commands import gen2real_
from gen2real import kit
from gen2real.errors import ModelError
from gen2real.evaluation.diffusion_classifier import diffusion_classifier, spread_times
from gen2real.imagesets.loading import Pictures
from gen2real.imagesets.transforms import Preprocess
from gen2real.kit.world.image_sets import write_image_set
from gen2real.methods.finished_denoisers import evaluate_diffusion_classification
from gen2real.models import Diffusion, load_diffusion
from tiny import tiny_stable_diffusion
from tiny_sets import colour_set

TEXTS = ["a cat", "two red boats", "x", "the moon over a house"]


@pytest.fixture(scope="module", params=["epsilon", "v_prediction", "sample"])
def diffusion(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Diffusion:
    folder = tmp_path_factory.mktemp("denoiser") / "generator"
    return load_diffusion(tiny_stable_diffusion(folder, prediction_type=request.param))


def asked(diffusion: Diffusion, pictures: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return torch.randn(pictures, *diffusion.latent_shape), diffusion.states(diffusion.ids(TEXTS))


def test_errors_are_those_of_brute_force(diffusion: Diffusion) -> None:
    latents, states = asked(diffusion, 2)
    errors: tuple[Literal["l2", "l1"], ...] = ("l2", "l1")
    expected = torch.zeros(2, 2, 4, dtype=torch.float64)
    times = spread_times(1000, 3)
    for trial, time in enumerate(times.tolist()):
        noise = torch.from_numpy(np.random.default_rng((5, trial)).standard_normal((4, 16, 16), dtype=np.float32))
        abar = diffusion.alphas_cumprod[time].double()
        for picture in range(2):
            noised = abar.sqrt() * latents[picture].double() + (1 - abar).sqrt() * noise.double()
            for text in range(4):
                with torch.no_grad():
                    given = noised[None].float(), torch.tensor([time]), states[text : text + 1]
                    made = diffusion.unet(*given).sample[0].double()
                # What noise the prediction amounts to.
                implied = {
                    "epsilon": made,
                    "v_prediction": abar.sqrt() * made + (1 - abar).sqrt() * noised,
                    "sample": (noised - abar.sqrt() * made) / (1 - abar).sqrt(),
                }[diffusion.prediction_type]
                off = noise - implied
                expected[:, picture, text] += torch.stack([off.square().sum(), off.abs().sum()]) / 3
    for error, own in zip(errors, expected, strict=True):
        found = diffusion_classifier(
            diffusion, latents, states, trials=(3,), keep=(), error=error, seed=5, batch_size=5
        )
        torch.testing.assert_close(found.errors, own, rtol=1e-4, atol=1e-4)
        assert torch.equal(found.scores, -found.errors)


def test_pruning_asks_less_and_keeps_the_order(diffusion: Diffusion) -> None:
    latents, states = asked(diffusion)
    whole = diffusion_classifier(diffusion, latents, states, trials=(4,), keep=())
    # The four times are the same: the first two of them are the first round.
    pruned = diffusion_classifier(diffusion, latents, states, trials=(2, 4), keep=(2,))
    best = pruned.trials == 4
    assert best.sum(1).tolist() == [2, 2, 2]
    torch.testing.assert_close(pruned.errors[best], whole.errors[best])
    scores = pruned.scores
    for row in range(3):
        assert scores[row][~best[row]].max() < scores[row][best[row]].min()
        lost = (~best[row]).nonzero().flatten()
        kept = best[row].nonzero().flatten()
        round_1 = pruned.rounds[2][row]
        assert round_1[lost].min() > round_1[kept].max()


def test_a_short_list_is_ranked_again_as_in_the_whole(diffusion: Diffusion) -> None:
    latents, states = asked(diffusion)
    whole = diffusion_classifier(diffusion, latents, states, trials=(2,), keep=())
    few = torch.tensor([[2, 0], [1, 3], [0, 1]])
    ranked = diffusion_classifier(diffusion, latents, states, candidates=few, trials=(2,), keep=())
    torch.testing.assert_close(ranked.errors, whole.errors.gather(1, few))
    # Nor does it matter which other pictures there are.
    alone = diffusion_classifier(diffusion, latents[1:2], states, trials=(2,), keep=())
    torch.testing.assert_close(alone.errors[0], whole.errors[1])


def test_times_are_spread_and_so_is_every_beginning() -> None:
    times = spread_times(1000, 8)
    assert times.tolist() == [62, 562, 312, 812, 187, 687, 437, 937]
    assert sorted(spread_times(1000, 5).tolist()) == [100, 300, 500, 700, 900]
    assert spread_times(1000, 1).tolist() == [500]


@pytest.mark.parametrize(
    ("trials", "keep"), [((), ()), ((4, 2), (2,)), ((2, 4), ()), ((2, 4, 8), (2, 3)), ((2, 4), (0,))]
)
def test_rounds_that_are_none_are_refused(diffusion: Diffusion, trials: tuple[int, ...], keep: tuple[int, ...]) -> None:
    latents, states = asked(diffusion, 1)
    with pytest.raises(ModelError, match="are no rounds"):
        diffusion_classifier(diffusion, latents, states, trials=trials, keep=keep)


def test_the_kits_generator_tells_toys_apart(tmp_path: Path) -> None:
    world = write_image_set(tmp_path / "toys", "web", "test", 12, toys=1)
    diffusion = load_diffusion(kit.folder("generator"))
    names = [world.class_names[label] for label in sorted(set(world.labels.tolist()))][:5]
    rows = [row for row, label in enumerate(world.labels) if world.class_names[label] in names]
    with torch.no_grad():
        pixels = torch.as_tensor(Pictures(world, Preprocess(size=64)).evaluation(rows))
        states = diffusion.states(diffusion.ids([f"a photo of a {name}." for name in names]))
        found = diffusion_classifier(diffusion, diffusion.moments(pixels)[0], states, trials=(4,), keep=())
    truth = [names.index(world.class_names[world.labels[row]]) for row in rows]
    right = [best == own for best, own in zip(found.scores.argmax(1).tolist(), truth, strict=True)]
    # Chance is a fifth.
    assert len(right) >= 5
    assert np.mean(right) >= 0.8


def test_the_command_measures_a_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_stable_diffusion(tmp_path / "run" / "generator")
    pictures = colour_set(tmp_path / "set", origin="real", per_class=1, names=("red", "blue"))
    done = gen2real_("evaluate", "run", "set", "--task", "diffusion-classification", "--pictures", 2, "--json")
    assert done.code == 0, done.err
    assert done.value["count"] == 2
    # What the function says, by the same rounds.
    found = evaluate_diffusion_classification("run", pictures, pictures=2)
    assert found.to_json() == done.value
