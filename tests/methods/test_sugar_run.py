"""method: sugar. What is learnt and by what, resuming, α = 0, the controls, and that the result holds together."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate.utils import set_seed
from small_runs import metrics
from sugar_world import make_world, sugar_config
from torch import Tensor

from gen2real import methods
from gen2real.errors import Gen2RealError, ImageSetError, RecipeError
from gen2real.files import read_tensors
from gen2real.imagesets.interleaved import Interleaved, Turn, slices, write_interleaved
from gen2real.methods import rehearsal
from gen2real.methods.estimate import estimate
from gen2real.methods.measured import Measured
from gen2real.methods.sugar import algorithm as sugar
from gen2real.methods.sugar.data import Batch, SugarBatches, drawn_halves, drawn_readouts
from gen2real.methods.sugar.labels import Teachers, prefix_targets
from gen2real.methods.sugar.loss import SugarLoss, SugarNetwork
from gen2real.methods.sugar.settings import SugarConfig
from gen2real.models.embedder import Embedder
from gen2real.models.multimodal import load_multimodal
from gen2real.training.run_folder import RunFolder
from gen2real.training.trainer import Trainer


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("sugar"))


@pytest.fixture(scope="module")
def done(root: Path) -> Measured:
    """A run with everything that is measured: answers, a search, and answers with what was looked up."""
    result = methods.run(
        sugar_config(
            root,
            root / "run",
            evaluation={
                "asked": {"task": "questions", "path": str(root / "asked.jsonl")},
                "found": {"task": "retrieval", "path": str(root / "colours")},
            },
            rag={"own": {"knowledge": str(root / "known.jsonl"), "counts": [1], "template": "reference"}},
        ),
        quiet=True,
    )
    assert isinstance(result, Measured)
    return result


def first_batch(tuning: sugar.SugarTuning) -> Batch:
    sampler = tuning.data.sampler(tuning.config.training.batch_size, tuning.config.seed)
    ((batch,),) = SugarBatches(tuning.data, tuning.model, sampler, tuning.config, tuning.features)(range(1))
    return batch


def terms(tuning: sugar.SugarTuning, batch: Batch | None = None) -> dict[str, Tensor]:
    """The named losses of a batch, the first update's if none is given."""
    network = SugarNetwork(tuning.model, tuning.config)
    loss = SugarLoss(network, tuning.config, tuning.calibration)
    return loss({"sugar": network}, first_batch(tuning) if batch is None else batch)


def prepared(settings: SugarConfig) -> sugar.SugarTuning:
    """LoRA begins as nothing; here it is something, the same each time, so that every part of it has a gradient."""
    set_seed(settings.seed)
    tuning = sugar.prepare(settings)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in tuning.model.model.named_parameters():
        if ".lora_B" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return tuning


def test_adapters_and_head_are_all_that_changes(root: Path, done: Measured) -> None:
    base, tuned = load_multimodal(root / "llava"), load_multimodal(done.folder / "model")
    state = {name.replace(".base_layer.", "."): value for name, value in tuned.model.state_dict().items()}
    assert all(torch.equal(value, state[name]) for name, value in base.model.state_dict().items())
    added = {name: value for name, value in state.items() if ".lora_" in name}
    assert {name.split(".")[-4] for name in added} == {"q_proj", "v_proj"}
    assert all(value.abs().max() > 0 for value in added.values())
    assert base.head is None
    assert tuned.head is not None
    begun = sugar.prepare(sugar_config(root, root / "again")).model.head
    assert begun is not None
    assert not torch.equal(begun.layers[0].weight, tuned.head.layers[0].weight)


def test_the_result_has_every_reading_and_task(root: Path, done: Measured) -> None:
    assert list(done.readings) == ["base", "tuned", "own_1"]
    assert done.headline == "tuned"
    assert done.summary["pictures"] == {"samples": 7, "in samples": 5, "evaluation": 2 + 8}
    assert done.measures("tuned") == done.measures("base")
    assert {"asked_accuracy", "found_image_to_text_recall@1", "found_text_to_image_recall@5"} <= set(
        done.measures("tuned")
    )
    # A lookup changes what is answered, not what is found.
    assert done.measures("own_1") == ["asked_accuracy"]
    assert done.readings["own_1"]["details"]["asked"]["looked_up"]["entries"] == 3
    roles = [(one["role"], one.get("file", "colours")) for one in done.summary["sets"]]
    assert roles == [
        ("trained on", "train.jsonl"),
        ("measured on", "asked.jsonl"),
        ("measured on", "colours"),
        ("looked up", "known.jsonl"),
    ]
    (sample, _) = [one for one in done.summary["samples"] if one["question"] == "what colour?"]
    assert set(sample["captions"]) == {"base", "tuned", "own_1"}


def test_what_was_measured_is_what_is_loaded(root: Path, done: Measured) -> None:
    tuned = load_multimodal(done.folder / "model")
    samples = [one for one in done.summary["samples"] if one["question"] == "what colour?"]
    told = tuned.answer([Path(one["pictures"][0]) for one in samples], ["what colour?"] * 2, max_tokens=3)
    assert told == [one["captions"]["tuned"] for one in samples]
    assert Embedder(tuned, tuned.head).embed([["a red square"]]).shape == (1, 12)


def test_every_update_tells_both_losses_and_both_gradients(done: Measured) -> None:
    rows = metrics(done.folder)
    assert len(rows) == 3
    for row in rows:
        assert row["loss"] == pytest.approx(row["L_g"] + row["L_d"], rel=1e-5)
        assert row["gradient_g"] > 0
        assert row["gradient_d"] > 0
        assert -1 <= row["cosine_lora_g_d"] <= 1


def test_gradients_are_told_as_they_are_by_hand(root: Path, tmp_path: Path) -> None:
    """Of L_g and of α·L_d, each apart, over all LoRA parameters as one vector."""
    settings = sugar_config(root, tmp_path, discriminative__weight=0.5, training__steps=1)
    tuning = prepared(settings)
    lora = [parameter for name, parameter in tuning.model.model.named_parameters() if ".lora_" in name]
    assert len(lora) == 8
    found = terms(tuning)
    g, d = (
        torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, lora, retain_graph=True)]).double()
        for loss in (found["L_g"], 0.5 * found["L_d"])
    )
    tuning.tune(RunFolder(settings.output, settings), quiet=True)
    (row,) = metrics(tmp_path)
    assert row["gradient_g"] == pytest.approx(float(g.norm()), rel=1e-4)
    assert row["gradient_d"] == pytest.approx(float(d.norm()), rel=1e-4)
    assert row["cosine_lora_g_d"] == pytest.approx(float(g @ d / (g.norm() * d.norm())), rel=1e-4)


def test_measuring_gradients_changes_nothing(root: Path, tmp_path: Path, done: Measured) -> None:
    """Whether it is done in every update or in the first alone."""
    rarely = methods.run(sugar_config(root, tmp_path / "run", training__log_every=100), quiet=True)
    assert ["gradient_d" in row for row in metrics(rarely.folder)] == [True, False]
    for name in ("adapter_model.safetensors", "head.safetensors"):
        assert (rarely.folder / "model" / name).read_bytes() == (done.folder / "model" / name).read_bytes(), name


def test_the_loss_by_hand(root: Path, tmp_path: Path) -> None:
    """Sample by sample, from the whole model's logits and hidden states and the teachers' own vectors."""
    tuning = prepared(sugar_config(root, tmp_path, discriminative__weight=0.5))
    batch = first_batch(tuning)
    found = terms(tuning, batch)
    assert batch.prefixes is not None
    assert batch.own == batch.rows == batch.all_rows == 4
    inputs = {key: value for key, value in batch.sequences.inputs.items() if key != "position_ids"}
    with torch.no_grad():
        out = tuning.model.model(**inputs, output_hidden_states=True)
    labels = batch.sequences.labels
    expected = F.cross_entropy(out.logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="sum")
    torch.testing.assert_close(found["L_g"].detach(), expected / (labels != -100).sum(), rtol=1e-5, atol=1e-5)

    head = tuning.model.head
    assert head is not None
    read = torch.stack([out.hidden_states[-1][row, begin:end].mean(dim=0) for row, begin, end in batch.sequences.spans])
    ours = F.normalize(head.layers(read), dim=1)
    target = prefix_targets(batch.prefixes.features, batch.prefixes.rows, batch.prefixes.owners, tuning.config.kernel)
    expected = ((ours @ ours.T - target) ** 2).mean()
    torch.testing.assert_close(found["L_d"], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["loss"], found["L_g"] + 0.5 * found["L_d"])


def test_labels_are_of_the_prefixes_that_are_read(root: Path, tmp_path: Path) -> None:
    """Two single pictures: the cosine of what the teacher sees; the same sample: 1."""
    settings = sugar_config(root, tmp_path, discriminative__readouts=9, training__batch_size=7)
    tuning = sugar.prepare(settings)
    batch = first_batch(tuning)
    assert batch.prefixes is not None
    assert tuning.features is not None
    counts = {owner: len(own) for owner, own in enumerate(tuning.data.sources[0].slices)}
    assert {owner: batch.prefixes.owners.count(owner) for owner in counts} == counts
    known = Teachers(settings.teachers).features(tuning.data.slices)
    pictures = {owner: sample.pictures for owner, sample in enumerate(tuning.data.sources[0].samples)}
    targets = prefix_targets(batch.prefixes.features, batch.prefixes.rows, batch.prefixes.owners, settings.kernel)
    first = {owner: place for place, owner in reversed(list(enumerate(batch.prefixes.owners)))}
    a, b = (known.own[known.rows[pictures[owner][0]]] for owner in (0, 1))
    torch.testing.assert_close(targets[first[0], first[1]], a @ b, rtol=1e-5, atol=1e-5)
    same = torch.tensor(batch.prefixes.owners)
    assert bool((targets[same[:, None] == same] == 1).all())


def test_the_discriminative_gradient_reaches_adapters_and_head_alone(root: Path, tmp_path: Path) -> None:
    tuning = prepared(sugar_config(root, tmp_path))
    assert tuning.model.head is not None
    terms(tuning)["L_d"].backward()
    reached = {name for name, p in tuning.model.model.named_parameters() if p.grad is not None}
    assert reached == {name for name, _ in tuning.model.model.named_parameters() if ".lora_" in name}
    parameters = [*tuning.model.model.parameters(), *tuning.model.head.parameters()]
    gradients = [p.grad for p in parameters if p.grad is not None]
    assert len(gradients) == 8 + 4
    # A bias of the last layer too: nothing of it is lost in making unit lengths.
    assert all(bool(gradient.abs().max() > 0) for gradient in gradients)


HEAD_FIRST: dict[str, Any] = {
    "head__whiten": True,
    "head__first_updates": 3,
    "head__samples": 6,
    "data__packed": True,
    "training__batch_size": 7,
    "training__precision": "bfloat16",
}


@pytest.mark.parametrize("more", [{}, HEAD_FIRST], ids=["plain", "head-first"])
@pytest.mark.parametrize("form", ["structure", "infonce"])
def test_it_can_reach_the_head_alone(
    root: Path, tmp_path: Path, form: str, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: adapters move as at α = 0, bit for bit where nothing is clipped, and the head learns.
    Halves have a pass, and so a dropout, of their own."""
    changes: dict[str, Any] = {"optimizer__clip_norm": None, "lora__dropout": 0.3 if form == "structure" else 0.0}
    changes |= more
    plain = methods.run(sugar_config(root, tmp_path / "plain", discriminative__weight=0.0, **changes), quiet=True)
    changes |= {"discriminative__reach": "head", "discriminative__form": form}
    begun, fit = [], sugar.fit

    def kept(models: Any, *given: Any, stage: str, **named: Any) -> Any:
        if stage == "sugar":
            begun.append(copy.deepcopy(models["sugar"].head))
        return fit(models, *given, stage=stage, **named)

    monkeypatch.setattr(sugar, "fit", kept)
    run = methods.run(sugar_config(root, tmp_path / "head", **changes), quiet=True)
    name = "adapter_model.safetensors"
    assert (run.folder / "model" / name).read_bytes() == (plain.folder / "model" / name).read_bytes()
    rows = {stage: [row for row in metrics(run.folder) if row["stage"] == stage] for stage in ("head", "sugar")}
    assert [len(own) for own in rows.values()] == [more.get("head__first_updates", 0), 3]
    for row in rows["sugar"]:
        assert row["gradient_d"] == 0
        assert row["gradient_g"] > 0
        assert "cosine_lora_g_d" not in row
    (head,), learnt = begun, load_multimodal(run.folder).head
    assert learnt is not None
    assert all(not torch.equal(one, other) for one, other in zip(head.parameters(), learnt.parameters(), strict=True))


def test_without_the_discriminative_part_it_is_plain_tuning_bit_for_bit(root: Path, tmp_path: Path) -> None:
    """α = 0, and a loop of our own around the next-token loss alone; dropout draws as well."""
    changes: dict[str, Any] = {
        "discriminative__weight": 0.0,
        "lora__dropout": 0.3,
        "schedule": {"name": "constant", "warmup_steps": 0},
    }
    whole = methods.run(sugar_config(root, tmp_path / "run", **changes), quiet=True)
    assert not (whole.folder / "model" / "head.safetensors").exists()
    assert [set(row) & {"L_d", "gradient_d"} for row in metrics(whole.folder)] == [set()] * 3

    settings = sugar_config(root, tmp_path / "loop", **changes)
    set_seed(settings.seed)
    tuning = sugar.prepare(settings)
    network = SugarNetwork(tuning.model, settings).train()
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0, fused=True)
    sampler = tuning.data.sampler(4, 0)
    for (batch,) in SugarBatches(tuning.data, tuning.model, sampler, settings)(range(3)):
        (network(batch)["sums"].sum() / float((batch.sequences.labels != -100).sum())).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    saved = read_tensors(whole.folder / "model" / "adapter_model.safetensors")
    ours = {
        f"base_model.model.{name.replace('.default', '')}": p
        for name, p in tuning.model.model.named_parameters()
        if ".lora_" in name
    }
    assert set(saved) == set(ours)
    assert all(torch.equal(saved[name], ours[name]) for name in saved)

    # Whatever else the recipe says of a part that has no weight.
    other = sugar_config(root, tmp_path / "other", **changes, discriminative__form="infonce", head__dim=5)
    again = methods.run(other, quiet=True)
    assert all(
        torch.equal(saved[n], t) for n, t in read_tensors(again.folder / "model/adapter_model.safetensors").items()
    )


def test_a_resumed_run_ends_with_the_same_bits(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, Any] = {"lora__dropout": 0.3}
    whole = methods.run(sugar_config(root, tmp_path / "whole", **changes), quiet=True)
    update = Trainer._update

    def interrupted(self: Any, number: int, parts: Any) -> Any:
        if number == 2:
            raise KeyboardInterrupt
        return update(self, number, parts)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            methods.run(sugar_config(root, tmp_path / "cut", **changes), quiet=True)
    torch.rand(7)  # whatever happened in between
    again = methods.run(sugar_config(root, tmp_path / "cut", **changes), quiet=True)
    for name in ("adapter_model.safetensors", "head.safetensors"):
        assert (whole.folder / "model" / name).read_bytes() == (again.folder / "model" / name).read_bytes(), name
    assert [{**row, "seconds": 0} for row in metrics(tmp_path / "whole")] == [
        {**row, "seconds": 0} for row in metrics(tmp_path / "cut")
    ]


@pytest.mark.parametrize("form", ["structure", "infonce"])
def test_packed_samples_teach_the_same_in_fewer_rows(root: Path, tmp_path: Path, form: str) -> None:
    found, rows = [], []
    for packed in (False, True):
        tuning = prepared(
            sugar_config(root, tmp_path, data__packed=packed, training__batch_size=7, discriminative__form=form)
        )
        batch = first_batch(tuning)
        losses = terms(tuning, batch)
        losses["loss"].backward()
        halves = () if batch.halves is None else batch.halves.chunks
        rows.append([len(one.labels) for one in (batch.sequences, *halves)])
        assert tuning.model.head is not None
        trained = [*tuning.model.model.parameters(), *tuning.model.head.parameters()]
        gradients = [p.grad for p in trained if p.grad is not None]
        found.append([losses["L_g"].detach(), losses["L_d"].detach(), *gradients])
        network = SugarNetwork(tuning.model, tuning.config)
        found[-1].append(network(batch)["sums"].detach())
    assert rows[0][0] == 7
    assert all(fewer < more for more, fewer in zip(*rows, strict=True))
    assert len(found[0]) == 2 + 8 + 4 + 1
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("form", ["structure", "infonce"])
def test_checkpointing_changes_nothing(root: Path, tmp_path: Path, form: str) -> None:
    """Both losses' own gradients and that of their sum go through layers that are computed again, three times."""
    found = []
    for kind in (False, True):
        tuning = prepared(
            sugar_config(root, tmp_path, training__gradient_checkpointing=kind, discriminative__form=form)
        )
        tuning.model.model.train()
        losses = terms(tuning)
        losses["loss"].backward()
        gradients = [p.grad for p in tuning.model.model.parameters() if p.grad is not None]
        found.append([*(value.detach() for value in losses.values()), *gradients])
    assert len(found[0]) == 6 + 8
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_halves_in_chunks_are_halves_at_once(root: Path, tmp_path: Path) -> None:
    gradients = []
    for chunk in (None, 1, 2):
        settings = sugar_config(
            root, tmp_path, discriminative={"form": "infonce", "chunk": chunk}, training__batch_size=6
        )
        tuning = prepared(settings)
        batch = first_batch(tuning)
        assert batch.halves is not None
        assert len(batch.halves.chunks) == (1 if chunk is None else -(-batch.halves.own // chunk))
        found = terms(tuning, batch)
        found["L_d"].backward()
        assert tuning.model.head is not None
        parameters = [*tuning.model.model.parameters(), *tuning.model.head.parameters()]
        gradients.append([found["L_d"].detach(), *(p.grad for p in parameters if p.grad is not None)])
    assert len(gradients[0]) == 1 + 8 + 4
    for one in gradients[1:]:
        for ours, theirs in zip(gradients[0], one, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_infonce_by_hand(root: Path, tmp_path: Path) -> None:
    """Each half as content by itself, as it is embedded afterwards, finds the other among those of the batch."""
    settings = sugar_config(root, tmp_path, discriminative={"form": "infonce", "temperature": 0.2})
    tuning = sugar.prepare(settings)
    batch = first_batch(tuning)
    assert batch.halves is not None
    assert tuning.model.head is not None
    sampler = tuning.data.sampler(4, 0)
    batches = SugarBatches(tuning.data, tuning.model, sampler, settings)
    rows = [batches._row(0, place, *drawn) for place, drawn in enumerate(sampler.batch(0))]
    pairs = [row.halves for row in rows if row.halves is not None]
    assert [row.owner for row in rows if row.halves is not None] == batch.halves.owners
    embed = Embedder(tuning.model, tuning.model.head).embed
    first, second = (embed([pair[side].parts for pair in pairs]) for side in (0, 1))
    logits = first @ second.T / 0.2
    place = torch.arange(len(pairs))
    expected = (F.cross_entropy(logits, place) + F.cross_entropy(logits.T, place)) / 2
    torch.testing.assert_close(terms(tuning, batch)["L_d"].detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "control",
    [
        {"kernel__alignment": "mean"},
        {"kernel__local": "joint"},
        {"kernel__normalize": "self"},
        {"kernel__normalize": "none"},
        {"kernel__calibrate": True},
        {"kernel__same_sample": False},
        {"discriminative__image_readout": "last"},
        {"discriminative__scale": "rows"},
        {"discriminative__form": "infonce"},
    ],
    ids=lambda control: "-".join(f"{key.rpartition('__')[2]}-{value}" for key, value in control.items()),
)
def test_every_control_runs_in_the_same_loop(root: Path, tmp_path: Path, control: dict[str, Any]) -> None:
    """A run of each, and its first discriminative loss is another than Sugar's; the generative one is the same."""
    clip = str(root / "clip2")
    plain = sugar_config(root, tmp_path / "plain", teachers__image=clip, teachers__text=None)
    changed = sugar_config(root, tmp_path / "control", teachers__image=clip, save_model=False, **control)
    sugars = terms(sugar.prepare(plain))
    methods.run(changed, quiet=True)
    first = metrics(tmp_path / "control")[0]
    assert first["L_g"] == pytest.approx(float(sugars["L_g"].detach()), rel=1e-5)
    assert first["L_d"] != pytest.approx(float(sugars["L_d"].detach()), rel=1e-4)
    if "kernel__calibrate" in control:
        assert set(Measured.read(tmp_path / "control").summary["calibration"]["branches"]) == {
            "text and text",
            "picture and text",
            "picture and picture",
        }


def test_a_process_without_rows_adds_nothing(root: Path, tmp_path: Path) -> None:
    for form in ("structure", "infonce"):
        tuning = prepared(sugar_config(root, tmp_path, discriminative__form=form))
        batch = first_batch(tuning)
        prefixes = None if batch.prefixes is None else replace(batch.prefixes, rows=[], owners=[])
        halves = None if batch.halves is None else replace(batch.halves, own=0, owners=[])
        empty = replace(batch, own=0, tokens=0, readouts=0, prefixes=prefixes, halves=halves)
        loss = terms(tuning, empty)["loss"]
        assert float(loss.detach()) == 0.0
        loss.backward()
        assert tuning.model.head is not None
        trained = [p for p in tuning.model.model.parameters() if p.requires_grad] + [*tuning.model.head.parameters()]
        assert all(p.grad is not None and not p.grad.any() for p in trained), form


def test_what_is_read_is_drawn_by_seed_update_and_place(root: Path, tmp_path: Path) -> None:
    drawn = {drawn_readouts(5, 2, torch.Generator().manual_seed(seed)) for seed in range(60)}
    assert drawn == {(a, b) for a in range(5) for b in range(a + 1, 5)}
    assert drawn_readouts(3, 9, torch.Generator()) == (0, 1, 2)
    assert drawn_readouts(0, 4, torch.Generator()) == ()
    settings = sugar_config(root, tmp_path)
    tuning = sugar.prepare(settings)
    batches = SugarBatches(tuning.data, tuning.model, tuning.data.sampler(4, 0), settings, tuning.features)
    one, other = batches._row(3, 1, 0, 0), batches._row(3, 1, 0, 0)
    assert one.readouts == other.readouts
    assert len({batches._row(number, 1, 0, 0).readouts for number in range(20)}) > 3


def test_halves_are_cut_between_a_picture_and_a_text() -> None:
    a, b = Path("/a.png"), Path("/b.png")
    sample = Interleaved("x", (Turn(("First. Second. ", a, " What?"), "so"), Turn((b, " And?"), "so")))
    own = slices(sample)
    cuts = {drawn_halves(sample, own, torch.Generator().manual_seed(seed)) for seed in range(60)}
    found = {(one.parts, other.parts) for one, other in cuts if one is not None}  # type: ignore[misc]
    parts = sample.parts
    assert found == {(parts[:place], parts[place:]) for place in (1, 2, 3, 4)}
    assert all(one.is_document and other.is_document for one, other in cuts)  # type: ignore[misc]
    assert all(x.kind != y.kind for x, y in pairwise(own[1:])), "the first two sentences stay together"
    words = Interleaved("y", (Turn(("First. Second.",)),))
    assert drawn_halves(words, slices(words), torch.Generator()) is None


def test_data_is_looked_at_before_anything_is_trained(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageSetError, match=r"of 7 samples cannot be learnt from(.|\n)*story: it has \d+ tokens"):
        sugar.prepare(sugar_config(root, tmp_path, data__max_length=40))
    learnt = {"found": {"task": "retrieval", "path": str(root / "learnt")}}
    with pytest.raises(ImageSetError, match=r"5 picture\(s\) that are trained on are also in .*learnt, byte for byte"):
        sugar.prepare(sugar_config(root, tmp_path, evaluation=learnt))
    asked = {"asked": {"task": "questions", "path": str(root / "known.jsonl")}}
    with pytest.raises(ImageSetError, match=r"3 picture\(s\) that are trained on are also in .*known\.jsonl"):
        sugar.prepare(sugar_config(root, tmp_path, evaluation=asked))
    words = [Interleaved(str(place), (Turn((f"Number {place}.",)),)) for place in range(3)]
    write_interleaved(tmp_path / "words.jsonl", words)
    with pytest.raises(ImageSetError, match="no sample has both"):
        sugar.prepare(
            sugar_config(root, tmp_path, data__train=str(tmp_path / "words.jsonl"), discriminative__form="infonce")
        )


def test_a_lookup_names_tasks_that_it_can_help(root: Path, tmp_path: Path) -> None:
    asked = {"task": "questions", "path": str(root / "asked.jsonl")}
    found = {"task": "retrieval", "path": str(root / "colours")}
    rag = {"own": {"knowledge": str(root / "known.jsonl"), "tasks": ["found"]}}
    with pytest.raises(RecipeError, match="'found' is no task of questions in evaluation; those are: asked"):
        sugar_config(root, tmp_path / "run", evaluation={"asked": asked, "found": found}, rag=rag)


def test_what_is_measured_on_is_read_before_a_model_is(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults of tasks and of lookups cost no training: not even the model is loaded."""
    monkeypatch.setattr(sugar, "load_multimodal", None)
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"image": "none.png", "question": "?", "answer": "a"}\n{"images": ["none.png"], "captions": 3}\n')
    asked, known = {"asked": {"task": "questions", "path": str(root / "asked.jsonl")}}, str(root / "known.jsonl")
    entry = {"entry": "{question}", "whole": "{found} {question}"}
    faults: list[tuple[dict[str, Any], str]] = [
        ({"evaluation": {"a": {"task": "questions", "path": str(wrong)}}}, r"there is no picture .*none\.png"),
        ({"evaluation": {"a": {"task": "winoground", "path": str(wrong)}}}, "2 line.*'captions' must be a list"),
        ({"evaluation": {"a": {"task": "retrieval", "path": str(root / "nowhere")}}}, "nowhere does not exist"),
        ({"rag": {"own": {"knowledge": str(wrong)}}}, "line 2: there is no picture"),
        ({"rag": {"own": {"knowledge": known, "template": entry}}}, "needs {answer} once"),
        ({"rag": {"own": {"knowledge": known, "retriever": "nowhere/clip"}}}, "nowhere/clip"),
        ({"evaluation": asked, "rag": {"own": {"knowledge": str(root / "asked.jsonl")}}}, "2 of 2 questions are among"),
    ]
    for changes, told in faults:
        with pytest.raises(Gen2RealError, match=f"(?s){told}"):
            sugar.prepare(sugar_config(root, tmp_path, **changes))


def test_fewer_samples_are_part_of_more(root: Path, tmp_path: Path) -> None:
    found = []
    for count in (2, 5):
        tuning = sugar.prepare(sugar_config(root, tmp_path, data__samples=count, discriminative__weight=0))
        found.append({sample.id for source in tuning.data.sources for sample in source.samples})
    assert [len(one) for one in found] == [2, 5]
    assert found[0] < found[1]


def test_a_dry_run_counts_updates_answers_and_slices(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "MOST_PICTURES", 4)
    settings = sugar_config(
        root,
        tmp_path / "run",
        training={"epochs": 3, "batch_size": 4},
        evaluation={"asked": {"task": "questions", "path": str(root / "asked.jsonl")}},
        rag={"own": {"knowledge": str(root / "known.jsonl"), "counts": [1, 3]}},
    )
    found = estimate(settings)
    # Two questions, asked of the model before and after, and with one and three entries looked up.
    assert (found.pictures, found.updates, found.encoded) == (5, 3 * 2, 2 * 4)
    contents = {one.content for one in sugar.prepare(settings).data.slices}
    assert found.further["labels"]["count"] == len(contents)
    assert not (tmp_path / "run").exists()
