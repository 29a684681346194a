"""Documents that switch domain: made ones, switching at any rate, and natural ones.

The made ones hold the same held-out tokens at every rate, so that losses can be compared; the
natural ones are programs with docstrings and comments.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from . import corpora, packing
from .losses import Losses, Weights, over_runs
from .packing import Windows
from .specialists import BASE, Cooperative

PIECES = (16, 32, 64, 128, 256)
"""Tokens between two switches of an interleaved document."""

HALF = 256
"""Tokens that each of the two documents gives to an interleaved one."""

WHOLE = "whole"
"""The same tokens without a switch: each half is a document of its own."""

PROSE = re.compile(r'("""|\'\'\')(?:.|\n)*?(?:\1|\Z)|#[^\n]*')
"""Docstrings and other triple-quoted text, and comments, of Python."""


def long_documents(
    cooperative: Cooperative, domain: str, n_tokens: int, most: int
) -> list[tuple[list[int], corpora.Document]]:
    """Held-out documents of at least ``n_tokens`` with their token ids, spread over the split."""
    found = corpora.split(cooperative.corpora, domain)["heldout"]
    encoded = cooperative.tokenizer.encode_batch([d.text for d in found], add_special_tokens=False)
    enough = [(e.ids, d) for e, d in zip(encoded, found, strict=True) if len(e.ids) >= n_tokens]
    if not enough:
        raise corpora.CorpusError(
            f"{cooperative.corpora} has no held-out document of {n_tokens} tokens in {domain!r}: "
            "give longer documents"
        )
    chosen = np.linspace(0, len(enough) - 1, min(most, len(enough))).round().astype(int)
    return [enough[i] for i in chosen]


def interleaved(cooperative: Cooperative, n_documents: int, half: int = HALF) -> dict[str, Windows]:
    """Held-out documents of two domains, cut and interleaved more or less finely.

    The first ``half`` tokens of one and of another alternate in pieces; every pair of domains is
    used alike and no document twice. All kinds hold the same tokens, so that losses compare.

    Parameters
    ----------
    n_documents
        Most documents to use of each domain.

    Returns
    -------
    Windows by kind: the length of a piece as text, from :data:`PIECES`, then :data:`WHOLE`.
    """
    domains, pairs = cooperative.domains, []
    left = {d: iter(long_documents(cooperative, d, half, n_documents)) for d in domains}
    # One pair of domains after the other until a domain has no document left for the next one.
    for index, (one, two) in enumerate(itertools.cycle(itertools.combinations(domains, 2))):
        pair = next(left[one], None), next(left[two], None)
        if None in pair:
            break
        pairs.append(pair if index % 2 else pair[::-1])
    end = cooperative.tokenizer.token_to_id(packing.END)
    made = {}
    for piece in PIECES:
        ids = [interleave(a[0][:half], b[0][:half], piece) for a, b in pairs]
        documents = [corpora.joined(a[1], b[1], f"{a[1].domain} + {b[1].domain}") for a, b in pairs]
        made[str(piece)] = packing.windows_of_ids(ids, documents, end, cooperative.tier.seq_len)
    flat = [part for pair in pairs for part in pair]
    made[WHOLE] = packing.windows_of_ids(
        [ids[:half] for ids, _ in flat], [d for _, d in flat], end, cooperative.tier.seq_len
    )
    return made


def interleave(first: list[int], second: list[int], piece: int) -> list[int]:
    """Alternate pieces of two token sequences of one length."""
    starts = range(0, len(first), piece)
    return [token for s in starts for part in (first, second) for token in part[s : s + piece]]


def is_prose(text: str) -> np.ndarray:
    """Whether each character of a program stands in a docstring or a comment, (len(text),)."""
    mask = np.zeros(len(text), dtype=bool)
    for match in PROSE.finditer(text):
        mask[match.start() : match.end()] = True
    return mask


def natural(
    cooperative: Cooperative, n_documents: int, n_tokens: int = 2 * HALF, domain: str = "code"
) -> tuple[dict[str, Windows], np.ndarray] | None:
    """Held-out code by its share of docstrings and comments: switches that an author wrote.

    Returns
    -------
    Windows of the first ``n_tokens`` of each document, half of them ``little prose`` and half
    ``much prose``, and (n,) whether each token is prose; ``None`` where the cooperative has no
    such domain or hardly any document switches.
    """
    if domain not in cooperative.domains:
        return None
    found = []
    for ids, document in long_documents(cooperative, domain, n_tokens // 2, n_documents):
        offsets = cooperative.tokenizer.encode(document.text, add_special_tokens=False).offsets
        # The last character decides: a token may begin with the space before a comment.
        last = np.array([end - 1 for _, end in offsets[:n_tokens]])
        found.append((is_prose(document.text)[last], ids[:n_tokens], document))
    found.sort(key=lambda item: item[0].mean())
    if sum(0.1 < mask.mean() < 0.9 for mask, _, _ in found) < 8:
        return None
    end, half = cooperative.tokenizer.token_to_id(packing.END), len(found) // 2
    parts = {}
    for name, rows in (("little prose", found[:half]), ("much prose", found[half:])):
        parts[name] = packing.windows_of_ids(
            [ids for _, ids, _ in rows], [d for *_, d in rows], end, cooperative.tier.seq_len
        )
    return parts, np.concatenate([mask for mask, _, _ in found])


def rates(tables: Sequence[Losses], methods: dict[str, str]) -> pd.DataFrame:
    """Loss of methods by kind of document, and against the base, mean over runs with intervals.

    Parameters
    ----------
    tables
        One a run, each of a base of its own (see :func:`losses.over_runs`).
    methods
        Label → name in the tables.

    Returns
    -------
    One row a kind and method: columns kind (index), method, loss and against_base (nats/token),
    the latter two with ``_low`` and ``_high``.
    """
    rows = []
    for label, name in methods.items():
        for column, kind in enumerate(tables[0].groups):
            row: dict[str, object] = {"kind": kind, "method": label}
            for title, minus in (("loss", None), ("against_base", BASE)):

                def statistic(
                    run: int,
                    weights: Weights,
                    name: str = name,
                    minus: str | None = minus,
                    column: int = column,
                ) -> np.ndarray:
                    table = tables[run]
                    loss = table.by_group(name, weights)
                    return (loss - (table.by_group(minus, weights) if minus else 0))[..., column]

                found = over_runs(tables, statistic, range(len(tables)))
                row |= {title: found.value, f"{title}_low": found.low, f"{title}_high": found.high}
            rows.append(row)
    return pd.DataFrame(rows).set_index("kind")


def views(frame: pd.DataFrame) -> tuple[dict[str, list[dict]], list[str]]:
    """What ``figure_dispatch.switch_curves`` draws of :func:`rates`: its views and its ticks."""
    titles = {"loss": "loss, nats/token", "against_base": "loss − base, nats/token"}
    found = {
        title: [
            {
                "name": method,
                "y": part[name].to_numpy(),
                "low": part[f"{name}_low"].to_numpy(),
                "high": part[f"{name}_high"].to_numpy(),
            }
            for method, part in frame.groupby("method", sort=False)
        ]
        for name, title in titles.items()
    }
    return found, [str(kind) for kind in dict.fromkeys(frame.index)]
