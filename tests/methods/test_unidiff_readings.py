"""What a joint run is worth: drawn as generation draws, measured by another encoder, looked at without a trace."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from joint_runs import JointWorld, joint_config, joint_run, joint_world

from gen2real.errors import RecipeError
from gen2real.evaluation.features import FeatureCache
from gen2real.files import digest_tensors, read_json
from gen2real.generation.drawing import Painter
from gen2real.generation.generators import load_generator
from gen2real.generation.settings import GeneratorSettings
from gen2real.imagesets import ImageSet
from gen2real.methods.finished_drawings import evaluate_synthesis
from gen2real.methods.measured import Measured
from gen2real.methods.measured_findings import limitations, markdown, sentence
from gen2real.methods.unidiff import panel as panel_file
from gen2real.methods.unidiff.data import JointData
from gen2real.methods.unidiff.drawing import GENERIC, Artist, Wanted, commission
from gen2real.methods.unidiff.readings import prepare_panel, readings, refuse_same_scorer
from gen2real.methods.unidiff.settings import DrawingSettings, UniDiffConfig
from gen2real.models.image_encoder import load_image_encoder
from gen2real.models.joint import load_joint
from gen2real.training.run_folder import RunFolder
from tiny import tiny_clip, tiny_siglip
from tiny_sets import colour_set

DRAWING = {"pictures": 6, "sampled_prompts": 2, "samples": 3, "steps": 2, "batch_size": 4}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> JointWorld:
    return joint_world(tmp_path_factory.mktemp("joint"))


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_siglip(tmp_path_factory.mktemp("scorer"))


@pytest.fixture(scope="module")
def general(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_set(tmp_path_factory.mktemp("general"), origin="real", per_class=5, seed=30).root


@pytest.fixture(scope="module")
def run(joint: JointWorld, scorer: Path, general: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN2REAL_CACHE", str(root / "cache"))
        yield joint_run(joint, root / "run", **everything(scorer, general))


def everything(scorer: Path, general: Path) -> dict[str, Any]:
    return {
        "drawing": {**DRAWING, "scorer": str(scorer)},
        "panel": {"every": 1, "prompts": ["a photo", "a dog"]},
        "data__general": str(general),
    }


def looked_at(config: UniDiffConfig) -> tuple[Any, Any]:
    """Models and panel of a recipe whose run has not begun."""
    RunFolder(config.output, config)
    models = load_joint(config.models)
    return models, prepare_panel(config, models, JointData(config, models))


def test_models_in_memory_draw_what_generation_draws_from_files(joint: JointWorld) -> None:
    diffusion = load_joint(names(joint)).diffusion.train()
    diffusion.unet.requires_grad_(True)
    before = digest_tensors(diffusion.state_dict())
    wanted = Wanted(("a red square", "a blue square", "a red square"), (1, 2, 3))
    settings = DrawingSettings(steps=3, batch_size=2)
    drawn = Artist(diffusion, settings, None, device=CPU, cache=None).pictures(wanted)
    files = load_generator(GeneratorSettings(name=str(joint.generator), steps=3, guidance=7.5), device="cpu")
    expected = Painter(files).draw_all(wanted.prompts, wanted.seeds, batch_size=2)
    assert np.array_equal(drawn.numpy(), np.stack([one.pixels for one in expected]))
    assert not np.array_equal(drawn[0].numpy(), drawn[2].numpy())
    # Nothing of it is left in what is still to be trained.
    assert digest_tensors(diffusion.state_dict()) == before
    assert {p.dtype for p in diffusion.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in diffusion.unet.parameters())
    assert "decode" not in vars(diffusion.vae)


def names(joint: JointWorld, **more: Any) -> Any:
    return joint_config(joint, Path("run"), **more).models


def test_what_equal_models_drew_is_drawn_once(joint: JointWorld, tmp_path: Path, monkeypatch: Any) -> None:
    drawn: list[int] = []
    real = Painter.draw_all

    def counted(painter: Painter, prompts: Any, seeds: Any, *, batch_size: int) -> Any:
        drawn.append(len(prompts))
        return real(painter, prompts, seeds, batch_size=batch_size)

    monkeypatch.setattr(Painter, "draw_all", counted)
    wanted, cache = Wanted(("a red square",), (5,)), FeatureCache(tmp_path)
    loaded = load_joint(names(joint)).diffusion

    def draw(steps: int = 1, change: float = 0.0, seed: int = 5) -> torch.Tensor:
        diffusion = copy.deepcopy(loaded)
        with torch.no_grad():
            diffusion.text_encoder.get_input_embeddings().weight[0] += change
        artist = Artist(diffusion, DrawingSettings(steps=steps), None, device=CPU, cache=cache)
        return artist.pictures(Wanted(wanted.prompts, (seed,)))

    first = draw()
    assert torch.equal(draw(), first)
    assert len(drawn) == 1
    for changed in ({"steps": 2}, {"change": 1.0}, {"seed": 6}):
        draw(**changed)
    assert len(drawn) == 4


def test_every_run_draws_the_same_captions_from_the_same_seeds(joint: JointWorld, scorer: Path) -> None:
    evaluation = ImageSet.read(joint.evaluation)
    settings = DrawingSettings(**{**DRAWING, "scorer": str(scorer)})
    found = commission(settings, ["a photo"], evaluation, None)
    # Eight pictures of four captions: every fourth third is left out.
    assert found.rows == (0, 1, 2, 4, 5, 6)
    assert found.measured.prompts == tuple(evaluation.captions[row][0] for row in found.rows)
    assert len(set(found.measured.seeds)) == 6
    assert (len(found.sampled), len(set(found.sampled.prompts)), len(set(found.sampled.seeds))) == (6, 2, 6)
    assert (len(found.generic), len(set(found.generic.seeds))) == (GENERIC, GENERIC)
    assert len(found.shown) == 4
    # Other sizes draw the same pictures, as far as they draw them.
    fewer = commission(settings.model_copy(update={"sampled_prompts": 1, "samples": 2}), [], evaluation, None)
    assert fewer.sampled.seeds == found.sampled.seeds[:2]
    # Without a scorer nothing is drawn but what is looked at.
    alone = commission(settings.model_copy(update={"scorer": None}), ["a photo"], evaluation, None)
    assert (len(alone.shown), len(alone.measured), len(alone.sampled), len(alone.generic)) == (4, 0, 0, 0)
    nothing = commission(DrawingSettings(pictures=0), ["a photo"], None, evaluation)
    assert not len(nothing.shown)


def test_the_original_measures_what_its_files_do(run: Measured, joint: JointWorld, scorer: Path) -> None:
    expected = evaluate_synthesis(
        joint.generator, ImageSet.read(joint.evaluation), scorer, pictures=6, steps=2, guidance=7.5
    )
    for measure, own in expected.values.items():
        assert np.allclose(run.values("original", measure), own, atol=1e-6), measure
    after = evaluate_synthesis(run.folder, ImageSet.read(joint.evaluation), scorer, pictures=6, steps=2, guidance=7.5)
    for measure, own in after.values.items():
        # What was drawn with is what was saved: the running mean of the denoiser, and the tuned text tower. Weights lie
        # otherwise in memory after loading, and a sum's last bit may tip a grey level.
        assert np.allclose(run.values("tuned", measure), own, rtol=5e-3, atol=1e-4), measure
        assert not np.allclose(own, expected.values[measure], rtol=5e-3, atol=1e-4), measure


def test_measures_of_one_reading_have_pictures_of_their_own(run: Measured) -> None:
    counts = {measure: len(run.values("tuned", measure)) for measure in run.measures("tuned")}
    assert counts == {
        **{f"{way}_recall@{k}": 8 for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)},
        "top1": 8,
        "general_top1": 20,
        "kernel_distance": 6,
        "clip_score": 6,
        "clip_i": 6,
        "diversity": 2,
    }
    assert run.headline == "tuned"
    details = run.readings["tuned"]["details"]
    assert details["retrieval"]["image_to_text"]["median_rank"] >= 1
    assert details["synthesis"]["pictures"] == 6
    # Twenty pictures of the general set are no evaluation set.
    assert "8 real pictures" in sentence(run.summary)
    assert any("the 8 it was measured on" in told for told in limitations(run.summary))
    card = markdown(run.summary, run.all_values)
    assert "general" in card
    assert "–" not in next(line for line in card.splitlines() if line.startswith("| original"))


def test_the_panel_is_taken_before_while_and_after(run: Measured) -> None:
    told = run.summary["collapse"]
    looked = {
        *("effective_rank_pictures", "effective_rank_texts", "uniformity_pictures", "uniformity_texts"),
        *("caption_cosine", "modality_gap", "text_drift", "text_drift_norm", "general_top1"),
    }
    assert [row["step"] for row in told["during"]] == [1, 2, 3]
    assert all(set(row) == {"step", *looked} for row in told["during"])
    for end in ("before", "after"):
        assert set(told[end]) == {*looked, "diversity", "prompt_fidelity"}
    assert (told["before"]["text_drift"], told["before"]["text_drift_norm"]) == (pytest.approx(0), pytest.approx(0))
    assert told["after"]["text_drift"] > 1e-6
    for drawn in run.summary["drawn"]:
        assert (run.folder / drawn["before"]).read_bytes() != (run.folder / drawn["after"]).read_bytes()
    assert len(run.summary["drawn"]) == 4


def test_what_no_loss_looks_at_draws_as_before(joint: JointWorld, scorer: Path, tmp_path: Path) -> None:
    found = joint_run(
        joint,
        tmp_path / "run",
        synthesis__weight=0,
        consistency__weight=0,
        models__generator=str(joint.stranger),
        training__steps=1,
        drawing={**DRAWING, "pictures": 4, "sampled_prompts": 1, "samples": 2, "scorer": str(scorer)},
    )
    for measure in ("kernel_distance", "clip_score", "clip_i", "diversity"):
        assert np.array_equal(found.values("original", measure), found.values("tuned", measure))
    assert not np.allclose(found.values("original", "clip_i"), 1)


def test_looking_leaves_no_trace(joint: JointWorld, general: Path, tmp_path: Path) -> None:
    config = joint_config(joint, tmp_path / "run", panel={"every": 2, "prompts": ["a dog"]}, data__general=str(general))
    models, panel = looked_at(config)
    models.encoder.train()
    models.encoder.text.eval()
    models.diffusion.unet.train()
    parts = [*models.encoder.modules(), *models.diffusion.modules()]
    modes, random, arrays = [part.training for part in parts], torch.get_rng_state(), np.random.get_state()[1].copy()
    for update in range(1, 5):
        panel.on_step(update)
    assert [part.training for part in parts] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert np.array_equal(np.random.get_state()[1], arrays)
    assert torch.is_grad_enabled()
    # The fourth is the last, which the end looks at.
    assert [row["step"] for row in panel.during] == [2]
    # Nothing was trained, so nothing moved.
    assert {key: own for key, own in panel.during[0].items() if key != "step"} == panel.before


def test_a_resumed_run_looks_again_at_what_it_does_again(joint: JointWorld, tmp_path: Path) -> None:
    config = joint_config(joint, tmp_path / "run", panel={"every": 1, "prompts": []}, training__steps=6)
    _, panel = looked_at(config)
    for update in (1, 2, 3):
        panel.on_step(update)
    # Killed in the fourth; the newest checkpoint is that of the first.
    _, resumed = looked_at(config)
    for update in (2, 3, 4):
        resumed.on_step(update)
    assert [row["step"] for row in resumed.during] == [1, 2, 3, 4]


def test_other_processes_look_at_nothing(joint: JointWorld, tmp_path: Path, monkeypatch: Any) -> None:
    config = joint_config(joint, tmp_path / "run", panel={"every": 1, "prompts": ["a dog"]})
    RunFolder(config.output, config)
    monkeypatch.setattr(panel_file, "rank", lambda: 1)
    models = load_joint(config.models)
    panel = prepare_panel(config, models, JointData(config, models))
    panel.on_step(1)
    assert (panel.before, panel.during) == ({}, [])


def test_a_scorer_that_is_the_clip_in_training_is_refused(joint: JointWorld, tmp_path: Path) -> None:
    same = tmp_path / "another-name"
    load_image_encoder(joint.clip).encoder.save(same)  # type: ignore[union-attr]
    with pytest.raises(RecipeError, match=r"drawing\.scorer: .*another-name has the weights of models\.clip"):
        # LoRA layers do not make it another.
        joint_run(joint, tmp_path / "run", drawing__scorer=str(same), image__mode="lora")
    with pytest.raises(RecipeError, match="has the weights of models"):
        refuse_same_scorer(str(same), str(joint.clip))
    # Another of the same shapes will do.
    refuse_same_scorer(str(tiny_clip(tmp_path / "clip", seed=3)), str(joint.clip))


def test_without_a_scorer_it_is_said_that_nothing_drawn_is_measured(joint: JointWorld, tmp_path: Path) -> None:
    config = joint_config(joint, tmp_path / "run", drawing={"pictures": 2, "steps": 1}, drawing__prompts=["a dog"])
    models, panel = looked_at(config)
    found, told = readings(config, models, panel.data, panel)
    assert not {"kernel_distance", "clip_score", "clip_i", "diversity"} & set(found["tuned"].values)
    assert "no scorer was given" in found["tuned"].details["notes"][0]
    assert [one["prompt"] for one in told["drawn"]] == ["a dog"]
    assert (config.output / told["drawn"][0]["after"]).read_bytes()[:4] == b"\x89PNG"
    # Untrained, the two readings are one.
    for measure, own in found["original"].values.items():
        assert np.array_equal(own, found["tuned"].values[measure]), measure
    assert read_json(config.output / "recipe.json")["drawing"]["scorer"] is None
