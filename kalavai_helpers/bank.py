"""The bank of recipes that forecasts learn from: its families, its price, and how far it reaches.

A forecast is free of full runs only for the recipe that is asked about: those it learned from were
trained in full, and what they have not tried they cannot teach.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .forecast_runs import probe_steps
from .tiers import Tier

LEAST = 4
"""Fewest recipes in a bank: errors are learned by leaving one out, twice over."""


def families(tiers: Sequence[Tier]) -> dict[str, list[int]]:
    """Recipes that have in common what no other recipe of the bank has tried.

    Only families that leave ``LEAST`` recipes to learn from.

    Returns
    -------
    dict
        Name of the trait → indices into ``tiers``.
    """
    steps, width, text = (
        np.array([getattr(tier, field) for tier in tiers])
        for field in ("specialist_steps", "hidden_size", "train_bytes")
    )
    frozen = np.array([tier.frozen_layers / tier.n_layers for tier in tiers])
    traits = {
        "scarce text": text < text.max(),
        "nothing frozen": frozen == 0,
        "half or more frozen": frozen >= 0.5,
        "narrower models": width < width.max(),
        "shortest runs": steps <= np.quantile(steps, 0.25),
        "longest runs": steps >= np.quantile(steps, 0.75),
    }
    found = {name: np.flatnonzero(members).tolist() for name, members in traits.items()}
    return {name: f for name, f in found.items() if f and len(tiers) - len(f) >= LEAST}


@dataclass(frozen=True)
class Cost:
    """Training tokens of one domain's runs: of a full run and a probe (means), and of the bank."""

    full: float
    probe: float
    bank: float

    def share(self, forecasts: int = 1) -> float:
        """Bank and probes in % of training every recipe that is asked about in full."""
        return 100 * (self.bank + forecasts * self.probe) / (forecasts * self.full)

    @property
    def pays_after(self) -> int:
        """Smallest number of forecasts that cost less than as many full recipes."""
        return math.floor(self.bank / (self.full - self.probe)) + 1


def cost(tiers: Sequence[Tier], size: int) -> Cost:
    """Price of a bank of ``size`` recipes, each as long as those of ``tiers`` are on average.

    A recipe of the bank is trained twice, as a probe and in full.
    """
    full, probe = (
        float(np.mean([n(tier) * tier.batch_size * tier.seq_len for tier in tiers]))
        for n in (lambda tier: tier.specialist_steps, probe_steps)
    )
    return Cost(full, probe, size * (full + probe))


@dataclass(frozen=True)
class Reach:
    """How far from a bank a specialist lies, and how far the bank's own recipes lie from another.

    The distance is the leverage z'(Z'Z + penalty·1)⁻¹z of the specialist's standardised
    description z among those of the bank, Z: what the variance of a ridge regression grows with.
    The limit is the largest distance of a recipe of the bank from the other recipes: errors and
    intervals were learned by leaving those out, so beyond it nothing has been measured.
    """

    names: tuple[str, ...]
    centre: np.ndarray
    scale: np.ndarray
    inverse: np.ndarray
    limit: float

    @staticmethod
    def of(recipes: Sequence[np.ndarray], names: tuple[str, ...], penalty: float = 1.0) -> Reach:
        """Reach of a bank from descriptions (D, F) of its recipes' specialists."""
        whole = _around(recipes, names, penalty)
        left = [
            _around([other for other in recipes if other is not one], names, penalty).distance(one)
            for one in recipes
        ]
        # A recipe that alone tries something lies infinitely far from the others: no scale for it.
        limit = max((d for d in left if np.isfinite(d)), default=0.0)
        return Reach(names, whole.centre, whole.scale, whole.inverse, limit)

    def distance(self, specialists: np.ndarray) -> float:
        """Largest leverage of specialists (D, F); infinite where the bank has never varied."""
        off = specialists - self.centre
        if (np.abs(off[:, self.scale == 0]) > 1e-6).any():
            return float("inf")
        z = off / np.where(self.scale == 0, 1.0, self.scale)
        return float(np.einsum("df,fg,dg->d", z, self.inverse, z).max())

    def reason(self, specialists: np.ndarray) -> str | None:
        """Why these specialists (D, F) are too far to be told about; ``None`` if they are not."""
        distance = self.distance(specialists)
        if distance <= self.limit:
            return None
        off = np.abs(specialists - self.centre).max(0)
        constant = (self.scale == 0) & (off > 1e-6)
        if constant.any():
            untried = [name for name, new in zip(self.names, constant, strict=True) if new]
            return f"the bank has never varied {' or '.join(untried)}"
        z = off / np.where(self.scale == 0, 1.0, self.scale)
        name, size = self.names[int(z.argmax())], float(z.max())
        return (
            f"too far from the bank: distance {distance:.2g}, limit {self.limit:.2g}; "
            f"most of all in {name}, {size:.1f} standard deviations from the mean"
        )


def _around(recipes: Sequence[np.ndarray], names: tuple[str, ...], penalty: float) -> Reach:
    rows = np.concatenate(recipes)
    centre, scale = rows.mean(0), rows.std(0)
    scale = np.where(scale < 1e-9, 0.0, scale)
    z = (rows - centre) / np.where(scale == 0, 1.0, scale)
    inverse = np.linalg.inv(z.T @ z + penalty * np.eye(z.shape[1]))
    return Reach(names, centre, scale, inverse, float("inf"))
