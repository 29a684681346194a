"""Evaluation protocols: which windows are read, in which batches, and what is averaged.

The published numbers were first measured by a protocol with two faults: held-out windows of all
domains formed one stream that was cut before its last domain, and the fused model read it in
smaller batches, hence less of it. Each can be switched on alone here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from . import corpora
from .ledger import Ledger
from .losses import Estimate, Losses
from .specialists import BASE

BEST = "best specialist"

Statistic = Callable[[np.ndarray | None], np.ndarray]
"""Maps document weights (..., n_documents), or ``None`` for the sample as it is, to values."""


@dataclass(frozen=True)
class Protocol:
    """What an evaluation reads.

    A loss is the mean over batches of the mean loss of a batch, as published; a last batch that is
    not full is dropped where there is another.

    Parameters
    ----------
    single_batch, fused_batch
        Windows in a batch for single models and for the fused one (published: 4 and 2).
    n_batches
        Batches read, of the stream or of each domain; ``None`` reads all.
    concatenated
        One stream, domain after domain (published first); otherwise each domain by itself, and
        the domain losses are averaged without weights.
    domains
        Domains that are read, in the order of the stream; ``None`` for those of the ledger.
    """

    single_batch: int = 4
    fused_batch: int = 4
    n_batches: int | None = None
    concatenated: bool = False
    domains: tuple[str, ...] | None = None

    def batches(self, ledger: Ledger, *, fused: bool = False) -> list[list[np.ndarray]]:
        """Windows of each batch, one list of batches a stream."""
        size = self.fused_batch if fused else self.single_batch
        found = []
        for windows in self._streams(ledger):
            full = max(len(windows) // size, 1)
            count = min(full, self.n_batches or full)
            found.append([windows[i * size : (i + 1) * size] for i in range(count)])
        return found

    def _streams(self, ledger: Ledger) -> list[np.ndarray]:
        owner = _window_group(ledger)
        order = [ledger.groups.index(d) for d in self.domains or ledger.groups]
        apart = [np.flatnonzero(owner == group) for group in order]
        return [np.concatenate(apart)] if self.concatenated else apart

    def windows_read(self, ledger: Ledger) -> pd.DataFrame:
        """Windows read a domain, by single models and by the fused one."""
        owner = _window_group(ledger)
        rows = {}
        for name, fused in (("single models", False), ("fused model", True)):
            read = np.concatenate([b for s in self.batches(ledger, fused=fused) for b in s])
            rows[name] = np.bincount(owner[read], minlength=len(ledger.groups))
        return pd.DataFrame(rows, index=list(ledger.groups)).T


def original_batches(ledger: Ledger, single_batch: int = 4) -> int:
    """Batches that reach as far into a ledger's stream as the published 50 reached.

    The published stream opened with 158 chunks of its first domain, and 50 batches of 4 were read:
    all of the first domain, part of the second, nothing of the third.
    """
    first = int((_window_group(ledger) == 0).sum())
    return max(1, round(200 / 158 * first / single_batch))


def loss(
    ledger: Ledger, log_probs: torch.Tensor, protocol: Protocol, *, fused: bool = False
) -> Statistic:
    """Loss of a model under a protocol, nats/token, as a function of document weights.

    Parameters
    ----------
    log_probs
        (n,) on the ledger's tokens.
    fused
        Whether the model reads in the batches of the fused model.
    """
    corpora.require_role(ledger.role, "heldout", "A published protocol")
    window = ledger.window.numpy()
    sums = np.bincount(window, -log_probs.double().numpy())
    tokens = np.bincount(window).astype(float)
    document = ledger.document.numpy()[np.unique(window, return_index=True)[1]]
    streams = protocol.batches(ledger, fused=fused)

    def statistic(weights: np.ndarray | None) -> np.ndarray:
        weights = np.ones(ledger.n_documents) if weights is None else weights
        spread = np.asarray(weights, dtype=float)[..., document]
        return np.mean([_mean_of_batches(spread, sums, tokens, s) for s in streams], axis=0)

    return statistic


def _mean_of_batches(
    weights: np.ndarray, sums: np.ndarray, tokens: np.ndarray, batches: list[np.ndarray]
) -> np.ndarray:
    read = np.concatenate(batches)
    starts = np.cumsum([0, *(len(batch) for batch in batches[:-1])])
    count = np.add.reduceat(weights[..., read] * tokens[read], starts, axis=-1)
    total = np.add.reduceat(weights[..., read] * sums[read], starts, axis=-1)
    # A resample may leave a batch without documents: it then has no mean to average. Where it
    # leaves nothing at all to read there is no loss, and a 0 would pass for a perfect model.
    means = np.where(count > 0, total / np.where(count > 0, count, 1), 0.0)
    n_read = (count > 0).sum(-1)
    return np.where(n_read > 0, means.sum(-1) / np.maximum(n_read, 1), np.nan)


def improvement_pct(ledger: Ledger, reference: Statistic, model: Statistic) -> Estimate:
    """100 · (L(reference) − L(model)) / L(reference), %, with an interval over sources and documents.

    The two may have been read by different protocols: then the number compares different text.
    Resamples that leave one of them nothing to read are left out.
    """

    def statistic(weights: np.ndarray | None) -> np.ndarray:
        found = 100 * (1 - model(weights) / reference(weights))
        return found if weights is None else found[np.isfinite(found)]

    return _documents(ledger).interval(statistic)


def _documents(ledger: Ledger) -> Losses:
    count = np.bincount(ledger.document, minlength=ledger.n_documents)
    return Losses({}, count, ledger.group.numpy(), ledger.groups, ledger.source)


def _window_group(ledger: Ledger) -> np.ndarray:
    first = np.unique(ledger.window.numpy(), return_index=True)[1]
    return ledger.token_group.numpy()[first]


def improvements(
    ledger: Ledger,
    models: dict[str, torch.Tensor],
    protocol: Protocol,
    *,
    fused: tuple[str, ...] = (),
    reference: Protocol | None = None,
) -> pd.DataFrame:
    """Loss of every model under a protocol, and its improvement over base and best specialist.

    Parameters
    ----------
    models
        (n,) log-probabilities by name, beside the base and the experts of the ledger.
    fused
        Which of them are read in the batches of the fused model.
    reference
        How the base is read, where that is not ``protocol``: then base and models are compared on
        different text.

    Returns
    -------
    Rows the best specialist and ``models``; columns loss (nats/token), vs_base and vs_best (%),
    each with its interval over sources and documents (``_low``, ``_high``).
    """
    base = loss(ledger, ledger.column(BASE), reference or protocol)
    experts = [loss(ledger, ledger.column(name), protocol) for name in ledger.experts]

    def best(weights: np.ndarray | None) -> np.ndarray:
        return np.min([expert(weights) for expert in experts], axis=0)

    statistics = {BEST: best} | {
        name: loss(ledger, log_probs, protocol, fused=name in fused)
        for name, log_probs in models.items()
    }
    rows = {}
    for name, statistic in statistics.items():
        rows[name] = {"loss": float(statistic(None))}
        for column, against in (("vs_base", base), ("vs_best", best)):
            found = improvement_pct(ledger, against, statistic)
            rows[name] |= {column: found.value, f"{column}_low": found.low}
            rows[name][f"{column}_high"] = found.high
    return pd.DataFrame(rows).T
