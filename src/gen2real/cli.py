"""The commands. Heavy packages are imported inside a command only, so that --help and recipe errors come at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

from cyclopts import App, CycloptsError, Parameter

from gen2real import __version__
from gen2real.errors import Gen2RealError

if TYPE_CHECKING:
    from gen2real.evaluation.classification import Classification
    from gen2real.methods.result import Result

app = App(
    name="gen2real",
    help="Train vision-language models on generated images so that they work on real ones.",
    version=__version__,
    version_flags=["--version"],
    default_parameter=Parameter(negative=()),
)

app.command("gen2real.cli_import:imports", name="import")

Json = Annotated[bool, Parameter(name="--json", help="one JSON object on standard output, for programs")]
Overrides = Annotated[
    tuple[str, ...], Parameter(name="--set", help="key=value over the recipe, as optimizer.lr=3e-5; may be repeated")
]
Policy = Annotated[
    Literal["error", "skip"], Parameter(help="pictures that do not decode: list all and stop, or leave them out")
]


@app.command
def export(
    image_set: Annotated[Path, Parameter(help="an image set")],
    out: Annotated[Path, Parameter(help="the folder of tars to make")],
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
    *,
    set: Overrides = (),
    dry_run: Annotated[
        bool, Parameter(help="say pictures, updates, hours, memory and disk, and spend nothing")
    ] = False,
    json: Json = False,
) -> None:
    """Run a recipe: any method. The same command again resumes an interrupted run and reads a finished one."""
    from gen2real.config import load_recipe
    from gen2real.methods import CONFIGS, run

    config = load_recipe(recipe, CONFIGS, set)
    if dry_run:
        from gen2real.methods.estimate import estimate

        foreseen = estimate(config)
        _say(foreseen.to_json(), foreseen.text(), json)
        return
    result = run(config, quiet=json)
    if result is not None:
        _say({"output": str(result.folder), **result.summary}, _told(result), json)


@app.command
def compare(
    recipes: Annotated[list[Path], Parameter(help="one recipe of method compare, or several of any methods")],
    /,
    *,
    set: Overrides = (),
    seeds: Annotated[int, Parameter(help="for several recipes: seeds 0 … N−1")] = 5,
    output: Annotated[Path | None, Parameter(help="for several recipes: where the runs and the table go")] = None,
    json: Json = False,
) -> None:
    """Run arms × seeds and print one table: means, intervals, paired tests. Finished runs are not done again."""
    from gen2real.config import load_recipe
    from gen2real.errors import RecipeError
    from gen2real.methods.settings import Arm, CompareConfig

    if len(recipes) == 1 and output is None:
        config = load_recipe(recipes[0], {"compare": CompareConfig}, set)
        assert isinstance(config, CompareConfig)
    elif output is None:
        raise RecipeError("several recipes need a folder for their runs and the table: add --output runs/NAME")
    elif set:
        raise RecipeError("--set changes one recipe of method compare; with several recipes, change the recipes")
    else:
        arms = {path.stem: Arm(recipe=path) for path in recipes}
        if len(arms) < len(recipes):
            raise RecipeError("two recipes have the same file name; arms are named after their files, so rename one")
        config = CompareConfig(output=output, seeds=tuple(range(seeds)), arms=arms)
    from gen2real.comparison import compare as run_comparison

    table = run_comparison(config, quiet=json, on_run=None if json else lambda line: print(line, file=sys.stderr))
    if json:
        _say(table.to_json(), "", json)
        return
    heads, lines = table.cells()
    _print_table(heads, lines)
    print(f"{config.output / 'table.md'}, table.csv and table.json hold the same.")


@app.command
def blend(
    original: Annotated[str, Parameter(help="a model folder, or the encoder that the tuning began from")],
    tuned: Annotated[Path, Parameter(help="a model folder that gen2real train wrote")],
    *,
    out: Annotated[Path, Parameter(help="the model folder to make")],
    alpha: Annotated[float, Parameter(help="0: original, 1: tuned")] = 0.5,
    evaluation: Annotated[Path | None, Parameter(help="a labelled set, to show the accuracy of each alpha")] = None,
    sweep: Annotated[tuple[float, ...], Parameter(help="alphas to show", consume_multiple=True)] = (
        0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0,
    ),
    json: Json = False,
) -> None:  # fmt: skip
    """Weight-space ensemble of two models: (1−alpha)·original + alpha·tuned, over every weight."""
    from gen2real.imagesets import ImageSet
    from gen2real.methods.finished import blend_models

    measured = None if evaluation is None else ImageSet.read(evaluation)
    made = blend_models(original, tuned, out, alpha=alpha, evaluation=measured, sweep=sweep)
    if not json:
        if made.sweep:
            lines = [[f"{value:g}", found.top1.percent(), found.top5.percent()] for value, found in made.sweep]
            _print_table(["alpha", "top-1", "top-5"], lines)
            print("An alpha chosen from this table is an oracle for that set.")
        print(f"{made.folder}: alpha {made.alpha:g}")
    else:
        _say(made.to_json(), "", json)


@app.command
def evaluate(
    model: Annotated[str, Parameter(help="a model folder, or a dual encoder by hub name or folder (zero-shot)")],
    image_set: Annotated[Path, Parameter(help="a labelled image set")],
    *,
    templates: Annotated[str, Parameter(help="prompts of the zero-shot head, by name")] = "simple",
    prompts: Annotated[Path | None, Parameter(help="a CuPL file, instead of templates")] = None,
    on_unreadable: Policy = "error",
    json: Json = False,
) -> None:
    """Measure a model on an image set: top-1 and top-5 with intervals, per class, calibration, confusions."""
    from gen2real.imagesets import ImageSet
    from gen2real.methods.finished import evaluate_model

    found = evaluate_model(
        model, ImageSet.read(image_set), templates=templates, file=prompts, on_unreadable=on_unreadable
    )
    if json:
        _say(found.to_json(), "", json)
    else:
        _print_classification(found)


@app.command
def gap(
    generated: Annotated[Path, Parameter(help="an image set")],
    real: Annotated[Path, Parameter(help="an image set")],
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
    _print_table(["measure", "value"], lines)
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
        _print_table(["", "what", "found"], [[marks[check.ok], check.name, check.found] for check in checks])
        for check in checks:
            if check.mend:
                print(f"{check.name}: {check.mend}")
    if bad:
        raise SystemExit(1)


def main() -> NoReturn:
    """The program. A user's mistake ends with its message and exit code 2, an interrupt with 130."""
    try:
        app(exit_on_error=False, print_error=False)
    except Gen2RealError as error:
        _fail(error, str(error))
    except CycloptsError as error:
        _fail(error, f"{error}\nSee: gen2real --help")
    except KeyboardInterrupt:
        print("interrupted; the same command again goes on from the last checkpoint", file=sys.stderr)
        raise SystemExit(130) from None
    raise SystemExit(0)


def _fail(error: Exception, text: str) -> NoReturn:
    if "--json" in sys.argv:
        print(json.dumps({"error": type(error).__name__, "message": text}, ensure_ascii=False))
    print(f"gen2real: {text}", file=sys.stderr)
    raise SystemExit(2) from None


def _say(value: dict[str, Any], text: str, as_json: bool) -> None:
    print(json.dumps(value, ensure_ascii=False, allow_nan=False) if as_json else text)


def _two(found: Any, name: str) -> str:
    return f"{getattr(found.generated_diversity, name):.3g}, {getattr(found.real_diversity, name):.3g}"


def _print_table(heads: list[str], lines: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(head)
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    Console(soft_wrap=not sys.stdout.isatty()).print(table)


def _print_classification(found: Classification) -> None:
    lines = [
        ["top-1", found.top1.percent()],
        ["top-5", found.top5.percent()],
        ["mean per class", f"{100 * found.mean_per_class:.1f} %"],
        ["calibration error", f"{found.calibration_error:.3f}"],
        ["pictures", str(found.count)],
    ]
    _print_table(["measure", "value"], lines)
    if found.confusions:
        print()
        rows = [[one.true_name, one.predicted_name, str(one.count)] for one in found.confusions[:10]]
        _print_table(["true", "taken for", "times"], rows)


def _told(result: Result) -> str:
    """A finished run in a few lines."""
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
    saved = result.folder / "model"
    end = f"the model: {saved}" if saved.exists() else "no model folder was asked for (save_model: false)"
    return "\n".join([*lines, f"the run: {result.folder}", end])


if __name__ == "__main__":
    main()
