"""Further routers: a hidden layer, expert states, evidence and state together, sharper gates.

All are causal but where they wrap one that is not, and fitted by :mod:`kalavai_helpers.router_fit`.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from . import expert_states, routing
from .filtering import fixed_share
from .ledger import Ledger, compact
from .routing import EvidenceRouter, LinearRouter, Router


class ExpertStateRouter(LinearRouter):
    """A linear router that reads the mean state of the experts, token by token.

    What the published router reads, made causal. All experts have to run before a gate is known.
    """

    name = "expert-states"
    reads = "experts"
    per_expert = ()  # who leaves takes part of the mean along

    def scores(self, features):
        """W h (..., N) from the experts' mean state, compact as in the ledger."""
        if features.shape[-1] != self.mean.shape[0]:
            features = compact(features.float()).to(features.dtype)
        return super().scores(features)


class MLPRouter(Router):
    """Gates from the base state of each token through one hidden layer.

    softmax(V relu(U h_t + u) + v), h_t standardised; the shape of the published router.
    """

    name = "mlp"
    reads = "base"
    listens = False
    per_expert = ("output.weight", "output.bias")

    def __init__(self, n_features: int, n_experts: int, width: int = 64):
        super().__init__()
        if width < 1:
            raise ValueError(f"width counts hidden units, at least 1, not {width}")
        self.hidden = torch.nn.Linear(n_features, width)
        self.output = torch.nn.Linear(width, n_experts)
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))

    def forward(self, features, log_probs, mask=None):
        hidden = self.hidden((features - self.mean) / self.scale).relu()
        return self.output(hidden).softmax(-1)

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments, for saving."""
        return {
            "n_features": self.hidden.in_features,
            "n_experts": self.output.out_features,
            "width": self.hidden.out_features,
        }


class LogLinearRouter(LinearRouter):
    """Evidence and state together: g ∝ w_t^a · softmax(W h_t)^b.

    w_t is the fixed-share posterior of the tokens so far (:class:`routing.EvidenceRouter`), h_t
    the base's state, standardised. The powers a, b ≥ 0 say how far each is believed: the tokens of
    a text are not independent, and what they show overlaps with what the state shows. a = 1, b = 0
    is the evidence router; a = 0, b = 1 the linear one.

    Parameters
    ----------
    alpha
        Chance of a switch in the filter.
    powers
        a and b.
    """

    name = "log-linear"
    listens = True

    def __init__(
        self,
        n_features: int,
        n_experts: int,
        alpha: float = 0.003,
        powers: tuple[float, float] = (1.0, 1.0),
    ):
        super().__init__(n_features, n_experts)
        if not all(0 <= power < math.inf for power in powers):
            raise ValueError(f"powers are two finite numbers from 0 up, not {powers}")
        self.evidence = EvidenceRouter(alpha)
        # As logarithms: whatever an optimiser does, the powers stay positive.
        self.log_powers = torch.nn.Parameter(torch.tensor(powers).log())

    @property
    def powers(self) -> tuple[float, float]:
        """The powers a and b."""
        a, b = self.log_powers.detach().exp().tolist()
        return a, b

    def combine(self, log_weights: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Gates (..., N) from the filter's log-weights (..., N) and the states (..., F)."""
        a, b = self.log_powers.exp()
        return (a * log_weights + b * self.scores(features)).softmax(-1)

    def forward(self, features, log_probs, mask=None):
        return self.combine(self.evidence.log_weights(log_probs), features).to(log_probs)

    def resume(self, features, arrived, memory, mask=None, tokens=None):
        """Gates of further tokens, and the filter's log-weights (see :class:`routing.Router`)."""
        start = memory["weight"][:, -1] if memory else None
        log_weights = fixed_share(arrived, self.evidence.alpha, start)
        return self.combine(log_weights, features).to(arrived), {"weight": log_weights}

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments, for saving; the powers are weights."""
        return {**super().arguments(), "alpha": self.evidence.alpha}


class TemperedRouter(Router):
    """Any router with sharper or flatter gates, and only the largest of them.

    g ∝ g^(1/τ), of which the k largest are kept and divided by their sum. Of equal gates the first
    experts are kept. Where the gates are known before the experts run (the trunk router), any
    ε > 0 (:mod:`kalavai_helpers.sparse`) leaves out the experts whose gates are cut to 0, at a
    bound of 0.

    Parameters
    ----------
    router
        A router, or its name; then ``arguments`` make it.
    temperature
        τ > 0; 1 changes nothing, less sharpens.
    top_k
        Gates that are kept, all by default.
    """

    name = "tempered"

    def __init__(
        self,
        router: Router | str,
        temperature: float = 1.0,
        top_k: int | None = None,
        **arguments: Any,
    ):
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature is a finite number above 0, not {temperature}")
        if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool)):
            raise ValueError(f"top_k counts experts, and {top_k!r} is no whole number")
        self.inner = routing.make(router, **arguments) if isinstance(router, str) else router
        if isinstance(self.inner, TemperedRouter):
            raise ValueError("The router is tempered already: temper the one within (.inner)")
        self.temperature, self.top_k = temperature, top_k
        self._check(self.inner.arguments().get("n_experts"))
        self.causal, self.mixing = self.inner.causal, self.inner.mixing
        self.reads, self.listens = self.inner.reads, self.inner.listens

    def _check(self, n_experts: int | None) -> None:
        if self.top_k is None:
            return
        most = math.inf if n_experts is None else n_experts
        if not 1 <= self.top_k <= most:
            bound = "at least 1" if n_experts is None else f"from 1 to {n_experts}, the experts"
            raise ValueError(f"top_k is {self.top_k}: keep {bound}")

    def shape(self, gates: torch.Tensor) -> torch.Tensor:
        """Gates (..., N) at the temperature, the k largest kept and renormalised."""
        self._check(gates.shape[-1])
        if self.temperature != 1:
            tiny = torch.finfo(gates.dtype).tiny
            gates = (gates.clamp_min(tiny).log() / self.temperature).softmax(-1)
        if self.top_k is None or self.top_k == gates.shape[-1]:
            return gates
        order = gates.argsort(dim=-1, descending=True, stable=True)
        kept = torch.zeros_like(gates).scatter(-1, order[..., : self.top_k], 1.0)
        return gates * kept / (gates * kept).sum(-1, keepdim=True)

    def forward(self, features, log_probs, mask=None):
        return self.shape(self.inner(features, log_probs, mask))

    def resume(self, features, arrived, memory, mask=None, tokens=None):
        """Gates of further tokens, and what the router within remembers."""
        gates, new = self.inner.resume(features, arrived, memory, mask, tokens)
        return self.shape(gates), new

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments, for saving."""
        own = {"temperature": self.temperature, "top_k": self.top_k}
        return {"router": self.inner.name, **own, **self.inner.arguments()}


def linear_for(ledger: Ledger) -> LinearRouter:
    """A linear router, not fitted yet, that reads the states that a ledger holds."""
    kind = ExpertStateRouter if expert_states.held(ledger) == "experts" else LinearRouter
    return kind(ledger.features.shape[1], len(ledger.experts))


ROUTERS = (ExpertStateRouter, MLPRouter, LogLinearRouter, TemperedRouter)
"""What a saved fused model may name beside the routers of :mod:`kalavai_helpers.routing`."""
