"""method: sugar on the other two families of models: what is learnt, what is kept, and that what was measured loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.utils import set_seed
from small_runs import metrics
from sugar_world import make_world, sugar_config
from torch import Tensor

from gen2real import methods
from gen2real.files import read_tensors
from gen2real.methods.finished_tasks import evaluate_task
from gen2real.methods.measured import Measured
from gen2real.methods.sugar import algorithm as sugar
from gen2real.methods.sugar.data import SugarBatches
from gen2real.methods.sugar.loss import SugarLoss, SugarNetwork
from gen2real.methods.sugar.settings import SugarConfig
from gen2real.models.embedder import Embedder
from gen2real.models.multimodal import MultimodalModel, load_multimodal
from tiny_multimodal import tiny_idefics3, tiny_qwen2_vl

FAMILIES: dict[str, Callable[[Path], Path]] = {"idefics3": tiny_idefics3, "qwen2_vl": tiny_qwen2_vl}


@dataclass(frozen=True)
class Ran:
    """A finished run, and what it embedded with the model that it measured. base: before the training."""

    root: Path
    family: str
    run: Measured
    base: Tensor
    tuned: Tensor


def contents(root: Path) -> list[list[str | Path]]:
    """Texts and pictures alone and in both orders, some of them longer than others."""
    red, blue = (root / "colours" / name / "0.png" for name in ("red", "blue"))
    return [
        ["a red square"],
        [red],
        [red, " A red one. It is big!"],
        [blue, " A blue one. ", red],
        ["a blue one ", blue],
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_world(tmp_path_factory.mktemp("families"))
    for name, build in FAMILIES.items():
        build(root / name)
    lines = [
        {"image": str(root / "colours" / name / "0.png"), "question": f"is it {asked}?", "answer": answer}
        for name in ("red", "green", "blue")
        for asked, answer in ((name, "yes"), ("round", "no"))
    ]
    (root / "yes-no.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def named(param: tuple[str, bool]) -> str:
    family, packed = param
    return f"{family}-packed" if packed else family


@pytest.fixture(scope="module", params=[(name, packed) for name in FAMILIES for packed in (False, True)], ids=named)
def ran(request: pytest.FixtureRequest, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Two updates, and the model that is measured embeds some contents, as it was and as it is."""
    family, packed = request.param
    embedded: dict[str, Tensor] = {}
    measure = sugar.measure

    def embedding(
        config: SugarConfig, model: MultimodalModel, untrained: Callable[[], AbstractContextManager[None]]
    ) -> Any:
        found = measure(config, model, untrained)
        embedded["tuned"] = Embedder(model, model.head).embed(contents(root))
        with untrained():
            embedded["base"] = Embedder(model, model.head).embed(contents(root))
        return found

    config = sugar_config(
        root,
        tmp_path_factory.mktemp("run"),
        model__name=str(root / family),
        data__packed=packed,
        training__steps=2,
        training__batch_size=7,
        evaluation={
            "found": {"task": "retrieval", "path": str(root / "colours")},
            "asked": {"task": "yes-no", "path": str(root / "yes-no.jsonl")},
        },
        # As a model is asked that has no run of its own.
        decoding={},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sugar, "measure", embedding)
        run = methods.run(config, quiet=True)
    assert isinstance(run, Measured)
    return Ran(root, family, run, **embedded)


def test_both_losses_have_a_gradient_in_every_update(ran: Ran) -> None:
    rows = metrics(ran.run.folder)
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert row["loss"] == pytest.approx(row["L_g"] + row["L_d"], rel=1e-5)
        assert row["gradient_g"] > 0
        assert row["gradient_d"] > 0


def test_adapters_and_head_are_all_that_is_learnt_and_kept(ran: Ran) -> None:
    folder = ran.run.folder / "model"
    assert {one.name for one in folder.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "gen2real.json",
        "head.safetensors",
    }
    saved = read_tensors(folder / "adapter_model.safetensors")
    # Two layers of the language model; an image tower may have layers of the same names.
    assert len(saved) == 2 * 2 * 2
    assert {name.split(".")[-3] for name in saved} == {"q_proj", "v_proj"}
    assert all("vision" not in name and "visual" not in name for name in saved)
    assert all(value.abs().max() > 0 for value in saved.values())
    base, tuned = load_multimodal(ran.root / ran.family), load_multimodal(folder)
    state = {name.replace(".base_layer.", "."): value for name, value in tuned.model.state_dict().items()}
    assert all(torch.equal(value, state[name]) for name, value in base.model.state_dict().items())
    assert len(state) == len(base.model.state_dict()) + len(saved)
    begun = sugar.prepare(sugar_config(ran.root, folder, model__name=str(ran.root / ran.family))).model.head
    assert begun is not None
    assert tuned.head is not None
    pairs = zip(begun.parameters(), tuned.head.parameters(), strict=True)
    assert all(not torch.equal(one, other) for one, other in pairs)


def test_what_was_measured_is_what_is_loaded(ran: Ran) -> None:
    """Bit for bit, the tuned model from its folder and the one before it from its own."""
    tuned = load_multimodal(ran.run.folder / "model")
    assert tuned.head is not None
    assert torch.equal(Embedder(tuned, tuned.head).embed(contents(ran.root)), ran.tuned)
    base = load_multimodal(ran.root / ran.family)
    assert torch.equal(Embedder(base, None).embed(contents(ran.root)), ran.base)
    assert not torch.allclose(Embedder(base, tuned.head).embed(contents(ran.root)), ran.tuned, atol=1e-5)
    assert ran.tuned.shape == (5, 12)
    assert ran.base.shape == (5, 48)


@pytest.mark.parametrize("reading", ["base", "tuned"])
def test_a_task_says_of_the_folder_what_the_run_said(ran: Ran, reading: str) -> None:
    model = ran.run.folder / "model" if reading == "tuned" else ran.root / ran.family
    for name, task, path in (("found", "retrieval", "colours"), ("asked", "yes-no", "yes-no.jsonl")):
        scores = evaluate_task(model, task, ran.root / path)
        for measure, values in scores.values.items():
            np.testing.assert_array_equal(ran.run.values(reading, f"{name}_{measure}"), values, err_msg=measure)
    said = [one["captions"][reading] for one in ran.run.summary["samples"]]
    assert said == [one["answer"] for one in scores.samples]
    assert len(set(said)) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_samples_teach_the_same_in_fewer_rows(root: Path, tmp_path: Path, family: str) -> None:
    found, rows = [], []
    for packed in (False, True):
        config = sugar_config(
            root, tmp_path, model__name=str(root / family), data__packed=packed, training__batch_size=7
        )
        set_seed(config.seed)
        tuning = sugar.prepare(config)
        sampler = tuning.data.sampler(7, config.seed)
        ((batch,),) = SugarBatches(tuning.data, tuning.model, sampler, config, tuning.features)(range(1))
        rows.append(len(batch.sequences.labels))
        network = SugarNetwork(tuning.model, config)
        terms = SugarLoss(network, config)({"sugar": network}, batch)
        found.append({name: float(value.detach()) for name, value in terms.items()})
    assert rows[1] < rows[0] == 7
    assert set(found[0]) == {"loss", "L_g", "L_d", "gradient_g", "gradient_d", "cosine_lora_g_d"}
    assert found[1] == pytest.approx(found[0], rel=1e-3, abs=1e-5)
