"""A tiny image-classification model on disk, as a safety model comes from the hub."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from gen2real.models.hub_loading import without_progress_bars

LABELS = ("Drawings", "Hentai", "Neutral", "PORN", "Sexy")


def tiny_safety(folder: Path, labels=LABELS, problem: str = "single_label_classification") -> Path:
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8,
        id2label=dict(enumerate(labels)), label2id={label: place for place, label in enumerate(labels)},
        problem_type=problem,
    )  # fmt: skip
    torch.manual_seed(1)
    model = ViTForImageClassification(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with without_progress_bars():
        model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder
