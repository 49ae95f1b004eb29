"""Questions with known answers, as a multimodal model learns them: labels on the answer alone, and a check beforehand.

    tokens:  prompt with each mark grown to its picture's tokens │ answer … end │ padding
    labels:  −100 …                                              │ answer … end │ −100 …

The prompt's tokens are exactly those of `MultimodalModel.answer`, so what is learnt is what will be asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from gen2real.errors import ImageSetError
from gen2real.imagesets.decoding import decode
from gen2real.models.multimodal import MARK, MultimodalModel

IGNORED = -100
_SHOWN = 20


@dataclass(frozen=True)
class Sample:
    """A question about pictures, and its answer. A mark `<image>` in the question says where a picture stands."""

    pictures: tuple[Path, ...]
    question: str
    answer: str
    name: str = ""


@dataclass(frozen=True)
class Supervised:
    """A batch to learn from. inputs: the model's, padded on the right. labels [N L]: −100 where nothing is learnt."""

    inputs: dict[str, Tensor]
    labels: Tensor

    def to(self, device: torch.device) -> Supervised:
        """The same on a device."""
        moved = {key: value.to(device, non_blocking=True) for key, value in self.inputs.items()}
        return Supervised(moved, self.labels.to(device, non_blocking=True))

    @property
    def answer_start(self) -> int:
        """The first place in any row that is learnt."""
        return int((self.labels != IGNORED).any(dim=0).nonzero()[0])


def answer_ids(model: MultimodalModel, sample: Sample) -> tuple[int, list[int]]:
    """How many tokens at the prompt's end the answer's beginning changes (mostly 0), and the answer's own."""
    prompt = model.prompt(sample.question, len(sample.pictures))
    before = model.token_ids(prompt)
    whole = model.token_ids(prompt + model.answered(sample.question, sample.answer, len(sample.pictures)))
    shared = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before))
    return len(before) - shared, whole[shared:]


def supervise(model: MultimodalModel, samples: Sequence[Sample]) -> Supervised:
    """One batch: inputs padded on the right, and labels.

    Raises: ModelError where marks and pictures differ; Unreadable for a picture that does not decode.
    """
    prompts = [model.prompt(sample.question, len(sample.pictures)) for sample in samples]
    made = model.inputs(prompts, [[decode(path) for path in sample.pictures] for sample in samples])
    shape, mask = made["input_ids"].shape, made["attention_mask"].bool()
    rows: dict[str, list[Tensor]] = {key: [] for key, value in made.items() if value.shape == shape}
    labels: list[Tensor] = []
    for place, sample in enumerate(samples):
        joined, tail = answer_ids(model, sample)
        answer = torch.tensor(tail, dtype=made["input_ids"].dtype)
        length = int(mask[place].sum()) - joined
        labels.append(torch.cat([torch.full((length,), IGNORED), answer]))
        for key, own in rows.items():
            # What goes with each token (mask, kind of token) goes on over the answer: seen, and text.
            more = {"input_ids": answer, "attention_mask": torch.ones_like(answer)}.get(key, torch.zeros_like(answer))
            own.append(torch.cat([made[key][place][mask[place]][:length], more.to(made[key].dtype)]))
    pad = int(model.tokenizer.pad_token_id)
    padded = {key: _padded(own, pad if key == "input_ids" else 0) for key, own in rows.items()}
    return Supervised({**made, **padded}, _padded(labels, IGNORED))


def kept_logits(batch: Supervised) -> dict[str, int]:
    """Options of `forward` that leave out logits before the first answer, of which there are most with pictures."""
    return {"logits_to_keep": batch.labels.shape[1] - batch.answer_start + 1}


def check_samples(
    model: MultimodalModel,
    samples: Sequence[Sample],
    sizes: Mapping[Path, tuple[int, int]],
    *,
    max_length: int | None = None,
    setting: str = "data",
) -> None:
    """Looks at every sample before anything is trained.

    Args:
        sizes: of each picture, (width, height) in pixels.
        max_length: tokens a sample may have with its pictures' tokens; the model's own limit where None.
        setting: what the message calls the recipe's part.

    Raises: ImageSetError listing all samples whose marks and pictures differ, whose texts hold the model's own tokens
        for pictures or ends, that have no answer, or are too long.
    """
    limit = min(max_length or model.max_length, model.max_length)
    found = _faults(model, samples, sizes, limit)
    refuse_faults(
        model, [(sample.name or str(sample.pictures), fault) for sample, fault in found], len(samples), setting
    )


def refuse_faults(model: MultimodalModel, faults: Sequence[tuple[str, str]], samples: int, setting: str) -> None:
    """Raises: ImageSetError listing samples by name with what is wrong with them; nothing where there are none.

    Args:
        samples: how many were looked at. setting: what the message calls the recipe's part.
    """
    if not faults:
        return
    shown = "\n".join(f"  {name}: {fault}" for name, fault in faults[:_SHOWN])
    more = f"\n  … and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    raise ImageSetError(
        f"{len(faults)} of {samples} samples cannot be learnt from:\n{shown}{more}\n"
        f"Mend or remove them; a text that is too long can be shortened, or {setting}.max_length raised up "
        f"to the model's own, {model.max_length}."
    )


def text_fault(model: MultimodalModel, texts: Sequence[str]) -> str | None:
    """What is wrong with texts that hold the model's own tokens for pictures or ends; None where nothing is."""
    words = {model.processor.image_token, MARK, *(model.tokenizer.convert_ids_to_tokens(t) for t in model.end_tokens)}
    held = sorted(word for word in words if any(word in text for text in texts))
    return f"the text holds {', '.join(held)}, which the model takes for a picture or an end" if held else None


def length_fault(length: int, seen: int, limit: int) -> str | None:
    """What is wrong with a sample of so many tokens, `seen` of them its pictures'; None where nothing is."""
    return f"it has {length} tokens, {seen} of them for pictures; at most {limit}" if length > limit else None


def _faults(
    model: MultimodalModel, samples: Sequence[Sample], sizes: Mapping[Path, tuple[int, int]], limit: int
) -> Iterator[tuple[Sample, str]]:
    for sample in samples:
        marks, pictures = sample.question.count(MARK), len(sample.pictures)
        if not sample.answer.strip():
            yield sample, "the answer is empty"
            continue
        if MARK in sample.question and marks != pictures:
            yield sample, f"the question has {marks} marks {MARK} and there are {pictures} pictures"
            continue
        if fault := text_fault(model, [sample.answer, sample.question.replace(MARK, "")]):
            yield sample, fault
            continue
        prompt = model.prompt(sample.question, pictures)
        if (written := prompt.count(model.processor.image_token)) != pictures:
            yield sample, f"the chat template writes {written} marks for {pictures} pictures"
            continue
        joined, tail = answer_ids(model, sample)
        seen = sum(picture_tokens(model, sizes[path]) for path in sample.pictures)
        length = len(model.token_ids(prompt)) - joined + len(tail) - pictures + seen
        if fault := length_fault(length, seen, limit):
            yield sample, fault


def picture_tokens(model: MultimodalModel, size: tuple[int, int]) -> int:
    """Tokens that a picture of (width, height) pixels takes."""
    if size not in model.tokens_of_size:
        model.tokens_of_size[size] = _picture_tokens(model, size)
    return model.tokens_of_size[size]


def _picture_tokens(model: MultimodalModel, size: tuple[int, int]) -> int:
    width, height = size
    counted: Any = getattr(model.processor, "_get_num_multimodal_tokens", None)
    if counted is not None:
        return int(counted(image_sizes=[(height, width)]).num_image_tokens[0])
    prompt = model.prompt("", 1)
    whole = model.inputs([prompt], [[Image.new("RGB", size)]])
    return int(whole["attention_mask"].sum()) - len(model.token_ids(prompt)) + 1


def _padded(rows: Sequence[Tensor], value: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)
