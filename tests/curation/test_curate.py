"""Whole curations of a small set in which everything that can be wrong with a picture is wrong with one."""

from __future__ import annotations

import re
import shutil
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps
from tiny_safety import tiny_safety

from gen2real import methods
from gen2real.config import parse_config
from gen2real.curation import CurateConfig, Curation, curate
from gen2real.curation.rules import best_first, share_of
from gen2real.errors import ImageSetError, RecipeError
from gen2real.files import read_json, sha256_of
from gen2real.imagesets import ClassName, ImageSet, hamming_distance, perceptual_hash
from tiny import tiny_clip

CLASSES = [ClassName("cat", "cat"), ClassName("dog", "dog"), ClassName("eel", "eel")]


def detailed(seed: int) -> Image.Image:
    """Detail in every frequency that is hashed, different for each seed."""
    shades = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(shades).resize((48, 40), Image.Resampling.BICUBIC)


def save(root: Path, name: str, picture: Image.Image, label: str | None, **more: Any) -> dict[str, Any]:
    root.mkdir(parents=True, exist_ok=True)
    picture.save(root / name)
    row = {"id": Path(name).stem, "path": name, "origin": "generated", "label": label, "captions": []}
    return {**row, "sha256": sha256_of(root / name), **more}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """generated: 4 good pictures a class and the bad ones; tested: 6 photographs, two of which are in the former."""
    root = tmp_path_factory.mktemp("template")
    tested = [save(root / "tested", f"photo{seed}.png", detailed(100 + seed), None) for seed in range(6)]
    ImageSet.write(root / "tested", [{**row, "origin": "real"} for row in tested], [])
    here = root / "generated"
    rows = [
        save(here, f"{known.label}{number}.png", detailed(10 * place + number), known.label)
        for place, known in enumerate(CLASSES)
        for number in range(4)
    ]
    rows += [
        save(here, "cat-again.jpg", detailed(0), "cat"),
        save(here, "cat-as-dog.png", detailed(1), "dog"),
        save(here, "black.png", Image.new("RGB", (48, 40)), "dog"),
        save(here, "mirrored.png", ImageOps.mirror(detailed(103)), "eel"),
        save(here, "copied.png", detailed(105), "eel"),
        save(here, "before.png", detailed(31), "eel", kept=False, reason="I did not like it"),
        {"id": "torn", "path": "torn.png", "origin": "generated", "label": "eel", "captions": [], "sha256": "0"},
    ]
    (here / "torn.png").write_bytes((here / "cat0.png").read_bytes()[:200])
    ImageSet.write(here, rows, CLASSES)
    return root


@pytest.fixture
def world(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "world"))


def asked(world: Path, clip: Path, **more: Any) -> Curation:
    given = {"images": str(world / "generated"), "encoder": str(clip), "duplicate_cosine": 1.0, "leak_cosine": 1.0}
    return curate(parse_config(CurateConfig, {**given, **more}, source="test"))


def told(done: Curation) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in done.image_set.rows()}


def test_what_is_wrong_with_a_picture_is_found_without_being_asked_for(world: Path, clip: Path) -> None:
    before = {path: path.read_bytes() for path in (world / "generated").iterdir()}
    done = asked(world, clip, evaluation=[str(world / "tested")])
    rows = told(done)
    reasons = {name: row["reason"] for name, row in rows.items() if not row["kept"]}
    tested = str(world / "tested")
    twin = next(name for name in ("cat0", "cat-again") if name in reasons)
    other = {"cat0": "cat-again", "cat-again": "cat0"}[twin]
    assert reasons.pop("torn").startswith("unreadable: ")
    assert reasons == {
        twin: f"near-duplicate of {other}, one of 2",
        "black": "blank: every channel is flat",
        "mirrored": f"leaked: 0 bits from mirrored photo3 of {tested}, up to 4 the same",
        "copied": f"leaked: the same file as photo5 of {tested}",
        "before": "left out before: I did not like it",
    }
    assert [rows[name]["rules"] for name in (twin, "black", "copied", "before", "torn", "eel0")] == [
        ["duplicate"], ["blank"], ["leaked"], ["left_out_before"], ["unreadable"], [],
    ]  # fmt: skip
    assert rows["eel0"]["reason"] is None
    # Another class's copy is not a near-duplicate of its own class.
    assert rows["cat-as-dog"]["kept"]
    assert rows["cat-as-dog"]["duplicate_group"] is None
    assert rows["cat0"]["duplicate_group"] == rows["cat-again"]["duplicate_group"] == 0
    assert (rows[twin]["duplicate_of"], rows[other]["duplicate_of"]) == (other, None)
    assert (rows["mirrored"]["nearest_evaluation"], rows["mirrored"]["nearest_evaluation_bits"]) == ("photo3", 0)
    assert (rows["copied"]["nearest_evaluation"], rows["copied"]["nearest_evaluation_set"]) == ("photo5", tested)
    assert rows["eel0"]["nearest_evaluation"].startswith("photo")
    assert -1 <= rows["eel0"]["nearest_evaluation_cosine"] < 1
    assert rows["eel0"]["nearest_evaluation_bits"] is None
    assert rows["eel0"]["phash"] == perceptual_hash(detailed(20))
    for name in ("torn", "before"):
        assert rows[name]["score_similarity"] is rows[name]["score_margin"] is None
        assert rows[name]["nearest_evaluation"] is None
    # Nothing of the source was touched, and later steps see the verdict.
    assert {path: path.read_bytes() for path in before} == before
    assert list(rows) == ImageSet.read(world / "generated").ids
    assert {row["id"] for row in done.image_set.kept().rows()} == {name for name, row in rows.items() if row["kept"]}


def test_the_report_counts_what_the_manifest_says(world: Path, clip: Path) -> None:
    done = asked(world, clip, evaluation=[str(world / "tested")])
    report = done.report
    assert read_json(world / "generated" / "curation.json") == report
    assert (report["pictures"], report["kept"]) == (19, 13)
    assert report["rules"] == {"left_out_before": 1, "unreadable": 1, "blank": 1, "leaked": 2, "duplicate": 1}
    assert report["classes"] == [
        {"label": "cat", "name": "cat", "pictures": 5, "kept": 4, "rules": {"duplicate": 1}},
        {"label": "dog", "name": "dog", "pictures": 6, "kept": 5, "rules": {"blank": 1}},
        {
            "label": "eel", "name": "eel", "pictures": 8, "kept": 4,
            "rules": {"left_out_before": 1, "unreadable": 1, "leaked": 2},
        },
    ]  # fmt: skip
    assert report["without_class"]["pictures"] == 0
    assert report["thresholds"] == {"duplicate_bits": 4, "leak_bits": 4, "leak_cosine": 1.0, "duplicate_cosine": 1.0}
    assert report["duplicate_groups"] == 1
    for name in ("similarity", "margin"):
        values = [row[f"score_{name}"] for row in told(done).values() if row[f"score_{name}"] is not None]
        summary = report["scores"][name]
        bins = summary["histogram"]
        assert summary["count"] == len(values) == 16
        assert sum(bins["kept"]) == 13
        assert sum(bins["left_out"]) == 3
        assert (bins["edges"][0], bins["edges"][-1]) == pytest.approx((min(values), max(values)))
        assert summary["quantiles"]["50"] == pytest.approx(np.median(values))
        drawing = ElementTree.parse(world / "generated" / "curation" / f"score_{name}.svg").getroot()
        assert drawing.tag.endswith("svg")
        assert "left out" in "".join(drawing.itertext())
    assert any("--trained-encoder" in note for note in report["notes"])
    assert report["encoder"]["is_the_trained_one"] is None


def test_thresholds_and_shares_name_their_numbers(world: Path, clip: Path) -> None:
    scores = {name: row["score_margin"] for name, row in told(asked(world, clip, name="all.parquet")).items()}
    cats = sorted((scores[name], name) for name in ("cat0", "cat1", "cat2", "cat3"))
    least = (cats[0][0] + cats[1][0]) / 2
    done = asked(world, clip, min_margin=round(least, 6), duplicates=False, empty_classes="error", keep_similarity=0.5)
    rows = told(done)
    for name, row in rows.items():
        below = row["score_margin"] is not None and row["score_margin"] < round(least, 6)
        assert ("margin" in row["rules"]) == below
        if below:
            shown = re.search(rf"margin (-?[\d.e-]+) below {round(least, 6):g}", row["reason"])
            assert shown, (name, row["reason"])
            assert float(shown[1]) == pytest.approx(scores[name], rel=5e-3)
    reached = done.report["thresholds"]["keep_similarity"]
    assert reached["share"] == 0.5
    for known in CLASSES:
        own = [row for row in rows.values() if row["label"] == known.label and set(row["rules"]) <= {"similarity"}]
        own.sort(key=lambda row: -row["score_similarity"])
        count = -(-len(own) // 2)
        assert [row["kept"] for row in own] == [True] * count + [False] * (len(own) - count)
        assert reached["reached"][known.label] == own[count - 1]["score_similarity"]
        assert all(f"is not among the best 50% of class {known.name}" in row["reason"] for row in own[count:])


def test_a_picture_that_breaks_several_rules_names_them_all(world: Path, clip: Path) -> None:
    with pytest.raises(ImageSetError, match=r"no picture would be left: .*similarity 16"):
        asked(world, clip, evaluation=[str(world / "tested")], min_similarity=0.99)
    margins = {name: row["score_margin"] for name, row in told(asked(world, clip, name="all.parquet")).items()}
    limit = margins["copied"] + 1e-4
    more = {"evaluation": [str(world / "tested")], "min_margin": limit, "empty_classes": "warn"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        row = told(asked(world, clip, name="strict.parquet", **more))["copied"]
    assert row["rules"] == ["leaked", "margin"]
    assert row["reason"].startswith("leaked: the same file as photo5 of ")
    assert "; margin " in row["reason"]


def test_the_same_again_reads_and_another_is_refused(world: Path, clip: Path) -> None:
    first = asked(world, clip)
    stamps = {path: path.stat().st_mtime_ns for path in (world / "generated").rglob("*")}
    again = asked(world, clip)
    assert again.report == first.report
    assert {path: path.stat().st_mtime_ns for path in (world / "generated").rglob("*")} == stamps
    with pytest.raises(ImageSetError, match=r"keep_margin: None → 0\.5\n.*--name curated-2\.parquet"):
        asked(world, clip, keep_margin=0.5)
    other = asked(world, clip, keep_margin=0.5, name="half.parquet")
    assert (world / "generated" / "curation-half.json").exists()
    assert (world / "generated" / "curation-half" / "score_margin.svg").exists()
    assert other.report["kept"] < first.report["kept"]
    moved = world.rename(world.with_name("elsewhere"))
    assert asked(moved, clip).report == first.report


def test_what_was_killed_before_its_manifest_is_done_again(world: Path, clip: Path) -> None:
    first = asked(world, clip)
    first.image_set.manifest.unlink()
    assert asked(world, clip).report["kept"] == first.report["kept"]
    (world / "generated" / "curation.json").unlink()
    with pytest.raises(ImageSetError, match=r"there is no curation\.json that says how it was made"):
        asked(world, clip)


def test_a_set_that_has_grown_is_another(world: Path, clip: Path) -> None:
    asked(world, clip)
    source = ImageSet.read(world / "generated")
    rows = [*source.rows(), save(world / "generated", "new.png", detailed(77), "cat")]
    (world / "generated" / "manifest.parquet").unlink()
    ImageSet.write(world / "generated", rows, CLASSES)
    with pytest.raises(ImageSetError, match=r"inputs\.images\.fingerprint: "):
        asked(world, clip)


def test_curating_what_was_curated_keeps_what_was_said(world: Path, clip: Path) -> None:
    first = told(asked(world, clip))
    second = asked(
        world, clip, images=str(world / "generated" / "curated.parquet"), keep_margin=0.5, name="two.parquet"
    )
    rows = told(second)
    for name, row in first.items():
        if not row["kept"]:
            assert rows[name]["reason"] == f"left out before: {row['reason'].removeprefix('left out before: ')}"
            assert rows[name]["score_margin"] == row["score_margin"]
            assert rows[name]["phash"] == row["phash"]
    assert second.report["rules"]["left_out_before"] == sum(not row["kept"] for row in first.values())


def test_a_class_left_empty_is_named_and_nothing_is_written(world: Path, clip: Path) -> None:
    """The evaluation set holds all cats."""
    cats = [row for row in ImageSet.read(world / "generated").rows() if row["label"] == "cat"]
    for row in cats:
        shutil.copy(world / "generated" / row["path"], world / "tested" / row["path"])
    ImageSet.write(world / "tested", [{**row, "label": None, "kept": None} for row in cats], [], name="cats.parquet")
    more = {"evaluation": [str(world / "tested" / "cats.parquet")]}
    with pytest.raises(ImageSetError, match=r"cat \(all 5: leaked 5\)\nNothing was written.*--empty-classes warn"):
        asked(world, clip, **more)
    assert not (world / "generated" / "curated.parquet").exists()
    with pytest.warns(UserWarning, match=r"1 class\(es\) are left without a picture:\n  cat"):
        done = asked(world, clip, **more, empty_classes="warn")
    assert done.report["classes"][0]["kept"] == 0
    assert done.report["warnings"]


def test_the_encoder_that_is_trained_should_not_score(world: Path, clip: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(clip, tmp_path / "the same under another name")
    for number, trained in enumerate((clip, copied)):
        with pytest.warns(UserWarning, match="is the one that will be trained"):
            done = asked(world, clip, trained_encoder=str(trained), name=f"{number}.parquet")
        assert done.report["encoder"]["is_the_trained_one"] is True
    other = tiny_clip(tmp_path / "other", seed=5)
    done = asked(world, clip, trained_encoder=str(other))
    assert done.report["encoder"]["is_the_trained_one"] is False
    assert done.report["warnings"] == []


def test_near_duplicates_of_the_encoder_hang_together(world: Path, clip: Path) -> None:
    done = asked(world, clip, duplicate_cosine=-1.0)
    rows = told(done)
    for known in CLASSES:
        own = [row for row in rows.values() if row["label"] == known.label and row["score_margin"] is not None]
        assert len({row["duplicate_group"] for row in own}) == 1
        (best,) = [row for row in own if row["kept"]]
        assert best["score_margin"] == max(row["score_margin"] for row in own)
    assert len([note for note in done.report["notes"] if "more than half" in note]) == 3
    everything = asked(world, clip, duplicate_cosine=-1.0, duplicates=False, name="every.parquet")
    assert everything.report["duplicate_groups"] == 0


def test_limits_are_measured_on_the_encoder(world: Path, clip: Path) -> None:
    more = {"duplicate_cosine": "auto", "leak_cosine": "auto", "evaluation": [str(world / "tested")]}
    found = asked(world, clip, **more).report["thresholds"]
    for name in ("duplicate_cosine", "leak_cosine"):
        assert 0.5 < found[name] < 1


def test_real_likeness_is_for_unlabelled_pictures_that_are_not_tested_on(world: Path, clip: Path) -> None:
    photographs = [save(world / "real", f"{seed}.png", detailed(200 + seed), None) for seed in range(5)]
    ImageSet.write(world / "real", photographs, [])
    done = asked(world, clip, real=str(world / "real"), keep_real_likeness=0.5)
    rows = told(done)
    assert {name for name, row in rows.items() if row["score_real_likeness"] is None} == {"black", "torn", "before"}
    assert done.report["rules"]["real_likeness"] == done.report["scores"]["real_likeness"]["count"] - 8 - 1
    with pytest.raises(ImageSetError, match=r"6 picture\(s\) of .*tested are also in the evaluation set"):
        asked(world, clip, real=str(world / "tested"), evaluation=[str(world / "tested")], name="x.parquet")


def test_unsafe_pictures_are_left_out(world: Path, clip: Path, tmp_path: Path) -> None:
    safety = str(tiny_safety(tmp_path / "safety"))
    rows = told(asked(world, clip, safety=safety, max_unsafe=1, name="all.parquet"))
    scores = {name: row["score_unsafe"] for name, row in rows.items() if row["score_unsafe"] is not None}
    worst = max(scores, key=lambda name: scores[name])
    limit = round(sorted(scores.values())[-2] + 1e-6, 6)
    done = asked(world, clip, safety=safety, max_unsafe=limit)
    again = told(done)
    assert [name for name, row in again.items() if "unsafe" in row["rules"]] == [worst]
    assert re.match(rf"unsafe 0\.\d+ above {limit:g}", again[worst]["reason"])
    assert done.report["thresholds"]["max_unsafe"] == limit
    assert done.report["thresholds"]["unsafe_labels"] == ["Hentai", "PORN", "Sexy"]


def test_captioned_pictures_have_scores(tmp_path: Path, clip: Path) -> None:
    rows = [
        save(tmp_path / "set", f"{seed}.png", detailed(seed), None, captions=[f"caption number {seed % 3}"])
        for seed in range(6)
    ]
    ImageSet.write(tmp_path / "set", rows, [])
    done = asked(tmp_path, clip, images=str(tmp_path / "set"), keep_margin=0.5)
    assert done.report["kept"] == 3
    assert done.report["thresholds"]["keep_margin"]["reached"].keys() == {""}
    assert "of pictures without a class" in next(row["reason"] for row in told(done).values() if row["reason"])


def test_a_rule_without_anything_to_judge_by_is_refused(tmp_path: Path, clip: Path) -> None:
    rows = [save(tmp_path / "set", f"{seed}.png", detailed(seed), None) for seed in range(2)]
    ImageSet.write(tmp_path / "set", rows, [])
    with pytest.raises(ImageSetError, match=r"2 of 2 pictures have no similarity \(the first: 0\)"):
        asked(tmp_path, clip, images=str(tmp_path / "set"), min_similarity=0.1)
    assert asked(tmp_path, clip, images=str(tmp_path / "set")).report["scores"] == {}
    black = [save(tmp_path / "black", "0.png", Image.new("RGB", (9, 9)), None)]
    ImageSet.write(tmp_path / "black", black, [])
    with pytest.raises(ImageSetError, match=r"0 cannot be read .*1 are blank"):
        asked(tmp_path, clip, images=str(tmp_path / "black"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "manifest.parquet"}, "never rewritten"),
        ({"name": "a/b.parquet"}, "without a folder"),
        ({"keep_margin": 0}, "keep_margin: given 0"),
        ({"keep_margins": 0.5}, "did you mean keep_margin"),
        ({"keep_real_likeness": 0.5}, "--real SET"),
        ({"unsafe_labels": ["nsfw"]}, "--safety FOLDER"),
        ({"duplicate_cosine": "atuo"}, "auto"),
    ],
)
def test_settings_that_do_not_fit_are_told(given: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(said)):
        parse_config(CurateConfig, {"images": "x", "encoder": "y", **given}, source="test")


def test_training_sees_what_was_kept(world: Path, clip: Path, tmp_path: Path) -> None:
    done = asked(world, clip, keep_margin=0.5)
    recipe = {
        "output": str(tmp_path / "run"),
        "encoder": {"name": str(clip)},
        "data": {"generated": [str(done.image_set.manifest)], "holdout": 0},
        "tune": "head",
        "loss": {"variance": 0, "covariance": 0},
        "training": {"steps": 2, "batch_size": 4},
        "save_model": False,
    }
    result = methods.run(parse_config(methods.CONFIGS["regft"], recipe, source="test"), quiet=True)
    assert result.summary["pictures"]["generated"] == done.report["kept"]


def test_shares_and_ties() -> None:
    assert [share_of(count, 0.7) for count in (1, 2, 3, 10, 100)] == [1, 2, 3, 7, 70]
    scores = np.array([0.5, np.nan, 0.5, 0.9, 0.5])
    assert best_first(scores, ["d", "a", "b", "z", "c"], np.arange(5)).tolist() == [3, 2, 4, 0, 1]


def test_hashes_of_views(tmp_path: Path) -> None:
    from gen2real.imagesets import perceptual_hash_views

    picture = detailed(3).resize((200, 100))
    whole, mirrored, middle, mirrored_middle = perceptual_hash_views(picture)
    cropped = picture.crop((10, 5, 190, 95))
    assert whole == perceptual_hash(picture)
    assert mirrored == perceptual_hash(ImageOps.mirror(picture))
    assert hamming_distance(middle, perceptual_hash(cropped)) <= 2
    assert hamming_distance(mirrored_middle, perceptual_hash(ImageOps.mirror(cropped))) <= 2
    assert hamming_distance(whole, mirrored) > 16


def test_the_manifest_opens_in_any_reader(world: Path, clip: Path) -> None:
    asked(world, clip)
    schema = pq.read_schema(world / "generated" / "curated.parquet")
    assert {name: str(schema.field(name).type) for name in ("kept", "reason", "rules", "duplicate_group")} == {
        "kept": "bool", "reason": "string", "rules": "list<element: string>", "duplicate_group": "int64",
    }  # fmt: skip
    assert str(schema.field("score_margin").type) == "double"
