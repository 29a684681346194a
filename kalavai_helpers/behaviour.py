"""Behaviour of a router: how sure it is, what picking costs it, how often and how fast it turns.

Chapter 2 asks it of routers that it trained and of those of a recorded ledger, by the same rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from . import dispatch, evaluation
from .evaluation import Fused
from .ledger import Ledger
from .losses import Estimate, Losses, Weights, over_runs

if TYPE_CHECKING:
    import pandas as pd

CONFIDENT = 0.95
"""A top gate above this is called nearly hard, as published."""


class Routed(Protocol):
    """A cooperative on a ledger's tokens: an ``Experiment`` or a ``KeptRun``."""

    @property
    def ledger(self) -> Ledger:
        """The tokens."""

    @property
    def fused(self) -> Mapping[str, Fused]:
        """Gates (n, N) and log-probabilities (n,) by router."""


def only(run: Routed, groups: Sequence[str]) -> Routed:
    """A cooperative on the documents of some groups alone, in the order of the ledger."""
    groups = tuple(groups)
    indices = torch.tensor([run.ledger.groups.index(group) for group in groups])
    tokens = torch.isin(run.ledger.token_group, indices)
    fused = {
        name: Fused(entry.log_probs[tokens], entry.gates[tokens])
        for name, entry in run.fused.items()
    }
    return replace(run, ledger=run.ledger.restrict(run.ledger.experts, groups), fused=fused)


def confident(runs: Sequence[Routed], router: str, *, one_base: bool = False) -> Estimate:
    """Tokens whose top gate is above :data:`CONFIDENT`, %, mean over runs."""
    chosen = [(run.ledger, run.fused[router].gates.max(1).values > CONFIDENT) for run in runs]
    return _percent(evaluation.token_share(chosen, one_base=one_base))


def turns(runs: Sequence[Routed], router: str, *, one_base: bool = False) -> Estimate:
    """Tokens of 100 at which another specialist is on top than at the token before, mean over runs.

    The first token of a document has none before it.
    """
    chosen = []
    for run in runs:
        top, document = run.fused[router].gates.argmax(1), run.ledger.document
        turned = torch.zeros(len(top), dtype=torch.bool)
        turned[1:] = (top[1:] != top[:-1]) & (document[1:] == document[:-1])
        chosen.append((run.ledger, turned))
    return _percent(evaluation.token_share(chosen, one_base=one_base))


def _percent(share: Estimate) -> Estimate:
    return replace(share, value=100 * share.value, low=100 * share.low, high=100 * share.high)


def picked(run: Routed, routers: Sequence[str]) -> Losses:
    """Losses of a ledger's models, and of routers that mix and that pick.

    Returns
    -------
    Beside the models ``ROUTER, soft`` (as it fuses) and ``ROUTER, hard`` (the specialist with the
    largest gate speaks alone).
    """
    methods = {}
    for name in routers:
        methods[f"{name}, soft"] = run.fused[name].log_probs
        methods[f"{name}, hard"] = evaluation.dispatch(run.ledger, run.fused[name].gates)
    return evaluation.losses(run.ledger, methods)


def picking_adds(
    tables: Sequence[Losses], experts: tuple[str, ...], router: str, *, one_base: bool = False
) -> Estimate:
    """What picking adds to a router's gain over the best specialist, pp, mean over runs.

    Parameters
    ----------
    tables
        One a run, of :func:`picked`.
    """

    def statistic(run: int, weights: Weights) -> np.ndarray:
        table = tables[run]
        best = np.min([table.equal_weight(name, weights) for name in experts], axis=0)
        soft, hard = (table.equal_weight(f"{router}, {how}", weights) for how in ("soft", "hard"))
        return 100 * (soft - hard) / best

    return over_runs(tables, statistic, None if one_base else range(len(tables)))


def summary(
    runs: Sequence[Routed], routers: Sequence[str], *, one_base: bool = False
) -> pd.DataFrame:
    """All of the above for several routers, mean over runs.

    Returns
    -------
    One row a router: confident (% of tokens), turns (of 100 tokens), soft and hard (equal-weight
    loss, nats/token), hard_minus_soft (nats/token) and picking_adds (pp of the gain over the best
    specialist); all but the losses with ``_low`` and ``_high``.
    """
    import pandas as pd

    tables, rows = [picked(run, routers) for run in runs], {}
    for name in routers:
        soft, hard = f"{name}, soft", f"{name}, hard"
        rows[name] = {
            "soft": np.mean([table.equal_weight(soft) for table in tables]),
            "hard": np.mean([table.equal_weight(hard) for table in tables]),
        }
        for column, found in {
            "confident": confident(runs, name, one_base=one_base),
            "turns": turns(runs, name, one_base=one_base),
            "hard_minus_soft": dispatch.difference(tables, hard, soft, one_base=one_base),
            "picking_adds": picking_adds(tables, runs[0].ledger.experts, name, one_base=one_base),
        }.items():
            ends = {f"{column}_low": found.low, f"{column}_high": found.high}
            rows[name] |= {column: found.value, **ends}
    return pd.DataFrame(rows).T.rename_axis("router")


def second_gates(ledger: Ledger, gates: torch.Tensor) -> np.ndarray:
    """Gates of the specialist of the second half, documents that switch half-way.

    Parameters
    ----------
    ledger
        Its groups are pairs such as ``code → science`` (``ledger.switching``).
    gates
        (n, N) on its tokens.

    Returns
    -------
    (n_documents, T), T tokens a document.
    """
    second = [ledger.experts.index(group.split(" → ")[1]) for group in ledger.groups]
    owner = torch.tensor(second)[ledger.token_group]
    own = gates.gather(1, owner[:, None])[:, 0]
    return own.reshape(ledger.n_documents, -1).numpy()


def delay(ledger: Ledger, gates: torch.Tensor) -> Estimate:
    """Tokens from the switch until the second specialist's mean gate passes one half.

    All of the second half where it never does. Parameters as of :func:`second_gates`.
    """
    own = second_gates(ledger, gates)
    half = own.shape[1] // 2

    def statistic(weights: Weights) -> np.ndarray:
        weights = np.ones(len(own)) if weights is None else weights
        mean = weights @ own[:, half:] / weights.sum(-1, keepdims=True)
        passed = mean > 0.5
        return np.where(passed.any(-1), passed.argmax(-1), half)

    return evaluation.losses(ledger).interval(statistic)


def prompts(run: Routed, tokens: Sequence[str], routers: Sequence[str]) -> list[dict[str, Any]]:
    """What ``figures.routing_heatmap`` draws of prompts that are a ledger's documents.

    Parameters
    ----------
    run
        Its groups are the titles of the prompts, one document each.
    tokens
        The text of every token of its ledger, (n,).
    """
    found = []
    for index, title in enumerate(run.ledger.groups):
        own = (run.ledger.token_group == index).nonzero()[:, 0]
        found.append(
            {
                "title": title,
                "tokens": [tokens[place] for place in own.tolist()],
                "gates": {name: run.fused[name].gates[own].numpy() for name in routers},
            }
        )
    return found
