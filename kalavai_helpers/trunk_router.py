"""The trunk router: gates known before any expert has run, so that experts can be skipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from . import corpora
from .filtering import fixed_share
from .ledger import Ledger
from .packing import IGNORE, Windows
from .routing import Router
from .shared_trunk import SharedTrunk

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LONGEST = 512
"""Tokens of the pieces that β is fitted on."""


class TrunkRouter(Router):
    """Fixed-share filter whose evidence is the token and the state that the trunk makes of it.

    w ← softmax(log w + U[x_t] + W h_t + b), then w ← (1 − α) w + α / N; the gate at t is w.
    Causal, and known from the shared blocks alone: under the ε-contract
    (:mod:`kalavai_helpers.sparse`) an expert with a small gate need not run. Fitted by :func:`fit`.

    Parameters
    ----------
    n_features, n_tokens
        Width of the trunk's states, and size of the vocabulary.
    alpha
        Chance of a switch. Rare switches make certain gates, and experts that can be skipped;
        frequent ones notice a switch sooner. All other experts together keep at least about
        that weight, so that it must stay well below ε.
    """

    name = "trunk"
    reads = "trunk"
    listens = False

    def __init__(self, n_features: int, n_tokens: int, n_experts: int, alpha: float = 1e-5):
        super().__init__()
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha is the chance of a switch, in [0, 1), not {alpha}")
        self.alpha = alpha
        self.table = torch.nn.Parameter(torch.zeros(n_tokens, n_experts))
        self.weight = torch.nn.Parameter(torch.zeros(n_experts, n_features))
        self.bias = torch.nn.Parameter(torch.zeros(n_experts))

    def resume(self, features, arrived, memory, mask=None, tokens=None):
        """Gates of further tokens, and the filter's log-weights (see :class:`Router`)."""
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        weight, bias, table = (p.to(wide) for p in (self.weight, self.bias, self.table))
        evidence = functional.linear(features.to(wide), weight, bias)
        evidence = evidence + functional.embedding(tokens, table)
        if mask is not None:
            evidence = evidence * mask[..., None]
        start = memory["weight"][:, -1] if memory else None
        log_gates = fixed_share(evidence, self.alpha, start)
        return log_gates.exp().to(wide), {"weight": log_gates}

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments, for saving."""
        n_tokens, n_experts = self.table.shape
        return {
            "n_features": self.weight.shape[1],
            "n_tokens": n_tokens,
            "n_experts": n_experts,
            "alpha": self.alpha,
        }


@torch.no_grad()
def read(
    base: PreTrainedModel, frozen_layers: int, windows: Windows, *, batch_size: int = 16
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the trunk router reads where each token of a ledger is predicted.

    Returns
    -------
    States (n, d) float32 after the first k blocks, and tokens (n,), in the order of the ledger;
    one pass of the trunk.
    """
    trunk, states, tokens = SharedTrunk(base, frozen_layers), [], []
    for start in range(0, len(windows.input_ids), batch_size):
        rows = slice(start, start + batch_size)
        ids = torch.from_numpy(windows.input_ids[rows])
        real = torch.from_numpy(windows.targets[rows] != IGNORE)
        states.append(trunk.states(ids)[real.to(trunk.device)].float().cpu())
        tokens.append(ids[real])
    return torch.cat(states), torch.cat(tokens)


@torch.no_grad()
def gates(
    router: TrunkRouter, ledger: Ledger, states: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Gates (n, N) float64 on a ledger, from what :func:`read` found; a document is one sequence."""
    positions = ledger.positions()
    rows = positions.clamp_min(0)
    found, _ = router.resume(states[rows], None, {}, tokens=tokens[rows])
    return found[positions >= 0].double()


def fit(
    ledger: Ledger,
    states: torch.Tensor,
    tokens: torch.Tensor,
    n_tokens: int,
    alpha: float = 1e-5,
) -> TrunkRouter:
    """Fit a trunk router on documents that the specialists did not train on.

    Tokens and states are each regressed on the expert that is best for the document (multinomial
    logistic, unit Gaussian prior). Tokens of a text are not independent, so each of the two
    counts by a factor β: those that make the mixture most likely through the filter. All by
    L-BFGS, deterministic.

    Parameters
    ----------
    states, tokens
        What :func:`read` found on the ledger's windows.
    n_tokens
        Size of the vocabulary.
    """
    corpora.require_role(ledger.role, "router", "A trunk router")
    log_probs = ledger.expert_log_probs
    n, n_experts = log_probs.shape
    totals = log_probs.new_zeros(ledger.n_documents, n_experts)
    best = totals.index_add(0, ledger.document, log_probs).argmax(1)[ledger.document]
    counts = torch.zeros(n_tokens * n_experts).index_add(
        0, tokens * n_experts + best, torch.ones(n)
    )
    counts = counts.view(n_tokens, n_experts)
    table = torch.zeros(n_tokens, n_experts, requires_grad=True)

    def token_loss() -> torch.Tensor:
        return (-(counts * table.log_softmax(1)).sum() + table.square().sum() / 2) / n

    _minimise([table], token_loss)
    mean, scale = states.mean(0), states.std(0).clamp_min(1e-3)
    features = (states - mean) / scale
    weight = torch.zeros(n_experts, states.shape[1], requires_grad=True)
    bias = torch.zeros(n_experts, requires_grad=True)

    def state_loss() -> torch.Tensor:
        loss = functional.cross_entropy(functional.linear(features, weight, bias), best)
        return loss + weight.square().sum() / (2 * n)

    _minimise([weight, bias], state_loss)
    by_token = table.detach()[tokens]
    by_state = functional.linear(features, weight, bias).detach()
    pieces = _pieces(ledger)
    rows, real = pieces.clamp_min(0), pieces >= 0
    log_beta = torch.tensor([-1.0, -4.0], requires_grad=True)

    def mixture_loss() -> torch.Tensor:
        beta = log_beta.exp()
        weights = fixed_share((beta[0] * by_token + beta[1] * by_state)[rows], alpha)
        return -(weights[real] + log_probs[pieces[real]]).logsumexp(1).mean()

    _minimise([log_beta], mixture_loss, steps=15)
    router = TrunkRouter(states.shape[1], n_tokens, n_experts, alpha)
    with torch.no_grad():  # standardising and β are linear: they are made part of the weights
        beta = log_beta.exp()
        router.table.copy_(beta[0] * table)
        router.weight.copy_(beta[1] * weight / scale)
        router.bias.copy_(beta[1] * bias - router.weight @ mean)
    return router.requires_grad_(False)


def _pieces(ledger: Ledger) -> torch.Tensor:
    """Documents cut into pieces: rows of token indices, −1 behind the end."""
    positions = ledger.positions()
    width = -(-positions.shape[1] // LONGEST) * LONGEST
    padded = functional.pad(positions, (0, width - positions.shape[1]), value=-1)
    pieces = padded.view(-1, LONGEST)
    return pieces[pieces[:, 0] >= 0]


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
