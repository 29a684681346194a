"""Released cooperatives, described as far as their losses were released, for any rule to be asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from kalavai_helpers import gain_rules, prediction, published, released_held_out, released_losses

if TYPE_CHECKING:
    import pandas as pd

FITTED, AUGUST, OTHER = "the published eight", "August 2026", "other released"
_FITTED = ("410M, seed", "1B, seed", "6.9B, seed", "P1, seed", "Qwen-1.5B, seed", "private, seed")
_CROSS = tuple(f"cross-lingual, seed {seed}" for seed in (137, 2026))  # 42 was left out of the fit
_P2 = "regression-ext-p2_4domain/pythia-410m_step10000/{}/s{}/corr"


def cooperatives() -> pd.DataFrame:
    """Every released cooperative with one trained router, a row a seed.

    Returns
    -------
    pandas.DataFrame
        Index name; columns kind (``FITTED``, ``AUGUST`` or ``OTHER``), trained (conditions of one
        name share specialists or differ in their seed alone), gain (released, %), and what
        :func:`gain_rules.of_matrix` tells, NaN where it was not released; net (gain − oracle, pp).
    """
    import pandas as pd

    frame = pd.DataFrame([*_accounted(), *_four_domains(), *_august()]).set_index("name")
    frame["net"] = frame["gain"] - frame["oracle"]
    return frame


def _accounted() -> Iterator[dict[str, object]]:
    for case in released_losses.cases(published.value):
        if not case.base or (case.name.startswith("410M, ") and "seed" not in case.name):
            continue  # without base losses, or 410M of seed 42 again under another router
        base = np.array(case.base)
        if case.specialists is not None:
            known = gain_rules.of_matrix(base, case.specialists)
        else:
            known = gain_rules.of_own(base, np.array(case.diagonal))
            known["best_over_base"] = 100 * (1 - case.best / known["base"])
            known["oracle"] = prediction.account(case.diagonal, case.best, case.fused)["oracle"]
        fitted = case.name.startswith(_FITTED) or case.name in _CROSS
        yield {
            "name": case.name,
            "kind": FITTED if fitted else OTHER,
            "trained": case.name.partition(", seed")[0],
            "gain": published.value(case.gain_id),
            **known,
        }


def _four_domains() -> Iterator[dict[str, object]]:
    """P2, of which divergences alone were released."""
    for seed in released_losses.SEEDS:
        parts = [
            published.value(_P2.format(f"specialist_{d}/divergence", seed))
            for d in (*published.DOMAINS, "legal")
        ]
        n, divergence = len(parts), float(np.mean(parts))
        yield {
            "name": f"P2, seed {seed}",
            "kind": FITTED,
            "trained": "P2",
            "gain": published.value(_P2.format("metrics/improvement_vs_spec", seed)),
            "n": n,
            "one_over_n": 1 / n,
            "divergence": divergence,
            "divergence_spread": float(np.std(parts)),
            "shared_divergence": (1 - 1 / n) * divergence,
        }


def _august() -> Iterator[dict[str, object]]:
    losses = released_held_out.losses()
    for name, row in released_held_out.held_out().iterrows():
        part = losses.loc[name.split("+")]
        yield {
            "name": name,
            "kind": AUGUST,
            "trained": "August 2026",
            "gain": row["gain"],
            **gain_rules.of_own(part["base"].to_numpy(), part["own"].to_numpy()),
            "best_over_base": row["best_over_base"],
            "oracle": row["oracle"],
        }
