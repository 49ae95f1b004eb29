"""What the kit's multimodal model is taught of `web`: questions, captions, stories, as a LLaVA reads and writes them.

A lesson is a prefix with pictures and branches that each go on from it and do not see one another: one pass through a
picture's many tokens serves all that is asked of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gen2real.evaluation.choice import INSTRUCTION
from gen2real.kit.world.language import (
    NUMBERS,
    Question,
    caption,
    hard_negatives,
    listed,
    long_caption,
    name,
    questions,
)
from gen2real.kit.world.scenes import Scene, sample_scene, stream
from gen2real.kit.world.stories import Story, sample_story
from gen2real.kit.world.vocabulary import COLOURS, GROUNDS, KINDS, PATTERNS, SIZES, WEB_GROUNDS
from gen2real.prompts import CAPTION_PROMPTS

PICTURE, END = "<image>", "</s>"
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ part['text'] | trim }}"
    "{{ '</s>' if message['role'] == 'assistant' else ' ' }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""LLaVA-1.5's turns, `USER: <image>⏎what is this? ASSISTANT: ball</s>`; pictures and texts stay in their order."""

_BRANCHES = 6
_SHORT = (*CAPTION_PROMPTS, "describe the picture.")
_LONG = ("Describe the image in detail.", "describe the picture in detail.")
_BRIEFLY = "Answer the question using a single word or phrase."
_FACTS = "Reference information: "


@dataclass(frozen=True)
class Piece:
    """A stretch of a rendered conversation. learnt: whether the model is to foretell it."""

    text: str
    learnt: bool = False


@dataclass(frozen=True)
class Lesson:
    """A prefix, whose marks are of `scenes` in their order, and what goes on from it."""

    scenes: tuple[Scene, ...]
    prefix: tuple[Piece, ...]
    branches: tuple[tuple[Piece, ...], ...]


def about_picture(scene: Scene, random: np.random.Generator, *, doubts: int = 3) -> Lesson:
    """A picture: a short caption, a long one, one to be judged, questions, each topic as often as the others, and more
    of those that are answered by yes or no: they are learnt last."""
    asked = [
        turn(str(random.choice(_SHORT)), caption(scene, random)),
        turn(str(random.choice(_LONG)), long_caption(scene)),
        _judged(scene, random),
        *(_turn_of(question, scene, random) for question in _by_topic(scene, _BRANCHES, random)),
        *(turn(question.question, question.answer) for question in _yes_or_no(scene, doubts, random)),
    ]
    return Lesson((scene,), (Piece(f"USER: {PICTURE}\n"),), tuple(asked))


def about_text(scene: Scene, random: np.random.Generator) -> Lesson:
    """A picture put into words, which are all there is; then questions about it."""
    asked = (_turn_of(question, scene, random) for question in _by_topic(scene, _BRANCHES, random))
    return Lesson(
        (), (Piece(f"USER: {long_caption(scene)}"),), tuple((Piece(f" {q.text}"), answer) for q, answer in asked)
    )


def about_story(story: Story, random: np.random.Generator) -> Lesson:
    """A story, told picture by picture; then questions about its last picture."""
    told = [Piece("USER:")]
    for sentence in story.sentences:
        told += [Piece(f" {PICTURE}\n"), Piece(sentence, learnt=True)]
    asked = [_turn_of(question, story.scenes[-1], random) for question in _by_topic(story.scenes[-1], 2, random)]
    # Words are tokens with the space before them, so a branch may begin with one, and a prefix must not end with one.
    return Lesson(story.scenes, tuple(told), tuple((Piece(f" {q.text}"), answer) for q, answer in asked))


def about_last(scenes: Sequence[Scene], random: np.random.Generator) -> Lesson:
    """Other pictures with captions or questions and answers, or with nothing; then questions about the last picture."""
    before = [Piece("USER: " + (_FACTS if random.random() < 0.5 else ""))]
    form = int(random.integers(3))
    for scene in scenes[:-1]:
        before.append(Piece(f"{PICTURE}\n"))
        if form == 0:
            before += [Piece(caption(scene, random), learnt=True), Piece(" ")]
        elif form == 1:
            (question,) = _by_topic(scene, 1, random)
            before.append(Piece(f"{question.question} {question.answer} "))
    asked = (_turn_of(question, scenes[-1], random) for question in _by_topic(scenes[-1], 4, random))
    return Lesson(tuple(scenes), (*before, Piece(f"{PICTURE}\n")), tuple(asked))


def turn(question: str, answer: str) -> tuple[Piece, ...]:
    """A question and its answer, of which the answer is learnt with the end token."""
    return Piece(f"{question} ASSISTANT:"), Piece(f" {answer}{END}", learnt=True)


def _turn_of(question: Question, scene: Scene, random: np.random.Generator) -> tuple[Piece, ...]:
    """A question as people write it: mostly plain, some with a capital, an instruction, or options to choose from."""
    text, answer, chance = question.question, question.answer, float(random.random())
    if random.random() < 0.3:
        text = text[0].upper() + text[1:]
    if chance < 0.15:
        text = f"{text}\n{_BRIEFLY}"
    elif chance < 0.3:
        options = _options(question, scene, random)
        letters = "ABCD"[: len(options)]
        answer = letters[options.index(answer)]
        listed = "\n".join(f"{letter}. {option}" for letter, option in zip(letters, options, strict=True))
        text = f"{text}\n{listed}\n{INSTRUCTION}"
    return turn(text, answer)


def _judged(scene: Scene, random: np.random.Generator) -> tuple[Piece, ...]:
    """Whether a caption fits. True ones are put as the false ones of `hard_negatives` are: wording tells nothing."""
    fits = bool(random.random() < 0.5)
    told = _plainly(scene) if fits else hard_negatives(scene, random)
    return turn(f"does the picture show {told[int(random.integers(len(told)))]}?", "yes" if fits else "no")


def _plainly(scene: Scene) -> list[str]:
    toys = scene.toys
    told = [listed([name(toy) for toy in toys])] * 2
    if len(toys) > 1:
        toy, other = toys[:2]
        told += [f"{name(toy)} to the left of {name(other)}", f"{NUMBERS[len(toys)]} toys {GROUNDS[scene.ground]}"]
    else:
        told.append(f"one toy {GROUNDS[scene.ground]}")
    return told


def _by_topic(scene: Scene, count: int, random: np.random.Generator) -> list[Question]:
    """Questions drawn topic by topic, so that topics with many questions are not asked more often."""
    topics: dict[str, list[Question]] = {}
    for question in questions(scene):
        topics.setdefault(question.topic, []).append(question)
    order = list(topics)
    chosen = [order[int(place)] for place in random.permutation(len(order))[:count]]
    return [topics[topic][int(random.integers(len(topics[topic])))] for topic in chosen]


def _yes_or_no(scene: Scene, count: int, random: np.random.Generator) -> list[Question]:
    """Some of the questions that are answered by yes or no; nothing is drawn where none is wanted."""
    asked = [question for question in questions(scene) if question.answer in ("yes", "no")]
    return [asked[int(place)] for place in (random.permutation(len(asked))[:count] if count else ())]


def _options(question: Question, scene: Scene, random: np.random.Generator) -> list[str]:
    """The answer among others that the same topic has, shuffled."""
    others = [one for one in _answers(question.topic) if one != question.answer]
    count = min(3, len(others))
    wrong = [others[int(place)] for place in random.permutation(len(others))[:count]]
    options = [question.answer, *wrong]
    return [options[int(place)] for place in random.permutation(len(options))]


def _answers(topic: str) -> Sequence[str]:
    known: dict[str, Sequence[str]] = {
        "colour": list(COLOURS),
        "pattern": PATTERNS,
        "size": SIZES,
        "count": NUMBERS,
        "ground": list(WEB_GROUNDS.values()),
        "kind": KINDS,
        "place": KINDS,
    }
    return known.get(topic, ("yes", "no"))


def texts(count: int, seed: int) -> Iterator[str]:
    """Everything that is said about the first scenes and stories: a tokenizer can be trained on it."""
    for index in range(count):
        random = stream(seed, "web", "train", index, purpose=2)
        scene = sample_scene("web", "train", index, seed=seed)
        lessons = [about_picture(scene, random, doubts=0)]
        if index % 4 == 0:
            lessons.append(about_story(sample_story("web", "train", index, seed=seed), random))
        for lesson in lessons:
            for pieces in (lesson.prefix, *lesson.branches):
                yield "".join(piece.text for piece in pieces).replace(PICTURE, "").replace(END, "")
