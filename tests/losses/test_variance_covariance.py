import numpy as np
import pytest
import torch

from gen2real.losses import variance_covariance


def sine_features(n: int, d: int, s: float) -> torch.Tensor:
    i = torch.arange(n, dtype=torch.float64)[:, None]
    j = torch.arange(d, dtype=torch.float64)[None, :]
    return s * torch.sin(1 + i * d + j**2)


@pytest.mark.parametrize(
    ("n", "d", "s", "variance", "covariance", "regft"),
    [
        (8, 4, 1.0, 0.23364864, 0.16391599, 0.04066210),
        (8, 4, 0.25, 0.80841191, 0.00064030, 0.12935871),
        (16, 6, 0.5, 0.66824432, 0.00739566, 0.10706700),
    ],
)
def test_golden_values(n, d, s, variance, covariance, regft):
    terms = variance_covariance(sine_features(n, d, s))
    assert terms.variance.item() == pytest.approx(variance, abs=5e-9)
    assert terms.covariance.item() == pytest.approx(covariance, abs=5e-9)
    assert (0.16 * terms.variance + 0.02 * terms.covariance).item() == pytest.approx(regft, abs=5e-9)
    single = variance_covariance(sine_features(n, d, s).float())
    assert single.variance.dtype == torch.float32
    assert single.variance.item() == pytest.approx(variance, abs=1e-5)
    assert single.covariance.item() == pytest.approx(covariance, abs=1e-5)


@pytest.mark.parametrize("normalizer", ["pairs", "dim"])
def test_gradient_equals_closed_form_and_finite_differences(normalizer):
    a, b, eps = 0.16, 0.02, 1e-7
    z = sine_features(8, 4, 0.5).requires_grad_()
    terms = variance_covariance(z, normalizer=normalizer)
    (a * terms.variance + b * terms.covariance).backward()

    # dL/dZ = 2/(N−1) · Zc · G,  G = diag(−a / (2 D s_j) where s_j < 1) + 2 b C_off / norm
    with torch.no_grad():
        n, d = z.shape
        centred = z - z.mean(0)
        c = torch.from_numpy(np.cov(z.detach().numpy().T))
        s = torch.sqrt(c.diagonal() + eps)
        norm = d * (d - 1) if normalizer == "pairs" else d
        g = torch.diag(torch.where(s < 1, -a / (2 * d * s), 0.0)) + 2 * b * (c - torch.diag(c.diagonal())) / norm
        expected = 2 / (n - 1) * centred @ g
    torch.testing.assert_close(z.grad, expected, rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(
        lambda x: sum(variance_covariance(x, normalizer=normalizer)), sine_features(6, 3, 0.5).requires_grad_()
    )


def test_dim_is_pairs_times_dimension_minus_one():
    z = sine_features(16, 6, 0.5)
    pairs, dim = variance_covariance(z), variance_covariance(z, normalizer="dim")
    torch.testing.assert_close(dim.covariance, pairs.covariance * 5)
    torch.testing.assert_close(dim.variance, pairs.variance)


def test_no_penalty_where_nothing_is_wrong():
    wide = torch.tensor([[3.0, 3.0], [-3.0, 3.0], [3.0, -3.0], [-3.0, -3.0]])
    terms = variance_covariance(wide)
    assert terms.variance.item() == 0
    assert terms.covariance.item() == 0


@pytest.mark.parametrize("shape", [(1, 5), (4, 1), (1, 1)])
def test_one_sample_or_one_dimension_stays_finite(shape):
    z = torch.ones(shape, requires_grad=True)
    terms = variance_covariance(z)
    assert terms.covariance.item() == 0
    assert terms.variance.item() == pytest.approx(1 - 1e-7**0.5)
    (terms.variance + terms.covariance).backward()
    assert torch.isfinite(z.grad).all()


def test_target_std_is_in_the_features_unit():
    z = sine_features(16, 6, 0.5)
    small = variance_covariance(z * 0.01, target_std=0.01, eps=1e-11)
    large = variance_covariance(z)
    torch.testing.assert_close(small.variance * 100, large.variance)


def test_autocast_does_not_lower_precision():
    z = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
    plain = variance_covariance(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = variance_covariance(z)
    assert torch.equal(plain.covariance, inside.covariance)
    assert variance_covariance(z.bfloat16()).covariance.dtype == torch.float32


def test_unknown_normalizer_names_the_choices():
    with pytest.raises(Exception, match="pairs"):
        variance_covariance(torch.zeros(2, 2), normalizer="vicreg")
