"""How fast captions are written: ours, in batches with a key–value cache, against one picture at a time without.

    python benchmarks/speed/captioning.py --count 16 --max-tokens 12 --out benchmarks/speed/results/captioning.json

The captioner of a finished run on real pictures (`--run RUN --pictures SET`), or a random mapper in front of a language
model of GPT-2's shapes and random weights, which never ends before `--max-tokens`.

    greedy   plain: for each picture, the whole text so far through the model for every token (twelve lines, below)
    beams    plain: `generate(num_beams=5, use_cache=False)` picture by picture, as ClipCap's own beam search computes

Both must write the same captions as ours, or the benchmark ends with an error. Rounds take turns; medians are compared.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from finetune import machine, save
from torch import Tensor

FEATURES = 512


def main(argv: list[str] | None = None) -> None:
    """Measures, prints, writes the JSON."""
    options = _options(argv)
    torch.set_num_threads(options.threads[0])
    told = {key: value for key, value in vars(options).items() if key not in ("out", "run", "pictures")}
    command = " ".join(["python", "benchmarks/speed/captioning.py", *(Path(word).name for word in sys.argv[1:])])
    report: dict[str, Any] = {"machine": {**machine(options), "command": command}, "options": told, "rounds": []}
    captioner, features = finished(options) if options.run else gpt2_shaped(options)
    arms: dict[str, Callable[[], list[str]]] = {
        "ours, greedy": lambda: captioner.captions(features, beams=1, batch_size=options.batch_size),
        "plain, greedy": lambda: greedily(captioner, features),
        "ours, 5 beams": lambda: captioner.captions(features, beams=5, batch_size=options.batch_size),
        "plain, 5 beams": lambda: one_by_one(captioner, features),
    }
    for number in range(options.rounds):
        written = {}
        for arm, write in arms.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            written[arm] = write()
            seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
            row = {"round": number, "arm": arm, "seconds": seconds, "cpu_seconds": cpu_seconds}
            report["rounds"].append(row)
            print(f"{arm:<15} {seconds:8.2f} s {cpu_seconds:8.2f} CPU s", flush=True)
        for way in ("greedy", "5 beams"):
            if written[f"ours, {way}"] != written[f"plain, {way}"]:
                raise SystemExit(f"ours and the plain way write other captions ({way}).")
    report["captions"] = {arm: captions[:3] for arm, captions in written.items()}
    report["mean_tokens"] = {
        arm: sum(len(captioner.tokenizer(text)["input_ids"]) for text in captions) / len(captions)
        for arm, captions in written.items()
    }
    report["summary"] = summary(report["rounds"], options.count)
    print(report["summary"], flush=True)
    save(report, options.out)


def finished(options: argparse.Namespace) -> tuple[Any, Tensor]:
    """A trained captioner, and its embeddings of the first pictures of a set."""
    from gen2real.evaluation.features import encode_pictures
    from gen2real.imagesets import ImageSet
    from gen2real.imagesets.loading import Pictures
    from gen2real.models import load_captioner

    loaded = load_captioner(options.run)
    some = ImageSet.read(options.pictures).select(range(options.count))
    return loaded.captioner, encode_pictures(loaded.encoder.vision, Pictures(some, loaded.encoder.preprocess))


def gpt2_shaped(options: argparse.Namespace) -> tuple[Any, Tensor]:
    """12 layers, width 768 and 50,257 tokens, with ClipCap's mapper; words are the kit's, then numbers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from gen2real import kit
    from gen2real.models import load_decoder, new_captioner

    _, tokenizer = load_decoder(kit.folder("decoder"))
    end, size = tokenizer.eos_token_id, 50_257
    tokenizer.add_tokens([f"<{number}>" for number in range(len(tokenizer), size)])
    torch.manual_seed(options.seed)
    model = GPT2LMHeadModel(GPT2Config(bos_token_id=end, eos_token_id=end)).eval()
    made = new_captioner(model, tokenizer, FEATURES, max_tokens=options.max_tokens).eval()
    return made, torch.randn(options.count, FEATURES)


@torch.no_grad()
def greedily(captioner: Any, features: Tensor) -> list[str]:
    """The plain loop: one picture after the other, every token from the whole text so far."""
    table, end, captions = captioner.decoder.get_input_embeddings(), captioner.tokenizer.eos_token_id, []
    for row in features:
        inputs, ids = captioner.prefix(row[None], "real"), []
        while len(ids) < captioner.max_tokens:
            ids.append(int(captioner.decoder(inputs_embeds=inputs, use_cache=False).logits[0, -1].argmax()))
            if ids[-1] == end:
                break
            inputs = torch.cat([inputs, table(torch.tensor([ids[-1:]]))], dim=1)
        captions.append(" ".join(captioner.tokenizer.decode(ids, skip_special_tokens=True).split()))
    return captions


@torch.no_grad()
def one_by_one(captioner: Any, features: Tensor) -> list[str]:
    """Beam search of one picture after the other, without a cache."""
    end, captions = captioner.tokenizer.eos_token_id, []
    for row in features:
        prefix = captioner.prefix(row[None], "real")
        mask = torch.ones(prefix.shape[:2], dtype=torch.long)
        (ids,) = captioner.decoder.generate(
            inputs_embeds=prefix, attention_mask=mask, num_beams=5, do_sample=False, use_cache=False,
            max_new_tokens=captioner.max_tokens, eos_token_id=end, pad_token_id=end,
        )  # fmt: skip
        captions.append(" ".join(captioner.tokenizer.decode(ids, skip_special_tokens=True).split()))
    return captions


def summary(rounds: list[dict[str, Any]], count: int) -> dict[str, Any]:
    """Medians, captions a second, and how many times the plain way's speed ours is, by seconds and by CPU seconds."""
    middle = {
        (arm, unit): median(row[unit] for row in rounds if row["arm"] == arm)
        for arm in dict.fromkeys(row["arm"] for row in rounds)
        for unit in ("seconds", "cpu_seconds")
    }
    found: dict[str, Any] = {}
    for way in ("greedy", "5 beams"):
        found[way] = {
            "ours_captions_a_second": count / middle[f"ours, {way}", "seconds"],
            "plain_captions_a_second": count / middle[f"plain, {way}", "seconds"],
            "times": middle[f"plain, {way}", "seconds"] / middle[f"ours, {way}", "seconds"],
            "times_by_cpu_seconds": middle[f"plain, {way}", "cpu_seconds"] / middle[f"ours, {way}", "cpu_seconds"],
        }
    return found


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished captioning run")
    parser.add_argument("--pictures", type=Path, help="with --run: the image set that it describes")
    parser.add_argument("--count", type=int, default=64, help="pictures")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=67)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs=1, default=[1])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file with every sample")
    parser.set_defaults(device="cpu")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
