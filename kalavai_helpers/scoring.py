"""Scoring: a fused model run over text, for gates on a prompt, losses, and the published fit."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import corpora, progress, routing
from .evaluation import Fused
from .fusion import FusedForCausalLM, fuse
from .packing import END, IGNORE, Chunks, Windows
from .reading import Reading

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

MAX_LOGITS = 2**27
"""Most logits of all experts held at once: half a GB in float32."""


@torch.no_grad()
def prompt_gates(
    model: FusedForCausalLM, routers: dict[str, routing.Router], tokenizer: Tokenizer, text: str
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Gates of several routers on one text.

    Returns
    -------
    The T tokens as text, and for each router the gates (T, N) that weighed the predictions *of*
    each token, so that a causal gate knows only what stands to its left.
    """
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    inputs = torch.tensor([[tokenizer.token_to_id(END), *ids]])
    kept = model.router
    gates = {}
    try:
        for name, router in routers.items():
            model.router = router
            gates[name] = model(inputs).gates[0, :-1].numpy()
    finally:
        model.router = kept
    return [tokenizer.decode([token]) for token in ids], gates


@torch.no_grad()
def score(
    model: FusedForCausalLM,
    windows: Windows,
    task: str,
    others: dict[str, torch.Tensor | routing.Router] | None = None,
) -> tuple[Fused, dict[str, Fused]]:
    """Score a fused model, each window a sequence, and logit mixtures under other gates.

    The only way to evaluate a router that is not causal, or a logit mixture.

    Parameters
    ----------
    others
        By name: gates (n, N), e.g. read off the ledger, or a router that reads the same states as
        the model's.

    Returns
    -------
    The model as it is, and, by name, the logit mixture under each of the other gates.
    """
    corpora.require_role(windows.role, "heldout", "Scoring a fused model")
    device = model.device
    # Logits of all experts are held at once: a large vocabulary leaves room for few sequences.
    a_sequence = windows.input_ids.shape[1] * len(model.config.experts) * model.config.vocab_size
    batch_size = max(1, min(16, MAX_LOGITS // a_sequence))
    others = others or {}
    parts: dict[str | None, list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
    done = 0
    for start in range(0, len(windows.input_ids), batch_size):
        rows = slice(start, start + batch_size)
        inputs = torch.from_numpy(windows.input_ids[rows]).to(device)
        targets = torch.from_numpy(windows.targets[rows]).to(device)
        real = targets != IGNORE
        wanted = targets[real][:, None]
        experts = _run_experts(model, inputs, real)
        here = replace(experts, logits=experts.logits[real], log_probs=experts.log_probs[real])
        gates = _route(model.router, experts, real)[real]
        fused = _mix(gates, here, model.config.mixing)
        parts[None].append((fused.gather(1, wanted)[:, 0], gates))
        for name, other in others.items():
            if isinstance(other, routing.Router):
                gates = _route(other, experts, real)[real]
            else:
                gates = other[done : done + len(wanted)].float().to(device)
            fused = _mix(gates, here, "logit")
            parts[name].append((fused.gather(1, wanted)[:, 0], gates))
        done += len(wanted)
        progress.report(task, min(rows.stop, len(windows.input_ids)), len(windows.input_ids))

    joined = {
        name: Fused(*(torch.cat(column).double().cpu() for column in zip(*found, strict=True)))
        for name, found in parts.items()
    }
    return joined.pop(None), joined


@dataclass
class _ExpertOutput:
    """What the experts say of a batch, before any router.

    ``logits`` and ``log_probs`` (B, T, N, V); ``seen`` (B, T - 1, N): log-probability of the
    token that followed; ``features`` (B, T, F) and ``tokens`` (B, T): what the router reads.
    """

    logits: torch.Tensor
    log_probs: torch.Tensor
    seen: torch.Tensor
    features: torch.Tensor | None
    tokens: torch.Tensor


def _run_experts(
    model: FusedForCausalLM, input_ids: torch.Tensor, real: torch.Tensor
) -> _ExpertOutput:
    """Every expert's prediction at every position, for scoring under several gates."""
    text = Reading(model, input_ids, real.long(), None, None)
    names = model.config.experts
    states = torch.stack([text.branch(name)[0] for name in names], 2)
    logits = torch.stack([text.head(name, states[:, :, i]) for i, name in enumerate(names)], 2)
    log_probs = logits.log_softmax(-1)
    following = input_ids[:, 1:, None, None].expand(-1, -1, len(names), 1)
    seen = log_probs[:, :-1].gather(-1, following)[..., 0]
    features = model.router_features(text, states)
    return _ExpertOutput(logits, log_probs, seen, features, input_ids)


def _route(router: routing.Router, experts: _ExpertOutput, real: torch.Tensor) -> torch.Tensor:
    """Gates (B, T, N) of a router that reads what the model's does."""
    seen = experts.seen * (real[:, 1:] & real[:, :-1])[..., None]
    arrived = torch.nn.functional.pad(seen, (0, 0, 1, 0))
    return router.resume(experts.features, arrived, {}, real, experts.tokens)[0]


def _mix(gates: torch.Tensor, experts: _ExpertOutput, mixing: str) -> torch.Tensor:
    """Fused log-probabilities (..., V) from gates (..., N) and the experts' predictions."""
    if mixing == "probability":
        return routing.fuse_log_probs(gates[..., None, :], experts.log_probs.transpose(-1, -2))
    return (gates[..., None] * experts.logits).sum(-2).log_softmax(-1)


def fit_pooled(
    base: PreTrainedModel,
    specialists: dict[str, PreTrainedModel],
    frozen_layers: int,
    chunks: Chunks,
    steps: int,
    seed: int,
    task: str = "pooled router",
    device: torch.device | None = None,
    width: int | None = None,
) -> FusedForCausalLM:
    """Fuse as published: pooled router, logit mixing, SGD on the contributors' pooled text.

    AdamW, lr 1e-3, batches of 4 in natural proportions (as in the released code). ``chunks`` is the
    training text of all contributors together, as published: the coordinator sees all of it.
    ``width`` is that of :class:`routing.PooledRouter`.

    Raises
    ------
    RoleError
        If the chunks are not training text.
    """
    corpora.require_role(chunks.role, "train", task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        router = routing.PooledRouter(base.config.hidden_size, len(specialists), width)
    model = fuse(base, specialists, router, frozen_layers).to(device or "cpu")
    model.requires_grad_(False)
    model.router.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.router.parameters(), lr=1e-3)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        batch = torch.from_numpy(
            chunks.input_ids[rng.integers(len(chunks), size=4)].astype(np.int64)
        ).to(model.device)
        loss = model(batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 25 == 0 or step + 1 == steps:
            progress.report(task, step + 1, steps)
    return model.cpu().requires_grad_(False)
