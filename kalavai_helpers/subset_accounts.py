"""Where the gains of subsets come from: oracle gain − routing regret + mixing bonus, exactly.

The gates of every token are needed, which the losses of :mod:`subsets` do without.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from . import subsets
from .ledger import Ledger
from .routing import EvidenceRouter
from .subsets import Subsets

LARGER = 12
"""Subsets of a size above half of the specialists; smaller ones come one a size from each half."""
TERMS = ("oracle", "regret", "bonus", "gain")
_LEAST = -300.0  # log of what is too unlikely beside the best expert to be seen


def drawn_log_probs(
    log_probs: torch.Tensor, members: torch.Tensor, alpha: float
) -> tuple[torch.Tensor]:
    """Mean log-probability of one text where each token asks one expert drawn from the gates.

    The gates are those of :class:`routing.EvidenceRouter` for many subsets side by side, the weight
    of whoever is no member at zero.

    Parameters
    ----------
    log_probs
        (T, N) of every expert.
    members
        (N, S) true where an expert belongs to a subset.
    alpha
        Chance that another expert takes over before the next token.

    Returns
    -------
    (S,) float64, nats, summed over the tokens; alone in a tuple, see :data:`subsets.OfText`.
    """
    log_probs = log_probs.double()
    likelihood = (log_probs - log_probs.amax(-1, keepdim=True)).clamp_min(_LEAST).exp()
    equal = members / members.sum(0, dtype=torch.float64)
    share, gates = alpha * equal, equal.clone()
    drawn = torch.zeros(members.shape[1], dtype=torch.float64)
    for seen, each in zip(log_probs, likelihood, strict=True):
        drawn += seen @ gates
        gates *= each[:, None]
        torch.addcmul(share, gates, (1 - alpha) / gates.sum(0), out=gates)
    return (drawn,)


def chosen(found: Subsets, halves: np.ndarray, larger: int = LARGER) -> np.ndarray:
    """Rows (K,) of subsets that are accounted for: within each half one of every size, and larger ones.

    ``halves`` are those that the subsets were drawn for (:func:`subsets.draw`), so that intervals
    over specialists can be had.
    """
    n = len(found.experts)
    size = found.members.sum(1)
    kept = np.zeros(len(size), bool)
    for turn, half in enumerate(halves.reshape(-1, n)):
        inside = ~(found.members & ~half).any(1)
        for each in range(2, n // 2 + 1):
            rows = np.flatnonzero(inside & (size == each))
            kept[rows[turn % len(rows)]] = True
    for each in range(n // 2 + 1, n + 1):
        rows = np.flatnonzero(size == each)
        kept[rows[np.linspace(0, len(rows) - 1, min(larger, len(rows))).astype(int)]] = True
    return np.flatnonzero(kept)


def account(
    ledger: Ledger, found: Subsets, rows: np.ndarray, alpha: float = EvidenceRouter().alpha
) -> Subsets:
    """The subsets of some rows with two more columns, as :class:`evaluation.Accounting` has them.

    Parameters
    ----------
    ledger, alpha
        Those that the subsets were measured with.

    Returns
    -------
    Subsets
        With regret and bonus (pp): gain = oracle − regret + bonus.
    """
    members, table = found.members[rows], found.table.iloc[rows]
    (drawn,) = subsets.equal_weight(ledger, members, partial(drawn_log_probs, alpha=alpha))
    scale = 100 / table["best_loss"]
    table = table.assign(
        regret=scale * (drawn - table["oracle_loss"]),
        bonus=scale * (drawn - table["evidence_loss"]),
    )
    return replace(found, members=members, table=table.reset_index(drop=True))
