"""The ε-contract: which experts may be skipped, and by how much that can change a prediction.

Under probability mixing p = Σ g_i p_i. Experts outside a set S are skipped and the kept gates
divided by their sum 1 − s, with s = Σ_{i ∉ S} g_i. Then p = (1 − s) p_S + s p_rest, so that the
total variation between p and p_S is s · TV(p_rest, p_S) ≤ s. The contract is s ≤ ε.

It needs gates that are known before the experts have run. Those of the evidence router are not:
its weight of a skipped expert is at least α/N after every token and is divided by the likelihood
p_1(x_t) of those that ran, so that with p_i ≤ 1 as the only bound the skipped weight passes ε
after a token or two, and catching up costs what running would have cost.
"""

from __future__ import annotations

import torch

_SLACK = 1 - 1e-6
"""So that sums in another order and precision stay below ε too."""


def kept(gates: torch.Tensor, epsilon: float) -> torch.Tensor:
    """The fewest experts whose gates leave at most ``epsilon`` to the others, (..., N) bool.

    The largest gate is always kept; ``epsilon`` 0 keeps all.
    """
    if not epsilon:
        return torch.ones_like(gates, dtype=torch.bool)
    ascending, order = gates.double().sort(-1)
    needed = ascending.cumsum(-1) > epsilon * _SLACK
    needed[..., -1] = True
    return torch.zeros_like(needed).scatter(-1, order, needed)


def bound(gates: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Total variation (...) by which skipping can change the prediction: the skipped gates."""
    return gates.double().masked_fill(keep, 0).sum(-1)


def runs(last: torch.Tensor) -> list[tuple[torch.Tensor, int]]:
    """Rows to run together, and how far: ``last`` (B,) counts the tokens each row needs.

    Rows whose needs are within a factor of two go together, so that an expert that is needed for
    the first tokens of many documents and for all of one does not read all of all.
    """
    needed, groups = last.tolist(), {}
    for row, end in enumerate(needed):
        if end:  # lengths up to 32 cost about the same
            groups.setdefault((max(end, 32) - 1).bit_length(), []).append(row)
    return [
        (torch.tensor(rows, device=last.device), max(needed[row] for row in rows))
        for _, rows in sorted(groups.items())
    ]
