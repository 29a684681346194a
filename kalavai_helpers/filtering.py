"""Fixed share: the Bayesian filter over experts that may switch (Herbster and Warmuth 1998)."""

from __future__ import annotations

import math

import torch

_IMPOSSIBLE = -1e9
"""Log of zero that keeps gradients finite."""
_MOST_STARTS = 1024
"""Sequences · experts² up to which blocks side by side are faster than token by token, on a CPU."""


def fixed_share(
    evidence: torch.Tensor, alpha: float, start: torch.Tensor | None = None
) -> torch.Tensor:
    """Log-weights after each piece of evidence: w ∝ w · exp(e_t), then w ← (1 − α) w + α / N.

    Parameters
    ----------
    evidence
        (B, T, N) log-likelihoods, up to a constant a token.
    alpha
        Chance that another expert takes over before the next token.
    start
        (B, N) log-weights before the first token; by default all experts are equal.

    Returns
    -------
    (B, T, N) float64 log-weights that sum to one.

    Notes
    -----
    The filter is sequential, but linear before it is normalised: a long text is cut into about
    √T blocks that run side by side from every expert they may start with, and are joined after.
    """
    evidence = evidence.double()
    batch, length, n = evidence.shape
    if start is None:
        start = evidence.new_full((batch, n), -math.log(n))
    stay = math.log1p(-alpha)
    share = evidence.new_tensor(math.log(alpha / n) if alpha else _IMPOSSIBLE)
    if length < 48 or batch * n * n > _MOST_STARTS:
        return _run(evidence, start, stay, share)[0]
    size = math.isqrt(length)
    n_blocks = -(-length // size)
    padded = torch.nn.functional.pad(evidence, (0, 0, 0, n_blocks * size - length))
    blocks = padded.view(batch * n_blocks, 1, size, n).expand(-1, n, -1, -1)
    certain = torch.full((n, n), _IMPOSSIBLE, dtype=torch.float64, device=evidence.device)
    certain = certain.fill_diagonal_(0).expand(batch * n_blocks, n, n)
    weights, totals = _run(blocks.flatten(0, 1), certain.flatten(0, 1), stay, share)
    weights = weights.view(batch, n_blocks, n, size, n)
    totals = totals.view(batch, n_blocks, n, size, 1)
    # Posterior of the start of a block, given the block up to a token, weighs the runs from it.
    ends, seen = weights[..., -1, :], totals[..., -1, :]
    starts = [start]
    for block in range(n_blocks - 1):
        joint = (starts[-1][..., None] + seen[:, block]).log_softmax(1)
        starts.append((joint + ends[:, block]).logsumexp(1))
    joint = torch.stack(starts, 1)[..., None, None] + totals
    return (joint.log_softmax(2) + weights).logsumexp(2).flatten(1, 2)[:, :length]


def _run(
    evidence: torch.Tensor, weight: torch.Tensor, stay: float, share: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Filter token by token: log-weights (B, T, N) and log-evidence so far (B, T)."""
    weights, totals, total = [], [], 0.0
    for t in range(evidence.shape[1]):
        joint = weight + evidence[:, t]
        found = joint.logsumexp(-1, keepdim=True)
        total = total + found
        weight = torch.logaddexp(joint - found + stay, share)
        weights.append(weight)
        totals.append(total[:, 0])
    return torch.stack(weights, 1), torch.stack(totals, 1)
