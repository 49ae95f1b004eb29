"""gen2real kit: photographs of the kit's toys as an image set."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

Json = Annotated[
    bool, Parameter(name="--json", help="one JSON object on standard output, for programs", show_default=False)
]


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
    seed: Annotated[int, Parameter(help="another seed is another world of the same kind")] = 0,
    json: Json = False,
) -> None:
    """Render pictures of the kit's world, with labels and captions that are known, as an image set."""
    from gen2real.kit.world.image_sets import write_image_set
    from gen2real.kit.world.scenes import scenes_of
    from gen2real.progress import WorkProgress

    wanted = scenes_of(domain, split) if count is None else count
    with WorkProgress(f"{domain} {split}", start=0, total=wanted, quiet=json) as progress:
        made = write_image_set(out, domain, split, wanted, seed=seed, toys=toys, on_progress=progress.update)
    labelled = int((made.labels >= 0).sum())
    found = {"set": str(made.root), "pictures": len(made), "labelled": labelled, "classes": len(made.classes)}
    text = f"{made.root}: {len(made)} pictures, {labelled} of them labelled, {len(made.classes)} classes"
    print(jsonlib.dumps(found) if json else text)
