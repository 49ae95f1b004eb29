"""Multimodal models, which see pictures and answer: any `AutoModelForImageTextToText` of transformers.

LLaVA-1.5, NeXT and OneVision, Idefics3 and SmolVLM, Qwen2-VL and Qwen2.5-VL: what differs between them (how many tokens
a picture has, how a conversation is written) is their processor's and chat template's business, and stays there.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from gen2real.errors import ModelError
from gen2real.files import read_json
from gen2real.imagesets.decoding import decode

# A question without a mark has its pictures in front; whatever the model's own token for a picture is.
from gen2real.imagesets.interleaved import MARK as MARK
from gen2real.models.dual_encoder import model_inside
from gen2real.models.hub_loading import explained, whole_model, without_progress_bars
from gen2real.models.multimodal_processor import load_processor
from gen2real.models.retrieval_head import Head, load_head

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Dtype = Literal["float32", "bfloat16", "float16"]
Branch = Literal["f_r", "f_g"]
Picture = Image.Image | str | Path


class MultimodalModel:
    """A multimodal model and its processor.

    Attributes:
        model: the transformers model; loaded in evaluation mode and frozen (`multimodal_folder.make_trainable`).
        processor: the transformers processor; its tokenizer pads on the left.
        name, revision: where the base model came from.
        shift: ΔW by parameter name inside `vision` for generated pictures (`multimodal_shift.with_shift`); empty where
            there is no tower of their own for them.
        head: what makes embeddings of its hidden states, where it was taught to.
        made_by: what tuned it, as JSON; empty for a base model.
        tokens_of_size: what `supervised.picture_tokens` found, by (width, height).
    """

    def __init__(self, model: Any, processor: Any, name: str, *, revision: str | None = None) -> None:
        self.model, self.processor, self.name, self.revision = model, processor, name, revision
        self.shift: dict[str, Tensor] = {}
        self.head: Head | None = None
        self.made_by: dict[str, Any] = {}
        self.tokens_of_size: dict[tuple[int, int], int] = {}
        # A tokenizer keeps how it pads as a state, and fails where two threads set it at once.
        self._tokenizing = threading.Lock()
        tokenizer = self.tokenizer
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            # Never attended to and never learnt, so any token does.
            tokenizer.pad_token = tokenizer.eos_token

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next(self.model.parameters()).device

    @cached_property
    def vision(self) -> nn.Module:
        """The image tower. Raises: ModelError where transformers does not know which module it is."""
        tower = self.model.get_encoder(modality="image")
        if tower is self.model or tower is self.model.base_model:
            raise ModelError(f"{self.name} ({type(self.model).__name__}) has no image tower that transformers names.")
        return tower

    @cached_property
    def language_model(self) -> nn.Module:
        """The decoder, without its output layer. Raises: ModelError where transformers does not know which it is."""
        decoder = self.model.get_decoder()
        if decoder is self.model or decoder is self.model.base_model:
            raise ModelError(f"{self.name} ({type(self.model).__name__}) has no decoder that transformers names.")
        return decoder

    @cached_property
    def projectors(self) -> list[str]:
        """Names inside `model` of the modules between image tower and language model.

        Raises: ModelError where there are none.
        """
        base, vision, language = self.model.base_model, self.vision, self.language_model
        found = [child for child in base.children() if child is not vision and child is not language]
        # Qwen2-VL keeps its own inside the image tower.
        found += [child for name, child in vision.named_children() if "merger" in name]
        wanted = {id(child) for child in found if any(True for _ in child.parameters())}
        names = [name for name, module in self.model.named_modules() if id(module) in wanted]
        if not names:
            raise ModelError(f"{self.name} has no module between its image tower and its language model.")
        return names

    @cached_property
    def end_tokens(self) -> list[int]:
        """Tokens that end an answer, the tokenizer's own end of text first."""
        stated = getattr(self.model.generation_config, "eos_token_id", None)
        ids = [self.tokenizer.eos_token_id, *(stated if isinstance(stated, list) else [stated])]
        utterance = getattr(self.processor, "end_of_utterance_token", None)
        if utterance is not None:
            ids.append(self.tokenizer.convert_tokens_to_ids(utterance))
        found = list(dict.fromkeys(token for token in ids if token is not None))
        if not found:
            raise ModelError(f"the tokenizer of {self.name} has no token that ends a text; set its eos_token.")
        return found

    @property
    def max_length(self) -> int:
        """Tokens a sample may have, those of its pictures included."""
        stated = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return min(int(stated or 10**9), int(self.tokenizer.model_max_length or 10**9))

    @property
    def width(self) -> int:
        """D, the width of its hidden states."""
        return int(self.model.config.get_text_config().hidden_size)

    def prompt(self, question: str, pictures: int = 1) -> str:
        """The question as the model was taught to read one, up to where its answer begins.

        Args:
            question: its marks `<image>` say where the pictures stand; without a mark they stand in front.
            pictures: how many there are.
        """
        return self.rendered([self.user(question, pictures)], opened=True)

    def answered(self, question: str, answer: str, pictures: int = 1) -> str:
        """What follows `prompt(question, pictures)` where the model answers so, its end token included.

        A template that ends an answer with nothing (LLaVA-1.5's) is given the tokenizer's end of text.
        """
        prompt, whole = self.prompt(question, pictures), self.rendered([self.user(question, pictures), reply(answer)])
        # Some templates write an earlier turn otherwise than one that is yet to come.
        text = whole[len(prompt) :] if whole.startswith(prompt) else answer
        return text[: self.end_of(text)] or self.ended(text)

    def user(self, question: str, pictures: int = 1) -> dict[str, Any]:
        """The question as a message of a conversation; arguments as `prompt`.

        Pictures that stand in front of all text are left to the template, as a question without marks is. Where the
        template would put later ones in front too (LLaVA-1.5's), their token is written into the text.
        """
        picture, pieces = {"type": "image"}, question.split(MARK)
        leading = pictures
        if len(pieces) > 1:
            leading = next((place for place, piece in enumerate(pieces) if piece.strip()), len(pieces) - 1)
            pieces = pieces[leading:]
            pieces[0] = pieces[0].lstrip() if leading else pieces[0]
        content: list[dict[str, str]] = [picture] * leading
        if not self._keeps_order:
            pieces = [self.processor.image_token.join(pieces)]
        for place, piece in enumerate(pieces):
            content += [picture] if place else []
            content += [{"type": "text", "text": piece}] if piece or not content else []
        return {"role": "user", "content": content}

    def rendered(self, messages: Sequence[Mapping[str, Any]], *, opened: bool = False) -> str:
        """A conversation as the chat template writes it, or as LLaVA-1.5 does where there is none.

        Args:
            messages: of `user` and `reply`.
            opened: up to where the next answer begins.
        """
        if self._has_template:
            return str(self.processor.apply_chat_template(list(messages), add_generation_prompt=opened))
        parts = [
            "".join(part.get("text", f"{self.processor.image_token}\n") for part in m["content"]) for m in messages
        ]
        said = [
            f"USER: {part}" if message["role"] == "user" else f" ASSISTANT: {part}"
            for message, part in zip(messages, parts, strict=True)
        ]
        return "".join([*said, " ASSISTANT:" if opened else ""])

    def end_of(self, text: str) -> int:
        """Where the first token that ends an answer ends in a rendered text; 0 where there is none."""
        return min((text.index(end) + len(end) for end in self._ends if end in text), default=0)

    def ended(self, text: str) -> str:
        """A text that its template ends with nothing, and the token that ends it."""
        return text.rstrip() + self._ends[0]

    def token_ids(self, text: str) -> list[int]:
        """Tokens of a rendered text as the processor makes them, a mark of a picture being one token."""
        return list(self._tokenized(text)["input_ids"])

    def token_places(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """`token_ids`, and where in the text each of them begins and ends; (0, 0) for one that is not in the text.

        Raises: ModelError for a tokenizer that cannot tell.
        """
        try:
            found = self._tokenized(text, return_offsets_mapping=True)
        except NotImplementedError as error:
            raise ModelError(
                f"the tokenizer of {self.name} ({type(self.tokenizer).__name__}) cannot say where its tokens stand in "
                "a text; a fast tokenizer (tokenizer.json) can."
            ) from error
        return list(found["input_ids"]), list(found["offset_mapping"])

    def inputs(self, prompts: Sequence[str], pictures: Sequence[Sequence[Image.Image]]) -> dict[str, Tensor]:
        """The model's inputs for rendered prompts [N] and each one's pictures, padded on the left.

        Raises: ModelError where a prompt has more or fewer marks than pictures.
        """
        images = [list(own) for own in pictures] if any(pictures) else None
        special = self._adds_special(prompts[0])
        try:
            with self._tokenizing:
                made = self.processor(
                    images=images, text=list(prompts), padding=True, return_tensors="pt", add_special_tokens=special
                )
        except (ValueError, StopIteration, IndexError) as error:
            raise ModelError(f"the processor of {self.name} refuses these prompts and pictures: {error}") from error
        return {key: value for key, value in made.items() if isinstance(value, Tensor)}

    def answer(
        self,
        pictures: Sequence[Picture | Sequence[Picture]],
        questions: Sequence[str],
        *,
        max_tokens: int = 64,
        beams: int = 1,
        batch_size: int = 8,
        branch: Branch = "f_r",
    ) -> list[str]:
        """One answer a question, decoded greedily or with beam search, in batches with a key–value cache.

        Args:
            pictures: one picture, or a list of them, for each question; files or decoded.
            max_tokens: of an answer.
            branch: f_g sends the pictures through W + ΔW, the tower for generated ones.

        Raises: ModelError for other numbers of pictures than of questions or than of marks; Unreadable.
        """
        if len(pictures) != len(questions):
            raise ModelError(f"{len(questions)} questions need as many pictures (or lists); got {len(pictures)}.")
        told: list[str] = []
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode(), self.through(branch), self.autocast():
                for start in range(0, len(questions), batch_size):
                    chosen = slice(start, start + batch_size)
                    told += self._answer(pictures[chosen], questions[chosen], max_tokens, beams)
        finally:
            self.model.train(was_training)
        return told

    @contextmanager
    def through(self, branch: Branch) -> Iterator[None]:
        """Within, the image tower is f_g = W + ΔW, or f_r = W; afterwards it is W again, bit for bit.

        Raises: ModelError for f_g where the tower is being trained: its gradients would be those of W.
        """
        if branch == "f_r" or not self.shift:
            yield
            return
        parameters = dict(self.vision.named_parameters())
        shifted = {name: parameters[name] for name in self.shift}
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in shifted.values()):
            raise ModelError("the image tower is trained and shifted at once; freeze it (requires_grad_(False)).")
        kept = {name: parameter.data for name, parameter in shifted.items()}
        try:
            for name, parameter in shifted.items():
                # f_g(x) = f(x; W + ΔW)
                parameter.data = kept[name] + self.shift[name].to(kept[name])
            yield
        finally:
            for name, parameter in shifted.items():
                parameter.data = kept[name]

    def autocast(self) -> Any:
        """What a forward pass outside of the trainer runs in: nothing where all weights are float32."""
        dtypes = {parameter.dtype for parameter in self.model.parameters()}
        if len(dtypes) == 1:
            return nullcontext()
        half = next(dtype for dtype in dtypes if dtype != torch.float32)
        return torch.autocast(self.device.type, dtype=half)

    def _answer(self, pictures: Sequence[Any], questions: Sequence[str], max_tokens: int, beams: int) -> list[str]:
        decoded = [[_decoded(one) for one in ([own] if isinstance(own, Picture) else own)] for own in pictures]
        prompts = [self.prompt(question, len(own)) for question, own in zip(questions, decoded, strict=True)]
        inputs = {key: value.to(self.device) for key, value in self.inputs(prompts, decoded).items()}
        made = self.model.generate(
            **inputs,
            max_new_tokens=max_tokens,
            num_beams=beams,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            use_cache=True,
            eos_token_id=self.end_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        answers = self.tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [answer.strip() for answer in answers]

    @property
    def _has_template(self) -> bool:
        return bool(getattr(self.processor, "chat_template", None))

    @cached_property
    def _ends(self) -> list[str]:
        return [str(self.tokenizer.convert_ids_to_tokens(token)) for token in self.end_tokens]

    @cached_property
    def _keeps_order(self) -> bool:
        """Whether the template leaves a picture between two texts there."""
        if not self._has_template:
            return False
        texts = [{"type": "text", "text": text} for text in ("\ue000", "\ue001")]
        written = self.rendered([{"role": "user", "content": [texts[0], {"type": "image"}, texts[1]]}])
        places = [written.find(found) for found in ("\ue000", self.processor.image_token, "\ue001")]
        return places == sorted(places)

    def _tokenized(self, text: str, **options: Any) -> Any:
        # Too long a text is told of by `supervised.check_samples`, once and with its name.
        with self._tokenizing:
            return self.tokenizer(text, add_special_tokens=self._adds_special(text), verbose=False, **options)

    def _adds_special(self, text: str) -> bool:
        # A template that writes the beginning of text itself must not get a second one.
        begin = self.tokenizer.bos_token
        return begin is None or not text.startswith(begin)


def load_multimodal(
    name_or_folder: str | Path,
    *,
    revision: str | None = None,
    dtype: Dtype = "float32",
    base: str | Path | None = None,
) -> MultimodalModel:
    """The multimodal model at a hub name or in a folder; a folder or run of `method: multimodal` loads with its base.

    Args:
        revision: a branch, tag or commit of a hub repository.
        dtype: of the weights; what was tuned stays float32.
        base: where the base model of a tuned one lies now, if it has moved.

    Raises: ModelError, with what to type, for what is not there or not multimodal, pickles, weights that lack tensors
        of the model, and packages that are missing.
    """
    folder = model_inside(Path(name_or_folder).expanduser())
    if is_tuned(folder):
        from gen2real.models.multimodal_folder import load_tuned

        return load_tuned(folder, dtype=dtype, base=base)
    return load_base(str(folder) if folder.exists() else str(name_or_folder), revision=revision, dtype=dtype)


def load_base(name: str, *, revision: str | None = None, dtype: Dtype = "float32") -> MultimodalModel:
    """A whole model, as transformers keeps one; `load_multimodal` comes here. Raises: as there."""
    import transformers

    folder = Path(name)
    if folder.exists() and not (folder / "config.json").is_file():
        raise ModelError(f"{name} is not a model folder: it has no config.json. {_WHAT_TO_TYPE}")
    with without_progress_bars():
        config = explained(name, transformers.AutoConfig.from_pretrained, revision=revision)
        known = transformers.AutoModelForImageTextToText._model_mapping
        if type(config) not in known:
            raise ModelError(f"{name} is of the type {config.model_type!r}, not a multimodal model. {_WHAT_TO_TYPE}")
        model = whole_model(name, transformers.AutoModelForImageTextToText, revision=revision, dtype=DTYPES[dtype])
        processor = load_processor(name, config, revision=revision)
    loaded = MultimodalModel(model.eval().requires_grad_(False), processor, name, revision=revision)
    # A merged model keeps the head that was tuned with it.
    loaded.head = load_head(folder, loaded.width)
    return loaded


def is_tuned(folder: Path) -> bool:
    """Whether a folder holds what `save_multimodal` wrote: an adapter that needs its base."""
    path = folder / "gen2real.json"
    try:
        return path.is_file() and read_json(path).get("kind") == "multimodal"
    except (json.JSONDecodeError, AttributeError):
        return False


def is_multimodal(name_or_folder: str | Path) -> bool:
    """Whether a folder, or a run's, holds a multimodal model, tuned or whole. A hub name is not looked up: False."""
    folder = model_inside(Path(name_or_folder).expanduser())
    if is_tuned(folder) or not (folder / "config.json").is_file():
        return is_tuned(folder)
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return read_json(folder / "config.json").get("model_type") in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def reply(answer: str) -> dict[str, Any]:
    """The answer as a message of a conversation (`MultimodalModel.rendered`)."""
    return {"role": "assistant", "content": [{"type": "text", "text": answer}]}


def _decoded(picture: Picture) -> Image.Image:
    return picture if isinstance(picture, Image.Image) else decode(picture)


_WHAT_TO_TYPE = (
    "Give a folder that transformers' AutoModelForImageTextToText can load, or a hub name such as "
    '"llava-hf/llava-1.5-7b-hf", "HuggingFaceTB/SmolVLM-256M-Instruct" or "Qwen/Qwen2-VL-2B-Instruct".'
)
