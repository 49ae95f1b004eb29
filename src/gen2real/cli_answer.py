"""gen2real answer: a multimodal model's answers, for others to judge."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gen2real.cli_options import Json
from gen2real.cli_tables import print_table


def answer(
    model: Annotated[str, Parameter(help="a multimodal model: a model folder, a run, or a hub name")],
    questions: Annotated[Path, Parameter(help="the JSON Lines of a task; gen2real import benchmark makes them")],
    /,
    *,
    out: Annotated[Path, Parameter(help="the file to make; which suffix it needs depends on the benchmark")],
    limit: Annotated[int | None, Parameter(help="the first so many questions [default: all]")] = None,
    max_tokens: Annotated[
        int | None, Parameter(help="of an answer at most [default: the model's recipe's, or 64]")
    ] = None,
    json: Json = False,
) -> None:
    """Write a model's answers in the form that a benchmark's own judge reads.

    vqav2, vizwiz: a .json for their servers

    mmbench: a .tsv for its server

    mm-vet: a .json for its notebook, llava-wild: a .jsonl for LLaVA's review

    any other questions: a .jsonl with id, question and answer
    """
    from gen2real.methods.finished_answers import answer_questions

    written = answer_questions(model, questions, out, limit=limit, max_tokens=max_tokens)
    if json:
        print(jsonlib.dumps(written.to_json()))
        return
    shown = list(zip(written.questions, written.answers, strict=True))[:5]
    print_table(["question", "answer"], [[" ".join(question.split()), said] for question, said in shown])
    judged = f", as {written.benchmark} wants them" if written.benchmark else ""
    print(f"{written.path}: {len(written.answers)} answers{judged}")
