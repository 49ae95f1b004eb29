"""Do several losses pull the same weights the same way? Their gradients apart, the angle between them, and PCGrad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, combinations_with_replacement
from typing import Any

import torch
from torch import Tensor, nn

from gen2real.training.distributed import world_size

# loss → group → a gradient for each of the group's parameters; None where the loss does not reach it
Gradients = dict[str, dict[str, list[Tensor | None]]]
Groups = Mapping[str, Sequence[nn.Parameter]]


def gradients_of(losses: Mapping[str, Tensor], parameters: Groups) -> Gradients:
    """Each loss's own gradient. The graph stays for the trainer's backward pass, and no `.grad` is touched.

    Args:
        losses: scalars, each times its weight already: what is trained is their sum.
        parameters: the trained ones, by the name of the part they belong to (image, text, …).

    Returns: constants, the mean over processes, which is what DistributedDataParallel makes of them. None on a
        parameter that the loss reaches on no process. Every process must call this, with the same losses.
    """
    flat = [parameter for group in parameters.values() for parameter in group]
    found: Gradients = {}
    for name, loss in losses.items():
        reached: list[Tensor | None] = [None] * len(flat)
        if loss.requires_grad and flat:
            reached = list(torch.autograd.grad(loss, flat, retain_graph=True, allow_unused=True))
        left = iter(_mean_over_processes(reached, flat))
        found[name] = {group: [next(left) for _ in own] for group, own in parameters.items()}
    return found


def cosines(gradients: Gradients) -> dict[str, Tensor]:
    """How far two losses agree on a group: the cosine of their gradients there, −1 (opposed) to 1.

    Returns: `cosine_<group>_<a>_<b>` → scalar, for each two losses in their order, over the parameters that both
        reach; left out where there are none, and 0 where either gradient is zero.
    """
    found: dict[str, Tensor] = {}
    for group, names, products, reach in _each_group(gradients):
        for a, b in combinations(range(len(names)), 2):
            both = reach[:, a] & reach[:, b]
            if bool(both.any()):
                dot, one, other = (products[both][:, i, j].sum() for i, j in ((a, b), (a, a), (b, b)))
                lengths = (one * other).sqrt()
                value = torch.where(lengths > 0, dot / lengths, torch.zeros_like(dot))
                found[f"cosine_{group}_{names[a]}_{names[b]}"] = value.clamp(-1, 1).float()
    return found


def pcgrad_correction(gradients: Gradients, parameters: Groups, generator: torch.Generator) -> Tensor:
    r"""What must be added to the sum of the losses so that its gradient is PCGrad's. A scalar of value 0.

    For each loss i, and the others j in random order, where g_i′ · g_j < 0::

        g_i′ ← g_i′ − (g_i′ · g_j) / ‖g_j‖² · g_j,        the update's gradient is Σ_i g_i′

    The gradient of what is returned is Σ_i (g_i′ − g_i): `loss + correction` goes through the trainer's own backward
    pass, which averages over processes and clips as ever. 0 and without effect where no two losses are opposed.

    Args:
        gradients: of `gradients_of`, of the losses whose sum is trained.
        parameters: the same that it was given.
        generator: on the CPU, seeded by run and update, alike on all processes: the order of the others.

    Source: Yu et al., "Gradient Surgery for Multi-Task Learning" (arXiv 2001.06782), algorithm 1. There the weights
    are one vector that all losses share. Ours: each group is one, and two losses are compared over the parameters that
    both reach, so that a conflict in the text tower does not turn a denoiser that one of them never sees.
    """
    moved: list[tuple[nn.Parameter, Tensor]] = []
    for group, names, products, reach in _each_group(gradients):
        taken = _projections(products, reach, generator)
        if not bool(taken.any()):
            continue
        own = [gradients[name][group] for name in names]
        for place, parameter in enumerate(parameters[group]):
            change = _change([side[place] for side in own], taken)
            if change is not None:
                moved.append((parameter, change))
    if not moved:
        device = next((parameter.device for group in parameters.values() for parameter in group), torch.device("cpu"))
        return torch.zeros((), device=device)
    correction: Tensor = _WithGradient.apply([change for _, change in moved], *(parameter for parameter, _ in moved))
    return correction


def _projections(products: Tensor, reach: Tensor, generator: torch.Generator) -> Tensor:
    """[L L]: how much of g_j is taken off g_i. Products say all there is to know: g_i′ stays a sum of the g_j."""
    count = products.shape[1]
    taken = torch.zeros(count, count, dtype=products.dtype)
    for i in range(count):
        for j in torch.randperm(count, generator=generator).tolist():
            # Where a third loss does not reach one of these, its product is 0.
            here = products[reach[:, i] & reach[:, j]].sum(dim=0)
            if i == j or here[j, j] <= 0:
                continue
            # g_i′ · g_j = (g_i − Σ_k taken_ik g_k) · g_j
            dot = here[i, j] - taken[i] @ here[:, j]
            if dot < 0:
                taken[i, j] = dot / here[j, j]
    return taken


def _change(gradients: Sequence[Tensor | None], taken: Tensor) -> Tensor | None:
    """Σ_i (g_i′ − g_i) of one parameter; None where nothing is taken off anything."""
    change: Tensor | None = None
    for j, gradient in enumerate(gradients):
        if gradient is None:
            continue
        factor = -sum(float(taken[i, j]) for i, other in enumerate(gradients) if other is not None)
        if factor:
            change = gradient * factor if change is None else change.add_(gradient, alpha=factor)
    return change


def _each_group(gradients: Gradients) -> list[tuple[str, list[str], Tensor, Tensor]]:
    """For each group its name, the losses, their products [P L L] parameter by parameter, and who reaches it [P L]."""
    names = list(gradients)
    return [
        (group, names, *_products([gradients[name][group] for name in names]))
        for group in (gradients[names[0]] if names else ())
    ]


def _products(sides: Sequence[Sequence[Tensor | None]]) -> tuple[Tensor, Tensor]:
    """[P L L] in float64, 0 where either loss does not reach the parameter, and who reaches it [P L]; on the CPU."""
    count, places = len(sides), len(sides[0])
    reach = torch.tensor([[side[place] is not None for side in sides] for place in range(places)], dtype=torch.bool)
    products, reach = torch.zeros(places, count, count, dtype=torch.float64), reach.view(places, count)
    for a, b in combinations_with_replacement(range(count), 2):
        dots = [
            torch.dot(one.flatten(), other.flatten())
            for one, other in zip(sides[a], sides[b], strict=True)
            if one is not None and other is not None
        ]
        if dots:
            # One wait for the device, not one a parameter.
            both = reach[:, a] & reach[:, b]
            products[both, a, b] = products[both, b, a] = torch.stack(dots).double().cpu()
    return products, reach


def _mean_over_processes(reached: list[Tensor | None], parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
    if world_size() == 1 or not parameters:
        return reached
    anywhere = torch.tensor([float(gradient is not None) for gradient in reached], device=parameters[0].device)
    torch.distributed.all_reduce(anywhere)
    found: list[Tensor | None] = []
    for gradient, parameter, count in zip(reached, parameters, anywhere.tolist(), strict=True):
        whole = None
        if count:
            whole = torch.zeros_like(parameter) if gradient is None else gradient.contiguous().clone()
            torch.distributed.all_reduce(whole)
            whole = whole / world_size()
        found.append(whole)
    return found


class _WithGradient(torch.autograd.Function):
    """0, with a given gradient to each of the tensors; that of a sum of products would need each of them once more."""

    @staticmethod
    def forward(ctx: Any, gradients: list[Tensor], *tensors: Tensor) -> Tensor:
        ctx.gradients = gradients
        return torch.zeros((), device=tensors[0].device)

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[None, *tuple[Tensor, ...]]:
        return (None, *(gradient * above[0] for gradient in ctx.gradients))
