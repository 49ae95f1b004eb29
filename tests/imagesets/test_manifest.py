from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import AWKWARD, save

from gen2real.errors import ImageSetError
from gen2real.files import sha256_of
from gen2real.imagesets.manifest import COLUMNS, ClassName, ImageSet
from gen2real.imagesets.slugs import unique_slugs

CLASSES = [ClassName("cat", "Cat"), ClassName("dog", "Dog")]


def row(number: int, label: str | None = "cat", **further: Any) -> dict[str, Any]:
    return {"id": f"r{number}", "path": f"pictures/{number}.png", "label": label, "sha256": f"{number:064x}", **further}


def many(root: Path, counts: dict[str | None, int]) -> ImageSet:
    rows = [row(1000 * group + n, label) for group, (label, count) in enumerate(counts.items()) for n in range(count)]
    return ImageSet.write(root, rows, CLASSES)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    rows = [
        row(0, captions=["one", "two"], origin="generated", seed=2**40, guidance=7.5, prompt="a cat", score=0.25),
        row(1, "dog", kept=False),
        row(2, None),
    ]
    written = ImageSet.write(tmp_path, rows, CLASSES)
    for found in (written, ImageSet.read(tmp_path), ImageSet.read(tmp_path / "manifest.parquet")):
        assert found.ids == ["r0", "r1", "r2"]
        assert found.paths[1] == tmp_path / "pictures/1.png"
        assert found.labels.tolist() == [0, 1, -1]
        assert found.captions == [["one", "two"], [], []]
        assert found.class_names == ["Cat", "Dog"]
        assert found.table["origin"].to_pylist() == ["generated", "real", "real"]
        assert found.table["seed"].to_pylist() == [2**40, None, None]
        assert found.table["score"].to_pylist() == [0.25, None, None]
        assert found.table.column_names == [*COLUMNS, "score"]
        assert next(found.rows())["prompt"] == "a cat"


def test_class_names_lie_in_the_schema_metadata_in_their_order(tmp_path: Path) -> None:
    classes = [ClassName(label, name) for label, name in zip(unique_slugs(AWKWARD), AWKWARD, strict=True)]
    rows = [row(n, item.label) for n, item in enumerate(classes)]
    ImageSet.write(tmp_path, rows, classes)
    words = json.loads(pq.read_schema(tmp_path / "manifest.parquet").metadata[b"gen2real"])
    assert words == {"version": 1, "classes": [{"label": item.label, "name": item.name} for item in classes]}
    found = ImageSet.read(tmp_path)
    assert found.class_names == list(AWKWARD)
    assert found.labels.tolist() == list(range(len(AWKWARD)))


def test_a_manifest_is_never_replaced_but_one_may_lie_beside_it(tmp_path: Path) -> None:
    ImageSet.write(tmp_path, [row(0)], CLASSES)
    with pytest.raises(ImageSetError, match=r"never rewritten.*manifest-2\.parquet"):
        ImageSet.write(tmp_path, [row(1)], CLASSES)
    curated = ImageSet.write(tmp_path, [row(1)], CLASSES, name="manifest-2.parquet")
    assert ImageSet.read(curated.manifest).ids == ["r1"]
    assert ImageSet.read(tmp_path).ids == ["r0"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(0), row(0)], "more than once: .'r0'"),
        ([row(0, "Cat")], "not its name; known are .'cat', 'dog'"),
        ([row(0, path="../../etc/passwd")], "leaves the folder"),
        ([row(0, path="a/../../b.png")], "leaves the folder"),
        ([row(0, path="a\\b.png")], "forward slashes"),
        ([row(0, path="C:/b.png")], "drive letter"),
        ([row(0, path="")], "empty"),
        ([row(0, origin="fake")], "origin must be 'real' or 'generated'; got .'fake'"),
        ([row(0, seed="seven")], "'seed' cannot be stored as int64"),
        ([{"path": "a.png"}], "no column 'id'"),
        ([row(0, path=None)], "1 row.s. have no path"),
    ],
)
def test_rows_that_contradict_themselves_are_refused_and_nothing_is_written(
    tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ImageSetError, match=message):
        ImageSet.write(tmp_path, rows, CLASSES)
    assert list(tmp_path.iterdir()) == []


def test_labels_of_two_classes_must_differ_by_more_than_case(tmp_path: Path) -> None:
    with pytest.raises(ImageSetError, match="unique_slugs"):
        ImageSet.write(tmp_path, [], [ClassName("cat", "a"), ClassName("Cat", "b")])


def test_reading_says_what_is_wrong_and_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(ImageSetError, match="does not exist"):
        ImageSet.read(tmp_path / "nowhere")
    with pytest.raises(ImageSetError, match="gen2real import imagefolder"):
        ImageSet.read(tmp_path)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 not really")
    with pytest.raises(ImageSetError, match="not a whole Parquet file"):
        ImageSet.read(broken)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "has labels but not their names"),
        ({b"gen2real": b"nonsense"}, "must be"),
        ({b"gen2real": b'{"version": 1, "classes": [1]}'}, "must be"),
        ({b"gen2real": b'{"version": 2, "classes": []}'}, "pip install -U gen2real"),
    ],
)
def test_foreign_metadata_is_refused(tmp_path: Path, metadata: dict[bytes, bytes] | None, message: str) -> None:
    table = pa.table({"id": ["a"], "path": ["a.png"], "label": ["cat"]}, metadata=metadata)
    pq.write_table(table, tmp_path / "manifest.parquet")
    with pytest.raises(ImageSetError, match=message):
        ImageSet.read(tmp_path)


def test_another_tools_manifest_without_labels_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "path": ["a.png"]}), tmp_path / "manifest.parquet")
    found = ImageSet.read(tmp_path)
    assert (len(found), found.captions, found.classes) == (1, [[]], ())


def test_kept_takes_true_and_null(tmp_path: Path) -> None:
    found = ImageSet.write(tmp_path, [row(0, kept=True), row(1, kept=False), row(2)], CLASSES)
    assert found.kept().ids == ["r0", "r2"]


def test_loose_pictures_are_a_set_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in (("a.png", b"one"), ("b.png", b"two")):
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    loose = ImageSet.of(["b.png", tmp_path / "a.png", "b.png"])
    assert loose.paths == [tmp_path / "b.png", tmp_path / "a.png", tmp_path / "b.png"]
    assert (loose.ids, loose.labels.tolist()) == (["0", "1", "2"], [-1] * 3)
    assert loose.fingerprint == ImageSet.of([tmp_path / name for name in ("b.png", "a.png", "b.png")]).fingerprint
    assert loose.fingerprint != ImageSet.of(["a.png", "b.png", "b.png"]).fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
    assert len(ImageSet.of([])) == 0


def test_select_takes_rows_in_the_order_asked_for(tmp_path: Path) -> None:
    found = many(tmp_path, {"cat": 5})
    assert found.select([3, 0]).ids == ["r3", "r0"]
    assert len(found.select([])) == 0
    with pytest.raises(ImageSetError, match="0…4"):
        found.select([5])


def test_split_holds_out_a_share_of_every_class(tmp_path: Path) -> None:
    found = many(tmp_path, {"cat": 20, "dog": 2, None: 1})
    rest, held_out = found.split(0.1, seed=3)
    assert [(held_out.labels == label).sum() for label in (0, 1, -1)] == [2, 1, 0]
    assert [(rest.labels == label).sum() for label in (0, 1, -1)] == [18, 1, 1]
    assert sorted(rest.ids + held_out.ids) == sorted(found.ids)
    assert rest.ids == [name for name in found.ids if name in set(rest.ids)]


def test_split_depends_on_ids_and_seed_only(tmp_path: Path) -> None:
    found = many(tmp_path, {"cat": 50, "dog": 50})
    held_out = set(found.split(0.2, seed=1)[1].ids)
    backwards = found.select(range(99, -1, -1))
    assert set(backwards.split(0.2, seed=1)[1].ids) == held_out
    assert set(found.split(0.2, seed=2)[1].ids) != held_out


@pytest.mark.parametrize(("fraction", "held_out"), [(0, 0), (1, 8), (0.99, 7), (0.001, 1)])
def test_split_at_its_ends(tmp_path: Path, fraction: float, held_out: int) -> None:
    rest, held = many(tmp_path, {"cat": 8}).split(fraction)
    assert (len(rest), len(held)) == (8 - held_out, held_out)


def test_split_refuses_a_share_beyond_the_whole(tmp_path: Path) -> None:
    with pytest.raises(ImageSetError, match="between 0 and 1"):
        many(tmp_path, {"cat": 2}).split(20)


def test_fingerprint_is_of_content_and_not_of_the_place(tmp_path: Path) -> None:
    here = many(tmp_path / "here", {"cat": 3, "dog": 2})
    there = many(tmp_path / "there", {"cat": 3, "dog": 2})
    assert here.fingerprint == there.fingerprint == ImageSet.read(there.manifest).fingerprint
    other_label = ImageSet.write(tmp_path / "c", [*list(here.rows())[:4], {**row(1001), "label": "cat"}], CLASSES)
    assert len({here.fingerprint, other_label.fingerprint, here.select([1, 0, 2, 3, 4]).fingerprint}) == 3


def test_fingerprint_hashes_pictures_that_have_no_hash_yet(tmp_path: Path) -> None:
    path = save(tmp_path / "pictures/0.png")
    with_hash = ImageSet.write(tmp_path, [row(0, sha256=sha256_of(path))], CLASSES)
    without = ImageSet.write(tmp_path, [row(0, sha256=None)], CLASSES, name="other.parquet")
    assert without.fingerprint == with_hash.fingerprint
