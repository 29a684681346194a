"""What a cooperative will gain, told from short probe runs before anybody pays for the full ones.

Probe runs give early changes of every loss; a regression learned from *other* recipes carries
them to the end of the full runs; Monte Carlo with the regression's own errors, through the exact
identity of the oracle gain, makes a distribution of gains; its 80 % interval is stretched until
it holds for the other recipes. Nothing of the recipe that is forecast is ever used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from . import evaluation
from .forecast_runs import Run
from .losses import Estimate
from .specialists import BASE

LEVEL = 0.8
BYTES_PER_TOKEN = 3.0  # of small byte-level tokenizers, near enough for a number of passes
N_DRAWS = 1000


@dataclass(frozen=True)
class _Ridge:
    """A least-squares plane on standardised features, drawn a little towards the mean."""

    centre: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    level: float

    @staticmethod
    def fit(x: np.ndarray, y: np.ndarray, penalty: float = 1.0) -> _Ridge:
        centre, scale = x.mean(0), x.std(0)
        scale = np.where(scale < 1e-9, 1.0, scale)
        z = (x - centre) / scale
        weights = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ (y - y.mean()))
        return _Ridge(centre, scale, weights, float(y.mean()))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.level + (x - self.centre) / self.scale @ self.weights


def _features(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """What is known before the full runs: own (D, F) and foreign (D, D, G) features.

    Domains are not named among them, so a forecast can be asked for domains never seen.
    """
    n = len(run.domains)
    change = run.probe - run.base
    own = np.diag(change)
    foreign = (change.sum(1) - own) / (n - 1)
    tier = run.tier
    seen = tier.specialist_steps * tier.batch_size * tier.seq_len * BYTES_PER_TOKEN
    steps = np.full(n, np.log(tier.specialist_steps))
    passes = np.log1p(seen / run.text_bytes)
    about = np.stack([own, steps, passes, run.base], 1)
    mover = np.stack([own, foreign, steps, passes], 1)
    pair = np.concatenate([np.repeat(mover[:, None], n, 1), change[..., None]], 2)
    return about, pair


def _changes(run: Run) -> np.ndarray:
    """What came of the full runs: L[i, d] − L_base[d] on held-out documents, (D, D)."""
    matrix = evaluation.losses(run.ledger).matrix((BASE, *run.domains)).to_numpy()
    return matrix[1:] - matrix[0]


@dataclass(frozen=True)
class Known:
    """A recipe as a forecaster sees it: features, and the changes that came of the full runs."""

    base: np.ndarray
    about: np.ndarray
    pair: np.ndarray
    changes: np.ndarray

    @staticmethod
    def of(run: Run) -> Known:
        """Features and outcome of a run."""
        return Known(run.base, *_features(run), _changes(run))

    def only(self, kept: Sequence[int]) -> Known:
        """What is known of some of the domains."""
        pairs = np.ix_(kept, kept)
        return Known(self.base[kept], self.about[kept], self.pair[pairs], self.changes[pairs])


def _planes(known: Sequence[Known]) -> tuple[_Ridge, _Ridge]:
    off = ~np.eye(len(known[0].base), dtype=bool)
    own = _Ridge.fit(
        np.concatenate([k.about for k in known]),
        np.concatenate([np.diag(k.changes) for k in known]),
    )
    foreign = _Ridge.fit(
        np.concatenate([k.pair[off] for k in known]),
        np.concatenate([k.changes[off] for k in known]),
    )
    return own, foreign


def _carry(planes: tuple[_Ridge, _Ridge], known: Known) -> np.ndarray:
    """Predicted changes of every loss by the end of the full runs, (D, D)."""
    own, foreign = planes
    changes = foreign(known.pair)
    np.fill_diagonal(changes, own(known.about))
    return changes


@dataclass(frozen=True)
class Spread:
    """Errors of carried changes: shared by a recipe, by a specialist, and of a single loss.

    ``recipe`` and ``specialist`` are (2, 2) covariances of (own, foreign) errors, ``cell`` the
    standard deviation of what is left of a foreign one; nats/token.
    """

    recipe: np.ndarray
    specialist: np.ndarray
    cell: float

    @staticmethod
    def of(errors: Sequence[np.ndarray]) -> Spread:
        """Split errors (D, D) of several recipes that were left out."""
        off = ~np.eye(len(errors[0]), dtype=bool)
        rows = np.array(  # (R, D, 2)
            [[(e[i, i], e[i][off[i]].mean()) for i in range(len(e))] for e in errors]
        )
        shared = rows.mean(1)
        apart = (rows - shared[:, None]).reshape(-1, 2)
        cells = [e[off] - np.repeat(r[:, 1], len(e) - 1) for e, r in zip(errors, rows, strict=True)]
        left = np.concatenate(cells)
        # Each row's mean was taken out, which costs a degree of freedom a row.
        free = len(left) * max(len(rows[0]) - 2, 1) / (len(rows[0]) - 1)
        return Spread(
            shared.T @ shared / len(errors),  # about zero: a bias of the method counts as error
            apart.T @ apart / len(apart),
            float(np.sqrt((left**2).sum() / free)),
        )

    def draw(self, n: int, domains: int, random: np.random.Generator) -> np.ndarray:
        """Errors (n, domains, domains)."""
        zero = np.zeros(2)
        shared = random.multivariate_normal(zero, self.recipe, (n, 1), method="eigh")
        rows = shared + random.multivariate_normal(
            zero, self.specialist, (n, domains), method="eigh"
        )
        drawn = rows[..., 1:] + self.cell * random.standard_normal((n, domains, domains))
        diagonal = np.arange(domains)
        drawn[:, diagonal, diagonal] = rows[..., 0]
        return drawn


@dataclass(frozen=True)
class Forecaster:
    """What other recipes teach: how changes grow, how wrong that is, what routing nets."""

    planes: tuple[_Ridge, _Ridge]
    spread: Spread
    net: np.ndarray
    stretch: float = 1.0

    def draws(self, known: Known, kept: Sequence[int], seed: int = 0) -> np.ndarray:
        """Gains (N_DRAWS,) in % that the cooperative of the domains ``kept`` may reach."""
        kept = np.asarray(kept)
        random = np.random.default_rng([seed, *kept.tolist()])
        expected = known.base[kept] + _carry(self.planes, known)[np.ix_(kept, kept)]
        losses = expected + self.spread.draw(N_DRAWS, len(kept), random)
        best = losses.mean(2).min(1)
        oracle = losses.min(1).mean(1)
        return 100 * (best - oracle) / best + random.choice(self.net, N_DRAWS)

    def interval(self, known: Known, kept: Sequence[int]) -> Estimate:
        """Median and 80 % interval of the gain, %."""
        tails = (0.5, (1 - LEVEL) / 2, (1 + LEVEL) / 2)
        middle, low, high = np.quantile(self.draws(known, kept), tails)
        reach = self.stretch * (middle - low), self.stretch * (high - middle)
        return Estimate(float(middle), float(middle - reach[0]), float(middle + reach[1]))


def learn(known: dict[int, Known], table: pd.DataFrame, stretch: bool = True) -> Forecaster:
    """Learn from recipes: ``known`` by recipe, and the rows of ``table`` that belong to them.

    Raises
    ------
    ValueError
        With fewer than four recipes: errors are learned by leaving one out, twice over.
    """
    if len(known) < 3 + stretch:
        raise ValueError(f"A forecast is learned from at least 4 recipes, not {len(known)}")
    errors = []
    for recipe, left in known.items():
        planes = _planes([k for r, k in known.items() if r != recipe])
        errors.append(left.changes - _carry(planes, left))
    rows = table[table["recipe"].isin(known)]
    made = Forecaster(
        _planes(list(known.values())), Spread.of(errors), (rows["gain"] - rows["oracle"]).to_numpy()
    )
    if not stretch:
        return made
    inner = leave_one_out(known, rows, stretch=False)
    above = inner["gain"] > inner["forecast"]
    reach = np.where(above, inner["high"] - inner["forecast"], inner["forecast"] - inner["low"])
    ratio = (inner["gain"] - inner["forecast"]).abs() / reach
    return replace(made, stretch=float(np.quantile(ratio, LEVEL)))


def leave_one_out(
    known: dict[int, Known], table: pd.DataFrame, stretch: bool = True
) -> pd.DataFrame:
    """Forecast every cooperative from recipes other than its own.

    Returns
    -------
    ``table`` with the columns forecast, low, high (%) and inside (the gain lies between them).
    """
    rows = table.copy()
    found = {}
    for recipe, own in known.items():
        others = {r: k for r, k in known.items() if r != recipe}
        forecaster = learn(others, table, stretch)
        for index, row in table[table["recipe"] == recipe].iterrows():
            found[index] = forecaster.interval(own, row["kept"])
    for name, part in (("forecast", "value"), ("low", "low"), ("high", "high")):
        rows[name] = pd.Series({index: getattr(e, part) for index, e in found.items()})
    rows["inside"] = rows["gain"].between(rows["low"], rows["high"])
    return rows


def leave_out_domains(known: dict[int, Known], table: pd.DataFrame) -> pd.DataFrame:
    """Forecast small cooperatives from other recipes *and* other domains.

    Only cooperatives that leave three domains or more to learn from; the interval is not
    stretched, since too little is left to learn by how much.

    Returns
    -------
    Their rows of ``table``, with forecast, low, high and inside as in :func:`leave_one_out`.
    """
    found = {}
    for index, row in table.iterrows():
        rest = [k for k in range(len(known[0].base)) if k not in row["kept"]]
        if len(rest) >= 3:
            others = {r: k.only(rest) for r, k in known.items() if r != row["recipe"]}
            told = learn(others, table, stretch=False).interval(known[row["recipe"]], row["kept"])
            found[index] = (told.value, told.low, told.high)
    rows = table.loc[[*found]].copy()
    rows[["forecast", "low", "high"]] = list(found.values())
    rows["inside"] = rows["gain"].between(rows["low"], rows["high"])
    return rows
