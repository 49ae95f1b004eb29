"""Reciprocal consistency: three forms by hand and against plain Python; who learns, by form and direction."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from gen2real.losses import reciprocal_consistency

FORMS: Any = ("infonce", "cosine", "relational")
DIRECTIONS: Any = ("both", "clip_to_diffusion", "diffusion_to_clip")


def rows(seed: int, count: int = 6, dim: int = 5) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(side: Tensor) -> list[list[float]]:
    return [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in side.tolist()]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def log_share(scores: list[float], place: int) -> float:
    return scores[place] - math.log(sum(math.exp(score) for score in scores))


def oracle(teacher: Tensor, pupil: Tensor, form: str, temperature: float) -> list[float]:
    """ℓ_i of the docstring, row by row, in plain Python."""
    a, b = unit(teacher), unit(pupil)
    found = []
    for i in range(len(a)):
        if form == "cosine":
            found.append(1 - dot(a[i], b[i]))
        elif form == "infonce":
            there = log_share([dot(a[i], other) / temperature for other in b], i)
            back = log_share([dot(b[i], other) / temperature for other in a], i)
            found.append(-(there + back) / 2)
        else:
            others = [j for j in range(len(a)) if j != i]
            p, q = ([dot(side[i], side[j]) / temperature for j in others] for side in (a, b))
            found.append(
                sum(math.exp(log_share(p, k)) * (log_share(p, k) - log_share(q, k)) for k in range(len(others)))
            )
    return found


@pytest.mark.parametrize(("form", "direction"), list(product(FORMS, DIRECTIONS)))
def test_each_form_and_direction_is_what_its_formula_says(form: Any, direction: Any) -> None:
    clip, diffusion = rows(0), rows(1)
    there = sum(oracle(clip, diffusion, form, 0.07)) / 6
    back = sum(oracle(diffusion, clip, form, 0.07)) / 6
    expected = {"both": (there + back) / 2, "clip_to_diffusion": there, "diffusion_to_clip": back}[direction]
    found = reciprocal_consistency(clip, diffusion, form=form, direction=direction)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    scaled = reciprocal_consistency(3 * clip, 0.1 * diffusion, form=form, direction=direction)
    assert scaled.item() == pytest.approx(expected, rel=1e-12)
    if form == "relational":
        assert abs(there - back) > 0.1, "a divergence has a direction, so the test can tell them apart"


def test_two_orthogonal_pictures_by_hand() -> None:
    eye = torch.eye(2, dtype=torch.float64)
    assert reciprocal_consistency(eye, eye, temperature=0.5).item() == pytest.approx(
        math.log1p(math.exp(-2)), abs=1e-12
    )
    swapped = reciprocal_consistency(eye, eye.flip(0), temperature=0.5).item()
    assert swapped == pytest.approx(2 + math.log1p(math.exp(-2)), abs=1e-12)
    assert reciprocal_consistency(eye, eye.flip(0), form="cosine").item() == pytest.approx(1, abs=1e-12)
    assert reciprocal_consistency(eye, -eye, form="cosine").item() == pytest.approx(2, abs=1e-12)


def test_relational_by_hand_with_other_widths() -> None:
    """CLIP: picture 0 is as near to 1 as to 2. The denoiser: 0 and 1 are the same."""
    clip = torch.eye(3, dtype=torch.float64)
    diffusion = torch.tensor([[1.0, 0], [1, 0], [0, 1]], dtype=torch.float64)
    # Against ½, ½ stand e¹/(e¹+1), 1/(e¹+1) at τ = 1 for rows 0 and 1, and ½, ½ for row 2.
    share = math.e / (math.e + 1)
    one = math.log(0.5) - (math.log(share) + math.log(1 - share)) / 2
    found = reciprocal_consistency(clip, diffusion, form="relational", direction="clip_to_diffusion", temperature=1)
    assert found.item() == pytest.approx(2 * one / 3, abs=1e-12)
    turned = diffusion @ torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    rotated = reciprocal_consistency(diffusion, turned, form="relational").item()
    assert rotated == pytest.approx(0, abs=1e-12), "what counts is how pictures resemble each other"


@pytest.mark.parametrize(("form", "direction"), list(product(FORMS, DIRECTIONS)))
def test_only_the_pupil_learns(form: Any, direction: Any) -> None:
    """The truth table of stopped gradients."""
    clip, diffusion = rows(0).requires_grad_(), rows(1).requires_grad_()
    loss = reciprocal_consistency(clip, diffusion, form=form, direction=direction)
    to_clip, to_diffusion = torch.autograd.grad(loss, (clip, diffusion), allow_unused=True)
    learns = {
        "clip": to_clip is not None and bool(to_clip.abs().max() > 1e-4),
        "diffusion": to_diffusion is not None and bool(to_diffusion.abs().max() > 1e-4),
    }
    assert (
        learns
        == {
            "both": {"clip": True, "diffusion": True},
            "clip_to_diffusion": {"clip": False, "diffusion": True},
            "diffusion_to_clip": {"clip": True, "diffusion": False},
        }[direction]
    )
    assert (to_clip is None, to_diffusion is None) == (direction == DIRECTIONS[1], direction == DIRECTIONS[2])


@pytest.mark.parametrize("form", FORMS)
def test_both_is_half_of_each_direction_in_every_gradient(form: Any) -> None:
    gradients: dict[str, tuple[Any, Any]] = {}
    for direction in DIRECTIONS:
        clip, diffusion = rows(2).requires_grad_(), rows(3).requires_grad_()
        reciprocal_consistency(clip, diffusion, form=form, direction=direction).backward()
        gradients[direction] = (clip.grad, diffusion.grad)
    torch.testing.assert_close(gradients["both"][0], gradients["diffusion_to_clip"][0] / 2)
    torch.testing.assert_close(gradients["both"][1], gradients["clip_to_diffusion"][1] / 2)


@pytest.mark.parametrize(("form", "direction"), list(product(FORMS, DIRECTIONS[1:])))
def test_the_pupils_gradient_is_right(form: Any, direction: Any) -> None:
    clip, diffusion = rows(4, 4), rows(5, 4)
    weights = torch.tensor([1.0, 0.5, 0, 2], dtype=torch.float64)

    def loss(pupil: Tensor) -> Tensor:
        sides = (clip, pupil) if direction == "clip_to_diffusion" else (pupil, diffusion)
        return reciprocal_consistency(*sides, form=form, direction=direction, temperature=0.3, weights=weights)

    pupil = diffusion if direction == "clip_to_diffusion" else clip
    assert torch.autograd.gradcheck(loss, pupil.clone().requires_grad_())


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_those_of_a_mean(form: Any) -> None:
    clip, diffusion = rows(6, 5), rows(7, 5)
    weights = torch.tensor([0.2, 1, 0.5, 0.3, 3])
    found = reciprocal_consistency(
        clip, diffusion, form=form, direction="clip_to_diffusion", temperature=0.2, weights=weights.double()
    )
    terms = oracle(clip, diffusion, form, 0.2)
    expected = sum(w * term for w, term in zip([0.2, 1, 0.5, 0.3, 3], terms, strict=True)) / 5
    assert found.item() == pytest.approx(expected, rel=1e-7)
    same = reciprocal_consistency(clip, diffusion, form=form, weights=torch.full((5,), 0.3))
    torch.testing.assert_close(same, reciprocal_consistency(clip, diffusion, form=form))


@pytest.mark.parametrize("form", FORMS)
def test_a_row_of_weight_zero_is_neither_asked_nor_an_answer(form: Any) -> None:
    """Whatever stands in it, no number included."""
    clip, diffusion = rows(8), rows(9)
    kept = torch.tensor([0, 2, 3, 5])
    weights = torch.zeros(6).index_fill(0, kept, 1.0)
    expected = reciprocal_consistency(clip[kept], diffusion[kept], form=form)
    diffusion[1], diffusion[4] = math.inf, math.nan
    diffusion.requires_grad_()
    found = reciprocal_consistency(clip, diffusion, form=form, weights=weights)
    assert found.item() == expected.item()
    found.backward()
    assert diffusion.grad is not None
    assert not diffusion.grad[[1, 4]].any()
    assert diffusion.grad[kept].abs().min() > 0


@pytest.mark.parametrize(("form", "enough"), [("infonce", 2), ("cosine", 1), ("relational", 3)])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_too_few_rows_are_a_zero_that_keeps_the_graph(form: Any, enough: int, direction: Any) -> None:
    for count in range(enough + 1):
        clip, diffusion = rows(0), rows(1)
        # Rows that say nothing may hold anything, as what a denoiser makes of pure noise.
        clip[count:] = diffusion[count:] = math.nan
        clip, diffusion = clip.requires_grad_(), diffusion.requires_grad_()
        weights = (torch.arange(6) < count).float()
        loss = reciprocal_consistency(clip, diffusion, form=form, direction=direction, weights=weights)
        # Two pictures have one other each, and nothing to compare.
        assert (loss.item() == 0) == (count < enough)
        loss.backward()
        taught = {"both": (clip, diffusion), "clip_to_diffusion": (diffusion,), "diffusion_to_clip": (clip,)}[direction]
        for side in (clip, diffusion):
            assert (side.grad is not None) == any(side is one for one in taught)
            assert side.grad is None or bool(side.grad.any()) == (count >= enough)
    assert reciprocal_consistency(rows(0, 1), rows(1, 1), form=form).item() == pytest.approx(
        oracle(rows(0, 1), rows(1, 1), "cosine", 1)[0] if form == "cosine" else 0
    )


@pytest.mark.parametrize("form", FORMS)
def test_what_is_the_same_for_every_picture_stays_finite(form: Any) -> None:
    clip, diffusion = torch.ones(4, 3), torch.zeros(4, 3, requires_grad=True)
    loss = reciprocal_consistency(clip, diffusion, form=form)
    loss.backward()
    assert diffusion.grad is not None
    assert bool(loss.isfinite())
    assert bool(diffusion.grad.isfinite().all())
    constant = reciprocal_consistency(clip, clip, form=form).item()
    assert constant == pytest.approx(math.log(4) if form == "infonce" else 0, abs=1e-6), "only infonce minds a collapse"


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_rows_give_a_float32_scalar_under_autocast(form: Any) -> None:
    clip, diffusion = rows(6).bfloat16(), rows(7).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = reciprocal_consistency(clip, diffusion, form=form, weights=torch.ones(6, dtype=torch.float64))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, reciprocal_consistency(clip.float(), diffusion.float(), form=form))


def test_what_cannot_be_computed_is_said() -> None:
    with pytest.raises(ValueError, match=r"temperature is 0; expected a number above 0"):
        reciprocal_consistency(rows(0), rows(1), temperature=0)
    with pytest.raises(
        ValueError, match=r"clip has shape \[6, 5\] and diffusion \[6, 4\]; cosine compares.*relational"
    ):
        reciprocal_consistency(rows(0), rows(1, dim=4), form="cosine")
    with pytest.raises(ValueError, match=r"weights go down to -1; expected 0 or more"):
        reciprocal_consistency(rows(0), rows(1), weights=-torch.ones(6))
    # With shapes checked, as in tests, the types are told of first.
    with pytest.raises(Exception, match="form"):
        reciprocal_consistency(rows(0), rows(1), form="mse")  # type: ignore[arg-type]
    with pytest.raises(Exception, match="direction"):
        reciprocal_consistency(rows(0), rows(1), direction="neither")  # type: ignore[arg-type]
