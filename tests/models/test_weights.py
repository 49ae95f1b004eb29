"""Weight-space arithmetic: endpoints bit for bit, hand-worked mixtures, and refusals that say what differs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gen2real.models.weights import greedy_soup, interpolate, uniform_soup


def state(**tensors: Tensor) -> dict[str, Tensor]:
    return tensors


class TestInterpolate:
    def test_by_hand(self) -> None:
        mixed = interpolate(state(w=torch.tensor([0.0, 4.0])), state(w=torch.tensor([8.0, -4.0])), 0.25)
        assert mixed["w"].tolist() == [2.0, 2.0]

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_endpoints_bit_for_bit(self, dtype: torch.dtype) -> None:
        original = state(w=(torch.randn(1000) * 1e3).to(dtype), n=torch.tensor(3), b=torch.tensor([True, False]))
        tuned = state(w=(torch.randn(1000) * 1e-3).to(dtype), n=torch.tensor(9), b=torch.tensor([False, True]))
        for alpha, endpoint in ((0, original), (0.0, original), (1, tuned), (1.0, tuned)):
            mixed = interpolate(original, tuned, alpha)
            for name, tensor in endpoint.items():
                assert torch.equal(mixed[name], tensor)
                assert mixed[name].dtype == tensor.dtype

    def test_endpoint_keeps_nan_and_infinity(self) -> None:
        odd = state(w=torch.tensor([math.nan, math.inf, -0.0]))
        mixed = interpolate(odd, state(w=torch.zeros(3)), 0.0)
        assert torch.equal(mixed["w"].view(torch.int32), odd["w"].view(torch.int32))

    def test_what_both_share_is_untouched(self) -> None:
        both = torch.randn(1000)
        for alpha in (0.1, 0.3, 0.7):
            assert torch.equal(interpolate(state(w=both), state(w=both.clone()), alpha)["w"], both)

    def test_integers_are_never_mixed(self) -> None:
        original, tuned = (
            state(n=torch.tensor(0), b=torch.tensor(True)),
            state(n=torch.tensor(500), b=torch.tensor(False)),
        )
        assert interpolate(original, tuned, 0.49)["n"].item() == 0
        mixed = interpolate(original, tuned, 0.5)
        assert mixed["n"].item() == 500
        assert mixed["n"].dtype == torch.int64
        assert mixed["b"].dtype == torch.bool

    def test_half_precision_is_mixed_in_float32(self) -> None:
        low, high = torch.tensor([-60000.0], dtype=torch.float16), torch.tensor([60000.0], dtype=torch.float16)
        assert interpolate(state(w=low), state(w=high), 0.5)["w"].item() == 0.0  # the difference overflows float16

    def test_float64_stays(self) -> None:
        mixed = interpolate(state(w=torch.zeros(1).double()), state(w=torch.tensor([1e-12], dtype=torch.float64)), 0.5)
        assert mixed["w"].item() == 5e-13
        assert mixed["w"].dtype == torch.float64

    def test_first_matching_pattern_decides(self) -> None:
        zeros = {"head.weight": torch.zeros(1), "vision.proj": torch.zeros(1), "vision.norm": torch.zeros(1)}
        ones = {name: torch.ones(1) for name in zeros}
        mixed = interpolate(zeros, ones, {"head.*": 1.0, "*.norm": 0.0, "*": 0.25})
        assert {name: tensor.item() for name, tensor in mixed.items()} == {
            "head.weight": 1.0,
            "vision.proj": 0.25,
            "vision.norm": 0.0,
        }

    def test_unmatched_key(self) -> None:
        with pytest.raises(ValueError, match=r"no alpha pattern matches vision; .*\"\*\""):
            interpolate(state(vision=torch.zeros(1)), state(vision=torch.ones(1)), {"head.*": 1.0})

    def test_differing_keys_and_shapes_are_listed(self) -> None:
        original = state(a=torch.zeros(1), b=torch.zeros(2), same=torch.zeros(1), kind=torch.zeros(1))
        tuned = state(b=torch.zeros(3), same=torch.zeros(1), c=torch.zeros(1), kind=torch.zeros(1, dtype=torch.int64))
        with pytest.raises(ValueError, match="do not fit") as caught:
            interpolate(original, tuned, 0.5)
        message = str(caught.value)
        assert "only in original: a" in message
        assert "only in tuned: c" in message
        assert "b: (2,) in original, (3,) in tuned" in message
        assert "kind: torch.float32 in original, torch.int64 in tuned" in message

    @pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan, math.inf, {"*": 2.0}])
    def test_alpha_out_of_range(self, alpha: float | dict[str, float]) -> None:
        with pytest.raises(ValueError, match="alpha is"):
            interpolate(state(w=torch.zeros(1)), state(w=torch.ones(1)), alpha)

    def test_extrapolation_on_request(self) -> None:
        mixed = interpolate(state(w=torch.zeros(1)), state(w=torch.ones(1)), 1.5, extrapolate=True)
        assert mixed["w"].item() == 1.5

    def test_arguments_are_left_alone_and_not_aliased(self) -> None:
        original, tuned = state(w=torch.zeros(1)), state(w=torch.ones(1))
        for alpha in (0.0, 0.5, 1.0):
            interpolate(original, tuned, alpha)["w"].add_(7)
        assert (original["w"].item(), tuned["w"].item()) == (0.0, 1.0)

    def test_gradients_stay_behind(self) -> None:
        original = state(w=torch.zeros(1, requires_grad=True))
        assert not interpolate(original, state(w=torch.ones(1)), 0.5)["w"].requires_grad


class TestSoups:
    def test_mean_by_hand(self) -> None:
        states = [state(w=torch.tensor([value]), n=torch.tensor(index)) for index, value in enumerate((1.0, 2.0, 6.0))]
        soup = uniform_soup(states)
        assert soup["w"].item() == 3.0
        assert soup["n"].item() == 0

    def test_mean_of_equals_is_the_same(self) -> None:
        same = torch.randn(1000)
        assert torch.equal(uniform_soup([state(w=same)] * 3)["w"], same)

    def test_greedy_by_hand(self) -> None:
        # The nearer the mean to 10, the better. Own scores: 6 → −4, 15 → −5, 30 → −20, 9 → −1.
        # 9 first; with 6: 7.5 is worse (−2.5 < −1); with 15: 12 is worse; with 30: worse. Only 9 stays.
        states = [state(w=torch.tensor([value])) for value in (6.0, 15.0, 30.0, 9.0)]
        soup, chosen = greedy_soup(states, lambda s: -abs(s["w"].item() - 10))
        assert (soup["w"].item(), chosen) == (9.0, [3])

    def test_greedy_adds_what_helps(self) -> None:
        # 8 (−2) first, then 13 (−3): mean 10.5 (−0.5) joins; then 5 (−5): mean 8.67 (−1.33) does not.
        states = [state(w=torch.tensor([value])) for value in (5.0, 13.0, 8.0)]
        soup, chosen = greedy_soup(states, lambda s: -abs(s["w"].item() - 10))
        assert (soup["w"].item(), chosen) == (10.5, [2, 1])

    def test_equal_score_joins_and_ties_keep_their_order(self) -> None:
        states = [state(w=torch.tensor([value])) for value in (1.0, 3.0)]
        soup, chosen = greedy_soup(states, lambda _: 0.5)
        assert (soup["w"].item(), chosen) == (2.0, [0, 1])

    def test_known_scores_are_not_measured_again(self) -> None:
        seen: list[float] = []
        states = [state(w=torch.tensor([value])) for value in (1.0, 3.0)]

        def score(mixed: dict[str, Tensor]) -> float:
            seen.append(mixed["w"].item())
            return 0.0

        _, chosen = greedy_soup(states, score, scores=[0.2, 0.9])
        assert chosen == [1]
        assert seen == [2.0]

    def test_refusals(self) -> None:
        one = state(w=torch.zeros(1))
        with pytest.raises(ValueError, match="at least one state"):
            uniform_soup([])
        with pytest.raises(ValueError, match="at least one state"):
            greedy_soup([], lambda _: 0.0)
        with pytest.raises(ValueError, match="only in state 1: v"):
            uniform_soup([one, state(v=torch.zeros(1))])
        with pytest.raises(ValueError, match="1 numbers for 2 states"):
            greedy_soup([one, one], lambda _: 0.0, scores=[1.0])
        with pytest.raises(ValueError, match=r"state\(s\) \[1\] is NaN"):
            greedy_soup([one, one], lambda _: 0.0, scores=[1.0, math.nan])
