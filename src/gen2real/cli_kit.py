"""gen2real kit and gen2real quickstart: the embedded world, and the whole chain on it."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from gen2real.cli_options import Json

if TYPE_CHECKING:
    from gen2real.kit.quickstart import Quickstart


def kit(
    domain: Annotated[Literal["web", "home"], Parameter(help="web: studio pictures; home: to be good at")],
    /,
    *,
    out: Annotated[Path, Parameter(help="the image set to make: a new folder")],
    split: Annotated[Literal["train", "validation", "test"], Parameter(help="which scenes")] = "test",
    count: Annotated[int | None, Parameter(help="so many of its scenes, from the first [default: all]")] = None,
    toys: Annotated[
        int | None, Parameter(help="so many in each picture; 1 gives each a label [default: one to three]")
    ] = None,
    captions: Annotated[int, Parameter(help="captions of each picture, in different words")] = 1,
    stories: Annotated[int, Parameter(help="so many of its stories too, in stories.jsonl")] = 0,
    tasks: Annotated[
        int, Parameter(help="so many hard questions of each kind too: winoground.jsonl, choices.jsonl, …")
    ] = 0,
    seed: Annotated[int, Parameter(help="another seed is another world of the same kind")] = 0,
    json: Json = False,
) -> None:
    """Render pictures of the kit's world as an image set: labels and captions are known, and questions.jsonl asks."""
    from gen2real.imagesets.questions import QUESTIONS
    from gen2real.kit.world.image_sets import write_image_set
    from gen2real.kit.world.scenes import scenes_of
    from gen2real.kit.world.task_files import check_count, check_questions, write_stories, write_tasks
    from gen2real.progress import WorkProgress

    wanted = scenes_of(domain, split) if count is None else count
    check_count(domain, split, stories, "stories")
    check_questions(domain, split, tasks, wanted)
    with WorkProgress(f"{domain} {split}", start=0, total=wanted, quiet=json) as progress:
        made = write_image_set(
            out, domain, split, wanted, seed=seed, toys=toys, captions=captions, on_progress=progress.update
        )
    beside = [write_stories(out, domain, split, stories, seed=seed)] if stories else []
    beside += write_tasks(out, domain, split, tasks, seed=seed, toys=toys) if tasks else []
    labelled = int((made.labels >= 0).sum())
    found = {
        "set": str(made.root),
        "pictures": len(made),
        "labelled": labelled,
        "classes": len(made.classes),
        "questions": str(made.root / QUESTIONS),
        **({"files": [str(path) for path in beside]} if beside else {}),
    }
    text = f"{made.root}: {len(made)} pictures, {labelled} of them labelled, {len(made.classes)} classes"
    text += f"; {', '.join(path.name for path in beside)}" if beside else ""
    print(jsonlib.dumps(found) if json else text)


def quickstart(
    *,
    out: Annotated[Path, Parameter(help="the folder for pictures, models and report")] = Path("quickstart"),
    per_class: Annotated[int, Parameter(help="pictures to draw of each of 18 kinds of toy")] = 20,
    photographs: Annotated[int, Parameter(help="photographs to be tested on")] = 360,
    seeds: Annotated[int, Parameter(help="fine-tunings of each kind, for the intervals")] = 3,
    browse: Annotated[bool, Parameter(help="open the report in the browser", show_default=False)] = False,
    json: Json = False,
) -> None:
    """Run the whole chain on the kit, offline: draw, curate, fine-tune, blend, test on photographs, report.

    The same command again goes on with an interrupted one.
    """
    from gen2real.kit.quickstart import quickstart as run

    done = run(
        out,
        per_class=per_class,
        photographs=photographs,
        seeds=seeds,
        on_step=lambda line: None if json else print(line, file=sys.stderr, flush=True),
        quiet=json,
    )
    print(jsonlib.dumps(done.to_json()) if json else _told(done))
    if browse:
        import webbrowser

        webbrowser.open(done.report.absolute().as_uri())


def _told(done: Quickstart) -> str:
    lines = ["Accuracy on photographs of `home`, with 95 % intervals over photographs and seeds:"]
    width = max(len(arm) for arm in done.findings)
    lines += [f"  {arm:<{width}}  {found}" for arm, found in done.findings.items()]
    lines.append(f"{sum(done.seconds.values()):.0f} s in all; each command above works with your own folders.")
    lines += [f"Gallery of the drawn pictures: {done.gallery}", f"Report: {done.report}"]
    return "\n".join(lines)
