"""How alike two sequences are, over all ways to align them."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gen2real.losses._alignments import (
    Sums,
    alignments,
    check_lengths,
    countable,
    last_places,
    log_alignments,
    portions,
    side_by_side,
)
from gen2real.losses._precision import outside_autocast, widen

NORMALIZERS = ("paths", "none")
DOMAINS = ("auto", "linear", "log")


@torch.no_grad()
@outside_autocast
def global_alignment_kernel(
    distance: Float[Tensor, "p n m"],
    lengths: Int[Tensor, "p 2"],
    *,
    bandwidth: float | int = 1.0,
    normalize: Literal["paths", "none"] = "paths",
    domain: Literal["auto", "linear", "log"] = "auto",
) -> Float[Tensor, " p"]:
    r"""The sum, over all alignments of a pair, of the product of a local kernel along the alignment.

    An alignment π goes from (1, 1) to (n, m) in steps (1, 0), (0, 1), (1, 1)::

        K = Σ_π Π_{(i,j) ∈ π} κ_ij,     κ = s / (2 − s),   s = exp(−φ / 2σ²),   σ = bandwidth · √((n + m) / 2)

    κ is exp(−φ_σ) of the paper, and 1 where φ is 0. "paths" divides by the number of alignments, so that K is their
    mean and within (0, 1], whatever the lengths: 1, 3, 13, 63, 321 for n = m = 1 … 5.

    Args:
        distance: φ, [P N M] of P pairs, a squared distance, 0 or more and not yet scaled. What lies beyond a pair's
            lengths may be anything, NaN too. Fastest where the pairs lie side by side in memory: a `permute(2, 0, 1)`
            of a table [N M P].
        lengths: [P 2], (n, m) of each pair, 1 to N and 1 to M.
        bandwidth: δ, above 0, in the unit of √φ.
        normalize: "paths" (ours: the paper's range (0, 1] needs some), or "none", the sum itself. For
            K(x, y) / √(K(x, x) · K(y, y)) divide by "none" of each sequence with itself.
        domain: "linear" adds and multiplies, "log" has their logarithms; "auto" is "linear" as long as the
            number of alignments is within the range of floats: N + M up to 99 in float32, 803 in float64.

    Returns: [P], float32 (float64 for float64 distances). No gradient: it makes targets. `soft_dtw` has one.

    Raises: ValueError for a bandwidth that is not above 0, lengths that are not 1 to N and 1 to M, or other words.

    Source: Sugar (arXiv 2411.00304), equation 2; Cuturi et al., "A kernel for time series based on global alignments"
    (arXiv cs/0610033), with the local kernel of Cuturi, "Fast global alignment kernels" (ICML 2011).

    Example:
        >>> import torch
        >>> global_alignment_kernel(torch.zeros(1, 3, 3), torch.tensor([[3, 3]]), normalize="none")
        tensor([13.])
    """
    if not 0 < bandwidth < math.inf:
        raise ValueError(f"bandwidth is {bandwidth}; expected a finite number above 0, such as 1.0 for unit vectors")
    if normalize not in NORMALIZERS:
        raise ValueError(f"normalize is {normalize!r}; expected one of {', '.join(NORMALIZERS)}")
    if domain not in DOMAINS:
        raise ValueError(f"domain is {domain!r}; expected one of {', '.join(DOMAINS)}")
    check_lengths("distance", distance, lengths)
    phi = widen(distance)
    _, n, m = phi.shape
    if len(phi) == 0:
        return phi.new_empty(0)
    in_logs = domain == "log" or (domain == "auto" and not countable(n, m, phi.dtype))
    values = [_kernel(some, ends, bandwidth, in_logs) for some, ends in portions(phi, lengths)]
    value = torch.cat(values)
    if normalize == "paths":
        of = (lengths[:, 0] - 1, lengths[:, 1] - 1)
        # Beyond the range of floats the one by the other is a difference of logarithms.
        value = value - log_alignments(n, m).to(value)[of] if in_logs else value / alignments(n, m).to(value)[of]
    return value.exp() if in_logs else value


def _kernel(phi: Tensor, lengths: Tensor, bandwidth: float | int, in_logs: bool) -> Tensor:
    """K, or its logarithm, of each pair."""
    pairs, n, m = phi.shape
    sums = Sums(n, m, pairs, phi, in_logs=in_logs)
    # φ / 2σ², with 2σ² = bandwidth² · (n + m)
    factors = torch.mul(side_by_side(phi), 1 / (bandwidth**2 * lengths.sum(dim=1).to(phi)), out=sums.cells)
    if in_logs:
        # log κ = −φ_σ,  φ_σ = φ / 2σ² + log(2 − s)
        factors.add_(torch.log1p(-torch.expm1(-factors))).neg_()
    else:
        # κ = s / (2 − s) = ½ / (1/s − ½)
        factors.exp_().sub_(0.5).reciprocal_().mul_(0.5)
    sums.accumulate()
    return sums.cells[last_places(lengths)]
