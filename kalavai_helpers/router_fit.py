"""Fitting routers on the ledger, by maximum likelihood of the probability mixture Σ_i g_i p_i.

The ledger should hold documents that the specialists did not train on: on their own training text
they look better than they are. No model runs. A linear router is fitted by
expectation–maximisation, which has no seed and takes no step back: the experts stay as they are,
so that the likelihood has one hidden variable a token, whose token it is, and EM alternates who
explains it and who should be asked. The others climb directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from . import corpora, router_checks, routing
from .learned_routers import LogLinearRouter, MLPRouter, PrefixMeanRouter, linear_for
from .ledger import Ledger
from .routing import EvidenceRouter, LinearRouter, Router

ALPHAS = (1e-6, 0.5)
"""Between which the chance of a switch is sought; 0 is tried too."""


@dataclass(frozen=True)
class EMFit:
    """A router fitted by EM and the objective on the way.

    ``objective`` (K + 1,): mean log-likelihood minus penalty, nats/token, before the first and
    after every iteration; the first is that of the uniform mixture.
    """

    router: LinearRouter
    objective: np.ndarray


def fit_em(
    ledger: Ledger,
    iterations: int = 30,
    penalty: float = 1e-4,
    tolerance: float = 1e-5,
    weights: torch.Tensor | None = None,
) -> EMFit:
    """Fit a linear router by EM, on documents that the specialists did not train on.

    E-step: responsibilities r_i ∝ g_i p_i of the experts for each token, read off the ledger.
    M-step: multinomial logistic regression of r on the base's states with an L2 penalty, a convex
    problem, by L-BFGS. Every iteration raises the penalised likelihood (Dempster et al. 1977), and
    the start is uniform gates: the result has no seed, and on the documents that it is fitted to
    it is never worse than the uniform mixture, which costs at most ln N nats a token more than the
    best expert. Same model and objective as :func:`routing.fit_linear`, which climbs directly.

    Parameters
    ----------
    tolerance
        Stop when an iteration gains less, in nats/token.
    weights
        (n,) how much each token counts, of any scale; all alike by default.
    """
    corpora.require_role(ledger.role, "router", "A linear router fitted by EM")
    features, log_probs = ledger.features.double(), ledger.expert_log_probs
    router = linear_for(ledger)
    counts = torch.ones(len(ledger), dtype=torch.float64) if weights is None else weights.double()
    counts = counts / counts.sum()
    router.mean.copy_(counts @ features)
    router.scale.copy_((counts @ (features - router.mean).square()).sqrt().clamp_min(1e-3))
    inputs = (features - router.mean) / router.scale
    weight = torch.zeros(router.weight.shape, dtype=torch.float64)

    def joint() -> torch.Tensor:
        return functional.linear(inputs, weight).log_softmax(-1) + log_probs

    def objective() -> float:
        return float(counts @ joint().logsumexp(-1) - penalty * weight.square().sum())

    found = [objective()]
    for _ in range(iterations):
        weight = _maximise(inputs, counts[:, None] * joint().softmax(-1), weight, penalty)
        found.append(objective())
        if found[-1] - found[-2] < tolerance:
            break
    with torch.no_grad():
        router.weight.copy_(weight)
    return EMFit(router.requires_grad_(False), np.array(found))


def _maximise(
    inputs: torch.Tensor, shares: torch.Tensor, weight: torch.Tensor, penalty: float
) -> torch.Tensor:
    """M-step: logistic regression on soft labels, ``shares`` (n, N) of a total of one."""
    weight = weight.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([weight], max_iter=5, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        log_gates = functional.linear(inputs, weight).log_softmax(-1)
        value = -(shares * log_gates).sum() + penalty * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weight.detach()


def fit_sgd(
    ledger: Ledger,
    seed: int = 0,
    *,
    steps: int = 1000,
    batch_size: int = 1024,
    learning_rate: float = 1e-2,
    decay: float = 0.01,
) -> LinearRouter:
    """Fit a linear router by stochastic gradient steps: AdamW on batches of tokens.

    How routers are commonly fitted (the published one on text, 2,000 sequences, with every expert
    running at every step; here on the ledger). Starts from uniform gates, so that the seed decides
    the batches only; the learning rate falls to 0 along a cosine.
    """
    router = linear_for(ledger)
    _standardise(router, ledger)
    return _descend(router, ledger, seed, steps, batch_size, learning_rate, decay)


def fit_mlp(
    ledger: Ledger,
    seed: int = 0,
    *,
    width: int = 64,
    steps: int = 1000,
    batch_size: int = 1024,
    learning_rate: float = 3e-3,
    decay: float = 0.01,
) -> MLPRouter:
    """Fit a router with one hidden layer by AdamW; the seed decides first weights and batches."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        router = MLPRouter(ledger.features.shape[1], len(ledger.experts), width)
    router_checks.check_ledger(router, ledger)
    _standardise(router, ledger)
    return _descend(router, ledger, seed, steps, batch_size, learning_rate, decay)


def fit_prefix_mean(ledger: Ledger) -> PrefixMeanRouter:
    """Fit the causal form of the published router, as :func:`routing.fit_linear` does its own."""
    corpora.require_role(ledger.role, "router", "A router that reads the prefix")
    router = PrefixMeanRouter(ledger.features.shape[1], len(ledger.experts))
    router_checks.check_ledger(router, ledger)
    return routing.climb(router, prefix_means(ledger), ledger.expert_log_probs.float())


def prefix_means(ledger: Ledger) -> torch.Tensor:
    """Mean (n, F) of a document's states up to each of its tokens, that token's included."""
    features, document = ledger.features.double(), ledger.document
    total = features.cumsum(0)
    lengths = torch.bincount(document, minlength=ledger.n_documents)
    first = (lengths.cumsum(0) - lengths)[document]
    before = total[first] - features[first]
    place = torch.arange(len(ledger)) - first + 1
    return ((total - before) / place[:, None]).to(ledger.features)


def fit_alpha(ledger: Ledger) -> EvidenceRouter:
    """Fit the chance α of a switch: the evidence router that makes the documents most likely.

    One number, deterministic: a grid of logarithms, then Brent's method around its best point.
    """
    from scipy.optimize import minimize_scalar

    corpora.require_role(ledger.role, "router", "The chance of a switch")
    log_probs = ledger.expert_log_probs

    def loss(log_alpha: float) -> float:
        log_weights = routing.ledger_log_weights(float(np.exp(log_alpha)), ledger)
        return -float((log_weights + log_probs).logsumexp(1).mean())

    grid = np.linspace(*np.log(ALPHAS), 7)
    losses = [loss(value) for value in grid]
    best = int(np.argmin(losses))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 0.1})
    by_loss = {found.fun: np.exp(found.x), losses[best]: np.exp(grid[best]), loss(-np.inf): 0.0}
    return EvidenceRouter(float(by_loss[min(by_loss)]))


def fit_log_linear(ledger: Ledger, alphas: Sequence[float] | None = None) -> LogLinearRouter:
    """Fit the powers of evidence and of a linear gate, deterministic.

    The linear gate is that of :func:`routing.fit_linear` and stays as it is; the powers make the
    mixture most likely (L-BFGS).

    Parameters
    ----------
    alphas
        Chance of a switch of each filter; by default one filter, that of :func:`fit_alpha`.
    """
    corpora.require_role(ledger.role, "router", "A log-linear router")
    alphas = (fit_alpha(ledger).alpha,) if alphas is None else alphas
    log_probs = ledger.expert_log_probs
    router = LogLinearRouter(ledger.features.shape[1], log_probs.shape[1], alphas)
    router_checks.check_ledger(router, ledger)
    router.load_state_dict(routing.fit_linear(ledger).state_dict(), strict=False)
    scores = router.scores(ledger.features).detach()
    log_weights = torch.stack([routing.ledger_log_weights(a, ledger) for a in alphas], 1)
    optimizer = torch.optim.LBFGS([router.log_powers], max_iter=40, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        gates = router.combine(log_weights, scores)
        loss = -routing.fuse_log_probs(gates, log_probs).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return router.requires_grad_(False)


def _standardise(router: Router, ledger: Ledger) -> None:
    router.mean.copy_(ledger.features.mean(0))
    router.scale.copy_(ledger.features.std(0).clamp_min(1e-3))


def _descend(
    router: Router,
    ledger: Ledger,
    seed: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    decay: float,
) -> Router:
    corpora.require_role(ledger.role, "router", "A router fitted by gradient steps")
    features, log_probs = ledger.features, ledger.expert_log_probs.float()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(router.parameters(), lr=learning_rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(len(ledger), (batch_size,), generator=generator)
        here = log_probs[rows]
        loss = -routing.fuse_log_probs(router(features[rows], here), here).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return router.requires_grad_(False)
