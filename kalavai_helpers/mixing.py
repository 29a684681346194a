"""Mixing: the experts' predictions and the gates to one prediction, and its loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from .packing import IGNORE
from .routing import fuse_log_probs

MIXING = ("probability", "logit")
_UNDERFLOW = 1e-30

Part = tuple[torch.Tensor | None, torch.Tensor]
"""Rows (n,), or ``None`` for all of them, and an expert's logits (n, V) there."""


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
        One an expert, in the order of the gates.
    gates
        (n, N), 0 where an expert was not asked.
    """
    if mixing == "logit":
        mixed = sum(gates[:, i, None] * logits for i, (_, logits) in enumerate(parts))
        return mixed.log_softmax(-1)
    if all(rows is None for rows, _ in parts):
        return _log_mean([logits for _, logits in parts], gates)
    # Most rows need one expert, and no sum; the others are mixed apart.
    n_asked = (gates > 0).sum(1)
    out = gates.new_empty(len(gates), parts[0][1].shape[1])
    several = (n_asked > 1).nonzero()[:, 0]
    place = torch.full((len(gates),), -1, device=gates.device)
    place[several] = torch.arange(len(several), device=gates.device)
    for rows, logits in parts:
        alone = n_asked[rows] == 1
        if alone.all() and len(rows) == len(out):
            return logits.log_softmax(-1)
        out[rows[alone]] = logits[alone].log_softmax(-1)
    if len(several):
        out[several] = _log_sparse_mean(parts, gates, n_asked, place, len(several))
    return out


def _log_mean(logits: list[torch.Tensor], gates: torch.Tensor) -> torch.Tensor:
    if len(logits) == 1:
        return logits[0].log_softmax(-1)
    mean = sum(gates[:, i, None] * z.softmax(-1) for i, z in enumerate(logits))
    if mean.amin() > _UNDERFLOW:
        return mean.log()
    stacked = torch.stack([z.log_softmax(-1) for z in logits], -1)
    return fuse_log_probs(gates[:, None], stacked)


def _log_sparse_mean(
    parts: list[Part],
    gates: torch.Tensor,
    n_asked: torch.Tensor,
    place: torch.Tensor,
    n_rows: int,
) -> torch.Tensor:
    mixed = gates.new_full((n_rows, parts[0][1].shape[1]), -torch.inf)
    for i, (rows, logits) in enumerate(parts):
        mine = n_asked[rows] > 1
        at = place[rows[mine]]
        weighed = logits[mine].log_softmax(-1) + gates[rows[mine], i, None].log()
        mixed[at] = torch.logaddexp(mixed[at], weighed)
    return mixed


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
