"""Last hidden states that a ledger left in the store: what needs logits, and no model again.

Where the embedding is frozen and the head tied to it, one head serves all experts: a logit mixture
is that head applied to the gate-weighted mean of their states, and no expert's own logits are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from safetensors import safe_open

from . import ledger, packing, pooled_fit, progress, shared_trunk
from .packing import IGNORE, Windows
from .shared_trunk import Reader, token_log_probs
from .specialists import Cooperative


@dataclass(frozen=True)
class LastStates:
    """Last hidden states of models at the tokens of a ledger, mapped from the store.

    Attributes
    ----------
    models
        Names of the N models.
    columns
        (m, d) float32 of each, in the order of the whole text.
    heads
        (V, N, d) output matrices, or (V, 1, d) one for all.
    targets
        (m,) the tokens to predict.
    rows
        (n,) which of the m tokens are meant.
    """

    models: tuple[str, ...]
    columns: tuple[torch.Tensor, ...]
    heads: torch.Tensor
    targets: torch.Tensor
    rows: torch.Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def restrict(self, models: Sequence[str], tokens: torch.Tensor) -> LastStates:
        """The states of some of the models at some of the tokens (indices)."""
        chosen = [self.models.index(name) for name in models]
        heads = self.heads if self.heads.shape[1] == 1 else self.heads[:, chosen]
        columns = tuple(self.columns[i] for i in chosen)
        rows = self.rows[tokens]
        return replace(self, models=tuple(models), columns=columns, heads=heads, rows=rows)

    def at(self, tokens: torch.Tensor) -> torch.Tensor:
        """States (r, N, d) at tokens (r,), on the device of the heads."""
        rows = self.rows[tokens]
        return torch.stack([column[rows] for column in self.columns], 1).to(self.heads.device)

    def split(self) -> tuple[torch.Tensor, ...]:
        """Token indices in pieces of which all logits fit."""
        together = max(1, shared_trunk.MAX_LOGITS // len(self.heads))
        return torch.arange(len(self)).split(together)


def read(
    cooperative: Cooperative, parts: dict[str, Windows], name: str, models: Sequence[str]
) -> LastStates:
    """States that ``ledger.of_windows`` left with ``keep_states`` on the same text.

    Raises
    ------
    FileNotFoundError
        If it was not asked to keep those of one of the models; names the file.
    """
    windows = packing.concatenate(list(parts.values()))
    real, columns = windows.targets != IGNORE, []
    for model in models:
        column = ledger.column_path(cooperative, windows, name, model)
        with safe_open(ledger.states_path(column), framework="pt") as file:
            columns.append(file.get_tensor("states"))  # mapped: a page is read when it is used
    heads = Reader(cooperative, windows.input_ids, real).heads(models)
    targets = torch.from_numpy(windows.targets[real])
    return LastStates(tuple(models), tuple(columns), heads, targets, torch.arange(len(targets)))


@torch.no_grad()
def mixtures(
    states: LastStates, gates: Mapping[str, torch.Tensor], task: str
) -> dict[str, torch.Tensor]:
    """Log-probabilities (n,) of logit mixtures Σ_i g_i z_i, by name of their gates (n, N)."""
    heads = states.heads.flatten(1)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in gates}
    for tokens in states.split():
        here = states.at(tokens)
        wanted = states.targets[states.rows[tokens]].to(here.device)
        for name, weights in gates.items():
            given = weights[tokens].to(here)
            mixed = pooled_fit.weighted(here, given, shared=states.heads.shape[1] == 1)
            found[name].append(token_log_probs(mixed, heads, wanted).cpu())
        progress.report(task, int(tokens[-1]) + 1, len(states))
    return {name: torch.cat(pieces) for name, pieces in found.items()}


@torch.no_grad()
def divergence(states: LastStates, model: str, other: str) -> torch.Tensor:
    """KL(p_model ‖ p_other) (n,) of the whole next-token distributions, nats."""
    pair = states.restrict((model, other), torch.arange(len(states)))
    found = []
    for tokens in pair.split():
        said = zip(pair.at(tokens).unbind(1), pair.heads.expand(-1, 2, -1).unbind(1), strict=True)
        log_p, log_q = ((last @ head.T).log_softmax(-1) for last, head in said)
        found.append((log_p.exp() * (log_p - log_q)).sum(-1).cpu())
    return torch.cat(found)


@torch.no_grad()
def window_means(states: LastStates, window: torch.Tensor) -> torch.Tensor:
    """Mean state (W, d) over models and tokens of each window (n,): what pooled routers read."""
    n_windows = int(window.max()) + 1
    total = torch.zeros(n_windows, states.columns[0].shape[1])
    for tokens in states.split():
        total.index_add_(0, window[tokens], states.at(tokens).mean(1).cpu())
    return total / torch.bincount(window, minlength=n_windows)[:, None]
