"""RegFT and FLYP from an aligned encoder: generated pictures through W + ΔW, real ones through W, while W is tuned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import World, config, lora_of, metrics, model_tensors, recipe, run, same
from torch import Tensor, nn

from commands import gen2real_
from gen2real.config import parse_config
from gen2real.errors import ModelError, RecipeError
from gen2real.evaluation.features import FeatureCache, cached_views, encode_pictures
from gen2real.evaluation.gap import measure_gap
from gen2real.files import read_tensors, write_json
from gen2real.imagesets import ImageSet
from gen2real.imagesets.loading import Pictures
from gen2real.methods.classification_data import PictureBatches
from gen2real.methods.finished import evaluate_model
from gen2real.methods.regft import prepare
from gen2real.methods.result import Result, best_answers
from gen2real.methods.settings import EncoderSettings
from gen2real.methods.start import open_encoder, start_of
from gen2real.models import DualEncoder, load_aligned, load_classifier, load_dual_encoder
from gen2real.models.adapters import merge_lora
from gen2real.models.aligned import ShiftedTower, save_aligned, shift_of
from tiny_sets import colour_set


@pytest.fixture(scope="module")
def starts(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One encoder four ways: aligned, aligned in a run's folder, aligned without a difference, and f_g by itself."""
    root = tmp_path_factory.mktemp("starts")
    encoder = load_dual_encoder(world.clip)
    tower = lora_of(encoder)
    save_aligned(root / "aligned", encoder, tower, made_by={})
    save_aligned(root / "run" / "model", encoder, tower, made_by={})
    write_json(root / "run" / "recipe.json", {"method": "gmail"})
    zeros = {name: torch.zeros_like(value) for name, value in shift_of(tower).items()}
    save_aligned(root / "zero", encoder, zeros, made_by={})
    encoder.save(root / "f_g", vision=merge_lora(tower))
    colour_set(root / "shots", origin="real", per_class=3, seed=7)
    return {name: root / name for name in ("aligned", "run", "zero", "f_g", "shots")}


def changes(start: Path, **more: Any) -> dict[str, Any]:
    """A recipe's changes for it to start from an aligned encoder."""
    return {"encoder__name": None, "encoder__init": str(start), **more}


@pytest.mark.parametrize("tune", ["encoder", "lora", "head", "flyp"])
def test_without_a_difference_it_is_the_plain_run(
    world: World, starts: dict[str, Path], tmp_path: Path, tune: str
) -> None:
    method, more = ("flyp", {}) if tune == "flyp" else ("regft", {"tune": tune})
    plain = run(world, tmp_path / "plain", method, **more)
    shifted = run(world, tmp_path / "zero", method, **changes(starts["zero"], **more))
    assert same(shifted.answers, plain.answers)
    assert same(shifted.changed_weights(), plain.changed_weights())
    assert same(model_tensors(shifted.folder), model_tensors(plain.folder))


def test_through_f_r_it_is_the_plain_run_too(world: World, starts: dict[str, Path], tmp_path: Path) -> None:
    plain = run(world, tmp_path / "plain", tune="head")
    other = run(world, tmp_path / "f_r", tune="head", **changes(starts["aligned"], encoder__generated_through="f_r"))
    assert same(other.answers, plain.answers)
    assert same(model_tensors(other.folder), model_tensors(plain.folder))


def test_the_head_learns_from_f_g_and_is_measured_through_f_r(
    world: World, starts: dict[str, Path], tmp_path: Path
) -> None:
    """By an encoder whose own tower is f_g: the same features of generated pictures, so the same head bit for bit."""
    ours = run(world, tmp_path / "ours", tune="head", centering="generated", gap=True, **changes(starts["run"]))
    f_g = run(world, tmp_path / "f_g", tune="head", centering="generated", encoder__name=str(starts["f_g"]))
    heads = [read_tensors(one.folder / "model" / "head.safetensors") for one in (ours, f_g)]
    assert same(*heads)
    for name in ("zero_shot", "tuned", "blend"):
        assert torch.equal(ours.answers[f"generated.{name}"], f_g.answers[f"generated.{name}"])

    loaded = load_classifier(ours.folder)
    clip = load_dual_encoder(world.clip)
    pictures = Pictures(ImageSet.read(world.real), clip.preprocess)
    with torch.no_grad():
        real = encode_pictures(clip.vision, pictures)
        assert torch.equal(real, encode_pictures(loaded.classifier.vision, pictures))
        answers = best_answers(loaded.classifier.classify_features(real))
    assert torch.equal(answers, ours.answers["real.blend"])
    assert evaluate_model(ours.folder, pictures.image_set).to_json() == ours.readings["blend"]["real"]

    held_out = prepare(config(world, tmp_path / "ours")).data.held_out[0].pictures
    generated = encode_pictures(load_dual_encoder(starts["f_g"]).vision, held_out)
    assert ours.summary["gap"]["zero_shot"] == measure_gap(generated, real).to_json()
    assert ours.summary["encoder"] == str(starts["run"])
    assert ours.summary["generated_through"] == "f_g"


@pytest.mark.parametrize("tune", ["encoder", "lora"])
def test_tuning_w_under_a_shift_is_tuning_w_plus_the_shift(
    world: World, starts: dict[str, Path], tmp_path: Path, tune: str
) -> None:
    """Without decay the updates of W do not depend on W but through the loss: the losses are those of W_g tuned."""
    more = {"tune": tune, "optimizer__weight_decay": 0.0, "optimizer__lr": 1e-4}
    ours = run(world, tmp_path / "ours", **changes(starts["aligned"], **more))
    whole = run(world, tmp_path / "whole", encoder__name=str(starts["f_g"]), **more)
    plain = run(world, tmp_path / "plain", **more)
    losses = [[row["loss"] for row in metrics(one.folder)] for one in (ours, whole, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0] != pytest.approx(losses[2], rel=1e-2)
    moved = (moves(ours, load_dual_encoder(world.clip)), moves(whole, load_dual_encoder(starts["f_g"])))
    assert set(moved[0]) == set(moved[1])
    close = sum(int(torch.isclose(moved[0][key], moved[1][key], atol=2e-5).sum()) for key in moved[0])
    assert close > 0.98 * sum(value.numel() for value in moved[0].values())


def moves(result: Result, start: DualEncoder) -> dict[str, Tensor]:
    before = {f"vision.{name}": value for name, value in start.vision.state_dict().items()}
    after = result.changed_weights()
    return {name: value - before[name] for name, value in after.items() if name in before}


def test_shots_go_through_f_r_in_the_same_batch(world: World, starts: dict[str, Path], tmp_path: Path) -> None:
    shots = {"data__real": {"path": str(starts["shots"]), "shots": 2}, "optimizer__lr": 1e-4}
    settings = config(world, tmp_path / "run", **changes(starts["aligned"], **shots))
    tuning = prepare(settings)
    sampler = tuning.data.sampler(8, seed=0)
    batch = next(iter(PictureBatches(tuning.data, sampler, seed=0, parts=1, workers=1)(range(1))))[0]
    assert batch.generated is not None
    assert batch.generated.tolist() == [source == 0 for source, _ in sampler.batch(0)]
    assert 0 < int(batch.generated.sum()) < 8

    # The first loss, by hand: each row by its own encoder, one after the other.
    first = metrics(run(world, tmp_path / "run", **changes(starts["aligned"], **shots)).folder)[0]
    encoders = {True: load_dual_encoder(starts["f_g"]), False: load_dual_encoder(world.clip)}
    pixels, labels, _ = batch.on(torch.device("cpu"), tuning.data.preprocess)
    head = tuning.classifier(tuning.state())
    with torch.no_grad():
        features = torch.cat(
            [encoders[drawn].vision(row[None]) for row, drawn in zip(pixels, batch.generated.tolist(), strict=True)]
        )
        expected = nn.functional.cross_entropy(head.classify_features(features), labels)
    assert first["cross_entropy"] == pytest.approx(float(expected), rel=1e-4)


def test_soft_targets_and_the_zero_shot_spread_see_f_g(world: World, starts: dict[str, Path], tmp_path: Path) -> None:
    more = {"loss__soft_targets": 0.5, "loss__target_std": "zero_shot", "optimizer__weight_decay": 0.0}
    ours, whole = (
        run(world, tmp_path / name, **start, **more)
        for name, start in (("ours", changes(starts["aligned"])), ("whole", {"encoder__name": str(starts["f_g"])}))
    )
    terms = [metrics(one.folder)[0] for one in (ours, whole)]
    for term in ("cross_entropy", "soft_targets", "variance", "covariance"):
        assert terms[0][term] == pytest.approx(terms[1][term], rel=1e-3, abs=1e-6), term


def test_a_greedy_soup_is_chosen_through_f_g(world: World, starts: dict[str, Path], tmp_path: Path) -> None:
    runs = [
        str(run(world, tmp_path / str(seed), tune="head", seed=seed, **changes(starts["aligned"])).folder)
        for seed in (0, 1)
    ]
    soup = run_soup(tmp_path / "soup", runs)
    assert soup.summary["soup"]["chosen"]
    found = [Result.read(Path(one)).readings["tuned"]["generated"]["top1"]["mean"] for one in runs]
    assert soup.readings["tuned"]["generated"]["top1"]["mean"] >= max(found)


def run_soup(folder: Path, runs: list[str]) -> Result:
    from gen2real import methods

    values = {"method": "soup", "output": str(folder), "runs": runs, "kind": "greedy"}
    result = methods.run(parse_config(methods.CONFIGS["soup"], values, source="recipe"))
    assert isinstance(result, Result)
    return result


def test_caches_tell_the_towers_apart(world: World, starts: dict[str, Path], tmp_path: Path) -> None:
    aligned = load_aligned(starts["aligned"])
    pictures = Pictures(ImageSet.read(world.generated), aligned.encoder.preprocess)
    twice = {name: 2 * value for name, value in aligned.shift.items()}
    one_name = {next(iter(twice)): next(iter(aligned.shift.values()))}
    towers = [aligned.tower("f_r"), aligned.tower("f_g")]
    towers += [ShiftedTower(aligned.encoder.vision, other).eval() for other in (twice, one_name)]
    cache = FeatureCache(tmp_path)
    for _ in range(2):
        found = [cached_views(tower, pictures, views=1, seed=0, cache=cache)[0] for tower in towers]
        for place, (features, tower) in enumerate(zip(found, towers, strict=True)):
            assert torch.equal(features, encode_pictures(tower, pictures))
            assert not any(torch.equal(features, other) for other in found[:place])
    assert len(list((tmp_path / "features").iterdir())) == len(towers)


def test_a_run_folder_stands_for_its_model(world: World, starts: dict[str, Path], tmp_path: Path) -> None:
    opened = load_dual_encoder(starts["run"])
    assert opened.fingerprint() == load_dual_encoder(world.clip).fingerprint()
    assert load_aligned(starts["run"]).shift.keys() == load_aligned(starts["aligned"]).shift.keys()
    (tmp_path / "unfinished").mkdir()
    write_json(tmp_path / "unfinished" / "recipe.json", {"method": "gmail"})
    with pytest.raises(ModelError, match="not a model folder"):
        load_dual_encoder(tmp_path / "unfinished")
    with pytest.raises(ModelError, match=r"it has not ended, or was told save_model: false\. Run its recipe again"):
        load_aligned(tmp_path / "unfinished")


def test_an_init_that_is_not_aligned(world: World, starts: dict[str, Path], tmp_path: Path) -> None:
    classifier = run(world, tmp_path / "classifier", tune="head").folder
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe(world, tmp_path / "run", **changes(classifier))))
    done = gen2real_("train", path)
    assert done.code == 2
    assert "is a classifier, not an aligned encoder" in " ".join(done.err.split())
    assert f"encoder.name={classifier / 'model'}" in "".join(done.err.split())
    with pytest.raises(ModelError, match="one image tower for all pictures"):
        open_encoder(EncoderSettings(init=world.clip))
    with pytest.raises(ModelError, match=r"there is no folder .*gen2real train recipes/gmail"):
        open_encoder(EncoderSettings(init=tmp_path / "nowhere"))
    with pytest.raises(ModelError, match="holds no aligned model"):
        open_encoder(EncoderSettings(init=starts["shots"]))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"encoder__name": None}, "give the encoder a name"),
        ({"encoder__init": "somewhere"}, r"give one of them.*--set encoder\.name=null"),
        ({"encoder__generated_through": "f_g"}, "needs a tower of its own for generated pictures"),
        (changes(Path("somewhere"), encoder__revision="main"), "leave revision out"),
        (changes(Path("somewhere"), training__gradient_checkpointing=True), r"encoder\.generated_through=f_r"),
    ],
)
def test_settings_that_do_not_agree(world: World, folder: Path, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        config(world, folder, **wrong)


def test_what_a_start_is(world: World, starts: dict[str, Path]) -> None:
    named, begun = EncoderSettings(name=str(world.clip)), EncoderSettings(init=starts["run"])
    assert (named.generated_branch, begun.generated_branch) == ("f_r", "f_g")
    assert (named.source, begun.source) == (str(world.clip), str(starts["run"]))
    assert start_of(named)[1] == {}
    assert start_of(begun)[1].keys() == load_aligned(starts["aligned"]).shift.keys()
    assert start_of(EncoderSettings(init=starts["run"], generated_through="f_r"))[1] == {}


def test_a_dry_run_from_an_aligned_encoder(world: World, starts: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe(world, tmp_path / "run", **changes(starts["run"]))))
    done = gen2real_("train", path, "--dry-run", "--json")
    assert done.value["updates"] == 3
