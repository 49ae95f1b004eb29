"""Where sentences end, and that nothing of a text is lost."""

from __future__ import annotations

import random

import pytest

from gen2real.imagesets.sentences import sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A duck came. It went.", ["A duck came.", "It went."]),
        ("a red ball. a blue car. ", ["a red ball.", "a blue car."]),
        ("a red ball on striped paper", ["a red ball on striped paper"]),
        # Numbers and names.
        ("It cost 3.5 at example.org! Was it worth it?", ["It cost 3.5 at example.org!", "Was it worth it?"]),
        # Titles, initials, abbreviations.
        ("Mr. Smith met Dr. J. K. Jones. They left.", ["Mr. Smith met Dr. J. K. Jones.", "They left."]),
        ("See Fig. 2 and No. 5. He said no. Then he left.", ["See Fig. 2 and No. 5.", "He said no.", "Then he left."]),
        ("The U.S. Army came. He loves the U.S. The end.", ["The U.S. Army came.", "He loves the U.S.", "The end."]),
        ("It began at 5 p.m. Mary left.", ["It began at 5 p.m.", "Mary left."]),
        ("Take fruit, e.g. Apples. Eat it.", ["Take fruit, e.g. Apples.", "Eat it."]),
        # Quotes and brackets close with their sentence; a small letter goes on.
        ('"Really?" he asked. "Yes!" She ran.', ['"Really?" he asked.', '"Yes!"', "She ran."]),
        ("They ate (a lot.) Then they “slept.” So be it.", ["They ate (a lot.)", "Then they “slept.”", "So be it."]),
        # Ellipses.
        ("Wait... what? Well… Fine.", ["Wait... what?", "Well…", "Fine."]),
        # Without spaces.
        ("今日は晴れ。明日は「雨。」です！そう？はい", ["今日は晴れ。", "明日は「雨。」", "です！", "そう？", "はい"]),
        # Lists and lines.
        ("1. Open it. 2. Close it.", ["1. Open it.", "2. Close it."]),
        ("It was in 1999. Then came more.", ["It was in 1999.", "Then came more."]),
        ("A title\n\nA text\nof two lines. End", ["A title", "A text\nof two lines.", "End"]),
        ("the cake is cut . then they ate it .", ["the cake is cut .", "then they ate it ."]),
        ("", []),
        (" \n\n ", []),
        ("...", ["..."]),
    ],
)  # fmt: skip
def test_where_sentences_end(text: str, expected: list[str]) -> None:
    assert [sentence.strip() for sentence in sentences(text)] == expected


def test_nothing_of_a_text_is_lost() -> None:
    """Of random strings of all that the rules know, and spaces between two sentences belong to the first."""
    pieces = [
        "a",
        "Mr",
        "No",
        "3",
        "U.S",
        ".",
        "...",
        "!",
        "?",
        "…",
        "。",
        '"',
        "(",
        ")",
        " ",
        "  ",
        "\n",
        "\n\n",
        "é",
        "！",
    ]
    draw = random.Random(0)
    for _ in range(500):
        text = "".join(draw.choices(pieces, k=draw.randrange(30)))
        found = sentences(text)
        assert "".join(found) == text.strip()
        assert all(sentence and not sentence[0].isspace() for sentence in found), text
        assert sentences(f"  {text}\n") == found
