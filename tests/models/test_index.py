"""The index: exactly the nearest, in order, by torch as by faiss."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch.nn.functional import normalize

from gen2real.errors import ModelError
from gen2real.models import index
from gen2real.models.index import Found, Index

By = Literal["torch", "faiss"]
BOTH: list[Any] = ["torch", "faiss"]


@pytest.fixture(autouse=True)
def _faiss_is_there(request: pytest.FixtureRequest) -> None:
    if "by" in request.fixturenames and request.getfixturevalue("by") == "faiss":
        pytest.importorskip("faiss")


@pytest.mark.parametrize("by", BOTH)
def test_hand_made_embeddings_are_found_in_order(by: By) -> None:
    rows = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
    searched = Index(rows, ["east", "between", "north", "west"], by=by)
    found = searched.search(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]), 3)
    assert [[one.item for one in own] for own in found] == [["north", "between", "east"], ["west", "north", "between"]]
    assert [one.score for one in found[0]] == pytest.approx([1.0, 0.8, 0.0], abs=1e-7)
    assert [one.item for one in searched.search(torch.tensor([[0.0, 1.0]]), 9)[0]][-1] == "west"
    assert len(searched) == 4


@pytest.mark.parametrize("by", BOTH)
def test_a_threshold_leaves_out_what_is_less_alike(by: By) -> None:
    rows = torch.tensor([[1.0, 0.0], [0.5, 0.75**0.5], [-1.0, 0.0]])
    searched = Index(rows, "abc", by=by)
    query = torch.tensor([[1.0, 0.0]])
    assert [one.item for one in searched.search(query, 3, threshold=0.5)[0]] == ["a", "b"]
    assert [one.item for one in searched.search(query, 3, threshold=0.6)[0]] == ["a"]
    assert searched.search(-query, 2, threshold=1.1) == [[]]
    assert searched.search(query, 0) == [[]]
    assert searched.search(query[:0], 3) == []


@pytest.mark.parametrize("by", BOTH)
def test_equal_ones_come_in_the_order_of_the_items(by: By) -> None:
    rows = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    assert Index(rows, range(5), by=by).search(torch.tensor([[0.0, 1.0]]), 3) == [
        [Found(0, 1.0), Found(2, 1.0), Found(3, 1.0)]
    ]


@pytest.mark.parametrize("by", BOTH)
def test_the_same_as_sorting_all_in_float64(by: By, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_CELLS", 1000)  # blocks of three queries
    random = torch.Generator().manual_seed(1)
    rows = normalize(torch.randn(300, 24, generator=random), dim=1)
    rows[100:200] = rows[:100]  # every second best is a tie
    queries = normalize(torch.randn(40, 24, generator=random), dim=1)
    found = Index(rows, range(300), by=by).search(queries, 7)
    scores = (queries.double()[:, None] * rows.double()).sum(dim=2).tolist()
    expected = [sorted(range(300), key=lambda row, own=own: (-own[row], row))[:7] for own in scores]
    assert [[one.item for one in own] for own in found] == expected
    assert [[one.score for one in own] for own in found] == [
        pytest.approx([own[row] for row in rows_], abs=1e-12) for own, rows_ in zip(scores, expected, strict=True)
    ]


def test_what_cannot_be_searched_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.eye(3)
    with pytest.raises(ModelError, match=r"2 items needs as many embeddings; got \[3, 3\]"):
        Index(rows, "ab")
    with pytest.raises(ModelError, match="0 items"):
        Index(rows[:0], "")
    with pytest.raises(ModelError, match="the index hold NaN or infinity"):
        Index(rows / 0, "abc")
    with pytest.raises(ModelError, match=r"shape \[1, 2\].*width 3"):
        Index(rows, "abc").search(torch.ones(1, 2), 1)
    with pytest.raises(ModelError, match="the queries hold NaN"):
        Index(rows, "abc").search(torch.full((1, 3), torch.nan), 1)
    monkeypatch.setattr(index, "find_spec", lambda name: None)
    assert Index(rows, "abc").search(rows[:1], 1) == [[Found("a", 1.0)]]
    with pytest.raises(ModelError, match=r"pip install \"gen2real\[faiss\]\""):
        Index(rows, "abc", by="faiss")
