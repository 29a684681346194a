"""The regime of a recipe: how far its specialists stand from their base, and on which side.

In the release (410M) three specialists improve on their base by 10, 12 and 25 % on their own
domains, hardly forget, and the best of them is better than the base in equal-weight loss. Whether
uniform weights hurt, or what a gain over the best specialist is worth, depends on that. So the
recipes of the tiers that train their own base are chosen for it, on text that no chapter
evaluates on and no router is fitted on. The tables of what was tried are kept.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from . import artifacts, corpora, packing, parallel, specialists, training
from .corpora import Document
from .losses import Losses, Weights
from .specialists import BASE, Cooperative
from .tiers import MID_TRAINING, Tier

FIELDS = (
    "hidden_size",
    "base_steps",
    "base_lr",
    "base_schedule",
    "specialist_steps",
    "specialist_lr",
    "frozen_layers",
)
"""What tells the recipes of one table apart."""

SET_ASIDE = 6
"""One unit in so many of a domain's training text validates."""

# base_steps, base_lr, base_schedule, specialist_steps, specialist_lr, frozen_layers
_TRIED = {
    "ci": (
        (600, 3e-3, 1.0, 200, 1.5e-3, 1),
        (600, 3e-3, 1.0, 200, 6e-4, 1),
        (600, 3e-3, MID_TRAINING, 200, 1.5e-3, 1),
        (600, 3e-3, MID_TRAINING, 200, 6e-4, 1),
        (300, 3e-3, MID_TRAINING, 200, 1.5e-3, 1),
        (300, 3e-3, MID_TRAINING, 200, 1.5e-3, 2),
        (300, 3e-3, MID_TRAINING, 200, 6e-4, 1),
        (300, 6e-3, MID_TRAINING, 200, 1.2e-3, 1),
        (300, 6e-3, MID_TRAINING, 200, 6e-4, 1),
        (150, 3e-3, MID_TRAINING, 200, 1.2e-3, 1),
        (100, 6e-3, MID_TRAINING, 200, 1.2e-3, 1),
    ),
    "laptop": (
        (600, 3e-3, MID_TRAINING, 300, 8e-4, 1),
        (600, 3e-3, MID_TRAINING, 300, 8e-4, 3),
        (600, 3e-3, MID_TRAINING, 300, 4e-4, 1),
    ),
}


_SWEEPS = {
    "ci": ((300, 6e-3, MID_TRAINING, 200, 1.2e-3, 1),),
    "laptop": (
        (500, 4e-3, MID_TRAINING, 200, 8e-4, 1),
        (500, 4e-3, MID_TRAINING, 200, 1.2e-3, 1),
        (500, 4e-3, MID_TRAINING, 200, 1.2e-3, 2),
    ),
}


def tried(tier: Tier) -> list[Tier]:
    """The recipes that were tried for a tier and for its sweep, the chosen ones among them.

    Raises
    ------
    ValueError
        If the tier does not train its own base: its recipe is the published one.
    """
    if tier.name not in _TRIED:
        raise ValueError(f"The recipe of tier {tier.name!r} is the published one: nothing to try")
    sweep = tier.sweep()
    return [
        *(replace(tier, **dict(zip(FIELDS[1:], row, strict=True))) for row in _TRIED[tier.name]),
        *(replace(sweep, **dict(zip(FIELDS[1:], row, strict=True))) for row in _SWEEPS[tier.name]),
    ]


def path(tier: str) -> Path:
    """Where the table of a tier is kept."""
    return artifacts.data() / "recorded" / "regime" / f"{tier}.csv"


def record(tier: Tier, spec: str, seed: int) -> Path:
    """Measure what was tried for a tier, and keep the table."""
    found = measure(tried(tier), spec, corpora.choose(spec, corpora.MAIN_DOMAINS), seed)
    target = path(tier.name)
    text = found.to_csv(index=False, float_format="%.5g", lineterminator="\n")
    artifacts.write_bytes(target, text.encode())
    return target


def standing(losses: pd.DataFrame, domains: Sequence[str]) -> dict[str, float]:
    """How specialists stand to their base, from a loss matrix (models × domains, nats/token).

    Returns
    -------
    ``divergence_DOMAIN``, their mean ``mean_divergence``, and ``best_over_base``: how much lower
    the equal-weight loss of the best specialist is than the base's; all in %.
    """
    base = losses.loc[BASE, list(domains)].to_numpy()
    own = losses.loc[list(domains), list(domains)].to_numpy()
    divergence = 100 * (base - own.diagonal()) / base
    return {
        **{f"divergence_{d}": value for d, value in zip(domains, divergence, strict=True)},
        "mean_divergence": divergence.mean(),
        "best_over_base": 100 * (base.mean() - own.mean(1).min()) / base.mean(),
    }


def best_over_base(table: Losses, weights: Weights = None) -> np.ndarray:
    """How much lower the best specialist's equal-weight loss is than the base's, % (...).

    For :func:`losses.over_runs`; the specialists are those of the table's domains.
    """
    base = table.equal_weight(BASE, weights)
    best = np.min([table.equal_weight(name, weights) for name in table.groups], axis=0)
    return 100 * (base - best) / base


def set_aside(documents: Sequence[Document]) -> tuple[list[Document], list[Document]]:
    """Divide a domain's training documents into those that train and those that validate.

    Units that were split as one (see :class:`corpora.Document`) stay together.
    """
    units = sorted({d.unit for d in documents}, key=lambda u: hashlib.sha256(u.encode()).digest())
    kept = set(units[::SET_ASIDE])
    return [d for d in documents if d.unit not in kept], [d for d in documents if d.unit in kept]


def measure(
    recipes: Sequence[Tier], spec: str, domains: tuple[str, ...], seed: int
) -> pd.DataFrame:
    """Train recipes on part of the training text and score them on the rest of it.

    Returns
    -------
    One row a recipe: :data:`FIELDS`, the quantities of :func:`standing` (%), and the equal-weight
    losses ``base_loss`` and ``best_loss`` (nats/token).
    """
    made = [Cooperative(tier, spec, domains, seed) for tier in recipes]
    specialists.train_bases(made)
    jobs = {
        _path(one, name): partial(_score, one, name) for one in made for name in (BASE, *domains)
    }
    parallel.leave_in_store([job for path, job in jobs.items() if not path.exists()])
    rows = []
    for one in made:
        names = (BASE, *domains)
        scores = [artifacts.read_json(_path(one, name)) for name in names]
        losses = pd.DataFrame(scores, index=names, columns=domains)
        row = {field: getattr(one.tier, field) for field in FIELDS} | standing(losses, domains)
        means = losses.mean(axis=1)
        rows.append({**row, "base_loss": means[BASE], "best_loss": means[list(domains)].min()})
    return pd.DataFrame(rows)


def _path(cooperative: Cooperative, name: str) -> Path:
    key = artifacts.fingerprint(
        cooperative.path(name).name,
        [[d.id for d in _validation(cooperative, domain)] for domain in cooperative.domains],
    )
    return artifacts.store() / "regime" / f"{name}-{key}.json"


def _validation(cooperative: Cooperative, domain: str) -> list[Document]:
    documents = set_aside(cooperative.documents(domain, "train"))[1]
    return corpora.capped(documents, cooperative.tier.heldout_bytes)


def _score(cooperative: Cooperative, name: str) -> None:
    """Keep the mean loss of a model on the validation documents of each domain, nats/token.

    Validation models are not kept: nothing else is asked of them.
    """
    tier = cooperative.tier
    model = cooperative.model(BASE)
    if name != BASE:
        documents = set_aside(cooperative.documents(name, "train"))[0]
        chunks = packing.pack(documents, cooperative.tokenizer, tier.seq_len)
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "specialist.safetensors"
            task = f"validate {name} (seed {cooperative.seed})"
            training.train(model, chunks, cooperative.recipe(name), target, task)
    losses = []
    for domain in cooperative.domains:
        text = _validation(cooperative, domain)
        windows = packing.windows(text, cooperative.tokenizer, tier.seq_len)
        losses.append(training.mean_loss(model, windows))
    artifacts.write_json(_path(cooperative, name), losses)
