"""GMAIL's equation 1 by hand and against an independent oracle; its options."""

from __future__ import annotations

import math

import pytest
import torch

from gen2real.losses import modality_alignment


def rows(seed: int, count: int = 7, dim: int = 5) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def oracle(generated: torch.Tensor, real: torch.Tensor, temperature: float) -> float:
    """Equation 1, term by term, in plain Python."""
    total = 0.0
    for i, g in enumerate(generated.tolist()):
        scores = []
        for r in real.tolist():
            lengths = math.sqrt(sum(x * x for x in g)) * math.sqrt(sum(x * x for x in r))
            scores.append(math.exp(sum(x * y for x, y in zip(g, r, strict=True)) / lengths / temperature))
        total -= math.log(scores[i] / sum(scores))
    return total / len(generated)


def test_equation_1_with_the_papers_temperature() -> None:
    generated, real = rows(0), rows(1)
    expected = oracle(generated, real, 0.07)
    assert modality_alignment(generated, real).item() == pytest.approx(expected, rel=1e-12)
    assert modality_alignment(3 * generated, 0.2 * real, 0.07).item() == pytest.approx(expected, rel=1e-12)
    assert modality_alignment(generated, real, 0.5).item() == pytest.approx(oracle(generated, real, 0.5), rel=1e-12)


def test_two_orthogonal_pairs_by_hand() -> None:
    # S = [[1/τ, 0], [0, 1/τ]]: each row's term is log(1 + e^{−1/τ})
    eye = torch.eye(2, dtype=torch.float64)
    assert modality_alignment(eye, eye, 0.5).item() == pytest.approx(math.log1p(math.exp(-2)), abs=1e-12)


def test_one_direction_unless_symmetric() -> None:
    generated, real = rows(0), rows(1)
    there, back = oracle(generated, real, 0.07), oracle(real, generated, 0.07)
    assert abs(there - back) > 0.1
    found = modality_alignment(generated, real, symmetric=True).item()
    assert found == pytest.approx((there + back) / 2, rel=1e-12)


GROUPS = torch.tensor([4, 4, 9])


def test_pictures_of_one_partner_are_negatives_as_in_the_paper_unless_told() -> None:
    eye = torch.eye(3, dtype=torch.float64)
    real = eye[[0, 0, 2]]
    s = 1 / 0.5
    literal = (2 * (math.log(2 * math.exp(s) + 1) - s) + math.log(math.exp(s) + 2) - s) / 3
    assert modality_alignment(real, real, 0.5).item() == pytest.approx(literal, abs=1e-12)
    # Masked, rows 0 and 1 have one candidate of their own and one other.
    masked = (2 * (math.log(math.exp(s) + 1) - s) + math.log(math.exp(s) + 2) - s) / 3
    found = modality_alignment(real, real, 0.5, groups=GROUPS, same_partner="masked").item()
    assert found == pytest.approx(masked, abs=1e-12)


@pytest.mark.parametrize("symmetric", [False, True])
def test_positives_share_the_target(symmetric: bool) -> None:
    generated, real = rows(0, 3), rows(1, 3)
    unit = [torch.nn.functional.normalize(side, dim=1) for side in (generated, real)]
    scores = unit[0] @ unit[1].T / 0.07
    target = torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]], dtype=torch.float64)
    sides = [scores, scores.T] if symmetric else [scores]
    expected = sum(-(target * side.log_softmax(dim=1)).sum() / 3 for side in sides) / len(sides)
    found = modality_alignment(generated, real, groups=GROUPS, same_partner="positives", symmetric=symmetric)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("same_partner", ["positives", "masked"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_partners_of_their_own_make_no_difference(same_partner: str, symmetric: bool) -> None:
    generated, real = rows(2), rows(3)
    found = modality_alignment(
        generated,
        real,
        symmetric=symmetric,
        groups=torch.arange(7),
        same_partner=same_partner,  # type: ignore[arg-type]
    )
    torch.testing.assert_close(found, modality_alignment(generated, real, symmetric=symmetric))


@pytest.mark.parametrize("same_partner", ["positives", "masked"])
def test_gradients_are_right_and_finite(same_partner: str) -> None:
    generated, real = rows(4, 4).requires_grad_(), rows(5, 4)
    groups = torch.tensor([1, 1, 2, 3])

    def loss(anchor: torch.Tensor) -> torch.Tensor:
        return modality_alignment(anchor, real, 0.3, symmetric=True, groups=groups, same_partner=same_partner)  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(loss, generated)


def test_bfloat16_rows_give_a_float32_scalar_under_autocast() -> None:
    generated, real = rows(6).bfloat16(), rows(7).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = modality_alignment(generated, real)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, modality_alignment(generated.float(), real.float()))


def test_what_cannot_be_computed_is_said() -> None:
    with pytest.raises(ValueError, match=r"temperature is 0; expected a number above 0, such as GMAIL's 0\.07"):
        modality_alignment(rows(0), rows(1), 0)
    # With shapes checked, as in tests, the types are told of first.
    with pytest.raises(Exception, match="positives"):
        modality_alignment(rows(0), rows(1), same_partner="mask")  # type: ignore[arg-type]
