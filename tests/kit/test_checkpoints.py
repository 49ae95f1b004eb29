"""The checkpoints that come with the package: their size, that stock libraries load them, and that they work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from transformers import (
    AutoProcessor,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    LlavaForConditionalGeneration,
)

from commands import gen2real_
from gen2real import kit
from gen2real.errors import ModelError
from gen2real.evaluation.captioning import caption_scores
from gen2real.imagesets import ImageSet
from gen2real.kit.world import KINDS, caption, render, sample_scene, write_image_set
from gen2real.kit.world.scenes import stream
from gen2real.methods.finished import evaluate_model
from gen2real.models import load_decoder
from gen2real.models.multimodal import load_multimodal
from gen2real.prompts import CAPTION_PROMPTS

BUDGET = 25_000_000


def test_they_fit_their_budget_and_hold_nothing_but_text_and_safetensors() -> None:
    files = [path for path in kit.folder("clip").parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= BUDGET
    assert {path.suffix for path in files} <= {".json", ".jinja", ".safetensors", ".txt", ".md"}


def test_a_checkpoint_that_is_not_there_says_how_to_make_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kit, "_CHECKPOINTS", tmp_path)
    with pytest.raises(ModelError, match=r"python -m gen2real\.kit\.build"):
        kit.folder("clip")


def test_stock_transformers_tells_toys_apart() -> None:
    folder = kit.folder("clip")
    model, tokenizer = CLIPModel.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    prepare = CLIPImageProcessorPil.from_pretrained(folder)
    scenes = [sample_scene("web", "test", index, kind=kind) for index, kind in enumerate(KINDS * 3)]
    texts = [f"a photo of a {kind}" for kind in KINDS]
    with torch.inference_mode():
        seen = prepare(images=list(render(scenes)), return_tensors="pt")
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt"), **seen)
    right = logits.logits_per_image.argmax(dim=1) == torch.arange(len(KINDS)).repeat(3)
    assert float(right.float().mean()) > 0.5


def test_the_generator_reads_with_the_clips_own_text_tower() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(kit.folder("generator"))
    tower = CLIPModel.from_pretrained(kit.folder("clip")).text_model.state_dict()
    own = {key.removeprefix("text_model."): value for key, value in pipeline.text_encoder.state_dict().items()}
    assert own.keys() == tower.keys()
    assert all(torch.equal(own[key], tower[key]) for key in tower)


def test_the_decoder_knows_how_captions_of_web_go() -> None:
    """Each colour is followed by a kind, and a caption is foretold far better than its words in another order."""
    decoder, tokenizer = load_decoder(kit.folder("decoder"))

    def cost(text: str) -> float:
        ids = tokenizer(f"<|endoftext|>{text}<|endoftext|>", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            return float(decoder(input_ids=ids, labels=ids).loss)

    assert cost("a red ball to the left of a blue car") < 2 < 4 < cost("blue a to of red the left car a ball")
    start = tokenizer("<|endoftext|>a photo of a blue", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        likeliest = decoder(input_ids=start).logits[0, -1].topk(5).indices
    assert {tokenizer.decode(token).strip() for token in likeliest} <= set(KINDS)


def test_stock_transformers_answers_what_is_to_be_seen_in_any_of_several_pictures() -> None:
    """Kind and colour of one toy, and of the last of two pictures; the tower is CLIP's own."""
    folder = kit.folder("multimodal")
    model, processor = LlavaForConditionalGeneration.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    tower = CLIPModel.from_pretrained(kit.folder("clip")).vision_model.state_dict()
    assert all(torch.equal(value, tower[key]) for key, value in model.model.vision_tower.state_dict().items())
    scenes = [sample_scene("web", "test", index, kind=kind) for index, kind in enumerate(KINDS)]
    shown = [Image.fromarray(one) for one in render(scenes)]

    def answers(question: str, pictures: list[list[Image.Image]]) -> list[str]:
        content = [*[{"type": "image"}] * len(pictures[0]), {"type": "text", "text": question}]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(images=pictures, text=[prompt] * len(pictures), padding=True, return_tensors="pt")
        made = model.generate(**inputs, max_new_tokens=3, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        return [told.strip() for told in processor.batch_decode(made, skip_special_tokens=True)]

    alone = [[one] for one in shown]
    after = [[shown[place - 1], shown[place]] for place in range(len(shown))]
    for pictures, least in ((alone, 0.7), (after, 0.6)):
        kinds = answers("what is this?", pictures)
        assert sum(a == scene.toys[0].kind for a, scene in zip(kinds, scenes, strict=True)) > least * len(KINDS)
    one = scenes[0].toys[0].kind
    balls = [sample_scene("web", "test", index, kind=one) for index in range(18)]
    colours = answers(f"what colour is the {one}?", [[Image.fromarray(picture)] for picture in render(balls)])
    assert sum(told == scene.toys[0].colour for told, scene in zip(colours, balls, strict=True)) > 12


def test_the_multimodal_model_captions_web() -> None:
    """CIDEr-D against five true captions of each scene, beside those of the next one."""
    scenes = [sample_scene("web", "test", index) for index in range(40)]
    shown = [Image.fromarray(one) for one in render(scenes)]
    asked = [CAPTION_PROMPTS[0]] * len(shown)
    said = load_multimodal(kit.folder("multimodal")).answer(shown, asked, max_tokens=40, batch_size=40)
    told = []
    for index, scene in enumerate(scenes):
        random = stream(0, "web", "test", index, purpose=2)
        told.append([caption(scene, random) for _ in range(5)])
    own, of_the_next = (caption_scores(said, of).means()["cider"] for of in (told, [*told[1:], told[0]]))
    assert own > 2 > of_the_next


def test_stock_diffusers_draws_what_the_prompt_says() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(kit.folder("generator"))
    pipeline.set_progress_bar_config(disable=True)
    colours = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}
    drawn = pipeline(
        [f"a large {colour} ball on a white background" for colour in colours],
        num_inference_steps=12,
        guidance_scale=3.0,
        output_type="np",
        generator=[torch.Generator().manual_seed(seed) for seed in range(3)],
    ).images
    for picture, channel in zip(drawn, range(3), strict=True):
        # What stands out from the pale ground most is the ball.
        vivid = picture.max(axis=2) - picture.min(axis=2)
        ball = picture[vivid > np.quantile(vivid, 0.95)].mean(axis=0)
        assert int(ball.argmax()) == channel


def quickstart(out: Path) -> list[object]:
    return ["quickstart", "--out", out, "--per-class", 3, "--photographs", 54, "--seeds", 1]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart as typed, small."""
    out = tmp_path_factory.mktemp("quickstart")
    ended = gen2real_(*quickstart(out))
    assert ended.code == 0, ended.err
    return out


def test_quickstart_draws_curates_tunes_and_reports(done: Path) -> None:
    drawn = ImageSet.read(done / "generated")
    assert len(drawn) == 3 * len(KINDS)
    assert set(drawn.table["origin"].to_pylist()) == {"generated"}
    curated = ImageSet.read(done / "generated" / "curated.parquet")
    assert 0 < len(curated.kept()) <= len(drawn)
    assert {"score_margin", "score_similarity", "reason"} <= set(curated.table.column_names)
    table = json.loads((done / "regft-on-the-kit" / "table.json").read_text())
    assert [row["arm"] for row in table["rows"]][-1] == "RegFT"
    assert all(row["real_top1"]["count"] for row in table["rows"])
    page = (done / "regft-on-the-kit" / "report.html").read_text()
    assert "data:image" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_quickstart_again_reads_what_is_there(done: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*.png")}
    told = gen2real_(*quickstart(done), "--json").value
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*.png")} == before
    assert Path(told["report"]).is_file()
    assert set(told["findings"]) == {"zero-shot", "plain fine-tuning", "plain + ensemble", "regularised", "RegFT"}


def test_the_clip_is_better_where_it_was_trained(tmp_path: Path) -> None:
    top1 = {
        domain: evaluate_model(
            kit.folder("clip"), write_image_set(tmp_path / domain, domain, "test", 108, toys=1)
        ).top1.mean
        for domain in ("web", "home")
    }
    assert top1["web"] > top1["home"] > 2 / len(KINDS)
