"""What a cooperative gains: the published straight line, and exact accounting from losses.

Every number comes from the released values, by id; nothing is typed here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kalavai_helpers import published

if TYPE_CHECKING:
    import pandas as pd

_N8 = (
    "Qwen-1.5B",
    "Pythia-6.9B",
    "P1_2-domain",
    "Pythia-1B",
    "Pythia-410M",
    "Exp2_Private",
    "P2_4-domain",
    "Exp1_Cross-lingual",
)
_N6 = tuple(name for name in _N8 if not name.startswith(("P1_", "P2_")))
_USED = "regression-n8/all/{}/{}_used/s_na/OLS_input"
_TABLE = "regression-n6/Pythia-6.9B/prediction_table/mean_divergence/s_na/as_stated"
_FIRST = "regression-n6/all/n6_first_version_6.9B_8.29_5.81/6.9B_{}_used/s_na/OLS_input"
# Versions of the fit and the ids that stand in for Pythia-6.9B (divergence, gain).
VERSIONS: dict[str, tuple[tuple[str, ...], tuple[str, str] | None]] = {
    "n6, 6.9B at 8.73": (_N6, None),
    "n6, 6.9B at 8.29": (_N6, (_TABLE, _USED.format("Pythia-6.9B", "gain"))),
    "n6, first version": (_N6, (_FIRST.format("divergence"), _FIRST.format("gain"))),
    "n8": (_N8, None),
}


@dataclass(frozen=True)
class Law:
    """Least squares through points (divergence, gain), both in percent.

    Attributes
    ----------
    slope, intercept, r2, n
        The line, the share of variance it explains where it was fitted, the number of points.
    loo
        (n,) residual of each point against the line through the others, pp.
    q2
        1 − Σ loo² / Σ (gain − mean)²: the share explained of points that were left out.
    """

    slope: float
    intercept: float
    r2: float
    n: int
    loo: tuple[float, ...]
    q2: float
    _spread: tuple[float, float, float]  # mean x, Σ (x − mean)², residual standard error

    def predict(self, divergence: float) -> float:
        """Return the gain (%) on the line."""
        return self.slope * divergence + self.intercept

    def prediction_interval(self, x: float, level: float = 0.95) -> tuple[float, float]:
        """Return the interval (%) in which one new gain at divergence ``x`` lies.

        Student's t with n − 2 degrees of freedom, assuming independent normal errors of equal
        size: points that share specialists make it too narrow.
        """
        from scipy import stats

        centre, width, error = self._spread
        scale = error * math.sqrt(1 + 1 / self.n + (x - centre) ** 2 / width)
        reach = scale * float(stats.t.ppf(0.5 + level / 2, self.n - 2))
        return self.predict(x) - reach, self.predict(x) + reach


def points(version: str, record: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Return the points of one version of the published fit.

    Parameters
    ----------
    version
        One of ``VERSIONS``. The coefficients of a fit to 17 points were released as well, but not
        which points these are.
    record
        Values by id that replace the released ones.

    Returns
    -------
    pandas.DataFrame
        Columns name, divergence (%), gain (%), divergence_id, gain_id.

    Raises
    ------
    ValueError
        If the points of that version were not released.
    """
    import pandas as pd

    if version not in VERSIONS:
        raise ValueError(f"No released points for {version!r}: choose one of {[*VERSIONS]}")
    names, instead = VERSIONS[version]
    rows = []
    for name in names:
        ids = _USED.format(name, "divergence"), _USED.format(name, "gain")
        if name == "Pythia-6.9B" and instead:
            ids = instead
        rows.append((name, _value(ids[0], record), _value(ids[1], record), *ids))
    columns = ["name", "divergence", "gain", "divergence_id", "gain_id"]
    return pd.DataFrame(rows, columns=columns)


def fit(points: pd.DataFrame) -> Law:
    """Return the least-squares line through points with columns divergence and gain.

    Raises
    ------
    ValueError
        If there are fewer than three points, or all have one divergence.
    """
    x, y = points["divergence"].to_numpy(float), points["gain"].to_numpy(float)
    width = float(((x - x.mean()) ** 2).sum()) if len(x) else 0.0
    if len(x) < 3 or width == 0:
        raise ValueError(f"A line needs three points of different divergence, not {len(x)}")
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / width)
    residual = y - y.mean() - slope * (x - x.mean())
    total = float(((y - y.mean()) ** 2).sum())
    leverage = 1 / len(x) + (x - x.mean()) ** 2 / width
    loo = residual / (1 - leverage)  # exact for least squares: no refit needed
    return Law(
        slope=slope,
        intercept=float(y.mean() - slope * x.mean()),
        r2=1 - float((residual**2).sum()) / total,
        n=len(x),
        loo=tuple(loo.tolist()),
        q2=1 - float((loo**2).sum()) / total,
        _spread=(float(x.mean()), width, math.sqrt(float((residual**2).sum()) / (len(x) - 2))),
    )


def account(diagonal: list[float], best: float, fused: list[float] | float) -> dict[str, float]:
    """Split a gain over the best specialist into what the losses determine exactly.

    Parameters
    ----------
    diagonal
        (D,) lowest specialist loss on every domain, nats/token.
    best
        Equal-weight loss of the best single specialist, nats/token.
    fused
        (D,) losses of the fused model, or its equal-weight loss alone, nats/token.

    Returns
    -------
    dict
        ``oracle`` (gain of always using the best specialist of a domain), ``above_oracle`` (loss of
        the fused model above that, negative where it is below) and ``gain`` = oracle −
        above_oracle, in percent of ``best``. Losses alone do not tell ``above_oracle`` apart into
        routing regret and mixing bonus (:class:`kalavai_helpers.evaluation.Accounting`): that
        takes the gates of every token.
    """
    own, scale = float(np.mean(diagonal)), 100 / best
    oracle, above = scale * (best - own), scale * (float(np.mean(fused)) - own)
    return {"oracle": oracle, "above_oracle": above, "gain": oracle - above}


def _value(id: str, record: Mapping[str, float] | None) -> float:
    return record[id] if record is not None else published.value(id)


def accounting(record: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Return exact accounting beside every released corrected gain whose losses were released.

    Returns
    -------
    pandas.DataFrame
        One row a condition: name, losses (``matrix``: specialists × domains were released;
        ``diagonal``: own-domain losses, or base losses and divergences), oracle, above_oracle,
        gain, released, error (gain − released, pp), released_id.
    """
    import pandas as pd

    from kalavai_helpers import released_losses

    rows = []
    for case in released_losses.cases(lambda id: _value(id, record)):
        parts = account(case.diagonal, case.best, case.fused)
        released = _value(case.gain_id, record)
        rows.append(
            {
                "name": case.name,
                "losses": case.losses,
                **parts,
                "released": released,
                "error": parts["gain"] - released,
                "released_id": case.gain_id,
            }
        )
    return pd.DataFrame(rows)
