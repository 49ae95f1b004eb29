"""A captioner's model folder: every part of it loads in stock transformers.

encoder/                       the dual encoder whose embeddings of real pictures are mapped
decoder/                       the language model and its tokenizer, in the hub's layout
mapper.safetensors             the mapper; with two projections mapper_real.safetensors and mapper_generated.safetensors
captioner.json                 the mapper's shape and how captions are read and ended
gen2real.json                  what made it
README.md                      the model card
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gen2real.errors import ModelError
from gen2real.files import atomic_folder, read_json, read_tensors, write_json, write_tensors
from gen2real.imagesets.decoding import decode
from gen2real.imagesets.loading import Pictures
from gen2real.models.captioner import Captioner, load_decoder
from gen2real.models.card import plain_text
from gen2real.models.dual_encoder import DualEncoder, load_dual_encoder, model_inside, refuse_to_replace
from gen2real.models.hub_loading import without_progress_bars
from gen2real.models.prefix_mappers import make_mapper

FORMAT_VERSION = 1
_FILE = "captioner.json"


@dataclass(frozen=True)
class LoadedCaptioner:
    """What a captioner's folder holds; both parts are in evaluation mode."""

    encoder: DualEncoder
    captioner: Captioner
    made_by: dict[str, Any]

    def captions(self, pictures: Pictures | Sequence[str | Path], *, beams: int = 5, batch_size: int = 64) -> list[str]:
        """A caption for each real picture, in order. beams: 1 is greedy.

        Raises: Unreadable (an ImageSetError) or UnreadablePictures for pictures that do not decode.
        """
        told: list[str] = []
        for start in range(0, len(pictures), batch_size):
            rows = range(start, min(start + batch_size, len(pictures)))
            features = self._embedded(pictures, rows)
            told += self.captioner.captions(features, beams=beams, batch_size=batch_size)
        return told

    @torch.no_grad()
    def _embedded(self, pictures: Pictures | Sequence[str | Path], rows: range) -> Tensor:
        prepare = self.encoder.preprocess
        if isinstance(pictures, Pictures):
            pixels = pictures.evaluation(rows)
        else:
            pixels = torch.stack([prepare.geometry(decode(pictures[row])) for row in rows])
        device = next(self.encoder.vision.parameters()).device
        return self.encoder.encode_image(prepare.normalize(pixels.to(device))).float()


def save_captioner(
    folder: str | Path,
    captioner: Captioner,
    encoder: DualEncoder,
    *,
    made_by: Mapping[str, Any],
    findings: str = "",
) -> None:
    """Writes the folder in one step; `load_captioner` gives the same captions back.

    Args:
        folder: new, empty, or an older model folder, which is replaced.
        encoder: whose embeddings of real pictures the mapper for real pictures takes.
        made_by: what made the model, as JSON; it becomes gen2real.json.
        findings: Markdown for the card.

    Raises: ModelError where `folder` holds something that is not a model.
    """
    target = Path(folder)
    refuse_to_replace(target)
    with atomic_folder(target) as partial:
        for part in ("encoder", "decoder"):
            (partial / part).mkdir()
        encoder.write_files(partial / "encoder")
        with without_progress_bars():
            captioner.decoder.save_pretrained(partial / "decoder")
        captioner.tokenizer.save_pretrained(partial / "decoder")
        for name, mapper in captioner.mappers.items():
            write_tensors(partial / _mapper_file(name), mapper.state_dict())
        described = {
            "mapper": captioner.description,
            "projections": list(captioner.mappers),
            "normalize": captioner.normalize,
            "ends_at_full_stop": captioner.ends_at_full_stop,
            "max_tokens": captioner.max_tokens,
        }
        write_json(partial / _FILE, {"version": FORMAT_VERSION, **described})
        write_json(partial / "gen2real.json", {"version": FORMAT_VERSION, "made_by": dict(made_by)})
        (partial / "README.md").write_text(_card(target.name, captioner, made_by, findings), encoding="utf-8")


def load_captioner(folder_or_run: str | Path) -> LoadedCaptioner:
    """The captioner of a model folder, or of the folder of the run that made it.

    Raises: ModelError where there is none, it is of a newer format, holds a pickle, or its parts do not fit.
    """
    source = captioner_folder(folder_or_run)
    described = read_json(source / _FILE)
    if described.get("version") != FORMAT_VERSION:
        raise ModelError(
            f"{source} has the format version {described.get('version')!r}; this gen2real reads {FORMAT_VERSION}. "
            "Install the gen2real that wrote it."
        )
    encoder = load_dual_encoder(source / "encoder")
    decoder, tokenizer = load_decoder(source / "decoder")
    mappers = {}
    for name in described["projections"]:
        mappers[name] = make_mapper(**described["mapper"])
        try:
            mappers[name].load_state_dict(read_tensors(source / _mapper_file(name)))
        except RuntimeError as error:
            raise ModelError(f"{source / _mapper_file(name)} does not fit {_FILE} beside it: {error}") from error
    if encoder.embedding_dim != described["mapper"]["features"]:
        raise ModelError(
            f"the mapper in {source} takes embeddings of {described['mapper']['features']} numbers; the encoder "
            f"beside it gives {encoder.embedding_dim}. Restore the folder or make it again."
        )
    captioner = Captioner(
        decoder,
        tokenizer,
        mappers["shared"] if list(mappers) == ["shared"] else mappers,
        described["mapper"],
        normalize=described["normalize"],
        ends_at_full_stop=described["ends_at_full_stop"],
        max_tokens=described["max_tokens"],
    )
    return LoadedCaptioner(encoder, captioner.eval(), read_json(source / "gen2real.json")["made_by"])


def is_captioner(folder_or_run: str | Path) -> bool:
    """Whether there is a captioner: in a model folder, or in a run's folder."""
    return (model_inside(Path(folder_or_run).expanduser()) / _FILE).is_file()


def captioner_folder(folder_or_run: str | Path) -> Path:
    """The model folder itself. Raises: ModelError where there is none."""
    source = Path(folder_or_run).expanduser()
    if not source.is_dir():
        raise ModelError(f"there is no folder {source}. Give a captioner's model folder, or a run of captioning.")
    if not is_captioner(source):
        raise ModelError(
            f"{source} holds no captioner ({_FILE}). Train one with a recipe of method: captioning and "
            "save_model: true, and give its run's folder or the model/ in it."
        )
    return model_inside(source)


def _mapper_file(name: str) -> str:
    return "mapper.safetensors" if name == "shared" else f"mapper_{name}.safetensors"


def _card(title: str, captioner: Captioner, made_by: Mapping[str, Any], findings: str) -> str:
    front = {
        "library_name": "gen2real",
        "pipeline_tag": "image-to-text",
        "tags": ["gen2real", "image-captioning", "trained-on-generated-images"],
    }
    # JSON is YAML, and quotes whatever needs quoting.
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", ""]
    kind, length = captioner.description["kind"], captioner.description["prefix_length"]
    lines += [
        f"# {plain_text(title)}",
        "",
        f"A captioner: ClipCap with a mapper of kind {kind} and prefix {length}.",
        "",
    ]
    lines += [findings, ""] if findings else []
    lines += ["## Use", "", "```python", _USE, "```", ""]
    lines += ["`encoder/` and `decoder/` load in stock transformers, each by itself.", ""]
    made = json.dumps(dict(made_by), indent=2, ensure_ascii=False).splitlines()
    return "\n".join([*lines, "## Made by", "", *(f"    {line}" for line in made), ""])


_USE = """from gen2real.models import load_captioner

print(load_captioner("this folder").captions(["photo.jpg"]))"""
