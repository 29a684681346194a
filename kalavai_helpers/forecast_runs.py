"""Runs for the forecast: short probes, the full runs they stand for, and what both scored.

A contributor trains all of its runs on one thread, contributors go side by side. Only scores are
kept: hundreds of small models would fill a disk, and nothing is asked of them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import artifacts, corpora, ledger, packing, parallel, training
from .ledger import Ledger
from .packing import IGNORE, Windows
from .specialists import BASE, CODE, SPECIALIST_FIELDS, Cooperative
from .tiers import Tier

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DOMAINS = ("code", "science", "fiction", "tamil", "yoruba", "welsh", "medical", "legal")
"""Asked of a source; the builtin text has the first six."""

PROBE_SHARE = 0.05
"""Most a probe takes of a full run's steps, with a whole schedule of its own."""

# Shares of the sweep's steps, of its blocks (frozen), of its width and of its training text. The
# first rows differ in steps alone; the others vary all, so that a row left out has neighbours.
_GRID = (
    (0.3, 0.25, 1.0, 1.0),
    (0.6, 0.25, 1.0, 1.0),
    (1.2, 0.25, 1.0, 1.0),
    (0.45, 0.0, 1.0, 1.0),
    (0.8, 0.5, 1.0, 1.0),
    (0.4, 0.75, 1.0, 0.05),
    (0.8, 0.0, 1.0, 0.05),
    (0.5, 0.5, 1.0, 0.05),
    (0.6, 0.5, 0.5, 1.0),
    (0.3, 0.0, 0.5, 0.05),
    (0.8, 0.25, 0.5, 1.0),
)
N_BUDGETS = 3
"""The first recipes of the grid: equal but for their steps."""


def recipes(tier: Tier) -> list[Tier]:
    """Recipes of the study, all varied; a base from the Hub keeps its width."""
    sweep = tier.sweep()
    return [
        replace(
            sweep,
            specialist_steps=round(steps * sweep.specialist_steps),
            frozen_layers=round(frozen * sweep.n_layers),
            hidden_size=sweep.hidden_size if sweep.hub_id else round(width * sweep.hidden_size),
            train_bytes=round(text * sweep.train_bytes),
            heldout_bytes=sweep.heldout_bytes // 2,
        )
        for steps, frozen, width, text in _GRID
    ]


def probe_steps(tier: Tier) -> int:
    """Steps of the probe of a recipe."""
    return max(2, int(PROBE_SHARE * tier.specialist_steps))


@dataclass(frozen=True)
class Run:
    """One recipe for all domains of the study.

    Attributes
    ----------
    base, probe
        Losses before and after the probes, on documents for router fitting: (D,) of the base and
        (D, D) of the probe of each domain (rows), nats/token.
    ledger
        The full runs on held-out documents; it has no features, so only evidence is routed.
    kl
        (D,) mean KL(specialist ‖ base) on the specialist's own held-out tokens, nats/token.
    tokens_per_s, text_bytes
        (D,) training speed of the full runs, on one thread, and UTF-8 bytes they had to read.
    """

    tier: Tier
    base: np.ndarray
    probe: np.ndarray
    ledger: Ledger
    kl: np.ndarray
    tokens_per_s: np.ndarray
    text_bytes: np.ndarray

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains in the order of all rows and columns."""
        return self.ledger.experts


def measure(tiers: Sequence[Tier], source: str, domains: tuple[str, ...], seed: int) -> list[Run]:
    """Train and score every recipe on every domain, or read the scores from the store.

    Parameters are those of :class:`specialists.Cooperative`, the tiers most often of
    :func:`recipes`.
    """
    made = [Cooperative(tier, source, domains, seed) for tier in tiers]
    for cooperative in {c.base_key: c for c in made}.values():
        cooperative.model(BASE)
    jobs = [name for name in (BASE, *domains) if not all(_path(one, name).exists() for one in made)]
    parallel.side_by_side([partial(_score_all, made, name) for name in jobs])
    shared: dict[str, Windows] = {}
    return [_assembled(one, shared) for one in made]


def _path(cooperative: Cooperative, name: str) -> Path:
    """Where the scores of a contributor's two runs are; its number of partners changes nothing."""
    tier = cooperative.tier
    key = artifacts.fingerprint(
        cooperative.base_key,
        {} if name == BASE else {field: getattr(tier, field) for field in SPECIALIST_FIELDS},
        [] if name == BASE else [d.id for d in cooperative.documents(name, "train")],
        tier.heldout_bytes,
        cooperative.domains,  # scored on the text of all
        0 if name == BASE else (cooperative.seed, probe_steps(tier)),
        _code(),
    )
    return artifacts.store() / "forecast" / f"{name}-{key}.safetensors"


@cache
def _code() -> str:
    return artifacts.code_digest(["forecast_runs", "ledger", *CODE])


def _score_all(cooperatives: list[Cooperative], name: str) -> None:
    windows: dict[str, tuple[list[Windows], list[Windows]]] = {}
    chunks: dict[tuple[str, int], packing.Chunks] = {}
    for one in cooperatives:
        path = _path(one, name)
        if path.exists():
            continue
        key = one.base_key
        if key not in windows:
            windows[key] = [one.windows("heldout", d) for d in one.domains], _probe_text(one)
        if name == BASE:
            _keep(path, one, one.model(BASE), one.model(BASE), windows[key], {})
            continue
        text = (key, one.tier.train_bytes)
        if text not in chunks:
            documents = one.documents(name, "train")
            chunks[text] = packing.pack(documents, one.tokenizer, one.tier.seq_len)
        models, facts = [], {"text_bytes": _n_bytes(one.documents(name, "train"))}
        for kind, steps in (("probe", probe_steps(one.tier)), ("full", one.tier.specialist_steps)):
            model, facts["tokens_per_s"] = _trained(one, name, kind, steps, chunks[text], path)
            models.append(model)
        _keep(path, one, *models, windows[key], facts)
        for kind in ("probe", "full"):
            path.with_suffix(f".{kind}").unlink()


def _n_bytes(documents: Sequence[packing.Document]) -> int:
    return sum(len(document.text.encode()) for document in documents)


def _probe_text(cooperative: Cooperative) -> list[Windows]:
    """Documents a probe is scored on: never the held-out ones, and half as much of them."""
    tier = replace(cooperative.tier, heldout_bytes=cooperative.tier.heldout_bytes // 2)
    half = replace(cooperative, tier=tier)
    return [
        packing.windows(half.documents(d, "router"), cooperative.tokenizer, tier.seq_len)
        for d in cooperative.domains
    ]


def _trained(
    cooperative: Cooperative, name: str, kind: str, steps: int, chunks: packing.Chunks, path: Path
) -> tuple[PreTrainedModel, float]:
    tier = cooperative.tier
    device, dtype, _ = tier.device()
    model = cooperative.model(BASE)
    seed, frozen = cooperative.seed, tier.frozen_layers
    history = training.train(
        model,
        chunks,
        training.Recipe(steps, tier.batch_size, tier.specialist_lr, seed, frozen),
        path.with_suffix(f".{kind}"),
        f"{kind} run {name}: {steps} steps, {frozen} frozen, width {tier.hidden_size}",
        device=device,
        autocast=dtype,
    )
    return model.eval(), history.tokens_per_s


def _keep(
    path: Path,
    cooperative: Cooperative,
    probe: PreTrainedModel,
    full: PreTrainedModel,
    windows: tuple[list[Windows], list[Windows]],
    facts: dict[str, float],
) -> None:
    """Score the runs of one contributor and store the scores."""
    heldout, router = windows
    for part, role in (*((p, "heldout") for p in heldout), *((p, "router") for p in router)):
        corpora.require_role(part.role, role, "A score of a full run or of its probe")
    device = cooperative.tier.device()[0]
    name = path.name.partition("-")[0]
    probe, full = probe.to(device), full.to(device)
    scores = {
        "probe": torch.tensor([training.mean_loss(probe, part) for part in router]),
        "heldout": ledger.score(full, packing.concatenate(heldout), f"scores of {path.stem}")[0],
        "kl": torch.zeros(()),
    }
    if name != BASE:
        own = heldout[cooperative.domains.index(name)]
        scores["kl"] = torch.tensor(kl_from_base(full, cooperative.model(BASE).to(device), own))
    artifacts.save_tensors(path, scores, facts)


@torch.no_grad()
def kl_from_base(
    model: PreTrainedModel, base: PreTrainedModel, windows: Windows, batch_size: int = 16
) -> float:
    """Mean over tokens of KL(p_model ‖ p_base) of the whole next-token distributions, nats/token.

    What the public page says that divergence is; no released code computes it.
    """
    device = next(model.parameters()).device
    total = 0.0
    for start in range(0, len(windows.input_ids), batch_size):
        rows = slice(start, start + batch_size)
        inputs = torch.from_numpy(windows.input_ids[rows]).to(device)
        real = torch.from_numpy(windows.targets[rows] != IGNORE).to(device)
        log_p, log_q = (m(inputs).logits[real].float().log_softmax(-1) for m in (model, base))
        total += float((log_p.exp() * (log_p - log_q)).sum(dtype=torch.float64))
    return total / windows.n_tokens


def _assembled(cooperative: Cooperative, shared: dict[str, Windows]) -> Run:
    saved = {name: _read(cooperative, name) for name in (BASE, *cooperative.domains)}
    key = cooperative.base_key
    if key not in shared:
        parts = [cooperative.windows("heldout", domain) for domain in cooperative.domains]
        shared[key] = packing.concatenate(parts)
    windows = shared[key]
    real = torch.from_numpy((windows.targets != IGNORE).sum(1))
    log_probs = torch.stack([tensors["heldout"] for tensors, _ in saved.values()], 1)
    group = [cooperative.domains.index(document.domain) for document in windows.documents]
    found = Ledger(
        models=tuple(saved),
        experts=cooperative.domains,
        groups=cooperative.domains,
        log_probs=log_probs,
        features=torch.zeros(len(log_probs), 0),
        document=torch.from_numpy(windows.document).repeat_interleave(real),
        window=torch.arange(len(real)).repeat_interleave(real),
        group=torch.tensor(group),
        n_bytes=torch.tensor([_n_bytes([document]) for document in windows.documents]),
        role=windows.role,
        source=np.array([document.unit for document in windows.documents]),
    )
    return Run(
        tier=cooperative.tier,
        base=saved[BASE][0]["probe"].double().numpy(),
        probe=np.stack([saved[d][0]["probe"].double().numpy() for d in cooperative.domains]),
        ledger=found,
        kl=np.array([float(saved[d][0]["kl"]) for d in cooperative.domains]),
        **{
            fact: np.array([saved[d][1][fact] for d in cooperative.domains])
            for fact in ("tokens_per_s", "text_bytes")
        },
    )


def _read(cooperative: Cooperative, name: str) -> tuple[dict[str, torch.Tensor], dict]:
    saved = artifacts.load_tensors(_path(cooperative, name))
    if saved is None:  # found truncated and set aside
        _score_all([cooperative], name)
        saved = artifacts.load_tensors(_path(cooperative, name))
    return saved


def choose(source: str) -> tuple[str, ...]:
    """Domains of the study that a text source offers."""
    return corpora.choose(source, DOMAINS)
