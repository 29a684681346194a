"""Router collapse: the published pooled router from many seeds, what went wrong, and how often.

A router collapses when it gives a domain to another specialist. The release shows it once in
three seeds: all Yoruba text went to the Tamil specialist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from . import artifacts, corpora, evaluation, pooled_fit, routing
from .evaluation import Fused
from .ledger import Ledger
from .losses import Estimate
from .routing import PooledRouter
from .specialists import BASE, CODE, Cooperative

RELEASED_CHUNKS = (208_366, 13_703, 37_472, 1_485)
"""Chunks of tamil, yoruba, welsh and code in the released cross-lingual run (its logs)."""


@dataclass(frozen=True)
class Condition:
    """How the router's batches are drawn.

    Attributes
    ----------
    name
        Shown in tables and figures.
    chunks
        Relative frequency of each domain; ``None`` for the training chunks that there are
        ("natural proportions", as published).
    curriculum
        Steps at the start whose batches come from one domain at a time, in turn. They use domain
        labels, which the protocol says it does without.
    """

    name: str
    chunks: tuple[int, ...] | None = None
    curriculum: int = 0


CONDITIONS = (
    Condition("plain"),
    Condition("curriculum", curriculum=100),
    Condition("skewed, plain", RELEASED_CHUNKS),
    Condition("skewed, curriculum", RELEASED_CHUNKS, curriculum=100),
)


@dataclass(frozen=True)
class Fit:
    """One router fitted from one seed, and what it does on the held-out tokens.

    ``looks`` (S, D, N): mean gate of expert i on held-out text of domain d, at the steps of
    ``pooled_fit.LOOKS`` and at the end; ``fused``: log-probabilities and gates on the ledger's
    tokens.
    """

    condition: str
    seed: int
    router: PooledRouter
    looks: np.ndarray
    fused: Fused


def study(
    cooperative: Cooperative,
    found: Ledger,
    seeds: Sequence[int] = range(10),
    conditions: Sequence[Condition] = CONDITIONS,
) -> list[Fit]:
    """Fit the published router from every seed under every condition, or read it from the store.

    Parameters
    ----------
    found
        The cooperative's held-out ledger; every router is scored on its tokens.
    """
    corpora.require_role(found.role, "heldout", "A study of collapse")
    key = artifacts.fingerprint(
        cooperative.fingerprint(),
        cooperative.tier.recipe(),
        artifacts.code_digest(["pooled_fit", "routing", "shared_trunk", "architectures", *CODE]),
        [vars(condition) for condition in conditions],
        list(seeds),
        len(found),
    )
    path = artifacts.store() / "routers" / f"collapse-{key}.safetensors"
    saved = artifacts.load_tensors(path)
    if saved is None:
        names = [f"{condition.name}/{seed}" for condition in conditions for seed in seeds]
        settings = [(s, c.chunks, c.curriculum) for c in conditions for s in seeds]
        fitted, log_probs = pooled_fit.fit_all(cooperative, settings)
        tensors = {}
        for name, (router, looks), column in zip(names, fitted, log_probs, strict=True):
            part = {**router.state_dict(), "looks": looks, "log_probs": column}
            tensors |= {f"{name}/{key}": value for key, value in part.items()}
        saved = tensors, fitted[0][0].arguments()
        artifacts.save_tensors(path, *saved)
    fits, share = [], _window_shares(found)
    for condition in conditions:
        for seed in seeds:
            prefix = f"{condition.name}/{seed}/"
            part = {k[len(prefix) :]: v for k, v in saved[0].items() if k.startswith(prefix)}
            router = PooledRouter(**saved[1])
            looks, log_probs = part.pop("looks"), part.pop("log_probs")
            router.load_state_dict(part)
            means = (share @ looks.double()).numpy()
            fused = Fused(log_probs.double(), looks[-1, found.window].double())
            fits.append(Fit(condition.name, seed, router.eval(), means, fused))
    return fits


def _window_shares(found: Ledger) -> torch.Tensor:
    """Share (D, W) of each window in the tokens of each domain."""
    counts = torch.zeros(len(found.groups), int(found.window.max()) + 1, dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    counts.index_put_((found.token_group, found.window), one, accumulate=True)
    return counts / counts.sum(1, keepdim=True)


def mean_gates(found: Ledger, gates: torch.Tensor) -> np.ndarray:
    """Mean gate (D, N) of each expert on the tokens of each domain, from gates (n, N)."""
    group = found.token_group
    return np.stack([gates[group == d].double().mean(0).numpy() for d in range(len(found.groups))])


def _best(found: Ledger) -> np.ndarray:
    """Specialist (D,) with the lowest loss on each domain."""
    totals = torch.zeros(len(found.groups), len(found.experts), dtype=torch.float64)
    totals.index_add_(0, found.token_group, found.expert_log_probs)
    return totals.argmax(1).numpy()


def misrouted(gates: np.ndarray, found: Ledger) -> list[str]:
    """Domains whose largest mean gate (D, N) is not that of their best specialist.

    This is collapse as it was published: all of Yoruba went to the Tamil specialist.
    """
    pairs = zip(found.groups, gates.argmax(1), _best(found), strict=True)
    return [f"{domain} → {found.experts[given]}" for domain, given, best in pairs if given != best]


def captured(found: Ledger, log_probs: torch.Tensor) -> np.ndarray:
    """Share (D,) of the best specialist's advantage over the base that a fused model keeps.

    1 is the domain oracle, 0 the base; a collapsed domain is near 0 or below.
    """
    table = evaluation.losses(found, {"fused": log_probs})
    base, fused, best = (table.by_group(name) for name in (BASE, "fused", "domain_oracle"))
    return (base - fused) / (base - best)


def guaranteed(found: Ledger, alpha: float = routing.EvidenceRouter().alpha) -> np.ndarray:
    """Share (D,) of each domain's advantage that evidence routing keeps by its bound alone.

    The bound allows so many nats a document, whatever it says. Spread over the documents of a
    domain and divided by what the best specialist saves there over the base, that is the most that
    :func:`captured` may fall short of 1. It needs the losses, and no look at the fused model.
    """
    table = evaluation.losses(found)
    nats = [
        routing.fixed_share_bound(1, n, len(found.experts), alpha) for n in table.tokens.tolist()
    ]
    allowed = replace(table, sums={"bound": np.array(nats)}).by_group("bound")
    return 1 - allowed / (table.by_group(BASE) - table.by_group("domain_oracle"))


def summary(fits: Sequence[Fit], found: Ledger) -> pd.DataFrame:
    """One row a fit: what was misrouted, the worst capture, and the exact accounting of its gain.

    Returns
    -------
    Index condition and seed; columns collapsed (text, empty if none), captured (lowest over
    domains), gain, oracle_gain, regret, bonus (%, as in :func:`evaluation.account`).
    """
    rows = []
    for one in fits:
        terms = evaluation.account(found, one.condition, one.fused.log_probs, one.fused.gates)
        rows.append(
            {
                "condition": one.condition,
                "seed": one.seed,
                "collapsed": ", ".join(misrouted(one.looks[-1], found)),
                "captured": float(captured(found, one.fused.log_probs).min()),
                "gain": terms.gain_pct.value,
                "oracle_gain": terms.oracle_gain_pct.value,
                "regret": terms.routing_regret_pct.value,
                "bonus": terms.mixing_bonus_pct.value,
            }
        )
    return pd.DataFrame(rows).set_index(["condition", "seed"])


def frequency(table: pd.DataFrame) -> pd.DataFrame:
    """Count collapses in :func:`summary`.

    Returns
    -------
    One row a condition: seeds; misrouted and lost_half (fits in which a domain went to another
    specialist; in which a domain kept less than half of its specialist's advantage), each with
    its exact 95 % interval as a share (``_low``, ``_high``); gain_min, gain_median, gain_max (%).
    """
    rows = {}
    for condition, part in table.groupby(level="condition", sort=False):
        row: dict[str, float] = {"seeds": len(part)}
        for name, bad in (("misrouted", part.collapsed != ""), ("lost_half", part.captured < 0.5)):
            share = rate(int(bad.sum()), len(part))
            row |= {name: int(bad.sum()), f"{name}_low": share.low, f"{name}_high": share.high}
        gains = part.gain.agg(["min", "median", "max"])
        rows[condition] = row | {f"gain_{name}": value for name, value in gains.items()}
    frame = pd.DataFrame(rows).T
    counts = ["seeds", "misrouted", "lost_half"]
    return frame.astype(dict.fromkeys(counts, int))


def mended(table: pd.DataFrame) -> tuple[int, int]:
    """Fits that misroute a domain without the curriculum, and how many of them do not with it.

    The two fits of a pair share their seed: the same first weights.
    """
    wrong = table.collapsed.unstack("condition") != ""
    pairs = [("plain", "curriculum"), ("skewed, plain", "skewed, curriculum")]
    broken = sum(int(wrong[before].sum()) for before, _ in pairs)
    return broken, sum(int((wrong[before] & ~wrong[after]).sum()) for before, after in pairs)


def mends(table: pd.DataFrame, before: str, after: str) -> Estimate:
    """Share of seeds that a condition mends minus the share that it breaks, exact 95 % interval.

    A seed is mended where its fit misroutes a domain under ``before`` and not under ``after``:
    the two share their first weights. Given how many seeds changed at all, the number of mended
    ones is binomial (McNemar's exact test); where none did, a share of changes as high as an
    exact interval allows could have gone either way.
    """
    wrong = (table.collapsed != "").unstack("condition")
    mended = int((wrong[before] & ~wrong[after]).sum())
    broken = int((~wrong[before] & wrong[after]).sum())
    changed, n = mended + broken, len(wrong)
    if not changed:
        reach = rate(0, n).high
        return Estimate(0.0, -reach, reach, "router seeds", n)
    share = rate(mended, changed)
    low, high = (changed / n * (2 * end - 1) for end in (share.low, share.high))
    return Estimate((mended - broken) / n, low, high, "router seeds", n)


def course(fits: Sequence[Fit], found: Ledger, steps: int) -> pd.DataFrame:
    """Share of seeds with a misrouted domain while the routers train: steps × conditions."""
    at = [*(look for look in pooled_fit.LOOKS if look < steps), steps]
    share, best = {}, _best(found)
    for condition in dict.fromkeys(one.condition for one in fits):
        runs = [one.looks for one in fits if one.condition == condition]
        wrong = (np.stack(runs).argmax(-1) != best).any(-1)
        share[condition] = wrong.mean(0)
    return pd.DataFrame(share, index=pd.Index(at, name="step"))


def skewed(fitting: Ledger, chunks: Sequence[int] = RELEASED_CHUNKS) -> tuple[torch.Tensor, Ledger]:
    """A ledger for fitting in given proportions of the domains: by weights, and by leaving out.

    Returns
    -------
    Weights (n,) that give each domain its share while all of its text stays; and the ledger of
    leading tokens of each domain, as many as the scarcest domain allows.
    """
    corpora.require_role(fitting.role, "router", "Text for fitting in given proportions")
    groups = fitting.token_group
    counts = torch.bincount(groups, minlength=len(fitting.groups)).double()
    wanted = torch.tensor(chunks[: len(counts)]).double()
    kept = (wanted * (counts / wanted).min()).round().long().clamp_min(1)
    rows = torch.cat([(groups == d).nonzero()[:k, 0] for d, k in enumerate(kept)])
    parts = ("log_probs", "features", "document", "window")
    scarce = replace(fitting, **{name: getattr(fitting, name)[rows] for name in parts})
    return (wanted / wanted.sum() / counts)[groups], scarce


def rate(count: int, n: int, level: float = 0.95) -> Estimate:
    """Share of ``count`` in ``n`` router seeds with its exact (Clopper–Pearson) interval.

    Raises
    ------
    ValueError
        If there are no seeds, or more are counted than there are.
    """
    from scipy.stats import beta

    if not 0 <= count <= n or n == 0:
        raise ValueError(f"{count} of {n} is not a share: give 0 ≤ count ≤ n and n ≥ 1")
    tail = (1 - level) / 2
    low = beta.ppf(tail, count, n - count + 1) if count else 0.0
    high = beta.ppf(1 - tail, count + 1, n - count) if count < n else 1.0
    return Estimate(count / n, float(low), float(high), "router seeds", n)
