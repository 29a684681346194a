"""Routers: who is trusted with the next token.

A router turns what has been seen into gates g (B, T, N). ``g[:, t]`` weighs the experts'
predictions of the token *after* position t. A causal router may read the features up to t and
the log-probabilities that the experts gave to tokens already seen; nothing later.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional

from . import corpora, router_checks
from .filtering import fixed_share
from .ledger import Ledger

_MAX_PADDED = 2**26
"""Most numbers of padded states held at once: a quarter of a GB in float32."""


class Router(torch.nn.Module):
    """Base class; subclasses say what they read and whether they are causal."""

    name = ""
    causal = True
    mixing = "probability"
    reads: str | None = None
    """``"base"``, ``"experts"`` or ``"trunk"``: whose last hidden states are the features."""
    listens = True
    """Whether it learns from the log-probabilities that the experts gave to tokens seen."""
    looks_back = True
    """Whether its gates depend on earlier tokens; else each token can be routed by itself."""
    per_expert: tuple[str, ...] = ()
    """Weights with a row an expert, that whoever leaves can take along."""

    def forward(
        self,
        features: torch.Tensor | None,
        log_probs: torch.Tensor,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Gates (B, T, N) that sum to one.

        Parameters
        ----------
        features
            (B, T, F) hidden states, or ``None`` for a router that reads none.
        log_probs
            (B, T, N); position t holds log p_i of the token after t, which is known only later.
        mask
            (B, T), true on real positions.
        """
        raise NotImplementedError

    def resume(
        self,
        features: torch.Tensor | None,
        arrived: torch.Tensor,
        memory: dict[str, torch.Tensor],
        mask: torch.Tensor | None = None,
        tokens: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Gates of further tokens of a text that is read in pieces, as generation does.

        Parameters
        ----------
        features
            (B, T, F) of the new tokens, or ``None``.
        arrived
            (B, T, N): log p_i of the new tokens themselves, as far as they were predicted; 0 else.
        memory
            What earlier calls returned, (B, tokens so far, ...) each; empty at the start.
        mask
            (B, T), true on real tokens.
        tokens
            (B, T): the new tokens.

        Returns
        -------
        Gates (B, T, N) of the tokens that follow, and what is to be remembered of the new tokens.
        Here: everything, and the router reads it all again; a filter remembers its state.
        """
        if not self.listens:
            return self(features, arrived, mask), {}
        new = {"arrived": arrived} | ({} if features is None else {"features": features})
        known = {k: torch.cat([memory[k], v], 1) if memory else v for k, v in new.items()}
        log_probs = functional.pad(known["arrived"][:, 1:], (0, 0, 0, 1))
        return self(known.get("features"), log_probs)[:, -arrived.shape[1] :], new

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments, for saving."""
        return {}


class UniformRouter(Router):
    """Every expert the same weight 1/N (the published ablation)."""

    name = "uniform"
    listens = False
    looks_back = False

    def forward(self, features, log_probs, mask=None):
        return torch.full_like(log_probs, 1 / log_probs.shape[-1])


class EvidenceRouter(Router):
    """Fixed-share Bayesian filtering over experts: no training, no pooled data.

    The weight of an expert is its posterior after the tokens seen so far,
    w ∝ w · p_i(x_t), then w ← (1 − α) w + α / N (Herbster and Warmuth 1998, fixed share).

    For α = 0 and every document, NLL(fused) ≤ min_i NLL_i + ln N. For α > 0 and every way to cut
    the document into m segments with an expert each,
    NLL(fused) ≤ Σ NLL(segments) + ln N − (m − 1) ln(α / N) − (T − m) ln(1 − α + α / N).
    """

    name = "evidence"

    def __init__(self, alpha: float = 0.003):
        super().__init__()
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha is the chance of a switch, in [0, 1), not {alpha}")
        self.alpha = alpha

    def log_weights(self, log_probs: torch.Tensor) -> torch.Tensor:
        """Log-weights (B, T, N) float64 before the token that ``log_probs`` (B, T, N) scores."""
        weight = fixed_share(log_probs, self.alpha)
        start = weight.new_full(weight[:, :1].shape, -math.log(weight.shape[-1]))
        return torch.cat([start, weight[:, :-1]], 1)

    def forward(self, features, log_probs, mask=None):
        return self.log_weights(log_probs).exp().to(log_probs)

    def resume(self, features, arrived, memory, mask=None, tokens=None):
        """Gates of further tokens, and the log-weights to go on from (see :class:`Router`)."""
        start = memory["weight"][:, -1] if memory else None
        weight = fixed_share(arrived, self.alpha, start)
        return weight.exp().to(arrived), {"weight": weight}

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments, for saving."""
        return {"alpha": self.alpha}


def fixed_share_bound(segments: int, n_tokens: int, n_experts: int, alpha: float) -> float:
    """Nats a fixed-share filter may lose against the best segmentation (see EvidenceRouter)."""
    switches = (segments - 1) * -math.log(alpha / n_experts) if segments > 1 else 0.0
    stays = -(n_tokens - segments) * math.log(1 - alpha + alpha / n_experts)
    return math.log(n_experts) + switches + stays


class LinearRouter(Router):
    """Gates from the base state of each token by itself, without memory.

    softmax(W h_t), h_t standardised; fitted by :func:`fit_linear`. The published routers pool a
    whole text; what of that is causal is :class:`learned_routers.PrefixMeanRouter`.
    """

    name = "linear"
    reads = "base"
    listens = False
    looks_back = False
    per_expert = ("weight",)

    def __init__(self, n_features: int, n_experts: int):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(n_experts, n_features))
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))

    def scores(self, features: torch.Tensor) -> torch.Tensor:
        """W h (..., N): log-gates up to a constant a token."""
        return functional.linear((features - self.mean) / self.scale, self.weight)

    def forward(self, features, log_probs, mask=None):
        return self.scores(features).softmax(-1)

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments, for saving."""
        return {"n_features": self.weight.shape[1], "n_experts": self.weight.shape[0]}


class PooledRouter(Router):
    """The published router: one gate vector a sequence, from the mean of all its states.

    h is the mean over experts and over *all* positions of the last hidden states, future ones
    included, so this router is not causal: it scores a text it has already read. It mixes logits
    (as the released code does) and is here for replication only.

    Parameters
    ----------
    width
        Hidden units of softmax(V relu(U h)), 256 at 410M; ``None`` for softmax(W h), at 1B and 6.9B.
    """

    name = "pooled"
    causal = False
    mixing = "logit"
    reads = "experts"
    listens = False

    def __init__(self, n_features: int, n_experts: int, width: int | None = None):
        super().__init__()
        if width is not None and width < 1:
            raise ValueError(f"width counts hidden units, at least 1, not {width}: None for none")
        self.hidden = None if width is None else torch.nn.Linear(n_features, width, bias=False)
        self.linear = torch.nn.Linear(width or n_features, n_experts, bias=False)

    def forward(self, features, log_probs, mask=None):
        if mask is None:
            mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        real = mask[..., None].to(features)
        pooled = (features * real).sum(1) / real.sum(1).clamp(min=1)
        return self.weigh(pooled)[:, None].expand_as(log_probs)

    def weigh(self, means: torch.Tensor) -> torch.Tensor:
        """Gates (B, N) of sequences with mean states (B, d)."""
        found = means if self.hidden is None else self.hidden(means).relu()
        return self.linear(found).softmax(-1)

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments, for saving."""
        width = None if self.hidden is None else self.hidden.out_features
        first = self.linear if self.hidden is None else self.hidden
        sizes = {"n_features": first.in_features, "n_experts": self.linear.out_features}
        return {**sizes, "width": width}


ROUTERS = {cls.name: cls for cls in (UniformRouter, EvidenceRouter, LinearRouter, PooledRouter)}


def make(name: str, **arguments: Any) -> Router:
    """Router by name.

    Raises
    ------
    ValueError
        For an unknown name; the valid ones are listed. For arguments that are missing or unknown.
    """
    if name not in ROUTERS:
        raise ValueError(f"Unknown router {name!r}: choose one of {', '.join(ROUTERS)}")
    router_checks.check_arguments(ROUTERS[name], arguments)
    return ROUTERS[name](**arguments)


def fuse_log_probs(gates: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
    """Probability mixing: log Σ_i g_i p_i over the last axis."""
    return torch.logsumexp(gates.clamp_min(1e-30).log() + log_probs, -1)


@torch.no_grad()
def ledger_gates(router: Router, ledger: Ledger) -> torch.Tensor:
    """Gates (n, N) of a causal router on a ledger; each document is one sequence.

    Raises
    ------
    ValueError
        For a router that does not fit the ledger (see :func:`router_checks.check_ledger`).
    """
    router_checks.check_ledger(router, ledger)
    features = None if router.reads is None else ledger.features
    log_probs = ledger.expert_log_probs
    if not router.looks_back:  # one token at a time, no need to pad documents
        return router(None if features is None else features[None], log_probs[None])[0].double()
    positions = ledger.positions()
    together = len(positions)
    if features is not None:
        together = max(1, _MAX_PADDED // (positions.shape[1] * features.shape[1]))
    found = []
    for rows in positions.split(together):
        real, at = rows >= 0, rows.clamp_min(0)
        states = None if features is None else features[at]
        found.append(router(states, log_probs[at], real)[real].double())
    return torch.cat(found)


def ledger_log_weights(alpha: float, ledger: Ledger) -> torch.Tensor:
    """Log-weights (n, N) float64 of the evidence router before each token of a ledger."""
    positions = ledger.positions()
    log_probs = ledger.expert_log_probs[positions.clamp_min(0)]
    return EvidenceRouter(alpha).log_weights(log_probs)[positions >= 0]


def fit_linear(ledger: Ledger, steps: int = 60, penalty: float = 1e-4) -> LinearRouter:
    """Fit a linear router by maximum likelihood of the probability mixture (L-BFGS).

    The ledger should hold documents that the specialists did not train on: on their own training
    text they look better than they are. Deterministic: starts from uniform gates.
    """
    corpora.require_role(ledger.role, "router", "A linear router")
    router = LinearRouter(ledger.features.shape[1], len(ledger.experts))
    router_checks.check_ledger(router, ledger)
    return climb(router, ledger.features, ledger.expert_log_probs.float(), steps, penalty)


def climb(
    router: LinearRouter,
    features: torch.Tensor,
    log_probs: torch.Tensor,
    steps: int = 60,
    penalty: float = 1e-4,
) -> LinearRouter:
    """Fit W and the scale of a linear router to features (n, F) and scores (n, N) of tokens."""
    router.mean.copy_(features.mean(0))
    router.scale.copy_(features.std(0).clamp_min(1e-3))
    optimizer = torch.optim.LBFGS(
        [router.weight], max_iter=steps, history_size=10, line_search_fn="strong_wolfe"
    )

    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        gates = router.scores(features).softmax(-1)
        loss = -fuse_log_probs(gates, log_probs).mean() + penalty * router.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    return router.requires_grad_(False)
