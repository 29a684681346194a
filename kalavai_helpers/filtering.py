"""Fixed share: the Bayesian filter over experts that may switch (Herbster and Warmuth 1998)."""

from __future__ import annotations

import math

import torch

_LEAST = -300.0
"""Log of the smallest likelihood beside the largest: of what is less, nothing is left to see, and
quotients of it stay finite."""
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
    No weight is below α / N, so that all of it can be done on probabilities.
    """
    evidence = evidence.double()
    batch, length, n = evidence.shape
    if start is None:
        start = evidence.new_full((batch, n), -math.log(n))
    if not alpha:
        return (start[:, None] + evidence.cumsum(1)).log_softmax(-1)
    weight, likelihood = start.exp(), _beside_the_largest(evidence)
    if length < 48 or batch * n * n > _MOST_STARTS:
        return _run(likelihood, weight, alpha)[0].log()
    size = math.isqrt(length)
    n_blocks = -(-length // size)
    padded = torch.nn.functional.pad(likelihood, (0, 0, 0, n_blocks * size - length), value=1.0)
    blocks = padded.view(batch * n_blocks, 1, size, n).expand(-1, n, -1, -1).flatten(0, 1)
    certain = torch.eye(n, dtype=torch.float64, device=evidence.device)
    weights, totals = _run(blocks, certain.repeat(batch * n_blocks, 1), alpha)
    weights = weights.view(batch, n_blocks, n, size, n)
    totals = totals.view(batch, n_blocks, n, size).log().cumsum(-1)
    # Posterior of the start of a block, given the block up to a token, weighs the runs from it.
    ends, seen = weights[..., -1, :].unbind(1), _beside_the_largest(totals[..., -1]).unbind(1)
    starts = [weight]
    for block in range(n_blocks - 1):
        joint = ((starts[-1] * seen[block])[:, None] @ ends[block])[:, 0]
        starts.append(joint / joint.sum(-1, keepdim=True))
    joint = (torch.stack(starts, 1).log()[..., None] + totals).softmax(2)
    return (joint[..., None] * weights).sum(2).log().flatten(1, 2)[:, :length]


def _beside_the_largest(logs: torch.Tensor) -> torch.Tensor:
    return (logs - logs.detach().amax(-1, keepdim=True)).clamp_min(_LEAST).exp()


def _run(
    likelihood: torch.Tensor, weight: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Filter token by token: weights (B, T, N), and likelihood (B, T) of each token before it."""
    share = likelihood.new_tensor(alpha / likelihood.shape[-1])
    weights, totals = [], []
    for each in likelihood.transpose(0, 1).contiguous():
        joint = weight * each
        total = joint.sum(-1, keepdim=True)
        weight = torch.addcdiv(share, joint, total, value=1 - alpha)
        weights.append(weight)
        totals.append(total)
    return torch.stack(weights, 1), torch.cat(totals, 1)


def subset_log_probs(
    log_probs: torch.Tensor, members: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of one text under mixtures of many subsets of its experts.

    What :class:`routing.EvidenceRouter` and :class:`routing.UniformRouter` give each subset by
    itself, for all of them side by side: the filter is the same, with the weight of whoever is no
    member at zero.

    Parameters
    ----------
    log_probs
        (T, N) of every expert.
    members
        (N, S) true where an expert belongs to a subset; none is empty.
    alpha
        Chance that another expert takes over before the next token, above 0.

    Returns
    -------
    Under the evidence router, and with equal weights: (S,) float64 each, nats.

    Raises
    ------
    ValueError
        For ``alpha`` outside (0, 1), or an empty subset.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is the chance of a switch, in (0, 1) for subsets, not {alpha}")
    if not members.any(0).all():
        raise ValueError("A subset has no member: give each at least one expert")
    log_probs = log_probs.double()
    likelihood = _beside_the_largest(log_probs)  # of all experts, whoever is a member
    equal = members / members.sum(0, dtype=torch.float64)
    share, weight = alpha * equal, equal.clone()
    totals = likelihood.new_empty(len(likelihood), members.shape[1])
    for each, total in zip(likelihood, totals, strict=True):
        weight *= each[:, None]
        torch.sum(weight, 0, out=total)
        torch.addcmul(share, weight, (1 - alpha) / total, out=weight)
    largest = log_probs.amax(-1).sum()
    return totals.log_().sum(0) + largest, (likelihood @ equal).log_().sum(0) + largest
