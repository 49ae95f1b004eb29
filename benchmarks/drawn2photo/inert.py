"""How hard each form of variance–covariance regularisation pulls at the features, beside cross-entropy.

    python benchmarks/drawn2photo/inert.py

At the zero-shot classifier, on 128 drawings: the norm of each term's gradient with respect to the features, divided by
that of cross-entropy. A term whose share is far below one cannot change what fine-tuning does at these features' scale.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Prints the table."""
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    from gen2real import RegFTConfig, load_recipe
    from gen2real.losses import variance_covariance
    from gen2real.methods import regft
    from gen2real.methods.tuning import training_features

    config = load_recipe("benchmarks/drawn2photo/recipes/head.yaml", {"regft": RegFTConfig}, ["data.views=1"])
    assert isinstance(config, RegFTConfig)
    tuning = regft.prepare(config)
    classifier = tuning.classifier(tuning.state())
    views = training_features(classifier.vision, tuning.data, seed=0)
    features = torch.cat([one[0] for one in views])
    labels = torch.cat([torch.from_numpy(one.labels) for one in tuning.data.sources])
    batch = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))[:128]

    def pull(term: Callable[[Tensor], Tensor]) -> float:
        z = features[batch].clone().requires_grad_()
        term(z).backward()
        assert z.grad is not None
        return float(z.grad.norm())

    spread = features.std(dim=0)
    reference = pull(lambda z: F.cross_entropy(classifier.classify_features(z), labels[batch]))
    terms: dict[str, Callable[[Tensor], Tensor]] = {
        "0.16 · V, as coded": lambda z: 0.16 * variance_covariance(z).variance,
        "0.02 · K, as coded (pairs)": lambda z: 0.02 * variance_covariance(z).covariance,
        "0.02 · K, VICReg's normaliser (dim)": lambda z: 0.02 * variance_covariance(z, normalizer="dim").covariance,
        "25 · V, VICReg's weight": lambda z: 25 * variance_covariance(z).variance,
        "1 · K, VICReg's weight and normaliser": lambda z: variance_covariance(z, normalizer="dim").covariance,
    }
    below = 100 * (spread < 1).float().mean()
    print(f"standard deviation of the features: mean {spread.mean():.2f}, below 1 in {below:.0f} % of dimensions")
    print("\n| term | gradient / gradient of cross-entropy |\n| --- | ---: |")
    for name, term in terms.items():
        print(f"| {name} | {pull(term) / reference:.5f} |")


if __name__ == "__main__":
    main()
