"""Pictures a second of drawing: `gen2real generate` and the plain diffusers loop, at equal steps and at equal quality.

    python benchmarks/speed/generate.py --out benchmarks/speed/results/generate-cpu.json        # the kit's generator
    python benchmarks/speed/generate.py --generator FOLDER --encoder FOLDER --reference SET     # any pipeline
    python benchmarks/speed/generate.py --shape sd15 --device cuda                              # random weights

The plain loop is what most scripts hold: the pipeline as it loads (float32, its own scheduler, its default number of
steps), one list of prompts in batches, `image.save` for each picture. Ours draws the same prompts through the code of
the command, with manifest rows, hashes and atomic files, in as large batches. Loading is not timed in either.

Equal quality: pictures are drawn with few and then more steps of our default scheduler until their kernel distance to
the reference set is not above the plain loop's by more than its interval. The arms take turns; medians are compared.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from finetune import machine, save

from gen2real.generation.drawing import Painter
from gen2real.generation.generating import batch_size_of, draw_pictures
from gen2real.generation.generators import Generator, load_generator
from gen2real.generation.plan import make_plan, ordered
from gen2real.generation.settings import GenerateConfig
from gen2real.generation.writer import SetWriter
from gen2real.imagesets import ImageSet
from gen2real.pipelines import libraries_quiet

CANDIDATES = (4, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50)


@dataclass
class Plain:
    """The plain loop."""

    pipeline: Any
    steps: int
    batch_size: int

    def draw(self, prompts: list[str], folder: Path) -> None:
        folder.mkdir()
        seeds = torch.Generator().manual_seed(0)
        for start in range(0, len(prompts), self.batch_size):
            batch = prompts[start : start + self.batch_size]
            images = self.pipeline(batch, num_inference_steps=self.steps, generator=seeds).images
            for number, image in enumerate(images, start=start):
                image.save(folder / f"{number:06d}.png")


@dataclass
class Ours:
    """The command's own loop, its pipeline loaded."""

    config: GenerateConfig
    generator: Generator

    def draw(self, prompts: list[str], folder: Path) -> None:
        captions = folder.with_suffix(".txt")
        captions.write_text("".join(f"{prompt}\n" for prompt in prompts), encoding="utf-8")
        config = self.config.model_copy(update={"source": captions, "output": folder})
        plan = make_plan(config)
        writer = SetWriter(config, plan)
        writer.begin()
        for _ in draw_pictures(config, Painter(self.generator), ordered(plan.pictures), writer, ()):
            pass
        assert writer.finish() is not None


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measures, prints the table, writes the JSON."""
    options = _options(argv)
    torch.set_num_threads(options.threads)
    command = " ".join(["python", "benchmarks/speed/generate.py", *sys.argv[1:]])
    report: dict[str, Any] = {"machine": {**machine(options), "command": command}, "rounds": []}
    report["options"] = {key: value for key, value in vars(options).items() if not isinstance(value, Path)}
    with tempfile.TemporaryDirectory() as made:
        room = Path(made)
        folder, encoder, reference = _what_to_draw(options, room)
        prompts = _prompts(options, reference)
        report["generator"] = {"shape": options.shape} if options.shape else {"name": folder.name}
        plain = _plain(options, folder)
        arms: dict[str, Plain | Ours] = {"plain": plain}
        arms["ours, equal steps"] = _ours(options, folder, plain, scheduler="native", steps=plain.steps)
        arms["ours, equal steps, float32"] = _ours(
            options, folder, plain, scheduler="native", steps=plain.steps, dtype="float32"
        )
        if encoder is not None and reference is not None:
            report["quality"] = quality(options, folder, plain, prompts, encoder, reference, room)
            steps = report["quality"]["steps"]
            if steps is not None:
                arms["ours, equal quality"] = _ours(options, folder, plain, scheduler="auto", steps=steps)
        save(report, options.out)
        for number in range(options.rounds):
            row: dict[str, Any] = {"round": number, "load_before": round(os.getloadavg()[0], 2)}
            for name, arm in arms.items():
                if number == 0:
                    arm.draw(prompts[: plain.batch_size], room / f"warm-{len(list(room.iterdir()))}")
                began, cpu = time.perf_counter(), time.process_time()
                arm.draw(prompts[: options.pictures], room / f"{number}-{len(list(room.iterdir()))}")
                spent = time.perf_counter() - began, time.process_time() - cpu
                row[name] = {"a_second": options.pictures / spent[0], "cpu_seconds": spent[1] / options.pictures}
                print(f"  round {number + 1}  {name:<28}{row[name]['a_second']:8.2f} pictures/s", flush=True)
            report["rounds"].append(row)
            save(report, options.out)
    report |= summary(report["rounds"], list(arms))
    print(table(report))
    save(report, options.out)
    return report


def quality(
    options: argparse.Namespace,
    folder: Path,
    plain: Plain,
    prompts: list[str],
    encoder: Path,
    reference: ImageSet,
    room: Path,
) -> dict[str, Any]:
    """The kernel distance of the plain loop's pictures and of ours, by steps; the fewest that are no worse.

    The interval is two standard deviations of the distance over random halves, scaled to the size of the whole.
    """
    from gen2real.evaluation.distances import kernel_distance
    from gen2real.evaluation.features import encode_pictures
    from gen2real.imagesets import Pictures
    from gen2real.models import load_dual_encoder

    eye = load_dual_encoder(str(encoder))

    def features(image_set: ImageSet) -> torch.Tensor:
        return encode_pictures(eye.vision, Pictures(image_set, eye.preprocess))

    real = features(reference)
    asked = [prompts[place % len(prompts)] for place in range(options.quality_pictures)]

    def distance(draw: Callable[[list[str], Path], None], name: str) -> dict[str, float]:
        draw(asked, room / name)
        paths = sorted((room / name).rglob("*.png"))
        rows = [{"id": path.stem, "path": str(path), "origin": "generated"} for path in paths]
        drawn = ImageSet.write(room / f"{name}-set", rows, ())
        half = min(len(rows), len(real)) // 2
        found = kernel_distance(features(drawn), real, subsets=100, subset_size=half)
        return {"mean": found.mean, "interval": 2 * found.std * 0.5**0.5}

    measured = {"plain": distance(plain.draw, "plain")}
    worst = measured["plain"]["mean"] + measured["plain"]["interval"]
    chosen = None
    for steps in options.candidates:
        ours = _ours(options, folder, plain, scheduler="auto", steps=steps)
        measured[f"ours in {steps}"] = distance(ours.draw, f"ours-{steps}")
        print(f"  {steps} steps: {measured[f'ours in {steps}']['mean']:.5g}; to beat {worst:.5g}", flush=True)
        if measured[f"ours in {steps}"]["mean"] <= worst:
            chosen = steps
            break
    return {"distances": measured, "at_most": worst, "steps": chosen, "pictures": len(asked), "real": len(real)}


def summary(rounds: list[dict[str, Any]], arms: list[str]) -> dict[str, Any]:
    """Medians over the rounds, and each arm against the plain loop, round by round."""
    rates = {
        name: {unit: median(row[name][unit] for row in rounds) for unit in ("a_second", "cpu_seconds")} for name in arms
    }
    return {
        "arms": rates,
        "times_plain": {
            name: median(row[name]["a_second"] / row["plain"]["a_second"] for row in rounds) for name in arms
        },
        "times_plain_by_cpu_seconds": {
            name: median(row["plain"]["cpu_seconds"] / row[name]["cpu_seconds"] for row in rounds) for name in arms
        },
    }


def table(report: dict[str, Any]) -> str:
    """What a person reads."""
    lines = [f"\n{'':<30}{'pictures/s':>12}{'CPU s/picture':>15}{'× plain':>10}{'× by CPU s':>12}"]
    for name, rate in report["arms"].items():
        lines.append(
            f"{name:<30}{rate['a_second']:>12.2f}{rate['cpu_seconds']:>15.3f}{report['times_plain'][name]:>10.2f}"
            f"{report['times_plain_by_cpu_seconds'][name]:>12.2f}"
        )
    if "quality" in report:
        found = report["quality"]
        told = ", ".join(f"{name} {one['mean']:.4g}" for name, one in found["distances"].items())
        lines.append(f"\nkernel distance to {found['real']} reference pictures: {told}; at most {found['at_most']:.4g}")
        if found["steps"] is None:
            lines.append("No number of steps tried was as good as the plain loop.")
    return "\n".join(lines)


def _what_to_draw(options: argparse.Namespace, room: Path) -> tuple[Path, Path | None, ImageSet | None]:
    """The pipeline's folder, and for the quality the encoder's and the reference set."""
    reference = None if options.reference is None else ImageSet.read(options.reference)
    if options.shape is not None:
        return _random_pipeline(room / "pipeline", options.seed), None, reference
    if options.generator is not None and options.quality_pictures == 0:
        return options.generator, None, reference
    from gen2real import kit

    if reference is None:
        from gen2real.kit.world import write_image_set

        reference = write_image_set(room / "reference", "web", "validation", options.quality_pictures)
    return options.generator or kit.folder("generator"), options.encoder or kit.folder("clip"), reference


def _prompts(options: argparse.Namespace, reference: ImageSet | None) -> list[str]:
    if options.prompts is not None:
        found = [line.strip() for line in options.prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
    elif reference is not None:
        found = [captions[0] for captions in reference.captions if captions]
    else:
        found = [f"a photo of thing number {number}" for number in range(16)]
    return [found[place % len(found)] for place in range(max(options.pictures, options.quality_pictures))]


def _plain(options: argparse.Namespace, folder: Path) -> Plain:
    import inspect

    from diffusers import DiffusionPipeline

    with libraries_quiet():
        pipeline = DiffusionPipeline.from_pretrained(str(folder)).to(options.device)
    pipeline.set_progress_bar_config(disable=True)
    default = inspect.signature(type(pipeline).__call__).parameters["num_inference_steps"].default
    plain = Plain(pipeline, options.steps or default, options.batch_size or 1)
    if options.batch_size is None:
        plain.batch_size = batch_size_of(_config(options, folder), _ours(options, folder, plain).generator)
    return plain


def _ours(options: argparse.Namespace, folder: Path, plain: Plain, dtype: str = "auto", **drawing: Any) -> Ours:
    config = _config(options, folder, dtype=dtype, batch_size=plain.batch_size, drawing=drawing)
    return Ours(config, load_generator(config.generators[0], device=options.device, dtype=dtype))


def _config(
    options: argparse.Namespace, folder: Path, *, drawing: dict[str, Any] | None = None, **changes: Any
) -> GenerateConfig:
    values = {"source": "prompts.txt", "output": "set", "per_caption": 1, "device": options.device, **changes}
    return GenerateConfig.model_validate(values | {"generators": [{"name": str(folder), **(drawing or {})}]})


def _random_pipeline(folder: Path, seed: int) -> Path:
    """Stable Diffusion 1.5's shapes with random weights: how fast it draws does not depend on what."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from stage import clip_tokenizer
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    tokenizer, ids = clip_tokenizer()
    text = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768, **ids
    )
    channels = (128, 256, 512, 512)
    vae = AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", type=Path, help="a pipeline's folder; the kit's if not given")
    parser.add_argument("--shape", choices=("sd15",), help="a pipeline of these shapes with random weights instead")
    parser.add_argument("--encoder", type=Path, help="whose features the kernel distance compares; the kit's CLIP")
    parser.add_argument("--reference", type=Path, help="real pictures, an image set; the kit's web validation scenes")
    parser.add_argument("--prompts", type=Path, help="one a line; the reference set's captions if not given")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pictures", type=int, default=64, help="timed in each arm and round")
    parser.add_argument("--quality-pictures", type=int, default=1000, help="for each kernel distance; 0: speed alone")
    parser.add_argument("--candidates", type=int, nargs="+", default=CANDIDATES, help="steps of ours to try, upwards")
    parser.add_argument("--steps", type=int, help="of the plain loop; the pipeline's default (50) if not given")
    parser.add_argument("--batch-size", type=int, help="in every arm; what ours chooses if not given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file with every sample")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
