"""Mixing: the experts' predictions and the gates to one prediction, and its loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from .packing import IGNORE
from .routing import fuse_log_probs

MIXING = ("probability", "logit")
_UNDERFLOW = 1e-30

Part = tuple[int, torch.Tensor | None, torch.Tensor]
"""An expert's index, ascending rows (n,) or ``None`` for all, and its logits (n, V) there."""


@dataclass
class ExpertOutput:
    """What the experts say of a batch, before any router.

    ``logits`` and ``log_probs`` (B, T, N, V); ``seen`` (B, T - 1, N): log-probability of the
    token that followed; ``features`` (B, T, F) and ``tokens`` (B, T): what the router reads.
    """

    logits: torch.Tensor
    log_probs: torch.Tensor
    seen: torch.Tensor
    features: torch.Tensor | None
    tokens: torch.Tensor | None = None


def mix(gates: torch.Tensor, experts: ExpertOutput, mixing: str) -> torch.Tensor:
    """Fused log-probabilities (..., V) from gates (..., N) and the experts' predictions."""
    if mixing == "probability":
        return fuse_log_probs(gates[..., None, :], experts.log_probs.transpose(-1, -2))
    return (gates[..., None] * experts.logits).sum(-2).log_softmax(-1)


def combine(parts: list[Part], gates: torch.Tensor, mixing: str) -> torch.Tensor:
    """Fused log-probabilities (n, V) of experts some of which were asked at some rows only.

    Parameters
    ----------
    parts
        What the experts said, those that were not asked left out.
    gates
        (n, N), 0 where an expert was not asked.
    """
    if mixing == "logit":
        return sum(gates[:, i, None] * logits for i, _, logits in parts).log_softmax(-1)
    if len(parts) == 1:
        return parts[0][2].log_softmax(-1)
    if all(rows is None for _, rows, _ in parts):
        return _mixture(parts, gates)
    # Most rows need one expert, and no sum; the others are mixed apart.
    asked = (gates > 0).sum(1)
    several = (asked > 1).nonzero()[:, 0]
    place = torch.full((len(gates),), -1, device=gates.device)
    place[several] = torch.arange(len(several), device=gates.device)
    out = gates.new_empty(len(gates), parts[0][2].shape[1])
    mixed = gates.new_full((len(several), out.shape[1]), -torch.inf)
    for i, rows, logits in parts:
        log_probs = logits.log_softmax(-1)
        if len(rows) == len(out):
            out = log_probs
        else:
            out[rows] = log_probs
        mine = asked[rows] > 1
        at = place[rows[mine]]
        weighed = log_probs[mine] + gates[rows[mine], i, None].log()
        mixed[at] = torch.logaddexp(mixed[at], weighed)
    out[several] = mixed
    return out


def _mixture(parts: list[Part], gates: torch.Tensor) -> torch.Tensor:
    mean = sum(gates[:, i, None] * logits.softmax(-1) for i, _, logits in parts)
    if mean.amin() > _UNDERFLOW:
        return mean.log()
    return fuse_log_probs(gates[:, None], torch.stack([z.log_softmax(-1) for _, _, z in parts], -1))


def loss(
    log_probs: torch.Tensor, labels: torch.Tensor, n_items: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Cross-entropy of the tokens that follow, nats/token; −100 is ignored.

    Divided by ``n_items`` where a trainer that accumulates steps gives it. Without any label it
    is 0, and not the NaN that would end a training run.
    """
    wanted = labels[:, 1:].flatten()
    total = functional.nll_loss(
        log_probs[:, :-1].flatten(0, 1), wanted, ignore_index=IGNORE, reduction="sum"
    )
    return total / ((wanted != IGNORE).sum().clamp_min(1) if n_items is None else n_items)
