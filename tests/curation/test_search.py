from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gen2real.curation import search
from gen2real.curation.search import connected, cosine_pairs, hamming_pairs, nearest_cosine


def clustered(rng: np.random.Generator, count: int, centres: int = 7) -> np.ndarray:
    """Codes around a few centres, 0 to 12 bits away, some of them equal."""
    codes = rng.integers(0, 2**64, centres, dtype=np.uint64)[rng.integers(0, centres, count)]
    for row in range(count):
        for bit in rng.choice(64, rng.integers(0, 13), replace=False):
            codes[row] ^= np.uint64(1 << int(bit))
    codes[-3:] = codes[0]
    return codes


def found(pairs) -> list[tuple[int, int, int]]:
    return [triple for block in pairs for triple in zip(*(part.tolist() for part in block), strict=True)]


@pytest.mark.parametrize("radius", [0, 1, 4, 10, 32])
def test_pairs_of_hashes_are_those_of_a_loop_each_once(rng: np.random.Generator, radius: int) -> None:
    first, second = clustered(rng, 90), clustered(rng, 40)
    second[:20] = first[:20] ^ np.uint64(5)
    distance = [[(int(a) ^ int(b)).bit_count() for b in second] for a in first]
    expected = [(i, j, distance[i][j]) for i in range(90) for j in range(40) if distance[i][j] <= radius]
    assert sorted(found(hamming_pairs(first, second, radius=radius))) == expected
    inside = [(i, j, (int(first[i]) ^ int(first[j])).bit_count()) for i, j in itertools.combinations(range(90), 2)]
    inside = [triple for triple in inside if triple[2] <= radius]
    assert sorted(found(hamming_pairs(first, radius=radius))) == inside
    assert inside


def test_pairs_of_hashes_by_hand() -> None:
    codes = np.array([0, 1, 3, 2**63, 2**64 - 1], dtype=np.uint64)
    assert sorted(found(hamming_pairs(codes, radius=1))) == [(0, 1, 1), (0, 3, 1), (1, 2, 1)]
    assert sorted(found(hamming_pairs(codes[:1], codes, radius=2))) == [(0, 0, 0), (0, 1, 1), (0, 2, 2), (0, 3, 1)]
    assert found(hamming_pairs(codes[:0], radius=4)) == []
    assert found(hamming_pairs(codes, codes[:0], radius=4)) == []


def test_many_candidates_come_in_blocks(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = clustered(rng, 60)
    whole = found(hamming_pairs(codes, radius=6))
    monkeypatch.setattr(search, "CANDIDATES", 10)
    blocks = list(hamming_pairs(codes, radius=6))
    assert sorted(found(blocks)) == sorted(whole)
    assert len(blocks) > 10


@pytest.mark.parametrize("radius", [-1, 33])
def test_a_radius_out_of_range_is_refused(radius: int) -> None:
    with pytest.raises(ValueError, match=f"got {radius}"):
        next(hamming_pairs(np.zeros(1, dtype=np.uint64), radius=radius))


def test_pairs_of_features_are_those_of_a_loop(rng: np.random.Generator) -> None:
    features = rng.normal(size=(50, 4))
    features[7] = 3 * features[40]
    features[9] = 0
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    groups = rng.integers(0, 3, 50)
    groups[[7, 40]] = 2
    for grouped in (None, groups):
        expected = {
            (i, j): unit[i] @ unit[j]
            for i, j in itertools.combinations(range(50), 2)
            if unit[i] @ unit[j] >= 0.6 and (grouped is None or grouped[i] == grouped[j])
        }
        pairs = found(cosine_pairs(torch.from_numpy(features), 0.6, groups=grouped, block=7))
        assert [pair[:2] for pair in sorted(pairs)] == sorted(expected)
        assert [value for *_, value in sorted(pairs)] == pytest.approx([expected[key] for key in sorted(expected)])
    assert [pair[:2] for pair in found(cosine_pairs(torch.from_numpy(features), 1.0))] == [(7, 40)]


def test_the_nearest_is_the_first_of_the_highest(rng: np.random.Generator) -> None:
    queries, references = rng.normal(size=(23, 5)), rng.normal(size=(11, 5))
    references[8] = 2 * references[3]
    queries[4] = references[3]
    cosine = (queries @ references.T) / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(references, axis=1)
    index, value = nearest_cosine(torch.from_numpy(queries), torch.from_numpy(references), block=4)
    np.testing.assert_allclose(value, cosine.max(axis=1), atol=1e-6)
    assert index[4] in (3, 8)
    rest = np.isin(cosine.argmax(axis=1), (3, 8), invert=True)
    assert (index == cosine.argmax(axis=1))[rest].all()
    equal = torch.ones(3, 2)
    assert nearest_cosine(equal, equal)[0].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="no references"):
        nearest_cosine(equal, equal[:0])


def test_what_hangs_together_is_what_scipy_says(rng: np.random.Generator) -> None:
    for edges in (0, 20, 60, 300):
        first, second = rng.integers(0, 100, edges), rng.integers(0, 100, edges)
        root = connected(
            100, [(first[: edges // 2], second[: edges // 2]), (first[edges // 2 :], second[edges // 2 :])]
        )
        _, expected = connected_components(coo_array((np.ones(edges), (first, second)), shape=(100, 100)))
        for component in np.unique(expected):
            members = np.flatnonzero(expected == component)
            assert (root[members] == members.min()).all()
        assert len(np.unique(root)) == expected.max() + 1


def test_a_long_chain_is_one(rng: np.random.Generator) -> None:
    order = rng.permutation(5000)
    assert (connected(5000, [(order[:-1], order[1:])]) == 0).all()
