"""The running mean of weights in training (EMA): what is drawn with, judged by and saved, never what is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    r"""An exponential moving average of parameters.

    With s updates done before, and the weights θ after this one::

        θ̄ ← d·θ̄ + (1 − d)·θ,     d = min(decay, (1 + s) / (10 + s)),  and 0 at the first update (s = 0)

    Args:
        parameters: by their names in a module; only those that are trained need be here.
        decay: between 0 and 1, its limit; 0.9999 with Stable Diffusion.
        kept_in: a copy of that module, frozen, whose own parameters become the averages: it is then always the
            averaged module, also after a resume. None: they are kept here.

    Raises: ValueError for a decay outside (0, 1), and for names that `kept_in` does not have.

    Source: as `EMAModel` of diffusers 0.42 without `use_ema_warmup`, which Stable Diffusion's training scripts use; its
    warm-up is TensorFlow's `num_updates`.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], decay: float, *, kept_in: nn.Module | None = None
    ) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay is {decay}; expected a number between 0 and 1, such as 0.9999")
        self.decay, self.updates = decay, 0
        self._parameters = dict(parameters)
        self._averages: dict[str, Tensor] = {}
        own = None if kept_in is None else _by_name(kept_in, self._parameters)
        for name, parameter in self._parameters.items():
            self._averages[name] = torch.empty_like(parameter.detach()) if own is None else own[name]
        self.restart()

    @torch.no_grad()
    def update(self) -> None:
        """Takes the parameters in as they are now; the trainer calls it after every update of theirs."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.updates else 0.0
        averages, parameters = self._here(), list[Tensor](self._parameters.values())
        if averages:
            torch._foreach_lerp_(averages, parameters, 1 - decay)
        self.updates += 1

    @torch.no_grad()
    def restart(self) -> None:
        """Forgets everything before the parameters as they are now."""
        self.updates = 0
        for average, parameter in zip(self._here(), self._parameters.values(), strict=True):
            average.copy_(parameter)

    def state(self) -> dict[str, Tensor]:
        """The averages by name, to be saved; `updates` belongs to them."""
        return {name: average.detach() for name, average in self._averages.items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Goes on from a `state`.

        Raises: ValueError where its names or shapes are others.
        """
        mine, theirs = ({(key, tuple(value.shape)) for key, value in one.items()} for one in (self._averages, state))
        if mine != theirs:
            differing = sorted({key for key, _ in mine ^ theirs})
            raise ValueError(f"these averages differ in name or shape: {', '.join(differing[:5])}")
        for name, average in self._averages.items():
            average.copy_(state[name])
        self.updates = updates

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Gives the parameters of these names in `module` the averages' values, to stay.

        Raises: ValueError for names that it does not have.
        """
        for name, parameter in _by_name(module, self._averages).items():
            parameter.copy_(self._averages[name])

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[nn.Module]:
        """Within, the parameters of these names in `module` are the averages; afterwards they are what they were.

        Nothing is copied where both lie on one device. Do not train within: it would be the averages that change.

        Raises: ValueError for names that it does not have.
        """
        named = _by_name(module, self._averages)
        before = {name: parameter.data for name, parameter in named.items()}
        try:
            for name, parameter in named.items():
                parameter.data = self._averages[name].detach().to(parameter.device)
            yield module
        finally:
            for name, parameter in named.items():
                parameter.data = before[name]

    def _here(self) -> list[Tensor]:
        """The averages on their parameters' devices; the trainer moves a model after its average is made."""
        for name, parameter in self._parameters.items():
            average = self._averages[name]
            if average.device != parameter.device:
                # A parameter of another module stays that module's.
                moved = average.data.to(parameter.device)
                if isinstance(average, nn.Parameter):
                    average.data = moved
                else:
                    self._averages[name] = moved
        return list(self._averages.values())


def _by_name(module: nn.Module, names: Mapping[str, object]) -> dict[str, nn.Parameter]:
    found = dict(module.named_parameters())
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"the module has no parameters {', '.join(missing[:5])}; it is not what was averaged")
    return {name: found[name] for name in names}
