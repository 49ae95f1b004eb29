"""The denoising loss: weights worked out by hand, and what a schedule's two ends do to them."""

import inspect
import math

import pytest
import torch

from gen2real.losses import denoising

# Mean squared errors per sample: 1, (0 + 4)/2 = 2, (1 + 9)/2 = 5.
PREDICTION = torch.tensor([[1.0, 1.0], [0.0, 2.0], [1.0, -3.0]], dtype=torch.float64)[:, :, None, None]
TARGET = torch.zeros_like(PREDICTION)
SNR = torch.tensor([0.5, 2.0, 8.0], dtype=torch.float64)


def test_without_gamma_it_is_the_mean_squared_error():
    assert denoising(PREDICTION, TARGET).item() == (1 + 2 + 5) / 3
    # The SNR is not looked at, so a caller may always hand it over.
    assert denoising(PREDICTION, TARGET, snr=SNR).item() == (1 + 2 + 5) / 3
    assert denoising(TARGET, TARGET, snr=SNR, gamma=5.0).item() == 0


@pytest.mark.parametrize(
    ("prediction_type", "weights"),
    [
        ("epsilon", (1, 1, 4 / 8)),
        ("v_prediction", (0.5 / 1.5, 2 / 3, 4 / 9)),
        ("sample", (0.5, 2, 4)),
    ],
)
def test_weights_by_hand(prediction_type, weights):
    found = denoising(PREDICTION, TARGET, snr=SNR, gamma=4.0, prediction_type=prediction_type)
    expected = sum(weight * error for weight, error in zip(weights, (1, 2, 5), strict=True)) / 3
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(expected, abs=1e-15)


def test_the_three_weigh_one_error_alike(generator):
    # A guess x̂ of the clean latent, told as noise, as velocity and as itself, has the loss min(SNR, γ)·|x̂ − x|².
    clean, guess, noise = torch.randn(3, 5, 4, 2, 2, generator=generator, dtype=torch.float64)
    kept = torch.tensor([0.999, 0.9, 0.5, 0.1, 0.001], dtype=torch.float64)
    a, s = kept.sqrt()[:, None, None, None], (1 - kept).sqrt()[:, None, None, None]
    noisy = a * clean + s * noise
    guessed_noise = (noisy - a * guess) / s
    pairs = {
        "sample": (guess, clean),
        "epsilon": (guessed_noise, noise),
        "v_prediction": (a * guessed_noise - s * guess, a * noise - s * clean),
    }
    snr = kept / (1 - kept)
    found = [
        denoising(*pair, snr=snr, gamma=5.0, prediction_type=name)  # type: ignore[arg-type]
        for name, pair in pairs.items()
    ]
    assert found[1].item() == pytest.approx(found[0].item(), rel=1e-12)
    # ε·√ᾱ − x₀·√(1−ᾱ): the error in v is the error in x₀ over √(1−ᾱ), whose weight is min(SNR, γ)/(SNR + 1).
    assert found[2].item() == pytest.approx(found[0].item(), rel=1e-12)


@pytest.mark.parametrize(
    ("prediction_type", "at_zero", "at_infinity"),
    [("epsilon", 1.0, 0.0), ("v_prediction", 0.0, 0.0), ("sample", 0.0, 5.0)],
)
def test_both_ends_of_a_schedule_are_finite(prediction_type, at_zero, at_infinity):
    one = torch.ones(1, 2, requires_grad=True)
    for snr, weight in ((0.0, at_zero), (math.inf, at_infinity)):
        found = denoising(one, torch.zeros(1, 2), snr=torch.tensor([snr]), gamma=5.0, prediction_type=prediction_type)
        assert found.item() == weight
        (gradient,) = torch.autograd.grad(found, one)
        assert gradient.tolist() == [[weight, weight]]


def test_gradients():
    prediction = PREDICTION.clone().requires_grad_()
    for prediction_type in ("epsilon", "v_prediction", "sample"):
        assert torch.autograd.gradcheck(
            lambda x, kind=prediction_type: denoising(x, TARGET, snr=SNR, gamma=4.0, prediction_type=kind), prediction
        )


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 5, 7), (3, 2, 2, 2, 2)])
def test_any_trailing_shape(shape):
    snr = torch.tensor([1.0, 2.0, 10.0])
    found = denoising(torch.full(shape, 3.0), torch.ones(shape), snr=snr, gamma=5.0)
    # Every squared error is 4; the weights are 1, 1 and 1/2.
    assert found.item() == pytest.approx(4 * 2.5 / 3, rel=1e-6)


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(narrow):
    # 300² is past float16's largest number, and 1 + 2⁻¹⁰ does not fit bfloat16.
    prediction, target = torch.tensor([[300.0], [1.0]], dtype=narrow), torch.zeros(2, 1, dtype=narrow)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = denoising(prediction, target, snr=torch.tensor([1.0, 1.0], dtype=narrow), gamma=5.0)
    assert found.dtype == torch.float32
    assert found.item() == (90_000 + 1) / 2


def test_a_schedule_in_float64_does_not_widen_the_loss():
    found = denoising(PREDICTION.float(), TARGET.float(), snr=SNR, gamma=4.0)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx((1 + 2 + 2.5) / 3, rel=1e-6)


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="no snr to weigh by"):
        denoising(PREDICTION, TARGET, gamma=5.0)
    for gamma in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="finite number above 0"):
            denoising(PREDICTION, TARGET, snr=SNR, gamma=gamma)
    with pytest.raises(ValueError, match=r"goes down to -0\.69.*snr\.exp\(\)"):
        denoising(PREDICTION, TARGET, snr=SNR.log(), gamma=5.0)
    # As it runs outside the tests, where shapes and words are not checked at the door.
    bare = inspect.unwrap(denoising)
    with pytest.raises(ValueError, match=r"\[3, 2, 1, 1\] and target \[3, 1, 1, 1\]"):
        bare(PREDICTION, TARGET[:, :1])
    with pytest.raises(ValueError, match=r"snr has shape \[3, 1\]; expected one number a sample, \[3\]"):
        bare(PREDICTION, TARGET, snr=SNR[:, None], gamma=5.0)
    with pytest.raises(ValueError, match="'velocity'; expected one of epsilon, v_prediction, sample"):
        bare(PREDICTION, TARGET, snr=SNR, gamma=5.0, prediction_type="velocity")
