"""The mixing oracle: it knows every document's domain, and mixes with constant weights a domain.

The domain oracle may only pick one expert a domain. Whoever beats it by mixing, or with the base as
one more expert, has to be compared with an oracle that may do the same.
"""

from __future__ import annotations

import torch

from . import corpora
from .evaluation import Fused
from .ledger import Ledger
from .routing import fuse_log_probs


def route(fitting: Ledger, judged: Ledger) -> Fused:
    """Mix held-out predictions by the best constant weights of each group.

    For a rival of routers that have the base as one more expert, give both ledgers the base among
    their experts.

    Parameters
    ----------
    fitting
        Router documents, which the weights of each group are fitted on.
    judged
        Held-out documents of the same groups.

    Raises
    ------
    ValueError
        If groups or experts differ.
    RoleError
        If the weights would be fitted on anything but router documents.
    """
    corpora.require_role(fitting.role, "router", "An oracle that mixes")
    if (fitting.groups, fitting.experts) != (judged.groups, judged.experts):
        raise ValueError(
            f"The weights are fitted on groups {fitting.groups} with experts {fitting.experts}, "
            f"and judged on {judged.groups} with {judged.experts}: give ledgers of the same"
        )
    scores, group = fitting.expert_log_probs, fitting.token_group
    weights = [best_weights(scores[group == index]) for index in range(len(fitting.groups))]
    gates = torch.stack(weights)[judged.token_group]
    return Fused(fuse_log_probs(gates, judged.expert_log_probs), gates)


def best_weights(log_probs: torch.Tensor, tolerance: float = 1e-6) -> torch.Tensor:
    """Weights w (N,) that make the mixture Σ_i w_i p_i of log-probabilities (n, N) most likely.

    Expectation–maximisation from equal weights: a concave problem, and no seed. No weights can be
    better by more than max_i mean_t p_i / Σ_j w_j p_j − 1, which ends the search below
    ``tolerance`` (nats/token), or, at the latest, after 10,000 rounds.
    """
    likelihood = (log_probs - log_probs.max(1, keepdim=True).values).double().exp()
    weights = likelihood.new_full((likelihood.shape[1],), 1 / likelihood.shape[1])
    for _ in range(10_000):
        slope = (likelihood / (likelihood @ weights)[:, None]).mean(0)
        if slope.max() - 1 < tolerance:
            break
        weights = weights * slope
    return weights
