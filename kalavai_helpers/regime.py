"""The regime of a recipe: how far its specialists stand from their base, and on which side.

In the release (410M) three specialists improve on their base by 10, 12 and 25 % on their own
domains, hardly forget, and the best of them is better than the base in equal-weight loss. Whether
uniform weights hurt, or what a gain over the best specialist is worth, depends on that. So the
recipes of the tiers that train their own base are chosen for it, on text that no chapter
evaluates on and no router is fitted on. The tables of what was tried are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from . import artifacts, corpora, ledger, packing, parallel, specialists, training
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


# Of a published base only specialists have a recipe: specialist_steps, specialist_lr, frozen_layers.
_TRIED["smollm2-135m"] = (
    (100, 3e-4, 15),
    (100, 6e-4, 15),
)

DOMAINS = {"smollm2-135m": ("code", "welsh")}
"""Domains that recipes are tried on where the three of the main experiment would take too long:
one that the base knows, and a language that it hardly does."""

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
    rows = [(tier, row) for row in _TRIED[tier.name]]
    rows += [(tier.sweep(), row) for row in _SWEEPS.get(tier.name, ())]
    return [replace(one, **dict(zip(FIELDS[-len(row) :], row, strict=True))) for one, row in rows]


def path(tier: str) -> Path:
    """Where the table of a tier is kept."""
    return artifacts.data() / "recorded" / "regime" / f"{tier}.csv"


def record(tier: Tier, spec: str, seed: int) -> Path:
    """Measure what was tried for a tier, and keep the table."""
    return keep(tier, measure(tried(tier), spec, domains_of(tier, spec), seed))


def domains_of(tier: Tier, spec: str) -> tuple[str, ...]:
    """Domains of a text source that the recipes of a tier are tried on."""
    return corpora.choose(spec, DOMAINS.get(tier.name, corpora.MAIN_DOMAINS))


def keep(tier: Tier, table: pd.DataFrame) -> Path:
    """Keep the table of :func:`measure`."""
    return artifacts.write_bytes(path(tier.name), _csv(table))


def is_kept(tier: Tier, table: pd.DataFrame) -> bool:
    """Whether this is the table that is kept."""
    return path(tier.name).is_file() and path(tier.name).read_bytes() == _csv(table)


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, float_format="%.5g", lineterminator="\n").encode()


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
    missing = [job for p, job in jobs(recipes, spec, domains, seed).items() if not p.exists()]
    parallel.leave_in_store(missing)
    rows = []
    for one in made:
        names = (BASE, *domains)
        scores = [artifacts.read_json(_path(one, name)) for name in names]
        losses = pd.DataFrame(scores, index=names, columns=domains)
        row = {field: getattr(one.tier, field) for field in FIELDS} | standing(losses, domains)
        means = losses.mean(axis=1)
        rows.append({**row, "base_loss": means[BASE], "best_loss": means[list(domains)].min()})
    return pd.DataFrame(rows)


def jobs(
    recipes: Sequence[Tier], spec: str, domains: tuple[str, ...], seed: int
) -> dict[Path, Callable[[], None]]:
    """What :func:`measure` has to do, one job for each file that it reads."""
    made = [Cooperative(tier, spec, domains, seed) for tier in recipes]
    return {
        _path(one, name): partial(_score, one, name) for one in made for name in (BASE, *domains)
    }


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
    tier, path = cooperative.tier, _path(cooperative, name)
    model, weights = cooperative.model(BASE), path.with_suffix(".safetensors")
    if name != BASE:
        device, dtype, _ = tier.device()
        documents = set_aside(cooperative.documents(name, "train"))[0]
        training.train(
            model,
            packing.pack(documents, cooperative.tokenizer, tier.seq_len),
            cooperative.recipe(name),
            weights,
            f"validate {name}, {tier.specialist_steps} steps at {tier.specialist_lr:g}",
            device=device,
            autocast=dtype,
        )
    losses = []
    for domain in cooperative.domains:
        text = _validation(cooperative, domain)
        windows = packing.windows(text, cooperative.tokenizer, tier.seq_len)
        scores, _ = ledger.score(model, windows, f"validation text {domain}")
        losses.append(-float(scores.double().mean()))
    artifacts.write_json(path, losses)
    weights.unlink(missing_ok=True)
