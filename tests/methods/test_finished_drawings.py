"""A finished generator, measured as a user does it: on tiny pipelines, with tiny encoders, and on the kit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, Dinov2Config, Dinov2Model

from commands import gen2real_
from gen2real import kit
from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation import frechet, kernel_distance
from gen2real.evaluation.statistics import bootstrap_interval
from gen2real.imagesets import ImageSet
from gen2real.methods.finished_drawings import Synthesised, evaluate_synthesis
from gen2real.models import load_dual_encoder
from gen2real.models.image_encoder import load_image_encoder
from tiny import tiny_clip, tiny_stable_diffusion
from tiny_sets import colour_set


@dataclass(frozen=True)
class Place:
    root: Path
    pictures: ImageSet
    found: Synthesised


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Eight real pictures of four captions, a generator and a scorer; six of them drawn in two steps."""
    root = tmp_path_factory.mktemp("drawings")
    tiny_clip(root / "scorer", seed=5)
    tiny_stable_diffusion(root / "generator")
    pictures = colour_set(root / "set", origin="real", per_class=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN2REAL_CACHE", str(root / "cache"))
        patch.chdir(root)
        found = evaluate_synthesis("generator", pictures, "scorer", pictures=6, steps=2, guidance=2)
        yield Place(root, pictures, found)


def seen(folder: str, pixels: list[np.ndarray]) -> torch.Tensor:
    encoder = load_dual_encoder(folder)
    squares = torch.stack([encoder.preprocess.geometry(Image.fromarray(one)) for one in pixels])
    with torch.no_grad():
        return encoder.encode_image(encoder.preprocess.normalize(squares))


def test_captions_are_spread_over_the_set(place: Place) -> None:
    # Places 0, 1, 2, 4, 5, 6 of eight.
    assert place.found.ids == [place.pictures.ids[row] for row in (0, 1, 2, 4, 5, 6)]
    assert place.found.captions == ["a red square"] * 2 + ["a green square"] + ["a blue square"] * 2 + [
        "a F-16A/B square"
    ]
    assert set(place.found.values) == {"kernel_distance", "clip_score", "clip_i"}
    assert {one.shape for one in place.found.values.values()} == {(6,)}


def test_it_is_what_generate_draws_as_measured_by_hand(place: Place) -> None:
    """The same captions through `gen2real generate`'s own painter, and every number from its definition."""
    from gen2real.generation.drawing import Painter
    from gen2real.generation.generators import load_generator
    from gen2real.generation.plan import seed_of
    from gen2real.generation.settings import GeneratorSettings

    painter = Painter(load_generator(GeneratorSettings(name="generator", steps=2, guidance=2)))
    seeds = [seed_of(0, one) for one in place.found.ids]
    drawn = seen("scorer", [painter.draw([text], [seed])[0].pixels
                            for text, seed in zip(place.found.captions, seeds, strict=True)])  # fmt: skip
    paths = dict(zip(place.pictures.ids, place.pictures.paths, strict=True))
    real = seen("scorer", [np.asarray(Image.open(paths[one]).convert("RGB")) for one in place.found.ids])
    with torch.no_grad():
        texts = load_dual_encoder("scorer").encode_text(place.found.captions)
    values = place.found.values
    # A batch of another size rounds a level of 255 now and then.
    assert values["kernel_distance"].mean() == pytest.approx(kernel_distance(drawn, real).mean, rel=1e-2)
    np.testing.assert_allclose(values["clip_score"], torch.cosine_similarity(drawn, texts).numpy(), atol=2e-3)
    np.testing.assert_allclose(values["clip_i"], torch.cosine_similarity(drawn, real).numpy(), atol=2e-3)
    assert place.found.details["fid"]["distance"] == pytest.approx(frechet(drawn, real).distance, rel=1e-2)


def test_the_same_again_is_the_same_and_another_generator_is_another(place: Place) -> None:
    again = evaluate_synthesis("generator", place.pictures, "scorer", pictures=6, steps=2, guidance=2)
    for name, values in place.found.values.items():
        assert (again.values[name] == values).all()
    tiny_stable_diffusion(place.root / "other", seed=3)
    other = evaluate_synthesis("other", place.pictures, "scorer", pictures=2, steps=2, guidance=2)
    assert other.ids == [place.pictures.ids[0], place.pictures.ids[4]]
    assert (other.values["clip_i"] != again.values["clip_i"][[0, 3]]).all()


def test_blank_pictures_are_counted_and_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gen2real.generation.drawing.is_blank", lambda pixels: True)
    found = evaluate_synthesis("generator", place.pictures, "scorer", pictures=4, steps=1)
    assert found.faults == 4
    assert any(note.startswith("4 of 4 drawn pictures are blank") for note in found.notes)
    assert place.found.faults == 0
    assert not any("blank" in note for note in place.found.notes)


def test_an_image_encoder_without_texts_scores_as_well(place: Place) -> None:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14, mlp_ratio=2
    )
    model = Dinov2Model(config).eval()
    model.save_pretrained(place.root / "dino")
    CLIPImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_std=[0.2, 0.2, 0.2]
    ).save_pretrained(place.root / "dino")
    encoder = load_image_encoder("dino")
    assert encoder.encoder is None
    assert (encoder.preprocess.size, encoder.preprocess.std) == (28, (0.2, 0.2, 0.2))
    pixels = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        assert torch.allclose(encoder.vision(pixels), model(pixel_values=pixels).pooler_output, atol=1e-6)
    found = evaluate_synthesis("generator", place.pictures, "dino", pictures=4, steps=1)
    assert set(found.values) == {"kernel_distance", "clip_i"}
    assert found.details["dimension"] == 24
    colour_set(place.root / "generated", per_class=2)
    gap = gen2real_("gap", "generated", "set", "--encoder", "dino", "--json")
    assert gap.code == 0, gap.err
    assert gap.value["kernel"]["subset_size"] == 8


def test_a_dual_encoder_is_an_image_encoder(place: Place) -> None:
    encoder = load_image_encoder("scorer")
    assert encoder.encoder is not None
    assert encoder.vision is encoder.encoder.vision


def test_what_cannot_be_measured_is_told(place: Place, tmp_path: Path) -> None:
    silent = ImageSet.write(tmp_path / "silent", [{**row, "captions": []} for row in _rows(place)], ())
    with pytest.raises(ImageSetError, match="has no captions on its 8 kept picture"):
        evaluate_synthesis("generator", silent, "scorer")
    with pytest.raises(ImageSetError, match="to compare with; expected at least 2"):
        evaluate_synthesis("generator", place.pictures.select([0]), "scorer")
    with pytest.raises(ModelError, match="nowhere"):
        evaluate_synthesis("generator", place.pictures, "nowhere")
    with pytest.raises(ModelError, match="nowhere"):
        evaluate_synthesis("nowhere", place.pictures, "scorer")
    # A model that reads only texts.
    shutil.copytree(place.root / "generator" / "text_encoder", tmp_path / "reader")
    shutil.copy(place.root / "scorer" / "preprocessor_config.json", tmp_path / "reader")
    with pytest.raises(ModelError, match="looks at no pictures: it takes input_ids"):
        load_image_encoder(tmp_path / "reader")


def _rows(place: Place) -> list[dict[str, object]]:
    rows = place.pictures.table.select(["id", "path", "origin", "sha256", "kept"]).to_pylist()
    return [{**row, "path": str(place.pictures.root / row["path"])} for row in rows]


def test_pictures_without_a_caption_are_left_out_aloud(place: Place, tmp_path: Path) -> None:
    rows = [{**row, "captions": ["a thing"] if number else [" "]} for number, row in enumerate(_rows(place))]
    mixed = ImageSet.write(tmp_path / "mixed", rows, ())
    with pytest.warns(UserWarning, match="1 of 8 picture"):
        found = evaluate_synthesis("generator", mixed, "scorer", pictures=None, steps=1)
    assert len(found.ids) == 7


def test_the_command_on_the_kit(place: Place) -> None:
    """As a user types it: few pictures, few steps, real (if small) models."""
    made = gen2real_("kit", "home", "--count", 4, "--captions", 1, "--out", "home", "--json")
    assert made.code == 0, made.err
    words = ["evaluate", kit.folder("generator"), "home", "--task", "synthesis", "--scorer", kit.folder("scorer")]
    done = gen2real_(*words, "--pictures", 4, "--steps", 3, "--guidance", 2, "--json")
    assert done.code == 0, done.err
    value = done.value
    assert value["pictures"] == 4
    assert (value["drawing"]["steps"], value["drawing"]["guidance"]) == (3, 2)
    assert list(value["measures"]) == ["kernel_distance", "clip_score", "clip_i"]
    for interval in value["measures"].values():
        assert interval["low"] <= interval["mean"] <= interval["high"]
        assert interval["count"] == 4
    # The kit's generator draws what the caption says, and not noise: far from chance in another encoder's eyes.
    assert value["measures"]["clip_i"]["mean"] > 0.5
    assert "no full rank" in value["notes"][0]


def test_the_command_says_what_the_function_finds(place: Place) -> None:
    words = ["evaluate", "generator", "set", "--task", "synthesis", "--scorer", "scorer"]
    done = gen2real_(*words, "--pictures", 6, "--steps", 2, "--guidance", 2, "--json")
    assert done.code == 0, done.err
    assert done.value == json.loads(json.dumps(place.found.to_json()))
    expected = bootstrap_interval(place.found.values["clip_score"]).to_json()
    assert done.value["measures"]["clip_score"] == expected


def test_people_read_a_table(place: Place) -> None:
    done = gen2real_("evaluate", "generator", "set", "--scorer", "scorer", "--pictures", 4, "--steps", 1)
    assert done.code == 0, done.err
    lines = {line.split("  ")[0].strip(): line for line in done.out.splitlines()}
    assert {"kernel distance ↓", "CLIP-score", "CLIP-I", "FID ↓", "CMMD ↓", "pictures"} <= set(lines)
    assert "4, 1 steps of" in lines["pictures"]
    assert "Note: FID of 4 pictures is biased upwards" in done.out
