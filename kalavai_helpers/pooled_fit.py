"""The published pooled routers, fitted on cached expert states.

A router only weighs experts, so the experts run once: their last hidden states on a pool of
training chunks are kept, and a fit of 500 steps costs a second instead of minutes. Everything
else is as published: gates from the mean state of the whole sequence (not causal), a router of two
layers (410M, and across languages) or a linear one (the larger models), without bias, logit
mixing, AdamW at 1e-3, batches of 4.
:func:`kalavai_helpers.scoring.fit_pooled` is the published loop itself, to compare with.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from . import artifacts, corpora, packing, progress
from .packing import IGNORE
from .routing import PooledRouter
from .shared_trunk import Reader
from .specialists import BASE, CODE, Cooperative
from .tiers import Tier

WIDTH = 256
"""Hidden units of the published two-layer router."""
LINEAR = ("EleutherAI/pythia-1b", "EleutherAI/pythia-6.9b")
"""Bases whose results were published with a linear router."""
POOL = 250
"""Most training chunks a domain in the pool; a fit of 500 steps draws 2,000 chunks."""

Setting = tuple[int, Sequence[int] | None, int]
"""Seed, frequencies and curriculum steps of one fit (see :func:`fit`)."""

LOOKS = (0, 10, 25, 50, 100, 150, 200, 300, 400)
"""Steps at which the mean gates of a fit are kept, beside the last."""


def published_width(tier: Tier) -> int | None:
    """Hidden units of the router that was published for a tier's base, ``None`` for a linear one.

    The small bases trained here stand in for the one of 410M parameters.
    """
    return None if tier.hub_id in LINEAR else WIDTH


@dataclass(frozen=True)
class Pool:
    """Last hidden states of all N experts on training chunks of every domain.

    ``states`` (M, T, N, d); ``targets`` (M, T) the tokens to predict; ``domain`` (M,); ``chunks``
    (D,) training chunks of each domain in all; ``heads`` (V, N, d) the experts' output matrices,
    or (V, 1, d) one for all; ``means`` (W, d) mean states of the held-out windows, over experts
    and positions; ``features`` (M, d) the same of the training chunks.
    """

    states: torch.Tensor
    targets: torch.Tensor
    domain: torch.Tensor
    chunks: torch.Tensor
    heads: torch.Tensor
    means: torch.Tensor
    features: torch.Tensor


def weighted(states: torch.Tensor, gates: torch.Tensor, *, shared: bool) -> torch.Tensor:
    """States (..., N, d) weighted by gates (..., N): side by side, or their sum for a shared head.

    Times the experts' heads, side by side as well, they are the logit mixture Σ_i g_i W_i h_i.
    """
    each = states * gates[..., None]
    return each.sum(-2) if shared else each.flatten(-2)


def mixed_logits(states: torch.Tensor, gates: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
    """Logit mixture Σ_i g_i W_i h_i, (B, T, V): one product over experts and features.

    Shapes: ``states`` (B, T, N, d), ``gates`` (B, N), ``heads`` (V, N, d) or (V, 1, d).
    """
    return weighted(states, gates[:, None], shared=heads.shape[1] == 1) @ heads.flatten(1).T


def gate_gradient(
    states: torch.Tensor, targets: torch.Tensor, gates: torch.Tensor, heads: torch.Tensor
) -> torch.Tensor:
    """Gradient (B, N) of the mean cross-entropy of the logit mixture in the gates.

    dL/dg_i = mean over tokens of Σ_v p_v z_iv − z_iy. Half the time of automatic differentiation,
    which would hold two more arrays of logits.
    """
    predicted = mixed_logits(states, gates, heads).softmax(-1)
    expected = (predicted @ heads.flatten(1)).unflatten(-1, heads.shape[1:])
    return ((expected - heads[targets]) * states).sum((1, 3)) / targets.numel()


def fit(
    pool: Pool,
    seed: int,
    steps: int = 500,
    *,
    chunks: Sequence[int] | None = None,
    curriculum: int = 0,
    width: int | None = WIDTH,
) -> tuple[PooledRouter, torch.Tensor]:
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
    width
        Hidden units, ``None`` for a linear router.

    Returns
    -------
    The router, and the gates (S, W, N) of the held-out windows at the steps of ``LOOKS`` and at
    the end.
    """
    router, looks = start(pool, seed, width), []
    for step in descend(router, pool, seed, chunks, curriculum):
        if step in LOOKS or step == steps:
            looks.append(router.weigh(pool.means).detach())
        if step == steps:
            break
    return router.cpu().requires_grad_(False), torch.stack(looks).cpu()


def start(pool: Pool, seed: int, width: int | None) -> PooledRouter:
    """The router of a seed before its first step."""
    n_experts, n_features = pool.states.shape[2:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PooledRouter(n_features, n_experts, width).to(pool.states.device)


def descend(
    router: PooledRouter,
    pool: Pool,
    seed: int,
    chunks: Sequence[int] | None = None,
    curriculum: int = 0,
) -> Iterator[int]:
    """Take step after step, for ever; tells before each how many were taken."""
    optimizer = torch.optim.AdamW(router.parameters(), lr=1e-3, fused=True)
    rng = np.random.default_rng(seed)
    rows_of = [np.flatnonzero(pool.domain.cpu() == d) for d in range(len(pool.chunks))]
    frequency = np.array((chunks or pool.chunks.tolist())[: len(rows_of)], float)
    for step in itertools.count():
        yield step
        domains = rng.choice(len(rows_of), size=4, p=frequency / frequency.sum())
        if step < curriculum:
            domains[:] = step % len(rows_of)
        rows = torch.tensor([rng.choice(rows_of[d]) for d in domains])
        gates = router.weigh(pool.features[rows])
        optimizer.zero_grad()
        gates.backward(
            gate_gradient(pool.states[rows], pool.targets[rows], gates.detach(), pool.heads)
        )
        optimizer.step()


def fit_all(
    cooperative: Cooperative, settings: Sequence[Setting]
) -> tuple[list[tuple[PooledRouter, torch.Tensor]], torch.Tensor]:
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
    pool = build(cooperative, windows)
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


def _fit(pool: Pool, setting: Setting, steps: int) -> tuple[PooledRouter, torch.Tensor]:
    seed, chunks, curriculum = setting
    return fit(pool, seed, steps, chunks=chunks, curriculum=curriculum)


def _fit_job(
    arrays: dict[str, np.ndarray], setting: Setting, steps: int
) -> tuple[PooledRouter, torch.Tensor]:
    torch.set_num_threads(1)
    # Copied: joblib maps large arrays read-only.
    pool = Pool(**{name: torch.tensor(array) for name, array in arrays.items()})
    return _fit(pool, setting, steps)


def build(
    cooperative: Cooperative,
    windows: packing.Windows | None = None,
    *,
    role: str = "train",
    most: int = POOL,
    every: int = 1,
    keep: bool = False,
) -> Pool:
    """Run the experts over the pool and the held-out windows, where those are given.

    At most so many training chunks a domain (or chunks of documents of another role), drawn at
    random; natural proportions are kept in ``Pool.chunks`` and applied when a batch is drawn.

    Parameters
    ----------
    every
        The loss of a fit is read at one position in so many; its router sees the mean of all.
    keep
        Leave what each expert said in the store, to go on from there after a stop.
    """
    ids, domain, counts = _chunks(cooperative, role, most)
    reader = Reader(cooperative, ids[:, :-1], np.ones_like(ids[:, 1:], dtype=bool))
    states, features = zip(
        *(_kept(reader, name, ids, every, keep) for name in cooperative.domains), strict=True
    )
    device = reader.device
    return Pool(
        torch.stack(states, 2).to(device),
        torch.from_numpy(ids[:, 1:][:, ::every]).contiguous().to(device),
        torch.from_numpy(domain),
        torch.tensor(counts),
        reader.heads(cooperative.domains),
        _means(cooperative, windows).to(device),
        torch.stack(features).mean(0).to(device),
    )


def is_kept(cooperative: Cooperative, *, role: str = "train", most: int, every: int) -> bool:
    """Whether the store has all that :func:`build` leaves there with ``keep``."""
    ids, _, _ = _chunks(cooperative, role, most)
    return all(_path(cooperative, name, ids, every).exists() for name in cooperative.domains)


def _chunks(
    cooperative: Cooperative, role: str, most: int
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Chunks (M, T + 1), the domain (M,) of each, and how many every domain has in all."""
    chosen, domain, counts = [], [], []
    for index, name in enumerate(cooperative.domains):
        documents = cooperative.documents(name, role)
        found = corpora.role_of(documents)
        corpora.require_role(found, ("train", "router"), "The published router")
        chunks = packing.pack(documents, cooperative.tokenizer, cooperative.tier.seq_len).input_ids
        rows = np.random.default_rng(0).permutation(len(chunks))[:most]
        chosen.append(chunks[rows])
        domain += [index] * len(rows)
        counts.append(len(chunks))
    return np.concatenate(chosen).astype(np.int64), np.array(domain), counts


def _path(cooperative: Cooperative, name: str, ids: np.ndarray, every: int) -> Path:
    """Where the store keeps what an expert said of the pool."""
    code = artifacts.code_digest(["pooled_fit", "shared_trunk", "architectures", *CODE])
    text = hashlib.sha256(ids.tobytes()).hexdigest()
    key = artifacts.fingerprint(cooperative.path(name).name, text, every, code)
    return artifacts.store() / "pools" / f"{name}-{key}.safetensors"


def _kept(
    reader: Reader, name: str, ids: np.ndarray, every: int, keep: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """States (M, T / every, d) of one expert on the pool, and their means (M, d)."""
    cooperative = reader.cooperative
    path = _path(cooperative, name, ids, every)
    saved = artifacts.load_tensors(path) if keep else None
    if saved is None:
        states, means = [], []
        task = f"pool {name} (seed {cooperative.seed})"
        for last in reader.states(reader.branch(name), task):
            whole = last.unflatten(0, (-1, ids.shape[1] - 1)).cpu()
            states.append(whole[:, ::every].clone())
            means.append(whole.mean(1))
        saved = {"states": torch.cat(states), "means": torch.cat(means)}, {}
        if keep:
            artifacts.save_tensors(path, *saved)
            progress.pause_point()
    return saved[0]["states"], saved[0]["means"]


def _means(cooperative: Cooperative, windows: packing.Windows | None) -> torch.Tensor:
    """Mean states (W, d) of windows over experts and positions; none where there is no window."""
    if windows is None:
        return torch.zeros(0, cooperative.model(BASE).config.hidden_size)
    real = windows.targets != IGNORE
    reader = Reader(cooperative, windows.input_ids, real)
    n_tokens = torch.from_numpy(real.sum(1))
    owner = torch.arange(len(real)).repeat_interleave(n_tokens)
    total = 0
    for name in cooperative.domains:
        states = torch.cat(
            [last.cpu() for last in reader.states(reader.branch(name), f"window means {name}")]
        )
        total = total + states.new_zeros(len(real), states.shape[1]).index_add(0, owner, states)
    return total / (len(cooperative.domains) * n_tokens)[:, None]


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
