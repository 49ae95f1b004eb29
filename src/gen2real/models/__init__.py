"""Models: dual encoders, the text-initialised classifier, adapters, weight-space arithmetic, model folders.

dual_encoder.py            DualEncoder, load_dual_encoder
transformers_encoders.py   CLIP, SigLIP and SigLIP 2 of transformers
hub_preprocess.py          the hub's image-processor settings → Preprocess
towers.py                  TwoTowers: the user's own image and text towers
classifier.py              text_head, TextInitialisedClassifier
adapters.py                add_lora, merge_lora, save_adapter
weights.py                 interpolate, uniform_soup, greedy_soup
captioner.py               Captioner (mapper + language model), prefix_mappers.py its mappers
captioner_folder.py        save_captioner, load_captioner
diffusion.py               Diffusion, load_diffusion, block_features; joint.py: a CLIP and a Diffusion, tuned together
folder.py                  save_classifier, load_classifier
aligned.py                 ShiftedTower, Aligned, save_aligned, load_aligned
image_encoder.py           load_image_encoder: whatever looks at pictures, with a text tower or without
text_encoder.py            load_text_encoder: whatever reads sentences, by itself or as a dual encoder
long_text.py               stretch_positions
multimodal.py              MultimodalModel, load_multimodal; multimodal_processor.py its processor without torchvision
multimodal_shift.py        with_shift: an alignment in a multimodal model's image tower
multimodal_folder.py       make_trainable, save_multimodal, merge, save_whole
supervised.py              Sample, supervise, check_samples: questions with known answers
sequences.py               encode_sequences, pack, check_sequences: pictures and texts in any order;
                           conversations.py: as the chat template writes them
hidden_states.py           hidden_states, next_token_logits: one forward pass for both
retrieval_head.py          RetrievalHead, read_out; embedder.py: Embedder, of texts and pictures

The names are imported when first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gen2real.models.adapters import add_lora, merge_lora, save_adapter
    from gen2real.models.aligned import (
        Aligned,
        ShiftedTower,
        TwoBranches,
        is_aligned,
        load_aligned,
        save_aligned,
        shift_of,
    )
    from gen2real.models.captioner import Captioner, load_decoder, new_captioner
    from gen2real.models.captioner_folder import LoadedCaptioner, is_captioner, load_captioner, save_captioner
    from gen2real.models.classifier import TextInitialisedClassifier, text_head
    from gen2real.models.diffusion import Diffusion, block_features, load_diffusion
    from gen2real.models.dual_encoder import DualEncoder, load_dual_encoder
    from gen2real.models.embedder import Embedder
    from gen2real.models.folder import LoadedClassifier, is_model_folder, load_classifier, save_classifier
    from gen2real.models.joint import Joint, load_joint
    from gen2real.models.long_text import stretch_positions
    from gen2real.models.multimodal import MultimodalModel, load_multimodal
    from gen2real.models.multimodal_folder import save_multimodal
    from gen2real.models.multimodal_shift import with_shift
    from gen2real.models.retrieval_head import RetrievalHead, read_out
    from gen2real.models.sequences import Sequences, encode_sequences
    from gen2real.models.towers import TwoTowers
    from gen2real.models.weights import greedy_soup, interpolate, uniform_soup

__all__ = [
    "Aligned",
    "Captioner",
    "Diffusion",
    "DualEncoder",
    "Embedder",
    "Joint",
    "LoadedCaptioner",
    "LoadedClassifier",
    "MultimodalModel",
    "RetrievalHead",
    "Sequences",
    "ShiftedTower",
    "TextInitialisedClassifier",
    "TwoBranches",
    "TwoTowers",
    "add_lora",
    "block_features",
    "encode_sequences",
    "greedy_soup",
    "interpolate",
    "is_aligned",
    "is_captioner",
    "is_model_folder",
    "load_aligned",
    "load_captioner",
    "load_classifier",
    "load_decoder",
    "load_diffusion",
    "load_dual_encoder",
    "load_joint",
    "load_multimodal",
    "merge_lora",
    "new_captioner",
    "read_out",
    "save_adapter",
    "save_aligned",
    "save_captioner",
    "save_classifier",
    "save_multimodal",
    "shift_of",
    "stretch_positions",
    "text_head",
    "uniform_soup",
    "with_shift",
]

_ROOM_OF = {
    "Aligned": "aligned",
    "Captioner": "captioner",
    "Diffusion": "diffusion",
    "DualEncoder": "dual_encoder",
    "Embedder": "embedder",
    "Joint": "joint",
    "LoadedCaptioner": "captioner_folder",
    "LoadedClassifier": "folder",
    "RetrievalHead": "retrieval_head",
    "Sequences": "sequences",
    "ShiftedTower": "aligned",
    "TextInitialisedClassifier": "classifier",
    "TwoBranches": "aligned",
    "TwoTowers": "towers",
    "MultimodalModel": "multimodal",
    "load_multimodal": "multimodal",
    "save_multimodal": "multimodal_folder",
    "with_shift": "multimodal_shift",
    "add_lora": "adapters",
    "block_features": "diffusion",
    "encode_sequences": "sequences",
    "greedy_soup": "weights",
    "interpolate": "weights",
    "is_aligned": "aligned",
    "is_captioner": "captioner_folder",
    "is_model_folder": "folder",
    "load_aligned": "aligned",
    "load_captioner": "captioner_folder",
    "load_classifier": "folder",
    "load_decoder": "captioner",
    "load_diffusion": "diffusion",
    "load_dual_encoder": "dual_encoder",
    "load_joint": "joint",
    "merge_lora": "adapters",
    "new_captioner": "captioner",
    "read_out": "retrieval_head",
    "save_adapter": "adapters",
    "save_aligned": "aligned",
    "save_captioner": "captioner_folder",
    "save_classifier": "folder",
    "shift_of": "aligned",
    "stretch_positions": "long_text",
    "text_head": "classifier",
    "uniform_soup": "weights",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
