"""Who takes part: joining and leaving a cooperative, and what each contributor is worth to it.

All of it is read off the token ledger. No model of a member runs again, and nothing is trained:
a new member brings the log-probabilities that its specialist gives to the tokens of the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from math import factorial
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import evaluation
from .learned_routers import TemperedRouter
from .losses import Estimate, Losses
from .routing import EvidenceRouter, Router
from .specialists import BASE

if TYPE_CHECKING:
    from .ledger import Ledger

EXACT_UP_TO = 12
"""Most experts for which all coalitions are evaluated; 4,096 of them."""
SAME = 0.01
"""Mean distance of log-probabilities, nats/token, below which two models are one."""

Coalition = frozenset[str]


def leave(ledger: Ledger, name: str) -> Ledger:
    """The ledger of a cooperative without one of its experts.

    A router that is not fitted then gives what it would if the expert had never joined.

    Raises
    ------
    ValueError
        If there is no such expert, or no other.
    """
    if name not in ledger.experts or len(ledger.experts) == 1:
        raise ValueError(f"{name!r} cannot leave: the experts are {', '.join(ledger.experts)}")
    return replace(ledger, experts=tuple(e for e in ledger.experts if e != name))


def without(router: Router, expert: int) -> Router:
    """The router of a cooperative that one of its experts has left.

    The others' gates are divided by their sum, by taking the expert's row out of the weights. A
    filter is then as if the expert had never joined; a fitted part is what it was fitted to be
    when the expert was there, and fitting again takes seconds.

    Parameters
    ----------
    expert
        Its index among the experts.

    Raises
    ------
    ValueError
        If there is no such expert, or no other; for a router that has to be fitted again.
    """
    if isinstance(router, TemperedRouter):
        return TemperedRouter(without(router.inner, expert), router.temperature, router.top_k)
    arguments = router.arguments()
    if "n_experts" not in arguments:
        return router
    n_experts = arguments["n_experts"]
    if not 0 <= expert < n_experts or n_experts == 1:
        raise ValueError(f"Expert {expert} cannot leave: there are {n_experts}, counted from 0")
    if not router.per_expert:
        raise ValueError(f"The {router.name} router depends on all its experts: fit it again")
    state = router.state_dict()
    for name in router.per_expert:
        state[name] = torch.cat([state[name][:expert], state[name][expert + 1 :]])
    left = type(router)(**{**arguments, "n_experts": n_experts - 1})
    left.load_state_dict(state)
    return left.requires_grad_(False)


@dataclass(frozen=True)
class Certificate:
    """What a new member changes.

    Attributes
    ----------
    change
        By domain, and under ``"all"`` for their equal-weight mean: fused loss with the new member
        minus that without, nats/token, with its interval over sources and documents. Negative is better.
    """

    name: str
    change: dict[str, Estimate]

    def harmless(self, tolerance: float) -> bool:
        """Whether no domain loses more than ``tolerance`` nats/token, by its interval."""
        return all(estimate.high <= tolerance for estimate in self.change.values())


def join(
    ledger: Ledger, name: str, log_probs: torch.Tensor, router: Router | None = None
) -> tuple[Ledger, Certificate]:
    """Let a specialist join, with a certificate of what that does to each old domain.

    Parameters
    ----------
    log_probs
        (n,) log-probabilities that the new specialist gives to the ledger's tokens.
    router
        A router for any number of experts; evidence by default. One that was fitted is refused:
        it has to be fitted again on the ledger that is returned.

    Raises
    ------
    ValueError
        If the name is taken, or the scores are not of these tokens or not finite.
    """
    if name in ledger.models:
        raise ValueError(f"{name!r} is a model of the ledger already: choose another name")
    if log_probs.shape != (len(ledger),) or not log_probs.isfinite().all():
        raise ValueError(
            f"{name!r} needs one finite log-probability for each of the {len(ledger)} tokens, "
            f"not values of shape {tuple(log_probs.shape)}"
        )
    joined = ledger.with_column(name, log_probs.to(ledger.log_probs))
    joined = replace(joined, experts=(*ledger.experts, name))
    table = _fused(joined, [frozenset(ledger.experts), frozenset(joined.experts)], router)
    before, after = table.sums
    change = {
        group: table.interval(
            lambda w, g=g: table.by_group(after, w)[..., g] - table.by_group(before, w)[..., g]
        )
        for g, group in enumerate(table.groups)
    }
    change["all"] = table.interval(
        lambda w: table.equal_weight(after, w) - table.equal_weight(before, w)
    )
    return joined, Certificate(name, change)


@dataclass(frozen=True)
class Worth:
    """What one contributor is worth, in nats/token of equal-weight loss saved.

    Attributes
    ----------
    shapley
        Mean loss that it saves over all orders in which the members could have joined, from the
        base alone to all of them; the values of all members add up to the whole saving. Members
        that predict alike are paid alike, whoever came first.
    leave_one_out
        Loss that it saves when everybody else is there already.
    sampling_error
        Standard error of ``shapley`` from sampling orders; 0 where all coalitions were evaluated.
    same_as
        Models that predict as it does, the base among them: duplicates and free riders.
    """

    shapley: Estimate
    leave_one_out: Estimate
    sampling_error: float
    same_as: tuple[str, ...]

    @property
    def free_rider(self) -> bool:
        """Whether it hands in the base, or no order of joining shows that it adds anything."""
        return BASE in self.same_as or self.shapley.low <= 0


def worth(
    ledger: Ledger, router: Router | None = None, orders: int = 200, seed: int = 0
) -> dict[str, Worth]:
    """Value of every expert: Shapley, exact up to twelve experts, and leave-one-out.

    A coalition is worth the loss that its fused model saves over the base. The base is everybody's,
    so every coalition routes to it as well: without it, a lone specialist that has forgotten the
    other domains is worth less than nothing, and who hands in the base is paid for what all had
    (0.07 nats/token at ``ci``, more than a contributor's 0.05).

    Parameters
    ----------
    router
        A router for any number of experts; evidence by default.
    orders, seed
        Orders of joining that are sampled for more than twelve experts.
    """
    experts, everybody = ledger.experts, frozenset(ledger.experts)
    exact = len(experts) <= EXACT_UP_TO
    drawn = [] if exact else _orders(experts, orders, seed)
    needed = set(_coalitions(experts)) if exact else {c for o in drawn for c in _prefixes(o)}
    needed |= {everybody - {name} for name in experts}
    # In an order, so that equal calls give equal sums to the last bit.
    coalitions = sorted(needed, key=lambda c: (len(c), sorted(c)))
    table = _fused(ledger, coalitions, router, always=(BASE,))
    found = {}
    for name in experts:
        # Loss is a sum over documents, and so is every mean of differences of it.
        saved = [
            table.sums[_key(c)] - table.sums[_key(c | {name})]
            for c in (_without(experts, name) if exact else _before(drawn, name))
        ]
        weights = _weights(experts, name) if exact else np.full(len(saved), 1 / len(saved))
        sums = {"shapley": np.tensordot(weights, saved, 1)}
        sums["last"] = table.sums[_key(everybody - {name})] - table.sums[_key(everybody)]
        part = replace(table, sums=sums)
        spread = 0.0
        if not exact:
            each = [replace(table, sums={"one": one}).equal_weight("one") for one in saved]
            spread = float(np.std(each, ddof=1) / len(each) ** 0.5)
        found[name] = Worth(
            part.interval(lambda w, p=part: p.equal_weight("shapley", w)),
            part.interval(lambda w, p=part: p.equal_weight("last", w)),
            spread,
            tuple(_same(ledger, name)),
        )
    return found


def _fused(
    ledger: Ledger,
    coalitions: Iterable[Coalition],
    router: Router | None,
    always: tuple[str, ...] = (),
) -> Losses:
    """Document sums of the fused loss of each coalition, with experts that are always there."""
    router = router or EvidenceRouter()
    methods = {}
    for coalition in coalitions:
        members = (*always, *(e for e in ledger.experts if e in coalition))
        part = replace(ledger, experts=members)
        methods[_key(coalition)] = evaluation.route(part, {"r": router})["r"].log_probs
    table = evaluation.losses(ledger, methods)
    return replace(table, sums={key: table.sums[key] for key in methods})


def _key(coalition: Coalition) -> str:
    return "+".join(sorted(coalition)) or "nobody"


def _coalitions(experts: tuple[str, ...]) -> Iterator[Coalition]:
    for size in range(len(experts) + 1):
        yield from map(frozenset, combinations(experts, size))


def _without(experts: tuple[str, ...], name: str) -> list[Coalition]:
    return [c for c in _coalitions(experts) if name not in c]


def _weights(experts: tuple[str, ...], name: str) -> np.ndarray:
    """Share of the orders in which exactly this coalition is there before the expert."""
    n = len(experts)
    sizes = [len(c) for c in _without(experts, name)]
    return np.array([factorial(s) * factorial(n - s - 1) / factorial(n) for s in sizes])


def _orders(experts: tuple[str, ...], count: int, seed: int) -> list[tuple[str, ...]]:
    rng = np.random.default_rng(seed)
    return [tuple(rng.permutation(experts).tolist()) for _ in range(count)]


def _prefixes(order: tuple[str, ...]) -> list[Coalition]:
    return [frozenset(order[:size]) for size in range(len(order) + 1)]


def _before(orders: list[tuple[str, ...]], name: str) -> list[Coalition]:
    return [frozenset(order[: order.index(name)]) for order in orders]


def _same(ledger: Ledger, name: str) -> Iterator[str]:
    own = ledger.column(name)
    for other in (BASE, *ledger.experts):
        if other != name and float((own - ledger.column(other)).abs().mean()) < SAME:
            yield other
