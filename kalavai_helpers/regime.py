"""The regime of a recipe: how far its specialists stand from their base, and on which side.

In the release three specialists improve on their base by about 10, 12 and 25 % on their own
domains, and the best of them is better than the base in equal-weight loss. Whether routing,
uniform weights or averaging help depends on that, so the recipes of the small tiers are chosen
for it, on documents that no chapter evaluates on and no router is fitted on.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from . import artifacts, corpora, packing, parallel, specialists, training
from .corpora import Document
from .specialists import BASE, Cooperative
from .tiers import Tier

SET_ASIDE = 6
"""One unit in so many of a domain's training text is for validation."""

CANDIDATES: dict[str, list[dict[str, float]]] = {"ci": [], "laptop": []}
"""Changes to a tier's recipe that were tried, the chosen one among them."""


def set_aside(documents: Sequence[Document]) -> tuple[list[Document], list[Document]]:
    """Divide a domain's training documents into those that train and those that validate.

    Units that were split as one (see :class:`corpora.Document`) stay together.
    """
    units = sorted({d.unit for d in documents}, key=lambda u: hashlib.sha256(u.encode()).digest())
    kept = set(units[::SET_ASIDE])
    return [d for d in documents if d.unit not in kept], [d for d in documents if d.unit in kept]


def measure(
    tier: Tier,
    spec: str,
    domains: tuple[str, ...],
    seed: int,
    candidates: Sequence[Mapping[str, float]],
) -> pd.DataFrame:
    """Train candidates on part of the training text and score them on the rest of it.

    Parameters
    ----------
    candidates
        Fields of the tier to change, one mapping a candidate.

    Returns
    -------
    One row a candidate: its fields, ``divergence_DOMAIN`` and ``mean_divergence`` (%),
    ``base_loss`` and ``best_loss`` (nats/token, equal weight over domains) and ``best_over_base``
    (%, positive where the best specialist is better).
    """
    tried = [Cooperative(replace(tier, **c), spec, domains, seed) for c in candidates]
    specialists.train_bases(tried)
    jobs = {
        _path(one, name): partial(_score, one, name) for one in tried for name in (BASE, *domains)
    }
    parallel.side_by_side([job for path, job in jobs.items() if not path.exists()])
    rows = []
    for one, candidate in zip(tried, candidates, strict=True):
        rows.append({**candidate, **_row(one)})
    return pd.DataFrame(rows)


def _row(cooperative: Cooperative) -> dict[str, float]:
    domains = cooperative.domains
    base = np.array(artifacts.read_json(_path(cooperative, BASE)))
    losses = np.array([artifacts.read_json(_path(cooperative, name)) for name in domains])
    divergence = 100 * (base - losses.diagonal()) / base
    best = losses.mean(1).min()
    return {
        **{f"divergence_{d}": value for d, value in zip(domains, divergence, strict=True)},
        "mean_divergence": divergence.mean(),
        "base_loss": base.mean(),
        "best_loss": best,
        "best_over_base": 100 * (base.mean() - best) / base.mean(),
        "oracle_gain": 100 * (best - losses.min(0).mean()) / best,
        "uniform_weight": losses.mean(),
    }


def _path(cooperative: Cooperative, name: str) -> Path:
    key = artifacts.fingerprint(
        cooperative.path(name).name,
        artifacts.code_digest(["regime"]),
        cooperative.domains,
        cooperative.tier.heldout_bytes,
    )
    return artifacts.store() / "regime" / f"{name}-{key}.json"


def _score(cooperative: Cooperative, name: str) -> None:
    """Keep the mean loss of a model on the validation documents of each domain, nats/token."""
    tier = cooperative.tier
    parts = {d: set_aside(cooperative.documents(d, "train")) for d in cooperative.domains}
    model = cooperative.model(BASE)
    if name != BASE:
        recipe = cooperative.recipe(name)
        chunks = packing.pack(parts[name][0], cooperative.tokenizer, tier.seq_len)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "specialist.safetensors"
            training.train(model, chunks, recipe, path, f"candidate {name}")
    losses = []
    for _, documents in parts.values():
        text = corpora.capped(documents, tier.heldout_bytes)
        windows = packing.windows(text, cooperative.tokenizer, tier.seq_len)
        losses.append(training.mean_loss(model, windows))
    artifacts.write_json(_path(cooperative, name), losses)
