"""Captions ranked anew by a denoiser: against brute force on tiny models, and as a user types it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from commands import gen2real_
from gen2real.evaluation.diffusion_classifier import spread_times
from gen2real.evaluation.statistics import paired_bootstrap, proportion_interval
from gen2real.imagesets import ImageSet
from gen2real.methods import finished_denoisers
from gen2real.methods.finished import evaluate_retrieval
from gen2real.methods.finished_denoisers import evaluate_reranking
from gen2real.models import Diffusion, load_diffusion, load_dual_encoder
from tiny import tiny_clip, tiny_stable_diffusion
from tiny_sets import colour_set

TEXTS = {"red": "a cat", "green": "two red boats on the sea", "blue": "x", "F-16A/B": "the moon"}
# Another caption for every first picture of a colour, and white space that makes none.
MORE = ["a dog", "blood and  roses", "a house", "a ship"]


@dataclass(frozen=True)
class Place:
    root: Path
    pictures: ImageSet


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Twelve pictures; eight captions, four of them of three pictures each."""
    root = tmp_path_factory.mktemp("reranking")
    tiny_clip(root / "clip")
    tiny_stable_diffusion(root / "run" / "generator")
    squares = colour_set(root / "squares", origin="real", per_class=3)
    rows = [
        {"id": row["id"], "path": str(squares.root / row["path"]), "origin": "real", "sha256": row["sha256"],
         "captions": [list(TEXTS.values())[number // 3], *([MORE[number // 3]] if number % 3 == 0 else [])],
         "kept": True}
        for number, row in enumerate(squares.rows())
    ]  # fmt: skip
    pictures = ImageSet.write(root / "set", rows, ())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN2REAL_CACHE", str(root / "cache"))
        # Parts of two and one, wherever more than two pictures are ranked anew.
        patch.setattr(finished_denoisers, "_ENCODED", 2)
        patch.chdir(root)
        yield Place(root, pictures)


opened = functools.cache(load_dual_encoder)
generator = functools.cache(lambda: load_diffusion("run"))


@torch.no_grad()
def by_hand(place: Place, row: int, candidates: int, trials: int, weight: float | None) -> tuple[str, bool, bool]:
    """The caption that comes first, whether it is the picture's own, and whether any of the candidates is."""
    encoder, diffusion = opened("clip"), generator()
    texts = list(dict.fromkeys(text for own in place.pictures.captions for text in own))
    picture = Image.open(place.pictures.paths[row])
    seen = encoder.encode_image(encoder.preprocess.normalize(encoder.preprocess.geometry(picture)[None]))
    cosines = (normalize(seen, dim=1) @ normalize(encoder.encode_text(texts), dim=1).T)[0]
    best = sorted(range(len(texts)), key=lambda one: -float(cosines[one]))[:candidates]
    side = diffusion.sample_size
    pixels = torch.from_numpy(np.array(picture.resize((side, side), Image.Resampling.BICUBIC))).permute(2, 0, 1)
    latent = diffusion.moments(pixels[None])[0][0].double()
    scores = {}
    for one in best:
        state, error = diffusion.states(diffusion.ids([texts[one]])), 0.0
        for trial, time in enumerate(spread_times(diffusion.steps, trials).tolist()):
            drawn = np.random.default_rng((0, trial)).standard_normal(diffusion.latent_shape, dtype=np.float32)
            noise, abar = torch.from_numpy(drawn).double(), diffusion.alphas_cumprod[time].double()
            noised = abar.sqrt() * latent + (1 - abar).sqrt() * noise
            made = diffusion.unet(noised[None].float(), torch.tensor([time]), state).sample[0].double()
            error += float((noise - made).square().sum()) / trials
        scale = float(encoder.logit_scale.exp())
        scores[one] = -error if weight is None else scale * float(cosines[one]) - weight * error
    own = {texts.index(text) for text in place.pictures.captions[row]}
    winner = max(scores, key=scores.__getitem__)
    return texts[winner], winner in own, bool(own & set(best))


@pytest.mark.parametrize("weight", [None, 0.2])
def test_the_order_is_that_of_brute_force(place: Place, weight: float | None) -> None:
    found = evaluate_reranking("clip", "run", place.pictures, candidates=3, trials=2, pictures=8, weight=weight)
    # Eight of twelve, spread.
    rows = [0, 1, 3, 4, 6, 7, 9, 10]
    assert found.ids == [place.pictures.ids[row] for row in rows]
    expected = [by_hand(place, row, 3, 2, weight) for row in rows]
    assert [*zip(found.captions, found.first_reranked.tolist(), found.among.tolist(), strict=True)] == expected
    plain = evaluate_retrieval("clip", place.pictures)
    assert found.first.tolist() == [bool(plain.image_to_text.ranks[row] == 1) for row in rows]
    assert found.retrieval.to_json() == plain.to_json()
    # The case is no empty one: orders do change, and not all is found.
    assert found.first_reranked.tolist() != found.first.tolist()
    assert 0 < int(found.among.sum()) < 8


def test_weight_0_is_the_encoders_order(place: Place) -> None:
    found = evaluate_reranking("clip", "run", place.pictures, candidates=20, trials=1, weight=0)
    assert found.candidates == 8
    assert found.among.all()
    assert found.first_reranked.tolist() == found.first.tolist()
    assert found.change.difference == found.change.low == found.change.high == 0


def test_captions_that_read_alike_count_against_the_model(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever is asked, one answer: all candidates are as good.
    monkeypatch.setattr(
        Diffusion,
        "states",
        lambda self, ids: torch.zeros(len(ids), self.context_length, self.unet.config.cross_attention_dim),
    )
    found = evaluate_reranking("clip", "run", place.pictures, candidates=8, trials=1)
    assert found.among.all()
    assert not found.first_reranked.any()


def test_the_command_tells_both_orders(place: Place) -> None:
    words = ["evaluate", "clip", "set", "--rerank", "run", "--candidates", 3, "--trials", 2, "--pictures", 7]
    done = gen2real_(*words, "--json")
    assert done.code == 0, done.err
    found = evaluate_reranking("clip", "run", place.pictures, candidates=3, trials=2, pictures=7)
    assert done.value == found.to_json()
    told = done.value["reranked"]
    assert told["recall@1"] == proportion_interval(int(found.first_reranked.sum()), 7).to_json()
    assert told["change"] == paired_bootstrap(found.first_reranked, found.first).to_json()
    assert (told["weight"], told["generator"], told["pictures"]) == (None, "run", 7)
    said = gen2real_(*words, "--weight", 0.02).out
    assert "recall@1 before" in said
    assert "scale · cosine − 0.02 · error" in said
    assert "a right one among the 3" in said
    assert "recall@10" in said
