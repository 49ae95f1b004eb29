"""Public benchmarks from the user's own folder → the files that `gen2real evaluate MODEL FILE --task …` reads.

A format is a function of a `Source` (one folder) to rows; `BENCHMARKS` names them. To add one is to write that function
and a line here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen2real.errors import ImageSetError
from gen2real.imagesets.decoding import Policy
from gen2real.imagesets.importers.benchmarks import choices, open_questions, several_pictures, yes_no
from gen2real.imagesets.importers.benchmarks.source import Row, Rows, Source
from gen2real.imagesets.importers.benchmarks.writing import RowPictures
from gen2real.imagesets.importers.samples import new_file, without_faults
from gen2real.imagesets.json_lines import write_json_lines

SHORT = "Answer the question using a single word or phrase."
"""What LLaVA-1.5 is told after a question with a short answer (Liu et al., arXiv 2310.03744)."""


@dataclass(frozen=True)
class Benchmark:
    """A format.

    Attributes:
        read: a folder → rows. task: that its file is for; None where only its own judge scores it.
        split: taken where none is given. layout: what a folder holds, for people; `{split}` stands in it.
        instruction: what is said after each question; LLaVA-1.5's (ours, where it has none: nothing).
        distractors: whether it has other sources to put among a question's facts.
    """

    read: Callable[[Source], Rows]
    task: str | None
    split: str
    layout: str
    instruction: str = ""
    distractors: bool = False


BENCHMARKS: dict[str, Benchmark] = {
    "vqav2": Benchmark(
        open_questions.vqav2, "questions", "val2014",
        "v2_OpenEnded_mscoco_{split}_questions.json, v2_mscoco_{split}_annotations.json and COCO's pictures", SHORT,
    ),
    "gqa": Benchmark(open_questions.gqa, "questions", "testdev_balanced", "{split}_questions.json and images/", SHORT),
    "vizwiz": Benchmark(
        open_questions.vizwiz, "questions", "val", "{split}.json and the pictures VizWiz_{split}_*.jpg",
        f"When the provided information is insufficient, respond with 'Unanswerable'.\n{SHORT}",
    ),
    "textvqa": Benchmark(
        open_questions.textvqa, "questions", "val", "TextVQA_0.5.1_{split}.json and train_images/", SHORT
    ),
    "pope": Benchmark(yes_no.pope, "yes-no", "coco", "{split}_pope_random.json and the like, COCO's val2014", SHORT),
    "mme": Benchmark(yes_no.mme, "yes-no", "", "the folders existence/, count/, … of MME_Benchmark_release_version"),
    "scienceqa": Benchmark(
        choices.scienceqa, "choice", "test", "problems.json, pid_splits.json and the pictures {split}/1/image.png"
    ),
    "mmbench": Benchmark(choices.mmbench, "choice", "dev", "a table as mmbench_{split}_20230712.tsv"),
    "mmmu": Benchmark(choices.mmmu, "choice", "validation", "a folder a subject, with {split}-00000-of-00001.parquet"),
    "seed": Benchmark(choices.seed_bench, "choice", "", "SEED-Bench.json and SEED-Bench-image/"),
    "winoground": Benchmark(several_pictures.winoground, "winoground", "", "examples.jsonl and images/"),
    "webqa": Benchmark(
        several_pictures.webqa, "knowledge", "val", "WebQA_train_val.json, imgs.tsv, imgs.lineidx (or pictures by id)",
        distractors=True,
    ),
    "webqa-position": Benchmark(
        several_pictures.webqa_position, "position", "val",
        "WebQA_train_val.json, imgs.tsv, imgs.lineidx (or pictures by id)",
    ),
    "demon": Benchmark(
        several_pictures.demon, "knowledge", "core", "DEMON's datasets, each a folder with core/{split}.json and images"
    ),
    "demon-choice": Benchmark(
        several_pictures.demon_choice, "choice", "core",
        "DEMON's datasets, each a folder with core/{split}.json and images",
    ),
    "mm-vet": Benchmark(open_questions.mm_vet, None, "", "mm-vet.json and images/"),
    "llava-wild": Benchmark(open_questions.llava_wild, None, "", "questions.jsonl and images/"),
}  # fmt: skip
"""A format's name → how it is read."""

# Formats that become something else, by commands of their own.
_ELSEWHERE = {
    "coco": "captions become an image set: gen2real import coco ANNOTATIONS FOLDER --out SET, and then "
    "gen2real evaluate MODEL SET --task captioning (or retrieval)",
    "vist": "stories become samples: gen2real import vist ANNOTATIONS FOLDER --out stories.jsonl, and then "
    "gen2real evaluate MODEL stories.jsonl --task story-retrieval",
}


@dataclass(frozen=True)
class ImportedBenchmark:
    """What was written.

    Attributes:
        task: that the file is for; None where only `gen2real answer` has a use for it.
        items, pictures: how many. unanswered: items without a right answer, as of a hidden test.
        left_out: why → how many items.
    """

    path: Path
    benchmark: str
    task: str | None
    items: int
    pictures: int
    unanswered: int
    left_out: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "file": str(self.path), "benchmark": self.benchmark, "task": self.task, "items": self.items,
            "pictures": self.pictures, "unanswered": self.unanswered, "left_out": dict(self.left_out),
        }  # fmt: skip


def import_benchmark(
    benchmark: str,
    source: str | Path,
    out: str | Path,
    *,
    pictures: str | Path | None = None,
    split: str | None = None,
    instruction: str | None = None,
    distractors: int = 0,
    on_fault: Policy = "error",
) -> ImportedBenchmark:
    """Takes in a benchmark's questions, as it is published.

    Args:
        benchmark: a name of `BENCHMARKS`.
        source: the folder with its files, at any depth. pictures: with its pictures; None: the same.
        out: a new JSON Lines file. Pictures stay where they are; those inside tables are written to a folder beside it,
            as `mmbench-pictures` of `mmbench.jsonl`, each content once.
        split: which part, as its files call it; None: the format's own.
        instruction: said after each question, "" for nothing; None: the format's own.
        distractors: webqa: at most so many sources that are not the right ones stand among a question's facts, in an
            order drawn by the question's id (Sugar's paper has 10 to 20).
        on_fault: items that cannot be read: all are listed, or they are left out and counted.

    Raises: ImageSetError for a name that is not known, files that are missing, and with every item that cannot be read.
    """
    if benchmark in _ELSEWHERE:
        raise ImageSetError(f"{benchmark}: its {_ELSEWHERE[benchmark]}")
    if benchmark not in BENCHMARKS:
        raise ImageSetError(f"there is no benchmark {benchmark!r}; there are: {', '.join([*BENCHMARKS, *_ELSEWHERE])}.")
    known = BENCHMARKS[benchmark]
    if distractors < 0:
        raise ImageSetError(f"--distractors {distractors}: give 0 or more")
    if distractors and not known.distractors:
        able = ", ".join(name for name, one in BENCHMARKS.items() if one.distractors)
        raise ImageSetError(
            f"--distractors {distractors}: there are no other sources to put among the facts of {benchmark}. It is for "
            f"{able}; leave it out."
        )
    folder, seen = Path(source), Path(source if pictures is None else pictures)
    for place in (folder, seen):
        if not place.is_dir():
            raise ImageSetError(f"{place} is not a folder. Give the one that holds {_layout(known, split)}.")
    out = new_file(out)
    part = known.split if split is None else split
    of = Source(folder.absolute(), seen.absolute(), part, _layout(known, split), distractors)
    with RowPictures(out) as seen_pictures:
        found, left_out = without_faults(seen_pictures.of(known.read(of)), out, on_fault)
    said = known.instruction if instruction is None else instruction.strip()
    write_json_lines(out, (_asked(row, benchmark, said) for row in found))
    unanswered = sum(not {"answer", "answers", "captions"} & set(row) for row in found)
    return ImportedBenchmark(out, benchmark, known.task, len(found), len(seen_pictures.named), unanswered, left_out)


def _asked(row: Row, benchmark: str, instruction: str) -> Row:
    said = {"question": f"{row['question']}\n{instruction}"} if instruction and "question" in row else {}
    return {**row, **said, "benchmark": benchmark}


def _layout(known: Benchmark, split: str | None) -> str:
    return known.layout.format(split=known.split if split is None else split)
