"""What measures are called, and which way they are better, wherever a change is put into words."""

from __future__ import annotations

import numpy as np
import pytest

from gen2real.evaluation.statistics import Interval, PairedTest
from gen2real.methods.measured import Reading, complete, values_of
from gen2real.methods.measured_findings import limitations, markdown, sentence, verdict
from gen2real.methods.measures import Measure, leading

KID = Measure("kernel_distance")


def change(difference: float, half: float = 0.01) -> PairedTest:
    return PairedTest(difference, difference - half, difference + half, 0.01, 50, 1, 0.95)


@pytest.mark.parametrize(
    ("key", "name", "heading", "unit"),
    [
        ("kernel_distance", "kernel distance", "kernel distance ↓", ""),
        ("clip_score", "CLIP-score", "CLIP-score", ""),
        ("clip_i", "CLIP-I", "CLIP-I", ""),
        ("diversity", "diversity", "diversity", ""),
        ("top1", "top-1", "top-1", "%"),
        ("general_top1", "top-1, general", "top-1, general", "%"),
        ("general_image_to_text_recall@5", "R@5 picture → text, general", "R@5 picture → text, general", "%"),
        ("accuracy", "accuracy", "accuracy", "%"),
        ("cider", "CIDEr-D", "CIDEr-D", ""),
        ("f1", "F1", "F1", ""),
        ("pope_accuracy", "accuracy, pope", "accuracy, pope", "%"),
        ("far_off_accuracy_at_3", "accuracy at place 3, far off", "accuracy at place 3, far off", "%"),
        ("captions_cider", "CIDEr-D, captions", "CIDEr-D, captions", ""),
        ("general_kernel_distance", "kernel distance, general", "kernel distance, general ↓", ""),
        ("story_unseen_recall@5", "R@5, story unseen", "R@5, story unseen", "%"),
        ("composed_composed_recall@5", "R@5, composed", "R@5, composed", "%"),
        ("image", "image score", "image score", "%"),
        ("winoground_group", "group score, winoground", "group score, winoground", "%"),
        ("something_new", "something new", "something new", "%"),
    ],
)
def test_names_and_units(key: str, name: str, heading: str, unit: str) -> None:
    measure = Measure(key)
    assert (measure.name, measure.heading, measure.unit) == (name, heading, unit)


def test_which_way_is_better() -> None:
    top1 = Measure("top1")
    assert [top1.weighed(change(by)) for by in (0.1, -0.1, 0.005)] == ["better", "worse", "chance"]
    assert [KID.weighed(change(by)) for by in (0.1, -0.1, 0.005)] == ["worse", "better", "chance"]
    assert (top1.gain(0.1), KID.gain(0.1)) == (0.1, -0.1)
    assert [key for key in ("kernel_distance", "clip_i", "diversity", "cider") if Measure(key).lower_is_better] == [
        "kernel_distance"
    ]


def test_numbers_for_people() -> None:
    assert KID.interval(Interval(0.0213, 0.0196, 0.0234, 50, 0.95)) == "2.13 [1.96, 2.34]"
    assert KID.change(change(-0.0042, 0.002)) == "−0.42 [−0.62, −0.22]"
    # By another scorer distances are of another size; an interval has the decimals of its mean, a change its own.
    assert KID.interval(Interval(4.26704, 3.8012, 4.7033, 50, 0.95)) == "427 [380, 470]"
    assert KID.interval(Interval(0.42671, 0.0952, 1.0033, 50, 0.95)) == "42.7 [9.5, 100.3]"
    assert KID.change(change(-0.3127, 0.2)) == "−31.3 [−51.3, −11.3]"
    assert [KID.value(one) for one in (0.09994, 0.09996, 0.9994, 0.9996)] == ["9.99", "10.0", "99.9", "100"]
    assert Measure("top1").value(1) == "100.0\u00a0%"
    # A distance that is estimated without bias may be below zero, and is no minus zero.
    assert KID.value(-0.00004) == "0.00"
    assert Measure("clip_score").value(0.3117) == "31.2"


def test_what_a_reader_looks_for_first() -> None:
    keys = ["clip_score", "kernel_distance", "image_to_text_recall@1", "general_top1", "text_to_image_recall@1"]
    assert leading(keys) == ["image_to_text_recall@1", "text_to_image_recall@1", "kernel_distance"]
    of_tasks = ["pope_accuracy", "pope_f1", "facts_rouge_l", "web_rouge_l", "web_cider", "web_bleu4", "tales_recall@1"]
    assert leading(of_tasks) == ["tales_recall@1", "pope_accuracy", "web_cider", "facts_rouge_l"]
    assert leading(["rouge_l", "f1"]) == ["rouge_l"]


@pytest.fixture
def readings(rng: np.random.Generator) -> dict[str, Reading]:
    noise = rng.normal(0, 0.02, 60)
    before = {"kernel_distance": 0.08 + noise, "clip_score": 0.3 + noise}
    after = {"kernel_distance": 0.04 + 1.1 * noise, "clip_score": 0.25 + 1.1 * noise}
    return {"baseline": Reading("before", before), "tuned": Reading("after", after)}


def test_sentences_know_that_a_smaller_distance_is_better(readings: dict[str, Reading]) -> None:
    whole = complete({"method": "unidiff", "encoder": "clip", "pictures": {"real": 60}}, readings, "tuned")
    values = values_of(readings)
    said = verdict(whole, values)
    assert "Kernel distance, where lower is better, is 4." in said
    assert "better beyond what chance explains" in said
    assert sentence(whole).startswith("clip was tuned together with a diffusion model by UniDiff on 60 real pictures")
    # The same numbers the other way round.
    back = {"baseline": readings["tuned"], "tuned": readings["baseline"]}
    assert "worse beyond what chance explains" in verdict(complete(whole, back, "tuned"), values_of(back))
    card = markdown(whole, values)
    assert "| reading | kernel distance ↓ | CLIP-score | |" in card
    assert "Of measures with ↓ lower is better." in card
    assert any("one scorer" in one for one in limitations(whole))


def test_many_measures_are_told_by_what_became_of_them(rng: np.random.Generator) -> None:
    noise = rng.normal(0, 0.02, 60)
    keys = ["image_to_text_recall@1", "text_to_image_recall@1", "top1", "accuracy", "kernel_distance"]
    before = dict.fromkeys(keys, 0.5 + noise)
    gained = dict(zip(keys, (0.1, -0.1, 0.0, 0.2, -0.25), strict=True))
    after = {key: before[key] + by * (1 + noise) for key, by in gained.items()}
    both = {"baseline": Reading("before", before), "tuned": Reading("after", after)}
    whole = complete({"method": "unidiff", "encoder": "clip", "pictures": {"real": 60}}, both, "tuned")
    said = verdict(whole, values_of(both))
    opening, better, worse, same = said.replace(". Worse", "|Worse").replace(". Pict", "|Pict").replace(
        ". Better", "|Better"
    ).split("|")  # fmt: skip
    assert opening == "Read as tuned, beside the model before the training"
    assert better.startswith("Better beyond what chance explains: R@1 picture → text ")
    assert "pp [" in better
    assert "; accuracy " in better
    assert "; kernel distance (lower is better) 2" in better
    assert worse.startswith("Worse beyond what chance explains: R@1 text → picture ")
    assert same.startswith("Picture by picture the same: top-1 ")
    # Without each picture's values nothing is known of chance: a sentence each, as for few.
    assert verdict(whole).count("; before the training ") == 5
    few = complete(whole, {name: Reading("", {key: one.values[key] for key in keys[:3]}) for name, one in both.items()},
                   "tuned")  # fmt: skip
    assert "a difference of" in verdict(few, values_of(both))


def test_a_run_without_distances_says_nothing_of_them(readings: dict[str, Reading]) -> None:
    plain = {name: Reading(one.meaning, {"cider": one.values["clip_score"]}) for name, one in readings.items()}
    card = markdown(complete({"method": "captioning", "encoder": "c", "pictures": {"real": 60}}, plain, "tuned"))
    assert "↓" not in card
    assert "one scorer" not in card
