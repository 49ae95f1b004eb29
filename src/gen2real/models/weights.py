"""Arithmetic on state dicts: weight-space ensembles (WiSE-FT, RegFT) and model soups.

A state is a mapping from names to tensors, as `nn.Module.state_dict()` gives it. Nothing here changes its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor

State = Mapping[str, Tensor]
Number = float | int


def interpolate(
    original: State, tuned: State, alpha: Number | Mapping[str, Number], *, extrapolate: bool = False
) -> dict[str, Tensor]:
    """θ(α) = (1 − α)·θ_original + α·θ_tuned for every key: the weight-space ensemble of WiSE-FT and RegFT.

    Computed as θ_original + α·(θ_tuned − θ_original) in float32, or float64 for float64, and returned in the dtype and
    on the device of `original`. α = 0 and α = 1 give the endpoints bit for bit; a tensor equal in both stays as it is
    at every α. Integer and boolean tensors (a batch norm's counter) are never mixed: they come from `tuned` where
    α ≥ 0.5, else from `original`.

    Args:
        alpha: one number, or a number per name pattern (`fnmatch`: `{"head.*": 1.0, "*": 0.5}`); the first pattern that
            matches a key decides.
        extrapolate: allows α outside [0, 1].

    Raises: ValueError for keys or shapes that differ (all are listed), for an α outside [0, 1] or not finite, and for a
    key that no pattern matches.
    """
    _require_same_layout([original, tuned], ["original", "tuned"])
    alpha_of = _alpha_lookup(original, alpha, extrapolate)
    return {name: _mix(original[name], tuned[name], alpha_of[name]) for name in original}


def uniform_soup(states: Sequence[State]) -> dict[str, Tensor]:
    """The mean of all states, key by key (Wortsman et al. 2022, "uniform soup").

    Floating tensors are averaged in float32 at least and keep their dtype; integer and boolean ones come from the first
    state. The mean of equal tensors is that tensor, bit for bit.

    Raises: ValueError for no state at all, or for states whose keys or shapes differ.
    """
    if not states:
        raise ValueError("a soup needs at least one state; got none.")
    _require_same_layout(states, [f"state {index}" for index in range(len(states))])
    return {name: _mean([state[name] for state in states]) for name in states[0]}


def greedy_soup(
    states: Sequence[State], score: Callable[[dict[str, Tensor]], Number], *, scores: Sequence[Number] | None = None
) -> tuple[dict[str, Tensor], list[int]]:
    """Adds states to a soup, best first, while that does not lower the score (Wortsman et al. 2022, recipe 1).

    States are taken by descending score (ties: the earlier first); state i joins where
    score(mean(soup + i)) ≥ score(mean(soup)). `score` must come from held-out data that is not the test set.

    Args:
        score: state → number, higher is better.
        scores: the states' own scores where they are known already; they are measured with `score` otherwise.

    Returns: the soup, and the indices of its ingredients in the order they joined.

    Raises: ValueError for no state, states that do not fit each other, a wrong count of scores, or a score that is NaN.
    """
    if not states:
        raise ValueError("a soup needs at least one state; got none.")
    _require_same_layout(states, [f"state {index}" for index in range(len(states))])
    own = [score(uniform_soup([state])) for state in states] if scores is None else [float(value) for value in scores]
    if len(own) != len(states):
        raise ValueError(f"scores has {len(own)} numbers for {len(states)} states; give one each.")
    if unscored := [index for index, value in enumerate(own) if math.isnan(value)]:
        raise ValueError(f"the score of state(s) {unscored} is NaN; leave them out of the soup.")
    order = sorted(range(len(states)), key=lambda index: -own[index])
    chosen = order[:1]
    soup, best = uniform_soup([states[chosen[0]]]), own[chosen[0]]
    for candidate in order[1:]:
        mixed = uniform_soup([states[index] for index in (*chosen, candidate)])
        value = score(mixed)
        if value >= best:
            chosen, soup, best = [*chosen, candidate], mixed, value
    return soup, chosen


def _mix(original: Tensor, tuned: Tensor, alpha: Number) -> Tensor:
    if alpha == 0:
        return original.detach().clone()
    if alpha == 1:
        return tuned.detach().to(device=original.device, dtype=original.dtype, copy=True)
    if not _is_averaged(original):
        return (tuned if alpha >= 0.5 else original).detach().to(original.device, copy=True)
    wide = _wide(original.dtype)
    start, end = original.detach().to(wide), tuned.detach().to(device=original.device, dtype=wide)
    return (start + alpha * (end - start)).to(original.dtype)


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    first = tensors[0].detach()
    if not _is_averaged(first):
        return first.clone()
    wide = _wide(first.dtype)
    mean = first.to(wide, copy=True)
    for count, tensor in enumerate(tensors[1:], start=2):
        mean += (tensor.detach().to(device=mean.device, dtype=wide) - mean) / count
    return mean.to(first.dtype)


def _is_averaged(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _alpha_lookup(state: State, alpha: Number | Mapping[str, Number], extrapolate: bool) -> dict[str, float]:
    patterns = dict(alpha) if isinstance(alpha, Mapping) else {"*": alpha}
    for pattern, value in patterns.items():
        if not math.isfinite(value):
            raise ValueError(
                f"alpha is {value} for {pattern!r}; give a finite number between 0 (original) and 1 (tuned)."
            )
        if not extrapolate and not 0 <= value <= 1:
            raise ValueError(
                f"alpha is {value} for {pattern!r}; it lies between 0 (original) and 1 (tuned). "
                "Pass extrapolate=True to go beyond the endpoints."
            )
    found: dict[str, float] = {}
    unmatched = []
    for name in state:
        matching = [value for pattern, value in patterns.items() if fnmatchcase(name, pattern)]
        if matching:
            found[name] = float(matching[0])
        else:
            unmatched.append(name)
    if unmatched:
        raise ValueError(
            f"no alpha pattern matches {_listed(unmatched)}; the patterns are {list(patterns)}. "
            'Add "*" for all the rest, for example {"head.*": 1.0, "*": 0.5}.'
        )
    return found


def _require_same_layout(states: Sequence[State], names: Sequence[str]) -> None:
    first, faults = states[0], []
    for state, name in zip(states[1:], names[1:], strict=True):
        if only_first := [key for key in first if key not in state]:
            faults.append(f"only in {names[0]}: {_listed(only_first)}")
        if only_here := [key for key in state if key not in first]:
            faults.append(f"only in {name}: {_listed(only_here)}")
        for key in first:
            if key in state and first[key].shape != state[key].shape:
                faults.append(f"{key}: {tuple(first[key].shape)} in {names[0]}, {tuple(state[key].shape)} in {name}")
            elif key in state and _is_averaged(first[key]) != _is_averaged(state[key]):
                faults.append(f"{key}: {first[key].dtype} in {names[0]}, {state[key].dtype} in {name}")
    if faults:
        raise ValueError(
            "the states do not fit each other, so they cannot be mixed:\n  "
            + "\n  ".join(faults)
            + "\nBoth must be state dicts of the same architecture and the same classes."
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
