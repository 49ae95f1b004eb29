"""Answers for others to judge: what a task's file asks, and answers in the form that a benchmark's judge reads.

vqav2, vizwiz  a JSON list of {question_id | image, answer}: their servers on EvalAI
mm-vet         a JSON object, question's id → answer: its notebook with GPT-4
llava-wild     JSON Lines of {question_id, prompt, text, answer_id, model_id, metadata}: LLaVA's review with GPT-4
mmbench        a TSV of index, question, options and prediction: OpenCompass's server
any other      JSON Lines of {id, question, answer}
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from gen2real.evaluation.choice import chosen, with_options
from gen2real.evaluation.knowledge import with_facts
from gen2real.evaluation.questions import normalised_answer
from gen2real.evaluation.task_files import Values, check_marks, filled_texts, pairs_of, pictures_of, read_items
from gen2real.evaluation.tasks import Asked
from gen2real.imagesets.json_lines import Fault, PictureFiles, id_of, text_of

_EXAMPLE = '{"image": "1.png", "question": "what is this?"}'


@dataclass(frozen=True)
class Put:
    """A question that is put to a model, right answer or not.

    asked: with its options and facts. options: none of an open question. benchmark: whose it is, or empty. submission:
    what its judge knows it by.
    """

    id: str
    asked: Asked
    options: tuple[str, ...]
    benchmark: str
    submission: Mapping[str, Any]


Form = Callable[[Sequence[Put], Sequence[str], str], str]
"""Questions, their answers and the model's name → the file's text."""


def read_put(path: Path) -> list[Put]:
    """The questions of a task's file, whatever its task: `question`, `images` (or `image`), `options`, `facts`.

    Raises: ImageSetError with every fault and its line.
    """
    return read_items(path, _read, example=_EXAMPLE)


def form_of(put: Sequence[Put]) -> tuple[Form, str]:
    """How the answers to these are written, and the suffix of such a file: by their benchmark, if they have one."""
    named = {one.benchmark for one in put}
    return _FORMS.get(next(iter(named)), _PLAIN) if len(named) == 1 else _PLAIN


def _scored_as_vqa(put: Sequence[Put], answers: Sequence[str], model: str) -> str:
    # Normalised: the servers leave that out where all people gave one answer.
    return _json(
        [{**one.submission, "answer": normalised_answer(answer)} for one, answer in zip(put, answers, strict=True)]
    )


def _mm_vet(put: Sequence[Put], answers: Sequence[str], model: str) -> str:
    return _json({one.submission["id"]: answer for one, answer in zip(put, answers, strict=True)})


def _llava_wild(put: Sequence[Put], answers: Sequence[str], model: str) -> str:
    lines = [
        {
            **one.submission,
            "text": answer,
            "answer_id": hashlib.sha256(f"{model}\n{one.id}\n{answer}".encode()).hexdigest()[:22],
            "model_id": model,
            "metadata": {},
        }
        for one, answer in zip(put, answers, strict=True)
    ]
    return _json_lines(lines)


def _mmbench(put: Sequence[Put], answers: Sequence[str], model: str) -> str:
    letters = ascii_uppercase[: max(len(one.options) for one in put)]
    written = io.StringIO()
    table = csv.DictWriter(
        written, ["index", "question", *letters, "prediction"], restval="", delimiter="\t", lineterminator="\n"
    )
    table.writeheader()
    for one, answer in zip(put, answers, strict=True):
        place = chosen(answer, one.options)
        table.writerow({**one.submission, "prediction": answer if place is None else ascii_uppercase[place]})
    return written.getvalue()


def _plain(put: Sequence[Put], answers: Sequence[str], model: str) -> str:
    return _json_lines(
        [
            {"id": one.id, "question": one.asked.question, "answer": answer}
            for one, answer in zip(put, answers, strict=True)
        ]
    )


_PLAIN: tuple[Form, str] = (_plain, ".jsonl")
_FORMS: Mapping[str, tuple[Form, str]] = {
    "vqav2": (_scored_as_vqa, ".json"),
    "vizwiz": (_scored_as_vqa, ".json"),
    "mm-vet": (_mm_vet, ".json"),
    "llava-wild": (_llava_wild, ".jsonl"),
    "mmbench": (_mmbench, ".tsv"),
}


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _json_lines(values: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def _read(values: Values, number: int, files: PictureFiles) -> Put:
    pictures, question = pictures_of(values, files), text_of(values, "question")
    options = filled_texts(values, "options", least=2) if "options" in values else ()
    check_marks("\n".join([question, *options]), pictures)
    asked = with_facts(pairs_of(values, "facts", files, least=0), Asked(pictures, question))
    benchmark, submission = values.get("benchmark", ""), values.get("submission", {})
    if not isinstance(benchmark, str) or not isinstance(submission, dict):
        raise Fault("'benchmark' must be a name, and 'submission' an object")
    if benchmark in _FORMS and not submission:
        raise Fault(f"it has no 'submission', by which {benchmark} knows it; import it again with gen2real import")
    put = with_options(options, asked) if options else asked
    return Put(id_of(values, number), put, options, benchmark, submission)
