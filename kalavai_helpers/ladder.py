"""The scale ladder: one recipe at several widths, the same text and the same held-out tokens.

The published ladder is Pythia at 410M, 1B and 6.9B parameters. A tier that trains its own base
climbs a ladder of its own; for a base from the Hub the other tiers are the other rungs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from . import baselines, evaluation, ledger, models, parallel, routing
from .baselines import Baseline
from .ledger import WEIGHT_AVERAGE
from .losses import Losses
from .specialists import BASE, Cooperative
from .tiers import Tier

EVIDENCE = "evidence"
METHODS = (EVIDENCE, "uniform", WEIGHT_AVERAGE, *baselines.KINDS)
"""What is compared on every rung, as far as it was run there."""

_FACTORS = {"ci": (0.5, 1, 2), "laptop": (0.25, 0.5, 1, 2)}


def tiers_of(tier: Tier) -> tuple[Tier, ...]:
    """Recipes of the rungs, narrowest first: the tier's sweep recipe, only its width changed.

    The sweep's own width is among them, so that its models are shared with other chapters.
    """
    sweep = tier.sweep()
    if sweep.hub_id is not None:
        return (sweep,)
    pitch = 4 * sweep.n_heads  # a head keeps a size that is a multiple of four
    widths = [
        max(pitch, pitch * round(factor * sweep.hidden_size / pitch))
        for factor in _FACTORS.get(tier.name, _FACTORS["ci"])
    ]
    return tuple(replace(sweep, hidden_size=width) for width in dict.fromkeys(widths))


@dataclass(frozen=True)
class Rung:
    """The cooperatives of one size, one a seed, with their baselines.

    Baselines are trained for the first seed only.
    """

    cooperatives: tuple[Cooperative, ...]
    baselines: tuple[Baseline, ...] = ()

    @property
    def tier(self) -> Tier:
        """The recipe of this size."""
        return self.cooperatives[0].tier

    @property
    def domains(self) -> tuple[str, ...]:
        """The contributors."""
        return self.cooperatives[0].domains

    @cached_property
    def parameters(self) -> int:
        """Parameters of the base, and of each specialist."""
        return models.n_parameters(self.cooperatives[0].model(BASE))

    def total_parameters(self, method: str) -> int:
        """Parameters that a method keeps: a fused model has the trunk once and N branches."""
        base = self.cooperatives[0].model(BASE)
        if method in (EVIDENCE, "uniform"):
            branch = models.n_parameters(models.branch(base, self.tier.frozen_layers or 0))
            return self.parameters + (len(self.domains) - 1) * branch
        if method == baselines.WIDER:
            start = next(b for b in self.baselines if b.kind == method).start
            return models.n_parameters(start.model(BASE))
        return self.parameters

    @cached_property
    def ledgers(self) -> tuple[ledger.Ledger, ...]:
        """Held-out ledger of each seed, with a column for each baseline that was run for it."""
        return tuple(
            baselines.with_baselines(
                ledger.build(coop), [b for b in self.baselines if b.cooperative == coop]
            )
            for coop in self.cooperatives
        )

    @cached_property
    def fused(self) -> tuple[dict[str, evaluation.Fused], ...]:
        """The causal routers that need no fitting, for each seed."""
        routers = {EVIDENCE: routing.EvidenceRouter(), "uniform": routing.UniformRouter()}
        return tuple(evaluation.route(found, routers) for found in self.ledgers)

    @cached_property
    def tables(self) -> tuple[Losses, ...]:
        """Document sums of every method, for each seed."""
        return tuple(
            evaluation.losses(found, {name: entry.log_probs for name, entry in fused.items()})
            for found, fused in zip(self.ledgers, self.fused, strict=True)
        )

    def tables_with(self, *methods: str) -> list[Losses]:
        """The tables of the seeds for which all of the methods were run."""
        return [table for table in self.tables if set(methods) <= set(table.sums)]


def climb(tier: Tier, corpora: str, domains: tuple[str, ...], seeds: Sequence[int]) -> list[Rung]:
    """The rungs of a tier, everything trained that the store does not have.

    Baselines are trained for the first seed: equal compute on every rung, at the sweep's own width
    all of them. A wider model that is a rung's model of equal compute costs
    nothing more; no other is trained where the base comes from the Hub.
    """
    rungs, sizes = [], tiers_of(tier)
    for size in sizes:
        coops = tuple(Cooperative(size, corpora, domains, seed) for seed in seeds)
        kinds = [baselines.COMPUTE]
        if size == tier.sweep():
            kinds.append(baselines.EXPOSURE)
        free = baselines.wider(size, len(domains)) in sizes
        if size.hub_id is None and (size == tier.sweep() or free):
            kinds.append(baselines.WIDER)
        rungs.append(Rung(coops, tuple(Baseline(coops[0], kind) for kind in kinds)))
    _train(rungs)
    return rungs


def _train(rungs: list[Rung]) -> None:
    """Train bases, then what starts from them, then score, each side by side."""
    starts = {c.path(BASE): c for r in rungs for c in _starts(r) if not c.path(BASE).exists()}
    # The widest first: what takes longest must not be what is left at the end.
    bases = sorted(starts.values(), key=lambda c: -c.tier.hidden_size)
    parallel.side_by_side([partial(c.train, BASE) for c in bases])
    rest = _missing(rungs[::-1])
    parallel.side_by_side(rest)
    if bases or rest:  # new models have no scores yet
        parallel.side_by_side([partial(_score, r, c) for r in rungs[::-1] for c in r.cooperatives])


def _score(rung: Rung, cooperative: Cooperative) -> None:
    """Leave the scores of one seed in the store, for the ledgers of the rung."""
    ledger.build(cooperative)
    for baseline in rung.baselines:
        if baseline.cooperative == cooperative:
            baseline.log_probs()


def _starts(rung: Rung) -> list[Cooperative]:
    return [] if rung.tier.hub_id else [rung.cooperatives[0], *(b.start for b in rung.baselines)]


def _missing(rungs: list[Rung]) -> list[Callable[[], None]]:
    """What rungs still need besides their bases, once each."""
    tasks: dict[Path, Callable[[], None]] = {}
    for rung in rungs:
        tasks |= {baseline.path: baseline.train for baseline in rung.baselines}
    for rung in rungs:
        for coop in rung.cooperatives:
            tasks |= {coop.path(d): partial(coop.train, d) for d in coop.domains}
    return [task for path, task in tasks.items() if not path.exists()]
