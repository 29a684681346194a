"""Evaluation: equal-weight loss, gain and its exact accounting, oracles, intervals.

Every quantity is computed from sums over documents, so that a bootstrap over documents can
recompute all of it, the choice of the best specialist included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from . import corpora
from .ledger import WEIGHT_AVERAGE, Ledger
from .losses import Estimate, Losses, Weights, over_runs
from .protocols import Protocol as Protocol  # the published protocols, as options
from .protocols import improvements as improvements
from .routing import Router, fuse_log_probs, ledger_gates
from .specialists import BASE


def losses(
    ledger: Ledger, methods: dict[str, torch.Tensor] | None = None, role: str = "heldout"
) -> Losses:
    """Document sums of −log p for every column of a ledger, oracles, and further methods.

    Parameters
    ----------
    methods
        Further (n,) log-probabilities on the ledger's tokens, by name.
    role
        What the ledger's documents have to be: ``router`` to choose by cross-fitting, for nothing
        that is reported.
    """
    corpora.require_role(ledger.role, role, "Comparing methods")
    columns = {name: ledger.column(name) for name in ledger.models}
    columns |= oracles(ledger) | (methods or {})

    def total(values: torch.Tensor) -> np.ndarray:
        return np.bincount(ledger.document, values.double(), minlength=ledger.n_documents)

    return Losses(
        {name: total(-log_probs) for name, log_probs in columns.items()},
        total(torch.ones(len(ledger))),
        ledger.group.numpy(),
        ledger.groups,
        ledger.source,
    )


def oracles(ledger: Ledger) -> dict[str, torch.Tensor]:
    """Log-probabilities (n,) of the expert chosen with hindsight.

    ``domain_oracle``: the best expert of each group (as published); ``document_oracle``: of each
    document; ``token_oracle``: of each token, a bound for all selection.
    """
    experts = ledger.expert_log_probs

    def best_of(index: torch.Tensor, size: int) -> torch.Tensor:
        totals = torch.zeros(size, experts.shape[1], dtype=torch.float64)
        totals.index_add_(0, index, experts.double())
        return experts.gather(1, totals.argmax(1)[index][:, None])[:, 0]

    return {
        "domain_oracle": best_of(ledger.token_group, len(ledger.groups)),
        "document_oracle": best_of(ledger.document, ledger.n_documents),
        "token_oracle": experts.max(1).values,
    }


def dispatch(ledger: Ledger, gates: torch.Tensor) -> torch.Tensor:
    """Hard routing: log-probability (n,) of the expert with the largest gate at each token."""
    return ledger.expert_log_probs.gather(1, gates.argmax(1)[:, None])[:, 0]


def best_specialist(losses: Losses, experts: tuple[str, ...]) -> str:
    """The expert with the lowest equal-weight loss."""
    return min(experts, key=losses.equal_weight)


def _gain(
    table: Losses, method: str, experts: tuple[str, ...], weights: np.ndarray | None
) -> np.ndarray:
    best = np.min([table.equal_weight(name, weights) for name in experts], axis=0)
    return 100 * (best - table.equal_weight(method, weights)) / best


def _over_base(table: Losses, method: str, weights: np.ndarray | None) -> np.ndarray:
    base = table.equal_weight(BASE, weights)
    return 100 * (base - table.equal_weight(method, weights)) / base


def gain_over_base_pct(losses: Losses, method: str) -> Estimate:
    """100 · (EW(base) − EW(method)) / EW(base), %.

    Stands beside every gain over the best specialist, which a poor best specialist makes large.
    """
    return losses.interval(lambda weights: _over_base(losses, method, weights))


def gain_pct(losses: Losses, method: str, experts: tuple[str, ...]) -> Estimate:
    """100 · (EW(best specialist) − EW(method)) / EW(best specialist), %."""
    return losses.interval(lambda weights: _gain(losses, method, experts, weights))


def divergence_pct(losses: Losses, domain: str) -> Estimate:
    """100 · (L_base(d) − L[d, d]) / L_base(d), %: relative own-domain loss reduction.

    The public page calls it a KL divergence; the released numbers are this.
    """
    column = losses.groups.index(domain)

    def statistic(weights: np.ndarray | None) -> np.ndarray:
        base = losses.by_group(BASE, weights)[..., column]
        return 100 * (base - losses.by_group(domain, weights)[..., column]) / base

    return losses.interval(statistic)


@dataclass(frozen=True)
class Accounting:
    """Exact terms of a gain: gain = oracle gain − routing regret + mixing bonus, all in %.

    The regret is what the gates lose against the domain oracle when each token is predicted by
    one expert drawn from its gates; the bonus is what mixing the predictions wins back, never
    negative by Jensen's inequality, for probability and for logit mixing. Both need the gates of
    every token. Where only losses are known (the public record), there is their difference alone:
    ``above_oracle`` = regret − bonus, the fused loss minus that of the domain oracle, in % of the
    best specialist's, negative where mixing wins.
    """

    method: str
    best_specialist: str
    gain_pct: Estimate
    oracle_gain_pct: Estimate
    routing_regret_pct: Estimate
    mixing_bonus_pct: Estimate
    above_oracle_pct: Estimate


def account(ledger: Ledger, method: str, fused: torch.Tensor, gates: torch.Tensor) -> Accounting:
    """Account for the gain of a fused model.

    Parameters
    ----------
    fused
        (n,) log-probabilities of the fused model.
    gates
        (n, N) gates that it used.
    """
    drawn = (gates * ledger.expert_log_probs).sum(1)
    table = losses(ledger, {"fused": fused, "drawn": drawn})

    def share(upper: str | None, lower: str) -> Callable[[np.ndarray | None], np.ndarray]:
        def statistic(weights: np.ndarray | None) -> np.ndarray:
            best = np.min([table.equal_weight(name, weights) for name in ledger.experts], axis=0)
            top = best if upper is None else table.equal_weight(upper, weights)
            return 100 * (top - table.equal_weight(lower, weights)) / best

        return statistic

    return Accounting(
        method,
        best_specialist(table, ledger.experts),
        gain_pct=table.interval(share(None, "fused")),
        oracle_gain_pct=table.interval(share(None, "domain_oracle")),
        routing_regret_pct=table.interval(lambda w: -share("domain_oracle", "drawn")(w)),
        mixing_bonus_pct=table.interval(share("drawn", "fused")),
        above_oracle_pct=table.interval(lambda w: -share("domain_oracle", "fused")(w)),
    )


@dataclass(frozen=True)
class Fused:
    """One way to fuse, on a ledger's tokens: log-probabilities (n,) and gates (n, N)."""

    log_probs: torch.Tensor
    gates: torch.Tensor


def route(ledger: Ledger, routers: dict[str, Router]) -> dict[str, Fused]:
    """Fuse by probability mixing with causal routers, straight from the ledger."""
    fused = {}
    for name, router in routers.items():
        gates = ledger_gates(router, ledger)
        fused[name] = Fused(fuse_log_probs(gates, ledger.expert_log_probs), gates)
    return fused


def summary(runs: list[tuple[Ledger, dict[str, Fused]]]) -> pd.DataFrame:
    """Equal-weight loss and gains of every method, mean over seeds, best last.

    Parameters
    ----------
    runs
        One (ledger, fused) a seed or base, all on the same tokens.

    Returns
    -------
    Columns: kind; loss, loss_low, loss_high (nats/token); gain, gain_low, gain_high (over the best
    specialist, %) and gain_over_base, gain_over_base_low, gain_over_base_high (%), with intervals
    over runs and documents (see :func:`losses.over_runs`); gain_sd (sample standard deviation of gain over seeds, 0 for one seed); one loss
    column a group.
    """
    tables = [
        losses(ledger, {name: entry.log_probs for name, entry in fused.items()})
        for ledger, fused in runs
    ]
    ledger, fused = runs[0]
    kinds = {BASE: "base", WEIGHT_AVERAGE: "single model"}
    kinds |= dict.fromkeys(ledger.experts, "specialist") | dict.fromkeys(fused, "fused")

    def mean(statistic: Callable[..., np.ndarray], *args: object) -> Estimate:
        return over_runs(tables, lambda run, w: statistic(tables[run], *args, w))

    rows = []
    for method in tables[0].sums:
        loss = mean(Losses.equal_weight, method)
        gain, over_base = mean(_gain, method, ledger.experts), mean(_over_base, method)
        seeds = [float(_gain(t, method, ledger.experts, None)) for t in tables]
        rows.append(
            {
                "method": method,
                "kind": kinds.get(method, "oracle"),
                "loss": loss.value,
                "loss_low": loss.low,
                "loss_high": loss.high,
                "gain": gain.value,
                "gain_low": gain.low,
                "gain_high": gain.high,
                "gain_over_base": over_base.value,
                "gain_over_base_low": over_base.low,
                "gain_over_base_high": over_base.high,
                "gain_sd": float(np.std(seeds, ddof=1)) if len(seeds) > 1 else 0.0,
                **dict(
                    zip(
                        ledger.groups,
                        np.mean([t.by_group(method) for t in tables], axis=0),
                        strict=True,
                    )
                ),
            }
        )
    return pd.DataFrame(rows).set_index("method").sort_values("loss", ascending=False)


def bits_per_byte(ledger: Ledger, log_probs: torch.Tensor) -> float:
    """Mean over groups of the bits a UTF-8 byte costs: comparable across tokenizers."""
    table = losses(ledger, {"method": log_probs})
    member = table.group[:, None] == np.arange(len(table.groups))
    bits = table.sums["method"] @ member / np.log(2)
    return float(np.mean(bits / (ledger.n_bytes.numpy() @ member)))


def token_share(runs: Sequence[tuple[Ledger, torch.Tensor]]) -> Estimate:
    """Share of tokens in [0, 1] for which a condition holds, mean over runs of a base each.

    Parameters
    ----------
    runs
        One (ledger, condition (n,)) a run, all on the same tokens.
    """
    tables = [losses(ledger, {"chosen": -chosen.double()}) for ledger, chosen in runs]
    everything = np.ones(len(tables[0].tokens))

    def statistic(run: int, weights: Weights) -> np.ndarray:
        weights = everything if weights is None else weights
        return weights @ tables[run].sums["chosen"] / (weights @ tables[run].tokens)

    return over_runs(tables, statistic, range(len(tables)))


def switches(gates: np.ndarray | torch.Tensor) -> int:
    """How often the expert with the largest gate changes along a sequence of gates (T, N)."""
    chosen = np.asarray(gates).argmax(1)
    return int((chosen[1:] != chosen[:-1]).sum())


def document_regret(ledger: Ledger, log_probs: torch.Tensor) -> np.ndarray:
    """NLL of a fused model minus that of each document's best expert, nats, (n_documents,)."""
    table = losses(ledger, {"fused": log_probs})
    return table.sums["fused"] - table.sums["document_oracle"]
