"""Mixing: the experts' predictions and the gates to one prediction, and its loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Union

import torch
from torch.nn import functional

from .packing import IGNORE

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

    def __getitem__(self, rows: slice | torch.Tensor) -> torch.Tensor:
        return self.apply(self.states[rows])


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
    blocks = _blocks(parts, n, size)
    if torch.is_grad_enabled():  # what is written into would have to be kept once a block
        every, found = torch.arange(n, device=gates.device), []
        for rows, here in blocks:
            found.append((every[rows], _mixture(here, gates[rows], mixing)))
        rows, fused = map(torch.cat, zip(*found, strict=True))
        return fused if torch.equal(rows, every) else fused[rows.argsort()]
    out = None
    for rows, here in blocks:
        out = here[0][2].new_empty(n, here[0][2].shape[1]) if out is None else out
        if isinstance(rows, slice):
            _mixture(here, gates[rows], mixing, out[rows])
        else:
            out.index_copy_(0, rows, _mixture(here, gates[rows], mixing))
    return out


def _blocks(
    parts: list[Part], n: int, size: int
) -> Iterator[tuple[slice | torch.Tensor, list[Part]]]:
    """Rows to mix at a time, and the parts there; their rows count from the first of the block.

    Rows at which one expert alone was asked go first, and those with more of them together: what
    few experts say at a few rows here and there would otherwise be added up in many small pieces.
    """
    if all(rows is None or len(rows) == n for _, rows, _ in parts):
        for start in range(0, n, size):
            at = slice(start, min(start + size, n))
            yield at, [(i, None, logits[at]) for i, _, logits in parts]
        return
    device = next(rows.device for _, rows, _ in parts if rows is not None)
    every = torch.arange(n, device=device)
    asked = [every if rows is None else rows for _, rows, _ in parts]
    times = torch.bincount(torch.cat(asked), minlength=n)
    several = (times > 1).nonzero()[:, 0]
    place = torch.empty_like(every).index_copy(0, several, every[: len(several)])
    shared = []
    for (i, _, logits), rows in zip(parts, asked, strict=True):
        alone = times[rows] == 1
        single = alone.nonzero()[:, 0]
        for at in _pieces(single, rows[single], size):
            yield _consecutive(rows[at]), [(i, None, logits[at])]
        at = (~alone).nonzero()[:, 0]
        shared.append((i, place[rows[at]], logits, at))
    for start in range(0, len(several), size):
        stop = min(start + size, len(several))
        edges = torch.tensor([start, stop], device=device)
        here: list[Part] = []
        for i, rows, logits, at in shared:
            first, last = torch.searchsorted(rows, edges).tolist()
            if last > first:
                inside = None if last - first == stop - start else rows[first:last] - start
                here.append((i, inside, logits[at[first:last]]))
        yield several[start:stop], here


def _pieces(items: torch.Tensor, rows: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """Items in pieces of ``size`` at most; long runs of consecutive rows share none with others."""
    if len(rows):
        starts = rows.diff(prepend=rows[:1] - 2) != 1
        run = starts.cumsum(0) - 1
        long = torch.bincount(run)[run] >= size
        cuts = (starts & (long | long.roll(1)))[1:].nonzero()[:, 0] + 1
        for piece in items.tensor_split(cuts.tolist()):
            yield from piece.split(size)


def _consecutive(rows: torch.Tensor) -> slice | torch.Tensor:
    """Ascending rows as a slice where there is none between them, so that it can be written to."""
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first == len(rows) - 1 else rows


def seen(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probability (B, T) of tokens (B, T), from logits (B, T, V); in blocks, as above."""
    flat, wanted = logits.flatten(0, 1), tokens.flatten()[:, None]
    size = _ROWS if flat.device.type == "cpu" else len(flat)
    pairs = zip(flat.split(size), wanted.split(size), strict=True)
    found = [(z.gather(-1, at) - z.logsumexp(-1, keepdim=True))[:, 0] for z, at in pairs]
    return torch.cat(found).view_as(tokens)


def _mixture(
    parts: list[Part], gates: torch.Tensor, mixing: str, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Fused log-probabilities at some rows, written into ``out`` where it is given."""
    if mixing == "logit":
        fused = sum(gates[:, i, None] * logits for i, _, logits in parts)
        return torch.log_softmax(fused, -1, out=out)
    if len(parts) == 1:
        return torch.log_softmax(parts[0][2], -1, out=out)
    mean = gates.new_zeros(len(gates), parts[0][2].shape[1])
    for i, rows, logits in parts:
        if rows is None:
            mean.addcmul_(logits.softmax(-1), gates[:, i, None])
        else:
            mean.index_add_(0, rows, logits.softmax(-1) * gates[rows, i, None])
    if mean.amin() > _UNDERFLOW:
        return torch.log(mean, out=out)
    mixed = torch.full_like(mean, -torch.inf)
    every = torch.arange(len(gates), device=gates.device)
    for i, rows, logits in parts:
        rows = every if rows is None else rows
        weighed = logits.log_softmax(-1) + gates[rows, i, None].clamp_min(_UNDERFLOW).log()
        mixed = mixed.index_copy(0, rows, torch.logaddexp(mixed[rows], weighed))
    return mixed if out is None else out.copy_(mixed)


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
