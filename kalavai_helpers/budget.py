"""Budget: what a cooperative or a recording will take on this machine, told beforehand.

Twenty steps of training and a few windows of scoring are run, timed and weighed; the rest is
arithmetic.
"""

from __future__ import annotations

import math
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from . import (
    artifacts,
    baselines,
    models,
    packing,
    parallel,
    progress,
    recording,
    training,
    twenty,
)
from .ledger import MAX_FEATURES
from .specialists import BASE, Cooperative

PROBE_STEPS, PROBE_WINDOWS = 20, 8
FIRST_STEPS = 2
"""Steps that are not timed: they allocate the gradients and the optimiser's state."""


@dataclass(frozen=True)
class Probe:
    """What one process takes: seconds a training step, a scored window and in all, and bytes.

    ``model_bytes`` is the file that a finished model leaves, ``memory_bytes`` the most that was
    held, on a GPU of its memory. ``shared`` is the share of a forward pass that is the trunk's.
    """

    step_s: float
    window_s: float
    busy_s: float
    model_bytes: int
    memory_bytes: int
    shared: float


@dataclass(frozen=True)
class Part:
    """One kind of work: models or pieces to do, optimiser steps in all of them, seconds."""

    name: str
    number: int
    steps: int
    seconds: float | None


@dataclass(frozen=True)
class Budget:
    """What is left to do, and what it takes; ``None`` is not known here."""

    where: str
    parts: tuple[Part, ...]
    disk_bytes: float
    memory_bytes: float | None

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return sum(part.steps for part in self.parts)

    @property
    def seconds(self) -> float | None:
        """Seconds in all."""
        known = [part.seconds for part in self.parts if part.seconds is not None]
        return sum(known) if len(known) == len(self.parts) else None

    def lines(self) -> Iterator[str]:
        """The budget as text."""
        yield self.where
        yield f"{'':13}{'number':>7}{'steps':>9}   time"
        for part in (*self.parts, Part("all", 0, self.steps, self.seconds)):
            took = "not known here" if part.seconds is None else progress.duration(part.seconds)
            yield f"{part.name:13}{part.number or '':>7}{part.steps or '':>9}   {took}"
        free = shutil.disk_usage(artifacts.existing(artifacts.store())).free
        yield f"disk {self.disk_bytes / 1e9:.2g} GB (free: {free / 1e9:.0f} GB)"
        if self.memory_bytes is not None:
            yield f"memory {self.memory_bytes / 1e9:.2g} GB"


def of(cooperative: Cooperative) -> Budget:
    """The budget of what the store does not have yet: base, specialists, and both ledgers.

    On a machine without the GPU that the tier needs, what can be said without it.
    """
    tier = cooperative.tier
    try:
        device, _, reason = tier.device()
    except RuntimeError as error:
        return _elsewhere(cooperative, str(error))
    where = f"tier {tier.name} on {device}: {reason}"
    ours, n = tier.hub_id is None, len(cooperative.domains)
    left = [name for name in cooperative.domains if not cooperative.path(name).exists()]
    if not left:
        return Budget(f"{where}; everything is trained", (), 0.0, None)

    parts, disk, memory = [], 0.0, 0.0
    if ours and not cooperative.path(BASE).exists():
        base = probe(cooperative, BASE)
        parts.append(Part(BASE, 1, tier.base_steps, tier.base_steps * base.step_s))
        disk, memory = base.model_bytes, base.memory_bytes
    workers = 1 if torch.cuda.is_available() else min(len(left), os.cpu_count() or 1)
    started = time.perf_counter()
    found = parallel.side_by_side([partial(probe, cooperative, left[0])] * workers)
    start_s = time.perf_counter() - started - max(one.busy_s for one in found)
    step_s, window_s = (np.mean([getattr(f, x) for f in found]) for x in ("step_s", "window_s"))

    curve_s = (training.N_PROBES + 1) * tier.probe_windows * n * window_s
    each_s = tier.specialist_steps * step_s + curve_s
    seconds = start_s + math.ceil(len(left) / workers) * each_s
    parts.append(Part("specialists", len(left), len(left) * tier.specialist_steps, seconds))

    # A trunk that all share is run once for all models.
    reads_s, tokens = 0.0, 0
    for role, extra in (("heldout", 2), ("router", 1)):
        windows = packing.concatenate([cooperative.windows(role, d) for d in cooperative.domains])
        passes = found[0].shared + (n + extra) * (1 - found[0].shared)
        reads_s += len(windows.input_ids) * passes * window_s
        tokens += windows.n_tokens
    parts.append(Part("ledgers", n + 2, 0, reads_s))

    disk += (len(left) + 3 * workers) * found[0].model_bytes  # a state is a model and AdamW's two
    disk += 4 * tokens * (n + 2 + min(MAX_FEATURES, tier.hidden_size))
    memory = max(memory, sum(one.memory_bytes for one in found))
    return Budget(where, tuple(parts), disk, memory)


def of_recording(study: twenty.Study) -> Budget:
    """The budget of what is left of a recording.

    Its own estimates are of one machine, where a training step takes ``twenty.STEP_S``; here they
    are of this one.
    """
    device, _, reason = study.tier.device()
    kinds: dict[str, list[recording.Step]] = {}
    for step in study.steps({}):
        if not step.done():
            kinds.setdefault(step.kind or step.name, []).append(step)
    workers = 1 if torch.cuda.is_available() else recording.workers()
    job = partial(probe, study.cooperative(study.domains), study.domains[0])
    found = parallel.side_by_side([job] * workers)
    pace = np.mean([one.step_s for one in found]) / twenty.STEP_S
    parts = []
    for kind, pieces in kinds.items():
        cost_s = sum(piece.cost_s for piece in pieces)
        steps = round(cost_s / twenty.STEP_S) if kind in ("validation", "specialist") else 0
        wall_s = sum(piece.wall_s for piece in pieces)
        parts.append(Part(kind, len(pieces), steps, wall_s * pace))
    disk = (len(kinds.get("specialist", ())) + 3 * workers) * found[0].model_bytes
    if "reading" in kinds:
        for part, text in study.windows.items():
            n_tokens = sum(one.n_tokens for one in text.values())
            width = 1 + study.tier.hidden_size
            disk += sum(4 * n_tokens * len(r.models) * width for r in study.readings(part))
    where = f"recording of tier {study.tier.name} on {device}: {reason}"
    return Budget(where, tuple(parts), disk, sum(one.memory_bytes for one in found))


def probe(cooperative: Cooperative, name: str) -> Probe:
    """Train a few steps of a model's recipe on random tokens, read a few windows, and measure."""
    began = time.perf_counter()
    tier = cooperative.tier
    device, dtype, _ = tier.device()
    size = cooperative.tokenizer.get_vocab_size()
    if tier.hub_id is None:
        model = models.new_base(tier, size, cooperative.base_seed)
    else:
        model = cooperative.model(BASE)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, size, (2 * tier.batch_size, tier.seq_len + 1)).astype(np.int32)
    steps: list[float] = []

    def objective(model: torch.nn.Module, batch: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        if device.type == "cuda":
            torch.cuda.synchronize()
        steps.append(time.perf_counter())
        return training.next_token_loss(model, batch, rows)

    recipe = replace(cooperative.recipe(name), steps=PROBE_STEPS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.safetensors"
        training.train(
            model,
            packing.Chunks(ids, np.zeros_like(ids), "train"),
            recipe,
            path,
            f"probe {name}, {os.getpid()}",
            device=device,
            autocast=dtype,
            objective=objective,
        )
        model_bytes = path.stat().st_size
    text = [row[:-1].tolist() for row in np.tile(ids, (PROBE_WINDOWS, 1))[:PROBE_WINDOWS]]
    windows = packing.windows_of_ids(text, [None] * PROBE_WINDOWS, 0, tier.seq_len)
    model.to(device)
    started = time.perf_counter()
    training.mean_loss(model, windows)
    window_s = (time.perf_counter() - started) / PROBE_WINDOWS
    trunk = models.n_parameters(models.trunk(model, tier.frozen_layers)["layers"])
    branch = models.n_parameters(models.branch(model, tier.frozen_layers))
    return Probe(
        step_s=(steps[-1] - steps[FIRST_STEPS]) / (len(steps) - 1 - FIRST_STEPS),
        window_s=window_s,
        busy_s=time.perf_counter() - began,
        model_bytes=model_bytes,
        memory_bytes=_most_held(device),
        shared=trunk / (trunk + branch),
    )


def _most_held(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _elsewhere(cooperative: Cooperative, why: str) -> Budget:
    tier, n = cooperative.tier, len(cooperative.domains)
    frozen = tier.vocab_size * tier.hidden_size + tier.frozen_layers * baselines.n_block(tier)
    model_bytes = 4 * (baselines.n_parameters(tier) - frozen)
    parts = (
        Part("specialists", n, n * tier.specialist_steps, None),
        Part("ledgers", n + 2, 0, None),
    )
    return Budget(why, parts, (n + 3) * model_bytes, None)
