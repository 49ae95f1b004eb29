"""Captions as coco-caption scores them: its numbers, numbers worked out by hand, and what is told to people."""

from __future__ import annotations

import math
import random
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from gen2real.errors import ImageSetError
from gen2real.evaluation.caption_measures import bleu, cider, common_words, rouge_l
from gen2real.evaluation.caption_words import caption_words
from gen2real.evaluation.captioning import caption_scores

# Captions, references; then what pycocoevalcap 1.2 (PyPI) finds: Bleu(4).compute_score(gts, res)[0][3] of the corpus,
# Rouge() and Cider() (which is CIDEr-D) picture by picture. All are lower case without punctuation, so that its
# tokenizer, a Java program, has nothing to change.
CORPORA = {
    "toys": (
        [
            "a red ball on a table",
            "a blue car",
            "a small striped green fish next to a red ball",
            "two toys on a mint background",
        ],
        [
            ["a red ball on a mint background", "a photo of a red ball", "there is a red ball on the table"],
            ["a blue car to the left of a red car", "a small blue car"],
            ["a red ball and a small striped green fish", "a fish next to a ball"],
            ["two toys on a mint background", "a blue cup and a red car on a mint background"],
        ],
        0.8335067331213988,
        [0.7587064676616916, 0.8356164383561644, 0.7854077253218884, 1.0],
        [3.539702657801902, 2.672552985245952, 4.61745515062972, 5.6031720596280685],
    ),
    "ties and short ones": (
        ["a dog", "the cat sat on the mat today", "dog runs", "a man rides a horse"],
        [
            ["a", "a dog runs"],
            ["the cat sat on the mat", "the cat sat on the mat all day long"],
            ["a dog runs fast in the park", "dogs running"],
            ["a man riding a horse on the beach", "person rides a brown horse", "a man rides a horse"],
        ],
        0.8897180074750146,
        [1.0, 0.9360613810741688, 0.40397350993377484, 1.0],
        [2.2498439314103003, 7.461296068900209, 0.5380246518045626, 4.735690500738655],
    ),
    "repeated words": (
        ["the the the the the the the", "a red red red ball ball", "a a a a car a a a a"],
        [
            ["the cat is on the mat", "there is a cat on the mat"],
            ["a red ball", "a red red ball"],
            ["a car and a car", "a toy car"],
        ],
        3.0166381557928637e-05,
        [0.31202046035805625, 0.8299319727891156, 0.4728682170542636],
        [0.32195638754856704, 3.3658594401153126, 1.5639293855841951],
    ),
    "empty candidate": (
        ["", "a red ball on a table by the door", "a blue car and a green cup on a table"],
        [
            ["a yellow duck", "duck"],
            ["a red ball on a table", "a red ball on a table by the window"],
            ["a blue car and a green cup on the table", "a cup"],
        ],
        0.7785251788963627,
        [0.0, 0.9512670565302144, 0.9564459930313588],
        [0.0, 7.45129333501667, 4.260541457701079],
    ),
    "no four words match": (
        ["a blue ball", "red car on it"],
        [["the ball is blue", "blue ball"], ["a red car", "car is on it"]],
        2.0347956537657737e-08,
        [0.8299319727891156, 0.75],
        [2.7000748624683317, 2.714203813625745],
    ),
}


@pytest.mark.parametrize("name", CORPORA)
def test_the_measures_are_coco_captions(name: str) -> None:
    candidates, references, bleu4, rouge, cider_d = CORPORA[name]
    found = caption_scores(candidates, references)
    assert found.values["rouge_l"] == pytest.approx(rouge, abs=1e-12)
    assert found.values["cider"] == pytest.approx(cider_d, abs=1e-12)
    assert found.means()["bleu4"] == pytest.approx(bleu4, rel=1e-9)


def corpus(count: int, *, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    """Captions by chance, each with one to five references that share most of its words."""
    r = random.Random(seed)
    sayings = "a the red blue small ball car fish on left of right table and striped"
    words = sayings.split()

    def some(low: int, high: int) -> list[str]:
        return [r.choice(words) for _ in range(r.randint(low, high))]

    candidates, references = [], []
    for _ in range(count):
        base, own = some(4, 12), []
        for _ in range(r.randint(1, 5)):
            said = [word if r.random() < 0.8 else r.choice(words) for word in base]
            if r.random() < 0.5:
                said = said[: r.randint(1, len(said))] + some(0, 4)
            own.append(" ".join(said))
        candidates.append(" ".join([w if r.random() < 0.85 else r.choice(words) for w in base][: r.randint(1, 12)]))
        references.append(own)
    return candidates, references


def test_a_larger_corpus_is_as_coco_caption_has_it() -> None:
    # pycocoevalcap 1.2 on these sixty, as above.
    found = caption_scores(*corpus(60)).means()
    assert found["bleu4"] == pytest.approx(0.3805392668211822, rel=1e-9)
    assert found["rouge_l"] == pytest.approx(0.565975798419698, rel=1e-9)
    assert found["cider"] == pytest.approx(2.2017533156527382, rel=1e-9)


def words(*captions: str) -> list[list[str]]:
    return [caption.split() for caption in captions]


def test_bleu_by_hand() -> None:
    # 5 of 6 words, 3 of 5 pairs, 1 of 4 threes, and of the 3 fours none: the guard of 1e-15 in its place.
    found = bleu(words("the cat sat on a mat"), [words("the cat is on a mat")])
    assert found == pytest.approx([(5 / 6 * 3 / 5 * 1 / 4 * 1e-15 / 3) ** 0.25], rel=1e-6)
    # All of four words match; the closest reference has five: exp(1 - 5/4).
    found = bleu(words("a b c d"), [words("a b c d e", "x a b c d e f")])
    assert found == pytest.approx([math.exp(-1 / 4)])
    # References of three and five words are as close to four: the shorter counts, so nothing is taken off.
    assert bleu(words("a b c d"), [words("a b c d e", "x y z")]) == pytest.approx([1])


def test_bleu_of_a_corpus_sums_first() -> None:
    candidates, references = words("a b c d e", "a b c x d e"), [words("a b c d e"), words("a b c d e")]
    # 10 of 11 words, 4 + 3 of 9 pairs, 3 + 1 of 7 threes, 2 + 0 of 5 fours; 11 words against 10.
    corpus_wide = (10 / 11 * 7 / 9 * 4 / 7 * 2 / 5) ** 0.25
    found = bleu(candidates, references)
    assert found.mean() == pytest.approx(corpus_wide)
    assert found[0] > corpus_wide > found[1]


def test_a_pictures_share_of_bleu_is_its_pull_on_the_corpus() -> None:
    candidates, references = corpus(60)
    said, known = [one.split() for one in candidates], [words(*own) for own in references]
    found = bleu(said, known)
    whole = found.mean()
    # Weigh a picture a little more, by taking the corpus thirty times and the picture once again.
    for place in (0, 31):
        many = 30
        heavier = bleu([*said * many, said[place]], [*known * many, known[place]]).mean()
        pull = (heavier - whole) * (60 * many + 1)
        assert found[place] - whole == pytest.approx(pull, rel=0.02, abs=1e-3)


def test_the_interval_of_bleu_is_that_of_resampled_corpora() -> None:
    candidates, references = corpus(150, seed=1)
    said, known = [one.split() for one in candidates], [words(*own) for own in references]
    draws = np.random.default_rng(0).integers(150, size=(120, 150))
    resampled = [bleu([said[i] for i in draw], [known[i] for i in draw]).mean() for draw in draws]
    assert bleu(said, known).std() / math.sqrt(150) == pytest.approx(np.std(resampled), rel=0.15)


def test_rouge_by_hand() -> None:
    # "a b d" is common: precision 3/4; recall 3/3 of the second, 3/5 of the first; the largest of each.
    found = rouge_l(words("a b c d"), [words("a x b y d", "a b d")])
    precision, recall = 3 / 4, 1
    assert found == pytest.approx([2.44 * precision * recall / (recall + 1.44 * precision)])
    assert rouge_l(words("a b"), [words("c d")]).tolist() == [0]


def test_the_longest_common_subsequence_is_the_slow_one() -> None:
    def slow(a: list[str], b: list[str]) -> int:
        if not a or not b:
            return 0
        return slow(a[1:], b[1:]) + 1 if a[0] == b[0] else max(slow(a[1:], b), slow(a, b[1:]))

    r = random.Random(3)
    for _ in range(100):
        a, b = ([r.choice("abc") for _ in range(r.randint(0, 8))] for _ in range(2))
        assert common_words(a, b) == slow(a, b), (a, b)


def test_cider_by_hand() -> None:
    # Two pictures, words that are in one only: every weight is log 2 and cancels in the cosine. One of two words is
    # right, no pair is, there are no longer n-grams: (1/2 + 0 + 0 + 0) / 4, times ten.
    found = cider(words("a b", "x y"), [words("a c"), words("x y")])
    assert found == pytest.approx([10 * (1 / 2) / 4, 10 * (1 + 1) / 4])
    # Six words more: six pairs, so exp(-6² / (2 · 6²)); the vectors of words have norms √2 and √8.
    longer = "a b c d e f g h"
    found = cider(words("a b", "x"), [words(longer), words("x")])
    word, pair = 2 / (math.sqrt(2) * math.sqrt(8)), 1 / math.sqrt(7)
    assert found[0] == pytest.approx(10 * (word + pair) / 4 * math.exp(-1 / 2))
    # A word in every picture's references weighs nothing.
    assert cider(words("a b", "a c"), [words("a x"), words("a y")]).tolist() == [0, 0]


def test_repeating_a_word_does_not_pay() -> None:
    # Counts are clipped to the reference's: min(3w, w)·w / (3w · w) for the word, none of the pairs is right.
    found = cider(words("ball ball ball", "x"), [words("ball"), words("x")])
    assert found[0] == pytest.approx(10 * (1 / 3) / 4 * math.exp(-(2**2) / 72))


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        # Each as Stanford's PTBTokenizer 3.4.1 -lowerCase has it, less coco-caption's punctuation.
        ("A man's red-and-white T-shirt, don't touch it!", "a man 's red-and-white t-shirt do n't touch it"),
        ('It\'s a cat (on a mat); "quoted" words: 3:45 p.m. isn\'t late...',
         "it 's a cat -lrb- on a mat -rrb- quoted words 3:45 p.m. is n't late"),
        ("I can't cannot gonna wanna they're we've I'd won't shan't",
         "i ca n't can not gon na wan na they 're we 've i 'd wo n't sha n't"),
        ("and/or 1/2 50% $5 #3 @ & [x] {y}", "and/or 1/2 50 % $ 5 # 3 @ & -lsb- x -rsb- -lcb- y -rcb-"),
        ("the dogs' bowl 'single' `back` -- dash - dash – em — “curly” ‘single’ it’s",
         "the dogs bowl single back dash dash em curly single it 's"),
        ("Mr. Smith, U.S. flag. 3.5 1,000 kinds St. Louis No. 5 a.m.",
         "mr. smith u.s. flag 3.5 1,000 kinds st. louis no. 5 a.m."),
        ("the 1980's '80s o'clock 'tis 'twas gimme", "the 1980 's '80s o'clock 't is 't was gim me"),
        ("A dog , with spaces .  two   spaces ?!  what?? wow!!! etc. ",
         "a dog with spaces two spaces ?! what ?? wow !!! etc."),
        ("café naïve 日本 ½ 5'10\"", "café naïve 日本 1/2 5 10"),
        ("she'll've couldn't've ain't let's ma'am", "she 'll 've could n't 've ai n't let 's ma'am"),
        ("a,b x;y 2x4 4th 10-foot 24/7 mid-air -3 +0.5", "a b x y 2x4 4th 10-foot 24/7 mid-air -3 +0.5"),
        (" . ", ""),
    ],
)  # fmt: skip
def test_captions_as_words(caption: str, tokens: str) -> None:
    assert caption_words(caption) == tokens.split()


def test_case_and_punctuation_do_not_count() -> None:
    plain = caption_scores(["a red ball on a table", "a cat"], [["a red ball on the table"], ["the cat"]])
    written = caption_scores(["A red ball, on a table.", "A cat!"], [["a red ball on the table", " "], ["The cat"]])
    assert plain.means() == written.means()


def test_what_can_be_said_without_pycocoevalcap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    found = caption_scores(["a cat", "a dog"], [["a cat"], ["a dog"]])
    assert list(found.values) == ["bleu4", "rouge_l", "cider"]
    assert found.notes == (
        "meteor and spice not counted: the package pycocoevalcap is not installed. Install it with pip install "
        "'gen2real[captions]'; it needs Java.",
    )
    told = found.to_json()
    assert list(told) == ["pictures", "bleu4", "rouge_l", "cider", "notes"]
    assert (told["pictures"], told["cider"]["mean"], told["cider"]["count"]) == (2, 5.0, 2)


def pretend(monkeypatch: pytest.MonkeyPatch, name: str, scorer: type) -> None:
    """A pycocoevalcap that holds one scorer."""
    for package in ("pycocoevalcap", f"pycocoevalcap.{name}"):
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
    module = ModuleType(f"pycocoevalcap.{name}.{name}")
    setattr(module, name.capitalize(), scorer)
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_meteor_is_taken_from_pycocoevalcap(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}

    class Meteor:
        def compute_score(self, gts: Any, res: Any) -> tuple[float, list[float]]:
            given.update(gts=gts, res=res)
            return 0.5, [0.2, 0.6]

    pretend(monkeypatch, "meteor", Meteor)
    found = caption_scores(["A cat.", "a dog"], [["the cat's", "a cat"], ["a dog"]])
    assert given == {"gts": {0: ["the cat 's", "a cat"], 1: ["a dog"]}, "res": {0: ["a cat"], 1: ["a dog"]}}
    # The corpus's value is not the mean of the pictures'; theirs are moved to it.
    assert found.values["meteor"] == pytest.approx([0.3, 0.7])
    assert [note.partition(" ")[0] for note in found.notes] == ["spice"]


def test_spice_is_taken_from_pycocoevalcap(monkeypatch: pytest.MonkeyPatch) -> None:
    class Spice:
        def compute_score(self, gts: Any, res: Any) -> tuple[float, list[Any]]:
            return 0.25, [{"All": {"f": 0.5}, "Color": {"f": 1.0}}, {"All": {"f": 0.0}}]

    pretend(monkeypatch, "spice", Spice)
    found = caption_scores(["a cat", "a dog"], [["a cat"], ["a dog"]])
    assert found.values["spice"].tolist() == [0.5, 0.0]
    assert found.to_json()["spice"]["mean"] == 0.25


def test_a_java_that_fails_loses_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    class Meteor:
        def __init__(self) -> None:
            raise FileNotFoundError(2, "No such file or directory", "java")

    pretend(monkeypatch, "meteor", Meteor)
    found = caption_scores(["a cat", "a dog"], [["a cat"], ["a dog"]])
    assert list(found.values) == ["bleu4", "rouge_l", "cider"]
    assert "meteor was not counted: FileNotFoundError" in found.notes[0]
    assert "java" in found.notes[0]


def test_one_picture_has_no_cider() -> None:
    found = caption_scores(["a cat"], [["a cat"]])
    assert found.values["cider"].tolist() == [0]
    assert "of one picture alone it is 0" in found.notes[0]


def test_a_meteor_that_is_not_whole_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Meteor:
        def compute_score(self, gts: Any, res: Any) -> tuple[float, list[float]]:
            return 0.5, [0.5]

    pretend(monkeypatch, "meteor", Meteor)
    found = caption_scores(["a cat", "a dog"], [["a cat"], ["a dog"]])
    assert "meteor" not in found.values
    assert found.notes[0] == "meteor was not counted: ValueError: pycocoevalcap gave 1 values for 2 pictures, or NaN"


def test_faults_are_told() -> None:
    with pytest.raises(ImageSetError, match=r"1 caption\(s\) and the references of 2"):
        caption_scores(["a"], [["a"], ["b"]])
    with pytest.raises(ImageSetError, match="0 caption"):
        caption_scores([], [])
    with pytest.raises(ImageSetError, match=r"1 of 2 picture\(s\) have no reference caption.*place 1"):
        caption_scores(["a", "b"], [["a"], [" "]])
