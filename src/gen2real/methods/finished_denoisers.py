"""A finished generator as a classifier: which class's prompt makes its denoiser's error smallest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import PartialState

from gen2real.errors import ImageSetError
from gen2real.evaluation.classification import Classification, classification_metrics
from gen2real.evaluation.diffusion_classifier import KEEP, TRIALS, diffusion_classifier
from gen2real.imagesets.loading import Pictures
from gen2real.imagesets.manifest import ImageSet
from gen2real.imagesets.transforms import Preprocess
from gen2real.methods.captioned import spread_over
from gen2real.methods.classification_data import set_labels
from gen2real.models.diffusion import load_diffusion
from gen2real.progress import WorkProgress
from gen2real.prompts import prompts_for

_ENCODED = 32


def evaluate_diffusion_classification(
    generator: str | Path,
    image_set: ImageSet,
    *,
    templates: str | Sequence[str] | None = None,
    file: Path | None = None,
    pictures: int | None = None,
    trials: Sequence[int] = TRIALS,
    keep: Sequence[int] = KEEP,
    seed: int = 0,
    on_unreadable: str = "error",
    quiet: bool = True,
) -> Classification:
    """Top-1, top-5, per class and confusions of a generator on a labelled set (`diffusion_classifier`).

    The denoiser is asked trials × classes times a picture before the pruning: about 64 · 5 + 16 · (classes − 5) times.
    Calibration is that of the paper's equation 5, which takes differences of errors for log-probabilities as they are.

    Args:
        generator: a `StableDiffusionPipeline` by hub name or folder, or a run that has one.
        templates, file: as of `evaluate_model`; of several prompts of a class the first is asked.
        pictures: at most so many, spread evenly over the set; None: all.
        trials, keep: the rounds. seed: of the noise. quiet: shows no progress.

    Raises: ModelError; ImageSetError for a set without labels; UnreadablePictures.
    """
    labelled = image_set.kept()
    labelled = labelled.select([place for place, label in enumerate(labelled.labels) if label >= 0])
    if not len(labelled):
        raise ImageSetError(
            f"{image_set.manifest} has no kept picture with a label, and there are no classes to tell apart. Import it "
            "from a folder per class or with a label column."
        )
    names = image_set.class_names
    asked = [own[0] for own in prompts_for(names, templates="simple" if templates is None else templates, file=file)]
    diffusion = load_diffusion(generator).to(PartialState().device)
    chosen = Pictures(
        spread_over(labelled, pictures),
        Preprocess(size=diffusion.sample_size),
        on_unreadable=on_unreadable,  # type: ignore[arg-type]
    )
    count = len(chosen)
    with torch.no_grad():
        parts = [list(range(start, min(start + _ENCODED, count))) for start in range(0, count, _ENCODED)]
        latents = torch.cat([diffusion.moments(torch.as_tensor(chosen.evaluation(part)))[0] for part in parts])
        states = diffusion.states(diffusion.ids(asked))
    with WorkProgress("trials", start=0, total=trials[-1], unit="trials", pictures=count, quiet=quiet) as progress:
        found = diffusion_classifier(
            diffusion, latents, states, trials=trials, keep=keep, seed=seed, on_progress=progress.update
        )
    labels = set_labels(chosen.image_set, image_set.classes)
    return classification_metrics(found.scores.float(), torch.from_numpy(labels), names)
