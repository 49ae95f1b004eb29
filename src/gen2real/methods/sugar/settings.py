"""What a recipe of `method: sugar` may say; nothing heavy is imported here.

Chow et al., "Unified Generative and Discriminative Training for Multi-modal Large Language Models", NeurIPS 2024, arXiv
2411.00304. The paper gives the optimiser, the adapters and the form of the losses; α, δ, batch, head and many more it
does not, so those defaults are ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from gen2real.config import Config, RecipeName, RecipePath
from gen2real.methods.multimodal.settings import DecodingSettings, LanguageLoraSettings, MultimodalSettings
from gen2real.methods.settings import SourceSettings, as_source, one_or_more
from gen2real.training.settings import OptimizerSettings, ScheduleSettings, TrainingSettings

TaskName = Literal[
    "questions",
    "yes-no",
    "choice",
    "knowledge",
    "captioning",
    "position",
    "retrieval",
    "story-retrieval",
    "composed-retrieval",
    "winoground",
]

LOOKED_UP: tuple[TaskName, ...] = ("questions", "yes-no", "choice", "knowledge")
"""Tasks of questions, before which what was looked up is put."""


class SequenceData(Config):
    """Interleaved samples to learn from: JSON Lines as `gen2real import` writes them."""

    train: Annotated[
        tuple[Annotated[SourceSettings, BeforeValidator(as_source)], ...],
        BeforeValidator(one_or_more),
        Field(min_length=1),
    ]
    samples: int | None = Field(
        None, ge=1, description="train on so many of each source; a larger number's contain a smaller's"
    )
    max_length: int | None = Field(None, ge=16, description="tokens of a sample, pictures included; None: the model's")
    packed: bool = Field(
        False,
        description="several samples in a row as long as the batch's longest, none of which sees another: faster where "
        "lengths differ much (ours)",
    )
    on_unreadable: Literal["error", "skip"] = "error"


class TeacherSettings(Config):
    """Frozen encoders whose similarities are the labels (paper, section 3.2: DINOv2-base, BGE-base, CLIP ViT-L/14)."""

    image: RecipeName | None = Field(
        None, description="pictures among each other; None: the joint one's image tower (ours)"
    )
    text: RecipeName | None = Field(
        None, description="sentences among each other; None: the joint one's text tower (ours)"
    )
    joint: RecipeName = Field(description="pictures against sentences: a dual encoder")
    text_pooling: Literal["first", "mean"] = Field("first", description="of the text encoder; first: BGE's [CLS]")


class KernelSettings(Config):
    """How alike two prefixes ought to be: their slices (pictures and sentences) compared by the teachers."""

    local: Literal["triple", "joint"] = Field(
        "triple", description="triple (paper, equation 4): the teacher by modality; joint: one encoder, the control"
    )
    alignment: Literal["gak", "mean"] = Field(
        "gak", description="gak (paper, equation 2): over all orderly alignments; mean: of mean slices, the control"
    )
    bandwidth: float = Field(1.0, gt=0, description="δ of σ = δ√((n+m)/2); 1 is ours")
    normalize: Literal["paths", "self", "none"] = Field(
        "paths",
        description="paths (ours): the mean over alignments; self: K/√(Kxx·Kyy), near 0 where lengths differ much; "
        "none: as printed, up to the number of alignments",
    )
    calibrate: bool = Field(
        False, description="bring the three branches to one mean and spread, measured on the training slices (ours)"
    )
    same_sample: bool = Field(True, description="prefixes of one sample are to be alike: 1 (paper)")


class DiscriminativeSettings(Config):
    """L_d, and the controls in its place."""

    weight: float = Field(1.0, ge=0, description="α of L = L_g + α·L_d; 1 is ours, 0 is plain fine-tuning")
    form: Literal["structure", "infonce"] = Field(
        "structure",
        description="structure (paper, equation 3); infonce, the rival: a sample is cut between a picture and a text, "
        "and each half is to find the other among the other side's halves of the batch",
    )
    scale: Literal["mean", "rows"] = Field(
        "mean", description="mean (ours): 1/n², whatever the batch; rows: 1/n as printed, which grows with n"
    )
    readouts: int = Field(4, ge=1, description="prefixes read of one sample, drawn by seed; 4 is ours")
    image_readout: Literal["mean", "last"] = Field(
        "mean", description="of a picture's tokens; mean (paper), last: the control"
    )
    reach: Literal["adapters", "head"] = Field(
        "adapters",
        description="what L_d teaches: adapters (paper): LoRA and head; head, a control (ours): the head alone, "
        "on a model tuned as without it",
    )
    temperature: float = Field(0.05, gt=0, description="of infonce")
    chunk: int | None = Field(
        None, ge=1, description="samples of infonce that go through the model at once (GradCache, arXiv 2101.06983)"
    )


class HeadSettings(Config):
    """The retrieval head: two layers with a GELU, unit length (its sizes are ours; the paper says MLP)."""

    width: int | None = Field(None, ge=1, description="None: the language model's")
    dim: int | None = Field(None, ge=1, description="of an embedding; None: the language model's")
    whiten: bool = Field(
        False,
        description="whiten states before the head (ours, arXiv 2103.15316); without L_d, they are what is searched by",
    )
    first_updates: int = Field(
        0, ge=0, description="of the head alone, on states read once, before those of the whole model (ours)"
    )
    samples: int = Field(1000, ge=2, description="whose states are read before training, for both of these")


class TaskSettings(Config):
    """Something to measure on: a task, and the file that asks it."""

    task: TaskName
    path: RecipePath = Field(description="JSON Lines, or for captioning and retrieval an image set with captions")
    limit: int | None = Field(None, ge=1, description="the first so many")


class TemplateSettings(Config):
    """How what was found is put before a question (`evaluation/rag.py`)."""

    entry: str = Field(description="of each, {question} and {answer}")
    whole: str = Field(description="{found}, the entries, the most similar last, and {question}, what is asked")


class RagSettings(Config):
    """Retrieval-augmented answers in evaluation, by the model's own embeddings."""

    knowledge: RecipePath = Field(description="JSON Lines of questions with answers: what is looked up")
    counts: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 3), min_length=1, description="k, a reading each; k = 0 is the plain reading"
    )
    tasks: tuple[str, ...] | None = Field(
        None, description="names of `evaluation` that it is read of; None: all of questions"
    )
    template: Literal["exemplar", "reference"] | TemplateSettings = Field(
        "exemplar", description="exemplar (ours): question and answer as an example; reference: the paper's for FVQA"
    )
    threshold: float | None = Field(None, ge=-1, le=1, description="less similar ones are left out; None: none is")
    retriever: RecipeName | None = Field(
        None, description="a dual encoder in place of the model's own embeddings: the control"
    )


class SugarConfig(Config):
    """One multimodal model, trained at once to go on with a text and to tell alike from unlike."""

    method: Literal["sugar"] = "sugar"
    output: Path
    model: MultimodalSettings
    data: SequenceData
    teachers: TeacherSettings
    kernel: KernelSettings = KernelSettings()
    discriminative: DiscriminativeSettings = DiscriminativeSettings()
    head: HeadSettings = HeadSettings()
    lora: LanguageLoraSettings = LanguageLoraSettings(rank=128, alpha=256)
    evaluation: dict[str, TaskSettings] = Field(
        {}, description="by a name of your own, which stands before the measures' where there are several tasks"
    )
    read_base: bool = Field(True, description="measure the model as it was too; off where another run has done so")
    rag: dict[str, RagSettings] = Field(
        {}, description="by a name of your own: with `own`, readings own_1 and own_3 stand beside the plain one"
    )
    decoding: DecodingSettings = DecodingSettings()
    optimizer: OptimizerSettings = OptimizerSettings(lr=1e-4, head_lr=1e-4, weight_decay=0.0)
    schedule: ScheduleSettings = ScheduleSettings(warmup_fraction=0.03)
    training: TrainingSettings = TrainingSettings(epochs=1, batch_size=128)
    save_model: bool = True
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _settings_that_agree(self) -> SugarConfig:
        for name, rag in self.rag.items():
            able = [own for own, task in self.evaluation.items() if task.task in LOOKED_UP]
            if unable := [task for task in rag.tasks or () if task not in able]:
                raise ValueError(
                    f"rag.{name}.tasks: {unable[0]!r} is no task of questions in evaluation; those are: "
                    f"{', '.join(able) or 'none'}"
                )
        if self.model.dtype != "float32" and self.training.precision == "float32":
            raise ValueError(
                "model.dtype: bfloat16 is trained in mixed precision; set training.precision=bfloat16 (or auto)"
            )
        if self.training.accumulation > 1 and self.discriminative.weight > 0:
            raise ValueError(
                "training.accumulation would compare each prefix with fewer others; use several processes, or "
                "training.gradient_checkpointing"
            )
        return self
