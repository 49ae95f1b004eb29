"""gen2real generate: class names or captions become an image set, drawn by any text-to-image pipeline of diffusers."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from gen2real.cli_options import Json
from gen2real.config import load_recipe, parse_config
from gen2real.errors import RecipeError
from gen2real.generation.settings import SCHEDULERS, GenerateConfig
from gen2real.recipe import Recipe

if TYPE_CHECKING:
    from gen2real.imagesets import ImageSet

_RECIPES = (".yaml", ".yml")


def generate(
    source: Annotated[
        Path, Parameter(help="class names (.txt), captions (.jsonl .csv .tsv .txt), an image set, or a recipe (.yaml)")
    ],
    /,
    *,
    generator: Annotated[
        tuple[str, ...],
        Parameter(help="a pipeline's folder or hub name; several share the pictures", show_default=False),
    ] = (),
    out: Annotated[Path | None, Parameter(help="the image set to make")] = None,
    per_class: Annotated[int | None, Parameter(help="pictures of each class name [default: 10]")] = None,
    per_caption: Annotated[int | None, Parameter(help="pictures of each caption [default: 1]")] = None,
    templates: Annotated[str | None, Parameter(help="by name, or one with {} [default: simple]")] = None,
    prompts: Annotated[Path | None, Parameter(help="a CuPL file instead of templates")] = None,
    scheduler: Annotated[str | None, Parameter(help=f"{' '.join(SCHEDULERS)} [default: auto]")] = None,
    steps: Annotated[int | None, Parameter(help="denoising steps [default: 20, or the pipeline's]")] = None,
    guidance: Annotated[float | None, Parameter(help="[default: the pipeline's]")] = None,
    negative_prompt: Annotated[str | None, Parameter(help="what no picture shall show")] = None,
    size: Annotated[str | None, Parameter(help="512, or 768x512 [default: the pipeline's]")] = None,
    format: Annotated[Literal["png", "webp"] | None, Parameter(help="[default: png]")] = None,
    seed: Annotated[int | None, Parameter(help="[default: 0]")] = None,
    batch_size: Annotated[int | None, Parameter(help="[default: what fills the device]")] = None,
    device: Annotated[str | None, Parameter(help="[default: auto]")] = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"] | None, Parameter(help="[default: auto]")
    ] = None,
    share: Annotated[str | None, Parameter(help="0/4: the first quarter, on the first of four machines")] = None,
    set: Annotated[
        tuple[str, ...],
        Parameter(name="--set", help="key=value, as max_redraws=5; may be repeated", show_default=False),
    ] = (),
    redraw: Annotated[str | None, Parameter(help="one picture of the image set SOURCE, by its id, into --out")] = None,
    dry_run: Annotated[
        bool, Parameter(help="say pictures, hours, memory and disk, and draw nothing", show_default=False)
    ] = False,
    json: Json = False,
) -> None:
    """Draw an image set. The same command again goes on with an interrupted one."""
    if redraw is not None:
        _redraw(source, redraw, generator[0] if generator else None, out, device, json)
        return
    written: dict[str, Any] = {
        "per_class": per_class,
        "per_caption": per_caption,
        "templates": templates,
        "prompts": None if prompts is None else str(prompts),
        "picture_format": format,
        "seed": seed,
        "batch_size": batch_size,
        "device": device,
        "dtype": dtype,
    }
    drawing = {"scheduler": scheduler, "steps": steps, "guidance": guidance, "negative_prompt": negative_prompt}
    drawing |= _sides(size)
    config = _config(source, generator, out, _given(written), _given(drawing), set)
    draw(config, share=share, dry_run=dry_run, json=json)


def draw(config: GenerateConfig, *, share: str | None = None, dry_run: bool = False, json: bool = False) -> None:
    """Draws the set of `config` and says so; with `dry_run` says what it would cost. share: as typed, "0/4"."""
    if dry_run:
        from gen2real.generation.cost import estimate

        foreseen = estimate(config)
        print(jsonlib.dumps(foreseen.to_json()) if json else foreseen.text())
        return
    from gen2real.generation.generating import Share
    from gen2real.generation.generating import generate as run

    part = Share.of_environment() if share is None else Share.parse(share)
    made = run(config, quiet=json or (share is None and part.place > 0), share=part)
    # Of the processes of one launcher, the first one speaks for programs, and whoever ends the set for people.
    if share is not None or part.place == 0 or (made is not None and not json):
        _report(made, config, json)


def _config(
    source: Path,
    generators: tuple[str, ...],
    out: Path | None,
    written: dict[str, Any],
    drawing: dict[str, Any],
    overrides: tuple[str, ...],
) -> GenerateConfig:
    """The settings: a recipe with what was typed laid over it, or what was typed alone."""
    if source.suffix in _RECIPES:
        if drawing:
            typed = ", ".join(f"generators.0.{key}={value}" for key, value in drawing.items())
            raise RecipeError(f"in a recipe each generator has settings of its own; type --set {typed}")
        changes = {**written, **({"output": str(out)} if out else {})}
        if generators:
            changes["generators"] = list(generators)
        typed_over = [f"{key}={jsonlib.dumps(value)}" for key, value in changes.items()]
        config = load_recipe(source, {"generate": GenerateConfig}, [*overrides, *typed_over])
        assert isinstance(config, GenerateConfig)
        return config
    missing = [option for option, value in (("--generator", generators), ("--out", out)) if not value]
    if missing:
        raise RecipeError(
            f"{' and '.join(missing)} missing; for example: gen2real generate {source} "
            "--generator runwayml/stable-diffusion-v1-5 --out sets/drawn"
        )
    drawn_by = [{"name": name, **drawing} for name in generators]
    values = {"source": str(source), "output": str(out), **written, "generators": drawn_by}
    whole = Recipe("gen2real generate", values=values)
    for text in overrides:
        whole.override(text)
    if whole.faults:
        raise RecipeError("\n".join(whole.faults))
    return parse_config(GenerateConfig, whole.values, source="gen2real generate")


def _report(made: ImageSet | None, config: GenerateConfig, as_json: bool) -> None:
    if made is None:
        found: dict[str, Any] = {"set": str(config.output), "finished": False}
        text = f"{config.output}: this part is done; the set is whole when the other parts are, and says so then"
    else:
        kept = len(made.kept())
        found = {"set": str(made.root), "finished": True, "pictures": len(made), "kept": kept}
        found["classes"] = len(made.classes)
        failed = len(made) - kept
        text = f"{made.root}: {len(made)} pictures, {len(made.classes)} classes"
        text += f"; {failed} stayed blank after {config.max_redraws} redraws and are not kept" if failed else ""
    print(jsonlib.dumps(found) if as_json else text)


def _redraw(
    source: Path, picture_id: str, generator: str | None, out: Path | None, device: str | None, as_json: bool
) -> None:
    if out is None:
        raise RecipeError(f"where shall the picture go? Add --out {picture_id.rpartition('/')[2]}.png")
    kind = out.suffix.lower().removeprefix(".")
    if kind not in ("png", "webp"):
        raise RecipeError(f"--out {out}: expected a file that ends in .png or .webp")
    from gen2real.files import atomic_file
    from gen2real.generation.redrawing import redraw
    from gen2real.imagesets import ImageSet

    found = redraw(ImageSet.read(source), picture_id, generator=generator, device=device or "auto")
    with atomic_file(out) as partial:
        partial.write_bytes(found.encode(kind))
    off = found.largest_difference
    said = {None: "the stored one is not there", 0: "the same as the stored one"}.get(
        off, f"by {off} of 255 levels at most different from the stored one"
    )
    value = {"picture": str(out), "id": picture_id, "seed": found.row["seed"], "largest_difference": off}
    print(jsonlib.dumps(value) if as_json else f"{out}: {picture_id} drawn again, {said}")


def _sides(size: str | None) -> dict[str, Any]:
    if size is None:
        return {}
    sides = size.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise RecipeError(f"--size {size}: expected a side in pixels, as 512, or width and height, as 768x512")
    return {"width": int(sides[0]), "height": int(sides[-1])}


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
