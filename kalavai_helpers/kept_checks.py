"""Kept checks: what a ledger loses by the compact form it is kept in, measured before it ships."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from . import dispatch, evaluation, kept_ledger, routing
from .ledger import Ledger


def cost(parts: Mapping[str, Ledger]) -> dict[str, float]:
    """What :func:`kept_ledger.rounded` changes: of losses by its scores, of routing by its states.

    Routers and classifiers are fitted on ``router`` and judged on ``heldout``, with states as they
    were read and as they are kept, and with the same scores.

    Returns
    -------
    dict
        ``loss_nats``: largest change of a model's mean loss on a domain that it read, nats/token;
        ``bits_per_byte``: largest change of a model's; ``linear_router_nats``: equal-weight loss
        of a linear router on the kept states minus that on the full ones, nats/token;
        ``classifier_pp``: largest loss of accuracy of a domain classifier, on openings, windows or
        documents, percentage points.
    """
    fitting, judged = parts["router"], parts["heldout"]
    kept = kept_ledger.rounded(parts)
    losses = np.subtract(*(_matrix(way) for way in (kept["heldout"], judged)))
    bits = np.subtract(*(_bits(way) for way in (kept["heldout"], judged)))
    coded = (replace(parts[name], features=kept[name].features) for name in ("router", "heldout"))
    (routed, accuracy), (routed_kept, accuracy_kept) = (
        _routing(fitting, judged),
        _routing(*coded),
    )
    return {
        "loss_nats": float(np.nanmax(np.abs(losses))),
        "bits_per_byte": float(np.nanmax(np.abs(bits))),
        "linear_router_nats": routed_kept - routed,
        "classifier_pp": 100 * float((accuracy - accuracy_kept).max()),
    }


def _matrix(ledger: Ledger) -> np.ndarray:
    return evaluation.losses(ledger).matrix(ledger.models).to_numpy()


def _bits(ledger: Ledger) -> list[float]:
    return [evaluation.bits_per_byte(ledger, ledger.column(model)) for model in ledger.models]


def _routing(fitting: Ledger, judged: Ledger) -> tuple[float, np.ndarray]:
    """Loss of a fitted linear router, and accuracies of a fitted classifier."""
    fused = evaluation.route(judged, {"linear": routing.fit_linear(fitting)})["linear"]
    table = evaluation.losses(judged, {"linear": fused.log_probs})
    accuracy = dispatch.accuracy(judged, dispatch.fit(fitting))["accuracy"].to_numpy()
    return float(table.equal_weight("linear")), accuracy
