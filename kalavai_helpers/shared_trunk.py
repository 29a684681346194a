"""Models that share a trunk, read side by side: the trunk once, then one branch after another.

Specialists leave the embedding and the first k blocks of their base as they are, so the trunk's
states of a text serve the base and all of them. One branch is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import architectures, progress
from .specialists import BASE, Cooperative

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_LOGITS = 2**24
"""Most logits held at once, 64 MB in float32: a vocabulary of 49,152 leaves 341 tokens."""


class SharedTrunk:
    """Embedding and first k blocks of a base, and the branches that go on from them.

    Blocks are run one by one, since a decoder's own ``forward`` ends with the final norm.
    """

    def __init__(self, base: PreTrainedModel, frozen_layers: int):
        self.family = architectures.of(base.config)
        self.config, self.rotary = base.config, self.family.rotary(base)
        self.frozen_layers, self.device = frozen_layers, base.device
        self.types = architectures.layer_types(base.config)
        self.part, _ = self.family.split(base, frozen_layers)

    @torch.no_grad()
    def states(self, input_ids: torch.Tensor) -> torch.Tensor:
        """States (B, T, d) after the trunk of whole, unpadded or right-padded texts (B, T)."""
        embedded = self.part["embed"](input_ids.to(self.device))
        return self.run(self.part["layers"], embedded, self.types[: self.frozen_layers])

    def branch(self, model: PreTrainedModel) -> Branch:
        """What a model owns above the trunk; its trunk is taken to be the base's."""
        part = self.family.split(model, self.frozen_layers)[1].to(self.device)
        head = part["head"] if "head" in part else self.part["embed"]
        return Branch(self, part, head.weight.detach())

    def run(
        self, layers: torch.nn.ModuleList, hidden: torch.Tensor, types: list[str]
    ) -> torch.Tensor:
        """Apply blocks to hidden states (B, T, d) of texts that are read from their beginning."""
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        masks = architectures.masks(self.config, types, hidden, None, None, None)
        angles = self.rotary(hidden, position_ids=positions)
        return self.family.run(layers, hidden, types, masks, positions, angles)


@dataclass(frozen=True)
class Branch:
    """What one model owns above a shared trunk; ``head`` (V, d) may be the trunk's embedding."""

    trunk: SharedTrunk
    part: torch.nn.ModuleDict
    head: torch.Tensor

    @torch.no_grad()
    def states(self, trunk_states: torch.Tensor) -> torch.Tensor:
        """Last hidden states (B, T, d), after the final norm, from those of the trunk."""
        types = self.trunk.types[self.trunk.frozen_layers :]
        hidden = trunk_states.to(self.trunk.device)
        return self.part["norm"](self.trunk.run(self.part["layers"], hidden, types)).float()


@torch.no_grad()
def token_log_probs(
    states: torch.Tensor, head: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Log-probability (n,) of tokens (n,) from last hidden states (n, d) and a head (V, d)."""
    together = max(1, MAX_LOGITS // len(head))
    found = []
    for some, wanted in zip(states.split(together), targets.split(together), strict=True):
        logits = some @ head.T.to(some.dtype)
        found.append(logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(-1))
    return torch.cat(found)


class Reader:
    """A text, read by the models of a cooperative on demand; nothing is loaded before.

    Parameters
    ----------
    input_ids
        (M, T) windows.
    wanted
        (M, T) bool: positions whose states are asked for.
    """

    def __init__(
        self,
        cooperative: Cooperative,
        input_ids: np.ndarray,
        wanted: np.ndarray,
        batch_size: int = 16,
    ):
        self.cooperative = cooperative
        self._batches = torch.from_numpy(input_ids.astype(np.int64)).split(batch_size)
        self._wanted = torch.from_numpy(wanted).split(batch_size)

    @property
    def device(self) -> torch.device:
        """Where the models run."""
        return self.cooperative.tier.device()[0]

    @cached_property
    def trunk(self) -> SharedTrunk:
        """The trunk of the base."""
        base = self.cooperative.model(BASE).to(self.device)
        return SharedTrunk(base, self.cooperative.tier.frozen_layers)

    def _precision(self) -> torch.autocast:
        """Blocks in bf16 where a CPU multiplies that itself, heads and logits always in float32.

        On one core of an AMD EPYC a window of SmolLM2-135M takes 0.40 s so instead of 0.55; a
        token's log-probability moves by 0.010 nats, the mean of 6,000 tokens by 0.0005.
        """
        device, dtype, _ = self.cooperative.tier.device()
        on = device.type == "cpu" and dtype != torch.float32
        return torch.autocast(device.type, dtype=dtype if on else None, enabled=on)

    @cached_property
    def _trunk_states(self) -> list[torch.Tensor]:
        with self._precision():
            return [self.trunk.states(batch).cpu() for batch in self._batches]

    def branch(self, name: str) -> Branch:
        """The branch of one of the cooperative's models."""
        return self.trunk.branch(self.cooperative.model(name))

    def heads(self, names: Sequence[str]) -> torch.Tensor:
        """Output matrices (V, N, d) of models, or (V, 1, d) where they share that of the trunk."""
        if architectures.tied(self.trunk.config):
            return self.trunk.part["embed"].weight.detach()[:, None]
        return torch.stack([self.branch(name).head for name in names], 1)

    def states(self, branch: Branch, task: str) -> Iterator[torch.Tensor]:
        """Last hidden states (n, d) at the wanted positions, batch after batch, on the device."""
        done, total = 0, sum(map(len, self._batches))
        for states, wanted in zip(self._trunk_states, self._wanted, strict=True):
            with self._precision():
                last = branch.states(states)
            yield last[wanted.to(self.device)]
            done += len(wanted)
            progress.report(task, done, total)
