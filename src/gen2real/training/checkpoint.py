"""Checkpoints: whole or not there, safetensors and JSON only.

    checkpoints/step-00000500/
      model.safetensors       trainable parameters and buffers of every model, `name.key`
      optimizer.safetensors   moments and step counts, `key.moment`
      averages.safetensors    running means of weights, `name.key`, where the run has any
      rng.safetensors         torch's and each device's generator, a row of bytes per process
      checkpoint.json         step, schedule position, python's and numpy's generators, and each file's hash

A checkpoint is written beside its place and renamed into it, so a kill leaves none or all of it. Each file's hash is
checked before loading, so one torn by a failing disk is passed over, with a warning, for the one before.
"""

from __future__ import annotations

import random
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from gen2real.errors import CheckpointError
from gen2real.files import (
    atomic_folder,
    read_json,
    read_tensors,
    refuse_pickle,
    remove_leftovers,
    sha256_of,
    write_json,
    write_tensors,
)
from gen2real.training.averaging import Average
from gen2real.training.distributed import rank, world_size

_TRAINABLE = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True, strict=False)


def save(
    folder: Path,
    step: int,
    models: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    *,
    extra: Mapping[str, Any],
    keep: int,
    averages: Mapping[str, Average] | None = None,
) -> None:
    """Writes `folder/step-…` after update number `step`; every process calls it, the first one writes.

    Args:
        extra: JSON values that `restore` gives back.
        keep: how many checkpoints stay; older ones are removed after the new one is in its place.

    Raises: CheckpointError where the disk is full; the checkpoints before stay whole.
    """
    tensors = {f"{name}.{key}": value for name, model in models.items() for key, value in _model_state(model).items()}
    moments, groups = _optimizer_state(models, optimizer)
    generators = _every_process(_generator_states())
    if rank() == 0:
        remove_leftovers(folder)
        with atomic_folder(folder / f"step-{step:08d}") as partial:
            write_tensors(partial / "model.safetensors", tensors)
            write_tensors(partial / "optimizer.safetensors", moments)
            if averages:
                write_tensors(partial / "averages.safetensors", _average_state(averages))
            write_tensors(partial / "rng.safetensors", _flat_generators(generators))
            files = {file.name: sha256_of(file) for file in sorted(partial.iterdir())}
            described = {
                "version": 1,
                "step": step,
                "processes": world_size(),
                "python_and_numpy": [state["json"] for state in generators],
                "groups": groups,
                "averages": {name: average.updates for name, average in (averages or {}).items()},
                "extra": dict(extra),
                "sha256": files,
            }
            write_json(partial / "checkpoint.json", described)
        for old in _checkpoints(folder)[:-keep]:
            shutil.rmtree(old)
    if world_size() > 1:
        torch.distributed.barrier()


def restore(
    folder: Path,
    models: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    averages: Mapping[str, Average] | None = None,
) -> tuple[int, dict[str, Any]] | None:
    """Loads the newest whole checkpoint into models, optimiser, averages and generators; None where there is none.

    Averages of which the checkpoint has nothing begin anew at its weights, with a warning.

    Returns: the number of updates done, and what was saved as `extra`.

    Raises: CheckpointError where none of several is whole, or where it belongs to other models or averages.
    """
    found = latest(folder)
    if found is None:
        return None
    described = read_json(found / "checkpoint.json")
    tensors = read_tensors(found / "model.safetensors")
    stored = {(key, tuple(value.shape)) for key, value in tensors.items()}
    expected = {
        (f"{name}.{key}", tuple(value.shape))
        for name, model in models.items()
        for key, value in _model_state(model).items()
    }
    if stored != expected and rank() == 0:
        differing = sorted({key for key, _ in stored ^ expected})
        raise CheckpointError(
            f"{found} belongs to another model; these tensors differ in name or shape: {', '.join(differing[:5])}"
            + (f" and {len(differing) - 5} more. " if len(differing) > 5 else ". ")
            + "Use another output folder, or remove this one to start over."
        )
    for name, model in models.items():
        state = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        set_model_state_dict(model, dict[str, Any](state), options=_TRAINABLE)
    moments = read_tensors(found / "optimizer.safetensors")
    _load_optimizer(models, optimizer, moments, described["groups"])
    _load_averages(found, averages or {}, described.get("averages", {}))
    _load_generators(found, described)
    return int(described["step"]), dict(described["extra"])


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`; torn ones are passed over with a warning.

    Raises: CheckpointError where there are checkpoints and none of them is whole.
    """
    faults: list[str] = []
    for candidate in reversed(_checkpoints(folder)):
        fault = _fault(candidate)
        if fault is None:
            for torn in faults:
                warnings.warn(f"{torn}; the checkpoint before it is used.", stacklevel=3)
            return candidate
        faults.append(f"{candidate} is torn ({fault})")
    if faults:
        listed = "\n".join(f"  {torn}" for torn in faults)
        raise CheckpointError(
            f"none of the {len(faults)} checkpoints in {folder} is whole:\n{listed}\n"
            "Remove that folder to start the run over."
        )
    return None


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def _fault(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint on disk, or None."""
    try:
        described = read_json(checkpoint / "checkpoint.json")
        for name, expected in described["sha256"].items():
            refuse_pickle(checkpoint / name)
            if sha256_of(checkpoint / name) != expected:
                return f"{name} does not have the content that was written"
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _model_state(model: nn.Module) -> dict[str, Tensor]:
    """What is stored of a model; empty on the processes other than the first."""
    state: dict[str, Any] = get_model_state_dict(model, options=_TRAINABLE)
    return state


def _optimizer_state(
    models: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Moments by parameter name, and each group's plain settings; empty on the processes other than the first."""
    whole = cast(Any, get_optimizer_state_dict(_together(models), optimizer, options=_TRAINABLE))
    if not whole:
        return {}, []
    moments = {
        f"{parameter}|{moment}": value if isinstance(value, Tensor) else torch.tensor(value)
        for parameter, state in whole["state"].items()
        for moment, value in state.items()
    }
    groups = [{**group, "betas": list(group["betas"])} for group in whole["param_groups"]]
    return moments, groups


def _load_optimizer(
    models: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    moments: Mapping[str, Tensor],
    groups: list[dict[str, Any]],
) -> None:
    state: dict[str, dict[str, Tensor]] = {}
    for key, value in moments.items():
        parameter, moment = key.split("|")
        state.setdefault(parameter, {})[moment] = value
    whole: dict[str, Any] = {
        "state": state,
        "param_groups": [{**group, "betas": tuple(group["betas"])} for group in groups],
    }
    try:
        set_optimizer_state_dict(_together(models), optimizer, whole, options=_TRAINABLE)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint's optimiser does not fit this model: {error}") from error
    _lay_out_as_parameters(optimizer)


def _lay_out_as_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Moments lie in memory as their parameter does. Fused AdamW walks over memory and not over indices: a
    channels-last weight with moments in the usual order would be moved by those of other elements."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            is_moment = isinstance(value, Tensor) and value.shape == parameter.shape
            if is_moment and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _average_state(averages: Mapping[str, Average]) -> dict[str, Tensor]:
    return {f"{name}.{key}": value for name, average in averages.items() for key, value in average.state().items()}


def _load_averages(checkpoint: Path, averages: Mapping[str, Average], updates: Mapping[str, int]) -> None:
    stored = read_tensors(checkpoint / "averages.safetensors") if updates else {}
    for name, average in averages.items():
        if name not in updates:
            average.restart()
            if rank() == 0:
                warnings.warn(
                    f"{checkpoint} has no running mean of {name!r}; it begins anew at the checkpoint's weights.",
                    stacklevel=4,
                )
            continue
        state = {key.removeprefix(f"{name}."): value for key, value in stored.items() if key.startswith(f"{name}.")}
        try:
            average.load(state, updates[name])
        except ValueError as error:
            raise CheckpointError(
                f"{checkpoint} has a running mean of another {name!r}; {error}. Use another output folder, or remove "
                "this one to start over."
            ) from error


def _together(models: Mapping[str, nn.Module]) -> nn.Module:
    """One module that owns all models, so that every parameter has one name."""
    return nn.ModuleDict(dict(models)) if len(models) > 1 else next(iter(models.values()))


def _generator_states() -> dict[str, Any]:
    kind, keys, position, has_gauss, cached = cast(tuple[Any, ...], np.random.get_state())
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "json": {"python": random.getstate(), "numpy": [kind, keys.tolist(), position, has_gauss, cached]},
    }


def _every_process(state: dict[str, Any]) -> list[dict[str, Any]]:
    if world_size() == 1:
        return [state]
    states: list[dict[str, Any]] = [{} for _ in range(world_size())]
    torch.distributed.all_gather_object(states, state)
    return states


def _flat_generators(states: list[dict[str, Any]]) -> dict[str, Tensor]:
    flat = {}
    for place, state in enumerate(states):
        flat[f"torch.{place}"] = state["torch"]
        if state["cuda"] is not None:
            flat[f"cuda.{place}"] = state["cuda"]
    return flat


def _load_generators(checkpoint: Path, described: Mapping[str, Any]) -> None:
    states = read_tensors(checkpoint / "rng.safetensors")
    if described["processes"] != world_size():
        warnings.warn(
            f"{checkpoint} was written by {described['processes']} process(es) and is resumed by {world_size()}: "
            "the batches stay the same, dropout does not.",
            stacklevel=2,
        )
        return
    torch.set_rng_state(states[f"torch.{rank()}"])
    if f"cuda.{rank()}" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states[f"cuda.{rank()}"])
    plain = described["python_and_numpy"][rank()]
    version, keys, gauss = plain["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, words, position, has_gauss, cached = plain["numpy"]
    np.random.set_state((kind, np.array(words, dtype=np.uint32), position, has_gauss, cached))
