"""How well the kit's language model foretells captions it has not seen: perplexity a token and a word, by domain.

    python benchmarks/kit/perplexity.py         # a minute on one core; writes results/perplexity.json

Test scenes, true captions (`caption`) and long ones; beside them what knows nothing but how often each token comes.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gen2real import kit
from gen2real.files import write_json
from gen2real.kit.build.decoder import Language, caption_targets
from gen2real.kit.world import sample_scene
from gen2real.kit.world.language import caption, long_caption
from gen2real.kit.world.scenes import stream
from gen2real.losses import next_token
from gen2real.models import load_decoder
from gen2real.training.run_folder import environment

HERE = Path(__file__).parent


def main(argv: list[str] | None = None) -> None:
    """Measures, prints, writes the JSON."""
    options = _options(argv)
    report: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/kit/perplexity.py", *sys.argv[1:]]),
        "environment": environment(),
    }
    decoder, tokenizer = load_decoder(options.decoder or kit.folder("decoder"))
    report["parameters"] = sum(parameter.numel() for parameter in decoder.parameters())
    for domain in ("web", "home"):
        scenes = [sample_scene(domain, "test", index) for index in range(options.scenes)]
        short = [caption(scene, stream(0, domain, "test", index, purpose=2)) for index, scene in enumerate(scenes)]
        for kind, texts in (("captions", short), ("long captions", [long_caption(scene) for scene in scenes])):
            report[f"{domain}, {kind}"] = found = perplexity(decoder, tokenizer, texts)
            print(f"{domain}, {kind}: {found}", flush=True)
    if options.out is not None:
        write_json(options.out, report)


@torch.no_grad()
def perplexity(decoder: Any, tokenizer: Any, texts: list[str]) -> dict[str, Any]:
    """exp of the mean −log p a token, the end token included; the same a word; that of token counts alone."""
    ids = tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]
    ends = torch.full_like(ids[:, :1], tokenizer.eos_token_id)
    targets: Tensor = caption_targets(torch.cat([ids, ends], dim=1), tokenizer.eos_token_id)
    model = Language(decoder)
    told = [next_token(model(part), part) for part in targets.split(64)]
    total, count = sum(float(s.sum()) for s, _ in told), sum(float(n.sum()) for _, n in told)
    words = sum(len(text.split()) for text in texts)
    counts = Counter(targets[targets >= 0].tolist())
    alone = -sum(number * math.log(number / count) for number in counts.values()) / count
    return {
        "texts": len(texts),
        "tokens": int(count),
        "perplexity_a_token": math.exp(total / count),
        "perplexity_a_word": math.exp(total / words),
        "perplexity_of_counts_alone": math.exp(alone),
    }


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=1_000, help="of each domain's test split")
    parser.add_argument("--decoder", type=Path, help="another folder than the kit's")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "perplexity.json")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
