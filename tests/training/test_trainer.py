"""The trainer: what it trains, what it refuses, and that a run cut into pieces is the run in one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import Numbers, Part, differing, mean_square, plain_model, state_of, trainer
from torch import Tensor, nn

from gen2real.errors import NonFiniteLoss, RecipeError
from gen2real.models.adapters import add_lora
from gen2real.training import trainer as trainer_module
from gen2real.training.settings import ScheduleSettings, TrainingSettings
from gen2real.training.trainer import parameter_groups, resolve_precision

Models = dict[str, nn.Module]


def plain(seed: int = 0) -> Models:
    return {"model": plain_model(seed)}


def test_several_models_learn_in_one_step(tmp_path: Path) -> None:
    models: Models = {"one": plain_model(1), "other": plain_model(2)}
    before = state_of(models)
    report = trainer(tmp_path, models, steps=3).fit()
    unchanged = differing(before, state_of(models))
    assert len(unchanged) == len(before), "every parameter and buffer of both models changes"
    assert (report.steps, report.resumed_at) == (3, 0)


def test_one_update_is_adamw_by_hand(tmp_path: Path) -> None:
    models: Models = {"model": nn.Linear(4, 3)}
    oracle = nn.Linear(4, 3)
    oracle.load_state_dict(models["model"].state_dict())
    optimizer = torch.optim.AdamW(
        [{"params": [oracle.weight], "weight_decay": 0.1}, {"params": [oracle.bias], "weight_decay": 0.0}], lr=0.01
    )
    for (part,) in Numbers()(range(2)):
        mean_square({"model": oracle}, part)["loss"].backward()
        nn.utils.clip_grad_norm_(oracle.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    trainer(tmp_path, models, steps=2).fit()
    torch.testing.assert_close(models["model"].weight, oracle.weight, rtol=0, atol=1e-7)
    torch.testing.assert_close(models["model"].bias, oracle.bias, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("size", "parts"), [(6, 2), (6, 3), (6, 6), (5, 2), (5, 3), (3, 6)])
def test_accumulated_parts_are_the_whole_batch(tmp_path: Path, size: int, parts: int) -> None:
    """For a mean over rows; also where the last part is smaller."""
    whole: Models = {"model": nn.Linear(4, 3)}
    cut: Models = {"model": nn.Linear(4, 3)}
    cut["model"].load_state_dict(whole["model"].state_dict())
    sgd_like = {"eps": 1.0}  # AdamW's own root would blow rounding up where a gradient is almost nothing
    trainer(tmp_path / "whole", whole, batches=Numbers(size), optimizer=sgd_like).fit()
    trainer(
        tmp_path / "cut", cut, batches=Numbers(size, parts), optimizer=sgd_like, training={"accumulation": parts}
    ).fit()
    for one, other in zip(state_of(whole).values(), state_of(cut).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    one, other = (metrics_of(tmp_path / name)[-1]["loss"] for name in ("whole", "cut"))
    assert one == pytest.approx(other, abs=1e-6)


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_what_is_frozen_stays_bit_for_bit(tmp_path: Path) -> None:
    models = plain()
    models["model"][0].requires_grad_(False)
    models["model"][1].requires_grad_(False)
    before = state_of(models)
    trainer(tmp_path, models).fit()
    after = state_of(models)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"model.4.weight", "model.4.bias"} <= changed
    assert not changed & {"model.0.weight", "model.0.bias", "model.1.weight", "model.1.bias"}


def test_a_trainable_parameter_without_a_group_is_a_fault_of_the_method(tmp_path: Path) -> None:
    models = plain()
    groups = [{"params": list(models["model"][0].parameters()), "lr": 0.1}]
    with pytest.raises(AssertionError, match=r"'model' require a gradient and are in no group: \['1.weight'"):
        trainer(tmp_path, models, groups=groups)


def test_each_group_has_its_learning_rate(tmp_path: Path) -> None:
    """AdamW's first update moves every weight by its learning rate, whatever the gradient."""
    models: Models = {"model": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))}
    before = state_of(models)
    slow, fast = models["model"]
    groups = parameter_groups(
        {"fast": (fast, 0.1), "all": (models["model"], 0.001)}, weight_decay=0.0, decay_norms_and_biases=True
    )
    trainer(tmp_path, models, steps=1, groups=groups, optimizer={"clip_norm": None, "eps": 1e-12}).fit()
    moved = {name: (value - before[name]).abs() for name, value in state_of(models).items()}
    torch.testing.assert_close(moved["model.0.weight"], torch.full((4, 4), 0.001), rtol=1e-3, atol=0)
    torch.testing.assert_close(moved["model.1.weight"], torch.full((3, 4), 0.1), rtol=1e-3, atol=0)
    assert slow.weight.grad is None, "gradients are let go after the update"


def test_a_group_may_have_a_schedule_of_its_own(tmp_path: Path) -> None:
    """By hand: the run's is a cosine of four updates without warm-up; the last layer's a constant after two of it."""
    models: Models = {"model": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))}
    groups = parameter_groups(
        {"first": (models["model"][0], 0.1), "last": (models["model"][1], 0.01)},
        weight_decay=0.0,
        decay_norms_and_biases=False,
        schedules={"first": None, "last": ScheduleSettings(name="constant", warmup_steps=2)},
    )
    run = ScheduleSettings(name="cosine", warmup_steps=0)
    seen: list[list[float]] = []

    def look(_: int) -> None:
        seen.append([group["lr"] for group in fitting._optimizer.param_groups])

    fitting = trainer(tmp_path, models, steps=4, groups=groups, schedule=run, on_step=look)
    fitting.fit()
    cosine = [0.1 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    slow = [0.005, 0.01, 0.01, 0.01]
    assert seen == [pytest.approx([a, a, b, b]) for a, b in zip(cosine, slow, strict=True)]
    assert [row["learning_rate"] for row in metrics_of(tmp_path)] == pytest.approx(cosine)
    assert trainer(tmp_path, models, steps=4, groups=groups, schedule=run).fit().resumed_at == 4


def test_weight_decay_is_for_matrices_unless_asked() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    model.register_parameter("scale", nn.Parameter(torch.tensor(1.0)))
    model[0].weight.requires_grad_(True)
    groups = parameter_groups({"all": (model, 0.1)}, weight_decay=0.5, decay_norms_and_biases=False)
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(1, 0.5), (4, 0.0)]
    groups = parameter_groups({"all": (model, 0.1)}, weight_decay=0.5, decay_norms_and_biases=True)
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(5, 0.5)]
    model.requires_grad_(False)
    assert parameter_groups({"all": (model, 0.1)}, weight_decay=0.5, decay_norms_and_biases=True) == []


def test_gradients_are_clipped_over_all_models(tmp_path: Path) -> None:
    seen: dict[str, float] = {}

    def huge(models: Mapping[str, nn.Module], part: Part) -> dict[str, Tensor]:
        return {"loss": 1000 * mean_square(models, part)["loss"]}

    for name, clip in (("clipped", 0.5), ("free", None)):
        models: Models = {"one": nn.Linear(4, 3), "other": nn.Linear(4, 3)}
        fitting = trainer(tmp_path / name, models, steps=1, step=huge, optimizer={"clip_norm": clip})
        step = fitting._optimizer.step

        def looked_at(name: str = name, models: Models = models, step: Any = step) -> None:
            gradients = [p.grad.flatten() for model in models.values() for p in model.parameters()]
            seen[name] = float(torch.cat(gradients).norm())
            step()

        fitting._optimizer.step = looked_at
        fitting.fit()
    assert seen["clipped"] == pytest.approx(0.5, rel=1e-4)
    assert seen["free"] > 100
    (row,) = metrics_of(tmp_path / "clipped")
    assert row["gradient_norm"] > 100, "what is logged is the norm before it was clipped"
    assert "gradient_norm" not in metrics_of(tmp_path / "free")[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_loss_that_is_no_number_stops_before_the_update(tmp_path: Path, value: float, parts: int) -> None:
    models = plain()
    kept: dict[int, dict[str, Tensor]] = {}
    calls = []

    def turns_bad(models: Mapping[str, nn.Module], part: Part) -> dict[str, Tensor]:
        calls.append(1)
        terms = mean_square(models, part)
        bad = len(calls) == 3 * parts  # the last part of the third update
        return {"loss": terms["loss"] * (value if bad else 1.0), "variance": terms["largest"]}

    def keep(done: int) -> None:
        kept[done] = {name: p.detach().clone() for name, p in models["model"].named_parameters()}

    fitting = trainer(
        tmp_path, models, step=turns_bad, on_step=keep, batches=Numbers(6, parts), training={"accumulation": parts}
    )
    with pytest.raises(NonFiniteLoss, match=rf"update 3 has a non-finite loss \(loss={value}\).*optimizer.lr=0.003"):
        fitting.fit()
    assert list(kept) == [1, 2]
    assert differing(kept[2], dict(models["model"].named_parameters())) == []
    assert [row["step"] for row in metrics_of(tmp_path)] == [1, 2]


def test_a_gradient_that_is_no_number_stops_before_the_update(tmp_path: Path) -> None:
    """√0 is a number, its slope is none."""
    models: Models = {"model": nn.Linear(4, 3)}
    before = state_of(models)

    def steep(models: Mapping[str, nn.Module], part: Part) -> dict[str, Tensor]:
        return {"loss": (models["model"](part.x) * 0).square().sum().sqrt()}

    with pytest.raises(NonFiniteLoss, match=r"update 1 has a non-finite loss \(gradient_norm=nan\)"):
        trainer(tmp_path, models, step=steep).fit()
    assert differing(before, state_of(models)) == []


class Interrupted(Exception):
    """Stands for whatever ends a process."""


def lora_model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
        return add_lora(model, rank=2, alpha=4, dropout=0.3)


def channels_last_model() -> nn.Module:
    """4 numbers as 4 channels of 3 × 3 pixels; its weights lie in memory channel by channel, as a denoiser's do."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        spread = nn.Sequential(nn.Linear(4, 36), nn.Unflatten(1, (4, 3, 3)), nn.Conv2d(4, 3, 3), nn.Flatten())
    return spread.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "kind", ["dropout and batch norm", "lora", "two models, accumulated", "bfloat16", "channels last"]
)
def test_a_run_cut_anywhere_ends_with_the_same_bits(tmp_path: Path, kind: str) -> None:
    def fresh() -> Models:
        torch.manual_seed(99)
        if kind == "lora":
            return {"model": lora_model()}
        if kind == "channels last":
            return {"model": channels_last_model()}
        if kind == "two models, accumulated":
            return {"one": plain_model(1, dropout=0.3), "other": plain_model(2, dropout=0.3)}
        return {"model": plain_model(dropout=0.5)}

    parts = 3 if "accumulated" in kind else 1
    training = {
        "checkpoint_every": 2,
        "accumulation": parts,
        "precision": "bfloat16" if kind == "bfloat16" else "float32",
    }

    def make(folder: Path, models: Models, on_step: Any = None) -> Any:
        return trainer(folder, models, steps=6, batches=Numbers(6, parts), training=training, on_step=on_step)

    whole = fresh()
    make(tmp_path / "whole", whole).fit()
    expected = [{**row, "seconds": 0} for row in metrics_of(tmp_path / "whole")]
    for cut in range(1, 7):
        folder = tmp_path / f"cut-{cut}"

        def stop(done: int, cut: int = cut) -> None:
            if done == cut:
                raise Interrupted

        with pytest.raises(Interrupted):
            make(folder, fresh(), stop).fit()
        models = fresh()
        if cut >= 2:
            torch.manual_seed(cut)  # what a checkpoint brings back does not depend on where the process stands
        report = make(folder, models).fit()
        assert report.resumed_at == cut - cut % 2
        assert differing(state_of(whole), state_of(models)) == []
        assert [{**row, "seconds": 0} for row in metrics_of(folder)] == expected


def test_a_run_that_has_ended_trains_no_further(tmp_path: Path) -> None:
    models = plain()
    first = trainer(tmp_path, models).fit()
    again = plain(seed=3)
    second = trainer(tmp_path, again).fit()
    assert second.resumed_at == 5
    assert differing(state_of(models), state_of(again)) == []
    assert second.seconds >= first.seconds * 0.5
    assert second.pictures_per_second > 0


def test_stages_of_one_run_keep_apart(tmp_path: Path) -> None:
    for stage in ("head", "encoder"):
        trainer(tmp_path, plain(), steps=2, stage=stage).fit()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["encoder", "head"]
    assert [(row["stage"], row["step"]) for row in metrics_of(tmp_path)] == [
        ("head", 1),
        ("head", 2),
        ("encoder", 1),
        ("encoder", 2),
    ]


def test_checkpoints_and_log_lines_come_as_often_as_asked(tmp_path: Path) -> None:
    seen: list[list[str]] = []
    folder = tmp_path / "checkpoints" / "train"

    def look(done: int) -> None:
        seen.append(sorted(path.name[-1] for path in folder.glob("*")))

    training = {"checkpoint_every": 2, "keep_checkpoints": 1, "log_every": 3}
    trainer(tmp_path, plain(), steps=5, training=training, on_step=look).fit()
    assert seen == [[], ["2"], ["2"], ["4"], ["5"]]
    assert [row["step"] for row in metrics_of(tmp_path)] == [1, 3, 5]


def test_bfloat16_is_for_training_only(tmp_path: Path) -> None:
    models = plain()

    def look(models: Mapping[str, nn.Module], part: Part) -> dict[str, Tensor]:
        inner: list[torch.dtype] = []
        hook = models["model"][4].register_forward_hook(lambda _, __, output: inner.append(output.dtype))
        terms = mean_square(models, part)
        hook.remove()
        assert inner == [torch.bfloat16]
        return terms

    trainer(tmp_path, models, steps=2, step=look, training={"precision": "bfloat16"}).fit()
    assert {value.dtype for value in models["model"].parameters()} == {torch.float32}
    model = models["model"].eval()
    fresh = plain_model().eval()
    fresh.load_state_dict(model.state_dict())
    x = torch.randn(3, 4)
    assert torch.equal(model(x), fresh(x)), "after training the model computes in its own precision"


def test_two_runs_of_one_process_may_differ_in_precision(tmp_path: Path) -> None:
    results = []
    for name, precision in (("a", "float32"), ("b", "bfloat16"), ("c", "float32")):
        models = plain()
        trainer(tmp_path / name, models, training={"precision": precision}).fit()
        results.append(state_of(models))
    assert differing(results[0], results[2]) == []
    assert differing(results[0], results[1])


@pytest.mark.skipif(torch.cuda.is_available(), reason="float16 works on a GPU")
def test_float16_without_a_gpu_says_what_to_take() -> None:
    with pytest.raises(RecipeError, match=r"float16, which needs a GPU; on a CPU it is float32 or bfloat16"):
        resolve_precision("float16")


def test_precision_is_what_was_asked() -> None:
    assert resolve_precision("float32") == "float32"
    assert resolve_precision("bfloat16") == "bfloat16"
    assert resolve_precision("auto") in ("float32", "bfloat16")


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"avx512_f": True, "avx512_bf16": True}, "bfloat16"),
        ({"avx512_f": True, "amx_bf16": True}, "bfloat16"),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "float32"),
        ({"neon": True, "bf16": True}, "float32"),
        (None, "float32"),
    ],
)
def test_auto_is_bfloat16_where_the_cpu_has_instructions_for_it(
    capabilities: dict[str, bool] | None, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if capabilities is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert resolve_precision("auto") == precision


@pytest.mark.parametrize(("native", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_bfloat16_where_the_gpu_does_not_emulate_it(
    native: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert resolve_precision("auto") == precision


def test_a_tracker_that_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"trackers names wandb, which is not installed.*pip install wandb"):
        trainer(tmp_path, plain(), training={"trackers": ["wandb"]})


def test_a_tracker_gets_every_logged_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []

    class Recorder:
        """A tracker as accelerate keeps them."""

        name = "recorder"

        def log(self, values: Mapping[str, float], step: int, **_: Any) -> None:
            events.append((step, sorted(values)))

        def finish(self) -> None:
            events.append("finished")

    real = trainer_module.Accelerator

    def recording(*, log_with: Any, project_dir: Path, **rest: Any) -> Any:
        made = real(**rest)
        assert (log_with, project_dir) == (["tensorboard"], tmp_path / "trackers")
        made.init_trackers = lambda name: made.trackers.append(Recorder())
        return made

    monkeypatch.setattr(trainer_module, "find_spec", lambda name: True)
    monkeypatch.setattr(trainer_module, "Accelerator", recording)
    trainer(tmp_path, plain(), steps=3, training={"trackers": ["tensorboard"], "log_every": 2}).fit()
    names = [f"train/{name}" for name in ("gradient_norm", "largest", "learning_rate", "loss", "seconds")]
    assert events == [(1, names), (2, names), (3, names), "finished"]


def test_the_settings_that_training_reads_are_all_there_are() -> None:
    """A setting nobody reads is a promise nobody keeps."""
    source = Path(trainer_module.__file__).parents[1]
    words = "".join(
        path.read_text(encoding="utf-8") for path in source.rglob("*.py") if path.parent.name in ("training", "methods")
    )
    unread = [name for name in TrainingSettings.model_fields if f".{name}" not in words]
    assert not unread
