"""The head alone, on states read before the first update of the whole model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_runs import metrics
from sugar_world import make_world, sugar_config

from gen2real import methods
from gen2real.files import read_tensors
from gen2real.imagesets.interleaved import read_interleaved, slices
from gen2real.imagesets.sampling import EpochSampler
from gen2real.methods.measured import Measured
from gen2real.methods.sugar import algorithm as sugar
from gen2real.methods.sugar.data import SugarBatches, prefixes_of
from gen2real.methods.sugar.head_first import HeadBatch, HeadBatches, HeadLoss, known_states
from gen2real.methods.sugar.loss import SugarLoss, SugarNetwork
from gen2real.models.hidden_states import hidden_states
from gen2real.models.multimodal import load_multimodal
from gen2real.models.retrieval_head import RetrievalHead, Whitening, read_out, whitening_of
from gen2real.models.sequences import encode_sequences


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("head_first"))


@pytest.mark.parametrize("form", ["structure", "infonce"])
def test_its_loss_is_that_of_the_whole_model_while_adapters_are_new(root: Path, tmp_path: Path, form: str) -> None:
    changes = {"whiten": True, "first_updates": 1, "samples": 7, "width": 16, "dim": 12}
    config = sugar_config(root, tmp_path, head=changes, discriminative__form=form, training__batch_size=7)
    tuning = sugar.prepare(config)
    assert isinstance(tuning.model.head, RetrievalHead)
    assert tuning.model.head.whitening is not None
    batches = SugarBatches(tuning.data, tuning.model, tuning.data.sampler(7, config.seed), config, tuning.features)
    ((batch,),) = batches(range(1))
    network = SugarNetwork(tuning.model, config).eval()
    expected = SugarLoss(network, config, tuning.calibration)({"sugar": network}, batch)["L_d"]
    known = {one.row.owner: one for one in tuning.known}
    assert len(known) == 7
    drawn = enumerate(batches._sampler.batch(0))
    rows = [batches._row(0, place, source, index) for place, (source, index) in drawn]
    if form == "structure":
        assert tuning.features is not None
        states = torch.cat([known[row.owner].states[list(row.readouts)] for row in rows])
        own = HeadBatch(len(rows), states, prefixes_of(rows, tuning.features))
        found = HeadLoss(config, tuning.calibration)({"head": tuning.model.head}, own)["L_d"]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
        return
    # Where a sample is cut is drawn anew; of those that can be cut in one place alone, halves are the same.
    pairs = [one for one in tuning.known if one.halves is not None and len(one.row.slices) == 2]
    assert len(pairs) == 3
    halves = torch.stack([one.halves for one in pairs if one.halves is not None])
    owners = torch.tensor([one.row.owner for one in pairs])
    found = HeadLoss(config, None)({"head": tuning.model.head}, HeadBatch(3, halves, owners=owners))["L_d"]
    first, second = (tuning.model.head(halves[:, side]) for side in (0, 1))
    logits = first @ second.T / config.discriminative.temperature
    target = torch.arange(3)
    by_hand = (
        torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)
    ) / 2
    torch.testing.assert_close(found, by_hand, rtol=1e-4, atol=1e-5)
    assert {one.row.owner for one in tuning.known if one.halves is None} == {5}, "text alone is not cut"


def test_the_head_is_trained_first_and_alone(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"whiten": True, "first_updates": 12, "samples": 7, "width": 16, "dim": 12}
    whole = methods.run(sugar_config(root, tmp_path / "whole", head=changes), quiet=True)
    assert isinstance(whole, Measured)
    rows = metrics(whole.folder)
    assert [row["step"] for row in rows if row["stage"] == "head"] == list(range(1, 13))
    assert rows[11]["L_d"] < 0.8 * rows[0]["L_d"]
    assert [row["step"] for row in rows if row["stage"] == "sugar"] == [1, 2, 3]
    assert rows[12]["L_d"] < rows[0]["L_d"]
    assert whole.summary["cost"]["updates"] == 15

    # Interrupted between the two, it goes on with the head that was trained.
    fit = sugar.fit

    def stop(models: object, *given: object, stage: str, **named: object) -> object:
        if stage == "sugar":
            raise KeyboardInterrupt
        return fit(models, *given, stage=stage, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(sugar, "fit", stop)
        with pytest.raises(KeyboardInterrupt):
            methods.run(sugar_config(root, tmp_path / "cut", head=changes), quiet=True)
    again = methods.run(sugar_config(root, tmp_path / "cut", head=changes), quiet=True)
    for name in ("adapter_model.safetensors", "head.safetensors"):
        ours, theirs = (read_tensors(run.folder / "model" / name) for run in (whole, again))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_batches_are_drawn_by_update_and_nothing_is_read_where_nothing_asks(root: Path, tmp_path: Path) -> None:
    config = sugar_config(root, tmp_path, head={"first_updates": 4, "samples": 7}, training__batch_size=3)
    tuning = sugar.prepare(config)
    batches = HeadBatches(config, tuning.known, tuning.features)
    every = [batch for (batch,) in batches(range(4))]
    assert all(
        torch.equal(one.states, again.states) for one, (again,) in zip(every[2:], batches(range(2, 4)), strict=True)
    )
    assert not torch.equal(every[0].states[:2], every[1].states[:2])
    assert {batch.rows for batch in every} == {3}
    for changes in ({"first_updates": 0}, {"first_updates": 4, "discriminative__weight": 0}):
        weight = changes.pop("discriminative__weight", 1)
        plain = sugar_config(root, tmp_path, head=changes, discriminative__weight=weight)
        assert known_states(plain, tuning.model, tuning.data) == []


@pytest.mark.parametrize("weight", [0, 1])
def test_states_are_whitened_as_measured_before_training(root: Path, tmp_path: Path, weight: float) -> None:
    changes = {"discriminative__weight": weight, "head__whiten": True, "head__samples": 6, "training__steps": 1}
    found = {"task": "retrieval", "path": str(root / "colours")}
    run = methods.run(sugar_config(root, tmp_path, evaluation={"found": found}, **changes), quiet=True)
    assert isinstance(run, Measured)
    loaded = load_multimodal(run.folder)
    whitening = whitening_of(loaded.head)
    assert whitening is not None
    assert isinstance(loaded.head, RetrievalHead if weight else Whitening)
    base = load_multimodal(root / "llava")
    samples = [one for one in read_interleaved(root / "train.jsonl") if slices(one)]
    drawn = EpochSampler([len(samples)], None, 6, 0).batch(0)
    states = []
    for _, index in drawn:
        batch = encode_sequences(base, [samples[index]], [range(len(slices(samples[index])))])
        with torch.no_grad():
            states.append(read_out(hidden_states(base, batch.inputs), batch.spans))
    expected = Whitening.of(torch.cat(states))
    torch.testing.assert_close(whitening.mean, expected.mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(whitening(torch.cat(states)), expected(torch.cat(states)), rtol=1e-2, atol=1e-2)
