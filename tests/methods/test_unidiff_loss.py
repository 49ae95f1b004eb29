"""UniDiff's step: what each loss reaches, that it is finite, and that nothing runs which no loss looks at."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from joint_runs import JointWorld, Step, joint_config, joint_world, reached, rescheduled
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, normalize

from gen2real.methods.unidiff.network import as_clip_sees

FORMS = ("features", "relational", "decoded")
DIRECTIONS = ("both", "clip_to_diffusion", "diffusion_to_clip")


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> JointWorld:
    return joint_world(tmp_path_factory.mktemp("joint"))


@pytest.fixture
def step(joint: JointWorld, tmp_path: Path) -> Any:
    def make(*, heads_only: bool = False, **changes: Any) -> Step:
        return Step(joint_config(joint, tmp_path / "run", **changes), heads_only=heads_only)

    return make


# Rows of the truth table: RSC alone, every part in training. The text tower is reached through the denoiser's states.
REACHED = {
    "both": {"image", "text", "unet"},
    "clip_to_diffusion": {"text", "unet"},
    "diffusion_to_clip": {"image"},
}


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("form", FORMS)
def test_consistency_teaches_only_whom_it_shall(
    step: Any, joint: JointWorld, form: str, direction: str, shared: bool
) -> None:
    one = step(
        consistency__form=form,
        consistency__direction=direction,
        consistency__t_max=1.0,
        models__generator=str(joint.generator if shared else joint.stranger),
    )
    assert one.training.joint.shared is shared
    expected = set(REACHED[direction])
    if not shared:
        expected -= {"text"}
    if form == "features" and direction != "diffusion_to_clip":
        expected |= {"head"}
    gradients = one.gradients("rsc")
    assert reached(gradients) == expected
    # The parts that are not reached are in training all the same: the table says something.
    assert {"encoder.logit_scale", "unet.conv_out.weight"} <= set(gradients)
    assert any(name.startswith("encoder.text") for name in gradients)
    assert any(name.startswith("encoder.vision") for name in gradients)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
@pytest.mark.parametrize(("term", "parts"), [("itc", {"image", "text", "scale"}), ("is", {"unet", "text"})])
def test_the_other_losses_reach_their_own(
    step: Any, joint: JointWorld, term: str, parts: set[str], shared: bool
) -> None:
    one = step(models__generator=str(joint.generator if shared else joint.stranger))
    assert reached(one.gradients(term)) == (parts - {"text"} if term == "is" and not shared else parts)


ARMS: dict[str, dict[str, Any]] = {
    "itc": {"synthesis__weight": 0, "consistency__weight": 0},
    "is": {"contrastive__weight": 0, "consistency__weight": 0},
    "itc+is": {"consistency__weight": 0},
    "all": {},
    "patches": {"consistency__pooling": "patches", "consistency__loss": "cosine"},
    "patches alone": {
        "contrastive__weight": 0,
        "synthesis__weight": 0,
        "consistency__pooling": "patches",
        "consistency__loss": "cosine",
    },
    "fixed scale": {"contrastive__scale": "fixed", "consistency__block": "up"},
    "frozen text": {"text__mode": "frozen"},
    "frozen clip": {"text__mode": "frozen", "image__mode": "frozen"},
    "decoded, ema": {"consistency__form": "decoded", "consistency__judge": "ema"},
    "lora": {"image__mode": "lora", "text__mode": "lora", "unet__mode": "lora"},
    "is + one way": {"contrastive__weight": 0, "consistency__direction": "clip_to_diffusion"},
    **{
        f"rsc alone: {form}, {block}, {direction}": {
            "contrastive__weight": 0,
            "synthesis__weight": 0,
            "consistency__form": form,
            "consistency__block": block,
            "consistency__direction": direction,
        }
        for form, block, direction in (
            ("features", "down", "both"),
            ("features", "mid", "diffusion_to_clip"),
            ("relational", "up", "clip_to_diffusion"),
            ("decoded", "mid", "both"),
        )
    },
}


SEPARATE = ("all", "is", "frozen text", "lora")


@pytest.mark.parametrize(
    ("arm", "shared"), [*((arm, True) for arm in ARMS), *((arm, False) for arm in SEPARATE)], ids=str
)
def test_every_weight_in_training_gets_a_gradient(step: Any, joint: JointWorld, arm: str, shared: bool) -> None:
    """A wrapper for several processes waits for each of them; and what gets none must not shrink by weight decay."""
    one = step(models__generator=str(joint.generator if shared else joint.stranger), **ARMS[arm])
    gradients = one.gradients()
    assert gradients
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    # Also where no picture of the batch is clean enough for RSC.
    if one.batch.denoised is not None:
        late = one.at(999).gradients()
        assert [name for name, gradient in late.items() if gradient is None] == []
        assert all(bool(gradient.isfinite().all()) for gradient in late.values() if gradient is not None)


NOISE: dict[str, dict[str, Any]] = {
    "v": {"prediction_type": "v_prediction"},
    "v, zero SNR": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
    "epsilon, zero SNR": {"rescale_betas_zero_snr": True},
}


@pytest.fixture(scope="module", params=NOISE)
def noisy(request: pytest.FixtureRequest, joint: JointWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generator with another noise schedule, loaded once for all forms."""
    return rescheduled(joint.generator, tmp_path_factory.mktemp("noisy") / "generator", **NOISE[request.param])


@pytest.mark.parametrize("form", FORMS)
def test_finite_from_the_cleanest_to_the_noisiest(step: Any, noisy: Path, form: str) -> None:
    one = step(
        models__generator=str(noisy),
        consistency={"form": form, "t_max": 1.0, "weighting": "snr"},
        synthesis__min_snr=5.0,
    )
    diffusion = one.training.joint.diffusion
    assert float(diffusion.alphas_cumprod[-1]) == (
        0.0 if diffusion.scheduler.config.rescale_betas_zero_snr else pytest.approx(0.0047, abs=1e-4)
    )
    for time in (0, 999):
        values, gradients = one.at(time).both()
        assert all(map(math.isfinite, values.values())), values
        assert all(bool(own.isfinite().all()) for own in gradients.values() if own is not None)


def test_noise_above_the_limit_is_left_out(step: Any) -> None:
    one = step(consistency__t_max=0.3)
    assert one.at(299).values()["rsc"] > 0.01
    assert one.at(300).values()["rsc"] == 0


def test_snr_weighting_is_a_weighted_mean(step: Any) -> None:
    """Two rows of SNR above 5 and six of less: min(SNR, 5)/5, by hand from the network's own features."""
    one = step(consistency={"t_max": 1.0, "weighting": "snr", "loss": "cosine"})
    times = torch.tensor([10, 50, 200, 300, 400, 500, 600, 700])
    one.batch = replace(one.batch, denoised=replace(one.batch.denoised, times=times))
    seen: dict[str, Tensor] = {}
    one.network.register_forward_hook(lambda _, __, found: seen.update(found))
    value = one.terms()["rsc"].detach()
    alphas = one.training.joint.diffusion.alphas_cumprod[times]
    weights = (alphas / (1 - alphas)).clamp(max=5) / 5
    cosine = (normalize(seen["image"], dim=1) * normalize(seen["consistent"], dim=1)).sum(1).detach()
    torch.testing.assert_close(value, ((1 - cosine) * weights).sum() / weights.sum())


class Counted:
    """How many rows went through a module."""

    def __init__(self, module: nn.Module) -> None:
        self.rows: list[int] = []
        module.register_forward_hook(
            lambda _, given, named, __: self.rows.append(len(next(iter((*given, *named.values()))))), with_kwargs=True
        )


@pytest.fixture
def counted() -> Any:
    def make(one: Step) -> dict[str, list[int]]:
        vision: Any = one.network.encoder.vision
        text: Any = one.network.encoder.text
        modules = {"image": vision.vision_model, "text": text.text_model, "unet": one.network.unet}
        modules["vae"] = one.training.joint.diffusion.vae.decoder
        found = {name: Counted(module).rows for name, module in modules.items()}
        with patch.object(one.training.joint.diffusion.vae, "encode", side_effect=AssertionError("latents are kept")):
            one.terms()
        return found

    return make


def test_only_what_a_loss_looks_at_runs(step: Any, counted: Any) -> None:
    itc, alone = step(**ARMS["itc"]), step(**ARMS["is"])
    found = counted(itc)
    assert found["image"] == [8]
    assert found["unet"] == found["vae"] == []
    assert itc.batch.denoised is None
    found = counted(alone)
    assert found["image"] == found["vae"] == []
    assert found["unet"] == [8]


def test_texts_are_read_once_for_both_losses(step: Any, counted: Any) -> None:
    one = step(synthesis__caption_dropout=0.5)
    conditions = one.batch.denoised.conditions.tolist()
    empty = one.training.data.empty
    assert 0 < conditions.count(empty) < 8
    distinct = {*one.batch.captions.tolist(), *conditions}
    assert counted(one)["text"] == [len(distinct)]
    assert len(distinct) <= 5 < 8 + 8
    assert counted(step(text__mode="frozen"))["text"] == []


def test_a_part_of_the_batch_may_be_denoised(step: Any, counted: Any) -> None:
    found = counted(step(synthesis__pictures=3))
    assert (found["image"], found["unet"]) == ([8], [3])


def test_only_clean_pictures_are_decoded(step: Any, counted: Any) -> None:
    one = step(consistency={"form": "decoded", "t_max": 0.5})
    times = torch.tensor([10, 600, 499, 500, 900, 0, 999, 501])
    one.batch = replace(one.batch, denoised=replace(one.batch.denoised, times=times))
    assert counted(one)["vae"] == [3]


def test_the_three_losses_are_the_textbook_s(step: Any) -> None:
    """From stock modules, picture by picture: one text pass gives CLIP's embedding and the denoiser's states."""
    one = step(synthesis__caption_dropout=0.5, consistency__t_max=1.0)
    encoder, made = one.training.joint.encoder, one.training.joint.diffusion
    batch, data = one.batch, one.training.data
    terms = one.values()
    with torch.no_grad():
        texts = [data.prompts[number] for number in batch.captions.tolist()]
        image = normalize(encoder.encode_image(encoder.preprocess.normalize(data.clip_pixels(batch.pixels))), dim=1)
        # Padded to the longest here, to 32 tokens in the step.
        text = normalize(encoder.encode_text(texts), dim=1)
        logits = encoder.logit_scale.exp() * image @ text.T
        same = (batch.captions[:, None] == batch.captions).float()
        assert same.sum() > 8, "some captions are equal, and each other's positives"
        target = same / same.sum(1, keepdim=True)
        itc = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        told = [data.prompts[number] for number in batch.denoised.conditions.tolist()]
        pipeline = made.pipeline()
        states, _ = pipeline.encode_prompt(told, "cpu", 1, False)
        mean, std = batch.denoised.moments
        clean = mean + std * batch.denoised.posterior
        noised = pipeline.scheduler.add_noise(clean, batch.denoised.noise, batch.denoised.times)
        blocks: list[Tensor] = []
        made.unet.mid_block.register_forward_hook(lambda _, __, out: blocks.append(out))
        prediction = made.unet(noised, batch.denoised.times, encoder_hidden_states=states).sample
        theirs = normalize(one.network.head(blocks[0].mean(dim=(2, 3))), dim=1)
        similarity, own = image @ theirs.T / 0.07, torch.arange(8)
        rsc = (cross_entropy(similarity, own) + cross_entropy(similarity.T, own)) / 2
    assert terms["itc"] == pytest.approx(float(itc), rel=1e-5)
    assert terms["is"] == pytest.approx(float(mse_loss(prediction, batch.denoised.noise)), rel=1e-5)
    assert terms["rsc"] == pytest.approx(float(rsc), rel=1e-5)
    assert terms["loss"] == pytest.approx(terms["itc"] + terms["is"] + 0.25 * terms["rsc"], rel=1e-6)


def test_a_text_tower_of_its_own_stays_the_denoiser_s(step: Any, joint: JointWorld) -> None:
    one = step(models__generator=str(joint.stranger))
    made, data = one.training.joint.diffusion, one.training.data
    told: list[Tensor] = []
    made.unet.register_forward_pre_hook(
        lambda _, __, named: told.append(named["encoder_hidden_states"]), with_kwargs=True
    )
    one.terms()
    texts = [data.prompts[number] for number in one.batch.denoised.conditions.tolist()]
    with torch.no_grad():
        states, _ = made.pipeline().encode_prompt(texts, "cpu", 1, False)
    torch.testing.assert_close(told[0], states, rtol=0, atol=1e-5)


@pytest.mark.parametrize("patches", [False, True])
def test_chunks_change_nothing(step: Any, patches: bool) -> None:
    """ITC's batch in parts of 3: the same losses and gradients, also of the others, which use the same states."""
    changes = {"consistency__pooling": "patches", "consistency__loss": "cosine"} if patches else {}
    whole, parts = step(**changes), step(contrastive__chunk=3, **changes)
    (values, expected), (others, found) = whole.both(), parts.both()
    assert values == pytest.approx(others, rel=1e-6)
    largest = max(float(own.abs().max()) for own in expected.values() if own is not None)
    for name, own in expected.items():
        assert float((own - found[name]).abs().max()) < 1e-6 * max(largest, 1), name


def test_a_judge_sees_what_a_file_would_show() -> None:
    class Plain:
        size, mean, std = 4, (0.5, 0.4, 0.3), (0.2, 0.3, 0.5)

    pictures = torch.linspace(-1.5, 1.5, 48).reshape(1, 3, 4, 4).requires_grad_()
    seen = as_clip_sees(pictures, Plain())  # type: ignore[arg-type]
    unit = (pictures.detach() / 2 + 0.5).clamp(0, 1)
    for channel in range(3):
        expected = (unit[:, channel] - Plain.mean[channel]) / Plain.std[channel]
        torch.testing.assert_close(seen[:, channel].detach(), expected)
    seen.sum().backward()
    assert pictures.grad is not None
    outside = pictures.detach().abs() > 1
    assert bool((pictures.grad[outside] == 0).all())
    assert as_clip_sees(torch.zeros(2, 3, 9, 9), Plain()).shape == (2, 3, 4, 4)  # type: ignore[arg-type]


def test_the_scale_stays_at_a_hundred_and_can_come_down(step: Any) -> None:
    one = step(**ARMS["itc"])
    with torch.no_grad():
        one.network.encoder.logit_scale.fill_(math.log(100))
        expected = one.values()["itc"]
        one.network.encoder.logit_scale.fill_(math.log(200))
    assert one.values()["itc"] == pytest.approx(expected, rel=1e-5)
    assert reached(one.gradients("itc")) == {"image", "text", "scale"}


def test_conflict_is_logged_and_operated_on(step: Any) -> None:
    """With surgery the update's gradient is PCGrad's: what is opposed is gone, what agrees stays."""
    plain, operated = step(conflict__log_every=1), step(conflict__surgery="pcgrad", conflict__log_every=None)
    values, one = plain.both()
    told = {name: value for name, value in values.items() if name.startswith("cosine_")}
    assert set(told) == {
        "cosine_image_itc_rsc", "cosine_text_itc_is", "cosine_text_itc_rsc", "cosine_text_is_rsc", "cosine_unet_is_rsc"
    }  # fmt: skip
    by_hand: dict[str, Tensor] = {}
    for name in ("itc", "is"):
        gradients = plain.gradients(name)
        shared = [key for key in gradients if key.startswith("encoder.text.text_model")]
        by_hand[name] = torch.cat([gradients[key].flatten() for key in shared])
    cosine = float(torch.nn.functional.cosine_similarity(by_hand["itc"], by_hand["is"], dim=0))
    assert told["cosine_text_itc_is"] == pytest.approx(cosine, abs=1e-5)
    opposed = [name.split("_")[1] for name, value in told.items() if value < 0]
    operated_values, other = operated.both()
    assert not [name for name in operated_values if name.startswith("cosine_")]
    differing = {
        name.split(".")[0 if name.startswith("unet") else 1] for name in one if not torch.equal(one[name], other[name])
    }
    names = {"image": "vision", "text": "text", "unet": "unet"}
    assert differing == {names[part] for part in opposed}
    assert operated_values["loss"] == values["loss"]


def test_the_head_learns_alone_first(step: Any) -> None:
    one = step(heads_only=True, conflict__heads_first=2)
    values, gradients = one.both()
    assert set(values) == {"loss", "rsc"}
    assert "head" in reached(gradients)
