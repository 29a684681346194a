"""Contributors of a large cooperative: what each brings and gets back, here and in the release."""

from __future__ import annotations

import pandas as pd

from . import published
from .cooperative_results import Results
from .kept_runs import KeptRun
from .specialists import BASE

_RELEASED = "20-contributor/pythia-1b_step10000/"
_GATE = "input_{}/mean_gate_own/s42/mean_sequence_gate_first_10"


def own_gates(run: KeptRun, router: str = "pooled") -> pd.Series:
    """Mean gate in [0, 1] that each domain's tokens give to the specialist of that domain."""
    gates, group = run.fused[router].gates.double(), run.ledger.token_group
    found = [float(gates[group == k, k].mean()) for k in range(len(run.domains))]
    return pd.Series(found, index=list(run.domains), name="own_gate")


def table(results: Results, run: KeptRun, router: str = "pooled") -> pd.DataFrame:
    """What each contributor brings, and what its domain gets from the fused model.

    Parameters
    ----------
    results, run
        Of one cooperative by specialists of one seed.
    router
        Of the fused model.

    Returns
    -------
    One row a domain: base, own (specialist at home) and fused losses (nats/token), divergence with
    its interval and fused_over_base (both % of the base's loss), own_gate in [0, 1].
    """
    divergence = results.divergences()
    losses = {name: results.by_group(0, name, None) for name in (BASE, router)}
    matrix = results.matrix()
    rows = {
        domain: {
            "base": losses[BASE][k],
            "own": matrix.loc[domain, domain],
            "fused": losses[router][k],
            "divergence": divergence[domain].value,
            "divergence_low": divergence[domain].low,
            "divergence_high": divergence[domain].high,
            "fused_over_base": 100 * (1 - losses[router][k] / losses[BASE][k]),
        }
        for k, domain in enumerate(run.domains)
    }
    found = pd.DataFrame.from_dict(rows, orient="index").rename_axis("domain")
    return found.assign(own_gate=own_gates(run, router))


def released(domains: tuple[str, ...]) -> pd.DataFrame:
    """The same of the released cooperative of twenty (Pythia-1B, seed 42), as far as it goes.

    Returns
    -------
    One row a domain: base and fused (nats/token), divergence and fused_over_base (%), own_gate
    (of the published router, mean of the first ten sequences).
    """
    rows = {}
    for domain in domains:
        base, fused = (
            published.value(f"{_RELEASED}model_{name}/loss_{domain}/s42/corr")
            for name in ("base", "moe")
        )
        rows[domain] = {
            "base": base,
            "fused": fused,
            "divergence": published.value(f"{_RELEASED}/divergence_{domain}/s42/corr"),
            "fused_over_base": 100 * (1 - fused / base),
            "own_gate": published.value(_RELEASED + _GATE.format(domain)),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("domain")


def beside(results: Results, found: pd.DataFrame, router: str = "pooled") -> pd.DataFrame:
    """The published statement taken apart: terms of a gain, in a cooperative here and as released.

    Parameters
    ----------
    results, found
        Of a cooperative of the released domains, and its :func:`table` for the same router.

    Returns
    -------
    Columns here and released; rows in %, but for the last two, which count domains.
    """
    domains = tuple(found.index)
    theirs = released(domains)
    losses = {
        name: published.value(f"{_RELEASED}/{name}/s42/corr")
        for name in ("base_equal_weight", "best_spec_equal_weight", "moe_equal_weight")
    }
    base, best, fused = losses.values()
    own = (theirs["base"] * (1 - theirs["divergence"] / 100)).mean()
    here = results.accounting().loc[router]
    rows = {
        "gain over the best specialist": (here["gain_pct"], 100 * (1 - fused / best)),
        "gain over the base": (results.over_base(router).value, 100 * (1 - fused / base)),
        "best specialist over the base": (results.best_over_base().value, 100 * (1 - best / base)),
        "own specialists, over the best one": (
            100 * (1 - found["own"].mean() / float(results.best(0, None))),
            100 * (1 - own / best),
        ),
        "mean divergence": (found["divergence"].mean(), theirs["divergence"].mean()),
        "domains that the router gives to their own": (
            int((found["own_gate"] > 0.5).sum()),
            int((theirs["own_gate"] > 0.5).sum()),
        ),
        "domains that the fused model makes worse": (
            int((found["fused_over_base"] < 0).sum()),
            int((theirs["fused_over_base"] < 0).sum()),
        ),
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["here", "released, 1B"])
