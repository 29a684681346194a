"""Multi-head: one shared body, one output head a domain, trained on labelled text of all domains.

The published multi-head baseline is the dispatch of specialists under another name: no network
with several heads was built. This one is, with the text and the steps of all specialists together.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from . import architectures, artifacts, packing, progress, training
from .ledger import Ledger
from .packing import IGNORE, Windows
from .specialists import BASE, CODE, Cooperative

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel


class MultiHead(torch.nn.Module):
    """A shared body with one output head a domain; every head starts as the base's.

    Parameters
    ----------
    base
        The checkpoint to continue from; it is copied.
    n_heads
        Number of domains, N.
    """

    def __init__(self, base: PreTrainedModel, n_heads: int):
        super().__init__()
        base = copy.deepcopy(base)
        self.config = base.config
        self._body = architectures.of(base.config).body
        self.add_module(self._body, getattr(base, self._body))
        # Copies: heads that are tied to the embedding, and frozen with it, could not differ.
        self.heads = torch.nn.ModuleList(
            copy.deepcopy(base.get_output_embeddings()) for _ in range(n_heads)
        )

    def states(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Last hidden states (B, T, d) of the body, which every head reads."""
        return getattr(self, self._body)(input_ids).last_hidden_state

    def forward(self, input_ids: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, V), each sequence from its head; ``head`` (B,) are indices."""
        hidden = self.states(input_ids)
        # One product a head: gathering a weight matrix for every sequence would copy them.
        logits = hidden.new_empty(*hidden.shape[:2], self.heads[0].out_features)
        for index in head.unique().tolist():
            rows = head == index
            logits[rows] = self.heads[index](hidden[rows]).to(logits)
        return logits


def chunks(cooperative: Cooperative) -> tuple[packing.Chunks, np.ndarray]:
    """Training chunks of all domains, equally many of each, and their labels (n,).

    A domain with less text is repeated, so that every head sees as many chunks as a specialist.
    """
    parts = [
        packing.pack(
            cooperative.documents(domain, "train"), cooperative.tokenizer, cooperative.tier.seq_len
        )
        for domain in cooperative.domains
    ]
    rows = [np.arange(max(map(len, parts))) % len(part) for part in parts]
    return (
        packing.Chunks(
            np.concatenate([p.input_ids[r] for p, r in zip(parts, rows, strict=True)]),
            np.concatenate([p.document[r] for p, r in zip(parts, rows, strict=True)]),
            parts[0].role,
        ),
        np.repeat(np.arange(len(parts)), len(rows[0])),
    )


def path(cooperative: Cooperative) -> Path:
    """Where the multi-head model of a cooperative is stored."""
    key = artifacts.fingerprint(
        cooperative.fingerprint(),  # base, text, recipe and seed of all specialists
        artifacts.code_digest(["multihead", *CODE]),
    )
    return artifacts.store() / "models" / f"multihead-{key}.safetensors"


def train(cooperative: Cooperative) -> MultiHead:
    """Train the multi-head model, or read it from the store.

    N times the steps of a specialist, at its batch size, learning rate and frozen depth: the same
    compute and the same text a domain as all specialists together, with the labels of all text.
    """
    tier, n_heads = cooperative.tier, len(cooperative.domains)
    model = MultiHead(cooperative.model(BASE), n_heads)
    target = path(cooperative)
    saved = artifacts.load_tensors(target)
    if saved is not None:
        training.overlay(model, saved[0])
        return model.eval()
    text, labels = chunks(cooperative)
    owner = torch.from_numpy(labels)

    def objective(model: MultiHead, batch: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        logits = model(batch[:, :-1], owner[rows].to(batch.device))
        return functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())

    device, dtype, _ = tier.device()
    training.train(
        model,
        text,
        training.Recipe(
            n_heads * tier.specialist_steps,
            tier.batch_size,
            tier.specialist_lr,
            cooperative.seed,
            tier.frozen_layers,
        ),
        target,
        f"multi-head (seed {cooperative.seed})",
        device=device,
        autocast=dtype,
        objective=objective,
    )
    return model


def score(
    cooperative: Cooperative, parts: dict[str, Windows], batch_size: int = 16
) -> torch.Tensor:
    """Log-probability of every token under every head, (n, N) float64, in ledger order.

    Parameters
    ----------
    parts
        The windows a ledger was built of, by group.
    """
    windows = packing.concatenate(list(parts.values()))
    target = path(cooperative)
    digest = hashlib.sha256(windows.targets.tobytes()).hexdigest()
    key = artifacts.fingerprint(target.name, digest)
    stored = artifacts.store() / "ledgers" / f"multihead-{key}.safetensors"
    saved = artifacts.load_tensors(stored)
    if saved is not None:
        return saved[0]["log_probs"].double()
    log_probs = _score(
        train(cooperative).to(cooperative.tier.device()[0]).eval(), windows, batch_size
    )
    artifacts.save_tensors(stored, {"log_probs": log_probs}, {"heads": cooperative.domains})
    return log_probs.double()


@torch.no_grad()
def _score(model: MultiHead, windows: Windows, batch_size: int) -> torch.Tensor:
    device, n = next(model.parameters()).device, len(windows.input_ids)
    found = []
    for start in range(0, n, batch_size):
        rows = slice(start, start + batch_size)
        inputs = torch.from_numpy(windows.input_ids[rows]).to(device)
        targets = torch.from_numpy(windows.targets[rows]).to(device)
        real = targets != IGNORE
        states, wanted = model.states(inputs)[real], targets[real][:, None]
        columns = [
            head(states).float().log_softmax(-1).gather(1, wanted)[:, 0] for head in model.heads
        ]
        found.append(torch.stack(columns, 1).cpu())
        progress.report("multi-head scores", min(rows.stop, n), n)
    return torch.cat(found)


def as_ledger(ledger: Ledger, log_probs: torch.Tensor) -> Ledger:
    """The ledger with the experts replaced by the heads (n, N), so that routers can choose a head.

    The weight average is left out: it is of the specialists.
    """
    columns = torch.cat([ledger.column(BASE)[:, None], log_probs.float()], 1)
    return replace(ledger, models=(BASE, *ledger.experts), log_probs=columns)
