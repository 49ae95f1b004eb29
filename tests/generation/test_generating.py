"""Whole sets: what is in the manifest and in each file, blank pictures, several generators, a short disk, one again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

import gen2real
from gen2real.errors import GenerationError, ImageSetError
from gen2real.files import sha256_of
from gen2real.generation import GenerateConfig, estimate, generate, read_provenance, redraw
from gen2real.generation.drawing import Drawn, Painter
from gen2real.generation.generators import content_of
from gen2real.generation.pictures import encode_picture
from gen2real.generation.plan import seed_of
from gen2real.imagesets import ImageSet, decode, perceptual_hash
from gen2real.pipelines import libraries_quiet

Make = Callable[..., GenerateConfig]


@pytest.fixture(scope="module")
def broken(sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline whose decoder gives grey, whatever it is given."""
    folder = shutil.copytree(sd, tmp_path_factory.mktemp("broken") / "sd")
    with libraries_quiet():
        vae = AutoencoderKL.from_pretrained(folder / "vae")
        with torch.no_grad():
            vae.decoder.conv_out.weight.zero_()
            vae.decoder.conv_out.bias.zero_()
        vae.save_pretrained(folder / "vae")
    return folder


def made(config: GenerateConfig) -> ImageSet:
    found = generate(config, quiet=True)
    assert found is not None
    return found


def test_a_row_says_all_that_made_its_picture(config: Make, sd: Path) -> None:
    drawing = {"negative_prompt": "dark", "guidance": 3.0, "scheduler": "ddim"}
    found = made(config(drawing=drawing, seed=5))
    assert (len(found), len(found.kept()), found.class_names) == (6, 6, ["cat", "red dog", "F-16A/B"])
    row = list(found.rows())[3]
    path = found.root / row["path"]
    pixels = np.asarray(decode(path))
    versions = row.pop("versions")
    assert f"gen2real={gen2real.__version__} torch={torch.__version__} diffusers=" in versions
    assert row == {
        "id": "red-dog/00001",
        "path": "pictures/red-dog/00001.png",
        "origin": "generated",
        "label": "red-dog",
        "captions": ["a photo of a red dog."],
        "pair_id": None,
        "prompt": "a photo of a red dog.",
        "negative_prompt": "dark",
        "seed": seed_of(5, "red-dog/00001"),
        "generator": str(sd),
        "guidance": 3.0,
        "steps": 2,
        "sha256": sha256_of(path),
        "phash": perceptual_hash(Image.fromarray(pixels)),
        "kept": True,
        "wording": 0,
        "caption_row": None,
        "generator_revision": None,
        "generator_sha256": content_of(sd),
        "scheduler": "ddim",
        "width": 32,
        "height": 32,
        "dtype": "float32",
        "redraws": 0,
        "reason": None,
    }
    assert len({one["sha256"] for one in found.rows()}) == 6


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_the_file_says_it_too(config: Make, kind: str) -> None:
    found = made(config(picture_format=kind, per_class=1, templates="{} – “très” 猫"))
    for row, path in zip(found.rows(), found.paths, strict=True):
        assert path.suffix == f".{kind}"
        said = read_provenance(path)
        assert said == {key: row[key] for key in said}
        assert {"id", "prompt", "seed", "generator", "generator_sha256", "steps", "scheduler", "versions"} <= set(said)
        with Image.open(path) as picture:
            assert picture.format == kind.upper()
            if kind == "png":
                assert picture.info["Description"] == row["prompt"]


def test_a_picture_from_elsewhere_says_nothing(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    with pytest.raises(ImageSetError, match="does not say what drew it"):
        read_provenance(tmp_path / "plain.png")


def test_equal_pictures_are_equal_files(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert encode_picture(pixels, "png", {"seed": 1}) == encode_picture(pixels, "png", {"seed": 1})
    assert encode_picture(pixels, "png", {"seed": 1}) != encode_picture(pixels, "png", {"seed": 2})


def test_captions_of_a_set_are_paired_with_its_rows(config: Make, tmp_path: Path) -> None:
    from tiny_sets import colour_set

    real = colour_set(tmp_path / "real", origin="real", per_class=1)
    found = made(config(source=real.root, per_class=None))
    assert [(row["pair_id"], row["label"], row["captions"]) for row in found.rows()] == [
        (row["id"], row["label"], row["captions"]) for row in real.rows()
    ]
    assert {row["path"].split("/")[1] for row in found.rows()} == {"red", "green", "blue", "f-16a-b"}


def test_several_generators_draw_one_set(config: Make, sd: Path, xl: Path) -> None:
    generators = [{"name": str(sd), "steps": 2}, {"name": str(xl), "steps": 1, "width": 48, "height": 40}]
    found = made(config(generators=generators))
    rows = list(found.rows())
    assert [row["generator"] for row in rows] == [str(sd), str(xl)] * 3
    assert [(row["steps"], row["width"], row["height"]) for row in rows[:2]] == [(2, 32, 32), (1, 48, 40)]
    assert [decode(path).size for path in found.paths[:2]] == [(32, 32), (48, 40)]


def test_a_blank_picture_is_drawn_with_its_next_seed(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(batch_size=2)
    bad = {seed_of(0, "cat/00001", 0), seed_of(0, "f-16a-b/00000", 0), seed_of(0, "f-16a-b/00000", 1)}
    draw = Painter.draw

    def sometimes_blank(self: Painter, prompts: Any, seeds: Any, **more: Any) -> list[Drawn]:
        found = draw(self, prompts, seeds, **more)
        return [
            Drawn(np.zeros_like(one.pixels), "blank") if seed in bad else one
            for one, seed in zip(found, seeds, strict=True)
        ]

    monkeypatch.setattr(Painter, "draw", sometimes_blank)
    found = made(settings)
    monkeypatch.setattr(Painter, "draw", draw)
    redraws = {row["id"]: row["redraws"] for row in found.rows()}
    assert redraws == {
        "cat/00000": 0, "cat/00001": 1, "red-dog/00000": 0, "red-dog/00001": 0, "f-16a-b/00000": 2, "f-16a-b/00001": 0,
    }  # fmt: skip
    for row in found.rows():
        assert row["seed"] == seed_of(0, row["id"], row["redraws"])
        assert (row["kept"], row["reason"]) == (True, None)
    assert redraw(found, "f-16a-b/00000").largest_difference <= 1


def test_what_stays_blank_is_kept_on_record(config: Make, broken: Path) -> None:
    found = made(config(generators=[{"name": str(broken), "steps": 1}], max_redraws=2))
    assert (len(found), len(found.kept())) == (6, 0)
    for row in found.rows():
        assert (row["kept"], row["reason"], row["redraws"]) == (False, "blank, also after 2 redraws", 2)
        assert row["seed"] == seed_of(0, row["id"], 2)
        assert (found.root / row["path"]).is_file()


class Fault(NamedTuple):
    """What is done to a pipeline, and what a row says then."""

    harm: Callable[[Any], Any]
    reason: str


def _not_a_number(pipeline: Any) -> None:
    with torch.no_grad():
        pipeline.unet.conv_out.bias.fill_(float("nan"))


def _refuses(pipeline: Any) -> None:
    """As diffusers' safety checker does: black, and a word about it."""
    pipeline.run_safety_checker = lambda image, *_: (torch.zeros_like(image), [True] * len(image))


@pytest.mark.parametrize(
    "fault",
    [Fault(_not_a_number, "not a number"), Fault(_refuses, "refused by the pipeline's safety checker")],
    ids=lambda fault: fault.reason,
)
def test_nothing_fails_in_silence(config: Make, monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    from gen2real.generation import generating

    load = generating.load_generator

    def harmed(*given: Any, **named: Any) -> Any:
        generator = load(*given, **named)
        fault.harm(generator.pipeline)
        return generator

    monkeypatch.setattr(generating, "load_generator", harmed)
    found = made(config(per_class=1, max_redraws=0))
    assert [(row["kept"], row["reason"]) for row in found.rows()] == [(False, fault.reason)] * 3


def test_a_short_disk_is_told_before_anything_is_drawn(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=20_000))
    with pytest.raises(GenerationError, match=r"6 pictures of 32 × 32 need about 0\.00 GB, and 0\.00 GB are free"):
        generate(config(), quiet=True)
    assert not (tmp_path / "set").exists()
    assert estimate(config()).text().endswith("free some space, or choose another folder.")


def test_the_estimate_counts_what_is_left(config: Make, tmp_path: Path, sd: Path, xl: Path) -> None:
    from gen2real.generation.generating import Share
    from gen2real.generation.plan import make_plan

    settings = config(generators=[{"name": str(sd), "steps": 4}, {"name": str(xl), "steps": 2}], batch_size=2)
    found = estimate(settings)
    assert not (tmp_path / "set").exists()
    assert (found.planned, found.pictures, [part.pictures for part in found.parts]) == (6, 6, [3, 3])
    assert [(part.steps, part.batch_size, part.scheduler) for part in found.parts] == [(4, 2, "dpm++"), (2, 2, "dpm++")]
    assert found.hours == pytest.approx(sum(3 * part.seconds_per_picture for part in found.parts) / 3600)
    assert all(part.seconds_per_picture > 0 for part in found.parts)
    # By hand: 2.2 bytes a pixel and 4 KiB.
    assert found.disk_gb == pytest.approx(6 * (round(32 * 32 * 2.2) + 4096) / 1e9)
    assert found.memory_gb > 0.1
    assert "6 pictures to draw" in found.text()
    assert generate(settings, quiet=True, share=Share(0, 2)) is None
    there = len(make_plan(settings).share(0, 2))
    later = estimate(settings)
    assert later.pictures == 6 - there
    assert f"{6 - there} pictures to draw, {there} are there already" in later.text()


def test_a_picture_again_from_its_row(config: Make, sd: Path, tmp_path: Path) -> None:
    found = made(config(drawing={"scheduler": "dpm++sde", "guidance": 3.0, "negative_prompt": "dark"}))
    again = redraw(found, "red-dog/00001")
    assert again.largest_difference is not None
    assert again.largest_difference <= 1
    assert again.row["seed"] == seed_of(0, "red-dog/00001")
    moved = shutil.copytree(sd, tmp_path / "moved")
    assert redraw(found, "cat/00000", generator=str(moved)).largest_difference <= 1  # type: ignore[operator]
    (moved / "model_index.json").write_text((moved / "model_index.json").read_text() + " ")
    with pytest.raises(GenerationError, match="its files differ"):
        redraw(found, "cat/00000", generator=str(moved))
    with pytest.raises(ImageSetError, match="did you mean 'cat/00001'"):
        redraw(found, "cat/0001")
    found.paths[0].unlink()
    assert redraw(found, "cat/00000").largest_difference is None


def test_a_set_of_another_maker_cannot_be_redrawn(tmp_path: Path) -> None:
    from tiny_sets import colour_set

    with pytest.raises(ImageSetError, match="does not say prompt, seed, generator"):
        redraw(colour_set(tmp_path / "s", per_class=1), "red-0")
