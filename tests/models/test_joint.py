"""A CLIP and a Stable Diffusion with one text tower: shared, tuned, merged, and saved as two plain folders."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPModel

from gen2real import kit
from gen2real.errors import ModelError
from gen2real.methods.settings import LoraSettings
from gen2real.methods.unidiff.settings import ModelSettings
from gen2real.models import Joint, load_dual_encoder, load_joint
from gen2real.models.joint import Part
from gen2real.pipelines import libraries_quiet
from tiny import tiny_clip, tiny_siglip, tiny_stable_diffusion

LORA = LoraSettings(rank=2, alpha=4)
PARTS: tuple[Part, ...] = ("image", "text", "unet")


@dataclass(frozen=True)
class Place:
    root: Path

    def joint(
        self,
        text_encoder: Literal["auto", "shared", "separate"] = "auto",
        clip: str = "clip",
        generator: str = "generator",
    ) -> Joint:
        folders = {"clip": str(self.root / clip), "generator": str(self.root / generator)}
        return load_joint(ModelSettings(**folders, text_encoder=text_encoder))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("joint")
    tiny_stable_diffusion(root / "generator", clip=tiny_clip(root / "clip"))
    tiny_stable_diffusion(root / "stranger", text_seed=7)
    tiny_siglip(root / "siglip")
    return Place(root)


@pytest.fixture(scope="module")
def loaded(place: Place) -> Joint:
    """To be copied by whoever changes it."""
    return place.joint()


def test_the_tower_is_one_where_the_two_fit(place: Place, loaded: Joint) -> None:
    joint = loaded
    assert joint.shared
    assert joint.diffusion.text_encoder is joint.encoder.text.text_model
    assert place.joint("shared").shared
    separate = place.joint("separate")
    assert not separate.shared
    assert separate.diffusion.text_encoder is not separate.encoder.text.text_model
    assert "the recipe says separate" in separate.why
    assert not any(p.requires_grad for whole in (joint.encoder, joint.diffusion) for p in whole.parameters())


def test_half_precision_does_not_part_them(place: Place) -> None:
    with libraries_quiet():
        half = StableDiffusionPipeline.from_pretrained(place.root / "generator", torch_dtype=torch.bfloat16)
        half.save_pretrained(place.root / "half")
    assert place.joint("shared", generator="half").shared


def test_other_weights_stay_apart_and_shared_is_refused(place: Place) -> None:
    joint = place.joint(generator="stranger")
    assert not joint.shared
    assert "differ in weights" in joint.why
    with pytest.raises(ModelError, match=r"differ in weights .*Set\s+models\.text_encoder=separate"):
        place.joint("shared", generator="stranger")


def test_other_shapes_and_vocabularies_are_told() -> None:
    clip, generator = str(kit.folder("scorer")), str(kit.folder("generator"))
    with pytest.raises(ModelError, match=r"differ in shape \(embeddings\.position_embedding\.weight \(48, 96\) and"):
        load_joint(ModelSettings(clip=clip, generator=generator, text_encoder="shared"))
    fitting = load_joint(ModelSettings(clip=str(kit.folder("clip")), generator=generator))
    assert fitting.diffusion.text_encoder is fitting.encoder.text.text_model


def test_another_vocabulary_is_told(place: Place) -> None:
    joint = load_joint(ModelSettings(clip=str(kit.folder("clip")), generator=str(place.root / "generator")))
    assert not joint.shared
    assert "vocabularies differ (CLIP's has 714 tokens, the generator's 514)" in joint.why


def test_what_is_no_clip_is_refused(place: Place) -> None:
    with pytest.raises(ModelError, match=r"is 'siglip'; UniDiff tunes a CLIPModel.*Set models\.clip to one"):
        place.joint(clip="siglip")


@pytest.mark.parametrize("mode", ["frozen", "lora", "full"])
def test_a_part_is_tuned_alone(loaded: Joint, mode: Literal["frozen", "lora", "full"]) -> None:
    for part in PARTS:
        joint = copy.deepcopy(loaded)
        count = len(list(joint.part(part).parameters()))
        trained = joint.tune(part, mode, LORA)
        wanting = [p for whole in (joint.encoder, joint.diffusion.unet) for p in whole.parameters() if p.requires_grad]
        assert {id(p) for p in wanting} == {id(p) for p in trained}
        # Two layers of four projections and a pair of matrices each; three of the UNet's blocks attend, each twice.
        pairs = {"image": 16, "text": 16, "unet": 4 * 2 * 2 * 4}
        assert len(trained) == {"frozen": 0, "lora": pairs[part], "full": count}[mode]
        assert joint.states_are_fixed == (part != "text" or mode == "frozen")


def test_layers_that_are_not_there_are_refused(loaded: Joint) -> None:
    with pytest.raises(ModelError, match="no layer of the denoiser matches the LoRA target 'q_proj'"):
        copy.deepcopy(loaded).tune("unet", "lora", LoraSettings(targets=("q_proj",)))


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_tuned_models_load_in_stock_libraries(
    place: Place, loaded: Joint, tmp_path: Path, mode: Literal["lora", "full"]
) -> None:
    joint = copy.deepcopy(loaded)
    with torch.no_grad():
        for part in PARTS:
            for parameter in joint.tune(part, mode, LORA):
                parameter.add_(torch.randn_like(parameter) * 0.05)
    latents, times = torch.randn(1, *joint.diffusion.latent_shape), torch.tensor([40])
    pixels, ids = torch.randn(2, 3, 32, 32), joint.diffusion.ids(["a red ball"])
    with torch.no_grad():
        states = joint.diffusion.states(ids)
        prediction = joint.diffusion.unet(latents, times, states).sample
        image, text = joint.encoder.encode_image(pixels), joint.encoder.encode_text(["a red ball"])
    if mode == "lora":
        with pytest.raises(ModelError, match=r"call finish\(\) before"):
            joint.save(tmp_path / "run")
    joint.finish()
    assert joint.diffusion.text_encoder is joint.encoder.text.text_model
    joint.save(tmp_path / "run", made_by={"seed": 3}, findings="It sees.")
    with libraries_quiet(), torch.no_grad():
        clip = CLIPModel.from_pretrained(tmp_path / "run" / "model")
        pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "run" / "generator")
        found = clip.get_image_features(pixel_values=pixels).pooler_output
        read = pipeline.text_encoder(ids)[0]
        torch.testing.assert_close(found, image, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(read, states, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(pipeline.unet(latents, times, read).sample, prediction, rtol=1e-4, atol=1e-4)
    again = load_dual_encoder(tmp_path / "run" / "model")
    torch.testing.assert_close(again.encode_text(["a red ball"]).detach(), text, rtol=1e-4, atol=1e-5)
    # The tuned tower lies in both, so the two are shared again, from the run's folder too.
    (tmp_path / "run" / "recipe.json").write_text("{}")
    both = load_joint(ModelSettings(clip=str(tmp_path / "run"), generator=str(tmp_path / "run"), text_encoder="shared"))
    assert both.shared
    assert not place.joint(clip=str(tmp_path / "run")).shared
    for name in ("model", "generator"):
        card = (tmp_path / "run" / name / "README.md").read_text()
        assert "It sees." in card
        assert '"seed": 3' in card
