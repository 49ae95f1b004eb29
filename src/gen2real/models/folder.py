"""A classifier's model folder: an encoder folder that stock transformers loads, and a head beside it.

config.json, model.safetensors, tokenizer…, preprocessor_config.json    the encoder, with the tuned image tower
head.safetensors                                                        weight [C D], bias [C], feature_mean [D]
classes.json                                                            class names, in the head's order
gen2real.json                                                           what made it
README.md                                                               the model card
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen2real.errors import ModelError
from gen2real.files import atomic_folder, read_json, read_tensors, write_json, write_tensors
from gen2real.models.card import model_card
from gen2real.models.classifier import TextInitialisedClassifier
from gen2real.models.dual_encoder import (
    PREPROCESS_FILE,
    DualEncoder,
    load_dual_encoder,
    model_inside,
    refuse_to_replace,
)

FORMAT_VERSION = 1


@dataclass(frozen=True)
class LoadedClassifier:
    """What a model folder holds. `encoder.vision` and `classifier.vision` are the same module."""

    encoder: DualEncoder
    classifier: TextInitialisedClassifier
    class_names: list[str]
    made_by: dict[str, Any]


def save_classifier(
    folder: str | Path,
    encoder: DualEncoder,
    classifier: TextInitialisedClassifier,
    class_names: Sequence[str],
    *,
    made_by: Mapping[str, Any],
    card: str | None = None,
    findings: str = "",
) -> None:
    """Writes a model folder in one step; `load_classifier` gives the same logits back bit for bit.

    Args:
        folder: new, empty, or an older model folder, which is replaced.
        encoder: gives configuration, text tower, tokenizer and preprocessing; its own image tower is not written.
        classifier: gives the image tower and the head.
        class_names: C names in the head's order; names may repeat.
        made_by: what made the model (config, versions, seeds, data fingerprints), as JSON; it becomes gen2real.json.
        card: README.md; one with the code to load the model is written where None.
        findings: Markdown for that card: what the model was made of, and how well it does.

    Raises: ModelError where the names do not fit the head, the towers do not fit each other, LoRA layers are not
        merged, or `folder` holds something that is not a model.
    """
    target = Path(folder)
    classes = classifier.head.out_features
    if isinstance(class_names, str) or len(class_names) != classes:
        raise ModelError(f"the head has {classes} classes; class_names has {len(class_names)} entries.")
    refuse_to_replace(target)
    head = {"weight": classifier.head.weight, "bias": classifier.head.bias, "feature_mean": classifier.feature_mean}
    with atomic_folder(target) as partial:
        encoder.write_files(partial, vision=classifier.vision)
        write_tensors(partial / "head.safetensors", head)
        write_json(partial / "classes.json", list(class_names))
        write_json(partial / "gen2real.json", {"version": FORMAT_VERSION, "made_by": dict(made_by)})
        own = (partial / PREPROCESS_FILE).is_file()
        if card is None:
            card = model_card(encoder, class_names, made_by, target.name, own_pixels=own, findings=findings)
        (partial / "README.md").write_text(card, encoding="utf-8")


def load_classifier(folder: str | Path) -> LoadedClassifier:
    """The classifier of a folder that `save_classifier` wrote, or of the run it lies in, in evaluation mode.

    Raises: ModelError where the folder is not there, has no head (an encoder alone loads with `load_dual_encoder`), is
        of a newer format, holds a pickle, or its parts do not fit each other.
    """
    source = model_inside(Path(folder))
    if not source.is_dir():
        raise ModelError(f"there is no folder {source}. Give a model folder, as gen2real train writes it.")
    if not is_model_folder(source):
        raise ModelError(
            f"{source} is no classifier's model folder: it needs gen2real.json, classes.json and head.safetensors. "
            "A dual encoder without a head loads with gen2real.models.load_dual_encoder."
        )
    stored = read_json(source / "gen2real.json")
    if stored.get("version") != FORMAT_VERSION:
        raise ModelError(
            f"{source} has the format version {stored.get('version')!r}; this gen2real reads {FORMAT_VERSION}. "
            "Install the gen2real that wrote it."
        )
    names, head = read_json(source / "classes.json"), read_tensors(source / "head.safetensors")
    encoder = load_dual_encoder(source)
    expected = {"weight": (len(names), encoder.embedding_dim), "bias": (len(names),)}
    expected["feature_mean"] = (encoder.embedding_dim,)
    found = {name: tuple(tensor.shape) for name, tensor in head.items()}
    if found != expected:
        raise ModelError(f"head.safetensors in {source} holds {found}; classes.json and the encoder need {expected}.")
    classifier = TextInitialisedClassifier(
        encoder.vision, head["weight"], head["bias"], feature_mean=head["feature_mean"]
    )
    return LoadedClassifier(encoder, classifier.eval(), names, stored["made_by"])


def is_model_folder(path: str | Path) -> bool:
    """Whether `path` is a classifier's model folder, or the folder of a run that holds one."""
    return all(
        (model_inside(Path(path)) / name).is_file() for name in ("gen2real.json", "classes.json", "head.safetensors")
    )
