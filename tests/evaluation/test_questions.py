"""VQA v2's accuracy, from its published rules."""

from __future__ import annotations

import itertools

import pytest

from gen2real.errors import ImageSetError
from gen2real.evaluation.questions import normalised_answer, question_scores


@pytest.mark.parametrize(
    ("said", "compared"),
    [
        # The examples of visualqa.org/evaluation.
        ("dont", "don't"),
        ("girl's", "girl's"),
        ("2:50 pm", "2:50 pm"),
        ("100,978", "100978"),
        # Its rules one by one.
        ("Yes", "yes"),
        ("yes.", "yes"),
        ("3.5", "3.5"),
        (".5", ".5"),
        ("u.s.", "us"),
        ("no. 1.", "no 1"),
        ("none", "0"),
        ("zero, one or ten", "0 1 or 10"),
        ("eleven", "eleven"),
        ("a dog", "dog"),
        ("The cat and an owl", "cat and owl"),
        ("another", "another"),
        ("red/white", "red white"),
        ("red, white", "red white"),
        ("red,white", "red white"),
        ("t-shirt?!", "t shirt"),
        ("(left)", "left"),
        ("50%", "50%"),
        ("  on  the\ttable\n", "on table"),
        ("couldnt've", "couldn't've"),
        ("couldntve", "couldn't've"),
        ("thats", "that's"),
        ("its", "its"),
        ("well", "well"),
        ("A", ""),
        ("", ""),
    ],
)
def test_an_answer_as_it_is_compared(said: str, compared: str) -> None:
    assert normalised_answer(said) == compared
    assert normalised_answer(compared) == compared


@pytest.mark.parametrize(("agreeing", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (9, 1), (10, 1)])
def test_of_ten_people(agreeing: int, accuracy: float) -> None:
    people = ["Two."] * agreeing + [f"colour {place}" for place in range(10 - agreeing)]
    assert question_scores(["2"], [people])["accuracy"] == pytest.approx([accuracy])


def test_leaving_each_one_out_by_hand() -> None:
    for count in (4, 5, 10):
        for agreeing in range(count + 1):
            people = ["yes"] * agreeing + ["no"] * (count - agreeing)
            subsets = [
                min(sum(one == "yes" for one in some) / 3, 1) for some in itertools.combinations(people, count - 1)
            ]
            assert question_scores(["yes"], [people])["accuracy"] == pytest.approx([sum(subsets) / len(subsets)])


def test_of_one_reference_it_is_an_exact_match() -> None:
    found = question_scores(["the red one", "Red", "reddish", ""], [["red 1"], ["red"], ["red"], ["red"]])
    assert found["accuracy"].tolist() == [1, 1, 0, 0]


def test_an_answer_of_which_nothing_is_left_agrees_with_nobody() -> None:
    """An article alone, as the letter A, is normalised to nothing as well; it is compared as it is."""
    said = ["", " ", "?", "the", "A", "a.", "the B"]
    assert question_scores(said, [["A"] * 10] * 7)["accuracy"].tolist() == [0, 0, 0, 0, 1, 1, 0]
    assert question_scores(["", "A", "The B."], [[""], ["!"], ["b"]])["accuracy"].tolist() == [0, 0, 1]


def test_two_or_three_references_are_alternatives() -> None:
    assert question_scores(["sofa", "chair"], [["couch", "sofa"], ["couch", "sofa", "settee"]])[
        "accuracy"
    ].tolist() == [1, 0]


def test_faults_are_told() -> None:
    with pytest.raises(ImageSetError, match=r"1 answer\(s\) and references of 2"):
        question_scores(["yes"], [["yes"], ["no"]])
    with pytest.raises(ImageSetError, match="0 answer"):
        question_scores([], [])
    with pytest.raises(ImageSetError, match=r"1 of 2 question\(s\) have no reference answer, the first at place 1"):
        question_scores(["yes", "no"], [["yes"], []])
