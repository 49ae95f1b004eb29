"""The whole way from settings to an image set: plan, load, draw, write; and where it goes on after a kill."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from gen2real.errors import GenerationError, RecipeError
from gen2real.generation.drawing import Drawn, Painter
from gen2real.generation.generators import Generator, load_generator
from gen2real.generation.plan import PlannedPicture, make_plan, ordered, seed_of
from gen2real.generation.settings import GenerateConfig
from gen2real.generation.writer import SetWriter
from gen2real.imagesets.manifest import ImageSet
from gen2real.progress import WorkProgress

# Pixels in a batch, and pictures at most: more do not draw faster.
_BATCH = {"cuda": (16 * 512**2, 64), "cpu": (4 * 512**2, 16)}
# Bytes a pixel of a typical picture.
_BYTES = {"png": 2.2, "webp": 0.4}


@dataclass(frozen=True)
class Share:
    """Which of several processes this is: number `place` of `count`, from 0. `local` is its number on its machine."""

    place: int = 0
    count: int = 1
    local: int = 0

    @classmethod
    def of_environment(cls) -> Share:
        """As torchrun and accelerate launch say it; a process by itself has everything."""
        said = (os.environ.get(name, default) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
        return cls(*map(int, said))

    @classmethod
    def parse(cls, text: str) -> Share:
        """The share "0/4", the first of four. Raises: RecipeError for anything else."""
        place, slash, count = text.partition("/")
        if not (slash and place.isdecimal() and count.isdecimal() and int(place) < int(count)):
            raise RecipeError(f"a share is PLACE/COUNT with PLACE from 0, as 0/4 for the first of four; got {text!r}")
        return cls(int(place), int(count))


def generate(config: GenerateConfig, *, quiet: bool = False, share: Share | None = None) -> ImageSet | None:
    """Draws the image set of `config`, or goes on drawing it.

    share: which part of the pictures this process draws; by default what torchrun or accelerate launch says.

    Returns: the finished set; None where this process's part is done and another's is not.

    Raises: RecipeError where the output belongs to other settings or the generator is not the one it was begun with,
        ImageSetError for a source or an output folder that does not fit, ModelError for a generator that does not load,
        GenerationError where the disk is short.
    """
    share = share or Share.of_environment()
    plan = make_plan(config)
    writer = SetWriter(config, plan)
    if writer.finished:
        return writer.finish()
    done = writer.done()
    own = plan.share(share.place, share.count)
    written = sum(one.id in done for one in own)
    title = "drawing" if share.count == 1 else f"drawing (part {share.place} of {share.count})"
    with WorkProgress(title, start=written, total=len(own), quiet=quiet) as progress:
        for place, settings in enumerate(config.generators):
            pictures = ordered(one for one in own if one.generator == place)
            if all(one.id in done for one in pictures):
                continue
            generator = load_generator(settings, device=config.device, dtype=config.dtype, local_rank=share.local)
            _refuse_another_generator(generator, done.values())
            refuse_short_disk(config, generator, sum(one.id not in done for one in plan.pictures))
            writer.begin()
            for _ in draw_pictures(config, Painter(generator), pictures, writer, done):
                written += 1
                progress.update(written)
            del generator
    return writer.finish()


def batch_size_of(config: GenerateConfig, generator: Generator) -> int:
    """As asked, else as many pictures as fill the device."""
    return pictures_at_once(generator) if config.batch_size is None else config.batch_size


def pictures_at_once(generator: Generator) -> int:
    """As many pictures as fill the device: more do not draw faster."""
    pixels, most = _BATCH.get(generator.device.type, _BATCH["cpu"])
    return max(1, min(most, pixels // (generator.width * generator.height)))


def bytes_of_a_picture(config: GenerateConfig, generator: Generator) -> int:
    """What a typical picture takes on the disk."""
    return round(generator.width * generator.height * _BYTES[config.picture_format]) + 4096


def refuse_short_disk(config: GenerateConfig, generator: Generator, pictures: int) -> None:
    """Raises GenerationError where so many pictures do not fit on the disk of the output."""
    free = free_bytes(config)
    need = pictures * bytes_of_a_picture(config, generator)
    if need > free:
        raise GenerationError(
            f"the disk is short: {pictures:,} pictures of {generator.width} × {generator.height} need about "
            f"{need / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free where {config.output} lies. Free some space, "
            "choose another folder with --out, or fewer pictures; --format webp takes about a fifth."
        )


def free_bytes(config: GenerateConfig) -> int:
    """Free space where the output lies or will lie."""
    whole = config.output.absolute()
    return shutil.disk_usage(next(folder for folder in (whole, *whole.parents) if folder.exists())).free


def draw_pictures(
    config: GenerateConfig, painter: Painter, pictures: list[PlannedPicture], writer: SetWriter, done: Container[str]
) -> Iterator[None]:
    """Draws those of `pictures` that are not done; yields once a picture when its file and line are written.

    The batches are those of the whole list, whatever is done of it, so that a resumed generation ends with the bits of
    one in a piece: of a batch that a kill has cut, all is drawn and what was missing is kept. Pictures are encoded and
    written in a thread while the next batch is drawn.
    """
    size = batch_size_of(config, painter.generator)
    with ThreadPoolExecutor(1, thread_name_prefix="writer") as thread:
        waiting: deque[Future[int]] = deque()
        for start in range(0, len(pictures), size):
            batch = pictures[start : start + size]
            if all(one.id in done for one in batch):
                continue
            for one, found, seed, redraws in _sound(config, painter, batch):
                if one.id not in done:
                    row = {**painter.generator.provenance, "seed": seed, "redraws": redraws}
                    waiting.append(thread.submit(writer.store, one, found.pixels, row, _reason(found, redraws)))
            while len(waiting) > size:
                waiting.popleft().result()
                yield
        while waiting:
            waiting.popleft().result()
            yield


def _sound(
    config: GenerateConfig, painter: Painter, batch: list[PlannedPicture]
) -> Iterator[tuple[PlannedPicture, Drawn, int, int]]:
    """(picture, what was drawn, its seed, redraws): those with a fault again, until no redraw is left."""
    for redraws in range(config.max_redraws + 1):
        seeds = [seed_of(config.seed, one.id, redraws) for one in batch]
        drawn = list(zip(batch, painter.draw([one.prompt for one in batch], seeds), seeds, strict=True))
        batch = [] if redraws == config.max_redraws else [one for one, found, _ in drawn if found.fault is not None]
        yield from ((one, found, seed, redraws) for one, found, seed in drawn if one not in batch)
        if not batch:
            return


def _reason(found: Drawn, redraws: int) -> str | None:
    if found.fault is None:
        return None
    return f"{found.fault}, also after {redraws} redraw{'s' * (redraws != 1)}" if redraws else found.fault


def _refuse_another_generator(generator: Generator, rows: Iterable[dict[str, object]]) -> None:
    for row in rows:
        if row["generator"] == generator.name and row["generator_sha256"] != generator.content:
            raise RecipeError(
                f"{generator.name} is not the generator that this set was begun with: its files have changed since. "
                "Restore them, or give this generation a folder of its own with --out."
            )
