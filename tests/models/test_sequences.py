"""Interleaved samples in three families of models: what is read and learnt, however they are padded or packed."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from gen2real.errors import ImageSetError, ModelError
from gen2real.imagesets.decoding import decode
from gen2real.imagesets.interleaved import Interleaved, Turn, slices
from gen2real.models.hidden_states import hidden_states, next_token_logits
from gen2real.models.multimodal import MultimodalModel, load_multimodal
from gen2real.models.retrieval_head import read_out
from gen2real.models.sequences import Sequences, check_sequences, encode_sequences, pack
from gen2real.models.supervised import Sample, supervise
from tiny import tiny_clip
from tiny_multimodal import tiny_idefics3, tiny_llava, tiny_qwen2_vl

FAMILIES = ("llava", "idefics3", "qwen2_vl")
# A picture's tokens stand as one ▣; Idefics3 cuts pictures into parts, with tokens between.
SEEN = {
    "llava": [
        "USER: ▣\nA duck came. It — sat… ▣ It went!",
        "USER: ▣\nWhat is it? ASSISTANT: a cat</s>USER: And ▣? ASSISTANT: two</s>",
        "USER: Only 日本語。はい。",
        "USER: ▣\n▣",
    ],
    "idefics3": [
        "<|begin|>User:▣ A duck came. It — sat… ▣  It went!",
        "<|begin|>User:▣ What is it?<end_of_utterance>\nAssistant: a cat<end_of_utterance>\n"
        "User: And ▣ ?<end_of_utterance>\nAssistant: two<end_of_utterance>",
        "<|begin|>User: Only 日本語。はい。",
        "<|begin|>User:▣▣",
    ],
    "qwen2_vl": [
        "<|im_start|>user\n▣A duck came. It — sat… ▣ It went!",
        "<|im_start|>user\n▣What is it?<|im_end|>\n<|im_start|>assistant\na cat<|im_end|>\n"
        "<|im_start|>user\nAnd ▣?<|im_end|>\n<|im_start|>assistant\ntwo<|im_end|>",
        "<|im_start|>user\nOnly 日本語。はい。",
        "<|im_start|>user\n▣▣",
    ],
}
PICTURE = {
    "llava": "(?:<image>){16}",
    "idefics3": r"<fake_token_around_image><row_1_col_1>.*?<global-img>(?:<image>){4}<fake_token_around_image>",
    "qwen2_vl": r"<\|vision_start\|>(?:<\|image_pad\|>)+(?:<\|vision_end\|>|$)",
}
ANSWERS = {
    "llava": " a cat</s> two</s>",
    "idefics3": " a cat<end_of_utterance> two<end_of_utterance>",
    "qwen2_vl": "a cat<|im_end|>two<|im_end|>",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sequences")
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


@pytest.fixture(scope="module")
def samples(root: Path) -> list[Interleaved]:
    a, b, c = (root / f"{number}.png" for number in range(3))
    return [
        Interleaved("story", (Turn((a, " A duck came. It — sat… ", b, " It went!")),)),
        Interleaved("asked", (Turn((c, "\nWhat is it?"), "a cat"), Turn(("And ", a, "?"), " two "))),
        Interleaved("text", (Turn(("Only 日本語。はい。",)),)),
        Interleaved("pictures", (Turn((a, b)),)),
    ]


def every_end(samples: list[Interleaved]) -> list[list[int]]:
    return [list(range(len(slices(sample)))) for sample in samples]


def states(model: MultimodalModel, batch: Sequences) -> torch.Tensor:
    with torch.no_grad():
        return read_out(hidden_states(model, batch.inputs), batch.spans)


def one_by_one(model: MultimodalModel, samples: list[Interleaved]) -> torch.Tensor:
    alone = [encode_sequences(model, [one], ends) for one, ends in zip(samples, zip(every_end(samples)), strict=True)]
    return torch.cat([states(model, batch) for batch in alone])


def loss_of(model: MultimodalModel, batch: Sequences) -> torch.Tensor:
    """Cross-entropy of every learnt token, in order."""
    with torch.no_grad():
        logits = model.model(**batch.inputs, use_cache=False).logits
    losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), batch.labels[:, 1:], reduction="none")
    return losses[batch.labels[:, 1:] != -100]


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_are_written_as_the_model_was_taught(
    models: dict[str, MultimodalModel], samples: list[Interleaved], family: str
) -> None:
    model = models[family]
    batch = encode_sequences(model, samples)
    mask = batch.inputs["attention_mask"].bool()
    seen = [model.tokenizer.decode(ids[own]) for ids, own in zip(batch.inputs["input_ids"], mask, strict=True)]
    assert [re.sub(PICTURE[family], "▣", text, flags=re.DOTALL) for text in seen] == SEEN[family]
    learnt = [model.tokenizer.decode(own[own != -100]) for own in batch.labels]
    assert learnt == ["A duck came. It — sat…It went!", ANSWERS[family], "Only 日本語。はい。", ""]
    where = batch.labels != -100
    assert torch.equal(batch.labels[where], batch.inputs["input_ids"][where])
    assert batch.tokens.tolist() == where.sum(dim=1).tolist()
    assert batch.spans.shape == (0, 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_question_is_learnt_as_questions_without_sequences_are(
    root: Path, models: dict[str, MultimodalModel], family: str
) -> None:
    model, asked = models[family], [("what?", "a cat"), ("describe the image briefly", "two dogs")]
    pictures = [root / "0.png", root / "1.png"]
    known = supervise(model, [Sample((p,), q, a) for p, (q, a) in zip(pictures, asked, strict=True)])
    turns = [Turn((p, f"\n{q}"), a) for p, (q, a) in zip(pictures, asked, strict=True)]
    batch = encode_sequences(model, [Interleaved(str(n), (turn,)) for n, turn in enumerate(turns)])
    assert torch.equal(batch.inputs["input_ids"], known.inputs["input_ids"])
    assert torch.equal(batch.labels, known.labels)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_read_is_the_prefix_and_nothing_after_it(
    root: Path, models: dict[str, MultimodalModel], samples: list[Interleaved], family: str
) -> None:
    """Each prefix alone, through transformers alone: its last token, or its last picture's tokens found by their id."""
    model, story = models[family], samples[0]
    a, b = root / "0.png", root / "1.png"
    prefixes = [(a,), (a, " A duck came."), (a, " A duck came. It — sat…"), (a, " A duck came. It — sat… ", b)]
    expected = []
    for parts in [*prefixes, story.turns[0].parts]:
        text = encode_sequences(model, [Interleaved("prefix", (Turn(parts),))]).inputs
        image = text["input_ids"][0] == model.processor.image_token_id
        del text["position_ids"]
        with torch.no_grad():
            last = model.model(**text, output_hidden_states=True).hidden_states[-1][0]
        if isinstance(parts[-1], str):
            expected.append(last[-1])
            continue
        own = image.nonzero()[:, 0]
        expected.append(last[int(own[0 if len(parts) == 1 else last_picture(own, family)]) : int(own[-1]) + 1].mean(0))
    batch = encode_sequences(model, [story], [[0, 1, 2, 3, 4]])
    torch.testing.assert_close(states(model, batch), torch.stack(expected), rtol=1e-4, atol=1e-5)


def last_picture(own: torch.Tensor, family: str) -> int:
    """Which of the image tokens of two pictures is the second's first; the first picture has 16, 20 or 4."""
    return {"llava": 16, "idefics3": 20, "qwen2_vl": 4}[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_left_right_and_packed_are_as_one_by_one(
    models: dict[str, MultimodalModel], samples: list[Interleaved], family: str
) -> None:
    model, ends = models[family], every_end(samples)
    expected = one_by_one(model, samples)
    right, left = (encode_sequences(model, samples, ends, side=side) for side in ("right", "left"))
    packed = pack(right, 180)
    assert len(packed.labels) < len(right.labels)
    assert right.owners.tolist() == packed.owners.tolist() == [n for n, own in enumerate(ends) for _ in own]
    for batch in (right, left, packed):
        torch.testing.assert_close(states(model, batch), expected, rtol=1e-4, atol=1e-5)
        # A place further on or back is another state.
        for off in (1, -1):
            moved = batch.spans.clone()
            moved[:, 1:] += off
            wrong = states(model, Sequences(batch.inputs, batch.labels, moved, batch.owners))
            assert ((wrong - expected).abs().amax(dim=1) > 1e-3).all()
    losses = torch.cat([loss_of(model, encode_sequences(model, [sample])) for sample in samples])
    for batch in (right, left, packed):
        torch.testing.assert_close(loss_of(model, batch), losses, rtol=1e-4, atol=1e-4)
    # However a batch was padded, it is packed the same.
    again = pack(left, 180)
    assert all(torch.equal(value, again.inputs[key]) for key, value in packed.inputs.items())
    assert torch.equal(packed.labels, again.labels)
    assert torch.equal(packed.spans, again.spans)


def test_a_mark_that_becomes_576_tokens_moves_what_stands_after_it(root: Path, samples: list[Interleaved]) -> None:
    """As many as a picture has in LLaVA-1.5."""
    model = load_multimodal(tiny_llava(root / "fine", tiny_clip(root / "fine-clip", image_size=192)))
    stories, image = samples[:1] + samples[2:], model.processor.image_token_id
    expected = one_by_one(model, stories)
    for side in ("right", "left"):
        batch = encode_sequences(model, stories, every_end(stories), side=side)
        ids = batch.inputs["input_ids"]
        read = [ids[row, begin:end] for row, begin, end in batch.spans.tolist()]
        assert [len(own) for own in read] == [576, 1, 1, 576, 1, 1, 1, 576, 576]
        assert all(bool((own == image).all()) == (len(own) == 576) for own in read)
        before, after = ids[batch.spans[:, 0], batch.spans[:, 1] - 1], ids[batch.spans[:, 0], batch.spans[:, 2] - 1]
        assert not (before == image)[[0, 3, 7]].any()
        assert model.tokenizer.decode(after[[1, 4]]) == ".!"
        torch.testing.assert_close(states(model, batch), expected, rtol=1e-4, atol=1e-5)


def test_packed_samples_do_not_see_each_other(models: dict[str, MultimodalModel], samples: list[Interleaved]) -> None:
    model = models["qwen2_vl"]
    other = [Interleaved("other", (Turn(("Another text. 12",)),)), samples[0]]
    first, second = (pack(encode_sequences(model, pair, [[0], [1, 3]]), 200) for pair in (samples[2::-2], other))
    assert len(first.labels) == len(second.labels) == 1
    found = [states(model, batch) for batch in (first, second)]
    torch.testing.assert_close(found[0][1:], found[1][1:], rtol=1e-4, atol=1e-5)
    assert (found[0][0] - found[1][0]).abs().max() > 1e-3
    with pytest.raises(ModelError, match="does not fit a row of 20"):
        pack(encode_sequences(model, samples), 20)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_follow_from_the_states_that_are_read(
    models: dict[str, MultimodalModel], samples: list[Interleaved], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = models[family], encode_sequences(models[family], samples)
    with torch.no_grad():
        hidden = hidden_states(model, batch.inputs)
        expected = model.model(**batch.inputs).logits
    assert hidden.shape == (*batch.labels.shape, model.width)
    learnt = batch.labels != -100
    torch.testing.assert_close(next_token_logits(model, hidden[learnt]), expected[learnt], rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(model.model.config.get_text_config(), "final_logit_softcapping", 30.0, raising=False)
    with pytest.raises(ModelError, match="final_logit_softcapping"):
        next_token_logits(model, hidden[learnt])


def test_read_outs_and_learnt_tokens_are_whole_words_where_tokens_are(
    models: dict[str, MultimodalModel], root: Path
) -> None:
    """With merges, tokens reach over spaces and are several letters long."""
    inner = Tokenizer(BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=["<pad>", "<s>", "</s>", "<image>"])
    inner.train_from_iterator(["A duck came. It went. What is it? a duck", "USER: ASSISTANT:"] * 9, trainer)
    processor = copy.deepcopy(models["llava"].processor)
    processor.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    processor.image_token_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    model = MultimodalModel(models["llava"].model, processor, "merged")
    duck, asked = ("A duck came. It went.", root / "0.png", " A duck came."), (root / "1.png", "What is it?")
    batch = encode_sequences(
        model, [Interleaved("1", (Turn(duck),)), Interleaved("2", (Turn(asked, "a duck"),))], [[0, 1, 2, 3], [1]]
    )
    ids = batch.inputs["input_ids"]
    read = [processor.tokenizer.decode(ids[row, begin:end]) for row, begin, end in batch.spans.tolist()]
    assert read == [".", ".", "<image>" * 16, ".", "?"]
    before = [processor.tokenizer.decode(ids[row, begin - 1]) for row, begin, _ in batch.spans.tolist()]
    assert before == [" came", " went", ".", " came", " it"]
    assert batch.tokens.tolist() == [11, 3]
    assert processor.tokenizer.decode(batch.labels[1][batch.labels[1] != -100]) == " a duck</s>"


def test_pictures_between_texts_stay_there_in_prompts(models: dict[str, MultimodalModel]) -> None:
    """LLaVA's template would put every picture in front."""
    model = models["llava"]
    assert model.prompt("who is <image> there?") == "USER: who is <image> there? ASSISTANT:"
    assert model.prompt("<image>\n<image> and <image>?", 3) == "USER: <image>\n<image>\nand <image>? ASSISTANT:"
    assert (
        model.prompt("what?", 2)
        == model.prompt("<image><image> what?", 2)
        == "USER: <image>\n<image>\nwhat? ASSISTANT:"
    )
    assert model.answered("who is <image> there?", "a duck") == " a duck</s>"


def test_a_template_that_writes_earlier_turns_anew_can_have_one(
    models: dict[str, MultimodalModel], samples: list[Interleaved], root: Path
) -> None:
    processor = copy.deepcopy(models["llava"].processor)
    processor.chat_template = "{{ messages | length }} turns. " + processor.chat_template
    model = MultimodalModel(models["llava"].model, processor, "counting")
    one = encode_sequences(model, [Interleaved("1", (Turn((root / "0.png", "what?"), "a cat"),))])
    assert model.tokenizer.decode(one.labels[0][one.labels[0] != -100]) == "a cat</s>"
    with pytest.raises(ModelError, match="one turn a sample"):
        encode_sequences(model, samples)
    with pytest.raises(
        ImageSetError, match=r"1 of 4 samples .*\n  asked: the chat template of counting writes earlier"
    ):
        check_sequences(model, [*samples[:3], Interleaved("4", samples[2].turns)], sizes_of(samples))


def test_what_a_processor_writes_otherwise_than_it_counts_is_told(
    models: dict[str, MultimodalModel], samples: list[Interleaved]
) -> None:
    model = MultimodalModel(models["llava"].model, models["llava"].processor, "miscounting")
    model.tokens_of_size[40, 40] = 15
    with pytest.raises(ModelError, match="makes other tokens of a sample"):
        encode_sequences(model, samples)


def sizes_of(samples: list[Interleaved]) -> dict[Path, tuple[int, int]]:
    return {path: decode(path).size for sample in samples for path in sample.pictures}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_limit_of_length_is_met_exactly(
    models: dict[str, MultimodalModel], samples: list[Interleaved], family: str
) -> None:
    model, some = models[family], samples[:3]
    lengths = encode_sequences(model, some).inputs["attention_mask"].sum(dim=1).tolist()
    check_sequences(model, some, sizes_of(some), max_length=max(lengths))
    with pytest.raises(ImageSetError) as refused:
        check_sequences(model, some, sizes_of(some), max_length=min(lengths) - 1, setting="data")
    for sample, length in zip(some, lengths, strict=True):
        assert f"\n  {sample.id}: it has {length} tokens" in str(refused.value)
    assert "data.max_length" in str(refused.value)
    with pytest.raises(ImageSetError, match="1 of 3 samples"):
        check_sequences(model, some, sizes_of(some), max_length=max(lengths) - 1)


def test_every_sample_that_teaches_nothing_is_listed(
    models: dict[str, MultimodalModel], samples: list[Interleaved], root: Path
) -> None:
    wrong = [
        samples[3],
        Interleaved("silent", (Turn(("What?",), "  "),)),
        Interleaved("token", (Turn((root / "0.png", "a <|im_end|> b")),)),
        Interleaved("mark", (Turn(("what?",), "an <image>"),)),
    ]
    with pytest.raises(ImageSetError) as refused:
        check_sequences(models["qwen2_vl"], [samples[0], *wrong], sizes_of(samples))
    assert "4 of 5 samples" in str(refused.value)
    for told in (
        "pictures: there is no text",
        "silent: the answer is empty",
        "token: the text holds <|im_end|>",
        "mark:",
    ):
        assert f"\n  {told}" in str(refused.value)
