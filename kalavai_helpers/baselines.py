"""Baselines: single models trained on everybody's text, pooled, for the compute of a cooperative.

The protocol keeps contributors apart. What would one model have learned from all their text? Three
answers are trained here, each for as many steps as all specialists together.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import artifacts, ledger, packing, training
from .packing import Chunks
from .specialists import BASE, Cooperative
from .tiers import Tier

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COMPUTE = "monolithic_compute"
EXPOSURE = "monolithic_exposure"
WIDER = "wider"
KINDS = (COMPUTE, EXPOSURE, WIDER)
"""Equal compute: pooled text in natural proportions, as published. Equal exposure: every domain
gives exactly the sequences that its specialist saw. Wider: equal total parameters."""


@dataclass(frozen=True)
class Baseline:
    """One model on the pooled training text of a cooperative's contributors.

    Trained for N · ``specialist_steps`` steps with the specialists' learning rate, schedule and
    frozen blocks. The published monolithic model is ``monolithic_compute`` (6,000 steps beside
    three specialists of 2,000).

    Parameters
    ----------
    cooperative
        Whose text, tokenizer, recipe and seed are used.
    kind
        ``monolithic_compute``, ``monolithic_exposure`` or ``wider``.

    Raises
    ------
    ValueError
        For another kind, or for a wider model of a tier whose base comes from the Hub.
    """

    cooperative: Cooperative
    kind: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"Unknown baseline {self.kind!r}: choose one of {', '.join(KINDS)}")
        if self.kind == WIDER and self.cooperative.tier.hub_id is not None:
            raise ValueError(
                f"No wider base of the recipe of {self.cooperative.tier.hub_id} can be trained "
                "here: leave the baseline 'wider' out at this tier"
            )

    @cached_property
    def start(self) -> Cooperative:
        """The cooperative whose base this model starts from."""
        if self.kind != WIDER:
            return self.cooperative
        n = len(self.cooperative.domains)
        return replace(self.cooperative, tier=wider(self.cooperative.tier, n))

    @property
    def recipe(self) -> training.Recipe:
        """As many steps as all specialists together, otherwise their recipe."""
        tier = self.cooperative.tier
        return training.Recipe(
            len(self.cooperative.domains) * tier.specialist_steps,
            tier.batch_size,
            tier.specialist_lr,
            self.cooperative.seed,
            tier.frozen_layers,
        )

    @cached_property
    def path(self) -> Path:
        """Where the trained model is stored.

        The name tells what was done, not what for: the wider model of one size is the model of
        equal compute of another, where both start from the same base.
        """
        coop = self.cooperative
        key = artifacts.fingerprint(
            self.kind == EXPOSURE,
            self.start.base_key,
            asdict(self.recipe),
            coop.tier.specialist_steps,
            [d.id for domain in coop.domains for d in coop.documents(domain, "train")],
            artifacts.code_digest(["baselines"]),
        )
        return artifacts.store() / "models" / f"pooled-{key}.safetensors"

    @cached_property
    def _parts(self) -> list[Chunks]:
        coop = self.cooperative
        found, documents = [], 0
        for domain in coop.domains:
            text = coop.documents(domain, "train")
            chunks = packing.pack(text, coop.tokenizer, coop.tier.seq_len)
            found.append(replace(chunks, document=chunks.document + documents))
            documents += len(text)
        return [self._seen(part) for part in found] if self.kind == EXPOSURE else found

    def _seen(self, part: Chunks) -> Chunks:
        """The sequences a specialist reads, repeats included, in the order it reads them."""
        steps = self.cooperative.tier.specialist_steps
        recipe = replace(self.recipe, steps=steps)
        rows = np.concatenate([recipe.rows(len(part), step) for step in range(steps)])
        return Chunks(part.input_ids[rows], part.document[rows], part.role)

    def exposure(self) -> dict[str, int]:
        """Training sequences this model reads, by domain, repeats included."""
        sizes = [len(part) for part in self._parts]
        recipe = self.recipe
        rows = np.concatenate([recipe.rows(sum(sizes), step) for step in range(recipe.steps)])
        owner = np.searchsorted(np.cumsum(sizes), rows, side="right")
        counts = np.bincount(owner, minlength=len(sizes)).tolist()
        return dict(zip(self.cooperative.domains, counts, strict=True))

    def train(self) -> None:
        """Train the model, or do nothing where the store has it."""
        if self.path.exists():
            return
        if self.start.tokenizer.to_str() != self.cooperative.tokenizer.to_str():
            raise RuntimeError(
                f"{self.kind} would start from a base with another tokenizer than the "
                "cooperative's: its losses could not be compared"
            )
        tier = self.cooperative.tier
        device, dtype, _ = tier.device()
        training.train(
            self.start.model(BASE),
            Chunks(
                np.concatenate([part.input_ids for part in self._parts]),
                np.concatenate([part.document for part in self._parts]),
                self._parts[0].role,
            ),
            self.recipe,
            self.path,
            f"{self.kind.replace('_', ' ')}, width {self.start.tier.hidden_size} "
            f"(seed {self.cooperative.seed})",
            device=device,
            autocast=dtype,
        )

    def model(self) -> PreTrainedModel:
        """The trained model, from the store or trained on first use."""
        self.train()
        saved = artifacts.load_tensors(self.path)
        if saved is None:  # found truncated, and set aside
            self.train()
            saved = artifacts.load_tensors(self.path)
        model = self.start.model(BASE)
        training.overlay(model, saved[0])
        return model.eval()

    def log_probs(self, role: str = "heldout") -> torch.Tensor:
        """Log-probabilities (n,) on the tokens of the cooperative's ledger; stored."""
        coop = self.cooperative
        parts = [coop.windows(role, domain) for domain in coop.domains]
        windows = packing.concatenate(parts)
        key = artifacts.fingerprint(
            self.path.name,
            hashlib.sha256(windows.targets.tobytes()).hexdigest(),
            [document.id for document in windows.documents],
            artifacts.code_digest(["ledger"]),
        )
        path = artifacts.store() / "ledgers" / f"{role}-pooled-{key}.safetensors"
        saved = artifacts.load_tensors(path)
        if saved is None:
            task = f"ledger {role} {self.kind.replace('_', ' ')} (seed {coop.seed})"
            model = self.model().to(coop.tier.device()[0])
            scores, _ = ledger.score(model, windows, task)
            saved = {"log_probs": scores}, {}
            artifacts.save_tensors(path, *saved)
        return saved[0]["log_probs"]


def n_parameters(tier: Tier) -> int:
    """Parameters of a GPT-NeoX model of the tier's shape (input and output embedding not tied)."""
    d = tier.hidden_size
    return 2 * tier.vocab_size * d + tier.n_layers * n_block(tier) + 2 * d


def n_block(tier: Tier) -> int:
    """Parameters of one of its blocks."""
    d = tier.hidden_size
    return 12 * d * d + 13 * d


def wider(tier: Tier, n_models: int) -> Tier:
    """The tier's recipe at the width at which one model has about ``n_models`` times the parameters.

    Depth and heads stay; the size of a head stays a multiple of four.
    """
    target = n_models * n_parameters(tier)
    pitch = 4 * tier.n_heads
    options = [
        replace(tier, hidden_size=width)
        for width in range(pitch, (2 + n_models) * tier.hidden_size + pitch, pitch)
    ]
    return min(options, key=lambda option: abs(math.log(n_parameters(option) / target)))


def with_baselines(found: ledger.Ledger, baselines: Sequence[Baseline]) -> ledger.Ledger:
    """The cooperative's held-out ledger with a column for each of the baselines."""
    for baseline in baselines:
        found = found.with_column(baseline.kind, baseline.log_probs())
    return found
