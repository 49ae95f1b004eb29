"""The captioned pictures of one domain: both models' views of them, their texts, and batches by update number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from gen2real.errors import ImageSetError
from gen2real.evaluation.retrieval import caption_positives
from gen2real.imagesets.loading import Pictures, prefetch
from gen2real.imagesets.manifest import ImageSet, held_out_rows
from gen2real.imagesets.sampling import EpochSampler, nested_rows
from gen2real.imagesets.seeds import row_generator
from gen2real.imagesets.transforms import Augmentation, Preprocess, Size, as_tensor
from gen2real.methods.leaks import refuse_leak
from gen2real.methods.unidiff.kept import Kept, kept_views
from gen2real.methods.unidiff.settings import UniDiffConfig
from gen2real.models.diffusion import Diffusion
from gen2real.models.joint import Joint
from gen2real.training.distributed import share


class SquareCanvas(Preprocess):
    """Training crops are cut from the square that evaluation sees, so none is stretched: a generator would learn to
    draw things thinner."""

    def canvas_size(self, size: Size, shortest: int) -> Size:
        """The side is `shortest`, or what the picture has, if less."""
        side = min(shortest, *size) if self.fit == "crop" else shortest
        return side, side

    def canvas(self, picture: Image.Image, shortest: int) -> Tensor:
        """The RGB picture as uint8 [3 side side], of `canvas_size`."""
        return as_tensor(self.square(picture, self.canvas_size(picture.size, shortest)[0]))


class JointData:
    """What a run learns from, and pictures of the same set to look at meanwhile.

    A crop is cut at `size`, the larger of what the two models see, and resized down for the other: both see one crop
    and flip.

    Attributes:
        train: pictures to learn from, in crops of `size`. held_out: in CLIP's evaluation geometry; None without.
        prompts: every distinct caption, by number, then the empty one, whose number is `empty`. Captions that differ in
            case and white space only are one.
        numbers: of each picture's captions. size, clip_size, generator_size: sides in pixels.

    Raises: ImageSetError for pictures without captions, too few for a batch, none that can be read, or that are also
        measured on; UnreadablePictures.
    """

    def __init__(self, config: UniDiffConfig, joint: Joint) -> None:
        self.config, self.joint, settings = config, joint, config.data
        self.clip_preprocess = joint.encoder.preprocess
        self.clip_size, self.generator_size = self.clip_preprocess.size, joint.diffusion.sample_size
        self.size = max(self.clip_size, self.generator_size)
        whole = _with_captions(_readable(settings.pictures, self.clip_preprocess, settings.on_unreadable))
        out = held_out_rows(whole.ids, np.zeros(len(whole), np.int64), settings.holdout)
        rest = whole.select(np.flatnonzero(~out))
        if settings.limit is not None:
            rest = rest.select(nested_rows(len(rest), settings.limit, config.seed))
        self._enough(rest, held_out=int(out.sum()))
        self.held_out = Pictures(whole.select(np.flatnonzero(out)), self.clip_preprocess) if out.any() else None
        self.train = self.training_pictures(rest)
        texts, pairs = caption_positives(rest.captions)
        self.prompts, self.empty = [*texts, ""], len(texts)
        found: list[dict[int, None]] = [{} for _ in range(len(rest))]
        for picture, text in pairs.tolist():
            found[picture][text] = None
        self.numbers = [tuple(own) for own in found]
        self._check_measured(whole)

    @property
    def texts(self) -> list[str]:
        """Every distinct caption, without the empty one."""
        return self.prompts[: self.empty]

    @property
    def states_are_frozen(self) -> bool:
        """Whether what the denoiser reads of a text stays as it is."""
        return not self.joint.shared or self.config.text.mode == "frozen"

    def training_pictures(self, image_set: ImageSet) -> Pictures:
        """Pictures in training crops, decoded anew unless they fit into memory."""
        settings = self.config.data
        geometry = SquareCanvas(**{**vars(self.clip_preprocess), "size": self.size})
        # A square crop of a square canvas: crop_scale is its share of what evaluation sees.
        augmentation = Augmentation(crop_scale=settings.crop_scale, crop_ratio=(1.0, 1.0), flip=settings.flip)
        return Pictures(image_set, geometry, augmentation=augmentation)

    def clip_pixels(self, pixels: Tensor) -> Tensor:
        """Crops uint8 [n 3 L L] → uint8 [n 3 S S] at CLIP's size; those that have it already stay as they are."""
        return resized_down(pixels, self.clip_size)

    def clip_view(self, pixels: Tensor) -> Tensor:
        """Crops uint8 [n 3 L L] → what CLIP's image tower takes, float32 [n 3 S S], on the device they are on."""
        return self.clip_preprocess.normalize(self.clip_pixels(pixels))

    def generator_view(self, pixels: Tensor) -> Tensor:
        """The same crops uint8 [n 3 L L] → uint8 [n 3 G G], what the VAE encodes."""
        return resized_down(pixels, self.generator_size)

    def sampler(self, seed: int) -> EpochSampler:
        """Every picture once an epoch, less a last batch with too few others to be told from."""
        return EpochSampler([len(self.train)], None, self.config.training.batch_size, seed, drop_last=True)

    def steps(self) -> int:
        """Updates of the whole run."""
        return self.config.training.total_steps(self.sampler(self.config.seed).steps_per_epoch)

    def batches(self, *, seed: int | None = None) -> JointBatches:
        """Batches of the run's seed or another; with `views`, crops and latents are made or read from the cache now."""
        return JointBatches(self, self.config.seed if seed is None else seed, self.kept)

    @cached_property
    def kept(self) -> Kept | None:
        """Each view of every picture; None where every crop is a new one."""
        return kept_views(self)

    def _enough(self, rest: ImageSet, *, held_out: int) -> None:
        wanted = self.config.training.batch_size
        if len(rest) < wanted:
            raise ImageSetError(
                f"{len(rest)} pictures of {self.config.data.pictures} are there to train on ({held_out} are held out), "
                f"and a batch has {wanted}. Set training.batch_size={max(len(rest), 1)} or less"
                + (", a larger data.limit" if self.config.data.limit is not None else "")
                + ", or import more pictures."
            )

    def _check_measured(self, trained: ImageSet) -> None:
        evaluation, general = self.config.data.evaluation, self.config.data.general
        # The general set shall tell what was forgotten, so it may not be what was learned.
        for path in (evaluation, general):
            if path is not None:
                refuse_leak(path, [trained])
        if evaluation is not None:
            _with_captions(ImageSet.read(evaluation).kept())
        if general is not None:
            known = ImageSet.read(general).kept()
            if not (known.labels >= 0).any() and not any(text.strip() for own in known.captions for text in own):
                raise ImageSetError(
                    f"{known.manifest} has {len(known)} pictures without labels and without captions, so nothing can "
                    "be told of them. Import labelled ones (gen2real import imagefolder) or captioned ones, or leave "
                    "out data.general."
                )


@dataclass(frozen=True)
class Denoised:
    """The rows of a batch that the denoiser sees: the first `len(times)` of its pictures.

    conditions: int64 [m], numbers of `JointData.prompts`; `empty` where the caption is dropped. times: int64 [m].
    noise, posterior: float32 [m C h w], for the noised latents and for the draw from the VAE's distribution.
    moments: mean and standard deviation [m C h w] of the scaled latents, or None where the VAE has to run.
    own: how many of the m rows count; fewer only where the process has none and models run on one all the same.
    rows: those of all processes.
    """

    conditions: Tensor
    times: Tensor
    noise: Tensor
    posterior: Tensor
    moments: tuple[Tensor, Tensor] | None
    own: int
    rows: int

    def to(self, device: torch.device) -> Denoised:
        """The same on a device."""
        return replace(
            self,
            conditions=_moved(self.conditions, device),
            times=_moved(self.times, device),
            noise=_moved(self.noise, device),
            posterior=_moved(self.posterior, device),
            moments=None
            if self.moments is None
            else (_moved(self.moments[0], device), _moved(self.moments[1], device)),
        )


@dataclass(frozen=True)
class JointBatch:
    """One process's part.

    pixels: uint8 [n 3 L L], crops at `JointData.size`, or with `views` at CLIP's; one picture all the same where the
        process has no row. captions: int64 [n], numbers of the texts; equal numbers are equal captions.
    denoised: None where no loss looks at the denoiser. rows: those of all processes. number: of the update, from 0.

    Rows lie so that those the denoiser sees come first; gathered in rank order, `captions` of all processes belong to
    `pixels` of all, and `denoised` to the first rows of each.
    """

    pixels: Tensor
    captions: Tensor
    denoised: Denoised | None
    rows: int
    number: int

    def to(self, device: torch.device) -> JointBatch:
        """The same on a device."""
        denoised = None if self.denoised is None else self.denoised.to(device)
        return replace(
            self, pixels=_moved(self.pixels, device), captions=_moved(self.captions, device), denoised=denoised
        )

    def latents(self, data: JointData, diffusion: Diffusion) -> Tensor:
        """Clean scaled latents [m C h w] of the rows the denoiser sees, drawn from the VAE's distribution."""
        known = self.denoised
        assert known is not None
        if known.moments is not None:
            mean, std = known.moments
        else:
            mean, std = diffusion.moments(data.generator_view(self.pixels[: len(known.times)]))
        # z₀ = s·(μ + σ·ε), with the scale s in the moments
        return mean + std * known.posterior.to(mean.dtype)


class JointBatches:
    """Batches by update number: crops, captions, timesteps, noise and dropped captions of a row are seeded by (seed,
    update, place in the batch), so neither processes nor chunks change them and a resume needs nothing."""

    def __init__(self, data: JointData, seed: int, kept: Kept | None) -> None:
        self._data, self._seed, self._kept = data, seed, kept
        self._sampler, self._config = data.sampler(seed), data.config

    def __call__(self, numbers: range) -> Iterator[tuple[JointBatch, ...]]:
        return prefetch(self._make, numbers, workers=self._config.training.loader_workers)

    def _make(self, number: int) -> tuple[JointBatch, ...]:
        rows = [(place, index) for place, (_, index) in enumerate(self._sampler.batch(number))]
        seen = (self._config.synthesis.pictures or len(rows)) if self._config.uses_denoiser else 0
        first = share(rows[:seen])
        own = first + share(rows[seen:])
        held = own or rows[:1]
        pixels, places, captions = [], [], []
        for place, index in held:
            generator = row_generator(self._seed, number, place)
            if self._kept is None:
                pixels.append(self._data.train.training([index], generator)[0])
            else:
                places.append((_below(len(self._kept.pixels), generator), index))
                pixels.append(self._kept.pixels[places[-1][0]][index])
            choice = self._data.numbers[index]
            captions.append(choice[_below(len(choice), generator)])
        denoised = None
        if seen:
            denoised = self._denoised(number, held[: max(len(first), 1)], captions, places, len(first), seen)
        numbers = torch.tensor(captions[: len(own)], dtype=torch.long)
        return (JointBatch(torch.stack(pixels), numbers, denoised, len(rows), number),)

    def _denoised(
        self,
        number: int,
        held: list[tuple[int, int]],
        captions: list[int],
        places: list[tuple[int, int]],
        own: int,
        rows: int,
    ) -> Denoised:
        data, diffusion = self._data, self._data.joint.diffusion
        times, conditions, noise, posterior = [], [], [], []
        for (place, _), caption in zip(held, captions, strict=False):
            # Its own generator: crops and captions are the same whether or not anything is denoised.
            generator = row_generator(self._seed, number, place, 1)
            times.append(_below(diffusion.steps, generator))
            dropped = float(torch.rand((), generator=generator)) < self._config.synthesis.caption_dropout
            conditions.append(data.empty if dropped else caption)
            noise.append(torch.randn(diffusion.latent_shape, generator=generator))
            posterior.append(torch.randn(diffusion.latent_shape, generator=generator))
        moments = None
        if self._kept is not None and self._kept.moments is not None:
            chosen = [self._kept.moments[view][:, index] for view, index in places[: len(held)]]
            mean, std = torch.stack(chosen, dim=1)
            moments = mean, std
        return Denoised(
            torch.tensor(conditions),
            torch.tensor(times),
            torch.stack(noise),
            torch.stack(posterior),
            moments,
            own,
            rows,
        )


def resized_down(pixels: Tensor, side: int) -> Tensor:
    """Pictures uint8 [n 3 L L] → uint8 [n 3 S S], bicubic with antialiasing; unchanged where they have that side."""
    if pixels.shape[-1] == side:
        return pixels
    # In float on every device: CUDA has no kernel for bytes.
    smaller = interpolate(pixels.float(), (side, side), mode="bicubic", antialias=True, align_corners=False)
    return smaller.round_().clamp_(0, 255).to(torch.uint8)


def _moved(one: Tensor, device: torch.device) -> Tensor:
    return one.to(device, non_blocking=True)


def _below(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def _readable(path: Path, preprocess: Preprocess, on_unreadable: str) -> ImageSet:
    whole = ImageSet.read(path).kept()
    found = Pictures(whole, preprocess, on_unreadable=on_unreadable).image_set  # type: ignore[arg-type]
    if not len(found):
        raise ImageSetError(
            f"{path} has no picture that can be read"
            + (f" (its manifest has {len(whole)} rows)" if len(whole) else "")
            + "; give captioned pictures of your domain as data.pictures. gen2real import makes an image set of them."
        )
    return found


def _with_captions(one: ImageSet) -> ImageSet:
    without = [name for name, own in zip(one.ids, one.captions, strict=True) if not any(text.strip() for text in own)]
    if without:
        raise ImageSetError(
            f"{len(without)} of the {len(one)} pictures in {one.manifest} have no caption (first: {without[0]!r}). "
            "Import them with captions: gen2real import table FILE.csv --caption-column NAME, or gen2real import coco."
        )
    return one
