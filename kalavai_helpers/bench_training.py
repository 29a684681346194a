"""What a training step costs: ours against a bare PyTorch step, and the published one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from . import models, packing, training
from .bench_models import device
from .timing import Bar, Measurement, in_turns, now

if TYPE_CHECKING:
    from .bench import Plan
    from .tiers import Tier

OURS, BARE, PUBLISHED = "specialist step", "bare PyTorch step", "published step"
_SAME = "both: same model, frozen layers, batch, clip, fused AdamW"
MICRO_BATCH = 2
"""Sequences the published trainer runs at once; it accumulates their gradients to a batch."""


def measure(tier: Tier, plan: Plan) -> Iterator[Measurement]:
    """Seconds of a step of each loop, all that happens between two steps counted in."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, tier.vocab_size, (8 * tier.batch_size, tier.seq_len + 1))
    chunks = packing.Chunks(ids.astype(np.int32), np.zeros_like(ids), "train")
    loops = {OURS: _ours, BARE: _bare, PUBLISHED: _published}
    steps = plan.training_steps
    found = in_turns(
        {name: partial(loop, tier, chunks, steps) for name, loop in loops.items()},
        plan.training_repeats,
    )
    tokens = tier.batch_size * tier.seq_len
    where = {"tier": tier.name, "tokens": tokens, "steps": steps}
    also = {f"{name.replace(' ', '_')}_s": timing.spread.value for name, timing in found.items()}
    also |= {"tokens_per_s": tokens / found[OURS].spread.value}
    yield Measurement(
        "training",
        f"{OURS}, tier {tier.name}, against a {BARE}",
        found[OURS].over(found[BARE]),
        bar=Bar("≤", 1.05),
        where=where,
        also=also | {"note": _SAME},
    )
    yield Measurement(
        "training",
        f"{PUBLISHED}, tier {tier.name}, against a {OURS}",
        found[PUBLISHED].over(found[OURS]),
        where=where,
        also=also | {"note": "bfloat16 weights and autocast, micro-batches of two, AdamW unfused"},
    )


def _ours(tier: Tier, chunks: packing.Chunks, steps: int) -> float:
    """A step of :func:`training.train`, from one call of its objective to the next.

    The first step of a loop is never counted: it allocates the state of the optimiser.
    """
    calls = count()
    times: list[float] = []

    def objective(model: torch.nn.Module, batch: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        if next(calls) in (1, steps + 1):
            times.append(now())
        return training.next_token_loss(model, batch, rows)

    _, dtype, _ = tier.device()
    recipe = training.Recipe(
        steps + 2, tier.batch_size, tier.specialist_lr, seed=0, frozen_layers=tier.frozen_layers
    )
    with tempfile.TemporaryDirectory() as folder:
        training.train(
            models.new_base(tier, tier.vocab_size, seed=0),
            chunks,
            recipe,
            Path(folder) / "model.safetensors",
            "bench training",
            device=device(),
            autocast=dtype,
            objective=objective,
        )
    return (times[1] - times[0]) / steps


def _bare(tier: Tier, chunks: packing.Chunks, steps: int) -> float:
    """A step of the shortest loop that trains the same: batch, loss, gradients, clip, update."""
    model, trained = _model(tier)
    optimizer = torch.optim.AdamW(trained, lr=tier.specialist_lr, weight_decay=0.1, fused=True)
    _, dtype, _ = tier.device()
    tokens = torch.from_numpy(chunks.input_ids.astype(np.int64)).to(device())

    def step(index: int) -> None:
        batch = tokens[_rows(index, tier.batch_size, len(tokens))]
        with torch.autocast(device().type, dtype=dtype, enabled=dtype != torch.float32):
            logits = model(batch[:, :-1]).logits
            loss = functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    return _seconds_a_step(step, steps)


def _published(tier: Tier, chunks: packing.Chunks, steps: int) -> float:
    """The published trainer: weights in bfloat16, micro-batches, AdamW as it comes, schedule."""
    model, trained = _model(tier)
    model.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(trained, lr=2e-5, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    tokens = torch.from_numpy(chunks.input_ids.astype(np.int64)).to(device())
    parts = max(1, tier.batch_size // MICRO_BATCH)

    def step(index: int) -> None:
        optimizer.zero_grad()
        rows = _rows(index, tier.batch_size, len(tokens))
        for micro in rows.chunk(parts):
            batch = tokens[micro][:, :-1]
            with torch.autocast(device().type, dtype=torch.bfloat16):
                loss = model(batch, labels=batch).loss / parts
            loss.backward()
            loss.item()  # the running sum that it logs
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()

    return _seconds_a_step(step, steps)


def _model(tier: Tier) -> tuple[torch.nn.Module, list[torch.nn.Parameter]]:
    model = models.new_base(tier, tier.vocab_size, seed=0).to(device()).train()
    models.freeze(model, tier.frozen_layers)
    return model, [parameter for parameter in model.parameters() if parameter.requires_grad]


def _rows(index: int, batch_size: int, n_chunks: int) -> torch.Tensor:
    return (torch.arange(batch_size) + index * batch_size) % n_chunks


def _seconds_a_step(step: Callable[[int], None], steps: int) -> float:
    step(0)
    began = now()
    for index in range(steps):
        step(index + 1)
    return (now() - began) / steps
