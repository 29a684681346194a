"""How many specialists: the published experiment, in communities drawn from the twenty.

Published were two to five specialists, judged on the text of the same five domains: who has not
joined yet has text all the same. Here many communities of five are drawn, each with an order in
which its members join. (What a cooperative gains on its own members' text is
:func:`subsets.growth`.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from . import evaluation, gain_rules, parallel, published
from .filtering import subset_log_probs
from .ledger import Ledger
from .losses import Estimate
from .routing import EvidenceRouter
from .specialists import BASE

SIZE = 5
"""Members of a community, as published."""
HALVINGS, PER_HALF = 30, 10
"""Halvings of the specialists, and communities drawn within every half: 600 of twenty."""
_RUN = "specialist-count/pythia-410m_step10000/{}_specialists/"
_EQUAL = "improvement_vs_spec/s{}/corrected-equal-weight-over-"
_SEEDS = (42, 137, 2026)


def draw(
    halves: np.ndarray, per_half: int = PER_HALF, size: int = SIZE, seed: int = 0
) -> np.ndarray:
    """Communities within halves (H, 2, n) of the specialists, (2H, per_half, size) indices.

    A community lists its members in the order in which they join, a random one.

    Raises
    ------
    ValueError
        If a half has fewer specialists than a community.
    """
    rng = np.random.default_rng(seed)
    flat = halves.reshape(-1, halves.shape[-1])
    fewest = int(flat.sum(1).min())
    if fewest < size:
        raise ValueError(f"Halves of {fewest} specialists hold no community of {size}")
    drawn = [
        [rng.choice(np.flatnonzero(half), size, replace=False) for _ in range(per_half)]
        for half in flat
    ]
    return np.array(drawn)


def measure(
    ledger: Ledger, communities: np.ndarray, alpha: float = EvidenceRouter().alpha
) -> pd.DataFrame:
    """Gain of the first two, three … members of a community on the text of all its members.

    Parameters
    ----------
    ledger
        Of experts that are named after its groups.
    communities
        (2H, P, size), see :func:`draw`.

    Returns
    -------
    One row a community and number of contributors: half (that it was drawn in), community,
    contributors, gain (of evidence routing over the best of those who joined, %) and gain_over_base
    (%); equal weight over the community's domains.

    Raises
    ------
    ValueError
        If the ledger has domains without an expert, or experts without a domain.
    """
    if ledger.groups != ledger.experts:
        raise ValueError(
            f"Communities need one expert a domain in the same order, not {ledger.experts} for "
            f"{ledger.groups}: restrict the ledger to the domains of its experts"
        )
    orders = communities.reshape(-1, communities.shape[-1])
    counts = np.arange(2, orders.shape[1] + 1)
    fused = _fused(ledger, orders, counts, alpha)
    matrix = evaluation.losses(ledger).matrix((BASE, *ledger.experts)).to_numpy()
    base = matrix[0][orders].mean(1)[:, None]
    # Of each member on the text of all, in the order of joining: so far the best is the least.
    alone = matrix[1:][orders[:, :, None], orders[:, None, :]].mean(2)
    best = np.minimum.accumulate(alone, 1)[:, 1:]
    n_halves, per_half, _ = communities.shape
    return pd.DataFrame(
        {
            "half": np.repeat(np.arange(n_halves), per_half * len(counts)),
            "community": np.repeat(np.arange(len(orders)), len(counts)),
            "contributors": np.tile(counts, len(orders)),
            "gain": (100 * (best - fused) / best).ravel(),
            "gain_over_base": (100 * (base - fused) / base).ravel(),
        }
    )


def _fused(ledger: Ledger, orders: np.ndarray, counts: np.ndarray, alpha: float) -> np.ndarray:
    """Equal-weight losses (C, K) of evidence routing among the first members, nats/token."""
    one_hot = np.eye(len(ledger.experts), dtype=bool)
    members = np.stack([one_hot[orders[:, :count]].any(1) for count in counts], 1)
    log_probs = ledger.expert_log_probs
    texts = [log_probs[rows[rows >= 0]] for rows in ledger.positions()]
    tasks, whose = [], []
    for group in range(len(ledger.groups)):
        chosen = (orders == group).any(1)
        if chosen.any():
            own = [texts[k] for k in np.flatnonzero(ledger.group.numpy() == group)]
            joined = torch.from_numpy(members[chosen].reshape(-1, members.shape[-1]).T.copy())
            tasks.append(partial(_of_domain, own, joined, alpha))
            whose.append(chosen)
    sums = np.zeros(members.shape[:2])
    for chosen, found in zip(whose, parallel.side_by_side(tasks), strict=True):
        sums[chosen] += found.reshape(-1, len(counts))
    return sums / orders.shape[1]


def _of_domain(texts: list[torch.Tensor], members: torch.Tensor, alpha: float) -> np.ndarray:
    """Mean losses (S,) of subsets (N, S) on the documents of a domain, nats/token."""
    sums = sum(subset_log_probs(text, members, alpha)[0] for text in texts)
    return -sums.numpy() / sum(map(len, texts))


def by_count(measured: pd.DataFrame, n_specialists: int) -> pd.DataFrame:
    """Mean gains by number of contributors, with intervals over specialists.

    Returns
    -------
    Index contributors; gain and gain_over_base (%), each with the ends ``_low`` and ``_high``.
    """
    counts = sorted(measured["contributors"].unique())
    rows = {
        count: gain_rules.columns(
            **{
                name: statistic(measured, n_specialists, lambda gains, k=count: gains[k], name)
                for name in ("gain", "gain_over_base")
            }
        )
        for count in counts
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("contributors")


def statistic(
    measured: pd.DataFrame,
    n_specialists: int,
    of: Callable[[pd.Series], float],
    name: str = "gain",
) -> Estimate:
    """A statistic of the mean gains by number of contributors, with an interval over specialists.

    Parameters
    ----------
    of
        Maps gains (%, by number of contributors) to a number.
    name
        Which gain.
    """
    each = measured.groupby(["half", "contributors"])[name].mean().unstack()
    around = gain_rules.over_halves([of(row) for _, row in each.iterrows()], n_specialists)
    return replace(around, value=float(of(each.mean())))


def statements(measured: pd.DataFrame, n_specialists: int) -> dict[str, tuple[Estimate, str]]:
    """Estimate and unit of what the page states of the number of specialists.

    Returns
    -------
    dict
        count_gain: mean gain of three to five contributors; two_minus_three and five_minus_three:
        differences of their gains. How far the three differ is :func:`spread`.
    """

    def found(of: Callable[[pd.Series], float]) -> Estimate:
        return statistic(measured, n_specialists, of)

    return {
        "count_gain": (found(lambda gains: gains[[3, 4, 5]].mean()), "%"),
        "two_minus_three": (found(lambda gains: gains[2] - gains[3]), "pp"),
        "five_minus_three": (found(lambda gains: gains[5] - gains[3]), "pp"),
    }


def spread(measured: pd.DataFrame) -> float:
    """The largest minus the smallest mean gain of three, four and five contributors, pp.

    It has no interval: means of halves are noisier, so that theirs lie further apart.
    """
    means = measured.groupby("contributors")["gain"].mean()
    return float(np.ptp(means[[3, 4, 5]].to_numpy()))


def released() -> pd.DataFrame:
    """The published experiment, on code, science, fiction, math and multilingual text.

    Returns
    -------
    Index contributors; gain (by equal weight over all five domains, mean of three seeds, %) with
    the range over seeds gain_low and gain_high, and as_printed (by the evaluation of a mixed
    stream that the page states, %).
    """
    rows = {}
    for count in range(2, SIZE + 1):
        run = _RUN.format(count)
        seeds = [published.value(run + _EQUAL.format(seed)) for seed in _SEEDS]
        printed = published.value(f"{run}improvement_mean_pct/s42-137-2026/orig")
        ends = {"gain_low": min(seeds), "gain_high": max(seeds)}
        rows[count] = {"gain": float(np.mean(seeds)), **ends, "as_printed": printed}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("contributors")
