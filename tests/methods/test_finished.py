"""Finished models: measured, blended, and the gap between two sets in an encoder's eyes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import TEMPLATES, World, run

from gen2real.errors import ImageSetError, ModelError, UnreadablePictures
from gen2real.evaluation.gap import measure_gap
from gen2real.evaluation.retrieval import retrieval_metrics
from gen2real.files import read_json, read_tensors
from gen2real.imagesets import ImageSet
from gen2real.imagesets.loading import Pictures
from gen2real.methods.finished import (
    blend_models,
    evaluate_model,
    evaluate_retrieval,
    gap_between,
    open_classifier,
    task_of,
)
from gen2real.methods.result import Result
from gen2real.models.dual_encoder import load_dual_encoder
from gen2real.models.folder import load_classifier, save_classifier
from tiny import tiny_clip, tiny_siglip
from tiny_sets import COLOURS, colour_set


@dataclass(frozen=True)
class Tuned:
    """A run whose model folder is the tuned end (alpha 1)."""

    result: Result

    @property
    def model(self) -> Path:
        return self.result.folder / "model"


@pytest.fixture(scope="module")
def tuned(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuned]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN2REAL_CACHE", str(world.cache))
        yield Tuned(run(world, tmp_path_factory.mktemp("finished") / "run", ensemble__alpha=1.0, seed=5))


def real(world: World) -> ImageSet:
    return ImageSet.read(world.real)


def pixels_of(one: ImageSet, encoder: Any) -> torch.Tensor:
    return encoder.preprocess.normalize(Pictures(one, encoder.preprocess).evaluation(range(len(one))))


def test_a_model_folder_measures_as_the_run_did(world: World, tuned: Tuned) -> None:
    found = evaluate_model(tuned.model, real(world))
    stored = dict(tuned.result.readings["tuned"]["real"])
    assert found.to_json() == {**stored, **{key: pytest.approx(value) for key, value in stored.items() if key in (
        "calibration_error", "negative_log_likelihood"
    )}}  # fmt: skip
    assert np.array_equal(found.correct.numpy(), tuned.result.correct("tuned"))


def test_a_dual_encoder_is_measured_zero_shot(world: World, tuned: Tuned) -> None:
    found = evaluate_model(str(world.clip), real(world), templates=TEMPLATES)
    assert np.array_equal(found.correct.numpy(), tuned.result.correct("zero_shot"))
    # By hand, with the default templates.
    encoder = load_dual_encoder(world.clip)
    texts = encoder.encode_text([f"a photo of a {name}." for name in COLOURS])
    pictures = torch.nn.functional.normalize(encoder.encode_image(pixels_of(real(world), encoder)), dim=1)
    answers = (pictures @ torch.nn.functional.normalize(texts, dim=1).T).argmax(dim=1)
    assert torch.equal(evaluate_model(str(world.clip), real(world)).predicted, answers)


def test_prompts_may_come_from_a_file(world: World, tmp_path: Path) -> None:
    written = tmp_path / "cupl.json"
    quoted = ", ".join(f'"{name}": ["{other}"]' for name, other in zip(COLOURS, reversed(COLOURS), strict=True))
    written.write_text(f"{{{quoted}}}")
    plain = open_classifier(world.clip, list(COLOURS), templates=["{}"]).classifier.head.weight
    swapped = open_classifier(world.clip, list(COLOURS), file=written).classifier.head.weight
    torch.testing.assert_close(swapped, plain.flip(0))


def test_prompts_of_a_model_with_a_head_are_refused(world: World, tuned: Tuned) -> None:
    with pytest.raises(ModelError, match="a head of its own; templates and prompts are for zero-shot"):
        evaluate_model(tuned.model, real(world), templates="simple")


def test_a_set_of_some_of_the_classes_is_measured_in_the_models_order(
    world: World, tuned: Tuned, tmp_path: Path
) -> None:
    some = colour_set(tmp_path / "some", origin="real", names=("blue", "red"), per_class=2)
    found = evaluate_model(tuned.model, some)
    assert [one.count for one in found.per_class] == [2, 0, 2, 0]
    assert [one.name for one in found.per_class] == list(COLOURS)


def test_a_class_the_model_does_not_know_is_named(world: World, tmp_path: Path, tuned: Tuned) -> None:
    encoder = load_dual_encoder(world.clip)
    two = open_classifier(world.clip, ["red", "green"], templates="simple")
    save_classifier(tmp_path / "two", encoder, two.classifier, two.class_names, made_by={})
    with pytest.raises(ImageSetError, match=r"(?s)2 class\(es\).*'blue'"):
        evaluate_model(tmp_path / "two", real(world))


def test_what_curation_left_out_is_not_measured(world: World, tuned: Tuned, tmp_path: Path) -> None:
    whole = real(world)
    rows = [{**row, "path": str(path)} for row, path in zip(whole.table.to_pylist(), whole.paths, strict=True)]
    some = ImageSet.write(
        tmp_path / "some", [{**row, "kept": place < 3} for place, row in enumerate(rows)], whole.classes
    )
    assert evaluate_model(tuned.model, some).count == 3
    none = ImageSet.write(tmp_path / "none", [{**row, "kept": False} for row in rows], whole.classes)
    with pytest.raises(ImageSetError, match="no pictures that are kept"):
        evaluate_model(tuned.model, none)


def test_unreadable_pictures_stop_it_or_are_left_out(world: World, tuned: Tuned, tmp_path: Path) -> None:
    torn = colour_set(tmp_path / "torn", origin="real", per_class=2)
    torn.paths[0].write_bytes(b"no picture")
    with pytest.raises(UnreadablePictures, match=r"--on-unreadable skip; for a recipe --set data\.on_unreadable=skip"):
        evaluate_model(tuned.model, torn)
    with pytest.warns(UserWarning, match="1 of 8 picture"):
        assert evaluate_model(tuned.model, torn, on_unreadable="skip").count == 7


def captioned(root: Path, world: World, captions: list[list[str]], **changes: Any) -> ImageSet:
    """The first pictures of the real set, under other captions and without labels."""
    rows = [
        {"id": str(place), "path": str(real(world).paths[place]), "captions": own, "kept": True}
        for place, own in enumerate(captions)
    ]
    return ImageSet.write(root, [{**row, **changes} for row in rows], [])


def test_retrieval_by_a_dual_encoder(world: World, tmp_path: Path) -> None:
    captions = [["red", "a rose"], ["RED "], ["green"], ["blue", "the sea", "the sky"]]
    found = evaluate_retrieval(str(world.clip), captioned(tmp_path, world, captions))
    encoder = load_dual_encoder(world.clip)
    image = encoder.encode_image(pixels_of(real(world).select(range(4)), encoder)).detach().numpy()
    text = encoder.encode_text(["red", "a rose", "green", "blue", "the sea", "the sky"]).detach().numpy()
    scores = (image / np.linalg.norm(image, axis=1)[:, None]) @ (text / np.linalg.norm(text, axis=1)[:, None]).T
    own = [[0, 1], [0], [2], [3, 4, 5]]
    ranks = [1 + sum(row > row[mine].max()) for row, mine in zip(scores, own, strict=True)]
    assert found.image_to_text.ranks.tolist() == ranks
    of = [[0, 1], [0], [2], [3], [3], [3]]
    ranks = [1 + sum(column > column[mine].max()) for column, mine in zip(scores.T, of, strict=True)]
    assert found.text_to_image.ranks.tolist() == ranks


def test_retrieval_by_a_tuned_model_uses_its_image_tower(world: World, tuned: Tuned) -> None:
    found = evaluate_retrieval(tuned.model, real(world))
    encoder = load_classifier(tuned.model).encoder
    image = encoder.encode_image(pixels_of(real(world), encoder)).detach()
    text = encoder.encode_text([f"a {name} square" for name in COLOURS]).detach()
    by_hand = retrieval_metrics(image, text, torch.stack([torch.arange(16), torch.arange(4).repeat_interleave(4)], 1))
    assert found.to_json() == by_hand.to_json()
    assert (found.image_to_text.gallery, found.text_to_image.gallery) == (4, 16)


def test_pictures_without_captions_are_left_out(world: World, tmp_path: Path) -> None:
    some = captioned(tmp_path / "some", world, [["red"], [], ["green"], [" "], ["blue"]])
    with pytest.warns(UserWarning, match=r"2 of 5 picture\(s\) have no caption"):
        assert evaluate_retrieval(world.clip, some).text_to_image.gallery == 3
    with pytest.raises(ImageSetError, match="has no captions on its 2 kept"):
        evaluate_retrieval(world.clip, captioned(tmp_path / "none", world, [[], []]))
    with pytest.raises(ImageSetError, match="has no captions on its 0 kept"):
        evaluate_retrieval(world.clip, captioned(tmp_path / "left out", world, [["red"]], kept=False))


def test_what_a_set_is_measured_by(world: World, tmp_path: Path) -> None:
    assert task_of(real(world)) == "classification"
    assert task_of(captioned(tmp_path / "captions", world, [["red"], []])) == "retrieval"
    assert task_of(captioned(tmp_path / "nothing", world, [[], []])) == "classification"


def ends(world: World, tuned: Tuned) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    encoder = load_dual_encoder(world.clip)
    start = open_classifier(world.clip, list(COLOURS), templates=TEMPLATES).classifier.state_dict()
    assert encoder.embedding_dim == start["head.weight"].shape[1]
    return start, load_classifier(tuned.model).classifier.state_dict()


def test_a_blend_lies_between_the_encoder_and_the_tuned_model(world: World, tuned: Tuned, tmp_path: Path) -> None:
    start, end = ends(world, tuned)
    made = blend_models(str(world.clip), tuned.model, tmp_path / "blend", alpha=0.25)
    found = load_classifier(made.folder)
    for name, value in found.classifier.state_dict().items():
        torch.testing.assert_close(value, start[name] + 0.25 * (end[name] - start[name]))
    made_by = read_json(made.folder / "gen2real.json")["made_by"]
    assert made_by["blend"] == {"original": str(world.clip), "tuned": str(tuned.model), "alpha": 0.25}
    assert made_by["recipe"]["seed"] == 5


def test_alpha_one_is_the_tuned_model_bit_for_bit(world: World, tuned: Tuned, tmp_path: Path) -> None:
    blend_models(str(world.clip), tuned.model, tmp_path / "blend", alpha=1)
    for name in ("model.safetensors", "head.safetensors"):
        stored, made = read_tensors(tuned.model / name), read_tensors(tmp_path / "blend" / name)
        assert stored.keys() == made.keys()
        assert all(torch.equal(stored[key], made[key]) for key in stored)


def test_a_sweep_is_shown_and_not_chosen_from(world: World, tuned: Tuned, tmp_path: Path) -> None:
    sweep = (0.0, 0.3, 1.0)
    made = blend_models(
        str(world.clip), tuned.model, tmp_path / "blend", alpha=0.5, evaluation=real(world), sweep=sweep
    )
    assert [alpha for alpha, _ in made.sweep] == list(sweep)
    for (_, found), reading in zip(made.sweep, ("zero_shot", "alpha=0.3", "tuned"), strict=True):
        assert np.array_equal(found.correct.numpy(), tuned.result.correct(reading))
    plain = blend_models(str(world.clip), tuned.model, tmp_path / "plain", alpha=0.5, sweep=sweep)
    assert plain.sweep == ()
    one, other = (load_classifier(tmp_path / name).classifier.state_dict() for name in ("blend", "plain"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert set(made.to_json()) == {"version", "folder", "alpha", "sweep"}
    assert made.to_json()["sweep"][1]["alpha"] == 0.3


def test_two_model_folders_blend(world: World, tuned: Tuned, tmp_path: Path) -> None:
    blend_models(str(world.clip), tuned.model, tmp_path / "half", alpha=0.5)
    made = blend_models(tmp_path / "half", tuned.model, tmp_path / "three-quarters", alpha=0.5)
    start, end = ends(world, tuned)
    found = load_classifier(made.folder).classifier.state_dict()
    for name, value in found.items():
        torch.testing.assert_close(value, start[name] + 0.75 * (end[name] - start[name]))


@pytest.mark.parametrize(("alpha", "sweep"), [(1.5, ()), (-0.1, ()), (float("nan"), ()), (0.5, (0.0, 2.0))])
def test_an_alpha_outside_is_refused_before_anything_is_loaded(
    world: World, tmp_path: Path, alpha: float, sweep: tuple[float, ...]
) -> None:
    with pytest.raises(ModelError, match=r"alpha is .*; it lies between 0"):
        blend_models("nowhere", "nowhere", tmp_path / "out", alpha=alpha, evaluation=real(world), sweep=sweep)


def test_models_of_other_classes_do_not_blend(world: World, tuned: Tuned, tmp_path: Path) -> None:
    end = load_classifier(tuned.model)
    names = [*end.class_names[1:], end.class_names[0]]
    save_classifier(tmp_path / "turned", end.encoder, end.classifier, names, made_by={})
    with pytest.raises(ModelError, match="other classes, or the same in another order"):
        blend_models(tmp_path / "turned", tuned.model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_models_of_other_architectures_do_not_blend(world: World, tuned: Tuned, tmp_path: Path) -> None:
    finer = tiny_clip(tmp_path / "finer", image_size=40)
    with pytest.raises(ModelError, match="cannot be blended: the states do not fit each other"):
        blend_models(finer, tuned.model, tmp_path / "out")
    with pytest.raises(ModelError, match="give the encoder that the tuning began from"):
        blend_models(tiny_siglip(tmp_path / "siglip"), tuned.model, tmp_path / "out")
    with pytest.raises(ModelError, match="no classifier's model folder"):
        blend_models(str(world.clip), world.clip, tmp_path / "out")


def test_a_folder_of_something_else_is_not_replaced(world: World, tuned: Tuned, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(ModelError, match="out"):
        blend_models(str(world.clip), tuned.model, tmp_path / "out")
    assert (tmp_path / "out" / "thesis.tex").exists()


def test_the_gap_is_that_of_the_features(world: World) -> None:
    found = gap_between(ImageSet.read(world.generated), real(world), encoder=world.clip)
    encoder = load_dual_encoder(world.clip)
    with torch.no_grad():
        sides = [encoder.encode_image(pixels_of(one, encoder)) for one in (ImageSet.read(world.generated), real(world))]
    labels = [torch.arange(4).repeat_interleave(count).numpy() for count in (6, 4)]
    expected = measure_gap(*sides, generated_labels=labels[0], real_labels=labels[1])
    assert found.frechet.distance == pytest.approx(expected.frechet.distance, rel=1e-3)
    assert found.class_cosine == pytest.approx(expected.class_cosine, rel=1e-4)
    assert [one.cosine for one in found.classes] == pytest.approx([one.cosine for one in expected.classes], rel=1e-4)


def test_classes_of_the_gap_match_by_name(world: World, tmp_path: Path) -> None:
    turned = colour_set(tmp_path / "turned", origin="real", per_class=4, names=tuple(reversed(COLOURS)))
    here = gap_between(ImageSet.read(world.generated), real(world), encoder=world.clip)
    there = gap_between(ImageSet.read(world.generated), turned, encoder=world.clip)
    assert [one.label for one in there.classes] == [one.label for one in here.classes]
    # The same colours with other noise: far closer to their own class than the classes are to each other.
    for one, other in zip(here.classes, there.classes, strict=True):
        assert one.cosine == pytest.approx(other.cosine, abs=0.05)


def test_sets_without_labels_have_a_gap_too(world: World, tmp_path: Path) -> None:
    whole = real(world)
    rows = [{"id": one, "path": str(path), "origin": "real"} for one, path in zip(whole.ids, whole.paths, strict=True)]
    bare = ImageSet.write(tmp_path / "bare", rows, [])
    found = gap_between(ImageSet.read(world.generated), bare, encoder=world.clip)
    assert found.class_cosine is None
    assert found.frechet.distance > 0


def test_the_gap_depends_on_the_eyes(world: World, tmp_path: Path) -> None:
    sets = ImageSet.read(world.generated), real(world)
    other = tiny_clip(tmp_path / "other", seed=9)
    assert gap_between(*sets, encoder=world.clip).to_json() != gap_between(*sets, encoder=other).to_json()
