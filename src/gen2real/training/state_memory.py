"""What a training holds besides activations, from shapes alone: weights, gradients, AdamW's moments, running means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class PartStates:
    """One part's share, in bytes. parameters, trained: numbers of weights; those shared with an earlier part are its.

    gradients and moments (two a weight, AdamW) are of what is trained alone, in its own precision.
    """

    name: str
    mode: str
    parameters: int
    trained: int
    weights: int
    gradients: int
    moments: int
    average: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.moments + self.average


@dataclass(frozen=True)
class StateMemory:
    """Of each part of what is in memory while a training goes on."""

    parts: tuple[PartStates, ...]

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(part.total for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """Plain values: bytes, and numbers of weights."""
        return {"total": self.total, "parts": [{**asdict(part), "total": part.total} for part in self.parts]}

    def text(self) -> str:
        """A line for all, and one a part."""
        kinds = {
            "weights": sum(part.weights for part in self.parts),
            "gradients": sum(part.gradients for part in self.parts),
            "AdamW": sum(part.moments for part in self.parts),
            "running means": sum(part.average for part in self.parts),
        }
        named = ", ".join(f"{name} {_size(count)}" for name, count in kinds.items() if count)
        lines = [f"{_size(self.total)} of states ({named}); what a step needs besides is activations"]
        lines += [f"  {part.name}, {part.mode}: {_count(part)}, {_size(part.total)}" for part in self.parts]
        return "\n".join(lines)


def state_memory(parts: Iterable[tuple[str, str, nn.Module, bool]]) -> StateMemory:
    """What a training holds.

    Args:
        parts: name, mode (for people), module, and whether a running mean is kept of what is trained of it. Parameters
            that require a gradient are trained. Modules on the device `meta` will do.
    """
    found, seen = [], set[int]()
    for name, mode, module, averaged in parts:
        own = [tensor for tensor in (*module.parameters(), *module.buffers()) if id(tensor) not in seen]
        seen.update(map(id, own))
        kept = [tensor for tensor in own if isinstance(tensor, nn.Parameter)]
        trained = [tensor for tensor in kept if tensor.requires_grad]
        held = sum(tensor.nbytes for tensor in trained)
        found.append(
            PartStates(
                name,
                mode,
                parameters=sum(tensor.numel() for tensor in kept),
                trained=sum(tensor.numel() for tensor in trained),
                weights=sum(tensor.nbytes for tensor in own),
                gradients=held,
                moments=2 * held,
                average=held if averaged else 0,
            )
        )
    return StateMemory(tuple(part for part in found if part.weights))


def _count(part: PartStates) -> str:
    trained = "" if part.trained in (0, part.parameters) else f", {part.trained / 1e6:.2f} M of them trained"
    return f"{part.parameters / 1e6:.2f} M weights{trained}"


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
