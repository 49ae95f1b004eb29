"""One file or folder a system. `METHODS` maps the word in a recipe to the module that runs it and the config it takes.

regft  name-only transfer; with it linear probing, LP-FT, plain fine-tuning, soft targets, VICReg's normaliser
flyp   contrastive fine-tuning of both encoders
gmail  a tower for generated pictures, aligned to the one for real pictures
soup   the mean of several runs' weights
multimodal  LoRA and projector of a LLaVA (or another multimodal model) on generated pictures
unidiff  a CLIP and a Stable Diffusion tuned together on a small captioned set
sugar  one multimodal model that answers and embeds, on interleaved texts and pictures
captioning  ClipCap on generated pictures, through an aligned encoder or a plain one
generate  an image set drawn by a text-to-image model, as a step between trainings
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from gen2real.config import Config
from gen2real.generation.settings import GenerateConfig
from gen2real.methods.captioning.settings import CaptioningConfig
from gen2real.methods.gmail.settings import GMAILConfig
from gen2real.methods.multimodal.settings import MultimodalConfig
from gen2real.methods.settings import FLYPConfig, RegFTConfig, SoupConfig
from gen2real.methods.sugar.settings import SugarConfig
from gen2real.methods.unidiff.settings import UniDiffConfig

METHODS = {
    "regft": "gen2real.methods.regft",
    "flyp": "gen2real.methods.flyp",
    "gmail": "gen2real.methods.gmail.algorithm",
    "soup": "gen2real.methods.soup",
    "captioning": "gen2real.methods.captioning.algorithm",
    "multimodal": "gen2real.methods.multimodal.algorithm",
    "generate": "gen2real.methods.generate",
    "unidiff": "gen2real.methods.unidiff.algorithm",
    "sugar": "gen2real.methods.sugar.algorithm",
}

CONFIGS: dict[str, type[Config]] = {
    "regft": RegFTConfig,
    "flyp": FLYPConfig,
    "gmail": GMAILConfig,
    "soup": SoupConfig,
    "captioning": CaptioningConfig,
    "multimodal": MultimodalConfig,
    "generate": GenerateConfig,
    "unidiff": UniDiffConfig,
    "sugar": SugarConfig,
}


def run(config: Any, *, quiet: bool = False) -> Any:
    """Runs any method's config. Returns its result; None on the processes other than the first."""
    return import_module(METHODS[config.method]).run(config, quiet=quiet)
