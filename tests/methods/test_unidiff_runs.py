"""Whole runs of UniDiff: folders load in stock libraries, what was frozen keeps its bits, kills change nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from joint_runs import JointWorld, joint_config, joint_recipe, joint_run, joint_world
from small_runs import metrics, same
from torch import Tensor
from transformers import CLIPModel, CLIPProcessor

from gen2real import methods
from gen2real.files import read_tensors, write_json
from gen2real.methods.unidiff import algorithm
from gen2real.methods.unidiff.settings import UniDiffConfig
from gen2real.models.dual_encoder import load_dual_encoder
from gen2real.models.hub_loading import without_progress_bars
from gen2real.training.averaging import Average
from gen2real.training.run_folder import RunFolder
from gen2real.training.trainer import Trainer

WORKER = Path(__file__).parent / "workers" / "runs_that_die.py"
PARTS = {
    "image": ("model/model.safetensors", ("vision_model.", "visual_projection.")),
    "text": ("model/model.safetensors", ("text_model.", "text_projection.")),
    "scale": ("model/model.safetensors", ("logit_scale",)),
    "unet": ("generator/unet/diffusion_pytorch_model.safetensors", ("",)),
    "text of the denoiser": ("generator/text_encoder/model.safetensors", ("",)),
    "vae": ("generator/vae/diffusion_pytorch_model.safetensors", ("",)),
}


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> JointWorld:
    return joint_world(tmp_path_factory.mktemp("joint"))


def changed(world: JointWorld, run: Path, generator: Path | None = None) -> set[str]:
    """The parts of a run's folders whose bits are not those that it began with."""
    before = {"model": world.clip, "generator": generator or world.generator}
    found = set()
    for part, (file, names) in PARTS.items():
        kind, _, inside = file.partition("/")
        new, old = (_plain(part, read_tensors(one)) for one in (run / file, before[kind] / inside))
        own = [name for name in old if name.startswith(names)]
        assert own
        if not all(torch.equal(new[name], old[name]) for name in own):
            found.add(part)
    return found


def _plain(part: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    # transformers 4 has the text tower one level deeper, and so has what was saved for both.
    outer = "text_model." if part.endswith("denoiser") else ""
    return {name.removeprefix(outer): own for name, own in state.items()}


def trained(config: UniDiffConfig) -> Path:
    """What a run trains and saves, without what it measures."""
    training = algorithm.prepare(config)
    training.train(RunFolder(config.output, config), quiet=True)
    training.joint.save(config.output, made_by={})
    return config.output


@pytest.fixture(scope="module")
def whole(joint: JointWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with all three losses, LoRA with dropout on the denoiser, a head that comes first, surgery, and chunks."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    joint_run(
        joint,
        folder,
        unet={"mode": "lora", "lora": {"rank": 2, "alpha": 4.0, "dropout": 0.2}},
        conflict={"log_every": 2, "surgery": "pcgrad", "heads_first": 2},
        contrastive__chunk=3,
        synthesis__ema=0.9,
    )
    return folder


def test_both_folders_load_in_stock_libraries(joint: JointWorld, whole: Path) -> None:
    """No gen2real is needed; the text tower is one, in both."""
    with without_progress_bars():
        clip, report = CLIPModel.from_pretrained(whole / "model", output_loading_info=True)
        pipeline = StableDiffusionPipeline.from_pretrained(whole / "generator", safety_checker=None)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert CLIPProcessor.from_pretrained(whole / "model") is not None
    text = {name.removeprefix("text_model."): own for name, own in pipeline.text_encoder.state_dict().items()}
    assert same(text, clip.text_model.state_dict())
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline("a red square", num_inference_steps=2, output_type="np").images[0]
    assert drawn.shape == (32, 32, 3)
    assert load_dual_encoder(whole).fingerprint() == load_dual_encoder(whole / "model").fingerprint()
    assert changed(joint, whole) == {"image", "text", "scale", "unet", "text of the denoiser"}
    assert not any("lora" in name for name in read_tensors(whole / PARTS["unet"][0]))


def test_the_head_came_first_and_is_kept(whole: Path) -> None:
    rows = metrics(whole)
    assert [(row["stage"], row["step"]) for row in rows if row["stage"] != "panel"] == [
        ("head", 1), ("head", 2), ("joint", 1), ("joint", 2), ("joint", 3), ("joint", 4)
    ]  # fmt: skip
    assert set(rows[0]) == {"stage", "step", "loss", "rsc", "gradient_norm", "learning_rate", "seconds"}
    assert {name for name, row in zip("1234", rows[-4:], strict=True) if "cosine_text_itc_is" in row} <= {"1", "2", "4"}
    assert read_tensors(whole / "heads.safetensors")["0.weight"].shape == (80, 16)


def test_the_heads_stage_moves_nothing_else(joint: JointWorld, tmp_path: Path) -> None:
    config = joint_config(joint, tmp_path / "run", conflict__heads_first=3)
    training = algorithm.prepare(config)
    wanted = [name for name, own in training.network.named_parameters() if own.requires_grad]
    before = {name: own.clone() for name, own in training.network.state_dict().items()}
    training._train_head(RunFolder(config.output, config), quiet=True)
    after = training.network.state_dict()
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == {"head"}
    assert wanted == [name for name, own in training.network.named_parameters() if own.requires_grad]


FROZEN: dict[str, tuple[dict[str, Any], set[str]]] = {
    "itc": ({"synthesis__weight": 0, "consistency__weight": 0}, {"image", "text", "scale", "text of the denoiser"}),
    "is": ({"contrastive__weight": 0, "consistency__weight": 0}, {"text", "unet", "text of the denoiser"}),
    "text": ({"text__mode": "frozen"}, {"image", "unet", "scale"}),
    "image": (
        {"image__mode": "frozen", "contrastive__scale": "fixed", "consistency__form": "decoded"},
        {"text", "unet", "text of the denoiser"},
    ),
    "unet": ({"unet__mode": "frozen", "text__mode": "frozen"}, {"image", "scale"}),
}


@pytest.mark.parametrize("name", FROZEN)
def test_what_is_frozen_or_unreached_keeps_its_bits(joint: JointWorld, tmp_path: Path, name: str) -> None:
    """Weight decay would move a weight whose gradient is zero."""
    changes, expected = FROZEN[name]
    run = trained(joint_config(joint, tmp_path / "run", optimizer__weight_decay=0.5, training__steps=2, **changes))
    moved = changed(joint, run)
    if name == "is":
        # Without ITC nothing reaches the projection, and the rest of the tower is the denoiser's.
        new, old = (read_tensors(one / "model.safetensors") for one in (run / "model", joint.clip))
        assert torch.equal(new["text_projection.weight"], old["text_projection.weight"])
    assert moved == expected


def test_a_denoiser_with_its_own_text_encoder_keeps_it(joint: JointWorld, tmp_path: Path) -> None:
    result = joint_run(joint, tmp_path / "run", models__generator=str(joint.stranger), training__steps=2)
    assert changed(joint, tmp_path / "run", joint.stranger) == {"image", "text", "scale", "unet"}
    assert result.summary["text_encoder"]["shared"] is False
    assert "stays frozen" in result.summary["text_encoder"]["why"]


def test_rates_and_schedules_are_each_part_s_own(
    joint: JointWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[int, float]] = []
    update = Trainer._update

    def watched(self: Any, number: int, parts: Any) -> Any:
        seen.append({id(p): group["lr"] for group in self._optimizer.param_groups for p in group["params"]})
        return update(self, number, parts)

    monkeypatch.setattr(Trainer, "_update", watched)
    config = joint_config(
        joint,
        tmp_path / "run",
        image={"lr": 0.002},
        text={"lr": 0.0005, "schedule": {"name": "constant", "warmup_steps": 4}},
        schedule={"name": "constant", "warmup_steps": 0},
    )
    training = algorithm.prepare(config)
    training.train(RunFolder(config.output, config), quiet=True)
    network = training.network
    weights = (
        network.encoder.vision.visual_projection.weight,
        network.encoder.text.text_projection.weight,
        network.unet.conv_out.weight,
        network.head[0].weight,
        network.encoder.logit_scale,
    )
    found = [[rates[id(weight)] for weight in weights] for rates in seen]
    assert found[0] == pytest.approx([0.002, 0.000125, 0.001, 0.01, 0.001])
    assert found[3] == pytest.approx([0.002, 0.0005, 0.001, 0.01, 0.001])


def test_the_running_mean_is_what_is_saved(joint: JointWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand, from the weights after each update: d = min(decay, (1 + s)/(10 + s)), and 0 at first."""
    after: list[dict[str, Tensor]] = []
    update = Average.update

    def watched(self: Average) -> None:
        update(self)
        after.append({name: own.detach().clone() for name, own in self._parameters.items()})

    monkeypatch.setattr(Average, "update", watched)
    run = trained(joint_config(joint, tmp_path / "run", synthesis__ema=0.15, optimizer__lr=0.01, training__steps=3))
    saved = read_tensors(run / PARTS["unet"][0])
    assert len(after) == 3
    expected = after[0]
    for decay, own in zip((0.15, 0.15), after[1:], strict=True):
        expected = {name: decay * expected[name] + (1 - decay) * own[name] for name in own}
    for name, own in expected.items():
        torch.testing.assert_close(saved[name], own, rtol=1e-5, atol=1e-7)
    assert not same(saved, after[-1])


def test_a_judge_that_follows_is_the_mean_of_the_image_tower(joint: JointWorld, tmp_path: Path) -> None:
    changes = {"consistency": {"form": "decoded", "judge": "ema", "t_max": 1.0}, "image__mode": "lora"}
    config = joint_config(joint, tmp_path / "run", optimizer__lr=0.01, training__steps=2, **changes)
    training = algorithm.prepare(config)
    judge, vision = training.network.judge, training.network.encoder.vision
    assert judge is not None
    assert judge is not vision
    before = {name: own.clone() for name, own in judge.state_dict().items()}
    training._train_all(RunFolder(config.output, config), on_step=None, quiet=True)
    moved = {name for name, own in judge.state_dict().items() if not torch.equal(own, before[name])}
    assert moved
    assert all(".lora_" in name for name in moved)
    assert not same(
        {name: judge.state_dict()[name] for name in moved}, {name: vision.state_dict()[name] for name in moved}
    )
    assert not any(own.requires_grad for own in judge.parameters())


def test_bfloat16_stays_near(joint: JointWorld, tmp_path: Path) -> None:
    rows = []
    for precision in ("float32", "bfloat16"):
        config = joint_config(joint, tmp_path / precision, training__precision=precision, training__steps=1)
        training = algorithm.prepare(config)
        training.train(RunFolder(config.output, config), quiet=True)
        assert {own.dtype for own in training.network.parameters()} == {torch.float32}
        rows.append([row for row in metrics(tmp_path / precision) if row["stage"] == "joint"])
    exact, rounded = ({name: row[name] for name in ("loss", "itc", "is", "rsc")} for row in (rows[0][0], rows[1][0]))
    assert exact == pytest.approx(rounded, rel=0.03)
    assert exact != rounded


KILLED: dict[str, dict[str, Any]] = {
    "features": {
        "unet": {"mode": "lora", "lora": {"rank": 2, "dropout": 0.3}},
        "conflict": {"heads_first": 3, "surgery": "pcgrad", "log_every": 1},
        "panel__every": 2,
    },
    "decoded": {"consistency": {"form": "decoded", "judge": "ema", "t_max": 1.0}, "data__views": None},
}
STEPS = {"features": 6, "decoded": 4}
DEATHS = {"features": ["update:3", "tensors:7", "never"], "decoded": ["update:4", "never"]}


@pytest.fixture(scope="module")
def killed(joint: JointWorld, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Each recipe once in one piece, and once killed with -9 in its middle; and what the worker said."""
    root = tmp_path_factory.mktemp("killed")
    arguments: list[str] = []
    for name, changes in KILLED.items():
        for kind, deaths in (("whole", ["never"]), ("killed", DEATHS[name])):
            training = {"batch_size": 8, "log_every": 1, "checkpoint_every": 2, "keep_checkpoints": 1}
            training["steps"] = STEPS[name]
            recipe = joint_recipe(joint, root / f"{name}-{kind}", training=training, **changes)
            write_json(root / f"{name}-{kind}.json", recipe)
            for death in deaths:
                arguments += [str(root / f"{name}-{kind}.json"), death]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(WORKER.parents[2])])}
    environment |= {"GEN2REAL_CACHE": str(root / "cache"), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(WORKER), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400, env=environment)
    assert done.returncode == 0, done.stderr[-6000:]
    return root, done.stdout.splitlines()


@pytest.mark.parametrize("name", KILLED)
def test_a_killed_run_ends_with_the_same_bits(killed: tuple[Path, list[str]], name: str) -> None:
    """Both models, the running means, every moment of AdamW, the sampler and the generators of dropout."""
    root, said = killed
    ended = [" ".join(line.split()[-2:]) for line in said if f"{name}-killed.json" in line]
    assert ended == ["exit 0" if death == "never" else "signal 9" for death in DEATHS[name]], said
    one, other = root / f"{name}-whole", root / f"{name}-killed"
    files = [file for file, _ in PARTS.values()] + ["values.safetensors"]
    for file in [*files, *(["heads.safetensors"] if name == "features" else [])]:
        assert (one / file).read_bytes() == (other / file).read_bytes(), file
    rows = [[{**row, "seconds": 0} for row in metrics(folder)] for folder in (one, other)]
    for stage in ("head", "joint", "panel"):
        by_stage = [[row for row in own if row["stage"] == stage] for own in rows]
        assert by_stage[0] == by_stage[1], stage
    names = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) for folder in (one, other)]
    assert names[0] == names[1]


def test_a_finished_run_is_only_read(joint: JointWorld, whole: Path) -> None:
    recipe = joint_config(
        joint,
        whole,
        unet={"mode": "lora", "lora": {"rank": 2, "alpha": 4.0, "dropout": 0.2}},
        conflict={"log_every": 2, "surgery": "pcgrad", "heads_first": 2},
        contrastive__chunk=3,
        synthesis__ema=0.9,
    )
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    result = methods.run(recipe, quiet=True)
    assert result.headline == "tuned"
    assert result.summary["cost"]["updates"] == 6
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
