"""The released crossover and freeze sweep, recomputed from losses (Pythia-410M, seed 42).

Every checkpoint was fused twice: by a first router, whose gains were published over the base, and
by a fresh one, whose gains were published over the best specialist.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from . import published

STEPS = (50, 100, 500, 1000, 2000, 5000, 10000, 20000)
DEPTHS = (0, 4)
SWEEP = (0, 2, 4, 6, 8, 12)
_RUN = "crossover/pythia-410m_step10000/"
_FIRST = "corrected-per-domain-equal-w"


def _pct(reference: float, loss: float) -> float:
    return 100 * (reference - loss) / reference


def base_loss() -> float:
    """Equal-weight loss of the base, nats/token."""
    return published.value(f"{_RUN}/base_loss/s42/{_FIRST}")


def crossover() -> pd.DataFrame:
    """Gains of every released condition, by both denominators.

    Returns
    -------
    One row a (depth, steps); losses in nats/token, gains in %:

    - ``best``, ``fused``, ``science``: best specialist, fused model with the fresh router, and
      science specialist on science; not released for 50 and 100 steps;
    - ``fused_first``: the fused model with the first router;
    - ``repaired``: ``fused``, but science never worse than the science specialist on it, which
      domain-oracle routing guarantees (the other specialists' own losses were not released);
    - ``over_spec``, ``over_base`` as published (fresh router; first router);
      ``repaired_over_spec``, ``repaired_over_base``.
    """
    base, rows = base_loss(), []
    for depth in DEPTHS:
        for steps in STEPS:
            condition = f"{_RUN}steps_{steps}_K_{depth}"
            first = published.value(f"{condition}/moe_loss/s42/{_FIRST}")
            row = {
                "depth": depth,
                "steps": steps,
                "base": base,
                "fused_first": first,
                "over_base": _pct(base, first),
            }
            if steps >= 500:
                fresh = f"{condition}_vs_best_specialist"
                best, fused = (
                    published.value(f"{fresh}/{name}_equal_weight/s42/corr")
                    for name in ("best_spec", "moe")
                )
                own, got = (
                    published.value(f"{fresh}_model_{name}/loss_science/s42/corr")
                    for name in ("science_spec", "moe")
                )
                repaired = fused - max(0.0, got - own) / len(published.DOMAINS)
                row |= {
                    "best": best,
                    "fused": fused,
                    "science": own,
                    "repaired": repaired,
                    "over_spec": _pct(best, fused),
                    "repaired_over_spec": _pct(best, repaired),
                    "repaired_over_base": _pct(base, repaired),
                }
            rows.append(row)
    return pd.DataFrame(rows)


def gains(frame: pd.DataFrame, over_spec: str, over_base: str) -> pd.DataFrame:
    """Two columns in the shape of :func:`gain_curves.gains`, where both depths were released."""
    rows = [
        {"denominator": name, "depth": depth, "steps": steps, "value": value}
        for name, source in (("best specialist", over_spec), ("base", over_base))
        for depth in DEPTHS
        for steps, value in zip(*column(frame, source, depth), strict=True)
    ]
    return pd.DataFrame(rows)


def column(frame: pd.DataFrame, name: str, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of one released column at one depth, where it was released."""
    part = frame[(frame.depth == depth) & frame[name].notna()]
    return part.steps.to_numpy(), part[name].to_numpy()


def difference(frame: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and a column at four frozen blocks minus the same at none."""
    steps, deep = column(frame, name, 4)
    return steps, deep - column(frame, name, 0)[1]


def leads_from(steps: Sequence[int], ahead: np.ndarray) -> int | None:
    """First released duration from which a difference is positive to the end, if any."""
    behind = np.flatnonzero(np.asarray(ahead) <= 0)
    first = behind[-1] + 1 if behind.size else 0
    return int(steps[first]) if first < len(steps) else None


def freeze_sweep() -> pd.DataFrame:
    """The released freeze sweep at 2,000 steps: gain over the best specialist and over base, %.

    The best specialist at four frozen blocks is that of the main experiment, whose specialists
    these are.
    """
    rows = []
    for depth in SWEEP:
        run = f"freeze-sweep/pythia-410m_step10000/K_{depth}_2000_steps"
        fused = published.value(f"{run}/moe_equal_weight/s42/corr")
        if depth == 4:
            matrix = published.loss_matrix("main-410M")
            best = float(matrix.loc[list(published.DOMAINS)].mean(axis=1).min())
        else:
            best = published.value(f"{run}/best_spec_equal_weight/s42/corr")
        rows.append(
            {
                "depth": depth,
                "best": best,
                "fused": fused,
                "over_spec": _pct(best, fused),
                "over_base": _pct(base_loss(), fused),
                "published": published.value(f"{run}/improvement_vs_spec/s42/corr"),
            }
        )
    return pd.DataFrame(rows).set_index("depth")
