"""Further routers: prefix means, a hidden layer, expert states, evidence and state, sharper gates.

All are causal but where they wrap one that is not, and fitted by :mod:`kalavai_helpers.router_fit`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from . import expert_states, routing
from .filtering import fixed_share
from .ledger import Ledger, compact
from .routing import EvidenceRouter, LinearRouter, Router


class ExpertStateRouter(LinearRouter):
    """A linear router that reads the mean state of the experts, each token by itself.

    The states that the published router reads, which takes their mean over the text besides. All
    experts have to run before a gate is known.
    """

    name = "expert-states"
    reads = "experts"
    per_expert = ()  # who leaves takes part of the mean along

    def scores(self, features):
        """W h (..., N) from the experts' mean state, compact as in the ledger."""
        if features.shape[-1] != self.mean.shape[0]:
            features = compact(features.float()).to(features.dtype)
        return super().scores(features)


class PrefixMeanRouter(LinearRouter):
    """The causal form of the published router: gates from the mean of the states so far.

    softmax(W m_t), with m_t the mean of the base's states at the tokens 1..t of the document,
    standardised; fitted by :func:`kalavai_helpers.router_fit.fit_prefix_mean`. The published
    router takes the mean of the whole text, and of the experts' states; those of the base need no
    expert to run. At the first token the mean is that token's state. On a ledger the prefix goes
    back to the start of the document over all of its windows, though each state knows its own
    window only: a fused model that reads window after window and goes on from its memory gives
    the same gates.
    """

    name = "prefix-mean"
    looks_back = True

    def forward(self, features, log_probs, mask=None):
        return self.resume(features, log_probs, {}, mask)[0]

    def resume(self, features, arrived, memory, mask=None, tokens=None):
        """Gates of further tokens; sum and number of states so far (see :class:`Router`)."""
        # A sum over thousands of tokens in half precision would stop growing.
        states = features.to(torch.promote_types(features.dtype, torch.float32))
        real = torch.ones_like(states[..., 0], dtype=torch.bool) if mask is None else mask.bool()
        total = states.masked_fill(~real[..., None], 0).cumsum(1)
        count = real.to(states).cumsum(1)
        if memory:
            total = total + memory["total"][:, -1:]
            count = count + memory["count"][:, -1:]
        means = total / count.clamp_min(1)[..., None]
        return self.scores(means).softmax(-1), {"total": total, "count": count}


class MLPRouter(Router):
    """Gates from the base state of each token by itself, through one hidden layer.

    softmax(V relu(U h_t + u) + v), h_t standardised.
    """

    name = "mlp"
    reads = "base"
    listens = False
    looks_back = False
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
    """Evidence and state together: g ∝ w_t^a · softmax(W h_t)^b, or several filters w_t.

    w_t is the fixed-share posterior of the tokens so far (:class:`routing.EvidenceRouter`), h_t
    the base's state, standardised. The powers a, b ≥ 0 say how far each is believed: the tokens of
    a text are not independent, and what they show overlaps with what the state shows. a = 1, b = 0
    is the evidence router; a = 0, b = 1 the linear one. With several chances of a switch there are
    as many filters, each with its power: a slow one knows the document, a fast one the passage.

    Parameters
    ----------
    alphas
        Chance of a switch of each filter.
    powers
        The power of each filter, then b.
    """

    name = "log-linear"
    listens = True
    looks_back = True

    def __init__(
        self,
        n_features: int,
        n_experts: int,
        alphas: Sequence[float] = (0.003,),
        powers: Sequence[float] | None = None,
    ):
        super().__init__(n_features, n_experts)
        self.filters = [EvidenceRouter(alpha) for alpha in alphas]
        powers = [1.0] * (len(self.filters) + 1) if powers is None else list(powers)
        if not self.filters or len(powers) != len(self.filters) + 1:
            raise ValueError(
                f"There are {len(self.filters)} alphas and {len(powers)} powers: give at least "
                "one alpha, a power for each, and one for the state"
            )
        if not all(0 <= power < math.inf for power in powers):
            raise ValueError(f"powers are finite numbers from 0 up, not {powers}")
        # As logarithms: whatever an optimiser does, the powers stay positive.
        self.log_powers = torch.nn.Parameter(torch.tensor(powers).log())

    @property
    def powers(self) -> list[float]:
        """The power of each filter, then that of the state."""
        return self.log_powers.detach().exp().tolist()

    def combine(self, log_weights: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Gates (..., N) from the filters' log-weights (..., K, N) and W h (..., N)."""
        powers = self.log_powers.exp().to(log_weights)
        return (powers[:-1] @ log_weights + powers[-1] * scores.to(log_weights)).softmax(-1)

    def forward(self, features, log_probs, mask=None):
        log_weights = torch.stack([f.log_weights(log_probs) for f in self.filters], -2)
        return self.combine(log_weights, self.scores(features)).to(log_probs)

    def resume(self, features, arrived, memory, mask=None, tokens=None):
        """Gates of further tokens, and the filters' log-weights (see :class:`routing.Router`)."""
        found = []
        for k, one in enumerate(self.filters):
            start = memory["weight"][:, -1, k] if memory else None
            found.append(fixed_share(arrived, one.alpha, start))
        log_weights = torch.stack(found, -2)
        gates = self.combine(log_weights, self.scores(features))
        return gates.to(arrived), {"weight": log_weights}

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments, for saving; the powers are weights."""
        return {**super().arguments(), "alphas": [one.alpha for one in self.filters]}


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
        self.looks_back = self.inner.looks_back

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


ROUTERS = (ExpertStateRouter, PrefixMeanRouter, MLPRouter, LogLinearRouter, TemperedRouter)
"""What a saved fused model may name beside the routers of :mod:`kalavai_helpers.routing`."""
