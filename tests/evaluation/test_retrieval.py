"""Retrieval: exact small cases, a brute-force oracle, ties and duplicates, and a gallery that is searched in blocks."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest
import torch

from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation import bootstrap_interval, caption_positives, picture_values, retrieval, retrieval_metrics


def oracle_rank(scores: np.ndarray, positive: np.ndarray) -> int:
    """By sorting: the first place of a positive, where equal scores put positives last."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], positive[i]))
    # Only the first positive counts; those before it are all negatives.
    return 1 + next(place for place, i in enumerate(order) if positive[i])


def oracle(image: torch.Tensor, text: torch.Tensor, positives: torch.Tensor) -> tuple[list[int], list[int]]:
    x, y = (side.double().numpy() / np.linalg.norm(side.double().numpy(), axis=1)[:, None] for side in (image, text))
    # Rounded, so that what is equal but for the order of summation is equal.
    scores, together = (x @ y.T).round(9), np.zeros((len(x), len(y)), bool)
    together[tuple(positives.T.numpy())] = True
    return tuple(
        [oracle_rank(row, own) for row, own in zip(table, own_table, strict=True) if own.any()]
        for table, own_table in ((scores, together), (scores.T, together.T))
    )  # type: ignore[return-value]


def test_exact_values_by_hand():
    # Pictures at 0°, 90°, 180°; texts at 10°, 80°, 100°, 190°. Text 0, 1 are of picture 0; 2 of 1; 3 of 2.
    def at(*degrees: float) -> torch.Tensor:
        radians = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
        return torch.stack([radians.cos(), radians.sin()], dim=1)

    image, text = at(0, 90, 180), at(10, 80, 100.5, 190)
    found = retrieval_metrics(7 * image, 0.1 * text, torch.tensor([[0, 0], [0, 1], [1, 2], [2, 3]]))
    # Picture 1 sees text 1 (10° off) before its own (10.5° off). Text 1 sees picture 1 before its own.
    assert found.image_to_text.ranks.tolist() == [1, 2, 1]
    assert found.text_to_image.ranks.tolist() == [1, 2, 1, 1]
    assert found.image_to_text.recall[1].mean == 2 / 3
    assert found.text_to_image.recall[1].mean == 3 / 4
    assert found.text_to_image.recall[5].mean == 1
    assert (found.image_to_text.queries, found.image_to_text.gallery) == (3, 4)
    assert (found.text_to_image.queries, found.text_to_image.gallery) == (4, 3)
    assert found.image_to_text.median_rank == 1
    # Chance at 1: (2/4 + 1/4 + 1/4)/3 of pictures among texts, 1/3 of texts among pictures; at 5 everything is found.
    assert found.image_to_text.chance == {1: pytest.approx(1 / 3), 5: 1, 10: 1}
    assert found.text_to_image.chance[1] == pytest.approx(1 / 3)
    # 1 − C(18, 5)/C(20, 5) = 1 − (15·14)/(20·19): two positives of twenty
    assert retrieval._chance(torch.tensor([2]), 20, 5) == pytest.approx(1 - 210 / 380)


def test_the_median_of_an_even_number_lies_between():
    image = torch.eye(4)[:2]
    text = torch.tensor([[1.0, 0, 0, 0], [0, 0.1, 1, 0], [0, 0.5, 1, 0], [0, 0.5, 0, 1]])
    found = retrieval_metrics(image, text, torch.tensor([[0, 0], [1, 1]]))
    assert found.image_to_text.ranks.tolist() == [1, 3]
    assert found.image_to_text.median_rank == 2
    # Texts 2 and 3 belong to no picture: they are searched among and ask nothing.
    assert (found.image_to_text.gallery, found.text_to_image.queries) == (4, 2)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("cells", [1, 100, 1 << 24])
def test_as_brute_force_in_blocks_of_any_size(cells, ties, generator, monkeypatch):
    monkeypatch.setattr(retrieval, "_CELLS", cells)
    image, text = (torch.randn(rows, 6, generator=generator, dtype=torch.float64) for rows in (41, 97))
    # Some pictures with many texts, some with none, texts of several pictures, and a pair given twice.
    positives = torch.stack(
        [torch.randint(30, (80,), generator=generator), torch.randperm(97, generator=generator)[:80]]
    )
    positives = torch.cat([positives.T, positives.T[:5], positives.T[:20].roll(1, 0) * torch.tensor([0, 1])])
    found = retrieval_metrics(image, text, positives)
    image_ranks, text_ranks = oracle(image, text, positives)
    assert found.image_to_text.ranks.tolist() == image_ranks
    assert found.text_to_image.ranks.tolist() == text_ranks
    for k in (1, 5, 10):
        assert found.text_to_image.recall[k].mean == pytest.approx(np.mean(np.array(text_ranks) <= k))


def test_an_encoder_that_sees_nothing_finds_nothing():
    constant = torch.ones(30, 16)
    pairs = torch.arange(30)[:, None].repeat(1, 2)
    found = retrieval_metrics(constant, constant.clone(), pairs)
    assert {one.recall[k].mean for one in (found.image_to_text, found.text_to_image) for k in (1, 5, 10)} == {0}
    assert found.image_to_text.median_rank == 30
    # Noise of rounding is no knowledge either.
    noisy = constant + 1e-7 * torch.randn(30, 16, generator=torch.Generator().manual_seed(0))
    assert retrieval_metrics(noisy, constant, pairs).text_to_image.recall[10].mean == 0
    # Two pictures with one vector: neither is told from the other.
    pair = torch.eye(4)[[0, 0, 1, 2]]
    assert retrieval_metrics(pair, torch.eye(4), pairs[:4]).text_to_image.ranks.tolist() == [2, 4, 4, 4]


def test_positives_do_not_stand_in_each_others_way():
    # Three texts of one picture, all better than the other's: the rank is 1, and of the other's picture too.
    text = torch.eye(3)[[0, 0, 0, 1]]
    found = retrieval_metrics(torch.eye(3)[:2], text, torch.tensor([[0, 0], [0, 1], [0, 2], [1, 3]]))
    assert found.image_to_text.ranks.tolist() == [1, 1]
    assert found.text_to_image.ranks.tolist() == [1, 1, 1, 1]


def test_equal_captions_are_one_text_of_all_their_pictures():
    texts, positives = caption_positives(
        [["A red cube", "two  toys"], ["a red\tcube ", "a red cube"], [], ["Two toys", " ", ""], ["straße"]]
    )
    assert texts == ["A red cube", "two  toys", "straße"]
    assert positives.tolist() == [[0, 0], [0, 1], [1, 0], [1, 0], [3, 1], [4, 2]]
    assert caption_positives([[], []])[1].shape == (0, 2)
    # As two texts with one vector, each would be the other's error.
    image = torch.eye(3)[[0, 0, 0, 1, 2]]
    found = retrieval_metrics(image, torch.eye(3), torch.tensor([[0, 0], [1, 0], [3, 1], [4, 2], [2, 0]]))
    assert found.text_to_image.ranks.tolist() == [1, 1, 1]
    assert found.image_to_text.ranks.tolist() == [1] * 5


def test_intervals_are_over_pictures(generator):
    # Five captions a picture, all found or none: as many independent facts as pictures, not captions.
    hits = torch.rand(60, generator=generator) < 0.5
    found = retrieval._share(hits.repeat_interleave(5), torch.arange(60).repeat_interleave(5))
    over_pictures, over_captions = bootstrap_interval(hits), bootstrap_interval(hits.repeat_interleave(5))
    assert found.count == 60
    assert found.mean == pytest.approx(over_pictures.mean)
    assert (found.low, found.high) == pytest.approx((over_pictures.low, over_pictures.high), abs=1e-12)
    assert found.high - found.low > 2 * (over_captions.high - over_captions.low)


def test_unequal_numbers_of_captions_keep_the_share(rng):
    size = rng.integers(1, 6, 200)
    of = torch.from_numpy(np.repeat(np.arange(200), size))
    hits = torch.from_numpy(rng.random(len(of)) < 0.3)
    found = retrieval._share(hits, of)
    assert found.mean == hits.double().mean().item()
    # The ratio, resampled picture by picture.
    hit = np.bincount(of, weights=hits)
    drawn = rng.integers(200, size=(4000, 200))
    low, high = np.quantile(hit[drawn].sum(axis=1) / size[drawn].sum(axis=1), [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))


def test_the_answer_is_plain_json():
    found = retrieval_metrics(torch.eye(3), torch.eye(3).bfloat16(), torch.arange(3)[:, None].repeat(1, 2)).to_json()
    assert json.loads(json.dumps(found)) == found
    assert set(found) == {"image_to_text", "text_to_image"}
    assert set(found["image_to_text"]) == {
        "queries", "gallery", "recall@1", "recall@5", "recall@10", "chance", "median_rank",
    }  # fmt: skip
    assert found["image_to_text"]["recall@1"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "count": 3, "level": 0.95}


def test_mistakes_are_told():
    eye, pairs = torch.eye(3), torch.arange(3)[:, None].repeat(1, 2)
    # As it runs outside the tests, where shapes are not checked at the door.
    bare = inspect.unwrap(retrieval_metrics)
    with pytest.raises(ModelError, match=r"\[3, 3\] and texts of \[2, 2\]"):
        bare(eye, torch.eye(2), pairs)
    broken = eye.clone()
    broken[1, 1] = torch.nan
    with pytest.raises(ModelError, match="1 of 3 text features hold NaN"):
        retrieval_metrics(eye, broken, pairs)
    with pytest.raises(ImageSetError, match="Pictures need captions"):
        retrieval_metrics(eye, eye, torch.zeros(0, 2, dtype=torch.int64))
    for wrong in (3, -1):
        with pytest.raises(ImageSetError, match=r"0…2 \(pictures\) and 0…2 \(texts\)"):
            retrieval_metrics(eye, eye, torch.tensor([[0, wrong]]))


def test_values_of_pictures_have_the_recall_as_their_mean(generator):
    """Pictures with three, one and no text, and a text that two of them share."""
    image, text = torch.randn(12, 5, generator=generator), torch.randn(15, 5, generator=generator)
    positives = torch.tensor([[0, 0], [0, 1], [0, 2], [3, 0], *([row, row + 3] for row in range(4, 12))])
    found = retrieval_metrics(image, text, positives)
    values = picture_values(found, positives, 12)
    assert set(values) == {f"{way}_recall@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)}
    for way in ("image_to_text", "text_to_image"):
        for k in (1, 5, 10):
            own = values[f"{way}_recall@{k}"]
            assert own.shape == (12,)
            assert own.mean() == pytest.approx(getattr(found, way).recall[k].mean, abs=1e-12)
    # Picture 0 asks with texts 0, 1 and 2 (text 0 is picture 3's too, and counts once); pictures 1 and 2 with none.
    recall = found.text_to_image.recall[5].mean
    assert values["text_to_image_recall@5"][[1, 2, 3]].tolist() == [recall] * 3
    hits = int((found.text_to_image.ranks[:3] <= 5).sum())
    assert values["text_to_image_recall@5"][0] == pytest.approx(recall + (hits - 3 * recall) / (11 / 12))


def test_values_are_hits_where_every_picture_has_one_text(generator):
    image, text = torch.randn(9, 3, generator=generator), torch.randn(9, 3, generator=generator)
    positives = torch.arange(9)[:, None].expand(9, 2)
    found = retrieval_metrics(image, text, positives)
    values = picture_values(found, positives, 9)["image_to_text_recall@1"]
    assert values == pytest.approx((found.image_to_text.ranks == 1).double().numpy(), abs=1e-12)


def test_values_want_the_positives_of_their_retrieval():
    found = retrieval_metrics(torch.eye(3), torch.eye(3), torch.tensor([[0, 0], [1, 1], [2, 2]]))
    with pytest.raises(ImageSetError, match="these positives make 2 queries"):
        picture_values(found, torch.tensor([[0, 0], [1, 1]]), 3)


def test_median_rank_of_repeated_captions_as_brute_force(generator):
    """Product captions repeat: a picture's own is every copy's, and a copy's pictures are all of its captions' own."""
    wordings = [f"caption {number}" for number in range(12)]
    picked = torch.randint(12, (45,), generator=generator).tolist()
    # The same words in another spelling are the same text.
    captions = [[wordings[one].upper() if row % 3 else f" {wordings[one]} "] for row, one in enumerate(picked)]
    image, embedded = (torch.randn(rows, 5, generator=generator) for rows in (45, 12))
    texts, positives = caption_positives(captions)
    text = embedded[[int(one.split()[1]) for one in texts]]
    found = retrieval_metrics(image, text, positives)

    x, y = (torch.nn.functional.normalize(side.double(), dim=1) for side in (image, embedded))
    scores = (x @ y.T).numpy()
    used = sorted(set(picked))
    # A picture's rank among the different captions, and a caption's: its best picture's among those of other captions.
    of_pictures = [1 + sum(scores[row, other] > scores[row, own] for other in used) for row, own in enumerate(picked)]
    of_texts = []
    for own in used:
        best = max(scores[row, own] for row, one in enumerate(picked) if one == own)
        of_texts.append(1 + sum(scores[row, own] > best for row, one in enumerate(picked) if one != own))
    assert found.image_to_text.median_rank == np.median(of_pictures)
    assert found.text_to_image.median_rank == np.median(of_texts)
    assert (found.image_to_text.gallery, found.text_to_image.queries) == (len(used), len(used))
