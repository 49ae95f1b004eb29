"""The processor of a multimodal model: pictures and text in, model inputs out, with or without torchvision.

Several processors (Qwen2-VL, LLaVA-OneVision, SmolVLM) also read videos, and transformers makes their video half with
torchvision alone. Pictures need none of it, so where torchvision is missing the processor is made without that half.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from gen2real.errors import ModelError
from gen2real.models.hub_loading import explained

_VIDEO = "video_processor"


def load_processor(name: str, config: Any, *, revision: str | None = None) -> Any:
    """The processor in a folder or hub repository; `config` is the model's.

    Raises: ModelError for what cannot be found, lacks a tokenizer or an image processor, or needs a package.
    """
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    kind = PROCESSOR_MAPPING.get(type(config), None)
    if kind is not None and _VIDEO in kind.get_attributes() and find_spec("torchvision") is None:
        processor = _without_videos(name, kind, revision)
    else:
        processor = explained(name, transformers.AutoProcessor.from_pretrained, revision=revision)
    missing = [part for part in ("tokenizer", "image_processor") if getattr(processor, part, None) is None]
    if missing or not hasattr(processor, "image_token"):
        lacking = " and ".join(missing) or "token that stands for a picture (image_token)"
        raise ModelError(
            f"the processor of {name} ({type(processor).__name__}) has no {lacking}. Give the folder or hub name of a "
            "model that answers on pictures, such as llava-hf/llava-1.5-7b-hf, with its processor's files."
        )
    return processor


def _without_videos(name: str, kind: Any, revision: str | None) -> Any:
    import transformers

    described, _ = explained(name, kind.get_processor_dict, revision=revision)
    loaders = {
        "tokenizer": transformers.AutoTokenizer.from_pretrained,
        "image_processor": transformers.AutoImageProcessor.from_pretrained,
    }
    parts = [
        explained(name, loaders[part], revision=revision) if part in loaders else None for part in kind.get_attributes()
    ]

    def check(self: Any, argument: str, value: Any) -> Any:
        return None if argument == _VIDEO else kind.check_argument_for_proper_class(self, argument, value)

    def to_dict(self: Any) -> dict[str, Any]:
        # What is saved names the video half again, so that it is there where torchvision is.
        told = {key: value for key, value in kind.to_dict(self).items() if key != _VIDEO}
        return told | ({_VIDEO: described[_VIDEO]} if _VIDEO in described else {})

    # The files name the class, so the name stays.
    pictures_only: Any = type(
        kind.__name__, (kind,), {"check_argument_for_proper_class": check, "to_dict": to_dict, "__doc__": kind.__doc__}
    )
    processor = explained(name, lambda _: pictures_only.from_args_and_dict(parts, described))
    # From here on there are two parts, and `save_pretrained` writes each of them.
    pictures_only.get_attributes = classmethod(lambda cls: list(loaders))
    return processor
