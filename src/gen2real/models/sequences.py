"""Interleaved samples as a multimodal model learns and reads them: tokens, what is learnt, and where prefixes end.

    tokens:  system … USER: ▣▣▣▣ A duck came. ▣▣▣▣ It went. │ padding
    learnt:                      A duck came.      It went.             a document's own text, or else the answers
    spans:                  ────            ─ ────        ─             a picture's own tokens, a sentence's last one

Attention is causal, so the state at a span says what the sample said up to there: the prefix that ends there.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gen2real.errors import ModelError
from gen2real.imagesets.decoding import decode
from gen2real.imagesets.interleaved import Interleaved, slices
from gen2real.models.conversations import Conversation, converse
from gen2real.models.multimodal import MultimodalModel
from gen2real.models.supervised import IGNORED, length_fault, picture_tokens, refuse_faults, text_fault

Side = Literal["right", "left"]


class End(NamedTuple):
    """Where a prefix ends: in `sample.turns[turn].parts[part]`, at a picture (None) or at so many characters of it."""

    turn: int
    part: int
    characters: int | None


@dataclass(frozen=True)
class Sequences:
    """A batch of interleaved samples.

    Attributes:
        inputs: the model's.
        labels: [N L] the token at its own place (place i − 1 foretells it), −100 where nothing is learnt.
        spans: int64 [R 3]: row, begin and end of each read-out's tokens. A picture's go from its first to its last,
            and the ones between the parts of a picture that is cut up are among them.
        owners: int64 [R] the sample of each read-out, by its place in the batch.
        samples: int64 [N L] the sample of each token, where several are packed into a row; None: a row is a sample.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    spans: Tensor
    owners: Tensor
    samples: Tensor | None = None

    def to(self, device: torch.device) -> Sequences:
        """The same on a device."""
        moved = {key: value.to(device, non_blocking=True) for key, value in self.inputs.items()}
        labels, spans, owners = (own.to(device, non_blocking=True) for own in (self.labels, self.spans, self.owners))
        samples = None if self.samples is None else self.samples.to(device, non_blocking=True)
        return Sequences(moved, labels, spans, owners, samples)

    @property
    def tokens(self) -> Tensor:
        """How many tokens of each row are learnt, int64 [N]."""
        return (self.labels != IGNORED).sum(dim=1)


def encode_sequences(
    model: MultimodalModel,
    samples: Sequence[Interleaved],
    readouts: Sequence[Sequence[int]] | None = None,
    *,
    side: Side = "right",
) -> Sequences:
    """One batch, padded on a side.

    Args:
        readouts: for each sample, which of its `slices` are read at their end; −1 is the last. None: nothing is read.

    Raises: ModelError where the processor refuses a sample, or writes it otherwise than it counts; IndexError for a
        slice that is not there; Unreadable for a picture that does not decode.
    """
    ends = [_ends(sample, own) for sample, own in zip(samples, readouts or [()] * len(samples), strict=True)]
    return encode_at(model, samples, ends, side=side)


def encode_at(
    model: MultimodalModel, samples: Sequence[Interleaved], ends: Sequence[Sequence[End]], *, side: Side = "right"
) -> Sequences:
    """`encode_sequences` where prefixes may end anywhere."""
    pictures = [[decode(path) for path in sample.pictures] for sample in samples]
    conversations = [converse(model, sample.turns) for sample in samples]
    made = model.inputs([own.text for own in conversations], pictures)
    mask = made["attention_mask"].bool()
    labels, spans = [], []
    for row, (sample, conversation) in enumerate(zip(samples, conversations, strict=True)):
        placed = _Placed(model, conversation, made["input_ids"][row][mask[row]], [one.size for one in pictures[row]])
        labels.append(placed.labels(sample))
        spans += [(row, *placed.span(sample, end)) for end in ends[row]]
    rows = {
        key: [value[i][mask[i]] for i in range(len(mask))] for key, value in made.items() if value.shape == mask.shape
    }
    pad = int(model.tokenizer.pad_token_id)
    inputs = {**made, **{key: padded(own, pad if key == "input_ids" else 0, side) for key, own in rows.items()}}
    where = torch.tensor(spans, dtype=torch.int64).reshape(-1, 3)
    if side == "left":
        lengths = mask.sum(dim=1)
        where[:, 1:] += (inputs["input_ids"].shape[1] - lengths)[where[:, 0], None]
    inputs |= _positions(model, inputs)
    return Sequences(inputs, padded(labels, IGNORED, side), where, where[:, 0].clone())


def pack(sequences: Sequences, length: int) -> Sequences:
    """Several samples in a row, none of which sees another; the rest is as before, `owners` the samples too.

    Samples stay in order, and a row is ended where the next would not fit. Every sample's positions begin at 0, and
    there is no attention mask: from both, transformers makes attention within samples alone, whichever kind it uses;
    but only where nothing is cached (`use_cache=False`, as `hidden_states` has it).

    Args:
        length: tokens of a row, at most.

    Raises: ModelError for a sample that is longer, and a model that takes no positions.
    """
    inputs, mask = dict(sequences.inputs), sequences.inputs["attention_mask"].bool()
    if "position_ids" not in inputs:
        raise ModelError("this model takes no positions, so its samples cannot be packed.")
    lengths, first = mask.sum(dim=1), mask.int().argmax(dim=1)
    if int(lengths.max()) > length:
        raise ModelError(f"a sample has {int(lengths.max())} tokens and does not fit a row of {length}.")
    rows: list[list[int]] = [[]]
    for sample, own in enumerate(lengths.tolist()):
        if rows[-1] and sum(int(lengths[other]) for other in rows[-1]) + own > length:
            rows.append([])
        rows[-1].append(sample)

    def packed(values: Tensor, filler: int = 0) -> Tensor:
        own = [torch.cat([values[sample][mask[sample]] for sample in row]) for row in rows]
        return padded(own, filler)

    shape = mask.shape
    plain = (mask.cumsum(dim=1) - 1).clamp(min=0)
    positions = inputs.pop("position_ids")
    moved = {key: packed(value) for key, value in inputs.items() if value.shape == shape}
    # Padding sees itself alone, so its tokens do not matter.
    inputs |= moved
    del inputs["attention_mask"]
    inputs["position_ids"] = packed(plain)
    if positions.ndim == 3:
        # The first tells samples apart, the others are time, height and width.
        inputs["position_ids"] = torch.stack([inputs["position_ids"], *(packed(own) for own in positions)])
    before = torch.zeros(len(lengths), dtype=torch.int64, device=mask.device)
    row_of = torch.zeros_like(before)
    for number, row in enumerate(rows):
        own = lengths[row]
        before[row], row_of[row] = own.cumsum(dim=0) - own, number
    spans = sequences.spans.clone()
    spans[:, 1:] += (before - first)[sequences.spans[:, 0], None]
    spans[:, 0] = row_of[sequences.spans[:, 0]]
    samples = packed(torch.arange(len(lengths), device=mask.device)[:, None].expand(shape))
    # Nothing foretells a sample's first token: before it stands another sample.
    labels = sequences.labels.clone()
    labels[torch.arange(len(lengths), device=mask.device), first] = IGNORED
    return Sequences(inputs, packed(labels, IGNORED), spans, sequences.owners, samples)


def check_sequences(
    model: MultimodalModel,
    samples: Sequence[Interleaved],
    sizes: Mapping[Path, tuple[int, int]],
    *,
    max_length: int | None = None,
    setting: str = "data",
) -> None:
    """Looks at every sample before anything is trained; as `supervised.check_samples` does.

    Args:
        sizes: of each picture, (width, height) in pixels.
        max_length: tokens a sample may have with its pictures' tokens; the model's own limit where None.
        setting: what the message calls the recipe's part.

    Raises: ImageSetError listing all samples that hold the model's own tokens for pictures or ends, that teach nothing
        (no text and no answer), are too long, or that the model's template writes otherwise.
    """
    limit = min(max_length or model.max_length, model.max_length)
    faults = []
    for sample in samples:
        try:
            fault = _fault(model, sample, sum(picture_tokens(model, sizes[path]) for path in sample.pictures), limit)
        except ModelError as error:
            fault = str(error)
        if fault:
            faults.append((sample.id, fault))
    refuse_faults(model, faults, len(samples), setting)


def _fault(model: MultimodalModel, sample: Interleaved, seen: int, limit: int) -> str | None:
    texts = [part for part in sample.parts if isinstance(part, str)]
    answers = [turn.answer for turn in sample.turns if turn.answer is not None]
    if any(not answer.strip() for answer in answers):
        return "the answer is empty"
    if not any(text.strip() for text in (texts if sample.is_document else answers)):
        return "there is no text to learn"
    if fault := text_fault(model, [*texts, *answers]):
        return fault
    text, pictures = converse(model, sample.turns).text, len(sample.pictures)
    if (written := text.count(model.processor.image_token)) != pictures:
        return f"the chat template writes {written} marks for {pictures} pictures"
    return length_fault(len(model.token_ids(text)) - pictures + seen, seen, limit)


def padded(rows: Sequence[Tensor], value: int, side: Side = "right") -> Tensor:
    """Rows of differing lengths as one tensor [N L]."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value, padding_side=side)


class _Placed:
    """A rendered sample and its tokens: which place each token of the text has once pictures have theirs."""

    def __init__(
        self, model: MultimodalModel, conversation: Conversation, ids: Tensor, sizes: Sequence[tuple[int, int]]
    ) -> None:
        self.conversation = conversation
        bare, places = model.token_places(conversation.text)
        self.image = int(model.tokenizer.convert_tokens_to_ids(model.processor.image_token))
        self.bare, self.chars = np.array(bare), np.array(places).reshape(-1, 2)
        marks = self.bare == self.image
        if int(marks.sum()) != len(sizes):
            raise ModelError(
                f"the chat template of {model.name} writes {int(marks.sum())} marks for {len(sizes)} pictures."
            )
        lengths = np.ones(len(bare), dtype=np.int64)
        lengths[marks] = [picture_tokens(model, size) for size in sizes]
        self.begins = np.cumsum(lengths) - lengths
        self.ids = ids.numpy()
        fits = lengths.sum() == len(ids) and bool((self.ids[self.begins[~marks]] == self.bare[~marks]).all())
        if not fits:
            raise ModelError(
                f"the processor of {model.name} makes other tokens of a sample ({len(ids)}) than it counts for its "
                f"text and pictures ({int(lengths.sum())}); it begins {conversation.text[:60]!r}."
            )
        self.pictures = [
            slice(begin, begin + own) for begin, own in zip(self.begins[marks], lengths[marks], strict=True)
        ]

    def labels(self, sample: Interleaved) -> Tensor:
        """[L]: answers and what ends them; of a document its own text."""
        learnt = self.conversation.answers
        if sample.is_document:
            learnt = tuple(place for turn in self.conversation.parts for place in turn if place[1])
        found = np.full(len(self.ids), IGNORED, dtype=np.int64)
        begin, end = self.chars[:, 0], self.chars[:, 1]
        for first, last in learnt:
            inside = (begin < last) & (end > first) & (begin < end)
            found[self.begins[inside]] = self.bare[inside]
        # Nothing comes before the first token that could foretell it.
        found[:1] = IGNORED
        return torch.from_numpy(found)

    def span(self, sample: Interleaved, end: End) -> tuple[int, int]:
        """Where the tokens of a read-out begin and end."""
        if end.characters is None:
            earlier = sum(len(turn.pictures) for turn in sample.turns[: end.turn])
            earlier += sum(isinstance(part, Path) for part in sample.turns[end.turn].parts[: end.part])
            run = self.pictures[earlier]
            own = np.flatnonzero(self.ids[run] == self.image)
            return int(run.start + own[0]), int(run.start + own[-1]) + 1
        part = sample.turns[end.turn].parts[end.part]
        assert isinstance(part, str)
        last = self.conversation.parts[end.turn][end.part][0] + end.characters - (len(part) - len(part.lstrip()))
        inside = (self.chars[:, 0] < last) & (self.chars[:, 0] < self.chars[:, 1])
        place = int(self.begins[np.flatnonzero(inside)[-1]])
        return place, place + 1


def _ends(sample: Interleaved, readouts: Sequence[int]) -> list[End]:
    found = slices(sample)
    chosen = [found[number] for number in readouts]
    return [End(one.turn, one.part, one.end if one.kind == "text" else None) for one in chosen]


def _positions(model: MultimodalModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Positions [N L] that padding does not move, or [3 N L] for models that give pictures two dimensions more."""
    if "position_ids" not in inspect.signature(model.model.forward).parameters:
        return {}
    mask = inputs["attention_mask"]
    plain = (mask.cumsum(dim=1) - 1).clamp(min=0)
    rope: Any = getattr(model.model.base_model, "get_rope_index", None)
    if rope is None:
        return {"position_ids": plain}
    if "image_grid_thw" not in inputs:
        return {"position_ids": plain.expand(3, -1, -1)}
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
    return {"position_ids": rope(**{name: inputs[name] for name in names if name in inputs})[0]}
