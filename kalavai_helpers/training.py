"""Training: one loop for the base and for every specialist, resumable to the bit.

Linear warm-up over the first tenth, cosine to zero (a base may stop on its way down), gradient
clip 1.0, AdamW, float32 master weights. The state after any checkpoint determines all that
follows: batches come from (seed, epoch) alone, so a killed run continues as if nothing had
happened.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from . import artifacts, corpora, progress
from .models import freeze
from .packing import IGNORE, Chunks, Windows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

N_PROBES = 8
"""Looks at the probes on the way, beside the one before training."""

Objective = Callable[[torch.nn.Module, torch.Tensor, np.ndarray], torch.Tensor]
"""Loss of (model, batch of ids (B, T + 1), indices of the chunks (B,)); a scalar in nats."""

CHECK_EVERY = 25
"""Steps between looks at the losses: a look waits for the device, so not at each step."""

SAVING_SHARE = 0.05
LEAST_LOST_S, MOST_LOST_S = 20.0, 120.0
"""Of the time, at most the share goes into checkpoints, within these bounds of what a kill costs.

The state of a small model is written in no time; 15 blocks of 135M parameters are 640 MB, which
a busy disk takes seconds for.
"""


class TrainingDivergedError(FloatingPointError):
    """A loss or gradient is not finite; names chapter, model and step."""


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; every field changes the result.

    Parameters
    ----------
    schedule
        Length of the cosine in multiples of ``steps``; with more than 1 training stops before
        the rate is down.
    """

    steps: int
    batch_size: int
    lr: float
    seed: int
    frozen_layers: int | None = None
    warmup: float = 0.1
    weight_decay: float = 0.1
    clip: float = 1.0
    schedule: float = 1.0

    def lr_at(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then cosine to zero at the schedule's end."""
        warm = max(1, round(self.warmup * self.steps))
        if step < warm:
            return self.lr * (step + 1) / warm
        share = (step - warm) / max(1, self.schedule * self.steps - warm)
        return self.lr * 0.5 * (1 + math.cos(math.pi * share))

    def rows(self, n_chunks: int, step: int) -> np.ndarray:
        """Indices of the chunks of a step, (batch_size,); each epoch is a fresh permutation.

        The published loader replays the first epoch's order for ever (``itertools.cycle``).
        """
        first = step * self.batch_size
        flat = np.arange(first, first + self.batch_size)
        orders = {
            epoch: np.random.default_rng([self.seed, int(epoch)]).permutation(n_chunks)
            for epoch in np.unique(flat // n_chunks)
        }
        return np.array([orders[index // n_chunks][index % n_chunks] for index in flat])


@dataclass
class History:
    """What is known of a training run: ``probes[i]`` belongs to ``steps[i]``.

    ``probes`` maps domain to mean loss in nats/token on a few held-out windows.
    """

    steps: list[int] = field(default_factory=list)
    probes: list[dict[str, float]] = field(default_factory=list)
    tokens_per_s: float = 0.0


def next_token_loss(model: torch.nn.Module, batch: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    """Mean next-token cross-entropy of a batch of ids (B, T + 1), nats/token."""
    logits = model(batch[:, :-1]).logits
    return functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())


@torch.no_grad()
def mean_loss(model: PreTrainedModel, windows: Windows, batch_size: int = 16) -> float:
    """Mean next-token cross-entropy over all tokens of the windows, nats/token."""
    device = next(model.parameters()).device
    total = torch.zeros((), dtype=torch.float64)
    for start in range(0, len(windows.input_ids), batch_size):
        rows = slice(start, start + batch_size)
        logits = model(torch.from_numpy(windows.input_ids[rows]).to(device)).logits
        targets = torch.from_numpy(windows.targets[rows]).to(device)
        total += functional.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction="sum"
        ).cpu()
    return float(total / windows.n_tokens)


def train(
    model: PreTrainedModel,
    chunks: Chunks,
    recipe: Recipe,
    path: Path,
    task: str,
    *,
    device: torch.device | None = None,
    autocast: torch.dtype = torch.float32,
    objective: Objective = next_token_loss,
    probes: dict[str, Windows] | None = None,
    n_probes: int = N_PROBES,
    checkpoint_s: float | None = None,
) -> History:
    """Train ``model`` in place and save what was trained to ``path`` (safetensors).

    Frozen parts are those of the model that came in and are not stored: :func:`overlay` puts the
    file onto it. A finished ``path`` is loaded, an unfinished run continues from its last
    checkpoint (``path`` with suffix ``.state``); after a kill the weights are those of an
    uninterrupted run with as many threads.

    Parameters
    ----------
    chunks
        Training text, input_ids (n, T + 1), of role ``base`` or ``train``.
    task
        Name for progress lines and errors, e.g. ``specialist code (seed 42)``.
    autocast
        Compute dtype; weights and optimiser state stay float32.
    objective
        What is minimised.
    probes
        Held-out windows a domain, evaluated ``n_probes`` times on the way.
    checkpoint_s
        Seconds of work that a kill may cost; by default what :data:`SAVING_SHARE` allows.

    Raises
    ------
    RoleError
        If the text was set aside for a router or for evaluation.
    TrainingDivergedError
        If a loss or gradient is not finite. The last good checkpoint stays.
    """
    corpora.require_role(chunks.role, ("base", "train"), task)
    state_path = path.with_suffix(".state")
    finished = artifacts.load_tensors(path)
    if finished is not None:
        state_path.unlink(missing_ok=True)  # a kill may have come between the two files
        overlay(model, finished[0])
        return History(**finished[1]["history"])

    device = device or torch.device("cpu")
    model.to(device).train()
    freeze(model, recipe.frozen_layers)
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        named.values(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
    )
    history, first = _resume(state_path, named, optimizer)

    probe_steps = set(np.linspace(0, recipe.steps, n_probes + 1).round().astype(int).tolist())
    watch = torch.zeros(CHECK_EVERY, 2, device=device)
    tokens_per_step = recipe.batch_size * (chunks.input_ids.shape[1] - 1)
    started, seconds, done = time.perf_counter(), 0.0, 0
    saved_at, pause_s = started, LEAST_LOST_S if checkpoint_s is None else checkpoint_s
    for step in range(first, recipe.steps + 1):
        if step in probe_steps and (not history.steps or history.steps[-1] < step):
            seconds += time.perf_counter() - started
            _probe(model, probes or {}, history, step)
            started = time.perf_counter()
        if step == recipe.steps:
            break
        rows = recipe.rows(len(chunks), step)
        batch = torch.from_numpy(chunks.input_ids[rows].astype(np.int64)).to(device)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr_at(step)
        with torch.autocast(device.type, dtype=autocast, enabled=autocast != torch.float32):
            loss = objective(model, batch, rows)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(named.values(), recipe.clip)
        watch[step % CHECK_EVERY] = torch.stack([loss.detach(), norm])
        optimizer.step()
        done += 1
        last = step + 1 == recipe.steps
        due = time.perf_counter() - saved_at >= pause_s or progress.time_is_up()
        save = due and not last
        if (step + 1) % CHECK_EVERY == 0 or save or last:
            _check_finite(watch, step, task, recipe, state_path)
            rate = done * tokens_per_step / (seconds + time.perf_counter() - started)
            history.tokens_per_s = round(rate, 1)
            left = (recipe.steps - step - 1) * tokens_per_step / rate
            progress.report(task, step + 1, recipe.steps, rate, eta_s=left)
        if save:
            began = time.perf_counter()
            _checkpoint(state_path, named, optimizer, history, step + 1)
            saved_at = time.perf_counter()
            if checkpoint_s is None:
                pause_s = _pause_s(saved_at - began)
            progress.pause_point()
    model.to("cpu").eval().requires_grad_(True)
    artifacts.save_tensors(
        path,
        named,
        {
            "history": asdict(history),
            "recipe": asdict(recipe),
            "autocast": str(autocast).removeprefix("torch."),
            "config": model.config.to_dict(),
        },
    )
    state_path.unlink(missing_ok=True)
    return history


def overlay(model: torch.nn.Module, trained: dict[str, torch.Tensor]) -> None:
    """Put what :func:`train` has stored of a model onto the model that it started from.

    Raises
    ------
    RuntimeError
        If the model has no parameter of one of the names.
    """
    unknown = model.load_state_dict(trained, strict=False).unexpected_keys
    if unknown:
        raise RuntimeError(
            f"{type(model).__name__} has no {unknown[0]}: the weights belong to another model"
        )


def _pause_s(save_s: float) -> float:
    """Seconds of work between checkpoints that take ``save_s`` each."""
    return min(max(save_s / SAVING_SHARE, LEAST_LOST_S), MOST_LOST_S)


def _probe(model: PreTrainedModel, probes: dict[str, Windows], history: History, step: int) -> None:
    model.eval()
    history.steps.append(step)
    history.probes.append({name: mean_loss(model, windows) for name, windows in probes.items()})
    model.train()


def _check_finite(
    watch: torch.Tensor, step: int, task: str, recipe: Recipe, state_path: Path
) -> None:
    # Rows of steps not taken yet are old but finite, so one test covers the whole window.
    bad = (~watch.isfinite()).any(1).nonzero().flatten().tolist()
    if not bad:
        return
    window = range(max(0, step - CHECK_EVERY + 1), step + 1)
    where = next(s for s in window if s % CHECK_EVERY in bad)
    loss, norm = watch[where % CHECK_EVERY].tolist()
    kept = f"the checkpoint before it is kept in {state_path.name}" if state_path.exists() else ""
    raise TrainingDivergedError(
        f"Chapter {os.environ.get('KALAVAI_CHAPTER', '(none)')}, {task}: loss {loss}, gradient "
        f"norm {norm} at step {where} of {recipe.steps}. Lower the learning rate "
        f"({recipe.lr:g}) or look at the text. {kept}".rstrip()
    )


def _checkpoint(
    path: Path,
    named: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    history: History,
    step: int,
) -> None:
    # Frozen weights are those of the base: only what trains needs saving.
    tensors = {f"model.{name}": p for name, p in named.items()}
    for name, p in named.items():
        for key, value in optimizer.state[p].items():
            tensors[f"{key}.{name}"] = value
    artifacts.save_tensors(path, tensors, {"step": step, "history": asdict(history)})


def _resume(
    path: Path,
    named: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> tuple[History, int]:
    saved = artifacts.load_tensors(path)
    if saved is None:
        return History(), 0
    tensors, metadata = saved
    with torch.no_grad():
        for name, p in named.items():
            p.copy_(tensors[f"model.{name}"])
            # The fused step wants its counter, too, where the weights are. A parameter that no
            # batch has reached yet has none.
            optimizer.state[p] = {
                key: tensors[f"{key}.{name}"].to(p.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}.{name}" in tensors
            }
    return History(**metadata["history"]), metadata["step"]
