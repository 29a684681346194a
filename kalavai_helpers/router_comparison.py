"""Causal routers against oracles that know the domain: fitted, chosen, judged on separate documents.

One oracle picks the best specialist of each domain, another mixes with constant weights a domain,
and may have the base as one more expert, as the routers may. All routers, and the weights of that
oracle, are fitted on the router documents, which no specialist trained on. The best is chosen
there too, by cross-fitting: each part of the documents is routed by routers fitted on the others.
Held-out documents judge, and decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from . import (
    evaluation,
    expert_states,
    ledger,
    mixing_oracle,
    packing,
    parallel,
    router_fit,
    routing,
    trunk_router,
)
from .ledger import Ledger
from .losses import Losses, over_runs
from .specialists import BASE, Cooperative

FOLDS = 2
ROLES = ("router", "heldout")
SLOW_FAST = (1e-5, 0.3)
"""Chances of a switch of two filters: one that knows the document, one that knows the passage."""
WITH_BASE = "{}, with the base"
MIXING = "mixing oracle"
RIVAL = WITH_BASE.format(MIXING)
"""The oracle that may do what every router here may."""


@dataclass(frozen=True)
class Texts:
    """Documents as routers see them: scores, the base's states, those of experts and trunk.

    ``trunk`` holds states (n, d) and tokens (n,); all parts are in the order of the ledger.
    ``n_tokens`` is the size of the vocabulary.
    """

    ledger: Ledger
    experts: expert_states.ExpertLedger
    trunk: tuple[torch.Tensor, torch.Tensor]
    n_tokens: int

    def of(self, documents: torch.Tensor) -> Texts:
        """Some of the documents, (n_documents,) bool."""
        tokens = documents[self.ledger.document]
        states, ids = self.trunk
        return Texts(
            _documents(self.ledger, documents),
            _documents(self.experts, documents),
            (states[tokens], ids[tokens]),
            self.n_tokens,
        )

    def with_base(self) -> Texts:
        """The base as one more expert."""
        return replace(self, ledger=replace(self.ledger, experts=(*self.ledger.experts, BASE)))

    def gates(self, router: routing.Router) -> torch.Tensor:
        """Gates (n, N) of a causal router."""
        if router.reads == "trunk":
            return trunk_router.gates(router, self.ledger, *self.trunk)
        held = self.experts if router.reads == "experts" else self.ledger
        return routing.ledger_gates(router, held)


Fit = Callable[[Texts], routing.Router]

FITS: dict[str, Fit] = {
    "uniform": lambda texts: routing.UniformRouter(),
    "evidence": lambda texts: routing.EvidenceRouter(),
    "evidence, α fitted": lambda texts: router_fit.fit_alpha(texts.ledger),
    "linear, EM": lambda texts: router_fit.fit_em(texts.ledger).router,
    "linear, expert states": lambda texts: router_fit.fit_em(texts.experts).router,
    "prefix-mean": lambda texts: router_fit.fit_prefix_mean(texts.ledger),
    "mlp": lambda texts: router_fit.fit_mlp(texts.ledger),
    "log-linear": lambda texts: router_fit.fit_log_linear(texts.ledger),
    "log-linear, slow and fast": lambda texts: router_fit.fit_log_linear(texts.ledger, SLOW_FAST),
    "trunk": lambda texts: trunk_router.fit(texts.ledger, *texts.trunk, texts.n_tokens),
}
"""The causal routers, and how they are fitted; a linear gate by EM, which SGD only approaches."""
MAY_USE_BASE = ("log-linear, slow and fast",)
"""Those that are also tried with the base as one more expert."""


def read(cooperative: Cooperative, role: str) -> Texts:
    """What routers see of the documents of a role, from the store where it is there."""
    windows = packing.concatenate([cooperative.windows(role, d) for d in cooperative.domains])
    return Texts(
        ledger.build(cooperative, role),
        expert_states.build(cooperative, role),
        trunk_router.read(cooperative.model(BASE), cooperative.tier.frozen_layers, windows),
        cooperative.tokenizer.get_vocab_size(),
    )


@dataclass(frozen=True)
class Comparison:
    """Causal routers against the domain oracle.

    Attributes
    ----------
    table
        Index router; the mixing oracles are rows too. Columns: kind (router, oracle); chosen_by
        (equal-weight loss on the router documents, cross-fitted); then on held-out documents loss
        (equal-weight), above_oracle (loss minus the domain oracle's) and above_mixing_oracle (minus
        that of the mixing oracle with the base), each with _low and _high, all nats/token; gain,
        gain_over_base, regret, bonus (%, see :class:`evaluation.Accounting`). Means over seeds; the
        interval is over sources, documents and seeds. Sorted by chosen_by.
    best
        The router with the lowest ``chosen_by``.
    taken
        Over what the intervals are taken, for captions.
    """

    table: pd.DataFrame
    best: str
    taken: str


def compare(
    cooperatives: Sequence[Cooperative], fits: Mapping[str, Fit] = FITS, folds: int = FOLDS
) -> Comparison:
    """Compare causal routers on cooperatives that differ in their seed only.

    Raises
    ------
    ValueError
        For fewer than two folds, or cooperatives of other domains.
    """
    if folds < 2:
        raise ValueError(f"Cross-fitting needs at least 2 folds, not {folds}")
    if len({cooperative.domains for cooperative in cooperatives}) != 1:
        raise ValueError("Compare routers on cooperatives of the same domains")
    # What all parts of a cooperative read is left in the store first.
    parallel.leave_in_store([partial(read, c, role) for c in cooperatives for role in ROLES])
    jobs = [partial(_judged, c, fits) for c in cooperatives]
    jobs += [partial(_fold, c, fits, k, folds) for c in cooperatives for k in range(folds)]
    found = parallel.side_by_side(jobs)
    tables, parts = found[: len(cooperatives)], found[len(cooperatives) :]
    chosen = []
    for start in range(0, len(parts), folds):
        whole = _joined(parts[start : start + folds])
        chosen.append({name: float(whole.equal_weight(name)) for name in _names(fits)})
    rows = {name: _row(tables, name, cooperatives[0].domains) for name in chosen[0]}
    table = pd.DataFrame(rows).T.rename_axis("router")
    table.insert(0, "chosen_by", pd.DataFrame(chosen).mean())
    oracle = table.index.isin([MIXING, RIVAL])
    table.insert(0, "kind", np.where(oracle, "oracle", "router"))
    table = table.sort_values("chosen_by")
    best = table.index[table.kind == "router"][0]
    return Comparison(table, best, tables[0].taken([c.base_key for c in cooperatives]))


def _judged(cooperative: Cooperative, fits: Mapping[str, Fit]) -> Losses:
    """Document sums on held-out documents of routers fitted on all router documents."""
    return _losses(read(cooperative, "router"), read(cooperative, "heldout"), fits)


def _fold(cooperative: Cooperative, fits: Mapping[str, Fit], k: int, folds: int) -> Losses:
    return cross_fitted(read(cooperative, "router"), fits, k, folds)


def cross_fitted(texts: Texts, fits: Mapping[str, Fit], k: int, folds: int = FOLDS) -> Losses:
    """Document sums on one part of the documents, of routers fitted on the other parts."""
    fold = _folds(texts.ledger, folds)
    return _losses(texts.of(fold != k), texts.of(fold == k), fits, role="router")


def _folds(found: Ledger, folds: int) -> torch.Tensor:
    """Part (n_documents,) that each document belongs to; a source is whole, as in the splits.

    Parts alternate between the sources of each domain, so that every part has text of it. A domain
    of one source is divided by document.
    """
    fold = np.empty(found.n_documents, dtype=np.int64)
    for group in range(len(found.groups)):
        own = np.flatnonzero(found.group.numpy() == group)
        first, unit = np.unique(found.source[own], return_index=True, return_inverse=True)[1:]
        rank = first.argsort().argsort()[unit] if len(first) >= folds else np.arange(len(own))
        fold[own] = rank % folds
    return torch.from_numpy(fold)


def _joined(parts: Sequence[Losses]) -> Losses:
    """The parts of all documents as one table."""
    return replace(
        parts[0],
        sums={name: np.concatenate([p.sums[name] for p in parts]) for name in parts[0].sums},
        tokens=np.concatenate([p.tokens for p in parts]),
        group=np.concatenate([p.group for p in parts]),
        source=np.concatenate([p.source for p in parts]),
    )


def _names(fits: Mapping[str, Fit]) -> list[str]:
    with_base = [WITH_BASE.format(name) for name in MAY_USE_BASE if name in fits]
    return [*fits, *with_base, MIXING, RIVAL]


def _losses(
    fitting: Texts, judged: Texts, fits: Mapping[str, Fit], role: str = "heldout"
) -> Losses:
    """Document sums of routers fitted on some texts, on others; ``NAME drawn``: one expert drawn."""
    methods = {}
    for name in _names(fits):
        plain = name.removesuffix(WITH_BASE.format(""))
        source, target = (x if plain == name else x.with_base() for x in (fitting, judged))
        if plain == MIXING:
            gates = mixing_oracle.route(source.ledger, target.ledger).gates
        else:
            gates = target.gates(fits[plain](source))
        log_probs = target.ledger.expert_log_probs
        methods[name] = routing.fuse_log_probs(gates, log_probs)
        methods[f"{name} drawn"] = (gates * log_probs).sum(1)
    return evaluation.losses(judged.ledger, methods, role)


def _row(tables: Sequence[Losses], name: str, experts: tuple[str, ...]) -> dict[str, float]:
    def mean(value: Callable[[Losses], float]) -> float:
        return float(np.mean([value(table) for table in tables]))

    def share(table: Losses, upper: str | None, lower: str) -> float:
        best = min(table.equal_weight(expert) for expert in experts)
        top = best if upper is None else table.equal_weight(upper)
        return 100 * (top - table.equal_weight(lower)) / best

    def above(oracle: str, column: str) -> dict[str, float]:
        found = over_runs(
            tables,
            lambda s, w: tables[s].equal_weight(name, w) - tables[s].equal_weight(oracle, w),
        )
        return {column: found.value, f"{column}_low": found.low, f"{column}_high": found.high}

    return {
        "loss": mean(lambda t: t.equal_weight(name)),
        **above("domain_oracle", "above_oracle"),
        **above(RIVAL, "above_mixing_oracle"),
        "gain": mean(lambda t: share(t, None, name)),
        "gain_over_base": mean(lambda t: 100 * (1 - t.equal_weight(name) / t.equal_weight(BASE))),
        "regret": -mean(lambda t: share(t, "domain_oracle", f"{name} drawn")),
        "bonus": mean(lambda t: share(t, f"{name} drawn", name)),
    }


def _documents(found: Ledger, keep: torch.Tensor) -> Ledger:
    tokens = keep[found.document]
    return replace(
        found,
        log_probs=found.log_probs[tokens],
        features=found.features[tokens],
        document=(keep.cumsum(0) - 1)[found.document[tokens]],
        window=found.window[tokens].unique_consecutive(return_inverse=True)[1],
        group=found.group[keep],
        n_bytes=found.n_bytes[keep],
        source=found.source[keep.numpy()],
    )
