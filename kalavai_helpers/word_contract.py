"""The ε-contract on a ledger: what it promises, and what it does to the words that came.

A ledger holds what each model said of the word that came, and of no other. So the change of a whole
prediction (total variation, :mod:`kalavai_helpers.contract`) cannot be had from it; that of one
event can, which the contract bounds as well: |p(x) − p_S(x)| ≤ s for every word x. It needs gates
that are known before the specialists run.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from . import corpora, sparse
from .gain_rules import columns
from .ledger import Ledger
from .losses import Estimate, Losses, Weights
from .routing import fuse_log_probs


def measure(ledger: Ledger, gates: torch.Tensor, epsilons: Sequence[float]) -> pd.DataFrame:
    """Drop experts of a mixture under several ε, and compare what it says of each word.

    Parameters
    ----------
    gates
        (n, N) of a router that does not listen to the specialists.

    Returns
    -------
    pandas.DataFrame
        One row an ε, 0 (nobody is dropped) among them: ``asked``, experts with a say a token;
        ``experts`` that a token is read by, what they missed before included; ``bound``, the
        largest promised change of a probability, ``change`` and ``mean_change``, the largest and
        the mean change of that of the word that came; ``excess``, the largest change beyond the
        promise of its own token, negative where all are kept; ``loss``, nats/token, and
        ``loss_change``, % of the loss with everybody, with its interval (``_low``, ``_high``) over
        so many ``sources``.
    """
    corpora.require_role(ledger.role, "heldout", "Measuring the ε-contract")
    gates, experts = gates.double(), ledger.expert_log_probs
    dense = fuse_log_probs(gates, experts)
    rows = {}
    for epsilon in sorted({0.0, *epsilons}):
        keep = sparse.kept(gates, epsilon)
        bound = sparse.bound(gates, keep)
        left = gates * keep / (1 - bound)[:, None]
        said = fuse_log_probs(left, experts)
        loss_change = _loss_change(ledger, dense, said)
        change = (said.exp() - dense.exp()).abs()
        rows[epsilon] = {
            "asked": float(keep.sum(1).double().mean()),
            "experts": read(ledger, keep),
            "bound": float(bound.max()),
            "change": float(change.max()),
            "mean_change": float(change.mean()),
            "excess": float((change - bound).max()),
            "loss": -float(said.mean()),
            **columns(loss_change=loss_change),
            "sources": loss_change.units,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("epsilon")


def read(ledger: Ledger, keep: torch.Tensor) -> float:
    """Experts that a token is read by, on average: whoever is asked has to have read the text so far.

    Parameters
    ----------
    keep
        (n, N) true where an expert has a say.
    """
    longest = torch.zeros(ledger.n_documents, keep.shape[1], dtype=torch.int64)
    lengths = torch.bincount(ledger.document, minlength=ledger.n_documents)
    place = torch.arange(len(ledger)) - (lengths.cumsum(0) - lengths)[ledger.document] + 1
    wanted = place[:, None] * keep
    index = ledger.document[:, None].expand_as(wanted)
    return float(longest.scatter_reduce(0, index, wanted, "amax").sum()) / len(ledger)


def _loss_change(ledger: Ledger, dense: torch.Tensor, said: torch.Tensor) -> Estimate:
    """Change of the mean loss a token, %, with an interval over sources and documents."""

    def total(values: torch.Tensor) -> torch.Tensor:
        empty = torch.zeros(ledger.n_documents, dtype=torch.float64)
        return empty.index_add(0, ledger.document, values.double())

    table = Losses(
        {"dense": total(-dense).numpy(), "said": total(-said).numpy()},
        total(torch.ones(len(ledger))).numpy(),
        ledger.group.numpy(),
        ledger.groups,
        ledger.source,
    )

    def statistic(weights: Weights) -> float:
        weights = 1.0 if weights is None else weights
        dense, said = ((weights * table.sums[name]).sum(-1) for name in ("dense", "said"))
        return 100 * (said / dense - 1)

    return table.interval(statistic)
