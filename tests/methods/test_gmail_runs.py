"""Whole alignments: what stays as it was, what comes out, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paired_runs import Pairs, align, config, named, pixels
from small_runs import metrics, same
from torch.nn.functional import normalize

from gen2real import methods
from gen2real.evaluation import bootstrap_interval, modality_gap, paired_bootstrap, retrieval_metrics
from gen2real.evaluation.features import encode_pictures
from gen2real.files import read_tensors
from gen2real.imagesets import ImageSet, Pictures
from gen2real.methods.gmail import algorithm as gmail
from gen2real.methods.measured import Measured
from gen2real.models import load_aligned, load_dual_encoder
from gen2real.training.trainer import Trainer


@pytest.fixture(scope="module")
def aligned(pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Enough updates to learn the pairs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN2REAL_CACHE", str(pairs.cache))
        folder = tmp_path_factory.mktemp("gmail") / "run"
        return align(pairs, folder, training__steps=40, lora__rank=8, optimizer__lr=3e-2, text__tower="frozen")


def test_the_identity_control(pairs: Pairs, aligned: Measured) -> None:
    """f_r and a frozen text tower: nothing can differ from the original, and nothing does."""
    measures = aligned.measures("baseline")
    assert "top1" in measures
    assert "image_to_text_recall@1" in measures
    for measure in measures:
        assert np.array_equal(aligned.values("f_r", measure), aligned.values("baseline", measure)), measure
    original, loaded = load_dual_encoder(pairs.clip), load_aligned(aligned.folder)
    assert same(loaded.encoder.state_dict(), original.state_dict())
    pictures = Pictures(ImageSet.read(pairs.evaluation), original.preprocess)
    assert torch.equal(encode_pictures(loaded.tower("f_r"), pictures), encode_pictures(original.vision, pictures))
    assert not torch.equal(encode_pictures(loaded.tower("f_g"), pictures), encode_pictures(original.vision, pictures))


def test_alignment_brings_partners_together(aligned: Measured) -> None:
    told = aligned.summary["alignment"]
    before, after = told["before"], told["after"]
    assert after["true_cosine"]["mean"] > before["true_cosine"]["mean"]
    assert told["rise"]["difference"] > 0, "more than pictures that do not belong together"
    assert told["pairs"] == 4
    losses = [row["align"] for row in metrics(aligned.folder)]
    assert losses[-1] < 0.7 * losses[0]


def test_held_out_pairs_are_told_of_as_plain_code_does(pairs: Pairs, aligned: Measured) -> None:
    data = gmail.prepare(config(pairs, aligned.folder, training__steps=40)).data
    assert data.held_out is not None
    partners = torch.from_numpy(data.held_out.partners)
    loaded, told = load_aligned(aligned.folder), aligned.summary["alignment"]
    real = encode_pictures(loaded.tower("f_r"), data.held_out.real)
    sides = {"before": loaded.tower("f_r"), "after": loaded.tower("f_g")}
    generated = {name: encode_pictures(tower, data.held_out.generated) for name, tower in sides.items()}
    for name, own in generated.items():
        cosines = (normalize(own, dim=1) @ normalize(real, dim=1).T).double()
        true, shuffled = (cosines[torch.arange(len(own)), rows] for rows in (partners, (partners + 1) % len(real)))
        assert told[name]["true_cosine"] == pytest.approx(bootstrap_interval(true).to_json(), abs=1e-6)
        assert told[name]["shuffled_cosine"] == pytest.approx(bootstrap_interval(shuffled).to_json(), abs=1e-6)
        assert told[name]["modality_gap"] == pytest.approx(modality_gap(own, real).distance)
        found = (cosines.argmax(dim=1) == partners).double().mean()
        assert told[name]["partner_recall@1"]["mean"] == float(found)
    rises = [
        cosine["after"] - cosine["before"]
        for cosine in (
            {name: torch.cosine_similarity(own, real[rows]).double() for name, own in generated.items()}
            for rows in (partners, (partners + 1) % len(real))
        )
    ]
    assert told["rise"]["difference"] == pytest.approx(paired_bootstrap(*rises).difference, abs=1e-6)
    plane = aligned.plane()
    assert {"generated.zero_shot", "real.zero_shot", "generated.tuned", "real.tuned"} <= set(plane)
    assert torch.equal(plane["real.zero_shot"], plane["real.tuned"]), "f_r is never trained"
    ids = {"generated": data.held_out.generated.image_set.ids, "real": data.held_out.real.image_set.ids}
    for example in told["examples"]:
        place = ids["generated"].index(example["generated"])
        assert example["real"] == ids["real"][int(partners[place])]
        found = retrieval_metrics(generated["after"][[place]], real, torch.tensor([[0, int(partners[place])]]))
        assert (found.image_to_text.ranks[0] == 1) == (example["found"] == example["real"])


@pytest.mark.parametrize(("train_on", "origins"), [("real", ["real"]), ("mixed", ["generated", "real"])])
def test_real_pictures_through_f_g_are_their_own_partners(
    pairs: Pairs, folder: Path, train_on: str, origins: list[str]
) -> None:
    result = align(pairs, folder, data__train_on=train_on, training__steps=1)
    data = gmail.prepare(config(pairs, folder, data__train_on=train_on)).data
    assert [source.pictures.image_set.table["origin"][0].as_py() for source in data.sources] == origins
    own = data.sources[-1]
    assert data.real is not None
    assert [data.real.image_set.ids[row] for row in own.partners] == own.pictures.image_set.ids
    generated = 16 if train_on == "mixed" else 0
    assert result.summary["pictures"] == {"generated": generated, "real": 8, "held_out": 4, "evaluation": 8}


def test_a_tuned_text_tower_changes_what_f_r_finds(pairs: Pairs, aligned: Measured, folder: Path) -> None:
    result = align(pairs, folder, loss="align+text", text__tower="lora", real_projection=True)
    original, loaded = load_dual_encoder(pairs.clip), load_aligned(folder)
    assert same(loaded.encoder.vision.state_dict(), original.vision.state_dict())
    assert loaded.encoder.logit_scale == original.logit_scale
    changed = loaded.encoder.state_dict()
    different = {name for name, value in original.state_dict().items() if not torch.equal(value, changed[name])}
    assert different
    assert all(name.startswith("text.") and "_proj." in name for name in different)
    assert loaded.real_projection is not None
    assert not torch.equal(loaded.real_projection, torch.eye(20))
    assert list(result.readings) == ["baseline", "f_r", "f_g", "projection"]
    assert result.headline == "projection"
    # The baseline is measured with the text tower as it was.
    for measure in aligned.measures("baseline"):
        assert np.array_equal(aligned.values("baseline", measure), result.values("baseline", measure))


@pytest.mark.parametrize("encoder", ["siglip", "paired_runs:towers"])
def test_siglip_and_towers_of_the_users_own(pairs: Pairs, folder: Path, encoder: str) -> None:
    name = named(pairs, encoder)
    result = align(pairs, folder, encoder__name=name, loss="align+text", text__tower="lora")
    loaded, original = load_aligned(folder), load_dual_encoder(name)
    assert result.headline == "f_r"
    assert same(loaded.encoder.vision.state_dict(), original.vision.state_dict())
    assert loaded.shift
    assert not same(loaded.encoder.text.state_dict(), original.text.state_dict())


def test_full_tuning_keeps_its_batch_norm(pairs: Pairs, folder: Path) -> None:
    align(pairs, folder, encoder__name="paired_runs:towers", tune="full")
    loaded = load_aligned(folder)
    assert set(loaded.shift) == {name for name, _ in loaded.encoder.vision.named_parameters()}


def test_another_run_goes_on_from_an_aligned_one(pairs: Pairs, aligned: Measured, folder: Path) -> None:
    start = {"encoder__name": None, "encoder__init": str(aligned.folder)}
    before = load_aligned(aligned.folder)
    alignment = gmail.prepare(config(pairs, folder, **start))
    x = pixels(alignment)
    with torch.no_grad():
        torch.testing.assert_close(alignment.generated.eval()(x), before.tower("f_g")(x), rtol=0, atol=1e-5)
    result = align(pairs, folder, **start)
    after = load_aligned(folder)
    assert set(after.shift) == set(before.shift)
    assert not same(after.shift, before.shift)
    assert result.summary["encoder"] == str(aligned.folder)
    was = aligned.summary["alignment"]["after"]["true_cosine"]["mean"]
    assert result.summary["alignment"]["before"]["true_cosine"]["mean"] == pytest.approx(was, abs=1e-6)


def test_long_captions_are_measured_by_themselves(pairs: Pairs, folder: Path) -> None:
    changes = {"loss": "align+text", "data__captions": "longest", "text__tower": "lora", "text__long": {"keep": 4}}
    result = align(pairs, folder, **changes)
    measures = result.measures("f_r")
    assert {"long_image_to_text_recall@1", "image_to_text_recall@1", "long_text_to_image_recall@5"} <= set(measures)
    assert result.readings["f_r"]["details"]["long_retrieval"]["image_to_text"]["gallery"] == 8
    assert load_dual_encoder(folder).context_length == 4 + 4 * 28  # type: ignore[attr-defined]
    stretched = gmail.prepare(config(pairs, folder, **changes)).encoder.text.state_dict()
    trained = load_dual_encoder(folder).text.state_dict()
    position = "text_model.embeddings.position_embedding.weight"
    assert not torch.equal(stretched[position], trained[position]), "positions that were never seen are trained too"


def test_the_control_learns_from_the_same_pictures(pairs: Pairs, folder: Path) -> None:
    control = gmail.prepare(config(pairs, folder, loss="text")).data
    whole = gmail.prepare(config(pairs, folder, loss="align")).data
    assert [one.pictures.image_set.ids for one in control.sources] == [
        one.pictures.image_set.ids for one in whole.sources
    ]
    result = align(pairs, folder, loss="text", data__real=None, data__evaluation=None)
    assert result.summary["alignment"] == {}
    assert result.summary["pictures"] == {"generated": 22, "real": 0, "held_out": 0, "evaluation": 0}
    assert result.measures(result.headline) == []


def test_unlabelled_test_pictures_make_a_transductive_reading(pairs: Pairs, folder: Path) -> None:
    result = align(pairs, folder, loss="distribution", data__real=str(pairs.evaluation))
    assert result.summary["transductive"] is True
    assert list(result.readings) == ["baseline", "transductive_f_r", "transductive_f_g"]
    assert result.headline == "transductive_f_g"
    # Nobody's partner is there, so there is a gap and no pairs.
    assert set(result.summary["alignment"]["after"]) == {"modality_gap"}


class Cut(Exception):
    """Stands for whatever ends a process."""


def test_a_run_that_was_cut_ends_with_the_same_bits(
    pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {
        "loss": "align+text", "text__tower": "lora", "real_projection": True, "lora__dropout": 0.3,
        "data__train_on": "mixed", "training__steps": 6, "training__accumulation": 2,
    }  # fmt: skip
    whole = align(pairs, tmp_path / "whole", **changes)
    update = Trainer._update

    def cut(self: Trainer[Any], number: int, parts: Any) -> dict[str, float]:
        if number == 3:
            raise Cut
        return update(self, number, parts)

    monkeypatch.setattr(Trainer, "_update", cut)
    with pytest.raises(Cut):
        align(pairs, tmp_path / "cut", **changes)
    monkeypatch.setattr(Trainer, "_update", update)
    resumed = align(pairs, tmp_path / "cut", **changes)
    assert resumed.summary["readings"] == whole.summary["readings"]
    for name in ("model/model", "model/generated/adapter_model", "model/real_projection", "values", "map"):
        one, other = (read_tensors(tmp_path / run / f"{name}.safetensors") for run in ("whole", "cut"))
        assert same(one, other), name
    again = methods.run(config(pairs, tmp_path / "cut", **changes), quiet=True)
    assert again.summary == resumed.summary


def test_the_model_card_says_what_was_found(aligned: Measured) -> None:
    card = (aligned.folder / "model" / "README.md").read_text()
    assert "f_g" in card
    assert "R@1" in card
    made_by = json.loads((aligned.folder / "model" / "gen2real.json").read_text())["made_by"]
    assert made_by["recipe"]["method"] == "gmail"
    assert set(made_by["data"]) == {"trained on", "real partners", "measured on"}
