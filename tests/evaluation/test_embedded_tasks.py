"""Tasks that search by embeddings: exact values with embeddings made by hand, and searches written otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation import target_ranks
from gen2real.evaluation.rag import OwnRetriever, Rag, read_entries
from gen2real.evaluation.story_retrieval import read_stories
from gen2real.evaluation.target_ranks import Gallery, search
from gen2real.evaluation.tasks import Asked, TaskScores, measure_task
from gen2real.evaluation.winoground import winoground_scores
from gen2real.imagesets import ImageSet
from gen2real.models.embedder import Embedder
from gen2real.models.multimodal import MultimodalModel, load_multimodal
from tiny import tiny_clip
from tiny_multimodal import tiny_llava


class Placed:
    """Embeds contents where it is told to; keeps what it was given."""

    def __init__(self, places: Mapping[str, Sequence[float]]) -> None:
        self.places = places
        self.given: list[list[str]] = []

    def embed(self, parts: Sequence[Sequence[str | Path]], *, batch_size: int) -> Tensor:
        named = [[part.name if isinstance(part, Path) else part for part in own] for own in parts]
        self.given += named
        return normalize(torch.tensor([self.places["|".join(own)] for own in named], dtype=torch.float32), dim=1)


class Mute(MultimodalModel):
    """Is asked nothing."""

    def __init__(self) -> None:
        self.name = "mute"


def measured(task: str, path: Path, embedder: Placed | None, **more: Any) -> TaskScores:
    return measure_task(task, Mute(), path, embedder=embedder, **more)


def means(found: TaskScores) -> dict[str, float]:
    return {name: float(own.mean()) for name, own in found.values.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.png … h.png, all different, and copy.png, which is c.png again."""
    root = tmp_path_factory.mktemp("embedded")
    for number, letter in enumerate("abcdefgh"):
        Image.new("RGB", (8, 8), (30 * number, 10, 200)).save(root / f"{letter}.png")
    (root / "copy.png").write_bytes((root / "c.png").read_bytes())
    return root


def lines(folder: Path, name: str, *values: dict[str, Any]) -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in values))
    return path


# ── search ──


def test_ranks_are_those_of_counting_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_ranks, "_CELLS", 100)  # blocks of two queries
    random = np.random.default_rng(0)
    queries, gallery = random.normal(size=(11, 5)), random.normal(size=(40, 5))
    gallery[20:30] = gallery[:10]
    targets = random.integers(40, size=11).tolist()
    without = [random.integers(40, size=6).tolist() for _ in range(11)]
    found = search(torch.tensor(queries), torch.tensor(gallery), targets, without=without)
    for query, target, hidden, rank, size, first in zip(
        queries, targets, without, found.ranks, found.gallery, found.first, strict=True
    ):
        cosine = gallery @ query / np.linalg.norm(gallery, axis=1) / np.linalg.norm(query)
        others = [row for row in range(40) if row != target and row not in hidden]
        assert rank == 1 + sum(cosine[row] >= cosine[target] - 1e-6 for row in others)
        assert size == len(others) + 1
        assert cosine[first] == pytest.approx(max(cosine[row] for row in (*others, target)))


def test_one_vector_for_everything_finds_nothing() -> None:
    found = search(torch.ones(2, 3), torch.ones(20, 3), [0, 4])
    assert found.ranks.tolist() == [20, 20]
    assert {name: own.tolist() for name, own in found.recalls("x").items()} == {
        "x_recall@1": [0, 0],
        "x_recall@5": [0, 0],
        "x_recall@10": [0, 0],
    }
    assert found.told() == {
        "median_rank": 20.0,
        "gallery": 20.0,
        "chance": {"recall@1": 1 / 20, "recall@5": 1 / 4, "recall@10": 1 / 2},
    }


def test_embeddings_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ModelError, match="embeddings of pictures hold NaN"):
        search(torch.ones(1, 2), torch.full((2, 2), torch.nan), [0])


def test_a_gallery_holds_each_content_once(folder: Path) -> None:
    files = [folder / name for name in ("c.png", "a.png", "copy.png", "a.png", "b.png")]
    gallery = Gallery.of(files)
    assert [picture.name for picture in gallery.pictures] == ["c.png", "a.png", "b.png"]
    assert [gallery.rows[file] for file in files] == [0, 1, 0, 1, 2]


# ── stories ──

STORIES = (
    {"id": "1", "text": "<image> A duck came. <image> It ate. <image> It went.", "images": ["a.png", "b.png", "c.png"]},
    {"id": "2", "text": "Hello. <image> Bye. <image>", "images": ["d.png", "copy.png"]},
)
AT = {
    "a.png": (1, 0, 0), "b.png": (0.9, 0.1, 0), "c.png": (0, 1, 0), "d.png": (0, 0, 1),
    # From captions, a and b come before c; without the story's own earlier pictures only d is left, and c comes first.
    "A duck came. It ate. It went.": (1, 0.1, 0),
    # With its earlier pictures as well, a alone comes before c.
    "A duck came. |a.png| It ate. |b.png| It went.": (0.5, 0.49, 0),
    "Hello. Bye.": (0, 0.2, 1),
    "Hello. |d.png| Bye.": (0, 1, 0.2),
}  # fmt: skip


def test_stories_of_either_order_have_a_caption_a_picture(folder: Path) -> None:
    one, other = read_stories(lines(folder, "stories", *STORIES))
    assert one.captions == ("A duck came.", "It ate.", "It went.")
    assert [picture.name for picture in one.pictures] == ["a.png", "b.png", "c.png"]
    assert (other.captions, [picture.name for picture in other.pictures]) == (("Hello.", "Bye."), ["d.png", "copy.png"])


def test_the_last_picture_is_searched_from_captions_and_from_all_before_it(folder: Path) -> None:
    embedder = Placed(AT)
    found = measured("story-retrieval", lines(folder, "stories", *STORIES), embedder)
    # c.png and copy.png are one picture of the gallery: both stories end with it.
    assert embedder.given[:4] == [["a.png"], ["b.png"], ["c.png"], ["d.png"]]
    assert ["A duck came. ", "a.png", " It ate. ", "b.png", " It went."] in embedder.given
    assert {name: own.tolist() for name, own in found.values.items() if name.endswith("@1")} == {
        "captions_recall@1": [0, 0],
        "captions_unseen_recall@1": [1, 1],
        "story_recall@1": [0, 1],
        "story_unseen_recall@1": [1, 1],
    }
    assert all(own.tolist() == [1, 1] for name, own in found.values.items() if not name.endswith("@1"))
    assert found.details["stories"] == 2
    assert found.details["captions"]["median_rank"] == 2.5
    assert found.details["story"]["chance"]["recall@1"] == 1 / 4
    # Two of four are hidden from the first story, one from the second.
    assert found.details["captions_unseen"]["gallery"] == 2.5
    assert found.details["captions_unseen"]["chance"]["recall@1"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    first = found.samples[0]
    assert (first["id"], Path(first["answer"]).name, first["rank"], first["score"]) == ("1", "c.png", 1, 1.0)


def test_what_is_no_story_is_told(folder: Path) -> None:
    wrong = lines(
        folder,
        "wrong",
        {"id": "two", "text": "<image> <image> They came.", "images": ["a.png", "b.png"]},
        {"id": "one", "text": "<image> It came.", "images": ["a.png"]},
        {"id": "asked", "text": "<image> What? <image> And this?", "images": ["a.png", "b.png"], "answer": "no"},
        STORIES[0],
        {"id": "tail", "text": "<image> It came. <image>", "images": ["a.png", "b.png"]},
    )
    with pytest.raises(ImageSetError, match=r"(?s)4 sample\(s\) are no stories.*two: 2 pictures and 1 texts") as caught:
        read_stories(wrong)
    told = str(caught.value)
    assert "one: it has one picture" in told
    assert "asked: it is a conversation" in told
    assert "tail: 2 pictures and 1 texts" in told
    assert len(told.splitlines()) == 5


# ── composed ──


def test_a_changed_picture_is_found_among_all_but_its_reference(folder: Path) -> None:
    path = lines(
        folder,
        "changes",
        {"image": "a.png", "text": "but blue", "target": "b.png"},
        {"image": "b.png", "text": "larger", "target": "d.png"},
    )
    places = {
        "a.png": (1, 0, 0), "b.png": (0.9, 0.2, 0), "d.png": (0, 0, 1),
        "a.png| but blue": (1, 0, 0), "b.png| larger": (0.8, 0, 0.1),
        "but blue": (0, 0, 1), "larger": (0, 0, 1),
    }  # fmt: skip
    found = measured("composed-retrieval", path, Placed(places))
    # The first would find its own reference before its target; the second finds a, which is another's reference.
    assert found.values["composed_recall@1"].tolist() == [1, 0]
    assert found.values["composed_recall@5"].tolist() == [1, 1]
    assert [one["rank"] for one in found.samples] == [1, 2]
    assert Path(found.samples[1]["answer"]).name == "a.png"
    assert found.details["gallery"] == 2
    assert found.details["controls"]["reference alone"]["recall@1"]["mean"] == 0.5
    assert found.details["controls"]["text alone"]["recall@1"]["mean"] == 0.5
    limited = measured("composed-retrieval", path, Placed(places), limit=1)
    assert means(limited)["composed_recall@1"] == 1
    # Another's reference is not in the gallery of the first line alone.
    assert limited.details["gallery"] == 1


def test_searches_from_one_reference_stand_or_fall_together(folder: Path) -> None:
    meant = {"x": "b.png", "y": "c.png", "z": "d.png"}
    asked = [{"image": "a.png" if text != "z" else "b.png", "text": text, "target": meant[text]} for text in "xyz"]
    places = {"a.png": (1, 0, 0), "b.png": (0, 1, 0), "c.png": (0, 0, 1), "d.png": (0.5, 0.5, 0)}
    # The second finds b as well, and is wrong.
    queries = {"a.png| x": (0, 1, 0), "a.png| y": (0, 1, 0), "b.png| z": (0.5, 0.5, 0)}
    texts = {text: places[picture] for text, picture in meant.items()}
    found = measured("composed-retrieval", lines(folder, "three", *asked), Placed(places | queries | texts))
    assert [one["score"] for one in found.samples] == [1, 0, 1]
    assert found.values["composed_recall@1"].shape == (2,)
    assert found.values["composed_recall@1"].mean() == pytest.approx(2 / 3)
    assert found.details["controls"]["text alone"]["recall@1"]["count"] == 2
    assert found.details["controls"]["text alone"]["recall@1"]["mean"] == 1


def test_a_reference_that_is_its_own_target_is_told(folder: Path) -> None:
    path = lines(folder, "self", {"image": "a.png", "text": "same", "target": "a.png"}, {"image": "a.png"})
    with pytest.raises(ImageSetError, match=r"(?s)line 1: 'image' and 'target' are one file.*line 2: 'target'"):
        measured("composed-retrieval", path, Placed({}))


# ── Winoground ──


def test_winoground_by_all_orders_of_four_scores() -> None:
    """Over all 24 orders of four different scores, the shares are those that chance has."""
    from itertools import permutations

    similarity = torch.tensor(list(permutations((0.1, 0.2, 0.3, 0.4)))).reshape(24, 2, 2)
    found = winoground_scores(similarity)
    assert {name: own.mean() for name, own in found.items()} == pytest.approx(
        {"text": 1 / 4, "image": 1 / 4, "group": 1 / 6}
    )
    for (top, bottom), text, image, group in zip(
        similarity.tolist(), found["text"], found["image"], found["group"], strict=True
    ):
        # Rows are captions: a text score compares within a column, an image score within a row.
        assert text == (max((top[0], 0), (bottom[0], 1)) == (top[0], 0)) * (max(top[1], bottom[1]) == bottom[1])
        assert image == (max(top) == top[0]) * (max(bottom) == bottom[1])
        assert group == text * image


def test_a_tie_is_wrong() -> None:
    found = winoground_scores(torch.tensor([[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.2], [0.5, 0.9]]]))
    assert {name: own.tolist() for name, own in found.items()} == {"text": [0, 0], "image": [0, 1], "group": [0, 0]}
    with pytest.raises(ModelError, match="or NaN"):
        winoground_scores(torch.full((1, 2, 2), torch.nan))


def test_winoground_from_a_file(folder: Path) -> None:
    path = lines(
        folder,
        "twins",
        {"id": "x", "images": ["a.png", "b.png"], "captions": ["red on blue", "blue on red"], "category": "order"},
        {"id": "y", "images": ["c.png", "d.png"], "captions": ["one", "two"], "category": "count"},
    )
    places = {
        "a.png": (1, 0), "b.png": (0, 1), "red on blue": (1, 0.2), "blue on red": (0.2, 1),
        # Both captions like c more: the text score is right of neither picture d, the image score of caption 1 alone.
        "c.png": (1, 0), "d.png": (0.6, 0.8), "one": (1, 0.1), "two": (1, 0),
    }  # fmt: skip
    found = measured("winoground", path, Placed(places))
    assert means(found) == {"text": 0.5, "image": 0.5, "group": 0.5}
    assert found.values["group"].tolist() == [1, 0]
    assert found.details["categories"]["order"]["group"]["mean"] == 1
    assert found.details["categories"]["count"]["group"]["mean"] == 0
    assert found.samples[0]["answer"].startswith("caption 1: 0.981, 0.196; caption 2: 0.196")


def test_twins_are_two_and_two(folder: Path) -> None:
    path = lines(folder, "three", {"images": ["a.png", "b.png", "c.png"], "captions": ["one", "two"]})
    with pytest.raises(ImageSetError, match="line 1: it needs two images and two captions; got 3 and 2"):
        measured("winoground", path, Placed({}))


# ── captions ──


def test_pictures_and_captions_find_each_other(tmp_path: Path) -> None:
    rows = []
    for number, captions in enumerate([["a red ball", "a ball"], ["a cube"], ["A ball "], []]):
        Image.new("RGB", (8, 8), (60 * number, 0, 90)).save(tmp_path / f"{number}.png")
        rows.append({"id": str(number), "path": f"{number}.png", "origin": "real", "captions": captions})
    image_set = ImageSet.write(tmp_path, rows, ())
    places = {
        "0.png": (1, 0, 0), "1.png": (0, 1, 0), "2.png": (0.9, 0, 0.1),
        "a red ball": (1, 0, 0), "a ball": (0.9, 0, 0.2), "a cube": (1, 0, -0.01),
    }  # fmt: skip
    found = measured("retrieval", image_set.manifest, Placed(places))
    # "a ball" is a caption of pictures 0 and 2; 1 is captioned by what looks like 0.
    assert found.values["image_to_text_recall@1"].tolist() == [1, 0, 1]
    assert found.details["pictures"] == 3
    assert found.details["text_to_image"]["recall@1"]["mean"] == pytest.approx(2 / 3)
    assert found.details["image_to_text"]["gallery"] == 3
    assert measured("retrieval", image_set.manifest, Placed(places), limit=1).details["pictures"] == 1


# ── a model ──


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MultimodalModel:
    root = tmp_path_factory.mktemp("llava")
    return load_multimodal(tiny_llava(root / "llava", tiny_clip(root / "clip")))


def test_a_model_searches_by_its_own_embeddings(folder: Path, model: MultimodalModel) -> None:
    stories = lines(folder, "stories", *STORIES)
    embedder = Embedder(model, None)
    found = measure_task("story-retrieval", model, stories, embedder=embedder, decoding={"batch_size": 3})
    gallery = [embedder.embed([[folder / f"{letter}.png"]])[0] for letter in "abcd"]
    query = embedder.embed([["Hello. ", folder / "d.png", " Bye."]])[0]
    cosines = [float(query @ one) for one in gallery]
    assert found.samples[1]["rank"] == 1 + sum(one >= cosines[2] for one in cosines[:2])
    assert found.values["story_unseen_recall@1"][1] == (cosines[2] == max(cosines[:3]))


def test_a_model_answers_with_what_it_found_itself(folder: Path, model: MultimodalModel) -> None:
    known = read_entries(
        lines(folder, "known", *({"image": f"{one}.png", "question": "what?", "answer": one} for one in "abc"))
    )
    rag = Rag(known, OwnRetriever(Embedder(model, None)), count=2)
    asked = Asked((folder / "d.png",), "what is it?")
    ((first, second),) = rag.found([asked])
    keys = [[folder / "d.png", "\nwhat is it?"], *([folder / f"{one}.png", "\nwhat?"] for one in "abc")]
    own = Embedder(model, None).embed(keys)
    best = (own[1:] @ own[0]).sort(descending=True)
    assert [first.item.answer, second.item.answer] == ["abc"[place] for place in best.indices[:2].tolist()]
    assert [first.score, second.score] == pytest.approx(best.values[:2].tolist(), abs=1e-5)
    path = lines(folder, "asked", {"image": "d.png", "question": "what is it?", "answer": "d"})
    found = measure_task("questions", model, path, decoding={"max_tokens": 3}, rag=rag)
    put = rag([asked])[0]
    assert [picture.name for picture in put.pictures] == [
        f"{second.item.answer}.png",
        f"{first.item.answer}.png",
        "d.png",
    ]
    assert found.samples[0]["answer"] == model.answer([put.pictures], [put.question], max_tokens=3)[0]
    assert found.details["looked_up"]["count"] == 2


def test_who_cannot_search_is_told(folder: Path) -> None:
    path = lines(folder, "stories", *STORIES)
    with pytest.raises(ModelError, match=r"searched by embeddings, and mute was given none"):
        measured("story-retrieval", path, None)
