"""Finished multimodal models answer a file of questions, for others to judge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen2real.errors import Gen2RealError
from gen2real.evaluation.submissions import form_of, read_put
from gen2real.files import write_text
from gen2real.methods.finished_texts import decoding_of, open_multimodal
from gen2real.methods.multimodal.settings import DecodingSettings


@dataclass(frozen=True)
class AnswersWritten:
    """The file that was written, for which benchmark's judge (empty: none), and each question with its answer."""

    path: Path
    benchmark: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"file": str(self.path), "benchmark": self.benchmark, "answers": len(self.answers)}


def answer_questions(
    model: str | Path,
    path: str | Path,
    out: str | Path,
    *,
    limit: int | None = None,
    max_tokens: int | None = None,
) -> AnswersWritten:
    """Writes a multimodal model's answers in the form that the questions' benchmark asks for (`submissions.py`).

    Args:
        model: by hub name, folder or run; it decodes as its recipe says.
        path: a task's file, as `imagesets.importers.import_benchmark` makes them; right answers are not needed.
        out: a new file, its suffix that of the form.
        limit: the first so many questions; None: all. max_tokens: of an answer at most; None: as its recipe says.

    Raises: Gen2RealError for another suffix, a file that is there, and a limit below 1; ImageSetError with every fault
        of the file; ModelError.
    """
    out = Path(out)
    if out.exists():
        raise Gen2RealError(f"{out} exists already. Choose another file with --out, or remove it first: rm {out}")
    for name, given in (("--limit", limit), ("--max-tokens", max_tokens)):
        if given is not None and given < 1:
            raise Gen2RealError(f"{name} {given}: give at least 1")
    put = read_put(Path(path))[:limit]
    form, suffix = form_of(put)
    if out.suffix != suffix:
        raise Gen2RealError(f"answers to {path} are written as {suffix}; name it {out.with_suffix(suffix)}")
    loaded = open_multimodal(model)
    decoding = decoding_of(loaded.made_by, DecodingSettings())
    if max_tokens is not None:
        decoding["max_tokens"] = max_tokens
    asked = [one.asked for one in put]
    said = loaded.answer([one.pictures for one in asked], [one.question for one in asked], **decoding)
    write_text(out, form(put, said, loaded.name))
    benchmark = put[0].benchmark if len({one.benchmark for one in put}) == 1 else ""
    return AnswersWritten(out, benchmark, tuple(one.bare.question for one in asked), tuple(said))
