"""UniDiff's data: both models see one crop, what is kept equals what is computed, batches are a pure function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captioned_sets import captioned, config, names, pair
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from gen2real.errors import ImageSetError, UnreadablePictures
from gen2real.imagesets import loading as loading_room
from gen2real.imagesets.seeds import row_generator
from gen2real.methods.unidiff.data import Denoised, JointBatch, JointData, resized_down
from gen2real.methods.unidiff.kept import kept_states, kept_text_features, kept_views
from gen2real.methods.unidiff.settings import UniDiffConfig
from gen2real.models.joint import Joint, load_joint
from gen2real.training import distributed
from tiny import tiny_clip

PICTURES = 16


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("joint")


@pytest.fixture(scope="module")
def joint(root: Path) -> Joint:
    return pair(root)


@pytest.fixture(scope="module")
def pictures(root: Path) -> Path:
    return captioned(root / "pictures", PICTURES)


def batch(data: JointData, number: int = 0, **more: Any) -> JointBatch:
    return next(data.batches(**more)(range(number, number + 1)))[0]


def denoised(one: JointBatch) -> Denoised:
    assert one.denoised is not None
    return one.denoised


def canvas_of(path: Path) -> Tensor:
    """The middle square of a picture of 60 × 40."""
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[:, :, 10:50]


def crop_by_hand(square: Tensor, generator: torch.Generator) -> Tensor:
    """Share of the area, position: the numbers that the generator gives first; resized to 32 pixels."""
    share, _, across, down = torch.rand((1, 10, 4), generator=generator, dtype=torch.float64)[0, 0].tolist()
    side = round(math.sqrt((0.4 + 0.2 * share) * 40 * 40))
    top, left = int(down * (41 - side)), int(across * (41 - side))
    crop = square[None, :, top : top + side, left : left + side]
    return interpolate(crop, (32, 32), mode="bicubic", antialias=True, align_corners=False)[0]


def test_both_views_are_one_crop_and_one_flip(joint: Joint, pictures: Path) -> None:
    data = JointData(config(pictures, data__views=None), joint)
    assert (data.size, data.clip_size, data.generator_size) == (32, 16, 32)
    flips = 0
    for number in range(2):
        found = batch(data, number)
        assert found.pixels.shape == (6, 3, 32, 32)
        rows = data.sampler(0).batch(number)
        for place, (_, row) in enumerate(rows):
            whole = crop_by_hand(canvas_of(data.train.image_set.paths[row]), row_generator(0, number, place))
            flipped = torch.equal(found.pixels[place], whole.flip(-1))
            assert flipped or torch.equal(found.pixels[place], whole)
            flips += flipped
        # Each model's view is that crop; CLIP's is its half, by the same filter.
        assert torch.equal(data.generator_view(found.pixels), found.pixels)
        half = interpolate(found.pixels.float(), (16, 16), mode="bicubic", antialias=True).round().clamp(0, 255)
        mean, std = (torch.tensor(own).view(3, 1, 1) for own in (data.clip_preprocess.mean, data.clip_preprocess.std))
        assert torch.allclose(data.clip_view(found.pixels), (half / 255 - mean) / std, atol=1e-5)
    assert 0 < flips < 12


def test_the_crop_is_cut_at_the_larger_size_and_resized_down_for_the_generator(
    joint: Joint, pictures: Path, root: Path
) -> None:
    large = load_joint(names(tiny_clip(root / "large", image_size=48), joint.diffusion.name))
    data = JointData(config(pictures, data__views=None), large)
    found = batch(data)
    assert found.pixels.shape[-1] == data.size == 48
    assert data.generator_view(found.pixels).shape[-1] == 32
    assert torch.equal(data.clip_pixels(found.pixels), found.pixels)
    # The same place in the same crop: what is left of the finer one at the coarser size is the coarser one.
    small = batch(JointData(config(pictures, data__views=None), joint)).pixels.float()
    distance = (data.generator_view(found.pixels).float() - small).abs().mean()
    assert distance < 0.3 * (small.flip(0) - small).abs().mean()
    assert found.latents(data, large.diffusion).shape == (6, 4, 16, 16)


def test_whole_crops_are_what_evaluation_sees(joint: Joint, pictures: Path) -> None:
    data = JointData(config(pictures, data__crop_scale=[1, 1], data__flip=0, data__views=None), joint)
    seen = torch.stack([data.train.training([row], row_generator(row))[0] for row in range(4)]).float()
    # Two filters, PIL's in integers and torch's: a step of grey apart on pictures of noise.
    assert (seen - data.train.evaluation(range(4)).float()).abs().max() <= 1


def test_what_is_kept_is_what_is_computed(joint: Joint, pictures: Path) -> None:
    data = JointData(config(pictures), joint)
    kept = kept_views(data)
    assert kept is not None
    assert kept.moments is not None
    assert len(kept.pixels) == 2
    found = batch(data)
    known = denoised(found)
    assert known.moments is not None
    fresh = data.training_pictures(data.train.image_set)
    own_views = set()
    for place, (_, row) in enumerate(data.sampler(0).batch(0)):
        views = [view for view in (0, 1) if torch.equal(kept.pixels[view][row], found.pixels[place])]
        own_views.update(views)
        number = int.from_bytes(sha256(f"p{row}".encode()).digest()[:8], "big")
        crop = fresh.training([row], row_generator(0, views[0], number))
        assert torch.equal(found.pixels[place : place + 1], resized_down(crop, 16))
        mean, std = joint.diffusion.moments(crop)
        assert torch.allclose(known.moments[0][place], mean[0], atol=1e-6)
        assert torch.allclose(known.moments[1][place], std[0], atol=1e-6)
        latents = mean + std * known.posterior[place]
        assert torch.allclose(found.latents(data, joint.diffusion)[place], latents[0], atol=1e-5)
    assert own_views == {0, 1}


def test_texts_are_read_once_the_empty_one_too(joint: Joint, pictures: Path) -> None:
    data = JointData(config(pictures, text__mode="frozen"), joint)
    states, features = kept_states(data), kept_text_features(data)
    assert states is not None
    assert features is not None
    assert data.prompts == ["a red square", "a green square", "a blue one", "another one", ""]
    with torch.no_grad():
        for number in (1, data.empty):
            alone = joint.diffusion.states(joint.diffusion.ids([data.prompts[number]]))[0]
            assert torch.allclose(states[number], alone, atol=1e-5)
        assert torch.allclose(features, joint.encoder.encode_text(data.texts), atol=1e-5)


@pytest.mark.parametrize(
    ("shared", "mode", "states", "features"),
    [
        (True, "full", False, False),
        (True, "lora", False, False),
        (True, "frozen", True, True),
        (False, "full", True, False),
    ],
)
def test_only_what_is_frozen_is_kept(
    joint: Joint, pictures: Path, shared: bool, mode: str, states: bool, features: bool
) -> None:
    data = JointData(config(pictures, text__mode=mode), replace(joint, shared=shared))
    assert (kept_states(data) is not None) == states
    assert (kept_text_features(data) is not None) == features


def test_a_step_with_views_decodes_nothing_and_runs_nothing(
    joint: Joint, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = JointData(config(pictures, text__mode="frozen"), joint)
    before = data.batches()
    assert kept_states(data) is not None
    assert kept_text_features(data) is not None

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(loading_room, "decode", forbidden)
    monkeypatch.setattr(joint.diffusion.vae, "encode", forbidden)
    monkeypatch.setattr(joint.diffusion.text_encoder, "forward", forbidden)
    monkeypatch.setattr(joint.encoder.text, "forward", forbidden)
    # Nor is anything computed again by a run on the same pictures.
    again = JointData(config(pictures, text__mode="frozen"), joint)
    assert kept_states(again) is not None
    assert kept_text_features(again) is not None
    for batches in (before, again.batches()):
        for (one,) in batches(range(4)):
            assert one.latents(data, joint.diffusion).shape == (6, 4, 16, 16)
            assert data.clip_view(one.pixels).shape == (6, 3, 16, 16)


def same(one: JointBatch, other: JointBatch) -> bool:
    mine, theirs = denoised(one), denoised(other)
    pairs = [(one.pixels, other.pixels), (one.captions, other.captions)]
    pairs += [(getattr(mine, name), getattr(theirs, name)) for name in ("conditions", "times", "noise", "posterior")]
    if mine.moments is not None and theirs.moments is not None:
        pairs += zip(mine.moments, theirs.moments, strict=True)
    return all(torch.equal(a, b) for a, b in pairs) and (mine.own, one.rows) == (theirs.own, other.rows)


@pytest.mark.parametrize("views", [None, 2])
def test_a_batch_is_a_function_of_seed_and_update(joint: Joint, pictures: Path, views: int | None) -> None:
    # A resumed run is a new process that asks for later updates first.
    whole = [one for (one,) in JointData(config(pictures, data__views=views), joint).batches()(range(5))]
    resumed = JointData(config(pictures, data__views=views, contrastive__chunk=2), joint)
    later = [one for (one,) in resumed.batches()(range(3, 5))]
    assert all(same(a, b) for a, b in zip(whole[3:], later, strict=True))
    assert not same(whole[0], whole[2])
    assert not same(whole[0], batch(resumed, seed=1))
    seen = [row for number in range(2) for _, row in resumed.sampler(0).batch(number)]
    assert len(set(seen)) == 12


@pytest.mark.parametrize("seen", [None, 4, 1])
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_one_batch(
    joint: Joint, pictures: Path, monkeypatch: pytest.MonkeyPatch, processes: int, seen: int | None
) -> None:
    data = JointData(config(pictures, synthesis__pictures=seen), joint)
    whole = batch(data)
    parts = []
    for place in range(processes):
        monkeypatch.setattr(distributed, "world_size", lambda: processes)
        monkeypatch.setattr(distributed, "rank", lambda place=place: place)
        parts.append(batch(data))
    own, counts = denoised(whole), [denoised(part).own for part in parts]
    assert sum(counts) == own.own == (seen or 6)
    assert {part.rows for part in parts} == {6}
    assert {denoised(part).rows for part in parts} == {seen or 6}

    def joined(of: Callable[[Denoised], Tensor]) -> Tensor:
        return torch.cat([of(denoised(part))[:count] for part, count in zip(parts, counts, strict=True)])

    for name in ("conditions", "times", "noise", "posterior"):
        assert torch.equal(joined(attrgetter(name)), getattr(own, name))
    assert own.moments is not None
    assert torch.equal(joined(lambda one: one.moments[0]), own.moments[0])  # type: ignore[index]
    # The rows that the denoiser sees come first on every process, and CLIP's share is even.
    first = torch.cat([part.captions[:count] for part, count in zip(parts, counts, strict=True)])
    rest = torch.cat([part.captions[count:] for part, count in zip(parts, counts, strict=True)])
    assert torch.equal(torch.cat([first, rest]), whole.captions)
    pixels = [part.pixels[: len(part.captions)] for part in parts]
    together = [own[:count] for own, count in zip(pixels, counts, strict=True)]
    together += [own[count:] for own, count in zip(pixels, counts, strict=True)]
    assert torch.equal(torch.cat(together), whole.pixels)
    # A process that has none of them runs the denoiser on one all the same.
    assert all(len(denoised(part).times) == max(count, 1) for part, count in zip(parts, counts, strict=True))


def test_more_processes_than_pictures(joint: Joint, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = JointData(config(pictures, training__batch_size=2), joint)
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    found = batch(data)
    assert (len(found.captions), denoised(found).own) == (0, 0)
    assert len(found.pixels) == len(found.latents(data, joint.diffusion)) == 1


def test_only_so_many_pictures_of_a_batch_have_latents(joint: Joint, pictures: Path) -> None:
    whole = batch(JointData(config(pictures), joint))
    for views in (2, None):
        some = JointData(config(pictures, synthesis__pictures=2, data__views=views), joint)
        found = batch(some)
        assert len(found.pixels) == 6
        assert found.latents(some, joint.diffusion).shape[0] == 2
        # The rows are those that a batch of all begins with.
        assert torch.equal(denoised(found).noise, denoised(whole).noise[:2])
        assert torch.equal(denoised(found).times, denoised(whole).times[:2])


def test_crops_and_captions_do_not_depend_on_the_losses(joint: Joint, pictures: Path) -> None:
    whole = batch(JointData(config(pictures), joint))
    data = JointData(config(pictures, synthesis__weight=0, consistency__weight=0), joint)
    found = batch(data)
    assert found.denoised is None
    assert kept_views(data).moments is None
    assert kept_states(data) is None
    assert torch.equal(found.pixels, whole.pixels)
    assert torch.equal(found.captions, whole.captions)


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_captions_are_dropped_at_their_rate(joint: Joint, pictures: Path, rate: float) -> None:
    settings = config(pictures, synthesis__caption_dropout=rate, training__batch_size=16)
    data = JointData(settings, joint)
    batches = [one for (one,) in data.batches()(range(60))]
    dropped = torch.cat([denoised(one).conditions == data.empty for one in batches])
    count = len(dropped)
    assert abs(float(dropped.float().mean()) - rate) <= 4 * math.sqrt(rate * (1 - rate) / count)
    for one in batches[:5]:
        told = denoised(one).conditions
        assert torch.equal(told[told != data.empty], one.captions[told != data.empty])
    times = torch.cat([denoised(one).times for one in batches]).double()
    # Uniform over 0 … 999: mean 499.5, and the standard error of the mean is 288.7/√n.
    assert abs(float(times.mean()) - 499.5) < 4 * 288.7 / math.sqrt(count)
    assert 0 <= times.min() < 50
    assert 949 < times.max() <= 999
    noise = torch.cat([denoised(one).noise for one in batches])
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.std()) - 1) < 0.01


def test_equal_captions_have_one_number(joint: Joint, pictures: Path) -> None:
    data = JointData(config(pictures), joint)
    assert data.numbers[:4] == [(0,), (0,), (1,), (2, 3)]
    drawn = {int(n) for (one,) in data.batches()(range(20)) for n in one.captions}
    assert drawn == {0, 1, 2, 3}


def test_a_smaller_limit_is_part_of_a_larger_one(joint: Joint, pictures: Path) -> None:
    found = {
        limit: JointData(config(pictures, data__limit=limit, data__holdout=0.2, training__batch_size=4), joint)
        for limit in (4, 8, None)
    }
    ids = {limit: data.train.image_set.ids for limit, data in found.items()}
    assert [len(own) for own in ids.values()] == [4, 8, 13]
    assert set(ids[4]) < set(ids[8]) < set(ids[None])
    held_out = [data.held_out.image_set.ids for data in found.values() if data.held_out is not None]
    assert held_out[0] == held_out[1] == held_out[2]
    assert len(held_out[0]) == 3
    assert not set(held_out[0]) & set(ids[None])
    # A picture's crops are its own, whatever else is in the set.
    kept = {limit: kept_views(data) for limit, data in found.items()}
    name = ids[4][0]
    crops = [kept[limit].pixels[1][own.index(name)] for limit, own in ids.items()]  # type: ignore[union-attr]
    assert torch.equal(crops[0], crops[1])
    assert torch.equal(crops[0], crops[2])


def refusal(joint: Joint, settings: UniDiffConfig) -> str:
    with pytest.raises(ImageSetError) as found:
        JointData(settings, joint)
    return str(found.value)


def test_what_cannot_be_trained_on_is_told(joint: Joint, pictures: Path, tmp_path: Path) -> None:
    silent = captioned(tmp_path / "silent", 8, seed=1, captions=[" "])
    message = refusal(joint, config(silent))
    assert "8 of the 8 pictures" in message
    assert "'p0'" in message
    assert "--caption-column" in message

    message = refusal(joint, config(pictures, training__batch_size=32, data__holdout=0.25))
    assert "12 pictures" in message
    assert "(4 are held out)" in message
    assert "training.batch_size=12 or less" in message
    assert "data.limit" in refusal(joint, config(pictures, data__limit=5))

    left_out = captioned(tmp_path / "left-out", 8, seed=2, kept=False)
    assert "has no picture that can be read; give" in refusal(joint, config(left_out))


def test_unreadable_pictures_are_told_or_left_out(joint: Joint, tmp_path: Path) -> None:
    broken = captioned(tmp_path / "broken", 8, seed=3)
    (broken / "3.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="1 of 8"):
        data = JointData(config(broken, data__on_unreadable="skip"), joint)
    assert "p3" not in data.train.image_set.ids
    assert len(data.train) == 7
    for path in broken.glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UnreadablePictures, match="8"):
        JointData(config(broken), joint)
    with pytest.warns(UserWarning, match="8 of 8"):
        message = refusal(joint, config(broken, data__on_unreadable="skip"))
    assert "no picture that can be read (its manifest has 8 rows)" in message


@pytest.mark.parametrize("key", ["evaluation", "general"])
def test_nothing_is_learned_that_is_measured_on(joint: Joint, pictures: Path, tmp_path: Path, key: str) -> None:
    assert "16 picture(s)" in refusal(joint, config(pictures, **{f"data__{key}": str(pictures)}))
    other = captioned(tmp_path / "other", 3, seed=9)
    JointData(config(pictures, **{f"data__{key}": str(other)}), joint)
    silent = captioned(tmp_path / "silent", 3, seed=9, captions=[])
    told = {"evaluation": "3 of the 3 pictures", "general": "without labels and without captions"}
    assert told[key] in refusal(joint, config(pictures, **{f"data__{key}": str(silent)}))
