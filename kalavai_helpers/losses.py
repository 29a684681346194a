"""Losses of several methods on the same documents, with intervals over the documents.

Sums a document are kept, so that a bootstrap can recompute everything derived from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

N_RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval over documents."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Losses:
    """Sums of token losses a document, for several methods on the same tokens.

    ``sums`` maps a method to (n_documents,) nats; ``tokens`` counts (n_documents,).
    """

    sums: dict[str, np.ndarray]
    tokens: np.ndarray
    group: np.ndarray
    groups: tuple[str, ...]

    def by_group(self, method: str, weights: np.ndarray | None = None) -> np.ndarray:
        """Mean loss a group in nats/token, (..., D); ``weights`` (..., n_documents) resample."""
        weights = np.ones(len(self.tokens)) if weights is None else weights
        member = self.group[:, None] == np.arange(len(self.groups))
        return (weights * self.sums[method]) @ member / ((weights * self.tokens) @ member)

    def equal_weight(self, method: str, weights: np.ndarray | None = None) -> np.ndarray:
        """Unweighted mean over groups, nats/token, (...)."""
        return self.by_group(method, weights).mean(-1)

    def matrix(self, methods: tuple[str, ...] | None = None) -> pd.DataFrame:
        """Loss matrix L[i, d] in nats/token: methods × groups."""
        methods = methods or tuple(self.sums)
        return pd.DataFrame(
            [self.by_group(method) for method in methods], index=methods, columns=self.groups
        )

    def interval(self, statistic: Callable[[np.ndarray | None], np.ndarray]) -> Estimate:
        """Estimate of a statistic with a 95 % percentile interval over documents.

        Documents are resampled within their group, so that every domain keeps its size.

        Parameters
        ----------
        statistic
            Maps document weights (..., n_documents), or ``None`` for the sample as it is, to
            values (...).
        """
        rng = np.random.default_rng(0)
        weights = np.zeros((N_RESAMPLES, len(self.tokens)))
        for group in range(len(self.groups)):
            members = np.flatnonzero(self.group == group)
            drawn = rng.multinomial(
                len(members), np.full(len(members), 1 / len(members)), N_RESAMPLES
            )
            weights[:, members] = drawn
        low, high = np.quantile(statistic(weights), [0.025, 0.975])
        return Estimate(float(statistic(None)), float(low), float(high))
