"""RegFT: each line of the algorithm, each setting of the loop, and that real pictures never reach it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_runs import TEMPLATES, World, config, metrics, model_tensors, run, same
from transformers import CLIPModel

from gen2real import methods
from gen2real.errors import RecipeError
from gen2real.imagesets import ImageSet
from gen2real.imagesets.loading import Pictures
from gen2real.methods import classification_data, regft
from gen2real.methods.classification_data import SealedSet
from gen2real.models.dual_encoder import load_dual_encoder
from gen2real.models.folder import load_classifier
from gen2real.models.weights import interpolate
from gen2real.prompts import prompts_for
from gen2real.training.run_folder import RunFolder
from gen2real.training.trainer import Trainer
from tiny_sets import colour_set

READINGS = {"zero_shot", "tuned", "blend", "blend_generated", "output_ensemble", "oracle"}


def pixels_of(world: World) -> torch.Tensor:
    preprocess = load_dual_encoder(world.clip).preprocess
    pictures = Pictures(ImageSet.read(world.real), preprocess)
    return preprocess.normalize(pictures.evaluation(range(len(pictures))))


def reference_logits(world: World) -> torch.Tensor:
    """Zero-shot CLIP as its paper has it, from stock parts: exp(s) · cos(f(x), mean prompt)."""
    encoder = load_dual_encoder(world.clip)
    names = ImageSet.read(world.generated).class_names
    with torch.no_grad():
        rows = []
        for prompts in prompts_for(names, templates=TEMPLATES):
            mean = F.normalize(encoder.encode_text(prompts), dim=-1).mean(dim=0)
            rows.append(encoder.logit_scale.exp() * F.normalize(mean, dim=-1))
        return F.normalize(encoder.encode_image(pixels_of(world)), dim=-1) @ torch.stack(rows).T


def test_the_start_is_zero_shot_clip(world: World, folder: Path) -> None:
    tuning = regft.prepare(config(world, folder))
    state = tuning.state()
    classifier = tuning.classifier(state)
    assert not state["head.bias"].any()
    scale = tuning.encoder.logit_scale.exp().item()
    torch.testing.assert_close(state["head.weight"].norm(dim=1), torch.full((4,), scale), rtol=1e-6, atol=0)
    with torch.no_grad():
        logits, _ = classifier(pixels_of(world))
    torch.testing.assert_close(logits, reference_logits(world), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def encoder_run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN2REAL_CACHE", str(world.cache))
        return run(world, tmp_path_factory.mktemp("regft") / "run", ensemble__alpha=1.0, gap=True)


def test_zero_shot_is_read_from_untouched_weights(world: World, encoder_run: Any) -> None:
    answers = encoder_run.answers["real.zero_shot"][:, 0].long()
    assert torch.equal(answers, reference_logits(world).argmax(dim=1))
    assert encoder_run.readings["zero_shot"]["alpha"] == 0.0


def test_alpha_one_is_the_tuned_model_bit_for_bit(world: World, folder: Path, encoder_run: Any) -> None:
    tuning = regft.prepare(config(world, folder))
    tuned = {**tuning.state(), **encoder_run.changed_weights()}
    saved = load_classifier(encoder_run.folder / "model").classifier
    assert same(tuned, saved.state_dict())
    with torch.no_grad():
        assert torch.equal(saved(pixels_of(world))[0], tuning.classifier(tuned)(pixels_of(world))[0])
    for name in ("blend", "output_ensemble"):
        assert torch.equal(encoder_run.answers[f"real.{name}"], encoder_run.answers["real.tuned"])


def test_alpha_between_is_the_mean_of_the_weights(world: World, folder: Path) -> None:
    result = run(world, folder, ensemble__alpha=0.25)
    original = regft.prepare(config(world, folder)).state()
    expected = interpolate(original, {**original, **result.changed_weights()}, 0.25)
    assert same(expected, load_classifier(folder / "model").classifier.state_dict())


def test_stock_transformers_loads_the_saved_model(world: World, encoder_run: Any) -> None:
    model = CLIPModel.from_pretrained(encoder_run.folder / "model").eval()
    saved = load_classifier(encoder_run.folder / "model")
    pixels = pixels_of(world)
    with torch.no_grad():
        features = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
        assert torch.equal(features, saved.classifier.vision(pixels))
    assert saved.class_names == ImageSet.read(world.generated).class_names


def test_the_result_says_what_was_found(encoder_run: Any) -> None:
    assert set(encoder_run.readings) == READINGS
    for reading in encoder_run.readings.values():
        assert set(reading) >= {"alpha", "real"}
        assert 0 <= reading["real"]["top1"]["mean"] <= 1
    assert encoder_run.summary["name_only"] is True
    assert encoder_run.summary["pictures"] == {"generated": 20, "real": 0, "held_out": 4}
    assert [row["alpha"] for row in encoder_run.summary["sweep"]] == [0.0, 0.3, 0.6, 1.0]
    assert set(encoder_run.summary["gap"]) == {"zero_shot", "tuned"}
    assert encoder_run.correct("tuned").mean() == pytest.approx(encoder_run.readings["tuned"]["real"]["top1"]["mean"])
    assert not (encoder_run.folder / "checkpoints").exists()


def test_tuning_the_encoder_changes_all_of_it(world: World, folder: Path, encoder_run: Any) -> None:
    tuning = regft.prepare(config(world, folder))
    trainable = {name for name, p in tuning._classifier.named_parameters() if p.requires_grad}
    assert set(encoder_run.changed_weights()) == trainable
    assert all(torch.isfinite(value).all() for value in encoder_run.changed_weights().values())


def test_tuning_the_head_leaves_the_encoder_bit_for_bit(world: World, folder: Path) -> None:
    result = run(world, folder, tune="head", data__views=2)
    assert set(result.changed_weights()) == {"head.weight", "head.bias"}
    original = load_dual_encoder(world.clip).vision.state_dict()
    assert same(original, load_classifier(folder / "model").encoder.vision.state_dict())
    assert {row["stage"] for row in metrics(folder)} == {"head"}


def test_lora_changes_attention_and_is_merged(world: World, folder: Path) -> None:
    result = run(world, folder, tune="lora", lora__rank=2, lora__dropout=0.2)
    changed = set(result.changed_weights())
    projections = {f"{name}_proj.weight" for name in ("q", "k", "v", "out")}
    vision = {name for name in changed if name.startswith("vision.")}
    assert changed - vision == {"head.weight", "head.bias"}
    assert {".".join(name.split(".")[-2:]) for name in vision} == projections
    assert len(vision) == 2 * 4
    saved = load_classifier(folder / "model").classifier.state_dict()
    assert not [name for name in saved if "lora" in name]


def test_a_head_first_is_trained_on_the_untouched_encoder(world: World, folder: Path) -> None:
    run(world, folder, head_first={"lr": 0.01, "epochs": 2}, data__evaluation=None)
    rows = [(row["stage"], row["step"]) for row in metrics(folder)]
    assert rows == [("head", step) for step in range(1, 7)] + [("encoder", step) for step in range(1, 4)]
    assert "variance" not in metrics(folder)[0]
    assert metrics(folder)[0]["learning_rate"] == 0.01
    assert metrics(folder)[6]["learning_rate"] == 0.001


CHEAP: dict[str, Any] = {"data__evaluation": None, "save_model": False, "ensemble__sweep": []}

VARIANTS: dict[str, dict[str, Any]] = {
    "regft": {},
    "plain": {"loss__variance": 0, "loss__covariance": 0},
    "variance only": {"loss__covariance": 0},
    "vicreg": {"loss__normalizer": "dim"},
    "own deviation": {"loss__target_std": "zero_shot"},
    "normalized": {"loss__regularised": "normalized"},
    "soft targets": {"loss__soft_targets": 0.5},
    "other temperature": {"loss__soft_targets": 0.5, "loss__temperature": 1.0},
    "smoothed": {"loss__label_smoothing": 0.1},
    "decay": {"optimizer__weight_decay": 5.0},
    "decay on all": {"optimizer__weight_decay": 5.0, "optimizer__decay_norms_and_biases": True},
    "betas": {"optimizer__betas": [0.5, 0.9]},
    "head rate": {"optimizer__head_lr": 0.01},
    "unclipped": {"optimizer__clip_norm": None},
    "constant": {"schedule__name": "constant"},
    "parts": {"training__accumulation": 2},
    "seed": {"seed": 1},
    "centred": {"centering": "generated"},
    "one class once": {"data__class_unique": True, "training__batch_size": 4},
    "flipped": {"data__augmentation": {"flip": 0.5}},
}


def test_every_setting_of_the_loop_changes_the_weights(world: World, tmp_path: Path) -> None:
    found: dict[str, bytes] = {}
    for name, changes in VARIANTS.items():
        folder = tmp_path / name.replace(" ", "-")
        run(world, folder, **{**CHEAP, "training__steps": 2, **changes})
        found[name] = (folder / "tuned.safetensors").read_bytes()
        terms = set(metrics(folder)[0])
        assert ("soft_targets" in terms) == ("soft" in name or "temperature" in name)
        assert ("variance" in terms) == (name != "plain")
    assert len(set(found.values())) == len(VARIANTS)


def test_the_same_recipe_gives_the_same_bits(world: World, tmp_path: Path) -> None:
    for name in ("once", "again"):
        run(world, tmp_path / name)
    assert (tmp_path / "once" / "tuned.safetensors").read_bytes() == (
        tmp_path / "again" / "tuned.safetensors"
    ).read_bytes()
    one, other = metrics(tmp_path / "once"), metrics(tmp_path / "again")
    assert [{**row, "seconds": 0} for row in one] == [{**row, "seconds": 0} for row in other]


def test_the_authors_schedule(world: World, folder: Path) -> None:
    """500 warm-up steps whatever the length: a short run ends in the middle of them."""
    changes = {"schedule__warmup_steps": 500, "optimizer__lr": 3e-5, "training__steps": 4}
    run(world, folder, data__evaluation=None, save_model=False, **changes)
    assert [row["learning_rate"] for row in metrics(folder)] == pytest.approx([3e-5 * k / 500 for k in (1, 2, 3, 4)])


def test_gradient_checkpointing_computes_twice_and_changes_nothing(world: World, tmp_path: Path) -> None:
    states, calls = [], []
    for name, on in (("off", False), ("on", True)):
        settings = config(world, tmp_path / name, training__gradient_checkpointing=on, training__steps=2)
        torch.manual_seed(0)
        tuning = regft.prepare(settings)
        count: list[int] = []
        layer = tuning._classifier.vision.vision_model.encoder.layers[1].mlp
        layer.register_forward_pre_hook(lambda *_, count=count: count.append(1))
        tuning.fine_tune(RunFolder(tmp_path / name, settings), quiet=True)
        states.append(tuning.state())
        calls.append(len(count))
    assert calls == [2, 4]
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=0, atol=1e-6)


def test_a_finished_run_is_read_and_not_run(world: World, encoder_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Trainer, "fit", never)
    again = run(world, encoder_run.folder, ensemble__alpha=1.0, gap=True)
    assert again.summary == encoder_run.summary
    with pytest.raises(RecipeError, match=r"ensemble\.alpha: 1\.0 → 0\.5"):
        run(world, encoder_run.folder, ensemble__alpha=0.5, gap=True)


def shuffled(real: Path, out: Path) -> Path:
    """The same pictures with every label moved by one class."""
    shutil.copytree(real, out)
    read = ImageSet.read(out)
    rows = read.table.to_pylist()
    for row, label in zip(rows, read.labels.tolist(), strict=True):
        row["label"] = read.classes[(label + 1) % len(read.classes)].label
    (out / "manifest.parquet").unlink()
    return ImageSet.write(out, rows, read.classes).root


def test_the_real_set_influences_nothing_but_what_is_measured_on_it(world: World, tmp_path: Path) -> None:
    changed: list[bytes] = []
    models: list[dict[str, torch.Tensor]] = []
    alphas, real = [], []
    sets = {"with": world.real, "without": None, "shuffled": shuffled(world.real, tmp_path / "other")}
    for name, evaluation in sets.items():
        result = run(
            world,
            tmp_path / name,
            data__evaluation=None if evaluation is None else str(evaluation),
            ensemble__rule="generated",
        )
        changed.append((tmp_path / name / "tuned.safetensors").read_bytes())
        models.append(model_tensors(tmp_path / name))
        alphas.append(result.summary["saved"]["alpha"])
        real.append(result.readings["tuned"].get("real"))
    assert changed[0] == changed[1] == changed[2]
    assert same(models[0], models[1])
    assert same(models[0], models[2])
    assert alphas[0] == alphas[1] == alphas[2]
    assert real[1] is None
    assert real[0] != real[2]


def test_the_real_labels_are_read_after_the_last_update_and_every_choice(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real_update, real_open, real_labels = Trainer._update, SealedSet.open, classification_data.set_labels

    def update(self: Any, *arguments: Any) -> Any:
        events.append("update")
        return real_update(self, *arguments)

    def opened(self: Any, *arguments: Any) -> Any:
        events.append("open")
        return real_open(self, *arguments)

    def labels(one: ImageSet, classes: Any) -> Any:
        events.append("real labels" if one.root == world.real else "generated labels")
        return real_labels(one, classes)

    monkeypatch.setattr(Trainer, "_update", update)
    monkeypatch.setattr(SealedSet, "open", opened)
    monkeypatch.setattr(classification_data, "set_labels", labels)
    run(world, folder)
    assert events.count("update") == 3
    assert events[-2:] == ["open", "real labels"]
    assert events.count("real labels") == events.count("open") == 1


def test_transductive_readings_say_so(world: World, folder: Path) -> None:
    result = run(world, folder, centering="generated", transductive=True)
    extra = {f"transductive_{name}" for name in ("zero_shot", "tuned", "blend", "blend_generated")}
    assert set(result.readings) == READINGS | extra
    assert "generated" not in result.readings["transductive_tuned"]


def test_a_few_real_pictures_make_it_no_longer_name_only(world: World, tmp_path: Path) -> None:
    shots = colour_set(tmp_path / "shots", origin="real", seed=5)
    result = run(world, tmp_path / "run", data__real={"path": str(shots.root), "shots": 2}, save_model=False)
    assert result.summary["name_only"] is False
    assert result.summary["pictures"] == {"generated": 20, "real": 8, "held_out": 4}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tune": "head", "head_first": {}}, "there is no encoder to follow"),
        ({"tune": "head", "loss__variance": 0.1}, "set loss.variance=0 and loss.covariance=0"),
        ({"tune": "head", "training__gradient_checkpointing": True}, "gradient_checkpointing has nothing to save"),
        ({"data__views": 3}, "data.views belongs to tune: head"),
        ({"transductive": True}, "it needs centering: generated"),
        ({"data__held_out": "x", "data__holdout": 0.1}, "two ways to say one thing"),
        ({"ensemble__sweep": [0.5, 1.5]}, r"ensemble\.sweep"),
        ({"ensemble__rule": "generated", "data__holdout": 0}, "needs held-out pictures"),
    ],
)
def test_settings_that_contradict_each_other_are_told(
    world: World, folder: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        config(world, folder, **changes)


def test_a_method_is_known_by_its_word() -> None:
    assert set(methods.METHODS) == set(methods.CONFIGS)
    for name, settings in methods.CONFIGS.items():
        assert settings.model_fields["method"].default == name


def test_bfloat16_trains_too(world: World, folder: Path) -> None:
    result = run(world, folder, training__precision="bfloat16", save_model=False)
    assert all(value.dtype == torch.float32 for value in result.changed_weights().values())
    assert np.isfinite([row["loss"] for row in metrics(folder)]).all()
