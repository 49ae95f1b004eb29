"""method: multimodal. What learns and what does not, the two image towers, resuming, and that it learns at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_runs import metrics

from gen2real import methods
from gen2real.config import parse_config
from gen2real.errors import ImageSetError, ModelError, RecipeError
from gen2real.files import read_tensors
from gen2real.imagesets import ImageSet
from gen2real.imagesets.questions import write_questions
from gen2real.kit.world.image_sets import write_image_set
from gen2real.methods import rehearsal
from gen2real.methods.estimate import estimate
from gen2real.methods.measured import Measured
from gen2real.methods.multimodal import algorithm as multimodal
from gen2real.methods.multimodal.data import LessonBatches
from gen2real.methods.multimodal.settings import MultimodalConfig
from gen2real.models.aligned import save_aligned
from gen2real.models.dual_encoder import load_dual_encoder
from gen2real.models.multimodal import load_multimodal
from gen2real.training.trainer import Trainer
from tiny import tiny_clip
from tiny_multimodal import tiny_idefics3, tiny_llava
from tiny_sets import colour_set


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP, an alignment of it, a LLaVA over it, and colours: generated, real, and real ones to be asked about."""
    root = tmp_path_factory.mktemp("multimodal-runs")
    tiny_llava(root / "llava", tiny_clip(root / "clip"))
    encoder = load_dual_encoder(root / "clip")
    generator = torch.Generator().manual_seed(0)
    shift = {
        name: 0.3 * torch.randn(parameter.shape, generator=generator)
        for name, parameter in encoder.vision.named_parameters()
        if "self_attn.q_proj.weight" in name or "self_attn.v_proj.weight" in name
    }
    save_aligned(root / "aligned", encoder, shift, made_by={})
    colour_set(root / "generated", per_class=2)
    colour_set(root / "shots", origin="real", per_class=1, seed=5)
    real = colour_set(root / "real", origin="real", per_class=1)
    write_questions(
        root / "asked.jsonl",
        [
            {"image": name, "question": question, "answers": [answer]}
            for name in real.ids[:3]
            for question, answer in (("what colour?", name.partition("-")[0]), ("is it round?", "no"))
        ],
    )
    return root


def config(root: Path, output: Path, **changes: Any) -> MultimodalConfig:
    values: dict[str, Any] = {
        "method": "multimodal",
        "output": str(output),
        "model": {"name": str(root / "llava")},
        "data": {"generated": [str(root / "generated")], "evaluation": str(root / "real")},
        "lora": {"rank": 2, "alpha": 4.0},
        "optimizer": {"lr": 1e-3, "head_lr": 1e-3, "weight_decay": 0.0},
        "training": {"steps": 4, "batch_size": 6, "log_every": 1, "checkpoint_every": 2},
        "decoding": {"max_tokens": 4},
    }
    for key, value in changes.items():
        section, _, last = key.partition("__")
        if last:
            values.setdefault(section, {})[last] = value
        else:
            values[section] = value
    found = parse_config(MultimodalConfig, values, source="recipe")
    assert isinstance(found, MultimodalConfig)
    return found


@pytest.fixture(scope="module")
def done(root: Path) -> Measured:
    """A run with everything: both origins, an alignment, captions and questions."""
    result = methods.run(
        config(
            root,
            root / "run",
            aligned=str(root / "aligned"),
            data__real=[str(root / "shots")],
            data__train_on="mixed",
            data__evaluation_questions=str(root / "asked.jsonl"),
        ),
        quiet=True,
    )
    assert isinstance(result, Measured)
    return result


def test_lora_and_projector_change_and_nothing_else(root: Path, done: Measured) -> None:
    base, tuned = load_multimodal(root / "llava"), load_multimodal(done.folder / "model")
    state = {name.replace(".base_layer.", "."): value for name, value in tuned.model.state_dict().items()}
    kept = base.model.state_dict()
    changed = {name for name, value in kept.items() if not torch.equal(value, state[name])}
    assert changed == {name for name in kept if "multi_modal_projector" in name}
    added = {name: value for name, value in state.items() if ".lora_" in name}
    assert len(added) == 8
    assert all(value.abs().max() > 0 for value in added.values())


def test_the_result_has_every_reading_and_task(root: Path, done: Measured) -> None:
    assert list(done.readings) == ["baseline", "f_r", "f_g"]
    assert done.headline == "f_r"
    assert done.summary["pictures"] == {"generated": 8, "real": 4, "evaluation": 4}
    for reading in done.readings:
        assert {"bleu4", "rouge_l", "cider", "accuracy"} <= set(done.measures(reading))
        assert len(done.values(reading, "cider")) == 4
        # One value a picture that was asked about, not one a question.
        assert len(done.values(reading, "accuracy")) == 3
        assert done.readings[reading]["details"]["questions"] == 6
    samples = done.summary["samples"]
    assert {sample.get("question", "") for sample in samples} == {"", "what colour?", "is it round?"}
    assert all(set(sample["captions"]) == {"baseline", "f_r", "f_g"} for sample in samples)
    # The readings are what the models say, each by itself.
    pictures, asked = ImageSet.read(root / "real").paths, ["Describe the image briefly."] * 4
    tuned = load_multimodal(done.folder / "model")
    expected = {
        "baseline": load_multimodal(root / "llava").answer(pictures, asked, max_tokens=4),
        "f_r": tuned.answer(pictures, asked, max_tokens=4),
        "f_g": tuned.answer(pictures, asked, max_tokens=4, branch="f_g"),
    }
    told = [sample["captions"] for sample in samples if "question" not in sample]
    assert {name: [one[name] for one in told] for name in expected} == expected
    assert len({tuple(answers) for answers in expected.values()}) == 3


def test_each_picture_is_learnt_through_its_own_tower(root: Path, tmp_path: Path) -> None:
    """The first loss of a mixed batch, by hand: whole models with W and with W + ΔW, and the mean over all tokens."""
    settings = config(
        root, tmp_path, aligned=str(root / "aligned"), data__real=[str(root / "shots")], data__train_on="mixed"
    )
    tuning = multimodal.prepare(settings)
    sampler = tuning.data.sampler(6, 0)
    ((batch,),) = LessonBatches(tuning.data.sources, tuning.model, sampler, settings)(range(1))
    assert batch.generated is not None
    assert batch.real is not None
    loss = multimodal.answer_loss({"multimodal": multimodal.Answers(tuning.model)}, batch)["loss"]

    real, generated = load_multimodal(root / "llava"), load_multimodal(root / "llava")
    weights = dict(generated.vision.named_parameters())
    for name, value in read_tensors(root / "aligned" / "generated" / "shift.safetensors").items():
        weights[name.removeprefix("vision_model.")].data += value
    total, tokens = torch.tensor(0.0), 0
    for model, part in ((generated, batch.generated), (real, batch.real)):
        with torch.no_grad():
            logits = model.model(**part.inputs).logits
        total += F.cross_entropy(logits[:, :-1].transpose(1, 2), part.labels[:, 1:], reduction="sum")
        tokens += int((part.labels != -100).sum())
    torch.testing.assert_close(loss.detach(), total / tokens, rtol=1e-5, atol=1e-5)
    assert len(batch.generated.labels) + len(batch.real.labels) == batch.own == 6


def test_parts_of_a_batch_add_up_to_the_whole(root: Path, tmp_path: Path) -> None:
    """A mean over tokens: rows of different lengths, and still the same updates however the batch is cut."""
    lines = []
    for parts in (1, 3):
        settings = config(root, tmp_path / str(parts), training__accumulation=parts, data__evaluation=None)
        methods.run(settings, quiet=True)
        lines.append([(row["loss"], row["gradient_norm"]) for row in metrics(tmp_path / str(parts))])
    torch.testing.assert_close(torch.tensor(lines[0]), torch.tensor(lines[1]), rtol=1e-4, atol=1e-5)


def test_a_process_without_rows_adds_nothing(root: Path, tmp_path: Path) -> None:
    settings = config(root, tmp_path)
    tuning = multimodal.prepare(settings)
    ((batch,),) = LessonBatches(tuning.data.sources, tuning.model, tuning.data.sampler(6, 0), settings)(range(1))
    answers = multimodal.Answers(tuning.model)
    empty = replace(batch, own=0)
    loss = multimodal.answer_loss({"multimodal": answers}, empty)["loss"]
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in answers.parameters() if p.requires_grad)


def test_a_resumed_run_ends_with_the_same_bits(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, Any] = {"lora": {"rank": 2, "alpha": 4.0, "dropout": 0.3}, "aligned": str(root / "aligned")}
    whole = methods.run(config(root, tmp_path / "whole", **changes), quiet=True)
    update = Trainer._update

    def interrupted(self: Any, number: int, parts: Any) -> Any:
        if number == 3:
            raise KeyboardInterrupt
        return update(self, number, parts)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            methods.run(config(root, tmp_path / "cut", **changes), quiet=True)
    torch.rand(7)  # whatever happened in between
    again = methods.run(config(root, tmp_path / "cut", **changes), quiet=True)
    for name in ("adapter_model.safetensors", "projector.safetensors", "shift.safetensors"):
        assert (whole.folder / "model" / name).read_bytes() == (again.folder / "model" / name).read_bytes(), name
    assert [{**row, "seconds": 0} for row in metrics(tmp_path / "whole")] == [
        {**row, "seconds": 0} for row in metrics(tmp_path / "cut")
    ]
    assert methods.run(config(root, tmp_path / "cut", **changes), quiet=True).summary == again.summary


def test_without_an_alignment_all_pictures_go_through_the_own_tower(root: Path, tmp_path: Path) -> None:
    """The control: equal to an alignment that shifts nothing, and unlike one that shifts."""
    encoder = load_dual_encoder(root / "clip")
    name = "vision_model.encoder.layers.0.self_attn.q_proj.weight"
    nothing = {name: torch.zeros_like(dict(encoder.vision.named_parameters())[name])}
    save_aligned(tmp_path / "nothing", encoder, nothing, made_by={})
    losses = {}
    for kind, aligned in (("none", None), ("zero", str(tmp_path / "nothing")), ("shift", str(root / "aligned"))):
        settings = config(root, tmp_path / kind, aligned=aligned, data__evaluation=None, save_model=False)
        methods.run(settings, quiet=True)
        losses[kind] = [row["loss"] for row in metrics(tmp_path / kind)]
    assert losses["none"] == losses["zero"]
    assert losses["none"] != losses["shift"]


def test_checkpointing_saves_memory_and_changes_nothing(root: Path, tmp_path: Path) -> None:
    lines = []
    for kind in (False, True):
        settings = config(
            root,
            tmp_path / str(kind),
            aligned=str(root / "aligned"),
            data__evaluation=None,
            training__gradient_checkpointing=kind,
        )
        methods.run(settings, quiet=True)
        lines.append([(row["loss"], row["gradient_norm"]) for row in metrics(tmp_path / str(kind))])
    assert lines[0] == lines[1]


def test_questions_are_learnt_as_they_are_asked(root: Path, tmp_path: Path) -> None:
    generated = ImageSet.read(root / "generated")
    write_questions(
        tmp_path / "learn.jsonl",
        [{"image": name, "question": "which?", "answers": ["one", "two"]} for name in generated.ids[:3]],
    )
    source = {"path": str(root / "generated"), "questions": str(tmp_path / "learn.jsonl")}
    settings = config(root, tmp_path, data__generated=[source, str(root / "generated")])
    tuning = multimodal.prepare(settings)
    asked, captioned = tuning.data.sources
    assert len(asked.lessons) == 3
    assert len(captioned.lessons) == 8
    drawn = {asked.lessons[0].sample(torch.Generator().manual_seed(seed)).answer for seed in range(20)}
    assert drawn == {"one", "two"}
    prompts = {captioned.lessons[0].sample(torch.Generator().manual_seed(seed)).question for seed in range(40)}
    assert prompts == set(settings.data.prompts)
    assert tuning.data.pictures(generated=True) == 8


def test_a_dry_run_counts_answers_and_updates(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "MOST_PICTURES", 4)
    names = ImageSet.read(root / "generated").ids
    rows = [{"image": name, "question": "which?", "answers": [name]} for name in names[::-1]]
    write_questions(tmp_path / "learn.jsonl", rows)
    source = {"path": str(root / "generated"), "questions": str(tmp_path / "learn.jsonl")}
    settings = config(
        root,
        tmp_path / "run",
        data__generated=[source, str(root / "generated")],
        data__evaluation_questions=str(root / "asked.jsonl"),
        training={"epochs": 3, "batch_size": 6},
    )
    found = estimate(settings)
    # 8 pictures are asked about and described; of the evaluation set 4 are described and 6 questions asked, twice.
    assert (found.pictures, found.updates, found.encoded) == (8, 3 * 3, 2 * (4 + 6))
    assert found.timed_updates == 3
    assert not (tmp_path / "run").exists()


def test_fewer_pictures_are_part_of_more(root: Path, tmp_path: Path) -> None:
    found = []
    for count in (2, 5):
        tuning = multimodal.prepare(config(root, tmp_path, data__pictures=count))
        found.append({lesson.picture for source in tuning.data.sources for lesson in source.lessons})
    assert [len(one) for one in found] == [2, 5]
    assert found[0] < found[1]


def test_data_is_looked_at_before_anything_is_trained(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageSetError, match=r"8 of 8 samples cannot be learnt from(.|\n)*red-0: it has \d+ tokens"):
        multimodal.prepare(config(root, tmp_path, data__max_length=40))
    with pytest.raises(RecipeError, match="not of origin 'generated'"):
        multimodal.prepare(config(root, tmp_path, data__generated=[str(root / "shots")]))
    with pytest.raises(ImageSetError, match="are also in the evaluation set"):
        multimodal.prepare(config(root, tmp_path, data__real=[str(root / "real")], data__train_on="real"))
    other = {"name": str(tiny_idefics3(tmp_path / "other"))}
    with pytest.raises(ModelError, match="is not that of"):
        multimodal.prepare(config(root, tmp_path, model=other, aligned=str(root / "aligned")))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {}}, r"train_on: generated needs at least one image set here: --set data\.generated="),
        ({"data__train_on": "mixed"}, r"train_on: mixed needs at least one image set here: --set data\.real="),
        ({"data__evaluation": None, "data__evaluation_questions": "asked.jsonl"}, "set data.evaluation too"),
        ({"inference": "f_g"}, "inference: f_g needs the tower of an alignment"),
        ({"model__dtype": "bfloat16"}, "set training.precision=bfloat16"),
    ],
)
def test_settings_that_do_not_agree_are_told(
    root: Path, tmp_path: Path, changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    with pytest.raises(RecipeError, match=said):
        config(root, tmp_path, **changes)


def test_a_tiny_llava_learns_eight_captions_by_heart(tmp_path: Path) -> None:
    """The kit's toys through the kit's CLIP: from noise to every caption word for word."""
    from gen2real import kit

    shown = write_image_set(tmp_path / "toys", "home", "train", 8, seed=3, toys=1)
    tiny_llava(tmp_path / "llava", kit.folder("clip"), width=64)
    settings = config(
        tmp_path,
        tmp_path / "run",
        data={"real": [str(tmp_path / "toys")], "train_on": "real", "prompts": ["Describe."]},
        lora={"rank": 16, "alpha": 32.0, "targets": ["*_proj"]},
        optimizer={"lr": 2e-2, "head_lr": 5e-3, "weight_decay": 0.0},
        training={"steps": 45, "batch_size": 8, "log_every": 50, "checkpoint_every": 1000},
        save_model=True,
    )
    methods.run(settings, quiet=True)
    captions = [own[0] for own in shown.captions]
    before = load_multimodal(tmp_path / "llava")
    after = load_multimodal(tmp_path / "run" / "model")
    assert before.answer(shown.paths, ["Describe."] * 8, max_tokens=60) != captions
    assert after.answer(shown.paths, ["Describe."] * 8, max_tokens=60) == captions
    assert len(set(captions)) >= 6
