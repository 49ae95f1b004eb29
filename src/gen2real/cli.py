"""The commands. Heavy packages are imported inside a command only, so that --help and recipe errors come at once."""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from cyclopts import App, CycloptsError, Parameter

from gen2real import __version__
from gen2real.cli_options import Json, Policy
from gen2real.cli_report import report_on
from gen2real.cli_tables import print_table
from gen2real.errors import Gen2RealError

if TYPE_CHECKING:
    from gen2real.methods.measured import Measured
    from gen2real.methods.result import Result
    from gen2real.methods.settings import CompareConfig

app = App(
    name="gen2real",
    help="Train vision-language models on generated images so that they work on real ones.",
    version=__version__,
    version_flags=["--version"],
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(negative=()),
)

app.command("gen2real.cli_import:imports", name="import", help="Make an image set of pictures you have, or samples.")
app.command("gen2real.cli_generate:generate", name="generate", help="Draw an image set of class names or captions.")
app.command("gen2real.cli_kit:kit", name="kit", help="Render photographs of the kit's toys as an image set.")
app.command(
    "gen2real.cli_kit:quickstart", name="quickstart", help="Run the whole chain on the kit, offline, in minutes."
)
app.command("gen2real.cli_evaluate:evaluate", name="evaluate", help="Measure a model on an image set, with intervals.")
app.command("gen2real.cli_answer:answer", name="answer", help="Write a multimodal model's answers for others to judge.")
app.command("gen2real.cli_report:inspect", name="inspect", help="Write a gallery of an image set to look through.")
app.command("gen2real.cli_report:report", name="report", help="Write one HTML file about finished runs, with pictures.")
app.command("gen2real.cli_curate:curate", name="curate", help="Score, deduplicate, check for leaks and filter a set.")

Overrides = Annotated[
    tuple[str, ...],
    Parameter(
        name="--set", help="key=value over the recipe, as optimizer.lr=3e-5; may be repeated", show_default=False
    ),
]


@app.command
def export(
    image_set: Annotated[Path, Parameter(help="an image set")],
    out: Annotated[Path, Parameter(help="the folder of tars to make")],
    /,
    *,
    shard_size: Annotated[int, Parameter(help="pictures a tar")] = 1000,
    json: Json = False,
) -> None:
    """Write an image set as WebDataset tars."""
    from gen2real.imagesets import ImageSet
    from gen2real.imagesets.importers import export_webdataset

    shards = export_webdataset(ImageSet.read(image_set), out, shard_size=shard_size)
    _say({"shards": [str(path) for path in shards]}, f"{out}: {len(shards)} tar(s)", json)


@app.command
def train(
    recipe: Annotated[Path, Parameter(help="a YAML file with a method and its settings")],
    /,
    *,
    set: Overrides = (),
    dry_run: Annotated[
        bool, Parameter(help="say pictures, updates, hours, memory and disk, and spend nothing", show_default=False)
    ] = False,
    json: Json = False,
) -> None:
    """Run a recipe: any method. The same command again resumes an interrupted run and reads a finished one."""
    from gen2real.config import load_recipe
    from gen2real.errors import RecipeError
    from gen2real.generation.settings import GenerateConfig
    from gen2real.methods import CONFIGS, run
    from gen2real.methods.settings import CompareConfig

    config = load_recipe(recipe, {**CONFIGS, "compare": CompareConfig}, set)
    if isinstance(config, CompareConfig):
        raise RecipeError(f"{recipe} compares several recipes. Type: gen2real compare {recipe}")
    if isinstance(config, GenerateConfig):
        from gen2real.cli_generate import draw

        draw(config, dry_run=dry_run, json=json)
        return
    if dry_run:
        from gen2real.methods.estimate import estimate

        foreseen = estimate(config)
        _say(foreseen.to_json(), foreseen.text(), json)
        return
    result = run(config, quiet=json or not _is_first_process())
    if result is not None:
        page = report_on(result.folder)
        if json:
            _say({"output": str(result.folder), "report": page, **result.summary}, "", json)
        else:
            _tell(result, page)


@app.command
def compare(
    recipes: Annotated[list[Path], Parameter(help="one recipe of method compare, or several of any methods")],
    /,
    *,
    set: Overrides = (),
    seeds: Annotated[int | None, Parameter(help="seeds 0 … N−1 [default: the recipe's; for several recipes 5]")] = None,
    output: Annotated[Path | None, Parameter(help="where the runs and the table go; several recipes need it")] = None,
    against: Annotated[
        tuple[str, ...],
        Parameter(help="arms that every other one is tested against; may be repeated", show_default=False),
    ] = (),
    json: Json = False,
) -> None:
    """Run arms × seeds and print one table: means, intervals, paired tests. Finished runs are not done again.

    The arms of several recipes are named after their files; a classifier's first recipe, read zero-shot, is an arm too.
    """
    config = _comparison(recipes, set, seeds, output, against)
    from gen2real.comparison import MeasuredTable
    from gen2real.comparison import compare as run_comparison

    quiet = json or not _is_first_process()
    table = run_comparison(config, quiet=quiet, on_run=None if quiet else lambda line: print(line, file=sys.stderr))
    if table is None:
        return
    page = report_on(config.output)
    if json:
        _say({**table.to_json(), "report": page}, "", json)
        return
    if isinstance(table, MeasuredTable):
        for measure in table.measures:
            print_table(*table.cells(measure))
            print()
    else:
        print_table(*table.cells())
    for note in table.notes:
        print(f"Note: {note}")
    print(f"{config.output / 'table.md'}, table.csv and table.json hold the same.")
    if page is not None:
        print(f"the report: {page}")


@app.command
def blend(
    original: Annotated[str, Parameter(help="a model folder, or the encoder that the tuning began from")],
    tuned: Annotated[Path, Parameter(help="a model folder that gen2real train wrote")],
    /,
    *,
    out: Annotated[Path, Parameter(help="the model folder to make")],
    alpha: Annotated[float, Parameter(help="0: original, 1: tuned")] = 0.5,
    evaluation: Annotated[Path | None, Parameter(help="a labelled set, to show the accuracy of each alpha")] = None,
    sweep: Annotated[
        tuple[float, ...],
        Parameter(
            help="with --evaluation: alphas to show [default: 0 0.1 … 1]", consume_multiple=True, show_default=False
        ),
    ] = (),
    json: Json = False,
) -> None:
    """Weight-space ensemble of two models: (1−alpha)·original + alpha·tuned, over every weight."""
    from gen2real.imagesets import ImageSet
    from gen2real.methods.finished import blend_models

    if sweep and evaluation is None:
        raise Gen2RealError("--sweep shows accuracies, and there is no set to measure on: add --evaluation SET")
    measured = None if evaluation is None else ImageSet.read(evaluation)
    alphas = sweep or tuple(step / 10 for step in range(11))
    made = blend_models(original, tuned, out, alpha=alpha, evaluation=measured, sweep=alphas)
    if not json:
        if made.sweep:
            lines = [[f"{value:g}", found.top1.percent(), found.top5.percent()] for value, found in made.sweep]
            print_table(["alpha", "top-1", "top-5"], lines)
            print("An alpha chosen from this table is an oracle for that set.")
        print(f"{made.folder}: alpha {made.alpha:g}")
    else:
        _say(made.to_json(), "", json)


@app.command
def gap(
    generated: Annotated[Path, Parameter(help="an image set")],
    real: Annotated[Path, Parameter(help="an image set")],
    /,
    *,
    encoder: Annotated[str, Parameter(help="whose features: a hub name or a folder")] = "openai/clip-vit-base-patch32",
    on_unreadable: Policy = "error",
    json: Json = False,
) -> None:
    """Say how far apart a generated and a real set are, and what that usually means."""
    from gen2real.imagesets import ImageSet
    from gen2real.methods.finished import gap_between

    sets = ImageSet.read(generated), ImageSet.read(real)
    found = gap_between(*sets, encoder=encoder, on_unreadable=on_unreadable)
    if json:
        _say(found.to_json(), "", json)
        return
    lines = [
        ["pictures (generated, real)", f"{found.generated}, {found.real}"],
        ["two-sample classifier: accuracy", f"{found.two_sample.accuracy:.3f} (p {found.two_sample.p_value:.2g})"],
        ["Fréchet distance", f"{found.frechet.distance:.4g}"],
        ["kernel distance (KID)", f"{found.kernel.mean:.4g} ± {found.kernel.std:.2g}"],
        ["CMMD", f"{found.cmmd:.4g}"],
        ["modality gap", f"{found.modality.distance:.4g} (cosine of the means {found.modality.cosine:.3f})"],
        ["effective rank (generated, real)", _two(found, "effective_rank")],
        ["spread per dimension (generated, real)", _two(found, "magnitude")],
    ]
    if found.class_cosine is not None:
        lines.append(["cosine of class centres", f"{found.class_cosine:.3f}"])
        apart = sorted(found.classes, key=lambda one: one.cosine)[:5]
        names = ", ".join(f"{sets[0].class_names[one.label]} ({one.cosine:.2f})" for one in apart)
        lines.append(["classes furthest apart", names])
    print_table(["measure", "value"], lines)
    for note in found.notes:
        print(f"Note: {note}")
    print(found.reading)


@app.command
def doctor(*, json: Json = False) -> None:
    """Say what is installed, what device there is, what would fail, and how to mend it."""
    from gen2real.doctor import examine

    checks = examine()
    bad = [check for check in checks if check.ok is False]
    if json:
        _say({"ok": not bad, "checks": [check.as_json() for check in checks]}, "", json)
    else:
        marks = {True: "ok", False: "mend", None: "–"}
        print_table(["", "what", "found"], [[marks[check.ok], check.name, check.found] for check in checks])
        for check in checks:
            if check.mend:
                print(f"{check.name}: {check.mend}")
    if bad:
        raise SystemExit(1)


def main() -> NoReturn:
    """The program. A user's mistake ends with its message and exit code 2, a mistake of ours with a traceback and 1."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        try:
            app(sys.argv[1:], exit_on_error=False, print_error=False)
            sys.stdout.flush()
        except KeyboardInterrupt:
            goes_on = {"train": "from the last checkpoint", "generate": "with the next picture"}
            again = "".join(
                f"; the same command again goes on {goes_on[word]}" for word in sys.argv[1:2] if word in goes_on
            )
            _end("Interrupted", f"interrupted{again}", 130)
        except BrokenPipeError:
            # Whoever read the output has gone, as `head` does; nothing is left to say, nor to flush at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except Exception as error:
            if not _is_for_the_user(error):
                traceback.print_exc()
                _end(type(error).__name__, f"{error}\nThis is a fault of gen2real: please report it.", 1)
            _end(type(error).__name__, _message(error), 2)
    raise SystemExit(0)


def _is_for_the_user(error: Exception) -> bool:
    """Whether the message says all: our own errors, the system's, and values that our own code refused."""
    if isinstance(error, Gen2RealError | CycloptsError | OSError) or type(error).__name__ == "OutOfMemoryError":
        return True
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    return isinstance(error, ValueError) and Path(raised_in).is_relative_to(Path(__file__).parent)


def _message(error: Exception) -> str:
    if isinstance(error, CycloptsError):
        return f"{error}\nSee: {' '.join(['gen2real', *_commands_of(sys.argv[1:]), '--help'])}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if type(error).__name__ == "OutOfMemoryError":
        less = "--batch-size 1" if "generate" in sys.argv[1:2] else "--set training.accumulation=2, or more"
        return f"{str(error).splitlines()[0]}\nTake a smaller part at a time: {less}."
    return str(error)


def _commands_of(words: Sequence[str]) -> list[str]:
    """The words at the beginning that are commands."""
    here, found = app, []
    for word in words:
        if word.startswith("-") or word not in here:
            break
        here = here[word]
        found.append(word)
    return found


def _is_first_process() -> bool:
    """Whether this is the one of torchrun's processes that speaks; torch itself is too heavy to be asked here."""
    return os.environ.get("RANK", "0") == "0"


def _end(kind: str, text: str, code: int) -> NoReturn:
    if "--json" in sys.argv and _is_first_process():
        print(json.dumps({"error": kind, "message": text}))
    print(f"gen2real: {text}", file=sys.stderr)
    raise SystemExit(code) from None


def _show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    print(f"gen2real: {'' if category is UserWarning else f'{category.__name__}: '}{message}", file=sys.stderr)


def _comparison(
    recipes: Sequence[Path],
    overrides: Sequence[str],
    seeds: int | None,
    output: Path | None,
    against: Sequence[str],
) -> CompareConfig:
    """The comparison of one recipe of method compare, or of several recipes that are arms."""
    from gen2real.config import load_recipe, parse_config
    from gen2real.errors import RecipeError
    from gen2real.methods import CONFIGS
    from gen2real.methods.settings import ClassificationConfig, CompareConfig
    from gen2real.recipe import Recipe, read_recipe

    if len(recipes) == 1 and read_recipe(recipes[0]).values.get("method") == "compare":
        given = {
            "seeds": None if seeds is None else list(range(seeds)),
            "output": None if output is None else str(output),
            "against": list(against) or None,
        }
        added = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
        config = load_recipe(recipes[0], {"compare": CompareConfig}, [*overrides, *added])
        assert isinstance(config, CompareConfig)
        return config
    if output is None:
        raise RecipeError("recipes that are arms need a folder for their runs and the table: add --output runs/NAME")
    arms: dict[str, Any] = {path.stem: {"recipe": str(path)} for path in recipes}
    if len(arms) < len(recipes):
        raise RecipeError("two recipes have the same file name; arms are named after their files, so rename one")
    first = CONFIGS.get(str(read_recipe(recipes[0]).values.get("method")))
    if "zero_shot" not in arms and first is not None and issubclass(first, ClassificationConfig):
        arms = {"zero_shot": {"recipe": str(recipes[0]), "reading": "zero_shot"}, **arms}
    changes = Recipe("gen2real compare")
    for text in overrides:
        changes.override(text)
    if changes.faults:
        raise RecipeError("\n".join(changes.faults))
    values = {
        "output": str(output),
        "seeds": list(range(5 if seeds is None else seeds)),
        "arms": arms,
        "set": changes.values,
        "against": list(dict.fromkeys(["zero_shot" if "zero_shot" in arms else recipes[0].stem, *against])),
    }
    return parse_config(CompareConfig, values, source="gen2real compare")


def _say(value: dict[str, Any], text: str, as_json: bool) -> None:
    print(json.dumps(value, allow_nan=False) if as_json else text)


def _two(found: Any, name: str) -> str:
    return f"{getattr(found.generated_diversity, name):.3g}, {getattr(found.real_diversity, name):.3g}"


def _tell(result: Result | Measured, page: str | None) -> None:
    """A finished run in a few lines."""
    from gen2real.methods.measured import Measured

    if isinstance(result, Measured):
        _tell_measures(result)
    else:
        print("\n".join(_top1_lines(result)))
    print(f"the run: {result.folder}")
    saved = result.folder / "model"
    print(f"the model: {saved}" if saved.exists() else "no model folder was asked for (save_model: false)")
    if page is not None:
        print(f"the report: {page}")


def _tell_measures(result: Measured) -> None:
    """Readings × measures, and what came out."""
    from gen2real.evaluation.statistics import Interval
    from gen2real.methods.measured_findings import measures_of, reading_name, verdict
    from gen2real.methods.measures import Measure

    lines = []
    for key in measures_of(result.summary):
        found = [reading["measures"].get(key) for reading in result.readings.values()]
        cells = ["–" if one is None else Measure(key).interval(Interval(**one)) for one in found]
        lines.append([Measure(key).heading, *cells])
    print_table(["measure", *map(reading_name, result.readings)], lines)
    print(verdict(result.summary, result.all_values))


def _top1_lines(result: Result) -> list[str]:
    lines = []
    for name, reading in result.readings.items():
        measured = reading.get("real") or reading["generated"]
        on = "real" if "real" in reading else f"generated ({result.summary['generated_pictures_are']})"
        top1 = measured["top1"]
        remark = "   best alpha on the real labels: a bound, not a result" if name == "oracle" else ""
        lines.append(
            f"{name:>24}  alpha {reading['alpha']:.2g}  top-1 on {on} "
            f"{100 * top1['mean']:.1f} % [{100 * top1['low']:.1f}, {100 * top1['high']:.1f}]{remark}"
        )
    return lines


if __name__ == "__main__":
    main()
