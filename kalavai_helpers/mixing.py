"""Mixing: the experts' predictions and the gates to one prediction, and its loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Union

import torch
from torch.nn import functional

from .packing import IGNORE
from .routing import fuse_log_probs

MIXING = ("probability", "logit")
_UNDERFLOW = 1e-30

_ROWS = 128
"""Rows mixed at a time on a CPU, so that what is summed stays in its cache: with 4,096 tokens in
the vocabulary, 64 to 256 take 0.4 of the time of all rows at once."""

Logits = Union[torch.Tensor, "Head"]
Part = tuple[int, torch.Tensor | None, Logits]
"""An expert's index, ascending rows (n,) or ``None`` for all, and its logits (n, V) there."""


@dataclass(frozen=True)
class Head:
    """Logits (n, V) that are computed where they are needed, from states (n, d)."""

    apply: Callable[[torch.Tensor], torch.Tensor]
    states: torch.Tensor

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: slice) -> torch.Tensor:
        return self.apply(self.states[rows])


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
    n = len(gates)
    size = min(n, _ROWS) if gates.device.type == "cpu" else n
    edges = [*range(0, n, size), n]
    inside = [_inside(rows, edges) for _, rows, _ in parts]
    out, blocks = None, []
    for block, (start, stop) in enumerate(pairwise(edges)):
        here = []
        for (i, rows, logits), within in zip(parts, inside, strict=True):
            at = slice(within[block], within[block + 1])
            if at.stop - at.start == stop - start:
                here.append((i, None, logits[at]))
            elif at.stop > at.start:
                here.append((i, rows[at] - start, logits[at]))
        fused = _mixture(here, gates[start:stop], mixing)
        if fused.requires_grad or n == size:
            blocks.append(fused)
            continue
        out = fused.new_empty(n, fused.shape[1]) if out is None else out
        out[start:stop] = fused
    if out is not None:
        return out
    return blocks[0] if n == size else torch.cat(blocks)


def seen(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probability (B, T) of tokens (B, T), from logits (B, T, V); in blocks, as above."""
    flat, wanted = logits.flatten(0, 1), tokens.flatten()[:, None]
    size = _ROWS if flat.device.type == "cpu" else len(flat)
    pairs = zip(flat.split(size), wanted.split(size), strict=True)
    found = [(z.gather(-1, at) - z.logsumexp(-1, keepdim=True))[:, 0] for z, at in pairs]
    return torch.cat(found).view_as(tokens)


def _inside(rows: torch.Tensor | None, edges: list[int]) -> list[int]:
    """Where in an expert's rows the blocks begin, and where the last ends."""
    if rows is None:
        return edges
    if len(edges) == 2:
        return [0, len(rows)]
    return torch.searchsorted(rows, torch.tensor(edges, device=rows.device)).tolist()


def _mixture(parts: list[Part], gates: torch.Tensor, mixing: str) -> torch.Tensor:
    if mixing == "logit":
        return sum(gates[:, i, None] * logits for i, _, logits in parts).log_softmax(-1)
    if len(parts) == 1:
        return parts[0][2].log_softmax(-1)
    mean = gates.new_zeros(len(gates), parts[0][2].shape[1])
    for i, rows, logits in parts:
        if rows is None:
            mean.addcmul_(logits.softmax(-1), gates[:, i, None])
        else:
            mean.index_add_(0, rows, logits.softmax(-1) * gates[rows, i, None])
    if mean.amin() > _UNDERFLOW:
        return mean.log()
    mixed = torch.full_like(mean, -torch.inf)
    every = torch.arange(len(gates), device=gates.device)
    for i, rows, logits in parts:
        rows = every if rows is None else rows
        weighed = logits.log_softmax(-1) + gates[rows, i, None].clamp_min(_UNDERFLOW).log()
        mixed = mixed.index_copy(0, rows, torch.logaddexp(mixed[rows], weighed))
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
