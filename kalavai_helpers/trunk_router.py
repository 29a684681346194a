"""The trunk router: gates known before any expert has run, so that experts can be skipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from . import architectures
from .filtering import fixed_share
from .ledger import Ledger, compact
from .packing import IGNORE, Windows
from .routing import Router

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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


@torch.no_grad()
def states(
    base: PreTrainedModel, frozen_layers: int, windows: Windows, *, batch_size: int = 16
) -> torch.Tensor:
    """What the trunk router reads where each token of a ledger is predicted, (n, F) float32.

    One pass of embedding and first k blocks; compact, in the order of the ledger.
    """
    family = architectures.of(base.config)
    trunk, _ = family.split(base, frozen_layers)
    types = architectures.layer_types(base.config)[:frozen_layers]
    rotary, found = family.rotary(base), []
    for start in range(0, len(windows.input_ids), batch_size):
        rows = slice(start, start + batch_size)
        hidden = trunk["embed"](torch.from_numpy(windows.input_ids[rows]).to(base.device))
        positions = torch.arange(hidden.shape[1], device=base.device)[None]
        masks = architectures.masks(base.config, types, hidden, None, None, None)
        angles = rotary(hidden, position_ids=positions)
        hidden = family.run(trunk["layers"], hidden, types, masks, positions, angles)
        real = torch.from_numpy(windows.targets[rows] != IGNORE)
        found.append(compact(hidden[real.to(base.device)].float()).cpu())
    return torch.cat(found)


def gates(router: TrunkRouter, ledger: Ledger) -> torch.Tensor:
    """Gates (n, N) on a ledger whose features are :func:`states`; a document is one sequence."""
    positions = ledger.positions()
    return router(ledger.features[positions.clamp_min(0)])[positions >= 0]


def fit(ledger: Ledger, width: int, alpha: float = 0.003, penalty: float = 1e-3) -> TrunkRouter:
    """Fit a trunk router on documents that the specialists did not train on.

    First a multinomial logistic regression of each document's best expert on the states of its
    tokens, then one factor β by which tokens count, for they are not independent: the one that
    makes the mixture most likely through the filter. L-BFGS throughout; deterministic.

    Parameters
    ----------
    ledger
        Its features are :func:`states` (``dataclasses.replace(ledger, features=...)``).
    width
        d: width of the trunk's states, of which the features are a projection.
    """
    log_probs = ledger.expert_log_probs
    n_experts = log_probs.shape[1]
    totals = log_probs.new_zeros(ledger.n_documents, n_experts)
    best = totals.index_add(0, ledger.document, log_probs).argmax(1)[ledger.document]
    mean = ledger.features.mean(0)
    scale = ledger.features.std(0).clamp_min(1e-3)
    features = (ledger.features - mean) / scale
    weight = torch.zeros(n_experts, features.shape[1], requires_grad=True)
    bias = torch.zeros(n_experts, requires_grad=True)

    def label_loss() -> torch.Tensor:
        loss = functional.cross_entropy(functional.linear(features, weight, bias), best)
        return loss + penalty * weight.square().sum()

    _minimise([weight, bias], label_loss)
    evidence = functional.linear(features, weight, bias).detach()
    positions = ledger.positions()
    padded, real = evidence[positions.clamp_min(0)], positions >= 0
    log_beta = torch.full((), -2.0, requires_grad=True)

    def mixture_loss() -> torch.Tensor:
        weights = fixed_share(log_beta.exp() * padded, alpha)[real]
        return -(weights + log_probs).logsumexp(1).mean()

    _minimise([log_beta], mixture_loss, steps=20)
    router = TrunkRouter(width, n_experts, alpha)
    # Standardising, projecting and β are linear: one matrix on the trunk's states does it all.
    with torch.no_grad():
        projected = log_beta.exp() * weight / scale
        router.weight.copy_(projected @ compact(torch.eye(width)).T)
        router.bias.copy_(log_beta.exp() * bias - projected @ mean)
    return router.requires_grad_(False)


def _minimise(
    parameters: list[torch.Tensor], objective: Callable[[], torch.Tensor], steps: int = 60
) -> None:
    optimizer = torch.optim.LBFGS(parameters, max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        return loss

    optimizer.step(closure)
