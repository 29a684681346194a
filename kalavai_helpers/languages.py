"""What a language costs: perplexity, bits per byte, what a contributor gains, mixed sentences."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from . import evaluation
from .ledger import Ledger
from .losses import Estimate
from .specialists import BASE

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

SENTENCES = {
    "Welsh, then Yoruba": "Mae Cymru yn wlad fach. Orílẹ̀-èdè kékeré ni Wales.",
    "Yoruba, then Welsh": "Ọjọ́ Ajé ni òní, oṣù Kẹta. Dydd Llun yw hi, mis Mawrth.",
    "Tamil, then Welsh": "இன்று திங்கள், மார்ச் 3. Dydd Llun, 3 Mawrth.",
    "Welsh inside code": 'def diwrnod(dyddiad):\n    """Enw y diwrnod."""\n    return "Dydd Llun"',
    "Yoruba inside code": 'months = ["Oṣù Kínní", "Oṣù Kejì"]\nfor name in months:\n    print(name)',
    "Tamil inside code": 'def day(n):\n    # இன்று திங்கள்\n    return "திங்கள்"',
}
"""Short code-switched texts written for this chapter, about days and months."""


def costs(found: Ledger, methods: Mapping[str, torch.Tensor]) -> pd.DataFrame:
    """Cost of every domain under several methods, in three units.

    Parameters
    ----------
    methods
        (n,) log-probabilities by name. ``own specialist`` and ``base`` are added.

    Returns
    -------
    Index domain and method; columns loss (nats/token), perplexity, bits_per_byte. Only the last
    compares across languages, and across tokenizers: a token is a different piece of text in each.
    """
    table = evaluation.losses(found, dict(methods))
    member = table.group[:, None] == np.arange(len(table.groups))
    n_bytes = found.n_bytes.numpy() @ member
    rows = []
    for index, domain in enumerate(found.groups):
        for method in (BASE, domain, *methods):
            loss = table.by_group(method)[index]
            bits = (table.sums[method] @ member)[index] / np.log(2) / n_bytes[index]
            name = "own specialist" if method == domain else method
            row = {"domain": domain, "method": name, "loss": loss}
            rows.append({**row, "perplexity": np.exp(loss), "bits_per_byte": bits})
    return pd.DataFrame(rows).set_index(["domain", "method"])


def bytes_per_token(found: Ledger) -> pd.Series:
    """UTF-8 bytes that a token of each domain stands for."""
    tokens = np.bincount(found.token_group, minlength=len(found.groups))
    size = np.bincount(found.group, found.n_bytes, minlength=len(found.groups))
    return pd.Series(size / tokens, index=found.groups, name="bytes per token")


def perplexity_factor(found: Ledger, domain: str, log_probs: torch.Tensor) -> Estimate:
    """How many times lower a method's perplexity on a domain is than the base's."""
    table = evaluation.losses(found, {"method": log_probs})
    column = table.groups.index(domain)

    def statistic(weights: np.ndarray | None) -> np.ndarray:
        base, ours = (table.by_group(name, weights)[..., column] for name in (BASE, "method"))
        return np.exp(base - ours)

    return table.interval(statistic)


def contributions(found: Ledger, log_probs: torch.Tensor) -> pd.DataFrame:
    """What the fused model gives each contributor, who arrives with their own specialist.

    Returns
    -------
    One row a contributor, nats/token with 95 % intervals over sources and documents: ``own_vs_base`` and
    ``own_vs_specialist`` (loss saved on their own domain, against the base and against what they
    had), ``others`` (loss saved on the other domains, against what they had).
    """
    table = evaluation.losses(found, {"fused": log_probs})
    rows = {}
    for column, domain in enumerate(found.experts):
        others = [d for d in range(len(found.groups)) if d != column]

        def saved(weights, worse, columns):
            lost = table.by_group(worse, weights) - table.by_group("fused", weights)
            return lost[..., columns].mean(-1)

        row = {}
        for name, worse, columns in (
            ("own_vs_base", BASE, [column]),
            ("own_vs_specialist", domain, [column]),
            ("others", domain, others),
        ):
            estimate = table.interval(lambda w, worse=worse, c=columns: saved(w, worse, c))
            row |= {name: estimate.value, f"{name}_low": estimate.low}
            row[f"{name}_high"] = estimate.high
        rows[domain] = row
    return pd.DataFrame(rows).T.rename_axis("contributor")


def script(text: str) -> str:
    """The script that most letters of a text belong to, e.g. ``Latin``; empty without letters.

    Unicode names a letter after its script: LATIN SMALL LETTER A WITH GRAVE, TAMIL LETTER KA.
    """
    names = (unicodedata.name(c, "").partition(" ")[0] for c in text if c.isalpha())
    found = Counter(name for name in names if name)
    return found.most_common(1)[0][0].capitalize() if found else ""


def token_labels(tokenizer: Tokenizer, text: str) -> list[str]:
    """The piece of text that each token adds, readable in every script.

    A byte-level token may be part of a character. The character stands at the first of its
    tokens, ``·`` at the others.
    """
    labels, shown = [], 0
    for start, end in tokenizer.encode(text, add_special_tokens=False).offsets:
        labels.append(text[max(start, shown) : end] or "·")
        shown = max(shown, end)
    return labels
