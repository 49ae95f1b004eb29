"""Retrieval-augmented answers: what is like a question, picture and all, is put before it together with its answer.

    {"image": "a.png", "question": "what colour is the ball?", "answer": "red"}      a line of what is looked up

Sugar (arXiv 2411.00304, section 3.3) searches by the very model that answers: the key of an entry is its picture and
question, the answer never. Whether the paper puts the answer into the prompt is not clear from it; ours does, as its
figure 10 shows. How many, in which words and from which similarity on is not said either: k, templates and a threshold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from gen2real.errors import Gen2RealError, ImageSetError
from gen2real.evaluation.features import encode_pictures
from gen2real.evaluation.task_files import Values, answers_of, check_marks, pictures_of, read_items
from gen2real.evaluation.tasks import Asked, Embeds
from gen2real.files import sha256_of
from gen2real.imagesets.interleaved import MARK, parts_of
from gen2real.imagesets.json_lines import Fault, PictureFiles, id_of, text_of
from gen2real.imagesets.loading import Pictures
from gen2real.imagesets.manifest import ImageSet
from gen2real.models.dual_encoder import DualEncoder
from gen2real.models.index import Found, Index

_EXAMPLE = '{"image": "a.png", "question": "what colour is the ball?", "answer": "red"}'
_SHOWN = 20


@dataclass(frozen=True)
class Entry:
    """What is looked up: a question about pictures, and its answer; of several the most common, first among equals."""

    id: str
    asked: Asked
    answer: str


@dataclass(frozen=True)
class Template:
    """How what was found is put before a question.

    entry: of each, `{question}` (with its pictures' marks) and `{answer}`. whole: `{found}`, the entries, the most
    similar one last, and `{question}`, what is asked.
    """

    entry: str
    whole: str


TEMPLATES: Mapping[str, Template] = {
    "exemplar": Template("{question} {answer}", "{found}\n{question}"),
    "reference": Template(
        "{question} {answer}",
        "Answer the question by its picture. If the reference information is useful, use it; otherwise ignore it.\n"
        "Reference information:\n{found}\n{question}",
    ),
}
"""exemplar (ours): picture, question and answer, as an example. reference: the paper's prompt for FVQA, paraphrased."""


@runtime_checkable
class Retriever(Protocol):
    """Gives questions about pictures a place in one space."""

    def __call__(self, asked: Sequence[Asked]) -> Float[Tensor, "n d"]:
        """[N D], unit length; inner products are similarities. Answers are not known to it."""


@dataclass(frozen=True)
class OwnRetriever:
    """The multimodal model's own embeddings of picture and question together."""

    embedder: Embeds
    batch_size: int = 8

    def __call__(self, asked: Sequence[Asked]) -> Float[Tensor, "n d"]:
        """As `Retriever`. Raises: ModelError; Unreadable."""
        keys = [list(parts_of(one.marked, one.pictures)) for one in asked]
        return self.embedder.embed(keys, batch_size=self.batch_size)


@dataclass(frozen=True)
class EncoderRetriever:
    """The control: a dual encoder's similarity of the pictures and that of the questions, averaged.

    Of several pictures it is the mean embedding; without a picture on one side, that half of the similarity is 0.
    """

    encoder: DualEncoder

    @torch.no_grad()
    def __call__(self, asked: Sequence[Asked]) -> Float[Tensor, "n d"]:
        """As `Retriever`. Raises: Unreadable."""
        files = list(dict.fromkeys(picture for one in asked for picture in one.pictures))
        image = torch.zeros(len(asked), self.encoder.embedding_dim)
        if files:
            seen = Pictures(ImageSet.of(files), self.encoder.preprocess)
            encoded = normalize(encode_pictures(self.encoder.vision, seen), dim=1)
            rows = {file: row for row, file in enumerate(files)}
            for place, one in enumerate(asked):
                if one.pictures:
                    image[place] = normalize(encoded[[rows[file] for file in one.pictures]].mean(dim=0), dim=0)
        text = normalize(self.encoder.encode_text([_text(one.question) for one in asked]).float().cpu(), dim=1)
        # ⟨[a, b]/√2, [a′, b′]/√2⟩ = (⟨a, a′⟩ + ⟨b, b′⟩) / 2
        return torch.cat([image, text], dim=1) / 2**0.5


def read_entries(path: str | Path) -> list[Entry]:
    """What a file has to look up: lines with `image`, `images` or neither, `question`, and `answer` or `answers`.

    Raises: ImageSetError with every fault and its line, and for an empty file.
    """
    return read_items(Path(path), _entry, example=_EXAMPLE)


def check_leaks(entries: Sequence[Entry], asked: Sequence[Asked]) -> int:
    """How many questions are about a picture, byte for byte, that something to look up is about as well.

    Raises: ImageSetError where even the question is the same (but for case, spaces and final marks): its answer would
        be looked up, not found out.
    """
    every = (*(one.bare for one in asked), *(entry.asked for entry in entries))
    files = {picture for one in every for picture in one.pictures}
    content = {picture: sha256_of(picture) for picture in files}

    def keys(one: Asked) -> list[tuple[str, str]]:
        return [(content[picture], _words(one.question)) for picture in one.pictures] or [("", _words(one.question))]

    pictures = {content[picture] for entry in entries for picture in entry.asked.pictures}
    known = {key: entry for entry in reversed(entries) for key in keys(entry.asked)}
    shared = 0
    same: list[str] = []
    for one in (one.bare for one in asked):
        shared += any(content[picture] in pictures for picture in one.pictures)
        entry = next((known[key] for key in keys(one) if key in known), None)
        if entry is not None:
            about = ", ".join(map(str, one.pictures)) or "no picture"
            same.append(f"  {entry.id}: {entry.asked.question!r} about {about}")
    if same:
        more = [f"  … and {len(same) - _SHOWN} more"] if len(same) > _SHOWN else []
        raise ImageSetError(
            "\n".join(
                [
                    f"{len(same)} of {len(asked)} questions are among what is looked up, picture and words:",
                    *same[:_SHOWN],
                    *more,
                    "Their answers would be copied; take them out of the file that is looked up.",
                ]
            )
        )
    return shared


def augmented(asked: Asked, found: Sequence[Found[Entry]], template: str | Template = "exemplar") -> Asked:
    """A question with what was found before it; as it is where nothing was.

    Args:
        found: the most similar first; it stands last, next to the question (ours).
        template: a name of `TEMPLATES`, or your own.

    Raises: Gen2RealError for an unknown name.
    """
    words = template_named(template)
    if not found:
        return asked
    nearest_last = [one.item for one in reversed(found)]
    entries = [_filled(words.entry, question=one.asked.marked, answer=one.answer) for one in nearest_last]
    question = _filled(words.whole, found="\n".join(entries), question=asked.marked)
    looked_up = tuple(picture for one in nearest_last for picture in one.asked.pictures)
    # Pictures come in the order of their marks.
    found_first = words.whole.index("{found}") < words.whole.index("{question}")
    return Asked((*looked_up, *asked.pictures) if found_first else (*asked.pictures, *looked_up), question, asked.bare)


def template_named(template: str | Template) -> Template:
    """A template by its name. Raises: Gen2RealError for an unknown one, and for one without its fields."""
    if isinstance(template, str):
        if template not in TEMPLATES:
            raise Gen2RealError(f"there is no template {template!r}; there are: {', '.join(TEMPLATES)}.")
        template = TEMPLATES[template]
    for text, fields in ((template.entry, ("question", "answer")), (template.whole, ("found", "question"))):
        if lacking := [f"{{{name}}}" for name in fields if text.count(f"{{{name}}}") != 1]:
            raise Gen2RealError(f"a template needs {' and '.join(lacking)} once in {text!r}.")
    return template


class Rag:
    """Puts what is looked up before questions: an `Augment` of `evaluation.tasks`.

    Entries are embedded once, and a question once whatever `count` is asked for (`with_count`). It is looked up as it
    is without options and facts (`Asked.bare`), and answered with them.

    Args:
        entries: what is looked up. retriever: embeds them, and the questions.
        count: k, how many are put before a question; 0: none.
        threshold: less similar ones are left out; None: none is.
        template: a name of `TEMPLATES`, or your own.

    Raises: ModelError; Unreadable; Gen2RealError for an unknown template.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        retriever: Retriever,
        *,
        count: int = 1,
        threshold: float | None = None,
        template: str | Template = "exemplar",
    ) -> None:
        self.count, self.threshold, self.template = count, threshold, template_named(template)
        self._lookup = _Lookup(list(entries), retriever)
        self._told: dict[str, Any] = {}

    def with_count(self, count: int) -> Rag:
        """The same, with another number of entries before a question; nothing is embedded again."""
        other = copy(self)
        other.count, other._told = count, {}
        return other

    @property
    def told(self) -> Mapping[str, Any]:
        """Of the last call: entries, k, how many were put before a question and how similar, shared pictures."""
        return self._told

    def __call__(self, asked: Sequence[Asked]) -> list[Asked]:
        """The questions, each with what was found before it. Raises: ImageSetError as `check_leaks`."""
        found = self.found(asked)
        scores = [one.score for own in found for one in own]
        self._told = {
            "entries": len(self._lookup.entries),
            "count": self.count,
            "threshold": self.threshold,
            "found": len(scores) / max(1, len(asked)),
            "similarity": sum(scores) / len(scores) if scores else None,
            "questions_about_pictures_in_it": self._lookup.shared(asked),
        }
        return [augmented(one, own, self.template) for one, own in zip(asked, found, strict=True)]

    def found(self, asked: Sequence[Asked]) -> list[list[Found[Entry]]]:
        """What is put before each question, the most similar first. Raises: ImageSetError as `check_leaks`."""
        return self._lookup.search(asked, self.count, self.threshold)


class _Lookup:
    """Entries, embedded when first searched, and questions, each embedded and looked for among them once."""

    def __init__(self, entries: list[Entry], retriever: Retriever) -> None:
        self.entries, self._retriever = entries, retriever
        self._index: Index[Entry] | None = None
        self._embedded: dict[Asked, Tensor] = {}
        self._shared: dict[tuple[Asked, ...], int] = {}

    def shared(self, asked: Sequence[Asked]) -> int:
        """As `check_leaks`."""
        key = tuple(asked)
        if key not in self._shared:
            self._shared[key] = check_leaks(self.entries, asked)
        return self._shared[key]

    def search(self, asked: Sequence[Asked], count: int, threshold: float | None) -> list[list[Found[Entry]]]:
        """The `count` entries most like each question."""
        self.shared(asked)
        asked = [one.bare for one in asked]
        if count < 1 or not asked:
            return [[] for _ in asked]
        if self._index is None:
            self._index = Index(self._retriever([entry.asked for entry in self.entries]), self.entries)
        new = [one for one in dict.fromkeys(asked) if one not in self._embedded]
        if new:
            self._embedded |= dict(zip(new, self._retriever(new), strict=True))
        return self._index.search(torch.stack([self._embedded[one] for one in asked]), count, threshold=threshold)


def _entry(values: Values, number: int, files: PictureFiles) -> Entry:
    asked = Asked(pictures_of(values, files), text_of(values, "question"))
    check_marks(asked.question, asked.pictures)
    answer = Counter(answers_of(values)).most_common(1)[0][0]
    if MARK in answer:
        raise Fault(f"the answer holds the mark {MARK}; pictures stand in the question only")
    return Entry(id_of(values, number), asked, answer)


def _text(question: str) -> str:
    """A question without its pictures' marks."""
    return " ".join(question.replace(MARK, " ").split())


def _words(question: str) -> str:
    """A question's words alone, for comparing."""
    return _text(question).casefold().rstrip(" ?.!")


def _filled(template: str, **fields: str) -> str:
    # In one go: what is put in may itself hold braces.
    return re.sub(r"\{(\w+)\}", lambda found: fields.get(found[1], found[0]), template)
