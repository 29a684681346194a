"""Fitting a linear router by expectation–maximisation: no seed, and no step back.

The experts stay as they are, so the likelihood of a mixture Σ_i g_i(h) p_i has one hidden
variable a token: whose token it is. EM alternates who explains it and who should be asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from .ledger import Ledger
from .routing import LinearRouter


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
    features, log_probs = ledger.features.double(), ledger.expert_log_probs
    router = LinearRouter(features.shape[1], log_probs.shape[1])
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
