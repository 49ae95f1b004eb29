"""Train vision-language models on generated images so that they work on real ones.

The public names are listed in `__all__` and imported when first asked for, so that `import gen2real` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gen2real.comparison import compare as compare
    from gen2real.config import Config as Config
    from gen2real.config import load_recipe as load_recipe
    from gen2real.curation.curating import curate as curate
    from gen2real.curation.settings import CurateConfig as CurateConfig
    from gen2real.errors import Gen2RealError as Gen2RealError
    from gen2real.generation import GenerateConfig as GenerateConfig
    from gen2real.generation import generate as generate
    from gen2real.generation import redraw as redraw
    from gen2real.imagesets import ImageSet as ImageSet
    from gen2real.methods import run as run
    from gen2real.methods.captioning.settings import CaptioningConfig as CaptioningConfig
    from gen2real.methods.finished import blend_models as blend_models
    from gen2real.methods.finished import evaluate_model as evaluate_model
    from gen2real.methods.finished import evaluate_retrieval as evaluate_retrieval
    from gen2real.methods.finished import gap_between as gap_between
    from gen2real.methods.finished_answers import answer_questions as answer_questions
    from gen2real.methods.finished_denoisers import (
        evaluate_diffusion_classification as evaluate_diffusion_classification,
    )
    from gen2real.methods.finished_denoisers import evaluate_reranking as evaluate_reranking
    from gen2real.methods.finished_drawings import evaluate_synthesis as evaluate_synthesis
    from gen2real.methods.finished_tasks import evaluate_task as evaluate_task
    from gen2real.methods.finished_texts import evaluate_captioning as evaluate_captioning
    from gen2real.methods.finished_texts import evaluate_questions as evaluate_questions
    from gen2real.methods.gmail.settings import GMAILConfig as GMAILConfig
    from gen2real.methods.multimodal.settings import MultimodalConfig as MultimodalConfig
    from gen2real.methods.settings import CompareConfig as CompareConfig
    from gen2real.methods.settings import FLYPConfig as FLYPConfig
    from gen2real.methods.settings import RegFTConfig as RegFTConfig
    from gen2real.methods.settings import SoupConfig as SoupConfig
    from gen2real.methods.sugar.settings import SugarConfig as SugarConfig
    from gen2real.methods.unidiff.settings import UniDiffConfig as UniDiffConfig
    from gen2real.models import load_aligned as load_aligned
    from gen2real.models import load_captioner as load_captioner
    from gen2real.models import load_classifier as load_classifier
    from gen2real.models import load_dual_encoder as load_dual_encoder
    from gen2real.models import load_multimodal as load_multimodal
    from gen2real.report import write_gallery as write_gallery
    from gen2real.report import write_report as write_report

__version__ = "0.1.0"

_EXPORTS = {
    "CaptioningConfig": "gen2real.methods.captioning.settings",
    "CompareConfig": "gen2real.methods.settings",
    "Config": "gen2real.config",
    "CurateConfig": "gen2real.curation.settings",
    "FLYPConfig": "gen2real.methods.settings",
    "GMAILConfig": "gen2real.methods.gmail.settings",
    "Gen2RealError": "gen2real.errors",
    "GenerateConfig": "gen2real.generation",
    "ImageSet": "gen2real.imagesets",
    "MultimodalConfig": "gen2real.methods.multimodal.settings",
    "RegFTConfig": "gen2real.methods.settings",
    "SoupConfig": "gen2real.methods.settings",
    "SugarConfig": "gen2real.methods.sugar.settings",
    "UniDiffConfig": "gen2real.methods.unidiff.settings",
    "blend_models": "gen2real.methods.finished",
    "compare": "gen2real.comparison",
    "curate": "gen2real.curation.curating",
    "evaluate_captioning": "gen2real.methods.finished_texts",
    "evaluate_model": "gen2real.methods.finished",
    "evaluate_questions": "gen2real.methods.finished_texts",
    "evaluate_reranking": "gen2real.methods.finished_denoisers",
    "evaluate_retrieval": "gen2real.methods.finished",
    "evaluate_diffusion_classification": "gen2real.methods.finished_denoisers",
    "evaluate_synthesis": "gen2real.methods.finished_drawings",
    "answer_questions": "gen2real.methods.finished_answers",
    "evaluate_task": "gen2real.methods.finished_tasks",
    "gap_between": "gen2real.methods.finished",
    "generate": "gen2real.generation",
    "load_aligned": "gen2real.models",
    "load_captioner": "gen2real.models",
    "load_classifier": "gen2real.models",
    "load_dual_encoder": "gen2real.models",
    "load_multimodal": "gen2real.models",
    "load_recipe": "gen2real.config",
    "redraw": "gen2real.generation",
    "run": "gen2real.methods",
    "write_gallery": "gen2real.report",
    "write_report": "gen2real.report",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
