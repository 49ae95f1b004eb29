"""Running means of weights: by hand, against diffusers', through the real trainer, cut into pieces and resumed."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.training_utils import EMAModel
from tiny_training import differing, plain_model, state_of, trainer
from torch import nn

from gen2real.errors import CheckpointError
from gen2real.files import read_json, read_tensors, sha256_of, write_json
from gen2real.models.adapters import add_lora
from gen2real.training.averaging import Average


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def test_the_first_updates_by_hand() -> None:
    """d = 0, 2/11, 3/12, 4/13, …, until the decay is less."""
    model = nn.ParameterDict({"w": nn.Parameter(torch.tensor(5.0, dtype=torch.float64))})
    average = Average(trained(model), 0.26)
    expected, found = [], []
    mean = 0.0
    for done, (value, decay) in enumerate([(1.0, 0.0), (2.0, 2 / 11), (4.0, 3 / 12), (8.0, 0.26), (8.0, 0.26)]):
        model["w"].data.fill_(value)
        average.update()
        mean = decay * mean + (1 - decay) * value
        expected.append(mean)
        found.append(average.state()["w"].item())
        assert average.updates == done + 1
    assert found == pytest.approx(expected, abs=1e-12)
    assert expected[1] == pytest.approx(2 / 11 + 18 / 11)


def test_it_is_that_of_diffusers() -> None:
    model = plain_model()
    model[0].weight.requires_grad_(False)
    average = Average(trained(model), 0.9)
    theirs = EMAModel(list(trained(model).values()), decay=0.9)
    for _ in range(100):
        for parameter in trained(model).values():
            parameter.data += torch.randn_like(parameter)
        average.update()
        theirs.step(trained(model).values())
    assert list(average.state()) == ["0.bias", "1.weight", "1.bias", "4.weight", "4.bias"]
    for mine, other in zip(average.state().values(), theirs.shadow_params, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
        assert not mine.requires_grad


def test_applied_swaps_and_gives_back_whatever_happens() -> None:
    model = plain_model()
    average = Average(trained(model), 0.5)
    for parameter in trained(model).values():
        parameter.data.zero_()
    before, addresses = state_of({"m": model}), [p.data_ptr() for p in model.parameters()]
    with average.applied(model) as applied:
        assert applied is model
        assert all(torch.equal(p, average.state()[name]) for name, p in model.named_parameters())
        assert differing(before, state_of({"m": model})) != []
    assert differing(before, state_of({"m": model})) == []
    with pytest.raises(KeyError), average.applied(model):
        raise KeyError
    assert differing(before, state_of({"m": model})) == []
    assert addresses == [p.data_ptr() for p in model.parameters()], "the optimiser's weights are the same memory"
    other = plain_model(3)
    with average.applied(other):
        assert torch.equal(other[4].weight, average.state()["4.weight"])
    average.copy_to(other)
    for parameter in other.parameters():
        parameter.data += 1
    assert torch.equal(other[4].weight, average.state()["4.weight"] + 1), "copied, not shared"


def test_a_module_of_averages_is_always_the_average() -> None:
    """The judge of x̂0: a frozen copy of a tower with LoRA, of which the trained weights follow."""
    model = add_lora(plain_model(), rank=1, alpha=1.0, targets=["0", "4"])
    judge = copy.deepcopy(model).requires_grad_(False)
    average = Average(trained(model), 0.9, kept_in=judge)
    plain = Average(trained(model), 0.9)
    untouched = judge[0].base_layer.weight.clone()
    for _ in range(3):
        for parameter in trained(model).values():
            parameter.data += 1
        average.update()
        plain.update()
    assert sorted(plain.state()) == ["0.lora_A.default.weight", "0.lora_B.default.weight",
                                     "4.lora_A.default.weight", "4.lora_B.default.weight"]  # fmt: skip
    for name, value in plain.state().items():
        assert torch.equal(judge.get_parameter(name), value)
        assert not torch.equal(judge.get_parameter(name), model.get_parameter(name))
    assert torch.equal(judge[0].base_layer.weight, untouched)
    assert not any(p.requires_grad for p in judge.parameters())
    other = copy.deepcopy(model).requires_grad_(False)
    resumed = Average(trained(model), 0.9, kept_in=other)
    resumed.load(average.state(), average.updates)
    assert differing(state_of({"m": judge}), state_of({"m": other})) == []


def test_what_does_not_fit_is_said() -> None:
    model = plain_model()
    for decay in (0, 1, 1.5):
        with pytest.raises(ValueError, match=r"decay is .*; expected a number between 0 and 1, such as 0\.9999"):
            Average(trained(model), decay)
    average = Average(trained(model), 0.9)
    for use in (
        average.copy_to,
        lambda m: average.applied(m).__enter__(),
        lambda m: Average(trained(model), 0.9, kept_in=m),
    ):
        with pytest.raises(ValueError, match=r"no parameters 1\.weight, 1\.bias, 4\.weight, 4\.bias; it is not what"):
            use(nn.Sequential(nn.Linear(4, 5)))
    with pytest.raises(ValueError, match=r"differ in name or shape: 4\.weight"):
        average.load({**average.state(), "4.weight": torch.zeros(2)}, 3)


class Interrupted(Exception):
    """Stands for whatever ends a process."""


def averaged(
    folder: Path, seed: int = 0, on_step: Any = None, **more: Any
) -> tuple[Any, nn.Module, dict[str, Average]]:
    model = plain_model(seed, dropout=0.3)
    model[0].requires_grad_(False)
    model[0].load_state_dict(plain_model(0)[0].state_dict())
    averages = {"slow": Average(trained(model), 0.9), "fast": Average({"last": model[4].weight}, 0.15)}
    fitting = trainer(
        folder, {"model": model}, steps=6, training={"checkpoint_every": 2}, averages=averages, on_step=on_step, **more
    )
    return fitting, model, averages


def test_the_trainer_averages_after_every_update(tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    means: list[torch.Tensor] = []
    fitting, model, averages = averaged(
        tmp_path,
        on_step=lambda done: (
            seen.append({name: p.detach().clone() for name, p in trained(model).items()}),
            means.append(averages["fast"].state()["last"].clone()),
        ),
    )
    fitting.fit()
    assert averages["slow"].updates == 6
    mean = seen[0]
    for done in range(1, 6):
        decay = (1 + done) / (10 + done)
        mean = {name: decay * mean[name] + (1 - decay) * value for name, value in seen[done].items()}
    for name, value in averages["slow"].state().items():
        torch.testing.assert_close(value, mean[name], rtol=0, atol=1e-6)
        assert not torch.equal(value, seen[-1][name])
    torch.testing.assert_close(means[1], 0.15 * seen[0]["4.weight"] + 0.85 * seen[1]["4.weight"], rtol=0, atol=1e-7)


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 6])
def test_a_resumed_run_has_the_averages_to_the_bit(tmp_path: Path, cut: int) -> None:
    torch.manual_seed(5)
    fitting, whole, expected = averaged(tmp_path / "whole")
    fitting.fit()

    def stop(done: int) -> None:
        if done == cut:
            raise Interrupted

    torch.manual_seed(5)
    with pytest.raises(Interrupted):
        averaged(tmp_path / "cut", on_step=stop)[0].fit()
    if cut == 1:
        torch.manual_seed(5)
    fitting, model, found = averaged(tmp_path / "cut", seed=0 if cut == 1 else 9)
    assert fitting.fit().resumed_at == cut - cut % 2
    assert differing(state_of({"m": whole}), state_of({"m": model})) == []
    for name, average in expected.items():
        assert differing(average.state(), found[name].state()) == []
        assert average.updates == found[name].updates == 6


def test_a_checkpoint_of_a_run_without_averages_still_loads(tmp_path: Path) -> None:
    """Such as one that an older gen2real wrote: the averages begin at its weights, and that is said."""
    trainer(tmp_path, {"model": plain_model()}, steps=3).fit()
    newest = tmp_path / "checkpoints" / "train" / "step-00000003"
    described = read_json(newest / "checkpoint.json")
    assert described.pop("averages") == {}, "older ones do not have the key"
    assert sorted(described["sha256"]) == ["model.safetensors", "optimizer.safetensors", "rng.safetensors"]
    write_json(newest / "checkpoint.json", described)
    model = plain_model(4)
    assert trainer(tmp_path, {"model": model}, steps=3).fit().resumed_at == 3
    model = plain_model(5)
    average = Average(trained(model), 0.9)
    with pytest.warns(UserWarning, match=r"step-00000003 has no running mean of 'unet'; it begins anew at the check"):
        trainer(tmp_path, {"model": model}, steps=3, averages={"unet": average}).fit()
    assert average.updates == 0
    assert differing(average.state(), dict(model.named_parameters())) == []


def test_averages_of_another_model_are_refused(tmp_path: Path) -> None:
    model = plain_model()
    trainer(tmp_path, {"model": model}, steps=1, averages={"mean": Average({"a": model[4].weight}, 0.9)}).fit()
    other = {"mean": Average({"b": model[4].weight}, 0.9)}
    with pytest.raises(CheckpointError, match=r"running mean of another 'mean'.*differ in name or shape: a, b"):
        trainer(tmp_path, {"model": model}, steps=1, averages=other).fit()


def test_a_torn_average_sends_the_run_to_the_checkpoint_before(tmp_path: Path) -> None:
    averaged(tmp_path)[0].fit()
    newest = tmp_path / "checkpoints" / "train" / "step-00000006"
    assert read_json(newest / "checkpoint.json")["sha256"]["averages.safetensors"] == sha256_of(
        newest / "averages.safetensors"
    )
    assert sorted(read_tensors(newest / "averages.safetensors"))[0] == "fast.last"
    (newest / "averages.safetensors").write_bytes(b"torn")
    with pytest.warns(UserWarning, match="averages.safetensors does not have the content"):
        assert averaged(tmp_path)[0].fit().resumed_at == 4


def test_an_update_that_a_gradient_scaler_left_out_is_not_averaged(tmp_path: Path) -> None:
    fitting, _, averages = averaged(tmp_path)

    class Skipping:
        """accelerate's optimiser, whose every third step has met an infinite gradient."""

        def __init__(self, inner: Any) -> None:
            self.inner, self.steps = inner, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def step(self) -> None:
            self.steps += 1
            if not self.step_was_skipped:
                self.inner.step()

        @property
        def step_was_skipped(self) -> bool:
            return self.steps % 3 == 0

    fitting._optimizer = Skipping(fitting._optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitting.fit()
    assert averages["slow"].updates == 4
