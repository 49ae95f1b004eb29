"""The whole chain on the kit: draw from class names, curate, tune, blend, test on photographs never seen, report.

Every step is the public function behind a command, with the kit's folders for arguments; `Quickstart.commands` names
them, so that each can be typed with other folders.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gen2real import kit
from gen2real.config import parse_config
from gen2real.files import write_text
from gen2real.imagesets.manifest import MANIFEST
from gen2real.kit.world.vocabulary import KINDS

_TEMPLATE = "a photo of a {}"
_STEPS, _GUIDANCE = 20, 3.0
_KEPT = 0.8
_RUNS = "regft-on-the-kit"
# What a camera does and the generator never saw.
_CAMERA = {"crop_scale": [0.7, 1.0], "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "blur": 0.5, "noise": 0.04}


@dataclass
class Quickstart:
    """What the chain made. seconds: of each step; findings: each arm's name → its interval as printed."""

    folder: Path
    report: Path
    gallery: Path
    findings: dict[str, str]
    seconds: dict[str, float] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "output": str(self.folder),
            "report": str(self.report),
            "gallery": str(self.gallery),
            "findings": self.findings,
            "seconds": self.seconds,
            "commands": self.commands,
        }


def quickstart(
    folder: Path,
    *,
    per_class: int = 20,
    photographs: int = 360,
    seeds: int = 3,
    on_step: Callable[[str], None] = lambda line: None,
    quiet: bool = False,
) -> Quickstart:
    """Runs the chain in `folder`; the same call again goes on where it was stopped.

    Args:
        per_class: pictures to draw of each of the 18 kinds of toy.
        photographs: of `home`, to be tested on. Nothing before the last step reads their labels.
        seeds: fine-tunings of each kind, for the intervals.
        on_step: is told each step and the command that does the same.

    Raises: ModelError where the kit's checkpoints are not there; whatever the steps raise.
    """
    done = Quickstart(folder, folder / _RUNS / "report.html", folder / "generated" / "gallery.html", {})
    # Recipes name image sets by paths that hold wherever they are read from.
    folder.mkdir(parents=True, exist_ok=True)
    where = folder.absolute()

    @contextmanager
    def step(name: str, command: str) -> Iterator[None]:
        on_step(f"{name}\n  {command}")
        done.commands.append(command)
        began = time.monotonic()
        yield
        done.seconds[name] = round(time.monotonic() - began, 1)

    clip, scorer, generator = (str(kit.folder(name)) for name in ("clip", "scorer", "generator"))
    home, drawn, runs = where / "photographs", where / "generated", where / _RUNS
    with step("photographs", f"gen2real kit home --split test --count {photographs} --toys 1 --out {home}"):
        _photographs(home, photographs)
    names = where / "names.txt"
    write_text(names, "".join(f"{kind}\n" for kind in KINDS))
    with step(
        "generate",
        f"gen2real generate {names} --generator {generator} --templates {_TEMPLATE!r} --per-class {per_class} "
        f"--steps {_STEPS} --guidance {_GUIDANCE} --out {drawn}",
    ):
        _generate(names, drawn, generator, per_class, quiet)
    with step(
        "curate",
        f"gen2real curate {drawn} --encoder {scorer} --trained-encoder {clip} --keep-margin {_KEPT} "
        f"--evaluation {home} --templates {_TEMPLATE!r}",
    ):
        curated = _curate(drawn, scorer, clip, home)
    recipe = where / "compare.yaml"
    _write_recipes(where, clip, curated, home, runs, seeds)
    with step("tune, blend, evaluate", f"gen2real compare {recipe}"):
        done.findings = _compare(recipe, quiet)
    with step("report", f"gen2real report {runs}; gen2real inspect {curated}"):
        from gen2real.report import write_gallery, write_report

        done.report, done.gallery = write_report(runs), write_gallery(curated)
    return done


def _photographs(home: Path, count: int) -> None:
    from gen2real.kit.world import write_image_set

    if not (home / MANIFEST).exists():
        write_image_set(home, "home", "test", count, toys=1)


def _generate(names: Path, drawn: Path, generator: str, per_class: int, quiet: bool) -> None:
    from gen2real.generation import GenerateConfig, generate

    values = {
        "source": str(names),
        "output": str(drawn),
        "generators": [{"name": generator, "steps": _STEPS, "guidance": _GUIDANCE}],
        "per_class": per_class,
        "templates": [_TEMPLATE],
    }
    generate(parse_config(GenerateConfig, values, source="quickstart"), quiet=quiet)


def _curate(drawn: Path, scorer: str, clip: str, home: Path) -> Path:
    from gen2real.curation import CurateConfig, curate

    values = {
        "images": str(drawn),
        "encoder": scorer,
        "trained_encoder": clip,
        "templates": [_TEMPLATE],
        "keep_margin": _KEPT,
        "evaluation": [str(home)],
    }
    curate(parse_config(CurateConfig, values, source="quickstart"))
    return drawn / "curated.parquet"


def _write_recipes(where: Path, clip: str, curated: Path, home: Path, runs: Path, seeds: int) -> None:
    """`regft.yaml` and `compare.yaml`: the recipes that a user would write, whole."""
    import yaml

    regft = {
        "method": "regft",
        "output": str(runs / "regft"),
        "encoder": {"name": clip},
        "prompts": {"templates": [_TEMPLATE]},
        "data": {"generated": [str(curated)], "evaluation": str(home), "augmentation": _CAMERA},
        "optimizer": {"lr": 1e-4},
        "training": {"epochs": 6, "batch_size": 32, "precision": "auto", "loader_workers": 1},
        "ensemble": {"rule": "fixed", "alpha": 0.5},
    }
    arms = {
        "zero-shot": {"reading": "zero_shot", "note": "the kit's CLIP as it is"},
        "plain fine-tuning": {"set": _NO_REGULARISATION, "reading": "tuned"},
        "plain + ensemble": {"set": _NO_REGULARISATION, "reading": "blend"},
        "regularised": {"reading": "tuned"},
        "RegFT": {"reading": "blend", "note": "regularised, then blended with the original"},
    }
    compare = {
        "method": "compare",
        "output": str(runs),
        "recipe": str(where / "regft.yaml"),
        "seeds": list(range(seeds)),
        "arms": arms,
        "against": ["zero-shot", "plain fine-tuning"],
    }
    for name, values in (("regft", regft), ("compare", compare)):
        write_text(where / f"{name}.yaml", yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


_NO_REGULARISATION = {"loss.variance": 0.0, "loss.covariance": 0.0}


def _compare(recipe: Path, quiet: bool) -> dict[str, str]:
    from gen2real.comparison import Table, compare
    from gen2real.config import load_recipe
    from gen2real.methods.settings import CompareConfig

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    config = load_recipe(recipe, {"compare": CompareConfig})
    assert isinstance(config, CompareConfig)
    table = compare(config, quiet=quiet)
    assert isinstance(table, Table)
    return {row.arm: f"{row.real.mean:.1%} [{row.real.low:.1%}, {row.real.high:.1%}]" for row in table.rows if row.real}
