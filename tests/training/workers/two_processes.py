"""What test_distributed.py runs in one process and in two: `python two_processes.py FOLDER CLIP PICTURES`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from tiny_training import Numbers, Part, mean_square, plain_model, state_of, trainer
from torch import Tensor, nn

from gen2real.config import parse_config
from gen2real.errors import NonFiniteLoss
from gen2real.files import write_json, write_tensors
from gen2real.methods.captioning.algorithm import run as run_captioning
from gen2real.methods.captioning.settings import CaptioningConfig
from gen2real.methods.flyp import FLYPConfig
from gen2real.methods.flyp import run as run_flyp
from gen2real.methods.gmail.algorithm import run as run_gmail
from gen2real.methods.gmail.settings import GMAILConfig
from gen2real.methods.multimodal.algorithm import run as run_multimodal
from gen2real.methods.multimodal.settings import MultimodalConfig
from gen2real.methods.regft import LossSettings, RegFTConfig, RegFTLoss
from gen2real.methods.regft import run as run_regft
from gen2real.methods.sugar.algorithm import run as run_sugar
from gen2real.methods.sugar.settings import SugarConfig
from gen2real.methods.unidiff.algorithm import run as run_unidiff
from gen2real.methods.unidiff.settings import UniDiffConfig
from gen2real.models.classifier import TextInitialisedClassifier
from gen2real.models.dual_encoder import load_dual_encoder
from gen2real.training.averaging import Average
from gen2real.training.chunking import in_chunks
from gen2real.training.conflict import cosines, gradients_of, pcgrad_correction
from gen2real.training.distributed import gather, rank, share, world_size

# With a large eps AdamW's update is linear in the gradient where that is almost nothing; rounding stays small.
SMOOTH = {"lr": 0.05, "eps": 1.0, "clip_norm": None}


def recipe(folder: Path, clip: str, pictures: str, **changes: Any) -> dict[str, Any]:
    """15 pictures to learn from: with batches of 7 the last one has a single picture, and one process none."""
    return {
        "output": str(folder),
        "encoder": {"name": clip},
        "data": {"generated": [pictures], "holdout": 0.1},
        "optimizer": SMOOTH,
        "schedule": {"name": "constant", "warmup_steps": 0},
        "training": {"batch_size": 7, "epochs": 1, "log_every": 1, **changes.pop("training", {})},
        "prompts": {"templates": ["a photo of {}", "{}, plain", "a square in {}"]},
        "ensemble": {"sweep": [0.5]},
        "save_model": False,
        **changes,
    }


def shifted(clip: str, pictures: str) -> dict[str, Any]:
    """15 generated pictures through W + ΔW and 6 real ones through W, by fives: a process may have none of a kind."""
    return {
        "encoder": {"init": f"{clip}-aligned"},
        "data": {"generated": [pictures], "holdout": 0.1, "real": {"path": f"{pictures}-real", "shots": 2}},
        "loss": {"soft_targets": 0.5},
        "training": {"batch_size": 5},
    }


def alignment(folder: Path, clip: str, pairs: tuple[str, str]) -> dict[str, Any]:
    """15 pairs in batches of 7: every term of the loss, the last batch with one row, and a tuned text tower."""
    return {
        "output": str(folder),
        "encoder": {"name": clip},
        "data": {"generated": [pairs[0]], "real": pairs[1], "holdout": 0.1},
        "loss": "align+text",
        "align": {"same_partner": "masked"},
        "text": {"tower": "lora"},
        "real_projection": True,
        "optimizer": SMOOTH,
        "schedule": {"name": "constant", "warmup_steps": 0},
        "training": {"batch_size": 7, "epochs": 1, "log_every": 1},
    }


def captioning(folder: Path, clip: str, pictures: str) -> dict[str, Any]:
    """36 captions of generated and real pictures in batches of 7, the last with one row; both mappers are trained."""
    return {
        "output": str(folder),
        "encoder": {"name": clip},
        "decoder": {"name": f"{pictures}-gpt2"},
        "data": {
            "train_on": "mixed",
            "generated": [pictures],
            "real": f"{pictures}-real",
            "evaluation": f"{pictures}-test",
        },
        "projections": "dual",
        "decoding": {"max_tokens": 8, "beams": 1},
        "optimizer": SMOOTH,
        "schedule": {"name": "constant", "warmup_steps": 0},
        "training": {"batch_size": 7, "epochs": 1, "log_every": 1},
    }


def answering(folder: Path, clip: str, pictures: str) -> dict[str, Any]:
    """36 captions in batches of 5, the last with one row: generated pictures through W + ΔW, real ones through W."""
    return {
        "output": str(folder),
        "model": {"name": f"{pictures}-llava"},
        "aligned": f"{clip}-aligned",
        "data": {"train_on": "mixed", "generated": [pictures], "real": [f"{pictures}-real"]},
        "lora": {"rank": 2, "alpha": 4.0},
        "optimizer": SMOOTH,
        "schedule": {"name": "constant", "warmup_steps": 0},
        "training": {"batch_size": 5, "epochs": 1, "log_every": 1},
    }


def sugar(folder: Path, clip: str, pictures: str, changes: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """11 samples in batches of 5, the last with one row. `changes` by section."""
    values: dict[str, dict[str, Any]] = {
        "model": {"name": f"{pictures}-llava"},
        "data": {"train": f"{pictures}-samples.jsonl"},
        "teachers": {"joint": clip},
        "head": {"width": 16, "dim": 12},
        "lora": {"rank": 2, "alpha": 4.0},
        "optimizer": {**SMOOTH, "weight_decay": 0.0},
        "schedule": {"name": "constant", "warmup_steps": 0},
        "training": {"batch_size": 5, "epochs": 1, "log_every": 1},
    }
    return {"output": str(folder), **by_section(values, changes)}


SUGAR: dict[str, dict[str, Any]] = {
    "sugar": {"discriminative": {"readouts": 2}},
    "sugar-infonce": {"discriminative": {"form": "infonce", "temperature": 1.0, "chunk": 1}},
    # As the kit's recipe has it: what a process packs into a row is its own share alone.
    "sugar-kit": {
        "data": {"packed": True},
        "kernel": {"calibrate": True},
        "discriminative": {"readouts": 2},
        "head": {"whiten": True, "first_updates": 3, "samples": 6},
    },
}


def by_section(values: Mapping[str, dict[str, Any]], changes: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """`changes` laid over a recipe's values."""
    return {key: {**values.get(key, {}), **changes.get(key, {})} for key in {**values, **changes}}


def joint(folder: Path, clip: str, pictures: str, changes: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Batches of 7: 3 of one process, 4 of the other. `changes` by section."""
    values: dict[str, dict[str, Any]] = {
        "models": {"clip": clip, "generator": f"{pictures}-generator"},
        "data": {"pictures": pictures, "evaluation": f"{pictures}-test", "holdout": 0.1, "views": 2},
        "synthesis": {"ema": 0.5},
        "drawing": {"pictures": 0, "sampled_prompts": 0},
        "panel": {"prompts": []},
        "optimizer": SMOOTH,
        "schedule": {"name": "constant", "warmup_steps": 0},
        "training": {"batch_size": 7, "steps": 2, "log_every": 1},
    }
    return {"output": str(folder), **by_section(values, changes)}


JOINT: dict[str, dict[str, Any]] = {
    "joint-features": {
        "contrastive": {"chunk": 2},
        # One row for the denoiser: the first process has none.
        "synthesis": {"pictures": 1},
        "consistency": {"loss": "cosine", "t_max": 1.0},
        "conflict": {"log_every": 1, "surgery": "pcgrad", "heads_first": 1},
        "unet": {"mode": "lora"},
    },
    "joint-decoded": {
        "models": {"text_encoder": "separate"},
        "consistency": {"form": "decoded", "judge": "ema", "t_max": 0.5},
        "synthesis": {"min_snr": 5.0},
    },
    "joint-relational": {"consistency": {"form": "relational", "t_max": 1.0}, "contrastive": {"weight": 0}},
}


class OwnShare:
    """This process's rows of `Numbers`, which says for each part how many all processes have."""

    def __init__(self, size: int) -> None:
        self._whole = Numbers(size)

    def __call__(self, numbers: range) -> Iterator[tuple[Any, ...]]:
        for (part,) in self._whole(numbers):
            own = torch.tensor(share(list(range(part.rows))))
            yield (Part(part.x[own], part.y[own]),)


def gathered_mean_square(models: Mapping[str, nn.Module], part: Part) -> dict[str, Tensor]:
    whole = Part(part.x, gather(part.y))
    output = sum(gather(model(part.x)) for model in models.values())
    return {"loss": (output - whole.y).square().mean()}


def nonlinear(rows: Tensor) -> Tensor:
    """Depends on all pairs of rows, and not symmetrically."""
    similarity = rows @ rows.T
    return (torch.softmax(similarity, dim=1) * torch.arange(len(rows) ** 2).reshape(len(rows), -1)).sum()


def gradient_of_gather(out: dict[str, Tensor]) -> None:
    rows = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for name, own in (("uneven", share(list(range(7)))), ("empty", list(range(7)) if rank() == 0 else [])):
        mine = rows[torch.tensor(own, dtype=torch.long)].clone().requires_grad_(True)
        whole = gather(mine)
        assert torch.equal(whole, rows)
        nonlinear(whole).backward()
        assert mine.grad is not None
        # Averaging over processes, as the trainer's wrapper does, takes the number of processes out again.
        out[f"gather.{name}"] = mine.grad / world_size()


def gradient_of_regularisers(out: dict[str, Tensor], clip: str) -> None:
    """V and K alone; every process has gradients of its own, whose mean is the whole batch's."""

    class Plain:
        preprocess = load_dual_encoder(clip).preprocess

    encoder = load_dual_encoder(clip)
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randn(7, 3, 32, 32, generator=generator)
    for place, term in enumerate(("variance", "covariance")):
        classifier = TextInitialisedClassifier(encoder.vision, torch.ones(3, 20))
        loss = RegFTLoss(LossSettings(), classifier, Plain(), frozen_encoder=False)  # type: ignore[arg-type]
        own = torch.tensor(share(list(range(7))))

        class Rows:
            def on(self, *_: Any, own: Tensor = own) -> tuple[Tensor, Tensor, None]:
                return pixels[own], torch.zeros(len(own), dtype=torch.long), None

        classifier.zero_grad()
        loss({"classifier": classifier}, Rows())[term].backward()  # type: ignore[arg-type]
        out |= {
            f"{place}.{term}.{name}": p.grad for name, p in classifier.vision.named_parameters() if p.grad is not None
        }


def stops_together(folder: Path) -> str:
    """The loss is no number on the last process only."""
    models: dict[str, nn.Module] = {"model": plain_model()}
    reached = []

    def bad(models: Mapping[str, nn.Module], part: Part) -> dict[str, Tensor]:
        terms = mean_square(models, part)
        is_bad = len(reached) == 2 and rank() == world_size() - 1
        return {"loss": terms["loss"] * (float("nan") if is_bad else 1.0)}

    try:
        trainer(folder, models, batches=Numbers(6), step=bad, on_step=reached.append).fit()
    except NonFiniteLoss as error:
        return f"after {reached}: {error}"
    return "no error"


class Interrupted(Exception):
    """Stands for whatever ends a process."""


def resumes(folder: Path) -> dict[str, Tensor]:
    """Two models with dropout, cut after the third of five updates and resumed; and the same uncut."""
    found: dict[str, Tensor] = {}
    for name in ("uncut", "cut"):
        torch.manual_seed(7 + rank())
        models: dict[str, nn.Module] = {"one": plain_model(1, dropout=0.3), "other": plain_model(2, dropout=0.3)}

        def stop(done: int, name: str = name) -> None:
            if (name, done) == ("cut", 3):
                raise Interrupted

        training = {"checkpoint_every": 2}
        make = {"batches": OwnShare(7), "step": gathered_mean_square, "training": training}
        try:
            trainer(folder / name, models, **make, on_step=stop).fit()
        except Interrupted:
            models = {"one": plain_model(3, dropout=0.3), "other": plain_model(4, dropout=0.3)}
            report = trainer(folder / name, models, **make).fit()
            assert report.resumed_at == 2
        found |= {f"{name}.{key}": value for key, value in state_of(models).items()}
    return found


class Wide(nn.Module):
    """Two layers, rows two at a time; a wrapper for several processes sees one `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        hidden = in_chunks(lambda part: torch.tanh(self.shared(part)), (rows,), 2)
        return hidden, self.head(hidden)


def opposed(folder: Path) -> dict[str, Tensor]:
    """Three losses of gathered rows that pull one layer apart: chunks, PCGrad, and a running mean."""
    torch.manual_seed(11)
    model = Wide()
    groups = {"shared": list(model.shared.parameters()), "head": list(model.head.parameters())}
    average = Average(dict(model.named_parameters()), 0.9)
    updates: list[int] = []

    def step(models: Mapping[str, nn.Module], part: Part) -> dict[str, Tensor]:
        hidden, output = (gather(rows) for rows in models["model"](part.x))
        target = gather(part.y)
        losses = {"near": (output - target).square().mean(), "far": -2 * (output - 0.3 * target).square().mean()}
        losses["wide"] = nonlinear(hidden) / 100
        apart = gradients_of(losses, groups)
        correction = pcgrad_correction(apart, groups, torch.Generator().manual_seed(len(updates)))
        return {"loss": torch.stack(list(losses.values())).sum() + correction, **cosines(apart)}

    trainer(
        folder,
        {"model": model},
        batches=OwnShare(7),
        step=step,
        optimizer=SMOOTH,
        on_step=updates.append,
        averages={"mean": average},
    ).fit()
    return {**state_of({"model": model}), **{f"mean.{name}": value for name, value in average.state().items()}}


def main(folder: Path, clip: str, pictures: str) -> None:
    """Every case; each process writes what it found."""
    PartialState(cpu=True)
    torch.set_num_threads(1)
    out: dict[str, Tensor] = {}
    said: dict[str, Any] = {"processes": world_size()}
    gradient_of_gather(out)
    gradient_of_regularisers(out, clip)
    said["stopped"] = stops_together(folder / "stops")
    out |= {f"opposed.{name}": value for name, value in opposed(folder / "opposed").items()}
    resumed = resumes(folder / "resumes")
    said["resumed"] = [
        key for key in resumed if key.startswith("cut.") and not torch.equal(resumed[key], resumed[f"un{key}"])
    ]
    runs: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "regft": (RegFTConfig, run_regft, {"head_first": {"lr": 0.05, "epochs": 1}}),
        "lora": (RegFTConfig, run_regft, {"tune": "lora", "training": {"batch_size": 8, "accumulation": 2}}),
        "soft": (RegFTConfig, run_regft, {"loss": {"soft_targets": 0.5, "regularised": "normalized"}}),
        "shifted": (RegFTConfig, run_regft, shifted(clip, pictures)),
        "flyp": (FLYPConfig, run_flyp, {"same_class_positives": True}),
        "flyp-plain": (FLYPConfig, run_flyp, {"same_class_positives": False, "tune_logit_scale": False}),
    }
    for name, (config_type, run, changes) in runs.items():
        config = parse_config(config_type, recipe(folder / name, clip, pictures, **changes), source=name)
        said[name] = run(config, quiet=True) is not None
    pairs = (f"{pictures}/paired.parquet", f"{pictures}-real")
    aligning = parse_config(GMAILConfig, alignment(folder / "gmail", clip, pairs), source="gmail")
    said["gmail"] = run_gmail(aligning, quiet=True) is not None
    told = parse_config(CaptioningConfig, captioning(folder / "captioning", clip, pictures), source="captioning")
    said["captioning"] = run_captioning(told, quiet=True) is not None
    asked = parse_config(MultimodalConfig, answering(folder / "multimodal", clip, pictures), source="multimodal")
    said["multimodal"] = run_multimodal(asked, quiet=True) is not None
    for name, changes in SUGAR.items():
        values = sugar(folder / name, clip, pictures, changes)
        said[name] = run_sugar(parse_config(SugarConfig, values, source=name), quiet=True) is not None
    for name, changes in JOINT.items():
        values = joint(folder / name, clip, pictures, changes)
        said[name] = run_unidiff(parse_config(UniDiffConfig, values, source=name), quiet=True) is not None
    write_tensors(folder / f"{rank()}.safetensors", out)
    write_json(folder / f"{rank()}.json", said)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
