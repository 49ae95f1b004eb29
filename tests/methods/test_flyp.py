"""FLYP: both encoders learn by the contrastive loss, and the head follows from the text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import TEMPLATES, World, config, metrics, run, same

from gen2real.imagesets import ImageSet
from gen2real.losses import image_text_contrastive
from gen2real.methods import flyp
from gen2real.methods.classification_data import Batch
from gen2real.models.classifier import text_head
from gen2real.models.dual_encoder import load_dual_encoder
from gen2real.models.folder import load_classifier
from gen2real.prompts import prompts_for
from gen2real.training.run_folder import RunFolder
from tiny import tiny_siglip


@pytest.fixture(scope="module")
def tuned_run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN2REAL_CACHE", str(world.cache))
        return run(world, tmp_path_factory.mktemp("flyp") / "run", "flyp", ensemble__alpha=1.0)


def test_both_encoders_and_the_scale_change(world: World, tuned_run: Any) -> None:
    encoder = load_dual_encoder(world.clip)
    changed = set(tuned_run.changed_weights())
    parameters = {name for name, _ in encoder.named_parameters()}
    # Rows of the token table that no prompt uses stay, but the table as a whole changes.
    assert changed == parameters
    assert {name.split(".")[0] for name in changed} == {"vision", "text", "logit_scale"}


def test_the_head_is_that_of_the_tuned_text_encoder(world: World, tuned_run: Any) -> None:
    saved = load_classifier(tuned_run.folder / "model")
    prompts = prompts_for(saved.class_names, templates=TEMPLATES)
    assert torch.equal(saved.classifier.head.weight, text_head(saved.encoder, prompts))
    assert not saved.classifier.head.bias.any()
    original = text_head(load_dual_encoder(world.clip), prompts)
    assert not torch.allclose(saved.classifier.head.weight, original, atol=1e-4)
    tuned = tuned_run.changed_weights()
    assert same({name: value for name, value in saved.encoder.state_dict().items() if name in tuned}, tuned)


def test_alpha_zero_is_zero_shot(world: World, tuned_run: Any) -> None:
    regft = run(world, tuned_run.folder.parent / "regft", "regft", save_model=False)
    assert torch.equal(regft.answers["real.zero_shot"], tuned_run.answers["real.zero_shot"])


def batch(world: World) -> Batch:
    read = ImageSet.read(world.generated)
    labels = torch.from_numpy(read.labels[::4].copy())
    return Batch(torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8), labels, torch.tensor([0, 1, 2, 4, 6, 8]), 6)


@pytest.mark.parametrize("positives", [False, True])
def test_one_batch_is_the_contrastive_loss_of_its_prompts(world: World, folder: Path, positives: bool) -> None:
    settings = config(world, folder, "flyp", same_class_positives=positives)
    tuning = flyp.prepare(settings)
    loss = flyp.ContrastiveLoss(settings, tuning.data, tuning._prompts)
    part = batch(world)
    terms = loss({"pairs": tuning._pairs}, part)
    encoder = load_dual_encoder(world.clip)
    texts = [
        TEMPLATES[draw % 3].replace("{}", tuning.data.class_names[label])
        for draw, label in zip(part.draws.tolist(), part.labels.tolist(), strict=True)
    ]
    image = encoder.encode_image(encoder.preprocess.normalize(part.inputs))
    expected = image_text_contrastive(
        image, encoder.encode_text(texts), encoder.logit_scale.exp(), groups=part.labels if positives else None
    )
    torch.testing.assert_close(terms["loss"], expected)


def test_same_class_positives_change_the_weights(world: World, tmp_path: Path) -> None:
    found = set()
    for positives in (False, True):
        folder = tmp_path / str(positives)
        run(world, folder, "flyp", same_class_positives=positives, data__evaluation=None, save_model=False)
        found.add((folder / "tuned.safetensors").read_bytes())
    assert len(found) == 2


def test_the_scale_may_stay(world: World, folder: Path) -> None:
    result = run(world, folder, "flyp", tune_logit_scale=False, data__evaluation=None, save_model=False)
    changed = set(result.changed_weights())
    assert "logit_scale" not in changed
    assert "text.text_projection.weight" in changed


def test_siglips_bias_is_no_part_of_a_softmax(world: World, tmp_path: Path) -> None:
    siglip = str(tiny_siglip(tmp_path / "siglip"))
    result = run(world, tmp_path / "run", "flyp", encoder__name=siglip, data__evaluation=None, save_model=False)
    encoder = load_dual_encoder(siglip)
    assert {name for name, _ in encoder.named_parameters()} - set(result.changed_weights()) == {"logit_bias"}


def test_gradient_checkpointing_covers_both_towers(world: World, folder: Path) -> None:
    settings = config(world, folder, "flyp", training__gradient_checkpointing=True, training__steps=1)
    tuning = flyp.prepare(settings)
    calls: dict[str, int] = {"vision": 0, "text": 0}

    def counted(name: str) -> Any:
        def hook(*_: Any) -> None:
            calls[name] += 1

        return hook

    tuning.encoder.vision.vision_model.encoder.layers[0].mlp.register_forward_pre_hook(counted("vision"))
    tuning.encoder.text.text_model.encoder.layers[0].mlp.register_forward_pre_hook(counted("text"))
    tuning.fine_tune(RunFolder(folder, settings), quiet=True)
    assert calls == {"vision": 2, "text": 2}
    assert len(metrics(folder)) == 1
