"""The token ledger: log p_i(x_t | x_<t) of every model for every held-out token.

One pass a model. From the ledger come, without touching a model again, any causal router's fused
loss under probability mixing, every oracle and every interval over sources and documents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import artifacts, corpora, packing, progress
from .packing import IGNORE, Windows
from .shared_trunk import Reader, SharedTrunk, token_log_probs
from .specialists import BASE, CODE, Cooperative

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_FEATURES = 128
WEIGHT_AVERAGE = "weight_average"


@dataclass(frozen=True)
class Ledger:
    """Scores of several models on the same tokens, in document order.

    Attributes
    ----------
    models
        Names of the columns of ``log_probs``: base, one specialist a domain, extras.
    experts
        The columns that routers choose from.
    groups
        Names of the evaluation domains (or of the kinds of switching documents).
    log_probs
        (n, M) float32, nats.
    features
        (n, F) float32: the base's last hidden state where the token is predicted, compact.
    document, window
        (n,) int64: the document and the window each token belongs to.
    group
        (n_documents,) int64 index into ``groups``.
    n_bytes
        (n_documents,) int64: UTF-8 bytes of each document, for bits per byte.
    role
        What the documents were set aside for, a key of ``corpora.SPLITS``: routers are fitted on
        ``router``, methods compared on ``heldout``.
    source
        (n_documents,) names: documents of one source are not independent
        (``corpora.Document.unit``).
    """

    models: tuple[str, ...]
    experts: tuple[str, ...]
    groups: tuple[str, ...]
    log_probs: torch.Tensor
    features: torch.Tensor
    document: torch.Tensor
    window: torch.Tensor
    group: torch.Tensor
    n_bytes: torch.Tensor
    role: str
    source: np.ndarray

    def __len__(self) -> int:
        return len(self.log_probs)

    def column(self, name: str) -> torch.Tensor:
        """Log-probabilities of one model, (n,)."""
        return self.log_probs[:, self.models.index(name)]

    @property
    def expert_log_probs(self) -> torch.Tensor:
        """Log-probabilities of the experts, (n, N) float64: sums over documents stay exact."""
        return self.log_probs[:, [self.models.index(name) for name in self.experts]].double()

    @property
    def n_documents(self) -> int:
        """Number of documents."""
        return len(self.group)

    @property
    def token_group(self) -> torch.Tensor:
        """Group of every token, (n,)."""
        return self.group[self.document]

    def positions(self) -> torch.Tensor:
        """Index of each document's tokens, (n_documents, longest), -1 behind the end."""
        lengths = torch.bincount(self.document, minlength=self.n_documents)
        starts = lengths.cumsum(0) - lengths
        grid = starts[:, None] + torch.arange(int(lengths.max()))[None]
        return torch.where(grid < (starts + lengths)[:, None], grid, -1)

    def with_column(self, name: str, log_probs: torch.Tensor) -> Ledger:
        """The same ledger with one more column (n,)."""
        joined = torch.cat([self.log_probs, log_probs[:, None]], 1)
        return replace(self, models=(*self.models, name), log_probs=joined)

    def restrict(self, domains: tuple[str, ...], groups: tuple[str, ...] | None = None) -> Ledger:
        """The ledger of the cooperative of some of the domains: their experts, their documents.

        The weight average is left out: it is of all specialists.

        Parameters
        ----------
        groups
            Whose documents, where groups are not domains.
        """
        groups = domains if groups is None else groups
        models = tuple(m for m in self.models if m in (BASE, *domains))
        keep = torch.isin(self.group, torch.tensor([self.groups.index(g) for g in groups]))
        tokens = keep[self.document]
        order = torch.full((len(self.groups),), -1)
        order[[self.groups.index(g) for g in groups]] = torch.arange(len(groups))
        return Ledger(
            models=models,
            experts=domains,
            groups=groups,
            log_probs=self.log_probs[tokens][:, [self.models.index(m) for m in models]],
            features=self.features[tokens],
            document=(keep.cumsum(0) - 1)[self.document[tokens]],
            window=self.window[tokens].unique_consecutive(return_inverse=True)[1],
            group=order[self.group[keep]],
            n_bytes=self.n_bytes[keep],
            role=self.role,
            source=self.source[keep.numpy()],
        )


def score(
    model: PreTrainedModel,
    windows: Windows,
    task: str,
    *,
    states: bool = False,
    batch_size: int = 16,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-probability of every token, (n,), and on request the last hidden states (n, F)."""
    trunk = SharedTrunk(model, 0)
    branch = trunk.branch(model)
    found, kept, done = [], [], 0
    for ids, targets in zip(
        torch.from_numpy(windows.input_ids).split(batch_size),
        torch.from_numpy(windows.targets).split(batch_size),
        strict=True,
    ):
        real = targets != IGNORE
        last = branch.states(trunk.states(ids))[real.to(trunk.device)]
        found.append(token_log_probs(last, branch.head, targets[real].to(trunk.device)).cpu())
        if states:
            kept.append(compact(last).cpu())
        done += len(ids)
        progress.report(task, done, len(windows.input_ids))
    return torch.cat(found), torch.cat(kept) if states else None


def compact(states: torch.Tensor) -> torch.Tensor:
    """Hidden states (n, d) in at most 128 dimensions, by a fixed random projection."""
    width = states.shape[-1]
    if width <= MAX_FEATURES:
        return states
    generator = torch.Generator().manual_seed(0)
    projection = torch.randn(width, MAX_FEATURES, generator=generator) / MAX_FEATURES**0.5
    return states @ projection.to(states.device)


def build(cooperative: Cooperative, role: str = "heldout") -> Ledger:
    """Ledger of base, specialists and weight average on the documents of a role.

    Read from the store where it is there; a truncated file is set aside and rebuilt.
    """
    parts = {domain: cooperative.windows(role, domain) for domain in cooperative.domains}
    return of_windows(cooperative, parts, role)


def of_windows(
    cooperative: Cooperative,
    parts: dict[str, Windows],
    name: str,
    *,
    models: Sequence[str] | None = None,
    keep_states: bool = False,
) -> Ledger:
    """Ledger on given windows; ``parts`` maps a group (domain, kind of document) to its text.

    Its role is that of the documents; ``name`` only says in the store and in progress lines what
    it is. What each model says is left in the store as soon as it has read the text.

    Parameters
    ----------
    models
        Columns, base first; by default base, specialists and, but for fitting, weight average.
    keep_states
        Leave the last hidden states in the store as well (:mod:`kalavai_helpers.last_states`).

    Raises
    ------
    RoleError
        If the documents have several roles.
    """
    joined = packing.concatenate(list(parts.values()))
    role = joined.role
    if models is None:
        # The documents that routers are fitted on are never used to compare models.
        average = (WEIGHT_AVERAGE,) if role != "router" else ()
        models = (BASE, *cooperative.domains, *average)
    columns = _columns(cooperative, joined, name, models, keep_states)
    counts = torch.tensor([len(windows.documents) for windows in parts.values()])
    real = torch.from_numpy((joined.targets != IGNORE).sum(1))
    return Ledger(
        models=tuple(models),
        experts=tuple(domain for domain in cooperative.domains if domain in models),
        groups=tuple(parts),
        log_probs=torch.stack([columns[model]["log_probs"] for model in models], 1),
        features=columns[BASE]["features"],
        document=torch.from_numpy(joined.document).repeat_interleave(real),
        window=torch.arange(len(real)).repeat_interleave(real),
        group=torch.arange(len(parts)).repeat_interleave(counts),
        n_bytes=torch.tensor([len(document.text.encode()) for document in joined.documents]),
        role=role,
        source=np.array([document.unit for document in joined.documents]),
    )


def _columns(
    cooperative: Cooperative,
    windows: Windows,
    title: str,
    models: Sequence[str],
    keep_states: bool,
) -> dict[str, dict[str, torch.Tensor]]:
    """What each model says of the text: ``log_probs`` (n,), and the base's ``features`` (n, F)."""
    real = windows.targets != IGNORE
    reader = Reader(cooperative, windows.input_ids, real)
    targets = torch.from_numpy(windows.targets[real])
    columns = {}
    for name in models:
        path = column_path(cooperative, windows, title, name)
        saved = artifacts.load_tensors(path)
        if saved is None or (keep_states and not states_path(path).exists()):
            task = f"ledger {title} {name} (seed {cooperative.seed})"
            column, states = _read(reader, name, task, targets, keep_states)
            if keep_states:
                artifacts.save_tensors(states_path(path), {"states": states}, {})
            saved = column, {}
            artifacts.save_tensors(path, *saved)
            progress.pause_point()
        columns[name] = saved[0]
    return columns


def _read(
    reader: Reader, name: str, task: str, targets: torch.Tensor, keep_states: bool
) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    branch = reader.branch(name)
    found, features, states, done = [], [], [], 0
    for last in reader.states(branch, task):
        wanted = targets[done : done + len(last)].to(last.device)
        found.append(token_log_probs(last, branch.head, wanted).cpu())
        done += len(last)
        if name == BASE:
            features.append(compact(last).cpu())
        if keep_states:
            states.append(last.cpu())
    column = {"log_probs": torch.cat(found)}
    column |= {"features": torch.cat(features)} if features else {}
    return column, torch.cat(states) if states else None


def column_path(cooperative: Cooperative, windows: Windows, title: str, name: str) -> Path:
    """Where the store keeps what a model says of a text."""
    made_of = cooperative.domains if name == WEIGHT_AVERAGE else (name,)
    key = artifacts.fingerprint(
        [cooperative.path(model).name for model in made_of],
        hashlib.sha256(windows.targets.tobytes()).hexdigest(),
        [document.id for document in windows.documents],
        artifacts.code_digest(["ledger", "shared_trunk", "architectures", *CODE]),
    )
    return artifacts.store() / "ledgers" / f"{title}-{name}-{key}.safetensors"


def missing(
    cooperative: Cooperative,
    parts: dict[str, Windows],
    name: str,
    models: Sequence[str],
    *,
    keep_states: bool = False,
) -> list[str]:
    """Models whose scores :func:`of_windows` would not find in the store."""
    joined = packing.concatenate(list(parts.values()))
    paths = {model: column_path(cooperative, joined, name, model) for model in models}
    return [
        model
        for model, path in paths.items()
        if not (path.exists() and (states_path(path).exists() or not keep_states))
    ]


def states_path(column: Path) -> Path:
    """Where the store keeps the last hidden states that a column was read off."""
    return column.with_suffix(".states")


def switching(
    parts: dict[str, Windows], seq_len: int, per_pair: int = 12, end: int = 0
) -> dict[str, Windows]:
    """Documents that switch domain half-way: seq_len / 2 tokens of one, then of another.

    The same number for every ordered pair of domains; a made document has the role of its parts.

    Returns
    -------
    Windows by pair, named ``code → science``; one window a document.
    """
    half = seq_len // 2
    streams = {domain: _streams(windows, half) for domain, windows in parts.items()}
    made: dict[str, Windows] = {}
    for first in parts:
        for second in parts:
            if first == second:
                continue
            pairs = list(zip(streams[first], reversed(streams[second]), strict=False))[:per_pair]
            ids = [[*a[0], *b[0]] for a, b in pairs]
            documents = [corpora.joined(a[1], b[1], f"{first} → {second}") for a, b in pairs]
            made[f"{first} → {second}"] = packing.windows_of_ids(ids, documents, end, seq_len)
    return made


def _streams(windows: Windows, length: int) -> list[tuple[list[int], packing.Document]]:
    # The first window of a document starts behind the end-of-text token, so targets are its text.
    first = np.unique(windows.document, return_index=True)[1]
    rows = [(windows.targets[row], windows.documents[windows.document[row]]) for row in first]
    return [
        (row[:length].tolist(), document)
        for row, document in rows
        if (row[:length] != IGNORE).all()
    ]
