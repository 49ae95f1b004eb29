"""Tasks that ask a multimodal model: what its answers count as, and whole measurements with given answers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gen2real.errors import Gen2RealError, ImageSetError, ModelError
from gen2real.evaluation.choice import chosen, measure_choice, read_choices
from gen2real.evaluation.knowledge import measure_knowledge, rouge_scores
from gen2real.evaluation.position import measure_position, spread_by_place
from gen2real.evaluation.statistics import bootstrap_interval, group_values, ratio_values
from gen2real.evaluation.tasks import LOOKED_UP, TASKS, Asked, TaskInput, TaskScores, items_of, measure_task
from gen2real.evaluation.yes_no import is_plain, measure_yes_no, read_yes_no, says_yes, yes_no_values
from gen2real.methods.sugar import settings
from gen2real.methods.sugar.settings import TaskName
from gen2real.models.multimodal import MultimodalModel


class Answering(MultimodalModel):
    """Says what it was given to say; keeps what it was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.name, self.made_by = answers, "answering", {}
        self.asked: list[tuple[tuple[Path, ...], str]] = []

    def answer(self, pictures: Any, questions: Sequence[str], **_: Any) -> list[str]:
        self.asked += [(tuple(own), question) for own, question in zip(pictures, questions, strict=True)]
        assert len(self.answers) == len(questions)
        return list(self.answers)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("asked")
    for number in range(4):
        Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(root / f"{number}.png")
    return root


def asks(folder: Path, name: str, *lines: dict[str, Any]) -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def measured(folder: Path, measure: Any, lines: Sequence[dict[str, Any]], *answers: str, **more: Any) -> TaskScores:
    path = asks(folder, "items", *lines)
    return measure(TaskInput(Answering(*answers), path, **more))


def means(found: TaskScores) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in found.values.items()}


def test_every_task_of_a_recipe_is_there() -> None:
    from typing import get_args

    assert set(TASKS) == set(get_args(TaskName))
    assert settings.LOOKED_UP == LOOKED_UP


@pytest.mark.parametrize(
    ("answer", "yes", "plain"),
    [
        ("Yes", True, True),
        ("no", False, True),
        ("No, there is not.", False, True),
        ("There is not a dog", False, True),
        ("There is a dog", True, False),
        ("Yes. There is no cat", True, True),
        ("NO!", False, True),
        ("nothing is there", True, False),
        ("a knot", True, False),
        ("", True, False),
    ],
)
def test_yes_or_no_by_the_first_sentence(answer: str, yes: bool, plain: bool) -> None:
    assert (says_yes(answer), is_plain(answer)) == (yes, plain)


YES_NO = [
    # Said, right: 3 true yes, 2 false yes, 1 false no, 2 true no.
    *[("yes", "yes")] * 3,
    *[("yes", "no")] * 2,
    ("no", "yes"),
    *[("no", "no")] * 2,
]


def test_pope_by_hand(folder: Path) -> None:
    lines = [
        {
            "image": f"{place // 2}.png",
            "question": "is it?",
            "answer": right,
            "category": "popular" if place % 2 else "random",
        }
        for place, (_, right) in enumerate(YES_NO)
    ]
    found = measured(folder, measure_yes_no, lines, *(said for said, _ in YES_NO))
    assert means(found) == pytest.approx({"accuracy": 5 / 8, "f1": 6 / 9})
    assert [len(values) for values in found.values.values()] == [4, 4]
    details = {name: found.details[name]["mean"] for name in ("precision", "recall", "yes_rate", "accuracy_plus")}
    # Right: y y | y n | n n | y y by pictures.
    assert details == pytest.approx({"precision": 3 / 5, "recall": 3 / 4, "yes_rate": 5 / 8, "accuracy_plus": 2 / 4})
    assert (found.details["questions"], found.details["pictures"], found.details["unclear"]) == (8, 4, 0)
    # random: yy, yy, yn, nn; popular: yy, yn, ny, nn, as said and right.
    even, odd = found.details["categories"]["random"], found.details["categories"]["popular"]
    assert (even["accuracy"]["mean"], even["f1"]["mean"], even["questions"]) == (0.75, 0.8, 4)
    assert (odd["accuracy"]["mean"], odd["f1"]["mean"], odd["yes_rate"]["mean"]) == (0.5, 0.5, 0.5)
    assert found.samples[5] == {
        "id": "6", "pictures": [str(folder / "2.png")], "question": "is it?", "references": ["yes"], "answer": "no",
        "score": 0.0,
    }  # fmt: skip


def test_every_confusion_of_three_questions() -> None:
    for said, right in product(product((False, True), repeat=3), repeat=2):
        tp = sum(a and b for a, b in zip(said, right, strict=True))
        precision, recall = (tp / sum(of) if sum(of) else 0.0 for of in (said, right))
        both = precision + recall
        found = yes_no_values(np.array(said), np.array(right), np.array([0, 1, 0]))
        assert {name: values.mean() for name, values in found.items()} == pytest.approx(
            {
                "accuracy": sum(a == b for a, b in zip(said, right, strict=True)) / 3,
                "precision": precision,
                "recall": recall,
                "f1": 2 * precision * recall / both if both else 0.0,
                "yes_rate": sum(said) / 3,
            }
        )


def test_the_interval_of_a_ratio_is_that_of_its_resamples(rng: np.random.Generator) -> None:
    said, right = rng.random(400) < 0.5, rng.random(400) < 0.4
    found = bootstrap_interval(yes_no_values(said, right, np.arange(400))["f1"])
    picks = rng.integers(400, size=(4000, 400))
    tp, fp, fn = ((part[picks]).sum(axis=1) for part in (said & right, said & ~right, ~said & right))
    low, high = np.quantile(2 * tp / (2 * tp + fp + fn), [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)


def test_a_ratio_of_groups_is_the_mean_of_their_members() -> None:
    values, group = [1.0, 0.0, 1.0, 1.0], [0, 0, 1, 3]
    assert group_values(values, group, 4) == pytest.approx(ratio_values([1, 1, 0, 1], [2, 1, 0, 1]))
    assert ratio_values([0, 0], [0, 0]).tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"as many tops as bottoms"):
        ratio_values([1.0], [1.0, 2.0])


def test_answers_that_say_neither_are_told(folder: Path) -> None:
    found = measured(folder, measure_yes_no, [{"image": "0.png", "question": "is it?", "answer": "No"}], "a red ball")
    assert found.details["unclear"] == 1
    assert found.notes == ("1 of 1 answers say neither yes nor no; POPE counts them as yes.",)
    assert means(found) == {"accuracy": 0.0, "f1": 0.0}


OPTIONS = ("red ball", "dark red ball", "a car", "Two cars")


@pytest.mark.parametrize(
    ("answer", "options", "place"),
    [
        ("B", OPTIONS, 1),
        ("b", OPTIONS, 1),
        (" B. ", OPTIONS, 1),
        ("(B)", OPTIONS, 1),
        ("[c]", OPTIONS, 2),
        ("B) dark red ball", OPTIONS, 1),
        ("B. whatever follows", OPTIONS, 1),
        ("(C) red ball", OPTIONS, 2),
        ("D: two", OPTIONS, 3),
        ("The answer is C.", OPTIONS, 2),
        ("Answer: D", OPTIONS, 3),
        ("It must be option (b), I think", OPTIONS, 1),
        ("The answer is option A", OPTIONS, 0),
        # An article and a pronoun are no letters.
        ("A car", OPTIONS, 2),
        ("a car", OPTIONS, 2),
        ("The answer is a car", OPTIONS, 2),
        ("I see a car", (*OPTIONS, "dog", "cat", "cup", "hat", "hen"), 2),
        # By text, as VQA v2 compares it.
        ("The red ball.", OPTIONS, 0),
        ("2 cars", OPTIONS, 3),
        ("it is the dark red ball", OPTIONS, 1),
        ("a red ball, not the dark red ball", OPTIONS, None),
        ("the ball of dark red", OPTIONS, None),
        ("a car or a red ball", OPTIONS, None),
        ("reddish ball", OPTIONS, None),
        # No such letter, several, nothing.
        ("E", OPTIONS, None),
        ("option A or option B", OPTIONS, None),
        ("", OPTIONS, None),
        ("3", ("1", "2", "3"), 2),
        ("three", ("1", "2", "3"), 2),
        ("U.S. flag", ("flag", "U.S. flag"), 1),
        ("yes", ("no", "yes"), 1),
    ],
)
def test_which_option_an_answer_names(answer: str, options: Sequence[str], place: int | None) -> None:
    assert chosen(answer, options) == place


def test_choice(folder: Path) -> None:
    lines = [
        {"image": "0.png", "question": "which?", "options": ["ball", "car"], "answer": 1, "category": "kind"},
        {
            "image": "0.png",
            "question": "which colour?",
            "options": ["red", "blue", "mint", "grey"],
            "answer": 0,
            "category": "kind",
        },
        {"images": ["1.png", "2.png"], "question": "which differs?", "options": ["first", "second"], "answer": 0},
        {"question": "1 + 1?", "options": ["1", "2"], "answer": 1, "category": "sums"},
    ]
    model = Answering("B", "blue", "perhaps", "two")
    found = measure_choice(TaskInput(model, asks(folder, "choice", *lines)))
    assert means(found) == pytest.approx({"accuracy": 2 / 4})
    assert len(found.values["accuracy"]) == 3
    assert found.details["chance"] == pytest.approx((0.5 + 0.25 + 0.5 + 0.5) / 4)
    assert {name: own["mean"] for name, own in found.details["categories"].items()} == {"kind": 0.5, "sums": 1.0}
    assert found.details["category_chance"] == {"kind": (0.5 + 0.25) / 2, "sums": 0.5}
    assert found.details["unread"] == 1
    assert found.notes == ("1 of 4 answers name no option, or several; they count as wrong.",)
    assert model.asked[1] == (
        (folder / "0.png",),
        "which colour?\nA. red\nB. blue\nC. mint\nD. grey\nAnswer with the option's letter from the given choices "
        "directly.",
    )
    assert model.asked[2][0] == (folder / "1.png", folder / "2.png")
    assert model.asked[3][0] == ()


def test_faults_of_a_file_are_told_together(folder: Path) -> None:
    good = {"image": "0.png", "question": "which?", "options": ["ball", "car"], "answer": 1}
    path = asks(
        folder,
        "faults",
        good,
        {**good, "answer": 2},
        {**good, "answer": True},
        {**good, "options": ["ball"]},
        {**good, "options": ["ball", 3]},
        {**good, "options": [str(number) for number in range(27)]},
        {**good, "images": ["1.png"]},
        {**good, "image": "9.png"},
        {**good, "question": "<image> or <image>?"},
    )
    with pytest.raises(ImageSetError) as caught:
        read_choices(path)
    told = str(caught.value).splitlines()
    expected = [
        "  line 2: 'answer' must be a number from 0 to 1; got 2",
        "  line 3: 'answer' must be a number from 0 to 1; got true",
        "  line 4: 'options' must be a list of at least 2 texts; got [\"ball\"]",
        "  line 5: 'options' must be a list of at least 2 texts; got [\"ball\", 3]",
        "  line 6: there are letters for 26 options; got 27",
        "  line 7: it has 'images' and 'image'; give one of them",
        f"  line 8: there is no picture {folder / '9.png'}",
        "  line 9: the question has 2 mark(s) <image> and 1 picture(s)",
    ]
    assert told[1:9] == expected
    with pytest.raises(ImageSetError, match=r"line 1: 'answer' must be yes or no; got \"perhaps\""):
        read_yes_no(asks(folder, "perhaps", {"question": "is it?", "answer": "perhaps"}))
    with pytest.raises(ImageSetError, match="holds nothing to ask: the file is empty"):
        read_yes_no(asks(folder, "empty"))


def longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """By the textbook's table."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, j in product(range(len(a)), range(len(b))):
        table[i + 1][j + 1] = table[i][j] + 1 if a[i] == b[j] else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def test_rouge_against_the_textbook(rng: np.random.Generator) -> None:
    words = ["the", "red", "ball", "is", "old"]
    said, known, expected = [], [], []
    for _ in range(50):
        a, *references = (list(rng.choice(words, size=rng.integers(1, 8))) for _ in range(3))
        said.append(" ".join(a).capitalize() + ".")
        known.append([", ".join(one) for one in references])
        values = []
        for one in references:
            common = longest_common(a, one)
            precision, recall = common / len(a), common / len(one)
            values.append(2 * precision * recall / (precision + recall) if common else 0.0)
        expected.append(max(values))
    assert rouge_scores(said, known) == pytest.approx(expected)
    assert rouge_scores(["", "The king's 2nd."], [["a word"], ["the king s 2nd"]]).tolist() == [0, 1]


def test_knowledge(folder: Path) -> None:
    lines = [
        {"image": "0.png", "question": "who?", "answer": "the old king"},
        {
            "question": "where?",
            "answers": ["in Rome", "Rome"],
            "facts": ["It is in Rome.", {"image": "1.png", "text": "Rome"}],
        },
        {"image": "2.png", "question": "and <image> this?", "answer": "x", "facts": [{"image": "3.png", "text": "y"}]},
    ]
    model = Answering("the king", "Rome", "z")
    found = measure_knowledge(TaskInput(model, asks(folder, "knowledge", *lines)))
    assert means(found) == pytest.approx({"rouge_l": (2 * 1 * (2 / 3) / (1 + 2 / 3) + 1 + 0) / 3})
    assert found.details == {"questions": 3, "facts": 1.0}
    assert model.asked == [
        ((folder / "0.png",), "who?"),
        ((folder / "1.png",), "Reference information:\nIt is in Rome.\n<image> Rome\nwhere?"),
        ((folder / "3.png", folder / "2.png"), "Reference information:\n<image> y\nand <image> this?"),
    ]


def test_the_relevant_pair_stands_at_each_place(folder: Path) -> None:
    pairs = [{"image": f"{number}.png", "text": text} for number, text in enumerate(("one", "two", "three"))]
    lines = [
        {"id": "a", "image": "3.png", "question": "is it?", "answer": "yes", "pairs": pairs, "relevant": 1},
        {"id": "b", "question": "what?", "answer": "a ball", "pairs": pairs, "relevant": 2},
    ]
    model = Answering("yes", "no", "certainly", "Ball", "a car", "the ball")
    found = measure_position(TaskInput(model, asks(folder, "position", *lines)))
    assert [[picture.stem for picture in pictures] for pictures, _ in model.asked] == [
        ["1", "0", "2", "3"], ["0", "1", "2", "3"], ["0", "2", "1", "3"],
        ["2", "0", "1"], ["0", "2", "1"], ["0", "1", "2"],
    ]  # fmt: skip
    assert model.asked[0][1] == "Reference information:\n<image> two\n<image> one\n<image> three\n<image>\nis it?"
    assert found.values["accuracy"] == pytest.approx([2 / 3, 2 / 3])
    assert [found.values[f"accuracy_at_{place}"].tolist() for place in (1, 2, 3)] == [[1, 1], [0, 0], [1, 1]]
    assert (found.details["spread"], found.details["places"]) == (1.0, 3)
    assert [one["id"] for one in found.samples][:2] == ["a, at 1", "a, at 2"]
    uneven = {**lines[0], "id": "c", "pairs": pairs[:2]}
    with pytest.raises(ImageSetError, match="with 2 and with 3 pairs"):
        measured(folder, measure_position, [*lines, uneven])


def test_the_spread_of_chance_is_that_of_all_orders() -> None:
    values = np.array([[1.0, 0, 0], [1, 1, 0]])
    spreads = [np.ptp(np.mean(rows, axis=0)) for rows in product(*(list(permutations(row)) for row in values.tolist()))]
    found = spread_by_place(values, draws=20_000)
    assert found["spread"] == 1.0
    assert found["spread_by_chance"] == pytest.approx(np.mean(spreads), abs=0.01)
    assert found["p_value"] == pytest.approx(np.mean([one >= 1 - 1e-12 for one in spreads]), abs=0.01)
    assert spread_by_place(np.ones((3, 4)), draws=10) == {"spread": 0.0, "spread_by_chance": 0.0, "p_value": 1.0}


def test_what_is_looked_up_stands_in_front_and_a_limit_holds(folder: Path) -> None:
    lines = [{"image": f"{number}.png", "question": "is it?", "answer": "yes"} for number in range(3)]

    def rag(asked: Sequence[Asked]) -> list[Asked]:
        return [Asked((folder / "3.png", *one.pictures), f"<image> found\n<image>{one.question}") for one in asked]

    model = Answering("yes", "no")
    found = measure_task("yes-no", model, asks(folder, "rag", *lines), limit=2, rag=rag)
    assert model.asked[1] == ((folder / "3.png", folder / "1.png"), "<image> found\n<image>is it?")
    # An item is what the file asks about, not what was looked up for it.
    assert found.values["accuracy"].tolist() == [1, 0]
    assert found.samples[0]["question"] == "is it?"
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["measures"]["accuracy"]["count"] == 2


def test_questions_about_the_same_pictures_are_one_item(folder: Path) -> None:
    a, b = folder / "0.png", folder / "1.png"
    assert items_of([(a,), (b,), (a,), (), (a, b), ()]).tolist() == [0, 1, 0, 2, 3, 4]


def test_mistakes_are_told(folder: Path) -> None:
    path = asks(folder, "one", {"image": "0.png", "question": "is it?", "answer": "yes"})
    with pytest.raises(Gen2RealError, match=r"no task 'yesno'; there are: questions, yes-no"):
        measure_task("yesno", Answering("yes"), path)
    with pytest.raises(Gen2RealError, match="a limit of 0 leaves nothing"):
        measure_task("yes-no", Answering("yes"), path, limit=0)
    with pytest.raises(ModelError, match="searched by embeddings, and answering was given none"):
        _ = TaskInput(Answering(), path).searching
    assert not math.isnan(means(measure_task("yes-no", Answering("yes"), path))["accuracy"])


def test_unread_choices_are_wrong_or_the_nearest(folder: Path) -> None:
    line = {"question": "what?", "options": ["the red ball", "the blue car"], "answer": 1}
    lines = [line, {**line, "unread": "nearest"}, {**line, "unread": "nearest"}]
    found = measured(folder, measure_choice, lines, "some car", "some car", "?")
    assert found.values["accuracy"].tolist() == [0, 1, 0]
    assert found.details["unread"] == 2
    with pytest.raises(ImageSetError, match="'unread' must be"):
        measured(folder, measure_choice, [{**line, "unread": "near"}], "A")


def test_rotations_of_a_choice_are_right_together(folder: Path) -> None:
    def rotated(group: str, answer: int) -> dict[str, Any]:
        return {"question": "what?", "options": ["x1", "y1"], "answer": answer, "group": group, "image": "1.png"}

    alone = {"question": "what?", "options": ["l", "r"], "answer": 0}
    lines = [rotated("5", 0), rotated("6", 0), rotated("5", 1), rotated("6", 1), alone]
    found = measured(folder, measure_choice, lines, "A", "A", "B", "A", "A")
    # The picture's four questions are one item of accuracy, the one without a picture another.
    assert len(found.values["accuracy"]) == 2
    assert means(found) == pytest.approx({"accuracy": 4 / 5, "circular_accuracy": 2 / 3})
    assert found.values["circular_accuracy"].tolist() == [1, 0, 1]
    assert list(measured(folder, measure_choice, lines[:2], "A", "A").values) == ["accuracy"]
