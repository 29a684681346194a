"""What a cooperative will gain, told from its short probe runs and a bank of other recipes.

Probe runs give early changes of every loss; a regression learned from *other* recipes carries
them to the end of the full runs; Monte Carlo with the regression's own errors, through the exact
identity of the oracle gain, makes a distribution of gains; its 80 % interval is stretched until
it holds for the other recipes. Nothing of the recipe that is forecast is ever used. The other
recipes, the bank, were trained in full; far from what they tried, the forecaster refuses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from . import evaluation
from .bank import LEAST, Reach
from .forecast_runs import Run
from .losses import Estimate
from .specialists import BASE

LEVEL = 0.8
BYTES_PER_TOKEN = 3.0  # of small byte-level tokenizers, near enough for a number of passes
N_DRAWS = 1000
QUANTITIES = (
    "the probe's change of the own loss",
    "the number of steps",
    "passes over the text",
    "the base's loss",
    "the probe's change of foreign losses",
    "the share of frozen blocks",
    "width",
)
"""What describes a specialist to :class:`bank.Reach`: features, and what else a recipe sets."""


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
    """A recipe as a forecaster sees it: features, and the changes that came of the full runs.

    ``specialists`` (D, len(QUANTITIES)) say how far the recipe lies from others.
    """

    base: np.ndarray
    about: np.ndarray
    pair: np.ndarray
    changes: np.ndarray
    specialists: np.ndarray

    @staticmethod
    def of(run: Run) -> Known:
        """Features and outcome of a run."""
        about, pair = _features(run)
        n, tier = len(run.domains), run.tier
        foreign = pair[:, 0, 1]  # the same in a whole row
        knobs = np.tile([tier.frozen_layers / tier.n_layers, np.log(tier.hidden_size)], (n, 1))
        described = np.column_stack([about, foreign, knobs])
        return Known(run.base, about, pair, _changes(run), described)

    def only(self, kept: Sequence[int]) -> Known:
        """What is known of some of the domains."""
        pairs = np.ix_(kept, kept)
        return Known(
            self.base[kept],
            self.about[kept],
            self.pair[pairs],
            self.changes[pairs],
            self.specialists[kept],
        )


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
class Refusal:
    """No forecast: the cooperative lies further from the bank than its recipes from each other."""

    reason: str


@dataclass(frozen=True)
class Forecaster:
    """What other recipes teach: how changes grow, how wrong that is, what routing nets, how far."""

    planes: tuple[_Ridge, _Ridge]
    spread: Spread
    net: np.ndarray
    reach: Reach
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

    def predict(self, known: Known, kept: Sequence[int]) -> Estimate | Refusal:
        """Median and 80 % interval of the gain, %, or why there is none."""
        reason = self.reach.reason(known.specialists[np.asarray(kept)])
        return Refusal(reason) if reason else self.interval(known, kept)

    def interval(self, known: Known, kept: Sequence[int]) -> Estimate:
        """Median and 80 % interval of the gain, %, however far from the bank.

        Only to measure what :meth:`predict` is right to refuse.
        """
        tails = (0.5, (1 - LEVEL) / 2, (1 + LEVEL) / 2)
        middle, low, high = np.quantile(self.draws(known, kept), tails)
        reach = self.stretch * (middle - low), self.stretch * (high - middle)
        return Estimate(float(middle), float(middle - reach[0]), float(middle + reach[1]))


def learn(known: dict[int, Known], table: pd.DataFrame, stretch: bool = True) -> Forecaster:
    """Learn from recipes: ``known`` by recipe, and the rows of ``table`` that belong to them.

    Raises
    ------
    ValueError
        With fewer than four recipes: errors are learned by leaving one out, twice over (once,
        and from three, without ``stretch``).
    """
    least = LEAST if stretch else LEAST - 1
    if len(known) < least:
        raise ValueError(f"A forecast is learned from at least {least} recipes, not {len(known)}")
    errors = []
    for recipe, left in known.items():
        planes = _planes([k for r, k in known.items() if r != recipe])
        errors.append(left.changes - _carry(planes, left))
    rows = table[table["recipe"].isin(known)]
    made = Forecaster(
        _planes(list(known.values())),
        Spread.of(errors),
        (rows["gain"] - rows["oracle"]).to_numpy(),
        Reach.of([k.specialists for k in known.values()], QUANTITIES),
    )
    if not stretch:
        return made
    inner = leave_one_out(known, rows, stretch=False)
    above = inner["gain"] > inner["forecast"]
    reach = np.where(above, inner["high"] - inner["forecast"], inner["forecast"] - inner["low"])
    ratio = (inner["gain"] - inner["forecast"]).abs() / reach
    return replace(made, stretch=float(np.quantile(ratio, LEVEL)))


def judge(forecaster: Forecaster, known: dict[int, Known], rows: pd.DataFrame) -> pd.DataFrame:
    """Forecast cooperatives, the refused ones too, and see whether their gains lie inside.

    Returns
    -------
    ``rows`` with the columns forecast, low, high (%), inside (the gain lies between them) and
    refused (whether :meth:`Forecaster.predict` would have said why not, instead).
    """
    asked = [(known[row.recipe], row.kept) for row in rows.itertuples()]
    told = [forecaster.interval(*one) for one in asked]
    found = rows.assign(
        forecast=[one.value for one in told],
        low=[one.low for one in told],
        high=[one.high for one in told],
        refused=[isinstance(forecaster.predict(*one), Refusal) for one in asked],
    )
    return found.assign(inside=found["gain"].between(found["low"], found["high"]))


def leave_one_out(
    known: dict[int, Known], table: pd.DataFrame, stretch: bool = True, size: int | None = None
) -> pd.DataFrame:
    """Forecast every cooperative from recipes other than its own, as :func:`judge` returns it.

    Parameters
    ----------
    size
        Number of other recipes to learn from, drawn once for all; by default every one.
    """
    found = []
    for recipe in known:
        others = [other for other in known if other != recipe]
        if size is not None:
            random = np.random.default_rng([2026, recipe, size])
            others = random.choice(others, size, replace=False).tolist()
        forecaster = learn({other: known[other] for other in others}, table, stretch)
        found.append(judge(forecaster, known, table[table["recipe"] == recipe]))
    return pd.concat(found).loc[table.index]


def leave_out_families(
    known: dict[int, Known], table: pd.DataFrame, families: Mapping[str, Sequence[int]]
) -> pd.DataFrame:
    """Forecast the cooperatives of each family of recipes from the recipes outside of it.

    Parameters
    ----------
    families
        Recipes by name of the family, see :func:`bank.families`.

    Returns
    -------
    Rows of :func:`judge` with the column family; a recipe of two families is there twice.
    """
    found = []
    for name, members in families.items():
        forecaster = learn({r: k for r, k in known.items() if r not in members}, table)
        rows = table[table["recipe"].isin(members)]
        found.append(judge(forecaster, known, rows).assign(family=name))
    return pd.concat(found, ignore_index=True)


def leave_out_domains(known: dict[int, Known], table: pd.DataFrame) -> pd.DataFrame:
    """Forecast small cooperatives from other recipes *and* other domains.

    Only cooperatives that leave three domains or more to learn from; the interval is not
    stretched, since too little is left to learn by how much.

    Returns
    -------
    Their rows of ``table``, as :func:`judge` returns them.
    """
    found = []
    for index, row in table.iterrows():
        rest = [k for k in range(len(known[0].base)) if k not in row["kept"]]
        if len(rest) >= 3:
            others = {r: k.only(rest) for r, k in known.items() if r != row["recipe"]}
            forecaster = learn(others, table, stretch=False)
            found.append(judge(forecaster, known, table.loc[[index]]))
    return pd.concat(found)
