"""Multimodal models of three families: answers, what is learnt from, adapters, and an alignment in the image tower."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from gen2real.errors import ImageSetError, ModelError
from gen2real.files import read_json, read_tensors, write_json, write_tensors
from gen2real.imagesets.decoding import decode
from gen2real.models.adapters import add_lora
from gen2real.models.aligned import Aligned, shift_of
from gen2real.models.dual_encoder import load_dual_encoder
from gen2real.models.multimodal import MultimodalModel, load_multimodal
from gen2real.models.multimodal_folder import make_trainable, merge, save_multimodal, save_whole
from gen2real.models.multimodal_shift import with_shift
from gen2real.models.supervised import Sample, Supervised, answer_ids, check_samples, kept_logits, supervise
from tiny import tiny_clip, tiny_siglip
from tiny_multimodal import tiny_idefics3, tiny_llava, tiny_qwen2_vl

FAMILIES = ("llava", "idefics3", "qwen2_vl")
QUESTIONS = ["what?", "describe the image briefly", "who is <image> there?"]
ANSWERS = ["a cat", "two dogs and a cow", "no"]
# How many tokens a picture has in each family: fixed, by its parts, by its area.
TOKENS = {"llava": [16, 16, 16], "idefics3": [34, 21, 34], "qwen2_vl": [4, 8, 8]}
END = {"llava": " a cat</s>", "idefics3": " a cat<end_of_utterance>", "qwen2_vl": "a cat<|im_end|>"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("multimodal")
    tiny_clip(root / "clip")
    tiny_llava(root / "llava", root / "clip")
    tiny_idefics3(root / "idefics3")
    tiny_qwen2_vl(root / "qwen2_vl")
    random = np.random.default_rng(0)
    for number, shape in enumerate([(40, 40, 3), (30, 60, 3), (64, 33, 3)]):
        Image.fromarray(random.integers(0, 255, shape, dtype=np.uint8)).save(root / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def models(root: Path) -> dict[str, MultimodalModel]:
    return {name: load_multimodal(root / name) for name in FAMILIES}


@pytest.fixture
def samples(root: Path) -> list[Sample]:
    return [
        Sample((root / f"{number}.png",), question, answer, f"row {number}")
        for number, (question, answer) in enumerate(zip(QUESTIONS, ANSWERS, strict=True))
    ]


def sizes_of(samples: list[Sample]) -> dict[Path, tuple[int, int]]:
    return {path: decode(path).size for sample in samples for path in sample.pictures}


def logits_of(model: MultimodalModel, batch: Supervised) -> torch.Tensor:
    with torch.no_grad():
        return model.model(**batch.inputs).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_in_a_batch_are_those_of_one_at_a_time(
    root: Path, models: dict[str, MultimodalModel], family: str
) -> None:
    model, pictures = models[family], [root / f"{number}.png" for number in range(3)]
    together = model.answer(pictures, QUESTIONS, max_tokens=10)
    alone = [
        model.answer([picture], [asked], max_tokens=10)[0] for picture, asked in zip(pictures, QUESTIONS, strict=True)
    ]
    assert together == alone
    assert len(set(together)) == 3
    assert model.answer(pictures, QUESTIONS, max_tokens=10, batch_size=2) == together
    beams = model.answer(pictures, QUESTIONS, max_tokens=6, beams=3)
    assert beams == [model.answer([p], [q], max_tokens=6, beams=3)[0] for p, q in zip(pictures, QUESTIONS, strict=True)]


@pytest.mark.parametrize("family", ["llava", "idefics3"])
def test_answers_are_those_of_transformers_alone(root: Path, models: dict[str, MultimodalModel], family: str) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    stock = AutoModelForImageTextToText.from_pretrained(root / family).eval()
    processor = AutoProcessor.from_pretrained(root / family)
    content = [{"type": "image", "url": str(root / "1.png")}, {"type": "text", "text": QUESTIONS[1]}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    ends = models[family].end_tokens
    made = stock.generate(**inputs, max_new_tokens=12, do_sample=False, eos_token_id=ends, pad_token_id=0)
    expected = processor.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert models[family].answer([root / "1.png"], [QUESTIONS[1]], max_tokens=12) == [expected]


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_answer_and_its_end_are_learnt(
    models: dict[str, MultimodalModel], samples: list[Sample], family: str
) -> None:
    model = models[family]
    batch = supervise(model, samples)
    learnt = [model.tokenizer.decode(row[row != -100]) for row in batch.labels]
    assert learnt == [END[family].replace("a cat", answer) for answer in ANSWERS]
    image = model.processor.image_token_id
    assert int((batch.inputs["input_ids"] == image).sum()) > 0
    assert not (batch.labels == image).any()
    # A label is the token at its own place, and the first one follows the prompt that `answer` gives.
    where = batch.labels != -100
    assert torch.equal(batch.labels[where], batch.inputs["input_ids"][where])
    for place, sample in enumerate(samples):
        prompt = model.inputs([model.prompt(sample.question)], [[decode(sample.pictures[0])]])["input_ids"][0]
        start = int(where[place].nonzero()[0])
        assert torch.equal(batch.inputs["input_ids"][place, :start], prompt)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_and_left_out_logits_change_no_loss(
    models: dict[str, MultimodalModel], samples: list[Sample], family: str
) -> None:
    model = models[family]

    def losses(batch: Supervised, **options: Any) -> torch.Tensor:
        with torch.no_grad():
            logits = model.model(**batch.inputs, **options).logits
        labels = batch.labels[:, -logits.shape[1] :]
        return F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none").sum(dim=1)

    batch = supervise(model, samples)
    alone = torch.cat([losses(supervise(model, [sample])) for sample in samples])
    torch.testing.assert_close(losses(batch), alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(losses(batch, **kept_logits(batch)), alone, rtol=1e-4, atol=1e-4)
    # Transformers' own loss is the mean of the same sums over the same tokens.
    with torch.no_grad():
        theirs = model.model(**batch.inputs, labels=batch.labels).loss
    torch.testing.assert_close(alone.sum() / (batch.labels != -100).sum(), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sample_is_measured_before_its_picture_is_prepared(
    models: dict[str, MultimodalModel], samples: list[Sample], family: str
) -> None:
    """The limit is met exactly: each sample passes at its true length and is named one below."""
    model = models[family]
    lengths = supervise(model, samples).inputs["attention_mask"].sum(dim=1).tolist()
    sizes = sizes_of(samples)
    check_samples(model, samples, sizes, max_length=max(lengths))
    with pytest.raises(ImageSetError) as refused:
        check_samples(model, samples, sizes, max_length=min(lengths) - 1)
    for number, (length, seen) in enumerate(zip(lengths, TOKENS[family], strict=True)):
        assert f"row {number}: it has {length} tokens, {seen} of them for pictures" in str(refused.value)


def test_every_sample_that_cannot_be_learnt_from_is_listed(models: dict[str, MultimodalModel], root: Path) -> None:
    model, picture = models["qwen2_vl"], (root / "0.png",)
    wrong = {
        "marks": Sample(picture, "<image> or <image>?", "the first", "marks"),
        "empty": Sample(picture, "what?", " ", "empty"),
        "picture token": Sample(picture, "what is <|image_pad|>?", "a token", "picture token"),
        "end": Sample(picture, "what?", "a cat<|im_end|> and more", "end"),
        "long": Sample(picture, "what?", "a" * 600, "long"),
    }
    with pytest.raises(ImageSetError, match="5 of 6 samples") as refused:
        check_samples(model, [Sample(picture, "what?", "a cat", "good"), *wrong.values()], {picture[0]: (40, 40)})
    said = str(refused.value)
    assert "marks: the question has 2 marks <image> and there are 1 pictures" in said
    assert "empty: the answer is empty" in said
    assert "picture token: the text holds <|image_pad|>" in said
    assert "end: the text holds <|im_end|>" in said
    assert "at most 512" in said
    assert "good" not in said


def test_marks_say_where_pictures_stand(models: dict[str, MultimodalModel]) -> None:
    prompt = models["qwen2_vl"].prompt("first <image> then <image>?", 2)
    seen = "<|vision_start|><|image_pad|><|vision_end|>"
    assert prompt == f"<|im_start|>user\nfirst {seen} then {seen}?<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(ModelError, match="refuses these prompts"):
        models["llava"].inputs(["USER: <image> <image> ASSISTANT:"], [[Image.new("RGB", (8, 8))]])


def test_without_a_chat_template_there_is_a_plain_one(root: Path, tmp_path: Path) -> None:
    plain = load_multimodal(tiny_llava(tmp_path / "plain", root / "clip", template=None))
    assert plain.prompt("what?") == "USER: <image>\nwhat? ASSISTANT:"
    assert plain.answered("what?", "a cat") == " a cat</s>"
    assert plain.prompt("is <image> it?") == "USER: is <image> it? ASSISTANT:"
    assert len(plain.answer([root / "0.png"], ["what?"], max_tokens=4)) == 1


def test_a_tokenizer_may_join_the_prompt_and_the_answer(models: dict[str, MultimodalModel], root: Path) -> None:
    """Where the answer's beginning changes the prompt's last token, that token is learnt with the answer."""
    model = models["llava"]
    sample = Sample((root / "0.png",), "what?", "a cat")

    class Joined(MultimodalModel):
        def token_ids(self, text: str) -> list[int]:
            return super().token_ids(text.replace(": a", "=a"))

    joined, tail = answer_ids(Joined(model.model, model.processor, "joined"), sample)
    assert (joined, model.tokenizer.decode(tail)) == (1, "=a cat</s>")


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_and_projector_are_trained_and_nothing_else(root: Path, family: str) -> None:
    model = load_multimodal(root / family)
    make_trainable(model, rank=2, alpha=4.0)
    trained = {name for name, parameter in model.model.named_parameters() if parameter.requires_grad}
    projector = {"llava": "multi_modal_projector", "idefics3": "connector", "qwen2_vl": "visual.merger"}[family]
    lora = {name for name in trained if ".lora_" in name}
    assert lora == {name for name in trained if "language_model.layers" in name or "text_model.layers" in name}
    assert len(lora) == 2 * 2 * 2  # layers, q and v, A and B
    assert trained - lora
    assert all(f"model.{projector}." in name for name in trained - lora)
    frozen = load_multimodal(root / family)
    make_trainable(frozen, rank=2, alpha=4.0, projector="frozen", targets=["*self_attn.o_proj"])
    names = {name for name, parameter in frozen.model.named_parameters() if parameter.requires_grad}
    assert len(names) == 4
    assert all(".o_proj.lora_" in name for name in names)
    with pytest.raises(ModelError, match="no layer of the language model matches the LoRA target 'qkv'"):
        make_trainable(load_multimodal(root / family), rank=2, alpha=4.0, targets=["qkv"])


def tuned(root: Path, family: str, seed: int = 3) -> MultimodalModel:
    """A model whose adapters and projector are somewhere else than at the start."""
    model = load_multimodal(root / family)
    make_trainable(model, rank=2, alpha=4.0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_tuned_comes_back_with_the_base_model_alone(
    root: Path, tmp_path: Path, samples: list[Sample], family: str
) -> None:
    model = tuned(root, family)
    batch = supervise(model, samples)
    expected = logits_of(model, batch)
    assert not torch.allclose(expected, logits_of(load_multimodal(root / family), batch))
    name, weight = next(model.vision.named_parameters())
    model.shift = {name: torch.ones_like(weight)}
    save_multimodal(tmp_path / "tuned", model, made_by={"seed": 0})
    again = load_multimodal(tmp_path / "tuned")
    assert torch.equal(logits_of(again, batch), expected)
    assert again.made_by == {"seed": 0}
    assert list(again.shift) == list(model.shift)
    assert sum(path.stat().st_size for path in (tmp_path / "tuned").iterdir()) < 200_000
    save_whole(tmp_path / "whole", merge(again))
    torch.testing.assert_close(logits_of(load_multimodal(tmp_path / "whole"), batch), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("recipe", "generated"),
    [
        ({"method": "multimodal", "data": {"train_on": "generated"}, "aligned": None}, True),
        ({"method": "multimodal", "data": {"train_on": "mixed"}}, True),
        ({"method": "multimodal", "data": {"train_on": "real"}, "aligned": None}, False),
        # The tower's shift, which lies in the folder, was learnt from generated pictures.
        ({"method": "multimodal", "data": {"train_on": "real"}, "aligned": {"run": "runs/gmail"}}, True),
        ({"method": "sugar", "data": {"train": [{"path": "samples.jsonl"}]}}, False),
        (None, False),
    ],
)
def test_a_card_says_that_generated_pictures_were_learnt_from_only_where_they_were(
    root: Path, tmp_path: Path, recipe: dict[str, Any] | None, generated: bool
) -> None:
    save_multimodal(tmp_path / "tuned", tuned(root, "llava"), made_by={} if recipe is None else {"recipe": recipe})
    card = (tmp_path / "tuned" / "README.md").read_text()
    (tags,) = (line for line in card.splitlines() if line.startswith("tags: "))
    expected = ["gen2real", "lora", *["trained-on-generated-images"] * generated]
    assert json.loads(tags.removeprefix("tags: ")) == expected


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_stock_peft_loads_what_was_tuned(root: Path, tmp_path: Path, samples: list[Sample]) -> None:
    """The lines of the model card."""
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForImageTextToText

    model = tuned(root, "llava")
    batch = supervise(model, samples)
    save_multimodal(tmp_path / "tuned", model, made_by={})
    stock = AutoModelForImageTextToText.from_pretrained(root / "llava")
    stock.load_state_dict(load_file(tmp_path / "tuned" / "projector.safetensors"), strict=False)
    stock = PeftModel.from_pretrained(stock, tmp_path / "tuned").eval()
    with torch.no_grad():
        assert torch.equal(stock(**batch.inputs).logits, logits_of(model, batch))
    card = (tmp_path / "tuned" / "README.md").read_text()
    assert 'load_file("this folder/projector.safetensors")' in card
    assert "PeftModel.from_pretrained" in card


def test_a_base_model_that_moved_or_changed_is_told(root: Path, tmp_path: Path) -> None:
    moved = tmp_path / "base"
    shutil.copytree(root / "llava", moved)
    model = tuned(tmp_path, "base")
    save_multimodal(tmp_path / "tuned", model, made_by={})
    moved.rename(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=r"was tuned from .*base, which cannot be loaded"):
        load_multimodal(tmp_path / "tuned")
    assert load_multimodal(tmp_path / "tuned", base=tmp_path / "elsewhere").name == str(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="does not fit"):
        load_multimodal(tmp_path / "tuned", base=root / "idefics3")
    stored = read_json(tmp_path / "tuned" / "gen2real.json")
    write_json(tmp_path / "tuned" / "gen2real.json", {**stored, "version": 99})
    with pytest.raises(ModelError, match="format version 99"):
        load_multimodal(tmp_path / "tuned")


def test_half_precision_stays_in_the_frozen_part(root: Path, samples: list[Sample]) -> None:
    model = load_multimodal(root / "llava", dtype="bfloat16")
    make_trainable(model, rank=2, alpha=4.0)
    dtypes = {parameter.dtype for parameter in model.model.parameters() if parameter.requires_grad}
    assert dtypes == {torch.float32}
    assert {p.dtype for p in model.model.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert len(model.answer([samples[0].pictures[0]], ["what?"], max_tokens=4)) == 1


def aligned(clip: Path, seed: int = 1) -> Aligned:
    encoder = load_dual_encoder(clip)
    tower = add_lora(copy.deepcopy(encoder.vision), rank=2, alpha=4.0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in tower.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator), non_blocking=False).mul_(0.3)
    return Aligned(encoder, shift_of(tower))


def test_generated_pictures_go_through_shifted_weights_and_real_ones_through_the_own(
    root: Path, samples: list[Sample]
) -> None:
    source = aligned(root / "clip")
    model = with_shift(load_multimodal(root / "llava"), source)
    batch = supervise(model, samples)
    real = logits_of(model, batch)
    with model.through("f_g"):
        generated = logits_of(model, batch)
    # By hand, on a model of its own: q, k, v and output projections of both layers.
    other = load_multimodal(root / "llava")
    weights = dict(other.vision.named_parameters())
    assert len(source.shift) == 8
    with torch.no_grad():
        for name, value in source.shift.items():
            weights[name.removeprefix("vision_model.")].add_(value)
    assert torch.equal(generated, logits_of(other, batch))
    assert not torch.allclose(generated, real)
    assert torch.equal(logits_of(model, batch), real)
    own = load_multimodal(root / "llava").model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in model.model.state_dict().items())
    pictures = [sample.pictures[0] for sample in samples]
    assert model.answer(pictures, QUESTIONS, branch="f_g") == other.answer(pictures, QUESTIONS)
    assert model.answer(pictures, QUESTIONS, branch="f_r") == load_multimodal(root / "llava").answer(
        pictures, QUESTIONS
    )


def test_weights_are_back_even_after_an_error_and_a_tower_in_training_is_refused(root: Path) -> None:
    model = with_shift(load_multimodal(root / "llava"), aligned(root / "clip"))
    before = {name: value.clone() for name, value in model.vision.state_dict().items()}
    model.model.requires_grad_(False)
    with pytest.raises(KeyError), model.through("f_g"):
        raise KeyError
    assert all(torch.equal(value, before[name]) for name, value in model.vision.state_dict().items())
    model.vision.requires_grad_(True)
    with pytest.raises(ModelError, match="trained and shifted at once"), model.through("f_g"):
        pass


def test_an_alignment_of_another_encoder_is_refused(root: Path, tmp_path: Path) -> None:
    other = aligned(tiny_clip(tmp_path / "other", seed=5))
    with pytest.raises(ModelError, match=r"has other weights than .*other.* tensors differ"):
        with_shift(load_multimodal(root / "llava"), other)
    with pytest.warns(UserWarning, match="added all the same"):
        model = with_shift(load_multimodal(root / "llava"), other, other_base="warn")
    assert len(model.shift) == 8
    for family, clip in (("qwen2_vl", root / "clip"), ("llava", tiny_siglip(tmp_path / "siglip"))):
        with pytest.raises(ModelError, match="is not that of"):
            with_shift(load_multimodal(root / family), aligned(clip))
    with pytest.raises(ModelError, match="no tower of its own"):
        with_shift(load_multimodal(root / "llava"), Aligned(load_dual_encoder(root / "clip")))


def test_rounding_to_half_precision_is_not_another_tower(root: Path) -> None:
    model = load_multimodal(root / "llava", dtype="bfloat16")
    assert len(with_shift(model, aligned(root / "clip")).shift) == 8


def test_videos_need_torchvision_and_pictures_do_not(
    root: Path, models: dict[str, MultimodalModel], tmp_path: Path
) -> None:
    """Qwen2-VL's processor reads videos too; without torchvision it is made and saved without them."""
    processor = models["qwen2_vl"].processor
    assert type(processor).__name__ == "Qwen2VLProcessor"
    processor.save_pretrained(tmp_path)
    assert read_json(tmp_path / "processor_config.json")["processor_class"] == "Qwen2VLProcessor"


def test_what_is_no_multimodal_model_is_told(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no folder|could not be loaded"):
        load_multimodal(tmp_path / "nothing" / "here")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_multimodal(tmp_path / "empty")
    with pytest.raises(ModelError, match="of the type 'clip', not a multimodal model"):
        load_multimodal(root / "clip")
    pickled = tmp_path / "pickled"
    shutil.copytree(root / "llava", pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickle|safetensors"):
        load_multimodal(pickled)
    incomplete = tmp_path / "incomplete"
    shutil.copytree(root / "llava", incomplete)
    state = read_tensors(incomplete / "model.safetensors")
    lost = next(name for name in state if "multi_modal_projector" in name)
    write_tensors(incomplete / "model.safetensors", {k: v for k, v in state.items() if k != lost}, {"format": "pt"})
    with pytest.raises(ModelError, match="lacks 1 tensors of its model"):
        load_multimodal(incomplete)
    with pytest.raises(ModelError, match="2 questions need as many pictures"):
        load_multimodal(root / "llava").answer([root / "0.png"], ["a", "b"])
