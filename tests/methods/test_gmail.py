"""GMAIL up to the result: where the towers start, which pictures there are, what a step computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from paired_runs import Pairs, config, named, pixels
from torch import Tensor
from torch.nn.functional import normalize

from gen2real.errors import Gen2RealError, RecipeError
from gen2real.evaluation.features import encode_pictures
from gen2real.imagesets import Pictures
from gen2real.losses import (
    distribution_alignment,
    from_principal_components,
    image_text_contrastive,
    modality_alignment,
)
from gen2real.methods.gmail import algorithm as gmail
from gen2real.methods.gmail.data import AlignmentBatches
from gen2real.models import load_dual_encoder
from gen2real.training.run_folder import RunFolder

ENCODERS = ("clip", "siglip", "paired_runs:towers")


@pytest.mark.parametrize("tune", ["lora", "full"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_at_step_0_the_towers_are_one_to_the_digit(pairs: Pairs, folder: Path, encoder: str, tune: str) -> None:
    alignment = gmail.prepare(
        config(pairs, folder, encoder__name=named(pairs, encoder), tune=tune, real_projection=True)
    )
    x = pixels(alignment)
    # A matrix product folds its operands, or not, after whether one of them wants a gradient: another last bit.
    alignment.generated.eval().requires_grad_(False)
    original = load_dual_encoder(named(pairs, encoder)).requires_grad_(False)
    with torch.no_grad():
        real = alignment.encoder.encode_image(x)
        assert torch.equal(alignment.generated(x), real)
        assert torch.equal(alignment.finished().tower("f_g")(x), real)
        assert torch.equal(alignment.finished().tower("projection")(x), real)
        assert torch.equal(original.encode_image(x), real)


def test_what_is_trained_is_what_the_recipe_says(pairs: Pairs, folder: Path) -> None:
    def trained(**changes: Any) -> set[str]:
        branches = gmail.prepare(config(pairs, folder, **changes))._branches
        return {name for name, parameter in branches.named_parameters() if parameter.requires_grad}

    lora = trained()
    assert len(lora) == 2 * 4 * 2  # A and B of q, k, v and o in two layers
    assert all(".lora_" in name and name.startswith("generated.") for name in lora)
    both = trained(loss="align+text", text__tower="lora", real_projection=True) - lora
    assert {name.split(".")[0] for name in both} == {"encoder", "projection"}
    assert all(".lora_" in name and name.startswith("encoder.text.") for name in both - {"projection.weight"})
    full = trained(tune="full")
    assert {f"generated.{name}" for name, _ in load_dual_encoder(pairs.clip).vision.named_parameters()} == full


class Batch:
    """The first batch of a run, and what plain encoders say of it."""

    def __init__(self, pairs: Pairs, folder: Path, **changes: Any) -> None:
        self.config = config(pairs, folder, **changes)
        self.alignment = gmail.prepare(self.config)
        data = self.alignment.data
        sampler = data.sampler(self.config.training.batch_size, 0)
        ((self.part,),) = AlignmentBatches(data, sampler, self.config)(range(1))
        self.loss = self.alignment._loss()
        self.terms = self.loss({"branches": self.alignment._branches.eval()}, self.part)
        encoder = load_dual_encoder(pairs.clip)
        assert data.real is not None
        with torch.no_grad():
            self.image = encoder.encode_image(data.preprocess.normalize(self.part.pixels))
            self.real = encode_pictures(encoder.vision, data.real)[self.part.partners]
            self.texts = [data.texts.listed[number] for number in self.part.texts if number >= 0]
            self.text = encoder.encode_text(self.texts)
            self.scale = float(encoder.logit_scale.exp())


def test_equation_1_of_a_batch(pairs: Pairs, folder: Path) -> None:
    batch = Batch(pairs, folder)
    assert set(batch.terms) == {"loss", "align"}
    torch.testing.assert_close(batch.terms["align"], modality_alignment(batch.image, batch.real, 0.07))
    assert batch.terms["loss"] == batch.terms["align"]


def test_each_options_loss(pairs: Pairs, folder: Path) -> None:
    batch = Batch(
        pairs, folder, loss="align+text", align__temperature=0.2, align__symmetric=True, align__weight=0.5,
        align__same_partner="positives", text__weight=2.0, real_projection=True, training__batch_size=16,
    )  # fmt: skip
    groups = batch.part.partners
    expected = modality_alignment(batch.image, batch.real, 0.2, symmetric=True, groups=groups)
    torch.testing.assert_close(batch.terms["align"], expected)
    text = image_text_contrastive(batch.image, batch.text, batch.scale, groups=groups)
    torch.testing.assert_close(batch.terms["text"], text)
    real = image_text_contrastive(batch.real, batch.text, batch.scale, groups=groups)
    torch.testing.assert_close(batch.terms["real_text"], real)
    torch.testing.assert_close(batch.terms["loss"], 0.5 * expected + 2 * text + 2 * real)
    masked = Batch(pairs, folder, align__same_partner="masked", training__batch_size=16)
    expected = modality_alignment(masked.image, masked.real, groups=groups, same_partner="masked")
    torch.testing.assert_close(masked.terms["align"], expected)
    assert expected < modality_alignment(masked.image, masked.real), "two of each partner are in the batch"


def test_moments_go_beside_equation_1(pairs: Pairs, folder: Path) -> None:
    batch = Batch(pairs, folder, align__moments=3.0, align__weight=0.5)
    moments = distribution_alignment(batch.image, batch.real)
    torch.testing.assert_close(batch.terms["moments"], moments)
    expected = 0.5 * modality_alignment(batch.image, batch.real) + 3 * moments
    torch.testing.assert_close(batch.terms["loss"], expected)
    assert "moments" not in Batch(pairs, folder, loss="text", align__moments=3.0).terms, "the control has neither"
    assert "moments" not in Batch(pairs, folder, loss="distribution", align__moments=3.0).terms, "it has its own"


def test_no_batch_is_too_small_to_tell_pairs_apart(pairs: Pairs, folder: Path) -> None:
    data = gmail.prepare(config(pairs, folder)).data
    count = sum(map(len, data.sources))
    assert data.sampler(count - 1, 0).steps_per_epoch == 1, (
        "the one picture that is left over has nothing to be told from"
    )
    assert data.sampler(count, 0).steps_per_epoch == data.sampler(count + 1, 0).steps_per_epoch == 1


def test_texts_are_the_pictures_own_else_their_partners(pairs: Pairs, folder: Path) -> None:
    assert all(text.startswith("drawn ") for text in Batch(pairs, folder, loss="text").texts)
    longest = Batch(pairs, folder, loss="text", data__captions="longest").texts
    assert all(text.endswith("square. It is quite plain") for text in longest)


@pytest.mark.parametrize("form", ["moments", "mmd"])
def test_distributions_are_aligned_without_pairs(pairs: Pairs, folder: Path, form: str) -> None:
    batch = Batch(pairs, folder, loss="distribution", align__form=form)
    expected = distribution_alignment(batch.image, batch.real, form=form)  # type: ignore[arg-type]
    torch.testing.assert_close(batch.terms["align"], expected)
    own = batch.alignment.data.sources[0].partners
    drawn = batch.alignment.data.sampler(6, 0).batch(0)
    assert batch.part.partners.tolist() != [int(own[row]) for _, row in drawn], "real pictures are drawn by themselves"


def test_long_texts_have_a_fine_and_a_coarse_term(pairs: Pairs, folder: Path) -> None:
    long = {"keep": 4, "factor": 3, "components": 2, "coarse_weight": 0.5}
    batch = Batch(pairs, folder, loss="text", data__captions="longest", text__long=long)
    encoder = batch.alignment.encoder
    assert encoder.context_length == 4 + 3 * (32 - 4)
    with torch.no_grad():
        first = [text.split(". ")[0] + "." for text in batch.texts]
        fine, coarse = (encoder.encode_text(texts) for texts in (batch.texts, first))
    torch.testing.assert_close(batch.terms["text"], image_text_contrastive(batch.image, fine, batch.scale))
    coarsened = from_principal_components(normalize(batch.image, dim=1), 2)
    expected = image_text_contrastive(coarsened, coarse, batch.scale)
    torch.testing.assert_close(batch.terms["coarse_text"], expected)
    torch.testing.assert_close(batch.terms["loss"], batch.terms["text"] + 0.5 * expected)


def test_a_step_runs_one_tower_and_decodes_one_side(
    pairs: Pairs, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alignment = gmail.prepare(config(pairs, folder, loss="align+text"))
    alignment._loss()  # targets and texts are encoded here, once
    calls: list[str] = []
    alignment.encoder.vision.register_forward_pre_hook(lambda *_: calls.append("f_r"))
    alignment.encoder.text.register_forward_pre_hook(lambda *_: calls.append("h"))
    alignment.generated.register_forward_pre_hook(lambda *_: calls.append("f_g"))
    decoded: list[str] = []
    square = Pictures._canvas

    def watched(self: Pictures, index: int) -> Tensor:
        decoded.append(self.image_set.table["origin"][index].as_py())
        return square(self, index)

    monkeypatch.setattr(Pictures, "_canvas", watched)
    monkeypatch.setattr(Pictures, "_square", lambda *_: pytest.fail("a picture in evaluation geometry was decoded"))
    alignment.train(RunFolder(folder, alignment._config), quiet=True)
    assert calls == ["f_g"] * 3
    assert set(decoded) == {"generated"}


def test_no_partner_is_on_both_sides(pairs: Pairs, folder: Path) -> None:
    data = gmail.prepare(config(pairs, folder, data__train_on="mixed")).data
    assert data.held_out is not None
    assert data.real is not None
    held = set(data.held_out.real.image_set.ids)
    trained = {data.real.image_set.ids[row] for source in data.sources for row in source.partners}
    assert len(held) == 2
    assert len(trained) == 8
    assert not held & trained
    drawn = data.sources[0].pictures.image_set
    assert {row["pair_id"] for row in drawn.rows()} == trained
    assert {row["pair_id"] for row in data.held_out.generated.image_set.rows()} == held
    assert data.unmatched == 2


def test_fewer_pictures_are_among_more(pairs: Pairs, folder: Path) -> None:
    def ids(count: int | None, **more: Any) -> set[str]:
        data = gmail.prepare(config(pairs, folder, data__pictures=count, **more)).data
        return {row_id for source in data.sources for row_id in source.pictures.image_set.ids}

    sizes = [ids(count) for count in (3, 7, 16)]
    assert [len(one) for one in sizes] == [3, 7, 16]
    assert sizes[0] < sizes[1] < sizes[2] == ids(None)
    assert ids(7, seed=1) != sizes[1]


def test_pictures_that_are_tested_on_are_not_trained_on(pairs: Pairs, folder: Path) -> None:
    with pytest.raises(Gen2RealError, match=r"10 picture\(s\) of .* are also in the evaluation set"):
        gmail.prepare(config(pairs, folder, data__evaluation=str(pairs.real), data__holdout=0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data__generated": []}, "at least one image set, whose pictures name their real partners"),
        ({"data__real": None}, "loss: align needs real pictures; set data.real=MY-PHOTOS"),
        ({"loss": "text", "data__real": None, "real_projection": True}, "real_projection needs real pictures"),
        ({"loss": "text", "data__real": None, "align__same_partner": "masked"}, "same_partner is about real partners"),
        ({"data__real": None, "loss": "text", "data__train_on": "mixed"}, "train_on: mixed needs real pictures"),
        ({"text__tower": "lora"}, "loss: align has no text; set loss=align\\+text"),
        ({"text__long": {}}, "text.long is about texts, and loss: align has none"),
        ({"text__long": {}, "loss": "text"}, "set data.captions=longest"),
        ({"loss": "distribution", "real_projection": True}, "draws real pictures that belong to no text"),
        ({"inference": "projection"}, "inference: projection needs one; set real_projection=true"),
        ({"schedule__name": "cosine", "schedule__restart_steps": 5}, "restart_steps belongs to name: cosine_restarts"),
    ],
)
def test_settings_that_do_not_fit_say_what_would(
    pairs: Pairs, folder: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        config(pairs, folder, **changes)


def test_sets_that_do_not_fit_say_what_to_type(pairs: Pairs, folder: Path) -> None:
    with pytest.raises(RecipeError, match="not of origin 'generated'"):
        gmail.prepare(config(pairs, folder, data__generated=[str(pairs.real)]))
    towers = config(
        pairs, folder, encoder__name="paired_runs:towers_with_a_function", loss="align+text", text__tower="lora"
    )
    with pytest.raises(RecipeError, match="a function without weights"):
        gmail.prepare(towers)
