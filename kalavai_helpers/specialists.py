"""Specialists: a cooperative trained end to end, in parallel, from the store where it can.

The protocol's first three steps: one base checkpoint, one fine-tuned copy a domain, nothing
shared between them while they train.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from . import artifacts, checkpoints, corpora, models, packing, parallel, training
from .tiers import Tier

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

BASE = "base"
BASE_SEED = 42
"""Of the base that chapters share: one checkpoint for all seeds of the specialists, as published."""

# fmt: off
BASE_FIELDS = (
    "hub_id", "revision", "vocab_size", "hidden_size", "n_layers", "n_heads", "seq_len",
    "batch_size", "base_steps", "base_lr", "base_schedule", "base_bytes",
)
SPECIALIST_FIELDS = ("specialist_steps", "specialist_lr", "frozen_layers", "probe_windows")
# fmt: on
"""Fields of a tier that make a base, and those that make a specialist of that base."""

CODE = ("corpora", "hub_text", "models", "packing", "specialists", "training")
PROBE_BYTES_PER_TOKEN = 6


@dataclass(frozen=True)
class Cooperative:
    """Who takes part: tier, text source, domains (= contributors), seeds of specialists and base.

    Everything else follows from these and is read from the store or made on first use. A
    published base is the same for every ``base_seed``.
    """

    tier: Tier
    corpora: str
    domains: tuple[str, ...]
    seed: int
    base_seed: int = BASE_SEED

    def __reduce__(self) -> tuple[type, tuple]:
        """Travel to another process as fields alone.

        A base that went along would be large, and would no longer collect its hidden states.
        """
        return Cooperative, tuple(getattr(self, field.name) for field in fields(self))

    @cached_property
    def base_key(self) -> str:
        """Fingerprint of everything that makes the base."""
        ours = self.tier.hub_id is None
        return artifacts.fingerprint(
            {name: getattr(self.tier, name) for name in BASE_FIELDS},
            [[d.id for d in self.base_documents], self.base_seed]
            if ours
            else checkpoints.described(self.tier),
            artifacts.code_digest(CODE),
            artifacts.versions("torch", "transformers", "tokenizers"),
        )

    @cached_property
    def base_documents(self) -> list[corpora.Document]:
        """The base mix of the text source."""
        return corpora.base_mix(self.corpora, self.tier.base_bytes)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Byte-level BPE of the base mix, or the published tokenizer."""
        from tokenizers import Tokenizer

        if self.tier.hub_id is not None:
            return checkpoints.tokenizer(self.tier)
        path = artifacts.store() / "tokenizers" / f"{self.base_key}.json"
        if artifacts.read_json(path) is None:
            made = packing.train_tokenizer(self.base_documents, self.tier.vocab_size)
            artifacts.write_bytes(path, made.to_str().encode())
        return Tokenizer.from_file(str(path))

    def documents(self, domain: str, role: str) -> list[corpora.Document]:
        """Documents of a domain in a role (``train``, ``router``, ``heldout``), within budget.

        Where the tier counts windows, the opening of one document is one.
        """
        tier, found = self.tier, corpora.split(self.corpora, domain)[role]
        windows = {"heldout": tier.heldout_windows, "router": tier.router_windows}.get(role, 0)
        if windows:
            spread = corpora.spread(found)
            return packing.openings(spread, self.tokenizer, tier.seq_len, windows)
        return corpora.capped(found, tier.train_bytes if role == "train" else tier.heldout_bytes)

    def windows(self, role: str, domain: str) -> packing.Windows:
        """Evaluation windows of a domain's documents in a role."""
        return packing.windows(self.documents(domain, role), self.tokenizer, self.tier.seq_len)

    def path(self, name: str) -> Path:
        """Where a model of the cooperative is stored."""
        if name == BASE:
            return artifacts.store() / "models" / f"base-{self.base_key}.safetensors"
        key = artifacts.fingerprint(
            self.base_key,
            {name: getattr(self.tier, name) for name in SPECIALIST_FIELDS},
            [document.id for document in self.documents(name, "train")],
            # Probes on all of them are part of the stored history.
            self.domains if self.tier.probe_windows else (),
            self.seed,
        )
        return artifacts.store() / "models" / f"specialist-{name}-{key}.safetensors"

    def fingerprint(self) -> str:
        """Fingerprint of the base and all specialists, for what is derived from them."""
        return artifacts.fingerprint([self.path(name).name for name in (BASE, *self.domains)])

    def model(self, name: str) -> PreTrainedModel:
        """Base, a specialist by domain, or ``weight_average`` of all specialists."""
        model = copy.deepcopy(self._base)
        if name == "weight_average":
            # What nobody trains is the base's to the bit, which a mean of equal numbers is not.
            training.overlay(model, models.average(self._saved(d)[0] for d in self.domains))
        elif name != BASE:
            training.overlay(model, self._saved(name)[0])
        return model.eval()

    def history(self, name: str) -> training.History:
        """Training curve of the base or of a specialist."""
        return training.History(**self._saved(name)[1]["history"])

    def _saved(self, name: str) -> tuple[dict[str, torch.Tensor], dict]:
        saved = artifacts.load_tensors(self.path(name))
        if saved is None:  # not trained yet, or found truncated and set aside
            self.train(name)
            saved = artifacts.load_tensors(self.path(name))
        return saved

    @cached_property
    def _base(self) -> PreTrainedModel:
        if self.tier.hub_id is not None:
            return checkpoints.load(self.tier)
        model = models.new_base(self.tier, self.tokenizer.get_vocab_size(), self.base_seed)
        training.overlay(model, self._saved(BASE)[0])
        return model

    def recipe(self, name: str) -> training.Recipe:
        """How the base or a specialist is trained."""
        tier = self.tier
        if name == BASE:
            return training.Recipe(
                tier.base_steps,
                tier.batch_size,
                tier.base_lr,
                self.base_seed,
                schedule=tier.base_schedule,
            )
        return training.Recipe(
            tier.specialist_steps,
            tier.batch_size,
            tier.specialist_lr,
            self.seed,
            tier.frozen_layers,
        )

    def train(self, name: str) -> None:
        """Train the base or one specialist, or do nothing where the store has it."""
        if self.path(name).exists():
            return
        device, dtype, _ = self.tier.device()
        probed = self.tier.probe_windows > 0
        if name == BASE:
            size = self.tokenizer.get_vocab_size()
            model = models.new_base(self.tier, size, self.base_seed)
            documents, task = self.base_documents, f"base (seed {self.base_seed})"
        else:
            model = self.model(BASE)
            documents, task = self.documents(name, "train"), f"specialist {name} (seed {self.seed})"
        training.train(
            model,
            packing.pack(documents, self.tokenizer, self.tier.seq_len),
            self.recipe(name),
            self.path(name),
            task,
            device=device,
            autocast=dtype,
            # The base serves every cooperative: probes of one of them would not be its own.
            probes={d: self._probe(d) for d in self.domains if name != BASE and probed},
        )

    def _probe(self, domain: str) -> packing.Windows:
        budget = self.tier.probe_windows * self.tier.seq_len * PROBE_BYTES_PER_TOKEN
        documents = corpora.capped(corpora.split(self.corpora, domain)["heldout"], budget)
        full = packing.windows(documents, self.tokenizer, self.tier.seq_len)
        rows = slice(0, self.tier.probe_windows)
        return replace(
            full,
            input_ids=full.input_ids[rows],
            targets=full.targets[rows],
            document=full.document[rows],
        )


def train_bases(cooperatives: list[Cooperative]) -> None:
    """Train the bases of cooperatives side by side; one that is alone uses all threads."""
    ours = {c.path(BASE): c for c in cooperatives if c.tier.hub_id is None}
    parallel.side_by_side([partial(c.train, BASE) for p, c in ours.items() if not p.exists()])


def train_all(cooperatives: list[Cooperative]) -> None:
    """Train every specialist of the cooperatives, side by side; their bases come first."""
    train_bases(cooperatives)
    missing = {c.path(d): (c, d) for c in cooperatives for d in c.domains}
    parallel.leave_in_store(
        [partial(c.train, d) for path, (c, d) in missing.items() if not path.exists()]
    )
