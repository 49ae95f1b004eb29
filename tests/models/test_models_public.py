"""The room's public names, and that importing it costs nothing."""

from __future__ import annotations

import subprocess
import sys

import gen2real.models


def test_public_names() -> None:
    assert gen2real.models.__all__ == [
        "Aligned", "Captioner", "Diffusion", "DualEncoder", "Embedder", "Joint", "LoadedCaptioner",
        "LoadedClassifier", "MultimodalModel", "RetrievalHead", "Sequences", "ShiftedTower",
        "TextInitialisedClassifier", "TwoBranches", "TwoTowers", "add_lora", "block_features", "encode_sequences",
        "greedy_soup", "interpolate", "is_aligned", "is_captioner", "is_model_folder", "load_aligned",
        "load_captioner", "load_classifier", "load_decoder", "load_diffusion", "load_dual_encoder", "load_joint",
        "load_multimodal", "merge_lora", "new_captioner", "read_out", "save_adapter", "save_aligned",
        "save_captioner", "save_classifier", "save_multimodal", "shift_of", "stretch_positions", "text_head",
        "uniform_soup", "with_shift",
    ]  # fmt: skip
    for name in gen2real.models.__all__:
        assert getattr(gen2real.models, name).__module__.startswith("gen2real.models.")


def test_import_is_cheap() -> None:
    heavy = "[name for name in ('torch', 'transformers', 'peft') if name in sys.modules]"
    code = f"import sys, gen2real.models, gen2real.prompts; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
