"""Gradients apart: against the backward pass, the angles between them, and PCGrad against itself written plainly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import Part, trainer
from torch import Tensor, nn

from gen2real.training.conflict import Gradients, cosines, gradients_of, pcgrad_correction

Vectors = dict[str, dict[str, Sequence[Sequence[float] | None]]]


def given(values: Vectors) -> tuple[Gradients, dict[str, list[nn.Parameter]]]:
    """Gradients as written, and parameters of their shapes."""
    found: Gradients = {
        loss: {
            group: [None if row is None else torch.tensor(row, dtype=torch.float64) for row in rows]
            for group, rows in groups.items()
        }
        for loss, groups in values.items()
    }
    shapes: dict[str, list[nn.Parameter]] = {}
    for groups in found.values():
        for group, rows in groups.items():
            mine = shapes.setdefault(group, [nn.Parameter(torch.empty(0))] * len(rows))
            for place, row in enumerate(rows):
                if row is not None:
                    mine[place] = nn.Parameter(torch.ones_like(row))
    return found, shapes


def surgered(gradients: Gradients, parameters: Mapping[str, Sequence[nn.Parameter]], seed: int = 0) -> list[Tensor]:
    """What the parameters' `.grad` are after the backward pass of a sum that has these gradients, with PCGrad."""
    flat = [(group, place, p) for group, own in parameters.items() for place, p in enumerate(own)]
    for _, _, parameter in flat:
        parameter.grad = None
    terms = [
        (gradient * parameter).sum()
        for group, place, parameter in flat
        for side in gradients.values()
        if (gradient := side[group][place]) is not None
    ]
    loss = torch.stack(terms).sum()
    correction = pcgrad_correction(gradients, parameters, torch.Generator().manual_seed(seed))
    assert correction.item() == 0
    (loss + correction).backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad for _, _, p in flat]


def algorithm_1(tasks: np.ndarray, orders: Sequence[Sequence[int]]) -> np.ndarray:
    """The paper's box on plain vectors: the sum of the tasks' gradients [L P], for given orders of the others."""
    changed = tasks.copy()
    for i, order in enumerate(orders):
        for j in order:
            overlap = changed[i] @ tasks[j]
            if overlap < 0:
                changed[i] -= overlap / (tasks[j] @ tasks[j]) * tasks[j]
    return changed.sum(axis=0)


def test_two_opposed_losses_by_hand() -> None:
    # a·b = −½: a′ = a + ½/1.25 · b = (0.6, 1.2), b′ = b + ½/2 · a = (−0.75, 0.75)
    gradients, parameters = given({"a": {"text": [[1.0, 1.0]]}, "b": {"text": [[-1.0, 0.5]]}})
    (found,) = surgered(gradients, parameters)
    torch.testing.assert_close(found, torch.tensor([-0.15, 1.95], dtype=torch.float64))


@pytest.mark.parametrize("seed", range(6))
def test_three_losses_are_algorithm_1_in_one_of_its_orders(seed: int) -> None:
    """Over parameters of several shapes, which the box knows as one vector."""
    draw = torch.Generator().manual_seed(seed)
    pieces = [(3, 2), (4,), ()]
    gradients: Gradients = {
        name: {"text": [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in pieces]}
        for name in ("itc", "is", "rsc")
    }
    # The third is nearly against the first two, so that the order matters.
    gradients["rsc"]["text"] = [
        -(a + b) / 2 + 0.5 * c  # type: ignore[operator]
        for a, b, c in zip(*(gradients[name]["text"] for name in ("itc", "is", "rsc")), strict=True)
    ]
    parameters = {"text": [nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in pieces]}
    vectors = np.stack([np.concatenate([g.numpy().ravel() for g in side["text"]]) for side in gradients.values()])  # type: ignore[union-attr]
    orders = [list(permutations([j for j in range(3) if j != i])) for i in range(3)]
    allowed = [algorithm_1(vectors, chosen) for chosen in product(*orders)]
    for draws in range(4):
        found = np.concatenate([g.numpy().ravel() for g in surgered(gradients, parameters, draws)])
        assert min(np.abs(found - one).max() for one in allowed) < 1e-12
        assert np.abs(found - vectors.sum(axis=0)).max() > 0.1, "something is taken off"


def test_the_order_is_drawn_and_the_same_seed_draws_the_same() -> None:
    values: Vectors = {
        "a": {"text": [[1.0, 0.2, 0.0]]},
        "b": {"text": [[-0.6, 1.0, 0.0]]},
        "c": {"text": [[-0.6, -0.9, 0.4]]},
    }
    found = {tuple(surgered(*given(values), seed)[0].tolist()) for seed in range(40)}
    again = {tuple(surgered(*given(values), seed)[0].tolist()) for seed in range(40)}
    vectors = np.array([list(values[name]["text"][0] or ()) for name in "abc"])
    orders = [list(permutations([j for j in range(3) if j != i])) for i in range(3)]
    allowed = {tuple(np.round(algorithm_1(vectors, chosen), 9)) for chosen in product(*orders)}
    assert {tuple(np.round(one, 9)) for one in found} == allowed, "every order comes, and no other"
    assert len(allowed) > 1
    assert found == again


def test_only_what_both_reach_is_compared_and_changed() -> None:
    """A projection that one loss alone trains keeps its gradient, and other groups know nothing of the conflict."""
    gradients, parameters = given(
        {
            "itc": {"text": [[1.0, 1.0], [5.0]], "unet": [None], "image": [[1.0]]},
            "is": {"text": [[-1.0, 0.5], None], "unet": [[7.0, -7.0]], "image": [[2.0]]},
        }
    )
    shared, projection, unet, image = surgered(gradients, parameters)
    torch.testing.assert_close(shared, torch.tensor([-0.15, 1.95], dtype=torch.float64))
    assert (projection.tolist(), unet.tolist(), image.tolist()) == ([5], [7, -7], [3])


def test_a_loss_takes_off_another_only_where_that_was_put() -> None:
    """Three losses, of which each two meet elsewhere: dense vectors with zeros say the same but for the lengths."""
    reach = {"a": (True, True, False), "b": (True, True, True), "c": (False, True, True)}
    draw = torch.Generator().manual_seed(3)
    gradients: Gradients = {
        name: {"text": [torch.randn(2, generator=draw, dtype=torch.float64) if here else None for here in row]}
        for name, row in reach.items()
    }
    parameters = {"text": [nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(3)]}

    def plainly(orders: Sequence[Sequence[str]]) -> Tensor:
        total = torch.zeros(3, 2, dtype=torch.float64)
        for name, order in zip(reach, orders, strict=True):
            mine = [None if g is None else g.clone() for g in gradients[name]["text"]]
            for other in order:
                theirs = gradients[other]["text"]
                both = [place for place in range(3) if mine[place] is not None and theirs[place] is not None]
                one = torch.cat([mine[place] for place in both])  # type: ignore[misc]
                two = torch.cat([theirs[place] for place in both])  # type: ignore[misc]
                if one @ two < 0:
                    for place in both:
                        mine[place] = mine[place] - (one @ two) / (two @ two) * theirs[place]  # type: ignore[operator]
            for place, gradient in enumerate(mine):
                if gradient is not None:
                    total[place] += gradient
        return total

    orders = [list(permutations([other for other in reach if other != name])) for name in reach]
    allowed = [plainly(chosen) for chosen in product(*orders)]
    plain = torch.stack([sum(g for side in gradients.values() if (g := side["text"][p]) is not None) for p in range(3)])  # type: ignore[misc]
    assert any((one - plain).abs().max() > 0.1 for one in allowed)
    for seed in range(4):
        found = torch.stack(surgered(gradients, parameters, seed))
        assert min(float((found - one).abs().max()) for one in allowed) < 1e-12


def test_what_is_not_opposed_stays_as_it_is() -> None:
    gradients, parameters = given(
        {"a": {"text": [[1.0, 0.0]]}, "b": {"text": [[0.0, 2.0]]}, "c": {"text": [[0.0, 0.0]]}}
    )
    correction = pcgrad_correction(gradients, parameters, torch.Generator())
    assert not correction.requires_grad
    assert surgered(gradients, parameters)[0].tolist() == [1, 2]
    assert pcgrad_correction({}, {}, torch.Generator()).item() == 0


def test_cosines_by_hand() -> None:
    gradients, _ = given(
        {
            "itc": {"text": [[3.0, 0.0], [9.0]], "image": [[1.0]], "unet": [None]},
            "is": {"text": [[-1.0, 1.0], None], "image": [None], "unet": [[2.0]]},
            "rsc": {"text": [[0.0, 0.0], [1.0]], "image": [[-2.0]], "unet": [[0.5]]},
        }
    )
    found = {name: round(float(value), 6) for name, value in cosines(gradients).items()}
    assert found == {
        "cosine_text_itc_is": round(-1 / 2**0.5, 6),
        "cosine_text_itc_rsc": round(9 / 90**0.5, 6),
        "cosine_text_is_rsc": 0.0,
        "cosine_image_itc_rsc": -1.0,
        "cosine_unet_is_rsc": 1.0,
    }


def test_gradients_are_those_of_the_backward_pass_and_leave_it_alone() -> None:
    shared, own, apart = nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(3, 3)
    hidden = torch.tanh(shared(torch.randn(5, 3)))
    losses = {"one": own(hidden).square().mean(), "other": apart(hidden).pow(4).mean(), "none": torch.tensor(2.0)}
    parameters = {"shared": list(shared.parameters()), "own": list(own.parameters()), "nothing": []}
    found = gradients_of(losses, parameters)
    assert all(p.grad is None for p in [*shared.parameters(), *own.parameters(), *apart.parameters()])
    assert found["other"]["own"] == found["none"]["own"] == [None, None]
    assert found["one"]["nothing"] == []
    for name in ("one", "other"):
        shared.zero_grad()
        losses[name].backward(retain_graph=True)
        for mine, parameter in zip(found[name]["shared"], shared.parameters(), strict=True):
            assert mine is not None
            assert not mine.requires_grad
            assert parameter.grad is not None
            assert torch.equal(mine, parameter.grad)
    assert set(cosines(found)) == {"cosine_shared_one_other"}


def test_pcgrad_goes_through_the_trainer(tmp_path: Path) -> None:
    """Two losses pull one weight apart; the gradient at the optimiser is that by hand, clipped as ever."""
    model = nn.Linear(4, 3, bias=False)
    seen: list[Tensor] = []

    def step(models: Mapping[str, nn.Module], part: Part) -> dict[str, Tensor]:
        weight = next(models["model"].parameters())
        output = models["model"](part.x)
        losses = {"near": (output - part.y).square().mean(), "far": -(output - 0.5 * part.y).square().mean()}
        apart = gradients_of(losses, {"all": [weight]})
        near, far = (apart[name]["all"][0].flatten() for name in losses)  # type: ignore[union-attr]
        overlap = near @ far
        assert overlap < 0
        seen.append(near - overlap / (far @ far) * far + far - overlap / (near @ near) * near)
        correction = pcgrad_correction(apart, {"all": [weight]}, torch.Generator().manual_seed(0))
        return {"loss": sum(losses.values()) + correction, **cosines(apart)}

    fitting = trainer(tmp_path, {"model": model}, steps=1, step=step, optimizer={"clip_norm": 1e3})
    update = fitting._optimizer.step

    def looked_at(*args: Any) -> None:
        assert model.weight.grad is not None
        seen.append(model.weight.grad.flatten().clone())
        update(*args)

    fitting._optimizer.step = looked_at
    fitting.fit()
    torch.testing.assert_close(seen[1], seen[0])
    (row,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert -1 < row["cosine_all_near_far"] < 0
