"""The speed benchmark runs from end to end: tiny shapes, every arm in this process instead of one of its own."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from gen2real.losses import soft_dtw
from gen2real.models import load_decoder, load_dual_encoder, new_captioner, save_captioner
from tiny import tiny_clip, tiny_gpt2, tiny_stable_diffusion
from tiny_multimodal import tiny_llava
from tiny_sets import colour_set

SPEED = Path(__file__).parents[2] / "benchmarks" / "speed"
ARMS = {
    "ours-bfloat16",
    "ours-float32",
    "plain-float32",
    "transformers-float32",
    "transformers-bfloat16",
    "paired-bfloat16",
}


@pytest.fixture
def finetune(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SPEED))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    module = importlib.import_module("finetune")
    monkeypatch.setattr(module, "in_a_process", lambda work, *arguments: work(*arguments))
    return module


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", ["png-224"])
def test_the_speed_benchmark_measures_every_arm(
    finetune: ModuleType, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results" / "finetune.json"
    sizes = "--model tiny --pictures 32 --batch-size 4 --rounds 1 --steps 2 --workers 0 --threads 1 --epochs 3"
    finetune.main([*sizes.split(), "--kind", kind, "--out", str(out)])
    report = json.loads(out.read_text(encoding="utf-8"))
    assert set(report["arms"]) == ARMS
    assert all(one["pictures_per_second"] > 0 for one in report["arms"].values())
    assert all(len(row["updates"]) == 2 for row in report["rounds"])
    (paired,) = (row for row in report["rounds"] if row["arm"] == "paired")
    assert len(paired["bare_updates"]) == 2
    assert {cache: len(held) for cache, held in report["memory_mib"].items()} == {"none": 3, "memory": 3}
    assert str(tmp_path) not in out.read_text(encoding="utf-8")
    assert "against the plain loop" in capsys.readouterr().out


def test_a_slope_is_that_of_the_line(finetune: ModuleType) -> None:
    assert finetune.slope([5.0, 7.0, 9.0, 11.0]) == pytest.approx(2.0)
    assert finetune.slope([3.0]) == 0.0


def test_a_picture_of_vit_b_16_costs_what_is_known(finetune: ModuleType) -> None:
    """By hand: 197 tokens through 12 layers of 12·768² weights, attention, and the patches; times 2, times 3."""
    linear = 12 * 197 * 12 * 768**2
    attention = 12 * 2 * 197**2 * 768
    patches = 196 * 768 * 3 * 16**2
    assert finetune.flop_a_picture("vit-b-16") == pytest.approx(6 * (linear + attention + patches), rel=1e-3)


@pytest.mark.filterwarnings("default")
def test_the_drawing_benchmark_measures_speed_and_quality(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SPEED))
    generate = importlib.import_module("generate")
    folders = ["--generator", tiny_stable_diffusion(tmp_path / "sd"), "--encoder", tiny_clip(tmp_path / "clip")]
    folders += ["--reference", colour_set(tmp_path / "real", origin="real", per_class=2).root]
    sizes = "--pictures 3 --quality-pictures 6 --candidates 1 2 --steps 2 --batch-size 2 --rounds 1 --threads 1"
    generate.main([*map(str, folders), *sizes.split(), "--out", str(tmp_path / "out.json")])
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    found = report["quality"]
    ours = [name for name in found["distances"] if name != "plain"]
    assert ours[0] == "ours in 1"
    assert (found["steps"] is None) == (found["distances"][ours[-1]]["mean"] > found["at_most"])
    arms = {"plain", "ours, equal steps", "ours, equal steps, float32"}
    assert set(report["arms"]) == arms | ({"ours, equal quality"} if found["steps"] else set())
    assert report["times_plain"]["plain"] == 1.0
    assert all(one["a_second"] > 0 for one in report["arms"].values())
    assert str(tmp_path) not in json.dumps(report["arms"])
    assert "kernel distance to 8 reference pictures" in capsys.readouterr().out


@pytest.mark.filterwarnings("default")
def test_the_benchmark_of_the_world_measures_everything(
    finetune: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "world.json"
    module = importlib.import_module("world")
    module.main(["--pictures", "6", "--rounds", "2", "--out", str(out)])
    report = json.loads(out.read_text(encoding="utf-8"))
    assert len(report["rounds"]) == 2
    assert len(report["rates"]) == 13
    assert all(rate[unit] > 0 for rate in report["rates"].values() for unit in ("a_second", "a_cpu_second"))
    ours, plain = (report["rates"][f"batches, {arm}"]["a_second"] for arm in ("ours, 1 worker", "one by one"))
    assert report["times_one_by_one"]["1 worker"]["a_second"] == pytest.approx(ours / plain)
    assert str(tmp_path) not in json.dumps(report["rates"])
    assert "the mark is 200" in capsys.readouterr().out


@pytest.mark.filterwarnings("default")
def test_the_benchmark_of_captions_writes_the_same_ones(
    finetune: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decoder, tokenizer = load_decoder(tiny_gpt2(tmp_path / "gpt2"))
    encoder = load_dual_encoder(tiny_clip(tmp_path / "clip"))
    made = new_captioner(decoder, tokenizer, encoder.embedding_dim, max_tokens=6)
    save_captioner(tmp_path / "model", made, encoder, made_by={})
    pictures = colour_set(tmp_path / "real", origin="real", per_class=1).root
    module, out = importlib.import_module("captioning"), tmp_path / "captions.json"
    sizes = ["--count", "3", "--batch-size", "2", "--rounds", "2", "--out", str(out)]
    module.main(["--run", str(tmp_path / "model"), "--pictures", str(pictures), *sizes])
    report = json.loads(out.read_text(encoding="utf-8"))
    assert len(report["rounds"]) == 2 * 4
    assert report["captions"]["ours, 5 beams"] == report["captions"]["plain, 5 beams"]
    assert all(one["times_by_cpu_seconds"] > 0 for one in report["summary"].values())
    assert str(tmp_path) not in json.dumps(report)
    assert "times_by_cpu_seconds" in capsys.readouterr().out
    made_up = [dict(row, cpu_seconds=2.0 if "plain" in row["arm"] else 0.5) for row in report["rounds"]]
    assert module.summary(made_up, 3)["greedy"]["times_by_cpu_seconds"] == 4.0


@pytest.mark.filterwarnings("default")
def test_the_joint_benchmark_weighs_one_update_against_two(
    finetune: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    joint = importlib.import_module("joint")
    monkeypatch.setattr(joint, "in_a_process", finetune.in_a_process)
    sizes = "--pictures 4 --batch-size 4 --rounds 1 --steps 1 --warmup 1 --threads 1 --text frozen"
    joint.main([*sizes.split(), "--out", str(tmp_path / "out.json")])
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["summary"]
    separate = sum(found[arm]["seconds_per_update"] for arm in ("plain CLIP", "plain diffusion"))
    assert found["ours / separate, seconds"] == pytest.approx(found["ours"]["seconds_per_update"] / separate)
    # What is kept is not computed: neither the VAE's part nor the text tower's is among ours.
    assert (
        0
        < found["ours"]["teraflop_per_update"]
        < sum(found[arm]["teraflop_per_update"] for arm in ("plain CLIP", "plain diffusion"))
    )
    assert "within the mark" in capsys.readouterr().out


@pytest.mark.filterwarnings("default")
def test_the_benchmark_of_the_discriminative_part_gives_every_arm_the_same_updates(
    finetune: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, out = importlib.import_module("discriminative"), tmp_path / "out.json"
    model = tiny_llava(tmp_path / "llava", tiny_clip(tmp_path / "clip"))
    sizes = "--stories 3 --batch-size 2 --updates 2 --warmup 1 --readouts 2"
    module.main(["--folder", str(model), *sizes.split(), "--out", str(out)])
    report = json.loads(out.read_text(encoding="utf-8"))
    assert [set(one["arms"]) for one in report["rounds"]] == [set(module.ARMS)] * 2
    assert report["parts"]["read-outs"] == 4
    found = report["summary"]
    assert all(found[arm]["cpu_seconds_per_update"] > 0 for arm in module.ARMS)
    parts = report["parts"]["labels"] + report["parts"]["head and loss"]
    assert found["parts / generative"] == pytest.approx(parts / found["generative"]["cpu_seconds_per_update"])
    assert "within the mark" in capsys.readouterr().out
    made_up = [{"arms": {arm: {"seconds": n, "cpu_seconds": n} for arm in module.ARMS}} for n in (1.0, 3.0)]
    made_up[1]["arms"] = {**made_up[1]["arms"], "both": {"seconds": 6.0, "cpu_seconds": 3.6}}
    again = module.summary({**report, "rounds": made_up})
    assert again["both / generative, seconds"]["median"] == pytest.approx(1.5)
    assert again["within the mark"] is True
    with pytest.raises(SystemExit):
        module.main(["--model", "llava-7b"])
    assert "needs a GPU: add --device cuda" in capsys.readouterr().err


class _SoftDTW(torch.autograd.Function):
    """What tslearn has under its loss: costs in, γ given; ours stands in, so only the benchmark is tested."""

    @staticmethod
    def forward(ctx: Any, cost: torch.Tensor, gamma: float) -> torch.Tensor:
        with torch.enable_grad():
            leaf = cost.detach().requires_grad_()
            loss = soft_dtw(leaf, torch.full((len(leaf), 2), leaf.shape[1]), gamma=gamma)
            ctx.save_for_backward(*torch.autograd.grad(loss.sum(), leaf))
        return loss.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0][:, None, None], None


def _kernels(features: np.ndarray, sigma: float) -> np.ndarray:
    """Cuturi's kernel with s / (2 − s), cell by cell, divided by the roots of both with themselves."""

    def kernel(one: np.ndarray, other: np.ndarray) -> float:
        summed = np.zeros((len(one) + 1, len(other) + 1))
        summed[0, 0] = 1
        for i, j in np.ndindex(len(one), len(other)):
            s = math.exp(-float(((one[i] - other[j]) ** 2).sum()) / (2 * sigma**2))
            summed[i + 1, j + 1] = (summed[i, j] + summed[i + 1, j] + summed[i, j + 1]) * s / (2 - s)
        return float(summed[-1, -1])

    found = np.array([[kernel(one, other) for other in features] for one in features])
    root = np.sqrt(np.diag(found))
    return found / root[:, None] / root


@pytest.mark.filterwarnings("default")
def test_the_benchmark_of_the_kernel_compares_equal_numbers(
    finetune: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tslearn is not among what tests install; a plain kernel in its place holds the numbers all the same."""
    tslearn, metrics, below = (ModuleType(name) for name in ("tslearn", "metrics", "soft_dtw_loss_pytorch"))
    metrics.cdist_gak = _kernels  # type: ignore[attr-defined]
    metrics.SoftDTWLossPyTorch = lambda: (
        lambda x, y: _SoftDTW.apply(  # type: ignore[attr-defined]
            torch.cdist(x, y).square(), 1.0
        )
    )
    below._SoftDTWLossPyTorch = _SoftDTW  # type: ignore[attr-defined]
    for name, module in (
        ("tslearn", tslearn),
        ("tslearn.metrics", metrics),
        ("tslearn.metrics.soft_dtw_loss_pytorch", below),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    module, out = importlib.import_module("sequence_kernel"), tmp_path / "out.json"
    monkeypatch.setattr(module, "KERNELS", [(3, 2), (4, 3)])
    monkeypatch.setattr(module, "SOFT", [(2, 4)])
    monkeypatch.setattr(module, "_version", lambda: "none")
    module.main(["--rounds", "2", "--dim", "5", "--out", str(out)])
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    compared = [row for row in rows if row["what"] != "recursion"]
    assert (len(rows), len(compared)) == (9, 7)
    for row in compared:
        assert row["largest_difference"] < 1e-10
        assert row["times"]["cpu_seconds"] == row["tslearn"]["cpu_seconds"] / row["ours"]["cpu_seconds"]
    metrics.cdist_gak = lambda *given, **named: 1.01 * _kernels(*given, **named)  # type: ignore[attr-defined]
    with pytest.raises(SystemExit, match="the arms differ by"):
        module.main(["--rounds", "1", "--dim", "5", "--out", str(out)])
