"""Two sets of features made alike as wholes: alignment where no generated picture has a real partner."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gen2real.losses._precision import outside_autocast, widen

# Kernel widths about the median squared distance.
_WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


@outside_autocast
def distribution_alignment(
    generated: Float[Tensor, "n d"],
    real: Float[Tensor, "m d"],
    *,
    form: Literal["moments", "mmd"] = "moments",
) -> Float[Tensor, ""]:
    r"""How far the distribution of generated features is from that of real ones; no row has a partner.

    With G, R the L2-normalised rows times √D (a dimension then varies by about one, whatever D is)::

        "moments":  L = 1/D · ‖μ_G − μ_R‖² + 1/(4D²) · ‖C_G − C_R‖²_F
        "mmd":      L = mean k(G, G) + mean k(R, R) − 2 · mean k(G, R),   k(x, y) = 1/5 · Σ_w exp(−‖x − y‖² / (2·w·m))

    μ are means, C unbiased covariances (zero for one row), w ∈ {¼, ½, 1, 2, 4} and m is the median squared distance
    between different rows of both sets, a constant to the gradient.

    Args:
        generated: [N D] and real: [M D]; N and M may differ, and no row of one belongs to one of the other.

    Returns: a scalar of 0 or more, float32 (float64 for float64 input); 0 for equal sets.

    Raises: ValueError for another form and for a side without rows.

    Source: the covariance term is Deep CORAL's (arXiv 1607.01719), equation 1; the kernels those of deep adaptation
    networks (arXiv 1502.02791), as a biased V-statistic (Gretton et al. 2012, equation 5). The term of the means and
    the scale are ours, and so is aligning generated pictures this way: GMAIL has pairs.

    Example:
        >>> import torch
        >>> loss = distribution_alignment(torch.randn(8, 32, requires_grad=True), torch.randn(12, 32))
    """
    if form not in ("moments", "mmd"):
        raise ValueError(f'form is {form!r}; expected "moments" or "mmd"')
    if not len(generated) or not len(real):
        raise ValueError(f"both sides need rows; got {len(generated)} generated and {len(real)} real ones")
    dim = generated.shape[1]
    g, r = (F.normalize(widen(side), dim=-1) * dim**0.5 for side in (generated, real))
    if form == "moments":
        # 1/D · ‖μ_G − μ_R‖² + 1/(4D²) · ‖C_G − C_R‖²_F
        means = (g.mean(dim=0) - r.mean(dim=0)).square().sum() / dim
        return means + (_covariance(g) - _covariance(r)).square().sum() / (4 * dim**2)
    joined = torch.cat([g, r])
    products = joined @ joined.T
    lengths = products.diagonal()
    squared = (lengths[:, None] + lengths[None, :] - 2 * products).clamp(min=0)
    kernel = _gaussians(squared)
    # mean k(G, G) + mean k(R, R) − 2 · mean k(G, R)
    n = len(g)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def _covariance(rows: Tensor) -> Tensor:
    centred = rows - rows.mean(dim=0)
    return centred.T @ centred / max(len(rows) - 1, 1)


def _gaussians(squared: Tensor) -> Tensor:
    apart = ~torch.eye(len(squared), dtype=torch.bool, device=squared.device)
    # Twins all over would make the median zero and every kernel 0/0.
    median = squared.detach()[apart].median().clamp(min=torch.finfo(squared.dtype).eps)
    return torch.stack([torch.exp(-squared / (2 * width * median)) for width in _WIDTHS]).mean(dim=0)
