"""Captioning runs on tiny pictures: what is trained and what stays, which tower sees whom, resuming, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import World, at_keys, metrics

from gen2real import methods
from gen2real.config import parse_config
from gen2real.errors import ImageSetError, NonFiniteLoss, RecipeError
from gen2real.evaluation import caption_scores
from gen2real.files import read_tensors
from gen2real.imagesets import ImageSet
from gen2real.methods.captioning import algorithm as captioning
from gen2real.methods.captioning.data import CaptioningSets
from gen2real.methods.captioning.settings import CaptioningConfig
from gen2real.methods.estimate import estimate
from gen2real.methods.measured import Measured
from gen2real.models import load_captioner, load_dual_encoder
from gen2real.models.aligned import load_aligned, save_aligned
from gen2real.models.captioner import IGNORED
from gen2real.training.trainer import Trainer
from tiny import tiny_gpt2
from tiny_sets import colour_set


@pytest.fixture(scope="module")
def root(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model, real partners, an aligned encoder, and a finished captioner to go on with."""
    root = tmp_path_factory.mktemp("captioning")
    tiny_gpt2(root / "gpt2")
    colour_set(root / "partners", origin="real", per_class=3, seed=1)
    encoder = load_dual_encoder(world.clip)
    generator = torch.Generator().manual_seed(0)
    weight = encoder.vision.state_dict()["visual_projection.weight"]
    shift = {"visual_projection.weight": 0.5 * torch.randn(weight.shape, generator=generator)}
    save_aligned(root / "aligned", encoder, shift, made_by={})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN2REAL_CACHE", str(world.cache))
        run(world, root, "start", data__train_on="real", training__steps=40, optimizer__lr=3e-3)
    return root


def recipe(world: World, root: Path, name: str, **changes: Any) -> CaptioningConfig:
    """Three updates of 8 captions; a double underscore goes into a section."""
    values: dict[str, Any] = {
        "method": "captioning",
        "output": str(root / name),
        "encoder": {"name": str(world.clip)},
        "data": {
            "generated": [str(world.generated)],
            "real": str(root / "partners"),
            "evaluation": str(world.real),
        },
        "decoding": {"beams": 2, "max_tokens": 20},
        "optimizer": {"lr": 1e-3},
        "schedule": {"name": "cosine", "warmup_steps": 0},
        "training": {"steps": 3, "batch_size": 8, "log_every": 1, "checkpoint_every": 2},
    }
    if "start" not in changes:
        values["decoder"] = {"name": str(root / "gpt2")}
    return parse_config(CaptioningConfig, at_keys(values, changes), source="recipe")


def run(world: World, root: Path, name: str, **changes: Any) -> Measured:
    result = methods.run(recipe(world, root, name, **changes), quiet=True)
    assert isinstance(result, Measured)
    return result


def parts(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The weights of a captioner's folder, by part."""
    found = {path.stem: read_tensors(path) for path in folder.glob("mapper*.safetensors")}
    return {**found, "decoder": read_tensors(folder / "decoder" / "model.safetensors")}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(after[key], value) for key, value in before.items())


def test_it_learns_what_the_pictures_are_called(world: World, root: Path) -> None:
    result = run(world, root, "learns", start=str(root / "start"), training__steps=60, optimizer__lr=3e-3)
    assert list(result.readings) == ["start", "f_r"]
    assert result.headline == "f_r"
    assert result.values("f_r", "cider").mean() > result.values("start", "cider").mean()
    told = load_captioner(root / "learns").captions([str(path) for path in ImageSet.read(world.real).paths], beams=2)
    assert told[:12] == [sample["captions"]["f_r"] for sample in result.summary["samples"]]
    scores = caption_scores(told, ImageSet.read(world.real).captions)
    for measure in ("bleu4", "rouge_l", "cider"):
        np.testing.assert_array_equal(scores.values[measure], result.values("f_r", measure))
    assert result.summary["pictures"] == {"generated": 24, "real": 0, "evaluation": 16}
    (sample, *_) = result.summary["samples"]
    assert sample["references"] == ["a red square"]
    assert sample["path"] == "red/0.png"
    assert "CIDEr-D" in (root / "learns" / "model" / "README.md").read_text()


def test_start_is_what_the_earlier_run_ended_as(world: World, root: Path) -> None:
    before, after = Measured.read(root / "start"), run(world, root, "again", start=str(root / "start"))
    for measure in ("bleu4", "rouge_l", "cider"):
        np.testing.assert_array_equal(before.values("f_r", measure), after.values("start", measure))


@pytest.mark.parametrize(
    ("reading", "train_on", "tuned"),
    [
        ("a", "generated", {"mapper_generated", "decoder"}),
        ("a", "real", {"mapper_real", "decoder"}),
        ("b", "mixed", {"mapper_generated", "mapper_real", "decoder"}),
    ],
)
def test_each_reading_trains_its_own_parts(
    world: World, root: Path, reading: str, train_on: str, tuned: set[str]
) -> None:
    name = f"{reading}-{train_on}"
    run(world, root, name, start=str(root / "start" / "model"), reading=reading, data__train_on=train_on)
    before, after = parts(root / "start" / "model"), parts(root / name / "model")
    assert set(after) == {"mapper_generated", "mapper_real", "decoder"}
    found = {part for part in after if changed(before[part if part == "decoder" else "mapper"], after[part])}
    assert found == tuned


def test_two_mappers_on_real_pictures_are_one(world: World, root: Path) -> None:
    """With f_r frozen, the paper's row "real, dual, aligned" cannot differ from plain fine-tuning on real pictures."""
    one = run(world, root, "real-one", start=str(root / "start"), data__train_on="real")
    two = run(world, root, "real-two", start=str(root / "start"), data__train_on="real", projections="dual")
    assert two.summary["stage"]["reading"] == "a"
    for measure in ("bleu4", "rouge_l", "cider"):
        np.testing.assert_array_equal(one.values("f_r", measure), two.values("f_r", measure))


def test_a_frozen_language_model_stays(world: World, root: Path) -> None:
    small = {"kind": "transformer", "prefix_length": 4, "clip_length": 3, "layers": 1, "heads": 2}
    run(world, root, "transformer", mapper=small)
    original = read_tensors(root / "gpt2" / "model.safetensors")
    assert not changed(original, parts(root / "transformer" / "model")["decoder"])
    run(world, root, "transformer-tuned", mapper=small, tune_decoder=True)
    assert changed(original, parts(root / "transformer-tuned" / "model")["decoder"])


def test_each_picture_goes_through_its_own_tower(world: World, root: Path) -> None:
    config = recipe(world, root, "towers", encoder={"init": str(root / "aligned")}, data__train_on="mixed")
    prepared = captioning.prepare(config)
    seen = {one.origin: prepared.features(one.pictures, config.encoder.generated_branch if one.origin == "generated"
                                          else "f_r") for one in prepared.sets.sources}  # fmt: skip
    aligned = load_aligned(root / "aligned")
    for origin, branch in (("generated", "f_g"), ("real", "f_r")):
        (source,) = (one for one in prepared.sets.sources if one.origin == origin)
        with torch.no_grad():
            pixels = aligned.encoder.preprocess.normalize(source.pictures.evaluation(range(3)))
            torch.testing.assert_close(seen[origin][:3], aligned.tower(branch)(pixels))
    result = run(world, root, "through", encoder={"init": str(root / "aligned")})
    plain = run(world, root, "plain")
    unaligned = run(world, root, "f_r-both", encoder={"init": str(root / "aligned"), "generated_through": "f_r"})
    assert {"f_r", "f_g"} == set(result.readings)
    assert metrics(root / "through")[0]["loss"] != metrics(root / "plain")[0]["loss"]
    np.testing.assert_array_equal(plain.values("f_r", "rouge_l"), unaligned.values("f_r", "rouge_l"))


def test_a_run_that_was_interrupted_ends_with_the_same_bits(
    world: World, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"start": str(root / "start"), "reading": "b", "data__train_on": "mixed"}
    options |= {"training__steps": 5, "training__accumulation": 2}
    whole = run(world, root, "whole", **options)
    update = Trainer._update

    def dies(self: Any, number: int, batch: Any) -> Any:
        if number == 3:
            raise NonFiniteLoss("stop")
        return update(self, number, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", dies)
        with pytest.raises(NonFiniteLoss):
            run(world, root, "broken", **options)
    resumed = run(world, root, "broken", **options)
    assert metrics(root / "broken")[-1]["loss"] == metrics(root / "whole")[-1]["loss"]
    for part, tensors in parts(root / "whole" / "model").items():
        assert not changed(tensors, parts(root / "broken" / "model")[part]), part
    np.testing.assert_array_equal(whole.values("f_r", "cider"), resumed.values("f_r", "cider"))
    assert not (root / "whole" / "checkpoints").exists()


def test_every_caption_is_drawn_once_an_epoch(world: World, tmp_path: Path) -> None:
    one = colour_set(tmp_path / "set", per_class=2)
    rows = [{**row, "captions": [*row["captions"], f"number {number}"]} for number, row in enumerate(one.rows())]
    ImageSet.write(tmp_path / "set", rows, one.classes, name="two.parquet")
    settings = recipe(world, tmp_path, "x", data__generated=[str(tmp_path / "set" / "two.parquet")]).data
    sets = CaptioningSets(settings, load_dual_encoder(world.clip).preprocess, seed=0)
    (source,) = sets.sources
    ids = torch.arange(16)[:, None].repeat(1, 3)
    ids[::2, 1:] = IGNORED
    features = torch.arange(8.0)[:, None]
    batches = captioning.CaptionBatches([source], [features], [ids], sets.sampler(8, 0), parts=2)
    parts_of = [part for update in batches(range(2)) for part in update]
    drawn = torch.cat([part.ids[:, 0] for part in parts_of])
    assert sorted(drawn.tolist()) == list(range(16))
    for part in parts_of:
        assert part.rows == len(part.ids) == 4
        assert torch.equal(part.features[:, 0], (part.ids[:, 0] // 2).float()), "a caption comes with its own picture"
        assert part.generated.all()


def test_fewer_pictures_are_part_of_more(world: World, root: Path) -> None:
    def ids(pictures: int | None, seed: int = 0) -> set[str]:
        settings = recipe(world, root, "x", data__pictures=pictures, data__train_on="mixed").data
        sets = CaptioningSets(settings, load_dual_encoder(world.clip).preprocess, seed=seed)
        assert [one.origin for one in sets.sources] == ["generated", "real"]
        return {f"{one.origin} {name}" for one in sets.sources for name in one.pictures.image_set.ids}

    assert len(ids(5)) == 10
    assert ids(5) < ids(9) < ids(None)
    assert ids(5) != ids(5, seed=1)


REFUSED = [
    ({"reading": "c", "projections": "dual"}, "set reading: a or b"),
    ({"reading": "a", "projections": "single"}, "is of two mappers; set projections: dual"),
    ({"reading": "a"}, "set start to a finished captioning run"),
    ({"projections": "dual"}, "set start to a finished captioning run"),
    ({"reading": "a", "data__train_on": "mixed"}, "set reading: b"),
    ({"reading": "b"}, "set data.train_on=mixed"),
    ({"data__train_on": "real", "data__real": None}, r"--set data\.real=my-photos"),
    ({"data__generated": []}, "at least one image set"),
    ({"decoder": None}, "give decoder.name"),
    ({"start": "x", "decoder": {"name": "y"}}, "two ways to say where the language model comes from"),
    ({"start": "x", "mapper": {}}, "start brings its own mapper"),
    ({"mapper__layers": 3}, "layers belong to kind: transformer"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_settings_that_contradict_each_other_say_what_to_type(
    world: World, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe(world, tmp_path, "x", **changes)


def test_projections_alone_say_which_reading(world: World, tmp_path: Path) -> None:
    assert recipe(world, tmp_path, "x").stage == "c"
    assert recipe(world, tmp_path, "x", projections="dual", data__train_on="mixed").stage == "b"
    assert recipe(world, tmp_path, "x", projections="dual", start="y").stage == "a"


def test_sets_that_do_not_fit_are_told(world: World, root: Path, tmp_path: Path) -> None:
    one = colour_set(tmp_path / "set", per_class=1)
    bare = [{**row, "captions": []} for row in one.rows()]
    ImageSet.write(tmp_path / "set", bare, one.classes, name="bare.parquet")
    with pytest.raises(ImageSetError, match=r"4 of the 4 pictures .* have no caption"):
        captioning.prepare(recipe(world, root, "x", data__generated=[str(tmp_path / "set" / "bare.parquet")]))
    with pytest.raises(RecipeError, match="not of origin 'generated'"):
        captioning.prepare(recipe(world, root, "x", data__generated=[str(root / "partners")]))
    with pytest.raises(ImageSetError, match="byte for byte"):
        captioning.prepare(recipe(world, root, "x", data__train_on="real", data__real=str(world.real)))
    run(world, root, "dual", start=str(root / "start"), projections="dual")
    with pytest.raises(RecipeError, match="two mappers and the recipe's reading one"):
        captioning.prepare(recipe(world, root, "x", start=str(root / "dual")))


def test_a_dry_run_counts_captions_and_leaves_nothing(world: World, root: Path) -> None:
    steps: dict[str, Any] = {"training__steps": None, "training__epochs": 2}
    found = estimate(
        recipe(world, root, "dry", data__train_on="mixed", encoder={"init": str(root / "aligned")}, **steps)
    )
    assert found.pictures == 24 + 12
    assert found.updates == 2 * 5, "36 captions in batches of 8"
    assert found.encoded == 36 + 2 * 16, "the measured ones go through both towers"
    assert found.disk_gb > 0
    assert not (root / "dry").exists()
