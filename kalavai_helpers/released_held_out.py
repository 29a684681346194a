"""The six conditions on which the published line was tested in August 2026, accounted exactly.

Released were divergences and equal-weight losses. Six sets share four specialists, so the losses
behind them can be solved for, and each condition can be told from the five others. Every frame has
a column ``ids`` with the released values that its row reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kalavai_helpers import prediction, published

if TYPE_CHECKING:
    import pandas as pd

Value = Callable[[str], float]

DOMAINS = ("tamil", "yoruba", "welsh", "code")
# In the order of the record.
CONDITIONS = (
    "code+welsh",
    "code+yoruba",
    "tamil+welsh",
    "tamil+yoruba+welsh",
    "tamil+yoruba",
    "yoruba+welsh",
)
RETRIED, NOT_RETRIED = "rebuttal-w2", "rebuttal-w2-collapsed"
LINE = "n8"  # the version of the published line that its authors tested
_W2 = "{}/pythia-410m_step10000/{}/{}/s42/rebuttal_EW_over_the_named_domains"


def domain_losses(sets: Sequence[str], means: Sequence[float]) -> dict[str, float]:
    """Return the loss of each domain behind means over sets of domains, by least squares.

    The specialists of one seed are the same in every set, so six means determine four losses and
    leave two over: how well they fit is a test, see `held_out`.

    Parameters
    ----------
    sets
        Names such as ``tamil+yoruba``.
    means
        Mean loss over the domains of each set, nats/token.

    Raises
    ------
    ValueError
        If the sets do not determine every domain.
    """
    names = list(dict.fromkeys(domain for name in sets for domain in name.split("+")))
    share = np.array([[(d in s.split("+")) / (s.count("+") + 1) for d in names] for s in sets])
    if np.linalg.matrix_rank(share) < len(names):
        raise ValueError(f"The sets {', '.join(sets)} do not determine the losses of {names}")
    solved = np.linalg.lstsq(share, np.asarray(means, float), rcond=None)[0]
    return dict(zip(names, solved.tolist(), strict=True))


def losses(folder: str = RETRIED, value: Value = published.value) -> pd.DataFrame:
    """Return base and specialist loss of the four domains behind the six conditions.

    Neither was released. The specialists' follow from the fused models' equal-weight losses, which
    presumes that the routers are right; the base's from those and the divergences. Their mean can
    be checked: the base's equal-weight loss on the four domains was released with W5.

    Returns
    -------
    pandas.DataFrame
        Index: domain. Columns base, own (nats/token), divergence (%).
    """
    import pandas as pd

    own = domain_losses(
        CONDITIONS, [value(_W2.format(folder, c, "moe_loss_EW")) for c in CONDITIONS]
    )
    rows = {}
    for domain in DOMAINS:
        told = [
            value(_W2.format(folder, c, f"divergence_{domain}"))
            for c in CONDITIONS
            if domain in c.split("+")
        ]
        divergence = float(np.mean(told))
        base = own[domain] / (1 - divergence / 100)
        rows[domain] = {"base": base, "own": own[domain], "divergence": divergence}
    return pd.DataFrame(rows).T


def held_out(folder: str = RETRIED, value: Value = published.value) -> pd.DataFrame:
    """Return the six conditions of August 2026 beside line, band and exact accounting.

    Parameters
    ----------
    folder
        ``RETRIED``, or ``NOT_RETRIED`` for the files of the folder without the retry.
    value
        Gives a released value by id.

    Returns
    -------
    pandas.DataFrame
        Index: condition. Columns

        - divergence (mean over domains, %), gain (over the best specialist, %), released;
        - gain_over_base, best_over_base (%), from base losses that `losses` reconstructs;
        - oracle (gain of the best specialist of every domain, %), its own losses solved from the
          *other* five conditions where these determine them, and net = gain − oracle (pp);
        - line, low, high (%): forecast and 95 % band of the line through eight points; error
          (line − gain, pp), in_band; inside: whether the divergence lies in the range of the eight;
        - strongest: share of the divergence, weighted with the base's losses, that the strongest
          domain has;
        - ids.
    """
    import pandas as pd

    points = prediction.points(LINE)
    law = prediction.fit(points)
    known = losses(folder, value)
    fused = {c: value(_W2.format(folder, c, "moe_loss_EW")) for c in CONDITIONS}
    rows = {}
    for name in CONDITIONS:
        ids = {m: _W2.format(folder, name, m) for m in ("mean_divergence", "improvement_vs_spec")}
        ids |= {m: _W2.format(folder, name, m) for m in ("best_spec_loss_EW", "moe_loss_EW")}
        divergence, gain, best, _ = (value(id) for id in ids.values())
        domains = name.split("+")
        base = float(known.loc[domains, "base"].mean())
        parts = known.loc[domains, "base"] - known.loc[domains, "own"]
        own = _solved_without(name, fused)
        oracle = 100 * (best - own) / best
        low, high = law.prediction_interval(divergence)
        rows[name] = {
            "divergence": divergence,
            "gain": gain,
            "gain_over_base": 100 * (base - fused[name]) / base,
            "best_over_base": 100 * (base - best) / base,
            "oracle": oracle,
            "net": gain - oracle,
            "line": law.predict(divergence),
            "low": low,
            "high": high,
            "error": law.predict(divergence) - gain,
            "in_band": low <= gain <= high,
            "inside": bool(points["divergence"].min() <= divergence <= points["divergence"].max()),
            "strongest": float(parts.max() / parts.sum()),
            "ids": (*ids.values(), *(_W2.format(folder, name, f"divergence_{d}") for d in domains)),
        }
    return pd.DataFrame(rows).T.infer_objects()


def _solved_without(name: str, fused: Mapping[str, float]) -> float:
    """Mean specialist loss of a condition from the fused losses of the five others."""
    others = [other for other in fused if other != name]
    own = domain_losses(others, [fused[other] for other in others])
    return float(np.mean([own[domain] for domain in name.split("+")]))


def foretellers(folder: str = RETRIED, value: Value = published.value) -> pd.DataFrame:
    """Return how well simple quantities order the gains of the six conditions.

    Returns
    -------
    pandas.DataFrame
        Index: quantity. Columns needs (what must be known), rank_correlation and correlation with
        the gain, left_out_error (mean absolute error in pp of a line through the five others).
        Six conditions that share four domains are few: a rank correlation of 0.83 has p = 0.04.
    """
    import pandas as pd
    from scipy import stats

    frame = held_out(folder, value)
    gain = frame["gain"].to_numpy(float)
    candidates = {
        "mean divergence": ("own losses", frame["divergence"]),
        "gain over base": ("own losses", frame["gain_over_base"]),
        "share of the strongest domain": ("own losses", frame["strongest"]),
        "best specialist's gain over base": ("losses elsewhere", frame["best_over_base"]),
        "oracle gain": ("losses elsewhere", frame["oracle"]),
    }
    rows = {}
    for name, (needs, column) in candidates.items():
        x = column.to_numpy(float)
        line = prediction.fit(pd.DataFrame({"divergence": x, "gain": gain}))
        rows[name] = {
            "needs": needs,
            "rank_correlation": float(stats.spearmanr(x, gain).statistic),
            "correlation": float(np.corrcoef(x, gain)[0, 1]),
            "left_out_error": float(np.abs(line.loo).mean()),
        }
    return pd.DataFrame(rows).T.infer_objects()


def fits(folder: str = RETRIED, value: Value = published.value) -> pd.DataFrame:
    """Return the line through the eight points, the six, and all fourteen.

    Returns
    -------
    pandas.DataFrame
        Index: points. Columns n, slope, intercept, R2, Q2, rms (pp, on the six conditions).
    """
    import pandas as pd

    eight, six = prediction.points(LINE), held_out(folder, value)[["divergence", "gain"]]
    rows = {}
    sets = {
        "the published eight": eight,
        "the six of August 2026": six,
        "all fourteen": pd.concat([eight, six]),
    }
    for name, points in sets.items():
        law = prediction.fit(points)
        missed = [law.predict(x) - y for x, y in zip(six["divergence"], six["gain"], strict=True)]
        rows[name] = {
            "n": law.n,
            "slope": law.slope,
            "intercept": law.intercept,
            "R2": law.r2,
            "Q2": law.q2,
            "rms": float(np.sqrt(np.mean(np.square(missed)))),
        }
    return pd.DataFrame(rows).T.astype({"n": int})
