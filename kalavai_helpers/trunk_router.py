"""The trunk router: gates known before any expert has run, so that experts can be skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from .filtering import fixed_share
from .routing import Router

if TYPE_CHECKING:
    pass


class TrunkRouter(Router):
    """Fixed-share filter over experts whose evidence is linear in the trunk's output state.

    w ← softmax(log w + W h_t + b), then w ← (1 − α) w + α / N; the gate at t is w. Causal, and
    known from the shared blocks alone: under the ε-contract (:mod:`kalavai_helpers.sparse`) an
    expert with a small gate need not run. Fitted by :func:`fit`.
    """

    name = "trunk"
    reads = "trunk"
    listens = False

    def __init__(self, n_features: int, n_experts: int, alpha: float = 0.003):
        super().__init__()
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha is the chance of a switch, in [0, 1), not {alpha}")
        self.alpha = alpha
        self.weight = torch.nn.Parameter(torch.zeros(n_experts, n_features))
        self.bias = torch.nn.Parameter(torch.zeros(n_experts))

    def forward(self, features, log_probs=None, mask=None):
        return self.resume(features, log_probs, {}, mask)[0]

    def resume(self, features, arrived, memory, mask=None):
        """Gates of further tokens, and the filter's log-weights (see :class:`Router`)."""
        evidence = functional.linear(features.float(), self.weight.float(), self.bias.float())
        if mask is not None:
            evidence = evidence * mask[..., None]
        start = memory["weight"][:, -1] if memory else None
        weight = fixed_share(evidence, self.alpha, start)
        return weight.exp().float(), {"weight": weight}

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments, for saving."""
        n_experts, n_features = self.weight.shape
        return {"n_features": n_features, "n_experts": n_experts, "alpha": self.alpha}
