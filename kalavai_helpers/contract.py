"""The ε-contract on given text: what it saves, what it may change, and what it does change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch

from . import corpora
from .packing import IGNORE, Windows

if TYPE_CHECKING:
    from .fused_model import FusedForCausalLM


@torch.no_grad()
def measure(
    model: FusedForCausalLM, windows: Windows, epsilons: Sequence[float], batch_size: int = 16
) -> pd.DataFrame:
    """Run a fused model under several ε and compare every prediction with the dense one.

    Parameters
    ----------
    model
        With a router that allows ε (see :mod:`kalavai_helpers.sparse`).
    windows
        Each window is a sequence of its own.

    Returns
    -------
    pandas.DataFrame
        One row an ε, 0 (dense) among them: ``experts`` that a token is read by, on average;
        ``bound`` and ``change``, the largest promised and the largest actual total variation of a
        prediction; ``mean_change``; ``loss``, nats/token, and ``loss_change``, % of the dense loss.
    """
    corpora.require_role(windows.role, "heldout", "Measuring the ε-contract")
    rows = {epsilon: _Sums() for epsilon in sorted({0.0, *epsilons})}
    for start in range(0, len(windows.input_ids), batch_size):
        part = slice(start, start + batch_size)
        inputs = torch.from_numpy(windows.input_ids[part]).to(model.device)
        targets = torch.from_numpy(windows.targets[part]).to(model.device)
        real = targets != IGNORE
        dense = None
        for epsilon, sums in rows.items():
            output = model(inputs, attention_mask=real.long(), epsilon=epsilon)
            log_probs = output.logits[real]
            dense = log_probs if dense is None else dense
            change = (log_probs.exp() - dense.exp()).abs().sum(-1) / 2
            sums.add(output, real, change, log_probs.gather(-1, targets[real][:, None]))
    table = pd.DataFrame({epsilon: sums.row() for epsilon, sums in rows.items()}).T
    table["loss_change"] = 100 * (table.loss / table.loss[0.0] - 1)
    return table.rename_axis("epsilon")


class _Sums:
    """What one ε adds up to over all windows."""

    def __init__(self) -> None:
        self.tokens = self.positions = self.read = 0
        self.bound = self.change = self.changes = self.loss = 0.0

    def add(self, output, real: torch.Tensor, change: torch.Tensor, said: torch.Tensor) -> None:
        self.tokens += int(real.sum())
        self.positions += real.numel()
        self.read += int(output.branch_tokens.sum())
        self.bound = max(self.bound, float(output.bound[real].max()))
        self.change = max(self.change, float(change.max()))
        self.changes += float(change.double().sum())
        self.loss -= float(said.double().sum())

    def row(self) -> dict[str, float]:
        return {
            "experts": self.read / self.positions,
            "bound": self.bound,
            "change": self.change,
            "mean_change": self.changes / self.tokens,
            "loss": self.loss / self.tokens,
        }
