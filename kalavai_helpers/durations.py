"""Cooperatives over training durations and frozen depths, trained and scored on one held-out text.

Each duration is a run of its own with its own learning-rate schedule, as published (the crossover
experiment). The text is scarce on purpose, so that long runs over-train as the published ones do.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import artifacts, corpora, evaluation, ledger, packing, parallel, routing
from .losses import Estimate, Losses
from .specialists import BASE, CODE, Cooperative, train_all

if TYPE_CHECKING:
    from .tiers import Tier

EVIDENCE = "evidence"
TERMS = ("gain_pct", "oracle_gain_pct", "routing_regret_pct", "mixing_bonus_pct")

FRACTIONS = (0.01, 1 / 30, 0.1, 1 / 3, 1.0)
"""Durations as shares of the longest: two orders of magnitude, evenly spaced in the logarithm."""

PASSES = 75
"""How often the longest run reads its text. Published: 20,000 steps of 8 windows over 2,513, 1,063
and 12,445 training windows of 256 tokens: 64, 151 and 13 passes, 76 on average."""

BYTES_PER_TOKEN = 3
PUBLISHED_STEPS = (50, 100, 500, 1000, 2000, 5000, 10000, 20000)


@dataclass(frozen=True)
class Condition:
    """One training run of all specialists: optimiser steps, frozen blocks, seed."""

    steps: int
    depth: int
    seed: int


@dataclass(frozen=True)
class Plan:
    """What is trained.

    Attributes
    ----------
    steps
        Durations in optimiser steps, ascending.
    depths
        Frozen blocks k compared at every duration; 0 first.
    sweep
        Frozen blocks compared at the one duration ``sweep_steps`` only.
    seeds
        The first has every depth, the others ``depths[:2]`` only.
    train_bytes
        Text of each specialist, UTF-8 bytes.
    """

    steps: tuple[int, ...]
    depths: tuple[int, ...]
    sweep: tuple[int, ...]
    sweep_steps: int
    seeds: tuple[int, ...]
    train_bytes: int

    def conditions(self) -> list[Condition]:
        """All runs, the longest first so that parallel workers end together."""
        found = {Condition(s, k, self.seeds[0]) for s in self.steps for k in self.depths}
        found |= {Condition(self.sweep_steps, k, self.seeds[0]) for k in self.sweep}
        found |= {
            Condition(s, k, r) for s in self.steps for k in self.depths[:2] for r in self.seeds
        }
        return sorted(found, key=lambda c: (-c.steps, c.depth, c.seed))


def plan(tier: Tier, seed: int) -> Plan:
    """Choose the runs that a tier can afford.

    The longest run takes 1.5 times the tier's specialist steps at ``ci`` (one seed) and twice
    them at ``laptop`` (all seeds for the two depths that are compared). Published checkpoints get the
    published durations and depths.
    """
    if tier.hub_id is not None:
        steps, depths, sweep = PUBLISHED_STEPS, (0, 4, 12), (0, 2, 4, 6, 8, 12)
    else:
        longest = tier.specialist_steps * (1.5 if tier.name == "ci" else 2)
        steps = tuple(max(1, round(longest * share)) for share in FRACTIONS)
        # The published four of 24 blocks are a sixth; of four blocks, half is the mildest choice
        # that differs from both ends.
        depths = (0, tier.n_layers // 2, tier.n_layers - 1)
        sweep = tuple(range(tier.n_layers + 1))
    scarce = steps[-1] * tier.batch_size * tier.seq_len * BYTES_PER_TOKEN // PASSES
    return Plan(
        steps=steps,
        depths=depths,
        sweep=sweep,
        sweep_steps=2000 if tier.hub_id is not None else steps[-2],
        seeds=tier.seeds(seed)[: 1 if tier.name == "ci" else None],
        train_bytes=scarce if tier.hub_id is None else tier.train_bytes,
    )


@dataclass(frozen=True)
class Outcome:
    """What one condition gave.

    ``losses`` has the methods base, each specialist by domain, ``domain_oracle`` and ``evidence``
    (causal evidence routing, probability mixing). ``accounting`` maps each of :data:`TERMS` to its
    estimate, in % of the best specialist's loss.
    """

    losses: Losses
    accounting: dict[str, Estimate]


def own_loss(table: Losses, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean loss of the specialists on their own domains, nats/token (...)."""
    return np.mean([table.by_group(d, weights)[..., i] for i, d in enumerate(table.groups)], axis=0)


def foreign_loss(table: Losses, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean loss of the specialists on the domains of the others, nats/token (...)."""
    n = len(table.groups)
    everything = np.sum([table.equal_weight(d, weights) for d in table.groups], axis=0)
    return (everything - own_loss(table, weights)) / (n - 1)


def divergence(table: Losses, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean over domains of 100 · (L_base(d) − L[d, d]) / L_base(d), % (...)."""
    base = table.by_group(BASE, weights)
    parts = [
        (base[..., i] - table.by_group(d, weights)[..., i]) / base[..., i]
        for i, d in enumerate(table.groups)
    ]
    return 100 * np.mean(parts, axis=0)


def cooperatives(
    tier: Tier, spec: str, domains: tuple[str, ...], chosen: Plan
) -> dict[Condition, Cooperative]:
    """The cooperative of every condition; all share one base."""
    return {
        c: Cooperative(
            replace(
                tier,
                train_bytes=chosen.train_bytes,
                specialist_steps=c.steps,
                frozen_layers=c.depth,
            ),
            spec,
            domains,
            c.seed,
        )
        for c in chosen.conditions()
    }


def passes(cooperative: Cooperative) -> dict[str, float]:
    """How often each specialist reads its training text, by domain."""
    tier = cooperative.tier
    seen = tier.specialist_steps * tier.batch_size
    return {
        domain: seen
        / len(
            packing.pack(
                cooperative.documents(domain, "train"), cooperative.tokenizer, tier.seq_len
            )
        )
        for domain in cooperative.domains
    }


def measure(cooperatives: dict[Condition, Cooperative]) -> dict[Condition, Outcome]:
    """Train what is missing, score every specialist on the same tokens, route and account.

    Read from the store where it is there.
    """
    train_all(list(cooperatives.values()))
    first = next(iter(cooperatives.values()))
    parts = [first.windows("heldout", domain) for domain in first.domains]
    joined = packing.concatenate(parts)
    corpora.require_role(joined.role, "heldout", "A gain by duration")
    tokens = [
        hashlib.sha256(joined.targets.tobytes()).hexdigest(),
        [document.id for document in joined.documents],
        artifacts.code_digest(["durations", "evaluation", "ledger", "losses", "routing", *CODE]),
    ]
    paths = {
        condition: artifacts.store()
        / "durations"
        / f"{artifacts.fingerprint(cooperative.fingerprint(), *tokens)}.safetensors"
        for condition, cooperative in cooperatives.items()
    }
    missing = {c: coop for c, coop in cooperatives.items() if not paths[c].exists()}
    if missing:
        reference = ledger.build(first)
        for condition, log_probs in _score_all(missing, joined).items():
            found = replace(
                reference,
                models=(BASE, *first.domains),
                log_probs=torch.stack([reference.column(BASE), *log_probs], 1),
            )
            _keep(paths[condition], found)
    outcomes = {}
    for condition, path in paths.items():
        tensors, metadata = artifacts.load_tensors(path)
        table = Losses(
            dict(zip(metadata["methods"], tensors["sums"].numpy(), strict=True)),
            tensors["tokens"].numpy(),
            tensors["group"].numpy(),
            tuple(metadata["groups"]),
            np.array(metadata["source"]),
        )
        terms = {name: Estimate(**kept) for name, kept in metadata["accounting"].items()}
        outcomes[condition] = Outcome(table, terms)
    return outcomes


def _keep(path: Path, found: ledger.Ledger) -> None:
    fused = evaluation.route(found, {EVIDENCE: routing.EvidenceRouter()})[EVIDENCE]
    table = evaluation.losses(found, {EVIDENCE: fused.log_probs})
    account = evaluation.account(found, EVIDENCE, fused.log_probs, fused.gates)
    methods = [*found.models, "domain_oracle", EVIDENCE]
    artifacts.save_tensors(
        path,
        {
            "sums": torch.stack([torch.from_numpy(table.sums[name]) for name in methods]),
            "tokens": torch.from_numpy(table.tokens),
            "group": torch.from_numpy(table.group),
        },
        {
            "methods": methods,
            "groups": table.groups,
            "source": table.source.tolist(),
            "accounting": {name: asdict(getattr(account, name)) for name in TERMS},
        },
    )


def _score_all(
    cooperatives: dict[Condition, Cooperative], windows: packing.Windows
) -> dict[Condition, list[torch.Tensor]]:
    """Log-probabilities (n,) of every specialist, in the order of the domains."""
    jobs = [(c, domain) for c, coop in cooperatives.items() for domain in coop.domains]
    found = parallel.side_by_side(
        [partial(_score, cooperatives[c], domain, windows) for c, domain in jobs]
    )
    scored: dict[Condition, list[torch.Tensor]] = {}
    for (condition, _), log_probs in zip(jobs, found, strict=True):
        scored.setdefault(condition, []).append(torch.from_numpy(log_probs))
    return scored


def _score(cooperative: Cooperative, domain: str, windows: packing.Windows) -> np.ndarray:
    tier = cooperative.tier
    model = cooperative.model(domain).to(tier.device()[0])
    task = f"score {domain}, {tier.specialist_steps} steps, {tier.frozen_layers} frozen"
    return ledger.score(model, windows, f"{task} (seed {cooperative.seed})")[0].numpy()
