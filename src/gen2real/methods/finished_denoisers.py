"""A finished generator as a second pair of eyes: which text makes its denoiser's error smallest.

As a classifier of its own, and to rank anew the few captions that a dual encoder found best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor
from torch.nn.functional import normalize

from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation.classification import Classification, classification_metrics
from gen2real.evaluation.diffusion_classifier import KEEP, TRIALS, diffusion_classifier
from gen2real.evaluation.retrieval import Retrieval, retrieval_metrics
from gen2real.evaluation.statistics import Interval, PairedTest, paired_bootstrap, proportion_interval
from gen2real.imagesets.loading import Pictures
from gen2real.imagesets.manifest import ImageSet
from gen2real.imagesets.transforms import Preprocess
from gen2real.methods.captioned import spread, spread_over
from gen2real.methods.classification_data import set_labels
from gen2real.methods.finished import searchable
from gen2real.models.aligned import Branch
from gen2real.models.diffusion import load_diffusion
from gen2real.progress import WorkProgress
from gen2real.prompts import prompts_for

CANDIDATES = 5
RERANKING_TRIALS = 64
"""Ours, both: a picture costs the denoiser 320 looks."""

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


@dataclass(frozen=True, eq=False)
class Reranked:
    """What `evaluate_reranking` finds.

    retrieval: the encoder's own search, of the whole set. ids: of the N pictures whose candidates were ranked anew.
    captions: of each the caption that now comes first.
    first, first_reranked: bool [N], whether the first of all captions is the picture's, of the encoder's order and of
        the new one. among: bool [N], whether any candidate is: no order of them can do better.
    candidates: captions a picture. trials: times and noises that each was tried with. weight: None: by the error alone.
    """

    retrieval: Retrieval
    ids: Sequence[str]
    captions: Sequence[str]
    first: Tensor
    first_reranked: Tensor
    among: Tensor
    candidates: int
    trials: int
    weight: float | None
    generator: str

    @property
    def before(self) -> Interval:
        """Recall at 1 of the encoder, over these pictures."""
        return _share(self.first)

    @property
    def after(self) -> Interval:
        """Recall at 1 of the new order."""
        return _share(self.first_reranked)

    @property
    def at_most(self) -> Interval:
        """The recall at 1 of the best order of the candidates."""
        return _share(self.among)

    @property
    def change(self) -> PairedTest:
        """After − before, picture by picture."""
        return paired_bootstrap(self.first_reranked, self.first)

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys of `Retrieval`, and `reranked`."""
        told = {
            "pictures": len(self.ids),
            "candidates": self.candidates,
            "trials": self.trials,
            "weight": self.weight,
            "generator": self.generator,
            "recall@1": self.after.to_json(),
            "before": self.before.to_json(),
            "at_most": self.at_most.to_json(),
            "change": self.change.to_json(),
        }
        return {**self.retrieval.to_json(), "reranked": told}


def evaluate_reranking(
    model: str | Path,
    generator: str | Path,
    image_set: ImageSet,
    *,
    candidates: int = CANDIDATES,
    pictures: int | None = None,
    trials: int = RERANKING_TRIALS,
    weight: float | None = None,
    through: Branch = "f_r",
    seed: int = 0,
    on_unreadable: str = "error",
    quiet: bool = True,
) -> Reranked:
    """The captions that a dual encoder finds best for a picture, ranked anew by a denoiser's error.

    From pictures to captions only; every picture is searched among all captions of the set. Ties count against the
    model, as in `retrieval_metrics`. The denoiser is asked trials × candidates times a picture.

    Args:
        model, image_set, through: as of `evaluate_retrieval`.
        generator: a `StableDiffusionPipeline` by hub name or folder, or a run that has one.
        candidates: captions of each picture that are ranked anew; all of them where there are fewer.
        pictures: at most so many, spread evenly over the set; None: all.
        weight: None: the denoiser's order alone. Else by scale · cosine − weight · error, with the encoder's own scale
            and the error of `diffusion_classifier`, a sum over the latents' values. The form is ours.
        trials: pairs of time and noise. seed: of the noise. quiet: shows no progress.

    Raises: ModelError, also for fewer than two candidates and a weight below 0; ImageSetError where no picture has a
        caption; UnreadablePictures.
    """
    if candidates < 2:
        raise ModelError(f"{candidates} candidate(s): there is no order to change. Give at least 2.")
    if weight is not None and weight < 0:
        raise ModelError(f"the weight of the error is {weight:g}; it is at least 0, and 0 is the encoder's own order.")
    diffusion = load_diffusion(generator).to(PartialState().device)
    found = searchable(model, image_set, through=through, on_unreadable=on_unreadable)
    rows = torch.tensor(spread(range(len(found.pictures)), pictures))
    searched = retrieval_metrics(found.image, found.text, found.positives)
    seen = Pictures(found.pictures.select(rows.tolist()), Preprocess(size=diffusion.sample_size))
    scale = found.encoder.logit_scale.detach().float().exp().cpu()
    text = normalize(found.text, dim=1)
    owned = found.positives[:, 0] * len(text) + found.positives[:, 1]
    captions, first_reranked, among = [], [], []
    with WorkProgress("re-ranking", start=0, total=len(rows), quiet=quiet) as progress, torch.no_grad():
        for start in range(0, len(rows), _ENCODED):
            own = rows[start : start + _ENCODED]
            cosines = normalize(found.image[own], dim=1) @ text.T
            best = cosines.argsort(dim=1, descending=True, stable=True)[:, :candidates]
            asked, places = best.unique(return_inverse=True)
            latents = diffusion.moments(torch.as_tensor(seen.evaluation(range(start, start + len(own)))))[0]
            states = diffusion.states(diffusion.ids([found.texts[one] for one in asked.tolist()]))
            scores = diffusion_classifier(
                diffusion, latents, states, candidates=places, trials=(trials,), keep=(), seed=seed
            ).scores
            if weight is not None:
                scores = scale * cosines.gather(1, best) + weight * scores
            right = torch.isin(own[:, None] * len(text) + best, owned)
            # A caption of another picture that is as good comes before.
            ahead = scores.where(right, -torch.inf).amax(1) > scores.where(~right, -torch.inf).amax(1)
            first_reranked.append(ahead & right.any(1))
            among.append(right.any(1))
            winners = best.gather(1, scores.argmax(1, keepdim=True)).flatten()
            captions += [found.texts[one] for one in winners.tolist()]
            progress.update(start + len(own))
    return Reranked(
        retrieval=searched,
        ids=seen.image_set.ids,
        captions=captions,
        first=searched.image_to_text.ranks[rows] == 1,
        first_reranked=torch.cat(first_reranked),
        among=torch.cat(among),
        candidates=min(candidates, len(text)),
        trials=trials,
        weight=weight,
        generator=str(generator),
    )


def _share(hits: Tensor) -> Interval:
    return proportion_interval(int(hits.sum()), len(hits))
