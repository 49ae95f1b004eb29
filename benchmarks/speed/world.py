"""The kit's world: pictures, sentences, image sets and training batches a second, on one core.

    taskset -c 0 python benchmarks/speed/world.py --out benchmarks/speed/results/world.json

Every measurement is taken once a round, the rounds follow each other, medians are told. Batches are made as training
makes them (decode, random crop, normalise) by our loader with one and two threads, and the plain way: Pillow and
transformers' `CLIPImageProcessorPil`, one picture after the other, without any random crop.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from finetune import machine, save
from PIL import Image
from transformers import CLIPImageProcessorPil

from gen2real.imagesets import Augmentation, ImageSet, Pictures, Preprocess, prefetch
from gen2real.imagesets.seeds import row_generator
from gen2real.kit.world import (
    Scene,
    caption,
    hard_negatives,
    long_caption,
    noisy_caption,
    questions,
    render,
    sample_scene,
    sample_story,
    write_image_set,
)

_BATCH = 64
_SIDE = 64
_MARK = 200


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measures, prints the table, writes the JSON."""
    options = _options(argv)
    torch.set_num_threads(1)
    report: dict[str, Any] = {"machine": {**machine(options), "command": _command()}, "rounds": []}
    report["options"] = {key: value for key, value in vars(options).items() if key not in ("out", "device")}
    with tempfile.TemporaryDirectory() as made:
        room = Path(made)
        pictures = write_image_set(room / "read", "web", "validation", options.pictures)
        for number in range(options.rounds):
            jobs = _jobs(options.pictures, room / f"written-{number}", pictures)
            row: dict[str, Any] = {"round": number, "load_before": round(os.getloadavg()[0], 2)}
            for name, job in jobs.items():
                began, cpu = time.perf_counter(), time.process_time()
                job()
                spent = time.perf_counter() - began, time.process_time() - cpu
                row[name] = {"a_second": options.pictures / spent[0], "a_cpu_second": options.pictures / spent[1]}
            report["rounds"].append(row)
            save(report, options.out)
    report |= summary(report["rounds"])
    print(table(report))
    save(report, options.out)
    return report


def _jobs(count: int, folder: Path, pictures: ImageSet) -> dict[str, Callable[[], object]]:
    """What is timed; each job deals with `count` pictures, scenes or stories."""
    numbers = range(count)
    scenes = [sample_scene("web", "validation", number) for number in numbers]
    random = np.random.default_rng(0)

    def each(say: Callable[[Scene], object]) -> Callable[[], object]:
        return lambda: [say(scene) for scene in scenes]

    return {
        "sample_scene": lambda: [sample_scene("home", "test", number) for number in numbers],
        "render web": lambda: render([sample_scene("web", "test", number) for number in numbers]),
        "render home": lambda: render([sample_scene("home", "test", number) for number in numbers]),
        "caption": each(lambda scene: caption(scene, random)),
        "noisy_caption": each(lambda scene: noisy_caption(scene, random, 0.2)),
        "long_caption": each(long_caption),
        "hard_negatives": each(lambda scene: hard_negatives(scene, random)),
        "questions": each(questions),
        "sample_story": lambda: [sample_story("home", "test", number) for number in numbers],
        "write_image_set": lambda: write_image_set(folder, "web", "test", count),
        "batches, one by one": lambda: plain_batches(pictures),
        "batches, ours, 1 worker": lambda: our_batches(pictures, workers=1),
        "batches, ours, 2 workers": lambda: our_batches(pictures, workers=2),
    }


def our_batches(pictures: ImageSet, *, workers: int) -> int:
    """One epoch of training batches, decoded anew, cropped at random and normalised."""
    preprocess = Preprocess(size=_SIDE)
    reader = Pictures(pictures, preprocess, augmentation=Augmentation(), cache="none")
    starts = range(0, len(pictures), _BATCH)

    def batch(step: int) -> torch.Tensor:
        rows = range(starts[step], min(starts[step] + _BATCH, len(pictures)))
        return preprocess.normalize(reader.training(rows, row_generator(0, step)))

    return sum(len(made) for made in prefetch(batch, range(len(starts)), workers=workers))


def plain_batches(pictures: ImageSet) -> int:
    """The same pictures as most scripts read them."""
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": _SIDE}, crop_size={"height": _SIDE, "width": _SIDE}, do_convert_rgb=True
    )
    done = 0
    for start in range(0, len(pictures), _BATCH):
        rows = []
        for path in pictures.paths[start : start + _BATCH]:
            with Image.open(path) as picture:
                rows.append(processor(picture, return_tensors="pt")["pixel_values"][0])
        done += len(torch.stack(rows))
    return done


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds, and what is asked of them."""
    names = [name for name in rounds[0] if name not in ("round", "load_before")]
    rates = {
        name: {unit: median(row[name][unit] for row in rounds) for unit in ("a_second", "a_cpu_second")}
        for name in names
    }
    plain = rates["batches, one by one"]
    return {
        "rates": rates,
        "times_one_by_one": {
            workers: {unit: rates[f"batches, ours, {workers}"][unit] / plain[unit] for unit in plain}
            for workers in ("1 worker", "2 workers")
        },
        "renders_a_cpu_second_at_least": min(rates[f"render {name}"]["a_cpu_second"] for name in ("web", "home")),
        "mark": _MARK,
    }


def table(report: dict[str, Any]) -> str:
    """What a person reads."""
    lines = [f"\n{'':<28}{'a second':>12}{'a CPU second':>15}"]
    for name, rate in report["rates"].items():
        lines.append(f"{name:<28}{rate['a_second']:>12,.0f}{rate['a_cpu_second']:>15,.0f}")
    loads = ", ".join(f"{row['load_before']:g}" for row in report["rounds"])
    ratios = ", ".join(
        f"{ratio['a_second']:.2f} × a second and {ratio['a_cpu_second']:.2f} × a CPU second with {workers}"
        for workers, ratio in report["times_one_by_one"].items()
    )
    lines += [
        "",
        f"renderer, scene included: {report['renders_a_cpu_second_at_least']:,.0f} pictures a CPU second in the slower "
        f"domain; the mark is {_MARK}",
        f"batches against one by one: {ratios}",
        f"load average before each round: {loads}",
    ]
    return "\n".join(lines)


def _command() -> str:
    return " ".join(["python", "benchmarks/speed/world.py", *sys.argv[1:]])


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=500, help="rendered, written, read in each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="a JSON file with every sample")
    parser.set_defaults(device="cpu", threads=1)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
