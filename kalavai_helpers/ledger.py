"""The token ledger: log p_i(x_t | x_<t) of every model for every held-out token.

One pass a model. From the ledger come, without touching a model again, any causal router's fused
loss under probability mixing, every oracle and every interval over sources and documents.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import artifacts, corpora, packing, progress
from .packing import IGNORE, Windows
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

    def restrict(self, domains: tuple[str, ...]) -> Ledger:
        """The ledger of the cooperative of some of the domains: their experts, their documents.

        The weight average is left out: it is of all specialists.
        """
        models = tuple(m for m in self.models if m in (BASE, *domains))
        keep = torch.isin(self.group, torch.tensor([self.groups.index(d) for d in domains]))
        tokens = keep[self.document]
        order = torch.full((len(self.groups),), -1)
        order[[self.groups.index(d) for d in domains]] = torch.arange(len(domains))
        return Ledger(
            models=models,
            experts=domains,
            groups=domains,
            log_probs=self.log_probs[tokens][:, [self.models.index(m) for m in models]],
            features=self.features[tokens],
            document=(keep.cumsum(0) - 1)[self.document[tokens]],
            window=self.window[tokens].unique_consecutive(return_inverse=True)[1],
            group=order[self.group[keep]],
            n_bytes=self.n_bytes[keep],
            role=self.role,
            source=self.source[keep.numpy()],
        )


@torch.no_grad()
def score(
    model: PreTrainedModel,
    windows: Windows,
    task: str,
    *,
    states: bool = False,
    batch_size: int = 16,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-probability of every token, (n,), and on request the last hidden states (n, F)."""
    device = next(model.parameters()).device
    found, kept = [], []
    for start in range(0, len(windows.input_ids), batch_size):
        rows = slice(start, start + batch_size)
        inputs = torch.from_numpy(windows.input_ids[rows]).to(device)
        targets = torch.from_numpy(windows.targets[rows]).to(device)
        output = model(inputs, output_hidden_states=states)
        real = targets != IGNORE
        chosen = output.logits[real].float().log_softmax(-1)
        found.append(chosen.gather(1, targets[real][:, None])[:, 0].cpu())
        if states:
            kept.append(compact(output.hidden_states[-1][real].float()).cpu())
        progress.report(task, min(rows.stop, len(windows.input_ids)), len(windows.input_ids))
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


def of_windows(cooperative: Cooperative, parts: dict[str, Windows], name: str) -> Ledger:
    """Ledger on given windows; ``parts`` maps a group (domain, kind of document) to its text.

    Its role is that of the documents; ``name`` only says in the store and in progress lines what
    it is.

    Raises
    ------
    RoleError
        If the documents have several roles.
    """
    joined = packing.concatenate(list(parts.values()))
    role = joined.role
    names = [BASE, *cooperative.domains]
    # The documents that routers are fitted on are never used to compare models.
    names += [WEIGHT_AVERAGE] if role != "router" else []
    path = artifacts.store() / "ledgers" / f"{name}-{_key(cooperative, joined)}.safetensors"
    saved = artifacts.load_tensors(path)
    if saved is None:
        tensors = _score_all(cooperative, joined, name, names)
        artifacts.save_tensors(path, tensors, {"models": names})
        saved = tensors, {}
    counts = torch.tensor([len(windows.documents) for windows in parts.values()])
    real = torch.from_numpy((joined.targets != IGNORE).sum(1))
    return Ledger(
        models=tuple(names),
        experts=cooperative.domains,
        groups=tuple(parts),
        log_probs=saved[0]["log_probs"],
        features=saved[0]["features"],
        document=torch.from_numpy(joined.document).repeat_interleave(real),
        window=torch.arange(len(real)).repeat_interleave(real),
        group=torch.arange(len(parts)).repeat_interleave(counts),
        n_bytes=torch.tensor([len(document.text.encode()) for document in joined.documents]),
        role=role,
        source=np.array([document.unit for document in joined.documents]),
    )


def _key(cooperative: Cooperative, windows: Windows) -> str:
    return artifacts.fingerprint(
        cooperative.fingerprint(),
        hashlib.sha256(windows.targets.tobytes()).hexdigest(),
        [document.id for document in windows.documents],
        artifacts.code_digest(["ledger", *CODE]),
    )


def _score_all(
    cooperative: Cooperative, windows: Windows, title: str, names: list[str]
) -> dict[str, torch.Tensor]:
    device, _, _ = cooperative.tier.device()
    columns: list[torch.Tensor] = []
    features = None
    for name in names:
        model = cooperative.model(name).to(device)
        log_probs, states = score(
            model, windows, f"ledger {title} {name} (seed {cooperative.seed})", states=name == BASE
        )
        features = states if states is not None else features
        columns.append(log_probs)
    return {"log_probs": torch.stack(columns, 1), "features": features}


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
