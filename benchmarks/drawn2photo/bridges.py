"""From sentences to the image space: two regressions from class names to the rows of a pretrained classifier.

Both learn, on the 1000 ImageNet classes, to turn the sentence embedding of "a photo of a NAME" into the row that the
network's own classifier has for NAME (centred over the classes and normalised). Neither sees a picture.

    python -m benchmarks.drawn2photo.bridges

prints how well each finds classes that it was not fitted on: five folds, a held-out name must find its own row among
the rows of its fold. That table, and no photograph, is what the kernel's settings were chosen by.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Bridge = Callable[[Tensor], Tensor]


class LinearBridge(nn.Module):
    """Ridge regression: embeddings [N E] → [N D] by B = argmin |T B - R|² + ridge |B|²."""

    matrix: Tensor

    def __init__(self, texts: Tensor, rows: Tensor, *, ridge: float = 0.1) -> None:
        super().__init__()
        texts, rows = texts.double(), rows.double()
        gram = texts.T @ texts + ridge * torch.eye(texts.shape[1], dtype=torch.float64)
        self.register_buffer("matrix", torch.linalg.solve(gram, texts.T @ rows).float())

    def forward(self, embeddings: Tensor) -> Tensor:
        return embeddings @ self.matrix


class KernelBridge(nn.Module):
    """Kernel ridge regression with k(s, t) = exp(gamma (s·t - 1)): embeddings [N E] → [N D].

    A name close to a known class gets that class's row; a name between two gets a mixture. 384 numbers a sentence are
    too few for a linear map to keep 1000 rows apart.
    """

    anchors: Tensor
    weights: Tensor

    def __init__(self, texts: Tensor, rows: Tensor, *, gamma: float = 4.0, ridge: float = 0.1) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("anchors", texts.float().clone())
        kernel = torch.exp(gamma * (texts.double() @ texts.double().T - 1))
        kernel += ridge * torch.eye(len(texts), dtype=torch.float64)
        self.register_buffer("weights", torch.linalg.solve(kernel, rows.double()).float())

    def forward(self, embeddings: Tensor) -> Tensor:
        return torch.exp(self.gamma * (embeddings @ self.anchors.T - 1)) @ self.weights


def held_out_accuracy(texts: Tensor, rows: Tensor, fit: Callable[[Tensor, Tensor], Bridge], *, folds: int = 5) -> float:
    """Share of classes whose row is the nearest, among its fold's, to what a bridge fitted on the other folds says."""
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))
    hits = 0
    for held_out in order.chunk(folds):
        known = torch.ones(len(texts), dtype=torch.bool)
        known[held_out] = False
        guesses = F.normalize(fit(texts[known], rows[known])(texts[held_out]), dim=-1)
        hits += int(((guesses @ rows[held_out].T).argmax(1) == torch.arange(len(held_out))).sum())
    return hits / len(texts)


def main() -> None:
    """Prints the table that the bridges' settings were chosen by."""
    from benchmarks.drawn2photo.towers import imagenet_texts_and_rows

    texts, rows = imagenet_texts_and_rows()
    for ridge in (0.03, 0.1, 0.3, 1.0, 3.0):
        share = held_out_accuracy(texts, rows, lambda t, r, ridge=ridge: LinearBridge(t, r, ridge=ridge))
        print(f"linear, ridge {ridge:g}: {share:.1%}")
    for gamma in (1.0, 2.0, 4.0, 8.0):
        for ridge in (0.01, 0.1, 1.0):
            share = held_out_accuracy(
                texts, rows, lambda t, r, gamma=gamma, ridge=ridge: KernelBridge(t, r, gamma=gamma, ridge=ridge)
            )
            print(f"kernel, gamma {gamma:g}, ridge {ridge:g}: {share:.1%}")


if __name__ == "__main__":
    main()
