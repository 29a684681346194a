"""A study of made-up runs whose losses follow a known law: no training, the same every time."""

from dataclasses import replace

import numpy as np
import torch

from kalavai_helpers import forecast_runs, tiers
from kalavai_helpers.ledger import Ledger

DOMAINS = ("red", "green", "blue", "black", "white")
N_DOCUMENTS, N_TOKENS = 4, 12


def ledger_of(matrix: np.ndarray, domains: tuple[str, ...] = DOMAINS) -> Ledger:
    """A ledger in which every token of a domain costs model i exactly matrix[i, d] nats."""
    group = torch.arange(len(domains)).repeat_interleave(N_DOCUMENTS)
    document = torch.arange(len(group)).repeat_interleave(N_TOKENS)
    return Ledger(
        models=("base", *domains),
        experts=domains,
        groups=domains,
        log_probs=-torch.tensor(matrix.T[group[document]], dtype=torch.float32),
        features=torch.zeros(len(document), 0),
        document=document,
        window=document,
        group=group,
        n_bytes=torch.full((len(group),), 40),
        role="heldout",
        source=np.arange(len(group)).astype(str),
    )


def run(steps: int, frozen: int, random: np.random.Generator, noise: float) -> forecast_runs.Run:
    """One recipe: changes grow with the logarithm of the steps, the probe shows a tenth of them."""
    n = len(DOMAINS)
    base = np.linspace(2.5, 4.5, n)
    speed = np.log(steps) * (1 - 0.1 * frozen)
    shape = np.where(np.eye(n, dtype=bool), -0.1, 0.06) * random.uniform(0.7, 1.3, (n, n))
    changes = shape * speed + noise * random.standard_normal((n, n))
    tier = replace(tiers.get("ci").sweep(), specialist_steps=steps, frozen_layers=frozen)
    return forecast_runs.Run(
        tier=tier,
        base=base,
        probe=base + 0.1 * shape * speed,
        ledger=ledger_of(np.vstack([base, base + changes])),
        kl=-np.diag(changes),
        tokens_per_s=np.full(n, 1e4),
        text_bytes=np.full(n, 1e6),
    )


def runs(noise: float = 0.02, n: int = 9, seed: int = 0) -> list[forecast_runs.Run]:
    """A study of n recipes."""
    random = np.random.default_rng(seed)
    return [run(60 + 25 * k, k % 3, random, noise) for k in range(n)]
