"""Dispatch: a whole document goes to one specialist.

The published baseline sends each input to the specialist that a domain classifier names. Here is
that classifier, its accuracy, and dispatch beside routing on the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import corpora, evaluation, protocols, routing
from . import ledger as ledgers
from .evaluation import Fused
from .ledger import Ledger
from .losses import Estimate, Losses, Weights, over_runs
from .protocols import Protocol
from .specialists import BASE, Cooperative

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

OPENINGS = (16, 32, 64)
"""Tokens of a chunk after which a decision is asked for."""

SAME_TEXT, PUBLISHED_CHOICE = "same text", "published choice"
"""Two of the texts that a base may be measured on (see :func:`references`)."""


def pooled(
    ledger: Ledger, unit: torch.Tensor, first: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean base state of every unit, or of its first tokens.

    Parameters
    ----------
    unit
        (n,) the document or the window of each token: ``ledger.document`` or ``ledger.window``.
    first
        Leading tokens of a unit to read; ``None`` reads all, those to be predicted included.

    Returns
    -------
    (units, F) states and (units,) the document of each unit.
    """
    counts = torch.bincount(unit)
    start = counts.cumsum(0) - counts
    keep = slice(None)
    if first is not None:
        keep = torch.arange(len(unit)) - start[unit] < first
    total = torch.zeros(len(counts), ledger.features.shape[1], dtype=torch.float64)
    total.index_add_(0, unit[keep], ledger.features[keep].double())
    read = torch.bincount(unit[keep], minlength=len(counts))
    return (total / read[:, None]).numpy(), ledger.document[start].numpy()


def fit(ledger: Ledger) -> Pipeline:
    """Fit a domain classifier: logistic regression on mean-pooled base states.

    As published, but on the last hidden state (published: of the fourth block), on documents that
    no specialist trained on, and on chunks as well as their openings, so that it can decide early.

    Parameters
    ----------
    ledger
        Its groups are the classes; use the role ``router``.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    corpora.require_role(ledger.role, "router", "A domain classifier")
    parts = [pooled(ledger, ledger.window, first) for first in (*OPENINGS, None)]
    states = np.concatenate([part[0] for part in parts])
    labels = ledger.group.numpy()[np.concatenate([part[1] for part in parts])]
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(states, labels)


def gates(
    ledger: Ledger, classifier: Pipeline, unit: torch.Tensor | None = None, first: int | None = None
) -> torch.Tensor:
    """Gates (n, N) of the classifier: its probabilities, one vector a unit (default: document).

    Not causal, as published: the unit is read to its end before its first token is predicted.
    ``evaluation.dispatch`` turns them into hard dispatch.
    """
    unit = ledger.document if unit is None else unit
    states, _ = pooled(ledger, unit, first)
    return torch.from_numpy(classifier.predict_proba(states))[unit]


def own_gates(ledger: Ledger) -> torch.Tensor:
    """Gates (n, N) of a classifier that never errs: each document to the expert of its group.

    Raises
    ------
    ValueError
        If the groups of the ledger are not the experts, so that no document has an owner.
    """
    if ledger.groups != ledger.experts:
        raise ValueError(f"Documents of {ledger.groups} have no owner among {ledger.experts}")
    return torch.eye(len(ledger.experts), dtype=torch.float64)[ledger.token_group]


def early(ledger: Ledger, classifier: Pipeline, first: int) -> torch.Tensor:
    """Log-probabilities (n,) of a dispatch that is causal: the base, then the chosen specialist.

    The base predicts the first tokens of a document; the classifier then decides from them.
    """
    chosen = gates(ledger, classifier, first=first).argmax(1)
    log_probs = ledger.expert_log_probs.gather(1, chosen[:, None])[:, 0]
    counts = torch.bincount(ledger.document)
    rank = torch.arange(len(ledger)) - (counts.cumsum(0) - counts)[ledger.document]
    return torch.where(rank < first, ledger.column(BASE).double(), log_probs)


def accuracy(ledger: Ledger, classifier: Pipeline) -> pd.DataFrame:
    """Accuracy in [0, 1] on openings, chunks and documents, mean over domains, with intervals.

    Returns
    -------
    Columns accuracy, low, high (interval over sources and documents) and units; rows from short to long.
    """
    import pandas as pd

    corpora.require_role(ledger.role, "heldout", "The accuracy of a classifier")
    rows = {}
    for name, unit, first in (
        *((f"first {k} tokens of a chunk", ledger.window, k) for k in OPENINGS),
        ("chunk", ledger.window, None),
        ("document", ledger.document, None),
    ):
        states, document = pooled(ledger, unit, first)
        right = classifier.predict(states) == ledger.group.numpy()[document]
        sums = np.bincount(document, right, minlength=ledger.n_documents)
        table = Losses(
            {"right": sums},
            np.bincount(document, minlength=ledger.n_documents),
            ledger.group.numpy(),
            ledger.groups,
            ledger.source,
        )
        found = table.interval(lambda w, table=table: table.equal_weight("right", w))
        rows[name] = {
            "accuracy": found.value,
            "low": found.low,
            "high": found.high,
            "units": len(right),
        }
    return pd.DataFrame(rows).T


def difference(tables: Sequence[Losses], method: str, other: str, *groups: str) -> Estimate:
    """Loss of one method minus another's on the same tokens, nats/token, mean over runs.

    Parameters
    ----------
    tables
        One a run, each of a base of its own (see :func:`losses.over_runs`).
    groups
        Groups of documents that the mean is taken over; none named: all.
    """
    columns = [tables[0].groups.index(group) for group in groups or tables[0].groups]

    def statistic(run: int, weights: Weights) -> np.ndarray:
        table = tables[run]
        gap = table.by_group(method, weights) - table.by_group(other, weights)
        return gap[..., columns].mean(-1)

    return over_runs(tables, statistic, range(len(tables)))


def compare(tables: Sequence[Losses], methods: dict[str, str]) -> pd.DataFrame:
    """Equal-weight loss of methods and improvement over the base, mean over runs with intervals.

    Parameters
    ----------
    tables
        One a run, each of a base of its own (see :func:`losses.over_runs`).
    methods
        Label of a row → name in the tables.

    Returns
    -------
    Columns loss (nats/token) and vs_base (%), each with ``_low`` and ``_high``.
    """
    import pandas as pd

    bases, rows = range(len(tables)), {}
    for label, name in methods.items():

        def loss(run: int, weights: Weights, name: str = name) -> np.ndarray:
            return tables[run].equal_weight(name, weights)

        def better(run: int, weights: Weights, name: str = name) -> np.ndarray:
            ratio = tables[run].equal_weight(name, weights) / tables[run].equal_weight(
                BASE, weights
            )
            return 100 * (1 - ratio)

        rows[label] = {}
        for column, statistic in (("loss", loss), ("vs_base", better)):
            found = over_runs(tables, statistic, bases)
            ends = {f"{column}_low": found.low, f"{column}_high": found.high}
            rows[label] |= {column: found.value, **ends}
    return pd.DataFrame(rows).T


def hard(ledger: Ledger, gates: torch.Tensor) -> Fused:
    """Give every token to the expert with its largest gate."""
    chosen = torch.eye(gates.shape[1], dtype=torch.float64)[gates.argmax(1)]
    return Fused(evaluation.dispatch(ledger, gates), chosen)


@dataclass(frozen=True)
class Dispatcher:
    """What decides for one cooperative: the document classifier and the linear router.

    Both are fitted on the ``router`` documents, which no specialist trained on.
    """

    cooperative: Cooperative
    classifier: Pipeline
    linear: routing.LinearRouter

    @classmethod
    def of(cls, cooperative: Cooperative) -> Dispatcher:
        """Fit both, training what is missing of the cooperative."""
        fitting = ledgers.build(cooperative, "router")
        return cls(cooperative, fit(fitting), routing.fit_linear(fitting))

    def fuse(self, ledger: Ledger) -> dict[str, Fused]:
        """Dispatch and routing, hard and soft, on a ledger's tokens.

        Returns
        -------
        ``classifier``, ``classifier, soft``, ``classifier, chunks`` (decides once a window),
        ``label`` (where documents have an owner), and ``evidence`` and ``linear``, both also
        ``…, hard``.
        """
        routers = {"evidence": routing.EvidenceRouter(), "linear": self.linear}
        fused = evaluation.route(ledger, routers)
        fused |= {f"{name}, hard": hard(ledger, entry.gates) for name, entry in fused.items()}
        soft = gates(ledger, self.classifier)
        mixed = routing.fuse_log_probs(soft, ledger.expert_log_probs)
        fused["classifier, soft"] = Fused(mixed, soft)
        fused["classifier"] = hard(ledger, soft)
        fused["classifier, chunks"] = hard(ledger, gates(ledger, self.classifier, ledger.window))
        if ledger.groups == ledger.experts:
            fused["label"] = hard(ledger, own_gates(ledger))
        return fused

    def losses(self, ledger: Ledger, first: int = 32) -> Losses:
        """Losses of all of :meth:`fuse`, of ``classifier, first K`` (:func:`early`) and oracles."""
        found = {name: entry.log_probs for name, entry in self.fuse(ledger).items()}
        found[f"classifier, first {first}"] = early(ledger, self.classifier, first)
        return evaluation.losses(ledger, found)


def accounting_residual(ledger: Ledger, fused: dict[str, Fused]) -> float:
    """Largest difference, pp, between a gain and oracle gain − regret + bonus."""
    found = [evaluation.account(ledger, n, f.log_probs, f.gates) for n, f in fused.items()]
    return max(
        abs(
            a.oracle_gain_pct.value
            - a.routing_regret_pct.value
            + a.mixing_bonus_pct.value
            - a.gain_pct.value
        )
        for a in found
    )


def references(
    ledger: Ledger, dispatched: torch.Tensor, fused: torch.Tensor, domains: tuple[str, ...]
) -> pd.DataFrame:
    """Improvement over the base of the same models, by the text that the base is measured on.

    The published choice: the base reads the head of the first domain (there 200 of its 316
    chunks), the fused model half of that head, dispatch every domain (there 16 chunks of each, in
    which an interval over documents would have two or three). In all other rows dispatch and
    fused model read all text of ``domains``.

    Parameters
    ----------
    ledger
        Its groups are the texts that the base may be measured on, ``domains`` among them.
    dispatched, fused
        (n,) log-probabilities on the ledger's tokens.
    domains
        The contributors, the first first.

    Returns
    -------
    Rows ``same text``, ``published choice`` and each group alone; columns base_loss
    (nats/token), dispatch and fused (%), both with ``_low`` and ``_high``.
    """
    import pandas as pd

    same, first = Protocol(domains=domains), domains[:1]
    (chunks,) = Protocol(single_batch=1, domains=first).batches(ledger)
    n_head = max(1, round(200 / 316 * len(chunks) / 4))
    published = (
        Protocol(n_batches=n_head, domains=first),
        same,
        Protocol(fused_batch=2, n_batches=n_head, domains=first),
    )
    choices = {SAME_TEXT: (same, same, same), PUBLISHED_CHOICE: published}
    choices |= {
        f"{group} only": (Protocol(domains=(group,)), same, same) for group in ledger.groups
    }
    rows = {}
    for name, (of_base, of_dispatch, of_fused) in choices.items():
        base = protocols.loss(ledger, ledger.column(BASE), of_base)
        row = {"base_loss": float(base(None))}
        for model, log_probs, how in (
            ("dispatch", dispatched, of_dispatch),
            ("fused", fused, of_fused),
        ):
            read = protocols.loss(ledger, log_probs, how, fused=model == "fused")
            found = protocols.improvement_pct(ledger, base, read)
            row |= {model: found.value, f"{model}_low": found.low, f"{model}_high": found.high}
        rows[name] = row
    return pd.DataFrame(rows).T.rename_axis("the base is measured on")
