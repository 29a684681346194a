"""Pooled routers trained until they have converged, which 500 steps need not be.

The criterion is stated, and the same for every router: see :func:`converge`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from . import pooled_fit
from .pooled_fit import Pool
from .routing import PooledRouter

CHECKS = 32
"""Router chunks a domain that tell when a fit has converged."""
EVERY = 100
"""Steps between two looks at their loss, which together cost a tenth of the steps."""
SMOOTH = 5
"""Looks that are averaged: single batches of 4 move the loss by more than 500 steps do."""
TOLERANCE = 1e-4
"""Nats/token by which 500 further steps must lower the smoothed loss, or the fit has converged."""
MOST_STEPS = 10_000
"""Where a fit that still improves is stopped: twenty times as long as published."""


@dataclass(frozen=True)
class Converged:
    """A router that further steps would not improve, and its loss on the way there.

    ``loss`` (K,) nats/token of the logit mixture on the checked router chunks, every ``EVERY``
    steps from the first on; ``steps`` of those with the least; ``capped``: stopped at
    ``MOST_STEPS`` while it still improved.
    """

    router: PooledRouter
    loss: np.ndarray
    steps: int
    capped: bool


def converge(
    pool: Pool, checks: Pool, seed: int, width: int | None = pooled_fit.WIDTH
) -> Converged:
    """Go on with the fit of the same seed until it has converged.

    It has when the mean loss of the last ``SMOOTH`` looks at router documents, which neither
    specialists nor this fit train on, is not below that of the ``SMOOTH`` before by ``TOLERANCE``.
    The weights with the least loss on them are kept.
    """
    router, loss, kept = pooled_fit.start(pool, seed, width), [], {}
    for step in pooled_fit.descend(router, pool, seed):
        if step % EVERY:
            continue
        with torch.no_grad():
            loss.append(_loss(checks, router.weigh(checks.features)))
        if loss[-1] == min(loss):
            kept = {name: value.clone() for name, value in router.state_dict().items()}
        if has_converged(loss) or step >= MOST_STEPS:
            break
    router.load_state_dict(kept)
    capped = not has_converged(loss)
    best = EVERY * int(np.argmin(loss))
    return Converged(router.cpu().requires_grad_(False), np.array(loss), best, capped)


def has_converged(loss: Sequence[float]) -> bool:
    """Whether the smoothed loss (see :func:`converge`) has stopped to fall."""
    if len(loss) < 2 * SMOOTH:
        return False
    before, after = np.mean(loss[-2 * SMOOTH : -SMOOTH]), np.mean(loss[-SMOOTH:])
    return bool(before - after < TOLERANCE)


def _loss(pool: Pool, gates: torch.Tensor) -> float:
    """Mean cross-entropy of the logit mixture under gates (M, N), nats/token."""
    total = 0.0
    for rows in torch.arange(len(pool.states)).split(8):
        logits = pooled_fit.mixed_logits(pool.states[rows], gates[rows], pool.heads)
        chosen = logits.gather(-1, pool.targets[rows][..., None])[..., 0] - logits.logsumexp(-1)
        total -= float(chosen.sum())
    return total / pool.targets.numel()
