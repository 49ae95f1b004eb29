"""Two processes are one: the same losses, gradients and weights as a single process has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from workers import two_processes

from gen2real.files import read_json, read_tensors
from gen2real.imagesets import ImageSet
from gen2real.imagesets.interleaved import Interleaved, Turn, write_interleaved
from gen2real.models import load_dual_encoder
from gen2real.models.aligned import save_aligned
from gen2real.training.distributed import gather, rank, share, world_size
from tiny import tiny_clip, tiny_gpt2, tiny_stable_diffusion
from tiny_multimodal import tiny_llava
from tiny_sets import colour_set

TESTS = Path(__file__).parents[1]


class Found:
    """What one process wrote, and the folder of all."""

    def __init__(self, folder: Path, place: int) -> None:
        self.folder = folder
        self.said = read_json(folder / f"{place}.json")
        self.tensors = read_tensors(folder / f"{place}.safetensors")

    def metrics(self, name: str) -> list[dict[str, Any]]:
        lines = (self.folder / name / "metrics.jsonl").read_text().splitlines()
        return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]

    def tuned(self, name: str) -> dict[str, Tensor]:
        return read_tensors(self.folder / name / "tuned.safetensors")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, Found, Found]:
    """One process alone, then the first and the second of two."""
    root = tmp_path_factory.mktemp("distributed")
    names = ("red", "green", "blue")
    clip, drawn = str(tiny_clip(root / "clip")), colour_set(root / "pictures", names=names)
    pictures = str(drawn.root)
    encoder = load_dual_encoder(clip)
    shift = {name: 0.3 * value for name, value in encoder.vision.named_parameters() if name.endswith("_proj.weight")}
    save_aligned(f"{clip}-aligned", encoder, shift, made_by={})
    real = colour_set(root / "pictures-real", names=names, origin="real")
    rows = [{**row, "pair_id": real.ids[place]} for place, row in enumerate(drawn.rows())]
    ImageSet.write(drawn.root, rows, drawn.classes, name="paired.parquet")
    colour_set(root / "pictures-test", names=names, origin="real", per_class=1, seed=1)
    tiny_gpt2(root / "pictures-gpt2", dropout=0.0)
    tiny_llava(root / "pictures-llava", Path(clip))
    tiny_stable_diffusion(root / "pictures-generator", clip=Path(clip))
    # Beside one that is long, several that are short fit into a row.
    told = ("It is here, and it stays for as long as anybody wants to look at it.", "It is here.", "It is here.")
    samples = [
        Interleaved(str(n), (Turn((path, f" Square {n}. {told[n % 3]}")),)) for n, path in enumerate(drawn.paths[:8])
    ]
    words = [Interleaved(f"w{n}", (Turn((f"What is {n} plus 1?",), str(n + 1)),)) for n in range(3)]
    write_interleaved(root / "pictures-samples.jsonl", [*samples, *words])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN2REAL_CACHE", str(root / "cache"))
        patch.setenv("PYTHONPATH", os.pathsep.join([*sys.path, str(TESTS), str(TESTS / "training")]))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("ACCELERATE_USE_CPU", "true")
        (root / "one").mkdir()
        two_processes.main(root / "one", clip, pictures)
        (root / "two").mkdir()
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += [str(TESTS / "training" / "workers" / "two_processes.py"), str(root / "two"), clip, pictures]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-8000:]
    return Found(root / "one", 0), Found(root / "two", 0), Found(root / "two", 1)


Three = tuple[Found, Found, Found]


def test_there_were_two_processes(found: Three) -> None:
    assert [one.said["processes"] for one in found] == [1, 2, 2]


@pytest.mark.parametrize("name", ["uneven", "empty"])
def test_the_gradient_reaches_every_row_where_it_lies(found: Three, name: str) -> None:
    alone, first, second = (one.tensors[f"gather.{name}"] for one in found)
    assert (len(first), len(second)) == ((3, 4) if name == "uneven" else (7, 0))
    assert alone.dtype == torch.float64
    torch.testing.assert_close(torch.cat([first, second]), alone, rtol=1e-12, atol=1e-12)


def test_losses_that_pull_apart_are_the_same(found: Three) -> None:
    """Chunks, each loss's own gradient, PCGrad and the running mean: 7 rows, 3 of one process and 4 of the other."""
    alone, first, second = found
    names = [name for name in alone.tensors if name.startswith("opposed.")]
    assert len(names) == 8
    for name in names:
        assert torch.equal(first.tensors[name], second.tensors[name]), name
        torch.testing.assert_close(first.tensors[name], alone.tensors[name], rtol=0, atol=3e-6)
    rows = alone.metrics("opposed")
    assert any(row["cosine_shared_near_far"] < -0.1 for row in rows), "there was something to take off"
    assert len(rows) == 5
    for one, other in zip(rows, first.metrics("opposed"), strict=True):
        assert one.pop("stage") == other.pop("stage")
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("term", ["0.variance", "1.covariance"])
def test_both_processes_feel_the_regularisers(found: Three, term: str) -> None:
    names = [name for name in found[0].tensors if name.startswith(term)]
    assert len(names) > 20
    alone, first, second = (torch.cat([one.tensors[name].flatten() for name in names]) for one in found)
    assert first.abs().max() > 1e-4
    assert second.abs().max() > 1e-4
    assert not torch.allclose(first, second, atol=1e-4), "each has the share of its own rows"
    torch.testing.assert_close((first + second) / 2, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("run", ["regft", "lora", "soft", "shifted", "flyp", "flyp-plain"])
def test_a_whole_run_is_the_same(found: Three, run: str) -> None:
    """Batches of 7, the last of one picture; a head before the encoder; every loss."""
    alone, first, second = found
    assert (alone.said[run], first.said[run], second.said[run]) == (True, True, False)
    assert len(alone.metrics(run)) == {"regft": 6, "lora": 2, "shifted": 5}.get(run, 3)
    for one, other in zip(alone.metrics(run), first.metrics(run), strict=True):
        assert one.pop("stage") == other.pop("stage")
        assert one == pytest.approx(other, rel=2e-5, abs=1e-6)
    one, other = alone.tuned(run), first.tuned(run)
    assert set(one) == set(other)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=3e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_an_alignment_is_the_same(found: Three) -> None:
    """16 pairs and 2 held out: batches of 7, 4 and 3 a process. Towers, text tower and projection are trained."""
    alone, first, second = found
    assert (alone.said["gmail"], first.said["gmail"], second.said["gmail"]) == (True, True, False)
    for one, other in zip(alone.metrics("gmail"), first.metrics("gmail"), strict=True):
        assert one.pop("stage") == other.pop("stage") == "alignment"
        assert {"align", "text", "real_text"} <= set(one)
        assert one == pytest.approx(other, rel=2e-5, abs=1e-6)
    for name in ("model", "generated/adapter_model", "real_projection"):
        tensors, others = (
            read_tensors(side.folder / "gmail" / "model" / f"{name}.safetensors") for side in (alone, first)
        )
        assert set(tensors) == set(others)
        for key, value in tensors.items():
            torch.testing.assert_close(value, others[key], rtol=0, atol=3e-6)


def test_captioning_is_the_same(found: Three) -> None:
    """The loss is the mean over the tokens of the whole batch, however many of them each process has."""
    alone, first, second = found
    assert (alone.said["captioning"], first.said["captioning"], second.said["captioning"]) == (True, True, False)
    assert len(alone.metrics("captioning")) == 6
    for one, other in zip(alone.metrics("captioning"), first.metrics("captioning"), strict=True):
        assert one.pop("stage") == other.pop("stage") == "captioner"
        assert one == pytest.approx(other, rel=2e-5, abs=1e-6)
    for name in ("mapper_generated", "mapper_real", "decoder/model"):
        tensors, others = (
            read_tensors(side.folder / "captioning" / "model" / f"{name}.safetensors") for side in (alone, first)
        )
        for key, value in tensors.items():
            torch.testing.assert_close(value, others[key], rtol=0, atol=3e-6)


def test_answering_is_the_same(found: Three) -> None:
    """A process may have generated pictures alone, real ones alone, both, or no row at all."""
    alone, first, second = found
    assert (alone.said["multimodal"], first.said["multimodal"], second.said["multimodal"]) == (True, True, False)
    assert len(alone.metrics("multimodal")) == 8
    for one, other in zip(alone.metrics("multimodal"), first.metrics("multimodal"), strict=True):
        assert one.pop("stage") == other.pop("stage") == "multimodal"
        assert one == pytest.approx(other, rel=2e-5, abs=1e-6)
    for name in ("adapter_model", "projector"):
        tensors, others = (
            read_tensors(side.folder / "multimodal" / "model" / f"{name}.safetensors") for side in (alone, first)
        )
        for key, value in tensors.items():
            torch.testing.assert_close(value, others[key], rtol=0, atol=3e-6)


@pytest.mark.parametrize("run", two_processes.SUGAR)
def test_read_outs_and_halves_are_the_same(found: Three, run: str) -> None:
    """Both losses and both gradients, and of the head alone before; a process may have no row, no read-out or no
    sample to cut."""
    alone, first, second = found
    assert (alone.said[run], first.said[run], second.said[run]) == (True, True, False)
    rows = alone.metrics(run)
    assert [row["stage"] for row in rows] == ["head"] * (3 if run == "sugar-kit" else 0) + ["sugar"] * 3
    assert all(row["gradient_d"] > 0 for row in rows[-3:-1])
    for one, other in zip(rows, first.metrics(run), strict=True):
        assert one.pop("stage") == other.pop("stage")
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    for name in ("adapter_model", "head"):
        tensors, others = (read_tensors(side.folder / run / "model" / f"{name}.safetensors") for side in (alone, first))
        for key, value in tensors.items():
            torch.testing.assert_close(value, others[key], rtol=0, atol=3e-6)


@pytest.mark.parametrize("run", two_processes.JOINT)
def test_a_joint_training_is_the_same(found: Three, run: str) -> None:
    """Three losses, the head before them, chunks, surgery, running means; a process may have nothing to denoise."""
    alone, first, second = found
    assert (alone.said[run], first.said[run], second.said[run]) == (True, True, False)
    assert len(alone.metrics(run)) == {"joint-features": 4}.get(run, 3)
    for one, other in zip(alone.metrics(run), first.metrics(run), strict=True):
        assert one.pop("stage") == other.pop("stage")
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    for file in (
        "model/model",
        "generator/unet/diffusion_pytorch_model",
        *(["heads"] if run == "joint-features" else []),
    ):
        tensors, others = (read_tensors(side.folder / run / f"{file}.safetensors") for side in (alone, first))
        assert set(tensors) == set(others)
        for key, value in tensors.items():
            torch.testing.assert_close(
                value, others[key], rtol=0, atol=3e-6, msg=lambda text, name=f"{file} {key}": f"{name}: {text}"
            )


def test_every_term_was_compared(found: Three) -> None:
    terms = {"cross_entropy", "covariance", "gradient_norm", "learning_rate", "loss", "stage", "step", "variance"}
    assert set(found[0].metrics("regft")[-1]) == terms - {"gradient_norm"}
    assert set(found[0].metrics("soft")[-1]) == terms - {"gradient_norm"} | {"soft_targets"}
    assert {row["stage"] for row in found[0].metrics("regft")} == {"head", "encoder"}


def test_positives_change_the_contrastive_loss(found: Three) -> None:
    for one in found[:2]:
        assert one.metrics("flyp")[0]["loss"] != one.metrics("flyp-plain")[0]["loss"]


def test_a_bad_loss_on_one_process_stops_both(found: Three) -> None:
    alone, first, second = (one.said["stopped"] for one in found)
    assert alone.startswith("after [1, 2]: update 3 has a non-finite loss (loss=nan)")
    assert first.startswith("after [1, 2]: update 3 has a non-finite loss (on another process)")
    assert second.startswith("after [1, 2]: update 3 has a non-finite loss (loss=nan)")


def test_two_processes_resume_bit_for_bit(found: Three) -> None:
    for one in found:
        assert one.said["resumed"] == []


def test_alone_there_is_nothing_to_gather() -> None:
    rows = torch.randn(3, 2)
    assert gather(rows) is rows
    assert (rank(), world_size()) == (0, 1)
    assert share([1, 2, 3]) == [1, 2, 3]


def test_shares_are_even_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    from gen2real.training import distributed

    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    for count in range(9):
        parts = []
        for place in range(3):
            monkeypatch.setattr(distributed, "rank", lambda place=place: place)
            parts.append(share(list(range(count))))
        assert [item for part in parts for item in part] == list(range(count))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_before_the_processes_have_met_torchrun_tells_the_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first may write the run's folder, and that is before training."""
    monkeypatch.setenv("RANK", "1")
    assert rank() == 1
