"""The published pooled routers, fitted on cached expert states.

A router only weighs experts, so the experts run once: their last hidden states on a pool of
training chunks are kept, and a fit of 500 steps costs a second instead of minutes. Everything
else is as published: gates from the mean state of the whole sequence (not causal), a linear router
or, across languages, one of two layers, without bias, logit mixing, AdamW at 1e-3, batches of 4.
:func:`kalavai_helpers.scoring.fit_pooled` is the published loop itself, to compare with.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from . import corpora, packing, progress, routing
from .packing import IGNORE
from .specialists import Cooperative

Pooled = TypeVar("Pooled", bound=routing.PooledRouter)

POOL = 250
"""Most training chunks a domain in the pool; a fit of 500 steps draws 2,000 chunks."""

Setting = tuple[int, Sequence[int] | None, int]
"""Seed, frequencies and curriculum steps of one fit (see :func:`fit`)."""

LOOKS = (0, 10, 25, 50, 100, 150, 200, 300, 400)
"""Steps at which the mean gates of a fit are kept, beside the last."""


class PooledMLP(routing.PooledRouter):
    """The published cross-lingual router: d → 256 → ReLU → N without bias, on the mean state."""

    name = "pooled-mlp"

    def __init__(self, n_features: int, n_experts: int, width: int = 256):
        super().__init__(n_features, n_experts)
        self.linear = torch.nn.Sequential(
            torch.nn.Linear(n_features, width, bias=False),
            torch.nn.ReLU(),
            torch.nn.Linear(width, n_experts, bias=False),
        )

    def arguments(self) -> dict[str, int]:
        """Constructor arguments, for saving."""
        first, _, last = self.linear
        sizes = first.in_features, last.out_features, first.out_features
        return dict(zip(("n_features", "n_experts", "width"), sizes, strict=True))


@dataclass(frozen=True)
class Pool:
    """Last hidden states of all N experts on training chunks of every domain.

    ``states`` (M, T, N, d); ``targets`` (M, T) the tokens to predict; ``domain`` (M,); ``chunks``
    (D,) training chunks of each domain in all; ``heads`` (V, N, d) the experts' output matrices;
    ``means`` (W, d) mean states of the held-out windows, over experts and positions.
    """

    states: torch.Tensor
    targets: torch.Tensor
    domain: torch.Tensor
    chunks: torch.Tensor
    heads: torch.Tensor
    means: torch.Tensor


def mixed_logits(states: torch.Tensor, gates: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
    """Logit mixture Σ_i g_i W_i h_i, (B, T, V): one product over experts and features.

    Shapes: ``states`` (B, T, N, d), ``gates`` (B, N), ``heads`` (V, N, d).
    """
    return (states * gates[:, None, :, None]).flatten(2) @ heads.flatten(1).T


def gate_gradient(
    states: torch.Tensor, targets: torch.Tensor, gates: torch.Tensor, heads: torch.Tensor
) -> torch.Tensor:
    """Gradient (B, N) of the mean cross-entropy of the logit mixture in the gates.

    dL/dg_i = mean over tokens of Σ_v p_v z_iv − z_iy. Half the time of automatic differentiation,
    which would hold two more arrays of logits.
    """
    predicted = mixed_logits(states, gates, heads).softmax(-1)
    expected = (predicted.flatten(0, 1) @ heads.flatten(1)).view_as(states)
    return ((expected - heads[targets]) * states).sum((1, 3)) / targets.numel()


def fit(
    pool: Pool,
    seed: int,
    steps: int = 500,
    *,
    chunks: Sequence[int] | None = None,
    curriculum: int = 0,
    kind: type[Pooled] = PooledMLP,
) -> tuple[Pooled, torch.Tensor]:
    """Fit one router on cached states; the seed decides its first weights and its batches.

    Parameters
    ----------
    steps
        Optimiser steps, the curriculum's among them; 500 as published.
    chunks
        Relative frequency of each domain in the batches; by default that of its training chunks
        ("natural proportions", as published).
    curriculum
        Steps at the start whose batches come from one domain at a time, in turn. They use domain
        labels, which the protocol says it does without.
    kind
        Class of the router: two layers, or the linear :class:`routing.PooledRouter`.

    Returns
    -------
    The router, and the gates (S, W, N) of the held-out windows at the steps of ``LOOKS`` and at
    the end.
    """
    n_experts, width = pool.states.shape[2:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        router = kind(width, n_experts)
    router.to(pool.states.device)
    optimizer = torch.optim.AdamW(router.parameters(), lr=1e-3, fused=True)
    rng = np.random.default_rng(seed)
    rows_of = [np.flatnonzero(pool.domain.cpu() == d) for d in range(len(pool.chunks))]
    frequency = np.array((chunks or pool.chunks.tolist())[: len(rows_of)], float)
    features = pool.states.mean((1, 2))
    looks = []
    for step in range(steps):
        if step in LOOKS:
            looks.append(router.weigh(pool.means).detach())
        domains = rng.choice(len(rows_of), size=4, p=frequency / frequency.sum())
        if step < curriculum:
            domains[:] = step % len(rows_of)
        rows = torch.tensor([rng.choice(rows_of[d]) for d in domains])
        gates = router.weigh(features[rows])
        optimizer.zero_grad()
        gates.backward(
            gate_gradient(pool.states[rows], pool.targets[rows], gates.detach(), pool.heads)
        )
        optimizer.step()
    looks.append(router.weigh(pool.means).detach())
    return router.cpu().requires_grad_(False), torch.stack(looks).cpu()


def fit_all(
    cooperative: Cooperative, settings: Sequence[Setting]
) -> tuple[list[tuple[PooledMLP, torch.Tensor]], torch.Tensor]:
    """Fit one router a setting, side by side, and score all on the held-out tokens.

    Returns
    -------
    Router and gates (S, W, N) on the way of each (see :func:`fit`), and log-probabilities
    (settings, n) of the held-out tokens in the order of the ledger.
    """
    from joblib import Parallel, delayed

    device, steps = cooperative.tier.device()[0], cooperative.tier.router_steps
    windows = packing.concatenate([cooperative.windows("heldout", d) for d in cooperative.domains])
    corpora.require_role(windows.role, "heldout", "Scoring pooled routers")
    experts = [cooperative.model(d).to(device) for d in cooperative.domains]
    pool = build(cooperative, experts, windows)
    if device.type == "cuda":
        runs = (_fit(pool, setting, steps) for setting in settings)
    else:
        arrays = {name: tensor.numpy() for name, tensor in vars(pool).items()}
        workers = min(len(settings), os.cpu_count() or 1)
        parallel = Parallel(workers, return_as="generator")
        runs = parallel(delayed(_fit_job)(arrays, setting, steps) for setting in settings)
    fitted = []
    for done in runs:
        fitted.append(done)
        progress.report("pooled routers", len(fitted), len(settings))
    gates = torch.stack([looks[-1] for _, looks in fitted])
    return fitted, score(experts, windows, gates.to(device), pool.heads)


def _fit(pool: Pool, setting: Setting, steps: int) -> tuple[PooledMLP, torch.Tensor]:
    seed, chunks, curriculum = setting
    return fit(pool, seed, steps, chunks=chunks, curriculum=curriculum)


def _fit_job(
    arrays: dict[str, np.ndarray], setting: Setting, steps: int
) -> tuple[PooledMLP, torch.Tensor]:
    torch.set_num_threads(1)
    # Copied: joblib maps large arrays read-only.
    pool = Pool(**{name: torch.tensor(array) for name, array in arrays.items()})
    return _fit(pool, setting, steps)


@torch.no_grad()
def build(cooperative: Cooperative, experts: list, windows: packing.Windows | None = None) -> Pool:
    """Run the experts over the pool and the held-out windows, where those are given.

    At most ``POOL`` training chunks a domain, drawn at random; natural proportions are kept in
    ``Pool.chunks`` and applied when a batch is drawn.
    """
    device = cooperative.tier.device()[0]
    chosen, domain, counts = [], [], []
    for index, name in enumerate(cooperative.domains):
        documents = cooperative.documents(name, "train")
        corpora.require_role(corpora.role_of(documents), "train", "The published router")
        chunks = packing.pack(documents, cooperative.tokenizer, cooperative.tier.seq_len).input_ids
        rows = np.random.default_rng(0).permutation(len(chunks))[:POOL]
        chosen.append(chunks[rows])
        domain += [index] * len(rows)
        counts.append(len(chunks))
    ids = torch.from_numpy(np.concatenate(chosen).astype(np.int64)).to(device)
    states = [_states(experts, part) for part in ids[:, :-1].split(16)]
    means = []
    n_windows = 0 if windows is None else len(windows.input_ids)
    for rows in torch.arange(n_windows).split(16) if n_windows else ():
        real = torch.from_numpy(windows.targets[rows] != IGNORE)[..., None].to(device)
        seen = _states(experts, torch.from_numpy(windows.input_ids[rows]).to(device)).mean(2)
        means.append((seen * real).sum(1) / real.sum(1))
    return Pool(
        torch.cat(states),
        ids[:, 1:].contiguous(),
        torch.tensor(domain),
        torch.tensor(counts),
        torch.stack([model.get_output_embeddings().weight for model in experts], 1),
        torch.cat(means) if means else states[0].new_zeros(0, states[0].shape[-1]),
    )


def _states(experts: list, ids: torch.Tensor) -> torch.Tensor:
    """Last hidden states (B, T, N, d), after the final norm as published."""
    return torch.stack([model.base_model(ids).last_hidden_state.float() for model in experts], 2)


@torch.no_grad()
def score(
    experts: list, windows: packing.Windows, gates: torch.Tensor, heads: torch.Tensor
) -> torch.Tensor:
    """Log-probabilities (R, n) of R routers with gates (R, W, N) on all tokens of the windows."""
    found = []
    for rows in torch.arange(len(windows.input_ids)).split(8):
        targets = torch.from_numpy(windows.targets[rows]).to(heads.device)
        states = _states(experts, torch.from_numpy(windows.input_ids[rows]).to(heads.device))
        wanted = targets.clamp_min(0)[..., None]
        part = []
        for weights in gates[:, rows]:
            logits = mixed_logits(states, weights, heads)
            part.append(logits.gather(-1, wanted)[..., 0] - logits.logsumexp(-1))
        found.append(torch.stack(part)[:, targets != IGNORE].cpu())
        progress.report("pooled routers, held-out", int(rows[-1]) + 1, len(windows.input_ids))
    return torch.cat(found, 1)
