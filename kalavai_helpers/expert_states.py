"""Expert states: a ledger whose features are what the experts make of a text, not the base.

The published router reads the mean last hidden state of the experts. To read it, all of them have
to run before a gate is known; whether that buys anything over the base's state is a question that
two ledgers with the same scores and different features can answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch

from . import artifacts, ledger, packing, progress
from .ledger import Ledger, compact
from .packing import IGNORE, Windows
from .specialists import CODE, Cooperative

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ExpertLedger(Ledger):
    """A ledger whose ``features`` (n, F) are the mean last hidden state of the experts, compact.

    ``states_of`` names the experts of that mean: when one of them leaves, it has to be read again.
    """

    states_of: tuple[str, ...] = ()

    def restrict(self, domains: tuple[str, ...], groups: tuple[str, ...] | None = None) -> Ledger:
        """Refused: a mean over all experts is not one over some.

        Raises
        ------
        ValueError
            Always.
        """
        raise ValueError(
            f"The states are the mean of {', '.join(self.states_of)}: restrict the ordinary "
            "ledger, and read the states of its experts again"
        )


def held(found: Ledger) -> str:
    """Whose states a ledger holds: ``"base"`` or ``"experts"``.

    Raises
    ------
    ValueError
        If they are the mean of other experts than the ledger's.
    """
    if not isinstance(found, ExpertLedger):
        return "base"
    if found.states_of != found.experts:
        raise ValueError(
            f"The states are the mean of {', '.join(found.states_of)}, and the experts are "
            f"{', '.join(found.experts)}: read them again"
        )
    return "experts"


@torch.no_grad()
def read(
    found: Ledger,
    experts: Sequence[PreTrainedModel],
    windows: Windows,
    task: str = "expert states",
    *,
    batch_size: int = 16,
) -> ExpertLedger:
    """The same ledger with the mean state of the experts as features.

    Parameters
    ----------
    experts
        The ledger's experts, in its order; each reads the text once.
    windows
        The windows that the ledger was made of.

    Raises
    ------
    ValueError
        For another number of experts or of tokens than the ledger's.
    """
    if (len(experts), windows.n_tokens) != (len(found.experts), len(found)):
        raise ValueError(
            f"The ledger has {len(found.experts)} experts and {len(found)} tokens, and given are "
            f"{len(experts)} and {windows.n_tokens}: give the models and windows it was made of"
        )
    states = []
    for start in range(0, len(windows.input_ids), batch_size):
        rows = slice(start, start + batch_size)
        device = experts[0].device
        ids = torch.from_numpy(windows.input_ids[rows]).to(device)
        real = torch.from_numpy(windows.targets[rows] != IGNORE).to(device)
        said = [expert.base_model(ids).last_hidden_state[real].float() for expert in experts]
        states.append(compact(torch.stack(said).mean(0)).cpu())
        progress.report(task, min(rows.stop, len(windows.input_ids)), len(windows.input_ids))
    return _with(found, torch.cat(states))


def build(cooperative: Cooperative, role: str = "heldout") -> ExpertLedger:
    """Ledger with the expert states of a role's documents, from the store where it is there."""
    found = ledger.build(cooperative, role)
    windows = packing.concatenate([cooperative.windows(role, d) for d in cooperative.domains])
    key = artifacts.fingerprint(
        cooperative.fingerprint(),
        hashlib.sha256(windows.targets.tobytes()).hexdigest(),
        artifacts.code_digest(["expert_states", "ledger", *CODE]),
    )
    path = artifacts.store() / "ledgers" / f"{role}-expert-states-{key}.safetensors"
    saved = artifacts.load_tensors(path)
    if saved is not None:
        return _with(found, saved[0]["features"])
    device = cooperative.tier.device()[0]
    experts = [cooperative.model(name).to(device) for name in cooperative.domains]
    task = f"expert states {role} (seed {cooperative.seed})"
    made = read(found, experts, windows, task)
    artifacts.save_tensors(path, {"features": made.features}, {"models": made.states_of})
    return made


def _with(found: Ledger, features: torch.Tensor) -> ExpertLedger:
    kept = {field.name: getattr(found, field.name) for field in fields(Ledger)}
    return ExpertLedger(**{**kept, "features": features}, states_of=found.experts)
